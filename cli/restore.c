/* SPDX-License-Identifier: MIT */
/*
 * minivmm restore: a VM goes back to what one of its snapshots holds.
 *
 *   1. the snapshot is whole
 *   2. its files are copied beside those of the VM, under other names; until here nothing has
 *      changed, and whatever goes wrong, nothing will have
 *   3. the mark (cli/restoring.h) says what is going on
 *   4. they take the places of the VM's files
 *   5. the VM starts from the snapshot's memory, and the mark goes
 */
#include "cli/hold.h"
#include "cli/making.h"
#include "cli/place.h"
#include "cli/progress.h"
#include "cli/restoring.h"
#include "cli/run.h"
#include "cli/verbs.h"
#include "cli/vms.h"
#include "core/log.h"
#include "ft/changes_file.h"
#include "ft/protection.h"
#include "ft/snapshot.h"
#include "host/copy.h"
#include "host/small_file.h"
#include "host/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEPT_DEFINITION FOLDER_DEFINITION ".before-restore"

struct restore {
    struct folder vm;
    struct snapshot snapshot;
    char path[PATH_MAX]; /* of the snapshot */
    struct progress progress;
    struct making signals; /* only to hold them, while there are files that would be left */
    bool verify, disks_only, detach;
};

static bool handle_progress(void *ctx, uint64_t done, uint64_t total)
{
    struct restore *restore = ctx;
    progress_tell(&restore->progress, done, total);
    return !making_is_interrupted(&restore->signals);
}

static void handle_file(void *ctx, const char *file)
{
    struct restore *restore = ctx;
    progress_end(&restore->progress);
    progress_begin(&restore->progress, file);
}

static int open_snapshot(struct restore *restore, const char *name, struct err *err)
{
    const struct copy_progress progress = {.tell = handle_progress, .ctx = restore};
    const struct snapshot_check check = {
        .always = restore->verify, .progress = &progress, .begins = handle_file, .ctx = restore};
    int ret = folder_check_name(name, NULL);
    if (ret < 0)
        return err_say(err, ERR_USAGE, EINVAL, "\"%.100s\" cannot be a snapshot's name", name);
    if ((size_t)snprintf(restore->path, sizeof(restore->path), "%s/" FOLDER_SNAPSHOTS "/%s",
                         restore->vm.path, name) >= sizeof(restore->path))
        return err_sys(err, ERR_USAGE, ENAMETOOLONG, "snapshot %.200s", name);
    if (access(restore->path, F_OK) < 0) {
        ret = err_say(err, ERR_NOT_FOUND, ENOENT, "%s has no snapshot %s", restore->vm.name, name);
        err_hint(err, "minivmm snapshots %s lists them", restore->vm.path);
        return ret;
    }
    char *whole = realpath(restore->path, NULL); /* the snapshots may lie somewhere else */
    if (whole)
        snprintf(restore->path, sizeof(restore->path), "%s", whole);
    free(whole);
    ret = snapshot_open(&restore->snapshot, restore->path, err);
    if (ret == 0) {
        progress_begin(&restore->progress, "checking");
        ret = snapshot_verify(&restore->snapshot, &check, err);
        progress_end(&restore->progress);
    }
    return ret;
}

/* --- files ------------------------------------------------------------------------------------ */

/* "b.img" becomes ".b.img.new". */
static void name_of_new(const char *name, char ret_name[NAME_MAX + 8])
{
    snprintf(ret_name, NAME_MAX + 8, ".%s.new", name);
}

static bool is_the_vms(const char *name)
{
    return strcmp(name, SNAPSHOT_MEMORY) != 0 && strcmp(name, SNAPSHOT_STATE) != 0;
}

/* The two folders in which a file lies, there and here, and its name in them. */
struct ends {
    int from, to;
    const char *name;
};

static int open_ends(const struct restore *restore, const char *path, struct ends *ret_ends,
                     struct err *err)
{
    struct ends ends;
    ends.from = tree_open_parent(restore->snapshot.folder, path, false, &ends.name);
    ends.to = ends.from < 0 ? ends.from : tree_open_parent(restore->vm.fd, path, true, &ends.name);
    if (ends.to < 0) {
        if (ends.from >= 0)
            close(ends.from);
        return err_sys(err, ERR_FAILED, -ends.to, "cannot make %s/%s", restore->vm.path, path);
    }
    *ret_ends = ends;
    return 0;
}

static void close_ends(const struct ends *ends)
{
    close(ends->from);
    close(ends->to);
}

