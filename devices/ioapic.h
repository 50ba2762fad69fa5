/* SPDX-License-Identifier: MIT */
/*
 * The I/O APIC: 24 pins, each of which becomes a message to KVM's local APICs.
 *
 * Levels are "asserted or not", never volts: whoever drives a pin has dealt with its polarity, and
 * the polarity bit of a pin is kept for the guest and otherwise ignored. (ACPI tables of real
 * machines call PCI interrupts active-low, and old systems assume so without reading them. Were the
 * bit obeyed, every idle line of theirs would interrupt.)
 *
 * KVM tells us of an EOI only for vectors that it finds in its GSI routing table as
 * level-triggered. So the routes of level-triggered pins have to be in that table before their
 * first message is sent: the listener is called for that, see below.
 *
 * Locks: the chip's own is held while messages are sent and the listener runs; devices call
 * set_line under theirs. ioapic_level_routes() takes an inner lock only. So a machine that guards
 * its routing table with a lock of its own has this order: device, chip, table, routes.
 *
 * All functions: any thread, unless said otherwise.
 */
#pragma once

#include "core/bus.h"
#include "core/irq.h"
#include "core/loop.h"
#include "devices/device.h"

enum { IOAPIC_PINS = 24 };

struct ioapic;

/* A level-triggered pin and its message, as KVM_IRQ_ROUTING_MSI wants it. */
struct ioapic_route {
    uint32_t pin;
    uint32_t data;
    uint64_t address;
};

/*
 * The level-triggered routes are no longer what they were at the last call (none before the first).
 * Called under the chip's lock, on the thread whose register write, reset or resume changed them:
 * calls never overlap, and the last one sees the last state. It may call ioapic_level_routes() and
 * nothing else of the ioapic.
 *
 * A pin that the guest masks keeps the route it had until it is unmasked as something else or turns
 * into an edge: its interrupt may still wait for its EOI, and threaded handlers mask and unmask for
 * every interrupt, while a new table costs KVM a grace period.
 */
struct ioapic_listener {
    void (*level_routes_changed)(void *ctx);
    void *ctx;
};

struct ioapic_config {
    uint64_t base; /* 0xfec00000 in a PC */
    /*
     * Destinations of 15 bits: entry bits 55:49 travel in address bits 11:5. Only for guests that
     * are told so in CPUID (KVM_FEATURE_MSI_EXT_DEST_ID), on a KVM with KVM_CAP_X2APIC_API.
     */
    bool extended_destinations;
    const struct msi_sink *sink;
    const struct ioapic_listener *listener;
    struct loop *loop; /* for the storm guard */
};

/* What config points to must outlive the ioapic. */
int ioapic_create(struct ioapic **ret_ioapic, struct bus *mmio, const struct ioapic_config *config,
                  struct err *err) must_check;

/* One level per pin; who shares a pin combines the levels before. Other numbers are ignored. */
void ioapic_set_line(struct ioapic *ioapic, unsigned pin, bool asserted);

/* The EOI of a level-triggered vector: KVM_EXIT_IOAPIC_EOI, on the vCPU's thread. */
void ioapic_end_of_interrupt(struct ioapic *ioapic, uint8_t vector);

/*
 * After a load: ends the interrupts whose vector no local APIC has any more (live has a bit for
 * each that one has, requested or in service). Paused only; resume then delivers what is due.
 */
void ioapic_settle(struct ioapic *ioapic, const uint32_t live[8]);

/* Fills ret_routes (room for IOAPIC_PINS) in order of pins, returns how many there are. */
unsigned ioapic_level_routes(struct ioapic *ioapic, struct ioapic_route *ret_routes);

struct device *ioapic_device(struct ioapic *ioapic);
