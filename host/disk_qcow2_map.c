/* SPDX-License-Identifier: MIT */
/*
 * From places on the disk to places in the file, and what happens when that changes.
 *
 * Every entry is read as hostile. An L2 table, and a cluster of data, begins at a cluster of the
 * file and is clear of the header and of all tables that are in use; bits that the format keeps for
 * later are 0. What breaks this is damage: the request ends in -EIO, the image says so from then
 * on, and no more is written to it.
 */
#include "host/disk_qcow2.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#define L1_RESERVED 0x7f000000000001ffull
#define L2_RESERVED 0x3f000000000001feull

/* Clusters that one unit of an L2 table maps. */
static uint64_t unit_span(const struct qcow2 *q)
{
    return q->cache.unit_size / sizeof(uint64_t);
}

static unsigned l2_bits(const struct qcow2 *q)
{
    return q->cluster_bits - 3u;
}

static bool is_compressed_at(const struct qcow2 *q, uint64_t descriptor)
{
    uint64_t offset, length;

    if (!qcow2_compressed_range(q, descriptor, &offset, &length) || descriptor & QCOW2_COPIED)
        return false;
    uint64_t first = offset >> q->cluster_bits, last = (offset + length - 1) >> q->cluster_bits;
    return !qcow2_is_metadata(q, first, last - first + 1);
}

bool qcow2_compressed_range(const struct qcow2 *q, uint64_t descriptor, uint64_t *ret_offset,
                            uint64_t *ret_length)
{
    unsigned bits = 62u - (q->cluster_bits - 8u);
    uint64_t offset = descriptor & ((UINT64_C(1) << bits) - 1);
    uint64_t sectors = (descriptor & (QCOW2_COMPRESSED - 1)) >> bits;
    uint64_t length = (sectors + 1) * 512 - offset % 512;

    if (offset >= q->file_end)
        return false;
    *ret_offset = offset;
    *ret_length = length < q->file_end - offset ? length : q->file_end - offset;
    return true;
}

/* True: the entry is one that may be there. */
static bool classify(const struct qcow2 *q, uint64_t entry, struct qcow2_extent *ret)
{
    uint64_t host = entry & QCOW2_OFFSET;

    *ret = (struct qcow2_extent){.host = host, .copied = entry & QCOW2_COPIED};
    if (entry & QCOW2_COMPRESSED) {
        ret->type = QCOW2_IS_COMPRESSED;
        ret->host = entry;
        return is_compressed_at(q, entry);
    }
    if (entry & L2_RESERVED || (entry & QCOW2_ZERO && !q->v3))
        return false;
    if (!host) {
        ret->type = entry & QCOW2_ZERO ? QCOW2_IS_ZERO : QCOW2_IS_HOLE;
        return !ret->copied;
    }
    ret->type = entry & QCOW2_ZERO ? QCOW2_IS_ZERO_KEPT : QCOW2_IS_DATA;
    return host % q->cluster_size == 0 && host < q->file_end &&
           !qcow2_is_metadata(q, host >> q->cluster_bits, 1);
}

static bool goes_on(const struct qcow2_extent *run, const struct qcow2_extent *next,
                    uint64_t length)
{
    if (next->type != run->type || next->copied != run->copied)
        return false;
    if (run->type == QCOW2_IS_HOLE || run->type == QCOW2_IS_ZERO)
        return true;
    return run->type != QCOW2_IS_COMPRESSED && next->host == run->host + length;
}

/* 0 with *ret_unit NULL: there is no L2 table. */
static int find_unit(struct qcow2 *q, uint64_t cluster, struct qcow2_unit **ret_unit)
{
    uint64_t entry = q->l1.entries[cluster >> l2_bits(q)], table = entry & QCOW2_OFFSET;
    uint64_t index = cluster & ((UINT64_C(1) << l2_bits(q)) - 1);

    *ret_unit = NULL;
    if (!entry)
        return 0;
    if (entry & L1_RESERVED || !table || !qcow2_is_place(q, table))
        return qcow2_corrupt(q, "an entry of its L1 table leads to no L2 table");
    return qcow2_cache_get(q, table + index * sizeof(uint64_t), ret_unit);
}

