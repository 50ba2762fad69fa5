/* SPDX-License-Identifier: MIT */
#include "core/clock.h"
#include "devices/rtc.h"
#include "devices/rtc_date.h"
#include "tests/unit/platform.h"
#include "tests/unit/unit.h"
#include <errno.h>
#include <stdio.h>
#include <time.h>

enum { LINE = 8 };
enum {
    SECONDS,
    SECONDS_ALARM,
    MINUTES,
    MINUTES_ALARM,
    HOURS,
    HOURS_ALARM,
    WEEKDAY,
    DAY,
    MONTH,
    YEAR
};
enum { A = 0x0a, B, C, D, SHUTDOWN = 0x0f, CENTURY = 0x32 };
enum { A_UPDATING = 0x80, A_HELD = 0x76, A_NORMAL = 0x26, A_FASTEST = 0x23, A_2_HZ = 0x2f };
enum { B_SET = 0x80, B_PERIODIC = 0x40, B_ALARM = 0x20, B_UPDATE = 0x10, B_BINARY = 4, B_24 = 2 };
enum { C_IRQ = 0x80, C_PERIODIC = 0x40, C_ALARM = 0x20, C_UPDATE = 0x10 };

#define MS 1000000ull

/* 2024-02-28 23:59:58, a Wednesday before a leap day */
#define WALL (1709164798 * NS_PER_SEC)

static struct {
    struct bus *ports;
    struct loop *loop;
    struct fake_chip chip;
    struct irq_chip stopping_chip; /* the same, and a rising line ends loop_run */
    struct device *device;
    uint64_t wall_ns; /* 0: the clock below runs with the host's */
    uint64_t wall_shift;
    unsigned wall_reads;
} pc;

static uint64_t wall_clock(void)
{
    pc.wall_reads++;
    return pc.wall_ns ? pc.wall_ns : clock_monotonic_ns() + pc.wall_shift;
}

static void handle_line(void *ctx, unsigned number, bool level)
{
    fake_chip_handle_line(&pc.chip, number, level);
    if (level)
        loop_stop(pc.loop);
}

static void make_rtc(void)
{
    const struct rtc_config config = {
        .ram_below_4g = 3ull << 30, .ram_above_4g = 5ull << 30, .wall_ns = wall_clock};
    struct rtc *rtc;

    ck_assert_int_eq(rtc_create(&rtc, pc.ports, &pc.stopping_chip, LINE, pc.loop, &config, NULL),
                     0);
    pc.device = rtc_device(rtc);
    pc.device->ops->reset(pc.device);
    pc.device->ops->resume(pc.device);
}

static void set_up(void)
{
    memset(&pc, 0, sizeof(pc));
    fake_chip_init(&pc.chip);
    pc.stopping_chip.set_line = handle_line;
    pc.wall_ns = WALL;
    ck_assert_int_eq(bus_create(&pc.ports, NULL), 0);
    ck_assert_int_eq(loop_create(&pc.loop, NULL), 0);
    make_rtc();
}

static void tear_down(void)
{
    device_destroy(pc.device);
    loop_destroy(pc.loop);
    bus_destroy(pc.ports);
}

static uint8_t in(unsigned reg)
{
    bus_write(pc.ports, 0x70, 1, reg);
    return bus_read(pc.ports, 0x71, 1);
}

static void out(unsigned reg, uint8_t value)
{
    bus_write(pc.ports, 0x70, 1, reg);
    bus_write(pc.ports, 0x71, 1, value);
}

/* "2024-02-28 23:59:58 4", as the registers show it. */
static const char *shown(void)
{
    static char text[64];

    snprintf(text, sizeof(text), "%02x%02x-%02x-%02x %02x:%02x:%02x %x", in(CENTURY), in(YEAR),
             in(MONTH), in(DAY), in(HOURS), in(MINUTES), in(SECONDS), in(WEEKDAY));
    return text;
}

static void set_date(uint8_t century, uint8_t year, uint8_t month, uint8_t day)
{
    out(CENTURY, century);
    out(YEAR, year);
    out(MONTH, month);
    out(DAY, day);
}

