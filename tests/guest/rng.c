/* SPDX-License-Identifier: MIT */
/* Expects: the random device fills two buffers in turn, rounds=N (2) times, tells of each by an
 * MSI-X message of its own (a dot on the console), and in the end they differ; exits 0. */
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

    uint64_t rounds = option("rounds", 2);
    for (unsigned round = 0; round < rounds; round++) {
        uint16_t i = round % 2;
        uint32_t written;
        queue.descriptors[i] = (struct descriptor){
            .address = (uint64_t)buffers[i], .length = LENGTH, .flags = WRITE};
        queue_offer(&queue, i);
        queue_ring(&queue);
        check(wait_for(&interrupts, round + 1, 10000), "no interrupt in round %u", round);
        check(queue_wait(&queue, &written) == i, "buffer %u did not come back", i);
        check(written == LENGTH, "%u bytes written, not %u", written, LENGTH);
        print(".");
    }
    unsigned same = 0;
    for (unsigned i = 0; i < LENGTH / 8; i++)
        same += buffers[0][i] == buffers[1][i];
    check(same == 0, "%u of %u words are the same", same, LENGTH / 8);
    print("\n%lu random bytes\n", rounds * LENGTH);
}
