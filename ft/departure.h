/* SPDX-License-Identifier: MIT */
/*
 * A VM on its way to another host (ft/moving.h), as seen by the host that it leaves: its files, its
 * disks and its memory go over while it runs. What becomes of that is somebody else's: a migration,
 * or a twin that follows for as long as there is one.
 */
#pragma once

#include "ft/compare.h"
#include "ft/moving.h"
#include "ft/page_frames.h"
#include "ft/pages.h"
#include "host/disk_watch.h"
#include "host/link.h"
#include "vmm/instance.h"
#include <pthread.h>

/* A disk that goes along. */
struct departure_disk {
    struct moving_disk about;
    struct disk *disk;
    struct disk_watch *watch;
    uint64_t *written; /* clusters that are to be sent */
};

/* Pages are made shorter where the line is slow (ft/slow_line.h). */
struct departure_pace {
    bool adapts;
    uint64_t bytes, ns; /* on the line, and how long it had them, as of the last look */
    unsigned looks;     /* since the effort is what it is */
    uint64_t raw, lz4;  /* pages that left so, as of the last look */
    bool in_vain;       /* the last try made most of them no shorter */
};

struct departure {
    struct instance *instance;
    struct machine *machine;
    const atomic_bool *given_up; /* somebody wants it to end */

    struct link *link; /* the caller makes it */
    /* Held for each frame, where somebody else writes to the link too. */
    pthread_mutex_t *writing, nobody_else;
    struct frame at; /* generation and epoch of what leaves */
    struct stream_buffer payload;
    struct moving_hello hello;
    struct frame_tally tally;
    struct page_encoder encoder;
    struct page_cache *cache; /* for the encoder, when something is sent more than once */
    struct pages pages;
    struct pages_sink sink;
    pthread_mutex_t watching; /* whether their watches may be aborted */
    struct departure_disk disks[MACHINE_MAX_DISKS];
    unsigned disk_count;
    struct stream_buffer state;
    struct stream_buffer sent_state; /* of the epoch before, on this link */
    uint8_t *block;                  /* FRAME_MAX_BLOCK bytes */
    bool following;
    struct departure_pace pace;

    _Atomic uint64_t sent, total; /* bytes of memory and disks, for people */
    _Atomic uint64_t block_bytes; /* of disks that have left; zeroes are none */
};

void departure_init(struct departure *departure, struct instance *instance,
                    const atomic_bool *given_up, enum page_effort effort);
/* From the next page on, with what is in `cache` by then. Between rounds. */
void departure_set_effort(struct departure *departure, enum page_effort effort);
/* When nobody sends any more. On the main loop; zeroed is fine. */
void departure_finish(struct departure *departure);

/* HELLO, and which disks go along: all that are in the VM's folder, and others are refused. */
int departure_plan(struct departure *departure, struct err *err) must_check;
int departure_plan_disks(struct departure *departure, struct err *err) must_check;
/* HELLO, files and disks; then that there are no more of these. */
int departure_introduce(struct departure *departure, struct err *err) must_check;
int departure_open(struct departure *departure, struct err *err) must_check;

/* On the main loop: writes to disks are noted from here on. A short pause: what is under way now
 * was not begun under our eyes. */
int departure_follow(struct departure *departure, struct err *err) must_check;
void departure_unfollow(struct departure *departure); /* to disks and memory no longer */
/* To disks only, while the machine stands still: somebody else follows them from here on. */
void departure_unfollow_disks(struct departure *departure);
void departure_abort(struct departure *departure); /* who reads a disk waits no longer; any thread,
                                                    * between init and finish, or zeroed */

/* Until it is told otherwise: with the effort that the line is worth. Between rounds. */
void departure_adapt(struct departure *departure, bool adapts);
int departure_send_memory(struct departure *departure, struct err *err) must_check;
/* All of it; then what was written meanwhile, of which *ret_bytes there were. */
int departure_send_all(struct departure *departure, struct err *err) must_check;
int departure_send_written(struct departure *departure, bool still, uint64_t *ret_bytes,
                           struct err *err) must_check;
/* What somebody else knows of a disk. */
int departure_put_block(struct departure *departure, const struct moving_block *block,
                        struct err *err) must_check;
/* What the other side has to hold now: memory, and disks. */
int departure_send_sums_of(struct departure *departure, uint32_t place,
                           const struct compare_what *what, struct err *err) must_check;
int departure_send_memory_sums(struct departure *departure, struct err *err) must_check;
int departure_send_sums(struct departure *departure, struct err *err) must_check;
/* The state, or what has changed in it, and the end of the epoch. */
int departure_send_end(struct departure *departure, struct err *err) must_check;
