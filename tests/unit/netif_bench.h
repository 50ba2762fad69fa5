/* SPDX-License-Identifier: MIT */
/* A network interface on a loop of its own, and a guest's eyes on it (netif_user, netif_passt). */
#pragma once

#include "core/clock.h"
#include "host/netif_child.h"
#include "tests/unit/tiny_net.h"
#include "tests/unit/unit.h"
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

struct netif_bench {
    struct loop *loop;
    struct netif *netif;
    struct netif_handlers handlers;
    unsigned link_ups, link_downs, troubles;
    char trouble[400];
    uint64_t down_ns, up_ns;

    /* What run_until waits for. */
    bool (*match)(struct netif_bench *bench, const uint8_t *frame, size_t length);
    bool (*over)(struct netif_bench *bench);
    bool done, expired;
    unsigned writables;
    struct loop_timer deadline, tick;
    struct tiny_net net; /* the guest */
    unsigned at_once;    /* frames taken in one call of ready */
    uint8_t found[NETIF_MAX_FRAME];
    size_t found_length;
    void *arg;
};

enum { BENCH_PATIENCE_S = 20 };

static inline void bench_send(struct netif_bench *bench, const void *frame, size_t length)
{
    uint8_t header[NETIF_HEADER] = {0};
    struct iovec iov[2] = {{header, sizeof(header)}, {(void *)(uintptr_t)frame, length}};
    for (;;) {
        ssize_t n = bench->netif->ops->send(bench->netif, 0, iov, 2);
        if (n != -EAGAIN)
            return;
        struct pollfd full = {.fd = container_of(bench->netif, struct netif_child, netif)->fd,
                              .events = POLLOUT};
        ck_assert_int_ge(poll(&full, 1, 1000), 0);
    }
}

static inline void bench_take(struct netif_bench *bench, const uint8_t *frame, size_t length)
{
    uint8_t reply[128];
    size_t reply_length = tiny_answer(&bench->net, frame, length, reply);
    if (reply_length)
        bench_send(bench, reply, reply_length);
    if (!bench->done && bench->match && bench->match(bench, frame, length)) {
        memcpy(bench->found, frame, length);
        bench->found_length = length;
        bench->done = true;
    }
}

static inline void bench_check(struct netif_bench *bench)
{
    if (bench->over && bench->over(bench))
        bench->done = true;
    if (bench->done)
        loop_stop(bench->loop);
}

static inline void bench_ready(void *ctx, unsigned queue, unsigned what)
{
    struct netif_bench *bench = ctx;
    uint8_t buffer[NETIF_MAX_FRAME];
    struct iovec iov = {buffer, sizeof(buffer)};
    ck_assert_uint_eq(queue, 0);
    bench->writables += (what & NETIF_WRITABLE) != 0;
    for (unsigned i = 0; i < bench->at_once; i++) {
        ssize_t n = bench->netif->ops->receive(bench->netif, 0, &iov, 1);
        if (n < 0)
            break;
        ck_assert_int_ge(n, NETIF_HEADER + 14);
        for (int at = 0; at < NETIF_HEADER; at++)
            ck_assert_uint_eq(buffer[at], 0);
        bench_take(bench, buffer + NETIF_HEADER, (size_t)n - NETIF_HEADER);
    }
    bench_check(bench);
}

static inline void bench_link(void *ctx, bool up)
{
    struct netif_bench *bench = ctx;
    ck_assert(bench->netif->info.link_up == up);
    *(up ? &bench->link_ups : &bench->link_downs) += 1;
    *(up ? &bench->up_ns : &bench->down_ns) = clock_monotonic_ns();
    bench_check(bench);
}

static inline void bench_trouble(void *ctx, const char *sentence)
{
    struct netif_bench *bench = ctx;
    bench->troubles++;
    snprintf(bench->trouble, sizeof(bench->trouble), "%s", sentence);
    bench_check(bench);
}

static inline void bench_expire(void *arg)
{
    struct netif_bench *bench = arg;
    bench->expired = true;
    loop_stop(bench->loop);
}

/* What is polled for outside of the loop (sockets of the test) is looked at every millisecond. */
static inline void bench_tick(void *arg)
{
    struct netif_bench *bench = arg;
    bench_check(bench);
    ck_assert_int_eq(loop_timer_arm(&bench->tick, clock_monotonic_ns() + 1000000), 0);
}

