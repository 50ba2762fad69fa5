/* SPDX-License-Identifier: MIT */
/* minivmm clone: a VM made from another one, which may run meanwhile. */
#include "cli/restoring.h"
#include "cli/run.h"
#include "cli/verbs.h"
#include "cli/vm_copy.h"
#include "cli/vms.h"
#include "core/log.h"
#include "ft/snapshot.h"
#include "host/small_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A plain name lies beside the VM, whatever that was called by. */
static int find_place(struct vm_copy *copy, const char *name, char path[PATH_MAX], struct err *err)
{
    char here[PATH_MAX] = "";
    const char *slash = strrchr(copy->from.path, '/');
    int length = (int)(slash - copy->from.path);

    bool beside = !strchr(name, '/') && getcwd(here, sizeof(here)) &&
                  ((int)strlen(here) != length ||
                   strncmp(copy->from.path, here, strlen(here)) != 0);
    if (snprintf(path, PATH_MAX, "%.*s%s%s", beside ? length : 0, copy->from.path,
                 beside ? "/" : "", name) >= PATH_MAX)
        return err_sys(err, ERR_USAGE, ENAMETOOLONG, "cannot make %.200s", name);
    copy->making.path = path;
    return place_find(&copy->making.place, path, err);
}

static void tell(const struct vm_copy *copy)
{
    const char *how = copy->with_memory ? "" : "; the clone boots as after a power cut";
    if (copy->runs)
        log_info("%s stood still for %.1f ms%s", copy->from.name,
                 json_number_value(json_object_get(copy->answer, "paused_ms")), how);
    if (!copy->with_memory)
        making_tell_ready(&copy->making, copy->making.path);
}

/* --- with its memory -------------------------------------------------------------------------- */

static int make_folder(const struct vm_copy *copy, const char *name, struct err *err)
{
    int folder = copy->making.folder.fd, fd = -1;
    if (mkdirat(folder, name, 0700) == 0)
        fd = openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return err_sys(err, ERR_FAILED, errno, "cannot make %s/%s", copy->making.path, name);
    small_file_give_to_owner(copy->from.fd, fd);
    return fd;
}

/* Memory and state are a snapshot by themselves, from which the VM starts: the disks are there. */
static int seal_memory(struct vm_copy *copy, int memory, struct err *err)
{
    static const char *const files[] = {SNAPSHOT_MEMORY, SNAPSHOT_STATE};
    for (size_t i = 0; i < array_size(files); i++)
        if (renameat(copy->making.folder.fd, files[i], memory, files[i]) < 0)
            return err_sys(err, ERR_FAILED, errno, "cannot move %s", files[i]);
    json_t *facts = json_pack("{ss, ss}", "vm", copy->from.name, "by", "minivmm " MINIVMM_VERSION);
    return facts ? snapshot_seal(memory, facts, NULL, err)
                 : err_sys(err, ERR_HOST, ENOMEM, "cannot make %s", copy->making.path);
}

/* Its disks go with this memory, and it boots only when it has come as far as that. */
static int prepare_start(struct vm_copy *copy, struct err *err)
{
    char path[PATH_MAX];
    const struct place *place = &copy->making.place;
    if (snprintf(path, sizeof(path), "%s/%s/" RUN_CLONED_MEMORY, place->path[1] ? place->path : "",
                 place->name) >= PATH_MAX)
        return err_sys(err, ERR_USAGE, ENAMETOOLONG, "cannot make %s", copy->making.path);
    int snapshots = make_folder(copy, FOLDER_SNAPSHOTS, err);
    if (snapshots < 0)
        return snapshots;
    close(snapshots);
    int memory = make_folder(copy, RUN_CLONED_MEMORY, err);
    if (memory < 0)
        return memory;
    int ret = seal_memory(copy, memory, err);
    close(memory);
    return ret == 0 ? restoring_begin(&copy->making.folder, path, err) : ret;
}

/* --- the verb --------------------------------------------------------------------------------- */

enum { CLONE_MEMORY, CLONE_HELP };

static int take_option(void *ctx, int what, const char *value, struct err *err)
{
    struct vm_copy *copy = ctx;
    copy->with_memory |= what == CLONE_MEMORY;
    return 0;
}

int verb_clone(int argc, char **argv)
{
    static const struct option table[] = {
        [CLONE_MEMORY] = {"memory", 0, NULL, "with the memory: it runs, in the background"},
        [CLONE_HELP] = {"help", 'h', NULL, "this text"},
    };
    struct err err = {0};
    char path[PATH_MAX];
    struct vm_copy copy = VM_COPY_INIT;
    struct verb_words words = {.verb = "clone",
                               .take = take_option,
                               .ctx = &copy,
                               .table = table,
                               .count = array_size(table),
                               .examples = "Examples:\n"
                                           "  minivmm clone web1 web2\n"
                                           "  minivmm clone web1 /srv/vms/web2\n"
                                           "  minivmm clone --memory web1 web2\n"
                                           "\n"
                                           "Usage: minivmm clone VM NAME [OPTION...]\n"
                                           "\n"
                                           "Makes a copy of a VM, which may run meanwhile: a VM of "
                                           "its own, with the same\n"
                                           "disks. NAME lies beside the VM, unless it has a path. "
                                           "The copies take no space\n"
                                           "where the file system can share it. It boots, unless "
                                           "the memory of a VM that runs\n"
                                           "is cloned too: then it goes on where that one is.\n",
                               .least = 2,
                               .most = 2,
                               .missing = "a VM and the name of its clone are wanted"};
    int ret = verb_words_read(&words, argc, argv, &err);
    if (ret != 0)
        return ret < 0 ? fail(&err) : 0;
    copy.word = words.words[0];
    making_hold_signals(&copy.making);
    ret = vm_copy_open(&copy, &err);
    if (ret == 0)
        ret = find_place(&copy, words.words[1], path, &err);
    if (ret == 0)
        ret = vm_copy_make(&copy, copy.with_memory ? prepare_start : NULL, &err);
    if (ret == 0)
        tell(&copy);
    vm_copy_close(&copy);
    int code = ret < 0 ? fail(&err) : 0;
    making_let_signals(&copy.making);
    return ret == 0 && copy.with_memory ? run_clone(path) : code;
}
