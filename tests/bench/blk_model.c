/* SPDX-License-Identifier: MIT */
/*
 * What the block device alone costs: nanoseconds per request of 4 KiB, from the moment that a model
 * driver shows it to the moment that it comes back, all in one process and without a guest.
 *
 *   blk_model [FILE...]    FILE: an image of at least 1 MiB for the figures with a real disk
 *
 * "called": the driver calls the device, so nothing but our code and the disk's system calls is
 * counted. "thread": doorbell and interrupt are eventfds, as with KVM, and the device runs on its
 * own thread. The model driver's own work is part of every figure.
 */
#include "core/clock.h"
#include "host/disk_tap.h"
#include "tests/unit/blk_rig.h"
#include "tests/unit/fake_disk.h"
#include <time.h>

enum { SIZE = 1 << 20, PLACES = SIZE / 4096, ROUNDS = 21, REQUESTS = 6400, MOST = 32 };

struct bench {
    struct blk_rig rig;
    bool called;
    struct model_part parts[MOST][3];
    uint64_t seed;
};

static void handle_interrupt(void *ctx, unsigned queue)
{
    unsigned *count = ctx;
    (*count)++;
}

static void handle_config(void *ctx)
{
}

static uint64_t cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * NS_PER_SEC + (uint64_t)now.tv_nsec;
}

static void make_parts(struct bench *bench)
{
    struct model_driver *driver = &bench->rig.drivers[0];
    struct blk_header header = {0};

    for (unsigned i = 0; i < MOST; i++) {
        bench->parts[i][0] = model_out(driver, &header, sizeof(header));
        bench->parts[i][1] = (struct model_part){.gpa = model_buffer(driver, 8192), .length = 4096};
        bench->parts[i][1].gpa = (bench->parts[i][1].gpa + 4095) & ~4095ull;
        bench->parts[i][2] = model_in(driver, 1);
    }
}

static void ring(struct bench *bench)
{
    struct virtio *virtio = bench->rig.virtio;

    if (!bench->called) {
        virtio_ring_doorbell(virtio, 0);
        return;
    }
    virtio_lock(virtio);
    virtio->ops->notify(virtio, 0);
    virtio_unlock(virtio);
}

static void wait_for(struct bench *bench, unsigned count)
{
    struct model_driver *driver = &bench->rig.drivers[0];
    struct pollfd irq = {.fd = bench->rig.irq, .events = POLLIN};
    struct model_done done;
    uint64_t times;

    for (unsigned got = 0;;) {
        while (model_reap(driver, &done)) {
            rig_require(*(uint8_t *)model_bytes(driver, bench->parts[done.token][2].gpa, 1) == 0);
            got++;
        }
        if (got == count)
            return;
        if (bench->called || model_want_interrupt(driver, 1))
            continue;
        rig_require(poll(&irq, 1, BLK_PATIENCE_MS) == 1);
        rig_require(read(bench->rig.irq, &times, sizeof(times)) == sizeof(times));
    }
}

