/* SPDX-License-Identifier: MIT */
/* The block device's requests: good ones, and those of a guest that lies. */
#include "tests/unit/blk_fixture.h"
#include <errno.h>
#include <fcntl.h>

/* Reading and writing. */

static void compare_with_shadow(struct blk_rig *rig, uint8_t *shadow, unsigned depth,
                                unsigned rounds)
{
    enum { MOST = 16 };
    struct blk_io *ios[64];

    for (unsigned round = 0; round < rounds; round++) {
        rig->io_count = rig->done_count = 0;
        for (unsigned i = 0; i < depth; i++) {
            uint64_t place = SECTORS / depth;
            uint32_t sectors = 1 + (uint32_t)(chance(&t.seed) % MOST);
            uint64_t sector = i * place + chance(&t.seed) % (place - MOST);
            bool writes = chance(&t.seed) % 2;
            unsigned queue = i % rig->virtio->queue_count;
            ios[i] = add_cut(queue, writes ? BLK_OUT : BLK_IN, sector, sectors * 512);
            ck_assert_ptr_nonnull(ios[i]);
            uint8_t *data = blk_rig_data(rig, ios[i]);
            if (writes) {
                memcpy(shadow + sector * 512, data, sectors * 512);
            } else { /* a mark for the comparison below */
                memset(data, 0, sectors * 512);
                memcpy(data, &sector, sizeof(sector));
            }
        }
        uint64_t sectors[64];
        for (unsigned i = 0; i < depth; i++)
            if (ios[i]->data.writable)
                memcpy(&sectors[i], blk_rig_data(rig, ios[i]), sizeof(sectors[i]));
        for (unsigned queue = 0; queue < rig->virtio->queue_count; queue++)
            blk_rig_show(rig, queue);
        blk_rig_wait(rig);
        for (unsigned i = 0; i < depth; i++) {
            ck_assert_uint_eq(blk_rig_status(rig, ios[i]), BLK_OK);
            ck_assert_uint_eq(ios[i]->written, ios[i]->data.writable ? ios[i]->data.length + 1 : 1);
            if (ios[i]->data.writable)
                ck_assert_mem_eq(blk_rig_data(rig, ios[i]), shadow + sectors[i] * 512,
                                 ios[i]->data.length);
        }
    }
}

/* Index: bit 0 event index, bit 1 indirect. */
START_TEST(every_byte_ends_where_it_should_however_requests_are_cut)
{
    static uint8_t shadow[SIZE];
    uint64_t features = (_i & 1 ? VIRTIO_F_EVENT_INDEX : 0) | (_i & 2 ? VIRTIO_F_INDIRECT : 0);

    memcpy(shadow, t.bytes, SIZE);
    restart(features | BLK_F_FLUSH, 256);
    for (unsigned depth = 1; depth <= 8; depth++)
        compare_with_shadow(&t.rig, shadow, depth, 40);
    ck_assert_mem_eq(shadow, t.bytes, SIZE);
}
END_TEST

/* Index: the engine. */
START_TEST(every_byte_ends_where_it_should_on_a_real_disk_with_many_queues)
{
    static const enum disk_engine engines[] = {DISK_ENGINE_URING, DISK_ENGINE_THREADS};
    static uint8_t shadow[SIZE];
    char path[] = "/tmp/minivmm-blk-XXXXXX";
    struct disk_config config = {.path = path, .engine = engines[_i]};
    struct disk *disk;
    int fd = mkstemp(path);

    t.seed = 42;
    memset(shadow, 0, SIZE);
    ck_assert(fd >= 0 && ftruncate(fd, SIZE) == 0);
    ck_assert_int_eq(disk_open(&disk, &config, NULL), 0);
    blk_rig_init(&t.rig, disk, 2);
    start_with(ALL_FEATURES | BLK_F_MQ);
    for (unsigned depth = 1; depth <= 64; depth *= 2)
        compare_with_shadow(&t.rig, shadow, depth, 40);
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_FLUSH, 0, NULL, 0), BLK_OK);
    ck_assert_int_eq(pread(fd, t.bytes, SIZE, 0), SIZE);
    ck_assert_mem_eq(shadow, t.bytes, SIZE);
    blk_rig_finish(&t.rig);
    disk_destroy(disk);
    close(fd);
    unlink(path);
}
END_TEST

