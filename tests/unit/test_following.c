/* SPDX-License-Identifier: MIT */
/* What is said between a VM and its twin: it arrives as it left, and who lies is refused. */
#include "ft/following.h"
#include "tests/unit/unit.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_TEXT = 4 + 8 + 8 + 4 + 4 + 4 + 2 * FOLLOWING_LINEAGE };

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

static struct frame next(enum frame_kind kind)
{
    struct frame frame;
    struct err err = {0};
    ck_assert_msg(frame_read(&wire.stream, &frame, &payload, NULL, &err) == 0, "%s", err.text);
    ck_assert_uint_eq(frame.kind, kind);
    return frame;
}

static const struct following sample = {
    .node = 0x1122334455667788,
    .generation = 7,
    .beat_ms = 50,
    .lost_ms = 500,
    .durable = true,
    .verify = true,
    .lineage = "one common base",
    .fresh = "another",
    .witness = "file:/mnt/witness",
    .back = "[fe80::1]:7420",
};

/* --- FOLLOW ----------------------------------------------------------------------------------- */

static int exchange(const struct following *sent, struct following *ret_read)
{
    struct err err = {0};
    following_put(&wire.stream, sent);
    struct frame frame = next(FRAME_FOLLOW);
    ck_assert_uint_eq(frame.epoch, 0); /* of no epoch: it is in nobody's tally */
    int ret = following_get(&payload, ret_read, &err);
    ck_assert((ret < 0) == (err.kind != ERR_NONE));
    return ret;
}

START_TEST(what_a_twin_is_told_arrives_as_it_left)
{
    struct following read, second = sample;
    ck_assert_int_eq(exchange(&sample, &read), 0);
    ck_assert(read.node == sample.node && read.generation == 7 && read.durable && !read.adapts &&
              read.verify);
    ck_assert(read.beat_ms == 50 && read.lost_ms == 500);
    ck_assert_mem_eq(read.lineage, sample.lineage, sizeof(read.lineage));
    ck_assert_mem_eq(read.fresh, sample.fresh, sizeof(read.fresh));
    ck_assert_str_eq(read.witness, sample.witness);
    ck_assert_str_eq(read.back, sample.back);

    second.back[0] = '\0';
    second.durable = false;
    second.adapts = true;
    memset(second.witness, 'w', sizeof(second.witness) - 1); /* the longest */
    ck_assert_int_eq(exchange(&second, &read), 0);
    ck_assert(!read.durable && !read.back[0]);
    ck_assert_str_eq(read.witness, second.witness);
}
END_TEST

START_TEST(senseless_numbers_and_texts_are_refused)
{
    struct following bad[9], read = {.node = 4711};
    for (size_t i = 0; i < array_size(bad); i++)
        bad[i] = sample;
    bad[0].node = 0;
    bad[1].generation = 0;
    bad[2].beat_ms = 0;
    bad[3].lost_ms = bad[3].beat_ms;
    bad[4].lost_ms = 1000001;
    bad[5].witness[0] = '\0';
    bad[6].witness[8] = '\n'; /* it goes to a person's terminal */
    bad[7].witness[8] = '\x1b';
    bad[8].back[2] = '\x7f';
    for (size_t i = 0; i < array_size(bad); i++)
        ck_assert_msg(exchange(&bad[i], &read) < 0, "%zu", i);
    ck_assert_uint_eq(read.node, 4711); /* untouched */
}
END_TEST

