/* SPDX-License-Identifier: MIT */
/*
 * What the program says about itself, on stderr. Only vmm/ and above call this.
 *
 *   error    what was asked did not happen       warning  it happened, but worse
 *   info     a person's milestone                debug, trace   for whoever reads this code
 *
 * One call is one line and one write(2), so lines of several threads never mix. Whatever a guest
 * can trigger goes through a log_limit.
 */
#pragma once

#include "core/err.h"

enum log_level { LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG, LOG_TRACE };

/* The one mutable variable at file level in the program: set once by cli/, before any thread. */
void log_set_level(enum log_level level);
bool log_enabled(enum log_level level);

void log_line(enum log_level level, const char *fmt, ...) printf_like(2, 3);

#define log_error(...)   log_line(LOG_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_WARNING, __VA_ARGS__)
#define log_info(...)    log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...)   log_line(LOG_DEBUG, __VA_ARGS__)
#define log_trace(...)   log_line(LOG_TRACE, __VA_ARGS__)

/* Prints err's sentence and, on a line of its own, its hint. */
void log_err(enum log_level level, const struct err *err);

/*
 * Lets `burst` lines through, then one each second, and counts what it swallowed. Zero-initialised
 * except for burst. Any thread.
 */
struct log_limit {
    unsigned burst;
    _Atomic uint64_t used;      /* lines let through so far */
    _Atomic uint64_t swallowed; /* lines kept back since the last one let through */
    _Atomic uint64_t next_ns;   /* after the burst: not before this moment */
};

/* True when a line may be printed now; *ret_swallowed says how many were kept back before it. */
bool log_limit_pass(struct log_limit *limit, uint64_t *ret_swallowed);
