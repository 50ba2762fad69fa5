/* SPDX-License-Identifier: MIT */
/*
 * How far something is that takes its time, on standard error: a bar with rate and time left on a
 * terminal, else a line now and then. Nothing at all for the first second.
 */
#pragma once

#include "core/err.h"

struct progress {
    const char *what; /* "disk.img" */
    uint64_t start_ns, said_ns;
    uint64_t start; /* bytes that were done when it began to count */
    bool terminal, begun;
    unsigned drawn; /* columns that the bar takes now */
};

void progress_begin(struct progress *progress, const char *what);
void progress_tell(struct progress *progress, uint64_t done, uint64_t total);
void progress_end(struct progress *progress); /* the bar is gone; what is said next stays */

/*
 * "disk.img  [#######-----]  58 %  1.2 GiB of 2 GiB  310 MiB/s  3 s left" in at most `columns`:
 * what does not fit is left out, from the right; the bar takes the room there is. columns 0: no
 * bar. `rate` in bytes a second, 0: not known yet.
 */
void progress_format(char *ret_text, size_t size, const char *what, uint64_t done, uint64_t total,
                     double rate, unsigned columns);
