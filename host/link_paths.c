/* SPDX-License-Identifier: MIT */
/*
 * A connection is ended by whoever receives on it, and by nobody else: others only break it, which
 * wakes that thread up. A finder's lock comes before that of the paths.
 */
#include "host/link_paths.h"

#include "core/clock.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MS 1000000ull

enum {
    PART = 64 << 10,      /* so much is copied under the lock at once, or waits for who sends */
    BY_ITSELF = 16 << 10, /* while no more is on its way, who writes sends */
    BEATS = 4,            /* what is said on a path in the time after which it is bad */
    TICKS = 4,            /* of the keeper between two of them */
    STALLS = 3,           /* in the peer's patience: then the other path has had a chance, too */
};

/* Locked. Until the condition is signalled or the time has come; 0: none does. */
static void wait_until(struct link_paths *paths, pthread_cond_t *cond, uint64_t ns)
{
    const struct timespec at = clock_timespec(ns);
    if (ns == 0)
        pthread_cond_wait(cond, &paths->lock);
    else
        (void)pthread_cond_clockwait(cond, &paths->lock, CLOCK_MONOTONIC, &at);
}

/* --- what others have to hear ----------------------------------------------------------------- */

/* Locked. Whoever may go on does. */
static void wake(struct link_paths *paths)
{
    for (int i = 0; i < PATHS; i++)
        if (paths_wants(&paths->core, i))
            pthread_cond_signal(&paths->path[i].send);
    if (paths->core.acked != paths->taken_acks) {
        paths->taken_acks = paths->core.acked;
        pthread_cond_broadcast(&paths->room);
    }
}

/* Locked. */
static bool is_alive(const struct link_paths *paths, int i, uint64_t now)
{
    const struct path *path = &paths->core.path[i];
    return path->up && now - path->heard_ns <= paths->core.config.stall_ns;
}

/* Locked. */
static void tell(struct link_paths *paths, uint64_t now)
{
    bool news = paths->told_active != paths->core.active;
    paths->told_active = paths->core.active;
    for (int i = 0; i < PATHS; i++) {
        struct link_path *path = &paths->path[i];
        if (path->alive == is_alive(paths, i, now))
            continue;
        path->alive = !path->alive;
        path->since_ns = now;
        news = true;
    }
    if (news && paths->changes)
        paths->changes(paths->ctx);
}

/* Locked. The end of all is told to whoever waits. */
static void end_all(struct link_paths *paths, int error)
{
    if (paths->error == 0)
        paths->error = error;
    pthread_cond_broadcast(&paths->data);
    pthread_cond_broadcast(&paths->room);
    pthread_cond_broadcast(&paths->changed);
    pthread_cond_broadcast(&paths->time);
}

/* --- sending ---------------------------------------------------------------------------------- */

/* Locked, but not while it sends. False: there is nothing to do for us. */
static bool pump(struct link_path *path)
{
    struct link_paths *paths = path->owner;
    int index = (int)(path - paths->path);
    if (!path->link || path->pumping || paths->broken)
        return false;
    size_t length = paths_next(&paths->core, index, clock_monotonic_ns(), path->batch);
    if (length == 0)
        return false;
    struct link *link = path->link;
    path->pumping = true;
    pthread_mutex_unlock(&paths->lock);
    stream_write(link_writer(link), path->batch, length);
    int ret = stream_flush(link_writer(link));
    pthread_mutex_lock(&paths->lock);
    path->pumping = false;
    if (ret < 0) { /* who receives says why */
        paths_down(&paths->core, index, clock_monotonic_ns());
        link_break(link);
    }
    pthread_cond_broadcast(&paths->changed);
    wake(paths);
    return true;
}

static void run_out(void *arg)
{
    struct link_path *path = arg;
    struct link_paths *paths = path->owner;
    pthread_mutex_lock(&paths->lock);
    while (!paths->ends)
        if (!pump(path))
            pthread_cond_wait(&path->send, &paths->lock);
    pthread_mutex_unlock(&paths->lock);
}

/* --- receiving -------------------------------------------------------------------------------- */

static int receive(struct link_path *path, struct link *link)
{
    struct stream *stream = link_reader(link);
    stream_read(stream, path->head, PATHS_HEAD);
    if (stream_error(stream) < 0)
        return stream_error(stream);
    int length = paths_length(path->head);
    if (length < 0)
        return length;
    stream_read(stream, path->payload, (size_t)length);
    return stream_error(stream);
}

