/* SPDX-License-Identifier: MIT */
/* One VM writes an image, or many read it. */
#include "host/disk_file.h"
#include "host/lock.h"

#include <errno.h>
#include <unistd.h>

static int say_locked(int fd, const char *path, bool shared, struct err *err)
{
    int64_t pid = lock_holder(fd);
    int r;

    if (pid == getpid())
        r = err_say(err, ERR_STATE, EBUSY, "%s is a disk of this VM already", path);
    else if (pid)
        r = err_say(err, ERR_STATE, EBUSY, "%s is in use by another VM (pid %lld)", path,
                    (long long)pid);
    else
        r = err_say(err, ERR_STATE, EBUSY, "%s is in use by another VM", path);
    if (!shared)
        err_hint(err, "give each VM a copy of the disk; many may share one that all open readonly");
    return r;
}

int disk_lock(int fd, const char *path, bool shared, struct err *err)
{
    int r = lock_outlast(fd, shared);

    if (r == 0)
        return 0;
    if (r == -EAGAIN)
        return say_locked(fd, path, shared, err);
    r = err_sys(err, ERR_HOST, -r, "cannot lock %s", path);
    err_hint(err, "its file system has to support locks");
    return r;
}