START_TEST(a_request_has_as_many_segments_as_were_promised)
{
    enum { MOST = 254 };
    struct model_part parts[MOST + 2];
    struct model_driver *driver = &t.rig.drivers[0];
    struct blk_header header = {.type = BLK_IN, .sector = 1};

    ck_assert_uint_eq(config_number(12, 4), MOST);
    restart(ALL_FEATURES, 256);
    parts[0] = model_out(driver, &header, sizeof(header));
    for (unsigned i = 0; i < MOST; i++)
        parts[1 + i] = model_in(driver, 512);
    parts[MOST + 1] = t.rig.ios[0].status = model_in(driver, 1);
    ck_assert(blk_rig_add_parts(&t.rig, 0, parts, MOST + 2));
    blk_rig_show(&t.rig, 0);
    blk_rig_wait(&t.rig);
    ck_assert_uint_eq(blk_rig_status(&t.rig, &t.rig.ios[0]), BLK_OK);
    for (unsigned i = 0; i < MOST; i++)
        ck_assert_mem_eq(model_bytes(driver, parts[1 + i].gpa, 512), t.bytes + 512 * (1 + i), 512);
}
END_TEST

/* The other requests. */

START_TEST(the_serial_is_what_was_configured)
{
    struct blk_io *io = blk_rig_add(&t.rig, 0, BLK_GET_ID, 0, NULL, 20);

    blk_rig_show(&t.rig, 0);
    blk_rig_wait(&t.rig);
    ck_assert_uint_eq(blk_rig_status(&t.rig, io), BLK_OK);
    ck_assert_mem_eq(blk_rig_data(&t.rig, io), "SERIAL-0123456789abc", 20);
    ck_assert_uint_eq(io->written, 21);
    io = blk_rig_add(&t.rig, 0, BLK_GET_ID, 0, NULL, 4096); /* more room than there is to say */
    blk_rig_show(&t.rig, 0);
    blk_rig_wait(&t.rig);
    ck_assert_uint_eq(blk_rig_status(&t.rig, io), BLK_OK);
    ck_assert_uint_eq(io->written, 20);
}
END_TEST

START_TEST(what_nobody_knows_is_unsupported)
{
    static const uint32_t types[] = {2, 3, 5, 7, 10, 12, 14, 0x80000000, 0xffffffff};

    for (unsigned i = 0; i < array_size(types); i++)
        ck_assert_uint_eq(blk_rig_run(&t.rig, types[i], 0, NULL, 512), BLK_UNSUPP);
}
END_TEST

START_TEST(features_that_were_not_agreed_on_are_unsupported)
{
    struct blk_range range = {.sector = 1, .sectors = 1};

    restart(BLK_F_FLUSH, RING);
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_DISCARD, 0, &range, 16), BLK_UNSUPP);
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_ZEROES, 0, &range, 16), BLK_UNSUPP);
    ck_assert_uint_eq(t.fake.asked[DISK_DISCARD] + t.fake.asked[DISK_ZEROES], 0);
}
END_TEST

START_TEST(ranges_are_discarded_and_zeroed_one_by_one)
{
    struct blk_range ranges[16];

    for (unsigned i = 0; i < 16; i++)
        ranges[i] = (struct blk_range){.sector = i * 10, .sectors = i, .flags = i % 2};
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_ZEROES, 0, ranges, sizeof(ranges)), BLK_OK);
    ck_assert_uint_eq(t.fake.asked[DISK_ZEROES], 16);
    for (unsigned i = 0; i < 16; i++)
        for (unsigned j = 0; j < 10 * 512; j++) {
            unsigned at = i * 10 * 512 + j;
            ck_assert_uint_eq(t.bytes[at], j < i * 512 ? 0 : (uint8_t)(at * 7 + at / 512));
        }
    for (unsigned i = 0; i < 16; i++)
        ranges[i].flags = 0;
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_DISCARD, 0, ranges, sizeof(ranges)), BLK_OK);
    ck_assert_uint_eq(t.fake.asked[DISK_DISCARD], 16);
}
END_TEST

START_TEST(lying_ranges_are_errors)
{
    struct blk_range many[17] = {{0}}, range = {.sector = SECTORS - 1, .sectors = 2};

    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_DISCARD, 0, &range, 16), BLK_IOERR);
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_ZEROES, 0, &range, 16), BLK_IOERR);
    range = (struct blk_range){.sector = UINT64_MAX, .sectors = 1};
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_ZEROES, 0, &range, 16), BLK_IOERR);
    range = (struct blk_range){.sector = 0, .sectors = UINT32_MAX};
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_DISCARD, 0, &range, 16), BLK_IOERR);
    range = (struct blk_range){.sectors = 1, .flags = 1};
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_DISCARD, 0, &range, 16), BLK_UNSUPP);
    range.flags = 2;
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_ZEROES, 0, &range, 16), BLK_UNSUPP);
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_ZEROES, 0, many, sizeof(many)), BLK_IOERR);
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_ZEROES, 0, many, 15), BLK_IOERR);
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_DISCARD, 0, NULL, 0), BLK_IOERR);
    ck_assert_uint_eq(t.fake.asked[DISK_DISCARD] + t.fake.asked[DISK_ZEROES], 0);
}
END_TEST

