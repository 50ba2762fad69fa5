/* SPDX-License-Identifier: MIT */
/* Block devices and files. Direct I/O by the kernel's own io_submit(2), so that a depth of N means
 * N requests at the device. */
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_DEPTH = 256 };

/* One request under way, or none. */
struct slot {
    struct iocb iocb;
    uint8_t *buffer;
    uint64_t block;
};

struct job {
    int fd;
    aio_context_t context;
    uint64_t first;  /* byte of the file where this job's part begins */
    uint64_t blocks; /* of it */
    size_t block;
    unsigned depth, free_count;
    struct slot slots[MAX_DEPTH];
    struct slot *free[MAX_DEPTH];
    uint64_t random;
};

static uint64_t next_random(struct job *job)
{
    job->random ^= job->random << 13;
    job->random ^= job->random >> 7;
    job->random ^= job->random << 17;
    return job->random;
}

static int open_direct(const char *path, int flags)
{
    int fd = open(path, flags | O_DIRECT | O_CLOEXEC);
    if (fd < 0)
        die(errno, "cannot open %s", path);
    return fd;
}

static uint64_t file_size(const char *path, int fd)
{
    off_t size = lseek(fd, 0, SEEK_END);
    if (size <= 0)
        die(errno, "%s has no size", path);
    return (uint64_t)size;
}

static void job_init(struct job *job)
{
    if (syscall(SYS_io_setup, job->depth, &job->context) < 0)
        die(errno, "io_setup");
    for (unsigned i = 0; i < job->depth; i++) {
        struct slot *slot = &job->slots[i];
        uint8_t *memory = aligned_alloc(4096, (job->block + 8191) & ~4095ull);
        if (!memory)
            die(ENOMEM, "%u buffers", job->depth);
        /* Most do not begin with a page: a request has more parts than pages then. */
        slot->buffer = memory + 512 * (i % 8);
        job->free[job->free_count++] = slot;
    }
}

/* The slot's buffer and block are set; it is one of free. */
static void job_submit(struct job *job, bool is_write)
{
    struct slot *slot = job->free[--job->free_count];
    struct iocb *list = &slot->iocb;
    slot->iocb = (struct iocb){
        .aio_lio_opcode = is_write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD,
        .aio_fildes = (uint32_t)job->fd,
        .aio_buf = (uintptr_t)slot->buffer,
        .aio_nbytes = job->block,
        .aio_offset = (int64_t)(job->first + slot->block * job->block),
        .aio_data = (uintptr_t)slot,
    };
    if (syscall(SYS_io_submit, job->context, 1, &list) != 1)
        die(errno, "io_submit at %llu", (unsigned long long)slot->iocb.aio_offset);
}

/* Waits for at least one and frees what is done; check(), if any, sees each. */
static unsigned job_reap(struct job *job, void (*check)(struct job *job, struct slot *slot))
{
    struct io_event events[MAX_DEPTH];
    long count = syscall(SYS_io_getevents, job->context, 1, job->depth, events, NULL);
    if (count < 1)
        die(errno, "io_getevents");
    for (long i = 0; i < count; i++) {
        struct slot *slot = (struct slot *)(uintptr_t)events[i].data;
        if (events[i].res != (int64_t)job->block)
            die(events[i].res < 0 ? (int)-events[i].res : 0, "%s of %zu bytes at %lld gave %lld",
                slot->iocb.aio_lio_opcode == IOCB_CMD_PWRITE ? "write" : "read", job->block,
                (long long)slot->iocb.aio_offset, (long long)events[i].res);
        if (check)
            check(job, slot);
        job->free[job->free_count++] = slot;
    }
    return (unsigned)count;
}

/* --- verify ------------------------------------------------------------------------------- */

struct verify {
    struct job job;
    uint64_t seed;
    uint32_t *generation; /* of each block: which data it holds */
    bool *busy;
};

static uint64_t block_seed(const struct verify *verify, uint64_t block)
{
    return verify->seed + verify->generation[block] * 1000003ull;
}