static void set_time(uint8_t hour, uint8_t minute, uint8_t second)
{
    out(HOURS, hour);
    out(MINUTES, minute);
    out(SECONDS, second);
}

static void set_alarm(uint8_t hour, uint8_t minute, uint8_t second)
{
    out(HOURS_ALARM, hour);
    out(MINUTES_ALARM, minute);
    out(SECONDS_ALARM, second);
}

/* Lets the clock run with the host's, being `phase` ns behind `wall_ns` now. */
static void let_wall_run(uint64_t wall_ns)
{
    pc.wall_shift = wall_ns - clock_monotonic_ns();
    pc.wall_ns = 0;
}

static void handle_end(void *arg)
{
    loop_stop(pc.loop);
}

static void run_loop_for(uint64_t ns)
{
    struct loop_timer end;

    loop_timer_init(&end, pc.loop, handle_end, NULL);
    ck_assert_int_eq(loop_timer_arm(&end, clock_monotonic_ns() + ns), 0);
    ck_assert_int_eq(loop_run(pc.loop), 0);
    loop_timer_cancel(&end);
}

/* The calendar */

static uint8_t formats[] = {B_24, B_24 | B_BINARY, 0, B_BINARY};

START_TEST(every_format_names_the_date_that_libc_names)
{
    uint64_t seed = 0x10ca1;
    uint8_t ram[128];

    for (unsigned i = 0; i < 50000; i++) {
        /* Years 0 to 9999; a quarter of them at the change of a day. */
        int64_t t = (int64_t)(chance(&seed) % 315569520000) - 62167219200;
        if (i % 4 == 0)
            t = t / 86400 * 86400 - (i % 8 == 0);
        struct tm tm;
        gmtime_r(&(time_t){t}, &tm);
        for (unsigned f = 0; f < array_size(formats); f++) {
            rtc_date_show(t, formats[f], ram);
            ck_assert_int_eq(rtc_date_take(formats[f], ram), t);
        }
        rtc_date_show(t, B_24 | B_BINARY, ram);
        ck_assert_int_eq(ram[CENTURY] * 100 + ram[YEAR], tm.tm_year + 1900);
        ck_assert_int_eq(ram[MONTH], tm.tm_mon + 1);
        ck_assert_int_eq(ram[DAY], tm.tm_mday);
        ck_assert_int_eq(ram[HOURS] * 3600 + ram[MINUTES] * 60 + ram[SECONDS],
                         tm.tm_hour * 3600 + tm.tm_min * 60 + tm.tm_sec);
        ck_assert_int_eq(ram[WEEKDAY], tm.tm_wday + 1);
    }
}
END_TEST

START_TEST(twelve_hours_have_a_noon_and_a_midnight)
{
    static const uint8_t expected[24] = {0x12, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07,
                                         0x08, 0x09, 0x10, 0x11, 0x92, 0x81, 0x82, 0x83,
                                         0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x90, 0x91};
    uint8_t ram[128];

    for (unsigned hour = 0; hour < 24; hour++) {
        rtc_date_show(hour * 3600, 0, ram);
        ck_assert_uint_eq(ram[HOURS], expected[hour]);
    }
}
END_TEST

START_TEST(any_bytes_are_some_date)
{
    uint64_t seed = 0xdead;
    uint8_t ram[128];

    for (unsigned i = 0; i < 100000; i++) {
        for (unsigned reg = 0; reg < sizeof(ram); reg++)
            ram[reg] = chance(&seed) >> 16;
        int64_t t = rtc_date_take(formats[i % 4], ram);
        ck_assert_int_ge(t, -62167219200);
        ck_assert_int_lt(t, 253402300800 + 86400); /* the year 10000, and 31 of any month */
        rtc_date_show((int64_t)chance(&seed) >> 15, formats[i % 4], ram);
    }
}
END_TEST

static bool field_agrees(unsigned reg, const uint8_t *ram, const uint8_t *alarm)
{
    return alarm[reg + 1] >= 0xc0 || alarm[reg + 1] == ram[reg];
}

/* The slow way: look at every second of a day, but for those of hours and minutes that are not the
 * alarm's. */