/* Guests that lie. */

START_TEST(what_lies_beyond_the_disk_is_an_error)
{
    static const uint64_t sectors[] = {SECTORS,        SECTORS - 1, UINT64_MAX,
                                       UINT64_MAX - 1, 1ull << 55,  (1ull << 55) - 1};

    for (unsigned i = 0; i < array_size(sectors); i++) {
        ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_IN, sectors[i], NULL, 1024), BLK_IOERR);
        ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_OUT, sectors[i], t.bytes, 1024), BLK_IOERR);
    }
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_IN, SECTORS - 2, NULL, 1024), BLK_OK);
    ck_assert_uint_eq(t.fake.asked[DISK_READ] + t.fake.asked[DISK_WRITE], 1);
    ck_assert_uint_eq(t.rig.failures, 0); /* the guest's own fault is nobody's trouble */
}
END_TEST

START_TEST(parts_of_a_block_are_an_error)
{
    static const uint32_t lengths[] = {1, 511, 513, 1023};

    for (unsigned i = 0; i < array_size(lengths); i++) {
        ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_IN, 0, NULL, lengths[i]), BLK_IOERR);
        ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_OUT, 0, t.bytes, lengths[i]), BLK_IOERR);
    }
    ck_assert_uint_eq(t.fake.asked[DISK_READ] + t.fake.asked[DISK_WRITE], 0);
}
END_TEST

START_TEST(blocks_of_the_disk_are_what_counts)
{
    blk_rig_finish(&t.rig);
    t.fake.disk.info.block_size = 4096;
    blk_rig_init(&t.rig, &t.fake.disk, 1);
    start_with(ALL_FEATURES);
    ck_assert_uint_eq(config_number(20, 4), 4096);
    ck_assert_uint_eq(config_number(0, 8), SECTORS);
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_IN, 8, NULL, 4096), BLK_OK);
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_IN, 1, NULL, 4096), BLK_IOERR);
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_OUT, 8, t.bytes, 512), BLK_IOERR);
}
END_TEST

/* Offsets of 5.2.4. */
START_TEST(the_configuration_tells_topology_and_limits)
{
    enum { TOPOLOGY = 1 << 10 };

    blk_rig_finish(&t.rig);
    t.fake.disk.info.optimal_size = 64 << 10;
    blk_rig_init(&t.rig, &t.fake.disk, 2);
    ck_assert(virtio_offered(t.rig.virtio, 0) & TOPOLOGY);
    start_with(ALL_FEATURES | BLK_F_MQ | TOPOLOGY);
    ck_assert_uint_eq(config_number(0, 8), SECTORS);
    ck_assert_uint_eq(config_number(20, 4), 512);
    ck_assert_uint_eq(config_byte(24), 7);        /* 2^7 blocks are a physical one */
    ck_assert_uint_eq(config_byte(25), 0);        /* the first of which begins at 0 */
    ck_assert_uint_eq(config_number(26, 2), 128); /* blocks that are good to write at once */
    ck_assert_uint_eq(config_number(28, 4), 0);
    ck_assert_uint_eq(config_number(34, 2), 2); /* queues */
    ck_assert_uint_eq(config_number(36, 4), (1 << 30) / 512);
    ck_assert_uint_eq(config_number(40, 4), 16);
    ck_assert_uint_eq(config_number(44, 4), 128);
    ck_assert_uint_eq(config_number(48, 4), (64 << 20) / 512);
    ck_assert_uint_eq(config_number(52, 4), 16);
    ck_assert_uint_eq(config_byte(56), 1);

    blk_rig_finish(&t.rig);
    t.fake.disk.info.block_size = t.fake.disk.info.optimal_size = 4096;
    t.fake.disk.info.discard = false;
    blk_rig_init(&t.rig, &t.fake.disk, 1);
    ck_assert_uint_eq(config_byte(24), 0);
    ck_assert_uint_eq(config_number(26, 2), 1);
    ck_assert_uint_eq(config_number(36, 4), 0);
    ck_assert_uint_eq(config_byte(56), 0);
    start_with(BLK_F_FLUSH);
}
END_TEST

