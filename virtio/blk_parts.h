/* SPDX-License-Identifier: MIT */
/* The inside of the block device: blk.c is the device, blk_request.c the way of one request,
 * blk_stats.c what is counted of it. */
#pragma once

#include "core/pace.h"
#include "virtio/blk.h"

enum {
    BLK_SECTOR = 512,
    /* Of one discard or write zeroes. Where zeroes must be written a range takes as long as a write
     * of its size. */
    BLK_MAX_RANGES = 16,
    BLK_MAX_DISCARD_SECTORS = (1 << 30) / BLK_SECTOR,
    BLK_MAX_ZEROES_SECTORS = (64 << 20) / BLK_SECTOR,

    /* Of one read or write. Far more than drivers ask for (Linux: 1.25 MiB), and as much as a guest
     * may keep us busy with at a stretch: its segments may all be the same page. */
    BLK_MAX_BYTES = 32 << 20,

    BLK_MAX_SEGMENTS = BLK_QUEUE_SIZE, /* vring's own rule: header and status too */
    BLK_FEW_SEGMENTS = 6,
    BLK_HEAD_WORDS = BLK_QUEUE_SIZE / 64,
};

#define BLK_F_SEG_MAX      (1ull << 2)
#define BLK_F_RO           (1ull << 5)
#define BLK_F_BLK_SIZE     (1ull << 6)
#define BLK_F_FLUSH        (1ull << 9)
#define BLK_F_TOPOLOGY     (1ull << 10)
#define BLK_F_CONFIG_WCE   (1ull << 11)
#define BLK_F_MQ           (1ull << 12)
#define BLK_F_DISCARD      (1ull << 13)
#define BLK_F_WRITE_ZEROES (1ull << 14)

/* 5.2.4, little-endian. */
struct blk_space {
    uint64_t capacity; /* sectors */
    uint32_t size_max;
    uint32_t seg_max;
    uint16_t cylinders;
    uint8_t heads;
    uint8_t sectors;
    uint32_t blk_size;
    uint8_t physical_block_exp;
    uint8_t alignment_offset;
    uint16_t min_io_size;
    uint32_t opt_io_size;
    uint8_t writeback;
    uint8_t unused0;
    uint16_t num_queues;
    uint32_t max_discard_sectors;
    uint32_t max_discard_seg;
    uint32_t discard_sector_alignment;
    uint32_t max_write_zeroes_sectors;
    uint32_t max_write_zeroes_seg;
    uint8_t write_zeroes_may_unmap;
    uint8_t unused1[3];
    uint32_t reserved; /* ours: the guest does not see it */
};

struct blk_state {
    struct virtio_state virtio;
    struct blk_space space;
    uint64_t in_flight[BLK_MAX_QUEUES * BLK_HEAD_WORDS]; /* a bit for each head of each queue */
};

enum { BLK_OTHER = BLK_KINDS }; /* a kind that is not counted */

/* What blk_stats() tells. Written with the device's lock held. */
struct blk_counters {
    struct counter bytes, errors;
    struct histogram latency;
};

/* A request that was answered, and is to be counted. */
struct blk_ended {
    uint64_t began_ns;
    uint8_t kind;
    bool failed;
};

struct blk_request {
    struct disk_request disk;
    struct blk *blk;
    uint8_t *status;   /* in guest memory */
    struct iovec *iov; /* data, and the status after it: `few`, or the pool's for this request */
    unsigned data_count;
    uint16_t queue, head;
    bool reads;         /* the data is for the guest */
    uint8_t next_range; /* of discard and write zeroes */
    uint8_t kind;
    uint64_t done_bytes; /* counted when it ends: a pause may have it begin anew */
    uint64_t began_ns;
    uint64_t data_bytes;
    uint64_t room; /* bytes that the guest lets us write before the status */
    struct blk_request *next_free;
    struct iovec few[BLK_FEW_SEGMENTS];
};

/* The firmware's one request, see blk_transfer.c. */
struct blk_transfer {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool busy, done, abandoned, interrupted, dropped;
    int result;
    struct disk_request request;
    struct iovec one;
    struct loop_call call;
    void *buffer;
    size_t room;
};

struct blk {
    struct virtio virtio;
    struct blk_state state;
    struct disk *disk;
    bool attached;
    struct blk_config config;

    /* Requests of ours: marked here, and in the state. */
    uint64_t mine[BLK_MAX_QUEUES * BLK_HEAD_WORDS];
    unsigned under_way;
    unsigned taken; /* requests in this turn */
    uint64_t taken_bytes;
    uint64_t now_ns; /* not long ago: when what is popped now begins */
    struct pace pace;
    bool forgetting;          /* what ends now, ends for nobody */
    struct loop_call give_up; /* posted by a driver's reset */
    uint32_t pushed;          /* a bit for each queue that has something to publish */

    struct blk_request *pool;
    struct iovec (*many)[BLK_MAX_SEGMENTS];  /* by the request's index */
    unsigned pool_size, pool_used;           /* of these some are free */
    struct blk_request *free;                /* the warmest first */
    struct iovec segments[BLK_MAX_SEGMENTS]; /* for popping */
    struct blk_transfer transfer;

    struct blk_counters counters[BLK_KINDS];
    unsigned ended_count;
    struct blk_ended ended[64];
};

/* The mark of a head: a bit in a word of `mine` or of the state's `in_flight`. */
static inline uint64_t blk_bit_of(unsigned head)
{
    return 1ull << head % 64;
}

static inline unsigned blk_word_of(unsigned queue, unsigned head)
{
    return queue * BLK_HEAD_WORDS + head / 64;
}

/* Whether a request of ours has this head. */
static inline bool blk_is_marked(const struct blk *blk, unsigned queue, unsigned head)
{
    return blk->mine[blk_word_of(queue, head)] & blk_bit_of(head);
}

void blk_transfer_init(struct blk *blk);
void blk_transfer_finish(struct blk *blk);
/* Machine paused, disk drained: a write that was given up before it began must not reach the disk
 * of another life. */
void blk_transfer_drop(struct blk *blk);

int blk_make_pool(struct blk *blk, struct err *err) must_check;
void blk_free_pool(struct blk *blk);

/* Counts those that have ended since the last call (blk_stats.c). */
void blk_count_ended(struct blk *blk);

/* What was pushed is shown, one interrupt for all of it, and counted. With the lock held. */
void blk_settle(struct blk *blk);

/*
 * Begins a request that was popped (or reopened). It may be finished when this returns: pushed, and
 * its queue noted in `pushed`. False: the guest broke a rule that leaves no way to answer.
 */
bool blk_take_in(struct blk *blk, unsigned queue, const struct vring_chain *chain) must_check;
