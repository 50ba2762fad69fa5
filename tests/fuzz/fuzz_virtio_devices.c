/* SPDX-License-Identifier: MIT */
/*
 * Console, balloon and vsock under any sequence of a driver's doings, host events and strangers'
 * states.
 *
 * The first byte chooses the device, the rest is a little program. The low four bits of a step's
 * first byte say what happens (enum step), the high four choose a queue:
 *
 *   REQUEST     [count, per part: flags (1: for the device to write), length, bytes when it reads]
 *   DESCRIPTOR  [index, address in units of 256 (4), length (4), flags, next]     a liar's
 *   HEAD        [head]      INDEX [2]      CONFIG [offset, width, value (4)]
 *   START       [features, queues]         LOAD   [count, (position (2), xor)...]
 *   PACKET      [op, ports, length, flags, credit, bytes]       vsock's TX, a header in good order
 *   HOST        [what, operand]            RING, TURN, PAUSE, RESUME, RESET, OFFER have none
 *
 * What is checked, besides all that the sanitizers see: the state can be saved at any time, a
 * refused state changes nothing, every turn ends, and whatever happened, after a reset the device
 * serves a driver as if new.
 */
#include "tests/fuzz/program.h"
#include "tests/unit/device_rig.h"
#include "virtio/balloon.h"
#include "virtio/console.h"
#include "virtio/vsock.h"
#include "virtio/vsock_parts.h"
#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

enum step {
    REQUEST,
    DESCRIPTOR,
    HEAD,
    INDEX,
    CONFIG,
    START,
    LOAD,
    PACKET,
    HOST,
    RING,
    TURN,
    PAUSE,
    RESUME,
    RESET,
    OFFER,
};

enum { CONSOLE, BALLOON, VSOCK, DEVICES };
enum { PROGRAMS = 8, CID = 3, PORT = 80 };

static struct world {
    struct rig rig;
    unsigned kind;
    struct console *console;
    struct balloon *balloon;
    struct vsock *vsock;
    char path[80];
    int door;
    int programs[PROGRAMS];
    uint64_t output;
    size_t takes; /* bytes of the console */
    uint64_t number;
} * world;

static const uint8_t *take_bytes(struct program *program, uint32_t *length)
{
    const uint8_t *bytes = program->at;

    if (*length > program->left)
        *length = (uint32_t)program->left;
    program->at += *length;
    program->left -= *length;
    return bytes;
}

/* --- the world ------------------------------------------------------------------------------ */

static void handle_output(void *ctx, const uint8_t *bytes, size_t length)
{
    rig_require(bytes && length > 0);
    rig_require(length <= world->takes);
    world->output += length;
    if (world->takes < SIZE_MAX)
        world->takes -= length;
}

static size_t handle_takes(void *ctx)
{
    return world->takes;
}

static void handle_room(void *ctx)
{
}

static struct sockaddr_un address_of(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    return address;
}

static void open_door(void)
{
    char path[100];
    snprintf(path, sizeof(path), "%s_%d", world->path, PORT);
    struct sockaddr_un address = address_of(path);
    unlink(path);
    world->door = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    rig_require(bind(world->door, (struct sockaddr *)&address, sizeof(address)) == 0);
    rig_require(listen(world->door, 4) == 0);
}

static struct virtio *make_device(void)
{
    static const struct console_host host = {
        .output = handle_output, .input_room = handle_room, .output_takes = handle_takes};
    struct vsock_config config = {.cid = CID, .path = world->path};

    switch (world->kind) {
    case CONSOLE:
        rig_require(console_create(&world->console, &world->rig.world, &host, NULL) == 0);
        return console_virtio(world->console);
    case BALLOON:
        rig_require(balloon_create(&world->balloon, &world->rig.world, NULL) == 0);
        return balloon_virtio(world->balloon);
    default:
        rig_require(vsock_create(&world->vsock, &world->rig.world, &config, NULL) == 0);
        return vsock_virtio(world->vsock);
    }
}

