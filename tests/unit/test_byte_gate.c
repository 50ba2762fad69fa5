/* SPDX-License-Identifier: MIT */
#include "core/thread.h"
#include "host/byte_gate.h"
#include "tests/unit/unit.h"

#include <stdatomic.h>
#include <stdlib.h>

enum { SEEN_MOST = 4 << 20 };

static struct byte_gate *gate;
static uint8_t *seen;
static _Atomic size_t seen_count;
static unsigned waits;
static _Atomic unsigned rooms;

static void handle_output(void *ctx, const uint8_t *bytes, size_t length)
{
    size_t at = atomic_load(&seen_count);
    ck_assert_uint_gt(length, 0);
    ck_assert_uint_le(length, SEEN_MOST - at);
    memcpy(seen + at, bytes, length);
    atomic_store(&seen_count, at + length);
}

static void handle_room(void *ctx)
{
    rooms++;
}

static void handle_waits(void *ctx)
{
    waits++;
}

static void set_up(void)
{
    const struct byte_gate_handlers handlers = {.output = handle_output, .room = handle_room};
    seen = malloc(SEEN_MOST);
    seen_count = 0;
    waits = 0;
    rooms = 0;
    ck_assert_int_eq(byte_gate_create(&gate, &handlers, NULL), 0);
    byte_gate_watch(gate, handle_waits, NULL);
}

static void tear_down(void)
{
    byte_gate_destroy(gate);
    free(seen);
}

static void put(const char *text)
{
    byte_gate_write(gate, (const uint8_t *)text, strlen(text));
}

/* All that was seen, and seen for the first time now. */
static void expect(const char *text)
{
    ck_assert_uint_eq(seen_count, strlen(text));
    ck_assert_mem_eq(seen, text, strlen(text));
    seen_count = 0;
}

/* Byte p of a long row. */
static uint8_t byte_of(uint64_t p)
{
    return (uint8_t)(p * 7 + p / 251);
}

static void put_row(uint64_t from, size_t length)
{
    uint8_t *bytes = malloc(length);
    for (size_t i = 0; i < length; i++)
        bytes[i] = byte_of(from + i);
    byte_gate_write(gate, bytes, length);
    free(bytes);
}

static void expect_row(uint64_t length)
{
    uint64_t same = 0; /* libcheck writes a word for each look: one is enough */
    ck_assert_uint_eq(seen_count, length);
    while (same < length && seen[same] == byte_of(same))
        same++;
    ck_assert_uint_eq(same, length);
}

START_TEST(an_open_gate_lets_all_pass)
{
    put("a");
    put("");
    put("bc");
    expect("abc");
    ck_assert_uint_eq(byte_gate_takes(gate), SIZE_MAX);
    ck_assert_uint_eq(byte_gate_held(gate), 0);
    ck_assert_uint_eq(waits, 0);
}
END_TEST

START_TEST(bytes_leave_by_their_number_and_in_order)
{
    byte_gate_hold(gate, 5, 100);
    put("five ");
    byte_gate_mark(gate, 6);
    put("si");
    put("x ");
    byte_gate_mark(gate, 9);
    put("nine");
    expect("");
    ck_assert_uint_eq(byte_gate_held(gate), 13);
    byte_gate_release(gate, 4);
    expect("");
    byte_gate_release(gate, 5);
    expect("five ");
    byte_gate_release(gate, 8);
    expect("six ");
    byte_gate_release(gate, 7); /* late news */
    expect("");
    byte_gate_release(gate, 9);
    expect("nine");
    ck_assert_uint_eq(byte_gate_held(gate), 0);
}
END_TEST

START_TEST(what_was_allowed_before_it_came_does_not_wait)
{
    byte_gate_hold(gate, 1, 100);
    byte_gate_release(gate, 2);
    put("one ");
    byte_gate_mark(gate, 2);
    put("two ");
    byte_gate_mark(gate, 3);
    put("three");
    expect("one two ");
    ck_assert_uint_eq(waits, 1);
    byte_gate_release(gate, UINT64_MAX);
    expect("three");
}
END_TEST

START_TEST(who_watches_hears_once_for_each_mark)
{
    byte_gate_hold(gate, 1, 100);
    put("a");
    put("b");
    ck_assert_uint_eq(waits, 1);
    byte_gate_mark(gate, 2);
    ck_assert_uint_eq(waits, 1);
    put("c");
    put("d");
    ck_assert_uint_eq(waits, 2);
    byte_gate_hold(gate, 3, 100); /* as a mark */
    put("e");
    ck_assert_uint_eq(waits, 3);
    byte_gate_release(gate, 2);
    expect("abcd");
}
END_TEST

