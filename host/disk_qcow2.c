/* SPDX-License-Identifier: MIT */
/*
 * qcow2 images, version 2 and 3: the format, and the life of a request.
 *
 * The file is cut into clusters of 512 bytes to 2 MiB. All numbers are big-endian. Offsets are of
 * bytes in the file, and those of tables and of data are multiples of the cluster size.
 *
 *   header            cluster 0. Bytes: 0 magic, 4 version, 8 and 16 the backing file's name, 20
 *                     cluster_bits, 24 size of the disk, 32 encryption, 36 and 40 the L1 table, 48
 *                     and 56 the refcount table, 60 and 64 snapshots. Version 3: 72 features that
 *                     must be known, 80 that need not be, 88 that are cleared by who does not know
 *                     them, 96 refcount_order, 100 the header's length, 104 compression. Then
 *                     extensions: type, length, bytes, filled up to a multiple of 8
 *   L1 table          an offset of an L2 table for each stretch of the disk, or 0
 *   L2 table          one cluster; an entry for each cluster of the disk:
 *                       bit 63 the cluster's refcount is 1, it may be written in place (also in L1)
 *                       bit 62 compressed: a byte's offset, and how many more sectors there are
 *                       bit 0  version 3: reads as zeroes, whatever is at the offset
 *                       bits 9 to 55 the offset; 0: the backing disk has it, or it reads as zeroes
 *   refcount table    an offset of a refcount block for each stretch of the file, or 0
 *   refcount block    one cluster; 1 to 64 bits for each cluster of the file
 *   snapshot          an L1 table of its own; what it shares with others has a refcount above 1
 *
 * What must hold, or the image is not opened (for rules 7 to 9: not for writing):
 *   1. the version is 2 or 3, cluster_bits 9 to 21, refcount_order up to 6 (version 2: 4)
 *   2. no encryption, no external data file, no feature that must be known and is not
 *   3. the disk is not empty, whole blocks, and the L1 table, 32 MiB at most, covers it
 *   4. the tables begin at clusters and in the file; the refcount table has 8 MiB at most
 *   5. extensions end within cluster 0, and so does the backing file's name
 *   6. a backing file is allowed, its format is named, no image stands on itself, and a chain has
 * 16 images at most
 *   7. it is not marked as corrupt
 *   8. no two of header, tables and blocks lie in the same place
 *   9. the dirty mark: refcounts are counted anew, and the mark goes (disk_qcow2_repair.c)
 * And of entries, looked at whenever they are used (disk_qcow2_map.c, disk_qcow2_refcount.c):
 *  10. they point to clusters in the file, and not to header, tables or blocks
 *  11. bits that have no meaning are 0
 * What breaks 10 or 11 is an I/O error, and a person is told once; and the image is marked as
 * corrupt, if it is open for writing, and not written to any more.
 *
 * Our own ways: refcounts are always kept right (a lazy image stays a correct one), L2 tables are
 * never given back, nothing is ever compressed, bitmaps become invalid when the image is opened for
 * writing, which their mark (a feature of the third kind) says.
 *
 * The life of a request. It gets an op, which goes through it: each step takes the longest run of
 * one kind (disk_qcow2_map.c) and passes it as a part to the file's engine or to the backing disk.
 * Data that have their place, and that is nearly all of them, are one part with the guest's own
 * buffers. Writes to what has no place of its own are growing parts (disk_qcow2_write.c). An op
 * that needs what others have at the moment (the same cluster, room for changes, a buffer) is
 * stuck, and tries again when one of them has ended. How changes of metadata reach the file is in
 * disk_qcow2_commit.c.
 *
 * A cancel ends what is between two steps, and what the engine has not begun of the others; data
 * that have got a place and not their bytes give it back. Metadata are no guest's: whatever the
 * engine gives back of a commit is submitted again.
 */
#include "host/disk_qcow2.h"

#include "core/iov.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static struct qcow2 *qcow2_of(struct disk *disk)
{
    return container_of(disk, struct qcow2, disk);
}

