/* SPDX-License-Identifier: MIT */
/*
 * The machine's interrupt routing table: which message each of KVM's GSIs stands for.
 *
 * GSIs 0..23 are the I/O APIC's pins, there only while they are level-triggered (KVM reports the
 * end of an interrupt only for what it finds here). Those above are handed out to messages of
 * devices, each raised by its own eventfd (core/irq.h). KVM takes the table as a whole, and waits a
 * grace period for every new one: so nothing is sent that has not changed.
 *
 * All functions: any thread, also under the lock of a device or of the I/O APIC. Order of locks:
 * device, I/O APIC, this table.
 */
#pragma once

#include "core/irq.h"
#include "devices/ioapic.h"

struct routes;

int routes_create(struct routes **ret_routes, int vm, struct err *err) must_check;
void routes_destroy(struct routes *routes); /* after all devices, before the VM is closed */

const struct msi_router *routes_router(struct routes *routes);

/* The I/O APIC's level-triggered pins, all of them. */
void routes_set_ioapic(struct routes *routes, const struct ioapic_route *pins, unsigned count);

/*
 * KVM takes destination bits above the eighth in the upper half of the address. What a guest has
 * written there counts for nothing: with other bits set KVM would refuse the table as a whole.
 */
static inline uint64_t routes_address_for_kvm(uint64_t address)
{
    return (address & 0xfffff01f) | (address >> 5 & 0x7f) << 40;
}
