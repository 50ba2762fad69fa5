/* SPDX-License-Identifier: MIT */
/* Opening a qcow2 image: its header, the tables that stay in memory, what it stands on. */
#include "host/disk_qcow2.h"

#include <ctype.h>
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC 0x514649fbu

enum {
    V2_HEADER = 72,
    V3_HEADER = 104,
    MAX_L1 = 32 << 20,
    MAX_REFCOUNT_TABLE = 8 << 20,
    MAX_SNAPSHOTS = 65536,
    MAX_SNAPSHOT_BYTES = 16 << 20,
    MAX_SNAPSHOT_CLUSTERS = 1 << 20,
    SNAPSHOT_HEADER = 40,
    NAME = 1024,

    FEATURE_NAME = 46,
    FEATURE_ENTRY = 48,
    SCRATCH_BYTES = 16 << 20, /* of one kind, about */
    MOST_SCRATCHES = 16,
};

enum extension {
    EXTENSION_END = 0,
    EXTENSION_BACKING_FORMAT = 0xe2792aca,
    EXTENSION_FEATURES = 0x6803f857,
};

#define INCOMPATIBLE_DIRTY       1ull
#define INCOMPATIBLE_CORRUPT     2ull
#define INCOMPATIBLE_DATA_FILE   4ull
#define INCOMPATIBLE_COMPRESSION 8ull
#define INCOMPATIBLE_EXTENDED_L2 16ull
#define INCOMPATIBLE_KNOWN       (INCOMPATIBLE_DIRTY | INCOMPATIBLE_CORRUPT | INCOMPATIBLE_COMPRESSION)

/* Images that stand on this one, up to the first. */
struct chain {
    const struct chain *above;
    dev_t device;
    ino_t inode;
    unsigned depth;
};