/* Parts. */

struct qcow2_part *qcow2_part_take(struct qcow2 *q, struct qcow2_op *op)
{
    struct qcow2_part *part = &op->own;

    if (part->op) {
        part = q->free_parts;
        if (part)
            q->free_parts = part->next;
        else if (q->parts_made < QCOW2_MOST_OPS)
            part = &q->parts[q->parts_made++];
        else
            return NULL;
    }
    part->op = op;
    part->iov = NULL;
    part->link = NULL;
    part->scratch = NULL;
    part->handle = qcow2_part_end;
    part->parity = (uint8_t)(q->epoch & 1);
    q->under_way[part->parity]++;
    op->pending++;
    return part;
}

struct iovec *qcow2_part_iov(struct qcow2_part *part, unsigned count)
{
    part->iov = count <= QCOW2_INLINE_IOV ? part->inline_iov : calloc(count, sizeof(*part->iov));
    return part->iov;
}

static void handle_part(struct disk_request *request, int result)
{
    struct qcow2_part *part = container_of(request, struct qcow2_part, request);
    part->handle(request->arg, part, result);
}

void qcow2_part_go(struct qcow2 *q, struct qcow2_part *part, struct disk *disk)
{
    part->request.done = handle_part;
    part->request.arg = q;
    q->submitted = true;
    disk_submit(disk, &part->request);
}

int qcow2_pass(struct qcow2 *q, struct qcow2_op *op, struct disk *disk, uint64_t offset,
               uint64_t length)
{
    const struct disk_request *from = op->request;
    struct qcow2_part *part = qcow2_part_take(q, op);

    if (!part)
        return 0;
    part->request.op = from->op;
    part->request.unmap = from->unmap;
    part->request.offset = offset;
    part->request.length = length;
    part->request.iov = from->iov;
    part->request.iov_count = from->iov_count;
    if ((from->op == DISK_READ || from->op == DISK_WRITE) && length < from->length) {
        struct iovec *iov = qcow2_part_iov(part, from->iov_count);
        if (!iov) {
            qcow2_part_end(q, part, -ENOMEM);
            return -ENOMEM;
        }
        part->request.iov = iov;
        part->request.iov_count = iov_part(from->iov, from->iov_count, op->at, length, iov);
    }
    op->at += length;
    qcow2_part_go(q, part, disk);
    return 1;
}

/* Ops. */

static void finish_op(struct qcow2 *q, struct qcow2_op *op)
{
    struct disk_request *request = op->request;
    bool wait = op->mapped && q->disk.info.write_through && op->result == 0;

    if (op->internal) {
        request->done(request, op->result);
        return;
    }
    request->private[0] = (uint64_t)-op->result;
    request->private[1] = q->commit.started + 1;
    op->next = q->free_ops;
    q->free_ops = op;
    q->ops_busy--;
    disk_queue_add(wait ? &q->flushing : &q->finished, request);
}

static void get_stuck(struct qcow2 *q, struct qcow2_op *op)
{
    op->stuck = true;
    op->next = NULL;
    *q->stuck.end = op;
    q->stuck.end = &op->next;
}

static int step(struct qcow2 *q, struct qcow2_op *op)
{
    if (op->request->op == DISK_READ)
        return qcow2_step_read(q, op);
    if (q->corrupt)
        return -EIO;
    return op->request->op == DISK_WRITE ? qcow2_step_write(q, op) : qcow2_step_zeroes(q, op);
}

static void go_on(struct qcow2 *q, struct qcow2_op *op)
{
    op->running = true;
    while (op->result == 0 && op->at < op->request->length) {
        int r = step(q, op);
        if (r == 0) {
            op->running = false;
            get_stuck(q, op);
            return;
        }
        if (r < 0)
            op->result = r;
    }
    op->running = false;
    if (!op->pending)
        finish_op(q, op);
}

