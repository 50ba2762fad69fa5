/* SPDX-License-Identifier: MIT */
/*
 * One page of text over HTTP on a Unix socket, for Prometheus and its kin (docs/metrics.md).
 *
 * Rules: 1. GET and HEAD of /metrics or /, in HTTP/1.0 or 1.1; one request a connection. 2. A
 * request is at most METRICS_MAX_REQUEST bytes. 3. From coming in to the end a client has its time,
 * and is dropped after it, wherever it stands. 4. At most METRICS_MAX_CLIENTS at once; others wait
 * until one has gone. 5. Only the VM's owner and root get in.
 */
#pragma once

#include "core/loop.h"

enum {
    METRICS_MAX_REQUEST = 4096,
    METRICS_MAX_CLIENTS = 16,
    METRICS_PATIENCE_MS = 5000,
};

struct metrics_socket;

struct metrics_socket_config {
    const char *path;
    /* The page as it is now, from malloc; or -errno. On the loop's thread. */
    int (*write)(void *ctx, char **ret_text, size_t *ret_length);
    void *ctx;
    unsigned patience_ms; /* 0: METRICS_PATIENCE_MS */
};

/* On the loop's thread. path is removed at the end. */
int metrics_socket_create(struct metrics_socket **ret_socket, struct loop *loop,
                          const struct metrics_socket_config *config, struct err *err) must_check;
void metrics_socket_destroy(struct metrics_socket *socket); /* NULL is fine */
