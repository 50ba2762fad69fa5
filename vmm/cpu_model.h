/* SPDX-License-Identifier: MIT */
/*
 * Which CPU a guest is to see: this host's own, with all that it can, or a level that many hosts
 * can give, so that the guest can go on at any of them.
 */
#pragma once

enum cpu_model { CPU_HOST, CPU_X86_64_V2, CPU_X86_64_V3, CPU_X86_64_V4 };

/* As vm.json and --cpu have them, in the enum's order; ends with NULL. */
extern const char *const cpu_model_names[];
