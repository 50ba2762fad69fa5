/* SPDX-License-Identifier: MIT */
/*
 * A twin's disks, brought up to date by who runs the VM: where either side may differ
 * (ft/changes.h) both sum up small blocks, and only those that do differ leave. The guest runs on;
 * what it writes meanwhile is sent again as with a copy (ft/departure.h follows the disks already).
 */
#pragma once

#include "ft/changes.h"
#include "ft/departure.h"
#include "ft/resync_talk.h"

enum { RESYNC_WINDOW = 16 }; /* LOOKs that are not answered */

struct resync_answer {
    struct resync_look look;
    uint8_t sums[RESYNC_SUMS];
};

struct resync {
    struct resync_base base;
    uint8_t key[SIPHASH_KEY];
    _Atomic uint64_t marked, sums; /* bytes of regions that were looked at; and of their sums */

    pthread_mutex_t lock; /* of the rest */
    pthread_cond_t changed;
    bool over; /* nobody answers any more, or nobody wants it */
    unsigned asked, answered, used;
    struct resync_answer answers[RESYNC_WINDOW];
};

/* Takes over the base's bits. */
int resync_create(struct resync **ret_resync, const struct resync_base *base,
                  struct err *err) must_check;
void resync_destroy(struct resync *resync); /* nobody uses it; NULL is fine */
bool resync_is_delta(const struct resync *resync);

/* The sender's: all disks, after departure_follow. */
int resync_send_disks(struct resync *resync, struct departure *departure, struct changes *changes,
                      struct err *err) must_check;
/* Who listens: a LOOKED has come. */
int resync_take(struct resync *resync, struct stream_buffer *payload, struct err *err) must_check;
void resync_end(struct resync *resync); /* who sends waits no longer. Any thread; NULL is fine */
