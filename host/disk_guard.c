/* SPDX-License-Identifier: MIT */
/*
 * A disk before a raw one whose format could not be written down (disk_format.c, 4): the guest must
 * not be able to make its first sector look like the header of another format.
 *
 * A request covers whole sectors, so only writes that begin at 0 matter; all others pass untouched.
 * The guest can change its buffers while they are written. So the sector that is judged is a copy,
 * and the copy is what goes on.
 */
#include "host/disk_queue.h"

#include "core/iov.h"
#include "host/disk_file.h"
#include <errno.h>
#include <stdlib.h>

enum { SECTOR = 512 };

struct guard {
    struct disk disk;
    struct disk *inner;
    struct disk_client client;
    struct disk_queue refused; /* told at the end of the kick or the batch */
};

/* A write to the first sector, on its way. */
struct passage {
    struct disk_request request;
    struct disk_request *outer;
    uint8_t sector[SECTOR];
    struct iovec iov[]; /* the sector, and the rest of the guest's */
};

static struct guard *guard_of(struct disk *disk)
{
    return container_of(disk, struct guard, disk);
}

static void handle_passed(struct disk_request *request, int result)
{
    struct passage *passage = container_of(request, struct passage, request);
    struct disk_request *outer = passage->outer;

    free(passage);
    outer->done(outer, result);
}

static void refuse(struct guard *guard, struct disk_request *request, int result)
{
    request->private[0] = (uint64_t)-result;
    disk_queue_add(&guard->refused, request);
}

static void examine(struct guard *guard, struct disk_request *outer)
{
    struct passage *passage = malloc(sizeof(*passage) +
                                     (outer->iov_count + 1) * sizeof(passage->iov[0]));

    if (!passage) {
        refuse(guard, outer, -ENOMEM);
        return;
    }
    iov_read(outer->iov, outer->iov_count, 0, passage->sector, SECTOR);
    if (disk_format_announced(passage->sector, SECTOR)) {
        free(passage);
        refuse(guard, outer, -EPERM);
        return;
    }
    passage->outer = outer;
    passage->iov[0] = (struct iovec){.iov_base = passage->sector, .iov_len = SECTOR};
    unsigned rest = iov_part(outer->iov, outer->iov_count, SECTOR, outer->length - SECTOR,
                             passage->iov + 1);
    passage->request = (struct disk_request){.op = DISK_WRITE,
                                             .length = outer->length,
                                             .iov = passage->iov,
                                             .iov_count = rest + 1,
                                             .done = handle_passed};
    disk_submit(guard->inner, &passage->request);
}

static void guard_submit(struct disk *disk, struct disk_request *request)
{
    struct guard *guard = guard_of(disk);

    if (request->op == DISK_WRITE && request->offset == 0 && request->length >= SECTOR)
        examine(guard, request);
    else
        disk_submit(guard->inner, request);
}

static void tell(struct guard *guard)
{
    for (struct disk_request *request; (request = disk_queue_take(&guard->refused));)
        request->done(request, -(int)request->private[0]);
}

static void guard_kick(struct disk *disk)
{
    struct guard *guard = guard_of(disk);

    disk_kick(guard->inner);
    while (guard->refused.first) {
        tell(guard);
        disk_kick(guard->inner); /* what the owner has submitted meanwhile */
    }
}

static void guard_cancel(struct disk *disk)
{
    disk_cancel(guard_of(disk)->inner);
    guard_kick(disk);
}

static void guard_drain(struct disk *disk)
{
    struct guard *guard = guard_of(disk);

    disk_drain(guard->inner);
    while (guard->refused.first) {
        tell(guard);
        disk_drain(guard->inner);
    }
}

static void handle_begin(void *ctx)
{
    struct guard *guard = ctx;

    guard->client.begin(guard->client.ctx);
}

static void handle_end(void *ctx)
{
    struct guard *guard = ctx;

    if (guard->refused.first)
        guard_kick(&guard->disk);
    guard->client.end(guard->client.ctx);
}

static void handle_trouble(void *ctx, const char *sentence)
{
    const struct guard *guard = ctx;

    disk_tell_trouble(&guard->client, sentence);
}

static int guard_attach(struct disk *disk, struct loop *loop, const struct disk_client *client,
                        struct err *err)
{
    struct guard *guard = guard_of(disk);
    const struct disk_client ours = {
        .begin = handle_begin, .end = handle_end, .trouble = handle_trouble, .ctx = guard};

    guard->client = *client;
    return disk_attach(guard->inner, loop, &ours, err);
}

static void guard_detach(struct disk *disk)
{
    disk_detach(guard_of(disk)->inner);
}

static uint64_t guard_zeroes_cost(struct disk *disk, const struct disk_request *request)
{
    return disk_zeroes_cost(guard_of(disk)->inner, request);
}

static struct disk *guard_inner(struct disk *disk)
{
    return guard_of(disk)->inner;
}

static void guard_destroy(struct disk *disk)
{
    struct guard *guard = guard_of(disk);

    disk_destroy(guard->inner);
    free(guard);
}

static const struct disk_ops ops = {
    .name = "guard",
    .attach = guard_attach,
    .detach = guard_detach,
    .submit = guard_submit,
    .kick = guard_kick,
    .cancel = guard_cancel,
    .drain = guard_drain,
    .zeroes_cost = guard_zeroes_cost,
    .inner = guard_inner,
    .destroy = guard_destroy,
};

int disk_guard_create(struct disk **ret_disk, struct disk *inner, struct err *err)
{
    struct guard *guard = calloc(1, sizeof(*guard));

    if (!guard) {
        disk_destroy(inner);
        return err_sys(err, ERR_HOST, ENOMEM, "cannot set up disk I/O");
    }
    guard->disk = (struct disk){.ops = &ops, .info = inner->info};
    guard->inner = inner;
    disk_queue_init(&guard->refused);
    *ret_disk = &guard->disk;
    return 0;
}
