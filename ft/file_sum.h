/* SPDX-License-Identifier: MIT */
/*
 * One number for a file, however large, and however sparse: the CRC-32C of the CRC-32Cs of its
 * chunks of 2 MiB (each little-endian, the last one perhaps shorter). Holes are not read.
 */
#pragma once

#include "host/copy.h"

/* progress may be NULL; where it says stop: -ECANCELED. */
int file_sum(int fd, const struct copy_progress *progress, uint32_t *ret_sum) must_check;
