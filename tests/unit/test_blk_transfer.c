/* SPDX-License-Identifier: MIT */
/* The firmware's way to a disk, and how large a request may be. */
#include "tests/unit/blk_fixture.h"
#include "virtio/blk_parts.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>

enum { MIB = 1 << 20, DISK_SIZE = 64 * MIB };

static struct {
    struct blk_rig rig;
    struct disk *disk;
    int fd;
    uint8_t data[64 << 10];
} f;

static void begin_with(uint64_t bandwidth)
{
    char path[] = "/tmp/minivmm-blk-XXXXXX";
    struct disk_config config = {.path = path, .format = DISK_FORMAT_RAW, .bandwidth = bandwidth};

    f.fd = mkstemp(path);
    ck_assert(f.fd >= 0 && ftruncate(f.fd, DISK_SIZE) == 0);
    ck_assert_int_eq(disk_open(&f.disk, &config, NULL), 0);
    unlink(path);
    blk_rig_init(&f.rig, f.disk, 1);
    rig_resume(f.rig.virtio);
    blk_rig_start(&f.rig, BLK_F_FLUSH | VIRTIO_F_INDIRECT, 256);
}

static void end(void)
{
    blk_rig_finish(&f.rig);
    disk_destroy(f.disk);
    close(f.fd);
}

/* In two pieces, as the caller likes. */
static int transfer(enum disk_op op, uint64_t offset)
{
    const struct iovec iov[] = {{f.data, 512}, {f.data + 512, sizeof(f.data) - 512}};
    return blk_transfer(f.rig.blk, op, offset, iov, 2);
}

START_TEST(the_firmware_reads_and_writes_beside_the_rings)
{
    uint8_t back[sizeof(f.data)];

    begin_with(0);
    for (size_t i = 0; i < sizeof(f.data); i++)
        f.data[i] = (uint8_t)(i * 7 + i / 256);
    ck_assert_int_eq(transfer(DISK_WRITE, 4096), 0);
    ck_assert_int_eq(pread(f.fd, back, sizeof(back), 4096), sizeof(back));
    ck_assert_mem_eq(back, f.data, sizeof(back));
    memset(f.data, 0, sizeof(f.data));
    ck_assert_int_eq(transfer(DISK_READ, 4096), 0);
    ck_assert_mem_eq(back, f.data, sizeof(back));
    end();
}
END_TEST

START_TEST(an_error_of_the_host_is_told)
{
    begin_with(0);
    ck_assert_int_eq(ftruncate(f.fd, 8192), 0);
    ck_assert_int_lt(transfer(DISK_READ, MIB), 0);
    ck_assert_uint_eq(f.rig.failures, 1);
    end();
}
END_TEST

static void *handle_patient_caller(void *arg)
{
    *(int *)arg = transfer(DISK_READ, 0);
    return NULL;
}

/* Somebody who waits for the disk, which takes its time, is called away. */
static void call_away(void)
{
    pthread_t caller;
    int result = 0;

    ck_assert_int_eq(pthread_create(&caller, NULL, handle_patient_caller, &result), 0);
    while (!__atomic_load_n(&f.rig.blk->transfer.busy, __ATOMIC_RELAXED))
        sched_yield();
    blk_interrupt(f.rig.blk, true);
    pthread_join(caller, NULL); /* or else the test's time is up */
    ck_assert_int_eq(result, -ECANCELED);
}

START_TEST(who_waits_for_a_slow_disk_can_be_called_away)
{
    begin_with(20 << 10);
    ck_assert_int_eq(pwrite(f.fd, "here", 4, 0), 4);
    ck_assert_int_eq(transfer(DISK_READ, 0), 0); /* the next one may begin in two seconds */
    call_away();
    ck_assert_int_eq(transfer(DISK_READ, 0), -ECANCELED);

    /* Asked again: after the one that was given up. */
    memset(f.data, 0, sizeof(f.data));
    blk_interrupt(f.rig.blk, false);
    ck_assert_int_eq(transfer(DISK_READ, 0), 0);
    ck_assert_mem_eq(f.data, "here", 4);
    end();
}
END_TEST

START_TEST(a_disk_ends_while_a_request_that_was_given_up_is_under_way)
{
    begin_with(1 << 10);
    ck_assert_int_eq(transfer(DISK_READ, 0), 0);
    call_away();
    end(); /* the sanitizers look on */
}
END_TEST

static void *handle_patient_writer(void *arg)
{
    *(int *)arg = transfer(DISK_WRITE, 0);
    return NULL;
}

