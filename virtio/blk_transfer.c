/* SPDX-License-Identifier: MIT */
/*
 * Reads and writes of the firmware: beside the rings, through the same disk, so that limits and
 * whatever else stands before the disk count for them too. A disk belongs to the device's loop, so
 * the request is made there, and the caller waits.
 */
#include "core/iov.h"
#include "virtio/blk_parts.h"

struct transfer {
    struct blk *blk;
    struct disk_request request;
    struct loop_call call;
    pthread_mutex_t lock;
    pthread_cond_t ended;
    bool done;
    int result;
};

static void handle_done(struct disk_request *request, int result)
{
    struct transfer *transfer = container_of(request, struct transfer, request);

    pthread_mutex_lock(&transfer->lock);
    transfer->done = true;
    transfer->result = result;
    pthread_cond_signal(&transfer->ended);
    pthread_mutex_unlock(&transfer->lock);
}

/* On the device's loop. The kick may end requests of the rings as well. */
static void handle_begin(void *arg)
{
    struct blk *blk = ((struct transfer *)arg)->blk;

    virtio_lock(&blk->virtio);
    disk_submit(blk->disk, &((struct transfer *)arg)->request);
    disk_kick(blk->disk);
    blk_settle(blk);
    virtio_unlock(&blk->virtio);
}

int blk_transfer(struct blk *blk, enum disk_op op, uint64_t offset, const struct iovec *iov,
                 unsigned count)
{
    struct transfer transfer = {
        .blk = blk,
        .request = {.op = op,
                    .offset = offset,
                    .length = iov_size(iov, count),
                    .iov = iov,
                    .iov_count = count,
                    .done = handle_done},
        .call = {.handle = handle_begin, .arg = &transfer},
    };

    pthread_mutex_init(&transfer.lock, NULL);
    pthread_cond_init(&transfer.ended, NULL);
    loop_post(blk->virtio.loop, &transfer.call);
    pthread_mutex_lock(&transfer.lock);
    while (!transfer.done)
        pthread_cond_wait(&transfer.ended, &transfer.lock);
    pthread_mutex_unlock(&transfer.lock);
    pthread_cond_destroy(&transfer.ended);
    pthread_mutex_destroy(&transfer.lock);
    return transfer.result;
}
