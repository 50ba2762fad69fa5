/* SPDX-License-Identifier: MIT */
/*
 * Whether a folder can be a witness: what a record there rests upon is that of two link(2) to one
 * name exactly one succeeds, for all hosts, and that who comes later sees it.
 */
#include "ft/witness_parts.h"

#include "host/fd.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define NEW_PREFIX ".minivmm-"

/* Made by the server's clock, as is what they are compared with: hosts' clocks do not matter. */
enum { LEFT_OVER_SECONDS = 3600 };

int witness_folder_say(int error, const char *what, const char *path, struct err *err)
{
    int r = err_sys(err, error == -ENOENT ? ERR_NOT_FOUND : ERR_FAILED, -error,
                    "witness: cannot %s %s", what, path);

    if (error == -ENOENT)
        err_hint(err, "make the folder on storage that both hosts have, below the place where that "
                      "is mounted");
    else if (error == -ENOTDIR)
        err_hint(err, "a folder is wanted");
    else if (error == -EACCES || error == -EPERM)
        err_hint(err, "the folder has to be readable and writable for you");
    else if (error == -EROFS)
        err_hint(err, "its file system is read-only, and a witness has to be written to");
    else if (error == -ENOSPC || error == -EDQUOT)
        err_hint(err, "make room on its file system; what it knows is as it was");
    return r;
}

/* --- the file system ------------------------------------------------------------------------- */

/* By the numbers of statfs(2). */
static const struct unfit {
    uint32_t magic;
    const char *name, *why;
} unfit[] = {
    {0x794c7630, "overlay", "what is written there stays on this host"},
    {0x61756673, "aufs", "what is written there stays on this host"},
    {0xff534d42, "cifs", "SMB keeps copies, and leaves hard links to the server's fancy"},
    {0xfe534d42, "smb2", "SMB keeps copies, and leaves hard links to the server's fancy"},
    {0x0000517b, "smb", "SMB keeps copies, and leaves hard links to the server's fancy"},
    {0x01021997, "9p", "9p does not promise that of two who make one name exactly one succeeds"},
    {0x00004d44, "vfat", "it has no hard links"},
    {0x2011bab0, "exfat", "it has no hard links"},
};

/* The type as mounts call it ("fuse.sshfs"), by /proc/self/mountinfo: number, parent's number,
 * device, root, place, options, more..., "-", type. */
static void find_type(int folder, char *ret_type, size_t size)
{
    struct statx statx_of;
    char *line = NULL;
    size_t room = 0;
    FILE *mounts = statx(folder, "", AT_EMPTY_PATH, STATX_MNT_ID, &statx_of) == 0 &&
                           (statx_of.stx_mask & STATX_MNT_ID)
                       ? fopen("/proc/self/mountinfo", "re")
                       : NULL;

    while (mounts && getline(&line, &room, mounts) > 0) {
        const char *type = strstr(line, " - ");
        if (type && strtoull(line, NULL, 10) == statx_of.stx_mnt_id)
            snprintf(ret_type, size, "%.*s", (int)strcspn(type + 3, " \n"), type + 3);
    }
    free(line);
    if (mounts)
        fclose(mounts);
}

static int say_unfit(int folder, const char *path, const char *name, const char *why,
                     struct err *err)
{
    char type[64];

    snprintf(type, sizeof(type), "%s", name);
    find_type(folder, type, sizeof(type));
    int r = err_say(err, ERR_HOST, EOPNOTSUPP,
                    "witness: %.200s is on a file system (%s) that "
                    "cannot be one: %s",
                    path, type, why);
    err_hint(err, "NFS and cluster file systems can (on one host any local one)");
    return r;
}

