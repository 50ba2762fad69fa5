/* SPDX-License-Identifier: MIT */
/* The lines of journal.jsonl, for journal*.c alone. */
#pragma once

#include "vmm/journal.h"
#include <jansson.h>
#include <sys/stat.h>

enum { JOURNAL_MAX_LINE = 4096 };

enum journal_event {
    JOURNAL_START = 1,
    JOURNAL_STOP,
    JOURNAL_CRASH,
    JOURNAL_LOST,
    JOURNAL_PAUSE,
    JOURNAL_PROTECTED,
    JOURNAL_ALONE,
    JOURNAL_SOLO,
    JOURNAL_UNPROTECTED,
    JOURNAL_TAKEOVER,
    JOURNAL_OUTPUT,
    JOURNAL_DEPOSED,
    JOURNAL_CLOCK,
};

struct journal_line {
    enum journal_event event;
    double at; /* finite, not negative */
    /* Of those events that have them; finite, not negative, in seconds. */
    double pause, silent, held, gap, detect, ran, protected;
    char boot[JOURNAL_BOOT + 1]; /* ""; by the wall clock alone */
    double since_boot;
    json_int_t pid; /* of a start; 0: it does not say */
    bool planned;   /* a takeover, or a stop: it went to another host on purpose */
    bool deposed;   /* a stop: another host had it already */
};

/* False: no line of a journal, or of an event that is not known here. */
bool journal_parse_line(const char *text, size_t length, struct journal_line *ret_line) must_check;

struct journal_tail {
    bool running;   /* the last run has begun, and not ended */
    bool torn;      /* the last line has no end */
    double last_at; /* of the last line that says when; or 0 */
};

/* Reads from the end, as much as it takes and no more than a MiB. */
int journal_read_tail(int fd, off_t size, struct journal_tail *ret_tail) must_check;

double journal_file_time(const struct stat *stat); /* of its last change, seconds since 1970 */
