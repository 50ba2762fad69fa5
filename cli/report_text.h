/* SPDX-License-Identifier: MIT */
/* The words of `minivmm report`. Pure. */
#pragma once

#include "cli/table.h"
#include "vmm/journal.h"
#include <jansson.h>
#include <stdio.h>

/* "30d", "12h", "90min", "2w" before now, or a day, "2026-01-01", at whose beginning here. */
int report_parse_since(const char *text, double now, double *ret_from, struct err *err) must_check;

/* How it is now. */
enum report_state { REPORT_STOPPED, REPORT_RUNNING, REPORT_TWIN };

/* For people; `name` is the VM's. */
void report_print(FILE *to, const char *name, const struct journal_report *report,
                  enum report_state state);

/* The same of many, a row each. */
void report_begin_table(struct table *table);
void report_add_row(struct table *table, const char *name, const struct journal_report *report);

/* For programs: seconds as numbers, null for what cannot be told; NULL: no memory. */
json_t *report_to_json(const char *name, const struct journal_report *report,
                       enum report_state state);

/* How many nines an availability has: 0.9995 has 3; 1 has as many as there are, which is -1. NAN
 * has none. */
int report_count_nines(double availability);
