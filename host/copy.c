/* SPDX-License-Identifier: MIT */
/*
 * Three ways, the best first: FICLONE, where both files share their blocks from then on;
 * copy_file_range(2), where the file system (NFS, say) or at least the kernel does the work; read
 * and write. The latter two go from data to data of the source.
 *
 * A file that is allocated in full says nothing of where it is empty, and a device never does: so
 * such a one is read, and its zeroes become holes.
 *
 * The new file has no name until it is whole, where the file system can do that (O_TMPFILE):
 * whatever ends the program meanwhile, nothing is left behind.
 */
#include "host/copy.h"

#include "core/clock.h"
#include "core/zero.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    CHUNK = 1 << 20,     /* what is moved between two looks at the progress */
    ZERO_RUN = 64 << 10, /* fewer zeroes than this are not worth a hole */
    TELL_NS = 100000000,
};

struct copy {
    int from, to;
    uint64_t size;
    bool by_hand; /* read and write */
    uint8_t *buffer;
    const struct copy_progress *progress;
    uint64_t told_ns;
    struct err *err;
};

/* --- bytes ---------------------------------------------------------------------------------- */

static int say_read(const struct copy *copy)
{
    return err_sys(copy->err, ERR_FAILED, errno, "reading");
}

static int say_written(const struct copy *copy)
{
    int r = err_sys(copy->err, ERR_FAILED, errno, "writing");
    if (r == -ENOSPC || r == -EDQUOT)
        err_hint(copy->err, "up to %llu MiB are needed there",
                 (unsigned long long)(copy->size >> 20) + 1);
    return r;
}

static int say_short(const struct copy *copy)
{
    return err_say(copy->err, ERR_FAILED, EIO, "it became shorter meanwhile");
}

static int tell(struct copy *copy, uint64_t done)
{
    const struct copy_progress *progress = copy->progress;
    uint64_t now = clock_monotonic_ns();

    if (!progress || !progress->tell || (done < copy->size && now - copy->told_ns < TELL_NS))
        return 0;
    copy->told_ns = now;
    if (progress->tell(progress->ctx, done, copy->size))
        return 0;
    return err_say(copy->err, ERR_FAILED, ECANCELED, "canceled");
}

