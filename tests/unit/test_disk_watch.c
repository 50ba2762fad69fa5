/* SPDX-License-Identifier: MIT */
#include "host/disk_point.h"
#include "host/disk_watch.h"
#include "tests/unit/fake_disk.h"
#include "tests/unit/unit.h"

#include "core/thread.h"

enum { CLUSTER = DISK_WATCH_CLUSTER, CLUSTERS = 70, SIZE = CLUSTERS * CLUSTER - 512 };

static struct {
    struct loop *loop;
    struct fake_disk inner;
    uint8_t bytes[SIZE], buffer[4 * CLUSTER];
    struct disk *disk;
    struct disk_watch *watch;
    struct disk_request request;
    struct iovec iov;
    unsigned done;
    int result;
    uint64_t bits[CLUSTERS / 64 + 1];
} t;

static void handle_nothing(void *ctx)
{
}

static void set_up(void)
{
    static const struct disk_client client = {.begin = handle_nothing, .end = handle_nothing};
    memset(&t, 0, sizeof(t));
    ck_assert_int_eq(loop_create(&t.loop, NULL), 0);
    fake_disk_init(&t.inner, t.bytes, SIZE);
    ck_assert_int_eq(disk_point_create(&t.disk, &t.inner.disk, "/dev/null", NULL), 0);
    ck_assert_int_eq(disk_attach(t.disk, t.loop, &client, NULL), 0);
    ck_assert_int_eq(disk_watch_start(&t.watch, t.disk, NULL), 0);
}

static void tear_down(void)
{
    disk_drain(t.disk);
    disk_watch_stop(t.watch);
    disk_detach(t.disk);
    disk_destroy(t.disk);
    loop_destroy(t.loop);
}

static void handle_done(struct disk_request *request, int result)
{
    ck_assert_ptr_eq(request, &t.request);
    t.done++;
    t.result = result;
}

static void ask(enum disk_op op, uint64_t offset, uint64_t length)
{
    t.iov = (struct iovec){.iov_base = t.buffer, .iov_len = length};
    t.request = (struct disk_request){.op = op,
                                      .offset = offset,
                                      .length = length,
                                      .iov = &t.iov,
                                      .iov_count = op == DISK_READ || op == DISK_WRITE,
                                      .done = handle_done};
    disk_submit(t.disk, &t.request);
    disk_kick(t.disk);
}

static uint64_t harvest(void)
{
    uint64_t count;
    memset(t.bits, 0, sizeof(t.bits));
    ck_assert_int_eq(disk_watch_harvest(t.watch, t.bits, &count), 0);
    return count;
}

static bool has(uint64_t cluster)
{
    return t.bits[cluster / 64] >> cluster % 64 & 1;
}

START_TEST(what_is_written_is_noted_once)
{
    ck_assert_uint_eq(disk_watch_clusters(t.watch), CLUSTERS);
    ck_assert_uint_eq(harvest(), 0);
    ask(DISK_WRITE, CLUSTER - 512, 1024);
    ck_assert_uint_eq(t.done, 1);
    ck_assert_uint_eq(harvest(), 2);
    ck_assert(has(0) && has(1));
    ck_assert_uint_eq(harvest(), 0);

    ask(DISK_ZEROES, 64 * CLUSTER, CLUSTER);
    ask(DISK_DISCARD, 66 * CLUSTER, CLUSTER);
    ask(DISK_WRITE, SIZE - 512, 512);
    ck_assert_uint_eq(harvest(), 3);
    ck_assert(has(64) && has(66) && has(69));

    ask(DISK_READ, 0, 4 * CLUSTER);
    ask(DISK_FLUSH, 0, 0);
    ck_assert_uint_eq(harvest(), 0);
    ck_assert_uint_eq(t.done, 6);
}
END_TEST

START_TEST(a_write_counts_when_it_is_done_and_before_its_guest_hears_of_it)
{
    t.inner.hold = true;
    ask(DISK_WRITE, 0, 512);
    ck_assert_uint_eq(harvest(), 0);
    fake_disk_release(&t.inner);
    ck_assert_uint_eq(t.done, 1);
    ck_assert_uint_eq(harvest(), 1);
}
END_TEST

