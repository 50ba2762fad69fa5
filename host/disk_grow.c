/* SPDX-License-Identifier: MIT */
/*
 * A raw image grows by becoming a longer file. Of a qcow2 image (disk_qcow2.c says what the format
 * is) two numbers in the header say how large the disk is:
 *
 *   24  its size, 64 bits
 *   36  how many entries its L1 table has, 32 bits; each of them stands for as many bytes as an L2
 *       table has room for
 *
 * The L1 table has whole clusters for itself, so there is nearly always room for more entries
 * behind its last: of the usual 64 KiB, one cluster is enough for 4 TiB. The entries that are new
 * become zero, and reach the disk, before the header counts them. Both numbers lie in one sector.
 *
 * A table that would have to move, and an image with snapshots inside (which share what lies in the
 * way), is left to qemu-img. Features that clear themselves (88) are those of bitmaps, which are no
 * longer true of the larger disk.
 */
#include "host/disk_grow.h"
#include "host/disk_file.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC 0x514649fbu

/* Incompatible: dirty, and compressed in another way. */
#define FEATURES_KNOWN 9ull

enum { SECTOR = 512, V2_HEADER = 72, V3_HEADER = 104, MAX_L1 = 32 << 20 };

struct image {
    int fd;
    const char *name;
    uint64_t file_size;
    struct err *err;
};

struct qcow2_header {
    uint8_t bytes[SECTOR];
    uint32_t version, cluster_bits;
    uint64_t size, l1_offset, l1_count;
};

static uint32_t u32_at(const uint8_t *bytes)
{
    uint32_t value;
    memcpy(&value, bytes, sizeof(value));
    return be32toh(value);
}

static uint64_t u64_at(const uint8_t *bytes)
{
    uint64_t value;
    memcpy(&value, bytes, sizeof(value));
    return be64toh(value);
}

static void put_u32(uint8_t *bytes, uint32_t value)
{
    value = htobe32(value);
    memcpy(bytes, &value, sizeof(value));
}

static void put_u64(uint8_t *bytes, uint64_t value)
{
    value = htobe64(value);
    memcpy(bytes, &value, sizeof(value));
}

