/* SPDX-License-Identifier: MIT */
/* The two writers, with a table of the test's; and the real table against its documentation. */
#include "ft/protect_metrics.h"
#include "tests/unit/metrics_text.h"
#include "vmm/metrics.h"

#include <fcntl.h>
#include <unistd.h>

#define DOCUMENT GOLDEN_DIR "/../../docs/metrics.md"

/* --- a table ---------------------------------------------------------------------------------- */

#define TELL(name)                                                                     \
    static void name(const struct metric *metric, const struct metrics_source *source, \
                     struct metrics_sink *sink)

TELL(tell_plain)
{
    sink->number(sink, metric, -1, NULL, UINT64_MAX);
}

TELL(tell_time)
{
    sink->number(sink, metric, -1, NULL, 12000000034);
}

TELL(tell_words)
{
    for (int i = 0; i < 2; i++) {
        sink->number(sink, metric, i, "read", (uint64_t)i);
        sink->number(sink, metric, i, "write", 10 + (uint64_t)i);
    }
}

TELL(tell_second_only)
{
    sink->number(sink, metric, 2, NULL, 77);
}

TELL(tell_nothing)
{
}

TELL(tell_histogram)
{
    struct histogram histogram = {0};
    struct histogram_reading reading;
    histogram_add(&histogram, 1);
    histogram_add(&histogram, 1024);
    histogram_add(&histogram, 5000);
    histogram_add(&histogram, 60000000000);
    histogram_read(&histogram, &reading);
    sink->histogram(sink, metric, 0, "read", &reading);
    sink->histogram(sink, metric, 0, "write", &(struct histogram_reading){0});
}

static const struct metric table[] = {
    {"t_plain_total", "Plain.", METRIC_COUNTER, .group = "g", .key = "plain", .tell = tell_plain},
    {"t_seconds", "Time.", METRIC_GAUGE, .seconds = true, .group = "g", .key = "time",
     .tell = tell_time},
    {"t_words_total", "Words.", METRIC_COUNTER, .group = "things", .key = "words",
     .index_label = "thing", .word_label = "op", .tell = tell_words},
    {"t_second", "Only one.", METRIC_GAUGE, .group = "things", .key = "second",
     .index_label = "thing", .tell = tell_second_only},
    {"t_nothing", "Nothing.", METRIC_GAUGE, .group = "no", .key = "no", .tell = tell_nothing},
    {"t_latency_seconds", "Latency.", METRIC_HISTOGRAM, .seconds = true, .group = "things",
     .key = "latency", .index_label = "thing", .word_label = "op", .tell = tell_histogram},
    {.name = NULL},
};

static char *write_text(const char *vm)
{
    const struct metrics_source source = {.vm = vm, .uuid = "6f1ed002"};
    char *text;
    size_t length;
    ck_assert_int_eq(metrics_text(table, &source, &text, &length), 0);
    ck_assert_uint_eq(text_check(text, length), 7 + 2 * (HISTOGRAM_BUCKETS + 2));
    return text;
}

static void check_has(const char *text, const char *lines)
{
    const char *at = strstr(text, lines);
    ck_assert_msg(at && (at == text || at[-1] == '\n'), "%s\nis not in:\n%s", lines, text);
}

/* --- text ------------------------------------------------------------------------------------- */

START_TEST(each_metric_has_its_head_and_its_values)
{
    char *text = write_text("web1");
    check_has(text, "# HELP t_plain_total Plain.\n"
                    "# TYPE t_plain_total counter\n"
                    "t_plain_total{vm=\"web1\",uuid=\"6f1ed002\"} 18446744073709551615\n"
                    "# HELP t_seconds Time.\n"
                    "# TYPE t_seconds gauge\n"
                    "t_seconds{vm=\"web1\",uuid=\"6f1ed002\"} 12.000000034\n");
    check_has(text, "t_words_total{vm=\"web1\",uuid=\"6f1ed002\",thing=\"1\",op=\"write\"} 11\n");
    check_has(text, "t_second{vm=\"web1\",uuid=\"6f1ed002\",thing=\"2\"} 77\n");
    free(text);
}
END_TEST

START_TEST(what_has_no_value_is_not_mentioned)
{
    char *text = write_text("web1");
    ck_assert_ptr_null(strstr(text, "t_nothing"));
    free(text);
}
END_TEST

