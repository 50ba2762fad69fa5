/* SPDX-License-Identifier: MIT */
/*
 * Disk I/O by io_uring. One ring; a kick is one system call for all that was submitted.
 *
 * Small cached requests never see the ring (disk_try_at_once). Others that lie in the page cache
 * are done when the call returns: so the completions are looked at right after it. The rest makes
 * the ring's descriptor readable, which the loop watches.
 *
 * Where a request is, in this order: `waiting` while the completion ring has no room for it (it
 * never overflows), or for the bounce buffer; in the ring; `finished` until its owner is told.
 *
 * What is in the ring counts as begun: it is not taken back, and a reset waits for it. So there is
 * not more in it than keeps a disk busy.
 */
#include "host/disk_file.h"
#include "host/disk_queue.h"

#include "core/clock.h"
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

enum {
    SUBMIT_ENTRIES = 128,
    MAX_UNDER_WAY = 256,   /* completion entries: more at a time makes no disk faster */
    MOST_BYTES = 64 << 20, /* then no more enters the ring */
    RETRY_NS = 1000000,    /* after the kernel had no memory for a submit */
};

struct uring {
    struct disk disk;
    struct disk_file file;
    struct io_uring ring; /* ring_fd -1: none */
    unsigned under_way;   /* in the ring: submitted or about to be */
    uint64_t bytes_under_way;
    uint16_t life; /* a job of another one takes no more steps */
    struct disk_queue waiting, waiting_for_bounce, finished;
    void *bounce; /* one for all: guests' buffers are aligned, but for odd boot loaders */
    struct disk_request *bounced; /* who has it */

    struct loop *loop; /* NULL: detached */
    struct disk_client client;
    struct loop_io io;
    struct loop_timer retry;
};

static struct uring *uring_of(struct disk *disk)
{
    return container_of(disk, struct uring, disk);
}

/* Into the ring. */

/*
 * The file is not registered with the ring, though that would save some nanoseconds: a ring keeps
 * its files for a while after it was closed, or its process has died, and with them their locks.
 */
static void fill(struct io_uring_sqe *sqe, int fd, const struct disk_step *step)
{
    const struct iovec *iov = step->iov ? step->iov : &step->one;

    switch (step->call) {
    case DISK_CALL_READ:
        if (step->count == 1)
            io_uring_prep_read(sqe, fd, iov->iov_base, (unsigned)iov->iov_len, step->offset);
        else
            io_uring_prep_readv(sqe, fd, iov, step->count, step->offset);
        break;
    case DISK_CALL_WRITE:
        if (step->count == 1)
            io_uring_prep_write(sqe, fd, iov->iov_base, (unsigned)iov->iov_len, step->offset);
        else
            io_uring_prep_writev(sqe, fd, iov, step->count, step->offset);
        break;
    case DISK_CALL_SYNC:
        io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
        break;
    case DISK_CALL_ALLOCATE:
        io_uring_prep_fallocate(sqe, fd, step->mode, (off_t)step->offset, (off_t)step->length);
        break;
    case DISK_CALL_NONE:
        io_uring_prep_nop(sqe);
        break;
    }
}

/* The bytes of a request that count while it is in the ring. */
static uint64_t weight_of(const struct disk_request *request)
{
    switch (request->op) {
    case DISK_READ:
    case DISK_WRITE:
        return request->length;
    case DISK_ZEROES:
        return request->length < DISK_ZEROES_SIZE ? request->length : DISK_ZEROES_SIZE;
    case DISK_FLUSH:
    case DISK_DISCARD:
        break;
    }
    return 0;
}

/* False: no room now. */
static bool enter_ring(struct uring *uring, struct disk_request *request)
{
    if (uring->under_way >= MAX_UNDER_WAY || uring->bytes_under_way >= MOST_BYTES)
        return false;
    struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);
    if (!sqe) {
        io_uring_submit(&uring->ring); /* full: makes room, or the next kick does */
        sqe = io_uring_get_sqe(&uring->ring);
        if (!sqe)
            return false;
    }
    struct disk_step step;
    disk_step_next(&uring->file, request, &step);
    fill(sqe, uring->file.fd, &step);
    if (disk_job(request)->retries) /* it could not be done at once, so: by a kernel thread */
        io_uring_sqe_set_flags(sqe, IOSQE_ASYNC);
    io_uring_sqe_set_data(sqe, request);
    uring->under_way++;
    uring->bytes_under_way += weight_of(request);
    return true;
}

