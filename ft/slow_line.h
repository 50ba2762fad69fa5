/* SPDX-License-Identifier: MIT */
/*
 * A line that is so slow that whatever makes pages shorter costs nothing beside it. It is known by
 * how long much took until it had left: little finds room in the kernel (host/link.c), whatever the
 * line. Of that counts what the line itself had it for (link_line_ns): a host may be short of CPUs.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum {
    SLOW_LINE_MUCH = 512 << 10, /* bytes */
    SLOW_LINE_NS = 8,           /* for each of them: 125 MB a second, which is what 1 Gbit/s is */
};

static inline bool slow_line(uint64_t bytes, uint64_t ns)
{
    return ns > bytes * SLOW_LINE_NS;
}
