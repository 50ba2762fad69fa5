/* SPDX-License-Identifier: MIT */
#include "host/frame_ring.h"

#include "core/iov.h"
#include <stdlib.h>
#include <string.h>

enum { LEAST = 64 << 10 };

bool frame_ring_reserve(struct frame_ring *ring, size_t cost, size_t most)
{
    size_t used = ring->used, size = ring->capacity ? ring->capacity : LEAST;

    if (used + cost <= ring->capacity)
        return true;
    while (size < used + cost)
        size *= 2;
    if (size > most)
        size = most;
    uint8_t *bytes = realloc(ring->bytes, size);
    if (!bytes)
        return false;
    /* What lies at the old end goes to the new one: the rest is at the beginning already. */
    if (ring->first + used > ring->capacity) {
        size_t tail = ring->capacity - ring->first;
        memmove(bytes + size - tail, bytes + ring->first, tail);
        ring->first = size - tail;
    }
    ring->bytes = bytes;
    ring->capacity = size;
    return true;
}

struct frame_record *frame_ring_at(const struct frame_ring *ring, size_t offset)
{
    size_t at = ring->first + offset;

    if (at >= ring->capacity)
        at -= ring->capacity;
    return (struct frame_record *)(void *)(ring->bytes + at);
}

unsigned frame_ring_bytes(const struct frame_ring *ring, struct frame_record *record,
                          struct iovec ret[2])
{
    uint8_t *begin = (uint8_t *)(record + 1);
    size_t left = (size_t)(ring->bytes + ring->capacity - begin), length = record->length;

    ret[0] = (struct iovec){.iov_base = begin, .iov_len = length < left ? length : left};
    ret[1] = (struct iovec){.iov_base = ring->bytes, .iov_len = length - ret[0].iov_len};
    return ret[1].iov_len ? 2 : 1;
}

void frame_ring_add(struct frame_ring *ring, const struct frame_record *record,
                    const struct iovec *iov, unsigned count)
{
    struct frame_record *to = frame_ring_at(ring, ring->used);
    struct iovec parts[2];
    size_t done = 0;

    *to = *record;
    unsigned part_count = frame_ring_bytes(ring, to, parts);
    for (unsigned i = 0; i < part_count; i++)
        done += iov_read(iov, count, done, parts[i].iov_base, parts[i].iov_len);
    ring->used += frame_ring_cost(record->length);
}

void frame_ring_drop(struct frame_ring *ring)
{
    size_t cost = frame_ring_cost(frame_ring_at(ring, 0)->length);

    ring->first += cost;
    if (ring->first >= ring->capacity)
        ring->first -= ring->capacity;
    ring->used -= cost;
    if (ring->used == 0)
        ring->first = 0; /* that memory is in the cache yet */
}

void frame_ring_clear(struct frame_ring *ring)
{
    free(ring->bytes);
    ring->bytes = NULL;
    ring->capacity = ring->first = 0;
    ring->used = 0;
}
