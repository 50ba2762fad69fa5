/* SPDX-License-Identifier: MIT */
/*
 * What the files of the vsock device share: vsock.c is the device (queues, packets, state),
 * vsock_conn.c one connection, vsock_host.c host programs, vsock_gate.c what may leave already. All
 * under the device's lock, on the main loop; only a driver's reset comes on a vCPU's thread, and
 * orders to the gate on any.
 */
#pragma once

#include "virtio/vsock.h"

enum { VSOCK_RECEIVE = 0, VSOCK_TRANSMIT = 1, VSOCK_EVENT = 2, VSOCK_QUEUES = 3 }; /* 5.10.2 */

enum {
    VSOCK_HOST = 2, /* the host's context id */
    VSOCK_STREAM = 1,

    VSOCK_QUEUE_SIZE = 128,
    VSOCK_CONNS = 256,       /* at most so many at a time */
    VSOCK_GREETERS = 32,     /* of them, host programs that have not said CONNECT yet */
    VSOCK_BUFFER = 1 << 17,  /* what a slow host program may leave with us: the guest's credit */
    VSOCK_PAYLOAD = 1 << 16, /* most in a packet to the guest */
    VSOCK_RESETS = 64,       /* answers to packets of no connection, not taken by the guest yet */
    VSOCK_SPANS = 32,
};

enum vsock_op {
    VSOCK_OP_REQUEST = 1,
    VSOCK_OP_RESPONSE = 2,
    VSOCK_OP_RST = 3,
    VSOCK_OP_SHUTDOWN = 4,
    VSOCK_OP_RW = 5,
    VSOCK_OP_CREDIT_UPDATE = 6,
    VSOCK_OP_CREDIT_REQUEST = 7,
};

enum { VSOCK_SHUT_RECEIVE = 1, VSOCK_SHUT_SEND = 2, VSOCK_SHUT_BOTH = 3 }; /* SHUTDOWN's flags */

/* 5.10.6; little-endian on the wire, in our own byte order everywhere but in vsock.c. */
struct vsock_header {
    uint64_t from_cid;
    uint64_t to_cid;
    uint32_t from_port;
    uint32_t to_port;
    uint32_t length;
    uint16_t type;
    uint16_t op;
    uint32_t flags;
    uint32_t buffer;    /* how much the sender takes... */
    uint32_t forwarded; /* ...beyond what it has handed on so far; free-running */
} __attribute__((packed));

enum conn_stage {
    CONN_FREE = 0,
    CONN_GREETING, /* a host program that has not said CONNECT yet */
    CONN_ASKING,   /* the guest is asked whether it accepts */
    CONN_OPEN,
    CONN_DYING,  /* over, but the guest is to hear so */
    CONN_DOOMED, /* over for the guest; the loop will close the host's end */
};

/* What there is to say, beside bytes; in this order. */
enum {
    SAY_RST = 1,
    SAY_REQUEST = 2,
    SAY_RESPONSE = 4,
    SAY_SHUTDOWN = 8,
    SAY_CREDIT = 16,
};

struct conn {
    struct vsock *vsock;
    struct loop_io io; /* edge-triggered; fd -1: the host's end is closed */
    enum conn_stage stage;
    uint32_t guest_port, host_port;
    uint64_t deadline_ns; /* 0: none */
    unsigned say;

    bool readable; /* the host's end may have bytes */
    bool hung_up;  /* the host's end is closed over there; bytes may still be left */
    bool silent;   /* the guest knows that it is over, only the host still has bytes to take */
    bool write_ended;
    bool credit_asked;
    unsigned guest_shut, host_shut; /* who will not do what any more: VSOCK_SHUT_ */
    unsigned told_shut;             /* of host_shut, what the guest knows */

    uint32_t sent; /* to the guest; free-running like all counts of bytes */
    uint32_t peer_buffer, peer_forwarded;
    uint32_t forwarded;      /* from the guest to the host */
    uint32_t told_forwarded; /* of that, what the guest knows */
    uint32_t begin, count;   /* bytes in the buffer, which is a ring; made when it is needed */
    uint8_t *buffer;
};

/* The answer to a packet of no connection. */
struct vsock_reset {
    uint64_t from_cid;
    uint32_t host_port, guest_port;
    uint16_t type;
};

enum vsock_gate_mode { VSOCK_GATE_OPEN, VSOCK_GATE_HELD, VSOCK_GATE_SHUT };

