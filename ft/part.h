/* SPDX-License-Identifier: MIT */
/*
 * What this floor adds to a VM that runs (vmm/instance.h): the verbs "clone", "migrate",
 * "migrate-cancel", "protect", "unprotect", "switchover" and "epochs" of its control socket, and
 * the state from which a blank machine goes on.
 */
#pragma once

#include "ft/protection.h"
#include "ft/snapshot.h"
#include "vmm/instance.h"

struct ft_part;
struct arrival;
struct protect;

/* From where a blank machine gets its state: one of these, or none. Both outlive the instance. */
struct ft_part_config {
    struct snapshot *restore;
    struct arrival *arrival;
    const struct protection *protection; /* NULL: it has none; it outlives the instance */
    char definition[9]; /* the sum of the vm.json that the VM was started with; "": not known */
};

int ft_part_create(struct ft_part **ret_part, const struct ft_part_config *config,
                   struct err *err) must_check;
const struct instance_part *ft_part_of(struct ft_part *part);
struct protect *ft_part_protect(const struct ft_part *part); /* NULL: it has not begun */
bool ft_part_has_moved(const struct ft_part *part);          /* the VM runs on another host now */
/* It ended because it is protected, and runs elsewhere or is not needed: why (kind 0: it was handed
 * over in good order); or NULL. */
const struct err *ft_part_gone(const struct ft_part *part);
void ft_part_destroy(struct ft_part *part); /* after the instance; NULL is fine */
