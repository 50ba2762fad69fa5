/* SPDX-License-Identifier: MIT */
/*
 * Memory back to the host (virtio 1.2, section 5.5): free page reporting, so that what the guest
 * frees is the host's again without anybody asking; a balloon with a target; statistics.
 */
#pragma once

#include "virtio/virtio.h"

struct balloon;

struct balloon_stats {
    uint64_t at_ns; /* CLOCK_MONOTONIC; 0: the guest has told nothing yet */
    /* Bytes, or counts since its boot; all ones: not told. */
    uint64_t swap_in, swap_out, major_faults, minor_faults, free, total, available, caches;
};

int balloon_create(struct balloon **ret_balloon, const struct virtio_world *world,
                   struct err *err) must_check;
struct virtio *balloon_virtio(struct balloon *balloon);

/*
 * How many bytes the guest shall do without; it gives them as it can. Whole pages, at most all of
 * its memory. A paused device tells the guest when it resumes. (any thread; of a machine that is
 * paused, its main loop)
 */
void balloon_set_target(struct balloon *balloon, uint64_t bytes);
uint64_t balloon_target(struct balloon *balloon);   /* (any thread) */
uint64_t balloon_actual(struct balloon *balloon);   /* what it says it has given (any thread) */
uint64_t balloon_reported(struct balloon *balloon); /* bytes given back by free page reporting,
                                                       since the start (any thread) */
/* The last that the guest told, and asks for new ones. (any thread) */
void balloon_stats(struct balloon *balloon, struct balloon_stats *ret_stats);
