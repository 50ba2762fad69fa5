/* SPDX-License-Identifier: MIT */
/*
 * Where everything lies in the guest's physical address space, and why.
 *
 *   0x0000000000  real-mode vectors and BIOS data area
 *   0x0000000500  GDT
 *   0x0000001000  Linux zero page
 *   0x0000002000  PVH or multiboot information
 *   0x0000003000  page tables of the first 4 GiB
 *   0x0000009000  command line
 *   0x0000010000  RAM
 *   0x000009FC00  extended BIOS data area, 1 KiB
 *   0x00000A0000  not reported: VGA on a PC, nothing here
 *   0x00000E0000  ACPI tables
 *   0x00000EF000  VM generation id, in a page of its own
 *   0x00000F0000  SMBIOS tables
 *   0x00000F1000  our BIOS (F000:1000), with a mailbox in front; at the end its reset vector
 *   0x0000100000  RAM, at most up to 3 GiB
 *   0x00C0000000  hole: 32-bit PCI window
 *   0x00E0000000  PCIe configuration space (ECAM), 256 buses of 1 MiB, of which the first is there
 *   0x00F0000000  nothing
 *   0x00FEC00000  I/O APIC
 *   0x00FEE00000  local APICs
 *   0x00FFFBC000  four pages that KVM keeps for itself
 *   0x0100000000  the rest of the RAM
 *   above         64-bit PCI window, 32 GiB, at a multiple of its size
 *
 * What boot_load writes for the guest's first instructions lies under 64 KiB, because no operating
 * system loads lower than that, and Linux never allocates there. ACPI and SMBIOS tell old guests to
 * search for their anchors where the tables are.
 */
#pragma once

#include "core/memory.h"

/* The smallest machine that the tables below fit into with some room to run. */
#define LAYOUT_MIN_RAM (2ull << 20)
/* Needs 41 address bits; a host with fewer (39 are common) says so when the memory is given to KVM.
 */
#define LAYOUT_MAX_RAM (1ull << 40)

/* Under 64 KiB. */
#define LAYOUT_BDA            0x400ull
#define LAYOUT_GDT            0x500ull
#define LAYOUT_ZERO_PAGE      0x1000ull
#define LAYOUT_BOOT_INFO      0x2000ull
#define LAYOUT_PAGE_TABLES    0x3000ull /* PML4, PDPT and four page directories */
#define LAYOUT_CMDLINE        0x9000ull
#define LAYOUT_LOW_END        0x10000ull
#define LAYOUT_BOOT_INFO_SIZE (LAYOUT_PAGE_TABLES - LAYOUT_BOOT_INFO)
#define LAYOUT_CMDLINE_SIZE   (LAYOUT_LOW_END - LAYOUT_CMDLINE) /* with the final NUL */

/* Up to 1 MiB. */
#define LAYOUT_EBDA        0x9FC00ull
#define LAYOUT_EBDA_SIZE   0x400ull
#define LAYOUT_VGA         0xA0000ull
#define LAYOUT_ACPI        0xE0000ull /* 1024 processors need 16 KiB of it */
#define LAYOUT_ACPI_SIZE   0xF000ull
#define LAYOUT_VMGENID     0xEF000ull /* dsdt.asl; nothing else is in its page, as its spec wants */
#define LAYOUT_SMBIOS      0xF0000ull
#define LAYOUT_SMBIOS_SIZE 0x1000ull
#define LAYOUT_BIOS        0xF1000ull
#define LAYOUT_1M          0x100000ull

/*
 * The hole. It begins at 3 GiB, a multiple of 1 GiB so that huge pages of every size stay aligned
 * on both sides of it, and leaves 512 MiB to 32-bit PCI and 256 MiB to its configuration space.
 */
#define LAYOUT_HOLE         0xC0000000ull
#define LAYOUT_PCI32        0xC0000000ull
#define LAYOUT_PCI32_SIZE   0x20000000ull
#define LAYOUT_ECAM         0xE0000000ull
#define LAYOUT_ECAM_SIZE    0x10000000ull
#define LAYOUT_IOAPIC       0xFEC00000ull
#define LAYOUT_LAPIC        0xFEE00000ull
#define LAYOUT_KVM_IDENTITY 0xFFFBC000ull /* KVM_SET_IDENTITY_MAP_ADDR: one page */
#define LAYOUT_KVM_TSS      0xFFFBD000ull /* KVM_SET_TSS_ADDR: three pages */
#define LAYOUT_KVM_SIZE     0x4000ull
#define LAYOUT_HIGH_RAM     0x100000000ull

/* More than any driver asks for, and behind up to 31 GiB of RAM it fits into the 36 address bits of
 * the smallest hosts. */
#define LAYOUT_PCI64_SIZE 0x800000000ull

/* PCI's lines INTA..INTD of the bus arrive at I/O APIC pins 16..19 (dsdt.asl, _PRT). */
enum { LAYOUT_PCI_GSI = 16 };

/* Who sits where on the PCI bus: disks and network interfaces in the order of their definition. */
enum {
    LAYOUT_SLOT_RNG = 1,
    LAYOUT_SLOT_BALLOON = 2,
    LAYOUT_SLOT_CONSOLE = 3,
    LAYOUT_SLOT_VSOCK = 4,
    LAYOUT_SLOT_NET = 5,   /* 8 of them */
    LAYOUT_SLOT_DISK = 13, /* 19 */
};

/* The limits that fit the address space above; ACPI, SMBIOS and CPUID agree on them. */
enum { LAYOUT_MAX_CPUS = 1024 };

/*
 * Says how RAM of this size is split around the hole: the first *ret_below bytes lie at 0, the
 * rest, if any, at *ret_above. These are the arguments of memory_create().
 */
static inline void layout_split(uint64_t size, uint64_t *ret_below, gpa_t *ret_above)
{
    *ret_below = size < LAYOUT_HOLE ? size : LAYOUT_HOLE;
    *ret_above = LAYOUT_HIGH_RAM;
}

/*
 * The 64-bit PCI window of a machine with this much RAM, above all of it. Size and base are 0 where
 * it does not fit into the physical addresses that the guest's processors have.
 */
static inline void layout_pci64(uint64_t memory_size, unsigned physical_bits, uint64_t *ret_base,
                                uint64_t *ret_size)
{
    uint64_t below;
    gpa_t above;

    layout_split(memory_size, &below, &above);
    uint64_t end = above + (memory_size - below);
    uint64_t base = (end + LAYOUT_PCI64_SIZE - 1) / LAYOUT_PCI64_SIZE * LAYOUT_PCI64_SIZE;
    bool fits = physical_bits >= 64 || base + LAYOUT_PCI64_SIZE <= 1ull << physical_bits;

    *ret_base = fits ? base : 0;
    *ret_size = fits ? LAYOUT_PCI64_SIZE : 0;
}
