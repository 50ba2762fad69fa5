/* SPDX-License-Identifier: MIT */
/*
 * One connection between a guest's socket and a Unix socket.
 *
 * To the guest: bytes are read from the Unix socket straight into the guest's buffer, as many as it
 * has given credit for, so nothing is kept here. From the guest: bytes go to the Unix socket at
 * once; what it does not take stays in a buffer, whose size is the credit that the guest has. So a
 * host program that does not read stops its own connection and no other.
 *
 * Ends (5.10.6.5). The host's program ends its half: SHUTDOWN for sending, when the last byte is
 * over there. It closes: SHUTDOWN for both, and the guest answers with RST, for which we wait some
 * time. The guest ends both halves: its last bytes are handed on, then it gets RST; if it loses
 * patience before and says RST itself, they are handed on all the same. Whatever breaks a rule
 * (more bytes than credit, bytes after SHUTDOWN, an operation out of place) kills the connection:
 * RST.
 */
#include "virtio/vsock_parts.h"

#include "core/clock.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define DRAIN_NS  (30 * NS_PER_SEC) /* for the host, to take what the guest left behind */
#define LINGER_NS (10 * NS_PER_SEC) /* for the guest, to answer SHUTDOWN */

/* --- life ----------------------------------------------------------------------------------- */

static void handle_conn(void *arg, unsigned events)
{
    struct conn *conn = arg;
    struct vsock *vsock = conn->vsock;

    virtio_lock(&vsock->virtio);
    if (events & (LOOP_READ | LOOP_HANGUP))
        conn->readable = true;
    if (events & LOOP_HANGUP)
        conn->hung_up = true;
    if (conn->stage == CONN_GREETING)
        vsock_host_greet(conn);
    else
        conn_advance(conn);
    vsock_deliver(vsock);
    virtio_unlock(&vsock->virtio);
}

static struct conn *find_place(struct vsock *vsock)
{
    for (unsigned i = 0; i < VSOCK_CONNS; i++) {
        if (vsock->conns[i].stage != CONN_FREE)
            continue;
        if (i >= vsock->places)
            vsock->places = i + 1;
        return &vsock->conns[i];
    }
    return NULL;
}

struct conn *conn_create(struct vsock *vsock, enum conn_stage stage, int fd)
{
    struct conn *conn = find_place(vsock);

    if (!conn) {
        close(fd);
        return NULL;
    }
    *conn = (struct conn){.vsock = vsock};
    conn->io = (struct loop_io){
        .fd = fd, .events = LOOP_READ | LOOP_WRITE | LOOP_EDGE, .handle = handle_conn, .arg = conn};
    if (loop_io_add(vsock->virtio.loop, &conn->io, NULL) < 0) {
        close(fd);
        conn->io.fd = -1;
        return NULL;
    }
    conn->stage = stage;
    vsock->greeters += stage == CONN_GREETING;
    return conn;
}

struct conn *conn_find(struct vsock *vsock, uint32_t guest_port, uint32_t host_port)
{
    for (unsigned i = 0; i < vsock->places; i++) {
        struct conn *conn = &vsock->conns[i];
        if (conn->guest_port == guest_port && conn->host_port == host_port && !conn->silent &&
            (conn->stage == CONN_ASKING || conn->stage == CONN_OPEN || conn->stage == CONN_DYING))
            return conn;
    }
    return NULL;
}

static void drop_buffer(struct conn *conn)
{
    free(conn->buffer);
    conn->buffer = NULL;
    conn->begin = conn->count = 0;
}

static void close_host_end(struct conn *conn)
{
    if (conn->io.fd >= 0) {
        loop_io_remove(conn->vsock->virtio.loop, &conn->io);
        close(conn->io.fd);
        conn->io.fd = -1;
    }
    drop_buffer(conn);
}

void conn_free(struct conn *conn)
{
    if (conn->stage == CONN_FREE)
        return;
    close_host_end(conn);
    conn->vsock->greeters -= conn->stage == CONN_GREETING;
    conn->stage = CONN_FREE;
    conn->say = 0;
    conn->deadline_ns = 0;
}

