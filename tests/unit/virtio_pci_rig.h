/* SPDX-License-Identifier: MIT */
/*
 * A machine with a PCI bus and one virtio device on it, reached as a guest reaches it: a write
 * first meets the doorbells that KVM would answer, then the bus. For tests and fuzzers.
 */
#pragma once

#include "tests/unit/msix_fixture.h"
#include "tests/unit/virtio_rig.h"
#include "virtio/virtio_pci.h"

enum { PCI_RIG_SLOT = 6, BOARD_PLACES = 64 };

/* What KVM's side of doorbells would do. */
struct fake_board {
    struct doorbell_board board;
    bool failing;
    unsigned adds, removes, count;
    struct {
        uint64_t address;
        int fd;
    } places[BOARD_PLACES];
};

static inline unsigned fake_board_find(const struct fake_board *fake, uint64_t address)
{
    unsigned i = 0;
    while (i < fake->count && fake->places[i].address != address)
        i++;
    return i;
}

static inline int fake_board_handle_add(void *ctx, uint64_t address, int fd)
{
    struct fake_board *fake = ctx;
    rig_require(fake_board_find(fake, address) == fake->count); /* KVM says EEXIST */
    fake->adds++;
    if (fake->failing || fake->count == BOARD_PLACES)
        return -ENOSPC;
    fake->places[fake->count].address = address;
    fake->places[fake->count++].fd = fd;
    return 0;
}

static inline void fake_board_handle_remove(void *ctx, uint64_t address, int fd)
{
    struct fake_board *fake = ctx;
    unsigned i = fake_board_find(fake, address);
    rig_require(i < fake->count && fake->places[i].fd == fd);
    fake->removes++;
    fake->places[i] = fake->places[--fake->count];
}

/* The parts of virtio's registers, by the type of their capability. */
enum pci_region { COMMON = 1, DOORBELLS = 2, ISR = 3, CONFIG = 4, WINDOW = 5, REGIONS };

struct pci_rig {
    struct virtio_rig rig;
    struct bus *ports, *mmio;
    struct fake_chip chip;
    struct fake_router router; /* behind our own, which keeps the eventfds in mind */
    struct msi_router counting_router;
    int routes[ROUTER_ROUTES]; /* 0: none */
    struct fake_board board;
    struct pci_bus *pci;
    struct virtio *virtio;
    struct virtio_pci *transport;
    /* What a driver learns from the capabilities. */
    unsigned capabilities[REGIONS]; /* 0: none */
    unsigned msix;
    uint32_t offsets[REGIONS], sizes[REGIONS], step;
};

static inline uint64_t guest_read(struct pci_rig *pc, uint64_t address, unsigned width)
{
    return bus_read(pc->mmio, address, width);
}

static inline void guest_write(struct pci_rig *pc, uint64_t address, unsigned width, uint64_t value)
{
    unsigned i = fake_board_find(&pc->board, address);
    uint64_t one = 1;
    if (i < pc->board.count)
        rig_require(write(pc->board.places[i].fd, &one, sizeof(one)) == sizeof(one));
    else
        bus_write(pc->mmio, address, width, value);
}

static inline uint32_t config_get(struct pci_rig *pc, unsigned offset, unsigned width)
{
    return (uint32_t)guest_read(pc, TOY_ECAM + (PCI_RIG_SLOT << 15) + offset, width);
}

static inline void config_put(struct pci_rig *pc, unsigned offset, unsigned width, uint32_t value)
{
    guest_write(pc, TOY_ECAM + (PCI_RIG_SLOT << 15) + offset, width, value);
}

static inline uint64_t bar_base(struct pci_rig *pc)
{
    return (config_get(pc, 0x10, 4) & ~0xfu) | (uint64_t)config_get(pc, 0x14, 4) << 32;
}

static inline uint64_t reg_at(struct pci_rig *pc, enum pci_region region, unsigned offset)
{
    return bar_base(pc) + pc->offsets[region] + offset;
}

static inline uint64_t reg_get(struct pci_rig *pc, enum pci_region region, unsigned offset,
                               unsigned width)
{
    return guest_read(pc, reg_at(pc, region, offset), width);
}

static inline void reg_put(struct pci_rig *pc, enum pci_region region, unsigned offset,
                           unsigned width, uint64_t value)
{
    guest_write(pc, reg_at(pc, region, offset), width, value);
}