static int64_t slow_next_alarm(int64_t seconds, uint8_t b, const uint8_t *alarm)
{
    uint8_t ram[128];
    int64_t in_hour;

    for (int64_t t = seconds + 1; t <= seconds + 86400;) {
        rtc_date_show(t, b, ram);
        in_hour = (t % 3600 + 3600) % 3600;
        if (!field_agrees(HOURS, ram, alarm))
            t += 3600 - in_hour;
        else if (!field_agrees(MINUTES, ram, alarm))
            t += 60 - in_hour % 60;
        else if (!field_agrees(SECONDS, ram, alarm))
            t++;
        else
            return t;
    }
    return INT64_MAX;
}

START_TEST(the_next_alarm_is_what_a_slow_search_finds)
{
    uint64_t seed = 0xa1a54;
    uint8_t alarm[128];

    for (unsigned i = 0; i < 60; i++) {
        uint8_t b = formats[i % 4];
        int64_t now = (int64_t)(chance(&seed) % 4000000000) - 2000000000;
        rtc_date_show((int64_t)(chance(&seed) % 86400), b, alarm);
        for (unsigned reg = SECONDS; reg <= HOURS; reg += 2)
            alarm[reg + 1] = chance(&seed) % 3 ? alarm[reg] : 0xff;
        if (i % 20 == 19)
            alarm[MINUTES_ALARM] = 0x77; /* never */
        ck_assert_int_eq(rtc_date_next_alarm(now, b, alarm), slow_next_alarm(now, b, alarm));
    }
}
END_TEST

/* The clock */

START_TEST(the_clock_shows_the_hosts_utc)
{
    ck_assert_str_eq(shown(), "2024-02-28 23:59:58 4");
    pc.wall_ns += 2 * NS_PER_SEC;
    ck_assert_str_eq(shown(), "2024-02-29 00:00:00 5");
    out(B, 0);
    pc.wall_ns += 12 * 3600 * NS_PER_SEC;
    ck_assert_uint_eq(in(HOURS), 0x92);
    out(B, B_BINARY | B_24);
    ck_assert_uint_eq(in(DAY), 29);
    ck_assert_uint_eq(in(HOURS), 12);
    ck_assert_uint_eq(in(D), 0x80);
}
END_TEST

START_TEST(what_the_guest_sets_goes_on_from_there)
{
    out(B, B_SET | B_24);
    set_date(0x19, 0x99, 0x12, 0x31);
    set_time(0x23, 0x59, 0x50);
    pc.wall_ns += 100 * NS_PER_SEC; /* held */
    ck_assert_uint_eq(in(SECONDS), 0x50);
    out(B, B_24);
    ck_assert_str_eq(shown(), "1999-12-31 23:59:50 6");
    pc.wall_ns += 11 * NS_PER_SEC;
    ck_assert_str_eq(shown(), "2000-01-01 00:00:01 7");
}
END_TEST

START_TEST(a_running_clock_takes_writes_too)
{
    out(MINUTES, 0x30);
    ck_assert_str_eq(shown(), "2024-02-28 23:30:58 4");
    pc.wall_ns += 3 * NS_PER_SEC;
    ck_assert_str_eq(shown(), "2024-02-28 23:31:01 4");
}
END_TEST

START_TEST(the_first_second_after_a_divider_reset_is_half_as_long)
{
    pc.wall_ns += 123 * MS; /* the way Linux sets it */
    out(B, B_SET | B_24);
    out(A, A_HELD);
    set_time(0x12, 0x00, 0x00);
    out(B, B_24);
    pc.wall_ns += 700 * MS;
    ck_assert_uint_eq(in(SECONDS), 0x00); /* still held */
    out(A, A_NORMAL);
    pc.wall_ns += 499 * MS;
    ck_assert_uint_eq(in(SECONDS), 0x00);
    pc.wall_ns += 2 * MS;
    ck_assert_uint_eq(in(SECONDS), 0x01);
}
END_TEST