/* Locked, but not all the time. */
static void lose(struct link_path *path, int error)
{
    struct link_paths *paths = path->owner;
    struct link *link = path->link;
    paths_down(&paths->core, (int)(path - paths->path), clock_monotonic_ns());
    if (paths->core.active == PATHS_NONE && !path->replaced)
        end_all(paths, error);
    if (!paths->core.ends || path->pumping)
        link_break(link);
    tell(paths, clock_monotonic_ns());
    wake(paths);
    while (path->pumping)
        pthread_cond_wait(&paths->changed, &paths->lock);
    path->link = NULL;
    path->replaced = false;
    pthread_mutex_unlock(&paths->lock);
    link_destroy(link);
    pthread_mutex_lock(&paths->lock);
    pthread_cond_broadcast(&paths->changed);
    if (paths->finder && !paths->ends)
        finder_wake(paths->finder);
}

static void run_in(void *arg)
{
    struct link_path *path = arg;
    struct link_paths *paths = path->owner;
    pthread_mutex_lock(&paths->lock);
    while (!paths->ends || path->link) {
        struct link *link = path->link;
        if (!link) {
            pthread_cond_wait(&paths->changed, &paths->lock);
            continue;
        }
        pthread_mutex_unlock(&paths->lock);
        int ret = receive(path, link);
        pthread_mutex_lock(&paths->lock);
        if (ret == 0)
            ret = paths_take(&paths->core, (int)(path - paths->path), clock_monotonic_ns(),
                             path->head, path->payload);
        if (ret < 0) {
            lose(path, ret);
            continue;
        }
        if (paths->core.received != paths->core.taken || paths->core.ended)
            pthread_cond_signal(&paths->data);
        wake(paths);
    }
    pthread_mutex_unlock(&paths->lock);
}

/* --- time ------------------------------------------------------------------------------------- */

static void run_keeper(void *arg)
{
    struct link_paths *paths = arg;
    uint64_t pace = paths->core.config.beat_ns / TICKS;
    pthread_mutex_lock(&paths->lock);
    while (!paths->ends) {
        uint64_t now = clock_monotonic_ns();
        int bad = paths_tick(&paths->core, now);
        if (bad != PATHS_NONE && paths->path[bad].link) {
            paths_down(&paths->core, bad, now);
            link_break(paths->path[bad].link);
        }
        tell(paths, now);
        wake(paths);
        wait_until(paths, &paths->time, now + pace);
    }
    pthread_mutex_unlock(&paths->lock);
}

/* --- the stream ------------------------------------------------------------------------------- */

/* Locked. */
static int state_of(const struct link_paths *paths)
{
    return paths->broken ? -ECONNABORTED : paths->error;
}

static uint64_t deadline_of(const struct link_paths *paths)
{
    return paths->timeout_ms ? clock_monotonic_ns() + paths->timeout_ms * MS : 0;
}

/* Locked. Waits, unless that has taken too long. */
static int wait_for(struct link_paths *paths, pthread_cond_t *cond, uint64_t deadline)
{
    if (deadline && clock_monotonic_ns() >= deadline)
        return -ETIMEDOUT;
    wait_until(paths, cond, deadline);
    return 0;
}

int link_paths_write(struct link_paths *paths, const void *from, size_t length)
{
    const uint8_t *at = from;
    pthread_mutex_lock(&paths->lock);
    uint64_t deadline = deadline_of(paths);
    int ret = state_of(paths);
    while (ret == 0 && length > 0) {
        size_t n = paths_put(&paths->core, at, length < PART ? length : PART);
        at += n;
        length -= n;
        if (n == 0 || paths->core.written - paths->core.sent >= PART)
            wake(paths);
        if (n == 0)
            ret = wait_for(paths, &paths->room, deadline);
        else
            deadline = deadline_of(paths);
        if (ret == 0)
            ret = state_of(paths);
    }
    pthread_mutex_unlock(&paths->lock);
    return ret;
}

int link_paths_flush(struct link_paths *paths)
{
    pthread_mutex_lock(&paths->lock);
    int active = paths->core.active, ret = state_of(paths);
    if (ret == 0 && active != PATHS_NONE && paths->core.sent - paths->core.acked < BY_ITSELF)
        (void)pump(&paths->path[active]);
    wake(paths);
    pthread_mutex_unlock(&paths->lock);
    return ret;
}

