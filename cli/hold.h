/* SPDX-License-Identifier: MIT */
/* Having a VM's folder for oneself, in words for who cannot. */
#pragma once

#include "vmm/folder.h"
#include "vmm/runtime.h"

/*
 * folder_lock for a verb: "web1 is already running (pid 4711)" where it does. Who has it otherwise
 * (rename, clone, a run that has just begun) is mostly done in a moment, and waited for that long.
 */
int hold_vm(struct folder *folder, struct err *err) must_check;

/* The same for a verb that takes either: 1 where it runs, and who it is. */
int hold_vm_or_find(struct folder *folder, struct runtime_info *ret_info,
                    struct err *err) must_check;

/*
 * The folder is ours, and was a twin's, whose host lost power: its journal (ft/epoch_journal.h) has
 * what its disks lack. Before they are read by anybody.
 */
int hold_complete_disks(const struct folder *folder, struct err *err) must_check;
