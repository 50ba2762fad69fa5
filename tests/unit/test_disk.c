/* SPDX-License-Identifier: MIT */
/* Raw disks, with both engines: each test runs once with each. */
#include "core/iov.h"
#include "host/disk_file.h"
#include "host/disk_queue.h"
#include "tests/unit/unit.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SIZE = 4 << 20, MOST = 512, SEGMENTS = 8, REQUEST_MAX = 64 << 10 };

static const enum disk_engine engines[] = {DISK_ENGINE_URING, DISK_ENGINE_THREADS};

static struct {
    char folder[64], path[128];
    struct loop *loop;
    struct disk *disk;
    unsigned under_way, batches;
    bool may_be_done; /* inside of kick, drain, or a batch */
    bool in_batch;
    uint64_t random;
} t;

static uint64_t random_number(uint64_t below)
{
    t.random = t.random * 6364136223846793005ull + 1442695040888963407ull;
    return (t.random >> 33) % below;
}

/* One request, and what became of it. */
struct job {
    struct disk_request request;
    struct iovec iov[SEGMENTS];
    uint8_t *buffer;
    bool done;
    int result;
};

static void handle_done(struct disk_request *request, int result)
{
    struct job *job = container_of(request, struct job, request);

    ck_assert(t.may_be_done && !job->done);
    job->done = true;
    job->result = result;
    if (--t.under_way == 0 && t.in_batch)
        loop_stop(t.loop);
}

static void handle_begin(void *ctx)
{
    ck_assert(!t.in_batch && !t.may_be_done);
    t.in_batch = t.may_be_done = true;
    t.batches++;
}

static void handle_end(void *ctx)
{
    ck_assert(t.in_batch);
    t.in_batch = t.may_be_done = false;
}

static const struct disk_client client = {.begin = handle_begin, .end = handle_end};

static void make_image(off_t size)
{
    int fd = open(t.path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, size), 0);
    close(fd);
}

static void open_with(struct disk_config config)
{
    struct err err = {0};

    config.path = t.path;
    int r = disk_open(&t.disk, &config, &err);
    ck_assert_msg(r == 0, "%s", err.text);
    ck_assert_int_eq(disk_attach(t.disk, t.loop, &client, NULL), 0);
}

static void drain(void)
{
    t.may_be_done = true;
    disk_drain(t.disk);
    t.may_be_done = false;
}

static void close_disk(void)
{
    if (!t.disk)
        return;
    drain();
    disk_detach(t.disk);
    disk_destroy(t.disk);
    t.disk = NULL;
}

static void use_folder(const char *where)
{
    snprintf(t.folder, sizeof(t.folder), "%s/minivmm-disk-XXXXXX", where);
    ck_assert_ptr_nonnull(mkdtemp(t.folder));
    snprintf(t.path, sizeof(t.path), "%s/disk.img", t.folder);
    make_image(SIZE);
}

static void leave_folder(void)
{
    unlink(t.path);
    rmdir(t.folder);
}

static void set_up(void)
{
    t.random = 1;
    ck_assert_int_eq(loop_create(&t.loop, NULL), 0);
    use_folder("/tmp");
}

static void tear_down(void)
{
    close_disk();
    loop_destroy(t.loop);
    leave_folder();
}

static void submit(struct job *job)
{
    job->done = false;
    job->request.done = handle_done;
    job->request.iov = job->iov;
    t.under_way++;
    disk_submit(t.disk, &job->request);
}

static void kick(void)
{
    t.may_be_done = true;
    disk_kick(t.disk);
    t.may_be_done = false;
}

static void wait_for_all(void)
{
    kick();
    if (t.under_way)
        ck_assert_int_eq(loop_run(t.loop), 0);
    ck_assert_uint_eq(t.under_way, 0);
}

static int run(enum disk_op op, uint64_t offset, uint64_t length, void *bytes)
{
    struct job job = {.request = {.op = op, .offset = offset, .length = length, .iov_count = 1}};

    job.iov[0] = (struct iovec){.iov_base = bytes, .iov_len = length};
    submit(&job);
    wait_for_all();
    return job.result;
}

