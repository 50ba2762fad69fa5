/* SPDX-License-Identifier: MIT */
/*
 * A block device with a driver, for tests, the fuzzer and the benchmark: the device runs on its own
 * thread, the driver on ours, and waits for interrupts.
 */
#pragma once

#include "tests/unit/virtio_rig.h"
#include "virtio/blk.h"
#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
    BLK_IN = 0,
    BLK_OUT = 1,
    BLK_FLUSH = 4,
    BLK_GET_ID = 8,
    BLK_DISCARD = 11,
    BLK_ZEROES = 13,

    BLK_OK = 0,
    BLK_IOERR = 1,
    BLK_UNSUPP = 2,
    BLK_NO_STATUS = 0xee, /* what model_in() leaves */

    BLK_RIG_QUEUES = 2,
    BLK_RIG_AREA = 2 << 20, /* of guest memory for each queue */
    BLK_RIG_TOKENS = 4096,
    BLK_PATIENCE_MS = 10000,
};

#define BLK_F_FLUSH        (1ull << 9)
#define BLK_F_CONFIG_WCE   (1ull << 11)
#define BLK_F_MQ           (1ull << 12)
#define BLK_F_DISCARD      (1ull << 13)
#define BLK_F_WRITE_ZEROES (1ull << 14)

struct blk_header {
    uint32_t type, reserved;
    uint64_t sector;
};

struct blk_range {
    uint64_t sector;
    uint32_t sectors, flags;
};

/* One request of the driver's, by its token. */
struct blk_io {
    struct model_part data, status;
    unsigned queue;
    bool done;
    uint32_t written;
};

struct blk_rig {
    struct virtio_rig rig;
    struct blk *blk;
    struct virtio *virtio;
    struct model_driver drivers[BLK_RIG_QUEUES];
    struct blk_io ios[BLK_RIG_TOKENS];
    unsigned io_count, done_count;
    int irq;
    unsigned failures; /* that the device told of */
    int last_failure;
};

static inline void blk_rig_handle_queue(void *ctx, unsigned queue)
{
    struct blk_rig *rig = ctx;
    uint64_t one = 1;
    rig_require(write(rig->irq, &one, sizeof(one)) == sizeof(one));
}

static inline void blk_rig_handle_config(void *ctx)
{
    struct blk_rig *rig = ctx;
    rig->rig.config_interrupts++;
    blk_rig_handle_queue(ctx, 0); /* whoever waits shall look */
}

static inline void blk_rig_handle_unplug(void *ctx)
{
    struct blk_rig *rig = ctx;
    rig->virtio->transport = NULL;
}

static inline void blk_rig_handle_failed(void *ctx, enum disk_op op, uint64_t offset, int error)
{
    struct blk_rig *rig = ctx;
    rig->failures++;
    rig->last_failure = error;
}

static inline void blk_rig_plug(struct blk_rig *rig, struct disk *disk, unsigned queues)
{
    struct blk_config config = {.name = "disk0",
                                .disk = disk,
                                .queues = queues,
                                .serial = "SERIAL-0123456789abc",
                                .failed = blk_rig_handle_failed,
                                .ctx = rig};
    rig_require(blk_create(&rig->blk, &rig->rig.world, &config, NULL) == 0);
    rig->virtio = blk_virtio(rig->blk);
    rig->virtio->transport = &rig->rig.transport;
    rig->virtio->device.ops->reset(&rig->virtio->device);
}

static inline void blk_rig_unplug(struct blk_rig *rig)
{
    rig_pause(rig->virtio);
    device_destroy(&rig->virtio->device);
    rig->virtio = NULL;
}

static inline void blk_rig_init(struct blk_rig *rig, struct disk *disk, unsigned queues)
{
    *rig = (struct blk_rig){0};
    rig->rig.world = (struct virtio_world){0};
    rig_require(memory_create(&rig->rig.memory, 2 * BLK_RIG_QUEUES * BLK_RIG_AREA,
                              2 * BLK_RIG_QUEUES * BLK_RIG_AREA, 0, NULL) == 0);
    rig_require(loop_create(&rig->rig.loop, NULL) == 0);
    rig->rig.world = (struct virtio_world){.memory = rig->rig.memory, .loop = rig->rig.loop};
    rig->rig.transport = (struct virtio_transport){.queue_interrupt = blk_rig_handle_queue,
                                                   .config_interrupt = blk_rig_handle_config,
                                                   .unplug = blk_rig_handle_unplug,
                                                   .ctx = rig};
    rig->irq = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    blk_rig_plug(rig, disk, queues);
}

