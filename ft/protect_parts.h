/* SPDX-License-Identifier: MIT */
/* The protection of a VM from inside: only for the protect*.c files. */
#pragma once

#include "core/thread.h"
#include "ft/changes.h"
#include "ft/conductor.h"
#include "ft/following.h"
#include "ft/give_back.h"
#include "ft/outbox.h"
#include "ft/peer_choice.h"
#include "ft/primary.h"
#include "ft/protect.h"
#include "ft/secondary.h"

/* How it came here. */
enum protect_taken { PROTECT_NOT_TAKEN, PROTECT_TAKEN, PROTECT_SWITCHED };

/* Where the VM is at home, if vm.json says so (protect_home.c). */
struct protect_home {
    struct give_back_past past;     /* under protect's lock, as the next two */
    enum give_back_place place;     /* by who follows, or was asked last */
    bool looked;                    /* at the past */
    uint64_t paired_ns, generation; /* since when, and by which record */
    uint64_t goes_ns;               /* since when it is handed over; 0: it is not */
    struct give_back_plan plan;     /* as it was decided last */
    struct loop_timer timer;
};

/* Somebody who has set something, until the twin has it: the answer, then. */
struct protect_shared {
    struct control_request *request;
    uint64_t epoch, until_ns;
};

enum { PROTECT_SHARED_MAX = CONTROL_MAX_CLIENTS };

struct protect {
    struct instance *instance;
    struct machine *machine;
    struct loop_call turn; /* what others want to be done on the main loop */

    struct protection saved;    /* as it is in the folder; node 0: never protected. Under lock. */
    struct following following; /* what a twin is told; on its side, what it was told. Under lock */
    struct link_key key;        /* if saved.key says so. Under lock */

    struct changes *changes; /* of its disks; NULL: it has no folder */
    struct conductor *conductor;
    struct outbox *_Atomic outbox;   /* the conductor finds it when it is made */
    struct primary *_Atomic primary; /* made by its thread */
    struct secondary *secondary;
    struct arrival *arrival; /* the caller's */

    struct peer_choice choice;          /* its thread's */
    char trying[FOLLOWING_WITNESS];     /* who is asked, or follows; under lock, as the next */
    char trying_key[PATH_MAX];          /* the file of the key; "" */
    bool taken_over, taken_over_handed; /* before its thread began */
    struct protect_home home;

    struct thread thread; /* has it followed, for as long as that is wanted */
    struct err err;       /* why the VM is gone, if it is */
    bool gone;

    /* Who waits for an answer; NULL: nobody. */
    struct control_request *asked, *leaving, *switching;
    uint64_t switch_ns;
    bool was_paired;         /* by what people wanted last */
    enum ft_state told;      /* the state that watchers have heard of */
    unsigned told_paths;     /* and what of the paths */
    struct loop_timer voice; /* tells the network again where the VM is */
    unsigned announced;      /* how often it did */
    struct loop_timer tick;  /* progress for who has asked, or watches */
    bool ticks;

    /* Who waits for the twin, in order (protect_share.c). */
    struct protect_shared shared[PROTECT_SHARED_MAX];
    unsigned shared_count;
    atomic_bool shares; /* any */
    struct loop_timer share_timer;

    /* For the journal. */
    bool noted;               /* it knows of a protection */
    enum protect_taken taken; /* by this process */
    uint64_t told_ns;         /* the gap of the takeover, whose end is not seen as yet; 0: none */

    pthread_mutex_t lock; /* all of this */
    pthread_cond_t changed;
    bool wanted;            /* somebody shall follow */
    bool again;             /* at once */
    bool abandoned;         /* the VM ends */
    bool runs, holds, ends; /* to be done on the main loop */
    bool over;              /* the protocol has come to its end */
    bool idle;              /* the thread has come to its end */
    uint64_t tries, failed; /* to be followed: how many began, and which one failed last */
    uint64_t asked_after;   /* what `asked` has asked for is a later one */
    struct err trouble;     /* why nobody follows; kind 0: it is not known */
    struct err strange;     /* the witness knows less than we do; kind 0: it does not */
};

/* On the main loop: to whom it may concern; protocol NULL: there is none. */
void protect_answer(struct protect *protect, const struct ft_protocol *protocol);
void protect_answer_all(struct protect *protect); /* nobody will know more */
void protect_handle_tick(void *arg);

void protect_set(struct protect *protect, bool *flag);
struct ft_config protect_config(const struct protect *protect);
int protect_conduct(struct protect *protect, const struct ft_protocol *protocol,
                    struct err *err) must_check;
/* On the main loop, for the journal: what has happened since; that nobody wants protection any
 * more; that it is about to run here; that it has said something here, if it has. */
void protect_note(struct protect *protect);
void protect_note_unprotected(struct protect *protect);
void protect_note_takeover(struct protect *protect);
void protect_note_output(struct protect *protect);
/* On the main loop: the machine is there, and may run. */
int protect_stand(struct protect *protect, struct err *err) must_check;
/* On its thread: this host is about to be followed by the one at that address. */
void protect_home_look(struct protect *protect, const char *peer);
void protect_home_forget(struct protect *protect); /* any thread; it is protected anew */
/* On the main loop. */
void protect_home_init(struct protect *protect);
void protect_home_turn(struct protect *protect, const struct ft_protocol *protocol);
void protect_home_describe(struct protect *protect, json_t *answer);
/* On the main loop. answer: to whoever knows by now what he waits for; protocol NULL: there is none
 * any more. abandon: to all. */
void protect_share_init(struct protect *protect);
void protect_share_answer(struct protect *protect, const struct ft_protocol *protocol);
void protect_share_abandon(struct protect *protect);
/* Its thread: to be started when somebody shall follow. */
int protect_start(struct protect *protect, struct err *err) must_check;
