/* SPDX-License-Identifier: MIT */
#include "core/words.h"
#include "tests/unit/unit.h"
#include <errno.h>
#include <string.h>

static const char *const keys[] = {"cpus", "memory", "block_size", "readonly", "nets", NULL};

START_TEST(a_word_is_found_by_its_letters_only)
{
    ck_assert_int_eq(words_find(keys, "memory"), 1);
    ck_assert_int_eq(words_find(keys, "memor"), -1);
    ck_assert_int_eq(words_find(keys, "Memory"), -1);
    ck_assert_int_eq(words_find(keys, ""), -1);
}
END_TEST

START_TEST(typing_errors_are_near)
{
    static const char *const pairs[][2] = {
        {"mempry", "memory"},         {"memroy", "memory"},      {"cpu", "cpus"},
        {"block-size", "block_size"}, {"read_only", "readonly"}, {"net", "nets"},
    };
    for (size_t i = 0; i < array_size(pairs); i++)
        ck_assert_str_eq(words_nearest(keys, pairs[i][0]), pairs[i][1]);
}
END_TEST

START_TEST(other_words_and_long_ones_are_not_near)
{
    char lengthy[200];
    memset(lengthy, 'x', sizeof(lengthy) - 1);
    lengthy[sizeof(lengthy) - 1] = '\0';

    ck_assert_ptr_null(words_nearest(keys, "graphics"));
    ck_assert_ptr_null(words_nearest(keys, lengthy));
}
END_TEST

START_TEST(of_two_neighbours_the_nearer_is_meant_and_of_equals_the_first)
{
    static const char *const near[] = {"tapes", "taps", "tap", NULL};
    static const char *const equal[] = {"cat", "bat", NULL};

    ck_assert_str_eq(words_nearest(near, "tap"), "tap");
    ck_assert_str_eq(words_nearest(near, "taps"), "taps");
    ck_assert_str_eq(words_nearest(equal, "rat"), "cat");
}
END_TEST

START_TEST(numbers_are_whole_and_in_their_range)
{
    static const char *const wrong[] = {"",   "0",  "9",  "x",   "5x",
                                        " 5", "-5", "+5", "5.0", "18446744073709551621"};
    struct err err;
    uint64_t number = 77;

    ck_assert_int_eq(parse_number("5", "--cpus", 1, 8, &number, &err), 0);
    ck_assert_uint_eq(number, 5);
    for (size_t i = 0; i < array_size(wrong); i++) {
        ck_assert_int_eq(parse_number(wrong[i], "--cpus", 1, 8, &number, &err), -EINVAL);
        ck_assert_int_eq(err.kind, ERR_USAGE);
    }
    ck_assert_uint_eq(number, 5);
    ck_assert_int_eq(parse_number("9", "--cpus", 1, 8, &number, &err), -EINVAL);
    ck_assert_str_eq(err.text, "--cpus 9: a number from 1 to 8 is wanted");
}
END_TEST

START_TEST(sizes_have_units_of_1024)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {{"512", 512ull << 20},  {"0", 0},           {"4K", 4096},
                {"512M", 512ull << 20}, {"2g", 2ull << 30}, {"1T", 1ull << 40},
                {"6GiB", 6ull << 30}};
    static const char *const wrong[] = {"", "M", "1.5G", "-1M", "5 M", "5MB", "5X", "16777216T"};
    struct err err;
    uint64_t bytes = 77;

    for (size_t i = 0; i < array_size(good); i++) {
        ck_assert_int_eq(parse_size(good[i].text, "--memory", &bytes, &err), 0);
        ck_assert_uint_eq(bytes, good[i].bytes);
    }
    bytes = 77;
    for (size_t i = 0; i < array_size(wrong); i++)
        ck_assert_int_eq(parse_size(wrong[i], "--memory", &bytes, &err), -EINVAL);
    ck_assert_uint_eq(bytes, 77);
}
END_TEST

START_TEST(uuids_and_macs_have_their_one_form)
{
    static const char *const wrong_macs[] = {"", "02:00:00:12:34", "02-00-00-12-34-56",
                                             "02:00:00:12:34:5g", "02:00:00:12:34:567"};
    static const uint8_t wanted[6] = {0x02, 0xab, 0xCD, 0x00, 0x34, 0xff};
    uint8_t uuid[16], mac[6];
    struct err err;

    ck_assert_int_eq(parse_uuid("6f1ed002-ab5a-4b0c-8D5E-3a4c5d6e7f80", "--uuid", uuid, &err), 0);
    ck_assert_uint_eq(uuid[0], 0x6f);
    ck_assert_uint_eq(uuid[8], 0x8d);
    ck_assert_uint_eq(uuid[15], 0x80);
    ck_assert_int_lt(parse_uuid("6f1ed002-ab5a-4b0c-8d5e-3a4c5d6e7f8", "--uuid", uuid, &err), 0);
    ck_assert_int_lt(parse_uuid("6f1ed002-ab5a-4b0c-8d5e-3a4c5d6e7f801", "--uuid", uuid, &err), 0);
    ck_assert_int_lt(parse_uuid("6f1ed0020ab5a-4b0c-8d5e-3a4c5d6e7f80", "--uuid", uuid, &err), 0);
    ck_assert(parse_mac_address("02:ab:CD:00:34:ff", mac));
    ck_assert_mem_eq(mac, wanted, sizeof(mac));
    for (size_t i = 0; i < array_size(wrong_macs); i++)
        ck_assert(!parse_mac_address(wrong_macs[i], mac));
    ck_assert_mem_eq(mac, wanted, sizeof(mac));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("words");
    TCase *tcase = tcase_create("words");
    tcase_add_test(tcase, a_word_is_found_by_its_letters_only);
    tcase_add_test(tcase, typing_errors_are_near);
    tcase_add_test(tcase, other_words_and_long_ones_are_not_near);
    tcase_add_test(tcase, of_two_neighbours_the_nearer_is_meant_and_of_equals_the_first);
    tcase_add_test(tcase, numbers_are_whole_and_in_their_range);
    tcase_add_test(tcase, sizes_have_units_of_1024);
    tcase_add_test(tcase, uuids_and_macs_have_their_one_form);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
