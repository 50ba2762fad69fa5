/* SPDX-License-Identifier: MIT */
#include "core/clock.h"
#include "tests/unit/platform.h"
#include "tests/unit/unit.h"
#include "tests/unit/virtio_rig.h"
#include "virtio/rng.h"
#include <errno.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { FILLER = 0xee }; /* what model_in() leaves in a buffer */
enum { MODEL_AT = 0x10000, QUEUE_SIZE = 64 };

static struct {
    struct virtio_rig rig;
    struct rng *rng;
    struct virtio *virtio;
    struct model_driver driver;
} pc;

/* What the host has. The device's own calls arrive here. */
static struct {
    unsigned refusals;  /* so many calls find nothing */
    size_t most_a_call; /* 0: no limit */
    unsigned calls;
} host;

ssize_t getrandom(void *buffer, size_t length, unsigned flags)
{
    host.calls++;
    ck_assert_uint_eq(flags, GRND_NONBLOCK); /* the main loop must never wait here */
    if (host.refusals > 0) {
        host.refusals--;
        errno = EAGAIN;
        return -1;
    }
    if (host.most_a_call && length > host.most_a_call)
        length = host.most_a_call;
    return syscall(SYS_getrandom, buffer, length, flags);
}

static void set_up(void)
{
    rig_init(&pc.rig);
    memset(&host, 0, sizeof(host));
    ck_assert_int_eq(rng_create(&pc.rng, &pc.rig.world, NULL), 0);
    pc.virtio = rng_virtio(pc.rng);
    rig_plug(&pc.rig, pc.virtio);
    pc.virtio->device.ops->reset(&pc.virtio->device);
    rig_resume(pc.virtio);
}

static void tear_down(void)
{
    rig_pause(pc.virtio);
    device_destroy(&pc.virtio->device);
    rig_finish(&pc.rig);
}

static void bring_up(uint64_t features)
{
    model_init(&pc.driver, &(struct model_config){.memory = pc.rig.memory,
                                                  .base = MODEL_AT,
                                                  .size = QUEUE_SIZE,
                                                  .event_index = features & VIRTIO_F_EVENT_INDEX,
                                                  .indirect = features & VIRTIO_F_INDIRECT});
    rig_enable(pc.virtio, 0, &pc.driver);
    rig_climb(pc.virtio, features | VIRTIO_F_VERSION_1);
    ck_assert_uint_eq(rig_status(pc.virtio), RIG_CLIMBED);
    rig_turn(&pc.rig);
}

static void show(void)
{
    if (model_show(&pc.driver))
        virtio_ring_doorbell(pc.virtio, 0);
}

static gpa_t ask(uint32_t bytes)
{
    struct model_part part = model_in(&pc.driver, bytes);
    ck_assert_int_ge(model_add(&pc.driver, &part, 1, part.gpa), 0);
    return part.gpa;
}

static unsigned fillers(gpa_t gpa, uint32_t length)
{
    const uint8_t *bytes = model_bytes(&pc.driver, gpa, length);
    unsigned count = 0;
    for (uint32_t i = 0; i < length; i++)
        count += bytes[i] == FILLER;
    return count;
}

START_TEST(what_is_asked_for_is_random_then)
{
    struct model_done done[2];
    bring_up(0);
    gpa_t a = ask(256), b = ask(256);
    show();
    rig_turn(&pc.rig);
    ck_assert(model_reap(&pc.driver, &done[0]) && model_reap(&pc.driver, &done[1]));
    ck_assert_uint_eq(done[0].written, 256);
    ck_assert_uint_eq(done[0].token, a);
    ck_assert_uint_eq(done[1].token, b);
    /* One byte in 256 by chance: 20 of them happen once in 10^15. */
    ck_assert_uint_lt(fillers(a, 256), 20);
    ck_assert(memcmp(model_bytes(&pc.driver, a, 256), model_bytes(&pc.driver, b, 256), 256) != 0);
    ck_assert_uint_eq(pc.rig.queue_interrupts[0], 1);
}
END_TEST

