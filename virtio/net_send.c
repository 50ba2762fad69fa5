/* SPDX-License-Identifier: MIT */
/*
 * Frames from the guest (virtio 1.2, section 5.1.6.2). They go to the interface straight from the
 * driver's buffers, but for the header: the guest could change that after it was checked, so it is
 * copied, and the copy is what the interface sees.
 *
 * What breaks a rule is dropped, and its buffers go back as if it were sent:
 *   1. A frame has a header, an Ethernet header, and at most NETIF_MAX_FRAME bytes in all.
 *   2. The header asks only for what was negotiated.
 *   3. What it points to (headers, the checksum) lies in the frame; segments are not empty.
 */
#include "core/clock.h"
#include "virtio/net_parts.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

/* Rule 2, and the segments of rule 3. */
static bool may_segment(const struct net *net, const struct virtio_net_hdr_v1 *header)
{
    uint64_t needed = header->gso_type & VIRTIO_NET_HDR_GSO_ECN ? NET_FEATURE(HOST_ECN) : 0;

    switch (header->gso_type & ~VIRTIO_NET_HDR_GSO_ECN) {
    case VIRTIO_NET_HDR_GSO_TCPV4:
        needed |= NET_FEATURE(HOST_TSO4);
        break;
    case VIRTIO_NET_HDR_GSO_TCPV6:
        needed |= NET_FEATURE(HOST_TSO6);
        break;
    default:
        return false;
    }
    return (net->state.virtio.features & needed) == needed && header->gso_size != 0 &&
           (header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM);
}

/* Checks a header and leaves in it only what an interface needs to know. */
static bool clean_header(const struct net *net, struct virtio_net_hdr_v1 *header, size_t length)
{
    struct virtio_net_hdr_v1 clean = {0};

    if (header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) {
        unsigned end = (unsigned)le16toh(header->csum_start) + le16toh(header->csum_offset) +
                       (unsigned)sizeof(uint16_t);
        if (!net_has(net, NET_FEATURE(CSUM)) || end > length)
            return false;
        clean.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
        clean.csum_start = header->csum_start;
        clean.csum_offset = header->csum_offset;
    }
    if (header->gso_type != VIRTIO_NET_HDR_GSO_NONE) {
        if (!may_segment(net, header) || le16toh(header->hdr_len) > length)
            return false;
        clean.gso_type = header->gso_type;
        clean.hdr_len = header->hdr_len;
        clean.gso_size = header->gso_size;
    }
    *header = clean;
    return true;
}

/*
 * Moves the header out of the first segments, whose list then begins with our copy. There is one
 * entry before the list for that. Returns the list's new beginning.
 */
static struct iovec *take_header(struct iovec *iov, struct virtio_net_hdr_v1 *header)
{
    uint8_t *to = (uint8_t *)header;
    size_t left = sizeof(*header);

    while (left > 0) {
        size_t part = iov->iov_len < left ? iov->iov_len : left;
        memcpy(to, iov->iov_base, part);
        to += part;
        left -= part;
        iov->iov_base = (uint8_t *)iov->iov_base + part;
        iov->iov_len -= part;
        if (iov->iov_len == 0)
            iov++;
    }
    iov--;
    *iov = (struct iovec){.iov_base = header, .iov_len = sizeof(*header)};
    return iov;
}

/* 0: dealt with; -EAGAIN: the interface is full. */
static int send_frame(struct net *net, unsigned pair, struct vring_chain *chain)
{
    struct virtio_net_hdr_v1 header;
    struct iovec *end = chain->iov + chain->readable;

    if (chain->readable_bytes < NETIF_HEADER + NET_ETHERNET ||
        chain->readable_bytes > NETIF_MAX_FRAME || !net->state.cable ||
        pair >= net_used_pairs(net)) {
        net->stats.send_dropped++;
        return 0;
    }
    const struct iovec *iov = take_header(chain->iov, &header);
    if (!clean_header(net, &header, (size_t)chain->readable_bytes - NETIF_HEADER)) {
        net->stats.send_dropped++;
        return 0;
    }
    ssize_t sent = net->netif->ops->send(net->netif, pair, iov, (unsigned)(end - iov));
    if (sent == -EAGAIN)
        return -EAGAIN;
    if (sent < 0) {
        net->stats.send_dropped++;
        return 0;
    }
    if (net->stats.sent++ == 0)
        net->stats.first_sent_ns = clock_boot_ns();
    net->stats.sent_bytes += chain->readable_bytes - NETIF_HEADER;
    return 0;
}

/* True while there may be more to do. */
static bool serve_one(struct net *net, struct vring *ring, unsigned pair)
{
    /* No chain has more segments than the ring has entries. */
    struct vring_chain chain = {.iov = net->send_iov + 1, .capacity = NET_QUEUE_SIZE};
    int got = vring_pop(ring, &chain);

    if (got == 0)
        return vring_arm(ring);
    if (got < 0) {
        virtio_break(&net->virtio);
        return false;
    }
    if (send_frame(net, pair, &chain) == -EAGAIN) {
        vring_unpop(ring, 1);
        net->pair[pair].blocked = true;
        return false;
    }
    vring_push(ring, &chain, 0);
    return true;
}

void net_send(struct net *net, unsigned pair)
{
    struct vring *ring = virtio_ring(&net->virtio, 2 * pair + 1);
    bool more = true;

    net->pair[pair].blocked = false;
    if (ring) {
        vring_disarm(ring); /* we look again by ourselves */
        for (unsigned i = 0; i < NET_FRAMES_A_TURN && more; i++)
            more = serve_one(net, ring, pair);
        virtio_publish(&net->virtio, 2 * pair + 1);
        if (more)
            virtio_ring_doorbell(&net->virtio, 2 * pair + 1);
    }
    net_watch(net, pair);
}
