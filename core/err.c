/* SPDX-License-Identifier: MIT */
#include "core/err.h"

#include <stdio.h>
#include <string.h>

static void set(struct err *err, enum err_kind kind, const char *fmt, va_list args)
{
    err->kind = kind;
    err->hint[0] = '\0';
    vsnprintf(err->text, sizeof(err->text), fmt, args);
}

int err_sys(struct err *err, enum err_kind kind, int errnum, const char *fmt, ...)
{
    if (err) {
        va_list args;
        va_start(args, fmt);
        set(err, kind, fmt, args);
        va_end(args);
        char words[64];
        size_t used = strlen(err->text);
        /* The GNU strerror_r: thread-safe, and may return a constant instead of filling words. */
        snprintf(err->text + used, sizeof(err->text) - used, ": %s",
                 strerror_r(errnum, words, sizeof(words)));
    }
    return -errnum;
}

int err_say(struct err *err, enum err_kind kind, int errnum, const char *fmt, ...)
{
    if (err) {
        va_list args;
        va_start(args, fmt);
        set(err, kind, fmt, args);
        va_end(args);
    }
    return -errnum;
}

void err_hint(struct err *err, const char *fmt, ...)
{
    if (!err)
        return;
    va_list args;
    va_start(args, fmt);
    vsnprintf(err->hint, sizeof(err->hint), fmt, args);
    va_end(args);
}

void err_prefix(struct err *err, const char *fmt, ...)
{
    if (!err)
        return;
    char old[sizeof(err->text)];
    memcpy(old, err->text, sizeof(old));
    va_list args;
    va_start(args, fmt);
    vsnprintf(err->text, sizeof(err->text), fmt, args);
    va_end(args);
    size_t used = strlen(err->text);
    snprintf(err->text + used, sizeof(err->text) - used, ": %s", old);
}
