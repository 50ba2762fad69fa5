/* SPDX-License-Identifier: MIT */
/* The journal, and the report, of a VM that is protected: each host has a journal of its own. */
#include "tests/unit/folder_rig.h"
#include "vmm/journal.h"

#include <math.h>
#include <stdarg.h>

#define DAY 1763712000.0 /* when the days of these tests begin */

static int folder_fd = -1;

static void begin(void)
{
    rig_begin();
    rig_make_folder("vm");
    folder_fd = open(rig_path("vm"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ck_assert_int_ge(folder_fd, 0);
}

/* A line at that second of the day; the rest of its object. */
struct event {
    double at;
    const char *rest;
};

static void write_lines(const struct event *events)
{
    static char text[16384];
    size_t used = 0;
    for (; events->rest; events++)
        used += (size_t)snprintf(text + used, sizeof(text) - used, "{\"at\": %.3f, %s}\n",
                                 DAY + events->at, events->rest);
    ck_assert_uint_lt(used, sizeof(text));
    rig_write("vm/journal.jsonl", text);
}

static struct journal_report report_of(double from, double now, bool running)
{
    struct journal_report report;
    struct err err = {0};
    ck_assert_msg(journal_report(folder_fd, from, now, running, &report, &err) == 0, "%s",
                  err.text);
    ck_assert(report.up >= 0 && report.down >= 0 && report.elsewhere >= 0);
    ck_assert(report.protected >= 0 && report.unprotected >= 0 && report.held >= 0);
    ck_assert_uint_le(report.sightless, report.failures);
    if (!isnan(report.availability))
        ck_assert(report.availability >= 0 && report.availability <= 1);
    return report;
}

#define expect_time(got, wanted) ck_assert_double_eq_tol(got, wanted, 1e-3)

#define START_1     "\"event\": \"start\", \"pid\": 1"
#define START_2     "\"event\": \"start\", \"pid\": 2"
#define PROTECTED   "\"event\": \"protected\", \"peer\": \"b:1\", \"generation\": 2"
#define SOLO        "\"event\": \"solo\", \"why\": \"start\", \"held_ms\": 0"
#define UNPROTECTED "\"event\": \"unprotected\", \"by\": \"person\""
/* Ran elsewhere for 100 s, could take over for 90, was 2 s without output, 1.5 of them undetected.
 */
#define TAKEOVER                                                                             \
    "\"event\": \"takeover\", \"planned\": false, \"detect_ms\": 1500, \"decide_ms\": 400, " \
    "\"load_ms\": 100, \"gap_ms\": 2000, \"ran_ms\": 100000, \"protected_ms\": 90000"
#define SWITCHOVER                                                                    \
    "\"event\": \"takeover\", \"planned\": true, \"detect_ms\": 0, \"gap_ms\": 500, " \
    "\"ran_ms\": 100000, \"protected_ms\": 90000"

START_TEST(the_new_host_knows_the_gap_and_what_its_twin_saw)
{
    write_lines((struct event[]){{1000, TAKEOVER},
                                 {1001, START_2},
                                 {1002, "\"event\": \"output\", \"silent_ms\": 2600"},
                                 {1101, PROTECTED},
                                 {0}});
    struct journal_report report = report_of(0, DAY + 2000, true);
    expect_time(report.from, DAY + 900); /* since it was filled */
    expect_time(report.up, 98 + 999);
    expect_time(report.down, 3); /* until it starts */
    expect_time(report.elsewhere, 0);
    ck_assert_uint_eq(report.failures, 1);
    ck_assert_uint_eq(report.takeovers, 1);
    ck_assert_uint_eq(report.sightless, 0);
    ck_assert_uint_eq(report.starts, 0); /* nobody has started it */
    expect_time(report.mttr, 3);
    expect_time(report.worst, 3);
    expect_time(report.gap, 2);
    expect_time(report.gap_worst, 2);
    expect_time(report.detect_worst, 1.5);
    expect_time(report.silence_worst, 2.6);
    expect_time(report.availability, 1097.0 / 1100);
    expect_time(report.protected, 88 + 899);
    expect_time(report.unprotected, 10 + 100);
    expect_time(report.unprotected_longest, 100);
    report = report_of(DAY + 1500, DAY + 2000, true);
    ck_assert_uint_eq(report.failures + report.takeovers, 0);
    ck_assert(isnan(report.gap) && isnan(report.mttr) && isnan(report.silence_worst));
    expect_time(report.protected, 500);
    expect_time(report.unprotected, 0);
}
END_TEST

START_TEST(the_old_host_knows_that_it_does_not_know)
{
    write_lines(
        (struct event[]){{0, START_1}, {100, PROTECTED}, {1000, "\"event\": \"lost\""}, {0}});
    struct journal_report report = report_of(0, DAY + 5000, false);
    expect_time(report.up, 1000);
    expect_time(report.down, 0);
    expect_time(report.elsewhere, 4000);
    ck_assert_uint_eq(report.failures, 1);
    ck_assert_uint_eq(report.sightless, 1);
    ck_assert(isnan(report.mttr) && isnan(report.mtbf));
    /* It starts here, and was not taken over: it was down. */
    write_lines((struct event[]){{0, START_1},
                                 {100, PROTECTED},
                                 {1000, "\"event\": \"lost\""},
                                 {3000, SOLO},
                                 {3000, START_2},
                                 {0}});
    report = report_of(0, DAY + 5000, true);
    expect_time(report.up, 3000);
    expect_time(report.down, 2000);
    expect_time(report.worst, 2000);
    expect_time(report.elsewhere, 0);
    expect_time(report.mttr, 2000);
    expect_time(report.protected, 900);
    expect_time(report.unprotected, 2000);
    /* It comes back by a takeover: in between it ran elsewhere, and for a part that is known. */
    write_lines((struct event[]){{0, START_1},
                                 {100, PROTECTED},
                                 {1000, "\"event\": \"lost\""},
                                 {3000, TAKEOVER},
                                 {3000, START_2},
                                 {0}});
    report = report_of(0, DAY + 5000, true);
    expect_time(report.up, 1000 + 98 + 2000);
    expect_time(report.elsewhere, 1900);
    expect_time(report.down, 2);
    ck_assert_uint_eq(report.failures, 2);
    ck_assert_uint_eq(report.sightless, 1);
    expect_time(report.mttr, 2);
    expect_time(report.mttf, 3098.0 / 2);
}
END_TEST

START_TEST(a_loss_without_a_twin_is_downtime)
{
    write_lines((struct event[]){{0, START_1},
                                 {100, PROTECTED},
                                 {500, "\"event\": \"alone\", \"silent_ms\": 500"},
                                 {501, "\"event\": \"solo\", \"held_ms\": 1600"},
                                 {1000, "\"event\": \"lost\""},
                                 {0}});
    struct journal_report report = report_of(0, DAY + 2000, false);
    expect_time(report.elsewhere, 0);
    expect_time(report.held, 1.6);
    expect_time(report.down, 1000 + 1.6);
    expect_time(report.up, 1000 - 1.6);
    expect_time(report.mttr, 1000); /* what was held is no failure */
    ck_assert_uint_eq(report.failures, 1);
    ck_assert_uint_eq(report.twins_lost, 1);
    expect_time(report.protected, 399.5);
    expect_time(report.unprotected, 500.5);
    /* Without the witness's word the twin may have gone on. */
    write_lines((struct event[]){{0, START_1},
                                 {100, PROTECTED},
                                 {500, "\"event\": \"alone\", \"silent_ms\": 500"},
                                 {501, "\"event\": \"lost\""},
                                 {0}});
    expect_time(report_of(0, DAY + 2000, false).elsewhere, 1499);
}
END_TEST

START_TEST(a_switchover_is_no_failure_on_either_side)
{
    write_lines((struct event[]){{0, START_1},
                                 {100, PROTECTED},
                                 {1000, "\"event\": \"stop\", \"by\": \"switchover\""},
                                 {0}});
    struct journal_report report = report_of(0, DAY + 3000, false);
    ck_assert_uint_eq(report.failures + report.stops, 0);
    ck_assert_uint_eq(report.switchovers, 1);
    expect_time(report.elsewhere, 2000);
    expect_time(report.asked_down, 0);
    expect_time(report.availability, 1);
    write_lines((struct event[]){{1000, SWITCHOVER}, {1000.2, START_2}, {0}});
    report = report_of(0, DAY + 3000, true);
    ck_assert_uint_eq(report.failures + report.takeovers, 0);
    ck_assert_uint_eq(report.switchovers, 1);
    expect_time(report.switch_worst, 0.5);
    expect_time(report.paused, 0.5);
    expect_time(report.down, 0);
    expect_time(report.up, 2100);
    ck_assert(isnan(report.gap));
}
END_TEST

START_TEST(who_was_deposed_counts_nothing_of_what_nobody_saw)
{
    write_lines((struct event[]){{0, START_1},
                                 {100, PROTECTED},
                                 {1000, "\"event\": \"alone\", \"silent_ms\": 0"},
                                 {1000, "\"event\": \"deposed\", \"held_ms\": 300000"},
                                 {1000, "\"event\": \"stop\", \"by\": \"fault tolerance\""},
                                 {0}});
    struct journal_report report = report_of(0, DAY + 2000, false);
    expect_time(report.up, 700);
    expect_time(report.protected, 600);
    expect_time(report.elsewhere, 1300);
    expect_time(report.down, 0);
    ck_assert_uint_eq(report.failures, 1);
    ck_assert_uint_eq(report.sightless, 1);
    ck_assert_uint_eq(report.stops, 0);
}
END_TEST

START_TEST(protection_ends_with_those_who_want_it)
{
    write_lines((struct event[]){{0, START_1}, {100, PROTECTED}, {300, UNPROTECTED}, {0}});
    struct journal_report report = report_of(0, DAY + 1000, true);
    expect_time(report.protected, 200);
    expect_time(report.unprotected, 0);
    /* A guest that starts again in the same process has its twin; another process that nobody told
     * of a twin has none, and shall have none. */
    write_lines((struct event[]){{0, START_1},
                                 {100, PROTECTED},
                                 {300, "\"event\": \"crash\""},
                                 {310, START_1},
                                 {500, "\"event\": \"stop\", \"by\": \"person\""},
                                 {600, START_2},
                                 {0}});
    report = report_of(0, DAY + 1000, true);
    expect_time(report.protected, 200 + 190);
    expect_time(report.unprotected, 0);
    expect_time(report.down, 10);
    expect_time(report.asked_down, 100);
    /* And one that was told so is unprotected until there is one. */
    write_lines((struct event[]){{0, START_1},
                                 {100, PROTECTED},
                                 {500, "\"event\": \"stop\", \"by\": \"person\""},
                                 {600, SOLO},
                                 {600, START_2},
                                 {650, PROTECTED},
                                 {0}});
    report = report_of(0, DAY + 1000, true);
    expect_time(report.unprotected, 50);
    expect_time(report.protected, 400 + 350);
}
END_TEST

START_TEST(senseless_spans_and_clocks_hurt_nothing)
{
    /* A clock set back between the lines, spans longer than all that was. */
    write_lines((struct event[]){
        {4000, START_1},
        {400, PROTECTED},
        {300, "\"event\": \"alone\", \"silent_ms\": 1e300"},
        {200, "\"event\": \"solo\", \"held_ms\": 1e300"},
        {900,
         "\"event\": \"takeover\", \"gap_ms\": 1e300, \"ran_ms\": 1e300, \"detect_ms\": 1}, {"},
        {950, "\"event\": \"takeover\", \"gap_ms\": 1e12, \"ran_ms\": 5, \"protected_ms\": 1e300"},
        {951, START_2},
        {952, "\"event\": \"takeover\", \"gap_ms\": -1"},
        {953, "\"event\": \"alone\", \"silent_ms\": \"much\""},
        {954, "\"event\": \"output\", \"silent_ms\": 1e999"},
        {955, "\"event\": \"deposed\", \"held_ms\": 1e300"},
        {0}});
    struct journal_report report = report_of(0, DAY + 2000, false);
    ck_assert(report.up + report.down + report.elsewhere <= 2001);
    ck_assert_uint_eq(report.takeovers, 1);
    ck_assert(isnan(report.silence_worst));
    /* A takeover that says it was long ago: no second is counted before 1970. */
    rig_write("vm/journal.jsonl", "{\"at\": 100, \"event\": \"takeover\", \"gap_ms\": 1000, "
                                  "\"ran_ms\": 1e15, \"protected_ms\": 1e15}\n"
                                  "{\"at\": 100, \"event\": \"start\", \"pid\": 1}\n"
                                  "{\"at\": 200, \"event\": \"deposed\", \"hel");
    report = report_of(0, 300, true);
    expect_time(report.from, 0);
    expect_time(report.up, 299);
    expect_time(report.down, 1);
    ck_assert_uint_eq(report.failures, 1); /* the torn line is none */
}
END_TEST

static bool is_of_a_run(double at, const char *rest)
{
    write_lines((struct event[]){{1, START_1}, {at, rest}, {0}});
    return journal_is_of_a_run(folder_fd);
}

START_TEST(a_run_goes_on_through_all_that_befalls_its_twin)
{
    ck_assert(is_of_a_run(2, PROTECTED));
    ck_assert(is_of_a_run(2, SOLO));
    ck_assert(is_of_a_run(2, UNPROTECTED));
    ck_assert(is_of_a_run(2, TAKEOVER));
    ck_assert(!is_of_a_run(2, "\"event\": \"deposed\", \"held_ms\": 5"));
    write_lines((struct event[]){{1, "\"event\": \"stop\", \"by\": \"guest\""}, {2, SOLO}, {0}});
    ck_assert(!journal_is_of_a_run(folder_fd));
}
END_TEST

/* The words are in the journal in this order, and its last line has its end. */
static void expect_order(const char *const *words)
{
    char *text = rig_read("vm/journal.jsonl");
    char *at = text;
    for (; *words; words++) {
        at = strstr(at, *words);
        ck_assert_msg(at != NULL, "no %s in its place in\n%s", *words, text);
    }
    ck_assert(strlen(at) > 0 && at[strlen(at) - 1] == '\n');
    free(text);
}

START_TEST(a_journal_is_inherited_with_its_end)
{
    struct err err = {0};
    rig_make_folder("former");
    int former = open(rig_path("former"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    write_lines((struct event[]){{100, TAKEOVER}, {0}}); /* what is there stays */
    rig_write("former/journal.jsonl",
              "{\"at\": 1763712000, \"event\": \"start\", \"pid\": 1}\n"
              "{\"at\": 1763712001, \"event\": \"protected\"}\n{\"at\": 17");
    ck_assert_msg(journal_inherit(former, folder_fd, &err) == 0, "%s", err.text);
    expect_order((const char *[]){"takeover", "\"start\"", "\"lost\"", NULL});
    /* Of a long one the last lines. */
    FILE *file = fopen(rig_path("former/journal.jsonl"), "we");
    for (unsigned i = 0; i < 100000; i++)
        fprintf(file, "{\"at\": %.3f, \"event\": \"pause\", \"ms\": 1000, \"why\": \"x\"}\n",
                DAY + i);
    fprintf(file, "{\"at\": %.3f, \"event\": \"stop\", \"by\": \"guest\"}\n", DAY + 1e5);
    ck_assert_int_eq(fclose(file), 0);
    ck_assert_int_eq(unlink(rig_path("vm/journal.jsonl")), 0);
    ck_assert_msg(journal_inherit(former, folder_fd, &err) == 0, "%s", err.text);
    char *text = rig_read("vm/journal.jsonl");
    ck_assert_uint_le(strlen(text), JOURNAL_INHERITED);
    ck_assert_uint_gt(strlen(text), JOURNAL_INHERITED - 100);
    ck_assert(text[0] == '{' && strstr(text, "guest"));
    free(text);
    /* Where there is none, there is nothing to inherit. */
    ck_assert_int_eq(unlink(rig_path("former/journal.jsonl")), 0);
    ck_assert_int_eq(journal_inherit(former, folder_fd, &err), 0);
    close(former);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("journal_hosts");
    TCase *tcase = tcase_create("journal_hosts");

    tcase_add_unchecked_fixture(tcase, rig_suite_begin, rig_suite_end);
    tcase_add_checked_fixture(tcase, begin, NULL);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, the_new_host_knows_the_gap_and_what_its_twin_saw);
    tcase_add_test(tcase, the_old_host_knows_that_it_does_not_know);
    tcase_add_test(tcase, a_loss_without_a_twin_is_downtime);
    tcase_add_test(tcase, a_switchover_is_no_failure_on_either_side);
    tcase_add_test(tcase, who_was_deposed_counts_nothing_of_what_nobody_saw);
    tcase_add_test(tcase, protection_ends_with_those_who_want_it);
    tcase_add_test(tcase, senseless_spans_and_clocks_hurt_nothing);
    tcase_add_test(tcase, a_run_goes_on_through_all_that_befalls_its_twin);
    tcase_add_test(tcase, a_journal_is_inherited_with_its_end);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
