/* SPDX-License-Identifier: MIT */
/*
 * Refcounts, and finding clusters that nobody uses.
 *
 * A free cluster is looked for below the file's old end first, with a cursor that remembers how far
 * it is; a few units of refcounts for each allocation, so that a large image that is full costs
 * nobody a long search. Else it comes from the tail, which is new file: it reads as zeroes, and so
 * the rest of a cluster that is written in part need not be written.
 *
 * A refcount block for clusters at the tail lies among these clusters itself, and counts itself.
 * When the refcount table is too small a larger one is made at the tail; the next commit writes it
 * before it writes the header that points to it.
 */
#include "host/disk_qcow2.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

enum {
    MOST_UNITS = 4,       /* that one allocation looks through */
    MOST_STALE = 1 << 16, /* clusters at the tail with a refcount, though nothing is there */
    MOST_TABLE = 8 << 20, /* bytes of the refcount table, as with qemu-img */
};

static unsigned block_bits(const struct qcow2 *q)
{
    return q->cluster_bits + 3u - q->refcount_order;
}

uint64_t qcow2_refcount_max(const struct qcow2 *q)
{
    return q->refcount_order == 6 ? UINT64_MAX : (UINT64_C(1) << (1u << q->refcount_order)) - 1;
}

static uint64_t get(const struct qcow2 *q, const uint8_t *block, uint64_t index)
{
    uint16_t two;
    uint32_t four;
    uint64_t eight;

    switch (q->refcount_order) {
    case 4:
        memcpy(&two, block + 2 * index, 2);
        return be16toh(two);
    case 5:
        memcpy(&four, block + 4 * index, 4);
        return be32toh(four);
    case 6:
        memcpy(&eight, block + 8 * index, 8);
        return be64toh(eight);
    default: /* the first is in the low bits */
        index <<= q->refcount_order;
        return block[index / 8] >> index % 8 & qcow2_refcount_max(q);
    }
}

static void set(const struct qcow2 *q, uint8_t *block, uint64_t index, uint64_t value)
{
    uint16_t two = htobe16((uint16_t)value);
    uint32_t four = htobe32((uint32_t)value);
    uint64_t eight = htobe64(value), mask = qcow2_refcount_max(q);

    switch (q->refcount_order) {
    case 4:
        memcpy(block + 2 * index, &two, 2);
        break;
    case 5:
        memcpy(block + 4 * index, &four, 4);
        break;
    case 6:
        memcpy(block + 8 * index, &eight, 8);
        break;
    default:
        index <<= q->refcount_order;
        block[index / 8] = (uint8_t)((block[index / 8] & ~(mask << index % 8)) | value
                                                                                     << index % 8);
    }
}

/* Where the refcounts of a cluster lie; 0: nowhere, they are 0. */
static int block_of(struct qcow2 *q, uint64_t cluster, uint64_t *ret)
{
    uint64_t index = cluster >> block_bits(q);
    uint64_t entry = index < q->refcounts.count ? q->refcounts.entries[index] : 0;

    if (entry && !qcow2_is_place(q, entry))
        return qcow2_corrupt(q, "an entry of its refcount table leads to no refcount block");
    *ret = entry;
    return 0;
}

/* The unit that counts a cluster, and the cluster's index in it. NULL: there is no block. */
static int unit_of(struct qcow2 *q, uint64_t cluster, struct qcow2_unit **ret, uint64_t *ret_index)
{
    uint64_t block = 0, in_block = cluster & ((UINT64_C(1) << block_bits(q)) - 1);
    uint64_t per_unit = ((uint64_t)q->cache.unit_size << 3) >> q->refcount_order;
    int r = block_of(q, cluster, &block);

    *ret = NULL;
    *ret_index = in_block % per_unit;
    if (r < 0 || !block)
        return r;
    return qcow2_cache_get(q, block + in_block / per_unit * q->cache.unit_size, ret);
}

int qcow2_refcount_get(struct qcow2 *q, uint64_t cluster, uint64_t *ret)
{
    struct qcow2_unit *unit;
    uint64_t index;
    int r = unit_of(q, cluster, &unit, &index);

    if (r == 0)
        *ret = unit ? get(q, qcow2_cache_bytes(&q->cache, unit), index) : 0;
    return r;
}

static int make_block(struct qcow2 *q, uint64_t cluster);

