/* SPDX-License-Identifier: MIT */
#include "core/clock.h"
#include "core/loop.h"
#include "core/thread.h"
#include "tests/unit/unit.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

/* A loop, and what its handlers note down. */
struct bench {
    struct loop *loop;
    unsigned calls;
    unsigned order[8];
};

static struct bench make_bench(void)
{
    struct bench bench = {0};
    ck_assert_int_eq(loop_create(&bench.loop, NULL), 0);
    return bench;
}

static void handle_stop(void *arg)
{
    struct bench *bench = arg;
    loop_stop(bench->loop);
}

static void run_until(struct bench *bench, uint64_t deadline_ns)
{
    struct loop_timer stop;

    loop_timer_init(&stop, bench->loop, handle_stop, bench);
    ck_assert_int_eq(loop_timer_arm(&stop, deadline_ns), 0);
    ck_assert_int_eq(loop_run(bench->loop), 0);
}

/* Long enough for what must not happen; what must happen is waited for in a loop of moments. */
static void run_a_moment(struct bench *bench)
{
    run_until(bench, clock_monotonic_ns() + 2000000);
}

START_TEST(a_stop_before_the_run_ends_it_at_once)
{
    struct bench bench = make_bench();

    loop_stop(bench.loop);
    ck_assert_int_eq(loop_run(bench.loop), 0);
    loop_stop(bench.loop); /* and a second run likewise */
    ck_assert_int_eq(loop_run(bench.loop), 0);
    loop_destroy(bench.loop);
    loop_destroy(NULL);
}
END_TEST

/* Descriptors */

struct watch {
    struct bench *bench;
    struct loop_io io;
    int fds[2];
    unsigned events; /* of the last call */
    unsigned calls;
    struct watch *victim; /* removed and freed by the handler */
};

static void handle_watch(void *arg, unsigned events)
{
    struct watch *watch = arg;
    char byte;

    watch->events = events;
    watch->calls++;
    if (events & LOOP_READ)
        ck_assert_int_ge(read(watch->io.fd, &byte, 1), 0);
    if (watch->victim) {
        loop_io_remove(watch->bench->loop, &watch->victim->io);
        free(watch->victim);
        watch->victim = NULL;
    }
    loop_stop(watch->bench->loop);
}

static void watch_pipe(struct watch *watch, struct bench *bench, int end, unsigned events)
{
    *watch = (struct watch){.bench = bench};
    ck_assert_int_eq(pipe2(watch->fds, O_CLOEXEC), 0);
    watch->io = (struct loop_io){
        .fd = watch->fds[end], .events = events, .handle = handle_watch, .arg = watch};
    ck_assert_int_eq(loop_io_add(bench->loop, &watch->io, NULL), 0);
}

static void tell(struct watch *watch)
{
    ck_assert_int_eq(write(watch->fds[1], "", 1), 1);
}

START_TEST(a_descriptor_is_reported_when_it_is_ready)
{
    struct bench bench = make_bench();
    struct watch in, out;

    watch_pipe(&in, &bench, 0, LOOP_READ);
    run_a_moment(&bench);
    ck_assert_uint_eq(in.calls, 0);
    tell(&in);
    ck_assert_int_eq(loop_run(bench.loop), 0);
    ck_assert_uint_eq(in.calls, 1);
    ck_assert_uint_eq(in.events, LOOP_READ);

    watch_pipe(&out, &bench, 1, LOOP_WRITE);
    ck_assert_int_eq(loop_run(bench.loop), 0);
    ck_assert_uint_eq(out.events, LOOP_WRITE);

    loop_io_remove(bench.loop, &in.io);
    loop_io_remove(bench.loop, &out.io);
    tell(&in);
    run_a_moment(&bench);
    ck_assert_uint_eq(in.calls, 1);
    ck_assert_uint_eq(out.calls, 1);
    loop_destroy(bench.loop);
}
END_TEST

