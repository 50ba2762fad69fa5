/* SPDX-License-Identifier: MIT */
#include "host/http_client.h"

#include "core/clock.h"
#include "host/http_parts.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ADDRESSES = 2, CALLS = HTTP_SERVERS * ADDRESSES }; /* of each name so many are tried */
enum { LEAD_MS = 50 };
enum { PIECE = 4096 };

/* --- names ------------------------------------------------------------------------------------ */

int http_server_parse(struct http_server *ret_server, const char *text, size_t length,
                      unsigned default_port)
{
    struct http_server server = {.tls = false};
    struct link_address address;
    char whole[300];

    if (length == 0 || length > 280 || text[0] == ':')
        return -EINVAL;
    const char *bracket = memchr(text, ']', length);
    const char *after = bracket ? bracket : text;
    bool has_port = memchr(after, ':', length - (size_t)(after - text)) != NULL;
    if (!has_port)
        snprintf(whole, sizeof(whole), "%.*s:%u", (int)length, text, default_port);
    else
        snprintf(whole, sizeof(whole), "%.*s", (int)length, text);
    size_t colons = 0;
    for (const char *at = whole; !bracket && *at; at++)
        colons += *at == ':';
    if (colons > 1 || link_address_parse(&address, whole, false, NULL) < 0)
        return -EINVAL; /* where the port of an IPv6 address begins nobody knows without brackets */
    memcpy(server.host, address.host, sizeof(server.host));
    memcpy(server.port, address.port, sizeof(server.port));
    *ret_server = server;
    return 0;
}

void http_server_name(const struct http_server *server, char *ret_text, size_t size)
{
    snprintf(ret_text, size, strchr(server->host, ':') ? "[%s]:%s" : "%s:%s", server->host,
             server->port);
}

bool http_server_is_local(const struct http_server *server)
{
    const char *host = server->host;
    struct in_addr four;

    return strcmp(host, "localhost") == 0 || strcmp(host, "::1") == 0 ||
           (inet_pton(AF_INET, host, &four) == 1 && ntohl(four.s_addr) >> 24 == 127);
}

/* --- connecting ------------------------------------------------------------------------------- */

/* Sockets that are on their way to be connected. */
struct dial {
    const struct http_server *servers;
    int *why;
    size_t count;
    struct pollfd calls[CALLS];
    size_t which[CALLS];
};

static void call_one(struct dial *dial, size_t which, const struct addrinfo *at)
{
    int fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0 || (connect(fd, at->ai_addr, at->ai_addrlen) < 0 && errno != EINPROGRESS)) {
        dial->why[which] = -errno;
        if (fd >= 0)
            close(fd);
        return;
    }
    dial->calls[dial->count] = (struct pollfd){.fd = fd, .events = POLLOUT};
    dial->which[dial->count++] = which;
    dial->why[which] = -ETIMEDOUT; /* until it is known better */
}

static void call(struct dial *dial, size_t which)
{
    struct link_address address;
    struct addrinfo *list;
    unsigned left = ADDRESSES;

    memcpy(address.host, dial->servers[which].host, sizeof(address.host));
    memcpy(address.port, dial->servers[which].port, sizeof(address.port));
    int r = link_address_find(&list, &address, false, NULL);
    if (r < 0) {
        dial->why[which] = r;
        return;
    }
    for (const struct addrinfo *at = list; at && left > 0; at = at->ai_next, left--)
        call_one(dial, which, at);
    freeaddrinfo(list);
}

/* The first that is connected is out of the list, and returned; -EAGAIN: none as yet. */
static int pick(struct dial *dial, size_t *ret_which)
{
    for (size_t i = 0; i < dial->count;) {
        int error = 0, fd = dial->calls[i].fd;
        socklen_t size = sizeof(error);
        if (!dial->calls[i].revents) {
            i++;
            continue;
        }
        if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
            error = errno;
        *ret_which = dial->which[i];
        dial->count--;
        dial->calls[i] = dial->calls[dial->count];
        dial->which[i] = dial->which[dial->count];
        if (error == 0)
            return fd;
        dial->why[*ret_which] = -error;
        close(fd);
    }
    return -EAGAIN;
}

/* A connected socket; -ETIMEDOUT: none until then; -ECONNREFUSED: none is left. */
static int wait_for_any(struct dial *dial, uint64_t until_ns, size_t *ret_which)
{
    while (dial->count > 0) {
        uint64_t now = clock_monotonic_ns();
        if (now >= until_ns)
            return -ETIMEDOUT;
        uint64_t ms = (until_ns - now) / 1000000 + 1;
        int n = poll(dial->calls, dial->count, ms < INT_MAX ? (int)ms : INT_MAX);
        if (n < 0 && errno != EINTR)
            return -errno;
        int fd = n > 0 ? pick(dial, ret_which) : -EAGAIN;
        if (fd >= 0)
            return fd;
    }
    return -ECONNREFUSED;
}

