/* SPDX-License-Identifier: MIT */
#include "host/frame_look.h"
#include "host/netif.h"
#include "tests/unit/unit.h"

#include <stdlib.h>
#include <string.h>

enum { ETHERNET = 14, IP4 = 20, IP6 = 40, TCP = 20, FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16 };

static struct {
    uint8_t bytes[2048];
    size_t at, length;
    unsigned ip; /* where that is */
} frame;

static void put(const void *bytes, size_t length)
{
    memcpy(frame.bytes + frame.length, bytes, length);
    frame.length += length;
}

static void put_u16(size_t at, size_t value)
{
    frame.bytes[at] = (uint8_t)(value >> 8);
    frame.bytes[at + 1] = (uint8_t)value;
}

/* With so many bytes of options, of data, and of what fills it up. */
static void make(unsigned type, bool tagged, unsigned flags, size_t options, size_t data,
                 size_t filling)
{
    static const uint8_t nothing[1500];
    size_t head = type == 0x0800 ? IP4 : IP6;
    memset(&frame, 0, sizeof(frame));
    put(nothing, NETIF_HEADER + ETHERNET + (tagged ? 4 : 0));
    put_u16(frame.length - 2, type);
    if (tagged)
        put_u16(NETIF_HEADER + ETHERNET - 2, 0x8100);
    frame.ip = (unsigned)frame.length;
    put(nothing, head + TCP + options + data + filling);
    if (type == 0x0800) {
        frame.bytes[frame.ip] = 0x45;
        frame.bytes[frame.ip + 6] = 0x40; /* not to be cut */
        frame.bytes[frame.ip + 9] = 6;
        put_u16(frame.ip + 2, head + TCP + options + data);
    } else {
        frame.bytes[frame.ip] = 0x60;
        frame.bytes[frame.ip + 6] = 6;
        put_u16(frame.ip + 4, TCP + options + data);
    }
    frame.bytes[frame.ip + head + 12] = (uint8_t)((TCP + options) / 4 << 4);
    frame.bytes[frame.ip + head + 13] = (uint8_t)flags;
}

/* In one piece, and byte by byte from memory that ends with it. */
static bool is_bare(void)
{
    struct iovec pieces[256];
    uint8_t *exact = malloc(frame.length);
    memcpy(exact, frame.bytes, frame.length);
    const struct iovec one = {.iov_base = exact, .iov_len = frame.length};
    bool bare = frame_is_bare_ack(&one, 1);
    for (unsigned i = 0; i < frame.length && frame.length <= array_size(pieces); i++)
        pieces[i] = (struct iovec){.iov_base = exact + i, .iov_len = 1};
    if (frame.length <= array_size(pieces))
        ck_assert(frame_is_bare_ack(pieces, (unsigned)frame.length) == bare);
    free(exact);
    return bare;
}

static const unsigned types[] = {0x0800, 0x86dd};

START_TEST(an_acknowledgement_and_nothing_else)
{
    for (unsigned i = 0; i < array_size(types); i++)
        for (unsigned tagged = 0; tagged < 2; tagged++)
            for (size_t options = 0; options <= 40; options += 4) {
                make(types[i], tagged, ACK, options, 0, 0);
                ck_assert(is_bare());
            }
    make(0x0800, false, ACK, 0, 0, 6); /* an Ethernet has 60 bytes at least */
    ck_assert(is_bare());
    make(0x0800, false, ACK | 0x40 | 0x80, 12, 0, 0); /* the line was crowded */
    ck_assert(is_bare());
}
END_TEST

START_TEST(somebody_waits_for_all_else)
{
    static const uint8_t flags[] = {0,   SYN,       SYN | ACK, FIN | ACK,
                                    RST, RST | ACK, PSH | ACK, ACK | 32};
    for (unsigned i = 0; i < array_size(types); i++) {
        for (unsigned j = 0; j < array_size(flags); j++) {
            make(types[i], false, flags[j], 0, 0, 0);
            ck_assert_msg(!is_bare(), "flags %x", flags[j]);
        }
        for (size_t data = 1; data < 1400; data++) {
            make(types[i], false, ACK, 12, data, 0);
            ck_assert_msg(!is_bare(), "%zu bytes", data);
        }
    }
    make(0x0806, false, ACK, 0, 0, 0); /* who has that address? */
    ck_assert(!is_bare());
    make(0x0800, false, ACK, 0, 0, 0);
    frame.bytes[frame.ip + 9] = 17; /* UDP */
    ck_assert(!is_bare());
    make(0x0800, false, ACK, 0, 0, 0);
    frame.bytes[frame.ip + 6] = 0x20; /* a part of it */
    ck_assert(!is_bare());
}
END_TEST

START_TEST(whatever_a_guest_sends)
{
    for (unsigned i = 0; i < array_size(types); i++) {
        make(types[i], i, ACK, 4, 0, 0);
        for (size_t length = frame.length; length-- > 0;) { /* ends early */
            frame.length = length;
            ck_assert(!is_bare());
        }
        make(types[i], i, ACK, 4, 0, 0);
        for (size_t at = 0; at < frame.length; at++)
            for (unsigned value = 0; value < 256; value++) {
                uint8_t before = frame.bytes[at];
                frame.bytes[at] = (uint8_t)value;
                (void)is_bare();
                frame.bytes[at] = before;
            }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("frame_look");
    TCase *tests = tcase_create("bare acknowledgements");
    tcase_add_test(tests, an_acknowledgement_and_nothing_else);
    tcase_add_test(tests, somebody_waits_for_all_else);
    tcase_add_test(tests, whatever_a_guest_sends);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
