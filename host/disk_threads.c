/* SPDX-License-Identifier: MIT */
/*
 * Disk I/O by threads that wait in preadv and pwritev, where the kernel forbids io_uring.
 *
 * Threads are started when they are needed, up to MAX_WORKERS, and stay. `todo` is what they take
 * from; what they have finished goes to `finished`, and an eventfd tells the loop. A kick hands
 * over all that was submitted since the last one.
 */
#include "host/disk_file.h"
#include "host/disk_queue.h"

#include "core/thread.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MAX_WORKERS = 4 };

struct pool {
    struct disk disk;
    struct disk_file file;

    /* The loop's thread alone. */
    struct disk_queue submitted, at_once;
    struct loop *loop; /* NULL: detached */
    struct disk_client client;
    struct loop_io io;
    unsigned workers;
    struct thread threads[MAX_WORKERS];

    _Atomic uint16_t life; /* a job of another one takes no more steps */

    pthread_mutex_t lock; /* all below */
    pthread_cond_t work, progress;
    struct disk_queue todo, finished;
    unsigned waiting;   /* in todo */
    unsigned under_way; /* in todo, or with a worker */
    unsigned idle;      /* workers that wait for work */
    bool stop;
};

static struct pool *pool_of(struct disk *disk)
{
    return container_of(disk, struct pool, disk);
}

/* Workers. */

static void run_steps(struct pool *pool, struct disk_request *request)
{
    struct disk_job *job = disk_job(request);
    struct disk_step step;

    for (;;) {
        disk_step_next(&pool->file, request, &step);
        if (disk_step_took(&pool->file, request, &step, disk_step_run(&pool->file, &step)))
            return;
        if (job->life != pool->life) {
            job->result = -ECANCELED;
            return;
        }
    }
}

static void run_request(struct pool *pool, struct disk_request *request)
{
    struct disk_job *job = disk_job(request);

    if (!disk_needs_bounce(&pool->file, request)) {
        run_steps(pool, request);
        return;
    }
    job->bounce = mmap(NULL, DISK_BOUNCE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                       -1, 0);
    if (job->bounce == MAP_FAILED) {
        job->result = -ENOMEM;
        return;
    }
    run_steps(pool, request);
    munmap(job->bounce, DISK_BOUNCE_SIZE);
}

/* The first of a batch wakes the loop; it then takes all there are. */
static void hand_back_locked(struct pool *pool, struct disk_request *request)
{
    static const uint64_t one = 1;
    bool first = !pool->finished.first;

    disk_queue_add(&pool->finished, request);
    pool->under_way--;
    pthread_cond_signal(&pool->progress);
    if (first && write(pool->io.fd, &one, sizeof(one)) < 0)
        return; /* the counter is full: the loop is awake */
}

static void worker(void *arg)
{
    struct pool *pool = arg;

    pthread_mutex_lock(&pool->lock);
    while (!pool->stop) {
        struct disk_request *request = disk_queue_take(&pool->todo);
        if (!request) {
            pool->idle++;
            pthread_cond_wait(&pool->work, &pool->lock);
            pool->idle--;
            continue;
        }
        pool->waiting--;
        pthread_mutex_unlock(&pool->lock);
        run_request(pool, request);
        pthread_mutex_lock(&pool->lock);
        hand_back_locked(pool, request);
    }
    pthread_mutex_unlock(&pool->lock);
}

/* One failing is no harm while there are others. */
static int start_worker(struct pool *pool, struct err *err)
{
    int r = thread_start(&pool->threads[pool->workers], "disk-io", worker, pool, err);

    if (r == 0)
        pool->workers++;
    return r;
}

/* The loop's side. */

static void pool_submit(struct disk *disk, struct disk_request *request)
{
    struct pool *pool = pool_of(disk);

    disk_job_begin(&pool->file, request);
    disk_job(request)->life = pool->life;
    bool done = disk_try_at_once(&pool->file, request);
    disk_queue_add(done ? &pool->at_once : &pool->submitted, request);
}

static void tell(struct disk_queue *finished)
{
    for (struct disk_request *request; (request = disk_queue_take(finished));)
        request->done(request, disk_job(request)->result);
}

