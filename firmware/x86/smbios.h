/* SPDX-License-Identifier: MIT */
/*
 * SMBIOS 3 (DMTF DSP0134 3.3): what dmidecode and systemd in the guest read, such as the UUID. Both
 * entry points are there: _SM3_, and _SM_ for guests that know only that.
 */
#pragma once

#include "firmware/x86/boot.h"

/* Writes them to LAYOUT_SMBIOS. -ENOSPC if they do not fit, which they always should. */
int smbios_write(struct memory *memory, const struct boot_platform *platform,
                 struct err *err) must_check;
