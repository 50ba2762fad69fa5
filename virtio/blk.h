/* SPDX-License-Identifier: MIT */
/*
 * A disk for the guest (virtio 1.2, section 5.2), on a thread of its own. Requests under way at a
 * pause are part of the state: whoever loads it submits them again.
 */
#pragma once

#include "core/histogram.h"
#include "host/disk.h"
#include "virtio/virtio.h"

enum { BLK_MAX_QUEUES = 8, BLK_QUEUE_SIZE = 256 };

struct blk;

struct blk_config {
    const char *name;  /* of its thread: "disk0" */
    struct disk *disk; /* the caller's; attached to the device's loop; outlives it */
    unsigned queues;   /* 1..BLK_MAX_QUEUES */
    char serial[21];
    /* The host could not do what the guest asked (the guest gets an I/O error). On the device's
     * thread, for each such request: the far end limits what it says. NULL: nobody listens. */
    void (*failed)(void *ctx, enum disk_op op, uint64_t offset, int error);
    /* What the disk has to say beside that (disk_client). On the device's thread. NULL: likewise.
     */
    void (*trouble)(void *ctx, const char *sentence);
    void *ctx;
};

/*
 * For the firmware, which knows nothing of rings: reads or writes all of iov and waits for the end.
 * 0 or -errno; -ECANCELED while it is interrupted: all may have happened or not, and is to be asked
 * for again. On a vCPU's thread.
 */
int blk_transfer(struct blk *blk, enum disk_op op, uint64_t offset, const struct iovec *iov,
                 unsigned count);
/* The vCPUs are to stand still, or may wait again. (any thread) */
void blk_interrupt(struct blk *blk, bool interrupt);

int blk_create(struct blk **ret_blk, const struct virtio_world *world,
               const struct blk_config *config, struct err *err) must_check;
struct virtio *blk_virtio(struct blk *blk);

/* What drivers have asked for since the device was made, by kind; firmware's part is not in it. */
enum blk_kind {
    BLK_READS,
    BLK_WRITES,
    BLK_FLUSHES,
    BLK_DISCARDS, /* and writes of zeroes */
    BLK_KINDS,
};

struct blk_kind_stats {
    uint64_t bytes;  /* that went well */
    uint64_t errors; /* requests that were answered with one, whoever was to blame */
    struct histogram_reading latency; /* from the ring and back; has the count of requests */
};

struct blk_stats {
    struct blk_kind_stats of[BLK_KINDS];
};

void blk_stats(const struct blk *blk, struct blk_stats *ret_stats); /* (any thread) */
