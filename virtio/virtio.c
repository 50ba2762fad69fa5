/* SPDX-License-Identifier: MIT */
/*
 * A driver brings its device up in steps (3.1.1), and each needs the one before:
 *
 *     ACKNOWLEDGE -> DRIVER -> FEATURES_OK -> DRIVER_OK
 *
 * FEATURES_OK is refused while the driver accepts what was not offered, or does without VERSION_1:
 * there are only modern devices here. Bits that a driver takes away stay: the one way back is the
 * reset, status 0.
 *
 * A device is live after DRIVER_OK until it is broken or reset. Exactly then the rings of its
 * enabled queues are open.
 *
 * A reset may have to wait for work that still touches guest memory (a disk read under way). The
 * status reads as it was until then, so a driver that follows 2.4.2 waits too, and all its writes
 * are ignored.
 *
 * Each queue has an eventfd for its doorbell. It is watched edge-triggered and never read: what
 * counts is that somebody wrote, not how often.
 */
#include "virtio/virtio.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* --- queues --------------------------------------------------------------------------------- */

static bool is_live(const struct virtio *virtio)
{
    const struct virtio_state *state = virtio->state;
    return (state->status & (VIRTIO_DRIVER_OK | VIRTIO_NEEDS_RESET)) == VIRTIO_DRIVER_OK &&
           !state->resetting;
}

bool virtio_has(const struct virtio *virtio, uint64_t feature)
{
    return (virtio->state->status & VIRTIO_FEATURES_OK) && (virtio->state->features & feature);
}

struct vring *virtio_ring(struct virtio *virtio, unsigned queue)
{
    if (queue >= virtio->queue_count || !virtio->running || !is_live(virtio) ||
        !virtio->state->queues[queue].enabled)
        return NULL;
    return &virtio->queues[queue].ring;
}

void virtio_publish(struct virtio *virtio, unsigned queue)
{
    struct vring *ring = virtio_ring(virtio, queue);
    if (ring && vring_publish(ring) && virtio->transport)
        virtio->transport->queue_interrupt(virtio->transport->ctx, queue);
}

void virtio_ring_doorbell(struct virtio *virtio, unsigned queue)
{
    uint64_t one = 1;
    if (queue >= virtio->queue_count)
        return;
    /* Fails only when the counter is full, and then it was rung a moment ago. */
    if (write(virtio->queues[queue].doorbell, &one, sizeof(one)) < 0)
        return;
}

static void handle_doorbell(void *arg, unsigned events)
{
    struct virtio_queue *queue = arg;
    struct virtio *virtio = queue->virtio;
    virtio_lock(virtio);
    /* What rings in a pause is not lost: resume rings for every queue. */
    if (virtio_ring(virtio, queue->index))
        virtio->ops->notify(virtio, queue->index);
    virtio_unlock(virtio);
}

static void open_ring(struct virtio *virtio, unsigned queue)
{
    if (vring_open(&virtio->queues[queue].ring, virtio_has(virtio, VIRTIO_F_EVENT_INDEX),
                   virtio_has(virtio, VIRTIO_F_INDIRECT)) < 0)
        virtio_break(virtio);
}

static void open_rings(struct virtio *virtio)
{
    for (unsigned i = 0; i < virtio->queue_count && is_live(virtio); i++)
        if (virtio->state->queues[i].enabled)
            open_ring(virtio, i);
}

static void close_rings(struct virtio *virtio)
{
    for (unsigned i = 0; i < virtio->queue_count; i++)
        vring_close(&virtio->queues[i].ring);
}

/* A driver may have filled its queues before anybody looked. */
static void ring_all(struct virtio *virtio)
{
    for (unsigned i = 0; i < virtio->queue_count; i++)
        if (virtio_ring(virtio, i))
            virtio_ring_doorbell(virtio, i);
}

struct vring_state *virtio_queue_state(struct virtio *virtio, unsigned queue)
{
    return queue < virtio->queue_count ? &virtio->state->queues[queue] : NULL;
}

bool virtio_queue_open_to_change(const struct virtio *virtio, unsigned queue)
{
    return queue < virtio->queue_count && !virtio->state->queues[queue].enabled &&
           !virtio->state->resetting;
}

