/* SPDX-License-Identifier: MIT */
/*
 * A VM's folder in which the files of a snapshot take their places. What was begun is finished, by
 * the start from that snapshot; until then nothing else starts there, for its disks may be of two
 * moments, or of another one than the memory that belongs to them.
 *
 * The mark is the file .restoring, with the snapshot's path in it.
 */
#pragma once

#include "vmm/folder.h"

/* On stable storage. */
int restoring_begin(const struct folder *folder, const char *snapshot, struct err *err) must_check;
/* snapshot: from which one it is about to start; NULL: from none. ERR_STATE: it must not. */
int restoring_check(const struct folder *folder, const char *snapshot, struct err *err) must_check;
void restoring_end(const struct folder *folder);
