/* SPDX-License-Identifier: MIT */
/*
 * The verb "clone" of a running VM's control socket: a copy of it as it was at one moment, in a
 * folder that whoever asks has made. Its disks, and where that is asked for its memory and state
 * too (ft/snapshot.h says in which files). All else that belongs to a clone or a snapshot is the
 * asker's work.
 */
#pragma once

#include "vmm/instance.h"

struct copies;

int copies_create(struct copies **ret_copies, struct err *err) must_check;
void copies_destroy(struct copies *copies); /* after the instance; NULL is fine */

/* What the instance is given. `restore`: a snapshot from which the (blank) machine goes on, or
 * NULL; it outlives the instance's creation. */
struct snapshot;
const struct instance_part *copies_part(struct copies *copies, struct snapshot *restore);
