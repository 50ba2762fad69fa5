/* SPDX-License-Identifier: MIT */
/*
 * Sockets between guest and host (virtio 1.2, section 5.10): the device, which carries packets
 * between the queues and the connections.
 *
 * Nothing here grows with what a guest or a host program does. Connections have a fixed number of
 * places, each with a buffer of fixed size. A packet of no connection is answered with RST; those
 * answers wait in a short queue until the guest has a buffer for them, and while that is full we
 * take no more packets. What is wrong is answered so:
 *   - from another context id than the guest's, or shorter than a header: ignored
 *   - to another one than the host's, of another type than stream, of no connection: RST
 *   - more bytes announced than there are, or a packet that its connection cannot take: RST
 *   - a request for a connection that is there: that one is killed, with RST
 *   - RST of no connection: ignored, or two sides could go on for ever
 */
#include "virtio/vsock_parts.h"

#include "core/clock.h"
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum {
    CLASS_COMMUNICATION = 0x078000,
    PACKETS_A_TURN = 32, /* of the main loop, and of each direction */
    EVENT_RESET = 0,     /* 5.10.6.7 */
};

#define FEATURE_STREAM (1ull << 0)

_Static_assert(sizeof(struct vsock_header) == 44, "the spec's layout");

static struct vsock *from_virtio(struct virtio *virtio)
{
    return container_of(virtio, struct vsock, virtio);
}

/* --- to the guest --------------------------------------------------------------------------- */

static struct vsock_header to_wire(const struct vsock_header *header)
{
    return (struct vsock_header){
        .from_cid = htole64(header->from_cid),
        .to_cid = htole64(header->to_cid),
        .from_port = htole32(header->from_port),
        .to_port = htole32(header->to_port),
        .length = htole32(header->length),
        .type = htole16(header->type),
        .op = htole16(header->op),
        .flags = htole32(header->flags),
        .buffer = htole32(header->buffer),
        .forwarded = htole32(header->forwarded),
    };
}

static void answer_rst(struct vsock *vsock, const struct vsock_header *to)
{
    if (to->op == VSOCK_OP_RST || vsock->reset_count == VSOCK_RESETS)
        return;
    unsigned end = (vsock->reset_begin + vsock->reset_count++) % VSOCK_RESETS;
    vsock->resets[end] = (struct vsock_reset){.from_cid = to->to_cid,
                                              .host_port = to->to_port,
                                              .guest_port = to->from_port,
                                              .type = to->type};
}

static int speak_reset(struct vsock *vsock, struct vsock_header *header)
{
    const struct vsock_reset *reset = &vsock->resets[vsock->reset_begin];

    if (vsock->reset_count-- == VSOCK_RESETS) /* packets were left where they are */
        virtio_ring_doorbell(&vsock->virtio, VSOCK_TRANSMIT);
    vsock->reset_begin = (vsock->reset_begin + 1) % VSOCK_RESETS;
    header->from_cid = reset->from_cid;
    header->from_port = reset->host_port;
    header->to_port = reset->guest_port;
    header->type = reset->type;
    header->op = VSOCK_OP_RST;
    return 0;
}

/* The next connection that has something to say, each in its turn. */
static struct conn *next_speaker(struct vsock *vsock)
{
    for (unsigned i = 0; i < VSOCK_CONNS; i++) {
        unsigned index = (vsock->turn + i) % VSOCK_CONNS;
        uint64_t bit = 1ull << index % 64;
        struct conn *conn = &vsock->conns[index];
        if (!(vsock->ready[index / 64] & bit))
            continue;
        if (conn_has_word(conn))
            return conn;
        vsock->ready[index / 64] &= ~bit;
    }
    return NULL;
}

/* How many bytes of the chain are filled, or as conn_speak(). */
static int speak(struct vsock *vsock, struct conn *conn, const struct vring_chain *chain)
{
    struct vsock_header header = {
        .from_cid = VSOCK_HOST, .to_cid = vsock->cid, .type = VSOCK_STREAM};
    const struct iovec *iov = vring_writable(chain);
    struct iovec bytes[VSOCK_QUEUE_SIZE];
    size_t room = chain->writable_bytes - sizeof(header);
    unsigned count = iov_part(iov, chain->writable, sizeof(header), room, bytes);
    int length;

    if (conn) {
        vsock->turn = ((unsigned)(conn - vsock->conns) + 1) % VSOCK_CONNS;
        length = conn_speak(conn, &header, bytes, count, room);
    } else {
        length = speak_reset(vsock, &header);
    }
    if (length < 0)
        return length;
    header = to_wire(&header);
    iov_write(iov, chain->writable, 0, &header, sizeof(header));
    return length + (int)sizeof(header);
}