void conn_kill(struct conn *conn)
{
    bool unknown = conn->stage == CONN_ASKING && (conn->say & SAY_REQUEST);

    if (conn->silent || unknown || conn->stage == CONN_GREETING || conn->stage == CONN_DOOMED) {
        conn_free(conn);
        return;
    }
    close_host_end(conn);
    conn->stage = CONN_DYING;
    conn->deadline_ns = 0;
    conn->say = 0;
    conn_say(conn, SAY_RST);
}

void conn_set_deadline(struct conn *conn, uint64_t ns_from_now)
{
    conn->deadline_ns = clock_monotonic_ns() + ns_from_now;
    vsock_wake_at(conn->vsock, conn->deadline_ns);
}

void conn_say(struct conn *conn, unsigned what)
{
    unsigned index = (unsigned)(conn - conn->vsock->conns);

    if (conn->silent)
        return;
    conn->say |= what;
    conn->vsock->ready[index / 64] |= 1ull << index % 64;
}

/* --- from the guest to the host ------------------------------------------------------------- */

/* How many bytes the host took; the rest is kept by the caller. An error ends this direction. */
static size_t send_to_host(struct conn *conn, struct iovec *iov, unsigned count)
{
    if (conn->vsock->gate.mode == VSOCK_GATE_SHUT)
        return 0;
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = count};
    ssize_t sent = sendmsg(conn->io.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);

    if (sent >= 0) {
        conn->forwarded += (uint32_t)sent;
        return (size_t)sent;
    }
    if (errno != EAGAIN && errno != EINTR)
        conn->host_shut |= VSOCK_SHUT_RECEIVE;
    return 0;
}

static void flush(struct conn *conn)
{
    while (conn->count > 0 && !(conn->host_shut & VSOCK_SHUT_RECEIVE)) {
        uint32_t straight = VSOCK_BUFFER - conn->begin;
        if (straight > conn->count)
            straight = conn->count;
        struct iovec iov[] = {
            {.iov_base = conn->buffer + conn->begin, .iov_len = straight},
            {.iov_base = conn->buffer, .iov_len = conn->count - straight},
        };
        uint32_t sent = (uint32_t)send_to_host(conn, iov, 2);
        if (sent == 0)
            break;
        conn->begin = (conn->begin + sent) % VSOCK_BUFFER;
        conn->count -= sent;
    }
    if (conn->host_shut & VSOCK_SHUT_RECEIVE)
        drop_buffer(conn);
}

static void keep(struct conn *conn, const struct iovec *iov, unsigned count, size_t offset,
                 uint32_t length)
{
    if (!conn->buffer)
        conn->buffer = malloc(VSOCK_BUFFER);
    if (!conn->buffer) {
        conn_kill(conn);
        return;
    }
    uint32_t end = (conn->begin + conn->count) % VSOCK_BUFFER;
    uint32_t straight = VSOCK_BUFFER - end < length ? VSOCK_BUFFER - end : length;
    iov_read(iov, count, offset, conn->buffer + end, straight);
    iov_read(iov, count, offset + straight, conn->buffer, length - straight);
    conn->count += length;
}

static void hear_bytes(struct conn *conn, const struct vsock_header *header,
                       const struct iovec *bytes, unsigned count)
{
    struct iovec part[VSOCK_QUEUE_SIZE];
    size_t sent = 0;

    if (conn->guest_shut & VSOCK_SHUT_SEND || header->length > VSOCK_BUFFER - conn->count) {
        conn_kill(conn);
        return;
    }
    if (conn->host_shut & VSOCK_SHUT_RECEIVE || header->length == 0)
        return; /* crossed our SHUTDOWN on its way */
    if (conn->count == 0)
        sent = send_to_host(conn, part, iov_part(bytes, count, 0, header->length, part));
    if (sent < header->length && !(conn->host_shut & VSOCK_SHUT_RECEIVE))
        keep(conn, bytes, count, sent, header->length - (uint32_t)sent);
}

/* --- from the host to the guest ------------------------------------------------------------- */

/* Whatever the guest claims, this is a number of bytes. */
static uint32_t credit(const struct conn *conn)
{
    uint32_t under_way = conn->sent - conn->peer_forwarded;
    return under_way < conn->peer_buffer ? conn->peer_buffer - under_way : 0;
}

