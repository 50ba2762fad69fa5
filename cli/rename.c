/* SPDX-License-Identifier: MIT */
/* minivmm rename and minivmm remove. */
#include "cli/hold.h"
#include "cli/news.h"
#include "cli/place.h"
#include "cli/table.h"
#include "cli/verbs.h"
#include "cli/vms.h"
#include "core/log.h"
#include "ft/protection.h"
#include "host/tree.h"
#include "vmm/definition.h"
#include "vmm/identity.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A VM that nobody else can start, change or remove until it is closed. */
struct taken {
    struct folder folder;
    struct place place;
};

static void give_back(struct taken *taken)
{
    place_close(&taken->place);
    folder_close(&taken->folder);
}

static int take(struct taken *taken, const char *word, struct err *err)
{
    *taken = (struct taken){.folder = {.fd = -1, .lock = -1}, .place.parent = -1};
    int ret = place_refuse_link(word, err);
    if (ret == 0)
        ret = folder_open(&taken->folder, word, err);
    if (ret == 0)
        ret = hold_vm(&taken->folder, err);
    if (ret == 0)
        ret = place_of(&taken->place, &taken->folder, err);
    if (ret < 0)
        give_back(taken);
    return ret;
}

/* --- rename ----------------------------------------------------------------------------------- */

/* For the next run's judgement a copy that was never run is still a copy. */
static void settle_identity(struct folder *folder, bool keep)
{
    struct identity identity = {0};
    struct err err = {0};
    struct news news = {0};

    if (news_settle(&news, &identity, folder, keep, &err) < 0)
        log_err(LOG_WARNING, &err);
    else if (news.found == IDENTITY_COPIED)
        news_tell(&news, &identity, folder, false);
    identity_finish(&identity);
}

/*
 * It knows its birthplace by the folder itself and by its path: the latter is written anew, or a
 * copy that is made before the next run would be taken for the folder, moved. Without an identity,
 * or with a damaged file, there is nothing to do that the next run does not do or say.
 */
static void renew_identity(struct taken *taken, const char *name)
{
    struct folder *folder = &taken->folder;
    struct definition *definition = NULL;
    struct identity identity = {0};
    char *path = NULL, *copy = strdup(name);

    if (!copy ||
        asprintf(&path, "%s/%s", taken->place.path[1] ? taken->place.path : "", name) < 0) {
        free(copy);
        return;
    }
    free(folder->path);
    free(folder->name);
    folder->path = path;
    folder->name = copy;
    if (identity_read(&identity, folder, NULL) == 0 &&
        definition_load(&definition, folder->path, NULL, NULL) == 0)
        settle_identity(folder, definition->keep_identity);
    identity_finish(&identity);
    definition_destroy(definition);
}

static int rename_vm(const char *word, const char *name, struct err *err)
{
    struct taken taken;
    int ret = folder_check_name(name, err);
    if (ret < 0) {
        if (strchr(name, '/'))
            err_hint(err, "to move it to another folder: mv %s %s", word, name);
        return ret;
    }
    ret = take(&taken, word, err);
    if (ret < 0)
        return ret;
    ret = tree_move(taken.place.parent, taken.place.name, taken.place.parent, name, err);
    if (ret == 0) {
        log_info("%s is %s now", taken.place.name, name);
        renew_identity(&taken, name);
    }
    give_back(&taken);
    return ret;
}

int verb_rename(int argc, char **argv)
{
    static const struct option table[] = {{"help", 'h', NULL, "this text"}};
    struct err err = {0};
    struct verb_words words = {.verb = "rename",
                               .table = table,
                               .count = array_size(table),
                               .examples = "Examples:\n"
                                           "  minivmm rename web1 web-old\n"
                                           "  minivmm rename /srv/vms/web1 web-old\n"
                                           "\n"
                                           "Usage: minivmm rename VM NAME\n"
                                           "\n"
                                           "Gives a VM that does not run another name: that of "
                                           "its folder. It stays the same VM.\n",
                               .least = 2,
                               .most = 2,
                               .missing = "a VM and its new name are wanted"};
    int ret = verb_words_read(&words, argc, argv, &err);
    if (ret != 0)
        return ret < 0 ? fail(&err) : 0;
    return rename_vm(words.words[0], words.words[1], &err) < 0 ? fail(&err) : 0;
}

/* --- remove ----------------------------------------------------------------------------------- */

enum { REMOVE_YES, REMOVE_FORCE, REMOVE_HELP };

struct remove_wish {
    bool yes, force;
};

static int take_remove_option(void *ctx, int what, const char *value, struct err *err)
{
    struct remove_wish *wish = ctx;
    wish->yes |= what == REMOVE_YES;
    wish->force |= what == REMOVE_FORCE;
    return 0;
}

/* The other half of a protected VM counts on this one. A copy's protection is not its own. */
static int refuse_protected(const struct folder *folder, struct err *err)
{
    struct protection protection;
    int ret = protection_find(&protection, folder, err);
    if (ret == -ENOENT || ret == -ESTALE || (ret == 0 && protection.role == PROTECTION_OFF))
        return 0;
    if (ret == 0) {
        const char *peer = protection.peer[0] ? protection.peer : "another host";
        bool is_twin = protection.role == PROTECTION_TWIN;
        if (is_twin)
            ret = err_say(err, ERR_STATE, EBUSY, "%s is the twin of a VM at %s", folder->name,
                          peer);
        else
            ret = err_say(err, ERR_STATE, EBUSY, "%s is protected, by a twin at %s", folder->name,
                          peer);
        err_hint(err, "minivmm unprotect %s%s; remove --force removes it all the same",
                 folder->name, is_twin ? ", over there, leaves this folder" : " ends that");
    } else {
        err_hint(err, "minivmm remove --force %s removes it all the same", folder->name);
    }
    return ret;
}

