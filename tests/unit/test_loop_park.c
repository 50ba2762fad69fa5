/* SPDX-License-Identifier: MIT */
#include "core/loop.h"
#include "core/thread.h"
#include "tests/unit/unit.h"
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct bench {
    struct loop *loop;
};

static struct bench make_bench(void)
{
    struct bench bench = {0};
    ck_assert_int_eq(loop_create(&bench.loop, NULL), 0);
    return bench;
}

struct runner {
    struct thread thread;
    struct loop *loop;
    int result;
};

static void run_loop(void *arg)
{
    struct runner *runner = arg;
    runner->result = loop_run(runner->loop);
}

static void start_runner(struct runner *runner, struct bench *bench)
{
    *runner = (struct runner){.loop = bench->loop, .result = 1};
    ck_assert_int_eq(thread_start(&runner->thread, "loop", run_loop, runner, NULL), 0);
}

static void stop_runner(struct runner *runner)
{
    loop_stop(runner->loop);
    thread_join(&runner->thread);
    ck_assert_int_eq(runner->result, 0);
}

/* A loop that counts as fast as it can, through calls and a file. */

struct counter {
    struct loop_call call;
    struct loop *loop;
    _Atomic unsigned count;
};

static void handle_count(void *arg)
{
    struct counter *counter = arg;
    atomic_fetch_add(&counter->count, 1);
    loop_post(counter->loop, &counter->call);
}

static void start_counting(struct counter *counter, struct bench *bench)
{
    counter->loop = bench->loop;
    counter->call = (struct loop_call){.handle = handle_count, .arg = counter};
    loop_post(bench->loop, &counter->call);
}

static void wait_for_more(struct counter *counter)
{
    unsigned seen = atomic_load(&counter->count);
    while (atomic_load(&counter->count) == seen)
        sched_yield();
}

static void expect_standstill(struct counter *counter)
{
    unsigned seen = atomic_load(&counter->count);
    for (unsigned i = 0; i < 300; i++)
        sched_yield();
    ck_assert_uint_eq(atomic_load(&counter->count), seen);
}

START_TEST(a_parked_loop_stands_still_until_the_last_unpark)
{
    struct bench bench = make_bench();
    struct counter counter = {0};
    struct runner runner;

    start_counting(&counter, &bench);
    start_runner(&runner, &bench);
    for (unsigned round = 0; round < 50; round++) {
        wait_for_more(&counter);
        loop_park(bench.loop);
        loop_park(bench.loop);
        expect_standstill(&counter);
        loop_unpark(bench.loop);
        expect_standstill(&counter);
        loop_unpark(bench.loop);
    }
    wait_for_more(&counter);
    stop_runner(&runner);
    loop_destroy(bench.loop);
}
END_TEST

START_TEST(a_loop_parked_before_its_run_waits_too)
{
    struct bench bench = make_bench();
    struct counter counter = {0};
    struct runner runner;

    start_counting(&counter, &bench);
    loop_park(bench.loop);
    start_runner(&runner, &bench);
    expect_standstill(&counter);
    ck_assert_uint_eq(counter.count, 0);
    loop_unpark(bench.loop);
    wait_for_more(&counter);
    stop_runner(&runner);
    loop_park(bench.loop); /* one that has ended stands still already */
    loop_unpark(bench.loop);
    loop_destroy(bench.loop);
}
END_TEST

struct parker {
    struct thread thread;
    struct counter *counter;
};

static void park_often(void *arg)
{
    struct parker *parker = arg;

    for (unsigned i = 0; i < 200; i++) {
        loop_park(parker->counter->loop);
        unsigned seen = atomic_load(&parker->counter->count);
        sched_yield();
        if (atomic_load(&parker->counter->count) != seen)
            ck_abort_msg("a parked loop has moved");
        loop_unpark(parker->counter->loop);
    }
}

START_TEST(parks_of_several_threads_nest)
{
    struct bench bench = make_bench();
    struct counter counter = {0};
    struct parker parkers[3] = {0};
    struct runner runner;

    start_counting(&counter, &bench);
    start_runner(&runner, &bench);
    for (unsigned i = 0; i < 3; i++) {
        parkers[i].counter = &counter;
        ck_assert_int_eq(thread_start(&parkers[i].thread, "parker", park_often, &parkers[i], NULL),
                         0);
    }
    for (unsigned i = 0; i < 3; i++)
        thread_join(&parkers[i].thread);
    wait_for_more(&counter);
    stop_runner(&runner);
    loop_destroy(bench.loop);
}
END_TEST

