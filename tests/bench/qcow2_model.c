/* SPDX-License-Identifier: MIT */
/*
 * What a qcow2 image costs against a raw one: nanoseconds per random request of 4 KiB, through the
 * same interface, in turns, after all of both is allocated.
 *
 *   qemu-img create -f raw disk.raw 1G; qemu-img create -f qcow2 disk.qcow2 1G
 *   qcow2_model disk.raw disk.qcow2 [direct]
 */
#include "core/clock.h"
#include "host/disk.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 4096, FILL = 64 << 10, MOST = 32, ROUNDS = 21, REQUESTS = 6400 };

struct bench {
    struct disk *disk;
    struct loop *loop;
    struct disk_request requests[MOST];
    struct iovec iov[MOST];
    uint8_t *buffers;
    unsigned under_way;
    bool in_batch;
    uint64_t seed;
};

static void require(bool fine, const char *what)
{
    if (fine)
        return;
    fprintf(stderr, "qcow2_model: %s\n", what);
    exit(EXIT_FAILURE);
}

static void handle_done(struct disk_request *request, int result)
{
    struct bench *bench = request->arg;

    require(result == 0, "a request failed");
    if (--bench->under_way == 0 && bench->in_batch)
        loop_stop(bench->loop);
}

static void handle_begin(void *ctx)
{
    ((struct bench *)ctx)->in_batch = true;
}

static void handle_end(void *ctx)
{
    ((struct bench *)ctx)->in_batch = false;
}

static void run(struct bench *bench, unsigned count)
{
    bench->under_way = count;
    for (unsigned i = 0; i < count; i++)
        disk_submit(bench->disk, &bench->requests[i]);
    disk_kick(bench->disk);
    if (bench->under_way)
        require(loop_run(bench->loop) == 0, "the loop failed");
}

static void set(struct bench *bench, unsigned i, enum disk_op op, uint64_t offset, uint64_t length)
{
    bench->iov[i] = (struct iovec){.iov_base = bench->buffers + (size_t)i * BLOCK,
                                   .iov_len = length};
    bench->requests[i] = (struct disk_request){.op = op,
                                               .offset = offset,
                                               .length = length,
                                               .iov = &bench->iov[i],
                                               .iov_count = 1,
                                               .done = handle_done,
                                               .arg = bench};
}

static void open_bench(struct bench *bench, const char *path, enum disk_format format, bool direct,
                       enum disk_engine engine)
{
    struct disk_config config = {
        .path = path, .format = format, .direct = direct, .engine = engine};
    const struct disk_client client = {.begin = handle_begin, .end = handle_end, .ctx = bench};
    struct err err = {0};

    *bench = (struct bench){.seed = 1};
    require(loop_create(&bench->loop, NULL) == 0, "no loop");
    require(disk_open(&bench->disk, &config, &err) == 0, err.text);
    require(disk_attach(bench->disk, bench->loop, &client, NULL) == 0, "cannot attach");
    require(posix_memalign((void **)&bench->buffers, BLOCK, MOST * BLOCK) == 0, "no memory");
    memset(bench->buffers, 0x5a, MOST * BLOCK);
    /* One cluster at a time: the page cache gets pieces of the same size for both. */
    for (uint64_t at = 0; at + FILL <= bench->disk->info.size; at += FILL) {
        set(bench, 0, DISK_WRITE, at, FILL);
        run(bench, 1);
    }
    set(bench, 0, DISK_FLUSH, 0, 0);
    run(bench, 1);
}

static void close_bench(struct bench *bench)
{
    disk_drain(bench->disk);
    disk_detach(bench->disk);
    disk_destroy(bench->disk);
    loop_destroy(bench->loop);
    free(bench->buffers);
}

static double measure(struct bench *bench, enum disk_op op, unsigned depth)
{
    uint64_t blocks = bench->disk->info.size / BLOCK, began = clock_monotonic_ns();

    for (unsigned i = 0; i < REQUESTS / depth; i++) {
        for (unsigned j = 0; j < depth; j++) {
            bench->seed = bench->seed * 6364136223846793005ull + 1442695040888963407ull;
            set(bench, j, op, (bench->seed >> 33) % blocks * BLOCK, BLOCK);
        }
        run(bench, depth);
    }
    return (double)(clock_monotonic_ns() - began) / REQUESTS;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void measure_both(struct bench *benches, const char *engine, enum disk_op op, unsigned depth)
{
    double ns[2][ROUNDS];

    for (unsigned round = 0; round < ROUNDS; round++)
        for (unsigned i = 0; i < 2; i++)
            ns[i][round] = measure(&benches[i], op, depth);
    for (unsigned i = 0; i < 2; i++)
        qsort(ns[i], ROUNDS, sizeof(ns[i][0]), compare);
    printf("%-8s %-5s %5u %8.0f (%.0f to %.0f) %8.0f (%.0f to %.0f) %6.2f\n", engine,
           op == DISK_READ ? "read" : "write", depth, ns[0][ROUNDS / 2], ns[0][1],
           ns[0][ROUNDS - 2], ns[1][ROUNDS / 2], ns[1][1], ns[1][ROUNDS - 2],
           ns[0][ROUNDS / 2] / ns[1][ROUNDS / 2]);
}

int main(int argc, char **argv)
{
    static const enum disk_engine engines[] = {DISK_ENGINE_URING, DISK_ENGINE_THREADS};
    static struct bench benches[2];
    bool direct = argc > 3 && strcmp(argv[3], "direct") == 0;

    require(argc >= 3, "usage: qcow2_model RAW QCOW2 [direct]");
    printf("random requests of 4 KiB, ns each: median (2nd to %dth of %d); ratio of medians\n",
           ROUNDS - 1, ROUNDS);
    printf("%-8s %-5s %5s %8s %22s %19s\n", "engine", "what", "depth", "raw", "qcow2", "raw/qcow2");
    for (unsigned i = 0; i < 2; i++) {
        open_bench(&benches[0], argv[1], DISK_FORMAT_RAW, direct, engines[i]);
        open_bench(&benches[1], argv[2], DISK_FORMAT_QCOW2, direct, engines[i]);
        for (unsigned j = 0; j < 4; j++)
            measure_both(benches, i ? "threads" : "io_uring", j & 2 ? DISK_WRITE : DISK_READ,
                         j & 1 ? MOST : 1);
        close_bench(&benches[0]);
        close_bench(&benches[1]);
    }
    return EXIT_SUCCESS;
}
