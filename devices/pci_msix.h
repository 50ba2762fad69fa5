/* SPDX-License-Identifier: MIT */
/*
 * MSI-X (PCI Local Bus 3.0, 6.8.2): a table of messages in a BAR, each with a mask, and an array of
 * pending bits behind it.
 *
 * A message that is raised while it is masked, or while MSI-X as a whole is, becomes pending and is
 * sent when the mask goes. All functions need the function's lock, which also guards the table.
 */
#pragma once

#include "devices/pci.h"

enum { PCI_MSIX_MAX = 32 };

struct pci_msix_vector {
    uint64_t address;
    uint32_t data;
    uint32_t control; /* bit 0: masked */
};

struct pci_msix_state {
    struct pci_msix_vector vectors[PCI_MSIX_MAX];
    uint32_t pending;
    /*
     * Raised since the last resume. KVM may still have such a message in a work queue, where no
     * request shows it; so they are raised again at resume, once too often at the most.
     */
    uint32_t recent;
};

extern const struct state_table pci_msix_state_table; /* to be nested in the device's */

struct pci_msix {
    struct pci_function *function;
    struct pci_msix_state *state;
    const struct msi_router *router;
    unsigned count;
    unsigned capability; /* its offset in configuration space */
    uint32_t unset;      /* vectors whose route may not say yet what the table says */
    struct msi_route routes[PCI_MSIX_MAX];
};

/*
 * Adds the capability and a BAR for the table and the pending bits. Before the function is
 * attached. After an error pci_msix_finish() is fine.
 */
int pci_msix_init(struct pci_msix *msix, struct pci_function *function, unsigned bar,
                  unsigned count, struct pci_msix_state *state, const struct msi_router *router,
                  struct err *err) must_check;
void pci_msix_finish(struct pci_msix *msix); /* zeroed is fine */

void pci_msix_reset(struct pci_msix *msix);  /* every vector masked, nothing pending */
void pci_msix_resume(struct pci_msix *msix); /* routes as the state says; sends what is due */

bool pci_msix_enabled(const struct pci_msix *msix);
void pci_msix_raise(struct pci_msix *msix, unsigned vector); /* one that is not there: ignored */

/* From the owner's after_write: enable and mask of the function may have changed. */
void pci_msix_config_written(struct pci_msix *msix);
