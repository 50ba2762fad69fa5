/* SPDX-License-Identifier: MIT */
/*
 * ELF kernels by the PVH entry ("x86/HVM direct boot ABI" of Xen): the note
 * XEN_ELFNOTE_PHYS32_ENTRY names a physical address, which is entered in flat 32-bit protected mode
 * with ebx pointing to the start info. Linux' vmlinux, the BSDs and unikernels carry it.
 *
 *   start info, version 1   0 magic · 4 version · 8 flags · 12 modules · 16 module list (8)
 *                           24 command line (8) · 32 RSDP (8) · 40 memory map (8) · 48 its entries
 *                           52 reserved
 *   module                  0 address (8) · 8 size (8) · 16 command line (8) · 24 reserved (8)
 *   memory map entry        0 address (8) · 8 size (8) · 16 type, as in E820 · 20 reserved
 */
#include "core/stream.h"
#include "firmware/x86/boot_image.h"

#include <errno.h>
#include <string.h>

enum {
    NOTE_PHYS32_ENTRY = 18,
    MAGIC = 0x336EC578,
    VERSION = 1,
    INFO_SIZE = 56,
    MODULE_SIZE = 32,
};

static int probe(struct boot_image *image, const uint8_t *head, struct err *err)
{
    uint64_t entry = 0;
    int ret;

    if (!image->is_elf)
        return 0;
    /* The contents have 4 bytes or 8, little-endian both. */
    ret = elf_find_note(&image->elf, &image->kernel, "Xen", NOTE_PHYS32_ENTRY, &entry, sizeof entry,
                        err);
    if (ret <= 0)
        return ret;
    if (ret < 4 || entry > UINT32_MAX || !elf_covers(&image->elf, entry))
        return err_say(err, ERR_DEFINITION, ENOEXEC,
                       "kernel %s has a broken PVH note: nothing is loaded at its entry 0x%llx",
                       image->kernel.path, (unsigned long long)entry);
    image->pvh_entry = entry;
    return 1;
}

static int write_start_info(const struct boot_image *image, const struct boot_context *context,
                            gpa_t initrd, struct err *err)
{
    const gpa_t modules = LAYOUT_BOOT_INFO + INFO_SIZE, map = modules + MODULE_SIZE;
    struct stream_buffer info;
    struct stream *to = &info.stream;
    int ret;

    stream_buffer_init(&info, LAYOUT_BOOT_INFO_SIZE);
    stream_put_u32(to, MAGIC);
    stream_put_u32(to, VERSION);
    stream_put_u32(to, 0);
    stream_put_u32(to, image->has_initrd ? 1 : 0);
    stream_put_u64(to, image->has_initrd ? modules : 0);
    stream_put_u64(to, LAYOUT_CMDLINE);
    stream_put_u64(to, context->rsdp);
    stream_put_u64(to, map);
    stream_put_u32(to, context->map.count);
    stream_put_u32(to, 0);

    stream_put_u64(to, initrd);
    stream_put_u64(to, image->initrd.size);
    stream_put_u64(to, 0);
    stream_put_u64(to, 0);

    for (unsigned i = 0; i < context->map.count; i++) {
        stream_put_u64(to, context->map.entries[i].base);
        stream_put_u64(to, context->map.entries[i].size);
        stream_put_u32(to, context->map.entries[i].type);
        stream_put_u32(to, 0);
    }
    ret = stream_error(to);
    if (ret == 0)
        ret = memory_write(context->memory, LAYOUT_BOOT_INFO, info.bytes, info.length);
    stream_buffer_finish(&info);
    if (ret < 0)
        return err_sys(err, ERR_FAILED, -ret, "cannot write the PVH start info");
    return 0;
}

static int load(struct boot_image *image, const struct boot_context *context,
                struct cpu_entry *ret_entry, struct err *err)
{
    struct cpu_entry entry = {
        .mode = CPU_PROTECTED,
        .ip = image->pvh_entry,
        .bx = LAYOUT_BOOT_INFO,
    };
    gpa_t from, initrd = 0;
    int ret;

    ret = elf_load(&image->elf, &image->kernel, context->memory, context->low_end, err);
    if (ret < 0)
        return ret;
    from = elf_end(&image->elf);
    if (from < LAYOUT_1M)
        from = LAYOUT_1M;
    ret = boot_load_initrd(image, context->memory, from, context->low_end, BOOT_PLACE_HIGH, &initrd,
                           err);
    if (ret == 0)
        ret = boot_write_cmdline(image, context->memory, err);
    if (ret == 0)
        ret = boot_write_gdt(context->memory, false, &entry, err);
    if (ret == 0)
        ret = write_start_info(image, context, initrd, err);
    if (ret == 0)
        *ret_entry = entry;
    return ret;
}

const struct boot_protocol boot_pvh = {"PVH", probe, load};
