/* SPDX-License-Identifier: MIT */
#include "cli/report_text.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MOST_NINES = 9, TEXT = 64 };

/* --- --since ---------------------------------------------------------------------------------- */

static int bad_since(const char *text, struct err *err)
{
    int ret = err_say(err, ERR_USAGE, EINVAL, "--since %s is no time", text);
    err_hint(err, "a while ago: 30d, 12h, 90min, 2w; or a day: 2026-01-01");
    return ret;
}

/* The day's own midnight, be it summer or winter time then. */
static bool parse_day(const char *text, double *ret_from)
{
    struct tm day = {.tm_isdst = -1}, before;
    char *end = strptime(text, "%Y-%m-%d", &day);

    if (!end || *end || strlen(text) != 10)
        return false;
    day.tm_isdst = -1;
    before = day;
    time_t at = mktime(&day);
    /* mktime makes the second of March of the thirtieth of February. */
    if (at == (time_t)-1 || day.tm_mday != before.tm_mday || day.tm_mon != before.tm_mon)
        return false;
    *ret_from = (double)at;
    return true;
}

static bool parse_ago(const char *text, double now, double *ret_from)
{
    static const struct {
        const char *name;
        unsigned seconds;
    } units[] = {{"s", 1}, {"min", 60}, {"h", 3600}, {"d", 86400}, {"w", 7 * 86400}};
    char *end;

    if (!isdigit((unsigned char)text[0]))
        return false;
    errno = 0;
    unsigned long number = strtoul(text, &end, 10);
    for (size_t i = 0; i < array_size(units); i++) {
        if (strcmp(end, units[i].name) != 0 || errno || number == 0 || number > 1000000000)
            continue;
        double from = now - (double)number * units[i].seconds;
        *ret_from = from < 1 ? 1 : from; /* 0 would be: since the first line */
        return true;
    }
    return false;
}

int report_parse_since(const char *text, double now, double *ret_from, struct err *err)
{
    double from;

    if (!parse_ago(text, now, &from) && !parse_day(text, &from))
        return bad_since(text, err);
    if (from >= now) {
        int ret = err_say(err, ERR_USAGE, EINVAL, "--since %s is yet to come", text);
        return ret;
    }
    *ret_from = from;
    return 0;
}

/* --- for people ------------------------------------------------------------------------------- */

int report_count_nines(double availability)
{
    double rest = 1 - availability, limit = 0.1;
    int nines = 0;

    if (isnan(availability) || rest < 0)
        return 0;
    if (rest == 0)
        return -1;
    /* 1 - 0.999 is a little more than 0.001. */
    while (nines < MOST_NINES && rest <= limit * (1 + 1e-9)) {
        nines++;
        limit /= 10;
    }
    return nines;
}

/* As many digits as it takes to see the first that is no nine; never rounded up to 100. */
static void format_availability(double availability, char *ret_text, size_t size)
{
    int nines = report_count_nines(availability);

    if (isnan(availability)) {
        snprintf(ret_text, size, "it has not run");
    } else if (nines < 0) {
        snprintf(ret_text, size, "100 %%");
    } else {
        int digits = nines < 2 ? 2 : nines;
        double percent = availability * 100, steps = 1;
        for (int i = 0; i < digits; i++)
            steps *= 10;
        /* Cut off; but 99.9 is a little less than that, and would be 99.89. */
        double shown = (double)(uint64_t)(percent * steps + 1e-4) / steps;
        snprintf(ret_text, size, "%.*f %% (%d nine%s)", digits, shown, nines,
                 nines == 1 ? "" : "s");
    }
}

static void print_item(FILE *to, const char *name, const char *text, const char *what)
{
    if (what)
        fprintf(to, "%-14s %-24s  %s\n", name, text, what);
    else
        fprintf(to, "%-14s %s\n", name, text);
}

static void print_duration(FILE *to, const char *name, double seconds, const char *what)
{
    char text[TEXT];

    format_duration(seconds, text, sizeof(text));
    print_item(to, name, text, what);
}

/* Gaps are short, and their first digits are what counts. */
static void format_gap(double seconds, char *ret_text, size_t size)
{
    if (isnan(seconds))
        snprintf(ret_text, size, "-");
    else if (seconds < 1)
        snprintf(ret_text, size, "%.0f ms", seconds * 1000);
    else if (seconds < 60)
        snprintf(ret_text, size, "%.1f s", seconds);
    else
        format_duration(seconds, ret_text, size);
}

