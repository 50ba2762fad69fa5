/* SPDX-License-Identifier: MIT */
/*
 * Connections between two hosts: a VM that moves, or is followed by its standby. One TCP connection
 * with two streams of bytes, both ways at the same time; with a key that both sides hold it is
 * encrypted and each side knows that the other one holds it (TLS 1.3, link_tls.c).
 *
 * Without a key a link is plain: anybody on the way can read the guest's memory and write it. That
 * is allowed where the peer's address is this host's loopback, or where somebody asked for it
 * (insecure).
 */
#pragma once

#include "core/stream.h"
#include <pthread.h>

enum { LINK_KEY_BYTES = 32, LINK_KEY_TEXT = 2 * LINK_KEY_BYTES + 1, LINK_DEFAULT_PORT = 7420 };
enum { LINK_KEY_PRINT = 33 };
enum { LINK_PATHS = 2, LINK_PATH_TEXT = 300 };

struct link_key {
    uint8_t bytes[LINK_KEY_BYTES];
};

/*
 * A file made by `minivmm key`: one line of 64 hex digits; or a pair's (host/key_store.h). Refused:
 * a file that group or others may read or write, one that is somebody else's, and whatever is no
 * regular file.
 */
int link_key_read(struct link_key *ret_key, const char *path, struct err *err) must_check;
int link_key_make(struct link_key *ret_key, struct err *err) must_check;
void link_key_format(const struct link_key *key, char ret_text[LINK_KEY_TEXT]);
/*
 * Its fingerprint, 32 hex digits: half of a SHA-256 of it. No secret. Who connects sends it in the
 * clear: the name of the key, by which the other side finds it.
 */
int link_key_print(const struct link_key *key, char ret_print[LINK_KEY_PRINT],
                   struct err *err) must_check;

/* Keys of those who may call. `print` comes from anybody, and is any text; -errno: nobody's. */
struct link_keys {
    int (*find)(struct link_keys *keys, const char *print, struct link_key *ret_key);
};

struct link_attempt;

/*
 * Addresses are "HOST", "HOST:PORT", "[::1]:PORT", ":PORT", and IPv6 without brackets and port;
 * HOST is a name or a numeric address. Listening, none means every address of this host;
 * connecting, the loopback.
 */
struct link_config {
    const struct link_key *key; /* NULL: plain; only read during connect and accept */
    struct link_keys *keys;     /* accepting, without a key: who calls with one of these has a link
                                 * with TLS, whoever else a plain one where that is allowed */
    bool insecure;              /* plain to another host is what somebody asked for */
    unsigned timeout_ms;        /* connecting, the handshake, and each read or write that does
                                 * not move; 0: none */
    struct link_attempt *attempt; /* who connects can be called off by it; NULL: by nobody */
};

/* A socket to accept(2) from, non-blocking or not as the caller makes it; close-on-exec. */
int link_listen(int *ret_fd, const char *address, struct err *err) must_check;

/*
 * Calls link_connect off, from any thread: it ends with -ECANCELED, at once but for looking a name
 * up, and so does each that begins with it later, until it is renewed.
 */
struct link_attempt {
    pthread_mutex_t lock;
    int socket; /* the one of this moment, by a number of ours; negative: none */
    bool is_off;
};

void link_attempt_init(struct link_attempt *attempt);
void link_attempt_finish(struct link_attempt *attempt);
void link_attempt_renew(struct link_attempt *attempt);
void link_attempt_call_off(struct link_attempt *attempt);

struct link;

/*
 * Both return after the handshake: the peer holds the key, or both sides use none. Every address of
 * a name is tried. Each side says what is wrong when they do not agree, about keys too.
 */
int link_connect(struct link **ret_link, const char *address, const struct link_config *config,
                 struct err *err) must_check;
/* Takes the accepted socket over, also on failure. 1: it was another path of a link that some
 * process on this host has, and is there now. */
int link_accept(struct link **ret_link, int socket, const struct link_config *config,
                struct err *err) must_check;

/*
 * Two paths. A link can have two addresses of the same peer, "HOST,HOST" with ports as above: then
 * it has a connection by each, and its bytes go by one of them (the first that was made). Where
 * they do not get on for a third of the peer's patience, or that connection ends, they go on by the
 * other one, whole; the connection that was lost is made anew when it can be. With no connection
 * left the link is at its end, as with one. Who accepts learns all that from who connects.
 */
struct link_times {
    unsigned beat_ms;     /* so often something is heard on each path, or more often */
    unsigned patience_ms; /* after which whoever uses the link takes its peer for gone */
};

/* As link_connect where there is one address. One of two is enough to begin with. */
int link_connect_paths(struct link **ret_link, const char *addresses,
                       const struct link_times *times, const struct link_config *config,
                       struct err *err) must_check;
/* Whether that is one address, or two that differ. */
int link_check_addresses(const char *addresses, struct err *err) must_check;

struct link_news {
    unsigned count; /* of paths; 0: it has no second address */
    int active;     /* -1: none */
    uint64_t moves; /* from one path to the other */
    struct {
        bool alive;
        uint64_t since_ns; /* CLOCK_MONOTONIC */
        char address[LINK_PATH_TEXT];
    } path[LINK_PATHS];
};

void link_look(struct link *link, struct link_news *ret_news); /* any thread */
/* Bytes that were written, and the other host does not have yet; of two paths 0. Any thread. */
uint64_t link_unsent(const struct link *link);
/*
 * How long the line itself has had bytes of ours in it so far: not while the other side's program
 * takes none, nor while we write none, and so whatever else the CPUs at both ends have to do. Of
 * two paths it is that of the one in use, and may get less. Any thread.
 */
uint64_t link_line_ns(const struct link *link);
/* Who reads waits for bytes of which none is here: the peer has said nothing since. And how many
 * have come before. Any thread, which waits for nobody. */
bool link_waits(const struct link *link, uint64_t *ret_come);
/* Called when any of that but since_ns changes, on threads of the link's, and must not wait for
 * anything, nor call the link; until the link is destroyed, or with NULL. */
void link_watch(struct link *link, void (*changes)(void *ctx), void *ctx);

/*
 * One thread reads while another one writes; each stream belongs to one of them. Errors stick:
 * -ETIMEDOUT, -ECONNRESET or -EPIPE when the peer is gone, -ENODATA after its orderly end,
 * -EBADMSG where bytes were changed on the way. Small writes are gathered; stream_flush sends them.
 */
struct stream *link_reader(struct link *link);
struct stream *link_writer(struct link *link);

/* Of reads and writes that begin from now on; 0: none. Any thread. */
void link_set_timeout(struct link *link, unsigned timeout_ms);

/* From any thread: both directions end at once, and whoever waits in them wakes up with an error.
 */
void link_break(struct link *link);

const char *link_peer(const struct link *link); /* "10.0.0.2:4711", for people */

/*
 * Ends it in an orderly way, for what was flushed; nobody reads or writes any more. The link may be
 * NULL.
 */
void link_destroy(struct link *link);
