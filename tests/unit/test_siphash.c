/* SPDX-License-Identifier: MIT */
#include "core/siphash.h"
#include "tests/unit/unit.h"

#include <string.h>

/* The first two of the authors' own: bytes 0, 1, 2 ... under the key 0, 1, 2 ... */
START_TEST(the_authors_sums)
{
    static const uint8_t none[] = {0xa3, 0x81, 0x7f, 0x04, 0xba, 0x25, 0xa8, 0xe6,
                                   0x6d, 0xf6, 0x72, 0x14, 0xc7, 0x55, 0x02, 0x93};
    static const uint8_t one[] = {0xda, 0x87, 0xc1, 0xd8, 0x6b, 0x99, 0xaf, 0x44,
                                  0x34, 0x76, 0x59, 0x11, 0x9b, 0x22, 0xfc, 0x45};
    uint8_t bytes[64], sum[SIPHASH_SUM];
    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)i;
    siphash(bytes, bytes, 0, sum);
    ck_assert_mem_eq(sum, none, sizeof(none));
    siphash(bytes, bytes, 1, sum);
    ck_assert_mem_eq(sum, one, sizeof(one));
}
END_TEST

START_TEST(key_length_and_each_bit_matter)
{
    uint8_t key[SIPHASH_KEY] = {1}, bytes[40] = {0}, sum[SIPHASH_SUM], other[SIPHASH_SUM];
    siphash(key, bytes, sizeof(bytes), sum);
    siphash(key, bytes, sizeof(bytes) - 1, other);
    ck_assert_mem_ne(sum, other, sizeof(sum));
    for (unsigned bit = 0; bit < 8 * sizeof(bytes); bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        siphash(key, bytes, sizeof(bytes), other);
        ck_assert_mem_ne(sum, other, sizeof(sum));
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    key[15] ^= 0x80;
    siphash(key, bytes, sizeof(bytes), other);
    ck_assert_mem_ne(sum, other, sizeof(sum));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("siphash");
    TCase *tcase = tcase_create("all");
    tcase_add_test(tcase, the_authors_sums);
    tcase_add_test(tcase, key_length_and_each_bit_matter);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
