/* SPDX-License-Identifier: MIT */
#include "ft/changes_file.h"

#include "core/stream.h"
#include "host/fd.h"
#include "host/small_file.h"
#include "vmm/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "words are written as they are");

#define MAGIC ((uint64_t)0x31676e616863564d) /* "MVchang1" */

#define NEW_NAME FOLDER_CHANGES ".new"

/* --- disks ------------------------------------------------------------------------------------ */

static uint64_t ns_of(const struct statx_timestamp *at)
{
    return (uint64_t)at->tv_sec * 1000000000 + at->tv_nsec;
}

/* An inode's number is used again, but not with the time of its birth. Where the file system does
 * not know that, it is 0. */
static int look(int fd, struct changes_disk *disk)
{
    struct statx stat;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, &stat) < 0)
        return -errno;
    disk->inode = stat.stx_ino;
    disk->born_ns = stat.stx_mask & STATX_BTIME ? ns_of(&stat.stx_btime) : 0;
    disk->mtime_ns = ns_of(&stat.stx_mtime);
    return 0;
}

int changes_head_add(struct changes_head *head, uint32_t place, uint64_t size, int fd)
{
    struct changes_disk disk = {.place = place, .size = size, .shift = CHANGES_LEAST_SHIFT};
    if (head->count == MACHINE_MAX_DISKS || size == 0)
        return -EINVAL;
    while ((size - 1) >> disk.shift >= CHANGES_MOST_REGIONS)
        disk.shift++;
    int ret = look(fd, &disk);
    if (ret == 0)
        head->disks[head->count++] = disk;
    return ret;
}

const char *changes_disk_differs(const struct changes_head *head, const struct changes_disk *disk,
                                 int fd)
{
    struct changes_disk now = {0};
    if (look(fd, &now) < 0)
        return "cannot be looked at";
    if (now.inode != disk->inode || now.born_ns != disk->born_ns)
        return "is another file than it was";
    if (head->flags & CHANGES_AT_REST && now.mtime_ns != disk->mtime_ns)
        return "was written to since the VM ended there";
    return NULL;
}

int changes_disk_rest(struct changes_disk *disk, int fd)
{
    struct changes_disk now = {0};
    int ret = look(fd, &now);
    if (ret == 0)
        disk->mtime_ns = now.mtime_ns;
    return ret;
}

const struct changes_disk *changes_head_find(const struct changes_head *head, uint32_t place)
{
    for (uint32_t i = 0; i < head->count; i++)
        if (head->disks[i].place == place)
            return &head->disks[i];
    return NULL;
}

size_t changes_words(const struct changes_disk *disk)
{
    uint64_t regions = ((disk->size - 1) >> disk->shift) + 1;
    return (size_t)((regions + CHANGES_WORD - 1) / CHANGES_WORD);
}

size_t changes_first_word(const struct changes_head *head, const struct changes_disk *disk)
{
    size_t words = 0;
    for (const struct changes_disk *other = head->disks; other < disk; other++)
        words += changes_words(other);
    return words;
}

size_t changes_all_words(const struct changes_head *head)
{
    return changes_first_word(head, &head->disks[head->count]);
}

uint64_t *changes_all_bits(const struct changes_head *head)
{
    uint64_t *bits = calloc(changes_all_words(head) + 1, sizeof(*bits)), *at = bits;
    for (uint32_t i = 0; bits && i < head->count; i++) {
        const struct changes_disk *disk = &head->disks[i];
        uint64_t regions = ((disk->size - 1) >> disk->shift) + 1;
        for (; regions > 0; at++) {
            unsigned here = regions < CHANGES_WORD ? (unsigned)regions : CHANGES_WORD;
            *at = UINT64_MAX >> (CHANGES_WORD - here);
            regions -= here;
        }
    }
    return bits;
}

/* --- the head --------------------------------------------------------------------------------- */

