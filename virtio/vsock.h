/* SPDX-License-Identifier: MIT */
/*
 * Sockets between guest and host without a network (virtio 1.2, section 5.10).
 *
 * The host's side is a Unix socket at `path`: who connects writes "CONNECT <port>\n" and gets
 * "OK <port of ours>\n" when the guest accepts; from then on bytes go both ways. A guest that
 * connects to the host (context id 2) at port P reaches the Unix socket `path`_P, if somebody
 * listens there.
 */
#pragma once

#include "virtio/virtio.h"

struct vsock;

struct vsock_config {
    uint64_t cid;     /* the guest's context id: 3 or more */
    const char *path; /* at most 90 characters; made by us, removed at the end */
};

int vsock_create(struct vsock **ret_vsock, const struct virtio_world *world,
                 const struct vsock_config *config, struct err *err) must_check;
struct virtio *vsock_virtio(struct vsock *vsock);