void virtio_queue_enable(struct virtio *virtio, unsigned queue)
{
    if (!virtio_queue_open_to_change(virtio, queue))
        return;
    virtio->state->queues[queue].enabled = true;
    if (is_live(virtio)) { /* later than 3.1.1 has it, but nothing speaks against it */
        open_ring(virtio, queue);
        virtio_ring_doorbell(virtio, queue);
    }
}

/* --- status --------------------------------------------------------------------------------- */

static void config_interrupt(struct virtio *virtio)
{
    if ((virtio->state->status & VIRTIO_DRIVER_OK) && !virtio->state->resetting &&
        virtio->transport)
        virtio->transport->config_interrupt(virtio->transport->ctx);
}

void virtio_config_changed(struct virtio *virtio)
{
    virtio->state->config_generation++;
    config_interrupt(virtio);
}

void virtio_break(struct virtio *virtio)
{
    if (virtio->state->status & VIRTIO_NEEDS_RESET)
        return;
    virtio->state->status |= VIRTIO_NEEDS_RESET;
    config_interrupt(virtio); /* 2.1.2 */
}

static void set_power_on(struct virtio *virtio)
{
    *virtio->state = (struct virtio_state){.queue_count = virtio->queue_count};
    for (unsigned i = 0; i < virtio->queue_count; i++)
        virtio->state->queues[i].size = virtio->queues[i].max_size;
}

static void end_reset(struct virtio *virtio)
{
    /* A driver that compares generations across a reset shall not be fooled. */
    uint8_t generation = virtio->state->config_generation;
    close_rings(virtio);
    set_power_on(virtio);
    virtio->state->config_generation = generation;
}

static bool stop(struct virtio *virtio)
{
    return !virtio->ops->stop || virtio->ops->stop(virtio);
}

void virtio_stop_done(struct virtio *virtio)
{
    if (virtio->state->resetting)
        end_reset(virtio);
}

static bool features_agree(const struct virtio *virtio)
{
    uint64_t accepted = virtio->state->features;
    return !(accepted & ~virtio->offered) && (accepted & VIRTIO_F_VERSION_1);
}

static void go_live(struct virtio *virtio)
{
    open_rings(virtio);
    if (!is_live(virtio))
        return;
    if (virtio->ops->start)
        virtio->ops->start(virtio);
    ring_all(virtio);
}

static void climb(struct virtio *virtio, uint8_t wanted)
{
    static const uint8_t steps[] = {VIRTIO_ACKNOWLEDGE, VIRTIO_DRIVER, VIRTIO_FEATURES_OK,
                                    VIRTIO_DRIVER_OK};
    uint8_t *status = &virtio->state->status;
    for (unsigned i = 0; i < array_size(steps); i++) {
        if (*status & steps[i])
            continue;
        if (!(wanted & steps[i]) || (steps[i] == VIRTIO_FEATURES_OK && !features_agree(virtio)))
            return;
        *status |= steps[i];
        if (steps[i] == VIRTIO_DRIVER_OK)
            go_live(virtio);
    }
}

uint8_t virtio_status(const struct virtio *virtio)
{
    return virtio->state->status;
}

void virtio_set_status(struct virtio *virtio, uint8_t status)
{
    if (virtio->state->resetting)
        return;
    if (status) {
        virtio->state->status |= status & VIRTIO_FAILED;
        climb(virtio, status);
        return;
    }
    virtio->state->resetting = true; /* from here on no ring can be had */
    if (stop(virtio))
        end_reset(virtio);
}

/* --- features and configuration ------------------------------------------------------------- */

uint32_t virtio_offered(const struct virtio *virtio, uint32_t word)
{
    return word < 2 ? (uint32_t)(virtio->offered >> 32 * word) : 0;
}

uint32_t virtio_accepted(const struct virtio *virtio, uint32_t word)
{
    return word < 2 ? (uint32_t)(virtio->state->features >> 32 * word) : 0;
}

void virtio_accept(struct virtio *virtio, uint32_t word, uint32_t bits)
{
    struct virtio_state *state = virtio->state;
    if (word >= 2 || (state->status & VIRTIO_FEATURES_OK) || state->resetting)
        return;
    state->features &= ~(0xffffffffull << 32 * word);
    state->features |= (uint64_t)bits << 32 * word;
}

