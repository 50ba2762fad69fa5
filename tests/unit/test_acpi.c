/* SPDX-License-Identifier: MIT */
#include "firmware/x86/acpi.h"
#include "firmware/x86/layout.h"
#include "tests/unit/unit.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* The whole area of the tables, and what the root pointer leads to. */
struct tables {
    uint8_t area[LAYOUT_ACPI_SIZE];
    uint8_t *rsdp, *rsdt, *xsdt, *fadt, *madt, *facs, *dsdt;
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

static uint8_t *at(struct tables *tables, uint64_t address)
{
    ck_assert_uint_ge(address, LAYOUT_ACPI);
    ck_assert_uint_lt(address, LAYOUT_ACPI + LAYOUT_ACPI_SIZE - 64);
    return tables->area + (address - LAYOUT_ACPI);
}

static uint8_t sum(const uint8_t *bytes, size_t length)
{
    uint8_t sum = 0;
    while (length--)
        sum = (uint8_t)(sum + *bytes++);
    return sum;
}

static void check_table(const uint8_t *table, const char *signature)
{
    ck_assert_mem_eq(table, signature, 4);
    ck_assert_uint_ge(get32(table + 4), 36);
    ck_assert_uint_eq(sum(table, get32(table + 4)), 0);
}

static struct tables *build(unsigned cpus)
{
    struct tables *tables = calloc(1, sizeof *tables);
    const struct boot_platform platform = {.cpus = cpus};
    struct memory *memory;
    gpa_t rsdp = 0;