/* True while there may be more to do. */
static bool deliver_one(struct vsock *vsock, struct vring *ring)
{
    struct iovec iov[VSOCK_QUEUE_SIZE];
    struct vring_chain chain = {.iov = iov, .capacity = VSOCK_QUEUE_SIZE};
    struct conn *conn = vsock->reset_count ? NULL : next_speaker(vsock);

    if (!conn && !vsock->reset_count)
        return false; /* not armed: buffers are of no interest now */
    int got = vring_pop(ring, &chain);
    if (got == 0)
        return vring_arm(ring);
    if (got < 0) {
        virtio_break(&vsock->virtio);
        return false;
    }
    if (chain.writable_bytes < sizeof(struct vsock_header)) {
        vring_push(ring, &chain, 0);
        return true;
    }
    int length = speak(vsock, conn, &chain);
    if (length == -EAGAIN)
        vring_unpop(ring, 1);
    else /* or the buffer was of no use */
        vring_push(ring, &chain, length > 0 ? (uint32_t)length : 0);
    return true;
}

void vsock_deliver(struct vsock *vsock)
{
    struct vring *ring = virtio_ring(&vsock->virtio, VSOCK_RECEIVE);
    bool more = true;

    if (!ring)
        return;
    vring_disarm(ring);
    for (unsigned i = 0; i < PACKETS_A_TURN && more; i++)
        more = deliver_one(vsock, ring);
    virtio_publish(&vsock->virtio, VSOCK_RECEIVE);
    if (more)
        virtio_ring_doorbell(&vsock->virtio, VSOCK_RECEIVE);
}

/* --- from the guest ------------------------------------------------------------------------- */

static void take_request(struct vsock *vsock, const struct vsock_header *header)
{
    struct conn *conn = vsock_host_dial(vsock, header->from_port, header->to_port);

    if (!conn) {
        answer_rst(vsock, header);
        return;
    }
    conn->peer_buffer = header->buffer;
    conn->peer_forwarded = header->forwarded;
    conn_say(conn, SAY_RESPONSE);
}

static void take_packet(struct vsock *vsock, const struct vring_chain *chain)
{
    struct vsock_header wire, header;
    struct iovec bytes[VSOCK_QUEUE_SIZE];

    if (iov_read(chain->iov, chain->readable, 0, &wire, sizeof(wire)) < sizeof(wire))
        return;
    header = to_wire(&wire); /* the same swap, back */
    if (header.from_cid != vsock->cid)
        return;
    if (header.to_cid != VSOCK_HOST || header.type != VSOCK_STREAM) {
        answer_rst(vsock, &header);
        return;
    }
    struct conn *conn = conn_find(vsock, header.from_port, header.to_port);
    bool lie = header.length > chain->readable_bytes - sizeof(wire);
    if (conn && lie && header.op != VSOCK_OP_RST && conn->stage != CONN_DYING)
        conn_kill(conn);
    else if (conn)
        conn_hear(conn, &header, bytes,
                  iov_part(chain->iov, chain->readable, sizeof(wire), header.length, bytes));
    else if (header.op == VSOCK_OP_REQUEST && !lie)
        take_request(vsock, &header);
    else
        answer_rst(vsock, &header);
}

/* True while there may be more to do. */
static bool take_one(struct vsock *vsock, struct vring *ring)
{
    struct iovec iov[VSOCK_QUEUE_SIZE];
    struct vring_chain chain = {.iov = iov, .capacity = VSOCK_QUEUE_SIZE};

    if (vsock->reset_count == VSOCK_RESETS)
        return false; /* speak_reset() rings again */
    if (!vsock_gate_lets(vsock)) {
        vsock_gate_tell(vsock);
        return !vring_waiting(ring) && vring_arm(ring); /* else who lets it leave rings again */
    }
    int got = vring_pop(ring, &chain);
    if (got == 0)
        return vring_arm(ring);
    if (got < 0) {
        virtio_break(&vsock->virtio);
        return false;
    }
    vsock_gate_took(vsock);
    take_packet(vsock, &chain);
    vring_push(ring, &chain, 0);
    return true;
}

