/* SPDX-License-Identifier: MIT */
/*
 * An address space of registers: one bus for ports, one for MMIO.
 *
 * Accesses come from vCPU threads, many at a time; each device locks itself. An access to nobody
 * reads all ones and writes into the void. An access that is wider than a device takes, or that
 * leaves its range, is split into bytes, each going where it belongs, as on the ISA bus.
 */
#pragma once

#include "core/err.h"

struct bus_ops {
    const char *name;
    unsigned max_width; /* widest single access the handlers take: 1, 2, 4 or 8 */
    /* offset is relative to the range, width is 1..max_width and inside it. */
    uint64_t (*read)(void *device, uint64_t offset, unsigned width);
    void (*write)(void *device, uint64_t offset, unsigned width, uint64_t value);
};

struct bus;

int bus_create(struct bus **ret_bus, struct err *err) must_check;
void bus_destroy(struct bus *bus);

/*
 * Adds [base, base + size). An overlap with another range is -EEXIST, an empty or wrapping range
 * -EINVAL. The device must outlive every vCPU that may still be inside a handler, not only the
 * range. (any thread)
 */
int bus_add(struct bus *bus, uint64_t base, uint64_t size, const struct bus_ops *ops, void *device,
            struct err *err) must_check;
void bus_remove(struct bus *bus, uint64_t base); /* (any thread) the range that starts at base */

/* width is 1, 2, 4 or 8. (any thread, handlers included) */
uint64_t bus_read(struct bus *bus, uint64_t address, unsigned width);
void bus_write(struct bus *bus, uint64_t address, unsigned width, uint64_t value);

/* How many accesses found nobody; for people, not for decisions. */
uint64_t bus_missed(const struct bus *bus);

/*
 * Tells of each access that finds nobody, on the thread that makes it. A guest can make millions:
 * the handler must be quick and limit what it says. Set before the first access.
 */
void bus_watch_misses(struct bus *bus,
                      void (*handle)(void *ctx, bool is_write, uint64_t address, unsigned width),
                      void *ctx);
