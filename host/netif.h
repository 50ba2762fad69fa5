/* SPDX-License-Identifier: MIT */
/*
 * A network interface: where a guest's frames go, and come from. Narrow, so that one can stand
 * before another: a limiter does (netif_limit.c), and a gate (netif_gate.h).
 *
 * Every frame begins with a header of NETIF_HEADER bytes, struct virtio_net_hdr_v1 of the kernel
 * (little-endian), which says what is left to do: checksums to fill in, segments to cut. Interfaces
 * without offloads get, and give, headers of zeroes.
 *
 * An interface belongs to the loop that it is attached to; everything happens on its thread, or
 * while it stands still.
 */
#pragma once

#include "core/loop.h"
#include "host/shared_limits.h"
#include <sys/types.h>
#include <sys/uio.h>

enum { NETIF_HEADER = 12, NETIF_MAX_QUEUES = 8, NETIF_MAX_FRAME = NETIF_HEADER + 14 + 4 + 65535 };

/* Offloads: that the host end can finish what the guest leaves undone, and the other way round.
 * The names of the tap device's TUN_F_*. */
enum {
    NETIF_CSUM = 1,
    NETIF_TSO4 = 2,
    NETIF_TSO6 = 4,
    NETIF_TSO_ECN = 8,
};

enum { NETIF_READABLE = 1, NETIF_WRITABLE = 2 };

struct netif_handlers {
    void (*ready)(void *ctx, unsigned queue, unsigned what); /* NETIF_READABLE | NETIF_WRITABLE */
    void (*link_changed)(void *ctx, bool up);
    /* Something that a person should know: a sentence, not too often. */
    void (*trouble)(void *ctx, const char *sentence);
    void *ctx;
};

struct netif;

/* Handlers are called by the loop, never from within these (attach may have trouble to tell). */
struct netif_ops {
    const char *name; /* "tap" */
    int (*attach)(struct netif *netif, struct loop *loop, const struct netif_handlers *handlers,
                  struct err *err);
    void (*detach)(struct netif *netif); /* no handler is called any more; attach may follow */
    /* One frame, header first. Bytes taken, -EAGAIN: full, wait for WRITABLE; other errors: the
     * frame is lost. */
    ssize_t (*send)(struct netif *netif, unsigned queue, const struct iovec *iov, unsigned count);
    /* One frame into the buffers, header first. Its length (what does not fit is cut off), or
     * -EAGAIN: none waits. */
    ssize_t (*receive)(struct netif *netif, unsigned queue, const struct iovec *iov,
                       unsigned count);
    /* What `ready` shall tell of; it goes on telling as long as it is so. */
    void (*watch)(struct netif *netif, unsigned queue, unsigned what);
    /* How many queues are used, and which offloads frames for the guest may need: what its driver
     * has accepted. */
    int (*configure)(struct netif *netif, unsigned queues, unsigned offloads);
    struct netif *(*inner)(struct netif *netif); /* which this one stands before; NULL: none */
    void (*destroy)(struct netif *netif);        /* detached; takes half-built ones */
};

struct netif_info {
    unsigned max_queues;
    unsigned offloads; /* what this interface can do */
    uint16_t mtu;      /* 0: unknown, the guest's default */
    bool link_up;
    char description[64]; /* "tap web1", for people */
};

struct netif {
    const struct netif_ops *ops;
    struct netif_info info;
};

static inline struct netif *netif_inner(struct netif *netif)
{
    return netif->ops->inner ? netif->ops->inner(netif) : NULL;
}

static inline void netif_destroy(struct netif *netif)
{
    if (netif)
        netif->ops->destroy(netif);
}

enum netif_mode { NETIF_NONE, NETIF_USER, NETIF_PASST, NETIF_TAP, NETIF_BRIDGE };

struct netif_forward {
    bool udp;
    bool ipv6;             /* host_address is one */
    char host_address[46]; /* "" : all of the host's addresses */
    uint16_t host_port, guest_port;
};

enum { NETIF_MAX_FORWARDS = 64 };

struct netif_config {
    enum netif_mode mode;
    char name[16];   /* TAP: the device, "" for a new one; BRIDGE: the bridge to join */
    uint8_t mac[6];  /* the guest's; all zero: made by who creates the VM */
    unsigned queues; /* pairs; 0: one for each vCPU where the interface can, up to the maximum */
    uint16_t mtu;    /* 0: the interface's own */
    struct limits limits;         /* of each direction by itself */
    struct shared_limits *shared; /* with other interfaces; outlives it; NULL: none */
    bool limits_may_change;       /* netif_set_limits will do, also where there are none yet */
    bool gate;                    /* what is sent can be held (netif_gate.h) */
    const struct netif_forward *forwards;
    unsigned forward_count;
    const char *helper; /* USER: path of the helper program; NULL: beside our own program, then
                           where it is installed */
};

/* Before another one: lets only so much pass. Takes over `inner`, also on failure. */
int netif_limit_create(struct netif **ret_netif, struct netif *inner, const struct limits *limits,
                       struct shared_limits *shared, struct err *err) must_check;

/* Of this interface, from now on. -ENOTSUP: it was opened without limits_may_change. (any thread)
 */
int netif_set_limits(struct netif *netif, const struct limits *limits) must_check;

/* By mode, and the limiter and the gate where they are asked for. Errors name the device, the
 * missing right or package, and the mend. */
int netif_open(struct netif **ret_netif, const struct netif_config *config,
               struct err *err) must_check;

/* The parts of it. A tap of the given name is used if it is there, else created (CAP_NET_ADMIN). */
int netif_tap_open(struct netif **ret_netif, const struct netif_config *config,
                   struct err *err) must_check;
int netif_user_open(struct netif **ret_netif, const struct netif_config *config,
                    struct err *err) must_check;
int netif_passt_open(struct netif **ret_netif, const struct netif_config *config,
                     struct err *err) must_check;
