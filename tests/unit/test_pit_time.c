/* SPDX-License-Identifier: MIT */
/* Interrupts: on time, late, from the loop, in a race; and the state that carries them over. */
#include "core/thread.h"
#include "tests/unit/pit_fixture.h"
#include <errno.h>
#include <string.h>
#include <sys/resource.h>

/* Interrupts. */

START_TEST(mode_2_interrupts_once_per_period)
{
    set(0, 2, 11932);
    unsigned before = rises; /* taking OUT up from its power-on level is a rise, as on the chip */
    run_after(11932);
    ck_assert_uint_eq(rises, before);
    run_after(1);
    ck_assert_uint_eq(rises, before + 1);
    run_after(11931);
    ck_assert_uint_eq(rises, before + 1);
    run_after(1);
    ck_assert_uint_eq(rises, before + 2);
    ck_assert(level);
}
END_TEST

START_TEST(a_hundred_seconds_are_ten_thousand_ticks)
{
    set(0, 3, 11932); /* 100 Hz and a little: 10000 periods are 100.0008 s */
    unsigned before = rises;
    uint64_t start = guest_clock_now(&guest_clock);
    for (unsigned i = 1; i <= 100 * 1000; i++) {
        guest_clock_set(&guest_clock, start + i * 1000000ull);
        pit_run(pit);
    }
    ck_assert_uint_eq(rises - before, 9999);
}
END_TEST

START_TEST(mode_0_interrupts_once)
{
    set(0, 0, 1000);
    ck_assert(!level);
    run_after(1000);
    ck_assert_uint_eq(rises, 0);
    run_after(1);
    ck_assert_uint_eq(rises, 1);
    run_after(200000);
    ck_assert_uint_eq(rises, 1);
    write_count(0, 1000); /* a new count takes the line down: the next shot */
    ck_assert(!level);
    run_after(1001);
    ck_assert_uint_eq(rises, 2);
}
END_TEST

START_TEST(mode_4_interrupts_after_its_strobe)
{
    set(0, 4, 1000);
    unsigned before = rises;
    run_after(1001);
    ck_assert_uint_eq(rises, before);
    run_after(1);
    ck_assert_uint_eq(rises, before + 1);
    write_count(0, 20);
    run_after(22);
    ck_assert_uint_eq(rises, before + 2);
}
END_TEST

START_TEST(modes_1_and_5_never_interrupt_without_a_gate)
{
    set(0, 1, 10);
    unsigned before = rises;
    run_after(100000);
    set(0, 5, 10);
    run_after(100000);
    ck_assert_uint_eq(rises, before);
}
END_TEST

START_TEST(a_control_word_stops_the_ticks)
{
    set(0, 2, 1000);
    run_after(1001);
    unsigned before = rises;
    out(CONTROL, SET(0, 2));
    run_after(1000000);
    ck_assert_uint_eq(rises, before);
    write_count(0, 1000);
    run_after(1001); /* nothing is owed from before */
    run_after(600);
    ck_assert_uint_eq(rises, before + 1);
}
END_TEST

START_TEST(late_ticks_are_caught_up_at_twice_the_rate)
{
    set(0, 2, 10000);
    run_after(1);
    unsigned before = rises;
    run_after(10 * 10000); /* ten are due: one comes now, nine are owed */
    ck_assert_uint_eq(rises, before + 1);
    run_after(4999);
    ck_assert_uint_eq(rises, before + 1);
    run_after(1);
    ck_assert_uint_eq(rises, before + 2);
    for (unsigned i = 0; i < 40; i++)
        run_after(5000);
    ck_assert_uint_eq(rises - before, 10 + 20); /* none is lost, and then it is on time */
    run_after(4999);
    ck_assert_uint_eq(rises - before, 10 + 20);
    run_after(1);
    run_after(4999);
    ck_assert_uint_eq(rises - before, 10 + 21);
}
END_TEST

START_TEST(at_most_a_second_of_ticks_is_owed)
{
    set(0, 2, 11932);
    run_after(1);
    unsigned before = rises;
    run_after(3600ull * PIT_HZ);
    for (unsigned i = 0; i < 1000; i++)
        run_after(5966);
    unsigned delivered = rises - before; /* 500 are due in that time, 99 or 100 were owed */
    ck_assert_uint_ge(delivered, 598);
    ck_assert_uint_le(delivered, 602);
    uint64_t count = read_count(0);
    ck_assert_uint_ge(count, 1); /* and the phase is the one of the count */
    unsigned now = rises;
    run_after(count - 1);
    ck_assert_uint_eq(rises, now);
    run_after(1);
    ck_assert_uint_eq(rises, now + 1);
}
END_TEST

