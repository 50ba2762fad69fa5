/* SPDX-License-Identifier: MIT */
/* What the unit tests and the fuzzer of core/state.c save and load. */
#pragma once

#include "core/state.h"
#include <errno.h>

/* A table with something of every kind, in its second version. */

struct sample_queue {
    uint64_t ring;
    uint16_t size;
    bool ready;
    uint8_t reserved;
    uint32_t head_count;
    uint16_t heads[4];
};

struct sample {
    uint32_t fifo_count;
    uint8_t fifo[16];
    uint8_t divisor;
    bool pending;
    uint16_t levels[3];
    uint32_t queue_count;
    struct sample_queue queues[2];
    uint64_t deadline_ns; /* since version 2 */
};

static int validate_queue(const void *state, struct err *err)
{
    const struct sample_queue *queue = state;

    if (queue->ready && queue->size == 0)
        return err_say(err, ERR_FAILED, EINVAL, "ready, but of size 0");
    return 0;
}

static const struct state_field queue_fields[] = {
    STATE_FIELD_U64(struct sample_queue, ring),
    STATE_FIELD_U16(struct sample_queue, size, .max = 256),
    STATE_FIELD_BOOL(struct sample_queue, ready),
    STATE_FIELD_BYTES(struct sample_queue, reserved),
    STATE_FIELD_U32(struct sample_queue, head_count),
    STATE_FIELD_U16(struct sample_queue, heads, .counted = true,
                    .count_offset = offsetof(struct sample_queue, head_count)),
};

static const struct state_table queue_table = {
    .name = "sample_queue",
    .version = 1,
    STATE_TABLE_OF(struct sample_queue, queue_fields),
    .validate = validate_queue,
};

static const struct state_field sample_fields[] = {
    STATE_FIELD_U32(struct sample, fifo_count),
    STATE_FIELD_BYTES(struct sample, fifo, .counted = true,
                      .count_offset = offsetof(struct sample, fifo_count)),
    STATE_FIELD_U8(struct sample, divisor, .min = 1, .max = 200),
    STATE_FIELD_BOOL(struct sample, pending),
    STATE_FIELD_U16(struct sample, levels, .max = 1000),
    STATE_FIELD_U32(struct sample, queue_count),
    STATE_FIELD_TABLE(struct sample, queues, struct sample_queue, &queue_table, .counted = true,
                      .count_offset = offsetof(struct sample, queue_count)),
    STATE_FIELD_U64(struct sample, deadline_ns, .since = 2, .fallback = 77),
};

static const struct state_table sample_table = {
    .name = "sample",
    .version = 2,
    STATE_TABLE_OF(struct sample, sample_fields),
};

static inline struct sample make_sample(void)
{
    return (struct sample){
        .fifo_count = 5,
        .fifo = "hello",
        .divisor = 12,
        .pending = true,
        .levels = {1, 20, 300},
        .queue_count = 2,
        .queues = {{.ring = 0x123456789a, .size = 256, .ready = true, .head_count = 1, {7}},
                   {.ring = 0x1000, .size = 8, .head_count = 4, .heads = {5, 6, 7, 8}}},
        .deadline_ns = 0x1122334455667788,
    };
}
