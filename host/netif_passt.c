/* SPDX-License-Identifier: MIT */
/*
 * passt: faster than libslirp, and the guest has the host's own addresses. A program of the host's,
 * found in PATH, that sandboxes itself (and becomes nobody when root starts it).
 *
 * It gets a connected stream socket (--fd) and ends when that is closed; no path in a file system
 * is involved. On the socket each frame, in both directions, comes behind its length, 4 bytes, big-
 * endian. A length that no frame has counts as the program's death: there is no way to find the
 * next frame. It writes its process id (--pid) when all is set up, forwards included: that is how
 * we know that it is ready.
 */
#include "core/clock.h"
#include "core/iov.h"
#include "host/netif_child.h"
#include "host/netif_forward.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    LENGTH_SIZE = 4,
    FRAME_MIN = 14,
    FRAME_MAX = NETIF_MAX_FRAME - NETIF_HEADER,
    DEFAULT_MTU = 65520, /* what passt tells the guest by DHCP when it is not asked */
    MTU_MIN = 1280,
    INPUT_SIZE = 4 * (LENGTH_SIZE + FRAME_MAX),
    SPEC_SIZE = 64,
    SOCKET_BUFFER = 1 << 20,
};

struct netif_passt {
    struct netif_child child; /* first */
    unsigned forward_count;
    struct netif_forward forwards[NETIF_MAX_FORWARDS];

    struct loop_timer more; /* whole frames lie in `input`, of which epoll knows nothing */
    size_t start, end;      /* of what was received and not taken yet */
    size_t unsent_start, unsent_end;
    uint8_t unsent[LENGTH_SIZE + FRAME_MAX]; /* the rest of a frame that was half taken */
    uint8_t input[INPUT_SIZE];
};

static struct netif_passt *to_passt(const struct netif_child *child)
{
    return container_of(child, struct netif_passt, child);
}

/* --- the program -------------------------------------------------------------------------- */

static void format_spec(const struct netif_forward *forward, char spec[SPEC_SIZE])
{
    snprintf(spec, SPEC_SIZE, "%s%s%u:%u", forward->host_address,
             forward->host_address[0] ? "/" : "", forward->host_port, forward->guest_port);
}

/* 2 socket pairs' ends and 2 pipe ends; theirs are closed by the spawn. */
static int make_ends(int ends[2], int hello[2])
{
    int size = SOCKET_BUFFER;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        return -errno;
    if (pipe2(hello, O_CLOEXEC | O_NONBLOCK) < 0) {
        int ret = -errno;
        close(ends[0]);
        close(ends[1]);
        return ret;
    }
    for (int i = 0; i < 2; i++)
        if (setsockopt(ends[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)) < 0)
            break; /* then it is as the kernel likes */
    /* passt opens it by name, as nobody. Only who may look into our /proc directory could, too. */
    if (fchmod(hello[1], 0622) < 0)
        errno = 0;
    return 0;
}

static int start(struct netif_child *child, struct err *err)
{
    struct netif_passt *passt = to_passt(child);
    char mtu[16], specs[NETIF_MAX_FORWARDS][SPEC_SIZE];
    char *argv[16 + 2 * NETIF_MAX_FORWARDS] = {
        "passt",           "--foreground", "--quiet", "--stderr", "--pid",
        "/proc/self/fd/1", "--fd",         "3",       "--mtu",    mtu};
    unsigned argc = 10;
    int ends[2], hello[2];

    snprintf(mtu, sizeof(mtu), "%u", child->netif.info.mtu);
    for (unsigned i = 0; i < passt->forward_count; i++) {
        format_spec(&passt->forwards[i], specs[i]);
        argv[argc++] = passt->forwards[i].udp ? "--udp-ports" : "--tcp-ports";
        argv[argc++] = specs[i];
    }
    argv[argc] = NULL;

    int ret = make_ends(ends, hello);
    if (ret < 0)
        return err_sys(err, ERR_HOST, -ret, "cannot make a socket for passt");
    ret = netif_child_spawn(child, argv, ends[1], hello[1], err);
    if (ret < 0) {
        close(ends[0]);
        close(hello[0]);
        if (ret == -ENOENT) {
            ret = err_say(err, ERR_HOST, ENOENT, "passt is not installed");
            err_hint(err, "sudo apt install passt; or --net user, which needs nothing");
        }
        return ret;
    }
    child->fd = ends[0];
    child->hello = hello[0];
    return 0;
}