START_TEST(a_readonly_disk_is_not_written)
{
    struct blk_range range = {.sector = 1, .sectors = 1};

    blk_rig_finish(&t.rig);
    t.fake.disk.info.readonly = true;
    blk_rig_init(&t.rig, &t.fake.disk, 1);
    ck_assert(virtio_offered(t.rig.virtio, 0) & 1u << 5);
    ck_assert(!(virtio_offered(t.rig.virtio, 0) & (BLK_F_DISCARD | BLK_F_WRITE_ZEROES)));
    start_with(BLK_F_FLUSH);
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_OUT, 0, t.bytes, 512), BLK_IOERR);
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_ZEROES, 0, &range, 16), BLK_UNSUPP);
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_IN, 0, NULL, 512), BLK_OK);
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_FLUSH, 0, NULL, 0), BLK_OK);
}
END_TEST

/* Index: what is missing. */
START_TEST(a_request_without_room_for_an_answer_breaks_the_device)
{
    struct model_driver *driver = &t.rig.drivers[0];
    struct blk_header header = {.type = BLK_IN};
    struct model_part no_status[] = {model_out(driver, &header, sizeof(header))};
    struct model_part half_header[] = {model_out(driver, &header, 15), model_in(driver, 513)};
    struct model_part no_header[] = {model_in(driver, 513)};
    const struct model_part *parts[] = {no_status, half_header, no_header};
    static const unsigned counts[] = {1, 2, 1};

    blk_rig_add_parts(&t.rig, 0, parts[_i], counts[_i]);
    blk_rig_show(&t.rig, 0);
    blk_rig_wait_for_break(&t.rig);
    /* And after a reset all is well. */
    restart(ALL_FEATURES, RING);
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_IN, 0, NULL, 512), BLK_OK);
}
END_TEST

START_TEST(the_same_request_twice_breaks_the_device)
{
    struct blk_io *io;

    blk_rig_on_thread(&t.rig, hold, NULL);
    io = blk_rig_add(&t.rig, 0, BLK_IN, 0, NULL, 512);
    blk_rig_show(&t.rig, 0);
    wait_until_held(1);
    uint8_t untouched = blk_rig_status(&t.rig, io);
    model_poke_head(&t.rig.drivers[0], 0);
    virtio_ring_doorbell(t.rig.virtio, 0);
    blk_rig_wait_for_break(&t.rig);
    blk_rig_on_thread(&t.rig, fake_disk_release, &t.fake);
    ck_assert_uint_eq(blk_rig_status(&t.rig, io), untouched); /* a broken device is silent */
}
END_TEST

START_TEST(a_flood_of_doorbells_is_no_work)
{
    for (unsigned i = 0; i < 100000; i++)
        virtio_ring_doorbell(t.rig.virtio, 0);
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_IN, 0, NULL, 512), BLK_OK);
    ck_assert_uint_eq(t.fake.asked[DISK_READ], 1);
}
END_TEST

/* The host fails. */

static void fail_with_enospc(void *arg)
{
    t.fake.fail = -ENOSPC;
    t.fake.fail_op = DISK_WRITE;
}

static void fail_all(void *arg)
{
    t.fake.fail = -EIO;
    t.fake.fail_op = 0;
}

static void fail_no_more(void *arg)
{
    t.fake.fail = 0;
}

START_TEST(errors_of_the_host_reach_guest_and_owner)
{
    struct blk_range range = {.sector = 1, .sectors = 1};

    blk_rig_on_thread(&t.rig, fail_with_enospc, NULL);
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_OUT, 0, t.bytes, 512), BLK_IOERR);
    ck_assert_uint_eq(t.rig.failures, 1);
    ck_assert_int_eq(t.rig.last_failure, ENOSPC);
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_IN, 0, NULL, 512), BLK_OK);
    blk_rig_on_thread(&t.rig, fail_all, NULL);
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_IN, 0, NULL, 512), BLK_IOERR);
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_FLUSH, 0, NULL, 0), BLK_IOERR);
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_DISCARD, 0, &range, 16), BLK_IOERR);
    ck_assert_int_eq(t.rig.last_failure, EIO);
    ck_assert_uint_eq(t.rig.failures, 4);
    blk_rig_on_thread(&t.rig, fail_no_more, NULL);
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_OUT, 0, t.bytes, 512), BLK_OK);
}
END_TEST

/* Write-back and write-through. */