int link_paths_read(struct link_paths *paths, void *to, size_t length)
{
    uint8_t *at = to;
    int ret = 0;
    pthread_mutex_lock(&paths->lock);
    uint64_t deadline = deadline_of(paths);
    while (ret == 0 && length > 0) {
        if (paths->broken) {
            ret = -ECONNABORTED;
            break;
        }
        size_t n = paths_get(&paths->core, at, length < PART ? length : PART);
        at += n;
        length -= n;
        if (n > 0) {
            atomic_fetch_add(&paths->arrived.bytes, n);
            deadline = deadline_of(paths);
            wake(paths);
        } else if (paths->core.ended) {
            ret = -ENODATA;
        } else if (paths->error) {
            ret = paths->error;
        } else {
            atomic_store(&paths->arrived.waits, true);
            ret = wait_for(paths, &paths->data, deadline);
            atomic_store(&paths->arrived.waits, false);
        }
    }
    pthread_mutex_unlock(&paths->lock);
    return ret;
}

void link_paths_set_timeout(struct link_paths *paths, unsigned timeout_ms)
{
    pthread_mutex_lock(&paths->lock);
    paths->timeout_ms = timeout_ms;
    pthread_mutex_unlock(&paths->lock);
}

/* Locked. */
static void break_all(struct link_paths *paths)
{
    for (int i = 0; i < PATHS; i++)
        if (paths->path[i].link)
            link_break(paths->path[i].link);
}

void link_paths_break(struct link_paths *paths)
{
    pthread_mutex_lock(&paths->lock);
    paths->broken = true;
    break_all(paths);
    end_all(paths, -ECONNABORTED);
    pthread_mutex_unlock(&paths->lock);
}

/* --- the finder ------------------------------------------------------------------------------- */

int link_paths_find_away(struct link_paths *paths)
{
    int away = PATHS_NONE;
    pthread_mutex_lock(&paths->lock);
    for (int i = 0; i < PATHS && !paths->error && !paths->broken; i++)
        if (!paths->path[i].link)
            away = i;
    pthread_mutex_unlock(&paths->lock);
    return away;
}

void link_paths_install(struct link_paths *paths, int index, struct link *link, const char *address)
{
    struct link_path *path = &paths->path[index];
    pthread_mutex_lock(&paths->lock);
    if (path->link && !paths->error) { /* the peer has given it up, and we have not heard of it */
        path->replaced = true;
        link_break(path->link);
    }
    while (path->link && !paths->error)
        pthread_cond_wait(&paths->changed, &paths->lock);
    bool late = paths->error || paths->broken || paths->ends;
    if (!late) {
        snprintf(path->address, sizeof(path->address), "%s", address);
        path->link = link;
        paths_up(&paths->core, index, clock_monotonic_ns());
        tell(paths, clock_monotonic_ns());
        pthread_cond_broadcast(&paths->changed);
        wake(paths);
    }
    pthread_mutex_unlock(&paths->lock);
    if (late)
        link_destroy(link);
}

/* --- for people ------------------------------------------------------------------------------- */

void link_paths_look(struct link_paths *paths, struct link_news *ret_news)
{
    pthread_mutex_lock(&paths->lock);
    *ret_news = (struct link_news){
        .count = PATHS, .active = paths->core.active, .moves = paths->core.moves};
    for (int i = 0; i < PATHS; i++) {
        const struct link_path *path = &paths->path[i];
        ret_news->path[i].alive = path->alive;
        ret_news->path[i].since_ns = path->since_ns;
        memcpy(ret_news->path[i].address, path->address, sizeof(path->address));
    }
    pthread_mutex_unlock(&paths->lock);
}

uint64_t link_paths_line_ns(struct link_paths *paths)
{
    pthread_mutex_lock(&paths->lock);
    int active = paths->core.active;
    const struct link *link = active >= 0 ? paths->path[active].link : NULL;
    uint64_t ns = link ? link_line_ns(link) : 0;
    pthread_mutex_unlock(&paths->lock);
    return ns;
}

void link_paths_watch(struct link_paths *paths, void (*changes)(void *ctx), void *ctx)
{
    pthread_mutex_lock(&paths->lock);
    paths->changes = changes;
    paths->ctx = ctx;
    pthread_mutex_unlock(&paths->lock);
}

/* --- life ------------------------------------------------------------------------------------- */

static int start(struct link_paths *paths, struct err *err)
{
    int ret = 0;
    for (int i = 0; i < PATHS && ret == 0; i++) {
        struct link_path *path = &paths->path[i];
        ret = thread_start(&path->in, "path-in", run_in, path, err);
        if (ret == 0)
            ret = thread_start(&path->out, "path-out", run_out, path, err);
    }
    return ret == 0 ? thread_start(&paths->keeper, "paths", run_keeper, paths, err) : ret;
}

