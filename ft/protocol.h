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
 *   GATED     output waits for its epoch ────┤             CLAIMING   no acknowledgement any more;
 *      │ the first one is acknowledged, then │                 │      its disks at that epoch, then
 *      │ the witness: paired                 │                 │ the witness: solo, and mine
 *      ▼                                     │                 ▼
 *   PAIRED    output waits for its epoch ────┤             SOLO
 *      │ the twin is gone (also from GATED)  │             DISMISSED  nobody needs it any more,
 *      ▼                                     │                        or it was told to go
 *   ALONE     output waits ──────────────────┘
 *                 the witness: solo (from GATED and PAIRED: when nobody shall follow any more,
 *                 FT_LEFT; only then the twin hears that it may go)
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
 * (GATED); as long as the witness may say so, it goes on to wait, and the twin is not sent away;
 * before a twin asks for the VM, it acknowledges nothing more, and its disks hold the last epoch
 * that it acknowledged. The generation is on stable storage before a node acts upon it.
 *
 * How long a silence means that the other side is gone follows what was lately heard: four times
 * the longest silence, between swift_ns and slow_ns, and lost_ns at first. Who runs the VM says
 * with each beat how long that is, so that who follows it does not give up before: the VM moves
 * when its host is gone, and not for a line. Before the first epoch, while nobody waits, both have
 * stall_ns at least. No safety is in any of these times.
 *
 * A person may take the VM for a node whose owner is gone for good: by an exchange, too, for a
 * record whose twin is FT_FORCED, and on stable storage there before that node starts. Nobody that
 * it could be taken from has agreed to this: who is SOLO lets out what no twin has seen, and who is
 * PAIRED may be so with another node than that one. So whoever is SOLO, GATED or PAIRED, or waits
 * for its stable storage, reads the record all the time, and once more before it is let go
 * (FT_LEFT), and is DEPOSED when it is another's; and who has taken it starts forced_ns later.
 * Where the old owner is alive and its questions are not answered in that time, both run: that is
 * what the person has to know better. Whoever stood still for longer than away_ns lets nothing out
 * before its next tick, which asks.
 *
 * What the driver promises:
 *
 *   Steps     One at a time; `now` never goes back, and goes on while the host sleeps. A step's
 *             actions are carried out in their order before the next step, and none blocks. Then
 *             words are queued, and the gate is as GATE, RELEASE, OPEN, STOP say: what waits does
 *             not leave by itself. The rest has only begun. Whoever made no step for longer than
 *             ft_protocol_gap begins with a tick.
 *   Links     One connection for words and epochs; both keep their order, and a word may overtake
 *             epochs, also between two frames. Whatever comes may be told as a BEAT: words that lie
 *             behind much else come late. The end is told once, also if we noticed it by writing.
 *             A follower hears protocol.generation as it is after SYNC, and its number: random, not
 *             0, never used before. After UNSYNC without HANG_UP the frame that is on its way is
 *             finished, then come the words, and the connection stays until its end is told, or
 *             nothing was heard on it for as long as a silence may be. After END so does one that
 *             was not hung up, for stall_ns at most.
 *   Epochs    CAPTURED comes while the VM stands still, for number protocol.sent + 1, before a byte
 *             of its COMMIT can leave, one after the other; neither that nor SYNCED after UNSYNC.
 *             The first after GATE has all that is not over there. What the VM lets out after GATE
 *             is of the next epoch. Between GATE and UNSYNC there is always a next one.
 *   The end   GUEST_OFF and HANDED come when the VM stands still, and CAPTURED has told of its last
 *             epoch if there is a link. One of the two, once, and nothing is captured after it,
 *             unless RUN follows. All of HANDING, the twin's disks too, has stall_ns.
 *   The twin  What fills it goes straight in. STAGED: whole, checked, in its order, and nothing is
 *             lacking to apply it. Until its APPLY nothing of it is in memory, state or disks; what
 *             gets none is thrown away. APPLIED: all up to that epoch and nothing behind it is on
 *             stable storage; once for each APPLY_LAST. Whoever cannot apply ends as by a crash.
 *             TAKE_OVER is of the last epoch that there was an APPLY for.
 *   Witness   An exchange is tried once at most; -EAGAIN is FT_IS, other failures FT_NO_ANSWER. A
 *             question that hangs holds up no later one; one that waits may be dropped for it.
 *   Stable    PERSISTED: the generation survives a loss of power. A failure is not told, but tried
 *             again. init_owner and init_follower get what is there; a follower has put its link's
 *             there before anything fills it.
 */
