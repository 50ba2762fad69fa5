/* SPDX-License-Identifier: MIT */
#include "ft/compare.h"
#include "ft/page_frames.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { PAGES = 8, FIRST = 100, MIB = 1 << 20 };

static struct stream_buffer buffer, payload;
static uint8_t pages[PAGES * PAGE_SIZE], got[PAGES * PAGE_SIZE];
static struct page_encoder encoder;

static void set_up(void)
{
    stream_buffer_init(&buffer, 0);
    stream_buffer_init(&payload, 0);
    memset(got, 0xee, sizeof(got));
    encoder = (struct page_encoder){0};
}

static void tear_down(void)
{
    page_cache_destroy(encoder.cache);
    stream_buffer_finish(&buffer);
    stream_buffer_finish(&payload);
}

static const uint8_t *held_page(void *ctx, uint64_t page)
{
    return page >= FIRST && page < FIRST + PAGES ? got + (page - FIRST) * PAGE_SIZE : NULL;
}

static int put_page(void *ctx, uint64_t page, const uint8_t *bytes)
{
    static const uint8_t zeroes[PAGE_SIZE];
    if (page < FIRST || page >= FIRST + PAGES)
        return -EBADMSG;
    memcpy(got + (page - FIRST) * PAGE_SIZE, bytes ? bytes : zeroes, PAGE_SIZE);
    return 0;
}

static uint8_t *room_for(void *ctx, uint64_t first, unsigned count)
{
    return first >= FIRST && first < FIRST + PAGES && count <= FIRST + PAGES - first
               ? got + (first - FIRST) * PAGE_SIZE
               : NULL;
}

static const struct page_taker taker = {.held = held_page, .put = put_page, .room = room_for};

/* Zeroes, text that becomes short, noise that does not. */
static void fill_pages(void)
{
    uint32_t seed = 1;
    memset(pages, 0, sizeof(pages));
    for (size_t i = 0; i < PAGE_SIZE; i++) {
        pages[1 * PAGE_SIZE + i] = (uint8_t)("abcdefgh"[i % 8]);
        seed = seed * 1664525 + 1013904223;
        pages[2 * PAGE_SIZE + i] = (uint8_t)(seed >> 24);
    }
    pages[7 * PAGE_SIZE + 4095] = 1;
}

/* How many bytes it took. */
static size_t send(void)
{
    const struct frame frame = {.epoch = 1};
    size_t before = buffer.length;
    page_frame_put(&buffer.stream, &frame, &encoder, FIRST, pages, PAGES, NULL);
    ck_assert_int_eq(stream_error(&buffer.stream), 0);
    return buffer.length - before;
}

static void next(enum frame_kind kind)
{
    struct frame frame;
    struct err err = {0};
    ck_assert_msg(frame_read(&buffer.stream, &frame, &payload, NULL, &err) == 0, "%s", err.text);
    ck_assert_uint_eq(frame.kind, kind);
}

static int read_frame(struct stream *stream, struct err *err)
{
    struct frame frame;
    struct frame_tally tally = {0};
    int ret = frame_read_head(stream, &frame, err);
    if (ret == 0)
        ret = page_frame_read(stream, &frame, &taker, &tally, err);
    ck_assert_uint_eq(tally.count, ret == 0);
    return ret;
}

static void receive(void)
{
    struct err err = {0};
    ck_assert_msg(read_frame(&buffer.stream, &err) == 0, "%s", err.text);
    ck_assert_mem_eq(got, pages, sizeof(pages));
}

START_TEST(pages_arrive_as_they_left)
{
    fill_pages();
    for (enum page_effort effort = 0; effort < PAGE_EFFORTS; effort++) {
        memset(got, 0xee, sizeof(got));
        encoder.effort = effort;
        ck_assert_uint_lt(send(), (effort == EFFORT_LZ4 ? 2 : 4) * PAGE_SIZE);
        receive();
    }
}
END_TEST

/* Only the pages themselves, in whatever runs they come. */
START_TEST(raw_pages_cost_their_bytes)
{
    for (unsigned full = 0; full < 1u << PAGES; full += 13) {
        unsigned count = 0;
        memset(pages, 0, sizeof(pages));
        for (unsigned i = 0; i < PAGES; i++)
            if (full >> i & 1) {
                memset(pages + i * PAGE_SIZE + i, (int)i + 1, PAGE_SIZE - i);
                count++;
            }
        uint64_t before = encoder.counts[PAGE_RAW];
        ck_assert_uint_eq(send(), 32 + 12 + PAGES + count * PAGE_SIZE + 4);
        ck_assert_uint_eq(encoder.counts[PAGE_RAW] - before, count);
        receive();
    }
}
END_TEST

