/* SPDX-License-Identifier: MIT */
#include "core/clock.h"
#include "core/log.h"
#include "core/thread.h"
#include "tests/unit/unit.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Each test forks: its stderr becomes a socket on which one write is one message. */
static int capture_stderr(void)
{
    int fds[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
    ck_assert_int_eq(dup2(fds[1], STDERR_FILENO), STDERR_FILENO);
    close(fds[1]);
    return fds[0];
}

static void expect_line(int fd, const char *line)
{
    char got[2048] = "";

    ck_assert_int_gt(recv(fd, got, sizeof(got) - 1, MSG_DONTWAIT), 0);
    ck_assert_str_eq(got, line);
}

static void expect_silence(int fd)
{
    char got;

    ck_assert_int_eq(recv(fd, &got, 1, MSG_DONTWAIT), -1);
    ck_assert_int_eq(errno, EAGAIN);
}

START_TEST(one_call_is_one_write_with_the_level_in_words)
{
    int fd = capture_stderr();

    log_set_level(LOG_TRACE);
    log_error("web%d is gone", 1);
    log_warning("slow");
    log_info("web1 runs");
    log_debug("d");
    log_trace("t");
    expect_line(fd, "minivmm: error: web1 is gone\n");
    expect_line(fd, "minivmm: warning: slow\n");
    expect_line(fd, "minivmm: web1 runs\n");
    expect_line(fd, "minivmm: debug: d\n");
    expect_line(fd, "minivmm: trace: t\n");
    expect_silence(fd);
}
END_TEST

START_TEST(levels_below_the_chosen_one_are_silent)
{
    int fd = capture_stderr();

    ck_assert(log_enabled(LOG_INFO)); /* the level that nobody chose */
    ck_assert(!log_enabled(LOG_DEBUG));
    log_debug("nobody asked");
    log_set_level(LOG_ERROR);
    log_warning("nobody asked");
    expect_silence(fd);
    ck_assert(log_enabled(LOG_ERROR));
    log_error("all the same");
    expect_line(fd, "minivmm: error: all the same\n");
}
END_TEST

START_TEST(a_hint_has_a_line_of_its_own)
{
    int fd = capture_stderr();
    struct err err = {.text = "cannot open /dev/kvm", .hint = "add yourself to group kvm"};

    log_err(LOG_ERROR, &err);
    expect_line(fd, "minivmm: error: cannot open /dev/kvm\nhint: add yourself to group kvm\n");
    err.hint[0] = '\0';
    log_err(LOG_WARNING, &err);
    expect_line(fd, "minivmm: warning: cannot open /dev/kvm\n");
}
END_TEST

START_TEST(an_endless_line_is_cut_and_still_a_line)
{
    int fd = capture_stderr();
    char words[5001], got[8192];

    memset(words, 'x', 5000);
    words[5000] = '\0';
    log_error("%s", words);
    ssize_t n = recv(fd, got, sizeof(got), MSG_DONTWAIT);
    ck_assert_int_ge(n, 512);
    ck_assert_int_le(n, 1024);
    ck_assert_int_eq(got[n - 1], '\n');
    ck_assert_int_eq(got[n - 2], 'x');
    expect_silence(fd);
}
END_TEST

enum { WRITERS = 4, LINES = 25 };

static void write_lines(void *arg)
{
    const char *word = arg;

    for (unsigned i = 0; i < LINES; i++)
        log_info("%s %s %s", word, word, word);
}

START_TEST(lines_of_several_threads_do_not_mix)
{
    static char words[WRITERS][8] = {"one", "two", "three", "four"};
    struct thread threads[WRITERS] = {0};
    unsigned seen[WRITERS] = {0};
    int fd = capture_stderr();

    for (unsigned i = 0; i < WRITERS; i++)
        ck_assert_int_eq(thread_start(&threads[i], words[i], write_lines, words[i], NULL), 0);
    for (unsigned i = 0; i < WRITERS * LINES; i++) {
        char got[128] = "", expected[128];
        ck_assert_int_gt(recv(fd, got, sizeof(got) - 1, 0), 0);
        for (unsigned j = 0; j < WRITERS; j++) {
            snprintf(expected, sizeof(expected), "minivmm: %s %s %s\n", words[j], words[j],
                     words[j]);
            seen[j] += strcmp(got, expected) == 0;
        }
    }
    for (unsigned i = 0; i < WRITERS; i++) {
        thread_join(&threads[i]);
        ck_assert_uint_eq(seen[i], LINES);
    }
}
END_TEST

START_TEST(a_limit_lets_its_burst_through_and_counts_the_rest)
{
    struct log_limit limit = {.burst = 3};
    uint64_t swallowed = 99;

    for (unsigned i = 0; i < 3; i++) {
        ck_assert(log_limit_pass(&limit, &swallowed));
        ck_assert_uint_eq(swallowed, 0);
    }
    swallowed = 99;
    for (unsigned i = 0; i < 10; i++)
        ck_assert(!log_limit_pass(&limit, &swallowed));
    ck_assert_uint_eq(swallowed, 99); /* untouched where nothing may be said */
}
END_TEST

START_TEST(after_the_burst_one_line_passes_each_second)
{
    struct log_limit limit = {.burst = 1};
    uint64_t swallowed, before = clock_monotonic_ns();

    ck_assert(log_limit_pass(&limit, &swallowed));
    for (unsigned i = 0; i < 5; i++)
        ck_assert(!log_limit_pass(&limit, &swallowed));
    ck_assert_uint_ge(limit.next_ns, before + NS_PER_SEC);
    limit.next_ns = before; /* as if the second were over */
    ck_assert(log_limit_pass(&limit, &swallowed));
    ck_assert_uint_eq(swallowed, 5);
    ck_assert(!log_limit_pass(&limit, &swallowed));
    limit.next_ns = before;
    ck_assert(log_limit_pass(&limit, &swallowed));
    ck_assert_uint_eq(swallowed, 1);
}
END_TEST

struct hasty {
    struct thread thread;
    struct log_limit *limit;
    unsigned passed;
};

static void ask_often(void *arg)
{
    struct hasty *hasty = arg;
    uint64_t swallowed;

    for (unsigned i = 0; i < 1000; i++)
        hasty->passed += log_limit_pass(hasty->limit, &swallowed);
}

START_TEST(a_limit_holds_for_all_threads_together)
{
    struct log_limit limit = {.burst = 7};
    struct hasty hasty[4] = {0};
    unsigned passed = 0;

    /* As if all had spoken a moment ago; else a slow machine would let one more through. */
    limit.next_ns = clock_monotonic_ns() + 1000 * NS_PER_SEC;
    for (unsigned i = 0; i < array_size(hasty); i++) {
        hasty[i].limit = &limit;
        ck_assert_int_eq(thread_start(&hasty[i].thread, "hasty", ask_often, &hasty[i], NULL), 0);
    }
    for (unsigned i = 0; i < array_size(hasty); i++) {
        thread_join(&hasty[i].thread);
        passed += hasty[i].passed;
    }
    ck_assert_uint_eq(passed, 7);
    ck_assert_uint_eq(limit.swallowed, 4 * 1000 - 7);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("log");
    TCase *lines = tcase_create("lines");
    TCase *limits = tcase_create("limits");

    tcase_add_test(lines, one_call_is_one_write_with_the_level_in_words);
    tcase_add_test(lines, levels_below_the_chosen_one_are_silent);
    tcase_add_test(lines, a_hint_has_a_line_of_its_own);
    tcase_add_test(lines, an_endless_line_is_cut_and_still_a_line);
    tcase_add_test(lines, lines_of_several_threads_do_not_mix);
    suite_add_tcase(suite, lines);
    tcase_add_test(limits, a_limit_lets_its_burst_through_and_counts_the_rest);
    tcase_add_test(limits, after_the_burst_one_line_passes_each_second);
    tcase_add_test(limits, a_limit_holds_for_all_threads_together);
    suite_add_tcase(suite, limits);
    return unit_main(suite);
}
