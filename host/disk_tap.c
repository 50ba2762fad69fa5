/* SPDX-License-Identifier: MIT */
/*
 * A disk before another one, which tells of changes before they are made (disk_tap.h).
 *
 * What was told of is made: the other side has it, and a guest must not read there what it cannot
 * read here. So while the tap is open a cancel ends what waits before the tap, which nobody was
 * told of; what has passed ends by itself.
 *
 * Linux tells once for each open file that it could not write back what it had taken, and our own
 * flush is at the same file as the guest's. So what ours hears is told to the guest, too: to the
 * next one who is promised stable storage, and to all who were under way by then. Who ends well
 * while ours is under way waits for it: both ask the kernel at once, and ours may have the answer.
 * An error that nobody has been told of stays here where the device's state goes elsewhere. That is
 * to the twin, whose disks have what is missing here; before anybody else has the image it is
 * flushed through this tap (disk_yield.c), and that fails then.
 */
#include "host/disk_tap.h"

#include "host/disk_queue.h"
#include "host/turn.h"
#include <errno.h>
#include <stdlib.h>

/* A request whose end is heard here. They are kept for the next ones. */
struct shadow {
    struct disk_request request;
    struct disk_request *original;
    struct disk_tap *tap;
    struct shadow *next; /* of those that rest */
    bool guarded;        /* the guard hears of it, too */
    unsigned mark;
    unsigned told; /* tap->told when it began */
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
    unsigned failed, told;    /* how many of ours have failed; of which the guest was told */
    int error;                /* of the last one */
    struct disk_queue kept;   /* shadows that have ended well while we flush */
    struct disk_queue unmade; /* there was no memory for their shadows */
    atomic_bool lost;
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

/* When it has ended well, what it is about is on stable storage. */
static bool is_promise(const struct disk_tap *tap, const struct disk_request *request)
{
    return request->op == DISK_FLUSH || (tap->disk.info.write_through && request->op != DISK_READ);
}

static bool is_error(int result)
{
    return result < 0 && result != -ECANCELED;
}

static void tell(struct shadow *shadow, int result)
{
    struct disk_tap *tap = shadow->tap;
    struct disk_request *original = shadow->original;

    if (is_promise(tap, original)) {
        if (result == 0 && shadow->told != tap->failed)
            result = tap->error;
        if (is_error(result))
            tap->told = tap->failed;
    }
    shadow->next = tap->resting;
    tap->resting = shadow;
    original->done(original, result);
}

/* The guard hears what became of it; that of ours it has heard. */
static void handle_ended(struct disk_request *request, int result)
{
    struct shadow *shadow = container_of(request, struct shadow, request);
    struct disk_tap *tap = shadow->tap;
    bool promise = is_promise(tap, shadow->original);

    if (promise && is_error(result))
        tap->lost = true;
    if (shadow->guarded && tap->guard.allows)
        tap->guard.ended(tap->guard.ctx, shadow->mark, shadow->original->op, result);
    if (promise && result == 0 && tap->flushing)
        disk_queue_add(&tap->kept, request);
    else
        tell(shadow, result);
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
    bool guarded = tap->guard.allows && request->op != DISK_READ;
    bool promise = is_promise(tap, request);
    unsigned mark = guarded ? tap->guard.begins(tap->guard.ctx) : 0;
    struct shadow *shadow = guarded || promise ? take_shadow(tap) : NULL;

    if (shadow) {
        *shadow = (struct shadow){.request = *request,
                                  .original = request,
                                  .tap = tap,
                                  .guarded = guarded,
                                  .mark = mark,
                                  .told = tap->told};
        shadow->request.done = handle_ended;
        request = &shadow->request;
    } else if (promise) { /* nothing could be promised */
        disk_queue_add(&tap->unmade, request);
        turn_ask(&tap->turn);
        return;
    } /* else it never ends for the guard, if there is one, which is on the safe side */
    disk_submit(tap->inner, request);
}

static void handle_flushed(struct disk_request *request, int result)
{
    struct disk_tap *tap = request->arg;

    tap->flushing = false;
    if (is_error(result)) {
        tap->failed++;
        tap->error = result;
        tap->lost = true;
    }
    if (tap->guard.allows)
        tap->guard.flushed(tap->guard.ctx, tap->flushed, result);
    for (struct disk_request *kept; (kept = disk_queue_take(&tap->kept));)
        tell(container_of(kept, struct shadow, request), 0);
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

static void give_back(struct disk_queue *queue, int result)
{
    for (struct disk_request *request; (request = disk_queue_take(queue));)
        request->done(request, result);
}

/* Those of now: who comes again meanwhile has the next turn. */
static void give_back_unmade(struct disk_tap *tap)
{
    struct disk_queue unmade;

    disk_queue_init(&unmade);
    disk_queue_join(&unmade, &tap->unmade);
    give_back(&unmade, -ENOMEM);
}

static void handle_turn(void *arg)
{
    struct disk_tap *tap = arg;

    bool flushes = !tap->flushing && tap->wanted != tap->flushed;

    if (!tap->waiting.first && !tap->unmade.first && !flushes)
        return;
    tap->client.begin(tap->client.ctx);
    give_back_unmade(tap);
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

static void tap_cancel(struct disk *disk)
{
    struct disk_tap *tap = tap_of(disk);
    struct disk_queue waiting; /* now: what is submitted meanwhile is not meant */

    disk_queue_init(&waiting);
    disk_queue_join(&waiting, &tap->waiting);
    if (!tap->handlers.change)
        disk_cancel(tap->inner);
    give_back(&waiting, -ECANCELED);
    disk_kick(tap->inner);
}

static void tap_drain(struct disk *disk)
{
    struct disk_tap *tap = tap_of(disk);

    do {
        give_back(&tap->waiting, -ECANCELED);
        give_back_unmade(tap);
        disk_drain(tap->inner); /* our flush too, and with it those that are kept for it */
    } while (tap->waiting.first || tap->unmade.first);
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

bool disk_tap_has_lost(const struct disk_tap *tap)
{
    return tap->lost;
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
    disk_queue_init(&tap->kept);
    disk_queue_init(&tap->unmade);
    int r = turn_init(&tap->turn, handle_turn, tap, err);
    if (r < 0) {
        tap_destroy(&tap->disk);
        return r;
    }
    *ret_disk = &tap->disk;
    return 0;
}
