/* SPDX-License-Identifier: MIT */
/*
 * Frames from the VMM go straight into libslirp, as many as wait but not for ever; frames for it
 * straight into the socket. When that is full (the guest is slow, or paused) they wait in a bounded
 * queue, and as long as one waits the host's sockets are not looked at: so TCP's windows slow the
 * senders down, and little is lost. What does not fit any more is dropped, as on any wire.
 */
#include "usernet/stack.h"

#include "host/usernet.h"
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <slirp/libslirp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    QUEUE_SIZE = 1 << 20,
    FRAMES_AT_ONCE = 64,
    RESOLVER_SIZE = 4096,
    IDLE_MS = 1000,
};

enum { FD_VMM, FD_RESOLVER, FD_FIRST }; /* places in `fds` */

struct timer {
    SlirpTimerCb handle;
    void *arg;
    int64_t due_ms; /* 0: not armed */
    struct timer *next;
};

struct stack {
    Slirp *slirp;
    struct timer *timers;
    struct pollfd *fds;
    size_t fd_count, fd_room;

    int resolver_file;
    unsigned resolver_serial;

    /* Frames that wait, each behind its length: [start, end) */
    uint8_t *queue;
    size_t start, end;
    uint8_t frame[USERNET_FRAME_MAX];
};

/* --- frames for the VMM ------------------------------------------------------------------- */

static bool send_now(struct stack *stack, const void *frame, size_t length)
{
    ssize_t n = send(stack->fds[FD_VMM].fd, frame, length, MSG_DONTWAIT | MSG_NOSIGNAL);
    /* What cannot be sent at all is dropped. */
    return n >= 0 || (errno != EAGAIN && errno != EINTR && errno != ENOBUFS);
}

static void enqueue(struct stack *stack, const void *frame, uint32_t length)
{
    size_t need = sizeof(length) + length;
    if (QUEUE_SIZE - stack->end < need && stack->start >= QUEUE_SIZE / 2) {
        memmove(stack->queue, stack->queue + stack->start, stack->end - stack->start);
        stack->end -= stack->start;
        stack->start = 0;
    }
    if (QUEUE_SIZE - stack->end < need)
        return;
    memcpy(stack->queue + stack->end, &length, sizeof(length));
    memcpy(stack->queue + stack->end + sizeof(length), frame, length);
    stack->end += need;
}

static bool queue_waits(const struct stack *stack)
{
    return stack->start != stack->end;
}

static void flush_queue(struct stack *stack)
{
    while (queue_waits(stack)) {
        uint32_t length;
        memcpy(&length, stack->queue + stack->start, sizeof(length));
        if (!send_now(stack, stack->queue + stack->start + sizeof(length), length))
            return;
        stack->start += sizeof(length) + length;
    }
    stack->start = stack->end = 0;
}

static ssize_t handle_packet(const void *frame, size_t length, void *opaque)
{
    struct stack *stack = opaque;
    if (length >= USERNET_FRAME_MIN && length <= USERNET_FRAME_MAX &&
        (queue_waits(stack) || !send_now(stack, frame, length)))
        enqueue(stack, frame, (uint32_t)length);
    return (ssize_t)length;
}

/* --- frames from the VMM ------------------------------------------------------------------ */

/* False: it is gone. */
static bool take_frames(struct stack *stack)
{
    for (int i = 0; i < FRAMES_AT_ONCE; i++) {
        ssize_t n = recv(stack->fds[FD_VMM].fd, stack->frame, sizeof(stack->frame),
                         MSG_DONTWAIT | MSG_TRUNC);
        if (n < 0)
            return errno == EAGAIN || errno == EINTR;
        if (n == 0)
            return false;
        if (n >= USERNET_FRAME_MIN && n <= USERNET_FRAME_MAX)
            slirp_input(stack->slirp, stack->frame, (int)n);
    }
    return true;
}

/* --- timers and other things that libslirp asks for --------------------------------------- */

static int64_t handle_clock(void *opaque)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void *handle_timer_new(SlirpTimerCb handle, void *arg, void *opaque)
{
    struct stack *stack = opaque;
    struct timer *timer = calloc(1, sizeof(*timer));
    if (!timer)
        abort();
    *timer = (struct timer){.handle = handle, .arg = arg, .next = stack->timers};
    stack->timers = timer;
    return timer;
}

static void handle_timer_free(void *which, void *opaque)
{
    struct stack *stack = opaque;
    for (struct timer **at = &stack->timers; *at; at = &(*at)->next) {
        if (*at == which) {
            *at = (*at)->next;
            free(which);
            return;
        }
    }
}

