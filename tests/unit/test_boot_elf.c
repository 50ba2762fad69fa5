/* SPDX-License-Identifier: MIT */
/* Kernels that are ELF files with a PVH note, or carry a multiboot header. */
#include "tests/unit/kernels.h"
#include <elf.h>

enum { NOTE_AT = 0x400, MULTIBOOT_AT = 0x800 };

/* ELF with a PVH note */

static Elf64_Phdr *elf64_headers(struct file *file)
{
    return (Elf64_Phdr *)(file->bytes + sizeof(Elf64_Ehdr));
}

/* One segment at 1 MiB, linked high as Linux is, and a note with the entry in the middle of it. */
static struct file *make_pvh(void)
{
    struct file *file = calloc(1, sizeof *file);
    Elf64_Ehdr *header = (Elf64_Ehdr *)file->bytes;
    Elf64_Phdr *load = elf64_headers(file), *note = load + 1;
    Elf64_Nhdr other = {4, 2, 1}, entry = {4, 8, 18};
    const uint64_t address = MIB + 0x100;
    uint8_t *at = file->bytes + NOTE_AT;

    memcpy(header->e_ident,
           "\x7f"
           "ELF\2\1\1",
           7);
    header->e_type = ET_EXEC;
    header->e_machine = EM_X86_64;
    header->e_entry = 0xffffffff80000200;
    header->e_phoff = sizeof *header;
    header->e_phentsize = sizeof *load;
    header->e_phnum = 2;
    *load = (Elf64_Phdr){PT_LOAD, PF_R | PF_X, PAYLOAD_AT, 0xffffffff80000000,
                         MIB,     0x2000,      0x5000,     0x1000};
    memcpy(at, &other, 12);
    memcpy(at + 12, "GNU\0\1\2\0", 8);
    memcpy(at + 20, &entry, 12);
    memcpy(at + 32, "Xen", 4);
    memcpy(at + 36, &address, 8);
    *note = (Elf64_Phdr){PT_NOTE, PF_R, NOTE_AT, 0, 0, 44, 44, 4};
    fill_payload(file->bytes + PAYLOAD_AT, 0x2000);
    file->length = PAYLOAD_AT + 0x2000;
    return file;
}

START_TEST(pvh_enters_protected_mode_at_the_note)
{
    struct file *file = make_pvh();
    struct boot_image *image = open_good(file, NULL, NULL);
    struct memory *memory = make_memory(64 * MIB);
    struct cpu_entry entry;
    const uint64_t *gdt;

    ck_assert_str_eq(boot_protocol_name(image), "PVH");
    memset(borrow(memory, MIB, 0x5000), 0xCC, 0x5000);
    load_good(image, memory, &entry);
    ck_assert_int_eq(entry.mode, CPU_PROTECTED);
    ck_assert_uint_eq(entry.ip, MIB + 0x100);
    ck_assert_uint_eq(entry.bx, LAYOUT_BOOT_INFO);
    gdt = borrow(memory, entry.gdt, 32);
    ck_assert_uint_eq(gdt[CPU_ENTRY_CODE / 8], 0x00CF9B000000FFFF);
    ck_assert_mem_eq(borrow(memory, MIB, 0x2000), file->bytes + PAYLOAD_AT, 0x2000);
    for (unsigned i = 0; i < 0x3000; i++) /* the bss is empty, after a reset too */
        ck_assert_uint_eq(((uint8_t *)borrow(memory, MIB + 0x2000, 0x3000))[i], 0);
    memory_destroy(memory);
    boot_close(image);
    free(file);
}
END_TEST

