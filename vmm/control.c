/* SPDX-License-Identifier: MIT */
/*
 * The serving end of the control socket. What travels on it, and the rules:
 * docs/control-protocol.md.
 *
 * A client's turn: read once, serve at most REQUESTS_A_TURN lines, send what its socket takes. What
 * is left of its lines gets a turn of its own after everybody else's events, through a timer that
 * is due at once (a posted call could not be taken back by control_destroy).
 *
 * A handler may answer other clients, send events and lose connections, its own included. So inside
 * a turn a client is only marked `lost`, and goes at the end of it (finish_turn).
 */
#include "vmm/control.h"

#include "core/clock.h"
#include "core/words.h"
#include "vmm/control_wire.h"
#include "vmm/door.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    REQUESTS_A_TURN = 16,
    NOW = 1, /* a deadline that has passed */
};

struct client {
    struct control *control;
    struct loop_io io; /* fd -1: taken over */
    struct wire_lines in;
    struct wire_backlog out;
    struct control_request *waiting; /* a deferred one; the lines behind it wait too */
    bool watches;                    /* wants events */
    bool ended;                      /* will send no more */
    bool condemned;                  /* broke a rule: gets what is in `out`, and that was it */
    bool lost;                       /* is to be closed without more ado */
    bool busy;                       /* inside its turn */
};

struct control_request {
    struct client *client; /* NULL: has gone */
    json_t *id;
    bool handling; /* its handler runs: whoever ends it only says so, the turn frees it */
    bool deferred, over;
};

struct control {
    struct loop *loop;
    struct door *door;
    struct loop_timer more; /* whole lines wait in some client's `in` */
    struct {
        const struct control_verb *verbs;
        void *ctx;
    } tables[3]; /* the first is the control's own */
    unsigned table_count;
    struct client *clients[CONTROL_MAX_CLIENTS];
};

/* --- clients ------------------------------------------------------------------------------ */

/* Does it get its lines served now? */
static bool is_served(const struct client *client)
{
    return !client->waiting && !client->condemned && !client->lost;
}

static bool has_backlog(const struct client *client)
{
    return client->out.at < client->out.end;
}

static void client_destroy(struct client *client)
{
    struct client **slot = client->control->clients;
    while (*slot != client)
        slot++;
    *slot = NULL;
    if (client->waiting)
        client->waiting->client = NULL;
    if (client->io.fd >= 0) {
        loop_io_remove(client->control->loop, &client->io);
        close(client->io.fd);
    }
    wire_lines_finish(&client->in);
    wire_backlog_finish(&client->out);
    free(client);
}

/*
 * Who is not read from for now is watched edge-triggered: what he sends meanwhile wakes us once and
 * not for as long as it lies there, and still his end is heard of.
 */
static unsigned wanted_events(struct client *client)
{
    bool rests = !is_served(client) || client->ended || wire_has_line(&client->in);
    if (has_backlog(client))
        return rests ? LOOP_WRITE : LOOP_READ | LOOP_WRITE;
    return rests ? LOOP_READ | LOOP_EDGE : LOOP_READ;
}

/* Has said all, and there is nothing more to say to him. */
static bool is_done(struct client *client)
{
    if (has_backlog(client))
        return false;
    return client->condemned ||
           (client->ended && !client->waiting && !client->watches && !wire_has_line(&client->in));
}

static void finish_turn(struct client *client)
{
    if (!client->lost && wire_send(&client->out, client->io.fd) < 0)
        client->lost = true;
    if (!client->lost && is_served(client) && wire_has_line(&client->in) &&
        loop_timer_arm(&client->control->more, NOW) < 0)
        client->lost = true; /* no memory: better no connection than one that hangs */
    if (client->lost || is_done(client))
        client_destroy(client);
    else
        loop_io_watch(client->control->loop, &client->io, wanted_events(client));
}

/* The message becomes ours. */
static void say(struct client *client, json_t *message)
{
    if (!client->lost && client->out.end - client->out.at > CONTROL_MAX_BACKLOG &&
        (wire_send(&client->out, client->io.fd) < 0 ||
         client->out.end - client->out.at > CONTROL_MAX_BACKLOG))
        client->lost = true;
    if (!client->lost && wire_put(&client->out, message) < 0)
        client->lost = true;
    json_decref(message);
    if (!client->busy)
        finish_turn(client);
}

