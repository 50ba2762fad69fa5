/* SPDX-License-Identifier: MIT */
/*
 * The copy of a disk at one moment, made while its guest goes on.
 *
 * A map has one bit for each cluster whose content of that moment has been read; it is in the
 * target then, or on its way there. A READ or FLUSH of the guest passes. What would change a
 * cluster without its bit waits until it has been read (copy before write): it does not wait for
 * the target, unless all lanes are busy writing there. A DISCARD of such clusters is done at once,
 * by doing nothing.
 *
 * A lane is a buffer and what is done with it: clusters are read into it, then written to the
 * target, which is sparse: runs of zeroes are left out. Lanes are begun for what guests wait for,
 * of all the clusters that are needed; and, a few at a time, in the background, in turns of the
 * loop of their own, with less at a time while the guest is busy. For raw images the file itself
 * says where it has holes.
 *
 * What was in the host's hands at the moment of the start may end in the copy or not. It is waited
 * for before anything is read, so that no sector is read while it is written.
 *
 * The copy ends in a turn of its own, never inside a handler of the target, which it closes.
 */
#include "host/disk_point_parts.h"

#include <errno.h>
#include <unistd.h>

enum {
    BACKGROUND = 4,         /* lanes that nobody waits for */
    FLUSH_BYTES = 64 << 20, /* not much more of the target is dirty at a time */
};

#define NEVER_NS (UINT64_MAX / 2)

/* --- what the guest waits for --------------------------------------------------------------- */

static bool changes_something(const struct disk_request *request)
{
    return request->op != DISK_READ && request->op != DISK_FLUSH && request->length != 0;
}

void copy_submit(struct disk_copy *copy, struct disk_request *request)
{
    uint64_t first = copy_first_cluster(copy, request), end;

    copy->seen++;
    if (!changes_something(request) || copy->result != 0) {
        disk_submit(copy->point->inner, request);
        return;
    }
    end = copy_end_cluster(copy, request);
    if (copy_find_unread(copy, first, end) == end) {
        disk_submit(copy->point->inner, request);
        return;
    }
    request->private[0] = first;
    disk_queue_add(request->op == DISK_DISCARD ? &copy->unneeded : &copy->waiting, request);
    copy->moved = true;
}

/* Begins to read what this one waits for. True: it need not wait any longer. */
static bool advance(struct disk_copy *copy, struct disk_request *request)
{
    uint64_t end = copy_end_cluster(copy, request);
    uint64_t cluster = copy_find_unread(copy, request->private[0], end);

    request->private[0] = cluster;
    if (cluster == end)
        return true;
    while (copy->busy < COPY_LANES && cluster < end) {
        const struct lane *reader = copy_find_reader(copy, cluster);
        uint64_t count = reader ? reader->first + reader->count - cluster
                                : copy_count_unread(copy, cluster, end);
        if (!reader)
            copy_start_lane(copy, cluster, count, false);
        cluster = copy_find_unread(copy, cluster + count < end ? cluster + count : end, end);
    }
    return false;
}

static void serve_waiting(struct disk_copy *copy)
{
    struct disk_queue waiting;

    disk_queue_init(&waiting);
    if (!copy->settled && copy->result == 0)
        return;
    disk_queue_join(&waiting, &copy->waiting);
    for (struct disk_request *request; (request = disk_queue_take(&waiting));) {
        if (copy->result != 0 || advance(copy, request)) {
            copy->moved = true;
            disk_submit(copy->point->inner, request);
        } else {
            disk_queue_add(&copy->waiting, request);
        }
    }
}

static void tell_unneeded(struct disk_copy *copy)
{
    for (struct disk_request *request; (request = disk_queue_take(&copy->unneeded));)
        request->done(request, 0);
}

/* All that can go on now, until nothing can. */
void copy_serve(struct disk_copy *copy)
{
    while (copy->moved) {
        copy->moved = false;
        copy_read_again(copy);
        serve_waiting(copy);
        disk_kick(copy->point->inner);
        disk_kick(copy->target);
        tell_unneeded(copy);
    }
}

/* --- the background ------------------------------------------------------------------------- */

/* Marks [from, end), of which no lane reads anything, in one go: holes can be large. */
static void pass_over(struct disk_copy *copy, uint64_t from, uint64_t end)
{
    uint64_t unread = 0;

    if (end == copy->clusters && from < end && !copy_is_read(copy, end - 1))
        copy->bytes -= (end << copy->shift) - copy_offset_of(copy, end);
    for (uint64_t at = from; at < end; at += COPY_WORD - at % COPY_WORD) {
        uint64_t bits = UINT64_MAX << at % COPY_WORD;
        if (end - at < COPY_WORD - at % COPY_WORD)
            bits &= (UINT64_C(1) << end % COPY_WORD) - 1;
        unread += (unsigned)__builtin_popcountll(bits & ~copy->map[at / COPY_WORD]);
    }
    copy->bytes += unread << copy->shift;
    copy_set_read(copy, from, end);
    copy->next = end;
}

/* Passes over what the file has no data of, up to the next lane that reads. In the copy it is a
 * hole too. */
