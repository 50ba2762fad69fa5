/* SPDX-License-Identifier: MIT */
/*
 * A disk before another one, through which only so many operations and bytes a second pass.
 *
 * Requests wait in one row: none overtakes another, so a small one is not starved by large ones,
 * and a timer lets the first go when both buckets allow it. All operations count; bytes are those
 * that are read or written.
 */
#include "host/bucket.h"
#include "host/disk_queue.h"

#include <errno.h>
#include <stdlib.h>

struct limit {
    struct disk disk;
    struct disk *inner;
    struct bucket operations, bytes;
    struct disk_queue waiting;
    bool attached;
    struct disk_client client;
    struct loop_timer timer;
};

static struct limit *limit_of(struct disk *disk)
{
    return container_of(disk, struct limit, disk);
}

static uint64_t ready_ns(const struct limit *limit)
{
    uint64_t operations = bucket_ready_ns(&limit->operations);
    uint64_t bytes = bucket_ready_ns(&limit->bytes);

    return operations > bytes ? operations : bytes;
}

static void let_go(struct limit *limit, struct disk_request *request, uint64_t now)
{
    bool moves = request->op == DISK_READ || request->op == DISK_WRITE;

    bucket_take(&limit->operations, 1, now);
    bucket_take(&limit->bytes, moves ? request->length : 0, now);
    disk_submit(limit->inner, request);
}

/* Lets go whoever may, and sees to it that the next one is not forgotten. */
static void serve(struct limit *limit)
{
    uint64_t now = clock_monotonic_ns();

    while (limit->waiting.first && ready_ns(limit) <= now)
        let_go(limit, disk_queue_take(&limit->waiting), now);
    if (!limit->waiting.first || loop_timer_arm(&limit->timer, ready_ns(limit)) == 0)
        return;
    /* No memory for a timer: rather no limit than a guest that hangs. */
    for (struct disk_request *request; (request = disk_queue_take(&limit->waiting));)
        let_go(limit, request, now);
}

static void handle_timer(void *arg)
{
    struct limit *limit = arg;

    limit->client.begin(limit->client.ctx);
    serve(limit);
    disk_kick(limit->inner);
    limit->client.end(limit->client.ctx);
}

static void limit_submit(struct disk *disk, struct disk_request *request)
{
    struct limit *limit = limit_of(disk);
    bool first = !limit->waiting.first;

    disk_queue_add(&limit->waiting, request);
    if (first) /* else the timer is armed already */
        serve(limit);
}

static void limit_kick(struct disk *disk)
{
    disk_kick(limit_of(disk)->inner);
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
    loop_timer_cancel(&limit->timer);
}

static int limit_attach(struct disk *disk, struct loop *loop, const struct disk_client *client,
                        struct err *err)
{
    struct limit *limit = limit_of(disk);

    int r = disk_attach(limit->inner, loop, client, err);
    if (r < 0)
        return r;
    limit->client = *client;
    loop_timer_init(&limit->timer, loop, handle_timer, limit);
    limit->attached = true;
    return 0;
}

static void limit_detach(struct disk *disk)
{
    struct limit *limit = limit_of(disk);

    if (limit->attached)
        loop_timer_cancel(&limit->timer);
    limit->attached = false;
    disk_detach(limit->inner);
}

static void limit_destroy(struct disk *disk)
{
    struct limit *limit = limit_of(disk);

    disk_destroy(limit->inner);
    free(limit);
}

static const struct disk_ops ops = {
    .name = "limit",
    .attach = limit_attach,
    .detach = limit_detach,
    .submit = limit_submit,
    .kick = limit_kick,
    .drain = limit_drain,
    .destroy = limit_destroy,
};

int disk_limit_create(struct disk **ret_disk, struct disk *inner, uint64_t iops, uint64_t bandwidth,
                      struct err *err)
{
    struct limit *limit = calloc(1, sizeof(*limit));

    if (!limit) {
        disk_destroy(inner);
        return err_sys(err, ERR_HOST, ENOMEM, "cannot set up disk I/O");
    }
    limit->disk = (struct disk){.ops = &ops, .info = inner->info};
    limit->inner = inner;
    limit->operations.rate = iops;
    limit->bytes.rate = bandwidth;
    disk_queue_init(&limit->waiting);
    *ret_disk = &limit->disk;
    return 0;
}