START_TEST(a_hangup_is_always_reported_but_not_to_a_rest)
{
    struct bench bench = make_bench();
    struct watch in;

    watch_pipe(&in, &bench, 0, LOOP_READ);
    close(in.fds[1]);
    ck_assert_int_eq(loop_run(bench.loop), 0);
    ck_assert(in.events & LOOP_HANGUP);

    unsigned calls = in.calls;
    loop_io_watch(bench.loop, &in.io, 0);
    run_a_moment(&bench);
    ck_assert_uint_eq(in.calls, calls);
    loop_io_watch(bench.loop, &in.io, LOOP_READ);
    ck_assert_int_eq(loop_run(bench.loop), 0);
    ck_assert_uint_eq(in.calls, calls + 1);
    loop_io_remove(bench.loop, &in.io);
    loop_destroy(bench.loop);
}
END_TEST

START_TEST(a_descriptor_may_begin_at_rest)
{
    struct bench bench = make_bench();
    struct watch in;

    watch_pipe(&in, &bench, 0, 0);
    tell(&in);
    run_a_moment(&bench);
    ck_assert_uint_eq(in.calls, 0);
    loop_io_watch(bench.loop, &in.io, LOOP_READ);
    ck_assert_int_eq(loop_run(bench.loop), 0);
    ck_assert_uint_eq(in.calls, 1);
    loop_io_remove(bench.loop, &in.io);
    loop_destroy(bench.loop);
}
END_TEST

START_TEST(a_handler_may_remove_another_descriptor_that_is_ready)
{
    for (unsigned first = 0; first < 2; first++) { /* whichever the kernel reports first */
        struct bench bench = make_bench();
        struct watch *a = malloc(sizeof(*a)), *b = malloc(sizeof(*b));
        watch_pipe(a, &bench, 0, LOOP_READ);
        watch_pipe(b, &bench, 0, LOOP_READ);
        struct watch *killer = first ? a : b;
        killer->victim = first ? b : a;
        loop_io_watch(bench.loop, &killer->victim->io, 0);
        tell(a);
        tell(b);
        loop_io_watch(bench.loop, &killer->victim->io, LOOP_READ);
        while (killer->victim)
            ck_assert_int_eq(loop_run(bench.loop), 0);
        run_a_moment(&bench); /* ASan would see a call of the dead */
        loop_io_remove(bench.loop, &killer->io);
        free(killer);
        loop_destroy(bench.loop);
    }
}
END_TEST

static void handle_file(void *arg, unsigned events)
{
    struct watch *watch = arg;
    watch->events = events;
    if (++watch->calls == 3)
        loop_io_watch(watch->bench->loop, &watch->io, 0);
}

START_TEST(files_are_always_ready_and_each_has_its_turn)
{
    struct bench bench = make_bench();
    struct watch files[3] = {0};
    struct watch in;

    for (unsigned i = 0; i < 3; i++) {
        files[i].bench = &bench;
        files[i].io = (struct loop_io){.fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC),
                                       .events = LOOP_READ,
                                       .handle = handle_file,
                                       .arg = &files[i]};
        ck_assert_int_eq(loop_io_add(bench.loop, &files[i].io, NULL), 0);
    }
    files[1].calls = 1000; /* this one never rests */
    watch_pipe(&in, &bench, 0, LOOP_READ);
    while (files[0].calls < 3 || files[1].calls < 1010 || files[2].calls < 3)
        run_a_moment(&bench);
    run_a_moment(&bench);
    ck_assert_uint_eq(files[0].calls, 3);
    ck_assert_uint_eq(files[2].calls, 3);
    ck_assert_uint_eq(files[0].events, LOOP_READ);
    tell(&in); /* which is not forgotten over the files */
    ck_assert_int_eq(loop_run(bench.loop), 0);
    ck_assert_uint_eq(in.calls, 1);

    unsigned calls = files[1].calls;
    for (unsigned i = 0; i < 3; i++) {
        loop_io_remove(bench.loop, &files[i].io);
        close(files[i].io.fd);
    }
    loop_io_remove(bench.loop, &in.io);
    run_a_moment(&bench);
    ck_assert_uint_eq(files[1].calls, calls);
    loop_destroy(bench.loop);
}
END_TEST

