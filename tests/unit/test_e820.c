/* SPDX-License-Identifier: MIT */
#include "firmware/x86/e820.h"
#include "firmware/x86/layout.h"
#include "tests/unit/unit.h"

#define MIB (1ull << 20)
#define GIB (1ull << 30)

static struct e820_map build(uint64_t size)
{
    struct memory *memory;
    struct e820_map map;
    uint64_t below;
    gpa_t above;

    layout_split(size, &below, &above);
    ck_assert_int_eq(memory_create(&memory, size, below, above, NULL), 0);
    e820_build(memory, &map);
    memory_destroy(memory);
    return map;
}

static bool covered(const struct e820_map *map, gpa_t at, enum e820_type type)
{
    for (unsigned i = 0; i < map->count; i++)
        if (at >= map->entries[i].base && at - map->entries[i].base < map->entries[i].size)
            return map->entries[i].type == type;
    return false;
}

static uint64_t ram_from_1m(const struct e820_map *map)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < map->count; i++)
        if (map->entries[i].type == E820_RAM && map->entries[i].base >= LAYOUT_1M)
            sum += map->entries[i].size;
    return sum;
}

static const uint64_t sizes[] = {
    2 * MIB,        64 * MIB,      3 * GIB - 4096, 3 * GIB,
    3 * GIB + 4096, 4 * GIB + MIB, 6 * GIB + 4096, 64 * GIB,
};

START_TEST(entries_ascend_and_never_overlap)
{
    struct e820_map map = build(sizes[_i]);

    for (unsigned i = 0; i < map.count; i++) {
        ck_assert_uint_gt(map.entries[i].size, 0);
        if (i > 0)
            ck_assert_uint_ge(map.entries[i].base,
                              map.entries[i - 1].base + map.entries[i - 1].size);
    }
}
END_TEST

START_TEST(all_ram_but_the_first_mib_is_reported)
{
    struct e820_map map = build(sizes[_i]);

    ck_assert_uint_eq(ram_from_1m(&map), sizes[_i] - LAYOUT_1M);
}
END_TEST

START_TEST(the_hole_is_never_ram)
{
    struct e820_map map = build(sizes[_i]);

    for (gpa_t at = LAYOUT_HOLE; at < LAYOUT_HIGH_RAM; at += MIB)
        ck_assert(!covered(&map, at, E820_RAM));
    ck_assert(covered(&map, LAYOUT_ECAM, E820_RESERVED));
    ck_assert(covered(&map, LAYOUT_ECAM + LAYOUT_ECAM_SIZE - 1, E820_RESERVED));
    ck_assert(!covered(&map, LAYOUT_PCI32 + LAYOUT_PCI32_SIZE - 1, E820_RESERVED));
    ck_assert(covered(&map, LAYOUT_KVM_IDENTITY, E820_RESERVED));
    ck_assert(covered(&map, LAYOUT_KVM_TSS + 3 * PAGE_SIZE - 1, E820_RESERVED));
}
END_TEST

START_TEST(tables_in_the_first_mib_are_reserved)
{
    struct e820_map map = build(64 * MIB);

    ck_assert(covered(&map, LAYOUT_EBDA - 1, E820_RAM));
    ck_assert(covered(&map, LAYOUT_EBDA, E820_RESERVED));
    ck_assert(!covered(&map, LAYOUT_VGA, E820_RAM));
    ck_assert(covered(&map, LAYOUT_ACPI, E820_RESERVED));
    ck_assert(covered(&map, LAYOUT_VMGENID, E820_RESERVED));
    ck_assert_uint_eq(LAYOUT_VMGENID % PAGE_SIZE, 0);
    ck_assert_uint_ge(LAYOUT_VMGENID, LAYOUT_ACPI + LAYOUT_ACPI_SIZE);
    ck_assert_uint_le(LAYOUT_VMGENID + PAGE_SIZE, LAYOUT_SMBIOS);
    ck_assert(covered(&map, LAYOUT_SMBIOS, E820_RESERVED));
    ck_assert(covered(&map, LAYOUT_1M, E820_RAM));
}
END_TEST

START_TEST(ram_splits_exactly_at_3_gib)
{
    struct e820_map map = build(3 * GIB);

    ck_assert_uint_eq(e820_low_end(&map), LAYOUT_HOLE);
    ck_assert(!covered(&map, LAYOUT_HIGH_RAM, E820_RAM));
    map = build(3 * GIB + 4096);
    ck_assert_uint_eq(e820_low_end(&map), LAYOUT_HOLE);
    ck_assert(covered(&map, LAYOUT_HIGH_RAM + 4095, E820_RAM));
    ck_assert(!covered(&map, LAYOUT_HIGH_RAM + 4096, E820_RAM));
    map = build(3 * GIB - 4096);
    ck_assert_uint_eq(e820_low_end(&map), LAYOUT_HOLE - 4096);
}
END_TEST

/* Above all RAM, aligned, and inside what the processor can address, or not there at all. */
START_TEST(the_64_bit_window_lies_above_all_ram)
{
    struct e820_map map = build(sizes[_i]);
    const struct e820_entry *last = &map.entries[map.count - 1];

    for (unsigned bits = 32; bits <= 64; bits++) {
        uint64_t base = 1, size = 1;
        layout_pci64(sizes[_i], bits, &base, &size);
        if (!size) {
            ck_assert_uint_eq(base, 0);
            continue;
        }
        ck_assert_uint_eq(size, 32 * GIB);
        ck_assert_uint_eq(base % size, 0);
        ck_assert_uint_ge(base, last->base + last->size);
        ck_assert_uint_ge(base, LAYOUT_HIGH_RAM);
        ck_assert(bits == 64 || base + size <= 1ull << bits);
    }
}
END_TEST

START_TEST(the_64_bit_window_is_there_as_soon_as_it_fits)
{
    static const struct {
        uint64_t memory;
        unsigned bits;
        uint64_t base, size;
    } cases[] = {
        {64 * MIB, 35, 0, 0},
        {64 * MIB, 36, 32 * GIB, 32 * GIB},
        {31 * GIB, 36, 32 * GIB, 32 * GIB}, /* RAM ends at 32 GiB exactly */
        {31 * GIB + 4096, 36, 0, 0},
        {31 * GIB + 4096, 37, 64 * GIB, 32 * GIB},
        {LAYOUT_MAX_RAM, 40, 0, 0},
        {LAYOUT_MAX_RAM, 64, 1056 * GIB, 32 * GIB},
    };

    for (unsigned i = 0; i < array_size(cases); i++) {
        uint64_t base = 1, size = 1;
        layout_pci64(cases[i].memory, cases[i].bits, &base, &size);
        ck_assert_uint_eq(base, cases[i].base);
        ck_assert_uint_eq(size, cases[i].size);
    }
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("e820");
    TCase *tests = tcase_create("e820");
    int count = array_size(sizes);

    tcase_add_loop_test(tests, entries_ascend_and_never_overlap, 0, count);
    tcase_add_loop_test(tests, all_ram_but_the_first_mib_is_reported, 0, count);
    tcase_add_loop_test(tests, the_hole_is_never_ram, 0, count);
    tcase_add_test(tests, tables_in_the_first_mib_are_reserved);
    tcase_add_test(tests, ram_splits_exactly_at_3_gib);
    tcase_add_loop_test(tests, the_64_bit_window_lies_above_all_ram, 0, count);
    tcase_add_test(tests, the_64_bit_window_is_there_as_soon_as_it_fits);
    suite_add_tcase(suite, tests);
    return suite;
}

int main(void)
{
    return unit_main(make_suite());
}
