/* SPDX-License-Identifier: MIT */
/*
 * Small files: read whole, and replaced whole or not at all (written beside the old one, then given
 * its name).
 */
#pragma once

#include "core/err.h"

#include <sys/types.h>

/* All of it, with a 0 behind (free it). -EFBIG: there are more than limit bytes. */
int small_file_read(int fd, size_t limit, char **ret_text, size_t *ret_length) must_check;
/* Of this name, never by a link, and without waiting. -EINVAL: it is no plain file. */
int small_file_read_in(int folder, const char *name, size_t limit, char **ret_text,
                       size_t *ret_length) must_check;

struct small_file {
    const void *bytes;
    size_t length;
    bool durable; /* survives a power cut once this has returned */
    mode_t mode;  /* from its first byte on; 0: that of the old file, or as the umask says */

    /*
     * NULL: no lock. Else the new file is locked (host/lock.h) before it has its name, so that
     * nobody finds it free: *lock is then its descriptor, and the one that was there, or -1, is
     * closed.
     */
    int *lock;

    /*
     * NULL: none. Else the name of a second file, which has taken up room as well: that one is
     * written, and then the two swap names. So a durable file without a lock is also replaced where
     * the file system is full. Where there is none, or swapping is unknown, it goes as without, and
     * one is made if that can be.
     */
    const char *spare;
};

/*
 * On failure the old file is as it was. It gives the new one its mode; written by root, that
 * belongs to the folder's owner. One writer at a time: both would write ".NAME.new", and what a
 * crash has left of it is overwritten.
 */
int small_file_replace(int folder, const char *name, const struct small_file *file,
                       struct err *err) must_check;

/*
 * For reading, and writing at its end; made where there is none. -EINVAL: it is no plain file;
 * -EMLINK: it has further names, by which it may be anybody's; both are not ours to write to. Never
 * follows a link, and never waits.
 */
int small_file_append(int folder, const char *name, mode_t mode) must_check;

/* What root makes in somebody's folder must not shut that one out: it belongs to the folder's
 * owner, where the file system knows of owners. */
void small_file_give_to_owner(int folder, int fd);