/* Reading and writing. */

/* Cuts the buffer into segments, anywhere. */
static void cut(struct job *job, uint64_t length)
{
    uint64_t at = 0;

    job->request.iov_count = 0;
    while (at < length) {
        uint64_t part = length - at;
        if (job->request.iov_count + 1 < SEGMENTS && random_number(2))
            part = 1 + random_number(part);
        job->iov[job->request.iov_count++] = (struct iovec){.iov_base = job->buffer + at,
                                                            .iov_len = part};
        at += part;
    }
}

/* Random reads and writes that do not overlap, against a copy in memory. */
static void compare_with_shadow(unsigned depth, unsigned rounds)
{
    uint8_t *shadow = calloc(1, SIZE);
    struct job *jobs = calloc(depth, sizeof(*jobs));
    uint64_t place = SIZE / depth / 512; /* sectors that belong to one job of a round */

    ck_assert_int_eq(run(DISK_READ, 0, SIZE, shadow), 0);
    for (unsigned i = 0; i < depth; i++)
        ck_assert_int_eq(posix_memalign((void **)&jobs[i].buffer, 4096, REQUEST_MAX + 512), 0);
    for (unsigned round = 0; round < rounds; round++) {
        for (unsigned i = 0; i < depth; i++) {
            struct disk_request *request = &jobs[i].request;
            uint64_t most = place < REQUEST_MAX / 512 ? place : REQUEST_MAX / 512;
            uint64_t sectors = 1 + random_number(most);
            request->length = sectors * 512;
            request->offset = (i * place + random_number(place - sectors + 1)) * 512;
            request->op = random_number(2) ? DISK_READ : DISK_WRITE;
            cut(&jobs[i], request->length);
            memset(jobs[i].buffer, (int)random_number(256), REQUEST_MAX);
            if (request->op == DISK_WRITE)
                memcpy(shadow + request->offset, jobs[i].buffer, request->length);
            submit(&jobs[i]);
        }
        wait_for_all();
        for (unsigned i = 0; i < depth; i++) {
            const struct disk_request *request = &jobs[i].request;
            ck_assert_int_eq(jobs[i].result, 0);
            ck_assert_mem_eq(jobs[i].buffer, shadow + request->offset, request->length);
        }
    }
    for (unsigned i = 0; i < depth; i++)
        free(jobs[i].buffer);
    uint8_t *all = malloc(SIZE);
    ck_assert_int_eq(run(DISK_READ, 0, SIZE, all), 0);
    ck_assert_mem_eq(all, shadow, SIZE);
    free(all);
    free(jobs);
    free(shadow);
}

START_TEST(every_byte_ends_where_it_should_at_all_depths)
{
    open_with((struct disk_config){.engine = engines[_i]});
    for (unsigned depth = 1; depth <= 64; depth *= 4)
        compare_with_shadow(depth, 20 + 100 / depth);
}
END_TEST

START_TEST(every_byte_ends_where_it_should_past_the_page_cache)
{
    struct disk_config config = {.engine = engines[_i], .direct = true, .path = t.path};
    struct err err;

    if (disk_open(&t.disk, &config, &err) < 0) {
        fprintf(stderr, "SKIPPED: no direct I/O here: %s\n", err.text);
        ck_assert_str_ne(err.hint, "");
        return;
    }
    disk_destroy(t.disk);
    open_with(config);
    compare_with_shadow(1, 20); /* buffers cut anywhere go through the bounce buffer */
    compare_with_shadow(16, 10);
}
END_TEST

START_TEST(every_byte_ends_where_it_should_with_writes_that_go_through)
{
    open_with((struct disk_config){.engine = engines[_i], .write_through = true});
    ck_assert(t.disk->info.write_through);
    compare_with_shadow(4, 10);
}
END_TEST

