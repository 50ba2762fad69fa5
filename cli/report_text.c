/* SPDX-License-Identifier: MIT */
#include "cli/report_text.h"

#include "cli/table.h"
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

static void format_time(double at, char *ret_text, size_t size)
{
    time_t seconds = (time_t)at;
    struct tm parts;

    if (!localtime_r(&seconds, &parts) || !strftime(ret_text, size, "%Y-%m-%d %H:%M", &parts))
        snprintf(ret_text, size, "%.0f", at);
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

static void print_mean(FILE *to, const char *name, double mean, const char *what)
{
    if (isnan(mean))
        print_item(to, name, "too few failures to tell", what);
    else
        print_duration(to, name, mean, what);
}

void report_print(FILE *to, const char *name, const struct journal_report *report, bool running)
{
    char from[TEXT], until[TEXT], text[2 * TEXT + 32];

    format_time(report->from, from, sizeof(from));
    format_time(report->to, until, sizeof(until));
    snprintf(text, sizeof(text), "%s to %s", from, until);
    print_item(to, "name", name, NULL);
    print_item(to, "state", running ? "running" : "stopped", NULL);
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
    snprintf(text, sizeof(text), "%u", report->failures);
    print_item(to, "failures", text, NULL);
    print_mean(to, "MTBF", report->mtbf, "from failure to failure");
    print_mean(to, "MTTF", report->mttf, "it ran until one");
    print_mean(to, "MTTR", report->mttr, "until it ran again");
}

/* --- for programs ----------------------------------------------------------------------------- */

static json_t *number_of(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

json_t *report_to_json(const char *name, const struct journal_report *report, bool running)
{
    int nines = report_count_nines(report->availability);
    bool told = !isnan(report->availability) && nines >= 0;

    return json_pack("{ss, sb, so, so, so, so, so, so, sI, sI, sI, sI, so, so, so, so, so}", "name",
                     name, "running", (int)running, "from", number_of(report->from), "to",
                     number_of(report->to), "up", number_of(report->up), "down",
                     number_of(report->down), "asked_down", number_of(report->asked_down), "paused",
                     number_of(report->paused), "starts", (json_int_t)report->starts, "stops",
                     (json_int_t)report->stops, "failures", (json_int_t)report->failures, "pauses",
                     (json_int_t)report->pauses, "mtbf", number_of(report->mtbf), "mttf",
                     number_of(report->mttf), "mttr", number_of(report->mttr), "availability",
                     number_of(report->availability), "nines",
                     told ? json_integer(nines) : json_null());
}