static void set_up(unsigned kind)
{
    world = calloc(1, sizeof(*world));
    rig_require(world != NULL);
    world->kind = kind;
    world->door = -1;
    world->takes = SIZE_MAX;
    for (unsigned i = 0; i < PROGRAMS; i++)
        world->programs[i] = -1;
    snprintf(world->path, sizeof(world->path), "/tmp/fuzz-vsock-%d", (int)getpid());
    rig_init(&world->rig);
    rig_plug(&world->rig, make_device());
    if (kind == VSOCK)
        open_door();
}

static unsigned queue_count(void)
{
    return world->rig.virtio->queue_count;
}

static void start(uint64_t features, unsigned queues)
{
    struct rig *rig = &world->rig;
    if (!rig->virtio->running)
        rig_resume(rig);
    rig_start(rig, features & rig->virtio->offered, queues & ((1u << queue_count()) - 1));
    for (unsigned i = 0; i < queue_count(); i++) /* of those that are not enabled too */
        if (!(queues & 1u << i))
            model_init(&rig->queues[i], &(struct model_config){.memory = rig->memory,
                                                               .base = RIG_PLACES + i * RIG_PLACE,
                                                               .size = rig->queue_size,
                                                               .buffer_bytes = RIG_PLACE / 2});
}

static void tear_down(void)
{
    char path[100];
    for (unsigned i = 0; i < PROGRAMS; i++)
        if (world->programs[i] >= 0)
            close(world->programs[i]);
    if (world->door >= 0)
        close(world->door);
    snprintf(path, sizeof(path), "%s_%d", world->path, PORT);
    unlink(path);
    rig_finish(&world->rig);
    free(world);
}

/* --- steps ---------------------------------------------------------------------------------- */

static void request(struct program *program, struct model_driver *driver)
{
    struct model_part parts[8];
    unsigned count = take(program) % array_size(parts) + 1;

    for (unsigned i = 0; i < count; i++) {
        bool writable = take(program) & 1;
        uint32_t length = take(program);
        const uint8_t *bytes = writable ? NULL : take_bytes(program, &length);
        if (writable)
            parts[i] = model_in(driver, length * 64 + 1);
        else
            parts[i] = length ? model_out(driver, bytes, length)
                              : (struct model_part){.gpa = 0x4000, .length = 1u << 20};
    }
    if (model_add(driver, parts, count, 0) >= 0 && model_show(driver))
        virtio_ring_doorbell(world->rig.virtio, (unsigned)(driver - world->rig.queues));
}

static void lie(struct program *program, struct model_driver *driver)
{
    uint8_t index = take(program) % 64;
    gpa_t gpa = (gpa_t)take_u32(program) << 8;
    uint32_t length = take_u32(program);
    uint8_t flags = take(program);
    model_poke_descriptor(driver, driver->descriptors, index, gpa, length, flags, take(program));
}

static void send_packet(struct program *program)
{
    struct model_driver *driver = &world->rig.queues[VSOCK_TRANSMIT];
    uint8_t op = take(program), ports = take(program);
    struct vsock_header header = {.from_cid = CID,
                                  .to_cid = op & 0x80 ? 9 : VSOCK_HOST,
                                  .from_port = 50u + ports % 8,
                                  .to_port = ports & 0x80 ? PORT : (1u << 30) + ports / 8 % 8,
                                  .type = op & 0x40 ? 2 : VSOCK_STREAM,
                                  .op = op & 0x0f};
    uint32_t length = take(program) * 16u;
    header.flags = take(program);
    header.length = header.flags & 0x80 ? UINT32_MAX : length;
    header.buffer = take(program) * 1000u;
    struct model_part parts[] = {model_out(driver, &header, sizeof(header)),
                                 {.gpa = 0x8000, .length = length}};
    if (model_add(driver, parts, length ? 2 : 1, 0) >= 0 && model_show(driver))
        virtio_ring_doorbell(world->rig.virtio, VSOCK_TRANSMIT);
}

