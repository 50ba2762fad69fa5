/* SPDX-License-Identifier: MIT */
/*
 * The HTTP of it (RFC 9112) is as little as there can be. Of a request the first line counts and
 * the empty line at its end; what stands between is not looked at. Every answer ends its
 * connection.
 *
 *   READING --the empty line--> SENDING --all sent--> LINGERING --the client's end--> closed
 *
 * Who closes a Unix socket in which something unread lies gives the other side a reset, perhaps
 * before it has read the answer. So what a client sends behind its request is read and thrown away
 * until it closes, which it is told to do, or its time is over.
 */
#include "vmm/metrics_socket.h"

#include "core/clock.h"
#include "vmm/door.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PAGE_TYPE "text/plain; version=0.0.4; charset=utf-8"

enum phase { READING = 1, SENDING, LINGERING };

struct client {
    struct metrics_socket *socket;
    struct loop_io io;
    struct loop_timer end;
    enum phase phase;
    size_t length; /* of the request, so far */
    char request[METRICS_MAX_REQUEST];
    char head[256]; /* of the answer, then its body: sent is of both */
    size_t head_length, body_length, sent;
    char *body; /* NULL: none */
};

struct metrics_socket {
    struct loop *loop;
    struct metrics_socket_config config;
    struct door *door;
    struct client *clients[METRICS_MAX_CLIENTS];
};

static void client_destroy(struct client *client)
{
    struct metrics_socket *socket = client->socket;
    struct client **slot = socket->clients;
    while (*slot != client)
        slot++;
    *slot = NULL;
    if (socket->door)
        door_shut(socket->door, false); /* there is room for one */
    loop_timer_cancel(&client->end);
    loop_io_remove(socket->loop, &client->io);
    close(client->io.fd);
    free(client->body);
    free(client);
}

/* --- the answer ------------------------------------------------------------------------------- */

static void set_head(struct client *client, const char *status, const char *type, size_t length)
{
    int written = snprintf(client->head, sizeof(client->head),
                           "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n%s"
                           "Connection: close\r\n\r\n",
                           status, type, length,
                           strncmp(status, "405", 3) == 0 ? "Allow: GET, HEAD\r\n" : "");
    client->head_length = (size_t)written;
}

/* The status is all that there is to say. */
static void refuse(struct client *client, const char *status)
{
    if (asprintf(&client->body, "%s\n", status) < 0)
        client->body = NULL;
    client->body_length = client->body ? strlen(client->body) : 0;
    set_head(client, status, "text/plain", client->body_length);
}

static void show_page(struct client *client, bool with_body)
{
    const struct metrics_socket_config *config = &client->socket->config;
    size_t length;
    if (config->write(config->ctx, &client->body, &length) < 0) {
        client->body = NULL;
        refuse(client, "503 Service Unavailable");
        return;
    }
    set_head(client, "200 OK", PAGE_TYPE, length);
    client->body_length = with_body ? length : 0;
}

/* --- the request ------------------------------------------------------------------------------ */

/* Cuts a word off the line; what is left begins behind one space. NULL: there is no space. */
static char *cut(char **line)
{
    char *word = *line, *space = strchr(word, ' ');
    if (!space)
        return NULL;
    *space = '\0';
    *line = space + 1;
    return word;
}

static bool is_page(char *target)
{
    target[strcspn(target, "?")] = '\0';
    return strcmp(target, "/metrics") == 0 || strcmp(target, "/") == 0;
}

static bool is_version(const char *version)
{
    return strcmp(version, "HTTP/1.1") == 0 || strcmp(version, "HTTP/1.0") == 0;
}

/* The first line, without its end. */
static void answer(struct client *client, char *line)
{
    const char *method = cut(&line);
    char *target = method ? cut(&line) : NULL;
    bool head = method && strcmp(method, "HEAD") == 0;
    if (!target || target[0] != '/' || strncmp(line, "HTTP/", 5) != 0)
        refuse(client, "400 Bad Request");
    else if (!is_version(line))
        refuse(client, "505 HTTP Version Not Supported");
    else if (!is_page(target))
        refuse(client, "404 Not Found");
    else if (!head && strcmp(method, "GET") != 0)
        refuse(client, "405 Method Not Allowed");
    else
        show_page(client, !head);
    if (head)
        client->body_length = 0;
}

/* Whether the line that ends at this newline is an empty one. */
static bool ends_request(const char *request, const char *newline)
{
    if (newline > request && newline[-1] == '\r')
        newline--;
    return newline > request && newline[-1] == '\n';
}

/* Looks at `fresh` new bytes; true when the whole request is there, and answered. */
static bool take(struct client *client, size_t fresh)
{
    char *at = client->request + client->length, *end = at + fresh;
    client->length += fresh;
    while ((at = memchr(at, '\n', (size_t)(end - at))) && !ends_request(client->request, at))
        at++;
    if (!at)
        return false;
    char *first = memchr(client->request, '\n', client->length);
    if (first > client->request && first[-1] == '\r')
        first--;
    *first = '\0';
    if (strlen(client->request) == (size_t)(first - client->request))
        answer(client, client->request);
    else
        refuse(client, "400 Bad Request"); /* a zero byte in it */
    return true;
}

