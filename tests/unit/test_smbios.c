/* SPDX-License-Identifier: MIT */
#include "firmware/x86/layout.h"
#include "firmware/x86/smbios.h"
#include "tests/unit/unit.h"
#include <stdlib.h>
#include <string.h>

enum { MAX_STRUCTURES = 32 };

static const uint8_t uuid[16] = {0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,
                                 0x88, 0x99, 0xAA, 0xBB, 0xCC, 0xDD, 0xEE, 0xFF};

/* The area, and its structures as a walker finds them. */
struct smbios {
    uint8_t area[LAYOUT_SMBIOS_SIZE];
    unsigned count;
    size_t length, largest;
    const uint8_t *structures[MAX_STRUCTURES];
};

static uint16_t get16(const uint8_t *at)
{
    uint16_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static uint32_t get32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static uint64_t get64(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static uint8_t sum(const uint8_t *bytes, size_t length)
{
    uint8_t sum = 0;
    while (length--)
        sum = (uint8_t)(sum + *bytes++);
    return sum;
}

/* From the address in the 64-bit entry point up to type 127. */
static void walk(struct smbios *smbios)
{
    const uint8_t *begin = smbios->area + (get64(smbios->area + 16) - LAYOUT_SMBIOS), *at = begin;
    const uint8_t *limit = begin + get32(smbios->area + 12);

    for (bool last = false; !last;) {
        const uint8_t *structure = at;

        ck_assert_uint_lt(smbios->count, MAX_STRUCTURES);
        ck_assert(at + 4 <= limit && at[1] >= 4);
        smbios->structures[smbios->count++] = at;
        last = at[0] == 127;
        at += at[1];
        while (at + 2 <= limit && (at[0] || at[1]))
            at++;
        at += 2;
        ck_assert(at <= limit);
        if ((size_t)(at - structure) > smbios->largest)
            smbios->largest = (size_t)(at - structure);
    }
    smbios->length = (size_t)(at - begin);
}

static struct smbios *build(uint64_t size, unsigned cpus)
{
    struct smbios *smbios = calloc(1, sizeof *smbios);
    struct boot_platform platform = {.cpus = cpus};
    struct memory *memory;
    uint64_t below;
    gpa_t above;

    memcpy(platform.uuid, uuid, sizeof uuid);
    layout_split(size, &below, &above);
    ck_assert_int_eq(memory_create(&memory, size, below, above, NULL), 0);
    ck_assert_int_eq(smbios_write(memory, &platform, NULL), 0);
    ck_assert_int_eq(memory_read(memory, LAYOUT_SMBIOS, smbios->area, sizeof smbios->area), 0);
    memory_destroy(memory);
    walk(smbios);
    return smbios;
}

/* The nth structure of this type, or NULL. */
static const uint8_t *find(const struct smbios *smbios, uint8_t type, unsigned n)
{
    for (unsigned i = 0; i < smbios->count; i++)
        if (smbios->structures[i][0] == type && n-- == 0)
            return smbios->structures[i];
    return NULL;
}

static const char *string(const uint8_t *structure, unsigned number)
{
    const char *at = (const char *)structure + structure[1];

    while (--number)
        at += strlen(at) + 1;
    return at;
}

START_TEST(both_entry_points_agree_with_the_table)
{
    struct smbios *smbios = build(64 << 20, 2);
    const uint8_t *wide = smbios->area, *old = smbios->area + 0x20;

    ck_assert_mem_eq(wide, "_SM3_", 5);
    ck_assert_uint_eq(sum(wide, wide[6]), 0);
    ck_assert_uint_eq(wide[6], 24);
    ck_assert_uint_eq(wide[7], 3);
    ck_assert_uint_eq(get32(wide + 12), smbios->length);
    ck_assert_mem_eq(old, "_SM_", 4);
    ck_assert_uint_eq(sum(old, old[5]), 0);
    ck_assert_uint_eq(old[5], 31);
    ck_assert_mem_eq(old + 16, "_DMI_", 5);
    ck_assert_uint_eq(sum(old + 16, 15), 0);
    ck_assert_uint_eq(get16(old + 8), smbios->largest);
    ck_assert_uint_eq(get16(old + 22), smbios->length);
    ck_assert_uint_eq(get32(old + 24), get64(wide + 16));
    ck_assert_uint_eq(get16(old + 28), smbios->count);
    free(smbios);
}
END_TEST

START_TEST(the_required_structures_are_there_once)
{
    static const uint8_t types[] = {0, 1, 3, 4, 16, 17, 32, 127};
    struct smbios *smbios = build(64 << 20, 2);

    for (size_t i = 0; i < sizeof types; i++) {
        ck_assert_ptr_nonnull(find(smbios, types[i], 0));
        ck_assert_ptr_null(find(smbios, types[i], 1));
    }
    for (unsigned i = 0; i < smbios->count; i++)
        for (unsigned j = 0; j < i; j++)
            ck_assert_uint_ne(get16(smbios->structures[i] + 2), get16(smbios->structures[j] + 2));
    free(smbios);
}
END_TEST

START_TEST(system_names_product_and_uuid)
{
    static const uint8_t order[16] = {0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66,
                                      0x88, 0x99, 0xAA, 0xBB, 0xCC, 0xDD, 0xEE, 0xFF};
    struct smbios *smbios = build(64 << 20, 2);
    const uint8_t *system = find(smbios, 1, 0);

    ck_assert_str_eq(string(system, system[4]), "minivmm");
    ck_assert_str_eq(string(system, system[5]), "minivmm");
    ck_assert_mem_eq(system + 8, order, sizeof order);
    free(smbios);
}
END_TEST

START_TEST(processor_counts_cores_beyond_a_byte)
{
    static const unsigned counts[] = {1, 255, 256, 1024};
    struct smbios *smbios = build(64 << 20, counts[_i]);
    const uint8_t *processor = find(smbios, 4, 0);

    ck_assert_uint_eq(processor[0x23], counts[_i] < 255 ? counts[_i] : 255);
    ck_assert_uint_eq(get16(processor + 0x2A), counts[_i]);
    ck_assert_str_eq(string(processor, processor[4]), "CPU 0");
    free(smbios);
}
END_TEST

START_TEST(memory_is_mapped_on_both_sides_of_the_hole)
{
    struct smbios *smbios = build(6ull << 30, 2);
    const uint8_t *low = find(smbios, 19, 0), *high = find(smbios, 19, 1);

    ck_assert_uint_eq(get32(find(smbios, 16, 0) + 7), 6 << 20);
    ck_assert_uint_eq(get16(find(smbios, 17, 0) + 0xC), 6 << 10);
    ck_assert_uint_eq(get32(low + 4), 0);
    ck_assert_uint_eq(get32(low + 8), (3 << 20) - 1);
    ck_assert_uint_eq(get32(high + 4), 4 << 20);
    ck_assert_uint_eq(get32(high + 8), (7 << 20) - 1);
    ck_assert_ptr_null(find(smbios, 19, 2));
    free(smbios);
    smbios = build(3ull << 30, 2);
    ck_assert_ptr_null(find(smbios, 19, 1));
    free(smbios);
}
END_TEST

/* Each field of the usual size has one value that means: look at the extended one. */
START_TEST(large_memory_uses_the_extended_fields)
{
    struct smbios *smbios = build(32ull << 30, 2);

    ck_assert_uint_eq(get16(find(smbios, 17, 0) + 0xC), 0x7FFF);
    ck_assert_uint_eq(get32(find(smbios, 17, 0) + 0x1C), 32 << 10);
    ck_assert_uint_eq(get32(find(smbios, 16, 0) + 7), 32 << 20);
    free(smbios);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("smbios");
    TCase *tests = tcase_create("smbios");

    tcase_add_test(tests, both_entry_points_agree_with_the_table);
    tcase_add_test(tests, the_required_structures_are_there_once);
    tcase_add_test(tests, system_names_product_and_uuid);
    tcase_add_loop_test(tests, processor_counts_cores_beyond_a_byte, 0, 4);
    tcase_add_test(tests, memory_is_mapped_on_both_sides_of_the_hole);
    tcase_add_test(tests, large_memory_uses_the_extended_fields);
    suite_add_tcase(suite, tests);
    return suite;
}

int main(void)
{
    return unit_main(make_suite());
}