static void handle_verified(struct job *job, struct slot *slot)
{
    struct verify *verify = (struct verify *)job;
    uint64_t offset = job->first + slot->block * job->block;
    verify->busy[slot->block] = false;
    if (slot->iocb.aio_lio_opcode == IOCB_CMD_PWRITE)
        return;
    size_t good = pattern_check(slot->buffer, job->block, block_seed(verify, slot->block), offset);
    if (good != job->block)
        die(0, "wrong data at byte %llu, in the block of %zu bytes at %llu, depth %u",
            (unsigned long long)(offset + good), job->block, (unsigned long long)offset,
            job->depth);
}

static void verify_one(struct verify *verify, uint64_t block, bool is_write)
{
    struct job *job = &verify->job;
    while (job->free_count == 0 || verify->busy[block])
        job_reap(job, handle_verified);
    struct slot *slot = job->free[job->free_count - 1];
    slot->block = block;
    verify->busy[block] = true;
    if (is_write) {
        verify->generation[block]++;
        pattern_fill(slot->buffer, job->block, block_seed(verify, block),
                     job->first + block * job->block);
    } else {
        memset(slot->buffer, 0xa5, job->block);
    }
    job_submit(job, is_write);
}

static void verify_drain(struct verify *verify)
{
    while (verify->job.free_count < verify->job.depth)
        job_reap(&verify->job, handle_verified);
}

static uint64_t common_divisor(uint64_t a, uint64_t b)
{
    while (b) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* Every block once: steps coprime to their number meet all, neighbours far apart in time. */
static void verify_all(struct verify *verify, bool is_write)
{
    uint64_t count = verify->job.blocks, step = count * 5 / 8 | 1;
    while (common_divisor(count, step) != 1)
        step++;
    for (uint64_t i = 0, block = 0; i < count; i++, block = (block + step) % count)
        verify_one(verify, block, is_write);
    verify_drain(verify);
}

static void verify_run(struct verify *verify, uint64_t ops)
{
    struct job *job = &verify->job;
    verify->generation = calloc(job->blocks, sizeof(*verify->generation));
    verify->busy = calloc(job->blocks, sizeof(*verify->busy));
    if (!verify->generation || !verify->busy)
        die(ENOMEM, "%llu blocks", (unsigned long long)job->blocks);
    job_init(job);
    verify_all(verify, true);
    for (uint64_t i = 0; i < ops; i++)
        verify_one(verify, next_random(job) % job->blocks, next_random(job) & 1);
    verify_drain(verify);
    if (fsync(job->fd) < 0)
        die(errno, "fsync");
    verify_all(verify, false);
}

/* One process on a CPU of its own. */
static pid_t verify_fork(const char *path, char **words, unsigned number, unsigned jobs)
{
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(number % (unsigned)sysconf(_SC_NPROCESSORS_ONLN), &cpus);
    sched_setaffinity(0, sizeof(cpus), &cpus);

    struct verify *verify = calloc(1, sizeof(*verify));
    if (!verify)
        die(ENOMEM, "verify");
    struct job *job = &verify->job;
    job->fd = open_direct(path, O_RDWR);
    job->block = read_size(option(words, "block", "4096"));
    job->depth = (unsigned)read_size(option(words, "depth", "1"));
    const char *size = option(words, "size", NULL);
    uint64_t part = (size ? read_size(size) : file_size(path, job->fd)) / jobs;
    job->blocks = part / job->block;
    job->first = number * (job->blocks * job->block);
    job->random = number + 88172645463325252;
    verify->seed = read_size(option(words, "seed", "1")) + number;
    if (job->depth < 1 || job->depth > MAX_DEPTH || job->block % 512 || job->blocks <= job->depth)
        die(0, "these numbers do not go together");
    verify_run(verify, read_size(option(words, "ops", "0")));
    _exit(0);
}

int verb_verify(char **words)
{
    options_check(words + 1, "size block depth jobs ops seed");
    unsigned jobs = (unsigned)read_size(option(words, "jobs", "1"));
    for (unsigned i = 0; i < jobs; i++)
        if (verify_fork(words[0], words + 1, i, jobs) < 0)
            die(errno, "fork");
    for (unsigned i = 0; i < jobs; i++) {
        int status;
        if (wait(&status) < 0 || status != 0)
            return 1;
    }
    printf("verified\n");
    return 0;
}

/* --- bench -------------------------------------------------------------------------------- */

int verb_bench(char **words)
{
    options_check(words + 1, "op order size block depth seconds");
    static struct job job;
    bool is_write = strcmp(option(words, "op", "read"), "write") == 0;
    bool is_random = strcmp(option(words, "order", "random"), "random") == 0;
    double seconds = (double)read_size(option(words, "seconds", "3"));
    job.fd = open_direct(words[0], O_RDWR);
    job.block = read_size(option(words, "block", "4096"));
    job.depth = (unsigned)read_size(option(words, "depth", "1"));
    job.random = 88172645463325252;
    const char *size = option(words, "size", NULL);
    job.blocks = (size ? read_size(size) : file_size(words[0], job.fd)) / job.block;
    if (job.depth < 1 || job.depth > MAX_DEPTH || job.block % 512 || job.blocks < 1)
        die(0, "these numbers do not go together");
    job_init(&job);

    uint64_t done = 0, block = 0;
    double begin = seconds_now(), end = begin;
    while (end - begin < seconds) {
        while (job.free_count > 0) {
            block = is_random ? next_random(&job) % job.blocks : (block + 1) % job.blocks;
            job.free[job.free_count - 1]->block = block;
            job_submit(&job, is_write);
        }
        done += job_reap(&job, NULL);
        end = seconds_now();
    }
    printf("bench: %llu operations in %.3f s\n", (unsigned long long)done, end - begin);
    while (job.free_count < job.depth)
        job_reap(&job, NULL);
    return 0;
}

/* --- files -------------------------------------------------------------------------------- */

/* Sizes differ, most are no multiple of anything. */
static size_t size_of_file(uint64_t number, uint64_t size)
{
    return (size_t)(size / 4 + number * 7919 % size);
}

static void sync_path(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0)
        die(errno, "fsync %s", path);
    close(fd);
}

