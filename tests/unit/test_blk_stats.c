/* SPDX-License-Identifier: MIT */
/* What the block device counts: all that a driver asked for, once, and nothing else. */
#include "core/clock.h"
#include "tests/unit/blk_fixture.h"

static struct blk_stats stats(void)
{
    struct blk_stats stats;
    blk_stats(t.rig.blk, &stats);
    return stats;
}

/* The guest may know of an answer before the device has counted it, but not of the next one. */
static void settle(void)
{
    virtio_lock(t.rig.virtio);
    virtio_unlock(t.rig.virtio);
}

static void check(enum blk_kind kind, uint64_t count, uint64_t bytes, uint64_t errors)
{
    settle();
    struct blk_stats now = stats();
    ck_assert_uint_eq(now.of[kind].latency.count, count);
    ck_assert_uint_eq(now.of[kind].bytes, bytes);
    ck_assert_uint_eq(now.of[kind].errors, errors);
}

static void check_all(uint64_t count)
{
    uint64_t all = 0;
    settle();
    struct blk_stats now = stats();
    for (unsigned kind = 0; kind < BLK_KINDS; kind++)
        all += now.of[kind].latency.count;
    ck_assert_uint_eq(all, count);
}

START_TEST(each_kind_is_counted_with_its_bytes)
{
    uint8_t bytes[4096] = {0};
    struct blk_range ranges[] = {{.sector = 1, .sectors = 2}, {.sector = 8, .sectors = 3}};
    check_all(0);
    for (unsigned i = 0; i < 3; i++)
        ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_IN, 0, NULL, 512), BLK_OK);
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_OUT, 0, bytes, 4096), BLK_OK);
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_FLUSH, 0, NULL, 0), BLK_OK);
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_ZEROES, 0, ranges, sizeof(ranges)), BLK_OK);
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_DISCARD, 0, ranges, sizeof(ranges)), BLK_OK);
    check(BLK_READS, 3, 3 * 512, 0);
    check(BLK_WRITES, 1, 4096, 0);
    check(BLK_FLUSHES, 1, 0, 0);
    check(BLK_DISCARDS, 2, 2 * 5 * 512, 0);
}
END_TEST

START_TEST(a_write_that_is_flushed_with_it_is_one_write)
{
    uint8_t bytes[512] = {0};
    write_config(32, 1, 0); /* write through */
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_OUT, 0, bytes, 512), BLK_OK);
    ck_assert_uint_eq(t.fake.asked[DISK_FLUSH], 1);
    check(BLK_WRITES, 1, 512, 0);
    check(BLK_FLUSHES, 0, 0, 0);
}
END_TEST

START_TEST(errors_are_counted_whoever_is_to_blame)
{
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_IN, SECTORS, NULL, 512), BLK_IOERR);
    check(BLK_READS, 1, 0, 1);
    t.fake.fail = -EIO;
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_IN, 0, NULL, 512), BLK_IOERR);
    check(BLK_READS, 2, 0, 2);
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_FLUSH, 0, NULL, 0), BLK_IOERR);
    check(BLK_FLUSHES, 1, 0, 1);
    t.fake.fail = 0;
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_IN, 0, NULL, 512), BLK_OK);
    check(BLK_READS, 3, 512, 2);
}
END_TEST

START_TEST(what_is_no_transfer_is_not_counted)
{
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_GET_ID, 0, NULL, 20), BLK_OK);
    ck_assert_uint_eq(blk_rig_run(&t.rig, 0xffffffff, 0, NULL, 512), BLK_UNSUPP);
    check_all(0);
}
END_TEST

START_TEST(what_a_reset_cancels_is_not_counted)
{
    blk_rig_on_thread(&t.rig, hold, NULL);
    t.fake.may_cancel = true;
    ck_assert_ptr_nonnull(blk_rig_add(&t.rig, 0, BLK_IN, 0, NULL, 512));
    blk_rig_show(&t.rig, 0);
    wait_until_held(1);
    rig_set_status(t.rig.virtio, 0);
    while (rig_status(t.rig.virtio) != 0)
        usleep(100); /* the device's own thread ends the reset; nothing tells us */
    check_all(0);
}
END_TEST

static void let_go(void *arg)
{
    fake_disk_release(&t.fake);
}

START_TEST(the_time_is_that_from_the_ring_and_back)
{
    enum { TOOK_MS = 30 };
    blk_rig_on_thread(&t.rig, hold, NULL);
    uint64_t began = clock_monotonic_ns();
    ck_assert_ptr_nonnull(blk_rig_add(&t.rig, 0, BLK_IN, 0, NULL, 512));
    blk_rig_show(&t.rig, 0);
    wait_until_held(1);
    uint64_t taken = clock_monotonic_ns();
    usleep(TOOK_MS * 1000);
    uint64_t released = clock_monotonic_ns();
    blk_rig_on_thread(&t.rig, let_go, NULL);
    blk_rig_wait(&t.rig);
    check(BLK_READS, 1, 512, 0);
    struct histogram_reading latency = stats().of[BLK_READS].latency;
    ck_assert_uint_ge(latency.sum, released - taken);
    ck_assert_uint_le(latency.sum, clock_monotonic_ns() - began);
    ck_assert_uint_eq(latency.buckets[histogram_bucket(latency.sum)], 1);
}
END_TEST

START_TEST(many_at_once_are_all_counted)
{
    enum { ROUNDS = 20, DEPTH = 40 }; /* more than a batch, and than is counted in one go */
    for (unsigned round = 0; round < ROUNDS; round++) {
        t.rig.io_count = t.rig.done_count = 0;
        for (unsigned i = 0; i < DEPTH; i++)
            ck_assert_ptr_nonnull(blk_rig_add(&t.rig, 0, BLK_IN, i, NULL, 512));
        blk_rig_show(&t.rig, 0);
        blk_rig_wait(&t.rig);
    }
    check(BLK_READS, ROUNDS * DEPTH, ROUNDS * DEPTH * 512, 0);
}
END_TEST

START_TEST(a_pause_is_not_the_disks)
{
    enum { PAUSE_MS = 50 };
    blk_rig_on_thread(&t.rig, hold, NULL);
    ck_assert_ptr_nonnull(blk_rig_add(&t.rig, 0, BLK_IN, 0, NULL, 512));
    blk_rig_show(&t.rig, 0);
    wait_until_held(1);
    rig_pause(t.rig.virtio);
    fake_disk_release(&t.fake); /* it ends in the pause, and is repeated */
    check_all(0);
    t.fake.hold = false;
    usleep(PAUSE_MS * 1000);
    uint64_t resumed = clock_monotonic_ns();
    rig_resume(t.rig.virtio);
    blk_rig_wait(&t.rig);
    check(BLK_READS, 1, 512, 0);
    ck_assert_uint_le(stats().of[BLK_READS].latency.sum, clock_monotonic_ns() - resumed);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("blk_stats");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 60);
    tcase_add_checked_fixture(all, set_up, tear_down);
    tcase_add_test(all, each_kind_is_counted_with_its_bytes);
    tcase_add_test(all, a_write_that_is_flushed_with_it_is_one_write);
    tcase_add_test(all, errors_are_counted_whoever_is_to_blame);
    tcase_add_test(all, what_is_no_transfer_is_not_counted);
    tcase_add_test(all, what_a_reset_cancels_is_not_counted);
    tcase_add_test(all, the_time_is_that_from_the_ring_and_back);
    tcase_add_test(all, many_at_once_are_all_counted);
    tcase_add_test(all, a_pause_is_not_the_disks);
    suite_add_tcase(suite, all);
    return unit_main(suite);
}
