/* SPDX-License-Identifier: MIT */
/*
 * A balloon (virtio 1.2, section 5.5): pages that the guest does without for as long as the host
 * wants them, statistics, and free page reporting.
 *
 * Which queue is which. The spec gives reporting the number 4; Linux numbers only the queues whose
 * features were negotiated, and finds it at 3 (or at 2, without statistics), because free page
 * hints are not offered here. Both are right with us: 2 is the statistics' queue if that feature
 * was negotiated, and every other from 2 on takes reports.
 *
 * Everything here is a hint to us, and the guest's word for it: a page that is named although it is
 * in use reads as zeroes afterwards, which hurts the guest and nobody else. What is not in RAM, not
 * a whole page, or more than a turn's share is skipped: then the host only has less.
 */
#include "virtio/balloon.h"

#include "core/clock.h"
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    INFLATE = 0, /* queues (5.5.2) */
    DEFLATE = 1,
    STATISTICS = 2,
    QUEUES = 5,
    QUEUE_SIZE = 128,
    CLASS_OTHER = 0x00ff00,

    /* A turn of the main loop; then others have theirs. A page costs a system call at worst. */
    REQUESTS_A_TURN = 16,
    PAGES_A_TURN = 4096,
    PAGES_A_REQUEST = 1024, /* of an inflate request; Linux sends 256 */

    STATS_A_REQUEST = 32,
};

/* Of reports; Linux sends at most 32 times 4 MiB in one. */
#define BYTES_A_REQUEST (1ull << 30)
#define BYTES_A_TURN    (1ull << 28)

#define FEATURE_STATISTICS (1ull << 1)
#define FEATURE_OOM        (1ull << 2) /* the driver may deflate when it runs out of memory */
#define FEATURE_REPORTING  (1ull << 5)

/* What the guest reads and writes (5.5.4): pages of 4 KiB. */
struct balloon_config {
    uint32_t target;
    uint32_t actual;
};

struct balloon_state {
    struct virtio_state virtio;
    struct balloon_config config;
    uint16_t stats_head; /* the request that waits for the host's next question... */
    bool stats_held;     /* ...if there is one */
    uint8_t reserved[5];
};

/* 5.5.6.4 */
struct wire_stat {
    uint16_t tag;
    uint64_t value;
} __attribute__((packed));

_Static_assert(sizeof(struct wire_stat) == 10, "the spec's layout");

struct balloon {
    struct virtio virtio;
    struct balloon_state state;
    bool target_untold; /* the guest hears of it at the resume */
    bool stats_wanted;
    struct balloon_stats stats;
    uint64_t reported;
};

static struct balloon *from_virtio(struct virtio *virtio)
{
    return container_of(virtio, struct balloon, virtio);
}

/* --- inflate -------------------------------------------------------------------------------- */

/* Pages that follow each other, up or down, are given back in one go. */
struct run {
    uint64_t first, count;
};

static bool in_ram(const struct memory *memory, uint64_t page)
{
    const struct memory_range *ranges;
    unsigned count = memory_ranges(memory, &ranges);

    for (unsigned i = 0; i < count; i++)
        if (page >= ranges[i].base / PAGE_SIZE &&
            page - ranges[i].base / PAGE_SIZE < ranges[i].size / PAGE_SIZE)
            return true;
    return false;
}

static void end_run(struct balloon *balloon, struct run *run)
{
    /* Where the host cannot take them back they stay the guest's: nothing is lost. */
    int ret = run->count ? memory_discard(balloon->virtio.world->memory, run->first * PAGE_SIZE,
                                          run->count * PAGE_SIZE)
                         : 0;
    (void)ret;
    run->count = 0;
}

static void add_page(struct balloon *balloon, struct run *run, uint64_t page)
{
    if (!in_ram(balloon->virtio.world->memory, page))
        return;
    if (run->count && page == run->first + run->count) {
        run->count++;
    } else if (run->count && page + 1 == run->first) {
        run->first--;
        run->count++;
    } else {
        end_run(balloon, run);
        *run = (struct run){.first = page, .count = 1};
    }
}

