/* SPDX-License-Identifier: MIT */
/*
 * qcow2 images of all kinds: thousands of random operations against a copy in memory, with both
 * engines; qemu-img makes the images, and says at the end whether they are sound and what is in
 * them.
 */
#include "core/clock.h"
#include "host/disk_queue.h"
#include "tests/unit/qcow2_random.h"

enum { MIB = 1 << 20 };

struct kind {
    const char *make; /* arguments of qemu-img, after the name of the verb; several with && */
    struct disk_config config;
    unsigned rounds;
};

#define CREATE(options, size) "qemu-img create -q -f qcow2 -o " options " disk.qcow2 " size
#define CONVERT(options)      "qemu-img convert -O qcow2 " options " base.raw disk.qcow2"

/* base.raw: 3 MiB and 5 sectors of random bytes. */
static const struct kind kinds[] = {
    {CREATE("compat=0.10", "4M"), {0}, 60},
    {CREATE("compat=1.1", "4195840"), {0}, 80},
    {CREATE("cluster_size=512", "2M"), {0}, 60},
    {CREATE("cluster_size=512,compat=0.10", "2M"), {0}, 40},
    {CREATE("cluster_size=1k,refcount_bits=1", "2M"), {0}, 40},
    {CREATE("cluster_size=4k,refcount_bits=2", "4195840"), {0}, 60},
    {CREATE("cluster_size=8k,refcount_bits=4", "4M"), {0}, 40},
    {CREATE("cluster_size=16k,refcount_bits=8", "4M"), {0}, 40},
    {CREATE("cluster_size=512,refcount_bits=64", "2M"), {0}, 60},
    {CREATE("cluster_size=32k,refcount_bits=32", "4M"), {0}, 40},
    {CREATE("cluster_size=1M", "16M"), {0}, 30},
    {CREATE("cluster_size=2M", "16M"), {0}, 30},
    {CREATE("lazy_refcounts=on", "4M"), {0}, 40},
    {CREATE("preallocation=metadata", "4M"), {0}, 40},
    {CREATE("preallocation=falloc", "4M"), {0}, 30},
    {CREATE("preallocation=full,cluster_size=4k", "4M"), {0}, 30},
    {CREATE("cluster_size=64k", "4M"), {.no_discard = true}, 50},
    {CREATE("cluster_size=64k", "4M"), {.write_through = true}, 15},
    {CREATE("cluster_size=64k", "4M"), {.direct = true}, 8},
    {CREATE("cluster_size=512", "2M"), {.direct = true}, 8},
    {CREATE("cluster_size=4k", "4M"), {.direct = true, .block_size = 4096}, 8},
    {CREATE("cluster_size=64k", "4M"), {.block_size = 4096}, 40},
    {CONVERT("-c"), {0}, 60},
    {CONVERT("-c -o compat=0.10,cluster_size=4k"), {0}, 50},
    {CONVERT("-c -o compression_type=zstd"), {0}, 60},
    {CONVERT("-c -o cluster_size=512"), {0}, 40},
    {CONVERT("-c -o compression_type=zstd,cluster_size=2M"), {0}, 20},
    {CONVERT("-c"), {.direct = true}, 8},
    {CONVERT("-S 0 -o cluster_size=1k"), {0}, 40},
    {CREATE("backing_file=base.raw,backing_fmt=raw", "4M"), {.backing = true}, 60},
    {CREATE("backing_file=base.raw,backing_fmt=raw,compat=0.10", "4M"), {.backing = true}, 60},
    {CREATE("backing_file=base.raw,backing_fmt=raw", "1M"), {.backing = true}, 40},
    {CREATE("backing_file=base.raw,backing_fmt=raw,cluster_size=512", "2M"), {.backing = true}, 50},
    {CREATE("backing_file=base.raw,backing_fmt=raw,cluster_size=2M", "9M"), {.backing = true}, 25},
    {"qemu-img convert -c -O qcow2 -o cluster_size=4k base.raw below.qcow2 && "
     "qemu-img create -q -f qcow2 -b below.qcow2 -F qcow2 middle.qcow2 5M && "
     "qemu-img create -q -f qcow2 -b middle.qcow2 -F qcow2 disk.qcow2 4M",
     {.backing = true},
     60},
    {CREATE("backing_file=base.raw,backing_fmt=raw", "4M"),
     {.backing = true, .direct = true, .block_size = 4096},
     8},
};