static bool may_read(const struct conn *conn)
{
    return conn->stage == CONN_OPEN && conn->readable && conn->io.fd >= 0 &&
           !(conn->guest_shut & VSOCK_SHUT_RECEIVE) && !(conn->host_shut & VSOCK_SHUT_SEND);
}

bool conn_has_word(const struct conn *conn)
{
    return conn->say || (may_read(conn) && (credit(conn) > 0 || !conn->credit_asked));
}

/* Bytes, or 0: there are none for the moment, or for ever (host_shut). */
static size_t read_from_host(struct conn *conn, const struct iovec *bytes, unsigned count,
                             size_t room)
{
    struct iovec part[VSOCK_QUEUE_SIZE];
    size_t most = credit(conn) < room ? credit(conn) : room;
    unsigned parts = iov_part(bytes, count, 0, most < VSOCK_PAYLOAD ? most : VSOCK_PAYLOAD, part);
    struct msghdr message = {.msg_iov = part, .msg_iovlen = parts};

    ssize_t got = recvmsg(conn->io.fd, &message, MSG_DONTWAIT);
    if (got > 0) {
        conn->sent += (uint32_t)got;
        return (size_t)got;
    }
    if (got < 0 && errno == EINTR)
        return 0;
    conn->readable = false;
    if (got < 0 && errno != EAGAIN)
        conn->hung_up = true; /* reset by the other end */
    if (got == 0 || errno != EAGAIN)
        conn->host_shut |= VSOCK_SHUT_SEND;
    return 0;
}

/* --- conclusions ---------------------------------------------------------------------------- */

static void conclude(struct conn *conn)
{
    if (conn->hung_up && (conn->host_shut & VSOCK_SHUT_SEND || !conn->readable ||
                          conn->guest_shut & VSOCK_SHUT_RECEIVE))
        conn->host_shut = VSOCK_SHUT_BOTH;
    if (conn->guest_shut == VSOCK_SHUT_BOTH &&
        (conn->count == 0 || conn->host_shut & VSOCK_SHUT_RECEIVE)) {
        conn_kill(conn);
        return;
    }
    if (conn->guest_shut & VSOCK_SHUT_SEND && conn->count == 0 && !conn->write_ended &&
        conn->io.fd >= 0) {
        shutdown(conn->io.fd, SHUT_WR);
        conn->write_ended = true;
    }
    if (conn->host_shut == VSOCK_SHUT_BOTH && conn->io.fd >= 0) {
        close_host_end(conn);
        conn_set_deadline(conn, LINGER_NS);
    }
    if (conn->host_shut != conn->told_shut)
        conn_say(conn, SAY_SHUTDOWN);
    /* In big steps; a guest without credit hears of it at the latest when half is free. */
    if (!(conn->guest_shut & VSOCK_SHUT_SEND) &&
        conn->forwarded - conn->told_forwarded >= VSOCK_BUFFER / 2)
        conn_say(conn, SAY_CREDIT);
    conn_say(conn, 0);
}

void conn_advance(struct conn *conn)
{
    if (conn->stage == CONN_ASKING && conn->hung_up) {
        conn_kill(conn);
    } else if (conn->stage == CONN_OPEN) {
        if (conn->io.fd >= 0)
            flush(conn);
        conclude(conn);
    }
}

/* --- packets -------------------------------------------------------------------------------- */

/* The program that asked for it learns our port, as its first line. */
static void hear_response(struct conn *conn)
{
    char line[32];
    int length = snprintf(line, sizeof(line), "OK %u\n", conn->host_port);

    conn->stage = CONN_OPEN;
    conn->deadline_ns = 0;
    if (send(conn->io.fd, line, (size_t)length, MSG_DONTWAIT | MSG_NOSIGNAL) != length)
        conn_kill(conn); /* nothing was sent before, so it has room, or is gone */
}

static void hear_shutdown(struct conn *conn, const struct vsock_header *header)
{
    conn->guest_shut |= header->flags & VSOCK_SHUT_BOTH;
    if (conn->guest_shut & VSOCK_SHUT_RECEIVE && conn->io.fd >= 0)
        shutdown(conn->io.fd, SHUT_RD); /* who writes over there hears of it */
    if (conn->guest_shut == VSOCK_SHUT_BOTH && conn->count > 0)
        conn_set_deadline(conn, DRAIN_NS);
}