/* Until a frame matches or `over` is true; NULL: never so. False when patience has run out. */
static inline bool bench_run(struct netif_bench *bench, bool (*over)(struct netif_bench *),
                             bool (*match)(struct netif_bench *, const uint8_t *, size_t),
                             unsigned patience_ms)
{
    bench->over = over;
    bench->match = match;
    bench->done = bench->expired = false;
    ck_assert_int_eq(
        loop_timer_arm(&bench->deadline, clock_monotonic_ns() + patience_ms * 1000000ull), 0);
    if (over)
        ck_assert_int_eq(loop_timer_arm(&bench->tick, clock_monotonic_ns()), 0);
    ck_assert_int_eq(loop_run(bench->loop), 0);
    loop_timer_cancel(&bench->deadline);
    loop_timer_cancel(&bench->tick);
    bench->over = NULL;
    bench->match = NULL;
    return bench->done;
}

static inline void bench_await(struct netif_bench *bench,
                               bool (*match)(struct netif_bench *, const uint8_t *, size_t))
{
    ck_assert_msg(bench_run(bench, NULL, match, BENCH_PATIENCE_S * 1000), "no such frame came");
}

static inline void bench_until(struct netif_bench *bench, bool (*over)(struct netif_bench *))
{
    ck_assert_msg(bench_run(bench, over, NULL, BENCH_PATIENCE_S * 1000), "it did not happen");
}

static inline struct netif_child *bench_netif_child(const struct netif_bench *bench)
{
    return container_of(bench->netif, struct netif_child, netif);
}

static inline bool bench_is_up(struct netif_bench *bench)
{
    return bench_netif_child(bench)->state == NETIF_CHILD_UP;
}

/* The guest's driver is there: what waited for that starts now. */
static inline void bench_bring_up(struct netif_bench *bench)
{
    if (bench_netif_child(bench)->state != NETIF_CHILD_IDLE)
        return;
    ck_assert_int_eq(bench->netif->ops->configure(bench->netif, 1, 0), 0);
    bench_until(bench, bench_is_up);
    ck_assert_uint_eq(bench->link_ups, 1);
    bench->link_ups = 0;
}

static inline void bench_attach(struct netif_bench *bench)
{
    struct err err = {0};
    int ret = bench->netif->ops->attach(bench->netif, bench->loop, &bench->handlers, &err);
    ck_assert_msg(ret == 0, "%s", err.text);
    ck_assert(bench->netif->info.link_up || bench_netif_child(bench)->state == NETIF_CHILD_GONE);
    bench_bring_up(bench);
    bench->netif->ops->watch(bench->netif, 0, NETIF_READABLE);
}

/* The bench is on the heap: it is large, and pointed to. */
static inline struct netif_bench *bench_create(void)
{
    struct netif_bench *bench = calloc(1, sizeof(*bench));
    ck_assert_ptr_nonnull(bench);
    ck_assert_int_eq(loop_create(&bench->loop, NULL), 0);
    bench->handlers = (struct netif_handlers){bench_ready, bench_link, bench_trouble, bench};
    bench->net = tiny_net_default();
    bench->at_once = 64;
    loop_timer_init(&bench->deadline, bench->loop, bench_expire, bench);
    loop_timer_init(&bench->tick, bench->loop, bench_tick, bench);
    return bench;
}

/* And no child of ours is left, not even a dead one. */
static inline void bench_destroy(struct netif_bench *bench)
{
    if (bench->netif)
        bench->netif->ops->detach(bench->netif);
    netif_destroy(bench->netif);
    loop_destroy(bench->loop);
    free(bench);
    ck_assert_int_eq(waitpid(-1, NULL, WNOHANG), -1);
    ck_assert_int_eq(errno, ECHILD);
}

static inline pid_t bench_child(const struct netif_bench *bench)
{
    return bench_netif_child(bench)->pid;
}

/* A socket bound to a port that nobody has, on an address of the loopback. */
static inline int bench_bind(int type, const char *address, uint16_t *ret_port)
{
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
    struct sockaddr_in in = {.sin_family = AF_INET};
    bool v6 = strchr(address, ':') != NULL;
    inet_pton(v6 ? AF_INET6 : AF_INET, address, v6 ? (void *)&in6.sin6_addr : &in.sin_addr);
    struct sockaddr *any = v6 ? (struct sockaddr *)&in6 : (struct sockaddr *)&in;
    socklen_t length = v6 ? sizeof(in6) : sizeof(in);
    int fd = socket(any->sa_family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    ck_assert_int_ge(fd, 0);
    if (bind(fd, any, length) < 0) {
        close(fd); /* a host without IPv6 */
        return -1;
    }
    ck_assert_int_eq(getsockname(fd, any, &length), 0);
    *ret_port = ntohs(v6 ? in6.sin6_port : in.sin_port);
    if (type == SOCK_STREAM)
        ck_assert_int_eq(listen(fd, 5), 0);
    return fd;
}

static inline uint16_t bench_free_port(int type, const char *address)
{
    uint16_t port = 0;
    int fd = bench_bind(type, address, &port);
    if (fd >= 0)
        close(fd);
    return port;
}
