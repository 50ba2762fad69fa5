/* SPDX-License-Identifier: MIT */
/*
 * What a guest writes to a disk is noted, so that a copy of it elsewhere can follow: clusters of
 * 64 KiB, one bit each. A bit is set when the write is done, before its guest hears of that: who
 * takes the bits first and reads the clusters afterwards misses nothing.
 */
#pragma once

#include "host/disk.h"

enum { DISK_WATCH_CLUSTER = 64 << 10 };

struct disk_watch;

/*
 * Of a disk with a point in its row (host/disk_point.h), of which nothing is under way: its loop
 * stands still, and it was drained. One watch at a time: -EBUSY.
 */
int disk_watch_start(struct disk_watch **ret_watch, struct disk *disk, struct err *err) must_check;

uint64_t disk_watch_clusters(const struct disk_watch *watch);

/*
 * Moves the bits that were set since the last time into `bitmap` (OR), and says how many there are
 * now. -ENOMEM: something was not noted. (any thread)
 */
int disk_watch_harvest(struct disk_watch *watch, uint64_t *bitmap, uint64_t *ret_count) must_check;

/*
 * Where data begins from `offset` on, as far as the image's file can tell; the disk's size: there
 * is none. (any thread)
 */
uint64_t disk_watch_next_data(struct disk_watch *watch, uint64_t offset);

enum { DISK_WATCH_READ = 1 << 20 }; /* at most, at once */

/*
 * Reads what the guest would; offset and length are multiples of the block size. still: the disk's
 * loop stands still, and whoever made it so is the caller. Else any thread but the loop's own, one
 * at a time; waits, for as long as the machine is paused, too. -ECANCELED: after an abort.
 */
int disk_watch_read(struct disk_watch *watch, uint64_t offset, void *to, size_t length,
                    bool still) must_check;

void disk_watch_abort(struct disk_watch *watch); /* (any thread) NULL is fine */

/* The disk's loop stands still. The watch is gone for the caller. NULL is fine. */
void disk_watch_stop(struct disk_watch *watch);
