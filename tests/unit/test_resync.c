/* SPDX-License-Identifier: MIT */
/* What is said of disks that both sides have: it arrives as it left, and who lies is refused. */
#include "ft/resync_talk.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct stream_buffer wire, payload;

static void set_up(void)
{
    stream_buffer_init(&wire, 0);
    stream_buffer_init(&payload, 0);
}

static void tear_down(void)
{
    stream_buffer_finish(&wire);
    stream_buffer_finish(&payload);
}

static void next(enum frame_kind kind)
{
    struct frame frame;
    struct err err = {0};
    ck_assert_msg(frame_read(&wire.stream, &frame, &payload, NULL, &err) == 0, "%s", err.text);
    ck_assert_uint_eq(frame.kind, kind);
    ck_assert_uint_eq(frame.epoch, 0);
}

/* --- BASE ------------------------------------------------------------------------------------- */

static struct resync_base base;

static void make_base(void)
{
    base = (struct resync_base){.head = {.count = 2,
                                         .disks = {{.place = 0, .shift = 20, .size = 100 << 20},
                                                   {.place = 3, .shift = 21, .size = 300 << 20}}}};
    base.bits = calloc(changes_all_words(&base.head), sizeof(uint64_t));
    ck_assert_uint_eq(changes_all_words(&base.head), 2 + 3);
    for (unsigned i = 0; i < 5; i++)
        base.bits[i] = 0x0123456789abcdef << i;
}

static int get_base(struct stream_buffer *from)
{
    struct resync_base read = {0};
    struct err err = {0};
    int ret = resync_get_base(from, &read, &err);
    ck_assert((ret < 0) == (err.kind != ERR_NONE));
    free(read.bits);
    return ret;
}

START_TEST(what_a_twin_has_arrives_as_it_left)
{
    struct resync_base read = {0};
    struct err err = {0};
    make_base();
    resync_put_base(&wire.stream, &base);
    next(FRAME_BASE);
    ck_assert_int_eq(resync_get_base(&payload, &read, &err), 0);
    ck_assert(read.head.count == 2 && !read.why[0]);
    ck_assert_mem_eq(read.bits, base.bits, 5 * sizeof(uint64_t));
    ck_assert(read.head.disks[1].place == 3 && read.head.disks[1].shift == 21);
    free(read.bits);

    strcpy(base.why, "nothing of it was here");
    resync_put_base(&wire.stream, &base);
    next(FRAME_BASE);
    ck_assert_int_eq(resync_get_base(&payload, &read, &err), 0);
    ck_assert_str_eq(read.why, base.why);
    ck_assert_uint_eq(read.head.count, 0);
    free(base.bits);
}
END_TEST

/* Short, long, and with each of its numbers changed to what it cannot be. */
START_TEST(a_senseless_base_is_refused)
{
    static const struct {
        size_t at;
        uint32_t value;
    } wrong[] = {
        {2, MACHINE_MAX_DISKS + 1},
        {2, 1},
        {2, 3}, /* disks */
        {6 + 4, 19},
        {6 + 4, 64}, /* the first one's shift */
        {6 + 8, 0},
        {6 + 12, 1 << 20}, /* its size */
        {6 + 16 + 16, 0},  /* two in one place */
    };
    make_base();
    resync_put_base(&wire.stream, &base);
    next(FRAME_BASE);
    struct stream_buffer from;
    for (size_t cut = 0; cut < payload.length; cut++) {
        stream_buffer_init_read(&from, payload.bytes, cut);
        ck_assert_msg(get_base(&from) < 0, "%zu", cut);
    }
    uint8_t *bytes = calloc(1, payload.length + 1);
    memcpy(bytes, payload.bytes, payload.length);
    stream_buffer_init_read(&from, bytes, payload.length + 1);
    ck_assert_int_lt(get_base(&from), 0);
    for (size_t i = 0; i < array_size(wrong); i++) {
        memcpy(bytes, payload.bytes, payload.length);
        memcpy(bytes + wrong[i].at, &wrong[i].value, sizeof(wrong[i].value));
        stream_buffer_init_read(&from, bytes, payload.length);
        ck_assert_msg(get_base(&from) < 0, "%zu", i);
    }
    free(bytes);
    free(base.bits);
    wire.length = wire.read_at = 0;
    base = (struct resync_base){.why = "a\nb"}; /* it goes to a terminal */
    resync_put_base(&wire.stream, &base);
    next(FRAME_BASE);
    ck_assert_int_lt(get_base(&payload), 0);
}
END_TEST

