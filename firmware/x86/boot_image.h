/* SPDX-License-Identifier: MIT */
/*
 * What the boot protocols share, inside of firmware/ only: the opened files, the probed kernel, and
 * one table of functions per protocol.
 */
#pragma once

#include "firmware/x86/boot.h"
#include "firmware/x86/e820.h"
#include "firmware/x86/elf.h"
#include "firmware/x86/layout.h"
#include <asm/bootparam.h>

/* As much of the kernel's beginning as any probe looks at: multiboot searches this far. */
enum { BOOT_HEAD_SIZE = 8192 };

/* A bzImage: its setup header, and where in the file the protected-mode kernel lies. */
struct linux_kernel {
    struct setup_header header;
    uint64_t offset;
    uint64_t size;
};

/* What a multiboot header asks for. */
struct multiboot_kernel {
    bool has_addresses; /* the header says where to load, not the ELF headers */
    struct elf_segment segment;
    gpa_t entry;
};

struct boot_image {
    const struct boot_protocol *protocol;
    struct boot_file kernel;
    struct boot_file initrd;
    bool has_initrd;
    char *cmdline;
    bool is_elf;
    struct elf elf;
    gpa_t pvh_entry;
    struct linux_kernel linux_kernel;
    struct multiboot_kernel multiboot;
};

/* What is known about the machine when a protocol writes its part. */
struct boot_context {
    struct memory *memory;
    struct e820_map map;
    gpa_t low_end; /* of RAM below the hole */
    gpa_t rsdp;
};

struct boot_protocol {
    const char *name;
    /*
     * Is it ours? head is the file's beginning, zero-filled to BOOT_HEAD_SIZE. Returns 1 and has
     * filled its part of the image, 0 when it is something else, or -errno when it is ours and bad.
     */
    int (*probe)(struct boot_image *image, const uint8_t *head, struct err *err);
    int (*load)(struct boot_image *image, const struct boot_context *context,
                struct cpu_entry *ret_entry, struct err *err);
};

extern const struct boot_protocol boot_linux, boot_pvh, boot_multiboot;
extern const struct boot_protocol boot_bios; /* for want of a kernel: it has no probe() */

/* The flat GDT, with 64-bit code or 32-bit code, and its place in the entry. */
int boot_write_gdt(struct memory *memory, bool code64, struct cpu_entry *entry,
                   struct err *err) must_check;

/* The command line at LAYOUT_CMDLINE. It fits: boot_open() has checked that. */
int boot_write_cmdline(const struct boot_image *image, struct memory *memory,
                       struct err *err) must_check;

/*
 * Loads the initrd page-aligned into [from, to): as high as it fits, or as low. ERR_USAGE with both
 * sizes where it does not.
 */
enum boot_place { BOOT_PLACE_HIGH = 1, BOOT_PLACE_LOW };
int boot_load_initrd(struct boot_image *image, struct memory *memory, gpa_t from, gpa_t to,
                     enum boot_place place, gpa_t *ret_at, struct err *err) must_check;