static int copy_one(struct restore *restore, const char *path, struct err *err)
{
    const struct copy_progress progress = {.tell = handle_progress, .ctx = restore};
    char new_name[NAME_MAX + 8];
    struct ends ends;
    int ret = open_ends(restore, path, &ends, err);
    if (ret < 0)
        return ret;
    name_of_new(ends.name, new_name);
    unlinkat(ends.to, new_name, 0); /* of one that was killed */
    progress_begin(&restore->progress, path);
    ret = copy_file(ends.from, ends.name, ends.to, new_name, &progress, NULL, err);
    progress_end(&restore->progress);
    int fd = ret == 0 ? openat(ends.to, new_name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC) : -1;
    if (fd >= 0) {
        small_file_give_to_owner(restore->vm.fd, fd);
        close(fd);
    }
    close_ends(&ends);
    return ret;
}

static void remove_copies(const struct restore *restore)
{
    char new_name[NAME_MAX + 8];
    struct ends ends;
    const char *path;
    json_t *said;
    json_object_foreach(json_object_get(restore->snapshot.facts, "files"), path, said)
    {
        if (!is_the_vms(path) || open_ends(restore, path, &ends, NULL) < 0)
            continue;
        name_of_new(ends.name, new_name);
        unlinkat(ends.to, new_name, 0);
        close_ends(&ends);
    }
}

static int copy_all(struct restore *restore, struct err *err)
{
    const char *name;
    json_t *said;
    json_object_foreach(json_object_get(restore->snapshot.facts, "files"), name, said)
    {
        int ret = is_the_vms(name) ? copy_one(restore, name, err) : 0;
        if (ret < 0) {
            remove_copies(restore);
            return ret;
        }
    }
    return 0;
}

/* Whether it still says what the snapshot's does: nobody has changed it since. */
static bool has_same_definition(const struct restore *restore)
{
    const char *then = json_string_value(
        json_object_get(restore->snapshot.facts, SNAPSHOT_DEFINITION));
    char now[9], copied[9];
    if (snapshot_sum_definition(restore->vm.fd, now) < 0)
        return false;
    return (then && strcmp(then, now) == 0) ||
           (snapshot_sum_definition(restore->snapshot.folder, copied) == 0 &&
            strcmp(copied, now) == 0);
}

/* What somebody has written by hand since is not lost: it gets one more name, which is free. There
 * is a vm.json at every moment. */
static int keep_definition(const struct restore *restore, struct err *err)
{
    char kept[64];
    for (unsigned i = 1; i < 1000; i++) {
        snprintf(kept, sizeof(kept), i > 1 ? KEPT_DEFINITION ".%u" : KEPT_DEFINITION, i);
        if (linkat(restore->vm.fd, FOLDER_DEFINITION, restore->vm.fd, kept, 0) == 0)
            break;
        if (errno == ENOENT)
            return 0;
        if (errno != EEXIST &&
            copy_file(restore->vm.fd, FOLDER_DEFINITION, restore->vm.fd, kept, NULL, NULL, err) < 0)
            return err_sys(err, ERR_FAILED, errno, "cannot keep " FOLDER_DEFINITION);
        if (errno != EEXIST)
            break;
    }
    log_info("%s has the " FOLDER_DEFINITION " of the snapshot again; the one until now is %s",
             restore->vm.name, kept);
    return 0;
}

static int move_one(const struct restore *restore, const char *path, struct err *err)
{
    char new_name[NAME_MAX + 8];
    struct ends ends;
    int ret = open_ends(restore, path, &ends, err);
    if (ret < 0)
        return ret;
    name_of_new(ends.name, new_name);
    bool is_definition = strcmp(path, FOLDER_DEFINITION) == 0;
    if (is_definition && has_same_definition(restore)) {
        unlinkat(ends.to, new_name, 0);
    } else {
        ret = is_definition ? keep_definition(restore, err) : 0;
        if (ret == 0 && (renameat(ends.to, new_name, ends.to, ends.name) < 0 || fsync(ends.to) < 0))
            ret = err_sys(err, ERR_FAILED, errno, "cannot put %s into its place", path);
    }
    close_ends(&ends);
    return ret;
}

static int move_all(struct restore *restore, struct err *err)
{
    const char *path;
    json_t *said;
    json_object_foreach(json_object_get(restore->snapshot.facts, "files"), path, said)
    {
        int ret = is_the_vms(path) ? move_one(restore, path, err) : 0;
        if (ret < 0)
            return ret;
    }
    /* These disks have nothing in common with a twin's. */
    int ret = changes_file_remove(restore->vm.fd);
    return ret < 0 ? err_sys(err, ERR_FAILED, -ret, "cannot remove " FOLDER_CHANGES) : 0;
}

