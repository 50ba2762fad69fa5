/* SPDX-License-Identifier: MIT */
/*
 * A virtio device on a table: guest memory, a main loop that runs when the test says so, a
 * transport that counts interrupts, and a model driver on each queue. Aborts when the rig itself
 * does not work, so that fuzzers can use it too.
 */
#pragma once

#include "core/memory.h"
#include "core/stream.h"
#include "tests/unit/model_driver.h"
#include "virtio/virtio.h"
#include <stdlib.h>
#include <string.h>

enum { RIG_QUEUES = 5, RIG_MEMORY = 16 << 20, RIG_PLACES = 1 << 20, RIG_PLACE = 1 << 19 };

struct rig {
    struct memory *memory;
    struct loop *loop;
    struct virtio_world world;
    struct virtio_transport transport;
    unsigned interrupts[RIG_QUEUES];
    unsigned config_interrupts;
    struct virtio *virtio;
    struct model_driver queues[RIG_QUEUES];
    uint16_t queue_size;
};

static inline void rig_require(bool promise)
{
    if (!promise)
        abort();
}

static inline void rig_handle_queue_interrupt(void *ctx, unsigned queue)
{
    ((struct rig *)ctx)->interrupts[queue]++;
}

static inline void rig_handle_config_interrupt(void *ctx)
{
    ((struct rig *)ctx)->config_interrupts++;
}

static inline void rig_handle_unplug(void *ctx)
{
}

static inline void rig_init(struct rig *rig)
{
    memset(rig, 0, sizeof(*rig));
    rig->queue_size = 64;
    rig_require(memory_create(&rig->memory, RIG_MEMORY, RIG_MEMORY, 1ull << 32, NULL) == 0);
    rig_require(loop_create(&rig->loop, NULL) == 0);
    rig->world = (struct virtio_world){.memory = rig->memory, .loop = rig->loop};
    rig->transport = (struct virtio_transport){.queue_interrupt = rig_handle_queue_interrupt,
                                               .config_interrupt = rig_handle_config_interrupt,
                                               .unplug = rig_handle_unplug,
                                               .ctx = rig};
}

/* The rig ends the device. */
static inline void rig_plug(struct rig *rig, struct virtio *virtio)
{
    rig->virtio = virtio;
    virtio->transport = &rig->transport;
    virtio->device.ops->reset(&virtio->device);
    virtio->device.ops->resume(&virtio->device);
}

static inline void rig_finish(struct rig *rig)
{
    if (rig->virtio)
        device_destroy(&rig->virtio->device);
    loop_destroy(rig->loop);
    memory_destroy(rig->memory);
}

static inline void rig_pause(struct rig *rig)
{
    rig->virtio->device.ops->pause(&rig->virtio->device);
}

static inline void rig_resume(struct rig *rig)
{
    rig->virtio->device.ops->resume(&rig->virtio->device);
}

static inline void rig_set_status(struct rig *rig, uint8_t status)
{
    virtio_lock(rig->virtio);
    virtio_set_status(rig->virtio, status);
    virtio_unlock(rig->virtio);
}

static inline uint8_t rig_status(struct rig *rig)
{
    virtio_lock(rig->virtio);
    uint8_t status = virtio_status(rig->virtio);
    virtio_unlock(rig->virtio);
    return status;
}

static inline bool rig_is_broken(struct rig *rig)
{
    return rig_status(rig) & VIRTIO_NEEDS_RESET;
}

static inline void rig_enable(struct rig *rig, unsigned queue, bool event_index, bool indirect)
{
    struct model_driver *driver = &rig->queues[queue];
    model_init(driver, &(struct model_config){.memory = rig->memory,
                                              .base = RIG_PLACES + queue * RIG_PLACE,
                                              .size = rig->queue_size,
                                              .event_index = event_index,
                                              .indirect = indirect,
                                              .buffer_bytes = RIG_PLACE / 2});
    rig_require(model_end(driver) <= RIG_PLACES + (queue + 1) * RIG_PLACE);
    struct vring_state places = model_places(driver);
    struct vring_state *state = virtio_queue_state(rig->virtio, queue);
    state->descriptors = places.descriptors;
    state->available = places.available;
    state->used = places.used;
    state->size = places.size;
    virtio_queue_enable(rig->virtio, queue);
}

/* The driver brings the device up, with these features and the queues that bits in `queues` name.
 */
