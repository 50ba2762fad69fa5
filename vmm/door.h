/* SPDX-License-Identifier: MIT */
/*
 * A Unix stream socket that only the VM's owner and root get in through: the file has mode 0600
 * from its first moment, and the kernel is asked who comes (SO_PEERCRED). On its loop's thread.
 */
#pragma once

#include "core/loop.h"

struct door;

struct door_config {
    const char *path; /* removed at the end */
    const char *name; /* "control socket", for errors */
    unsigned backlog; /* how many may wait to be let in */
    /* One more has come in: the descriptor, non-blocking, is the handler's. */
    void (*enter)(void *ctx, int fd);
    /* The same of one who may not: `why` is for him. NULL: the door closes it. */
    void (*turn_away)(void *ctx, int fd, const struct err *why);
    void *ctx;
};

int door_open(struct door **ret_door, struct loop *loop, const struct door_config *config,
              struct err *err) must_check;
/* While it is shut, who comes waits outside. */
void door_shut(struct door *door, bool shut);
/* Not from within a handler of its own. NULL and half-built are fine. */
void door_close(struct door *door);