static void put_in(struct link_paths *paths, const struct link_opened *opened, int i)
{
    const char *address = opened->addresses[i];
    struct link *link = opened->link[i];
    if (link)
        link_paths_install(paths, i, link, address ? address : link_peer(link));
    else if (address)
        snprintf(paths->path[i].address, sizeof(paths->path[i].address), "%s", address);
}

int link_paths_create(struct link_paths **ret_paths, const struct link_opened *opened,
                      struct err *err)
{
    const struct link_times *times = &opened->times;
    uint64_t stall = times->patience_ms * MS / STALLS, beat = times->beat_ms * MS;
    const struct paths_config config = {.beat_ns = beat < stall / BEATS ? beat : stall / BEATS,
                                        .stall_ns = stall,
                                        .window = PATHS_WINDOW,
                                        .decides = opened->decides};
    struct link_paths *paths = calloc(1, sizeof(*paths));
    uint64_t now = clock_monotonic_ns();
    if (!paths || paths_init(&paths->core, &config, now) < 0) {
        free(paths);
        for (int i = 0; i < PATHS; i++)
            link_destroy(opened->link[i]);
        finder_end(opened->finder);
        return err_sys(err, ERR_HOST, ENOMEM, "a link over two paths");
    }
    pthread_mutex_init(&paths->lock, NULL);
    pthread_cond_init(&paths->data, NULL);
    pthread_cond_init(&paths->room, NULL);
    pthread_cond_init(&paths->changed, NULL);
    pthread_cond_init(&paths->time, NULL);
    paths->finder = opened->finder;
    paths->told_active = opened->first;
    for (int i = 0; i < PATHS; i++) {
        paths->path[i].owner = paths;
        paths->path[i].since_ns = now;
        pthread_cond_init(&paths->path[i].send, NULL);
    }
    put_in(paths, opened, opened->first);
    put_in(paths, opened, !opened->first);
    int ret = start(paths, err);
    if (ret == 0)
        ret = finder_start(paths->finder, paths, err);
    if (ret < 0) {
        link_paths_break(paths);
        link_paths_destroy(paths);
        return ret;
    }
    *ret_paths = paths;
    return 0;
}

/* Locked. Until the peer has all, and has been told that it is all; with little patience. */
static void finish(struct link_paths *paths)
{
    uint64_t deadline = clock_monotonic_ns() + 2 * paths->core.config.stall_ns;
    wake(paths);
    while (!state_of(paths) && paths->core.acked != paths->core.written &&
           clock_monotonic_ns() < deadline)
        wait_until(paths, &paths->room, deadline);
    paths_end(&paths->core);
    for (int i = 0; i < PATHS; i++) {
        while (paths->path[i].pumping && !state_of(paths) && clock_monotonic_ns() < deadline)
            wait_until(paths, &paths->changed, deadline);
        (void)pump(&paths->path[i]);
    }
}

/* Locked. Both connections come to their ends; a peer that goes on sending gets little patience. */
static void wait_for_ends(struct link_paths *paths)
{
    uint64_t deadline = clock_monotonic_ns() + paths->core.config.stall_ns;
    while (!paths->broken && (paths->path[0].link || paths->path[1].link) &&
           clock_monotonic_ns() < deadline)
        wait_until(paths, &paths->changed, deadline);
    break_all(paths);
}

void link_paths_destroy(struct link_paths *paths)
{
    pthread_mutex_lock(&paths->lock);
    if (!state_of(paths))
        finish(paths);
    paths->changes = NULL;
    struct finder *finder = paths->finder;
    paths->finder = NULL; /* nobody wakes it any more */
    pthread_mutex_unlock(&paths->lock);
    finder_end(finder);
    pthread_mutex_lock(&paths->lock);
    paths->ends = true;
    for (int i = 0; i < PATHS; i++) {
        if (paths->path[i].link)
            link_hang_up(paths->path[i].link);
        pthread_cond_broadcast(&paths->path[i].send);
    }
    end_all(paths, -ECONNABORTED);
    wait_for_ends(paths);
    pthread_mutex_unlock(&paths->lock);
    for (int i = 0; i < PATHS; i++) {
        thread_join(&paths->path[i].out);
        thread_join(&paths->path[i].in);
        if (paths->path[i].link) /* the thread was never there */
            link_destroy(paths->path[i].link);
        pthread_cond_destroy(&paths->path[i].send);
    }
    thread_join(&paths->keeper);
    pthread_cond_destroy(&paths->data);
    pthread_cond_destroy(&paths->room);
    pthread_cond_destroy(&paths->changed);
    pthread_cond_destroy(&paths->time);
    pthread_mutex_destroy(&paths->lock);
    paths_finish(&paths->core);
    free(paths);
}
