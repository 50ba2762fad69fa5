/* SPDX-License-Identifier: MIT */
/*
 * The block device under a guest that does anything, a host that fails, and strangers' states.
 *
 * The input is a little program. Each step begins with a byte whose low four bits say what happens
 * (enum step; others are a step without effect) and whose high bit chooses one of two queues:
 *
 *   REQUEST     [type, sector (4), length in units of 64, cuts, range flags]
 *   DESCRIPTOR  [index, address in units of 256 (2), length (4), flags, next]     a liar's
 *   HEAD        [head]         INDEX [2]           CONFIG [offset, width, value]
 *   HOST        [bit 0: hold requests, bit 1: fail them]
 *   START       [features]     a driver's reset, and another driver
 *   LOAD        [count, (position (2), xor)...]    saves, changes, loads, resumes
 *   NOTIFY, RELEASE (what is held is done), PAUSE, RESET have no operands
 *
 * The device's own thread stands still: we do its work, so that an input does the same each time.
 * What is checked, besides all that the sanitizers see: nothing beyond the disk is asked of it
 * (fake_disk.h), the state can be saved at any time, and whatever happened, after a reset the
 * device reads a block as if new.
 */
#include "tests/fuzz/program.h"
#include "tests/unit/blk_rig.h"
#include "tests/unit/fake_disk.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

enum step {
    REQUEST,
    DESCRIPTOR,
    HEAD,
    INDEX,
    CONFIG,
    HOST,
    START,
    LOAD,
    NOTIFY,
    RELEASE,
    PAUSE,
    RESET,
};

enum { SIZE = 64 << 10, RING = 16, STEPS = 256 };

static struct {
    bool made;
    struct blk_rig rig;
    struct fake_disk fake;
    uint8_t bytes[SIZE];
} world;

static void ignore_queue(void *ctx, unsigned queue)
{
}

static void ignore(void *ctx)
{
}

static void make_world(void)
{
    fake_disk_init(&world.fake, world.bytes, SIZE);
    blk_rig_init(&world.rig, &world.fake.disk, BLK_RIG_QUEUES);
    world.rig.rig.transport = (struct virtio_transport){
        .queue_interrupt = ignore_queue, .config_interrupt = ignore, .unplug = ignore};
    loop_park(world.rig.virtio->loop); /* for good: a resume takes only its own park back */
    world.made = true;
}

static void start(uint64_t features)
{
    struct virtio *virtio = world.rig.virtio;

    for (unsigned i = 0; i < BLK_RIG_QUEUES; i++) {
        struct model_config config = {.memory = world.rig.rig.memory,
                                      .base = 0x10000 + 2 * i * BLK_RIG_AREA,
                                      .size = RING,
                                      .buffer_bytes = BLK_RIG_AREA / 4,
                                      .table_size = 32,
                                      .event_index = features & VIRTIO_F_EVENT_INDEX,
                                      .indirect = features & VIRTIO_F_INDIRECT};
        model_init(&world.rig.drivers[i], &config);
        rig_enable(virtio, i, &world.rig.drivers[i]);
    }
    rig_climb(virtio, features | VIRTIO_F_VERSION_1);
}

static void reset(void)
{
    struct virtio *virtio = world.rig.virtio;

    rig_pause(virtio);
    virtio->device.ops->reset(&virtio->device);
    world.fake.hold = false;
    world.fake.fail = 0;
    rig_resume(virtio);
}

static void notify(unsigned queue)
{
    struct virtio *virtio = world.rig.virtio;

    virtio_lock(virtio);
    if (virtio_ring(virtio, queue))
        virtio->ops->notify(virtio, queue);
    virtio_unlock(virtio);
}

static unsigned cut(struct model_part *parts, gpa_t gpa, uint32_t length, bool writable,
                    uint8_t cuts)
{
    unsigned count = 0;

    while (length > 0) {
        uint32_t part = count < 4 && (cuts >> count & 1) ? 1 + length / 3 : length;
        parts[count++] = (struct model_part){.gpa = gpa, .length = part, .writable = writable};
        gpa += part;
        length -= part;
    }
    return count;
}

