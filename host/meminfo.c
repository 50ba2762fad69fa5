/* SPDX-License-Identifier: MIT */
#include "host/meminfo.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint64_t meminfo_find(const char *name)
{
    FILE *file = fopen("/proc/meminfo", "re");
    size_t length = strlen(name);
    uint64_t bytes = 0;
    char line[128];

    while (file && fgets(line, sizeof(line), file))
        if (strncmp(line, name, length) == 0 && line[length] == ':')
            bytes = strtoull(line + length + 1, NULL, 10) << 10;
    if (file)
        fclose(file);
    return bytes;
}
