/* SPDX-License-Identifier: MIT */
/* A virtio device behind PCI, and a driver that knows it by its registers. */
#pragma once

#include "tests/unit/unit.h"
#include "tests/unit/virtio_pci_rig.h"
#include "tests/unit/virtio_probe.h"
#include "virtio/rng.h"

/* Common configuration by the spec's table (4.1.4.3). */
enum {
    OFFERED_SELECT = 0x00,
    OFFERED = 0x04,
    ACCEPTED_SELECT = 0x08,
    ACCEPTED = 0x0c,
    CONFIG_VECTOR = 0x10,
    NUM_QUEUES = 0x12,
    STATUS = 0x14,
    GENERATION = 0x15,
    QUEUE_SELECT = 0x16,
    QUEUE_LENGTH = 0x18,
    QUEUE_VECTOR = 0x1a,
    QUEUE_ENABLE = 0x1c,
    QUEUE_NOTIFY_OFF = 0x1e,
    QUEUE_DESC = 0x20,
    QUEUE_DRIVER = 0x28,
    QUEUE_DEVICE = 0x30,
    COMMON_LENGTH = 0x3c,
};

enum { NO_VECTOR = 0xffff, BAR_LENGTH = 0x4000 };
enum { LINE = PCI_RIG_SLOT % 4 };

static struct pci_rig pc;
static struct probe *probe;
static struct model_driver driver;

/* A driver with empty hands. */
static inline void make_driver(void)
{
    model_init(&driver, &(struct model_config){.memory = pc.rig.memory, .base = 0x1000, .size = 8});
}

static inline void begin(struct virtio *virtio)
{
    ck_assert_int_eq(pci_rig_plug(&pc, virtio, NULL), 0);
    pci_rig_reset(&pc);
    pci_rig_resume(&pc);
    walk_capabilities(&pc);
    make_driver();
}

static inline void set_up_probe(void)
{
    pci_rig_init(&pc);
    probe = probe_create(&pc.rig.world, NULL, NULL);
    ck_assert_ptr_nonnull(probe);
    begin(&probe->virtio);
}

static inline void set_up_rng(void)
{
    struct rng *rng;
    pci_rig_init(&pc);
    ck_assert_int_eq(rng_create(&rng, &pc.rig.world, NULL), 0);
    begin(rng_virtio(rng));
}

static inline void tear_down(void)
{
    pci_rig_finish(&pc);
    ck_assert_uint_eq(pc.board.count, 0);
    ck_assert_uint_eq(pc.router.creates, pc.router.destroys);
}

static inline uint64_t get(unsigned offset, unsigned width)
{
    return reg_get(&pc, COMMON, offset, width);
}

static inline void put(unsigned offset, unsigned width, uint64_t value)
{
    reg_put(&pc, COMMON, offset, width, value);
}

static inline uint8_t status(void)
{
    return (uint8_t)get(STATUS, 1);
}

/* What a driver does, register by register. */
static inline void enable_queue(unsigned queue, const struct model_driver *model)
{
    put(QUEUE_SELECT, 2, queue);
    put(QUEUE_LENGTH, 2, model->size);
    put(QUEUE_DESC, 4, (uint32_t)model->descriptors);
    put(QUEUE_DESC + 4, 4, model->descriptors >> 32);
    put(QUEUE_DRIVER, 8, model->available);
    put(QUEUE_DEVICE, 4, (uint32_t)model->used);
    put(QUEUE_DEVICE + 4, 4, model->used >> 32);
    put(QUEUE_ENABLE, 2, 1);
}

static inline void negotiate(void)
{
    put(STATUS, 1, 1);
    put(STATUS, 1, 3);
    put(ACCEPTED_SELECT, 4, 1);
    put(ACCEPTED, 4, 1);
    put(STATUS, 1, 11);
    ck_assert_uint_eq(status(), 11);
}

static inline void bring_up(void)
{
    negotiate();
    enable_queue(0, &driver);
    put(STATUS, 1, 15);
    ck_assert_uint_eq(status(), 15);
    rig_turn(&pc.rig);
}

static inline void ring(unsigned queue, unsigned width)
{
    put(QUEUE_SELECT, 2, queue);
    reg_put(&pc, DOORBELLS, (unsigned)get(QUEUE_NOTIFY_OFF, 2) * pc.step, width, queue);
}

static inline void add_request(void)
{
    struct model_part part = model_in(&driver, 16);
    ck_assert_int_ge(model_add(&driver, &part, 1, 1), 0);
    model_show(&driver);
}

static inline void msix_put(struct pci_rig *rig, unsigned offset, uint32_t value)
{
    guest_write(rig, (config_get(rig, 0x18, 4) & ~0xfu) + offset, 4, value);
}

/* Vector v sends v + 1. */
static inline void msix_turn_on(struct pci_rig *rig, unsigned vectors)
{
    for (unsigned v = 0; v < vectors; v++) {
        msix_put(rig, 16 * v, 0xfee00000);
        msix_put(rig, 16 * v + 4, 0);
        msix_put(rig, 16 * v + 8, v + 1);
        msix_put(rig, 16 * v + 12, 0);
    }
    config_put(rig, rig->msix + 2, 2, 0x8000);
}

/* Messages of a vector since the last question. */
static inline uint64_t messages(struct pci_rig *rig, unsigned vector)
{
    uint64_t count, sum = 0;
    for (unsigned i = 0; i < ROUTER_ROUTES; i++)
        if (rig->routes[i] > 0 && rig->router.datas[i] == vector + 1 &&
            read(rig->routes[i], &count, sizeof(count)) == sizeof(count))
            sum += count;
    return sum;
}

/* Asks for 16 bytes and gets them. */
static inline void request_is_done(void)
{
    struct model_done done;
    add_request();
    ring(0, 2);
    rig_turn(&pc.rig);
    ck_assert(model_reap(&driver, &done));
}
