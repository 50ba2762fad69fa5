/* SPDX-License-Identifier: MIT */
/*
 * A guest that does anything to its ring while the device serves it. The input is a header of 8
 * bytes (size, features, where indexes begin, room for segments) and then commands of 16 bytes,
 * which write descriptors, heads, indexes or any bytes, or let the device pop, push, publish, arm,
 * put back, reopen, or load a state made of the input. What is popped is compared with the reading
 * of the spec in ring_reference.h; a device never holds more than a ring of requests; and what is
 * broken stays broken. memory.c and ASan watch the accesses.
 */
#include "tests/unit/model_driver.h"
#include "tests/unit/ring_reference.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

enum {
    RAM = 64 << 10, /* below the hole, and as much above it */
    COMMAND = 16,
    ROUNDS = 512,
    TABLE = 0x8000, /* where commands write indirect tables */
};

#define HIGH (4ull << 30)

struct device {
    struct memory *memory;
    struct model_driver driver;
    struct vring_state state;
    struct vring ring;
    bool event_index, indirect;
    struct reference ref;
    struct iovec iov[VRING_MAX_SIZE];
    unsigned capacity;
    unsigned held; /* popped, not yet pushed */
    uint16_t heads[VRING_MAX_SIZE];
};

static void expect(bool what)
{
    if (!what)
        abort();
}

static uint64_t number(const uint8_t *from, unsigned width)
{
    uint64_t value = 0;

    memcpy(&value, from, width);
    return value;
}

/* The device's steps. */

static void compare(struct device *device, int ret, unsigned head, const struct vring_chain *chain)
{
    reference_read(&device->ref, device->memory, device->state.descriptors, device->ring.size,
                   device->indirect, head);
    bool fits = reference_segments(&device->ref) <= chain->capacity;
    expect(ret == (!device->ref.legal ? -EPROTO : fits ? 1 : -E2BIG));
    if (ret == 1)
        expect(reference_equals(&device->ref, device->memory, chain));
    if (ret == -EPROTO)
        expect(device->ring.broken);
}

static uint16_t guest_field(struct device *device, gpa_t gpa)
{
    uint16_t value = 0;

    expect(memory_read(device->memory, gpa, &value, sizeof(value)) == 0);
    return value;
}

static void pop(struct device *device)
{
    struct vring_chain chain = {.iov = device->iov, .capacity = device->capacity};
    struct vring_state before = device->state;

    if (device->ring.broken || !device->ring.used) {
        expect(vring_pop(&device->ring, &chain) == -EPROTO);
        return;
    }
    uint16_t index = guest_field(device, before.available + 2);
    uint16_t waiting = (uint16_t)(index - before.next_available);
    unsigned flying = (uint16_t)(before.next_available - before.next_used);
    uint16_t slot = before.next_available % device->ring.size;
    uint16_t head = guest_field(device, before.available + 4 + 2ull * slot);
    int ret = vring_pop(&device->ring, &chain);

    if (waiting == 0) {
        expect(ret == 0);
    } else if (waiting + flying > device->ring.size) {
        expect(ret == -EPROTO && device->ring.broken);
    } else {
        compare(device, ret, head, &chain);
        if (ret != -EPROTO)
            device->heads[device->held++] = head;
    }
    expect(device->held <= device->ring.size);
}

static void push(struct device *device, unsigned which, uint32_t written)
{
    struct vring_chain chain = {.iov = device->iov, .capacity = device->capacity};

    if (device->held == 0)
        return;
    which %= device->held;
    uint16_t head = device->heads[which];
    int ret = vring_reopen(&device->ring, head, &chain);
    if (device->ring.used)
        compare(device, ret, head, &chain);
    if (ret == -EPROTO)
        return;
    if (written > chain.writable_bytes)
        written = (uint32_t)chain.writable_bytes;
    device->heads[which] = device->heads[--device->held];
    expect(iov_fill(vring_writable(&chain), chain.writable, 0, 0x5a, written) == written);
    vring_push(&device->ring, &chain, written);
}

static void unpop(struct device *device, unsigned count)
{
    count = device->held ? count % (device->held + 1) : 0;
    vring_unpop(&device->ring, count);
    device->held -= count;
}

