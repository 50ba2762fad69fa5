/* SPDX-License-Identifier: MIT */
/*
 * The control queue (virtio 1.2, section 5.1.6.5). A request:
 *
 *     read by us     u8 class, u8 command, data by command (below)
 *     written by us  u8 acknowledgement: 0 done, 1 refused
 *
 *     RX (0)              0 promiscuous, 1 all multicast, 2 all unicast, 3 no multicast,
 *                         4 no unicast, 5 no broadcast; u8: 0 off, else on
 *     MAC (1)             0 table: {u32 count, u8 addresses[count][6]} of unicast, and of multicast
 *                         1 address: u8[6]
 *     VLAN (2)            0 add, 1 delete; u16 id
 *     ANNOUNCE (3)        0 seen
 *     MQ (4)              0 pairs: u16
 *     OFFLOADS (5)        0 set: u64 of feature bits
 *
 * What is too short, unknown, or was not negotiated is refused and changes nothing. A request
 * without room for the acknowledgement breaks the device.
 */
#include "virtio/net_parts.h"

#include <endian.h>
#include <string.h>

enum { REQUESTS_A_TURN = 16 };

/* The driver's part of a request, read from the beginning to the end. */
struct reader {
    const struct vring_chain *chain;
    size_t at;
};

static bool take(struct reader *reader, void *to, size_t length)
{
    const struct vring_chain *chain = reader->chain;

    if (chain->readable_bytes - reader->at < length)
        return false;
    iov_read(chain->iov, chain->readable, reader->at, to, length);
    reader->at += length;
    return true;
}

static bool take_u16(struct reader *reader, uint16_t *ret_value)
{
    uint16_t wire;

    if (!take(reader, &wire, sizeof(wire)))
        return false;
    *ret_value = le16toh(wire);
    return true;
}

static bool set_mode(struct net *net, uint8_t command, struct reader *reader)
{
    struct net_filter *filter = &net->state.filter;
    bool *const modes[] = {
        [VIRTIO_NET_CTRL_RX_PROMISC] = &filter->promiscuous,
        [VIRTIO_NET_CTRL_RX_ALLMULTI] = &filter->all_multicast,
        [VIRTIO_NET_CTRL_RX_ALLUNI] = &filter->all_unicast,
        [VIRTIO_NET_CTRL_RX_NOMULTI] = &filter->no_multicast,
        [VIRTIO_NET_CTRL_RX_NOUNI] = &filter->no_unicast,
        [VIRTIO_NET_CTRL_RX_NOBCAST] = &filter->no_broadcast,
    };
    uint64_t needed = command <= VIRTIO_NET_CTRL_RX_ALLMULTI ? NET_FEATURE(CTRL_RX)
                                                             : NET_FEATURE(CTRL_RX_EXTRA);
    uint8_t on;

    if (command >= array_size(modes) || !net_has(net, needed) || !take(reader, &on, sizeof(on)))
        return false;
    *modes[command] = on != 0;
    return true;
}

/* More than we remember: none is, and all pass. */
static bool take_macs(struct reader *reader, uint8_t (*macs)[6], uint32_t *ret_count,
                      bool *ret_many)
{
    uint32_t count;

    if (!take(reader, &count, sizeof(count)))
        return false;
    count = le32toh(count);
    if (count > (reader->chain->readable_bytes - reader->at) / sizeof(*macs))
        return false;
    *ret_many = count > NET_MACS;
    *ret_count = *ret_many ? 0 : count;
    if (*ret_many)
        reader->at += (size_t)count * sizeof(*macs);
    return take(reader, macs, *ret_count * sizeof(*macs));
}

static bool set_macs(struct net *net, struct reader *reader)
{
    struct net_filter filter = net->state.filter;

    memset(filter.unicast, 0, sizeof(filter.unicast));
    memset(filter.multicast, 0, sizeof(filter.multicast));
    if (!net_has(net, NET_FEATURE(CTRL_RX)) ||
        !take_macs(reader, filter.unicast, &filter.unicast_count, &filter.many_unicast) ||
        !take_macs(reader, filter.multicast, &filter.multicast_count, &filter.many_multicast))
        return false;
    net->state.filter = filter;
    return true;
}

static bool set_mac(struct net *net, struct reader *reader)
{
    return net_has(net, NET_FEATURE(CTRL_MAC_ADDR)) &&
           take(reader, net->state.space.mac, sizeof(net->state.space.mac));
}

