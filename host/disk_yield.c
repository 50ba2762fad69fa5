/* SPDX-License-Identifier: MIT */
#include "host/disk_yield.h"

#include "host/disk_queue.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct yield {
    struct disk disk;
    struct disk_config config;
    char *path;
    struct disk *inner; /* NULL: another VM has it */
    struct loop *loop;  /* NULL: not attached */
    struct disk_client client;
};

static struct yield *yield_of(struct disk *disk)
{
    return container_of(disk, struct yield, disk);
}

/* --- the disk --------------------------------------------------------------------------------- */

static void yield_submit(struct disk *disk, struct disk_request *request)
{
    struct yield *yield = yield_of(disk);

    assert(yield->inner);
    disk_submit(yield->inner, request);
}

static void yield_kick(struct disk *disk)
{
    struct yield *yield = yield_of(disk);

    if (yield->inner)
        disk_kick(yield->inner);
}

static void yield_cancel(struct disk *disk)
{
    struct yield *yield = yield_of(disk);

    if (yield->inner)
        disk_cancel(yield->inner);
}

static void yield_drain(struct disk *disk)
{
    struct yield *yield = yield_of(disk);

    if (yield->inner)
        disk_drain(yield->inner);
}

static int yield_attach(struct disk *disk, struct loop *loop, const struct disk_client *client,
                        struct err *err)
{
    struct yield *yield = yield_of(disk);
    int r = yield->inner ? disk_attach(yield->inner, loop, client, err) : 0;

    if (r < 0)
        return r;
    yield->loop = loop;
    yield->client = *client;
    return 0;
}

static void yield_detach(struct disk *disk)
{
    struct yield *yield = yield_of(disk);

    if (yield->inner)
        disk_detach(yield->inner);
    yield->loop = NULL;
}

static uint64_t yield_zeroes_cost(struct disk *disk, const struct disk_request *request)
{
    struct yield *yield = yield_of(disk);

    return yield->inner ? disk_zeroes_cost(yield->inner, request) : request->length;
}

static struct disk *yield_inner(struct disk *disk)
{
    return yield_of(disk)->inner;
}

static void yield_destroy(struct disk *disk)
{
    struct yield *yield = yield_of(disk);

    disk_destroy(yield->inner);
    free(yield->path);
    free(yield);
}

static const struct disk_ops ops = {
    .name = "yield",
    .attach = yield_attach,
    .detach = yield_detach,
    .submit = yield_submit,
    .kick = yield_kick,
    .cancel = yield_cancel,
    .drain = yield_drain,
    .zeroes_cost = yield_zeroes_cost,
    .inner = yield_inner,
    .destroy = yield_destroy,
};

/* --- the image -------------------------------------------------------------------------------- */

static struct yield *find(struct disk *disk)
{
    struct disk *yield = disk_find(disk, &ops);
    return yield ? yield_of(yield) : NULL;
}

/* Readonly, so that nothing is changed; its tables may change while they are read, but not what is
 * asked of them here. */
static int look(struct yield *yield, struct err *err)
{
    struct disk_config config = yield->config;
    struct disk *disk;

    config.readonly = config.unlocked = true;
    int r = disk_image_open(&disk, &config, err);
    if (r < 0)
        return r;
    yield->disk.info = disk->info;
    yield->disk.info.readonly = false;
    yield->disk.info.discard = !config.no_discard;
    yield->disk.info.write_through = config.write_through;
    disk_destroy(disk);
    return 0;
}

int disk_yield_create(struct disk **ret_disk, const struct disk_config *config, struct err *err)
{
    struct yield *yield = calloc(1, sizeof(*yield));
    int r;

    if (yield)
        yield->path = strdup(config->path);
    if (!yield || !yield->path) {
        free(yield);
        return err_sys(err, ERR_HOST, ENOMEM, "cannot set up disk I/O");
    }
    yield->config = *config;
    yield->config.path = yield->path;
    yield->disk.ops = &ops;
    r = config->absent ? look(yield, err) : disk_image_open(&yield->inner, &yield->config, err);
    if (r < 0) {
        yield_destroy(&yield->disk);
        return r;
    }
    if (yield->inner)
        yield->disk.info = yield->inner->info;
    *ret_disk = &yield->disk;
    return 0;
}

static void handle_flushed(struct disk_request *request, int result)
{
    *(int *)request->arg = result;
}

int disk_yield(struct disk *disk, struct err *err)
{
    struct yield *yield = find(disk);

    if (!yield)
        return err_say(err, ERR_STATE, ENOTSUP, "this disk cannot be another VM's");
    if (!yield->inner)
        return 0;
    int result = 0;
    struct disk_request request = {.op = DISK_FLUSH, .done = handle_flushed, .arg = &result};
    disk_drain(yield->inner);
    disk_submit(yield->inner, &request);
    disk_kick(yield->inner);
    disk_drain(yield->inner);
    if (result < 0)
        return err_sys(err, ERR_FAILED, -result, "cannot write %s", yield->path);
    disk_detach(yield->inner);
    disk_destroy(yield->inner);
    yield->inner = NULL;
    return 0;
}

static bool is_the_same(const struct disk_info *now, const struct disk_info *then)
{
    return now->format == then->format && now->size == then->size &&
           now->block_size == then->block_size;
}

int disk_regain(struct disk *disk, struct err *err)
{
    struct yield *yield = find(disk);
    struct disk *inner;

    if (!yield || yield->inner)
        return 0;
    int r = disk_image_open(&inner, &yield->config, err);
    if (r < 0)
        return r;
    if (!is_the_same(&inner->info, &yield->disk.info))
        r = err_say(err, ERR_STATE, ESTALE, "%s is another disk than before", yield->path);
    if (r == 0 && yield->loop)
        r = disk_attach(inner, yield->loop, &yield->client, err);
    if (r < 0)
        disk_destroy(inner);
    else
        yield->inner = inner;
    return r;
}

bool disk_is_yielded(struct disk *disk)
{
    const struct yield *yield = find(disk);

    return yield && !yield->inner;
}