START_TEST(every_byte_ends_where_it_should_in_memory)
{
    leave_folder();
    use_folder("/dev/shm");
    open_with((struct disk_config){.engine = engines[_i]});
    compare_with_shadow(16, 20);
}
END_TEST

START_TEST(more_requests_than_any_ring_holds)
{
    enum { COUNT = 2000 };
    struct job *jobs = calloc(COUNT, sizeof(*jobs));
    uint8_t *buffers = calloc(COUNT, 512);

    open_with((struct disk_config){.engine = engines[_i]});
    for (unsigned i = 0; i < COUNT; i++) {
        memset(buffers + i * 512, (int)(i % 251), 512);
        jobs[i].request = (struct disk_request){
            .op = DISK_WRITE, .offset = i * 512, .length = 512, .iov_count = 1};
        jobs[i].iov[0] = (struct iovec){.iov_base = buffers + i * 512, .iov_len = 512};
        submit(&jobs[i]);
    }
    wait_for_all();
    uint8_t *all = malloc(COUNT * 512);
    ck_assert_int_eq(run(DISK_READ, 0, COUNT * 512, all), 0);
    ck_assert_mem_eq(all, buffers, COUNT * 512);
    free(all);
    free(buffers);
    free(jobs);
}
END_TEST

START_TEST(drain_ends_all_without_a_loop)
{
    struct job jobs[40] = {0};
    uint8_t bytes[512] = {7};

    open_with((struct disk_config){.engine = engines[_i]});
    for (unsigned i = 0; i < array_size(jobs); i++) {
        jobs[i].request = (struct disk_request){
            .op = i % 4 ? DISK_WRITE : DISK_FLUSH, .offset = i * 512, .length = 512};
        jobs[i].request.iov_count = 1;
        jobs[i].iov[0] = (struct iovec){.iov_base = bytes, .iov_len = 512};
        submit(&jobs[i]);
    }
    drain();
    for (unsigned i = 0; i < array_size(jobs); i++)
        ck_assert(jobs[i].done && jobs[i].result == 0);
    /* And attach may follow a detach. */
    disk_detach(t.disk);
    ck_assert_int_eq(disk_attach(t.disk, t.loop, &client, NULL), 0);
    ck_assert_int_eq(run(DISK_FLUSH, 0, 0, NULL), 0);
}
END_TEST

/* What is taken back. A disk that is an eventfd: whoever reads 8 bytes waits for a count. */

static int slow_fd = -1;

/* In the C library's place: an eventfd has no offsets, which only io_uring forgives. */
ssize_t preadv(int fd, const struct iovec *iov, int count, off_t offset)
{
    return fd == slow_fd ? readv(fd, iov, count)
                         : syscall(SYS_preadv, fd, iov, count, (long)offset, 0L);
}

static int open_slow_disk(enum disk_engine engine)
{
    struct disk_file file = {.fd = eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE)};
    int fd = slow_fd = file.fd;

    file.info = (struct disk_info){.size = 1 << 30, .block_size = 512, .optimal_size = 4096};
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(disk_file_start(&t.disk, &file, engine, NULL), 0);
    ck_assert_int_eq(disk_attach(t.disk, t.loop, &client, NULL), 0);
    return fd;
}

static void let_read(int fd, uint64_t count)
{
    ck_assert_int_eq(write(fd, &count, sizeof(count)), sizeof(count));
}

static bool is_all_read(int fd)
{
    struct pollfd poll_of = {.fd = fd, .events = POLLIN};
    return poll(&poll_of, 1, 0) == 0;
}

static struct job *begin_reads(unsigned count, uint64_t length, uint8_t *bytes)
{
    struct job *jobs = calloc(count, sizeof(*jobs));

    for (unsigned i = 0; i < count; i++) {
        jobs[i].request = (struct disk_request){.op = DISK_READ, .length = length, .iov_count = 1};
        jobs[i].iov[0] = (struct iovec){.iov_base = bytes, .iov_len = length};
        submit(&jobs[i]);
    }
    kick();
    ck_assert_uint_eq(t.under_way, count);
    return jobs;
}

