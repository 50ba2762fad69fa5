/* SPDX-License-Identifier: MIT */
/*
 * Zeroes and discards. Of whole clusters only the mapping changes: to nothing, where nothing reads
 * as zeroes, else to a zero cluster (version 3). The place in the file is given back, unless the
 * guest wants to keep it. Parts of clusters that have a place are zeroed there; all others are
 * written, if they are not zeroes anyway.
 *
 * A discard that cannot be done without a write is left out. What the guest has discarded never
 * reads as what a backing disk has there.
 */
#include "host/disk_qcow2.h"

#include <errno.h>

/* Without a mapping it would read as something else than zeroes. */
static bool is_above_something(const struct qcow2 *q, uint64_t offset)
{
    return q->backing && offset < q->backing->info.size;
}

static int skip(struct qcow2_op *op, uint64_t length)
{
    op->at += length;
    return 1;
}

/* Whole clusters from `offset`. */
static int map_to(struct qcow2 *q, struct qcow2_op *op, uint64_t length, uint64_t entry,
                  uint64_t step, bool keep)
{
    uint64_t offset = op->request->offset + op->at;
    uint64_t span = q->cache.unit_size / sizeof(uint64_t), cluster = offset >> q->cluster_bits;
    uint64_t count = (length + q->cluster_size - 1) >> q->cluster_bits;

    if (count > span - (cluster & (span - 1))) {
        count = span -
                (cluster & (span - 1)); /* there was no table: the run is longer than a unit */
        length = count << q->cluster_bits;
    }
    if (qcow2_is_growing(q, offset, length))
        return 0;
    int r = qcow2_commit_room(q);
    if (r > 0)
        r = qcow2_map_set(q, cluster, count, entry, step, keep);
    if (r <= 0)
        return r;
    op->mapped = true;
    op->at += length;
    return 1;
}

/* To nothing, or a zero cluster where that would show the backing disk. */
static int map_to_zeroes(struct qcow2 *q, struct qcow2_op *op, uint64_t length)
{
    bool above = is_above_something(q, op->request->offset + op->at);
    return map_to(q, op, length, above ? QCOW2_ZERO : 0, 0, false);
}

static int discard(struct qcow2 *q, struct qcow2_op *op, const struct qcow2_extent *extent,
                   bool whole)
{
    bool above = is_above_something(q, op->request->offset + op->at);

    if (extent->type == QCOW2_IS_HOLE || extent->type == QCOW2_IS_ZERO || (above && !q->v3))
        return skip(op, extent->length);
    if (whole)
        return map_to_zeroes(q, op, extent->length);
    if (extent->type == QCOW2_IS_DATA && extent->copied)
        return qcow2_pass(q, op, q->data, extent->host, extent->length);
    return skip(op, extent->length);
}

static int zero(struct qcow2 *q, struct qcow2_op *op, const struct qcow2_extent *extent, bool whole)
{
    bool above = is_above_something(q, op->request->offset + op->at);
    bool unmap = op->request->unmap && q->unmap;
    bool ours = extent->type == QCOW2_IS_DATA && extent->copied;

    if (extent->type == QCOW2_IS_ZERO || (extent->type == QCOW2_IS_HOLE && !above))
        return skip(op, extent->length);
    if (extent->type == QCOW2_IS_ZERO_KEPT && !(whole && unmap))
        return skip(op, extent->length);
    if (whole && ours && !unmap && q->v3)
        return map_to(q, op, extent->length, extent->host | QCOW2_COPIED | QCOW2_ZERO,
                      q->cluster_size, true);
    if (whole && (q->v3 || !above) && (!ours || unmap))
        return map_to_zeroes(q, op, extent->length);
    if (ours)
        return qcow2_pass(q, op, q->data, extent->host, extent->length);
    return qcow2_grow(q, op, extent);
}

/* Whole clusters are mapped to nothing, or to zeroes. */
uint64_t qcow2_zeroes_cost(struct disk *disk, const struct disk_request *request)
{
    const struct qcow2 *q = container_of(disk, struct qcow2, disk);
    uint64_t mask = q->cluster_size - 1, end = request->offset + request->length;
    uint64_t from = (request->offset + mask) & ~mask;
    uint64_t to = end == q->disk.info.size ? end : end & ~mask;

    if (from >= to || !(q->v3 || (!q->backing && q->unmap && request->unmap)))
        return request->length;
    return request->length - (to - from);
}

int qcow2_step_zeroes(struct qcow2 *q, struct qcow2_op *op)
{
    const struct disk_request *request = op->request;
    uint64_t offset = request->offset + op->at, left = request->length - op->at;
    uint64_t in_cluster = offset & (q->cluster_size - 1), end;
    struct qcow2_extent extent;

    if (request->op == DISK_DISCARD && !q->unmap)
        return skip(op, left);
    int r = qcow2_map(q, offset, left, &extent);
    if (r < 0)
        return r;
    /* Up to the next cluster, or whole ones; the disk's last one may be short. */
    end = offset + extent.length;
    if (in_cluster && extent.length > q->cluster_size - in_cluster)
        extent.length = q->cluster_size - in_cluster;
    else if (!in_cluster && extent.length > q->cluster_size && end != q->disk.info.size)
        extent.length &= ~(q->cluster_size - 1);
    end = offset + extent.length;
    bool whole = !in_cluster && (extent.length % q->cluster_size == 0 || end == q->disk.info.size);
    return request->op == DISK_DISCARD ? discard(q, op, &extent, whole)
                                       : zero(q, op, &extent, whole);
}