/* What lies beyond the end reads all ones. */
uint64_t virtio_config_read(struct virtio *virtio, uint64_t offset, unsigned width)
{
    uint64_t value = UINT64_MAX;
    if (offset >= virtio->config_size)
        return value;
    if (virtio->ops->config_read)
        virtio->ops->config_read(virtio);
    size_t left = virtio->config_size - offset;
    memcpy(&value, (const uint8_t *)virtio->config + offset, width < left ? width : left);
    return value;
}

void virtio_config_write(struct virtio *virtio, uint64_t offset, unsigned width, uint64_t value)
{
    if (!virtio->ops->config_write || virtio->state->resetting || offset >= virtio->config_size ||
        width > virtio->config_size - offset)
        return;
    virtio->ops->config_write(virtio, (unsigned)offset, width, value);
}

/* --- device verbs --------------------------------------------------------------------------- */

/* Every virtio device's struct begins with its struct virtio, and that with its struct device. */
static struct virtio *from_device(struct device *device)
{
    return container_of(device, struct virtio, device);
}

void virtio_device_reset(struct device *device)
{
    struct virtio *virtio = from_device(device);
    virtio_lock(virtio);
    if (virtio->ops->reset)
        virtio->ops->reset(virtio);
    close_rings(virtio);
    set_power_on(virtio);
    virtio_unlock(virtio);
}

void virtio_device_pause(struct device *device)
{
    struct virtio *virtio = from_device(device);
    /* Without the lock: the handler that the loop is in may be waiting for it. */
    if (virtio->thread.started && !virtio->parked) {
        loop_park(virtio->loop);
        virtio->parked = true;
    }
    virtio_lock(virtio);
    if (virtio->running && virtio->ops->pause)
        virtio->ops->pause(virtio);
    virtio->running = false;
    virtio_unlock(virtio);
}

/* Whether the state is one that a driver could have brought this very device into. */
static bool fits(const struct virtio *virtio)
{
    const struct virtio_state *state = virtio->state;
    if (state->queue_count != virtio->queue_count)
        return false;
    for (unsigned i = 0; i < virtio->queue_count; i++) {
        unsigned size = state->queues[i].size;
        if (size == 0 || (size & (size - 1)) != 0 || size > virtio->queues[i].max_size)
            return false;
    }
    return !(state->status & VIRTIO_FEATURES_OK) || features_agree(virtio);
}

/* A state from another device (more queues, features that this host lacks) breaks the device. */
static void make_fit(struct virtio *virtio)
{
    struct virtio_state old = *virtio->state;
    set_power_on(virtio);
    virtio->state->status = old.status & (uint8_t)~VIRTIO_NEEDS_RESET;
    virtio->state->config_generation = old.config_generation;
    virtio->state->resetting = old.resetting;
    virtio_break(virtio);
}

void virtio_device_resume(struct device *device)
{
    struct virtio *virtio = from_device(device);
    virtio_lock(virtio);
    virtio->running = true;
    close_rings(virtio);
    if (!fits(virtio))
        make_fit(virtio);
    open_rings(virtio);
    if (virtio->ops->resume)
        virtio->ops->resume(virtio);
    /* Elsewhere nothing may be under way that somebody could report the end of. */
    if (virtio->state->resetting && stop(virtio))
        end_reset(virtio);
    if (virtio->parked) {
        virtio->parked = false;
        loop_unpark(virtio->loop);
    }
    ring_all(virtio); /* a loop that is parked would be woken twice */
    virtio_unlock(virtio);
}

/* --- life ----------------------------------------------------------------------------------- */

static void run_own_loop(void *arg)
{
    struct virtio *virtio = arg;
    int ret = loop_run(virtio->loop);
    assert(ret == 0);
    (void)ret;
}

/* The thread runs from now on, but its loop stands still until the first resume. */
static int start_own_loop(struct virtio *virtio, const char *name, struct err *err)
{
    int ret = loop_create(&virtio->loop, err);
    if (ret < 0)
        return ret;
    loop_park(virtio->loop);
    virtio->parked = true;
    return thread_start(&virtio->thread, name, run_own_loop, virtio, err);
}

