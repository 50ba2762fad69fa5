/* SPDX-License-Identifier: MIT */
#include "host/frame_look.h"

#include "core/iov.h"
#include "host/netif.h"

#include <stddef.h>
#include <stdint.h>

enum {
    ETHERNET = 14,
    VLAN_TAG = 4,
    IP4_LEAST = 20,
    IP6 = 40,
    TCP_LEAST = 20,
    TCP = 6,
    TCP_FLAGS = 0x3f, /* FIN, SYN, RST, PSH, ACK, URG: what ECN has besides says nothing of data */
    TCP_ACK = 0x10,
    FRAGMENT = 0x3fff, /* more of them, and where this one belongs */
    MOST = NETIF_HEADER + ETHERNET + VLAN_TAG + 60 + 60, /* headers with all options */
};

static unsigned get_u16(const uint8_t *at)
{
    return (unsigned)at[0] << 8 | at[1];
}

/* Where TCP begins and the packet ends; 0: it is another one. */
static size_t find_tcp_4(const uint8_t *ip, size_t length, size_t *ret_end)
{
    if (length < IP4_LEAST || ip[0] >> 4 != 4 || ip[9] != TCP || get_u16(ip + 6) & FRAGMENT)
        return 0;
    *ret_end = get_u16(ip + 2);
    return (ip[0] & 15u) * 4;
}

static size_t find_tcp_6(const uint8_t *ip, size_t length, size_t *ret_end)
{
    if (length < IP6 || ip[0] >> 4 != 6 || ip[6] != TCP)
        return 0;
    *ret_end = IP6 + get_u16(ip + 4);
    return IP6;
}

/* Behind it may be what fills a frame up. */
static bool is_bare_ack(const uint8_t *ip, size_t length, unsigned type)
{
    size_t end = 0, tcp = 0;
    if (type == 0x0800)
        tcp = find_tcp_4(ip, length, &end);
    else if (type == 0x86dd)
        tcp = find_tcp_6(ip, length, &end);
    if (tcp < IP4_LEAST || end > length || tcp + TCP_LEAST > end)
        return false;
    size_t head = (ip[tcp + 12] >> 4) * 4u;
    return head >= TCP_LEAST && tcp + head == end && (ip[tcp + 13] & TCP_FLAGS) == TCP_ACK;
}

bool frame_is_bare_ack(const struct iovec *iov, unsigned count)
{
    uint8_t bytes[MOST];
    size_t at = NETIF_HEADER + ETHERNET;
    if (iov_size(iov, count) > sizeof(bytes))
        return false;
    size_t length = iov_read(iov, count, 0, bytes, sizeof(bytes));
    if (length < at + VLAN_TAG)
        return false;
    unsigned type = get_u16(bytes + at - 2);
    if (type == 0x8100) {
        type = get_u16(bytes + at + 2);
        at += VLAN_TAG;
    }
    return is_bare_ack(bytes + at, length - at, type);
}
