/* SPDX-License-Identifier: MIT */
/* The block device's life: pause, resume, reset, and its state on another host. */
#include "tests/unit/blk_fixture.h"
#include "virtio/blk_parts.h"
#include <errno.h>

static struct blk_io *hold_some(unsigned count)
{
    struct blk_io *first = &t.rig.ios[t.rig.io_count];

    blk_rig_on_thread(&t.rig, hold, NULL);
    for (unsigned i = 0; i < count; i++) {
        uint8_t bytes[512];
        memset(bytes, (int)(0x80 + i), sizeof(bytes));
        ck_assert_ptr_nonnull(
            blk_rig_add(&t.rig, 0, i % 2 ? BLK_OUT : BLK_IN, i * 2, i % 2 ? bytes : NULL, 512));
    }
    blk_rig_show(&t.rig, 0);
    wait_until_held(count);
    return first;
}

static void check_all_done(struct blk_io *first, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        ck_assert_uint_eq(blk_rig_status(&t.rig, &first[i]), BLK_OK);
        if (i % 2)
            ck_assert_uint_eq(t.bytes[i * 2 * 512], 0x80 + i);
        else
            ck_assert_mem_eq(blk_rig_data(&t.rig, &first[i]), t.bytes + i * 2 * 512, 512);
    }
}

START_TEST(a_pause_waits_for_no_disk_and_repeats_nothing)
{
    struct blk_io *first = hold_some(20);

    t.fake.may_cancel = true;
    rig_pause(t.rig.virtio);
    ck_assert_uint_eq(t.rig.done_count, 0);
    ck_assert_uint_eq(t.fake.cancelled, 0);
    rig_resume(t.rig.virtio);
    blk_rig_on_thread(&t.rig, fake_disk_release, &t.fake);
    blk_rig_wait(&t.rig);
    check_all_done(first, 20);
    ck_assert_uint_eq(t.fake.asked[DISK_READ] + t.fake.asked[DISK_WRITE], 20);
}
END_TEST

static unsigned count_written(void)
{
    enum { WORDS = 2 * BLK_RIG_QUEUES * BLK_RIG_AREA / 4096 / 64 };
    uint64_t bits[WORDS] = {0};
    unsigned count = 0;
    memory_log_harvest(t.rig.rig.memory, 0, WORDS, bits);
    for (unsigned i = 0; i < WORDS; i++)
        count += (unsigned)__builtin_popcountll(bits[i]);
    return count;
}

/* What it reads has come then, and whoever compares the guest's memory sees it. */
START_TEST(what_ends_in_a_pause_is_repeated_after_it)
{
    struct blk_io *first = hold_some(20);

    rig_pause(t.rig.virtio);
    ck_assert_int_eq(memory_log_start(t.rig.rig.memory), 0);
    disk_drain(&t.fake.disk);
    ck_assert_uint_gt(count_written(), 0);
    memory_log_stop(t.rig.rig.memory);
    t.fake.hold = false;
    blk_rig_reap(&t.rig);
    ck_assert_uint_eq(t.rig.done_count, 0); /* nothing moves in a pause */
    rig_resume(t.rig.virtio);
    blk_rig_wait(&t.rig);
    check_all_done(first, 20);
    ck_assert_uint_eq(t.fake.asked[DISK_READ] + t.fake.asked[DISK_WRITE], 40);
}
END_TEST

/* Saves the paused device, throws it away, and loads a new one. */
static void hop(void)
{
    struct stream_buffer saved;
    struct state_item item = {t.rig.virtio->device.table, 0, t.rig.virtio->device.state};
    struct err err = {0};

    rig_pause(t.rig.virtio);
    stream_buffer_init(&saved, 1 << 20);
    ck_assert_int_eq(state_save(&saved.stream, &item, 1), 0);
    /* The old one is gone as with its host: what it held never happens. */
    t.fake.fail = -EIO;
    t.fake.fail_op = 0;
    blk_rig_unplug(&t.rig);
    fake_disk_init(&t.fake, t.bytes, SIZE);
    blk_rig_plug(&t.rig, &t.fake.disk, 1);
    stream_buffer_rewind(&saved);
    item.object = t.rig.virtio->device.state;
    ck_assert_msg(state_load(&saved.stream, &item, 1, &err) == 0, "%s", err.text);
    stream_buffer_finish(&saved);
    rig_resume(t.rig.virtio);
}

START_TEST(requests_in_flight_travel_with_the_state)
{
    struct blk_io *first = hold_some(100);

    hop();
    blk_rig_wait(&t.rig);
    check_all_done(first, 100);
    ck_assert_uint_eq(t.fake.asked[DISK_READ] + t.fake.asked[DISK_WRITE], 100);
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_IN, 0, NULL, 512), BLK_OK);
}
END_TEST