START_TEST(a_closed_descriptor_is_refused)
{
    struct bench bench = make_bench();
    struct loop_io io = {.fd = -1, .events = LOOP_READ};
    struct err err;

    ck_assert_int_eq(loop_io_add(bench.loop, &io, &err), -EBADF);
    ck_assert_str_eq(err.text, "cannot watch descriptor -1: Bad file descriptor");
    loop_destroy(bench.loop);
}
END_TEST

/* Timers */

struct alarm {
    struct loop_timer timer;
    struct bench *bench;
    unsigned id;
    uint64_t fired_ns;
};

static void handle_alarm(void *arg)
{
    struct alarm *alarm = arg;
    alarm->fired_ns = clock_monotonic_ns();
    alarm->bench->order[alarm->bench->calls++ % 8] = alarm->id;
}

static void init_alarm(struct alarm *alarm, struct bench *bench, unsigned id)
{
    *alarm = (struct alarm){.bench = bench, .id = id};
    loop_timer_init(&alarm->timer, bench->loop, handle_alarm, alarm);
}

START_TEST(timers_fire_in_the_order_of_their_deadlines_and_not_before)
{
    struct bench bench = make_bench();
    uint64_t now = clock_monotonic_ns();
    const uint64_t deadlines[] = {now + 3000000, now + 1000000, 0, now + 2000000};
    static const unsigned expected[] = {2, 1, 3, 0};
    struct alarm alarms[4];

    for (unsigned i = 0; i < 4; i++) {
        init_alarm(&alarms[i], &bench, i);
        ck_assert_int_eq(loop_timer_arm(&alarms[i].timer, deadlines[i]), 0);
    }
    run_until(&bench, now + 4000000);
    ck_assert_uint_eq(bench.calls, 4);
    ck_assert_mem_eq(bench.order, expected, sizeof(expected));
    for (unsigned i = 0; i < 4; i++)
        ck_assert_uint_ge(alarms[i].fired_ns, deadlines[i]);
    loop_destroy(bench.loop);
}
END_TEST

START_TEST(an_armed_timer_moves_and_a_cancelled_one_is_silent)
{
    struct bench bench = make_bench();
    uint64_t now = clock_monotonic_ns();
    struct alarm earlier, later, cancelled;

    init_alarm(&earlier, &bench, 0);
    init_alarm(&later, &bench, 1);
    init_alarm(&cancelled, &bench, 2);
    ck_assert_int_eq(loop_timer_arm(&later.timer, now), 0);
    ck_assert_int_eq(loop_timer_arm(&cancelled.timer, now), 0);
    ck_assert_int_eq(loop_timer_arm(&earlier.timer, now + 3600 * NS_PER_SEC), 0);
    ck_assert_int_eq(loop_timer_arm(&later.timer, now + 2000000), 0);
    ck_assert_int_eq(loop_timer_arm(&earlier.timer, now + 1000000), 0);
    loop_timer_cancel(&cancelled.timer);
    loop_timer_cancel(&cancelled.timer);
    run_until(&bench, now + 3000000);
    ck_assert_uint_eq(bench.calls, 2);
    ck_assert_uint_eq(bench.order[0], 0);
    ck_assert_uint_eq(bench.order[1], 1);
    run_a_moment(&bench); /* one-shot */
    ck_assert_uint_eq(bench.calls, 2);
    loop_destroy(bench.loop);
}
END_TEST

struct sequence {
    struct loop *loop;
    uint64_t last_deadline;
    unsigned fired;
};

struct member {
    struct loop_timer timer;
    struct sequence *sequence;
};

static void handle_member(void *arg)
{
    struct member *member = arg;
    struct sequence *sequence = member->sequence;

    if (member->timer.deadline_ns < sequence->last_deadline)
        ck_abort_msg("out of order");
    sequence->last_deadline = member->timer.deadline_ns;
    sequence->fired++;
}

