/* SPDX-License-Identifier: MIT */
/*
 * Asks a witness for whoever must not wait for it. A question whose answer does not come, because
 * storage or network hang, is left to its thread, and the next one has another; of such threads
 * there are ASKER_THREADS at most. While all of them hang, the newest question waits for the first
 * that comes back, and those before it are dropped.
 *
 * A thread that hangs outlives the asker, with all that it touches: it may be in a system call for
 * as long as there is this process, which ends nevertheless. What it finds out nobody hears; an
 * exchange of its may take place then (ft/protocol.h knows of that: loose).
 */
#pragma once

#include "ft/protocol_events.h"
#include "ft/witness.h"

enum { ASKER_THREADS = 4 };

struct asker;

struct asker_config {
    uint8_t uuid[16];    /* of the VM */
    const char *witness; /* an address, copied: opened when it can be */
    bool known;          /* only where it has a record of the VM: witness_open_known */
    /* To the newest question, once: FT_ANSWER, and why there is none (kind 0: there is). On a
     * thread of the asker's, which holds no lock; not after asker_destroy. */
    void (*answered)(void *ctx, const struct ft_event *answer, const struct err *trouble);
    void *ctx;
};

int asker_create(struct asker **ret_asker, const struct asker_config *config,
                 struct err *err) must_check;
/* Waits for an `answered` that has begun, and for no answer. NULL is fine. */
void asker_destroy(struct asker *asker);

/* FT_ASK or FT_EXCHANGE, of another number than any before. Any thread: waits for nothing. False:
 * the one before it has had no answer, and nobody will hear of it any more. */
bool asker_ask(struct asker *asker, const struct ft_action *question);

/*
 * One question, for who may wait, but not for whatever hangs: what the witness has of the VM, in
 * ASKER_LOOK_MS at most. -ETIMEDOUT: it has not answered by then, and the error says so. Each that
 * is given up leaves a thread behind: who would ask again and again has an asker of his own.
 *
 * An etcd of which nothing is heard says more than that, in 10 s. Three questions are less than
 * WELCOME_MS (ft/primary_sync.c), for which somebody waits meanwhile.
 */
enum { ASKER_LOOK_MS = 15000 };
struct asker_look {
    const char *witness;
    const uint8_t *uuid; /* of the VM */
    bool known;          /* as above */
    unsigned patience_ms;
};
int asker_look(const struct asker_look *look, struct ft_record *ret_record,
               struct err *err) must_check;
/* The same for an exchange: 0 and -EAGAIN as witness_exchange says. -ETIMEDOUT: it may take place
 * yet, for as long as there is this process. */
int asker_exchange(const struct asker_look *look, uint64_t expected, const struct ft_record *next,
                   struct ft_record *ret_is, struct err *err) must_check;

/* The same for witness_since, of which nobody needs to hear why it is not known: -errno. */
int asker_since(const struct asker_look *look, uint64_t generation,
                int64_t *ret_seconds) must_check;

/* -ETIMEDOUT, of a witness that has not answered for so long. */
int asker_say_silent(const char *witness, uint64_t ns, struct err *err);