/* --- LOOK, LOOKED ----------------------------------------------------------------------------- */

START_TEST(a_look_and_its_answer)
{
    struct resync_look look = {.key = "key", .place = 3, .length = 9 * 512, .offset = 77 << 20};
    struct resync_look read = {0};
    uint8_t bytes[9 * 512] = {1}, sums[RESYNC_SUMS], answer[RESYNC_SUMS];
    struct err err = {0};
    resync_put_look(&wire.stream, &look);
    next(FRAME_LOOK);
    ck_assert_int_eq(resync_get_look(&payload, &read, &err), 0);
    ck_assert_mem_eq(&read, &look, sizeof(look));

    ck_assert_uint_eq(resync_sum(look.key, bytes, look.length, sums), 2 * SIPHASH_SUM);
    bytes[4096] = 1; /* the second block, of 512 bytes */
    resync_sum(look.key, bytes, look.length, answer);
    ck_assert_mem_eq(sums, answer, SIPHASH_SUM);
    ck_assert_mem_ne(sums + SIPHASH_SUM, answer + SIPHASH_SUM, SIPHASH_SUM);
    resync_put_looked(&wire.stream, &look, sums);
    next(FRAME_LOOKED);
    ck_assert_uint_eq(payload.length, 16 + 2 * SIPHASH_SUM);
    ck_assert_int_eq(resync_get_looked(&payload, &read, answer, &err), 0);
    ck_assert(read.offset == look.offset && read.length == look.length && read.place == 3);
    ck_assert_mem_eq(sums, answer, (size_t)2 * SIPHASH_SUM);
}
END_TEST

START_TEST(senseless_looks_are_refused)
{
    const struct resync_look wrong[] = {
        {.length = 0},
        {.length = RESYNC_PIECE + 512},
        {.length = 511},
        {.length = 4096, .offset = 512},
    };
    uint8_t sums[RESYNC_SUMS] = {0}, read_sums[RESYNC_SUMS];
    struct resync_look read, good = {.length = 8192};
    for (size_t i = 0; i < array_size(wrong); i++) {
        resync_put_look(&wire.stream, &wrong[i]);
        next(FRAME_LOOK);
        ck_assert_msg(resync_get_look(&payload, &read, NULL) < 0, "%zu", i);
    }
    resync_put_looked(&wire.stream, &good, sums);
    next(FRAME_LOOKED);
    for (size_t cut = 0; cut < payload.length; cut++) {
        struct stream_buffer less;
        stream_buffer_init_read(&less, payload.bytes, cut);
        ck_assert_msg(resync_get_looked(&less, &read, read_sums, NULL) < 0, "%zu", cut);
    }
}
END_TEST

START_TEST(synced_brings_its_epoch)
{
    uint64_t epoch = 0;
    struct err err = {0};
    resync_put_synced(&wire.stream, 0x1122334455667788);
    next(FRAME_SYNCED);
    ck_assert_int_eq(resync_get_synced(&payload, &epoch, &err), 0);
    ck_assert_uint_eq(epoch, 0x1122334455667788);
    ck_assert_int_lt(resync_get_synced(&payload, &epoch, &err), 0); /* it is over */
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("resync");
    TCase *tcase = tcase_create("all");
    tcase_add_checked_fixture(tcase, set_up, tear_down);
    tcase_add_test(tcase, what_a_twin_has_arrives_as_it_left);
    tcase_add_test(tcase, a_senseless_base_is_refused);
    tcase_add_test(tcase, a_look_and_its_answer);
    tcase_add_test(tcase, senseless_looks_are_refused);
    tcase_add_test(tcase, synced_brings_its_epoch);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