START_TEST(a_full_gate_says_so_and_once_that_it_is_not)
{
    byte_gate_hold(gate, 1, 8);
    ck_assert_uint_eq(byte_gate_takes(gate), 8);
    put("123456");
    ck_assert_uint_eq(byte_gate_takes(gate), 2);
    put("78");
    ck_assert_uint_eq(byte_gate_takes(gate), 0);
    ck_assert_uint_eq(byte_gate_takes(gate), 0);
    byte_gate_mark(gate, 2);
    byte_gate_release(gate, 0);
    ck_assert_uint_eq(rooms, 0);
    byte_gate_release(gate, 1);
    ck_assert_uint_eq(rooms, 1);
    expect("12345678");
    put("9");
    byte_gate_release(gate, 2);
    ck_assert_uint_eq(rooms, 1); /* nobody has asked again */
}
END_TEST

START_TEST(who_waits_for_room_hears_of_open_and_of_shut)
{
    byte_gate_hold(gate, 1, 0); /* no budget is none at all */
    put("a");
    ck_assert_uint_eq(byte_gate_takes(gate), 0);
    if (_i)
        byte_gate_open(gate);
    else
        byte_gate_shut(gate);
    ck_assert_uint_eq(rooms, 1);
    ck_assert_uint_eq(byte_gate_takes(gate), SIZE_MAX);
    expect(_i ? "a" : "");
}
END_TEST

/* Those of a guest that does not look whether its line is busy. */
START_TEST(bytes_beyond_the_budget_have_a_reserve)
{
    enum { SOME = 1000 };
    byte_gate_hold(gate, 1, 1);
    for (unsigned at = 0; at < BYTE_GATE_RESERVE; at += SOME)
        put_row(at, at + SOME < BYTE_GATE_RESERVE ? SOME : BYTE_GATE_RESERVE - at);
    ck_assert_uint_eq(byte_gate_held(gate), BYTE_GATE_RESERVE);
    byte_gate_release(gate, 1);
    expect_row(BYTE_GATE_RESERVE);
}
END_TEST

START_TEST(what_is_lost_leaves_a_line_in_its_place)
{
    enum { ALL = BYTE_GATE_MOST + BYTE_GATE_RESERVE };
    byte_gate_hold(gate, 1, SIZE_MAX);
    put_row(0, ALL - 3);
    byte_gate_mark(gate, 2);
    put_row(ALL - 3, 10);
    put("lost, too");
    ck_assert_uint_eq(byte_gate_held(gate), ALL);
    byte_gate_release(gate, 1);
    put("and so");
    expect_row(ALL - 3);
    byte_gate_release(gate, 2);
    ck_assert_uint_eq(seen[ALL - 1], byte_of(ALL - 1));
    seen_count -= ALL;
    memmove(seen, seen + ALL, seen_count);
    expect("\r\n[minivmm: 22 bytes were lost here]\r\n");
    byte_gate_mark(gate, 3);
    put("here again");
    byte_gate_release(gate, 3);
    expect("here again");
}
END_TEST

START_TEST(more_spans_than_places_leave_late_and_never_early)
{
    byte_gate_hold(gate, 0, 1000);
    for (uint64_t number = 0; number < 200; number++) {
        byte_gate_mark(gate, number);
        put_row(number, 1);
    }
    for (uint64_t number = 0; number < 200; number++) {
        byte_gate_release(gate, number);
        ck_assert_uint_le(seen_count, number + 1);
    }
    expect_row(200);
}
END_TEST

START_TEST(a_long_row_in_many_spans_arrives_whole)
{
    uint64_t put_so_far = 0;
    byte_gate_hold(gate, 0, 1 << 17);
    for (uint64_t number = 1; put_so_far < SEEN_MOST - 100000; number++) {
        size_t length = 1 + number * 37 % 9973;
        put_row(put_so_far, length);
        put_so_far += length;
        byte_gate_mark(gate, number);
        if (number % 3 == 0)
            byte_gate_release(gate, number - 2);
    }
    byte_gate_open(gate);
    expect_row(put_so_far);
}
END_TEST

