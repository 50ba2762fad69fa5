/* SPDX-License-Identifier: MIT */
/* A PCI bus with toy functions, for the tests and the fuzzer of what hangs on it. */
#pragma once

#include "devices/pci.h"
#include "tests/unit/platform.h"

#define TOY_ECAM     0xe0000000ull
#define TOY_LOW      0xc0000000ull
#define TOY_LOW_SIZE 0x20000000ull
#define TOY_HIGH     0x800000000ull /* as large again */

enum { TOYS = 3, TOY_WIDE = 0, TOY_NARROW = 2, TOY_WIDE_SIZE = 0x4000, TOY_NARROW_SIZE = 0x1000 };

struct toy;

struct toy_bar {
    struct toy *toy;
    uint8_t number;
};

/* Reads of its BARs say whose they are: 0x<toy><bar>00 plus the lowest byte of the offset. */
struct toy {
    pthread_mutex_t lock;
    struct pci_state state;
    struct pci_function function;
    struct toy_bar bars[PCI_BARS];
    unsigned index;
    unsigned mapped, unmapped, writes; /* how often it was told */
    unsigned written_at, written_width;
    uint8_t window; /* what before_read puts into the capability */
    unsigned capability;
};

static inline uint64_t toy_handle_read(void *arg, uint64_t offset, unsigned width)
{
    const struct toy_bar *bar = arg;
    return bar->toy->index << 12 | (unsigned)bar->number << 8 | (offset & 0xff);
}

static inline void toy_handle_write(void *arg, uint64_t offset, unsigned width, uint64_t value)
{
}

static const struct bus_ops toy_bar_ops = {
    .name = "toy", .max_width = 4, .read = toy_handle_read, .write = toy_handle_write};

static inline void toy_handle_bar(struct pci_function *function, unsigned bar, bool mapped,
                                  uint64_t address)
{
    struct toy *toy = function->owner;

    toy->mapped += mapped;
    toy->unmapped += !mapped;
}

static inline void toy_before_read(struct pci_function *function, unsigned offset, unsigned width)
{
    struct toy *toy = function->owner;

    toy->state.config[toy->capability + 2] = toy->window;
}

static inline void toy_after_write(struct pci_function *function, unsigned offset, unsigned width)
{
    struct toy *toy = function->owner;

    toy->writes++;
    toy->written_at = offset;
    toy->written_width = width;
}

static const struct pci_function_ops toy_ops = {
    .bar_changed = toy_handle_bar, .before_read = toy_before_read, .after_write = toy_after_write};

static inline void toy_init(struct toy *toy, unsigned index)
{
    static const uint8_t contents[4] = {1, 2, 3, 4}, writable[4] = {0, 0, 0x0f, 0};
    const struct pci_id id = {
        .vendor = 0x1af4,
        .device = (uint16_t)(0x1040 + index),
        .subsystem_vendor = 0x1234,
        .subsystem = 0x5678,
        .class_code = 0x010000,
        .revision = 1,
    };

    *toy = (struct toy){.index = index, .window = 1};
    pthread_mutex_init(&toy->lock, NULL);
    pci_function_init(&toy->function, &id, &toy->state, &toy->lock, &toy_ops, toy);
    for (uint8_t i = 0; i < PCI_BARS; i++)
        toy->bars[i] = (struct toy_bar){toy, i};
    pci_function_add_bar(&toy->function, TOY_WIDE, TOY_WIDE_SIZE, true, &toy_bar_ops,
                         &toy->bars[TOY_WIDE]);
    pci_function_add_bar(&toy->function, TOY_NARROW, TOY_NARROW_SIZE, false, &toy_bar_ops,
                         &toy->bars[TOY_NARROW]);
    toy->capability = pci_function_add_capability(&toy->function, 0x09, contents, writable,
                                                  sizeof(contents));
}

static inline void toy_finish(struct toy *toy)
{
    pthread_mutex_lock(&toy->lock);
    pci_function_detach(&toy->function);
    pthread_mutex_unlock(&toy->lock);
    pthread_mutex_destroy(&toy->lock);
}

static inline void toy_reset(struct toy *toy)
{
    pthread_mutex_lock(&toy->lock);
    pci_function_reset(&toy->function);
    pthread_mutex_unlock(&toy->lock);
}

static inline void toy_resume(struct toy *toy)
{
    pthread_mutex_lock(&toy->lock);
    pci_function_resume(&toy->function);
    pthread_mutex_unlock(&toy->lock);
}

static inline void toy_set_intx(struct toy *toy, bool level)
{
    pthread_mutex_lock(&toy->lock);
    pci_function_set_intx(&toy->function, level);
    pthread_mutex_unlock(&toy->lock);
}

static inline uint64_t toy_bar_wants(const struct toy *toy, unsigned bar)
{
    uint64_t address = 0;

    memcpy(&address, toy->state.config + 0x10 + 4 * bar, toy->function.bars[bar].wide ? 8 : 4);
    return address & ~(toy->function.bars[bar].size - 1);
}

static inline bool toy_place_is_good(const struct toy *toy, unsigned bar)
{
    uint64_t at = toy_bar_wants(toy, bar);

    return (toy->state.config[PCI_COMMAND] & PCI_COMMAND_MEMORY) &&
           ((at >= TOY_LOW && at < TOY_LOW + TOY_LOW_SIZE) ||
            (at >= TOY_HIGH && at < TOY_HIGH + TOY_LOW_SIZE));
}

static inline bool toy_overlaps(const struct pci_bar *bar, uint64_t address, uint64_t size)
{
    return bar->mapped && bar->address < address + size && address < bar->address + bar->size;
}

/* Each BAR is on the bus where it says, or has no good place, or another one has it: one of the
 * toys', or `other` where that is not NULL. */
static inline bool toys_wait_for_a_reason(const struct toy toys[TOYS], const struct pci_bar *other)
{
    for (unsigned i = 0; i < TOYS * PCI_BARS; i++) {
        const struct toy *toy = &toys[i / PCI_BARS];
        const struct pci_bar *bar = &toy->function.bars[i % PCI_BARS];
        uint64_t at = bar->size ? toy_bar_wants(toy, i % PCI_BARS) : 0;
        bool good = bar->size && toy_place_is_good(toy, i % PCI_BARS);
        bool reason = !good || (other && toy_overlaps(other, at, bar->size));
        if (bar->mapped && (!good || bar->address != at))
            return false;
        for (unsigned j = 0; j < TOYS * PCI_BARS; j++)
            reason |= toy_overlaps(&toys[j / PCI_BARS].function.bars[j % PCI_BARS], at, bar->size);
        if (!reason)
            return false;
    }
    return true;
}

static inline struct pci_bus_config toy_bus_config(struct bus *ports, struct bus *mmio,
                                                   const struct irq_chip *chip)
{
    return (struct pci_bus_config){
        .ports = ports,
        .mmio = mmio,
        .intx = chip,
        .intx_pins = {16, 17, 18, 19},
        .ecam = TOY_ECAM,
        .low = {TOY_LOW, TOY_LOW_SIZE},
        .high = {TOY_HIGH, TOY_LOW_SIZE},
    };
}
