/* SPDX-License-Identifier: MIT */
/*
 * Frames for the guest (virtio 1.2, section 5.1.6.4). The interface writes them straight into the
 * driver's buffers: which takes guessing, as a frame's length is not known before it has come. We
 * pop buffers for a frame as long as the last ones were, and add a buffer of our own at the end.
 * A frame that was longer than the guess ends there; it is put together in our buffer and copied as
 * soon as the driver has given enough buffers. So a wrong guess costs one copy, and never a frame.
 *
 * A frame takes as many buffers as it needs where the driver knows of merging, else one.
 *
 * Without buffers the interface is not watched, so its frames wait there, and the driver is asked
 * to tell of new buffers. At all other times it need not tell.
 */
#include "virtio/net_parts.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

enum progress {
    MORE,  /* a frame was dealt with */
    QUIET, /* no frame waits */
    DRY,   /* there are not enough buffers */
    STOP,  /* the ring is broken */
};

/* --- the window ------------------------------------------------------------------------------ */

static void put_back(struct net_window *window, struct vring *ring)
{
    vring_unpop(ring, window->end - window->first);
    window->first = window->end = window->iov_first = window->iov_end = 0;
    window->room = 0;
}

/* Pops one more. MORE; QUIET: the window itself is full. */
static enum progress add_chain(struct net *net, struct vring *ring)
{
    struct net_window *window = &net->window;

    if (window->end == NET_WINDOW) {
        if (window->first == 0)
            return QUIET;
        put_back(window, ring);
    }
    struct vring_chain *chain = &window->chains[window->end];
    chain->iov = window->iov + window->iov_end;
    chain->capacity = NET_WINDOW - window->iov_end;
    int got = vring_pop(ring, chain);
    if (got == -E2BIG && window->iov_end > 0) {
        vring_unpop(ring, 1);
        if (window->iov_first == 0)
            return QUIET;
        put_back(window, ring);
        return MORE; /* of the same, now that there is space */
    }
    if (got == 0)
        return DRY;
    if (got < 0 || chain->readable > 0 || chain->writable == 0) /* 5.1.6.3.1 */
        return STOP;
    window->end++;
    window->iov_end += chain->writable;
    window->room += chain->writable_bytes;
    return MORE;
}

/* Buffers for so many bytes, if there are so many. Without merging it is one buffer anyway. */
static enum progress fill(struct net *net, struct vring *ring, size_t wanted)
{
    struct net_window *window = &net->window;
    bool merging = net_has(net, NET_FEATURE(MRG_RXBUF));
    enum progress progress = MORE;

    while (progress == MORE && (window->end == window->first || (merging && window->room < wanted)))
        progress = add_chain(net, ring);
    return progress;
}

/* Gives the driver the first buffers of the window, which have `length` bytes of a frame. */
static void give(struct net_window *window, struct vring *ring, size_t length)
{
    while (length > 0) {
        struct vring_chain *chain = &window->chains[window->first++];
        size_t part = chain->writable_bytes < length ? chain->writable_bytes : length;
        vring_push(ring, chain, (uint32_t)part);
        length -= part;
        window->room -= chain->writable_bytes;
        window->iov_first += chain->writable;
    }
}

static unsigned count_buffers(const struct net_window *window, size_t length)
{
    unsigned count = 0;

    for (size_t bytes = 0; bytes < length; count++)
        bytes += window->chains[window->first + count].writable_bytes;
    return count;
}

/* --- a frame --------------------------------------------------------------------------------- */

static uint64_t gso_feature(uint8_t type)
{
    uint64_t ecn = type & VIRTIO_NET_HDR_GSO_ECN ? NET_FEATURE(GUEST_ECN) : 0;

    switch (type & ~VIRTIO_NET_HDR_GSO_ECN) {
    case VIRTIO_NET_HDR_GSO_NONE:
        return 0;
    case VIRTIO_NET_HDR_GSO_TCPV4:
        return ecn | NET_FEATURE(GUEST_TSO4);
    case VIRTIO_NET_HDR_GSO_TCPV6:
        return ecn | NET_FEATURE(GUEST_TSO6);
    default:
        return ~0ull;
    }
}

/*
 * Whether the guest wants the frame, and can do with it what is left to do. It cannot where the
 * driver has changed its mind after the interface made the frame.
 */
static bool is_wanted(struct net *net, const uint8_t *bytes, size_t length)
{
    const struct virtio_net_hdr_v1 *header = (const void *)bytes;
    uint64_t needed = gso_feature(header->gso_type);

    if (header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)
        needed |= NET_FEATURE(GUEST_CSUM);
    if (needed & ~net->state.offloads) {
        net->stats.receive_dropped++;
        return false;
    }
    if (!net_filter_passes(net, bytes + NETIF_HEADER, length - NETIF_HEADER)) {
        net->stats.filtered++;
        return false;
    }
    return true;
}

enum { LOOKED_AT = NETIF_HEADER + NET_ETHERNET + NET_VLAN_TAG };

/* The window has the whole frame: completes its header, and gives it to the driver. */
static void deliver(struct net *net, struct vring *ring, size_t length)
{
    struct net_window *window = &net->window;
    const struct iovec *iov = window->iov + window->iov_first;
    unsigned segments = window->iov_end - window->iov_first;
    uint16_t count = htole16((uint16_t)count_buffers(window, length));

    iov_write(iov, segments, offsetof(struct virtio_net_hdr_v1, num_buffers), &count,
              sizeof(count));
    if (!(net->state.offloads & NET_FEATURE(GUEST_CSUM))) /* 5.1.6.4.1 */
        iov_fill(iov, segments, offsetof(struct virtio_net_hdr_v1, flags), 0, 1);
    give(window, ring, length);
    net->stats.received++;
    net->stats.received_bytes += length - NETIF_HEADER;
}

