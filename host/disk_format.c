/* SPDX-License-Identifier: MIT */
/*
 * What kind of image a file is, found out in a way that the guest inside of it cannot turn against
 * its host.
 *
 * The danger: all bytes of a raw disk are the guest's. If they were asked at each start, a guest
 * could write the header of another format to its first sector, and would at the next start be
 * given what that header asks for: another size, other files. So:
 *
 *  1. format= wins. Whoever names the format is believed, and the file is not looked at. With
 *     format=raw a guest may write whatever it likes, and the mark (3) is left for later runs where
 *     that is possible; with format=qcow2 an old mark is taken off.
 *  2. A bare file is looked at once. The magic number of qcow2 says qcow2; one of the formats that
 *     we do not read, compressed or plain text is an error that names the mend; all else is raw.
 *  3. What was found raw, and is opened for writing, is marked: the extended attribute
 *     "user.minivmm.format" says "raw". A marked file is never looked at again.
 *  4. Where that cannot be written down (no user attributes on this file system, a block device,
 *     the file of another user), the guest cannot write such a header: disk_guard.c refuses it.
 *
 * Opened readonly or with an overlay nothing is marked or guarded, because the guest's writes do
 * not get there. Formats that are told by other bytes than the first (a fixed VHD by its last
 * sector), compressed files and text are not guarded: what a guest gains by writing them is an
 * error at the next start. A copy that was made without attributes (plain cp) is looked at again.
 * A qcow2 header in it can make the disk look different from inside, and no more: files beside the
 * image are opened only for a disk with `backing`, which a person has to say.
 */
#include "host/disk_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define MARK     "user.minivmm.format"
#define MARK_RAW "raw"

enum { HEAD = 4096, SECTOR = 512, SMALL = 64 << 10 };

enum kind {
    IMAGE,   /* qemu-img reads it */
    PACKED,  /* `tool` unpacks it */
    PROGRAM, /* a kernel */
};

struct magic {
    const char *name;
    enum kind kind;
    unsigned offset, length;
    const char *bytes;
    const char *tool, *suffix;
};

static const struct magic magics[] = {
    {"qcow2", IMAGE, 0, 4, "QFI\xfb", NULL, NULL},
    {"VMDK (VMware)", IMAGE, 0, 4, "KDMV", NULL, NULL},
    {"VMDK (VMware)", IMAGE, 0, 4, "COWD", NULL, NULL},
    {"VMDK (VMware)", IMAGE, 0, 21, "# Disk DescriptorFile", NULL, NULL},
    {"VHDX (Hyper-V)", IMAGE, 0, 8, "vhdxfile", NULL, NULL},
    {"VHD (Hyper-V)", IMAGE, 0, 8, "conectix", NULL, NULL},
    {"VDI (VirtualBox)", IMAGE, 64, 4, "\x7f\x10\xda\xbe", NULL, NULL},
    {"QED", IMAGE, 0, 4, "QED\0", NULL, NULL},
    {"gzip", PACKED, 0, 3, "\x1f\x8b\x08", "gunzip", ".gz"},
    {"xz", PACKED, 0, 6, "\3757zXZ\0", "unxz", ".xz"},
    {"zstd", PACKED, 0, 4, "\x28\xb5\x2f\xfd", "unzstd", ".zst"},
    {"bzip2", PACKED, 0, 3, "BZh", "bunzip2", ".bz2"},
    {"lz4", PACKED, 0, 4, "\x04\x22\x4d\x18", "unlz4", ".lz4"},
    {"zip", PACKED, 0, 4, "PK\x03\x04", "unzip", ".zip"},
    {"an ELF", PROGRAM, 0, 4, "\177ELF", NULL, NULL},
    {"a Linux", PROGRAM, 514, 4, "HdrS", NULL, NULL},
};

static const struct magic vhd_footer = {"VHD (Hyper-V)", IMAGE, 0, 8, "conectix", NULL, NULL};

static bool fits(const struct magic *magic, const uint8_t *bytes, size_t length)
{
    return length >= magic->offset + magic->length &&
           memcmp(bytes + magic->offset, magic->bytes, magic->length) == 0;
}

static const struct magic *find_magic(const uint8_t *bytes, size_t length)
{
    for (size_t i = 0; i < array_size(magics); i++)
        if (fits(&magics[i], bytes, length))
            return &magics[i];
    return NULL;
}

const char *disk_format_announced(const void *head, size_t length)
{
    const struct magic *magic = find_magic(head, length);

    return magic && magic->kind == IMAGE ? magic->name : NULL;
}

const char *disk_format_name(enum disk_format format)
{
    static const char *const names[] = {"any", "raw", "qcow2"};

    return names[format];
}

/* Looking. */

struct look {
    const char *path;
    int fd;
    uint64_t size;
    size_t head_length;
    uint8_t head[HEAD], foot[SECTOR];
};

static int read_all(const struct look *look, void *to, size_t length, uint64_t offset,
                    struct err *err)
{
    for (size_t done = 0; done < length;) {
        ssize_t r = pread(look->fd, (uint8_t *)to + done, length - done, (off_t)(offset + done));
        if (r > 0) {
            done += (size_t)r;
            continue;
        }
        if (r < 0 && errno == EINTR)
            continue;
        return err_sys(err, ERR_FAILED, r < 0 ? errno : EIO, "cannot read %s", look->path);
    }
    return 0;
}

