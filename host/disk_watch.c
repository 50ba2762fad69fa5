/* SPDX-License-Identifier: MIT */
/*
 * Each write is submitted as a request of our own, whose end we hear before the guest's request
 * ends. They are kept for the next ones.
 */
#include "host/disk_watch.h"

#include "host/disk_point_parts.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { WORD = 64 };

struct shadow {
    struct disk_request request;
    struct disk_request *original;
    struct disk_watch *watch;
    struct shadow *next; /* of those that rest */
};

/* --- reading ---------------------------------------------------------------------------------- */

/*
 * It has memory of its own: whoever waits for it may give up, while the disk's loop stands still or
 * the host is at it. Then nobody waits for it any more, and it goes when it is done.
 */
struct reading {
    struct point *point;
    struct disk_request request;
    struct iovec iov;
    struct loop_call call;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool busy, orphan, aborted;
    int result;
    uint8_t buffer[DISK_WATCH_READ];
};

static void reading_free(struct reading *reading)
{
    if (!reading)
        return;
    pthread_cond_destroy(&reading->changed);
    pthread_mutex_destroy(&reading->lock);
    free(reading);
}

static void end_reading(struct reading *reading, int result)
{
    pthread_mutex_lock(&reading->lock);
    reading->result = result;
    reading->busy = false;
    bool orphan = reading->orphan;
    pthread_cond_signal(&reading->changed);
    pthread_mutex_unlock(&reading->lock);
    if (orphan)
        reading_free(reading);
}

static void handle_read(struct disk_request *request, int result)
{
    end_reading(request->arg, result);
}

static void begin_reading(struct reading *reading)
{
    struct disk *disk = reading->point->inner;

    disk_submit(disk, &reading->request);
    disk_kick(disk);
}

/* Requests of the guest may end within this kick, too, and it is not their client's. */
static void handle_turn(void *arg)
{
    struct reading *reading = arg;

    pthread_mutex_lock(&reading->lock);
    bool orphan = reading->orphan;
    pthread_mutex_unlock(&reading->lock);
    if (orphan) {
        end_reading(reading, -ECANCELED);
        return;
    }
    const struct disk_client client = reading->point->client;
    client.begin(client.ctx);
    begin_reading(reading); /* and may be gone by now */
    client.end(client.ctx);
}

static struct reading *reading_create(struct point *point)
{
    struct reading *reading = malloc(sizeof(*reading));

    if (!reading)
        return NULL;
    memset(reading, 0, offsetof(struct reading, buffer));
    reading->point = point;
    reading->call = (struct loop_call){.handle = handle_turn, .arg = reading};
    pthread_mutex_init(&reading->lock, NULL);
    pthread_cond_init(&reading->changed, NULL);
    return reading;
}

static void reading_leave(struct reading *reading)
{
    if (!reading)
        return;
    pthread_mutex_lock(&reading->lock);
    bool busy = reading->busy;
    reading->orphan = busy;
    pthread_mutex_unlock(&reading->lock);
    if (!busy)
        reading_free(reading);
}

struct disk_watch {
    struct point *point; /* NULL: stopped */
    uint64_t clusters;
    _Atomic(uint64_t) *bits;
    atomic_bool incomplete;
    struct shadow *resting; /* on the disk's loop, as the next */
    unsigned under_way;
    struct reading *reading;
};

static size_t words_of(const struct disk_watch *watch)
{
    return (watch->clusters + WORD - 1) / WORD;
}

static void watch_free(struct disk_watch *watch)
{
    while (watch->resting) {
        struct shadow *shadow = watch->resting;
        watch->resting = shadow->next;
        free(shadow);
    }
    free((void *)watch->bits);
    reading_leave(watch->reading);
    free(watch);
}

static void note(struct disk_watch *watch, const struct disk_request *request)
{
    uint64_t end = (request->offset + request->length - 1) / DISK_WATCH_CLUSTER;

    for (uint64_t cluster = request->offset / DISK_WATCH_CLUSTER; cluster <= end; cluster++)
        /* release: who takes the bit reads what was written */
        atomic_fetch_or_explicit(&watch->bits[cluster / WORD], 1ull << cluster % WORD,
                                 memory_order_release);
}

static void handle_done(struct disk_request *request, int result)
{
    struct shadow *shadow = container_of(request, struct shadow, request);
    struct disk_watch *watch = shadow->watch;
    struct disk_request *original = shadow->original;

    note(watch, request); /* also what failed: a part of it may have been written */
    shadow->next = watch->resting;
    watch->resting = shadow;
    if (--watch->under_way == 0 && !watch->point)
        watch_free(watch);
    original->done(original, result);
}

struct disk_request *watch_wrap(struct disk_watch *watch, struct disk_request *request)
{
    struct shadow *shadow = watch->resting;