static bool make(const struct kind *kind)
{
    uint64_t size = 3 * MIB + 2560;

    if (!rig_has_qemu_img())
        return false;
    if (kind->config.direct)
        rig_use_folder("/tmp");
    if (kind->config.direct && kind->config.backing)
        size = 3 * MIB;
    rig_make_raw("base.raw", size);
    ck_assert_int_eq(rig_shell("%s", kind->make), 0);
    return true;
}

static bool can_open(struct disk_config config)
{
    struct err err = {0};

    if (rig_try_open(config, &err) == 0)
        return true;
    ck_assert_msg(config.direct && err.kind == ERR_HOST, "%s", err.text);
    fprintf(stderr, "SKIPPED: no direct I/O here: %s\n", err.text);
    return false;
}

START_TEST(random_operations_leave_a_sound_image_with_the_right_bytes)
{
    const struct kind *kind = &kinds[_i / 2];
    struct disk_config config = kind->config;

    config.engine = rig_engines[_i % 2];
    rig.random = (uint64_t)_i + 1;
    if (!make(kind) || !can_open(config))
        return;
    rig_take_shadow();
    rig_close();
    rig_compare_with_qemu("");
    rig_open(config);
    rig_rounds(kind->rounds);
    rig_close();
    rig_check(false);
    rig_compare_with_qemu("");
    rig_open(config);
    rig_compare_all();
    rig_rounds(kind->rounds / 2);
    rig_close();
    rig_check(false);
    rig_compare_with_qemu("");
}
END_TEST

/* Snapshots share clusters with the disk; what they have stays as it was. */
START_TEST(snapshots_keep_what_they_have)
{
    static const char *const options[] = {"compat=1.1", "compat=0.10,cluster_size=4k",
                                          "cluster_size=512", "refcount_bits=2"};
    uint8_t *first = NULL;

    if (!rig_has_qemu_img())
        return;
    rig_make_raw("base.raw", 3 * MIB);
    rig_make("convert -c -O qcow2 -o %s base.raw disk.qcow2", options[_i]);
    rig_open((struct disk_config){0});
    rig_take_shadow();
    rig_rounds(20);
    rig_close();
    rig_make("snapshot -c first disk.qcow2");
    first = malloc(rig.size);
    memcpy(first, rig.shadow, rig.size);
    rig_open((struct disk_config){0});
    rig_rounds(20);
    rig_close();
    rig_check(false);
    rig_make("snapshot -c second disk.qcow2");
    rig_open((struct disk_config){0});
    rig_rounds(20);
    rig_close();
    rig_check(false);
    rig_compare_with_qemu("");
    rig_make("snapshot -d second disk.qcow2");
    rig_open((struct disk_config){0});
    rig_rounds(10);
    rig_close();
    rig_check(false);
    memcpy(rig.shadow, first, rig.size);
    rig_compare_with_qemu("-l first");
    rig_make("snapshot -a first disk.qcow2");
    rig_open((struct disk_config){0});
    rig_compare_all();
    rig_close();
    rig_check(false);
    free(first);
}
END_TEST

static uint64_t file_size(bool on_host)
{
    struct stat stat_of;
    ck_assert_int_eq(stat(rig.path, &stat_of), 0);
    return on_host ? (uint64_t)stat_of.st_blocks * 512 : (uint64_t)stat_of.st_size;
}