/* An eventfd that is watched for edges and never read, and how often its loop told of it. */
struct bell {
    struct loop_io io;
    struct counter rung;
};

static void handle_bell(void *arg, unsigned events)
{
    struct bell *bell = arg;
    atomic_fetch_add(&bell->rung.count, 1);
}

static void hang_bell(struct bell *bell, struct loop *loop)
{
    *bell = (struct bell){0};
    bell->io = (struct loop_io){.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
                                .events = LOOP_READ | LOOP_EDGE,
                                .handle = handle_bell,
                                .arg = bell};
    ck_assert_int_eq(loop_io_add(loop, &bell->io, NULL), 0);
}

static void ring(const struct bell *bell)
{
    uint64_t one = 1;
    ck_assert_int_eq(write(bell->io.fd, &one, sizeof(one)), sizeof(one));
}

/* Whether the park comes before the loop waits, while it does, or when it has the event already. */
START_TEST(an_edge_outlives_a_park)
{
    struct bench bench = make_bench();
    struct bell bell;
    struct runner runner;

    hang_bell(&bell, bench.loop);
    start_runner(&runner, &bench);
    for (unsigned round = 0; round < 5000; round++) {
        unsigned seen = atomic_load(&bell.rung.count);
        ring(&bell);
        for (unsigned i = 0; i < round % 50; i++)
            atomic_load(&bell.rung.count);
        loop_park(bench.loop);
        loop_unpark(bench.loop);
        while (atomic_load(&bell.rung.count) == seen)
            sched_yield();
    }
    stop_runner(&runner);
    loop_io_remove(bench.loop, &bell.io);
    close(bell.io.fd);
    loop_destroy(bench.loop);
}
END_TEST

START_TEST(what_is_removed_in_a_park_is_not_heard_of_again)
{
    struct bench bench = make_bench();
    struct runner runner;

    start_runner(&runner, &bench);
    for (unsigned round = 0; round < 2000; round++) {
        struct bell *bell = malloc(sizeof(*bell));
        loop_park(bench.loop);
        hang_bell(bell, bench.loop);
        loop_unpark(bench.loop);
        ring(bell);
        for (unsigned i = 0; i < round % 50; i++)
            atomic_load(&bell->rung.count);
        loop_park(bench.loop);
        loop_io_remove(bench.loop, &bell->io);
        unsigned seen = bell->rung.count;
        loop_unpark(bench.loop);
        sched_yield();
        ck_assert_uint_eq(bell->rung.count, seen);
        close(bell->io.fd);
        free(bell);
    }
    stop_runner(&runner);
    loop_destroy(bench.loop);
}
END_TEST

/* What it costs to wake a thread is not for a pause to pay. */
START_TEST(a_loop_that_waits_is_parked_without_its_thread)
{
    struct bench bench = make_bench();
    struct bell bell;
    struct runner runner;
    unsigned asleep = 0;

    hang_bell(&bell, bench.loop);
    start_runner(&runner, &bench);
    ring(&bell);
    while (!atomic_load(&bell.rung.count))
        sched_yield();
    /* It is on its way to sleep, for a few turns at most. */
    for (unsigned round = 0; round < 20; round++) {
        uint64_t before = thread_cpu_ns(&runner.thread);
        for (unsigned i = 0; i < 100; i++) {
            loop_park(bench.loop);
            loop_unpark(bench.loop);
        }
        asleep += thread_cpu_ns(&runner.thread) == before;
    }
    ck_assert_uint_ge(asleep, 15);
    stop_runner(&runner);
    loop_io_remove(bench.loop, &bell.io);
    close(bell.io.fd);
    loop_destroy(bench.loop);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("loop_park");
    TCase *all = tcase_create("all");
    tcase_add_test(all, a_parked_loop_stands_still_until_the_last_unpark);
    tcase_add_test(all, a_loop_parked_before_its_run_waits_too);
    tcase_add_test(all, parks_of_several_threads_nest);
    tcase_add_test(all, an_edge_outlives_a_park);
    tcase_add_test(all, what_is_removed_in_a_park_is_not_heard_of_again);
    tcase_add_test(all, a_loop_that_waits_is_parked_without_its_thread);
    suite_add_tcase(suite, all);
    return unit_main(suite);
}
