/* SPDX-License-Identifier: MIT */
/*
 * The shape of every device.
 *
 * A device is a private struct that begins with a `struct device`, one `static const` ops table and
 * one state table. All that the guest can see sits in one embedded state struct with fixed-width
 * fields and no pointers; host handles stay outside of it. Creating one registers its ranges on the
 * bus and leaves it paused, in its power-on state.
 *
 * Register handlers run on vCPU threads, timers and host input on the main loop: each device has a
 * mutex of its own, and takes no other device's lock but the interrupt chips' through its lines.
 *
 * A whole life: create, reset, resume, { pause, [state saved or loaded], resume | reset }, destroy.
 */
#pragma once

#include "core/err.h"
#include "core/state.h"

struct device;

struct device_ops {
    /* To power-on state, lines low. Paused only. */
    void (*reset)(struct device *device);
    /* After pause nothing in the state changes and no timer runs until resume. NULL: nothing to do.
     */
    void (*pause)(struct device *device);
    /* Starts timers and drives lines anew from the state, which may have been loaded just now. */
    void (*resume)(struct device *device);
    void (*destroy)(struct device *device); /* takes half-built ones */
};

struct device {
    const struct device_ops *ops;
    const struct state_table *table; /* names the device */
    void *state;
    uint32_t instance;
};

static inline void device_destroy(struct device *device)
{
    if (device)
        device->ops->destroy(device);
}

/* What a guest may ask of the machine as a whole. Called on a vCPU thread, returns at once. */
enum power_event {
    POWER_OFF = 1, /* ACPI S5 */
    POWER_RESET,   /* reset register, keyboard controller */
    POWER_EXIT,    /* the test-only exit port; code says with what */
};

struct power {
    void (*request)(void *ctx, enum power_event event, unsigned code);
    void *ctx;
};

static inline void power_request(const struct power *power, enum power_event event, unsigned code)
{
    power->request(power->ctx, event, code);
}
