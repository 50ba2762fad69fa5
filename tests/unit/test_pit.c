/* SPDX-License-Identifier: MIT */
/* Registers and counting modes; interrupts and state are in test_pit_time.c. */
#include "tests/unit/pit_fixture.h"

static bool out2(void)
{
    return in(PORT_B)&0x20;
}

/* Reading and writing counts. */

START_TEST(a_boot_loader_reads_falling_counts_through_the_latch)
{
    out(PORT_B, 1);
    set(2, 0, 0xffff);
    after(1);
    unsigned before = read_count(2);
    ck_assert_uint_eq(before, 0xffff);
    for (unsigned i = 1; i < 100; i++) {
        after(600);
        unsigned now = read_count(2);
        ck_assert_uint_eq(now, before - 600);
        before = now;
    }
}
END_TEST

START_TEST(a_latched_count_stands_still_until_it_has_been_read)
{
    set(0, 2, 10000);
    after(1001);
    out(CONTROL, LATCH(0));
    after(500);
    out(CONTROL, LATCH(0)); /* the first one holds */
    ck_assert_uint_eq(in(COUNTER_0), 9000 & 0xff);
    after(500);
    ck_assert_uint_eq(in(COUNTER_0), 9000 >> 8);
    ck_assert_uint_eq(read_count(0), 8000);
}
END_TEST

START_TEST(unlatched_reads_alternate_low_and_high)
{
    set(0, 2, 0x1234);
    after(1);
    ck_assert_uint_eq(in(COUNTER_0), 0x34);
    ck_assert_uint_eq(in(COUNTER_0), 0x12);
    after(0x10);
    ck_assert_uint_eq(in(COUNTER_0), 0x24);
    out(CONTROL, SET(0, 2)); /* a control word starts with the low byte again */
    write_count(0, 0x5678);
    after(1);
    ck_assert_uint_eq(in(COUNTER_0), 0x78);
}
END_TEST

START_TEST(single_byte_access_reads_and_writes_its_byte)
{
    out(CONTROL, 0x94); /* counter 2, low byte, mode 2 */
    out(PORT_B, 1);
    out(COUNTER_2, 200);
    after(11);
    ck_assert_uint_eq(in(COUNTER_2), 190);
    ck_assert_uint_eq(in(COUNTER_2), 190);
    out(CONTROL, LATCH(2));
    after(10);
    ck_assert_uint_eq(in(COUNTER_2), 190);
    ck_assert_uint_eq(in(COUNTER_2), 180);

    out(CONTROL, 0xa4); /* high byte */
    out(COUNTER_2, 0x80);
    after(1 + 0x1000);
    ck_assert_uint_eq(in(COUNTER_2), 0x70);
    ck_assert_uint_eq(in(COUNTER_2), 0x70);
}
END_TEST

START_TEST(bcd_counts_in_decimal)
{
    out(PORT_B, 1);
    out(CONTROL, SET(2, 0) | 1);
    write_count(2, 0x1000);
    after(2);
    ck_assert_uint_eq(read_count(2), 0x0999);
    after(999);
    ck_assert_uint_eq(read_count(2), 0x0000);
    after(1);
    ck_assert_uint_eq(read_count(2), 0x9999);
    out(CONTROL, SET(2, 2) | 1);
    write_count(2, 0); /* 10000 */
    after(1);
    ck_assert_uint_eq(read_count(2), 0);
    after(9999);
    ck_assert_uint_eq(read_count(2), 1);
    after(1);
    ck_assert_uint_eq(read_count(2), 0);
}
END_TEST

START_TEST(read_back_latches_status_and_count_of_several_counters)
{
    out(PORT_B, 1);
    set(0, 2, 1000);
    set(2, 3, 2000);
    after(101);
    out(CONTROL, 0xc0 | 2 | 8); /* count and status of 0 and 2 */
    after(50);
    ck_assert_uint_eq(in(COUNTER_0), 0x80 | 0x34); /* status first */
    ck_assert_uint_eq(read_both(0), 900);
    ck_assert_uint_eq(in(COUNTER_2), 0x80 | 0x36);
    ck_assert_uint_eq(read_both(2), 1800);
}
END_TEST

START_TEST(status_says_when_a_count_is_not_loaded_yet)
{
    out(CONTROL, SET(0, 2));
    ck_assert_uint_eq(read_status(0), 0x80 | 0x40 | 0x34);
    write_count(0, 1000);
    ck_assert_uint_eq(read_status(0), 0x80 | 0x40 | 0x34);
    after(1);
    ck_assert_uint_eq(read_status(0), 0x80 | 0x34);
    write_count(0, 500); /* waits for the end of the period */
    ck_assert_uint_eq(read_status(0), 0x80 | 0x40 | 0x34);
    run_after(1000);
    ck_assert_uint_eq(read_status(0), 0x80 | 0x34);
}
END_TEST

