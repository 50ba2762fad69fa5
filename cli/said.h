/* SPDX-License-Identifier: MIT */
/* What a VM or a file says, in JSON, put before a person: anything may be missing or strange. */
#pragma once

#include <jansson.h>

const char *said_text(const json_t *object, const char *key); /* "-" where there is none */
double said_number(const json_t *object, const char *key);    /* 0 where there is none */

/* On standard output: a text as a terminal may see it; a value for programs, and a newline. */
void said_print_plain(const char *text);
void said_print_json(const json_t *value);
