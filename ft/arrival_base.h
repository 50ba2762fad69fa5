/* SPDX-License-Identifier: MIT */
/*
 * The disks that a twin's host has already, of the VM's former folder there (ft/former.h): they go
 * on as the twin's own, under a second name, and only what differs has to come. Until the twin is
 * whole the former folder keeps them, and its note of where they may differ, so that whoever dies
 * meanwhile the next try begins as this one did.
 */
#pragma once

#include "ft/arrival_folder.h"

/* The folder has its name, and a former one may be put aside: base.why is "" where its note is of
 * the other side's lineage. One that cannot be read is an error. */
int arrival_base_find(struct arrival_folder *folder, const uint8_t uuid[16],
                      const struct following *following, struct err *err) must_check;
/* All disks have come: each is the former one's, or none is, and they are made (base.why). */
int arrival_base_adopt(struct arrival_folder *folder, struct err *err) must_check;
/* Before anything is written to a disk: on stable storage, the former folder's are a mix. */
int arrival_base_mix(struct arrival_folder *folder, struct err *err) must_check;
/* What was written to the disks may be on none, though it reads as if it were: sums would not tell.
 * The former folder stays the mix that it is, and has nothing in common with anybody. */
void arrival_base_doubt(struct arrival_folder *folder);
int arrival_base_sum(struct arrival_folder *folder, const struct resync_look *look,
                     uint8_t ret_sums[RESYNC_SUMS], struct err *err) must_check;

/* The twin is whole, and its disks are on stable storage: from here on it has the lineage. Before
 * arrival_folder_settle. */
int arrival_base_settle(struct arrival_folder *folder, const uint8_t uuid[16],
                        const struct following *following, struct err *err) must_check;
/* It was a twin to the end, and nothing is written to its disks any more. */
void arrival_base_rest(const struct arrival_folder *folder);
void arrival_base_finish(struct arrival_folder *folder);
