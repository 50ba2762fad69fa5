/* SPDX-License-Identifier: MIT */
/*
 * The arithmetic of availability. One walk over the lines, which are in the order of their writing:
 * that is what counts where the clock was set back.
 */
#include "vmm/folder.h"
#include "vmm/journal_lines.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum state { UNKNOWN, UP, DOWN, ASKED_DOWN };

struct walk {
    struct journal_report report;
    enum state state;
    double since; /* the state is counted up to here */
    bool begun;   /* a line with a time that can be was there */
    double first; /* the earliest of these times */
};

/* How much of the time between the two is in the period. */
static double in_period(const struct walk *walk, double begin, double end)
{
    begin = begin > walk->report.from ? begin : walk->report.from;
    end = end < walk->report.to ? end : walk->report.to;
    return end > begin ? end - begin : 0;
}

static void count_until(struct walk *walk, double at)
{
    double time = in_period(walk, walk->since, at);

    if (walk->state == UP)
        walk->report.up += time;
    else if (walk->state == DOWN)
        walk->report.down += time;
    else if (walk->state == ASKED_DOWN)
        walk->report.asked_down += time;
    walk->since = at;
}

/* A failure is one of what ran; after a crash, a loss says nothing new. */
static void fail(struct walk *walk, bool counts)
{
    if (walk->state != UP && walk->state != UNKNOWN)
        return;
    walk->state = DOWN;
    walk->report.failures += counts;
}

static void take_pause(struct walk *walk, const struct journal_line *line, double at, bool counts)
{
    double begin = at - line->ms / 1000;

    walk->report.pauses += counts;
    if (walk->state == UP) /* a pause cannot have begun before what it was part of */
        walk->report.paused += in_period(walk, begin > walk->since ? begin : walk->since, at);
}

static void take_line(struct walk *walk, const struct journal_line *line)
{
    struct journal_report *report = &walk->report;
    /* What is yet to come was written by a clock that was wrong. */
    bool wrong = line->at > report->to;
    double at = !wrong ? line->at : walk->begun ? walk->since : report->to;
    bool counts = at >= report->from;

    if (!wrong && !walk->begun)
        walk->since = walk->first = at;
    if (!wrong && at < walk->first)
        walk->first = at;
    walk->begun = walk->begun || !wrong;
    if (line->event == JOURNAL_PAUSE)
        take_pause(walk, line, at, counts);
    count_until(walk, at);
    switch (line->event) {
    case JOURNAL_START:
        walk->state = UP;
        report->starts += counts;
        break;
    case JOURNAL_STOP:
        /* What crashed is down until it starts, whoever tidies up after it. */
        if (walk->state != DOWN)
            walk->state = ASKED_DOWN;
        report->stops += counts;
        break;
    case JOURNAL_CRASH:
    case JOURNAL_LOST:
        fail(walk, counts);
        break;
    case JOURNAL_PAUSE:
        break;
    }
}

/* Lines too long to be ours are read to their end and passed over, as is the last if it is torn. */
static void read_lines(FILE *file, struct walk *walk)
{
    char text[JOURNAL_MAX_LINE + 1];
    struct journal_line line;
    bool whole = true;

    while (fgets(text, sizeof(text), file)) {
        size_t length = strlen(text);
        bool ends = length > 0 && text[length - 1] == '\n';
        if (whole && ends && journal_parse_line(text, length, &line))
            take_line(walk, &line);
        whole = ends;
    }
}

/* Until now, or until the last sign of life of what has died without a word. */
static void close_open_end(struct walk *walk, const struct stat *stat, bool running)
{
    struct journal_report *report = &walk->report;

    if (walk->state == UP && !running) {
        double life = journal_file_time(stat);
        life = life > walk->since ? life : walk->since;
        life = life < report->to ? life : report->to;
        count_until(walk, life);
        fail(walk, life >= report->from);
    }
    count_until(walk, report->to);
}

static void compute(struct journal_report *report)
{
    report->mttf = report->mttr = report->mtbf = report->availability = NAN;
    if (report->failures > 0) {
        report->mttf = report->up / report->failures;
        report->mttr = report->down / report->failures;
        report->mtbf = report->mttf + report->mttr;
    }
    if (report->up + report->down > 0)
        report->availability = report->up / (report->up + report->down);
}

/* A FILE of a plain file; *ret_file NULL: there is none. */
static int open_lines(int folder_fd, FILE **ret_file, struct stat *ret_stat, struct err *err)
{
    int flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
    int fd = openat(folder_fd, FOLDER_JOURNAL, flags);
    int r = 0;

    if (fd < 0 && errno == ENOENT) {
        *ret_file = NULL;
        return 0;
    }
    if (fd < 0 || fstat(fd, ret_stat) < 0)
        r = err_sys(err, ERR_FAILED, errno, "cannot read " FOLDER_JOURNAL);
    else if (!S_ISREG(ret_stat->st_mode))
        r = err_say(err, ERR_FAILED, EINVAL, FOLDER_JOURNAL " is no plain file");
    FILE *file = r == 0 ? fdopen(fd, "re") : NULL;
    if (r == 0 && !file)
        r = err_sys(err, ERR_FAILED, ENOMEM, "cannot read " FOLDER_JOURNAL);
    if (r < 0 && fd >= 0)
        close(fd);
    if (r == 0)
        *ret_file = file;
    return r;
}

int journal_report(int folder_fd, double from, double now, bool running,
                   struct journal_report *ret_report, struct err *err)
{
    struct walk walk = {.report = {.from = from < now ? from : now, .to = now}};
    FILE *file = NULL;
    struct stat stat;

    int r = open_lines(folder_fd, &file, &stat, err);
    if (r < 0)
        return r;
    if (file) {
        read_lines(file, &walk);
        bool failed = ferror(file) != 0;
        fclose(file);
        if (failed)
            return err_sys(err, ERR_FAILED, EIO, "cannot read " FOLDER_JOURNAL);
    }
    if (walk.begun)
        close_open_end(&walk, &stat, running);
    else
        walk.first = now;
    if (walk.report.from < walk.first)
        walk.report.from = walk.first;
    compute(&walk.report);
    *ret_report = walk.report;
    return 0;
}
