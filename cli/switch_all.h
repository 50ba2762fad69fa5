/* SPDX-License-Identifier: MIT */
/* minivmm switchover --all: what a host does with its VMs before it is shut down. */
#pragma once

#include <jansson.h>
#include <stdint.h>

enum { SWITCH_ALL_S = 60 };

/*
 * Each VM that runs here goes on where its twin is, if that could go on: one after the other, as
 * long as each is quick; one that is not holds nobody up. What has no protection stays, and is
 * named. After `timeout_s` nothing is waited for. The exit code: of the first protected VM that
 * stayed here, with its error said; else 0. To be followed by the end of the process: a VM that has
 * not answered still has a thread that waits for it.
 */
int switch_all(uint64_t timeout_s);

/* That it has gone over, by what it answered. */
void switched_say(const char *name, const json_t *answer);
