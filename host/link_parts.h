/* SPDX-License-Identifier: MIT */
/* Between the files of host/link*.c: addresses, the socket of a link, and TLS over it. */
#pragma once

#include "host/link.h"
#include <netdb.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/uio.h>

/* Addresses (link_address.c). */

struct link_address {
    char host[256]; /* empty: none was named */
    char port[6];
};

/* Listening, port 0 asks for any free one; connecting, it is refused. */
int link_address_parse(struct link_address *ret_address, const char *text, bool listening,
                       struct err *err) must_check;
void link_address_format(const struct sockaddr *address, socklen_t length, char *ret_text,
                         size_t size);
bool link_address_is_loopback(const struct sockaddr *address);
/* For freeaddrinfo. A name that does not resolve is ERR_NOT_FOUND. */
int link_address_find(struct addrinfo **ret_list, const struct link_address *address,
                      bool listening, struct err *err) must_check;

/* A connected socket becomes a link; it is taken over. */
int link_start(struct link **ret_link, int socket, bool accepting, const struct link_config *config,
               struct err *err) must_check;
int link_say_key_is_missing(const char *peer, struct err *err) must_check;

/* Keys (link_key.c, key_store.c). */

/* After the first line of a pair's file: "as", and what the other host calls this one. */
#define KEY_STORE_SECOND_LINE "\nas "

bool link_key_parse(struct link_key *ret_key, const char digits[2 * LINK_KEY_BYTES]) must_check;

/* The socket: bytes one way and the other, each by one thread. */

struct wire {
    int fd; /* blocking */
    atomic_bool broken;
    uint64_t deadline_ns; /* of a handshake as a whole; 0: the socket's own limits */
};

/* At least one byte; -ENODATA at the end. The rest as link_reader and link_writer say. */
ssize_t link_wire_receive(struct wire *wire, void *to, size_t length);
/* All of them; iov is used up. With MSG_DONTWAIT: -ETIMEDOUT where that would wait. */
int link_wire_send(struct wire *wire, struct iovec *iov, size_t count, int flags) must_check;

/* TLS (link_tls.c). */

struct tls;

/* Both handshakes, before the wire's deadline. The wire outlives it. The config has a key or,
 * accepting, keys. */
int tls_create(struct tls **ret_tls, struct wire *wire, const struct link_config *config,
               bool accepting, const char *peer, struct err *err) must_check;
enum { TLS_RECORD = 16384 };                                   /* room in which a record fits */
ssize_t tls_receive(struct tls *tls, void *to, size_t length); /* as wire_receive */
int tls_send(struct tls *tls, const void *from, size_t length) must_check;
int tls_flush(struct tls *tls) must_check;
void tls_end(struct tls *tls); /* tells the peer that no more will come; never waits */
void tls_destroy(struct tls *tls);
