/* SPDX-License-Identifier: MIT */
/*
 * Two hosts, a witness and a client, from a seed: the real protocol (ft/protocol.h) on both hosts,
 * everything else made up. Time is in microseconds and costs nothing; all that happens is an event
 * in one queue, so that a seed gives the same run each time.
 *
 *   client ── request ──► the VM: counts it, writes the count to its disk, answers
 *          ◄── answer ── through the gate of whoever runs it
 *
 * world.c has time, chance and what lies between them; node.c drives a protocol as a host would;
 * watch.c is the client, and looks after every step whether the promises hold; faults.c breaks
 * things by chance, grid.c in every way there is, at some moments.
 *
 * What breaks has the numbers of docs/fault-tolerance.md. F7 is where something was to be written,
 * by twin or guest; F9 a bit that the line has changed: frames made up are for tests/fuzz.
 */
#pragma once

#include "ft/protocol.h"

#include <stdarg.h>
#include <stddef.h>

enum { A, B, NODES, WITNESS = NODES, CLIENT, PLACES };
enum { BLOCKS = 8, MOST_PARTS = BLOCKS, MOST_HELD = 512, MOST_STAGED = 256, MOST_TWINS = 4096 };

enum failure { /* F11 is refused before there is a protocol */
               F1_PRIMARY_DIES = 1,
               F2_PRIMARY_LOSES_POWER,
               F3_TWIN_DIES,
               F4_LINE_CUT,
               F5_PRIMARY_FROZEN, /* and thaws when the VM is another's */
               F6_WITNESS_AWAY,
               F7_TWIN_DISK, /* something could not be written */
               F8_SLOW,
               F9_DAMAGED, /* and looked at */
               F10_BOTH_DIE,
               F12_CLOCK = 12,
               F13_DEATH_IN_SYNC,
               F14_DEATH_BEFORE_RELEASE,
               F15_DEATH_IN_TAKEOVER,
               F16_ONE_WAY,
               F7_PRIMARY_DISK,
               FAILURES
};

#define MS     1000ull
#define AWAY   (150 * MS) /* a node's away_ns */
#define NOBODY (-1)

/* What the VM has: in memory the count and the request it was for; on the disk the same for each
 * of the last BLOCKS counts, at its place. */
struct fact {
    uint64_t count, id;
};

struct disk {
    struct fact blocks[BLOCKS];
};

struct epoch {
    uint64_t generation, number;
    struct fact memory;
    unsigned written; /* blocks, one bit each */
    struct disk disk; /* their contents */
};

/* --- between them ----------------------------------------------------------------------------- */

enum message_kind {
    MSG_WORD = 1, /* of the protocol */
    MSG_PART,     /* of an epoch: one block */
    MSG_COMMIT,   /* how many parts, and the memory */
    MSG_END,      /* the other side hung up, or is dead */
};

struct message {
    struct message *next;
    uint64_t at; /* not before */
    enum message_kind kind;
    struct ft_word word;
    uint64_t generation, epoch;
    unsigned block, parts;
    struct fact fact;
    uint64_t sum; /* of all that is said */
};

/* A TCP connection: what is sent one way comes in order, later, or never. Who sends has a queue of
 * words and one of epochs. */
struct link {
    struct link *next;
    uint64_t id;
    bool open[NODES];                            /* that end of it */
    bool ended[NODES];                           /* and the other one is told that it is not */
    struct message *first[NODES], **last[NODES]; /* to that node */
};

/* --- a host ----------------------------------------------------------------------------------- */

struct held {
    uint64_t epoch;
    struct fact answer;
};

struct node {
    int name;
    bool up, frozen;
    bool no_room;    /* nothing can be written to its disk */
    bool idle;       /* no process; whoever comes may make it a follower */
    unsigned doomed; /* it dies after so many actions; 0: it does not */
    uint64_t life;   /* of its process: what was meant for an earlier one is not for this one */
    uint64_t skew;   /* its clock is ahead */
    bool forced;     /* a person has taken the VM for it, and it has not begun since */
    /* It was taken from here: until then who has done so looks whether it hears of that. */
    uint64_t looked_after;

    /* What survives a crash. */
    struct disk disk;
    uint64_t persisted;

    /* The process; nothing runs where there is none. */
    bool process, follows;
    struct ft_protocol protocol;
    struct link *link;
    bool booted, runs, gated, syncing, full; /* full: the next epoch has all of it */
    struct fact memory;
    unsigned written; /* since the last epoch */
    struct held held[MOST_HELD];
    unsigned held_count;
    bool tick_due, capture_due;

    /* Of a follower. */
    struct epoch coming;
    unsigned parts;
    struct epoch staged[MOST_STAGED]; /* whole, on their way to the disk */
    unsigned staged_count;
    uint64_t staged_link, told; /* of those: where from; the last that the protocol knows of */
    uint64_t apply_to;          /* none behind that */
    struct fact twin_memory;    /* of that one */
    bool tell_due, apply_due, last_wanted;
};

/* --- everything ------------------------------------------------------------------------------- */

