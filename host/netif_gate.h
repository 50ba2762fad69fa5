/* SPDX-License-Identifier: MIT */
/*
 * Before an interface: what the guest sends passes, or waits until somebody says that the world may
 * know of it. Nobody has to say so for what comes in. Open at first: then it costs a call.
 *
 * Frames wait in the order in which they were sent, with their headers, each under the number of
 * the span of time in which it was sent. How much may wait is bounded: then the gate is full, as an
 * interface is whose wire is slow, and the guest's own queue holds the rest.
 *
 * What has waited once was sent: it leaves when it is allowed to, after the guest's reset and after
 * a detach and an attach, too. Only shut and destroy forget it. What leaves of a queue that is in
 * use no more leaves by the first. A frame that the interface refuses then, for another reason than
 * that it is full, is lost.
 */
#pragma once

#include "host/netif.h"

struct netif_gate;

/* Takes over `inner`, also on failure. */
int netif_gate_create(struct netif **ret_netif, struct netif *inner, struct err *err) must_check;

/* Of an interface that one stands before somewhere in its row; NULL: there is none. */
struct netif_gate *netif_gate_of(struct netif *netif);

/*
 * Called when something waits that did not before: the first frame since the last netif_gate_mark;
 * and once more, urgently, at the first that is more than an acknowledgement (host/frame_look.h),
 * if that is another one. On the interface's loop, from within send, and must not block. To be set
 * before the first hold.
 */
void netif_gate_watch(struct netif_gate *gate, void (*waits)(void *ctx, bool urgent), void *ctx);

/*
 * The interface's loop stands still for these two. From here on frames wait, under this number; at
 * most so many bytes of them, as they lie in memory; a largest frame always finds room in an empty
 * gate. A hold that follows an open may begin with any number; what has not left yet since then is
 * free to leave, if the gate's leash lasts. Held already: as mark.
 */
void netif_gate_hold(struct netif_gate *gate, uint64_t number, size_t budget);
/* Numbers only grow. */
void netif_gate_mark(struct netif_gate *gate, uint64_t number);

/*
 * Any thread; what they allow happens on the interface's loop, soon, in order. What the interface
 * does not take at once stays in front.
 */
void netif_gate_release(struct netif_gate *gate, uint64_t number); /* of this one and all before */
void netif_gate_open(struct netif_gate *gate);                     /* all, and nothing waits more */
/*
 * An open gate is open until then (clock_boot_ns), and has to be told so again and again by who may
 * say so. What is sent later, be it that the whole process stood still, waits in order, within the
 * budget, and leaves when it is told again; nobody is called for it. A hold that comes first holds
 * it, under its number. 0: for ever, as at first.
 */
void netif_gate_leash(struct netif_gate *gate, uint64_t until_ns);
/* What waits is forgotten, and so is what comes, for good: nothing leaves once this returns, but
 * for the one frame that is just being sent. */
void netif_gate_shut(struct netif_gate *gate);

/* The loop stands still, and may not go on again: what is allowed to leave does so now, as far as
 * the interface takes it. */
void netif_gate_flush(struct netif_gate *gate);

/* What may leave does so within so long after a release, or after the hold that found it free, or
 * waits for the next release: who was frozen in between says nothing that is no longer true. 0: for
 * ever. To be set before the first hold. */
void netif_gate_limit(struct netif_gate *gate, uint64_t ns);

uint64_t netif_gate_held(struct netif_gate *gate); /* bytes of memory that wait. Any thread */
