/* SPDX-License-Identifier: MIT */
/*
 * The arithmetic of availability. A first look at the lines finds when each boot of a host was,
 * then one walk over them, which are in the order of their writing: that is what counts where the
 * clock of old lines was set back.
 */
#include "vmm/folder.h"
#include "vmm/journal_lines.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* GONE: it died, and its twin may have gone on. AWAY: another host had it. */
enum state { UNKNOWN, UP, DOWN, ASKED_DOWN, GONE, AWAY };

enum { BOOTS = 256 }; /* of which is remembered when they were, the last ones */

/* What time of day it was when a host booted, as its last line has it: a clock that was wrong at
 * first was set right then. */
struct boot {
    char name[JOURNAL_BOOT + 1];
    double born;
};

struct walk {
    struct journal_report report;
    struct boot boots[BOOTS];
    unsigned boot_count;
    enum state state;
    double since;    /* the state is counted up to here */
    double up_since; /* it is UP, or was, from here */
    bool begun;      /* a line with a time that can be was there */
    double first;    /* the earliest of these times */
    double outage;   /* it is DOWN for so long in the period */
    double gone;     /* GONE so long in the period */
    bool gone_counts;

    /* Of its protection, while it runs. */
    bool wanted, paired;
    bool shared;      /* another host may have been told to go on */
    bool fresh;       /* a line since the last run's end says that somebody wants it */
    bool taken;       /* the next start is a takeover's */
    json_int_t pid;   /* of the last start */
    double stretch;   /* unprotected so long, in the period */
    double gap_total; /* of takeovers */
};

/* --- spans ------------------------------------------------------------------------------------ */

/* How much of the time between the two is in the period. */
static double in_period(const struct walk *walk, double begin, double end)
{
    begin = begin > walk->report.from ? begin : walk->report.from;
    end = end < walk->report.to ? end : walk->report.to;
    return end > begin ? end - begin : 0;
}

static double larger(double one, double other)
{
    return one > other || isnan(other) ? one : other;
}

static void count_up(struct walk *walk, double time)
{
    struct journal_report *report = &walk->report;
    report->up += time;
    if (walk->paired) {
        report->protected += time;
    } else if (walk->wanted) {
        report->unprotected += time;
        walk->stretch += time;
        report->unprotected_longest = larger(walk->stretch, report->unprotected_longest);
    }
}

static void count_until(struct walk *walk, double at)
{
    struct journal_report *report = &walk->report;
    double time = in_period(walk, walk->since, at);

    switch (walk->state) {
    case UP:
        count_up(walk, time);
        break;
    case DOWN:
        report->down += time;
        walk->outage += time;
        report->worst = larger(walk->outage, report->worst);
        break;
    case ASKED_DOWN:
        report->asked_down += time;
        break;
    case GONE:
        walk->gone += time;
        report->elsewhere += time;
        break;
    case AWAY:
        report->elsewhere += time;
        break;
    case UNKNOWN:
        break;
    }
    walk->since = at;
}

static void begin_up(struct walk *walk, double at)
{
    walk->state = UP;
    walk->up_since = at;
}

static void begin_down(struct walk *walk, enum state state)
{
    walk->state = state;
    walk->outage = walk->gone = 0;
}

/* What was counted as up at last, and was not; returns how much of the period that is. */
static double take_back(struct walk *walk, double held, double at)
{
    double begin = at - held;
    if (walk->state != UP)
        return 0;
    double time = in_period(walk, begin > walk->up_since ? begin : walk->up_since, at);
    time = time < walk->report.up ? time : walk->report.up;
    walk->report.up -= time;
    return time;
}

/* --- what happened ---------------------------------------------------------------------------- */

/* A failure is one of what ran; after a crash, a loss says nothing new. */
static void fail(struct walk *walk, bool shared, bool counts)
{
    if (walk->state != UP && walk->state != UNKNOWN)
        return;
    begin_down(walk, shared ? GONE : DOWN);
    walk->report.failures += counts;
    walk->gone_counts = shared && counts;
    walk->report.sightless += walk->gone_counts;
}

static void take_pause(struct walk *walk, const struct journal_line *line, double at, bool counts)
{
    double begin = at - line->pause;

    walk->report.pauses += counts;
    if (walk->state == UP) /* a pause cannot have begun before what it was part of */
        walk->report.paused += in_period(walk, begin > walk->up_since ? begin : walk->up_since, at);
}

/* Whoever starts without a takeover had it all the time: it was down. */
static void find_again(struct walk *walk)
{
    struct journal_report *report = &walk->report;
    report->elsewhere -= walk->gone;
    report->down += walk->gone;
    report->worst = larger(walk->gone, report->worst);
    report->sightless -= walk->gone_counts;
    walk->gone_counts = false;
}