START_TEST(buckets_include_those_before_them)
{
    char *text = write_text("web1");
    check_has(text, "# TYPE t_latency_seconds histogram\n");
    ck_assert_double_eq(text_find(text, "t_latency_seconds_bucket", "le=\"0.000001024\""), 2);
    ck_assert_double_eq(text_find(text, "t_latency_seconds_bucket", "le=\"0.000004096\""), 2);
    ck_assert_double_eq(text_find(text, "t_latency_seconds_bucket", "le=\"0.000008192\""), 3);
    ck_assert_double_eq(text_find(text, "t_latency_seconds_bucket", "le=\"8.589934592\""), 3);
    ck_assert_double_eq(text_find(text, "t_latency_seconds_bucket", "le=\"+Inf\""), 4);
    ck_assert_double_eq(text_find(text, "t_latency_seconds_count", "op=\"read\""), 4);
    ck_assert_double_eq(text_find(text, "t_latency_seconds_count", "op=\"write\""), 0);
    check_has(text, "t_latency_seconds_sum{vm=\"web1\",uuid=\"6f1ed002\",thing=\"0\",op=\"read\"} "
                    "60.000006025\n");
    free(text);
}
END_TEST

START_TEST(a_name_of_any_bytes_stays_inside_its_quotes)
{
    static const char *const names[][2] = {
        {"a\"} 1\nb{c=\"d", "a\\\"} 1\\nb{c=\\\"d"},
        {"back\\slash\\", "back\\\\slash\\\\"},
        {"", ""},
        {"\xc3\xa4 \xe2\x82\xac", "\xc3\xa4 \xe2\x82\xac"},
        {"bad \xff\xc3", "bad \xef\xbf\xbd\xef\xbf\xbd"},
        {"# HELP x", "# HELP x"},
    };
    for (unsigned i = 0; i < array_size(names); i++) {
        char expected[128];
        char *text = write_text(names[i][0]);
        snprintf(expected, sizeof(expected), "t_plain_total{vm=\"%s\",uuid=\"6f1ed002\"} ",
                 names[i][1]);
        check_has(text, expected);
        free(text);
    }
}
END_TEST

START_TEST(a_name_of_many_bytes_is_written)
{
    char name[5000];
    memset(name, '"', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    free(write_text(name));
    name[7] = '\xff'; /* what must be mended may be cut */
    free(write_text(name));
}
END_TEST

START_TEST(a_part_tells_its_own_behind_the_others)
{
    const struct metrics_source source = {
        .vm = "web1", .uuid = "6f1ed002", .part_table = table + 3};
    static const struct metric first[] = {
        {"t_plain_total", "Plain.", METRIC_COUNTER, .group = "h", .key = "plain",
         .tell = tell_plain},
        {.name = NULL},
    };
    char *text;
    size_t length;
    ck_assert_int_eq(metrics_text(first, &source, &text, &length), 0);
    ck_assert_uint_eq(text_check(text, length), 2 + 2 * (HISTOGRAM_BUCKETS + 2));
    const char *of_part = strstr(text, "\nt_second{");
    ck_assert(of_part && of_part > strstr(text, "\nt_plain_total{"));
    free(text);
    json_t *root = metrics_json(first, &source);
    ck_assert(json_object_get(root, "h") && json_object_get(root, "things"));
    json_decref(root);
}
END_TEST

/* --- JSON ------------------------------------------------------------------------------------- */

START_TEST(json_says_the_same_by_places)
{
    const struct metrics_source source = {.vm = "web1", .uuid = "6f1ed002"};
    json_t *root = metrics_json(table, &source);
    json_t *expected = json_loads(
        "{\"g\": {\"plain\": 9223372036854775807, \"time\": 12.000000034},"
        " \"things\": ["
        "  {\"words\": {\"read\": 0, \"write\": 10},"
        "   \"latency\": {\"read\": {\"count\": 4, \"sum\": 60.000006025, \"buckets\":"
        "     [[1.024e-6, 2], [8.192e-6, 1], [null, 1]]},"
        "    \"write\": {\"count\": 0, \"sum\": 0.0, \"buckets\": []}}},"
        "  {\"words\": {\"read\": 1, \"write\": 11}},"
        "  {\"second\": 77}]}",
        0, NULL);
    ck_assert_ptr_nonnull(expected);
    char *said = json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(15));
    ck_assert_msg(json_equal(root, expected), "%s", said);
    free(said);
    json_decref(root);
    json_decref(expected);
}
END_TEST

/* --- the real table --------------------------------------------------------------------------- */

static char *read_document(void)
{
    int fd = open(DOCUMENT, O_RDONLY | O_CLOEXEC);
    ck_assert_msg(fd >= 0, "%s", DOCUMENT);
    char *text = calloc(1, 1 << 16);
    ssize_t length = read(fd, text, (1 << 16) - 1);
    ck_assert(length > 0 && length < (1 << 16) - 1);
    close(fd);
    return text;
}

