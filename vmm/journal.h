/* SPDX-License-Identifier: MIT */
/*
 * journal.jsonl: what befell a VM, one JSON object a line, so that its availability can be told.
 *
 *   {"at": 1763712000.123, "boot": "9f3c1e5a77d04b21", "since_boot": 8123.456, "event": "start",
 *    "pid": 4711}
 *
 * `at` is what the wall clock showed, which people set. `since_boot` is by a clock that nobody
 * sets, of the host's boot that is named: what lies between two lines of one boot is told by that,
 * and the last line of a boot says what time of day it all was. Lines from before there were these
 * two, and "lost", have `at` alone.
 *
 *   start     the machine runs                      stop     asked for: by a person, or the guest's
 *   crash     the guest crashed; "reason"                    own power-off; "by"
 *   lost      found at the next start: the VMM or its host died; "at" is the last sign of life
 *   pause     stood still for "ms" of more than 100, which are over at "at"; "why"
 *   clock     the wall clock was set since the last line: what is later is by another one
 *
 * and of a VM that is protected (docs/fault-tolerance.md), spans in ms by a clock that nobody sets:
 *
 *   protected    a twin can go on; "peer", "generation", "after_ms": how long it could not
 *   alone        the twin is gone; "why", "silent_ms": since it was heard last
 *   solo         it runs without a twin, output is free; "why", "held_ms": that output had waited
 *   deposed      another host has it: what it did here for "held_ms" counts no more, and nobody saw
 *                it; "stop" follows
 *   unprotected  nobody wants it to be protected any more
 *   takeover     it goes on here, where its twin was; the next "start" says that it does;
 *                "planned": it was handed over; "why"; "detect_ms": from its owner's last sign
 *                until that one was given up; "decide_ms": until the witness had said yes;
 *                "load_ms": until it could run; "gap_ms": until then since the last moment of
 *                which it is known here that output before it was let go; "ran_ms",
 *                "protected_ms": since when it had run elsewhere, and could have been taken over,
 *                as far as is known here
 *   output       "silent_ms": the same as gap_ms, until the first frame of the guest left here;
 *                only where that was soon
 *   forced       a person took the VM for this folder, from another one; "generation"
 *
 * The journal is appended to with one write(2) a line, and is the VM's, not the run's: it stays. A
 * sign of life is the file's own time of change: journal_tick touches it every few seconds.
 * A torn last line (power cut) is passed over. A journal that cannot be written costs a warning,
 * and never the VM.
 */
#pragma once

#include "core/err.h"
#include <jansson.h>

enum { JOURNAL_BOOT = 16 }; /* digits: enough to tell a host's boots from each other */

struct journal {
    int fd;    /* -1: none; then nothing is written, and nothing is wrong */
    int error; /* of the last line or tick that could not be written, -errno; the next one is tried
                  all the same */
    char boot[JOURNAL_BOOT + 1]; /* ""; not known */
    double born;                 /* when that was, by the wall clock as it was last */
};

enum { JOURNAL_TICK_SECONDS = 10, JOURNAL_PAUSE_MS = 100, JOURNAL_INHERITED = 4 << 20 };

/* Says "lost" first where the last run did not end. folder_fd is the VM's folder. A copy's journal
 * is its original's: identity_settle has removed it. A new one belongs to the folder's owner. */
int journal_open(struct journal *ret_journal, int folder_fd, struct err *err) must_check;
void journal_close(struct journal *journal);

/* The VM's journal from a folder that nobody runs it from any more, to the end of another one's:
 * the last of it, JOURNAL_INHERITED bytes at most. Where its last run has not ended, it ends there.
 */
int journal_inherit(int from_folder, int to_folder, struct err *err) must_check;

/* Whether the last line is of a run that has not ended: of a copy, that its original ran then. */
bool journal_is_of_a_run(int folder_fd);

void journal_start(struct journal *journal);
void journal_stop(struct journal *journal, const char *by); /* "guest", "person", "signal" */
void journal_crash(struct journal *journal, const char *reason);
void journal_pause(struct journal *journal, const char *why, uint64_t ms);
/* One of the others. Takes fields over; NULL: no memory for them. */
void journal_say(struct journal *journal, const char *event, json_t *fields);
void journal_tick(struct journal *journal); /* says "clock" where that was set */

/*
 * Over a period: seconds, and counts. From a start on it is up; from a crash or a loss on, down;
 * from a stop on, asked_down; each until the next start. MTTF is up / failures, MTTR the mean of
 * how long failures kept it down, MTBF their sum.
 *
 * Of a VM that is protected a journal knows what was so at its own host. A loss while a twin could
 * go on, and all that follows a switchover to another host, is `elsewhere`: neither up nor down,
 * until a start here shows that nobody went on (then it was down), or a takeover says since when it
 * had run elsewhere. A takeover is a failure, its gap is down. Output that waited for the witness
 * is down, too, and no failure. A switchover's gap is a pause.
 */
struct journal_report {
    double from, to;             /* seconds since 1970; from is not before the first line */
    double up, down, asked_down; /* down: it should have run; asked_down: somebody wanted it off */
    double paused;               /* part of up */
    unsigned starts, stops, failures, pauses;
    double mtbf, mttf, mttr; /* seconds; NAN where nothing failed, or no end of it is known here */
    double worst;            /* the longest time that it was down; 0: it never was */

    double elsewhere;                /* not known here */
    double held;                     /* part of down: output waited, and no twin took over */
    unsigned takeovers, switchovers; /* to here, or (switchovers) from here */
    unsigned sightless;              /* failures whose end is not known here */
    unsigned twins_lost;             /* while it ran here */
    double gap, gap_worst;           /* of takeovers: the mean, the longest; NAN: there was none */
    double detect_worst;             /* of them: until the host was given up */
    double silence_worst;            /* until the first frame; NAN: none came soon */
    double switch_worst;             /* the longest gap of a switchover to here; NAN */
    double protected, unprotected;   /* up, and somebody wanted it to be protected */
    double unprotected_longest;      /* at a stretch */
    double availability;             /* up / (up + down); NAN where neither */
};

/*
 * `now`, the present, closes what is open: `running` says whether it runs; if it does not, and no
 * line says why, that is a failure since the last sign of life. from 0: since the first line. Lines
 * that make no sense are passed over; time that a clock set back makes negative counts as none. No
 * journal as yet: a report of nothing.
 */
int journal_report(int folder_fd, double from, double now, bool running,
                   struct journal_report *ret_report, struct err *err) must_check;