/* An answer, with the id it belongs to (or NULL); takes the answer over. */
static json_t *make_answer(json_t *id, json_t *answer, const struct err *err)
{
    json_t *message = json_object();
    json_object_set_new(message, "id", id ? json_incref(id) : json_null());
    if (err)
        json_object_set_new(message, "error", wire_error(err));
    else
        json_object_set_new(message, "ok", answer ? json_incref(answer) : json_object());
    json_decref(answer);
    return message;
}

/* The client broke a rule of the connection itself. */
static void condemn(struct client *client, const struct err *err)
{
    client->condemned = true;
    say(client, make_answer(NULL, NULL, err));
}

/* --- requests ----------------------------------------------------------------------------- */

static void end_request(struct control_request *request)
{
    if (request->client && request->client->waiting == request)
        request->client->waiting = NULL;
    request->over = true;
    if (request->handling)
        return;
    json_decref(request->id);
    free(request);
}

void control_defer(struct control_request *request)
{
    assert(request->handling && !request->over);
    request->deferred = true;
}

void control_answer(struct control_request *request, json_t *answer, const struct err *err)
{
    assert(!request->over);
    struct client *client = request->client;
    json_t *message = make_answer(request->id, answer, err);
    end_request(request);
    if (client)
        say(client, message);
    else
        json_decref(message);
}

bool control_is_awaited(const struct control_request *request)
{
    return request->client && !request->client->lost;
}

static int hand_over(struct client *client, json_t *message, int *ret_fd, void **ret_early,
                     size_t *ret_early_length, struct err *err)
{
    int ret = wire_put(&client->out, message);
    if (ret == 0)
        ret = wire_send(&client->out, client->io.fd);
    if (ret == 0 && has_backlog(client))
        ret = -EAGAIN;
    if (ret < 0)
        return err_sys(err, ERR_STATE, -ret, "the client does not read what it is sent");
    ret = wire_take_rest(&client->in, ret_early, ret_early_length);
    if (ret < 0)
        return err_sys(err, ERR_HOST, -ret, "cannot hand a connection over");
    loop_io_remove(client->control->loop, &client->io);
    *ret_fd = client->io.fd;
    client->io.fd = -1;
    return 0;
}

int control_take_over(struct control_request *request, json_t *answer, int *ret_fd,
                      void **ret_early, size_t *ret_early_length, struct err *err)
{
    struct client *client = request->client;
    json_t *message = make_answer(request->id, answer, NULL);
    int ret = client && !client->lost
                  ? hand_over(client, message, ret_fd, ret_early, ret_early_length, err)
                  : err_say(err, ERR_STATE, EPIPE, "the client has gone");
    json_decref(message);
    if (client)
        client->lost = true; /* on a failure too: nobody knows what of the answer it has got */
    if (ret == 0)
        end_request(request);
    if (client && !client->busy)
        finish_turn(client);
    return ret;
}

/* --- verbs -------------------------------------------------------------------------------- */

static const char *const no_keys[] = {NULL};

static int handle_verbs(void *ctx, struct control_request *request, const json_t *arguments,
                        json_t **ret_answer, struct err *err);
static int handle_watch(void *ctx, struct control_request *request, const json_t *arguments,
                        json_t **ret_answer, struct err *err);

static const struct control_verb own_verbs[] = {
    {"verbs", handle_verbs}, {"watch", handle_watch}, {NULL, NULL}};

static const char *verb_name(const void *ctx, size_t i)
{
    const struct control *control = ctx;
    for (unsigned table = 0; table < control->table_count; table++)
        for (const struct control_verb *verb = control->tables[table].verbs; verb->name; verb++)
            if (i-- == 0)
                return verb->name;
    return NULL;
}

static int handle_verbs(void *ctx, struct control_request *request, const json_t *arguments,
                        json_t **ret_answer, struct err *err)
{
    int ret = control_check_keys(arguments, no_keys, err);
    if (ret < 0)
        return ret;
    json_t *names = json_array();
    const char *name;
    for (size_t i = 0; (name = verb_name(ctx, i)); i++)
        json_array_append_new(names, json_string(name));
    *ret_answer = json_pack("{s:o}", "verbs", names);
    return 0;
}

static int handle_watch(void *ctx, struct control_request *request, const json_t *arguments,
                        json_t **ret_answer, struct err *err)
{
    int ret = control_check_keys(arguments, no_keys, err);
    if (ret == 0)
        request->client->watches = true;
    return ret;
}

static int unknown_verb(const struct control *control, const char *name, struct err *err)
{
    const char *nearest = nearest_word(name, verb_name, control);
    int ret = err_say(err, ERR_USAGE, EINVAL, "the verb \"%.40s\" is not known", name);
    if (nearest)
        err_hint(err, "did you mean \"%s\"?", nearest);
    else
        err_hint(err, "the verb \"verbs\" lists them");
    return ret;
}

