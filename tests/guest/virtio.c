/* SPDX-License-Identifier: MIT */
/* PCI and virtio (1.2, 4.1) from the driver's side. */
#include "virtio.h"

#define ECAM 0xe0000000ull

enum {
    VENDOR = 0x1af4,
    MODERN = 0x1040,
    BAR0 = 0x10,
    CAPABILITIES = 0x34,
    CAP_VENDOR = 0x09,
    CAP_MSIX = 0x11,
    CFG_COMMON = 1,
    CFG_NOTIFY = 2,
    CFG_ISR = 3,
    CFG_DEVICE = 4,
};

/* Offsets in the common configuration. */
enum {
    DEVICE_FEATURE_SELECT = 0,
    DEVICE_FEATURE = 4,
    DRIVER_FEATURE_SELECT = 8,
    DRIVER_FEATURE = 12,
    STATUS = 20,
    QUEUE_SELECT = 22,
    QUEUE_SIZE_AT = 24,
    QUEUE_VECTOR = 26,
    QUEUE_ENABLE = 28,
    QUEUE_NOTIFY_OFF = 30,
    QUEUE_DESCRIPTORS = 32,
    QUEUE_AVAILABLE = 40,
    QUEUE_USED = 48,
};

enum { ACKNOWLEDGE = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8 };

static inline volatile uint16_t *at16(volatile uint8_t *base, unsigned offset)
{
    return (volatile uint16_t *)(base + offset);
}

static inline volatile uint32_t *at32(volatile uint8_t *base, unsigned offset)
{
    return (volatile uint32_t *)(base + offset);
}

volatile uint8_t *pci_config(unsigned slot)
{
    return (volatile uint8_t *)(ECAM + (uint64_t)slot * 8 * 4096);
}

uint64_t pci_bar(unsigned slot, unsigned bar)
{
    uint32_t low = *at32(pci_config(slot), BAR0 + 4 * bar);
    uint64_t high = (low & 6) == 4 ? *at32(pci_config(slot), BAR0 + 4 * bar + 4) : 0;
    return high << 32 | (low & ~15u);
}

static void take_capability(struct virtio *device, volatile uint8_t *config, unsigned at)
{
    uint64_t address = pci_bar(device->slot, config[at + 4]) + *at32(config, at + 8);
    volatile uint8_t *place = (volatile uint8_t *)address;
    switch (config[at + 3]) {
    case CFG_COMMON:
        device->common = place;
        break;
    case CFG_NOTIFY:
        device->doorbells = place;
        device->doorbell_step = *at32(config, at + 16);
        break;
    case CFG_ISR:
        device->isr = place;
        break;
    case CFG_DEVICE:
        device->device = place;
        break;
    }
}

static void read_capabilities(struct virtio *device)
{
    volatile uint8_t *config = pci_config(device->slot);
    unsigned steps = 0;
    for (unsigned at = config[CAPABILITIES]; at; at = config[at + 1]) {
        check(++steps < 48, "the list of capabilities has no end");
        if (config[at] == CAP_VENDOR)
            take_capability(device, config, at);
        if (config[at] == CAP_MSIX) {
            uint32_t table = *at32(config, at + 4);
            device->msix = (volatile uint32_t *)(pci_bar(device->slot, table & 7) + (table & ~7u));
            device->msix_control = at + 2;
        }
    }
}

bool virtio_find_from(uint16_t id, unsigned slot, struct virtio *ret_device)
{
    for (; slot < 32; slot++) {
        if (*at32(pci_config(slot), 0) != ((uint32_t)(MODERN + id) << 16 | VENDOR))
            continue;
        *ret_device = (struct virtio){.slot = slot};
        *at16(pci_config(slot), 4) = 2 | 4; /* memory, bus master */
        read_capabilities(ret_device);
        check(ret_device->common && ret_device->doorbells && ret_device->isr,
              "a capability of slot %u is missing", slot);
        return true;
    }
    return false;
}

bool virtio_find(uint16_t id, struct virtio *ret_device)
{
    return virtio_find_from(id, 0, ret_device);
}

