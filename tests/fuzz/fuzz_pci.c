/* SPDX-License-Identifier: MIT */
/*
 * PCI under any sequence of guest accesses, interrupts and strangers' states: three toy functions
 * and one with MSI-X.
 *
 * The input is a little program. Each step begins with a byte whose low four bits say what happens
 * (enum step; others are a step without effect) and whose high four bits choose a function:
 *
 *   PORT    [how, port, 4 bytes]          how: bit 7 write, bits 1:0 log2 of the width
 *   ECAM    [how, 2 bytes offset, 8]      in the function, or anywhere when bit 6 of how is set
 *   BAR     [how, BAR, 3 bytes place]     moves it to one of a few places that collide
 *   MEMORY  [how, 2 bytes offset, 8]      in the MSI-X function's BAR, or at a place as above
 *   RAISE   [vector]                      LINE    [level]
 *   LOAD    [count, (2 bytes position, byte)...]
 *   the rest have no operands
 *
 * What is checked after each step, besides all that the sanitizers see: no BAR is where it should
 * not be or waits without a reason, states differ from power-on only where a guest may write, and
 * at the end a reset brings back what was at the beginning.
 */
#include "tests/fuzz/program.h"
#include "tests/unit/msix_fixture.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

enum step { PORT, ECAM, BAR, MEMORY, RAISE, LINE, LOAD, RESET, RESUME, FAIL };

enum { HOW_WRITE = 0x80, HOW_ELSEWHERE = 0x40, FIRST_SLOT = 5, MSIX_SLOT = 3 };

static struct {
    struct bus *ports, *mmio;
    struct fake_chip chip;
    struct fake_router router;
    struct pci_bus *pci;
    struct toy toys[TOYS];
    struct msix_toy msix;
} pc;

static unsigned slot_of(unsigned choice)
{
    static const unsigned slots[] = {FIRST_SLOT, FIRST_SLOT + 4, FIRST_SLOT + 8, MSIX_SLOT, 0, 30};

    return slots[choice % array_size(slots)];
}

/* Few enough that BARs meet, and some outside of the windows. */
static uint64_t place(uint64_t choice)
{
    static const uint64_t bases[] = {
        TOY_LOW, TOY_HIGH,           TOY_LOW + TOY_LOW_SIZE - 0x8000, TOY_ECAM, 0xfec00000,
        0,       UINT64_MAX - 0xffff};

    return bases[(choice >> 16) % array_size(bases)] + (choice & 0xf) * TOY_NARROW_SIZE;
}

static void access_bus(struct bus *bus, unsigned how, uint64_t address, uint64_t value)
{
    unsigned width = 1u << (how & 3);

    if (how & HOW_WRITE)
        bus_write(bus, address, width, value);
    else
        bus_read(bus, address, width);
}

static void access_port(struct program *program)
{
    unsigned how = (unsigned)take_number(program, 1);
    unsigned port = 0xcf6 + take_number(program, 1) % 12;

    how = (how & 3) == 3 ? how & ~1u : how;
    access_bus(pc.ports, how, port, take_number(program, 4));
}

static void access_ecam(struct program *program, unsigned choice)
{
    unsigned how = (unsigned)take_number(program, 1);
    uint64_t offset = take_number(program, 2);

    offset = how & HOW_ELSEWHERE ? offset << 8 | choice : slot_of(choice) << 15 | offset % 0x110;
    access_bus(pc.mmio, how, TOY_ECAM + offset, take_number(program, 8));
}

static void move_bar(struct program *program, unsigned choice)
{
    unsigned how = (unsigned)take_number(program, 1),
             bar = (unsigned)take_number(program, 1) % PCI_BARS;
    uint64_t at = TOY_ECAM + (slot_of(choice) << 15) + 0x10 + 4 * bar;
    uint64_t address = place(take_number(program, 3));

    if ((how & 3) == 3) {
        bus_write(pc.mmio, at, 8, address);
    } else {
        bus_write(pc.mmio, at, 4, address & 0xffffffff);
        bus_write(pc.mmio, at + 4, 4, address >> 32);
    }
}

static void access_memory(struct program *program)
{
    unsigned how = (unsigned)take_number(program, 1);
    uint64_t offset = take_number(program, 2);
    const struct pci_bar *bar = &pc.msix.function.bars[MSIX_BAR];
    uint64_t address = bar->mapped && !(how & HOW_ELSEWHERE) ? bar->address + offset % 0x1010
                                                             : place(offset << 8) + (offset & 0xff);

    access_bus(pc.mmio, how, address, take_number(program, 8));
}

static void reset_all(void)
{
    struct device *device = pci_bus_device(pc.pci);

    device->ops->reset(device);
    for (unsigned i = 0; i < TOYS; i++)
        toy_reset(&pc.toys[i]);
    msix_toy_reset(&pc.msix);
}

static void resume_all(void)
{
    struct device *device = pci_bus_device(pc.pci);

    device->ops->resume(device);
    for (unsigned i = 0; i < TOYS; i++)
        toy_resume(&pc.toys[i]);
    msix_toy_resume(&pc.msix);
}