static bool is_inside(const struct folder *folder, const char *path)
{
    size_t length = strlen(folder->path);
    char *real = realpath(path, NULL);
    bool inside = real && strncmp(real, folder->path, length) == 0 && real[length] == '/';
    free(real);
    return inside;
}

/* A vm.json that cannot be read names no disks. */
static void tell_what_stays(const struct folder *folder)
{
    struct definition *definition;
    if (definition_load(&definition, folder->path, NULL, NULL) < 0)
        return;
    for (unsigned i = 0; i < definition->disk_count; i++) {
        const char *path = definition->disks[i].path;
        if (access(path, F_OK) == 0 && !is_inside(folder, path))
            log_info("%s stays: it is a disk of %s outside of its folder", path, folder->name);
    }
    definition_destroy(definition);
}

static void describe(const struct tree_size *tree, char *ret_text, size_t size)
{
    char bytes[32];
    format_size(tree->bytes, bytes, sizeof(bytes));
    snprintf(ret_text, size, "%llu file%s, %s", (unsigned long long)tree->files,
             tree->files == 1 ? "" : "s", bytes);
}

/* 1: yes. */
static int ask(const char *word, const char *what, struct err *err)
{
    char answer[16] = "";
    if (!isatty(STDIN_FILENO) || !isatty(STDERR_FILENO)) {
        int ret = err_say(err, ERR_USAGE, EPERM, "%s would be removed for ever (%s)", word, what);
        err_hint(err, "there is no terminal to ask: minivmm remove %s --yes", word);
        return ret;
    }
    fprintf(stderr, "remove %s for ever: %s? [y/N] ", word, what);
    fflush(stderr);
    if (!fgets(answer, sizeof(answer), stdin))
        fprintf(stderr, "\n");
    if (strcmp(answer, "y\n") == 0 || strcmp(answer, "Y\n") == 0 || strcmp(answer, "yes\n") == 0)
        return 1;
    return err_say(err, ERR_FAILED, ECANCELED, "%s stays", word);
}

/* Under a name by which nobody finds a VM first: it is gone at once, whatever comes between. */
static int remove_taken(struct taken *taken, const char *word, struct err *err)
{
    const struct place *place = &taken->place;
    char hidden[NAME_MAX + 1];

    place_removed_name(place, hidden);
    int ret = tree_move(place->parent, place->name, place->parent, hidden, err);
    if (ret < 0)
        return ret;
    ret = tree_remove(place->parent, hidden, err);
    if (ret < 0) {
        err_prefix(err, "%s is removed, but not all of it", word);
        err_hint(err, "the rest is in %s/%s", place->path, hidden);
    }
    (void)fsync(place->parent);
    return ret;
}

static int remove_vm(const char *word, const void *ctx, struct err *err)
{
    const struct remove_wish *wish = ctx;
    struct taken taken;
    struct tree_size size;
    char what[80];
    int ret = take(&taken, word, err);
    if (ret < 0)
        return ret;
    ret = wish->force ? 0 : refuse_protected(&taken.folder, err);
    if (ret < 0)
        goto out;
    ret = tree_measure(taken.place.parent, taken.place.name, &size, err);
    if (ret < 0) {
        err_prefix(err, "%s", word);
        goto out;
    }
    describe(&size, what, sizeof(what));
    tell_what_stays(&taken.folder);
    ret = wish->yes ? 1 : ask(word, what, err);
    if (ret > 0)
        ret = remove_taken(&taken, word, err);
    if (ret == 0)
        log_info("%s is removed: %s", word, what);
    if (ret == 0)
        place_sweep(&taken.place);
out:
    give_back(&taken);
    return ret;
}

int verb_remove(int argc, char **argv)
{
    static const struct option table[] = {
        [REMOVE_YES] = {"yes", 'y', NULL, "do not ask"},
        [REMOVE_FORCE] = {"force", 0, NULL, "a protected VM, or a twin, too"},
        [REMOVE_HELP] = {"help", 'h', NULL, "this text"},
    };
    struct remove_wish wish = {0};
    struct err err = {0};
    struct verb_words words = {.verb = "remove",
                               .table = table,
                               .count = array_size(table),
                               .examples = "Examples:\n"
                                           "  minivmm remove web1\n"
                                           "  minivmm remove --yes test1 test2\n"
                                           "\n"
                                           "Usage: minivmm remove VM... [OPTION...]\n"
                                           "\n"
                                           "Removes the folders of VMs that do not run, with all "
                                           "that is in them: disks,\n"
                                           "snapshots, journal. Disks that lie elsewhere stay.\n",
                               .take = take_remove_option,
                               .ctx = &wish,
                               .least = 1,
                               .most = 64,
                               .missing = "which VM?"};
    int ret = verb_words_read(&words, argc, argv, &err);
    if (ret != 0)
        return ret < 0 ? fail(&err) : 0;
    return verb_words_each(&words, remove_vm, &wish);
}
