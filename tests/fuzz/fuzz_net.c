/* SPDX-License-Identifier: MIT */
/*
 * The network device between a guest and a network that both do what they like.
 *
 * The input is a little program. Each step begins with a byte whose low four bits say what happens
 * (enum step) and whose high four bits choose a queue or a value:
 *
 *   GIVE     [length in 16s, buffers, cuts]      buffers for receiving
 *   SEND     [header: 12, length in 16s, cuts]   a frame from the guest
 *   COMMAND  [length, bytes]                     on the control queue
 *   ARRIVE   [header: 12, length: 2, address]    a frame from the network
 *   POKE     [entry, flags, next, address: 2, length: 2]   a descriptor of a liar, and its head
 *   INDEX    [index: 2]                          an index of a liar
 *   START    [which features not: 2]             a reset, and a driver that starts
 *   LOAD     [count, (position, xor: 3)...]      a stranger's state
 *   the rest have no operands
 *
 * What is checked, besides all that the sanitizers see: no interface gets a frame that is too long
 * or too short (fake_netif.h), nothing spins (net_rig.h), each state that occurs can be saved, a
 * refused state changes nothing, and afterwards a driver that follows the rules sends and receives.
 */
#include "core/stream.h"
#include "tests/fuzz/program.h"
#include "tests/unit/net_rig.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

enum step {
    GIVE,
    SEND,
    COMMAND,
    ARRIVE,
    POKE,
    INDEX,
    START,
    LOAD,
    PUMP,
    FULL,
    LINK,
    ANNOUNCE,
    PAUSE,
    RESUME,
    REAP,
};

enum { PAIRS = 2, QUEUES = 2 * PAIRS + 1, MOST_STEPS = 1000 };

static struct rig rig;

static void take_bytes(struct program *program, uint8_t *to, size_t length)
{
    for (size_t i = 0; i < length; i++)
        to[i] = take(program);
}

static void add(unsigned queue, const struct model_part *parts, unsigned count, bool show)
{
    if (model_outstanding(&rig.drivers[queue]) < rig.drivers[queue].size &&
        model_add(&rig.drivers[queue], parts, count, 0) >= 0 && show)
        rig_show(&rig, queue);
}

static void give_buffers(struct program *program, unsigned queue)
{
    uint32_t length = take(program) * 16u + 1;
    unsigned buffers = take(program) % 64u + 1, cuts = take(program) % 4u + 1;
    struct model_part parts[4];

    for (unsigned i = 0; i < buffers; i++) {
        for (unsigned j = 0; j < cuts; j++)
            parts[j] = model_in(&rig.drivers[queue], length);
        add(queue, parts, cuts, true);
    }
}

static void send_frame(struct program *program, unsigned queue)
{
    static uint8_t frame[NETIF_HEADER + 255 * 300];
    struct model_part parts[4];

    take_bytes(program, frame, NETIF_HEADER);
    uint32_t length = take(program) * 300u + 1;
    unsigned cuts = take(program) % 4u + 1;
    for (unsigned i = 0; i < cuts; i++)
        parts[i] = model_out(&rig.drivers[queue], frame + i * (length / cuts), length / cuts + 1);
    add(queue, parts, cuts, true);
}

static void give_command(struct program *program)
{
    uint8_t bytes[256];
    unsigned length = take(program);
    struct model_driver *driver = &rig.drivers[rig.control];

    take_bytes(program, bytes, length);
    const struct model_part parts[] = {model_out(driver, bytes, length / 2),
                                       model_out(driver, bytes + length / 2, length - length / 2),
                                       model_in(driver, length % 3)};
    add(rig.control, parts, 3, true);
}

static void let_arrive(struct program *program, unsigned pair)
{
    static uint8_t frame[1 << 16];

    take_bytes(program, frame, NETIF_HEADER);
    unsigned length = (unsigned)take_number(program, 2);
    memset(frame + NETIF_HEADER, take(program), 16);
    if (rig.netif.in[pair % PAIRS].count < RIG_FIFO)
        rig_put(&rig.netif.in[pair % PAIRS], frame, length ? length : 1);
}

static void poke(struct program *program, unsigned queue)
{
    struct model_driver *driver = &rig.drivers[queue];
    unsigned entry = take(program);
    uint16_t flags = take(program), next = take(program);
    /* Up to 128 MiB: the end of RAM is in reach. */
    gpa_t gpa = (gpa_t)take_number(program, 2) << 11;

    model_poke_descriptor(driver, driver->descriptors, entry, gpa,
                          (unsigned)take_number(program, 2), flags, next);
    model_poke_head(driver, (uint16_t)entry);
    virtio_ring_doorbell(rig.virtio, queue);
}

static void start(struct program *program)
{
    uint64_t missing = (unsigned)take_number(program, 2);
    rig_start(&rig, ~(missing << 10 | missing >> 10));
}

