/* SPDX-License-Identifier: MIT */
/*
 * A VM's folder, seen from the folder in which it lies: for those verbs that make it, rename it and
 * remove it.
 *
 * Beside web1 lie, hidden and only for as long as it takes, .web1.new (being made) and
 * .web1.removed-... (being removed). Neither is ever found as a VM. What a killed minivmm has left
 * of them the next `new` of that name sweeps.
 */
#pragma once

#include "vmm/folder.h"
#include <limits.h>

struct place {
    int parent;              /* the directory */
    char name[NAME_MAX + 1]; /* of the VM in it */
    char path[PATH_MAX];     /* of the parent, whole */
};

/* For a VM that is yet to be: the parent is there, the name may be a VM's. ERR_STATE: taken. */
int place_find(struct place *ret_place, const char *path, struct err *err) must_check;

/* Where this folder lies. */
int place_of(struct place *ret_place, const struct folder *folder, struct err *err) must_check;

/* A VM by its folder; one that runs also by its name or UUID. Not locked. */
int place_open_vm(struct folder *ret_folder, const char *word, struct err *err) must_check;

/* A symbolic link to a VM is not the VM: who renames or removes has to name the folder itself. */
int place_refuse_link(const char *path, struct err *err) must_check;

/* Whether the name leads to this very directory. */
bool place_is(const struct place *place, const char *name, int folder);

/* A name for the folder while it is removed; nobody else chooses the same. */
void place_removed_name(const struct place *place, char ret_name[NAME_MAX + 1]);
void place_sweep(const struct place *place); /* what a `remove` that was killed has left */
void place_close(struct place *place);       /* parent -1 is fine */
