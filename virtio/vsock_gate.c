/* SPDX-License-Identifier: MIT */
/*
 * Output commit for vsock: packets of the guest wait where they are, in its transmit queue.
 *
 * All that a host program can see of the guest comes out of that queue: bytes, answers, requests,
 * the ends of connections. So it is enough to know how many of the packets that wait there were of
 * which number; nothing is copied, the queue is the bound, and credit is given back when bytes have
 * left, as always. A twin finds what did not leave in the memory of its guest, which hears that its
 * connections are gone.
 *
 *     the queue:  [ free ][ span ][ span ] ... [ of the number that is now ]
 *
 * A guest that takes back what it has put into its queue makes these counts wrong, and its later
 * packets leave too early: it has betrayed its own output and nobody else's.
 *
 * While older packets wait the guest is not asked to ring for new ones: they are seen when those
 * have left.
 */
#include "virtio/vsock_parts.h"

#include <assert.h>

static struct vring *queue_of(struct vsock *vsock)
{
    return &vsock->virtio.queues[VSOCK_TRANSMIT].ring; /* while it is paused, too */
}

/* Packets in the queue whose number is over. */
static unsigned marked(const struct vsock_gate *gate)
{
    unsigned count = gate->free;
    for (unsigned i = 0; i < gate->count; i++)
        count += gate->spans[(gate->first + i) % VSOCK_SPANS].packets;
    return count;
}

/* Packets of the number that is now. */
static unsigned fresh(struct vsock *vsock)
{
    unsigned waiting = vring_waiting(queue_of(vsock)), old = marked(&vsock->gate);
    return waiting > old ? waiting - old : 0;
}

/* --- under the device's lock ------------------------------------------------------------------ */

bool vsock_gate_lets(struct vsock *vsock)
{
    struct vsock_gate *gate = &vsock->gate;
    if (gate->mode != VSOCK_GATE_HELD)
        return gate->mode == VSOCK_GATE_OPEN;
    while (gate->count && gate->spans[gate->first].number < gate->end) {
        gate->free += gate->spans[gate->first].packets;
        gate->first = (gate->first + 1) % VSOCK_SPANS;
        gate->count--;
    }
    return gate->free || (!gate->count && gate->number < gate->end);
}

void vsock_gate_took(struct vsock *vsock)
{
    vsock->gate.free -= vsock->gate.free > 0;
}

void vsock_gate_tell(struct vsock *vsock)
{
    struct vsock_gate *gate = &vsock->gate;
    if (gate->mode != VSOCK_GATE_HELD || gate->told || !fresh(vsock))
        return;
    gate->told = true;
    if (gate->waits)
        gate->waits(gate->waits_ctx);
}

void vsock_gate_forget(struct vsock *vsock)
{
    vsock->gate.free = vsock->gate.count = 0;
}

/* --- the gate --------------------------------------------------------------------------------- */

void vsock_gate_watch(struct vsock *vsock, void (*waits)(void *ctx), void *ctx)
{
    virtio_lock(&vsock->virtio);
    vsock->gate.waits = waits;
    vsock->gate.waits_ctx = ctx;
    virtio_unlock(&vsock->virtio);
}

/* Where there are more spans than places the last one grows: its packets wait longer than they
 * have to. */
static void add_span(struct vsock_gate *gate, unsigned packets)
{
    if (!packets)
        return;
    if (gate->count < VSOCK_SPANS)
        gate->spans[(gate->first + gate->count++) % VSOCK_SPANS].packets = 0;
    struct vsock_span *last = &gate->spans[(gate->first + gate->count - 1) % VSOCK_SPANS];
    last->number = gate->number;
    last->packets += packets;
}

static void mark(struct vsock *vsock, uint64_t number)
{
    struct vsock_gate *gate = &vsock->gate;
    assert(number >= gate->number);
    if (number > gate->number)
        add_span(gate, fresh(vsock));
    gate->number = number;
    gate->told = false;
}

void vsock_gate_mark(struct vsock *vsock, uint64_t number)
{
    virtio_lock(&vsock->virtio);
    if (vsock->gate.mode == VSOCK_GATE_HELD)
        mark(vsock, number);
    virtio_unlock(&vsock->virtio);
}

void vsock_gate_hold(struct vsock *vsock, uint64_t number)
{
    struct vsock_gate *gate = &vsock->gate;
    virtio_lock(&vsock->virtio);
    if (gate->mode == VSOCK_GATE_HELD) {
        mark(vsock, number);
    } else if (gate->mode == VSOCK_GATE_OPEN) {
        vsock_gate_forget(vsock);
        gate->free = vring_waiting(queue_of(vsock));
        gate->number = number;
        gate->end = 0;
        gate->told = false;
        gate->mode = VSOCK_GATE_HELD;
    }
    virtio_unlock(&vsock->virtio);
}

void vsock_gate_release(struct vsock *vsock, uint64_t number)
{
    uint64_t end = number < UINT64_MAX ? number + 1 : number;
    virtio_lock(&vsock->virtio);
    if (vsock->gate.end < end)
        vsock->gate.end = end;
    virtio_unlock(&vsock->virtio);
    virtio_ring_doorbell(&vsock->virtio, VSOCK_TRANSMIT);
}

void vsock_gate_open(struct vsock *vsock)
{
    virtio_lock(&vsock->virtio);
    if (vsock->gate.mode == VSOCK_GATE_HELD)
        vsock->gate.mode = VSOCK_GATE_OPEN;
    virtio_unlock(&vsock->virtio);
    virtio_ring_doorbell(&vsock->virtio, VSOCK_TRANSMIT);
}

void vsock_gate_shut(struct vsock *vsock)
{
    virtio_lock(&vsock->virtio);
    vsock->gate.mode = VSOCK_GATE_SHUT;
    virtio_unlock(&vsock->virtio);
}