    ck_assert_int_eq(memory_create(&memory, 2 << 20, 2 << 20, LAYOUT_HIGH_RAM, NULL), 0);
    ck_assert_int_eq(acpi_write(memory, &platform, &rsdp, NULL), 0);
    ck_assert_int_eq(memory_read(memory, LAYOUT_ACPI, tables->area, sizeof tables->area), 0);
    memory_destroy(memory);
    ck_assert_uint_eq(rsdp % 16, 0);
    tables->rsdp = at(tables, rsdp);
    tables->rsdt = at(tables, get32(tables->rsdp + 16));
    tables->xsdt = at(tables, get64(tables->rsdp + 24));
    tables->fadt = at(tables, get64(tables->xsdt + 36));
    tables->madt = at(tables, get64(tables->xsdt + 44));
    tables->facs = at(tables, get32(tables->fadt + 36));
    tables->dsdt = at(tables, get64(tables->fadt + 140));
    return tables;
}

static const unsigned cpu_counts[] = {1, 2, 255, 256, LAYOUT_MAX_CPUS};

START_TEST(every_table_is_reached_and_adds_up)
{
    struct tables *tables = build(cpu_counts[_i]);

    ck_assert_mem_eq(tables->rsdp, "RSD PTR ", 8);
    ck_assert_uint_eq(tables->rsdp[15], 2);
    ck_assert_uint_eq(sum(tables->rsdp, 20), 0);
    ck_assert_uint_eq(sum(tables->rsdp, 36), 0);
    check_table(tables->rsdt, "RSDT");
    check_table(tables->xsdt, "XSDT");
    check_table(tables->fadt, "FACP");
    check_table(tables->madt, "APIC");
    check_table(tables->dsdt, "DSDT");
    ck_assert_mem_eq(tables->facs, "FACS", 4);
    ck_assert_uint_eq(get32(tables->facs + 4), 64);
    ck_assert_uint_eq((tables->facs - tables->area) % 64, 0);
    free(tables);
}
END_TEST

/* A guest that searches finds exactly one root pointer, at a multiple of 16. */
START_TEST(the_root_pointer_is_found_by_scanning)
{
    struct tables *tables = build(4);
    unsigned found = 0;

    for (size_t i = 0; i + 36 <= sizeof tables->area; i += 16)
        found += memcmp(tables->area + i, "RSD PTR ", 8) == 0;
    ck_assert_uint_eq(found, 1);
    free(tables);
}
END_TEST

START_TEST(old_guests_see_the_same_tables)
{
    struct tables *tables = build(4);

    ck_assert_uint_eq(get32(tables->rsdt + 4), 36 + 2 * 4);
    ck_assert_uint_eq(get32(tables->xsdt + 4), 36 + 2 * 8);
    for (int i = 0; i < 2; i++)
        ck_assert_uint_eq(get32(tables->rsdt + 36 + 4 * i), get64(tables->xsdt + 36 + 8 * i));
    ck_assert_uint_eq(get32(tables->fadt + 40), get64(tables->fadt + 140));
    free(tables);
}
END_TEST

/* Offsets from the table in 5.2.9; the ports are the contract with devices/acpi_pm. */
START_TEST(fadt_names_the_power_management_ports)
{
    struct tables *tables = build(1);
    const uint8_t *fadt = tables->fadt;

    ck_assert_uint_eq(get32(fadt + 4), 276);
    ck_assert_uint_eq(fadt[8], 6);
    ck_assert_uint_eq(get16(fadt + 46), 9);
    ck_assert_uint_eq(get32(fadt + 48), 0);
    ck_assert_uint_eq(get32(fadt + 56), 0x600);
    ck_assert_uint_eq(get32(fadt + 64), 0x604);
    ck_assert_uint_eq(get32(fadt + 76), 0x608);
    ck_assert_uint_eq(fadt[88], 4);
    ck_assert_uint_eq(fadt[89], 2);
    ck_assert_uint_eq(fadt[91], 4);
    ck_assert_uint_eq(fadt[108], 0x32);
    ck_assert_uint_eq(get16(fadt + 109), 0x5);
    ck_assert_uint_eq(get32(fadt + 112), 0x565);
    ck_assert_uint_eq(fadt[116], 1); /* reset register: I/O, 8 bits */
    ck_assert_uint_eq(fadt[117], 8);
    ck_assert_uint_eq(get64(fadt + 120), 0x60C);
    ck_assert_uint_eq(fadt[128], 1);
    ck_assert_uint_eq(get64(fadt + 148 + 4), 0x600);
    ck_assert_uint_eq(fadt[148 + 1], 32);
    ck_assert_uint_eq(get64(fadt + 172 + 4), 0x604);
    ck_assert_uint_eq(fadt[172 + 1], 16);
    ck_assert_uint_eq(get64(fadt + 208 + 4), 0x608);
    ck_assert_uint_eq(fadt[208 + 1], 32);
    free(tables);
}
END_TEST

/* Walks the MADT; each processor occurs once, in order, in the form that its number asks for. */
START_TEST(madt_lists_each_processor_once)
{
    unsigned cpus = cpu_counts[_i], seen = 0, io_apics = 0, overrides = 0, nmis = 0;
    struct tables *tables = build(cpus);
    const uint8_t *end = tables->madt + get32(tables->madt + 4);

    for (const uint8_t *e = tables->madt + 44; e < end; e += e[1]) {
        ck_assert_uint_ge(e[1], 6);
        switch (e[0]) {
        case 0:
            ck_assert_uint_eq(e[2], seen);
            ck_assert_uint_eq(e[3], seen++);
            ck_assert_uint_lt(e[3], 255);
            ck_assert_uint_eq(get32(e + 4), 1);
            break;
        case 9:
            ck_assert_uint_ge(seen, 255);
            ck_assert_uint_eq(get32(e + 4), seen);
            ck_assert_uint_eq(get32(e + 12), seen++);
            ck_assert_uint_eq(get32(e + 8), 1);
            break;
        case 1:
            ck_assert_uint_eq(get32(e + 4), 0xFEC00000);
            ck_assert_uint_eq(get32(e + 8), 0);
            io_apics++;
            break;
        case 2:
            ck_assert_uint_eq(get32(e + 4), e[3] == 0 ? 2 : 9);
            ck_assert_uint_eq(get16(e + 8), e[3] == 0 ? 0 : 0xD);
            overrides++;
            break;
        case 4:
        case 10:
            ck_assert_uint_eq(e[0] == 4 ? e[5] : e[8], 1);
            nmis++;
            break;
        default:
            ck_abort_msg("unexpected MADT entry %u", e[0]);
        }
    }
    ck_assert_uint_eq(seen, cpus);
    ck_assert_uint_eq(io_apics, 1);
    ck_assert_uint_eq(overrides, 2);
    ck_assert_uint_eq(nmis, cpus > 255 ? 2 : 1);
    free(tables);
}
END_TEST

/* \_S5 with sleep type 5, as AML: NameOp, "_S5_", PackageOp, length, 4 elements, byte 5. */
START_TEST(dsdt_switches_off_by_sleep_type_5)
{
    static const uint8_t aml[] = {0x08, '_', 'S', '5', '_', 0x12, 0x07, 4, 0x0A, 5};
    struct tables *tables = build(1);

    ck_assert_ptr_nonnull(memmem(tables->dsdt, get32(tables->dsdt + 4), aml, sizeof aml));
    free(tables);
}
END_TEST

START_TEST(more_processors_than_fit_are_an_error)
{
    const struct boot_platform platform = {.cpus = 8192};
    struct memory *memory;
    struct err err = {0};
    gpa_t rsdp = 1;

    ck_assert_int_eq(memory_create(&memory, 2 << 20, 2 << 20, LAYOUT_HIGH_RAM, NULL), 0);
    ck_assert_int_eq(acpi_write(memory, &platform, &rsdp, &err), -ENOSPC);
    ck_assert_uint_eq(rsdp, 1);
    ck_assert_ptr_nonnull(strstr(err.text, "8192 CPUs"));
    memory_destroy(memory);
}
END_TEST

static void save(const char *folder, const char *name, const uint8_t *table)
{
    char path[256];
    FILE *file;

    snprintf(path, sizeof path, "%s/%s.aml", folder, name);
    file = fopen(path, "we");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(table, 1, get32(table + 4), file), get32(table + 4));
    fclose(file);
}

