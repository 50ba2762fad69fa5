/* SPDX-License-Identifier: MIT */
/*
 * A copy of a VM's folder in a new one: for clones, for snapshots, and for VMs made from these.
 *
 * What belongs to the VM is copied: vm.json, disks, and whatever else lies in its folder. What is
 * about its own life is not: identity, journal, logs, snapshots. The disks that a running VM writes
 * to are copied by itself, all at one moment, with its memory where that is asked for
 * (ft/copies.h); the rest here.
 *
 * The copy's vm.json is the same but for its disks, where that is necessary: they are called by
 * their names in the folder, and their format is written down, for it must never be guessed from
 * what a guest has written.
 */
#pragma once

#include "cli/making.h"
#include "cli/progress.h"
#include "vmm/definition.h"
#include "vmm/runtime.h"

#include <jansson.h>

struct vm_copy {
    const char *word; /* the VM, as it was said */
    bool with_memory; /* too, where it runs */
    bool for_itself;  /* of the same VM: no word about what two VMs must not have in common */
    struct making making;
    struct folder from;
    struct definition *definition;
    bool is_snapshot;
    bool runs;
    struct runtime_info info; /* who runs it */
    json_t *answer;           /* the running VM's */
    struct progress progress;
};

#define VM_COPY_INIT                                           \
    {                                                          \
        .making = MAKING_INIT, .from = {.fd = -1, .lock = -1 } \
    }

/* The VM is found, and can be copied. Before: word; signals are held. */
int vm_copy_open(struct vm_copy *copy, struct err *err) must_check;

/*
 * Before: making.path, and the place is found. The last step is done before the folder gets its
 * name; NULL: there is none.
 */
int vm_copy_make(struct vm_copy *copy, int (*last)(struct vm_copy *copy, struct err *err),
                 struct err *err) must_check;
void vm_copy_close(struct vm_copy *copy);

/* For slow work on a file: progress.tell with the copy as ctx. */
bool vm_copy_handle_progress(void *ctx, uint64_t done, uint64_t total);
