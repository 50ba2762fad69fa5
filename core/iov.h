/* SPDX-License-Identifier: MIT */
/* Lists of buffers. Counts and offsets are in bytes; what does not fit is left out. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

size_t iov_size(const struct iovec *iov, unsigned count);

/* Copies up to length bytes that begin at offset; says how many there were. */
size_t iov_read(const struct iovec *iov, unsigned count, size_t offset, void *to, size_t length);
size_t iov_write(const struct iovec *iov, unsigned count, size_t offset, const void *from,
                 size_t length);
size_t iov_fill(const struct iovec *iov, unsigned count, size_t offset, uint8_t byte,
                size_t length);

/*
 * The part [offset, offset + length) of a list as a list of its own, in `ret` (room for `count`
 * entries is always enough). Returns its number of entries.
 */
unsigned iov_part(const struct iovec *iov, unsigned count, size_t offset, size_t length,
                  struct iovec *ret);