START_TEST(a_write_that_was_given_up_does_not_outlive_a_reset)
{
    uint8_t bytes[sizeof(f.data)];
    pthread_t caller;
    int result = 0;

    begin_with(0);
    memset(f.data, 0x5a, sizeof(f.data));
    rig_pause(f.rig.virtio); /* the loop stands still: the request cannot begin */
    ck_assert_int_eq(pthread_create(&caller, NULL, handle_patient_writer, &result), 0);
    while (!__atomic_load_n(&f.rig.blk->transfer.busy, __ATOMIC_RELAXED))
        sched_yield();
    blk_interrupt(f.rig.blk, true);
    pthread_join(caller, NULL);
    ck_assert_int_eq(result, -ECANCELED);
    f.rig.virtio->device.ops->reset(&f.rig.virtio->device);
    rig_resume(f.rig.virtio);
    blk_interrupt(f.rig.blk, false);
    memset(f.data, 0xa5, sizeof(f.data));
    ck_assert_int_eq(transfer(DISK_READ, 0), 0); /* after it, in the loop's order */
    memset(bytes, 0, sizeof(bytes));
    ck_assert_mem_eq(f.data, bytes, sizeof(bytes));
    end();
}
END_TEST

static unsigned under_way(void)
{
    virtio_lock(f.rig.virtio);
    unsigned count = f.rig.blk->under_way;
    virtio_unlock(f.rig.virtio);
    return count;
}

START_TEST(a_drivers_reset_takes_nothing_from_the_firmware)
{
    pthread_t caller;
    int result = 1;

    begin_with(40 << 10);
    ck_assert_int_eq(transfer(DISK_READ, 0), 0); /* the next one may begin in half a second */
    ck_assert_int_eq(pwrite(f.fd, "here", 4, 0), 4);
    ck_assert_int_eq(pthread_create(&caller, NULL, handle_patient_caller, &result), 0);
    while (!__atomic_load_n(&f.rig.blk->transfer.busy, __ATOMIC_RELAXED))
        sched_yield();
    ck_assert_ptr_nonnull(blk_rig_add(&f.rig, 0, BLK_IN, 0, NULL, 4096));
    blk_rig_show(&f.rig, 0);
    while (under_way() == 0)
        sched_yield();
    rig_set_status(f.rig.virtio, 0);
    while (rig_status(f.rig.virtio) != 0)
        sched_yield();
    pthread_join(caller, NULL);
    ck_assert_int_eq(result, 0);
    ck_assert_mem_eq(f.data, "here", 4);
    end();
}
END_TEST

/* Segments that are all the same piece of memory: the only way to ask for so much. */
static uint8_t read_pieces(unsigned count, uint32_t length)
{
    struct model_part parts[256];
    struct model_driver *driver = &f.rig.drivers[0];
    struct blk_header header = {.type = BLK_IN, .sector = 0};

    f.rig.io_count = f.rig.done_count = 0;
    f.rig.ios[0] = (struct blk_io){0};
    parts[0] = model_out(driver, &header, sizeof(header));
    parts[1] = model_in(driver, length);
    for (unsigned i = 1; i < count; i++)
        parts[1 + i] = parts[1];
    parts[1 + count] = f.rig.ios[0].status = model_in(driver, 1);
    ck_assert(blk_rig_add_parts(&f.rig, 0, parts, count + 2));
    blk_rig_show(&f.rig, 0);
    blk_rig_wait(&f.rig);
    return blk_rig_status(&f.rig, &f.rig.ios[0]);
}

START_TEST(a_request_of_a_hundred_thousand_blocks_is_an_error)
{
    enum { PIECE = 256 << 10 };

    begin_with(0);
    ck_assert_uint_eq(read_pieces(32 * MIB / PIECE, PIECE), BLK_OK);
    ck_assert_uint_eq(read_pieces(32 * MIB / PIECE + 1, PIECE), BLK_IOERR);
    end();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("blk_transfer");
    TCase *tc = tcase_create("blk_transfer");

    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, the_firmware_reads_and_writes_beside_the_rings);
    tcase_add_test(tc, an_error_of_the_host_is_told);
    tcase_add_test(tc, who_waits_for_a_slow_disk_can_be_called_away);
    tcase_add_test(tc, a_disk_ends_while_a_request_that_was_given_up_is_under_way);
    tcase_add_test(tc, a_write_that_was_given_up_does_not_outlive_a_reset);
    tcase_add_test(tc, a_drivers_reset_takes_nothing_from_the_firmware);
    tcase_add_test(tc, a_request_of_a_hundred_thousand_blocks_is_an_error);
    suite_add_tcase(suite, tc);
    return unit_main(suite);
}
