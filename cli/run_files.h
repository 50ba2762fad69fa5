/* SPDX-License-Identifier: MIT */
#pragma once

#include "vmm/definition.h"

/*
 * The disks and what boots are there: a mistyped name is told before anything is begun for it.
 * `name` is the word of the command line that may have meant a VM too, or NULL. What is there is
 * opened, and judged, by who needs it.
 */
int run_files_check(const struct definition *definition, const char *name,
                    struct err *err) must_check;