int qcow2_map(struct qcow2 *q, uint64_t offset, uint64_t length, struct qcow2_extent *ret)
{
    uint64_t cluster = offset >> q->cluster_bits, in_cluster = offset & (q->cluster_size - 1);
    uint64_t span = unit_span(q), index = cluster & (span - 1), run = q->cluster_size;
    struct qcow2_extent extent, next;
    struct qcow2_unit *unit;
    int r = find_unit(q, cluster, &unit);

    if (r < 0)
        return r;
    if (!unit) {
        uint64_t table = UINT64_C(1) << l2_bits(q);
        extent = (struct qcow2_extent){.type = QCOW2_IS_HOLE};
        run = (table - (cluster & (table - 1))) << q->cluster_bits;
    } else {
        const uint64_t *entries = qcow2_cache_bytes(&q->cache, unit);
        if (!classify(q, be64toh(entries[index]), &extent))
            return qcow2_corrupt(q, "an entry of an L2 table leads to no cluster of data");
        for (uint64_t i = index + 1; i < span && run < in_cluster + length; i++) {
            if (!classify(q, be64toh(entries[i]), &next))
                break; /* it gets its error when it is first in a run */
            if (!goes_on(&extent, &next, run))
                break;
            run += q->cluster_size;
        }
    }
    if (extent.type == QCOW2_IS_DATA || extent.type == QCOW2_IS_ZERO_KEPT)
        extent.host += in_cluster;
    run -= in_cluster;
    extent.length = run < length ? run : length;
    *ret = extent;
    return 0;
}

/* Changes. */

/*
 * The new table is whole in the file before anything can point to it: that comes with the next
 * commit. A shared one has no changes in memory, because whoever changes one has it copied first.
 */
static int copy_table(struct qcow2 *q, uint64_t from, uint64_t to, bool fresh)
{
    uint64_t unit = q->cache.unit_size;
    int r = 0;

    if (!from)
        return fresh ? 0 : qcow2_file_write(q, to, q->zeroes, q->cluster_size);
    for (uint64_t at = 0; r == 0 && at < q->cluster_size; at += unit) {
        struct qcow2_unit *old;
        r = qcow2_cache_get(q, from + at, &old);
        if (r == 0)
            r = qcow2_file_write(q, to + at, qcow2_cache_bytes(&q->cache, old), unit);
    }
    return r;
}

static int make_table(struct qcow2 *q, uint64_t index, uint64_t old)
{
    uint64_t new = 0;
    bool fresh = false;
    int r = qcow2_allocate_metadata(q, &new, &fresh);

    if (r < 0)
        return r;
    r = copy_table(q, old, new, fresh);
    if (r < 0)
        return r; /* the cluster stays metadata, and is lost */
    if (old)
        qcow2_free_later(q, old >> q->cluster_bits, 1);
    qcow2_table_set(q, &q->l1, index, new | QCOW2_COPIED);
    return 0;
}

int qcow2_map_prepare(struct qcow2 *q, uint64_t cluster)
{
    uint64_t index = cluster >> l2_bits(q), entry = q->l1.entries[index];
    uint64_t table = entry & QCOW2_OFFSET, refcount = 0;

    if (!entry)
        return make_table(q, index, 0);
    if (entry & L1_RESERVED || !table || !qcow2_is_place(q, table))
        return qcow2_corrupt(q, "an entry of its L1 table leads to no L2 table");
    if (entry & QCOW2_COPIED)
        return 0;
    int r = qcow2_refcount_get(q, table >> q->cluster_bits, &refcount);
    if (r < 0)
        return r;
    if (refcount == 0)
        return qcow2_corrupt(q, "an L2 table that is in use has no reference");
    if (refcount > 1)
        return make_table(q, index, table);
    qcow2_table_set(q, &q->l1, index, entry | QCOW2_COPIED);
    return 0;
}

static void let_go(struct qcow2 *q, const struct qcow2_extent *old)
{
    uint64_t offset = old->host, length = q->cluster_size;

    if (old->type == QCOW2_IS_HOLE || old->type == QCOW2_IS_ZERO)
        return;
    if (old->type == QCOW2_IS_COMPRESSED && !qcow2_compressed_range(q, old->host, &offset, &length))
        return;
    uint64_t first = offset >> q->cluster_bits, last = (offset + length - 1) >> q->cluster_bits;
    qcow2_free_later(q, first, last - first + 1);
}

int qcow2_map_set(struct qcow2 *q, uint64_t cluster, uint64_t count, uint64_t entry, uint64_t step,
                  bool keep)
{
    uint64_t first = cluster & (unit_span(q) - 1);
    struct qcow2_extent old;
    struct qcow2_unit *unit = NULL;
    int r = qcow2_map_prepare(q, cluster);

    if (r == 0)
        r = find_unit(q, cluster, &unit);
    if (r < 0)
        return r;
    if (!unit)
        return -EIO;
    r = qcow2_commit_room_for(q, unit);
    if (r <= 0)
        return r;
    uint64_t *entries = qcow2_cache_bytes(&q->cache, unit);
    for (uint64_t i = 0; i < count; i++)
        if (!classify(q, be64toh(entries[first + i]), &old))
            return qcow2_corrupt(q, "an entry of an L2 table leads to no cluster of data");
    qcow2_cache_dirty(q, unit, QCOW2_L2);
    for (uint64_t i = 0; i < count; i++) {
        (void)classify(q, be64toh(entries[first + i]), &old);
        entries[first + i] = htobe64(entry + i * step);
        if (!keep)
            let_go(q, &old);
    }
    return 1;
}
