/* SPDX-License-Identifier: MIT */
/*
 * Limits of network interfaces, by the real clock: never too fast; how slow depends on the machine.
 * The inner interface is one that always has frames and room, and says so as long as it is watched.
 */
#include "core/clock.h"
#include "core/thread.h"
#include "host/netif.h"
#include "tests/unit/unit.h"
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { QUEUES = 2, FRAME = NETIF_HEADER + 1000, MS = 1000000 };

struct bench {
    struct loop *loop;
    struct netif inner;
    const struct netif_handlers *inner_handlers;
    struct loop_call tell;
    unsigned inner_watched[QUEUES];
    bool full; /* the inner interface */
    bool destroyed;

    struct netif *netif;
    struct netif_handlers handlers;
    unsigned sent[QUEUES], received[QUEUES];
    unsigned wanted_sent, wanted_received; /* of queue 0: the loop stops then; 0: never */
    uint64_t first_ns, last_ns;
    unsigned links, troubles;
    struct loop_timer end;
    struct thread thread;
};

static struct bench one, other;

/* --- the inner interface -------------------------------------------------------------------- */

static struct bench *bench_of(struct netif *inner)
{
    return container_of(inner, struct bench, inner);
}

static void handle_tell(void *arg)
{
    struct bench *bench = arg;

    for (unsigned queue = 0; queue < QUEUES; queue++)
        if (bench->inner_handlers && bench->inner_watched[queue])
            bench->inner_handlers->ready(bench->inner_handlers->ctx, queue,
                                         bench->inner_watched[queue]);
    for (unsigned queue = 0; queue < QUEUES; queue++)
        if (bench->inner_watched[queue])
            loop_post(bench->loop, &bench->tell);
}

static int inner_attach(struct netif *netif, struct loop *loop,
                        const struct netif_handlers *handlers, struct err *err)
{
    bench_of(netif)->inner_handlers = handlers;
    netif->info.link_up = true;
    return 0;
}

static void inner_detach(struct netif *netif)
{
    bench_of(netif)->inner_handlers = NULL;
}

static ssize_t inner_send(struct netif *netif, unsigned queue, const struct iovec *iov,
                          unsigned count)
{
    return bench_of(netif)->full ? -EAGAIN : (ssize_t)iov->iov_len;
}

static void inner_watch(struct netif *netif, unsigned queue, unsigned what)
{
    struct bench *bench = bench_of(netif);

    bench->inner_watched[queue] = what;
    if (what)
        loop_post(bench->loop, &bench->tell);
}

static int inner_configure(struct netif *netif, unsigned queues, unsigned offloads)
{
    return queues == QUEUES && offloads == NETIF_CSUM ? 0 : -EINVAL;
}

static void inner_destroy(struct netif *netif)
{
    bench_of(netif)->destroyed = true;
}

static const struct netif_ops inner_ops = {.name = "endless",
                                           .attach = inner_attach,
                                           .detach = inner_detach,
                                           .send = inner_send,
                                           .receive = inner_send,
                                           .watch = inner_watch,
                                           .configure = inner_configure,
                                           .destroy = inner_destroy};

/* --- the client ----------------------------------------------------------------------------- */

static ssize_t pass(struct bench *bench, unsigned queue, bool send)
{
    static uint8_t bytes[FRAME];
    const struct iovec iov = {.iov_base = bytes, .iov_len = sizeof(bytes)};
    ssize_t n = send ? bench->netif->ops->send(bench->netif, queue, &iov, 1)
                     : bench->netif->ops->receive(bench->netif, queue, &iov, 1);

    if (n >= 0) {
        ck_assert_int_eq(n, FRAME);
        (send ? bench->sent : bench->received)[queue]++;
    } else {
        ck_assert_int_eq(n, -EAGAIN);
    }
    return n;
}