START_TEST(held_again_after_an_open_numbers_begin_anew)
{
    byte_gate_hold(gate, 7, 100);
    put("a");
    byte_gate_release(gate, 100);
    byte_gate_open(gate);
    put("b");
    byte_gate_hold(gate, 2, 100);
    put("c");
    expect("ab");
    ck_assert_uint_eq(waits, 2);
    byte_gate_release(gate, 2);
    expect("c");
}
END_TEST

START_TEST(shut_is_for_good)
{
    byte_gate_hold(gate, 1, 100);
    put("a");
    byte_gate_shut(gate);
    put("b");
    byte_gate_open(gate);
    byte_gate_release(gate, 5);
    byte_gate_hold(gate, 6, 100);
    byte_gate_mark(gate, 7);
    put("c");
    byte_gate_release(gate, 9);
    expect("");
    ck_assert_uint_eq(byte_gate_held(gate), 0);
}
END_TEST

/* --- threads ---------------------------------------------------------------------------------- */

static struct thread writer;
static _Atomic bool stop;
static _Atomic uint64_t written;

/* As a device does that can wait, in one of its turns. */
static void write_a_turn(void)
{
    uint64_t at = atomic_load(&written);
    size_t takes = byte_gate_takes(gate), length = 1 + at % 3000;
    if (length > takes)
        length = takes;
    if (length == 0 || at + length > SEEN_MOST)
        return;
    put_row(at, length);
    atomic_store(&written, at + length);
}

static void write_row(void *arg)
{
    while (!atomic_load(&stop))
        write_a_turn();
}

static void start_writer(void)
{
    stop = false;
    written = 0;
    ck_assert_int_eq(thread_start(&writer, "writer", write_row, NULL, NULL), 0);
}

static void stop_writer(void)
{
    stop = true;
    thread_join(&writer);
}

START_TEST(released_and_opened_from_elsewhere_all_arrives_in_order)
{
    byte_gate_hold(gate, 1, 5000);
    start_writer();
    for (uint64_t number = 2; atomic_load(&seen_count) < SEEN_MOST / 4; number++) {
        byte_gate_mark(gate, number);
        byte_gate_release(gate, number - 1);
        if (number % 50 == 0) {
            byte_gate_open(gate);
            byte_gate_hold(gate, number, 5000);
        }
    }
    stop_writer();
    byte_gate_open(gate);
    expect_row(written);
}
END_TEST

START_TEST(after_a_shut_from_elsewhere_nothing_leaves)
{
    byte_gate_hold(gate, 1, 5000);
    if (_i)
        byte_gate_open(gate);
    start_writer();
    while (atomic_load(&written) < 3000)
        byte_gate_held(gate);
    byte_gate_mark(gate, 2);
    byte_gate_release(gate, 1);
    byte_gate_shut(gate);
    size_t at_the_shut = atomic_load(&seen_count);
    while (atomic_load(&written) < SEEN_MOST / 8)
        byte_gate_open(gate);
    stop_writer();
    expect_row(at_the_shut);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("byte_gate");
    TCase *tcase = tcase_create("byte_gate");

    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, set_up, tear_down);
    tcase_add_test(tcase, an_open_gate_lets_all_pass);
    tcase_add_test(tcase, bytes_leave_by_their_number_and_in_order);
    tcase_add_test(tcase, what_was_allowed_before_it_came_does_not_wait);
    tcase_add_test(tcase, who_watches_hears_once_for_each_mark);
    tcase_add_test(tcase, a_full_gate_says_so_and_once_that_it_is_not);
    tcase_add_loop_test(tcase, who_waits_for_room_hears_of_open_and_of_shut, 0, 2);
    tcase_add_test(tcase, bytes_beyond_the_budget_have_a_reserve);
    tcase_add_test(tcase, what_is_lost_leaves_a_line_in_its_place);
    tcase_add_test(tcase, more_spans_than_places_leave_late_and_never_early);
    tcase_add_test(tcase, a_long_row_in_many_spans_arrives_whole);
    tcase_add_test(tcase, held_again_after_an_open_numbers_begin_anew);
    tcase_add_test(tcase, shut_is_for_good);
    tcase_add_test(tcase, released_and_opened_from_elsewhere_all_arrives_in_order);
    tcase_add_loop_test(tcase, after_a_shut_from_elsewhere_nothing_leaves, 0, 2);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
