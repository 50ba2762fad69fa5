/* SPDX-License-Identifier: MIT */
/*
 * Which frames the guest gets (virtio 1.2, sections 5.1.6.5.1 to 5.1.6.5.3). As long as the driver
 * has not spoken of promiscuous mode all pass: a driver that does without the control queue expects
 * that, and the others say what they want when their interface comes up.
 *
 * "No" is stronger than "all": the list of addresses then counts for nothing.
 */
#include "virtio/net_parts.h"

#include <string.h>

enum { MAC_SIZE = 6, ETHERTYPE_VLAN_HIGH = 0x81, VLAN_ID_HIGH = 0x0f };

void net_filter_reset(struct net_filter *filter)
{
    *filter = (struct net_filter){.promiscuous = true};
}

static bool is_listed(const uint8_t (*list)[MAC_SIZE], uint32_t count, const uint8_t *mac)
{
    for (uint32_t i = 0; i < count; i++)
        if (memcmp(list[i], mac, MAC_SIZE) == 0)
            return true;
    return false;
}

static bool vlan_passes(const struct net *net, const uint8_t *frame, size_t length)
{
    const uint8_t *type = frame + 2 * MAC_SIZE;

    if (!net_has(net, NET_FEATURE(CTRL_VLAN)) || length < NET_ETHERNET + NET_VLAN_TAG ||
        type[0] != ETHERTYPE_VLAN_HIGH || type[1] != 0)
        return true;
    unsigned id = (unsigned)(type[2] & VLAN_ID_HIGH) << 8 | type[3];
    return net->state.filter.vlans[id / 8] & 1u << id % 8;
}

bool net_filter_passes(const struct net *net, const uint8_t *frame, size_t length)
{
    static const uint8_t broadcast[MAC_SIZE] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    const struct net_filter *filter = &net->state.filter;

    if (filter->promiscuous)
        return true;
    if (length < NET_ETHERNET || !vlan_passes(net, frame, length))
        return false;
    if (memcmp(frame, broadcast, MAC_SIZE) == 0)
        return !filter->no_broadcast;
    if (frame[0] & 1)
        return !filter->no_multicast &&
               (filter->all_multicast || filter->many_multicast ||
                is_listed(filter->multicast, filter->multicast_count, frame));
    return !filter->no_unicast && (filter->all_unicast || filter->many_unicast ||
                                   memcmp(frame, net->state.space.mac, MAC_SIZE) == 0 ||
                                   is_listed(filter->unicast, filter->unicast_count, frame));
}

static const struct state_field fields[] = {
    STATE_FIELD_U32(struct net_filter, unicast_count, .max = NET_MACS),
    STATE_FIELD_U32(struct net_filter, multicast_count, .max = NET_MACS),
    STATE_FIELD_BYTES(struct net_filter, unicast),
    STATE_FIELD_BYTES(struct net_filter, multicast),
    STATE_FIELD_BYTES(struct net_filter, vlans),
    STATE_FIELD_BOOL(struct net_filter, promiscuous),
    STATE_FIELD_BOOL(struct net_filter, all_multicast),
    STATE_FIELD_BOOL(struct net_filter, all_unicast),
    STATE_FIELD_BOOL(struct net_filter, no_multicast),
    STATE_FIELD_BOOL(struct net_filter, no_unicast),
    STATE_FIELD_BOOL(struct net_filter, no_broadcast),
    STATE_FIELD_BOOL(struct net_filter, many_unicast),
    STATE_FIELD_BOOL(struct net_filter, many_multicast),
};

const struct state_table net_filter_table = {
    .name = "net_filter",
    .version = 1,
    STATE_TABLE_OF(struct net_filter, fields),
};