struct opening {
    struct qcow2 *q;
    const struct disk_config *config;
    const struct chain *chain;
    struct disk_file file;
    struct err *err;
    uint8_t *bytes; /* cluster 0 */
    size_t length;  /* of it, as far as the file goes */
    uint64_t header_length, incompatible, autoclear;
    uint64_t extensions_end, file_size;
    const uint8_t *features; /* table of names; NULL: none */
    size_t features_length;
    char backing[NAME], backing_format[16];
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

static void put_u64(uint8_t *bytes, uint64_t value)
{
    value = htobe64(value);
    memcpy(bytes, &value, sizeof(value));
}

static int say_bad(struct opening *o, const char *what)
{
    int r = err_say(o->err, ERR_DEFINITION, EINVAL, "%s is a damaged qcow2 image: %s",
                    o->config->path, what);
    err_hint(o->err, "'qemu-img check %s' says more", o->config->path);
    return r;
}

static int say_unsupported(struct opening *o, const char *what, const char *hint)
{
    int r = err_say(o->err, ERR_DEFINITION, ENOTSUP, "%s %s, which is not supported",
                    o->config->path, what);
    if (hint)
        err_hint(o->err, hint, o->config->path);
    return r;
}

int qcow2_header_write(struct qcow2 *q)
{
    int r = qcow2_file_write(q, 0, q->header, q->cache.unit_size);
    return r < 0 ? r : qcow2_file_sync(q);
}

/* Once, and to whoever runs the disk: while it is opened damage is an error. */
static void tell(struct qcow2 *q, const char *what)
{
    struct err err = {0};

    if (q->told || !q->client.trouble)
        return;
    q->told = true;
    (void)err_say(
        &err, ERR_FAILED, EIO, "%s is damaged: %s; %s; 'qemu-img check' says more", q->path, what,
        q->writable ? "it is not written to any more" : "what depends on that cannot be read");
    disk_tell_trouble(&q->client, err.text);
}

/* A commit may be under way with the header of before: the next one writes this one again. */
int qcow2_corrupt(struct qcow2 *q, const char *what)
{
    tell(q, what);
    if (q->corrupt || !q->writable)
        return -EIO;
    q->corrupt = true;
    if (!q->v3)
        return -EIO;
    put_u64(q->header + 72, u64_at(q->header + 72) | INCOMPATIBLE_CORRUPT);
    q->header_dirty = true;
    qcow2_commit_later(q);
    (void)!qcow2_header_write(q); /* if it cannot be marked it is damaged all the same */
    return -EIO;
}

/* The header. */

static int read_cluster_0(struct opening *o)
{
    uint8_t first[V3_HEADER + 8];
    ssize_t r = 0;
    uint64_t length = o->file.info.size;

    /* Aligned, for O_DIRECT. */
    o->q->length_align = o->file.direct ? o->file.length_align : 1;
    if (qcow2_file_read(o->q, 0, o->q->header, QCOW2_UNIT) < 0)
        return err_sys(o->err, ERR_FAILED, EIO, "cannot read %s", o->config->path);
    memcpy(first, o->q->header, sizeof(first));
    uint32_t version = u32_at(first + 4), bits = u32_at(first + 20);
    if (length < V2_HEADER || u32_at(first) != MAGIC) {
        r = err_say(o->err, ERR_DEFINITION, EINVAL, "%s is not a qcow2 image", o->config->path);
        err_hint(o->err, "'qemu-img info %s' says what it is", o->config->path);
        return (int)r;
    }
    if (version != 2 && version != 3)
        return err_say(o->err, ERR_DEFINITION, ENOTSUP,
                       "%s is a qcow image of version %u; versions 2 and 3 are supported",
                       o->config->path, version);
    if (bits < 9 || bits > 21)
        return say_bad(o, "its cluster size is none");
    o->q->v3 = version == 3;
    o->q->cluster_bits = (uint8_t)bits;
    o->q->cluster_size = UINT64_C(1) << bits;
    o->length = length < o->q->cluster_size ? (size_t)length : (size_t)o->q->cluster_size;
    size_t room = o->q->cluster_size < QCOW2_UNIT ? QCOW2_UNIT : (size_t)o->q->cluster_size;
    o->bytes = aligned_alloc(QCOW2_UNIT, room);
    if (!o->bytes)
        return err_sys(o->err, ERR_HOST, ENOMEM, "cannot set up disk I/O");
    if (qcow2_file_read(o->q, 0, o->bytes, room) < 0)
        return err_sys(o->err, ERR_FAILED, EIO, "cannot read %s", o->config->path);
    return 0;
}

static int say_unknown_features(struct opening *o, uint64_t unknown)
{
    char what[2 * FEATURE_NAME + 64] = "";
    int bit = __builtin_ctzll(unknown);

    snprintf(what, sizeof(what), "needs the feature with number %d", bit);
    for (size_t at = 0; at + FEATURE_ENTRY <= o->features_length; at += FEATURE_ENTRY) {
        const uint8_t *entry = o->features + at;
        char name[FEATURE_NAME + 1] = "";
        if (entry[0] != 0 || entry[1] != bit)
            continue;
        for (unsigned i = 0; i < FEATURE_NAME && entry[2 + i]; i++)
            name[i] = isprint(entry[2 + i]) ? (char)entry[2 + i] : '?';
        snprintf(what, sizeof(what), "needs the feature '%s'", name);
        break;
    }
    return say_unsupported(o, what, NULL);
}

static int check_features(struct opening *o)
{
    uint64_t bits = o->incompatible;

    if (u32_at(o->bytes + 32))
        return say_unsupported(o, "is encrypted",
                               "'qemu-img convert' can make an image without encryption of %s");
    if (bits & INCOMPATIBLE_DATA_FILE)
        return say_unsupported(o, "has its data in another file (external data file)",
                               "'qemu-img convert -O qcow2 %s NEW' makes one file of them");
    if (bits & INCOMPATIBLE_EXTENDED_L2)
        return say_unsupported(o, "has subclusters (extended L2 entries)",
                               "'qemu-img convert -O qcow2 %s NEW' makes an image without");
    if (bits & ~INCOMPATIBLE_KNOWN)
        return say_unknown_features(o, bits & ~INCOMPATIBLE_KNOWN);
    if (bits & INCOMPATIBLE_CORRUPT && !o->config->readonly) {
        int r = err_say(o->err, ERR_DEFINITION, EIO, "%s is marked as corrupt", o->config->path);
        err_hint(o->err, "'qemu-img check -r all %s' repairs what can be repaired",
                 o->config->path);
        return r;
    }
    return 0;
}

/* Rule 5. */
static int read_extensions(struct opening *o)
{
    uint64_t at = o->header_length, end = o->extensions_end;

    while (end - at >= 8) {
        uint32_t type = u32_at(o->bytes + at), length = u32_at(o->bytes + at + 4);
        const uint8_t *bytes = o->bytes + at + 8;
        at += 8;
        if (type == EXTENSION_END)
            return 0;
        if (length > end - at)
            return say_bad(o, "a header extension goes past its end");
        if (type == EXTENSION_BACKING_FORMAT) {
            size_t most = sizeof(o->backing_format) - 1;
            memcpy(o->backing_format, bytes, length < most ? length : most);
        } else if (type == EXTENSION_FEATURES) {
            o->features = bytes;
            o->features_length = length;
        }
        at += (length + 7u) & ~UINT64_C(7);
        if (at > end)
            break;
    }
    return 0;
}

static int read_backing_name(struct opening *o)
{
    uint64_t offset = u64_at(o->bytes + 8);
    uint32_t length = u32_at(o->bytes + 16);

    if (!offset)
        return 0;
    if (length == 0 || length >= NAME || offset > o->length || length > o->length - offset)
        return say_bad(o, "the name of its backing file lies outside of the header");
    memcpy(o->backing, o->bytes + offset, length);
    if (offset >= o->header_length && offset < o->extensions_end)
        o->extensions_end = offset;
    return 0;
}

static int read_lengths(struct opening *o)
{
    struct qcow2 *q = o->q;
    uint32_t order = 4;

    o->header_length = V2_HEADER;
    if (q->v3) {
        if (o->length < V3_HEADER)
            return say_bad(o, "the header is cut off");
        o->incompatible = u64_at(o->bytes + 72);
        o->autoclear = u64_at(o->bytes + 88);
        order = u32_at(o->bytes + 96);
        o->header_length = u32_at(o->bytes + 100);
    }
    if (order > 6)
        return say_bad(o, "its refcounts have more than 64 bits");
    if (o->header_length < (q->v3 ? V3_HEADER : V2_HEADER) || o->header_length % 8 ||
        o->header_length > o->length)
        return say_bad(o, "its header has a length that no header has");
    q->refcount_order = (uint8_t)order;
    o->extensions_end = o->length;
    return 0;
}

static int check_compression(struct opening *o)
{
    uint8_t type = o->header_length > V3_HEADER ? o->bytes[104] : 0;

    if ((type != 0) != ((o->incompatible & INCOMPATIBLE_COMPRESSION) != 0))
        return say_bad(o, "its header contradicts itself about compression");
    if (type > 1)
        return say_unsupported(o, "has compressed clusters of an unknown kind", NULL);
    o->q->zstd = type == 1;
    return 0;
}

static int read_header(struct opening *o)
{
    int r = read_cluster_0(o);

    if (r == 0)
        r = read_lengths(o);
    if (r == 0)
        r = read_backing_name(o);
    if (r == 0)
        r = read_extensions(o);
    if (r == 0)
        r = check_features(o);
    if (r == 0)
        r = check_compression(o);
    return r;
}

/* Tables. */

static bool in_file(const struct qcow2 *q, uint64_t offset, uint64_t length)
{
    return offset && offset % q->cluster_size == 0 && offset < q->file_end &&
           length <= q->file_end - offset;
}

static int load_tables(struct opening *o)
{
    struct qcow2 *q = o->q;
    uint64_t size = u64_at(o->bytes + 24), per_table = q->cluster_size / 8 * q->cluster_size;

    q->l1.count = u32_at(o->bytes + 36);
    q->l1.offset = u64_at(o->bytes + 40);
    q->refcounts.offset = u64_at(o->bytes + 48);
    uint64_t refcount_bytes = (uint64_t)u32_at(o->bytes + 56) << q->cluster_bits;
    q->refcounts.count = refcount_bytes / 8;
    q->snapshots = u32_at(o->bytes + 60);
    q->snapshots_offset = q->snapshots ? u64_at(o->bytes + 64) : 0;
    if (q->l1.count > MAX_L1 / 8 || size / per_table + (size % per_table != 0) > q->l1.count)
        return say_bad(o, "its L1 table does not fit its size");
    if (!in_file(q, q->l1.offset, q->l1.count * 8))
        return say_bad(o, "its L1 table is not in the file");
    if (!refcount_bytes || refcount_bytes > MAX_REFCOUNT_TABLE ||
        !in_file(q, q->refcounts.offset, refcount_bytes))
        return say_bad(o, "its refcount table is not in the file");
    if (q->snapshots > MAX_SNAPSHOTS ||
        (q->snapshots && !in_file(q, q->snapshots_offset, SNAPSHOT_HEADER)))
        return say_bad(o, "its snapshots are not in the file");
    int r = qcow2_cache_init(&q->cache,
                             q->cluster_size < QCOW2_UNIT ? (uint32_t)q->cluster_size : QCOW2_UNIT);
    if (r == 0)
        r = qcow2_table_load(q, &q->l1);
    if (r == 0 && q->writable)
        r = qcow2_table_load(q, &q->refcounts);
    if (r == 0 && q->writable)
        r = qcow2_commit_init(q);
    return r < 0 ? err_sys(o->err, ERR_FAILED, -r, "cannot read %s", o->config->path) : 0;
}

/* Rule 8. */

static int note_metadata(struct opening *o, uint64_t first, uint64_t count, const char *what)
{
    struct qcow2 *q = o->q;
    int r = 0;

    for (uint64_t i = 0; r == 0 && i < count; i++) {
        bool new = true;
        if (qcow2_is_fixed(q, first + i, 1))
            return say_bad(o, what);
        r = qcow2_set_add(&q->metadata, first + i, &new);
        if (r == 0 && !new)
            return say_bad(o, what);
    }
    return r < 0 ? err_sys(o->err, ERR_HOST, -r, "cannot set up disk I/O") : 0;
}

static int note_table(struct opening *o, const struct qcow2_table *table, uint64_t mask,
                      const char *what)
{
    int r = 0;

    for (uint64_t i = 0; r == 0 && i < table->count; i++) {
        uint64_t offset = table->entries[i] & mask;
        if (table->entries[i] && !in_file(o->q, offset, o->q->cluster_size))
            return say_bad(o, what);
        if (table->entries[i])
            r = note_metadata(o, offset >> o->q->cluster_bits, 1, what);
    }
    return r;
}

static int note_snapshots(struct opening *o)
{
    struct qcow2 *q = o->q;
    uint64_t at = q->snapshots_offset, clusters = 0, unit = q->cache.unit_size;
    int r = 0;

    if (!q->snapshots)
        return 0;
    q->snapshot_tables = calloc(q->snapshots, sizeof(*q->snapshot_tables));
    if (!q->snapshot_tables)
        return err_sys(o->err, ERR_HOST, ENOMEM, "cannot set up disk I/O");

    for (uint32_t i = 0; r == 0 && i < q->snapshots; i++) {
        uint8_t header[SNAPSHOT_HEADER];
        for (unsigned j = 0; j < sizeof(header);) {
            struct qcow2_unit *from;
            uint64_t in_unit = (at + j) & (unit - 1), part = unit - in_unit;
            if (part > sizeof(header) - j)
                part = sizeof(header) - j;
            if (at + j >= q->file_end || qcow2_cache_get(q, at + j, &from) < 0)
                return say_bad(o, "its snapshots are not in the file");
            memcpy(header + j, (uint8_t *)qcow2_cache_bytes(&q->cache, from) + in_unit, part);
            j += (unsigned)part;
        }
        uint64_t l1 = u64_at(header), count = u32_at(header + 8);
        uint64_t more = u32_at(header + 36);
        uint64_t names = ((uint64_t)header[12] << 8) + header[13] + ((uint64_t)header[14] << 8) +
                         header[15];
        at += (SNAPSHOT_HEADER + more + names + 7) & ~UINT64_C(7);
        q->snapshots_length = at - q->snapshots_offset;
        count = (count * 8 + q->cluster_size - 1) >> q->cluster_bits;
        clusters += count;
        if (q->snapshots_length > MAX_SNAPSHOT_BYTES || clusters > MAX_SNAPSHOT_CLUSTERS ||
            (count && !in_file(q, l1, count << q->cluster_bits)))
            return say_bad(o, "its snapshots are not in the file");
        q->snapshot_tables[i] = (struct qcow2_free){l1, u32_at(header + 8)};
        r = note_metadata(o, l1 >> q->cluster_bits, count, "the tables of its snapshots overlap");
    }
    return r;
}

static int check_overlaps(struct opening *o)
{
    struct qcow2 *q = o->q;
    const struct {
        uint64_t offset, length;
    } ranges[] = {{0, q->cluster_size},
                  {q->l1.offset, q->l1.room * 8},
                  {q->refcounts.offset, q->refcounts.room * 8},
                  {q->snapshots_offset, q->snapshots_length}};

    for (unsigned i = 0; i < array_size(ranges); i++)
        for (unsigned j = 0; j < i; j++)
            if (ranges[i].length && ranges[j].length &&
                ranges[i].offset < ranges[j].offset + ranges[j].length &&
                ranges[j].offset < ranges[i].offset + ranges[i].length)
                return say_bad(o, "its tables overlap");
    int r = note_table(o, &q->l1, QCOW2_OFFSET,
                       "an L2 table lies over another table, or outside of the file");
    if (r == 0)
        r = note_table(o, &q->refcounts, ~UINT64_C(0),
                       "a refcount block lies over another table, or outside of the file");
    return r;
}

/* Behind the last cluster with a refcount; further up nobody has been. */
static int find_tail(struct opening *o)
{
    struct qcow2 *q = o->q;
    uint64_t block = q->refcounts.count, last = 0, refcount;
    uint64_t per_block = (q->cluster_size * 8) >> q->refcount_order;
    uint64_t clusters = q->file_end >> q->cluster_bits;

    while (block && !q->refcounts.entries[block - 1])
        block--;
    for (uint64_t i = block * per_block; block && i > (block - 1) * per_block && !last; i--) {
        if (qcow2_refcount_get(q, i - 1, &refcount) < 0)
            return say_bad(o, "a refcount block is not in the file");
        if (refcount)
            last = i;
    }
    if (block && !last)
        last = (block - 1) * per_block;
    q->tail = last < clusters ? last : clusters;
    if (q->tail == 0)
        q->tail = clusters; /* nothing is counted: then nothing below is to be trusted */
    return 0;
}

/* What stands below. */

static int open_chain(struct disk **ret_disk, const struct disk_config *config,
                      const struct chain *above, struct err *err);

static bool names_a_protocol(const char *name)
{
    const char *at = name;

    while (isalnum((unsigned char)*at) || *at == '+' || *at == '-' || *at == '.')
        at++;
    return at > name && *at == ':';
}

static int check_backing(struct opening *o, struct disk_config *config)
{
    const char *path = o->config->path;
    int r;

    if (!o->config->backing) {
        r = err_say(o->err, ERR_DEFINITION, EPERM, "%s stands on another image, '%s'", path,
                    o->backing);
        err_hint(o->err, "if you know that file and trust %s, add ',backing' to the disk", path);
        return r;
    }
    if (names_a_protocol(o->backing))
        return err_say(o->err, ERR_DEFINITION, ENOTSUP,
                       "%s stands on '%s', which is not the name of a file", path, o->backing);
    if (strcmp(o->backing_format, "raw") == 0) {
        config->format = DISK_FORMAT_RAW;
    } else if (strcmp(o->backing_format, "qcow2") == 0) {
        config->format = DISK_FORMAT_QCOW2;
    } else if (o->backing_format[0]) {
        return err_say(o->err, ERR_DEFINITION, ENOTSUP,
                       "%s stands on '%s', whose format is %s; raw and qcow2 are supported", path,
                       o->backing, o->backing_format);
    } else {
        r = err_say(o->err, ERR_DEFINITION, EINVAL,
                    "%s does not say which format '%s' has, on which it stands", path, o->backing);
        err_hint(o->err, "qemu-img rebase -u -F FORMAT -b '%s' %s, with raw or qcow2 as FORMAT",
                 o->backing, path);
        return r;
    }
    return 0;
}

/* Names are relative to the image's folder. */
static int open_backing(struct opening *o)
{
    const char *path = o->config->path, *slash = strrchr(path, '/');
    struct disk_config config = *o->config;
    char name[NAME + 4096];
    int r = check_backing(o, &config);

    if (r < 0)
        return r;
    int folder = slash && o->backing[0] != '/' ? (int)(slash - path + 1) : 0;
    int length = snprintf(name, sizeof(name), "%.*s%s", folder, path, o->backing);
    if (length < 0 || (size_t)length >= sizeof(name))
        return err_say(o->err, ERR_DEFINITION, ENAMETOOLONG, "%s stands on a file with a long name",
                       path);
    config.path = name;
    config.readonly = true;
    config.write_through = false;
    config.block_size = 0;
    r = open_chain(&o->q->backing, &config, o->chain, o->err);
    if (r < 0 && !o->chain->above)
        err_prefix(o->err, "below %s", path);
    return r;
}

/* Sizes and engine. */

static int choose_blocks(struct opening *o)
{
    struct qcow2 *q = o->q;
    struct disk_config config = *o->config;
    uint64_t size = u64_at(o->bytes + 24);
    uint32_t block = config.block_size ? config.block_size : 512;

    if (q->backing && q->backing->info.block_size > block)
        block = q->backing->info.block_size;
    if (o->file.direct && o->file.length_align > block)
        block = o->file.length_align;
    if (o->file.direct && o->file.length_align > q->cluster_size)
        return err_say(o->err, ERR_HOST, EINVAL,
                       "direct I/O on %s needs blocks of %u bytes, and its clusters have %llu",
                       config.path, o->file.length_align, (unsigned long long)q->cluster_size);
    if (size == 0 || size % block || size > INT64_MAX) {
        int r = err_say(o->err, ERR_DEFINITION, EINVAL,
                        "the size of the disk in %s, %llu bytes, is no multiple of %u", config.path,
                        (unsigned long long)size, block);
        unsigned long long larger = (size + block - 1) / block * block;
        if (size)
            err_hint(o->err, "qemu-img resize %s %llu", config.path, larger);
        return r;
    }
    config.block_size = block;
    o->file.info.size = size;
    return disk_file_choose_blocks(&o->file, &config, o->err);
}

/* Bitmaps and the like are out of date from now on, which must be known before we change anything.
 */
static int begin_writing(struct opening *o)
{
    struct qcow2 *q = o->q;
    int r = o->file_size < q->file_end && ftruncate(q->fd, (off_t)q->file_end) < 0 ? -errno : 0;

    if (r == 0 && (o->autoclear || o->incompatible & INCOMPATIBLE_DIRTY)) {
        put_u64(q->header + 88, 0);
        put_u64(q->header + 72, o->incompatible & ~INCOMPATIBLE_DIRTY);
        r = qcow2_file_sync(q);
        if (r == 0)
            r = qcow2_header_write(q);
    }
    return r < 0 ? err_sys(o->err, ERR_FAILED, -r, "cannot write to %s", o->config->path) : 0;
}

/* A full file system is said by who needs it. */
static void reserve_tables(struct qcow2 *q)
{
    uint64_t block = q->refcounts.count;

    while (block && !q->refcounts.entries[block - 1])
        block--;
    (void)!qcow2_file_reserve(q, q->l1.offset, q->l1.room * 8);
    (void)!qcow2_file_reserve(q, q->refcounts.offset, q->refcounts.room * 8);
    if (block)
        (void)!qcow2_file_reserve(q, q->refcounts.entries[block - 1], q->cluster_size);
}

static int prepare_writing(struct opening *o)
{
    int r = note_snapshots(o); /* after the others: it says how long their table is */

    if (r == 0)
        r = check_overlaps(o);
    if (r == 0 && o->incompatible & INCOMPATIBLE_DIRTY && qcow2_repair(o->q) < 0) {
        r = err_say(o->err, ERR_DEFINITION, EIO,
                    "%s was not closed, and its refcounts cannot be repaired", o->config->path);
        err_hint(o->err, "'qemu-img check -r all %s' may do it", o->config->path);
    }
    if (r == 0)
        r = find_tail(o);
    if (r == 0)
        reserve_tables(o->q);
    return r < 0 ? r : begin_writing(o);
}

static void choose_scratches(struct qcow2 *q)
{
    uint64_t most = SCRATCH_BYTES / (2 * q->cluster_size);

    if (most > MOST_SCRATCHES)
        most = MOST_SCRATCHES;
    q->growth = (struct qcow2_scratches){.most = most < 2 ? 2 : (unsigned)most, .growing = true};
    q->inflation = (struct qcow2_scratches){.most = q->growth.most};
}

/*
 * Files end where their last cluster's bytes end; the rest of it reads as zeroes. Whole clusters
 * are easier to think about: who writes makes the file that long.
 */
static int measure(struct opening *o)
{
    struct qcow2 *q = o->q;
    uint64_t size = o->file.info.size, mask = q->cluster_size - 1;

    o->file_size = size;
    q->file_end = o->file.device ? size & ~mask : (size + mask) & ~mask;
    q->first_end = q->file_end;
    if (q->file_end > QCOW2_OFFSET)
        return say_bad(o, "it is too long");
    return 0;
}

static int open_parts(struct opening *o)
{
    struct qcow2 *q = o->q;
    int r = disk_file_open(&o->file, o->config, o->err);

    if (r < 0)
        return r;
    q->fd = o->file.fd;
    q->device = o->file.device;
    q->direct = o->file.direct;
    q->writable = !o->config->readonly;
    q->unmap = o->file.info.discard;
    r = read_header(o);
    if (r == 0)
        r = measure(o);
    if (r == 0)
        r = load_tables(o);
    if (r == 0 && o->backing[0])
        r = open_backing(o);
    if (r == 0)
        r = choose_blocks(o);
    if (r < 0)
        return r;
    q->disk.info = o->file.info;
    choose_scratches(q);
    o->file.zero_past_end = !q->writable && o->file_size < q->file_end;
    r = disk_file_start(&q->data, &o->file, o->config->engine, o->err);
    return r == 0 && q->writable ? prepare_writing(o) : r;
}

static int open_layer(struct disk **ret_disk, const struct disk_config *config,
                      const struct chain *chain, struct err *err)
{
    struct opening o = {.config = config, .chain = chain, .file = {.fd = -1}, .err = err};
    int r = qcow2_create(&o.q, err);

    if (r < 0)
        return r;
    o.q->path = strdup(config->path);
    r = o.q->path ? open_parts(&o) : err_sys(err, ERR_HOST, ENOMEM, "cannot open %s", config->path);
    free(o.bytes);
    if (r == 0) {
        *ret_disk = &o.q->disk;
        return 0;
    }
    if (!o.q->data)
        disk_file_close(&o.file);
    disk_destroy(&o.q->disk);
    return r;
}

/* Rule 6. */
static int open_chain(struct disk **ret_disk, const struct disk_config *config,
                      const struct chain *above, struct err *err)
{
    struct chain chain = {.above = above, .depth = above ? above->depth + 1 : 1};
    struct stat stat_of;

    /* What cannot be looked at is said by who opens it. */
    if (stat(config->path, &stat_of) == 0) {
        chain.device = stat_of.st_dev;
        chain.inode = stat_of.st_ino;
        for (const struct chain *at = above; at; at = at->above)
            if (at->device == chain.device && at->inode == chain.inode)
                return err_say(err, ERR_DEFINITION, ELOOP, "%s stands on itself", config->path);
    }
    if (chain.depth > QCOW2_MOST_LAYERS)
        return err_say(err, ERR_DEFINITION, ELOOP, "%s is one image too many of %d in a chain",
                       config->path, QCOW2_MOST_LAYERS);
    return config->format == DISK_FORMAT_RAW ? disk_raw_open(ret_disk, config, err)
                                             : open_layer(ret_disk, config, &chain, err);
}

int disk_qcow2_open(struct disk **ret_disk, const struct disk_config *config, struct err *err)
{
    return open_chain(ret_disk, config, NULL, err);
}
