/* SPDX-License-Identifier: MIT */
#include "core/pace.h"
#include "tests/unit/unit.h"
#include <sched.h>

enum { MS = 1000000, US = 1000 };

struct worker {
    struct pace pace;
    uint64_t now;
};

/* So many turns, each so long after the one before it. */
static void work(struct worker *worker, unsigned turns, unsigned items, uint64_t apart_ns)
{
    for (unsigned i = 0; i < turns; i++) {
        worker->now += apart_ns;
        pace_turn(&worker->pace, items, worker->now);
    }
}

static void begin(struct worker *worker)
{
    const struct sched_param param = {0};

    *worker = (struct worker){.now = 1000ull * MS};
    ck_assert_int_eq(sched_setscheduler(0, SCHED_OTHER, &param), 0);
}

START_TEST(many_requests_a_turn_make_patient_for_as_long_as_they_come)
{
    struct worker worker;

    begin(&worker);
    work(&worker, 1000, 4, 200 * US);
    ck_assert_int_eq(sched_getscheduler(0), SCHED_BATCH);
    worker.now += 30 * MS; /* the next one after a pause finds a thread that was not told yet */
    work(&worker, 1, 1, 0);
    ck_assert_int_eq(sched_getscheduler(0), SCHED_OTHER);
}
END_TEST

START_TEST(requests_one_by_one_are_delayed_for_few_turns_only)
{
    struct worker worker;
    unsigned patient = 0;

    begin(&worker);
    for (unsigned i = 0; i < 5000; i++) { /* one second */
        work(&worker, 1, 1, 200 * US);
        patient += sched_getscheduler(0) == SCHED_BATCH;
    }
    ck_assert_uint_gt(patient, 0); /* it was tried, and again */
    ck_assert_uint_le(patient, 5 * 16);
}
END_TEST

START_TEST(rare_requests_are_served_at_once)
{
    struct worker worker;

    begin(&worker);
    for (unsigned i = 0; i < 500; i++) {
        work(&worker, 1, 8, 4 * MS);
        ck_assert_int_eq(sched_getscheduler(0), SCHED_OTHER);
    }
}
END_TEST

START_TEST(turns_without_work_do_not_count)
{
    struct worker worker;

    begin(&worker);
    work(&worker, 1000, 0, 10 * US);
    ck_assert_int_eq(sched_getscheduler(0), SCHED_OTHER);
}
END_TEST

START_TEST(a_policy_that_somebody_gave_us_stays)
{
    struct worker worker;
    const struct sched_param param = {0};

    begin(&worker);
    ck_assert_int_eq(sched_setscheduler(0, SCHED_BATCH, &param), 0);
    work(&worker, 1000, 1, 200 * US);
    ck_assert_int_eq(sched_getscheduler(0), SCHED_BATCH);
    ck_assert(worker.pace.fixed);
}
END_TEST

static Suite *pace_suite(void)
{
    Suite *suite = suite_create("pace");
    TCase *tcase = tcase_create("pace");

    tcase_add_test(tcase, many_requests_a_turn_make_patient_for_as_long_as_they_come);
    tcase_add_test(tcase, requests_one_by_one_are_delayed_for_few_turns_only);
    tcase_add_test(tcase, rare_requests_are_served_at_once);
    tcase_add_test(tcase, turns_without_work_do_not_count);
    tcase_add_test(tcase, a_policy_that_somebody_gave_us_stays);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void)
{
    return unit_main(pace_suite());
}
