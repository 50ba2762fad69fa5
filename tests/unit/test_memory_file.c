/* SPDX-License-Identifier: MIT */
/* Guest memory in a file, and the sums of files. */
#include "core/stream.h"
#include "ft/file_sum.h"
#include "ft/memory_file.h"
#include "tests/unit/platform.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGES 1283ull /* two chunks and half of a third */
#define SIZE  (PAGES * PAGE_SIZE)

enum { CHUNKS = 3 };

/* Without a name: it is gone with its descriptor. */
static int make_file(void)
{
    char path[256];
    const char *parent = getenv("TMPDIR");
    snprintf(path, sizeof(path), "%s/minivmm-test-XXXXXX", parent && *parent ? parent : "/tmp");
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(unlink(path), 0);
    return fd;
}

static void fill_page(uint8_t *page, uint64_t *seed)
{
    uint64_t words[PAGE_SIZE / 8];
    for (size_t i = 0; i < array_size(words); i++)
        words[i] = chance(seed);
    memcpy(page, words, sizeof(words));
}

/* The CRC-32C of each piece, little-endian, one after the other, and of those again; with nothing
 * of the code that is tested but the portable CRC. */
static uint32_t sum_of_sums(const uint8_t *bytes, size_t length, size_t piece)
{
    uint32_t sum = 0;
    for (size_t at = 0; at < length; at += piece) {
        uint32_t crc = crc32c_portable(0, bytes + at, length - at < piece ? length - at : piece);
        const uint8_t wire[] = {(uint8_t)crc, (uint8_t)(crc >> 8), (uint8_t)(crc >> 16),
                                (uint8_t)(crc >> 24)};
        sum = crc32c_portable(sum, wire, sizeof(wire));
    }
    return sum;
}

/* --- guest memory ----------------------------------------------------------------------------- */

/* A file and what ought to be in it. */
struct rig {
    int fd;
    struct memory_file file;
    uint8_t *wanted, *got;
    uint32_t sums[CHUNKS];
};

static void rig_init(struct rig *rig)
{
    struct err err = {0};
    *rig = (struct rig){.fd = make_file()};
    rig->wanted = calloc(1, SIZE);
    rig->got = malloc(SIZE);
    int ret = memory_file_begin(&rig->file, rig->fd, SIZE, &err);
    ck_assert_msg(ret == 0, "%s", err.text);
}

static void rig_finish(struct rig *rig)
{
    memory_file_end(&rig->file);
    memory_file_end(&rig->file);
    free(rig->wanted);
    free(rig->got);
    close(rig->fd);
}

static void rig_put(struct rig *rig, uint64_t page, uint64_t count)
{
    struct err err = {0};
    int ret = memory_file_put(&rig->file, page * PAGE_SIZE, rig->wanted + page * PAGE_SIZE,
                              count * PAGE_SIZE, &err);
    ck_assert_msg(ret == 0, "%s", err.text);
}

static void rig_check(struct rig *rig)
{
    struct err err = {0};
    ck_assert_int_eq(pread(rig->fd, rig->got, SIZE, 0), (ssize_t)SIZE);
    ck_assert_int_eq(memcmp(rig->got, rig->wanted, SIZE), 0);
    memory_file_sums(&rig->file, rig->sums);
    for (size_t i = 0; i < CHUNKS; i++) {
        size_t at = i * MEMORY_FILE_CHUNK;
        size_t length = SIZE - at < MEMORY_FILE_CHUNK ? SIZE - at : MEMORY_FILE_CHUNK;
        ck_assert_uint_eq(rig->sums[i], sum_of_sums(rig->wanted + at, length, PAGE_SIZE));
    }
    int ret = memory_file_verify(rig->fd, SIZE, rig->sums, &err);
    ck_assert_msg(ret == 0, "%s", err.text);
}

static uint64_t blocks_of(int fd)
{
    struct stat stat;
    ck_assert_int_eq(fsync(fd), 0);
    ck_assert_int_eq(fstat(fd, &stat), 0);
    return (uint64_t)stat.st_blocks * 512;
}

