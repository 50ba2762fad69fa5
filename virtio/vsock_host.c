/* SPDX-License-Identifier: MIT */
/*
 * The host's programs: those that come to our socket and say whom they want, and those that the
 * guest wants.
 *
 *   program  "CONNECT <port>\n", decimal; bytes may follow at once
 *   we       "OK <port of ours>\n" when the guest has accepted, and then its bytes; else we close
 *
 * A line that is none, or takes more than GREETING_NS, ends the connection.
 */
#include "virtio/vsock_parts.h"

#include "core/clock.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    LINE_MAX_BYTES = 32,
    BACKLOG = 64,
    FIRST_PORT = 1 << 30, /* ours, of connections that begin here */
};

#define GREETING_NS (5 * NS_PER_SEC)
#define ANSWER_NS   (5 * NS_PER_SEC) /* for the guest, to accept or refuse */
#define RETRY_NS    (NS_PER_SEC / 2) /* after the host had no descriptor for one who came */

/* --- the socket ----------------------------------------------------------------------------- */

static struct sockaddr_un address_of(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    /* It fits: checked at the beginning, with room for "_<port>". */
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    return address;
}

/* A connected, non-blocking socket, or -errno. */
static int connect_to(const char *path)
{
    struct sockaddr_un address = address_of(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
        int error = errno;
        close(fd);
        return -error;
    }
    return fd;
}

/* Makes way for our socket: nothing, or one that nobody listens at any more. */
static int clear_path(const char *path, struct err *err)
{
    struct stat status;

    if (lstat(path, &status) < 0)
        return errno == ENOENT ? 0 : err_sys(err, ERR_HOST, errno, "cannot look at %s", path);
    if (!S_ISSOCK(status.st_mode))
        return err_say(err, ERR_STATE, EEXIST, "%s exists and is not a socket", path);
    int fd = connect_to(path);
    if (fd >= 0)
        close(fd);
    if (fd >= 0 || fd == -EAGAIN) /* EAGAIN: somebody with a long queue before the door */
        return err_say(err, ERR_STATE, EADDRINUSE, "somebody listens at %s already", path);
    if (fd != -ECONNREFUSED)
        return err_sys(err, ERR_STATE, -fd, "cannot find out whether somebody listens at %s", path);
    if (unlink(path) < 0)
        return err_sys(err, ERR_HOST, errno, "cannot remove the dead socket %s", path);
    return 0;
}

/* Remembers which file is ours: somebody may remove it, and somebody else listen there. */
static void note_bound(struct vsock *vsock)
{
    struct stat status;

    vsock->bound = lstat(vsock->path, &status) == 0;
    if (!vsock->bound)
        return;
    vsock->bound_device = status.st_dev;
    vsock->bound_inode = status.st_ino;
}

static bool is_ours(const struct vsock *vsock)
{
    struct stat status;

    return vsock->bound && lstat(vsock->path, &status) == 0 &&
           status.st_dev == vsock->bound_device && status.st_ino == vsock->bound_inode;
}

static void handle_door(void *arg, unsigned events)
{
    struct vsock *vsock = arg;

    virtio_lock(&vsock->virtio);
    vsock_host_accept(vsock);
    virtio_unlock(&vsock->virtio);
}