static void inflate(struct balloon *balloon, const struct vring_chain *chain, uint64_t *pages)
{
    uint32_t numbers[PAGES_A_REQUEST];
    struct run run = {0};
    size_t count = iov_read(chain->iov, chain->readable, 0, numbers, sizeof(numbers)) /
                   sizeof(numbers[0]);

    for (size_t i = 0; i < count; i++)
        add_page(balloon, &run, le32toh(numbers[i]));
    end_run(balloon, &run);
    *pages += count;
}

/* --- free page reporting -------------------------------------------------------------------- */

/* The guest's address of what was borrowed from its memory. */
static gpa_t guest_address(const struct memory *memory, const void *pointer)
{
    const struct memory_range *ranges;
    unsigned count = memory_ranges(memory, &ranges);
    uintptr_t at = (uintptr_t)pointer;

    for (unsigned i = 0; i < count; i++)
        if (at >= (uintptr_t)ranges[i].host && at - (uintptr_t)ranges[i].host < ranges[i].size)
            return ranges[i].base + (at - (uintptr_t)ranges[i].host);
    return UINT64_MAX;
}

static void take_report(struct balloon *balloon, const struct vring_chain *chain, uint64_t *pages)
{
    const struct iovec *iov = vring_writable(chain);
    struct memory *memory = balloon->virtio.world->memory;
    uint64_t left = BYTES_A_REQUEST;

    for (unsigned i = 0; i < chain->writable; i++) {
        uint64_t length = iov[i].iov_len;
        /* memory_discard() refuses what is not whole pages. */
        if (length > left ||
            memory_discard(memory, guest_address(memory, iov[i].iov_base), length) < 0)
            continue;
        left -= length;
        balloon->reported += length;
    }
    /* Long stretches cost less a page than single ones. */
    *pages += chain->writable + (BYTES_A_REQUEST - left) / (BYTES_A_TURN / PAGES_A_TURN);
}

/* --- statistics ----------------------------------------------------------------------------- */

static void take_stat(struct balloon_stats *stats, uint16_t tag, uint64_t value)
{
    uint64_t *const by_tag[] = {&stats->swap_in,      &stats->swap_out, &stats->major_faults,
                                &stats->minor_faults, &stats->free,     &stats->total,
                                &stats->available,    &stats->caches};

    if (tag < array_size(by_tag))
        *by_tag[tag] = value;
}

static void take_stats(struct balloon *balloon, const struct vring_chain *chain)
{
    struct wire_stat wire[STATS_A_REQUEST];
    struct balloon_stats stats;
    size_t count = iov_read(chain->iov, chain->readable, 0, wire, sizeof(wire)) / sizeof(wire[0]);

    memset(&stats, 0xff, sizeof(stats));
    for (size_t i = 0; i < count; i++)
        take_stat(&stats, le16toh(wire[i].tag), le64toh(wire[i].value));
    stats.at_ns = clock_monotonic_ns();
    balloon->stats = stats;
    balloon->stats_wanted = false;
}

static void return_stats(struct balloon *balloon, struct vring *ring)
{
    struct iovec none[1];

    vring_push(ring, &(struct vring_chain){.iov = none, .head = balloon->state.stats_head}, 0);
    balloon->state.stats_held = false;
}

/* The driver's answer is a request that stays with us; its return is our next question. */
static void hold_stats(struct balloon *balloon, struct vring *ring, const struct vring_chain *chain)
{
    struct balloon_state *state = &balloon->state;

    /* There should be one only; a second one takes the place of the first. */
    if (state->stats_held)
        return_stats(balloon, ring);
    take_stats(balloon, chain);
    state->stats_head = chain->head;
    state->stats_held = true;
}

static void ask_for_stats(struct balloon *balloon, struct vring *ring)
{
    if (!balloon->stats_wanted || !balloon->state.stats_held)
        return;
    return_stats(balloon, ring);
    balloon->stats_wanted = false;
    if (ring->broken)
        virtio_break(&balloon->virtio);
}