/* As a state that somebody wrote, with what it says of places and indexes. */
static void load(struct device *device, const uint8_t *command)
{
    struct vring_state *state = &device->state;

    vring_close(&device->ring);
    switch (command[1] % 4) {
    case 0:
        state->next_available = (uint16_t)number(command + 2, 2);
        state->next_used = (uint16_t)number(command + 4, 2);
        break;
    case 1:
        state->size = (uint16_t)number(command + 2, 2);
        break;
    case 2:
        state->descriptors = number(command + 8, 8);
        break;
    default:
        *(command[2] % 2 ? &state->available : &state->used) = number(command + 8, 8);
    }
    device->held = 0; /* a device would have its heads from the same bytes */
    if (state_check(&vring_state_table, state, NULL) < 0)
        *state = model_places(&device->driver);
    int ret = vring_open(&device->ring, device->event_index, device->indirect);
    expect((ret < 0) == device->ring.broken);
    uint16_t flying = (uint16_t)(state->next_available - state->next_used);
    if (ret == 0) {
        expect(flying <= state->size);
        for (; device->held < flying; device->held++)
            device->heads[device->held] = (uint16_t)(command[3] + device->held);
    }
}

/* The guest's steps, and the choice between all. */

static void write_descriptor(struct device *device, const uint8_t *command)
{
    gpa_t gpa = number(command + 8, 8);
    bool in_ring = command[1] % 2;

    /* Near enough to RAM to be interesting, unless the highest bit says as it is. */
    if (!(gpa >> 63))
        gpa = gpa % (2 * RAM + 32) + (gpa >> 62 ? HIGH - RAM : 0);
    model_poke_descriptor(&device->driver, in_ring ? device->driver.descriptors : TABLE,
                          in_ring ? command[2] % device->driver.size : command[2] % 64, gpa,
                          (uint32_t)number(command + 4, command[1] & 0x80 ? 4 : 2),
                          command[1] >> 1 & 7, command[3]);
}

static void write_table(struct device *device, const uint8_t *command)
{
    model_poke_descriptor(&device->driver, device->driver.descriptors,
                          command[2] % device->driver.size, TABLE + command[3],
                          (uint32_t)number(command + 4, 2),
                          (uint16_t)(MODEL_INDIRECT | (command[1] & 3)), command[8]);
}

static void run_command(struct device *device, const uint8_t *command)
{
    switch (command[0] % 14) {
    case 0:
    case 1:
        write_descriptor(device, command);
        break;
    case 2:
        write_table(device, command);
        break;
    case 3:
    case 4:
        model_poke_head(&device->driver, command[1]);
        break;
    case 5:
        model_poke_index(&device->driver, (uint16_t)number(command + 2, 2));
        break;
    case 6:
        if (memory_write(device->memory, number(command + 2, 2), command + 4, 12) < 0)
            return;
        break;
    case 7:
    case 8:
        pop(device);
        break;
    case 9:
        push(device, command[1], (uint32_t)number(command + 4, 2));
        break;
    case 10:
        if (vring_publish(&device->ring))
            expect(!vring_publish(&device->ring));
        break;
    case 11:
        unpop(device, command[1]);
        break;
    case 12:
        vring_disarm(&device->ring);
        if (vring_arm(&device->ring))
            expect(vring_waiting(&device->ring) > 0);
        break;
    default:
        load(device, command);
    }
}

static void start(struct device *device, const uint8_t *header)
{
    struct model_config config = {
        .size = (uint16_t)(1u << header[0] % 6),
        .event_index = header[1] & 1,
        .indirect = header[1] & 2,
        .table_size = 4,
        .buffer_bytes = 4096,
        .start = (uint16_t)number(header + 2, 2),
    };

    expect(memory_create(&device->memory, 2 * RAM, RAM, HIGH, NULL) == 0);
    config.memory = device->memory;
    device->event_index = config.event_index;
    device->indirect = config.indirect;
    device->capacity = header[4] & 1 ? VRING_MAX_SIZE : header[4] >> 1 & 7;
    model_init(&device->driver, &config);
    device->state = model_places(&device->driver);
    vring_init(&device->ring, &device->state, device->memory);
    expect(vring_open(&device->ring, device->event_index, device->indirect) == 0);
    if (header[1] & 4)
        expect(memory_log_start(device->memory) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct device *device = calloc(1, sizeof(*device));

    expect(device != NULL);
    if (length >= 8) {
        start(device, bytes);
        bytes += 8;
        length -= 8;
        for (unsigned i = 0; i < ROUNDS && length >= COMMAND; i++) {
            bool broken = device->ring.broken;
            run_command(device, bytes);
            if (broken && bytes[0] % 14 != 13)
                expect(device->ring.broken);
            bytes += COMMAND;
            length -= COMMAND;
        }
        vring_close(&device->ring);
        memory_destroy(device->memory);
    }
    free(device);
    return 0;
}