static inline void blk_rig_finish(struct blk_rig *rig)
{
    if (rig->virtio)
        blk_rig_unplug(rig);
    close(rig->irq);
    rig_finish(&rig->rig);
}

/* The driver of a new device. */
static inline void blk_rig_start(struct blk_rig *rig, uint64_t features, uint16_t size)
{
    features |= VIRTIO_F_VERSION_1;
    for (unsigned i = 0; i < rig->virtio->queue_count; i++) {
        struct model_config config = {.memory = rig->rig.memory,
                                      .base = 0x10000 + 2 * i * BLK_RIG_AREA,
                                      .size = size,
                                      .buffer_bytes = BLK_RIG_AREA,
                                      .table_size = 256,
                                      .event_index = features & VIRTIO_F_EVENT_INDEX,
                                      .indirect = features & VIRTIO_F_INDIRECT};
        model_init(&rig->drivers[i], &config);
        rig_enable(rig->virtio, i, &rig->drivers[i]);
    }
    rig_climb(rig->virtio, features);
    rig_require(rig_status(rig->virtio) == RIG_CLIMBED);
}

static inline void blk_rig_show(struct blk_rig *rig, unsigned queue)
{
    if (model_show(&rig->drivers[queue]))
        virtio_ring_doorbell(rig->virtio, queue);
}

/* Adds a request; its io is filled in. False: the queue is full. */
static inline bool blk_rig_add_parts(struct blk_rig *rig, unsigned queue,
                                     const struct model_part *parts, unsigned count)
{
    struct model_driver *driver = &rig->drivers[queue];
    rig_require(rig->io_count < BLK_RIG_TOKENS);
    int head = driver->config.indirect ? model_add_indirect(driver, parts, count, rig->io_count)
                                       : model_add(driver, parts, count, rig->io_count);
    if (head < 0)
        return false;
    rig->ios[rig->io_count++].queue = queue;
    return true;
}

/* The usual one, in two or three parts. bytes: what is written, or NULL. */
static inline struct blk_io *blk_rig_add(struct blk_rig *rig, unsigned queue, uint32_t type,
                                         uint64_t sector, const void *bytes, uint32_t length)
{
    struct model_driver *driver = &rig->drivers[queue];
    struct blk_io *io = &rig->ios[rig->io_count];
    struct blk_header header = {.type = type, .sector = sector};
    struct model_part parts[3] = {model_out(driver, &header, sizeof(header))};
    unsigned count = 1;

    *io = (struct blk_io){0};
    if (length)
        parts[count++] = io->data = bytes ? model_out(driver, bytes, length)
                                          : model_in(driver, length);
    parts[count++] = io->status = model_in(driver, 1);
    return blk_rig_add_parts(rig, queue, parts, count) ? io : NULL;
}

static inline void blk_rig_reap(struct blk_rig *rig)
{
    struct model_done done;

    for (unsigned i = 0; i < rig->virtio->queue_count; i++)
        while (model_reap(&rig->drivers[i], &done)) {
            struct blk_io *io = &rig->ios[done.token];
            rig_require(!io->done && io->queue == i);
            io->done = true;
            io->written = done.written;
            rig->done_count++;
        }
}

static inline bool blk_rig_want_interrupts(struct blk_rig *rig)
{
    bool came = false;
    for (unsigned i = 0; i < rig->virtio->queue_count; i++)
        came = model_want_interrupt(&rig->drivers[i], 1) || came;
    return came;
}

/* Until all that were added have come back. */
static inline void blk_rig_wait(struct blk_rig *rig)
{
    struct pollfd irq = {.fd = rig->irq, .events = POLLIN};
    uint64_t count;

    for (;;) {
        blk_rig_reap(rig);
        if (rig->done_count == rig->io_count)
            return;
        if (blk_rig_want_interrupts(rig))
            continue;
        if (poll(&irq, 1, BLK_PATIENCE_MS) != 1) {
            fprintf(stderr, "%u of %u requests came back\n", rig->done_count, rig->io_count);
            abort();
        }
        rig_require(read(rig->irq, &count, sizeof(count)) == sizeof(count));
    }
}

static inline uint8_t blk_rig_status(const struct blk_rig *rig, const struct blk_io *io)
{
    return *(uint8_t *)model_bytes(&rig->drivers[io->queue], io->status.gpa, 1);
}

static inline uint8_t *blk_rig_data(const struct blk_rig *rig, const struct blk_io *io)
{
    return model_bytes(&rig->drivers[io->queue], io->data.gpa, io->data.length);
}
