/* SPDX-License-Identifier: MIT */
/*
 * A virtio device behind its PCI transport (the rng: what is tried is what all have in common)
 * under any sequence of register accesses, changes of guest memory, resets, pauses and strangers'
 * states.
 *
 * The input is a little program. Each step begins with a byte whose low four bits say what happens
 * (enum step; others are a step without effect). Its high four bits are the first operand:
 *
 *   READ, WRITE    a page of the BAR, or 4: the MSI-X table   [offset, width, WRITE: 4 bytes]
 *   CONFIG_READ, CONFIG_WRITE                                 [offset, width, WRITE: 4 bytes]
 *   FIELD          a field of common configuration            [4 bytes: written whole]
 *   MEMORY         -                                          [2 bytes: where in the ring, count,
 *                                                              bytes]
 *   DESCRIPTOR     its index                                  [4 bytes address, 2 length, flags,
 *                                                              next], and a head for it
 *   BRING_UP       features                                   what a good driver does
 *   REQUEST        segments                                   [length of each]
 *   LOAD           which device                               [count, (2 bytes position, xor)...]
 *   RING, TURN, PAUSE, RESUME, RESET, DRIVER_RESET
 *
 * What is checked, besides all that the sanitizers see: every state that occurs can be saved, a
 * refused state changes nothing, KVM has doorbells for enabled queues only, and whatever happened,
 * after a reset of the machine a good driver is served.
 */
#include "tests/fuzz/program.h"
#include "tests/unit/virtio_pci_rig.h"
#include "virtio/rng.h"
#include <sys/random.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

enum step {
    READ,
    WRITE,
    CONFIG_READ,
    CONFIG_WRITE,
    FIELD,
    MEMORY,
    DESCRIPTOR,
    BRING_UP,
    REQUEST,
    LOAD,
    RING,
    TURN,
    PAUSE,
    RESUME,
    RESET,
    DRIVER_RESET,
};

enum { DRIVER_AT = 0x1000, MSIX_PAGE = 4, STATUS = 0x14 };

static struct {
    struct pci_rig rig;
    struct model_driver driver;
    struct device *devices[2];
    bool running;
} pc;

static unsigned host_calls;

/* The host, the same in every run; now and then it has nothing. */
ssize_t getrandom(void *buffer, size_t length, unsigned flags)
{
    if (++host_calls % 7 == 0) {
        errno = EAGAIN;
        return -1;
    }
    memset(buffer, 0xa5, length);
    return (ssize_t)length;
}

static void put(unsigned offset, unsigned width, uint64_t value)
{
    reg_put(&pc.rig, COMMON, offset, width, value);
}

static void pause_all(void)
{
    pci_rig_pause(&pc.rig);
    pc.running = false;
}

static void resume_all(void)
{
    pci_rig_resume(&pc.rig);
    pc.running = true;
}

static void reset_all(void)
{
    pause_all();
    pci_rig_reset(&pc.rig);
    rig_require(pc.rig.board.count == 0);
    resume_all();
}

static void set_up(void)
{
    struct rng *rng;

    memset(&pc, 0, sizeof(pc));
    host_calls = 0;
    pci_rig_init(&pc.rig);
    rig_require(rng_create(&rng, &pc.rig.rig.world, NULL) == 0);
    rig_require(pci_rig_plug(&pc.rig, rng_virtio(rng), NULL) == 0);
    pc.devices[0] = virtio_pci_device(pc.rig.transport);
    pc.devices[1] = &rng_virtio(rng)->device;
    reset_all();
    walk_capabilities(&pc.rig);
}