static void load_stranger(struct program *program)
{
    enum { CRC_SIZE = 4, END_SIZE = 1 + 3 + 4 + 2 + 4 + CRC_SIZE };
    struct device *device = &rig.virtio->device;
    struct state_item item = {device->table, device->instance, device->state};
    struct stream_buffer buffer;
    static uint8_t before[8192];

    rig_require(device->table->size <= sizeof(before), "the state has grown");
    virtio_device_pause(device);
    stream_buffer_init(&buffer, 0);
    rig_require(state_save(&buffer.stream, &item, 1) == 0, "a state cannot be saved");
    memcpy(before, device->state, device->table->size);
    size_t crc_at = buffer.length - END_SIZE - CRC_SIZE;
    for (unsigned n = take(program) % 16u; n; n--) {
        size_t position = (unsigned)take_number(program, 2) % crc_at;
        buffer.bytes[position] ^= take(program);
    }
    uint32_t crc = crc32c(0, buffer.bytes, crc_at);
    memcpy(buffer.bytes + crc_at, &crc, CRC_SIZE);
    stream_buffer_rewind(&buffer);
    if (state_load(&buffer.stream, &item, 1, NULL) < 0)
        rig_require(memcmp(before, device->state, device->table->size) == 0,
                    "a refused state has changed something");
    stream_buffer_finish(&buffer);
    virtio_device_resume(device);
}

static void reap(unsigned queue)
{
    struct model_done done;
    while (model_try_reap(&rig.drivers[queue], &done) == 1)
        continue;
}

static void do_step(struct program *program)
{
    uint8_t step = take(program);
    unsigned choice = step >> 4, queue = choice % QUEUES, pair = choice % PAIRS;

    switch ((enum step)(step & 0x0f)) {
    case GIVE:
        give_buffers(program, 2 * pair);
        break;
    case SEND:
        send_frame(program, 2 * pair + 1);
        break;
    case COMMAND:
        give_command(program);
        break;
    case ARRIVE:
        let_arrive(program, pair);
        break;
    case POKE:
        poke(program, queue);
        break;
    case INDEX:
        model_poke_index(&rig.drivers[queue], (uint16_t)take_number(program, 2));
        virtio_ring_doorbell(rig.virtio, queue);
        break;
    case START:
        start(program);
        break;
    case LOAD:
        load_stranger(program);
        break;
    case PUMP:
        rig_pump(&rig);
        break;
    case FULL:
        rig.netif.full[pair] = choice & 2;
        break;
    case LINK:
        net_set_link(rig.net, choice & 1);
        if (choice & 2 && rig.virtio->running)
            rig.netif.handlers->link_changed(rig.netif.handlers->ctx, choice & 4);
        break;
    case ANNOUNCE:
        net_announce(rig.net);
        break;
    case PAUSE:
        virtio_device_pause(&rig.virtio->device);
        break;
    case RESUME:
        virtio_device_resume(&rig.virtio->device);
        break;
    case REAP:
        reap(queue);
        break;
    }
}

/* Whatever happened: after a reset the device is as good as new. */
static void check_as_new(void)
{
    static const uint8_t frame[NETIF_HEADER + 60];
    struct model_done done;

    for (unsigned i = 0; i < PAIRS; i++) {
        rig_empty(&rig.netif.in[i]);
        rig_empty(&rig.netif.out[i]);
        rig.netif.full[i] = false;
    }
    net_set_link(rig.net, true);
    rig_start(&rig, RIG_ALL);
    rig_pump(&rig);
    rig_empty(&rig.netif.out[0]); /* an announcement that was due */
    const struct model_part out = model_out(&rig.drivers[1], frame, sizeof(frame));
    const struct model_part in = model_in(&rig.drivers[0], 1600);
    add(1, &out, 1, true);
    add(0, &in, 1, true);
    rig_put(&rig.netif.in[0], frame, sizeof(frame));
    rig_pump(&rig);
    rig_require(rig.netif.out[0].count == 1, "it does not send any more");
    rig_require(model_try_reap(&rig.drivers[0], &done) == 1 && done.written == sizeof(frame),
                "it does not receive any more");
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct program program = {.at = bytes, .left = length};

    rig_create(&rig, &(struct netif_info){.offloads = 15},
               &(struct net_config){.queues = PAIRS, .mtu = 1500});
    rig_start(&rig, RIG_ALL);
    for (unsigned steps = 0; program.left && steps < MOST_STEPS; steps++)
        do_step(&program);
    virtio_device_resume(&rig.virtio->device);
    rig_pump(&rig);
    rig_require(state_check(rig.virtio->device.table, rig.virtio->device.state, NULL) == 0,
                "the state has left its table");
    check_as_new();
    rig_destroy(&rig);
    return 0;
}