struct world {
    uint64_t seed, random, now, events, last_link, last_twin, sequence;
    bool trace;
    const char *broken; /* the promise; NULL: all hold */
    char why[256];
    struct happening *queue;
    unsigned queued, room;

    struct node nodes[NODES];
    struct link *links;
    bool cut[PLACES][PLACES]; /* from, to */
    uint64_t slow, slow_disk; /* between the hosts, and each block; beside the usual */
    uint64_t noise;           /* one message of so many is damaged; 0: none */
    bool witness_down, witness_frozen;
    bool mended; /* nothing breaks any more */
    struct ft_record record;

    /* The client, and what is known to whoever sees everything (watch.c). */
    uint64_t request, answered; /* ids: the last asked for, the last answered */
    struct fact last_answer;
    uint8_t emitter[MOST_TWINS]; /* of each generation: the node, from 1 */
    uint64_t whole[MOST_TWINS];  /* by number of the twin: the last epoch it has had whole */
    bool guest_off;
    uint64_t most_emitted; /* count */
    uint64_t takeovers, pairings, partings, restarts, forced;
    uint64_t failures[FAILURES]; /* enum failure: how often */
};

/* --- world.c ---------------------------------------------------------------------------------- */

uint64_t chance(struct world *world, uint64_t below); /* 0 ... below - 1 */
bool one_in(struct world *world, uint64_t many);
void later(struct world *world, uint64_t in, void (*handle)(struct world *, void *, uint64_t),
           void *arg, uint64_t number);
bool next_event(struct world *world, uint64_t until); /* false: none before that */
void world_finish(struct world *world);

void tell(struct world *world, const char *format, ...) __attribute__((format(printf, 2, 3)));
void broken(struct world *world, const char *promise, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

struct link *link_make(struct world *world);
void link_send(struct world *world, struct link *link, int from, const struct message *message);
/* That end closes. TORN: of what is still on its way the end is lost; SILENT: nor is the other side
 * told, before it says something to a host that is up again. */
enum link_end { LINK_CLOSED, LINK_TORN, LINK_SILENT };
void link_close(struct world *world, struct link *link, int from, enum link_end how);
uint64_t message_sum(const struct message *message);

/* --- node.c ----------------------------------------------------------------------------------- */

void node_init(struct world *world, int name);
void node_boot(struct world *world, struct node *node); /* the host is up, its process starts */
/* Its process; silent: its host has no power. */
void node_kill(struct world *world, struct node *node, bool silent);
void node_switch(struct world *world, struct node *node);
void node_leave(struct world *world, struct node *node); /* nobody shall follow any more */
void node_guest_off(struct world *world, struct node *node);
void node_force(struct world *world, struct node *node); /* a person makes it the owner */
void node_event(struct world *world, struct node *node, const struct ft_event *event);
/* A message came, or the link's end. */
void node_receive(struct world *world, struct node *node, struct link *link,
                  const struct message *message);
void node_request(struct world *world, struct node *node, uint64_t id);
/* What it sends waits for nobody: it is not gated, and its leash (host/netif_gate.h) lasts. */
bool node_is_free(const struct world *world, const struct node *node);
void node_connect(struct world *world, struct node *node); /* to the other one */

/* --- watch.c ---------------------------------------------------------------------------------- */

struct disk disk_of(struct fact last, const struct disk *like);
void client_start(struct world *world);
void watch_emit(struct world *world, struct node *node, const struct held *held, bool free);
void watch_staged(struct world *world, uint64_t twin, uint64_t epoch);
/* Whether it has the last counts, up to the one that it has last. */
bool watch_is_whole(const struct disk *disk);
/* It begins to run: from its memory, or from its disk. */
void watch_start(struct world *world, struct node *node);
/* It heard that nobody needs it. */
void watch_dismissed(struct world *world, struct node *node);
void watch_exchange(struct world *world, const struct ft_record *record);

/* --- faults.c --------------------------------------------------------------------------------- */

void faults_plan(struct world *world, uint64_t until);
void faults_mend(struct world *world);
void faults_note(struct world *world, enum failure failure);
void faults_note_death(struct world *world, const struct node *node, bool silent);
void faults_doom(struct world *world, struct node *node);                /* its time has come */
void faults_return(struct world *world, struct node *node, uint64_t in); /* who is dead */
void faults_freeze(struct world *world, struct node *node, uint64_t time);
void faults_fill(struct world *world, struct node *node, uint64_t time); /* its disk */
void faults_noise(struct world *world, uint64_t most, uint64_t time);    /* one in 1 ... most */
void faults_cut(struct world *world, unsigned pattern, uint64_t time); /* of six lines: 0 ... 63 */
void faults_witness(struct world *world, bool freezes, uint64_t time);

/* --- main.c ----------------------------------------------------------------------------------- */

void run_until(struct world *world, uint64_t until);
/* From here on all is well: it goes on, has its twin, and bears the loss of either. */
void run_calm(struct world *world);

/* --- grid.c ----------------------------------------------------------------------------------- */

unsigned grid_cells(void);
void grid_run(struct world *world, unsigned cell);