static int call_verb(struct control *control, struct control_request *request, const char *name,
                     const json_t *arguments, json_t **ret_answer, struct err *err)
{
    for (unsigned i = 0; i < control->table_count; i++)
        for (const struct control_verb *verb = control->tables[i].verbs; verb->name; verb++)
            if (strcmp(verb->name, name) == 0)
                return verb->handle(control->tables[i].ctx, request, arguments, ret_answer, err);
    return unknown_verb(control, name, err);
}

int control_check_keys(const json_t *arguments, const char *const *known, struct err *err)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)arguments, key, value)
    {
        if (words_find(known, key) >= 0)
            continue;
        const char *nearest = words_nearest(known, key);
        int ret = err_say(err, ERR_USAGE, EINVAL, "the argument \"%.40s\" is not known", key);
        if (nearest)
            err_hint(err, "did you mean \"%s\"?", nearest);
        return ret;
    }
    return 0;
}

/* --- a line ------------------------------------------------------------------------------- */

static void run_verb(struct client *client, struct control_request *request, const char *name,
                     const json_t *arguments)
{
    struct err err = {0};
    json_t *answer = NULL;
    request->handling = true;
    int ret = call_verb(client->control, request, name, arguments, &answer, &err);
    request->handling = false;
    if (request->over) {
        json_decref(answer);
        end_request(request);
    } else if (ret < 0) {
        json_decref(answer);
        if (!err.kind)
            err_sys(&err, ERR_FAILED, -ret, "%s", name);
        control_answer(request, NULL, &err);
    } else if (request->deferred) {
        json_decref(answer);
        client->waiting = request;
    } else {
        control_answer(request, answer, NULL);
    }
}

static void serve_object(struct client *client, json_t *message)
{
    json_t *id = json_object_get(message, "id"), *verb = json_object_get(message, "verb");
    struct control_request *request = NULL;
    struct err err;
    if (id && !json_is_integer(id) && !json_is_string(id) && !json_is_null(id)) {
        id = NULL;
        err_say(&err, ERR_USAGE, EINVAL, "an id is a whole number or a string");
    } else if (!json_is_string(verb)) {
        err_say(&err, ERR_USAGE, EINVAL, "a request has a \"verb\", which is a string");
    } else {
        request = calloc(1, sizeof(*request));
        err_sys(&err, ERR_HOST, ENOMEM, "cannot serve a request");
    }
    if (!request) {
        say(client, make_answer(id, NULL, &err));
        return;
    }
    *request = (struct control_request){.client = client, .id = id ? json_incref(id) : NULL};
    json_incref(verb);
    json_object_del(message, "id");
    json_object_del(message, "verb");
    run_verb(client, request, json_string_value(verb), message);
    json_decref(verb);
}

static void serve_line(struct client *client, const char *line, size_t length)
{
    json_error_t where;
    struct err err;
    json_t *message = json_loadb(line, length, JSON_REJECT_DUPLICATES, &where);
    if (json_is_object(message)) {
        serve_object(client, message);
    } else {
        err_say(&err, ERR_USAGE, EINVAL, "a line is one JSON object: %s",
                message ? "this is something else" : where.text);
        condemn(client, &err);
    }
    json_decref(message);
}

static void take_turn(struct client *client)
{
    const char *line;
    size_t length;
    client->busy = true;
    for (unsigned i = 0; i < REQUESTS_A_TURN && is_served(client); i++) {
        if (!wire_next_line(&client->in, &line, &length))
            break;
        serve_line(client, line, length);
    }
    client->busy = false;
    finish_turn(client);
}

static void handle_more(void *arg)
{
    struct control *control = arg;
    for (unsigned i = 0; i < CONTROL_MAX_CLIENTS; i++) {
        struct client *client = control->clients[i];
        if (client && is_served(client) && wire_has_line(&client->in))
            take_turn(client);
    }
}

static void receive(struct client *client)
{
    struct err err;
    ssize_t got = wire_receive(&client->in, client->io.fd);
    if (got == 0) {
        client->ended = true;
    } else if (got == -EMSGSIZE) {
        err_say(&err, ERR_USAGE, EMSGSIZE, "a line has at most %d bytes", CONTROL_MAX_LINE);
        client->busy = true; /* the turn goes on */
        condemn(client, &err);
    } else if (got < 0 && got != -EAGAIN) {
        client->lost = true;
    }
}

