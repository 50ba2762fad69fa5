/* SPDX-License-Identifier: MIT */
/*
 * An open gate on a leash. One that ran out long ago and one that lasts for ever are as good as
 * waiting; only the first test looks at the clock.
 */
#include "tests/unit/gate_rig.h"
#include <sched.h>

enum { BUDGET = 1 << 20, BIG = NETIF_MAX_FRAME };

#define GONE  1
#define LASTS UINT64_MAX

static struct gate_rig rig;

static void set_up(void)
{
    rig_init(&rig);
}

static void tear_down(void)
{
    rig_finish(&rig);
}

static void leash(uint64_t until_ns)
{
    netif_gate_leash(rig.gate, until_ns);
}

static void send_some(unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        ck_assert_int_gt(rig_send(&rig, i % QUEUES, SMALLEST + rig.row), 0);
}

static void settle_until_empty(void)
{
    for (unsigned i = 0; netif_gate_held(rig.gate); i++) {
        ck_assert_uint_lt(i, 5000);
        rig_settle(&rig);
    }
}

/* So many frames are at the gate: some of an earlier hold, behind a wire that has taken one. */
static void open_with_some(unsigned count)
{
    rig_hold(&rig, 100, BUDGET);
    send_some(count + 1);
    rig.wire.room = 1;
    netif_gate_open(rig.gate);
    rig_settle(&rig);
    rig_expect(&rig, 1);
}

START_TEST(it_runs_out_by_itself)
{
    uint64_t until = clock_boot_ns() + NS_PER_SEC / 50;

    leash(until);
    while (clock_boot_ns() < until)
        sched_yield();
    send_some(3);
    rig_settle(&rig);
    rig_expect(&rig, 0);
}
END_TEST

START_TEST(while_it_lasts_it_is_not_there)
{
    leash(_i ? clock_boot_ns() + 3600 * NS_PER_SEC : 0);
    for (unsigned i = 0; i < 100; i++) {
        send_some(1);
        ck_assert_uint_eq(rig.wire.seen_count, i + 1); /* at once */
    }
    rig_expect(&rig, 100);
    rig.wire.room = 0;
    ck_assert_int_eq(rig_send(&rig, 2, SMALLEST), -EAGAIN);
    rig_watch(&rig, 2, NETIF_WRITABLE);
    ck_assert_uint_eq(rig.wire.watched[2], NETIF_WRITABLE);
    ck_assert_uint_eq(netif_gate_held(rig.gate), 0);
}
END_TEST

/* 0: whoever was asked to look after it does so no more, and it is as ever. */
START_TEST(what_is_sent_after_its_end_leaves_when_it_is_renewed)
{
    leash(GONE);
    send_some(20);
    rig_settle(&rig);
    rig_expect(&rig, 0);
    ck_assert_uint_ge(netif_gate_held(rig.gate), 20 * SMALLEST);
    leash(GONE + 1); /* again, and too late again */
    rig_settle(&rig);
    rig_expect(&rig, 0);
    leash(_i ? LASTS : 0);
    send_some(1);
    ck_assert_uint_eq(rig.wire.seen_count, 0); /* it happens on the loop, in order */
    rig_settle(&rig);
    rig_expect(&rig, 21);
    ck_assert_uint_eq(netif_gate_held(rig.gate), 0);
    send_some(1);
    rig_expect(&rig, 22);
    ck_assert_uint_eq(rig.waits, 0);
}
END_TEST

START_TEST(an_opening_after_its_end_opens_nothing)
{
    rig_hold(&rig, 1, BUDGET);
    send_some(2);
    leash(GONE);
    netif_gate_open(rig.gate);
    send_some(2);
    rig_settle(&rig);
    rig_expect(&rig, 0);
    leash(LASTS);
    rig_settle(&rig);
    rig_expect(&rig, 4);
}
END_TEST

/* --- then it is held -------------------------------------------------------------------------- */

