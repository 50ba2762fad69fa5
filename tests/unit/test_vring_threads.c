/* SPDX-License-Identifier: MIT */
/*
 * A driver and a device on a thread each, as a vCPU and a device's loop are. Each sleeps until the
 * other one tells it: when a fence is missing, sooner or later both sleep, and the test says so.
 */
#include "core/thread.h"
#include "tests/unit/vring_rig.h"
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Sanitizers find what they can find in a few, and each takes seven times as long. */
#ifdef __SANITIZE_ADDRESS__
enum { REQUESTS = 6000 };
#else
enum { REQUESTS = 60000 };
#endif
enum { WAIT_SECONDS = 20, PAYLOAD = 8 };

struct pair {
    struct rig rig;
    sem_t doorbell, interrupt;
    atomic_bool end;
    unsigned batch; /* requests that each side handles before it tells */
    uint64_t served, doorbells, interrupts;
    bool lost; /* the device saw something wrong */
};

/* False: nothing came, and nothing will. */
static bool wait_for(sem_t *semaphore)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_SECONDS;
    while (sem_timedwait(semaphore, &until) < 0)
        if (errno != EINTR)
            return false;
    return true;
}

/* The device answers each number with its complement. */
static void serve(struct pair *pair)
{
    struct rig *rig = &pair->rig;
    uint64_t number;

    if (iov_read(rig->iov, rig->chain.readable, 0, &number, PAYLOAD) != PAYLOAD)
        pair->lost = true;
    number = ~number;
    if (iov_write(vring_writable(&rig->chain), rig->chain.writable, 0, &number, PAYLOAD) != PAYLOAD)
        pair->lost = true;
    vring_push(&rig->ring, &rig->chain, PAYLOAD);
    pair->served++;
}

static void publish(struct pair *pair)
{
    if (vring_publish(&pair->rig.ring)) {
        pair->interrupts++;
        sem_post(&pair->interrupt);
    }
}

static void run_device(void *arg)
{
    struct pair *pair = arg;
    struct vring *ring = &pair->rig.ring;
    int ret = 0;

    while (!pair->end && ret >= 0) {
        do {
            vring_disarm(ring);
            while ((ret = rig_pop(&pair->rig)) > 0) {
                serve(pair);
                if (pair->served % pair->batch == 0)
                    publish(pair);
            }
            publish(pair);
        } while (vring_arm(ring));
        sem_wait(&pair->doorbell);
    }
    if (ret < 0)
        pair->lost = true;
}

static void tell_device(struct pair *pair)
{
    if (model_show(&pair->rig.driver)) {
        pair->doorbells++;
        sem_post(&pair->doorbell);
    }
}

static void check_answer(struct pair *pair, const struct model_done *done, const gpa_t *buffers)
{
    uint64_t number;

    memcpy(&number, model_bytes(&pair->rig.driver, buffers[done->head], PAYLOAD), PAYLOAD);
    if (number != ~done->token || done->written != PAYLOAD)
        ck_abort_msg("request %llu came back wrong", (unsigned long long)done->token);
}

static void run_driver(struct pair *pair, unsigned *seed)
{
    struct model_driver *driver = &pair->rig.driver;
    gpa_t buffers[VRING_MAX_SIZE];
    uint64_t given = 0, back = 0;
    struct model_done done;

    while (back < REQUESTS) {
        for (unsigned n = 0; n < pair->batch && given < REQUESTS && driver->free_count >= 2; n++) {
            struct model_part parts[] = {model_out(driver, &given, PAYLOAD),
                                         model_in(driver, PAYLOAD)};
            int head = rand_r(seed) % 2 ? model_add(driver, parts, 2, given)
                                        : model_add_indirect(driver, parts, 2, given);
            buffers[head] = parts[1].gpa;
            given++;
        }
        tell_device(pair);
        while (model_reap(driver, &done)) {
            check_answer(pair, &done, buffers);
            back++;
        }
        /* Sleeps when there is no room, and sometimes just so. */
        if (back == REQUESTS || (given < REQUESTS && driver->free_count >= 2 && rand_r(seed) % 4))
            continue;
        unsigned there = model_outstanding(driver);
        if (there == 0 || model_want_interrupt(driver, 1 + (unsigned)rand_r(seed) % there))
            continue;
        if (!wait_for(&pair->interrupt))
            ck_abort_msg("a notification was lost: %llu given, %llu served, %llu came back",
                         (unsigned long long)given, (unsigned long long)pair->served,
                         (unsigned long long)back);
    }
}

static const struct {
    uint16_t size;
    bool event_index;
    unsigned batch;
} pairs[] = {{2, true, 1}, {2, false, 1}, {16, true, 5}, {16, false, 5}, {256, true, 64}};

