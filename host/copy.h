/* SPDX-License-Identifier: MIT */
/*
 * Copies of files: shared (reflink) where the file system can, else sparse, data only.
 */
#pragma once

#include "core/err.h"

#include <sys/stat.h>

struct copy_progress {
    /* How far it is: at the beginning (where bytes have to be moved), then at most ten times a
     * second, and at the end. false: stop, -ECANCELED. NULL: nobody wants to know. */
    bool (*tell)(void *ctx, uint64_t done, uint64_t total);
    void *ctx;
};

/*
 * `to` is new (ERR_STATE where it exists), with `from`'s mode, and gone again on failure. Both are
 * relative to their folder's descriptor (AT_FDCWD: as usual). *ret_shared (or NULL): it took no
 * space. Durable when this returns. `from` may be a block device. It may be written to meanwhile,
 * but not become shorter. With a folder's descriptor, `from` itself is no symbolic link.
 */
int copy_file(int from_folder, const char *from, int to_folder, const char *to,
              const struct copy_progress *progress, bool *ret_shared, struct err *err) must_check;

/* The same for the very file that was looked at: one that has taken its place since (in a folder
 * that somebody else writes to) is -ESTALE. */
int copy_file_seen(int from_folder, const char *from, const struct stat *seen, int to_folder,
                   const char *to, const struct copy_progress *progress,
                   struct err *err) must_check;

/* Between open files, whole; `to` is empty. Not made durable. */
int copy_descriptor(int from, int to, const struct copy_progress *progress, bool *ret_shared,
                    struct err *err) must_check;