static void cancel(void)
{
    t.may_be_done = true;
    disk_cancel(t.disk);
    t.may_be_done = false;
}

static unsigned count_results(const struct job *jobs, unsigned count, int result)
{
    unsigned found = 0;

    for (unsigned i = 0; i < count; i++)
        found += jobs[i].done && jobs[i].result == result;
    return found;
}

START_TEST(a_cancel_ends_what_the_host_has_not_begun)
{
    enum { COUNT = 300, RING = 256, WORKERS = 4 };
    unsigned most = engines[_i] == DISK_ENGINE_URING ? RING : WORKERS;
    uint8_t bytes[8];
    int fd = open_slow_disk(engines[_i]);
    struct job *jobs = begin_reads(COUNT, sizeof(bytes), bytes);

    cancel();
    ck_assert_uint_ge(count_results(jobs, COUNT, -ECANCELED), COUNT - most);
    ck_assert_uint_eq(t.under_way, COUNT - count_results(jobs, COUNT, -ECANCELED));
    unsigned begun = t.under_way;
    cancel(); /* there is nothing more */
    ck_assert_uint_eq(t.under_way, begun);
    let_read(fd, COUNT);
    drain();
    ck_assert_uint_eq(count_results(jobs, COUNT, 0), begun);
    ck_assert_int_eq(run(DISK_READ, 0, sizeof(bytes), bytes), 0); /* the disk lives on */
    free(jobs);
}
END_TEST

START_TEST(what_was_cancelled_takes_no_further_step)
{
    uint8_t bytes[4096];
    int fd = open_slow_disk(engines[_i]);
    struct job *jobs = begin_reads(1, sizeof(bytes), bytes);

    let_read(fd, 1);
    while (!is_all_read(fd)) /* then the first 8 bytes are there, or nearly so */
        sched_yield();
    cancel();
    let_read(fd, 1); /* or it would wait for 510 of them */
    drain();
    ck_assert_int_eq(jobs[0].result, -ECANCELED);
    free(jobs);
}
END_TEST

START_TEST(not_more_is_in_the_hosts_hands_than_keeps_it_busy)
{
    enum { COUNT = 12, LENGTH = 32 << 20, ROOM = 64 << 20 };
    uint8_t *bytes = malloc(LENGTH);
    int fd = open_slow_disk(DISK_ENGINE_URING);
    struct job *jobs = begin_reads(COUNT, LENGTH, bytes);

    cancel();
    ck_assert_uint_eq(count_results(jobs, COUNT, -ECANCELED), COUNT - ROOM / LENGTH);
    let_read(fd, COUNT);
    drain();
    free(jobs);
    free(bytes);
}
END_TEST

/* Zeroes and holes. */

static void check_zeroes(const char *where, bool unmap, bool no_discard)
{
    enum { FROM = 512 * 3, LENGTH = (2 << 20) + 512 };
    uint8_t *bytes = malloc(SIZE);
    struct job job = {.request = {.op = DISK_ZEROES, .unmap = unmap, .offset = FROM}};

    leave_folder();
    use_folder(where);
    open_with((struct disk_config){.engine = engines[0], .no_discard = no_discard});
    memset(bytes, 0xab, SIZE);
    ck_assert_int_eq(run(DISK_WRITE, 0, SIZE, bytes), 0);
    job.request.length = LENGTH;
    submit(&job);
    wait_for_all();
    ck_assert_int_eq(job.result, 0);
    ck_assert_int_eq(run(DISK_READ, 0, SIZE, bytes), 0);
    uint8_t *expected = malloc(SIZE);
    memset(expected, 0xab, SIZE);
    memset(expected + FROM, 0, LENGTH);
    ck_assert_mem_eq(bytes, expected, SIZE);
    free(expected);
    free(bytes);
    close_disk();
}

