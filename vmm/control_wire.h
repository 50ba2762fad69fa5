/* SPDX-License-Identifier: MIT */
/* What both ends of the control socket share: lines in, lines out, and errors as JSON. */
#pragma once

#include "core/err.h"
#include <jansson.h>

enum { WIRE_FLAGS = JSON_COMPACT | JSON_REAL_PRECISION(15) }; /* 1763712000.123, not ...1229999 */

/* Bytes that came, taken out line by line. Zeroed except for limit, the most that one line may
 * have (its newline not counted). */
struct wire_lines {
    size_t limit;
    char *bytes; /* [at, end) is what nobody has taken yet, [at, scanned) has no newline */
    size_t at, scanned, end, capacity;
};

/* Receives once: how many bytes came, 0 at the end, -EAGAIN, -EMSGSIZE when a line is too long. */
ssize_t wire_receive(struct wire_lines *lines, int fd) must_check;
bool wire_has_line(struct wire_lines *lines);
/* The next whole line, without its newline; it lies there until the next wire_receive. */
bool wire_next_line(struct wire_lines *lines, const char **ret_line, size_t *ret_length);
/* What is left, as memory of the caller's; NULL and 0 when there is none. */
int wire_take_rest(struct wire_lines *lines, void **ret_bytes, size_t *ret_length) must_check;
void wire_lines_finish(struct wire_lines *lines);

/* Bytes that are to be sent. Zeroed. */
struct wire_backlog {
    char *bytes; /* [at, end) is to be sent */
    size_t at, end, capacity;
};

/* The message and a newline, or nothing. */
int wire_put(struct wire_backlog *backlog, const json_t *message) must_check;
/* Sends what the socket takes at once; -errno where it never will take more. */
int wire_send(struct wire_backlog *backlog, int fd) must_check;
void wire_backlog_finish(struct wire_backlog *backlog);

/* A string for JSON, whatever the bytes are: those that are no UTF-8 become U+FFFD. */
json_t *wire_text(const char *text);

json_t *wire_error(const struct err *err);
/* The other way, and returns -EREMOTEIO. What is no error object becomes a plain failure. */
int wire_read_error(const json_t *error, struct err *err);