START_TEST(pvh_start_info_lists_memory_module_and_rsdp)
{
    struct file *file = make_pvh(), *initrd = make_initrd(5000);
    struct boot_image *image = open_good(file, initrd, "root=/dev/vda");
    struct memory *memory = make_memory(6 * GIB);
    struct cpu_entry entry;
    uint32_t info[14];
    uint64_t wide[7], module[4], ram = 0;

    load_good(image, memory, &entry);
    memcpy(info, borrow(memory, entry.bx, sizeof info), sizeof info);
    memcpy(wide, info, sizeof wide);
    ck_assert_uint_eq(info[0], 0x336EC578);
    ck_assert_uint_eq(info[1], 1);
    ck_assert_uint_eq(info[2], 0);
    ck_assert_uint_eq(info[3], 1);
    ck_assert_str_eq(borrow(memory, wide[3], 16), "root=/dev/vda");
    ck_assert_mem_eq(borrow(memory, wide[4], 8), "RSD PTR ", 8);
    memcpy(module, borrow(memory, wide[2], sizeof module), sizeof module);
    ck_assert_uint_eq(module[1], 5000);
    ck_assert_uint_eq(module[0], 3 * GIB - 2 * PAGE_SIZE);
    ck_assert_mem_eq(borrow(memory, module[0], 5000), initrd->bytes, 5000);
    for (unsigned i = 0; i < info[12]; i++) {
        uint64_t e[3];
        memcpy(e, borrow(memory, wide[5] + i * 24, sizeof e), sizeof e);
        ram += e[2] == E820_RAM && e[0] >= MIB ? e[1] : 0;
    }
    ck_assert_uint_eq(ram, 6 * GIB - MIB);
    memory_destroy(memory);
    boot_close(image);
    free(initrd);
    free(file);
}
END_TEST

START_TEST(broken_elf_headers_are_refused)
{
    struct file *file = make_pvh();
    Elf64_Ehdr *header = (Elf64_Ehdr *)file->bytes, good = *header;

    header->e_ident[EI_CLASS] = 3;
    refuse_open(file, ERR_DEFINITION, "neither of 32 nor of 64 bit");
    *header = good;
    header->e_machine = EM_AARCH64;
    refuse_open(file, ERR_DEFINITION, "another processor (machine 183)");
    *header = good;
    header->e_phnum = 0;
    refuse_open(file, ERR_DEFINITION, "no program headers");
    header->e_phnum = 0xFFFF;
    refuse_open(file, ERR_DEFINITION, "more than 32 program headers");
    *header = good;
    header->e_phentsize = 1;
    refuse_open(file, ERR_DEFINITION, "odd size");
    *header = good;
    header->e_phoff = UINT64_MAX - 8;
    refuse_open(file, ERR_DEFINITION, "lie behind its end");
    header->e_phoff = file->length - 8;
    refuse_open(file, ERR_DEFINITION, "lie behind its end");
    *header = good;
    file->length = 20;
    refuse_open(file, ERR_DEFINITION, "ELF");
    free(file);
}
END_TEST

START_TEST(broken_elf_segments_are_refused)
{
    struct file *file = make_pvh();
    Elf64_Phdr *load = elf64_headers(file), good = *load, note = load[1];

    load->p_filesz = load->p_memsz = 0x3000;
    refuse_open(file, ERR_DEFINITION, "should have 16384 bytes, and has 12288");
    *load = good;
    load->p_offset = UINT64_MAX;
    refuse_open(file, ERR_DEFINITION, "wraps around the end of the file");
    *load = good;
    load->p_memsz = 1;
    refuse_open(file, ERR_DEFINITION, "larger in the file than in memory");
    *load = good;
    load->p_paddr = UINT64_MAX - 0x100;
    refuse_open(file, ERR_DEFINITION, "wraps around the end of memory");
    *load = good;
    load[1] = good;
    load[1].p_paddr += 0x1000;
    refuse_open(file, ERR_DEFINITION, "two segments overlap");
    load[1] = note;
    load[1].p_filesz = 40; /* the note's contents are cut */
    refuse_open(file, ERR_DEFINITION, "ELF file without");
    load[1] = note;
    load->p_paddr = 2 * MIB; /* the entry is where nothing is */
    refuse_open(file, ERR_DEFINITION, "broken PVH note");
    free(file);
}
END_TEST

