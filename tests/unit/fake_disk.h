/* SPDX-License-Identifier: MIT */
/*
 * A disk in memory, for tests, fuzzers and benchmarks: done at the kick, or held until the test
 * lets go; fails when told to; counts what it was asked for. A cancel ends what is held if
 * `may_cancel`, else the host counts as having begun it.
 */
#pragma once

#include "core/iov.h"
#include "host/disk_queue.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct fake_disk {
    struct disk disk;
    uint8_t *bytes; /* the caller's; NULL: data goes nowhere */
    bool hold;      /* requests wait for fake_disk_release() */
    bool may_cancel;
    unsigned cancelled;
    int fail; /* -errno for those of fail_op (0: all) */
    enum disk_op fail_op;
    unsigned asked[DISK_ZEROES + 1]; /* by op */
    unsigned held_count;
    bool attached;
    struct loop *loop;
    struct disk_client client;
    struct disk_queue submitted, held;
};

static inline struct fake_disk *fake_disk_of(struct disk *disk)
{
    return container_of(disk, struct fake_disk, disk);
}

static inline int fake_disk_carry_out(struct fake_disk *fake, const struct disk_request *request)
{
    if (fake->fail && (!fake->fail_op || fake->fail_op == request->op))
        return fake->fail;
    if (!fake->bytes)
        return 0;
    uint8_t *at = fake->bytes + request->offset;
    if (request->op == DISK_READ)
        iov_write(request->iov, request->iov_count, 0, at, request->length);
    else if (request->op == DISK_WRITE)
        iov_read(request->iov, request->iov_count, 0, at, request->length);
    else if (request->op == DISK_ZEROES)
        memset(at, 0, request->length);
    return 0;
}

static inline int fake_disk_attach(struct disk *disk, struct loop *loop,
                                   const struct disk_client *client, struct err *err)
{
    struct fake_disk *fake = fake_disk_of(disk);
    fake->loop = loop;
    fake->client = *client;
    fake->attached = true;
    return 0;
}

static inline void fake_disk_detach(struct disk *disk)
{
    fake_disk_of(disk)->attached = false;
}

static inline void fake_disk_submit(struct disk *disk, struct disk_request *request)
{
    struct fake_disk *fake = fake_disk_of(disk);
    /* What a disk may rely on. */
    if (request->offset > disk->info.size || request->length > disk->info.size - request->offset ||
        request->offset % disk->info.block_size || request->length % disk->info.block_size)
        abort();
    if ((request->op == DISK_READ || request->op == DISK_WRITE) &&
        iov_size(request->iov, request->iov_count) != request->length)
        abort();
    if (request->op != DISK_READ && request->op != DISK_FLUSH && disk->info.readonly)
        abort();
    fake->asked[request->op]++;
    disk_queue_add(&fake->submitted, request);
}

static inline void fake_disk_kick(struct disk *disk)
{
    struct fake_disk *fake = fake_disk_of(disk);
    for (struct disk_request *request; (request = disk_queue_take(&fake->submitted));) {
        if (fake->hold) {
            disk_queue_add(&fake->held, request);
            __atomic_add_fetch(&fake->held_count, 1, __ATOMIC_SEQ_CST);
        } else {
            request->done(request, fake_disk_carry_out(fake, request));
        }
    }
}

/* Those that are held now, and what comes of them. */
static inline void fake_disk_let_go(struct fake_disk *fake)
{
    struct disk_queue all;
    disk_queue_init(&all);
    disk_queue_join(&all, &fake->held);
    __atomic_store_n(&fake->held_count, 0, __ATOMIC_SEQ_CST);
    for (struct disk_request *request; (request = disk_queue_take(&all));)
        request->done(request, fake_disk_carry_out(fake, request));
}

static inline void fake_disk_cancel(struct disk *disk)
{
    struct fake_disk *fake = fake_disk_of(disk);
    struct disk_queue all;
    disk_queue_init(&all);
    if (fake->may_cancel) {
        disk_queue_join(&all, &fake->held);
        __atomic_store_n(&fake->held_count, 0, __ATOMIC_SEQ_CST);
    }
    disk_queue_join(&all, &fake->submitted);
    for (struct disk_request *request; (request = disk_queue_take(&all));) {
        fake->cancelled++;
        request->done(request, -ECANCELED);
    }
    fake_disk_kick(disk);
}

static inline void fake_disk_drain(struct disk *disk)
{
    struct fake_disk *fake = fake_disk_of(disk);
    while (fake->held.first || fake->submitted.first) {
        disk_queue_join(&fake->held, &fake->submitted);
        fake_disk_let_go(fake);
    }
}

/* On the loop's thread: loop_post() it. */
static inline void fake_disk_release(void *arg)
{
    struct fake_disk *fake = arg;
    fake->client.begin(fake->client.ctx);
    fake_disk_let_go(fake);
    fake_disk_kick(&fake->disk);
    fake->client.end(fake->client.ctx);
}

static inline void fake_disk_destroy(struct disk *disk)
{
}

static inline void fake_disk_init(struct fake_disk *fake, uint8_t *bytes, uint64_t size)
{
    static const struct disk_ops ops = {
        .name = "fake",
        .attach = fake_disk_attach,
        .detach = fake_disk_detach,
        .submit = fake_disk_submit,
        .kick = fake_disk_kick,
        .cancel = fake_disk_cancel,
        .drain = fake_disk_drain,
        .destroy = fake_disk_destroy,
    };
    *fake = (struct fake_disk){.bytes = bytes};
    fake->disk.ops = &ops;
    fake->disk.info = (struct disk_info){
        .size = size, .block_size = 512, .optimal_size = 4096, .discard = true};
    disk_queue_init(&fake->submitted);
    disk_queue_init(&fake->held);
}