START_TEST(buffers_in_pieces_are_filled_in_their_order)
{
    for (unsigned indirect = 0; indirect < 2; indirect++) {
        struct model_done done;
        bring_up(VIRTIO_F_INDIRECT);
        struct model_part parts[5];
        for (unsigned i = 0; i < 5; i++)
            parts[i] = model_in(&pc.driver, 1000);
        ck_assert_int_ge(indirect ? model_add_indirect(&pc.driver, parts, 5, 1)
                                  : model_add(&pc.driver, parts, 5, 1),
                         0);
        show();
        rig_turn(&pc.rig);
        ck_assert(model_reap(&pc.driver, &done));
        ck_assert_uint_eq(done.written, 4096);
        for (unsigned i = 0; i < 4; i++)
            ck_assert_uint_lt(fillers(parts[i].gpa, 1000), 60);
        ck_assert_uint_lt(fillers(parts[4].gpa, 96), 20);
        ck_assert_uint_eq(fillers(parts[4].gpa + 96, 904), 904); /* not a byte more than it says */
        rig_set_status(pc.virtio, 0);
    }
}
END_TEST

START_TEST(a_short_answer_of_the_host_is_passed_on)
{
    struct model_done done;
    host.most_a_call = 10;
    bring_up(0);
    struct model_part parts[] = {model_in(&pc.driver, 8), model_in(&pc.driver, 100),
                                 model_in(&pc.driver, 100)};
    ck_assert_int_ge(model_add(&pc.driver, parts, 3, 1), 0);
    show();
    rig_turn(&pc.rig);
    ck_assert(model_reap(&pc.driver, &done));
    ck_assert_uint_eq(done.written, 18);
    ck_assert_uint_eq(fillers(parts[1].gpa + 10, 90), 90);
    ck_assert_uint_eq(fillers(parts[2].gpa, 100), 100);
}
END_TEST

START_TEST(a_driver_that_never_stops_asking_leaves_the_loop_to_others)
{
    struct model_done done;
    unsigned turns;
    bring_up(0);
    for (unsigned i = 0; i < QUEUE_SIZE; i++)
        ask(16 << 10);
    show();
    for (turns = 0; model_outstanding(&pc.driver) > 0; turns++) {
        loop_post(pc.rig.loop, &pc.rig.end); /* somebody else's work */
        pc.rig.turns_left = 0;
        ck_assert_int_eq(loop_run(pc.rig.loop), 0);
        unsigned served = 0;
        while (model_reap(&pc.driver, &done)) {
            ck_assert_uint_eq(done.written, 4096);
            served++;
        }
        ck_assert_uint_le(served, 16);
        ck_assert_uint_lt(turns, 1000);
    }
    ck_assert_uint_ge(turns, QUEUE_SIZE / 16); /* and it goes on without being told */
}
END_TEST

START_TEST(a_driver_that_rings_only_when_it_must_is_never_forgotten)
{
    const uint64_t features[] = {0, VIRTIO_F_EVENT_INDEX};
    uint64_t seed = 4711;
    for (size_t i = 0; i < array_size(features); i++) {
        struct model_done done;
        unsigned reaped = 0;
        bring_up(features[i]);
        for (unsigned round = 0; round < 2000; round++) {
            for (uint64_t n = chance(&seed) % 5; n && model_outstanding(&pc.driver) < 60; n--)
                ask(1 + (uint32_t)(chance(&seed) % 64));
            show();
            if (chance(&seed) % 3)
                rig_turn(&pc.rig);
            while (model_reap(&pc.driver, &done))
                reaped++;
        }
        for (unsigned turns = 0; model_outstanding(&pc.driver) > 0; turns++) {
            ck_assert_uint_lt(turns, 10);
            rig_turn(&pc.rig);
            while (model_reap(&pc.driver, &done))
                reaped++;
        }
        ck_assert_uint_gt(reaped, 1000);
        rig_set_status(pc.virtio, 0);
    }
}
END_TEST

START_TEST(a_driver_that_wants_no_interrupt_gets_none)
{
    struct model_done done;
    bring_up(0);
    model_want_no_interrupt(&pc.driver);
    ask(8);
    show();
    rig_turn(&pc.rig);
    ck_assert(model_reap(&pc.driver, &done));
    ck_assert_uint_eq(pc.rig.queue_interrupts[0], 0);
}
END_TEST

