/* SPDX-License-Identifier: MIT */
/*
 * A driver as the spec wants it, for one queue: for the tests of the ring and of every device, for
 * the fuzzers, and for benchmarks. It writes guest memory as a vCPU does (no dirty marks), may run
 * on a thread of its own beside the device, and aborts with a sentence when the test that uses it
 * is wrong. A block read, from beginning to end:
 *
 *     struct model_driver driver;
 *     model_init(&driver, &(struct model_config){.memory = memory, .base = 0x10000, .size = 128,
 *                                                .event_index = true, .indirect = true});
 *     ... hand driver.descriptors, .available, .used and .size to the device, or model_places() ...
 *
 *     struct model_part parts[] = {model_out(&driver, &header, sizeof(header)),
 *                                  model_in(&driver, 512), model_in(&driver, 1)};
 *     model_add(&driver, parts, 3, token);
 *     if (model_show(&driver))
 *         ... ring the doorbell, let the device work ...
 *     struct model_done done;
 *     while (model_reap(&driver, &done))
 *         ... done.token, done.written, model_bytes(&driver, parts[1].gpa, 512) ...
 *
 * What a liar does is at the end: it goes around all of the driver's bookkeeping.
 */
#pragma once

#include "core/memory.h"
#include "virtio/vring.h"

enum { MODEL_NEXT = 1, MODEL_WRITE = 2, MODEL_INDIRECT = 4 }; /* flags of a descriptor */
enum { MODEL_NO_INTERRUPT = 1, MODEL_NO_NOTIFY = 1 };         /* of the available, the used ring */

struct model_config {
    struct memory *memory;
    gpa_t base;    /* everything of the driver's lies from here on: see model_end() */
    uint16_t size; /* entries: a power of two */
    bool event_index;
    bool indirect;
    uint16_t table_size;   /* descriptors in an indirect table; 0: 32 */
    uint32_t buffer_bytes; /* what model_out and model_in share; 0: 1 MiB */
    uint16_t start;        /* where both indexes begin, as after many requests; a device has 0 */
};

/* A buffer of a request. Writable: by the device. */
struct model_part {
    gpa_t gpa;
    uint32_t length;
    bool writable;
};

struct model_done {
    uint64_t token;
    uint32_t written; /* bytes, says the device */
    uint16_t head;
};

/* One request that the device has, in the place of its head. */
struct model_request {
    uint64_t token;
    uint16_t descriptors; /* of the ring; 0: the driver has none under this head */
};

struct model_driver {
    struct model_config config;
    gpa_t descriptors, available, used; /* for the device */
    gpa_t tables, buffers;
    uint16_t size;

    uint16_t added;     /* requests put into the ring; free-running */
    uint16_t shown;     /* what the device can see of them */
    uint16_t seen;      /* requests that came back */
    uint16_t free_head; /* list of free descriptors */
    uint16_t free_count;
    uint32_t buffer_next;
    uint16_t next[VRING_MAX_SIZE];
    struct model_request requests[VRING_MAX_SIZE];
};

/* Clears the ring's places. Needs no finish. */
void model_init(struct model_driver *driver, const struct model_config *config);

/* The first address behind everything that the driver uses. */
gpa_t model_end(const struct model_driver *driver);

/* What a transport would leave in the state of an enabled queue. */
struct vring_state model_places(const struct model_driver *driver);

/*
 * Buffers, in guest memory. They are taken from one area, round and round: what was taken long ago
 * comes again, so a test with much in flight asks for enough buffer_bytes, and takes none for
 * requests that find no room in the ring.
 */
gpa_t model_buffer(struct model_driver *driver, uint32_t length);
struct model_part model_out(struct model_driver *driver, const void *bytes, uint32_t length);
struct model_part model_in(struct model_driver *driver, uint32_t length); /* filled with 0xee */

/* The bytes at an address, which lie in RAM. */
void *model_bytes(const struct model_driver *driver, gpa_t gpa, size_t length);

/*
 * Puts a request into the ring, not yet seen by the device; the token comes back with it. Returns
 * its head, or -ENOSPC when there are not enough descriptors. model_add_mixed has the first
 * `direct` parts in the ring and the others in an indirect table.
 */
int model_add(struct model_driver *driver, const struct model_part *parts, unsigned count,
              uint64_t token);
int model_add_indirect(struct model_driver *driver, const struct model_part *parts, unsigned count,
                       uint64_t token);
int model_add_mixed(struct model_driver *driver, const struct model_part *parts, unsigned count,
                    unsigned direct, uint64_t token);

/* Shows the device all that was added. True: it wants to be told (ring the doorbell). */
bool model_show(struct model_driver *driver);

/*
 * The next request that came back; false: none. model_reap aborts when the device returns what it
 * was not given; model_try_reap says -EPROTO, where a device under test may be wrong.
 */
bool model_reap(struct model_driver *driver, struct model_done *ret_done);
int model_try_reap(struct model_driver *driver, struct model_done *ret_done);

/*
 * Asks for an interrupt when `after` more requests have come back, 1 being the next one; without
 * the event index for every one. True: so many came already, and there may be no interrupt.
 */
bool model_want_interrupt(struct model_driver *driver, unsigned after);
void model_want_no_interrupt(struct model_driver *driver);

/* Requests that the device has, or will have with the next show. */
static inline unsigned model_outstanding(const struct model_driver *driver)
{
    return (uint16_t)(driver->added - driver->seen);
}

/* --- for liars -------------------------------------------------------------------------------- */

/* A descriptor at entry `index` of a table: the ring's (driver->descriptors), or any other. */
void model_poke_descriptor(struct model_driver *driver, gpa_t table, unsigned index, gpa_t gpa,
                           uint32_t length, uint16_t flags, uint16_t next);
/* A head in the place that comes next, and shown. */
void model_poke_head(struct model_driver *driver, uint16_t head);
/* The index of the available ring. */
void model_poke_index(struct model_driver *driver, uint16_t index);

/* What the device has written. */
uint16_t model_used_index(const struct model_driver *driver);
uint16_t model_used_flags(const struct model_driver *driver);
uint16_t model_avail_event(const struct model_driver *driver);