static int format(const struct changes_head *head, uint8_t ret_bytes[CHANGES_HEAD])
{
    struct stream_buffer buffer;
    stream_buffer_init(&buffer, CHANGES_HEAD);
    struct stream *stream = &buffer.stream;
    stream_checksum_start(stream);
    stream_put_u64(stream, MAGIC);
    stream_write(stream, head->uuid, sizeof(head->uuid));
    stream_write(stream, head->lineage, sizeof(head->lineage));
    stream_put_u32(stream, head->flags);
    stream_put_u32(stream, head->count);
    for (uint32_t i = 0; i < head->count; i++) {
        const struct changes_disk *disk = &head->disks[i];
        stream_put_u32(stream, disk->place);
        stream_put_u32(stream, disk->shift);
        stream_put_u64(stream, disk->size);
        stream_put_u64(stream, disk->inode);
        stream_put_u64(stream, disk->born_ns);
        stream_put_u64(stream, disk->mtime_ns);
    }
    stream_put_u32(stream, stream->checksum);
    memset(ret_bytes, 0, CHANGES_HEAD);
    if (stream_error(stream) == 0)
        memcpy(ret_bytes, buffer.bytes, buffer.length);
    int ret = stream_error(stream);
    stream_buffer_finish(&buffer);
    return ret;
}

static bool parse_disk(struct stream *stream, struct changes_disk *disk)
{
    disk->place = stream_get_u32(stream);
    disk->shift = stream_get_u32(stream);
    disk->size = stream_get_u64(stream);
    disk->inode = stream_get_u64(stream);
    disk->born_ns = stream_get_u64(stream);
    disk->mtime_ns = stream_get_u64(stream);
    return disk->size > 0 && disk->shift >= CHANGES_LEAST_SHIFT && disk->shift < 64 &&
           (disk->size - 1) >> disk->shift < CHANGES_MOST_REGIONS;
}

static bool parse(const uint8_t bytes[CHANGES_HEAD], struct changes_head *ret_head)
{
    struct stream_buffer buffer;
    stream_buffer_init_read(&buffer, bytes, CHANGES_HEAD);
    struct stream *stream = &buffer.stream;
    stream_checksum_start(stream);
    *ret_head = (struct changes_head){0};
    bool good = stream_get_u64(stream) == MAGIC;
    stream_read(stream, ret_head->uuid, sizeof(ret_head->uuid));
    stream_read(stream, ret_head->lineage, sizeof(ret_head->lineage));
    ret_head->flags = stream_get_u32(stream);
    uint32_t count = stream_get_u32(stream);
    good = good && count <= MACHINE_MAX_DISKS;
    for (uint32_t i = 0; i < count && good; i++, ret_head->count++)
        good = parse_disk(stream, &ret_head->disks[i]);
    uint32_t sum = stream->checksum;
    return good && stream_get_u32(stream) == sum && stream_error(stream) == 0;
}

/* --- the file --------------------------------------------------------------------------------- */

int changes_file_write_head(int fd, const struct changes_head *head)
{
    uint8_t bytes[CHANGES_HEAD];
    int ret = format(head, bytes);
    if (ret == 0)
        ret = fd_write_at(fd, bytes, sizeof(bytes), 0);
    return ret < 0 ? ret : fdatasync(fd) < 0 ? -errno : 0;
}

int changes_file_write_bits(int fd, const uint64_t *bits, size_t words)
{
    int ret = fd_write_at(fd, bits, words * sizeof(*bits), CHANGES_HEAD);
    return ret < 0 ? ret : fdatasync(fd) < 0 ? -errno : 0;
}

static int write_new(int folder, int fd, const struct changes_head *head, bool all)
{
    size_t words = changes_all_words(head);
    uint64_t *bits = all ? changes_all_bits(head) : calloc(words + 1, sizeof(*bits));
    int ret = bits ? changes_file_write_bits(fd, bits, words) : -ENOMEM;
    free(bits);
    if (ret == 0)
        ret = changes_file_write_head(fd, head);
    small_file_give_to_owner(folder, fd);
    return ret == 0 && fsync(fd) < 0 ? -errno : ret;
}

static int say_unwritten(struct err *err, int error)
{
    return err_sys(err, ERR_FAILED, error, "cannot write " FOLDER_CHANGES);
}