void qcow2_op_start(struct qcow2 *q, struct qcow2_op *op, struct disk_request *request)
{
    op->request = request;
    op->at = 0;
    op->pending = 0;
    op->result = 0;
    op->stuck = op->mapped = false;
    op->own.op = NULL;
    go_on(q, op);
}

/* Its op may end with it, but not from within a step of that op. */
void qcow2_part_end(struct qcow2 *q, struct qcow2_part *part, int result)
{
    struct qcow2_op *op = part->op;

    if (part->iov && part->iov != part->inline_iov)
        free(part->iov);
    if (part->link) {
        *part->link = part->next;
        if (part->next)
            part->next->link = part->link;
    }
    q->under_way[part->parity]--;
    part->op = NULL;
    if (part != &op->own) {
        part->next = q->free_parts;
        q->free_parts = part;
    }
    q->retry |= q->stuck.first != NULL;
    if (result < 0 && op->result == 0)
        op->result = result;
    op->pending--;
    if (!op->pending && !op->stuck && !op->running)
        finish_op(q, op);
}

static void retry(struct qcow2 *q)
{
    struct qcow2_op *op = q->stuck.first;

    q->retry = false;
    q->stuck.first = NULL;
    q->stuck.end = &q->stuck.first;
    while (op) {
        struct qcow2_op *next = op->next;
        op->stuck = false;
        go_on(q, op);
        op = next;
    }
}

struct qcow2_scratch *qcow2_scratch_take(struct qcow2 *q, struct qcow2_scratches *scratches)
{
    struct qcow2_scratch *scratch = scratches->free;

    if (scratch) {
        scratches->free = scratch->next;
        return scratch;
    }
    if (scratches->made == scratches->most)
        return NULL;
    scratch = calloc(1, sizeof(*scratch));
    if (!scratch)
        return NULL;
    size_t unit = QCOW2_UNIT, room = (2 * q->cluster_size + 3 * unit - 1) & ~(unit - 1);
    scratch->buffer = aligned_alloc(QCOW2_UNIT, room);
    scratch->ops = scratches->growing ? calloc(2, sizeof(*scratch->ops)) : NULL;
    if (!scratch->buffer || (scratches->growing && !scratch->ops)) {
        free(scratch->buffer);
        free(scratch->ops);
        free(scratch);
        return NULL;
    }
    scratches->made++;
    return scratch;
}

void qcow2_scratch_give(struct qcow2 *q, struct qcow2_scratches *scratches,
                        struct qcow2_scratch *scratch)
{
    scratch->next = scratches->free;
    scratches->free = scratch;
    q->retry |= q->stuck.first != NULL;
}

/* The disk. */

static struct qcow2_op *take_op(struct qcow2 *q)
{
    struct qcow2_op *op = q->free_ops;

    if (op)
        q->free_ops = op->next;
    else if (q->ops_made < QCOW2_MOST_OPS)
        op = &q->ops[q->ops_made++];
    else
        return NULL;
    q->ops_busy++;
    return op;
}

static void qcow2_submit(struct disk *disk, struct disk_request *request)
{
    struct qcow2 *q = qcow2_of(disk);
    bool changes = request->op != DISK_READ && request->op != DISK_FLUSH;

    request->private[0] = changes && !q->writable ? EROFS : 0;
    if (request->private[0] || (request->op == DISK_FLUSH && !q->writable)) {
        disk_queue_add(&q->finished, request);
        return;
    }
    if (request->op == DISK_FLUSH) {
        request->private[1] = q->commit.started + 1;
        disk_queue_add(&q->flushing, request);
        return;
    }
    struct qcow2_op *op = q->waiting.first ? NULL : take_op(q);
    if (op)
        qcow2_op_start(q, op, request);
    else
        disk_queue_add(&q->waiting, request);
}

static void tell(struct qcow2 *q)
{
    for (struct disk_request *request; (request = disk_queue_take(&q->finished));)
        request->done(request, -(int)request->private[0]);
}

