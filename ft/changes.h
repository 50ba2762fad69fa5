/* SPDX-License-Identifier: MIT */
/*
 * The note that a running VM keeps of where its disks may differ from those of the one other folder
 * of its lineage (ft/changes_file.h), whatever dies, power cut included:
 *
 *   mark    a region's bit is on stable storage before the first write to it begins: that write,
 *           and all behind it, waits for a thread that syncs. Where the bit is there already it
 *           costs a look. Who writes in order finds the bits made ahead.
 *   cut     what was marked up to here is of epochs up to this one
 *   stored  the twin has all epochs up to this one on stable storage. When everything of the cut
 *           has ended and is on stable storage here, too, its regions are equal, and forgotten,
 *           unless they were written to since. In the file they stay for a while, so that the next
 *           write to what was written lately finds the bit there; whoever dies has more to compare.
 *
 * Of a new lineage all is marked until a first cut is stored: what a guest wrote before may be on
 * the twin's disks, and here in no more than the page cache. A flush that fails ends a lineage. Of
 * those that begin later while these disks are open nothing is forgotten, and there is no file:
 * what the disks lack is not known, and the page cache, which a comparison would see, has it.
 *
 * Who tries to have its twin at another host keeps the old lineage until nearly all is over there:
 * where that fails, the other folder of the old one still lacks only what was marked.
 *
 * Without a lineage nothing waits, and nothing is noted. Unless said otherwise: on the thread of
 * the machine's main loop, and `still` means that the disks' loops stand still.
 */
#pragma once

#include "ft/changes_file.h"
#include "host/disk.h"

struct changes;

struct changes_config {
    int folder;       /* the VM's, for as long as there is one of these */
    const char *name; /* the VM's, for people; stays */
    uint8_t uuid[16];
};

int changes_create(struct changes **ret_changes, const struct changes_config *config,
                   struct err *err) must_check;
/* A disk with point and tap in its row: before load and prepare. Where something is noted already
 * it is known. */
int changes_add_disk(struct changes *changes, struct disk *disk, uint32_t place,
                     struct err *err) must_check;

/* still: goes on with the file that is there, if it counts for something; else that goes, and the
 * log says why. ERR_STATE: these disks are a mix, and must not run. ERR_FAILED: it cannot be read,
 * and stays. */
int changes_load(struct changes *changes, struct err *err) must_check;
/*
 * Any thread: a file of a new lineage, of which nothing is known to be in common as yet, beside the
 * one that is there, and is kept on. *ret_keeps: there is one.
 */
int changes_prepare(struct changes *changes, const uint8_t lineage[CHANGES_LINEAGE],
                    bool *ret_keeps, struct err *err) must_check;
/* Any thread, after prepare, and soon before switch: it takes the old one's place in the folder. */
int changes_place(struct changes *changes, struct err *err) must_check;
/* still, after place: and from here on it is kept; but where a flush has failed since prepare, and
 * ended the old one, it ends this one, too. */
int changes_switch(struct changes *changes, struct err *err) must_check;
/* still: nothing is in common with anybody any more. */
void changes_drop(struct changes *changes);

/* Any thread. False: there is none. */
bool changes_lineage(struct changes *changes, uint8_t ret_lineage[CHANGES_LINEAGE]);
/* Any thread: the marks of a disk, into `words` (OR), changes_words() of it. False: no such. */
bool changes_find_disk(struct changes *changes, uint32_t place, struct changes_disk *ret_disk);
void changes_read(struct changes *changes, const struct changes_disk *disk, uint64_t *words);

/* still. `all`: nothing is under way, and this epoch has all that is in common from here on. */
void changes_cut(struct changes *changes, uint64_t epoch, bool all);
void changes_note_stored(struct changes *changes, uint64_t epoch); /* any thread */

uint64_t changes_bytes(struct changes *changes); /* marked. Any thread */

/* The machine ends: nothing is written to the file any more, and what is not marked waits. */
void changes_quiet(struct changes *changes);
/* The machine is gone, and was quiet: what is changed from here on, others have changed. NULL is
 * fine. */
void changes_destroy(struct changes *changes);