START_TEST(a_count_of_1_gets_5000_ticks_a_second)
{
    for (unsigned mode = 2; mode <= 3; mode++) {
        set(0, mode, 1);
        unsigned before = rises;
        for (unsigned i = 0; i < PIT_HZ / 10; i++)
            run_after(1);
        ck_assert_uint_ge(rises - before, 490);
        ck_assert_uint_le(rises - before, 505);
    }
}
END_TEST

START_TEST(a_new_count_in_mode_3_moves_the_next_tick)
{
    set(0, 3, 10000);
    unsigned before = rises;
    after(1 + 100);
    write_count(0, 2000); /* at 5000: a low half of 1000 */
    run_after(4900);
    ck_assert_uint_eq(rises, before);
    run_after(999);
    ck_assert_uint_eq(rises, before);
    run_after(1);
    ck_assert_uint_eq(rises, before + 1);
    run_after(2000);
    ck_assert_uint_eq(rises, before + 2);
}
END_TEST

/* The timer, in real time. */

static void start_time(void)
{
    struct device *device = pit_device(pit);
    device->ops->pause(device);
    guest_clock_start(&guest_clock);
    device->ops->resume(device);
}

static void stop_time(void)
{
    struct device *device = pit_device(pit);
    device->ops->pause(device);
    guest_clock_stop(&guest_clock);
}

START_TEST(the_loop_delivers_ticks_when_they_are_due)
{
    start_time();
    uint64_t began = guest_clock_now(&guest_clock);
    set(0, 2, 1193); /* 1 kHz */
    rises = 0;
    stop_after = 20;
    ck_assert_int_eq(loop_run(loop), 0);
    uint64_t took = guest_clock_now(&guest_clock) - began;
    /* The earliest moment is exact, even where the last ticks were caught up with. */
    ck_assert_uint_ge(took, 20 * 999000);
    stop_time();
}
END_TEST

START_TEST(a_count_of_1_does_not_keep_the_loop_busy)
{
    start_time();
    set(0, 2, 1);
    rises = 0;
    stop_after = 50;
    uint64_t began = clock_monotonic_ns();
    ck_assert_int_eq(loop_run(loop), 0);
    ck_assert_uint_ge(clock_monotonic_ns() - began, 49 * 199000);
    stop_time();
}
END_TEST

/*
 * The old count ends after 55 ms, the new one has its first rise after 28. A busy machine may be
 * late by the difference, but not every time.
 */
START_TEST(the_timer_knows_of_a_count_that_waits)
{
    bool in_time = false;
    start_time();
    for (unsigned i = 0; i < 10 && !in_time; i++) {
        uint64_t began = guest_clock_now(&guest_clock);
        set(0, 3, 0);
        write_count(0, 1000);
        rises = 0;
        stop_after = 1;
        ck_assert_int_eq(loop_run(loop), 0);
        in_time = guest_clock_now(&guest_clock) - began < 54 * 1000000;
    }
    ck_assert(in_time);
    stop_time();
}
END_TEST

static void read_in_a_race(void *arg)
{
    for (unsigned i = 0; i < 3000; i++) {
        set(0, i % 6, 1 + i % 700);
        read_count(0);
        out(PORT_B, i & 1);
        set(2, i % 6, i);
        in(PORT_B);
    }
    set(0, 2, 300);
    stop_after = rises + 10;
}

START_TEST(registers_and_the_timer_may_race)
{
    struct thread writer = {0};
    start_time();
    set(0, 2, 300);
    stop_after = UINT32_MAX;
    ck_assert_int_eq(thread_start(&writer, "writer", read_in_a_race, NULL, NULL), 0);
    ck_assert_int_eq(loop_run(loop), 0);
    thread_join(&writer);
    stop_time();
}
END_TEST

/* State. */

static uint64_t saved[64];

static void save_state(void)
{
    struct device *device = pit_device(pit);
    device->ops->pause(device);
    ck_assert_uint_le(device->table->size, sizeof(saved));
    memcpy(saved, device->state, device->table->size);
}

/* A new PIT in a new machine; the lines there stand as they were saved with the chips. */
static void load_state(void)
{
    destroy();
    create();
    struct device *device = pit_device(pit);
    device->ops->pause(device);
    memcpy(device->state, saved, device->table->size);
    calls = 0;
}

START_TEST(a_loaded_count_goes_on_where_it_stood)
{
    out(PORT_B, 1);
    set(0, 2, 10000);
    set(2, 0, 50000);
    run_after(1 + 3000);
    uint64_t moment = guest_clock_now(&guest_clock);
    save_state();
    load_state();
    guest_clock_set(&guest_clock, moment); /* a machine restores its clock first */
    struct device *device = pit_device(pit);
    device->ops->resume(device);
    ck_assert_uint_eq(read_count(0), 7000);
    ck_assert_uint_eq(read_count(2), 47000);
    unsigned before = rises;
    run_after(6999);
    ck_assert_uint_eq(rises, before);
    run_after(1);
    ck_assert_uint_eq(rises, before + 1);
}
END_TEST

