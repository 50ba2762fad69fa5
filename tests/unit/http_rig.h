/* SPDX-License-Identifier: MIT */
/* A server of a few answers, one for each connection, on a thread of its own. */
#pragma once

#include "core/clock.h"
#include "host/http_client.h"
#include "tests/unit/link_rig.h"
#include <stdlib.h>
#include <sys/socket.h>

enum { FAKE_ANSWERS = 16, FAKE_REQUEST = 4096 };

#define FAKE_HANGS "hang" /* says nothing until the other side has had enough */
#define FAKE_DRIPS "drip" /* goes on to say a little, for ever */
#define FAKE_MADE  "made" /* as an etcd that has made this very transaction before */

struct fake {
    struct thread thread;
    int listener;
    struct http_server server;
    size_t count;
    const char *answers[FAKE_ANSWERS]; /* "": hangs up */
    char requests[FAKE_ANSWERS][FAKE_REQUEST];
};

/* Whole, by its Content-Length. */
static inline void fake_hear(int fd, char *request)
{
    size_t length = 0;
    ssize_t n = 1;

    while (n > 0 && length < FAKE_REQUEST - 1) {
        n = recv(fd, request + length, FAKE_REQUEST - 1 - length, 0);
        length += n > 0 ? (size_t)n : 0;
        request[length] = 0;
        const char *body = strstr(request, "\r\n\r\n");
        const char *wants = strstr(request, "Content-Length: ");
        if (body && wants && strlen(body + 4) >= strtoul(wants + 16, NULL, 10))
            return;
    }
}

static inline void fake_drip(int fd)
{
    static const char head[] = "HTTP/1.1 200 OK\r\nA: ";

    (void)send(fd, head, sizeof(head) - 1, MSG_NOSIGNAL);
    struct pollfd gone = {.fd = fd, .events = POLLRDHUP};
    while (poll(&gone, 1, 5) == 0)
        (void)send(fd, "a", 1, MSG_NOSIGNAL);
}

/* The value that it was to put is there already. */
static inline void fake_say_made(int fd, const char *request)
{
    const char *put = strstr(request, "request_put\":");
    char answer[2048], body[1500] = "";

    if (put)
        snprintf(body, sizeof(body),
                 "{\"header\":{\"cluster_id\":\"1\"},\"responses\":[{\"response_range\":{\"kvs\":["
                 "{\"mod_revision\":\"9\",%.*s]}}]}",
                 (int)strcspn(put + 14, "}") + 1, put + 14);
    snprintf(answer, sizeof(answer), "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s",
             strlen(body), body);
    (void)send(fd, answer, strlen(answer), MSG_NOSIGNAL);
}

static inline void run_fake(void *arg)
{
    struct fake *fake = arg;

    for (size_t i = 0; i < fake->count; i++) {
        int fd = accept_one(fake->listener);
        if (fd < 0)
            return;
        fake_hear(fd, fake->requests[i]);
        const char *answer = fake->answers[i];
        struct pollfd gone = {.fd = fd, .events = POLLRDHUP};
        if (strcmp(answer, FAKE_HANGS) == 0)
            poll(&gone, 1, PATIENCE_MS);
        else if (strcmp(answer, FAKE_DRIPS) == 0)
            fake_drip(fd);
        else if (strcmp(answer, FAKE_MADE) == 0)
            fake_say_made(fd, fake->requests[i]);
        else
            (void)send(fd, answer, strlen(answer), MSG_NOSIGNAL);
        close(fd);
    }
}

static inline void fake_listen(struct fake *fake)
{
    *fake = (struct fake){.count = 0};
    ck_assert_int_eq(link_listen(&fake->listener, "127.0.0.1:0", NULL), 0);
    strcpy(fake->server.host, "127.0.0.1");
    snprintf(fake->server.port, sizeof(fake->server.port), "%u", port_of(fake->listener));
}

static inline void fake_will(struct fake *fake, const char *answer)
{
    ck_assert_uint_lt(fake->count, FAKE_ANSWERS);
    fake->answers[fake->count++] = answer;
}

static inline void fake_start(struct fake *fake)
{
    ck_assert_int_eq(thread_start(&fake->thread, "fake", run_fake, fake, NULL), 0);
}

/* All of its answers were wanted. */
static inline void fake_end(struct fake *fake)
{
    if (fake->thread.started)
        thread_join(&fake->thread);
    close(fake->listener);
}