    if (request->op == DISK_READ || request->op == DISK_FLUSH || request->length == 0)
        return request;
    if (shadow)
        watch->resting = shadow->next;
    else
        shadow = malloc(sizeof(*shadow));
    if (!shadow) {
        watch->incomplete = true; /* the guest goes on, and the copy fails */
        return request;
    }
    *shadow = (struct shadow){.request = *request, .original = request, .watch = watch};
    shadow->request.done = handle_done;
    watch->under_way++;
    return &shadow->request;
}

/* --- from outside ----------------------------------------------------------------------------- */

int disk_watch_start(struct disk_watch **ret_watch, struct disk *disk, struct err *err)
{
    struct point *point = point_find(disk);
    struct disk_watch *watch;

    if (point->watch)
        return err_say(err, ERR_STATE, EBUSY, "this disk is being followed already");
    watch = calloc(1, sizeof(*watch));
    if (!watch)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot follow a disk");
    watch->clusters = (point->disk.info.size + DISK_WATCH_CLUSTER - 1) / DISK_WATCH_CLUSTER;
    watch->bits = calloc(words_of(watch), sizeof(*watch->bits));
    watch->reading = reading_create(point);
    if (!watch->bits || !watch->reading) {
        watch_free(watch);
        return err_sys(err, ERR_HOST, ENOMEM, "cannot follow a disk");
    }
    watch->point = point;
    point->watch = watch;
    *ret_watch = watch;
    return 0;
}

void disk_watch_stop(struct disk_watch *watch)
{
    if (!watch)
        return;
    watch->point->watch = NULL;
    watch->point = NULL;
    if (watch->under_way == 0)
        watch_free(watch);
}

uint64_t disk_watch_clusters(const struct disk_watch *watch)
{
    return watch->clusters;
}

int disk_watch_harvest(struct disk_watch *watch, uint64_t *bitmap, uint64_t *ret_count)
{
    uint64_t count = 0;

    for (size_t i = 0; i < words_of(watch); i++) {
        if (atomic_load_explicit(&watch->bits[i], memory_order_relaxed))
            bitmap[i] |= atomic_exchange_explicit(&watch->bits[i], 0, memory_order_acquire);
        count += (unsigned)__builtin_popcountll(bitmap[i]);
    }
    *ret_count = count;
    return watch->incomplete ? -ENOMEM : 0;
}

uint64_t disk_watch_next_data(struct disk_watch *watch, uint64_t offset)
{
    const struct point *point = watch->point;
    uint64_t size = point->disk.info.size;
    if (!point->has_holes || offset >= size)
        return offset;
    off_t data = lseek(point->image, (off_t)offset, SEEK_DATA);
    if (data < 0)
        return errno == ENXIO ? size : offset;
    return (uint64_t)data < size ? (uint64_t)data : size;
}

/* --- reading, from outside -------------------------------------------------------------------- */

static int read_by_request(struct disk_watch *watch, uint64_t offset, void *to, size_t length,
                           bool still)
{
    struct reading *reading = watch->reading;
    struct point *point = watch->point;

    reading->iov = (struct iovec){.iov_base = reading->buffer, .iov_len = length};
    reading->request = (struct disk_request){.op = DISK_READ,
                                             .offset = offset,
                                             .length = length,
                                             .iov = &reading->iov,
                                             .iov_count = 1,
                                             .done = handle_read,
                                             .arg = reading};
    reading->busy = true;
    if (still) {
        begin_reading(reading);
        disk_drain(point->inner);
    } else {
        loop_post(point->loop, &reading->call);
    }
    pthread_mutex_lock(&reading->lock);
    while (reading->busy && !reading->aborted)
        pthread_cond_wait(&reading->changed, &reading->lock);
    int result = reading->busy ? -ECANCELED : reading->result;
    pthread_mutex_unlock(&reading->lock);
    if (result == 0)
        memcpy(to, reading->buffer, length);
    return result;
}

void disk_watch_abort(struct disk_watch *watch)
{
    if (!watch)
        return;
    pthread_mutex_lock(&watch->reading->lock);
    watch->reading->aborted = true;
    pthread_cond_signal(&watch->reading->changed);
    pthread_mutex_unlock(&watch->reading->lock);
}

/* A raw image is its file; what lies behind its end are zeroes. */
static int read_file(int fd, uint64_t offset, uint8_t *to, size_t length)
{
    while (length > 0) {
        ssize_t done = pread(fd, to, length, (off_t)offset);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return -errno;
        if (done == 0) {
            memset(to, 0, length);
            return 0;
        }
        to += done;
        offset += (uint64_t)done;
        length -= (size_t)done;
    }
    return 0;
}

int disk_watch_read(struct disk_watch *watch, uint64_t offset, void *to, size_t length, bool still)
{
    struct point *point = watch->point;
    return point->has_holes ? read_file(point->image, offset, to, length)
                            : read_by_request(watch, offset, to, length, still);
}
