/* SPDX-License-Identifier: MIT */
/*
 * Where everything lies in the guest's physical address space, and why.
 *
 *   0x0000000000  real-mode vectors and BIOS data area
 *   0x0000000500  GDT                                        } written by boot_load, read by the
 *   0x0000001000  Linux zero page                            } guest's first instructions. All of
 *   0x0000002000  PVH or multiboot information               } it lies under 64 KiB, because no
 *   0x0000003000  page tables of the first 4 GiB             } operating system loads lower than
 *   0x0000009000  command line                               } that, and Linux never allocates
 * there 0x0000010000  RAM 0x000009FC00  extended BIOS data area, 1 KiB 0x00000A0000  not reported:
 * VGA on a PC, nothing here 0x00000E0000  ACPI tables                                } where ACPI
 * and SMBIOS tell old 0x00000F0000  SMBIOS tables                              } guests to search
 * for their anchors 0x00000F1000  our BIOS (to come) 0x0000100000  RAM, at most up to 3 GiB
 *   0x00C0000000  hole: 32-bit PCI window
 *   0x00E0000000  PCIe configuration space (ECAM), 256 buses of 1 MiB
 *   0x00F0000000  32-bit PCI window, second part
 *   0x00FEC00000  I/O APIC
 *   0x00FEE00000  local APICs
 *   0x00FFFBC000  four pages that KVM keeps for itself
 *   0x0100000000  the rest of the RAM
 *   above         room for a 64-bit PCI window
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
#define LAYOUT_ACPI_SIZE   0x10000ull
#define LAYOUT_SMBIOS      0xF0000ull
#define LAYOUT_SMBIOS_SIZE 0x1000ull
#define LAYOUT_BIOS        0xF1000ull
#define LAYOUT_1M          0x100000ull

/*
 * The hole. It begins at 3 GiB, a multiple of 1 GiB so that huge pages of every size stay aligned
 * on both sides of it, and leaves 768 MiB to 32-bit PCI and its configuration space.
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