static int read_ends(struct look *look, struct err *err)
{
    off_t size = lseek(look->fd, 0, SEEK_END); /* of devices too */

    if (size < 0)
        return err_sys(err, ERR_FAILED, errno, "cannot learn the size of %s", look->path);
    if (size == 0)
        return disk_say_empty(look->path, err);
    look->size = (uint64_t)size;
    look->head_length = look->size < HEAD ? (size_t)look->size : HEAD;
    int r = read_all(look, look->head, look->head_length, 0, err);
    if (r == 0 && look->size >= SECTOR)
        r = read_all(look, look->foot, SECTOR, look->size - SECTOR, err);
    return r;
}

/* Letters from end to end, in a file that is small or begins as scripts and web pages do. */
static bool is_text(const struct look *look)
{
    for (size_t i = 0; i < look->head_length; i++) {
        uint8_t byte = look->head[i];
        if (byte == 0x7f || (byte < ' ' && !strchr("\t\n\r\f\x1b", byte)) || byte == 0)
            return false;
    }
    return look->size < SMALL || look->head[0] == '<' || memcmp(look->head, "#!", 2) == 0;
}

/* Saying what is wrong. */

/* The length of the path without the ending of its last part. */
static int stem_length(const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    const char *dot = strrchr(name, '.');

    return (int)(dot && dot > name ? (size_t)(dot - path) : strlen(path));
}

static int say_image(const char *path, const struct magic *magic, struct err *err)
{
    int r = err_say(err, ERR_DEFINITION, EINVAL,
                    "%s is a disk image of the kind %s, which minivmm does not read", path,
                    magic->name);
    err_hint(err, "qemu-img convert -O raw %s %.*s.raw makes a raw disk of it", path,
             stem_length(path), path);
    return r;
}

static int say_packed(const char *path, const struct magic *magic, struct err *err)
{
    size_t length = strlen(path), suffix = strlen(magic->suffix);
    bool named = length > suffix && strcmp(path + length - suffix, magic->suffix) == 0;
    int r = err_say(err, ERR_DEFINITION, EINVAL, "%s is compressed with %s, and not a disk yet",
                    path, magic->name);

    if (named)
        err_hint(err, "unpack it first: %s %s", magic->tool, path);
    else
        err_hint(err, "unpack it first: %s <%s >%s.img", magic->tool, path, path);
    return r;
}

static int say_program(const char *path, const struct magic *magic, struct err *err)
{
    int r = err_say(err, ERR_DEFINITION, EINVAL, "%s is %s kernel or program, not a disk image",
                    path, magic->name);

    err_hint(err, "a kernel is booted with --kernel %s", path);
    return r;
}

static int say_foreign(const char *path, const struct magic *magic, struct err *err)
{
    switch (magic->kind) {
    case PACKED:
        return say_packed(path, magic, err);
    case PROGRAM:
        return say_program(path, magic, err);
    case IMAGE:
        break;
    }
    return say_image(path, magic, err);
}

static int say_text(const char *path, struct err *err)
{
    int r = err_say(err, ERR_DEFINITION, EINVAL, "%s is a text file, not a disk image", path);

    err_hint(err, "if it is a disk all the same, add ',format=raw'");
    return r;
}

static int judge(const struct look *look, enum disk_format *ret_format, struct err *err)
{
    const struct magic *magic = find_magic(look->head, look->head_length);

    if (!magic && fits(&vhd_footer, look->foot, sizeof(look->foot)))
        magic = &vhd_footer;
    if (magic == &magics[0])
        *ret_format = DISK_FORMAT_QCOW2;
    else if (magic)
        return say_foreign(look->path, magic, err);
    else if (is_text(look))
        return say_text(look->path, err);
    else
        *ret_format = DISK_FORMAT_RAW;
    return 0;
}

/* The mark. */

static bool is_marked(int fd)
{
    char value[sizeof(MARK_RAW)];
    ssize_t length = fgetxattr(fd, MARK, value, sizeof(value));

    return length == (ssize_t)strlen(MARK_RAW) && memcmp(value, MARK_RAW, (size_t)length) == 0;
}

static bool mark(int fd)
{
    return fsetxattr(fd, MARK, MARK_RAW, strlen(MARK_RAW), 0) == 0;
}

static bool is_written(const struct disk_config *config)
{
    return !config->readonly && !config->ephemeral;
}

/* Whether it works or not: whoever names the format is not held up by this. */
static void mark_as_named(const struct disk_config *config)
{
    int fd = open(config->path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

    if (fd < 0)
        return;
    if (config->format == DISK_FORMAT_RAW)
        (void)(is_marked(fd) || mark(fd));
    else if (is_marked(fd))
        (void)!fremovexattr(fd, MARK);
    close(fd);
}

static int look_at(struct look *look, const struct disk_config *config, enum disk_format *format,
                   bool *guard, struct err *err)
{
    look->fd = open(look->path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (look->fd < 0)
        return err_sys(err, ERR_FAILED, errno, "cannot open %s", look->path);
    if (is_marked(look->fd)) {
        *format = DISK_FORMAT_RAW;
        return 0;
    }
    int r = read_ends(look, err);
    if (r == 0)
        r = judge(look, format, err);
    if (r == 0 && *format == DISK_FORMAT_RAW && is_written(config))
        *guard = !mark(look->fd);
    return r;
}

int disk_format_find(const struct disk_config *config, enum disk_format *ret_format,
                     bool *ret_guard, struct err *err)
{
    struct look look = {.path = config->path, .fd = -1};
    enum disk_format format = config->format;
    bool device, guard = false;
    int r = disk_image_kind(config->path, &device, err);

    if (r < 0)
        return r;
    if (format == DISK_FORMAT_ANY)
        r = look_at(&look, config, &format, &guard, err);
    else if (is_written(config))
        mark_as_named(config);
    if (look.fd >= 0)
        close(look.fd);
    if (r < 0)
        return r;
    *ret_format = format;
    *ret_guard = guard;
    return 0;
}
