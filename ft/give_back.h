/* SPDX-License-Identifier: MIT */
/*
 * When a VM goes home by itself: to the host that vm.json prefers (ft.preferred), where another one
 * has it and all has been well for long enough. Pure, but for the text.
 *
 * A home that fails again and again must not have the VM again and again: each move home within a
 * day doubles the time that all has to be well before the next one, and after GIVE_BACK_MOST of
 * them it stays where it is until a day has passed since the last. Somebody who hands the VM over
 * to another host than home has a reason: it stays there until it has been home again, by whatever
 * way.
 *
 * What is remembered goes with the VM from host to host, as a file of its folder, home.json. So its
 * time is that of the day: who sets a clock makes the VM go home earlier or later, and no more.
 *
 *   {"moves": 2, "last_s": 1764000000, "stays": false}
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define GIVE_BACK_FILE "home.json"

enum { GIVE_BACK_MOST = 5, GIVE_BACK_DAY_S = 86400, GIVE_BACK_TEXT_MAX = 400 };

struct give_back_past {
    unsigned moves;  /* home, each within a day after the one before */
    uint64_t last_s; /* when the last was, since 1970 */
    bool stays;      /* somebody wants it elsewhere */
};

enum give_back_place {
    GIVE_BACK_UNKNOWN = 0, /* nobody has looked yet */
    GIVE_BACK_HERE,        /* this host is home */
    GIVE_BACK_PEER,        /* that of the twin is */
    GIVE_BACK_ELSEWHERE,   /* neither is */
};

struct give_back_facts {
    enum give_back_place home;
    bool paired;
    uint64_t paired_ns; /* since when, if it is */
    uint64_t after_ns;  /* so long all has to be well, at first */
    struct give_back_past past;
    uint64_t wall_s; /* now, since 1970 */
};

enum give_back_verdict {
    GIVE_BACK_AT_HOME = 1,
    GIVE_BACK_NOT_KNOWN, /* where home is */
    GIVE_BACK_AWAY,      /* home has no twin of it */
    GIVE_BACK_NO_TWIN,   /* nobody has */
    GIVE_BACK_STAYS,     /* somebody wants it here */
    GIVE_BACK_WAITS,     /* until all has been well for long enough */
    GIVE_BACK_TOO_OFTEN, /* until a day has passed */
    GIVE_BACK_MOVES,
};

struct give_back_plan {
    enum give_back_verdict verdict;
    uint64_t at_ns; /* WAITS, TOO_OFTEN: to be decided anew then */
};

struct give_back_plan give_back_decide(const struct give_back_facts *facts, uint64_t now);
const char *give_back_word(enum give_back_verdict verdict); /* "waits" */
const char *give_back_why(enum give_back_verdict verdict);  /* for people */

/* Somebody goes on with it, who had it handed over, or whose other side died. */
void give_back_note_takeover(struct give_back_past *past, enum give_back_place home, bool handed,
                             uint64_t wall_s);
/* It was to go home, and did not. */
void give_back_note_failure(struct give_back_past *past, uint64_t wall_s);

/* parse: false: it is none. What was later than now was just now: a clock was wrong. format: into
 * GIVE_BACK_TEXT_MAX bytes. */
bool give_back_parse(struct give_back_past *ret_past, const char *text, uint64_t wall_s);
void give_back_format(const struct give_back_past *past, char *ret_text);