static void take_packets(struct vsock *vsock, struct vring *ring)
{
    bool more = true;

    vring_disarm(ring);
    for (unsigned i = 0; i < PACKETS_A_TURN && more; i++)
        more = take_one(vsock, ring);
    virtio_publish(&vsock->virtio, VSOCK_TRANSMIT);
    if (more)
        virtio_ring_doorbell(&vsock->virtio, VSOCK_TRANSMIT);
    vsock_deliver(vsock);
}

/* --- events --------------------------------------------------------------------------------- */

/* True while there may be more to do. */
static bool deliver_event(struct vsock *vsock, struct vring *ring)
{
    struct iovec iov[VSOCK_QUEUE_SIZE];
    struct vring_chain chain = {.iov = iov, .capacity = VSOCK_QUEUE_SIZE};
    uint32_t event = htole32(EVENT_RESET);

    if (!vsock->state.reset_pending)
        return false;
    int got = vring_pop(ring, &chain);
    if (got == 0)
        return vring_arm(ring);
    if (got < 0) {
        virtio_break(&vsock->virtio);
        return false;
    }
    bool fits = chain.writable_bytes >= sizeof(event);
    if (fits)
        iov_write(vring_writable(&chain), chain.writable, 0, &event, sizeof(event));
    vring_push(ring, &chain, fits ? sizeof(event) : 0);
    vsock->state.reset_pending = !fits;
    return true;
}

static void deliver_events(struct vsock *vsock, struct vring *ring)
{
    bool more = true;

    vring_disarm(ring);
    for (unsigned i = 0; i < PACKETS_A_TURN && more; i++)
        more = deliver_event(vsock, ring);
    virtio_publish(&vsock->virtio, VSOCK_EVENT);
    if (more)
        virtio_ring_doorbell(&vsock->virtio, VSOCK_EVENT);
}

/* --- time ----------------------------------------------------------------------------------- */

void vsock_wake_at(struct vsock *vsock, uint64_t deadline_ns)
{
    if (vsock->timer_ns && vsock->timer_ns <= deadline_ns)
        return;
    /* Without memory for a timer what should have ended stays until the next one that works. */
    if (loop_timer_arm(&vsock->timer, deadline_ns) == 0)
        vsock->timer_ns = deadline_ns;
}

static void look_at(struct conn *conn, uint64_t now)
{
    if (conn->stage == CONN_DOOMED || (conn->deadline_ns && conn->deadline_ns <= now))
        conn_kill(conn);
    else if (conn->deadline_ns)
        vsock_wake_at(conn->vsock, conn->deadline_ns);
}

static void handle_timer(void *arg)
{
    struct vsock *vsock = arg;
    uint64_t now = clock_monotonic_ns();

    virtio_lock(&vsock->virtio);
    vsock->timer_ns = 0;
    for (unsigned i = 0; i < VSOCK_CONNS; i++)
        look_at(&vsock->conns[i], now);
    vsock_host_accept(vsock);
    vsock_deliver(vsock);
    virtio_unlock(&vsock->virtio);
}

/* --- ops ------------------------------------------------------------------------------------ */

static void vsock_notify(struct virtio *virtio, unsigned queue)
{
    struct vsock *vsock = from_virtio(virtio);
    struct vring *ring = virtio_ring(virtio, queue);

    if (queue == VSOCK_TRANSMIT)
        take_packets(vsock, ring);
    else if (queue == VSOCK_RECEIVE)
        vsock_deliver(vsock);
    else
        deliver_events(vsock, ring);
}

/*
 * The guest has forgotten its connections. This may be a vCPU's thread, and descriptors are the
 * loop's: it closes them, at once. Programs that have not said CONNECT yet may do so later.
 */
static void doom_all(struct vsock *vsock)
{
    for (unsigned i = 0; i < VSOCK_CONNS; i++) {
        struct conn *conn = &vsock->conns[i];
        if (conn->stage != CONN_FREE && conn->stage != CONN_GREETING)
            conn->stage = CONN_DOOMED;
        if (conn->stage == CONN_DOOMED)
            conn->say = 0;
    }
    memset(vsock->ready, 0, sizeof(vsock->ready));
    vsock->reset_count = 0;
    vsock_gate_forget(vsock);
    vsock_wake_at(vsock, 1);
}

static bool vsock_stop(struct virtio *virtio)
{
    struct vsock *vsock = from_virtio(virtio);

    vsock->state.reset_pending = false;
    doom_all(vsock);
    return true;
}

static void vsock_reset(struct virtio *virtio)
{
    struct vsock *vsock = from_virtio(virtio);

    vsock->state.reset_pending = false;
    vsock->state.cid = htole64(vsock->cid);
    doom_all(vsock);
}

