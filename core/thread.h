/* SPDX-License-Identifier: MIT */
/*
 * Threads. Every thread of ours starts with signals blocked but for its own faults: they are read
 * by the main loop through a signalfd, except THREAD_KICK, which only exists to interrupt a system
 * call.
 */
#pragma once

#include "core/err.h"
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

struct thread {
    pthread_t id;
    bool started;
    void (*run)(void *arg);
    void *arg;
    char name[16];
    const uint32_t *_Atomic cpu; /* in the thread's own memory; NULL: not known */
};

/*
 * Before: the thread struct outlives the thread. After: run(arg) runs on a new thread that shows up
 * under `name` (15 characters) in ps and gdb.
 */
int thread_start(struct thread *thread, const char *name, void (*run)(void *arg), void *arg,
                 struct err *err) must_check;

/*
 * The same for a thread that nobody joins, because it may never end: what it touches is there for
 * as long as it is.
 */
int thread_start_loose(const char *name, void (*run)(void *arg), void *arg,
                       struct err *err) must_check;

/* The CPU that it is on, or ran on last; negative where that is not known. For a thread that does
 * not end meanwhile. */
int thread_cpu(const struct thread *thread);

/* The CPU time that it has had, 0 where it was never started. */
uint64_t thread_cpu_ns(const struct thread *thread);

/*
 * On the thread itself, for the rest of its life (who is not root cannot take it back): where CPUs
 * are short it gets a third of what another thread does. For long work that may take its time.
 */
void thread_be_modest(void);

/* Waits for the end of the thread. Does nothing when it was never started. */
void thread_join(struct thread *thread);

/* The signal that interrupts a blocking call: an empty handler, installed without SA_RESTART. */
int thread_kick_signal(void);
int thread_install_kick_handler(struct err *err) must_check; /* once per process */
void thread_allow_kick(void);                                /* on the thread that wants kicks */
void thread_kick(const struct thread *thread);