START_TEST(zeroes_are_zeroes_however_the_file_system_makes_them)
{
    check_zeroes("/tmp", false, false);
    check_zeroes("/tmp", true, false);
    check_zeroes("/tmp", true, true);
    check_zeroes("/dev/shm", false, false); /* has no ZERO_RANGE: they are written */
    check_zeroes("/dev/shm", true, false);
}
END_TEST

/* O_DSYNC makes fallocate wait on some file systems only. */
START_TEST(zeroes_of_a_write_through_disk_are_on_stable_storage)
{
    for (unsigned unmap = 0; unmap < 2; unmap++) {
        struct disk_file file = {.fd = -1, .info.write_through = true};
        struct disk_request request = {.op = DISK_ZEROES, .unmap = unmap, .length = 4096};
        struct disk_step step;
        disk_job_begin(&file, &request);
        disk_step_next(&file, &request, &step);
        ck_assert_int_eq(step.call, DISK_CALL_ALLOCATE);
        ck_assert(!disk_step_took(&file, &request, &step, 0));
        disk_step_next(&file, &request, &step);
        ck_assert_int_eq(step.call, DISK_CALL_SYNC);
        ck_assert(disk_step_took(&file, &request, &step, -EIO));
        ck_assert_int_eq(disk_job(&request)->result, -EIO);
    }
}
END_TEST

START_TEST(zeroes_cost_what_the_host_has_to_write)
{
    struct disk_request request = {.op = DISK_ZEROES, .offset = 4096, .length = 8192};
    struct disk_config config = {.engine = engines[_i]};

    /* On /tmp: until it is seen that they need not be written. */
    open_with(config);
    request.unmap = true;
    ck_assert_uint_eq(disk_zeroes_cost(t.disk, &request), 8192);
    ck_assert_int_eq(run(DISK_DISCARD, 0, 4096, NULL), 0);
    ck_assert_uint_eq(disk_zeroes_cost(t.disk, &request), 0);
    close_disk();

    leave_folder();
    use_folder("/dev/shm"); /* has holes, and no ZERO_RANGE */
    open_with(config);
    ck_assert_int_eq(run(DISK_ZEROES, 0, 4096, NULL), 0);
    request.unmap = false;
    ck_assert_uint_eq(disk_zeroes_cost(t.disk, &request), 8192);
    ck_assert_int_eq(run(DISK_DISCARD, 0, 4096, NULL), 0);
    ck_assert_uint_eq(disk_zeroes_cost(t.disk, &request), 8192);
    request.unmap = true;
    ck_assert_uint_eq(disk_zeroes_cost(t.disk, &request), 0);
    close_disk();
    config.no_discard = true;
    open_with(config);
    ck_assert_int_eq(run(DISK_DISCARD, 0, 4096, NULL), 0);
    ck_assert_uint_eq(disk_zeroes_cost(t.disk, &request), 8192);
}
END_TEST

/* The kernel writes them, where a device has no command for it. */
START_TEST(zeroes_of_a_device_cost_unless_it_can_unmap_whole_blocks)
{
    struct disk_file file = {.fd = -1, .device = true, .info.optimal_size = 4096};
    struct disk_request request = {.op = DISK_ZEROES, .length = 8192};

    file.has_punch = file.has_zero_range = true;
    ck_assert_uint_eq(disk_file_zeroes_cost(&file, &request), 8192);
    request.unmap = true;
    ck_assert_uint_eq(disk_file_zeroes_cost(&file, &request), 0);
    request.offset = 512;
    ck_assert_uint_eq(disk_file_zeroes_cost(&file, &request), 8192);
}
END_TEST

static uint64_t blocks_on_host(void)
{
    struct stat stat_of;
    ck_assert_int_eq(stat(t.path, &stat_of), 0);
    return (uint64_t)stat_of.st_blocks * 512;
}

