/* SPDX-License-Identifier: MIT */
#include "core/iov.h"
#include "tests/unit/unit.h"
#include <stdlib.h>
#include <string.h>

/* "abcdefgh" in pieces, with an empty one at each place where it can lie. */
static char pieces[] = "abcdefgh";
static const struct iovec letters[] = {
    {NULL, 0}, {pieces, 3}, {pieces + 3, 0}, {pieces + 3, 1}, {pieces + 4, 4}, {NULL, 0},
};

START_TEST(the_size_is_the_sum)
{
    ck_assert_uint_eq(iov_size(letters, array_size(letters)), 8);
    ck_assert_uint_eq(iov_size(letters, 2), 3);
    ck_assert_uint_eq(iov_size(NULL, 0), 0);
}
END_TEST

START_TEST(a_read_takes_what_there_is)
{
    char got[16];

    for (size_t offset = 0; offset <= 10; offset++) {
        for (size_t length = 0; length <= 10; length++) {
            size_t there = offset > 8 ? 0 : 8 - offset;
            size_t expected = length < there ? length : there;
            memset(got, '.', sizeof(got));
            ck_assert_uint_eq(iov_read(letters, array_size(letters), offset, got, length),
                              expected);
            ck_assert_int_eq(memcmp(got, pieces + (offset > 8 ? 8 : offset), expected), 0);
            ck_assert_int_eq(got[expected], '.');
        }
    }
}
END_TEST

START_TEST(an_offset_near_the_end_of_numbers_is_only_far_away)
{
    char got[1];
    struct iovec part[array_size(letters)];

    ck_assert_uint_eq(iov_read(letters, array_size(letters), SIZE_MAX, got, 1), 0);
    ck_assert_uint_eq(iov_part(letters, array_size(letters), SIZE_MAX, SIZE_MAX, part), 0);
    ck_assert_uint_eq(iov_part(letters, array_size(letters), 4, SIZE_MAX, part), 1);
    ck_assert_uint_eq(part[0].iov_len, 4);
    ck_assert_uint_eq(iov_part(NULL, 0, 0, 1, part), 0);
}
END_TEST

enum { BYTES = 64, MAX_PIECES = 9, ROUNDS = 20000 };

/* Cuts `bytes` into pieces at random, with empty ones among them. */
static unsigned cut(uint8_t *bytes, unsigned *seed, struct iovec *iov)
{
    unsigned count = 0;

    for (size_t at = 0; at < BYTES; count++) {
        size_t part = count + 1 == MAX_PIECES ? BYTES - at : (size_t)rand_r(seed) % 20;
        if (part > BYTES - at)
            part = BYTES - at;
        iov[count] = (struct iovec){bytes + at, part};
        at += part;
    }
    return count;
}

/* A list behaves as the flat bytes do, whatever its cuts. */
START_TEST(a_list_is_as_good_as_flat_bytes)
{
    uint8_t bytes[BYTES], flat[BYTES], from[BYTES], got[BYTES];
    struct iovec iov[MAX_PIECES], part[MAX_PIECES];
    unsigned seed = 1;

    for (size_t i = 0; i < BYTES; i++) {
        bytes[i] = flat[i] = (uint8_t)i;
        from[i] = (uint8_t)~i;
    }
    for (unsigned round = 0; round < ROUNDS; round++) {
        unsigned count = cut(bytes, &seed, iov);
        size_t offset = (size_t)rand_r(&seed) % (BYTES + 8);
        size_t length = (size_t)rand_r(&seed) % BYTES;
        size_t there = offset > BYTES ? 0 : BYTES - offset;
        size_t n = length < there ? length : there;
        uint8_t *place = flat + (n ? offset : 0);

        if (round % 3 == 0) {
            ck_assert_uint_eq(iov_write(iov, count, offset, from + (BYTES - length), length), n);
            memcpy(place, from + (BYTES - length), n);
        } else if (round % 3 == 1) {
            ck_assert_uint_eq(iov_fill(iov, count, offset, (uint8_t)round, length), n);
            memset(place, (uint8_t)round, n);
        } else {
            unsigned parts = iov_part(iov, count, offset, length, part);
            ck_assert_uint_le(parts, count);
            ck_assert_uint_eq(iov_size(part, parts), n);
            ck_assert_uint_eq(iov_read(part, parts, 0, got, BYTES), n);
            ck_assert_int_eq(memcmp(got, place, n), 0);
            for (unsigned i = 0; i < parts; i++)
                ck_assert_uint_gt(part[i].iov_len, 0);
        }
        ck_assert_int_eq(memcmp(bytes, flat, BYTES), 0);
    }
}
END_TEST

static Suite *iov_suite(void)
{
    Suite *suite = suite_create("iov");
    TCase *tcase = tcase_create("iov");

    tcase_add_test(tcase, the_size_is_the_sum);
    tcase_add_test(tcase, a_read_takes_what_there_is);
    tcase_add_test(tcase, an_offset_near_the_end_of_numbers_is_only_far_away);
    tcase_add_test(tcase, a_list_is_as_good_as_flat_bytes);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void)
{
    return unit_main(iov_suite());
}
