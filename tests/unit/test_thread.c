/* SPDX-License-Identifier: MIT */
#include "core/thread.h"
#include "tests/unit/unit.h"
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

/* What a thread saw of itself. */
struct seen {
    struct thread thread;
    char name[16];
    sigset_t mask, pending;
    bool ran;
    int go[2], done[2]; /* pipes: the thread waits for one, and tells through the other */
    ssize_t got;
    int error, cpu;
};

static void open_pipes(struct seen *seen)
{
    ck_assert_int_eq(pipe(seen->go), 0);
    ck_assert_int_eq(pipe(seen->done), 0);
}

static void tell(const int fds[2])
{
    ck_assert_int_eq(write(fds[1], "", 1), 1);
}

static void wait_for(const int fds[2])
{
    char byte;
    ck_assert_int_eq(read(fds[0], &byte, 1), 1);
}

static void look_around(void *arg)
{
    struct seen *seen = arg;

    pthread_getname_np(pthread_self(), seen->name, sizeof(seen->name));
    pthread_sigmask(SIG_SETMASK, NULL, &seen->mask);
    seen->ran = true;
}

/* It has its name when thread_start has returned, which it may be quicker than. */
static void look_around_when_told(void *arg)
{
    struct seen *seen = arg;

    wait_for(seen->go);
    look_around(arg);
}

START_TEST(a_thread_runs_under_its_name_with_all_signals_blocked)
{
    struct seen seen = {0};
    sigset_t before, after;

    open_pipes(&seen);

    pthread_sigmask(SIG_SETMASK, NULL, &before);
    ck_assert_int_eq(thread_start(&seen.thread, "a name that is far too long",
                                  look_around_when_told, &seen, NULL),
                     0);
    tell(seen.go);
    thread_join(&seen.thread);
    ck_assert(seen.ran);
    ck_assert_str_eq(seen.name, "a name that is ");
    const int signals[] = {SIGINT, SIGTERM, SIGCHLD, SIGPIPE, SIGALRM, thread_kick_signal()};
    for (size_t i = 0; i < array_size(signals); i++)
        ck_assert_msg(sigismember(&seen.mask, signals[i]), "signal %d is open", signals[i]);

    pthread_sigmask(SIG_SETMASK, NULL, &after); /* the starter's own mask is as it was */
    for (int signal = 1; signal < SIGRTMAX; signal++)
        ck_assert_int_eq(sigismember(&before, signal), sigismember(&after, signal));
}
END_TEST

START_TEST(join_of_what_never_started_does_nothing)
{
    struct seen seen = {0};

    thread_join(&seen.thread);
    thread_kick(&seen.thread);
    ck_assert_int_eq(thread_start(&seen.thread, "x", look_around, &seen, NULL), 0);
    thread_join(&seen.thread);
    thread_join(&seen.thread);
    thread_kick(&seen.thread);
    ck_assert(seen.ran);
}
END_TEST

START_TEST(a_thread_struct_serves_again)
{
    struct seen seen = {0};

    for (unsigned i = 0; i < 3; i++) {
        seen.ran = false;
        ck_assert_int_eq(thread_start(&seen.thread, "again", look_around, &seen, NULL), 0);
        thread_join(&seen.thread);
        ck_assert(seen.ran);
    }
}
END_TEST

/* Onto the last CPU that it may use, which is not the starter's where there are several. */
static void move_when_told(void *arg)
{
    struct seen *seen = arg;
    cpu_set_t cpus;
    int last = -1;

    sched_getaffinity(0, sizeof(cpus), &cpus);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &cpus))
            last = cpu;
    CPU_ZERO(&cpus);
    CPU_SET(last, &cpus);
    seen->error = sched_setaffinity(0, sizeof(cpus), &cpus);
    seen->cpu = last;
    tell(seen->done);
    wait_for(seen->go);
}

START_TEST(it_is_known_where_a_thread_is)
{
    struct seen seen = {0};

    open_pipes(&seen);
    ck_assert_int_lt(thread_cpu(&seen.thread), 0); /* never started */
    ck_assert_int_eq(thread_start(&seen.thread, "moves", move_when_told, &seen, NULL), 0);
    wait_for(seen.done);
    ck_assert_int_eq(seen.error, 0);
    ck_assert_int_eq(thread_cpu(&seen.thread), seen.cpu);
    tell(seen.go);
    thread_join(&seen.thread);
    ck_assert_int_lt(thread_cpu(&seen.thread), 0); /* it has ended */
}
END_TEST

static void block_until_kicked(void *arg)
{
    struct seen *seen = arg;
    char byte;

    thread_allow_kick();
    seen->got = read(seen->go[0], &byte, 1); /* nobody writes */
    seen->error = errno;
    tell(seen->done);
}

START_TEST(a_kick_interrupts_a_blocking_call)
{
    struct seen seen = {0};

    open_pipes(&seen);
    ck_assert_int_eq(thread_install_kick_handler(NULL), 0);
    ck_assert_int_eq(thread_start(&seen.thread, "blocked", block_until_kicked, &seen, NULL), 0);
    struct pollfd done = {.fd = seen.done[0], .events = POLLIN};
    do /* a kick before the read begins is lost: the kicker's business, here and in the VMM */
        thread_kick(&seen.thread);
    while (poll(&done, 1, 1) == 0);
    thread_join(&seen.thread);
    ck_assert_int_eq(seen.got, -1);
    ck_assert_int_eq(seen.error, EINTR);
}
END_TEST

static void wait_and_look(void *arg)
{
    struct seen *seen = arg;

    wait_for(seen->go);
    sigpending(&seen->pending);
}

START_TEST(a_kick_waits_for_a_thread_that_has_not_allowed_it)
{
    struct seen seen = {0};

    open_pipes(&seen);
    ck_assert_int_eq(thread_install_kick_handler(NULL), 0);
    ck_assert_int_eq(thread_start(&seen.thread, "deaf", wait_and_look, &seen, NULL), 0);
    thread_kick(&seen.thread);
    tell(seen.go);
    thread_join(&seen.thread);
    ck_assert(sigismember(&seen.pending, thread_kick_signal()));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("thread");
    TCase *all = tcase_create("all");

    tcase_add_test(all, a_thread_runs_under_its_name_with_all_signals_blocked);
    tcase_add_test(all, join_of_what_never_started_does_nothing);
    tcase_add_test(all, it_is_known_where_a_thread_is);
    tcase_add_test(all, a_thread_struct_serves_again);
    tcase_add_test(all, a_kick_interrupts_a_blocking_call);
    tcase_add_test(all, a_kick_waits_for_a_thread_that_has_not_allowed_it);
    suite_add_tcase(suite, all);
    return unit_main(suite);
}