START_TEST(discard_gives_space_back)
{
    uint8_t *bytes = malloc(SIZE);

    open_with((struct disk_config){.engine = engines[_i]});
    ck_assert(t.disk->info.discard);
    memset(bytes, 1, SIZE);
    ck_assert_int_eq(run(DISK_WRITE, 0, SIZE, bytes), 0);
    ck_assert_int_eq(run(DISK_FLUSH, 0, 0, NULL), 0);
    uint64_t before = blocks_on_host();
    ck_assert_int_eq(run(DISK_DISCARD, 0, SIZE / 2, NULL), 0);
    ck_assert_uint_le(blocks_on_host(), before - SIZE / 2);
    ck_assert_int_eq(run(DISK_READ, SIZE / 2, SIZE / 2, bytes), 0);
    ck_assert_uint_eq(bytes[0], 1);
    ck_assert_mem_eq(bytes, bytes + 1, SIZE / 2 - 1); /* all the same */
    free(bytes);
}
END_TEST

START_TEST(without_discards_the_space_stays)
{
    uint8_t bytes[8192] = {1};

    open_with((struct disk_config){.engine = engines[_i], .no_discard = true});
    ck_assert(!t.disk->info.discard);
    ck_assert_int_eq(run(DISK_WRITE, 0, sizeof(bytes), bytes), 0);
    ck_assert_int_eq(run(DISK_FLUSH, 0, 0, NULL), 0);
    uint64_t before = blocks_on_host();
    ck_assert_int_eq(run(DISK_DISCARD, 0, SIZE, NULL), 0);
    ck_assert_uint_eq(blocks_on_host(), before);
}
END_TEST

/* The host fails. */

START_TEST(a_file_that_was_cut_off_is_an_io_error)
{
    uint8_t bytes[8192];

    open_with((struct disk_config){.engine = engines[_i]});
    ck_assert_int_eq(truncate(t.path, 4096), 0);
    ck_assert_int_eq(run(DISK_READ, 0, sizeof(bytes), bytes), -EIO);
    ck_assert_int_eq(run(DISK_READ, 8192, 512, bytes), -EIO);
    ck_assert_int_eq(run(DISK_READ, 0, 4096, bytes), 0);
}
END_TEST

START_TEST(a_full_file_system_is_an_error_and_not_the_end)
{
    uint8_t *bytes = calloc(1, SIZE);
    char options[] = "size=256k";

    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("none", t.folder, "tmpfs", 0, options) < 0) {
        fprintf(stderr, "SKIPPED: a full file system needs root: %s\n", strerror(errno));
        free(bytes);
        return;
    }
    make_image(SIZE);
    open_with((struct disk_config){.engine = engines[_i]});
    ck_assert_int_eq(run(DISK_WRITE, 0, SIZE, bytes), -ENOSPC);
    ck_assert_int_eq(run(DISK_WRITE, SIZE - 4096, 4096, bytes), -ENOSPC); /* at once, this one */
    ck_assert_int_eq(run(DISK_READ, 0, SIZE, bytes), 0);
    ck_assert_int_eq(run(DISK_DISCARD, 0, SIZE, NULL), 0);
    ck_assert_int_eq(run(DISK_WRITE, SIZE - 4096, 4096, bytes), 0); /* there is room again */
    close_disk();
    umount2(t.folder, MNT_DETACH);
    free(bytes);
}
END_TEST

/* Opening. */

static struct err expect_refusal(struct disk_config config, int error, enum err_kind kind)
{
    struct err err = {0};
    struct disk *disk = NULL;

    if (!config.path)
        config.path = t.path;
    ck_assert_int_eq(disk_open(&disk, &config, &err), -error);
    ck_assert_ptr_null(disk);
    ck_assert_int_eq(err.kind, kind);
    ck_assert_msg(strstr(err.text, config.path), "names no file: %s", err.text);
    return err;
}

