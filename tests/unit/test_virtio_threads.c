/* SPDX-License-Identifier: MIT */
/* A virtio device with a thread of its own, and what may happen to it at the same time. */
#include "tests/unit/unit.h"
#include "tests/unit/virtio_probe.h"
#include <errno.h>
#include <sched.h>
#include <stdatomic.h>

#define MODERN VIRTIO_F_VERSION_1

static struct virtio_rig rig;
static struct probe *probe;
static struct virtio *virtio;
static struct model_driver driver;

static void set_up(void)
{
    rig_init(&rig);
    probe = probe_create(&rig.world, "probe", NULL);
    ck_assert_ptr_nonnull(probe);
    virtio = &probe->virtio;
    rig_plug(&rig, virtio);
    virtio->device.ops->reset(&virtio->device);
    rig_resume(virtio);
    model_init(&driver, &(struct model_config){.memory = rig.memory, .base = 0x1000, .size = 8});
}

static void tear_down(void)
{
    rig_pause(virtio);
    device_destroy(&virtio->device);
    rig_finish(&rig);
}

static void wait_told(void)
{
    while (sem_wait(&probe->told) < 0)
        ck_assert_int_eq(errno, EINTR);
}

START_TEST(a_device_with_a_thread_is_served_there)
{
    rig_enable(virtio, 0, &driver);
    rig_climb(virtio, MODERN);
    wait_told();
    virtio_lock(virtio);
    ck_assert(probe->thread_known && !pthread_equal(probe->thread, pthread_self()));
    virtio_unlock(virtio);
}
END_TEST

START_TEST(a_paused_thread_stands_still)
{
    rig_enable(virtio, 0, &driver);
    rig_climb(virtio, MODERN);
    wait_told();
    for (unsigned i = 0; i < 20; i++) {
        rig_pause(virtio);
        rig_pause(virtio);                    /* twice is once */
        unsigned before = probe->notified[0]; /* without the lock: nobody else is there */
        virtio_ring_doorbell(virtio, 0);
        ck_assert_uint_eq(probe->notified[0], before);
        rig_resume(virtio);
        wait_told();
    }
}
END_TEST

static atomic_uint calls;

static void handle_call(void *arg)
{
    calls++;
    sem_post(&probe->told);
}

/* Its host's events are calls and descriptors on its loop. */
START_TEST(in_a_pause_the_host_is_not_heard_either)
{
    struct loop_call call = {.handle = handle_call};
    for (unsigned i = 0; i < 100; i++) {
        rig_pause(virtio);
        unsigned before = calls;
        loop_post(virtio->loop, &call);
        for (unsigned j = 0; j < 50; j++)
            sched_yield();
        ck_assert_uint_eq(calls, before);
        rig_resume(virtio);
        wait_told();
    }
}
END_TEST

/* Everything that may happen at once: a vCPU that brings the device up and down, one that floods
 * its doorbell, and pauses. */
static atomic_bool enough;

static void *flood(void *arg)
{
    while (!enough)
        virtio_ring_doorbell(virtio, 0);
    return NULL;
}

static void *live_and_die(void *arg)
{
    unsigned lives;
    for (lives = 0; !enough; lives++) {
        virtio_lock(virtio);
        struct vring_state *queue = virtio_queue_state(virtio, 0);
        *queue = model_places(&driver);
        queue->enabled = false;
        virtio_queue_enable(virtio, 0);
        virtio_unlock(virtio);
        rig_climb(virtio, MODERN);
        rig_set_status(virtio, 0);
        while (rig_status(virtio) != 0) /* the pause may be in the way */
            ;
    }
    return (void *)(uintptr_t)lives;
}

START_TEST(pauses_meet_doorbells_and_resets)
{
    pthread_t threads[2];
    void *lives;
    enough = false;
    ck_assert_int_eq(pthread_create(&threads[0], NULL, flood, NULL), 0);
    ck_assert_int_eq(pthread_create(&threads[1], NULL, live_and_die, NULL), 0);
    for (unsigned i = 0; i < 200; i++) {
        rig_pause(virtio);
        rig_resume(virtio);
        if (i % 10 == 0)
            wait_told();
    }
    enough = true;
    ck_assert_int_eq(pthread_join(threads[0], NULL), 0);
    ck_assert_int_eq(pthread_join(threads[1], &lives), 0);
    ck_assert_uint_gt((uintptr_t)lives, 0);
    ck_assert_uint_eq(rig_status(virtio), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("virtio_threads");
    TCase *tcase = tcase_create("all");

    tcase_add_checked_fixture(tcase, set_up, tear_down);
    tcase_add_test(tcase, a_device_with_a_thread_is_served_there);
    tcase_add_test(tcase, a_paused_thread_stands_still);
    tcase_add_test(tcase, in_a_pause_the_host_is_not_heard_either);
    tcase_add_test(tcase, pauses_meet_doorbells_and_resets);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
