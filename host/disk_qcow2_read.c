/* SPDX-License-Identifier: MIT */
/*
 * Reads. Compressed clusters are read as a whole and decompressed here, on the loop's thread; the
 * last few are kept, so that a guest that reads one in small pieces pays once. A descriptor's bytes
 * never change as long as something refers to it, and we never make one: what is kept stays right.
 *
 * zlib's format is deflate without any header (RFC 1951), zstd's a frame (RFC 8878); either ends
 * when the cluster is full, and what is behind that does not count.
 */
#include "host/disk_qcow2.h"

#include "core/iov.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

enum { DEFLATE_WINDOW = -15, ZSTD_WINDOW = 23 /* what hostile frames may ask for: 8 MiB */ };

static bool inflate_zlib(struct qcow2 *q, uint8_t *to, uint8_t *from, size_t length)
{
    z_stream *stream = q->inflater;

    if (!stream) {
        stream = calloc(1, sizeof(*stream));
        if (!stream || inflateInit2(stream, DEFLATE_WINDOW) != Z_OK) {
            free(stream);
            return false;
        }
        q->inflater = stream;
    } else if (inflateReset(stream) != Z_OK) {
        return false;
    }
    stream->next_in = from;
    stream->avail_in = (uInt)length;
    stream->next_out = to;
    stream->avail_out = (uInt)q->cluster_size;
    int r = inflate(stream, Z_FINISH);
    return (r == Z_STREAM_END || r == Z_BUF_ERROR || r == Z_OK) && stream->avail_out == 0;
}

static bool inflate_zstd(struct qcow2 *q, uint8_t *to, const uint8_t *from, size_t length)
{
    ZSTD_outBuffer out = {.dst = to, .size = q->cluster_size};
    ZSTD_inBuffer in = {.src = from, .size = length};

    if (!q->inflater) {
        q->inflater = ZSTD_createDCtx();
        if (!q->inflater ||
            ZSTD_isError(ZSTD_DCtx_setParameter(q->inflater, ZSTD_d_windowLogMax, ZSTD_WINDOW)))
            return false;
    }
    (void)ZSTD_DCtx_reset(q->inflater, ZSTD_reset_session_only);
    while (out.pos < out.size) {
        size_t in_before = in.pos, out_before = out.pos;
        size_t r = ZSTD_decompressStream(q->inflater, &out, &in);
        if (ZSTD_isError(r) || (in.pos == in_before && out.pos == out_before))
            return false;
        if (r == 0 && out.pos < out.size)
            return false; /* the frame has ended early */
    }
    return true;
}

void qcow2_inflate_finish(struct qcow2 *q)
{
    if (q->inflater && q->zstd) {
        ZSTD_freeDCtx(q->inflater);
    } else if (q->inflater) {
        inflateEnd(q->inflater);
        free(q->inflater);
    }
    for (unsigned i = 0; i < QCOW2_INFLATED; i++)
        free(q->inflated[i].bytes);
}

static const uint8_t *find_inflated(const struct qcow2 *q, uint64_t descriptor)
{
    for (unsigned i = 0; i < QCOW2_INFLATED; i++)
        if (q->inflated[i].descriptor == descriptor)
            return q->inflated[i].bytes;
    return NULL;
}

/* NULL: it cannot be. */
static const uint8_t *inflate_cluster(struct qcow2 *q, uint64_t descriptor, uint8_t *from,
                                      size_t length)
{
    unsigned slot = q->next_inflated;

    q->next_inflated = (slot + 1) % QCOW2_INFLATED;
    q->inflated[slot].descriptor = 0;
    if (!q->inflated[slot].bytes)
        q->inflated[slot].bytes = malloc(q->cluster_size);
    uint8_t *to = q->inflated[slot].bytes;
    if (!to || !(q->zstd ? inflate_zstd(q, to, from, length) : inflate_zlib(q, to, from, length)))
        return NULL;
    q->inflated[slot].descriptor = descriptor;
    return to;
}