static void handle_timer_mod(void *which, int64_t due_ms, void *opaque)
{
    struct timer *timer = which;
    timer->due_ms = due_ms > 0 ? due_ms : 1;
}

static void run_timers(struct stack *stack)
{
    int64_t now = handle_clock(NULL) / 1000000;
    for (struct timer *timer = stack->timers, *next; timer; timer = next) {
        next = timer->next;
        if (!timer->due_ms || timer->due_ms > now)
            continue;
        timer->due_ms = 0;
        timer->handle(timer->arg);
    }
}

static int until_timers(const struct stack *stack, uint32_t timeout_ms)
{
    int64_t now = handle_clock(NULL) / 1000000, wait = timeout_ms;
    for (const struct timer *timer = stack->timers; timer; timer = timer->next)
        if (timer->due_ms && timer->due_ms - now < wait)
            wait = timer->due_ms > now ? timer->due_ms - now : 0;
    return (int)wait;
}

/* What a guest does wrong is its own affair. */
static void handle_guest_error(const char *message, void *opaque)
{
}

/* All sockets are asked for anew before each poll. */
static void handle_poll_fd(int fd, void *opaque)
{
}

static void handle_notify(void *opaque)
{
}

static const SlirpCb callbacks = {
    .send_packet = handle_packet,
    .guest_error = handle_guest_error,
    .clock_get_ns = handle_clock,
    .timer_new = handle_timer_new,
    .timer_free = handle_timer_free,
    .timer_mod = handle_timer_mod,
    .register_poll_fd = handle_poll_fd,
    .unregister_poll_fd = handle_poll_fd,
    .notify = handle_notify,
};

/* --- the loop ----------------------------------------------------------------------------- */

static int handle_add_poll(int fd, int events, void *opaque)
{
    struct stack *stack = opaque;
    if (stack->fd_count == stack->fd_room) {
        size_t room = stack->fd_room * 2;
        struct pollfd *fds = reallocarray(stack->fds, room, sizeof(*fds));
        if (!fds)
            return -1; /* this one waits for the next round */
        stack->fds = fds;
        stack->fd_room = room;
    }
    int wanted = (events & SLIRP_POLL_IN ? POLLIN : 0) | (events & SLIRP_POLL_OUT ? POLLOUT : 0) |
                 (events & SLIRP_POLL_PRI ? POLLPRI : 0);
    stack->fds[stack->fd_count] = (struct pollfd){.fd = fd, .events = (short)wanted};
    return (int)stack->fd_count++;
}

static int handle_get_revents(int index, void *opaque)
{
    const struct stack *stack = opaque;
    int got = index >= FD_FIRST && (size_t)index < stack->fd_count ? stack->fds[index].revents : 0;
    return (got & POLLIN ? SLIRP_POLL_IN : 0) | (got & POLLOUT ? SLIRP_POLL_OUT : 0) |
           (got & POLLPRI ? SLIRP_POLL_PRI : 0) |
           (got & (POLLERR | POLLNVAL) ? SLIRP_POLL_ERR : 0) | (got & POLLHUP ? SLIRP_POLL_HUP : 0);
}

/* libslirp knows a changed file by its size and the second of its change. False: nobody is there.
 */
static bool take_resolver(struct stack *stack)
{
    char text[RESOLVER_SIZE + 1];
    ssize_t n = recv(stack->fds[FD_RESOLVER].fd, text, RESOLVER_SIZE, MSG_DONTWAIT);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    if (n == 0)
        return false;
    if (stack->resolver_serial++ % 2)
        text[n++] = '\n';
    return pwrite(stack->resolver_file, text, (size_t)n, 0) == n &&
           ftruncate(stack->resolver_file, n) == 0;
}

void stack_run(struct stack *stack)
{
    for (;;) {
        uint32_t timeout = IDLE_MS;
        stack->fd_count = FD_FIRST;
        slirp_pollfds_fill(stack->slirp, &timeout, handle_add_poll, stack);
        bool full = queue_waits(stack);
        stack->fds[FD_VMM].events = (short)(full ? POLLIN | POLLOUT : POLLIN);
        for (size_t i = FD_FIRST; full && i < stack->fd_count; i++)
            stack->fds[i].fd = -1;

        int ready = poll(stack->fds, stack->fd_count, until_timers(stack, timeout));
        if (ready < 0 && errno != EINTR)
            return;
        for (size_t i = 0; ready < 0 && i < stack->fd_count; i++)
            stack->fds[i].revents = 0;

        if (stack->fds[FD_RESOLVER].revents && !take_resolver(stack))
            return;
        if (stack->fds[FD_VMM].revents & POLLOUT)
            flush_queue(stack);
        if (stack->fds[FD_VMM].revents & ~POLLOUT && !take_frames(stack))
            return;
        run_timers(stack);
        slirp_pollfds_poll(stack->slirp, 0, handle_get_revents, stack);
    }
}

