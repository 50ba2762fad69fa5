/* SPDX-License-Identifier: MIT */
/*
 * A network device with a model driver on the one side and an interface of the test's own on the
 * other, all on one thread: rig_pump() is the loop. For the tests, the fuzzer and the benchmark.
 */
#pragma once

#include "tests/unit/fake_netif.h"
#include "tests/unit/model_driver.h"
#include "virtio/net.h"
#include "virtio/net_wire.h"
#include <unistd.h>

#define RIG_FEATURE(name) (1ull << VIRTIO_NET_F_##name)
#define RIG_ALL           (~0ull)

enum { RIG_RAM = 128 << 20, RIG_QUEUES = 2 * NETIF_MAX_QUEUES + 1 };

struct rig {
    struct rig_netif netif;
    struct memory *memory;
    struct virtio_world world;
    struct net *net;
    struct virtio *virtio;
    struct virtio_transport transport;
    unsigned interrupts[RIG_QUEUES], config_interrupts, troubles, announced;
    struct model_driver drivers[RIG_QUEUES];
    unsigned control; /* index of the control queue */
};

/* --- the machine ---------------------------------------------------------------------------- */

static inline void rig_interrupt(void *ctx, unsigned queue)
{
    ((struct rig *)ctx)->interrupts[queue]++;
}

static inline void rig_config_interrupt(void *ctx)
{
    ((struct rig *)ctx)->config_interrupts++;
}

static inline void rig_unplug(void *ctx)
{
}

static inline void rig_trouble(void *ctx, const char *sentence)
{
    ((struct rig *)ctx)->troubles++;
}

static inline void rig_announced(void *ctx)
{
    ((struct rig *)ctx)->announced++;
}

/* A device that runs and has no driver yet, with an interface that config names. */
static inline void rig_create_with(struct rig *rig, const struct net_config *config)
{
    rig_require(memory_create(&rig->memory, RIG_RAM, RIG_RAM, 1ull << 32, NULL) == 0, "no memory");
    rig_require(loop_create(&rig->world.loop, NULL) == 0, "no loop");
    rig->world.memory = rig->memory;
    rig_require(net_create(&rig->net, &rig->world, config, NULL) == 0, "no device");
    rig->virtio = net_virtio(rig->net);
    rig->transport = (struct virtio_transport){.queue_interrupt = rig_interrupt,
                                               .config_interrupt = rig_config_interrupt,
                                               .unplug = rig_unplug,
                                               .ctx = rig};
    rig->virtio->transport = &rig->transport;
    virtio_device_reset(&rig->virtio->device);
    virtio_device_resume(&rig->virtio->device);
}

/* The same with our own interface. What is 0 in info or config is chosen. */
static inline void rig_create(struct rig *rig, const struct netif_info *info,
                              const struct net_config *config)
{
    struct net_config own = *config;

    memset(rig, 0, sizeof(*rig));
    rig->netif.netif = (struct netif){.ops = &rig_ops, .info = *info};
    rig->netif.netif.info.link_up = true;
    own.netif = &rig->netif.netif;
    if (!own.queues)
        own.queues = 1;
    if (!rig->netif.netif.info.max_queues)
        rig->netif.netif.info.max_queues = own.queues;
    memcpy(own.mac, "\x52\x54\x00\x11\x22\x33", 6);
    own.trouble = rig_trouble;
    own.announced = rig_announced;
    own.ctx = rig;
    rig_create_with(rig, &own);
}

static inline void rig_destroy(struct rig *rig)
{
    virtio_device_pause(&rig->virtio->device);
    device_destroy(&rig->virtio->device);
    for (unsigned i = 0; i < NETIF_MAX_QUEUES; i++) {
        rig_empty(&rig->netif.in[i]);
        rig_empty(&rig->netif.out[i]);
    }
    loop_destroy(rig->world.loop);
    memory_destroy(rig->memory);
}

/* Resets, and goes all the way to DRIVER_OK with those features that are offered; queues and all.
 */
static inline void rig_start(struct rig *rig, uint64_t features)
{
    struct virtio *virtio = rig->virtio;
    uint64_t accepted = features & virtio->offered;
    gpa_t base = 0x10000;

    virtio_lock(virtio);
    virtio_set_status(virtio, 0);
    virtio_set_status(virtio, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
    virtio_accept(virtio, 0, (uint32_t)accepted);
    virtio_accept(virtio, 1, (uint32_t)((accepted | VIRTIO_F_VERSION_1) >> 32));
    virtio_set_status(virtio, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK);
    rig_require(virtio_has(virtio, VIRTIO_F_VERSION_1), "features are refused");
    for (unsigned i = 0; i < virtio->queue_count; i++) {
        struct model_config config = {.memory = rig->memory,
                                      .base = base,
                                      .size = virtio->queues[i].max_size,
                                      .event_index = accepted & VIRTIO_F_EVENT_INDEX,
                                      .indirect = accepted & VIRTIO_F_INDIRECT,
                                      .table_size = 64,
                                      .buffer_bytes = 4 << 20};
        model_init(&rig->drivers[i], &config);
        base = (model_end(&rig->drivers[i]) + 0xffff) & ~(gpa_t)0xffff;
        *virtio_queue_state(virtio, i) = model_places(&rig->drivers[i]);
        virtio->state->queues[i].enabled = false;
        virtio_queue_enable(virtio, i);
    }
    rig->control = accepted & RIG_FEATURE(MQ) ? virtio->queue_count - 1 : 2;
    virtio_set_status(virtio,
                      VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK | VIRTIO_DRIVER_OK);
    virtio_unlock(virtio);
}

static inline bool rig_turn_of_queue(struct rig *rig, unsigned queue)
{
    struct virtio *virtio = rig->virtio;
    uint64_t rings;

    if (read(virtio->queues[queue].doorbell, &rings, sizeof(rings)) < 0)
        return false;
    virtio_lock(virtio);
    if (virtio_ring(virtio, queue))
        virtio->ops->notify(virtio, queue);
    virtio_unlock(virtio);
    return true;
}

static inline bool rig_turn_of_interface(struct rig *rig, unsigned queue)
{
    struct rig_netif *netif = &rig->netif;
    unsigned what = (netif->in[queue].count > 0 ? NETIF_READABLE : 0u) |
                    (!netif->full[queue] ? NETIF_WRITABLE : 0u);

    what &= netif->watched[queue];
    if (what)
        netif->handlers->ready(netif->handlers->ctx, queue, what);
    return what != 0;
}

/* Until nothing is to do any more, which a device that spins never comes to. Says how many turns
 * that took. */
static inline unsigned rig_pump(struct rig *rig)
{
    enum { MOST = 20000 };
    unsigned turns = 0, before;

    do {
        before = turns;
        for (unsigned i = 0; i < rig->virtio->queue_count; i++)
            turns += rig_turn_of_queue(rig, i);
        for (unsigned i = 0; i < rig->netif.netif.info.max_queues; i++)
            turns += rig_turn_of_interface(rig, i);
        rig_require(turns < MOST, "the device spins");
    } while (turns != before);
    return turns;
}

/* Shows what was added, and rings where the device wants to be told. */
static inline bool rig_show(struct rig *rig, unsigned queue)
{
    if (!model_show(&rig->drivers[queue]))
        return false;
    virtio_ring_doorbell(rig->virtio, queue);
    return true;
}
