/* SPDX-License-Identifier: MIT */
#include "core/memory.h"
#include "core/thread.h"
#include "tests/unit/unit.h"
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

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

/* Memory that is a file */

enum { FILE_PAGES = 3 * MIB / PAGE_SIZE };

/* In the file each page is full of its own number, plus one. */
static uint8_t page_byte(unsigned page)
{
    return (uint8_t)(page % 251 + 1);
}

static int make_file(void)
{
    uint8_t *bytes = malloc(3 * MIB);
    int fd = memfd_create("test", MFD_CLOEXEC);

    ck_assert_int_ge(fd, 0);
    for (unsigned page = 0; page < FILE_PAGES; page++)
        memset(bytes + page * PAGE_SIZE, page_byte(page), PAGE_SIZE);
    ck_assert_int_eq(pwrite(fd, bytes, 3 * MIB, 0), 3 * MIB);
    free(bytes);
    return fd;
}

static struct memory *make_file_memory(int fd)
{
    struct memory *memory = make_memory();
    struct err err = {0};

    ck_assert(!memory_is_file(memory));
    int ret = memory_map_file(memory, fd, &err);
    ck_assert_msg(ret == 0, "%s", err.text);
    ck_assert(memory_is_file(memory));
    return memory;
}

static gpa_t gpa_of(unsigned page)
{
    return page < 512 ? page * PAGE_SIZE : HIGH + (page - 512) * PAGE_SIZE;
}

/* All of the page is this byte. */
static void check_page(const struct memory *memory, unsigned page, uint8_t byte)
{
    uint8_t got[PAGE_SIZE], wanted[PAGE_SIZE];

    memset(wanted, byte, sizeof(wanted));
    ck_assert_int_eq(memory_read(memory, gpa_of(page), got, sizeof(got)), 0);
    ck_assert_msg(memcmp(got, wanted, sizeof(got)) == 0, "page %u begins with %u, not %u", page,
                  got[0], byte);
}

static void check_file(int fd)
{
    uint8_t page[PAGE_SIZE], wanted[PAGE_SIZE];

    for (unsigned i = 0; i < FILE_PAGES; i++) {
        memset(wanted, page_byte(i), sizeof(wanted));
        ck_assert_int_eq(pread(fd, page, PAGE_SIZE, i * PAGE_SIZE), PAGE_SIZE);
        ck_assert_msg(memcmp(page, wanted, PAGE_SIZE) == 0, "page %u of the file", i);
    }
}

START_TEST(ram_is_what_the_file_holds_and_writes_stay_out_of_it)
{
    int fd = make_file();
    struct memory *memory = make_file_memory(fd);
    void *pointer;

    for (unsigned page = 0; page < FILE_PAGES; page++)
        check_page(memory, page, page_byte(page));
    for (unsigned page = 0; page < FILE_PAGES; page += 3)
        ck_assert_int_eq(memory_fill(memory, gpa_of(page), 0xee, PAGE_SIZE), 0);
    ck_assert_int_eq(memory_borrow(memory, gpa_of(700), PAGE_SIZE, &pointer), 0);
    memset(pointer, 0xdd, PAGE_SIZE);
    check_file(fd);
    close(fd); /* it was the caller's */
    for (unsigned page = 0; page < FILE_PAGES; page++)
        check_page(memory, page, page == 700 ? 0xdd : page % 3 == 0 ? 0xee : page_byte(page));
    memory_destroy(memory);
}
END_TEST

START_TEST(two_memories_of_a_file_know_nothing_of_each_other)
{
    int fd = make_file();
    struct memory *one = make_file_memory(fd), *two = make_file_memory(fd);

    ck_assert_int_eq(memory_fill(one, gpa_of(5), 0xee, PAGE_SIZE), 0);
    ck_assert_int_eq(memory_discard(one, gpa_of(6), PAGE_SIZE), 0);
    check_page(two, 5, page_byte(5));
    check_page(two, 6, page_byte(6));
    memory_destroy(one);
    check_page(two, 5, page_byte(5));
    memory_destroy(two);
    check_file(fd);
    close(fd);
}
END_TEST

START_TEST(what_cannot_be_mapped_leaves_ram_as_it_was)
{
    struct memory *memory = make_memory();
    int folder = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const int bad[] = {-1, folder};

    ck_assert_int_eq(memory_fill(memory, gpa_of(3), 0x77, PAGE_SIZE), 0);
    for (size_t i = 0; i < array_size(bad); i++) {
        struct err err = {0};
        ck_assert_int_lt(memory_map_file(memory, bad[i], &err), 0);
        ck_assert_ptr_nonnull(strstr(err.text, "cannot map the file of guest memory"));
        ck_assert(!memory_is_file(memory));
        check_page(memory, 3, 0x77);
        check_page(memory, 4, 0);
    }
    close(folder);
    memory_destroy(memory);
}
END_TEST