START_TEST(a_reset_that_waits_travels_too_and_ends)
{
    hold_some(3);
    rig_set_status(t.rig.virtio, 0);
    ck_assert_uint_eq(rig_status(t.rig.virtio), RIG_CLIMBED);
    hop();
    ck_assert_uint_eq(rig_status(t.rig.virtio), 0);
    ck_assert_uint_eq(t.fake.asked[DISK_READ] + t.fake.asked[DISK_WRITE], 0);
}
END_TEST

START_TEST(a_drivers_reset_waits_for_requests_under_way)
{
    struct blk_io *first = hold_some(10);

    rig_set_status(t.rig.virtio, 0);
    ck_assert_uint_ne(rig_status(t.rig.virtio), 0);
    blk_rig_on_thread(&t.rig, fake_disk_release, &t.fake);
    ck_assert_uint_eq(rig_status(t.rig.virtio), 0);
    ck_assert_uint_eq(blk_rig_status(&t.rig, &first[0]),
                      BLK_NO_STATUS); /* the ring is taken away */
    t.fake.hold = false;
    restart(ALL_FEATURES, RING);
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_IN, 0, NULL, 512), BLK_OK);
}
END_TEST

START_TEST(a_machines_reset_forgets_all)
{
    hold_some(10);
    write_config(32, 1, 0);
    rig_pause(t.rig.virtio);
    t.rig.virtio->device.ops->reset(&t.rig.virtio->device);
    ck_assert_uint_eq(rig_status(t.rig.virtio), 0);
    ck_assert_uint_eq(config_byte(32), 1);
    t.fake.hold = false;
    t.rig.io_count = t.rig.done_count = 0;
    start_with(ALL_FEATURES);
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_IN, 0, NULL, 512), BLK_OK);
}
END_TEST

/* As hold_some() has left it. */
static void check_none_was_written(void)
{
    ck_assert_uint_eq(t.fake.cancelled, 10);
    for (unsigned i = 1; i < 10; i += 2)
        ck_assert_uint_eq(t.bytes[i * 2 * 512], (uint8_t)(i * 2 * 512 * 7 + i * 2));
    ck_assert_uint_eq(t.rig.failures, 0); /* nobody's fault */
}

START_TEST(a_drivers_reset_takes_back_what_has_not_begun)
{
    struct blk_io *first = hold_some(10);

    t.fake.may_cancel = true;
    rig_set_status(t.rig.virtio, 0);
    while (rig_status(t.rig.virtio) != 0)
        usleep(100); /* as a driver does: nothing tells it */
    check_none_was_written();
    for (unsigned i = 0; i < 10; i++)
        ck_assert_uint_eq(blk_rig_status(&t.rig, &first[i]), BLK_NO_STATUS);
    t.fake.hold = false;
    restart(ALL_FEATURES, RING);
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_IN, 0, NULL, 512), BLK_OK);
}
END_TEST

START_TEST(a_machines_reset_takes_back_what_has_not_begun)
{
    hold_some(10);
    rig_pause(t.rig.virtio);
    t.fake.may_cancel = true;
    t.rig.virtio->device.ops->reset(&t.rig.virtio->device);
    check_none_was_written();
    t.fake.hold = false;
    t.rig.io_count = t.rig.done_count = 0;
    start_with(ALL_FEATURES);
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_IN, 0, NULL, 512), BLK_OK);
}
END_TEST

START_TEST(a_machine_that_ends_takes_back_what_has_not_begun)
{
    hold_some(10);
    t.fake.may_cancel = true;
    blk_rig_unplug(&t.rig);
    check_none_was_written();
}
END_TEST

static void handle_trouble(void *ctx, const char *sentence)
{
    *(const char **)ctx = sentence;
}

START_TEST(what_the_disk_has_to_say_is_passed_on)
{
    const char *heard = NULL, *words = "disk.img is damaged";

    rig_pause(t.rig.virtio);
    t.fake.client.trouble(t.fake.client.ctx, words); /* nobody listens */
    t.rig.blk->config.trouble = handle_trouble;
    t.rig.blk->config.ctx = &heard;
    t.fake.client.trouble(t.fake.client.ctx, words);
    ck_assert_ptr_eq(heard, words);
}
END_TEST

