/* SPDX-License-Identifier: MIT */
/* What has changed in some bytes: whoever has the old ones has the new ones then. */
#include "ft/delta.h"

#include "core/stream.h"
#include "tests/unit/unit.h"
#include <string.h>

enum { MOST = 5000 };

static uint8_t old[MOST], new[MOST], delta[2 * MOST];

static void fill(uint8_t *bytes, unsigned seed)
{
    for (unsigned i = 0; i < MOST; i++)
        bytes[i] = (uint8_t)((i * 2654435761u + seed * 40503u) >> 13);
}

static size_t encode(size_t length, size_t room)
{
    const uint8_t *end = delta_encode(old, new, length, delta, delta + room);
    return end ? (size_t)(end - delta) : 0;
}

/* Nothing behind its end is touched, either. */
static void check_applied(size_t delta_length, size_t length)
{
    uint8_t bytes[MOST];
    memcpy(bytes, old, MOST);
    ck_assert(delta_apply(delta, delta_length, bytes, length));
    ck_assert_int_eq(memcmp(bytes, new, length), 0);
    ck_assert_int_eq(memcmp(bytes + length, old + length, MOST - length), 0);
}

START_TEST(test_what_has_changed_comes_over)
{
    static const size_t lengths[] = {0, 1, 7, 8, 9, 16, 4095, 4096, MOST - 3};
    static const unsigned places[] = {0, 1, 7, 8, 15, 4088, 4095, MOST - 4};
    for (unsigned i = 0; i < array_size(lengths); i++) {
        size_t length = lengths[i];
        fill(old, 1);
        memcpy(new, old, MOST);
        ck_assert_uint_eq(encode(length, MOST), 4); /* nothing has */
        check_applied(4, length);
        for (unsigned k = 0; k < array_size(places); k++)
            if (places[k] < length)
                new[places[k]] ^= 0x55;
        check_applied(encode(length, MOST), length);
        fill(new, 2); /* all of it */
        size_t whole = encode(length, sizeof(delta));
        ck_assert_uint_le(whole, length + 8);
        check_applied(whole, length);
    }
}
END_TEST

START_TEST(test_it_keeps_to_its_room)
{
    fill(old, 1);
    memcpy(new, old, MOST);
    new[9] ^= 1;
    new[100] ^= 1;
    size_t wanted = encode(4096, MOST);
    ck_assert_uint_eq(wanted, 4 + 2 * (4 + 8));
    for (size_t room = 0; room < wanted; room++) {
        memset(delta, 0xaa, sizeof(delta));
        ck_assert_uint_eq(encode(4096, room), 0);
        ck_assert_uint_eq(delta[room], 0xaa);
    }
    ck_assert_uint_eq(encode(4096, wanted), wanted);
    ck_assert_ptr_null(delta_encode(old, new, DELTA_MOST + 1, delta, delta + sizeof(delta)));
}
END_TEST

static bool is_refused(size_t delta_length)
{
    uint8_t bytes[MOST];
    memcpy(bytes, old, MOST);
    bool refused = !delta_apply(delta, delta_length, bytes, 4096);
    return refused && memcmp(bytes + 4096, old + 4096, MOST - 4096) == 0;
}

/* A bit that was changed on the way, an end that is missing, runs that lead out of the bytes. */
START_TEST(test_what_makes_no_sense_is_refused)
{
    fill(old, 1);
    fill(new, 1);
    memset(new + 800, 7, 48);
    new[4095] ^= 1;
    size_t length = encode(4096, MOST);
    ck_assert_uint_gt(length, 0);
    for (size_t end = 0; end < length; end++)
        ck_assert(is_refused(end));
    for (size_t bit = 0; bit < length * 8; bit++) {
        delta[bit / 8] ^= (uint8_t)(1 << bit % 8);
        ck_assert(is_refused(length));
        delta[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    static const uint8_t heads[][4] = {
        {0, 2, 1, 0}, {255, 1, 2, 0}, {255, 255, 255, 255}, {0, 0, 255, 255}};
    for (unsigned i = 0; i < array_size(heads); i++) {
        memcpy(delta + 4, heads[i], 4);
        ck_assert(is_refused(sizeof(delta)));
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("delta");
    TCase *tests = tcase_create("delta");
    tcase_add_test(tests, test_what_has_changed_comes_over);
    tcase_add_test(tests, test_it_keeps_to_its_room);
    tcase_add_test(tests, test_what_makes_no_sense_is_refused);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
