/* SPDX-License-Identifier: MIT */
/*
 * Errors, and the few words every file needs.
 *
 * A function that can fail returns 0 or -errno and is marked `must_check`. Where a person will read
 * the outcome it also takes a `struct err *` (NULL is allowed) and leaves one sentence there, which
 * names the object that was tried, and a hint, which names the mend. Floors below cli/ never print
 * and never exit: they fill this in and return.
 *
 * The kind of an error is the exit code of the program, so that no table has to translate one into
 * the other.
 */
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define must_check                      __attribute__((warn_unused_result))
#define printf_like(fmt, a)             __attribute__((format(printf, fmt, a)))
#define array_size(a)                   (sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

enum err_kind {
    ERR_NONE = 0,
    ERR_FAILED = 1,     /* what was asked did not work */
    ERR_USAGE = 2,      /* the command line is wrong */
    ERR_NOT_FOUND = 3,  /* a named thing does not exist */
    ERR_STATE = 4,      /* wrong state, or locked by somebody */
    ERR_DEFINITION = 5, /* a definition or an image is bad */
    ERR_HOST = 6,       /* this host lacks something */
    ERR_GUEST = 7,      /* the guest crashed */
    ERR_TIMEOUT = 124,
};

struct err {
    enum err_kind kind;
    char text[400]; /* one sentence, without a full stop or newline */
    char hint[240]; /* empty where no mend is known */
};

/* Both fill err (when given) and return -errnum. err_sys appends the words for errnum. */
int err_sys(struct err *err, enum err_kind kind, int errnum, const char *fmt, ...)
    printf_like(4, 5);
int err_say(struct err *err, enum err_kind kind, int errnum, const char *fmt, ...)
    printf_like(4, 5);

/* Adds the mend to an error that is set already. */
void err_hint(struct err *err, const char *fmt, ...) printf_like(2, 3);

/* Puts "<words>: " before the sentence, as the error travels upward through a named object. */
void err_prefix(struct err *err, const char *fmt, ...) printf_like(2, 3);