static void vsock_pause(struct virtio *virtio)
{
    struct vsock *vsock = from_virtio(virtio);
    uint64_t nonce;

    if (getrandom(&nonce, sizeof(nonce), GRND_NONBLOCK) != sizeof(nonce))
        nonce = clock_monotonic_ns(); /* early in the host's life: no other state is of this time */
    vsock->state.nonce = vsock->nonce = nonce;
}

/* A state that is not the one of our own last pause knows connections that we do not. */
static void vsock_resume(struct virtio *virtio)
{
    struct vsock *vsock = from_virtio(virtio);

    if (vsock->state.nonce == vsock->nonce)
        return;
    vsock->state.cid = htole64(vsock->cid); /* the guest reads it again after the event */
    vsock->state.reset_pending = vsock->state.virtio.status & VIRTIO_DRIVER_OK;
    doom_all(vsock);
}

static const struct virtio_ops ops = {
    .id = 19,
    .pci_class = CLASS_COMMUNICATION,
    .notify = vsock_notify,
    .stop = vsock_stop,
    .pause = vsock_pause,
    .resume = vsock_resume,
    .reset = vsock_reset,
};

static void vsock_destroy(struct device *device)
{
    struct vsock *vsock = container_of(device, struct vsock, virtio.device);

    for (unsigned i = 0; i < VSOCK_CONNS; i++)
        conn_free(&vsock->conns[i]);
    vsock_host_close(vsock);
    loop_timer_cancel(&vsock->timer);
    virtio_finish(&vsock->virtio);
    free(vsock);
}

static const struct device_ops device_ops = {
    .reset = virtio_device_reset,
    .pause = virtio_device_pause,
    .resume = virtio_device_resume,
    .destroy = vsock_destroy,
};

static const struct state_field fields[] = {
    STATE_FIELD_TABLE(struct vsock_state, virtio, struct virtio_state, &virtio_state_table),
    STATE_FIELD_U64(struct vsock_state, cid),
    STATE_FIELD_U64(struct vsock_state, nonce),
    STATE_FIELD_BOOL(struct vsock_state, reset_pending),
    STATE_FIELD_BYTES(struct vsock_state, reserved),
};

static const struct state_table table = {
    .name = "virtio-vsock",
    .version = 1,
    STATE_TABLE_OF(struct vsock_state, fields),
};

struct virtio *vsock_virtio(struct vsock *vsock)
{
    return &vsock->virtio;
}

static int check_config(const struct vsock_config *config, struct err *err)
{
    if (config->cid <= VSOCK_HOST || config->cid >= UINT32_MAX)
        return err_say(err, ERR_DEFINITION, EINVAL,
                       "a guest's vsock context id cannot be %llu (3 to 4294967294)",
                       (unsigned long long)config->cid);
    if (!config->path[0] || strlen(config->path) > VSOCK_PATH_MAX)
        return err_say(err, ERR_DEFINITION, ENAMETOOLONG,
                       "the path of the vsock socket must have 1 to %d characters: \"%s\"",
                       VSOCK_PATH_MAX, config->path);
    return 0;
}

int vsock_create(struct vsock **ret_vsock, const struct virtio_world *world,
                 const struct vsock_config *config, struct err *err)
{
    int ret = check_config(config, err);
    if (ret < 0)
        return ret;
    struct vsock *vsock = calloc(1, sizeof(*vsock));
    if (!vsock)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot make the vsock device");
    vsock->virtio.device = (struct device){
        .ops = &device_ops, .table = &table, .state = &vsock->state};
    vsock->cid = config->cid;
    vsock->state.cid = htole64(config->cid);
    vsock->door.fd = -1;
    snprintf(vsock->path, sizeof(vsock->path), "%s", config->path);
    loop_timer_init(&vsock->timer, world->loop, handle_timer, vsock);

    const struct virtio_setup setup = {.ops = &ops,
                                       .world = world,
                                       .state = &vsock->state.virtio,
                                       .features = FEATURE_STREAM,
                                       .config = &vsock->state.cid,
                                       .config_size = sizeof(vsock->state.cid),
                                       .queue_count = VSOCK_QUEUES,
                                       .queue_size = VSOCK_QUEUE_SIZE};
    ret = virtio_init(&vsock->virtio, &setup, err);
    if (ret == 0)
        ret = vsock_host_listen(vsock, err);
    if (ret < 0) {
        vsock_destroy(&vsock->virtio.device);
        return ret;
    }
    *ret_vsock = vsock;
    return 0;
}
