/* SPDX-License-Identifier: MIT */
/*
 * A network interface before another one, through which only so many frames and bytes a second
 * pass, in each direction. Bytes are those of Ethernet. A frame that is still to be cut into
 * segments counts once: what is limited is what the guest and its host have to do.
 *
 * Who may not pass gets what a full, or an empty, interface would say; then the inner interface is
 * not watched for that until a timer says that it is time. Each queue passes for itself, so that
 * none starves beside another.
 */
#include "host/netif.h"

#include <errno.h>
#include <stdlib.h>

/* Lanes of the limits. */
enum { SEND, RECEIVE };

static const unsigned readiness[LIMITS_LANES] = {
    [SEND] = NETIF_WRITABLE, [RECEIVE] = NETIF_READABLE};

struct queue {
    unsigned watched; /* by the client */
    unsigned waits;   /* of these, what it is not time for */
    struct limiter_pass passes[LIMITS_LANES];
};

struct limit {
    struct netif netif;
    struct netif *inner;
    struct limiter limiter;
    const struct netif_handlers *client;
    struct netif_handlers handlers;
    struct queue queues[NETIF_MAX_QUEUES];
};

static struct limit *limit_of(struct netif *netif)
{
    return container_of(netif, struct limit, netif);
}

/* --- waiting -------------------------------------------------------------------------------- */

static void watch_inner(struct limit *limit, unsigned queue)
{
    const struct queue *q = &limit->queues[queue];
    limit->inner->ops->watch(limit->inner, queue, q->watched & ~q->waits);
}

static bool must_wait(struct limit *limit, unsigned queue, unsigned lane)
{
    struct queue *q = &limit->queues[queue];

    if (!limiter_applies(&limit->limiter) ||
        !limiter_holds(&limit->limiter, &q->passes[lane], clock_monotonic_ns()))
        return false;
    q->waits |= readiness[lane];
    watch_inner(limit, queue);
    return true;
}

static void book(struct limit *limit, unsigned queue, unsigned lane, size_t length)
{
    size_t bytes = length > NETIF_HEADER ? length - NETIF_HEADER : 0;

    if (limiter_applies(&limit->limiter))
        limiter_book(&limit->limiter, lane, &limit->queues[queue].passes[lane], 1, bytes,
                     clock_monotonic_ns());
}

/* The client is not told from here: the inner interface does that, if it is ready. */
static void handle_timer(void *arg)
{
    struct limit *limit = arg;
    uint64_t now = clock_monotonic_ns();

    limiter_woke(&limit->limiter);
    for (unsigned queue = 0; queue < limit->netif.info.max_queues; queue++) {
        struct queue *q = &limit->queues[queue];
        unsigned waits = q->waits;
        for (unsigned lane = 0; lane < LIMITS_LANES; lane++)
            if ((waits & readiness[lane]) && !limiter_holds(&limit->limiter, &q->passes[lane], now))
                q->waits &= ~readiness[lane];
        if (q->waits != waits)
            watch_inner(limit, queue);
    }
}

/* --- frames --------------------------------------------------------------------------------- */

static ssize_t limit_send(struct netif *netif, unsigned queue, const struct iovec *iov,
                          unsigned count)
{
    struct limit *limit = limit_of(netif);

    if (must_wait(limit, queue, SEND))
        return -EAGAIN;
    ssize_t sent = limit->inner->ops->send(limit->inner, queue, iov, count);
    if (sent >= 0)
        book(limit, queue, SEND, (size_t)sent);
    return sent;
}

static ssize_t limit_receive(struct netif *netif, unsigned queue, const struct iovec *iov,
                             unsigned count)
{
    struct limit *limit = limit_of(netif);

    if (must_wait(limit, queue, RECEIVE))
        return -EAGAIN;
    ssize_t got = limit->inner->ops->receive(limit->inner, queue, iov, count);
    if (got >= 0)
        book(limit, queue, RECEIVE, (size_t)got);
    return got;
}

static void limit_watch(struct netif *netif, unsigned queue, unsigned what)
{
    struct limit *limit = limit_of(netif);

    limit->queues[queue].watched = what;
    watch_inner(limit, queue);
}

/* --- the rest passes ------------------------------------------------------------------------ */

static void handle_ready(void *ctx, unsigned queue, unsigned what)
{
    const struct limit *limit = ctx;
    limit->client->ready(limit->client->ctx, queue, what);
}

static void handle_link(void *ctx, bool up)
{
    struct limit *limit = ctx;
    limit->netif.info.link_up = up;
    limit->client->link_changed(limit->client->ctx, up);
}

static void handle_trouble(void *ctx, const char *sentence)
{
    const struct limit *limit = ctx;
    limit->client->trouble(limit->client->ctx, sentence);
}

static void limit_detach(struct netif *netif)
{
    struct limit *limit = limit_of(netif);

    limiter_detach(&limit->limiter);
    limit->inner->ops->detach(limit->inner);
    for (unsigned queue = 0; queue < NETIF_MAX_QUEUES; queue++)
        limit->queues[queue].watched = limit->queues[queue].waits = 0;
}

static int limit_attach(struct netif *netif, struct loop *loop,
                        const struct netif_handlers *handlers, struct err *err)
{
    struct limit *limit = limit_of(netif);

    limit->client = handlers;
    int r = limit->inner->ops->attach(limit->inner, loop, &limit->handlers, err);
    if (r < 0)
        return r;
    limit->netif.info = limit->inner->info;
    limiter_attach(&limit->limiter, loop, handle_timer, limit);
    return 0;
}

static int limit_configure(struct netif *netif, unsigned queues, unsigned offloads)
{
    struct limit *limit = limit_of(netif);
    return limit->inner->ops->configure(limit->inner, queues, offloads);
}

static struct netif *limit_inner(struct netif *netif)
{
    return limit_of(netif)->inner;
}

static void limit_destroy(struct netif *netif)
{
    struct limit *limit = limit_of(netif);

    netif_destroy(limit->inner);
    limiter_finish(&limit->limiter);
    free(limit);
}

static const struct netif_ops ops = {
    .name = "limit",
    .attach = limit_attach,
    .detach = limit_detach,
    .send = limit_send,
    .receive = limit_receive,
    .watch = limit_watch,
    .configure = limit_configure,
    .inner = limit_inner,
    .destroy = limit_destroy,
};

int netif_set_limits(struct netif *netif, const struct limits *limits)
{
    while (netif && netif->ops != &ops)
        netif = netif_inner(netif);
    if (!netif)
        return -ENOTSUP;
    shared_limits_set(limit_of(netif)->limiter.limits[0], limits);
    return 0;
}

int netif_limit_create(struct netif **ret_netif, struct netif *inner, const struct limits *limits,
                       struct shared_limits *shared, struct err *err)
{
    struct limit *limit = calloc(1, sizeof(*limit));

    if (!limit) {
        netif_destroy(inner);
        return err_sys(err, ERR_HOST, ENOMEM, "cannot set up limits");
    }
    limit->netif = (struct netif){.ops = &ops, .info = inner->info};
    limit->inner = inner;
    limit->handlers = (struct netif_handlers){.ready = handle_ready,
                                              .link_changed = handle_link,
                                              .trouble = handle_trouble,
                                              .ctx = limit};
    int r = limiter_init(&limit->limiter, limits, shared, err);
    if (r < 0) {
        limit_destroy(&limit->netif);
        return r;
    }
    *ret_netif = &limit->netif;
    return 0;
}
