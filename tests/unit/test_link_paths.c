/* SPDX-License-Identifier: MIT */
/* A link over two paths, each through a relay that can be stopped or cut. */
#include "core/clock.h"
#include "tests/unit/link_rig.h"
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/un.h>

enum { MOST = 64, PATIENCE = 1500, BEAT = 50 }; /* sockets of a relay; of the link, ms */

/* --- relays ----------------------------------------------------------------------------------- */

/* One thread passes on what comes, in both directions. */
struct relay {
    struct thread thread;
    int listener, wake;
    struct sockaddr_in to;
    char address[80];
    int ends[MOST];                              /* neighbours belong together; -1: none */
    atomic_bool stuck[2], resets, refuses, over; /* stuck: there, and back */
    atomic_uint accepted;
    uint8_t session[16]; /* that was named last */
};

static void set(struct relay *relay, atomic_bool *flag, bool value)
{
    const uint64_t one = 1;
    atomic_store(flag, value);
    ck_assert_int_eq(write(relay->wake, &one, sizeof(one)), sizeof(one));
}

static void close_pair(struct relay *relay, unsigned at)
{
    const struct linger at_once = {.l_onoff = 1};
    at &= ~1u;
    for (unsigned i = at; i < at + 2; i++) {
        if (atomic_load(&relay->resets))
            setsockopt(relay->ends[i], SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
        close(relay->ends[i]);
        relay->ends[i] = -1;
    }
}

static void relay_accept(struct relay *relay)
{
    unsigned at = 0;
    while (at < MOST && relay->ends[at] >= 0)
        at += 2;
    int one = accept(relay->listener, NULL, NULL), other = socket(AF_INET, SOCK_STREAM, 0);
    bool good = one >= 0 && at < MOST && !atomic_load(&relay->refuses) &&
                connect(other, (struct sockaddr *)&relay->to, sizeof(relay->to)) == 0;
    if (!good) {
        close(one);
        close(other);
        return;
    }
    atomic_fetch_add(&relay->accepted, 1);
    relay->ends[at] = one;
    relay->ends[at + 1] = other;
}

static void relay_pass(struct relay *relay, unsigned at)
{
    static _Thread_local uint8_t bytes[1 << 16];
    ssize_t n = recv(relay->ends[at], bytes, sizeof(bytes), MSG_DONTWAIT);
    if (n == 32 && memcmp(bytes, "minivmm", 8) == 0 && bytes[11] == LINK_ANOTHER)
        memcpy(relay->session, bytes + 16, sizeof(relay->session));
    if (n > 0 && send(relay->ends[at ^ 1], bytes, (size_t)n, MSG_NOSIGNAL) == n)
        return;
    if (n >= 0 || errno != EAGAIN)
        close_pair(relay, at);
}

static void run_relay(void *arg)
{
    struct relay *relay = arg;
    while (!atomic_load(&relay->over)) {
        struct pollfd polled[MOST + 2] = {{.fd = relay->wake, .events = POLLIN},
                                          {.fd = relay->listener, .events = POLLIN}};
        uint64_t count;
        for (unsigned i = 0; i < MOST; i++)
            polled[i + 2] = (struct pollfd){
                .fd = atomic_load(&relay->stuck[i & 1]) ? -1 : relay->ends[i], .events = POLLIN};
        if (poll(polled, MOST + 2, -1) < 0)
            continue;
        if (polled[0].revents && read(relay->wake, &count, sizeof(count)) < 0)
            break;
        for (unsigned i = 0; i < MOST; i++)
            if (relay->ends[i] >= 0 && atomic_load(&relay->resets))
                close_pair(relay, i);
            else if (relay->ends[i] >= 0 && polled[i + 2].revents)
                relay_pass(relay, i);
        if (polled[1].revents)
            relay_accept(relay);
    }
    for (unsigned i = 0; i < MOST; i++)
        if (relay->ends[i] >= 0)
            close_pair(relay, i);
}

static void relay_start(struct relay *relay, unsigned port)
{
    *relay = (struct relay){.to = {.sin_family = AF_INET,
                                   .sin_port = htons((uint16_t)port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}};
    for (unsigned i = 0; i < MOST; i++)
        relay->ends[i] = -1;
    relay->wake = eventfd(0, 0);
    ck_assert_int_eq(link_listen(&relay->listener, "127.0.0.1:0", NULL), 0);
    snprintf(relay->address, sizeof(relay->address), "127.0.0.1:%u", port_of(relay->listener));
    ck_assert_int_eq(thread_start(&relay->thread, "relay", run_relay, relay, NULL), 0);
}

static void relay_end(struct relay *relay)
{
    set(relay, &relay->over, true);
    thread_join(&relay->thread);
    close(relay->listener);
    close(relay->wake);
}

static void stick(struct relay *relay, bool stuck)
{
    set(relay, &relay->stuck[0], stuck);
    set(relay, &relay->stuck[1], stuck);
}

/* --- both sides ------------------------------------------------------------------------------- */

struct world {
    struct relay relay[2];
    struct link *near, *far;
    struct thread accepter;
    int listener;
    struct link_config config;
    atomic_bool over;
    pthread_mutex_t lock; /* far, and the news of near */
    pthread_cond_t changed;
};

/* A standby: takes what comes. */
static void run_accepter(void *arg)
{
    struct world *world = arg;
    for (;;) {
        struct link *link;
        int fd = accept(world->listener, NULL, NULL);
        if (atomic_load(&world->over) || fd < 0) {
            if (fd >= 0)
                close(fd);
            return;
        }
        int ret = link_accept(&link, fd, &world->config, NULL);
        pthread_mutex_lock(&world->lock);
        if (ret == 0 && !world->far)
            world->far = link;
        else if (ret == 0)
            link_destroy(link);
        pthread_cond_broadcast(&world->changed);
        pthread_mutex_unlock(&world->lock);
    }
}

static void handle_change(void *ctx)
{
    struct world *world = ctx;
    pthread_mutex_lock(&world->lock);
    pthread_cond_broadcast(&world->changed);
    pthread_mutex_unlock(&world->lock);
}

static int connect_both(struct world *world, struct err *err)
{
    const struct link_times times = {.beat_ms = BEAT, .patience_ms = PATIENCE};
    char addresses[200];
    snprintf(addresses, sizeof(addresses), "%s,%s", world->relay[0].address,
             world->relay[1].address);
    return link_connect_paths(&world->near, addresses, &times, &world->config, err);
}

static void world_start(struct world *world, const struct link_key *key)
{
    *world = (struct world){.config = {.key = key, .timeout_ms = PATIENCE_MS}};
    pthread_mutex_init(&world->lock, NULL);
    pthread_cond_init(&world->changed, NULL);
    ck_assert_int_eq(link_listen(&world->listener, "127.0.0.1:0", NULL), 0);
    for (int i = 0; i < 2; i++)
        relay_start(&world->relay[i], port_of(world->listener));
    ck_assert_int_eq(thread_start(&world->accepter, "standby", run_accepter, world, NULL), 0);
}

static void world_connect(struct world *world, const struct link_key *key)
{
    struct err err = {0};
    world_start(world, key);
    int ret = connect_both(world, &err);
    ck_assert_msg(ret == 0, "%s", err.text);
    link_watch(world->near, handle_change, world);
    pthread_mutex_lock(&world->lock);
    while (!world->far)
        pthread_cond_wait(&world->changed, &world->lock);
    pthread_mutex_unlock(&world->lock);
    link_watch(world->far, handle_change, world);
}

static void world_end(struct world *world)
{
    link_destroy(world->near);
    link_destroy(world->far);
    atomic_store(&world->over, true);
    shutdown(world->listener, SHUT_RDWR);
    thread_join(&world->accepter);
    for (int i = 0; i < 2; i++)
        relay_end(&world->relay[i]);
    close(world->listener);
}

static void wait_a_little(struct world *world)
{
    const struct timespec at = clock_timespec(clock_monotonic_ns() + 20000000);
    pthread_mutex_lock(&world->lock);
    (void)pthread_cond_clockwait(&world->changed, &world->lock, CLOCK_MONOTONIC, &at);
    pthread_mutex_unlock(&world->lock);
}

/* Until it is so, which is told. */
static void wait_for(struct world *world, struct link *link, int active, bool alive0, bool alive1)
{
    struct link_news news;
    uint64_t end = clock_monotonic_ns() + PATIENCE_MS * 1000000ull;
    for (;;) {
        link_look(link, &news);
        if (news.active == active && news.path[0].alive == alive0 && news.path[1].alive == alive1)
            return;
        ck_assert_msg(clock_monotonic_ns() < end, "active %d, alive %d %d", news.active,
                      news.path[0].alive, news.path[1].alive);
        wait_a_little(world);
    }
}

/* Which one is active then; a busy host may have moved it by itself. */
static int wait_for_both(struct world *world, struct link *link, uint64_t *ret_moves)
{
    struct link_news news;
    for (;;) {
        link_look(link, &news);
        ck_assert_int_ge(news.active, 0);
        if (news.path[0].alive && news.path[1].alive)
            break;
        wait_a_little(world);
    }
    *ret_moves = news.moves;
    return news.active;
}

static void wait_for_move(struct world *world, uint64_t before)
{
    struct link_news news;
    do {
        wait_a_little(world);
        link_look(world->near, &news);
        ck_assert_int_ge(news.active, 0);
    } while (news.moves == before);
}

/* A word there, and one back. */
static void talk(struct world *world, uint32_t word)
{
    stream_put_u32(link_writer(world->near), word);
    ck_assert_int_eq(stream_flush(link_writer(world->near)), 0);
    ck_assert_uint_eq(stream_get_u32(link_reader(world->far)), word);
    stream_put_u32(link_writer(world->far), ~word);
    ck_assert_int_eq(stream_flush(link_writer(world->far)), 0);
    ck_assert_uint_eq(stream_get_u32(link_reader(world->near)), ~word);
}

/* A peer that is as fast as we are: who does not read on would still find something, and never the
 * end. */
static atomic_bool endless;

int shutdown(int fd, int how)
{
    return how == SHUT_RD && atomic_load(&endless) ? 0 : (int)syscall(SYS_shutdown, fd, how);
}

static const struct link_key *const both_kinds[] = {NULL, &right_key};

START_TEST(words_go_on_whichever_path_is_cut)
{
    struct world world;
    world_connect(&world, both_kinds[_i]);
    wait_for(&world, world.near, 0, true, true);
    for (uint32_t i = 0; i < 200; i++)
        talk(&world, i);
    stick(&world.relay[0], true);
    talk(&world, 1000); /* as long as it takes */
    wait_for(&world, world.near, 1, false, true);
    stick(&world.relay[0], false);
    wait_for(&world, world.near, 1, true, true);
    set(&world.relay[1], &world.relay[1].stuck[1], true); /* one direction */
    talk(&world, 1001);
    wait_for(&world, world.near, 0, true, false);
    set(&world.relay[1], &world.relay[1].stuck[1], false);
    wait_for(&world, world.near, 0, true, true);
    set(&world.relay[0], &world.relay[0].resets, true);
    wait_for(&world, world.near, 1, false, true);
    talk(&world, 1002);
    set(&world.relay[0], &world.relay[0].resets, false);
    wait_for(&world, world.near, 1, true, true);
    wait_for(&world, world.far, 1, true, true);
    talk(&world, 1003);
    world_end(&world);
}
END_TEST

struct flow {
    struct thread thread;
    struct stream *stream;
    uint64_t total;
    bool sending, differs;
};

enum { PIECE = 50000 };

static void run_flow(void *arg)
{
    struct flow *flow = arg;
    uint8_t *bytes = malloc(PIECE);
    uint64_t seed = 7;
    for (uint64_t at = 0; at < flow->total && stream_error(flow->stream) == 0; at += PIECE) {
        if (!flow->sending)
            stream_read(flow->stream, bytes, PIECE);
        for (unsigned i = 0; i < PIECE; i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            if (flow->sending)
                bytes[i] = (uint8_t)(seed >> 56);
            else
                flow->differs |= bytes[i] != (uint8_t)(seed >> 56);
        }
        if (flow->sending)
            stream_write(flow->stream, bytes, PIECE);
    }
    if (flow->sending)
        (void)!stream_flush(flow->stream);
    free(bytes);
}

START_TEST(a_flood_in_both_directions_is_whole_while_paths_come_and_go)
{
    enum { TOTAL = 400 * PIECE };
    struct world world;
    world_connect(&world, both_kinds[_i]);
    struct flow flows[] = {
        {.stream = link_writer(world.near), .total = TOTAL, .sending = true},
        {.stream = link_reader(world.far), .total = TOTAL},
        {.stream = link_writer(world.far), .total = TOTAL, .sending = true},
        {.stream = link_reader(world.near), .total = TOTAL},
    };
    for (size_t i = 0; i < array_size(flows); i++)
        ck_assert_int_eq(thread_start(&flows[i].thread, "flow", run_flow, &flows[i], NULL), 0);
    for (int i = 0; i < 4; i++) {
        uint64_t moves;
        struct relay *relay = &world.relay[wait_for_both(&world, world.near, &moves)];
        if (i % 2 == 0)
            stick(relay, true);
        else
            set(relay, &relay->resets, true);
        wait_for_move(&world, moves);
        stick(relay, false);
        set(relay, &relay->resets, false);
    }
    for (size_t i = 0; i < array_size(flows); i++) {
        thread_join(&flows[i].thread);
        ck_assert_int_eq(stream_error(flows[i].stream), 0);
        ck_assert(!flows[i].differs);
    }
    world_end(&world);
}
END_TEST

START_TEST(one_address_is_enough_to_begin_with)
{
    struct world world;
    struct err err = {0};
    world_start(&world, &right_key);
    atomic_store(&world.relay[_i].refuses, true);
    ck_assert_int_eq(connect_both(&world, &err), 0);
    link_watch(world.near, handle_change, &world);
    wait_for(&world, world.near, !_i, _i == 1, _i == 0);
    pthread_mutex_lock(&world.lock);
    while (!world.far)
        pthread_cond_wait(&world.changed, &world.lock);
    pthread_mutex_unlock(&world.lock);
    talk(&world, 1);
    atomic_store(&world.relay[_i].refuses, false);
    wait_for(&world, world.near, !_i, true, true);
    talk(&world, 2);
    world_end(&world);
}
END_TEST

START_TEST(the_end_is_told_as_what_it_is)
{
    struct world world;
    world_connect(&world, both_kinds[_i]);
    stream_put_u32(link_writer(world.near), 4711);
    ck_assert_int_eq(stream_flush(link_writer(world.near)), 0);
    link_destroy(world.near);
    world.near = NULL;
    ck_assert_uint_eq(stream_get_u32(link_reader(world.far)), 4711);
    (void)stream_get_u8(link_reader(world.far));
    ck_assert_int_eq(stream_error(link_reader(world.far)), -ENODATA);
    world_end(&world);

    world_connect(&world, both_kinds[_i]);
    talk(&world, 1);
    for (int i = 0; i < 2; i++)
        set(&world.relay[i], &world.relay[i].resets, true);
    (void)stream_get_u8(link_reader(world.far));
    ck_assert_int_lt(stream_error(link_reader(world.far)), 0);
    ck_assert_int_ne(stream_error(link_reader(world.far)), -ENODATA);
    (void)stream_get_u8(link_reader(world.near));
    ck_assert_int_lt(stream_error(link_reader(world.near)), 0);
    world_end(&world);
}
END_TEST

static void run_reader(void *arg)
{
    (void)stream_get_u8(arg);
}

START_TEST(whoever_waits_is_woken_by_a_break_or_the_time)
{
    struct world world;
    struct thread thread;
    world_connect(&world, &right_key);
    stream_put_u32(link_writer(world.far), 1); /* what is there already counts no more */
    ck_assert_int_eq(stream_flush(link_writer(world.far)), 0);
    struct stream *reader = link_reader(world.near);
    ck_assert_uint_eq(stream_get_u32(reader), 1);
    ck_assert_int_eq(thread_start(&thread, "reader", run_reader, reader, NULL), 0);
    link_break(world.near);
    thread_join(&thread);
    ck_assert_int_eq(stream_error(reader), -ECONNABORTED);
    world_end(&world);

    world_connect(&world, NULL);
    link_set_timeout(world.near, 50);
    (void)stream_get_u8(link_reader(world.near));
    ck_assert_int_eq(stream_error(link_reader(world.near)), -ETIMEDOUT);
    static uint8_t much[1 << 20];
    for (int i = 0; i < 100; i++) /* nobody reads */
        stream_write(link_writer(world.near), much, sizeof(much));
    ck_assert_int_eq(stream_error(link_writer(world.near)), -ETIMEDOUT);
    world_end(&world);
}
END_TEST

START_TEST(who_goes_on_sending_holds_up_no_end)
{
    struct world world;
    world_connect(&world, both_kinds[_i]);
    atomic_store(&endless, true);
    uint64_t began = clock_monotonic_ns();
    link_destroy(world.near);
    ck_assert_uint_lt(clock_monotonic_ns() - began, 20 * NS_PER_SEC);
    world.near = NULL;
    atomic_store(&endless, false);
    world_end(&world);
}
END_TEST

/* --- strangers -------------------------------------------------------------------------------- */

/* Says that it is another path of a session. */
static int knock(struct world *world, const char *session)
{
    struct sockaddr_in to = world->relay[0].to;
    uint8_t said[32] = {'m', 'i', 'n', 'i', 'v', 'm', 'm', 0, 1, 1, world->config.key ? 2 : 1, 2};
    memcpy(said + 16, session, 16);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    ck_assert_int_eq(send(fd, said, sizeof(said), 0), sizeof(said));
    return fd;
}

static void hears_the_end(int fd)
{
    uint8_t bytes[4096];
    ssize_t n;
    do
        n = recv(fd, bytes, sizeof(bytes), 0);
    while (n > 0);
    close(fd);
}

START_TEST(a_stranger_gets_nothing_and_disturbs_nobody)
{
    struct world world;
    char session[16];
    world_connect(&world, both_kinds[_i]);
    wait_for(&world, world.far, 0, true, true);
    const unsigned made[] = {atomic_load(&world.relay[0].accepted),
                             atomic_load(&world.relay[1].accepted)};
    hears_the_end(knock(&world, "who knows which."));
    pthread_mutex_lock(&world.lock); /* on the way it can be heard */
    memcpy(session, world.relay[1].session, sizeof(session));
    pthread_mutex_unlock(&world.lock);
    int fd = knock(&world, session);
    static const uint8_t wrong[8192];
    (void)!send(fd, wrong, sizeof(wrong), MSG_NOSIGNAL);
    hears_the_end(fd);
    talk(&world, 1);
    uint64_t moves;
    (void)wait_for_both(&world, world.far, &moves);
    for (int i = 0; i < 2; i++) /* none had to be made anew */
        ck_assert_uint_eq(atomic_load(&world.relay[i].accepted), made[i]);
    world_end(&world);
}
END_TEST

/* Both ends of a connection. */
static void connect_ends(int ret_ends[2])
{
    struct side side;
    side_listen(&side, "127.0.0.1", NULL);
    ret_ends[0] = connect_raw(&side);
    ret_ends[1] = accept_one(side.listener);
    ck_assert_int_ge(ret_ends[1], 0);
    close(side.listener);
}

static int dial_door(const char session[16])
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int length = snprintf(name.sun_path + 1, sizeof(name.sun_path) - 1, "minivmm-path-");
    for (int i = 0; i < 16; i++)
        length += snprintf(name.sun_path + 1 + length, 3, "%02x", (uint8_t)session[i]);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1) + (socklen_t)length;
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&name, size), 0);
    return fd;
}

