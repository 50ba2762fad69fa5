/* SPDX-License-Identifier: MIT */
/*
 * Written from the driver's half of the spec (2.7.13, 2.7.14), with none of the device's code: what
 * vring.c and this file agree on, they have from there. Little-endian hosts only.
 */
#include "tests/unit/model_driver.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    DESCRIPTOR = 16, /* bytes */
    TABLE_SIZE = 32,
    BUFFER_BYTES = 1 << 20,
    BUFFER_ALIGNMENT = 16,
};

_Noreturn static void give_up(const char *what)
{
    fprintf(stderr, "model driver: %s\n", what);
    abort();
}

/* Guest memory. */

void *model_bytes(const struct model_driver *driver, gpa_t gpa, size_t length)
{
    void *bytes;

    if (memory_borrow(driver->config.memory, gpa, length, &bytes) < 0)
        give_up("an address is not in RAM");
    return bytes;
}

static uint16_t *field_at(const struct model_driver *driver, gpa_t gpa)
{
    return model_bytes(driver, gpa, sizeof(uint16_t));
}

static uint16_t load(const struct model_driver *driver, gpa_t gpa)
{
    return __atomic_load_n(field_at(driver, gpa), __ATOMIC_ACQUIRE);
}

static void store(const struct model_driver *driver, gpa_t gpa, uint16_t value)
{
    __atomic_store_n(field_at(driver, gpa), value, __ATOMIC_RELEASE);
}

static uint32_t load_u32(const struct model_driver *driver, gpa_t gpa)
{
    return __atomic_load_n((uint32_t *)model_bytes(driver, gpa, 4), __ATOMIC_RELAXED);
}

static gpa_t available_index(const struct model_driver *driver)
{
    return driver->available + 2;
}

static gpa_t available_head(const struct model_driver *driver, uint16_t index)
{
    return driver->available + 4 + 2ull * (index % driver->size);
}

static gpa_t used_event(const struct model_driver *driver)
{
    return driver->available + 4 + 2ull * driver->size;
}

static gpa_t used_entry(const struct model_driver *driver, uint16_t index)
{
    return driver->used + 4 + 8ull * (index % driver->size);
}

uint16_t model_used_flags(const struct model_driver *driver)
{
    return load(driver, driver->used);
}

uint16_t model_used_index(const struct model_driver *driver)
{
    return load(driver, driver->used + 2);
}

uint16_t model_avail_event(const struct model_driver *driver)
{
    return load(driver, driver->used + 4 + 8ull * driver->size);
}

/* Places. */

static gpa_t place(gpa_t *at, uint64_t bytes, uint64_t alignment)
{
    gpa_t gpa = (*at + alignment - 1) / alignment * alignment;
    *at = gpa + bytes;
    return gpa;
}

void model_init(struct model_driver *driver, const struct model_config *config)
{
    uint16_t size = config->size;
    gpa_t at = config->base;

    if (size == 0 || size > VRING_MAX_SIZE || (size & (size - 1)) != 0)
        give_up("the size is no power of two up to VRING_MAX_SIZE");
    memset(driver, 0, sizeof(*driver));
    driver->config = *config;
    if (driver->config.table_size == 0)
        driver->config.table_size = TABLE_SIZE;
    if (driver->config.buffer_bytes == 0)
        driver->config.buffer_bytes = BUFFER_BYTES;
    driver->size = size;
    driver->descriptors = place(&at, size * 16ull, 16);
    driver->available = place(&at, 6 + size * 2ull, 2);
    driver->used = place(&at, 6 + size * 8ull, 4);
    uint64_t rings = at - config->base;
    driver->tables = place(&at, (uint64_t)size * driver->config.table_size * DESCRIPTOR, 16);
    driver->buffers = place(&at, driver->config.buffer_bytes, BUFFER_ALIGNMENT);
    memset(model_bytes(driver, config->base, rings), 0, rings);

    for (uint16_t i = 0; i < size; i++)
        driver->next[i] = (uint16_t)(i + 1);
    driver->free_count = size;
    driver->added = driver->shown = driver->seen = config->start;
    store(driver, available_index(driver), config->start);
    store(driver, driver->used + 2, config->start);
    store(driver, driver->used + 4 + 8ull * size, config->start);
    (void)model_want_interrupt(driver, 1);
}

