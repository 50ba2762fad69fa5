/* SPDX-License-Identifier: MIT */
/*
 * A tap device: frames go to, and come from, the host's own network stack, with the kernel doing
 * the offloads. One descriptor is one queue.
 *
 * The link is up while the device is (administratively, and its carrier): told by rtnetlink. A tap
 * that is deleted under us reports an error from poll for ever; then nothing is polled any more,
 * the link is down, and that is said once.
 */
#include "host/netif_tap.h"

#include <errno.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

_Static_assert(NETIF_CSUM == TUN_F_CSUM && NETIF_TSO4 == TUN_F_TSO4 && NETIF_TSO6 == TUN_F_TSO6 &&
                   NETIF_TSO_ECN == TUN_F_TSO_ECN,
               "offloads have the kernel's bits");

static struct tap *to_tap(struct netif *netif)
{
    return container_of(netif, struct tap, netif);
}

/* --- frames --------------------------------------------------------------------------------- */

static ssize_t tap_send(struct netif *netif, unsigned queue, const struct iovec *iov,
                        unsigned count)
{
    const struct tap *tap = to_tap(netif);
    const struct tap_queue *q = &tap->queues[queue];

    if (!q->attached || tap->gone)
        return -ENETDOWN;
    ssize_t sent = writev(q->fd, iov, (int)count);
    return sent < 0 ? -errno : sent;
}

static ssize_t tap_receive(struct netif *netif, unsigned queue, const struct iovec *iov,
                           unsigned count)
{
    const struct tap *tap = to_tap(netif);
    const struct tap_queue *q = &tap->queues[queue];

    if (!q->attached || tap->gone)
        return -EAGAIN;
    ssize_t got = readv(q->fd, iov, (int)count);
    if (got < 0)
        return errno == EBADFD ? -EAGAIN : -errno; /* deleted: poll will say so */
    return got;
}

/* --- what is watched ------------------------------------------------------------------------ */

static void watch_queue(struct tap_queue *q)
{
    const struct tap *tap = q->tap;
    unsigned events = (q->what & NETIF_READABLE ? LOOP_READ : 0u) |
                      (q->what & NETIF_WRITABLE ? LOOP_WRITE : 0u);

    if (!tap->loop)
        return;
    loop_io_watch(tap->loop, &q->io, q->attached && !tap->gone ? events : 0);
}

static void tap_watch(struct netif *netif, unsigned queue, unsigned what)
{
    struct tap_queue *q = &to_tap(netif)->queues[queue];

    q->what = what;
    watch_queue(q);
}

static void set_link(struct tap *tap, bool up)
{
    if (up == tap->netif.info.link_up)
        return;
    tap->netif.info.link_up = up;
    tap->handlers->link_changed(tap->handlers->ctx, up);
}

/* Poll says of a deleted device that there is an error, and for ever. */
static bool is_deleted(const struct tap *tap)
{
    struct pollfd fd = {.fd = tap->queues[0].fd};
    return poll(&fd, 1, 0) > 0 && (fd.revents & POLLERR);
}

static void lose_device(struct tap *tap)
{
    char sentence[96];

    if (tap->gone)
        return;
    tap->gone = true;
    for (unsigned i = 0; i < tap->queue_count; i++)
        watch_queue(&tap->queues[i]);
    set_link(tap, false);
    snprintf(sentence, sizeof(sentence), "tap %s was deleted: the guest has no link any more",
             tap->name);
    tap->handlers->trouble(tap->handlers->ctx, sentence);
}

static void handle_io(void *arg, unsigned events)
{
    struct tap_queue *q = arg;
    struct tap *tap = q->tap;

    if ((events & LOOP_HANGUP) && is_deleted(tap)) {
        lose_device(tap);
        return;
    }
    unsigned what = (events & LOOP_READ ? NETIF_READABLE : 0u) |
                    (events & LOOP_WRITE ? NETIF_WRITABLE : 0u);
    if (what & q->what)
        tap->handlers->ready(tap->handlers->ctx, q->index, what & q->what);
}

