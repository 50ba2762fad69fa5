/* SPDX-License-Identifier: MIT */
/*
 * Linux kernels, and files that are none. A good kernel is made here and then broken one field at a
 * time. What a real kernel makes of it is tested where there is something to run it.
 */
#include "tests/unit/kernels.h"
#include <asm/bootparam.h>
#include <fcntl.h>

static const struct boot_platform platform = {.cpus = 2};

static struct setup_header *bzimage_header(struct file *file)
{
    return (struct setup_header *)(file->bytes + 0x1F1);
}

static struct file *make_bzimage(void)
{
    struct file *file = calloc(1, sizeof *file);
    struct setup_header *header = bzimage_header(file);

    header->setup_sects = PAYLOAD_AT / 512 - 1;
    header->boot_flag = 0xAA55;
    header->jump = 0x6AEB; /* the header ends at 0x202 + 0x6a */
    header->header = 0x53726448;
    header->version = 0x020F;
    header->loadflags = LOADED_HIGH;
    header->initrd_addr_max = 0x7FFFFFFF;
    header->kernel_alignment = 0x200000;
    header->relocatable_kernel = 1;
    header->xloadflags = XLF_KERNEL_64;
    header->cmdline_size = 2047;
    header->pref_address = 16 * MIB;
    header->init_size = 16 * MIB;
    header->syssize = 0x4000 / 16;
    fill_payload(file->bytes + PAYLOAD_AT, 0x4000);
    file->length = PAYLOAD_AT + 0x4000;
    return file;
}

START_TEST(linux_enters_long_mode_at_the_kernel)
{
    struct file *file = make_bzimage();
    struct boot_image *image = open_good(file, NULL, "console=ttyS0");
    struct memory *memory = make_memory(64 * MIB);
    struct cpu_entry entry;

    ck_assert_str_eq(boot_protocol_name(image), "Linux");
    load_good(image, memory, &entry);
    ck_assert_int_eq(entry.mode, CPU_LONG);
    ck_assert_uint_eq(entry.ip, 16 * MIB + 0x200);
    ck_assert_uint_eq(entry.si, LAYOUT_ZERO_PAGE);
    ck_assert_mem_eq(borrow(memory, 16 * MIB, 0x4000), file->bytes + PAYLOAD_AT, 0x4000);
    ck_assert_str_eq(borrow(memory, LAYOUT_CMDLINE, 32), "console=ttyS0");
    memory_destroy(memory);
    boot_close(image);
    free(file);
}
END_TEST

START_TEST(linux_gets_flat_segments_and_an_identity_map)
{
    struct file *file = make_bzimage();
    struct boot_image *image = open_good(file, NULL, NULL);
    struct memory *memory = make_memory(64 * MIB);
    struct cpu_entry entry;
    const uint64_t *gdt, *table;

    load_good(image, memory, &entry);
    gdt = borrow(memory, entry.gdt, entry.gdt_limit + 1u);
    ck_assert_uint_eq(gdt[CPU_ENTRY_CODE / 8], 0x00AF9B000000FFFF);
    ck_assert_uint_eq(gdt[CPU_ENTRY_DATA / 8], 0x00CF93000000FFFF);
    for (gpa_t at = 0; at < 4 * GIB; at += 2 * MIB) {
        table = borrow(memory, entry.page_table, PAGE_SIZE);
        ck_assert_uint_eq(table[at >> 39] & 0x83, 3);
        table = borrow(memory, table[at >> 39] & ~0xFFFull, PAGE_SIZE);
        ck_assert_uint_eq(table[at >> 30] & 0x83, 3);
        table = borrow(memory, table[at >> 30] & ~0xFFFull, PAGE_SIZE);
        ck_assert_uint_eq(table[at >> 21 & 511], at | 0x83);
    }
    memory_destroy(memory);
    boot_close(image);
    free(file);
}
END_TEST

