/* SPDX-License-Identifier: MIT */
/*
 * What a disk's requests came to. A request's time begins when it is popped and ends when the guest
 * has been told. The clock is not read for each: those that end together are counted together,
 * behind their interrupt, with one look at it, and what is popped next begins at that moment; the
 * first of a turn of the loop begin with the turn.
 *
 * One that is repeated after a pause begins anew: a pause is not the disk's.
 */
#include "core/clock.h"
#include "virtio/blk_parts.h"

void blk_count_ended(struct blk *blk)
{
    if (blk->ended_count == 0)
        return;
    blk->now_ns = clock_monotonic_ns();
    for (unsigned i = 0; i < blk->ended_count; i++) {
        const struct blk_ended *ended = &blk->ended[i];
        struct blk_counters *counters = &blk->counters[ended->kind];
        histogram_add(&counters->latency, blk->now_ns - ended->began_ns);
        if (ended->failed)
            counter_add(&counters->errors, 1);
    }
    blk->ended_count = 0;
}

void blk_stats(const struct blk *blk, struct blk_stats *ret_stats)
{
    for (unsigned kind = 0; kind < BLK_KINDS; kind++) {
        const struct blk_counters *counters = &blk->counters[kind];
        struct blk_kind_stats *stats = &ret_stats->of[kind];
        stats->bytes = counter_read(&counters->bytes);
        stats->errors = counter_read(&counters->errors);
        histogram_read(&counters->latency, &stats->latency);
    }
}