static void copy_out(const struct qcow2 *q, const struct disk_request *request, uint64_t at,
                     uint64_t length, const uint8_t *cluster)
{
    uint64_t in_cluster = (request->offset + at) & (q->cluster_size - 1);
    iov_write(request->iov, request->iov_count, at, cluster + in_cluster, length);
}

static void handle_compressed(struct qcow2 *q, struct qcow2_part *part, int result)
{
    struct qcow2_scratch *scratch = part->scratch;
    const uint8_t *cluster = find_inflated(q, part->host);
    uint64_t offset = 0, length = 0;

    /* The file may have become longer, but not shorter. */
    if (result == 0 && !cluster && qcow2_compressed_range(q, part->host, &offset, &length))
        cluster = inflate_cluster(q, part->host, scratch->buffer + (offset - part->request.offset),
                                  length);
    if (result == 0 && cluster)
        copy_out(q, part->op->request, part->at, part->length, cluster);
    else if (result == 0)
        result = -EIO;
    qcow2_scratch_give(q, &q->inflation, scratch);
    qcow2_part_end(q, part, result);
}

static int read_compressed(struct qcow2 *q, struct qcow2_op *op, const struct qcow2_extent *extent)
{
    const uint8_t *cluster = find_inflated(q, extent->host);
    uint64_t offset = 0, length = 0, align = q->length_align;

    if (cluster) {
        copy_out(q, op->request, op->at, extent->length, cluster);
        op->at += extent->length;
        return 1;
    }
    struct qcow2_scratch *scratch = qcow2_scratch_take(q, &q->inflation);
    if (!scratch)
        return q->inflation.made ? 0 : -ENOMEM;
    struct qcow2_part *part = qcow2_part_take(q, op);
    if (!part) {
        qcow2_scratch_give(q, &q->inflation, scratch);
        return 0;
    }
    (void)qcow2_compressed_range(q, extent->host, &offset, &length); /* it was looked at */
    uint64_t begin = offset & ~(align - 1), end = (offset + length + align - 1) & ~(align - 1);
    part->scratch = scratch;
    part->handle = handle_compressed;
    part->host = extent->host;
    part->at = op->at;
    part->length = extent->length;
    part->inline_iov[0] = (struct iovec){.iov_base = scratch->buffer, .iov_len = end - begin};
    part->request.op = DISK_READ;
    part->request.offset = begin;
    part->request.length = end - begin;
    part->request.iov = part->inline_iov;
    part->request.iov_count = 1;
    op->at += extent->length;
    qcow2_part_go(q, part, q->data);
    return 1;
}

/* Where the backing disk is shorter it goes on with zeroes. */
static int read_below(struct qcow2 *q, struct qcow2_op *op, uint64_t length)
{
    const struct disk_request *request = op->request;
    uint64_t offset = request->offset + op->at, size = q->backing ? q->backing->info.size : 0;

    if (offset < size)
        return qcow2_pass(q, op, q->backing, offset,
                          length < size - offset ? length : size - offset);
    iov_fill(request->iov, request->iov_count, op->at, 0, length);
    op->at += length;
    return 1;
}

int qcow2_step_read(struct qcow2 *q, struct qcow2_op *op)
{
    const struct disk_request *request = op->request;
    struct qcow2_extent extent;
    int r = qcow2_map(q, request->offset + op->at, request->length - op->at, &extent);

    if (r < 0)
        return r;
    switch (extent.type) {
    case QCOW2_IS_DATA:
        return qcow2_pass(q, op, q->data, extent.host, extent.length);
    case QCOW2_IS_COMPRESSED:
        return read_compressed(q, op, &extent);
    case QCOW2_IS_HOLE:
        return read_below(q, op, extent.length);
    case QCOW2_IS_ZERO:
    case QCOW2_IS_ZERO_KEPT:
        break;
    }
    iov_fill(request->iov, request->iov_count, op->at, 0, extent.length);
    op->at += extent.length;
    return 1;
}