START_TEST(the_disk_may_have_another_size_after_a_load)
{
    rig_pause(t.rig.virtio);
    uint8_t generation = t.rig.virtio->state->config_generation;
    t.fake.disk.info.size = SIZE / 2;
    rig_resume(t.rig.virtio);
    ck_assert_uint_eq(config_number(0, 8), SECTORS / 2);
    ck_assert_uint_ne(t.rig.virtio->state->config_generation, generation);
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_IN, SECTORS / 2, NULL, 512), BLK_IOERR);
}
END_TEST

/* The marks are the last field of the state. */
static uint64_t *marks(void)
{
    const struct state_table *table = t.rig.virtio->device.table;
    const struct state_field *field = &table->fields[table->field_count - 1];
    return (uint64_t *)(void *)((uint8_t *)t.rig.virtio->device.state + field->offset);
}

START_TEST(a_state_that_lies_about_requests_breaks_the_device_only)
{
    for (unsigned round = 0; round < 200; round++) {
        struct vring_state *ring = &t.rig.virtio->state->queues[0];
        blk_rig_run(&t.rig, BLK_IN, 0, NULL, 512);
        rig_pause(t.rig.virtio);
        switch (round % 4) {
        case 0: /* more marks than the ring knows of */
            marks()[chance(&t.seed) % 4] |= 1ull << chance(&t.seed) % 64;
            break;
        case 1: /* heads that the ring does not have */
            marks()[2] = marks()[3] = chance(&t.seed);
            ring->next_available = (uint16_t)(ring->next_used +
                                              __builtin_popcountll(marks()[2]) * 2);
            break;
        case 2: /* as many as there can be, of whatever lies in the descriptors */
            marks()[0] = marks()[1] = UINT64_MAX;
            ring->next_available = (uint16_t)(ring->next_used + RING);
            break;
        case 3: /* queues that are not there */
            marks()[4 + chance(&t.seed) % 28] = chance(&t.seed);
            ring->next_available++;
            break;
        }
        rig_resume(t.rig.virtio);
        blk_rig_wait_for_break(&t.rig);
        restart(ALL_FEATURES, RING);
    }
    for (unsigned i = 0; i < 32; i++)
        ck_assert_uint_eq(marks()[i], 0);
}
END_TEST

START_TEST(a_hop_at_any_moment_loses_nothing)
{
    static uint8_t shadow[SIZE];

    memcpy(shadow, t.bytes, SIZE);
    for (unsigned round = 0; round < 30; round++) {
        struct blk_io *ios[16];
        if (t.rig.io_count > BLK_RIG_TOKENS - 64)
            break;
        if (chance(&t.seed) % 2)
            blk_rig_on_thread(&t.rig, hold, NULL);
        for (unsigned i = 0; i < 16; i++) {
            uint64_t sector = i * 8 + chance(&t.seed) % 4;
            ios[i] = add_cut(0, BLK_OUT, sector, 2048);
            if (!ios[i])
                continue;
            memcpy(shadow + sector * 512, blk_rig_data(&t.rig, ios[i]), 2048);
            blk_rig_show(&t.rig, 0);
        }
        hop();
        blk_rig_wait(&t.rig);
        ck_assert_mem_eq(shadow, t.bytes, SIZE);
    }
}
END_TEST

START_TEST(state_table_keeps_its_promises)
{
    hold_some(5);
    rig_pause(t.rig.virtio);
    virtio_config_changed(t.rig.virtio);
    unit_check_table(t.rig.virtio->device.table, t.rig.virtio->device.state);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("blk_life");
    TCase *tc = tcase_create("blk_life");

    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_add_test(tc, a_pause_waits_for_no_disk_and_repeats_nothing);
    tcase_add_test(tc, what_ends_in_a_pause_is_repeated_after_it);
    tcase_add_test(tc, requests_in_flight_travel_with_the_state);
    tcase_add_test(tc, a_reset_that_waits_travels_too_and_ends);
    tcase_add_test(tc, a_drivers_reset_waits_for_requests_under_way);
    tcase_add_test(tc, a_machines_reset_forgets_all);
    tcase_add_test(tc, a_drivers_reset_takes_back_what_has_not_begun);
    tcase_add_test(tc, a_machines_reset_takes_back_what_has_not_begun);
    tcase_add_test(tc, a_machine_that_ends_takes_back_what_has_not_begun);
    tcase_add_test(tc, what_the_disk_has_to_say_is_passed_on);
    tcase_add_test(tc, the_disk_may_have_another_size_after_a_load);
    tcase_add_test(tc, a_state_that_lies_about_requests_breaks_the_device_only);
    tcase_add_test(tc, a_hop_at_any_moment_loses_nothing);
    tcase_add_test(tc, state_table_keeps_its_promises);
    suite_add_tcase(suite, tc);
    return unit_main(suite);
}