/* --- set-up ------------------------------------------------------------------------------- */

static struct in_addr ipv4(const char *text)
{
    struct in_addr address = {0};
    inet_pton(AF_INET, text, &address);
    return address;
}

static struct in6_addr ipv6(const char *text)
{
    struct in6_addr address = {0};
    inet_pton(AF_INET6, text, &address);
    return address;
}

struct stack *stack_create(int vmm_socket, unsigned mtu)
{
    struct stack *stack = calloc(1, sizeof(*stack));
    if (!stack)
        return NULL;
    SlirpConfig config = {
        .version = 4,
        .in_enabled = true,
        .vnetwork = ipv4("10.0.2.0"),
        .vnetmask = ipv4("255.255.255.0"),
        .vhost = ipv4("10.0.2.2"),
        .vnameserver = ipv4("10.0.2.3"),
        .vdhcp_start = ipv4("10.0.2.15"),
        .in6_enabled = true,
        .vprefix_addr6 = ipv6("fec0::"),
        .vprefix_len = 64,
        .vhost6 = ipv6("fec0::2"),
        .vnameserver6 = ipv6("fec0::3"),
        .if_mtu = mtu,
        .if_mru = mtu,
    };
    stack->resolver_file = -1;
    stack->fd_room = 64;
    stack->fds = calloc(stack->fd_room, sizeof(*stack->fds));
    stack->queue = malloc(QUEUE_SIZE); /* touched only when the guest is slow */
    stack->slirp = stack->fds && stack->queue ? slirp_new(&config, &callbacks, stack) : NULL;
    if (!stack->slirp) {
        free(stack->fds);
        free(stack->queue);
        free(stack);
        return NULL;
    }
    stack->fds[FD_VMM] = (struct pollfd){.fd = vmm_socket};
    stack->fds[FD_RESOLVER] = (struct pollfd){.fd = -1};
    return stack;
}

void stack_set_resolver(struct stack *stack, int channel, int file)
{
    stack->fds[FD_RESOLVER] = (struct pollfd){.fd = channel, .events = POLLIN};
    stack->resolver_file = file;
}

union address {
    struct sockaddr any;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
};

/* Of the guest the address stays zero: the first lease, or with IPv6 the first it is known by. */
static bool parse_address(const char *text, union address *ret_host, union address *ret_guest)
{
    bool v4 = inet_pton(AF_INET, text, &ret_host->in.sin_addr) == 1;
    if (!v4 && inet_pton(AF_INET6, text, &ret_host->in6.sin6_addr) != 1)
        return false;
    ret_host->any.sa_family = ret_guest->any.sa_family = v4 ? AF_INET : AF_INET6;
    return true;
}

static bool parse_port(const char *text, union address *ret_address)
{
    char *end;
    unsigned long port = strtoul(text, &end, 10);
    if (end == text || *end || port > UINT16_MAX)
        return false;
    if (ret_address->any.sa_family == AF_INET)
        ret_address->in.sin_port = htons((uint16_t)port);
    else
        ret_address->in6.sin6_port = htons((uint16_t)port);
    return true;
}

int stack_forward(struct stack *stack, const char *text)
{
    char words[80], *rest = words, *parts[4];
    union address host = {0}, guest = {0};

    if (strlen(text) >= sizeof(words))
        return -EINVAL;
    strcpy(words, text);
    for (size_t i = 0; i < array_size(parts); i++)
        if (!(parts[i] = strsep(&rest, "/")))
            return -EINVAL;
    bool udp = strcmp(parts[0], "udp") == 0;
    if (rest || (!udp && strcmp(parts[0], "tcp") != 0) || !parse_address(parts[1], &host, &guest) ||
        !parse_port(parts[2], &host) || !parse_port(parts[3], &guest))
        return -EINVAL;

    bool v6 = host.any.sa_family == AF_INET6;
    socklen_t length = v6 ? sizeof(host.in6) : sizeof(host.in);
    int flags = (udp ? SLIRP_HOSTFWD_UDP : 0) | (v6 ? SLIRP_HOSTFWD_V6ONLY : 0);
    errno = 0;
    if (slirp_add_hostxfwd(stack->slirp, &host.any, length, &guest.any, length, flags) < 0)
        return errno ? -errno : -EIO;
    return 0;
}
