/* SPDX-License-Identifier: MIT */
/*
 * The steps of a request.
 *
 *   READ, WRITE   preadv, pwritev; end of file within the disk is an I/O error: somebody has cut
 *                 the file off under our feet (unless reads past it are zeroes by agreement)
 *   FLUSH         fdatasync
 *   DISCARD       a hole; nothing where holes are not to be had
 *   ZEROES        a hole if the guest may lose the space, else an unwritten extent, else zeroes.
 *                 O_DSYNC is for writes alone: with write-through, fdatasync comes after a hole or
 *                 an extent
 *
 * The same calls serve files and block devices: on a device fallocate sends the command that the
 * device has, keeps the page cache true, and never shows old bytes, which BLKDISCARD may.
 */
#include "host/disk_file.h"

#include "core/clock.h"
#include "core/iov.h"
#include "core/memory.h"
#include "host/lock.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum method { METHOD_HOLE, METHOD_UNWRITTEN, METHOD_WRITE, METHOD_SYNC };

enum {
    AT_ONCE_MAX = 64 << 10,
    PATIENCE_AFTER_NS = 1000000, /* a write into the page cache that took longer had to wait */
    PATIENCE_NS = 100000000,
    MOST_MISSES = 5,   /* then one read of 32 is tried */
    MAX_RETRIES = 100, /* of a call that says "again" though it may wait */
};

void disk_file_close(struct disk_file *file)
{
    if (file->zeroes)
        munmap(file->zeroes, DISK_ZEROES_SIZE);
    if (file->fd >= 0) {
        lock_let_go(file->fd); /* a ring's worker may have it open for a moment more */
        close(file->fd);
    }
    file->zeroes = NULL;
    file->fd = -1;
}

static bool moves_data(const struct disk_request *request)
{
    return request->op == DISK_READ || request->op == DISK_WRITE;
}

static enum method first_method(const struct disk_file *file, const struct disk_request *request)
{
    bool hole = request->op == DISK_DISCARD || request->unmap;

    if (hole && !file->no_punch)
        return METHOD_HOLE;
    return file->no_zero_range ? METHOD_WRITE : METHOD_UNWRITTEN;
}

void disk_job_begin(const struct disk_file *file, struct disk_request *request)
{
    *disk_job(request) = (struct disk_job){.method = (uint8_t)first_method(file, request)};
}

bool disk_needs_bounce(const struct disk_file *file, const struct disk_request *request)
{
    if (!file->direct || !moves_data(request))
        return false;
    for (unsigned i = 0; i < request->iov_count; i++)
        if ((uintptr_t)request->iov[i].iov_base % file->memory_align ||
            request->iov[i].iov_len % file->length_align)
            return true;
    return false;
}

static void next_bounced(const struct disk_request *request, const struct disk_job *job,
                         struct disk_step *step)
{
    uint64_t left = request->length - job->done;
    size_t length = left < DISK_BOUNCE_SIZE ? (size_t)left : DISK_BOUNCE_SIZE;

    if (request->op == DISK_WRITE)
        iov_read(request->iov, request->iov_count, job->done, job->bounce, length);
    step->one = (struct iovec){.iov_base = job->bounce, .iov_len = length};
}

/* Whole segments if they begin where we stand; after a short transfer the rest of one first. */
static void next_segments(const struct disk_request *request, const struct disk_job *job,
                          struct disk_step *step)
{
    const struct iovec *iov = request->iov;
    unsigned count = request->iov_count;
    uint64_t skip = job->done;

    while (count > 1 && skip >= iov->iov_len) {
        skip -= iov->iov_len;
        iov++;
        count--;
    }
    if (skip == 0) {
        step->iov = iov;
        step->count = count < IOV_MAX ? count : IOV_MAX;
    } else {
        step->one = (struct iovec){.iov_base = (uint8_t *)iov->iov_base + skip,
                                   .iov_len = iov->iov_len - skip};
    }
}