/* Until nothing more can be done without waiting. */
void qcow2_serve(struct qcow2 *q)
{
    bool more;

    do {
        struct qcow2_op *op;
        while (q->waiting.first && (op = take_op(q)))
            qcow2_op_start(q, op, disk_queue_take(&q->waiting));
        if (q->retry) {
            qcow2_link_waiting(q);
            retry(q);
        }
        if (q->writable)
            qcow2_commit_serve(q);
        more = q->submitted;
        q->submitted = false;
        if (more) {
            disk_kick(q->data);
            if (q->backing)
                disk_kick(q->backing);
        }
        tell(q);
        more = q->submitted || q->retry || q->finished.first ||
               ((q->flushing.first || q->commit.wanted) && q->commit.phase == QCOW2_IDLE) ||
               (q->waiting.first && q->free_ops);
    } while (more);
}

static void qcow2_kick(struct disk *disk)
{
    qcow2_serve(qcow2_of(disk));
}

/* What engine and backing disk tell by themselves. */

static void handle_begin(void *ctx)
{
    struct qcow2 *q = ctx;
    q->client.begin(q->client.ctx);
}

static void handle_end(void *ctx)
{
    struct qcow2 *q = ctx;
    qcow2_serve(q);
    q->client.end(q->client.ctx);
}

static void handle_trouble(void *ctx, const char *sentence)
{
    const struct qcow2 *q = ctx;
    disk_tell_trouble(&q->client, sentence);
}

static void handle_timer(void *arg)
{
    struct qcow2 *q = arg;

    q->timer_armed = false;
    q->commit.wanted = qcow2_commit_pending(q);
    q->client.begin(q->client.ctx);
    qcow2_serve(q);
    q->client.end(q->client.ctx);
}

/* Those that have parts under way end with them. */
static void cancel_stuck(struct qcow2 *q)
{
    struct qcow2_op *op = q->stuck.first;

    q->stuck.first = NULL;
    q->stuck.end = &q->stuck.first;
    while (op) {
        struct qcow2_op *next = op->next;
        op->stuck = false;
        if (op->result == 0)
            op->result = -ECANCELED;
        if (!op->pending)
            finish_op(q, op);
        op = next;
    }
}

/* Flushes of the round that runs end with it. */
static void cancel_waiting(struct qcow2 *q)
{
    struct disk_queue all;
    struct disk_request *request;

    disk_queue_init(&all);
    disk_queue_join(&all, &q->flushing);
    while ((request = disk_queue_take(&all))) {
        bool begun = request->private[1] <= q->commit.started;
        request->private[0] = begun ? 0 : ECANCELED;
        disk_queue_add(begun ? &q->flushing : &q->finished, request);
    }
    while ((request = disk_queue_take(&q->waiting))) {
        request->private[0] = ECANCELED;
        disk_queue_add(&q->finished, request);
    }
}

static void qcow2_cancel(struct disk *disk)
{
    struct qcow2 *q = qcow2_of(disk);

    cancel_waiting(q);
    cancel_stuck(q);
    disk_cancel(q->data);
    if (q->backing)
        disk_cancel(q->backing);
    qcow2_serve(q);
}

static bool is_busy(const struct qcow2 *q)
{
    return q->ops_busy || q->waiting.first || q->finished.first || q->flushing.first ||
           q->submitted || q->retry || q->commit.phase != QCOW2_IDLE || q->commit.punching;
}

/* And all that is known is in the file then. */
static void qcow2_drain(struct disk *disk)
{
    struct qcow2 *q = qcow2_of(disk);
    bool tried = false;

    for (;;) {
        qcow2_serve(q);
        disk_drain(q->data);
        if (q->backing)
            disk_drain(q->backing);
        if (is_busy(q))
            continue;
        if (!q->writable || !qcow2_commit_pending(q) || (tried && q->commit.error))
            break;
        tried = q->commit.wanted = true;
    }
    if (q->loop)
        loop_timer_cancel(&q->timer);
    q->timer_armed = false;
}

