/* SPDX-License-Identifier: MIT */
/* A ring between a model driver and a test that plays the device. */
#pragma once

#include "tests/unit/model_driver.h"
#include "tests/unit/unit.h"
#include <errno.h>

#define RIG_LOW  (1ull << 20) /* RAM below the hole */
#define RIG_HIGH (4ull << 30) /* where the rest of it begins */
#define RIG_SIZE (2ull << 20)
#define RIG_BASE 0x10000ull /* the driver's places */

struct rig {
    struct memory *memory;
    struct model_driver driver;
    struct vring_state state;
    struct vring ring;
    struct vring_chain chain;
    struct iovec iov[VRING_MAX_SIZE];
};

/* config.memory and .base are filled in. */
static inline void rig_init(struct rig *rig, struct model_config config)
{
    ck_assert_int_eq(memory_create(&rig->memory, RIG_SIZE, RIG_LOW, RIG_HIGH, NULL), 0);
    config.memory = rig->memory;
    config.base = RIG_BASE;
    if (config.buffer_bytes == 0)
        config.buffer_bytes = 1 << 16;
    model_init(&rig->driver, &config);
    rig->state = model_places(&rig->driver);
    rig->chain = (struct vring_chain){.iov = rig->iov, .capacity = VRING_MAX_SIZE};
    vring_init(&rig->ring, &rig->state, rig->memory);
    ck_assert_int_eq(vring_open(&rig->ring, config.event_index, config.indirect), 0);
}

static inline void rig_finish(struct rig *rig)
{
    vring_close(&rig->ring);
    memory_destroy(rig->memory);
}

static inline int rig_pop(struct rig *rig)
{
    return vring_pop(&rig->ring, &rig->chain);
}

/* A request of one writable byte, shown; true: the driver wants to tell. */
static inline bool rig_offer(struct rig *rig, uint64_t token)
{
    struct model_part part = model_in(&rig->driver, 1);

    ck_assert_int_ge(model_add(&rig->driver, &part, 1, token), 0);
    return model_show(&rig->driver);
}

static inline bool rig_push(struct rig *rig, uint32_t written)
{
    vring_push(&rig->ring, &rig->chain, written);
    return vring_publish(&rig->ring);
}

/* Nothing works any more, and nothing crashes. */
static inline void rig_expect_broken(struct rig *rig)
{
    struct vring_state before = rig->state;

    ck_assert(rig->ring.broken);
    ck_assert_int_eq(rig_pop(rig), -EPROTO);
    ck_assert_int_eq(vring_reopen(&rig->ring, 0, &rig->chain), -EPROTO);
    rig->chain.writable = 0;
    ck_assert(!rig_push(rig, 0));
    vring_unpop(&rig->ring, 1);
    vring_disarm(&rig->ring);
    ck_assert(!vring_arm(&rig->ring));
    ck_assert_uint_eq(vring_waiting(&rig->ring), 0);
    ck_assert(rig->ring.broken);
    ck_assert_mem_eq(&rig->state, &before, sizeof(before));
}
