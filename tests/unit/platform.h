/* SPDX-License-Identifier: MIT */
/* What the tests of the PC platform's devices share: the world around a device, and chance. */
#pragma once

#include "core/bus.h"
#include "core/irq.h"
#include "devices/device.h"
#include <string.h>

/* The far end of interrupt lines. */
struct fake_chip {
    struct irq_chip chip;
    bool level[24];
    unsigned rises[24];
};

static inline void fake_chip_handle_line(void *ctx, unsigned number, bool level)
{
    struct fake_chip *fake = ctx;

    if (level && !fake->level[number])
        fake->rises[number]++;
    fake->level[number] = level;
}

static inline void fake_chip_init(struct fake_chip *fake)
{
    *fake = (struct fake_chip){.chip = {.set_line = fake_chip_handle_line, .ctx = fake}};
}

/* Who hears what the guest asks of the machine. */
struct fake_power {
    struct power power;
    unsigned requests;
    enum power_event event; /* the last one... */
    unsigned code;          /* ...and its code */
};

static inline void fake_power_handle_request(void *ctx, enum power_event event, unsigned code)
{
    struct fake_power *fake = ctx;

    fake->requests++;
    fake->event = event;
    fake->code = code;
}

static inline void fake_power_init(struct fake_power *fake)
{
    *fake = (struct fake_power){.power = {.request = fake_power_handle_request, .ctx = fake}};
}

/* Chance that repeats itself (xorshift64). */
static inline uint64_t chance(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

static inline size_t field_width(const struct state_field *field)
{
    return field->kind == STATE_U64   ? 8
           : field->kind == STATE_U32 ? 4
           : field->kind == STATE_U16 ? 2
                                      : 1;
}

/*
 * Fills a paused device's state with numbers that its table would let in, which is all that a
 * hostile sender can achieve. Flat tables only. The caller asks state_check() for what validate()
 * says.
 */
static inline void fill_state(const struct device *device, uint64_t *seed)
{
    for (size_t i = 0; i < device->table->field_count; i++) {
        const struct state_field *field = &device->table->fields[i];
        uint64_t max = field->kind == STATE_BOOL ? 1 : field->max;
        for (size_t j = 0; j < field->count; j++) {
            uint64_t value = chance(seed) >> 3;
            value = max ? value % (max + 1) : value;
            memcpy((uint8_t *)device->state + field->offset + j * field_width(field), &value,
                   field_width(field));
        }
    }
}