static void hand_over(struct pool *pool)
{
    unsigned count = 0;

    if (!pool->submitted.first)
        return;
    for (struct disk_request *request = pool->submitted.first; request; request = request->next)
        count++;
    pthread_mutex_lock(&pool->lock);
    disk_queue_join(&pool->todo, &pool->submitted);
    pool->under_way += count;
    pool->waiting += count;
    bool more = pool->waiting > pool->idle && pool->workers < MAX_WORKERS;
    if (count > 1)
        pthread_cond_broadcast(&pool->work);
    else
        pthread_cond_signal(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    if (more && start_worker(pool, NULL) < 0)
        return; /* with those that there are, then */
}

static void pool_kick(struct disk *disk)
{
    struct pool *pool = pool_of(disk);

    do {
        hand_over(pool);
        tell(&pool->at_once);
    } while (pool->submitted.first);
}

static void pool_cancel(struct disk *disk)
{
    struct pool *pool = pool_of(disk);
    struct disk_queue waiting;

    pool->life++;
    disk_queue_init(&waiting);
    pthread_mutex_lock(&pool->lock);
    disk_queue_join(&waiting, &pool->todo);
    pool->under_way -= pool->waiting;
    pool->waiting = 0;
    pthread_mutex_unlock(&pool->lock);
    disk_queue_join(&waiting, &pool->submitted);
    for (struct disk_request *request; (request = disk_queue_take(&waiting));) {
        disk_job(request)->result = -ECANCELED;
        disk_queue_add(&pool->at_once, request);
    }
    pool_kick(disk);
}

/* True: there were some. */
static bool take_finished(struct pool *pool)
{
    struct disk_queue finished;

    disk_queue_init(&finished);
    pthread_mutex_lock(&pool->lock);
    disk_queue_join(&finished, &pool->finished);
    pthread_mutex_unlock(&pool->lock);
    if (!finished.first)
        return false;
    tell(&finished);
    return true;
}

static void handle_finished(void *arg, unsigned events)
{
    struct pool *pool = arg;

    pool->client.begin(pool->client.ctx);
    take_finished(pool);
    pool_kick(&pool->disk); /* what the owner has submitted meanwhile */
    pool->client.end(pool->client.ctx);
}

static void pool_drain(struct disk *disk)
{
    struct pool *pool = pool_of(disk);
    bool busy = true;

    while (busy) {
        pool_kick(disk);
        pthread_mutex_lock(&pool->lock);
        while (pool->under_way && !pool->finished.first)
            pthread_cond_wait(&pool->progress, &pool->lock);
        pthread_mutex_unlock(&pool->lock);
        busy = take_finished(pool) || pool->submitted.first || pool->at_once.first;
    }
}

/* Life. */

static int pool_attach(struct disk *disk, struct loop *loop, const struct disk_client *client,
                       struct err *err)
{
    struct pool *pool = pool_of(disk);

    int r = loop_io_add(loop, &pool->io, err);
    if (r < 0)
        return r;
    pool->client = *client;
    pool->loop = loop;
    return 0;
}

static void pool_detach(struct disk *disk)
{
    struct pool *pool = pool_of(disk);

    if (!pool->loop)
        return;
    loop_io_remove(pool->loop, &pool->io);
    pool->loop = NULL;
}

static uint64_t pool_zeroes_cost(struct disk *disk, const struct disk_request *request)
{
    return disk_file_zeroes_cost(&pool_of(disk)->file, request);
}

static void pool_destroy(struct disk *disk)
{
    struct pool *pool = pool_of(disk);

    pthread_mutex_lock(&pool->lock);
    pool->stop = true;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < pool->workers; i++)
        thread_join(&pool->threads[i]);
    if (pool->io.fd >= 0)
        close(pool->io.fd);
    disk_file_close(&pool->file);
    pthread_cond_destroy(&pool->work);
    pthread_cond_destroy(&pool->progress);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

static const struct disk_ops ops = {
    .name = "raw, threads",
    .attach = pool_attach,
    .detach = pool_detach,
    .submit = pool_submit,
    .kick = pool_kick,
    .cancel = pool_cancel,
    .drain = pool_drain,
    .zeroes_cost = pool_zeroes_cost,
    .destroy = pool_destroy,
};

int disk_threads_create(struct disk **ret_disk, const struct disk_file *file, struct err *err)
{
    struct pool *pool = calloc(1, sizeof(*pool));
    int r;

    if (!pool)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot set up disk I/O");
    pool->disk = (struct disk){.ops = &ops, .info = file->info};
    pool->file = *file;
    disk_queue_init(&pool->submitted);
    disk_queue_init(&pool->at_once);
    disk_queue_init(&pool->todo);
    disk_queue_init(&pool->finished);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->progress, NULL);
    /* Edge: a doorbell that need not be read. */
    pool->io = (struct loop_io){.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
                                .events = LOOP_READ | LOOP_EDGE,
                                .handle = handle_finished,
                                .arg = pool};
    r = pool->io.fd < 0 ? err_sys(err, ERR_HOST, errno, "cannot set up disk I/O")
                        : start_worker(pool, err); /* at least one, or nothing ever ends */
    if (r < 0) {
        pool->file = (struct disk_file){.fd = -1}; /* still the caller's */
        pool_destroy(&pool->disk);
        return r;
    }
    *ret_disk = &pool->disk;
    return 0;
}
