/* SPDX-License-Identifier: MIT */
/* Lets those timers of a loop fire that are due by now. */
#pragma once

#include "core/clock.h"
#include "core/loop.h"
#include "tests/fuzz/program.h"

static inline void handle_all_due(void *arg)
{
    loop_stop(arg);
}

static inline void run_due(struct loop *loop)
{
    struct loop_timer end;

    loop_timer_init(&end, loop, handle_all_due, loop);
    require(loop_timer_arm(&end, clock_monotonic_ns()) == 0);
    require(loop_run(loop) == 0);
    loop_timer_cancel(&end);
}
