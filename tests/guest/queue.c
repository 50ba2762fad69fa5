/* SPDX-License-Identifier: MIT */
/* Expects: in ring 3, at full speed, does requests=N (1000) reads of 4 KiB, depth=N (1) of them at
 * a time, by polling the ring; with "pattern", finds each block beginning with the number of its
 * sector; says "queue N reads N us"; exits 0. For tests/bench/doorbell, and for save and load. */
#include "virtio.h"

enum { SECTORS = 8, BLOCK = 4096, MOST = QUEUE_SIZE / 4, RING3_STACK = 16384 };

static struct queue queue;
static struct {
    uint32_t type, reserved;
    uint64_t sector;
} headers[MOST];
static uint8_t data[MOST][BLOCK] __attribute__((aligned(4096)));
static uint8_t statuses[MOST];
static uint8_t user_stack[RING3_STACK] __attribute__((aligned(16)));
static uint64_t requests, depth, sectors;
static bool pattern;

static void prepare(uint16_t slot)
{
    uint16_t head = (uint16_t)(slot * 3);
    queue.descriptors[head] = (struct descriptor){(uint64_t)&headers[slot], sizeof(headers[0]),
                                                  NEXT, head + 1};
    queue.descriptors[head + 1] = (struct descriptor){(uint64_t)data[slot], BLOCK, NEXT | WRITE,
                                                      head + 2};
    queue.descriptors[head + 2] = (struct descriptor){(uint64_t)&statuses[slot], 1, WRITE, 0};
}

static void offer(uint16_t slot, uint64_t number)
{
    *(uint64_t *)data[slot] = ~0ull;
    headers[slot].sector = number * 7919 % (sectors / SECTORS) * SECTORS;
    statuses[slot] = 0xff;
    queue_offer(&queue, (uint16_t)(slot * 3));
}

static void ring3_main(void)
{
    uint64_t start = rdtsc(), offered = 0;
    while (offered < depth)
        offer((uint16_t)offered, offered), offered++;
    queue_ring(&queue);
    for (uint64_t done = 0; done < requests; done++) {
        uint16_t slot = queue_wait(&queue, NULL) / 3;
        check(statuses[slot] == 0, "read %lu failed: %u", done, statuses[slot]);
        check(!pattern || *(uint64_t *)data[slot] == headers[slot].sector,
              "read %lu brought sector %lx, not %lx", done, *(uint64_t *)data[slot],
              headers[slot].sector);
        if (offered < requests) {
            offer(slot, offered++);
            queue_ring(&queue);
        }
    }
    uint64_t us = (rdtsc() - start) * 1000 / tsc_khz();
    print("queue %lu reads %lu us\n", requests, us);
    quit(0);
}

void guest_main(void)
{
    struct virtio blk;
    requests = option("requests", 1000);
    depth = option("depth", 1);
    pattern = has_option("pattern");
    check(depth >= 1 && depth <= MOST && depth <= requests, "depth=%lu", depth);
    check(virtio_find(VIRTIO_BLK, &blk), "no disk");
    virtio_start(&blk, VIRTIO_F_VERSION_1);
    virtio_add_queue(&blk, 0, &queue);
    virtio_ready(&blk);
    sectors = *(volatile uint32_t *)blk.device;
    for (uint16_t slot = 0; slot < depth; slot++)
        prepare(slot);
    queue.available.flags = 1; /* no interrupts */
    enter_ring3(ring3_main, user_stack + RING3_STACK);
}
