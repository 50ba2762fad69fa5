/* SPDX-License-Identifier: MIT */
/*
 * Asks an HTTP/1.1 server one thing: a POST, and its whole answer, bounded in time and size. One
 * connection for each. The server is hostile: it gets the request, and our time until the deadline.
 * What no deadline here bounds is looking its name up, which the C library does, for as long as it
 * asks name servers: a numeric address needs none. Whoever must not wait that long asks on a thread
 * that can be left to itself (ft/asker.h).
 */
#pragma once

#include "host/http_answer.h"

struct http_server {
    char host[256], port[6];
    bool tls;
};

/* "HOST", "HOST:PORT", "[::1]:PORT". -EINVAL without words: it is none. */
int http_server_parse(struct http_server *ret_server, const char *text, size_t length,
                      unsigned default_port) must_check;
void http_server_name(const struct http_server *server, char *ret_text, size_t size);
bool http_server_is_local(const struct http_server *server); /* this host's loopback, by its name */

/* What TLS goes by, as PEM. The server's certificate has to be for its name, and signed by ca. */
struct http_trust {
    const char *ca;
    const char *cert, *key; /* ours; NULL: none */
};

enum { HTTP_SERVERS = 16 };

/*
 * Connects to the first one that can be connected to, of those whose bit in `tried` is not set:
 * `first` has a short lead, then all are called at once, so that a host that is gone costs nothing.
 * Returns the socket; or -errno, when why[] has the reason of each, -errno (-ENOENT: its name).
 */
int http_dial(const struct http_server *servers, size_t count, uint32_t tried, size_t first,
              uint64_t deadline_ns, size_t *ret_which, int why[HTTP_SERVERS]) must_check;

struct http_request {
    const char *path;
    const char *token; /* Authorization; NULL: none */
    const char *body;  /* JSON */
};

/*
 * The socket is taken over. The error's sentence goes on after the server's name ("did not answer
 * in time"). *ret_sent: the server may have the request.
 */
int http_post(int socket, const struct http_server *server, const struct http_trust *trust,
              const struct http_request *request, uint64_t deadline_ns,
              struct http_answer *ret_answer, bool *ret_sent, struct err *err) must_check;
