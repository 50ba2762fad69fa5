/* SPDX-License-Identifier: MIT */
#include "host/disk_limit.h"
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
    bool in_batch, may_cancel;
    unsigned cancelled;
} t;

static void handle_done(struct disk_request *request, int result)
{
    if (result == -ECANCELED && t.may_cancel) {
        t.cancelled++;
        return;
    }
    ck_assert_int_eq(result, 0);
    t.order[t.done++ % MOST] = (unsigned)(request - t.requests);
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

static void limit_with(const struct limits *limits, struct shared_limits *shared)
{
    static const struct disk_client client = {.begin = handle_begin, .end = handle_end};

    ck_assert_int_eq(disk_limit_create(&t.disk, &t.inner.disk, limits, shared, NULL), 0);
    ck_assert_uint_eq(t.disk->info.size, SIZE);
    ck_assert_int_eq(disk_attach(t.disk, t.loop, &client, NULL), 0);
    ck_assert(t.inner.attached);
}

static void limit(uint64_t iops, uint64_t bandwidth)
{
    limit_with(&(struct limits){iops, bandwidth}, NULL);
}

static void tear_down(void)
{
    disk_drain(t.disk);
    disk_detach(t.disk);
    ck_assert(!t.inner.attached);
    disk_destroy(t.disk);
    loop_destroy(t.loop);
}

/* When it began. */
static uint64_t submit(unsigned count, enum disk_op op, uint64_t length)
{
    static struct iovec iov;
    uint64_t begin = clock_monotonic_ns();

    iov = (struct iovec){.iov_base = t.bytes, .iov_len = length};
    for (unsigned i = 0; i < count; i++) {
        t.requests[i] = (struct disk_request){
            .op = op, .length = length, .iov = &iov, .iov_count = 1, .done = handle_done};
        disk_submit(t.disk, &t.requests[i]);
    }
    disk_kick(t.disk);
    return begin;
}

/* What a rate has let become due since then. */
static uint64_t due(unsigned rate, uint64_t begin)
{
    return clock_scale(rate, clock_monotonic_ns() - begin, NS_PER_SEC);
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

START_TEST(a_debt_ends_some_day)
{
    struct bucket bucket = {.rate = 1};
    uint64_t now = 100 * NS_PER_SEC;

    for (unsigned i = 0; i < 1000; i++)
        bucket_take(&bucket, UINT64_MAX >> (i % 64), now);
    ck_assert_uint_eq(bucket_ready_ns(&bucket), now + BUCKET_LONGEST_S * NS_PER_SEC);
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
    uint64_t begin = submit(240, DISK_FLUSH, 0);
    ck_assert_uint_ge(t.done, 200); /* the burst, at once */
    ck_assert_uint_le(t.done, 201 + due(200, begin));
    time_until(240);
    ck_assert_uint_ge(due(200, begin), 240 - 201);
    for (unsigned i = 0; i < 240; i++)
        ck_assert_uint_eq(t.order[i], i);
}
END_TEST

/* 16 are a second's worth, and one makes a debt. */
static void keeps_to_its_bytes(enum disk_op op)
{
    uint64_t begin = submit(18, op, 65536);
    ck_assert_uint_ge(t.done, 17);
    ck_assert_uint_le(t.done, 17 + due(16, begin));
    time_until(18);
    ck_assert_uint_ge(due(16, begin), 1);
}

START_TEST(bytes_keep_to_their_limit)
{
    limit(0, 1 << 20);
    keeps_to_its_bytes(DISK_READ);
}
END_TEST

START_TEST(what_moves_no_bytes_costs_no_bytes)
{
    limit(0, 512);
    submit(100, DISK_DISCARD, SIZE);
    ck_assert_uint_eq(t.done, 100);
}
END_TEST

START_TEST(zeroes_that_must_be_written_cost_what_they_are)
{
    limit(0, 1 << 20);
    keeps_to_its_bytes(DISK_ZEROES);
}
END_TEST

START_TEST(a_cancel_ends_those_that_wait)
{
    limit(1, 0);
    t.inner.hold = t.inner.may_cancel = true;
    submit(MOST, DISK_FLUSH, 0);
    unsigned begun = t.inner.asked[DISK_FLUSH];
    ck_assert_uint_lt(begun, 5);
    t.may_cancel = true;
    disk_cancel(t.disk);
    ck_assert_uint_eq(t.cancelled, MOST);
    ck_assert_uint_eq(t.inner.cancelled, begun); /* it is passed on */
    ck_assert_uint_eq(t.inner.asked[DISK_FLUSH], begun);

    /* What the host has begun ends by itself; and the disk lives on. */
    t.inner.may_cancel = false;
    t.cancelled = 0;
    submit(1, DISK_FLUSH, 0);
    disk_cancel(t.disk);
    t.may_cancel = false;
    disk_drain(t.disk);
    ck_assert_uint_eq(t.cancelled + t.done, 1);
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

START_TEST(without_a_limit_requests_pass_at_once)
{
    limit(0, 0);
    submit(MOST, DISK_FLUSH, 0);
    ck_assert_uint_eq(t.done, MOST);
    ck_assert_int_eq(disk_set_limits(&t.inner.disk, &(struct limits){0}), -ENOTSUP);
}
END_TEST

START_TEST(a_new_limit_holds_the_next_request)
{
    limit(0, 0);
    submit(MOST, DISK_FLUSH, 0);
    ck_assert_int_eq(disk_set_limits(t.disk, &(struct limits){.operations = 1}), 0);
    t.done = 0;
    submit(MOST, DISK_FLUSH, 0);
    ck_assert_uint_lt(t.done, 3);
}
END_TEST

START_TEST(who_waits_goes_when_the_limit_does)
{
    static const struct limits limits[] = {{0}, {.operations = 1000000}};

    limit(0, 1); /* the second one would go after hours */
    submit(MOST, DISK_READ, 65536);
    ck_assert_uint_lt(t.done, 3);
    ck_assert_int_eq(disk_set_limits(t.disk, &limits[_i]), 0);
    ck_assert_uint_lt(time_until(MOST), 5 * NS_PER_SEC);
    for (unsigned i = 0; i < MOST; i++)
        ck_assert_uint_eq(t.order[i], i);
}
END_TEST

/* The whole limit is used up by somebody else's disk. */
START_TEST(disks_share_a_limit)
{
    static const struct disk_client client = {.begin = handle_begin, .end = handle_end};
    struct shared_limits *shared;
    struct limits limits = {.operations = 100};
    struct fake_disk inner;
    struct disk *other;

    ck_assert_int_eq(shared_limits_create(&shared, &limits, NULL), 0);
    limit_with(&(struct limits){0}, shared);
    fake_disk_init(&inner, t.bytes, SIZE);
    ck_assert_int_eq(disk_limit_create(&other, &inner.disk, &(struct limits){0}, shared, NULL), 0);
    ck_assert_int_eq(disk_attach(other, t.loop, &client, NULL), 0);
    uint64_t begin = submit(MOST, DISK_FLUSH, 0);
    ck_assert_uint_ge(t.done, 100);

    static struct disk_request requests[5];
    for (unsigned i = 0; i < array_size(requests); i++) {
        requests[i] = (struct disk_request){.op = DISK_FLUSH, .done = handle_done};
        disk_submit(other, &requests[i]);
    }
    disk_kick(other);
    /* All that are done, of both; the other one's first knows of nobody else as yet. */
    ck_assert_uint_le(t.done, 102 + due(100, begin));
    disk_drain(other);
    disk_detach(other);
    disk_destroy(other);
    disk_drain(t.disk);
    disk_detach(t.disk);
    disk_destroy(t.disk);
    shared_limits_destroy(shared);
    limit(0, 0); /* for the end of the test */
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("disk_limit");
    TCase *bucket = tcase_create("bucket"), *disk = tcase_create("disk");

    tcase_add_test(bucket, a_bucket_gives_its_rate_and_a_second_of_savings);
    tcase_add_test(bucket, a_take_larger_than_the_bucket_is_paid_afterwards);
    tcase_add_test(bucket, a_debt_ends_some_day);
    tcase_add_test(bucket, a_bucket_without_a_rate_never_waits);
    tcase_add_checked_fixture(disk, set_up, tear_down);
    tcase_add_test(disk, operations_keep_to_their_limit_and_their_order);
    tcase_add_test(disk, bytes_keep_to_their_limit);
    tcase_add_test(disk, what_moves_no_bytes_costs_no_bytes);
    tcase_add_test(disk, zeroes_that_must_be_written_cost_what_they_are);
    tcase_add_test(disk, a_cancel_ends_those_that_wait);
    tcase_add_test(disk, drain_waits_for_nobody);
    tcase_add_test(disk, without_a_limit_requests_pass_at_once);
    tcase_add_test(disk, a_new_limit_holds_the_next_request);
    tcase_add_loop_test(disk, who_waits_goes_when_the_limit_does, 0, 2);
    tcase_add_test(disk, disks_share_a_limit);
    suite_add_tcase(suite, bucket);
    suite_add_tcase(suite, disk);
    return unit_main(suite);
}