static void bring_up(unsigned features)
{
    bool event_index = features & 1, indirect = features & 2;

    model_init(&pc.driver, &(struct model_config){.memory = pc.rig.rig.memory,
                                                  .base = DRIVER_AT,
                                                  .size = (uint16_t)(8u << (features >> 2)),
                                                  .event_index = event_index,
                                                  .indirect = indirect,
                                                  .buffer_bytes = 1 << 18});
    put(STATUS, 1, 0);
    put(STATUS, 1, 3);
    put(0x08, 4, 0);
    put(0x0c, 4, (event_index ? 1u << 29 : 0) | (indirect ? 1u << 28 : 0));
    put(0x08, 4, 1);
    put(0x0c, 4, 1);
    put(0x16, 2, 0);
    put(0x18, 2, pc.driver.size);
    put(0x20, 8, pc.driver.descriptors);
    put(0x28, 8, pc.driver.available);
    put(0x30, 8, pc.driver.used);
    put(0x1c, 2, 1);
    put(STATUS, 1, 15);
}

static void request(struct program *program, unsigned segments)
{
    struct model_part parts[16];
    struct model_done done;
    unsigned count = segments + 1;

    if (!pc.driver.size)
        return;
    for (unsigned i = 0; i < count; i++)
        parts[i] = model_in(&pc.driver, take(program) * 64u + 1);
    int ret = pc.driver.config.indirect ? model_add_indirect(&pc.driver, parts, count, 1)
                                        : model_add(&pc.driver, parts, count, 1);
    if (ret == 0 && model_show(&pc.driver))
        reg_put(&pc.rig, DOORBELLS, 0, 2, 0);
    while (model_try_reap(&pc.driver, &done) > 0)
        ;
}

static void access_bar(struct program *program, unsigned page, bool write)
{
    uint8_t offset = take(program), width = take(program);
    uint64_t base = page >= MSIX_PAGE ? config_get(&pc.rig, 0x18, 4) & ~0xfu
                                      : bar_base(&pc.rig) + 0x1000ull * page;

    if (write)
        guest_write(&pc.rig, base + offset, 1u << width % 4,
                    take_number(program, 4) * 0x100000001ull);
    else
        guest_read(&pc.rig, base + offset, 1u << width % 4);
}

static void access_config(struct program *program, bool write)
{
    uint8_t offset = take(program);
    unsigned width = 1u << take(program) % 3;

    if (write)
        config_put(&pc.rig, offset, width, take_number(program, 4));
    else
        config_get(&pc.rig, offset, width);
}

static void write_field(struct program *program, unsigned choice)
{
    static const struct {
        uint8_t offset, width;
    } fields[16] = {{0x00, 4}, {0x08, 4}, {0x0c, 4}, {0x10, 2}, {0x14, 1}, {0x16, 2},
                    {0x18, 2}, {0x1a, 2}, {0x1c, 2}, {0x20, 4}, {0x24, 4}, {0x28, 4},
                    {0x2c, 4}, {0x30, 4}, {0x34, 4}, {0x20, 8}};

    put(fields[choice].offset, fields[choice].width, take_number(program, 4));
}

static void write_memory(struct program *program)
{
    uint8_t bytes[256] = {0};
    gpa_t gpa = DRIVER_AT + take_number(program, 2) % 0x4000;
    unsigned count = take(program);

    for (unsigned i = 0; i < count; i++)
        bytes[i] = take(program);
    rig_require(memory_write(pc.rig.rig.memory, gpa, bytes, count) == 0);
}

static void write_descriptor(struct program *program, unsigned index)
{
    uint32_t gpa = take_number(program, 4), length = take_number(program, 2);
    uint8_t flags = take(program), next = take(program);

    if (!pc.driver.size)
        return;
    model_poke_descriptor(&pc.driver, pc.driver.descriptors, index % pc.driver.size, gpa, length,
                          flags, next);
    model_poke_head(&pc.driver, (uint16_t)index);
}