/* With 6 GiB, so that the memory map has RAM on both sides of the hole. */
START_TEST(linux_zero_page_says_what_the_protocol_asks_for)
{
    struct file *file = make_bzimage(), *initrd = make_initrd(5000);
    struct boot_image *image = open_good(file, initrd, "quiet");
    struct memory *memory = make_memory(6 * GIB);
    const struct boot_params *params;
    struct cpu_entry entry;
    uint64_t ram = 0;

    load_good(image, memory, &entry);
    params = borrow(memory, entry.si, sizeof *params);
    ck_assert_uint_eq(params->hdr.type_of_loader, 0xFF);
    ck_assert_uint_eq(params->hdr.boot_flag, 0xAA55);
    ck_assert_uint_eq(params->hdr.cmd_line_ptr, LAYOUT_CMDLINE);
    ck_assert_uint_eq(params->hdr.init_size, 16 * MIB);
    ck_assert_uint_eq(params->hdr.setup_data, 0);
    ck_assert_uint_eq(params->sentinel, 0);
    ck_assert_mem_eq(borrow(memory, params->acpi_rsdp_addr, 8), "RSD PTR ", 8);
    for (unsigned i = 0; i < params->e820_entries; i++)
        if (params->e820_table[i].type == E820_RAM && params->e820_table[i].addr >= LAYOUT_1M)
            ram += params->e820_table[i].size;
    ck_assert_uint_eq(ram, 6 * GIB - LAYOUT_1M);
    memory_destroy(memory);
    boot_close(image);
    free(initrd);
    free(file);
}
END_TEST

/* The initrd lies as high as both RAM and the kernel allow. */
START_TEST(linux_initrd_lies_high_and_page_aligned)
{
    static const uint64_t sizes[] = {64 * MIB, 2 * GIB, 3 * GIB, 6 * GIB};
    const gpa_t tops[] = {64 * MIB, 2 * GIB, 2 * GIB, 2 * GIB};
    struct file *file = make_bzimage(), *initrd = make_initrd(5000);
    struct boot_image *image = open_good(file, initrd, "quiet");
    struct memory *memory = make_memory(sizes[_i]);
    const struct boot_params *params;
    struct cpu_entry entry;

    load_good(image, memory, &entry);
    params = borrow(memory, entry.si, sizeof *params);
    ck_assert_uint_eq(params->hdr.ramdisk_image, tops[_i] - 2 * PAGE_SIZE);
    ck_assert_uint_eq(params->hdr.ramdisk_size, 5000);
    ck_assert_mem_eq(borrow(memory, params->hdr.ramdisk_image, 5000), initrd->bytes, 5000);
    memory_destroy(memory);
    boot_close(image);
    free(initrd);
    free(file);
}
END_TEST

START_TEST(setup_sects_of_0_means_4)
{
    struct file *file = make_bzimage();
    struct boot_image *image;
    struct memory *memory = make_memory(64 * MIB);
    struct cpu_entry entry;

    bzimage_header(file)->setup_sects = 0;
    image = open_good(file, NULL, NULL);
    load_good(image, memory, &entry);
    ck_assert_mem_eq(borrow(memory, 16 * MIB, 0x4000), file->bytes + 5 * 512, 0x4000);
    memory_destroy(memory);
    boot_close(image);
    free(file);
}
END_TEST

/* A reset: whatever the guest did to its memory, the same things are there again. */
START_TEST(loading_again_gives_the_same_memory)
{
    struct file *file = make_bzimage(), *initrd = make_initrd(5000);
    struct boot_image *image = open_good(file, initrd, "quiet");
    struct memory *memory = make_memory(64 * MIB);
    struct cpu_entry first, second;
    uint8_t *before = malloc(MIB), *ram = borrow(memory, 0, 64 * MIB);

    load_good(image, memory, &first);
    memcpy(before, ram, MIB);
    memset(ram, 0xCC, 64 * MIB);
    load_good(image, memory, &second);
    ck_assert_mem_eq(&first, &second, sizeof first);
    ck_assert_mem_eq(before + LAYOUT_ZERO_PAGE, ram + LAYOUT_ZERO_PAGE, PAGE_SIZE);
    ck_assert_mem_eq(before + LAYOUT_PAGE_TABLES, ram + LAYOUT_PAGE_TABLES, 6 * PAGE_SIZE);
    ck_assert_mem_eq(before + LAYOUT_EBDA, ram + LAYOUT_EBDA, LAYOUT_EBDA_SIZE);
    ck_assert_mem_eq(before + LAYOUT_ACPI, ram + LAYOUT_ACPI, 512);
    ck_assert_mem_eq(before + LAYOUT_SMBIOS, ram + LAYOUT_SMBIOS, 256);
    ck_assert_mem_eq(ram + 16 * MIB, file->bytes + PAYLOAD_AT, 0x4000);
    ck_assert_mem_eq(ram + 64 * MIB - 2 * PAGE_SIZE, initrd->bytes, 5000);
    memory_destroy(memory);
    boot_close(image);
    free(before);
    free(initrd);
    free(file);
}
END_TEST

