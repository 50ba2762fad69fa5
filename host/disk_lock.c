/* SPDX-License-Identifier: MIT */
/*
 * One VM writes an image, or many read it: a lock on the open file, which ends with it, however
 * the process ends.
 *
 * Such a lock belongs to nobody as far as F_OFD_GETLK is concerned. Who has the file open and
 * locked stands in /proc/PID/fdinfo, for those processes that we may look at.
 */
#include "host/disk_file.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_SPACE = 320 };

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

static bool holds(const char *pid, const struct stat *image)
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
                fstatat(dirfd(fds), entry->d_name, &stat, 0) == 0 && stat.st_dev == image->st_dev &&
                stat.st_ino == image->st_ino && has_lock(pid, entry->d_name);
    closedir(fds);
    return found;
}

/* 0: nobody that we can see. */
static long find_holder(int fd)
{
    struct dirent *entry;
    struct stat image;
    long pid = 0;

    DIR *processes = opendir("/proc");
    if (!processes)
        return 0;
    while (fstat(fd, &image) == 0 && !pid && (entry = readdir(processes)))
        if (isdigit((unsigned char)entry->d_name[0]) && holds(entry->d_name, &image))
            pid = strtol(entry->d_name, NULL, 10);
    closedir(processes);
    return pid;
}

static int say_locked(int fd, const char *path, bool shared, struct err *err)
{
    long pid = find_holder(fd);
    int r;

    if (pid == getpid())
        r = err_say(err, ERR_STATE, EBUSY, "%s is a disk of this VM already", path);
    else if (pid)
        r = err_say(err, ERR_STATE, EBUSY, "%s is in use by another VM (pid %ld)", path, pid);
    else
        r = err_say(err, ERR_STATE, EBUSY, "%s is in use by another VM", path);
    if (!shared)
        err_hint(err, "give each VM a copy of the disk; many may share one that all open readonly");
    return r;
}

int disk_lock(int fd, const char *path, bool shared, struct err *err)
{
    struct flock lock = {.l_type = shared ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET};

    if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
        return 0;
    if (errno == EAGAIN || errno == EACCES)
        return say_locked(fd, path, shared, err);
    int r = err_sys(err, ERR_HOST, errno, "cannot lock %s", path);
    err_hint(err, "its file system has to support locks");
    return r;
}
