/* SPDX-License-Identifier: MIT */
#include "core/log.h"

#include "core/clock.h"
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LONGEST_WAIT_MS = 200 };

static enum log_level current_level = LOG_INFO;

void log_set_level(enum log_level level)
{
    current_level = level;
}

bool log_enabled(enum log_level level)
{
    return level <= current_level;
}

void log_line(enum log_level level, const char *fmt, ...)
{
    static const char *const words[] = {
        [LOG_ERROR] = "error: ", [LOG_WARNING] = "warning: ", [LOG_INFO] = "",
        [LOG_DEBUG] = "debug: ", [LOG_TRACE] = "trace: ",
    };
    if (!log_enabled(level))
        return;

    char line[1024];
    int used = snprintf(line, sizeof(line) - 1, "minivmm: %s", words[level]);
    va_list args;
    va_start(args, fmt);
    vsnprintf(line + used, sizeof(line) - 1 - (size_t)used, fmt, args);
    va_end(args);
    size_t length = strlen(line);
    line[length++] = '\n';
    /*
     * A log that cannot be written has nowhere to complain. A reader that is slow is waited for,
     * one that is stuck loses lines: it must not hold the program up.
     */
    struct pollfd out = {.fd = STDERR_FILENO, .events = POLLOUT};
    if (poll(&out, 1, LONGEST_WAIT_MS) == 1 && write(STDERR_FILENO, line, length) < 0)
        return;
}

void log_err(enum log_level level, const struct err *err)
{
    if (err->hint[0])
        log_line(level, "%s\nhint: %s", err->text, err->hint);
    else
        log_line(level, "%s", err->text);
}

bool log_limit_pass(struct log_limit *limit, uint64_t *ret_swallowed)
{
    uint64_t used = atomic_fetch_add_explicit(&limit->used, 1, memory_order_relaxed);
    if (used >= limit->burst) {
        uint64_t now = clock_monotonic_ns();
        uint64_t next = atomic_load(&limit->next_ns);
        /* Whoever moves next_ns forward speaks; the others of this second are swallowed, and so is
         * whoever moves it from 0, the first one after the burst. */
        bool mine = now >= next &&
                    atomic_compare_exchange_strong(&limit->next_ns, &next, now + NS_PER_SEC);
        if (!mine || next == 0) {
            atomic_fetch_add(&limit->swallowed, 1);
            return false;
        }
    }
    *ret_swallowed = atomic_exchange(&limit->swallowed, 0);
    return true;
}
