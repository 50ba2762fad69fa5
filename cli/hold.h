/* SPDX-License-Identifier: MIT */
/* Having a VM's folder for oneself, in words for who cannot. */
#pragma once

#include "vmm/folder.h"

/*
 * folder_lock for a verb: "web1 is already running (pid 4711)" where it does. Who has it otherwise
 * (rename, clone, a run that has just begun) is mostly done in a moment, and waited for that long.
 */
int hold_vm(struct folder *folder, struct err *err) must_check;
