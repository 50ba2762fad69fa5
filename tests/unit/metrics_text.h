/* SPDX-License-Identifier: MIT */
/*
 * A reader of Prometheus's text format that believes nothing (exposition format 0.0.4): every line
 * is a HELP, a TYPE or a sample; the samples of a metric stand together, behind its HELP and TYPE;
 * none comes twice; names, labels and numbers have their shape; counters end in _total; a
 * histogram's buckets grow, end in +Inf, and agree with its count.
 */
#pragma once

#include "tests/unit/unit.h"
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_MAX_METRICS = 64, TEXT_MAX_SERIES = 8192 };

struct text_reader {
    char *names[TEXT_MAX_METRICS];
    unsigned name_count;
    bool typed; /* the last name has its TYPE */
    char type[16];
    char *series[TEXT_MAX_SERIES]; /* with their labels, as written */
    unsigned series_count;
    /* The histogram that is under way. */
    double bucket_le, bucket_count;
    bool has_infinity;
};

/* A name at *at, which moves behind it. */
static inline char *text_name(const char **at)
{
    const char *begin = *at;
    while (isalnum((unsigned char)**at) || **at == '_' || **at == ':')
        ++*at;
    ck_assert_msg(*at > begin && !isdigit((unsigned char)*begin), "no name: %.40s", begin);
    return strndup(begin, (size_t)(*at - begin));
}

static inline void text_expect(const char **at, char c)
{
    ck_assert_msg(**at == c, "'%c' expected: %.60s", c, *at);
    ++*at;
}

static inline double text_number(const char **at)
{
    char *end;
    double value = strtod(*at, &end);
    ck_assert_msg(end > *at, "no number: %.40s", *at);
    *at = end;
    return value;
}

/* Behind the opening quote, to behind the closing one. */
static inline void text_value(const char **at)
{
    for (; **at != '"'; ++*at) {
        ck_assert_msg(**at && **at != '\n', "a value without an end");
        if (**at == '\\') {
            ++*at;
            ck_assert_msg(**at == '\\' || **at == '"' || **at == 'n', "\\%c", **at);
        }
    }
    ++*at;
}

static inline void text_comment(struct text_reader *reader, const char **at)
{
    bool help = strncmp(*at, "# HELP ", 7) == 0;
    ck_assert_msg(help || strncmp(*at, "# TYPE ", 7) == 0, "%.40s", *at);
    *at += 7;
    char *name = text_name(at);
    text_expect(at, ' ');
    size_t length = strcspn(*at, "\n");
    ck_assert_uint_gt(length, 0);
    if (help) {
        for (unsigned i = 0; i < reader->name_count; i++)
            ck_assert_msg(strcmp(reader->names[i], name) != 0, "%s comes twice", name);
        ck_assert_uint_lt(reader->name_count, TEXT_MAX_METRICS);
        ck_assert_ptr_null(memchr(*at, '\\', length));
        reader->names[reader->name_count++] = name;
        reader->typed = false;
    } else {
        ck_assert_uint_gt(reader->name_count, 0);
        ck_assert_str_eq(reader->names[reader->name_count - 1], name);
        ck_assert(!reader->typed);
        free(name);
        ck_assert_uint_lt(length, sizeof(reader->type));
        memcpy(reader->type, *at, length);
        reader->type[length] = '\0';
        ck_assert(strcmp(reader->type, "counter") == 0 || strcmp(reader->type, "gauge") == 0 ||
                  strcmp(reader->type, "histogram") == 0);
        reader->typed = true;
    }
    *at += length;
}

/* What comes behind the metric's name in this sample's: "", "_bucket", "_sum" or "_count". */
static inline const char *text_suffix(const struct text_reader *reader, const char *name)
{
    ck_assert_msg(reader->typed, "%s has no TYPE", name);
    const char *metric = reader->names[reader->name_count - 1];
    size_t length = strlen(metric);
    ck_assert_msg(strncmp(name, metric, length) == 0, "%s stands with %s", name, metric);
    bool total = length > 6 && strcmp(metric + length - 6, "_total") == 0;
    ck_assert_int_eq(total, strcmp(reader->type, "counter") == 0);
    if (strcmp(reader->type, "histogram") != 0)
        ck_assert_str_eq(name, metric);
    return name + length;
}

static inline void text_histogram(struct text_reader *reader, const char *suffix, double le,
                                  double value)
{
    if (strcmp(suffix, "_bucket") == 0) {
        if (reader->has_infinity || reader->bucket_le < 0) {
            reader->has_infinity = false;
            reader->bucket_count = 0;
            reader->bucket_le = 0;
        }
        ck_assert(le > reader->bucket_le && value >= reader->bucket_count);
        reader->bucket_le = le;
        reader->bucket_count = value;
        reader->has_infinity = isinf(le);
    } else if (strcmp(suffix, "_count") == 0) {
        ck_assert(reader->has_infinity && value == reader->bucket_count); /* NOLINT */
        reader->bucket_le = -1;
    } else {
        ck_assert_str_eq(suffix, "_sum");
        ck_assert(reader->has_infinity);
    }
}

static inline void text_sample(struct text_reader *reader, const char **at)
{
    const char *begin = *at;
    double le = 0;
    char *name = text_name(at);
    text_expect(at, '{');
    do {
        char *label = text_name(at);
        ck_assert_ptr_null(strchr(label, ':'));
        text_expect(at, '=');
        text_expect(at, '"');
        if (strcmp(label, "le") == 0)
            le = strtod(*at, NULL);
        text_value(at);
        free(label);
    } while (**at == ',' && ++*at);
    text_expect(at, '}');
    char *series = strndup(begin, (size_t)(*at - begin));
    for (unsigned i = 0; i < reader->series_count; i++)
        ck_assert_msg(strcmp(reader->series[i], series) != 0, "%s comes twice", series);
    ck_assert_uint_lt(reader->series_count, TEXT_MAX_SERIES);
    reader->series[reader->series_count++] = series;
    text_expect(at, ' ');
    double value = text_number(at);
    ck_assert(value >= 0);
    const char *suffix = text_suffix(reader, name);
    if (*suffix)
        text_histogram(reader, suffix, le, value);
    free(name);
}

/* The whole text keeps the rules. Returns how many samples there are. */
static inline unsigned text_check(const char *text, size_t length)
{
    static struct text_reader reader;
    const char *at = text;
    reader = (struct text_reader){.bucket_le = -1};
    ck_assert_uint_eq(strlen(text), length);
    while (*at) {
        if (*at == '#')
            text_comment(&reader, &at);
        else
            text_sample(&reader, &at);
        text_expect(&at, '\n');
    }
    unsigned count = reader.series_count;
    while (reader.series_count > 0)
        free(reader.series[--reader.series_count]);
    while (reader.name_count > 0)
        free(reader.names[--reader.name_count]);
    return count;
}

/* The value of the first of this name whose labels end so ("": any). -1: there is none. */
static inline double text_find(const char *text, const char *name, const char *labels)
{
    size_t length = strlen(name);
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, name, length) != 0 || line[length] != '{')
            continue;
        const char *end = strchr(line, '\n');
        const char *brace = memrchr(line, '}', (size_t)(end - line));
        size_t wanted = strlen(labels);
        if (wanted == 0 ||
            (strncmp(brace - wanted, labels, wanted) == 0 && brace[-(ptrdiff_t)wanted - 1] == ','))
            return strtod(brace + 1, NULL);
    }
    return -1;
}
