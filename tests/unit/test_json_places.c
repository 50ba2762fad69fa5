/* SPDX-License-Identifier: MIT */
#include "tests/unit/unit.h"
#include "vmm/json_places.h"
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct json_places find(const char *text)
{
    struct json_places places = {0};
    struct json_spot stop;
    struct err err = {0};
    ck_assert_msg(json_places_find(&places, text, strlen(text), &stop, &err) == 0, "%s", err.text);
    return places;
}

/* "LINE:COLUMN PATH" of every value, in the order of the text. */
static char *list(const char *text)
{
    struct json_places places = find(text);
    char *all = NULL, path[200];
    size_t size;
    FILE *file = open_memstream(&all, &size);
    for (uint32_t i = 0; i < places.count; i++) {
        json_places_path(&places, i, path, sizeof(path));
        fprintf(file, "%u:%u %s\n", places.at[i].value.line, places.at[i].value.column, path);
    }
    fclose(file);
    json_places_finish(&places);
    return all;
}

static void expect(const char *text, const char *wanted)
{
    char *all = list(text);
    ck_assert_str_eq(all, wanted);
    free(all);
}

START_TEST(every_value_has_its_line_and_column)
{
    expect("{\n"
           "  \"cpus\": 2,\n"
           "  \"nets\": [ {\"mode\":\"user\"},\n"
           "\t{} , [], -1.5e3]\n"
           "}\n",
           "1:1 \n"
           "2:11 cpus\n"
           "3:11 nets\n"
           "3:13 nets[0]\n"
           "3:21 nets[0].mode\n"
           "4:2 nets[1]\n"
           "4:7 nets[2]\n"
           "4:11 nets[3]\n");
}
END_TEST

START_TEST(keys_have_places_too)
{
    struct json_places places = find("{\n  \"a\" : 1,\n \"b\"\n:\n2}");
    ck_assert_uint_eq(places.count, 3);
    ck_assert_uint_eq(places.at[1].key_spot.line, 2);
    ck_assert_uint_eq(places.at[1].key_spot.column, 3);
    ck_assert_uint_eq(places.at[2].key_spot.line, 3);
    ck_assert_uint_eq(places.at[2].key_spot.column, 2);
    ck_assert_uint_eq(places.at[2].value.line, 5);
    json_places_finish(&places);
}
END_TEST

START_TEST(columns_count_characters_and_not_bytes)
{
    expect("{\"\u00e9\u20ac\U0001f600\":\"\u00fc\", \"b\":1}",
           "1:1 \n1:8 \u00e9\u20ac\U0001f600\n1:17 b\n");
}
END_TEST

START_TEST(what_looks_like_json_inside_of_a_text_is_text)
{
    expect("[\"{,:[\\\"]}\", \"\\\\\", {\"]\\\"\": 1}]",
           "1:1 \n1:2 [0]\n1:14 [1]\n1:20 [2]\n1:28 [2].]\"\n");
}
END_TEST

START_TEST(keys_are_twins_by_what_they_mean)
{
    struct json_places places = find(
        "{\"cpus\":1, \"cp\\u0075s\":2, \"Cpus\":3, \"x\":{\"cpus\":4}, \"cpus\":5}");
    ck_assert_uint_eq(places.at[1].twin, JSON_NOWHERE);
    ck_assert(places.at[1].shadowed);
    ck_assert_uint_eq(places.at[2].twin, 1);
    ck_assert(places.at[2].shadowed);
    ck_assert_str_eq(places.at[2].key, "cpus");
    ck_assert_uint_eq(places.at[3].twin, JSON_NOWHERE);
    ck_assert_uint_eq(places.at[5].twin, JSON_NOWHERE);
    ck_assert_uint_eq(places.at[6].twin, 2);
    ck_assert(!places.at[6].shadowed);
    ck_assert_uint_eq(json_places_member(&places, 0, "cpus"), 6);
    ck_assert_uint_eq(json_places_member(&places, 0, "nets"), JSON_NOWHERE);
    json_places_finish(&places);
}
END_TEST

START_TEST(surrogates_in_keys_are_one_character)
{
    struct json_places places = find("{\"\\ud83d\\ude00\":1, \"\U0001f600\":2}");
    ck_assert_str_eq(places.at[1].key, "\U0001f600");
    ck_assert_uint_eq(places.at[2].twin, 1);
    json_places_finish(&places);
}
END_TEST

START_TEST(items_are_found_by_number)
{
    struct json_places places = find("[[], {\"a\":1}, 3]");
    ck_assert_uint_eq(json_places_item(&places, 0, 0), 1);
    ck_assert_uint_eq(json_places_item(&places, 0, 2), 4);
    ck_assert_uint_eq(json_places_item(&places, 0, 3), JSON_NOWHERE);
    ck_assert_uint_eq(json_places_item(&places, JSON_NOWHERE, 0), JSON_NOWHERE);
    ck_assert_uint_eq(json_places_member(&places, JSON_NOWHERE, "a"), JSON_NOWHERE);
    json_places_finish(&places);
}
END_TEST

