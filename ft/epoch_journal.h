/* SPDX-License-Identifier: MIT */
/*
 * The journal of a twin whose commit level is "durable": ".epochs" in its folder. What was
 * acknowledged survives that both hosts lose power, though the disks' files are not synced for it.
 *
 *   DISK...          which disks there are, by their names      } epoch 0
 *   OPEN             no more of these                           }
 *   BLOCKS, COMMIT   of an epoch; of the next one ...             their generation and epoch
 *
 * in frames (ft/frames.h). An epoch without blocks has nothing that a disk could lack, and is not
 * in it: its memory and state end with the twin's process, whatever is written, and which epoch was
 * the last one nobody asks: who may run the VM the witness says.
 *
 * Rules:
 *   1. All epochs are of one generation, each has a higher number than the one before, and all of
 *      its blocks lie in the disks.
 *   2. It ends where a frame is not whole or has no higher number, or an epoch has no COMMIT: that
 *      was never acknowledged. A frame that is whole and out of its place is an error.
 *
 * What is where, and when, so that a power cut between any two steps leaves the disks behind the
 * journal, and never before its beginning:
 *
 *   an epoch comes    in the journal, and that is synced; acknowledged; then in the disks' files
 *   it grows long     the disks are synced; it is cut behind OPEN, and that is synced; goes on
 *   the VM is ours    the disks are synced; the name is removed, and that is synced; the VM runs
 *   a start           all epochs in their order, from the first one: again what a disk had already
 *                     does no harm, as long as the rest follows. Then as above.
 *
 * One thread at a time.
 */
#pragma once

#include "ft/arrival_folder.h"

struct epoch_journal;

enum { EPOCH_JOURNAL_LONGEST = 64 << 20 };

/* The folder and its disks stay the caller's, and are there for as long as this is. longest: bytes
 * of epochs; one alone may have more. */
int epoch_journal_create(struct epoch_journal **ret_journal, struct arrival_folder *folder,
                         uint64_t longest, struct err *err) must_check;
void epoch_journal_destroy(struct epoch_journal *journal); /* the file stays; NULL is fine */

/* A BLOCKS frame of the epoch that is coming in, and its payload. */
int epoch_journal_put(struct epoch_journal *journal, const struct frame *frame,
                      const uint8_t *payload, struct err *err) must_check;
/* It is all here: on stable storage when this returns. After an error nothing more may come. */
int epoch_journal_commit(struct epoch_journal *journal, uint64_t generation, uint64_t epoch,
                         struct err *err) must_check;
/* The epoch is in the disks' files, too. Syncs them where it has grown long. */
int epoch_journal_applied(struct epoch_journal *journal, struct err *err) must_check;
/* The disks are synced: what it has is needed no more, and what was not committed is dropped. */
int epoch_journal_end(struct epoch_journal *journal, struct err *err) must_check;

/* --- where the twin is no more ---------------------------------------------------------------- */

struct epoch_replay {
    uint64_t epochs, blocks; /* that are on the disks now */
    uint64_t torn;           /* bytes that were dropped behind them */
};

/*
 * Puts what a journal in this folder has onto the disks there, and removes it; 0 where there is
 * none, too. The caller has the folder for itself, and opens its disks only afterwards: nothing has
 * changed them since. Whoever wrote it is not trusted: names stay in the folder, and are those of
 * disks' files. After an error it is still there, and the next try begins anew.
 */
int epoch_journal_replay(int folder, const char *path, struct epoch_replay *ret_replay,
                         struct err *err) must_check;
/* The disks are others now. */
int epoch_journal_remove(int folder, struct err *err) must_check;