static void pass_on(int door, int fd, const uint8_t greeting[16])
{
    union {
        struct cmsghdr head;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {.head = {.cmsg_len = CMSG_LEN(sizeof(int)),
                          .cmsg_level = SOL_SOCKET,
                          .cmsg_type = SCM_RIGHTS}};
    struct iovec iov = {.iov_base = (void *)(uintptr_t)greeting, .iov_len = 16};
    const struct msghdr message = {.msg_iov = &iov,
                                   .msg_iovlen = 1,
                                   .msg_control = &control,
                                   .msg_controllen = sizeof(control)};
    memcpy(CMSG_DATA(&control.head), &fd, sizeof(fd));
    ck_assert_int_eq(sendmsg(door, &message, MSG_NOSIGNAL), 16);
}

/* On a busy host long after it has connected. */
START_TEST(a_socket_is_waited_for_that_is_passed_on_late)
{
    static const uint8_t greeting[16] = {'m', 'i', 'n', 'i', 'v', 'm', 'm', 0, 1, 1, 1, 2};
    struct world world;
    char session[16];
    uint8_t answer[16];
    int ends[2];
    world_connect(&world, NULL);
    wait_for(&world, world.far, 0, true, true);
    memcpy(session, world.relay[1].session, sizeof(session));
    connect_ends(ends);
    int door = dial_door(session);
    for (int i = 0; i < 5; i++)
        wait_a_little(&world);
    pass_on(door, ends[1], greeting);
    close(ends[1]);
    close(door);
    ck_assert_int_eq(recv(ends[0], answer, sizeof(answer), MSG_WAITALL), sizeof(answer));
    ck_assert_mem_eq(answer, greeting, 8);
    close(ends[0]);
    world_end(&world);
}
END_TEST

START_TEST(who_reads_and_waits_is_seen)
{
    struct world world;
    world_connect(&world, both_kinds[_i]);
    wait_for(&world, world.near, 0, true, true);
    expect_that_waiting_is_told(world.near, world.far);
    expect_that_waiting_is_told(world.far, world.near);
    world_end(&world);
}
END_TEST

START_TEST(addresses_are_one_or_two)
{
    struct err err = {0};
    ck_assert_int_eq(link_check_addresses("hostB", &err), 0);
    ck_assert_int_eq(link_check_addresses("hostB:1,10.0.0.1", &err), 0);
    ck_assert_int_lt(link_check_addresses("hostB,hostB", &err), 0);
    ck_assert_int_lt(link_check_addresses("hostB,", &err), 0);
    ck_assert_int_lt(link_check_addresses(",hostB", &err), 0);
    ck_assert_int_lt(link_check_addresses("a,b,c", &err), 0);
    ck_assert_int_lt(link_check_addresses("", &err), 0);
}
END_TEST

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    Suite *suite = suite_create("link_paths");
    TCase *tcase = tcase_create("all");
    tcase_set_timeout(tcase, 60);
    tcase_add_loop_test(tcase, words_go_on_whichever_path_is_cut, 0, 2);
    tcase_add_loop_test(tcase, a_flood_in_both_directions_is_whole_while_paths_come_and_go, 0, 2);
    tcase_add_loop_test(tcase, one_address_is_enough_to_begin_with, 0, 2);
    tcase_add_loop_test(tcase, the_end_is_told_as_what_it_is, 0, 2);
    tcase_add_test(tcase, whoever_waits_is_woken_by_a_break_or_the_time);
    tcase_add_loop_test(tcase, who_goes_on_sending_holds_up_no_end, 0, 2);
    tcase_add_loop_test(tcase, a_stranger_gets_nothing_and_disturbs_nobody, 0, 2);
    tcase_add_test(tcase, a_socket_is_waited_for_that_is_passed_on_late);
    tcase_add_loop_test(tcase, who_reads_and_waits_is_seen, 0, 2);
    tcase_add_test(tcase, addresses_are_one_or_two);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
