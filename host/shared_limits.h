/* SPDX-License-Identifier: MIT */
/*
 * Limits that may change while they are in force, and that several users may share: disks and
 * interfaces, each on its own thread.
 *
 * A user may always pass once, and pays afterwards: what it took is booked behind all that was
 * booked before, and until then it waits. So nobody starves, whoever else is in a hurry; and what
 * passes in a second is more than the limit by no more than one piece of each user.
 */
#pragma once

#include "core/loop.h"
#include "host/bucket.h"

struct shared_limits;

/* Two directions, each with the whole limit for itself. A disk uses the first. */
enum { LIMITS_LANES = 2 };

/* A second's worth may pass at once in the beginning. */
int shared_limits_create(struct shared_limits **ret_limits, const struct limits *limits,
                         struct err *err) must_check;
void shared_limits_destroy(struct shared_limits *limits); /* all users have left; NULL is fine */

/* In force at once; what was booked is forgotten. (any thread) */
void shared_limits_set(struct shared_limits *limits, const struct limits *to);

/* --- for who keeps to them ------------------------------------------------------------------ */

/* A filter, which has limits of its own and perhaps some that it shares. On the thread of its loop,
 * or while that stands still. */
struct limiter {
    struct shared_limits *limits[2]; /* the second may be NULL */
    struct limits_user {
        struct loop_timer *timer;
        struct limits_user *next;
    } users[2];
    struct loop_timer timer;
    uint64_t timer_ns; /* not later than that it fires; 0: it is not armed */
    bool attached;
};

/* Something that passes one piece at a time, in one lane. Zeroed is a good beginning. */
struct limiter_pass {
    uint64_t next_ns[2];
    unsigned epochs[2];
};

/* `shared` outlives it; NULL: none. */
int limiter_init(struct limiter *limiter, const struct limits *own, struct shared_limits *shared,
                 struct err *err) must_check;
void limiter_finish(struct limiter *limiter); /* detached; zeroed is fine */

/* handle: what waits may look again whether it may pass. */
void limiter_attach(struct limiter *limiter, struct loop *loop, void (*handle)(void *arg),
                    void *arg);
void limiter_detach(struct limiter *limiter); /* fine where it is not attached */

/* False: nothing is limited now, so nothing need be asked or booked. */
bool limiter_applies(const struct limiter *limiter);
/*
 * True: it may not pass now, and the timer will fire when it may, or when the limits have changed.
 * (Not attached, or without memory for a timer: rather no limit than a guest that hangs.)
 */
bool limiter_holds(struct limiter *limiter, const struct limiter_pass *pass, uint64_t now_ns);
/* It has passed. */
void limiter_book(struct limiter *limiter, unsigned lane, struct limiter_pass *pass,
                  uint64_t operations, uint64_t bytes, uint64_t now_ns);
/* At the beginning of the timer's handler. */
void limiter_woke(struct limiter *limiter);