/* --- a client's turn: each returns false where it has come to its end ---------------------- */

static bool linger(struct client *client)
{
    for (;;) {
        ssize_t got = recv(client->io.fd, client->request, sizeof(client->request), 0);
        if (got > 0)
            return true; /* the next turn is after everybody else's */
        if (got == 0 || errno != EINTR)
            return got < 0 && errno == EAGAIN;
    }
}

static bool send_part(struct client *client, const char *bytes, size_t length)
{
    ssize_t sent = send(client->io.fd, bytes, length, MSG_NOSIGNAL);
    if (sent > 0)
        client->sent += (size_t)sent;
    return sent >= 0 || errno == EAGAIN || errno == EINTR;
}

static bool send_rest(struct client *client)
{
    bool sound = true;
    if (client->sent < client->head_length)
        sound = send_part(client, client->head + client->sent, client->head_length - client->sent);
    size_t of_body = client->sent - client->head_length; /* if the head is through */
    if (sound && client->sent >= client->head_length && of_body < client->body_length)
        sound = send_part(client, client->body + of_body, client->body_length - of_body);
    if (!sound || client->sent < client->head_length + client->body_length)
        return sound;
    client->phase = LINGERING;
    if (shutdown(client->io.fd, SHUT_WR) < 0)
        return false;
    return linger(client);
}

static bool read_more(struct client *client)
{
    ssize_t got = recv(client->io.fd, client->request + client->length,
                       sizeof(client->request) - client->length, 0);
    if (got < 0)
        return errno == EAGAIN || errno == EINTR;
    if (got == 0 && client->length == 0)
        return false;
    if (got == 0)
        refuse(client, "400 Bad Request");
    else if (!take(client, (size_t)got)) {
        if (client->length < sizeof(client->request))
            return true;
        refuse(client, "431 Request Header Fields Too Large");
    }
    client->phase = SENDING;
    return send_rest(client);
}

static bool take_turn(struct client *client)
{
    switch (client->phase) {
    case READING:
        return read_more(client);
    case SENDING:
        return send_rest(client);
    case LINGERING:
        return linger(client);
    }
    return false;
}

static void handle_client(void *arg, unsigned events)
{
    struct client *client = arg;
    /* A hang-up alone (EPOLLHUP): the other side has closed, and nothing is to be read. */
    bool gone = (events & LOOP_HANGUP) && !(events & LOOP_READ);
    if (gone || !take_turn(client))
        client_destroy(client);
    else
        loop_io_watch(client->socket->loop, &client->io,
                      client->phase == SENDING ? LOOP_WRITE : LOOP_READ);
}

static void handle_end(void *arg)
{
    client_destroy(arg);
}

/* --- life ------------------------------------------------------------------------------------- */

static struct client **find_room(struct metrics_socket *socket)
{
    for (unsigned i = 0; i < METRICS_MAX_CLIENTS; i++)
        if (!socket->clients[i])
            return &socket->clients[i];
    return NULL;
}

static int admit(struct metrics_socket *socket, struct client **slot, int fd)
{
    struct client *client = calloc(1, sizeof(*client));
    if (!client)
        return -ENOMEM;
    *client = (struct client){.socket = socket, .phase = READING};
    client->io = (struct loop_io){
        .fd = fd, .events = LOOP_READ, .handle = handle_client, .arg = client};
    loop_timer_init(&client->end, socket->loop, handle_end, client);
    int ret = loop_io_add(socket->loop, &client->io, NULL);
    if (ret < 0) {
        free(client);
        return ret;
    }
    *slot = client;
    ret = loop_timer_arm(&client->end,
                         clock_monotonic_ns() + socket->config.patience_ms * 1000000ull);
    if (ret < 0)
        client_destroy(client);
    return 0; /* either way the descriptor is no longer the caller's */
}

static void handle_entry(void *ctx, int fd)
{
    struct metrics_socket *socket = ctx;
    struct client **slot = find_room(socket);
    if (!slot || admit(socket, slot, fd) < 0)
        close(fd);
    if (!find_room(socket))
        door_shut(socket->door, true);
}

int metrics_socket_create(struct metrics_socket **ret_socket, struct loop *loop,
                          const struct metrics_socket_config *config, struct err *err)
{
    struct metrics_socket *socket = calloc(1, sizeof(*socket));
    if (!socket)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot make the metrics socket %s", config->path);
    socket->loop = loop;
    socket->config = *config;
    if (!socket->config.patience_ms)
        socket->config.patience_ms = METRICS_PATIENCE_MS;
    const struct door_config door = {.path = config->path,
                                     .name = "metrics socket",
                                     .backlog = METRICS_MAX_CLIENTS,
                                     .enter = handle_entry,
                                     .ctx = socket};
    int ret = door_open(&socket->door, loop, &door, err);
    if (ret < 0) {
        metrics_socket_destroy(socket);
        return ret;
    }
    *ret_socket = socket;
    return 0;
}

void metrics_socket_destroy(struct metrics_socket *socket)
{
    if (!socket)
        return;
    door_close(socket->door);
    socket->door = NULL;
    for (unsigned i = 0; i < METRICS_MAX_CLIENTS; i++)
        if (socket->clients[i])
            client_destroy(socket->clients[i]);
    free(socket);
}
