/* SPDX-License-Identifier: MIT */
/*
 * The one door to guest RAM.
 *
 * A gpa_t is a number from the guest: it cannot be dereferenced, and everything that touches guest
 * memory goes through here, where ranges are checked (overflow and holes are -EFAULT, and nothing
 * is touched). RAM is one private mapping, seen by the guest as one or two ranges: below the hole
 * under 4 GiB, and above 4 GiB.
 *
 * KVM's dirty log sees what vCPUs write, not what we write. So a write through the door marks its
 * pages in a bitmap of our own while logging is on; whoever borrows a range to write into it
 * (a disk read, a packet) says memory_written() when the bytes are there.
 *
 * All functions: any thread. Guest RAM is shared with running vCPUs: what was checked may change
 * before it is used, so copy first, then check.
 */
#pragma once

#include "core/err.h"

typedef uint64_t gpa_t;

#define PAGE_SIZE 4096ull

struct memory;

/* One stretch of guest RAM: what becomes a KVM memory slot. */
struct memory_range {
    gpa_t base;
    uint64_t size;
    uint64_t offset; /* where it lies in the mapping, and in the dirty bitmap */
    uint8_t *host;
};

enum { MEMORY_MAX_RANGES = 2 };

/*
 * size is a multiple of the page size. The first `below` bytes lie at 0, the rest (if any) at
 * `above`. Costs the same for every size: pages come when they are touched.
 */
int memory_create(struct memory **ret_memory, uint64_t size, uint64_t below, gpa_t above,
                  struct err *err) must_check;
void memory_destroy(struct memory *memory);

/*
 * RAM is what the file holds: fd's bytes from 0, as many as the memory has. They come as they are
 * touched, and no write of the guest's goes back to the file, which nobody may change as long as
 * the memory is there. Before a vCPU or a device has touched the memory; fd stays the caller's.
 */
int memory_map_file(struct memory *memory, int fd, struct err *err) must_check;

uint64_t memory_size(const struct memory *memory);
/* Whether a page that the host has not got a copy of holds more than zeroes. */
bool memory_is_file(const struct memory *memory);
unsigned memory_ranges(const struct memory *memory, const struct memory_range **ret_ranges);

int memory_read(const struct memory *memory, gpa_t gpa, void *to, size_t length) must_check;
int memory_write(struct memory *memory, gpa_t gpa, const void *from, size_t length) must_check;
int memory_fill(struct memory *memory, gpa_t gpa, uint8_t byte, size_t length) must_check;

/*
 * A pointer to [gpa, gpa + length), which must lie in one range. Valid as long as the memory. Who
 * writes through it calls memory_written() afterwards, at completion and not before.
 */
int memory_borrow(const struct memory *memory, gpa_t gpa, size_t length,
                  void **ret_pointer) must_check;
void memory_written(struct memory *memory, gpa_t gpa, size_t length);

/* The same for a part of what was borrowed, by our own address of it. */
void memory_written_at(struct memory *memory, const void *pointer, size_t length);

/*
 * Gives whole pages back to the host: they read as zeroes from now on, and count as written.
 * Multiples of the page size only, else -EINVAL.
 */
int memory_discard(struct memory *memory, gpa_t gpa, uint64_t length) must_check;

/*
 * Whatever is touched from now on stays in RAM, and is not swapped out; pages that nobody touches
 * take none. As many bytes as the memory has must be allowed (RLIMIT_MEMLOCK, which is raised where
 * we may): else -EPERM or -ENOMEM, and all is as before. unlock: bit by bit, while the guest runs.
 */
int memory_lock(struct memory *memory) must_check;
void memory_unlock(struct memory *memory);
/* Pages with a bit in `pages` are in RAM when this returns, if they were swapped out. Where the
 * kernel cannot do that (before 5.14) nothing happens. */
void memory_bring_in(struct memory *memory, const uint64_t *pages);

/*
 * The VMM's own marks, one bit a page, indexed by offset in the mapping. start() begins with a
 * clean bitmap. harvest() moves the words [first_word, first_word + words) into `into` (OR) and
 * clears them.
 */
int memory_log_start(struct memory *memory) must_check;
void memory_log_stop(struct memory *memory);
void memory_log_harvest(struct memory *memory, uint64_t first_word, uint64_t words, uint64_t *into);
