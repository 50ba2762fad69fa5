/* SPDX-License-Identifier: MIT */
/*
 * What a VM's folder knows of its protection by fault tolerance: ".protected", written whole, on
 * stable storage. Both folders of a protected VM have one (ft/protection_text.c has the format).
 * The room for the next one is put aside when the first one is written (".protected.spare", which
 * nobody reads): a VM whose twin dies can note that it is alone also on a full file system.
 *
 * It says what was so when this node last acted, and is what a node takes to the witness
 * (ft/witness.h), which alone knows who may run the VM now. A copy of the folder is another VM, of
 * another UUID: what it has is not its own, and goes with its first run.
 */
#pragma once

#include "core/err.h"
#include "ft/record.h"
#include "vmm/folder.h"

#include <limits.h>

/* OFF: nobody protects it, but the folder keeps its number, by which the witness knows it. */
enum protection_role { PROTECTION_OWNER = 1, PROTECTION_TWIN, PROTECTION_OFF };

enum { PROTECTION_TEXT_MAX = 16 << 10 };

struct protection {
    enum protection_role role; /* as it was when this was written */
    uint8_t uuid[16];          /* of the VM */
    uint64_t node;             /* this folder's number in the witness's records: it stays */
    uint64_t generation;       /* the newest that was acted upon: nothing older is believed */
    uint64_t peer_node;        /* the other folder's number; 0: there was none yet */
    char peer[300];            /* the other one's standby, HOST:PORT or two with a comma; "" */
    char back[300];            /* our own standby, as the other side sees it; "": not known */
    char witness[300];         /* "file:PATH" (ft/witness.h) */
    char key[PATH_MAX];        /* the file of the link's key, a whole path; "": none */
    bool insecure, durable;    /* a plain link is what somebody asked for; the commit level */
    unsigned timeout_ms;       /* so long without a word, and the peer is gone; 0: as usual */
    unsigned min_us, max_us;   /* an epoch's length; 0: as usual */
};

/* The text. parse: NULL, or what is wrong with it. format: of what find_wrong() takes; NULL: no
 * memory; the caller frees it. */
const char *protection_parse(struct protection *ret_protection, const char *text, size_t length);
char *protection_format(const struct protection *protection);
/* NULL, or why it cannot be written: what parse() would say of it. */
const char *protection_find_wrong(const struct protection *protection);

/* read: -ENOENT without a word: there is none. Damaged is ERR_DEFINITION. */
int protection_read(struct protection *ret_protection, int folder, struct err *err) must_check;
/* On failure the old one is as it was. One writer at a time: who has the folder's lock. */
int protection_write(int folder, const struct protection *protection, struct err *err) must_check;
int protection_remove(int folder, struct err *err) must_check; /* 0 where there is none, too */

/*
 * The same for those who have not settled who the VM is (vmm/identity.h): -ESTALE without a word:
 * it is another VM's, of which this folder, or this file, is a copy.
 */
int protection_find(struct protection *ret_protection, const struct folder *folder,
                    struct err *err) must_check;

int protection_draw_node(uint64_t *ret_node, struct err *err) must_check; /* random, never 0 */

/*
 * Whether the VM in this folder may start, by what the witness has said. ERR_STATE: no, and who
 * owns it, and the mend. Pure.
 */
int protection_judge(const struct protection *protection, const struct ft_record *record,
                     const char *name, struct err *err) must_check;
/*
 * The same with a question to the witness, once, of ASKER_LOOK_MS at most (ft/asker.h). Nobody
 * answers: ERR_STATE where ret_asks is NULL; else 0, *ret_asks is true, and err says what was
 * wrong: it may start standing still, and has to ask on. That it may start is no leave to let
 * anything out of it: only an exchange is (ft/protocol.h).
 */
int protection_check(const struct protection *protection, const char *name, bool *ret_asks,
                     struct err *err) must_check;