START_TEST(what_is_discarded_is_used_again)
{
    uint8_t *bytes = malloc(4 * MIB);

    rig_use_folder("/tmp");
    if (rig_has_qemu_img()) {
        rig_make("create -q -f qcow2 disk.qcow2 4M");
        rig_open((struct disk_config){.engine = rig_engines[_i]});
        memset(bytes, 1, 4 * MIB);
        for (unsigned i = 0; i < 8; i++) {
            ck_assert_int_eq(rig_run(DISK_WRITE, 0, 4 * MIB, bytes), 0);
            rig_drain();
            ck_assert_uint_ge(file_size(true), 4 * MIB);
            ck_assert_int_eq(rig_run(i % 2 ? DISK_DISCARD : DISK_ZEROES, 0, 4 * MIB, NULL), 0);
            rig_drain();
            ck_assert_uint_lt(file_size(true), MIB);
        }
        rig_close();
        rig_check(false);
        ck_assert_uint_lt(file_size(false), 5 * MIB);
    }
    free(bytes);
}
END_TEST

START_TEST(a_small_file_holds_a_disk_of_3_tib)
{
    const uint64_t size = UINT64_C(3) << 40;
    uint8_t bytes[4096], read[4096];

    if (!rig_has_qemu_img())
        return;
    rig_make("create -q -f qcow2 disk.qcow2 3T");
    rig_open((struct disk_config){0});
    ck_assert_uint_eq(rig.disk->info.size, size);
    memset(bytes, 7, sizeof(bytes));
    for (uint64_t at = 0; at < size; at += size / 37 & ~4095ull)
        ck_assert_int_eq(rig_run(DISK_WRITE, at, sizeof(bytes), bytes), 0);
    ck_assert_int_eq(rig_run(DISK_WRITE, size - 4096, 4096, bytes), 0);
    ck_assert_int_eq(rig_run(DISK_FLUSH, 0, 0, NULL), 0);
    rig_close();
    rig_check(false);
    ck_assert_uint_lt(file_size(true), 8 * MIB);
    rig_open((struct disk_config){0});
    ck_assert_int_eq(rig_run(DISK_READ, size - 4096, 4096, read), 0);
    ck_assert_mem_eq(read, bytes, sizeof(bytes));
    ck_assert_int_eq(rig_run(DISK_READ, size - 8192, 4096, read), 0);
    ck_assert_uint_eq(read[0], 0);
}
END_TEST

START_TEST(readonly_images_are_read_and_not_touched)
{
    uint8_t *before = NULL, *after = NULL;
    struct rig_job job = {.request = {.op = DISK_WRITE, .length = 512, .iov_count = 1}};

    if (!rig_has_qemu_img())
        return;
    rig_make_raw("base.raw", 3 * MIB + 512);
    rig_make("convert -c -O qcow2 base.raw disk.qcow2");
    uint64_t size = file_size(false);
    before = malloc(size);
    after = malloc(size);
    rig_load("disk.qcow2", before, size);
    rig_open((struct disk_config){.readonly = true, .engine = rig_engines[_i]});
    ck_assert(rig.disk->info.readonly && !rig.disk->info.discard);
    rig_take_shadow();
    rig_compare_with_qemu("");
    job.iov[0] = (struct iovec){.iov_base = rig.shadow, .iov_len = 512};
    rig_submit(&job);
    rig_wait();
    ck_assert_int_eq(job.result, -EROFS);
    ck_assert_int_eq(rig_run(DISK_FLUSH, 0, 0, NULL), 0);
    rig_close();
    ck_assert_uint_eq(file_size(false), size);
    rig_load("disk.qcow2", after, size);
    ck_assert_mem_eq(before, after, size);
    free(before);
    free(after);
}
END_TEST

