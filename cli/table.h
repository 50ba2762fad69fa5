/* SPDX-License-Identifier: MIT */
/* Tables for people: aligned columns with upper-case headers on standard output. */
#pragma once

#include "core/err.h"

enum { TABLE_MAX_COLUMNS = 12 };

struct table {
    unsigned columns;
    char **cells; /* row by row, the header first */
    size_t count, room;
    bool failed; /* no memory for all of it */
};

/* header ends with NULL. */
void table_init(struct table *table, const char *const *header);
void table_add(struct table *table, const char *cell); /* the next cell; copied, and made plain */
void table_addf(struct table *table, const char *fmt, ...) printf_like(2, 3);
void table_print(struct table *table);
void table_finish(struct table *table);

/*
 * In place: '?' for each character that would do something to a terminal, or hide, or is no UTF-8.
 * Names of files are made by anybody.
 */
void text_make_plain(char *text);

/* "3 d 4 h", "12 min", "5 s": the two largest parts. */
void format_duration(double seconds, char *ret_text, size_t size);
/* "2026-11-22 03:50", of this host's time zone, or with the seconds */
void format_time(double at, bool seconds, char *ret_text, size_t size);
/* "512 MiB", "1.5 GiB" */
void format_size(uint64_t bytes, char *ret_text, size_t size);
