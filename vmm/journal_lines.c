/* SPDX-License-Identifier: MIT */
#include "vmm/journal_lines.h"
#include "core/words.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TAIL_LEAST = 16 << 10, TAIL_MOST = 1 << 20 };

/* False: it is there, and no time. */
static bool take_ms(const json_t *root, const char *key, double *ret_seconds)
{
    const json_t *ms = json_object_get(root, key);
    *ret_seconds = json_number_value(ms) / 1000;
    return isfinite(*ret_seconds) && *ret_seconds >= 0;
}

static bool take_times(const json_t *root, struct journal_line *line)
{
    return take_ms(root, "ms", &line->pause) && take_ms(root, "silent_ms", &line->silent) &&
           take_ms(root, "held_ms", &line->held) && take_ms(root, "gap_ms", &line->gap) &&
           take_ms(root, "detect_ms", &line->detect) && take_ms(root, "ran_ms", &line->ran) &&
           take_ms(root, "protected_ms", &line->protected);
}

/* The words are those of ft/protect.c. */
static void take_words(const json_t *root, struct journal_line *line)
{
    const char *by = json_string_value(json_object_get(root, "by"));
    bool stops = line->event == JOURNAL_STOP && by;
    line->planned = json_is_true(json_object_get(root, "planned")) ||
                    (stops && strcmp(by, "switchover") == 0);
    line->deposed = stops && strcmp(by, "fault tolerance") == 0;
    line->pid = json_integer_value(json_object_get(root, "pid"));
}

/* Only where it makes sense: the wall clock is what there is otherwise. */
static void take_boot(const json_t *root, struct journal_line *line)
{
    const char *boot = json_string_value(json_object_get(root, "boot"));
    const json_t *since = json_object_get(root, "since_boot");
    double seconds = json_number_value(since);
    if (!boot || strlen(boot) > JOURNAL_BOOT || !json_is_number(since) || !(seconds >= 0) ||
        !(seconds <= line->at))
        return;
    memcpy(line->boot, boot, strlen(boot));
    line->since_boot = seconds;
}

bool journal_parse_line(const char *text, size_t length, struct journal_line *ret_line)
{
    static const char *const events[] = {"start",     "stop",    "crash", "lost",        "pause",
                                         "protected", "alone",   "solo",  "unprotected", "takeover",
                                         "output",    "deposed", "clock", NULL};
    struct journal_line line = {0};

    if (length > JOURNAL_MAX_LINE)
        return false;
    json_t *root = json_loadb(text, length, 0, NULL);
    const char *event = json_string_value(json_object_get(root, "event"));
    const json_t *at = json_object_get(root, "at");
    int which = event ? words_find(events, event) : -1;
    line.event = (enum journal_event)(which + 1);
    line.at = json_number_value(at);
    bool good = which >= 0 && json_is_number(at) && isfinite(line.at) && line.at >= 0 &&
                take_times(root, &line);
    if (good) {
        take_words(root, &line);
        take_boot(root, &line);
    }
    json_decref(root);
    if (good)
        *ret_line = line;
    return good;
}

double journal_file_time(const struct stat *stat)
{
    long ms = stat->st_mtim.tv_nsec / 1000000;

    return (double)stat->st_mtim.tv_sec + (double)ms / 1e3;
}

/* What the lines say, the last first. True: nothing before them matters. */
static bool read_backwards(const char *text, size_t length, struct journal_tail *tail)
{
    struct journal_line line;

    while (length > 0) {
        const char *newline = memrchr(text, '\n', length - 1);
        const char *begin = newline ? newline + 1 : text;
        if (journal_parse_line(begin, length - (size_t)(begin - text), &line) &&
            line.event != JOURNAL_CLOCK) {
            tail->last_at = tail->last_at > 0 ? tail->last_at : line.at;
            tail->running = line.event != JOURNAL_STOP && line.event != JOURNAL_CRASH &&
                            line.event != JOURNAL_LOST && line.event != JOURNAL_DEPOSED;
            if (line.event == JOURNAL_START || line.event == JOURNAL_TAKEOVER || !tail->running)
                return true;
        }
        length = (size_t)(begin - text);
    }
    return false;
}

static int read_end(int fd, off_t size, size_t length, char *bytes)
{
    size_t done = 0;

    while (done < length) {
        ssize_t n = pread(fd, bytes + done, length - done, size - (off_t)(length - done));
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n == 0)
            return -EIO; /* it shrinks under us, which has its lock */
        done += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

/* Neither beginning nor end, as far as one looks, is a run that has not ended. */
int journal_read_tail(int fd, off_t size, struct journal_tail *ret_tail)
{
    struct journal_tail tail = {0};
    size_t want = TAIL_LEAST;
    bool done = false;
    int r = 0;

    char *bytes = malloc(TAIL_MOST);
    if (!bytes)
        return -ENOMEM;
    while (r == 0 && !done) {
        size_t length = size < (off_t)want ? (size_t)size : want;
        tail = (struct journal_tail){0};
        r = read_end(fd, size, length, bytes);
        if (r < 0)
            break;
        tail.torn = length > 0 && bytes[length - 1] != '\n';
        done = read_backwards(bytes, length, &tail) || length == (size_t)size || want == TAIL_MOST;
        want *= 4;
    }
    free(bytes);
    if (r == 0)
        *ret_tail = tail;
    return r;
}