/* Both kinds of memory. */
START_TEST(discarded_pages_read_as_zeroes)
{
    int fd = make_file();
    struct memory *memory = _i ? make_file_memory(fd) : make_memory();

    for (unsigned page = 0; page < FILE_PAGES; page++)
        if (!_i || page % 2) /* those of a file that nobody has touched, too */
            ck_assert_int_eq(memory_fill(memory, gpa_of(page), page_byte(page), PAGE_SIZE), 0);
    ck_assert_int_eq(memory_discard(memory, 0, PAGE_SIZE), 0);
    ck_assert_int_eq(memory_discard(memory, gpa_of(100), 50 * PAGE_SIZE), 0);
    ck_assert_int_eq(memory_discard(memory, gpa_of(511), PAGE_SIZE), 0);
    ck_assert_int_eq(memory_discard(memory, gpa_of(600), 168 * PAGE_SIZE), 0);
    for (unsigned page = 0; page < FILE_PAGES; page++) {
        bool gone = page == 0 || (page >= 100 && page < 150) || page == 511 || page >= 600;
        check_page(memory, page, gone ? 0 : page_byte(page));
    }
    ck_assert_int_eq(memory_fill(memory, gpa_of(120), 0x12, PAGE_SIZE), 0); /* in use again */
    check_page(memory, 120, 0x12);
    check_page(memory, 121, 0);
    memory_destroy(memory);
    check_file(fd);
    close(fd);
}
END_TEST

START_TEST(what_is_no_whole_page_of_ram_is_not_discarded)
{
    int fd = make_file();
    struct memory *memory = _i ? make_file_memory(fd) : make_memory();
    uint64_t marks = 0;

    ck_assert_int_eq(memory_fill(memory, gpa_of(1), 0x55, PAGE_SIZE), 0);
    ck_assert_int_eq(memory_log_start(memory), 0);
    ck_assert_int_eq(memory_discard(memory, PAGE_SIZE, 0), -EINVAL);
    ck_assert_int_eq(memory_discard(memory, PAGE_SIZE + 1, PAGE_SIZE), -EINVAL);
    ck_assert_int_eq(memory_discard(memory, PAGE_SIZE, PAGE_SIZE - 1), -EINVAL);
    ck_assert_int_eq(memory_discard(memory, PAGE_SIZE, 2 * MIB), -EFAULT);
    ck_assert_int_eq(memory_discard(memory, PAGE_SIZE, -PAGE_SIZE), -EFAULT);
    ck_assert_int_eq(memory_discard(memory, 2 * MIB, PAGE_SIZE), -EFAULT);
    ck_assert_int_eq(memory_discard(memory, HIGH + MIB, PAGE_SIZE), -EFAULT);
    for (uint64_t word = 0; word < FILE_PAGES / 64; word++)
        memory_log_harvest(memory, word, 1, &marks);
    ck_assert_uint_eq(marks, 0);
    check_page(memory, 1, 0x55);
    memory_destroy(memory);
    close(fd);
}
END_TEST

START_TEST(discarded_pages_count_as_written)
{
    int fd = make_file();
    struct memory *memory = _i ? make_file_memory(fd) : make_memory();
    uint64_t words[12] = {0}, none[12] = {0};

    ck_assert_int_eq(memory_discard(memory, gpa_of(5), PAGE_SIZE), 0); /* nobody keeps a log */
    ck_assert_int_eq(memory_log_start(memory), 0);
    memory_log_harvest(memory, 0, 12, words);
    ck_assert_mem_eq(words, none, sizeof(words));
    ck_assert_int_eq(memory_discard(memory, gpa_of(62), 4 * PAGE_SIZE), 0);
    ck_assert_int_eq(memory_discard(memory, gpa_of(512), PAGE_SIZE), 0);
    ck_assert_int_eq(memory_discard(memory, gpa_of(767), PAGE_SIZE), 0);
    memory_log_harvest(memory, 0, 12, words);
    ck_assert_uint_eq(words[0], 3ull << 62);
    ck_assert_uint_eq(words[1], 3);
    ck_assert_uint_eq(words[8], 1);
    ck_assert_uint_eq(words[11], 1ull << 63);
    words[0] = words[1] = words[8] = words[11] = 0;
    ck_assert_mem_eq(words, none, sizeof(words));
    memory_destroy(memory);
    close(fd);
}
END_TEST

