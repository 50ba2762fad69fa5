/* SPDX-License-Identifier: MIT */
/*
 * A function: its configuration space (PCI Local Bus 3.0, chapter 6), BARs and interrupt line.
 *
 * A BAR is on the bus of MMIO while memory decoding is on and it lies inside a window: a BAR over
 * RAM would never be seen by us, so it is nowhere. Of two BARs that overlap, the one that came
 * first is there. When it leaves, the other takes its place: every write that takes a BAR away is
 * followed by a round over all functions, one lock at a time, in which each maps what it could not
 * map before. So a guest that swaps two BARs with decoding on ends as it should, by way of a moment
 * with one of them missing.
 *
 * Locks: the function's, then that of the interrupt lines, then the interrupt chip's.
 */
#include "devices/pci_parts.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

/* The type 0 header (6.1). */
enum {
    VENDOR = 0x00,
    DEVICE = 0x02,
    COMMAND_HIGH = 0x05,
    COMMAND_INTX_DISABLE = 4, /* bit 10 of the whole */
    STATUS = 0x06,
    STATUS_INTERRUPT = 1 << 3,
    STATUS_CAPABILITIES = 1 << 4,
    REVISION = 0x08,
    BAR_0 = 0x10,
    BAR_WIDE = 4,
    SUBSYSTEM_VENDOR = 0x2c,
    SUBSYSTEM = 0x2e,
    CAPABILITIES = 0x34,
    PIN_INTA = 1,
    FIRST_CAPABILITY = 0x40,
};

static uint16_t get16(const uint8_t *at)
{
    return (uint16_t)(at[0] | at[1] << 8);
}

static uint32_t get32(const uint8_t *at)
{
    return get16(at) | (uint32_t)get16(at + 2) << 16;
}

static void put16(uint8_t *at, uint16_t value)
{
    at[0] = (uint8_t)value;
    at[1] = (uint8_t)(value >> 8);
}

static void put32(uint8_t *at, uint32_t value)
{
    put16(at, (uint16_t)value);
    put16(at + 2, (uint16_t)(value >> 16));
}

static unsigned bar_at(unsigned index)
{
    return BAR_0 + 4 * index;
}

/* --- BARs on the bus ---------------------------------------------------------------------- */

static bool holds(const struct pci_window *window, uint64_t address, uint64_t size)
{
    return size <= window->size && address >= window->base &&
           address - window->base <= window->size - size;
}

static uint64_t bar_address(const struct pci_function *function, const uint8_t *config,
                            unsigned index)
{
    const struct pci_bar *bar = &function->bars[index];
    uint64_t address = get32(config + bar_at(index));

    if (bar->wide)
        address |= (uint64_t)get32(config + bar_at(index + 1)) << 32;
    return address & ~(bar->size - 1);
}

/* Whether the BAR belongs on the bus, and where. */
static bool wants_place(const struct pci_function *function, unsigned index, uint64_t *ret_address)
{
    const struct pci_bus_config *config = &function->bus->config;
    uint64_t size = function->bars[index].size;

    if (!size || !(function->state->config[PCI_COMMAND] & PCI_COMMAND_MEMORY))
        return false;
    uint64_t address = bar_address(function, function->state->config, index);
    if (!holds(&config->low, address, size) && !holds(&config->high, address, size))
        return false;
    *ret_address = address;
    return true;
}

static void tell_bar_changed(struct pci_function *function, unsigned index)
{
    const struct pci_bar *bar = &function->bars[index];

    if (function->ops && function->ops->bar_changed)
        function->ops->bar_changed(function, index, bar->mapped, bar->address);
}

static void unmap_bar(struct pci_function *function, unsigned index)
{
    struct pci_bar *bar = &function->bars[index];

    /* The device first: its doorbells stand in front of the bus, and would swallow those of another
     * function that gets the place in the same moment. */
    bar->mapped = false;
    tell_bar_changed(function, index);
    bus_remove(function->bus->config.mmio, bar->address);
}

