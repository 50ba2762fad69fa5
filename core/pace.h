/* SPDX-License-Identifier: MIT */
/*
 * How eagerly a thread that serves a guest's queue takes the CPU.
 *
 * Where vCPU and device share a CPU, each doorbell that wakes the device's thread makes it take the
 * CPU from the vCPU at once, in the middle of the guest's work on its next request: a switch there
 * and back for each request, and an interrupt for each. With SCHED_BATCH the thread waits for the
 * end of the vCPU's turn, finds many requests, and answers them with one interrupt: five times as
 * many reads of 4 KiB at depth 32, twice the TCP throughput (docs/benchmarks.md). But a request
 * that comes alone only waits longer then.
 *
 * So it is tried: a thread that is woken often becomes patient, stays so as long as it does find
 * several requests a turn, and else gives it up for a while. A pause in the work ends it at once.
 * With CPUs to spare the policy has no effect, either way.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* One for each thread; zeroed is a good beginning. Used by that thread only. */
struct pace {
    bool patient; /* SCHED_BATCH */
    bool fixed;   /* somebody gave this thread another policy: it stays as it is */
    unsigned turns, items;
    uint64_t began_ns, last_ns, rest_until_ns;
};

/* At the end of a turn that dealt with so many requests. Changes the calling thread's policy. */
void pace_turn(struct pace *pace, unsigned items, uint64_t now_ns);
