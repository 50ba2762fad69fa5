/* SPDX-License-Identifier: MIT */
/* What new writes, what report says, and how a progress bar looks. */
#include "cli/new_text.h"
#include "cli/progress.h"
#include "cli/report_text.h"
#include "cli/table.h"
#include "tests/unit/unit.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* --- new -------------------------------------------------------------------------------------- */

static struct definition *read_back(const struct definition *wanted)
{
    struct definition *found;
    struct err err = {0};
    char *text = new_text(wanted);

    ck_assert_ptr_nonnull(text);
    int ret = definition_parse(&found, text, strlen(text), "vm.json", "/vms/web1", NULL, &err);
    ck_assert_msg(ret == 0, "%s\n%s", err.text, text);
    free(text);
    return found;
}

START_TEST(what_new_writes_means_what_was_asked)
{
    static const struct netif_forward forwards[] = {
        {.host_port = 2222, .guest_port = 22},
        {.host_address = "127.0.0.1", .host_port = 8080, .guest_port = 80},
        {.host_address = "::1", .ipv6 = true, .udp = true, .host_port = 53, .guest_port = 53},
    };
    struct definition wanted = {
        .cpus = 3,
        .memory = 1536ull << 20,
        .disks = {{.path = "disk.img", .format = DISK_FORMAT_RAW, .direct = true, .queues = 2},
                  {.path = "disk2.qcow2",
                   .format = DISK_FORMAT_QCOW2,
                   .readonly = true,
                   .no_discard = true,
                   .write_through = true,
                   .direct = true,
                   .serial = "abc \"quoted\"",
                   .block_size = 4096,
                   .engine = DISK_ENGINE_THREADS,
                   .iops = 500,
                   .bandwidth = 100ull << 20}},
        .disk_count = 2,
        .nets = {{.mode = NETIF_USER, .forwards = forwards, .forward_count = 3},
                 {.mode = NETIF_BRIDGE, .name = "br0", .mac = {2, 0, 0, 0, 0x12, 0xff}},
                 {.mode = NETIF_TAP, .name = "vm0", .queues = 2, .mtu = 9000},
                 {.mode = NETIF_TAP}},
        .net_count = 4,
        .nets_said = true,
        .has_seed = true,
        .seed = {.user = "me", .password = "a\"b\\c", .hostname = "web1"},
        .seed_key_file = "seed.pub",
    };
    struct definition *found = read_back(&wanted);

    ck_assert_uint_eq(found->cpus, 3);
    ck_assert_uint_eq(found->memory, wanted.memory);
    ck_assert_uint_eq(found->disk_count, 2);
    ck_assert_str_eq(found->disks[0].path, "/vms/web1/disk.img");
    ck_assert_str_eq(found->disks[1].path, "/vms/web1/disk2.qcow2");
    for (unsigned i = 0; i < 2; i++) { /* all but the path */
        wanted.disks[i].path = found->disks[i].path;
        ck_assert_mem_eq(&found->disks[i], &wanted.disks[i], sizeof(found->disks[i]));
    }
    ck_assert_uint_eq(found->net_count, 4);
    ck_assert_mem_eq(found->nets[0].forwards, forwards, sizeof(forwards));
    found->nets[0].forwards = forwards;
    ck_assert_mem_eq(found->nets, wanted.nets, sizeof(found->nets));
    ck_assert(found->has_seed);
    ck_assert_str_eq(found->seed.user, "me");
    ck_assert_str_eq(found->seed.password, "a\"b\\c");
    ck_assert_str_eq(found->seed.hostname, "web1");
    ck_assert_str_eq(found->seed_key_file, "/vms/web1/seed.pub");
    definition_destroy(found);
}
END_TEST

START_TEST(what_was_not_asked_is_not_written)
{
    const struct definition wanted = {.disks = {{.path = "disk.img", .format = DISK_FORMAT_RAW}},
                                      .disk_count = 1};
    char *text = new_text(&wanted);
    json_t *found = json_loads(text, 0, NULL);
    json_t *expected = json_pack("{s[{ss, ss}]}", "disks", "file", "disk.img", "format", "raw");

    ck_assert(json_equal(found, expected));
    free(text);
    json_decref(found);
    json_decref(expected);
}
END_TEST

