/* SPDX-License-Identifier: MIT */
/*
 * Guest memory on its way out, while the guest runs: all of it, then again what was written
 * meanwhile, until little is left; that little is copied aside while the machine stands still, and
 * leaves when it runs again.
 *
 *   begin     writes are noted from here on
 *   all       (any thread; slow)
 *   round     what was written since the last one, and so on; or, all of this at once:
 *   rounds    until it is little
 *   capture   the machine stands still: what was written since the last round is copied aside
 *   rest      what was copied aside leaves (any thread)
 *   end       writes are no longer noted
 *
 * Where the machine goes on elsewhere nothing has to be copied aside: it stands still, and another
 * round is the last.
 *
 * One way for snapshots, migration and fault tolerance; who takes the pages is a sink.
 */
#pragma once

#include "vmm/dirty.h"
#include "vmm/machine.h"

#include <stdatomic.h>

/* Whole pages, at their offset in guest memory (core/memory.h). The bytes stand still, but where
 * the sink copies them before it looks twice. A page that never comes holds zeroes. */
struct pages_sink {
    int (*put)(void *ctx, uint64_t offset, const uint8_t *bytes, size_t length, struct err *err);
    void *ctx;
    bool copies;
};

enum { PAGES_KEEP_S = 60 };

struct pages {
    struct machine *machine;
    const struct pages_sink *sink;
    const atomic_bool *given_up; /* rounds and rest end early: -ECANCELED */

    struct dirty *dirty;
    uint64_t *written; /* one bit a page: to be sent */
    uint64_t words, count;
    uint8_t *host;   /* guest memory */
    uint8_t *bounce; /* what stands still for a sink */

    uint8_t *aside; /* `room` pages, of which `held` are in use... */
    uint32_t *held_pages;
    uint64_t room, held; /* ...by these pages */
    uint64_t mapped;     /* pages of memory that it has: what is more than `room` goes, in pieces */
    uint64_t peak, peak_before, turned_ns; /* the most that was asked for of late, and before */
    _Atomic uint64_t copied;

    /* For people: */
    unsigned rounds;
    _Atomic uint64_t touched; /* pages that may hold something: what the first round has to do */
    _Atomic uint64_t sent;    /* pages */
    uint64_t captured;        /* pages that were written since the last round */
};

/* Zeroed but for the first three. */
int pages_begin(struct pages *pages, struct err *err) must_check;
int pages_all(struct pages *pages, struct err *err) must_check;
int pages_round(struct pages *pages, uint64_t *ret_pages, struct err *err) must_check;
int pages_rounds(struct pages *pages, struct err *err) must_check;
/* Room aside for what is written in between, where the last time it was so much (pages). Between a
 * rest and a capture. Where it was much less for PAGES_KEEP_S the rest is given back, a piece with
 * each call. */
int pages_make_room(struct pages *pages, uint64_t last, struct err *err) must_check;
/* More than was made ready for goes to the sink at once, while the machine stands still. */
int pages_capture(struct pages *pages, struct err *err) must_check;
int pages_rest(struct pages *pages, struct err *err) must_check;
void pages_end(struct pages *pages); /* zeroed is fine, and twice */
