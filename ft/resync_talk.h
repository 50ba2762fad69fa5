/* SPDX-License-Identifier: MIT */
/*
 * What is said of disks that both sides have already (ft/changes.h says where they may differ),
 * beside what following has (ft/following.h):
 *
 *   who runs it                                  who follows
 *                                          ◄────  BASE, after its welcome: what it has of these
 *                                                 disks, and where it may differ; or why nothing
 *     LOOK at a piece                      ────►
 *                                          ◄────  LOOKED: its sums, 16 bytes for each 4 KiB
 *     BLOCKS that differ                   ────►
 *     ...
 *                                          ◄────  SYNCED: all epochs up to this one are on stable
 *                                                 storage; now and then, from its first epoch on
 *
 * Nothing compares the disks afterwards, and a guest chooses what is on them, so the sums have a
 * key that is drawn for each resync, which no guest knows (core/siphash.h). LOOKs are answered in
 * their order, and BLOCKS for a piece come after the LOOK at it.
 */
#pragma once

#include "core/siphash.h"
#include "ft/changes_file.h"
#include "ft/moving.h"

enum {
    RESYNC_BLOCK = 4096,
    RESYNC_PIECE = FRAME_MAX_BLOCK, /* at most, of one LOOK */
    RESYNC_SUMS = RESYNC_PIECE / RESYNC_BLOCK * SIPHASH_SUM,
    RESYNC_WHY = 200,
};

struct resync_base {
    char why[RESYNC_WHY];     /* "": it has these disks. Else why it has to get all of them */
    struct changes_head head; /* of its disks place, shift and size */
    uint64_t *bits;           /* free them; NULL: none */
};

struct resync_look {
    uint8_t key[SIPHASH_KEY];
    uint32_t place, length; /* whole blocks, but for the end of the disk */
    uint64_t offset;
};

void resync_put_base(struct stream *stream, const struct resync_base *base);
int resync_get_base(struct stream_buffer *payload, struct resync_base *ret_base,
                    struct err *err) must_check;

void resync_put_look(struct stream *stream, const struct resync_look *look);
int resync_get_look(struct stream_buffer *payload, struct resync_look *ret_look,
                    struct err *err) must_check;

/* `look` is what it answers; but for the key. */
void resync_put_looked(struct stream *stream, const struct resync_look *look, const uint8_t *sums);
int resync_get_looked(struct stream_buffer *payload, struct resync_look *ret_look,
                      uint8_t ret_sums[RESYNC_SUMS], struct err *err) must_check;

void resync_put_synced(struct stream *stream, uint64_t epoch);
int resync_get_synced(struct stream_buffer *payload, uint64_t *ret_epoch,
                      struct err *err) must_check;

/* The sums of these bytes: how many bytes they have. */
size_t resync_sum(const uint8_t key[SIPHASH_KEY], const uint8_t *bytes, uint32_t length,
                  uint8_t ret_sums[RESYNC_SUMS]);
