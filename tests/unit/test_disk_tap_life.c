/* SPDX-License-Identifier: MIT */
/* The block device with a tap before its disk: what waits there is part of the device's state, and
 * nothing of it is lost or made twice, whatever befalls the device. */
#include "host/disk_tap.h"
#include "tests/unit/blk_fixture.h"
#include <stdatomic.h>

enum { REQUESTS = 20 };

static struct disk *disk; /* the tap's */
static struct disk_tap *tap;
static _Atomic unsigned told, refused;
static atomic_bool takes;

static bool handle_change(void *ctx, const struct disk_request *request)
{
    if (atomic_load(&takes))
        atomic_fetch_add(&told, 1);
    else
        atomic_fetch_add(&refused, 1);
    return atomic_load(&takes);
}

static void set_up_tap(void)
{
    static const struct disk_tap_handlers handlers = {.change = handle_change};

    fake_disk_init(&t.fake, t.bytes, SIZE);
    ck_assert_int_eq(disk_tap_create(&disk, &t.fake.disk, NULL), 0);
    tap = disk_tap_of(disk);
    disk_tap_open(tap, &handlers);
    atomic_store(&takes, false);
    atomic_store(&told, 0);
    atomic_store(&refused, 0);
    blk_rig_init(&t.rig, disk, 1);
    start_with(ALL_FEATURES);
}

static void tear_down_tap(void)
{
    tear_down();
    disk_destroy(disk);
}

static void nothing(void *arg)
{
}

/* Writes, of which the first is refused. */
static void make_wait(void)
{
    for (unsigned i = 0; i < REQUESTS; i++) {
        uint8_t bytes[512];
        memset(bytes, (int)(0x80 + i), sizeof(bytes));
        ck_assert_ptr_nonnull(blk_rig_add(&t.rig, 0, BLK_OUT, i * 2, bytes, sizeof(bytes)));
    }
    blk_rig_show(&t.rig, 0);
    while (atomic_load(&refused) == 0)
        blk_rig_on_thread(&t.rig, nothing, NULL);
}

static void go_on(void)
{
    atomic_store(&takes, true);
    disk_tap_go_on(tap);
}

static void expect_all(void)
{
    blk_rig_wait(&t.rig);
    for (unsigned i = 0; i < REQUESTS; i++) {
        ck_assert_uint_eq(blk_rig_status(&t.rig, &t.rig.ios[i]), BLK_OK);
        ck_assert_uint_eq(t.bytes[i * 2 * 512], 0x80 + i);
    }
    ck_assert_uint_eq(told, REQUESTS);
    ck_assert_uint_eq(t.fake.asked[DISK_WRITE], REQUESTS);
}

START_TEST(what_waits_in_a_pause_goes_on_after_it)
{
    make_wait();
    rig_pause(t.rig.virtio);
    rig_resume(t.rig.virtio);
    ck_assert_uint_eq(t.fake.asked[DISK_WRITE], 0);
    go_on();
    expect_all();
}
END_TEST

/* Somebody makes the file whole, as a move does. */
START_TEST(a_drain_in_a_pause_costs_the_guest_nothing)
{
    make_wait();
    rig_pause(t.rig.virtio);
    disk_drain(disk);
    blk_rig_reap(&t.rig);
    ck_assert_uint_eq(t.rig.done_count, 0);
    rig_resume(t.rig.virtio);
    go_on();
    expect_all();
}
END_TEST

START_TEST(said_in_a_pause_it_goes_on_after_it)
{
    make_wait();
    rig_pause(t.rig.virtio);
    go_on();
    rig_resume(t.rig.virtio);
    expect_all();
}
END_TEST

START_TEST(closed_in_a_pause_it_goes_on_untold)
{
    make_wait();
    rig_pause(t.rig.virtio);
    disk_tap_close(tap);
    rig_resume(t.rig.virtio);
    blk_rig_wait(&t.rig);
    ck_assert_uint_eq(told, 0);
    ck_assert_uint_eq(t.fake.asked[DISK_WRITE], REQUESTS);
}
END_TEST

START_TEST(what_waits_travels_with_the_state)
{
    struct stream_buffer saved;
    struct state_item item = {t.rig.virtio->device.table, 0, t.rig.virtio->device.state};

    make_wait();
    rig_pause(t.rig.virtio);
    stream_buffer_init(&saved, 1 << 20);
    ck_assert_int_eq(state_save(&saved.stream, &item, 1), 0);
    blk_rig_unplug(&t.rig);
    ck_assert_uint_eq(t.fake.asked[DISK_WRITE], 0);
    blk_rig_plug(&t.rig, disk, 1);
    stream_buffer_rewind(&saved);
    item.object = t.rig.virtio->device.state;
    ck_assert_int_eq(state_load(&saved.stream, &item, 1, NULL), 0);
    stream_buffer_finish(&saved);
    rig_resume(t.rig.virtio);
    go_on();
    expect_all();
}
END_TEST

/* Who is reset does not wait for the other side. */
START_TEST(a_reset_takes_back_what_waits)
{
    const bool drivers = _i;

    make_wait();
    if (drivers) {
        rig_set_status(t.rig.virtio, 0);
        while (rig_status(t.rig.virtio) != 0)
            blk_rig_on_thread(&t.rig, nothing, NULL);
    } else {
        rig_pause(t.rig.virtio);
        t.rig.virtio->device.ops->reset(&t.rig.virtio->device);
        rig_resume(t.rig.virtio);
    }
    go_on();
    restart(ALL_FEATURES, RING);
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_FLUSH, 0, NULL, 0), BLK_OK);
    ck_assert_uint_eq(told, 1);
    ck_assert_uint_eq(t.fake.asked[DISK_WRITE], 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("disk_tap_life");
    TCase *tests = tcase_create("life");

    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, set_up_tap, tear_down_tap);
    tcase_add_test(tests, what_waits_in_a_pause_goes_on_after_it);
    tcase_add_test(tests, a_drain_in_a_pause_costs_the_guest_nothing);
    tcase_add_test(tests, said_in_a_pause_it_goes_on_after_it);
    tcase_add_test(tests, closed_in_a_pause_it_goes_on_untold);
    tcase_add_test(tests, what_waits_travels_with_the_state);
    tcase_add_loop_test(tests, a_reset_takes_back_what_waits, 0, 2);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
