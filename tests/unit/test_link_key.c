/* SPDX-License-Identifier: MIT */
#include "host/link.h"
#include "tests/unit/unit.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define GOOD "00112233445566778899aabbccddeeff0123456789abcdef0123456789ABCDEF"

struct files {
    char folder[64];
    char path[96];
};

static void begin(struct files *files)
{
    snprintf(files->folder, sizeof(files->folder), "/tmp/minivmm-key-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(files->folder));
    snprintf(files->path, sizeof(files->path), "%s/key", files->folder);
}

static void end(struct files *files)
{
    (void)unlink(files->path);
    ck_assert_int_eq(rmdir(files->folder), 0);
}

static void put(const char *path, const char *text, size_t length, mode_t mode)
{
    (void)unlink(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, text, length), (ssize_t)length);
    ck_assert_int_eq(fchmod(fd, mode), 0);
    close(fd);
}

static void check_refused(const char *path, enum err_kind kind, const char *words, const char *mend)
{
    struct link_key key, before;
    struct err err = {0};

    memset(&key, 0x5a, sizeof(key));
    before = key;
    ck_assert_int_lt(link_key_read(&key, path, &err), 0);
    ck_assert_int_eq(err.kind, kind);
    ck_assert_msg(strstr(err.text, words), "\"%s\" lacks \"%s\"", err.text, words);
    ck_assert_msg(strstr(err.hint, mend), "\"%s\" lacks \"%s\"", err.hint, mend);
    ck_assert_mem_eq(&key, &before, sizeof(key));
}

START_TEST(a_new_key_comes_back_from_its_file_and_is_like_no_other)
{
    struct link_key key, other, back;
    char text[LINK_KEY_TEXT + 1];
    struct files files;

    begin(&files);
    ck_assert_int_eq(link_key_make(&key, NULL), 0);
    ck_assert_int_eq(link_key_make(&other, NULL), 0);
    ck_assert_mem_ne(&key, &other, sizeof(key));
    link_key_format(&key, text);
    ck_assert_uint_eq(strlen(text), LINK_KEY_TEXT - 1);
    strcat(text, "\n");
    for (size_t length = strlen(text) - 1; length <= strlen(text); length++) { /* newline or not */
        put(files.path, text, length, 0600);
        ck_assert_int_eq(link_key_read(&back, files.path, NULL), 0);
        ck_assert_mem_eq(&key, &back, sizeof(key));
    }
    put(files.path, text, strlen(text), 0400);
    ck_assert_int_eq(link_key_read(&back, files.path, NULL), 0);
    end(&files);
}
END_TEST

START_TEST(digits_of_both_cases_are_read)
{
    struct link_key key;
    struct files files;

    begin(&files);
    put(files.path, GOOD "\n", 65, 0600);
    ck_assert_int_eq(link_key_read(&key, files.path, NULL), 0);
    ck_assert_uint_eq(key.bytes[0], 0x00);
    ck_assert_uint_eq(key.bytes[1], 0x11);
    ck_assert_uint_eq(key.bytes[16], 0x01);
    ck_assert_uint_eq(key.bytes[31], 0xef);
    end(&files);
}
END_TEST

START_TEST(a_file_that_others_may_read_or_write_is_refused)
{
    static const mode_t modes[] = {0644, 0640, 0620, 0610, 0604, 0602, 0601};
    struct files files;

    begin(&files);
    for (size_t i = 0; i < array_size(modes); i++) {
        put(files.path, GOOD "\n", 65, modes[i]);
        check_refused(files.path, ERR_STATE, "by others", "chmod 600");
    }
    end(&files);
}
END_TEST

START_TEST(what_is_no_key_is_refused)
{
    static const struct {
        const char *text, *words;
    } wrong[] = {
        {"", "64 hex digits"},
        {"\n", "64 hex digits"},
        {"0011", "64 hex digits"},
        {GOOD "0", "64 hex digits"},
        {GOOD "\n\n", "64 hex digits"},
        {GOOD "\r\n", "64 hex digits"},
        {GOOD GOOD GOOD GOOD, "64 hex digits"},
        {"g0112233445566778899aabbccddeeff0123456789abcdef0123456789ABCDEF", "hex digits"},
        {" 0112233445566778899aabbccddeeff0123456789abcdef0123456789ABCDEF", "hex digits"},
        {"00112233445566778899aabbccddeeff0123456789abcdef0123456789ABCDE\n", "hex digits"},
        {"00112233445566778899aabbccddeeff0123456789abcdef0123456789ABCDE\n0", "64 hex digits"},
        {"P0112233445566778899aabbccddeeff0123456789abcdef0123456789ABCDEF\n", "hex digits"},
    };
    struct files files;

    begin(&files);
    for (size_t i = 0; i < array_size(wrong); i++) {
        put(files.path, wrong[i].text, strlen(wrong[i].text), 0600);
        check_refused(files.path, ERR_DEFINITION, wrong[i].words, "minivmm key");
    }
    put(files.path, "0011223344556677\0" GOOD, 65, 0600);
    check_refused(files.path, ERR_DEFINITION, "hex digits", "minivmm key");
    end(&files);
}
END_TEST

START_TEST(what_is_no_file_is_refused_without_waiting)
{
    struct files files;

    begin(&files);
    check_refused(files.path, ERR_NOT_FOUND, "No such file", "minivmm key >");
    check_refused(files.folder, ERR_DEFINITION, "not a regular file", "minivmm key");
    ck_assert_int_eq(mkfifo(files.path, 0600), 0);
    check_refused(files.path, ERR_DEFINITION, "not a regular file", "minivmm key");
    check_refused("/dev/null", ERR_DEFINITION, "not a regular file", "minivmm key");
    end(&files);
}
END_TEST

START_TEST(a_symbolic_link_is_judged_by_what_it_leads_to)
{
    char name[128];
    struct link_key key;
    struct files files;

    begin(&files);
    snprintf(name, sizeof(name), "%s/link", files.folder);
    ck_assert_int_eq(symlink("key", name), 0);
    put(files.path, GOOD "\n", 65, 0600);
    ck_assert_int_eq(link_key_read(&key, name, NULL), 0);
    ck_assert_int_eq(chmod(files.path, 0644), 0);
    check_refused(name, ERR_STATE, "by others", "chmod 600");
    ck_assert_int_eq(unlink(name), 0);
    end(&files);
}
END_TEST

START_TEST(a_file_of_another_user_is_refused)
{
    struct files files;

    if (geteuid() != 0)
        return; /* only root can make one */
    begin(&files);
    put(files.path, GOOD "\n", 65, 0600);
    ck_assert_int_eq(chown(files.path, 65534, 65534), 0);
    check_refused(files.path, ERR_STATE, "another user", "chown");
    end(&files);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("link_key");
    TCase *tcase = tcase_create("files");

    tcase_add_test(tcase, a_new_key_comes_back_from_its_file_and_is_like_no_other);
    tcase_add_test(tcase, digits_of_both_cases_are_read);
    tcase_add_test(tcase, a_file_that_others_may_read_or_write_is_refused);
    tcase_add_test(tcase, what_is_no_key_is_refused);
    tcase_add_test(tcase, what_is_no_file_is_refused_without_waiting);
    tcase_add_test(tcase, a_symbolic_link_is_judged_by_what_it_leads_to);
    tcase_add_test(tcase, a_file_of_another_user_is_refused);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void)
{
    return unit_main(make_suite());
}