static void next_zeroes(const struct disk_file *file, const struct disk_request *request,
                        const struct disk_job *job, struct disk_step *step)
{
    uint64_t left = request->length - job->done;

    if (job->method == METHOD_WRITE) {
        step->call = DISK_CALL_WRITE;
        step->one = (struct iovec){.iov_base = file->zeroes,
                                   .iov_len = left < DISK_ZEROES_SIZE ? left : DISK_ZEROES_SIZE};
        return;
    }
    if (job->method == METHOD_SYNC) {
        step->call = DISK_CALL_SYNC;
        return;
    }
    step->call = DISK_CALL_ALLOCATE;
    step->length = left;
    step->mode = FALLOC_FL_KEEP_SIZE |
                 (job->method == METHOD_HOLE ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE);
}

void disk_step_next(const struct disk_file *file, struct disk_request *request,
                    struct disk_step *ret_step)
{
    const struct disk_job *job = disk_job(request);
    struct disk_step step = {.count = 1, .offset = request->offset + job->done};

    switch (request->op) {
    case DISK_READ:
    case DISK_WRITE:
        if (request->length == 0)
            break;
        step.call = request->op == DISK_READ ? DISK_CALL_READ : DISK_CALL_WRITE;
        if (job->bounce)
            next_bounced(request, job, &step);
        else
            next_segments(request, job, &step);
        break;
    case DISK_FLUSH:
        step.call = DISK_CALL_SYNC;
        break;
    case DISK_DISCARD:
        if (job->method == METHOD_HOLE && request->length)
            next_zeroes(file, request, job, &step);
        break;
    case DISK_ZEROES:
        if (request->length)
            next_zeroes(file, request, job, &step);
        break;
    }
    *ret_step = step;
}

/* A device that has no command for zeroes is sent them by the kernel; so it is where they do not
 * begin and end at its blocks. */
uint64_t disk_file_zeroes_cost(const struct disk_file *file, const struct disk_request *request)
{
    bool whole = (request->offset | request->length) % file->info.optimal_size == 0;
    bool cheap = false;

    switch (first_method(file, request)) {
    case METHOD_HOLE:
        cheap = file->has_punch && (whole || !file->device);
        break;
    case METHOD_UNWRITTEN:
        cheap = file->has_zero_range && !file->device;
        break;
    case METHOD_WRITE:
    case METHOD_SYNC:
        break;
    }
    return cheap ? 0 : request->length;
}

static bool finish(struct disk_job *job, int result)
{
    job->result = result;
    return true;
}

/* With O_DIRECT a part of a block is the end of the file too: from there it cannot go on. */
static bool is_end(const struct disk_file *file, const struct disk_request *request, int result)
{
    return file->zero_past_end && request->op == DISK_READ &&
           (result == 0 || (file->direct && (uint32_t)result % file->length_align));
}

static bool took_bytes(const struct disk_file *file, struct disk_request *request,
                       struct disk_job *job, int result)
{
    bool end = result >= 0 && is_end(file, request, result);

    if (result < 0 || (result == 0 && !end))
        return finish(job, result < 0 ? result : -EIO);
    if (job->bounce && request->op == DISK_READ)
        iov_write(request->iov, request->iov_count, job->done, job->bounce, (size_t)result);
    job->done += (uint64_t)result;
    job->retries = 0;
    if (end) {
        iov_fill(request->iov, request->iov_count, job->done, 0, request->length - job->done);
        job->done = request->length;
    }
    return job->done >= request->length && finish(job, 0);
}

static bool took_allocate(struct disk_file *file, const struct disk_request *request,
                          struct disk_job *job, int result)
{
    bool never = result == -EOPNOTSUPP || result == -ENOSYS;

    if (result == 0 && job->method == METHOD_HOLE)
        file->has_punch = true;
    if (result == 0 && job->method == METHOD_UNWRITTEN)
        file->has_zero_range = true;
    if (result == 0 && request->op == DISK_ZEROES && file->info.write_through) {
        job->method = METHOD_SYNC;
        return false;
    }

    /* EINVAL: not at this alignment. EPERM: not in a sealed file. */
    if (!never && result != -EINVAL && result != -EPERM)
        return finish(job, result);
    if (never && job->method == METHOD_HOLE)
        file->no_punch = true;
    if (never && job->method == METHOD_UNWRITTEN)
        file->no_zero_range = true;
    job->method++;
    return false;
}

