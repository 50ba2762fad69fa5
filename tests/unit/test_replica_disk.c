/* SPDX-License-Identifier: MIT */
/*
 * What a VM writes to its disks, noted and sent: whoever carries out what was sent, epoch by epoch,
 * holds the same disk as it was at each cut.
 */
#include "core/clock.h"
#include "ft/replica_disk.h"
#include "host/disk_tap.h"
#include "tests/unit/fake_disk.h"
#include "tests/unit/unit.h"

#include <stdio.h>

enum { SIZE = 4 << 20, BLOCK = 512, DISKS = 2, BIG = 1 << 20, MOST = 256 };

static struct {
    struct loop *loop;
    struct loop_timer end;
    struct fake_disk inner[DISKS];
    struct disk *disk[DISKS];
    uint8_t *bytes[DISKS], *twin[DISKS]; /* the disk, and what was made of what was sent */
    struct replica_disk *replica;
    struct disk_request requests[MOST];
    struct iovec iov[MOST];
    uint8_t *buffer; /* BIG bytes */
    unsigned done, presses, blocks;
    unsigned fail_at; /* the block with this number, from 1 */
    bool only_counts;
    uint64_t seed;
    char order[64];
} t;

static unsigned chance(unsigned of)
{
    t.seed = t.seed * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)(t.seed >> 33) % of;
}

static void handle_done(struct disk_request *request, int result)
{
    ck_assert_int_eq(result, 0);
    t.done++;
}

static void handle_batch(void *ctx)
{
}

static const struct disk_client client = {.begin = handle_batch, .end = handle_batch};

static void handle_press(void *ctx)
{
    ck_assert_ptr_eq(ctx, &t);
    t.presses++;
}

static int put(void *ctx, const struct moving_block *block, struct err *err)
{
    size_t length = strlen(t.order);
    ck_assert_ptr_eq(ctx, &t);
    ck_assert_uint_le(block->length, FRAME_MAX_BLOCK);
    ck_assert_uint_gt(block->length, 0);
    if (++t.blocks == t.fail_at)
        return err_say(err, ERR_FAILED, EPIPE, "the connection is lost");
    if (t.only_counts)
        return 0;
    uint8_t *to = t.twin[block->place - 3];
    ck_assert(block->offset <= SIZE && block->length <= SIZE - block->offset);
    if (block->bytes)
        memcpy(to + block->offset, block->bytes, block->length);
    else
        memset(to + block->offset, 0, block->length);
    if (length + 2 < sizeof(t.order))
        snprintf(t.order + length, sizeof(t.order) - length, "%c", block->bytes ? 'w' : 'z');
    return 0;
}

static const struct replica_disk_sink sink = {.put = put, .ctx = &t};

static void set_up(void)
{
    const struct replica_disk_config config = {
        .budget = REPLICA_LEAST, .presses = handle_press, .ctx = &t};
    memset(&t, 0, sizeof(t));
    t.seed = 42;
    t.buffer = malloc(BIG);
    ck_assert_ptr_nonnull(t.buffer);
    ck_assert_int_eq(loop_create(&t.loop, NULL), 0);
    ck_assert_int_eq(replica_disk_create(&t.replica, &config, NULL), 0);
    for (unsigned i = 0; i < DISKS; i++) {
        t.bytes[i] = calloc(1, SIZE);
        t.twin[i] = calloc(1, SIZE);
        ck_assert(t.bytes[i] && t.twin[i]);
        fake_disk_init(&t.inner[i], t.bytes[i], SIZE);
        t.inner[i].disk.info.format = i == 0 ? DISK_FORMAT_RAW : DISK_FORMAT_QCOW2;
        ck_assert_int_eq(disk_tap_create(&t.disk[i], &t.inner[i].disk, NULL), 0);
        ck_assert_int_eq(disk_attach(t.disk[i], t.loop, &client, NULL), 0);
        ck_assert_int_eq(replica_disk_follow(t.replica, t.disk[i], i + 3, NULL), 0);
    }
}