START_TEST(what_is_no_disk_is_refused_with_a_sentence)
{
    struct err err;

    expect_refusal((struct disk_config){.path = "/nowhere/disk.img"}, ENOENT, ERR_NOT_FOUND);
    expect_refusal((struct disk_config){.path = "/tmp"}, EISDIR, ERR_DEFINITION);
    expect_refusal((struct disk_config){.path = "/dev/null"}, EINVAL, ERR_DEFINITION);
    unlink(t.path);
    ck_assert_int_eq(mkfifo(t.path, 0600), 0); /* would hang whoever opens it */
    expect_refusal((struct disk_config){.readonly = true}, EINVAL, ERR_DEFINITION);
    unlink(t.path);
    make_image(0);
    err = expect_refusal((struct disk_config){0}, EINVAL, ERR_DEFINITION);
    ck_assert_ptr_nonnull(strstr(err.hint, "truncate"));
    make_image(512 * 3 + 1);
    err = expect_refusal((struct disk_config){0}, EINVAL, ERR_DEFINITION);
    ck_assert_ptr_nonnull(strstr(err.hint, "sectors of 512 bytes: is this a disk image?"));
    make_image(512 * 3);
    err = expect_refusal((struct disk_config){.block_size = 4096}, EINVAL, ERR_DEFINITION);
    ck_assert_ptr_nonnull(strstr(err.hint, "sectors of 4096 bytes: is this a disk image?"));
    expect_refusal((struct disk_config){.block_size = 1024}, EINVAL, ERR_DEFINITION);
}
END_TEST

START_TEST(a_file_without_the_right_to_write_says_so)
{
    struct disk *disk;

    ck_assert_int_eq(chmod(t.folder, 0755), 0);
    ck_assert_int_eq(chmod(t.path, 0444), 0);
    if (geteuid() == 0 && setresuid(65534, 65534, 0) < 0)
        ck_abort_msg("cannot give up root");
    struct err err = expect_refusal((struct disk_config){0}, EACCES, ERR_FAILED);
    ck_assert_ptr_nonnull(strstr(err.hint, ",readonly"));
    struct disk_config config = {.path = t.path, .readonly = true};
    ck_assert_int_eq(disk_open(&disk, &config, NULL), 0);
    ck_assert(disk->info.readonly && !disk->info.discard);
    disk_destroy(disk);
    if (getuid() != 0 && setresuid(0, 0, 0) < 0)
        fprintf(stderr, "not root again\n");
}
END_TEST

START_TEST(a_disk_has_one_writer_or_many_readers)
{
    struct disk_config readonly = {.path = t.path, .readonly = true};
    struct disk *first, *second;
    struct err err;

    open_with((struct disk_config){.engine = engines[_i]});
    err = expect_refusal((struct disk_config){0}, EBUSY, ERR_STATE);
    ck_assert_ptr_nonnull(strstr(err.text, "of this VM already"));
    expect_refusal(readonly, EBUSY, ERR_STATE);
    close_disk();
    ck_assert_int_eq(disk_open(&first, &readonly, NULL), 0);
    ck_assert_int_eq(disk_open(&second, &readonly, NULL), 0);
    expect_refusal((struct disk_config){0}, EBUSY, ERR_STATE);
    disk_destroy(first);
    disk_destroy(second);
    open_with((struct disk_config){.engine = engines[_i]});
}
END_TEST

START_TEST(the_holder_of_a_locked_disk_is_named)
{
    int ready[2];
    char byte, expected[64];

    ck_assert_int_eq(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        struct disk_config config = {.path = t.path};
        struct disk *disk;
        _exit(disk_open(&disk, &config, NULL) < 0 || write(ready[1], "", 1) != 1 || pause());
    }
    ck_assert_int_eq(read(ready[0], &byte, 1), 1);
    struct err err = expect_refusal((struct disk_config){0}, EBUSY, ERR_STATE);
    snprintf(expected, sizeof(expected), "in use by another VM (pid %d)", child);
    ck_assert_msg(strstr(err.text, expected), "%s", err.text);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    open_with((struct disk_config){0}); /* the lock died with it */
}
END_TEST