START_TEST(more_requests_than_there_are_ops)
{
    enum { COUNT = 2000 };
    struct rig_job *jobs = calloc(COUNT, sizeof(*jobs));
    uint8_t *buffers = calloc(COUNT, 512), *all = malloc(COUNT * 512);

    if (rig_has_qemu_img()) {
        rig_make("create -q -f qcow2 disk.qcow2 4M");
        rig_open((struct disk_config){.engine = rig_engines[_i]});
        for (unsigned i = 0; i < COUNT; i++) {
            memset(buffers + i * 512, (int)(i % 251), 512);
            jobs[i].request = (struct disk_request){
                .op = DISK_WRITE, .offset = i * 512, .length = 512, .iov_count = 1};
            jobs[i].iov[0] = (struct iovec){.iov_base = buffers + i * 512, .iov_len = 512};
            rig_submit(&jobs[i]);
        }
        rig_wait();
        ck_assert_int_eq(rig_run(DISK_READ, 0, COUNT * 512, all), 0);
        ck_assert_mem_eq(all, buffers, COUNT * 512);
        rig_close();
        rig_check(false);
    }
    free(all);
    free(buffers);
    free(jobs);
}
END_TEST

static void cancel(void)
{
    rig.may_be_done = true;
    disk_cancel(rig.disk);
    rig.may_be_done = false;
}

/* Of 256 ops the first in each cluster goes on, and the others wait for it. */
START_TEST(a_cancel_ends_those_that_wait_for_an_op_or_for_others)
{
    enum { COUNT = 2000, BEGUN = 256 * 512 / 65536 };
    struct rig_job *jobs = calloc(COUNT, sizeof(*jobs));
    uint8_t bytes[512] = {1};
    unsigned cancelled = 0;

    if (rig_has_qemu_img()) {
        rig_make("create -q -f qcow2 disk.qcow2 4M");
        rig_open((struct disk_config){.engine = rig_engines[_i]});
        for (unsigned i = 0; i < COUNT; i++) {
            jobs[i].request = (struct disk_request){
                .op = DISK_WRITE, .offset = i * 512, .length = 512, .iov_count = 1};
            jobs[i].iov[0] = (struct iovec){.iov_base = bytes, .iov_len = 512};
            rig_submit(&jobs[i]);
        }
        cancel();
        rig_wait();
        for (unsigned i = 0; i < COUNT; i++)
            cancelled += jobs[i].result == -ECANCELED;
        ck_assert_uint_ge(cancelled, COUNT - BEGUN);
        ck_assert_int_eq(rig_run(DISK_WRITE, 0, 512, bytes), 0);
        rig_close();
        rig_check(false);
    }
    free(jobs);
}
END_TEST

/* What was cancelled has been done, or not, or in part. */
static void settle_cancelled(struct rig_job *job)
{
    const struct disk_request *request = &job->request;
    uint8_t *shadow = rig.shadow + request->offset, *now = malloc(request->length + 1);

    ck_assert_int_eq(rig_run(DISK_READ, request->offset, request->length, now), 0);
    for (uint64_t at = 0; at < request->length; at += 512) {
        static const uint8_t zeroes[512];
        const uint8_t *new = request->op == DISK_WRITE ? job->buffer + at : zeroes;
        bool changes = request->op != DISK_READ;
        ck_assert(memcmp(now + at, shadow + at, 512) == 0 ||
                  (changes && memcmp(now + at, new, 512) == 0));
    }
    memcpy(shadow, now, request->length);
    free(now);
}

