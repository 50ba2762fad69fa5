/* SPDX-License-Identifier: MIT */
/*
 * How the paths of a link find each other. Who connects tells the session's times on the first
 * connection, and is told its name and its secret:
 *
 *   who connected:  4 the beat, 4 the patience (ms), 4 which path this is, 4 zero
 *   who accepted:  16 the session, 32 its secret
 *
 * Another path is a connection to the same port, or one at another address; whoever accepts there
 * need not know of the session. So who connects says its name with the greeting, before anything is
 * encrypted, and the process that has the session waits under that name (an abstract Unix socket)
 * for sockets. It gets this one with the greeting that was read, and goes on: its own greeting, the
 * handshakes, and then
 *
 *   who connected:  4 which path this is, 32 the secret, and zeroes, 8192 together
 *   who accepted:   8192, the first byte 1
 *
 * Rules:
 *  1. The name is random, and proves nothing: it can be heard. Who has the session takes a path
 *     only from who has the link's key, if it has one, and the secret; the paths it has are not
 *     touched before that.
 *  2. Both proofs are large, so that a path which lets only small packets through is none.
 *  3. Greeting and handshakes together have one time limit, and the proof another, as has a socket
 *     that is passed on: nobody keeps others out for long.
 *  4. Both processes belong to the same user: the kernel says so.
 */
#include "host/key_store.h"
#include "host/link_paths.h"

#include "core/clock.h"
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    PROOF = 8192,
    JOIN_MS = 3000, /* for each: to connect or be passed on, greeting and handshakes, the proof */
    SYNC_MS = 2000, /* the same while somebody waits */
    RETRY_MS = 500, /* until it is tried again */
    MOST_MS = 1000000,
    WAITING = 4, /* sockets that were passed on and not looked at */
};

struct finder {
    pthread_mutex_t lock;
    struct link_paths *owner; /* NULL: it is over */
    int wake, door;           /* an eventfd; where sockets come, -1: it dials */
    struct link_config config;
    struct key_finder keys; /* where it accepts by them */
    struct link_key key;
    uint8_t session[LINK_SESSION], secret[LINK_KEY_BYTES];
    char addresses[PATHS][LINK_PATH_TEXT];
};

/* --- the name of a session -------------------------------------------------------------------- */

static socklen_t name_of(const uint8_t session[LINK_SESSION], struct sockaddr_un *ret_name)
{
    static const char prefix[] = "minivmm-path-";
    *ret_name = (struct sockaddr_un){.sun_family = AF_UNIX};
    char *at = ret_name->sun_path + 1; /* abstract: it goes with its socket */
    memcpy(at, prefix, strlen(prefix));
    at += strlen(prefix);
    for (size_t i = 0; i < LINK_SESSION; i++, at += 2)
        snprintf(at, 3, "%02x", session[i]);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(prefix) +
                       2 * LINK_SESSION);
}

/* Rule 4. */
static bool is_ours(int socket)
{
    struct ucred peer;
    socklen_t length = sizeof(peer);
    return getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 &&
           peer.uid == geteuid();
}

static int open_door(const uint8_t session[LINK_SESSION], struct err *err)
{
    struct sockaddr_un name;
    socklen_t length = name_of(session, &name);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && bind(fd, (const struct sockaddr *)&name, length) == 0 &&
        listen(fd, WAITING) == 0)
        return fd;
    int ret = err_sys(err, ERR_HOST, errno, "cannot wait for another path");
    if (fd >= 0)
        close(fd);
    return ret;
}

/* --- a socket is passed on -------------------------------------------------------------------- */

static int send_socket(int to, int socket, const uint8_t greeting[LINK_GREETING])
{
    union {
        struct cmsghdr head;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec iov = {.iov_base = (void *)(uintptr_t)greeting, .iov_len = LINK_GREETING};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    control.head.cmsg_level = SOL_SOCKET;
    control.head.cmsg_type = SCM_RIGHTS;
    control.head.cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(&control.head), &socket, sizeof(socket));
    return sendmsg(to, &message, MSG_NOSIGNAL) == LINK_GREETING ? 0 : -errno;
}

