/* SPDX-License-Identifier: MIT */
/*
 * Folders with all that is in them: measured, emptied, removed.
 *
 * Nothing here leaves the folder: symbolic links are removed and not followed, and a mount point in
 * it is an error. Names are relative to their folder's descriptor.
 */
#pragma once

#include "core/err.h"

struct tree_size {
    uint64_t files; /* and whatever else is no folder */
    uint64_t bytes; /* of the file system that would be free again */
};

/* -EXDEV, ERR_STATE: something is mounted in it. */
int tree_measure(int parent, const char *name, struct tree_size *ret_size,
                 struct err *err) must_check;

/* What somebody else removes at the same time is no error. What cannot be removed ends it: the rest
 * is still there then. */
int tree_remove(int parent, const char *name, struct err *err) must_check;

/* All but the entry `keep`; NULL: everything. The folder itself stays. */
int tree_empty(int folder, const char *keep, struct err *err) must_check;

/*
 * The folder in which the last part of `path` lies, below `folder`: its descriptor, with that part
 * in *ret_last. No link is followed on the way, and nothing leads out: -ELOOP, -ENOTDIR, -EINVAL
 * (".", "..", "/x", "a//b"). `make`: folders that are missing are made.
 */
int tree_open_parent(int folder, const char *path, bool make, const char **ret_last) must_check;
/* A file that is there, the same way; what it is, is the caller's to look at. Never waits. `how`:
 * O_RDONLY or O_RDWR. */
int tree_open_file(int folder, const char *path, int how) must_check;

/*
 * Gives a file or folder another name, where that is still free: -EEXIST, ERR_STATE if not. Both
 * folders are on stable storage afterwards.
 */
int tree_move(int parent, const char *name, int new_parent, const char *new_name,
              struct err *err) must_check;