START_TEST(a_cancel_at_any_moment_leaves_a_sound_image)
{
    static const char *const options[] = {"cluster_size=512", "cluster_size=64k",
                                          "compat=0.10,cluster_size=4k"};
    unsigned cancelled = 0;

    if (!rig_has_qemu_img())
        return;
    rig_make_raw("base.raw", 3 * MIB);
    rig_make("create -q -f qcow2 -b base.raw -F raw -o %s disk.qcow2 4M", options[_i / 2]);
    rig.random = (uint64_t)_i + 1;
    rig_open((struct disk_config){
        .engine = rig_engines[_i % 2], .backing = true, .write_through = _i < 2});
    rig_take_shadow();
    for (unsigned round = 0; round < 60; round++) {
        unsigned depth = rig_submit_round(512);
        rig.may_be_done = true;
        if (rig_random(3))
            disk_kick(rig.disk);
        rig.may_be_done = false;
        cancel();
        rig_wait();
        for (unsigned i = 0; i < depth; i++) {
            if (rig.jobs[i].result == -ECANCELED)
                settle_cancelled(&rig.jobs[i]);
            else
                rig_settle(&rig.jobs[i]);
            cancelled += rig.jobs[i].result == -ECANCELED;
        }
    }
    ck_assert_uint_gt(cancelled, 0);
    ck_assert_int_eq(rig_run(DISK_FLUSH, 0, 0, NULL), 0);
    rig_compare_all();
    rig_close();
    rig_check(false);
    rig_compare_with_qemu("");
}
END_TEST

/* It is in a row behind much that is cancelled. */
START_TEST(a_cancel_leaves_a_commit_that_has_begun)
{
    enum { READS = 200, LENGTH = 256 << 10 };
    struct rig_job *jobs = calloc(READS + 1, sizeof(*jobs));
    uint8_t *bytes = calloc(1, 4 * MIB);

    if (rig_has_qemu_img()) {
        rig_make("create -q -f qcow2 disk.qcow2 8M");
        rig_open((struct disk_config){.engine = rig_engines[_i]});
        ck_assert_int_eq(rig_run(DISK_WRITE, 0, 4 * MIB, bytes), 0);
        ck_assert_int_eq(rig_run(DISK_FLUSH, 0, 0, NULL), 0);
        ck_assert_int_eq(rig_run(DISK_WRITE, 4 * MIB, 4096, bytes), 0);
        for (unsigned i = 0; i <= READS; i++) {
            jobs[i].request = (struct disk_request){
                .op = DISK_READ, .offset = i % 16 * LENGTH, .length = LENGTH, .iov_count = 1};
            jobs[i].iov[0] = (struct iovec){.iov_base = bytes, .iov_len = LENGTH};
        }
        jobs[READS].request = (struct disk_request){.op = DISK_FLUSH};
        for (unsigned i = 0; i <= READS; i++)
            rig_submit(&jobs[i]);
        rig.may_be_done = true;
        disk_kick(rig.disk);
        rig.may_be_done = false;
        cancel();
        rig_wait();
        ck_assert_int_eq(jobs[READS].result, 0);
        rig_close();
        rig_check(false);
    }
    free(bytes);
    free(jobs);
}
END_TEST

START_TEST(zeroes_cost_what_is_not_mapped)
{
    struct disk_request request = {.op = DISK_ZEROES, .length = MIB};

    if (!rig_has_qemu_img())
        return;
    rig_make("create -q -f qcow2 disk.qcow2 4M");
    rig_open((struct disk_config){0});
    ck_assert_uint_eq(disk_zeroes_cost(rig.disk, &request), 0);
    request.offset = 512;
    ck_assert_uint_eq(disk_zeroes_cost(rig.disk, &request), 65536);
    request.length = 4096;
    ck_assert_uint_eq(disk_zeroes_cost(rig.disk, &request), 4096);
    rig_close();
    rig_make("create -q -f qcow2 -o compat=0.10 disk.qcow2 4M");
    rig_open((struct disk_config){0});
    request = (struct disk_request){.op = DISK_ZEROES, .length = MIB};
    ck_assert_uint_eq(disk_zeroes_cost(rig.disk, &request), MIB);
    request.unmap = true;
    ck_assert_uint_eq(disk_zeroes_cost(rig.disk, &request), 0);
}
END_TEST

static void handle_time(void *arg)
{
    loop_stop(rig.loop);
}

