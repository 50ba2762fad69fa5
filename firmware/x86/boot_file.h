/* SPDX-License-Identifier: MIT */
/*
 * A kernel or initrd file: opened once, read by offset, straight into guest memory where it is
 * large. A file that has become shorter than it was when opened is an error, never a signal:
 * nothing is mapped.
 */
#pragma once

#include "core/memory.h"

struct boot_file {
    const char *what; /* "kernel" or "initrd", for the sentences */
    char *path;
    int fd;
    uint64_t size; /* when it was opened; not 0 */
};

/* what is kept, not copied. */
int boot_file_open(struct boot_file *file, const char *path, const char *what,
                   struct err *err) must_check;
void boot_file_close(struct boot_file *file); /* takes a zeroed one */

/* Exactly length bytes; the caller has compared with the size. */
int boot_file_read(const struct boot_file *file, uint64_t offset, void *to, size_t length,
                   struct err *err) must_check;

/* The same, into guest memory, which must be RAM in one range. No copy is made on the way. */
int boot_file_load(const struct boot_file *file, uint64_t offset, struct memory *memory, gpa_t at,
                   size_t length, struct err *err) must_check;

/*
 * Both fill err and return -errno. cut_off: the file should have `needed` bytes (ERR_DEFINITION).
 * no_room: RAM would have to reach up to `end`, and reaches up to `given` below 4 GiB (ERR_USAGE
 * with
 * --memory as the hint, or ERR_DEFINITION where no machine has that much there).
 */
int boot_file_cut_off(const struct boot_file *file, uint64_t needed, struct err *err);
int boot_file_no_room(const struct boot_file *file, uint64_t end, uint64_t given, struct err *err);

/* For sentences; rounded up. */
unsigned long long boot_mib(uint64_t bytes);
