/* SPDX-License-Identifier: MIT */
/*
 * The two writers. The text (Prometheus, exposition format 0.0.4) is lines; each metric has its
 * HELP and TYPE ahead, then all its values:
 *
 *   # HELP minivmm_disk_errors_total Requests that were answered with an error.
 *   # TYPE minivmm_disk_errors_total counter
 *   minivmm_disk_errors_total{vm="web1",uuid="6f1e...",disk="0",op="read"} 0
 *
 * A histogram's buckets count all that took at most `le` seconds, so each includes those before it.
 * In a label's value backslash, quote and newline are escaped by a backslash, and all is UTF-8.
 */
#include "vmm/metrics.h"

#include "core/clock.h"
#include "vmm/control_wire.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static void walk(const struct metric *table, const struct metrics_source *source,
                 struct metrics_sink *sink)
{
    for (const struct metric *metric = table; metric->name; metric++)
        metric->tell(metric, source, sink);
    for (const struct metric *metric = source->part_table; metric && metric->name; metric++)
        metric->tell(metric, source, sink);
}

/* --- text ------------------------------------------------------------------------------------- */

struct text_sink {
    struct metrics_sink sink;
    FILE *to;
    const struct metric *metric; /* whose HELP and TYPE were written last */
    char *vm;                    /* escaped */
    const char *uuid;
};

static char *escape_label(const char *text)
{
    json_t *sound = wire_text(text);
    const char *from = json_string_value(sound);
    char *escaped = from ? malloc(2 * json_string_length(sound) + 1) : NULL;
    char *to = escaped;
    for (; escaped && *from; from++) {
        if (*from == '\\' || *from == '"' || *from == '\n')
            *to++ = '\\';
        *to++ = *from == '\n' ? 'n' : *from;
    }
    if (escaped)
        *to = '\0';
    json_decref(sound);
    return escaped;
}

static void write_head(struct text_sink *text, const struct metric *metric)
{
    static const char *const types[] = {
        [METRIC_COUNTER] = "counter", [METRIC_GAUGE] = "gauge", [METRIC_HISTOGRAM] = "histogram"};
    if (text->metric == metric)
        return;
    text->metric = metric;
    fprintf(text->to, "# HELP %s %s\n# TYPE %s %s\n", metric->name, metric->help, metric->name,
            types[metric->type]);
}

/* All but the closing brace. */
static void write_name(struct text_sink *text, const struct metric *metric, const char *suffix,
                       int index, const char *word)
{
    fprintf(text->to, "%s%s{vm=\"%s\",uuid=\"%s\"", metric->name, suffix, text->vm, text->uuid);
    if (metric->index_label)
        fprintf(text->to, ",%s=\"%d\"", metric->index_label, index);
    if (metric->word_label)
        fprintf(text->to, ",%s=\"%s\"", metric->word_label, word);
}

/* By hand, so that it is exact and no locale puts a comma there. */
static void write_seconds(FILE *to, uint64_t ns)
{
    fprintf(to, "%" PRIu64 ".%09" PRIu64, (uint64_t)(ns / NS_PER_SEC), (uint64_t)(ns % NS_PER_SEC));
}

static void write_number(struct metrics_sink *sink, const struct metric *metric, int index,
                         const char *word, uint64_t value)
{
    struct text_sink *text = container_of(sink, struct text_sink, sink);
    write_head(text, metric);
    write_name(text, metric, "", index, word);
    fputs("} ", text->to);
    if (metric->seconds)
        write_seconds(text->to, value);
    else
        fprintf(text->to, "%" PRIu64, value);
    fputc('\n', text->to);
}

static void write_histogram(struct metrics_sink *sink, const struct metric *metric, int index,
                            const char *word, const struct histogram_reading *reading)
{
    struct text_sink *text = container_of(sink, struct text_sink, sink);
    uint64_t count = 0;
    write_head(text, metric);
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        count += reading->buckets[i];
        write_name(text, metric, "_bucket", index, word);
        fputs(",le=\"", text->to);
        if (i < HISTOGRAM_BOUNDS)
            write_seconds(text->to, histogram_bound(i));
        else
            fputs("+Inf", text->to);
        fprintf(text->to, "\"} %" PRIu64 "\n", count);
    }
    write_name(text, metric, "_sum", index, word);
    fputs("} ", text->to);
    write_seconds(text->to, reading->sum);
    fputc('\n', text->to);
    write_name(text, metric, "_count", index, word);
    fprintf(text->to, "} %" PRIu64 "\n", count);
}

