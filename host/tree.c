/* SPDX-License-Identifier: MIT */
#include "host/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Each level has a descriptor open. */
enum { DEEPEST = 64 };

struct walk {
    struct tree_size *size; /* NULL: remove */
    struct err *err;
};

static int say_failed(const struct walk *walk, const char *name, int error)
{
    int r;

    if (error == EXDEV || error == EBUSY) {
        r = err_say(walk->err, ERR_STATE, EXDEV, "something is mounted on %s in it", name);
        err_hint(walk->err, "unmount it first");
        return r;
    }
    return err_sys(walk->err, ERR_FAILED, error, "cannot %s %s",
                   walk->size ? "look into" : "remove", name);
}

/* A bind mount of the same file system has the same device number: only the kernel can tell. */
static int open_folder(int parent, const char *name)
{
    struct open_how how = {
        .flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC,
        .resolve = RESOLVE_NO_XDEV | RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS,
    };
    struct stat outer, inner;

    int fd = (int)syscall(SYS_openat2, parent, name, &how, sizeof(how));
    if (fd >= 0 || (errno != ENOSYS && errno != EPERM))
        return fd >= 0 ? fd : -errno;
    fd = openat(parent, name, (int)how.flags); /* before Linux 5.6, or walled off */
    if (fd < 0)
        return -errno;
    if (fstat(parent, &outer) == 0 && fstat(fd, &inner) == 0 && outer.st_dev == inner.st_dev)
        return fd;
    close(fd);
    return -EXDEV;
}

static int walk_folder(const struct walk *walk, int fd, const char *keep, unsigned depth);

static int walk_subfolder(const struct walk *walk, int parent, const char *name, unsigned depth)
{
    if (depth == DEEPEST)
        return say_failed(walk, name, ELOOP);
    int fd = open_folder(parent, name);
    if (fd == -ENOENT)
        return 0;
    if (fd < 0)
        return say_failed(walk, name, -fd);
    int r = walk_folder(walk, fd, NULL, depth);
    if (r == 0 && !walk->size && unlinkat(parent, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
        r = say_failed(walk, name, errno);
    return r;
}

static int walk_entry(const struct walk *walk, int parent, const char *name, unsigned depth)
{
    struct stat stat;

    if (fstatat(parent, name, &stat, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : say_failed(walk, name, errno);
    if (S_ISDIR(stat.st_mode))
        return walk_subfolder(walk, parent, name, depth);
    if (walk->size) {
        walk->size->files++;
        if (stat.st_nlink == 1) /* else another name keeps the bytes */
            walk->size->bytes += (uint64_t)stat.st_blocks * 512;
        return 0;
    }
    if (unlinkat(parent, name, 0) < 0 && errno != ENOENT)
        return say_failed(walk, name, errno);
    return 0;
}

static bool is_counted(const char *name, const char *keep)
{
    return strcmp(name, ".") != 0 && strcmp(name, "..") != 0 && !(keep && strcmp(name, keep) == 0);
}

/* Takes fd over. */
static int walk_folder(const struct walk *walk, int fd, const char *keep, unsigned depth)
{
    DIR *folder = fdopendir(fd);
    struct dirent *entry;
    int r = 0;

    if (!folder) {
        r = err_sys(walk->err, ERR_FAILED, errno, "cannot read a folder");
        close(fd);
        return r;
    }
    while (r == 0 && (errno = 0, entry = readdir(folder)))
        if (is_counted(entry->d_name, keep))
            r = walk_entry(walk, fd, entry->d_name, depth + 1);
    if (r == 0 && errno)
        r = err_sys(walk->err, ERR_FAILED, errno, "cannot read a folder");
    closedir(folder);
    return r;
}

int tree_measure(int parent, const char *name, struct tree_size *ret_size, struct err *err)
{
    struct tree_size size = {0};
    struct walk walk = {.size = &size, .err = err};

    int r = walk_subfolder(&walk, parent, name, 0);
    if (r == 0)
        *ret_size = size;
    return r;
}

int tree_remove(int parent, const char *name, struct err *err)
{
    struct walk walk = {.err = err};

    return walk_entry(&walk, parent, name, 0);
}

int tree_empty(int folder, const char *keep, struct err *err)
{
    struct walk walk = {.err = err};

    int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_sys(err, ERR_FAILED, errno, "cannot read a folder");
    return walk_folder(&walk, fd, keep, 0);
}

/* NFS and some others cannot look and rename in one step. */
static int move(int parent, const char *name, int new_parent, const char *new_name)
{
    if (renameat2(parent, name, new_parent, new_name, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL && errno != ENOSYS)
        return -errno;
    if (faccessat(new_parent, new_name, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
        return -EEXIST;
    return renameat(parent, name, new_parent, new_name) < 0 ? -errno : 0;
}

int tree_move(int parent, const char *name, int new_parent, const char *new_name, struct err *err)
{
    int r = move(parent, name, new_parent, new_name);

    if (r == -EEXIST || r == -ENOTEMPTY)
        return err_say(err, ERR_STATE, EEXIST, "%s exists already", new_name);
    if (r < 0)
        return err_sys(err, ERR_FAILED, -r, "cannot rename %s to %s", name, new_name);
    /* Where a folder cannot be synced it has the new name all the same. */
    (void)fsync(new_parent);
    if (parent != new_parent)
        (void)fsync(parent);
    return 0;
}

static bool is_part(const char *part, size_t length)
{
    return length > 0 && length <= NAME_MAX && !(length == 1 && part[0] == '.') &&
           !(length == 2 && part[0] == '.' && part[1] == '.');
}

/* Opens a folder below `at`; -1 and errno. */
static int open_part(int at, const char *part, size_t length, bool make)
{
    char name[NAME_MAX + 1] = "";

    if (!is_part(part, length)) {
        errno = EINVAL;
        return -1;
    }
    memcpy(name, part, length);
    if (make && mkdirat(at, name, 0777) < 0 && errno != EEXIST)
        return -1;
    return openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

int tree_open_parent(int folder, const char *path, bool make, const char **ret_last)
{
    const char *slash;
    int at = fcntl(folder, F_DUPFD_CLOEXEC, 0);

    while (at >= 0 && (slash = strchr(path, '/'))) {
        int next = open_part(at, path, (size_t)(slash - path), make), error = errno;
        close(at);
        errno = error;
        at = next;
        path = slash + 1;
    }
    if (at < 0)
        return -errno;
    if (!is_part(path, strlen(path))) {
        close(at);
        return -EINVAL;
    }
    *ret_last = path;
    return at;
}

int tree_open_file(int folder, const char *path, int how)
{
    const char *last;
    int parent = tree_open_parent(folder, path, false, &last);
    if (parent < 0)
        return parent;
    int fd = openat(parent, last, how | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    int ret = fd < 0 ? -errno : fd;
    close(parent);
    return ret;
}