START_TEST(what_failed_counts_too)
{
    t.inner.fail = -EIO;
    ask(DISK_WRITE, 5 * CLUSTER, 512);
    ck_assert_int_eq(t.result, -EIO);
    ck_assert_uint_eq(harvest(), 1);
    ck_assert(has(5));
}
END_TEST

START_TEST(what_is_under_way_at_the_end_goes_its_way)
{
    t.inner.hold = true;
    ask(DISK_WRITE, 0, 512);
    disk_watch_stop(t.watch);
    t.watch = NULL;
    fake_disk_release(&t.inner);
    ck_assert_uint_eq(t.done, 1);
    ck_assert_int_eq(t.result, 0);
    t.inner.hold = false;
    ask(DISK_WRITE, 0, 512);
    ck_assert_uint_eq(t.done, 2);
}
END_TEST

START_TEST(one_at_a_time)
{
    struct disk_watch *second;
    struct err err = {0};
    ck_assert_int_eq(disk_watch_start(&second, t.disk, &err), -EBUSY);
    ck_assert_int_eq(err.kind, ERR_STATE);
}
END_TEST

/* --- reading ---------------------------------------------------------------------------------- */

static void run_loop(void *arg)
{
    ck_assert_int_eq(loop_run(t.loop), 0);
}

START_TEST(the_guests_disk_is_read_by_its_loop_or_where_that_stands_still)
{
    struct thread thread = {0};
    uint8_t got[1024];
    for (unsigned i = 0; i < sizeof(got); i++)
        t.bytes[3 * CLUSTER + i] = (uint8_t)(i * 7);
    ck_assert_int_eq(disk_watch_read(t.watch, 3 * CLUSTER, got, sizeof(got), true), 0);
    ck_assert_mem_eq(got, t.bytes + 3 * CLUSTER, sizeof(got));

    memset(got, 0, sizeof(got));
    ck_assert_int_eq(thread_start(&thread, "loop", run_loop, NULL, NULL), 0);
    ck_assert_int_eq(disk_watch_read(t.watch, 3 * CLUSTER, got, sizeof(got), false), 0);
    ck_assert_mem_eq(got, t.bytes + 3 * CLUSTER, sizeof(got));
    loop_stop(t.loop);
    thread_join(&thread);
}
END_TEST

static void run_read(void *arg)
{
    int *result = arg;
    uint8_t got[512];
    *result = disk_watch_read(t.watch, 0, got, sizeof(got), false);
}

static void handle_stop(void *arg)
{
    loop_stop(t.loop);
}

/* Nobody runs the loop: it would wait for ever. */
START_TEST(who_waits_for_a_loop_that_stands_still_can_be_called_off)
{
    struct loop_call stop = {.handle = handle_stop};
    struct thread thread = {0};
    int result = 1;
    ck_assert_int_eq(thread_start(&thread, "read", run_read, &result, NULL), 0);
    disk_watch_abort(t.watch);
    thread_join(&thread);
    ck_assert_int_eq(result, -ECANCELED);
    disk_watch_abort(NULL);
    /* What it asked for is still in the loop's queue, and goes with its next turn. */
    disk_watch_stop(t.watch);
    t.watch = NULL;
    loop_post(t.loop, &stop);
    ck_assert_int_eq(loop_run(t.loop), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("disk_watch");
    TCase *tcase = tcase_create("all");
    tcase_add_checked_fixture(tcase, set_up, tear_down);
    tcase_add_test(tcase, what_is_written_is_noted_once);
    tcase_add_test(tcase, a_write_counts_when_it_is_done_and_before_its_guest_hears_of_it);
    tcase_add_test(tcase, what_failed_counts_too);
    tcase_add_test(tcase, what_is_under_way_at_the_end_goes_its_way);
    tcase_add_test(tcase, one_at_a_time);
    tcase_add_test(tcase, the_guests_disk_is_read_by_its_loop_or_where_that_stands_still);
    tcase_add_test(tcase, who_waits_for_a_loop_that_stands_still_can_be_called_off);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