static void hear_rst(struct conn *conn)
{
    if (conn->stage == CONN_OPEN && conn->guest_shut == VSOCK_SHUT_BOTH && conn->count > 0) {
        conn->silent = true;
        conn->say = 0;
    } else {
        conn_free(conn);
    }
}

static void hear_when_open(struct conn *conn, const struct vsock_header *header,
                           const struct iovec *bytes, unsigned count)
{
    switch (header->op) {
    case VSOCK_OP_RW:
        hear_bytes(conn, header, bytes, count);
        break;
    case VSOCK_OP_SHUTDOWN:
        hear_shutdown(conn, header);
        break;
    case VSOCK_OP_CREDIT_REQUEST:
        conn_say(conn, SAY_CREDIT);
        break;
    case VSOCK_OP_CREDIT_UPDATE:
        break;
    default:
        conn_kill(conn);
        break;
    }
}

void conn_hear(struct conn *conn, const struct vsock_header *header, const struct iovec *bytes,
               unsigned count)
{
    conn->peer_buffer = header->buffer;
    conn->peer_forwarded = header->forwarded;
    if (credit(conn) > 0)
        conn->credit_asked = false;

    if (header->op == VSOCK_OP_RST)
        hear_rst(conn);
    else if (conn->stage == CONN_OPEN)
        hear_when_open(conn, header, bytes, count);
    else if (conn->stage == CONN_ASKING && header->op == VSOCK_OP_RESPONSE)
        hear_response(conn);
    else if (conn->stage == CONN_ASKING)
        conn_kill(conn);
    conn_advance(conn);
}

/* Every packet tells the guest its credit. */
static int packet(struct conn *conn, struct vsock_header *header, enum vsock_op op, size_t length)
{
    header->op = (uint16_t)op;
    header->length = (uint32_t)length;
    header->buffer = VSOCK_BUFFER;
    header->forwarded = conn->forwarded;
    conn->told_forwarded = conn->forwarded;
    conn->say &= ~(unsigned)SAY_CREDIT;
    return (int)length;
}

static int packet_said(struct conn *conn, struct vsock_header *header, enum vsock_op op,
                       unsigned said)
{
    conn->say &= ~said;
    return packet(conn, header, op, 0);
}

static int speak_bytes(struct conn *conn, struct vsock_header *header, const struct iovec *bytes,
                       unsigned count, size_t room)
{
    if (credit(conn) == 0) {
        if (conn->credit_asked)
            return -EAGAIN;
        conn->credit_asked = true;
        return packet(conn, header, VSOCK_OP_CREDIT_REQUEST, 0);
    }
    if (room == 0)
        return -ENOBUFS;
    size_t length = read_from_host(conn, bytes, count, room);
    if (length > 0)
        return packet(conn, header, VSOCK_OP_RW, length);
    conclude(conn); /* it may have ended, and there is something to say now */
    return -EAGAIN;
}

int conn_speak(struct conn *conn, struct vsock_header *header, const struct iovec *bytes,
               unsigned count, size_t room)
{
    header->from_port = conn->host_port;
    header->to_port = conn->guest_port;
    if (conn->say & SAY_RST) {
        conn_free(conn);
        return packet(conn, header, VSOCK_OP_RST, 0);
    }
    if (conn->say & SAY_REQUEST)
        return packet_said(conn, header, VSOCK_OP_REQUEST, SAY_REQUEST);
    if (conn->say & SAY_RESPONSE)
        return packet_said(conn, header, VSOCK_OP_RESPONSE, SAY_RESPONSE);
    if (may_read(conn)) {
        int length = speak_bytes(conn, header, bytes, count, room);
        if (length != -EAGAIN)
            return length;
    }
    if (conn->say & SAY_RST) /* the conclusion of the last byte */
        return conn_speak(conn, header, bytes, count, room);
    if (conn->say & SAY_SHUTDOWN) {
        header->flags = conn->told_shut = conn->host_shut;
        return packet_said(conn, header, VSOCK_OP_SHUTDOWN, SAY_SHUTDOWN);
    }
    if (conn->say & SAY_CREDIT)
        return packet_said(conn, header, VSOCK_OP_CREDIT_UPDATE, SAY_CREDIT);
    return -EAGAIN;
}