START_TEST(the_control_port_reads_all_ones)
{
    ck_assert_uint_eq(in(CONTROL), 0xff);
}
END_TEST

/* The modes. */

START_TEST(mode_0_rises_one_tick_after_its_count_and_counts_on)
{
    out(PORT_B, 1);
    set(2, 0, 100);
    ck_assert(!out2());
    after(100);
    ck_assert(!out2());
    ck_assert_uint_eq(read_count(2), 1);
    after(1);
    ck_assert(out2());
    ck_assert_uint_eq(read_count(2), 0);
    after(1);
    ck_assert(out2());
    ck_assert_uint_eq(read_count(2), 0xffff);
    write_count(2, 5); /* a new count takes it down again */
    ck_assert(!out2());
}
END_TEST

START_TEST(mode_0_stands_still_between_the_two_bytes_of_a_count)
{
    set(0, 0, 100);
    out(COUNTER_0, 50);
    run_after(1000);
    ck_assert_uint_eq(rises, 0);
    out(COUNTER_0, 0);
    run_after(51);
    ck_assert_uint_eq(rises, 1);
}
END_TEST

START_TEST(mode_0_holds_its_count_while_the_gate_is_low)
{
    set(2, 0, 1000);
    after(5000);
    ck_assert_uint_eq(read_count(2), 1000);
    out(PORT_B, 1);
    after(400);
    out(PORT_B, 0);
    after(5000);
    ck_assert_uint_eq(read_count(2), 600);
    ck_assert(!out2());
    out(PORT_B, 1);
    after(599);
    ck_assert(!out2());
    after(1);
    ck_assert(out2());
}
END_TEST

START_TEST(mode_1_is_a_one_shot_of_the_gate)
{
    set(2, 1, 100);
    after(1000);
    ck_assert(out2());
    out(PORT_B, 1);
    after(1);
    ck_assert(!out2());
    out(PORT_B, 0); /* its level does not matter */
    after(50);
    ck_assert(!out2());
    out(PORT_B, 1); /* a new rise starts anew */
    after(100);
    ck_assert(!out2());
    after(1);
    ck_assert(out2());
    write_count(2, 10); /* waits for the next trigger */
    after(100);
    ck_assert(out2());
    out(PORT_B, 0);
    out(PORT_B, 1);
    after(10);
    ck_assert(!out2());
    after(1);
    ck_assert(out2());
}
END_TEST

START_TEST(mode_2_is_low_for_the_last_tick_of_each_period)
{
    out(PORT_B, 1);
    set(2, 2, 100);
    after(1);
    for (int period = 0; period < 3; period++) {
        ck_assert(out2());
        ck_assert_uint_eq(read_count(2), 100);
        after(98);
        ck_assert(out2());
        after(1);
        ck_assert(!out2());
        ck_assert_uint_eq(read_count(2), 1);
        after(1);
    }
}
END_TEST

START_TEST(the_gate_stops_mode_2_and_starts_it_anew)
{
    out(PORT_B, 1);
    set(2, 2, 100);
    after(100);
    ck_assert(!out2());
    out(PORT_B, 0);
    ck_assert(out2()); /* at once */
    after(1000);
    ck_assert_uint_eq(read_count(2), 1);
    write_count(2, 60); /* comes into force with the trigger */
    out(PORT_B, 1);
    after(1);
    ck_assert_uint_eq(read_count(2), 60);
}
END_TEST

START_TEST(a_new_count_in_mode_2_waits_for_the_end_of_the_period)
{
    set(0, 2, 1000);
    after(1 + 300);
    write_count(0, 400);
    after(100);
    ck_assert_uint_eq(read_count(0), 600);
    run_after(600); /* the period ends as it began */
    ck_assert_uint_eq(rises, 2);
    ck_assert_uint_eq(read_count(0), 400);
    run_after(399);
    ck_assert_uint_eq(rises, 2);
    run_after(1);
    ck_assert_uint_eq(rises, 3);
}
END_TEST

START_TEST(mode_3_is_a_square_wave_that_counts_by_two)
{
    out(PORT_B, 1);
    set(2, 3, 100);
    after(1);
    for (int period = 0; period < 3; period++) {
        ck_assert(out2());
        ck_assert_uint_eq(read_count(2), 100);
        after(49);
        ck_assert(out2());
        ck_assert_uint_eq(read_count(2), 2);
        after(1);
        ck_assert(!out2());
        ck_assert_uint_eq(read_count(2), 100);
        after(50);
    }
}
END_TEST

START_TEST(mode_3_gives_the_odd_tick_to_the_high_half)
{
    out(PORT_B, 1);
    set(2, 3, 5);
    after(1);
    static const bool wave[] = {1, 1, 1, 0, 0, 1, 1, 1, 0, 0};
    static const unsigned counts[] = {4, 2, 0, 4, 2, 4, 2, 0, 4, 2};
    for (unsigned i = 0; i < array_size(wave); i++) {
        ck_assert_int_eq(out2(), wave[i]);
        ck_assert_uint_eq(read_count(2), counts[i]);
        after(1);
    }
}
END_TEST

