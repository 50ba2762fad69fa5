/* SPDX-License-Identifier: MIT */
/* Whether there is anything in some bytes. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/* At the speed of memcmp: the bytes are compared with themselves, one further on. */
static inline bool is_zero(const void *bytes, size_t length)
{
    const char *first = bytes;

    return length == 0 || (first[0] == 0 && memcmp(first, first + 1, length - 1) == 0);
}
