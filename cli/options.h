/* SPDX-License-Identifier: MIT */
/* Command lines: options by table, numbers and sizes, and the nearest match for what is none. */
#pragma once

#include "core/err.h"

struct option {
    const char *name;  /* without the dashes */
    char letter;       /* 0: no short form */
    const char *value; /* what --help calls the value; NULL: takes none */
    const char *help;
};

struct options {
    const char *verb; /* for error sentences */
    const struct option *table;
    size_t count;
    int argc;
    char **argv;
    int at;
    bool only_arguments; /* after "--" */
};

enum { OPTIONS_END = -1, OPTIONS_ARGUMENT = -2 };

/*
 * The next word: *ret_what is an index into the table with *ret_value (NULL for a flag),
 * OPTIONS_ARGUMENT with the word itself, or OPTIONS_END.
 */
int options_next(struct options *options, int *ret_what, const char **ret_value,
                 struct err *err) must_check;

/* Prints the table as aligned lines. */
void options_print(const struct option *table, size_t count);

/* "4", in [min, max]. what names the number in error sentences ("--cpus"). */
int parse_number(const char *text, const char *what, uint64_t min, uint64_t max,
                 uint64_t *ret_number, struct err *err) must_check;

/* "512M", "6G", "1.5G" is none; K, M, G, T are powers of 1024 (also KiB...); a bare number is MiB.
 */
int parse_size(const char *text, const char *what, uint64_t *ret_bytes, struct err *err) must_check;

/* "6f1ed002-ab5a-4b0c-8d5e-3a4c5d6e7f80" */
int parse_uuid(const char *text, const char *what, uint8_t ret_uuid[16],
               struct err *err) must_check;

/* The candidate that the word was probably meant to be, or NULL. next(ctx, i) is NULL at the end.
 */
const char *nearest_word(const char *word, const char *(*next)(const void *ctx, size_t i),
                         const void *ctx);
