/* SPDX-License-Identifier: MIT */
/*
 * The folder that a protected VM had on this host before somebody else took it over: its place is
 * where its twin comes to live. It is put aside, under a hidden name, until the twin has all of the
 * VM: until then it is the second-best copy that there is.
 */
#pragma once

#include "ft/following.h"

/*
 * `name` in a folder of VMs is of this VM, nobody runs it, and the witness says that it is the
 * other side's now: 0, and the name is free. -EEXIST, without a word: it is something else.
 * -ETIMEDOUT: the witness does not say whose it is (ASKER_LOOK_MS, ft/asker.h).
 */
int former_put_aside(int place, const char *name, const uint8_t uuid[16],
                     const struct following *following, struct err *err) must_check;
/* One that is put aside, by the same rules: its descriptor; -ETIMEDOUT; else there is none. */
int former_open(int place, const char *name, const uint8_t uuid[16],
                const struct following *following, struct err *err) must_check;
void former_put_back(int place, const char *name); /* where the name is free; else nothing */
/* Nobody needs it any more, but for its snapshots and its journal: they go to the folder that has
 * its name now. */
void former_remove(int place, const char *name, int folder);
