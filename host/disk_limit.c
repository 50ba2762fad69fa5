/* SPDX-License-Identifier: MIT */
/*
 * A disk before another one, through which only so many operations and bytes a second pass.
 *
 * Requests wait in one row: none overtakes another, so a small one is not starved by large ones,
 * and a timer lets the first go when its limits allow it. All operations count; bytes are those
 * that are read or written, zeroes among them where the host has to write them.
 */
#include "host/disk_limit.h"

#include "host/disk_queue.h"
#include <errno.h>
#include <stdlib.h>

enum { LANE = 0 }; /* reads and writes share one */

struct limit {
    struct disk disk;
    struct disk *inner;
    struct limiter limiter;
    struct limiter_pass pass;
    struct disk_queue waiting; /* not empty: the timer is armed */
    struct disk_client client;
};

static struct limit *limit_of(struct disk *disk)
{
    return container_of(disk, struct limit, disk);
}

static uint64_t cost_of(const struct limit *limit, const struct disk_request *request)
{
    switch (request->op) {
    case DISK_READ:
    case DISK_WRITE:
        return request->length;
    case DISK_ZEROES:
        return disk_zeroes_cost(limit->inner, request);
    case DISK_FLUSH:
    case DISK_DISCARD:
        break;
    }
    return 0;
}

static void let_go(struct limit *limit, struct disk_request *request, uint64_t now)
{
    limiter_book(&limit->limiter, LANE, &limit->pass, 1, cost_of(limit, request), now);
    disk_submit(limit->inner, request);
}

/* Lets go whoever may; the next one is not forgotten. */
static void serve(struct limit *limit)
{
    uint64_t now = clock_monotonic_ns();

    while (limit->waiting.first && !limiter_holds(&limit->limiter, &limit->pass, now))
        let_go(limit, disk_queue_take(&limit->waiting), now);
}

static void handle_timer(void *arg)
{
    struct limit *limit = arg;

    limiter_woke(&limit->limiter);
    if (!limit->waiting.first)
        return;
    limit->client.begin(limit->client.ctx);
    serve(limit);
    disk_kick(limit->inner);
    limit->client.end(limit->client.ctx);
}

static void limit_submit(struct disk *disk, struct disk_request *request)
{
    struct limit *limit = limit_of(disk);
    bool first = !limit->waiting.first;

    if (first && !limiter_applies(&limit->limiter)) {
        disk_submit(limit->inner, request);
        return;
    }
    disk_queue_add(&limit->waiting, request);
    if (first)
        serve(limit);
}

static void limit_kick(struct disk *disk)
{
    disk_kick(limit_of(disk)->inner);
}

static void limit_cancel(struct disk *disk)
{
    struct limit *limit = limit_of(disk);
    struct disk_queue waiting;

    disk_queue_init(&waiting);
    disk_queue_join(&waiting, &limit->waiting);
    disk_cancel(limit->inner);
    for (struct disk_request *request; (request = disk_queue_take(&waiting));)
        request->done(request, -ECANCELED);
    disk_kick(limit->inner);
}

static void limit_drain(struct disk *disk)
{
    struct limit *limit = limit_of(disk);
    uint64_t now = clock_monotonic_ns();

    do {
        for (struct disk_request *request; (request = disk_queue_take(&limit->waiting));)
            let_go(limit, request, now);
        disk_drain(limit->inner);
    } while (limit->waiting.first);
}

static int limit_attach(struct disk *disk, struct loop *loop, const struct disk_client *client,
                        struct err *err)
{
    struct limit *limit = limit_of(disk);

    int r = disk_attach(limit->inner, loop, client, err);
    if (r < 0)
        return r;
    limit->client = *client;
    limiter_attach(&limit->limiter, loop, handle_timer, limit);
    return 0;
}

static void limit_detach(struct disk *disk)
{
    struct limit *limit = limit_of(disk);

    limiter_detach(&limit->limiter);
    disk_detach(limit->inner);
}

static uint64_t limit_zeroes_cost(struct disk *disk, const struct disk_request *request)
{
    return disk_zeroes_cost(limit_of(disk)->inner, request);
}

static struct disk *limit_inner(struct disk *disk)
{
    return limit_of(disk)->inner;
}

static void limit_destroy(struct disk *disk)
{
    struct limit *limit = limit_of(disk);

    disk_destroy(limit->inner);
    limiter_finish(&limit->limiter);
    free(limit);
}

static const struct disk_ops ops = {
    .name = "limit",
    .attach = limit_attach,
    .detach = limit_detach,
    .submit = limit_submit,
    .kick = limit_kick,
    .cancel = limit_cancel,
    .drain = limit_drain,
    .zeroes_cost = limit_zeroes_cost,
    .inner = limit_inner,
    .destroy = limit_destroy,
};

int disk_set_limits(struct disk *disk, const struct limits *limits)
{
    if (disk->ops != &ops)
        return -ENOTSUP;
    shared_limits_set(limit_of(disk)->limiter.limits[0], limits);
    return 0;
}

int disk_limit_create(struct disk **ret_disk, struct disk *inner, const struct limits *limits,
                      struct shared_limits *shared, struct err *err)
{
    struct limit *limit = calloc(1, sizeof(*limit));

    if (!limit) {
        disk_destroy(inner);
        return err_sys(err, ERR_HOST, ENOMEM, "cannot set up limits");
    }
    limit->disk = (struct disk){.ops = &ops, .info = inner->info};
    limit->inner = inner;
    disk_queue_init(&limit->waiting);
    int r = limiter_init(&limit->limiter, limits, shared, err);
    if (r < 0) {
        limit_destroy(&limit->disk);
        return r;
    }
    *ret_disk = &limit->disk;
    return 0;
}
