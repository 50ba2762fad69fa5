/* SPDX-License-Identifier: MIT */
/*
 * What is worth remembering of a protocol's way (ft/protocol.h): since when the VM is protected,
 * why it is no longer, and how a twin came to take over. Pure: it looks at the protocol after each
 * of its steps. All moments are of clock_boot_ns; 0: there was none.
 */
#pragma once

#include "ft/protocol.h"

enum { CHRONICLE_ACKS = 3, CHRONICLE_NOTES = 8 };

enum chronicle_kind {
    CHRONICLE_PROTECTED = 1, /* a twin can go on */
    CHRONICLE_ALONE,         /* it cannot any more: output waits for the witness */
    CHRONICLE_SOLO,          /* it runs without one, and output is free */
    CHRONICLE_DEPOSED,       /* another host has it, and what it did here counts no more */
};

struct chronicle_note {
    enum chronicle_kind kind;
    const char *why;     /* ALONE, SOLO: a word that lives for ever */
    uint64_t generation; /* of the witness */
    uint64_t since_ns;   /* PROTECTED: it ran unprotected since then (0: for the first time). ALONE:
                            the twin was heard last. SOLO: output waited since then; 0: it did not.
                            DEPOSED: the same */
    uint64_t at_ns;
};

/* How a twin came to go on with the VM. */
struct chronicle_takeover {
    bool planned;      /* it was handed over */
    const char *why;   /* how the other side was lost */
    uint64_t followed; /* since when it was being filled */
    uint64_t twin;     /* since when it could have taken over */
    uint64_t heard;    /* the last sign of who had it */
    uint64_t gone;     /* when that one was given up, or had handed over */
    uint64_t
        decided;   /* when the witness had said yes, and that was on stable storage; 0: not yet */
    uint64_t told; /* from then on the other side may have let nothing out that is known here to
                      have been allowed: the newest acknowledgement that it is sure to have read */
    uint64_t told_last; /* the newest of all */
};

struct chronicle {
    enum ft_state state;
    uint64_t seen_ns;              /* the step before */
    uint64_t acked;                /* epochs */
    uint64_t acks[CHRONICLE_ACKS]; /* when, the newest first */
    uint64_t let_go_ns;            /* what waits has waited since then at most */
    uint64_t solo_ns;              /* unprotected since, and not for the first time; 0: it is not */
    uint64_t unprotected_ns;       /* closed spans of that */
    struct chronicle_takeover takeover;

    struct chronicle_note notes[CHRONICLE_NOTES]; /* that nobody has taken; the oldest goes first */
    unsigned count;
    bool lost; /* some went unread */
};

/* `protocol` as one of its init functions has left it. */
void chronicle_init(struct chronicle *chronicle, const struct ft_protocol *protocol, uint64_t now);
/* `event` was just taken, and `protocol` is what came of it. */
void chronicle_step(struct chronicle *chronicle, const struct ft_protocol *protocol,
                    const struct ft_event *event, uint64_t now);
bool chronicle_take(struct chronicle *chronicle, struct chronicle_note *ret_note);
/* How long it ran without protection, though somebody wants it. */
uint64_t chronicle_unprotected(const struct chronicle *chronicle, uint64_t now);
