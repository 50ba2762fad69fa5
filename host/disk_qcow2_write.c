/* SPDX-License-Identifier: MIT */
/*
 * Writes. What has its own place is written there. All else grows: clusters are allocated, the
 * guest's bytes are written to them with what must be around them, and when that is done they are
 * mapped; the write is done then, and the next commit makes it last.
 *
 * What must be around them is read by an ordinary read of our own, before anything changes, or it
 * is zeroes, which new file need not be given. While a cluster grows nobody else may begin to
 * change its mapping. Reads go on and see what was there before.
 */
#include "host/disk_qcow2.h"

#include "core/iov.h"
#include <errno.h>
#include <string.h>

bool qcow2_is_growing(const struct qcow2 *q, uint64_t offset, uint64_t length)
{
    uint64_t first = offset >> q->cluster_bits, last = (offset + length - 1) >> q->cluster_bits;

    for (const struct qcow2_part *part = q->growing; part; part = part->next)
        if (first < part->guest + part->count && part->guest <= last)
            return true;
    return false;
}

static void give_up(struct qcow2 *q, struct qcow2_part *part, int result)
{
    if (!part->reuse)
        qcow2_release(q, part->host >> q->cluster_bits, part->count);
    qcow2_part_end(q, part, result);
}

/* The bytes are written. */
static void link_part(struct qcow2 *q, struct qcow2_part *part)
{
    int r = q->corrupt ? -EIO
                       : qcow2_map_set(q, part->guest, part->count, part->host | QCOW2_COPIED,
                                       q->cluster_size, part->reuse);

    if (r == 0) {
        part->next_unlinked = q->unlinked;
        q->unlinked = part;
        return;
    }
    if (r < 0) {
        give_up(q, part, r);
        return;
    }
    q->commit.links = true;
    part->op->mapped = true;
    qcow2_part_end(q, part, 0);
}

void qcow2_link_waiting(struct qcow2 *q)
{
    struct qcow2_part *part = q->unlinked;

    q->unlinked = NULL;
    while (part) {
        struct qcow2_part *next = part->next_unlinked;
        link_part(q, part);
        part = next;
    }
}

static void handle_grown(struct qcow2 *q, struct qcow2_part *part, int result)
{
    if (part->scratch)
        qcow2_scratch_give(q, &q->growth, part->scratch);
    part->scratch = NULL;
    if (result < 0)
        give_up(q, part, result);
    else
        link_part(q, part);
}

/* What was there before. */

static void write_grown(struct qcow2 *q, struct qcow2_part *part)
{
    part->handle = handle_grown;
    qcow2_part_go(q, part, q->data);
}

static void one_read_less(struct qcow2 *q, struct qcow2_scratch *scratch)
{
    struct qcow2_part *part = scratch->part;

    if (--scratch->pending)
        return;
    if (scratch->result < 0)
        handle_grown(q, part, scratch->result);
    else
        write_grown(q, part);
}

static void handle_old_bytes(struct disk_request *request, int result)
{
    struct qcow2 *q = request->arg;
    struct qcow2_scratch *scratch = (void *)(uintptr_t)request->private[3];

    if (result < 0)
        scratch->result = result;
    one_read_less(q, scratch);
}

/* The disk may end within the last cluster: there are zeroes. */
static void read_old(struct qcow2 *q, struct qcow2_scratch *scratch, unsigned index,
                     uint64_t offset, uint64_t length)
{
    struct disk_request *request = &scratch->reads[index];
    uint8_t *bytes = scratch->buffer + index * q->cluster_size;
    uint64_t size = q->disk.info.size, in_disk = offset < size ? size - offset : 0;

    if (in_disk > length)
        in_disk = length;
    memset(bytes + in_disk, 0, length - in_disk);
    if (!in_disk)
        return;
    scratch->iov[index] = (struct iovec){.iov_base = bytes, .iov_len = in_disk};
    *request = (struct disk_request){.op = DISK_READ,
                                     .offset = offset,
                                     .length = in_disk,
                                     .iov = &scratch->iov[index],
                                     .iov_count = 1,
                                     .done = handle_old_bytes,
                                     .arg = q,
                                     .private = {[3] = (uintptr_t)scratch}};
    scratch->pending++;
    scratch->ops[index].internal = true;
    qcow2_op_start(q, &scratch->ops[index], request);
}

/* Growing. */

struct edges {
    uint64_t begin, from, end, to; /* bytes of the disk: clusters begin, bytes from .. end, to */
    bool read_head, read_tail;
};

static bool has_old_bytes(const struct qcow2 *q, enum qcow2_type type, uint64_t offset)
{
    if (type == QCOW2_IS_HOLE)
        return q->backing && offset < q->backing->info.size;
    return type == QCOW2_IS_DATA || type == QCOW2_IS_COMPRESSED;
}

