/* SPDX-License-Identifier: MIT */
/* Command lines: options by table. What their values say is read by core/words.h. */
#pragma once

#include "core/words.h"

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
