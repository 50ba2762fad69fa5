/* SPDX-License-Identifier: MIT */
/*
 * Which pages of guest RAM were written: KVM's log for what vCPUs wrote, merged with the marks of
 * the one door (core/memory.h) for what we wrote. Bits are indexed by offset in guest
 * memory.
 *
 * The order inside a harvest is a contract: the bits are taken and cleared first, and the pages are
 * read by the caller afterwards, so that a write in between shows up in the next harvest. With all
 * vCPUs paused and devices stopped a harvest is exact.
 */
#pragma once

#include "core/memory.h"

struct dirty;

/*
 * Needs KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 switched on for this VM (dirty_prepare, before the slots
 * are logged). memory's range n is slot n.
 */
int dirty_prepare(int vm, struct err *err) must_check;
int dirty_create(struct dirty **ret_dirty, int vm, struct memory *memory,
                 struct err *err) must_check;
void dirty_destroy(struct dirty *dirty); /* stops first; NULL is fine */

/* From start on, every write is noted. What was written before is not. */
int dirty_start(struct dirty *dirty, struct err *err) must_check;
void dirty_stop(struct dirty *dirty);

/*
 * Moves all marks into `bitmap` (OR; one bit a page of guest memory, dirty_words() words) and says
 * how many bits it found.
 */
uint64_t dirty_words(const struct dirty *dirty);
int dirty_harvest(struct dirty *dirty, uint64_t *bitmap, uint64_t *ret_pages) must_check;