START_TEST(no_network_is_written_down)
{
    const struct definition wanted = {
        .disks = {{.path = "d", .format = DISK_FORMAT_RAW}}, .disk_count = 1, .nets_said = true};
    struct definition *found = read_back(&wanted);

    ck_assert(found->nets_said);
    ck_assert_uint_eq(found->net_count, 0);
    definition_destroy(found);
}
END_TEST

/* --- report ----------------------------------------------------------------------------------- */

static const double now = 1763712000; /* 2025-11-21 08:00 UTC */

static void since(const char *text, double expected)
{
    struct err err = {0};
    double from = -1;

    ck_assert_msg(report_parse_since(text, now, &from, &err) == 0, "%s: %s", text, err.text);
    ck_assert_msg(from == expected, "%s: %f", text, from);
}

START_TEST(since_is_a_while_or_a_day)
{
    setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3", 1);
    tzset();
    since("30d", now - 30 * 86400.0);
    since("12h", now - 12 * 3600.0);
    since("90min", now - 90 * 60.0);
    since("2w", now - 14 * 86400.0);
    since("1s", now - 1);
    since("1000000000w", 1);
    since("2025-11-21", now - 9 * 3600.0); /* midnight here */
    since("2025-07-01", 1751320800);       /* in summer */
}
END_TEST

START_TEST(since_is_nothing_else)
{
    static const char *const bad[] = {
        "",           "d",          "30",         "30 d",
        "-3d",        "0d",         "1.5d",       "30days",
        "2025-02-30", "2025-13-01", "2025-1-1",   "2025-01-01x",
        "yesterday",  "2025-11-22", "9999-01-01", "99999999999999999999d"};
    for (size_t i = 0; i < array_size(bad); i++) {
        struct err err = {0};
        double from = -1;
        ck_assert_msg(report_parse_since(bad[i], now, &from, &err) < 0, "%s", bad[i]);
        ck_assert_int_eq(err.kind, ERR_USAGE);
        ck_assert(from == -1);
    }
}
END_TEST

START_TEST(nines_are_counted)
{
    static const struct {
        double availability;
        int nines;
    } cases[] = {{0, 0},
                 {0.5, 0},
                 {0.89, 0},
                 {0.9, 1},
                 {0.95, 1},
                 {0.99, 2},
                 {0.999, 3},
                 {0.9989999, 2},
                 {0.9999, 4},
                 {0.99999, 5},
                 {0.9995, 3},
                 {0.999999, 6},
                 {0.9999999999999, 9},
                 {1, -1},
                 {NAN, 0}};
    for (size_t i = 0; i < array_size(cases); i++)
        ck_assert_msg(report_count_nines(cases[i].availability) == cases[i].nines, "%.13f: %d",
                      cases[i].availability, report_count_nines(cases[i].availability));
}
END_TEST

static char *print(const struct journal_report *report)
{
    char *text = NULL;
    size_t size;
    FILE *file = open_memstream(&text, &size);

    report_print(file, "web1", report, REPORT_RUNNING);
    fclose(file);
    return text;
}

static void says(const struct journal_report *report, const char *words)
{
    char *text = print(report);
    ck_assert_msg(strstr(text, words) != NULL, "no \"%s\" in\n%s", words, text);
    free(text);
}

START_TEST(a_report_is_for_people)
{
    struct journal_report report = {
        .from = now - 10 * 86400.0,
        .to = now,
        .up = 9 * 86400.0 + 3600,
        .down = 60,
        .asked_down = 3661,
        .paused = 1.25,
        .starts = 3,
        .stops = 1,
        .failures = 1,
        .pauses = 4,
        .mtbf = 9 * 86400.0,
        .mttf = 9 * 86400.0 - 60,
        .mttr = 60,
    };
    report.availability = report.up / (report.up + report.down);
    setenv("TZ", "UTC", 1);
    tzset();
    says(&report, "2025-11-11 08:00 to 2025-11-21 08:00");
    says(&report, "availability   99.9923 % (4 nines)");
    says(&report, "uptime         9 d 1 h\n");
    says(&report, "downtime       1 min 0 s");
    says(&report, "asked downtime 1 h 1 min");
    says(&report, "3 starts, 1 stop\n");
    says(&report, "4, 1.2 s");
    says(&report, "MTTR           1 min 0 s");
}
END_TEST