static inline void walk_capabilities(struct pci_rig *pc)
{
    unsigned left = 48;
    for (unsigned at = config_get(pc, 0x34, 1); at && left--; at = config_get(pc, at + 1, 1)) {
        unsigned type = config_get(pc, at + 3, 1);
        if (config_get(pc, at, 1) == 0x11)
            pc->msix = at;
        if (config_get(pc, at, 1) != 0x09 || type >= REGIONS)
            continue;
        pc->capabilities[type] = at;
        pc->offsets[type] = config_get(pc, at + 8, 4);
        pc->sizes[type] = config_get(pc, at + 12, 4);
        if (type == DOORBELLS)
            pc->step = config_get(pc, at + 16, 4);
    }
}

static inline int rig_handle_route_create(void *ctx, struct msi_route *ret_route, struct err *err)
{
    struct pci_rig *pc = ctx;
    int ret = fake_router_handle_create(&pc->router, ret_route, err);
    if (ret == 0)
        pc->routes[ret_route->gsi] = ret_route->fd;
    return ret;
}

static inline void rig_handle_route_destroy(void *ctx, struct msi_route *route)
{
    struct pci_rig *pc = ctx;
    if (route->fd >= 0)
        pc->routes[route->gsi] = 0;
    fake_router_handle_destroy(&pc->router, route);
}

static inline void rig_handle_route_set(void *ctx, struct msi_route *route, uint64_t address,
                                        uint32_t data)
{
    fake_router_handle_set(&((struct pci_rig *)ctx)->router, route, address, data);
}

/* The ground. The caller makes a device in its world, and plugs it in. */
static inline void pci_rig_init(struct pci_rig *pc)
{
    *pc = (struct pci_rig){0};
    rig_init(&pc->rig);
    fake_chip_init(&pc->chip);
    fake_router_init(&pc->router);
    pc->counting_router = (struct msi_router){.create = rig_handle_route_create,
                                              .destroy = rig_handle_route_destroy,
                                              .set = rig_handle_route_set,
                                              .ctx = pc};
    pc->board.board = (struct doorbell_board){
        .add = fake_board_handle_add, .remove = fake_board_handle_remove, .ctx = &pc->board};
    rig_require(bus_create(&pc->ports, NULL) == 0 && bus_create(&pc->mmio, NULL) == 0);
    struct pci_bus_config config = toy_bus_config(pc->ports, pc->mmio, &pc->chip.chip);
    rig_require(pci_bus_create(&pc->pci, &config, NULL) == 0);
}

static inline int pci_rig_plug(struct pci_rig *pc, struct virtio *virtio, struct err *err)
{
    const struct virtio_pci_config config = {.bus = pc->pci,
                                             .slot = PCI_RIG_SLOT,
                                             .router = &pc->counting_router,
                                             .doorbells = &pc->board.board};
    pc->virtio = virtio;
    return virtio_pci_create(&pc->transport, &config, virtio, err);
}

/* In the order of the machine's list: the transport first. */
static inline void pci_rig_resume(struct pci_rig *pc)
{
    struct device *devices[] = {pci_bus_device(pc->pci), virtio_pci_device(pc->transport),
                                &pc->virtio->device};
    for (unsigned i = 0; i < array_size(devices); i++)
        devices[i]->ops->resume(devices[i]);
}

static inline void pci_rig_reset(struct pci_rig *pc) /* paused */
{
    struct device *devices[] = {pci_bus_device(pc->pci), virtio_pci_device(pc->transport),
                                &pc->virtio->device};
    for (unsigned i = 0; i < array_size(devices); i++)
        devices[i]->ops->reset(devices[i]);
}

static inline void pci_rig_pause(struct pci_rig *pc)
{
    rig_pause(pc->virtio); /* that is all: the transport does nothing by itself */
}

static inline void pci_rig_finish(struct pci_rig *pc)
{
    pci_rig_pause(pc);
    device_destroy(&pc->virtio->device);
    device_destroy(virtio_pci_device(pc->transport));
    device_destroy(pci_bus_device(pc->pci));
    bus_destroy(pc->ports);
    bus_destroy(pc->mmio);
    rig_finish(&pc->rig);
}