static void come_or_go(uint8_t what, uint8_t operand)
{
    struct sockaddr_un address = address_of(world->path);
    int *fd = &world->programs[operand % PROGRAMS];

    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    } else if (what & 1) {
        *fd = accept4(world->door, NULL, NULL, SOCK_NONBLOCK);
    } else {
        *fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
        if (connect(*fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
            close(*fd);
            *fd = -1;
        }
    }
}

/* Somebody holds what the guest says, and lets it go. */
static void gate(uint8_t operand)
{
    switch (operand % 4) {
    case 0:
        vsock_gate_hold(world->vsock, world->number);
        break;
    case 1:
        vsock_gate_mark(world->vsock, world->number += operand >> 7);
        break;
    case 2:
        vsock_gate_release(world->vsock, world->number - (operand >> 7));
        break;
    default:
        vsock_gate_open(world->vsock);
    }
}

static void host_of_vsock(uint8_t what, uint8_t operand)
{
    static uint8_t many[5000];
    char line[32];
    int fd = world->programs[operand % PROGRAMS];
    ssize_t done = 0;

    switch (what % 8) {
    case 0:
    case 1:
        come_or_go(what, operand);
        break;
    case 2:
        snprintf(line, sizeof(line), "CONNECT %d\n", 50 + operand / PROGRAMS % 8);
        done = send(fd, line, strlen(line), MSG_NOSIGNAL | MSG_DONTWAIT);
        break;
    case 3:
        done = send(fd, many, sizeof(many), MSG_NOSIGNAL | MSG_DONTWAIT);
        break;
    case 4:
        done = recv(fd, many, sizeof(many), MSG_DONTWAIT);
        break;
    case 5:
        shutdown(fd, operand & 0x80 ? SHUT_WR : SHUT_RD);
        break;
    case 6:
        gate(operand);
        break;
    default: /* time passes */
        virtio_lock(world->rig.virtio);
        for (unsigned i = 0; i < VSOCK_CONNS; i++)
            if (world->vsock->conns[i].deadline_ns)
                world->vsock->conns[i].deadline_ns = 1;
        vsock_wake_at(world->vsock, 1);
        virtio_unlock(world->rig.virtio);
    }
    (void)done; /* whether a program could do what it wanted is not the matter */
}

static void let_out(size_t takes)
{
    world->takes = takes;
    console_output_room(world->console);
}

static void host(struct program *program)
{
    static const uint8_t typed[256];
    uint8_t what = take(program), operand = take(program);
    struct balloon_stats stats;

    if (world->kind == CONSOLE && what & 2)
        let_out(what & 4 ? SIZE_MAX : operand);
    else if (world->kind == CONSOLE && what & 1)
        console_input(world->console, typed, operand);
    else if (world->kind == CONSOLE)
        console_set_size(world->console, operand, what);
    else if (world->kind == BALLOON && what & 1)
        balloon_stats(world->balloon, &stats);
    else if (world->kind == BALLOON)
        balloon_set_target(world->balloon, (uint64_t)operand << 16);
    else
        host_of_vsock(what, operand);
}

static void load_stranger(struct program *program)
{
    enum { CRC_SIZE = 4, END_SIZE = 1 + 3 + 4 + 2 + 4 + CRC_SIZE };
    struct device *device = &world->rig.virtio->device;
    struct state_item item = {device->table, device->instance, device->state};
    struct stream_buffer buffer;
    uint8_t before[2048];

    rig_require(device->table->size <= sizeof(before));
    rig_pause(&world->rig);
    stream_buffer_init(&buffer, 0);
    rig_require(state_save(&buffer.stream, &item, 1) == 0);
    memcpy(before, device->state, device->table->size);

    size_t crc_at = buffer.length - END_SIZE - CRC_SIZE;
    for (unsigned n = take(program) % 16; n; n--) {
        size_t position = take(program);
        position |= (size_t)take(program) << 8;
        buffer.bytes[position % crc_at] ^= take(program);
    }
    uint32_t crc = crc32c(0, buffer.bytes, crc_at);
    memcpy(buffer.bytes + crc_at, &crc, CRC_SIZE);
    stream_buffer_rewind(&buffer);
    if (state_load(&buffer.stream, &item, 1, NULL) < 0)
        rig_require(memcmp(before, device->state, device->table->size) == 0);
    stream_buffer_finish(&buffer);
    rig_resume(&world->rig);
}

