/* SPDX-License-Identifier: MIT */
/*
 * Frames that wait, first in, first out, in one piece of memory: each behind a record that says
 * what it is. It begins small and grows; no frame is allocated by itself. One thread's; how much
 * is used may be read on any.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct frame_record {
    uint64_t number;
    uint32_t length; /* of the frame */
    uint16_t queue;
    bool free;
    uint8_t reserved;
};

/* Records are not cut by the ring's end; frames may be. */
enum { FRAME_RING_UNIT = sizeof(struct frame_record) };

struct frame_ring {
    uint8_t *bytes;
    size_t capacity, first;
    _Atomic size_t used;
};

/* What a frame takes of it. */
static inline size_t frame_ring_cost(size_t length)
{
    return (2 * sizeof(struct frame_record) + length - 1) & ~(size_t)(FRAME_RING_UNIT - 1);
}

/* False: no memory. `most`, whole units, has room for what is used and for it. */
bool frame_ring_reserve(struct frame_ring *ring, size_t cost, size_t most);

/* Before: reserved. `length` is the record's and the list's. It counts, for other threads too, when
 * it is whole. */
void frame_ring_add(struct frame_ring *ring, const struct frame_record *record,
                    const struct iovec *iov, unsigned count);

/* That lies `offset` behind the first one: the costs of those between. */
struct frame_record *frame_ring_at(const struct frame_ring *ring, size_t offset);
/* Its bytes, in one piece or two: how many. */
unsigned frame_ring_bytes(const struct frame_ring *ring, struct frame_record *record,
                          struct iovec ret[2]);

void frame_ring_drop(struct frame_ring *ring);  /* the first one; there is one */
void frame_ring_clear(struct frame_ring *ring); /* all, and the memory */