/* What another host has taken over stays as it is here. */
static int check_protection(const struct folder *folder, struct err *err)
{
    struct protection protection;
    int ret = protection_find(&protection, folder, err);
    if (ret == 0)
        return protection_check(&protection, folder->name, NULL, err);
    return ret == -ENOENT || ret == -ESTALE ? 0 : ret;
}

static int prepare(struct restore *restore, const char *word, const char *name, struct err *err)
{
    int ret = place_open_vm(&restore->vm, word, err);
    if (ret == 0)
        ret = hold_vm(&restore->vm, err);
    if (ret == 0)
        ret = check_protection(&restore->vm, err);
    if (ret == 0)
        ret = open_snapshot(restore, name, err);
    if (ret == 0 && restore->snapshot.has_memory && !restore->disks_only)
        ret = snapshot_check_host(&restore->snapshot, err);
    if (ret == 0)
        ret = copy_all(restore, err);
    if (ret == 0 && making_is_interrupted(&restore->signals)) {
        ret = err_say(err, ERR_FAILED, ECANCELED, "interrupted: nothing was restored");
        remove_copies(restore);
    }
    if (ret == 0 && (ret = restoring_begin(&restore->vm, restore->path, err)) < 0)
        remove_copies(restore);
    return ret == 0 ? move_all(restore, err) : ret;
}

/* --- the verb --------------------------------------------------------------------------------- */

enum { RESTORE_DETACH, RESTORE_DISKS, RESTORE_VERIFY, RESTORE_HELP };

static int take_option(void *ctx, int what, const char *value, struct err *err)
{
    struct restore *restore = ctx;
    restore->detach |= what == RESTORE_DETACH;
    restore->disks_only |= what == RESTORE_DISKS;
    restore->verify |= what == RESTORE_VERIFY;
    return 0;
}

/* The lock goes to the run, which looks at the mark. */
static int go_on(struct restore *restore)
{
    char *folder = strdup(restore->vm.path);
    bool runs = restore->snapshot.has_memory && !restore->disks_only;
    int code = ERR_HOST;
    if (!runs) {
        restoring_end(&restore->vm);
        log_info("%s has the disks of the snapshot: minivmm run %s", restore->vm.name,
                 restore->vm.name);
    }
    snapshot_close(&restore->snapshot);
    folder_close(&restore->vm);
    if (folder)
        code = runs ? run_from_snapshot(folder, restore->path, restore->detach) : 0;
    free(folder);
    return code;
}

int verb_restore(int argc, char **argv)
{
    static const struct option table[] = {
        [RESTORE_DETACH] = {"detach", 0, NULL, "in the background: the command ends when it runs"},
        [RESTORE_DISKS] = {"disks", 0, NULL, "only the disks: the VM does not run, and boots anew"},
        [RESTORE_VERIFY] = {"verify", 0, NULL, "read all of the snapshot first, in any case"},
        [RESTORE_HELP] = {"help", 'h', NULL, "this text"},
    };
    struct err err = {0};
    struct restore restore = {.vm = {.fd = -1, .lock = -1},
                              .signals = MAKING_INIT,
                              .snapshot = {.folder = -1, .memory = -1}};
    struct verb_words words = {
        .verb = "restore",
        .table = table,
        .count = array_size(table),
        .examples = "Examples:\n"
                    "  minivmm restore web1 before-upgrade\n"
                    "  minivmm restore web1 before-upgrade --detach\n"
                    "\n"
                    "Usage: minivmm restore VM NAME [OPTION...]\n"
                    "\n"
                    "The VM goes back to its snapshot NAME: what its disks have got since is "
                    "lost. Where the\n"
                    "snapshot is of a running VM it runs on from there, with its console on this "
                    "terminal.\n"
                    "The snapshot stays as it is. A VM that runs must be stopped first.\n",
        .take = take_option,
        .ctx = &restore,
        .least = 2,
        .most = 2,
        .missing = "a VM and the name of a snapshot are wanted"};
    int ret = verb_words_read(&words, argc, argv, &err);
    if (ret != 0)
        return ret < 0 ? fail(&err) : 0;
    making_hold_signals(&restore.signals);
    ret = prepare(&restore, words.words[0], words.words[1], &err);
    making_let_signals(&restore.signals);
    if (ret == 0)
        return go_on(&restore);
    snapshot_close(&restore.snapshot);
    folder_close(&restore.vm);
    return fail(&err);
}
