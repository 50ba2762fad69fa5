/* SPDX-License-Identifier: MIT */
/*
 * What the tests of virtio devices share: a little machine (memory, main loop), a transport that
 * counts, and a driver's way through the status.
 */
#pragma once

#include "tests/unit/model_driver.h"
#include "virtio/virtio.h"
#include <stdlib.h>
#include <string.h>

enum { RIG_MEMORY = 4 << 20, RIG_CLIMBED = 0x0f };

struct virtio_rig {
    struct memory *memory;
    struct loop *loop;
    struct virtio_world world;
    struct virtio_transport transport;
    struct virtio *virtio; /* whom the transport serves */
    unsigned queue_interrupts[VIRTIO_MAX_QUEUES];
    unsigned config_interrupts, unplugs;
    bool stop_at_interrupt; /* ends loop_run */
    struct loop_call end;
    int turns_left;
};

static inline void rig_require(bool promise)
{
    if (!promise)
        abort();
}

static inline void rig_handle_queue(void *ctx, unsigned queue)
{
    struct virtio_rig *rig = ctx;
    rig->queue_interrupts[queue]++;
    if (rig->stop_at_interrupt)
        loop_stop(rig->loop);
}

static inline void rig_handle_config(void *ctx)
{
    struct virtio_rig *rig = ctx;
    rig->config_interrupts++;
}

static inline void rig_handle_unplug(void *ctx)
{
    struct virtio_rig *rig = ctx;
    rig->unplugs++;
    rig->virtio->transport = NULL;
}

static inline void rig_handle_end(void *arg)
{
    struct virtio_rig *rig = arg;
    if (rig->turns_left-- > 0)
        loop_post(rig->loop, &rig->end);
    else
        loop_stop(rig->loop);
}

static inline void rig_init(struct virtio_rig *rig)
{
    *rig = (struct virtio_rig){0};
    rig_require(memory_create(&rig->memory, RIG_MEMORY, RIG_MEMORY, 0, NULL) == 0);
    rig_require(loop_create(&rig->loop, NULL) == 0);
    rig->world = (struct virtio_world){.memory = rig->memory, .loop = rig->loop};
    rig->transport = (struct virtio_transport){.queue_interrupt = rig_handle_queue,
                                               .config_interrupt = rig_handle_config,
                                               .unplug = rig_handle_unplug,
                                               .ctx = rig};
    rig->end = (struct loop_call){.handle = rig_handle_end, .arg = rig};
}

static inline void rig_finish(struct virtio_rig *rig)
{
    loop_destroy(rig->loop);
    memory_destroy(rig->memory);
}

static inline void rig_plug(struct virtio_rig *rig, struct virtio *virtio)
{
    rig->virtio = virtio;
    virtio->transport = &rig->transport;
}

/* Lets the main loop handle what has come so far: a call may overtake it, its successor does not.
 */
static inline void rig_turn(struct virtio_rig *rig)
{
    rig->turns_left = 1;
    loop_post(rig->loop, &rig->end);
    rig_require(loop_run(rig->loop) == 0);
}

/* A driver's steps; the device has what it needs of queues already. */
static inline void rig_climb(struct virtio *virtio, uint64_t features)
{
    virtio_lock(virtio);
    virtio_set_status(virtio, VIRTIO_ACKNOWLEDGE);
    virtio_set_status(virtio, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
    virtio_accept(virtio, 0, (uint32_t)features);
    virtio_accept(virtio, 1, (uint32_t)(features >> 32));
    virtio_set_status(virtio, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK);
    virtio_set_status(virtio, RIG_CLIMBED);
    virtio_unlock(virtio);
}

static inline void rig_enable(struct virtio *virtio, unsigned queue,
                              const struct model_driver *driver)
{
    virtio_lock(virtio);
    *virtio_queue_state(virtio, queue) = model_places(driver);
    virtio_queue_state(virtio, queue)->enabled = false;
    virtio_queue_enable(virtio, queue);
    virtio_unlock(virtio);
}

static inline uint8_t rig_status(struct virtio *virtio)
{
    virtio_lock(virtio);
    uint8_t status = virtio_status(virtio);
    virtio_unlock(virtio);
    return status;
}

static inline void rig_set_status(struct virtio *virtio, uint8_t status)
{
    virtio_lock(virtio);
    virtio_set_status(virtio, status);
    virtio_unlock(virtio);
}

static inline void rig_resume(struct virtio *virtio)
{
    virtio->device.ops->resume(&virtio->device);
}

static inline void rig_pause(struct virtio *virtio)
{
    virtio->device.ops->pause(&virtio->device);
}