static void take_start(struct walk *walk, const struct journal_line *line, double at, bool counts)
{
    if (walk->state == GONE)
        find_again(walk);
    /* One process may start its guest again, and is protected as it was. */
    if (line->pid != walk->pid && !walk->fresh)
        walk->wanted = walk->paired = walk->shared = false;
    if (walk->state != UP)
        begin_up(walk, at);
    walk->report.starts += counts && !walk->taken;
    walk->pid = line->pid;
    walk->fresh = walk->taken = false;
}

static void take_stop(struct walk *walk, const struct journal_line *line, bool counts)
{
    bool goes = (line->planned || line->deposed) && walk->state == UP;
    if (walk->state == AWAY)
        return; /* "deposed" has said why */
    if (goes) {
        walk->report.switchovers += counts && line->planned;
        walk->report.failures += counts && line->deposed;
        walk->report.sightless += counts && line->deposed;
        walk->state = AWAY;
        return;
    }
    /* What crashed is down until it starts, whoever tidies up after it. */
    if (walk->state != DOWN && walk->state != GONE)
        walk->state = ASKED_DOWN;
    walk->report.stops += counts;
}

/* Until it was given up elsewhere it was protected, and nothing of what it did since was seen. */
static void take_deposed(struct walk *walk, const struct journal_line *line, double at, bool counts)
{
    struct journal_report *report = &walk->report;
    if (walk->state != UP)
        return;
    double time = take_back(walk, line->held, at);
    report->elsewhere += time;
    report->protected -= time < report->protected ? time : report->protected;
    report->failures += counts;
    report->sightless += counts;
    walk->state = AWAY;
}

static void note_gap(struct walk *walk, const struct journal_line *line, double gap)
{
    struct journal_report *report = &walk->report;
    if (line->planned) {
        report->switchovers++;
        report->switch_worst = larger(gap, report->switch_worst);
    } else {
        report->takeovers++;
        report->failures++;
        report->gap_worst = larger(gap, report->gap_worst);
        report->detect_worst = larger(line->detect, report->detect_worst);
        walk->gap_total += gap;
    }
}

/* The first moment of which it tells: since then it ran elsewhere, as far as its twin knew. */
static double begin_of(const struct journal_line *line, double at)
{
    double ran = line->ran > line->gap ? line->ran : line->gap;
    return ran < at ? at - ran : 0;
}

static void take_takeover(struct walk *walk, const struct journal_line *line, double at,
                          bool counts)
{
    double begin = begin_of(line, at);
    begin = begin > walk->since ? begin : walk->since;
    count_until(walk, begin);
    if (walk->state != UP)
        begin_up(walk, begin);
    double gap = line->gap < at - begin ? line->gap : at - begin;
    double twin = line->protected < at - begin ? line->protected : at - begin;
    walk->wanted = true;
    walk->paired = false;
    if (twin > gap)
        count_until(walk, at - twin);
    walk->paired = true;
    walk->stretch = 0;
    count_until(walk, at - gap);
    walk->paired = walk->shared = false;
    if (line->planned)
        walk->report.paused += in_period(walk, at - gap, at);
    else
        begin_down(walk, DOWN);
    if (counts)
        note_gap(walk, line, gap);
    count_until(walk, at);
    walk->fresh = walk->taken = true;
}

static void take_alone(struct walk *walk, const struct journal_line *line, double at, bool counts)
{
    double begin = at - line->silent;
    begin = begin > walk->up_since ? begin : walk->up_since;
    double time = walk->state == UP && walk->paired ? in_period(walk, begin, at) : 0;
    time = time < walk->report.protected ? time : walk->report.protected;
    walk->report.protected -= time; /* it was not, since then */
    walk->report.unprotected += time;
    walk->stretch = time;
    walk->report.unprotected_longest = larger(time, walk->report.unprotected_longest);
    walk->paired = false;
    walk->report.twins_lost += counts;
}

static void take_solo(struct walk *walk, const struct journal_line *line, double at)
{
    double time = take_back(walk, line->held, at);
    walk->report.down += time;
    walk->report.held += time;
    walk->wanted = walk->fresh = true;
    walk->paired = walk->shared = false;
}

static void take_protected(struct walk *walk)
{
    walk->wanted = walk->paired = walk->shared = true;
    walk->stretch = 0;
}

static void take_unprotected(struct walk *walk)
{
    walk->wanted = walk->paired = walk->shared = false;
    walk->stretch = 0;
}

