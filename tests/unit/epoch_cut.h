/* SPDX-License-Identifier: MIT */
/*
 * Some files of a folder that forget. All that is done to them is recorded by standing before the C
 * library's functions; from the record any state can be made that a power cut may leave behind: of
 * each file, what was done before the last sync of it that has ended is there; of what came later
 * any sectors, sizes and names may be there. And any one step can fail.
 */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { CUT_DISKS = 2, CUT_JOURNAL = CUT_DISKS, CUT_FILES, CUT_FOLDER = CUT_FILES, CUT_MOST = 4000 };

enum cut_kind { CUT_WRITE = 1, CUT_SIZE, CUT_HOLE, CUT_SYNC, CUT_MADE, CUT_GONE };

struct cut_step {
    enum cut_kind kind;
    unsigned who; /* a disk, the journal, the folder */
    uint64_t offset, length;
    uint8_t *bytes;
};

/* A file as it is, or could be. */
struct cut_file {
    bool there;
    uint64_t size;
    uint8_t bytes[1 << 19];
};

static struct {
    bool on;
    long fails_at; /* this step from now on; -1: none */
    int error;
    int folder;
    ino_t inodes[CUT_DISKS];
    struct cut_step steps[CUT_MOST];
    size_t count;
    struct cut_file before[CUT_FILES];
} cut = {.fails_at = -1, .folder = -1};

static const char *const cut_names[CUT_FILES] = {"a.img", "b.img", ".epochs"};

static inline unsigned cut_who(int fd)
{
    struct stat stat_of;
    if (fstat(fd, &stat_of) < 0)
        abort();
    for (unsigned i = 0; i < CUT_DISKS; i++)
        if (stat_of.st_ino == cut.inodes[i])
            return i;
    return S_ISDIR(stat_of.st_mode) ? CUT_FOLDER : CUT_JOURNAL;
}

/* False: it fails. */
static inline bool cut_note(enum cut_kind kind, unsigned who, uint64_t offset, uint64_t length,
                            const void *bytes)
{
    if (!cut.on)
        return true;
    if (cut.fails_at >= 0 && cut.fails_at-- == 0) {
        errno = cut.error;
        return false;
    }
    struct cut_step *step = &cut.steps[cut.count++];
    if (cut.count == CUT_MOST)
        abort();
    *step = (struct cut_step){.kind = kind, .who = who, .offset = offset, .length = length};
    if (bytes) {
        step->bytes = malloc(length);
        memcpy(step->bytes, bytes, length);
    }
    return true;
}

/* In place of the C library's. Nothing is really synced, which takes long. */

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset)
{
    if (!cut_note(CUT_WRITE, cut.on ? cut_who(fd) : 0, (uint64_t)offset, length, bytes))
        return -1;
    return syscall(SYS_pwrite64, fd, bytes, length, offset);
}

int ftruncate(int fd, off_t size)
{
    if (!cut_note(CUT_SIZE, cut.on ? cut_who(fd) : 0, 0, (uint64_t)size, NULL))
        return -1;
    return (int)syscall(SYS_ftruncate, fd, size);
}

int fallocate(int fd, int mode, off_t offset, off_t length)
{
    if (!cut_note(CUT_HOLE, cut.on ? cut_who(fd) : 0, (uint64_t)offset, (uint64_t)length, NULL))
        return -1;
    return (int)syscall(SYS_fallocate, fd, mode, offset, length);
}

int fdatasync(int fd)
{
    return cut_note(CUT_SYNC, cut.on ? cut_who(fd) : 0, 0, 0, NULL) ? 0 : -1;
}

int fsync(int fd) __attribute__((alias("fdatasync")));

int openat(int folder, const char *name, int how, ...)
{
    if ((how & O_CREAT) && !cut_note(CUT_MADE, CUT_JOURNAL, 0, 0, NULL))
        return -1;
    return (int)syscall(SYS_openat, folder, name, how, 0600);
}

