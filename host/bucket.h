/* SPDX-License-Identifier: MIT */
/*
 * A rate limit: so many units a second, and what was not used is saved up for a second. Pure: who
 * calls says what time it is.
 *
 * Instead of a level it keeps the moment until which all units are spent: a take moves that moment
 * by what it costs, and a second behind now it stops. A take larger than a second's worth passes
 * too, and is paid for afterwards.
 */
#pragma once

#include "core/clock.h"

/* What may pass in a second; 0: no limit. Operations of a network interface are its frames. */
struct limits {
    uint64_t operations, bytes;
};

struct bucket {
    uint64_t rate; /* units per second; 0: no limit */
    uint64_t spent_until_ns;
};

/* When the next take may be; not later than now: at once. */
static inline uint64_t bucket_ready_ns(const struct bucket *bucket)
{
    return bucket->rate ? bucket->spent_until_ns : 0;
}

/* No debt lasts longer than that: some makers of one (a disk's worth of zeroes, at a byte a second)
 * would else count beyond the end of time, and begin anew. */
#define BUCKET_LONGEST_S (365 * 86400ull)

static inline void bucket_take(struct bucket *bucket, uint64_t units, uint64_t now_ns)
{
    uint64_t full = now_ns > NS_PER_SEC ? now_ns - NS_PER_SEC : 0;
    uint64_t end = now_ns + BUCKET_LONGEST_S * NS_PER_SEC;

    if (!bucket->rate)
        return;
    if (bucket->spent_until_ns < full)
        bucket->spent_until_ns = full;
    if (units / bucket->rate < BUCKET_LONGEST_S)
        bucket->spent_until_ns += clock_scale(units, NS_PER_SEC, bucket->rate);
    else
        bucket->spent_until_ns = end;
    if (bucket->spent_until_ns > end)
        bucket->spent_until_ns = end;
}