START_TEST(owed_ticks_travel_with_the_state)
{
    set(0, 2, 10000);
    run_after(1 + 50000); /* five are due: one comes now, four are owed */
    save_state();
    load_state();
    level = true;
    struct device *device = pit_device(pit);
    device->ops->resume(device);
    unsigned before = rises;
    for (unsigned i = 0; i < 8; i++) /* four more become due in that time */
        run_after(5000);
    ck_assert_uint_eq(rises, before + 8);
    run_after(5000);
    ck_assert_uint_eq(rises, before + 8);
}
END_TEST

START_TEST(resume_tells_the_line_its_level_and_makes_no_edge)
{
    set(0, 2, 10000);
    run_after(10001);
    save_state();
    load_state();
    level = true; /* as in the loaded chips */
    unsigned before = rises;
    struct device *device = pit_device(pit);
    device->ops->resume(device);
    ck_assert_uint_eq(calls, 1);
    ck_assert(level);
    ck_assert_uint_eq(rises, before);
}
END_TEST

START_TEST(reset_stops_everything_and_lowers_the_line)
{
    struct device *device = pit_device(pit);
    out(PORT_B, 3);
    set(0, 2, 100);
    run_after(101);
    device->ops->pause(device);
    device->ops->reset(device);
    device->ops->resume(device);
    ck_assert(!level);
    unsigned before = rises;
    run_after(1000000);
    ck_assert_uint_eq(rises, before);
    ck_assert_uint_eq(in(PORT_B) & ~0x10u, 0);
    ck_assert(read_status(0) & 0x40);
}
END_TEST

/* Whatever a guest writes, and however far time jumps: the state can be saved. */
START_TEST(random_writes_never_leave_the_table)
{
    static const unsigned where[] = {0x40, 0x41, 0x42, 0x43, 0x43, 0x61};
    struct device *device = pit_device(pit);
    uint32_t seed = 11;
    for (int i = 0; i < 200000; i++) {
        seed = seed * 1664525 + 1013904223;
        unsigned port = where[(seed >> 8) % array_size(where)];
        switch (seed >> 30) {
        case 0:
        case 1:
            out(port, seed >> 16 & 0xff);
            break;
        case 2:
            in(port);
            break;
        default:
            run_after(seed >> 20 & 0x3ff);
        }
        ck_assert_int_eq(state_check(device->table, device->state, NULL), 0);
    }
}
END_TEST

static uint64_t hostile_number(uint32_t *seed)
{
    *seed = *seed * 1664525 + 1013904223;
    uint64_t wide = (uint64_t)*seed * 0x9e3779b97f4a7c15;
    switch (*seed >> 29) {
    case 0:
        return 0;
    case 1:
        return UINT64_MAX;
    case 2:
        return *seed >> 12;
    case 3:
        return (1 << 20) + (*seed >> 8 & 0xfff);
    default:
        return wide >> (*seed >> 20 & 63);
    }
}

/* The state, to be filled with what bounds allow. */
struct image {
    struct {
        uint64_t ticks[3];
        uint16_t counts[3];
        uint8_t control, phase, bytes[2];
        bool flags[4];
        uint8_t reserved[2];
    } counters[3];
    uint64_t ticks[2];
    uint8_t port_b;
    bool line;
    uint8_t reserved[6];
};

static void load_hostile(uint32_t *seed)
{
    struct device *device = pit_device(pit);
    struct image *image = device->state;
    ck_assert_uint_eq(device->table->size, sizeof(*image));
    for (unsigned i = 0; i < 3; i++) {
        for (unsigned j = 0; j < 3; j++) {
            image->counters[i].ticks[j] = hostile_number(seed);
            image->counters[i].counts[j] = (uint16_t)hostile_number(seed);
        }
        uint64_t bits = (*seed >> 8) * 0x9e3779b97f4a7c15;
        image->counters[i].control = 0x10 + (bits >> 40) % 0x30;
        image->counters[i].phase = (bits >> 32) % 3;
        for (unsigned j = 0; j < 4; j++)
            image->counters[i].flags[j] = bits >> (60 + j) & 1;
    }
    image->ticks[0] = hostile_number(seed);
    image->ticks[1] = hostile_number(seed);
    image->port_b = *seed >> 8 & 0xf;
    image->line = *seed >> 16 & 1;
    ck_assert_int_eq(state_check(device->table, image, NULL), 0);
}