/* The entry moves along, so that only the place itself is wrong. */
static void refuse_pvh_at(gpa_t at, uint64_t size, enum err_kind kind, const char *words)
{
    struct file *file = make_pvh();
    const uint64_t entry = at + 16;

    elf64_headers(file)->p_paddr = at;
    memcpy(file->bytes + NOTE_AT + 36, &entry, sizeof entry);
    refuse_load(file, NULL, size, kind, words);
    free(file);
}

START_TEST(segments_outside_of_ram_or_over_our_tables_are_refused)
{
    refuse_pvh_at(0, 64 * MIB, ERR_DEFINITION, "where the firmware keeps its tables");
    refuse_pvh_at(LAYOUT_LOW_END - 1, 64 * MIB, ERR_DEFINITION, "keeps its tables");
    refuse_pvh_at(LAYOUT_EBDA - 0x4FFF, 64 * MIB, ERR_DEFINITION, "keeps its tables");
    refuse_pvh_at(MIB - 1, 64 * MIB, ERR_DEFINITION, "keeps its tables");
    refuse_pvh_at(64 * MIB, 64 * MIB, ERR_USAGE, "needs 65 MiB of RAM, and the machine has 64");
    refuse_pvh_at(64 * MIB - 0x4FFF, 64 * MIB, ERR_USAGE, "needs 65 MiB of RAM");
    refuse_pvh_at(3 * GIB, 6 * GIB, ERR_DEFINITION, "no machine has RAM");
    refuse_pvh_at(3 * GIB - 0x4FFF, 6 * GIB, ERR_DEFINITION, "never more than 3072 MiB");
}
END_TEST

/* Multiboot */

struct multiboot {
    uint32_t magic, flags, checksum;
    uint32_t header, load, load_end, bss_end, entry;
};

static struct multiboot *multiboot_header(struct file *file)
{
    return (struct multiboot *)(file->bytes + MULTIBOOT_AT);
}

static void set_flags(struct file *file, uint32_t flags)
{
    struct multiboot *header = multiboot_header(file);

    header->magic = 0x1BADB002;
    header->flags = flags;
    header->checksum = -(0x1BADB002 + flags);
}

/* Linked at 3 GiB, loaded at 1 MiB, as teaching kernels are. */
static struct file *make_multiboot(void)
{
    struct file *file = calloc(1, sizeof *file);
    Elf32_Ehdr *header = (Elf32_Ehdr *)file->bytes;
    Elf32_Phdr *load = (Elf32_Phdr *)(header + 1);

    memcpy(header->e_ident,
           "\x7f"
           "ELF\1\1\1",
           7);
    header->e_type = ET_EXEC;
    header->e_machine = EM_386;
    header->e_entry = 0xC0100010;
    header->e_phoff = sizeof *header;
    header->e_phentsize = sizeof *load;
    header->e_phnum = 1;
    *load = (Elf32_Phdr){PT_LOAD, PAYLOAD_AT, 0xC0100000, MIB, 0x1000, 0x3000, PF_R, 0x1000};
    set_flags(file, 3);
    fill_payload(file->bytes + PAYLOAD_AT, 0x1000);
    file->length = PAYLOAD_AT + 0x1000;
    return file;
}

START_TEST(multiboot_enters_protected_mode_with_its_magic)
{
    struct file *file = make_multiboot();
    struct boot_image *image = open_good(file, NULL, NULL);
    struct memory *memory = make_memory(64 * MIB);
    struct cpu_entry entry;

    ck_assert_str_eq(boot_protocol_name(image), "multiboot");
    load_good(image, memory, &entry);
    ck_assert_int_eq(entry.mode, CPU_PROTECTED);
    ck_assert_uint_eq(entry.ip, MIB + 0x10);
    ck_assert_uint_eq(entry.ax, 0x2BADB002);
    ck_assert_uint_eq(entry.bx, LAYOUT_BOOT_INFO);
    ck_assert_mem_eq(borrow(memory, MIB, 0x1000), file->bytes + PAYLOAD_AT, 0x1000);
    memory_destroy(memory);
    boot_close(image);
    free(file);
}
END_TEST

