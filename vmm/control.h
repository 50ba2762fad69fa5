/* SPDX-License-Identifier: MIT */
/*
 * The control socket of a running VM: newline-delimited JSON on a Unix socket, documented for other
 * programs in docs/control-protocol.md. Served by the main loop.
 *
 *   → {"id": 7, "verb": "pause"}
 *   ← {"id": 7, "ok": {}}   or   {"id": 7, "error": {"code": 4, "text": "...", "hint": "..."}}
 *   ← {"event": "paused", "at": 1763712000.123, ...}     to who has asked with the verb "watch"
 *
 * Rules: 1. a line is at most CONTROL_MAX_LINE bytes, UTF-8, one object; else an error and the end
 * of the connection. 2. Answers come in the order of the requests, but one that takes long
 * (control_defer) holds only its own connection up. 3. A client that does not read what it was sent
 * loses the connection at CONTROL_MAX_BACKLOG; nobody waits for it. 4. Only the VM's owner and root
 * get in (SO_PEERCRED). 5. At most CONTROL_MAX_CLIENTS at once. 6. After "console" the connection
 * is the console's bytes both ways (the handler takes the descriptor over).
 */
#pragma once

#include "core/loop.h"
#include <jansson.h>

enum {
    CONTROL_MAX_LINE = 64 << 10,
    CONTROL_MAX_BACKLOG = 1 << 20,
    CONTROL_MAX_CLIENTS = 64,
};

struct control;
struct control_request; /* one that waits for its answer */

struct control_verb {
    const char *name;
    /*
     * Answers with *ret_answer (NULL: an empty object; the control's from then on), or with an
     * error, or by control_defer(request) and control_answer() later. arguments are the request
     * without id and verb; what a verb does not know in them is an error (control_check_keys).
     */
    int (*handle)(void *ctx, struct control_request *request, const json_t *arguments,
                  json_t **ret_answer, struct err *err);
};

/* path is made with mode 0600, and removed at the end. verbs ends with a NULL name. "watch" and
 * "verbs" are the control's own. Not to be destroyed by a handler of its own. */
int control_create(struct control **ret_control, struct loop *loop, const char *path,
                   const struct control_verb *verbs, void *ctx, struct err *err) must_check;
/* More of them, of somebody else (once). */
void control_add_verbs(struct control *control, const struct control_verb *verbs, void *ctx);
void control_destroy(struct control *control); /* deferred requests get an error; NULL is fine */

/*
 * All on the loop's thread. Who defers owes exactly one answer, be it after the client has gone, or
 * after control_destroy: nobody gets it then, but the request is freed by it.
 */
void control_defer(struct control_request *request);
/* err NULL: it went well. The request is gone afterwards; its client may have been for long. */
void control_answer(struct control_request *request, json_t *answer, const struct err *err);
/* Whether its client is still there. */
bool control_is_awaited(const struct control_request *request);
/* `fields` (or NULL) become part of the event; taken over. */
void control_event(struct control *control, const char *name, json_t *fields);

/*
 * Takes the connection away from the control: the answer is sent ahead, then *ret_fd (non-blocking)
 * is the caller's, with what the client has sent after its request in *ret_early (free it). On
 * success the request is gone; else the connection is, and the error is for the log.
 */
int control_take_over(struct control_request *request, json_t *answer, int *ret_fd,
                      void **ret_early, size_t *ret_early_length, struct err *err) must_check;

/* "key" that is none of `known` (ends with NULL) is an ERR_USAGE with the nearest. */
int control_check_keys(const json_t *arguments, const char *const *known,
                       struct err *err) must_check;

/* --- the other end ------------------------------------------------------------------------- */

struct control_client;

/* Blocking, with a limit for connecting and each answer (ERR_TIMEOUT); 0: none. */
int control_connect(struct control_client **ret_client, const char *path, unsigned timeout_ms,
                    struct err *err) must_check;
void control_disconnect(struct control_client *client); /* NULL is fine */

/* arguments (or NULL) are taken over, ret_answer may be NULL. An error of the other side becomes
 * err, code and hint too, and returns -EREMOTEIO. Events that come meanwhile are kept, 1024 at
 * most. */
int control_call(struct control_client *client, const char *verb, json_t *arguments,
                 json_t **ret_answer, struct err *err) must_check;
/* Events that come while an answer is waited for go there instead of being kept, and each gives the
 * answer its time anew. False ends the call in -ECANCELED: hang up then. NULL: kept again. */
void control_hear(struct control_client *client, bool (*hear)(void *ctx, const json_t *event),
                  void *ctx);
/* The next event; -ETIMEDOUT, or -EPIPE when the VM has gone. timeout_ms 0: waits for ever. */
int control_next_event(struct control_client *client, unsigned timeout_ms, json_t **ret_event,
                       struct err *err) must_check;
/* After "console": the connection's descriptor (non-blocking) is the caller's, the client is gone.
 * Or -ENOMEM, and nothing has changed. */
int control_release(struct control_client *client, void **ret_early, size_t *ret_early_length);
