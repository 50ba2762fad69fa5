/* SPDX-License-Identifier: MIT */
/*
 * A driver for modern virtio devices, as small as it can be: PCI by ECAM, BARs where the machine
 * put them, one queue after the other, all memory static. The ring's functions are callable from
 * ring 3, where a guest runs at full speed.
 */
#pragma once

#include "guest.h"

/* The compiler knows it too; the kit has it. */
void *memset(void *to, int byte, size_t count);

enum { VIRTIO_NET = 1, VIRTIO_BLK = 2, VIRTIO_RNG = 4, VIRTIO_BALLOON = 5 };

#define VIRTIO_F_VERSION_1 (1ull << 32)

enum { QUEUE_SIZE = 64 };

struct descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags, next;
};

enum { NEXT = 1, WRITE = 2 };

struct queue {
    struct descriptor descriptors[QUEUE_SIZE];
    struct {
        uint16_t flags, index;
        uint16_t ring[QUEUE_SIZE];
    } available;
    struct {
        uint16_t flags, index;
        struct {
            uint32_t head, written;
        } ring[QUEUE_SIZE];
    } used __attribute__((aligned(4)));
    volatile uint16_t *doorbell;
    uint16_t number;
    uint16_t seen; /* used index up to which requests were taken back */
} __attribute__((aligned(4096)));

struct virtio {
    unsigned slot;
    volatile uint8_t *common, *device, *isr, *doorbells;
    uint32_t doorbell_step;
    volatile uint32_t *msix; /* table */
    unsigned msix_control;   /* offset in configuration space */
};

volatile uint8_t *pci_config(unsigned slot);
uint64_t pci_bar(unsigned slot, unsigned bar); /* its address, without the flag bits */

/* The first device of this kind; false when there is none. */
bool virtio_find(uint16_t id, struct virtio *ret_device);
bool virtio_find_from(uint16_t id, unsigned slot, struct virtio *ret_device);
/* Through reset and features, which are those of `wanted` that the device has (returned). */
uint64_t virtio_start(struct virtio *device, uint64_t wanted);
void virtio_add_queue(struct virtio *device, unsigned number, struct queue *queue);
/* Messages of the queue come to this processor as `vector`. Before virtio_add_queue. */
void virtio_use_vector(struct virtio *device, unsigned entry, uint8_t vector);
void virtio_set_queue_vector(struct virtio *device, unsigned number, unsigned entry);
void virtio_ready(struct virtio *device);
uint8_t virtio_status(struct virtio *device);

/* Offers the chain that begins at descriptor `head`. */
void queue_offer(struct queue *queue, uint16_t head);
void queue_ring(struct queue *queue);
/* Busy until a request came back: its head, with the bytes written. */
uint16_t queue_wait(struct queue *queue, uint32_t *ret_written);
/* The same at once; false: none came back yet. */
bool queue_take(struct queue *queue, uint16_t *ret_head, uint32_t *ret_written);
