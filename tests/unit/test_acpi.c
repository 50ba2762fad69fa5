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
    uint8_t *rsdp, *rsdt, *xsdt, *fadt, *madt, *mcfg, *ssdt, *facs, *dsdt;
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

static struct tables *build_platform(const struct boot_platform *platform)
{
    struct tables *tables = calloc(1, sizeof *tables);
    struct memory *memory;
    gpa_t rsdp = 0;

    ck_assert_int_eq(memory_create(&memory, 2 << 20, 2 << 20, LAYOUT_HIGH_RAM, NULL), 0);
    ck_assert_int_eq(acpi_write(memory, platform, &rsdp, NULL), 0);
    ck_assert_int_eq(memory_read(memory, LAYOUT_ACPI, tables->area, sizeof tables->area), 0);
    memory_destroy(memory);
    ck_assert_uint_eq(rsdp % 16, 0);
    tables->rsdp = at(tables, rsdp);
    tables->rsdt = at(tables, get32(tables->rsdp + 16));
    tables->xsdt = at(tables, get64(tables->rsdp + 24));
    tables->fadt = at(tables, get64(tables->xsdt + 36));
    tables->madt = at(tables, get64(tables->xsdt + 44));
    tables->mcfg = at(tables, get64(tables->xsdt + 52));
    tables->ssdt = at(tables, get64(tables->xsdt + 60));
    tables->facs = at(tables, get32(tables->fadt + 36));
    tables->dsdt = at(tables, get64(tables->fadt + 140));
    return tables;
}

static struct tables *build(unsigned cpus)
{
    return build_platform(&(struct boot_platform){.cpus = cpus});
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
    check_table(tables->mcfg, "MCFG");
    check_table(tables->ssdt, "SSDT");
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

