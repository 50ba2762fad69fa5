/* SPDX-License-Identifier: MIT */
/* qcow2 images made and judged by qemu-img, and random operations on them against a copy. */
#pragma once

#include "core/loop.h"
#include "host/disk.h"
#include "tests/unit/unit.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { RIG_DEPTH = 32, RIG_REQUEST = 256 << 10, RIG_SEGMENTS = 40 };

static const enum disk_engine rig_engines[] = {DISK_ENGINE_URING, DISK_ENGINE_THREADS};

struct rig_job {
    struct disk_request request;
    struct iovec iov[RIG_SEGMENTS];
    uint8_t *buffer;
    bool done;
    int result;
};

static struct {
    char folder[64], path[128];
    struct loop *loop;
    struct disk *disk;
    unsigned under_way;
    bool may_be_done, in_batch;
    uint64_t random, size;
    uint8_t *shadow;
    struct rig_job jobs[RIG_DEPTH];
    bool no_batch;     /* in a child without a loop that runs */
    unsigned troubles; /* that the disk had, since it was opened */
    char trouble[400];
} rig;

static inline uint64_t rig_random(uint64_t below)
{
    rig.random = rig.random * 6364136223846793005ull + 1442695040888963407ull;
    return (rig.random >> 33) % below;
}

/* In the folder. Exit code. */
printf_like(1, 2) static inline int rig_shell(const char *fmt, ...)
{
    char command[1024];
    int length = snprintf(command, sizeof(command), "cd %s && ", rig.folder);
    va_list args;

    va_start(args, fmt);
    vsnprintf(command + length, sizeof(command) - (size_t)length, fmt, args);
    va_end(args);
    int status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

#define rig_make(...) ck_assert_int_eq(rig_shell("qemu-img " __VA_ARGS__), 0)

/* Says it loudly, once for each test that calls it. */
static inline bool rig_has_qemu_img(void)
{
    if (rig_shell("qemu-img --version >/dev/null 2>&1") == 0)
        return true;
    fprintf(stderr, "SKIPPED: qemu-img is missing (Debian: sudo apt install qemu-utils)\n");
    return false;
}

static inline void rig_check(bool leaks_are_fine)
{
    int code = rig_shell("qemu-img check disk.qcow2 >check.log 2>&1");
    if (code != 0 && !(leaks_are_fine && code == 3)) {
        rig_shell("head -n 20 check.log");
        ck_abort_msg("qemu-img check ended with %d", code);
    }
}

static inline void rig_load(const char *name, uint8_t *to, uint64_t size)
{
    char path[160];
    snprintf(path, sizeof(path), "%s/%s", rig.folder, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    for (uint64_t at = 0; at < size;) {
        ssize_t r = pread(fd, to + at, size - at, (off_t)at);
        ck_assert_int_gt(r, 0);
        at += (uint64_t)r;
    }
    close(fd);
}

static inline void rig_save(const char *name, const uint8_t *from, uint64_t size)
{
    char path[160];
    snprintf(path, sizeof(path), "%s/%s", rig.folder, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    ck_assert_int_ge(fd, 0);
    for (uint64_t at = 0; at < size;) {
        ssize_t r = pwrite(fd, from + at, size - at, (off_t)at);
        ck_assert_int_gt(r, 0);
        at += (uint64_t)r;
    }
    close(fd);
}

static inline void rig_compare(const uint8_t *a, const uint8_t *b, uint64_t from, uint64_t length)
{
    if (memcmp(a, b, length) == 0)
        return;
    uint64_t at = 0;
    while (a[at] == b[at])
        at++;
    ck_abort_msg("the first wrong byte is %#llx: %02x instead of %02x",
                 (unsigned long long)(from + at), a[at], b[at]);
}

/* qemu-img reads the same. From a copy: it does not open an image that we hold. */
static inline void rig_compare_with_qemu(const char *options)
{
    uint8_t *bytes = malloc(rig.size);
    ck_assert_int_eq(rig_shell("cp --sparse=always disk.qcow2 copy.qcow2 && "
                               "qemu-img convert %s -O raw copy.qcow2 twin.raw",
                               options),
                     0);
    rig_load("twin.raw", bytes, rig.size);
    rig_compare(bytes, rig.shadow, 0, rig.size);
    free(bytes);
}

static inline void rig_handle_done(struct disk_request *request, int result)
{
    struct rig_job *job = container_of(request, struct rig_job, request);

    ck_assert(rig.may_be_done && !job->done);
    job->done = true;
    job->result = result;
    if (--rig.under_way == 0 && rig.in_batch)
        loop_stop(rig.loop);
}

static inline void rig_handle_begin(void *ctx)
{
    ck_assert(!rig.in_batch && !rig.may_be_done);
    rig.in_batch = rig.may_be_done = true;
}

static inline void rig_handle_end(void *ctx)
{
    ck_assert(rig.in_batch);
    rig.in_batch = rig.may_be_done = false;
}

static inline void rig_handle_trouble(void *ctx, const char *sentence)
{
    rig.troubles++;
    snprintf(rig.trouble, sizeof(rig.trouble), "%s", sentence);
}

static inline int rig_try_open(struct disk_config config, struct err *err)
{
    static const struct disk_client client = {
        .begin = rig_handle_begin, .end = rig_handle_end, .trouble = rig_handle_trouble};

    rig.troubles = 0;
    if (!config.path)
        config.path = rig.path;
    if (!config.format)
        config.format = DISK_FORMAT_QCOW2;
    int r = disk_open(&rig.disk, &config, err);
    if (r == 0)
        ck_assert_int_eq(disk_attach(rig.disk, rig.loop, &client, NULL), 0);
    return r;
}

static inline void rig_open(struct disk_config config)
{
    struct err err = {0};
    int r = rig_try_open(config, &err);
    ck_assert_msg(r == 0, "%s", err.text);
}

static inline void rig_drain(void)
{
    rig.may_be_done = true;
    disk_drain(rig.disk);
    rig.may_be_done = false;
}

static inline void rig_close(void)
{
    if (!rig.disk)
        return;
    rig_drain();
    disk_detach(rig.disk);
    disk_destroy(rig.disk);
    rig.disk = NULL;
}

static inline void rig_use_folder(const char *where)
{
    if (rig.folder[0])
        rmdir(rig.folder);
    snprintf(rig.folder, sizeof(rig.folder), "%s/minivmm-qcow2-XXXXXX", where);
    ck_assert_ptr_nonnull(mkdtemp(rig.folder));
    snprintf(rig.path, sizeof(rig.path), "%s/disk.qcow2", rig.folder);
}

/* In memory, where syncs cost nothing; tests that are about the file system go to /tmp. */
static inline void rig_set_up(void)
{
    rig.random = 1;
    ck_assert_int_eq(loop_create(&rig.loop, NULL), 0);
    rig_use_folder("/dev/shm");
    for (unsigned i = 0; i < RIG_DEPTH; i++)
        ck_assert_int_eq(posix_memalign((void **)&rig.jobs[i].buffer, 4096, RIG_REQUEST), 0);
}

static inline void rig_tear_down(void)
{
    rig_close();
    loop_destroy(rig.loop);
    rig_shell("rm -rf %s", rig.folder);
    for (unsigned i = 0; i < RIG_DEPTH; i++)
        free(rig.jobs[i].buffer);
    free(rig.shadow);
    rig.shadow = NULL;
}
