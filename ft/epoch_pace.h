/* SPDX-License-Identifier: MIT */
/*
 * How fast epochs follow each other, what is done to make them short, and what slows the guest
 * down: decided from the epochs that were. Pure.
 *
 *   when       early where output waits, late where nothing happens; the guest stands still for no
 *              more than its share of the time
 *   effort     as much as makes commits shortest: all ways are tried now and then, the worse the
 *              rarer; and as much as there is on a slow line (ft/slow_line.h)
 *   throttle   of a guest that writes so much that its pauses get long, or its output waits long;
 *              not of one whose host is busy
 */
#pragma once

#include "ft/epochs.h"

struct epoch_pace_config {
    uint64_t min_ns, max_ns; /* from the beginning of an epoch to that of the next; max_ns as
                                min_ns where that is more */
    unsigned pause_percent;
    unsigned throttle; /* at first, percent */
};

/* Why an epoch does not begin, or the guest does not run, as soon as it could. */
enum pace_reason {
    PACE_FREE,   /* nothing holds it up */
    PACE_TWIN,   /* epochs wait to be acknowledged */
    PACE_PAUSE,  /* the pauses have had their share of the time */
    PACE_MEMORY, /* the guest writes too much memory for short pauses, and is slowed down */
};

struct epoch_pace {
    struct epoch_pace_config config;
    uint64_t judged; /* the last epoch that was looked at */
    enum page_effort effort;
    bool tries;             /* it is not known to be the best one */
    unsigned since;         /* epochs that said something, of this effort, or since the last try */
    enum page_effort tried; /* last */
    double cost[PAGE_EFFORTS]; /* of a page in a commit; 0: not known */
    unsigned slow;       /* epochs that lately said that the line is slow, SLOW_SURE at most */
    unsigned slow_since; /* epochs since the last one that told anything of the line... */
    double line_cost;    /* ...which had each byte for so long, in ns */
    double run;          /* part of the time that the guest has for itself, and... */
    unsigned throttle;   /* ...percent that it has not */
    uint64_t slowed;     /* the last epoch that took some of it away */
};

void epoch_pace_init(struct epoch_pace *pace, const struct epoch_pace_config *config);
/* When the next epoch begins that follows one of `began_ns` with that pause. */
uint64_t epoch_pace_due(const struct epoch_pace *pace, uint64_t began_ns, uint64_t pause_ns,
                        bool pressed, enum pace_reason *ret_reason);
/* One that was acknowledged; in order. */
void epoch_pace_judge(struct epoch_pace *pace, const struct epoch_record *record);

/* Whether what leaves before a pause makes it shorter; on a slow line the guest would only write
 * more meanwhile. */
bool epoch_pace_sends_early(const struct epoch_pace *pace);

/* How long the guest may go on writing after a pause while so many bytes leave, at most; 0: until
 * the next pause. */
uint64_t epoch_pace_leave_ns(const struct epoch_pace *pace, uint64_t bytes);
/* By how many percent all of this slowed down a guest that had so long between two pauses, and
 * hardly ran for some of it. */
unsigned epoch_pace_slowed(const struct epoch_pace *pace, uint64_t braked_ns, uint64_t ran_ns);

const char *epoch_pace_reason_name(enum pace_reason reason); /* "the twin" */