/* Takes BARs off the bus that are not where they belong. True when there were any. */
static bool unmap_stale_bars(struct pci_function *function)
{
    bool changed = false;

    for (unsigned i = 0; i < PCI_BARS; i++) {
        uint64_t address;
        if (!function->bars[i].mapped)
            continue;
        if (wants_place(function, i, &address) && address == function->bars[i].address)
            continue;
        unmap_bar(function, i);
        changed = true;
    }
    return changed;
}

/* Puts BARs on the bus whose place is free. */
static void map_wanted_bars(struct pci_function *function)
{
    for (unsigned i = 0; i < PCI_BARS; i++) {
        struct pci_bar *bar = &function->bars[i];
        uint64_t address;
        if (bar->mapped || !wants_place(function, i, &address))
            continue;
        if (bus_add(function->bus->config.mmio, address, bar->size, bar->ops, bar->arg, NULL) < 0)
            continue;
        bar->mapped = true;
        bar->address = address;
        tell_bar_changed(function, i);
    }
}

/* A BAR has left: whoever waited for its place takes it. No function's lock is held. */
static void map_waiting_bars(struct pci_bus *bus)
{
    for (unsigned slot = 0; slot < PCI_SLOTS; slot++) {
        struct pci_function *function = bus->functions[slot];
        if (!function)
            continue;
        pthread_mutex_lock(function->lock);
        map_wanted_bars(function);
        pthread_mutex_unlock(function->lock);
    }
}

/* --- interrupt lines ---------------------------------------------------------------------- */

static unsigned intx_line(const struct pci_function *function)
{
    return function->slot % PCI_INTX_LINES;
}

static void set_status_interrupt(struct pci_function *function)
{
    uint8_t *status = &function->state->config[STATUS];

    *status = (uint8_t)((*status & ~STATUS_INTERRUPT) | (function->intx ? STATUS_INTERRUPT : 0));
}

/* The function's share of its line: the bit that it holds in the OR of all. */
static void drive_line(struct pci_function *function, bool renew)
{
    struct pci_bus *bus = function->bus;
    const struct irq_chip *chip = bus->config.intx;
    uint32_t *asserted = &bus->asserted[intx_line(function)];
    uint32_t bit = 1u << function->slot;
    bool level = function->intx && !(function->state->config[COMMAND_HIGH] & COMMAND_INTX_DISABLE);

    pthread_mutex_lock(&bus->intx_lock);
    bool was = *asserted != 0;
    *asserted = level ? *asserted | bit : *asserted & ~bit;
    if (renew || was != (*asserted != 0))
        chip->set_line(chip->ctx, intx_line(function), *asserted != 0);
    pthread_mutex_unlock(&bus->intx_lock);
}

void pci_function_set_intx(struct pci_function *function, bool level)
{
    function->intx = level;
    set_status_interrupt(function);
    if (function->bus)
        drive_line(function, false);
}

/* --- configuration space ------------------------------------------------------------------ */

/* How much of an access lies in the 256 bytes that are there; the rest reads as 0. */
static unsigned clip(unsigned offset, unsigned width)
{
    if (offset >= PCI_CONFIG_SIZE)
        return 0;
    return width < PCI_CONFIG_SIZE - offset ? width : PCI_CONFIG_SIZE - offset;
}

uint64_t pci_config_read(struct pci_function *function, unsigned offset, unsigned width)
{
    uint64_t value = 0;

    if (!function)
        return UINT64_MAX;
    width = clip(offset, width);
    if (!width)
        return 0;
    pthread_mutex_lock(function->lock);
    if (function->ops && function->ops->before_read)
        function->ops->before_read(function, offset, width);
    for (unsigned i = 0; i < width; i++)
        value |= (uint64_t)function->state->config[offset + i] << 8 * i;
    pthread_mutex_unlock(function->lock);
    return value;
}