#pragma once

#include "ft/protocol_events.h"

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

struct ft_config {
    uint64_t node;     /* us, as the witness knows us */
    uint64_t beat_ns;  /* words that say nothing but that we are here */
    uint64_t lost_ns;  /* so long without a word, and who follows is gone; who is followed may take
                          half as much more, and so with the next two */
    uint64_t swift_ns; /* the same where words have come smoothly for a while; 0: always lost_ns */
    uint64_t slow_ns;  /* the same where they come after long silences */
    uint64_t fade_ns;  /* so often an eighth of the longest silence is forgotten */
    uint64_t stall_ns; /* so long without an acknowledgement, and it is as good as gone; unless it
                          takes what was captured: then four times that. So long, too, where
                          nothing leaves before the first epoch after GATE */
    uint64_t ask_ns;   /* so long without an answer, and there is none */
    uint64_t retry_ns; /* then we ask again */
    uint64_t gap_ns;   /* so long without a tick, and what we heard last says nothing */
    uint64_t away_ns;  /* so long, and somebody may have been told to go on without us */
    uint64_t yield_ns; /* so long who starts leaves the VM to a twin, which has all of it */
    uint64_t watch_ns; /* so often who runs it asks whether it still is the owner; 0: never */
    uint64_t
        forced_ns; /* so long who was made the owner waits: watch_ns, and two ask_ns at least */
};

struct ft_protocol {
    struct ft_config config;
    enum ft_state state;
    uint64_t began_ns, tick_ns;
    bool off, handed; /* the guest; the VM, to the twin (or, on its own side, to us) */
    bool first;       /* the first epoch after GATE is not captured as yet */
    bool leaves;      /* nobody shall follow; the witness has not been looked at since then */

    /* The other side. */
    uint64_t link;       /* 0: none */
    uint64_t node, twin; /* who follows; on its own side the twin is we */
    uint64_t generation; /* of all that is said on the link */
    uint64_t heard_ns, said_ns;
    uint64_t rough_ns, faded_ns; /* the longest silence of late, which counts less and less */
    uint64_t told_ns;            /* whom we follow gives us up after less than this */
    bool patient;
    uint64_t sent, acked;        /* epochs; the follower's own acknowledgements */
    uint64_t unsure;             /* we were away when this one had left: later ones tell anew */
    uint64_t waits_ns;           /* since when for the oldest that is not acknowledged */
    uint64_t moved_ns;           /* when something left for the last time */
    uint64_t parting, parted_ns; /* a link whose other side is to hang up; 0: none */
    uint64_t parting_heard_ns;   /* when something was heard there for the last time */

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
/* So long without a word as things are, and the other one is gone: swift_ns to slow_ns. */
uint64_t ft_protocol_patience(const struct ft_protocol *protocol);
/* So long without a step, and the next one begins with a tick: gap_ns, or half of swift_ns. */
uint64_t ft_protocol_gap(const struct ft_protocol *protocol);
bool ft_protocol_runs(const struct ft_protocol *protocol);     /* the VM */
bool ft_protocol_is_gated(const struct ft_protocol *protocol); /* its output waits */
/* Nobody follows; after FT_LEFT: and the witness was asked once more whether the VM is still ours,
 * or did not answer for ask_ns. Who has no twin looks at it no more after that. */
bool ft_protocol_is_left(const struct ft_protocol *protocol);
const char *ft_state_name(enum ft_state state);
