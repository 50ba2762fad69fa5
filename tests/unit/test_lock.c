/* SPDX-License-Identifier: MIT */
#include "core/clock.h"
#include "host/lock.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
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

/* What is on its way through a socket is open, and nobody has it. */
static int hide(int fd)
{
    int ends[2];
    char byte = 0, space[CMSG_SPACE(sizeof(fd))] = {0};
    struct iovec bytes = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {
        .msg_iov = &bytes, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof(space)};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    *head = (struct cmsghdr){
        .cmsg_len = CMSG_LEN(sizeof(fd)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(head), &fd, sizeof(fd));
    ck_assert_int_eq(sendmsg(ends[0], &message, 0), 1);
    close(ends[0]);
    close(fd);
    return ends[1];
}

static void *outlast(void *arg)
{
    *(int *)arg = lock_outlast(other, false);
    return NULL;
}

START_TEST(what_a_process_left_behind_is_waited_for)
{
    pthread_t thread;
    int result = 1;

    ck_assert_int_eq(lock_try(one, false), 0);
    int hidden = hide(one);
    ck_assert_int_eq(lock_holder(other), 0);
    ck_assert_int_eq(pthread_create(&thread, NULL, outlast, &result), 0);
    poll(NULL, 0, 100); /* who does not wait has failed by now */
    close(hidden);
    pthread_join(thread, NULL);
    ck_assert_int_eq(result, 0);
    one = dup(other);
}
END_TEST

START_TEST(who_is_there_is_not_waited_for_and_nobody_for_ever)
{
    uint64_t begin = clock_monotonic_ns();
    ck_assert_int_eq(lock_try(one, false), 0);
    ck_assert_int_eq(lock_outlast(other, false), -EAGAIN);
    ck_assert_uint_lt(clock_monotonic_ns() - begin, 2 * NS_PER_SEC);
    int hidden = hide(one);
    ck_assert_int_eq(lock_outlast(other, false), -EAGAIN);
    close(hidden);
    one = dup(other);
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
    tcase_add_test(tcase, what_a_process_left_behind_is_waited_for);
    tcase_add_test(tcase, who_is_there_is_not_waited_for_and_nobody_for_ever);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void)
{
    return unit_main(suite());
}