/* There is a block for it. */
static int put(struct qcow2 *q, uint64_t cluster, uint64_t value)
{
    struct qcow2_unit *unit;
    uint64_t index;
    int r = unit_of(q, cluster, &unit, &index);

    if (r < 0)
        return r;
    if (!unit)
        return -EIO;
    /* Only after commits have failed. */
    if (!unit->dirty && q->cache.dirty_count[QCOW2_REFCOUNT] >= QCOW2_MOST_DIRTY + QCOW2_BURST)
        return -EIO;
    set(q, qcow2_cache_bytes(&q->cache, unit), index, value);
    qcow2_cache_dirty(q, unit, QCOW2_REFCOUNT);
    return 0;
}

int qcow2_refcount_set(struct qcow2 *q, uint64_t cluster, uint64_t value)
{
    uint64_t block = 0;
    int r = block_of(q, cluster, &block);

    if (value > qcow2_refcount_max(q))
        return -EINVAL;
    if (r == 0 && !block)
        r = value ? make_block(q, cluster) : 0;
    if (r == 0 && (block || value))
        r = put(q, cluster, value);
    return r;
}

/* The tail. */

static int take_tail(struct qcow2 *q, uint64_t count, uint64_t *ret)
{
    int r = qcow2_file_extend(q, (q->tail + count) << q->cluster_bits);

    if (r == 0) {
        *ret = q->tail;
        q->tail += count;
    }
    return r;
}

static int clear(struct qcow2 *q, uint64_t cluster)
{
    qcow2_cache_forget(q, cluster << q->cluster_bits, q->cluster_size);
    return qcow2_file_write(q, cluster << q->cluster_bits, q->zeroes, q->cluster_size);
}

static int add_metadata(struct qcow2 *q, uint64_t cluster)
{
    bool new = false;
    int r = qcow2_set_add(&q->metadata, cluster, &new);

    return r < 0 || new ? r : qcow2_corrupt(q, "a cluster of its tables has no reference");
}

/* Only in memory; the next commit writes all of it at its new place. */
static int enlarge_table(struct qcow2 *q, uint64_t index)
{
    struct qcow2_table *old = &q->refcounts, new = {0};
    uint64_t per_cluster = q->cluster_size / sizeof(*new.entries), clusters, first = 0;

    new.count = index + 1 + (index + 1) / 2;
    /* Itself and the blocks for it are at the tail, which it must reach. */
    clusters = (new.count + per_cluster - 1) / per_cluster + 1;
    new.count = clusters *per_cluster;
    if (new.count * sizeof(*new.entries) > MOST_TABLE ||
        new.count <= ((q->tail + clusters) >> block_bits(q)) + 2)
        return -ENOSPC;
    uint64_t old_offset = old->offset;
    uint64_t old_clusters = (old->room * sizeof(*old->entries) + q->cluster_size - 1) >>
                            q->cluster_bits;
    int r = take_tail(q, clusters, &first);
    if (r == 0)
        r = qcow2_file_reserve(q, first << q->cluster_bits, clusters << q->cluster_bits);
    if (r == 0)
        r = qcow2_table_make(q, &new);
    if (r < 0) {
        qcow2_table_finish(&new);
        return r;
    }
    new.offset = first << q->cluster_bits;
    memcpy(new.entries, old->entries, old->count * sizeof(*old->entries));
    qcow2_table_finish(old);
    *old = new;
    q->table_moved = true;
    qcow2_free_later(q, old_offset >> q->cluster_bits, old_clusters);
    for (uint64_t i = 0; r == 0 && i < clusters; i++)
        r = qcow2_refcount_set(q, first + i, 1);
    return r;
}

/*
 * The block takes the first cluster of the tail. Where it does not count that itself another block
 * is made first; that one is among the clusters that it counts, but for the rare case that the tail
 * crosses from one block's clusters to those of the next just then.
 */
static int make_block(struct qcow2 *q, uint64_t cluster)
{
    uint64_t index = cluster >> block_bits(q), place = 0, block = 0;
    int r = 0;

    if (index >= q->refcounts.count)
        r = enlarge_table(q, index);
    if (r == 0)
        r = block_of(q, cluster, &block); /* the larger table may have brought it along */
    if (r < 0 || block)
        return r;
    r = take_tail(q, 1, &place);
    if (r == 0)
        r = qcow2_file_reserve(q, place << q->cluster_bits, q->cluster_size);
    if (r == 0 && place << q->cluster_bits < q->first_end)
        r = clear(q, place);
    if (r == 0 && place >> block_bits(q) != index)
        r = qcow2_refcount_set(q, place, 1);
    if (r == 0)
        r = block_of(q, cluster, &block);
    if (r < 0 || block)
        return r; /* made on the way: a cluster is lost */
    r = add_metadata(q, place);
    if (r < 0)
        return r;
    qcow2_table_set(q, &q->refcounts, index, place << q->cluster_bits);
    return place >> block_bits(q) == index ? put(q, place, 1) : 0;
}

