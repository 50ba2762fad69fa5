/* SPDX-License-Identifier: MIT */
/* Expects: the random device fills two buffers, tells of both by an MSI-X message, and they differ;
 * exits 0. */
#include "virtio.h"

enum { VECTOR = 0x50, LENGTH = 64 };

static struct queue queue;
static uint64_t buffers[2][LENGTH / 8];
static volatile unsigned interrupts;

static void handle_interrupt(struct frame *frame)
{
    interrupts++;
    apic_eoi();
}

void guest_main(void)
{
    struct virtio rng;
    check(virtio_find(VIRTIO_RNG, &rng), "no random device");
    on_interrupt(VECTOR, handle_interrupt);
    apic_enable(false);
    virtio_start(&rng, VIRTIO_F_VERSION_1);
    virtio_use_vector(&rng, 1, VECTOR);
    virtio_set_queue_vector(&rng, 0, 1);
    virtio_add_queue(&rng, 0, &queue);
    virtio_ready(&rng);

    for (uint16_t i = 0; i < 2; i++) {
        uint32_t written;
        queue.descriptors[i] = (struct descriptor){
            .address = (uint64_t)buffers[i], .length = LENGTH, .flags = WRITE};
        queue_offer(&queue, i);
        queue_ring(&queue);
        check(wait_for(&interrupts, i + 1u, 10000), "no interrupt for buffer %u", i);
        check(queue_wait(&queue, &written) == i, "buffer %u did not come back", i);
        check(written == LENGTH, "%u bytes written, not %u", written, LENGTH);
    }
    unsigned same = 0;
    for (unsigned i = 0; i < LENGTH / 8; i++)
        same += buffers[0][i] == buffers[1][i];
    check(same == 0, "%u of %u words are the same", same, LENGTH / 8);
    print("%u random bytes\n", 2 * LENGTH);
}