void pci_config_write(struct pci_function *function, unsigned offset, unsigned width,
                      uint64_t value)
{
    if (!function)
        return;
    width = clip(offset, width);
    if (!width)
        return;
    pthread_mutex_lock(function->lock);
    for (unsigned i = 0; i < width; i++) {
        uint8_t *byte = &function->state->config[offset + i];
        uint8_t writable = function->writable[offset + i];
        *byte = (uint8_t)((*byte & ~writable) | ((value >> 8 * i) & writable));
    }
    bool unmapped = unmap_stale_bars(function);
    map_wanted_bars(function);
    drive_line(function, false);
    if (function->ops && function->ops->after_write)
        function->ops->after_write(function, offset, width);
    pthread_mutex_unlock(function->lock);
    if (unmapped)
        map_waiting_bars(function->bus);
}

/* --- a function's description ------------------------------------------------------------- */

void pci_function_init(struct pci_function *function, const struct pci_id *id,
                       struct pci_state *state, pthread_mutex_t *lock,
                       const struct pci_function_ops *ops, void *owner)
{
    uint8_t *config = function->power_on, *writable = function->writable;

    *function = (struct pci_function){
        .lock = lock,
        .ops = ops,
        .owner = owner,
        .state = state,
        .next_capability = FIRST_CAPABILITY,
    };
    put16(config + VENDOR, id->vendor);
    put16(config + DEVICE, id->device);
    put32(config + REVISION, id->class_code << 8 | id->revision);
    put16(config + SUBSYSTEM_VENDOR, id->subsystem_vendor);
    put16(config + SUBSYSTEM, id->subsystem);
    config[PCI_COMMAND] = PCI_COMMAND_MEMORY;
    config[PCI_INTERRUPT_PIN] = PIN_INTA;
    writable[PCI_COMMAND] = PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
    writable[COMMAND_HIGH] = COMMAND_INTX_DISABLE;
    writable[PCI_INTERRUPT_LINE] = 0xff;
    memcpy(state->config, config, PCI_CONFIG_SIZE);
}

void pci_function_add_bar(struct pci_function *function, unsigned index, uint64_t size, bool wide,
                          const struct bus_ops *ops, void *arg)
{
    assert(!function->attached && index + (wide ? 1 : 0) < PCI_BARS);
    assert(size >= 16 && (size & (size - 1)) == 0 && (wide || size <= 1ull << 31));
    function->bars[index] = (struct pci_bar){.size = size, .wide = wide, .ops = ops, .arg = arg};
    put32(function->writable + bar_at(index), (uint32_t) ~(size - 1));
    if (wide) {
        function->power_on[bar_at(index)] = BAR_WIDE;
        put32(function->writable + bar_at(index + 1), (uint32_t)(~(size - 1) >> 32));
    }
}

unsigned pci_function_add_capability(struct pci_function *function, uint8_t id, const void *bytes,
                                     const void *writable, size_t length)
{
    unsigned at = function->next_capability, link = CAPABILITIES;

    assert(!function->attached && at + 2 + length <= PCI_CONFIG_SIZE);
    while (function->power_on[link])
        link = function->power_on[link] + 1u;
    function->power_on[link] = (uint8_t)at;
    function->power_on[STATUS] |= STATUS_CAPABILITIES;
    function->power_on[at] = id;
    memcpy(function->power_on + at + 2, bytes, length);
    if (writable)
        memcpy(function->writable + at + 2, writable, length);
    function->next_capability = (unsigned)(at + 2 + length + 3) & ~3u;
    return at;
}

/* --- in and out of its slot --------------------------------------------------------------- */

/* Where something that lies at power-on in [address, address + size) ends; 0 when nothing does. */
static uint64_t end_of_neighbour(const struct pci_function *function, uint64_t address,
                                 uint64_t size)
{
    for (unsigned i = 0; i < PCI_BARS; i++) {
        uint64_t other = function->bars[i].size;
        uint64_t base = other ? bar_address(function, function->power_on, i) : 0;
        if (base && base < address + size && address < base + other)
            return base + other;
    }
    return 0;
}

