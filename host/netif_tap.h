/* SPDX-License-Identifier: MIT */
/* What netif_tap.c (frames, link, queues) and netif_tap_open.c (finding or making the device) have
 * in common. */
#pragma once

#include "host/netif.h"
#include "host/rtlink.h"
#include <net/if.h>

enum { TAP_OFFLOADS = NETIF_CSUM | NETIF_TSO4 | NETIF_TSO6 | NETIF_TSO_ECN };

struct tap;

struct tap_queue {
    struct tap *tap;
    unsigned index;
    int fd;
    bool attached; /* to the device: a detached queue gives only errors */
    unsigned what; /* NETIF_READABLE | NETIF_WRITABLE: what is to be watched */
    struct loop_io io;
};

struct tap {
    struct netif netif;
    char name[IFNAMSIZ];
    int index;  /* the kernel's number of the device, which stays when it is renamed */
    bool multi; /* IFF_MULTI_QUEUE */
    bool gone;  /* deleted under us */
    char note[160];
    struct rtlink link;
    struct loop *loop; /* while attached */
    const struct netif_handlers *handlers;
    struct loop_io link_io;
    unsigned queue_count;
    struct tap_queue queues[NETIF_MAX_QUEUES];
};

extern const struct netif_ops tap_ops;

int tap_configure(struct netif *netif, unsigned queues, unsigned offloads) must_check;
void tap_destroy(struct netif *netif);
