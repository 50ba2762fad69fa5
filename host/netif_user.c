/* SPDX-License-Identifier: MIT */
/*
 * The network that works without root and without any set-up: a TCP/IP stack (libslirp) in a helper
 * process, which turns the guest's connections into sockets of its own.
 *
 * The helper is a process of its own because it parses, in a C library of age, what a guest may
 * freely choose; broken into, it finds itself in a sandbox (usernet/sandbox.c) with nothing but
 * sockets. Frames cross on a SOCK_SEQPACKET pair: borders kept, one copy in, one copy out, straight
 * from and to the guest's buffers, and an end of file when the other side is gone.
 */
#include "core/iov.h"
#include "host/netif_child.h"
#include "host/netif_forward.h"
#include "host/usernet.h"
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Where the build installs it; a program built by hand looks beside itself only. */
#ifndef USERNET_INSTALLED
#define USERNET_INSTALLED "minivmm-usernet"
#endif

/*
 * No MTU of the host matters here: libslirp ends each connection and begins one of its own. Large
 * frames cost less by the byte: a guest in the lab sends 16 MiB in 1.3 s with 16000, in 9 s with
 * 1500. But libslirp does not scale TCP's window, so a connection never has more than 64 KiB under
 * way. Several segments must fit into that: with 65520 each waited for the acknowledgement of the
 * one before it, which the guest holds back for more, and 16 MiB towards the guest took 11 s
 * instead of 0.7 s. A guest that does not take the MTU of its device goes on with 1500: in TCP both
 * sides then agree on smaller segments; what it loses are datagrams above 1500 bytes sent to it.
 */
enum { DEFAULT_MTU = 16000, TCP_WINDOW = 65535, SOCKET_BUFFER = 1 << 20 };
_Static_assert(4 * DEFAULT_MTU <= TCP_WINDOW, "too few segments under way");

struct netif_user {
    struct netif_child child; /* first */
    char helper[PATH_MAX];
    unsigned forward_count;
    struct netif_forward forwards[NETIF_MAX_FORWARDS];
};

static struct netif_user *to_user(struct netif_child *child)
{
    return container_of(child, struct netif_user, child);
}

/* --- the helper --------------------------------------------------------------------------- */

static int find_helper(struct netif_user *user, const char *given, struct err *err)
{
    char *path = user->helper;
    if (given) {
        snprintf(path, sizeof(user->helper), "%s", given);
    } else {
        ssize_t length = readlink("/proc/self/exe", path, sizeof(user->helper) - 1);
        path[length > 0 ? length : 0] = '\0';
        char *slash = strrchr(path, '/');
        size_t at = slash ? (size_t)(slash + 1 - path) : 0;
        snprintf(path + at, sizeof(user->helper) - at, "minivmm-usernet");
        if (access(path, X_OK) < 0)
            snprintf(path, sizeof(user->helper), "%s", USERNET_INSTALLED);
    }
    if (strchr(path, '/') && access(path, X_OK) == 0)
        return 0;
    int ret = err_sys(err, ERR_HOST, errno, "cannot run the helper of user networking, %s", path);
    err_hint(err, "it is built and installed with minivmm; a VM without network: --net none, or "
                  "\"nets\": [] in vm.json");
    return ret;
}

static int start(struct netif_child *child, struct err *err)
{
    struct netif_user *user = to_user(child);
    char mtu[16], forwards[NETIF_MAX_FORWARDS][80], *argv[NETIF_MAX_FORWARDS + 3];
    unsigned argc = 0;
    int pair[2], size = SOCKET_BUFFER;

    argv[argc++] = user->helper;
    argv[argc++] = mtu;
    snprintf(mtu, sizeof(mtu), "%u", child->netif.info.mtu);
    for (unsigned i = 0; i < user->forward_count; i++) {
        const struct netif_forward *forward = &user->forwards[i];
        snprintf(forwards[i], sizeof(forwards[i]), "%s/%s/%u/%u", forward->udp ? "udp" : "tcp",
                 netif_forward_address(forward), forward->host_port, forward->guest_port);
        argv[argc++] = forwards[i];
    }
    argv[argc] = NULL;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return err_sys(err, ERR_HOST, errno, "cannot make a socket for user networking");
    /* More frames on the way, fewer turns. The kernel gives what its limits allow. */
    for (int i = 0; i < 2; i++) {
        if (setsockopt(pair[i], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) < 0 &&
            setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)) < 0)
            break;
    }
    int ret = netif_child_spawn(child, argv, pair[1], -1, err);
    if (ret < 0) {
        close(pair[0]);
        return ret;
    }
    child->fd = child->hello = pair[0];
    return 0;
}

static int greet(struct netif_child *child, struct err *err)
{
    struct netif_user *user = to_user(child);
    struct usernet_hello hello;
    ssize_t n = recv(child->hello, &hello, sizeof(hello), MSG_DONTWAIT | MSG_TRUNC);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? -EAGAIN : -EPIPE;
    if (n == 0)
        return -EPIPE;
    int errnum = n == sizeof(hello) && hello.errnum && hello.errnum < 4096 ? (int)hello.errnum
                                                                           : EIO;
    if (n != sizeof(hello) || hello.magic != USERNET_MAGIC)
        return err_say(err, ERR_HOST, EPROTO, "%s is not of this build of minivmm", user->helper);
    if (hello.outcome == USERNET_READY)
        return 0;
    if (hello.outcome == USERNET_NO_FORWARD && hello.forward < user->forward_count)
        return netif_forward_error(&user->forwards[hello.forward], errnum, err);
    if (hello.outcome == USERNET_NO_SANDBOX)
        return err_sys(err, ERR_HOST, errnum, "user network: the helper cannot lock itself in");
    return err_say(err, ERR_HOST, EPROTO, "%s said what it may not", user->helper);
}

