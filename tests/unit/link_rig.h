/* SPDX-License-Identifier: MIT */
/* The accepting side of a link, and what else the tests of links share. */
#pragma once

#include "core/thread.h"
#include "host/link_parts.h"
#include "tests/unit/unit.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/*
 * With ASan: what gnutls, which is loaded late, keeps for each thread makes clang 14's search for
 * leaks read at a null pointer now and then (1 run of 12), in a process of no fault.
 */
const char *__lsan_default_options(void);
const char *__lsan_default_options(void)
{
    return "use_tls=0:print_suppressions=0";
}

enum { PATIENCE_MS = 20000 };

static const struct link_key right_key = {.bytes = {1, 2, 3, [31] = 4}};

/* The accepting side, on a thread of its own: takes one connection and makes a link of it. */
struct side {
    struct thread thread;
    int listener;
    char address[80];
    struct link_config config;
    struct link *link;
    struct err err;
    int result;
};

static inline unsigned port_of(int fd)
{
    struct sockaddr_storage storage;
    socklen_t length = sizeof(storage);

    ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&storage, &length), 0);
    return ntohs(((struct sockaddr_in *)&storage)->sin_port); /* at the same place in IPv6 */
}

static inline int accept_one(int listener)
{
    struct pollfd poll_fd = {.fd = listener, .events = POLLIN};

    if (poll(&poll_fd, 1, PATIENCE_MS) != 1)
        return -1;
    return accept(listener, NULL, NULL);
}

static inline void run_side(void *arg)
{
    struct side *side = arg;
    int fd = accept_one(side->listener);

    side->result = fd < 0 ? -ECHILD : link_accept(&side->link, fd, &side->config, &side->err);
}

static inline void side_listen(struct side *side, const char *host, const struct link_key *key)
{
    char address[80];

    *side = (struct side){.config = {.key = key, .timeout_ms = PATIENCE_MS}};
    snprintf(address, sizeof(address), "%s:0", host);
    ck_assert_int_eq(link_listen(&side->listener, address, &side->err), 0);
    snprintf(side->address, sizeof(side->address), "%s:%u", host, port_of(side->listener));
}

static inline void side_start(struct side *side, const char *host, const struct link_key *key)
{
    side_listen(side, host, key);
    ck_assert_int_eq(thread_start(&side->thread, "accepting", run_side, side, NULL), 0);
}

static inline int side_end(struct side *side)
{
    thread_join(&side->thread);
    close(side->listener);
    return side->result;
}

/* A plain TCP connection to it, for tests that speak their own words. */
static inline int connect_raw(const struct side *side)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port_of(side->listener)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    return fd;
}

/* Whether a reader waits. */

struct reading {
    struct thread thread;
    struct stream *stream;
    uint8_t bytes[100];
};

static inline void run_reading(void *arg)
{
    struct reading *reading = arg;
    stream_read(reading->stream, reading->bytes, sizeof(reading->bytes));
}

/* Who has one half of what it wants to read waits for the other, and something has come. */
static inline void expect_that_waiting_is_told(struct link *from, struct link *to)
{
    static const uint8_t half[50] = {1};
    struct reading reading = {.stream = link_reader(to)};
    uint64_t before, come;
    ck_assert_int_eq(thread_start(&reading.thread, "reading", run_reading, &reading, NULL), 0);
    while (!link_waits(to, &before))
        poll(NULL, 0, 1);
    stream_write(link_writer(from), half, sizeof(half));
    ck_assert_int_eq(stream_flush(link_writer(from)), 0);
    while (!link_waits(to, &come) || come == before)
        poll(NULL, 0, 1);
    stream_write(link_writer(from), half, sizeof(half));
    ck_assert_int_eq(stream_flush(link_writer(from)), 0);
    thread_join(&reading.thread);
    ck_assert_int_eq(stream_error(reading.stream), 0);
    ck_assert(!link_waits(to, &before));
    ck_assert_uint_gt(before, come);
}