static void go_on(struct uring *uring, struct disk_request *request)
{
    if (!enter_ring(uring, request))
        disk_queue_add(&uring->waiting, request);
}

static void *borrow_bounce(struct uring *uring, struct disk_request *request)
{
    if (!uring->bounce) {
        void *bounce = mmap(NULL, DISK_BOUNCE_SIZE, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        uring->bounce = bounce == MAP_FAILED ? NULL : bounce;
    }
    if (uring->bounce)
        uring->bounced = request;
    return uring->bounce;
}

static void finish(struct uring *uring, struct disk_request *request)
{
    disk_queue_add(&uring->finished, request);
    if (uring->bounced != request)
        return;
    uring->bounced = NULL;
    struct disk_request *next = disk_queue_take(&uring->waiting_for_bounce);
    if (!next)
        return;
    disk_job(next)->bounce = borrow_bounce(uring, next);
    go_on(uring, next);
}

static void uring_submit(struct disk *disk, struct disk_request *request)
{
    struct uring *uring = uring_of(disk);
    struct disk_job *job = disk_job(request);

    disk_job_begin(&uring->file, request);
    job->life = uring->life;
    if (disk_try_at_once(&uring->file, request)) {
        finish(uring, request);
        return;
    }
    if (disk_needs_bounce(&uring->file, request)) {
        if (uring->bounced) {
            disk_queue_add(&uring->waiting_for_bounce, request);
            return;
        }
        job->bounce = borrow_bounce(uring, request);
        if (!job->bounce) {
            job->result = -ENOMEM;
            finish(uring, request);
            return;
        }
    }
    go_on(uring, request);
}

/* Out of the ring. */

/*
 * The step is made again from what the request says: it is the same one, because nothing but took()
 * moves a request on. A step of a bounced write would copy once more: its buffer is not needed.
 */
static void took(struct uring *uring, struct disk_request *request, int result)
{
    struct disk_job *job = disk_job(request);
    struct disk_step step = {.call = DISK_CALL_NONE};

    switch (request->op) {
    case DISK_READ:
        step.call = DISK_CALL_READ;
        break;
    case DISK_WRITE:
        step.call = DISK_CALL_WRITE;
        break;
    default:
        disk_step_next(&uring->file, request, &step);
    }
    if (disk_step_took(&uring->file, request, &step, result)) {
        finish(uring, request);
    } else if (job->life != uring->life) {
        job->result = -ECANCELED;
        finish(uring, request);
    } else {
        go_on(uring, request);
    }
}

static void reap(struct uring *uring)
{
    struct io_uring_cqe *cqe;
    struct disk_request *request;

    while (io_uring_cq_ready(&uring->ring) && io_uring_peek_cqe(&uring->ring, &cqe) == 0) {
        int result = cqe->res;
        request = io_uring_cqe_get_data(cqe);
        io_uring_cqe_seen(&uring->ring, cqe);
        uring->under_way--;
        uring->bytes_under_way -= weight_of(request);
        took(uring, request, result);
    }
    while (uring->waiting.first && enter_ring(uring, uring->waiting.first))
        disk_queue_take(&uring->waiting);
}

static void tell(struct uring *uring)
{
    for (struct disk_request *request; (request = disk_queue_take(&uring->finished));)
        request->done(request, disk_job(request)->result);
}

/* The kernel has no memory for it now. Without a timer the next kick or completion is the retry. */
static void retry_later(struct uring *uring)
{
    int r = loop_timer_arm(&uring->retry, clock_monotonic_ns() + RETRY_NS);
    (void)r;
}

/* Until nothing more can be done without waiting. */
static void uring_kick(struct disk *disk)
{
    struct uring *uring = uring_of(disk);

    do {
        int r = io_uring_sq_ready(&uring->ring) ? io_uring_submit(&uring->ring) : 0;
        reap(uring);
        tell(uring);
        if (r < 0 && r != -EINTR) {
            retry_later(uring);
            return;
        }
    } while (io_uring_sq_ready(&uring->ring) || uring->finished.first);
}

static void uring_cancel(struct disk *disk)
{
    struct uring *uring = uring_of(disk);
    struct disk_queue waiting;

    uring->life++;
    disk_queue_init(&waiting);
    disk_queue_join(&waiting, &uring->waiting);
    disk_queue_join(&waiting, &uring->waiting_for_bounce); /* nobody is left for the buffer */
    for (struct disk_request *request; (request = disk_queue_take(&waiting));) {
        disk_job(request)->result = -ECANCELED;
        finish(uring, request);
    }
    uring_kick(disk);
}

static void serve(void *arg)
{
    struct uring *uring = arg;

    uring->client.begin(uring->client.ctx);
    uring_kick(&uring->disk);
    uring->client.end(uring->client.ctx);
}

static void handle_ring(void *arg, unsigned events)
{
    serve(arg);
}

static bool is_busy(const struct uring *uring)
{
    return uring->under_way || uring->waiting.first || uring->finished.first;
}

static void uring_drain(struct disk *disk)
{
    static const struct timespec pause = {.tv_nsec = RETRY_NS};
    struct uring *uring = uring_of(disk);
    struct io_uring_cqe *cqe;

    for (;;) {
        uring_kick(disk);
        if (!is_busy(uring))
            return;
        if (io_uring_sq_ready(&uring->ring))
            nanosleep(&pause, NULL); /* the kernel did not take it: nothing to wait for yet */
        else
            (void)io_uring_wait_cqe(&uring->ring, &cqe);
    }
}

/* Life. */

static int uring_attach(struct disk *disk, struct loop *loop, const struct disk_client *client,
                        struct err *err)
{
    struct uring *uring = uring_of(disk);

    uring->io = (struct loop_io){
        .fd = uring->ring.ring_fd, .events = LOOP_READ, .handle = handle_ring, .arg = uring};
    int r = loop_io_add(loop, &uring->io, err);
    if (r < 0)
        return r;
    loop_timer_init(&uring->retry, loop, serve, uring);
    uring->client = *client;
    uring->loop = loop;
    return 0;
}

static void uring_detach(struct disk *disk)
{
    struct uring *uring = uring_of(disk);

    if (!uring->loop)
        return;
    loop_timer_cancel(&uring->retry);
    loop_io_remove(uring->loop, &uring->io);
    uring->loop = NULL;
}

static uint64_t uring_zeroes_cost(struct disk *disk, const struct disk_request *request)
{
    return disk_file_zeroes_cost(&uring_of(disk)->file, request);
}

static void uring_destroy(struct disk *disk)
{
    struct uring *uring = uring_of(disk);

    if (uring->ring.ring_fd >= 0)
        io_uring_queue_exit(&uring->ring);
    if (uring->bounce)
        munmap(uring->bounce, DISK_BOUNCE_SIZE);
    disk_file_close(&uring->file);
    free(uring);
}

static const struct disk_ops ops = {
    .name = "raw, io_uring",
    .attach = uring_attach,
    .detach = uring_detach,
    .submit = uring_submit,
    .kick = uring_kick,
    .cancel = uring_cancel,
    .drain = uring_drain,
    .zeroes_cost = uring_zeroes_cost,
    .destroy = uring_destroy,
};

static int set_up_ring(struct uring *uring)
{
    struct io_uring_params params = {.flags = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP,
                                     .cq_entries = MAX_UNDER_WAY};
    int r = io_uring_queue_init_params(SUBMIT_ENTRIES, &uring->ring, &params);
    if (r < 0) {
        uring->ring.ring_fd = -1;
        return r;
    }
    /* RW_CUR_POS came with Linux 5.6, as did the plain reads and writes. */
    if (!(params.features & IORING_FEAT_RW_CUR_POS) || params.cq_entries < MAX_UNDER_WAY)
        return -ENOSYS;
    return 0;
}

int disk_uring_create(struct disk **ret_disk, const struct disk_file *file, struct err *err)
{
    struct uring *uring = calloc(1, sizeof(*uring));

    if (!uring)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot set up disk I/O");
    uring->disk = (struct disk){.ops = &ops, .info = file->info};
    uring->file = *file;
    disk_queue_init(&uring->waiting);
    disk_queue_init(&uring->waiting_for_bounce);
    disk_queue_init(&uring->finished);
    int r = set_up_ring(uring);
    if (r < 0) {
        uring->file = (struct disk_file){.fd = -1}; /* still the caller's */
        uring_destroy(&uring->disk);
        return err_sys(err, ERR_HOST, -r, "cannot set up io_uring");
    }
    *ret_disk = &uring->disk;
    return 0;
}
