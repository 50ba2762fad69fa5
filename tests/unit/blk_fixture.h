/* SPDX-License-Identifier: MIT */
/* What the tests of the block device share: one with a fake disk, and its driver. */
#pragma once

#include "tests/unit/blk_rig.h"
#include "tests/unit/fake_disk.h"
#include "tests/unit/platform.h"
#include "tests/unit/unit.h"

/* One request from beginning to end: its status. */
static inline uint8_t blk_rig_run(struct blk_rig *rig, uint32_t type, uint64_t sector,
                                  const void *bytes, uint32_t length)
{
    struct blk_io *io = blk_rig_add(rig, 0, type, sector, bytes, length);
    rig_require(io != NULL);
    blk_rig_show(rig, 0);
    blk_rig_wait(rig);
    return blk_rig_status(rig, io);
}

enum { SIZE = 1 << 20, SECTORS = SIZE / 512, RING = 128 };

#define ALL_FEATURES                                                                           \
    (BLK_F_FLUSH | BLK_F_CONFIG_WCE | BLK_F_DISCARD | BLK_F_WRITE_ZEROES | VIRTIO_F_INDIRECT | \
     VIRTIO_F_EVENT_INDEX)

static struct {
    struct blk_rig rig;
    struct fake_disk fake;
    uint8_t bytes[SIZE];
    uint64_t seed;
} t;

/* The device breaks soon, or the test ends here. */
static inline void blk_rig_wait_for_break(struct blk_rig *rig)
{
    struct pollfd irq = {.fd = rig->irq, .events = POLLIN};
    uint64_t count;

    while (!(rig_status(rig->virtio) & VIRTIO_NEEDS_RESET)) {
        rig_require(poll(&irq, 1, BLK_PATIENCE_MS) == 1);
        rig_require(read(rig->irq, &count, sizeof(count)) == sizeof(count));
    }
}

/* Runs on the device's thread, and waits for it. */
struct blk_rig_errand {
    void (*handle)(void *arg);
    void *arg;
    int done;
};

static inline void blk_rig_handle_errand(void *arg)
{
    struct blk_rig_errand *errand = arg;
    uint64_t one = 1;
    errand->handle(errand->arg);
    rig_require(write(errand->done, &one, sizeof(one)) == sizeof(one));
}

static inline void blk_rig_on_thread(struct blk_rig *rig, void (*handle)(void *arg), void *arg)
{
    struct blk_rig_errand errand = {handle, arg, eventfd(0, EFD_CLOEXEC)};
    struct loop_call call = {.handle = blk_rig_handle_errand, .arg = &errand};
    uint64_t count;
    loop_post(rig->virtio->loop, &call);
    rig_require(read(errand.done, &count, sizeof(count)) == sizeof(count));
    close(errand.done);
}

static inline void start_with(uint64_t features)
{
    rig_resume(t.rig.virtio);
    blk_rig_start(&t.rig, features, RING);
}

/* Another driver takes over. */
static inline void restart(uint64_t features, uint16_t size)
{
    rig_set_status(t.rig.virtio, 0);
    ck_assert_uint_eq(rig_status(t.rig.virtio), 0);
    t.rig.io_count = t.rig.done_count = 0;
    blk_rig_start(&t.rig, features, size);
}

static inline void set_up(void)
{
    t.seed = 0x9e3779b97f4a7c15;
    for (unsigned i = 0; i < SIZE; i++)
        t.bytes[i] = (uint8_t)(i * 7 + i / 512);
    fake_disk_init(&t.fake, t.bytes, SIZE);
    blk_rig_init(&t.rig, &t.fake.disk, 1);
    start_with(ALL_FEATURES);
}

static inline void tear_down(void)
{
    blk_rig_finish(&t.rig);
}

static inline uint8_t config_byte(unsigned offset)
{
    virtio_lock(t.rig.virtio);
    uint64_t value = virtio_config_read(t.rig.virtio, offset, 1);
    virtio_unlock(t.rig.virtio);
    return (uint8_t)value;
}

static inline void write_config(unsigned offset, unsigned width, uint64_t value)
{
    virtio_lock(t.rig.virtio);
    virtio_config_write(t.rig.virtio, offset, width, value);
    virtio_unlock(t.rig.virtio);
}

static inline uint64_t config_number(unsigned offset, unsigned width)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < width; i++)
        value |= (uint64_t)config_byte(offset + i) << 8 * i;
    return value;
}

/* Cuts a stretch of guest memory into parts, anywhere. */
static inline unsigned cut(struct model_part *parts, gpa_t gpa, uint32_t length, bool writable,
                           unsigned most)
{
    unsigned count = 0;
    while (length > 0) {
        uint32_t part = length;
        if (count + 1 < most && chance(&t.seed) % 2)
            part = 1 + (uint32_t)(chance(&t.seed) % length);
        parts[count++] = (struct model_part){.gpa = gpa, .length = part, .writable = writable};
        gpa += part;
        length -= part;
    }
    return count;
}

/* A request whose header, data and status are cut into descriptors without any regard. */
static inline struct blk_io *add_cut(unsigned queue, uint32_t type, uint64_t sector,
                                     uint32_t length)
{
    struct model_driver *driver = &t.rig.drivers[queue];
    struct blk_io *io = &t.rig.ios[t.rig.io_count];
    struct model_part parts[24];
    bool writes = type == BLK_OUT;
    gpa_t gpa = model_buffer(driver, 16 + length + 1);
    struct blk_header header = {.type = type, .sector = sector};
    uint32_t readable = writes ? 16 + length : 16;

    memcpy(model_bytes(driver, gpa, 16), &header, 16);
    uint8_t *data = model_bytes(driver, gpa + 16, length);
    for (unsigned i = 0; i < length; i++)
        data[i] = (uint8_t)chance(&t.seed);
    *io = (struct blk_io){.data = {gpa + 16, length, !writes},
                          .status = {gpa + 16 + length, 1, true}};
    unsigned count = cut(parts, gpa, readable, false, 10);
    count += cut(parts + count, gpa + readable, 16 + length + 1 - readable, true, 10);
    return blk_rig_add_parts(&t.rig, queue, parts, count) ? io : NULL;
}

static inline void wait_until_held(unsigned count)
{
    while (__atomic_load_n(&t.fake.held_count, __ATOMIC_SEQ_CST) < count)
        usleep(100); /* it comes from another thread; nothing tells us */
}

static inline void hold(void *arg)
{
    t.fake.hold = true;
}