int unlinkat(int folder, const char *name, int how)
{
    bool there = faccessat(folder, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
    if (there && !cut_note(CUT_GONE, CUT_JOURNAL, 0, 0, NULL))
        return -1;
    return (int)syscall(SYS_unlinkat, folder, name, how);
}

static inline bool cut_keep_all(void)
{
    return true;
}

/* --- states ----------------------------------------------------------------------------------- */

static inline void cut_read(unsigned who, struct cut_file *file)
{
    *file = (struct cut_file){0};
    int fd = (int)syscall(SYS_openat, cut.folder, cut_names[who], O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return;
    ssize_t n = pread(fd, file->bytes, sizeof(file->bytes), 0);
    if (n < 0 || n == sizeof(file->bytes))
        abort();
    file->there = true;
    file->size = (uint64_t)n;
    close(fd);
}

static inline void cut_write(unsigned who, const struct cut_file *file)
{
    if (!file->there) {
        (void)!syscall(SYS_unlinkat, cut.folder, cut_names[who], 0);
        return;
    }
    int how = O_RDWR | O_CREAT | O_CLOEXEC; /* the same file: it stays known */
    int fd = (int)syscall(SYS_openat, cut.folder, cut_names[who], how, 0600);
    if (fd < 0 || syscall(SYS_ftruncate, fd, file->size) < 0 ||
        syscall(SYS_pwrite64, fd, file->bytes, file->size, 0) != (long)file->size)
        abort();
    close(fd);
}

static inline void cut_forget(void)
{
    for (size_t i = 0; i < cut.count; i++)
        free(cut.steps[i].bytes);
    cut.count = 0;
    cut.on = false;
    cut.fails_at = -1;
}

/* From the files as they are now. */
static inline void cut_start(void)
{
    cut_forget();
    for (unsigned i = 0; i < CUT_FILES; i++) {
        struct stat stat_of;
        cut_read(i, &cut.before[i]);
        if (i < CUT_DISKS && fstatat(cut.folder, cut_names[i], &stat_of, 0) == 0)
            cut.inodes[i] = stat_of.st_ino;
    }
    cut.on = true;
}

static inline void cut_put(struct cut_file *file, uint64_t offset, const uint8_t *bytes,
                           uint64_t length)
{
    if (offset + length > sizeof(file->bytes))
        abort();
    if (bytes)
        memcpy(file->bytes + offset, bytes, length);
    else
        memset(file->bytes + offset, 0, length);
    if (offset + length > file->size)
        file->size = offset + length;
}

static inline void cut_do(const struct cut_step *step, struct cut_file *file, bool (*keep)(void))
{
    switch (step->kind) {
    case CUT_WRITE:
    case CUT_HOLE:
        for (uint64_t at = step->offset, end = at + step->length, next; at < end; at = next) {
            next = (at | 511) + 1 < end ? (at | 511) + 1 : end;
            if (keep())
                cut_put(file, at, step->bytes ? step->bytes + (at - step->offset) : NULL,
                        next - at);
        }
        break;
    case CUT_SIZE:
        if (!keep())
            break;
        if (step->length < file->size)
            memset(file->bytes + step->length, 0, file->size - step->length);
        file->size = step->length;
        break;
    case CUT_MADE:
        file->there |= keep();
        break;
    case CUT_GONE:
        if (keep())
            *file = (struct cut_file){0};
        break;
    case CUT_SYNC:
        break;
    }
}

/* The files become what they may be when that many steps had ended, and so many had begun. */
static inline void cut_make(size_t ended, size_t begun, bool (*keep)(void))
{
    static struct cut_file file;
    for (unsigned who = 0; who < CUT_FILES; who++) {
        size_t synced = 0, named = 0;
        file = cut.before[who];
        for (size_t i = 0; i < ended; i++) {
            bool syncs = cut.steps[i].kind == CUT_SYNC;
            synced = syncs && cut.steps[i].who == who ? i : synced;
            named = syncs && cut.steps[i].who == CUT_FOLDER ? i : named;
        }
        for (size_t i = 0; i < begun; i++) {
            const struct cut_step *step = &cut.steps[i];
            bool is_name = step->kind == CUT_MADE || step->kind == CUT_GONE;
            if (step->who == who)
                cut_do(step, &file, i < (is_name ? named : synced) ? cut_keep_all : keep);
        }
        cut_write(who, &file);
    }
}
