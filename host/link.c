/* SPDX-License-Identifier: MIT */
/*
 * What is said on a new connection, before anything else. Each side sends a greeting of 16 bytes,
 * who connected first, and reads the other one's; who accepts with the keys of several hosts says 2
 * to who says 2:
 *
 *   0   8  "minivmm" and a zero byte
 *   8   1  version: 1
 *   9   1  who speaks: 1 connected, 2 accepted
 *   10  1  how: 1 plain, 2 TLS, 3 neither (there is no key, and plain is not allowed to the peer)
 *   11  1  what for, by who connected: 0 a link, 1 the first path of a link, 2 another one; who
 *          accepted says the same
 *   12  4  zero; not looked at
 *
 * After that, of another path, who connected says the session's 16 bytes (link_finder.c).
 *
 * Rules:
 *  1. The link is made when both say 1 or both say 2. After TLS's handshakes (link_tls.c), or at
 *     once, it belongs to the streams.
 *  2. Otherwise both close; each can tell its user what is wrong, having read what the other wants.
 *     Nothing that is said here is trusted: a greeting that was changed on the way can end a link,
 *     never make it plain.
 *  3. Greeting and handshakes together have one time limit.
 */
#include "host/link_paths.h"

#include "core/clock.h"
#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/time.h>
#include <unistd.h>

enum { SAYS_PLAIN = 1, SAYS_TLS = 2, SAYS_NEITHER = 3 };
enum { VERSION = 1, CONNECTED = 1, ACCEPTED = 2 };
static const uint8_t word[8] = "minivmm";
enum {
    HALF = 64 * 1024, /* gathered for writing, read ahead */
    MOST_UNSENT = 256 * 1024,
    NEAR = 1024 /* read ahead after what went without a copy: most of it will do so again */
};

struct link {
    struct wire wire;
    struct link_paths *paths; /* then that is all of it */
    uint8_t purpose;
    struct tls *tls;      /* NULL: plain */
    struct stream writer; /* and of its thread: */
    size_t pending;       /* gathered */
    struct stream reader; /* and of its thread: */
    size_t read_at;       /* [read_at, available) */
    size_t available;
    bool direct; /* so went what was read last */
    char peer[80];
    uint8_t gathered[HALF];
    uint8_t ahead[HALF];
};

/* Streams. */

static int send_parts(struct link *link, struct iovec *iov, size_t count)
{
    if (!link->tls)
        return link_wire_send(&link->wire, iov, count, 0);
    int r = 0;
    for (size_t i = 0; r == 0 && i < count; i++)
        r = tls_send(link->tls, iov[i].iov_base, iov[i].iov_len);
    return r == 0 ? tls_flush(link->tls) : r;
}

/* What was gathered, and then `length` bytes more. */
static int write_out(struct link *link, const void *more, size_t length)
{
    struct iovec iov[2] = {
        {.iov_base = link->gathered, .iov_len = link->pending},
        {.iov_base = (void *)(uintptr_t)more, .iov_len = length},
    };
    size_t first = link->pending ? 0 : 1, end = length ? 2 : 1;

    link->pending = 0;
    return first < end ? send_parts(link, iov + first, end - first) : 0;
}

static int link_write(struct stream *stream, const void *from, size_t length)
{
    struct link *link = container_of(stream, struct link, writer);

    if (length > HALF - link->pending)
        return write_out(link, from, length);
    memcpy(link->gathered + link->pending, from, length);
    link->pending += length;
    return 0;
}

static int link_flush(struct stream *stream)
{
    return write_out(container_of(stream, struct link, writer), NULL, 0);
}

static ssize_t receive_some(struct link *link, void *to, size_t length)
{
    return link->tls ? tls_receive(link->tls, to, length)
                     : link_wire_receive(&link->wire, to, length);
}

static int link_read(struct stream *stream, void *to, size_t length)
{
    struct link *link = container_of(stream, struct link, reader);
    size_t direct = link->tls ? TLS_RECORD : HALF; /* from here on without a copy */
    uint8_t *at = to;

    while (length > 0) {
        size_t ready = link->available - link->read_at;
        if (ready == 0 && length >= direct) {
            ssize_t n = receive_some(link, at, length);
            if (n < 0)
                return (int)n;
            at += n;
            length -= (size_t)n;
            link->direct = true;
            continue;
        }
        if (ready == 0) {
            bool near = link->direct && !link->tls && length < NEAR;
            ssize_t n = receive_some(link, link->ahead, near ? NEAR : HALF);
            if (n < 0)
                return (int)n;
            link->direct = false;
            link->read_at = 0;
            link->available = ready = (size_t)n;
        }
        size_t n = length < ready ? length : ready;
        memcpy(at, link->ahead + link->read_at, n);
        link->read_at += n;
        at += n;
        length -= n;
    }
    return 0;
}

