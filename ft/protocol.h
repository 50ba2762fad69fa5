/* SPDX-License-Identifier: MIT */
/*
 * Fault tolerance as a pure state machine: (state, event, now) -> (state, actions). One for each
 * side of a protected VM. No I/O, no clock, no thread: the driver (ft/primary.c, ft/secondary.c)
 * brings events and carries actions out, in order; the simulator (tests/sim) runs this very code.
 *
 *   who runs the VM                                        who follows it
 *
 *   STARTING  may I run it?                                FOLLOWING  nothing whole is here as yet
 *      │ the witness: solo                                     │ the first whole epoch
 *      ▼                                                       ▼
 *   SOLO      output is free  ◄──────────────┐             TWIN       could take over
 *      │ a follower has nearly all of it     │                 │ the primary is gone
 *      ▼                                     │                 ▼
 *   GATED     output waits for its epoch     │             CLAIMING   no acknowledgement any more;
 *      │ the first one is acknowledged, then │                 │      its disks at that epoch, then
 *      │ the witness: paired                 │                 │ the witness: solo, and mine
 *      ▼                                     │                 ▼
 *   PAIRED    output waits for its epoch     │             SOLO
 *      │ the twin is gone (also from GATED)  │             DISMISSED  nobody needs it any more
 *   ALONE     output waits ──────────────────┘
 *                 the witness: solo
 *
 *   HANDING   the VM stands still; the twin has it, on its disks too; the witness: the twin's
 *   DEPOSED   somebody else owns it: never again
 *   OVER      the guest is off, or it was handed over
 *
 * Who asks and hears nothing does not know whether the record was exchanged, nor whether it will
 * be: `loose`. Nothing is concluded from a record that is read then; only an exchange of our own
 * that succeeds ends that, because whatever was still on its way then fails.
 *
 * Before the witness may hear that a twin could take over, the output must wait for its epochs
 * (GATED); before a twin asks for the VM, it acknowledges nothing more, and its disks hold the last
 * epoch that it acknowledged. The generation is on stable storage before a node acts upon it.
 */
#pragma once

#include "ft/record.h"

#include <stdbool.h>

enum ft_state {
    FT_STARTING = 1,
    FT_SOLO,
    FT_GATED,
    FT_PAIRED,
    FT_ALONE,
    FT_HANDING,
    FT_FOLLOWING,
    FT_TWIN,
    FT_CLAIMING,
    FT_DEPOSED,
    FT_DISMISSED,
    FT_OVER
};

/* Small words between the two; the epochs themselves go beside them, on the same connection. */
enum ft_word_kind {
    FT_BEAT = 1, /* I am here */
    FT_ACK,      /* the epoch is here, whole */
    FT_OFF,      /* the guest is off after this epoch, nobody needs to take over */
    FT_HAND,     /* you shall have it after this epoch, when your disks hold that */
    FT_READY,    /* they do */
    FT_TAKE,     /* it is yours, by this generation */
};

struct ft_word {
    enum ft_word_kind kind;
    uint64_t generation, epoch;
};

enum ft_event_kind {
    FT_TICK = 1, /* at least as often as config.tick_ns says */

    /* Who runs it: */
    FT_CONNECTED, /* link, node, twin: a follower that can take it stands ready */
    FT_SYNCED,    /* so much of it is over there that the next epoch can be the first whole one */
    FT_CAPTURED,  /* epoch: begins to leave */
    FT_GUEST_OFF, /* after its last epoch */
    FT_HANDED, /* the VM stands still for good, its last epoch is captured: the twin shall go on */
    /* Who follows: */
    FT_STAGED,  /* link, generation, epoch: it is here, whole, and looked at */
    FT_APPLIED, /* the disks hold what was asked for, on stable storage */
    /* Both: */
    FT_DISCONNECTED, /* link */
    FT_HEARD,        /* link, word */
    FT_ANSWER,       /* ask, answer, record */
    FT_PERSISTED,    /* what was to be */
};

enum ft_answer {
    FT_NO_ANSWER = 1, /* nobody knows */
    FT_IS,            /* to a question, or to an exchange that did not take place */
    FT_EXCHANGED,
};

struct ft_event {
    enum ft_event_kind kind;
    uint64_t link; /* which connection; from 1, never again the same */
    uint64_t node, twin, epoch, generation;
    struct ft_word word;
    uint64_t ask;
    enum ft_answer answer;
    struct ft_record record;
};

