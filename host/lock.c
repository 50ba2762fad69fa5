/* SPDX-License-Identifier: MIT */
/*
 * Such a lock belongs to nobody as far as F_OFD_GETLK and /proc/locks are concerned. Who has the
 * file open and locked stands in /proc/PID/fdinfo, for those processes that we may look at.
 */
#include "host/lock.h"

#include "core/clock.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { PATH_SPACE = 320 };

/* How long the kernel may take to end what a process left behind, and how often we look. */
static const uint64_t ghost_ns = 2 * NS_PER_SEC, look_ns = 2000000;

/* Locks end where marks begin: no file has bytes there. */
static const off_t marks = (off_t)1 << 62;

int lock_try(int fd, bool shared)
{
    struct flock lock = {
        .l_type = shared ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET, .l_len = marks};

    if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
        return 0;
    return errno == EACCES ? -EAGAIN : -errno; /* POSIX leaves the choice between these two */
}

/* It could be waited for by a thread alone: such a lock tells nobody that it is free. */
int lock_outlast(int fd, bool shared)
{
    int r = lock_try(fd, shared);

    if (r != -EAGAIN || lock_holder(fd))
        return r;
    const struct timespec nap = clock_timespec(look_ns);
    uint64_t until = clock_monotonic_ns() + ghost_ns;
    while (r == -EAGAIN && clock_monotonic_ns() < until) {
        nanosleep(&nap, NULL);
        r = lock_try(fd, shared);
    }
    return r;
}

void lock_let_go(int fd)
{
    struct flock lock = {.l_type = F_UNLCK, .l_whence = SEEK_SET};

    (void)fcntl(fd, F_OFD_SETLK, &lock);
}

static bool is_locked(int fd, off_t start, off_t length)
{
    struct flock lock = {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start, .l_len = length};

    return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

bool lock_is_held(int fd)
{
    return is_locked(fd, 0, marks);
}

/* With one on either side, and none beyond what an offset can be. */
static off_t mark_of(uint64_t place)
{
    return marks + 1 + (off_t)(place & ((UINT64_C(1) << 61) - 1));
}

int lock_mark(int fd, uint64_t place)
{
    struct flock lock = {
        .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = mark_of(place), .l_len = 1};

    return fcntl(fd, F_OFD_SETLK, &lock) == 0 ? 0 : -errno;
}

bool lock_has_mark(int fd, uint64_t place)
{
    off_t at = mark_of(place);

    return is_locked(fd, at, 1) && !is_locked(fd, at - 1, 1) && !is_locked(fd, at + 1, 1);
}

static bool has_lock(const char *pid, const char *fd)
{
    char path[PATH_SPACE], line[256];
    bool locked = false;

    snprintf(path, sizeof(path), "/proc/%.20s/fdinfo/%.20s", pid, fd);
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    while (!locked && fgets(line, sizeof(line), file))
        locked = strncmp(line, "lock:", 5) == 0 && strstr(line, "OFDLCK");
    fclose(file);
    return locked;
}

static bool holds(const char *pid, const struct stat *locked)
{
    char path[PATH_SPACE];
    struct dirent *entry;
    struct stat stat;
    bool found = false;

    snprintf(path, sizeof(path), "/proc/%.20s/fd", pid);
    DIR *fds = opendir(path);
    if (!fds)
        return false;
    while (!found && (entry = readdir(fds)))
        found = isdigit((unsigned char)entry->d_name[0]) &&
                fstatat(dirfd(fds), entry->d_name, &stat, 0) == 0 &&
                stat.st_dev == locked->st_dev && stat.st_ino == locked->st_ino &&
                has_lock(pid, entry->d_name);
    closedir(fds);
    return found;
}

int64_t lock_holder(int fd)
{
    struct dirent *entry;
    struct stat stat;
    int64_t pid = 0;

    DIR *processes = opendir("/proc");
    if (!processes)
        return 0;
    while (fstat(fd, &stat) == 0 && !pid && (entry = readdir(processes)))
        if (isdigit((unsigned char)entry->d_name[0]) && holds(entry->d_name, &stat))
            pid = strtoll(entry->d_name, NULL, 10);
    closedir(processes);
    return pid;
}

bool lock_is_current(int fd, int folder, const char *name)
{
    struct stat ours, named;

    return fstat(fd, &ours) == 0 && fstatat(folder, name, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
           ours.st_dev == named.st_dev && ours.st_ino == named.st_ino;
}