static int no_write(struct stream *stream, const void *from, size_t length)
{
    return -EBADF;
}

static int no_read(struct stream *stream, void *to, size_t length)
{
    return -EBADF;
}

static const struct stream_ops writer_ops = {
    .write = link_write, .read = no_read, .flush = link_flush};
static const struct stream_ops reader_ops = {.write = no_write, .read = link_read};

/* Of several paths: one more copy, and none here. */

static int paths_write(struct stream *stream, const void *from, size_t length)
{
    return link_paths_write(container_of(stream, struct link, writer)->paths, from, length);
}

static int paths_flush(struct stream *stream)
{
    return link_paths_flush(container_of(stream, struct link, writer)->paths);
}

static int paths_read(struct stream *stream, void *to, size_t length)
{
    return link_paths_read(container_of(stream, struct link, reader)->paths, to, length);
}

static const struct stream_ops paths_writer_ops = {
    .write = paths_write, .read = no_read, .flush = paths_flush};
static const struct stream_ops paths_reader_ops = {.write = no_write, .read = paths_read};

struct stream *link_reader(struct link *link)
{
    return &link->reader;
}

struct stream *link_writer(struct link *link)
{
    return &link->writer;
}

/* The beginning. */

static int say_wire(int error, const char *peer, struct err *err)
{
    if (error == -ETIMEDOUT)
        return err_say(err, ERR_TIMEOUT, ETIMEDOUT, "%s is connected and says nothing", peer);
    if (error == -ENODATA || error == -ECONNRESET || error == -EPIPE) {
        int r = err_say(err, ERR_FAILED, ECONNRESET, "%s hung up before a word was said", peer);
        err_hint(err, "its own messages may tell why");
        return r;
    }
    return err_sys(err, ERR_FAILED, -error, "cannot talk to %s", peer);
}

static int hear_greeting(struct link *link, uint8_t ret_theirs[LINK_GREETING], struct err *err)
{
    for (size_t length = 0; length < LINK_GREETING;) {
        ssize_t n = link_wire_receive(&link->wire, ret_theirs + length, LINK_GREETING - length);
        if (n < 0)
            return say_wire((int)n, link->peer, err);
        length += (size_t)n;
    }
    return 0;
}

static int check_greeting(const struct link *link, const uint8_t theirs[LINK_GREETING], uint8_t who,
                          struct err *err)
{
    if (memcmp(theirs, word, sizeof(word)) != 0 || theirs[9] != who || theirs[10] < SAYS_PLAIN ||
        theirs[10] > SAYS_NEITHER) {
        int r = err_say(err, ERR_FAILED, EPROTO, "what is at %s is not minivmm", link->peer);
        err_hint(err, "is that the port that minivmm listens at there?");
        return r;
    }
    if (theirs[8] != VERSION)
        return err_say(err, ERR_FAILED, EPROTONOSUPPORT,
                       "minivmm at %s speaks version %u of the link, not %d", link->peer, theirs[8],
                       VERSION);
    return 0;
}

/* Of "hostB:7420", "[::1]:7420" (with its brackets), "::1". */
static size_t host_length(const char *peer)
{
    const char *colon = strchr(peer, ':'), *last = strrchr(peer, ':');

    return colon && (colon == last || *peer == '[') ? (size_t)(last - peer) : strlen(peer);
}

static int say_greeting(struct link *link, uint8_t who, uint8_t how,
                        const struct link_opening *opening, struct err *err)
{
    uint8_t mine[LINK_GREETING] = {[8] = VERSION, who, how, link->purpose};
    bool names = !opening->accepting && link->purpose == LINK_ANOTHER;
    struct iovec iov[] = {
        {.iov_base = mine, .iov_len = sizeof(mine)},
        {.iov_base = (void *)(uintptr_t)opening->session, .iov_len = LINK_SESSION},
    };
    memcpy(mine, word, sizeof(word));
    int r = link_wire_send(&link->wire, iov, names ? 2 : 1, 0);
    return r < 0 ? say_wire(r, link->peer, err) : 0;
}

static int connect_greetings(struct link *link, uint8_t how, const struct link_opening *opening,
                             uint8_t *ret_how, struct err *err)
{
    uint8_t theirs[LINK_GREETING];
    link->purpose = (uint8_t)opening->purpose;
    int r = say_greeting(link, CONNECTED, how, opening, err);
    if (r == 0)
        r = hear_greeting(link, theirs, err);
    if (r == 0)
        r = check_greeting(link, theirs, ACCEPTED, err);
    if (r < 0)
        return r;
    *ret_how = theirs[10];
    if (link->purpose == LINK_ALONE || theirs[11] == link->purpose)
        return 0;
    r = err_say(err, ERR_FAILED, EPROTONOSUPPORT, "minivmm at %s knows no link of two paths",
                link->peer);
    err_hint(err, "name one address, or install there what is installed here");
    return r;
}