/* Free ones in a row, from the tail; their block exists when this returns 0. */
static int find_tail(struct qcow2 *q, uint64_t count, uint64_t *ret_first, uint64_t *ret_count)
{
    uint64_t value = 1, block = 0, per_block = UINT64_C(1) << block_bits(q), room;
    int r = block_of(q, q->tail, &block);

    if (r == 0 && !block)
        r = make_block(q, q->tail);
    for (unsigned i = 0; r == 0 && i < MOST_STALE; i++) {
        r = qcow2_refcount_get(q, q->tail, &value);
        if (r == 0 && value == 0)
            break;
        q->tail += r == 0;
    }
    if (r < 0 || value)
        return r < 0 ? r : qcow2_corrupt(q, "too many clusters behind its end have references");
    r = block_of(q, q->tail, &block);
    if (r == 0 && !block)
        return find_tail(q, count, ret_first, ret_count); /* went on to the next: once */
    room = per_block - (q->tail & (per_block - 1));
    if (count > room)
        count = room;
    for (uint64_t i = 1; r == 0 && i < count; i++) {
        r = qcow2_refcount_get(q, q->tail + i, &value);
        if (r == 0 && value)
            count = i;
    }
    if (r == 0)
        r = take_tail(q, count, ret_first);
    if (r == -ENOSPC && count > 1) {
        count = 1;
        r = take_tail(q, count, ret_first);
    }
    *ret_count = count;
    return r;
}

/* Below the tail. *ret_count 0: none this time. */
static int find_used_before(struct qcow2 *q, uint64_t count, uint64_t *ret_first,
                            uint64_t *ret_count)
{
    uint64_t per_unit = ((uint64_t)q->cache.unit_size << 3) >> q->refcount_order;

    *ret_count = 0;
    for (unsigned i = 0; i < MOST_UNITS && q->cursor < q->tail; i++) {
        struct qcow2_unit *unit;
        uint64_t index, found = 0, end;
        int r = unit_of(q, q->cursor, &unit, &index);
        if (r < 0)
            return r;
        end = q->cursor - index + per_unit; /* the first cluster of the next unit */
        if (end > q->tail)
            end = q->tail;
        if (!unit) { /* nobody counts them: they are not worth a block */
            q->cursor = end;
            continue;
        }
        const uint8_t *block = qcow2_cache_bytes(&q->cache, unit);
        for (; q->cursor < end && get(q, block, index); q->cursor++)
            index++;
        while (q->cursor < end && found < count && get(q, block, index + found) == 0) {
            found++;
            q->cursor++;
        }
        if (!found)
            continue;
        *ret_first = q->cursor - found;
        *ret_count = found;
        return 0;
    }
    return 0;
}

int qcow2_allocate(struct qcow2 *q, uint64_t count, uint64_t *ret_first, uint64_t *ret_count,
                   bool *ret_fresh)
{
    uint64_t first = 0, found = 0;
    bool fresh = false;
    int r = find_used_before(q, count, &first, &found);

    if (r == 0 && !found) {
        r = find_tail(q, count, &first, &found);
        fresh = r == 0 && first << q->cluster_bits >= q->first_end;
    }
    if (r == 0 && qcow2_is_metadata(q, first, found))
        r = qcow2_corrupt(q, "a cluster of its tables has no reference"); /* its refcount says that
                                                                             nobody is there */
    for (uint64_t i = 0; r == 0 && i < found; i++)
        r = qcow2_refcount_set(q, first + i, 1);
    if (r < 0)
        return r;
    *ret_first = first;
    *ret_count = found;
    *ret_fresh = fresh && !q->device;
    return 0;
}

int qcow2_allocate_metadata(struct qcow2 *q, uint64_t *ret_offset, bool *ret_fresh)
{
    uint64_t first = 0, count = 0;
    int r = qcow2_allocate(q, 1, &first, &count, ret_fresh);

    if (r < 0)
        return r;
    r = qcow2_file_reserve(q, first << q->cluster_bits, q->cluster_size);
    if (r < 0) {
        qcow2_release(q, first, count);
        return r;
    }
    qcow2_cache_forget(q, first << q->cluster_bits, q->cluster_size);
    r = add_metadata(q, first);
    if (r == 0)
        *ret_offset = first << q->cluster_bits;
    return r;
}

void qcow2_release(struct qcow2 *q, uint64_t first, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        if (qcow2_refcount_set(q, first + i, 0) < 0)
            return; /* lost, until somebody checks the image */
    if (first < q->cursor)
        q->cursor = first;
}
