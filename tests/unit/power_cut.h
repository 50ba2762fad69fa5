/* SPDX-License-Identifier: MIT */
/*
 * A disk that forgets. The program's own writes to one file are recorded by standing before the C
 * library's functions; from the record any state can be made that a power cut may leave behind:
 *
 *   what was done when a sync began that has ended is there
 *   of all that was begun later, any sectors of 512 bytes may be there
 *
 * or a kill: then all that was begun is there, the last of it perhaps in part.
 */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { CUT_SECTOR = 512, CUT_MOST = 200000 };

enum cut_kind { CUT_WRITE = 1, CUT_SIZE, CUT_HOLE, CUT_SYNC };

struct cut_entry {
    enum cut_kind kind;
    uint64_t offset, length; /* SIZE: length */
    uint8_t *bytes;
    size_t done;  /* entries there were when it ended; SIZE_MAX: it has not */
    size_t begun; /* SYNC: entries there were when it began; only then it is an entry */
};

static struct {
    pthread_mutex_t lock;
    bool on;
    unsigned fail_percent; /* of writes and syncs end in EIO */
    unsigned fail_syncs;   /* the next ones of them do */
    uint64_t dice;
    bool dsync; /* O_DSYNC: what has ended is there */
    struct stat file;
    struct cut_entry *entries;
    size_t count;
    uint8_t *before; /* the file, when the recording began */
    uint64_t before_size;
} cut = {.lock = PTHREAD_MUTEX_INITIALIZER};

static inline bool cut_is_file(int fd)
{
    struct stat stat_of;
    return cut.on && fstat(fd, &stat_of) == 0 && stat_of.st_dev == cut.file.st_dev &&
           stat_of.st_ino == cut.file.st_ino;
}

static inline size_t cut_begin(enum cut_kind kind, uint64_t offset, uint64_t length,
                               const struct iovec *iov, int iov_count)
{
    struct cut_entry entry = {.kind = kind, .offset = offset, .length = length, .done = SIZE_MAX};

    if (iov_count) {
        entry.length = 0;
        for (int i = 0; i < iov_count; i++)
            entry.length += iov[i].iov_len;
        uint8_t *to = entry.bytes = malloc(entry.length);
        for (int i = 0; i < iov_count; to += iov[i++].iov_len)
            memcpy(to, iov[i].iov_base, iov[i].iov_len);
    }
    pthread_mutex_lock(&cut.lock);
    size_t index = cut.count++;
    if (index >= CUT_MOST)
        abort();
    cut.entries[index] = entry;
    pthread_mutex_unlock(&cut.lock);
    return index;
}

static inline void cut_end(size_t index)
{
    pthread_mutex_lock(&cut.lock);
    cut.entries[index].done = cut.count;
    pthread_mutex_unlock(&cut.lock);
}

static inline bool cut_fails(bool record)
{
    if (!record || !cut.fail_percent)
        return false;
    pthread_mutex_lock(&cut.lock);
    cut.dice = cut.dice * 6364136223846793005ull + 1442695040888963407ull;
    bool fails = (cut.dice >> 33) % 100 < cut.fail_percent;
    pthread_mutex_unlock(&cut.lock);
    errno = EIO;
    return fails;
}

/* In place of the C library's. */

ssize_t pwritev(int fd, const struct iovec *iov, int count, off_t offset)
{
    bool record = cut_is_file(fd);
    if (cut_fails(record))
        return -1;
    size_t index = record ? cut_begin(CUT_WRITE, (uint64_t)offset, 0, iov, count) : 0;
    ssize_t r = syscall(SYS_pwritev, fd, iov, count, offset, 0);
    if (record && r >= 0)
        cut_end(index);
    return r;
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = length};
    return pwritev(fd, &iov, 1, offset);
}

int ftruncate(int fd, off_t size)
{
    bool record = cut_is_file(fd);
    size_t index = record ? cut_begin(CUT_SIZE, 0, (uint64_t)size, NULL, 0) : 0;
    int r = (int)syscall(SYS_ftruncate, fd, size);
    if (record && r == 0)
        cut_end(index);
    return r;
}