static int greet(struct netif_child *child, struct err *err)
{
    char pid[32];
    ssize_t n = read(child->hello, pid, sizeof(pid));
    if (n > 0)
        return 0;
    return n < 0 && (errno == EAGAIN || errno == EINTR) ? -EAGAIN : -EPIPE;
}

/* Why we could not take it ourselves. passt says only that it could not. */
static int probe_forward(const struct netif_forward *forward)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(forward->host_port)};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(forward->host_port)};
    const char *address = netif_forward_address(forward);
    int ret = -EIO;
    int fd = socket(forward->ipv6 ? AF_INET6 : AF_INET,
                    (forward->udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (forward->ipv6 && inet_pton(AF_INET6, address, &in6.sin6_addr) == 1)
        ret = bind(fd, (struct sockaddr *)&in6, sizeof(in6)) < 0 ? -errno : 0;
    else if (!forward->ipv6 && inet_pton(AF_INET, address, &in.sin_addr) == 1)
        ret = bind(fd, (struct sockaddr *)&in, sizeof(in)) < 0 ? -errno : 0;
    close(fd);
    return ret;
}

static int explain(struct netif_child *child, const char *words, struct err *err)
{
    const struct netif_passt *passt = to_passt(child);
    for (unsigned i = 0; i < passt->forward_count; i++) {
        char spec[SPEC_SIZE], quoted[SPEC_SIZE + 8];
        format_spec(&passt->forwards[i], spec);
        snprintf(quoted, sizeof(quoted), " %s'", spec);
        if (!strstr(words, quoted))
            continue;
        /* Root may, and passt, as nobody, may not. */
        int ret = probe_forward(&passt->forwards[i]);
        if (ret == 0 && passt->forwards[i].host_port < 1024)
            ret = -EACCES;
        return netif_forward_error(&passt->forwards[i], ret < 0 ? -ret : EIO, err);
    }
    int ret = err_say(err, ERR_HOST, ECHILD, "passt does not start%s%s", words[0] ? ": " : "",
                      words);
    if (strstr(words, "interface"))
        err_hint(err, "passt needs an interface with a default route; --net user does without");
    return ret;
}

/* --- frames from it ----------------------------------------------------------------------- */

/* The length of the first frame, 0 when it is not whole yet. -EPROTO: no frame has that length. */
static ssize_t whole_frame(const struct netif_passt *passt)
{
    uint32_t length;
    if (passt->end - passt->start < sizeof(length))
        return 0;
    memcpy(&length, passt->input + passt->start, sizeof(length));
    length = ntohl(length);
    if (length < FRAME_MIN || length > FRAME_MAX)
        return -EPROTO;
    return passt->end - passt->start - sizeof(length) >= length ? (ssize_t)length : 0;
}

/* Once: with much traffic a read fetches many frames. False: nothing came. */
static bool fill_input(struct netif_passt *passt)
{
    if (INPUT_SIZE - passt->start < LENGTH_SIZE + FRAME_MAX) {
        memmove(passt->input, passt->input + passt->start, passt->end - passt->start);
        passt->end -= passt->start;
        passt->start = 0;
    }
    ssize_t n = recv(passt->child.fd, passt->input + passt->end, INPUT_SIZE - passt->end,
                     MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (n <= 0) {
        netif_child_hung_up(&passt->child);
        return false;
    }
    passt->end += (size_t)n;
    return true;
}

/* A rest of whole frames must be told of, as the socket may stay silent. */
static void arm_more(struct netif_passt *passt)
{
    if (!netif_child_usable(&passt->child) || !passt->child.loop ||
        !(passt->child.watched & NETIF_READABLE) || whole_frame(passt) <= 0)
        return;
    if (loop_timer_arm(&passt->more, clock_monotonic_ns()) < 0)
        netif_child_condemn(&passt->child, "cannot be read: no memory for a timer");
}

static ssize_t receive_frame(struct netif *netif, unsigned queue, const struct iovec *iov,
                             unsigned count)
{
    struct netif_passt *passt = to_passt(container_of(netif, struct netif_child, netif));
    if (!netif_child_usable(&passt->child))
        return -EAGAIN;
    ssize_t length = whole_frame(passt);
    if (length == 0 && fill_input(passt))
        length = whole_frame(passt);
    if (length < 0)
        netif_child_condemn(&passt->child, "broke the framing of its stream");
    if (length <= 0)
        return -EAGAIN;
    const uint8_t *frame = passt->input + passt->start + LENGTH_SIZE;
    iov_fill(iov, count, 0, 0, NETIF_HEADER);
    size_t n = iov_write(iov, count, NETIF_HEADER, frame, (size_t)length);
    passt->start += LENGTH_SIZE + (size_t)length;
    if (passt->start == passt->end)
        passt->start = passt->end = 0;
    return (ssize_t)(NETIF_HEADER + n);
}

/* --- frames to it ------------------------------------------------------------------------- */

/* False: the rest of a frame still waits. */
static bool flush_unsent(struct netif_passt *passt)
{
    while (passt->unsent_start < passt->unsent_end) {
        ssize_t n = send(passt->child.fd, passt->unsent + passt->unsent_start,
                         passt->unsent_end - passt->unsent_start, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0)
            return false;
        passt->unsent_start += (size_t)n;
    }
    passt->unsent_start = passt->unsent_end = 0;
    return true;
}

static unsigned wants(const struct netif_child *child)
{
    const struct netif_passt *passt = to_passt(child);
    bool write = child->watched & NETIF_WRITABLE || passt->unsent_end;
    return (child->watched & NETIF_READABLE ? LOOP_READ : 0U) | (write ? LOOP_WRITE : 0U);
}

static ssize_t send_frame(struct netif *netif, unsigned queue, const struct iovec *iov,
                          unsigned count)
{
    struct netif_child *child = container_of(netif, struct netif_child, netif);
    struct netif_passt *passt = to_passt(child);
    struct iovec part[1 + UIO_MAXIOV];
    size_t length;
    int parts = netif_child_frame(child, iov, count, part + 1, &length);
    if (parts < 0)
        return parts;
    if (parts == UIO_MAXIOV)
        return -EMSGSIZE;
    if (!flush_unsent(passt))
        return -EAGAIN;

    uint32_t prefix = htonl((uint32_t)length);
    part[0] = (struct iovec){&prefix, sizeof(prefix)};
    struct msghdr message = {.msg_iov = part, .msg_iovlen = (size_t)parts + 1};
    ssize_t n = sendmsg(child->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? -EAGAIN : -errno;
    if ((size_t)n < LENGTH_SIZE + length) {
        passt->unsent_end = iov_read(part, (unsigned)parts + 1, (size_t)n, passt->unsent,
                                     sizeof(passt->unsent));
        if (child->io_added)
            loop_io_watch(child->loop, &child->io, wants(child));
    }
    return (ssize_t)(length + NETIF_HEADER);
}

/* --- events ------------------------------------------------------------------------------- */

static void tell(struct netif_passt *passt, unsigned what)
{
    const struct netif_handlers *handlers = passt->child.handlers;
    if (what & passt->child.watched)
        handlers->ready(handlers->ctx, 0, what & passt->child.watched);
    arm_more(passt);
}

static void handle_io(struct netif_child *child, unsigned events)
{
    struct netif_passt *passt = to_passt(child);
    if (events & LOOP_HANGUP && !(events & LOOP_READ)) {
        netif_child_hung_up(child);
        return;
    }
    bool writable = events & LOOP_WRITE && flush_unsent(passt);
    if (writable)
        loop_io_watch(child->loop, &child->io, wants(child));
    tell(passt, (events & LOOP_READ ? NETIF_READABLE : 0U) | (writable ? NETIF_WRITABLE : 0U));
}

static void handle_more(void *arg)
{
    struct netif_passt *passt = arg;
    if (netif_child_usable(&passt->child) && whole_frame(passt) > 0)
        tell(passt, NETIF_READABLE);
}

static void forget(struct netif_child *child)
{
    struct netif_passt *passt = to_passt(child);
    passt->start = passt->end = passt->unsent_start = passt->unsent_end = 0;
    if (child->loop)
        loop_timer_cancel(&passt->more);
}

static const struct netif_child_kind kind = {
    .what = "passt",
    .start = start,
    .greet = greet,
    .explain = explain,
    .handle_io = handle_io,
    .wants = wants,
    .forget = forget,
};

/* --- the interface ------------------------------------------------------------------------ */

static int attach(struct netif *netif, struct loop *loop, const struct netif_handlers *handlers,
                  struct err *err)
{
    struct netif_passt *passt = to_passt(container_of(netif, struct netif_child, netif));
    loop_timer_init(&passt->more, loop, handle_more, passt);
    return netif_child_attach(netif, loop, handlers, err);
}

static void detach(struct netif *netif)
{
    struct netif_passt *passt = to_passt(container_of(netif, struct netif_child, netif));
    if (passt->child.loop)
        loop_timer_cancel(&passt->more);
    netif_child_detach(netif);
}

static void watch(struct netif *netif, unsigned queue, unsigned what)
{
    netif_child_watch(netif, queue, what);
    arm_more(to_passt(container_of(netif, struct netif_child, netif)));
}

static void destroy(struct netif *netif)
{
    struct netif_passt *passt = to_passt(container_of(netif, struct netif_child, netif));
    netif_child_finish(&passt->child);
    free(passt);
}

static const struct netif_ops ops = {
    .name = "passt",
    .attach = attach,
    .detach = detach,
    .send = send_frame,
    .receive = receive_frame,
    .watch = watch,
    .configure = netif_child_configure,
    .destroy = destroy,
};

int netif_passt_open(struct netif **ret_netif, const struct netif_config *config, struct err *err)
{
    unsigned mtu = config->mtu ? config->mtu : DEFAULT_MTU;
    if (mtu < MTU_MIN || mtu > DEFAULT_MTU)
        return err_say(err, ERR_USAGE, EINVAL, "passt: an MTU is from %d to %d", MTU_MIN,
                       DEFAULT_MTU);
    if (config->forward_count > NETIF_MAX_FORWARDS)
        return err_say(err, ERR_USAGE, EINVAL, "passt: at most %d forwards", NETIF_MAX_FORWARDS);
    struct netif_passt *passt = calloc(1, sizeof(*passt));
    if (!passt)
        return err_sys(err, ERR_HOST, ENOMEM, "passt");
    netif_child_init(&passt->child, &kind);
    struct netif *netif = &passt->child.netif;
    netif->ops = &ops;
    netif->info.mtu = (uint16_t)mtu;
    snprintf(netif->info.description, sizeof(netif->info.description), "passt");
    passt->forward_count = config->forward_count;
    for (unsigned i = 0; i < config->forward_count; i++)
        passt->forwards[i] = config->forwards[i];

    int ret = netif_child_open(&passt->child, err);
    if (ret < 0) {
        destroy(netif);
        return ret;
    }
    *ret_netif = netif;
    return 0;
}
