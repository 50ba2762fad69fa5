/* SPDX-License-Identifier: MIT */
/* Golden bytes of what is more than a state table (unit.h has those): lines of 32 bytes in hex. */
#pragma once

#include "tests/unit/unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GOLDEN_MAX = 16 << 10 };

struct golden {
    uint8_t bytes[GOLDEN_MAX];
    size_t length;
};

static inline void golden_path(char ret_path[512], const char *name)
{
    snprintf(ret_path, 512, "%s/%s.hex", GOLDEN_DIR, name);
}

static inline void golden_read(struct golden *ret_golden, const char *name)
{
    char path[512];
    unsigned byte;
    golden_path(path, name);
    FILE *file = fopen(path, "re");
    ck_assert_msg(file, "cannot open %s: %s (MINIVMM_UPDATE_GOLDEN=1 writes it)", path,
                  strerror(errno));
    ret_golden->length = 0;
    while (ret_golden->length < GOLDEN_MAX && fscanf(file, " %2x", &byte) == 1)
        ret_golden->bytes[ret_golden->length++] = (uint8_t)byte;
    ck_assert_msg(feof(file), "%s is too long, or no hex", path);
    fclose(file);
}

static inline void golden_write(const char *name, const uint8_t *bytes, size_t length)
{
    char path[512];
    golden_path(path, name);
    FILE *file = fopen(path, "we");
    ck_assert_msg(file, "cannot write %s: %s", path, strerror(errno));
    for (size_t i = 0; i < length; i++)
        fprintf(file, i % 32 == 31 || i + 1 == length ? "%02x\n" : "%02x", bytes[i]);
    ck_assert_int_eq(fclose(file), 0);
}

/* These bytes are those of the file; with MINIVMM_UPDATE_GOLDEN=1 they become it. */
static inline void golden_check(const char *name, const uint8_t *bytes, size_t length)
{
    static struct golden golden;
    if (getenv("MINIVMM_UPDATE_GOLDEN"))
        golden_write(name, bytes, length);
    golden_read(&golden, name);
    size_t least = golden.length < length ? golden.length : length;
    for (size_t i = 0; i < least; i++)
        ck_assert_msg(golden.bytes[i] == bytes[i], "%s: byte %zu differs", name, i);
    ck_assert_msg(golden.length == length, "%s: %zu bytes, but there are %zu", name, golden.length,
                  length);
}
