/* SPDX-License-Identifier: MIT */
#include "core/err.h"
#include "tests/unit/unit.h"
#include <errno.h>
#include <string.h>

START_TEST(err_sys_names_the_object_and_the_reason)
{
    struct err err = {.hint = "an old one"};

    ck_assert_int_eq(err_sys(&err, ERR_HOST, EACCES, "cannot open %s", "disk.img"), -EACCES);
    ck_assert_int_eq(err.kind, ERR_HOST);
    ck_assert_str_eq(err.text, "cannot open disk.img: Permission denied");
    ck_assert_str_eq(err.hint, "");
}
END_TEST

START_TEST(err_say_says_only_its_sentence)
{
    struct err err = {.hint = "an old one"};

    ck_assert_int_eq(err_say(&err, ERR_STATE, EBUSY, "%s is already running", "web1"), -EBUSY);
    ck_assert_int_eq(err.kind, ERR_STATE);
    ck_assert_str_eq(err.text, "web1 is already running");
    ck_assert_str_eq(err.hint, "");
}
END_TEST

START_TEST(prefixes_stack_up_and_keep_the_rest)
{
    struct err err;

    ck_assert_int_lt(err_say(&err, ERR_NOT_FOUND, ENOENT, "no such file"), 0);
    err_hint(&err, "look into %s", "web1/");
    err_prefix(&err, "disk %d", 0);
    err_prefix(&err, "web1");
    ck_assert_str_eq(err.text, "web1: disk 0: no such file");
    ck_assert_str_eq(err.hint, "look into web1/");
    ck_assert_int_eq(err.kind, ERR_NOT_FOUND);
}
END_TEST

START_TEST(nobody_has_to_listen)
{
    ck_assert_int_eq(err_sys(NULL, ERR_HOST, EIO, "x"), -EIO);
    ck_assert_int_eq(err_say(NULL, ERR_HOST, EIO, "x"), -EIO);
    err_hint(NULL, "x");
    err_prefix(NULL, "x");
}
END_TEST

START_TEST(long_sentences_are_cut_inside_their_buffers)
{
    struct {
        struct err err;
        char guard[8];
    } s = {.guard = "guarded"};
    char words[1001];

    memset(words, 'x', 1000);
    words[1000] = '\0';
    ck_assert_int_eq(err_sys(&s.err, ERR_HOST, EIO, "%s", words), -EIO);
    ck_assert_uint_eq(strlen(s.err.text), sizeof(s.err.text) - 1);
    err_prefix(&s.err, "web1");
    ck_assert_uint_eq(strlen(s.err.text), sizeof(s.err.text) - 1);
    ck_assert_int_eq(strncmp(s.err.text, "web1: xxx", 9), 0);
    err_prefix(&s.err, "%s", words);
    ck_assert_uint_eq(strlen(s.err.text), sizeof(s.err.text) - 1);
    err_hint(&s.err, "%s", words);
    ck_assert_uint_eq(strlen(s.err.hint), sizeof(s.err.hint) - 1);
    ck_assert_str_eq(s.guard, "guarded");
}
END_TEST

START_TEST(kinds_are_the_exit_codes_of_the_manual)
{
    ck_assert_int_eq(ERR_FAILED, 1);
    ck_assert_int_eq(ERR_USAGE, 2);
    ck_assert_int_eq(ERR_NOT_FOUND, 3);
    ck_assert_int_eq(ERR_STATE, 4);
    ck_assert_int_eq(ERR_DEFINITION, 5);
    ck_assert_int_eq(ERR_HOST, 6);
    ck_assert_int_eq(ERR_GUEST, 7);
    ck_assert_int_eq(ERR_TIMEOUT, 124);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("err");
    TCase *all = tcase_create("all");

    tcase_add_test(all, err_sys_names_the_object_and_the_reason);
    tcase_add_test(all, err_say_says_only_its_sentence);
    tcase_add_test(all, prefixes_stack_up_and_keep_the_rest);
    tcase_add_test(all, nobody_has_to_listen);
    tcase_add_test(all, long_sentences_are_cut_inside_their_buffers);
    tcase_add_test(all, kinds_are_the_exit_codes_of_the_manual);
    suite_add_tcase(suite, all);
    return unit_main(suite);
}
