/* SPDX-License-Identifier: MIT */
/* What pci.c (the bus and the ways to it) and pci_function.c (what plugs into it) share. */
#pragma once

#include "devices/pci.h"

struct pci_bus_state {
    struct pci_state bridge;
    uint32_t address; /* CONFIG_ADDRESS */
    uint32_t reserved;
};

struct pci_bus {
    struct device device;
    pthread_mutex_t lock; /* the state */
    struct pci_bus_state state;
    struct pci_bus_config config;
    struct pci_function bridge;
    struct pci_function *functions[PCI_SLOTS];
    pthread_mutex_t intx_lock;
    uint32_t asserted[PCI_INTX_LINES]; /* which slots hold the line up */
    bool address_added, data_added, ecam_added;
};

/* Configuration space: any offset and width, function NULL for nobody. No lock is held. */
uint64_t pci_config_read(struct pci_function *function, unsigned offset, unsigned width);
void pci_config_write(struct pci_function *function, unsigned offset, unsigned width,
                      uint64_t value);

/*
 * Half a resume: the state may have been loaded, and what it contradicts (read-only bytes, BARs
 * that are on the bus elsewhere, the line) is put right. No BAR is mapped yet.
 */
void pci_function_take_state(struct pci_function *function);