START_TEST(what_is_short_long_or_changed_in_its_lengths_is_refused)
{
    struct following read;
    following_put(&wire.stream, &sample);
    next(FRAME_FOLLOW);
    for (size_t cut = 0; cut < payload.length; cut++) {
        struct stream_buffer less;
        stream_buffer_init_read(&less, payload.bytes, cut);
        ck_assert_msg(following_get(&less, &read, NULL) < 0, "%zu", cut);
    }
    uint8_t *bytes = calloc(1, payload.length + 1); /* one byte more */
    ck_assert_ptr_nonnull(bytes);
    memcpy(bytes, payload.bytes, payload.length);
    struct stream_buffer more;
    stream_buffer_init_read(&more, bytes, payload.length + 1);
    ck_assert_int_lt(following_get(&more, &read, NULL), 0);

    size_t at = FIRST_TEXT; /* its length */
    static const uint16_t lengths[] = {0, 1, FOLLOWING_WITNESS, FOLLOWING_WITNESS + 1, UINT16_MAX};
    for (size_t i = 0; i < array_size(lengths); i++) {
        uint16_t length = htole16(lengths[i]);
        memcpy(bytes + at, &length, sizeof(length));
        stream_buffer_init_read(&more, bytes, payload.length);
        ck_assert_msg(following_get(&more, &read, NULL) < 0, "%u", lengths[i]);
    }
    free(bytes);
}
END_TEST

START_TEST(a_text_with_a_zero_inside_is_none)
{
    struct following read;
    following_put(&wire.stream, &sample);
    next(FRAME_FOLLOW);
    payload.bytes[FIRST_TEXT + 2 + 6] = '\0';
    ck_assert_int_lt(following_get(&payload, &read, NULL), 0);
}
END_TEST

START_TEST(another_version_is_named)
{
    struct following read;
    struct err err = {0};
    following_put(&wire.stream, &sample);
    next(FRAME_FOLLOW);
    payload.bytes[0]++;
    ck_assert_int_eq(following_get(&payload, &read, &err), -EPROTONOSUPPORT);
    ck_assert_msg(strstr(err.text, "version 4"), "%s", err.text);
}
END_TEST

/* --- the welcome ------------------------------------------------------------------------------ */

START_TEST(a_welcome_brings_both_numbers)
{
    uint64_t node = 0, twin = 0;
    following_put_welcome(&wire.stream, 0x0102030405060708, 9);
    ck_assert_int_eq(following_wait_welcome(&wire.stream, &payload, &node, &twin, NULL), 0);
    ck_assert(node == 0x0102030405060708 && twin == 9);
}
END_TEST

START_TEST(a_welcome_of_nobody_is_none)
{
    uint64_t node = 1, twin = 2;
    struct err err = {0};
    following_put_welcome(&wire.stream, 0, 9);
    ck_assert_int_lt(following_wait_welcome(&wire.stream, &payload, &node, &twin, &err), 0);
    following_put_welcome(&wire.stream, 9, 0);
    ck_assert_int_lt(following_wait_welcome(&wire.stream, &payload, &node, &twin, &err), 0);
    moving_put_ack(&wire.stream, FRAME_WELCOME); /* without numbers */
    ck_assert_int_lt(following_wait_welcome(&wire.stream, &payload, &node, &twin, &err), 0);
    moving_put_ack(&wire.stream, FRAME_STORED);
    ck_assert_int_lt(following_wait_welcome(&wire.stream, &payload, &node, &twin, &err), 0);
    ck_assert(node == 1 && twin == 2);

    const struct err theirs = {.kind = ERR_STATE, .text = "no room"};
    moving_put_error(&wire.stream, &theirs);
    ck_assert_int_eq(following_wait_welcome(&wire.stream, &payload, &node, &twin, &err),
                     -EREMOTEIO);
    ck_assert_str_eq(err.text, "no room");
}
END_TEST

/* --- words ------------------------------------------------------------------------------------ */

START_TEST(words_arrive_as_they_left_and_are_of_no_epoch)
{
    struct ft_word word;
    for (uint32_t kind = FT_BEAT; kind <= FT_TAKE; kind++) {
        const struct ft_word sent = {(enum ft_word_kind)kind, UINT64_MAX - kind, 1ull << 40};
        following_put_word(&wire.stream, &sent);
        struct frame frame = next(FRAME_WORD);
        ck_assert(frame.epoch == 0 && frame.generation == 0);
        ck_assert_int_eq(following_get_word(&payload, &word, NULL), 0);
        ck_assert(word.kind == sent.kind && word.generation == sent.generation &&
                  word.epoch == sent.epoch);
    }
}
END_TEST

