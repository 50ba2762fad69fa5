/* SPDX-License-Identifier: MIT */
/* Starting a program of ours, or one that we work with, with nothing of us but what it is given. */
#pragma once

#include "core/err.h"
#include <sys/types.h>

enum { PROGRAM_FDS = 4 };

/*
 * Runs argv (argv[0] is looked for in PATH unless it has a slash) in a session of its own, with no
 * signal blocked or ignored, and with fds as its descriptors 0 to 3; -1 stands for /dev/null. All
 * others are closed there; here all stay the caller's.
 *
 * After: *ret_pid is a child for waitid, *ret_pidfd tells when it ends. -errno when the program
 * cannot be run at all.
 */
int program_start(pid_t *ret_pid, int *ret_pidfd, char *const argv[],
                  const int fds[PROGRAM_FDS]) must_check;
