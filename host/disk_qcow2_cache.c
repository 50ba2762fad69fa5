/* SPDX-License-Identifier: MIT */
/*
 * Metadata in memory.
 *
 * The L1 table and the refcount table are there as a whole. Of L2 tables and refcount blocks the
 * cache keeps units of 4 KiB. What changes them changes memory alone, and puts them into a list for
 * the next commit. A commit copies them before it writes, so they may change meanwhile; only until
 * they are written they must stay, because the file is older than they are. There are always more
 * units than the commits' lists have room for: a place is found without waiting.
 */
#include "host/disk_qcow2.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { FIRST_SET = 64, EXTEND_MIN = 1 << 20, EXTEND_MAX = 64 << 20 };

_Static_assert(4 * QCOW2_DIRTY_ROOM < QCOW2_UNITS, "all units could be dirty");
_Static_assert(QCOW2_UNITS < UINT16_MAX, "indices have 16 bits");

/* The file. */

/* Past the end there are zeroes. With O_DIRECT a part of a block is the end. */
int qcow2_file_read(struct qcow2 *q, uint64_t offset, void *bytes, size_t length)
{
    uint8_t *to = bytes;

    while (length) {
        ssize_t r = pread(q->fd, to, length, (off_t)offset);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return -errno;
        to += r;
        length -= (size_t)r;
        offset += (uint64_t)r;
        if (r == 0 || (q->direct && (size_t)r % q->length_align))
            break;
    }
    memset(to, 0, length);
    return 0;
}

int qcow2_file_write(struct qcow2 *q, uint64_t offset, const void *bytes, size_t length)
{
    const uint8_t *from = bytes;

    while (length) {
        ssize_t r = pwrite(q->fd, from, length, (off_t)offset);
        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0)
            return r < 0 ? -errno : -EIO;
        from += r;
        length -= (size_t)r;
        offset += (uint64_t)r;
    }
    return 0;
}

int qcow2_file_sync(struct qcow2 *q)
{
    return fdatasync(q->fd) < 0 ? -errno : 0;
}

/*
 * In large steps: each change of a file's size is one more for its journal. What is too much comes
 * off again in disk_destroy.
 */
int qcow2_file_extend(struct qcow2 *q, uint64_t end)
{
    uint64_t step = q->file_end / 8, wanted;

    if (end <= q->file_end)
        return 0;
    if (q->device || end > QCOW2_OFFSET)
        return -ENOSPC;
    if (step < EXTEND_MIN)
        step = EXTEND_MIN;
    if (step > EXTEND_MAX)
        step = EXTEND_MAX;
    wanted = (end + step + q->cluster_size - 1) & ~(q->cluster_size - 1);
    if (ftruncate(q->fd, (off_t)wanted) < 0) {
        wanted = end;
        if (ftruncate(q->fd, (off_t)wanted) < 0)
            return errno == EFBIG ? -ENOSPC : -errno;
    }
    q->file_end = wanted;
    return 0;
}

/*
 * Space for metadata is taken when they get their place, not when they are written: on a full file
 * system a commit would fail, and it takes a commit to give anything back.
 */
int qcow2_file_reserve(struct qcow2 *q, uint64_t offset, uint64_t length)
{
    if (!q->device && fallocate(q->fd, FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)length) < 0 &&
        (errno == ENOSPC || errno == EDQUOT))
        return -errno;
    return 0; /* where this is not to be had, things go as they go */
}

/* Units. */

