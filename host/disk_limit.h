/* SPDX-License-Identifier: MIT */
/* A disk before another one, through which only so much passes in a second. */
#pragma once

#include "host/disk.h"
#include "host/shared_limits.h"

/* Takes over `inner`, also on failure; bursts of up to a second's worth pass. `shared`, which
 * outlives it, or NULL: limits of several disks together. */
int disk_limit_create(struct disk **ret_disk, struct disk *inner, const struct limits *limits,
                      struct shared_limits *shared, struct err *err) must_check;

/* Of this disk, from now on. -ENOTSUP: it was opened without limits_may_change. (any thread) */
int disk_set_limits(struct disk *disk, const struct limits *limits) must_check;
