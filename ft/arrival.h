/* SPDX-License-Identifier: MIT */
/*
 * The target of a VM that moves here from another host (ft/moving.h is what is said).
 *
 * accept takes the connection, and makes the VM's folder of what comes first; whoever called it
 * makes the VM of that folder, blank and awaited, with the arrival as a part of it. begin looks
 * whether the VM's state can go on in this machine and welcomes it; a thread receives, and lets the
 * instance go when the VM is ours.
 */
#pragma once

#include "ft/moving.h"
#include "host/key_store.h"
#include "vmm/instance.h"

struct arrival;

struct arrival_config {
    struct link_config link;
    const char *key_path; /* where its key is from; NULL */
    /* Where link.keys leads, which says where the key is from; NULL. */
    const struct key_finder *finder;
    int place;        /* the folder of VMs... */
    const char *path; /* ...with its path */
};

/* Takes the socket over. 1: it was only a question, and is answered. */
int arrival_accept(struct arrival **ret_arrival, int socket, const struct arrival_config *config,
                   struct err *err) must_check;

const char *arrival_folder(const struct arrival *arrival); /* its path */
const char *arrival_peer(const struct arrival *arrival);
/* Disks that another VM has until they are handed over (instance_config.absent_disks). */
uint32_t arrival_absent_disks(const struct arrival *arrival);
/* Who it is; its birthplace is yet to be found. */
void arrival_identity(const struct arrival *arrival, struct identity *ret_identity);
/* It cannot come: the other side is told why. */
void arrival_refuse(struct arrival *arrival, const struct err *err);

/* It is not to move, but to follow: for ft/secondary.h in the place of begin. */
bool arrival_follows(const struct arrival *arrival);
int arrival_begin(struct arrival *arrival, struct instance *instance, struct err *err) must_check;
/* On the main loop: it shall not come, and the other side is told so. False: it has come already.
 */
bool arrival_give_up(struct arrival *arrival);
void arrival_abandon(struct arrival *arrival);                  /* the VM ends */
bool arrival_has_come(const struct arrival *arrival);           /* it is ours, and stays */
const struct err *arrival_error(const struct arrival *arrival); /* why it has not */
void arrival_destroy(struct arrival *arrival); /* removes a folder that is not ours; NULL is fine */