/* *how is what we say: with the keys of several hosts that is up to who calls. 1: it was passed
 * on. */
static int accept_greetings(struct link *link, uint8_t *how, bool has_keys,
                            const struct link_opening *opening, uint8_t *ret_how, struct err *err)
{
    uint8_t theirs[LINK_GREETING];
    int r = 0;
    if (opening->greeting)
        memcpy(theirs, opening->greeting, sizeof(theirs));
    else
        r = hear_greeting(link, theirs, err);
    if (r == 0)
        r = check_greeting(link, theirs, CONNECTED, err);
    if (r < 0) { /* it may tell them what is wrong */
        (void)!say_greeting(link, ACCEPTED, *how, opening, NULL);
        return r;
    }
    link->purpose = theirs[11] <= LINK_ANOTHER ? theirs[11] : LINK_ALONE;
    if (link->purpose == LINK_ANOTHER && !opening->greeting) {
        r = finder_pass_on(&link->wire, theirs, err);
        return r < 0 ? r : 1;
    }
    *ret_how = theirs[10];
    if (has_keys && theirs[10] == SAYS_TLS)
        *how = SAYS_TLS;
    return say_greeting(link, ACCEPTED, *how, opening, err);
}

int link_say_key_is_missing(const char *peer, struct err *err)
{
    int r = err_say(err, ERR_USAGE, EPERM,
                    "a link to another host needs a key, and there is none for %s", peer);

    err_hint(err, "minivmm pair %.*s makes one for both hosts", (int)host_length(peer), peer);
    return r;
}

/* What comes of both greetings. */
static int agree(uint8_t mine, uint8_t theirs, const char *peer, struct err *err)
{
    int r;

    if (mine == SAYS_NEITHER)
        return link_say_key_is_missing(peer, err);
    if (mine == theirs)
        return 0;
    if (mine == SAYS_TLS) {
        r = err_say(err, ERR_USAGE, EPERM, "the other side, %s, does not use a key", peer);
        err_hint(err,
                 "start it with the same --key there, or let minivmm pair give both hosts one");
        return r;
    }
    r = err_say(err, ERR_USAGE, EPERM, "the other side, %s, wants a key", peer);
    err_hint(err, "minivmm pair gives both hosts one; or start this side with the same --key FILE "
                  "as there");
    return r;
}

static void set_options(int fd)
{
    const struct {
        int level, name, value;
    } options[] = {
        {IPPROTO_TCP, TCP_NODELAY, 1}, /* the writer gathers by itself */
        /* More than that waits here, and not in the kernel, which would keep seconds of a slow line
         * between a word and who is to hear it. */
        {IPPROTO_TCP, TCP_NOTSENT_LOWAT, MOST_UNSENT},
        /* A host that is gone shows after 35 s of silence. The kernel asks only while nothing is on
         * its way; bytes that nobody acknowledges it would send again for a quarter of an hour. */
        {SOL_SOCKET, SO_KEEPALIVE, 1},
        {IPPROTO_TCP, TCP_KEEPIDLE, 15},
        {IPPROTO_TCP, TCP_KEEPINTVL, 5},
        {IPPROTO_TCP, TCP_KEEPCNT, 4},
        {IPPROTO_TCP, TCP_USER_TIMEOUT, 35000},
    };

    for (size_t i = 0; i < array_size(options); i++)
        (void)setsockopt(fd, options[i].level, options[i].name, &options[i].value, sizeof(int));
}

static int start(struct link *link, const struct link_opening *opening,
                 const struct link_config *config, struct err *err)
{
    struct sockaddr_storage storage = {0}; /* of a peer without a name only a part is filled */
    struct sockaddr *address = (struct sockaddr *)&storage;
    socklen_t length = sizeof(storage);
    uint8_t theirs = 0;

    if (getpeername(link->wire.fd, address, &length) < 0)
        return err_sys(err, ERR_FAILED, errno, "a new link");
    link_address_format(address, length, link->peer, sizeof(link->peer));
    set_options(link->wire.fd);
    bool plain = config->insecure || link_address_is_loopback(address);
    bool has_keys = !config->key && config->keys;
    uint8_t mine = config->key ? SAYS_TLS : plain ? SAYS_PLAIN : SAYS_NEITHER;
    if (config->timeout_ms)
        link->wire.deadline_ns = clock_monotonic_ns() + config->timeout_ms * 1000000ull;
    int r = opening->accepting ? accept_greetings(link, &mine, has_keys, opening, &theirs, err)
                               : connect_greetings(link, mine, opening, &theirs, err);
    if (r == 0)
        r = agree(mine, theirs, link->peer, err);
    if (r == 0 && mine == SAYS_TLS)
        r = tls_create(&link->tls, &link->wire, config, opening->accepting, link->peer, err);
    link->wire.deadline_ns = 0;
    if (r == 0)
        link_set_timeout(link, config->timeout_ms);
    return r;
}