/* The numbers of an earlier hold say nothing any more, be they higher or lower. */
START_TEST(a_hold_after_its_end_holds_what_waits)
{
    const uint64_t number = _i ? 5 : 500;

    open_with_some(2);
    leash(GONE);
    send_some(2);
    rig_hold(&rig, number, BUDGET);
    send_some(1);
    wire_go_on(&rig.wire, 100);
    rig_settle(&rig);
    rig_expect(&rig, 1);
    netif_gate_release(rig.gate, number - 1);
    rig_settle(&rig);
    rig_expect(&rig, 1);
    leash(LASTS); /* of no meaning while it is held */
    rig_settle(&rig);
    rig_expect(&rig, 1);
    netif_gate_release(rig.gate, number);
    rig_settle(&rig);
    rig_expect(&rig, 6);
}
END_TEST

START_TEST(a_hold_while_it_lasts_frees_what_was_allowed)
{
    open_with_some(2);
    leash(LASTS);
    send_some(1);
    rig_hold(&rig, 5, BUDGET);
    leash(GONE);
    send_some(1);
    wire_go_on(&rig.wire, 100);
    rig_settle(&rig);
    rig_expect(&rig, 4);
    netif_gate_release(rig.gate, 5); /* without a leash: it is of what is open */
    rig_settle(&rig);
    rig_expect(&rig, 5);
}
END_TEST

/* As what is released: who was frozen before the wire took it may have no VM any more. */
START_TEST(what_is_free_leaves_soon_or_waits_for_a_release)
{
    netif_gate_limit(rig.gate, 1); /* is over at once */
    open_with_some(2);
    rig_hold(&rig, 5, BUDGET);
    wire_go_on(&rig.wire, 100);
    rig_settle(&rig);
    rig_expect(&rig, 1);
    netif_gate_limit(rig.gate, 1000 * NS_PER_SEC);
    netif_gate_release(rig.gate, 4);
    rig_settle(&rig);
    rig_expect(&rig, 3);
}
END_TEST

/* What was free once is not for ever. */
START_TEST(free_frames_are_held_by_a_later_hold_after_its_end)
{
    open_with_some(2);
    rig_hold(&rig, 5, BUDGET);
    netif_gate_open(rig.gate);
    leash(GONE);
    rig_hold(&rig, 6, BUDGET);
    wire_go_on(&rig.wire, 100);
    rig_settle(&rig);
    rig_expect(&rig, 1);
    netif_gate_open(rig.gate);
    leash(LASTS);
    rig_settle(&rig);
    rig_expect(&rig, 3);
}
END_TEST

START_TEST(shut_it_forgets_what_waits)
{
    leash(GONE);
    send_some(10);
    netif_gate_shut(rig.gate);
    leash(_i ? LASTS : 0);
    send_some(1);
    rig_settle(&rig);
    ck_assert_uint_eq(rig.wire.seen_count, 0);
    ck_assert_uint_eq(netif_gate_held(rig.gate), 0);
}
END_TEST

/* --- room ------------------------------------------------------------------------------------- */

START_TEST(what_waits_is_bounded_and_room_is_told_of_again)
{
    const size_t length = _i ? BIG : SMALLEST;
    unsigned count = 0;

    leash(GONE);
    while (rig_send(&rig, 0, length) >= 0) {
        count++;
        ck_assert_uint_eq(rig.wire.seen_count, 0);
        ck_assert_uint_le(netif_gate_held(rig.gate), BUDGET); /* nobody has said one */
    }
    ck_assert_uint_gt(count, 4);
    rig_watch(&rig, 0, NETIF_WRITABLE);
    rig_settle(&rig);
    ck_assert_uint_eq(rig.ready[0], 0);
    ck_assert_uint_eq(rig.wire.watched[0], 0); /* it has room, and would say so all the time */
    leash(LASTS);
    settle_until_empty();
    ck_assert_uint_gt(rig.ready[0], 0);
    ck_assert_uint_eq(rig.wire.watched[0], NETIF_WRITABLE); /* it is the interface's again */
    rig_expect(&rig, count);
    ck_assert_int_gt(rig_send(&rig, 0, length), 0);
    rig_expect(&rig, count + 1);
}
END_TEST

