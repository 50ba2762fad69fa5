/* SPDX-License-Identifier: MIT */
/* minivmm report: how available a VM was, by its journal. */
#include "cli/place.h"
#include "cli/report_text.h"
#include "cli/verbs.h"
#include "cli/vms.h"
#include "core/clock.h"

#include <errno.h>

enum { REPORT_SINCE, REPORT_JSON, REPORT_HELP };

struct report {
    double now, from; /* 0: since the journal's first line */
    bool json;
};

static int take_report_option(void *ctx, int what, const char *value, struct err *err)
{
    struct report *report = ctx;

    if (what == REPORT_SINCE)
        return report_parse_since(value, report->now, &report->from, err);
    report->json |= what == REPORT_JSON;
    return 0;
}

static int print(const struct report *report, const struct folder *folder, struct err *err)
{
    struct journal_report sums;
    bool running = folder_holder(folder->path) != 0;

    int ret = journal_report(folder->fd, report->from, report->now, running, &sums, err);
    if (ret < 0) {
        err_prefix(err, "%s", folder->name);
        return ret;
    }
    if (!report->json) {
        report_print(stdout, folder->name, &sums, running);
        return 0;
    }
    json_t *json = report_to_json(folder->name, &sums, running);
    if (!json)
        return err_sys(err, ERR_HOST, ENOMEM, "%s", folder->name);
    json_dumpf(json, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
    printf("\n");
    json_decref(json);
    return 0;
}

int verb_report(int argc, char **argv)
{
    static const struct option table[] = {
        [REPORT_SINCE] = {"since", 's', "TIME", "30d, 12h, 2w ago, or a day: 2026-01-01 (all)"},
        [REPORT_JSON] = {"json", 0, NULL, "one JSON object, for programs; times in seconds"},
        [REPORT_HELP] = {"help", 'h', NULL, "this text"},
    };
    struct report report = {.now = (double)clock_wall_ns() / NS_PER_SEC};
    struct folder folder = {.fd = -1, .lock = -1};
    struct err err = {0};
    struct verb_words words = {.verb = "report",
                               .table = table,
                               .count = array_size(table),
                               .examples = "Examples:\n"
                                           "  minivmm report web1\n"
                                           "  minivmm report web1 --since 30d\n"
                                           "  minivmm report web1 --since 2026-01-01 --json\n"
                                           "\n"
                                           "Usage: minivmm report VM [OPTION...]\n"
                                           "\n"
                                           "How available the VM was, by the journal in its "
                                           "folder. A stop that somebody\n"
                                           "asked for is no failure, and the time after it does "
                                           "not count.\n",
                               .take = take_report_option,
                               .ctx = &report,
                               .least = 1,
                               .most = 1,
                               .missing = "of which VM?"};
    int ret = verb_words_read(&words, argc, argv, &err);
    if (ret != 0)
        return ret < 0 ? fail(&err) : 0;
    ret = place_open_vm(&folder, words.words[0], &err);
    if (ret == 0)
        ret = print(&report, &folder, &err);
    folder_close(&folder);
    return ret < 0 ? fail(&err) : 0;
}