/* As the document's row for it begins. */
static void format_row(const struct metric *metric, char *row, size_t size)
{
    static const char *const types[] = {
        [METRIC_COUNTER] = "counter", [METRIC_GAUGE] = "gauge", [METRIC_HISTOGRAM] = "histogram"};
    char labels[64] = "", place[96];
    if (metric->index_label || metric->word_label)
        snprintf(labels, sizeof(labels), "`%s%s%s`", metric->index_label ? metric->index_label : "",
                 metric->index_label && metric->word_label ? "`, `" : "",
                 metric->word_label ? metric->word_label : "");
    snprintf(place, sizeof(place), "%s%s.%s%s%s", metric->group, metric->index_label ? "[]" : "",
             metric->key, metric->word_label ? "." : "",
             metric->word_label ? metric->word_label : "");
    snprintf(row, size, "| `%s` | %s | %s | `%s` | %s |\n", metric->name, types[metric->type],
             labels[0] ? labels : " ", place, metric->help);
    for (char *at; (at = strstr(row, "|   |"));)
        memmove(at + 1, at + 3, strlen(at + 3) + 1); /* an empty cell is one space */
}

static unsigned check_rows(const char *document, const struct metric *all)
{
    unsigned metrics = 0;
    for (const struct metric *metric = all; metric->name; metric++, metrics++) {
        char row[512];
        format_row(metric, row, sizeof(row));
        ck_assert_msg(strstr(document, row) != NULL, "docs/metrics.md lacks the line\n%s", row);
    }
    return metrics;
}

START_TEST(the_document_lists_what_there_is)
{
    char *document = read_document();
    unsigned rows = 0, metrics = check_rows(document, metrics_table);
    metrics += check_rows(document, protect_metrics);
    for (const char *at = document; (at = strstr(at, "\n| `minivmm_")); at++)
        rows++;
    ck_assert_uint_eq(rows, metrics);
    free(document);
}
END_TEST

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), end_length = strlen(end);
    return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

static void check_names(const struct metric *all)
{
    for (const struct metric *metric = all; metric->name; metric++) {
        ck_assert_msg(strncmp(metric->name, "minivmm_", 8) == 0, "%s", metric->name);
        ck_assert_uint_eq(strspn(metric->name, "abcdefghijklmnopqrstuvwxyz_"),
                          strlen(metric->name));
        ck_assert_msg(ends_with(metric->name, "_total") == (metric->type == METRIC_COUNTER), "%s",
                      metric->name);
        ck_assert_msg((strstr(metric->name, "_seconds") != NULL) == metric->seconds, "%s",
                      metric->name);
        ck_assert_msg(metric->type != METRIC_HISTOGRAM || metric->seconds, "%s", metric->name);
        ck_assert_ptr_null(strpbrk(metric->help, "\\\n|"));
        ck_assert_msg(ends_with(metric->help, "."), "%s", metric->help);
        for (const struct metric *other = all; other < metric; other++) {
            ck_assert_str_ne(other->name, metric->name);
            bool same_group = strcmp(other->group, metric->group) == 0;
            ck_assert(!same_group || strcmp(other->key, metric->key) != 0);
            /* a group is a list, or it is not */
            ck_assert(!same_group || !other->index_label == !metric->index_label);
        }
    }
}

START_TEST(names_follow_the_rules_of_the_trade)
{
    check_names(metrics_table);
    check_names(protect_metrics);
    for (const struct metric *metric = protect_metrics; metric->name; metric++)
        for (const struct metric *other = metrics_table; other->name; other++)
            ck_assert(strcmp(metric->name, other->name) != 0 &&
                      strcmp(metric->group, other->group) != 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("metrics");
    TCase *text = tcase_create("text");
    tcase_add_test(text, each_metric_has_its_head_and_its_values);
    tcase_add_test(text, what_has_no_value_is_not_mentioned);
    tcase_add_test(text, buckets_include_those_before_them);
    tcase_add_test(text, a_name_of_any_bytes_stays_inside_its_quotes);
    tcase_add_test(text, a_name_of_many_bytes_is_written);
    tcase_add_test(text, a_part_tells_its_own_behind_the_others);
    suite_add_tcase(suite, text);
    TCase *json = tcase_create("json");
    tcase_add_test(json, json_says_the_same_by_places);
    suite_add_tcase(suite, json);
    TCase *real = tcase_create("table");
    tcase_add_test(real, the_document_lists_what_there_is);
    tcase_add_test(real, names_follow_the_rules_of_the_trade);
    suite_add_tcase(suite, real);
    return unit_main(suite);
}
