/* SPDX-License-Identifier: MIT */
/*
 * Host time, and the one time base of the guest's platform timers.
 *
 * Every timeout of ours is on CLOCK_MONOTONIC. Guest time stands still while the machine is paused
 * and travels with its state: PIT and PM timer read it, so that none of them jumps against another
 * after a pause or a restore. (The wall clock of the RTC is the host's, on purpose: after a restore
 * it must be right, not continuous.)
 */
#pragma once

#include "core/err.h"

#define NS_PER_SEC 1000000000ull

uint64_t clock_monotonic_ns(void);
uint64_t clock_wall_ns(void); /* since 1970, UTC */

/* a * b / c in 128 bits: for turning nanoseconds into ticks and back without overflow or drift. */
uint64_t clock_scale(uint64_t a, uint64_t b, uint64_t c);

/*
 * Guest time in nanoseconds since the machine was built. Starts stopped at 0. now() from any
 * thread; start, stop and set only while no vCPU runs and no device timer is armed.
 */
struct guest_clock {
    bool running;
    uint64_t base_guest_ns; /* guest time at... */
    uint64_t base_host_ns;  /* ...this host time; only meaningful while running */
};

uint64_t guest_clock_now(const struct guest_clock *clock);
void guest_clock_start(struct guest_clock *clock);
void guest_clock_stop(struct guest_clock *clock);
void guest_clock_set(struct guest_clock *clock, uint64_t guest_ns); /* stopped only */

/* The CLOCK_MONOTONIC moment at which a running clock will show guest_ns: what a timer is armed
 * with. */
uint64_t guest_clock_to_host(const struct guest_clock *clock, uint64_t guest_ns);
