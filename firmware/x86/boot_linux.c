/* SPDX-License-Identifier: MIT */
/*
 * Linux bzImage by the 64-bit boot protocol (Documentation/arch/x86/boot.rst, "64-bit Boot
 * Protocol").
 *
 * File: boot sector and setup code of (setup_sects + 1) sectors, setup_sects 0 meaning 4, then the
 * protected-mode kernel of syssize * 16 bytes. We skip all real-mode code: the kernel goes to its
 * preferred address, and the boot processor begins 0x200 bytes into it in long mode, with rsi
 * pointing to the zero page (struct boot_params).
 *
 * A relocatable kernel could be put elsewhere, but the decompressor of x86-64 never places the
 * running kernel below pref_address: another place would only move bytes around, and need more RAM.
 */
#include "firmware/x86/boot_image.h"

#include <errno.h>
#include <string.h>

enum {
    SETUP_HEADER_AT = 0x1F1,
    HEADER_END_BASE = 0x202, /* the byte before this address says how much follows it */
    SECTOR = 512,
    BOOT_FLAG = 0xAA55,
    HDRS = 0x53726448, /* "HdrS" */
    VERSION_XLOADFLAGS = 0x020C,
    VERSION_RSDP = 0x020E,
    OLD_SETUP_SECTS = 4,
    ENTRY_64 = 0x200,
    LOADER_UNDEFINED = 0xFF,
    VIDEO_NORMAL = 0xFFFF,
};

static void read_header(struct setup_header *header, const uint8_t *head)
{
    size_t length = (size_t)(HEADER_END_BASE + head[HEADER_END_BASE - 1] - SETUP_HEADER_AT);

    memset(header, 0, sizeof *header);
    memcpy(header, head + SETUP_HEADER_AT, length < sizeof *header ? length : sizeof *header);
}

static int check_version(const char *path, const struct setup_header *header, struct err *err)
{
    if (header->version < VERSION_XLOADFLAGS) {
        err_say(err, ERR_DEFINITION, ENOEXEC,
                "kernel %s speaks Linux boot protocol %u.%u, and 2.12 (Linux 3.8) is needed", path,
                header->version >> 8, header->version & 0xFFu);
        err_hint(err, "use a 64-bit kernel of Linux 3.8 or newer");
        return -ENOEXEC;
    }
    if (!(header->xloadflags & XLF_KERNEL_64)) {
        err_say(err, ERR_DEFINITION, ENOEXEC, "kernel %s is a 32-bit Linux kernel", path);
        err_hint(err, "use an x86-64 kernel: its package is called amd64 or x86_64");
        return -ENOEXEC;
    }
    return 0;
}

static int check_placement(const char *path, const struct setup_header *header, struct err *err)
{
    if (!(header->loadflags & LOADED_HIGH))
        return err_say(err, ERR_DEFINITION, ENOEXEC,
                       "kernel %s is a zImage, which loads below 1 MiB; a bzImage is needed", path);
    if (header->pref_address < LAYOUT_1M || header->pref_address >= LAYOUT_HOLE ||
        header->pref_address % PAGE_SIZE)
        return err_say(err, ERR_DEFINITION, ENOEXEC,
                       "kernel %s has a broken header: it prefers to lie at 0x%llx", path,
                       (unsigned long long)header->pref_address);
    return 0;
}

static int check_cmdline(const struct boot_image *image, struct err *err)
{
    size_t length = strlen(image->cmdline);
    size_t room = image->linux_kernel.header.cmdline_size;

    if (length <= room)
        return 0;
    err_say(err, ERR_USAGE, E2BIG,
            "the command line has %zu characters, and kernel %s takes at most %zu", length,
            image->kernel.path, room);
    return -E2BIG;
}

static int probe(struct boot_image *image, const uint8_t *head, struct err *err)
{
    struct linux_kernel *kernel = &image->linux_kernel;
    const struct setup_header *header = &kernel->header;
    const char *path = image->kernel.path;
    uint64_t needed;
    int ret;

    read_header(&kernel->header, head);
    if (header->boot_flag != BOOT_FLAG || header->header != HDRS)
        return 0;
    ret = check_version(path, header, err);
    if (ret == 0)
        ret = check_placement(path, header, err);
    if (ret == 0)
        ret = check_cmdline(image, err);
    if (ret < 0)
        return ret;

    kernel->offset = ((header->setup_sects ? header->setup_sects : OLD_SETUP_SECTS) + 1) * SECTOR;
    kernel->size = header->syssize * 16ull;
    needed = kernel->offset + kernel->size;
    if (kernel->size < 2 * ENTRY_64)
        return err_say(err, ERR_DEFINITION, ENOEXEC,
                       "kernel %s has a broken header: its %llu bytes end before its entry", path,
                       (unsigned long long)kernel->size);
    /* Old kernels round syssize up without padding the file. */
    if (image->kernel.size + 15 < needed)
        return boot_file_cut_off(&image->kernel, needed, err);
    if (needed > image->kernel.size)
        kernel->size = image->kernel.size - kernel->offset;
    return 1;
}

