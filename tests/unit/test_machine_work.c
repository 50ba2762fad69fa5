/* SPDX-License-Identifier: MIT */
/*
 * The threads of a paused machine's vCPUs lend a hand: each piece of the work is done once, whoever
 * takes it, nobody is still at it afterwards, and the guest feels nothing of it.
 */
#include "tests/unit/machines.h"
#include <unistd.h>

enum { PIECES = 1000, MOST = 64 };

struct work {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    atomic_uint next, done[PIECES];
    pthread_t threads[MOST];
    unsigned awaited; /* nobody takes a piece until so many have come */
    unsigned begun, ended;
};

/* How many there are at most: who asks, and as many vCPUs as find a CPU. */
static unsigned hands(const struct rig *rig)
{
    unsigned cpus = rig->machine->config.cpus, host = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
    return cpus < host ? cpus + 1 : host;
}

static void do_work(void *arg)
{
    struct work *work = arg;
    pthread_mutex_lock(&work->lock);
    work->threads[work->begun++] = pthread_self();
    pthread_cond_broadcast(&work->changed);
    while (work->begun < work->awaited)
        pthread_cond_wait(&work->changed, &work->lock);
    pthread_mutex_unlock(&work->lock);
    for (unsigned piece; (piece = atomic_fetch_add(&work->next, 1)) < PIECES;)
        work->done[piece]++;
    pthread_mutex_lock(&work->lock);
    work->ended++;
    pthread_mutex_unlock(&work->lock);
}

/* All together: who asks begins only when all the others are there. Else they come if they can. */
static void check_shared(struct rig *rig, bool together)
{
    struct work work = {.lock = PTHREAD_MUTEX_INITIALIZER,
                        .changed = PTHREAD_COND_INITIALIZER,
                        .awaited = together ? hands(rig) : 0};
    machine_share_work(rig->machine, do_work, &work);
    unsigned wrong = 0, mine = 0;
    for (unsigned i = 0; i < PIECES; i++)
        wrong += work.done[i] != 1;
    ck_assert_uint_eq(wrong, 0);
    ck_assert_uint_eq(work.ended, work.begun);
    ck_assert_uint_ge(work.begun, together ? work.awaited : 1);
    ck_assert_uint_le(work.begun, hands(rig));
    for (unsigned i = 0; i < work.begun; i++) {
        mine += pthread_equal(work.threads[i], pthread_self()) != 0;
        for (unsigned j = 0; j < i; j++)
            ck_assert(!pthread_equal(work.threads[i], work.threads[j]));
    }
    ck_assert_uint_eq(mine, 1);
    pthread_cond_destroy(&work.changed);
    pthread_mutex_destroy(&work.lock);
}

static const unsigned cpu_counts[] = {1, 2, 3, 8};

START_TEST(test_each_piece_is_done_once_by_all_together)
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
    tcase_add_loop_test(tests, test_each_piece_is_done_once_by_all_together, 0,
                        (int)array_size(cpu_counts));
    tcase_add_test(tests, test_the_guest_goes_on_afterwards);
    tcase_add_test(tests, test_a_machine_may_end_after_work);
    tcase_set_timeout(tests, PATIENCE_S + 20);
    suite_add_tcase(suite, tests);
    return unit_main_with_kvm(suite, "test_machine_work");
}
