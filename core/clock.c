/* SPDX-License-Identifier: MIT */
#include "core/clock.h"

#include <assert.h>
#include <time.h>

static uint64_t read_clock(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * NS_PER_SEC + (uint64_t)t.tv_nsec;
}

uint64_t clock_monotonic_ns(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

uint64_t clock_boot_ns(void)
{
    return read_clock(CLOCK_BOOTTIME);
}

uint64_t clock_wall_ns(void)
{
    return read_clock(CLOCK_REALTIME);
}

struct timespec clock_timespec(uint64_t ns)
{
    return (struct timespec){.tv_sec = (time_t)(ns / NS_PER_SEC),
                             .tv_nsec = (long)(ns % NS_PER_SEC)};
}

uint64_t clock_scale(uint64_t a, uint64_t b, uint64_t c)
{
    return (uint64_t)((unsigned __int128)a * b / c);
}

uint64_t guest_clock_now(const struct guest_clock *clock)
{
    if (!clock->running)
        return clock->frozen_ns;
    return clock->base_guest_ns + (clock_monotonic_ns() - clock->base_host_ns);
}

void guest_clock_start(struct guest_clock *clock)
{
    if (!clock->started)
        guest_clock_set(clock, clock->frozen_ns);
    clock->running = true;
}

void guest_clock_stop(struct guest_clock *clock)
{
    clock->frozen_ns = guest_clock_now(clock);
    clock->running = false;
}

void guest_clock_set(struct guest_clock *clock, uint64_t guest_ns)
{
    assert(!clock->running);
    clock->started = true;
    clock->frozen_ns = guest_ns;
    clock->base_guest_ns = guest_ns;
    clock->base_host_ns = clock_monotonic_ns();
}

uint64_t guest_clock_to_host(const struct guest_clock *clock, uint64_t guest_ns)
{
    if (guest_ns <= clock->base_guest_ns)
        return clock->base_host_ns;
    uint64_t host_ns;
    if (__builtin_add_overflow(clock->base_host_ns, guest_ns - clock->base_guest_ns, &host_ns))
        return UINT64_MAX; /* a deadline beyond the end of time must not wrap into the past */
    return host_ns;
}
