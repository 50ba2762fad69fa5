/* SPDX-License-Identifier: MIT */
/*
 * An interface before another one, whose sending can be held (netif_gate.h).
 *
 * Frames that wait lie in one ring, whatever their queue: so they leave in the order in which they
 * came.
 *
 * All of it is the loop's, but for the mode, the leash and the number that may leave. Others change
 * these and ask for a turn; a shut gate needs no turn to be shut, and a leash none to run out,
 * because they are looked at before each frame.
 */
#include "host/netif_gate.h"

#include "core/clock.h"
#include "core/iov.h"
#include "host/frame_look.h"
#include "host/frame_ring.h"
#include "host/turn.h"
#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
    FRAMES_A_TURN = 256,   /* then others on this loop have theirs */
    OPEN_BUDGET = 1 << 20, /* until a hold says another one */
};

enum mode { OPEN, HELD, SHUT };

struct queue {
    unsigned watched; /* by the client */
    unsigned inner;   /* what the inner interface is watched for */
    size_t refused;   /* the client waits for so much room */
};

struct netif_gate {
    struct netif netif;
    struct netif *inner;
    const struct netif_handlers *client;
    struct netif_handlers handlers;
    struct turn turn;
    void (*waits)(void *ctx, bool urgent);
    void *waits_ctx;

    _Atomic enum mode mode; /* any thread */
    _Atomic uint64_t leash; /* open is so until then; 0: for ever. Any thread */
    _Atomic uint64_t end;   /* frames of lower numbers may leave. Any thread */
    _Atomic uint64_t until; /* so long, if `limit` is not 0 */
    uint64_t limit;         /* ns */

    uint64_t number; /* of what is sent now */
    bool told;       /* that something waits, since the last mark */
    bool urged;      /* that somebody waits for it */
    size_t budget;

    struct frame_ring ring;

    bool blocked; /* the first frame waits for room at the inner interface */
    unsigned blocked_queue;
    unsigned queues; /* that the inner interface uses */
    unsigned turns;  /* the queue that is told first of room */
    struct queue queue[NETIF_MAX_QUEUES];
};

static struct netif_gate *gate_of(struct netif *netif)
{
    return container_of(netif, struct netif_gate, netif);
}

/* Nothing waits, and nothing has to. */
static bool is_clear(const struct netif_gate *gate)
{
    return atomic_load_explicit(&gate->mode, memory_order_relaxed) == OPEN &&
           atomic_load_explicit(&gate->ring.used, memory_order_relaxed) == 0;
}

/* Whoever has opened it has said so again, lately. */
static bool leash_lasts(const struct netif_gate *gate)
{
    uint64_t leash = gate->leash;
    return leash == 0 || clock_boot_ns() < leash;
}

/* --- out ------------------------------------------------------------------------------------ */

/* Now: it may be shut the next moment. */
static bool may_leave(const struct netif_gate *gate, const struct frame_record *record)
{
    enum mode mode = gate->mode;
    if (mode == OPEN)
        return leash_lasts(gate);
    return mode == HELD && (record->free || record->number < gate->end) &&
           (!gate->limit || clock_boot_ns() < gate->until);
}

static ssize_t send_first(struct netif_gate *gate)
{
    struct frame_record *record = frame_ring_at(&gate->ring, 0);
    struct iovec iov[2];
    unsigned count = frame_ring_bytes(&gate->ring, record, iov);

    /* The guest may use fewer queues now than when it sent this. */
    gate->blocked_queue = record->queue < gate->queues ? record->queue : 0;
    return gate->inner->ops->send(gate->inner, gate->blocked_queue, iov, count);
}

/* All that may, until the inner interface is full. Frames that it refuses are lost, as they would
 * have been before. */
