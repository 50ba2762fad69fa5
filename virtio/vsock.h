/* SPDX-License-Identifier: MIT */
/*
 * Sockets between guest and host without a network (virtio 1.2, section 5.10): streams.
 *
 * The host's side is a Unix socket at `path`, with mode 0600: who connects writes
 * "CONNECT <port>\n" and gets "OK <port of ours>\n" when the guest accepts; from then on bytes go
 * both ways. A guest that connects to the host (context id 2) at port P reaches the Unix socket
 * `path`_P, if somebody listens there.
 *
 * Connections live in this process only. After a load the guest's are reset (it hears of it by an
 * event, and its listening sockets stay), and so are those of the host's programs.
 */
#pragma once

#include "virtio/virtio.h"

enum { VSOCK_PATH_MAX = 90 };

struct vsock;

struct vsock_config {
    uint64_t cid;     /* the guest's context id: 3 to 2^32 - 2 */
    const char *path; /* at most VSOCK_PATH_MAX characters; made by us, removed at the end. A socket
                         that nobody listens at any more is replaced; a live one is ERR_STATE */
};

int vsock_create(struct vsock **ret_vsock, const struct virtio_world *world,
                 const struct vsock_config *config, struct err *err) must_check;
struct virtio *vsock_virtio(struct vsock *vsock);

/*
 * The gate before the host's programs: as host/netif_gate.h has it, but what waits is left in the
 * guest's own queue, which is the budget. Open at first.
 *
 * A connection that ends because the guest is reset, or because we end, ends at once: its program
 * cannot tell that from a host that dies.
 */
/* From the device's handlers, with its lock held: must neither block nor call the device. */
void vsock_gate_watch(struct vsock *vsock, void (*waits)(void *ctx), void *ctx);
/* The machine is paused for these two. */
void vsock_gate_hold(struct vsock *vsock, uint64_t number);
void vsock_gate_mark(struct vsock *vsock, uint64_t number); /* numbers only grow */
/* Any thread. What these two allow happens on the main loop, soon. */
void vsock_gate_release(struct vsock *vsock, uint64_t number); /* of this one and all before */
void vsock_gate_open(struct vsock *vsock);
/* For good: no byte leaves once this returns. Any thread. */
void vsock_gate_shut(struct vsock *vsock);
