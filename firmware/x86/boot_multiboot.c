/* SPDX-License-Identifier: MIT */
/*
 * Multiboot 1 (Multiboot Specification 0.6.96): most teaching kernels. A header in the first 8192
 * bytes of the file; the kernel is entered in flat 32-bit protected mode with a magic number in eax
 * and the address of the information in ebx.
 *
 *   header    0 magic · 4 flags · 8 checksum: the three add up to 0
 *             12 header address · 16 load address · 20 load end · 24 bss end · 28 entry (flag 16)
 *
 * Bits 0..15 of the flags are requirements that must be met: 0 page-aligned modules, 1 memory
 * information, 2 video mode. The third we refuse, as we do those that nobody has defined.
 * Flag 16 gives the addresses in the header precedence over those of an ELF file around it.
 */
#include "core/stream.h"
#include "firmware/x86/boot_image.h"

#include <errno.h>
#include <string.h>

enum {
    HEADER_MAGIC = 0x1BADB002,
    BOOTED_MAGIC = 0x2BADB002,
    REQUIRED = 0xFFFF,
    REQUIRED_PAGE_ALIGN = 1 << 0,
    REQUIRED_MEMORY_INFO = 1 << 1,
    REQUIRED_VIDEO = 1 << 2,
    HAS_ADDRESSES = 1 << 16,
    HEADER_SIZE = 12,
    ADDRESSES_SIZE = 20,
    /* What the information holds, and its parts behind it. */
    INFO_MEMORY = 1 << 0,
    INFO_CMDLINE = 1 << 2,
    INFO_MODULES = 1 << 3,
    INFO_MAP = 1 << 6,
    INFO_LOADER_NAME = 1 << 9,
    INFO_SIZE = 116,
    MODULE_SIZE = 16,
    NAME_SIZE = 8,
    MAP_ENTRY_SIZE = 24,
};

struct header {
    uint32_t magic, flags, checksum;
    uint32_t header_address, load_address, load_end, bss_end, entry;
};

static bool find_header(const uint8_t *head, struct header *header, size_t *ret_at)
{
    for (size_t at = 0; at + HEADER_SIZE <= BOOT_HEAD_SIZE; at += 4) {
        memcpy(header, head + at, HEADER_SIZE);
        if (header->magic != HEADER_MAGIC || header->magic + header->flags + header->checksum != 0)
            continue;
        if (header->flags & HAS_ADDRESSES) {
            if (at + HEADER_SIZE + ADDRESSES_SIZE > BOOT_HEAD_SIZE)
                continue;
            memcpy(&header->header_address, head + at + HEADER_SIZE, ADDRESSES_SIZE);
        }
        *ret_at = at;
        return true;
    }
    return false;
}

static int check_flags(const struct boot_image *image, uint32_t flags, struct err *err)
{
    uint32_t unknown = flags & REQUIRED & ~(uint32_t)(REQUIRED_PAGE_ALIGN | REQUIRED_MEMORY_INFO);

    if (unknown & REQUIRED_VIDEO)
        return err_say(err, ERR_DEFINITION, ENOTSUP,
                       "multiboot kernel %s requires a video mode, and there is no display",
                       image->kernel.path);
    if (unknown)
        return err_say(err, ERR_DEFINITION, ENOTSUP,
                       "multiboot kernel %s requires a feature that no specification defines "
                       "(flags 0x%x)",
                       image->kernel.path, unknown);
    return 0;
}

/* The addresses of the header as a segment: from the file, from load address to load end, then bss.
 */
static int take_addresses(struct boot_image *image, const struct header *header, size_t at,
                          struct err *err)
{
    struct elf_segment *segment = &image->multiboot.segment;
    uint32_t before = header->header_address - header->load_address;
    uint64_t end;

    if (header->header_address < header->load_address || before > at ||
        (header->load_end && header->load_end <= header->load_address))
        goto bad;
    segment->physical = segment->virtual = header->load_address;
    segment->offset = at - before;
    segment->file_size = header->load_end ? header->load_end - header->load_address
                                          : image->kernel.size - segment->offset;
    if (segment->file_size > image->kernel.size - segment->offset)
        return boot_file_cut_off(&image->kernel, segment->offset + segment->file_size, err);
    end = segment->physical + segment->file_size;
    if (header->bss_end && header->bss_end < end)
        goto bad;
    segment->memory_size = (header->bss_end ? header->bss_end : end) - segment->physical;
    if (header->entry < segment->physical || header->entry >= end)
        goto bad;
    image->multiboot.entry = header->entry;
    image->multiboot.has_addresses = true;
    return 1;
bad:
    return err_say(err, ERR_DEFINITION, ENOEXEC,
                   "multiboot kernel %s has a broken header: its addresses contradict each other",
                   image->kernel.path);
}

static int probe(struct boot_image *image, const uint8_t *head, struct err *err)
{
    struct header header = {0};
    size_t at;
    int ret;

    if (!find_header(head, &header, &at))
        return 0;
    ret = check_flags(image, header.flags, err);
    if (ret < 0)
        return ret;
    if (header.flags & HAS_ADDRESSES)
        return take_addresses(image, &header, at, err);
    if (!image->is_elf)
        return err_say(err, ERR_DEFINITION, ENOEXEC,
                       "multiboot kernel %s is no ELF file, and its header has no addresses",
                       image->kernel.path);
    image->multiboot.entry = elf_physical(&image->elf, image->elf.entry);
    if (image->multiboot.entry > UINT32_MAX || !elf_covers(&image->elf, image->multiboot.entry))
        return err_say(err, ERR_DEFINITION, ENOEXEC,
                       "multiboot kernel %s is broken: nothing is loaded at its entry 0x%llx",
                       image->kernel.path, (unsigned long long)image->elf.entry);
    return 1;
}

