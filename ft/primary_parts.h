/* SPDX-License-Identifier: MIT */
/* Who runs a protected VM, from inside: only for the primary*.c files. */
#pragma once

#include "core/thread.h"
#include "ft/capture.h"
#include "ft/departure.h"
#include "ft/epoch_pace.h"
#include "ft/following.h"
#include "ft/loop_step.h"
#include "ft/primary.h"
#include "ft/replica_disk.h"
#include "ft/resync.h"

struct primary {
    struct primary_config config;
    struct machine *machine;
    struct departure out;
    _Atomic uint64_t next; /* the epoch that what is so now comes into */
    struct replica_disk *replica;
    struct resync *resync;            /* while it is followed */
    bool fresh;                       /* the changes are to begin anew */
    atomic_bool keeps;                /* ...when nearly all is over there: until then as before */
    uint8_t lineage[CHANGES_LINEAGE]; /* ...under this name */
    struct epochs epochs;
    struct instance_settings settings, told_settings; /* of this epoch; as the twin knows them */
    struct thread listener;
    struct err why; /* it has ended: the listener's */
    struct loop_step step;
    uint64_t link; /* its number; 0: not attached */
    struct capture_times times;
    struct epoch_pace pace;
    uint64_t early;    /* pages of the epoch that left before its pause */
    uint64_t early_ns; /* how long that took */
    uint64_t sync_bytes, disk_bytes;
    bool verify;                   /* primary_target.verify; */
    uint32_t compared;             /* ...the places of the disks that are, and... */
    struct err unsummed;           /* ...why an epoch's sums are not there; kind 0: they are */
    unsigned sync_throttle;        /* percent */
    atomic_uint slowed;            /* percent that the guest has not run lately */
    uint64_t sent_bytes;           /* of the last epoch, because of which... */
    uint64_t brake_ns, unbrake_ns; /* ...it hardly ran from then until then; 0: not */
    atomic_uint rounds;

    atomic_bool given_up; /* also the departure's */
    pthread_mutex_t lock; /* all of this, and whether out.link may be broken */
    pthread_cond_t changed;
    bool synced, unsynced, gated, hands, handed, ends, abandoned;
    bool stores, stored;      /* what was sent is waited for; is, over there */
    bool owes_end;            /* FT_GUEST_OFF, to the protocol */
    enum epoch_cause pressed; /* 0: nobody waits */
    uint64_t soon_ns;         /* so long something that is not urgent may wait; 0: none does */
    enum pace_reason reason;
    uint64_t acked; /* epochs */
    struct primary_resync last;
    struct primary_total total;
    struct link *breakable;
    struct link_attempt attempt; /* before there is one */
};

/* On the sender's thread: a step that the main loop does. */
int primary_on_loop(struct primary *primary, int (*step)(void *ctx, struct err *err),
                    struct err *err) must_check;

/* While no epochs do it: the machine is slowed down, and people can see it. Any thread. */
void primary_throttle(struct primary *primary, unsigned percent);

/* primary_sync.c: from the connection to the twin that has nearly all of it. */
int primary_meet(struct primary *primary, const struct primary_target *target,
                 struct err *err) must_check;
int primary_fill(struct primary *primary, struct err *err) must_check;

/* primary_verify.c: what the twin has to hold after an epoch, where that is compared. In the first
 * moment, which disks; in each pause, before the state is read, what is under way in them ends; in
 * each moment the sums leave, and what went wrong is said at the epoch's end. */
void primary_verify_plan(struct primary *primary);
void primary_verify_still(struct primary *primary);
void primary_verify_moment(struct primary *primary);

/* primary_epochs.c: the first epoch, and all others until there is no twin. */
int primary_send_epochs(struct primary *primary, struct err *err) must_check;
