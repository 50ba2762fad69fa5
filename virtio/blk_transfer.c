/* SPDX-License-Identifier: MIT */
/*
 * Reads and writes of the firmware: beside the rings, through the same disk, so that limits and
 * whatever else stands before the disk count for them too. A disk belongs to the device's loop, so
 * the request is made there, and the caller waits: one at a time, with a buffer of ours.
 *
 * A disk may take its time, a limited one as long as it likes, and the caller is a vCPU: a machine
 * that is to stand still does not wait for it. The caller gets -ECANCELED then, and asks again
 * when it runs; what it has begun ends in our buffer.
 */
#include "core/iov.h"
#include "virtio/blk_parts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 4096 };

static void finish_locked(struct blk_transfer *transfer)
{
    transfer->busy = transfer->done = transfer->abandoned = false;
    pthread_cond_broadcast(&transfer->changed);
}

static bool is_abandoned(struct blk_transfer *transfer)
{
    pthread_mutex_lock(&transfer->lock);
    bool abandoned = transfer->abandoned;
    pthread_mutex_unlock(&transfer->lock);
    return abandoned;
}

static void handle_done(struct disk_request *request, int result)
{
    struct blk_transfer *transfer = container_of(request, struct blk_transfer, request);
    const struct blk *blk = container_of(transfer, struct blk, transfer);

    /* A driver that resets the device takes back what it has asked for, not what others have. */
    if (result == -ECANCELED && !is_abandoned(transfer)) {
        disk_submit(blk->disk, request);
        return;
    }
    if (result < 0 && result != -ECANCELED && blk->config.failed)
        blk->config.failed(blk->config.ctx, request->op, request->offset, -result);
    pthread_mutex_lock(&transfer->lock);
    transfer->done = true;
    transfer->result = result;
    if (transfer->abandoned)
        finish_locked(transfer);
    else
        pthread_cond_broadcast(&transfer->changed);
    pthread_mutex_unlock(&transfer->lock);
}

/* On the device's loop. The kick may end requests of the rings as well. */
static void handle_begin(void *arg)
{
    struct blk *blk = arg;
    struct blk_transfer *transfer = &blk->transfer;

    pthread_mutex_lock(&transfer->lock);
    bool dropped = transfer->dropped;
    transfer->dropped = false;
    if (dropped)
        finish_locked(transfer);
    pthread_mutex_unlock(&transfer->lock);
    if (dropped)
        return;
    virtio_lock(&blk->virtio);
    disk_submit(blk->disk, &transfer->request);
    disk_kick(blk->disk);
    blk_settle(blk);
    virtio_unlock(&blk->virtio);
}

void blk_transfer_init(struct blk *blk)
{
    struct blk_transfer *transfer = &blk->transfer;

    pthread_mutex_init(&transfer->lock, NULL);
    pthread_cond_init(&transfer->changed, NULL);
    transfer->call = (struct loop_call){.handle = handle_begin, .arg = blk};
    transfer->request.done = handle_done;
}

void blk_transfer_finish(struct blk *blk)
{
    pthread_cond_destroy(&blk->transfer.changed);
    pthread_mutex_destroy(&blk->transfer.lock);
    free(blk->transfer.buffer);
}

void blk_interrupt(struct blk *blk, bool interrupt)
{
    struct blk_transfer *transfer = &blk->transfer;

    pthread_mutex_lock(&transfer->lock);
    transfer->interrupted = interrupt;
    pthread_cond_broadcast(&transfer->changed);
    pthread_mutex_unlock(&transfer->lock);
}

void blk_transfer_drop(struct blk *blk)
{
    pthread_mutex_lock(&blk->transfer.lock);
    blk->transfer.dropped = blk->transfer.busy;
    pthread_mutex_unlock(&blk->transfer.lock);
}

static bool make_room_locked(struct blk_transfer *transfer, size_t length)
{
    if (length <= transfer->room)
        return true;
    free(transfer->buffer);
    transfer->room = 0;
    transfer->buffer = aligned_alloc(ALIGNMENT, (length + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
    if (!transfer->buffer)
        return false;
    transfer->room = length;
    return true;
}

static int transfer_locked(struct blk *blk, enum disk_op op, uint64_t offset,
                           const struct iovec *iov, unsigned count)
{
    struct blk_transfer *transfer = &blk->transfer;
    size_t length = iov_size(iov, count);

    while (transfer->busy && !transfer->interrupted)
        pthread_cond_wait(&transfer->changed, &transfer->lock);
    if (transfer->interrupted)
        return -ECANCELED;
    if (!make_room_locked(transfer, length))
        return -ENOMEM;
    if (op == DISK_WRITE)
        iov_read(iov, count, 0, transfer->buffer, length);
    transfer->one = (struct iovec){.iov_base = transfer->buffer, .iov_len = length};
    transfer->request.op = op;
    transfer->request.offset = offset;
    transfer->request.length = length;
    transfer->request.iov = &transfer->one;
    transfer->request.iov_count = 1;
    transfer->busy = true;
    loop_post(blk->virtio.loop, &transfer->call);
    while (!transfer->done && !transfer->interrupted)
        pthread_cond_wait(&transfer->changed, &transfer->lock);
    if (!transfer->done) {
        transfer->abandoned = true;
        return -ECANCELED;
    }
    int result = transfer->result;
    if (result == 0 && op == DISK_READ)
        iov_write(iov, count, 0, transfer->buffer, length);
    finish_locked(transfer);
    return result;
}

int blk_transfer(struct blk *blk, enum disk_op op, uint64_t offset, const struct iovec *iov,
                 unsigned count)
{
    pthread_mutex_lock(&blk->transfer.lock);
    int result = transfer_locked(blk, op, offset, iov, count);
    pthread_mutex_unlock(&blk->transfer.lock);
    return result;
}