START_TEST(impossible_dates_become_possible_ones)
{
    out(B, B_SET | B_24);
    set_date(0xff, 0xff, 0x00, 0xff);
    set_time(0x99, 0xab, 0xff);
    ck_assert_uint_eq(in(SECONDS), 0xff); /* as long as it is held */
    out(B, B_24);
    ck_assert_str_eq(shown(), "9999-01-31 23:59:59 1");
    pc.wall_ns += 366 * 86400 * NS_PER_SEC; /* over the last year there is */
    ck_assert_uint_eq(in(CENTURY), 0x00);
    set_date(0x20, 0x23, 0x02, 0x30);
    ck_assert_uint_eq(in(MONTH), 0x03);
    ck_assert_uint_eq(in(DAY), 0x02);
}
END_TEST

START_TEST(update_in_progress_warns_before_the_second_changes)
{
    ck_assert(!(in(A)&A_UPDATING));
    pc.wall_ns += 997 * MS;
    ck_assert(!(in(A)&A_UPDATING));
    pc.wall_ns += 2 * MS;
    ck_assert_uint_eq(in(SECONDS), 0x58);
    ck_assert_uint_eq(in(A), A_NORMAL | A_UPDATING);
    out(B, B_SET | B_24); /* held: no update is coming */
    ck_assert(!(in(A)&A_UPDATING));
    out(B, B_24);
    pc.wall_ns += 1 * MS;
    ck_assert(!(in(A)&A_UPDATING));
    ck_assert_uint_eq(in(SECONDS), 0x59);
    out(A, 0xa6); /* cannot be written */
    ck_assert_uint_eq(in(A), A_NORMAL);
}
END_TEST

START_TEST(update_in_progress_can_be_waited_for)
{
    let_wall_run(WALL + 990 * MS);
    uint64_t start = clock_monotonic_ns();
    while (!(in(A)&A_UPDATING))
        ck_assert_uint_lt(clock_monotonic_ns() - start, 30 * NS_PER_SEC);
    while (in(A)&A_UPDATING)
        ck_assert_uint_lt(clock_monotonic_ns() - start, 30 * NS_PER_SEC);
    ck_assert_uint_ne(in(SECONDS), 0x58);
}
END_TEST

/* Flags and interrupts */

START_TEST(flags_are_set_without_interrupts_and_cleared_by_reading)
{
    set_alarm(0x23, 0x59, 0x59);
    in(C);
    pc.wall_ns += 1 * MS;
    ck_assert_uint_eq(in(C), C_PERIODIC); /* 1024 Hz */
    pc.wall_ns += 1 * NS_PER_SEC;
    ck_assert_uint_eq(in(C), C_PERIODIC | C_UPDATE | C_ALARM);
    ck_assert_uint_eq(in(C), 0);
    pc.wall_ns += 1 * NS_PER_SEC;
    ck_assert_uint_eq(in(C), C_PERIODIC | C_UPDATE);
    ck_assert_uint_eq(pc.chip.rises[LINE], 0);
    out(C, 0xff);
    out(D, 0x00);
    ck_assert_uint_eq(in(C), 0);
    ck_assert_uint_eq(in(D), 0x80);
}
END_TEST

START_TEST(an_enable_finds_a_flag_that_is_set)
{
    in(C);
    pc.wall_ns += 1 * NS_PER_SEC;
    out(B, B_24 | B_UPDATE);
    ck_assert(pc.chip.level[LINE]);
    ck_assert_uint_eq(in(C), C_IRQ | C_PERIODIC | C_UPDATE);
    ck_assert(!pc.chip.level[LINE]);
}
END_TEST

START_TEST(every_second_of_an_alarm_full_of_wildcards_counts)
{
    set_alarm(0xff, 0xc0, 0xff);
    out(A, 0x20);
    in(C);
    for (unsigned i = 0; i < 5; i++) {
        pc.wall_ns += 1 * NS_PER_SEC;
        ck_assert_uint_eq(in(C), C_UPDATE | C_ALARM);
    }
}
END_TEST

START_TEST(setting_the_clock_over_the_alarm_is_no_alarm)
{
    set_alarm(0x12, 0x00, 0x00);
    in(C);
    set_time(0x12, 0x00, 0x30);
    ck_assert_uint_eq(in(C)&C_ALARM, 0);
}
END_TEST