static bool set_vlan(struct net *net, uint8_t command, struct reader *reader)
{
    uint8_t *vlans = net->state.filter.vlans;
    uint16_t id;

    if (!net_has(net, NET_FEATURE(CTRL_VLAN)) || command > VIRTIO_NET_CTRL_VLAN_DEL ||
        !take_u16(reader, &id) || id >= NET_VLANS)
        return false;
    unsigned bit = 1u << id % 8;
    if (command == VIRTIO_NET_CTRL_VLAN_ADD)
        vlans[id / 8] |= (uint8_t)bit;
    else
        vlans[id / 8] &= (uint8_t)~bit;
    return true;
}

static bool end_announcement(struct net *net)
{
    if (!net_has(net, NET_FEATURE(GUEST_ANNOUNCE)))
        return false;
    net->state.space.status &= (uint16_t)~VIRTIO_NET_S_ANNOUNCE;
    return true;
}

static bool set_pairs(struct net *net, struct reader *reader)
{
    uint16_t before = net->state.pairs, pairs;

    if (!net_has(net, NET_FEATURE(MQ)) || !take_u16(reader, &pairs) || pairs < 1 ||
        pairs > net->pairs)
        return false;
    net->state.pairs = pairs;
    if (net_configure(net) < 0) {
        net->state.pairs = before;
        if (net_configure(net) < 0) /* it was in force a moment ago */
            net->due |= NET_DUE_CONFIGURE;
        return false;
    }
    for (unsigned i = 0; i < net->pairs; i++) { /* those that come into use, or go out of it */
        net_receive(net, i);
        virtio_ring_doorbell(&net->virtio, 2 * i + 1);
    }
    return true;
}

static bool set_offloads(struct net *net, struct reader *reader)
{
    uint64_t wire, before = net->state.offloads;

    if (!net_has(net, NET_FEATURE(CTRL_GUEST_OFFLOADS)) || !take(reader, &wire, sizeof(wire)))
        return false;
    uint64_t offloads = le64toh(wire);
    if (offloads & ~(net->state.virtio.features & NET_GUEST_OFFLOADS))
        return false;
    net->state.offloads = offloads;
    if (net_configure(net) < 0) {
        net->state.offloads = before;
        return false;
    }
    return true;
}

static bool obey(struct net *net, const struct virtio_net_ctrl_hdr *header, struct reader *reader)
{
    switch (header->class) {
    case VIRTIO_NET_CTRL_RX:
        return set_mode(net, header->cmd, reader);
    case VIRTIO_NET_CTRL_MAC:
        if (header->cmd == VIRTIO_NET_CTRL_MAC_TABLE_SET)
            return set_macs(net, reader);
        return header->cmd == VIRTIO_NET_CTRL_MAC_ADDR_SET && set_mac(net, reader);
    case VIRTIO_NET_CTRL_VLAN:
        return set_vlan(net, header->cmd, reader);
    case VIRTIO_NET_CTRL_ANNOUNCE:
        return header->cmd == VIRTIO_NET_CTRL_ANNOUNCE_ACK && end_announcement(net);
    case VIRTIO_NET_CTRL_MQ:
        return header->cmd == VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET && set_pairs(net, reader);
    case VIRTIO_NET_CTRL_GUEST_OFFLOADS:
        return header->cmd == VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET && set_offloads(net, reader);
    default:
        return false;
    }
}

/* True while there may be more to do. */
static bool serve_one(struct net *net, struct vring *ring)
{
    struct iovec iov[NET_QUEUE_SIZE];
    struct vring_chain chain = {.iov = iov, .capacity = NET_QUEUE_SIZE};
    struct reader reader = {.chain = &chain};
    struct virtio_net_ctrl_hdr header;
    int got = vring_pop(ring, &chain);

    if (got == 0)
        return vring_arm(ring);
    if (got < 0 || chain.writable == 0 || !take(&reader, &header, sizeof(header))) {
        virtio_break(&net->virtio);
        return false;
    }
    virtio_net_ctrl_ack ack = obey(net, &header, &reader) ? VIRTIO_NET_OK : VIRTIO_NET_ERR;
    iov_write(vring_writable(&chain), chain.writable, 0, &ack, sizeof(ack));
    vring_push(ring, &chain, sizeof(ack));
    return true;
}

void net_control(struct net *net, unsigned queue)
{
    struct vring *ring = virtio_ring(&net->virtio, queue);
    bool more = true;

    vring_disarm(ring); /* we look again by ourselves */
    for (unsigned i = 0; i < REQUESTS_A_TURN && more; i++)
        more = serve_one(net, ring);
    virtio_publish(&net->virtio, queue);
    if (more)
        virtio_ring_doorbell(&net->virtio, queue);
}