int witness_folder_check(int folder, const char *path, struct err *err)
{
    struct statfs fs;
    struct stat stat;

    if (fstatfs(folder, &fs) < 0 || fstat(folder, &stat) < 0)
        return witness_folder_say(-errno, "look at", path, err);
    for (size_t i = 0; i < array_size(unfit); i++)
        if ((uint32_t)fs.f_type == unfit[i].magic)
            return say_unfit(folder, path, unfit[i].name, unfit[i].why, err);
    if ((stat.st_mode & S_IWOTH) && !(stat.st_mode & S_ISVTX)) {
        int r = err_say(err, ERR_FAILED, EPERM, "witness: everybody may remove what %.200s knows",
                        path);
        err_hint(err, "chmod o-w %.200s", path);
        return r;
    }
    return 0;
}

/* --- trying it out --------------------------------------------------------------------------- */

int witness_folder_new_name(char ret_name[WITNESS_NAME], uint64_t ret_attempt[2], struct err *err)
{
    uint64_t random[2];

    if (getrandom(random, sizeof(random), 0) != sizeof(random))
        return err_sys(err, ERR_HOST, errno, "no random numbers");
    snprintf(ret_name, WITNESS_NAME, NEW_PREFIX "%016llx%016llx", (unsigned long long)random[0],
             (unsigned long long)random[1]);
    memcpy(ret_attempt, random, sizeof(random));
    return 0;
}

/* Two names, one file, and the second one is not given twice. */
static int try_links(int folder, const char *first, const char *second, const char *path,
                     struct err *err)
{
    struct stat a, b;

    if (linkat(folder, first, folder, second, 0) < 0)
        return errno == EPERM || errno == EOPNOTSUPP || errno == ENOSYS || errno == EMLINK
                   ? say_unfit(folder, path, "its own", "it has no hard links", err)
                   : witness_folder_say(-errno, "link in", path, err);
    if (fstatat(folder, first, &a, AT_SYMLINK_NOFOLLOW) < 0 ||
        fstatat(folder, second, &b, AT_SYMLINK_NOFOLLOW) < 0)
        return witness_folder_say(-errno, "read", path, err);
    if (a.st_ino != b.st_ino || a.st_nlink != 2 || b.st_nlink != 2)
        return say_unfit(folder, path, "its own", "its hard links are copies", err);
    if (linkat(folder, first, folder, second, 0) == 0 || errno != EEXIST)
        return say_unfit(folder, path, "its own", "it gives one name twice", err);
    return 0;
}

/* A crash between making and linking, or linking and removing, leaves a temporary file. Somebody
 * may have been stopped there, and go on after this: its link(2) then fails. */
static void sweep(int folder, time_t now)
{
    int again = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *list = again < 0 ? NULL : fdopendir(again);
    const struct dirent *entry;
    struct stat stat;

    while (list && (entry = readdir(list)))
        if (strncmp(entry->d_name, NEW_PREFIX, strlen(NEW_PREFIX)) == 0 &&
            fstatat(folder, entry->d_name, &stat, AT_SYMLINK_NOFOLLOW) == 0 &&
            S_ISREG(stat.st_mode) && now - stat.st_mtime > LEFT_OVER_SECONDS)
            unlinkat(folder, entry->d_name, 0);
    if (list)
        closedir(list);
    else if (again >= 0)
        close(again);
}

int witness_folder_probe(int folder, const char *path, uint32_t *ret_uid, struct err *err)
{
    char first[WITNESS_NAME], second[WITNESS_NAME];
    uint64_t attempt[2];
    struct stat stat;

    int r = witness_folder_new_name(first, attempt, err);
    if (r == 0)
        r = witness_folder_new_name(second, attempt, err);
    if (r < 0)
        return r;
    int fd = openat(folder, first, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd < 0)
        return witness_folder_say(-errno, "write in", path, err);
    r = fd_write_at(fd, "probe\n", 6, 0);
    if (r == 0 && (fsync(fd) < 0 || fstat(fd, &stat) < 0))
        r = -errno;
    if (r < 0)
        r = witness_folder_say(r, "write in", path, err);
    else
        r = try_links(folder, first, second, path, err);
    unlinkat(folder, second, 0);
    unlinkat(folder, first, 0);
    close(fd);
    if (r < 0)
        return r;
    sweep(folder, stat.st_mtime);
    *ret_uid = stat.st_uid;
    return 0;
}
