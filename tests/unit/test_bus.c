/* SPDX-License-Identifier: MIT */
#include "core/bus.h"
#include "core/thread.h"
#include "tests/unit/unit.h"
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

/* A device that notes its accesses; reads of byte n give `base + n`. */
struct pad {
    uint8_t base;
    unsigned reads, writes;
    uint64_t offset; /* of the last access */
    unsigned width;
    uint64_t value;
    uint8_t bytes[16]; /* what was written where */
};

static uint64_t read_pad(void *device, uint64_t offset, unsigned width)
{
    struct pad *pad = device;
    uint64_t value = 0;

    pad->reads++;
    pad->offset = offset;
    pad->width = width;
    for (unsigned i = 0; i < width; i++)
        value |= (uint64_t)(uint8_t)(pad->base + offset + i) << 8 * i;
    return value | (width < 8 ? UINT64_MAX << 8 * width : 0); /* dirt above must not show */
}

static void write_pad(void *device, uint64_t offset, unsigned width, uint64_t value)
{
    struct pad *pad = device;

    pad->writes++;
    pad->offset = offset;
    pad->width = width;
    pad->value = value;
    for (unsigned i = 0; i < width; i++)
        pad->bytes[(offset + i) % 16] = (uint8_t)(value >> 8 * i);
}

static const struct bus_ops wide = {"wide", 8, read_pad, write_pad};
static const struct bus_ops narrow = {"narrow", 1, read_pad, write_pad};
static const struct bus_ops middle = {"middle", 4, read_pad, write_pad};

static struct bus *make_bus(void)
{
    struct bus *bus;

    ck_assert_int_eq(bus_create(&bus, NULL), 0);
    return bus;
}

static void add(struct bus *bus, uint64_t base, uint64_t size, const struct bus_ops *ops,
                struct pad *pad)
{
    ck_assert_int_eq(bus_add(bus, base, size, ops, pad, NULL), 0);
}

START_TEST(an_access_reaches_its_device_at_the_offset_in_its_range)
{
    struct bus *bus = make_bus();
    struct pad pad = {.base = 0x10};

    add(bus, 0x3f8, 8, &wide, &pad);
    ck_assert_uint_eq(bus_read(bus, 0x3fa, 1), 0x12);
    ck_assert_uint_eq(bus_read(bus, 0x3fa, 2), 0x1312);
    ck_assert_uint_eq(bus_read(bus, 0x3fc, 4), 0x17161514);
    ck_assert_uint_eq(bus_read(bus, 0x3f8, 8), 0x1716151413121110);
    ck_assert_uint_eq(pad.reads, 4);
    bus_write(bus, 0x3fb, 2, UINT64_MAX);
    ck_assert_uint_eq(pad.offset, 3);
    ck_assert_uint_eq(pad.width, 2);
    ck_assert_uint_eq(pad.value, 0xffff); /* no more than the width */
    ck_assert_uint_eq(bus_missed(bus), 0);
    bus_destroy(bus);
    bus_destroy(NULL);
}
END_TEST

START_TEST(nobody_reads_all_ones_and_takes_all_writes)
{
    struct bus *bus = make_bus();
    struct pad pad = {0};

    ck_assert_uint_eq(bus_read(bus, 0, 1), 0xff);
    ck_assert_uint_eq(bus_missed(bus), 1);
    add(bus, 0x100, 0x10, &wide, &pad);
    ck_assert_uint_eq(bus_read(bus, 0x110, 2), 0xffff);
    ck_assert_uint_eq(bus_read(bus, 0xfc, 4), 0xffffffff);
    ck_assert_uint_eq(bus_read(bus, UINT64_MAX - 7, 8), UINT64_MAX);
    bus_write(bus, 0xff, 1, 1);
    bus_write(bus, 0x110, 8, 1);
    ck_assert_uint_eq(pad.reads + pad.writes, 0);
    ck_assert_uint_gt(bus_missed(bus), 5);
    bus_destroy(bus);
}
END_TEST