START_TEST(multiboot_information_is_complete)
{
    struct file *file = make_multiboot(), *initrd = make_initrd(5000);
    struct boot_image *image = open_good(file, initrd, "a b");
    struct memory *memory = make_memory(6 * GIB);
    struct cpu_entry entry;
    const uint32_t *info, *module;
    uint64_t ram = 0, base, size;

    load_good(image, memory, &entry);
    info = borrow(memory, entry.bx, 116);
    ck_assert_uint_eq(info[0], 0x24D);
    ck_assert_uint_eq(info[1], 639);
    ck_assert_uint_eq(info[2], (3 * GIB - MIB) >> 10);
    ck_assert_str_eq(borrow(memory, info[4], 8), "a b");
    ck_assert_uint_eq(info[5], 1);
    ck_assert_str_eq(borrow(memory, info[16], 8), "minivmm");
    module = borrow(memory, info[6], 16);
    ck_assert_uint_eq(module[0], MIB + 0x3000); /* right behind the kernel's bss */
    ck_assert_uint_eq(module[1], module[0] + 5000);
    ck_assert_mem_eq(borrow(memory, module[0], 5000), initrd->bytes, 5000);
    ck_assert_str_eq(borrow(memory, module[2], 64), initrd->path);
    for (uint32_t at = 0; at < info[11]; at += 24) {
        const uint32_t *e = borrow(memory, info[12] + at, 24);
        ck_assert_uint_eq(e[0], 20);
        memcpy(&base, e + 1, 8);
        memcpy(&size, e + 3, 8);
        ram += e[5] == E820_RAM && base >= MIB ? size : 0;
    }
    ck_assert_uint_eq(ram, 6 * GIB - MIB);
    memory_destroy(memory);
    boot_close(image);
    free(initrd);
    free(file);
}
END_TEST

/* A flat binary: the header alone says where it goes, and how far its bss reaches. */
static struct file *make_flat(void)
{
    struct file *file = calloc(1, sizeof *file);
    struct multiboot *header = multiboot_header(file);

    fill_payload(file->bytes, 0x2000);
    file->length = 0x2000;
    set_flags(file, 1 << 16);
    header->load = MIB;
    header->header = MIB + MULTIBOOT_AT - 0x100; /* the first 0x100 bytes are not loaded */
    header->load_end = MIB + 0x1000;
    header->bss_end = MIB + 0x2000;
    header->entry = MIB + 0x20;
    return file;
}

START_TEST(multiboot_addresses_load_a_flat_binary)
{
    struct file *file = make_flat();
    struct boot_image *image;
    struct memory *memory = make_memory(64 * MIB);
    struct cpu_entry entry;

    image = open_good(file, NULL, NULL);
    memset(borrow(memory, MIB, 0x3000), 0xCC, 0x3000);
    load_good(image, memory, &entry);
    ck_assert_uint_eq(entry.ip, MIB + 0x20);
    ck_assert_mem_eq(borrow(memory, MIB, 0x1000), file->bytes + 0x100, 0x1000);
    ck_assert_uint_eq(*(uint8_t *)borrow(memory, MIB + 0x1FFF, 1), 0);
    ck_assert_uint_eq(*(uint8_t *)borrow(memory, MIB + 0x2000, 1), 0xCC);
    boot_close(image);
    multiboot_header(file)->load_end = multiboot_header(file)->bss_end = 0; /* all of the file */
    image = open_good(file, NULL, NULL);
    load_good(image, memory, &entry);
    ck_assert_mem_eq(borrow(memory, MIB, 0x1F00), file->bytes + 0x100, 0x1F00);
    memory_destroy(memory);
    boot_close(image);
    free(file);
}
END_TEST

