/* SPDX-License-Identifier: MIT */
/*
 * A disk before an image, that another VM can have meanwhile: it lets the image go, whole and on
 * stable storage, and opens it again. In between it has none, and whoever uses it stands still.
 */
#pragma once

#include "host/disk.h"

/*
 * Of the image that config names. absent: another VM has it, and it is only looked at: whether it
 * is there, what it stands on, and what a guest would see of it.
 */
int disk_yield_create(struct disk **ret_disk, const struct disk_config *config,
                      struct err *err) must_check;

/*
 * The image of the disk in whose row there is such a one: all that is known is in it and on stable
 * storage, then it is closed, and its lock is free. An error: it is not closed, and can be used.
 * The disk's loop stands still, nothing is submitted until disk_regain, and nobody watches or
 * copies it. -ENOTSUP: there is none in the row.
 */
int disk_yield(struct disk *disk, struct err *err) must_check;

/*
 * Opens and locks it again, or for the first time. It is another one than it was, or another VM has
 * it (ERR_STATE): the disk is still without. One that has its image stays as it is. Where
 * disk_yield may be called.
 */
int disk_regain(struct disk *disk, struct err *err) must_check;

/* Whether there is such a one in the disk's row, and it is without its image. */
bool disk_is_yielded(struct disk *disk);
