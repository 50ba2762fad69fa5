/* SPDX-License-Identifier: MIT */
/* A migration from inside: only for the migration*.c files. */
#pragma once

#include "ft/handover.h"
#include "ft/loop_step.h"
#include "ft/migration.h"
#include "ft/moving.h"
#include "ft/page_frames.h"
#include "ft/pages.h"
#include "host/disk_watch.h"
#include "host/link.h"

/* A disk that goes along. */
struct migration_disk {
    struct moving_disk about;
    struct disk *disk;
    struct disk_watch *watch;
    uint64_t *written; /* clusters that are to be sent */
};

/* A disk that both sides see. */
struct migration_shared {
    struct moving_shared about;
    struct disk *disk;
    int mark; /* what carries it; -1: none */
};

struct migration {
    struct instance *instance;
    struct machine *machine;
    struct control_request *request; /* NULL: nothing is under way */
    struct thread thread;
    struct err err; /* the thread's, then everybody's */

    char to[300];
    struct link_key key;
    bool has_key, insecure, compress, verify;
    bool shared_disk;     /* the other side sees the disks' files */
    uint64_t downtime_ns; /* what the pause should not be longer than */

    struct link *link;
    struct stream_buffer payload;
    struct moving_hello hello;
    struct handover handover;
    struct frame_tally tally;
    struct page_encoder encoder;
    struct page_cache *cache;
    struct pages pages;
    struct pages_sink sink;
    struct migration_disk disks[MACHINE_MAX_DISKS];
    unsigned disk_count;
    struct migration_shared shared[MACHINE_MAX_DISKS];
    unsigned shared_count;
    struct stream_buffer state;
    uint8_t *block; /* FRAME_MAX_BLOCK bytes */

    struct loop_step step;
    pthread_mutex_t lock; /* link, and whether it may be broken: given_up and gone */
    struct loop_call end_call;
    struct loop_timer tick;

    atomic_bool given_up;    /* somebody wants it to end */
    atomic_bool stood_still; /* because the VM was paused */
    atomic_bool gone;        /* GO is about to be said, or was: it cannot be taken back */
    bool following, held, moved;
    bool released; /* the shared disks, or some of them */

    /* For people. */
    _Atomic uint64_t sent, total; /* bytes of memory and disks */
    unsigned rounds, throttle;
    uint64_t begin_ns, rounds_ns, state_ns, last_ns, load_ns, disks_ns, resume_ns, pause_ns;
};

/* --- what is sent (migration_send.c) -----------------------------------------------------------
 */

/* Files, disks and HELLO. */
int migration_plan(struct migration *migration, struct err *err) must_check;
int migration_introduce(struct migration *migration, struct err *err) must_check;
/* All of it; then what was written meanwhile, of which *ret_bytes there were. */
int migration_send_all(struct migration *migration, struct err *err) must_check;
int migration_send_written(struct migration *migration, bool still, uint64_t *ret_bytes,
                           struct err *err) must_check;
/* What the other side has to hold now. */
int migration_send_sums(struct migration *migration, struct err *err) must_check;
int migration_send_end(struct migration *migration, struct err *err) must_check;

/* --- disks that both sides see (migration_shared.c) ---------------------------------------------
 */

/* Finds them, and marks their files; only what both sides can find by the same way. */
int migration_plan_shared(struct migration *migration, struct err *err) must_check;
void migration_send_shared(struct migration *migration);
void migration_unmark(struct migration *migration); /* the other side has seen the marks */
/* What is dirty reaches the files while the VM still runs. */
void migration_sync_shared(struct migration *migration);
/* On the main loop, the VM stands still: nobody has them open. regain: they are ours again, or were
 * never anybody else's. */
int migration_release(struct migration *migration, struct err *err) must_check;
int migration_regain(struct migration *migration, struct err *err) must_check;
