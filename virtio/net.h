/* SPDX-License-Identifier: MIT */
/* A network interface for the guest (virtio 1.2, section 5.1), on a thread of its own. */
#pragma once

#include "host/netif.h"
#include "virtio/virtio.h"

struct net;

struct net_config {
    const char *name;    /* of its thread: "net0" */
    struct netif *netif; /* the caller's; attached to the device's loop; outlives it */
    uint8_t mac[6];
    unsigned queues; /* pairs: 1..NETIF_MAX_QUEUES */
    uint16_t mtu;    /* 0: not told to the guest */
    /* What a person should know of the interface. On the device's thread, or from net_create();
     * calls nothing of this device. NULL: nobody listens. */
    void (*trouble)(void *ctx, const char *sentence);
    /* What net_announce asked for has left. On the device's thread, under its lock; NULL. */
    void (*announced)(void *ctx);
    void *ctx;
};

struct net_stats {
    uint64_t received, sent;             /* frames, from the guest's point of view */
    uint64_t received_bytes, sent_bytes; /* of them, without virtio's header */
    /* Those that were meant for the guest and too large for its buffers, or that the interface
     * could not take, or that broke a rule. */
    uint64_t receive_dropped, send_dropped;
    uint64_t filtered;      /* frames that the guest had not asked for */
    uint64_t first_sent_ns; /* when the first one was sent (clock_boot_ns); 0: none */
};

int net_create(struct net **ret_net, const struct virtio_world *world,
               const struct net_config *config, struct err *err) must_check;
struct virtio *net_virtio(struct net *net);

/* The cable: what the guest sees is this and the interface's own link together. (any thread) */
void net_set_link(struct net *net, bool up);
/* Makes the guest known on the network (it has moved), and asks it to do so itself; after a pause,
 * if there is one. False: not now, because its driver or the link is not up. (any thread) */
bool net_announce(struct net *net);

void net_stats(struct net *net, struct net_stats *ret_stats); /* (any thread) */
