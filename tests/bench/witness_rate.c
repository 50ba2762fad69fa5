/* SPDX-License-Identifier: MIT */
/*
 * witness_rate FOLDER [N]: how long an exchange and a read take at a witness there; beside them,
 * what the file system takes at least: a new file with fsync, then a name for it with fsync of the
 * folder. The history is full before (WITNESS_FILE_KEEP records), as it is for most of its life.
 */
#include "core/clock.h"
#include "ft/witness_parts.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST = 5000 };

static int by_size(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static void tell(const char *what, uint64_t *ns, unsigned count)
{
    qsort(ns, count, sizeof(*ns), by_size);
    uint64_t half = ns[count / 2], most = ns[count * 99 / 100];
    printf("%-10s p50 %8.1f us   p99 %8.1f us\n", what, (double)half / 1e3, (double)most / 1e3);
}

static void require(bool good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "witness_rate: %s\n", what);
    exit(1);
}

static void floor_once(const char *path)
{
    char name[500], second[500];

    snprintf(name, sizeof(name), "%s/.floor", path);
    snprintf(second, sizeof(second), "%s/.floor-2", path);
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    require(folder >= 0 && fd >= 0 && write(fd, name, 200) == 200 && fsync(fd) == 0 &&
                link(name, second) == 0 && fsync(folder) == 0 && unlink(name) == 0 &&
                unlink(second) == 0,
            "no floor");
    close(fd);
    close(folder);
}

int main(int argc, char **argv)
{
    static uint64_t ns[MOST];
    static const uint8_t uuid[16] = {0xbe};
    struct ft_record is = {0}, next;
    struct err err = {0};
    struct witness *witness;
    char address[400];

    require(argc >= 2, "witness_rate FOLDER [N]");
    unsigned count = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 500;
    require(count > 0 && count <= MOST, "N is 1 to 5000");
    snprintf(address, sizeof(address), "file:%s", argv[1]);
    require(witness_open(&witness, address, &err) == 0, err.text);
    require(witness_read(witness, uuid, &is, &err) == 0, err.text);
    for (unsigned i = 0; i < WITNESS_FILE_KEEP + count; i++) {
        uint64_t from = clock_monotonic_ns();
        next = (struct ft_record){is.generation + 1, i + 1, 0};
        require(witness_exchange(witness, uuid, is.generation, &next, &is, &err) == 0, err.text);
        is = next;
        if (i >= WITNESS_FILE_KEEP)
            ns[i - WITNESS_FILE_KEEP] = clock_monotonic_ns() - from;
    }
    tell("exchange", ns, count);
    for (unsigned i = 0; i < count; i++) {
        uint64_t from = clock_monotonic_ns();
        require(witness_read(witness, uuid, &is, &err) == 0, err.text);
        ns[i] = clock_monotonic_ns() - from;
    }
    tell("read", ns, count);
    for (unsigned i = 0; i < count; i++) {
        uint64_t from = clock_monotonic_ns();
        floor_once(argv[1]);
        ns[i] = clock_monotonic_ns() - from;
    }
    tell("floor", ns, count);
    witness_close(witness);
    return 0;
}
