/* SPDX-License-Identifier: MIT */
/* Ephemeral disks: an image in memory that aborts when it is written to, and a real file over it.
 */
#include "tests/unit/fake_disk.h"
#include "tests/unit/unit.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SIZE = 1 << 20, SECTOR = 512, DEPTH = 32, SEGMENTS = 6, PLACE = SIZE / DEPTH };

struct job {
    struct disk_request request;
    struct iovec iov[SEGMENTS];
    uint8_t bytes[PLACE];
    int result;
};

static struct {
    char folder[64];
    struct loop *loop;
    struct fake_disk image;
    uint8_t bytes[SIZE], before[SIZE], shadow[SIZE], all[SIZE];
    struct disk *disk;
    struct job jobs[DEPTH];
    unsigned under_way;
    bool may_be_done, in_batch;
    uint64_t random;
    const char *trouble;
} t;

static uint64_t random_number(uint64_t below)
{
    t.random = t.random * 6364136223846793005ull + 1442695040888963407ull;
    return (t.random >> 33) % below;
}

static void handle_begin(void *ctx)
{
    ck_assert(!t.in_batch && !t.may_be_done);
    t.in_batch = t.may_be_done = true;
}

static void handle_end(void *ctx)
{
    ck_assert(t.in_batch);
    t.in_batch = t.may_be_done = false;
}

static void handle_trouble(void *ctx, const char *sentence)
{
    t.trouble = sentence;
}

static const struct disk_client client = {
    .begin = handle_begin, .end = handle_end, .trouble = handle_trouble};

static void handle_done(struct disk_request *request, int result)
{
    ck_assert(t.may_be_done && t.under_way > 0);
    *(int *)request->arg = result;
    if (--t.under_way == 0 && t.in_batch)
        loop_stop(t.loop);
}

