/* SPDX-License-Identifier: MIT */
/* Expects: in ring 3, writes blocks of 4 KiB to its disk, the next one when the last is done, and
 * measures each by the TSC, from its offer until it is seen to be done. In each of rounds=N (0: for
 * ever) it does, and says of each "writer ROUND WHAT N p50 NS p99 NS max NS":
 *
 *   near=N       (1000) writes at random places of 4 MiB, one after the other
 *   paced=N      (100)  the same, one a millisecond; it sleeps in between
 *   far=N        (50)   like these, each in a MiB of its own, the same ones in each round
 *   new=N        (25)   like these, each in another MiB of the rest of the disk
 *   flushed=N    (100)  writes, each followed by a flush, which is what is measured; the last ones
 *                have to be there when they are read
 *   wiped=N      (0)    writes of blocks like `near`, of each of which all or the second half is
 *                discarded or zeroed then, which is what is measured
 *
 * Exits 0. With "tell" it does no rounds: for ever it writes the next number to block (number
 * modulo 1024), flushes, and says "told NUMBER". */
#include "virtio.h"

enum { IN = 0, OUT = 1, FLUSH = 4, DISCARD = 11, ZEROES = 13, OK = 0 };
enum { BLOCK = 4096, SECTORS = BLOCK / 512, MIB = 2048 /* sectors */, PLACES = 1024, LOOKS = 16 };
enum { BUFFERS = 64, MOST = 16384, STEP = 7919 /* a prime */, FIRST_FAR = 8 /* MiB */ };
enum { RING3_STACK = 16384, GENERAL_PROTECTION = 13, TIMER_VECTOR = 0x51, DIVIDE_BY_1 = 0xb };

static struct queue queue;
static struct {
    uint32_t type, reserved;
    uint64_t sector;
} header;
static uint8_t data[BUFFERS][BLOCK] __attribute__((aligned(4096)));
static volatile uint8_t status;
static uint32_t samples[MOST]; /* ns */
static uint8_t user_stack[RING3_STACK] __attribute__((aligned(16)));
static uint64_t writes, noted; /* noted: the last of those that are flushed; a block holds which */
static struct {
    uint64_t sector;
    uint32_t sectors, flags;
} range; /* of a wipe */
static uint64_t far_places, new_places, wipes;
static uint64_t far_writes, new_writes, dice = 88172645463325252;
static uint64_t next_turn; /* TSC */
static uint32_t apic_khz;

/* --- time --------------------------------------------------------------------------------- */

/* Ring 3 may not halt, and comes here when it does. */
static void handle_halt(struct frame *frame)
{
    uint64_t now = rdtsc();
    if (next_turn > now) {
        apic_write(APIC_TIMER_INITIAL, (uint32_t)((next_turn - now) * apic_khz / tsc_khz()));
        wait_for_interrupt();
    }
    next_turn = (next_turn > now ? next_turn : now) + tsc_khz();
    frame->rip++;
}

static void handle_timer(struct frame *frame)
{
    apic_eoi();
}

static void sleep(void)
{
    __asm__ volatile("hlt" : : : "memory");
}

/* --- requests ----------------------------------------------------------------------------- */

/* How long it took, in ns. bytes: NULL: none. */
static uint32_t do_request_of(uint32_t type, uint64_t sector, void *bytes, uint32_t length)
{
    uint16_t next = 1;
    header.type = type;
    header.sector = sector;
    status = 0xff;
    queue.descriptors[0] = (struct descriptor){(uint64_t)&header, sizeof(header), NEXT, 1};
    if (bytes) {
        uint16_t write = type == IN ? WRITE : 0;
        queue.descriptors[1] = (struct descriptor){(uint64_t)bytes, length, NEXT | write, 2};
        next = 2;
    }
    queue.descriptors[next] = (struct descriptor){(uint64_t)&status, 1, WRITE, 0};
    uint64_t start = rdtsc();
    queue_offer(&queue, 0);
    queue_ring(&queue);
    queue_wait(&queue, NULL);
    uint64_t ns = (rdtsc() - start) * 1000000 / tsc_khz();
    check(status == OK, "request %u of sector %lu: %u", type, sector, status);
    return ns < ~0u ? (uint32_t)ns : ~0u;
}

static uint32_t do_request(uint32_t type, uint64_t sector, uint8_t *block)
{
    return do_request_of(type, sector, block, BLOCK);
}

static uint32_t write_block(uint64_t sector, uint64_t value)
{
    uint8_t *block = data[++writes % BUFFERS];
    *(uint64_t *)block = value;
    return do_request(OUT, sector, block);
}

static uint64_t random_sector(void)
{
    dice ^= dice << 13;
    dice ^= dice >> 7;
    dice ^= dice << 17;
    return 4 * MIB + dice % PLACES * SECTORS;
}

/* Of two MiB one is left out: who writes to neighbours finds them noted ahead. */
static uint64_t far_sector(void)
{
    return (FIRST_FAR + 2 * (far_writes++ * STEP % far_places)) * MIB;
}

