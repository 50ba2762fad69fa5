/* SPDX-License-Identifier: MIT */
/*
 * The inside of a qcow2 image; disk_qcow2.c says what the format is and how the parts play
 * together. Only disk_qcow2*.c includes this. All of it runs on the disk's loop thread.
 */
#pragma once

#include "host/disk_file.h"
#include "host/disk_qcow2_cache.h"
#include "host/disk_qcow2_commit.h"
#include "host/disk_queue.h"

enum {
    QCOW2_MAX_CLUSTER = 2 << 20,
    QCOW2_MOST_OPS = 256,
    QCOW2_INLINE_IOV = 18,
    QCOW2_INFLATED = 4,     /* decompressed clusters that are kept */
    QCOW2_MOST_LAYERS = 16, /* of a chain */
};

#define QCOW2_COPIED     (1ull << 63)
#define QCOW2_COMPRESSED (1ull << 62)
#define QCOW2_ZERO       1ull
#define QCOW2_OFFSET     0x00fffffffffffe00ull

struct qcow2;

/* A request that is carried out in parts. */
struct qcow2_op;

/* A part of a request: one call of an engine, or of the backing disk, with what is to be done
 * after it. */
struct qcow2_part {
    struct disk_request request;
    struct qcow2_op *op;
    void (*handle)(struct qcow2 *q, struct qcow2_part *part, int result);
    uint8_t parity; /* of the epoch in which it began */
    bool own;       /* the one that lies in its op */
    bool reuse;     /* growing: into clusters that were allocated already */
    /* Growing: clusters `guest` and on get a place at `host`. Inflating: host is the descriptor. */
    uint64_t guest, host, count;
    struct qcow2_scratch *scratch;
    struct qcow2_part *next, **link; /* free, unlinked; growing */
    struct qcow2_part *next_unlinked;
    uint64_t at, length; /* inflating: the op's bytes */
    struct iovec *iov;   /* inline_iov, or from malloc; NULL: none */
    struct iovec inline_iov[QCOW2_INLINE_IOV];
};

struct qcow2_op {
    struct disk_request *request;
    uint64_t at; /* bytes of it that are done or under way */
    unsigned pending;
    int result;
    bool running;  /* in a step */
    bool stuck;    /* in q->stuck: waits for something that others have */
    bool internal; /* a read of our own: told at once */
    bool mapped;   /* mappings have changed: with write-through it is done when those are written */
    struct qcow2_op *next;
    struct qcow2_part own;
};

struct qcow2_op_queue {
    struct qcow2_op *first, **end;
};

/* What growing and inflating parts need beside: a few of each kind. */
struct qcow2_scratch {
    struct qcow2_scratch *next;
    uint8_t *buffer;         /* 2 clusters and 2 units */
    struct qcow2_part *part; /* growing: reads of the old bytes before and behind the new ones */
    struct qcow2_op *ops;    /* 2 */
    struct disk_request reads[2];
    struct iovec iov[2];
    unsigned pending;
    int result;
};

struct qcow2_scratches {
    struct qcow2_scratch *free;
    unsigned made, most;
    bool growing;
};

enum qcow2_type {
    QCOW2_IS_HOLE, /* of the backing disk, or zeroes */
    QCOW2_IS_ZERO,
    QCOW2_IS_ZERO_KEPT, /* zeroes, with a place in the file */
    QCOW2_IS_DATA,
    QCOW2_IS_COMPRESSED,
};

struct qcow2_extent {
    enum qcow2_type type;
    bool copied;   /* DATA, ZERO_KEPT: the place is ours alone */
    uint64_t host; /* where the first byte is; COMPRESSED: the descriptor */
    uint64_t length;
};

struct qcow2 {
    struct disk disk;
    struct disk *data;    /* the image file through an engine, which owns its descriptor */
    struct disk *backing; /* NULL: none */
    int fd;
    bool device, direct, unmap;
    uint32_t length_align;
    char *path;

