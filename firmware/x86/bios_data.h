/* SPDX-License-Identifier: MIT */
#pragma once

#include "core/memory.h"

/* The BIOS data area and the extended one, which kernels without a boot loader look into too. */
int bios_write_data(struct memory *memory, struct err *err) must_check;