START_TEST(what_is_put_is_in_its_place)
{
    struct rig rig;
    uint64_t seed = 3;
    rig_init(&rig);
    rig_check(&rig); /* nothing: zeroes */
    for (unsigned i = 0; i < 60; i++) {
        uint64_t page = chance(&seed) % PAGES, count = 1 + chance(&seed) % 40;
        if (page + count > PAGES)
            count = PAGES - page;
        for (uint64_t p = page; p < page + count; p++) {
            if (chance(&seed) % 3 == 0) /* also over what was there */
                memset(rig.wanted + p * PAGE_SIZE, 0, PAGE_SIZE);
            else
                fill_page(rig.wanted + p * PAGE_SIZE, &seed);
        }
        rig_put(&rig, page, count);
        if (i % 10 == 0)
            rig_check(&rig);
    }
    rig_put(&rig, 5, 0);
    rig_put(&rig, PAGES, 0);
    rig_put(&rig, 0, PAGES); /* all once more */
    rig_check(&rig);
    rig_finish(&rig);
}
END_TEST

START_TEST(the_number_of_chunks_counts_the_last_one)
{
    ck_assert_uint_eq(memory_file_chunks(PAGE_SIZE), 1);
    ck_assert_uint_eq(memory_file_chunks(MEMORY_FILE_CHUNK), 1);
    ck_assert_uint_eq(memory_file_chunks(MEMORY_FILE_CHUNK + PAGE_SIZE), 2);
    ck_assert_uint_eq(memory_file_chunks(SIZE), CHUNKS);
    ck_assert_uint_eq(memory_file_chunks(1ull << 40), 1 << 19);
}
END_TEST

START_TEST(pages_of_zeroes_take_no_space)
{
    struct rig rig;
    uint64_t seed = 5;
    rig_init(&rig);
    rig_put(&rig, 0, PAGES);
    ck_assert_uint_eq(blocks_of(rig.fd), 0);
    for (uint64_t page = 0; page < PAGES; page += 97)
        fill_page(rig.wanted + page * PAGE_SIZE, &seed);
    rig_put(&rig, 0, PAGES);
    uint64_t full = blocks_of(rig.fd); /* some for the file system's own lists */
    ck_assert_uint_ge(full, (PAGES / 97 + 1) * PAGE_SIZE);
    ck_assert_uint_le(full, (PAGES / 97 + 8) * PAGE_SIZE);
    rig_check(&rig);
    rig_finish(&rig);
}
END_TEST

START_TEST(a_page_that_becomes_zero_reads_as_zero)
{
    struct rig rig;
    uint64_t seed = 6;
    rig_init(&rig);
    for (uint64_t page = 500; page < 530; page++)
        fill_page(rig.wanted + page * PAGE_SIZE, &seed);
    rig_put(&rig, 500, 30);
    memset(rig.wanted + 510 * PAGE_SIZE, 0, 10 * PAGE_SIZE);
    rig_put(&rig, 505, 20);
    rig_check(&rig);
    fill_page(rig.wanted + 512 * PAGE_SIZE, &seed);
    rig_put(&rig, 512, 1);
    rig_check(&rig);
    memset(rig.wanted, 0, SIZE);
    rig_put(&rig, 0, PAGES);
    rig_check(&rig);
    rig_finish(&rig);
}
END_TEST

/* Some chunks full of data, some with a little, one without. */
static void rig_init_full(struct rig *rig)
{
    uint64_t seed = 9;
    rig_init(rig);
    for (uint64_t page = 0; page < 600; page++)
        fill_page(rig->wanted + page * PAGE_SIZE, &seed);
    fill_page(rig->wanted + (PAGES - 1) * PAGE_SIZE, &seed);
    rig_put(rig, 0, PAGES);
    rig_check(rig);
}

static void flip(int fd, uint64_t at, uint8_t bits)
{
    uint8_t byte = 0;
    ck_assert_int_eq(pread(fd, &byte, 1, (off_t)at), 1);
    byte ^= bits;
    ck_assert_int_eq(pwrite(fd, &byte, 1, (off_t)at), 1);
}

static void refuse(struct rig *rig, const char *words)
{
    struct err err = {0};
    ck_assert_int_eq(memory_file_verify(rig->fd, SIZE, rig->sums, &err), -EBADMSG);
    ck_assert_int_eq(err.kind, ERR_DEFINITION);
    ck_assert_msg(strstr(err.text, words), "\"%s\" lacks \"%s\"", err.text, words);
    ck_assert_int_eq(memory_file_verify(rig->fd, SIZE, rig->sums, NULL), -EBADMSG);
}

