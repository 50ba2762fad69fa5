/* SPDX-License-Identifier: MIT */
#include "host/bucket.h"
#include "tests/unit/fake_disk.h"
#include "tests/unit/unit.h"
#include <errno.h>

enum { SIZE = 1 << 20, MOST = 300 };

static struct {
    struct loop *loop;
    struct fake_disk inner;
    uint8_t bytes[SIZE];
    struct disk *disk;
    struct disk_request requests[MOST];
    unsigned order[MOST], done;
    unsigned expected; /* the loop stops then */
    bool in_batch;
} t;

static void handle_done(struct disk_request *request, int result)
{
    ck_assert_int_eq(result, 0);
    t.order[t.done++] = (unsigned)(request - t.requests);
    if (t.done == t.expected && t.in_batch)
        loop_stop(t.loop);
}

static void handle_begin(void *ctx)
{
    ck_assert(!t.in_batch);
    t.in_batch = true;
}

static void handle_end(void *ctx)
{
    ck_assert(t.in_batch);
    t.in_batch = false;
}

static void set_up(void)
{
    memset(&t, 0, sizeof(t));
    ck_assert_int_eq(loop_create(&t.loop, NULL), 0);
    fake_disk_init(&t.inner, t.bytes, SIZE);
}

static void limit(uint64_t iops, uint64_t bandwidth)
{
    static const struct disk_client client = {.begin = handle_begin, .end = handle_end};

    ck_assert_int_eq(disk_limit_create(&t.disk, &t.inner.disk, iops, bandwidth, NULL), 0);
    ck_assert_uint_eq(t.disk->info.size, SIZE);
    ck_assert_int_eq(disk_attach(t.disk, t.loop, &client, NULL), 0);
    ck_assert(t.inner.attached);
}

static void tear_down(void)
{
    disk_drain(t.disk);
    disk_detach(t.disk);
    ck_assert(!t.inner.attached);
    disk_destroy(t.disk);
    loop_destroy(t.loop);
}

static void submit(unsigned count, enum disk_op op, uint64_t length)
{
    static struct iovec iov;

    iov = (struct iovec){.iov_base = t.bytes, .iov_len = length};
    for (unsigned i = 0; i < count; i++) {
        t.requests[i] = (struct disk_request){
            .op = op, .length = length, .iov = &iov, .iov_count = 1, .done = handle_done};
        disk_submit(t.disk, &t.requests[i]);
    }
    disk_kick(t.disk);
}

/* Nanoseconds until so many are done in all. */
static uint64_t time_until(unsigned count)
{
    uint64_t before = clock_monotonic_ns();

    t.expected = count;
    if (t.done < count)
        ck_assert_int_eq(loop_run(t.loop), 0);
    ck_assert_uint_ge(t.done, count);
    return clock_monotonic_ns() - before;
}

/* With a clock of our own. */

START_TEST(a_bucket_gives_its_rate_and_a_second_of_savings)
{
    struct bucket bucket = {.rate = 1000};
    uint64_t now = 100 * NS_PER_SEC;
    unsigned taken = 0;

    for (; bucket_ready_ns(&bucket) <= now; taken++)
        bucket_take(&bucket, 1, now);
    ck_assert_uint_ge(taken, 1000); /* what was saved, and the one that makes a debt */
    ck_assert_uint_le(taken, 1001);
    for (taken = 0; now < 110 * NS_PER_SEC; now += 100000)
        for (; bucket_ready_ns(&bucket) <= now; taken++)
            bucket_take(&bucket, 1, now);
    ck_assert_uint_ge(taken, 9999);
    ck_assert_uint_le(taken, 10001);
    now += 3600 * NS_PER_SEC; /* an hour saves no more than a second */
    for (taken = 0; bucket_ready_ns(&bucket) <= now; taken++)
        bucket_take(&bucket, 1, now);
    ck_assert_uint_le(taken, 1001);
}
END_TEST

START_TEST(a_take_larger_than_the_bucket_is_paid_afterwards)
{
    struct bucket bucket = {.rate = 1000};
    uint64_t now = 100 * NS_PER_SEC;

    bucket_take(&bucket, 5000, now);
    ck_assert_uint_eq(bucket_ready_ns(&bucket), now + 4 * NS_PER_SEC);
}
END_TEST

START_TEST(a_bucket_without_a_rate_never_waits)
{
    struct bucket bucket = {0};

    bucket_take(&bucket, UINT64_MAX, 1);
    ck_assert_uint_eq(bucket_ready_ns(&bucket), 0);
}
END_TEST

/* The disk, by the real clock: never too fast; how slow depends on the machine. */

START_TEST(operations_keep_to_their_limit_and_their_order)
{
    limit(200, 0);
    submit(240, DISK_FLUSH, 0);
    ck_assert_uint_ge(t.done, 200); /* the burst, at once */
    ck_assert_uint_le(t.done, 210);
    unsigned at_once = t.done;
    uint64_t least = (239 - at_once) * NS_PER_SEC / 200;
    ck_assert_uint_ge(time_until(240) + 20000000, least);
    for (unsigned i = 0; i < 240; i++)
        ck_assert_uint_eq(t.order[i], i);
}
END_TEST

START_TEST(bytes_keep_to_their_limit)
{
    limit(0, 1 << 20);
    submit(18, DISK_READ, 65536); /* 16 are a second's worth, one makes a debt */
    ck_assert_uint_eq(t.done, 17);
    ck_assert_uint_ge(time_until(18), 40000000);
}
END_TEST

START_TEST(what_moves_no_bytes_costs_no_bytes)
{
    limit(0, 512);
    submit(100, DISK_DISCARD, SIZE);
    ck_assert_uint_eq(t.done, 100);
}
END_TEST

START_TEST(drain_waits_for_nobody)
{
    limit(1, 0);
    submit(MOST, DISK_FLUSH, 0);
    ck_assert_uint_lt(t.done, 5);
    disk_drain(t.disk);
    ck_assert_uint_eq(t.done, MOST);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("disk_limit");
    TCase *bucket = tcase_create("bucket"), *disk = tcase_create("disk");

    tcase_add_test(bucket, a_bucket_gives_its_rate_and_a_second_of_savings);
    tcase_add_test(bucket, a_take_larger_than_the_bucket_is_paid_afterwards);
    tcase_add_test(bucket, a_bucket_without_a_rate_never_waits);
    tcase_add_checked_fixture(disk, set_up, tear_down);
    tcase_add_test(disk, operations_keep_to_their_limit_and_their_order);
    tcase_add_test(disk, bytes_keep_to_their_limit);
    tcase_add_test(disk, what_moves_no_bytes_costs_no_bytes);
    tcase_add_test(disk, drain_waits_for_nobody);
    suite_add_tcase(suite, bucket);
    suite_add_tcase(suite, disk);
    return unit_main(suite);
}