/* The first place of the low window that no BAR has at power-on. */
static int place_bar(struct pci_function *function, const struct pci_bus *bus, unsigned index,
                     struct err *err)
{
    uint64_t size = function->bars[index].size;
    uint64_t alignment = size < 4096 ? 4096 : size; /* so that a guest can map it alone */
    uint64_t address = bus->config.low.base, end;

    do {
        address = (address + alignment - 1) & ~(alignment - 1);
        if (!holds(&bus->config.low, address, size))
            return err_say(err, ERR_FAILED, ENOSPC,
                           "no room for BAR %u of PCI slot %u: 0x%llx bytes below 4 GiB", index,
                           function->slot, (unsigned long long)size);
        end = end_of_neighbour(function, address, size);
        for (unsigned slot = 0; !end && slot < PCI_SLOTS; slot++)
            if (bus->functions[slot])
                end = end_of_neighbour(bus->functions[slot], address, size);
        if (end)
            address = end;
    } while (end);
    put32(function->power_on + bar_at(index),
          (uint32_t)address | (function->bars[index].wide ? BAR_WIDE : 0));
    return 0;
}

int pci_function_attach(struct pci_function *function, struct pci_bus *bus, unsigned slot,
                        struct err *err)
{
    if (slot >= PCI_SLOTS)
        return err_say(err, ERR_FAILED, EINVAL, "there is no PCI slot %u", slot);
    if (bus->functions[slot])
        return err_say(err, ERR_FAILED, EEXIST, "PCI slot %u is taken", slot);
    function->slot = slot;
    for (unsigned i = 0; i < PCI_BARS; i++) {
        int r = function->bars[i].size ? place_bar(function, bus, i, err) : 0;
        if (r < 0)
            return r;
    }
    if (function->power_on[PCI_INTERRUPT_PIN])
        function->power_on[PCI_INTERRUPT_LINE] = bus->config.intx_pins[intx_line(function)];
    memcpy(function->state->config, function->power_on, PCI_CONFIG_SIZE);
    function->bus = bus;
    function->attached = true;
    bus->functions[slot] = function;
    return 0;
}

static void unmap_bars(struct pci_function *function)
{
    for (unsigned i = 0; i < PCI_BARS; i++)
        if (function->bars[i].mapped)
            unmap_bar(function, i);
}

void pci_function_detach(struct pci_function *function)
{
    if (!function->attached)
        return;
    unmap_bars(function);
    pci_function_set_intx(function, false);
    function->bus->functions[function->slot] = NULL;
    function->bus = NULL;
    function->attached = false;
}

/* BARs come back on the bus at resume: until then another function may stand in the way. */
void pci_function_reset(struct pci_function *function)
{
    unmap_bars(function);
    memcpy(function->state->config, function->power_on, PCI_CONFIG_SIZE);
    pci_function_set_intx(function, false);
}

/*
 * Makes up our mind by a state that may have been loaded. Whatever its sender wrote into bytes that
 * no guest can change has no effect.
 */
void pci_function_take_state(struct pci_function *function)
{
    uint8_t *config = function->state->config;

    function->intx = config[STATUS] & STATUS_INTERRUPT;
    for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++) {
        uint8_t writable = function->writable[i];
        config[i] = (uint8_t)((function->power_on[i] & ~writable) | (config[i] & writable));
    }
    set_status_interrupt(function);
    unmap_stale_bars(function);
    drive_line(function, true);
}

void pci_function_resume(struct pci_function *function)
{
    pci_function_take_state(function);
    map_wanted_bars(function);
}

bool pci_function_fits(const struct pci_function *function, const struct pci_state *state)
{
    for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++) {
        unsigned free_bits = function->writable[i] | (i == STATUS ? STATUS_INTERRUPT : 0);
        if ((state->config[i] ^ function->power_on[i]) & ~free_bits)
            return false;
    }
    return true;
}

static const struct state_field function_fields[] = {
    STATE_FIELD_BYTES(struct pci_state, config),
};

const struct state_table pci_state_table = {
    .name = "pci-function",
    .version = 1,
    STATE_TABLE_OF(struct pci_state, function_fields),
};