/* A state that loads is not always one that can have been: it may tick wrongly, and no more. */
START_TEST(any_state_that_loads_is_survived)
{
    struct device *device = pit_device(pit);
    uint32_t seed = 5;
    for (int i = 0; i < 20000; i++) {
        at(1000 + i);
        device->ops->pause(device);
        load_hostile(&seed);
        device->ops->resume(device);
        pit_run(pit);
        for (unsigned c = 0; c < 3; c++) {
            read_status(c);
            read_count(c);
        }
        out(PORT_B, i);
        in(PORT_B);
        write_count(i % 3, seed & 0xffff);
        run_after(1);
        ck_assert_int_eq(state_check(device->table, device->state, NULL), 0);
    }
}
END_TEST

static void handle_stop(void *arg)
{
    loop_stop(loop);
}

/* How often this thread went to sleep by itself. */
static long sleeps(void)
{
    struct rusage usage;
    ck_assert_int_eq(getrusage(RUSAGE_THREAD, &usage), 0);
    return usage.ru_nvcsw;
}

/* The same with time running. A timer that is always due keeps the loop from ever going to sleep.
 */
START_TEST(no_loaded_state_keeps_the_loop_busy)
{
    struct device *device = pit_device(pit);
    struct loop_timer stop;
    uint32_t seed = 9;
    unsigned sleepless = 0;
    loop_timer_init(&stop, loop, handle_stop, NULL);
    for (unsigned i = 0; i < 300; i++) {
        load_hostile(&seed);
        start_time();
        long before = sleeps();
        ck_assert_int_eq(loop_timer_arm(&stop, clock_monotonic_ns() + 3000000), 0);
        ck_assert_int_eq(loop_run(loop), 0);
        sleepless += sleeps() == before;
        stop_time();
        ck_assert_int_eq(state_check(device->table, device->state, NULL), 0);
    }
    ck_assert_uint_le(sleepless, 4); /* a busy machine may be late for the sleep, but not always */
}
END_TEST

START_TEST(a_second_pit_is_refused_and_harms_nothing)
{
    struct pit *second = NULL;
    bus_remove(ports, COUNTER_0); /* now its first range fits, and its second does not */
    ck_assert_int_eq(pit_create(&second, ports, &chip, LINE, loop, &guest_clock, NULL), -EEXIST);
    ck_assert_ptr_null(second);
    ck_assert_uint_eq(in(COUNTER_0), 0xff);
    out(PORT_B, 2);
    ck_assert_uint_eq(in(PORT_B)&0xf, 2);
}
END_TEST

START_TEST(the_state_table_keeps_its_promises)
{
    out(PORT_B, 3);
    set(0, 2, 0x1234);
    set(1, 3, 0x0102);
    set(2, 0, 0x4321);
    run_after(1 + 0x1334);
    write_count(0, 0x2345);
    out(PORT_B, 2);
    out(CONTROL, 0xc0 | 0xe);
    in(COUNTER_0);
    in(COUNTER_0);
    out(COUNTER_0 + 1, 0x77);
    unit_check_table(pit_device(pit)->table, pit_device(pit)->state);
}
END_TEST

int main(void)
{
    const TTest *const interrupts[] = {
        mode_2_interrupts_once_per_period,
        a_hundred_seconds_are_ten_thousand_ticks,
        mode_0_interrupts_once,
        mode_4_interrupts_after_its_strobe,
        modes_1_and_5_never_interrupt_without_a_gate,
        a_control_word_stops_the_ticks,
        late_ticks_are_caught_up_at_twice_the_rate,
        at_most_a_second_of_ticks_is_owed,
        a_count_of_1_gets_5000_ticks_a_second,
        a_new_count_in_mode_3_moves_the_next_tick,
        the_loop_delivers_ticks_when_they_are_due,
        a_count_of_1_does_not_keep_the_loop_busy,
        the_timer_knows_of_a_count_that_waits,
        registers_and_the_timer_may_race,
    };
    const TTest *const states[] = {
        a_loaded_count_goes_on_where_it_stood,
        owed_ticks_travel_with_the_state,
        resume_tells_the_line_its_level_and_makes_no_edge,
        reset_stops_everything_and_lowers_the_line,
        random_writes_never_leave_the_table,
        any_state_that_loads_is_survived,
        no_loaded_state_keeps_the_loop_busy,
        a_second_pit_is_refused_and_harms_nothing,
        the_state_table_keeps_its_promises,
    };
    Suite *suite = suite_create("pit_time");
    add_case(suite, "interrupts", interrupts, array_size(interrupts));
    add_case(suite, "states", states, array_size(states));
    return unit_main(suite);
}