struct last_miss {
    unsigned count;
    bool is_write;
    uint64_t address;
    unsigned width;
};

static void handle_miss(void *ctx, bool is_write, uint64_t address, unsigned width)
{
    struct last_miss *last = ctx;
    *last = (struct last_miss){last->count + 1, is_write, address, width};
}

START_TEST(whoever_watches_hears_of_each_miss_and_of_nothing_else)
{
    struct bus *bus = make_bus();
    struct pad pad = {0};
    struct last_miss last = {0};

    add(bus, 0x100, 0x10, &wide, &pad);
    bus_watch_misses(bus, handle_miss, &last);
    bus_read(bus, 0x100, 4);
    bus_write(bus, 0x10f, 1, 0);
    ck_assert_uint_eq(last.count, 0);
    bus_read(bus, 0x200, 4);
    ck_assert_uint_eq(last.count, 1);
    ck_assert(!last.is_write && last.address == 0x200 && last.width == 4);
    bus_write(bus, 0x10f, 2, 0); /* its second byte leaves the range */
    ck_assert_uint_eq(last.count, 2);
    ck_assert(last.is_write && last.address == 0x110 && last.width == 1);
    bus_destroy(bus);
}
END_TEST

START_TEST(an_access_too_wide_for_the_device_comes_in_bytes)
{
    struct bus *bus = make_bus();
    struct pad pad = {.base = 0x20};

    add(bus, 0x40, 4, &narrow, &pad);
    ck_assert_uint_eq(bus_read(bus, 0x40, 4), 0x23222120);
    ck_assert_uint_eq(pad.reads, 4);
    ck_assert_uint_eq(pad.width, 1);
    bus_write(bus, 0x41, 2, 0xbbaa);
    ck_assert_uint_eq(pad.writes, 2);
    ck_assert_uint_eq(pad.bytes[1], 0xaa);
    ck_assert_uint_eq(pad.bytes[2], 0xbb);
    bus_destroy(bus);
}
END_TEST

START_TEST(an_access_that_leaves_its_range_is_split_among_whom_it_meets)
{
    struct bus *bus = make_bus();
    struct pad left = {.base = 0x10}, right = {.base = 0x80};

    add(bus, 0x100, 6, &middle, &left);
    add(bus, 0x107, 4, &middle, &right); /* 0x106 is nobody's */
    ck_assert_uint_eq(bus_read(bus, 0x104, 4), 0x80ff1514);
    ck_assert_uint_eq(left.reads, 2);
    ck_assert_uint_eq(right.reads, 1);
    bus_write(bus, 0x104, 4, 0x44332211);
    ck_assert_uint_eq(left.bytes[4], 0x11);
    ck_assert_uint_eq(left.bytes[5], 0x22);
    ck_assert_uint_eq(right.bytes[0], 0x44);
    ck_assert_uint_eq(left.bytes[6] | right.bytes[1], 0);
    ck_assert_uint_eq(bus_missed(bus), 2);
    /* from nobody into a range */
    ck_assert_uint_eq(bus_read(bus, 0xff, 2), 0x10ff);
    bus_destroy(bus);
}
END_TEST

START_TEST(the_top_of_the_address_space_is_an_address)
{
    struct bus *bus = make_bus();
    struct pad top = {.base = 0x50}, bottom = {.base = 0x60};

    add(bus, UINT64_MAX - 3, 4, &wide, &top);
    ck_assert_uint_eq(bus_read(bus, UINT64_MAX - 3, 4), 0x53525150);
    ck_assert_uint_eq(bus_read(bus, UINT64_MAX, 2), 0xff53);
    add(bus, 0, 1, &wide, &bottom);
    ck_assert_uint_eq(bus_read(bus, UINT64_MAX, 2), 0x6053); /* it wraps, and nothing breaks */
    bus_write(bus, UINT64_MAX, 8, 0);
    bus_destroy(bus);
}
END_TEST

