/* SPDX-License-Identifier: MIT */
/*
 * `run --detach`: the VM goes on in a process of its own, and the command ends when the VM runs, or
 * with the VM's words and exit code where it does not.
 *
 * The fork comes before the first thread. Until detach_ready() the child speaks to the same
 * standard error as its parent, so a person sees why a VM does not start.
 */
#pragma once

#include "core/err.h"

struct detach {
    int ready; /* the child's end of a pipe; -1: not detached */
};

/*
 * Parent: waits, and *ret_code is its exit code; returns 1. Child: returns 0. On failure -errno,
 * and there is no child.
 */
int detach_fork(struct detach *ret_detach, int *ret_code, struct err *err) must_check;

/* The child: from now on standard error is `log` (in the folder log_folder; NULL: nowhere; what
 * cannot be one is told in a warning), and the parent may go. Does nothing where nothing was
 * forked. */
void detach_ready(struct detach *detach, int log_folder, const char *log);

/* Standard error is the log from now on. */
void detach_log(int log_folder, const char *log);

/* Tells the service manager that started us (sd_notify's protocol: a datagram to $NOTIFY_SOCKET).
 * Does nothing where there is none. */
void notify_manager(const char *state);