/* A turn of a device: some frames of what is ready. */
static void handle_ready(void *ctx, unsigned queue, unsigned what)
{
    enum { A_TURN = 4 };
    struct bench *bench = ctx;

    for (unsigned i = 0; i < A_TURN && (what & NETIF_WRITABLE); i++)
        if (pass(bench, queue, true) < 0)
            break;
    for (unsigned i = 0; i < A_TURN && (what & NETIF_READABLE); i++)
        if (pass(bench, queue, false) < 0)
            break;
    if (queue == 0 && ((bench->wanted_sent && bench->sent[0] >= bench->wanted_sent) ||
                       (bench->wanted_received && bench->received[0] >= bench->wanted_received)))
        loop_stop(bench->loop);
}

static void handle_link(void *ctx, bool up)
{
    struct bench *bench = ctx;
    bench->links++;
    ck_assert_int_eq(bench->netif->info.link_up, up);
}

static void handle_trouble(void *ctx, const char *sentence)
{
    struct bench *bench = ctx;
    bench->troubles += strcmp(sentence, "trouble") == 0;
}

static void make(struct bench *bench, struct limits limits, struct shared_limits *shared)
{
    *bench = (struct bench){
        .inner = {.ops = &inner_ops, .info = {.max_queues = QUEUES, .offloads = NETIF_CSUM}}};
    bench->tell = (struct loop_call){.handle = handle_tell, .arg = bench};
    bench->handlers = (struct netif_handlers){.ready = handle_ready,
                                              .link_changed = handle_link,
                                              .trouble = handle_trouble,
                                              .ctx = bench};
    ck_assert_int_eq(loop_create(&bench->loop, NULL), 0);
    ck_assert_int_eq(netif_limit_create(&bench->netif, &bench->inner, &limits, shared, NULL), 0);
    ck_assert_int_eq(bench->netif->ops->attach(bench->netif, bench->loop, &bench->handlers, NULL),
                     0);
    ck_assert(bench->netif->info.link_up);
    ck_assert_uint_eq(bench->netif->info.max_queues, QUEUES);
}

static void watch(struct bench *bench, unsigned queue, unsigned what)
{
    bench->netif->ops->watch(bench->netif, queue, what);
}

static void handle_end(void *arg)
{
    loop_stop(((struct bench *)arg)->loop);
}

/* Runs for so long, or until what is wanted has passed. How long it was. */
static uint64_t run(struct bench *bench, uint64_t ms)
{
    uint64_t before = clock_monotonic_ns();

    loop_timer_init(&bench->end, bench->loop, handle_end, bench);
    ck_assert_int_eq(loop_timer_arm(&bench->end, before + ms * MS), 0);
    ck_assert_int_eq(loop_run(bench->loop), 0);
    loop_timer_cancel(&bench->end);
    return clock_monotonic_ns() - before;
}

static void end(struct bench *bench)
{
    for (unsigned queue = 0; queue < QUEUES; queue++)
        watch(bench, queue, 0);
    run(bench, 1); /* what is posted has run */
    bench->netif->ops->detach(bench->netif);
    ck_assert_ptr_null(bench->inner_handlers);
    netif_destroy(bench->netif);
    ck_assert(bench->destroyed);
    loop_destroy(bench->loop);
}

/* --- tests ---------------------------------------------------------------------------------- */

/* The burst: a second's worth, one that makes a debt, and what became due meanwhile. When it
 * began. */
static uint64_t pass_burst(struct bench *bench, bool send, unsigned rate)
{
    const unsigned *count = send ? bench->sent : bench->received;
    uint64_t begin = clock_monotonic_ns();

    while (pass(bench, 0, send) >= 0)
        ck_assert_uint_le(*count,
                          rate + 1 + clock_scale(rate, clock_monotonic_ns() - begin, NS_PER_SEC));
    ck_assert_uint_ge(*count, rate);
    return begin;
}

