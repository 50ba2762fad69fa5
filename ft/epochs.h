/* SPDX-License-Identifier: MIT */
/*
 * The last epochs of a protected VM, one record each, and what they come to: why a guest stood
 * still, how long its output waited, what went over. Any thread.
 */
#pragma once

#include "core/err.h"
#include "core/histogram.h"
#include "ft/page_frames.h"

#include <jansson.h>
#include <pthread.h>

enum { EPOCHS_KEPT = 16384 };

/* What ended it. */
enum epoch_cause { EPOCH_OUTPUT = 1, EPOCH_TIME, EPOCH_DISK, EPOCH_SET, EPOCH_FIRST, EPOCH_LAST };

struct epoch_record {
    uint64_t epoch;
    uint64_t began_ns;                                         /* monotonic, of its pause */
    uint64_t pause_ns, stop_ns, state_ns, pages_ns, resume_ns; /* stop to resume: its parts */
    uint64_t send_ns;   /* from the resume until all of it was sent */
    uint64_t commit_ns; /* from the pause until it was acknowledged; 0: not yet */
    uint64_t line_ns;   /* of that, with the line, and not with who writes or reads; until then what
                           the line's count was at the pause (link_line_ns) */
    uint64_t pages, wire_bytes, disk_bytes, held_bytes;
    uint64_t kinds[4]; /* pages by enum page_encoding */
    enum epoch_cause cause;
    enum page_effort effort;
};

struct epochs {
    pthread_mutex_t lock;
    struct epoch_record *ring;
    uint64_t count, last_epoch; /* of all time; the newest one's number */
    uint64_t pages, wire_bytes; /* of all time, as these: */
    struct histogram pauses, commits;
};

struct epochs_total {
    uint64_t count, pages, wire_bytes;
    struct histogram_reading pauses, commits;
};

int epochs_init(struct epochs *epochs, struct err *err) must_check;
void epochs_finish(struct epochs *epochs); /* zeroed is fine */

/* Numbers grow by one. */
void epochs_add(struct epochs *epochs, const struct epoch_record *record);
/* What is known of it only now. */
void epochs_note_sent(struct epochs *epochs, uint64_t epoch, uint64_t send_ns, uint64_t wire_bytes,
                      const uint64_t kinds[4]);
void epochs_note_acked(struct epochs *epochs, uint64_t epoch, uint64_t now, uint64_t line_ns);

/* False: it is not there any more. */
bool epochs_find(struct epochs *epochs, uint64_t epoch, struct epoch_record *ret_record);

/* For people: the last of them; and sums over as many as there are of the last `window`. */
json_t *epochs_list(struct epochs *epochs, unsigned most);
json_t *epochs_sum_up(struct epochs *epochs, unsigned window);
/* For metrics: of all time. */
void epochs_read_total(struct epochs *epochs, struct epochs_total *ret_total);
