/* SPDX-License-Identifier: MIT */
/* Expects: a DHCP server behind the network device offers an address in 10.0.2.0/24; says which and
 * exits 0. */
#include "virtio.h"

enum { RECEIVE, TRANSMIT, HEADER = 12, BUFFER = 2048, BUFFERS = 8 };
enum { ETHERNET = 14, IP = 20, UDP = 8, BOOTP = 236, OPTIONS = 16, COOKIE = 0x63538263 };
enum { IP_AT = HEADER + ETHERNET, UDP_AT = IP_AT + IP, BOOTP_AT = UDP_AT + UDP };
enum { FRAME = BOOTP_AT + BOOTP + OPTIONS, TRANSACTION = 0x4d564d4d };

static struct queue receive, transmit;
static uint8_t incoming[BUFFERS][BUFFER], discover[FRAME];

static void put16be(uint8_t *at, unsigned value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static void put32(uint8_t *at, uint32_t value)
{
    *(uint32_t *)at = value;
}

static unsigned ip_checksum(const uint8_t *header)
{
    unsigned sum = 0;
    for (unsigned i = 0; i < IP; i += 2)
        sum += (unsigned)header[i] << 8 | header[i + 1];
    sum = (sum & 0xffff) + (sum >> 16);
    return ~(sum + (sum >> 16)) & 0xffff;
}

/* From 0.0.0.0:68 to 255.255.255.255:67 (RFC 2131). */
static void make_discover(volatile uint8_t *mac)
{
    static const uint8_t options[OPTIONS] = {0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255};
    uint8_t *ether = discover + HEADER, *ip = discover + IP_AT, *udp = discover + UDP_AT,
            *bootp = discover + BOOTP_AT;
    memset(ether, 0xff, 6);
    put16be(ether + 12, 0x0800);
    ip[0] = 0x45;
    put16be(ip + 2, FRAME - IP_AT);
    ip[8] = 64;
    ip[9] = 17;
    put32(ip + 16, 0xffffffff);
    put16be(ip + 10, ip_checksum(ip));
    put16be(udp, 68);
    put16be(udp + 2, 67);
    put16be(udp + 4, FRAME - UDP_AT);
    bootp[0] = 1;
    bootp[1] = 1;
    bootp[2] = 6;
    put32(bootp + 4, TRANSACTION);
    put16be(bootp + 10, 0x8000); /* answer by broadcast */
    for (unsigned i = 0; i < 6; i++)
        ether[6 + i] = bootp[28 + i] = mac[i];
    for (unsigned i = 0; i < OPTIONS; i++)
        bootp[BOOTP + i] = options[i];
}

static bool is_offer(const uint8_t *frame, uint32_t length)
{
    const uint8_t *bootp = frame + BOOTP_AT;
    return length >= BOOTP_AT + BOOTP + 4 && frame[HEADER + 12] == 8 && frame[IP_AT + 9] == 17 &&
           bootp[0] == 2 && get32(bootp + 4) == TRANSACTION;
}

static const uint8_t *wait_for_offer(void)
{
    for (;;) {
        uint32_t length;
        uint16_t head = queue_wait(&receive, &length);
        if (is_offer(incoming[head], length))
            return incoming[head] + BOOTP_AT + 16;
        queue_offer(&receive, head);
        queue_ring(&receive);
    }
}

void guest_main(void)
{
    struct virtio net;
    check(virtio_find(VIRTIO_NET, &net), "no network device");
    uint64_t mac = 1 << 5;
    check(virtio_start(&net, VIRTIO_F_VERSION_1 | mac) & mac, "the device has no address");
    virtio_add_queue(&net, RECEIVE, &receive);
    virtio_add_queue(&net, TRANSMIT, &transmit);
    virtio_ready(&net);
    for (uint16_t i = 0; i < BUFFERS; i++) {
        receive.descriptors[i] = (struct descriptor){(uint64_t)incoming[i], BUFFER, WRITE, 0};
        queue_offer(&receive, i);
    }
    queue_ring(&receive);

    make_discover(net.device);
    transmit.descriptors[0] = (struct descriptor){(uint64_t)discover, FRAME, 0, 0};
    queue_offer(&transmit, 0);
    queue_ring(&transmit);
    queue_wait(&transmit, NULL);
    const uint8_t *address = wait_for_offer();
    print("offered %u.%u.%u.%u\n", address[0], address[1], address[2], address[3]);
    check(address[0] == 10 && address[1] == 0 && address[2] == 2, "that is not 10.0.2.0/24");
}