START_TEST(each_damaged_byte_is_found_and_its_place_named)
{
    static const uint64_t ends[] = {0,
                                    PAGE_SIZE,
                                    MEMORY_FILE_CHUNK - 1,
                                    MEMORY_FILE_CHUNK,
                                    600 * PAGE_SIZE, /* a hole begins */
                                    2 * MEMORY_FILE_CHUNK - 1,
                                    2 * MEMORY_FILE_CHUNK,
                                    SIZE - 1};
    struct rig rig;
    uint64_t seed = 10;
    rig_init_full(&rig);
    for (size_t i = 0; i < array_size(ends) + 100; i++) {
        char words[64];
        uint64_t at = i < array_size(ends) ? ends[i] : chance(&seed) % SIZE;
        uint8_t bits = (uint8_t)(1 << chance(&seed) % 8);
        snprintf(words, sizeof(words), "from byte %llu on",
                 (unsigned long long)(at / MEMORY_FILE_CHUNK * MEMORY_FILE_CHUNK));
        flip(rig.fd, at, bits);
        refuse(&rig, words);
        flip(rig.fd, at, bits);
    }
    rig_check(&rig);
    rig_finish(&rig);
}
END_TEST

START_TEST(two_pages_that_changed_places_are_found)
{
    struct rig rig;
    rig_init_full(&rig);
    ck_assert_int_eq(pwrite(rig.fd, rig.wanted, PAGE_SIZE, 3 * PAGE_SIZE), PAGE_SIZE);
    ck_assert_int_eq(pwrite(rig.fd, rig.wanted + 3 * PAGE_SIZE, PAGE_SIZE, 0), PAGE_SIZE);
    refuse(&rig, "from byte 0 on");
    rig_finish(&rig);
}
END_TEST

START_TEST(a_file_of_another_length_is_refused)
{
    static const uint64_t lengths[] = {
        0,        PAGE_SIZE, MEMORY_FILE_CHUNK, SIZE - PAGE_SIZE,
        SIZE - 1, SIZE + 1,  SIZE + PAGE_SIZE,  CHUNKS * MEMORY_FILE_CHUNK};
    struct rig rig;
    rig_init_full(&rig);
    for (size_t i = 0; i < array_size(lengths); i++) {
        char words[64];
        snprintf(words, sizeof(words), "it has %llu bytes instead of %llu",
                 (unsigned long long)lengths[i], (unsigned long long)SIZE);
        ck_assert_int_eq(ftruncate(rig.fd, (off_t)lengths[i]), 0);
        refuse(&rig, words);
        ck_assert_int_eq(ftruncate(rig.fd, (off_t)SIZE), 0);
        rig_put(&rig, 0, PAGES);
    }
    rig_check(&rig);
    rig_finish(&rig);
}
END_TEST

START_TEST(a_wrong_sum_is_refused)
{
    struct rig rig;
    rig_init_full(&rig);
    for (size_t i = 0; i < CHUNKS; i++) {
        rig.sums[i] ^= 1;
        refuse(&rig, "it is not what was written");
        rig.sums[i] ^= 1;
    }
    rig_check(&rig);
    rig_finish(&rig);
}
END_TEST

/* What this process has read so far, from wherever; NULL: this kernel does not count. */
static bool bytes_read(uint64_t *ret_bytes)
{
    unsigned long long bytes;
    FILE *file = fopen("/proc/self/io", "re");
    bool known = file && fscanf(file, "rchar: %llu", &bytes) == 1;
    if (file)
        fclose(file);
    *ret_bytes = known ? bytes : 0;
    return known;
}

