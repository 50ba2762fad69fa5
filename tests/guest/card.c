/* SPDX-License-Identifier: MIT */
/* Frames in and out; ARP (RFC 826), ping (RFC 792), IPv4 (RFC 791). */
#include "card.h"

enum { RECEIVE, TRANSMIT, HEADER = 12, BUFFER = 2048, BUFFERS = QUEUE_SIZE, RECEIVE_ENTRY = 1 };
enum { HAS_MAC = 1 << 5, MORE_FRAGMENTS_OR_OFFSET = 0x3fff };

uint8_t card_mac[6], card_address[4];

static struct queue receive, transmit;
static uint8_t incoming[BUFFERS][BUFFER], outgoing[BUFFERS][BUFFER];

/* --- bytes -------------------------------------------------------------------------------- */

void copy(void *to, const void *from, size_t count)
{
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
}

bool same(const void *a, const void *b, unsigned count)
{
    const uint8_t *one = a, *two = b;
    while (count && *one == *two)
        one++, two++, count--;
    return count == 0;
}

unsigned get16be(const uint8_t *at)
{
    return (unsigned)at[0] << 8 | at[1];
}

uint32_t get32be(const uint8_t *at)
{
    return (uint32_t)get16be(at) << 16 | get16be(at + 2);
}

void put16be(uint8_t *at, unsigned value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

void put32be(uint8_t *at, uint32_t value)
{
    put16be(at, value >> 16);
    put16be(at + 2, value & 0xffff);
}

/* --- frames ------------------------------------------------------------------------------- */

void card_start(uint8_t vector, interrupt_handler handle)
{
    struct virtio net;
    check(virtio_find(VIRTIO_NET, &net), "no network device");
    check(virtio_start(&net, VIRTIO_F_VERSION_1 | HAS_MAC) & HAS_MAC, "the device has no address");
    for (unsigned i = 0; i < sizeof(card_mac); i++)
        card_mac[i] = net.device[i];
    on_interrupt(vector, handle);
    virtio_use_vector(&net, RECEIVE_ENTRY, vector);
    virtio_set_queue_vector(&net, RECEIVE, RECEIVE_ENTRY);
    virtio_add_queue(&net, RECEIVE, &receive);
    virtio_add_queue(&net, TRANSMIT, &transmit);
    virtio_ready(&net);
    for (uint16_t i = 0; i < BUFFERS; i++) {
        receive.descriptors[i] = (struct descriptor){(uint64_t)incoming[i], BUFFER, WRITE, 0};
        queue_offer(&receive, i);
    }
    queue_ring(&receive);
}

const uint8_t *card_take(uint32_t *ret_length)
{
    static uint16_t taken = BUFFERS; /* none */
    uint32_t written;
    if (taken < BUFFERS) {
        queue_offer(&receive, taken);
        queue_ring(&receive);
        taken = BUFFERS;
    }
    if (!queue_take(&receive, &taken, &written))
        return NULL;
    check(taken < BUFFERS && written >= HEADER && written <= BUFFER,
          "buffer %u came back with %u bytes", taken, written);
    *ret_length = written - HEADER;
    return incoming[taken] + HEADER;
}

uint8_t *card_frame(void)
{
    static uint16_t unused;
    uint16_t buffer;
    if (unused < BUFFERS)
        buffer = unused++;
    else if (!queue_take(&transmit, &buffer, NULL))
        return NULL;
    check(buffer < BUFFERS, "buffer %u came back", buffer);
    return outgoing[buffer] + HEADER; /* which stays zero: nothing is left to the device */
}

void card_send(uint8_t *frame, uint32_t length)
{
    uint16_t buffer = (uint16_t)((uint64_t)(frame - outgoing[0]) / BUFFER);
    transmit.descriptors[buffer] = (struct descriptor){(uint64_t)outgoing[buffer], HEADER + length,
                                                       0, 0};
    queue_offer(&transmit, buffer);
    queue_ring(&transmit);
}

/* --- checksums ---------------------------------------------------------------------------- */

static uint32_t add_up(uint32_t sum, const uint8_t *bytes, uint32_t count)
{
    for (; count > 1; bytes += 2, count -= 2)
        sum += get16be(bytes);
    return count ? sum + ((uint32_t)bytes[0] << 8) : sum;
}

static unsigned fold(uint32_t sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    return ~(sum + (sum >> 16)) & 0xffff;
}

unsigned ip_checksum_above(const uint8_t *frame)
{
    const uint8_t *ip = frame + IP_AT;
    uint32_t length = get16be(ip + 2) - IP;
    return fold(add_up(add_up(ip[9] + length, ip + 12, 8), frame + ABOVE_IP_AT, length));
}

bool ip_is_ours(const uint8_t *frame, uint32_t length, uint8_t protocol, uint32_t *ret_end)
{
    const uint8_t *ip = frame + IP_AT;
    if (length < ABOVE_IP_AT || get16be(frame + 12) != TYPE_IP || ip[0] != 0x45 ||
        ip[9] != protocol || get16be(ip + 6) & MORE_FRAGMENTS_OR_OFFSET ||
        !same(ip + 16, card_address, 4))
        return false;
    uint32_t end = IP_AT + get16be(ip + 2);
    if (end < ABOVE_IP_AT + UDP || end > length || fold(add_up(0, ip, IP)) != 0)
        return false;
    bool has_sum = protocol != PROTOCOL_UDP || get16be(frame + ABOVE_IP_AT + 6) != 0;
    if (has_sum && ip_checksum_above(frame) != 0)
        return false;
    *ret_end = end;
    return true;
}

void ip_put(uint8_t *frame, const uint8_t to_mac[6], const uint8_t from[4], const uint8_t to[4],
            uint8_t protocol, uint32_t end)
{
    uint8_t *ip = frame + IP_AT;
    copy(frame, to_mac, 6);
    copy(frame + 6, card_mac, 6);
    put16be(frame + 12, TYPE_IP);
    memset(ip, 0, IP);
    ip[0] = 0x45;
    put16be(ip + 2, end - IP_AT);
    ip[8] = 64;
    ip[9] = protocol;
    copy(ip + 12, from, 4);
    copy(ip + 16, to, 4);
    put16be(ip + 10, fold(add_up(0, ip, IP)));
}

/* --- ARP and ping ------------------------------------------------------------------------- */

static void answer_arp(const uint8_t *frame)
{
    const uint8_t *request = frame + ARP_AT;
    uint8_t *answer = card_frame();
    if (!answer)
        return;
    copy(answer, frame + 6, 6);
    copy(answer + 6, card_mac, 6);
    put16be(answer + 12, TYPE_ARP);
    uint8_t *arp = answer + ARP_AT;
    copy(arp, request, 6);
    put16be(arp + 6, 2);
    copy(arp + 8, card_mac, 6);
    copy(arp + 14, card_address, 4);
    copy(arp + 18, request + 8, 10); /* whoever asks */
    card_send(answer, ARP_AT + ARP);
}

/* The same back. Only the type changes, from 8 to 0, and the checksum by as much. */
static void answer_ping(const uint8_t *frame, uint32_t length)
{
    uint8_t *answer = card_frame();
    if (!answer)
        return;
    copy(answer, frame, length);
    copy(answer, frame + 6, 6);
    copy(answer + 6, card_mac, 6);
    copy(answer + IP_AT + 12, frame + IP_AT + 16, 4);
    copy(answer + IP_AT + 16, frame + IP_AT + 12, 4);
    answer[ABOVE_IP_AT] = 0;
    unsigned sum = get16be(frame + ABOVE_IP_AT + 2) + 0x0800;
    put16be(answer + ABOVE_IP_AT + 2, sum + (sum >> 16));
    card_send(answer, length);
}

void card_answer(const uint8_t *frame, uint32_t length)
{
    if (!get32(card_address) || length < ARP_AT + ARP || length > LONGEST_FRAME)
        return;
    unsigned type = get16be(frame + 12);
    if (type == TYPE_ARP && get16be(frame + ARP_AT + 6) == 1 &&
        same(frame + ARP_AT + 24, card_address, 4))
        answer_arp(frame);
    else if (type == TYPE_IP && length >= ABOVE_IP_AT + UDP && frame[IP_AT] == 0x45 &&
             frame[IP_AT + 9] == PROTOCOL_ICMP && frame[ABOVE_IP_AT] == 8 &&
             same(frame + IP_AT + 16, card_address, 4))
        answer_ping(frame, length);
}