static void add_request(struct program *program, unsigned queue)
{
    struct model_driver *driver = &world.rig.drivers[queue];
    struct blk_header header = {.type = take(program)};
    uint32_t sector = (uint32_t)take_number(program, 4);
    uint32_t length = take(program) * 64u;
    uint8_t cuts = take(program);
    struct blk_range range = {.sector = sector, .sectors = length / 64, .flags = take(program)};
    struct model_part parts[12];

    header.sector = sector & 0x80000000 ? (uint64_t)sector << 32 : sector;
    bool reads = header.type == BLK_IN || header.type == BLK_GET_ID;
    gpa_t gpa = model_buffer(driver, 16 + length + 1);
    memcpy(model_bytes(driver, gpa, 16), &header, 16);
    if (!reads && length >= sizeof(range))
        memcpy(model_bytes(driver, gpa + 16, sizeof(range)), &range, sizeof(range));
    uint32_t readable = reads ? 16 : 16 + length;
    unsigned count = cut(parts, gpa, readable, false, cuts);
    count += cut(parts + count, gpa + readable, 16 + length + 1 - readable, true, cuts >> 4);
    if ((driver->config.indirect ? model_add_indirect(driver, parts, count, 0)
                                 : model_add(driver, parts, count, 0)) >= 0)
        (void)model_show(driver);
}

static void poke_descriptor(struct program *program, struct model_driver *driver)
{
    uint8_t index = take(program);
    uint64_t address = take_number(program, 2) * 256;
    uint32_t length = (uint32_t)take_number(program, 4);
    uint8_t flags = take(program);

    model_poke_descriptor(driver, driver->descriptors, index % RING, address, length, flags,
                          take(program));
}

/* The state may be changed only in ways that its table lets through. */
static void load(struct program *program)
{
    struct virtio *virtio = world.rig.virtio;
    const struct state_table *table = virtio->device.table;
    struct state_item item = {table, 0, virtio->device.state};
    uint8_t *candidate = malloc(table->size);
    struct stream_buffer saved;

    rig_pause(virtio);
    stream_buffer_init(&saved, 1 << 20);
    require(state_save(&saved.stream, &item, 1) == 0);
    stream_buffer_finish(&saved);
    memcpy(candidate, virtio->device.state, table->size);
    for (unsigned count = take(program); count > 0; count--) {
        size_t at = take_number(program, 2) % table->size;
        candidate[at] ^= take(program);
    }
    if (state_check(table, candidate, NULL) == 0)
        memcpy(virtio->device.state, candidate, table->size);
    free(candidate);
    rig_resume(virtio);
}

static void run_step(struct program *program)
{
    uint8_t byte = take(program);
    unsigned queue = byte >> 7;
    struct virtio *virtio = world.rig.virtio;
    struct model_driver *driver = &world.rig.drivers[queue];

    switch (byte & 15) {
    case REQUEST:
        add_request(program, queue);
        break;
    case DESCRIPTOR:
        poke_descriptor(program, driver);
        break;
    case HEAD:
        model_poke_head(driver, take(program));
        break;
    case INDEX:
        model_poke_index(driver, (uint16_t)take_number(program, 2));
        break;
    case CONFIG: {
        unsigned offset = take(program), width = 1u << take(program) % 4;
        virtio_lock(virtio);
        virtio_config_write(virtio, offset, width, take(program));
        (void)virtio_config_read(virtio, offset, width);
        virtio_unlock(virtio);
        break;
    }
    case HOST: {
        uint8_t what = take(program);
        world.fake.hold = what & 1;
        world.fake.fail = what & 2 ? -5 : 0;
        break;
    }
    case START:
        rig_set_status(virtio, 0);
        start(take_number(program, 1) << 9 | (uint64_t)(take(program) & 3) << 28);
        break;
    case LOAD:
        load(program);
        break;
    case NOTIFY:
        notify(queue);
        break;
    case RELEASE:
        fake_disk_release(&world.fake);
        break;
    case PAUSE:
        rig_pause(virtio);
        rig_resume(virtio);
        break;
    case RESET:
        reset();
        break;
    }
}

static void require_a_working_device(void)
{
    struct model_done done;

    reset();
    start(BLK_F_FLUSH);
    world.rig.io_count = 0;
    memset(world.bytes, 0x5a, 512);
    struct blk_io *io = blk_rig_add(&world.rig, 0, BLK_IN, 0, NULL, 512);
    (void)model_show(&world.rig.drivers[0]);
    notify(0);
    require(model_reap(&world.rig.drivers[0], &done) && done.written == 513);
    require(blk_rig_status(&world.rig, io) == BLK_OK && blk_rig_data(&world.rig, io)[511] == 0x5a);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct program program = {.at = bytes, .left = length};

    if (!world.made)
        make_world();
    reset();
    start((uint64_t)take(&program) << 9 | (uint64_t)(take(&program) & 3) << 28);
    for (unsigned i = 0; i < STEPS && program.left > 0; i++)
        run_step(&program);
    require_a_working_device();
    return 0;
}
