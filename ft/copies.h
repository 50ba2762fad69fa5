/* SPDX-License-Identifier: MIT */
/*
 * The verb "clone" of a running VM's control socket: a copy of it as it was at one moment, in a
 * folder that whoever asks has made. Its disks, and where that is asked for its memory and state
 * too (ft/snapshot.h says in which files). All else that belongs to a clone or a snapshot is the
 * asker's work.
 */
#pragma once

#include "vmm/control.h"
#include "vmm/instance.h"

struct copies;

/* definition: the sum of the vm.json that it was started with, which outlives it; "": not known. */
int copies_create(struct copies **ret_copies, struct instance *instance, const char *definition,
                  struct err *err) must_check;
/* The verb. */
int copies_clone(struct copies *copies, struct control_request *request, const json_t *arguments,
                 struct err *err) must_check;
bool copies_are_under_way(const struct copies *copies);
void copies_abandon(struct copies *copies); /* the VM ends: who waits gets an answer */
void copies_destroy(struct copies *copies); /* the machine is gone; NULL is fine */
