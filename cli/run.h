/* SPDX-License-Identifier: MIT */
/* Other ways to come to a VM that runs in this process. */
#pragma once

#include "core/err.h"

/*
 * The VM in this folder goes on from the snapshot's memory, if that has one: its files are in their
 * places, and the mark of cli/restoring.h says so. The exit code.
 */
int run_from_snapshot(const char *folder, const char *snapshot, bool detach);