START_TEST(frames_keep_to_their_limit)
{
    const bool send = _i;

    make(&one, (struct limits){.operations = 200}, NULL);
    uint64_t begin = pass_burst(&one, send, 200);
    *(send ? &one.wanted_sent : &one.wanted_received) = 240;
    watch(&one, 0, send ? NETIF_WRITABLE : NETIF_READABLE);
    ck_assert_uint_eq(one.inner_watched[0], 0); /* or it would call us all the time */
    run(&one, 20000);
    ck_assert_uint_ge(clock_monotonic_ns() - begin, (240 - 201) * NS_PER_SEC / 200);
    ck_assert_uint_ge(*(send ? one.sent : one.received), 240);
    end(&one);
}
END_TEST

START_TEST(bytes_keep_to_their_limit)
{
    make(&one, (struct limits){.bytes = 100 * 1000}, NULL);
    pass_burst(&one, _i, 100);
    end(&one);
}
END_TEST

START_TEST(each_direction_has_the_whole_limit)
{
    make(&one, (struct limits){.operations = 100}, NULL);
    pass_burst(&one, true, 100);
    pass_burst(&one, false, 100);
    /* And the one that may not pass does not keep the other from being told. */
    watch(&one, 0, NETIF_READABLE | NETIF_WRITABLE);
    ck_assert_uint_eq(one.inner_watched[0], 0);
    one.wanted_received = one.received[0] + 1;
    ck_assert_uint_lt(run(&one, 10000), 9000ull * MS);
    end(&one);
}
END_TEST

START_TEST(without_a_limit_nothing_is_in_the_way)
{
    make(&one, (struct limits){0}, NULL);
    for (unsigned i = 0; i < 100000; i++)
        ck_assert_int_eq(pass(&one, i % QUEUES, i % 3), FRAME);
    watch(&one, 1, NETIF_READABLE);
    ck_assert_uint_eq(one.inner_watched[1], NETIF_READABLE);
    watch(&one, 1, NETIF_READABLE | NETIF_WRITABLE);
    ck_assert_uint_eq(one.inner_watched[1], NETIF_READABLE | NETIF_WRITABLE);
    ck_assert_int_eq(one.netif->ops->configure(one.netif, QUEUES, NETIF_CSUM), 0);
    ck_assert_int_eq(one.netif->ops->configure(one.netif, 1, 0), -EINVAL);
    end(&one);
}
END_TEST

START_TEST(a_full_interface_costs_nothing)
{
    make(&one, (struct limits){.operations = 100}, NULL);
    one.full = true;
    for (unsigned i = 0; i < 1000; i++)
        ck_assert_int_eq(pass(&one, 0, true), -EAGAIN);
    watch(&one, 0, NETIF_WRITABLE);
    ck_assert_uint_eq(one.inner_watched[0],
                      NETIF_WRITABLE); /* it is the inner that is waited for */
    one.full = false;
    ck_assert_int_eq(pass(&one, 0, true), FRAME);
    while (pass(&one, 0, true) >= 0)
        continue;
    ck_assert_uint_ge(one.sent[0], 100);
    end(&one);
}
END_TEST

START_TEST(queues_have_their_turns)
{
    make(&one, (struct limits){.operations = 500}, NULL);
    uint64_t begin = pass_burst(&one, true, 500);
    one.sent[0] = one.sent[1] = 0;
    watch(&one, 0, NETIF_WRITABLE);
    watch(&one, 1, NETIF_WRITABLE);
    run(&one, 600);
    uint64_t ns = clock_monotonic_ns() - begin;
    unsigned sum = one.sent[0] + one.sent[1];
    ck_assert_uint_le(sum, clock_scale(500, ns, NS_PER_SEC) + 10);
    ck_assert_uint_ge(sum, 50);
    ck_assert_uint_ge(one.sent[0], sum / 4);
    ck_assert_uint_ge(one.sent[1], sum / 4);
    end(&one);
}
END_TEST

