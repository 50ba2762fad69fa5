/* SPDX-License-Identifier: MIT */
/*
 * What a VM counts and measures, for programs: as JSON for `status`, and as text that Prometheus
 * reads. One table (metrics_table.c) says what there is and is walked by both writers, so what one
 * tells the other tells too; docs/metrics.md lists it, and a test holds the two together.
 *
 * All functions: on the machine's main loop.
 */
#pragma once

#include "core/histogram.h"
#include "vmm/machine.h"
#include <jansson.h>

enum metric_type {
    METRIC_COUNTER = 1, /* only grows, for as long as the process lives */
    METRIC_GAUGE,
    METRIC_HISTOGRAM, /* of durations */
};

struct metric;
struct metrics_sink;

struct metrics_source {
    struct machine *machine;
    const char *vm;   /* its name: any bytes */
    const char *uuid; /* as text */
    int64_t started;  /* the process, in seconds since 1970 */
    /* What a floor above adds: its own table, told behind the other one, and what that is told
     * from; or NULL. */
    const struct metric *part_table;
    void *part;
};

/*
 * One value of a metric. index and word tell the values of one metric apart: the number of a vCPU,
 * disk or interface (-1: there is only one), and a kind ("read"; NULL: there is only one).
 */
struct metrics_sink {
    void (*number)(struct metrics_sink *sink, const struct metric *metric, int index,
                   const char *word, uint64_t value);
    void (*histogram)(struct metrics_sink *sink, const struct metric *metric, int index,
                      const char *word, const struct histogram_reading *reading);
};

struct metric {
    const char *name; /* Prometheus's */
    const char *help; /* a sentence; no newline, no backslash */
    enum metric_type type;
    bool seconds; /* values are told in nanoseconds and written in seconds */
    /* In JSON: group[index].key.word, without what is not there. */
    const char *group, *key;
    const char *index_label, *word_label; /* in the text; NULL where there is none */
    /* Tells the sink all values of this metric, those of one index after the other. */
    void (*tell)(const struct metric *metric, const struct metrics_source *source,
                 struct metrics_sink *sink);
};

/* Ends with a NULL name. */
extern const struct metric metrics_table[];

/* The table walked, and the part's: an object, the caller's. NULL: no memory. */
json_t *metrics_json(const struct metric *table, const struct metrics_source *source);
/* Text exposition format 0.0.4; free it. -ENOMEM. */
int metrics_text(const struct metric *table, const struct metrics_source *source, char **ret_text,
                 size_t *ret_length) must_check;
