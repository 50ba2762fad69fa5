/* SPDX-License-Identifier: MIT */
/*
 * A wire that notes in which order frames arrive, and that can be full. Frames say what they are:
 * number of the span, number in the row; the rest follows from that, so that each byte of what
 * arrives can be looked at.
 */
#pragma once

#include "core/iov.h"
#include "host/netif.h"
#include "tests/unit/unit.h"
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

enum { QUEUES = 3, MOST_SEEN = 1 << 16, SMALLEST = 40 };

struct frame {
    unsigned queue; /* that it arrived on */
    uint64_t number, row;
    size_t length;
};

struct wire {
    struct netif netif;
    const struct netif_handlers *handlers;
    struct loop *loop;
    struct loop_call tell;
    unsigned watched[QUEUES];
    bool full[QUEUES];
    unsigned room; /* frames that it takes before all of it is full */
    int refusal;   /* what it answers */
    struct frame seen[MOST_SEEN];
    _Atomic unsigned seen_count;
    void (*arrived)(const struct frame *frame);
    unsigned configured_queues, configured_offloads;
    bool destroyed;
};

static inline uint8_t byte_of(uint64_t row, size_t at)
{
    return (uint8_t)(row * 31 + at * 7 + (at >> 8));
}

static inline bool wire_is_full(const struct wire *wire, unsigned queue)
{
    return wire->full[queue] || wire->room == 0;
}

static inline void wire_handle_tell(void *arg)
{
    struct wire *wire = arg;
    bool again = false;

    for (unsigned queue = 0; queue < QUEUES; queue++) {
        unsigned what = wire->watched[queue];
        if (wire_is_full(wire, queue))
            what &= ~(unsigned)NETIF_WRITABLE;
        if (what && wire->handlers)
            wire->handlers->ready(wire->handlers->ctx, queue, what);
        again |= what && wire->watched[queue] == what;
    }
    if (again && wire->handlers)
        loop_post(wire->loop, &wire->tell);
}

static inline int wire_attach(struct netif *netif, struct loop *loop,
                              const struct netif_handlers *handlers, struct err *err)
{
    struct wire *wire = container_of(netif, struct wire, netif);

    wire->handlers = handlers;
    wire->loop = loop;
    netif->info.link_up = true;
    memset(wire->watched, 0, sizeof(wire->watched));
    return 0;
}

static inline void wire_detach(struct netif *netif)
{
    container_of(netif, struct wire, netif)->handlers = NULL;
}

static inline ssize_t wire_send(struct netif *netif, unsigned queue, const struct iovec *iov,
                                unsigned count)
{
    struct wire *wire = container_of(netif, struct wire, netif);
    static _Thread_local uint8_t bytes[NETIF_MAX_FRAME];
    struct frame frame = {.queue = queue, .length = iov_size(iov, count)};

    ck_assert(wire->handlers);
    if (wire->refusal)
        return wire->refusal;
    if (wire_is_full(wire, queue))
        return -EAGAIN;
    wire->room--;
    ck_assert_uint_le(frame.length, sizeof(bytes));
    ck_assert_uint_eq(iov_read(iov, count, 0, bytes, sizeof(bytes)), frame.length);
    memcpy(&frame.number, bytes, sizeof(frame.number));
    memcpy(&frame.row, bytes + sizeof(frame.number), sizeof(frame.row));
    for (size_t at = sizeof(frame.number) + sizeof(frame.row); at < frame.length; at++)
        if (bytes[at] != byte_of(frame.row, at))
            ck_abort_msg("byte %zu of frame %llu has changed", at, (unsigned long long)frame.row);
    if (wire->arrived)
        wire->arrived(&frame);
    wire->seen[wire->seen_count % MOST_SEEN] = frame;
    wire->seen_count++;
    return (ssize_t)frame.length;
}

static inline ssize_t wire_receive(struct netif *netif, unsigned queue, const struct iovec *iov,
                                   unsigned count)
{
    static const char words[] = "for the guest";

    if (queue == 0)
        return -EAGAIN;
    return (ssize_t)iov_write(iov, count, 0, words, sizeof(words));
}

static inline void wire_watch(struct netif *netif, unsigned queue, unsigned what)
{
    struct wire *wire = container_of(netif, struct wire, netif);

    wire->watched[queue] = what;
    if (what)
        loop_post(wire->loop, &wire->tell);
}

static inline int wire_configure(struct netif *netif, unsigned queues, unsigned offloads)
{
    struct wire *wire = container_of(netif, struct wire, netif);

    if (queues > QUEUES)
        return -EINVAL;
    wire->configured_queues = queues;
    wire->configured_offloads = offloads;
    return 0;
}

static inline void wire_destroy(struct netif *netif)
{
    container_of(netif, struct wire, netif)->destroyed = true;
}

static const struct netif_ops wire_ops = {.name = "wire",
                                          .attach = wire_attach,
                                          .detach = wire_detach,
                                          .send = wire_send,
                                          .receive = wire_receive,
                                          .watch = wire_watch,
                                          .configure = wire_configure,
                                          .destroy = wire_destroy};

/* It has room again. */
static inline void wire_go_on(struct wire *wire, unsigned room)
{
    wire->room = room;
    memset(wire->full, 0, sizeof(wire->full));
    loop_post(wire->loop, &wire->tell);
}
