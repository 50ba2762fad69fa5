/* SPDX-License-Identifier: MIT */
#include "firmware/x86/e820.h"

#include "firmware/x86/layout.h"
#include <assert.h>

static void add(struct e820_map *map, gpa_t base, uint64_t size, enum e820_type type)
{
    assert(map->count < E820_MAX);
    map->entries[map->count++] = (struct e820_entry){base, size, type};
}

void e820_build(const struct memory *memory, struct e820_map *ret_map)
{
    const struct memory_range *ranges;
    unsigned count = memory_ranges(memory, &ranges);
    struct e820_map map = {0};

    assert(count > 0 && ranges[0].base == 0 && ranges[0].size >= LAYOUT_MIN_RAM);
    add(&map, 0, LAYOUT_EBDA, E820_RAM);
    add(&map, LAYOUT_EBDA, LAYOUT_EBDA_SIZE, E820_RESERVED);
    add(&map, LAYOUT_ACPI, LAYOUT_1M - LAYOUT_ACPI, E820_RESERVED);
    add(&map, LAYOUT_1M, ranges[0].size - LAYOUT_1M, E820_RAM);
    /* So Linux trusts it before it has read the same in ACPI (the DSDT's PNP0C02). */
    add(&map, LAYOUT_ECAM, LAYOUT_ECAM_SIZE, E820_RESERVED);
    /* Or a guest might move a PCI resource over the pages that KVM uses on some hosts. */
    add(&map, LAYOUT_KVM_IDENTITY, LAYOUT_KVM_SIZE, E820_RESERVED);
    for (unsigned i = 1; i < count; i++)
        add(&map, ranges[i].base, ranges[i].size, E820_RAM);
    *ret_map = map;
}

gpa_t e820_low_end(const struct e820_map *map)
{
    gpa_t end = 0;

    for (unsigned i = 0; i < map->count; i++) {
        const struct e820_entry *entry = &map->entries[i];
        if (entry->type == E820_RAM && entry->base < LAYOUT_HIGH_RAM)
            end = entry->base + entry->size;
    }
    return end;
}
