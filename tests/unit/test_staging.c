/* SPDX-License-Identifier: MIT */
#include "ft/staging.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGES = 16384 };

static struct staging *staging;
static uint8_t *memory;
static char told[256];

static void set_up(void)
{
    memory = mmap(NULL, PAGES * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                  0);
    ck_assert_ptr_ne(memory, MAP_FAILED);
    ck_assert_int_eq(staging_create(&staging, memory, PAGES, NULL), 0);
    told[0] = '\0';
}

static void tear_down(void)
{
    staging_destroy(staging);
    munmap(memory, PAGES * PAGE_SIZE);
}

static int put_page(uint64_t page, int byte)
{
    uint8_t bytes[PAGE_SIZE];
    memset(bytes, byte, sizeof(bytes));
    return staging_put_page(staging, page, byte ? bytes : NULL);
}

/* Pages of this process. */
static uint64_t resident(void)
{
    unsigned long long all, here = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    ck_assert(file && fscanf(file, "%llu %llu", &all, &here) == 2 && fclose(file) == 0);
    return here;
}

static int fails_at = -1;

static int put_block(void *ctx, const struct moving_block *block, struct err *err)
{
    size_t length = strlen(told);
    if (fails_at-- == 0)
        return err_say(err, ERR_FAILED, ENOSPC, "the disk is full");
    snprintf(told + length, sizeof(told) - length, "%u:%llu:%.*s ", block->place,
             (unsigned long long)block->offset, block->bytes ? (int)block->length : 1,
             block->bytes ? (const char *)block->bytes : "-");
    return 0;
}

static const struct staging_disks disks = {.put = put_block};

static int put(uint32_t place, uint64_t offset, const char *text)
{
    char bytes[16]; /* is gone afterwards, as a payload is */
    struct moving_block block = {.place = place, .offset = offset, .length = 8};
    if (text) {
        snprintf(bytes, sizeof(bytes), "%s", text);
        block.bytes = (const uint8_t *)bytes;
        block.length = (uint32_t)strlen(text);
    }
    return staging_put_block(staging, &block);
}

START_TEST(nothing_changes_before_it_is_applied)
{
    memory[5 * PAGE_SIZE] = 1;
    ck_assert_int_eq(put_page(5, 2), 0);
    ck_assert_int_eq(put_page(5, 3), 0); /* the later one counts */
    ck_assert_int_eq(put_page(7, 0), 0);
    ck_assert_int_eq(put(0, 512, "one"), 0);
    ck_assert_int_eq(put(0, 512, NULL), 0);
    ck_assert_int_eq(put(1, 0, "two"), 0);
    ck_assert_uint_eq(memory[5 * PAGE_SIZE], 1);
    ck_assert_uint_eq(staging_page(staging, 5)[17], 3);
    ck_assert_ptr_eq(staging_page(staging, 6), memory + 6 * PAGE_SIZE);
    ck_assert_uint_eq(staging_pages(staging), 2);
    ck_assert_int_eq(staging_apply(staging, &disks, NULL), 0);
    ck_assert_uint_eq(memory[5 * PAGE_SIZE + 17], 3);
    ck_assert_str_eq(told, "0:512:one 0:512:- 1:0:two ");
    ck_assert_uint_eq(staging_bytes(staging), 0);
    ck_assert_ptr_eq(staging_page(staging, 5), memory + 5 * PAGE_SIZE);
    ck_assert_int_eq(staging_apply(staging, &disks, NULL), 0); /* and there is no more of it */
    ck_assert_str_eq(told, "0:512:one 0:512:- 1:0:two ");
}
END_TEST

START_TEST(what_is_dropped_was_never_there)
{
    memory[5 * PAGE_SIZE] = 1;
    ck_assert_int_eq(put_page(5, 2), 0);
    ck_assert_int_eq(put(0, 512, "one"), 0);
    staging_drop(staging);
    ck_assert_ptr_eq(staging_page(staging, 5), memory + 5 * PAGE_SIZE);
    ck_assert_int_eq(staging_apply(staging, &disks, NULL), 0);
    ck_assert_uint_eq(memory[5 * PAGE_SIZE], 1);
    ck_assert_str_eq(told, "");
}
END_TEST

START_TEST(a_page_becomes_zero_and_one_that_was_never_touched_stays_so)
{
    uint64_t before = resident();
    memset(memory + 3 * PAGE_SIZE, 9, PAGE_SIZE);
    for (uint64_t page = 0; page < PAGES; page++)
        ck_assert_int_eq(put_page(page, 0), 0);
    ck_assert_int_eq(staging_apply(staging, &disks, NULL), 0);
    for (size_t i = 0; i < PAGE_SIZE; i++)
        ck_assert_uint_eq(memory[3 * PAGE_SIZE + i], 0);
    ck_assert_uint_lt(resident(), before + PAGES / 2); /* with what is kept for the next epoch */
}
END_TEST

