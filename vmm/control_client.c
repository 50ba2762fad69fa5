/* SPDX-License-Identifier: MIT */
/*
 * The asking end of the control socket. An answer is told from a late one, whose question timed
 * out, by its id; events in between are kept in a queue.
 */
#include "vmm/control.h"

#include "core/clock.h"
#include "vmm/control_wire.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { MAX_ANSWER = 16 << 20, MAX_EVENTS = 1024 };

struct control_client {
    int fd;
    unsigned timeout_ms;
    json_int_t id;  /* of the last request */
    json_t *events; /* an array: those that came while an answer was waited for */
    struct wire_lines in;
    bool (*hear)(void *ctx, const json_t *event);
    void *hear_ctx;
};

/* 0: there is none. */
static uint64_t deadline_after(unsigned timeout_ms)
{
    return timeout_ms ? clock_monotonic_ns() + timeout_ms * 1000000ull : 0;
}

/* Milliseconds as poll wants them, rounded up; 0 when it is past. */
static int time_left(uint64_t deadline_ns)
{
    if (!deadline_ns)
        return -1;
    uint64_t now = clock_monotonic_ns();
    uint64_t left = deadline_ns > now ? (deadline_ns - now + 999999) / 1000000 : 0;
    return left < INT_MAX ? (int)left : INT_MAX;
}

static int wait_for(int fd, short events, uint64_t deadline_ns)
{
    struct pollfd io = {.fd = fd, .events = events};
    for (;;) {
        int count = poll(&io, 1, time_left(deadline_ns));
        if (count > 0)
            return 0;
        if (count == 0)
            return -ETIMEDOUT;
        if (errno != EINTR)
            return -errno;
    }
}

/* --- connecting --------------------------------------------------------------------------- */

/* A Unix socket that has too many at its door takes no poll: only a blocking connect waits there,
 * and SO_SNDTIMEO is its limit. */
static int connect_until(int fd, const struct sockaddr_un *address, uint64_t deadline_ns)
{
    for (;;) {
        int left = time_left(deadline_ns);
        if (left == 0)
            return -ETIMEDOUT;
        struct timeval limit = {.tv_sec = left / 1000, .tv_usec = left % 1000 * 1000};
        if (left > 0 && setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) < 0)
            return -errno;
        if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0)
            return 0;
        if (errno == EAGAIN)
            return -ETIMEDOUT;
        if (errno != EINTR)
            return -errno;
    }
}

static int cannot_connect(const char *path, int errnum, struct err *err)
{
    switch (errnum) {
    case ENOENT:
    case ECONNREFUSED:
        return err_say(err, ERR_NOT_FOUND, errnum, "no VM is running behind %s", path);
    case ETIMEDOUT:
        return err_say(err, ERR_TIMEOUT, errnum, "the VM behind %s lets nobody in", path);
    case EACCES:
        err_sys(err, ERR_STATE, errnum, "cannot connect to %s", path);
        err_hint(err, "only the VM's owner and root may control it");
        return -errnum;
    default:
        return err_sys(err, ERR_FAILED, errnum, "cannot connect to %s", path);
    }
}

static int open_connection(struct control_client *client, const char *path, struct err *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address.sun_path))
        return cannot_connect(path, ENAMETOOLONG, err);
    memcpy(address.sun_path, path, strlen(path));
    client->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (client->fd < 0)
        return cannot_connect(path, errno, err);
    int ret = connect_until(client->fd, &address, deadline_after(client->timeout_ms));
    if (ret < 0)
        return cannot_connect(path, -ret, err);
    if (fcntl(client->fd, F_SETFL, O_NONBLOCK) < 0)
        return cannot_connect(path, errno, err);
    return 0;
}

int control_connect(struct control_client **ret_client, const char *path, unsigned timeout_ms,
                    struct err *err)
{
    struct control_client *client = calloc(1, sizeof(*client));
    if (!client)
        return cannot_connect(path, ENOMEM, err);
    client->fd = -1;
    client->timeout_ms = timeout_ms;
    client->in.limit = MAX_ANSWER;
    client->events = json_array();
    int ret = client->events ? open_connection(client, path, err)
                             : cannot_connect(path, ENOMEM, err);
    if (ret < 0) {
        control_disconnect(client);
        return ret;
    }
    *ret_client = client;
    return 0;
}

void control_disconnect(struct control_client *client)
{
    if (!client)
        return;
    if (client->fd >= 0)
        close(client->fd);
    wire_lines_finish(&client->in);
    json_decref(client->events);
    free(client);
}

int control_release(struct control_client *client, void **ret_early, size_t *ret_early_length)
{
    int ret = wire_take_rest(&client->in, ret_early, ret_early_length);
    if (ret < 0)
        return ret;
    int fd = client->fd;
    client->fd = -1;
    control_disconnect(client);
    return fd;
}

/* --- messages ----------------------------------------------------------------------------- */

static int explain(int errnum, struct err *err)
{
    switch (errnum) {
    case ETIMEDOUT:
        return err_say(err, ERR_TIMEOUT, errnum, "the VM did not answer in time");
    case ECANCELED:
        return err_say(err, ERR_FAILED, errnum, "canceled");
    case EPIPE:
    case ECONNRESET:
        return err_say(err, ERR_STATE, EPIPE, "the VM has ended, or hung up");
    default:
        return err_sys(err, ERR_FAILED, errnum, "cannot talk to the VM");
    }
}