START_TEST(a_new_limit_is_in_force_at_once)
{
    make(&one, (struct limits){0}, NULL);
    for (unsigned i = 0; i < 10000; i++)
        ck_assert_int_eq(pass(&one, 0, true), FRAME);
    uint64_t begin = clock_monotonic_ns();
    ck_assert_int_eq(netif_set_limits(one.netif, &(struct limits){.operations = 10}), 0);
    one.sent[0] = 0;
    while (pass(&one, 0, true) >= 0)
        ck_assert_uint_le(one.sent[0],
                          5 + clock_scale(10, clock_monotonic_ns() - begin, NS_PER_SEC));
    end(&one);
}
END_TEST

struct change {
    struct netif *netif;
    struct limits limits;
};

static void handle_change(void *arg)
{
    const struct change *change = arg;
    struct timespec time = {.tv_nsec = 20 * MS};

    nanosleep(&time, NULL); /* the loop sleeps; were it not, this would do as well */
    ck_assert_int_eq(netif_set_limits(change->netif, &change->limits), 0);
}

/* Somebody waits for a turn that is a thousand seconds away. */
START_TEST(who_waits_hears_of_a_new_limit)
{
    static const struct limits limits[] = {{.operations = 0}, {.operations = 1000000}};
    struct thread thread = {0};

    make(&one, (struct limits){.bytes = 1}, NULL);
    struct change change = {.netif = one.netif, .limits = limits[_i]};
    while (pass(&one, 0, true) >= 0)
        continue;
    watch(&one, 0, NETIF_WRITABLE);
    one.wanted_sent = one.sent[0] + 1;
    ck_assert_int_eq(thread_start(&thread, "change", handle_change, &change, NULL), 0);
    ck_assert_uint_lt(run(&one, 10000), 9000ull * MS);
    thread_join(&thread);
    end(&one);
}
END_TEST

START_TEST(only_a_limiter_takes_new_limits)
{
    struct netif inner = {.ops = &inner_ops};
    ck_assert_int_eq(netif_set_limits(&inner, &(struct limits){0}), -ENOTSUP);
}
END_TEST

START_TEST(what_else_is_said_passes)
{
    make(&one, (struct limits){.operations = 1}, NULL);
    one.inner.info.link_up = false;
    one.inner_handlers->link_changed(one.inner_handlers->ctx, false);
    one.inner_handlers->trouble(one.inner_handlers->ctx, "trouble");
    ck_assert_uint_eq(one.links, 1);
    ck_assert_uint_eq(one.troubles, 1);
    end(&one);
}
END_TEST

START_TEST(a_second_life_begins_unwatched)
{
    make(&one, (struct limits){.operations = 1}, NULL);
    while (pass(&one, 0, true) >= 0)
        continue;
    watch(&one, 0, NETIF_WRITABLE);
    one.netif->ops->detach(one.netif);
    ck_assert_int_eq(one.netif->ops->attach(one.netif, one.loop, &one.handlers, NULL), 0);
    watch(&one, 0, NETIF_READABLE);
    ck_assert_uint_eq(one.inner_watched[0], NETIF_READABLE);
    end(&one);
}
END_TEST

/* --- several interfaces --------------------------------------------------------------------- */

static void handle_thread(void *arg)
{
    struct bench *bench = arg;
    int r = loop_run(bench->loop);
    (void)r;
}

static void start(struct bench *bench)
{
    watch(bench, 0, NETIF_WRITABLE);
    ck_assert_int_eq(thread_start(&bench->thread, "net", handle_thread, bench, NULL), 0);
}

static void stop(struct bench *bench)
{
    loop_stop(bench->loop);
    thread_join(&bench->thread);
}

static void sleep_ms(uint64_t ms)
{
    struct timespec time = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * MS};
    nanosleep(&time, NULL);
}