START_TEST(what_is_loaded_is_marked_as_written)
{
    struct file *file = make_bzimage();
    struct boot_image *image = open_good(file, NULL, NULL);
    struct memory *memory = make_memory(64 * MIB);
    uint64_t log[64 * MIB / PAGE_SIZE / 64] = {0};
    struct cpu_entry entry;

    ck_assert_int_eq(memory_log_start(memory), 0);
    load_good(image, memory, &entry);
    memory_log_harvest(memory, 0, array_size(log), log);
    ck_assert_uint_eq(log[0] & 0x3FF, 0x3FB); /* BDA to command line, but no boot info */
    ck_assert_uint_eq(log[16 * MIB / PAGE_SIZE / 64], 0xF);
    memory_destroy(memory);
    boot_close(image);
    free(file);
}
END_TEST

/* Without a kernel: the BIOS, with the tables where its guests look for them. */
START_TEST(no_kernel_means_the_bios)
{
    struct boot_image *image = NULL;
    struct memory *memory = make_memory(64 * MIB);
    struct cpu_entry entry;
    struct err err = {0};

    ck_assert_int_eq(boot_open(&image, NULL, NULL, NULL, &err), 0);
    ck_assert_str_eq(boot_protocol_name(image), "BIOS");
    load_good(image, memory, &entry);
    ck_assert_int_eq(entry.mode, CPU_REAL);
    ck_assert_uint_eq(entry.segment_base, LAYOUT_SMBIOS);
    ck_assert_uint_gt(entry.segment_base + entry.ip, LAYOUT_BIOS);
    gpa_t rsdp = LAYOUT_ACPI;
    while (rsdp < LAYOUT_1M && memcmp(borrow(memory, rsdp, 8), "RSD PTR ", 8) != 0)
        rsdp += 16;
    ck_assert_uint_lt(rsdp, LAYOUT_1M);
    ck_assert_mem_eq(borrow(memory, LAYOUT_SMBIOS, 4), "_SM3", 4);
    memory_destroy(memory);
    memory = make_memory(1 * MIB);
    ck_assert_int_lt(boot_load(image, memory, &platform, &entry, &err), 0);
    check_err(&err, ERR_USAGE, "the BIOS needs 2 MiB of RAM");
    memory_destroy(memory);
    boot_close(image);
    image = NULL;
    ck_assert_int_lt(boot_open(&image, NULL, "initrd", NULL, &err), 0);
    check_err(&err, ERR_USAGE, "an initrd is for a kernel");
    ck_assert_int_lt(boot_open(&image, NULL, NULL, "quiet", &err), 0);
    check_err(&err, ERR_USAGE, "a command line is for a kernel");
    ck_assert_ptr_null(image);
}
END_TEST

START_TEST(linux_that_cannot_run_here_is_refused)
{
    struct file *file = make_bzimage();
    struct setup_header *header = bzimage_header(file), good = *header;

    header->xloadflags = 0;
    refuse_open(file, ERR_DEFINITION, "32-bit Linux kernel");
    *header = good;
    header->version = 0x0209;
    refuse_open(file, ERR_DEFINITION, "boot protocol 2.9");
    *header = good;
    header->loadflags = 0;
    refuse_open(file, ERR_DEFINITION, "zImage");
    *header = good;
    header->pref_address = 0;
    refuse_open(file, ERR_DEFINITION, "prefers to lie at 0x0");
    header->pref_address = UINT64_MAX - PAGE_SIZE + 1;
    refuse_open(file, ERR_DEFINITION, "prefers to lie at 0xfffffffffffff000");
    *header = good;
    header->syssize = 0;
    refuse_open(file, ERR_DEFINITION, "0 bytes end before its entry");
    *header = good;
    header->syssize = UINT32_MAX;
    refuse_open(file, ERR_DEFINITION, "should have 68719480816 bytes");
    free(file);
}
END_TEST

