/* SPDX-License-Identifier: MIT */
/*
 * What a ring's next request is, read from the spec and by other means than vring.c: first the
 * whole chain is listed, copying descriptors out by guest address, then each clause is asked of the
 * list. For the property test and the fuzzer, which compare. Little-endian hosts only.
 */
#pragma once

#include "core/memory.h"
#include "virtio/vring.h"

struct reference_descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags;
    uint16_t next;
};

/* A request: what is listed up to a lie, and whether it is one. */
struct reference {
    bool legal;
    unsigned count;
    struct reference_descriptor buffers[VRING_MAX_SIZE];
};

static inline bool reference_in_ram(const struct memory *memory, uint64_t address, uint64_t length)
{
    const struct memory_range *ranges;
    unsigned count = memory_ranges(memory, &ranges);
    unsigned __int128 begin = address, end = begin + length;

    for (unsigned i = 0; i < count; i++) {
        unsigned __int128 base = ranges[i].base;
        if (begin >= base && end <= base + ranges[i].size)
            return true;
    }
    return false;
}

/* Lists one table from `at` on. Returns how the list ended. */
enum reference_end { REFERENCE_LIE, REFERENCE_LAST, REFERENCE_TABLE };

static inline enum reference_end reference_list(struct reference *ref, const struct memory *memory,
                                                gpa_t table, uint64_t entries, uint64_t at,
                                                unsigned limit, struct reference_descriptor *last)
{
    do {
        if (at >= entries || memory_read(memory, table + at * 16, last, 16) < 0)
            return REFERENCE_LIE;
        if (last->flags & 4)
            return REFERENCE_TABLE;
        if (ref->count == limit)
            return REFERENCE_LIE;
        ref->buffers[ref->count++] = *last;
        at = last->next;
    } while (last->flags & 1);
    return REFERENCE_LAST;
}

static inline bool reference_buffers_are_legal(const struct reference *ref,
                                               const struct memory *memory)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < ref->count; i++) {
        const struct reference_descriptor *buffer = &ref->buffers[i];
        if (i > 0 && !(buffer->flags & 2) && (ref->buffers[i - 1].flags & 2))
            return false;
        if (buffer->length > 0 && !reference_in_ram(memory, buffer->address, buffer->length))
            return false;
        sum += buffer->length;
    }
    return sum <= 0x100000000;
}

/* The request at `head`, which need not be less than `size`. */
static inline void reference_read(struct reference *ref, const struct memory *memory,
                                  gpa_t descriptors, unsigned size, bool indirect, unsigned head)
{
    struct reference_descriptor last;
    enum reference_end end;

    ref->count = 0;
    ref->legal = false;
    end = reference_list(ref, memory, descriptors, size, head, size, &last);
    if (end == REFERENCE_TABLE) {
        if (!indirect || (last.flags & 1) || last.length == 0 || last.length % 16 != 0 ||
            !reference_in_ram(memory, last.address, last.length))
            return;
        end = reference_list(ref, memory, last.address, last.length / 16, 0, size, &last);
    }
    ref->legal = end == REFERENCE_LAST && reference_buffers_are_legal(ref, memory);
}

/*
 * Whether a popped chain is this request: the same pieces of memory, in the same order, the same
 * way. Empty buffers are left out.
 */
static inline bool reference_equals(const struct reference *ref, const struct memory *memory,
                                    const struct vring_chain *chain)
{
    unsigned n = 0, readable = 0;
    uint64_t bytes[2] = {0, 0};

    for (unsigned i = 0; i < ref->count; i++) {
        const struct reference_descriptor *buffer = &ref->buffers[i];
        bool write = buffer->flags & 2;
        void *pointer;
        if (buffer->length == 0)
            continue;
        if (n == chain->readable + chain->writable ||
            memory_borrow(memory, buffer->address, buffer->length, &pointer) < 0 ||
            chain->iov[n].iov_base != pointer || chain->iov[n].iov_len != buffer->length)
            return false;
        bytes[write] += buffer->length;
        readable += !write;
        n++;
    }
    return n == chain->readable + chain->writable && readable == chain->readable &&
           bytes[0] == chain->readable_bytes && bytes[1] == chain->writable_bytes;
}

static inline unsigned reference_segments(const struct reference *ref)
{
    unsigned n = 0;

    for (unsigned i = 0; i < ref->count; i++)
        n += ref->buffers[i].length > 0;
    return n;
}
