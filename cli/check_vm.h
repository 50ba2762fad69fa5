/* SPDX-License-Identifier: MIT */
/* minivmm check VM: a definition, and this host for it. Nothing is changed by looking. */
#pragma once

#include "cli/findings.h"
#include "vmm/definition.h"
#include "vmm/folder.h"

/* The exit code: 0, ERR_DEFINITION, ERR_HOST, or what it is that makes looking impossible. */
int check_vm(const char *word, bool quiet);

/* The inside. */
struct vm_check {
    struct findings findings;
    bool bad_definition; /* the mend is in vm.json, or in an image */
    struct folder folder;
    struct definition *definition;
    int64_t holder; /* who runs it now; 0: nobody. Then locks and ports are its own */
};

/* An error as a finding. */
void check_vm_fail(struct vm_check *check, const char *what, const struct err *err);
void check_vm_disks(struct vm_check *check);
void check_vm_nets(struct vm_check *check);