static int send_until(struct control_client *client, struct wire_backlog *out, uint64_t deadline_ns)
{
    for (;;) {
        int ret = wire_send(out, client->fd);
        if (ret < 0 || out->at == out->end)
            return ret;
        ret = wait_for(client->fd, POLLOUT, deadline_ns);
        if (ret < 0)
            return ret;
    }
}

/* The next object that the other side sends; the caller's. */
static int receive_until(struct control_client *client, uint64_t deadline_ns, json_t **ret_message)
{
    const char *line;
    size_t length;
    while (!wire_next_line(&client->in, &line, &length)) {
        ssize_t got = wire_receive(&client->in, client->fd);
        if (got == -EAGAIN) {
            int ret = wait_for(client->fd, POLLIN, deadline_ns);
            if (ret < 0)
                return ret;
        } else if (got <= 0) {
            return got < 0 ? (int)got : -EPIPE;
        }
    }
    json_t *message = json_loadb(line, length, 0, NULL);
    if (!json_is_object(message)) {
        json_decref(message);
        return -EBADMSG;
    }
    *ret_message = message;
    return 0;
}

static void keep_event(struct control_client *client, json_t *event)
{
    if (json_array_size(client->events) == MAX_EVENTS)
        json_array_remove(client->events, 0);
    json_array_append(client->events, event);
}

/* False: whoever hears them wants no more. */
static bool take_event(struct control_client *client, json_t *event, uint64_t *deadline_ns)
{
    if (!client->hear) {
        keep_event(client, event);
        return true;
    }
    *deadline_ns = deadline_after(client->timeout_ms);
    return client->hear(client->hear_ctx, event);
}

void control_hear(struct control_client *client, bool (*hear)(void *ctx, const json_t *event),
                  void *ctx)
{
    client->hear = hear;
    client->hear_ctx = ctx;
}

static bool is_event(const json_t *message)
{
    return json_is_string(json_object_get(message, "event"));
}

/* Is it for the last request? An error without an id is about the connection, and so is ours too.
 */
static bool is_ours(const struct control_client *client, const json_t *message)
{
    const json_t *id = json_object_get(message, "id");
    return json_is_integer(id) ? json_integer_value(id) == client->id
                               : json_is_object(json_object_get(message, "error"));
}

static int receive_answer(struct control_client *client, uint64_t deadline_ns, json_t **ret_message)
{
    for (;;) {
        json_t *message;
        int ret = receive_until(client, deadline_ns, &message);
        if (ret < 0)
            return ret;
        if (!is_event(message) && is_ours(client, message)) {
            *ret_message = message;
            return 0;
        }
        bool go_on = !is_event(message) || take_event(client, message, &deadline_ns);
        json_decref(message);
        if (!go_on)
            return -ECANCELED;
        if (time_left(deadline_ns) == 0)
            return -ETIMEDOUT; /* so many events that poll never waits */
    }
}

static int send_request(struct control_client *client, const char *verb, json_t *arguments,
                        uint64_t deadline_ns, struct err *err)
{
    struct wire_backlog out = {0};
    int ret = -ENOMEM;
    json_t *message = arguments ? json_copy(arguments) : json_object();
    if (json_object_set_new(message, "id", json_integer(++client->id)) == 0 &&
        json_object_set_new(message, "verb", json_string(verb)) == 0)
        ret = wire_put(&out, message);
    json_decref(message);
    if (ret < 0) {
        explain(-ret, err);
    } else if (out.end - 1 > CONTROL_MAX_LINE) {
        ret = err_say(err, ERR_USAGE, EMSGSIZE, "%s: a request has at most %d bytes", verb,
                      CONTROL_MAX_LINE);
    } else {
        ret = send_until(client, &out, deadline_ns);
        /* Who hangs up may have said why before. */
        if (ret == -EPIPE || ret == -ECONNRESET)
            ret = 0;
        if (ret < 0) {
            shutdown(client->fd, SHUT_RDWR); /* half a request is out: nothing may follow it */
            explain(-ret, err);
        }
    }
    wire_backlog_finish(&out);
    return ret;
}

int control_call(struct control_client *client, const char *verb, json_t *arguments,
                 json_t **ret_answer, struct err *err)
{
    uint64_t deadline_ns = deadline_after(client->timeout_ms);
    json_t *message;
    int ret = send_request(client, verb, arguments, deadline_ns, err);
    json_decref(arguments);
    if (ret < 0)
        return ret;
    ret = receive_answer(client, deadline_ns, &message);
    if (ret < 0)
        return explain(-ret, err);
    json_t *answer = json_object_get(message, "ok");
    json_t *error = json_object_get(message, "error");
    if (!answer)
        ret = wire_read_error(error, err);
    else if (ret_answer)
        *ret_answer = json_incref(answer);
    json_decref(message);
    return ret;
}

int control_next_event(struct control_client *client, unsigned timeout_ms, json_t **ret_event,
                       struct err *err)
{
    if (json_array_size(client->events)) {
        *ret_event = json_incref(json_array_get(client->events, 0));
        json_array_remove(client->events, 0);
        return 0;
    }
    uint64_t deadline_ns = deadline_after(timeout_ms);
    for (;;) {
        json_t *message;
        int ret = receive_until(client, deadline_ns, &message);
        if (ret < 0)
            return explain(-ret, err);
        if (is_event(message)) {
            *ret_event = message;
            return 0;
        }
        json_decref(message); /* a late answer */
    }
}
