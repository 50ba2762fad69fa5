/* SPDX-License-Identifier: MIT */
/* A gate before a wire, and its client. */
#pragma once

#include "core/clock.h"
#include "core/thread.h"
#include "host/netif_gate.h"
#include "tests/unit/gate_wire.h"

struct gate_rig {
    struct wire wire;
    struct loop *loop;
    struct loop_timer end;
    struct netif *netif;
    struct netif_gate *gate;
    struct netif_handlers handlers;
    unsigned ready[QUEUES], ready_what[QUEUES];
    unsigned links, troubles, waits, urgent;
    bool sends;       /* the client sends when it is told that it may */
    unsigned pending; /* frames that it wants to send then */
    uint64_t number, row;
};

/* A frame of the span that is now, in so many segments. */
static inline ssize_t rig_send_in(struct gate_rig *rig, unsigned queue, size_t length,
                                  unsigned segments)
{
    static _Thread_local uint8_t bytes[NETIF_MAX_FRAME];
    struct iovec iov[17];
    size_t part = length / segments;

    memcpy(bytes, &rig->number, sizeof(rig->number));
    memcpy(bytes + sizeof(rig->number), &rig->row, sizeof(rig->row));
    for (size_t at = 2 * sizeof(uint64_t); at < length; at++)
        bytes[at] = byte_of(rig->row, at);
    for (unsigned i = 0; i < segments; i++)
        iov[i] = (struct iovec){.iov_base = bytes + i * part,
                                .iov_len = i + 1 < segments ? part : length - i * part};
    ssize_t sent = rig->netif->ops->send(rig->netif, queue, iov, segments);
    if (sent >= 0) {
        ck_assert_int_eq(sent, (ssize_t)length);
        rig->row++;
    }
    return sent;
}

static inline ssize_t rig_send(struct gate_rig *rig, unsigned queue, size_t length)
{
    return rig_send_in(rig, queue, length, 1);
}

static inline void rig_watch(struct gate_rig *rig, unsigned queue, unsigned what)
{
    rig->netif->ops->watch(rig->netif, queue, what);
}

static inline void rig_handle_ready(void *ctx, unsigned queue, unsigned what)
{
    struct gate_rig *rig = ctx;

    rig->ready[queue]++;
    rig->ready_what[queue] |= what;
    if (!rig->sends || !(what & NETIF_WRITABLE))
        return;
    for (unsigned i = 0; i < 8 && rig->pending; i++) {
        if (rig_send(rig, queue, SMALLEST + rig->row % 3000) == -EAGAIN)
            return;
        rig->pending--;
    }
    if (!rig->pending)
        rig_watch(rig, queue, 0);
}

static inline void rig_handle_link(void *ctx, bool up)
{
    struct gate_rig *rig = ctx;

    rig->links++;
    ck_assert(rig->netif->info.link_up == up);
}

static inline void rig_handle_trouble(void *ctx, const char *sentence)
{
    struct gate_rig *rig = ctx;

    ck_assert_str_eq(sentence, "trouble");
    rig->troubles++;
}

static inline void rig_handle_waits(void *ctx, bool urgent)
{
    struct gate_rig *rig = ctx;
    rig->waits++;
    rig->urgent += urgent;
}

static inline void rig_attach(struct gate_rig *rig)
{
    ck_assert_int_eq(rig->netif->ops->attach(rig->netif, rig->loop, &rig->handlers, NULL), 0);
}

static inline void rig_init(struct gate_rig *rig)
{
    memset(rig, 0, sizeof(*rig));
    rig->wire.netif = (struct netif){
        .ops = &wire_ops,
        .info = {.max_queues = QUEUES, .offloads = NETIF_CSUM, .mtu = 9000, .description = "wire"}};
    rig->wire.tell = (struct loop_call){.handle = wire_handle_tell, .arg = &rig->wire};
    rig->wire.room = UINT32_MAX;
    rig->handlers = (struct netif_handlers){.ready = rig_handle_ready,
                                            .link_changed = rig_handle_link,
                                            .trouble = rig_handle_trouble,
                                            .ctx = rig};
    ck_assert_int_eq(loop_create(&rig->loop, NULL), 0);
    ck_assert_int_eq(netif_gate_create(&rig->netif, &rig->wire.netif, NULL), 0);
    rig->gate = netif_gate_of(rig->netif);
    ck_assert_ptr_nonnull(rig->gate);
    netif_gate_watch(rig->gate, rig_handle_waits, rig);
    rig_attach(rig);
}

static inline void rig_handle_end(void *arg)
{
    loop_stop(((struct gate_rig *)arg)->loop);
}

/* Whatever was asked for until now has been done. A stop comes behind what is due, once for each
 * of the two ways by which a loop is woken; and once more for what they have brought. */
static inline void rig_settle(struct gate_rig *rig)
{
    for (unsigned i = 0; i < 4; i++) {
        loop_timer_init(&rig->end, rig->loop, rig_handle_end, rig);
        ck_assert_int_eq(loop_timer_arm(&rig->end, clock_monotonic_ns()), 0);
        ck_assert_int_eq(loop_run(rig->loop), 0);
        loop_timer_cancel(&rig->end);
    }
}

static inline void rig_finish(struct gate_rig *rig)
{
    for (unsigned queue = 0; queue < QUEUES; queue++)
        rig_watch(rig, queue, 0);
    rig_settle(rig);
    rig->netif->ops->detach(rig->netif);
    ck_assert_ptr_null(rig->wire.handlers);
    netif_destroy(rig->netif);
    ck_assert(rig->wire.destroyed);
    loop_destroy(rig->loop);
}

static inline void rig_hold(struct gate_rig *rig, uint64_t number, size_t budget)
{
    rig->number = number;
    netif_gate_hold(rig->gate, number, budget);
}

static inline void rig_mark(struct gate_rig *rig, uint64_t number)
{
    rig->number = number;
    netif_gate_mark(rig->gate, number);
}

/* All that was sent has arrived, up to (not with) this row, and nothing else. */
static inline void rig_expect(struct gate_rig *rig, uint64_t row)
{
    ck_assert_uint_eq(rig->wire.seen_count, row);
    for (uint64_t i = 0; i < row; i++)
        ck_assert_uint_eq(rig->wire.seen[i].row, i);
}
