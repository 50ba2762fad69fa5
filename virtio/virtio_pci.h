/* SPDX-License-Identifier: MIT */
/*
 * The PCI transport (virtio 1.2, section 4.1), modern devices only: vendor 1af4, device 1040h plus
 * the device's id. It is a device of its own in the machine's list, before the virtio device that
 * it carries: so it resumes first (routes and doorbells stand when the device begins to serve), and
 * pauses last.
 *
 * BAR 0 (64-bit, 16 KiB): 0000h common configuration, 1000h ISR, 2000h device configuration, 3000h
 * doorbells, four bytes a queue. BAR 2: MSI-X table. Doorbells are handed to KVM while their queue
 * is enabled and the BAR is mapped.
 */
#pragma once

#include "core/doorbell.h"
#include "devices/pci.h"
#include "devices/pci_msix.h"
#include "virtio/virtio.h"

struct virtio_pci;

struct virtio_pci_config {
    struct pci_bus *bus;
    unsigned slot;
    const struct msi_router *router;
    const struct doorbell_board *doorbells; /* NULL: every doorbell is an exit */
};

/*
 * What config points to outlives it; of virtio and transport either may be destroyed first. In the
 * state both have the slot as their instance.
 */
int virtio_pci_create(struct virtio_pci **ret_transport, const struct virtio_pci_config *config,
                      struct virtio *virtio, struct err *err) must_check;
struct device *virtio_pci_device(struct virtio_pci *transport);
