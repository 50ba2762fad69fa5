/* SPDX-License-Identifier: MIT */
/*
 * Before a disk: whoever wants to have the same disk elsewhere is told of each change, in order,
 * before it is made. Closed at first: then it costs a call.
 *
 * What was told of is made, or fails as disks do: while the tap is open a cancel does not reach it.
 * What waits was not told of: a cancel ends it in -ECANCELED, and so does a drain, which would wait
 * for ever. A device that stands still keeps such a request as part of its state, submits it again
 * when it goes on, here or elsewhere, and it is told of then.
 */
#pragma once

#include "host/disk.h"

struct disk_tap;

/* Takes over `inner`, also on failure. */
int disk_tap_create(struct disk **ret_disk, struct disk *inner, struct err *err) must_check;

/* Of a disk that one stands before somewhere in its row (disk_ops.inner); NULL: there is none. */
struct disk_tap *disk_tap_of(struct disk *disk);

struct disk_tap_handlers {
    /*
     * WRITE, DISCARD, ZEROES, FLUSH: on the disk's loop, at its submission, and must not block. The
     * bytes of a write are copied, if they are wanted. False: not now. It and all that comes after
     * it wait, reads too, until disk_tap_go_on.
     */
    bool (*change)(void *ctx, const struct disk_request *request);
    void *ctx;
};

/*
 * Who notes which parts of the disk have changed: asked first, also while the tap is closed, and
 * for as long as it is here. On the disk's loop, and must not block.
 */
struct disk_tap_guard {
    /* WRITE, DISCARD, ZEROES may begin. False: not now, as with change(). Asked again then, so that
     * more than one question may come before one passes. */
    bool (*allows)(void *ctx, const struct disk_request *request);
    /* It passes now, and is over, a flush too: it has what begins() said as its mark. */
    unsigned (*begins)(void *ctx);
    void (*ended)(void *ctx, unsigned mark, enum disk_op op, int result);
    void (*flushed)(void *ctx, unsigned number, int result); /* disk_tap_flush */
    void *ctx;
};

/* The disk's loop stands still. NULL: nobody. What waits is asked again then. */
void disk_tap_set_guard(struct disk_tap *tap, const struct disk_tap_guard *guard);
/* What has ended before this is on stable storage when flushed() is called with this number, or a
 * later one that takes its place. The guest is told of its error as of one of its own: once, and
 * whoever is under way. Any thread. */
void disk_tap_flush(struct disk_tap *tap, unsigned number);
/* A flush has failed since it was made, the guest's or ours: what was written before may be on no
 * disk for good, and still be read (the page cache has it, and takes it for clean). Any thread. */
bool disk_tap_has_lost(const struct disk_tap *tap);

/*
 * The disk's loop stands still. What is under way at the opening was not told of: drain before
 * where that matters. What waits at the closing goes on untold when the loop does (but told, if the
 * tap is open again by then).
 */
void disk_tap_open(struct disk_tap *tap, const struct disk_tap_handlers *handlers);
void disk_tap_close(struct disk_tap *tap);

void disk_tap_go_on(struct disk_tap *tap); /* what waits is told again. Any thread */
