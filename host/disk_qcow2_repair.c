/* SPDX-License-Identifier: MIT */
/*
 * A lazy image that was not closed: its mappings are right, its refcounts may not be. All
 * references are counted, and refcounts are set to that; then the flags that say "mine alone" are.
 * The mark that this has to be done stays until all of it is in the file, so it may be interrupted
 * anywhere.
 */
#include "host/disk_qcow2.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>

enum { MOST_CLUSTERS = 1 << 28 }; /* 16 TiB with usual clusters; 4 bytes of memory for each */

struct count {
    struct qcow2 *q;
    uint32_t *counts;
    uint64_t clusters;
};

static int count_range(struct count *c, uint64_t offset, uint64_t length)
{
    uint64_t first = offset >> c->q->cluster_bits;
    uint64_t last = length ? (offset + length - 1) >> c->q->cluster_bits : 0;

    for (uint64_t i = first; length && i <= last; i++) {
        if (i >= c->clusters || ++c->counts[i] == 0)
            return -EIO;
    }
    return 0;
}

static int count_entry(struct count *c, uint64_t entry)
{
    uint64_t offset = entry & QCOW2_OFFSET, length = c->q->cluster_size;

    if (!offset)
        return 0;
    if (entry & QCOW2_COMPRESSED) {
        if (!qcow2_compressed_range(c->q, entry, &offset, &length))
            return -EIO;
    } else if (offset % length || qcow2_is_metadata(c->q, offset >> c->q->cluster_bits, 1)) {
        return -EIO;
    }
    return count_range(c, offset, length);
}

static int count_l2(struct count *c, uint64_t table)
{
    struct qcow2 *q = c->q;
    int r = qcow2_is_place(q, table) ? count_range(c, table, q->cluster_size) : -EIO;

    for (uint64_t at = 0; r == 0 && at < q->cluster_size; at += q->cache.unit_size) {
        struct qcow2_unit *unit;
        r = qcow2_cache_get(q, table + at, &unit);
        if (r < 0)
            break;
        const uint64_t *entries = qcow2_cache_bytes(&q->cache, unit);
        for (unsigned i = 0; r == 0 && i < q->cache.unit_size / sizeof(*entries); i++)
            r = count_entry(c, be64toh(entries[i]));
    }
    return r;
}

static int count_l1(struct count *c, const struct qcow2_table *table)
{
    int r = count_range(c, table->offset, table->count * sizeof(*table->entries));

    for (uint64_t i = 0; r == 0 && i < table->count; i++)
        if (table->entries[i])
            r = count_l2(c, table->entries[i] & QCOW2_OFFSET);
    return r;
}

static int count_snapshots(struct count *c)
{
    struct qcow2 *q = c->q;
    int r = count_range(c, q->snapshots_offset, q->snapshots_length);

    for (uint32_t i = 0; r == 0 && i < q->snapshots; i++) {
        struct qcow2_table table = {.offset = q->snapshot_tables[i].first,
                                    .count = q->snapshot_tables[i].count};
        r = table.count ? qcow2_table_load(q, &table) : 0;
        if (r == 0)
            r = count_l1(c, &table);
        qcow2_table_finish(&table);
    }
    return r;
}

static int count_all(struct count *c)
{
    const struct qcow2_table *table = &c->q->refcounts;
    int r = count_range(c, 0, c->q->cluster_size);

    if (r == 0)
        r = count_range(c, table->offset, table->count * sizeof(*table->entries));
    for (uint64_t i = 0; r == 0 && i < table->count; i++)
        if (table->entries[i])
            r = count_range(c, table->entries[i], c->q->cluster_size);
    if (r == 0)
        r = count_l1(c, &c->q->l1);
    return r == 0 ? count_snapshots(c) : r;
}

static int commit_if_full(struct qcow2 *q)
{
    return qcow2_commit_room(q) > 0 ? 0 : qcow2_commit_now(q);
}

/* What is counted, though we know nobody who uses it, may belong to an extension: only more. */
static int set_refcounts(struct count *c)
{
    int r = 0;

    for (uint64_t i = 0; r == 0 && i < c->clusters; i++) {
        uint64_t refcount = 0;
        r = qcow2_refcount_get(c->q, i, &refcount);
        if (r == 0 && refcount != c->counts[i] && c->counts[i])
            r = qcow2_refcount_set(c->q, i, c->counts[i]);
        if (r == 0)
            r = commit_if_full(c->q);
    }
    return r;
}

static uint64_t with_flag(const struct count *c, uint64_t entry)
{
    uint64_t cluster = (entry & QCOW2_OFFSET) >> c->q->cluster_bits;
    bool mine = cluster && cluster < c->clusters && c->counts[cluster] == 1 &&
                !(entry & QCOW2_COMPRESSED);

    return (entry & ~QCOW2_COPIED) | (mine ? QCOW2_COPIED : 0);
}

static int set_l2_flags(struct count *c, uint64_t table)
{
    struct qcow2 *q = c->q;
    int r = 0;

    for (uint64_t at = 0; r == 0 && at < q->cluster_size; at += q->cache.unit_size) {
        struct qcow2_unit *unit;
        r = qcow2_cache_get(q, table + at, &unit);
        if (r < 0)
            break;
        uint64_t *entries = qcow2_cache_bytes(&q->cache, unit);
        for (unsigned i = 0; i < q->cache.unit_size / sizeof(*entries); i++) {
            uint64_t entry = be64toh(entries[i]);
            if (with_flag(c, entry) == entry)
                continue;
            entries[i] = htobe64(with_flag(c, entry));
            qcow2_cache_dirty(q, unit, QCOW2_L2);
        }
        r = commit_if_full(q);
    }
    return r;
}

static int set_flags(struct count *c)
{
    struct qcow2_table *l1 = &c->q->l1;
    int r = 0;

    for (uint64_t i = 0; r == 0 && i < l1->count; i++) {
        uint64_t entry = l1->entries[i];
        if (!entry)
            continue;
        if (with_flag(c, entry) != entry)
            qcow2_table_set(c->q, l1, i, with_flag(c, entry));
        r = set_l2_flags(c, entry & QCOW2_OFFSET);
    }
    return r;
}

int qcow2_repair(struct qcow2 *q)
{
    uint64_t per_block = (q->cluster_size * 8) >> q->refcount_order;
    struct count c = {.q = q, .clusters = q->file_end >> q->cluster_bits};

    /* A refcount table that is too small is a matter for a tool. */
    if (c.clusters > MOST_CLUSTERS || c.clusters / per_block + 2 > q->refcounts.count)
        return -EFBIG;
    c.counts = calloc(c.clusters, sizeof(*c.counts));
    if (!c.counts)
        return -ENOMEM;
    q->tail = q->cursor = c.clusters; /* new blocks lie where nobody can be */
    int r = count_all(&c);
    if (r == 0)
        r = set_refcounts(&c);
    if (r == 0)
        r = set_flags(&c);
    if (r == 0)
        r = qcow2_commit_now(q);
    free(c.counts);
    q->cursor = 0;
    return r;
}
