/* SPDX-License-Identifier: MIT */
/*
 * journal.jsonl: what befell a VM, one JSON object a line, so that its availability can be told.
 *
 *   {"at": 1763712000.123, "event": "start", "pid": 4711}
 *
 *   start     the machine runs                      stop     asked for: by a person, or the guest's
 *   crash     the guest crashed; "reason"                    own power-off; "by"
 *   lost      found at the next start: the VMM or its host died; "at" is the last sign of life
 *   pause     stood still for "ms" of more than 100, which are over at "at"; "why"
 *   failover  later
 *
 * The journal is appended to with one write(2) a line, and is the VM's, not the run's: it stays. A
 * sign of life is the file's own time of change: journal_tick touches it every few seconds.
 * A torn last line (power cut) is passed over. A journal that cannot be written costs a warning,
 * and never the VM.
 */
#pragma once

#include "core/err.h"

struct journal {
    int fd;    /* -1: none; then nothing is written, and nothing is wrong */
    int error; /* of the last line or tick that could not be written, -errno; the next one is tried
                  all the same */
};

enum { JOURNAL_TICK_SECONDS = 10, JOURNAL_PAUSE_MS = 100 };

/* Says "lost" first where the last run did not end. folder_fd is the VM's folder. A copy's journal
 * is its original's: identity_settle has removed it. A new one belongs to the folder's owner. */
int journal_open(struct journal *ret_journal, int folder_fd, struct err *err) must_check;
void journal_close(struct journal *journal);

/* Whether the last line is of a run that has not ended: of a copy, that its original ran then. */
bool journal_is_of_a_run(int folder_fd);

void journal_start(struct journal *journal);
void journal_stop(struct journal *journal, const char *by); /* "guest", "person", "signal" */
void journal_crash(struct journal *journal, const char *reason);
void journal_pause(struct journal *journal, const char *why, uint64_t ms);
void journal_tick(struct journal *journal);

/*
 * Over a period: seconds, and counts. From a start on it is up; from a crash or a loss on, down;
 * from a stop on, asked_down; each until the next start. MTTF is up / failures, MTTR is down /
 * failures, MTBF their sum.
 */
struct journal_report {
    double from, to;             /* seconds since 1970; from is not before the first line */
    double up, down, asked_down; /* down: it should have run; asked_down: somebody wanted it off */
    double paused;               /* part of up */
    unsigned starts, stops, failures, pauses;
    double mtbf, mttf, mttr; /* seconds; NAN where nothing failed */
    double availability;     /* up / (up + down); NAN where neither */
};

/*
 * `now`, the present, closes what is open: `running` says whether it runs; if it does not, and no
 * line says why, that is a failure since the last sign of life. from 0: since the first line. Lines
 * that make no sense are passed over; time that a clock set back makes negative counts as none. No
 * journal as yet: a report of nothing.
 */
int journal_report(int folder_fd, double from, double now, bool running,
                   struct journal_report *ret_report, struct err *err) must_check;
