/* SPDX-License-Identifier: MIT */
/*
 * The split ring (virtio 1.2, section 2.7), from the device's side. Only this file's code touches
 * descriptors.
 *
 * The ring lies in guest memory and the guest may write it at any moment, so each field is copied
 * once, then checked, then used. Every walk is total: it ends after at most `size` descriptors, and
 * what breaks a rule of the spec makes the ring broken (-EPROTO), for good, until the device is
 * reset. vring.c numbers the rules.
 *
 * The way of a request: pop, work on the buffers, push, and after one or many of them publish,
 * which says whether the driver wants an interrupt. With `arm` the device asks to be told of more.
 *
 * All functions: under the device's lock, or on whatever thread alone serves the ring.
 */
#pragma once

#include "core/iov.h"
#include "core/memory.h"
#include "core/state.h"

enum { VRING_MAX_SIZE = 1024 };

/* The driver's choice of places, and how far both sides have come. */
struct vring_state {
    uint64_t descriptors; /* guest addresses */
    uint64_t available;
    uint64_t used;
    uint16_t size;           /* entries: a power of two */
    uint16_t next_available; /* what we take next; free-running like the ring's own index */
    uint16_t next_used;      /* where we push next */
    uint16_t signalled;      /* used index at the last publish */
    bool enabled;
    uint8_t reserved[7];
};

extern const struct state_table vring_state_table; /* to be nested */

struct vring {
    struct vring_state *state;
    struct memory *memory;
    bool event_index; /* VIRTIO_F_EVENT_IDX was negotiated */
    bool indirect;    /* VIRTIO_F_INDIRECT_DESC */
    bool broken;
    uint16_t size; /* as checked when the ring was opened */
    /* Borrowed from guest memory while open. */
    void *descriptors, *available, *used;
};

/*
 * A request: buffers that the device reads, then buffers that it writes. The caller lends the
 * space. Segments have the addresses of the guest's own pages: valid until the push.
 */
struct vring_chain {
    struct iovec *iov;
    unsigned capacity;
    uint16_t head;
    unsigned readable, writable; /* iov[0..readable), then iov[readable..readable + writable) */
    uint64_t readable_bytes, writable_bytes;
};

static inline const struct iovec *vring_writable(const struct vring_chain *chain)
{
    return chain->iov + chain->readable;
}

/* state outlives the ring. */
void vring_init(struct vring *ring, struct vring_state *state, struct memory *memory);

/*
 * Takes hold of the places in state, which are checked: size, alignment, in RAM. -EFAULT or
 * -EINVAL where they are none: the ring is broken then.
 */
int vring_open(struct vring *ring, bool event_index, bool indirect) must_check;
void vring_close(struct vring *ring);

/*
 * 1 and a request; 0: none waits; -EPROTO: the guest broke a rule, or the ring is not open.
 * -E2BIG: a legal request of more segments than there is space; it is taken, has no segments, and
 * can be pushed.
 * Never more than `size` requests are popped and not yet pushed. Their heads may be equal: a guest
 * that lies offers the same request twice, so a device must not find its work by the head.
 */
int vring_pop(struct vring *ring, struct vring_chain *chain) must_check;

/* Puts the last `count` popped ones back, which are then popped again. */
void vring_unpop(struct vring *ring, unsigned count);

/* A request that was popped before the state was saved, by its head. Returns as vring_pop, never
 * 0. */
int vring_reopen(struct vring *ring, uint16_t head, struct vring_chain *chain) must_check;

/*
 * The request, as it was popped, is done: the first `written` bytes of its writable part are
 * filled, and are marked as written here. Seen by the guest after the next publish.
 */
void vring_push(struct vring *ring, const struct vring_chain *chain, uint32_t written);

/* Shows the driver what was pushed. True: it wants an interrupt. */
bool vring_publish(struct vring *ring) must_check;

/* The driver need not tell of new requests / shall tell again. True from arm: some came meanwhile,
 * go on. */
void vring_disarm(struct vring *ring);
bool vring_arm(struct vring *ring) must_check;

/* How many requests wait; 0 for a broken ring. */
unsigned vring_waiting(struct vring *ring);