static int repeat(const char *what, unsigned count, struct json_spot *stop, struct err *err)
{
    struct json_places places = {0};
    size_t length = strlen(what);
    char *text = malloc(length * count + 1);
    for (unsigned i = 0; i < count; i++)
        memcpy(text + i * length, what, length);
    int ret = json_places_find(&places, text, length * count, stop, err);
    json_places_finish(&places);
    free(text);
    return ret;
}

START_TEST(depth_and_number_have_bounds)
{
    struct json_spot stop;
    struct err err;

    ck_assert_int_eq(repeat("[", JSON_MAX_DEPTH, &stop, &err), 0);
    ck_assert_int_eq(repeat("[\n", JSON_MAX_DEPTH + 1, &stop, &err), -E2BIG);
    ck_assert_uint_eq(stop.line, JSON_MAX_DEPTH + 1);
    ck_assert_int_eq(repeat("[", 1 << 20, &stop, &err), -E2BIG);
    ck_assert_int_eq(repeat("1,", JSON_MAX_PLACES, &stop, &err), 0);
    ck_assert_int_eq(repeat("1,", JSON_MAX_PLACES + 1, &stop, &err), -E2BIG);
    ck_assert_uint_eq(stop.column, 2 * JSON_MAX_PLACES + 1);
    ck_assert_int_eq(repeat("]}", 1000, &stop, &err), 0);
}
END_TEST

/* All of them members of one object: the search for twins must not take long. */
START_TEST(as_many_keys_as_there_may_be_are_compared_in_no_time)
{
    char *text = malloc(JSON_MAX_PLACES * 270), *at = text;
    *at++ = '{';
    for (unsigned i = 0; i < JSON_MAX_PLACES - 1; i++)
        at += sprintf(at, "%s\"%0240u\":1", i ? "," : "", i);
    strcpy(at, "}");
    struct json_places places = find(text); /* libcheck's patience is 4 s */
    ck_assert_uint_eq(places.count, JSON_MAX_PLACES);
    json_places_finish(&places);
    free(text);
}
END_TEST

START_TEST(bytes_that_are_no_json_are_walked_to_their_end)
{
    static const char *const texts[] = {"",        "\"",         "\"\\",     "{\"a",
                                        "{\"a\":", "}}]],,::",   "{1:2}",    "\\u0",
                                        "[\"\n\"", "{\"\\\":1}", "\xff\xfe", "{:,:}"};
    for (size_t i = 0; i < array_size(texts); i++) {
        struct json_places places = find(texts[i]);
        json_places_finish(&places);
    }
}
END_TEST

START_TEST(what_is_shown_is_short_and_harmless)
{
    char to[256];
    json_show("\"\x1b[31m\x7f\xc2\x9b\"", 10, to, sizeof(to));
    ck_assert_str_eq(to, "\"?[31m???\"");
    json_show("a\xff\xc3", 3, to, sizeof(to));
    ck_assert_str_eq(to, "a??");
    json_show("\"0123456789012345678901234567890123456789\"", 42, to, sizeof(to));
    ck_assert_str_eq(to, "\"012345678901234567890123456789012345678...\"");
    json_show("\u20ac\u20ac\u20ac\u20ac", 12, to, 16);
    ck_assert_uint_lt(strlen(to), 16);
    json_show("", 0, to, sizeof(to));
    ck_assert_str_eq(to, "");
}
END_TEST

START_TEST(a_long_path_is_cut_and_stays_inside)
{
    char text[600] = "", path[20];
    for (unsigned i = 0; i < JSON_MAX_DEPTH - 1; i++)
        strcat(text, "{\"aaaaaaaaaa\":");
    struct json_places places = find(strcat(text, "1"));
    json_places_path(&places, places.count - 1, path, sizeof(path));
    ck_assert_str_eq(path, "aaaaaaaaaa.aaaaaaaa");
    json_places_finish(&places);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("json_places");
    TCase *tcase = tcase_create("places");
    tcase_add_test(tcase, every_value_has_its_line_and_column);
    tcase_add_test(tcase, keys_have_places_too);
    tcase_add_test(tcase, columns_count_characters_and_not_bytes);
    tcase_add_test(tcase, what_looks_like_json_inside_of_a_text_is_text);
    tcase_add_test(tcase, keys_are_twins_by_what_they_mean);
    tcase_add_test(tcase, surrogates_in_keys_are_one_character);
    tcase_add_test(tcase, items_are_found_by_number);
    tcase_add_test(tcase, depth_and_number_have_bounds);
    tcase_add_test(tcase, as_many_keys_as_there_may_be_are_compared_in_no_time);
    tcase_add_test(tcase, bytes_that_are_no_json_are_walked_to_their_end);
    tcase_add_test(tcase, what_is_shown_is_short_and_harmless);
    tcase_add_test(tcase, a_long_path_is_cut_and_stays_inside);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