static void turn(void)
{
    struct model_done done;

    for (unsigned i = 0; i < 4; i++)
        rig_turn(&world->rig);
    for (unsigned i = 0; i < queue_count(); i++)
        while (model_try_reap(&world->rig.queues[i], &done) > 0)
            ;
}

static void configure(struct program *program)
{
    uint8_t offset = take(program) % 16, width = (uint8_t)(1u << take(program) % 4);
    rig_config_write(&world->rig, offset, width, take_u32(program));
    rig_config_read(&world->rig, offset, width);
}

static void do_step(struct program *program)
{
    uint8_t step = take(program);
    unsigned queue = (step >> 4) % queue_count();
    struct model_driver *driver = &world->rig.queues[queue];
    uint8_t features;

    switch ((enum step)(step & 0x0f)) {
    case REQUEST:
        request(program, driver);
        break;
    case DESCRIPTOR:
        lie(program, driver);
        break;
    case HEAD:
        model_poke_head(driver, take(program));
        break;
    case INDEX:
        model_poke_index(driver, (uint16_t)take_u32(program));
        break;
    case CONFIG:
        configure(program);
        break;
    case START:
        features = take(program);
        start((uint64_t)(features & 0x3f) | (uint64_t)(features >> 6) << 28, take(program));
        break;
    case LOAD:
        load_stranger(program);
        break;
    case PACKET:
        if (world->kind == VSOCK)
            send_packet(program);
        break;
    case HOST:
        host(program);
        break;
    case RING:
        virtio_ring_doorbell(world->rig.virtio, queue);
        break;
    case TURN:
        turn();
        break;
    case PAUSE:
        rig_pause(&world->rig);
        break;
    case RESUME:
        rig_resume(&world->rig);
        break;
    case RESET:
        rig_pause(&world->rig);
        world->rig.virtio->device.ops->reset(&world->rig.virtio->device);
        rig_resume(&world->rig);
        break;
    case OFFER: {
        struct model_part part = model_in(driver, 2048);
        if (model_add(driver, &part, 1, 0) >= 0 && model_show(driver))
            virtio_ring_doorbell(world->rig.virtio, queue);
        break;
    }
    }
}

/* A driver begins anew, and gets what it asks for. */
static void check_as_new(void)
{
    struct rig *rig = &world->rig;
    unsigned queue = world->kind == BALLOON ? 0 : 1;
    struct vsock_header header = {.from_cid = CID, .to_cid = VSOCK_HOST, .op = VSOCK_OP_RW};
    struct model_done done;

    if (world->kind == CONSOLE)
        let_out(SIZE_MAX);
    if (world->kind == VSOCK)
        vsock_gate_open(world->vsock);
    start(world->kind == VSOCK, UINT8_MAX);
    uint64_t output = world->output;
    if (world->kind != BALLOON)
        rig_offer(rig, 0, 100);
    rig_send(rig, queue, &header, sizeof(header));
    rig_require(!rig_is_broken(rig) && model_reap(&rig->queues[queue], &done));
    if (world->kind == CONSOLE)
        rig_require(world->output == output + sizeof(header));
    if (world->kind == VSOCK)
        rig_require(model_reap(&rig->queues[0], &done) && done.written == sizeof(header));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct program program = {.at = bytes, .left = length};

    set_up(take(&program) % DEVICES);
    start(UINT64_MAX, UINT8_MAX);
    for (unsigned steps = 0; program.left && steps < 1024; steps++)
        do_step(&program);
    struct device *device = &world->rig.virtio->device;
    rig_require(state_check(device->table, device->state, NULL) == 0);
    check_as_new();
    tear_down();
    return 0;
}