static void print_mean(FILE *to, const char *name, double mean, const char *what)
{
    char text[TEXT];

    format_gap(mean, text, sizeof(text));
    print_item(to, name, isnan(mean) ? "too few failures to tell" : text, what);
}

/* "2 takeovers"; one is none of many. */
static void format_count(unsigned count, const char *of, char *ret_text, size_t size)
{
    snprintf(ret_text, size, "%u %s%s", count, of, count == 1 ? "" : "s");
}

static void print_failures(FILE *to, const struct journal_report *report)
{
    char number[TEXT], takeovers[TEXT], text[3 * TEXT] = "";

    snprintf(number, sizeof(number), "%u", report->failures);
    format_count(report->takeovers, "takeover", takeovers, sizeof(takeovers));
    if (report->takeovers || report->sightless)
        snprintf(text, sizeof(text), "%s; %u of which another host knows the end", takeovers,
                 report->sightless);
    print_item(to, "failures", number, text[0] ? text : NULL);
    print_mean(to, "MTBF", report->mtbf, "from failure to failure");
    print_mean(to, "MTTF", report->mttf, "it ran until one");
    print_mean(to, "MTTR", report->mttr, "until it ran again");
    if (report->worst > 0)
        print_mean(to, "longest", report->worst, "that it was down");
}

static void print_takeovers(FILE *to, const struct journal_report *report)
{
    char mean[TEXT], worst[TEXT], detect[TEXT], text[4 * TEXT];

    format_gap(report->gap, mean, sizeof(mean));
    format_gap(report->gap_worst, worst, sizeof(worst));
    format_gap(report->detect_worst, detect, sizeof(detect));
    if (report->takeovers) {
        snprintf(text, sizeof(text), "mean; at most %s, of that %s until the host was given up",
                 worst, detect);
        print_item(to, "takeover gap", mean, text);
    }
    if (!isnan(report->silence_worst)) {
        format_gap(report->silence_worst, text, sizeof(text));
        print_item(to, "silence", text, "at most, until the guest's first frame came from here");
    }
    if (report->switchovers) {
        format_gap(report->switch_worst, worst, sizeof(worst));
        format_count(report->switchovers, "switchover", mean, sizeof(mean));
        snprintf(text, sizeof(text), "gap %s at most, of those to here", worst);
        print_item(to, "on purpose", mean, isnan(report->switch_worst) ? NULL : text);
    }
}

/* Of the time that it ran and somebody wanted it to be protected; NAN: there was none. */
static double unprotected_share(const struct journal_report *report)
{
    double all = report->protected + report->unprotected;
    return all > 0 ? report->unprotected / all : NAN;
}

static void print_protection(FILE *to, const struct journal_report *report)
{
    char longest[TEXT], text[4 * TEXT], losses[TEXT];
    double share = unprotected_share(report);

    if (report->elsewhere > 0)
        print_duration(to, "elsewhere", report->elsewhere, "another host may know; not counted");
    if (report->held > 0)
        print_mean(to, "output held", report->held, "of the downtime; its twin was gone");
    print_takeovers(to, report);
    if (isnan(share))
        return;
    print_duration(to, "protected", report->protected, "a twin could go on");
    format_gap(report->unprotected, text, sizeof(text));
    snprintf(text + strlen(text), sizeof(text) - strlen(text), " (%.3f %%)", share * 100);
    format_gap(report->unprotected_longest, longest, sizeof(longest));
    format_count(report->twins_lost, "twin", losses, sizeof(losses));
    char words[4 * TEXT];
    snprintf(words, sizeof(words), "%s at a stretch; %s lost", longest, losses);
    print_item(to, "unprotected", text, words);
}

void report_print(FILE *to, const char *name, const struct journal_report *report,
                  enum report_state state)
{
    static const char *const states[] = {"stopped", "running", "a twin: it runs elsewhere"};
    char from[TEXT], until[TEXT], text[2 * TEXT + 32];