START_TEST(a_truncated_kernel_says_how_long_it_should_be)
{
    struct file *file = make_bzimage();

    file->length -= 16;
    refuse_open(file, ERR_DEFINITION, "should have 20480 bytes, and has 20464");
    file->length = 0x206;
    refuse_open(file, ERR_DEFINITION, "boot protocol 0.0");
    file->length = 0x100;
    refuse_open(file, ERR_DEFINITION, "is no kernel");
    free(file);
}
END_TEST

START_TEST(memory_too_small_names_both_sizes_and_the_mend)
{
    struct file *file = make_bzimage();
    struct boot_image *image = open_good(file, NULL, NULL);
    struct memory *memory = make_memory(24 * MIB);
    struct cpu_entry entry;
    struct err err = {0};

    ck_assert_int_lt(boot_load(image, memory, &platform, &entry, &err), 0);
    check_err(&err, ERR_USAGE, "needs 32 MiB of RAM, and the machine has 24 MiB");
    ck_assert_ptr_nonnull(strstr(err.hint, "at least 32M"));
    memory_destroy(memory);
    memory = make_memory(32 * MIB);
    load_good(image, memory, &entry);
    memory_destroy(memory);
    boot_close(image);
    refuse_load(file, NULL, MIB, ERR_USAGE, "needs 2 MiB of RAM");
    bzimage_header(file)->init_size = 0xFFFFFFFF;
    refuse_load(file, NULL, 6 * GIB, ERR_DEFINITION, "never more than 3072 MiB");
    free(file);
}
END_TEST

START_TEST(an_initrd_that_does_not_fit_names_both_sizes)
{
    struct file *file = make_bzimage(), *initrd = make_initrd(5000);

    refuse_load(file, initrd, 32 * MIB, ERR_USAGE, "has 1 MiB, and beside the kernel 0 MiB");
    refuse_load(file, initrd, 32 * MIB + PAGE_SIZE, ERR_USAGE, "beside the kernel");
    bzimage_header(file)->initrd_addr_max = 32 * MIB;
    refuse_load(file, initrd, 64 * MIB, ERR_USAGE, "beside the kernel");
    free(initrd);
    free(file);
}
END_TEST

START_TEST(a_command_line_has_an_end)
{
    struct file *file = make_bzimage();
    char *cmdline = malloc(LAYOUT_CMDLINE_SIZE + 1);
    struct boot_image *image = NULL;
    struct err err = {0};

    memset(cmdline, 'x', LAYOUT_CMDLINE_SIZE);
    cmdline[LAYOUT_CMDLINE_SIZE] = 0;
    ck_assert_int_lt(boot_open(&image, file_path(file), NULL, cmdline, &err), 0);
    check_err(&err, ERR_USAGE, "room for 28671");
    cmdline[2048] = 0;
    ck_assert_int_lt(boot_open(&image, file->path, NULL, cmdline, &err), 0);
    check_err(&err, ERR_USAGE, "has 2048 characters");
    cmdline[2047] = 0;
    ck_assert_int_eq(boot_open(&image, file->path, NULL, cmdline, &err), 0);
    boot_close(image);
    free(cmdline);
    free(file);
}
END_TEST

/* Files that are none */

START_TEST(a_missing_file_is_not_found)
{
    struct file *file = make_bzimage();
    struct boot_image *image = NULL;
    struct err err = {0};

    ck_assert_int_eq(boot_open(&image, "/nonexistent/vmlinuz", NULL, NULL, &err), -ENOENT);
    check_err(&err, ERR_NOT_FOUND, "kernel /nonexistent/vmlinuz");
    ck_assert_int_eq(boot_open(&image, file_path(file), "/nonexistent/initrd", NULL, &err),
                     -ENOENT);
    check_err(&err, ERR_NOT_FOUND, "initrd /nonexistent/initrd");
    ck_assert_ptr_null(image);
    free(file);
}
END_TEST

