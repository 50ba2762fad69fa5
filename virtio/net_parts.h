/* SPDX-License-Identifier: MIT */
/*
 * What the files of the network device have in common: net.c (the device), net_receive.c,
 * net_send.c, net_filter.c (which frames the guest wants) and net_control.c (what its driver says
 * on the control queue). All functions: on the device's loop with its lock held, if not marked
 * otherwise.
 */
#pragma once

#include "core/pace.h"
#include "virtio/net.h"
#include "virtio/net_wire.h"

#define NET_FEATURE(name) (1ull << VIRTIO_NET_F_##name)

/* Features that the driver can switch while it runs (5.1.6.5.6). */
#define NET_GUEST_OFFLOADS                                                         \
    (NET_FEATURE(GUEST_CSUM) | NET_FEATURE(GUEST_TSO4) | NET_FEATURE(GUEST_TSO6) | \
     NET_FEATURE(GUEST_ECN))

enum {
    NET_QUEUE_SIZE = 256,
    NET_ETHERNET = 14,
    NET_VLAN_TAG = 4,
    NET_FRAMES_A_TURN = 64, /* one queue's; then others have theirs */
    NET_MACS = 64,          /* most addresses that are remembered, of each kind */
    NET_VLANS = 4096,

    /* Of the buffers that are held for the frame that may come next. A chain has at most
     * NET_QUEUE_SIZE segments, so one always fits. */
    NET_WINDOW = 2 * NET_QUEUE_SIZE,
};

/* --- state ---------------------------------------------------------------------------------- */

/* Configuration space (5.1.4), little-endian like every host that we run on. */
struct net_space {
    uint8_t mac[6];
    uint16_t status;
    uint16_t max_pairs;
    uint16_t mtu;
};

/* What the driver wants to receive. */
struct net_filter {
    uint32_t unicast_count, multicast_count;
    uint8_t unicast[NET_MACS][6];
    uint8_t multicast[NET_MACS][6];
    uint8_t vlans[NET_VLANS / 8]; /* a bit each */
    bool promiscuous, all_multicast, all_unicast, no_multicast, no_unicast, no_broadcast;
    bool many_unicast, many_multicast; /* more addresses than we remember: all pass */
};

struct net_state {
    struct virtio_state virtio;
    uint64_t offloads; /* of NET_GUEST_OFFLOADS, those in force */
    struct net_space space;
    uint16_t pairs; /* in use */
    bool cable;     /* net_set_link() */
    uint8_t reserved;
    struct net_filter filter;
};

extern const struct state_table net_filter_table; /* to be nested */

/* --- the device ----------------------------------------------------------------------------- */

struct net_pair {
    bool receiving; /* there are buffers, or may be: frames are waited for */
    bool blocked;   /* the interface is full: room is waited for */
    unsigned watched;
    size_t expected; /* bytes: how long the next frames may be, as the last ones were */
    uint8_t *held;   /* a frame that waits for more buffers: NETIF_MAX_FRAME bytes */
    size_t held_length;
};

/* Buffers for the next frames, popped: chains[first..end), with iov[iov_first..iov_end). Empty
 * between turns. */
struct net_window {
    unsigned first, end, iov_first, iov_end;
    size_t room;
    struct vring_chain chains[NET_WINDOW];
    struct iovec iov[NET_WINDOW + 1]; /* and one for what does not fit into them */
};

/* Work that belongs on the device's loop, but was found elsewhere. */
enum {
    NET_DUE_CONFIGURE = 1, /* tell the interface what the driver wants */
    NET_DUE_DISCARD = 2,   /* throw away what came before there was a driver */
    NET_DUE_RARP = 4,      /* tell the network where the guest is now */
};

struct net {
    struct virtio virtio;
    struct net_state state;
    struct netif *netif;
    struct netif_handlers handlers;
    struct net_config config;
    bool attached;
    bool link_up; /* the interface's own */
    unsigned due;
    bool cable_wanted, announce_wanted; /* asked for during a pause: for the resume... */
    bool cable_wish;                    /* ...and how the cable shall be then */
    unsigned pairs;                     /* that there are */
    struct net_stats stats;
    struct pace pace;
    struct net_pair pair[NETIF_MAX_QUEUES];
    struct net_window window;
    struct iovec send_iov[1 + NET_QUEUE_SIZE];
};

static inline bool net_has(const struct net *net, uint64_t feature)
{
    return virtio_has(&net->virtio, feature);
}

/* Pairs that the driver knows of, and those of them that it uses. */
unsigned net_known_pairs(const struct net *net);
unsigned net_used_pairs(const struct net *net);

/* Tells the interface what to wake us for. */
void net_watch(struct net *net, unsigned pair);
/* Tells it how many queues and which offloads the driver uses. */
int net_configure(struct net *net) must_check;

/* net_receive.c */
void net_receive(struct net *net, unsigned pair);
void net_discard(struct net *net, unsigned pair); /* what waits at the interface */

/* net_send.c */
void net_send(struct net *net, unsigned pair);

/* net_filter.c */
void net_filter_reset(struct net_filter *filter);
/* frame: its first bytes, NET_ETHERNET + NET_VLAN_TAG or fewer if it is so short. */
bool net_filter_passes(const struct net *net, const uint8_t *frame, size_t length);

/* net_control.c */
void net_control(struct net *net, unsigned queue);
