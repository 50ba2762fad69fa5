/* SPDX-License-Identifier: MIT */
/*
 * Guest memory in a file: each page at its offset (core/memory.h), pages of zeroes are holes, so
 * that the file can be mapped as it is. Its checksums are one number for each CHUNK: the CRC-32C of
 * the CRC-32Cs of its pages, little-endian. The last chunk may be shorter.
 */
#pragma once

#include "core/memory.h"

enum { MEMORY_FILE_CHUNK = 2 << 20 };

/* Being written, in any order, a page perhaps more than once. One thread at a time. */
struct memory_file {
    int fd;
    uint64_t size;
    uint32_t *pages; /* the sum of each */
    bool *holes;     /* it was never anything but zeroes */
};

/* fd is an empty file, and stays the caller's. */
int memory_file_begin(struct memory_file *file, int fd, uint64_t size, struct err *err) must_check;
int memory_file_put(struct memory_file *file, uint64_t offset, const uint8_t *bytes, size_t length,
                    struct err *err) must_check;
void memory_file_end(struct memory_file *file); /* zeroed is fine */

uint64_t memory_file_chunks(uint64_t size);
/* All of them, in order. */
void memory_file_sums(const struct memory_file *file, uint32_t *ret_sums);

/* Reads all of it. -EBADMSG: what does not fit its sum, or its size; err says where. */
int memory_file_verify(int fd, uint64_t size, const uint32_t *sums, struct err *err) must_check;