    format_time(report->from, false, from, sizeof(from));
    format_time(report->to, false, until, sizeof(until));
    snprintf(text, sizeof(text), "%s to %s", from, until);
    print_item(to, "name", name, NULL);
    print_item(to, "state", states[state], NULL);
    print_item(to, "period", text, NULL);
    format_availability(report->availability, text, sizeof(text));
    print_item(to, "availability", text, NULL);
    print_duration(to, "uptime", report->up, NULL);
    print_duration(to, "downtime", report->down, "it should have run");
    print_duration(to, "asked downtime", report->asked_down, "somebody wanted it off");
    snprintf(text, sizeof(text), "%u start%s, %u stop%s", report->starts,
             report->starts == 1 ? "" : "s", report->stops, report->stops == 1 ? "" : "s");
    print_item(to, "runs", text, NULL);
    snprintf(text, sizeof(text), "%u, %.1f s", report->pauses, report->paused);
    print_item(to, "pauses", text, "of more than 100 ms");
    print_failures(to, report);
    print_protection(to, report);
}

void report_begin_table(struct table *table)
{
    static const char *const header[] = {"NAME",      "AVAILABILITY", "FAILURES",
                                         "TAKEOVERS", "SWITCHOVERS",  "MTTR",
                                         "LONGEST",   "UNPROTECTED",  NULL};
    table_init(table, header);
}

void report_add_row(struct table *table, const char *name, const struct journal_report *report)
{
    char text[2 * TEXT];
    double share = unprotected_share(report);

    table_add(table, name);
    format_availability(report->availability, text, sizeof(text));
    table_add(table, isnan(report->availability) ? "-" : text);
    table_addf(table, "%u", report->failures);
    table_addf(table, "%u", report->takeovers);
    table_addf(table, "%u", report->switchovers);
    format_gap(report->mttr, text, sizeof(text));
    table_add(table, text);
    format_gap(report->worst > 0 ? report->worst : NAN, text, sizeof(text));
    table_add(table, text);
    if (isnan(share))
        table_add(table, "-");
    else
        table_addf(table, "%.3f %%", share * 100);
}

/* --- for programs ----------------------------------------------------------------------------- */

static json_t *number_of(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

/* What a VM that was never protected has as nothings, too: programs need not ask. */
static json_t *protection_of(const struct journal_report *report)
{
    double share = unprotected_share(report);
    return json_pack(
        "{sI, sI, sI, sI, so, so, so, so, so, so, so, so, so, so, so}", "takeovers",
        (json_int_t)report->takeovers, "switchovers", (json_int_t)report->switchovers, "twins_lost",
        (json_int_t)report->twins_lost, "ends_unknown", (json_int_t)report->sightless, "gap",
        number_of(report->gap), "gap_worst", number_of(report->gap_worst), "detection_worst",
        number_of(report->detect_worst), "silence_worst", number_of(report->silence_worst),
        "switchover_worst", number_of(report->switch_worst), "held", number_of(report->held),
        "elsewhere", number_of(report->elsewhere), "protected", number_of(report->protected),
        "unprotected", number_of(report->unprotected), "unprotected_longest",
        number_of(report->unprotected_longest), "unprotected_percent", number_of(share * 100));
}

json_t *report_to_json(const char *name, const struct journal_report *report,
                       enum report_state state)
{
    static const char *const states[] = {"stopped", "running", "twin"};
    int nines = report_count_nines(report->availability);
    bool told = !isnan(report->availability) && nines >= 0;

    return json_pack(
        "{ss, sb, ss, so, so, so, so, so, so, sI, sI, sI, sI, so, so, so, so, so, so, so}", "name",
        name, "running", (int)(state == REPORT_RUNNING), "state", states[state], "from",
        number_of(report->from), "to", number_of(report->to), "up", number_of(report->up), "down",
        number_of(report->down), "asked_down", number_of(report->asked_down), "paused",
        number_of(report->paused), "starts", (json_int_t)report->starts, "stops",
        (json_int_t)report->stops, "failures", (json_int_t)report->failures, "pauses",
        (json_int_t)report->pauses, "mtbf", number_of(report->mtbf), "mttf",
        number_of(report->mttf), "mttr", number_of(report->mttr), "worst", number_of(report->worst),
        "availability", number_of(report->availability), "nines",
        told ? json_integer(nines) : json_null(), "protection", protection_of(report));
}