/* Nobody has flushed: a guest that is killed later has lost little. */
START_TEST(what_was_written_is_in_the_file_soon)
{
    struct loop_timer timer;

    if (!rig_has_qemu_img())
        return;
    rig_make("create -q -f qcow2 disk.qcow2 4M");
    rig_open((struct disk_config){.engine = rig_engines[_i]});
    rig_take_shadow();
    memset(rig.shadow, 0x42, MIB);
    ck_assert_int_eq(rig_run(DISK_WRITE, 0, MIB, rig.shadow), 0);
    loop_timer_init(&timer, rig.loop, handle_time, NULL);
    ck_assert_int_eq(loop_timer_arm(&timer, clock_monotonic_ns() + 3 * NS_PER_SEC / 2), 0);
    ck_assert_int_eq(loop_run(rig.loop), 0);
    rig_compare_with_qemu("");
}
END_TEST

static const char *const options_of_busy[] = {"cluster_size=512", "cluster_size=4k",
                                              "cluster_size=512,refcount_bits=64"};

/* More tables change between two commits than a commit takes; the refcount table grows. */
START_TEST(many_tables_change_at_once)
{
    const uint64_t size = UINT64_C(1) << 30, step = _i == 1 ? 2 * MIB : 128 << 10;
    uint8_t bytes[512];
    unsigned count = 0;

    if (!rig_has_qemu_img())
        return;
    rig_make("create -q -f qcow2 -o %s disk.qcow2 %s", options_of_busy[_i], _i == 1 ? "4G" : "1G");
    rig_open((struct disk_config){0});
    uint64_t began = clock_monotonic_ns();
    for (uint64_t at = 0; at < size * (_i == 1 ? 4 : 1); at += step) {
        struct rig_job *job = &rig.jobs[count++ % 27];
        memset(job->buffer, (int)(at / step % 250 + 1), 512);
        job->request = (struct disk_request){
            .op = DISK_WRITE, .offset = at, .length = 512, .iov_count = 1};
        job->iov[0] = (struct iovec){.iov_base = job->buffer, .iov_len = 512};
        rig_submit(job);
        if (count % 27 == 0)
            rig_wait();
    }
    rig_wait();
    /* Who waits for a commit waits for no timer. */
    ck_assert_uint_lt(clock_monotonic_ns() - began, count / 1000 * NS_PER_SEC / 2);
    rig_close();
    rig_check(false);
    rig_open((struct disk_config){0});
    for (uint64_t at = 0; at < size; at += step) {
        ck_assert_int_eq(rig_run(DISK_READ, at, 512, bytes), 0);
        ck_assert_uint_eq(bytes[17], at / step % 250 + 1);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("disk_qcow2");
    TCase *tc = tcase_create("disk_qcow2");

    tcase_set_timeout(tc, 120);
    tcase_add_checked_fixture(tc, rig_set_up, rig_tear_down);
    tcase_add_loop_test(tc, random_operations_leave_a_sound_image_with_the_right_bytes, 0,
                        2 * (int)array_size(kinds));
    tcase_add_loop_test(tc, snapshots_keep_what_they_have, 0, 4);
    tcase_add_loop_test(tc, what_is_discarded_is_used_again, 0, 2);
    tcase_add_test(tc, a_small_file_holds_a_disk_of_3_tib);
    tcase_add_loop_test(tc, readonly_images_are_read_and_not_touched, 0, 2);
    tcase_add_loop_test(tc, more_requests_than_there_are_ops, 0, 2);
    tcase_add_loop_test(tc, a_cancel_ends_those_that_wait_for_an_op_or_for_others, 0, 2);
    tcase_add_loop_test(tc, a_cancel_at_any_moment_leaves_a_sound_image, 0, 6);
    tcase_add_loop_test(tc, a_cancel_leaves_a_commit_that_has_begun, 0, 2);
    tcase_add_test(tc, zeroes_cost_what_is_not_mapped);
    tcase_add_loop_test(tc, what_was_written_is_in_the_file_soon, 0, 2);
    tcase_add_loop_test(tc, many_tables_change_at_once, 0, (int)array_size(options_of_busy));
    suite_add_tcase(suite, tc);
    return unit_main(suite);
}
