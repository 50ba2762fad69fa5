/* SPDX-License-Identifier: MIT */
/* minivmm report: how available a VM was, by its journal. */
#include "cli/place.h"
#include "cli/report_text.h"
#include "cli/verbs.h"
#include "cli/vms.h"
#include "core/clock.h"
#include "core/log.h"
#include "ft/protection.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>

enum { REPORT_SINCE, REPORT_JSON, REPORT_HELP };
enum { FIND_DEPTH = 3 };

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

/* The process that has the folder may be a twin's. */
static enum report_state state_of(const struct folder *folder)
{
    struct protection protection;
    if (protection_find(&protection, folder, NULL) == 0 && protection.role == PROTECTION_TWIN)
        return REPORT_TWIN;
    return folder_holder(folder->path) != 0 ? REPORT_RUNNING : REPORT_STOPPED;
}

static int read_sums(const struct report *report, const struct folder *folder,
                     enum report_state state, struct journal_report *ret_sums, struct err *err)
{
    int ret = journal_report(folder->fd, report->from, report->now, state == REPORT_RUNNING,
                             ret_sums, err);
    if (ret < 0)
        err_prefix(err, "%s", folder->name);
    return ret;
}

static int print_json(json_t *json, struct err *err)
{
    if (!json)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot make a report");
    json_dumpf(json, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
    printf("\n");
    json_decref(json);
    return 0;
}

static int report_one(const struct report *report, const char *word, struct err *err)
{
    struct folder folder = {.fd = -1, .lock = -1};
    struct journal_report sums;
    int ret = place_open_vm(&folder, word, err);
    if (ret < 0)
        return ret;
    enum report_state state = state_of(&folder);
    ret = read_sums(report, &folder, state, &sums, err);
    if (ret == 0 && report->json)
        ret = print_json(report_to_json(folder.name, &sums, state), err);
    else if (ret == 0)
        report_print(stdout, folder.name, &sums, state);
    folder_close(&folder);
    return ret;
}

/* Each by itself: one whose journal cannot be read hides no other one. */
static int add_one(const struct report *report, const char *path, struct table *table, json_t *rows,
                   struct err *err)
{
    struct folder folder = {.fd = -1, .lock = -1};
    struct journal_report sums;
    int ret = folder_open(&folder, path, err);
    if (ret < 0)
        return ret;
    enum report_state state = state_of(&folder);
    ret = read_sums(report, &folder, state, &sums, err);
    if (ret == 0) {
        report_add_row(table, folder.name, &sums);
        json_array_append_new(rows, report_to_json(folder.name, &sums, state));
    }
    folder_close(&folder);
    return ret;
}

static int report_all(const struct report *report, struct err *err)
{
    char root[PATH_MAX];
    struct table table;
    char **paths;
    size_t count;
    if (!realpath(".", root))
        return err_sys(err, ERR_NOT_FOUND, errno, "cannot look into this folder");
    int ret = folder_find(root, FIND_DEPTH, &paths, &count, err);
    if (ret < 0)
        return ret;
    json_t *rows = json_array();
    report_begin_table(&table);
    for (size_t i = 0; i < count; i++) {
        struct err why = {0};
        if (add_one(report, paths[i], &table, rows, &why) < 0)
            log_err(LOG_WARNING, &why);
    }
    if (report->json)
        ret = print_json(json_incref(rows), err);
    else if (json_array_size(rows) > 0)
        table_print(&table);
    else
        fprintf(stderr, "no VMs in %s\n", root);
    table_finish(&table);
    json_decref(rows);
    folder_free_found(paths, count);
    return ret;
}

int verb_report(int argc, char **argv)
{
    static const struct option table[] = {
        [REPORT_SINCE] = {"since", 's', "TIME", "30d, 12h, 2w ago, or a day: 2026-01-01 (all)"},
        [REPORT_JSON] = {"json", 0, NULL, "one JSON object, for programs; times in seconds"},
        [REPORT_HELP] = {"help", 'h', NULL, "this text"},
    };
    struct report report = {.now = (double)clock_wall_ns() / NS_PER_SEC};
    struct err err = {0};
    struct verb_words words = {.verb = "report",
                               .table = table,
                               .count = array_size(table),
                               .examples = "Examples:\n"
                                           "  minivmm report\n"
                                           "  minivmm report web1\n"
                                           "  minivmm report web1 --since 30d\n"
                                           "  minivmm report web1 --since 2026-01-01 --json\n"
                                           "\n"
                                           "Usage: minivmm report [VM] [OPTION...]\n"
                                           "\n"
                                           "How available the VM was, by the journal in its "
                                           "folder. A stop that somebody\n"
                                           "asked for is no failure, and the time after it does "
                                           "not count. Without a VM:\n"
                                           "a table of all below this folder. Where it is "
                                           "protected: what this host knows.\n",
                               .take = take_report_option,
                               .ctx = &report,
                               .most = 1};
    int ret = verb_words_read(&words, argc, argv, &err);
    if (ret != 0)
        return ret < 0 ? fail(&err) : 0;
    ret = words.word_count ? report_one(&report, words.words[0], &err) : report_all(&report, &err);
    return ret < 0 ? fail(&err) : 0;
}
