/* SPDX-License-Identifier: MIT */
#include "core/memory.h"
#include "core/thread.h"
#include "tests/unit/unit.h"
#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#define MIB  (1ull << 20)
#define HIGH (4ull << 30) /* where the second range begins */

/* 3 MiB: two at 0, one at 4 GiB. */
static struct memory *make_memory(void)
{
    struct memory *memory;

    ck_assert_int_eq(memory_create(&memory, 3 * MIB, 2 * MIB, HIGH, NULL), 0);
    return memory;
}

START_TEST(ram_lies_below_the_hole_and_above_4_gib)
{
    struct memory *memory = make_memory();
    const struct memory_range *ranges;

    ck_assert_uint_eq(memory_size(memory), 3 * MIB);
    ck_assert_uint_eq(memory_ranges(memory, &ranges), 2);
    ck_assert_uint_eq(ranges[0].base, 0);
    ck_assert_uint_eq(ranges[0].size, 2 * MIB);
    ck_assert_uint_eq(ranges[0].offset, 0);
    ck_assert_uint_eq(ranges[1].base, HIGH);
    ck_assert_uint_eq(ranges[1].size, MIB);
    ck_assert_uint_eq(ranges[1].offset, 2 * MIB);
    ck_assert_ptr_nonnull(ranges[1].host);
    memory_destroy(memory);
    memory_destroy(NULL);

    ck_assert_int_eq(memory_create(&memory, 2 * MIB, 2 * MIB, HIGH, NULL), 0);
    ck_assert_uint_eq(memory_ranges(memory, &ranges), 1);
    ck_assert_uint_eq(ranges[0].size, 2 * MIB);
    memory_destroy(memory);
}
END_TEST

START_TEST(what_is_written_is_read_and_the_rest_is_zero)
{
    struct memory *memory = make_memory();
    static const gpa_t places[] = {0, 4093, 2 * MIB - 8, HIGH, HIGH + MIB - 8};
    char got[9];

    for (size_t i = 0; i < array_size(places); i++)
        ck_assert_int_eq(memory_write(memory, places[i], "8 bytes!", 8), 0);
    for (size_t i = 0; i < array_size(places); i++) {
        memset(got, 'x', sizeof(got));
        ck_assert_int_eq(memory_read(memory, places[i], got, 8), 0);
        ck_assert_mem_eq(got, "8 bytes!x", 9);
    }
    ck_assert_int_eq(memory_read(memory, 8, got, 8), 0);
    ck_assert_mem_eq(got, "\0\0\0\0\0\0\0\0", 8);

    ck_assert_int_eq(memory_fill(memory, 4094, 0x5a, 4), 0);
    ck_assert_int_eq(memory_read(memory, 4092, got, 8), 0);
    ck_assert_mem_eq(got, "\0008ZZZZes", 8);
    memory_destroy(memory);
}
END_TEST

/* Ranges that are not RAM, or not all of it, or whose end wraps around. */
static const struct {
    gpa_t gpa;
    size_t length;
} holes[] = {
    {2 * MIB, 1},           {2 * MIB - 1, 2},     {2 * MIB - 4, SIZE_MAX}, {0, 2 * MIB + 1},
    {HIGH - 1, 1},          {HIGH - 1, 2},        {HIGH + MIB, 1},         {HIGH + MIB - 1, 2},
    {HIGH, MIB + 1},        {UINT64_MAX, 1},      {UINT64_MAX, 2},         {UINT64_MAX - 3, 8},
    {1, SIZE_MAX},          {HIGH + 1, SIZE_MAX}, {2 * MIB, SIZE_MAX},     {0, SIZE_MAX},
    {UINT64_MAX, SIZE_MAX}, {HIGH - 4096, 8192},
};

START_TEST(holes_and_overflows_are_refused_and_nothing_is_touched)
{
    struct memory *memory = make_memory();
    const gpa_t gpa = holes[_i].gpa;
    const size_t length = holes[_i].length;
    uint8_t buffer[16];
    void *pointer = buffer;
    uint64_t marks = 0;

    memset(buffer, 0xa5, sizeof(buffer));
    ck_assert_int_eq(memory_log_start(memory), 0);
    ck_assert_int_eq(memory_read(memory, gpa, buffer, length), -EFAULT);
    ck_assert_int_eq(memory_write(memory, gpa, buffer, length), -EFAULT);
    ck_assert_int_eq(memory_fill(memory, gpa, 0xff, length), -EFAULT);
    ck_assert_int_eq(memory_borrow(memory, gpa, length, &pointer), -EFAULT);
    ck_assert_ptr_eq(pointer, buffer);
    for (size_t i = 0; i < sizeof(buffer); i++)
        ck_assert_uint_eq(buffer[i], 0xa5);
    for (uint64_t word = 0; word < 3 * MIB / PAGE_SIZE / 64; word++)
        memory_log_harvest(memory, word, 1, &marks);
    ck_assert_uint_eq(marks, 0);
    ck_assert_int_eq(memory_read(memory, 2 * MIB - 8, buffer, 8), 0);
    ck_assert_mem_eq(buffer, "\0\0\0\0\0\0\0\0", 8);
    memory_destroy(memory);
}
END_TEST

