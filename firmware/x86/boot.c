/* SPDX-License-Identifier: MIT */
#include "firmware/x86/boot.h"

#include "firmware/x86/acpi.h"
#include "firmware/x86/bios_data.h"
#include "firmware/x86/boot_image.h"
#include "firmware/x86/smbios.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* In the order of asking: a kernel that speaks two of them is started by the first. */
static const struct boot_protocol *const protocols[] = {&boot_linux, &boot_pvh, &boot_multiboot};

/* What people give by mistake, by the file's first bytes. */
static const char *looks_like(const struct boot_image *image, const uint8_t *head,
                              const char **ret_hint)
{
    static const struct {
        unsigned offset, length;
        const char *magic, *name, *hint;
    } kinds[] = {
        {0, 4, "QFI\xfb", "a qcow2 disk image", "give it as a disk"},
        {0, 2, "\x1f\x8b", "gzip-compressed", "unpack it with gunzip, or give the bzImage"},
        {0, 4, "\x28\xb5\x2f\xfd", "zstd-compressed", "unpack it with unzstd"},
        {0, 6,
         "\xfd"
         "7zXZ\0",
         "xz-compressed", "unpack it with unxz"},
        {56, 4, "ARMd", "an arm64 kernel", "use an x86-64 kernel"},
        {0, 2, "MZ", "a Windows or EFI program", NULL},
        {0, 6, "070701", "an initrd", "give it with --initrd"},
        {0, 2, "#!", "a script", NULL},
        {510, 2, "\x55\xaa", "a disk with a boot sector", "give it as a disk"},
    };

    *ret_hint = NULL;
    if (image->is_elf)
        return "an ELF file without one of their headers";
    for (size_t i = 0; i < array_size(kinds); i++) {
        if (memcmp(head + kinds[i].offset, kinds[i].magic, kinds[i].length) == 0) {
            *ret_hint = kinds[i].hint;
            return kinds[i].name;
        }
    }
    return NULL;
}

static int no_kernel(const struct boot_image *image, const uint8_t *head, struct err *err)
{
    const char *hint, *kind = looks_like(image, head, &hint);

    err_say(err, ERR_DEFINITION, ENOEXEC,
            "%s is no kernel: neither a Linux bzImage, an ELF with a PVH note, nor multiboot%s%s",
            image->kernel.path, kind ? "; it looks like " : "", kind ? kind : "");
    if (hint)
        err_hint(err, "%s", hint);
    return -ENOEXEC;
}

static int probe(struct boot_image *image, struct err *err)
{
    uint8_t head[BOOT_HEAD_SIZE] = {0};
    size_t length = image->kernel.size < sizeof head ? image->kernel.size : sizeof head;
    int ret;

    ret = boot_file_read(&image->kernel, 0, head, length, err);
    if (ret < 0)
        return ret;
    ret = elf_parse(&image->elf, &image->kernel, head, err);
    if (ret < 0)
        return ret;
    image->is_elf = ret > 0;
    for (size_t i = 0; i < array_size(protocols); i++) {
        ret = protocols[i]->probe(image, head, err);
        if (ret < 0)
            return ret;
        if (ret > 0) {
            image->protocol = protocols[i];
            return 0;
        }
    }
    return no_kernel(image, head, err);
}

static int take_cmdline(struct boot_image *image, const char *cmdline, struct err *err)
{
    size_t length = cmdline ? strlen(cmdline) : 0;

    if (length >= LAYOUT_CMDLINE_SIZE)
        return err_say(err, ERR_USAGE, E2BIG,
                       "the command line has %zu characters, and there is room for %llu", length,
                       LAYOUT_CMDLINE_SIZE - 1);
    image->cmdline = strdup(cmdline ? cmdline : "");
    if (!image->cmdline)
        return err_sys(err, ERR_FAILED, ENOMEM, "cannot keep the command line");
    return 0;
}

static int open_bios(struct boot_image *image, const char *initrd, const char *cmdline,
                     struct err *err)
{
    if (initrd || (cmdline && *cmdline))
        return err_say(err, ERR_USAGE, EINVAL, "%s is for a kernel, and there is none",
                       initrd ? "an initrd" : "a command line");
    image->protocol = &boot_bios;
    return 0;
}