START_TEST(two_share_a_limit_and_neither_starves)
{
    struct shared_limits *shared;
    struct limits limits = {.operations = 1000};

    ck_assert_int_eq(shared_limits_create(&shared, &limits, NULL), 0);
    make(&one, (struct limits){0}, shared);
    make(&other, (struct limits){0}, shared);
    uint64_t begin = pass_burst(&one, true, 1000);
    one.sent[0] = 0;
    start(&one);
    start(&other);
    sleep_ms(1000);
    stop(&one);
    stop(&other);
    uint64_t ns = clock_monotonic_ns() - begin;
    unsigned sum = one.sent[0] + other.sent[0];
    ck_assert_uint_le(sum, clock_scale(1000, ns, NS_PER_SEC) + 10);
    ck_assert_uint_ge(sum, 200);
    ck_assert_uint_ge(one.sent[0], sum / 4);
    ck_assert_uint_ge(other.sent[0], sum / 4);
    end(&one);
    end(&other);
    shared_limits_destroy(shared);
}
END_TEST

/* The narrower one counts, and the other is not used up by who waits for it. */
START_TEST(a_limit_of_ones_own_within_a_shared_one)
{
    struct shared_limits *shared;
    struct limits limits = {.operations = 1000};

    ck_assert_int_eq(shared_limits_create(&shared, &limits, NULL), 0);
    make(&one, (struct limits){.operations = 50}, shared);
    make(&other, (struct limits){0}, shared);
    pass_burst(&one, true, 50);
    while (pass(&other, 0, true) >= 0)
        continue;
    ck_assert_uint_ge(other.sent[0], 900);
    end(&one);
    end(&other);
    shared_limits_destroy(shared);
}
END_TEST

static void sends_on(struct bench *bench)
{
    bench->wanted_sent = bench->sent[0] + 1;
    watch(bench, 0, NETIF_WRITABLE);
    run(bench, 30000);
    ck_assert_uint_ge(bench->sent[0], bench->wanted_sent);
}

/* Each change may come between any two steps of who waits: none gets lost. */
START_TEST(changes_at_any_moment_lose_nobody)
{
    static const struct limits none = {0}, narrow = {.operations = 1};
    struct shared_limits *shared;

    ck_assert_int_eq(shared_limits_create(&shared, &narrow, NULL), 0);
    make(&one, narrow, shared);
    make(&other, (struct limits){0}, shared);
    start(&one);
    start(&other);
    for (unsigned i = 0; i < 200; i++) {
        shared_limits_set(shared, i % 2 ? &none : &narrow);
        ck_assert_int_eq(netif_set_limits(one.netif, i % 3 ? &none : &narrow), 0);
        if (i % 5 == 0)
            sleep_ms(1);
    }
    stop(&one);
    stop(&other);
    shared_limits_set(shared, &narrow);
    start(&one);
    start(&other);
    sleep_ms(20);
    shared_limits_set(shared, &none);
    ck_assert_int_eq(netif_set_limits(one.netif, &none), 0);
    sleep_ms(50);
    stop(&one);
    stop(&other);
    sends_on(&one);
    sends_on(&other);
    end(&one);
    end(&other);
    shared_limits_destroy(shared);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("netif_limit");
    TCase *tests = tcase_create("limits");

    tcase_set_timeout(tests, 60);
    tcase_add_loop_test(tests, frames_keep_to_their_limit, 0, 2);
    tcase_add_loop_test(tests, bytes_keep_to_their_limit, 0, 2);
    tcase_add_test(tests, each_direction_has_the_whole_limit);
    tcase_add_test(tests, without_a_limit_nothing_is_in_the_way);
    tcase_add_test(tests, a_full_interface_costs_nothing);
    tcase_add_test(tests, queues_have_their_turns);
    tcase_add_test(tests, a_new_limit_is_in_force_at_once);
    tcase_add_loop_test(tests, who_waits_hears_of_a_new_limit, 0, 2);
    tcase_add_test(tests, only_a_limiter_takes_new_limits);
    tcase_add_test(tests, what_else_is_said_passes);
    tcase_add_test(tests, a_second_life_begins_unwatched);
    tcase_add_test(tests, two_share_a_limit_and_neither_starves);
    tcase_add_test(tests, a_limit_of_ones_own_within_a_shared_one);
    tcase_add_test(tests, changes_at_any_moment_lose_nobody);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
