/* SPDX-License-Identifier: MIT */
/*
 * A VM's folder that is being made (new, clone): there whole, or not at all.
 *
 * It is made as .NAME.new, hidden and locked, and given its name at the end. What a killed minivmm
 * has left there, the next one for that name empties and takes; the lock says whether it still
 * works. A signal is looked for between two steps, and ends the program when everything is gone
 * again.
 */
#pragma once

#include "cli/place.h"
#include <signal.h>

struct making {
    const char *path;   /* as it was said */
    struct place place; /* parent -1: not found yet */
    char hidden[NAME_MAX + 1];
    struct folder folder; /* the hidden one */
    bool held;            /* signals */
    sigset_t signals, before;
};

#define MAKING_INIT                                           \
    {                                                         \
        .place.parent = -1, .folder = {.fd = -1, .lock = -1 } \
    }

void making_hold_signals(struct making *making);
bool making_is_interrupted(const struct making *making);
void making_let_signals(struct making *making); /* one that came ends us here */

/* The place is found. After: the hidden folder is ours, and empty. */
int making_begin(struct making *making, struct err *err) must_check;

/* ret: how it went. 0: it gets its name; else, or if a signal came, all is removed. */
int making_end(struct making *making, int ret, struct err *err) must_check;

/* What is said at the end, as a shell wants it: "web1 is ready: minivmm run web1". */
void making_tell_ready(const struct making *making, const char *path);