int changes_file_draw(int folder, const struct changes_head *head, bool all, struct err *err)
{
    int fd = unlinkat(folder, NEW_NAME, 0) < 0 && errno != ENOENT
                 ? -1
                 : openat(folder, NEW_NAME, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                          0600);
    int ret = fd < 0 ? -errno : write_new(folder, fd, head, all);
    if (ret == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return say_unwritten(err, -ret);
}

int changes_file_place(int folder, struct err *err)
{
    return renameat(folder, NEW_NAME, folder, FOLDER_CHANGES) < 0 || fsync(folder) < 0
               ? say_unwritten(err, errno)
               : 0;
}

void changes_file_forget(int folder)
{
    unlinkat(folder, NEW_NAME, 0); /* the next one does it else */
}

int changes_file_make(int folder, const struct changes_head *head, bool all, struct err *err)
{
    int fd = changes_file_draw(folder, head, all, err);
    int ret = fd < 0 ? fd : changes_file_place(folder, err);
    if (fd >= 0 && ret < 0)
        close(fd);
    return ret < 0 ? ret : fd;
}

static int say_stale(struct err *err, const char *what)
{
    return err_say(err, ERR_STATE, ESTALE, FOLDER_CHANGES " %s", what);
}

/* Whoever has no descriptor left, or a disk that fails, has not found it to count for nothing. */
static int say_unread(struct err *err, int error)
{
    if (error == ENODATA)
        return say_stale(err, "has another length than it says");
    if (error == ESTALE) /* NFS has one of its own, which is not ours */
        error = EIO;
    return err_sys(err, ERR_FAILED, error, "cannot read " FOLDER_CHANGES);
}

static int read_all(int fd, struct changes_head *ret_head, uint64_t **ret_bits, struct err *err)
{
    uint8_t bytes[CHANGES_HEAD];
    struct stat stat;
    if (fstat(fd, &stat) < 0)
        return say_unread(err, errno);
    if (!S_ISREG(stat.st_mode))
        return say_stale(err, "is no plain file");
    int ret = fd_read_at(fd, bytes, sizeof(bytes), 0);
    if (ret < 0)
        return say_unread(err, -ret);
    if (!parse(bytes, ret_head))
        return say_stale(err, "is damaged");
    size_t words = changes_all_words(ret_head);
    if ((uint64_t)stat.st_size != CHANGES_HEAD + words * sizeof(uint64_t))
        return say_stale(err, "has another length than it says");
    uint64_t *bits = calloc(words + 1, sizeof(*bits));
    ret = bits ? fd_read_at(fd, bits, words * sizeof(*bits), CHANGES_HEAD) : -ENOMEM;
    if (ret < 0) {
        free(bits);
        return say_unread(err, -ret);
    }
    *ret_bits = bits;
    return 0;
}

int changes_file_open(int folder, struct changes_head *ret_head, uint64_t **ret_bits,
                      struct err *err)
{
    int fd = openat(folder, FOLDER_CHANGES,
                    O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return -ENOENT;
    if (fd < 0)
        return errno == ELOOP || errno == EISDIR || errno == ENXIO
                   ? say_stale(err, "is no plain file")
                   : say_unread(err, errno);
    int ret = read_all(fd, ret_head, ret_bits, err);
    if (ret == 0)
        return fd;
    close(fd);
    return ret;
}

int changes_file_remove(int folder)
{
    int ret = unlinkat(folder, FOLDER_CHANGES, 0) < 0 ? -errno : 0;
    if (ret == -ENOENT)
        return 0;
    return ret < 0 ? ret : fsync(folder) < 0 ? -errno : 0;
}

int changes_say_mixed(const char *name, struct err *err)
{
    int ret = err_say(err, ERR_STATE, ESTALE,
                      "the disks of %s are neither what they were nor what they are where it runs: "
                      "they were just being brought up to date",
                      name);
    err_hint(err, "it has to run where it ran last; with 'minivmm standby' here this one becomes "
                  "its twin. Or restore a snapshot");
    return ret;
}

void changes_say_unread(const char *name, const struct err *why, struct err *err)
{
    if (err)
        *err = *why;
    err_prefix(err, "%s", name);
}

int changes_file_check(int folder, const char *name, struct err *err)
{
    struct changes_head head;
    struct err why = {0};
    uint64_t *bits;
    int fd = changes_file_open(folder, &head, &bits, &why);
    if (fd == -ENOENT || fd == -ESTALE) /* such a note is whole before anything is mixed */
        return 0;
    if (fd < 0) {
        changes_say_unread(name, &why, err);
        return fd;
    }
    free(bits);
    close(fd);
    return head.flags & CHANGES_MIXED ? changes_say_mixed(name, err) : 0;
}
