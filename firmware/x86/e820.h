/* SPDX-License-Identifier: MIT */
/*
 * The memory map that the guest's firmware would give by INT 15h, E820h (ACPI 6.5, chapter 15).
 * Every boot protocol hands the same one over, each in its own format.
 */
#pragma once

#include "core/memory.h"

enum e820_type {
    E820_RAM = 1,
    E820_RESERVED = 2,
    E820_ACPI = 3, /* tables that the guest may reuse after reading them */
};

struct e820_entry {
    gpa_t base;
    uint64_t size;
    enum e820_type type;
};

enum { E820_MAX = 8 };

/* Ascending, and nothing overlaps. What no entry covers is free for devices. */
struct e820_map {
    struct e820_entry entries[E820_MAX];
    unsigned count;
};

/* memory is split by layout_split() and at least LAYOUT_MIN_RAM large. */
void e820_build(const struct memory *memory, struct e820_map *ret_map);

/* The end of the RAM below the hole, where its last entry below 4 GiB ends. */
gpa_t e820_low_end(const struct e820_map *map);
