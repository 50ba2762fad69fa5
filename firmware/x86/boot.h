/* SPDX-License-Identifier: MIT */
/*
 * What a guest finds at power-on, and where its boot processor begins.
 *
 * A kernel file is opened and probed once, and loaded at every reset: Linux bzImage (the 64-bit
 * boot protocol), ELF with a PVH entry note, or multiboot 1, asked in that order. The descriptors
 * stay open, so that a reset finds the same kernel even where somebody has put a new file in its
 * place.
 *
 * The bytes of these files are somebody's and not to be trusted: whatever they say is checked
 * against the size of the file at boot_open() and against guest RAM at boot_load().
 *
 * Kinds of error, so that a script can tell them apart:
 *   ERR_NOT_FOUND   the file does not exist
 *   ERR_FAILED      it cannot be read, or it shrank after it was opened
 *   ERR_DEFINITION  it is no kernel, one that cannot run here, or broken
 *   ERR_USAGE       the file is good, but what the user gave with it is not: too little memory, a
 *                   command line that is too long
 *
 * Main thread; boot_load() only while no vCPU runs.
 */
#pragma once

#include "core/memory.h"

enum cpu_mode {
    CPU_REAL = 1,  /* 16 bit; cs base is segment_base, all other segments 0 */
    CPU_PROTECTED, /* 32 bit, flat segments, paging off */
    CPU_LONG,      /* 64 bit, flat segments, paging on with page_table */
};

/* Selectors into the table at `gdt`; both flat. */
enum { CPU_ENTRY_CODE = 0x10, CPU_ENTRY_DATA = 0x18 };

/* The boot processor's first state. Interrupts are off; registers not named here are 0. */
struct cpu_entry {
    enum cpu_mode mode;
    uint64_t ip, sp;
    uint64_t ax, bx, cx, dx, si, di, bp;
    gpa_t page_table; /* CPU_LONG: CR3 */
    gpa_t gdt;        /* PROTECTED, LONG: code at CPU_ENTRY_CODE, data at CPU_ENTRY_DATA */
    uint16_t gdt_limit;
    gpa_t segment_base; /* CPU_REAL */
};

/* What the tables tell the guest about its machine. */
struct boot_platform {
    unsigned cpus;    /* 1..LAYOUT_MAX_CPUS; one socket, APIC ids 0..cpus-1, and as UID the same */
    uint8_t uuid[16]; /* in the order in which it is written as text */
    uint64_t pci64_base, pci64_size; /* the 64-bit PCI window, by layout_pci64(); size 0: none */
};

struct boot_image;

/*
 * initrd may be NULL; so may cmdline, which means an empty one. Without a kernel, and then without
 * those two, the image is our BIOS (bios.h), which starts what a disk has.
 */
int boot_open(struct boot_image **ret_image, const char *kernel, const char *initrd,
              const char *cmdline, struct err *err) must_check;
void boot_close(struct boot_image *image);

/* "Linux", "PVH", "multiboot" or "BIOS", for people. */
const char *boot_protocol_name(const struct boot_image *image);

/*
 * Writes all that the guest sees at power-on: the kernel and what belongs to it, the memory map,
 * ACPI and SMBIOS. memory is split by layout_split(). On error guest RAM holds a part of all that,
 * and is good for another boot_load() only.
 */
int boot_load(struct boot_image *image, struct memory *memory, const struct boot_platform *platform,
              struct cpu_entry *ret_entry, struct err *err) must_check;
