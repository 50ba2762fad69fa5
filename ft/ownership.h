/* SPDX-License-Identifier: MIT */
/*
 * Taking a VM whose owner is gone for good, because a person says so (run --force-owner): at the
 * witness, by an exchange as always, for a record whose twin is FT_FORCED (ft/protocol.h says what
 * that brings about). What is lost is what the owner's folder has and this one has not.
 *
 * Not without the witness. Where that is gone for good nobody could tell the other folder that it
 * is not the owner any more: it names a witness that never answers, and would run when somebody
 * brings that back.
 */
#pragma once

#include "ft/frames.h"
#include "ft/protection.h"

enum ownership_peer {
    OWNERSHIP_NO_PEER = 1, /* it is not known where the other side is */
    OWNERSHIP_SILENT,      /* it does not answer */
    OWNERSHIP_ANSWERS,     /* a standby answers; the VM does not run in its folder */
    OWNERSHIP_UNSURE,      /* a standby answers, and cannot read what would say so */
    OWNERSHIP_RUNS,        /* a process has the VM there */
};

struct ownership {
    const char *name; /* of the VM, for sentences */
    struct protection protection;
    struct ft_record record;
    int64_t since; /* of the record: seconds since 1970; 0: not known */
    enum ownership_peer peer;
    struct err silence; /* why it does not answer */
};

/*
 * What is so now: of a folder that the caller has for itself. ERR_STATE: it is not to be taken, and
 * why: not protected, the owner already, a twin whose disks may be of no one moment (unless torn
 * says that this is known), a witness that is away or whose records went back, a peer that has the
 * VM. Blocks, for 15 s at most until the witness answers, and 3 s for since when, and for the peer.
 */
int ownership_look(struct ownership *ret_ownership, const struct folder *folder, bool torn,
                   struct err *err) must_check;
/* It is this folder's: at the witness, and then in the folder, on stable storage. Blocks, as
 * before. */
int ownership_take(struct ownership *ownership, int folder, struct err *err) must_check;

/*
 * At the other side: FRAME_YOURS where a process has the VM of this UUID in a place. FRAME_UNKNOWN:
 * a folder there cannot be looked into, or a process has one whose record cannot be read, so that
 * it may be the one.
 */
enum frame_ack ownership_answer(int place, const uint8_t uuid[16]);
