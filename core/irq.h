/* SPDX-License-Identifier: MIT */
/*
 * How a device interrupts: a line with a level, or a message (MSI). Who is at the other end is not
 * the device's business.
 */
#pragma once

#include "core/err.h"

/* The far end of lines: set_line is called under the lock of the device that owns the line. */
struct irq_chip {
    void (*set_line)(void *ctx, unsigned number, bool level);
    void *ctx;
};

/* One line, driven by one device, protected by that device's lock. */
struct irq_line {
    const struct irq_chip *chip;
    unsigned number;
    bool level; /* what the chip was told last */
};

void irq_line_init(struct irq_line *line, const struct irq_chip *chip, unsigned number);
void irq_line_set(struct irq_line *line, bool level); /* tells the chip only of changes */

/* Tells the chip the level even when nothing changed: after a restore, when the chip is a new one.
 */
void irq_line_renew(struct irq_line *line, bool level);

/* Where messages go: KVM's local APICs. (any thread) */
struct msi_sink {
    void (*send)(void *ctx, uint64_t address, uint32_t data);
    void *ctx;
};

void msi_send(const struct msi_sink *sink, uint64_t address, uint32_t data);

/*
 * A message with a place of its own in the machine's routing table: whoever writes to its eventfd
 * sends it, without a word to us (KVM's irqfd).
 */
struct msi_route {
    int fd;       /* -1: none */
    uint32_t gsi; /* its place */
};

struct msi_router {
    /* A place for a message that says nothing yet: a write to its fd is lost until set(). */
    int (*create)(void *ctx, struct msi_route *ret_route, struct err *err);
    void (*destroy)(void *ctx, struct msi_route *route); /* one with fd -1 is fine */
    /*
     * What the route sends from now on. Setting it to what it is costs nothing, a change costs KVM
     * a grace period. Call it before the first message that needs it. (any thread, any lock but
     * the interrupt chips' may be held)
     */
    void (*set)(void *ctx, struct msi_route *route, uint64_t address, uint32_t data);
    void *ctx;
};
