/* SPDX-License-Identifier: MIT */
/* A migration from inside: only for the migration*.c files. */
#pragma once

#include "ft/departure.h"
#include "ft/handover.h"
#include "ft/loop_step.h"
#include "ft/migration.h"

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

    struct departure out;
    struct instance_settings settings; /* when it stood still */
    struct handover handover;
    struct migration_shared shared[MACHINE_MAX_DISKS];
    unsigned shared_count;

    struct loop_step step;
    pthread_mutex_t lock; /* out.link, and whether it may be broken: given_up and gone */
    struct loop_call end_call;
    struct loop_timer tick;

    atomic_bool given_up;    /* somebody wants it to end */
    atomic_bool stood_still; /* because the VM was paused */
    atomic_bool gone;        /* GO is about to be said, or was: it cannot be taken back */
    bool held, moved;
    bool released; /* the shared disks, or some of them */

    /* For people. */
    unsigned rounds, throttle;
    uint64_t begin_ns, rounds_ns, state_ns, last_ns, load_ns, disks_ns, resume_ns, pause_ns;
    bool announced;       /* the other side has said when it was: */
    uint32_t announce_us; /* after GO; MOVING_UNHEARD: nobody was there to hear of it */
};

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
