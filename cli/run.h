/* SPDX-License-Identifier: MIT */
/* Other ways to come to a VM that runs in this process. */
#pragma once

#include "ft/arrival.h"
#include "vmm/folder.h"

/*
 * The VM in this folder goes on from the snapshot's memory, if that has one: its files are in their
 * places, and the mark of cli/restoring.h says so. The exit code.
 */
int run_from_snapshot(const char *folder, const char *snapshot, bool detach);

/*
 * A clone that goes on with the memory that lies in its folder, here: a snapshot of nothing else.
 * It goes as soon as the VM has it. What is left of it the next snapshot sweeps.
 */
#define RUN_CLONED_MEMORY FOLDER_SNAPSHOTS "/.clone.new"

/* In the background; the mark of cli/restoring.h is there. What does not run is removed. */
int run_clone(const char *folder);

/* A VM that has come so far that its folder is there; taken over. The exit code. */
int run_arrival(struct arrival *arrival);