struct vsock_gate {
    enum vsock_gate_mode mode;
    uint64_t number; /* of what the guest sends now */
    uint64_t end;    /* packets of lower numbers may leave */
    bool told;       /* that something waits, since the last mark: */
    void (*waits)(void *ctx);
    void *waits_ctx;
    unsigned free;         /* the next packets may leave, whatever their number */
    unsigned first, count; /* of the spans behind them, oldest first: */
    struct vsock_span {
        uint64_t number;
        unsigned packets; /* in a row in the transmit queue */
    } spans[VSOCK_SPANS];
};

struct vsock_state {
    struct virtio_state virtio;
    uint64_t cid;   /* the configuration space (5.10.4), little-endian */
    uint64_t nonce; /* made at each pause: a state with another one was loaded */
    bool reset_pending;
    uint8_t reserved[7];
};

struct vsock {
    struct virtio virtio;
    struct vsock_state state;
    uint64_t cid;
    uint64_t nonce;
    char path[96];
    bool bound; /* path is ours: */
    uint64_t bound_device, bound_inode;
    bool accept_waits;       /* host programs wait for a place */
    struct loop_io door;     /* the listening socket; fd -1: none */
    struct loop_timer timer; /* the earliest deadline of all connections */
    uint64_t timer_ns;       /* what it is armed to, 0: not */
    uint32_t next_port;
    unsigned greeters;
    unsigned places; /* no connection has ever been behind these */
    unsigned turn;   /* the connection that speaks next */
    uint64_t ready[VSOCK_CONNS / 64];
    struct vsock_gate gate;
    unsigned reset_begin, reset_count;
    struct vsock_reset resets[VSOCK_RESETS];
    struct conn conns[VSOCK_CONNS];
};

/* --- vsock.c ---------------------------------------------------------------------------------- */

/* The timer's handler looks at everything at that time. */
void vsock_wake_at(struct vsock *vsock, uint64_t deadline_ns);
/* Gives the guest what there is to say, as far as it takes it. */
void vsock_deliver(struct vsock *vsock);

/* --- vsock_gate.c ----------------------------------------------------------------------------- */

bool vsock_gate_lets(struct vsock *vsock);   /* the next packet in the queue, leave */
void vsock_gate_took(struct vsock *vsock);   /* it was taken out */
void vsock_gate_tell(struct vsock *vsock);   /* the next one waits */
void vsock_gate_forget(struct vsock *vsock); /* the queue is another one now */

/* --- vsock_conn.c ----------------------------------------------------------------------------- */

/* A free one in the given stage, with `fd` (taken over, non-blocking) as its host's end. NULL:
 * there is no place for it, and the fd is closed. */
struct conn *conn_create(struct vsock *vsock, enum conn_stage stage, int fd);
struct conn *conn_find(struct vsock *vsock, uint32_t guest_port, uint32_t host_port);
void conn_free(struct conn *conn);
/* Over: the guest hears RST, if it knows of the connection at all. */
void conn_kill(struct conn *conn);
void conn_set_deadline(struct conn *conn, uint64_t ns_from_now);
/* There is something to say. */
void conn_say(struct conn *conn, unsigned what);
/* Sends what the buffer has, and draws the conclusions. May free or kill it. */
void conn_advance(struct conn *conn);

/* A packet for it came, with `count` segments of bytes. May free or kill it. */
void conn_hear(struct conn *conn, const struct vsock_header *header, const struct iovec *bytes,
               unsigned count);
bool conn_has_word(const struct conn *conn);
/*
 * What it says next: fills in op, flags and credit, and bytes into the segments (room for `room` of
 * them). Returns how many bytes; -EAGAIN: nothing after all; -ENOBUFS: bytes, and there is no room
 * for a single one. May free it, after an RST.
 */
int conn_speak(struct conn *conn, struct vsock_header *header, const struct iovec *bytes,
               unsigned count, size_t room);

/* --- vsock_host.c ----------------------------------------------------------------------------- */

int vsock_host_listen(struct vsock *vsock, struct err *err) must_check;
void vsock_host_close(struct vsock *vsock);
/* Takes those in who wait at the door, as far as there is room. */
void vsock_host_accept(struct vsock *vsock);
/* A greeter may have said CONNECT. May free it. */
void vsock_host_greet(struct conn *conn);
/* The guest wants to reach the program that listens for this port; NULL: there is none. */
struct conn *vsock_host_dial(struct vsock *vsock, uint32_t guest_port, uint32_t host_port);
