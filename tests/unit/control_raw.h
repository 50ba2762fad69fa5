/* SPDX-License-Identifier: MIT */
/* A client of a control socket that speaks byte by byte, as well-behaved ones never would. */
#pragma once

#include "tests/unit/unit.h"
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { PATIENCE_MS = 20000 };

static inline int raw_connect(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    memcpy(address.sun_path, path, strlen(path));
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

/* False when the other side has hung up. */
static inline bool raw_send(int fd, const void *bytes, size_t length)
{
    const char *at = bytes;
    while (length) {
        ssize_t sent = send(fd, at, length, MSG_NOSIGNAL);
        if (sent < 0)
            return false;
        at += sent;
        length -= (size_t)sent;
    }
    return true;
}

static inline void raw_say(int fd, const char *text)
{
    ck_assert(raw_send(fd, text, strlen(text)));
}

/* The next bytes, or 0 at the end, be it orderly or not. */
static inline size_t raw_receive(int fd, void *to, size_t room)
{
    struct pollfd io = {.fd = fd, .events = POLLIN};
    ck_assert_int_eq(poll(&io, 1, PATIENCE_MS), 1);
    ssize_t got = recv(fd, to, room, 0);
    return got > 0 ? (size_t)got : 0;
}

/* The next line, without its newline; "" at the end. Good for one call at a time. */
static inline const char *raw_line(int fd, char *line, size_t room)
{
    size_t length = 0;
    while (length < room - 1 && raw_receive(fd, line + length, 1) == 1 && line[length] != '\n')
        length++;
    line[length] = '\0';
    return line;
}

static inline void raw_expect(int fd, const char *expected)
{
    char line[1000];
    ck_assert_str_eq(raw_line(fd, line, sizeof(line)), expected);
}

static inline void raw_expect_end(int fd)
{
    char byte;
    ck_assert_uint_eq(raw_receive(fd, &byte, 1), 0);
}