static void file_write(const char *path, uint64_t number, size_t size, uint8_t *buffer)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    pattern_fill(buffer, size, number, 0);
    if (fd < 0 || write(fd, buffer, size) != (ssize_t)size || fsync(fd) < 0)
        die(errno, "cannot write %s", path);
    close(fd);
}

static void file_check(const char *path, uint64_t number, size_t size, uint8_t *buffer)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        die(errno, "cannot open %s", path);
    ssize_t length = read(fd, buffer, size + 1);
    if (length != (ssize_t)size)
        die(length < 0 ? errno : 0, "%s has %zd bytes, not %zu", path, length, size);
    size_t good = pattern_check(buffer, size, number, 0);
    if (good != size)
        die(0, "%s is wrong at byte %zu of %zu", path, good, size);
    close(fd);
}

int verb_files(char **words)
{
    bool is_write = strcmp(words[0], "write") == 0;
    const char *folder = words[1];
    if (!folder)
        die(0, "files write|check FOLDER");
    options_check(words + 2, "size count");
    uint64_t size = read_size(option(words, "size", "64k"));
    uint64_t count = read_size(option(words, "count", "100"));
    uint8_t *buffer = malloc(size * 5 / 4 + 8);
    if (!buffer)
        die(ENOMEM, "a file of %llu bytes", (unsigned long long)size);
    for (uint64_t i = 0; i < count; i++) {
        char path[512];
        snprintf(path, sizeof(path), "%s/%llu", folder, (unsigned long long)i);
        if (!is_write) {
            file_check(path, i, size_of_file(i, size), buffer);
            continue;
        }
        file_write(path, i, size_of_file(i, size), buffer);
        sync_path(folder);
        printf("synced %llu\n", (unsigned long long)i);
    }
    printf("%llu files\n", (unsigned long long)count);
    return 0;
}