    ck_assert_uint_eq(get32(tables->rsdt + 4), 36 + 4 * 4);
    ck_assert_uint_eq(get32(tables->xsdt + 4), 36 + 4 * 8);
    for (int i = 0; i < 4; i++)
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
    ck_assert_uint_eq(get32(fadt + 80), 0x606); /* events */
    ck_assert_uint_eq(get32(fadt + 84), 0);
    ck_assert_uint_eq(fadt[92], 2);
    ck_assert_uint_eq(fadt[93], 0);
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
    ck_assert_uint_eq(get64(fadt + 220 + 4), 0x606);
    ck_assert_uint_eq(fadt[220 + 1], 16);
    ck_assert_uint_eq(get64(fadt + 232 + 4), 0);
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

START_TEST(mcfg_gives_the_bus_that_there_is_and_no_other)
{
    struct tables *tables = build(1);
    const uint8_t *mcfg = tables->mcfg;

    ck_assert_uint_eq(get32(mcfg + 4), 60);
    ck_assert_uint_eq(get64(mcfg + 36), 0);
    ck_assert_uint_eq(get64(mcfg + 44), LAYOUT_ECAM);
    ck_assert_uint_eq(get16(mcfg + 52), 0);
    ck_assert_uint_eq(mcfg[54], 0);
    ck_assert_uint_eq(mcfg[55], 0); /* or Linux asks 8192 slots that are not there */
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

/*
 * What ACPICA, the interpreter of Linux and the BSDs, says to a command about our DSDT and SSDT.
 * The caller closes it.
 */
static FILE *ask_acpica(const struct boot_platform *platform, const char *command)
{
    char folder[] = "/tmp/minivmm-acpi-XXXXXX", shell[512];
    struct tables *tables = build_platform(platform);
    FILE *answer = tmpfile();

    ck_assert_ptr_nonnull(mkdtemp(folder));
    save(folder, "dsdt", tables->dsdt);
    save(folder, "ssdt", tables->ssdt);
    snprintf(shell, sizeof shell, "cd %s && acpiexec -b '%s' dsdt.aml ssdt.aml 2>&1; rm -rf %s",
             folder, command, folder);
    FILE *pipe = popen(shell, "re");
    ck_assert_ptr_nonnull(pipe);
    for (int c; (c = getc(pipe)) != EOF;)
        putc(c, answer);
    ck_assert_int_eq(pclose(pipe), 0);
    rewind(answer);
    free(tables);
    return answer;
}

/* The bytes of a buffer that ACPICA shows: "    0010: 47 01 ...  // text", a short one behind
 * "[Buffer] Length 0E =". */
static size_t ask_for_buffer(const struct boot_platform *platform, const char *command,
                             uint8_t *ret_bytes, size_t room)
{
    FILE *answer = ask_acpica(platform, command);
    char line[256];
    size_t count = 0;

    while (fgets(line, sizeof line, answer)) {
        const char *at = strstr(line, "[Buffer]") ? strchr(line, '=') + 1 : line;
        unsigned offset, byte;
        int skip = 0;
        if (sscanf(at, " %4x:%n", &offset, &skip) != 1 || !skip || offset != count)
            continue;
        for (at += skip; sscanf(at, "%2x%n", &byte, &skip) == 1; at += skip) {
            ck_assert_uint_lt(count, room);
            ret_bytes[count++] = (uint8_t)byte;
        }
    }
    fclose(answer);
    return count;
}

/* A range of one kind (0 memory, 1 I/O, 2 buses) in the resources of the host bridge. */
struct window {
    unsigned kind;
    uint64_t first, last, length;
};

/* Address space descriptors are words (88h), doublewords (87h) or quadwords (8Ah) (6.4.3.5). */
static unsigned get_windows(const struct boot_platform *platform, struct window *ret_windows,
                            unsigned room)
{
    uint8_t bytes[512];
    size_t length = ask_for_buffer(platform, "evaluate \\_SB.PCI0._CRS", bytes, sizeof bytes);
    unsigned count = 0;

    for (size_t i = 0; i < length; i += bytes[i] & 0x80 ? 3u + get16(bytes + i + 1) : 8u) {
        const uint8_t *range = bytes + i + 6; /* granularity, first, last, translation, length */
        struct window window = {.kind = bytes[i + 3]};
        if (bytes[i] == 0x79) /* the end */
            return count;
        if (bytes[i] == 0x47) { /* fixed ports of its own: CF8h..CFFh */
            ck_assert_uint_eq(get16(bytes + i + 2), 0xCF8);
            ck_assert_uint_eq(bytes[i + 7], 8);
            continue;
        }
        if (bytes[i] == 0x88) {
            window.first = get16(range + 2);
            window.last = get16(range + 4);
            window.length = get16(range + 8) + (get16(range + 8) ? 0 : 0x10000);
        } else if (bytes[i] == 0x87) {
            window.first = get32(range + 4);
            window.last = get32(range + 8);
            window.length = get32(range + 16);
        } else {
            ck_assert_uint_eq(bytes[i], 0x8A);
            window.first = get64(range + 8);
            window.last = get64(range + 16);
            window.length = get64(range + 32);
        }
        ck_assert_uint_eq(window.last - window.first + 1, window.length);
        ck_assert_uint_lt(count, room);
        ret_windows[count++] = window;
    }
    ck_abort_msg("the resources have no end");
}

START_TEST(the_host_bridge_has_the_windows_of_the_layout)
{
    struct boot_platform platform = {.cpus = 1};
    struct window windows[5];

    layout_pci64(64ull << 30, 46, &platform.pci64_base, &platform.pci64_size);
    ck_assert_uint_eq(get_windows(&platform, windows, 5), 4);
    ck_assert_uint_eq(windows[0].kind, 2);
    ck_assert_uint_eq(windows[0].first, 0);
    ck_assert_uint_eq(windows[0].last, 0);
    ck_assert_uint_eq(windows[1].kind, 1);
    ck_assert_uint_ge(windows[1].first, 0xD00); /* no port of ours lies above */
    ck_assert_uint_eq(windows[2].kind, 0);
    ck_assert_uint_eq(windows[2].first, LAYOUT_PCI32);
    ck_assert_uint_eq(windows[2].length, LAYOUT_PCI32_SIZE);
    ck_assert_uint_eq(windows[3].kind, 0);
    ck_assert_uint_eq(windows[3].first, 96ull << 30);
    ck_assert_uint_eq(windows[3].length, 32ull << 30);
}
END_TEST

START_TEST(without_a_64_bit_window_none_is_offered)
{
    const struct boot_platform platform = {.cpus = 1};
    struct window windows[5];

    ck_assert_uint_eq(get_windows(&platform, windows, 5), 3);
    ck_assert_uint_eq(windows[2].first, LAYOUT_PCI32);
}
END_TEST

START_TEST(the_generation_id_is_where_the_layout_has_it)
{
    const struct boot_platform platform = {.cpus = 1};
    FILE *answer = ask_acpica(&platform, "evaluate \\_SB.VGEN.ADDR");
    unsigned long long value, address = 0;
    unsigned count = 0;
    char line[256];

    while (fgets(line, sizeof line, answer))
        if (sscanf(line, " [Integer] = %llx", &value) == 1)
            address |= value << 32 * count++;
    ck_assert_uint_eq(count, 2);
    ck_assert_uint_eq(address, LAYOUT_VMGENID);
    fclose(answer);
}
END_TEST

START_TEST(its_event_notifies_the_device)
{
    const struct boot_platform platform = {.cpus = 1};
    FILE *answer = ask_acpica(&platform, "execute \\_GPE._E00");
    bool notified = false;
    char line[256];

    while (fgets(line, sizeof line, answer))
        notified |= strstr(line, "Notify on [VGEN]") && strstr(line, "0x80");
    ck_assert(notified);
    fclose(answer);
}
END_TEST

START_TEST(interrupt_lines_rotate_over_four_pins)
{
    const struct boot_platform platform = {.cpus = 1};
    FILE *answer = ask_acpica(&platform, "evaluate \\_SB.PCI0._PRT");
    unsigned long long value, route[4];
    unsigned count = 0;
    char line[256];

    while (fgets(line, sizeof line, answer)) {
        if (sscanf(line, " [Integer] = %llx", &value) != 1)
            continue;
        route[count++ % 4] = value;
        if (count % 4)
            continue;
        unsigned slot = (count - 1) / 16 + 1, pin = (count - 1) / 4 % 4;
        ck_assert_uint_eq(route[0], slot << 16 | 0xFFFF);
        ck_assert_uint_eq(route[1], pin);
        ck_assert_uint_eq(route[2], 0);
        ck_assert_uint_eq(route[3], LAYOUT_PCI_GSI + (slot + pin) % 4);
    }
    ck_assert_uint_eq(count, 31 * 4 * 4);
    fclose(answer);
}
END_TEST

/* Bits 0..4 are hot-plug (two kinds), PME, errors and the PCI Express capability. */
START_TEST(the_system_gets_control_of_what_it_asks_for)
{
    static const struct {
        const char *uuid;
        unsigned revision, asked, status, granted;
    } cases[] = {
        {"5B 4D DB 33 F7 1F 1C 40 96 57 74 41 C0 3D D7 66", 1, 0x1D, 0x00, 0x1D},
        {"5B 4D DB 33 F7 1F 1C 40 96 57 74 41 C0 3D D7 66", 1, 0x3F, 0x10, 0x1F},
        {"5B 4D DB 33 F7 1F 1C 40 96 57 74 41 C0 3D D7 66", 2, 0x1D, 0x08, 0x1D},
        {"00 4D DB 33 F7 1F 1C 40 96 57 74 41 C0 3D D7 66", 1, 0x1D, 0x04, 0x1D},
    };
    const struct boot_platform platform = {.cpus = 1};
    char command[256];
    uint8_t bytes[64];

    snprintf(command, sizeof command,
             "evaluate \\_SB.PCI0._OSC (%s) %u 3 (00 00 00 00 1F 00 00 00 %02X 00 00 00)",
             cases[_i].uuid, cases[_i].revision, cases[_i].asked);
    ck_assert_uint_eq(ask_for_buffer(&platform, command, bytes, sizeof bytes), 12);
    ck_assert_uint_eq(get32(bytes), cases[_i].status);
    ck_assert_uint_eq(get32(bytes + 4), 0x1F);
    ck_assert_uint_eq(get32(bytes + 8), cases[_i].granted);
}
END_TEST

/* A fixed 32-bit range (86h, 6.4.3.4), as Linux wants it before it uses the ECAM. */
START_TEST(a_motherboard_resource_reserves_the_configuration_space)
{
    const struct boot_platform platform = {.cpus = 1};
    uint8_t bytes[64];

    ck_assert_uint_ge(ask_for_buffer(&platform, "evaluate \\_SB.ECAM._CRS", bytes, sizeof bytes),
                      14);
    ck_assert_uint_eq(bytes[0], 0x86);
    ck_assert_uint_eq(get32(bytes + 4), LAYOUT_ECAM);
    ck_assert_uint_eq(get32(bytes + 8), LAYOUT_ECAM_SIZE);
}
END_TEST

/* The oracle: ACPICA's disassembler takes our tables without a word of complaint. */
START_TEST(iasl_finds_nothing_to_complain_about)
{
    char folder[] = "/tmp/minivmm-acpi-XXXXXX", command[512];
    struct tables *tables = build(300);
    int status;

    ck_assert_ptr_nonnull(mkdtemp(folder));
    save(folder, "fadt", tables->fadt);
    save(folder, "madt", tables->madt);
    save(folder, "mcfg", tables->mcfg);
    save(folder, "ssdt", tables->ssdt);
    save(folder, "facs", tables->facs);
    save(folder, "xsdt", tables->xsdt);
    save(folder, "dsdt", tables->dsdt);
    snprintf(command, sizeof command,
             "cd %s && for t in fadt madt mcfg ssdt facs xsdt dsdt; do iasl -d $t.aml || exit 1; "
             "done >log 2>&1"
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
    tcase_add_test(tests, mcfg_gives_the_bus_that_there_is_and_no_other);
    tcase_add_test(tests, the_host_bridge_has_the_windows_of_the_layout);
    tcase_add_test(tests, without_a_64_bit_window_none_is_offered);
    tcase_add_test(tests, the_generation_id_is_where_the_layout_has_it);
    tcase_add_test(tests, its_event_notifies_the_device);
    tcase_add_test(tests, interrupt_lines_rotate_over_four_pins);
    tcase_add_loop_test(tests, the_system_gets_control_of_what_it_asks_for, 0, 4);
    tcase_add_test(tests, a_motherboard_resource_reserves_the_configuration_space);
    tcase_add_test(tests, iasl_finds_nothing_to_complain_about);
    suite_add_tcase(suite, tests);
    return suite;
}

int main(void)
{
    return unit_main(make_suite());
}