START_TEST(a_host_without_randomness_is_asked_again)
{
    struct model_done done;
    host.refusals = 2;
    bring_up(0);
    gpa_t gpa = ask(64);
    show();
    rig_turn(&pc.rig);
    ck_assert(!model_reap(&pc.driver, &done));
    ck_assert_uint_eq(host.calls, 1);
    ck_assert_uint_eq(fillers(gpa, 64), 64);
    uint64_t start = clock_monotonic_ns();
    pc.rig.stop_at_interrupt = true; /* the timer of the device is what ends this run */
    ck_assert_int_eq(loop_run(pc.rig.loop), 0);
    while (!model_reap(&pc.driver, &done))
        ck_assert_int_eq(loop_run(pc.rig.loop), 0);
    ck_assert_uint_eq(done.written, 64);
    ck_assert_uint_eq(host.calls, 3);
    ck_assert_uint_ge(clock_monotonic_ns() - start, NS_PER_SEC / 10); /* and not in a hurry */
}
END_TEST

START_TEST(a_request_that_waits_moves_with_the_state)
{
    struct model_done done;
    struct stream_buffer saved;
    struct rng *other;
    host.refusals = 1;
    bring_up(VIRTIO_F_EVENT_INDEX);
    ask(64);
    show();
    rig_turn(&pc.rig);
    rig_pause(pc.virtio);
    struct state_item item = {pc.virtio->device.table, 0, pc.virtio->device.state};
    stream_buffer_init(&saved, 0);
    ck_assert_int_eq(state_save(&saved.stream, &item, 1), 0);
    stream_buffer_rewind(&saved);

    ck_assert_int_eq(rng_create(&other, &pc.rig.world, NULL), 0);
    struct virtio *virtio = rng_virtio(other);
    item.object = virtio->device.state;
    ck_assert_int_eq(state_load(&saved.stream, &item, 1, NULL), 0);
    rig_plug(&pc.rig, virtio);
    rig_resume(virtio);
    rig_turn(&pc.rig);
    ck_assert(model_reap(&pc.driver, &done));
    ck_assert_uint_eq(done.written, 64);
    ck_assert_uint_eq(pc.rig.queue_interrupts[0], 1);
    rig_pause(virtio);
    device_destroy(&virtio->device);
    stream_buffer_finish(&saved);
    pc.virtio->transport = NULL;
}
END_TEST

START_TEST(nothing_happens_in_a_pause)
{
    struct model_done done;
    host.refusals = 1;
    bring_up(0);
    ask(64);
    show();
    rig_turn(&pc.rig); /* the timer is armed now */
    rig_pause(pc.virtio);
    struct loop_timer later;
    loop_timer_init(&later, pc.rig.loop, rig_handle_end, &pc.rig);
    pc.rig.turns_left = 1;
    ck_assert_int_eq(loop_timer_arm(&later, clock_monotonic_ns() + NS_PER_SEC / 5), 0);
    ck_assert_int_eq(loop_run(pc.rig.loop), 0);
    ck_assert_uint_eq(host.calls, 1);
    rig_resume(pc.virtio);
    rig_turn(&pc.rig);
    ck_assert(model_reap(&pc.driver, &done));
}
END_TEST

static void expect_broken(void)
{
    struct model_done done;
    virtio_ring_doorbell(pc.virtio, 0);
    rig_turn(&pc.rig);
    ck_assert_uint_eq(rig_status(pc.virtio), RIG_CLIMBED | VIRTIO_NEEDS_RESET);
    ck_assert_uint_eq(pc.rig.config_interrupts, 1);
    pc.rig.config_interrupts = 0;
    ck_assert_uint_eq(host.calls, 0);

    /* And it is the same as ever after the reset. */
    rig_set_status(pc.virtio, 0);
    ck_assert_uint_eq(rig_status(pc.virtio), 0);
    bring_up(0);
    ask(8);
    show();
    rig_turn(&pc.rig);
    ck_assert(model_reap(&pc.driver, &done));
    rig_set_status(pc.virtio, 0);
    host.calls = 0;
    bring_up(0);
}

