/* SPDX-License-Identifier: MIT */
/*
 * The ACPI tables (ACPI 6.5, chapter 5.2), written anew at every reset because the guest may have
 * scribbled over them: RSDP, XSDT (and RSDT for old guests), FADT, FACS, DSDT, SSDT, MADT, MCFG.
 */
#pragma once

#include "firmware/x86/boot.h"

/*
 * Writes them to LAYOUT_ACPI. *ret_rsdp is the address of the root pointer. -ENOSPC when the tables
 * of that many processors do not fit there, which LAYOUT_MAX_CPUS do.
 */
int acpi_write(struct memory *memory, const struct boot_platform *platform, gpa_t *ret_rsdp,
               struct err *err) must_check;