START_TEST(a_host_clock_that_is_set_harms_nobody)
{
    set_alarm(0x01, 0x00, 0x00);
    out(B, B_24 | B_ALARM);
    in(C);
    pc.wall_ns -= 3600 * NS_PER_SEC;
    ck_assert_uint_eq(in(C), 0);
    ck_assert_str_eq(shown(), "2024-02-28 22:59:58 4");
    pc.wall_ns += 86400 * NS_PER_SEC; /* over the alarm: better late than never */
    ck_assert_uint_eq(in(C) & (C_IRQ | C_ALARM), C_IRQ | C_ALARM);
}
END_TEST

START_TEST(set_switches_the_update_interrupt_off)
{
    out(B, B_24 | B_SET | B_UPDATE | B_ALARM);
    ck_assert_uint_eq(in(B), B_24 | B_SET | B_ALARM);
}
END_TEST

START_TEST(periodic_interrupts_come_at_their_rate)
{
    enum { COUNT = 20 };

    let_wall_run(WALL);
    out(A, 0x27); /* 512 Hz */
    in(C);
    uint64_t start = clock_monotonic_ns();
    out(B, B_24 | B_PERIODIC);
    for (unsigned i = 0; i < COUNT; i++) {
        if (!pc.chip.level[LINE])
            ck_assert_int_eq(loop_run(pc.loop), 0);
        ck_assert_uint_eq(in(C) & (C_IRQ | C_PERIODIC), C_IRQ | C_PERIODIC);
    }
    /* A slow machine may be late, but never early, and there is no backlog to catch up on. */
    ck_assert_uint_ge(clock_monotonic_ns() - start, (COUNT - 1) * NS_PER_SEC / 512);
}
END_TEST

START_TEST(alarm_and_update_wake_the_guest)
{
    let_wall_run(WALL + 500 * MS); /* enough time to get there before it, on a slow machine */
    out(A, 0x20);
    set_alarm(0x23, 0x59, 0x59);
    in(C);
    out(B, B_24 | (_i == 0 ? B_ALARM : B_UPDATE));
    ck_assert(!pc.chip.level[LINE]);
    ck_assert_int_eq(loop_run(pc.loop), 0); /* ends when the line rises */
    ck_assert_uint_eq(in(SECONDS), 0x59);
    ck_assert_uint_eq(in(C), C_IRQ | C_UPDATE | C_ALARM);
}
END_TEST

START_TEST(no_timer_runs_that_nobody_waits_for)
{
    let_wall_run(WALL);
    out(A, A_FASTEST); /* 8192 Hz */
    unsigned reads = pc.wall_reads;
    run_loop_for(20 * MS);
    ck_assert_uint_eq(pc.wall_reads, reads); /* every handler asks for the time */

    out(B, B_24 | B_PERIODIC); /* a guest that does not look gets one, not 164 */
    ck_assert(pc.chip.level[LINE]);
    reads = pc.wall_reads;
    run_loop_for(20 * MS);
    ck_assert_uint_eq(pc.wall_reads, reads);

    in(C); /* now it waits */
    pc.device->ops->pause(pc.device);
    reads = pc.wall_reads;
    run_loop_for(20 * MS);
    ck_assert_uint_eq(pc.wall_reads, reads);
    ck_assert(!pc.chip.level[LINE]);
    pc.device->ops->resume(pc.device);
    ck_assert(pc.chip.level[LINE]);
}
END_TEST

/* RAM, reset, state */

START_TEST(memory_sizes_are_where_a_bios_puts_them)
{
    ck_assert_uint_eq(in(0x15) | in(0x16) << 8, 640);
    ck_assert_uint_eq(in(0x17) | in(0x18) << 8, 0xffff); /* 64 MiB - 1 KiB is all it can say */
    ck_assert_uint_eq(in(0x30) | in(0x31) << 8, 0xffff);
    ck_assert_uint_eq(in(0x34) | in(0x35) << 8, ((3ull << 30) - (16 << 20)) >> 16);
    ck_assert_uint_eq(in(0x5b) | in(0x5c) << 8 | in(0x5d) << 16, (5ull << 30) >> 16);
}
END_TEST

