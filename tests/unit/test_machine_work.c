/* SPDX-License-Identifier: MIT */
/*
 * The threads of a paused machine's vCPUs lend a hand: each share of the work is done once, all at
 * the same time, and the guest feels nothing of it.
 */
#include "tests/unit/machines.h"
#include <unistd.h>

enum { MOST = 64 };

struct work {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned calls[MOST]; /* of each share */
    pthread_t threads[MOST];
    unsigned shares, begun, ended;
    bool together; /* each waits for all the others: whoever came alone would wait for ever */
};

static void work_init(struct work *work, bool together)
{
    *work = (struct work){.together = together};
    pthread_mutex_init(&work->lock, NULL);
    pthread_cond_init(&work->changed, NULL);
}

static void work_finish(struct work *work)
{
    pthread_cond_destroy(&work->changed);
    pthread_mutex_destroy(&work->lock);
}

static void do_work(void *arg, unsigned share, unsigned shares)
{
    struct work *work = arg;
    pthread_mutex_lock(&work->lock);
    ck_assert_uint_lt(share, shares);
    ck_assert_uint_le(shares, MOST);
    ck_assert(work->begun == 0 || work->shares == shares);
    work->shares = shares;
    work->calls[share]++;
    work->threads[share] = pthread_self();
    work->begun++;
    pthread_cond_broadcast(&work->changed);
    while (work->together && work->begun < shares)
        pthread_cond_wait(&work->changed, &work->lock);
    work->ended++;
    pthread_mutex_unlock(&work->lock);
}

static void check_shared(struct rig *rig, bool together)
{
    struct work work;
    unsigned cpus = rig->machine->config.cpus;
    long host = sysconf(_SC_NPROCESSORS_ONLN);
    work_init(&work, together);
    machine_share_work(rig->machine, do_work, &work);
    ck_assert_uint_ge(work.shares, cpus > 1 && host > 1 ? 2 : 1);
    ck_assert_uint_le(work.shares, cpus);
    ck_assert_uint_eq(work.ended, work.shares); /* none is still at it */
    for (unsigned i = 0; i < work.shares; i++) {
        ck_assert_uint_eq(work.calls[i], 1);
        for (unsigned j = 0; j < i; j++)
            ck_assert(!pthread_equal(work.threads[i], work.threads[j]));
    }
    ck_assert(pthread_equal(work.threads[0], pthread_self()));
    work_finish(&work);
}

static const unsigned cpu_counts[] = {1, 2, 3, 8};

START_TEST(test_each_share_is_done_once_and_at_the_same_time)
{
    struct rig rig;
    rig_init(&rig, "counter", cpu_counts[_i], "");
    check_shared(&rig, true); /* no vCPU has run yet */
    rig_run_until(&rig, 2, 0);
    for (unsigned i = 0; i < 100; i++)
        check_shared(&rig, i % 2);
    rig_finish(&rig);
}
END_TEST

/* Between two pauses, and at once after a resume: nobody is asleep who should not be. */
START_TEST(test_the_guest_goes_on_afterwards)
{
    struct rig rig;
    struct stream_buffer before, after;
    rig_init(&rig, "counter", 2, "");
    for (unsigned i = 0; i < 20; i++) {
        rig_run_until(&rig, 1, 0);
        check_shared(&rig, i % 2);
        machine_resume(rig.machine);
        machine_pause(rig.machine);
        check_shared(&rig, true);
    }
    rig_save(&rig, &before);
    check_shared(&rig, true);
    rig_save(&rig, &after);
    ck_assert_uint_eq(before.length, after.length);
    stream_buffer_finish(&before);
    stream_buffer_finish(&after);
    rig_hop(&rig);
    check_shared(&rig, true);
    rig_run_until(&rig, 3, 0);
    rig_finish(&rig);
}
END_TEST

START_TEST(test_a_machine_may_end_after_work)
{
    for (unsigned i = 0; i < 5; i++) {
        struct rig rig;
        rig_init(&rig, "counter", 2, "");
        check_shared(&rig, true);
        rig_finish(&rig);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("machine_work");
    TCase *tests = tcase_create("work");
    tcase_add_loop_test(tests, test_each_share_is_done_once_and_at_the_same_time, 0,
                        (int)array_size(cpu_counts));
    tcase_add_test(tests, test_the_guest_goes_on_afterwards);
    tcase_add_test(tests, test_a_machine_may_end_after_work);
    tcase_set_timeout(tests, PATIENCE_S + 20);
    suite_add_tcase(suite, tests);
    return unit_main_with_kvm(suite, "test_machine_work");
}