gpa_t model_end(const struct model_driver *driver)
{
    return driver->buffers + driver->config.buffer_bytes;
}

struct vring_state model_places(const struct model_driver *driver)
{
    return (struct vring_state){
        .descriptors = driver->descriptors,
        .available = driver->available,
        .used = driver->used,
        .size = driver->size,
        .next_available = driver->config.start,
        .next_used = driver->config.start,
        .signalled = driver->config.start,
        .enabled = true,
    };
}

/* Buffers. */

gpa_t model_buffer(struct model_driver *driver, uint32_t length)
{
    uint32_t bytes = driver->config.buffer_bytes;

    if (length > bytes)
        give_up("a buffer is longer than buffer_bytes");
    if (length > bytes - driver->buffer_next)
        driver->buffer_next = 0;
    gpa_t gpa = driver->buffers + driver->buffer_next;
    uint32_t end = driver->buffer_next + length + BUFFER_ALIGNMENT - 1;
    end -= end % BUFFER_ALIGNMENT;
    driver->buffer_next = end < bytes ? end : 0;
    return gpa;
}

struct model_part model_out(struct model_driver *driver, const void *bytes, uint32_t length)
{
    gpa_t gpa = model_buffer(driver, length);

    if (length > 0)
        memcpy(model_bytes(driver, gpa, length), bytes, length);
    return (struct model_part){.gpa = gpa, .length = length};
}

struct model_part model_in(struct model_driver *driver, uint32_t length)
{
    gpa_t gpa = model_buffer(driver, length);

    memset(model_bytes(driver, gpa, length), 0xee, length);
    return (struct model_part){.gpa = gpa, .length = length, .writable = true};
}

/* Requests. */

void model_poke_descriptor(struct model_driver *driver, gpa_t table, unsigned index, gpa_t gpa,
                           uint32_t length, uint16_t flags, uint16_t next)
{
    uint8_t *at = model_bytes(driver, table + (uint64_t)index * DESCRIPTOR, DESCRIPTOR);

    memcpy(at, &gpa, 8);
    memcpy(at + 8, &length, 4);
    memcpy(at + 12, &flags, 2);
    memcpy(at + 14, &next, 2);
}

static void write_part(struct model_driver *driver, gpa_t table, unsigned index,
                       const struct model_part *part, bool last, uint16_t next)
{
    unsigned flags = (last ? 0 : MODEL_NEXT) | (part->writable ? MODEL_WRITE : 0);

    model_poke_descriptor(driver, table, index, part->gpa, part->length, (uint16_t)flags, next);
}

int model_add_mixed(struct model_driver *driver, const struct model_part *parts, unsigned count,
                    unsigned direct, uint64_t token)
{
    unsigned needed = direct < count ? direct + 1 : count;

    if (count == 0 || direct > count)
        give_up("a request without parts");
    if (count - direct > driver->config.table_size)
        give_up("a request of more parts than table_size");
    if (direct < count && !driver->config.indirect)
        give_up("indirect tables were not configured");
    if (needed > driver->free_count)
        return -ENOSPC;

    uint16_t head = driver->free_head;
    uint16_t at = head;
    for (unsigned i = 0; i < direct; i++) {
        write_part(driver, driver->descriptors, at, &parts[i], i + 1 == count, driver->next[at]);
        at = driver->next[at];
    }
    if (direct < count) {
        gpa_t table = driver->tables + (uint64_t)at * driver->config.table_size * DESCRIPTOR;
        for (unsigned i = direct; i < count; i++)
            write_part(driver, table, i - direct, &parts[i], i + 1 == count,
                       (uint16_t)(i - direct + 1));
        model_poke_descriptor(driver, driver->descriptors, at, table,
                              (count - direct) * (uint32_t)DESCRIPTOR, MODEL_INDIRECT, 0);
        at = driver->next[at];
    }
    driver->free_head = at;
    driver->free_count = (uint16_t)(driver->free_count - needed);
    driver->requests[head] = (struct model_request){token, (uint16_t)needed};
    store(driver, available_head(driver, driver->added++), head);
    return head;
}