/* The oracle: ACPICA's disassembler takes our tables without a word of complaint. */
START_TEST(iasl_finds_nothing_to_complain_about)
{
    char folder[] = "/tmp/minivmm-acpi-XXXXXX", command[512];
    struct tables *tables = build(300);
    int status;

    ck_assert_ptr_nonnull(mkdtemp(folder));
    save(folder, "fadt", tables->fadt);
    save(folder, "madt", tables->madt);
    save(folder, "facs", tables->facs);
    save(folder, "xsdt", tables->xsdt);
    save(folder, "dsdt", tables->dsdt);
    snprintf(
        command, sizeof command,
        "cd %s && for t in fadt madt facs xsdt dsdt; do iasl -d $t.aml || exit 1; done >log 2>&1"
        " && ! grep -iE 'error|warning|invalid|incorrect|unknown|bad' log *.dsl",
        folder);
    status = system(command);
    ck_assert_msg(status == 0, "see %s", folder);
    snprintf(command, sizeof command, "rm -rf %s", folder);
    ck_assert_int_eq(system(command), 0);
    free(tables);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("acpi");
    TCase *tests = tcase_create("acpi");
    int counts = array_size(cpu_counts);

    tcase_add_loop_test(tests, every_table_is_reached_and_adds_up, 0, counts);
    tcase_add_test(tests, the_root_pointer_is_found_by_scanning);
    tcase_add_test(tests, old_guests_see_the_same_tables);
    tcase_add_test(tests, fadt_names_the_power_management_ports);
    tcase_add_loop_test(tests, madt_lists_each_processor_once, 0, counts);
    tcase_add_test(tests, dsdt_switches_off_by_sleep_type_5);
    tcase_add_test(tests, more_processors_than_fit_are_an_error);
    tcase_add_test(tests, iasl_finds_nothing_to_complain_about);
    suite_add_tcase(suite, tests);
    return suite;
}

int main(void)
{
    return unit_main(make_suite());
}
