/* SPDX-License-Identifier: MIT */
/* A machine's PCI bus with three toys in it, and a guest's way to them. For the tests of
 * devices/pci. */
#pragma once

#include "tests/unit/pci_fixture.h"
#include "tests/unit/unit.h"
#include <errno.h>

enum { SLOT = 5, OTHER = 9, SHARED = 13 }; /* of the toys; all three drive line 1 */
enum { BAR_0 = 0x10, BAR_1 = 0x14, BAR_2 = 0x18, STATUS = 6, NOBODY_SLOT = 7 };

static const unsigned slots[TOYS] = {SLOT, OTHER, SHARED};

static struct bus *ports, *mmio;
static struct fake_chip chip;
static struct pci_bus *pci;
static struct toy toys[TOYS];

static inline uint64_t ecam(unsigned slot, unsigned offset)
{
    return TOY_ECAM + (slot << 15) + offset;
}

static inline uint32_t get(unsigned slot, unsigned offset, unsigned width)
{
    return (uint32_t)bus_read(mmio, ecam(slot, offset), width);
}

static inline void put(unsigned slot, unsigned offset, unsigned width, uint64_t value)
{
    bus_write(mmio, ecam(slot, offset), width, value);
}

static inline void select_register(unsigned slot, unsigned offset)
{
    bus_write(ports, 0xcf8, 4, 0x80000000 | slot << 11 | (offset & 0xfc));
}

/* Whose BAR answers at this address; ~0 for nobody. */
static inline uint32_t owner_at(uint64_t address)
{
    return (uint32_t)bus_read(mmio, address, 4);
}

static inline uint32_t owned(unsigned toy, unsigned bar)
{
    return toy << 12 | bar << 8;
}

static inline uint64_t wide_address(unsigned slot)
{
    return bus_read(mmio, ecam(slot, BAR_0), 8) & ~0xfull;
}

static inline void move_wide(unsigned slot, uint64_t address)
{
    put(slot, BAR_0, 4, (uint32_t)address);
    put(slot, BAR_1, 4, address >> 32);
}

static inline void resume_all(void)
{
    struct device *device = pci_bus_device(pci);

    device->ops->resume(device);
    for (unsigned i = 0; i < TOYS; i++)
        toy_resume(&toys[i]);
}

static inline void reset_all(void)
{
    struct device *device = pci_bus_device(pci);

    device->ops->reset(device);
    for (unsigned i = 0; i < TOYS; i++)
        toy_reset(&toys[i]);
}

static inline void create(uint64_t high_size)
{
    fake_chip_init(&chip);
    ck_assert_int_eq(bus_create(&ports, NULL), 0);
    ck_assert_int_eq(bus_create(&mmio, NULL), 0);
    struct pci_bus_config config = toy_bus_config(ports, mmio, &chip.chip);
    config.high.size = high_size;
    ck_assert_int_eq(pci_bus_create(&pci, &config, NULL), 0);
    for (unsigned i = 0; i < TOYS; i++) {
        struct err err = {0};
        toy_init(&toys[i], i);
        ck_assert_msg(pci_function_attach(&toys[i].function, pci, slots[i], &err) == 0, "%s",
                      err.text);
    }
    reset_all();
    resume_all();
}

static inline void setup(void)
{
    create(TOY_LOW_SIZE);
}

static inline void teardown(void)
{
    for (unsigned i = 0; i < TOYS; i++)
        toy_finish(&toys[i]);
    device_destroy(pci_bus_device(pci));
    bus_destroy(mmio);
    bus_destroy(ports);
}
