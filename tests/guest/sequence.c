/* SPDX-License-Identifier: MIT */
/* Expects: writes number after number, each to a sector of its own choice, by turns to two disks of
 * sectors=N, and the next one when the last is done; for ever. So what of them lies on a copy of
 * the disks tells at which moment that was made. Says "sequence N" now and then. */
#include "virtio.h"

enum { OUT = 1, OK = 0, SECTOR = 512, DISKS = 2, STEP = 7919, SAY = 256 };

static struct queue queues[DISKS];
static struct {
    uint32_t type, reserved;
    uint64_t sector;
} header;
static uint64_t data[SECTOR / 8];
static volatile uint8_t status;

static void write_sector(struct queue *queue, uint64_t sector)
{
    uint32_t written;

    header.type = OUT;
    header.sector = sector;
    status = 0xff;
    queue->descriptors[0] = (struct descriptor){(uint64_t)&header, sizeof(header), NEXT, 1};
    queue->descriptors[1] = (struct descriptor){(uint64_t)data, sizeof(data), NEXT, 2};
    queue->descriptors[2] = (struct descriptor){(uint64_t)&status, 1, WRITE, 0};
    queue_offer(queue, 0);
    queue_ring(queue);
    queue_wait(queue, &written);
    check(status == OK, "sector %lu cannot be written", sector);
}

void guest_main(void)
{
    struct virtio disks[DISKS];
    uint64_t sectors = option("sectors", 1000);
    unsigned slot = 0;

    for (unsigned i = 0; i < DISKS; i++) {
        check(virtio_find_from(VIRTIO_BLK, slot, &disks[i]), "disk %u is missing", i);
        slot = disks[i].slot + 1;
        virtio_start(&disks[i], VIRTIO_F_VERSION_1);
        virtio_add_queue(&disks[i], 0, &queues[i]);
        virtio_ready(&disks[i]);
    }
    for (uint64_t number = 1;; number++) {
        for (unsigned i = 0; i < SECTOR / 8; i++)
            data[i] = number;
        write_sector(&queues[number % DISKS], number / DISKS * STEP % sectors);
        if (number % SAY == 0)
            print("sequence %lu\n", number);
    }
}