/* As the next number of a sequence that repeats itself. */
static unsigned draw(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(*seed >> 33);
}

/* A guest's balloon goes up and down for as long as it likes: each time may cost the host a
 * mapping, of which a process has not that many. */
START_TEST(however_often_pages_are_discarded_they_read_as_zeroes)
{
    enum { TIMES = 40000 };
    int fd = make_file();
    struct memory *memory = make_file_memory(fd);
    uint8_t bytes[FILE_PAGES];
    uint64_t seed = 4;

    for (unsigned page = 0; page < FILE_PAGES; page++)
        bytes[page] = page_byte(page);
    for (unsigned i = 0; i < TIMES; i++) {
        unsigned page = draw(&seed) % FILE_PAGES;
        if (draw(&seed) % 4 == 0) {
            bytes[page] = (uint8_t)draw(&seed);
            ck_assert_int_eq(memory_fill(memory, gpa_of(page), bytes[page], PAGE_SIZE), 0);
        } else {
            bytes[page] = 0;
            ck_assert_int_eq(memory_discard(memory, gpa_of(page), PAGE_SIZE), 0);
        }
        if (i % 16 == 0)
            check_page(memory, page, bytes[page]);
    }
    for (unsigned page = 0; page < FILE_PAGES; page++)
        check_page(memory, page, bytes[page]);
    memory_destroy(memory);
    check_file(fd);
    close(fd);
}
END_TEST

static unsigned count_mappings(void)
{
    FILE *file = fopen("/proc/self/maps", "re");
    unsigned lines = 0;

    ck_assert_ptr_nonnull(file);
    for (int c; (c = getc(file)) != EOF;)
        lines += c == '\n';
    fclose(file);
    return lines;
}

/* A whole process has 65530 of them. */
START_TEST(discards_leave_mappings_for_others)
{
    enum { PAGES = 80000 };
    int fd = memfd_create("test", MFD_CLOEXEC);
    struct memory *memory;
    uint8_t bytes[2] = {0};

    ck_assert_int_eq(ftruncate(fd, PAGES * PAGE_SIZE), 0);
    for (unsigned page = 0; page < PAGES; page += 5000)
        ck_assert_int_eq(pwrite(fd, "xx", 2, (off_t)(page * PAGE_SIZE)), 2);
    ck_assert_int_eq(memory_create(&memory, PAGES * PAGE_SIZE, PAGES * PAGE_SIZE, HIGH, NULL), 0);
    ck_assert_int_eq(memory_map_file(memory, fd, NULL), 0);
    for (unsigned page = 0; page < PAGES; page += 2) /* none beside another one */
        ck_assert_int_eq(memory_discard(memory, page * PAGE_SIZE, PAGE_SIZE), 0);
    ck_assert_uint_lt(count_mappings(), 40000);
    for (unsigned page = 0; page < PAGES; page += 5000) {
        ck_assert_int_eq(memory_read(memory, page * PAGE_SIZE, bytes, 2), 0);
        ck_assert_uint_eq(bytes[0] | bytes[1], 0);
    }
    memory_destroy(memory);
    ck_assert_int_eq(pread(fd, bytes, 2, (off_t)(75000 * PAGE_SIZE)), 2);
    ck_assert_uint_eq(bytes[0], 'x');
    close(fd);
}
END_TEST

/* --- in RAM ----------------------------------------------------------------------------------- */

static unsigned long locked_kib(void)
{
    FILE *status = fopen("/proc/self/status", "r");
    unsigned long kib = 0;
    char line[200];
    while (status && fgets(line, sizeof(line), status))
        if (sscanf(line, "VmLck: %lu", &kib) == 1)
            break;
    if (status)
        fclose(status);
    return kib;
}

/* Pages in RAM, of the first `count`. */
static unsigned resident(struct memory *memory, unsigned count)
{
    const struct memory_range *ranges;
    unsigned char in_ram[64];
    unsigned found = 0;
    memory_ranges(memory, &ranges);
    ck_assert_uint_le(count, sizeof(in_ram));
    ck_assert_int_eq(mincore(ranges[0].host, count * PAGE_SIZE, in_ram), 0);
    for (unsigned i = 0; i < count; i++)
        found += in_ram[i] & 1;
    return found;
}