START_TEST(a_thousand_timers_keep_their_order)
{
    enum { COUNT = 1000 };
    struct bench bench = make_bench();
    struct sequence sequence = {.loop = bench.loop};
    struct member *members = calloc(COUNT, sizeof(*members));
    uint64_t now = clock_monotonic_ns();
    uint32_t seed = 7;

    for (unsigned round = 0; round < 3; round++) /* armed, moved, moved again */
        for (unsigned i = 0; i < COUNT; i++) {
            if (round == 0)
                loop_timer_init(&members[i].timer, bench.loop, handle_member, &members[i]);
            members[i].sequence = &sequence;
            seed = seed * 1664525 + 1013904223;
            ck_assert_int_eq(loop_timer_arm(&members[i].timer, now + (seed >> 12)), 0);
        }
    for (unsigned i = 0; i < COUNT; i += 4)
        loop_timer_cancel(&members[i].timer);
    run_until(&bench, now + (1u << 20) + 1);
    ck_assert_uint_eq(sequence.fired, COUNT * 3 / 4);
    free(members);
    loop_destroy(bench.loop);
}
END_TEST

struct eager {
    struct loop_timer timer;
    struct loop_call call;
    struct loop *loop;
    unsigned calls;
};

static void handle_eager_timer(void *arg)
{
    struct eager *eager = arg;
    eager->calls++;
    ck_assert_int_eq(loop_timer_arm(&eager->timer, 0), 0);
}

START_TEST(a_timer_that_is_always_due_starves_nobody)
{
    struct bench bench = make_bench();
    struct eager eager = {0};
    struct watch in;

    loop_timer_init(&eager.timer, bench.loop, handle_eager_timer, &eager);
    ck_assert_int_eq(loop_timer_arm(&eager.timer, 0), 0);
    watch_pipe(&in, &bench, 0, LOOP_READ);
    tell(&in);
    ck_assert_int_eq(loop_run(bench.loop), 0);
    ck_assert_uint_eq(in.calls, 1);
    while (eager.calls < 100) { /* and goes on itself */
        tell(&in);
        ck_assert_int_eq(loop_run(bench.loop), 0);
    }
    loop_timer_cancel(&eager.timer);
    loop_io_remove(bench.loop, &in.io);
    loop_destroy(bench.loop);
}
END_TEST

static void handle_last_wish(void *arg)
{
    struct alarm *alarm = arg;
    loop_stop(alarm->bench->loop);
    free(alarm);
}

START_TEST(a_timer_may_be_freed_by_its_own_handler)
{
    struct bench bench = make_bench();
    struct alarm *alarm = calloc(1, sizeof(*alarm));

    alarm->bench = &bench;
    loop_timer_init(&alarm->timer, bench.loop, handle_last_wish, alarm);
    ck_assert_int_eq(loop_timer_arm(&alarm->timer, 0), 0);
    ck_assert_int_eq(loop_run(bench.loop), 0);
    loop_destroy(bench.loop);
}
END_TEST

/* Other threads */

struct runner {
    struct thread thread;
    struct loop *loop;
    int result;
};

static void run_loop(void *arg)
{
    struct runner *runner = arg;
    thread_allow_kick();
    runner->result = loop_run(runner->loop);
}

static void start_runner(struct runner *runner, struct bench *bench)
{
    *runner = (struct runner){.loop = bench->loop, .result = 1};
    ck_assert_int_eq(thread_start(&runner->thread, "loop", run_loop, runner, NULL), 0);
}

static void stop_runner(struct runner *runner)
{
    loop_stop(runner->loop);
    thread_join(&runner->thread);
    ck_assert_int_eq(runner->result, 0);
}

START_TEST(a_timer_armed_by_another_thread_wakes_the_loop)
{
    struct bench bench = make_bench();
    struct runner runner;
    struct loop_timer never, stop;

    loop_timer_init(&never, bench.loop, handle_stop, &bench);
    loop_timer_init(&stop, bench.loop, handle_stop, &bench);
    ck_assert_int_eq(loop_timer_arm(&never, clock_monotonic_ns() + 3600 * NS_PER_SEC), 0);
    start_runner(&runner, &bench);
    ck_assert_int_eq(loop_timer_arm(&stop, clock_monotonic_ns() + 1000000), 0);
    thread_join(&runner.thread); /* hangs if the loop does not wake */
    ck_assert_int_eq(runner.result, 0);
    loop_timer_cancel(&never);
    loop_destroy(bench.loop);
}
END_TEST

