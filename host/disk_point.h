/* SPDX-License-Identifier: MIT */
/*
 * A disk before another one, that can give a copy of it as it was at one moment, while its guest
 * goes on writing. Until then all passes untouched.
 */
#pragma once

#include "host/disk.h"

/* Takes over `inner`, a disk of the image at `path`, also on failure. */
int disk_point_create(struct disk **ret_disk, struct disk *inner, const char *path,
                      struct err *err) must_check;

/* The image's file, open for reading, for as long as the disk is; -1: there is no point in `disk`'s
 * row (disk_ops.inner). (any thread) */
int disk_point_image(struct disk *disk);

struct disk_copy;

struct disk_copy_handlers {
    /* 0: all of it is in the target, on stable storage. -ECANCELED: stopped, or the disk was
     * detached. Else what failed: the guest has felt nothing of it. Once, as the last thing that
     * the disk's loop (or whoever detaches) does with the copy. */
    void (*ended)(void *ctx, int result);
    void *ctx;
};

/*
 * Sets up all that a copy needs, but begins nothing. `disk` has a point in its row; `target` is a
 * disk of the same size, empty, and taken over, also on failure: closed before `ended` is called.
 * -ENOMEM, -EBUSY: sizes differ. (any thread)
 */
int disk_copy_create(struct disk_copy **ret_copy, struct disk *disk, struct disk *target,
                     const struct disk_copy_handlers *handlers, struct err *err) must_check;

/*
 * The moment is now: the disk's loop stands still, or it is its thread. What the guest has
 * submitted by now, and has not been told the end of, may be in the copy, as after a power cut;
 * nothing that it submits later. One copy of a disk at a time: -EBUSY.
 */
int disk_copy_start(struct disk_copy *copy, struct err *err) must_check;

void disk_copy_stop(struct disk_copy *copy);            /* `ended` follows (any thread) */
uint64_t disk_copy_bytes(const struct disk_copy *copy); /* that are done (any thread) */

/* One that was not started, or has ended, or could not be started. NULL is fine. */
void disk_copy_destroy(struct disk_copy *copy);
