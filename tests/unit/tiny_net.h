/* SPDX-License-Identifier: MIT */
/* Just enough of a guest's network stack to talk to a virtual network: frames are built and looked
 * at by hand, offsets as in RFC 826 (ARP), 791 (IP), 768 (UDP), 9293 (TCP), 2131 (DHCP). */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum {
    ETH = 14,
    IP4 = 20,
    TCP = 20,
    UDP = 8,
    AT_IP = ETH,
    AT_L4 = ETH + IP4,
    AT_UDP_DATA = AT_L4 + UDP,
    AT_TCP_DATA = AT_L4 + TCP,
    TCP_FIN = 1,
    TCP_SYN = 2,
    TCP_RST = 4,
    TCP_PSH = 8,
    TCP_ACK = 16,
};

struct tiny_net {
    uint8_t mac[6], gateway_mac[6];
    uint32_t ip, gateway;
};

static inline void put16(uint8_t *at, unsigned value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static inline void put32(uint8_t *at, uint32_t value)
{
    put16(at, value >> 16);
    put16(at + 2, value & 0xffff);
}

static inline unsigned get16(const uint8_t *at)
{
    return (unsigned)at[0] << 8 | at[1];
}

static inline uint32_t get32(const uint8_t *at)
{
    return (uint32_t)get16(at) << 16 | get16(at + 2);
}

/* 10.0.2.15, and the gateway's MAC as libslirp makes it: 52:55 and its address. */
static inline struct tiny_net tiny_net_default(void)
{
    return (struct tiny_net){.mac = {0x52, 0x54, 0, 0x12, 0x34, 0x56},
                             .gateway_mac = {0x52, 0x55, 10, 0, 2, 2},
                             .ip = 0x0a00020f,
                             .gateway = 0x0a000202};
}

static inline uint32_t sum_of(const uint8_t *bytes, size_t length, uint32_t sum)
{
    for (size_t i = 0; i < length; i++)
        sum += i % 2 ? bytes[i] : (uint32_t)bytes[i] << 8;
    return sum;
}

static inline unsigned fold(uint32_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return ~sum & 0xffff;
}

static inline void put_eth(uint8_t *frame, const uint8_t to[6], const uint8_t from[6],
                           unsigned type)
{
    memcpy(frame, to, 6);
    memcpy(frame + 6, from, 6);
    put16(frame + 12, type);
}

static inline size_t build_arp(const struct tiny_net *net, uint8_t *frame, unsigned op,
                               const uint8_t to[6], uint32_t asked)
{
    put_eth(frame, to, net->mac, 0x0806);
    uint8_t *arp = frame + ETH;
    memset(arp, 0, 28);
    put16(arp, 1);
    put16(arp + 2, 0x0800);
    arp[4] = 6;
    arp[5] = 4;
    put16(arp + 6, op);
    memcpy(arp + 8, net->mac, 6);
    put32(arp + 14, net->ip);
    if (op == 2)
        memcpy(arp + 18, to, 6);
    put32(arp + 24, asked);
    return ETH + 28;
}

/* The answer to an ARP request for us; its length, 0: nothing to answer. */
static inline size_t tiny_answer(const struct tiny_net *net, const uint8_t *frame, size_t length,
                                 uint8_t *reply)
{
    if (length < ETH + 28 || get16(frame + 12) != 0x0806 || get16(frame + ETH + 6) != 1 ||
        get32(frame + ETH + 24) != net->ip)
        return 0;
    return build_arp(net, reply, 2, frame + ETH + 8, get32(frame + ETH + 14));
}

/* Wraps what lies at AT_L4, `length` bytes; the length of the frame. */
static inline size_t wrap_ip(const struct tiny_net *net, uint8_t *frame, uint32_t from, uint32_t to,
                             unsigned protocol, size_t length)
{
    static const uint8_t all[6] = {255, 255, 255, 255, 255, 255};
    put_eth(frame, to == UINT32_MAX ? all : net->gateway_mac, net->mac, 0x0800);
    uint8_t *ip = frame + AT_IP;
    memset(ip, 0, IP4);
    ip[0] = 0x45;
    put16(ip + 2, (unsigned)(IP4 + length));
    ip[8] = 64;
    ip[9] = (uint8_t)protocol;
    put32(ip + 12, from);
    put32(ip + 16, to);
    put16(ip + 10, fold(sum_of(ip, IP4, 0)));
    return ETH + IP4 + length;
}

static inline unsigned l4_sum(const uint8_t *frame, size_t length)
{
    uint32_t sum = sum_of(frame + AT_IP + 12, 8, frame[AT_IP + 9] + (uint32_t)length);
    return fold(sum_of(frame + AT_L4, length, sum));
}

static inline size_t build_udp(const struct tiny_net *net, uint8_t *frame, uint32_t from,
                               unsigned from_port, uint32_t to, unsigned to_port, const void *data,
                               size_t length)
{
    uint8_t *udp = frame + AT_L4;
    put16(udp, from_port);
    put16(udp + 2, to_port);
    put16(udp + 4, (unsigned)(UDP + length));
    put16(udp + 6, 0);
    memcpy(udp + UDP, data, length);
    size_t size = wrap_ip(net, frame, from, to, 17, UDP + length);
    put16(udp + 6, l4_sum(frame, UDP + length));
    return size;
}

struct tiny_tcp {
    uint32_t peer;
    unsigned our_port, peer_port;
    uint32_t next_out, next_in;
};

static inline size_t build_tcp(const struct tiny_net *net, uint8_t *frame,
                               const struct tiny_tcp *tcp, unsigned flags, const void *data,
                               size_t length)
{
    uint8_t *at = frame + AT_L4;
    memset(at, 0, TCP);
    put16(at, tcp->our_port);
    put16(at + 2, tcp->peer_port);
    put32(at + 4, tcp->next_out);
    put32(at + 8, tcp->next_in);
    at[12] = 5 << 4;
    at[13] = (uint8_t)flags;
    put16(at + 14, 65535);
    if (length)
        memcpy(at + TCP, data, length);
    size_t size = wrap_ip(net, frame, net->ip, tcp->peer, 6, TCP + length);
    put16(at + 16, l4_sum(frame, TCP + length));
    return size;
}

static inline bool is_ip(const uint8_t *frame, size_t length, unsigned protocol)
{
    return length >= AT_L4 + 8 && get16(frame + 12) == 0x0800 && frame[AT_IP] == 0x45 &&
           frame[AT_IP + 9] == protocol;
}

static inline bool is_tcp(const uint8_t *frame, size_t length, unsigned to_port)
{
    return is_ip(frame, length, 6) && length >= AT_TCP_DATA && get16(frame + AT_L4 + 2) == to_port;
}

/* Of a TCP frame: where its data lie, and how many they are. */
static inline const uint8_t *tcp_data(const uint8_t *frame, size_t *ret_length)
{
    size_t offset = AT_L4 + (size_t)(frame[AT_L4 + 12] >> 4) * 4;
    *ret_length = ETH + get16(frame + AT_IP + 2) - offset;
    return frame + offset;
}

/* type: 1 DISCOVER, 3 REQUEST. */
static inline size_t build_dhcp(const struct tiny_net *net, uint8_t *frame, unsigned type)
{
    uint8_t message[300] = {1, 1, 6, 0, 0x12, 0x34, 0x56, 0x78};
    memcpy(message + 28, net->mac, 6);
    put32(message + 236, 0x63825363);
    uint8_t *option = message + 240;
    *option++ = 53, *option++ = 1, *option++ = (uint8_t)type;
    if (type == 3) {
        *option++ = 50, *option++ = 4;
        put32(option, net->ip);
        option += 4;
    }
    *option = 255;
    return build_udp(net, frame, 0, 68, UINT32_MAX, 67, message, sizeof(message));
}

/* The value of an option, NULL when it is not there. */
static inline const uint8_t *dhcp_option(const uint8_t *frame, size_t length, unsigned code)
{
    for (size_t at = AT_UDP_DATA + 240; at + 1 < length && frame[at] != 255;) {
        if (frame[at] == 0) {
            at++;
            continue;
        }
        if (at + 2 + frame[at + 1] > length)
            return NULL;
        if (frame[at] == code)
            return frame + at + 2;
        at += 2U + frame[at + 1];
    }
    return NULL;
}