int fallocate(int fd, int mode, off_t offset, off_t length)
{
    bool record = (mode & ~FALLOC_FL_KEEP_SIZE) && cut_is_file(fd); /* else it is but space */
    size_t index = record ? cut_begin(CUT_HOLE, (uint64_t)offset, (uint64_t)length, NULL, 0) : 0;
    int r = (int)syscall(SYS_fallocate, fd, mode, offset, length);
    if (record && r == 0)
        cut_end(index);
    else if (record)
        cut.entries[index].length = 0;
    return r;
}

int fdatasync(int fd)
{
    bool record = cut_is_file(fd);
    if (record && cut.fail_syncs) {
        cut.fail_syncs--;
        errno = EIO;
        return -1;
    }
    if (cut_fails(record))
        return -1;
    size_t begun = cut.count;
    int r = (int)syscall(SYS_fdatasync, fd);
    if (!record || r < 0)
        return r;
    size_t index = cut_begin(CUT_SYNC, 0, 0, NULL, 0);
    cut.entries[index].begun = begun;
    cut.entries[index].done = index;
    return r;
}

/* The file is closed for a moment, or at rest. */
static inline void cut_start(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &cut.file) < 0)
        abort();
    cut.before_size = (uint64_t)cut.file.st_size;
    cut.before = malloc(cut.before_size);
    if (pread(fd, cut.before, cut.before_size, 0) != (ssize_t)cut.before_size)
        abort();
    close(fd);
    cut.entries = calloc(CUT_MOST, sizeof(*cut.entries));
    cut.count = 0;
    cut.on = true;
}

static inline void cut_finish(void)
{
    for (size_t i = 0; i < cut.count; i++)
        free(cut.entries[i].bytes);
    free(cut.entries);
    free(cut.before);
    cut.entries = NULL;
    cut.before = NULL;
    cut.count = 0;
}

static inline size_t cut_now(void)
{
    pthread_mutex_lock(&cut.lock);
    size_t count = cut.count;
    pthread_mutex_unlock(&cut.lock);
    return count;
}

/* Carries out what came to the disk of an entry: sectors for which keep() says so. */
static inline void cut_apply(int fd, const struct cut_entry *entry, bool (*keep)(void))
{
    switch (entry->kind) {
    case CUT_WRITE:
        for (uint64_t at = 0; at < entry->length; at += CUT_SECTOR) {
            uint64_t part = entry->length - at < CUT_SECTOR ? entry->length - at : CUT_SECTOR;
            if (keep() &&
                syscall(SYS_pwrite64, fd, entry->bytes + at, part, entry->offset + at) < 0)
                abort();
        }
        break;
    case CUT_SIZE:
        if (keep() && syscall(SYS_ftruncate, fd, entry->length) < 0)
            abort();
        break;
    case CUT_HOLE:
        for (uint64_t at = 0; at < entry->length; at += CUT_SECTOR)
            if (keep() && syscall(SYS_fallocate, fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                  entry->offset + at, CUT_SECTOR) < 0)
                abort();
        break;
    case CUT_SYNC:
        break;
    }
}

static inline bool cut_keep(void)
{
    return true;
}

/* The file as it may be when the first `point` entries had begun. */
static inline void cut_make(const char *path, size_t point, bool power, bool (*keep)(void))
{
    size_t synced = 0;
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    for (size_t i = 0; power && i < point; i++)
        if (cut.entries[i].kind == CUT_SYNC && cut.entries[i].begun > synced)
            synced = cut.entries[i].begun;
    if (fd < 0 || syscall(SYS_pwrite64, fd, cut.before, cut.before_size, 0) < 0)
        abort();
    for (size_t i = 0; i < point; i++) {
        const struct cut_entry *entry = &cut.entries[i];
        bool there = power ? entry->done <= (cut.dsync ? point : synced) : i + 1 < point;
        cut_apply(fd, entry, there ? cut_keep : keep);
    }
    close(fd);
}
