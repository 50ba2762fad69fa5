/* SPDX-License-Identifier: MIT */
/*
 * A number that only grows, for metrics: one thread counts (or several that exclude each other),
 * every thread reads, nobody waits. Zeroed is a good beginning.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

struct counter {
    _Atomic uint64_t value;
};

/* No read-modify-write: with one writer an ordinary addition does, and costs no more than one. */
static inline void counter_add(struct counter *counter, uint64_t more)
{
    uint64_t before = atomic_load_explicit(&counter->value, memory_order_relaxed);
    atomic_store_explicit(&counter->value, before + more, memory_order_relaxed);
}

static inline uint64_t counter_read(const struct counter *counter)
{
    return atomic_load_explicit(&counter->value, memory_order_relaxed);
}
