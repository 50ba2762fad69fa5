/* SPDX-License-Identifier: MIT */
#include "cli/progress.h"

#include "cli/table.h"
#include "core/clock.h"
#include "core/log.h"
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum {
    QUIET_MS = 1000,
    LINE_MS = 5000, /* between two lines where there is no terminal */
    BAR_MIN = 10,
    BAR_MAX = 30,
    NARROWEST = 20,
    WIDEST = 200,
};

void progress_begin(struct progress *progress, const char *what)
{
    uint64_t now = clock_monotonic_ns();

    *progress = (struct progress){.what = what, .start_ns = now, .said_ns = now};
    progress->terminal = isatty(STDERR_FILENO) == 1;
}

/* Adds a part to the text where it fits. */
static void add(char *text, size_t size, size_t limit, const char *part)
{
    size_t length = strlen(text), gap = length ? 2 : 0;

    if (length + gap + strlen(part) <= limit && length + gap + strlen(part) < size)
        snprintf(text + length, size - length, "%s%s", gap ? "  " : "", part);
}

/* The bar lies behind the first part. */
static void put_bar(char *text, size_t size, size_t name, size_t limit, double share)
{
    char bar[BAR_MAX + 3] = "", rest[WIDEST + 1];
    size_t length = strlen(text), room = limit > length ? limit - length : 0;

    if (room < BAR_MIN + 4)
        return;
    unsigned width = room - 4 < BAR_MAX ? (unsigned)(room - 4) : BAR_MAX;
    unsigned full = (unsigned)(share * width);
    bar[0] = '[';
    memset(bar + 1, '#', full);
    memset(bar + 1 + full, '-', width - full);
    bar[1 + width] = ']';
    snprintf(rest, sizeof(rest), "%s", text + name);
    snprintf(text + name, size - name, "  %s%s", bar, rest);
}

void progress_format(char *ret_text, size_t size, const char *what, uint64_t done, uint64_t total,
                     double rate, unsigned columns)
{
    double share = total ? (double)(done < total ? done : total) / (double)total : 1;
    size_t limit = columns && columns < WIDEST ? columns : WIDEST;
    char part[96], number[32], all[32];

    snprintf(ret_text, size, "%.*s", (int)(limit > 8 ? limit - 8 : 0), what);
    size_t name = strlen(ret_text);
    snprintf(part, sizeof(part), "%3u %%", (unsigned)(share * 100));
    add(ret_text, size, limit, part);
    format_size(done, number, sizeof(number));
    format_size(total, all, sizeof(all));
    snprintf(part, sizeof(part), "%s of %s", number, all);
    add(ret_text, size, limit, part);
    if (rate >= 1 && rate < 1e18) {
        /* Whole bytes a second; a fraction is noise. */
        format_size((uint64_t)rate, number, sizeof(number));
        snprintf(part, sizeof(part), "%s/s", number);
        add(ret_text, size, limit, part);
        format_duration((double)(total - (done < total ? done : total)) / rate, number,
                        sizeof(number));
        snprintf(part, sizeof(part), "%s left", number);
        add(ret_text, size, limit, part);
    }
    if (columns)
        put_bar(ret_text, size, name, limit, share);
}

/* The terminal's, less one: in its last column some of them begin a new line. */
static unsigned find_columns(void)
{
    struct winsize window;

    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &window) < 0 || window.ws_col == 0)
        return 79;
    return window.ws_col > NARROWEST ? window.ws_col - 1u : NARROWEST;
}

/* A bar that gets shorter leaves nothing of the longer one: blanks, and no escape sequences. */
static void draw(struct progress *progress, const char *text)
{
    unsigned length = (unsigned)strlen(text);
    unsigned rest = progress->drawn > length ? progress->drawn - length : 0;

    fprintf(stderr, "\r%s%*s", text, (int)rest, "");
    if (rest)
        fprintf(stderr, "\r%s", text);
    fflush(stderr);
    progress->drawn = length;
}

void progress_tell(struct progress *progress, uint64_t done, uint64_t total)
{
    uint64_t now = clock_monotonic_ns(), ms = (now - progress->start_ns) / 1000000;
    char text[WIDEST * 2];

    if (!progress->begun) {
        progress->begun = true;
        progress->start = done;
        progress->start_ns = now;
        return;
    }
    if (ms < QUIET_MS || (!progress->terminal && now - progress->said_ns < LINE_MS * 1000000ull))
        return;
    /* A hole that was passed over counts as fast as it was: the rate is of the disk, not of bytes
     * that were moved. */
    double rate = (double)(done - progress->start) * 1000 / (double)ms;
    progress->said_ns = now;
    progress_format(text, sizeof(text), progress->what, done, total, rate,
                    progress->terminal ? find_columns() : 0);
    if (progress->terminal)
        draw(progress, text);
    else
        log_info("%s", text);
}

void progress_end(struct progress *progress)
{
    if (progress->drawn > 0)
        fprintf(stderr, "\r%*s\r", (int)progress->drawn, "");
    progress->drawn = 0;
}