int metrics_text(const struct metric *table, const struct metrics_source *source, char **ret_text,
                 size_t *ret_length)
{
    char *bytes = NULL;
    size_t length = 0;
    struct text_sink text = {.sink = {.number = write_number, .histogram = write_histogram},
                             .to = open_memstream(&bytes, &length),
                             .vm = escape_label(source->vm),
                             .uuid = source->uuid};
    bool sound = text.to && text.vm;
    if (sound) {
        walk(table, source, &text.sink);
        sound = !ferror(text.to);
    }
    if (text.to && fclose(text.to) != 0)
        sound = false;
    free(text.vm);
    if (!sound) {
        free(bytes);
        return -ENOMEM;
    }
    *ret_text = bytes;
    *ret_length = length;
    return 0;
}

/* --- JSON ------------------------------------------------------------------------------------- */

struct json_sink {
    struct metrics_sink sink;
    json_t *root;
    bool failed;
};

/* The object at `key`, made where there is none. */
static json_t *enter(json_t *object, const char *key)
{
    json_t *inner = json_object_get(object, key);
    if (!inner && json_object_set_new(object, key, json_object()) == 0)
        inner = json_object_get(object, key);
    return inner;
}

/* The same of a list; objects that nobody has told of stay empty. */
static json_t *enter_list(json_t *object, const char *key, size_t index)
{
    json_t *list = json_object_get(object, key);
    if (!list && json_object_set_new(object, key, json_array()) == 0)
        list = json_object_get(object, key);
    while (list && json_array_size(list) <= index)
        if (json_array_append_new(list, json_object()) < 0)
            return NULL;
    return json_array_get(list, index);
}

/* The value becomes the object's. */
static void put(struct metrics_sink *sink, const struct metric *metric, int index, const char *word,
                json_t *value)
{
    struct json_sink *json = container_of(sink, struct json_sink, sink);
    json_t *object = metric->index_label ? enter_list(json->root, metric->group, (size_t)index)
                                         : enter(json->root, metric->group);
    if (metric->word_label)
        object = enter(object, metric->key);
    const char *key = metric->word_label ? word : metric->key;
    if (json_object_set_new(object, key, value) < 0)
        json->failed = true;
}

/* JSON's whole numbers end at 2^63 here; a guest can tell larger ones. */
static json_t *to_integer(uint64_t value)
{
    return json_integer(value < INT64_MAX ? (json_int_t)value : INT64_MAX);
}

static json_t *to_number(const struct metric *metric, uint64_t value)
{
    return metric->seconds ? json_real((double)value / NS_PER_SEC) : to_integer(value);
}

static void put_number(struct metrics_sink *sink, const struct metric *metric, int index,
                       const char *word, uint64_t value)
{
    put(sink, metric, index, word, to_number(metric, value));
}

/* Buckets in which there is nothing are left out, and here none includes another. */
static void put_histogram(struct metrics_sink *sink, const struct metric *metric, int index,
                          const char *word, const struct histogram_reading *reading)
{
    json_t *buckets = json_array();
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        json_t *bound = i < HISTOGRAM_BOUNDS ? json_real((double)histogram_bound(i) / NS_PER_SEC)
                                             : json_null();
        json_t *bucket = json_pack("[o, o]", bound, to_integer(reading->buckets[i]));
        if (reading->buckets[i])
            json_array_append(buckets, bucket);
        json_decref(bucket);
    }
    put(sink, metric, index, word,
        json_pack("{so, sf, so}", "count", to_integer(reading->count), "sum",
                  (double)reading->sum / NS_PER_SEC, "buckets", buckets));
}

json_t *metrics_json(const struct metric *table, const struct metrics_source *source)
{
    struct json_sink json = {.sink = {.number = put_number, .histogram = put_histogram},
                             .root = json_object()};
    walk(table, source, &json.sink);
    if (!json.failed)
        return json.root;
    json_decref(json.root);
    return NULL;
}
