/* SPDX-License-Identifier: MIT */
/* The tap's own flush is at the guest's file, where Linux tells of an error once: who of the two
 * hears of it first, the guest is not told that anything is safe that is not. */
#include "core/clock.h"
#include "host/disk_tap.h"
#include "tests/unit/fake_disk.h"
#include "tests/unit/unit.h"
#include <sys/resource.h>

enum { SIZE = 1 << 20, BLOCK = 512, MOST = 8, UNDER_WAY = 1 };

static struct {
    struct loop *loop;
    struct loop_timer timer;
    struct fake_disk inner;
    struct disk *disk;
    struct disk_tap *tap;
    uint8_t bytes[BLOCK];
    struct iovec iov;
    struct disk_request requests[MOST];
    int results[MOST]; /* UNDER_WAY until done */
    unsigned again;    /* submitted once more when it has ended */
    bool in_batch;
    unsigned ended, flushed; /* what the guard heard */
    int last;
} t;

static void handle_done(struct disk_request *request, int result)
{
    unsigned index = (unsigned)(request - t.requests);

    ck_assert_int_eq(t.results[index], UNDER_WAY);
    t.results[index] = result;
    if (t.again) {
        t.again--;
        t.results[index] = UNDER_WAY;
        disk_submit(t.disk, request);
    }
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

static bool handle_allows(void *ctx, const struct disk_request *request)
{
    return true;
}

static unsigned handle_begins(void *ctx)
{
    return 7;
}

static void handle_ended(void *ctx, unsigned mark, enum disk_op op, int result)
{
    ck_assert_uint_eq(mark, 7);
    t.ended++;
    t.last = result;
}

static void handle_flushed(void *ctx, unsigned number, int result)
{
    t.flushed++;
    t.last = result;
}

static bool handle_change(void *ctx, const struct disk_request *request)
{
    return true;
}

static const struct disk_tap_guard guard = {.allows = handle_allows,
                                            .begins = handle_begins,
                                            .ended = handle_ended,
                                            .flushed = handle_flushed};
static const struct disk_tap_handlers handlers = {.change = handle_change};

static void set_up_with(bool write_through)
{
    static const struct disk_client client = {.begin = handle_begin, .end = handle_end};

    memset(&t, 0, sizeof(t));
    ck_assert_int_eq(loop_create(&t.loop, NULL), 0);
    fake_disk_init(&t.inner, NULL, SIZE);
    t.inner.disk.info.write_through = write_through;
    t.inner.hold = true;
    ck_assert_int_eq(disk_tap_create(&t.disk, &t.inner.disk, NULL), 0);
    t.tap = disk_tap_of(t.disk);
    ck_assert_int_eq(disk_attach(t.disk, t.loop, &client, NULL), 0);
    disk_tap_set_guard(t.tap, &guard);
}

static void set_up(void)
{
    set_up_with(false);
}

static void tear_down(void)
{
    disk_drain(t.disk);
    disk_detach(t.disk);
    disk_destroy(t.disk);
    loop_destroy(t.loop);
}

static void handle_timer(void *arg)
{
    loop_stop(t.loop);
}

static void settle(void)
{
    for (unsigned i = 0; i < 3; i++) {
        loop_timer_init(&t.timer, t.loop, handle_timer, NULL);
        ck_assert_int_eq(loop_timer_arm(&t.timer, clock_monotonic_ns()), 0);
        ck_assert_int_eq(loop_run(t.loop), 0);
        loop_timer_cancel(&t.timer);
    }
}

static void submit(unsigned index, enum disk_op op)
{
    bool data = op == DISK_READ || op == DISK_WRITE;

    t.iov = (struct iovec){t.bytes, BLOCK};
    t.requests[index] = (struct disk_request){.op = op,
                                              .length = op == DISK_FLUSH ? 0 : BLOCK,
                                              .iov = data ? &t.iov : NULL,
                                              .iov_count = data,
                                              .done = handle_done};
    t.results[index] = UNDER_WAY;
    disk_submit(t.disk, &t.requests[index]);
    disk_kick(t.disk);
}

/* The one that has been under way for longest. */
static void end_first(int result)
{
    struct disk_request *request = disk_queue_take(&t.inner.held);

    ck_assert_ptr_nonnull(request);
    t.inner.held_count--;
    t.inner.client.begin(t.inner.client.ctx);
    request->done(request, result);
    disk_kick(&t.inner.disk);
    t.inner.client.end(t.inner.client.ctx);
}

static void begin_ours(void)
{
    static unsigned number;
    unsigned held = t.inner.held_count;

    disk_tap_flush(t.tap, ++number);
    settle();
    ck_assert_uint_eq(t.inner.held_count, held + 1);
}

static void flush_once(unsigned index, int result)
{
    submit(index, DISK_FLUSH);
    end_first(0);
    ck_assert_int_eq(t.results[index], result);
}

/* --- one after the other ---------------------------------------------------------------------- */

START_TEST(the_next_flush_of_the_guest_has_the_error_of_ours_once)
{
    begin_ours();
    ck_assert(!disk_tap_has_lost(t.tap));
    end_first(-EIO);
    ck_assert(t.flushed == 1 && t.last == -EIO && disk_tap_has_lost(t.tap));
    submit(0, DISK_WRITE);
    end_first(0);
    ck_assert_int_eq(t.results[0], 0); /* nothing was promised */
    flush_once(1, -EIO);
    ck_assert_int_eq(t.last, 0); /* the guard has heard of it already */
    flush_once(2, 0);
    begin_ours();
    end_first(-EIO);
    begin_ours();
    end_first(-ENOSPC); /* one error more tells nothing more */
    flush_once(3, -ENOSPC);
    flush_once(4, 0);
    ck_assert(disk_tap_has_lost(t.tap));
}
END_TEST

START_TEST(who_was_cancelled_has_told_nothing)
{
    begin_ours();
    end_first(-ECANCELED);
    ck_assert(!disk_tap_has_lost(t.tap));
    flush_once(0, 0);
    begin_ours();
    end_first(-EIO);
    submit(1, DISK_FLUSH);
    end_first(-ECANCELED);
    ck_assert_int_eq(t.results[1], -ECANCELED);
    submit(2, DISK_FLUSH);
    end_first(-ENOSPC); /* its own: that tells the same */
    ck_assert_int_eq(t.results[2], -ENOSPC);
    flush_once(3, 0);
}
END_TEST

START_TEST(a_flush_of_the_guest_that_fails_is_noted_with_or_without_a_guard)
{
    disk_tap_set_guard(t.tap, _i ? &guard : NULL);
    submit(0, DISK_WRITE);
    end_first(-EIO);
    ck_assert(!disk_tap_has_lost(t.tap)); /* the guest was told of these bytes, and they are read */
    submit(0, DISK_FLUSH);
    end_first(-EIO);
    ck_assert_int_eq(t.results[0], -EIO);
    ck_assert(disk_tap_has_lost(t.tap));
    flush_once(1, 0);
}
END_TEST

/* --- at the same time ------------------------------------------------------------------------- */

static const int ours[] = {0, -EIO};

START_TEST(the_guest_waits_for_what_ours_has_to_tell)
{
    begin_ours();
    submit(0, DISK_FLUSH);
    submit(1, DISK_FLUSH);
    submit(2, DISK_WRITE);
    disk_queue_add(&t.inner.held, disk_queue_take(&t.inner.held)); /* ours is the last one */
    for (unsigned i = 0; i < 3; i++)
        end_first(0);
    ck_assert(t.results[0] == UNDER_WAY && t.results[1] == UNDER_WAY && t.results[2] == 0);
    ck_assert_uint_eq(t.ended, 3); /* with the disk they are through */
    end_first(ours[_i]);
    ck_assert(t.results[0] == ours[_i] && t.results[1] == ours[_i]);
    flush_once(3, 0);
}
END_TEST

START_TEST(who_is_under_way_when_ours_ends_has_its_error_too)
{
    submit(0, DISK_FLUSH);
    begin_ours();
    submit(1, DISK_FLUSH);
    disk_queue_add(&t.inner.held, disk_queue_take(&t.inner.held));
    end_first(ours[_i]);
    ck_assert(t.results[0] == UNDER_WAY && t.results[1] == UNDER_WAY);
    end_first(0);
    end_first(0);
    ck_assert(t.results[0] == ours[_i] && t.results[1] == ours[_i]);
    flush_once(2, 0);
}
END_TEST

START_TEST(an_error_of_its_own_waits_for_nobody)
{
    submit(0, DISK_FLUSH);
    begin_ours();
    end_first(-EIO);
    ck_assert_int_eq(t.results[0], -EIO);
    end_first(0);
    flush_once(1, 0);
}
END_TEST

/* A guard that goes takes nothing of this with it. */
START_TEST(closed_and_unguarded_while_ours_is_under_way)
{
    submit(0, DISK_FLUSH);
    begin_ours();
    disk_tap_set_guard(t.tap, NULL);
    submit(1, DISK_FLUSH);
    end_first(0);
    ck_assert_int_eq(t.results[0], UNDER_WAY);
    end_first(ours[_i]);
    ck_assert_int_eq(t.results[0], ours[_i]);
    ck_assert_int_eq(t.results[1], UNDER_WAY);
    end_first(0);
    ck_assert_int_eq(t.results[1], ours[_i]);
    ck_assert_uint_eq(t.ended + t.flushed, 0);
    ck_assert(disk_tap_has_lost(t.tap) == (ours[_i] < 0));
    flush_once(2, 0);
}
END_TEST

/* Where a completed write is on stable storage, it is as a flush is. */
START_TEST(with_write_through_writes_are_promises_too)
{
    tear_down();
    set_up_with(true);
    submit(0, DISK_WRITE);
    begin_ours();
    submit(1, DISK_ZEROES);
    submit(2, DISK_READ);
    end_first(0);
    ck_assert_int_eq(t.results[0], UNDER_WAY);
    end_first(ours[_i]);
    ck_assert_int_eq(t.results[0], ours[_i]);
    end_first(0);
    end_first(0);
    ck_assert(t.results[1] == ours[_i] && t.results[2] == 0);
    flush_once(3, 0);
    ck_assert(disk_tap_has_lost(t.tap) == (ours[_i] < 0));
    submit(4, DISK_WRITE);
    end_first(-EIO);
    ck_assert(disk_tap_has_lost(t.tap));
}
END_TEST

/* --- while one is kept ------------------------------------------------------------------------ */

static void keep_one(void)
{
    submit(0, DISK_FLUSH);
    begin_ours();
    end_first(0);
    ck_assert_int_eq(t.results[0], UNDER_WAY);
}

START_TEST(a_drain_ends_what_is_kept)
{
    keep_one();
    t.again = _i; /* it comes once more meanwhile */
    t.inner.fail = -EIO;
    t.inner.fail_op = DISK_FLUSH;
    disk_drain(t.disk);
    ck_assert_int_eq(t.results[0], -EIO);
    disk_detach(t.disk);
    ck_assert_int_eq(disk_attach(t.disk, t.loop, &t.inner.client, NULL), 0);
}
END_TEST

/* Closed, a cancel reaches ours, which tells of nothing then; open, it does not. */
START_TEST(a_cancel_leaves_what_is_kept_to_ours)
{
    const bool open = _i;

    if (open)
        disk_tap_open(t.tap, &handlers);
    keep_one();
    t.inner.may_cancel = true;
    disk_cancel(t.disk);
    if (open) {
        ck_assert_int_eq(t.results[0], UNDER_WAY);
        end_first(-EIO);
    }
    ck_assert_int_eq(t.results[0], open ? -EIO : 0);
    ck_assert_uint_eq(t.inner.held_count, 0);
    flush_once(1, 0);
}
END_TEST

START_TEST(who_is_kept_may_come_again_when_it_ends)
{
    keep_one();
    t.again = 1;
    end_first(-EIO);
    ck_assert_int_eq(t.results[0], UNDER_WAY);
    end_first(0);
    ck_assert_int_eq(t.results[0], 0);
}
END_TEST

/* --- no memory -------------------------------------------------------------------------------- */

#ifndef __SANITIZE_ADDRESS__ /* which has an allocator of its own */
/* Where the end of a flush could not be heard here, none is begun. */
START_TEST(without_memory_nothing_is_promised)
{
    static void *taken[1 << 16];
    struct rlimit limit;
    size_t count = 0;

    ck_assert_int_eq(getrlimit(RLIMIT_AS, &limit), 0);
    limit.rlim_cur = 1;
    ck_assert_int_eq(setrlimit(RLIMIT_AS, &limit), 0);
    for (size_t size = 4096; size >= 16; size -= size > 256 ? 256 : 16)
        while (count < array_size(taken) && (taken[count] = malloc(size)))
            count++;
    submit(0, DISK_FLUSH);
    submit(1, DISK_WRITE);
    limit.rlim_cur = limit.rlim_max;
    ck_assert_int_eq(setrlimit(RLIMIT_AS, &limit), 0);
    while (count > 0)
        free(taken[--count]);
    ck_assert_uint_eq(t.inner.asked[DISK_FLUSH], 0);
    ck_assert_int_eq(t.results[0], UNDER_WAY); /* never from within submit */
    ck_assert_uint_eq(t.inner.asked[DISK_WRITE], 1);
    if (_i)
        disk_drain(t.disk);
    else
        settle();
    ck_assert_int_eq(t.results[0], -ENOMEM);
    ck_assert_uint_eq(t.ended, 0); /* and the guard waits for both of them for ever */
    if (!_i)
        end_first(0);
    flush_once(2, 0);
}
END_TEST
#endif

int main(void)
{
    Suite *suite = suite_create("disk_tap_flush");
    TCase *tests = tcase_create("flush");

    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, the_next_flush_of_the_guest_has_the_error_of_ours_once);
    tcase_add_test(tests, who_was_cancelled_has_told_nothing);
    tcase_add_loop_test(tests, a_flush_of_the_guest_that_fails_is_noted_with_or_without_a_guard, 0,
                        2);
    tcase_add_loop_test(tests, the_guest_waits_for_what_ours_has_to_tell, 0, 2);
    tcase_add_loop_test(tests, who_is_under_way_when_ours_ends_has_its_error_too, 0, 2);
    tcase_add_test(tests, an_error_of_its_own_waits_for_nobody);
    tcase_add_loop_test(tests, closed_and_unguarded_while_ours_is_under_way, 0, 2);
    tcase_add_loop_test(tests, with_write_through_writes_are_promises_too, 0, 2);
    tcase_add_loop_test(tests, a_drain_ends_what_is_kept, 0, 2);
    tcase_add_loop_test(tests, a_cancel_leaves_what_is_kept_to_ours, 0, 2);
    tcase_add_test(tests, who_is_kept_may_come_again_when_it_ends);
#ifndef __SANITIZE_ADDRESS__
    tcase_add_loop_test(tests, without_memory_nothing_is_promised, 0, 2);
#endif
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
