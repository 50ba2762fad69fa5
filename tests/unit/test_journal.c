/* SPDX-License-Identifier: MIT */
#include "core/clock.h"
#include "tests/unit/folder_rig.h"
#include "vmm/journal.h"

#include <jansson.h>
#include <math.h>

#define DAY 1763712000.0 /* when the days of these tests begin */

static int folder_fd = -1;

static void begin(void)
{
    rig_begin();
    rig_make_folder("vm");
    folder_fd = open(rig_path("vm"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ck_assert_int_ge(folder_fd, 0);
}

static struct journal open_journal(void)
{
    struct journal journal = {.fd = -1};
    struct err err = {0};

    ck_assert_msg(journal_open(&journal, folder_fd, &err) == 0, "%s", err.text);
    return journal;
}

/* The file's last sign of life. */
static void set_life(double at)
{
    struct timespec times[2];

    times[0].tv_sec = times[1].tv_sec = (time_t)at;
    times[0].tv_nsec = times[1].tv_nsec = (long)((at - floor(at)) * 1e9);
    ck_assert_int_eq(utimensat(AT_FDCWD, rig_path("vm/journal.jsonl"), times, 0), 0);
}

/* The line at this place, from 0, or from the end for negative ones; NULL: there is none. */
static json_t *read_line(int which)
{
    char *text = rig_read("vm/journal.jsonl"), *rest = text, *line;
    json_t *lines = json_array(), *found;

    while ((line = strsep(&rest, "\n")))
        if (*line)
            json_array_append_new(lines, json_loads(line, 0, NULL) ?: json_null());
    size_t count = json_array_size(lines);
    found = json_incref(json_array_get(lines, which < 0 ? count + (size_t)which : (size_t)which));
    json_decref(lines);
    free(text);
    return found;
}

static void expect_event(int which, const char *event)
{
    json_t *line = read_line(which);

    ck_assert_ptr_nonnull(line);
    ck_assert_str_eq(json_string_value(json_object_get(line, "event")), event);
    json_decref(line);
}

static double at_of(int which)
{
    json_t *line = read_line(which);
    double at = json_number_value(json_object_get(line, "at"));

    json_decref(line);
    return at;
}

static double now_seconds(void)
{
    return (double)clock_wall_ns() / 1e9;
}

/* Writing. */

START_TEST(each_event_is_a_line_with_its_time)
{
    struct journal journal = open_journal();
    double before = now_seconds() - 0.001;
    json_t *line;

    journal_start(&journal);
    journal_pause(&journal, "clone", JOURNAL_PAUSE_MS); /* not worth a word */
    journal_pause(&journal, "clone", 101);
    journal_crash(&journal, "triple fault at \"0x7c00\"");
    journal_stop(&journal, "guest");
    ck_assert_int_eq(journal.error, 0);
    journal_close(&journal);
    journal_close(&journal);
    for (int i = 0; i < 4; i++) {
        ck_assert_double_ge(at_of(i), before);
        ck_assert_double_le(at_of(i), now_seconds() + 0.001);
    }
    line = read_line(0);
    ck_assert_str_eq(json_string_value(json_object_get(line, "event")), "start");
    ck_assert_int_eq(json_integer_value(json_object_get(line, "pid")), getpid());
    json_decref(line);
    line = read_line(1);
    ck_assert_int_eq(json_integer_value(json_object_get(line, "ms")), 101);
    ck_assert_str_eq(json_string_value(json_object_get(line, "why")), "clone");
    json_decref(line);
    line = read_line(2);
    ck_assert_str_eq(json_string_value(json_object_get(line, "reason")),
                     "triple fault at \"0x7c00\"");
    json_decref(line);
    line = read_line(3);
    ck_assert_str_eq(json_string_value(json_object_get(line, "by")), "guest");
    json_decref(line);
    ck_assert_ptr_null(read_line(4));
}
END_TEST

START_TEST(times_have_three_digits_behind_the_point)
{
    unsigned seconds, fraction;
    int end = 0;

    struct journal journal = open_journal();
    for (unsigned i = 0; i < 20; i++)
        journal_start(&journal);
    journal_close(&journal);
    char *text = rig_read("vm/journal.jsonl"), *rest = text, *line;
    while ((line = strsep(&rest, "\n")) && *line) {
        char digits[20];
        ck_assert_int_eq(sscanf(line, "{\"at\": %u.%19[0-9],%n", &seconds, digits, &end), 2);
        ck_assert_uint_le(strlen(digits), 3);
        ck_assert_int_eq(sscanf(digits, "%u", &fraction), 1);
    }
    free(text);
}
END_TEST

START_TEST(words_of_any_kind_and_length_make_good_lines)
{
    char many[5000];
    struct journal journal = open_journal();

    memset(many, '"', sizeof(many) - 1);
    many[sizeof(many) - 1] = 0;
    journal_crash(&journal, many);
    journal_crash(&journal, "a\nb\x1b[31m\x01");
    journal_crash(&journal, "no text \xff\xfe \x80");
    journal_crash(&journal, "");
    journal_close(&journal);
    for (int i = 0; i < 4; i++)
        expect_event(i, "crash");
    ck_assert_ptr_null(read_line(4));
    json_t *line = read_line(2);
    ck_assert_str_eq(json_string_value(json_object_get(line, "reason")), "no text ?? ?");
    json_decref(line);
}
END_TEST

START_TEST(without_a_journal_nothing_is_written_and_nothing_is_wrong)
{
    struct journal journal = {.fd = -1};

    journal_start(&journal);
    journal_stop(&journal, "person");
    journal_crash(&journal, "x");
    journal_pause(&journal, "x", 1000);
    journal_tick(&journal);
    journal_close(&journal);
    ck_assert_int_eq(journal.error, 0);
}
END_TEST

/* Opening. */

START_TEST(a_run_that_ended_is_not_lost)
{
    for (unsigned i = 0; i < 3; i++) {
        struct journal journal = open_journal();
        journal_start(&journal);
        journal_pause(&journal, "x", 500);
        if (i % 2)
            journal_crash(&journal, "x");
        else
            journal_stop(&journal, "guest");
        journal_close(&journal);
    }
    char *text = rig_read("vm/journal.jsonl");
    ck_assert_ptr_null(strstr(text, "lost"));
    free(text);
}
END_TEST

START_TEST(a_run_that_did_not_end_is_lost_at_its_last_sign_of_life)
{
    struct journal journal = open_journal();

    journal_start(&journal);
    for (unsigned i = 0; i < (unsigned)_i; i++)
        journal_pause(&journal, "many of them fill more than a block that is read", 1000);
    journal_close(&journal); /* killed */
    double life = floor(now_seconds()) + 0.5;
    set_life(life);
    /* A moment that is yet to come is none: now is. */
    double latest = life < now_seconds() ? life : now_seconds() + 1;
    journal = open_journal();
    expect_event(-1, "lost");
    ck_assert_double_ge(at_of(-1), at_of(-2)); /* never before what it did say */
    ck_assert_double_le(at_of(-1), latest + 1);
    journal_start(&journal);
    journal_close(&journal);
    expect_event(-1, "start");
}
END_TEST

START_TEST(whoever_copies_a_journal_sees_whether_its_run_has_ended)
{
    ck_assert(!journal_is_of_a_run(folder_fd)); /* there is none */
    struct journal journal = open_journal();
    ck_assert(!journal_is_of_a_run(folder_fd));
    journal_start(&journal);
    ck_assert(journal_is_of_a_run(folder_fd));
    journal_pause(&journal, "asked", 1000);
    ck_assert(journal_is_of_a_run(folder_fd));
    journal_stop(&journal, "person");
    ck_assert(!journal_is_of_a_run(folder_fd));
    journal_start(&journal);
    journal_crash(&journal, "x");
    ck_assert(!journal_is_of_a_run(folder_fd));
    journal_close(&journal);
    ck_assert_int_eq(unlinkat(folder_fd, "journal.jsonl", 0), 0);
    ck_assert_int_eq(mkfifoat(folder_fd, "journal.jsonl", 0600), 0);
    ck_assert(!journal_is_of_a_run(folder_fd));
}
END_TEST

START_TEST(a_tick_is_a_sign_of_life)
{
    struct journal journal = open_journal();
    struct stat stat_of;

    journal_start(&journal);
    set_life(DAY);
    journal_tick(&journal);
    ck_assert_int_eq(journal.error, 0);
    ck_assert_int_eq(fstat(journal.fd, &stat_of), 0);
    ck_assert_double_ge((double)stat_of.st_mtime, now_seconds() - 5);
    journal_close(&journal);
    rig_write("vm/journal.jsonl", "{\"at\": 1763712000, \"event\": \"start\"}\n");
    set_life(DAY + 77.5);
    journal = open_journal();
    journal_close(&journal);
    ck_assert_double_eq_tol(at_of(-1), DAY + 77.5, 0.0011);
}
END_TEST

START_TEST(a_torn_line_hurts_only_itself)
{
    struct journal journal;

    rig_write("vm/journal.jsonl", "{\"at\": 1763712000, \"event\": \"start\"}\n"
                                  "{\"at\": 1763712010, \"event\": \"st");
    set_life(DAY + 10);
    journal = open_journal();
    journal_start(&journal);
    journal_close(&journal);
    expect_event(0, "start");
    ck_assert(json_is_null(read_line(1)));
    expect_event(2, "lost");
    expect_event(3, "start");
}
END_TEST

START_TEST(a_journal_that_is_no_plain_file_is_an_error)
{
    const char *path = rig_path("vm/journal.jsonl");
    struct journal journal = {.fd = -7};
    struct journal_report report;
    struct err err = {0};

    rig_write("elsewhere", "");
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_int_eq(i == 0   ? symlink("../elsewhere", path)
                         : i == 1 ? mkfifo(path, 0600)
                                  : mkdir(path, 0700),
                         0);
        ck_assert_int_lt(journal_open(&journal, folder_fd, &err), 0);
        ck_assert(strstr(err.text, "journal.jsonl"));
        ck_assert_int_eq(journal.fd, -7);
        ck_assert_int_lt(journal_report(folder_fd, 0, DAY, false, &report, &err), 0);
        ck_assert_int_eq(remove(path), 0);
    }
}
END_TEST

START_TEST(a_journal_with_a_second_name_is_not_written_to)
{
    struct journal journal = {.fd = -7};
    struct err err = {0};

    rig_write("elsewhere", "precious");
    ck_assert_int_eq(link(rig_path("elsewhere"), rig_path("vm/journal.jsonl")), 0);
    ck_assert_int_eq(journal_open(&journal, folder_fd, &err), -EMLINK);
    ck_assert_str_eq(err.text, "journal.jsonl is a hard link to some other file");
    ck_assert_int_eq(journal.fd, -7);
    char *text = rig_read("elsewhere");
    ck_assert_str_eq(text, "precious");
    free(text);
}
END_TEST

START_TEST(a_journal_that_root_makes_belongs_to_the_folders_owner)
{
    struct stat stat_of;

    if (geteuid() != 0) {
        printf("SKIPPED: not root\n");
        return;
    }
    ck_assert_int_eq(chown(rig_path("vm"), 65534, 65534), 0);
    struct journal journal = open_journal();
    journal_close(&journal);
    ck_assert_int_eq(stat(rig_path("vm/journal.jsonl"), &stat_of), 0);
    ck_assert_uint_eq(stat_of.st_uid, 65534);
    ck_assert_uint_eq(stat_of.st_gid, 65534);
}
END_TEST

START_TEST(a_full_file_system_is_told_and_leaves_no_torn_line)
{
    char options[] = "size=16k";
    struct err err = {0};

    if (!rig_may_mount())
        return;
    ck_assert_int_eq(mount("none", rig_path("vm"), "tmpfs", 0, options), 0);
    close(folder_fd);
    folder_fd = open(rig_path("vm"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct journal journal = open_journal();
    for (unsigned i = 0; i < 1000 && !journal.error; i++)
        journal_crash(&journal, "a reason of some length, that fills the file system up");
    ck_assert_int_eq(journal.error, -ENOSPC);
    char *text = rig_read("vm/journal.jsonl");
    ck_assert_int_eq(text[strlen(text) - 1], '\n');
    free(text);
    ck_assert_int_eq(ftruncate(journal.fd, 0), 0); /* there is room again */
    journal_start(&journal);
    expect_event(0, "start");
    journal_close(&journal);
    ck_assert_int_eq(mount(NULL, rig_path("vm"), NULL, MS_REMOUNT | MS_RDONLY, NULL), 0);
    ck_assert_int_eq(journal_open(&journal, folder_fd, &err), -EROFS);
    close(folder_fd);
    umount2(rig_path("vm"), MNT_DETACH);
}
END_TEST

/* The report. */

static struct journal_report report_of(double from, double now, bool running)
{
    struct journal_report report = {.starts = 77};
    struct err err = {0};

    ck_assert_msg(journal_report(folder_fd, from, now, running, &report, &err) == 0, "%s",
                  err.text);
    ck_assert_double_ge(report.up, 0);
    ck_assert_double_ge(report.down, 0);
    ck_assert_double_ge(report.asked_down, 0);
    ck_assert_double_ge(report.paused, 0);
    ck_assert_double_le(report.from, report.to);
    if (!isnan(report.availability))
        ck_assert(report.availability >= 0 && report.availability <= 1);
    return report;
}

/* Lines by seconds of the day: "100 start", "200 pause 5000". */
static void write_days(const char *days)
{
    static char text[8192];
    char *at = text;
    unsigned long ms;
    char event[20];
    double when;
    int used;

    text[0] = 0;
    while (sscanf(days, "%lf %19[a-z] %lu%n", &when, event, &ms, &used) == 3) {
        at += sprintf(at, "{\"at\": %.3f, \"event\": \"%s\", \"ms\": %lu}\n", DAY + when, event,
                      ms);
        days += used;
        days += strspn(days, ", ");
    }
    ck_assert_str_eq(days, "");
    rig_write("vm/journal.jsonl", text);
}

#define expect_time(got, wanted) ck_assert_double_eq_tol(got, wanted, 1e-4)

START_TEST(a_life_with_two_failures_has_known_figures)
{
    write_days("0 start 0, 1000 crash 0, 1100 start 0, 2000 pause 5000, 3000 lost 0, 3300 start 0, "
               "4000 stop 0, 6000 start 0, 6500 pause 500");
    struct journal_report report = report_of(0, DAY + 7000, true);
    expect_time(report.from, DAY);
    expect_time(report.to, DAY + 7000);
    expect_time(report.up, 1000 + 1900 + 700 + 1000);
    expect_time(report.down, 100 + 300);
    expect_time(report.asked_down, 2000);
    expect_time(report.paused, 5.5);
    ck_assert_uint_eq(report.starts, 4);
    ck_assert_uint_eq(report.stops, 1);
    ck_assert_uint_eq(report.failures, 2);
    ck_assert_uint_eq(report.pauses, 2);
    expect_time(report.mttf, 2300);
    expect_time(report.mttr, 200);
    expect_time(report.mtbf, 2500);
    expect_time(report.availability, 4600.0 / 5000.0);
}
END_TEST

START_TEST(a_period_counts_only_what_is_in_it)
{
    write_days("0 start 0, 1000 crash 0, 1100 start 0, 2000 pause 5000, 3000 lost 0, 3300 start 0, "
               "4000 stop 0, 6000 start 0");
    struct journal_report report = report_of(DAY + 3100, DAY + 6098, true);
    expect_time(report.from, DAY + 3100);
    expect_time(report.up, 700 + 98);
    expect_time(report.down, 200);
    expect_time(report.asked_down, 2000);
    ck_assert_uint_eq(report.failures, 0);
    write_days("0 start 0, 1000 crash 0, 1100 start 0");
    report = report_of(DAY + 1050, DAY + 1998, true);
    expect_time(report.up, 898);
    expect_time(report.down, 50);
    expect_time(report.asked_down, 0);
    ck_assert_uint_eq(report.failures, 0);
    ck_assert(isnan(report.mtbf) && isnan(report.mttf) && isnan(report.mttr));
    /* A pause that reaches into the period, and all that began before it. */
    write_days("0 start 0, 1000 crash 0, 1100 start 0, 2000 pause 5000, 3000 lost 0");
    report = report_of(DAY + 1997, DAY + 3100, false);
    expect_time(report.paused, 3);
    expect_time(report.up, 1003);
    expect_time(report.down, 100);
    ck_assert_uint_eq(report.starts, 0);
    ck_assert_uint_eq(report.failures, 1);
    write_days("0 start 0, 4000 stop 0");
    report = report_of(DAY + 4500, DAY + 5000, false);
    expect_time(report.asked_down, 500);
    ck_assert(isnan(report.availability));
    report = report_of(DAY + 9000, DAY + 9000, true); /* no time at all */
    ck_assert(isnan(report.availability));
    report = report_of(DAY + 9000, DAY + 8000, true);
    expect_time(report.up, 0);
}
END_TEST

START_TEST(before_the_first_line_nothing_is_known)
{
    write_days("1000 start 0");
    struct journal_report report = report_of(DAY, DAY + 3000, true);
    expect_time(report.from, DAY + 1000);
    expect_time(report.up, 2000);
    ck_assert_double_eq(report.availability, 1);
    ck_assert_int_eq(unlink(rig_path("vm/journal.jsonl")), 0);
    report = report_of(0, DAY, false);
    expect_time(report.from, DAY);
    ck_assert_uint_eq(report.starts, 0);
    ck_assert(isnan(report.availability));
    rig_write("vm/journal.jsonl", "");
    report = report_of(0, DAY, true);
    expect_time(report.up, 0);
    write_days("1000 crash 0"); /* what began before the journal */
    report = report_of(0, DAY + 1500, false);
    ck_assert_uint_eq(report.failures, 1);
    expect_time(report.down, 500);
}
END_TEST

START_TEST(what_died_without_a_word_is_down_since_its_last_sign_of_life)
{
    write_days("0 start 0");
    set_life(DAY + 600);
    struct journal_report report = report_of(0, DAY + 1000, false);
    expect_time(report.up, 600);
    expect_time(report.down, 400);
    ck_assert_uint_eq(report.failures, 1);
    report = report_of(0, DAY + 1000, true); /* no: it runs */
    expect_time(report.up, 1000);
    ck_assert_uint_eq(report.failures, 0);
    set_life(DAY - 50); /* a clock that was wrong, and one that is */
    expect_time(report_of(0, DAY + 1000, false).down, 1000);
    set_life(DAY + 5000);
    expect_time(report_of(0, DAY + 1000, false).up, 1000);
}
END_TEST

START_TEST(a_crash_is_down_until_the_next_start_whatever_follows)
{
    write_days(
        "0 start 0, 100 crash 0, 110 stop 0, 120 lost 0, 130 crash 0, 200 start 0, 300 stop 0, "
        "310 lost 0");
    struct journal_report report = report_of(0, DAY + 400, false);
    ck_assert_uint_eq(report.failures, 1);
    expect_time(report.up, 200);
    expect_time(report.down, 100);
    expect_time(report.asked_down, 100);
}
END_TEST

START_TEST(a_clock_that_was_set_back_makes_nothing_negative)
{
    /* An hour back in the middle of a run; then a run whose pause is longer than itself. */
    write_days(
        "4000 start 0, 400 pause 1000, 1000 stop 0, 1100 start 0, 1200 pause 999999999, 1300 "
        "stop 0");
    struct journal_report report = report_of(0, DAY + 2000, false);
    expect_time(report.from, DAY + 400);
    expect_time(report.asked_down, 100 + 700);
    expect_time(report.up, 600 + 200);
    expect_time(report.paused, 100);
    report = report_of(0, DAY + 5000, false); /* the same, when the time has caught up */
    expect_time(report.from, DAY + 400);
    expect_time(report.asked_down, 100 + 3700);
    expect_time(report.up, 600 + 200);
    /* What is yet to come: the year 2100, and beyond numbers. */
    write_days("0 start 0, 4099680000 crash 0, 100 start 0, 200 stop 0");
    report = report_of(0, DAY + 300, false);
    expect_time(report.up, 100);
    expect_time(report.asked_down, 100);
    rig_write("vm/journal.jsonl", "{\"at\": 1e308, \"event\": \"start\"}\n"
                                  "{\"at\": 1763712000, \"event\": \"start\"}\n"
                                  "{\"at\": 1763712001, \"event\": \"pause\", \"ms\": 1e308}\n"
                                  "{\"at\": -5, \"event\": \"crash\"}\n"
                                  "{\"at\": 1763712002, \"event\": \"pause\", \"ms\": -1}\n"
                                  "{\"at\": 1763712003, \"event\": \"stop\"}\n");
    report = report_of(0, DAY + 10, false);
    expect_time(report.up, 3);
    ck_assert_uint_eq(report.failures, 0);
}
END_TEST

/* The clock that people set. Of a boot, "a1" at its seconds: "7000 a1 60 start". */
static void write_boots(const char *lines)
{
    static char text[8192];
    char *at = text, event[20], boot[20];
    double when, since;
    int used;

    text[0] = 0;
    while (sscanf(lines, "%lf %19s %lf %19[a-z]%n", &when, boot, &since, event, &used) == 4) {
        at += sprintf(at,
                      "{\"at\": %.3f, \"boot\": \"%s\", \"since_boot\": %.3f, "
                      "\"event\": \"%s\"}\n",
                      DAY + when, boot, since, event);
        lines += used;
        lines += strspn(lines, ", ");
    }
    ck_assert_str_eq(lines, "");
    rig_write("vm/journal.jsonl", text);
}

/* An hour forward, or back, in the middle of a run that takes 600 s. */
START_TEST(a_clock_that_was_set_adds_and_takes_nothing)
{
    struct journal_report report;
    for (int hour = -3600; hour <= 3600; hour += 3600) {
        char lines[500];
        sprintf(lines,
                "10000 a1 100 start, 10300 a1 400 crash, 10310 a1 410 start, %d a1 500 clock, "
                "%d a1 700 stop",
                10400 + hour, 10600 + hour);
        write_boots(lines);
        report = report_of(0, DAY + 10700 + hour, false);
        expect_time(report.from, DAY + 10000 + hour);
        expect_time(report.up, 590);
        expect_time(report.down, 10);
        expect_time(report.asked_down, 100);
    }
}
END_TEST

/* Nothing but "clock" tells of it in a run that goes on, or that died. */
START_TEST(a_clock_that_was_set_lately_is_told_by_its_own_line)
{
    write_boots("100 a1 100 start, 7300 a1 3700 clock");
    struct journal_report report = report_of(0, DAY + 7400, true);
    expect_time(report.up, 3700);
    set_life(DAY + 7310);
    report = report_of(0, DAY + 7400, false);
    expect_time(report.up, 3610);
    expect_time(report.down, 90);
    ck_assert_uint_eq(report.failures, 1);
}
END_TEST

/* Other boots, other hosts, lines of before; and what makes no sense. */
START_TEST(each_boot_has_a_clock_of_its_own)
{
    write_boots("1000 a1 10 start, 1500 a1 510 stop, 2000 b2 10 start, 2300 b2 210 stop, "
                "2400 a1 900 start, 2500 a1 1000 stop");
    struct journal_report report = report_of(0, DAY + 2500, false);
    expect_time(report.from, DAY + 1510); /* by what a1's clock was at last */
    expect_time(report.up, 500 + 200 + 100);
    rig_write(
        "vm/journal.jsonl",
        "{\"at\": 1763712000, \"event\": \"start\"}\n"
        "{\"at\": 1763712100, \"boot\": 7, \"since_boot\": 5, \"event\": \"stop\"}\n"
        "{\"at\": 1763712200, \"boot\": \"a1\", \"event\": \"start\"}\n"
        "{\"at\": 1763712300, \"boot\": \"a1\", \"since_boot\": -1, \"event\": \"stop\"}\n"
        "{\"at\": 1763712400, \"boot\": \"a1\", \"since_boot\": 1e300, \"event\": \"start\"}\n"
        "{\"at\": 1763712500, \"boot\": \"0123456789abcdefg\", \"since_boot\": 1, "
        "\"event\": \"stop\"}\n");
    report = report_of(0, DAY + 500, false);
    expect_time(report.up, 300);
    expect_time(report.asked_down, 200);
}
END_TEST

START_TEST(what_was_set_is_noted_by_the_next_tick)
{
    struct journal journal = open_journal();

    ck_assert_uint_eq(strlen(journal.boot), JOURNAL_BOOT);
    journal_start(&journal);
    journal_tick(&journal);
    ck_assert_ptr_null(read_line(1));
    journal.born -= 100; /* as if somebody had set it forward */
    journal_tick(&journal);
    expect_event(1, "clock");
    journal_tick(&journal);
    ck_assert_ptr_null(read_line(2));
    json_t *line = read_line(1);
    double since = json_number_value(json_object_get(line, "since_boot"));
    ck_assert_double_eq_tol(since, (double)clock_boot_ns() / 1e9, 60);
    ck_assert_str_eq(json_string_value(json_object_get(line, "boot")), journal.boot);
    json_decref(line);
    journal_close(&journal);
    ck_assert(journal_is_of_a_run(folder_fd));
    journal = open_journal();
    expect_event(2, "lost");
    journal.born -= 100;
    journal_tick(&journal);
    expect_event(3, "clock");
    ck_assert(!journal_is_of_a_run(folder_fd));
    journal_close(&journal);
}
END_TEST

START_TEST(lines_that_make_no_sense_are_passed_over)
{
    FILE *file = fopen(rig_path("vm/journal.jsonl"), "we");

    fprintf(file, "\n\n{}\n[]\nnull\n\"x\"\n{\"at\": 1, \"event\": 7}\n{\"event\": \"crash\"}\n");
    fprintf(file, "{\"at\": \"1763712000\", \"event\": \"crash\"}\n{\"at\": 1763712000\n");
    fprintf(file, "{\"at\": 1763712000.0, \"event\": \"start\", \"more\": [1, 2]}\n");
    fprintf(file, "{\"at\": 1763712001.0, \"event\": \"failover\"}\n");
    for (unsigned i = 0; i < 300000; i++) /* one that does not end */
        fputs("[", file);
    fprintf(file, "{\"at\": 1763712002.0, \"event\": \"crash\"}\n");
    fwrite("{\"at\": 1763712003.0, \"event\": \"cra\0sh\"}\n", 1, 40, file);
    fprintf(file, "\xff\xfe{\"at\": 1763712004.0, \"event\": \"crash\"}\n");
    fprintf(file, "{\"at\": 1763712010.0, \"event\": \"stop\"}\n");
    fprintf(file, "{\"at\": 1763712011.0, \"event\": \"start\"}"); /* torn */
    ck_assert_int_eq(fclose(file), 0);
    struct journal_report report = report_of(0, DAY + 20, false);
    expect_time(report.from, DAY);
    expect_time(report.up, 10);
    expect_time(report.asked_down, 10);
    ck_assert_uint_eq(report.failures, 0);
    ck_assert_uint_eq(report.starts, 1);
}
END_TEST

START_TEST(what_is_written_can_be_reported)
{
    for (unsigned i = 0; i < 3; i++) {
        struct journal journal = open_journal();
        journal_start(&journal);
        if (i < 2)
            journal_crash(&journal, "x");
        journal_close(&journal);
    }
    struct journal_report report = report_of(0, now_seconds() + 1, true);
    ck_assert_uint_eq(report.starts, 3);
    ck_assert_uint_eq(report.failures, 2);
    ck_assert_double_ge(report.up, 0.9);
    struct journal journal = open_journal();
    journal_close(&journal);
    report = report_of(0, now_seconds() + 1, false);
    ck_assert_uint_eq(report.failures, 3);
}
END_TEST

START_TEST(a_long_journal_is_opened_and_reported_quickly)
{
    FILE *file = fopen(rig_path("vm/journal.jsonl"), "we");

    for (unsigned i = 0; i < 100000; i += 4) {
        double at = DAY + 40.0 * (i / 4);
        fprintf(file, "{\"at\": %.3f, \"event\": \"start\", \"pid\": 4711}\n", at);
        fprintf(file, "{\"at\": %.3f, \"event\": \"pause\", \"ms\": 1000, \"why\": \"x\"}\n",
                at + 5);
        fprintf(file, "{\"at\": %.3f, \"event\": \"pause\", \"ms\": 1000, \"why\": \"x\"}\n",
                at + 9);
        fprintf(file, "{\"at\": %.3f, \"event\": \"crash\", \"reason\": \"x\"}\n", at + 30);
    }
    ck_assert_int_eq(fclose(file), 0);
    uint64_t begun = clock_monotonic_ns(), best = UINT64_MAX;
    struct journal_report report = report_of(0, DAY + 1000000, false);
    uint64_t reported = clock_monotonic_ns() - begun;
    for (unsigned i = 0; i < 5; i++) {
        begun = clock_monotonic_ns();
        struct journal journal = open_journal();
        uint64_t took = clock_monotonic_ns() - begun;
        best = took < best ? took : best;
        journal_close(&journal);
    }
    ck_assert_uint_eq(report.failures, 25000);
    expect_time(report.mttf, 30);
    expect_time(report.mttr, 10);
    expect_time(report.mtbf, 40);
    expect_time(report.paused, 50000);
    if (getenv("BENCH"))
        fprintf(stderr, "100k lines: report %.0f ms, open %.2f ms\n", (double)reported / 1e6,
                (double)best / 1e6);
    ck_assert_uint_lt(reported, 5 * NS_PER_SEC);
    ck_assert_uint_lt(best, reported / 4); /* its end alone is read */
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("journal");
    TCase *tcase = tcase_create("journal");

    tcase_add_unchecked_fixture(tcase, rig_suite_begin, rig_suite_end);
    tcase_add_checked_fixture(tcase, begin, NULL);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, each_event_is_a_line_with_its_time);
    tcase_add_test(tcase, times_have_three_digits_behind_the_point);
    tcase_add_test(tcase, words_of_any_kind_and_length_make_good_lines);
    tcase_add_test(tcase, without_a_journal_nothing_is_written_and_nothing_is_wrong);
    tcase_add_test(tcase, a_run_that_ended_is_not_lost);
    tcase_add_loop_test(tcase, a_run_that_did_not_end_is_lost_at_its_last_sign_of_life, 0, 1);
    tcase_add_loop_test(tcase, a_run_that_did_not_end_is_lost_at_its_last_sign_of_life, 1000, 1001);
    tcase_add_loop_test(tcase, a_run_that_did_not_end_is_lost_at_its_last_sign_of_life, 15000,
                        15001);
    tcase_add_test(tcase, whoever_copies_a_journal_sees_whether_its_run_has_ended);
    tcase_add_test(tcase, a_tick_is_a_sign_of_life);
    tcase_add_test(tcase, a_torn_line_hurts_only_itself);
    tcase_add_test(tcase, a_journal_that_is_no_plain_file_is_an_error);
    tcase_add_test(tcase, a_journal_with_a_second_name_is_not_written_to);
    tcase_add_test(tcase, a_journal_that_root_makes_belongs_to_the_folders_owner);
    tcase_add_test(tcase, a_full_file_system_is_told_and_leaves_no_torn_line);
    tcase_add_test(tcase, a_life_with_two_failures_has_known_figures);
    tcase_add_test(tcase, a_period_counts_only_what_is_in_it);
    tcase_add_test(tcase, before_the_first_line_nothing_is_known);
    tcase_add_test(tcase, what_died_without_a_word_is_down_since_its_last_sign_of_life);
    tcase_add_test(tcase, a_crash_is_down_until_the_next_start_whatever_follows);
    tcase_add_test(tcase, a_clock_that_was_set_back_makes_nothing_negative);
    tcase_add_test(tcase, a_clock_that_was_set_adds_and_takes_nothing);
    tcase_add_test(tcase, a_clock_that_was_set_lately_is_told_by_its_own_line);
    tcase_add_test(tcase, each_boot_has_a_clock_of_its_own);
    tcase_add_test(tcase, what_was_set_is_noted_by_the_next_tick);
    tcase_add_test(tcase, lines_that_make_no_sense_are_passed_over);
    tcase_add_test(tcase, what_is_written_can_be_reported);
    tcase_add_test(tcase, a_long_journal_is_opened_and_reported_quickly);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