START_TEST(what_is_locked_is_of_the_pages_that_are_touched)
{
    struct memory *memory = make_memory();
    unsigned long before = locked_kib();
    if (memory_lock(memory) < 0) {
        fprintf(stderr, "this process may not lock 3 MiB: not looked at\n");
        memory_destroy(memory);
        return;
    }
    ck_assert_uint_eq(locked_kib(), before + 3 * MIB / 1024);
    ck_assert_uint_eq(resident(memory, 64), 0);
    ck_assert_int_eq(memory_fill(memory, 3 * PAGE_SIZE, 0x5a, 2 * PAGE_SIZE), 0);
    ck_assert_uint_eq(resident(memory, 64), 2);
    memory_unlock(memory);
#ifndef __SANITIZE_ADDRESS__ /* its munlock() does nothing */
    ck_assert_uint_eq(locked_kib(), before);
#endif
    memory_destroy(memory);
}
END_TEST

/* A balloon of a guest that has just been taken over. */
START_TEST(locked_pages_are_given_back_too)
{
    struct memory *memory = make_memory();
    uint8_t byte = 1;
    if (memory_lock(memory) == 0) {
        ck_assert_int_eq(memory_fill(memory, 0, 0x5a, 8 * PAGE_SIZE), 0);
        ck_assert_int_eq(memory_discard(memory, 2 * PAGE_SIZE, 4 * PAGE_SIZE), 0);
        ck_assert_int_eq(memory_read(memory, 2 * PAGE_SIZE, &byte, 1), 0);
        ck_assert_uint_eq(byte, 0);
        ck_assert_int_eq(memory_read(memory, PAGE_SIZE, &byte, 1), 0);
        ck_assert_uint_eq(byte, 0x5a);
    }
    memory_destroy(memory);
}
END_TEST

/* 0: it was refused, and the memory is as usable as before. */
static int lock_without_leave(void)
{
    const struct rlimit none = {0};
    struct memory *memory;
    uint8_t byte = 0;
    if (setrlimit(RLIMIT_MEMLOCK, &none) < 0 || (geteuid() == 0 && setuid(65534) < 0) ||
        memory_create(&memory, 3 * MIB, 2 * MIB, HIGH, NULL) < 0)
        return 1;
    int ret = memory_lock(memory);
    if ((ret != -EPERM && ret != -ENOMEM) || memory_fill(memory, 0, 7, PAGE_SIZE) < 0 ||
        memory_read(memory, 5, &byte, 1) < 0 || byte != 7)
        return 2;
    memory_destroy(memory);
    return 0;
}

START_TEST(who_may_not_lock_is_told)
{
    int status;
    pid_t child = fork();
    if (child == 0)
        _exit(lock_without_leave());
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status));
    ck_assert_int_eq(WEXITSTATUS(status), 0);
}
END_TEST

START_TEST(pages_are_brought_in)
{
    struct memory *memory = make_memory();
    uint64_t pages[3 * MIB / PAGE_SIZE / 64] = {0x7 | 1ull << 63, 1};
    memory_bring_in(memory, pages);
    if (resident(memory, 64) == 0)
        fprintf(stderr, "this kernel cannot bring pages in: not looked at\n");
    else
        ck_assert_uint_eq(resident(memory, 64), 4);
    memory_destroy(memory);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("memory");
    TCase *door = tcase_create("door");
    TCase *log = tcase_create("log");
    TCase *file = tcase_create("file");
    TCase *ram = tcase_create("ram");

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
    tcase_add_test(file, ram_is_what_the_file_holds_and_writes_stay_out_of_it);
    tcase_add_test(file, two_memories_of_a_file_know_nothing_of_each_other);
    tcase_add_test(file, what_cannot_be_mapped_leaves_ram_as_it_was);
    tcase_add_loop_test(file, discarded_pages_read_as_zeroes, 0, 2);
    tcase_add_loop_test(file, what_is_no_whole_page_of_ram_is_not_discarded, 0, 2);
    tcase_add_loop_test(file, discarded_pages_count_as_written, 0, 2);
    tcase_add_test(file, however_often_pages_are_discarded_they_read_as_zeroes);
    tcase_add_test(file, discards_leave_mappings_for_others);
    tcase_set_timeout(file, 60);
    suite_add_tcase(suite, file);
    tcase_add_test(ram, what_is_locked_is_of_the_pages_that_are_touched);
    tcase_add_test(ram, locked_pages_are_given_back_too);
    tcase_add_test(ram, who_may_not_lock_is_told);
    tcase_add_test(ram, pages_are_brought_in);
    suite_add_tcase(suite, ram);
    return unit_main(suite);
}
