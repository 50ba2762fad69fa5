/* SPDX-License-Identifier: MIT */
/* Other ways to come to a VM that runs in this process. */
#pragma once

#include "ft/arrival.h"

/*
 * The VM in this folder goes on from the snapshot's memory, if that has one: its files are in their
 * places, and the mark of cli/restoring.h says so. The exit code.
 */
int run_from_snapshot(const char *folder, const char *snapshot, bool detach);

/* A VM that has come so far that its folder is there; taken over. The exit code. */
int run_arrival(struct arrival *arrival);