int http_dial(const struct http_server *servers, size_t count, uint32_t tried, size_t first,
              uint64_t deadline_ns, size_t *ret_which, int why[HTTP_SERVERS])
{
    struct dial dial = {.servers = servers, .why = why};
    uint64_t lead = clock_monotonic_ns() + LEAD_MS * 1000000ull;
    bool has_first = first < count && !(tried & 1u << first);
    int fd = -ECONNREFUSED;

    if (has_first) {
        call(&dial, first);
        fd = wait_for_any(&dial, lead < deadline_ns ? lead : deadline_ns, ret_which);
    }
    if (fd < 0) {
        for (size_t i = 0; i < count; i++)
            if (!(tried & 1u << i) && !(has_first && i == first))
                call(&dial, i);
        fd = wait_for_any(&dial, deadline_ns, ret_which);
    }
    for (size_t i = 0; i < dial.count; i++)
        close(dial.calls[i].fd);
    int flags = fd >= 0 ? fcntl(fd, F_GETFL) : 0;
    if (fd >= 0 && (flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0)) {
        why[*ret_which] = -errno;
        close(fd);
        return -errno;
    }
    return fd;
}

/* --- asking ----------------------------------------------------------------------------------- */

/* A connection, plain (tls NULL) or not. */
struct way {
    struct wire wire;
    struct http_tls *tls;
};

static int say_wire(struct way *way, int error, struct err *err)
{
    switch (error) {
    case -ETIMEDOUT:
        return err_say(err, ERR_TIMEOUT, ETIMEDOUT, "did not answer in time");
    case -ENODATA:
    case -ECONNRESET:
    case -EPIPE:
        return err_say(err, ERR_FAILED, ECONNRESET, "hung up");
    case -EKEYREJECTED:
        return http_tls_say_refused(way->tls, err);
    case -EBADMSG:
        return err_say(err, ERR_FAILED, EBADMSG, "breaks the rules of TLS");
    default:
        return err_sys(err, ERR_FAILED, -error, "cannot be talked to");
    }
}

static int send_all(struct way *way, const char *text, size_t length)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)text, .iov_len = length};

    return way->tls ? http_tls_send(way->tls, text, length)
                    : link_wire_send(&way->wire, &iov, 1, 0);
}

static int send_request(struct way *way, const struct http_server *server,
                        const struct http_request *request, bool *ret_sent, struct err *err)
{
    const char *token = request->token;
    char name[300], *text = NULL;

    http_server_name(server, name, sizeof(name));
    int length = asprintf(&text,
                          "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n"
                          "Content-Length: %zu\r\nConnection: close\r\n%s%s%s\r\n%s",
                          request->path, name, strlen(request->body),
                          token ? "Authorization: " : "", token ? token : "", token ? "\r\n" : "",
                          request->body);
    if (length < 0)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot be asked");
    *ret_sent = true;
    int r = send_all(way, text, (size_t)length);
    explicit_bzero(text, (size_t)length);
    free(text);
    return r < 0 ? say_wire(way, r, err) : 0;
}

static int take_answer(struct way *way, struct http_answer *answer, struct err *err)
{
    char piece[PIECE];
    int r = 0;

    http_answer_init(answer);
    while (r == 0) {
        ssize_t n = way->tls ? http_tls_receive(way->tls, piece, sizeof(piece))
                             : link_wire_receive(&way->wire, piece, sizeof(piece));
        if (n == -ENODATA && answer->head_bytes) {
            r = http_answer_end(answer);
            break;
        }
        if (n < 0)
            return say_wire(way, (int)n, err);
        r = http_answer_take(answer, piece, (size_t)n);
    }
    return r < 0 ? err_say(err, ERR_FAILED, EBADMSG, "gives an answer that %s", answer->wrong) : 0;
}

int http_post(int socket, const struct http_server *server, const struct http_trust *trust,
              const struct http_request *request, uint64_t deadline_ns,
              struct http_answer *ret_answer, bool *ret_sent, struct err *err)
{
    struct way way = {.wire = {.fd = socket, .deadline_ns = deadline_ns}};
    const int on = 1;

    (void)setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    *ret_sent = false;
    int r = server->tls ? http_tls_create(&way.tls, &way.wire, server, trust, err) : 0;
    if (r == 0)
        r = send_request(&way, server, request, ret_sent, err);
    if (r == 0)
        r = take_answer(&way, ret_answer, err);
    http_tls_destroy(way.tls);
    close(socket);
    return r;
}
