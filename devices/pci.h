/* SPDX-License-Identifier: MIT */
/*
 * PCI: one bus, its host bridge at slot 0, and functions that plug into the other 31 slots.
 *
 * The guest reaches configuration space by ports 0xCF8/0xCFC and by ECAM (PCI Express enhanced
 * configuration, 4 KiB a function of which the first 256 bytes are there). At power-on every BAR
 * has an address in the 32-bit window and memory decoding is on, as a firmware would leave it; the
 * guest may move BARs, also into the 64-bit window, and size them.
 *
 * A function is embedded in its device, shares the device's lock, and keeps all that the guest can
 * see in a struct pci_state inside the device's state. All pci_function_* calls before attach are
 * of the creation; afterwards they need the function's lock, unless marked otherwise.
 *
 * Locks: a configuration access takes the function's lock, and nothing is held around that. Under
 * it, BARs are put on and taken from the bus of MMIO, which is allowed from handlers.
 */
#pragma once

#include "core/bus.h"
#include "core/irq.h"
#include "devices/device.h"
#include <pthread.h>

enum {
    PCI_SLOTS = 32,
    PCI_CONFIG_SIZE = 256,
    PCI_BARS = 6,
    PCI_INTX_LINES = 4, /* slot s, INTA: line s % 4 */
};

/* Offsets of the type 0 header that others need. */
enum {
    PCI_COMMAND = 0x04,
    PCI_COMMAND_MEMORY = 2,
    PCI_COMMAND_MASTER = 4,
    PCI_INTERRUPT_LINE = 0x3c,
    PCI_INTERRUPT_PIN = 0x3d,
};

struct pci_bus;
struct pci_function;

struct pci_window {
    uint64_t base, size; /* size 0: none */
};

struct pci_bus_config {
    struct bus *ports, *mmio;
    const struct irq_chip *intx;       /* lines 0..3; functions that share one are combined here */
    uint8_t intx_pins[PCI_INTX_LINES]; /* what the interrupt line register says: the GSI */
    uint64_t ecam;                     /* base of 256 MiB, of which bus 0 is there */
    struct pci_window low, high;       /* below 4 GiB, and above all RAM */
};

int pci_bus_create(struct pci_bus **ret_bus, const struct pci_bus_config *config,
                   struct err *err) must_check;
/* The host bridge and the address register at 0xCF8. Destroyed after all functions. */
struct device *pci_bus_device(struct pci_bus *bus);

/* What the guest can see and change of a function, but its device's own registers. */
struct pci_state {
    uint8_t config[PCI_CONFIG_SIZE];
};

/* To be nested in the device's table. A table does not know which bytes are read-only: resume puts
 * those right, whatever was loaded. */
extern const struct state_table pci_state_table;

struct pci_id {
    uint16_t vendor, device;
    uint16_t subsystem_vendor, subsystem;
    uint32_t class_code; /* class, subclass, interface: 24 bits */
    uint8_t revision;
};

struct pci_function_ops {
    /* A BAR was mapped at address, or unmapped. NULL: nothing to do. */
    void (*bar_changed)(struct pci_function *function, unsigned bar, bool mapped, uint64_t address);
    /* Before the bytes [offset, offset + width) are read: brings those up to date that are a
     * window to elsewhere. NULL: none are. */
    void (*before_read)(struct pci_function *function, unsigned offset, unsigned width);
    /* After they were written (masked bits only). NULL: nothing to do. */
    void (*after_write)(struct pci_function *function, unsigned offset, unsigned width);
};

struct pci_bar {
    uint64_t size; /* power of two, 16 or more; 0: not there */
    bool wide;     /* a 64-bit BAR, which takes the next one's place too */
    const struct bus_ops *ops;
    void *arg; /* for ops */
    bool mapped;
    uint64_t address; /* while mapped */
};

struct pci_function {
    struct pci_bus *bus;
    unsigned slot;
    bool attached;
    pthread_mutex_t *lock;
    const struct pci_function_ops *ops;
    void *owner; /* for ops */
    struct pci_state *state;
    uint8_t power_on[PCI_CONFIG_SIZE];
    uint8_t writable[PCI_CONFIG_SIZE]; /* bits that the guest may change */
    struct pci_bar bars[PCI_BARS];
    unsigned next_capability; /* where the next one goes */
    bool intx;                /* the level that the device drives */
};

/* Describes a function without BARs and capabilities. state, lock and ops outlive it. */
void pci_function_init(struct pci_function *function, const struct pci_id *id,
                       struct pci_state *state, pthread_mutex_t *lock,
                       const struct pci_function_ops *ops, void *owner);
/* BARs are memory; handlers get offsets from their BAR's base. */
void pci_function_add_bar(struct pci_function *function, unsigned index, uint64_t size, bool wide,
                          const struct bus_ops *ops, void *arg);
/*
 * Adds a capability: `bytes` begin after its two header bytes, `writable` (NULL: all read-only) has
 * the bits of them that the guest may change. Returns its offset in configuration space.
 */
unsigned pci_function_add_capability(struct pci_function *function, uint8_t id, const void *bytes,
                                     const void *writable, size_t length);

/* Plugs it in, at its power-on state. A slot that is taken, or a full window, is an error. */
int pci_function_attach(struct pci_function *function, struct pci_bus *bus, unsigned slot,
                        struct err *err) must_check;
void pci_function_detach(struct pci_function *function); /* one that was never attached is fine */

void pci_function_reset(struct pci_function *function); /* power-on state; device paused */
/* The state may have been loaded: BARs are mapped and the line is driven as it says. */
void pci_function_resume(struct pci_function *function);
/* Whether a loaded state differs from ours only where a guest could have changed it. */
bool pci_function_fits(const struct pci_function *function, const struct pci_state *state);

/* Drives INTA; takes care of the disable bit and the status bit. */
void pci_function_set_intx(struct pci_function *function, bool level);
