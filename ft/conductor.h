/* SPDX-License-Identifier: MIT */
/*
 * Carries a protocol (ft/protocol.h) out, for either side: brings it time, words and answers, and
 * what it wants to be done to whoever can do it.
 *
 *   pulse    a thread that brings the time, and does nothing else that could make it late; of
 *            real-time priority where that is allowed (RLIMIT_RTPRIO)
 *   speaker  sends the words of threads that must not wait
 *   keeper   has written what is to be persisted
 *   askers   ask the witness; who gets no answer is left to itself (ft/asker.h)
 *
 * Everything else is done on the threads that bring events.
 */
#pragma once

#include "ft/chronicle.h"
#include "ft/protocol.h"
#include "ft/witness.h"
#include "host/link.h"
#include <pthread.h>

enum { CONDUCTOR_FIRST_LINK = 1 }; /* the number that the first attached link gets */

struct conductor;

struct conductor_config {
    uint8_t uuid[16];    /* of the VM */
    const char *witness; /* an address: opened when it can be */
    /* In order, under the conductor's lock: it must not block, nor call the conductor. All but
     * SEND, HANG_UP, ASK, EXCHANGE and PERSIST, which the conductor does by itself. */
    void (*act)(void *ctx, const struct ft_action *action);
    /* The same, before a step's actions. What leaves without waiting for a twin may do so until
     * then (clock_boot_ns): who makes no step for longer asks the witness first. NULL: nobody wants
     * to know. */
    void (*leash)(void *ctx, uint64_t until_ns);
    /* The protocol is in another state, or has lost its link. The same, and after its actions. */
    void (*changed)(void *ctx);
    /* On the keeper's thread: 0 when it is on stable storage. Else it is tried again. */
    int (*persist)(void *ctx, const struct ft_record *record, struct err *err);
    /* Words of the other side may lie unread, because we are busy: its silence says nothing. Under
     * the lock; NULL: never. */
    bool (*is_busy)(void *ctx);
    /* How many bytes of what was captured were written to the link: more of them, and less that
     * the other host lacks of them, is progress. The same. */
    uint64_t (*moved)(void *ctx);
    void (*paths_changed)(void *ctx); /* link_watch; NULL: nobody wants to know */
    void *ctx;
};

/* `protocol` begins as one of its init functions has left it, just now (clock_boot_ns). Its threads
 * run. */
int conductor_create(struct conductor **ret_conductor, const struct conductor_config *config,
                     const struct ft_protocol *protocol, struct err *err) must_check;
/* Nobody calls it any more, no link is attached. A question is not waited for. NULL is fine. */
void conductor_destroy(struct conductor *conductor);

/* An event, and all that comes of it. Any thread that may wait for the link to take a word. */
void conductor_tell(struct conductor *conductor, const struct ft_event *event);
/* The same for who may not: its words are sent by somebody else. */
void conductor_post(struct conductor *conductor, const struct ft_event *event);

/*
 * A link on which words are sent from now on, and which is broken when the protocol hangs up.
 * The number under which events tell of it. After detach nobody touches it any more.
 */
uint64_t conductor_attach(struct conductor *conductor, struct link *link);
void conductor_detach(struct conductor *conductor);
/* The protocol had enough of it, and it did not end by itself. */
bool conductor_has_hung_up(struct conductor *conductor, uint64_t number);
/* Until what was to be said has left; not for longer than somebody else may be silent. */
void conductor_finish_words(struct conductor *conductor);
/* Of the attached link: count 0 where none is, or it has one path. Not under the lock of `act`. */
void conductor_look_paths(struct conductor *conductor, struct link_news *ret_news);
/* To be held by whoever else writes to the link, frame by frame. */
pthread_mutex_t *conductor_writing(struct conductor *conductor);

/*
 * Nobody needs the protocol any more: true, and from here on there is no step and no action. False,
 * and it goes on: somebody follows, or whether the VM is still ours has to be found out, or it is
 * not. So who ends the protection of a VM that is solo does not miss that it has just been taken.
 */
bool conductor_retire(struct conductor *conductor) must_check;

/* As it is at this moment. */
void conductor_look(struct conductor *conductor, struct ft_protocol *ret_protocol);
/* What befell it, each thing once, the oldest first; false: nothing new. */
bool conductor_take_note(struct conductor *conductor, struct chronicle_note *ret_note) must_check;
/* The same as a whole. */
void conductor_remember(struct conductor *conductor, struct chronicle *ret_chronicle);
/* Until that has changed, or so long. */
void conductor_wait(struct conductor *conductor, unsigned ms);
/* Why the witness did not answer when it was asked last; kind 0 where it did. */
void conductor_trouble(struct conductor *conductor, struct err *ret_trouble);
/* Why what is to be persisted is not, as yet; kind 0 where it is. */
void conductor_unkept(struct conductor *conductor, struct err *ret_trouble);
