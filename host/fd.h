/* SPDX-License-Identifier: MIT */
/* Descriptors of files: all of the bytes at a place, whatever interrupts us; and where it lies. */
#pragma once

#include "core/err.h"

#include <limits.h>

int fd_write_at(int fd, const void *bytes, size_t length, uint64_t offset) must_check;
/* -ENODATA: the file ends before. */
int fd_read_at(int fd, void *bytes, size_t length, uint64_t offset) must_check;
/* By what the kernel says: it may have been moved since it was opened. */
int fd_path(int fd, char ret_path[PATH_MAX]) must_check;
