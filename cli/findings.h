/* SPDX-License-Identifier: MIT */
/* What `minivmm check` has found: a line for each, with the mend behind what is not good. */
#pragma once

#include "core/err.h"

enum verdict { FINDING_GOOD = 1, FINDING_NOTE, FINDING_BAD }; /* BAD: it does not run like this */

struct findings {
    bool quiet;
    bool bad;
};

/* mend may be NULL. */
void findings_add(struct findings *findings, enum verdict verdict, const char *what,
                  const char *mend, const char *fmt, ...) printf_like(5, 6);
