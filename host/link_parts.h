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
bool link_address_is_number(const char *host); /* no name that has to be looked up */
/* For freeaddrinfo. A name that does not resolve is ERR_NOT_FOUND. */
int link_address_find(struct addrinfo **ret_list, const struct link_address *address,
                      bool listening, struct err *err) must_check;

/* A connected socket becomes a link; it is taken over. */
int link_start(struct link **ret_link, int socket, bool accepting, const struct link_config *config,
               struct err *err) must_check;
/* The socket, in blocking mode. */
int link_dial(int *ret_socket, const char *text, const struct link_config *config,
              struct err *err) must_check;

/* Connecting has come to its end, r; that is what is returned, or that it was called off. */
int link_attempt_end(struct link_attempt *attempt, const char *text, int r,
                     struct err *err) must_check;
int link_say_key_is_missing(const char *peer, struct err *err) must_check;

/* Keys (link_key.c, key_store.c). */

/* After the first line of a pair's file: "as", and what the other host calls this one. */
#define KEY_STORE_SECOND_LINE "\nas "

bool link_key_parse(struct link_key *ret_key, const char digits[2 * LINK_KEY_BYTES]) must_check;

/* The socket: bytes one way and the other, each by one thread. */

/* What link_waits tells of. */
struct link_arrived {
    atomic_bool waits;
    _Atomic uint64_t bytes;
};

struct wire {
    int fd; /* blocking */
    atomic_bool broken;
    uint64_t deadline_ns; /* of a handshake as a whole; 0: the socket's own limits */
    struct link_arrived arrived;
};

/* At least one byte; -ENODATA at the end. The rest as link_reader and link_writer say. */
ssize_t link_wire_receive(struct wire *wire, void *to, size_t length);
uint64_t link_wire_line_ns(const struct wire *wire); /* as link_line_ns */
/* All of them; iov is used up. With MSG_DONTWAIT: -ETIMEDOUT where that would wait. */
int link_wire_send(struct wire *wire, struct iovec *iov, size_t count, int flags) must_check;

/* Links of more than one path (link_finder.c, link_paths.c). */

enum { LINK_GREETING = 16, LINK_SESSION = 16 };

/* What a connection is for, by who connects. */
enum link_purpose { LINK_ALONE, LINK_FIRST, LINK_ANOTHER };

struct link_opening {
    bool accepting;
    enum link_purpose purpose;
    const uint8_t *session;  /* of another path, connecting */
    const uint8_t *greeting; /* of the other side's: somebody has read it already; NULL: nobody */
};

/* link_start with all that; 1: another path came, and was passed on (finder_pass_on). */
int link_open(struct link **ret_link, int socket, const struct link_opening *opening,
              const struct link_config *config, struct err *err) must_check;
/* For all that follows, together; 0: none. */
void link_set_deadline(struct link *link, unsigned ms);
void link_hang_up(struct link *link); /* who reads hears the end; for who writes all is as before */

struct link_paths;
/* Who has opened the first connection of several, or was opened to; takes the link over. */
int link_lay_paths(struct link **ret_link, struct link_paths *paths, struct err *err) must_check;
int finder_accept(struct link **ret_link, struct link *first, const struct link_config *config,
                  struct err *err) must_check;
/* The socket, which stays the caller's, to the process that has the session. */
int finder_pass_on(struct wire *wire, const uint8_t greeting[LINK_GREETING],
                   struct err *err) must_check;
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