START_TEST(signals_do_not_end_a_run)
{
    struct bench bench = make_bench();
    struct runner runner;

    ck_assert_int_eq(thread_install_kick_handler(NULL), 0);
    start_runner(&runner, &bench);
    for (unsigned i = 0; i < 1000; i++)
        thread_kick(&runner.thread);
    stop_runner(&runner);
    loop_destroy(bench.loop);
}
END_TEST

struct note {
    struct loop_call call;
    struct bench *bench;
    unsigned id;
};

static void handle_note(void *arg)
{
    struct note *note = arg;
    note->bench->order[note->bench->calls++ % 8] = note->id;
}

START_TEST(calls_run_once_and_in_their_order)
{
    struct bench bench = make_bench();
    struct note notes[8];

    for (unsigned i = 0; i < 8; i++) {
        notes[i] = (struct note){{.handle = handle_note, .arg = &notes[i]}, &bench, i};
        loop_post(bench.loop, &notes[i].call);
    }
    loop_post(bench.loop, &notes[3].call); /* waits already */
    while (bench.calls < 8)
        run_a_moment(&bench);
    run_a_moment(&bench);
    ck_assert_uint_eq(bench.calls, 8);
    for (unsigned i = 0; i < 8; i++)
        ck_assert_uint_eq(bench.order[i], i);
    loop_post(bench.loop, &notes[3].call); /* has run, and runs again */
    while (bench.calls < 9)
        run_a_moment(&bench);
    loop_destroy(bench.loop);
}
END_TEST

static void handle_eager_call(void *arg)
{
    struct eager *eager = arg;
    eager->calls++;
    loop_post(eager->loop, &eager->call);
}

START_TEST(a_call_that_posts_itself_starves_nobody)
{
    struct bench bench = make_bench();
    struct eager eager = {.loop = bench.loop};
    struct watch in;

    eager.call = (struct loop_call){.handle = handle_eager_call, .arg = &eager};
    loop_post(bench.loop, &eager.call);
    watch_pipe(&in, &bench, 0, LOOP_READ);
    while (eager.calls < 100) {
        tell(&in);
        ck_assert_int_eq(loop_run(bench.loop), 0);
    }
    ck_assert_uint_gt(in.calls, 0);
    loop_io_remove(bench.loop, &in.io);
    loop_destroy(bench.loop);
}
END_TEST

static void add_io_tests(TCase *io)
{
    tcase_add_test(io, a_stop_before_the_run_ends_it_at_once);
    tcase_add_test(io, a_descriptor_is_reported_when_it_is_ready);
    tcase_add_test(io, a_hangup_is_always_reported_but_not_to_a_rest);
    tcase_add_test(io, a_descriptor_may_begin_at_rest);
    tcase_add_test(io, a_handler_may_remove_another_descriptor_that_is_ready);
    tcase_add_test(io, files_are_always_ready_and_each_has_its_turn);
    tcase_add_test(io, a_closed_descriptor_is_refused);
}

static void add_timer_tests(TCase *timers)
{
    tcase_add_test(timers, timers_fire_in_the_order_of_their_deadlines_and_not_before);
    tcase_add_test(timers, an_armed_timer_moves_and_a_cancelled_one_is_silent);
    tcase_add_test(timers, a_thousand_timers_keep_their_order);
    tcase_add_test(timers, a_timer_that_is_always_due_starves_nobody);
    tcase_add_test(timers, a_timer_may_be_freed_by_its_own_handler);
}

static void add_thread_tests(TCase *threads)
{
    tcase_add_test(threads, a_timer_armed_by_another_thread_wakes_the_loop);
    tcase_add_test(threads, signals_do_not_end_a_run);
    tcase_add_test(threads, calls_run_once_and_in_their_order);
    tcase_add_test(threads, a_call_that_posts_itself_starves_nobody);
}

int main(void)
{
    Suite *suite = suite_create("loop");
    TCase *io = tcase_create("descriptors");
    TCase *timers = tcase_create("timers");
    TCase *threads = tcase_create("threads");

    add_io_tests(io);
    suite_add_tcase(suite, io);
    add_timer_tests(timers);
    suite_add_tcase(suite, timers);
    add_thread_tests(threads);
    suite_add_tcase(suite, threads);
    return unit_main(suite);
}
