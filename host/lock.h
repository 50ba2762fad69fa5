/* SPDX-License-Identifier: MIT */
/*
 * Locks on open files (OFD locks): one writer, or many readers. A lock belongs to the open file, is
 * shared by whoever has inherited it, and ends with the last of them, however that one ended.
 */
#pragma once

#include "core/err.h"

/* Never waits. -EAGAIN: somebody else has it. For an unshared lock the file is open for writing. */
int lock_try(int fd, bool shared) must_check;
/* Waits at most two seconds, and only where nobody is to be seen who has it: the kernel may close a
 * file some time after it took it from a process that was killed. */
int lock_outlast(int fd, bool shared) must_check;
/* Locks and marks are gone at once, though whoever has inherited the file has it open still. */
void lock_let_go(int fd);

/*
 * A mark that whoever has the same file open elsewhere can see, on another host, too, as far as its
 * file system shares locks: a lock on one byte, where files have no bytes and no other locks are.
 * Many may be on a file, and anybody may put one there. The file may be open only for reading; the
 * mark ends with what it was opened as. `place`: a random number.
 */
int lock_mark(int fd, uint64_t place) must_check;
/* Whether that mark is there, by somebody else, and not just any lock. */
bool lock_has_mark(int fd, uint64_t place);

/* Whether somebody else has it, shared or not. The file may be open only for reading. */
bool lock_is_held(int fd);

/*
 * Who has this very file open and locked; the lowest pid of several. 0: nobody that we may look at.
 * Reads all of /proc: for telling a person.
 */
int64_t lock_holder(int fd);

/* Whether the name in this folder still leads to this open file: it may have been replaced, or
 * removed, between being opened and being locked. */
bool lock_is_current(int fd, int folder, const char *name);
