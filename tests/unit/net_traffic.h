/* SPDX-License-Identifier: MIT */
/* Making frames, giving buffers, and looking at what came of them. */
#pragma once

#include "tests/unit/net_rig.h"
#include "tests/unit/unit.h"

enum { HEADER = NETIF_HEADER, RX = 0, TX = 1, MOST_PARTS = 64 };

static struct rig rig;
static uint8_t frame[NETIF_MAX_FRAME + 100], back[NETIF_MAX_FRAME + 100];

/* A frame with an empty header, to anybody. */
static inline void make_frame(size_t length, uint8_t seed)
{
    memset(frame, 0, HEADER);
    for (size_t i = HEADER; i < length; i++)
        frame[i] = (uint8_t)(seed + i * 7 + i / 256);
}

static inline struct net_stats stats(void)
{
    struct net_stats stats;
    net_stats(rig.net, &stats);
    return stats;
}

static inline bool is_broken(void)
{
    return rig.virtio->state->status & VIRTIO_NEEDS_RESET;
}

/* Puts `frame` into the send queue, cut into pieces of `piece` bytes. */
static inline void add_send(size_t length, size_t piece, uint64_t token)
{
    struct model_part parts[MOST_PARTS];
    unsigned count = 0;

    for (size_t at = 0; at < length; at += piece) {
        size_t part = length - at < piece ? length - at : piece;
        ck_assert_uint_lt(count, MOST_PARTS);
        parts[count++] = model_out(&rig.drivers[TX], frame + at, (uint32_t)part);
    }
    ck_assert_int_ge(model_add(&rig.drivers[TX], parts, count, token), 0);
}

static inline void expect_sent(size_t length)
{
    struct rig_frame sent = rig_get(&rig.netif.out[0]);
    ck_assert_ptr_nonnull(sent.bytes);
    ck_assert_uint_eq(sent.length, length);
    ck_assert_mem_eq(sent.bytes, frame, length);
    free(sent.bytes);
}

static inline void expect_done(unsigned queue, uint64_t token)
{
    struct model_done done;
    ck_assert(model_reap(&rig.drivers[queue], &done));
    ck_assert_uint_eq(done.token, token);
}

static struct model_part given[4096]; /* by token */
static unsigned given_count, taken_count;

static inline void give(uint32_t length)
{
    struct model_part part = model_in(&rig.drivers[RX], length);
    ck_assert_int_ge(model_add(&rig.drivers[RX], &part, 1, given_count), 0);
    given[given_count++ % array_size(given)] = part;
}

static inline void give_many(unsigned count, uint32_t length)
{
    for (unsigned i = 0; i < count; i++)
        give(length);
    rig_show(&rig, RX);
}

static inline void arrive(size_t length, uint8_t seed)
{
    make_frame(length, seed);
    rig_put(&rig.netif.in[0], frame, length);
}

/* Puts the next frame together from what came back; its length, or 0. */
static inline size_t reap_frame(void)
{
    struct virtio_net_hdr_v1 header;
    size_t length = 0;
    struct model_done done;
    unsigned left = 1;

    for (bool first = true; left > 0; left--, first = false) {
        if (!model_reap(&rig.drivers[RX], &done)) {
            ck_assert(first);
            return 0;
        }
        struct model_part part = given[done.token % array_size(given)];
        ck_assert_uint_eq(done.token, taken_count++);
        ck_assert_uint_le(done.written, part.length);
        memcpy(back + length, model_bytes(&rig.drivers[RX], part.gpa, part.length), done.written);
        length += done.written;
        if (first) {
            memcpy(&header, back, sizeof(header));
            left = header.num_buffers;
            ck_assert_uint_ge(left, 1);
        } else {
            ck_assert(left == 1 || done.written == part.length);
        }
    }
    return length;
}

static inline void expect_frame(size_t length, uint8_t seed)
{
    ck_assert_uint_eq(reap_frame(), length);
    make_frame(length, seed);
    ck_assert_mem_eq(back + HEADER, frame + HEADER, length - HEADER);
    memset(back + 10, 0, 2);
    ck_assert_mem_eq(back, frame, HEADER);
}