/* io_uring_setup fails in this process from now on. */
static void forbid_io_uring(int errnum)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)errnum),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = array_size(filter), .filter = filter};

    ck_assert_int_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    ck_assert_int_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

START_TEST(where_io_uring_is_forbidden_threads_do_the_work)
{
    static const int reasons[] = {EPERM, ENOSYS, ENOMEM};
    struct disk_config config = {.path = t.path, .engine = DISK_ENGINE_URING};
    struct err err;

    forbid_io_uring(reasons[_i]);
    ck_assert_int_eq(disk_open(&t.disk, &config, &err), -reasons[_i]);
    ck_assert_int_eq(err.kind, ERR_HOST);
    open_with((struct disk_config){.engine = DISK_ENGINE_AUTO});
    ck_assert_ptr_nonnull(strstr(t.disk->ops->name, "threads"));
    compare_with_shadow(4, 10);
}
END_TEST

START_TEST(sizes_are_what_was_asked_for)
{
    open_with((struct disk_config){.engine = engines[_i]});
    ck_assert_uint_eq(t.disk->info.size, SIZE);
    ck_assert_uint_eq(t.disk->info.block_size, 512);
    ck_assert_uint_ge(t.disk->info.optimal_size, 512);
    close_disk();
    open_with((struct disk_config){.engine = engines[_i], .block_size = 4096});
    ck_assert_uint_eq(t.disk->info.block_size, 4096);
    ck_assert_uint_ge(t.disk->info.optimal_size, 4096);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("disk");
    TCase *tc = tcase_create("disk");
    int both = array_size(engines);

    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_add_loop_test(tc, every_byte_ends_where_it_should_at_all_depths, 0, both);
    tcase_add_loop_test(tc, every_byte_ends_where_it_should_past_the_page_cache, 0, both);
    tcase_add_loop_test(tc, every_byte_ends_where_it_should_with_writes_that_go_through, 0, both);
    tcase_add_loop_test(tc, every_byte_ends_where_it_should_in_memory, 0, both);
    tcase_add_loop_test(tc, more_requests_than_any_ring_holds, 0, both);
    tcase_add_loop_test(tc, drain_ends_all_without_a_loop, 0, both);
    tcase_add_loop_test(tc, a_cancel_ends_what_the_host_has_not_begun, 0, both);
    tcase_add_loop_test(tc, what_was_cancelled_takes_no_further_step, 0, both);
    tcase_add_test(tc, not_more_is_in_the_hosts_hands_than_keeps_it_busy);
    tcase_add_loop_test(tc, zeroes_cost_what_the_host_has_to_write, 0, both);
    tcase_add_test(tc, zeroes_of_a_device_cost_unless_it_can_unmap_whole_blocks);
    tcase_add_test(tc, zeroes_are_zeroes_however_the_file_system_makes_them);
    tcase_add_test(tc, zeroes_of_a_write_through_disk_are_on_stable_storage);
    tcase_add_loop_test(tc, discard_gives_space_back, 0, both);
    tcase_add_loop_test(tc, without_discards_the_space_stays, 0, both);
    tcase_add_loop_test(tc, a_file_that_was_cut_off_is_an_io_error, 0, both);
    tcase_add_loop_test(tc, a_full_file_system_is_an_error_and_not_the_end, 0, both);
    tcase_add_test(tc, what_is_no_disk_is_refused_with_a_sentence);
    tcase_add_test(tc, a_file_without_the_right_to_write_says_so);
    tcase_add_loop_test(tc, a_disk_has_one_writer_or_many_readers, 0, both);
    tcase_add_test(tc, the_holder_of_a_locked_disk_is_named);
    tcase_add_loop_test(tc, where_io_uring_is_forbidden_threads_do_the_work, 0, 3);
    tcase_add_loop_test(tc, sizes_are_what_was_asked_for, 0, both);
    suite_add_tcase(suite, tc);
    return unit_main(suite);
}
