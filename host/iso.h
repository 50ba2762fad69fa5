/* SPDX-License-Identifier: MIT */
/* A small ISO 9660 file system in memory: files in one folder, names as on Unix. */
#pragma once

#include "core/err.h"

enum { ISO_MOST_FILES = 8, ISO_NAME_MAX = 64, ISO_SECTOR = 2048 };

struct iso_file {
    const char *name;       /* ISO_NAME_MAX at most */
    const char *short_name; /* "META_DAT.;1"; in the order of these names */
    const void *bytes;
    size_t length;
};

/* The file system's bytes (free() them), a multiple of ISO_SECTOR; -ENOMEM or -EFBIG. The same
 * files give the same bytes. */
int iso_make(const char *label, const struct iso_file *files, unsigned count, void **ret_bytes,
             size_t *ret_size) must_check;
