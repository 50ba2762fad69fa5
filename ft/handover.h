/* SPDX-License-Identifier: MIT */
/*
 * Whose a VM is while it moves: marks in its folders, each one file that is written whole or
 * renamed, on stable storage.
 *
 *   at the source, .moved:     {"to": ADDRESS, "ticket": HEX, "place": HEX, "name": NAME,
 *                              "over": true}: it was handed over; "over": the target has said that
 *                              it runs there. It is not started here.
 *   at the target, .arriving:  HEX ticket: it is not a VM yet, and is started by nobody
 *                  .arrived:   the same file under this name, from the moment at which it is one
 *                  .unwanted:  or under this one: the source was told that it will never be
 *
 * .arriving is renamed once, to one or the other: whoever comes first decides.
 */
#pragma once

#include "core/err.h"
#include "ft/moving.h"
#include "vmm/folder.h"

#define HANDOVER_PLACE ".standby" /* in the folder of a standby: which place this is */

struct handover {
    char to[300]; /* the target's address */
    char name[NAME_MAX + 1];
    uint8_t ticket[MOVING_TICKET];
    uint8_t place[MOVING_TICKET];
    bool over;
};

void handover_format(const uint8_t bytes[MOVING_TICKET], char ret_text[2 * MOVING_TICKET + 1]);

/* The source's folder. read: -ENOENT: it was not handed over. */
int handover_write(int folder, const struct handover *handover, struct err *err) must_check;
int handover_read(int folder, struct handover *ret_handover, struct err *err) must_check;
int handover_remove(int folder, struct err *err) must_check;

/* The target's. arrive: it begins. claim: it is ours (0), or no longer wanted (-ECANCELED).
 * decline: it will never be ours (0), or -errno: -ENOENT: somebody has decided already. */
int handover_arrive(int folder, const uint8_t ticket[MOVING_TICKET], struct err *err) must_check;
int handover_claim(int folder, struct err *err) must_check;
int handover_decline(int folder) must_check;
/* The answer to ASK, for VMs in this place (a folder of VMs); may take a VM away from one that is
 * just arriving. */
enum frame_ack handover_answer(int place, const uint8_t ticket[MOVING_TICKET]);

/* Which place this is: a random number that stays. */
int handover_place(int place, uint8_t ret_id[MOVING_TICKET], struct err *err) must_check;

/* Whether a VM in this folder may be started: ERR_STATE says why not. */
int handover_check(int folder, const char *name, struct err *err) must_check;