START_TEST(a_new_count_in_mode_3_waits_for_the_end_of_the_half)
{
    out(PORT_B, 1);
    set(2, 3, 1000);
    after(1 + 100);
    write_count(2, 200);
    after(399);
    ck_assert(out2());
    after(1); /* the new low half: 100 ticks */
    ck_assert(!out2());
    ck_assert_uint_eq(read_count(2), 200);
    after(99);
    ck_assert(!out2());
    after(1);
    ck_assert(out2());
}
END_TEST

START_TEST(mode_4_strobes_once)
{
    out(PORT_B, 1);
    set(2, 4, 100);
    after(100);
    ck_assert(out2());
    after(1);
    ck_assert(!out2());
    after(1);
    ck_assert(out2());
    after(0x10000);
    ck_assert(out2());
}
END_TEST

START_TEST(mode_5_strobes_after_a_trigger)
{
    set(2, 5, 100);
    after(500);
    ck_assert(out2());
    out(PORT_B, 1);
    after(100);
    ck_assert(out2());
    after(1);
    ck_assert(!out2());
    after(1);
    ck_assert(out2());
}
END_TEST

START_TEST(modes_6_and_7_are_2_and_3)
{
    set(0, 6, 1000);
    set(1, 7, 1000);
    after(101);
    ck_assert_uint_eq(read_count(0), 900);
    ck_assert_uint_eq(read_count(1), 800);
    ck_assert_uint_eq(read_status(0), 0x80 | 0x3c); /* the control word as it was written */
}
END_TEST

/* Port B. */

START_TEST(port_b_keeps_four_bits)
{
    out(PORT_B, 0xff);
    ck_assert_uint_eq(in(PORT_B) & ~0x30u, 0x0f);
    out(PORT_B, 0x02);
    ck_assert_uint_eq(in(PORT_B) & ~0x30u, 0x02);
}
END_TEST

START_TEST(the_refresh_bit_toggles_every_15_microseconds)
{
    unsigned toggles = 0;
    unsigned before = in(PORT_B)&0x10;
    for (uint64_t ns = 0; ns < 1000 * 15085; ns += 1000) {
        guest_clock_set(&guest_clock, ns);
        unsigned now = in(PORT_B)&0x10;
        toggles += now != before;
        before = now;
    }
    ck_assert_uint_ge(toggles, 999);
    ck_assert_uint_le(toggles, 1000);
}
END_TEST

/* Linux: mode 0 on counter 2, poll bit 5 of port B; 50 ms must be 50 ms. */
START_TEST(linux_calibrates_with_counter_2)
{
    unsigned count = PIT_HZ / 20;
    out(PORT_B, (in(PORT_B) & ~2u) | 1);
    set(2, 0, count);
    uint64_t began = guest_clock_now(&guest_clock);
    while (!out2())
        after(1);
    uint64_t took = guest_clock_now(&guest_clock) - began;
    ck_assert_uint_ge(took, 49999000);
    ck_assert_uint_le(took, 50002000);
}
END_TEST

int main(void)
{
    const TTest *const counts[] = {
        a_boot_loader_reads_falling_counts_through_the_latch,
        a_latched_count_stands_still_until_it_has_been_read,
        unlatched_reads_alternate_low_and_high,
        single_byte_access_reads_and_writes_its_byte,
        bcd_counts_in_decimal,
        read_back_latches_status_and_count_of_several_counters,
        status_says_when_a_count_is_not_loaded_yet,
        the_control_port_reads_all_ones,
        port_b_keeps_four_bits,
        the_refresh_bit_toggles_every_15_microseconds,
        linux_calibrates_with_counter_2,
    };
    const TTest *const modes[] = {
        mode_0_rises_one_tick_after_its_count_and_counts_on,
        mode_0_stands_still_between_the_two_bytes_of_a_count,
        mode_0_holds_its_count_while_the_gate_is_low,
        mode_1_is_a_one_shot_of_the_gate,
        mode_2_is_low_for_the_last_tick_of_each_period,
        the_gate_stops_mode_2_and_starts_it_anew,
        a_new_count_in_mode_2_waits_for_the_end_of_the_period,
        mode_3_is_a_square_wave_that_counts_by_two,
        mode_3_gives_the_odd_tick_to_the_high_half,
        a_new_count_in_mode_3_waits_for_the_end_of_the_half,
        mode_4_strobes_once,
        mode_5_strobes_after_a_trigger,
        modes_6_and_7_are_2_and_3,
    };
    Suite *suite = suite_create("pit");
    add_case(suite, "counts", counts, array_size(counts));
    add_case(suite, "modes", modes, array_size(modes));
    return unit_main(suite);
}
