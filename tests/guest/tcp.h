/* SPDX-License-Identifier: MIT */
/*
 * A TCP server (RFC 9293) of one port, as small as it can be right: data in their order only,
 * everything sent again until it is acknowledged, no options but the segment size of a SYN. It ends
 * a connection when the peer has, and what is owed to it has been sent.
 */
#pragma once

#include "card.h"

enum { TCP_CONNECTIONS = 16, TCP_BUFFER = 4096, TCP_RECORD = 64, TCP_WINDOW = 16 * TCP_RECORD };

enum tcp_state { TCP_FREE, TCP_SYN_RECEIVED, TCP_OPEN, TCP_PEER_DONE };

struct tcp {
    enum tcp_state state;
    uint32_t life; /* another one with each connection that was in this place; never 0 */
    uint8_t mac[6], address[4];
    uint16_t port;

    uint32_t received;               /* sequence numbers: the next that we want */
    uint32_t acked, sent, most, end; /* ours: acknowledged, sent, ever sent, given to tcp_send */
    uint32_t window;                 /* the peer's */
    uint64_t deadline, patience;     /* TSC of the next retransmission, 0: none; ticks */
    unsigned tries;
    uint8_t buffer[TCP_BUFFER]; /* what lies between acked and end, by sequence number */

    /* The user's: a record that is not whole yet, and how many answers are to come. */
    uint8_t record[TCP_RECORD];
    unsigned have, owed;
};

/* Bytes have come. Returns how many it takes; the peer sends the others again. */
typedef uint32_t (*tcp_taker)(struct tcp *tcp, const uint8_t *bytes, uint32_t count);

/* patience: ticks of the TSC until something is sent again, the first time. */
void tcp_listen(uint16_t port, uint64_t patience, tcp_taker take);
void tcp_take_frame(const uint8_t *frame, uint32_t length);
/* No more than tcp_room() bytes. */
void tcp_send(struct tcp *tcp, const void *bytes, uint32_t count);
uint32_t tcp_room(const struct tcp *tcp);
/* Sends again what is due; the TSC at which it wants to be called again, UINT64_MAX: not at all. */
uint64_t tcp_work(void);
