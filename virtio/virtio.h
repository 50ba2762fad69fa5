/* SPDX-License-Identifier: MIT */
/*
 * What all virtio devices share (virtio 1.2, chapter 2): status, features, queues, reset, and how
 * the device is told of work. The transport (virtio_pci) turns the guest's register accesses into
 * the calls of the second half; a device (rng.c is the one to learn from) fills in a struct
 * virtio_ops and calls the functions of the first half.
 *
 * Locks and threads. Each device has one lock, taken by register handlers on vCPU threads, and by
 * the device's own loop around every handler of the device. So a virtio_op always runs with the
 * lock held, and never at the same time as another one. Slow devices (blk, net) have a loop on a
 * thread of their own (own_thread); the others live on the main loop. While a device is paused its
 * own thread stands still, and notify is not called.
 *
 * A guest that breaks a rule breaks its device: virtio_break() sets DEVICE_NEEDS_RESET, no queue is
 * served until the driver resets the device, and the machine lives on.
 */
#pragma once

#include "core/doorbell.h"
#include "core/loop.h"
#include "core/thread.h"
#include "devices/device.h"
#include "virtio/vring.h"

enum { VIRTIO_MAX_QUEUES = 20 };

/* Device status (2.1). */
enum {
    VIRTIO_ACKNOWLEDGE = 1,
    VIRTIO_DRIVER = 2,
    VIRTIO_DRIVER_OK = 4,
    VIRTIO_FEATURES_OK = 8,
    VIRTIO_NEEDS_RESET = 64,
    VIRTIO_FAILED = 128,
};

/* Feature bits of every device (chapter 6). Offered by virtio.c itself. */
#define VIRTIO_F_INDIRECT    (1ull << 28)
#define VIRTIO_F_EVENT_INDEX (1ull << 29)
#define VIRTIO_F_VERSION_1   (1ull << 32)

/* Part of each device's state. */
struct virtio_state {
    uint64_t features; /* what the driver has accepted */
    uint32_t queue_count;
    uint8_t status;
    uint8_t config_generation;
    bool resetting; /* the driver's reset waits for work under way */
    uint8_t reserved;
    struct vring_state queues[VIRTIO_MAX_QUEUES];
};

extern const struct state_table virtio_state_table; /* to be nested */

struct virtio;

/* Everything but notify may be NULL. All are called with the lock held. */
struct virtio_ops {
    uint16_t id; /* device id (chapter 5) */
    uint32_t pci_class;
    /* DRIVER_OK: features are settled, queues can be used. */
    void (*start)(struct virtio *virtio);
    /* The driver rang for this queue, or may have: serve it until it is empty. On the loop. */
    void (*notify)(struct virtio *virtio, unsigned queue);
    /*
     * The driver resets the device: back to the beginning, offers and settings too. False: work is
     * under way that touches guest memory; when that has ended the device calls
     * virtio_stop_done(). On a vCPU's thread; asked again at a resume that comes before that.
     */
    bool (*stop)(struct virtio *virtio);
    /* The driver wrote to the device's configuration space. On a vCPU's thread. */
    void (*config_write)(struct virtio *virtio, unsigned offset, unsigned width, uint64_t value);
    /* Before a read of it, for devices that bring it up to date only then. */
    void (*config_read)(struct virtio *virtio);
    /* Stops watching the host, and watches it again. Loop standing still, or its own thread. */
    void (*pause)(struct virtio *virtio);
    /* The state may have been loaded. Queues are open again; each is notified afterwards. */
    void (*resume)(struct virtio *virtio);
    /* Power-on, machine paused: like stop, but ends or forgets work under way before it returns. */
    void (*reset)(struct virtio *virtio);
};

/* How interrupts leave: filled in by the transport. Called with the lock held. */
struct virtio_transport {
    void (*queue_interrupt)(void *ctx, unsigned queue);
    void (*config_interrupt)(void *ctx);
    void (*unplug)(void *ctx); /* the device ends before its transport */
    void *ctx;
};

/* What the machine gives to every device. Outlives it. */
struct virtio_world {
    struct memory *memory;
    struct loop *loop; /* the main loop */
};

