/* SPDX-License-Identifier: MIT */
/*
 * Doorbells: guest writes that say only "look at your queue". The machine turns them into a write
 * to an eventfd inside KVM, so that no exit reaches our process.
 *
 * Whoever puts up a doorbell also answers writes to its address on the bus: where KVM cannot take
 * the doorbell (too many of them), the write arrives there and costs more, and nothing is lost.
 */
#pragma once

#include "core/err.h"

struct doorbell_board {
    /* Writes of any width to exactly this MMIO address ring fd. (any thread) */
    int (*add)(void *ctx, uint64_t address, int fd);
    void (*remove)(void *ctx, uint64_t address, int fd);
    void *ctx;
};