/* Of a large memory a guest has often touched little. */
START_TEST(holes_are_not_read)
{
    const uint64_t size = 16ull << 30;
    struct memory_file file;
    struct err err = {0};
    uint64_t seed = 12, before, after;
    uint8_t page[PAGE_SIZE];
    uint32_t *sums = malloc(memory_file_chunks(size) * sizeof(*sums)), sum;
    int fd = make_file();

    ck_assert_int_eq(memory_file_begin(&file, fd, size, NULL), 0);
    fill_page(page, &seed);
    for (uint64_t at = size / 8 - PAGE_SIZE; at < size; at += size / 8)
        ck_assert_int_eq(memory_file_put(&file, at, page, PAGE_SIZE, NULL), 0);
    memory_file_sums(&file, sums);
    memory_file_end(&file);

    bool counts = bytes_read(&before);
    int ret = memory_file_verify(fd, size, sums, &err);
    ck_assert_msg(ret == 0, "%s", err.text);
    ck_assert_int_eq(file_sum(fd, NULL, &sum), 0);
    ck_assert(counts == bytes_read(&after));
    if (counts)
        ck_assert_uint_le(after - before, 2 * 9 * MEMORY_FILE_CHUNK);
    else
        fprintf(stderr, "SKIPPED: this kernel does not say what was read\n");

    flip(fd, size / 2 + 77, 1); /* in the middle of nothing */
    ck_assert_int_eq(memory_file_verify(fd, size, sums, &err), -EBADMSG);
    ck_assert_ptr_nonnull(strstr(err.text, "from byte 8589934592 on"));
    free(sums);
    close(fd);
}
END_TEST

START_TEST(a_file_that_cannot_be_written_or_read_says_so)
{
    struct memory_file file = {0};
    struct err err = {0};
    struct rig rig;
    char path[64];
    uint8_t page[PAGE_SIZE] = {1};

    memory_file_end(&file);
    rig_init_full(&rig);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", rig.fd);
    int readonly = open(path, O_RDONLY | O_CLOEXEC), writeonly = open(path, O_WRONLY | O_CLOEXEC);
    ck_assert(readonly >= 0 && writeonly >= 0);
    ck_assert_int_lt(memory_file_begin(&file, readonly, SIZE, &err), 0);
    ck_assert_ptr_nonnull(strstr(err.text, "cannot make the file of guest memory"));
    memory_file_end(&file);

    rig.file.fd = readonly;
    ck_assert_int_eq(memory_file_put(&rig.file, 0, page, PAGE_SIZE, &err), -EBADF);
    ck_assert_int_eq(err.kind, ERR_FAILED);
    ck_assert_ptr_nonnull(strstr(err.text, "cannot write guest memory"));

    ck_assert_int_eq(memory_file_verify(writeonly, SIZE, rig.sums, &err), -EBADF);
    ck_assert_int_eq(err.kind, ERR_FAILED); /* it is not damaged */
    ck_assert_ptr_nonnull(strstr(err.text, "cannot read it"));
    close(readonly);
    close(writeonly);
    rig_finish(&rig);
}
END_TEST

/* --- sums of files ---------------------------------------------------------------------------- */

#define CHUNK (2ull << 20)

static uint32_t sum(int fd)
{
    uint32_t result = 0;
    ck_assert_int_eq(file_sum(fd, NULL, &result), 0);
    return result;
}

START_TEST(a_files_sum_is_that_of_its_chunks)
{
    static const size_t lengths[] = {0, 1, 4097, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 12345};
    uint64_t seed = 14;
    uint8_t *bytes = malloc(3 * CHUNK);
    for (size_t at = 0; at < 3 * CHUNK; at += PAGE_SIZE)
        fill_page(bytes + at, &seed);
    for (size_t i = 0; i < array_size(lengths); i++) {
        int fd = make_file();
        ck_assert_int_eq(pwrite(fd, bytes, lengths[i], 0), (ssize_t)lengths[i]);
        ck_assert_uint_eq(sum(fd), sum_of_sums(bytes, lengths[i], CHUNK));
        close(fd);
    }
    free(bytes);
}
END_TEST

/* Where the holes are is the file system's business. */
START_TEST(zeroes_and_holes_have_the_same_sum)
{
    static const size_t length = 4 * CHUNK + 4099;
    uint8_t *bytes = calloc(1, length);
    int sparse = make_file(), full = make_file();
    ck_assert_int_eq(ftruncate(sparse, (off_t)length), 0);
    ck_assert_int_eq(pwrite(full, bytes, length, 0), (ssize_t)length);
    ck_assert_uint_eq(sum(sparse), sum(full));
    ck_assert_uint_eq(sum(full), sum_of_sums(bytes, length, CHUNK));

    bytes[CHUNK + 5] = 7; /* one chunk of five has data, then one more */
    for (unsigned i = 0; i < 2; i++) {
        ck_assert_int_eq(pwrite(sparse, bytes + CHUNK, 4096, (off_t)CHUNK), 4096);
        ck_assert_int_eq(pwrite(sparse, bytes + length - 5, 5, (off_t)length - 5), 5);
        ck_assert_int_eq(pwrite(full, bytes, length, 0), (ssize_t)length);
        ck_assert_uint_eq(sum(sparse), sum(full));
        ck_assert_uint_eq(sum(full), sum_of_sums(bytes, length, CHUNK));
        bytes[length - 1] = 9;
    }
    close(sparse);
    close(full);
    free(bytes);
}
END_TEST

