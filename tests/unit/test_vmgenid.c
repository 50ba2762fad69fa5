/* SPDX-License-Identifier: MIT */
#include "devices/vmgenid.h"
#include "tests/unit/unit.h"
#include <errno.h>
#include <string.h>

enum { SIZE = 2 << 20, PLACE = 0xEF000, LENGTH = 16 };

static const uint8_t first[LENGTH] = "the first of all", second[LENGTH] = "one for the copy";

static struct {
    struct memory *memory;
    struct vmgenid *vmgenid;
    struct device *device;
    unsigned told;
    uint8_t seen[LENGTH]; /* when it was told last */
} pc;

static void read_id(uint8_t ret_id[LENGTH])
{
    ck_assert_int_eq(memory_read(pc.memory, PLACE, ret_id, LENGTH), 0);
}

static void handle_told(void *ctx)
{
    pc.told++;
    read_id(pc.seen);
}

static void set_up(void)
{
    pc.told = 0;
    ck_assert_int_eq(memory_create(&pc.memory, SIZE, SIZE, 1ull << 32, NULL), 0);
    ck_assert_int_eq(vmgenid_create(&pc.vmgenid, pc.memory, PLACE, first, handle_told, &pc, NULL),
                     0);
    pc.device = vmgenid_device(pc.vmgenid);
    pc.device->ops->reset(pc.device);
    vmgenid_place(pc.vmgenid);
    pc.device->ops->resume(pc.device);
}

static void tear_down(void)
{
    device_destroy(pc.device);
    memory_destroy(pc.memory);
}

static void check_id(const uint8_t id[LENGTH])
{
    uint8_t there[LENGTH];
    read_id(there);
    ck_assert_mem_eq(there, id, LENGTH);
}

START_TEST(the_id_lies_in_memory_and_nothing_around_it)
{
    uint8_t around[3 * LENGTH];

    check_id(first);
    ck_assert_uint_eq(pc.told, 0);
    ck_assert_int_eq(memory_read(pc.memory, PLACE - LENGTH, around, sizeof(around)), 0);
    for (unsigned i = 0; i < sizeof(around); i++)
        ck_assert(i / LENGTH == 1 || around[i] == 0);
}
END_TEST

START_TEST(a_new_id_is_there_before_the_guest_is_told)
{
    vmgenid_set(pc.vmgenid, second);
    ck_assert_uint_eq(pc.told, 1);
    ck_assert_mem_eq(pc.seen, second, LENGTH);
    check_id(second);
}
END_TEST

START_TEST(a_boot_brings_back_what_the_guest_has_overwritten)
{
    vmgenid_set(pc.vmgenid, second);
    ck_assert_int_eq(memory_fill(pc.memory, PLACE, 0xee, LENGTH), 0);
    pc.device->ops->reset(pc.device);
    vmgenid_place(pc.vmgenid);
    check_id(second);
    ck_assert_uint_eq(pc.told, 1);
}
END_TEST

/* A state is loaded between a reset and a resume: its memory is not ours to write. */
START_TEST(a_load_leaves_what_the_guest_has_overwritten)
{
    uint8_t there[LENGTH], overwritten[LENGTH];
    memset(overwritten, 0xee, LENGTH);
    ck_assert_int_eq(memory_write(pc.memory, PLACE, overwritten, LENGTH), 0);
    pc.device->ops->reset(pc.device);
    pc.device->ops->resume(pc.device);
    read_id(there);
    ck_assert_mem_eq(there, overwritten, LENGTH);
}
END_TEST

/* Whoever follows the memory's changes must hear of this one. */
START_TEST(the_page_is_marked_as_written)
{
    uint64_t marks = 0;

    ck_assert_int_eq(memory_log_start(pc.memory), 0);
    vmgenid_set(pc.vmgenid, second);
    memory_log_harvest(pc.memory, PLACE / PAGE_SIZE / 64, 1, &marks);
    ck_assert_uint_eq(marks, 1ull << PLACE / PAGE_SIZE % 64);
    memory_log_stop(pc.memory);
}
END_TEST

START_TEST(a_place_where_no_memory_is_is_refused)
{
    struct vmgenid *other = NULL;
    struct err err = {0};

    ck_assert_int_eq(vmgenid_create(&other, pc.memory, SIZE - 8, first, handle_told, &pc, &err),
                     -EFAULT);
    ck_assert_ptr_null(other);
    ck_assert_ptr_nonnull(strstr(err.text, "generation id"));
}
END_TEST

START_TEST(state_table_keeps_its_promises)
{
    unit_check_table(pc.device->table, pc.device->state);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vmgenid");
    TCase *tests = tcase_create("vmgenid");

    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, the_id_lies_in_memory_and_nothing_around_it);
    tcase_add_test(tests, a_new_id_is_there_before_the_guest_is_told);
    tcase_add_test(tests, a_boot_brings_back_what_the_guest_has_overwritten);
    tcase_add_test(tests, a_load_leaves_what_the_guest_has_overwritten);
    tcase_add_test(tests, the_page_is_marked_as_written);
    tcase_add_test(tests, a_place_where_no_memory_is_is_refused);
    tcase_add_test(tests, state_table_keeps_its_promises);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