static void tear_down(void)
{
    replica_disk_unfollow(t.replica);
    replica_disk_destroy(t.replica);
    for (unsigned i = 0; i < DISKS; i++) {
        disk_drain(t.disk[i]);
        disk_detach(t.disk[i]);
        disk_destroy(t.disk[i]);
        free(t.bytes[i]);
        free(t.twin[i]);
    }
    loop_destroy(t.loop);
    free(t.buffer);
}

static void submit(unsigned index, unsigned disk, enum disk_op op, uint64_t offset, uint64_t length)
{
    bool data = op == DISK_READ || op == DISK_WRITE;
    t.iov[index] = (struct iovec){.iov_base = t.buffer, .iov_len = length};
    t.requests[index] = (struct disk_request){.op = op,
                                              .offset = offset,
                                              .length = length,
                                              .iov = data ? &t.iov[index] : NULL,
                                              .iov_count = data,
                                              .done = handle_done};
    disk_submit(t.disk[disk], &t.requests[index]);
}

static void write_to(unsigned disk, uint64_t offset, uint64_t length, int byte)
{
    memset(t.buffer, byte, length);
    submit(0, disk, DISK_WRITE, offset, length);
    disk_kick(t.disk[disk]);
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

static void send_all(void)
{
    struct err err = {0};
    ck_assert_msg(replica_disk_send(t.replica, &sink, &err) == 0, "%s", err.text);
}

static void expect_same(void)
{
    for (unsigned i = 0; i < DISKS; i++)
        ck_assert_mem_eq(t.bytes[i], t.twin[i], SIZE);
}

/* --- order ------------------------------------------------------------------------------------ */

START_TEST(the_last_write_to_a_place_is_the_last_that_comes)
{
    write_to(0, 0, 4096, 1);
    write_to(0, 1024, 512, 2);
    submit(1, 0, DISK_ZEROES, 512, 1024);
    disk_kick(t.disk[0]);
    write_to(0, 1024, 512, 3);
    replica_disk_cut(t.replica);
    send_all();
    ck_assert_str_eq(t.order, "wwzw");
    expect_same();
}
END_TEST

START_TEST(what_comes_after_the_cut_is_of_the_next_epoch)
{
    write_to(0, 0, 512, 1);
    replica_disk_cut(t.replica);
    write_to(0, 0, 512, 2);
    write_to(1, 512, 512, 3);
    send_all();
    ck_assert_uint_eq(t.blocks, 1);
    ck_assert_uint_eq(t.twin[0][0], 1);
    replica_disk_cut(t.replica);
    send_all();
    ck_assert_uint_eq(t.blocks, 3);
    expect_same();
    replica_disk_cut(t.replica);
    send_all();
    ck_assert_uint_eq(t.blocks, 3); /* nothing is nothing */
}
END_TEST

/* The guest may use the memory again as soon as the write is under way. */
START_TEST(bytes_are_those_of_the_submission)
{
    t.inner[0].hold = true;
    write_to(0, 0, 512, 7);
    memset(t.buffer, 8, 512);
    replica_disk_cut(t.replica);
    send_all();
    ck_assert_uint_eq(t.twin[0][0], 7);
    ck_assert_uint_eq(t.done, 0);
}
END_TEST

START_TEST(long_ones_come_in_pieces)
{
    t.buffer = realloc(t.buffer, 3 << 20);
    ck_assert_ptr_nonnull(t.buffer);
    for (size_t i = 0; i < 3 << 20; i++)
        t.buffer[i] = (uint8_t)(i >> 12 ^ i);
    submit(0, 1, DISK_WRITE, 512, (3 << 20) - 1024);
    disk_kick(t.disk[1]);
    replica_disk_cut(t.replica);
    send_all();
    ck_assert_uint_eq(t.blocks, 3);
    submit(0, 1, DISK_ZEROES, 1024, (2 << 20) + 512);
    disk_kick(t.disk[1]);
    replica_disk_cut(t.replica);
    send_all();
    ck_assert_uint_eq(t.blocks, 6);
    expect_same();
}
END_TEST

/* --- what changes nothing --------------------------------------------------------------------- */

START_TEST(a_discard_is_one_of_zeroes_where_it_reads_so)
{
    memset(t.twin[0], 1, 4096);
    memset(t.twin[1], 1, 4096);
    for (unsigned i = 0; i < DISKS; i++) {
        submit(i, i, DISK_DISCARD, 0, 1024);
        disk_kick(t.disk[i]);
    }
    replica_disk_cut(t.replica);
    send_all();
    ck_assert_str_eq(t.order, "z"); /* the raw one's; a qcow2 keeps what it likes */
    ck_assert(t.twin[0][0] == 0 && t.twin[0][1024] == 1 && t.twin[1][0] == 1);
}
END_TEST

START_TEST(a_raw_disk_that_does_not_discard_changes_nothing)
{
    replica_disk_unfollow(t.replica);
    t.disk[0]->info.discard = false;
    ck_assert_int_eq(replica_disk_follow(t.replica, t.disk[0], 3, NULL), 0);
    submit(0, 0, DISK_DISCARD, 0, 1024);
    disk_kick(t.disk[0]);
    ck_assert_uint_eq(replica_disk_held(t.replica), 0);
}
END_TEST

START_TEST(reads_and_flushes_are_nobodys_business)
{
    submit(0, 0, DISK_READ, 0, 512);
    submit(1, 0, DISK_FLUSH, 0, 0);
    disk_kick(t.disk[0]);
    ck_assert_uint_eq(t.done, 2);
    ck_assert_uint_eq(replica_disk_held(t.replica), 0);
    replica_disk_cut(t.replica);
    send_all();
    ck_assert_uint_eq(t.blocks, 0);
}
END_TEST

START_TEST(a_disk_without_a_tap_is_refused)
{
    struct err err = {0};
    replica_disk_unfollow(t.replica);
    ck_assert_int_lt(replica_disk_follow(t.replica, &t.inner[0].disk, 5, &err), 0);
    ck_assert_msg(strstr(err.text, "disk5"), "%s", err.text);
}
END_TEST

/* --- back-pressure ---------------------------------------------------------------------------- */

/* Until one has to wait: how many there were before. */
static unsigned fill(void)
{
    unsigned count = 0;
    for (unsigned before = t.done; count < 2 * REPLICA_LEAST / BIG; count++, before++) {
        write_to(0, count % 4 * (uint64_t)BIG, BIG, (int)count + 1);
        if (t.done == before)
            return count;
    }
    return count;
}

START_TEST(a_full_budget_makes_the_guest_wait_until_the_cut)
{
    unsigned count = fill();
    ck_assert_uint_ge(count, REPLICA_LEAST / BIG - 1);
    ck_assert_uint_lt(count, REPLICA_LEAST / BIG + 1);
    ck_assert_uint_gt(t.presses, 0);
    ck_assert_uint_le(replica_disk_held(t.replica), REPLICA_LEAST);
    settle();
    ck_assert_uint_eq(t.done, count);

    replica_disk_cut(t.replica);
    settle();
    ck_assert_uint_eq(t.done, count + 1); /* before anything was sent: there are two pieces */
    ck_assert_uint_gt(replica_disk_held(t.replica), REPLICA_LEAST);
    send_all();
    replica_disk_cut(t.replica);
    send_all();
    expect_same();
    ck_assert_uint_eq(replica_disk_held(t.replica), 0);
}
END_TEST

START_TEST(it_presses_before_anybody_has_to_wait)
{
    for (unsigned i = 0; i < REPLICA_LEAST / BIG / 2; i++) {
        ck_assert_uint_eq(t.presses, 0);
        write_to(0, 0, BIG, 1);
    }
    ck_assert_uint_gt(t.presses, 0);
    ck_assert_uint_eq(t.done, REPLICA_LEAST / BIG / 2);
}
END_TEST

/* What few bytes say can be much to send: it has its share of the budget. */
START_TEST(zeroes_are_no_free_ride)
{
    unsigned count = 0;
    t.only_counts = true;
    t.inner[0].bytes = NULL;
    for (; count < REPLICA_LEAST / 256; count++) {
        unsigned before = t.done;
        submit(0, 0, DISK_ZEROES, 0, SIZE);
        disk_kick(t.disk[0]);
        if (t.done == before)
            break;
    }
    ck_assert_uint_lt(count, REPLICA_LEAST / 256);
    replica_disk_cut(t.replica);
    settle();
    send_all();
    ck_assert_uint_le(t.blocks, REPLICA_LEAST / 64);
}
END_TEST

START_TEST(what_waits_goes_on_untold_when_nobody_follows_any_more)
{
    unsigned count = fill();
    replica_disk_unfollow(t.replica);
    settle();
    ck_assert_uint_eq(t.done, count + 1);
    ck_assert_uint_eq(replica_disk_held(t.replica), 0);
    write_to(0, 0, 512, 9);
    ck_assert_uint_eq(replica_disk_held(t.replica), 0);
}
END_TEST

/* --- when something is wrong ------------------------------------------------------------------ */

START_TEST(a_link_that_is_lost_ends_the_sending_and_forgets_the_rest)
{
    struct err err = {0};
    for (unsigned i = 0; i < 5; i++)
        write_to(0, i * 512, 512, 1);
    replica_disk_cut(t.replica);
    t.fail_at = 3;
    ck_assert_int_eq(replica_disk_send(t.replica, &sink, &err), -EPIPE);
    ck_assert_str_eq(err.text, "the connection is lost");
    ck_assert_uint_eq(t.blocks, 3);
    ck_assert_uint_eq(replica_disk_held(t.replica), 0);

    /* And it can be followed anew. */
    replica_disk_unfollow(t.replica);
    ck_assert_int_eq(replica_disk_follow(t.replica, t.disk[0], 3, NULL), 0);
    t.fail_at = 0;
    memcpy(t.twin[0], t.bytes[0], SIZE);
    write_to(0, 0, 512, 2);
    replica_disk_cut(t.replica);
    send_all();
    expect_same();
}
END_TEST

START_TEST(whatever_the_guest_does_each_cut_is_the_disk)
{
    for (unsigned epoch = 0; epoch < 200; epoch++) {
        for (unsigned i = 0, count = chance(20); i < count; i++) {
            enum disk_op op = (enum disk_op)(DISK_READ + chance(DISK_ZEROES));
            unsigned disk = chance(DISKS);
            uint64_t length = op == DISK_FLUSH ? 0 : BLOCK * (1ull + chance(64));
            if (op == DISK_DISCARD) /* of which the fake disk does nothing */
                continue;
            memset(t.buffer, (int)chance(256), BIG);
            submit(0, disk, op, BLOCK * (uint64_t)chance(SIZE / BLOCK - 64), length);
            disk_kick(t.disk[disk]);
        }
        replica_disk_cut(t.replica);
        send_all();
        expect_same();
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("replica_disk");
    TCase *tests = tcase_create("replica_disk");
    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, the_last_write_to_a_place_is_the_last_that_comes);
    tcase_add_test(tests, what_comes_after_the_cut_is_of_the_next_epoch);
    tcase_add_test(tests, bytes_are_those_of_the_submission);
    tcase_add_test(tests, long_ones_come_in_pieces);
    tcase_add_test(tests, a_discard_is_one_of_zeroes_where_it_reads_so);
    tcase_add_test(tests, a_raw_disk_that_does_not_discard_changes_nothing);
    tcase_add_test(tests, reads_and_flushes_are_nobodys_business);
    tcase_add_test(tests, a_disk_without_a_tap_is_refused);
    tcase_add_test(tests, a_full_budget_makes_the_guest_wait_until_the_cut);
    tcase_add_test(tests, it_presses_before_anybody_has_to_wait);
    tcase_add_test(tests, zeroes_are_no_free_ride);
    tcase_add_test(tests, what_waits_goes_on_untold_when_nobody_follows_any_more);
    tcase_add_test(tests, a_link_that_is_lost_ends_the_sending_and_forgets_the_rest);
    tcase_add_test(tests, whatever_the_guest_does_each_cut_is_the_disk);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