START_TEST(a_borrowed_range_is_the_guests_memory)
{
    struct memory *memory = make_memory();
    void *pointer;
    char got[4];

    ck_assert_int_eq(memory_borrow(memory, HIGH + 4096, 4, &pointer), 0);
    memcpy(pointer, "abcd", 4);
    ck_assert_int_eq(memory_read(memory, HIGH + 4096, got, 4), 0);
    ck_assert_mem_eq(got, "abcd", 4);
    memory_destroy(memory);
}
END_TEST

START_TEST(ram_is_aligned_for_huge_pages)
{
    /* Mapped several times, because a first mapping may be aligned by chance. */
    struct memory *memories[8];
    for (size_t i = 0; i < array_size(memories); i++) {
        const struct memory_range *ranges;
        memories[i] = make_memory();
        unsigned count = memory_ranges(memories[i], &ranges);
        for (unsigned n = 0; n < count; n++)
            ck_assert_uint_eq((uintptr_t)ranges[n].host % (2 * MIB), ranges[n].base % (2 * MIB));
    }
    for (size_t i = 0; i < array_size(memories); i++)
        memory_destroy(memories[i]);
}
END_TEST

START_TEST(untouched_ram_costs_nothing)
{
    const uint64_t size = 64ull << 30; /* more than the machine that tests this has */
    struct memory *memory;
    char got = 'x';

    ck_assert_int_eq(memory_create(&memory, size, 3ull << 30, HIGH, NULL), 0);
    ck_assert_int_eq(memory_log_start(memory), 0);
    gpa_t last = HIGH + size - (3ull << 30) - 1;
    ck_assert_int_eq(memory_write(memory, last, "y", 1), 0);
    ck_assert_int_eq(memory_read(memory, last, &got, 1), 0);
    ck_assert_int_eq(got, 'y');
    ck_assert_int_eq(memory_read(memory, last + 1, &got, 1), -EFAULT);
    memory_destroy(memory);
}
END_TEST

START_TEST(too_much_ram_is_an_error_with_a_sentence)
{
    struct memory *memory = NULL;
    struct err err = {0};

    ck_assert_int_lt(memory_create(&memory, 1ull << 62, 2 * MIB, HIGH, &err), 0);
    ck_assert_ptr_null(memory);
    ck_assert_ptr_nonnull(strstr(err.text, "4398046511104 MiB"));
}
END_TEST

/* The log of our own writes */

START_TEST(writes_mark_their_pages_while_the_log_is_on)
{
    struct memory *memory = make_memory();
    uint64_t words[12] = {0}, none[12] = {0};
    void *pointer;

    ck_assert_int_eq(memory_write(memory, 0, "x", 1), 0);
    memory_log_harvest(memory, 0, 12, words); /* never started: nothing */
    ck_assert_int_eq(memory_log_start(memory), 0);
    memory_log_harvest(memory, 0, 12, words);
    ck_assert_mem_eq(words, none, sizeof(words));

    ck_assert_int_eq(memory_write(memory, 4095, "xy", 2), 0);                   /* pages 0 and 1 */
    ck_assert_int_eq(memory_write(memory, 4 * PAGE_SIZE, words, 0), 0);         /* none */
    ck_assert_int_eq(memory_fill(memory, 62 * PAGE_SIZE, 1, 3 * PAGE_SIZE), 0); /* 62, 63, 64 */
    ck_assert_int_eq(memory_borrow(memory, HIGH, 8192, &pointer), 0);           /* not yet */
    memory_log_harvest(memory, 0, 12, words);
    ck_assert_uint_eq(words[0], 1ull << 63 | 1ull << 62 | 3);
    ck_assert_uint_eq(words[1], 1);
    ck_assert_uint_eq(words[8], 0);

    memory_written(memory, HIGH + 4096, 1); /* the 513th page of RAM: 2 MiB lie below */
    memory_written(memory, HIGH + MIB - 1, 1);
    words[8] = 1ull << 5;
    memory_log_harvest(memory, 0, 12, words); /* ORs, and everything before is cleared */
    ck_assert_uint_eq(words[0], 1ull << 63 | 1ull << 62 | 3);
    ck_assert_uint_eq(words[8], 1ull << 5 | 2);
    ck_assert_uint_eq(words[11], 1ull << 63);
    memset(words, 0, sizeof(words));
    memory_log_harvest(memory, 0, 12, words);
    ck_assert_mem_eq(words, none, sizeof(words));
    memory_destroy(memory);
}
END_TEST