START_TEST(each_byte_of_a_file_counts)
{
    static const size_t length = 2 * CHUNK + 100;
    uint64_t seed = 15;
    int fd = make_file();
    ck_assert_int_eq(ftruncate(fd, (off_t)length), 0);
    flip(fd, 3 * PAGE_SIZE, 1);
    uint32_t right = sum(fd);
    for (unsigned i = 0; i < 60; i++) {
        uint64_t at = i == 0 ? 0 : i == 1 ? length - 1 : chance(&seed) % length;
        uint8_t bits = (uint8_t)(1 << chance(&seed) % 8);
        flip(fd, at, bits);
        ck_assert_uint_ne(sum(fd), right);
        flip(fd, at, bits);
        ck_assert_uint_eq(sum(fd), right);
    }
    close(fd);
}
END_TEST

struct listener {
    uint64_t last, total;
    unsigned calls, most;
};

static bool listen(void *ctx, uint64_t done, uint64_t total)
{
    struct listener *listener = ctx;
    ck_assert(listener->calls == 0 || done > listener->last);
    ck_assert_uint_lt(done, total);
    listener->last = done;
    listener->total = total;
    return listener->calls++ < listener->most;
}

START_TEST(whoever_waits_hears_of_it_and_may_stop_it)
{
    struct listener listener = {.most = 100};
    const struct copy_progress progress = {.tell = listen, .ctx = &listener};
    int fd = make_file();
    uint32_t result = 1234;
    ck_assert_int_eq(ftruncate(fd, 10 * CHUNK), 0);
    ck_assert_int_eq(file_sum(fd, &progress, &result), 0);
    ck_assert_uint_eq(listener.total, 10 * CHUNK);
    ck_assert_uint_eq(listener.calls, 10);

    listener = (struct listener){.most = 3};
    result = 1234;
    ck_assert_int_eq(file_sum(fd, &progress, &result), -ECANCELED);
    ck_assert_uint_eq(listener.calls, 4);
    ck_assert_uint_eq(result, 1234);
    close(fd);
    ck_assert_int_eq(file_sum(fd, NULL, &result), -EBADF);
    ck_assert_uint_eq(result, 1234);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("memory_file");
    TCase *memory = tcase_create("memory"), *damage = tcase_create("damage"),
          *sums = tcase_create("sums");
    tcase_add_test(memory, what_is_put_is_in_its_place);
    tcase_add_test(memory, the_number_of_chunks_counts_the_last_one);
    tcase_add_test(memory, pages_of_zeroes_take_no_space);
    tcase_add_test(memory, a_page_that_becomes_zero_reads_as_zero);
    tcase_add_test(damage, each_damaged_byte_is_found_and_its_place_named);
    tcase_add_test(damage, two_pages_that_changed_places_are_found);
    tcase_add_test(damage, a_file_of_another_length_is_refused);
    tcase_add_test(damage, a_wrong_sum_is_refused);
    tcase_add_test(damage, holes_are_not_read);
    tcase_add_test(damage, a_file_that_cannot_be_written_or_read_says_so);
    tcase_add_test(sums, a_files_sum_is_that_of_its_chunks);
    tcase_add_test(sums, zeroes_and_holes_have_the_same_sum);
    tcase_add_test(sums, each_byte_of_a_file_counts);
    tcase_add_test(sums, whoever_waits_hears_of_it_and_may_stop_it);
    TCase *all[] = {memory, damage, sums};
    for (size_t i = 0; i < array_size(all); i++) {
        tcase_set_timeout(all[i], 60);
        suite_add_tcase(suite, all[i]);
    }
    return unit_main(suite);
}