int vsock_host_listen(struct vsock *vsock, struct err *err)
{
    struct sockaddr_un address = address_of(vsock->path);
    int ret = clear_path(vsock->path, err);

    if (ret < 0)
        return ret;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_sys(err, ERR_HOST, errno, "cannot make a socket for %s", vsock->path);
    vsock->next_port = FIRST_PORT;
    vsock->door = (struct loop_io){
        .fd = fd, .events = LOOP_READ | LOOP_EDGE, .handle = handle_door, .arg = vsock};
    /* The file gets the mode that the socket has when it is bound: nobody ever sees another one. */
    if (fchmod(fd, 0600) < 0 || bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
        ret = err_sys(err, ERR_HOST, errno, "cannot make the socket %s", vsock->path);
    if (ret == 0)
        note_bound(vsock);
    if (ret == 0 && listen(fd, BACKLOG) < 0)
        ret = err_sys(err, ERR_HOST, errno, "cannot listen at %s", vsock->path);
    if (ret == 0)
        ret = loop_io_add(vsock->virtio.loop, &vsock->door, err);
    if (ret < 0) {
        close(fd);
        vsock->door.fd = -1;
    }
    return ret;
}

void vsock_host_close(struct vsock *vsock)
{
    if (is_ours(vsock)) /* before the close: until then nobody gets its number */
        unlink(vsock->path);
    vsock->bound = false;
    if (vsock->door.fd >= 0) {
        loop_io_remove(vsock->virtio.loop, &vsock->door);
        close(vsock->door.fd);
        vsock->door.fd = -1;
    }
}

/* --- who comes ------------------------------------------------------------------------------ */

void vsock_host_accept(struct vsock *vsock)
{
    vsock->accept_waits = false;
    while (vsock->door.fd >= 0) {
        if (vsock->greeters >= VSOCK_GREETERS) {
            vsock->accept_waits = true;
            return;
        }
        int fd = accept4(vsock->door.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
                vsock_wake_at(vsock, clock_monotonic_ns() + RETRY_NS);
            if (errno == EINTR || errno == ECONNABORTED)
                continue;
            return;
        }
        struct conn *conn = conn_create(vsock, CONN_GREETING, fd);
        if (conn)
            conn_set_deadline(conn, GREETING_NS);
    }
}

/* True for a number and nothing else. */
static bool parse_port(const char *text, size_t length, uint32_t *ret_port)
{
    uint64_t port = 0;

    if (length == 0 || length > 10)
        return false;
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        port = port * 10 + (uint64_t)(text[i] - '0');
    }
    if (port >= UINT32_MAX) /* all ones: any port, in the guest's interface */
        return false;
    *ret_port = (uint32_t)port;
    return true;
}

static bool parse_line(const char *line, size_t length, uint32_t *ret_port)
{
    static const char word[] = "CONNECT ";
    size_t skip = sizeof(word) - 1;

    return length > skip && memcmp(line, word, skip) == 0 &&
           parse_port(line + skip, length - skip, ret_port);
}

/* Not in use with this port of the guest's. There are fewer connections than tries. */
static uint32_t choose_port(struct vsock *vsock, uint32_t guest_port)
{
    do {
        if (++vsock->next_port == UINT32_MAX)
            vsock->next_port = FIRST_PORT;
    } while (conn_find(vsock, guest_port, vsock->next_port));
    return vsock->next_port;
}

static void ask_guest(struct conn *conn, uint32_t guest_port)
{
    struct vsock *vsock = conn->vsock;

    if (!(vsock->state.virtio.status & VIRTIO_DRIVER_OK)) {
        conn_free(conn);
        return;
    }
    vsock->greeters--;
    conn->stage = CONN_ASKING;
    conn->guest_port = guest_port;
    conn->host_port = choose_port(vsock, guest_port);
    conn_set_deadline(conn, ANSWER_NS);
    conn_say(conn, SAY_REQUEST);
}

/* Looks at the line without taking it: what follows is the guest's. */
void vsock_host_greet(struct conn *conn)
{
    struct vsock *vsock = conn->vsock;
    char line[LINE_MAX_BYTES];
    uint32_t port;
    ssize_t length = recv(conn->io.fd, line, sizeof(line), MSG_PEEK | MSG_DONTWAIT);

    if (length < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    const char *end = length > 0 ? memchr(line, '\n', (size_t)length) : NULL;
    if (!end && length > 0 && length < LINE_MAX_BYTES && !conn->hung_up)
        return; /* the rest is on its way */
    if (end && parse_line(line, (size_t)(end - line), &port) &&
        recv(conn->io.fd, line, (size_t)(end - line) + 1, MSG_DONTWAIT) == end - line + 1)
        ask_guest(conn, port);
    else
        conn_free(conn);
    if (vsock->accept_waits)
        vsock_host_accept(vsock);
}

/* --- who is wanted -------------------------------------------------------------------------- */

struct conn *vsock_host_dial(struct vsock *vsock, uint32_t guest_port, uint32_t host_port)
{
    char path[sizeof(vsock->path) + 12];

    snprintf(path, sizeof(path), "%s_%u", vsock->path, host_port);
    int fd = connect_to(path);
    struct conn *conn = fd < 0 ? NULL : conn_create(vsock, CONN_OPEN, fd);
    if (!conn)
        return NULL;
    conn->guest_port = guest_port;
    conn->host_port = host_port;
    return conn;
}