static void skip_hole(struct disk_copy *copy)
{
    uint64_t at = copy_offset_of(copy, copy->next), end;
    off_t data, hole = -1;

    if (!copy->point->has_holes || at < copy->data_end)
        return;
    data = lseek(copy->point->image, (off_t)at, SEEK_DATA);
    if (data < 0 && errno != ENXIO) {
        copy->point->has_holes = false; /* it cannot tell after all */
        return;
    }
    end = data < 0 ? copy->clusters : (uint64_t)data >> copy->shift;
    for (unsigned i = 0; i < COPY_LANES && copy->reading; i++)
        if (copy->lanes[i].reads && copy->lanes[i].first >= copy->next &&
            copy->lanes[i].first < end)
            end = copy->lanes[i].first;
    if (data >= 0 && end == (uint64_t)data >> copy->shift) {
        hole = lseek(copy->point->image, data, SEEK_HOLE);
        copy->data_end = hole > data ? (uint64_t)hole : UINT64_MAX;
    }
    if (copy->next < end)
        pass_over(copy, copy->next, end);
}

/* What comes next: passes over what is read, is being read, or is a hole. */
static void find_next(struct disk_copy *copy)
{
    const struct lane *reader;
    uint64_t before;

    do {
        before = copy->next;
        copy->next = copy_find_unread(copy, copy->next, copy->clusters);
        if (copy->next < copy->clusters && (reader = copy_find_reader(copy, copy->next)))
            copy->next = reader->first + reader->count;
        else if (copy->next < copy->clusters)
            skip_hole(copy);
    } while (copy->next != before);
}

static void go_on(struct disk_copy *copy)
{
    unsigned most = copy->seen ? 1 : BACKGROUND;

    copy->seen = 0;
    find_next(copy);
    while (copy->background < most && copy->busy < COPY_LANES && copy->next < copy->clusters &&
           copy->unflushed < 2 * FLUSH_BYTES) {
        uint64_t count = copy_count_unread(copy, copy->next, copy->clusters);
        copy_start_lane(copy, copy->next, count, true);
        copy->next += count;
        find_next(copy);
    }
}

static void handle_flushed(struct disk_request *request, int result)
{
    struct disk_copy *copy = container_of(request, struct disk_copy, flush);

    copy->flushing = false;
    if (result < 0)
        copy_fail(copy, result);
    copy->complete = copy->next == copy->clusters && copy->busy == 0 && copy->unflushed == 0;
    copy_want_turn(copy);
}

/* Now and then, and at the end: what was written meanwhile is the next one's. */
static void flush_target(struct disk_copy *copy)
{
    bool end = copy->next == copy->clusters && copy->busy == 0;

    if (copy->flushing || copy->complete || (copy->unflushed < FLUSH_BYTES && !end))
        return;
    copy->flushing = copy->moved = true;
    copy->unflushed = 0;
    copy->flush = (struct disk_request){.op = DISK_FLUSH, .done = handle_flushed};
    disk_submit(copy->target, &copy->flush);
}

/* --- beginning and end ---------------------------------------------------------------------- */

/* Before: nothing of it is under way. */
static void end(struct disk_copy *copy)
{
    struct disk_copy_handlers handlers = copy->handlers;
    int result = copy->result;

    pthread_mutex_lock(&copy->lock);
    copy->started = false;
    loop_timer_cancel(&copy->turn);
    pthread_mutex_unlock(&copy->lock);
    disk_detach(copy->target);
    disk_destroy(copy->target);
    copy->target = NULL;
    copy->point->copy = NULL;
    handlers.ended(handlers.ctx, result);
}

/* At once, whatever is under way: nothing runs beside us. */
void copy_abort(struct disk_copy *copy, int result)
{
    copy_fail(copy, result);
    disk_cancel(copy->target);
    do {
        copy_serve(copy);
        disk_drain(copy->point->inner);
        disk_drain(copy->target);
    } while (copy->moved || copy->busy || copy->flushing || copy->waiting.first);
    end(copy);
}

static bool is_over(const struct disk_copy *copy)
{
    return copy->busy == 0 && !copy->flushing && !copy->waiting.first && !copy->unneeded.first &&
           (copy->complete || copy->result != 0);
}

void copy_settle(struct disk_copy *copy)
{
    copy->settled = copy->moved = true;
}

static bool shall_stop(struct disk_copy *copy)
{
    pthread_mutex_lock(&copy->lock);
    bool stop = copy->stop;
    pthread_mutex_unlock(&copy->lock);
    return stop;
}

static void take_turn(struct disk_copy *copy)
{
    if (copy->result == 0 && shall_stop(copy)) {
        copy_fail(copy, -ECANCELED);
        disk_cancel(copy->target);
    }
    if (!copy->settled) {
        disk_drain(copy->point->inner);
        copy_settle(copy);
    }
    if (copy->result == 0) {
        serve_waiting(copy);
        go_on(copy);
        flush_target(copy);
    }
    copy->moved = true;
    copy_serve(copy);
}

void copy_handle_turn(void *arg)
{
    struct disk_copy *copy = arg;
    struct disk_client client = copy->point->client;

    int r = loop_timer_arm(&copy->turn, NEVER_NS);
    client.begin(client.ctx);
    if (r < 0)
        copy_abort(copy, r);
    else
        take_turn(copy);
    client.end(client.ctx);
    if (r == 0 && is_over(copy))
        end(copy);
}