    bool v3, writable, corrupt, zstd;
    bool told; /* somebody, of what is wrong with it */
    uint8_t cluster_bits, refcount_order;
    uint64_t cluster_size;
    uint8_t *header; /* its first unit, as it is in the file */
    bool header_dirty, table_moved;
    uint32_t snapshots;
    uint64_t snapshots_offset, snapshots_length;
    struct qcow2_free *snapshot_tables; /* first: offset of an L1 table, count: its entries */
    struct qcow2_table l1, refcounts;
    struct qcow2_cache cache;
    struct qcow2_set metadata; /* clusters with L2 tables, refcount blocks, tables of snapshots */
    uint8_t *zeroes;           /* QCOW2_MAX_CLUSTER bytes that are never touched */

    uint64_t file_end, first_end; /* bytes: now, and when it was opened */
    uint64_t cursor;              /* clusters below are taken, as far as we know */
    uint64_t tail;                /* clusters from here on were never used by us */

    struct qcow2_commit commit;
    unsigned epoch, under_way[2]; /* parts, by epoch's parity */

    struct disk_queue waiting;  /* for a free op */
    struct disk_queue finished; /* to be told; private[0]: -result */
    struct disk_queue flushing; /* private[0]: -result, [1]: the round that is waited for */
    struct qcow2_op_queue stuck;
    struct qcow2_part *unlinked, *growing; /* written, and waiting for room; growing */
    bool retry;                            /* stuck ones may go on */
    bool submitted;                        /* to data or backing, since they were kicked */
    unsigned ops_made, parts_made, ops_busy;
    struct qcow2_op *ops, *free_ops;
    struct qcow2_part *parts, *free_parts;
    struct qcow2_scratches growth, inflation;
    struct {
        uint64_t descriptor; /* 0: none */
        uint8_t *bytes;
    } inflated[QCOW2_INFLATED];
    unsigned next_inflated;
    void *inflater; /* of zlib or libzstd */

    struct loop *loop; /* NULL: detached */
    struct disk_client client;
    struct loop_timer timer;
    bool timer_armed;
};

/* disk_qcow2.c: the life of a request. */
int qcow2_create(struct qcow2 **ret, struct err *err) must_check; /* not open; for disk_destroy */
void qcow2_op_start(struct qcow2 *q, struct qcow2_op *op, struct disk_request *request);
struct qcow2_part *qcow2_part_take(struct qcow2 *q, struct qcow2_op *op);
struct iovec *qcow2_part_iov(struct qcow2_part *part, unsigned count); /* NULL: no memory */
/* `part->request` is filled in but for done. */
void qcow2_part_go(struct qcow2 *q, struct qcow2_part *part, struct disk *disk);
void qcow2_part_end(struct qcow2 *q, struct qcow2_part *part, int result);
struct qcow2_scratch *qcow2_scratch_take(struct qcow2 *q, struct qcow2_scratches *scratches);
void qcow2_scratch_give(struct qcow2 *q, struct qcow2_scratches *scratches,
                        struct qcow2_scratch *scratch);
void qcow2_serve(struct qcow2 *q);

/* What a request's next bytes need. 1: done or under way; 0: stuck; -errno. */
int qcow2_step_read(struct qcow2 *q, struct qcow2_op *op);
int qcow2_step_write(struct qcow2 *q, struct qcow2_op *op);
int qcow2_step_zeroes(struct qcow2 *q, struct qcow2_op *op);
int qcow2_grow(struct qcow2 *q, struct qcow2_op *op, const struct qcow2_extent *extent);
int qcow2_pass(struct qcow2 *q, struct qcow2_op *op, struct disk *disk, uint64_t offset,
               uint64_t length);
void qcow2_inflate_finish(struct qcow2 *q);
void qcow2_link_waiting(struct qcow2 *q); /* those that waited for room */
uint64_t qcow2_zeroes_cost(struct disk *disk, const struct disk_request *request);
bool qcow2_is_growing(const struct qcow2 *q, uint64_t offset, uint64_t length);

/* disk_qcow2_open.c */
int qcow2_header_write(struct qcow2 *q) must_check; /* and it is on stable storage */
/* The image says so from now on, and a person hears what: "its L1 table is damaged". -EIO */
int qcow2_corrupt(struct qcow2 *q, const char *what);

/* disk_qcow2_repair.c: counts all references, and sets refcounts and flags to what is found. */
int qcow2_repair(struct qcow2 *q) must_check;
