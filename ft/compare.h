/* SPDX-License-Identifier: MIT */
/*
 * Whether two hosts hold the same: COMPARE frames (ft/frames.h) with a CRC-32C of each MiB of guest
 * memory, or of a disk, while the VM stands still. It costs reading all of it, on both sides, but
 * for holes.
 */
#pragma once

#include "ft/frames.h"

#define COMPARE_MEMORY UINT32_MAX /* instead of a disk's place */

/* What is compared: `size` bytes, in pieces of at most 1 MiB. */
struct compare_what {
    uint64_t size;
    int (*read)(void *ctx, uint64_t offset, uint8_t *bytes, uint32_t length);
    /* All is zeroes from `offset` up to there. NULL: who knows. */
    uint64_t (*next_data)(void *ctx, uint64_t offset);
    void *ctx;
};

/* The payload of such a frame: *ret_length bytes, for free(). */
int compare_sum(uint32_t place, const struct compare_what *what, uint32_t **ret_payload,
                uint32_t *ret_length, struct err *err) must_check;

/* Whose sums these are. */
int compare_place(struct stream_buffer *payload, uint32_t *ret_place, struct err *err) must_check;
/* After it. -EUCLEAN: they are others; `name` for people. */
int compare_check(struct stream_buffer *payload, const char *name, const struct compare_what *what,
                  struct err *err) must_check;
