/* SPDX-License-Identifier: MIT */
/*
 * How long things took: counts of durations, in buckets whose bounds double from one microsecond to
 * nine seconds. Threads as with a counter (core/counter.h). Zeroed is a good beginning.
 */
#pragma once

#include "core/counter.h"

enum {
    HISTOGRAM_FIRST_BIT = 10, /* of the smallest bound: 1024 ns */
    HISTOGRAM_BOUNDS = 24,    /* the largest is 2^33 ns */
    HISTOGRAM_BUCKETS = HISTOGRAM_BOUNDS + 1,
};

struct histogram {
    struct counter buckets[HISTOGRAM_BUCKETS]; /* the last: longer than every bound */
    struct counter sum;                        /* nanoseconds */
};

/* What was counted by some moment. `sum` may be of a moment later or earlier: no lock is taken. */
struct histogram_reading {
    uint64_t buckets[HISTOGRAM_BUCKETS];
    uint64_t count; /* all of them together */
    uint64_t sum;
};

/* The longest duration that still belongs into a bucket; not of the last one, which has none. */
static inline uint64_t histogram_bound(unsigned bucket)
{
    return 1ull << (HISTOGRAM_FIRST_BIT + bucket);
}

static inline unsigned histogram_bucket(uint64_t ns)
{
    if (ns <= histogram_bound(0))
        return 0;
    unsigned bucket = 64 - HISTOGRAM_FIRST_BIT - (unsigned)__builtin_clzll(ns - 1);
    return bucket < HISTOGRAM_BOUNDS ? bucket : HISTOGRAM_BOUNDS;
}

static inline void histogram_add(struct histogram *histogram, uint64_t ns)
{
    counter_add(&histogram->buckets[histogram_bucket(ns)], 1);
    counter_add(&histogram->sum, ns);
}

static inline void histogram_read(const struct histogram *histogram,
                                  struct histogram_reading *ret_reading)
{
    ret_reading->count = 0;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        ret_reading->buckets[i] = counter_read(&histogram->buckets[i]);
        ret_reading->count += ret_reading->buckets[i];
    }
    ret_reading->sum = counter_read(&histogram->sum);
}
