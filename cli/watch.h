/* SPDX-License-Identifier: MIT */
/* How a VM goes on, and what befalls it, as it happens. */
#pragma once

#include "core/err.h"

/* On standard output, each second: a few lines that stay where they are on a terminal, else one
 * line each time. Until the VM has ended. */
int watch_vm(const char *word, struct err *err) must_check;