static void put_info(struct stream *to, const struct boot_image *image,
                     const struct boot_context *context, gpa_t initrd)
{
    const gpa_t module = LAYOUT_BOOT_INFO + INFO_SIZE, name = module + MODULE_SIZE;
    const gpa_t map = name + NAME_SIZE, path = map + context->map.count * MAP_ENTRY_SIZE;
    unsigned modules = image->has_initrd ? 1 : 0;

    stream_put_u32(to, INFO_MEMORY | INFO_CMDLINE | INFO_MODULES | INFO_MAP | INFO_LOADER_NAME);
    stream_put_u32(to, (uint32_t)(LAYOUT_EBDA >> 10)); /* KiB of RAM from 0, and from 1 MiB */
    stream_put_u32(to, (uint32_t)((context->low_end - LAYOUT_1M) >> 10));
    stream_put_u32(to, 0); /* boot device */
    stream_put_u32(to, (uint32_t)LAYOUT_CMDLINE);
    stream_put_u32(to, modules);
    stream_put_u32(to, modules ? (uint32_t)module : 0);
    for (unsigned i = 0; i < 4; i++) /* symbols */
        stream_put_u32(to, 0);
    stream_put_u32(to, context->map.count * MAP_ENTRY_SIZE);
    stream_put_u32(to, (uint32_t)map);
    for (unsigned i = 0; i < 3; i++) /* drives, ROM configuration */
        stream_put_u32(to, 0);
    stream_put_u32(to, (uint32_t)name);
    for (unsigned i = 0; i < 12; i++) /* APM, VBE, frame buffer */
        stream_put_u32(to, 0);

    stream_put_u32(to, (uint32_t)initrd);
    stream_put_u32(to, (uint32_t)(initrd + (modules ? image->initrd.size : 0)));
    stream_put_u32(to, modules ? (uint32_t)path : 0);
    stream_put_u32(to, 0);
    stream_write(to, "minivmm", NAME_SIZE);
    for (unsigned i = 0; i < context->map.count; i++) {
        stream_put_u32(to, MAP_ENTRY_SIZE - 4); /* counted without itself */
        stream_put_u64(to, context->map.entries[i].base);
        stream_put_u64(to, context->map.entries[i].size);
        stream_put_u32(to, context->map.entries[i].type);
    }
    if (modules)
        stream_write(to, image->initrd.path, strlen(image->initrd.path) + 1);
}

static int write_info(const struct boot_image *image, const struct boot_context *context,
                      gpa_t initrd, struct err *err)
{
    struct stream_buffer info;
    int ret;

    stream_buffer_init(&info, LAYOUT_BOOT_INFO_SIZE);
    put_info(&info.stream, image, context, initrd);
    ret = stream_error(&info.stream);
    if (ret == 0)
        ret = memory_write(context->memory, LAYOUT_BOOT_INFO, info.bytes, info.length);
    stream_buffer_finish(&info);
    if (ret == -ENOSPC)
        return err_say(err, ERR_USAGE, ENAMETOOLONG, "the path of the initrd is too long: %s",
                       image->initrd.path);
    if (ret < 0)
        return err_sys(err, ERR_FAILED, -ret, "cannot write the multiboot information");
    return 0;
}

static int load_kernel(struct boot_image *image, const struct boot_context *context, gpa_t *ret_end,
                       struct err *err)
{
    const struct elf_segment *segment = &image->multiboot.segment;

    if (image->multiboot.has_addresses) {
        *ret_end = segment->physical + segment->memory_size;
        return elf_load_segment(segment, &image->kernel, context->memory, context->low_end, err);
    }
    *ret_end = elf_end(&image->elf);
    return elf_load(&image->elf, &image->kernel, context->memory, context->low_end, err);
}

static int load(struct boot_image *image, const struct boot_context *context,
                struct cpu_entry *ret_entry, struct err *err)
{
    struct cpu_entry entry = {
        .mode = CPU_PROTECTED,
        .ip = image->multiboot.entry,
        .ax = BOOTED_MAGIC,
        .bx = LAYOUT_BOOT_INFO,
    };
    gpa_t end = 0, initrd = 0;
    int ret;

    ret = load_kernel(image, context, &end, err);
    if (ret < 0)
        return ret;
    if (end < LAYOUT_1M)
        end = LAYOUT_1M;
    /* Low: small kernels map only the first few MiB behind themselves, and GRUB loads so too. */
    ret = boot_load_initrd(image, context->memory, end, context->low_end, BOOT_PLACE_LOW, &initrd,
                           err);
    if (ret == 0)
        ret = boot_write_cmdline(image, context->memory, err);
    if (ret == 0)
        ret = boot_write_gdt(context->memory, false, &entry, err);
    if (ret == 0)
        ret = write_info(image, context, initrd, err);
    if (ret == 0)
        *ret_entry = entry;
    return ret;
}

const struct boot_protocol boot_multiboot = {"multiboot", probe, load};
