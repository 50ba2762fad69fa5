/* SPDX-License-Identifier: MIT */
/*
 * A disk before another one, which tells of changes before they are made (disk_tap.h).
 *
 * What was told of is made: the other side has it, and a guest must not read there what it cannot
 * read here. So while the tap is open a cancel ends what waits before the tap, which nobody was
 * told of; what has passed ends by itself.
 */
#include "host/disk_tap.h"

#include "host/disk_queue.h"
#include "host/turn.h"
#include <errno.h>
#include <stdlib.h>

/* A request that the guard hears the end of. They are kept for the next ones. */
struct shadow {
    struct disk_request request;
    struct disk_request *original;
    struct disk_tap *tap;
    struct shadow *next; /* of those that rest */
    unsigned mark;
};

struct disk_tap {
    struct disk disk;
    struct disk *inner;
    struct disk_client client;
    struct disk_tap_handlers handlers; /* change NULL: closed */
    struct disk_queue waiting;         /* the first one was told of in vain, or need not be */
    struct turn turn;
    struct disk_tap_guard guard; /* allows NULL: none */
    struct shadow *resting;
    struct disk_request flush; /* our own */
    atomic_uint wanted;        /* the number of the flush that was asked for last */
    unsigned flushed;          /* ...that was begun last */
    bool flushing;
};

static struct disk_tap *tap_of(struct disk *disk)
{
    return container_of(disk, struct disk_tap, disk);
}

/* --- telling -------------------------------------------------------------------------------- */

static bool is_guarded(const struct disk_tap *tap, const struct disk_request *request)
{
    return tap->guard.allows && request->op != DISK_READ && request->op != DISK_FLUSH;
}

static bool may_go(struct disk_tap *tap, const struct disk_request *request)
{
    if (is_guarded(tap, request) && !tap->guard.allows(tap->guard.ctx, request))
        return false;
    return !tap->handlers.change || request->op == DISK_READ ||
           tap->handlers.change(tap->handlers.ctx, request);
}

static void handle_ended(struct disk_request *request, int result)
{
    struct shadow *shadow = container_of(request, struct shadow, request);
    struct disk_tap *tap = shadow->tap;
    struct disk_request *original = shadow->original;

    shadow->next = tap->resting;
    tap->resting = shadow;
    if (tap->guard.allows)
        tap->guard.ended(tap->guard.ctx, shadow->mark, original->op, result);
    original->done(original, result);
}

/* NULL: no memory, and its end would not be heard of. */
static struct shadow *take_shadow(struct disk_tap *tap)
{
    struct shadow *shadow = tap->resting;

    if (!shadow)
        return malloc(sizeof(*shadow));
    tap->resting = shadow->next;
    return shadow;
}

static void pass(struct disk_tap *tap, struct disk_request *request)
{
    if (tap->guard.allows && request->op != DISK_READ) {
        unsigned mark = tap->guard.begins(tap->guard.ctx);
        struct shadow *shadow = take_shadow(tap);
        if (shadow) {
            *shadow = (struct shadow){
                .request = *request, .original = request, .tap = tap, .mark = mark};
            shadow->request.done = handle_ended;
            request = &shadow->request;
        } /* else it never ends for the guard, which is on the safe side */
    }
    disk_submit(tap->inner, request);
}

static void handle_flushed(struct disk_request *request, int result)
{
    struct disk_tap *tap = request->arg;

    tap->flushing = false;
    if (tap->guard.allows)
        tap->guard.flushed(tap->guard.ctx, tap->flushed, result);
    if (tap->wanted != tap->flushed)
        turn_ask(&tap->turn);
}

static void begin_flush(struct disk_tap *tap)
{
    tap->flushing = true;
    tap->flushed = tap->wanted;
    tap->flush = (struct disk_request){.op = DISK_FLUSH, .done = handle_flushed, .arg = tap};
    disk_submit(tap->inner, &tap->flush);
}

static void tap_submit(struct disk *disk, struct disk_request *request)
{
    struct disk_tap *tap = tap_of(disk);

    if (!tap->waiting.first && may_go(tap, request))
        pass(tap, request);
    else
        disk_queue_add(&tap->waiting, request);
}

static void handle_turn(void *arg)
{
    struct disk_tap *tap = arg;

    bool flushes = !tap->flushing && tap->wanted != tap->flushed;

    if (!tap->waiting.first && !flushes)
        return;
    tap->client.begin(tap->client.ctx);
    if (flushes)
        begin_flush(tap);
    while (tap->waiting.first && may_go(tap, tap->waiting.first))
        pass(tap, disk_queue_take(&tap->waiting));
    disk_kick(tap->inner);
    tap->client.end(tap->client.ctx);
}