/* What the guest has given back is there no more; a few pages are not worth that. Locked memory, as
 * a twin's is, too, where it can be locked. */
START_TEST(many_zeroes_in_a_row_go_back_to_the_host)
{
    uint64_t half = PAGES / 2;
    if (_i)
        (void)!mlock(memory, PAGES * PAGE_SIZE); /* it may not: then it is as before */
    memset(memory, 9, PAGES * PAGE_SIZE);
    uint64_t before = resident();
    for (uint64_t page = 0; page < half; page++)
        ck_assert_int_eq(put_page(100 + page, 0), 0);
    ck_assert_int_eq(put_page(100 + half, 7), 0);
    ck_assert_int_eq(put_page(PAGES - 1, 0), 0);
    ck_assert_int_eq(staging_apply(staging, &disks, NULL), 0);
    ck_assert_uint_lt(resident(), before - half / 4 * 3 + 4096); /* with slots that are kept */
    ck_assert_uint_eq(memory[100 * PAGE_SIZE - 1], 9);
    for (uint64_t page = 100; page < 100 + half; page++)
        ck_assert_uint_eq(memory[page * PAGE_SIZE + 17], 0);
    ck_assert_uint_eq(memory[(100 + half) * PAGE_SIZE], 7);
    ck_assert_uint_eq(memory[(101 + half) * PAGE_SIZE], 9);
    ck_assert_uint_eq(memory[(PAGES - 1) * PAGE_SIZE], 0);
}
END_TEST

START_TEST(pages_that_are_not_there_are_refused)
{
    ck_assert_int_eq(put_page(PAGES, 1), -EBADMSG);
    ck_assert_int_eq(put_page(UINT64_MAX, 1), -EBADMSG);
    ck_assert_ptr_null(staging_page(staging, PAGES));
    ck_assert_int_eq(put_page(PAGES - 1, 1), 0);
}
END_TEST

/* The disk is full, and then it is not. */
START_TEST(an_apply_that_fails_goes_on_where_it_stopped)
{
    struct err err = {0};
    ck_assert_int_eq(put_page(5, 2), 0);
    for (unsigned i = 0; i < 3; i++)
        ck_assert_int_eq(put(i, 0, "x"), 0);
    fails_at = 1;
    ck_assert_int_eq(staging_apply(staging, &disks, &err), -ENOSPC);
    ck_assert_str_eq(err.text, "the disk is full");
    ck_assert_uint_eq(memory[5 * PAGE_SIZE], 2);
    fails_at = -1;
    ck_assert_int_eq(staging_apply(staging, &disks, NULL), 0);
    ck_assert_str_eq(told, "0:0:x 1:0:x 2:0:x ");
}
END_TEST

START_TEST(large_epochs_come_and_go)
{
    for (unsigned round = 1; round < 4; round++) {
        for (uint64_t page = 0; page < PAGES; page++)
            ck_assert_int_eq(put_page(page, (int)(page + round) % 255 + 1), 0);
        for (unsigned i = 0; i < 40; i++) {
            static uint8_t block[FRAME_MAX_BLOCK];
            const struct moving_block whole = {
                .offset = i, .length = sizeof(block), .bytes = block};
            ck_assert_int_eq(staging_put_block(staging, &whole), 0);
        }
        ck_assert_uint_eq(staging_bytes(staging), PAGES * PAGE_SIZE + 40ull * FRAME_MAX_BLOCK);
        staging_drop(staging);
        ck_assert_uint_eq(staging_bytes(staging), 0);
        ck_assert_int_eq(put_page(9000, 7), 0);
        ck_assert_uint_eq(staging_page(staging, 9000)[4095], 7);
        ck_assert_int_eq(staging_apply(staging, &disks, NULL), 0);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("staging");
    TCase *tcase = tcase_create("all");
    tcase_add_checked_fixture(tcase, set_up, tear_down);
    tcase_add_test(tcase, nothing_changes_before_it_is_applied);
    tcase_add_test(tcase, what_is_dropped_was_never_there);
    tcase_add_test(tcase, a_page_becomes_zero_and_one_that_was_never_touched_stays_so);
    tcase_add_loop_test(tcase, many_zeroes_in_a_row_go_back_to_the_host, 0, 2);
    tcase_add_test(tcase, pages_that_are_not_there_are_refused);
    tcase_add_test(tcase, an_apply_that_fails_goes_on_where_it_stopped);
    tcase_add_test(tcase, large_epochs_come_and_go);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