START_TEST(ranges_may_touch_but_not_overlap)
{
    struct bus *bus = make_bus();
    struct pad pad = {0};
    struct err err = {0};
    static const uint64_t taken[][2] = {{0x100, 0x10}, {0x10f, 1},    {0x100, 1},
                                        {0xf8, 0x10},  {0xf0, 0x100}, {0x108, 2}};

    add(bus, 0x100, 0x10, &wide, &pad);
    for (size_t i = 0; i < array_size(taken); i++)
        ck_assert_int_eq(bus_add(bus, taken[i][0], taken[i][1], &narrow, &pad, &err), -EEXIST);
    ck_assert_str_eq(err.text, "narrow at 0x108-0x109 overlaps wide at 0x100-0x10f");
    add(bus, 0xf0, 0x10, &narrow, &pad);
    add(bus, 0x110, 0x10, &narrow, &pad);
    bus_destroy(bus);
}
END_TEST

START_TEST(empty_and_wrapping_ranges_are_refused)
{
    struct bus *bus = make_bus();
    struct pad pad = {0};
    struct err err = {0};

    ck_assert_int_eq(bus_add(bus, 0x100, 0, &wide, &pad, &err), -EINVAL);
    ck_assert_int_eq(bus_add(bus, 0, 0, &wide, &pad, &err), -EINVAL);
    ck_assert_int_eq(bus_add(bus, UINT64_MAX, 2, &wide, &pad, &err), -EINVAL);
    ck_assert_int_eq(bus_add(bus, 2, UINT64_MAX, &wide, &pad, &err), -EINVAL);
    ck_assert_str_eq(err.text, "wide: a range of 0xffffffffffffffff bytes at 0x2 is none");
    bus_destroy(bus);
}
END_TEST

START_TEST(a_removed_range_is_nobody_s_and_free_again)
{
    struct bus *bus = make_bus();
    struct pad one = {.base = 1}, two = {.base = 2};

    add(bus, 0x100, 8, &wide, &one);
    bus_remove(bus, 0x101); /* no range starts there */
    bus_remove(bus, 0x900);
    ck_assert_uint_eq(bus_read(bus, 0x100, 1), 1);
    bus_remove(bus, 0x100);
    ck_assert_uint_eq(bus_read(bus, 0x100, 1), 0xff);
    add(bus, 0xfc, 8, &wide, &two);
    ck_assert_uint_eq(bus_read(bus, 0x100, 1), 6);
    bus_destroy(bus);
}
END_TEST

START_TEST(every_range_of_many_is_found)
{
    enum { COUNT = 200 };
    struct bus *bus = make_bus();
    static struct pad pads[COUNT];

    for (unsigned i = 0; i < COUNT; i++) { /* in a scattered order: 77 and 200 have no factor */
        unsigned at = i * 77 % COUNT;
        pads[at].base = (uint8_t)at;
        add(bus, 0x1000 + at * 32, 16, &wide, &pads[at]);
    }
    for (unsigned i = 0; i < COUNT; i++) {
        ck_assert_uint_eq(bus_read(bus, 0x1000 + i * 32, 1), (uint8_t)i);
        ck_assert_uint_eq(bus_read(bus, 0x100f + i * 32, 1), (uint8_t)(i + 15));
        ck_assert_uint_eq(bus_read(bus, 0x1010 + i * 32, 1), 0xff);
        ck_assert_uint_eq(pads[i].reads, 2);
    }
    bus_destroy(bus);
}
END_TEST

/* A register that moves its own range, as a BAR does. */
struct mover {
    struct bus *bus;
    uint64_t base;
};

static void write_mover(void *device, uint64_t offset, unsigned width, uint64_t value);

static const struct bus_ops mover_ops = {"mover", 8, read_pad, write_mover};

static void write_mover(void *device, uint64_t offset, unsigned width, uint64_t value)
{
    struct mover *mover = device;
    bus_remove(mover->bus, mover->base);
    mover->base = value;
    ck_assert_int_eq(bus_add(mover->bus, value, 8, &mover_ops, mover, NULL), 0);
}

