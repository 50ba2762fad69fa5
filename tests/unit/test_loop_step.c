/* SPDX-License-Identifier: MIT */
#include "core/clock.h"
#include "core/thread.h"
#include "ft/loop_step.h"
#include "tests/unit/unit.h"

#include <errno.h>

static struct loop *loop;
static struct loop_step step;
static struct thread worker;
static unsigned done;
static int result;
static bool rested;

static void set_up(void)
{
    done = 0;
    result = 1;
    rested = false;
    worker = (struct thread){0};
    ck_assert_int_eq(loop_create(&loop, NULL), 0);
    loop_step_init(&step, loop);
}

static void tear_down(void)
{
    thread_join(&worker);
    loop_step_finish(&step);
    loop_step_finish(&step);
    loop_destroy(loop);
}

static int count(void *ctx, struct err *err)
{
    pthread_t *thread = ctx;
    done++;
    ck_assert(pthread_equal(pthread_self(), *thread));
    return done < 3 ? (int)done : err_say(err, ERR_STATE, EBUSY, "enough");
}

static void do_three(void *arg)
{
    struct err err = {0};
    ck_assert_int_eq(loop_step_do(&step, count, arg, &err), 1);
    ck_assert_int_eq(loop_step_do(&step, count, arg, &err), 2);
    result = loop_step_do(&step, count, arg, &err);
    ck_assert_str_eq(err.text, "enough");
    loop_stop(loop);
}

START_TEST(each_step_is_done_once_by_the_loop_and_waited_for)
{
    pthread_t here = pthread_self();
    ck_assert_int_eq(thread_start(&worker, "worker", do_three, &here, NULL), 0);
    ck_assert_int_eq(loop_run(loop), 0);
    thread_join(&worker);
    worker.started = false;
    ck_assert_uint_eq(done, 3);
    ck_assert_int_eq(result, -EBUSY);
}
END_TEST

static void do_one(void *arg)
{
    result = loop_step_do(&step, count, arg, NULL);
    rested = loop_step_rest(&step, 60000);
}

/* Nobody runs the loop: it would wait for ever, and then for a minute. */
START_TEST(who_is_abandoned_waits_no_more)
{
    pthread_t here = pthread_self();
    ck_assert_int_eq(thread_start(&worker, "worker", do_one, &here, NULL), 0);
    loop_step_abandon(&step);
    thread_join(&worker);
    worker.started = false;
    ck_assert_int_eq(result, -ESHUTDOWN);
    ck_assert(rested);
    /* The loop comes too late. */
    loop_stop(loop);
    ck_assert_int_eq(loop_run(loop), 0);
    ck_assert_uint_eq(done, 0);
}
END_TEST

START_TEST(a_rest_ends_by_itself)
{
    uint64_t begin = clock_monotonic_ns();
    ck_assert(!loop_step_rest(&step, 20));
    ck_assert_uint_ge(clock_monotonic_ns() - begin, 20000000);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("loop_step");
    TCase *tcase = tcase_create("all");
    tcase_add_checked_fixture(tcase, set_up, tear_down);
    tcase_add_test(tcase, each_step_is_done_once_by_the_loop_and_waited_for);
    tcase_add_test(tcase, who_is_abandoned_waits_no_more);
    tcase_add_test(tcase, a_rest_ends_by_itself);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