static void handle_link(void *arg, unsigned events)
{
    struct tap *tap = arg;

    switch (rtlink_read(&tap->link, tap->index)) {
    case RTLINK_UP:
        set_link(tap, !tap->gone);
        break;
    case RTLINK_DOWN:
        set_link(tap, false);
        break;
    case RTLINK_REMOVED: /* or moved into another network namespace, where it still works */
        if (is_deleted(tap))
            lose_device(tap);
        break;
    case RTLINK_SAME:
        break;
    }
}

static void tap_detach(struct netif *netif)
{
    struct tap *tap = to_tap(netif);

    if (!tap->loop)
        return;
    for (unsigned i = 0; i < tap->queue_count; i++)
        loop_io_remove(tap->loop, &tap->queues[i].io);
    loop_io_remove(tap->loop, &tap->link_io);
    tap->loop = NULL;
}

static int tap_attach(struct netif *netif, struct loop *loop, const struct netif_handlers *handlers,
                      struct err *err)
{
    struct tap *tap = to_tap(netif);
    unsigned added = 0;

    tap->handlers = handlers;
    tap->link_io = (struct loop_io){
        .fd = tap->link.fd, .events = LOOP_READ, .handle = handle_link, .arg = tap};
    int ret = loop_io_add(loop, &tap->link_io, err);
    if (ret < 0)
        return ret;
    for (; added < tap->queue_count; added++) {
        struct tap_queue *q = &tap->queues[added];
        q->what = 0;
        q->io = (struct loop_io){.fd = q->fd, .handle = handle_io, .arg = q};
        ret = loop_io_add(loop, &q->io, err);
        if (ret < 0)
            goto fail;
    }
    tap->loop = loop;
    if (tap->note[0])
        handlers->trouble(handlers->ctx, tap->note);
    tap->note[0] = 0;
    return 0;
fail:
    while (added-- > 0)
        loop_io_remove(loop, &tap->queues[added].io);
    loop_io_remove(loop, &tap->link_io);
    return ret;
}

/* --- queues and offloads -------------------------------------------------------------------- */

static int attach_queue(struct tap_queue *q, bool attach)
{
    struct ifreq request = {.ifr_flags = attach ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE};

    if (q->attached == attach)
        return 0;
    if (!attach) {
        q->attached = false;
        watch_queue(q); /* before: poll of a detached queue is an error */
    }
    if (ioctl(q->fd, TUNSETQUEUE, &request) < 0)
        return -errno;
    q->attached = attach;
    watch_queue(q);
    return 0;
}

int tap_configure(struct netif *netif, unsigned queues, unsigned offloads)
{
    struct tap *tap = to_tap(netif);

    if (queues < 1 || queues > tap->queue_count)
        return -EINVAL;
    if (tap->gone)
        return 0;
    if (!(offloads & NETIF_CSUM))
        offloads = 0; /* segments come without checksums, so one goes not without the other */
    if (ioctl(tap->queues[0].fd, TUNSETOFFLOAD, (unsigned long)(offloads & TAP_OFFLOADS)) < 0)
        return -errno;
    for (unsigned i = 0; i < tap->queue_count; i++) {
        int ret = attach_queue(&tap->queues[i], i < queues);
        if (ret < 0)
            return ret;
    }
    return 0;
}

void tap_destroy(struct netif *netif)
{
    struct tap *tap = to_tap(netif);

    for (unsigned i = 0; i < tap->queue_count; i++)
        close(tap->queues[i].fd);
    rtlink_finish(&tap->link);
    free(tap);
}

const struct netif_ops tap_ops = {
    .name = "tap",
    .attach = tap_attach,
    .detach = tap_detach,
    .send = tap_send,
    .receive = tap_receive,
    .watch = tap_watch,
    .configure = tap_configure,
    .destroy = tap_destroy,
};
