/* SPDX-License-Identifier: MIT */
/*
 * The gate with its loop on a thread of its own, and somebody who marks, releases, opens and shuts
 * from another one while the client sends as fast as it can.
 */
#include "tests/unit/gate_rig.h"
#include <time.h>

enum { ROUNDS = 300, BUDGET = 200 << 10 };

static struct gate_rig rig;
static struct thread thread;
static _Atomic uint64_t allowed; /* before it is said */
static uint64_t next_row;
static unsigned torn;

/* On the loop. */
static void look_at(const struct frame *frame)
{
    torn += frame->number > atomic_load(&allowed) || frame->row != next_row;
    next_row = frame->row + 1;
}

static void handle_thread(void *arg)
{
    ck_assert_int_eq(loop_run(rig.loop), 0);
}

static void set_up(void)
{
    rig_init(&rig);
    atomic_store(&allowed, 0);
    next_row = 0;
    torn = 0;
    rig.wire.arrived = look_at;
    rig.sends = true;
    rig.pending = UINT32_MAX;
    rig_hold(&rig, 1, BUDGET);
    rig_watch(&rig, 1, NETIF_WRITABLE);
    ck_assert_int_eq(thread_start(&thread, "net", handle_thread, NULL, NULL), 0);
}

static void tear_down(void)
{
    loop_stop(rig.loop);
    thread_join(&thread);
    ck_assert_uint_eq(torn, 0);
    rig_finish(&rig);
}

/* As an epoch does. */
static void mark(uint64_t number)
{
    loop_park(rig.loop);
    rig_mark(&rig, number);
    loop_unpark(rig.loop);
}

static void release(uint64_t number)
{
    atomic_store(&allowed, number);
    netif_gate_release(rig.gate, number);
}

static void wait_until(uint64_t seen, uint64_t held)
{
    const struct timespec soon = {.tv_nsec = 20000};
    uint64_t patience = clock_monotonic_ns() + 30 * NS_PER_SEC;

    while (atomic_load(&rig.wire.seen_count) < seen || netif_gate_held(rig.gate) < held) {
        ck_assert_uint_lt(clock_monotonic_ns(), patience);
        nanosleep(&soon, NULL);
    }
}

START_TEST(releases_from_elsewhere_let_go_what_they_allow)
{
    /* On a busy machine there may be nothing to let go in most rounds. */
    for (uint64_t number = 1; number <= ROUNDS || rig.wire.seen_count <= ROUNDS; number++) {
        unsigned seen = rig.wire.seen_count;
        if (number % 8 == 0)
            wait_until(0, 1);
        mark(number + 1);
        release(number);
        if (number % 8 == 0)
            wait_until(seen + 1, 0);
    }
}
END_TEST

START_TEST(held_and_opened_again_and_again_the_order_stays)
{
    for (uint64_t number = 2; number < ROUNDS; number++) {
        unsigned seen = rig.wire.seen_count;
        atomic_store(&allowed, UINT64_MAX);
        netif_gate_open(rig.gate);
        if (number % 8 == 0)
            wait_until(seen + 1000, 0);
        loop_park(rig.loop);
        rig_hold(&rig, number, BUDGET);
        loop_unpark(rig.loop);
    }
    ck_assert_uint_gt(rig.wire.seen_count, ROUNDS);
}
END_TEST

START_TEST(at_the_end_of_its_leash_one_frame_more_may_leave)
{
    const struct timespec time = {.tv_nsec = 200000};

    atomic_store(&allowed, UINT64_MAX);
    netif_gate_open(rig.gate);
    for (unsigned i = 0; i < ROUNDS; i++) {
        wait_until(rig.wire.seen_count + 20, 0);
        netif_gate_leash(rig.gate, 1);
        unsigned seen = rig.wire.seen_count;
        nanosleep(&time, NULL); /* for what must not come */
        ck_assert_uint_le(rig.wire.seen_count, seen + 1);
        netif_gate_leash(rig.gate, UINT64_MAX);
    }
}
END_TEST

START_TEST(shut_from_elsewhere_one_frame_more_may_leave)
{
    const struct timespec time = {.tv_nsec = 5000000};

    wait_until(0, BUDGET / 2);
    mark(2);
    if (_i % 2) {
        release(1);
    } else {
        atomic_store(&allowed, UINT64_MAX);
        netif_gate_open(rig.gate);
    }
    wait_until(1 + (unsigned)_i * 10, 0);
    netif_gate_shut(rig.gate);
    unsigned seen = rig.wire.seen_count;
    nanosleep(&time, NULL); /* for what must not come */
    ck_assert_uint_le(rig.wire.seen_count, seen + 1);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("netif_gate_threads");
    TCase *tests = tcase_create("threads");

    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, releases_from_elsewhere_let_go_what_they_allow);
    tcase_add_test(tests, held_and_opened_again_and_again_the_order_stays);
    tcase_add_test(tests, at_the_end_of_its_leash_one_frame_more_may_leave);
    tcase_add_loop_test(tests, shut_from_elsewhere_one_frame_more_may_leave, 0, 10);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
