/* SPDX-License-Identifier: MIT */
/*
 * The walls around the helper: see sandbox.c for the plan. Two processes come out of it:
 *
 *   the keeper   child of the VMM; outside of the namespaces, hears nothing from the guest. It
 * reads the host's /etc/resolv.conf for the worker, and passes on how the worker ended the worker
 * child of the keeper, or the same process where the host allows no namespaces
 */
#pragma once

#include "core/err.h"
#include <sys/types.h>

/* AddressSanitizer needs terabytes of addresses, and a call of its own at the end. */
#if defined(__SANITIZE_ADDRESS__)
#define SANDBOX_WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANDBOX_WITH_ASAN 1
#endif
#endif
#ifndef SANDBOX_WITH_ASAN
#define SANDBOX_WITH_ASAN 0
#endif

/*
 * Goes on in the worker, in namespaces of its own where the host allows; the parent is the keeper.
 * *ret_channel: the worker's end, or the keeper's; -1 when there is no keeper.
 * Returns the keeper's view of the worker: its pid; 0 in the worker; *ret_walls is set in the
 * worker.
 */
pid_t sandbox_fork(int *ret_channel, uint32_t *ret_walls);

/* An empty root directory, but for etc/resolv.conf: a descriptor to write that; -1: not possible.
 */
int sandbox_enter_root(void);

/* No privilege, now and later; limits. -errno when one that must stand does not. */
int sandbox_drop_privileges(void) must_check;

/* Where there is no empty root, and no privilege any more: of all files only those beside
 * /etc/resolv.conf can be opened. False: this kernel cannot do that. */
bool sandbox_limit_files(void);

/* The calls that are left; all others kill. resolver_file: what may be written to, or -1. */
int sandbox_limit_calls_of_worker(int resolver_file) must_check;
int sandbox_limit_calls_of_keeper(void) must_check;

/* The keeper's life. Ends with the worker's status, a signal as 128 + its number. */
_Noreturn void keeper_run(pid_t worker, int channel);
