/* SPDX-License-Identifier: MIT */
/*
 * A disk for the guest (virtio 1.2, section 5.2). What a request is, and what becomes of it, is in
 * blk_request.c; how firmware comes to it without a ring, in blk_transfer.c.
 *
 * The way of a request: popped, its head marked in the state's `in_flight`; submitted to the disk,
 * all that wait with one kick; finished, in any order: status, push, unmarked. What the disk had at
 * hand is finished before the kick returns, so a cached read takes one turn of the loop, and the
 * interrupt is its only other cost.
 *
 * A mark without a request of ours is one from a state that was loaded, or one whose end came in a
 * pause: resume() submits it anew. Repeating is safe, because the buffers are the device's until
 * the push. A state is loaded into a device that was reset before, or else the host might still
 * write into guest memory for requests that the state does not know.
 *
 * A reset waits only for what the host has really begun: the rest is cancelled, and never happens.
 * A pause cancels nothing, for its requests go on.
 */
#include "core/clock.h"
#include "virtio/blk_parts.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    DEVICE_ID = 2,
    CLASS_STORAGE = 0x018000,

    BATCH = 32,         /* requests to one kick: the first ones need not wait for the last */
    BATCHES_A_TURN = 8, /* then other queues have theirs */
    BYTES_A_TURN = BLK_MAX_BYTES,
};

static struct blk *from_virtio(struct virtio *virtio)
{
    return container_of(virtio, struct blk, virtio);
}

/* --- serving -------------------------------------------------------------------------------- */

void blk_settle(struct blk *blk)
{
    for (unsigned queue = 0; blk->pushed; queue++, blk->pushed >>= 1)
        if (blk->pushed & 1)
            virtio_publish(&blk->virtio, queue);
    blk_count_ended(blk);
    if (blk->state.virtio.resetting && blk->under_way == 0)
        virtio_stop_done(&blk->virtio);
}

/* Takes in up to BATCH requests, and not many after the turn has its bytes. False: no more wait, or
 * the device is broken. */
static bool take_batch(struct blk *blk, unsigned queue, struct vring *ring)
{
    for (unsigned i = 0; i < BATCH && blk->taken_bytes < BYTES_A_TURN; i++) {
        struct vring_chain chain = {.iov = blk->segments, .capacity = BLK_MAX_SEGMENTS};
        int got = vring_pop(ring, &chain);
        if (got == 0)
            return false;
        if (got < 0 || !blk_take_in(blk, queue, &chain)) {
            virtio_break(&blk->virtio);
            return false;
        }
        blk->taken++;
    }
    return true;
}

static void serve(struct blk *blk, unsigned queue)
{
    struct virtio *virtio = &blk->virtio;
    struct vring *ring = virtio_ring(virtio, queue);

    for (unsigned i = 0; i < BATCHES_A_TURN && ring && blk->taken_bytes < BYTES_A_TURN; i++) {
        vring_disarm(ring);
        bool more = take_batch(blk, queue, ring);
        disk_kick(blk->disk);
        blk_settle(blk);
        ring = virtio_ring(virtio, queue);
        if (ring && !more && !vring_arm(ring))
            return;
    }
    if (ring)
        virtio_ring_doorbell(virtio, queue);
}

static void blk_notify(struct virtio *virtio, unsigned queue)
{
    struct blk *blk = from_virtio(virtio);

    blk->taken = 0;
    blk->taken_bytes = 0;
    blk->now_ns = clock_monotonic_ns();
    serve(blk, queue);
    pace_turn(&blk->pace, blk->taken, blk->now_ns);
}

/* What the disk finishes by itself. */
static void begin_batch(void *ctx)
{
    struct blk *blk = ctx;
    virtio_lock(&blk->virtio);
}

static void end_batch(void *ctx)
{
    struct blk *blk = ctx;
    blk_settle(blk);
    virtio_unlock(&blk->virtio);
}

static void handle_trouble(void *ctx, const char *sentence)
{
    const struct blk *blk = ctx;
    if (blk->config.trouble)
        blk->config.trouble(blk->config.ctx, sentence);
}

/* --- configuration -------------------------------------------------------------------------- */

static uint64_t features_of(const struct blk *blk)
{
    const struct disk_info *info = &blk->disk->info;
    uint64_t features = BLK_F_SEG_MAX | BLK_F_BLK_SIZE | BLK_F_FLUSH | BLK_F_TOPOLOGY |
                        BLK_F_CONFIG_WCE;

    if (blk->config.queues > 1)
        features |= BLK_F_MQ;
    if (info->readonly)
        return features | BLK_F_RO;
    return features | BLK_F_WRITE_ZEROES | (info->discard ? BLK_F_DISCARD : 0);
}

static uint8_t exponent_of(uint32_t blocks)
{
    uint8_t exponent = 0;

    while (blocks >> exponent > 1)
        exponent++;
    return exponent;
}

