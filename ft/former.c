/* SPDX-License-Identifier: MIT */
#include "ft/former.h"

#include "ft/asker.h"
#include "ft/protection.h"
#include "host/tree.h"
#include "vmm/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static void aside_name(const char *name, char ret_name[NAME_MAX + 1])
{
    snprintf(ret_name, NAME_MAX + 1, ".%.200s.former", name);
}

static int check_theirs(const char *name, const struct following *following, const uint8_t uuid[16],
                        struct err *err)
{
    const struct asker_look look = {
        .witness = following->witness, .uuid = uuid, .known = true, .patience_ms = ASKER_LOOK_MS};
    struct ft_record record;
    struct err why = {0};
    int ret = asker_look(&look, &record, &why);
    if (ret == -ETIMEDOUT) {
        err_prefix(&why, "%s is at the twin's host already, and whose it is is not known there",
                   name);
        if (err)
            *err = why;
        return ret;
    }
    return ret == 0 && record.owner == following->node && record.generation == following->generation
               ? 0
               : -EEXIST;
}

/* By the witness that this folder has always had: who comes could name one of his own. -EEXIST: it
 * is none. One that hangs says neither: the folder stays as it is, and its disks are not made anew
 * in vain. */
static int check_former(int fd, const char *name, const uint8_t uuid[16],
                        const struct following *following, struct err *err)
{
    struct protection protection;
    if (protection_read(&protection, fd, NULL) < 0 ||
        memcmp(protection.uuid, uuid, sizeof(protection.uuid)) != 0 ||
        protection.node == following->node || strcmp(protection.witness, following->witness) != 0)
        return -EEXIST;
    return check_theirs(name, following, uuid, err);
}

/* Who has been killed holds it for a moment longer, until the kernel has cleared up. */
static int hold(struct folder *folder)
{
    enum { TRIES = 100 };
    const struct timespec moment = {.tv_nsec = 20000000};
    int ret = folder_lock(folder, NULL);
    for (unsigned i = 0; i < TRIES && ret == -EBUSY; i++) {
        nanosleep(&moment, NULL);
        ret = folder_lock(folder, NULL);
    }
    return ret;
}

int former_put_aside(int place, const char *name, const uint8_t uuid[16],
                     const struct following *following, struct err *err)
{
    char aside[NAME_MAX + 1], path[PATH_MAX];
    struct folder folder = {.fd = -1, .lock = -1};
    struct stat there;
    if (following->generation == 0)
        return -EEXIST;
    snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", place, name);
    if (folder_open(&folder, path, NULL) < 0)
        return -EEXIST;
    int ret = check_former(folder.fd, name, uuid, following, err);
    if (ret == 0)
        ret = hold(&folder);
    if (ret == -EBUSY)
        ret = err_say(err, ERR_STATE, EBUSY, "%s runs here, and cannot be its own twin", name);
    aside_name(name, aside);
    /* One that was put aside before is older than this one. */
    if (ret == 0 && fstatat(place, aside, &there, AT_SYMLINK_NOFOLLOW) == 0)
        ret = tree_remove(place, aside, err);
    if (ret == 0)
        ret = tree_move(place, name, place, aside, err);
    folder_close(&folder);
    return ret;
}

int former_open(int place, const char *name, const uint8_t uuid[16],
                const struct following *following, struct err *err)
{
    char aside[NAME_MAX + 1];
    aside_name(name, aside);
    int former = openat(place, aside, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (former < 0)
        return -ENOENT;
    int ret = check_former(former, name, uuid, following, err);
    if (ret == 0)
        return former;
    close(former);
    return ret;
}

void former_put_back(int place, const char *name)
{
    char aside[NAME_MAX + 1];
    aside_name(name, aside);
    (void)!tree_move(place, aside, place, name, NULL);
}

void former_remove(int place, const char *name, int folder)
{
    char aside[NAME_MAX + 1];
    aside_name(name, aside);
    int former = openat(place, aside, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (former < 0)
        return;
    (void)!journal_inherit(former, folder, NULL); /* what befell it here; it runs without, too */
    int ret = tree_move(former, FOLDER_SNAPSHOTS, folder, FOLDER_SNAPSHOTS, NULL);
    close(former);
    if (ret == 0 || ret == -ENOENT) /* else it keeps them */
        (void)!tree_remove(place, aside, NULL);
}