START_TEST(a_word_that_is_none_is_refused)
{
    struct ft_word sent = {FT_ACK, 1, 2}, word = {FT_OFF, 4711, 4712};
    struct stream_buffer less;
    following_put_word(&wire.stream, &sent);
    next(FRAME_WORD);
    for (size_t cut = 0; cut < payload.length; cut++) {
        stream_buffer_init_read(&less, payload.bytes, cut);
        ck_assert_int_lt(following_get_word(&less, &word, NULL), 0);
    }
    static const uint32_t kinds[] = {0, FT_TAKE + 1, 0x101, UINT32_MAX};
    for (size_t i = 0; i < array_size(kinds); i++) {
        sent.kind = (enum ft_word_kind)kinds[i];
        following_put_word(&wire.stream, &sent);
        next(FRAME_WORD);
        ck_assert_int_lt(following_get_word(&payload, &word, NULL), 0);
    }
    static const uint8_t longer[21] = {FT_ACK};
    moving_put(&wire.stream, FRAME_WORD, longer, 20);
    next(FRAME_WORD);
    ck_assert_int_eq(following_get_word(&payload, &sent, NULL), 0);
    stream_buffer_init_read(&less, longer, sizeof(longer));
    ck_assert_int_lt(following_get_word(&less, &word, NULL), 0);
    ck_assert(word.kind == FT_OFF && word.generation == 4711 && word.epoch == 4712);
}
END_TEST

/* --- settings --------------------------------------------------------------------------------- */

START_TEST(settings_arrive_as_they_left_and_are_of_an_epoch)
{
    const struct frame of = {.generation = 7, .epoch = 11};
    struct instance_settings sent = {.paused = true, .nets_set = 5}, got;
    struct frame_tally tally = {0};
    struct err err = {0};
    sent.nets[2] = (struct limits){.operations = 100, .bytes = 1 << 20};
    unit_check_table(&instance_settings_table, &sent);
    following_put_settings(&wire.stream, &of, &sent, &tally);
    ck_assert_uint_eq(tally.count, 1);
    struct frame frame = next(FRAME_SETTINGS);
    ck_assert(frame.generation == 7 && frame.epoch == 11);
    ck_assert_int_eq(following_get_settings(&payload, &got, NULL), 0);
    ck_assert_mem_eq(&got, &sent, sizeof(got));

    struct stream_buffer less;
    for (size_t cut = 0; cut < payload.length; cut++) {
        stream_buffer_init_read(&less, payload.bytes, cut);
        ck_assert_int_lt(following_get_settings(&less, &got, &err), 0);
    }
    stream_write(&payload.stream, "", 1);
    stream_buffer_rewind(&payload);
    ck_assert_int_eq(following_get_settings(&payload, &got, &err), -EBADMSG);
    ck_assert_mem_eq(&got, &sent, sizeof(got));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("following");
    TCase *tests = tcase_create("following");
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, what_a_twin_is_told_arrives_as_it_left);
    tcase_add_test(tests, senseless_numbers_and_texts_are_refused);
    tcase_add_test(tests, what_is_short_long_or_changed_in_its_lengths_is_refused);
    tcase_add_test(tests, a_text_with_a_zero_inside_is_none);
    tcase_add_test(tests, another_version_is_named);
    tcase_add_test(tests, a_welcome_brings_both_numbers);
    tcase_add_test(tests, a_welcome_of_nobody_is_none);
    tcase_add_test(tests, words_arrive_as_they_left_and_are_of_no_epoch);
    tcase_add_test(tests, a_word_that_is_none_is_refused);
    tcase_add_test(tests, settings_arrive_as_they_left_and_are_of_an_epoch);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