int finder_pass_on(struct wire *wire, const uint8_t greeting[LINK_GREETING], struct err *err)
{
    struct sockaddr_un name;
    uint8_t session[LINK_SESSION];
    for (size_t length = 0; length < sizeof(session);) {
        ssize_t n = link_wire_receive(wire, session + length, sizeof(session) - length);
        if (n < 0)
            return err_sys(err, ERR_FAILED, (int)-n, "another path of a link");
        length += (size_t)n;
    }
    socklen_t length = name_of(session, &name);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int ret = fd < 0 ? -errno : 0;
    if (ret == 0 && connect(fd, (const struct sockaddr *)&name, length) < 0)
        ret = -errno;
    if (ret == 0 && !is_ours(fd))
        ret = -EPERM;
    if (ret == 0)
        ret = send_socket(fd, wire->fd, greeting);
    if (fd >= 0)
        close(fd);
    return ret < 0 ? err_sys(err, ERR_NOT_FOUND, -ret,
                             "another path comes of a link that nobody here has")
                   : 0;
}

/* The socket, or -1. */
static int take_socket(int door, uint8_t ret_greeting[LINK_GREETING])
{
    union {
        struct cmsghdr head;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec iov = {.iov_base = ret_greeting, .iov_len = LINK_GREETING};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    int fd = -1, from = accept4(door, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (from < 0)
        return -1;
    struct pollfd sent = {.fd = from, .events = POLLIN}; /* who sends connects before that */
    ssize_t n = is_ours(from) && poll(&sent, 1, JOIN_MS) > 0
                    ? recvmsg(from, &message, MSG_CMSG_CLOEXEC)
                    : -1;
    const struct cmsghdr *head = n >= 0 ? CMSG_FIRSTHDR(&message) : NULL;
    if (head && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS &&
        head->cmsg_len == CMSG_LEN(sizeof(int)))
        memcpy(&fd, CMSG_DATA(head), sizeof(fd));
    close(from);
    if (fd >= 0 && n != LINK_GREETING) {
        close(fd);
        fd = -1;
    }
    return fd;
}

/* --- proofs ----------------------------------------------------------------------------------- */

static bool is_equal(const uint8_t *a, const uint8_t *b, size_t length)
{
    uint8_t differs = 0;
    for (size_t i = 0; i < length; i++)
        differs |= a[i] ^ b[i];
    return differs == 0;
}

static int say_lost(struct link *link, int error, struct err *err)
{
    return err_sys(err, ERR_FAILED, -error, "the other path, by %s", link_peer(link));
}

static int prove(struct finder *finder, int path, struct link *link, struct err *err)
{
    uint8_t proof[PROOF] = {0}, answer[PROOF];
    uint32_t number = htole32((uint32_t)path);
    memcpy(proof, &number, sizeof(number));
    memcpy(proof + sizeof(number), finder->secret, sizeof(finder->secret));
    stream_write(link_writer(link), proof, sizeof(proof));
    explicit_bzero(proof, sizeof(proof));
    int ret = stream_flush(link_writer(link));
    stream_read(link_reader(link), answer, sizeof(answer));
    if (ret == 0)
        ret = stream_error(link_reader(link));
    if (ret == 0 && answer[0] != 1)
        ret = -EPROTO;
    return ret < 0 ? say_lost(link, ret, err) : 0;
}

/* Which path it is; -errno. */
static int check_proof(struct finder *finder, struct link *link)
{
    uint8_t proof[PROOF], answer[PROOF] = {1};
    uint32_t number;
    stream_read(link_reader(link), proof, sizeof(proof));
    if (stream_error(link_reader(link)) < 0)
        return stream_error(link_reader(link));
    memcpy(&number, proof, sizeof(number));
    bool good = is_equal(proof + sizeof(number), finder->secret, sizeof(finder->secret));
    explicit_bzero(proof, sizeof(proof));
    number = le32toh(number);
    if (!good || number >= PATHS)
        return -EPERM;
    /* It leaves with the first record: who hears it knows that the path counts here. */
    stream_write(link_writer(link), answer, sizeof(answer));
    int ret = stream_error(link_writer(link));
    return ret < 0 ? ret : (int)number;
}

/* --- finding ---------------------------------------------------------------------------------- */

static int dial(struct finder *finder, int path, enum link_purpose purpose, unsigned ms,
                struct link **ret_link, struct err *err)
{
    const struct link_opening opening = {.purpose = purpose, .session = finder->session};
    struct link_config config = finder->config;
    struct link *link;
    int socket;
    config.timeout_ms = ms;
    int ret = link_dial(&socket, finder->addresses[path], &config, err);
    if (ret == 0)
        ret = link_open(&link, socket, &opening, &config, err);
    if (ret < 0)
        return ret;
    link_set_deadline(link, ms);
    ret = purpose == LINK_ANOTHER ? prove(finder, path, link, err) : 0;
    if (ret < 0) {
        link_destroy(link);
        return ret;
    }
    link_set_deadline(link, 0);
    link_set_timeout(link, 0);
    *ret_link = link;
    return 0;
}

/* To the owner, if there still is one. */
static void hand_in(struct finder *finder, int path, struct link *link)
{
    pthread_mutex_lock(&finder->lock);
    if (finder->owner)
        link_paths_install(finder->owner, path, link,
                           finder->door < 0 ? finder->addresses[path] : link_peer(link));
    else
        link_destroy(link);
    pthread_mutex_unlock(&finder->lock);
}

/* Who dialled and was not let in gets no answer: whoever it is finds out by itself. */
static void let_in(struct finder *finder)
{
    uint8_t greeting[LINK_GREETING];
    const struct link_opening opening = {.accepting = true, .greeting = greeting};
    struct link_config config = finder->config;
    struct link *link;
    int socket = take_socket(finder->door, greeting);
    config.timeout_ms = JOIN_MS;
    if (socket < 0 || link_open(&link, socket, &opening, &config, NULL) != 0)
        return;
    link_set_deadline(link, JOIN_MS);
    int path = check_proof(finder, link);
    if (path < 0) {
        link_destroy(link);
        return;
    }
    link_set_deadline(link, 0);
    link_set_timeout(link, 0);
    hand_in(finder, path, link);
}

/* -1: it is over. */
static int find_away(struct finder *finder, bool *ret_over)
{
    int away = PATHS_NONE;
    pthread_mutex_lock(&finder->lock);
    *ret_over = !finder->owner;
    if (finder->owner && finder->door < 0)
        away = link_paths_find_away(finder->owner);
    pthread_mutex_unlock(&finder->lock);
    return away;
}

static void free_finder(struct finder *finder)
{
    if (finder->wake >= 0)
        close(finder->wake);
    if (finder->door >= 0)
        close(finder->door);
    pthread_mutex_destroy(&finder->lock);
    explicit_bzero(finder, sizeof(*finder));
    free(finder);
}

static void run(void *arg)
{
    struct finder *finder = arg;
    uint64_t next = 0, count;
    bool over;
    for (;;) {
        int away = find_away(finder, &over);
        uint64_t now = clock_monotonic_ns();
        struct link *link;
        if (over)
            break;
        if (away != PATHS_NONE && now >= next) {
            if (dial(finder, away, LINK_ANOTHER, JOIN_MS, &link, NULL) == 0)
                hand_in(finder, away, link);
            next = clock_monotonic_ns() + RETRY_MS * 1000000ull;
            continue;
        }
        struct pollfd polled[] = {{.fd = finder->wake, .events = POLLIN},
                                  {.fd = finder->door, .events = POLLIN}};
        int ms = away == PATHS_NONE ? -1 : (int)((next - now) / 1000000) + 1;
        if (poll(polled, array_size(polled), ms) <= 0)
            continue;
        if (polled[0].revents)
            (void)!read(finder->wake, &count, sizeof(count));
        if (polled[1].revents)
            let_in(finder);
    }
    free_finder(finder);
}

/* --- life ------------------------------------------------------------------------------------- */

static int finder_create(struct finder **ret_finder, const struct link_config *config,
                         struct err *err)
{
    struct finder *finder = calloc(1, sizeof(*finder));
    if (!finder)
        return err_sys(err, ERR_HOST, ENOMEM, "a link over two paths");
    pthread_mutex_init(&finder->lock, NULL);
    finder->door = -1;
    finder->config = *config;
    finder->config.attempt = NULL;
    if (config->keys) {
        key_finder_init(&finder->keys);
        finder->config.keys = &finder->keys.keys;
    }
    if (config->key) {
        finder->key = *config->key;
        finder->config.key = &finder->key;
    }
    finder->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (finder->wake < 0) {
        int ret = err_sys(err, ERR_HOST, errno, "a link over two paths");
        free_finder(finder);
        return ret;
    }
    *ret_finder = finder;
    return 0;
}

int finder_start(struct finder *finder, struct link_paths *owner, struct err *err)
{
    finder->owner = owner;
    int ret = thread_start_loose("path-finder", run, finder, err);
    if (ret < 0)
        finder->owner = NULL;
    return ret;
}

void finder_wake(struct finder *finder)
{
    const uint64_t one = 1;
    (void)!write(finder->wake, &one, sizeof(one));
}

void finder_end(struct finder *finder)
{
    pthread_mutex_lock(&finder->lock);
    bool runs = finder->owner;
    finder->owner = NULL;
    if (runs)
        finder_wake(finder); /* before it can be gone */
    pthread_mutex_unlock(&finder->lock);
    if (!runs)
        free_finder(finder);
}

/* --- the beginning ---------------------------------------------------------------------------- */

static int split(const char *text, char ret_addresses[PATHS][LINK_PATH_TEXT], unsigned *ret_count,
                 struct err *err)
{
    struct link_address address;
    const char *comma = strchr(text, ','), *second = comma ? comma + 1 : NULL;
    size_t length = comma ? (size_t)(comma - text) : strlen(text);
    if (length >= LINK_PATH_TEXT || (second && strlen(second) >= LINK_PATH_TEXT))
        return err_say(err, ERR_USAGE, EINVAL, "\"%.100s\" is no address", text);
    snprintf(ret_addresses[0], LINK_PATH_TEXT, "%.*s", (int)length, text);
    snprintf(ret_addresses[1], LINK_PATH_TEXT, "%s", second ? second : "");
    *ret_count = second ? 2 : 1;
    int ret = link_address_parse(&address, ret_addresses[0], false, err);
    if (ret == 0 && second)
        ret = link_address_parse(&address, second, false, err);
    if (ret == 0 && second && strcmp(ret_addresses[0], second) == 0) {
        ret = err_say(err, ERR_USAGE, EINVAL, "\"%.100s\" is one address twice", text);
        err_hint(err, "two paths help when they share no cable: name another address of that host");
    }
    return ret;
}

int link_check_addresses(const char *text, struct err *err)
{
    char addresses[PATHS][LINK_PATH_TEXT];
    unsigned count;
    return split(text, addresses, &count, err);
}

/* What is said on the first connection. Little-endian numbers. */

static int ask_session(struct finder *finder, const struct link_times *times, int first,
                       struct link *link, struct err *err)
{
    struct stream *writer = link_writer(link), *reader = link_reader(link);
    stream_put_u32(writer, times->beat_ms);
    stream_put_u32(writer, times->patience_ms);
    stream_put_u32(writer, (uint32_t)first);
    stream_put_u32(writer, 0);
    int ret = stream_flush(writer);
    stream_read(reader, finder->session, sizeof(finder->session));
    stream_read(reader, finder->secret, sizeof(finder->secret));
    if (ret == 0)
        ret = stream_error(reader);
    return ret < 0 ? say_lost(link, ret, err) : 0;
}

static int begin(struct link **ret_link, const struct link_opened *opened, struct err *err)
{
    struct link_paths *paths;
    int ret = link_paths_create(&paths, opened, err);
    return ret < 0 ? ret : link_lay_paths(ret_link, paths, err);
}

/* The first one that can be had; what is wrong with the other one is of no interest then. */
static int dial_first(struct finder *finder, unsigned ms, struct link_opened *opened,
                      struct err *err)
{
    struct err why = {0};
    int ret = dial(finder, 0, LINK_FIRST, ms, &opened->link[0], &why);
    if (ret < 0 && dial(finder, 1, LINK_FIRST, ms, &opened->link[1], NULL) == 0) {
        opened->first = 1;
        return 0;
    }
    if (ret < 0 && err)
        *err = why;
    return ret;
}

static int connect_both(struct link **ret_link, struct finder *finder,
                        const struct link_times *times, unsigned ms, struct err *err)
{
    struct link_opened opened = {.times = *times, .finder = finder, .decides = true};
    int ret = dial_first(finder, ms, &opened, err);
    struct link *first = ret == 0 ? opened.link[opened.first] : NULL;
    if (first) {
        link_set_deadline(first, ms);
        ret = ask_session(finder, times, opened.first, first, err);
        link_set_deadline(first, 0);
        link_set_timeout(first, 0);
    }
    if (ret < 0) {
        link_destroy(first);
        finder_end(finder);
        return ret;
    }
    /* The other one is found later, if it can be. */
    int second = !opened.first;
    if (dial(finder, second, LINK_ANOTHER, SYNC_MS, &opened.link[second], NULL) < 0)
        opened.link[second] = NULL;
    for (int i = 0; i < PATHS; i++)
        opened.addresses[i] = finder->addresses[i];
    finder->config.attempt = NULL; /* from here on it is no attempt any more */
    return begin(ret_link, &opened, err);
}

int link_connect_paths(struct link **ret_link, const char *text, const struct link_times *times,
                       const struct link_config *config, struct err *err)
{
    char addresses[PATHS][LINK_PATH_TEXT];
    struct finder *finder;
    unsigned count;
    int ret = split(text, addresses, &count, err);
    if (ret < 0 || count == 1)
        return ret < 0 ? ret : link_connect(ret_link, text, config, err);
    ret = finder_create(&finder, config, err);
    if (ret < 0)
        return ret;
    memcpy(finder->addresses, addresses, sizeof(addresses));
    finder->config.attempt = config->attempt;
    ret = connect_both(ret_link, finder, times, config->timeout_ms / PATHS, err);
    return link_attempt_end(config->attempt, text, ret, err);
}

static int take_times(struct link *link, struct link_opened *ret_opened, struct err *err)
{
    struct stream *reader = link_reader(link);
    struct link_times *times = &ret_opened->times;
    times->beat_ms = stream_get_u32(reader);
    times->patience_ms = stream_get_u32(reader);
    uint32_t first = stream_get_u32(reader);
    (void)stream_get_u32(reader);
    ret_opened->first = (int)first;
    int ret = stream_error(reader);
    if (ret == 0 && (times->beat_ms == 0 || times->beat_ms > MOST_MS || times->patience_ms == 0 ||
                     times->patience_ms > MOST_MS || first >= PATHS))
        ret = -EBADMSG;
    return ret < 0 ? say_lost(link, ret, err) : 0;
}

static int give_session(struct finder *finder, struct link *link, struct err *err)
{
    struct stream *writer = link_writer(link);
    if (getrandom(finder->session, sizeof(finder->session), 0) != sizeof(finder->session) ||
        getrandom(finder->secret, sizeof(finder->secret), 0) != sizeof(finder->secret))
        return err_sys(err, ERR_HOST, errno, "the kernel gives no random bytes");
    finder->door = open_door(finder->session, err);
    if (finder->door < 0)
        return finder->door;
    stream_write(writer, finder->session, sizeof(finder->session));
    stream_write(writer, finder->secret, sizeof(finder->secret));
    int ret = stream_flush(writer);
    return ret < 0 ? say_lost(link, ret, err) : 0;
}

int finder_accept(struct link **ret_link, struct link *first, const struct link_config *config,
                  struct err *err)
{
    struct link_opened opened = {0};
    int ret = finder_create(&opened.finder, config, err);
    if (ret < 0) {
        link_destroy(first);
        return ret;
    }
    ret = take_times(first, &opened, err);
    if (ret == 0)
        ret = give_session(opened.finder, first, err);
    if (ret < 0) {
        finder_end(opened.finder);
        link_destroy(first);
        return ret;
    }
    link_set_timeout(first, 0);
    opened.link[opened.first] = first;
    return begin(ret_link, &opened, err);
}
