/* SPDX-License-Identifier: MIT */
/*
 * An event loop: file descriptors, timers, and calls from other threads.
 *
 * A loop belongs to the thread that runs it. Functions marked (any thread) may be called from
 * everywhere; all others only on the loop's thread, before loop_run and after it has returned, or
 * by who has parked the loop.
 * Handlers run one at a time on the loop's thread and may add, change and remove anything,
 * themselves included.
 */
#pragma once

#include "core/err.h"

struct loop;

int loop_create(struct loop **ret_loop, struct err *err) must_check;
void loop_destroy(struct loop *loop); /* NULL is fine; nothing may be registered any more */

/* Handles events until loop_stop. A stop that came before the run ends it at once. */
int loop_run(struct loop *loop) must_check;
void loop_stop(struct loop *loop); /* (any thread) */

/*
 * Descriptors. The caller owns the struct and keeps it until loop_io_remove. A descriptor that
 * cannot be polled (a regular file) counts as always ready.
 */
enum {
    LOOP_READ = 1,
    LOOP_WRITE = 2,
    LOOP_HANGUP = 4, /* always reported, never asked for */
    /* With the others: report an arrival once, not for as long as it lies there. An eventfd that is
     * only a doorbell need not be read then. */
    LOOP_EDGE = 8,
};

struct loop_io {
    int fd;
    unsigned events; /* what is watched: LOOP_READ | LOOP_WRITE, or 0 for a rest */
    void (*handle)(void *arg, unsigned events);
    void *arg;
    struct loop_io *next_always; /* the loop's own: list of descriptors that cannot be polled */
    bool unpollable;             /* the loop's own */
};

int loop_io_add(struct loop *loop, struct loop_io *io, struct err *err) must_check;
void loop_io_watch(struct loop *loop, struct loop_io *io, unsigned events);
void loop_io_remove(struct loop *loop, struct loop_io *io);

/*
 * Timers, one-shot, on CLOCK_MONOTONIC. The caller owns the struct and keeps it until it has
 * finished it. Arming an armed timer moves it. A cancel that races with the firing does not wait
 * for the handler: a handler whose owner has a lock takes it and looks again whether it is still
 * due.
 */
struct loop_timer {
    struct loop *loop;
    void (*handle)(void *arg);
    void *arg;
    uint64_t deadline_ns;
    size_t index; /* the loop's own: place in its heap, 0 when idle */
};

void loop_timer_init(struct loop_timer *timer, struct loop *loop, void (*handle)(void *arg),
                     void *arg);
int loop_timer_arm(struct loop_timer *timer, uint64_t deadline_ns) must_check; /* (any thread) */
void loop_timer_cancel(struct loop_timer *timer);                              /* (any thread) */

/*
 * Runs handle(arg) on the loop's thread, in the order of the calls. The caller owns the struct and
 * keeps it until the handler has run; posting a call that still waits does nothing (it runs once).
 */
struct loop_call {
    void (*handle)(void *arg);
    void *arg;
    struct loop_call *next; /* the loop's own */
    bool queued;            /* the loop's own */
};

void loop_post(struct loop *loop, struct loop_call *call); /* (any thread) */

/*
 * Stops a running loop between two handlers and returns when it stands still, at once if it has
 * nothing to do; loop_unpark lets it go on. (any thread but the loop's own; calls nest)
 */
void loop_park(struct loop *loop);
void loop_unpark(struct loop *loop);
