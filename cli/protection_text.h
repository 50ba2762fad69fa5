/* SPDX-License-Identifier: MIT */
/*
 * What people read of a VM's protection by fault tolerance. It is made of what the control socket
 * says (docs/control-protocol.md): of its status, and of its events. Each line is plain, and no
 * longer than PROTECTION_LINE.
 */
#pragma once

#include "core/err.h"
#include <jansson.h>
#include <stdio.h>

enum { PROTECTION_LINE = 1000 };

/* How it goes just now. */
struct protection_pace {
    double epochs_per_s, dirty_bytes_per_s, wire_bytes_per_s, stood_still_percent;
    double pause_us, commit_us; /* means; 0: there was none */
};

/* From two answers to "status", `seconds` apart. False: they do not tell. */
bool protection_pace(const json_t *before, const json_t *now, double seconds,
                     struct protection_pace *ret_pace) must_check;

/* "protected", "not protected", "" (of a VM that nobody protects, and of a twin); by the state. */
const char *protection_word(const char *state);

/* A paragraph: status' "protection", live; pace NULL: as it says itself. */
void protection_print(FILE *to, const json_t *protection, const struct protection_pace *pace);
/* One line of a whole status; pace NULL: it is not known yet. */
void protection_print_line(FILE *to, double at, const json_t *status,
                           const struct protection_pace *pace);
/* One line; nothing of those that only tell how far something is. */
void protection_print_event(FILE *to, const json_t *event);

/* What came of `protect`, in one line without its end. bytes 0: it is not known how much it was. */
void protection_sum_up(char *ret_text, size_t size, const char *vm, const json_t *answer,
                       uint64_t bytes, double seconds);

/* A table of the verb "epochs"' answer, on standard output. */
void protection_print_epochs(const json_t *answer);