uint64_t virtio_start(struct virtio *device, uint64_t wanted)
{
    volatile uint8_t *common = device->common;
    uint64_t features = 0;
    common[STATUS] = 0;
    while (common[STATUS])
        continue;
    common[STATUS] = ACKNOWLEDGE;
    common[STATUS] = ACKNOWLEDGE | DRIVER;
    for (unsigned word = 0; word < 2; word++) {
        *at32(common, DEVICE_FEATURE_SELECT) = word;
        *at32(common, DRIVER_FEATURE_SELECT) = word;
        uint32_t bits = *at32(common, DEVICE_FEATURE) & (uint32_t)(wanted >> (32 * word));
        *at32(common, DRIVER_FEATURE) = bits;
        features |= (uint64_t)bits << (32 * word);
    }
    common[STATUS] = ACKNOWLEDGE | DRIVER | FEATURES_OK;
    check(common[STATUS] & FEATURES_OK, "the device refuses features %lx", features);
    return features;
}

void virtio_use_vector(struct virtio *device, unsigned entry, uint8_t vector)
{
    check(device->msix, "no MSI-X");
    device->msix[4 * entry] = 0xfee00000 | apic_id() << 12;
    device->msix[4 * entry + 1] = 0;
    device->msix[4 * entry + 2] = vector;
    device->msix[4 * entry + 3] = 0;
    *at16(pci_config(device->slot), device->msix_control) = 0x8000;
}

void virtio_set_queue_vector(struct virtio *device, unsigned number, unsigned entry)
{
    *at16(device->common, QUEUE_SELECT) = (uint16_t)number;
    *at16(device->common, QUEUE_VECTOR) = (uint16_t)entry;
    check(*at16(device->common, QUEUE_VECTOR) == entry, "queue %u takes no vector", number);
}

void virtio_add_queue(struct virtio *device, unsigned number, struct queue *queue)
{
    volatile uint8_t *common = device->common;
    *at16(common, QUEUE_SELECT) = (uint16_t)number;
    check(*at16(common, QUEUE_SIZE_AT) >= QUEUE_SIZE, "queue %u is too small", number);
    *at16(common, QUEUE_SIZE_AT) = QUEUE_SIZE;
    uint64_t addresses[] = {(uint64_t)queue->descriptors, (uint64_t)&queue->available,
                            (uint64_t)&queue->used};
    for (unsigned i = 0; i < array_size(addresses); i++) {
        *at32(common, QUEUE_DESCRIPTORS + 8 * i) = (uint32_t)addresses[i];
        *at32(common, QUEUE_DESCRIPTORS + 8 * i + 4) = (uint32_t)(addresses[i] >> 32);
    }
    queue->number = (uint16_t)number;
    queue->doorbell = (volatile uint16_t *)(device->doorbells + *at16(common, QUEUE_NOTIFY_OFF) *
                                                                    device->doorbell_step);
    *at16(common, QUEUE_ENABLE) = 1;
}

void virtio_ready(struct virtio *device)
{
    device->common[STATUS] = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;
}

uint8_t virtio_status(struct virtio *device)
{
    return device->common[STATUS];
}

void queue_offer(struct queue *queue, uint16_t head)
{
    queue->available.ring[queue->available.index % QUEUE_SIZE] = head;
    __asm__ volatile("" : : : "memory"); /* stores are seen in order on this processor */
    *(volatile uint16_t *)&queue->available.index = (uint16_t)(queue->available.index + 1);
}

void queue_ring(struct queue *queue)
{
    __asm__ volatile("lock; addl $0, (%%rsp)" : : : "memory", "cc");
    *queue->doorbell = queue->number;
}

uint16_t queue_wait(struct queue *queue, uint32_t *ret_written)
{
    while (*(volatile uint16_t *)&queue->used.index == queue->seen)
        __asm__ volatile("pause" : : : "memory");
    unsigned place = queue->seen++ % QUEUE_SIZE;
    if (ret_written)
        *ret_written = queue->used.ring[place].written;
    return (uint16_t)queue->used.ring[place].head;
}

bool queue_take(struct queue *queue, uint16_t *ret_head, uint32_t *ret_written)
{
    if (*(volatile uint16_t *)&queue->used.index == queue->seen)
        return false;
    *ret_head = queue_wait(queue, ret_written);
    return true;
}
