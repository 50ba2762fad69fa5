/* SPDX-License-Identifier: MIT */
/*
 * Host time, and the one time base of the guest's platform timers.
 *
 * Every timeout of ours is on CLOCK_MONOTONIC. PIT and PM timer read one guest time, which keeps
 * pace with KVM's clocks and travels with the machine's state, so that none of them jumps against
 * another after a pause or a restore. (The wall clock of the RTC is the host's, on purpose: after a
 * restore it must be right, not continuous.)
 */
#pragma once

#include "core/err.h"
#include <time.h>

#define NS_PER_SEC 1000000000ull

uint64_t clock_monotonic_ns(void);
uint64_t clock_boot_ns(void); /* goes on while the host sleeps */
uint64_t clock_wall_ns(void); /* since 1970, UTC */
struct timespec clock_timespec(uint64_t ns);

/* a * b / c in 128 bits: for turning nanoseconds into ticks and back without overflow or drift. */
uint64_t clock_scale(uint64_t a, uint64_t b, uint64_t c);

/*
 * Guest time in nanoseconds since the machine first ran. Starts stopped at 0. A stop freezes what
 * is read, so that state is of one moment; the next start catches up, because the guest's other
 * clocks (TSC, kvmclock, local APIC timers) are KVM's and do not stand still in a pause. After a
 * set, time goes on from that moment.
 *
 * now() from any thread; start, stop and set only while no vCPU runs and no device timer is armed.
 */
struct guest_clock {
    bool running;
    bool started;           /* base_* hold: the clock has run, or was set */
    uint64_t frozen_ns;     /* what is read while stopped */
    uint64_t base_guest_ns; /* guest time at... */
    uint64_t base_host_ns;  /* ...this host time */
};

uint64_t guest_clock_now(const struct guest_clock *clock);
void guest_clock_start(struct guest_clock *clock);
void guest_clock_stop(struct guest_clock *clock);
void guest_clock_set(struct guest_clock *clock, uint64_t guest_ns); /* stopped only */

/* The CLOCK_MONOTONIC moment at which a running clock will show guest_ns: what a timer is armed
 * with. */
uint64_t guest_clock_to_host(const struct guest_clock *clock, uint64_t guest_ns);