START_TEST(the_guest_chooses_how_writes_end)
{
    enum { WRITEBACK = 32 };

    ck_assert_uint_eq(config_byte(WRITEBACK), 1);
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_OUT, 0, t.bytes, 512), BLK_OK);
    ck_assert_uint_eq(t.fake.asked[DISK_FLUSH], 0);
    write_config(WRITEBACK, 1, 0);
    ck_assert_uint_eq(config_byte(WRITEBACK), 0);
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_OUT, 0, t.bytes, 512), BLK_OK);
    ck_assert_uint_eq(t.fake.asked[DISK_FLUSH], 1);
    write_config(WRITEBACK, 1, 0xff);
    ck_assert_uint_eq(config_byte(WRITEBACK), 1);
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_OUT, 0, t.bytes, 512), BLK_OK);
    ck_assert_uint_eq(t.fake.asked[DISK_FLUSH], 1);
}
END_TEST

START_TEST(a_driver_that_cannot_flush_need_not)
{
    restart(0, RING);
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_OUT, 0, t.bytes, 512), BLK_OK);
    ck_assert_uint_eq(t.fake.asked[DISK_FLUSH], 1);
    restart(BLK_F_CONFIG_WCE, RING);
    ck_assert_uint_eq(config_byte(32), 0);
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_OUT, 0, t.bytes, 512), BLK_OK);
    ck_assert_uint_eq(t.fake.asked[DISK_FLUSH], 2);
}
END_TEST

START_TEST(a_write_through_whose_flush_fails_is_an_error)
{
    write_config(32, 1, 0);
    blk_rig_on_thread(&t.rig, fail_all, NULL);
    t.fake.fail_op = DISK_FLUSH;
    ck_assert_uint_eq(blk_rig_run(&t.rig, BLK_OUT, 0, t.bytes, 512), BLK_IOERR);
}
END_TEST

START_TEST(all_but_the_cache_mode_is_for_reading)
{
    uint8_t before[64], after[64];

    for (unsigned i = 0; i < 64; i++)
        before[i] = config_byte(i);
    for (unsigned width = 1; width <= 8; width *= 2)
        for (unsigned offset = 0; offset < 64; offset += width)
            if (offset != 32 || width != 1)
                write_config(offset, width, 0x5a5a5a5a5a5a5a5a);
    for (unsigned i = 0; i < 64; i++)
        after[i] = config_byte(i);
    ck_assert_mem_eq(before, after, 64);
    ck_assert_uint_eq(before[60], 0xff); /* beyond the end */
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("blk");
    TCase *tc = tcase_create("blk");

    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_add_loop_test(tc, every_byte_ends_where_it_should_however_requests_are_cut, 0, 4);
    tcase_add_test(tc, a_request_has_as_many_segments_as_were_promised);
    tcase_add_test(tc, the_serial_is_what_was_configured);
    tcase_add_test(tc, what_nobody_knows_is_unsupported);
    tcase_add_test(tc, features_that_were_not_agreed_on_are_unsupported);
    tcase_add_test(tc, ranges_are_discarded_and_zeroed_one_by_one);
    tcase_add_test(tc, lying_ranges_are_errors);
    tcase_add_test(tc, what_lies_beyond_the_disk_is_an_error);
    tcase_add_test(tc, parts_of_a_block_are_an_error);
    tcase_add_test(tc, blocks_of_the_disk_are_what_counts);
    tcase_add_test(tc, the_configuration_tells_topology_and_limits);
    tcase_add_test(tc, a_readonly_disk_is_not_written);
    tcase_add_loop_test(tc, a_request_without_room_for_an_answer_breaks_the_device, 0, 3);
    tcase_add_test(tc, the_same_request_twice_breaks_the_device);
    tcase_add_test(tc, a_flood_of_doorbells_is_no_work);
    tcase_add_test(tc, errors_of_the_host_reach_guest_and_owner);
    tcase_add_test(tc, the_guest_chooses_how_writes_end);
    tcase_add_test(tc, a_driver_that_cannot_flush_need_not);
    tcase_add_test(tc, a_write_through_whose_flush_fails_is_an_error);
    tcase_add_test(tc, all_but_the_cache_mode_is_for_reading);
    suite_add_tcase(suite, tc);

    TCase *real = tcase_create("real disks");
    tcase_set_timeout(real, 60);
    tcase_add_loop_test(real, every_byte_ends_where_it_should_on_a_real_disk_with_many_queues, 0,
                        2);
    suite_add_tcase(suite, real);
    return unit_main(suite);
}
