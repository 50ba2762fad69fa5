/* SPDX-License-Identifier: MIT */
/* The copy of a disk from inside: only for disk_point*.c. All on the disk's loop, but where said.
 */
#pragma once

#include "host/disk_point.h"
#include "host/disk_queue.h"
#include <pthread.h>
#include <stdatomic.h>

enum {
    COPY_LANES = 16,
    COPY_LANE_BYTES = 256 << 10,
    COPY_WORD = 64, /* bits */
};

struct point {
    struct disk disk;
    struct disk *inner;
    int image;
    bool has_holes; /* of which the image's file can tell */
    struct loop *loop;
    struct disk_client client;
    struct disk_copy *copy;   /* NULL: all passes */
    struct disk_watch *watch; /* host/disk_watch.h; NULL: nobody wants to know */
};

/* In the row of a disk; NULL: there is none. */
struct point *point_find(struct disk *disk);

/* What is to be submitted in its place. */
struct disk_request *watch_wrap(struct disk_watch *watch, struct disk_request *request);

struct lane {
    struct disk_request request;
    struct disk_copy *copy;
    struct iovec iov;
    uint8_t *buffer;
    uint64_t first, count; /* clusters */
    uint64_t at, end;      /* bytes of the disk that are not in the target yet */
    bool busy, reads, again, background;
};

struct disk_copy {
    struct point *point;
    struct disk *target;
    struct disk_copy_handlers handlers;
    pthread_mutex_t lock;
    bool started;           /* until it has ended. By the loop's thread under the lock */
    bool stop;              /* under the lock */
    struct loop_timer turn; /* always armed while the copy runs, so that arming cannot fail */
    bool settled;           /* what was under way at the start has ended */
    bool complete;          /* flushed */
    int result;             /* the first failure; nothing is begun any more */
    bool moved;             /* something was submitted, or may go on */
    unsigned seen;          /* of the guest's requests, since the last turn */

    uint64_t *map;
    size_t map_size;
    unsigned shift;
    uint64_t clusters;
    uint64_t next;              /* all before it have their bit, or a lane that reads them */
    uint64_t data_end;          /* before it the file has no hole, from `next` on */
    _Atomic uint64_t bytes;     /* that are in the target */
    struct disk_queue waiting;  /* private[0]: all clusters before this one have their bit */
    struct disk_queue unneeded; /* discards */
    struct disk_request flush;  /* of the target */
    bool flushing;
    uint64_t unflushed; /* bytes */

    struct lane lanes[COPY_LANES];
    unsigned busy, reading, background; /* lanes */
    uint8_t *buffers;
};

static inline uint64_t copy_first_cluster(const struct disk_copy *copy,
                                          const struct disk_request *request)
{
    return request->offset >> copy->shift;
}

static inline uint64_t copy_end_cluster(const struct disk_copy *copy,
                                        const struct disk_request *request)
{
    return ((request->offset + request->length - 1) >> copy->shift) + 1;
}

static inline uint64_t copy_offset_of(const struct disk_copy *copy, uint64_t cluster)
{
    uint64_t offset = cluster << copy->shift;
    return offset < copy->point->disk.info.size ? offset : copy->point->disk.info.size;
}

static inline bool copy_is_read(const struct disk_copy *copy, uint64_t cluster)
{
    return copy->map[cluster / COPY_WORD] >> cluster % COPY_WORD & 1;
}

/* The map and the lanes (disk_point_lanes.c). */

/* The first cluster in [from, end) without its bit; or end. */
uint64_t copy_find_unread(const struct disk_copy *copy, uint64_t from, uint64_t end);
void copy_set_read(struct disk_copy *copy, uint64_t from, uint64_t end);
/* The lane that is just reading this cluster, or NULL. */
const struct lane *copy_find_reader(const struct disk_copy *copy, uint64_t cluster);
/* How many clusters, from an unread one on and before `end`, a lane can take. */
uint64_t copy_count_unread(const struct disk_copy *copy, uint64_t first, uint64_t end);
/* Before: a lane is free. */
void copy_start_lane(struct disk_copy *copy, uint64_t first, uint64_t count, bool background);
/* What a cancel has taken from lanes. */
void copy_read_again(struct disk_copy *copy);
void copy_want_turn(struct disk_copy *copy); /* of its own, soon */
void copy_fail(struct disk_copy *copy, int result);

/* What is done with them (disk_point_copy.c). */

void copy_submit(struct disk_copy *copy, struct disk_request *request); /* a guest's */
void copy_serve(struct disk_copy *copy); /* all that can go on now, until nothing can */
/* What was under way at the start has ended. */
void copy_settle(struct disk_copy *copy);
/* Ends it at once, whatever is under way: nothing runs beside us. */
void copy_abort(struct disk_copy *copy, int result);
void copy_handle_turn(void *arg);
