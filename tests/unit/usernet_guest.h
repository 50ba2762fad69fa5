/* SPDX-License-Identifier: MIT */
/* A guest on the real helper of user networking, and what each guest asks first. */
#pragma once

#include "host/usernet.h"
#include "tests/unit/netif_bench.h"

/* The build says it; by hand: where a hand-built one is. */
#ifndef USERNET
#define USERNET "./minivmm-usernet"
#endif

static inline struct netif_bench *open_bench(const struct netif_forward *forwards, unsigned count)
{
    struct netif_bench *bench = bench_create();
    struct netif_config config = {
        .mode = NETIF_USER, .forwards = forwards, .forward_count = count, .helper = USERNET};
    struct err err = {0};
    int ret = netif_user_open(&bench->netif, &config, &err);
    ck_assert_msg(ret == 0, "%s", err.text);
    bench_attach(bench);
    return bench;
}

static inline bool is_arp_reply(struct netif_bench *bench, const uint8_t *frame, size_t length)
{
    return length >= ETH + 28 && get16(frame + 12) == 0x0806 && get16(frame + ETH + 6) == 2;
}

static inline bool is_dhcp(struct netif_bench *bench, const uint8_t *frame, size_t length)
{
    const uint8_t *type = dhcp_option(frame, length, 53);
    return is_ip(frame, length, 17) && get16(frame + AT_L4 + 2) == 68 && type &&
           *type == *(unsigned *)bench->arg;
}

static inline void ask_arp(struct netif_bench *bench)
{
    static const uint8_t all[6] = {255, 255, 255, 255, 255, 255};
    uint8_t frame[64];
    bench_send(bench, frame, build_arp(&bench->net, frame, 1, all, bench->net.gateway));
    bench_await(bench, is_arp_reply);
    ck_assert_mem_eq(bench->found + ETH + 8, bench->net.gateway_mac, 6);
}

static inline void ask_dhcp(struct netif_bench *bench, unsigned type, unsigned answer)
{
    uint8_t frame[512];
    bench_send(bench, frame, build_dhcp(&bench->net, frame, type));
    bench->arg = &answer;
    bench_await(bench, is_dhcp);
    ck_assert_uint_eq(get32(bench->found + AT_UDP_DATA + 16), 0x0a00020f); /* 10.0.2.15 */
}

/* A neighbour solicitation for the gateway: so libslirp learns the guest's address. */
static inline size_t build_solicitation(const struct tiny_net *net, uint8_t *frame,
                                        const uint8_t from[16])
{
    static const uint8_t group_mac[6] = {0x33, 0x33, 0xff, 0, 0, 2};
    uint8_t *ip = frame + ETH, *icmp = ip + 40;
    put_eth(frame, group_mac, net->mac, 0x86dd);
    memset(ip, 0, 40 + 32);
    ip[0] = 0x60;
    put16(ip + 4, 32);
    ip[6] = 58;
    ip[7] = 255;
    memcpy(ip + 8, from, 16);
    inet_pton(AF_INET6, "ff02::1:ff00:2", ip + 24);
    icmp[0] = 135;
    inet_pton(AF_INET6, "fec0::2", icmp + 8);
    icmp[24] = 1, icmp[25] = 1;
    memcpy(icmp + 26, net->mac, 6);
    put16(icmp + 2, fold(sum_of(icmp, 32, sum_of(ip + 8, 32, 58 + 32))));
    return ETH + 40 + 32;
}