START_TEST(two_threads_lose_no_request_and_no_notification)
{
    static struct pair pair;
    struct thread device = {0};
    unsigned seed = (unsigned)_i + 1;

    rig_init(&pair.rig, (struct model_config){.size = pairs[_i].size,
                                              .event_index = pairs[_i].event_index,
                                              .indirect = true,
                                              .table_size = 2,
                                              .start = 65000});
    pair.batch = pairs[_i].batch;
    sem_init(&pair.doorbell, 0, 0);
    sem_init(&pair.interrupt, 0, 0);
    ck_assert_int_eq(thread_start(&device, "device", run_device, &pair, NULL), 0);
    run_driver(&pair, &seed);
    pair.end = true;
    sem_post(&pair.doorbell);
    thread_join(&device);
    ck_assert(!pair.lost);
    ck_assert_uint_eq(pair.served, REQUESTS);
    /* Told because it was wanted, not for each request; and told at all. */
    ck_assert_uint_gt(pair.doorbells, 0);
    ck_assert_uint_gt(pair.interrupts, 0);
    rig_finish(&pair.rig);
}
END_TEST

/*
 * The same moment, again and again: one side tells while the other begins to listen. At least one
 * must see the other, which takes a full fence on both sides: x86 lets a load pass an older store,
 * and then neither does. Without the fence in publish or arm this fails in most runs.
 */
enum { MOMENTS = 150000, MOMENTS_SECONDS = 3 }; /* whichever ends first: the host may be busy */

struct duel {
    struct rig rig;
    atomic_uint driver_phase, device_phase;
    bool device_saw; /* or told; between two meetings */
    bool last;       /* this moment is; written before its first meeting, read before its second */
    bool broken;
};

static void meet(atomic_uint *mine, atomic_uint *other)
{
    unsigned phase = atomic_fetch_add(mine, 1) + 1;

    /* Yields only when the other one is not running: the moment lasts some nanoseconds. */
    for (unsigned spins = 1; (int)(atomic_load(other) - phase) < 0; spins++)
        if (spins % 1024 == 0)
            sched_yield();
}

/* So that not always the same one is first. */
static void hesitate(unsigned *seed)
{
    for (unsigned n = (unsigned)rand_r(seed) % 160; n > 0; n--)
        __asm__ volatile("");
}

static void run_dueling_device(void *arg)
{
    struct duel *duel = arg;
    unsigned seed = 4711;

    for (bool last = false; !last;) {
        vring_disarm(&duel->rig.ring);
        meet(&duel->device_phase, &duel->driver_phase);
        last = duel->last;
        hesitate(&seed);
        duel->device_saw = vring_arm(&duel->rig.ring);
        meet(&duel->device_phase, &duel->driver_phase);
        if (rig_pop(&duel->rig) != 1)
            duel->broken = true;
        else
            vring_push(&duel->rig.ring, &duel->rig.chain, 0);
        meet(&duel->device_phase, &duel->driver_phase);
        hesitate(&seed);
        duel->device_saw = vring_publish(&duel->rig.ring);
        meet(&duel->device_phase, &duel->driver_phase);
    }
}

START_TEST(who_tells_and_who_listens_never_miss_each_other)
{
    static struct duel duel;
    struct thread device = {0};
    struct model_done done;
    unsigned seed = 1, missed_by_arm = 0, missed_by_publish = 0;

    rig_init(&duel.rig, (struct model_config){.size = 4, .event_index = _i});
    struct model_driver *driver = &duel.rig.driver;
    struct model_part part = model_in(driver, 1);
    ck_assert_int_eq(thread_start(&device, "device", run_dueling_device, &duel, NULL), 0);
    time_t end = time(NULL) + MOMENTS_SECONDS;
    for (unsigned i = 0; !duel.last; i++) {
        duel.last = i + 1 == MOMENTS || time(NULL) > end;
        (void)model_add(driver, &part, 1, i);
        model_want_no_interrupt(driver);
        meet(&duel.driver_phase, &duel.device_phase);
        hesitate(&seed);
        bool told = model_show(driver);
        meet(&duel.driver_phase, &duel.device_phase);
        missed_by_arm += !told && !duel.device_saw;
        meet(&duel.driver_phase, &duel.device_phase);
        hesitate(&seed);
        bool saw = model_want_interrupt(driver, 1);
        meet(&duel.driver_phase, &duel.device_phase);
        missed_by_publish += !saw && !duel.device_saw;
        duel.broken |= !model_reap(driver, &done);
    }
    thread_join(&device);
    ck_assert(!duel.broken);
    ck_assert_uint_eq(missed_by_arm, 0);
    ck_assert_uint_eq(missed_by_publish, 0);
    rig_finish(&duel.rig);
}
END_TEST

static Suite *threads_suite(void)
{
    Suite *suite = suite_create("vring threads");
    TCase *tcase = tcase_create("threads");

    tcase_set_timeout(tcase, 3 * WAIT_SECONDS);
    tcase_add_loop_test(tcase, two_threads_lose_no_request_and_no_notification, 0,
                        array_size(pairs));
    tcase_add_loop_test(tcase, who_tells_and_who_listens_never_miss_each_other, 0, 2);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void)
{
    return unit_main(threads_suite());
}
