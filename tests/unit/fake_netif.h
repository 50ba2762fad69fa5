/* SPDX-License-Identifier: MIT */
/* A network interface for tests: frames lie in memory, and nothing happens by itself. */
#pragma once

#include "core/iov.h"
#include "host/netif.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RIG_FIFO = 1024 };

struct rig_frame {
    uint8_t *bytes;
    size_t length;
};

struct rig_fifo {
    struct rig_frame frames[RIG_FIFO];
    unsigned first, count;
};

/* The interface: what comes for the guest, and what has come from it. */
struct rig_netif {
    struct netif netif;
    const struct netif_handlers *handlers;
    struct rig_fifo in[NETIF_MAX_QUEUES], out[NETIF_MAX_QUEUES];
    unsigned watched[NETIF_MAX_QUEUES];
    bool full[NETIF_MAX_QUEUES];
    unsigned queues, offloads, configured; /* what configure() said, and how often */
    int refusal;                           /* what it answers */
};

static inline void rig_require(bool promise, const char *words)
{
    if (promise)
        return;
    fprintf(stderr, "rig: %s\n", words);
    abort();
}

static inline void rig_put(struct rig_fifo *fifo, const void *bytes, size_t length)
{
    struct rig_frame *frame = &fifo->frames[(fifo->first + fifo->count++) % RIG_FIFO];
    rig_require(fifo->count <= RIG_FIFO, "too many frames");
    frame->bytes = malloc(length);
    rig_require(frame->bytes, "no memory");
    memcpy(frame->bytes, bytes, length);
    frame->length = length;
}

/* The oldest frame, which the caller frees; bytes NULL: none. */
static inline struct rig_frame rig_get(struct rig_fifo *fifo)
{
    if (fifo->count == 0)
        return (struct rig_frame){0};
    struct rig_frame frame = fifo->frames[fifo->first];
    fifo->first = (fifo->first + 1) % RIG_FIFO;
    fifo->count--;
    return frame;
}

static inline void rig_empty(struct rig_fifo *fifo)
{
    while (fifo->count > 0)
        free(rig_get(fifo).bytes);
}

static inline int rig_attach(struct netif *netif, struct loop *loop,
                             const struct netif_handlers *handlers, struct err *err)
{
    container_of(netif, struct rig_netif, netif)->handlers = handlers;
    return 0;
}

static inline void rig_detach(struct netif *netif)
{
    container_of(netif, struct rig_netif, netif)->handlers = NULL;
}

static inline ssize_t rig_send(struct netif *netif, unsigned queue, const struct iovec *iov,
                               unsigned count)
{
    struct rig_netif *rig = container_of(netif, struct rig_netif, netif);
    static uint8_t bytes[NETIF_MAX_FRAME];
    size_t length = iov_size(iov, count);

    rig_require(queue < rig->netif.info.max_queues, "no such queue");
    rig_require(length <= sizeof(bytes), "a frame is too long");
    rig_require(length >= NETIF_HEADER + 14, "a frame is too short");
    if (rig->full[queue])
        return -EAGAIN;
    iov_read(iov, count, 0, bytes, length);
    if (rig->out[queue].count < RIG_FIFO)
        rig_put(&rig->out[queue], bytes, length);
    return (ssize_t)length;
}

static inline ssize_t rig_receive(struct netif *netif, unsigned queue, const struct iovec *iov,
                                  unsigned count)
{
    struct rig_netif *rig = container_of(netif, struct rig_netif, netif);
    struct rig_frame frame = rig_get(&rig->in[queue]);

    if (!frame.bytes)
        return -EAGAIN;
    size_t length = iov_write(iov, count, 0, frame.bytes, frame.length);
    free(frame.bytes);
    return (ssize_t)length;
}

static inline void rig_watch(struct netif *netif, unsigned queue, unsigned what)
{
    container_of(netif, struct rig_netif, netif)->watched[queue] = what;
}

static inline int rig_configure(struct netif *netif, unsigned queues, unsigned offloads)
{
    struct rig_netif *rig = container_of(netif, struct rig_netif, netif);
    if (rig->refusal)
        return rig->refusal;
    rig->queues = queues;
    rig->offloads = offloads;
    rig->configured++;
    return 0;
}

static const struct netif_ops rig_ops = {.name = "rig",
                                         .attach = rig_attach,
                                         .detach = rig_detach,
                                         .send = rig_send,
                                         .receive = rig_receive,
                                         .watch = rig_watch,
                                         .configure = rig_configure};