static bool is_statistics(const struct balloon *balloon, unsigned queue)
{
    return queue == STATISTICS && virtio_has(&balloon->virtio, FEATURE_STATISTICS);
}

/* --- queues --------------------------------------------------------------------------------- */

/* True while there may be more to do. */
static bool serve_one(struct balloon *balloon, unsigned queue, struct vring *ring, uint64_t *pages)
{
    struct iovec iov[QUEUE_SIZE];
    struct vring_chain chain = {.iov = iov, .capacity = QUEUE_SIZE};
    int got = vring_pop(ring, &chain);

    if (got == 0)
        return vring_arm(ring);
    if (got < 0) {
        virtio_break(&balloon->virtio);
        return false;
    }
    if (is_statistics(balloon, queue)) {
        hold_stats(balloon, ring, &chain);
        return true;
    }
    if (queue == INFLATE)
        inflate(balloon, &chain, pages);
    else if (queue != DEFLATE && virtio_has(&balloon->virtio, FEATURE_REPORTING))
        take_report(balloon, &chain, pages);
    /* Deflating is no work: a page that is touched again is there again. */
    vring_push(ring, &chain, 0);
    return true;
}

static void balloon_notify(struct virtio *virtio, unsigned queue)
{
    struct balloon *balloon = from_virtio(virtio);
    struct vring *ring = virtio_ring(virtio, queue);
    uint64_t pages = 0;
    bool more = true;

    vring_disarm(ring);
    for (unsigned i = 0; i < REQUESTS_A_TURN && pages < PAGES_A_TURN && more; i++)
        more = serve_one(balloon, queue, ring, &pages);
    if (is_statistics(balloon, queue))
        ask_for_stats(balloon, ring);
    virtio_publish(virtio, queue);
    if (more)
        virtio_ring_doorbell(virtio, queue);
}

/* --- what the host asks --------------------------------------------------------------------- */

/* The target is state at once, also of a device that stands still: whoever goes on from that state
 * wants the same of the guest. */
void balloon_set_target(struct balloon *balloon, uint64_t bytes)
{
    struct balloon_config *config = &balloon->state.config;
    uint64_t size = memory_size(balloon->virtio.world->memory);
    uint64_t pages = (bytes < size ? bytes : size) / PAGE_SIZE;
    uint32_t target = htole32(pages < UINT32_MAX ? (uint32_t)pages : UINT32_MAX);

    virtio_lock(&balloon->virtio);
    if (config->target != target) {
        config->target = target;
        if (balloon->virtio.running)
            virtio_config_changed(&balloon->virtio);
        else
            balloon->target_untold = true;
    }
    virtio_unlock(&balloon->virtio);
}

uint64_t balloon_target(struct balloon *balloon)
{
    virtio_lock(&balloon->virtio);
    uint64_t pages = le32toh(balloon->state.config.target);
    virtio_unlock(&balloon->virtio);
    return pages * PAGE_SIZE;
}

uint64_t balloon_actual(struct balloon *balloon)
{
    uint64_t size = memory_size(balloon->virtio.world->memory);

    virtio_lock(&balloon->virtio);
    uint64_t bytes = le32toh(balloon->state.config.actual) * PAGE_SIZE;
    virtio_unlock(&balloon->virtio);
    return bytes < size ? bytes : size;
}

uint64_t balloon_reported(struct balloon *balloon)
{
    virtio_lock(&balloon->virtio);
    uint64_t bytes = balloon->reported;
    virtio_unlock(&balloon->virtio);
    return bytes;
}

void balloon_stats(struct balloon *balloon, struct balloon_stats *ret_stats)
{
    virtio_lock(&balloon->virtio);
    *ret_stats = balloon->stats;
    balloon->stats_wanted = true;
    virtio_ring_doorbell(&balloon->virtio, STATISTICS);
    virtio_unlock(&balloon->virtio);
}