static struct blk_space describe(const struct blk *blk)
{
    const struct disk_info *info = &blk->disk->info;
    uint32_t optimal = info->optimal_size / info->block_size; /* blocks */
    struct blk_space space = {
        .capacity = htole64(info->size / BLK_SECTOR),
        .seg_max = htole32(BLK_MAX_SEGMENTS - 2), /* header and status */
        .blk_size = htole32(info->block_size),
        .physical_block_exp = exponent_of(optimal),
        .min_io_size = htole16((uint16_t)optimal),
        .writeback = !info->write_through,
        .num_queues = htole16((uint16_t)blk->config.queues),
    };

    if (info->readonly)
        return space;
    if (info->discard) {
        space.max_discard_sectors = htole32(BLK_MAX_DISCARD_SECTORS);
        space.max_discard_seg = htole32(BLK_MAX_RANGES);
        space.discard_sector_alignment = htole32(info->optimal_size / BLK_SECTOR);
    }
    space.max_write_zeroes_sectors = htole32(BLK_MAX_ZEROES_SECTORS);
    space.max_write_zeroes_seg = htole32(BLK_MAX_RANGES);
    space.write_zeroes_may_unmap = info->discard;
    return space;
}

static void blk_config_write(struct virtio *virtio, unsigned offset, unsigned width, uint64_t value)
{
    struct blk *blk = from_virtio(virtio);

    /* All else is for reading. */
    if (offset == offsetof(struct blk_space, writeback) && width == 1 &&
        virtio_has(virtio, BLK_F_CONFIG_WCE))
        blk->state.space.writeback = value & 1;
}

/* --- device --------------------------------------------------------------------------------- */

static void blk_start(struct virtio *virtio)
{
    /* A driver that cannot flush must not need to (5.2.5.2). */
    if (virtio_has(virtio, BLK_F_CONFIG_WCE) && !virtio_has(virtio, BLK_F_FLUSH))
        from_virtio(virtio)->state.space.writeback = 0;
}

static bool blk_stop(struct virtio *virtio)
{
    struct blk *blk = from_virtio(virtio);

    blk->state.space.writeback = describe(blk).writeback;
    if (blk->under_way)
        loop_post(virtio->loop, &blk->give_up); /* the disk is the loop's, and this is not it */
    return blk->under_way == 0;
}

/* The reset may have come to its end before, and another life begun. */
static void handle_give_up(void *arg)
{
    struct blk *blk = arg;

    virtio_lock(&blk->virtio);
    if (blk->state.virtio.resetting && blk->under_way) {
        disk_cancel(blk->disk);
        blk_settle(blk);
    }
    virtio_unlock(&blk->virtio);
}

/* Ends all that the host does for us, and tells nobody. */
static void forget(struct blk *blk)
{
    blk->forgetting = true;
    disk_cancel(blk->disk);
    disk_drain(blk->disk);
    blk->forgetting = false;
    assert(blk->under_way == 0);
}

static void blk_reset(struct virtio *virtio)
{
    struct blk *blk = from_virtio(virtio);

    forget(blk);
    blk_transfer_drop(blk);
    memset(blk->state.in_flight, 0, sizeof(blk->state.in_flight));
    blk->state.space = describe(blk);
    blk->pushed = 0;
}

/* A state that was loaded has as many heads marked as its ring counts in flight; or it lies. */
static bool marks_agree(const struct blk *blk, unsigned queue)
{
    const struct vring_state *ring = &blk->state.virtio.queues[queue];
    unsigned marked = 0;

    for (unsigned i = 0; i < BLK_HEAD_WORDS; i++)
        marked += (unsigned)__builtin_popcountll(blk->state.in_flight[queue * BLK_HEAD_WORDS + i]);
    return marked == (uint16_t)(ring->next_available - ring->next_used);
}

static void repeat(struct blk *blk, unsigned queue, unsigned head)
{
    struct vring *ring = virtio_ring(&blk->virtio, queue);
    struct vring_chain chain = {.iov = blk->segments, .capacity = BLK_MAX_SEGMENTS};

    blk->state.in_flight[blk_word_of(queue, head)] &= ~blk_bit_of(head);
    if (ring &&
        (vring_reopen(ring, (uint16_t)head, &chain) != 1 || !blk_take_in(blk, queue, &chain)))
        virtio_break(&blk->virtio);
}

static void repeat_queue(struct blk *blk, unsigned queue)
{
    if (virtio_ring(&blk->virtio, queue) && !marks_agree(blk, queue))
        virtio_break(&blk->virtio);
    for (unsigned head = 0; head < BLK_QUEUE_SIZE; head++)
        if ((blk->state.in_flight[blk_word_of(queue, head)] & blk_bit_of(head)) &&
            !blk_is_marked(blk, queue, head))
            repeat(blk, queue, head);
}

static void blk_resume(struct virtio *virtio)
{
    struct blk *blk = from_virtio(virtio);
    struct blk_space space = describe(blk);

    for (unsigned i = 0; i < array_size(blk->mine); i++)
        if (blk->mine[i] & ~blk->state.in_flight[i])
            forget(blk); /* loaded without a reset before */
    blk->now_ns = clock_monotonic_ns();
    for (unsigned queue = 0; queue < BLK_MAX_QUEUES; queue++)
        repeat_queue(blk, queue);
    disk_kick(blk->disk);
    blk_settle(blk);

    /* The disk is the host's, whatever the state says: it may have another size here. */
    space.writeback = blk->state.space.writeback;
    if (memcmp(&space, &blk->state.space, sizeof(space)) != 0) {
        blk->state.space = space;
        virtio_config_changed(virtio);
    }
}