static void handle_io(struct netif_child *child, unsigned events)
{
    if (events & LOOP_HANGUP && !(events & LOOP_READ)) {
        netif_child_hung_up(child);
        return;
    }
    unsigned what = (events & LOOP_READ ? NETIF_READABLE : 0U) |
                    (events & LOOP_WRITE ? NETIF_WRITABLE : 0U);
    if (what & child->watched)
        child->handlers->ready(child->handlers->ctx, 0, what & child->watched);
}

static unsigned wants(const struct netif_child *child)
{
    return (child->watched & NETIF_READABLE ? LOOP_READ : 0U) |
           (child->watched & NETIF_WRITABLE ? LOOP_WRITE : 0U);
}

static void forget(struct netif_child *child)
{
}

static const struct netif_child_kind kind = {
    .what = "user network: minivmm-usernet",
    .shell_status = true,
    .start = start,
    .greet = greet,
    .handle_io = handle_io,
    .wants = wants,
    .forget = forget,
};

/* --- frames ------------------------------------------------------------------------------- */

static ssize_t send_frame(struct netif *netif, unsigned queue, const struct iovec *iov,
                          unsigned count)
{
    struct netif_child *child = container_of(netif, struct netif_child, netif);
    struct iovec part[UIO_MAXIOV];
    size_t length;
    int parts = netif_child_frame(child, iov, count, part, &length);
    if (parts < 0)
        return parts;
    struct msghdr message = {.msg_iov = part, .msg_iovlen = (size_t)parts};
    if (sendmsg(child->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
        return (ssize_t)(length + NETIF_HEADER);
    return errno == EAGAIN || errno == EINTR ? -EAGAIN : -errno;
}

static ssize_t receive_frame(struct netif *netif, unsigned queue, const struct iovec *iov,
                             unsigned count)
{
    struct netif_child *child = container_of(netif, struct netif_child, netif);
    struct iovec part[UIO_MAXIOV];
    if (!netif_child_usable(child))
        return -EAGAIN;
    if (count > UIO_MAXIOV)
        count = UIO_MAXIOV;
    size_t room = iov_size(iov, count);
    room = room > NETIF_HEADER ? room - NETIF_HEADER : 0;

    struct msghdr message = {.msg_iov = part,
                             .msg_iovlen = iov_part(iov, count, NETIF_HEADER, room, part)};
    /* With MSG_TRUNC the answer is the frame's own length. Descriptors that a hostile helper may
     * have put in are closed by the kernel, as there is no room for them. */
    ssize_t n = recvmsg(child->fd, &message, MSG_DONTWAIT | MSG_TRUNC);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return -EAGAIN;
    if (n <= 0) {
        netif_child_hung_up(child);
        return -EAGAIN;
    }
    if (n < USERNET_FRAME_MIN || n > USERNET_FRAME_MAX) {
        netif_child_condemn(child, "sent what is no frame");
        return -EAGAIN;
    }
    iov_fill(iov, count, 0, 0, NETIF_HEADER);
    return NETIF_HEADER + ((size_t)n < room ? n : (ssize_t)room);
}

static void destroy(struct netif *netif)
{
    struct netif_user *user = to_user(container_of(netif, struct netif_child, netif));
    netif_child_finish(&user->child);
    free(user);
}

static const struct netif_ops ops = {
    .name = "user",
    .attach = netif_child_attach,
    .detach = netif_child_detach,
    .send = send_frame,
    .receive = receive_frame,
    .watch = netif_child_watch,
    .configure = netif_child_configure,
    .destroy = destroy,
};

int netif_user_open(struct netif **ret_netif, const struct netif_config *config, struct err *err)
{
    unsigned mtu = config->mtu ? config->mtu : DEFAULT_MTU;
    if (mtu < USERNET_MTU_MIN || mtu > USERNET_MTU_MAX)
        return err_say(err, ERR_USAGE, EINVAL, "user network: an MTU is from %d to %d",
                       USERNET_MTU_MIN, USERNET_MTU_MAX);
    if (config->forward_count > NETIF_MAX_FORWARDS)
        return err_say(err, ERR_USAGE, EINVAL, "user network: at most %d forwards",
                       NETIF_MAX_FORWARDS);
    struct netif_user *user = calloc(1, sizeof(*user));
    if (!user)
        return err_sys(err, ERR_HOST, ENOMEM, "user network");
    netif_child_init(&user->child, &kind);
    struct netif *netif = &user->child.netif;
    netif->ops = &ops;
    netif->info.mtu = (uint16_t)mtu;
    snprintf(netif->info.description, sizeof(netif->info.description), "user 10.0.2.0/24");
    user->forward_count = config->forward_count;
    for (unsigned i = 0; i < config->forward_count; i++)
        user->forwards[i] = config->forwards[i];

    int ret = find_helper(user, config->helper, err);
    /* What a person has asked for must stand before the guest runs. */
    if (ret == 0 && user->forward_count > 0)
        ret = netif_child_open(&user->child, err);
    else if (ret == 0)
        netif_child_open_later(&user->child);
    if (ret < 0) {
        destroy(netif);
        return ret;
    }
    *ret_netif = netif;
    return 0;
}
