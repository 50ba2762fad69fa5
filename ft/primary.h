/* SPDX-License-Identifier: MIT */
/*
 * Who runs a protected VM, and has a twin follow it: all of the VM goes over while it runs, then
 * what each epoch has changed.
 *
 *   wait      until output waits, or the disks' notes grow, or it is time
 *   capture   pause, state, written pages aside; what is sent from here on waits for the next
 *             epoch; resume (ft/capture.h)
 *   send      pages, blocks, state, commit, while the guest runs on
 *
 * When the twin has acknowledged it the protocol lets go what had waited for it. The protocol also
 * says when this begins and ends (ft/conductor.h brings its actions here).
 */
#pragma once

#include "ft/changes.h"
#include "ft/conductor.h"
#include "ft/epochs.h"
#include "ft/outbox.h"
#include "vmm/instance.h"

struct primary;

struct primary_config {
    struct instance *instance;
    struct conductor *conductor;
    struct outbox *outbox;
    struct changes *changes;
    unsigned min_ms, max_ms; /* of an epoch; 0: as usual */
    unsigned pause_percent;  /* the most that the guest stands still, where it can be */
};

enum {
    PRIMARY_OUTBOX = 64 << 20, /* bytes that may wait */
    PRIMARY_AHEAD = 2,         /* epochs that are not acknowledged */
    PRIMARY_SOON_US = 1000,    /* by then a guest has often sent the answer, too */
};

int primary_create(struct primary **ret_primary, const struct primary_config *config,
                   struct err *err) must_check;
void primary_destroy(struct primary *primary); /* nothing is under way; NULL is fine */

struct primary_target {
    const char *to; /* its standby */
    const struct link_key *key;
    bool insecure;
    bool verify; /* each epoch's pause takes as long as it takes to sum guest memory and disks */
    const struct following *following; /* what the twin is told; without its generation */
};

/* What was given up before this is; primary_follow comes next. */
void primary_begin_anew(struct primary *primary);
/*
 * On a thread of the caller's: until nobody follows any more, which is when the protocol wants that
 * or when something went wrong.
 */
int primary_follow(struct primary *primary, const struct primary_target *target,
                   struct err *err) must_check;
/* It ends at once. Any thread. */
void primary_give_up(struct primary *primary);

/* The protocol's actions: under the conductor's lock, not waiting for anything. */
void primary_sync(struct primary *primary);
void primary_unsync(struct primary *primary);
bool primary_gate(struct primary *primary); /* false: nobody follows, and no epoch begins */
void primary_release(struct primary *primary, uint64_t epoch);
void primary_go_on(struct primary *primary); /* it was not handed over, and runs again */

/* Something waits that an epoch would help. Any thread. */
void primary_press(struct primary *primary, enum epoch_cause cause);
/* On the main loop's thread: an epoch at once, because something was set. Its number: what is so
 * now is in that one. */
uint64_t primary_press_set(struct primary *primary);
/* Something waits that is not urgent: an epoch in PRIMARY_SOON_US helps it as well. */
void primary_press_soon(struct primary *primary);
/* Bytes that have left to the twin. Any thread. */
uint64_t primary_moved(const struct primary *primary);
/* The machine stops after one more epoch, and the twin is to go on: FT_HANDED follows. */
void primary_hand_over(struct primary *primary);
/* On the main loop's thread, which goes to no other step any more: the machine has ended; one more
 * epoch, of its end, leaves, and FT_GUEST_OFF follows. False: there are no epochs. */
bool primary_end_guest(struct primary *primary);
/* On the main loop's thread: nothing of it is done on the loop any more. */
void primary_abandon(struct primary *primary);

/* What the last sync of a twin's disks was. */
struct primary_resync {
    bool done, delta;                  /* delta: it had them, and got what differs */
    char why[200];                     /* it got all of them */
    uint64_t disk_bytes;               /* of the disks */
    uint64_t marked_bytes, sent_bytes; /* that may have differed; that left */
    uint64_t sum_bytes;                /* of sums, to see which do */
};

struct primary_total {
    uint64_t deltas, copies; /* syncs that came to an end, by what they were */
    uint64_t sent_bytes;     /* of disks, in all of them */
};

struct primary_news {
    bool syncs;
    bool stores;          /* the twin's disks take what was sent, and that is waited for */
    uint64_t sent, total; /* bytes of the first sync */
    uint64_t sync_bytes;  /* that it took; 0: it is not done */
    uint64_t held_bytes;  /* of output, and of disks' changes */
    unsigned rounds;
    unsigned throttle; /* percent that the guest is slowed down by */
    struct primary_resync resync;
    struct primary_total total_resyncs;
    /* Why epochs do not begin, or the guest does not run, as soon as they could; "" */
    const char *reason;
};

void primary_look(struct primary *primary, struct primary_news *ret_news);
struct epochs *primary_epochs(struct primary *primary);