static void set_up(void)
{
    memset(&t, 0, sizeof(t));
    t.random = 7;
    snprintf(t.folder, sizeof(t.folder), "/tmp/minivmm-overlay-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(t.folder));
    for (size_t i = 0; i < SIZE; i++)
        t.bytes[i] = (uint8_t)(1 + random_number(255)); /* no zeroes: they would hide mistakes */
    memcpy(t.before, t.bytes, SIZE);
    memcpy(t.shadow, t.bytes, SIZE);
    ck_assert_int_eq(loop_create(&t.loop, NULL), 0);
    fake_disk_init(&t.image, t.bytes, SIZE);
    t.image.disk.info.readonly = true;
}

static void put_overlay(void)
{
    struct err err = {0};

    int r = disk_overlay_create(&t.disk, &t.image.disk, t.folder, &err);
    ck_assert_msg(r == 0, "%s", err.text);
    ck_assert_int_eq(disk_attach(t.disk, t.loop, &client, NULL), 0);
}

static void drain(void)
{
    t.may_be_done = true;
    disk_drain(t.disk);
    t.may_be_done = false;
}

static void tear_down(void)
{
    if (t.disk) {
        drain();
        disk_detach(t.disk);
        disk_destroy(t.disk);
    }
    ck_assert_mem_eq(t.bytes, t.before, SIZE);
    loop_destroy(t.loop);
    ck_assert_int_eq(rmdir(t.folder), 0); /* nothing is left there */
}

static void submit(struct disk_request *request, int *ret_result)
{
    request->done = handle_done;
    request->arg = ret_result;
    t.under_way++;
    disk_submit(t.disk, request);
}

static void wait_for_all(void)
{
    t.may_be_done = true;
    disk_kick(t.disk);
    t.may_be_done = false;
    if (t.under_way)
        ck_assert_int_eq(loop_run(t.loop), 0);
    ck_assert_uint_eq(t.under_way, 0);
}

static int run(enum disk_op op, uint64_t offset, uint64_t length, void *bytes)
{
    struct iovec iov = {.iov_base = bytes, .iov_len = length};
    struct disk_request request = {
        .op = op, .offset = offset, .length = length, .iov = &iov, .iov_count = 1};
    int result = 1;

    submit(&request, &result);
    wait_for_all();
    return result;
}

static int fill(uint64_t offset, uint64_t length, int byte)
{
    memset(t.all, byte, length);
    int r = run(DISK_WRITE, offset, length, t.all);
    if (r == 0)
        memset(t.shadow + offset, byte, length);
    return r;
}

static void check_all(void)
{
    ck_assert_int_eq(run(DISK_READ, 0, SIZE, t.all), 0);
    ck_assert_mem_eq(t.all, t.shadow, SIZE);
}

/* Bytes. */

static void cut(struct job *job)
{
    uint64_t at = 0, length = job->request.length;
    unsigned count = 0;

    while (at < length) {
        uint64_t part = length - at;
        if (count + 1 < SEGMENTS && random_number(2))
            part = 1 + random_number(part);
        job->iov[count++] = (struct iovec){.iov_base = job->bytes + at, .iov_len = part};
        at += part;
    }
    job->request.iov = job->iov;
    job->request.iov_count = count;
}

/* Each job has a place of its own, so that the outcome is known. */
static void begin_job(struct job *job)
{
    static const enum disk_op ops[] = {DISK_READ, DISK_READ, DISK_WRITE, DISK_WRITE, DISK_ZEROES};
    uint64_t sectors = 1 + random_number(PLACE / SECTOR);
    uint64_t offset = (uint64_t)(job - t.jobs) * PLACE +
                      random_number(PLACE / SECTOR - sectors + 1) * SECTOR;

    job->request = (struct disk_request){.op = ops[random_number(array_size(ops))],
                                         .unmap = random_number(2),
                                         .offset = offset,
                                         .length = sectors * SECTOR};
    cut(job);
    memset(job->bytes, (int)(1 + random_number(255)), PLACE);
    if (job->request.op == DISK_WRITE)
        memcpy(t.shadow + offset, job->bytes, sectors * SECTOR);
    if (job->request.op == DISK_ZEROES)
        memset(t.shadow + offset, 0, sectors * SECTOR);
    submit(&job->request, &job->result);
}

START_TEST(every_byte_comes_from_where_it_was_written_last)
{
    put_overlay();
    for (unsigned round = 0; round < 60; round++) {
        for (unsigned i = 0; i < DEPTH; i++)
            begin_job(&t.jobs[i]);
        wait_for_all();
        for (unsigned i = 0; i < DEPTH; i++) {
            const struct disk_request *request = &t.jobs[i].request;
            ck_assert_int_eq(t.jobs[i].result, 0);
            if (request->op == DISK_READ)
                ck_assert_mem_eq(t.jobs[i].bytes, t.shadow + request->offset, request->length);
        }
        check_all();
    }
}
END_TEST

/* Every other sector lies in the file. */
static void stripe(void)
{
    for (uint64_t at = 0; at < SIZE; at += 2 * SECTOR)
        ck_assert_int_eq(fill(at, SECTOR, (int)(at / SECTOR % 251)), 0);
}

START_TEST(a_range_that_changes_sides_at_every_sector_is_read_right)
{
    put_overlay();
    stripe();
    check_all();
    ck_assert_uint_ge(t.image.asked[DISK_READ], SIZE / SECTOR / 2);
}
END_TEST

static void kick(void)
{
    t.may_be_done = true;
    disk_kick(t.disk);
    t.may_be_done = false;
}

/* The image has all at hand: so nothing but the budget ends a kick. */
START_TEST(a_kick_ends_however_many_runs_there_are)
{
    enum { MOST_RUNS = 256, RUNS = SIZE / SECTOR };
    static uint8_t bytes[3][SIZE];
    struct iovec iov[3];
    struct disk_request requests[3];
    int results[3] = {1, 1, 1};

    put_overlay();
    stripe();
    for (unsigned i = 0; i < 3; i++) {
        iov[i] = (struct iovec){.iov_base = bytes[i], .iov_len = SIZE};
        requests[i] = (struct disk_request){
            .op = DISK_READ, .length = SIZE, .iov = &iov[i], .iov_count = 1};
        submit(&requests[i], &results[i]);
    }
    unsigned kicks = 0, asked = t.image.asked[DISK_READ];
    while (t.under_way) {
        kick();
        unsigned now = t.image.asked[DISK_READ];
        ck_assert_uint_le(now - asked, MOST_RUNS);
        asked = now;
        kicks++;
        if (kicks == 3) /* the rest goes on by itself */
            ck_assert_int_eq(loop_run(t.loop), 0);
    }
    ck_assert_uint_eq(kicks, 3);
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_int_eq(results[i], 0);
        ck_assert_mem_eq(bytes[i], t.shadow, SIZE);
    }
}
END_TEST