int model_add(struct model_driver *driver, const struct model_part *parts, unsigned count,
              uint64_t token)
{
    return model_add_mixed(driver, parts, count, count, token);
}

int model_add_indirect(struct model_driver *driver, const struct model_part *parts, unsigned count,
                       uint64_t token)
{
    return model_add_mixed(driver, parts, count, 0, token);
}

bool model_show(struct model_driver *driver)
{
    uint16_t before = driver->shown;

    store(driver, available_index(driver), driver->added);
    driver->shown = driver->added;
    if (driver->shown == before)
        return false;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (!driver->config.event_index)
        return !(model_used_flags(driver) & MODEL_NO_NOTIFY);
    /* 2.7.13.4.1: told when the index that the device named was made available just now. */
    uint16_t event = model_avail_event(driver);
    for (uint16_t i = before; i != driver->shown; i++)
        if (i == event)
            return true;
    return false;
}

static void free_descriptors(struct model_driver *driver, uint16_t head, uint16_t count)
{
    uint16_t last = head;

    for (uint16_t i = 1; i < count; i++)
        last = driver->next[last];
    driver->next[last] = driver->free_head;
    driver->free_head = head;
    driver->free_count = (uint16_t)(driver->free_count + count);
}

int model_try_reap(struct model_driver *driver, struct model_done *ret_done)
{
    uint16_t waiting = (uint16_t)(model_used_index(driver) - driver->seen);

    if (waiting == 0)
        return 0;
    if (waiting > (uint16_t)(driver->shown - driver->seen))
        return -EPROTO;
    gpa_t entry = used_entry(driver, driver->seen);
    uint32_t head = load_u32(driver, entry);
    if (head >= driver->size || driver->requests[head].descriptors == 0)
        return -EPROTO;
    *ret_done = (struct model_done){.token = driver->requests[head].token,
                                    .written = load_u32(driver, entry + 4),
                                    .head = (uint16_t)head};
    driver->seen++;
    free_descriptors(driver, (uint16_t)head, driver->requests[head].descriptors);
    driver->requests[head].descriptors = 0;
    return 1;
}

bool model_reap(struct model_driver *driver, struct model_done *ret_done)
{
    int ret = model_try_reap(driver, ret_done);

    if (ret < 0)
        give_up("the device returned what it was not given");
    return ret > 0;
}

/* Interrupts. */

bool model_want_interrupt(struct model_driver *driver, unsigned after)
{
    uint16_t event = (uint16_t)(driver->seen + after - 1);

    store(driver, used_event(driver), event);
    store(driver, driver->available, 0);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return (uint16_t)(model_used_index(driver) - driver->seen) >=
           (driver->config.event_index ? after : 1);
}

void model_want_no_interrupt(struct model_driver *driver)
{
    /* With the event index the flag has no meaning, and an index just passed is none to come. */
    if (driver->config.event_index)
        store(driver, used_event(driver), (uint16_t)(driver->seen - 1));
    else
        store(driver, driver->available, MODEL_NO_INTERRUPT);
}

/* Liars. */

void model_poke_head(struct model_driver *driver, uint16_t head)
{
    store(driver, available_head(driver, driver->added++), head);
    (void)model_show(driver);
}

void model_poke_index(struct model_driver *driver, uint16_t index)
{
    store(driver, available_index(driver), index);
}