/* Buffers for all of it, in the part's request. */
static int gather(struct qcow2 *q, struct qcow2_part *part, const struct edges *edges, bool fresh)
{
    const struct disk_request *from = part->op->request;
    struct iovec *iov = qcow2_part_iov(part, from->iov_count + 3);
    uint8_t *buffer = part->scratch ? part->scratch->buffer : NULL;
    uint64_t head = edges->from - edges->begin, tail = edges->to - edges->end;
    unsigned count = 0;

    if (!iov)
        return -ENOMEM;
    part->request.offset = part->host;
    if (head && (edges->read_head || !fresh))
        iov[count++] = (struct iovec){.iov_base = edges->read_head ? buffer : q->zeroes,
                                      .iov_len = head};
    else
        part->request.offset += head;
    if (from->op == DISK_WRITE)
        count += iov_part(from->iov, from->iov_count, part->op->at, edges->end - edges->from,
                          iov + count);
    else
        iov[count++] = (struct iovec){.iov_base = q->zeroes, .iov_len = edges->end - edges->from};
    if (tail && (edges->read_tail || !fresh))
        iov[count++] = (struct iovec){
            .iov_base = edges->read_tail ? buffer + q->cluster_size : q->zeroes, .iov_len = tail};
    part->request.op = DISK_WRITE;
    part->request.iov = iov;
    part->request.iov_count = count;
    part->request.length = iov_size(iov, count);
    return 0;
}

static int find_place(struct qcow2 *q, struct qcow2_part *part, const struct qcow2_extent *extent,
                      uint64_t in_cluster, bool *ret_fresh)
{
    uint64_t first = 0;

    part->reuse = extent->type == QCOW2_IS_ZERO_KEPT && extent->copied;
    *ret_fresh = false;
    int r = qcow2_map_prepare(q, part->guest);
    if (r < 0)
        return r;
    if (part->reuse) {
        part->host = extent->host - in_cluster;
        return 0;
    }
    r = qcow2_allocate(q, part->count, &first, &part->count, ret_fresh);
    part->host = first << q->cluster_bits;
    return r;
}

static void begin_growing(struct qcow2 *q, struct qcow2_part *part)
{
    part->next = q->growing;
    part->link = &q->growing;
    if (part->next)
        part->next->link = &part->next;
    q->growing = part;
}

static void fill(struct qcow2 *q, struct qcow2_part *part, const struct edges *edges)
{
    struct qcow2_scratch *scratch = part->scratch;

    if (!scratch) {
        write_grown(q, part);
        return;
    }
    scratch->part = part;
    scratch->result = 0;
    scratch->pending = 1;
    if (edges->read_head)
        read_old(q, scratch, 0, edges->begin, edges->from - edges->begin);
    if (edges->read_tail)
        read_old(q, scratch, 1, edges->end, edges->to - edges->end);
    one_read_less(q, scratch);
}

/* The extent, or the beginning of it, gets a place of its own. */
int qcow2_grow(struct qcow2 *q, struct qcow2_op *op, const struct qcow2_extent *extent)
{
    uint64_t offset = op->request->offset + op->at, length = extent->length, end;
    uint64_t mask = q->cluster_size - 1;
    struct edges edges;
    bool fresh = false;

    if (op->request->op != DISK_WRITE && length > QCOW2_MAX_CLUSTER - (offset & mask))
        length = QCOW2_MAX_CLUSTER - (offset & mask);
    if (qcow2_is_growing(q, offset, length))
        return 0;
    int r = qcow2_commit_room(q);
    if (r <= 0)
        return r;
    end = offset + length;
    edges = (struct edges){
        .begin = offset & ~mask, .from = offset, .end = end, .to = (end + mask) & ~mask};
    edges.read_head = edges.from > edges.begin && has_old_bytes(q, extent->type, edges.begin);
    /* Fewer clusters may be had: then nothing is behind the bytes. */
    edges.read_tail = edges.to > edges.end && has_old_bytes(q, extent->type, edges.end);
    struct qcow2_scratch *scratch = NULL;
    if (edges.read_head || edges.read_tail) {
        scratch = qcow2_scratch_take(q, &q->growth);
        if (!scratch)
            return q->growth.made ? 0 : -ENOMEM;
    }
    struct qcow2_part *part = qcow2_part_take(q, op);
    if (!part) {
        if (scratch)
            qcow2_scratch_give(q, &q->growth, scratch);
        return 0;
    }
    part->scratch = scratch;
    part->guest = edges.begin >> q->cluster_bits;
    part->count = (edges.to - edges.begin) >> q->cluster_bits;
    r = find_place(q, part, extent, offset & mask, &fresh);
    if (r < 0)
        goto fail;
    if (edges.begin + (part->count << q->cluster_bits) < edges.to) {
        edges.to = edges.end = edges.begin + (part->count << q->cluster_bits);
        edges.read_tail = false;
    }
    r = gather(q, part, &edges, fresh);
    if (r < 0) {
        if (!part->reuse)
            qcow2_release(q, part->host >> q->cluster_bits, part->count);
        goto fail;
    }
    op->at += edges.end - edges.from;
    begin_growing(q, part);
    fill(q, part, &edges);
    return 1;
fail:
    if (scratch)
        qcow2_scratch_give(q, &q->growth, scratch);
    part->scratch = NULL;
    qcow2_part_end(q, part, r);
    return r;
}

int qcow2_step_write(struct qcow2 *q, struct qcow2_op *op)
{
    const struct disk_request *request = op->request;
    struct qcow2_extent extent;
    int r = qcow2_map(q, request->offset + op->at, request->length - op->at, &extent);

    if (r < 0)
        return r;
    if (extent.type == QCOW2_IS_DATA && extent.copied)
        return qcow2_pass(q, op, q->data, extent.host, extent.length);
    return qcow2_grow(q, op, &extent);
}