static int write_all(const struct copy *copy, const uint8_t *bytes, size_t length, uint64_t at)
{
    while (length > 0) {
        ssize_t n = pwrite(copy->to, bytes, length, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return say_written(copy);
        bytes += n;
        length -= (size_t)n;
        at += (uint64_t)n;
    }
    return 0;
}

/* Runs of zeroes stay the hole that a new file is. */
static int write_data(const struct copy *copy, size_t length, uint64_t at)
{
    size_t begin = 0; /* of what is to be written */

    for (size_t i = 0; i < length; i += ZERO_RUN) {
        size_t run = length - i < ZERO_RUN ? length - i : ZERO_RUN;
        if (!is_zero(copy->buffer + i, run))
            continue;
        int r = write_all(copy, copy->buffer + begin, i - begin, at + begin);
        if (r < 0)
            return r;
        begin = i + run;
    }
    return write_all(copy, copy->buffer + begin, length - begin, at + begin);
}

/* How many bytes from `at` on, at most `most`, are in the copy now; 0: there are none. */
static ssize_t move_by_hand(const struct copy *copy, uint64_t at, size_t most)
{
    ssize_t n;

    do
        n = pread(copy->from, copy->buffer, most, (off_t)at);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return say_read(copy);
    int r = write_data(copy, (size_t)n, at);
    return r < 0 ? r : n;
}

static ssize_t move(struct copy *copy, uint64_t at, size_t most)
{
    loff_t from = (loff_t)at, to = (loff_t)at;

    if (!copy->by_hand) {
        ssize_t n = copy_file_range(copy->from, &from, copy->to, &to, most, 0);
        if (n > 0)
            return n;
        /* Which of the two files it is about, or whether it could not be done this way at all,
         * the other way will show. */
        copy->by_hand = n == 0 || errno != EINTR;
    }
    return move_by_hand(copy, at, most);
}

static int move_range(struct copy *copy, uint64_t at, uint64_t end)
{
    while (at < end) {
        ssize_t n = move(copy, at, end - at < CHUNK ? end - at : CHUNK);
        if (n == 0)
            return say_short(copy);
        if (n < 0)
            return (int)n;
        /* Begins to write it back: else the sync at the end would take as long as all before. */
        (void)sync_file_range(copy->to, (off_t)at, n, SYNC_FILE_RANGE_WRITE);
        at += (uint64_t)n;
        int r = tell(copy, at);
        if (r < 0)
            return r;
    }
    return 0;
}

/* --- files ---------------------------------------------------------------------------------- */

/* The next data at `at` or behind it. A file system that knows no holes has data everywhere. */
static void find_data(const struct copy *copy, uint64_t at, uint64_t *ret_begin, uint64_t *ret_end)
{
    off_t begin = lseek(copy->from, (off_t)at, SEEK_DATA), end = -1;

    *ret_begin = *ret_end = copy->size;
    if (begin < 0 && errno == ENXIO)
        return;
    if (begin >= 0)
        end = lseek(copy->from, begin, SEEK_HOLE);
    *ret_begin = begin < 0 ? at : (uint64_t)begin;
    if (end > begin && (uint64_t)end < copy->size)
        *ret_end = (uint64_t)end;
    if (*ret_begin > copy->size)
        *ret_begin = copy->size;
}

static int measure(struct copy *copy, struct stat *ret_stat)
{
    if (fstat(copy->from, ret_stat) < 0)
        return say_read(copy);
    copy->size = (uint64_t)ret_stat->st_size;
    if (S_ISBLK(ret_stat->st_mode) && ioctl(copy->from, BLKGETSIZE64, &copy->size) < 0)
        return say_read(copy);
    return 0;
}

static int copy_data(struct copy *copy)
{
    uint64_t begin, end;

    int r = tell(copy, 0);
    for (uint64_t at = 0; at < copy->size && r == 0; at = end) {
        find_data(copy, at, &begin, &end);
        r = move_range(copy, begin, end);
    }
    return r;
}

static int copy_bytes(struct copy *copy)
{
    struct stat before, after;

    int r = measure(copy, &before);
    if (r < 0)
        return r;
    if (ftruncate(copy->to, (off_t)copy->size) < 0)
        return say_written(copy);
    copy->by_hand = !S_ISREG(before.st_mode) || before.st_blocks * 512 >= before.st_size;
    copy->buffer = malloc(CHUNK);
    if (!copy->buffer)
        return err_sys(copy->err, ERR_HOST, ENOMEM, "copying");
    r = copy_data(copy);
    free(copy->buffer);
    if (r < 0)
        return r;
    /* Its end may have become a hole like any other. */
    if (S_ISREG(before.st_mode) &&
        (fstat(copy->from, &after) < 0 || after.st_size < before.st_size))
        return say_short(copy);
    return 0;
}

int copy_descriptor(int from, int to, const struct copy_progress *progress, bool *ret_shared,
                    struct err *err)
{
    struct copy copy = {
        .from = from, .to = to, .progress = progress, .told_ns = clock_monotonic_ns(), .err = err};
    struct stat stat;

    /* Why it did not work does not matter: what is wrong with these files the next way finds too.
     */
    bool shared = ioctl(to, FICLONE, from) == 0;
    int r = shared ? measure(&copy, &stat) : copy_bytes(&copy);
    if (r == 0)
        r = tell(&copy, copy.size);
    if (r == 0 && ret_shared)
        *ret_shared = shared;
    return r;
}

/* --- names ---------------------------------------------------------------------------------- */

struct target {
    int folder, fd;
    const char *path, *name;
    bool named;
};

static int say_exists(const struct target *target, struct err *err)
{
    return err_say(err, ERR_STATE, EEXIST, "%s exists already", target->path);
}

static int open_folder(struct target *target, int base, struct err *err)
{
    char folder[PATH_MAX];
    const char *slash = strrchr(target->path, '/');
    size_t length = slash ? (size_t)(slash - target->path) : 0;

    target->name = slash ? slash + 1 : target->path;
    if (length >= sizeof(folder) || !target->name[0])
        return err_sys(err, ERR_FAILED, target->name[0] ? ENAMETOOLONG : EISDIR, "cannot make %s",
                       target->path);
    snprintf(folder, sizeof(folder), "%.*s", (int)length, target->path);
    if (length == 0)
        snprintf(folder, sizeof(folder), "%s", slash ? "/" : ".");
    target->folder = openat(base, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (target->folder < 0)
        return err_sys(err, ERR_FAILED, errno, "cannot make %s", target->path);
    return 0;
}

/* The path by which a file without a name can be given one. */
static void descriptor_path(int fd, char ret_path[32])
{
    snprintf(ret_path, 32, "/proc/self/fd/%d", fd);
}

/* Until it is whole nobody but the owner may look into it. */
static int open_target(struct target *target, int base, struct err *err)
{
    char path[32];
    struct stat stat;

    int r = open_folder(target, base, err);
    if (r < 0)
        return r;
    if (fstatat(target->folder, target->name, &stat, AT_SYMLINK_NOFOLLOW) == 0)
        return say_exists(target, err);
    target->fd = openat(target->folder, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (target->fd >= 0) {
        descriptor_path(target->fd, path);
        if (access(path, F_OK) == 0)
            return 0;
        close(target->fd); /* no /proc, no way to name it */
    }
    target->fd = openat(target->folder, target->name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
    if (target->fd < 0 && errno == EEXIST)
        return say_exists(target, err);
    if (target->fd < 0)
        return err_sys(err, ERR_FAILED, errno, "cannot make %s", target->path);
    target->named = true;
    return 0;
}

/* Durable: first what is in it, then its name. */
static int finish_target(struct target *target, mode_t mode, struct err *err)
{
    char path[32];

    if (fchmod(target->fd, mode) < 0 || fsync(target->fd) < 0)
        goto fail;
    if (!target->named) {
        descriptor_path(target->fd, path);
        if (linkat(AT_FDCWD, path, target->folder, target->name, AT_SYMLINK_FOLLOW) < 0)
            goto fail;
        target->named = true;
    }
    if (fsync(target->folder) == 0)
        return 0;

fail:
    return !target->named && errno == EEXIST
               ? say_exists(target, err)
               : err_sys(err, ERR_FAILED, errno, "cannot make %s", target->path);
}

static void close_target(struct target *target, bool keep)
{
    if (target->named && !keep)
        unlinkat(target->folder, target->name, 0);
    if (target->fd >= 0)
        close(target->fd);
    if (target->folder >= 0)
        close(target->folder);
}

static int open_source(int base, const char *path, int *ret_fd, struct stat *ret_stat,
                       struct err *err)
{
    /* Non-blocking: a FIFO would keep us waiting for a writer. It means nothing to the others. A
     * name in a folder is that file, and nothing that a link leads to. */
    int follow = base == AT_FDCWD ? 0 : O_NOFOLLOW;
    int fd = openat(base, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | follow);

    if (fd < 0)
        return err_sys(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_FAILED, errno, "cannot open %s",
                       path);
    if (fstat(fd, ret_stat) == 0 && (S_ISREG(ret_stat->st_mode) || S_ISBLK(ret_stat->st_mode))) {
        *ret_fd = fd;
        return 0;
    }
    close(fd);
    return err_say(err, ERR_FAILED, EINVAL, "%s is neither a file nor a block device", path);
}

static int copy_opened(int fd, const struct stat *stat, const char *from, int to_folder,
                       const char *to, const struct copy_progress *progress, bool *ret_shared,
                       struct err *err)
{
    struct target target = {.folder = -1, .fd = -1, .path = to};
    mode_t mode = S_ISREG(stat->st_mode) ? stat->st_mode & 0777 : 0600;
    bool shared = false;

    int r = open_target(&target, to_folder, err);
    if (r == 0) {
        r = copy_descriptor(fd, target.fd, progress, &shared, err);
        if (r < 0)
            err_prefix(err, "cannot copy %s to %s", from, to);
    }
    if (r == 0)
        r = finish_target(&target, mode, err);
    close_target(&target, r == 0);
    if (r == 0 && ret_shared)
        *ret_shared = shared;
    return r;
}

int copy_file(int from_folder, const char *from, int to_folder, const char *to,
              const struct copy_progress *progress, bool *ret_shared, struct err *err)
{
    struct stat stat;
    int fd = -1;

    int r = open_source(from_folder, from, &fd, &stat, err);
    if (r < 0)
        return r;
    r = copy_opened(fd, &stat, from, to_folder, to, progress, ret_shared, err);
    close(fd);
    return r;
}

int copy_file_seen(int from_folder, const char *from, const struct stat *seen, int to_folder,
                   const char *to, const struct copy_progress *progress, struct err *err)
{
    struct stat stat;
    int fd = -1;

    int r = open_source(from_folder, from, &fd, &stat, err);
    if (r < 0)
        return r;
    if (stat.st_dev == seen->st_dev && stat.st_ino == seen->st_ino)
        r = copy_opened(fd, &stat, from, to_folder, to, progress, NULL, err);
    else
        r = err_say(err, ERR_FAILED, ESTALE, "%s was replaced meanwhile", from);
    close(fd);
    return r;
}