static struct link *new_link(int socket)
{
    struct link *link = calloc(1, sizeof(*link));
    if (!link)
        return NULL;
    link->wire.fd = socket;
    link->writer.ops = &writer_ops;
    link->reader.ops = &reader_ops;
    return link;
}

int link_open(struct link **ret_link, int socket, const struct link_opening *opening,
              const struct link_config *config, struct err *err)
{
    struct link *link = new_link(socket);
    if (!link) {
        close(socket);
        return err_sys(err, ERR_HOST, ENOMEM, "a new link");
    }
    int r = start(link, opening, config, err);
    if (r != 0) {
        link_destroy(link);
        return r;
    }
    *ret_link = link;
    return 0;
}

int link_start(struct link **ret_link, int socket, bool accepting, const struct link_config *config,
               struct err *err)
{
    const struct link_opening opening = {.accepting = accepting};
    struct link *link;
    int r = link_open(&link, socket, &opening, config, err);
    if (r == 0 && link->purpose == LINK_FIRST)
        return finder_accept(ret_link, link, config, err);
    if (r == 0)
        *ret_link = link;
    return r;
}

int link_accept(struct link **ret_link, int socket, const struct link_config *config,
                struct err *err)
{
    return link_start(ret_link, socket, true, config, err);
}

int link_lay_paths(struct link **ret_link, struct link_paths *paths, struct err *err)
{
    struct link *link = new_link(-1);
    struct link_news news;
    if (!link) {
        link_paths_destroy(paths);
        return err_sys(err, ERR_HOST, ENOMEM, "a new link");
    }
    link_paths_look(paths, &news);
    snprintf(link->peer, sizeof(link->peer), "%.79s", news.path[news.active > 0].address);
    link->paths = paths;
    link->writer.ops = &paths_writer_ops;
    link->reader.ops = &paths_reader_ops;
    *ret_link = link;
    return 0;
}

void link_look(struct link *link, struct link_news *ret_news)
{
    *ret_news = (struct link_news){.active = -1};
    if (link->paths)
        link_paths_look(link->paths, ret_news);
}

uint64_t link_unsent(const struct link *link)
{
    int bytes = 0;
    if (link->paths || ioctl(link->wire.fd, SIOCOUTQ, &bytes) < 0)
        return 0;
    return (uint64_t)bytes;
}

uint64_t link_line_ns(const struct link *link)
{
    return link->paths ? link_paths_line_ns(link->paths) : link_wire_line_ns(&link->wire);
}

bool link_waits(const struct link *link, uint64_t *ret_come)
{
    const struct link_arrived *arrived = link->paths ? &link->paths->arrived : &link->wire.arrived;
    bool waits = atomic_load(&arrived->waits);
    *ret_come = atomic_load(&arrived->bytes);
    return waits;
}

void link_watch(struct link *link, void (*changes)(void *ctx), void *ctx)
{
    if (link->paths)
        link_paths_watch(link->paths, changes, ctx);
}

void link_set_timeout(struct link *link, unsigned timeout_ms)
{
    struct timeval limit = {
        .tv_sec = timeout_ms / 1000,
        .tv_usec = (suseconds_t)(timeout_ms % 1000) * 1000,
    };

    if (link->paths) {
        link_paths_set_timeout(link->paths, timeout_ms);
        return;
    }
    (void)setsockopt(link->wire.fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    (void)setsockopt(link->wire.fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
}

void link_set_deadline(struct link *link, unsigned ms)
{
    link->wire.deadline_ns = ms ? clock_monotonic_ns() + ms * 1000000ull : 0;
}

void link_hang_up(struct link *link)
{
    (void)shutdown(link->wire.fd, SHUT_RD);
}

void link_break(struct link *link)
{
    if (link->paths) {
        link_paths_break(link->paths);
        return;
    }
    atomic_store(&link->wire.broken, true);
    (void)shutdown(link->wire.fd, SHUT_RDWR);
}

const char *link_peer(const struct link *link)
{
    return link->peer;
}

void link_destroy(struct link *link)
{
    if (!link)
        return;
    if (link->paths) {
        link_paths_destroy(link->paths);
        free(link);
        return;
    }
    bool broken = atomic_load(&link->wire.broken);
    if (link->tls && !broken && link->writer.error == 0)
        tls_end(link->tls);
    /* What the kernel still holds is of no use to anybody then. */
    struct linger at_once = {.l_onoff = 1};
    if (broken)
        (void)setsockopt(link->wire.fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    tls_destroy(link->tls);
    close(link->wire.fd);
    free(link);
}