START_TEST(what_cannot_be_told_is_not_told)
{
    struct journal_report report = {
        .from = now, .to = now, .mtbf = NAN, .mttf = NAN, .mttr = NAN, .availability = NAN};
    json_t *json = report_to_json("web1", &report, REPORT_STOPPED);

    says(&report, "MTBF           too few failures to tell");
    says(&report, "availability   it has not run");
    ck_assert(json_is_null(json_object_get(json, "mtbf")));
    ck_assert(json_is_null(json_object_get(json, "availability")));
    ck_assert(json_is_null(json_object_get(json, "nines")));
    ck_assert(json_is_integer(json_object_get(json, "failures")));
    json_decref(json);
}
END_TEST

START_TEST(a_report_of_a_protected_vm_says_what_it_does_not_know)
{
    struct journal_report report = {
        .from = now - 86400.0,
        .to = now,
        .up = 86000,
        .down = 0.84,
        .held = 0.12,
        .elsewhere = 7200,
        .failures = 2,
        .sightless = 1,
        .takeovers = 1,
        .switchovers = 1,
        .twins_lost = 2,
        .mtbf = NAN,
        .mttf = 43000,
        .mttr = 0.72,
        .worst = 61,
        .gap = 0.715,
        .gap_worst = 0.715,
        .detect_worst = 0.5004,
        .silence_worst = 1.23,
        .switch_worst = 0.084,
        .protected = 85957,
        .unprotected = 43,
        .unprotected_longest = 40.25,
        .availability = 0.99999,
    };
    says(&report, "failures       2                         1 takeover; 1 of which another host");
    says(&report, "MTTR           720 ms ");
    says(&report, "longest        1 min 1 s ");
    says(&report, "elsewhere      2 h 0 min                 another host may know");
    says(&report, "output held    120 ms ");
    says(&report,
         "takeover gap   715 ms                    mean; at most 715 ms, of that 500 ms until");
    says(&report, "silence        1.2 s ");
    says(&report, "on purpose     1 switchover              gap 84 ms at most");
    says(&report, "protected      23 h 52 min ");
    says(&report, "unprotected    43.0 s (0.050 %)          40.2 s at a stretch; 2 twins lost");
    json_t *json = report_to_json("web1", &report, REPORT_TWIN);
    const json_t *protection = json_object_get(json, "protection");
    ck_assert_str_eq(json_string_value(json_object_get(json, "state")), "twin");
    ck_assert(json_is_false(json_object_get(json, "running")));
    ck_assert_int_eq(json_integer_value(json_object_get(protection, "ends_unknown")), 1);
    ck_assert_double_eq_tol(json_real_value(json_object_get(protection, "unprotected_percent")),
                            0.05, 1e-9);
    json_decref(json);
    /* One that never was says nothing of it, and its programs need not ask. */
    struct journal_report plain = {
        .from = 1, .to = now, .silence_worst = NAN, .availability = 1, .up = 1};
    char *text = print(&plain);
    ck_assert(!strstr(text, "protected") && !strstr(text, "takeover") && !strstr(text, "silence"));
    free(text);
    json = report_to_json("web1", &plain, REPORT_RUNNING);
    ck_assert(
        json_is_null(json_object_get(json_object_get(json, "protection"), "unprotected_percent")));
    json_decref(json);
}
END_TEST

START_TEST(availability_is_not_rounded_up)
{
    struct journal_report report = {.from = 1, .to = now, .availability = 0.9999999};
    says(&report, "99.9999900 % (7 nines)");
    report.availability = 0.99949999;
    says(&report, "99.949 % (3 nines)");
    report.availability = 0.999;
    says(&report, "99.900 % (3 nines)");
    report.availability = 1;
    says(&report, "100 %\n");
    report.availability = 0.123456;
    says(&report, "12.34 % (0 nines)");
}
END_TEST

/* --- progress --------------------------------------------------------------------------------- */

#define GIB (1ull << 30)