static void take_event(struct walk *walk, const struct journal_line *line, double at, bool counts)
{
    struct journal_report *report = &walk->report;
    switch (line->event) {
    case JOURNAL_START:
        take_start(walk, line, at, counts);
        break;
    case JOURNAL_STOP:
        walk->fresh = false;
        take_stop(walk, line, counts);
        break;
    case JOURNAL_CRASH:
        walk->fresh = false;
        fail(walk, false, counts);
        break;
    case JOURNAL_LOST:
        walk->fresh = false;
        fail(walk, walk->shared, counts);
        break;
    case JOURNAL_PROTECTED:
        take_protected(walk);
        break;
    case JOURNAL_ALONE:
        take_alone(walk, line, at, counts);
        break;
    case JOURNAL_SOLO:
        take_solo(walk, line, at);
        break;
    case JOURNAL_UNPROTECTED:
        take_unprotected(walk);
        break;
    case JOURNAL_OUTPUT:
        if (counts)
            report->silence_worst = larger(line->silent, report->silence_worst);
        break;
    case JOURNAL_DEPOSED:
        take_deposed(walk, line, at, counts);
        break;
    case JOURNAL_PAUSE:
    case JOURNAL_TAKEOVER:
    case JOURNAL_CLOCK:
        break;
    }
}

/* --- which clock ------------------------------------------------------------------------------ */

static struct boot *find_boot(struct walk *walk, const char *name)
{
    unsigned least = walk->boot_count > BOOTS ? walk->boot_count - BOOTS : 0;
    for (unsigned i = walk->boot_count; i > least; i--)
        if (strcmp(walk->boots[(i - 1) % BOOTS].name, name) == 0)
            return &walk->boots[(i - 1) % BOOTS];
    return NULL;
}

/* What is yet to come says nothing of the present's clock. */
static void note_boot(struct walk *walk, const struct journal_line *line)
{
    if (!line->boot[0] || line->at > walk->report.to)
        return;
    struct boot *boot = find_boot(walk, line->boot);
    if (!boot)
        boot = &walk->boots[walk->boot_count++ % BOOTS];
    memcpy(boot->name, line->boot, sizeof(boot->name));
    boot->born = line->at - line->since_boot;
}

static double time_of(struct walk *walk, const struct journal_line *line)
{
    const struct boot *boot = line->boot[0] ? find_boot(walk, line->boot) : NULL;
    return boot ? boot->born + line->since_boot : line->at;
}

/* --- lines ------------------------------------------------------------------------------------ */

static void take_line(struct walk *walk, const struct journal_line *written)
{
    struct journal_report *report = &walk->report;
    struct journal_line copy = *written, *line = &copy;
    if (line->event == JOURNAL_CLOCK)
        return;
    line->at = time_of(walk, line);
    /* What is yet to come was written by a clock that was wrong. */
    bool wrong = line->at > report->to;
    double at = !wrong ? line->at : walk->begun ? walk->since : report->to;
    double begin = line->event == JOURNAL_TAKEOVER ? begin_of(line, at) : at;
    bool counts = at >= report->from;

    if (!wrong && !walk->begun)
        walk->since = walk->first = begin;
    if (!wrong && at < walk->first)
        walk->first = at;
    walk->begun = walk->begun || !wrong;
    if (line->event == JOURNAL_PAUSE)
        take_pause(walk, line, at, counts);
    if (line->event == JOURNAL_TAKEOVER) {
        take_takeover(walk, line, at, counts);
        return;
    }
    count_until(walk, at);
    take_event(walk, line, at, counts);
}

/* --- all of them ------------------------------------------------------------------------------ */

/* Lines too long to be ours are read to their end and passed over, as is the last if it is torn. */
static void read_lines(FILE *file, struct walk *walk,
                       void (*take)(struct walk *walk, const struct journal_line *line))
{
    char text[JOURNAL_MAX_LINE + 1];
    struct journal_line line;
    bool whole = true;

    while (fgets(text, sizeof(text), file)) {
        size_t length = strlen(text);
        bool ends = length > 0 && text[length - 1] == '\n';
        if (whole && ends && journal_parse_line(text, length, &line))
            take(walk, &line);
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
        fail(walk, walk->shared, life >= report->from);
    }
    count_until(walk, report->to);
}

static void compute(struct walk *walk)
{
    struct journal_report *report = &walk->report;
    unsigned mended = report->failures - report->sightless;
    report->mttf = report->mttr = report->mtbf = report->availability = report->gap = NAN;
    if (report->failures > 0)
        report->mttf = report->up / report->failures;
    if (mended > 0)
        report->mttr = (report->down - report->held) / mended;
    report->mtbf = report->mttf + report->mttr;
    if (report->takeovers > 0)
        report->gap = walk->gap_total / report->takeovers;
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
    struct walk walk = {.report = {.from = from < now ? from : now,
                                   .to = now,
                                   .gap_worst = NAN,
                                   .detect_worst = NAN,
                                   .silence_worst = NAN,
                                   .switch_worst = NAN}};
    FILE *file = NULL;
    struct stat stat;

    int r = open_lines(folder_fd, &file, &stat, err);
    if (r < 0)
        return r;
    if (file) {
        read_lines(file, &walk, note_boot);
        bool failed = ferror(file) != 0; /* which rewind() forgets */
        rewind(file);
        read_lines(file, &walk, take_line);
        failed |= ferror(file) != 0;
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
    compute(&walk);
    *ret_report = walk.report;
    return 0;
}