/* Four levels for the first 4 GiB, in pages of 2 MiB; virtual equals physical. */
static int write_page_tables(struct memory *memory, struct err *err)
{
    enum { PRESENT_WRITABLE = 3, LARGE = 0x80, ENTRIES = 512, DIRECTORIES = 4 };
    const gpa_t pdpt = LAYOUT_PAGE_TABLES + PAGE_SIZE, directories = pdpt + PAGE_SIZE;
    const size_t size = (2 + DIRECTORIES) * PAGE_SIZE;
    uint64_t *tables;
    int ret;

    ret = memory_borrow(memory, LAYOUT_PAGE_TABLES, size, (void **)&tables);
    if (ret < 0)
        return err_sys(err, ERR_FAILED, -ret, "cannot write the page tables");
    memset(tables, 0, 2 * PAGE_SIZE);
    tables[0] = pdpt | PRESENT_WRITABLE;
    for (unsigned i = 0; i < DIRECTORIES; i++)
        tables[ENTRIES + i] = (directories + i * PAGE_SIZE) | PRESENT_WRITABLE;
    for (uint64_t i = 0; i < DIRECTORIES * ENTRIES; i++)
        tables[2 * ENTRIES + i] = i << 21 | LARGE | PRESENT_WRITABLE;
    memory_written(memory, LAYOUT_PAGE_TABLES, size);
    return 0;
}

static void fill_zero_page(struct boot_params *params, const struct boot_image *image,
                           const struct boot_context *context, gpa_t initrd)
{
    struct setup_header *header = &params->hdr;

    memset(params, 0, sizeof *params);
    *header = image->linux_kernel.header;
    header->vid_mode = VIDEO_NORMAL;
    header->type_of_loader = LOADER_UNDEFINED;
    header->code32_start = (uint32_t)header->pref_address;
    header->cmd_line_ptr = (uint32_t)LAYOUT_CMDLINE;
    header->ramdisk_image = (uint32_t)initrd;
    header->ramdisk_size = image->has_initrd ? (uint32_t)image->initrd.size : 0;
    header->setup_data = 0;
    if (header->version >= VERSION_RSDP)
        params->acpi_rsdp_addr = context->rsdp;
    params->e820_entries = (uint8_t)context->map.count;
    for (unsigned i = 0; i < context->map.count; i++) {
        const struct e820_entry *entry = &context->map.entries[i];
        params->e820_table[i] = (struct boot_e820_entry){entry->base, entry->size, entry->type};
    }
}

static int write_zero_page(const struct boot_image *image, const struct boot_context *context,
                           gpa_t initrd, struct err *err)
{
    void *page;
    int ret;

    ret = memory_borrow(context->memory, LAYOUT_ZERO_PAGE, sizeof(struct boot_params), &page);
    if (ret < 0)
        return err_sys(err, ERR_FAILED, -ret, "cannot write the zero page");
    fill_zero_page(page, image, context, initrd);
    memory_written(context->memory, LAYOUT_ZERO_PAGE, sizeof(struct boot_params));
    return 0;
}

static int load_kernel(struct boot_image *image, const struct boot_context *context, gpa_t *ret_end,
                       struct err *err)
{
    const struct linux_kernel *kernel = &image->linux_kernel;
    uint64_t room = kernel->header.init_size;

    /* init_size is what the kernel needs until it has read the memory map: unpacked, with its bss.
     */
    if (room < kernel->size)
        room = kernel->size;
    if (kernel->header.pref_address + room > context->low_end)
        return boot_file_no_room(&image->kernel, kernel->header.pref_address + room,
                                 context->low_end, err);
    *ret_end = kernel->header.pref_address + room;
    return boot_file_load(&image->kernel, kernel->offset, context->memory,
                          kernel->header.pref_address, kernel->size, err);
}

static int load(struct boot_image *image, const struct boot_context *context,
                struct cpu_entry *ret_entry, struct err *err)
{
    const struct setup_header *header = &image->linux_kernel.header;
    struct cpu_entry entry = {
        .mode = CPU_LONG,
        .ip = header->pref_address + ENTRY_64,
        .si = LAYOUT_ZERO_PAGE,
        .page_table = LAYOUT_PAGE_TABLES,
    };
    gpa_t end = 0, top = context->low_end, initrd = 0;
    int ret;

    ret = load_kernel(image, context, &end, err);
    if (ret < 0)
        return ret;
    if (header->initrd_addr_max && top > header->initrd_addr_max + 1ull)
        top = header->initrd_addr_max + 1ull;
    ret = boot_load_initrd(image, context->memory, end, top, BOOT_PLACE_HIGH, &initrd, err);
    if (ret == 0)
        ret = boot_write_cmdline(image, context->memory, err);
    if (ret == 0)
        ret = write_page_tables(context->memory, err);
    if (ret == 0)
        ret = boot_write_gdt(context->memory, true, &entry, err);
    if (ret == 0)
        ret = write_zero_page(image, context, initrd, err);
    if (ret == 0)
        *ret_entry = entry;
    return ret;
}

const struct boot_protocol boot_linux = {"Linux", probe, load};
