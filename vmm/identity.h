/* SPDX-License-Identifier: MIT */
/*
 * identity.json: who a VM is. Made and kept by minivmm, beside vm.json.
 *
 *   {"uuid": "...", "generation": "...", "macs": ["52:54:..."], "birthplace": {"machine": "...",
 *    "device": 2049, "inode": 131, "born": 1763712000123456789, "path": "/vms/web1"}}
 *
 * The birthplace tells a folder that was copied from one that was moved:
 *
 *   1. The folder is the very directory (same inode and time of birth; where the file system tells
 *      none: same inode, device and machine) that the birthplace names: it is the same VM, wherever
 *      it is now. Except that the original still stands at the birthplace's path, beside this one:
 *      then the whole file system was copied (a snapshot of a subvolume).
 *   2. Else, if this is the birthplace's machine, and this very folder is at its path now
 * (restored), or nothing is and this one is on another device (moved across file systems): the same
 * VM. Except that the original has only been renamed, and stands beside this one.
 *   3. Else it is a copy: new UUID, new MACs, new generation; one line says so.
 *
 * "identity": "keep" in vm.json turns 3 off. The generation is what the guest reads as its VM
 * generation id: it changes with 3, and when the VM goes on from a past state.
 */
#pragma once

#include "vmm/folder.h"
#include "vmm/machine.h"

struct birthplace {
    char machine[33]; /* /etc/machine-id, "" where there is none */
    uint64_t device, inode;
    int64_t born_ns; /* 0: the file system does not tell */
    char *path;
};

struct identity {
    uint8_t uuid[16];
    uint8_t generation[16];
    uint8_t macs[MACHINE_MAX_NETS][6]; /* locally administered; by the net's place in vm.json */
    struct birthplace birthplace;
};

enum identity_found {
    IDENTITY_KEPT = 1, /* the same VM in the same place */
    IDENTITY_NEW,      /* there was none yet */
    IDENTITY_MOVED,    /* the same VM, elsewhere */
    IDENTITY_COPIED,   /* a copy, now a VM of its own */
};

/*
 * Reads the folder's identity, judges it by the rules above, and writes what is new (atomically;
 * the old file stays whole until then). A copy begins a new history: the journal that was copied
 * along is removed, and so is its protection. The caller holds the folder's lock. A damaged
 * identity.json is ERR_DEFINITION with the mend.
 */
int identity_settle(struct identity *ret_identity, struct folder *folder, bool keep,
                    enum identity_found *ret_found, struct err *err) must_check;

/* Only reads: for list and status. -ENOENT: none yet. */
int identity_read(struct identity *ret_identity, const struct folder *folder,
                  struct err *err) must_check;

/* Only reads: whether the next identity_settle finds that it is a copy. */
bool identity_is_copied(const struct folder *folder);

/* For a VM without a folder: of this UUID, whose MACs are always the same then, or (NULL) a new
 * one. Nothing is written. */
int identity_make(struct identity *ret_identity, const uint8_t *uuid, struct err *err) must_check;

/* This VM lives here from now on: it came from somewhere else. Everything but its birthplace is as
 * it was. */
int identity_adopt(struct identity *identity, struct folder *folder, struct err *err) must_check;

/* A new generation, written down. */
int identity_renew_generation(struct identity *identity, struct folder *folder,
                              struct err *err) must_check;
void identity_finish(struct identity *identity); /* zeroed is fine */

/* The serial number of the disk at this place: made of UUID and place, 20 characters. */
void identity_disk_serial(const struct identity *identity, unsigned index, char ret_serial[21]);
void identity_format_uuid(const uint8_t uuid[16], char ret_text[37]);