static int add_queue(struct virtio *virtio, uint16_t size, struct err *err)
{
    unsigned index = virtio->queue_count;
    struct virtio_queue *queue = &virtio->queues[index];
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0)
        return err_sys(err, ERR_HOST, errno, "cannot make a doorbell for queue %u", index);

    *queue = (struct virtio_queue){.virtio = virtio, .index = index, .max_size = size};
    queue->doorbell = fd;
    queue->io = (struct loop_io){
        .fd = fd, .events = LOOP_READ | LOOP_EDGE, .handle = handle_doorbell, .arg = queue};
    vring_init(&queue->ring, &virtio->state->queues[index], virtio->world->memory);
    int ret = loop_io_add(virtio->loop, &queue->io, err);
    if (ret < 0)
        close(fd);
    else
        virtio->queue_count++;
    return ret;
}

int virtio_init(struct virtio *virtio, const struct virtio_setup *setup, struct err *err)
{
    assert(setup->queue_count <= VIRTIO_MAX_QUEUES && setup->queue_size <= VRING_MAX_SIZE);
    pthread_mutex_init(&virtio->lock, NULL);
    virtio->ops = setup->ops;
    virtio->state = setup->state;
    virtio->world = setup->world;
    virtio->offered = setup->features | VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT |
                      VIRTIO_F_EVENT_INDEX;
    virtio->config = setup->config;
    virtio->config_size = setup->config_size;
    virtio->loop = setup->own_thread ? NULL : setup->world->loop;

    int ret = setup->own_thread ? start_own_loop(virtio, setup->own_thread, err) : 0;
    /* Before anything rings them; all of them together cost some microseconds. */
    for (unsigned i = 0; i < setup->queue_count && ret == 0; i++)
        ret = add_queue(virtio, setup->queue_size, err);
    if (ret == 0)
        set_power_on(virtio);
    return ret;
}

void virtio_finish(struct virtio *virtio)
{
    if (!virtio->ops)
        return;
    if (virtio->transport) {
        virtio_lock(virtio);
        virtio->transport->unplug(virtio->transport->ctx);
        virtio_unlock(virtio);
    }
    if (virtio->thread.started) {
        loop_stop(virtio->loop);
        if (virtio->parked)
            loop_unpark(virtio->loop);
        thread_join(&virtio->thread);
    }
    for (unsigned i = 0; i < virtio->queue_count; i++) {
        loop_io_remove(virtio->loop, &virtio->queues[i].io);
        close(virtio->queues[i].doorbell);
    }
    if (virtio->loop != virtio->world->loop)
        loop_destroy(virtio->loop);
    pthread_mutex_destroy(&virtio->lock);
    virtio->ops = NULL;
}

/* --- state ---------------------------------------------------------------------------------- */

static int validate(const void *object, struct err *err)
{
    const struct virtio_state *state = object;
    static const uint8_t ladders[] = {
        0,
        VIRTIO_ACKNOWLEDGE,
        VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER,
        VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK,
        VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK | VIRTIO_DRIVER_OK,
    };
    uint8_t steps = state->status & (uint8_t) ~(VIRTIO_NEEDS_RESET | VIRTIO_FAILED);
    for (unsigned i = 0; i < array_size(ladders); i++)
        if (steps == ladders[i])
            return 0;
    return err_say(err, ERR_FAILED, EBADMSG, "no driver can reach status 0x%02x", state->status);
}

static const struct state_field fields[] = {
    STATE_FIELD_U64(struct virtio_state, features),
    STATE_FIELD_U32(struct virtio_state, queue_count, .max = VIRTIO_MAX_QUEUES),
    STATE_FIELD_U8(struct virtio_state, status),
    STATE_FIELD_U8(struct virtio_state, config_generation),
    STATE_FIELD_BOOL(struct virtio_state, resetting),
    STATE_FIELD_U8(struct virtio_state, reserved),
    STATE_FIELD_TABLE(struct virtio_state, queues, struct vring_state, &vring_state_table,
                      .counted = true, .count_offset = offsetof(struct virtio_state, queue_count)),
};

const struct state_table virtio_state_table = {
    .name = "virtio",
    .version = 1,
    STATE_TABLE_OF(struct virtio_state, fields),
    .validate = validate,
};
