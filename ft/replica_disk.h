/* SPDX-License-Identifier: MIT */
/*
 * What a VM writes to its disks, in order, so that others can hold the same (host/disk_tap.h says
 * when it is told).
 *
 *   follow    from here on changes are noted: while the machine stands still, and nothing is under
 *             way
 *   cut       the machine stands still: what was noted up to here is of one epoch, and leaves
 *   send      any thread: what was cut goes to the link
 *   unfollow
 *
 * Changes wait in two pieces of memory, one that fills and one that leaves. When the first one is
 * full, the guest's writes wait, until the next cut.
 */
#pragma once

#include "ft/moving.h"
#include "host/disk.h"

struct replica_disk;

struct replica_disk_config {
    size_t budget; /* bytes of each piece; REPLICA_LEAST or more */
    /* Something has to wait, or will have to before long: a cut would help. On a disk's thread, and
     * must not block. */
    void (*presses)(void *ctx);
    void *ctx;
};

enum { REPLICA_LEAST = 64 << 20 }; /* room for a few of a guest's largest requests */

int replica_disk_create(struct replica_disk **ret_replica, const struct replica_disk_config *config,
                        struct err *err) must_check;
void replica_disk_destroy(struct replica_disk *replica); /* follows none; NULL is fine */

/* A disk with a tap in its row; `place` of vm.json. */
int replica_disk_follow(struct replica_disk *replica, struct disk *disk, uint32_t place,
                        struct err *err) must_check;
/* None any more; what was noted is forgotten. The machine stands still. */
void replica_disk_unfollow(struct replica_disk *replica);

/* What was cut before has been sent. */
void replica_disk_cut(struct replica_disk *replica);
/* Each BLOCKS frame is written by `put`, which owns the link (ft/departure.h). */
struct replica_disk_sink {
    int (*put)(void *ctx, const struct moving_block *block, struct err *err);
    void *ctx;
};
int replica_disk_send(struct replica_disk *replica, const struct replica_disk_sink *sink,
                      struct err *err) must_check;

uint64_t replica_disk_held(struct replica_disk *replica); /* bytes noted that have not left */