bool disk_step_took(struct disk_file *file, struct disk_request *request,
                    const struct disk_step *step, int result)
{
    struct disk_job *job = disk_job(request);

    if (result == -EINTR || (result == -EAGAIN && job->retries++ < MAX_RETRIES))
        return false;
    switch (step->call) {
    case DISK_CALL_READ:
    case DISK_CALL_WRITE:
        return took_bytes(file, request, job, result);
    case DISK_CALL_ALLOCATE:
        return took_allocate(file, request, job, result);
    case DISK_CALL_SYNC:
    case DISK_CALL_NONE:
        break;
    }
    return finish(job, result < 0 ? result : 0);
}

int disk_step_run(const struct disk_file *file, const struct disk_step *step)
{
    const struct iovec *iov = step->iov ? step->iov : &step->one;
    int count = (int)step->count;
    off_t offset = (off_t)step->offset;
    ssize_t r = 0;

    switch (step->call) {
    case DISK_CALL_READ:
        r = preadv(file->fd, iov, count, offset);
        break;
    case DISK_CALL_WRITE:
        r = pwritev(file->fd, iov, count, offset);
        break;
    case DISK_CALL_SYNC:
        r = fdatasync(file->fd);
        break;
    case DISK_CALL_ALLOCATE:
        r = fallocate(file->fd, step->mode, offset, (off_t)step->length);
        break;
    case DISK_CALL_NONE:
        break;
    }
    return r < 0 ? -errno : (int)r;
}

/*
 * A write into the page cache costs a copy; a worker that does it for us costs two thread switches
 * more. But it may have to wait, for memory or for the file system's journal, and all other
 * requests with it: so whoever had to wait once leaves it to the workers for a while. Only whole
 * pages: part of one might have to be read first.
 */
static bool write_at_once(struct disk_file *file, const struct disk_request *request, ssize_t *ret)
{
    if (file->info.write_through || (request->offset | request->length) % PAGE_SIZE)
        return false;
    uint64_t before = clock_monotonic_ns();
    if (before < file->patient_until_ns)
        return false;
    *ret = pwritev(file->fd, request->iov, (int)request->iov_count, (off_t)request->offset);
    if (*ret < 0)
        *ret = -errno;
    uint64_t after = clock_monotonic_ns();
    if (after - before > PATIENCE_AFTER_NS)
        file->patient_until_ns = after + PATIENCE_NS;
    return true;
}

/*
 * What lies in the page cache is read without waiting, and half a microsecond faster than through
 * io_uring, whose completion also wakes whoever watches it. A miss is a system call in vain: the
 * more of them in a row, the rarer it is tried.
 */
static bool read_at_once(struct disk_file *file, const struct disk_request *request, ssize_t *ret)
{
    if (!file->in_memory && (file->no_nowait || file->skip_reads)) {
        file->skip_reads -= file->skip_reads > 0;
        return false;
    }
    *ret = preadv2(file->fd, request->iov, (int)request->iov_count, (off_t)request->offset,
                   file->in_memory ? 0 : RWF_NOWAIT);
    if (*ret >= 0) {
        file->read_misses = 0;
        return true;
    }
    if (errno == EOPNOTSUPP)
        file->no_nowait = true;
    file->read_misses += file->read_misses < MOST_MISSES;
    file->skip_reads = (1u << file->read_misses) - 1;
    return false;
}

bool disk_try_at_once(struct disk_file *file, struct disk_request *request)
{
    struct disk_job *job = disk_job(request);
    ssize_t r = 0;

    if (file->direct || !moves_data(request) || request->length == 0 ||
        request->length > AT_ONCE_MAX || request->iov_count > IOV_MAX)
        return false;
    bool tried = request->op == DISK_WRITE ? write_at_once(file, request, &r)
                                           : read_at_once(file, request, &r);
    /* End of file, part of the bytes, a signal: the ordinary way sorts that out. */
    if (!tried || r == 0 || r == -EINTR || r == -EAGAIN)
        return false;
    return took_bytes(file, request, job, (int)r);
}