static const struct virtio_ops ops = {
    .id = DEVICE_ID,
    .pci_class = CLASS_STORAGE,
    .start = blk_start,
    .notify = blk_notify,
    .stop = blk_stop,
    .config_write = blk_config_write,
    .resume = blk_resume,
    .reset = blk_reset,
};

static void blk_destroy(struct device *device)
{
    struct blk *blk = container_of(device, struct blk, virtio.device);

    if (blk->attached) {
        forget(blk);
        disk_detach(blk->disk);
    }
    virtio_finish(&blk->virtio);
    blk_transfer_finish(blk);
    blk_free_pool(blk);
    free(blk);
}

static const struct device_ops device_ops = {
    .reset = virtio_device_reset,
    .pause = virtio_device_pause,
    .resume = virtio_device_resume,
    .destroy = blk_destroy,
};

/* --- state ---------------------------------------------------------------------------------- */

static const struct state_field space_fields[] = {
    STATE_FIELD_U64(struct blk_space, capacity),
    STATE_FIELD_U32(struct blk_space, size_max),
    STATE_FIELD_U32(struct blk_space, seg_max),
    STATE_FIELD_U16(struct blk_space, cylinders),
    STATE_FIELD_U8(struct blk_space, heads),
    STATE_FIELD_U8(struct blk_space, sectors),
    STATE_FIELD_U32(struct blk_space, blk_size),
    STATE_FIELD_U8(struct blk_space, physical_block_exp),
    STATE_FIELD_U8(struct blk_space, alignment_offset),
    STATE_FIELD_U16(struct blk_space, min_io_size),
    STATE_FIELD_U32(struct blk_space, opt_io_size),
    STATE_FIELD_U8(struct blk_space, writeback, .max = 1),
    STATE_FIELD_U8(struct blk_space, unused0),
    STATE_FIELD_U16(struct blk_space, num_queues),
    STATE_FIELD_U32(struct blk_space, max_discard_sectors),
    STATE_FIELD_U32(struct blk_space, max_discard_seg),
    STATE_FIELD_U32(struct blk_space, discard_sector_alignment),
    STATE_FIELD_U32(struct blk_space, max_write_zeroes_sectors),
    STATE_FIELD_U32(struct blk_space, max_write_zeroes_seg),
    STATE_FIELD_U8(struct blk_space, write_zeroes_may_unmap),
    STATE_FIELD_U8(struct blk_space, unused1),
    STATE_FIELD_U32(struct blk_space, reserved),
};

static const struct state_table space_table = {
    .name = "virtio_blk_space",
    .version = 1,
    STATE_TABLE_OF(struct blk_space, space_fields),
};

static const struct state_field fields[] = {
    STATE_FIELD_TABLE(struct blk_state, virtio, struct virtio_state, &virtio_state_table),
    STATE_FIELD_TABLE(struct blk_state, space, struct blk_space, &space_table),
    STATE_FIELD_U64(struct blk_state, in_flight),
};

static const struct state_table table = {
    .name = "virtio-blk",
    .version = 1,
    STATE_TABLE_OF(struct blk_state, fields),
};

struct virtio *blk_virtio(struct blk *blk)
{
    return &blk->virtio;
}

int blk_create(struct blk **ret_blk, const struct virtio_world *world,
               const struct blk_config *config, struct err *err)
{
    assert(config->queues >= 1 && config->queues <= BLK_MAX_QUEUES);
    struct blk *blk = calloc(1, sizeof(*blk));
    if (!blk)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot make disk %s", config->name);
    blk->virtio.device = (struct device){.ops = &device_ops, .table = &table, .state = &blk->state};
    blk->config = *config;
    blk->disk = config->disk;
    blk->state.space = describe(blk);
    blk->give_up = (struct loop_call){.handle = handle_give_up, .arg = blk};
    blk_transfer_init(blk);

    const struct virtio_setup setup = {.ops = &ops,
                                       .world = world,
                                       .state = &blk->state.virtio,
                                       .features = features_of(blk),
                                       .config = &blk->state.space,
                                       .config_size = offsetof(struct blk_space, reserved),
                                       .queue_count = config->queues,
                                       .queue_size = BLK_QUEUE_SIZE,
                                       .own_thread = config->name};
    const struct disk_client client = {
        .begin = begin_batch, .end = end_batch, .trouble = handle_trouble, .ctx = blk};
    int ret = blk_make_pool(blk, err);
    if (ret == 0)
        ret = virtio_init(&blk->virtio, &setup, err);
    if (ret == 0)
        ret = disk_attach(blk->disk, blk->virtio.loop, &client, err);
    if (ret < 0) {
        blk_destroy(&blk->virtio.device);
        return ret;
    }
    blk->attached = true;
    *ret_blk = blk;
    return 0;
}
