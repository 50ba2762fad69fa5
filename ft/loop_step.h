/* SPDX-License-Identifier: MIT */
/*
 * A thread that has steps of its work done by a loop, one at a time, and waits for each: what
 * touches a machine belongs to the machine's loop. Whoever is on the loop can abandon it, and the
 * thread waits no more.
 */
#pragma once

#include "core/loop.h"
#include <pthread.h>

struct loop_step {
    struct loop *loop;
    struct loop_call call;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int (*run)(void *ctx, struct err *err); /* what is to be done; NULL: nothing */
    void *ctx;
    struct err *err;
    bool over, abandoned;
    int result;
};

void loop_step_init(struct loop_step *step, struct loop *loop);
void loop_step_finish(struct loop_step *step); /* zeroed is fine */

/* On the thread. What run(ctx, err) returns; -ESHUTDOWN: abandoned. */
int loop_step_do(struct loop_step *step, int (*run)(void *ctx, struct err *err), void *ctx,
                 struct err *err) must_check;
/* On the thread: waits so long, or until it is abandoned: true. */
bool loop_step_rest(struct loop_step *step, unsigned ms);

void loop_step_abandon(struct loop_step *step); /* on the loop's thread; for good */