/* Only what has changed is sent again, as long as it is known what the other side holds. */
START_TEST(what_was_sent_before_is_sent_by_its_changes)
{
    fill_pages();
    encoder.effort = EFFORT_DELTAS;
    ck_assert_int_eq(page_cache_create(&encoder.cache, MIB, NULL), 0);
    ck_assert_uint_gt(send(), 3 * PAGE_SIZE);
    receive();
    ck_assert_uint_lt(send(), 200); /* nothing has changed */
    receive();
    ck_assert_uint_eq(encoder.counts[PAGE_DELTA], 3);
    for (unsigned i = 0; i < 5; i++)
        pages[2 * PAGE_SIZE + 800 * i + 3] ^= 0xff;
    pages[2 * PAGE_SIZE] ^= 1;        /* the first byte, */
    pages[2 * PAGE_SIZE + 4095] ^= 1; /* and the last */
    ck_assert_uint_lt(send(), 300);
    receive();
    memset(pages + 2 * PAGE_SIZE, 0, PAGE_SIZE); /* then it is not known any more */
    ck_assert_uint_lt(send(), 200);
    receive();
    pages[2 * PAGE_SIZE] = 1;
    ck_assert_uint_gt(send(), PAGE_SIZE);
    receive();
    memset(pages + 2 * PAGE_SIZE, 0x55, PAGE_SIZE); /* as long as the page itself */
    ck_assert_uint_gt(send(), PAGE_SIZE);
    receive();
}
END_TEST

/* What went over in between without a look at it is no base for changes. */
START_TEST(nothing_is_known_of_pages_that_were_copied)
{
    fill_pages();
    encoder.effort = EFFORT_DELTAS;
    ck_assert_int_eq(page_cache_create(&encoder.cache, MIB, NULL), 0);
    send();
    receive();
    encoder.effort = EFFORT_NONE;
    pages[2 * PAGE_SIZE] ^= 1;
    send();
    receive();
    encoder.effort = EFFORT_DELTAS;
    pages[2 * PAGE_SIZE + 1] ^= 1;
    ck_assert_uint_gt(send(), 3 * PAGE_SIZE);
    receive();
    ck_assert_uint_lt(send(), 200);
    receive();
}
END_TEST

/* The other side holds something else: that is noticed, and the page is not touched. */
START_TEST(changes_of_another_page_are_refused)
{
    uint8_t before[PAGE_SIZE];
    fill_pages();
    encoder.effort = EFFORT_DELTAS;
    ck_assert_int_eq(page_cache_create(&encoder.cache, MIB, NULL), 0);
    send();
    receive();
    pages[2 * PAGE_SIZE + 8] ^= 1;
    send();
    got[2 * PAGE_SIZE + 100] ^= 1;
    memcpy(before, got + 2 * PAGE_SIZE, PAGE_SIZE);
    ck_assert_int_lt(read_frame(&buffer.stream, NULL), 0);
    ck_assert_mem_eq(got + 2 * PAGE_SIZE, before, PAGE_SIZE);
}
END_TEST

static void refuse(const uint8_t *bytes, size_t length)
{
    const struct frame frame = {.kind = FRAME_PAGES, .length = (uint32_t)length, .epoch = 1};
    struct stream_buffer stream;
    stream_buffer_init(&stream, 0);
    frame_write(&stream.stream, &frame, bytes, NULL);
    ck_assert_int_lt(read_frame(&stream.stream, NULL), 0);
    stream_buffer_finish(&stream);
}

/* Whatever the bytes are: an error or pages, and nothing beside the payload is read. */
START_TEST(pages_that_lie_are_refused)
{
    fill_pages();
    encoder.effort = EFFORT_LZ4;
    ck_assert_int_eq(page_cache_create(&encoder.cache, MIB, NULL), 0);
    for (unsigned delta = 0; delta < 2; delta++) {
        send();
        next(FRAME_PAGES);
        size_t length = payload.length;
        uint8_t *bytes = malloc(length);
        memcpy(bytes, payload.bytes, length);
        for (size_t cut = 0; cut < length; cut++)
            refuse(bytes, cut);
        for (size_t at = 0; at < (delta ? length : 12 + PAGES); at++)
            for (unsigned bit = 0; bit < 8; bit++) {
                bytes[at] ^= (uint8_t)(1u << bit);
                refuse(bytes, length);
                bytes[at] ^= (uint8_t)(1u << bit);
            }
        free(bytes);
        memcpy(got, pages, sizeof(got));
    }
}
END_TEST

/* The last word is that of the sum; and the frame ends where it said. */
START_TEST(a_damaged_frame_is_refused_at_its_end)
{
    struct err err = {0};
    fill_pages();
    size_t length = send();
    buffer.bytes[buffer.length - PAGE_SIZE] ^= 1;
    ck_assert_int_lt(read_frame(&buffer.stream, &err), 0);
    ck_assert_str_eq(err.text, "a frame PAGES is damaged");
    buffer.bytes[buffer.length - PAGE_SIZE] ^= 1;
    buffer.read_at -= length;
    ck_assert_int_eq(read_frame(&buffer.stream, NULL), 0);
    ck_assert_uint_eq(buffer.read_at, buffer.length);
    buffer.read_at -= length;
    buffer.length -= 5; /* and the connection ends in it */
    ck_assert_int_lt(read_frame(&buffer.stream, NULL), 0);
    ck_assert_int_eq(stream_error(&buffer.stream), -ENODATA);
}
END_TEST