START_TEST(broken_multiboot_addresses_are_refused)
{
    struct file *file = make_flat();
    struct multiboot *header = multiboot_header(file), good = *header;

    header->header = MIB - 4;
    refuse_open(file, ERR_DEFINITION, "contradict");
    header->header = UINT32_MAX;
    refuse_open(file, ERR_DEFINITION, "contradict");
    *header = good;
    header->load_end = MIB;
    refuse_open(file, ERR_DEFINITION, "contradict");
    header->load_end = UINT32_MAX;
    refuse_open(file, ERR_DEFINITION, "cut off");
    *header = good;
    header->bss_end = 1;
    refuse_open(file, ERR_DEFINITION, "contradict");
    *header = good;
    header->entry = MIB + 0x1000;
    refuse_open(file, ERR_DEFINITION, "contradict");
    *header = good;
    header->bss_end = UINT32_MAX;
    refuse_load(file, NULL, 64 * MIB, ERR_DEFINITION, "never more than 3072 MiB");
    free(file);
}
END_TEST

START_TEST(multiboot_requirements_that_we_lack_are_named)
{
    struct file *file = make_multiboot();

    set_flags(file, 7);
    refuse_open(file, ERR_DEFINITION, "requires a video mode");
    set_flags(file, 0x103);
    refuse_open(file, ERR_DEFINITION, "flags 0x100");
    set_flags(file, 3);
    multiboot_header(file)->checksum++;
    refuse_open(file, ERR_DEFINITION, "is no kernel");
    set_flags(file, 3);
    ((Elf32_Ehdr *)file->bytes)->e_entry = 0x10;
    refuse_open(file, ERR_DEFINITION, "nothing is loaded at its entry 0x10");
    memset(file->bytes, 0, 64);
    refuse_open(file, ERR_DEFINITION, "no ELF file, and its header has no addresses");
    free(file);
}
END_TEST

/* The last place in the first 8192 bytes counts, the one behind it does not. */
START_TEST(multiboot_header_is_searched_in_8192_bytes)
{
    struct file *file = make_multiboot();
    const struct multiboot header = *multiboot_header(file);
    struct boot_image *image;

    memset(file->bytes + MULTIBOOT_AT, 0, 12);
    file->length = FILE_MAX;
    memcpy(file->bytes + 8192 - 12, &header, 12);
    image = open_good(file, NULL, NULL);
    boot_close(image);
    memset(file->bytes + 8192 - 12, 0, 12);
    memcpy(file->bytes + 8192 - 8, &header, 12);
    refuse_open(file, ERR_DEFINITION, "is no kernel");
    free(file);
}
END_TEST

static TCase *elf_tests(void)
{
    TCase *tests = tcase_create("elf");

    tcase_add_test(tests, pvh_enters_protected_mode_at_the_note);
    tcase_add_test(tests, pvh_start_info_lists_memory_module_and_rsdp);
    tcase_add_test(tests, broken_elf_headers_are_refused);
    tcase_add_test(tests, broken_elf_segments_are_refused);
    tcase_add_test(tests, segments_outside_of_ram_or_over_our_tables_are_refused);
    tcase_add_test(tests, multiboot_enters_protected_mode_with_its_magic);
    tcase_add_test(tests, multiboot_information_is_complete);
    tcase_add_test(tests, multiboot_addresses_load_a_flat_binary);
    tcase_add_test(tests, broken_multiboot_addresses_are_refused);
    tcase_add_test(tests, multiboot_requirements_that_we_lack_are_named);
    tcase_add_test(tests, multiboot_header_is_searched_in_8192_bytes);
    return tests;
}

int main(void)
{
    Suite *suite = suite_create("boot_elf");

    suite_add_tcase(suite, elf_tests());
    return unit_main(suite);
}