START_TEST(a_handler_may_move_its_own_range)
{
    struct bus *bus = make_bus();
    struct mover mover = {.bus = bus, .base = 0x100};

    ck_assert_int_eq(bus_add(bus, 0x100, 8, &mover_ops, &mover, NULL), 0);
    bus_write(bus, 0x100, 8, 0x200);
    bus_write(bus, 0x100, 8, 0x300); /* nobody there any more */
    ck_assert_uint_eq(mover.base, 0x200);
    bus_write(bus, 0x200, 8, 0x104); /* a place that overlaps the old one */
    bus_write(bus, 0x104, 8, 0x100);
    ck_assert_uint_eq(mover.base, 0x100);
    bus_destroy(bus);
}
END_TEST

/* A vCPU reads a register while another one moves ranges around it. */
struct reader {
    struct thread thread;
    struct bus *bus;
    _Atomic bool stop;
    uint64_t wrong;
};

static uint64_t read_seven(void *device, uint64_t offset, unsigned width)
{
    return 7;
}

static void write_void(void *device, uint64_t offset, unsigned width, uint64_t value)
{
}

static const struct bus_ops seven = {"seven", 8, read_seven, write_void};

static void read_often(void *arg)
{
    struct reader *reader = arg;

    while (!atomic_load(&reader->stop)) {
        uint64_t moving = bus_read(reader->bus, 0x1000, 4);
        reader->wrong += bus_read(reader->bus, 0x2000, 4) != 7;
        reader->wrong += moving != 7 && moving != 0xffffffff;
    }
}

START_TEST(ranges_move_while_others_read)
{
    struct reader readers[2] = {0};
    struct bus *bus = make_bus();

    ck_assert_int_eq(bus_add(bus, 0x2000, 4, &seven, NULL, NULL), 0);
    for (unsigned i = 0; i < 2; i++) {
        readers[i].bus = bus;
        ck_assert_int_eq(thread_start(&readers[i].thread, "reader", read_often, &readers[i], NULL),
                         0);
    }
    for (unsigned i = 0; i < 3000; i++) {
        ck_assert_int_eq(bus_add(bus, 0x1000, 4, &seven, NULL, NULL), 0);
        ck_assert_int_eq(bus_add(bus, 0x1800 + i % 64 * 8, 4, &seven, NULL, NULL), 0);
        bus_remove(bus, 0x1000);
        bus_remove(bus, 0x1800 + i % 64 * 8);
    }
    for (unsigned i = 0; i < 2; i++) {
        atomic_store(&readers[i].stop, true);
        thread_join(&readers[i].thread);
        ck_assert_uint_eq(readers[i].wrong, 0);
    }
    bus_destroy(bus);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bus");
    TCase *accesses = tcase_create("accesses");
    TCase *ranges = tcase_create("ranges");

    tcase_add_test(accesses, an_access_reaches_its_device_at_the_offset_in_its_range);
    tcase_add_test(accesses, nobody_reads_all_ones_and_takes_all_writes);
    tcase_add_test(accesses, whoever_watches_hears_of_each_miss_and_of_nothing_else);
    tcase_add_test(accesses, an_access_too_wide_for_the_device_comes_in_bytes);
    tcase_add_test(accesses, an_access_that_leaves_its_range_is_split_among_whom_it_meets);
    tcase_add_test(accesses, the_top_of_the_address_space_is_an_address);
    suite_add_tcase(suite, accesses);
    tcase_add_test(ranges, ranges_may_touch_but_not_overlap);
    tcase_add_test(ranges, empty_and_wrapping_ranges_are_refused);
    tcase_add_test(ranges, a_removed_range_is_nobody_s_and_free_again);
    tcase_add_test(ranges, every_range_of_many_is_found);
    tcase_add_test(ranges, a_handler_may_move_its_own_range);
    tcase_add_test(ranges, ranges_move_while_others_read);
    suite_add_tcase(suite, ranges);
    return unit_main(suite);
}