START_TEST(a_cancel_begins_no_more_runs)
{
    struct iovec iov = {.iov_base = t.all, .iov_len = SIZE};
    struct disk_request request = {.op = DISK_READ, .length = SIZE, .iov = &iov, .iov_count = 1};
    int result = 1;

    put_overlay();
    stripe();
    for (unsigned held = 0; held < 2; held++) { /* while it waits for its turn, and for the image */
        t.image.hold = held;
        submit(&request, &result);
        kick();
        ck_assert_uint_eq(t.under_way, 1);
        unsigned asked = t.image.asked[DISK_READ];
        t.may_be_done = true;
        disk_cancel(t.disk);
        drain();
        ck_assert_int_eq(result, -ECANCELED);
        ck_assert_uint_eq(t.image.asked[DISK_READ], asked);
    }
    t.image.hold = false;
    check_all();
}
END_TEST

START_TEST(both_sides_are_told_to_cancel_and_may_have_trouble)
{
    struct iovec iov = {.iov_base = t.all, .iov_len = SECTOR};
    struct disk_request request = {.op = DISK_READ, .length = SECTOR, .iov = &iov, .iov_count = 1};
    int result = 1;

    put_overlay();
    t.image.hold = t.image.may_cancel = true;
    submit(&request, &result);
    kick();
    t.may_be_done = true;
    disk_cancel(t.disk);
    t.may_be_done = false;
    ck_assert_int_eq(result, -ECANCELED);
    t.image.hold = false;
    t.image.client.trouble(t.image.client.ctx, "it is damaged");
    ck_assert_str_eq(t.trouble, "it is damaged");
}
END_TEST

START_TEST(a_write_is_told_sector_by_sector_and_no_neighbour_moves)
{
    put_overlay();
    for (uint64_t first = 60; first < 68; first++)
        for (uint64_t count = 1; count < 140; count += 23) {
            ck_assert_int_eq(fill((first + count) * SECTOR, count * SECTOR, (int)count), 0);
            ck_assert_int_eq(fill(SIZE - count * SECTOR, count * SECTOR, (int)first), 0);
            check_all();
        }
}
END_TEST

START_TEST(what_lies_on_one_side_is_one_request)
{
    put_overlay();
    ck_assert_int_eq(run(DISK_READ, 0, SIZE, t.all), 0);
    ck_assert_uint_eq(t.image.asked[DISK_READ], 1);
    ck_assert_int_eq(fill(0, 64 * SECTOR, 1), 0);
    ck_assert_int_eq(run(DISK_READ, 0, 64 * SECTOR, t.all), 0);
    ck_assert_uint_eq(t.image.asked[DISK_READ], 1); /* the image was not asked again */
    ck_assert_int_eq(run(DISK_READ, 63 * SECTOR, 2 * SECTOR, t.all), 0);
    ck_assert_uint_eq(t.image.asked[DISK_READ], 2);
}
END_TEST

START_TEST(zeroes_and_discards_never_bring_the_image_back)
{
    put_overlay();
    ck_assert_int_eq(fill(0, 32 * SECTOR, 3), 0);
    ck_assert_int_eq(run(DISK_ZEROES, 16 * SECTOR, 32 * SECTOR, NULL), 0);
    memset(t.shadow + 16 * SECTOR, 0, 32 * SECTOR);
    check_all();
    ck_assert_int_eq(run(DISK_DISCARD, 0, SIZE, NULL), 0);
    ck_assert_int_eq(run(DISK_READ, 0, SIZE, t.all), 0);
    for (size_t i = 0; i < 48 * SECTOR; i++)
        ck_assert_uint_eq(t.all[i], 0);
}
END_TEST

