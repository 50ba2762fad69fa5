/* SPDX-License-Identifier: MIT */
#include "cli/findings.h"

#include <stdio.h>

void findings_add(struct findings *findings, enum verdict verdict, const char *what,
                  const char *mend, const char *fmt, ...)
{
    static const char *const words[] = {
        [FINDING_GOOD] = "ok", [FINDING_NOTE] = "note", [FINDING_BAD] = "BAD"};
    va_list args;

    findings->bad |= verdict == FINDING_BAD;
    if (findings->quiet)
        return;
    va_start(args, fmt);
    printf("%-5s %-28s ", words[verdict], what);
    vprintf(fmt, args);
    printf("\n");
    va_end(args);
    if (verdict != FINDING_GOOD && mend && mend[0])
        printf("      %-28s mend: %s\n", "", mend);
}