START_TEST(a_part_of_the_log_is_harvested_alone)
{
    struct memory *memory = make_memory();
    uint64_t words[3] = {0};

    ck_assert_int_eq(memory_log_start(memory), 0);
    for (unsigned i = 0; i < 5; i++)
        ck_assert_int_eq(memory_write(memory, i * 64 * PAGE_SIZE, "x", 1), 0);
    memory_log_harvest(memory, 2, 2, words);
    ck_assert_uint_eq(words[0], 1);
    ck_assert_uint_eq(words[1], 1);
    ck_assert_uint_eq(words[2], 0);
    memset(words, 0, sizeof(words));
    memory_log_harvest(memory, 1, 3, words);
    ck_assert_uint_eq(words[0], 1); /* the one that was left */
    ck_assert_uint_eq(words[1] | words[2], 0);
    memory_destroy(memory);
}
END_TEST

START_TEST(each_start_begins_with_a_clean_log)
{
    struct memory *memory = make_memory();
    uint64_t word = 0;

    ck_assert_int_eq(memory_log_start(memory), 0);
    ck_assert_int_eq(memory_write(memory, 0, "x", 1), 0);
    memory_log_stop(memory);
    ck_assert_int_eq(memory_write(memory, PAGE_SIZE, "x", 1), 0);
    ck_assert_int_eq(memory_log_start(memory), 0);
    memory_log_harvest(memory, 0, 1, &word);
    ck_assert_uint_eq(word, 0);
    ck_assert_int_eq(memory_write(memory, 2 * PAGE_SIZE, "x", 1), 0);
    memory_log_harvest(memory, 0, 1, &word);
    ck_assert_uint_eq(word, 4);
    memory_destroy(memory);
}
END_TEST

struct writer {
    struct thread thread;
    struct memory *memory;
    unsigned first;
    _Atomic bool done;
};

static void write_pages(void *arg)
{
    struct writer *writer = arg;

    for (unsigned page = writer->first; page < 768; page += 2) {
        gpa_t gpa = page < 512 ? page * PAGE_SIZE : HIGH + (page - 512) * PAGE_SIZE;
        ck_assert_int_eq(memory_write(writer->memory, gpa, "x", 1), 0);
    }
    atomic_store(&writer->done, true);
}

START_TEST(no_mark_is_lost_between_writers_and_the_harvest)
{
    struct memory *memory = make_memory();
    struct writer writers[2] = {{.memory = memory, .first = 0}, {.memory = memory, .first = 1}};

    for (unsigned round = 0; round < 20; round++) {
        uint64_t words[12] = {0};
        bool done = false;

        ck_assert_int_eq(memory_log_start(memory), 0);
        for (unsigned i = 0; i < 2; i++) {
            writers[i].done = false;
            ck_assert_int_eq(
                thread_start(&writers[i].thread, "writer", write_pages, &writers[i], NULL), 0);
        }
        while (!done) { /* the last harvest begins after the last write */
            done = atomic_load(&writers[0].done) && atomic_load(&writers[1].done);
            memory_log_harvest(memory, 0, 12, words);
        }
        for (unsigned i = 0; i < 2; i++)
            thread_join(&writers[i].thread);
        for (unsigned i = 0; i < 12; i++)
            ck_assert_uint_eq(words[i], UINT64_MAX);
    }
    memory_destroy(memory);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("memory");
    TCase *door = tcase_create("door");
    TCase *log = tcase_create("log");

    tcase_add_test(door, ram_lies_below_the_hole_and_above_4_gib);
    tcase_add_test(door, what_is_written_is_read_and_the_rest_is_zero);
    tcase_add_loop_test(door, holes_and_overflows_are_refused_and_nothing_is_touched, 0,
                        array_size(holes));
    tcase_add_test(door, a_borrowed_range_is_the_guests_memory);
    tcase_add_test(door, ram_is_aligned_for_huge_pages);
    tcase_add_test(door, untouched_ram_costs_nothing);
    tcase_add_test(door, too_much_ram_is_an_error_with_a_sentence);
    suite_add_tcase(suite, door);
    tcase_add_test(log, writes_mark_their_pages_while_the_log_is_on);
    tcase_add_test(log, a_part_of_the_log_is_harvested_alone);
    tcase_add_test(log, each_start_begins_with_a_clean_log);
    tcase_add_test(log, no_mark_is_lost_between_writers_and_the_harvest);
    suite_add_tcase(suite, log);
    return unit_main(suite);
}