static void qcow2_detach(struct disk *disk)
{
    struct qcow2 *q = qcow2_of(disk);

    if (q->loop)
        loop_timer_cancel(&q->timer);
    q->timer_armed = false;
    q->loop = NULL;
    disk_detach(q->data);
    if (q->backing)
        disk_detach(q->backing);
}

static int qcow2_attach(struct disk *disk, struct loop *loop, const struct disk_client *client,
                        struct err *err)
{
    struct qcow2 *q = qcow2_of(disk);
    const struct disk_client own = {
        .begin = handle_begin, .end = handle_end, .trouble = handle_trouble, .ctx = q};

    int r = disk_attach(q->data, loop, &own, err);
    if (r == 0 && q->backing)
        r = disk_attach(q->backing, loop, &own, err);
    if (r < 0) {
        qcow2_detach(disk);
        return r;
    }
    loop_timer_init(&q->timer, loop, handle_timer, q);
    q->client = *client;
    q->loop = loop;
    if (qcow2_commit_pending(q))
        qcow2_commit_later(q);
    return 0;
}

/* The file goes back to what is used of it. Longer is no fault. */
static void shrink(const struct qcow2 *q)
{
    uint64_t end = q->tail << q->cluster_bits;

    if (!q->data || !q->writable || q->device || qcow2_commit_pending(q))
        return;
    if (end < q->first_end)
        end = q->first_end;
    if (end < q->file_end && ftruncate(q->fd, (off_t)end) < 0)
        return;
}

static void free_scratches(struct qcow2_scratches *scratches)
{
    for (struct qcow2_scratch *scratch; (scratch = scratches->free);) {
        scratches->free = scratch->next;
        free(scratch->buffer);
        free(scratch->ops);
        free(scratch);
    }
}

static void qcow2_destroy(struct disk *disk)
{
    struct qcow2 *q = qcow2_of(disk);

    shrink(q);
    disk_destroy(q->data);
    disk_destroy(q->backing);
    qcow2_inflate_finish(q);
    qcow2_commit_finish(q);
    free_scratches(&q->growth);
    free_scratches(&q->inflation);
    qcow2_table_finish(&q->l1);
    qcow2_table_finish(&q->refcounts);
    qcow2_cache_finish(&q->cache);
    free(q->snapshot_tables);
    free(q->metadata.slots);
    if (q->zeroes)
        munmap(q->zeroes, QCOW2_MAX_CLUSTER);
    free(q->ops);
    free(q->parts);
    free(q->header);
    free(q->path);
    free(q);
}

static const struct disk_ops ops = {
    .name = "qcow2",
    .attach = qcow2_attach,
    .detach = qcow2_detach,
    .submit = qcow2_submit,
    .kick = qcow2_kick,
    .cancel = qcow2_cancel,
    .drain = qcow2_drain,
    .zeroes_cost = qcow2_zeroes_cost,
    .destroy = qcow2_destroy,
};

int qcow2_create(struct qcow2 **ret, struct err *err)
{
    struct qcow2 *q = calloc(1, sizeof(*q));

    if (!q)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot set up disk I/O");
    q->disk.ops = &ops;
    q->fd = -1;
    disk_queue_init(&q->waiting);
    disk_queue_init(&q->finished);
    disk_queue_init(&q->flushing);
    q->stuck.end = &q->stuck.first;
    void *zeroes = mmap(NULL, QCOW2_MAX_CLUSTER, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    q->zeroes = zeroes == MAP_FAILED ? NULL : zeroes;
    q->header = aligned_alloc(QCOW2_UNIT, QCOW2_UNIT);
    q->ops = calloc(QCOW2_MOST_OPS, sizeof(*q->ops));
    q->parts = calloc(QCOW2_MOST_OPS, sizeof(*q->parts));
    if (!q->zeroes || !q->header || !q->ops || !q->parts) {
        qcow2_destroy(&q->disk);
        return err_sys(err, ERR_HOST, ENOMEM, "cannot set up disk I/O");
    }
    *ret = q;
    return 0;
}