static int write_all(const struct image *image, const void *bytes, size_t length, uint64_t offset)
{
    const uint8_t *from = bytes;

    while (length) {
        ssize_t n = pwrite(image->fd, from, length, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return err_sys(image->err, ERR_FAILED, n < 0 ? errno : EIO, "cannot write to %s",
                           image->name);
        from += n;
        length -= (size_t)n;
        offset += (uint64_t)n;
    }
    return 0;
}

static int sync_image(const struct image *image)
{
    if (fsync(image->fd) == 0)
        return 0;
    return err_sys(image->err, ERR_FAILED, errno, "cannot write to %s", image->name);
}

static int say_too_large(const struct image *image, uint64_t now)
{
    return err_say(image->err, ERR_USAGE, EINVAL,
                   "%s has %llu MiB already: a disk can grow, and not become smaller", image->name,
                   (unsigned long long)(now >> 20));
}

static int leave_to_qemu(const struct image *image, const char *why)
{
    int r = err_say(image->err, ERR_DEFINITION, ENOTSUP, "%s cannot grow here: %s", image->name,
                    why);
    err_hint(image->err, "qemu-img resize %s SIZE can do it", image->name);
    return r;
}

/* --- qcow2 ---------------------------------------------------------------------------------- */

static int read_header(const struct image *image, struct qcow2_header *header)
{
    ssize_t length = pread(image->fd, header->bytes, sizeof(header->bytes), 0);
    const uint8_t *bytes = header->bytes;

    if (length < 0)
        return err_sys(image->err, ERR_FAILED, errno, "cannot read %s", image->name);
    header->version = u32_at(bytes + 4);
    header->cluster_bits = u32_at(bytes + 20);
    if (length < V3_HEADER || u32_at(bytes) != MAGIC ||
        (header->version != 2 && header->version != 3) || header->cluster_bits < 9 ||
        header->cluster_bits > 21)
        return err_say(image->err, ERR_DEFINITION, EINVAL, "%s is not a qcow2 image", image->name);
    header->size = u64_at(bytes + 24);
    header->l1_count = u32_at(bytes + 36);
    header->l1_offset = u64_at(bytes + 40);
    return 0;
}

static int check_header(const struct image *image, const struct qcow2_header *header)
{
    const uint8_t *bytes = header->bytes;
    uint64_t mask = (UINT64_C(1) << header->cluster_bits) - 1, offset = header->l1_offset;

    if (u32_at(bytes + 32) || (header->version == 3 && u64_at(bytes + 72) & ~FEATURES_KNOWN))
        return leave_to_qemu(image, "it has features that are not supported");
    if (u64_at(bytes + 8))
        return leave_to_qemu(image, "it stands on another image");
    if (u32_at(bytes + 60))
        return leave_to_qemu(image, "it has snapshots inside");
    if (!offset || offset & mask || header->l1_count > MAX_L1 / 8 || offset >= image->file_size ||
        header->l1_count * 8 > image->file_size - offset)
        return err_say(image->err, ERR_DEFINITION, EINVAL,
                       "%s is a damaged qcow2 image: its L1 table is not in the file", image->name);
    return 0;
}

/* The entries up to `count`. What a larger table had there before may still lie there. */
static int clear_entries(const struct image *image, const struct qcow2_header *header,
                         uint64_t count)
{
    static uint8_t zeroes[64 << 10]; /* const, they would be in the program's file */
    uint64_t at = header->l1_offset + header->l1_count * 8, end = header->l1_offset + count * 8;
    int r = 0;

    while (r == 0 && at < end) {
        uint64_t part = end - at < sizeof(zeroes) ? end - at : sizeof(zeroes);
        r = write_all(image, zeroes, part, at);
        at += part;
    }
    return r == 0 ? sync_image(image) : r;
}

static int grow_qcow2(const struct image *image, uint64_t size)
{
    struct qcow2_header header;
    int r = read_header(image, &header);

    if (r == 0)
        r = check_header(image, &header);
    if (r < 0 || size == header.size)
        return r;
    if (size < header.size)
        return say_too_large(image, header.size);
    uint64_t cluster = UINT64_C(1) << header.cluster_bits, per_entry = cluster / 8 * cluster;
    uint64_t count = size / per_entry + (size % per_entry != 0);
    uint64_t room = (header.l1_count * 8 + cluster - 1) / cluster * cluster / 8;
    if (count > MAX_L1 / 8 || count > room)
        return leave_to_qemu(image, "its L1 table has no room");
    if (count > header.l1_count) {
        r = clear_entries(image, &header, count);
        put_u32(header.bytes + 36, (uint32_t)count);
    }
    put_u64(header.bytes + 24, size);
    if (header.version == 3)
        put_u64(header.bytes + 88, 0);
    return r < 0 ? r : write_all(image, header.bytes, V3_HEADER, 0);
}

/* --- raw ------------------------------------------------------------------------------------ */

static int grow_raw(const struct image *image, uint64_t size)
{
    if (size < image->file_size)
        return say_too_large(image, image->file_size);
    if (size > INT64_MAX || ftruncate(image->fd, (off_t)size) < 0)
        return err_sys(image->err, ERR_FAILED, size > INT64_MAX ? EFBIG : errno,
                       "cannot make %s %llu MiB long", image->name,
                       (unsigned long long)(size >> 20));
    return 0;
}

int disk_grow(int folder, const char *name, enum disk_format format, uint64_t size, struct err *err)
{
    struct image image = {.name = name, .err = err};
    struct stat stat;

    if (size % SECTOR)
        return err_say(err, ERR_USAGE, EINVAL, "the size of a disk is a multiple of 512 bytes");
    image.fd = openat(folder, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (image.fd < 0 || fstat(image.fd, &stat) < 0 || !S_ISREG(stat.st_mode)) {
        int r = err_sys(err, ERR_FAILED, image.fd < 0 ? errno : EINVAL, "cannot grow %s", name);
        if (image.fd >= 0)
            close(image.fd);
        return r;
    }
    image.file_size = (uint64_t)stat.st_size;
    int r = disk_lock(image.fd, name, false, err);
    if (r == 0)
        r = format == DISK_FORMAT_QCOW2 ? grow_qcow2(&image, size) : grow_raw(&image, size);
    if (r == 0)
        r = sync_image(&image);
    close(image.fd);
    return r;
}

bool disk_has_backing(const char *path)
{
    uint8_t bytes[V2_HEADER];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

    if (fd < 0)
        return false;
    bool has = pread(fd, bytes, sizeof(bytes), 0) == sizeof(bytes) && u32_at(bytes) == MAGIC &&
               u64_at(bytes + 8);
    close(fd);
    return has;
}