static inline void rig_start(struct rig *rig, uint64_t features, unsigned queues)
{
    virtio_lock(rig->virtio);
    virtio_set_status(rig->virtio, 0);
    virtio_set_status(rig->virtio, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
    features |= VIRTIO_F_VERSION_1;
    virtio_accept(rig->virtio, 0, (uint32_t)features);
    virtio_accept(rig->virtio, 1, (uint32_t)(features >> 32));
    virtio_set_status(rig->virtio, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK);
    rig_require(virtio_status(rig->virtio) & VIRTIO_FEATURES_OK);
    for (unsigned i = 0; i < RIG_QUEUES; i++)
        if (queues & 1u << i)
            rig_enable(rig, i, features & VIRTIO_F_EVENT_INDEX, features & VIRTIO_F_INDIRECT);
    virtio_set_status(rig->virtio,
                      VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK | VIRTIO_DRIVER_OK);
    virtio_unlock(rig->virtio);
}

static inline void rig_handle_end(void *arg)
{
    loop_stop(arg);
}

/* The main loop handles what is ready now, and perhaps some of what that leads to. */
static inline void rig_turn(struct rig *rig)
{
    struct loop_call end = {.handle = rig_handle_end, .arg = rig->loop};

    loop_post(rig->loop, &end);
    rig_require(loop_run(rig->loop) == 0);
}

/* So many turns that nothing is left to do, unless somebody always finds more. */
static inline void rig_settle(struct rig *rig)
{
    for (unsigned i = 0; i < 64; i++)
        rig_turn(rig);
}

/* A well-behaved driver: rings only when it is asked to. */
static inline void rig_show(struct rig *rig, unsigned queue)
{
    if (model_show(&rig->queues[queue]))
        virtio_ring_doorbell(rig->virtio, queue);
}

/* One request of one part, shown; then what the loop makes of it. */
static inline void rig_send(struct rig *rig, unsigned queue, const void *bytes, uint32_t length)
{
    struct model_part part = model_out(&rig->queues[queue], bytes, length);
    rig_require(model_add(&rig->queues[queue], &part, 1, part.gpa) >= 0);
    rig_show(rig, queue);
    rig_settle(rig);
}

/* An empty buffer, its address being the token. */
static inline gpa_t rig_offer(struct rig *rig, unsigned queue, uint32_t length)
{
    struct model_part part = model_in(&rig->queues[queue], length);
    rig_require(model_add(&rig->queues[queue], &part, 1, part.gpa) >= 0);
    rig_show(rig, queue);
    return part.gpa;
}

static inline uint64_t rig_config_read(struct rig *rig, unsigned offset, unsigned width)
{
    virtio_lock(rig->virtio);
    uint64_t value = virtio_config_read(rig->virtio, offset, width);
    virtio_unlock(rig->virtio);
    return width < 8 ? value & ((1ull << 8 * width) - 1) : value;
}

static inline void rig_config_write(struct rig *rig, unsigned offset, unsigned width,
                                    uint64_t value)
{
    virtio_lock(rig->virtio);
    virtio_config_write(rig->virtio, offset, width, value);
    virtio_unlock(rig->virtio);
}

/* `to` goes on where the paused `from` stands: state, memory, and the drivers' knowledge. Paused
 * too afterwards. */
static inline void rig_travel(struct rig *to, struct rig *from)
{
    struct state_item source = {from->virtio->device.table, 0, from->virtio->device.state};
    struct state_item target = {to->virtio->device.table, 0, to->virtio->device.state};
    struct stream_buffer buffer;
    void *old, *new;

    rig_pause(to);
    stream_buffer_init(&buffer, 0);
    rig_require(state_save(&buffer.stream, &source, 1) == 0);
    stream_buffer_rewind(&buffer);
    rig_require(state_load(&buffer.stream, &target, 1, NULL) == 0);
    stream_buffer_finish(&buffer);
    rig_require(memory_borrow(from->memory, 0, RIG_MEMORY, &old) == 0);
    rig_require(memory_borrow(to->memory, 0, RIG_MEMORY, &new) == 0);
    memcpy(new, old, RIG_MEMORY);
    for (unsigned i = 0; i < RIG_QUEUES; i++) {
        to->queues[i] = from->queues[i];
        to->queues[i].config.memory = to->memory;
    }
}