static void shows(const char *expected, uint64_t done, uint64_t total, double rate,
                  unsigned columns)
{
    char text[400];

    progress_format(text, sizeof(text), "disk.img", done, total, rate, columns);
    ck_assert_str_eq(text, expected);
    if (columns)
        ck_assert_uint_le(strlen(text), columns);
}

START_TEST(a_bar_fits_its_terminal)
{
    shows("disk.img   50 %  1 GiB of 2 GiB  256 MiB/s  4 s left", GIB, 2 * GIB, 256 << 20, 0);
    shows("disk.img  [###############---------------]   50 %  1 GiB of 2 GiB  256 MiB/s  4 s left",
          GIB, 2 * GIB, 256 << 20, 100);
    shows("disk.img  [#####-----]   50 %  1 GiB of 2 GiB  256 MiB/s  4 s left", GIB, 2 * GIB,
          256 << 20, 66);
    shows("disk.img   50 %  1 GiB of 2 GiB  256 MiB/s", GIB, 2 * GIB, 256 << 20, 45);
    shows("disk.img   50 %", GIB, 2 * GIB, 256 << 20, 20);
}
END_TEST

START_TEST(strange_numbers_are_no_crash)
{
    char text[400];
    char name[300];

    memset(name, 'x', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    for (unsigned columns = 0; columns < 300; columns++) {
        progress_format(text, sizeof(text), name, 3 * GIB, GIB, 1, columns);
        ck_assert_uint_le(strlen(text), columns && columns < 200 ? columns : 200);
        progress_format(text, sizeof(text), "", 0, 0, 0, columns);
        progress_format(text, sizeof(text), "d", 1, UINT64_MAX, 1e-9, columns);
        progress_format(text, sizeof(text), "d", 1, UINT64_MAX, 1e30, columns);
        progress_format(text, 20, name, GIB, 2 * GIB, 1e6, columns);
    }
}
END_TEST

/* --- tables ----------------------------------------------------------------------------------- */

static void is_made(const char *plain, const char *given)
{
    char text[100];

    snprintf(text, sizeof(text), "%s", given);
    text_make_plain(text);
    ck_assert_str_eq(text, plain);
}

START_TEST(nothing_in_a_table_moves_a_terminal)
{
    is_made("", "");
    is_made("web1 \u00e4\u20ac\U0001f600", "web1 \u00e4\u20ac\U0001f600");
    is_made("?[31m?]0;x?", "\x1b[31m\x1b]0;x\a");
    is_made("a?b?c?", "a\nb\tc\x7f");
    is_made("?31m", "\xc2\x9b"
                    "31m");
    is_made("a?b?", "a\xe2\x80\xae"
                    "b\xef\xbb\xbf");
    is_made("?", "\x9b");
    is_made("??", "\xc0\xaf");
    is_made("???", "\xed\xa0\x80");
    is_made("????", "\xf4\x90\x80\x80");
    is_made("?", "\xc3");
    is_made("??", "\xe2\x82");
    is_made("???", "\xf0\x9f\x98");
    is_made("?x", "\xe2x");
    is_made("?", "\xff");
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("cli_text");
    TCase *tests = tcase_create("texts");

    tcase_add_test(tests, what_new_writes_means_what_was_asked);
    tcase_add_test(tests, what_was_not_asked_is_not_written);
    tcase_add_test(tests, no_network_is_written_down);
    tcase_add_test(tests, since_is_a_while_or_a_day);
    tcase_add_test(tests, since_is_nothing_else);
    tcase_add_test(tests, nines_are_counted);
    tcase_add_test(tests, a_report_is_for_people);
    tcase_add_test(tests, a_report_of_a_protected_vm_says_what_it_does_not_know);
    tcase_add_test(tests, what_cannot_be_told_is_not_told);
    tcase_add_test(tests, availability_is_not_rounded_up);
    tcase_add_test(tests, a_bar_fits_its_terminal);
    tcase_add_test(tests, strange_numbers_are_no_crash);
    tcase_add_test(tests, nothing_in_a_table_moves_a_terminal);
    suite_add_tcase(suite, tests);
    return suite;
}

int main(void)
{
    return unit_main(make_suite());
}