/* Frames of one connection are alike: a longer one is believed at once, shorter ones slowly. */
static void expect(struct net *net, struct net_pair *pair, size_t length)
{
    size_t least = NETIF_HEADER + NET_ETHERNET + NET_VLAN_TAG +
                   (net->state.space.mtu ? net->state.space.mtu : 1500u);

    if (length < least)
        length = least;
    if (length >= pair->expected)
        pair->expected = length;
    else
        pair->expected -= (pair->expected - length + 15) / 16;
}

/* The frame that waits, once there are buffers for all of it. */
static enum progress deliver_held(struct net *net, struct vring *ring, struct net_pair *pair)
{
    struct net_window *window = &net->window;

    if (!is_wanted(net, pair->held, pair->held_length)) {
        pair->held_length = 0;
        return MORE;
    }
    enum progress progress = fill(net, ring, pair->held_length);
    if (progress == STOP)
        return STOP;
    if (window->room >= pair->held_length) {
        iov_write(window->iov + window->iov_first, window->iov_end - window->iov_first, 0,
                  pair->held, pair->held_length);
        deliver(net, ring, pair->held_length);
    } else if (progress == DRY && window->end - window->first < ring->size) {
        return DRY;
    } else { /* all that the driver can give is too little */
        net->stats.receive_dropped++;
    }
    pair->held_length = 0;
    return MORE;
}

/* The frame did not fit: its end is in our buffer, where it belongs, and now its beginning too. */
static void hold(struct net *net, struct net_pair *pair, size_t length)
{
    struct net_window *window = &net->window;

    iov_read(window->iov + window->iov_first, window->iov_end - window->iov_first, 0, pair->held,
             window->room);
    if (net_has(net, NET_FEATURE(MRG_RXBUF)))
        pair->held_length = length;
    else
        net->stats.receive_dropped++;
}

/* The interface writes into the window, and behind it into our buffer. */
static ssize_t take_frame(struct net *net, unsigned index)
{
    struct net_window *window = &net->window;
    struct net_pair *pair = &net->pair[index];
    unsigned segments = window->iov_end - window->iov_first;

    if (window->room < NETIF_MAX_FRAME)
        window->iov[window->iov_first + segments++] = (struct iovec){
            .iov_base = pair->held + window->room, .iov_len = NETIF_MAX_FRAME - window->room};
    return net->netif->ops->receive(net->netif, index, window->iov + window->iov_first, segments);
}

static enum progress receive_one(struct net *net, struct vring *ring, unsigned index)
{
    struct net_window *window = &net->window;
    struct net_pair *pair = &net->pair[index];
    _Alignas(8) uint8_t bytes[LOOKED_AT];

    if (pair->held_length > 0)
        return deliver_held(net, ring, pair);
    if (fill(net, ring, pair->expected) == STOP)
        return STOP;
    if (window->room == 0)
        return DRY;
    ssize_t got = take_frame(net, index);
    if (got < 0)
        return QUIET;
    size_t length = (size_t)got;
    expect(net, pair, length);
    if (length < NETIF_HEADER + NET_ETHERNET) {
        net->stats.receive_dropped++;
    } else if (length > window->room) {
        hold(net, pair, length);
    } else {
        size_t looked_at = iov_read(window->iov + window->iov_first,
                                    window->iov_end - window->iov_first, 0, bytes,
                                    length < LOOKED_AT ? length : LOOKED_AT);
        if (is_wanted(net, bytes, looked_at))
            deliver(net, ring, length);
    }
    return MORE;
}

/* A cable that is not plugged in: what comes is lost. True while more may come. */
static bool lose_one(struct net *net, unsigned index)
{
    uint8_t bytes[NETIF_HEADER + NET_ETHERNET];
    struct iovec iov = {.iov_base = bytes, .iov_len = sizeof(bytes)};

    return net->netif->ops->receive(net->netif, index, &iov, 1) >= 0;
}

void net_discard(struct net *net, unsigned pair)
{
    enum { MOST = 4096 }; /* more than an interface has in its queue */

    net->pair[pair].held_length = 0;
    for (unsigned i = 0; i < MOST && lose_one(net, pair); i++)
        continue;
}

void net_receive(struct net *net, unsigned pair)
{
    struct vring *ring = virtio_ring(&net->virtio, 2 * pair);
    enum progress progress = MORE;

    net->pair[pair].receiving = ring && pair < net_used_pairs(net);
    if (!net->pair[pair].receiving) {
        net_watch(net, pair);
        return;
    }
    vring_disarm(ring);
    for (unsigned i = 0; i < NET_FRAMES_A_TURN && progress == MORE; i++) {
        if (!net->state.cable) {
            progress = lose_one(net, pair) ? MORE : QUIET;
            continue;
        }
        progress = receive_one(net, ring, pair);
        /* Armed before buffers are put back: told shall be of those behind them. */
        if (progress == DRY && vring_arm(ring))
            progress = MORE;
    }
    put_back(&net->window, ring);
    virtio_publish(&net->virtio, 2 * pair);
    if (progress == STOP)
        virtio_break(&net->virtio);
    net->pair[pair].receiving = progress == MORE || progress == QUIET;
    net_watch(net, pair);
    /* A frame that is held makes no readiness that we could be woken by. */
    if (progress == MORE && net->pair[pair].held_length > 0)
        virtio_ring_doorbell(&net->virtio, 2 * pair);
}
