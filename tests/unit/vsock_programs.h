/* SPDX-License-Identifier: MIT */
/* The host's side of the vsock tests: programs with Unix sockets. */
#pragma once

#include "tests/unit/device_rig.h"
#include "tests/unit/unit.h"
#include "virtio/vsock_parts.h"
#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static struct rig *rig;
static char path[80]; /* of the device's socket */

static inline struct sockaddr_un address_of(const char *at)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", at);
    return address;
}

static inline int try_connect(void)
{
    struct sockaddr_un address = address_of(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    ck_assert_int_ge(fd, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
        return fd;
    close(fd);
    return -1;
}

static inline int host_connect(const char *line)
{
    int fd = try_connect();
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(send(fd, line, strlen(line), MSG_NOSIGNAL), (ssize_t)strlen(line));
    rig_settle(rig);
    return fd;
}

static inline int listen_at(const char *at)
{
    struct sockaddr_un address = address_of(at);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    ck_assert_int_eq(listen(fd, 300), 0);
    return fd;
}

static inline int host_listen(uint32_t port)
{
    char at[100];
    snprintf(at, sizeof(at), "%s_%u", path, port);
    return listen_at(at);
}

static inline void expect_from(int fd, const char *text)
{
    char bytes[200];
    ssize_t got = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);
    ck_assert_msg(got == (ssize_t)strlen(text) && memcmp(bytes, text, strlen(text)) == 0,
                  "\"%s\" expected, %zd bytes came", text, got);
}

static inline void expect_nothing_from(int fd)
{
    char byte;
    ck_assert_int_eq(recv(fd, &byte, 1, MSG_DONTWAIT), -1);
    ck_assert_int_eq(errno, EAGAIN);
}

static inline void expect_end_from(int fd)
{
    char byte;
    ssize_t got = recv(fd, &byte, 1, MSG_DONTWAIT);
    ck_assert_msg(got == 0 || (got < 0 && errno == ECONNRESET), "%zd, %d", got, errno);
}