enum ft_action_kind {
    FT_SEND = 1, /* word */
    FT_HANG_UP,  /* link */
    FT_ASK,      /* ask: which record? */
    FT_EXCHANGE, /* ask, expected (a generation), record */
    FT_PERSIST,  /* record; FT_PERSISTED follows */

    FT_RUN,     /* the VM runs: for the first time, or again */
    FT_SYNC,    /* a follower is to get all of it */
    FT_UNSYNC,  /* that ends */
    FT_GATE,    /* from now on output waits for its epoch */
    FT_RELEASE, /* that of this epoch, and all before */
    FT_OPEN,    /* output is free, also what waited */
    FT_STOP,    /* the VM stops for good, and what waits goes nowhere */
    FT_END,     /* nobody needs this process any more */

    FT_APPLY,      /* this epoch, when there is time */
    FT_APPLY_LAST, /* up to this epoch, now; FT_APPLIED follows */
    FT_TAKE_OVER,  /* load, announce, run */
    FT_STRANGE,    /* the witness knows less than we do: somebody should look */
};

struct ft_action {
    enum ft_action_kind kind;
    uint64_t link, epoch, ask, expected;
    struct ft_word word;
    struct ft_record record;
};

enum { FT_MOST_ACTIONS = 16 };

struct ft_actions {
    unsigned count;
    struct ft_action list[FT_MOST_ACTIONS];
};

struct ft_config {
    uint64_t node;     /* us, as the witness knows us */
    uint64_t beat_ns;  /* words that say nothing but that we are here */
    uint64_t lost_ns;  /* so long without a word, and the other one is gone */
    uint64_t stall_ns; /* so long without an acknowledgement, and it is as good as gone */
    uint64_t ask_ns;   /* so long without an answer, and there is none */
    uint64_t retry_ns; /* then we ask again */
    uint64_t gap_ns;   /* so long without a tick, and what we heard last says nothing */
    uint64_t away_ns;  /* so long, and somebody may have been told to go on without us */
    uint64_t yield_ns; /* so long who starts leaves the VM to a twin, which has all of it */
};

struct ft_protocol {
    struct ft_config config;
    enum ft_state state;
    uint64_t began_ns, tick_ns;
    bool off, handed; /* the guest; the VM, to the twin (or, on its own side, to us) */

    /* The other side. */
    uint64_t link;       /* 0: none */
    uint64_t node, twin; /* who follows; on its own side the twin is we */
    uint64_t generation; /* of all that is said on the link */
    uint64_t heard_ns, said_ns;
    uint64_t sent, acked; /* epochs; the follower's own acknowledgements */
    uint64_t waits_ns;    /* since when for the oldest that is not acknowledged */

    /* The witness. */
    struct ft_record record; /* what it says, if `known` */
    struct ft_record wanted; /* its owner and twin */
    struct ft_record tried;  /* by the exchange that is under way */
    uint64_t persisted;      /* nothing older is believed */
    uint64_t ask, asked_ns;  /* the last question or exchange */
    bool striving;           /* for what is wanted, until it is so and persisted */
    bool known, loose, was_loose;
    bool asking, persisting;
    bool applied; /* CLAIMING: the disks are at `acked` */
};

/* Somebody wants to run the VM, of which it has a generation on stable storage (0: never one). */
void ft_protocol_init_owner(struct ft_protocol *protocol, const struct ft_config *config,
                            uint64_t persisted, uint64_t now);
/* It runs already, and the witness has just said that it is ours and solo; that is persisted. */
void ft_protocol_init_solo(struct ft_protocol *protocol, const struct ft_config *config,
                           const struct ft_record *record, uint64_t now);
/* Somebody follows: on this link, under this number (twin), the owner of that generation. */
void ft_protocol_init_follower(struct ft_protocol *protocol, const struct ft_config *config,
                               uint64_t persisted, const struct ft_event *connected, uint64_t now);

void ft_protocol_step(struct ft_protocol *protocol, const struct ft_event *event, uint64_t now,
                      struct ft_actions *ret_actions);

/* For the driver, and for people. */
bool ft_protocol_runs(const struct ft_protocol *protocol);     /* the VM */
bool ft_protocol_is_gated(const struct ft_protocol *protocol); /* its output waits */
const char *ft_state_name(enum ft_state state);