/* Any bytes for configuration spaces; of the MSI-X state what its table lets in. */
static void load_stranger(struct program *program)
{
    for (unsigned n = take_number(program, 1) % 32; n; n--) {
        uint64_t position = take_number(program, 2);
        uint8_t byte = (uint8_t)take_number(program, 1);
        if (position >> 8 < TOYS)
            pc.toys[position >> 8].state.config[position & 0xff] ^= byte;
        else if (position >> 8 == TOYS)
            pc.msix.state.config[position & 0xff] ^= byte;
        else
            ((uint8_t *)&pc.msix.msix_state)[position % sizeof(pc.msix.msix_state)] ^= byte;
    }
    for (unsigned i = 0; i < PCI_MSIX_MAX; i++)
        pc.msix.msix_state.vectors[i].control &= 1;
    resume_all();
}

static void check_promises(void)
{
    const struct device *device = pci_bus_device(pc.pci);
    bool level = false;

    require(toys_wait_for_a_reason(pc.toys, &pc.msix.function.bars[MSIX_BAR]));
    for (unsigned i = 0; i < TOYS; i++) {
        const uint8_t *config = pc.toys[i].state.config;
        level |= (config[6] & 8) && !(config[5] & 4);
        pc.toys[i].state.config[pc.toys[i].capability + 2] = 1; /* a window: see toy_before_read */
        require(pci_function_fits(&pc.toys[i].function, &pc.toys[i].state));
    }
    require(pc.chip.level[FIRST_SLOT % PCI_INTX_LINES] == level);
    require(pci_function_fits(&pc.msix.function, &pc.msix.state));
    require(state_check(device->table, device->state, NULL) == 0);
    require(state_check(&pci_msix_state_table, &pc.msix.msix_state, NULL) == 0);
    require(pc.msix.msix_state.pending >> MSIX_VECTORS == 0);
    require(pc.msix.msix_state.recent >> MSIX_VECTORS == 0);
}

static void do_step(struct program *program)
{
    uint8_t step = (uint8_t)take_number(program, 1);
    unsigned choice = step >> 4;

    switch ((enum step)(step & 0x0f)) {
    case PORT:
        access_port(program);
        break;
    case ECAM:
        access_ecam(program, choice);
        break;
    case BAR:
        move_bar(program, choice);
        break;
    case MEMORY:
        access_memory(program);
        break;
    case RAISE:
        msix_toy_raise(&pc.msix, (unsigned)take_number(program, 1));
        break;
    case LINE:
        toy_set_intx(&pc.toys[choice % TOYS], take_number(program, 1) % 2);
        break;
    case LOAD:
        load_stranger(program);
        break;
    case RESET:
        reset_all();
        resume_all();
        break;
    case RESUME:
        resume_all();
        break;
    case FAIL:
        pc.router.failing = !pc.router.failing;
        break;
    }
}

static void set_up(void)
{
    memset(&pc, 0, sizeof(pc));
    fake_chip_init(&pc.chip);
    fake_router_init(&pc.router);
    require(bus_create(&pc.ports, NULL) == 0 && bus_create(&pc.mmio, NULL) == 0);
    const struct pci_bus_config config = toy_bus_config(pc.ports, pc.mmio, &pc.chip.chip);
    require(pci_bus_create(&pc.pci, &config, NULL) == 0);
    for (unsigned i = 0; i < TOYS; i++) {
        toy_init(&pc.toys[i], i);
        require(pci_function_attach(&pc.toys[i].function, pc.pci, slot_of(i), NULL) == 0);
    }
    require(msix_toy_init(&pc.msix, &pc.router.router) == 0);
    require(pci_function_attach(&pc.msix.function, pc.pci, MSIX_SLOT, NULL) == 0);
    reset_all();
    resume_all();
}

static void tear_down(void)
{
    for (unsigned i = 0; i < TOYS; i++)
        toy_finish(&pc.toys[i]);
    msix_toy_finish(&pc.msix);
    device_destroy(pci_bus_device(pc.pci));
    require(bus_read(pc.mmio, TOY_ECAM, 8) == UINT64_MAX && bus_missed(pc.mmio) > 0);
    bus_destroy(pc.mmio);
    bus_destroy(pc.ports);
}

static void check_as_new(void)
{
    reset_all();
    resume_all();
    for (unsigned i = 0; i < TOYS; i++) {
        const struct pci_function *function = &pc.toys[i].function;
        require(function->bars[TOY_WIDE].mapped && function->bars[TOY_NARROW].mapped);
        require(memcmp(function->power_on, function->state->config, PCI_CONFIG_SIZE) == 0);
    }
    require(pc.msix.function.bars[MSIX_BAR].mapped);
    require(!pci_msix_enabled(&pc.msix.msix) && pc.msix.msix_state.pending == 0);
    for (unsigned line = 0; line < PCI_INTX_LINES; line++)
        require(!pc.chip.level[line]);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct program program = {.at = bytes, .left = length};

    set_up();
    for (unsigned steps = 0; program.left && steps < 1024; steps++) {
        do_step(&program);
        check_promises();
    }
    check_as_new();
    tear_down();
    return 0;
}