/* --- ops ------------------------------------------------------------------------------------ */

static void balloon_config_write(struct virtio *virtio, unsigned offset, unsigned width,
                                 uint64_t value)
{
    struct balloon_config *config = &from_virtio(virtio)->state.config;

    /* A field of 32 bits is written as a whole (2.5.3); the target is not the driver's. */
    if (offset == offsetof(struct balloon_config, actual) && width == sizeof(config->actual))
        config->actual = htole32((uint32_t)value);
}

/* A driver that begins anew has all its memory. The host's wish stands. */
static void forget_driver(struct balloon *balloon)
{
    balloon->state.config.actual = 0;
    balloon->state.stats_held = false;
    balloon->state.stats_head = 0;
    memset(&balloon->stats, 0, sizeof(balloon->stats));
}

static bool balloon_stop(struct virtio *virtio)
{
    forget_driver(from_virtio(virtio));
    return true;
}

static void balloon_resume(struct virtio *virtio)
{
    struct balloon *balloon = from_virtio(virtio);

    if (balloon->target_untold && virtio_ring(virtio, INFLATE)) /* else it looks when it begins */
        virtio_config_changed(virtio);
    balloon->target_untold = false;
}

/* What is loaded comes after a reset: whether its guest has heard of the target, nobody knows. */
static void balloon_reset(struct virtio *virtio)
{
    struct balloon *balloon = from_virtio(virtio);

    forget_driver(balloon);
    balloon->target_untold = true;
}

static const struct virtio_ops ops = {
    .id = 5,
    .pci_class = CLASS_OTHER,
    .notify = balloon_notify,
    .stop = balloon_stop,
    .config_write = balloon_config_write,
    .resume = balloon_resume,
    .reset = balloon_reset,
};

static void balloon_destroy(struct device *device)
{
    struct balloon *balloon = container_of(device, struct balloon, virtio.device);

    virtio_finish(&balloon->virtio);
    free(balloon);
}

static const struct device_ops device_ops = {
    .reset = virtio_device_reset,
    .pause = virtio_device_pause,
    .resume = virtio_device_resume,
    .destroy = balloon_destroy,
};

static const struct state_field fields[] = {
    STATE_FIELD_TABLE(struct balloon_state, virtio, struct virtio_state, &virtio_state_table),
    STATE_FIELD_U32(struct balloon_state, config.target),
    STATE_FIELD_U32(struct balloon_state, config.actual),
    STATE_FIELD_U16(struct balloon_state, stats_head, .max = VRING_MAX_SIZE - 1),
    STATE_FIELD_BOOL(struct balloon_state, stats_held),
    STATE_FIELD_BYTES(struct balloon_state, reserved),
};

static const struct state_table table = {
    .name = "virtio-balloon",
    .version = 1,
    STATE_TABLE_OF(struct balloon_state, fields),
};

struct virtio *balloon_virtio(struct balloon *balloon)
{
    return &balloon->virtio;
}

int balloon_create(struct balloon **ret_balloon, const struct virtio_world *world, struct err *err)
{
    struct balloon *balloon = calloc(1, sizeof(*balloon));
    if (!balloon)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot make the balloon");
    balloon->virtio.device = (struct device){
        .ops = &device_ops, .table = &table, .state = &balloon->state};

    const struct virtio_setup setup = {.ops = &ops,
                                       .world = world,
                                       .state = &balloon->state.virtio,
                                       .features = FEATURE_STATISTICS | FEATURE_OOM |
                                                   FEATURE_REPORTING,
                                       .config = &balloon->state.config,
                                       .config_size = sizeof(balloon->state.config),
                                       .queue_count = QUEUES,
                                       .queue_size = QUEUE_SIZE};
    int ret = virtio_init(&balloon->virtio, &setup, err);
    if (ret < 0) {
        balloon_destroy(&balloon->virtio.device);
        return ret;
    }
    *ret_balloon = balloon;
    return 0;
}