static void handle_client(void *arg, unsigned events)
{
    struct client *client = arg;
    if (events & LOOP_HANGUP)
        client->lost = true;
    else if ((events & LOOP_READ) && is_served(client) && !client->ended &&
             !wire_has_line(&client->in))
        receive(client);
    take_turn(client);
}

/* --- events ------------------------------------------------------------------------------- */

void control_event(struct control *control, const char *name, json_t *fields)
{
    uint64_t now_ms = clock_wall_ns() / 1000000;
    json_t *message = json_object();
    json_object_set_new(message, "event", json_string(name));
    json_object_set_new(message, "at", json_real((double)now_ms / 1000));
    if (fields)
        json_object_update_missing(message, fields);
    json_decref(fields);
    for (unsigned i = 0; i < CONTROL_MAX_CLIENTS; i++) {
        struct client *client = control->clients[i];
        if (client && client->watches && !client->condemned)
            say(client, json_incref(message));
    }
    json_decref(message);
}

/* --- the door ----------------------------------------------------------------------------- */

static int admit(struct control *control, int fd, struct err *err)
{
    unsigned slot = 0;
    while (slot < CONTROL_MAX_CLIENTS && control->clients[slot])
        slot++;
    if (slot == CONTROL_MAX_CLIENTS)
        return err_say(err, ERR_STATE, EBUSY,
                       "%d programs are connected already, which is the most", CONTROL_MAX_CLIENTS);
    struct client *client = calloc(1, sizeof(*client));
    if (!client)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot serve one more connection");
    client->control = control;
    client->in.limit = CONTROL_MAX_LINE;
    client->io = (struct loop_io){
        .fd = fd, .events = LOOP_READ, .handle = handle_client, .arg = client};
    int ret = loop_io_add(control->loop, &client->io, err);
    if (ret < 0) {
        free(client);
        return ret;
    }
    control->clients[slot] = client;
    return 0;
}

/* A last line, if it fits into the socket at once. */
static void handle_turn_away(void *ctx, int fd, const struct err *why)
{
    struct wire_backlog line = {0};
    json_t *message = make_answer(NULL, NULL, why);
    bool told = wire_put(&line, message) == 0 && wire_send(&line, fd) == 0;
    (void)told;
    json_decref(message);
    wire_backlog_finish(&line);
    close(fd);
}

static void handle_enter(void *ctx, int fd)
{
    struct err err = {0};
    if (admit(ctx, fd, &err) < 0)
        handle_turn_away(ctx, fd, &err);
}

/* --- life --------------------------------------------------------------------------------- */

void control_add_verbs(struct control *control, const struct control_verb *verbs, void *ctx)
{
    assert(control->table_count < array_size(control->tables));
    control->tables[control->table_count].verbs = verbs;
    control->tables[control->table_count++].ctx = ctx;
}

int control_create(struct control **ret_control, struct loop *loop, const char *path,
                   const struct control_verb *verbs, void *ctx, struct err *err)
{
    struct control *control = calloc(1, sizeof(*control));
    if (!control)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot make the control socket %s", path);
    control->loop = loop;
    control_add_verbs(control, own_verbs, control);
    control_add_verbs(control, verbs, ctx);
    loop_timer_init(&control->more, loop, handle_more, control);
    const struct door_config config = {.path = path,
                                       .name = "control socket",
                                       .backlog = CONTROL_MAX_CLIENTS,
                                       .enter = handle_enter,
                                       .turn_away = handle_turn_away,
                                       .ctx = control};
    int ret = door_open(&control->door, loop, &config, err);
    if (ret < 0) {
        control_destroy(control);
        return ret;
    }
    *ret_control = control;
    return 0;
}

static void dismiss(struct client *client)
{
    struct err err;
    assert(!client->busy);
    client->busy = true; /* no turn ends here any more */
    if (client->waiting) {
        err_say(&err, ERR_STATE, ESHUTDOWN, "the VM ended before this was done");
        say(client, make_answer(client->waiting->id, NULL, &err));
    }
    if (!client->lost && wire_send(&client->out, client->io.fd) < 0)
        client->lost = true;
    client_destroy(client);
}

void control_destroy(struct control *control)
{
    if (!control)
        return;
    loop_timer_cancel(&control->more);
    door_close(control->door);
    for (unsigned i = 0; i < CONTROL_MAX_CLIENTS; i++)
        if (control->clients[i])
            dismiss(control->clients[i]);
    free(control);
}
