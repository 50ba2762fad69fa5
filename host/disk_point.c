/* SPDX-License-Identifier: MIT */
/* The disk that stands before another one, and the copy as it is seen from outside. How it is made:
 * disk_point_copy.c. */
#include "host/disk_point_parts.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    LEAST_SHIFT = 16, /* clusters of 64 KiB, which small writes do not wait for long */
    MOST_SHIFT = 18,
    MANY_CLUSTERS = 1 << 24, /* with more of them, larger ones */
};

static struct point *point_of(struct disk *disk)
{
    return container_of(disk, struct point, disk);
}

static void handle_begin(void *ctx)
{
    struct point *point = ctx;

    point->client.begin(point->client.ctx);
}

static void handle_end(void *ctx)
{
    struct point *point = ctx;

    if (point->copy)
        copy_serve(point->copy);
    point->client.end(point->client.ctx);
}

static void handle_trouble(void *ctx, const char *sentence)
{
    struct point *point = ctx;

    disk_tell_trouble(&point->client, sentence);
}

/* --- the copy, from outside ----------------------------------------------------------------- */

static const struct disk_ops ops;

struct point *point_find(struct disk *disk)
{
    struct disk *point = disk_find(disk, &ops);
    return point ? point_of(point) : NULL;
}

int disk_point_image(struct disk *disk)
{
    const struct point *point = point_find(disk);
    return point ? point->image : -1;
}