struct virtio_queue {
    struct virtio *virtio;
    unsigned index;
    uint16_t max_size;
    struct vring ring;
    int doorbell; /* eventfd */
    struct loop_io io;
};

/* The first member of every device's private struct. */
struct virtio {
    struct device device; /* filled in by the device's create: its ops and its table */
    const struct virtio_ops *ops;
    struct virtio_state *state; /* inside of the device's own */
    uint64_t offered;           /* features */
    void *config;               /* configuration space, little-endian; part of the device's state */
    size_t config_size;
    const struct virtio_world *world;
    const struct virtio_transport *transport; /* NULL until there is one */
    pthread_mutex_t lock;
    struct loop *loop;    /* where its handlers run: the main loop, or its own */
    struct thread thread; /* own_thread */
    bool running;         /* between resume and pause */
    bool parked;
    unsigned queue_count;
    struct virtio_queue queues[VIRTIO_MAX_QUEUES];
};

/* --- for devices ---------------------------------------------------------------------------- */

struct virtio_setup {
    const struct virtio_ops *ops;
    const struct virtio_world *world;
    struct virtio_state *state;
    uint64_t features; /* the device's own; those of every device are added */
    void *config;
    size_t config_size;
    unsigned queue_count;
    uint16_t queue_size;    /* most that a driver may choose: a power of two */
    const char *own_thread; /* its name; NULL: handlers run on the main loop */
};

/* After: paused, at power-on. virtio_finish(), paused too, takes what is zeroed or half-built. */
int virtio_init(struct virtio *virtio, const struct virtio_setup *setup,
                struct err *err) must_check;
void virtio_finish(struct virtio *virtio);

/* The device_ops of every virtio device, but destroy. */
void virtio_device_reset(struct device *device);
void virtio_device_pause(struct device *device);
void virtio_device_resume(struct device *device);

static inline void virtio_lock(struct virtio *virtio)
{
    pthread_mutex_lock(&virtio->lock);
}

static inline void virtio_unlock(struct virtio *virtio)
{
    pthread_mutex_unlock(&virtio->lock);
}

/* Features: what was negotiated (0 before FEATURES_OK). */
bool virtio_has(const struct virtio *virtio, uint64_t feature);

/* The ring of a queue that can be served now, or NULL: not enabled, device not started, paused or
 * broken. */
struct vring *virtio_ring(struct virtio *virtio, unsigned queue);

/* Publishes what was pushed and interrupts where the driver wants it. */
void virtio_publish(struct virtio *virtio, unsigned queue);

/* The device's configuration has changed: a new generation, and an interrupt for it. */
void virtio_config_changed(struct virtio *virtio);

/* The guest broke a rule (or the host left us no choice): DEVICE_NEEDS_RESET. */
void virtio_break(struct virtio *virtio);

/* The work that stop() said was under way has ended. */
void virtio_stop_done(struct virtio *virtio);

/* As if the driver had rung: handled on the device's loop, soon. (any thread) */
void virtio_ring_doorbell(struct virtio *virtio, unsigned queue);

/* --- for transports, with the lock held ------------------------------------------------------- */

uint32_t virtio_offered(const struct virtio *virtio, uint32_t word); /* features, 32 at a time */
uint32_t virtio_accepted(const struct virtio *virtio, uint32_t word);
void virtio_accept(struct virtio *virtio, uint32_t word, uint32_t bits);
uint8_t virtio_status(const struct virtio *virtio);
void virtio_set_status(struct virtio *virtio, uint8_t status);
uint64_t virtio_config_read(struct virtio *virtio, uint64_t offset, unsigned width);
void virtio_config_write(struct virtio *virtio, uint64_t offset, unsigned width, uint64_t value);

/* The queue's places, which the driver may set while it is not enabled; else the write is ignored.
 * NULL for a queue that is not there. */
struct vring_state *virtio_queue_state(struct virtio *virtio, unsigned queue);
bool virtio_queue_open_to_change(const struct virtio *virtio, unsigned queue);
void virtio_queue_enable(struct virtio *virtio, unsigned queue);