START_TEST(a_flush_asks_nobody)
{
    put_overlay();
    ck_assert_int_eq(run(DISK_FLUSH, 0, 0, NULL), 0);
    ck_assert_uint_eq(t.image.asked[DISK_FLUSH], 0);
}
END_TEST

/* What goes wrong. */

START_TEST(a_write_that_fails_leaves_what_was_there)
{
    struct rlimit limit = {.rlim_cur = SIZE / 2, .rlim_max = RLIM_INFINITY};

    put_overlay();
    ck_assert_int_eq(fill(SIZE / 2, SECTOR, 9), 0);
    signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    ck_assert_int_lt(fill(SIZE / 2 + SECTOR, 8 * SECTOR, 5), 0);
    check_all();
    ck_assert_int_eq(fill(0, 8 * SECTOR, 5), 0); /* and the disk lives on */
    check_all();
}
END_TEST

START_TEST(an_image_that_cannot_be_read_fails_only_what_needs_it)
{
    put_overlay();
    for (uint64_t at = 0; at < SIZE / 2; at += 4 * SECTOR)
        ck_assert_int_eq(fill(at, SECTOR, 1), 0);
    t.image.fail = -EIO;
    ck_assert_int_eq(run(DISK_READ, 0, SIZE, t.all), -EIO);
    ck_assert_int_eq(run(DISK_READ, 0, SECTOR, t.all), 0);
    ck_assert_int_eq(fill(0, SECTOR, 2), 0);
    t.image.fail = 0;
    check_all();
}
END_TEST

START_TEST(a_read_of_both_sides_waits_for_the_slower_one)
{
    struct iovec iov = {.iov_base = t.all, .iov_len = 4 * SECTOR};
    struct disk_request request = {
        .op = DISK_READ, .length = 4 * SECTOR, .iov = &iov, .iov_count = 1};
    struct loop_call release = {.handle = fake_disk_release, .arg = &t.image};
    int result = 1;

    put_overlay();
    ck_assert_int_eq(fill(SECTOR, SECTOR, 1), 0);
    t.image.hold = true;
    submit(&request, &result);
    t.may_be_done = true;
    disk_kick(t.disk);
    t.may_be_done = false;
    ck_assert_int_eq(result, 1);
    ck_assert_uint_gt(t.image.held_count, 0);
    t.image.hold = false;
    loop_post(t.loop, &release);
    ck_assert_int_eq(loop_run(t.loop), 0);
    ck_assert_int_eq(result, 0);
    ck_assert_mem_eq(t.all, t.shadow, 4 * SECTOR);
}
END_TEST

START_TEST(drain_ends_all_without_a_loop)
{
    put_overlay();
    t.image.hold = true;
    for (unsigned i = 0; i < DEPTH; i++)
        begin_job(&t.jobs[i]);
    drain();
    ck_assert_uint_eq(t.under_way, 0);
    t.image.hold = false;
    check_all();
    disk_detach(t.disk);
    ck_assert_int_eq(disk_attach(t.disk, t.loop, &client, NULL), 0);
    check_all();
}
END_TEST

START_TEST(an_overlay_of_a_huge_disk_costs_what_is_written)
{
    const uint64_t size = UINT64_C(1) << 40;
    struct rusage before, after;

    getrusage(RUSAGE_SELF, &before);
    t.image.bytes = NULL;
    t.image.disk.info.size = size;
    put_overlay();
    /* A page of the map for each, wherever the host makes huge pages unasked. */
    for (uint64_t at = 0; at < size; at += size / 128)
        ck_assert_int_eq(run(DISK_WRITE, at, SECTOR, t.bytes), 0);
    ck_assert_int_eq(run(DISK_WRITE, size - SECTOR, SECTOR, t.bytes), 0);
    ck_assert_int_eq(run(DISK_READ, size - SECTOR, SECTOR, t.all), 0);
    ck_assert_mem_eq(t.all, t.bytes, SECTOR);
    getrusage(RUSAGE_SELF, &after);
    ck_assert_int_lt(after.ru_maxrss - before.ru_maxrss, 8 << 10); /* KiB; the map has 256 MiB */
}
END_TEST

