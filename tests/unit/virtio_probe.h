/* SPDX-License-Identifier: MIT */
/*
 * A virtio device for the tests of what all of them share: two queues, a configuration space of 12
 * bytes, and notes of how it is called.
 */
#pragma once

#include "tests/unit/virtio_rig.h"
#include <semaphore.h>

enum { PROBE_QUEUES = 2, PROBE_SIZE = 16, PROBE_CONFIG = 12 };
#define PROBE_FEATURE (1ull << 5)

struct probe_state {
    struct virtio_state virtio;
    uint8_t config[PROBE_CONFIG];
    uint8_t reserved[4];
};

struct probe {
    struct virtio virtio;
    struct probe_state state;
    unsigned starts, stops, pauses, resumes, resets, config_reads, config_writes;
    unsigned notified[PROBE_QUEUES];
    bool busy;  /* work is under way that a reset has to wait for */
    bool serve; /* takes requests and gives them back */
    bool thread_known;
    pthread_t thread; /* that notify ran on */
    sem_t told;       /* one for each notify */
};

static inline struct probe *probe_of(struct virtio *virtio)
{
    return container_of(virtio, struct probe, virtio);
}

static inline void probe_start(struct virtio *virtio)
{
    probe_of(virtio)->starts++;
}

static inline void probe_serve(struct virtio *virtio, unsigned queue)
{
    struct vring *ring = virtio_ring(virtio, queue);
    struct iovec iov[PROBE_SIZE];
    struct vring_chain chain = {.iov = iov, .capacity = PROBE_SIZE};
    int got;

    do {
        while ((got = vring_pop(ring, &chain)) > 0)
            vring_push(ring, &chain, 0);
    } while (got == 0 && vring_arm(ring));
    if (got < 0)
        virtio_break(virtio);
    virtio_publish(virtio, queue);
}

static inline void probe_notify(struct virtio *virtio, unsigned queue)
{
    struct probe *probe = probe_of(virtio);
    probe->notified[queue]++;
    probe->thread = pthread_self();
    probe->thread_known = true;
    if (probe->serve)
        probe_serve(virtio, queue);
    sem_post(&probe->told);
}

static inline bool probe_stop(struct virtio *virtio)
{
    probe_of(virtio)->stops++;
    return !probe_of(virtio)->busy;
}

static inline void probe_config_read(struct virtio *virtio)
{
    probe_of(virtio)->config_reads++;
}

static inline void probe_config_write(struct virtio *virtio, unsigned offset, unsigned width,
                                      uint64_t value)
{
    probe_of(virtio)->config_writes++;
    memcpy(probe_of(virtio)->state.config + offset, &value, width);
}

static inline void probe_pause(struct virtio *virtio)
{
    probe_of(virtio)->pauses++;
}

static inline void probe_resume(struct virtio *virtio)
{
    probe_of(virtio)->resumes++;
}

static inline void probe_reset(struct virtio *virtio)
{
    probe_of(virtio)->resets++;
    probe_of(virtio)->busy = false;
}

static inline void probe_destroy(struct device *device)
{
    struct probe *probe = container_of(device, struct probe, virtio.device);
    virtio_finish(&probe->virtio);
    sem_destroy(&probe->told);
    free(probe);
}

static const struct virtio_ops probe_ops = {
    .id = 63, /* nobody's */
    .pci_class = 0x00ff00,
    .start = probe_start,
    .notify = probe_notify,
    .stop = probe_stop,
    .config_read = probe_config_read,
    .config_write = probe_config_write,
    .pause = probe_pause,
    .resume = probe_resume,
    .reset = probe_reset,
};

static const struct device_ops probe_device_ops = {
    .reset = virtio_device_reset,
    .pause = virtio_device_pause,
    .resume = virtio_device_resume,
    .destroy = probe_destroy,
};

static const struct state_field probe_fields[] = {
    STATE_FIELD_TABLE(struct probe_state, virtio, struct virtio_state, &virtio_state_table),
    STATE_FIELD_BYTES(struct probe_state, config),
    STATE_FIELD_BYTES(struct probe_state, reserved),
};

static const struct state_table probe_table = {
    .name = "probe", .version = 1, STATE_TABLE_OF(struct probe_state, probe_fields)};

/* NULL where the host did not let it: err says why. */
static inline struct probe *probe_create(const struct virtio_world *world, const char *own_thread,
                                         struct err *err)
{
    struct probe *probe = calloc(1, sizeof(*probe));
    rig_require(probe && sem_init(&probe->told, 0, 0) == 0);
    probe->virtio.device = (struct device){
        .ops = &probe_device_ops, .table = &probe_table, .state = &probe->state};
    const struct virtio_setup setup = {.ops = &probe_ops,
                                       .world = world,
                                       .state = &probe->state.virtio,
                                       .features = PROBE_FEATURE,
                                       .config = probe->state.config,
                                       .config_size = PROBE_CONFIG,
                                       .queue_count = PROBE_QUEUES,
                                       .queue_size = PROBE_SIZE,
                                       .own_thread = own_thread};
    if (virtio_init(&probe->virtio, &setup, err) == 0)
        return probe;
    probe_destroy(&probe->virtio.device);
    return NULL;
}
