/* SPDX-License-Identifier: MIT */
/* The vm.json that `minivmm new` writes: what was asked for, and nothing that is a default. */
#pragma once

#include "vmm/definition.h"

/*
 * The text, for people to read and change; free() it. Paths are written as they are in the
 * definition. Of cpus and memory 0 is not written. NULL: no memory.
 */
char *new_text(const struct definition *definition);