static void *take_memory(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static int make_memory(struct disk_copy *copy)
{
    uint64_t size = copy->point->disk.info.size;

    copy->shift = LEAST_SHIFT;
    while (copy->shift < MOST_SHIFT && size >> copy->shift > MANY_CLUSTERS)
        copy->shift++;
    copy->clusters = ((size - 1) >> copy->shift) + 1;
    copy->map_size = (copy->clusters + COPY_WORD - 1) / COPY_WORD * sizeof(uint64_t);
    copy->map = take_memory(copy->map_size);
    copy->buffers = take_memory((size_t)COPY_LANES * COPY_LANE_BYTES);
    if (!copy->map || !copy->buffers)
        return -ENOMEM;
    for (unsigned i = 0; i < COPY_LANES; i++) {
        copy->lanes[i].copy = copy;
        copy->lanes[i].buffer = copy->buffers + (size_t)i * COPY_LANE_BYTES;
    }
    return 0;
}

int disk_copy_create(struct disk_copy **ret_copy, struct disk *disk, struct disk *target,
                     const struct disk_copy_handlers *handlers, struct err *err)
{
    struct disk_copy *copy = calloc(1, sizeof(*copy));
    struct point *point = point_find(disk);

    assert(point);
    if (!copy) {
        disk_destroy(target);
        return err_sys(err, ERR_HOST, ENOMEM, "cannot set up a copy of a disk");
    }
    copy->point = point;
    copy->target = target;
    copy->handlers = *handlers;
    disk_queue_init(&copy->waiting);
    disk_queue_init(&copy->unneeded);
    pthread_mutex_init(&copy->lock, NULL);
    int r = 0;
    if (target->info.size != point->disk.info.size)
        r = err_say(err, ERR_FAILED, EINVAL, "the copy of a disk has another size than the disk");
    else if (make_memory(copy) < 0)
        r = err_sys(err, ERR_HOST, ENOMEM, "cannot set up a copy of a disk");
    if (r < 0) {
        disk_copy_destroy(copy);
        return r;
    }
    *ret_copy = copy;
    return 0;
}

int disk_copy_start(struct disk_copy *copy, struct err *err)
{
    struct point *point = copy->point;
    const struct disk_client ours = {.begin = handle_begin, .end = handle_end, .ctx = point};

    if (point->copy)
        return err_say(err, ERR_STATE, EBUSY, "this disk is being copied already");
    loop_timer_init(&copy->turn, point->loop, copy_handle_turn, copy);
    int r = disk_attach(copy->target, point->loop, &ours, err);
    if (r < 0)
        return r;
    pthread_mutex_lock(&copy->lock);
    r = loop_timer_arm(&copy->turn, 0);
    copy->started = r == 0;
    pthread_mutex_unlock(&copy->lock);
    if (r == 0) {
        point->copy = copy;
        return 0;
    }
    disk_detach(copy->target);
    return err_sys(err, ERR_HOST, -r, "cannot begin a copy of a disk");
}

void disk_copy_stop(struct disk_copy *copy)
{
    pthread_mutex_lock(&copy->lock);
    copy->stop = true;
    if (copy->started)
        copy_want_turn(copy);
    pthread_mutex_unlock(&copy->lock);
}

uint64_t disk_copy_bytes(const struct disk_copy *copy)
{
    return copy->bytes;
}

void disk_copy_destroy(struct disk_copy *copy)
{
    if (!copy)
        return;
    assert(!copy->started);
    disk_destroy(copy->target);
    pthread_mutex_destroy(&copy->lock);
    if (copy->map)
        munmap(copy->map, copy->map_size);
    if (copy->buffers)
        munmap(copy->buffers, (size_t)COPY_LANES * COPY_LANE_BYTES);
    free(copy);
}

/* --- the disk ------------------------------------------------------------------------------- */

static void point_submit(struct disk *disk, struct disk_request *request)
{
    struct point *point = point_of(disk);

    if (point->watch)
        request = watch_wrap(point->watch, request);
    if (point->copy)
        copy_submit(point->copy, request);
    else
        disk_submit(point->inner, request);
}

static void point_kick(struct disk *disk)
{
    struct point *point = point_of(disk);

    disk_kick(point->inner);
    if (point->copy)
        copy_serve(point->copy);
}

static void point_cancel(struct disk *disk)
{
    struct point *point = point_of(disk);
    struct disk_copy *copy = point->copy;
    struct disk_queue waiting;

    if (!copy) {
        disk_cancel(point->inner);
        return;
    }
    disk_queue_init(&waiting);
    disk_queue_join(&waiting, &copy->waiting);
    disk_cancel(point->inner);
    for (struct disk_request *request; (request = disk_queue_take(&waiting));)
        request->done(request, -ECANCELED);
    copy->moved = true;
    copy_serve(copy);
}

static void point_drain(struct disk *disk)
{
    struct point *point = point_of(disk);
    struct disk_copy *copy = point->copy;

    disk_drain(point->inner);
    if (!copy)
        return;
    copy_settle(copy);
    while (copy->moved || copy->reading || copy->waiting.first || copy->unneeded.first) {
        copy_serve(copy);
        disk_drain(point->inner);
        if (copy->waiting.first)
            disk_drain(copy->target); /* they may wait for a lane */
    }
}

static int point_attach(struct disk *disk, struct loop *loop, const struct disk_client *client,
                        struct err *err)
{
    struct point *point = point_of(disk);
    const struct disk_client ours = {
        .begin = handle_begin, .end = handle_end, .trouble = handle_trouble, .ctx = point};

    point->client = *client;
    point->loop = loop;
    return disk_attach(point->inner, loop, &ours, err);
}

static void point_detach(struct disk *disk)
{
    struct point *point = point_of(disk);

    if (point->copy)
        copy_abort(point->copy, -ECANCELED);
    disk_detach(point->inner);
}

static uint64_t point_zeroes_cost(struct disk *disk, const struct disk_request *request)
{
    return disk_zeroes_cost(point_of(disk)->inner, request);
}

static struct disk *point_inner(struct disk *disk)
{
    return point_of(disk)->inner;
}

static void point_destroy(struct disk *disk)
{
    struct point *point = point_of(disk);

    disk_destroy(point->inner);
    if (point->image >= 0)
        close(point->image);
    free(point);
}

static const struct disk_ops ops = {
    .name = "point",
    .attach = point_attach,
    .detach = point_detach,
    .submit = point_submit,
    .kick = point_kick,
    .cancel = point_cancel,
    .drain = point_drain,
    .zeroes_cost = point_zeroes_cost,
    .inner = point_inner,
    .destroy = point_destroy,
};

int disk_point_create(struct disk **ret_disk, struct disk *inner, const char *path, struct err *err)
{
    struct point *point = calloc(1, sizeof(*point));
    struct stat stat;

    if (!point) {
        disk_destroy(inner);
        return err_sys(err, ERR_HOST, ENOMEM, "cannot set up disk I/O");
    }
    point->disk = (struct disk){.ops = &ops, .info = inner->info};
    point->inner = inner;
    point->image = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (point->image < 0 || fstat(point->image, &stat) < 0) {
        int r = err_sys(err, ERR_FAILED, errno, "cannot open %s", path);
        point_destroy(&point->disk);
        return r;
    }
    point->has_holes = S_ISREG(stat.st_mode) && inner->info.format == DISK_FORMAT_RAW;
    *ret_disk = &point->disk;
    return 0;
}