static uint64_t new_sector(void)
{
    return (FIRST_FAR + 2 * (far_places + new_writes++ * STEP % new_places)) * MIB;
}

static uint64_t noted_sector(uint64_t note)
{
    return note % PLACES * SECTORS;
}

/* --- rounds ------------------------------------------------------------------------------- */

static uint32_t near(void)
{
    return write_block(random_sector(), writes);
}

static uint32_t paced(void)
{
    sleep();
    return near();
}

static uint32_t far(void)
{
    sleep();
    return write_block(far_sector(), writes);
}

static uint32_t new (void)
{
    sleep();
    return write_block(new_sector(), writes);
}

static uint32_t flushed(void)
{
    noted++;
    write_block(noted_sector(noted), noted);
    return do_request(FLUSH, 0, NULL);
}

/* Discards, zeroes, and zeroes that may leave a hole, by turns. */
static uint32_t wiped(void)
{
    uint64_t way = wipes++ % 6, skipped = way % 2 * SECTORS / 2;
    range.sector = random_sector();
    write_block(range.sector, writes);
    range.sector += skipped;
    range.sectors = (uint32_t)(SECTORS - skipped);
    range.flags = way / 2 == 2;
    return do_request_of(way / 2 == 0 ? DISCARD : ZEROES, 0, &range, sizeof(range));
}

static void look(uint64_t count)
{
    for (uint64_t i = 0; i < LOOKS && i < count; i++) {
        do_request(IN, noted_sector(noted - i), data[0]);
        check(*(uint64_t *)data[0] == noted - i, "block %lu holds %lu", noted - i,
              *(uint64_t *)data[0]);
    }
}

/* By the gaps of Shell's method, each a third of the one before. */
static void sort(uint64_t count)
{
    for (uint64_t gap = 9841; gap; gap /= 3)
        for (uint64_t i = gap; i < count; i++) {
            uint32_t value = samples[i];
            uint64_t j = i;
            for (; j >= gap && samples[j - gap] > value; j -= gap)
                samples[j] = samples[j - gap];
            samples[j] = value;
        }
}

static void measure(uint64_t round, const char *what, uint64_t count, uint32_t (*once)(void))
{
    if (!count)
        return;
    next_turn = 0;
    for (uint64_t i = 0; i < count; i++)
        samples[i] = once();
    sort(count);
    print("writer %lu %s %lu p50 %u p99 %u max %u\n", round, what, count, samples[count / 2],
          samples[count * 99 / 100], samples[count - 1]);
}

static uint64_t rounds, near_count, paced_count, new_count, flush_count, wipe_count;
static bool tells;

static void ring3_main(void)
{
    while (tells) {
        flushed();
        print("told %lu\n", noted);
    }
    for (uint64_t round = 1; rounds == 0 || round <= rounds; round++) {
        measure(round, "near", near_count, near);
        measure(round, "paced", paced_count, paced);
        measure(round, "far", far_places, far);
        measure(round, "new", new_count, new);
        measure(round, "flushed", flush_count, flushed);
        look(flush_count);
        measure(round, "wiped", wipe_count, wiped);
    }
    quit(0);
}

static uint64_t count_option(const char *name, uint64_t otherwise)
{
    uint64_t count = option(name, otherwise);
    check(count <= MOST, "%s=%lu", name, count);
    return count;
}

static void start_disk(void)
{
    struct virtio blk;
    check(virtio_find(VIRTIO_BLK, &blk), "no disk");
    virtio_start(&blk, VIRTIO_F_VERSION_1 | 1 << 9 /* flush */ | 1 << 13 | 1 << 14 /* wipes */);
    virtio_add_queue(&blk, 0, &queue);
    virtio_ready(&blk);
    uint64_t mib = *(volatile uint32_t *)blk.device / MIB;
    check(mib > FIRST_FAR + 2 * far_places + 1, "a disk of %lu MiB is too small", mib);
    new_places = (mib - FIRST_FAR) / 2 - far_places;
    queue.available.flags = 1; /* no interrupts */
}

void guest_main(void)
{
    rounds = option("rounds", 0);
    near_count = count_option("near", 1000);
    paced_count = count_option("paced", 100);
    far_places = count_option("far", 50);
    new_count = count_option("new", 25);
    flush_count = count_option("flushed", 100);
    wipe_count = count_option("wiped", 0);
    tells = has_option("tell");
    start_disk();
    (void)tsc_khz(); /* asked for here, because CPUID is slow and ring 3 need not be allowed it */
    on_interrupt(GENERAL_PROTECTION, handle_halt);
    apic_khz = cpuid(0x40000010).b;
    apic_enable(false);
    on_interrupt(TIMER_VECTOR, handle_timer);
    apic_write(APIC_TIMER_DIVIDE, DIVIDE_BY_1);
    apic_write(APIC_LVT_TIMER, TIMER_VECTOR);
    enter_ring3(ring3_main, user_stack + RING3_STACK);
}
