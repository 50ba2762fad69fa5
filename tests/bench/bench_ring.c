/* SPDX-License-Identifier: MIT */
/*
 * What the ring alone costs: nanoseconds per request for the device's side, fed by the model driver
 * in the same process. Prints the median of many rounds and where the middle nine tenths lie.
 *
 *   batch     a full ring is popped and pushed, then published once
 *   single    each request is popped, pushed and published, and the device armed: with two fences
 */
#include "tests/unit/model_driver.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { SIZE = 256, ROUNDS = 4000, SEGMENT = 512 };

struct kind {
    const char *name;
    unsigned segments;
    bool indirect;
    bool single;
    bool logging; /* dirty marks, as during a migration */
};

static const struct kind kinds[] = {
    {"1 segment, batch", 1, false, false, false},
    {"3 segments, batch", 3, false, false, false},
    {"3 segments indirect, batch", 3, true, false, false},
    {"3 segments indirect, batch, dirty log", 3, true, false, true},
    {"16 segments indirect, batch", 16, true, false, false},
    {"1 segment, single", 1, false, true, false},
    {"3 segments indirect, single", 3, true, true, false},
};

struct bench {
    struct memory *memory;
    struct model_driver driver;
    struct vring_state state;
    struct vring ring;
};

static void give_up(const char *what)
{
    fprintf(stderr, "bench_ring: %s\n", what);
    exit(EXIT_FAILURE);
}

static double now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void start(struct bench *bench, const struct kind *kind)
{
    if (memory_create(&bench->memory, 64 << 20, 64 << 20, 4ull << 30, NULL) < 0)
        give_up("no memory");
    model_init(&bench->driver, &(struct model_config){.memory = bench->memory,
                                                      .base = 16 << 20,
                                                      .size = SIZE,
                                                      .event_index = true,
                                                      .indirect = true});
    bench->state = model_places(&bench->driver);
    vring_init(&bench->ring, &bench->state, bench->memory);
    if (vring_open(&bench->ring, true, true) < 0)
        give_up("the ring does not open");
    if (kind->logging && memory_log_start(bench->memory) < 0)
        give_up("no dirty log");
}

/* Fills the ring: the first part is read, the others are written. */
static unsigned fill(struct bench *bench, const struct kind *kind)
{
    struct model_part parts[16];
    unsigned n = 0;

    for (unsigned i = 0; i < kind->segments; i++)
        parts[i] = (struct model_part){model_buffer(&bench->driver, SEGMENT), SEGMENT, i > 0};
    while ((kind->indirect ? model_add_indirect(&bench->driver, parts, kind->segments, n)
                           : model_add(&bench->driver, parts, kind->segments, n)) >= 0)
        n++;
    (void)model_show(&bench->driver);
    return n;
}

static void serve(struct bench *bench, const struct kind *kind)
{
    struct iovec iov[16];
    struct vring_chain chain = {.iov = iov, .capacity = 16};
    bool told = false;

    while (vring_pop(&bench->ring, &chain) > 0) {
        vring_push(&bench->ring, &chain, (uint32_t)chain.writable_bytes);
        if (kind->single) {
            told |= vring_publish(&bench->ring);
            told |= vring_arm(&bench->ring);
        }
    }
    told |= vring_publish(&bench->ring);
    if (!told)
        give_up("the driver was not told");
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void measure(const struct kind *kind)
{
    static double ns[ROUNDS];
    struct bench bench;
    struct model_done done;

    start(&bench, kind);
    for (unsigned round = 0; round < ROUNDS; round++) {
        unsigned n = fill(&bench, kind);
        double begin = now_ns();
        serve(&bench, kind);
        ns[round] = (now_ns() - begin) / n;
        for (; model_reap(&bench.driver, &done); n--)
            ;
        if (n != 0)
            give_up("requests are missing");
        (void)model_want_interrupt(&bench.driver, 1);
    }
    qsort(ns, ROUNDS, sizeof(ns[0]), compare);
    printf("%-40s %7.1f ns  (%.1f to %.1f)\n", kind->name, ns[ROUNDS / 2], ns[ROUNDS / 20],
           ns[ROUNDS - 1 - ROUNDS / 20]);
    vring_close(&bench.ring);
    memory_destroy(bench.memory);
}

int main(void)
{
    printf("%-40s %10s  (5%% to 95%% of %d rounds)\n", "device's side, per request", "median",
           ROUNDS);
    for (size_t i = 0; i < array_size(kinds); i++)
        measure(&kinds[i]);
    return EXIT_SUCCESS;
}
