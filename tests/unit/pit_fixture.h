/* SPDX-License-Identifier: MIT */
/* What the tests of the PIT share: one in a small world, guest time by hand, and its registers. */
#pragma once

#include "devices/pit.h"
#include "tests/unit/unit.h"
#include <stdatomic.h>

enum { COUNTER_0 = 0x40, COUNTER_2 = 0x42, CONTROL = 0x43, PORT_B = 0x61, LINE = 5 };

/* Control words: both bytes, binary, mode m of counter c. */
#define SET(c, m)    ((c) << 6 | 0x30 | (m) << 1)
#define LATCH(c)     ((c) << 6)
#define READ_BACK(c) (0xc0 | 2 << (c))

static struct bus *ports;
static struct loop *loop;
static struct guest_clock guest_clock;
static struct pit *pit;

/* The line, as the chip sees it. */
static bool level;
static atomic_uint rises;
static unsigned calls;
static atomic_uint stop_after; /* rises that end the loop; 0: none */

static inline void handle_line(void *ctx, unsigned number, bool new_level)
{
    ck_assert_uint_eq(number, LINE);
    calls++;
    if (new_level && !level)
        rises++;
    level = new_level;
    if (stop_after && rises >= stop_after)
        loop_stop(loop);
}

static const struct irq_chip chip = {handle_line, NULL};

/* Guest time by hand: the first moment of a tick. */
static uint64_t tick;

static inline void at(uint64_t new_tick)
{
    tick = new_tick;
    guest_clock_set(&guest_clock, clock_scale(tick, NS_PER_SEC, PIT_HZ) + (tick ? 1 : 0));
}

static inline void after(uint64_t ticks)
{
    at(tick + ticks);
}

static inline void run_after(uint64_t ticks)
{
    after(ticks);
    pit_run(pit);
}

static inline void out(unsigned port, unsigned value)
{
    bus_write(ports, port, 1, value);
}

static inline unsigned in(unsigned port)
{
    return (unsigned)bus_read(ports, port, 1);
}

static inline void write_count(unsigned counter, unsigned count)
{
    out(COUNTER_0 + counter, count & 0xff);
    out(COUNTER_0 + counter, count >> 8);
}

static inline void set(unsigned counter, unsigned mode, unsigned count)
{
    out(CONTROL, SET(counter, mode));
    write_count(counter, count);
}

static inline unsigned read_both(unsigned counter)
{
    unsigned low = in(COUNTER_0 + counter);
    return low | in(COUNTER_0 + counter) << 8;
}

static inline unsigned read_count(unsigned counter)
{
    out(CONTROL, LATCH(counter));
    return read_both(counter);
}

static inline unsigned read_status(unsigned counter)
{
    out(CONTROL, READ_BACK(counter) | 0x20);
    return in(COUNTER_0 + counter);
}

static inline void create(void)
{
    struct err err = {0};
    ck_assert_msg(pit_create(&pit, ports, &chip, LINE, loop, &guest_clock, &err) == 0, "%s",
                  err.text);
    struct device *device = pit_device(pit);
    device->ops->reset(device);
    device->ops->resume(device);
}

static inline void destroy(void)
{
    struct device *device = pit_device(pit);
    device->ops->pause(device);
    device_destroy(device);
}

static inline void setup(void)
{
    guest_clock = (struct guest_clock){0};
    level = false;
    rises = stop_after = 0;
    calls = 0;
    at(1000);
    ck_assert_int_eq(bus_create(&ports, NULL), 0);
    ck_assert_int_eq(loop_create(&loop, NULL), 0);
    create();
    calls = 0;
}

static inline void teardown(void)
{
    destroy();
    loop_destroy(loop);
    bus_destroy(ports);
}

static inline void add_case(Suite *suite, const char *name, const TTest *const *tests, size_t count)
{
    TCase *tcase = tcase_create(name);
    tcase_add_checked_fixture(tcase, setup, teardown);
    for (size_t i = 0; i < count; i++)
        tcase_add_test(tcase, tests[i]);
    suite_add_tcase(suite, tcase);
}
