/* SPDX-License-Identifier: MIT */
/*
 * Files that hold a secret. Refused, with the mend: one that group or others may read or write, one
 * that is somebody else's (root's is fine), and whatever is no regular file.
 */
#pragma once

#include "core/err.h"

/* what: "the key". -EINVAL: it is no regular file. */
int secret_file_check(int fd, const char *path, const char *what, struct err *err) must_check;
/* For reading; never waits. */
int secret_file_open(int *ret_fd, const char *path, const char *what, struct err *err) must_check;

/* All of it, with a 0 behind; secret_file_free() it. More than limit bytes are refused. */
int secret_file_read(const char *path, const char *what, size_t limit, char **ret_text,
                     size_t *ret_length, struct err *err) must_check;
void secret_file_free(char *text, size_t length); /* NULL is fine; nothing of it stays in memory */