int boot_open(struct boot_image **ret_image, const char *kernel, const char *initrd,
              const char *cmdline, struct err *err)
{
    struct boot_image *image = calloc(1, sizeof *image);
    int ret;

    if (!image)
        return err_sys(err, ERR_FAILED, ENOMEM, "cannot open %s", kernel ? kernel : "the BIOS");
    if (!kernel) {
        ret = open_bios(image, initrd, cmdline, err);
        if (ret < 0)
            goto fail;
        *ret_image = image;
        return 0;
    }
    ret = take_cmdline(image, cmdline, err);
    if (ret < 0)
        goto fail;
    ret = boot_file_open(&image->kernel, kernel, "kernel", err);
    if (ret < 0)
        goto fail;
    ret = probe(image, err);
    if (ret < 0)
        goto fail;
    if (initrd) {
        ret = boot_file_open(&image->initrd, initrd, "initrd", err);
        if (ret < 0)
            goto fail;
        image->has_initrd = true;
    }
    *ret_image = image;
    return 0;
fail:
    boot_close(image);
    return ret;
}

void boot_close(struct boot_image *image)
{
    if (!image)
        return;
    boot_file_close(&image->kernel);
    boot_file_close(&image->initrd);
    free(image->cmdline);
    free(image);
}

const char *boot_protocol_name(const struct boot_image *image)
{
    return image->protocol->name;
}

int boot_write_gdt(struct memory *memory, bool code64, struct cpu_entry *entry, struct err *err)
{
    /* Base 0, limit 4 GiB, present, accessed: code execute/read (64 or 32 bit), data read/write. */
    const uint64_t gdt[4] = {
        [CPU_ENTRY_CODE / 8] = code64 ? 0x00AF9B000000FFFF : 0x00CF9B000000FFFF,
        [CPU_ENTRY_DATA / 8] = 0x00CF93000000FFFF,
    };
    int ret = memory_write(memory, LAYOUT_GDT, gdt, sizeof gdt);

    if (ret < 0)
        return err_sys(err, ERR_FAILED, -ret, "cannot write the GDT");
    entry->gdt = LAYOUT_GDT;
    entry->gdt_limit = sizeof gdt - 1;
    return 0;
}

int boot_write_cmdline(const struct boot_image *image, struct memory *memory, struct err *err)
{
    int ret = memory_write(memory, LAYOUT_CMDLINE, image->cmdline, strlen(image->cmdline) + 1);

    if (ret < 0)
        return err_sys(err, ERR_FAILED, -ret, "cannot write the command line");
    return 0;
}

int boot_load_initrd(struct boot_image *image, struct memory *memory, gpa_t from, gpa_t to,
                     enum boot_place place, gpa_t *ret_at, struct err *err)
{
    uint64_t size = image->initrd.size;
    gpa_t at;

    if (!image->has_initrd)
        return 0;
    from = (from + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1);
    at = to > size ? (to - size) & ~(PAGE_SIZE - 1) : 0;
    if (at < from) {
        err_say(err, ERR_USAGE, ENOMEM,
                "initrd %s has %llu MiB, and beside the kernel %llu MiB of RAM are left for it",
                image->initrd.path, boot_mib(size),
                from < to ? (unsigned long long)((to - from) >> 20) : 0);
        if (size < LAYOUT_HOLE && from + size + PAGE_SIZE <= LAYOUT_HOLE)
            err_hint(err, "give the VM at least %lluM of memory",
                     boot_mib(from + size + PAGE_SIZE));
        return -ENOMEM;
    }
    if (place == BOOT_PLACE_LOW)
        at = from;
    *ret_at = at;
    return boot_file_load(&image->initrd, 0, memory, at, size, err);
}

static int no_room(const struct boot_image *image, const struct memory *memory, struct err *err)
{
    if (image->kernel.path)
        return boot_file_no_room(&image->kernel, LAYOUT_MIN_RAM, memory_size(memory), err);
    return err_say(err, ERR_USAGE, ENOMEM, "the BIOS needs %llu MiB of RAM, and there are %llu KiB",
                   boot_mib(LAYOUT_MIN_RAM), (unsigned long long)memory_size(memory) >> 10);
}

int boot_load(struct boot_image *image, struct memory *memory, const struct boot_platform *platform,
              struct cpu_entry *ret_entry, struct err *err)
{
    struct boot_context context = {.memory = memory};
    int ret;

    assert(platform->cpus >= 1 && platform->cpus <= LAYOUT_MAX_CPUS);
    if (memory_size(memory) < LAYOUT_MIN_RAM)
        return no_room(image, memory, err);
    e820_build(memory, &context.map);
    context.low_end = e820_low_end(&context.map);
    ret = bios_write_data(memory, err);
    if (ret == 0)
        ret = acpi_write(memory, platform, &context.rsdp, err);
    if (ret == 0)
        ret = smbios_write(memory, platform, err);
    if (ret == 0)
        ret = image->protocol->load(image, &context, ret_entry, err);
    return ret;
}
