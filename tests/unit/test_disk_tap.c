/* SPDX-License-Identifier: MIT */
/* The tap before a disk: who is told of what, and what waits. With a device: test_disk_tap_life.c.
 */
#include "core/clock.h"
#include "core/thread.h"
#include "host/disk_limit.h"
#include "host/disk_point.h"
#include "host/disk_tap.h"
#include "tests/unit/fake_disk.h"
#include "tests/unit/unit.h"
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

enum { SIZE = 1 << 20, BLOCK = 512, MOST = 400 };

static struct {
    struct loop *loop;
    struct loop_timer end;
    struct fake_disk inner;
    uint8_t bytes[SIZE], told_bytes[SIZE]; /* the disk, and what one makes of what is told */
    struct disk *disk;
    struct disk_tap *tap;
    struct disk_request requests[MOST];
    struct iovec iov[MOST];
    uint8_t buffers[MOST][BLOCK];
    unsigned order[MOST], done, cancelled;
    unsigned told[MOST], told_count, refusals;
    unsigned expected; /* requests: the loop stops then */
    bool in_batch, again;
    unsigned follower; /* submitted when one is done; 0: none */
    unsigned budget;   /* changes that are taken before they are refused */
    uint64_t seed;
} t;

static unsigned chance(unsigned of)
{
    t.seed = t.seed * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)(t.seed >> 33) % of;
}

static unsigned index_of(const struct disk_request *request)
{
    return (unsigned)(request - t.requests);
}

static void submit(unsigned index, enum disk_op op);