static void load_stranger(struct program *program, struct device *device)
{
    enum { CRC_SIZE = 4, END_SIZE = 1 + 3 + 4 + 2 + 4 + CRC_SIZE };
    struct state_item item = {device->table, device->instance, device->state};
    struct stream_buffer buffer;
    uint8_t before[2048];

    rig_require(device->table->size <= sizeof(before));
    pause_all();
    stream_buffer_init(&buffer, 0);
    rig_require(state_save(&buffer.stream, &item, 1) == 0);
    memcpy(before, device->state, device->table->size);

    size_t crc_at = buffer.length - END_SIZE - CRC_SIZE;
    for (unsigned n = take(program) % 16; n; n--) {
        size_t position = take_number(program, 2) % crc_at;
        buffer.bytes[position] ^= take(program);
    }
    uint32_t crc = crc32c(0, buffer.bytes, crc_at);
    memcpy(buffer.bytes + crc_at, &crc, CRC_SIZE);
    stream_buffer_rewind(&buffer);
    if (state_load(&buffer.stream, &item, 1, NULL) < 0)
        rig_require(memcmp(before, device->state, device->table->size) == 0);
    stream_buffer_finish(&buffer);
    resume_all();
}

static void check_state(void)
{
    for (unsigned i = 0; i < array_size(pc.devices); i++)
        rig_require(state_check(pc.devices[i]->table, pc.devices[i]->state, NULL) == 0);
    rig_require(pc.rig.board.count <= 1);
    /* A load may change the queue behind the transport's back, until the next reset. */
    rig_require(pc.rig.board.count == 0 || pc.rig.virtio->state->queues[0].enabled ||
                (pc.rig.virtio->state->status & VIRTIO_NEEDS_RESET));
}

/* What happens to a guest that stands still is not the guest's doing. */
static void do_host_step(struct program *program, enum step step, unsigned choice)
{
    switch (step) {
    case TURN:
        rig_turn(&pc.rig.rig);
        break;
    case LOAD:
        load_stranger(program, pc.devices[choice % 2]);
        break;
    case PAUSE:
        pause_all();
        break;
    case RESUME:
        if (!pc.running)
            resume_all();
        break;
    case RESET:
        reset_all();
        break;
    default:
        break;
    }
}

static void do_guest_step(struct program *program, enum step step, unsigned choice)
{
    switch (step) {
    case READ:
    case WRITE:
        access_bar(program, choice % 5, step == WRITE);
        break;
    case CONFIG_READ:
    case CONFIG_WRITE:
        access_config(program, step == CONFIG_WRITE);
        break;
    case FIELD:
        write_field(program, choice);
        break;
    case MEMORY:
        write_memory(program);
        break;
    case DESCRIPTOR:
        write_descriptor(program, choice);
        break;
    case BRING_UP:
        bring_up(choice);
        break;
    case REQUEST:
        request(program, choice);
        break;
    case RING:
        reg_put(&pc.rig, DOORBELLS, choice * 4, 1u << choice % 4, 0);
        break;
    case DRIVER_RESET:
        put(STATUS, 1, 0);
        break;
    default:
        break;
    }
}

static void check_as_new(void)
{
    struct model_done done;

    reset_all();
    bring_up(1);
    rig_turn(&pc.rig.rig);
    host_calls = 0;
    request(&(struct program){0}, 0);
    rig_turn(&pc.rig.rig);
    rig_require(model_reap(&pc.driver, &done) && done.written == 1);
    rig_require(pc.rig.chip.level[PCI_RIG_SLOT % 4]);
    rig_require(reg_get(&pc.rig, ISR, 0, 1) == 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct program program = {.at = bytes, .left = length};

    set_up();
    for (unsigned steps = 0; program.left && steps < 4096; steps++) {
        uint8_t first = take(&program);
        enum step step = first & 0x0f;
        do_host_step(&program, step, first >> 4);
        if (pc.running)
            do_guest_step(&program, step, first >> 4);
        check_state();
    }
    check_as_new();
    pci_rig_finish(&pc.rig);
    rig_require(pc.rig.board.count == 0);
    return 0;
}
