/* SPDX-License-Identifier: MIT */
#include "host/small_file.h"
#include "host/fd.h"
#include "host/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

int small_file_read(int fd, size_t limit, char **ret_text, size_t *ret_length)
{
    size_t length = 0, room = 0;
    char *text = NULL;
    ssize_t n;

    do {
        if (length == room) {
            room = room ? 2 * room : 4096;
            room = room <= limit ? room : limit + 1; /* one more than is wanted tells too many */
            char *larger = realloc(text, room + 1);
            if (!larger) {
                free(text);
                return -ENOMEM;
            }
            text = larger;
        }
        n = pread(fd, text + length, room - length, (off_t)length);
        if (n > 0)
            length += (size_t)n;
    } while ((n > 0 && length <= limit) || (n < 0 && errno == EINTR));
    if (n < 0 || length > limit) {
        int error = n < 0 ? -errno : -EFBIG;
        free(text);
        return error;
    }
    text[length] = 0;
    *ret_text = text;
    *ret_length = length;
    return 0;
}

int small_file_read_in(int folder, const char *name, size_t limit, char **ret_text,
                       size_t *ret_length)
{
    struct stat stat;
    int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int r = fstat(fd, &stat) < 0 ? -errno : S_ISREG(stat.st_mode) ? 0 : -EINVAL;
    if (r == 0)
        r = small_file_read(fd, limit, ret_text, ret_length);
    close(fd);
    return r;
}

void small_file_give_to_owner(int folder, int fd)
{
    struct stat stat;

    if (geteuid() != 0 || fstat(folder, &stat) < 0)
        return;
    if (fchown(fd, stat.st_uid, stat.st_gid) < 0)
        return; /* a file system without owners */
}

int small_file_append(int folder, const char *name, mode_t mode)
{
    int flags = O_RDWR | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
    struct stat stat;

    int fd = openat(folder, name, flags);
    if (fd < 0 && errno == ENOENT) {
        fd = openat(folder, name, flags | O_CREAT | O_EXCL, mode);
        if (fd >= 0)
            small_file_give_to_owner(folder, fd);
        else if (errno == EEXIST) /* somebody else has made it just now */
            fd = openat(folder, name, flags);
    }
    if (fd < 0)
        return -errno;
    int r = fstat(fd, &stat) < 0     ? -errno
            : !S_ISREG(stat.st_mode) ? -EINVAL
            : stat.st_nlink > 1      ? -EMLINK
                                     : 0;
    if (r == 0)
        return fd;
    close(fd);
    return r;
}

/* Always a new file: nothing that lies there under this name is followed or written through. */
static int open_beside(int folder, const char *name, const char *beside, mode_t wanted)
{
    struct stat old;
    mode_t mode = wanted ? wanted : 0644;

    if (unlinkat(folder, beside, 0) < 0 && errno != ENOENT)
        return -errno;
    if (fstatat(folder, name, &old, AT_SYMLINK_NOFOLLOW) < 0)
        old.st_mode = 0;
    if (S_ISREG(old.st_mode) && !wanted)
        mode = old.st_mode & 0666;
    int fd = openat(folder, beside, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0)
        return -errno;
    small_file_give_to_owner(folder, fd);
    /* The umask takes nothing from a mode that the old file was given on purpose. */
    if (S_ISREG(old.st_mode))
        (void)fchmod(fd, mode);
    return fd;
}

static int write_all(int fd, const uint8_t *bytes, size_t length)
{
    while (length > 0) {
        ssize_t n = write(fd, bytes, length);
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n == 0)
            return -EIO;
        if (n > 0) {
            bytes += n;
            length -= (size_t)n;
        }
    }
    return 0;
}

static int say_not_written(int error, int folder, const char *name, struct err *err)
{
    int r = err_sys(err, ERR_FAILED, -error, "cannot write %s", name);
    struct stat old;

    if (error == -ENOSPC || error == -EDQUOT) {
        bool stays = fstatat(folder, name, &old, AT_SYMLINK_NOFOLLOW) == 0 && old.st_size > 0;
        err_hint(err, "make room on its file system%s", stays ? "; the old file is as it was" : "");
    }
    if (error == -EROFS)
        err_hint(err, "its file system is read-only: copy the folder to one that is not");
    else if (error == -EACCES || error == -EPERM)
        err_hint(err, "the folder has to be writable for you");
    return r;
}

static int replace(int folder, const char *name, const struct small_file *file, struct err *err)
{
    char beside[NAME_MAX + 1];

    if (snprintf(beside, sizeof(beside), ".%s.new", name) >= (int)sizeof(beside))
        return say_not_written(-ENAMETOOLONG, folder, name, err);
    int fd = open_beside(folder, name, beside, file->mode);
    if (fd < 0)
        return say_not_written(fd, folder, name, err);
    int r = file->lock ? lock_try(fd, false) : 0;
    if (r == 0)
        r = write_all(fd, file->bytes, file->length);
    if (r == 0 && file->durable && fsync(fd) < 0)
        r = -errno;
    if (r == 0 && renameat(folder, beside, folder, name) < 0)
        r = -errno;
    if (r < 0) {
        unlinkat(folder, beside, 0);
        close(fd);
        return say_not_written(r, folder, name, err);
    }
    if (file->durable && fsync(folder) < 0)
        r = say_not_written(-errno, folder, name, err);
    /* From here on the name leads to the new file, whatever became of its durability. */
    if (file->lock) {
        if (*file->lock >= 0)
            close(*file->lock);
        *file->lock = fd;
    } else {
        close(fd);
    }
    return r;
}

/* Into the room of the spare, which is whole and on the disk before it has the name. What is torn
 * before that nobody reads. */
static int swap(int folder, const char *name, const struct small_file *file)
{
    struct stat spare, old;
    int fd = openat(folder, file->spare, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int r = fstat(fd, &spare) < 0 || fstatat(folder, name, &old, AT_SYMLINK_NOFOLLOW) < 0 ? -errno
            : !S_ISREG(spare.st_mode) || spare.st_nlink > 1 || !S_ISREG(old.st_mode)      ? -EINVAL
                                                                                          : 0;
    /* Who exchanged them last may have died, or failed, before the disk knew: there the spare has
     * the name still. */
    if (r == 0 && fsync(folder) < 0)
        r = -errno;
    if (r == 0)
        r = fd_write_at(fd, file->bytes, file->length, 0);
    if (r == 0 &&
        (ftruncate(fd, (off_t)file->length) < 0 || fchmod(fd, old.st_mode & 0666) < 0 ||
         fsync(fd) < 0 || renameat2(folder, file->spare, folder, name, RENAME_EXCHANGE) < 0))
        r = -errno;
    close(fd);
    return r;
}

/* Who has no room for it has none for the next file either, and hears of that then. */
static void make_spare(int folder, const char *name, const struct small_file *file)
{
    int fd = open_beside(folder, name, file->spare, file->mode);
    if (fd < 0)
        return;
    int r = write_all(fd, file->bytes, file->length);
    if (r < 0 || fsync(fd) < 0)
        unlinkat(folder, file->spare, 0);
    close(fd);
}

int small_file_replace(int folder, const char *name, const struct small_file *file, struct err *err)
{
    if (file->spare && swap(folder, name, file) == 0)
        return fsync(folder) < 0 ? say_not_written(-errno, folder, name, err) : 0;
    int r = replace(folder, name, file, err);
    if (r == 0 && file->spare)
        make_spare(folder, name, file);
    return r;
}
