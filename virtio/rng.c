/* SPDX-License-Identifier: MIT */
/*
 * A source of randomness (virtio 1.2, section 5.4): the driver queues empty buffers, we fill them
 * from the host's getrandom().
 *
 * This is the file to read before writing a device, and it has the order that all of them have:
 * what it is, state, private struct, helpers, ops, state table, create. What makes it a virtio
 * device (status, features, queues, reset) it has from virtio.c; the registers that the guest sees
 * are the transport's. All functions in struct virtio_ops run under the device's lock.
 */
#include "virtio/rng.h"

#include "core/clock.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

enum {
    QUEUE = 0, /* the only one */
    QUEUE_SIZE = 64,
    CLASS_OTHER = 0x00ff00,

    /*
     * A turn of the loop serves so many requests and then lets others have theirs, or a guest that
     * never stops asking would keep the main loop. A request gets so many bytes of what it asked
     * for: one is all that 5.4.6.2 wants.
     */
    REQUESTS_A_TURN = 16,
    BYTES_A_REQUEST = 4096,
};

#define RETRY_NS (NS_PER_SEC / 10)

/* What the guest can see of the device. This one adds nothing to what all have. */
struct rng_state {
    struct virtio_state virtio;
};

struct rng {
    struct virtio virtio;
    struct rng_state state;
    struct loop_timer retry; /* armed while the host has no randomness for a waiting request */
};

static struct rng *from_virtio(struct virtio *virtio)
{
    return container_of(virtio, struct rng, virtio);
}

/* How many bytes of the request are random now; 0 when the host has none yet. */
static uint32_t fill(const struct vring_chain *chain)
{
    const struct iovec *iov = vring_writable(chain);
    uint32_t filled = 0;

    for (unsigned i = 0; i < chain->writable && filled < BYTES_A_REQUEST; i++) {
        size_t wanted = BYTES_A_REQUEST - filled;
        if (wanted > iov[i].iov_len)
            wanted = iov[i].iov_len;
        ssize_t got = getrandom(iov[i].iov_base, wanted, GRND_NONBLOCK);
        if (got > 0)
            filled += (uint32_t)got;
        if (got != (ssize_t)wanted)
            break;
    }
    return filled;
}

/* True while there may be more to do. */
static bool serve_one(struct rng *rng, struct vring *ring)
{
    struct iovec iov[QUEUE_SIZE]; /* no request has more segments than the queue has entries */
    struct vring_chain chain = {.iov = iov, .capacity = QUEUE_SIZE};
    int got = vring_pop(ring, &chain);

    if (got == 0)
        return vring_arm(ring);
    if (got < 0 || chain.writable_bytes == 0) { /* 5.4.6.1: there is nothing for us to read */
        virtio_break(&rng->virtio);
        return false;
    }
    uint32_t filled = fill(&chain);
    if (filled == 0) {
        vring_unpop(ring, 1);
        if (loop_timer_arm(&rng->retry, clock_monotonic_ns() + RETRY_NS) < 0)
            virtio_break(&rng->virtio);
        return false;
    }
    vring_push(ring, &chain, filled);
    return true;
}

static void rng_notify(struct virtio *virtio, unsigned queue)
{
    struct vring *ring = virtio_ring(virtio, queue);
    bool more = true;

    vring_disarm(ring); /* we look again by ourselves */
    for (unsigned i = 0; i < REQUESTS_A_TURN && more; i++)
        more = serve_one(from_virtio(virtio), ring);
    virtio_publish(virtio, queue);
    if (more)
        virtio_ring_doorbell(virtio, queue);
}

static void handle_retry(void *arg)
{
    struct rng *rng = arg;
    virtio_ring_doorbell(&rng->virtio, QUEUE);
}

/* Nothing is to do in resume(): each queue is notified then, and that arms the timer anew. */
static void rng_pause(struct virtio *virtio)
{
    loop_timer_cancel(&from_virtio(virtio)->retry);
}

static const struct virtio_ops ops = {
    .id = 4,
    .pci_class = CLASS_OTHER,
    .notify = rng_notify,
    .pause = rng_pause,
};

static void rng_destroy(struct device *device)
{
    struct rng *rng = container_of(device, struct rng, virtio.device);

    loop_timer_cancel(&rng->retry);
    virtio_finish(&rng->virtio);
    free(rng);
}

static const struct device_ops device_ops = {
    .reset = virtio_device_reset,
    .pause = virtio_device_pause,
    .resume = virtio_device_resume,
    .destroy = rng_destroy,
};

static const struct state_field fields[] = {
    STATE_FIELD_TABLE(struct rng_state, virtio, struct virtio_state, &virtio_state_table),
};

static const struct state_table table = {
    .name = "virtio-rng",
    .version = 1,
    STATE_TABLE_OF(struct rng_state, fields),
};

struct virtio *rng_virtio(struct rng *rng)
{
    return &rng->virtio;
}

int rng_create(struct rng **ret_rng, const struct virtio_world *world, struct err *err)
{
    struct rng *rng = calloc(1, sizeof(*rng));
    if (!rng)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot make the source of randomness");
    rng->virtio.device = (struct device){.ops = &device_ops, .table = &table, .state = &rng->state};
    loop_timer_init(&rng->retry, world->loop, handle_retry, rng);

    const struct virtio_setup setup = {.ops = &ops,
                                       .world = world,
                                       .state = &rng->state.virtio,
                                       .queue_count = 1,
                                       .queue_size = QUEUE_SIZE};
    int ret = virtio_init(&rng->virtio, &setup, err);
    if (ret < 0) {
        rng_destroy(&rng->virtio.device);
        return ret;
    }
    *ret_rng = rng;
    return 0;
}
