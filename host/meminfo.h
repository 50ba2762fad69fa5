/* SPDX-License-Identifier: MIT */
/* What this host says of its memory. */
#pragma once

#include <stdint.h>

/* A line of /proc/meminfo ("MemAvailable"), in bytes; 0: there is no such line. */
uint64_t meminfo_find(const char *name);