static void handle_done(struct disk_request *request, int result)
{
    if (result == -ECANCELED) {
        t.cancelled++;
        if (t.again) {
            t.again = false;
            disk_submit(t.disk, request);
        }
        return;
    }
    ck_assert_int_eq(result, 0);
    t.order[t.done++ % MOST] = index_of(request);
    if (t.follower) {
        unsigned follower = t.follower;
        t.follower = 0;
        submit(follower, DISK_FLUSH);
    }
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

static bool handle_change(void *ctx, const struct disk_request *request)
{
    ck_assert_ptr_eq(ctx, &t);
    ck_assert_int_ne(request->op, DISK_READ);
    if (t.budget == 0) {
        t.refusals++;
        return false;
    }
    t.budget--;
    /* Before it is made: the disk was not asked for it. */
    unsigned asked = 0;
    for (unsigned op = DISK_WRITE; op <= DISK_ZEROES; op++)
        asked += t.inner.asked[op];
    ck_assert_uint_le(asked, t.told_count);
    t.told[t.told_count++ % MOST] = index_of(request);
    uint8_t *at = t.told_bytes + request->offset;
    if (request->op == DISK_WRITE)
        iov_read(request->iov, request->iov_count, 0, at, request->length);
    else if (request->op == DISK_ZEROES)
        memset(at, 0, request->length);
    return true;
}

static const struct disk_tap_handlers handlers = {.change = handle_change, .ctx = &t};
static const struct disk_client client = {.begin = handle_begin, .end = handle_end};

static void set_up(void)
{
    memset(&t, 0, sizeof(t));
    t.budget = UINT32_MAX;
    ck_assert_int_eq(loop_create(&t.loop, NULL), 0);
    fake_disk_init(&t.inner, t.bytes, SIZE);
    ck_assert_int_eq(disk_tap_create(&t.disk, &t.inner.disk, NULL), 0);
    t.tap = disk_tap_of(t.disk);
    ck_assert_ptr_nonnull(t.tap);
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

static void submit_at(unsigned index, enum disk_op op, uint64_t offset)
{
    bool data = op == DISK_READ || op == DISK_WRITE;

    memset(t.buffers[index], (int)(index + 1), BLOCK);
    t.iov[index] = (struct iovec){.iov_base = t.buffers[index], .iov_len = BLOCK};
    t.requests[index] = (struct disk_request){.op = op,
                                              .offset = offset,
                                              .length = op == DISK_FLUSH ? 0 : BLOCK,
                                              .iov = data ? &t.iov[index] : NULL,
                                              .iov_count = data,
                                              .done = handle_done};
    disk_submit(t.disk, &t.requests[index]);
}

static void submit(unsigned index, enum disk_op op)
{
    submit_at(index, op, index * (uint64_t)BLOCK);
}

static void handle_timer(void *arg)
{
    loop_stop(t.loop);
}

/* What was asked of the loop until now has been done. */
static void settle(void)
{
    for (unsigned i = 0; i < 3; i++) {
        loop_timer_init(&t.end, t.loop, handle_timer, NULL);
        ck_assert_int_eq(loop_timer_arm(&t.end, clock_monotonic_ns()), 0);
        ck_assert_int_eq(loop_run(t.loop), 0);
        loop_timer_cancel(&t.end);
    }
}

static void expect_done(unsigned count)
{
    ck_assert_uint_eq(t.done, count);
    for (unsigned i = 0; i < count; i++)
        ck_assert_uint_eq(t.order[i], i);
}

/* --- closed ----------------------------------------------------------------------------------- */

static uint64_t cost_seven(struct disk *disk, const struct disk_request *request)
{
    return 7;
}

START_TEST(closed_it_is_not_there)
{
    ck_assert_uint_eq(t.disk->info.size, SIZE);
    ck_assert_uint_eq(t.disk->info.optimal_size, 4096);
    ck_assert(t.disk->info.discard);
    for (unsigned op = DISK_READ; op <= DISK_ZEROES; op++)
        submit(op - DISK_READ, op);
    ck_assert_uint_eq(t.done, 0);
    disk_kick(t.disk);
    expect_done(5);
    ck_assert_uint_eq(t.bytes[BLOCK], 2);
    ck_assert_uint_eq(t.told_count, 0);
    disk_tap_go_on(t.tap);
    settle();

    ck_assert_uint_eq(disk_zeroes_cost(t.disk, &t.requests[4]), BLOCK);
    struct disk_ops ops = *t.inner.disk.ops;
    ops.zeroes_cost = cost_seven;
    t.inner.disk.ops = &ops;
    ck_assert_uint_eq(disk_zeroes_cost(t.disk, &t.requests[4]), 7);
    tear_down();
    set_up();
}
END_TEST

START_TEST(closed_it_passes_on_a_cancel)
{
    t.inner.hold = t.inner.may_cancel = true;
    submit(0, DISK_WRITE);
    disk_kick(t.disk);
    disk_cancel(t.disk);
    ck_assert_uint_eq(t.cancelled, 1);
    ck_assert_uint_eq(t.inner.cancelled, 1);
}
END_TEST

/* --- open ------------------------------------------------------------------------------------- */

START_TEST(each_change_is_told_once_and_before_it_is_made)
{
    static const enum disk_op ops[] = {DISK_WRITE, DISK_READ,  DISK_DISCARD, DISK_FLUSH,
                                       DISK_READ,  DISK_WRITE, DISK_ZEROES,  DISK_WRITE};
    static const unsigned changes[] = {0, 2, 3, 5, 6, 7};

    disk_tap_open(t.tap, &handlers);
    for (unsigned i = 0; i < array_size(ops); i++)
        submit(i, ops[i]);
    ck_assert_uint_eq(t.told_count, array_size(changes)); /* at their submission */
    disk_kick(t.disk);
    expect_done(array_size(ops));
    for (unsigned i = 0; i < array_size(changes); i++)
        ck_assert_uint_eq(t.told[i], changes[i]);
    ck_assert_mem_eq(t.bytes, t.told_bytes, SIZE);
    disk_tap_go_on(t.tap);
    settle();
    disk_tap_close(t.tap);
    submit(10, DISK_WRITE);
    disk_kick(t.disk);
    ck_assert_uint_eq(t.told_count, array_size(changes));
    ck_assert_uint_eq(t.done, array_size(ops) + 1);
}
END_TEST

START_TEST(not_now_makes_all_wait_in_order)
{
    disk_tap_open(t.tap, &handlers);
    t.budget = 1;
    for (unsigned i = 0; i < 6; i++)
        submit(i, i % 3 == 1 ? DISK_READ : DISK_WRITE);
    disk_kick(t.disk);
    expect_done(2);
    ck_assert_uint_eq(t.refusals, 1); /* who comes later is not told before who was first */
    disk_tap_go_on(t.tap);
    settle();
    expect_done(2);
    ck_assert_uint_eq(t.refusals, 2);
    t.budget = 2;
    disk_tap_go_on(t.tap);
    settle();
    expect_done(5); /* two writes and the read behind them */
    t.budget = 1;
    submit(6, DISK_READ); /* behind one that waits, also when that might go */
    disk_kick(t.disk);
    expect_done(5);
    disk_tap_go_on(t.tap);
    settle();
    expect_done(7);
    ck_assert_uint_eq(t.told_count, 4);
    for (unsigned i = 1; i < 4; i++)
        ck_assert_uint_gt(t.told[i], t.told[i - 1]);
}
END_TEST

static bool refuse_and_go_on(void *ctx, const struct disk_request *request)
{
    bool takes = handle_change(&t, request);

    t.budget = 1; /* somebody has just made room... */
    disk_tap_go_on(t.tap);
    return takes; /* ...and we did not know */
}

START_TEST(a_word_that_comes_too_early_is_not_lost)
{
    const struct disk_tap_handlers hasty = {.change = refuse_and_go_on};

    disk_tap_open(t.tap, &hasty);
    t.budget = 0;
    submit(0, DISK_WRITE);
    disk_kick(t.disk);
    ck_assert_uint_eq(t.done, 0);
    settle();
    expect_done(1);
    disk_tap_close(t.tap);
}
END_TEST

START_TEST(a_cancel_ends_what_waits_and_nothing_that_was_told)
{
    disk_tap_open(t.tap, &handlers);
    t.inner.hold = t.inner.may_cancel = true;
    t.budget = 3;
    for (unsigned i = 0; i < 8; i++)
        submit(i, DISK_WRITE);
    disk_kick(t.disk);
    disk_cancel(t.disk);
    ck_assert_uint_eq(t.cancelled, 5);
    ck_assert_uint_eq(t.inner.cancelled, 0);
    disk_drain(t.disk);
    expect_done(3);
    ck_assert_uint_eq(t.told_count, 3);
    ck_assert_mem_eq(t.bytes, t.told_bytes, SIZE);
    t.budget = 10;
    disk_tap_go_on(t.tap); /* for whom nobody waits any more */
    settle();
    ck_assert_uint_eq(t.told_count, 3);
}
END_TEST

START_TEST(a_cancel_kicks_and_spares_who_comes_meanwhile)
{
    disk_tap_open(t.tap, &handlers);
    t.budget = 1;
    submit(0, DISK_WRITE);
    submit(1, DISK_WRITE);
    t.again = true;
    disk_cancel(t.disk); /* without a kick before */
    expect_done(1);
    ck_assert_uint_eq(t.cancelled, 1);
    t.budget = 1;
    disk_tap_go_on(t.tap);
    settle();
    expect_done(2);
}
END_TEST

START_TEST(a_drain_returns_whatever_waits)
{
    disk_tap_open(t.tap, &handlers);
    t.inner.hold = true;
    t.budget = 2;
    for (unsigned i = 0; i < 6; i++)
        submit(i, i == 4 ? DISK_READ : DISK_WRITE);
    disk_kick(t.disk);
    t.again = true;   /* one is submitted once more, in vain */
    t.follower = 100; /* and another one only when the disk has done its part */
    disk_drain(t.disk);
    expect_done(2);
    ck_assert_uint_eq(t.cancelled, 6);
    ck_assert_uint_eq(t.told_count, 2);
    ck_assert_mem_eq(t.bytes, t.told_bytes, SIZE);
}
END_TEST

START_TEST(what_waits_at_the_closing_goes_on_untold)
{
    disk_tap_open(t.tap, &handlers);
    t.budget = 0;
    for (unsigned i = 0; i < 4; i++)
        submit(i, DISK_WRITE);
    disk_tap_close(t.tap);
    submit(4, DISK_WRITE); /* does not overtake */
    disk_kick(t.disk);
    ck_assert_uint_eq(t.done, 0);
    settle();
    expect_done(5);
    ck_assert_uint_eq(t.told_count, 0);
    submit(5, DISK_WRITE);
    disk_kick(t.disk);
    expect_done(6);
}
END_TEST

START_TEST(a_second_life_is_as_the_first)
{
    disk_tap_open(t.tap, &handlers);
    t.budget = 0;
    submit(0, DISK_WRITE);
    disk_drain(t.disk);
    disk_detach(t.disk);
    disk_tap_go_on(t.tap);
    ck_assert_int_eq(disk_attach(t.disk, t.loop, &client, NULL), 0);
    submit(0, DISK_WRITE);
    t.budget = 1;
    settle(); /* what was said in between comes now */
    expect_done(1);
    t.budget = 0;
    submit(1, DISK_WRITE);
    t.budget = 1;
    disk_tap_go_on(t.tap);
    settle();
    expect_done(2);
}
END_TEST

/* --- anything --------------------------------------------------------------------------------- */

/* Any changes, any refusals: what one makes of what is told is the disk, if that keeps the order
 * of writes to one place. */
START_TEST(who_listens_has_the_same_disk)
{
    unsigned next = 0;

    t.seed = (uint64_t)_i;
    t.inner.hold = true;
    disk_tap_open(t.tap, &handlers);
    while (next < MOST) {
        unsigned what = chance(8);
        t.budget = chance(3) ? chance(6) : 0;
        if (what == 0)
            disk_tap_go_on(t.tap);
        else if (what == 1)
            settle();
        else if (what == 2)
            fake_disk_release(&t.inner);
        else
            submit_at(next++, chance(3) ? DISK_WRITE : DISK_READ + chance(5),
                      chance(8) * (uint64_t)BLOCK);
        if (chance(2))
            disk_kick(t.disk);
    }
    t.budget = UINT32_MAX;
    disk_tap_go_on(t.tap);
    settle();
    disk_drain(t.disk);
    ck_assert_uint_eq(t.done, MOST);
    ck_assert_uint_gt(t.refusals, 0);
    for (unsigned i = 1; i < t.told_count; i++)
        ck_assert_uint_gt(t.told[i], t.told[i - 1]);
    ck_assert_mem_eq(t.bytes, t.told_bytes, SIZE);
}
END_TEST

static atomic_bool over;

static void handle_thread(void *arg)
{
    while (!atomic_load(&over)) {
        disk_tap_go_on(t.tap);
        sched_yield();
    }
}

static bool refuse_often(void *ctx, const struct disk_request *request)
{
    t.budget = chance(3) ? 1 : 0;
    return handle_change(ctx, request);
}

START_TEST(go_on_from_another_thread_loses_nobody)
{
    const struct disk_tap_handlers moody = {.change = refuse_often, .ctx = &t};
    struct thread thread = {0};

    disk_tap_open(t.tap, &moody);
    atomic_store(&over, false);
    ck_assert_int_eq(thread_start(&thread, "other", handle_thread, NULL, NULL), 0);
    for (unsigned round = 0; round < 50; round++) {
        for (unsigned i = 0; i < MOST; i++)
            submit_at(i, DISK_WRITE, chance(SIZE / BLOCK) * (uint64_t)BLOCK);
        disk_kick(t.disk);
        t.expected = (round + 1) * MOST;
        if (t.done < t.expected)
            ck_assert_int_eq(loop_run(t.loop), 0);
        for (unsigned i = 0; i < MOST; i++)
            ck_assert_uint_eq(t.order[i], i);
        t.told_count = 0;
        memset(t.inner.asked, 0, sizeof(t.inner.asked));
    }
    atomic_store(&over, true);
    thread_join(&thread);
    ck_assert_uint_gt(t.refusals, 0);
    ck_assert_mem_eq(t.bytes, t.told_bytes, SIZE);
}
END_TEST

/* --- in the row ------------------------------------------------------------------------------- */

START_TEST(it_is_found_wherever_it_stands)
{
    struct fake_disk inner;
    struct disk *disk;

    ck_assert_ptr_null(disk_tap_of(NULL));
    ck_assert_ptr_null(disk_tap_of(&t.inner.disk));
    fake_disk_init(&inner, t.bytes, SIZE);
    ck_assert_int_eq(disk_point_create(&disk, &inner.disk, "/dev/null", NULL), 0);
    ck_assert_ptr_null(disk_tap_of(disk));
    ck_assert_int_eq(disk_tap_create(&disk, disk, NULL), 0);
    struct disk_tap *tap = disk_tap_of(disk);
    ck_assert_int_eq(disk_guard_create(&disk, disk, NULL), 0);
    ck_assert_int_eq(disk_limit_create(&disk, disk, &(struct limits){0}, NULL, NULL), 0);
    ck_assert_ptr_nonnull(tap);
    ck_assert_ptr_eq(disk_tap_of(disk), tap);
    ck_assert_int_ge(disk_point_image(disk), 0); /* and so is what stands behind it */
    disk_destroy(disk);
}
END_TEST

START_TEST(a_row_has_one_where_it_is_asked_for)
{
    char path[] = "/tmp/test_disk_tap.XXXXXX";
    int fd = mkstemp(path);
    struct disk *disk;

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, SIZE), 0);
    close(fd);
    for (unsigned i = 0; i < 16; i++) {
        struct disk_config config = {.path = path,
                                     .format = DISK_FORMAT_RAW,
                                     .tap = i & 1,
                                     .point = i & 2,
                                     .readonly = i & 4,
                                     .ephemeral = i & 8};
        ck_assert_int_eq(disk_open(&disk, &config, NULL), 0);
        ck_assert(!!disk_tap_of(disk) == (i % 4 == 1 || i % 4 == 3) * (i < 4));
        ck_assert((disk_point_image(disk) >= 0) == ((i & 2) && i < 4));
        disk_destroy(disk);
    }
    unlink(path);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("disk_tap");
    TCase *tests = tcase_create("tap");

    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, closed_it_is_not_there);
    tcase_add_test(tests, closed_it_passes_on_a_cancel);
    tcase_add_test(tests, each_change_is_told_once_and_before_it_is_made);
    tcase_add_test(tests, not_now_makes_all_wait_in_order);
    tcase_add_test(tests, a_word_that_comes_too_early_is_not_lost);
    tcase_add_test(tests, a_cancel_ends_what_waits_and_nothing_that_was_told);
    tcase_add_test(tests, a_cancel_kicks_and_spares_who_comes_meanwhile);
    tcase_add_test(tests, a_drain_returns_whatever_waits);
    tcase_add_test(tests, what_waits_at_the_closing_goes_on_untold);
    tcase_add_test(tests, a_second_life_is_as_the_first);
    tcase_add_loop_test(tests, who_listens_has_the_same_disk, 0, 20);
    tcase_add_test(tests, go_on_from_another_thread_loses_nobody);
    tcase_add_test(tests, it_is_found_wherever_it_stands);
    tcase_add_test(tests, a_row_has_one_where_it_is_asked_for);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