START_TEST(the_nmi_bit_is_no_part_of_the_index)
{
    out(0x80 | SHUTDOWN, 0x0a);
    ck_assert_uint_eq(in(SHUTDOWN), 0x0a);
    ck_assert_uint_eq(bus_read(pc.ports, 0x70, 1), 0xff);
    bus_write(pc.ports, 0x70, 2, 0x5540); /* index and data at once */
    ck_assert_uint_eq(in(0x40), 0x55);
}
END_TEST

START_TEST(the_battery_outlives_a_reset)
{
    out(SHUTDOWN, 0x0a);
    out(0x7f, 0x77);
    out(MINUTES, 0x30);
    pc.wall_ns += 2 * NS_PER_SEC;
    out(B, B_24 | B_UPDATE);
    ck_assert(pc.chip.level[LINE]);
    out(B, B_SET | B_24 | B_ALARM); /* held, too */
    pc.device->ops->pause(pc.device);
    pc.device->ops->reset(pc.device);
    ck_assert(!pc.chip.level[LINE]);
    pc.device->ops->resume(pc.device);
    ck_assert_uint_eq(in(A), A_NORMAL);
    ck_assert_uint_eq(in(B), B_24);
    ck_assert_uint_eq(in(C), 0);
    ck_assert_uint_eq(in(SHUTDOWN), 0x0a);
    ck_assert_uint_eq(in(0x7f), 0x77);
    ck_assert_str_eq(shown(), "2024-02-28 23:31:00 4");
    pc.wall_ns += 1 * NS_PER_SEC;
    ck_assert_uint_eq(in(SECONDS), 0x01);
}
END_TEST

START_TEST(a_restored_clock_is_right_not_continuous)
{
    struct stream_buffer buffer;

    out(HOURS, 0x20); /* the guest is some hours off, and wants to stay so */
    set_alarm(0x20, 0x59, 0x59);
    in(C);
    out(B, B_24 | B_ALARM);
    pc.device->ops->pause(pc.device);
    struct state_item item = {pc.device->table, pc.device->instance, pc.device->state};
    stream_buffer_init(&buffer, 0);
    ck_assert_int_eq(state_save(&buffer.stream, &item, 1), 0);
    device_destroy(pc.device);

    pc.wall_ns += 1000 * NS_PER_SEC;
    make_rtc();
    pc.device->ops->pause(pc.device);
    item.object = pc.device->state;
    stream_buffer_rewind(&buffer);
    ck_assert_int_eq(state_load(&buffer.stream, &item, 1, NULL), 0);
    pc.device->ops->resume(pc.device);
    ck_assert_str_eq(shown(), "2024-02-28 21:16:38 4");
    ck_assert(pc.chip.level[LINE]); /* the alarm was while we were away */
    stream_buffer_finish(&buffer);
}
END_TEST

START_TEST(a_taken_place_is_refused_and_stays_taken)
{
    const struct rtc_config config = {0};
    struct rtc *second = NULL;

    ck_assert_int_eq(rtc_create(&second, pc.ports, &pc.stopping_chip, LINE, pc.loop, &config, NULL),
                     -EEXIST);
    ck_assert_ptr_null(second);
    ck_assert_uint_eq(in(D), 0x80);
}
END_TEST

START_TEST(state_table_keeps_its_promises)
{
    out(SHUTDOWN, 0x0a);
    out(HOURS, 0x11);
    out(0x80 | B, B_24 | B_ALARM | B_UPDATE);
    pc.wall_ns += 1 * NS_PER_SEC;
    in(C);
    unit_check_table(pc.device->table, pc.device->state);
}
END_TEST

static void hostile_access(uint64_t dice, uint64_t *seed)
{
    if (dice % 256 == 0) { /* a state from a stranger */
        pc.device->ops->pause(pc.device);
        fill_state(pc.device, seed);
        pc.device->ops->resume(pc.device);
    } else if (dice % 256 == 1) {
        pc.device->ops->pause(pc.device);
        pc.device->ops->reset(pc.device);
        pc.device->ops->resume(pc.device);
    } else if (dice % 4 == 0) {
        out(dice >> 8 & (dice & 16 ? 0x0f : 0xff), dice >> 16);
    } else if (dice % 4 == 1) {
        bus_write(pc.ports, 0x70 + (dice >> 8 & 1), 1u << (dice >> 9) % 3, dice >> 16);
    } else {
        in(dice >> 8 & (dice & 16 ? 0x0f : 0xff));
    }
}