START_TEST(a_folder_that_cannot_be_written_is_named)
{
    struct err err = {0};
    struct disk *disk = NULL;

    ck_assert_int_eq(disk_overlay_create(&disk, &t.image.disk, "/nowhere", &err), -ENOENT);
    ck_assert_ptr_null(disk);
    ck_assert_ptr_nonnull(strstr(err.text, "/nowhere"));
    ck_assert_ptr_nonnull(strstr(err.hint, "TMPDIR"));
}
END_TEST

/* As a VM opens it. */

static void make_image(char *path, size_t room)
{
    snprintf(path, room, "%s/disk.img", t.folder);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0444);
    ck_assert_int_eq(write(fd, t.bytes, SIZE), SIZE);
    close(fd);
}

START_TEST(many_vms_may_run_one_image_ephemerally_and_it_stays_as_it_is)
{
    char path[128];
    struct disk *other;

    make_image(path, sizeof(path));
    ck_assert_int_eq(setenv("TMPDIR", t.folder, 1), 0);
    struct disk_config config = {.path = path, .ephemeral = true};
    ck_assert_int_eq(disk_open(&other, &config, NULL), 0);
    ck_assert_int_eq(disk_open(&t.disk, &config, NULL), 0);
    ck_assert(!t.disk->info.readonly && t.disk->info.discard);
    ck_assert_int_eq(disk_attach(t.disk, t.loop, &client, NULL), 0);
    check_all();
    ck_assert_int_eq(fill(0, SIZE, 1), 0);
    check_all();
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ck_assert_int_eq(read(fd, t.all, SIZE), SIZE);
    close(fd);
    ck_assert_mem_eq(t.all, t.before, SIZE);
    disk_destroy(other);
    unlink(path);
}
END_TEST

START_TEST(a_writer_and_an_ephemeral_disk_exclude_each_other)
{
    char path[128];
    struct disk *writer, *other = NULL;

    make_image(path, sizeof(path));
    ck_assert_int_eq(chmod(path, 0644), 0);
    struct disk_config plain = {.path = path}, ephemeral = {.path = path, .ephemeral = true};
    ck_assert_int_eq(disk_open(&writer, &plain, NULL), 0);
    ck_assert_int_eq(disk_open(&other, &ephemeral, NULL), -EBUSY);
    disk_destroy(writer);
    unlink(path);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("disk_overlay");
    TCase *tc = tcase_create("disk_overlay");

    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_add_test(tc, every_byte_comes_from_where_it_was_written_last);
    tcase_add_test(tc, a_range_that_changes_sides_at_every_sector_is_read_right);
    tcase_add_test(tc, a_kick_ends_however_many_runs_there_are);
    tcase_add_test(tc, a_cancel_begins_no_more_runs);
    tcase_add_test(tc, both_sides_are_told_to_cancel_and_may_have_trouble);
    tcase_add_test(tc, a_write_is_told_sector_by_sector_and_no_neighbour_moves);
    tcase_add_test(tc, what_lies_on_one_side_is_one_request);
    tcase_add_test(tc, zeroes_and_discards_never_bring_the_image_back);
    tcase_add_test(tc, a_flush_asks_nobody);
    tcase_add_test(tc, a_write_that_fails_leaves_what_was_there);
    tcase_add_test(tc, an_image_that_cannot_be_read_fails_only_what_needs_it);
    tcase_add_test(tc, a_read_of_both_sides_waits_for_the_slower_one);
    tcase_add_test(tc, drain_ends_all_without_a_loop);
    tcase_add_test(tc, an_overlay_of_a_huge_disk_costs_what_is_written);
    tcase_add_test(tc, a_folder_that_cannot_be_written_is_named);
    tcase_add_test(tc, many_vms_may_run_one_image_ephemerally_and_it_stays_as_it_is);
    tcase_add_test(tc, a_writer_and_an_ephemeral_disk_exclude_each_other);
    suite_add_tcase(suite, tc);
    return unit_main(suite);
}