static void tap_kick(struct disk *disk)
{
    disk_kick(tap_of(disk)->inner);
}

static void give_back(struct disk_queue *waiting)
{
    for (struct disk_request *request; (request = disk_queue_take(waiting));)
        request->done(request, -ECANCELED);
}

static void tap_cancel(struct disk *disk)
{
    struct disk_tap *tap = tap_of(disk);
    struct disk_queue waiting; /* now: what is submitted meanwhile is not meant */

    disk_queue_init(&waiting);
    disk_queue_join(&waiting, &tap->waiting);
    if (!tap->handlers.change)
        disk_cancel(tap->inner);
    give_back(&waiting);
    disk_kick(tap->inner);
}

static void tap_drain(struct disk *disk)
{
    struct disk_tap *tap = tap_of(disk);

    do {
        give_back(&tap->waiting);
        disk_drain(tap->inner);
    } while (tap->waiting.first);
}

/* --- the rest ------------------------------------------------------------------------------- */

static int tap_attach(struct disk *disk, struct loop *loop, const struct disk_client *client,
                      struct err *err)
{
    struct disk_tap *tap = tap_of(disk);

    int r = disk_attach(tap->inner, loop, client, err);
    if (r < 0)
        return r;
    tap->client = *client;
    r = turn_attach(&tap->turn, loop, err);
    if (r < 0)
        disk_detach(tap->inner);
    return r;
}

static void tap_detach(struct disk *disk)
{
    struct disk_tap *tap = tap_of(disk);

    turn_detach(&tap->turn);
    disk_detach(tap->inner);
}

static uint64_t tap_zeroes_cost(struct disk *disk, const struct disk_request *request)
{
    return disk_zeroes_cost(tap_of(disk)->inner, request);
}

static struct disk *tap_inner(struct disk *disk)
{
    return tap_of(disk)->inner;
}

static void tap_destroy(struct disk *disk)
{
    struct disk_tap *tap = tap_of(disk);

    disk_destroy(tap->inner);
    turn_finish(&tap->turn);
    while (tap->resting) {
        struct shadow *shadow = tap->resting;
        tap->resting = shadow->next;
        free(shadow);
    }
    free(tap);
}

static const struct disk_ops ops = {
    .name = "tap",
    .attach = tap_attach,
    .detach = tap_detach,
    .submit = tap_submit,
    .kick = tap_kick,
    .cancel = tap_cancel,
    .drain = tap_drain,
    .zeroes_cost = tap_zeroes_cost,
    .inner = tap_inner,
    .destroy = tap_destroy,
};

struct disk_tap *disk_tap_of(struct disk *disk)
{
    struct disk *tap = disk_find(disk, &ops);
    return tap ? tap_of(tap) : NULL;
}

void disk_tap_open(struct disk_tap *tap, const struct disk_tap_handlers *handlers)
{
    tap->handlers = *handlers;
}

void disk_tap_close(struct disk_tap *tap)
{
    tap->handlers = (struct disk_tap_handlers){0};
    turn_ask(&tap->turn); /* for what waits: this may not be the loop's thread */
}

void disk_tap_go_on(struct disk_tap *tap)
{
    turn_ask(&tap->turn);
}

void disk_tap_set_guard(struct disk_tap *tap, const struct disk_tap_guard *guard)
{
    tap->guard = guard ? *guard : (struct disk_tap_guard){0};
    turn_ask(&tap->turn);
}

void disk_tap_flush(struct disk_tap *tap, unsigned number)
{
    tap->wanted = number;
    turn_ask(&tap->turn);
}

int disk_tap_create(struct disk **ret_disk, struct disk *inner, struct err *err)
{
    struct disk_tap *tap = calloc(1, sizeof(*tap));

    if (!tap) {
        disk_destroy(inner);
        return err_sys(err, ERR_HOST, ENOMEM, "cannot set up disk I/O");
    }
    tap->disk = (struct disk){.ops = &ops, .info = inner->info};
    tap->inner = inner;
    disk_queue_init(&tap->waiting);
    int r = turn_init(&tap->turn, handle_turn, tap, err);
    if (r < 0) {
        tap_destroy(&tap->disk);
        return r;
    }
    *ret_disk = &tap->disk;
    return 0;
}