int qcow2_cache_init(struct qcow2_cache *cache, uint32_t unit_size)
{
    cache->unit_size = unit_size;
    cache->units = calloc(QCOW2_UNITS, sizeof(*cache->units));
    cache->buckets = calloc(QCOW2_BUCKETS, sizeof(*cache->buckets));
    void *bytes = mmap(NULL, (size_t)QCOW2_UNITS * unit_size, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (bytes != MAP_FAILED)
        cache->bytes = bytes;
    return cache->units && cache->buckets && cache->bytes ? 0 : -ENOMEM;
}

void qcow2_cache_finish(struct qcow2_cache *cache)
{
    if (cache->bytes)
        munmap(cache->bytes, (size_t)QCOW2_UNITS * cache->unit_size);
    free(cache->units);
    free(cache->buckets);
}

void *qcow2_cache_bytes(const struct qcow2_cache *cache, const struct qcow2_unit *unit)
{
    return cache->bytes + (size_t)(unit - cache->units) * cache->unit_size;
}

static uint16_t *bucket_of(const struct qcow2_cache *cache, uint64_t offset)
{
    uint64_t hash = (offset >> 9) * 0x9e3779b97f4a7c15u;
    return &cache->buckets[hash >> 40 & (QCOW2_BUCKETS - 1)];
}

static struct qcow2_unit *find(const struct qcow2_cache *cache, uint64_t offset)
{
    for (unsigned i = *bucket_of(cache, offset); i; i = cache->units[i - 1].next)
        if (cache->units[i - 1].offset == offset)
            return &cache->units[i - 1];
    return NULL;
}

static void take_out(struct qcow2_cache *cache, struct qcow2_unit *unit)
{
    uint16_t index = (uint16_t)(unit - cache->units + 1);

    if (!unit->offset)
        return;
    for (uint16_t *at = bucket_of(cache, unit->offset); *at; at = &cache->units[*at - 1].next) {
        if (*at != index)
            continue;
        *at = unit->next;
        break;
    }
    unit->offset = 0;
    if (cache->last == unit)
        cache->last = NULL;
}

/* The hand goes round; who was used since it last passed is spared once. */
static struct qcow2_unit *find_place(struct qcow2_cache *cache)
{
    if (cache->filled < QCOW2_UNITS)
        return &cache->units[cache->filled++];
    for (;;) {
        struct qcow2_unit *unit = &cache->units[cache->hand];
        cache->hand = (cache->hand + 1) % QCOW2_UNITS;
        if (unit->dirty || unit->busy)
            continue;
        if (!unit->used)
            return unit;
        unit->used = false;
    }
}

int qcow2_cache_get(struct qcow2 *q, uint64_t offset, struct qcow2_unit **ret_unit)
{
    struct qcow2_cache *cache = &q->cache;
    struct qcow2_unit *unit = cache->last;

    offset &= ~(uint64_t)(cache->unit_size - 1);
    if (unit && unit->offset == offset) {
        *ret_unit = unit;
        return 0;
    }
    unit = find(cache, offset);
    if (!unit) {
        unit = find_place(cache);
        take_out(cache, unit);
        int r = qcow2_file_read(q, offset, qcow2_cache_bytes(cache, unit), cache->unit_size);
        if (r < 0)
            return r;
        uint16_t *bucket = bucket_of(cache, offset);
        *unit = (struct qcow2_unit){.offset = offset, .next = *bucket};
        *bucket = (uint16_t)(unit - cache->units + 1);
    }
    unit->used = true;
    *ret_unit = cache->last = unit;
    return 0;
}

/* Clean ones: the file has changed under them. */
void qcow2_cache_forget(struct qcow2 *q, uint64_t offset, uint64_t length)
{
    for (uint64_t at = 0; at < length; at += q->cache.unit_size) {
        struct qcow2_unit *unit = find(&q->cache, offset + at);
        if (unit && !unit->dirty && !unit->busy)
            take_out(&q->cache, unit);
    }
}

void qcow2_cache_dirty(struct qcow2 *q, struct qcow2_unit *unit, enum qcow2_kind kind)
{
    struct qcow2_cache *cache = &q->cache;

    if (unit->dirty)
        return;
    unit->dirty = true;
    cache->dirty[kind][cache->dirty_count[kind]++] = (uint16_t)(unit - cache->units);
    qcow2_commit_later(q);
}

/* Tables. */

void qcow2_table_encode(uint64_t *to, const uint64_t *from, size_t count)
{
    for (size_t i = 0; i < count; i++)
        to[i] = htobe64(from[i]);
}

static size_t bytes_of(const struct qcow2_table *table)
{
    return table->room * sizeof(*table->entries);
}

int qcow2_table_make(struct qcow2 *q, struct qcow2_table *table)
{
    uint64_t unit = q->cache.unit_size / sizeof(*table->entries);
    void *entries;

    table->room = (table->count + unit - 1) / unit * unit;
    entries = mmap(NULL, bytes_of(table), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                   0);
    table->entries = entries == MAP_FAILED ? NULL : entries;
    table->dirty = calloc(table->room / unit, 1);
    return table->entries && table->dirty ? 0 : -ENOMEM;
}

int qcow2_table_load(struct qcow2 *q, struct qcow2_table *table)
{
    int r = qcow2_table_make(q, table);

    if (r == 0)
        r = qcow2_file_read(q, table->offset, table->entries, bytes_of(table));
    for (uint64_t i = 0; r == 0 && i < table->room; i++)
        table->entries[i] = be64toh(table->entries[i]);
    return r;
}

void qcow2_table_finish(struct qcow2_table *table)
{
    if (table->entries)
        munmap(table->entries, bytes_of(table));
    free(table->dirty);
    *table = (struct qcow2_table){0};
}

void qcow2_table_set(struct qcow2 *q, struct qcow2_table *table, uint64_t index, uint64_t value)
{
    uint8_t *dirty = &table->dirty[index * sizeof(value) / q->cache.unit_size];

    table->entries[index] = value;
    table->dirty_count += !(*dirty & QCOW2_TABLE_DIRTY);
    *dirty |= QCOW2_TABLE_DIRTY;
    qcow2_commit_later(q);
}

/* A set of numbers, with open addressing; at most half full. */

static uint64_t *slot_of(const struct qcow2_set *set, uint64_t value)
{
    size_t at = (size_t)((value * 0x9e3779b97f4a7c15u) >> 20);

    for (;; at++) {
        uint64_t *slot = &set->slots[at & (set->size - 1)];
        if (!*slot || *slot == value + 1)
            return slot;
    }
}

static int enlarge(struct qcow2_set *set)
{
    struct qcow2_set larger = {.size = set->size ? 2 * set->size : FIRST_SET, .count = set->count};

    larger.slots = calloc(larger.size, sizeof(*larger.slots));
    if (!larger.slots)
        return -ENOMEM;
    for (size_t i = 0; i < set->size; i++)
        if (set->slots[i])
            *slot_of(&larger, set->slots[i] - 1) = set->slots[i];
    free(set->slots);
    *set = larger;
    return 0;
}

int qcow2_set_add(struct qcow2_set *set, uint64_t value, bool *ret_new)
{
    if (2 * (set->count + 1) > set->size) {
        int r = enlarge(set);
        if (r < 0)
            return r;
    }
    uint64_t *slot = slot_of(set, value);
    *ret_new = !*slot;
    set->count += !*slot;
    *slot = value + 1;
    return 0;
}

bool qcow2_set_has(const struct qcow2_set *set, uint64_t value)
{
    return set->size && *slot_of(set, value);
}

/* Who lies where. */

static bool overlaps(const struct qcow2 *q, uint64_t first, uint64_t count, uint64_t offset,
                     uint64_t length)
{
    uint64_t begin = offset >> q->cluster_bits;
    uint64_t end = (offset + length + q->cluster_size - 1) >> q->cluster_bits;

    return length && first < end && begin < first + count;
}

bool qcow2_is_fixed(const struct qcow2 *q, uint64_t first, uint64_t count)
{
    return first == 0 || overlaps(q, first, count, q->l1.offset, bytes_of(&q->l1)) ||
           overlaps(q, first, count, q->refcounts.offset, bytes_of(&q->refcounts)) ||
           overlaps(q, first, count, q->snapshots_offset, q->snapshots_length);
}

bool qcow2_is_metadata(const struct qcow2 *q, uint64_t first, uint64_t count)
{
    if (qcow2_is_fixed(q, first, count))
        return true;
    for (uint64_t i = 0; q->metadata.size && i < count; i++)
        if (qcow2_set_has(&q->metadata, first + i))
            return true;
    return false;
}

bool qcow2_is_place(const struct qcow2 *q, uint64_t offset)
{
    return offset % q->cluster_size == 0 && offset < q->file_end &&
           !qcow2_is_fixed(q, offset >> q->cluster_bits, 1);
}
