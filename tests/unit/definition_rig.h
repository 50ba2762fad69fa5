/* SPDX-License-Identifier: MIT */
/* Parses definitions and keeps what was told. */
#pragma once

#include "tests/unit/unit.h"
#include "vmm/definition.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFINITION_FULL GOLDEN_DIR "/../fuzz/corpus/definition/full"

struct told {
    char text[65536]; /* a line for each sentence */
    unsigned count;
    struct err err;
};

static inline void handle_told(void *ctx, const char *sentence)
{
    struct told *told = ctx;
    size_t used = strlen(told->text);
    told->count++;
    snprintf(told->text + used, sizeof(told->text) - used, "%s\n", sentence);
}

/* NULL where it was refused. */
static inline struct definition *parse_bytes(struct told *told, const char *text, size_t length)
{
    const struct definition_judge judge = {.problem = handle_told, .ctx = told};
    struct definition *definition = NULL;
    memset(told, 0, sizeof(*told));
    int ret = definition_parse(&definition, text, length, "vm.json", "/vms/web1", &judge,
                               &told->err);
    ck_assert_int_eq(ret == 0, definition != NULL);
    ck_assert_int_eq(ret == 0, told->count == 0);
    return definition;
}

static inline struct definition *parse_text(struct told *told, const char *text)
{
    return parse_bytes(told, text, strlen(text));
}

static inline struct definition *parse_good(const char *text)
{
    static struct told told;
    struct definition *definition = parse_text(&told, text);
    ck_assert_msg(definition, "%s", told.text);
    return definition;
}

/* free() it. */
static inline char *read_whole(const char *path)
{
    FILE *file = fopen(path, "re");
    ck_assert_msg(file, "%s", path);
    char *text = calloc(1, 65536);
    ck_assert_uint_lt(fread(text, 1, 65536, file), 65536);
    fclose(file);
    return text;
}
