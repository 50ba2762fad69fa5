/* SPDX-License-Identifier: MIT */
/* run --force-owner: before the VM is run. */
#pragma once

#include "core/err.h"

/*
 * The VM in this folder is another one's, who is gone for good: a person reads what that means, and
 * types the VM's name on standard input, of which one line is read and nothing behind it. Then it
 * is this folder's, at the witness and on stable storage. torn: also a twin whose disks may be of
 * no one moment.
 */
int force_owner(const char *path, bool torn, struct err *err) must_check;
