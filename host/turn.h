/* SPDX-License-Identifier: MIT */
/*
 * A turn on a loop, for which any thread may ask. Unlike a posted call it can be taken back: after
 * turn_detach none comes any more.
 */
#pragma once

#include "core/loop.h"
#include <stdatomic.h>

struct turn {
    void (*handle)(void *arg);
    void *arg;
    struct loop *loop; /* NULL: not attached */
    struct loop_io io; /* an eventfd, which is never read */
    atomic_bool asked;
};

int turn_init(struct turn *turn, void (*handle)(void *arg), void *arg, struct err *err) must_check;
void turn_finish(struct turn *turn); /* detached; also where turn_init has failed */

/* On the loop's thread, or while it stands still. What was asked for in between comes then. There
 * may be one that nobody asked for. */
int turn_attach(struct turn *turn, struct loop *loop, struct err *err) must_check;
void turn_detach(struct turn *turn); /* fine where it is not attached */

/* One turn that begins after this, for any number of calls until it begins. (any thread) */
void turn_ask(struct turn *turn);
