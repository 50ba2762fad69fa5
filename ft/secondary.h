/* SPDX-License-Identifier: MIT */
/*
 * Who follows a protected VM, and goes on with it when its host is gone.
 *
 *   read      frame by frame; until the first epoch is whole, into memory and disks: they hold
 *             nothing that could be lost. From then on apart (ft/staging.h).
 *   commit    all of an epoch is here: its state is the one to go on from; acknowledged by the
 *             protocol; then memory and disks follow
 *   the end   what is torn is dropped, and memory, disks and state are of the last epoch that was
 *             acknowledged
 *
 * One thread does all of this. The protocol says what becomes of the VM (ft/conductor.h brings its
 * actions here).
 */
#pragma once

#include "ft/conductor.h"

struct arrival;
struct secondary;

struct secondary_config {
    struct arrival *arrival; /* prepared; outlives it */
    /* The first epoch is here, whole, and its machine can be loaded: from here on the folder is
     * that of a twin. On the secondary's thread. */
    int (*settle)(void *ctx, struct err *err);
    /* On the main loop: the machine is loaded, and it is for the caller to let it run. */
    void (*taken_over)(void *ctx);
    /* It cannot go on, nor take over: the process is to end. On the secondary's thread. */
    void (*failed)(void *ctx);
    void *ctx;
};

int secondary_create(struct secondary **ret_secondary, const struct secondary_config *config,
                     struct err *err) must_check;
/* It reads from here on. The link is the conductor's first. */
int secondary_start(struct secondary *secondary, struct conductor *conductor,
                    struct err *err) must_check;
/* On the main loop: its thread comes to its end, if it was started. */
void secondary_abandon(struct secondary *secondary);
void secondary_destroy(struct secondary *secondary); /* abandoned; NULL is fine */

/* The protocol's actions: under the conductor's lock, not waiting for anything. */
void secondary_apply(struct secondary *secondary);
void secondary_apply_last(struct secondary *secondary);
void secondary_take_over(struct secondary *secondary);
void secondary_end(struct secondary *secondary);

/* What the other side says may lie unread, or something has come since this was asked last. One
 * thread at a time. */
bool secondary_is_busy(struct secondary *secondary);

struct secondary_news {
    uint64_t epochs;      /* that have come */
    bool handed;          /* the other side wanted it to go on */
    bool locked;          /* its memory is, and stays in RAM */
    uint64_t apply_ns;    /* of the last epoch */
    uint64_t takeover_ns; /* from the decision until it was loaded; 0: not yet */
};

/* As the last epoch has them. When it takes over. */
const struct instance_settings *secondary_settings(const struct secondary *secondary);

void secondary_look(struct secondary *secondary, struct secondary_news *ret_news);