static void let_leave(struct netif_gate *gate)
{
    for (unsigned i = 0; gate->ring.used && !gate->blocked; i++) {
        if (!may_leave(gate, frame_ring_at(&gate->ring, 0)))
            break;
        if (i == FRAMES_A_TURN) {
            turn_ask(&gate->turn);
            return;
        }
        gate->blocked = send_first(gate) == -EAGAIN;
        if (!gate->blocked)
            frame_ring_drop(&gate->ring);
    }
    if (gate->mode == SHUT || is_clear(gate)) {
        frame_ring_clear(&gate->ring);
        gate->blocked = false;
    }
}

/* The inner interface is asked for room by the client, or by us for what waits. */
static void watch_inner(struct netif_gate *gate, unsigned index)
{
    struct queue *queue = &gate->queue[index];
    unsigned what = queue->watched;

    if (!is_clear(gate))
        what &= ~(unsigned)NETIF_WRITABLE;
    if (gate->blocked && gate->blocked_queue == index)
        what |= NETIF_WRITABLE;
    if (what == queue->inner)
        return;
    queue->inner = what;
    gate->inner->ops->watch(gate->inner, index, what);
}

/* The client waits for room, it is ours to tell of it, and there is some. */
static bool has_room(const struct netif_gate *gate, const struct queue *queue)
{
    if (!(queue->watched & NETIF_WRITABLE) || is_clear(gate))
        return false;
    return gate->mode == SHUT ||
           gate->ring.used + (queue->refused ? queue->refused : FRAME_RING_UNIT) <= gate->budget;
}

/* Whatever can go on now. */
static void serve(struct netif_gate *gate)
{
    unsigned count = gate->netif.info.max_queues;
    bool again = false;

    let_leave(gate);
    for (unsigned i = 0; i < count; i++)
        watch_inner(gate, i);
    for (unsigned i = 0; i < count; i++) {
        unsigned index = (gate->turns + i) % count;
        if (has_room(gate, &gate->queue[index]))
            gate->client->ready(gate->client->ctx, index, NETIF_WRITABLE);
    }
    gate->turns++;
    for (unsigned i = 0; i < count; i++)
        again |= has_room(gate, &gate->queue[i]);
    if (again)
        turn_ask(&gate->turn);
}

static void handle_turn(void *arg)
{
    serve(arg);
}

/* --- frames --------------------------------------------------------------------------------- */

/* It has just begun to wait. Who allowed its number meanwhile, or renewed the leash, and did not
 * see it is seen here. */
static void tell_of(struct netif_gate *gate, const struct iovec *iov, unsigned count)
{
    bool open = gate->mode == OPEN;
    if (open ? leash_lasts(gate) : gate->number < gate->end) {
        if (!gate->blocked)
            turn_ask(&gate->turn);
    } else if (!open && !gate->urged) {
        bool told = gate->told;
        gate->told = true;
        gate->urged = !frame_is_bare_ack(iov, count);
        if (gate->waits && (!told || gate->urged))
            gate->waits(gate->waits_ctx, gate->urged);
    }
}

static ssize_t keep(struct netif_gate *gate, unsigned queue, const struct iovec *iov,
                    unsigned count)
{
    size_t length = iov_size(iov, count), cost = frame_ring_cost(length);

    if (gate->mode == SHUT)
        return (ssize_t)length;
    if (length > NETIF_MAX_FRAME)
        return -EMSGSIZE;
    bool full = gate->ring.used + cost > gate->budget;
    gate->queue[queue].refused = full ? cost : 0;
    if (full)
        return -EAGAIN;
    if (!frame_ring_reserve(&gate->ring, cost, gate->budget))
        return -ENOMEM;
    frame_ring_add(&gate->ring,
                   &(struct frame_record){.number = gate->number,
                                          .length = (uint32_t)length,
                                          .queue = (uint16_t)queue},
                   iov, count);
    tell_of(gate, iov, count);
    return (ssize_t)length;
}

static ssize_t gate_send(struct netif *netif, unsigned queue, const struct iovec *iov,
                         unsigned count)
{
    struct netif_gate *gate = gate_of(netif);

    if (is_clear(gate) && leash_lasts(gate))
        return gate->inner->ops->send(gate->inner, queue, iov, count);
    return keep(gate, queue, iov, count);
}

