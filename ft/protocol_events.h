/* SPDX-License-Identifier: MIT */
/*
 * What the protocol of fault tolerance (ft/protocol.h) is told, and what it wants done; the words
 * that the two sides say to each other.
 */
#pragma once

#include "ft/record.h"

#include <stdbool.h>

/* Small words between the two; the epochs themselves go beside them, on the same connection. */
enum ft_word_kind {
    FT_BEAT = 1, /* I am here. epoch: ns of silence before which you do not give me up; 0: none */
    FT_ACK,      /* the epoch is here, whole */
    FT_OFF,      /* after this epoch nobody needs to take over: the guest is off, or you may go */
    FT_HAND,     /* you shall have it after this epoch, when your disks hold that */
    FT_READY,    /* they do */
    FT_TAKE,     /* it is yours, by this generation */
};

struct ft_word {
    enum ft_word_kind kind;
    uint64_t generation, epoch;
};

enum ft_event_kind {
    FT_TICK = 1, /* more often than config.beat_ns and .gap_ns */

    /* Who runs it: */
    FT_CONNECTED, /* link, node, twin, patient: a follower that can take it stands ready */
    FT_SYNCED,    /* link: so much is over there that the next epoch can be the first whole one */
    FT_CAPTURED,  /* epoch: begins to leave */
    FT_GUEST_OFF, /* after its last epoch */
    FT_HANDED, /* the VM stands still for good, its last epoch is captured: the twin shall go on */
    FT_LEFT,   /* nobody shall follow any more; it is so when that is_left, or DISMISSED */
    FT_MOVED,  /* more of what was captured has left: a line may be slow */
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
    bool patient; /* the link has ways of its own to go on after a silence: swift_ns is too swift */
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
    FT_UNSYNC,  /* that ends, and no epoch leaves any more */
    FT_GATE,    /* from now on output waits for its epoch */
    FT_RELEASE, /* that of this epoch, and all before */
    FT_OPEN,    /* output is free, also what waited */
    FT_STOP,    /* the VM stops for good, and what waits goes nowhere */
    FT_END,     /* nobody needs this process any more */

    FT_APPLY,      /* this epoch, to memory, and to the disks when there is time */
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