/* Whoever was told of room by the interface finds it at the gate. */
START_TEST(who_waited_for_the_interface_goes_on)
{
    leash(LASTS);
    rig.wire.room = 0;
    ck_assert_int_eq(rig_send(&rig, 1, SMALLEST), -EAGAIN);
    rig_watch(&rig, 1, NETIF_WRITABLE);
    leash(GONE);
    rig.sends = true;
    rig.pending = 3;
    wire_go_on(&rig.wire, 100);
    rig_settle(&rig);
    ck_assert_uint_eq(rig.pending, 0);
    rig_expect(&rig, 0);
    leash(LASTS);
    rig_settle(&rig);
    rig_expect(&rig, 3);
}
END_TEST

START_TEST(a_full_interface_keeps_the_order)
{
    leash(GONE);
    send_some(10);
    rig.wire.room = 4;
    leash(LASTS);
    rig_settle(&rig);
    rig_expect(&rig, 4);
    leash(GONE);
    send_some(1);
    wire_go_on(&rig.wire, 100);
    rig_settle(&rig);
    rig_expect(&rig, 4);
    leash(LASTS);
    rig_settle(&rig);
    rig_expect(&rig, 11);
}
END_TEST

START_TEST(a_client_that_goes_on_when_it_is_told_loses_nothing)
{
    rig.sends = true;
    rig.pending = 50000;
    leash(GONE);
    rig_watch(&rig, 1, NETIF_WRITABLE);
    for (unsigned i = 0; rig.pending; i++) {
        ck_assert_uint_lt(i, 50000);
        rig_settle(&rig);
        leash(i % 2 ? GONE : LASTS);
    }
    leash(LASTS);
    settle_until_empty();
    rig_expect(&rig, 50000);
}
END_TEST

/* --- other lives ------------------------------------------------------------------------------ */

START_TEST(a_flush_keeps_to_it)
{
    leash(GONE);
    send_some(10);
    netif_gate_flush(rig.gate);
    rig_expect(&rig, 0);
    leash(LASTS);
    netif_gate_flush(rig.gate);
    rig_expect(&rig, 10);
}
END_TEST

START_TEST(what_waits_outlives_a_detach)
{
    leash(GONE);
    send_some(10);
    rig.netif->ops->detach(rig.netif);
    leash(LASTS);
    rig_settle(&rig);
    rig_expect(&rig, 0);
    rig_attach(&rig);
    rig_settle(&rig);
    rig_expect(&rig, 10);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("netif_gate_leash");
    TCase *tests = tcase_create("leash");

    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, it_runs_out_by_itself);
    tcase_add_loop_test(tests, while_it_lasts_it_is_not_there, 0, 2);
    tcase_add_loop_test(tests, what_is_sent_after_its_end_leaves_when_it_is_renewed, 0, 2);
    tcase_add_test(tests, an_opening_after_its_end_opens_nothing);
    tcase_add_loop_test(tests, a_hold_after_its_end_holds_what_waits, 0, 2);
    tcase_add_test(tests, a_hold_while_it_lasts_frees_what_was_allowed);
    tcase_add_test(tests, what_is_free_leaves_soon_or_waits_for_a_release);
    tcase_add_test(tests, free_frames_are_held_by_a_later_hold_after_its_end);
    tcase_add_loop_test(tests, shut_it_forgets_what_waits, 0, 2);
    tcase_add_loop_test(tests, what_waits_is_bounded_and_room_is_told_of_again, 0, 2);
    tcase_add_test(tests, who_waited_for_the_interface_goes_on);
    tcase_add_test(tests, a_full_interface_keeps_the_order);
    tcase_add_test(tests, a_client_that_goes_on_when_it_is_told_loses_nothing);
    tcase_add_test(tests, a_flush_keeps_to_it);
    tcase_add_test(tests, what_waits_outlives_a_detach);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