static ssize_t gate_receive(struct netif *netif, unsigned queue, const struct iovec *iov,
                            unsigned count)
{
    struct netif_gate *gate = gate_of(netif);
    return gate->inner->ops->receive(gate->inner, queue, iov, count);
}

static void gate_watch(struct netif *netif, unsigned queue, unsigned what)
{
    struct netif_gate *gate = gate_of(netif);

    gate->queue[queue].watched = what;
    watch_inner(gate, queue);
    if (has_room(gate, &gate->queue[queue]))
        turn_ask(&gate->turn);
}

static void handle_ready(void *ctx, unsigned queue, unsigned what)
{
    struct netif_gate *gate = ctx;

    if ((what & NETIF_WRITABLE) && !is_clear(gate)) {
        gate->blocked &= gate->blocked_queue != queue;
        serve(gate); /* it is not the client whom this concerns, and it may have changed its mind */
        what &= gate->queue[queue].watched & ~(unsigned)NETIF_WRITABLE;
    }
    if (what)
        gate->client->ready(gate->client->ctx, queue, what);
}

/* --- the rest of an interface --------------------------------------------------------------- */

static void handle_link(void *ctx, bool up)
{
    struct netif_gate *gate = ctx;
    gate->netif.info.link_up = up;
    gate->client->link_changed(gate->client->ctx, up);
}

static void handle_trouble(void *ctx, const char *sentence)
{
    const struct netif_gate *gate = ctx;
    gate->client->trouble(gate->client->ctx, sentence);
}

static void gate_detach(struct netif *netif)
{
    struct netif_gate *gate = gate_of(netif);

    turn_detach(&gate->turn);
    gate->inner->ops->detach(gate->inner);
    memset(gate->queue, 0, sizeof(gate->queue));
    gate->blocked = false;
}

static int gate_attach(struct netif *netif, struct loop *loop,
                       const struct netif_handlers *handlers, struct err *err)
{
    struct netif_gate *gate = gate_of(netif);

    gate->client = handlers;
    int r = gate->inner->ops->attach(gate->inner, loop, &gate->handlers, err);
    if (r < 0)
        return r;
    gate->netif.info = gate->inner->info;
    r = turn_attach(&gate->turn, loop, err);
    if (r < 0) {
        gate->inner->ops->detach(gate->inner);
        return r;
    }
    if (gate->ring.used)
        turn_ask(&gate->turn);
    return 0;
}

static int gate_configure(struct netif *netif, unsigned queues, unsigned offloads)
{
    struct netif_gate *gate = gate_of(netif);

    int r = gate->inner->ops->configure(gate->inner, queues, offloads);
    if (r < 0)
        return r;
    gate->queues = queues;
    if (gate->blocked) {
        gate->blocked = false; /* its queue may be none any more */
        turn_ask(&gate->turn);
    }
    return 0;
}

static struct netif *gate_inner(struct netif *netif)
{
    return gate_of(netif)->inner;
}

static void gate_destroy(struct netif *netif)
{
    struct netif_gate *gate = gate_of(netif);

    netif_destroy(gate->inner);
    turn_finish(&gate->turn);
    frame_ring_clear(&gate->ring);
    free(gate);
}

static const struct netif_ops ops = {
    .name = "gate",
    .attach = gate_attach,
    .detach = gate_detach,
    .send = gate_send,
    .receive = gate_receive,
    .watch = gate_watch,
    .configure = gate_configure,
    .inner = gate_inner,
    .destroy = gate_destroy,
};

/* --- the gate ------------------------------------------------------------------------------- */

struct netif_gate *netif_gate_of(struct netif *netif)
{
    while (netif && netif->ops != &ops)
        netif = netif_inner(netif);
    return netif ? gate_of(netif) : NULL;
}

void netif_gate_watch(struct netif_gate *gate, void (*waits)(void *ctx, bool urgent), void *ctx)
{
    gate->waits = waits;
    gate->waits_ctx = ctx;
}

