/* SPDX-License-Identifier: MIT */
/*
 * Ranges lie in one sorted array under a reader-writer lock. A lookup copies what it needs and lets
 * go of the lock before the handler runs, so that a handler may move ranges itself (a guest that
 * writes a BAR) and no slow device holds up another.
 */
#include "core/bus.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct range {
    uint64_t base;
    uint64_t last; /* inclusive: a range may end at the top of the address space */
    const struct bus_ops *ops;
    void *device;
};

struct bus {
    pthread_rwlock_t lock;
    struct range *ranges;
    size_t count;
    size_t capacity;
    _Atomic uint64_t missed;
    void (*handle_miss)(void *ctx, bool is_write, uint64_t address, unsigned width);
    void *miss_ctx;
};

int bus_create(struct bus **ret_bus, struct err *err)
{
    struct bus *bus = calloc(1, sizeof(*bus));
    if (!bus)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot create a bus");
    pthread_rwlock_init(&bus->lock, NULL);
    *ret_bus = bus;
    return 0;
}

void bus_destroy(struct bus *bus)
{
    if (!bus)
        return;
    pthread_rwlock_destroy(&bus->lock);
    free(bus->ranges);
    free(bus);
}

/* The index of the first range that ends at or after address. */
static size_t find_locked(const struct bus *bus, uint64_t address)
{
    size_t low = 0, high = bus->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (bus->ranges[middle].last < address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static int insert_locked(struct bus *bus, const struct range *range, struct err *err)
{
    size_t at = find_locked(bus, range->base);
    if (at < bus->count && bus->ranges[at].base <= range->last)
        return err_say(err, ERR_FAILED, EEXIST, "%s at 0x%llx-0x%llx overlaps %s at 0x%llx-0x%llx",
                       range->ops->name, (unsigned long long)range->base,
                       (unsigned long long)range->last, bus->ranges[at].ops->name,
                       (unsigned long long)bus->ranges[at].base,
                       (unsigned long long)bus->ranges[at].last);
    if (bus->count == bus->capacity) {
        size_t capacity = bus->capacity ? bus->capacity * 2 : 16;
        struct range *ranges = reallocarray(bus->ranges, capacity, sizeof(*ranges));
        if (!ranges)
            return err_sys(err, ERR_HOST, ENOMEM, "cannot add %s to its bus", range->ops->name);
        bus->ranges = ranges;
        bus->capacity = capacity;
    }
    memmove(&bus->ranges[at + 1], &bus->ranges[at], (bus->count - at) * sizeof(*range));
    bus->ranges[at] = *range;
    bus->count++;
    return 0;
}

int bus_add(struct bus *bus, uint64_t base, uint64_t size, const struct bus_ops *ops, void *device,
            struct err *err)
{
    struct range range = {.base = base, .last = base + size - 1, .ops = ops, .device = device};
    if (size == 0 || range.last < base)
        return err_say(err, ERR_FAILED, EINVAL, "%s: a range of 0x%llx bytes at 0x%llx is none",
                       ops->name, (unsigned long long)size, (unsigned long long)base);
    pthread_rwlock_wrlock(&bus->lock);
    int ret = insert_locked(bus, &range, err);
    pthread_rwlock_unlock(&bus->lock);
    return ret;
}

void bus_remove(struct bus *bus, uint64_t base)
{
    pthread_rwlock_wrlock(&bus->lock);
    size_t at = find_locked(bus, base);
    if (at < bus->count && bus->ranges[at].base == base) {
        bus->count--;
        memmove(&bus->ranges[at], &bus->ranges[at + 1], (bus->count - at) * sizeof(bus->ranges[0]));
    }
    pthread_rwlock_unlock(&bus->lock);
}

/* The first range that any byte of the access meets. */
static bool lookup(struct bus *bus, uint64_t address, unsigned width, struct range *ret_range)
{
    pthread_rwlock_rdlock(&bus->lock);
    size_t at = find_locked(bus, address);
    bool found = at < bus->count &&
                 (bus->ranges[at].base <= address || bus->ranges[at].base - address < width);
    if (found)
        *ret_range = bus->ranges[at];
    pthread_rwlock_unlock(&bus->lock);
    return found;
}

static void miss(struct bus *bus, bool is_write, uint64_t address, unsigned width)
{
    atomic_fetch_add_explicit(&bus->missed, 1, memory_order_relaxed);
    if (bus->handle_miss)
        bus->handle_miss(bus->miss_ctx, is_write, address, width);
}

static uint64_t all_ones(unsigned width)
{
    return width == 8 ? UINT64_MAX : (1ull << (8 * width)) - 1;
}

/* True when the device takes this access in one piece. */
static bool takes(const struct range *range, uint64_t address, unsigned width)
{
    return width <= range->ops->max_width && range->base <= address &&
           range->last - address >= width - 1;
}

uint64_t bus_read(struct bus *bus, uint64_t address, unsigned width)
{
    assert(width == 1 || width == 2 || width == 4 || width == 8);
    struct range range;
    if (!lookup(bus, address, width, &range)) {
        miss(bus, false, address, width);
        return all_ones(width);
    }
    if (takes(&range, address, width))
        return range.ops->read(range.device, address - range.base, width) & all_ones(width);
    uint64_t value = 0;
    for (unsigned i = 0; i < width; i++)
        value |= bus_read(bus, address + i, 1) << (8 * i);
    return value;
}

void bus_write(struct bus *bus, uint64_t address, unsigned width, uint64_t value)
{
    assert(width == 1 || width == 2 || width == 4 || width == 8);
    struct range range;
    if (!lookup(bus, address, width, &range)) {
        miss(bus, true, address, width);
        return;
    }
    if (takes(&range, address, width)) {
        range.ops->write(range.device, address - range.base, width, value & all_ones(width));
        return;
    }
    for (unsigned i = 0; i < width; i++)
        bus_write(bus, address + i, 1, value >> (8 * i) & 0xff);
}

uint64_t bus_missed(const struct bus *bus)
{
    return atomic_load_explicit(&bus->missed, memory_order_relaxed);
}

void bus_watch_misses(struct bus *bus,
                      void (*handle)(void *ctx, bool is_write, uint64_t address, unsigned width),
                      void *ctx)
{
    bus->miss_ctx = ctx;
    bus->handle_miss = handle;
}
