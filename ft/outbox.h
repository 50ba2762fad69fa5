/* SPDX-License-Identifier: MIT */
/*
 * Output commit: what a protected VM sends waits until its twin has the epoch that made it.
 *
 * One outbox for all ways out of an instance: its network interfaces (host/netif_gate.h), its
 * consoles (host/byte_gate.h) and its vsock (virtio/vsock.h). What comes in waits nowhere.
 *
 * What waits at a host that dies is lost, also where its epoch was acknowledged in the last moment:
 * for the twin it has been sent. To the world that is a wire that lost something, which TCP
 * repairs; of a console nobody repairs it. Connections of a vsock end with their host.
 *
 * What waits for nobody, because no twin follows, is on a leash all the same: a process that stood
 * still may have lost its VM to somebody whom nobody here has heard of. That is the network's only:
 * consoles and the vsock end at this host, and nobody there takes it for the one that has the VM.
 *
 * Not held, because it is said of the VM and not by it: the events of the control socket, the
 * journal, metrics.
 */
#pragma once

#include "core/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { OUTBOX_CONSOLE = 128 << 10 };

struct outbox;
struct instance;

/*
 * Open. `waits`: something waits that did not before, the first since the last mark; once for each
 * way out, and of a network once more where that begins to be urgent (host/netif_gate.h). Any
 * thread, with locks held: it must not block, nor call the outbox. The machine stands still. A VM
 * whose output cannot be held, or whose peers would not find its twin, is ERR_STATE.
 */
int outbox_create(struct outbox **ret_outbox, struct instance *instance,
                  void (*waits)(void *ctx, bool urgent), void *ctx, struct err *err) must_check;
/* The machine stands still; nobody is in a call. What is held waits on: open or shut it before. No
 * leash remains. NULL is fine. */
void outbox_destroy(struct outbox *outbox);

/*
 * The machine stands still for these two. From here on output waits under this number. The budget
 * is that of all interfaces together, in bytes, but at least a largest frame for each; the consoles
 * have one of their own, OUTBOX_CONSOLE, and a vsock keeps nothing itself. Where it is used up the
 * guest's own queues hold the rest. Numbers only grow, but a hold that follows an open may begin
 * with any.
 */
void outbox_hold(struct outbox *outbox, uint64_t number, size_t budget);
void outbox_mark(struct outbox *outbox, uint64_t number);

/* Any thread. */
void outbox_release(struct outbox *outbox, uint64_t number); /* of this one and all before */
void outbox_open(struct outbox *outbox);                     /* all, and nothing waits more */
/* So long what is open is open, of the interfaces (host/netif_gate.h); clock_boot_ns, 0: for ever,
 * as at first. */
void outbox_leash(struct outbox *outbox, uint64_t until_ns);
/* What waits is forgotten, and so is what comes, for good: nothing leaves once this returns, but
 * for a frame of each interface that is just being sent. */
void outbox_shut(struct outbox *outbox);
/* What is released leaves within so long, or waits for the next release (host/netif_gate.h). To be
 * set before the first hold. */
void outbox_limit(struct outbox *outbox, uint64_t ns);
/* The machine stands still, and will not go on: what may leave does so now. */
void outbox_flush(struct outbox *outbox);
/* Bytes that wait; without the vsock's, which the guest has. */
uint64_t outbox_held(struct outbox *outbox);
