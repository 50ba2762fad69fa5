/* SPDX-License-Identifier: MIT */
#include "core/clock.h"
#include "tests/unit/unit.h"
#include <sched.h>
#include <time.h>

/* Host time moves on by at least ns: an event of its own, waited for without sleeping. */
static void let_time_pass(uint64_t ns)
{
    uint64_t start = clock_monotonic_ns();
    while (clock_monotonic_ns() - start < ns)
        sched_yield();
}

START_TEST(monotonic_time_never_goes_back)
{
    uint64_t last = clock_monotonic_ns();

    for (unsigned i = 0; i < 10000; i++) {
        uint64_t now = clock_monotonic_ns();
        ck_assert_uint_ge(now, last);
        last = now;
    }
}
END_TEST

START_TEST(wall_time_is_what_the_host_says)
{
    uint64_t before = (uint64_t)time(NULL), wall = clock_wall_ns() / NS_PER_SEC;

    ck_assert_uint_ge(wall, before - 1);
    ck_assert_uint_le(wall, (uint64_t)time(NULL) + 1);
}
END_TEST

START_TEST(scale_neither_overflows_nor_drifts)
{
    const uint64_t pit = 1193182, century = 100ull * 365 * 86400 * NS_PER_SEC;

    ck_assert_uint_eq(clock_scale(NS_PER_SEC, pit, NS_PER_SEC), pit);
    ck_assert_uint_eq(clock_scale(century, pit, NS_PER_SEC), 100ull * 365 * 86400 * pit);
    ck_assert_uint_eq(clock_scale(UINT64_MAX, UINT64_MAX, UINT64_MAX), UINT64_MAX);
    ck_assert_uint_eq(clock_scale(5, 3, 2), 7); /* rounds down */
    ck_assert_uint_eq(clock_scale(0, 3, 2), 0);
}
END_TEST

START_TEST(guest_time_starts_stopped_at_zero)
{
    struct guest_clock clock = {0};

    ck_assert_uint_eq(guest_clock_now(&clock), 0);
    let_time_pass(1000);
    ck_assert_uint_eq(guest_clock_now(&clock), 0);
}
END_TEST

START_TEST(guest_time_runs_as_fast_as_the_host)
{
    struct guest_clock clock = {0};
    uint64_t outer = clock_monotonic_ns();

    guest_clock_start(&clock);
    uint64_t inner = clock_monotonic_ns();
    let_time_pass(100000);
    uint64_t least = clock_monotonic_ns() - inner;
    uint64_t guest = guest_clock_now(&clock);
    uint64_t most = clock_monotonic_ns() - outer;
    ck_assert_uint_ge(guest, least);
    ck_assert_uint_le(guest, most);
}
END_TEST

START_TEST(guest_time_is_frozen_in_a_pause_and_catches_up)
{
    struct guest_clock clock = {0};

    uint64_t born = clock_monotonic_ns();
    guest_clock_start(&clock);
    let_time_pass(10000);
    guest_clock_stop(&clock);
    uint64_t stopped = guest_clock_now(&clock);
    ck_assert_uint_ge(stopped, 10000);
    let_time_pass(5000000);
    ck_assert_uint_eq(guest_clock_now(&clock), stopped);
    guest_clock_stop(&clock); /* once more changes nothing */
    ck_assert_uint_eq(guest_clock_now(&clock), stopped);

    guest_clock_start(&clock);
    ck_assert_uint_ge(guest_clock_now(&clock), stopped + 5000000);
    ck_assert_uint_le(guest_clock_now(&clock), clock_monotonic_ns() - born);
}
END_TEST

START_TEST(starting_twice_is_no_jump)
{
    struct guest_clock clock = {0};

    guest_clock_start(&clock);
    let_time_pass(1000);
    uint64_t before = guest_clock_now(&clock);
    guest_clock_start(&clock);
    ck_assert_uint_ge(guest_clock_now(&clock), before);
}
END_TEST

START_TEST(guest_time_travels_with_the_state)
{
    struct guest_clock clock = {0};

    guest_clock_set(&clock, 7 * NS_PER_SEC);
    ck_assert_uint_eq(guest_clock_now(&clock), 7 * NS_PER_SEC);
    guest_clock_start(&clock);
    ck_assert_uint_ge(guest_clock_now(&clock), 7 * NS_PER_SEC);
}
END_TEST

START_TEST(a_guest_deadline_has_its_moment_on_the_host)
{
    struct guest_clock clock = {0};
    uint64_t due = 7 * NS_PER_SEC + 50000;

    guest_clock_set(&clock, 7 * NS_PER_SEC);
    guest_clock_start(&clock);
    uint64_t moment = guest_clock_to_host(&clock, due);
    while (clock_monotonic_ns() < moment)
        ;
    ck_assert_uint_ge(guest_clock_now(&clock), due);
    /* Deadlines of the past are in the host's past too. */
    ck_assert_uint_le(guest_clock_to_host(&clock, 1), clock_monotonic_ns());
    /* A hostile deadline is far away, not wrapped into the past. */
    ck_assert_uint_gt(guest_clock_to_host(&clock, UINT64_MAX), UINT64_MAX / 2);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("clock");
    TCase *host = tcase_create("host");
    TCase *guest = tcase_create("guest");

    tcase_add_test(host, monotonic_time_never_goes_back);
    tcase_add_test(host, wall_time_is_what_the_host_says);
    tcase_add_test(host, scale_neither_overflows_nor_drifts);
    suite_add_tcase(suite, host);
    tcase_add_test(guest, guest_time_starts_stopped_at_zero);
    tcase_add_test(guest, guest_time_runs_as_fast_as_the_host);
    tcase_add_test(guest, guest_time_is_frozen_in_a_pause_and_catches_up);
    tcase_add_test(guest, starting_twice_is_no_jump);
    tcase_add_test(guest, guest_time_travels_with_the_state);
    tcase_add_test(guest, a_guest_deadline_has_its_moment_on_the_host);
    suite_add_tcase(suite, guest);
    return unit_main(suite);
}