START_TEST(the_cache_forgets_the_oldest)
{
    struct page_cache *cache;
    uint8_t page[PAGE_SIZE];
    ck_assert_int_eq(page_cache_create(&cache, 64 * PAGE_SIZE, NULL), 0);
    for (unsigned i = 0; i < 200; i++) {
        memset(page, (int)i, sizeof(page));
        page_cache_put(cache, i, page);
    }
    for (unsigned i = 0; i < 200; i++) {
        const uint8_t *found = page_cache_find(cache, i);
        ck_assert_msg(!found == (i < 200 - 64), "page %u", i);
        if (found)
            ck_assert_uint_eq(found[17], (uint8_t)i);
    }
    page_cache_put(cache, 136, page); /* renewed: of its set another one goes first */
    page_cache_put(cache, 136 + 64, page);
    ck_assert_ptr_nonnull(page_cache_find(cache, 136));
    ck_assert_ptr_null(page_cache_find(cache, 136 + 16));
    page_cache_drop(cache, 136);
    page_cache_drop(cache, 5); /* which is not there */
    ck_assert_ptr_null(page_cache_find(cache, 136));
    page_cache_destroy(cache);
}
END_TEST

/* --- whether both hold the same --------------------------------------------------------------- */

static uint8_t disk[5 * MIB / 2];

static int read_disk(void *ctx, uint64_t offset, uint8_t *bytes, uint32_t length)
{
    if (offset + length > sizeof(disk))
        return -EINVAL;
    memcpy(bytes, disk + offset, length);
    return 0;
}

static void put_sums(uint32_t place, const struct compare_what *what)
{
    struct frame frame = {.kind = FRAME_COMPARE, .epoch = 1};
    uint32_t *sums;
    ck_assert_int_eq(compare_sum(place, what, &sums, &frame.length, NULL), 0);
    frame_write(&buffer.stream, &frame, sums, NULL);
    free(sums);
}

START_TEST(one_byte_that_differs_is_found)
{
    const struct compare_what what = {.size = sizeof(disk), .read = read_disk};
    for (unsigned i = 0; i < 3; i++) {
        struct err err = {0};
        uint32_t place;
        put_sums(7, &what);
        next(FRAME_COMPARE);
        disk[sizeof(disk) - 1] ^= i == 1;
        disk[MIB] ^= i == 2;
        ck_assert_int_eq(compare_place(&payload, &place, NULL), 0);
        ck_assert_uint_eq(place, 7);
        ck_assert_int_eq(compare_check(&payload, "disk.img", &what, &err), i ? -EUCLEAN : 0);
        if (i)
            ck_assert_msg(strstr(err.text, i == 1 ? "disk.img is not the same on both hosts, "
                                                    "somewhere in the MiB from byte 2097152"
                                                  : "from byte 1048576"),
                          "%s", err.text);
    }
}
END_TEST

START_TEST(sums_of_another_size_are_refused)
{
    const struct compare_what what = {.size = sizeof(disk), .read = read_disk};
    put_sums(COMPARE_MEMORY, &what);
    next(FRAME_COMPARE);
    for (size_t length = 0; length < payload.length; length++) {
        struct stream_buffer from;
        uint32_t place;
        stream_buffer_init_read(&from, payload.bytes, length);
        ck_assert(compare_place(&from, &place, NULL) < 0 ||
                  compare_check(&from, "memory", &what, NULL) < 0);
    }
    const struct compare_what less = {.size = 2 * MIB, .read = read_disk};
    uint32_t place;
    ck_assert_int_eq(compare_place(&payload, &place, NULL), 0);
    ck_assert_uint_eq(place, COMPARE_MEMORY);
    ck_assert_int_eq(compare_check(&payload, "memory", &less, NULL), -EBADMSG);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("page_frames");
    TCase *tcase = tcase_create("all");
    tcase_add_checked_fixture(tcase, set_up, tear_down);
    tcase_add_test(tcase, pages_arrive_as_they_left);
    tcase_add_test(tcase, raw_pages_cost_their_bytes);
    tcase_add_test(tcase, what_was_sent_before_is_sent_by_its_changes);
    tcase_add_test(tcase, nothing_is_known_of_pages_that_were_copied);
    tcase_add_test(tcase, changes_of_another_page_are_refused);
    tcase_add_test(tcase, pages_that_lie_are_refused);
    tcase_add_test(tcase, a_damaged_frame_is_refused_at_its_end);
    tcase_add_test(tcase, the_cache_forgets_the_oldest);
    tcase_add_test(tcase, one_byte_that_differs_is_found);
    tcase_add_test(tcase, sums_of_another_size_are_refused);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