void netif_gate_mark(struct netif_gate *gate, uint64_t number)
{
    assert(number >= gate->number);
    gate->number = number;
    gate->told = gate->urged = false;
}

/* What the gate was open for and has not left yet need not wait once more: unless nobody answers
 * for that any more. Then it waits as what is sent now does. */
static void settle_all(struct netif_gate *gate, bool free)
{
    struct frame_record *record;

    for (size_t at = 0; at < gate->ring.used; at += frame_ring_cost(record->length)) {
        record = frame_ring_at(&gate->ring, at);
        record->free = free;
        record->number = gate->number;
    }
}

void netif_gate_hold(struct netif_gate *gate, uint64_t number, size_t budget)
{
    enum mode mode = gate->mode;

    if (mode == HELD)
        netif_gate_mark(gate, number);
    if (mode != OPEN)
        return;
    if (budget < frame_ring_cost(NETIF_MAX_FRAME))
        budget = frame_ring_cost(NETIF_MAX_FRAME);
    gate->budget = budget / FRAME_RING_UNIT * FRAME_RING_UNIT;
    gate->number = number;
    gate->told = gate->urged = false;
    gate->end = 0;
    gate->until = clock_boot_ns() + gate->limit; /* for what is free */
    settle_all(gate, leash_lasts(gate));
    if (!atomic_compare_exchange_strong(&gate->mode, &mode, HELD))
        return; /* shut meanwhile */
    for (unsigned i = 0; i < NETIF_MAX_QUEUES; i++)
        watch_inner(gate, i);
    turn_ask(&gate->turn); /* there is room, which the inner interface tells of no more */
}

void netif_gate_release(struct netif_gate *gate, uint64_t number)
{
    uint64_t before = gate->end, end = number < UINT64_MAX ? number + 1 : number;

    gate->until = clock_boot_ns() + gate->limit;
    while (before < end && !atomic_compare_exchange_weak(&gate->end, &before, end))
        continue;
    if (gate->ring.used)
        turn_ask(&gate->turn);
}

void netif_gate_open(struct netif_gate *gate)
{
    enum mode held = HELD;

    if (atomic_compare_exchange_strong(&gate->mode, &held, OPEN))
        turn_ask(&gate->turn);
}

/* Also where it had not run out yet: what was sent at its very end may just have begun to wait. */
void netif_gate_leash(struct netif_gate *gate, uint64_t until_ns)
{
    gate->leash = until_ns;
    if (gate->ring.used)
        turn_ask(&gate->turn);
}

void netif_gate_shut(struct netif_gate *gate)
{
    gate->mode = SHUT;
    turn_ask(&gate->turn);
}

uint64_t netif_gate_held(struct netif_gate *gate)
{
    return gate->mode == SHUT ? 0 : gate->ring.used;
}

void netif_gate_limit(struct netif_gate *gate, uint64_t ns)
{
    gate->limit = ns;
}

void netif_gate_flush(struct netif_gate *gate)
{
    bool attached = gate->turn.loop;

    for (uint64_t before = UINT64_MAX; attached && gate->ring.used && gate->ring.used < before;) {
        before = gate->ring.used;
        let_leave(gate);
    }
}

int netif_gate_create(struct netif **ret_netif, struct netif *inner, struct err *err)
{
    struct netif_gate *gate = calloc(1, sizeof(*gate));

    if (!gate) {
        netif_destroy(inner);
        return err_sys(err, ERR_HOST, ENOMEM, "cannot set up a network interface");
    }
    gate->netif = (struct netif){.ops = &ops, .info = inner->info};
    gate->inner = inner;
    gate->queues = NETIF_MAX_QUEUES;
    gate->budget = OPEN_BUDGET;
    gate->handlers = (struct netif_handlers){
        .ready = handle_ready, .link_changed = handle_link, .trouble = handle_trouble, .ctx = gate};
    int r = turn_init(&gate->turn, handle_turn, gate, err);
    if (r < 0) {
        gate_destroy(&gate->netif);
        return r;
    }
    *ret_netif = &gate->netif;
    return 0;
}
