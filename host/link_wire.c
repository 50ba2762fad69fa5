/* SPDX-License-Identifier: MIT */
#include "host/link_parts.h"

#include "core/clock.h"
#include <errno.h>
#include <limits.h>
#include <linux/tcp.h>
#include <poll.h>

/* Until the descriptor is ready or the deadline has passed. */
static int wait_ready(struct wire *wire, short events)
{
    for (;;) {
        struct pollfd poll_fd = {.fd = wire->fd, .events = events};
        uint64_t now = clock_monotonic_ns();

        if (now >= wire->deadline_ns)
            return -ETIMEDOUT;
        uint64_t ms = (wire->deadline_ns - now) / 1000000 + 1;
        int n = poll(&poll_fd, 1, ms < INT_MAX ? (int)ms : INT_MAX);
        if (n > 0)
            return 0;
        if (n < 0 && errno != EINTR)
            return -errno;
    }
}

/* Broken from this side is what counts, however the kernel puts it. */
static int error_of(struct wire *wire, int error)
{
    if (atomic_load(&wire->broken))
        return -ECONNABORTED;
    return error == EAGAIN ? -ETIMEDOUT : -error;
}

ssize_t link_wire_receive(struct wire *wire, void *to, size_t length)
{
    for (;;) {
        int r = wire->deadline_ns ? wait_ready(wire, POLLIN) : 0;
        if (r < 0)
            return r;
        if (atomic_load(&wire->broken)) /* the kernel would hand out what is there already */
            return -ECONNABORTED;
        atomic_store(&wire->arrived.waits, true);
        ssize_t n = recv(wire->fd, to, length, 0);
        atomic_store(&wire->arrived.waits, false);
        if (n > 0) {
            atomic_fetch_add(&wire->arrived.bytes, (uint64_t)n);
            return n;
        }
        if (n == 0)
            return error_of(wire, ENODATA);
        if (errno != EINTR)
            return error_of(wire, errno);
    }
}

int link_wire_send(struct wire *wire, struct iovec *iov, size_t count, int flags)
{
    while (count > 0) {
        struct msghdr message = {.msg_iov = iov, .msg_iovlen = count};
        int r = wire->deadline_ns ? wait_ready(wire, POLLOUT) : 0;

        if (r < 0)
            return r;
        ssize_t n = sendmsg(wire->fd, &message, MSG_NOSIGNAL | flags);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_of(wire, errno);
        size_t done = (size_t)n;
        for (; count > 0 && done >= iov->iov_len; iov++, count--)
            done -= iov->iov_len;
        if (count > 0) {
            iov->iov_base = (uint8_t *)iov->iov_base + done;
            iov->iov_len -= done;
        }
    }
    return 0;
}

/* Busy is what has bytes that the other host has not acknowledged; of that is not the line's what
 * waits for room over there. */
uint64_t link_wire_line_ns(const struct wire *wire)
{
    struct tcp_info info = {0};
    socklen_t length = sizeof(info);
    if (getsockopt(wire->fd, IPPROTO_TCP, TCP_INFO, &info, &length) < 0 ||
        info.tcpi_busy_time < info.tcpi_rwnd_limited)
        return 0;
    return (info.tcpi_busy_time - info.tcpi_rwnd_limited) * 1000ull;
}
