/* SPDX-License-Identifier: MIT */
/*
 * The first network card, and what every host on an Ethernet does: ARP and ping for one address,
 * and checksums, of which the device does none. Callable from ring 3, where a guest runs at full
 * speed, too.
 */
#pragma once

#include "virtio.h"

/* Places in a frame; no IP options, neither sent nor taken. */
enum { ETHERNET = 14, ARP = 28, IP = 20, UDP = 8, LONGEST_FRAME = 1514 };
enum { ARP_AT = ETHERNET, IP_AT = ETHERNET, ABOVE_IP_AT = IP_AT + IP };
enum { TYPE_IP = 0x0800, TYPE_ARP = 0x0806 };
enum { PROTOCOL_ICMP = 1, PROTOCOL_TCP = 6, PROTOCOL_UDP = 17 };

void copy(void *to, const void *from, size_t count);
bool same(const void *a, const void *b, unsigned count);
unsigned get16be(const uint8_t *at);
uint32_t get32be(const uint8_t *at);
void put16be(uint8_t *at, unsigned value);
void put32be(uint8_t *at, uint32_t value);

extern uint8_t card_mac[6];
extern uint8_t card_address[4]; /* 0.0.0.0: none as yet, and nobody is answered */

/* In ring 0. When frames have come so does this interrupt; the handler must end it. */
void card_start(uint8_t vector, interrupt_handler handle);

/* The next frame that has come; it is good until the next call. NULL: none. */
const uint8_t *card_take(uint32_t *ret_length);

/* A frame to be filled and sent. NULL: all are under way, and what was to be sent is lost. */
uint8_t *card_frame(void);
void card_send(uint8_t *frame, uint32_t length);

/* Where it is ARP or a ping for our address it is answered. */
void card_answer(const uint8_t *frame, uint32_t length);

/*
 * Whether it is a whole IP packet for our address, of this protocol, with good checksums in IP and,
 * but for a UDP checksum that is 0, above it. *ret_end: the packet's end in the frame.
 */
bool ip_is_ours(const uint8_t *frame, uint32_t length, uint8_t protocol, uint32_t *ret_end);

/* The headers of Ethernet and IP, around what ends at `end` in the frame. */
void ip_put(uint8_t *frame, const uint8_t to_mac[6], const uint8_t from[4], const uint8_t to[4],
            uint8_t protocol, uint32_t end);
/* The checksum over what is above IP, with its pseudo header; ip_put comes first. */
unsigned ip_checksum_above(const uint8_t *frame);
