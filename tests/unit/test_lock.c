/* SPDX-License-Identifier: MIT */
#include "host/lock.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char path[] = "/tmp/minivmm-lock-XXXXXX";
static int one, other; /* the same file, opened twice: as by two processes */

static void set_up(void)
{
    snprintf(path, sizeof(path), "/tmp/minivmm-lock-XXXXXX");
    one = mkstemp(path);
    other = open(path, O_RDWR | O_CLOEXEC);
    ck_assert(one >= 0 && other >= 0);
}

static void tear_down(void)
{
    close(one);
    close(other);
    unlink(path);
}

START_TEST(one_writes_or_many_read)
{
    ck_assert_int_eq(lock_try(one, false), 0);
    ck_assert(lock_is_held(other));
    ck_assert_int_eq(lock_try(other, false), -EAGAIN);
    ck_assert_int_eq(lock_try(other, true), -EAGAIN);
    ck_assert_int_eq(lock_try(one, true), 0);
    ck_assert_int_eq(lock_try(other, true), 0);
    ck_assert_int_eq(lock_try(one, false), -EAGAIN);
}
END_TEST

START_TEST(a_mark_is_seen_by_others_where_it_is_and_nowhere_else)
{
    static const uint64_t places[] = {0, 1, 12345, UINT64_C(1) << 60, (UINT64_C(1) << 61) - 1};
    int reader = open(path, O_RDONLY | O_CLOEXEC);
    for (size_t i = 0; i < array_size(places); i++) {
        int marker = open(path, O_RDONLY | O_CLOEXEC);
        ck_assert(!lock_has_mark(reader, places[i]));
        ck_assert_int_eq(lock_mark(marker, places[i]), 0);
        ck_assert(lock_has_mark(reader, places[i]) && lock_has_mark(other, places[i]));
        ck_assert(!lock_has_mark(reader, places[i] ^ 1) && !lock_has_mark(reader, places[i] ^ 64));
        ck_assert(!lock_has_mark(marker, places[i])); /* its own */
        close(marker);
        ck_assert(!lock_has_mark(reader, places[i]));
    }
    close(reader);
}
END_TEST

START_TEST(marks_and_locks_do_not_meet)
{
    int reader = open(path, O_RDONLY | O_CLOEXEC), marker = open(path, O_RDONLY | O_CLOEXEC);
    ck_assert_int_eq(lock_mark(marker, 7), 0);
    ck_assert(!lock_is_held(reader));
    ck_assert_int_eq(lock_try(one, false), 0);
    ck_assert(lock_has_mark(reader, 7) && !lock_has_mark(reader, 100));
    ck_assert_int_eq(lock_mark(other, 9), 0);
    ck_assert(lock_has_mark(reader, 7) && lock_has_mark(reader, 9));
    close(marker);
    ck_assert(lock_is_held(reader));
    close(reader);
}
END_TEST

START_TEST(a_lock_on_everything_is_no_mark)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    ck_assert_int_eq(fcntl(one, F_OFD_SETLK, &whole), 0);
    ck_assert(lock_is_held(other));
    ck_assert(!lock_has_mark(other, 7));
}
END_TEST

START_TEST(what_is_let_go_is_free_though_the_file_stays_open)
{
    int holds = dup(one);
    ck_assert_int_eq(lock_try(one, false), 0);
    lock_let_go(one);
    close(one);
    ck_assert(!lock_is_held(other));
    ck_assert_int_eq(lock_try(other, false), 0);
    one = holds;
}
END_TEST

static Suite *suite(void)
{
    Suite *suite = suite_create("lock");
    TCase *tcase = tcase_create("lock");
    tcase_add_checked_fixture(tcase, set_up, tear_down);
    tcase_add_test(tcase, one_writes_or_many_read);
    tcase_add_test(tcase, a_mark_is_seen_by_others_where_it_is_and_nowhere_else);
    tcase_add_test(tcase, marks_and_locks_do_not_meet);
    tcase_add_test(tcase, a_lock_on_everything_is_no_mark);
    tcase_add_test(tcase, what_is_let_go_is_free_though_the_file_stays_open);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void)
{
    return unit_main(suite());
}