START_TEST(a_lying_driver_breaks_its_device_and_no_more)
{
    gpa_t ring;
    bring_up(0);
    ring = pc.driver.descriptors;
    struct model_part out = model_out(&pc.driver, "to read", 7);
    ck_assert_int_ge(model_add(&pc.driver, &out, 1, 1), 0);
    model_show(&pc.driver);
    expect_broken(); /* nothing to fill */

    model_poke_descriptor(&pc.driver, ring, 0, 0x1000, 0, MODEL_WRITE, 0);
    model_poke_head(&pc.driver, 0);
    expect_broken(); /* an empty buffer */

    model_poke_descriptor(&pc.driver, ring, 0, 0x1000, 8, MODEL_WRITE | MODEL_NEXT, 0);
    model_poke_head(&pc.driver, 0);
    expect_broken(); /* a loop */

    model_poke_descriptor(&pc.driver, ring, 0, RIG_MEMORY - 4, 8, MODEL_WRITE, 0);
    model_poke_head(&pc.driver, 0);
    expect_broken(); /* beyond RAM */

    model_poke_index(&pc.driver, 1000);
    expect_broken(); /* more than there can be */
}
END_TEST

START_TEST(more_buffers_than_the_queue_has_entries_break_it)
{
    struct model_part parts[QUEUE_SIZE + 1];
    bring_up(VIRTIO_F_INDIRECT);
    model_init(&pc.driver, &(struct model_config){.memory = pc.rig.memory,
                                                  .base = MODEL_AT,
                                                  .size = QUEUE_SIZE,
                                                  .indirect = true,
                                                  .table_size = QUEUE_SIZE + 1});
    for (unsigned i = 0; i < QUEUE_SIZE + 1; i++)
        parts[i] = model_in(&pc.driver, 4);
    ck_assert_int_ge(model_add_indirect(&pc.driver, parts, QUEUE_SIZE + 1, 1), 0);
    model_show(&pc.driver);
    expect_broken();
}
END_TEST

START_TEST(the_longest_legal_request_is_served)
{
    struct model_part parts[QUEUE_SIZE];
    struct model_done done;
    bring_up(0);
    for (unsigned i = 0; i < QUEUE_SIZE; i++)
        parts[i] = model_in(&pc.driver, 4);
    ck_assert_int_ge(model_add(&pc.driver, parts, QUEUE_SIZE, 1), 0);
    show();
    rig_turn(&pc.rig);
    ck_assert(model_reap(&pc.driver, &done));
    ck_assert_uint_eq(done.written, 4 * QUEUE_SIZE);
}
END_TEST

START_TEST(its_state_keeps_the_promises_of_states)
{
    bring_up(VIRTIO_F_EVENT_INDEX);
    ask(8);
    show();
    rig_turn(&pc.rig);
    rig_pause(pc.virtio);
    struct virtio_state *sample = pc.virtio->device.state;
    sample->config_generation = 3;
    sample->resetting = true;
    sample->reserved = 9;
    memset(sample->queues[0].reserved, 0x7e, sizeof(sample->queues[0].reserved));
    unit_check_table(pc.virtio->device.table, sample);
    sample->resetting = false;
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("rng");
    TCase *tcase = tcase_create("all");

    tcase_add_checked_fixture(tcase, set_up, tear_down);
    tcase_add_test(tcase, what_is_asked_for_is_random_then);
    tcase_add_test(tcase, buffers_in_pieces_are_filled_in_their_order);
    tcase_add_test(tcase, a_short_answer_of_the_host_is_passed_on);
    tcase_add_test(tcase, a_driver_that_never_stops_asking_leaves_the_loop_to_others);
    tcase_add_test(tcase, a_driver_that_rings_only_when_it_must_is_never_forgotten);
    tcase_add_test(tcase, a_driver_that_wants_no_interrupt_gets_none);
    tcase_add_test(tcase, a_host_without_randomness_is_asked_again);
    tcase_add_test(tcase, a_request_that_waits_moves_with_the_state);
    tcase_add_test(tcase, nothing_happens_in_a_pause);
    tcase_add_test(tcase, a_lying_driver_breaks_its_device_and_no_more);
    tcase_add_test(tcase, more_buffers_than_the_queue_has_entries_break_it);
    tcase_add_test(tcase, the_longest_legal_request_is_served);
    tcase_add_test(tcase, its_state_keeps_the_promises_of_states);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