START_TEST(a_hostile_guest_changes_nothing_but_its_clock)
{
    uint64_t seed = 0xc10c4;

    for (unsigned i = 0; i < 100000; i++) {
        uint64_t dice = chance(&seed);
        pc.wall_ns += dice % 3 ? 0 : (dice >> 40) % (2 * NS_PER_SEC);
        pc.wall_ns -= dice % 512 == 7 ? NS_PER_SEC : 0;
        hostile_access(chance(&seed), &seed);
        if (i % 16)
            continue;
        ck_assert_int_eq(state_check(pc.device->table, pc.device->state, NULL), 0);
        bool level = pc.chip.level[LINE];
        uint8_t flags = in(C);
        ck_assert(!level || (flags & C_IRQ));
        ck_assert_int_eq(!!(flags & C_IRQ), (in(B)&flags & 0x70) != 0);
        ck_assert(!pc.chip.level[LINE]);
    }
    /* Whatever state it left: with a moving wall clock the update bit ends. */
    uint64_t start = pc.wall_ns;
    while (in(A)&A_UPDATING)
        ck_assert_uint_lt((pc.wall_ns += 100000) - start, 5 * MS);
    run_loop_for(1 * MS);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("rtc");
    TCase *date = tcase_create("date");
    TCase *rtc = tcase_create("rtc");

    tcase_add_test(date, every_format_names_the_date_that_libc_names);
    tcase_add_test(date, twelve_hours_have_a_noon_and_a_midnight);
    tcase_add_test(date, any_bytes_are_some_date);
    tcase_add_test(date, the_next_alarm_is_what_a_slow_search_finds);
    suite_add_tcase(suite, date);

    tcase_add_checked_fixture(rtc, set_up, tear_down);
    tcase_add_test(rtc, the_clock_shows_the_hosts_utc);
    tcase_add_test(rtc, what_the_guest_sets_goes_on_from_there);
    tcase_add_test(rtc, a_running_clock_takes_writes_too);
    tcase_add_test(rtc, the_first_second_after_a_divider_reset_is_half_as_long);
    tcase_add_test(rtc, impossible_dates_become_possible_ones);
    tcase_add_test(rtc, update_in_progress_warns_before_the_second_changes);
    tcase_add_test(rtc, update_in_progress_can_be_waited_for);
    tcase_add_test(rtc, flags_are_set_without_interrupts_and_cleared_by_reading);
    tcase_add_test(rtc, an_enable_finds_a_flag_that_is_set);
    tcase_add_test(rtc, every_second_of_an_alarm_full_of_wildcards_counts);
    tcase_add_test(rtc, setting_the_clock_over_the_alarm_is_no_alarm);
    tcase_add_test(rtc, a_host_clock_that_is_set_harms_nobody);
    tcase_add_test(rtc, set_switches_the_update_interrupt_off);
    tcase_add_test(rtc, periodic_interrupts_come_at_their_rate);
    tcase_add_loop_test(rtc, alarm_and_update_wake_the_guest, 0, 2);
    tcase_add_test(rtc, no_timer_runs_that_nobody_waits_for);
    tcase_add_test(rtc, memory_sizes_are_where_a_bios_puts_them);
    tcase_add_test(rtc, the_nmi_bit_is_no_part_of_the_index);
    tcase_add_test(rtc, the_battery_outlives_a_reset);
    tcase_add_test(rtc, a_restored_clock_is_right_not_continuous);
    tcase_add_test(rtc, a_taken_place_is_refused_and_stays_taken);
    tcase_add_test(rtc, state_table_keeps_its_promises);
    tcase_add_test(rtc, a_hostile_guest_changes_nothing_but_its_clock);
    suite_add_tcase(suite, rtc);
    return unit_main(suite);
}