static void run_batch(struct bench *bench, bool writes, unsigned depth)
{
    struct model_driver *driver = &bench->rig.drivers[0];

    for (unsigned i = 0; i < depth; i++) {
        struct blk_header *header = model_bytes(driver, bench->parts[i][0].gpa, 16);
        bench->seed = bench->seed * 6364136223846793005ull + 1442695040888963407ull;
        *header = (struct blk_header){.type = writes ? BLK_OUT : BLK_IN,
                                      .sector = (bench->seed >> 33) % PLACES * 8};
        bench->parts[i][1].writable = !writes;
        rig_require(model_add_indirect(driver, bench->parts[i], 3, i) >= 0);
    }
    if (model_show(driver))
        ring(bench);
    wait_for(bench, depth);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void measure(struct bench *bench, const char *name, bool writes, unsigned depth)
{
    double ns[ROUNDS], cpu[ROUNDS];

    for (unsigned round = 0; round < ROUNDS; round++) {
        uint64_t began = clock_monotonic_ns(), cpu_began = cpu_ns();
        for (unsigned i = 0; i < REQUESTS / depth; i++)
            run_batch(bench, writes, depth);
        ns[round] = (double)(clock_monotonic_ns() - began) / REQUESTS;
        cpu[round] = (double)(cpu_ns() - cpu_began) / REQUESTS;
    }
    qsort(ns, ROUNDS, sizeof(ns[0]), compare);
    qsort(cpu, ROUNDS, sizeof(cpu[0]), compare);
    printf("%-34s %-6s %-5s %5u %9.0f  (%.0f to %.0f) %9.0f\n", name,
           bench->called ? "called" : "thread", writes ? "write" : "read", depth, ns[ROUNDS / 2],
           ns[1], ns[ROUNDS - 2], cpu[ROUNDS / 2]);
}

static void measure_disk(struct disk *disk, const char *name, bool called)
{
    static struct bench bench;
    static unsigned interrupts;

    bench = (struct bench){.called = called, .seed = 1};
    blk_rig_init(&bench.rig, disk, 1);
    if (called)
        bench.rig.rig.transport = (struct virtio_transport){.queue_interrupt = handle_interrupt,
                                                            .config_interrupt = handle_config,
                                                            .unplug = handle_config,
                                                            .ctx = &interrupts};
    rig_resume(bench.rig.virtio);
    blk_rig_start(&bench.rig, BLK_F_FLUSH | VIRTIO_F_INDIRECT | VIRTIO_F_EVENT_INDEX, 128);
    make_parts(&bench);
    for (unsigned i = 0; i < 4; i++)
        measure(&bench, name, i & 2, i & 1 ? MOST : 1);
    bench.rig.virtio->transport = NULL;
    blk_rig_finish(&bench.rig);
}

static void measure_file(const char *path)
{
    static const enum disk_engine engines[] = {DISK_ENGINE_URING, DISK_ENGINE_THREADS};
    struct err err = {0};

    for (unsigned i = 0; i < 4; i++) {
        struct disk_config config = {.path = path, .engine = engines[i / 2]};
        struct disk *disk;
        char name[128];
        if (disk_open(&disk, &config, &err) < 0 || disk->info.size < SIZE) {
            fprintf(stderr, "blk_model: %s\n", err.text[0] ? err.text : "the image is too small");
            exit(EXIT_FAILURE);
        }
        snprintf(name, sizeof(name), "%.20s: %s", path, disk->ops->name + sizeof("raw,"));
        measure_disk(disk, name, i % 2 == 0);
        disk_destroy(disk);
    }
}

static bool handle_change(void *ctx, const struct disk_request *request)
{
    return true;
}

/* Behind a tap, closed and open, whose listener does nothing. */
static void measure_tap(void)
{
    static const struct disk_tap_handlers handlers = {.change = handle_change};
    struct fake_disk fake;
    struct disk *disk;

    fake_disk_init(&fake, NULL, SIZE);
    rig_require(disk_tap_create(&disk, &fake.disk, NULL) == 0);
    measure_disk(disk, "nothing, a closed tap before it", true);
    disk_tap_open(disk_tap_of(disk), &handlers);
    measure_disk(disk, "nothing, an open tap before it", true);
    disk_destroy(disk);
}

int main(int argc, char **argv)
{
    static uint8_t bytes[SIZE];
    struct fake_disk fake;

    printf("%-34s %-6s %-5s %5s %9s  (2nd to %dth of %d) %6s\n", "4 KiB requests, ns each", "how",
           "what", "depth", "median", ROUNDS - 1, ROUNDS, "CPU");
    for (unsigned i = 0; i < 4; i++) {
        fake_disk_init(&fake, i / 2 ? bytes : NULL, SIZE);
        measure_disk(&fake.disk, i / 2 ? "memory" : "nothing", i % 2 == 0);
    }
    measure_tap();
    for (int i = 1; i < argc; i++)
        measure_file(argv[i]);
    return EXIT_SUCCESS;
}