START_TEST(directories_pipes_and_empty_files_are_refused)
{
    struct file file = {.length = 0};
    struct boot_image *image = NULL;
    struct err err = {0};
    char path[64];
    int fds[2];

    ck_assert_int_lt(boot_open(&image, "/tmp", NULL, NULL, &err), 0);
    check_err(&err, ERR_DEFINITION, "/tmp is a directory");
    ck_assert_int_lt(boot_open(&image, "/dev/null", NULL, NULL, &err), 0);
    check_err(&err, ERR_DEFINITION, "/dev/null is not a regular file");
    ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fds[0]);
    ck_assert_int_lt(boot_open(&image, path, NULL, NULL, &err), 0);
    check_err(&err, ERR_DEFINITION, "is not a regular file");
    refuse_open(&file, ERR_DEFINITION, "is empty");
}
END_TEST

START_TEST(a_file_that_is_no_kernel_is_called_what_it_is)
{
    static const struct {
        const char *bytes, *words;
    } cases[] = {
        {"QFI\xfb", "qcow2 disk image"}, {"\x1f\x8b", "gzip"},    {"MZ", "EFI program"},
        {"070701", "an initrd"},         {"#!/bin/sh", "script"}, {"nothing", "is no kernel"},
    };
    struct file *file = calloc(1, sizeof *file);

    file->length = 4096;
    for (size_t i = 0; i < array_size(cases); i++) {
        memset(file->bytes, 0, 16);
        memcpy(file->bytes, cases[i].bytes, strlen(cases[i].bytes));
        refuse_open(file, ERR_DEFINITION, cases[i].words);
    }
    free(file);
}
END_TEST

START_TEST(a_file_that_shrinks_is_an_error)
{
    struct file *file = make_bzimage();
    struct boot_image *image = open_good(file, NULL, NULL);
    struct memory *memory = make_memory(64 * MIB);
    struct cpu_entry entry;
    struct err err = {0};

    ck_assert_int_eq(ftruncate(file->fd, PAYLOAD_AT + 100), 0);
    ck_assert_int_lt(boot_load(image, memory, &platform, &entry, &err), 0);
    check_err(&err, ERR_FAILED, "shrank");
    memory_destroy(memory);
    boot_close(image);
    free(file);
}
END_TEST

static TCase *linux_tests(void)
{
    TCase *tests = tcase_create("linux");

    tcase_add_test(tests, linux_enters_long_mode_at_the_kernel);
    tcase_add_test(tests, linux_gets_flat_segments_and_an_identity_map);
    tcase_add_test(tests, linux_zero_page_says_what_the_protocol_asks_for);
    tcase_add_loop_test(tests, linux_initrd_lies_high_and_page_aligned, 0, 4);
    tcase_add_test(tests, setup_sects_of_0_means_4);
    tcase_add_test(tests, loading_again_gives_the_same_memory);
    tcase_add_test(tests, what_is_loaded_is_marked_as_written);
    tcase_add_test(tests, no_kernel_means_the_bios);
    tcase_add_test(tests, linux_that_cannot_run_here_is_refused);
    tcase_add_test(tests, a_truncated_kernel_says_how_long_it_should_be);
    tcase_add_test(tests, memory_too_small_names_both_sizes_and_the_mend);
    tcase_add_test(tests, an_initrd_that_does_not_fit_names_both_sizes);
    tcase_add_test(tests, a_command_line_has_an_end);
    return tests;
}

static TCase *file_tests(void)
{
    TCase *tests = tcase_create("files");

    tcase_add_test(tests, a_missing_file_is_not_found);
    tcase_add_test(tests, directories_pipes_and_empty_files_are_refused);
    tcase_add_test(tests, a_file_that_is_no_kernel_is_called_what_it_is);
    tcase_add_test(tests, a_file_that_shrinks_is_an_error);
    return tests;
}

int main(void)
{
    Suite *suite = suite_create("boot");

    suite_add_tcase(suite, linux_tests());
    suite_add_tcase(suite, file_tests());
    return unit_main(suite);
}
