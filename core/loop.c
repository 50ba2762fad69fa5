/* SPDX-License-Identifier: MIT */
/*
 * One epoll instance watches everything: the callers' descriptors, one timerfd armed to the
 * earliest deadline of a binary heap, and one eventfd that other threads write to wake the loop (a
 * posted call, an earlier timer, a park, a stop).
 *
 * A handler may remove a descriptor whose event already lies in the batch that epoll_wait returned.
 * So the loop takes one event a time: epoll_wait with a batch of one costs a system call more per
 * event, and in return no stale pointer can exist.
 *
 * A loop that waits for events is as good as parked: to wake its thread for that would cost whoever
 * parks it some 50 us, and there are pauses of a whole machine that take no longer. So the thread
 * says when it works, and asks before it does whether it may.
 */
#include "core/loop.h"

#include "core/clock.h"
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

struct loop {
    int epoll, wake, alarm;
    struct loop_io *always; /* descriptors that epoll refuses, and that are always ready */
    _Atomic bool stop;

    pthread_mutex_t lock; /* all below */
    pthread_cond_t changed;
    struct loop_timer **heap; /* from index 1; the parent of i is i / 2 */
    size_t timers, capacity;
    uint64_t alarm_ns; /* what the timerfd is armed to, 0 for nothing */
    struct loop_call *calls, **calls_end;
    unsigned parks;
    bool running;  /* a thread is in loop_run */
    bool working;  /* it handles an event */
    bool stale;    /* somebody has parked the loop since it did */
    bool standing; /* it has another event, and is not allowed to handle it */
    void *taken;   /* which one that is, as epoll knows it; NULL: none that counts */
};

/* --- waking ------------------------------------------------------------------------------- */

static void wake(struct loop *loop)
{
    uint64_t one = 1;
    /* Fails only when the counter is full, and then the loop is awake anyway. */
    if (write(loop->wake, &one, sizeof(one)) < 0)
        return;
}

static void drain(int fd)
{
    uint64_t count;
    if (read(fd, &count, sizeof(count)) < 0)
        return; /* somebody was earlier: nothing to do */
}

/* --- timers ------------------------------------------------------------------------------- */

static void heap_put(struct loop *loop, size_t index, struct loop_timer *timer)
{
    loop->heap[index] = timer;
    timer->index = index;
}

static void heap_up(struct loop *loop, size_t index)
{
    struct loop_timer *timer = loop->heap[index];
    for (; index > 1 && loop->heap[index / 2]->deadline_ns > timer->deadline_ns; index /= 2)
        heap_put(loop, index, loop->heap[index / 2]);
    heap_put(loop, index, timer);
}

static void heap_down(struct loop *loop, size_t index)
{
    struct loop_timer *timer = loop->heap[index];
    while (index * 2 <= loop->timers) {
        size_t child = index * 2;
        if (child < loop->timers &&
            loop->heap[child + 1]->deadline_ns < loop->heap[child]->deadline_ns)
            child++;
        if (loop->heap[child]->deadline_ns >= timer->deadline_ns)
            break;
        heap_put(loop, index, loop->heap[child]);
        index = child;
    }
    heap_put(loop, index, timer);
}

static void heap_remove(struct loop *loop, struct loop_timer *timer)
{
    size_t index = timer->index;
    struct loop_timer *last = loop->heap[loop->timers--];
    timer->index = 0;
    if (last == timer)
        return;
    heap_put(loop, index, last);
    heap_up(loop, index);
    heap_down(loop, last->index);
}

static void set_alarm_locked(struct loop *loop)
{
    uint64_t next = loop->timers ? loop->heap[1]->deadline_ns : 0;
    if (next == loop->alarm_ns)
        return;
    loop->alarm_ns = next;
    const struct itimerspec spec = {.it_value = clock_timespec(next)};
    timerfd_settime(loop->alarm, TFD_TIMER_ABSTIME, &spec, NULL);
}

void loop_timer_init(struct loop_timer *timer, struct loop *loop, void (*handle)(void *arg),
                     void *arg)
{
    *timer = (struct loop_timer){.loop = loop, .handle = handle, .arg = arg};
}

static int arm_locked(struct loop *loop, struct loop_timer *timer, uint64_t deadline_ns)
{
    if (!timer->index && loop->timers + 1 >= loop->capacity) {
        size_t capacity = loop->capacity ? loop->capacity * 2 : 16;
        struct loop_timer **heap = reallocarray(loop->heap, capacity, sizeof(*heap));
        if (!heap)
            return -ENOMEM;
        loop->heap = heap;
        loop->capacity = capacity;
    }
    if (timer->index)
        heap_remove(loop, timer);
    /* 0 would disarm the timerfd; a deadline in the past fires at once. */
    timer->deadline_ns = deadline_ns ? deadline_ns : 1;
    heap_put(loop, ++loop->timers, timer);
    heap_up(loop, timer->index);
    set_alarm_locked(loop);
    return 0;
}

int loop_timer_arm(struct loop_timer *timer, uint64_t deadline_ns)
{
    struct loop *loop = timer->loop;
    pthread_mutex_lock(&loop->lock);
    int ret = arm_locked(loop, timer, deadline_ns);
    pthread_mutex_unlock(&loop->lock);
    return ret;
}

void loop_timer_cancel(struct loop_timer *timer)
{
    struct loop *loop = timer->loop;
    pthread_mutex_lock(&loop->lock);
    if (timer->index) {
        heap_remove(loop, timer);
        set_alarm_locked(loop);
    }
    pthread_mutex_unlock(&loop->lock);
}

static struct loop_timer *take_due_timer(struct loop *loop)
{
    struct loop_timer *due = NULL;
    pthread_mutex_lock(&loop->lock);
    if (loop->timers && loop->heap[1]->deadline_ns <= clock_monotonic_ns()) {
        due = loop->heap[1];
        heap_remove(loop, due);
    }
    pthread_mutex_unlock(&loop->lock);
    return due;
}

static void handle_alarm(struct loop *loop)
{
    drain(loop->alarm);
    pthread_mutex_lock(&loop->lock);
    size_t most = loop->timers;
    pthread_mutex_unlock(&loop->lock);
    /* No more than these in one go: a timer that always arms itself into the past (a guest may ask
     * for a period that is shorter than its handler) must not keep the loop from all else. */
    struct loop_timer *timer;
    while (most-- > 0 && (timer = take_due_timer(loop)))
        timer->handle(timer->arg);

    pthread_mutex_lock(&loop->lock);
    loop->alarm_ns = 0; /* it has fired: arm it anew even for a deadline it had before */
    set_alarm_locked(loop);
    pthread_mutex_unlock(&loop->lock);
}

/* --- calls and parking -------------------------------------------------------------------- */

void loop_post(struct loop *loop, struct loop_call *call)
{
    pthread_mutex_lock(&loop->lock);
    if (!call->queued) {
        call->queued = true;
        call->next = NULL;
        *loop->calls_end = call;
        loop->calls_end = &call->next;
    }
    pthread_mutex_unlock(&loop->lock);
    wake(loop);
}

/* Those that wait now; what is posted meanwhile has its own wake, after other events. */
static struct loop_call *take_calls(struct loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    struct loop_call *calls = loop->calls;
    loop->calls = NULL;
    loop->calls_end = &loop->calls;
    pthread_mutex_unlock(&loop->lock);
    return calls;
}

static void run_call(struct loop *loop, struct loop_call *call)
{
    pthread_mutex_lock(&loop->lock);
    call->queued = false;
    pthread_mutex_unlock(&loop->lock);
    call->handle(call->arg);
}

static void handle_wake(struct loop *loop)
{
    drain(loop->wake);
    for (struct loop_call *next, *call = take_calls(loop); call; call = next) {
        next = call->next; /* the handler may post it again, or free it */
        run_call(loop, call);
    }
}

void loop_park(struct loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    loop->parks++;
    loop->stale = true;
    while (loop->working)
        pthread_cond_wait(&loop->changed, &loop->lock);
    pthread_mutex_unlock(&loop->lock);
}

void loop_unpark(struct loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    assert(loop->parks > 0);
    loop->parks--;
    pthread_cond_broadcast(&loop->changed);
    pthread_mutex_unlock(&loop->lock);
}

static void end_work(struct loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    loop->working = false;
    loop->stale = loop->parks;
    if (loop->parks)
        pthread_cond_broadcast(&loop->changed);
    pthread_mutex_unlock(&loop->lock);
}

/* With the event that was taken, or NULL. False: the loop was parked meanwhile, and what the event
 * says may be true no longer; *taken is NULL then where its descriptor is gone. */
static bool begin_work(struct loop *loop, void **taken)
{
    pthread_mutex_lock(&loop->lock);
    loop->taken = *taken;
    while (loop->parks) {
        loop->standing = true;
        pthread_cond_broadcast(&loop->changed);
        pthread_cond_wait(&loop->changed, &loop->lock);
    }
    loop->standing = false;
    loop->working = true;
    *taken = loop->taken;
    bool fresh = !loop->stale;
    pthread_mutex_unlock(&loop->lock);
    return fresh;
}

/* Whoever has parked the loop removes a descriptor, whose event its thread may have taken before.
 */
static void take_event_back(struct loop *loop, const struct loop_io *io)
{
    pthread_mutex_lock(&loop->lock);
    if (loop->parks && !loop->working) {
        wake(loop);
        while (loop->running && !loop->standing)
            pthread_cond_wait(&loop->changed, &loop->lock);
        if (loop->taken == io)
            loop->taken = NULL;
    }
    pthread_mutex_unlock(&loop->lock);
}

/* --- descriptors -------------------------------------------------------------------------- */

static uint32_t to_epoll(unsigned events)
{
    return (events & LOOP_READ ? EPOLLIN : 0u) | (events & LOOP_WRITE ? EPOLLOUT : 0u) |
           (events & LOOP_EDGE ? EPOLLET : 0u);
}

static unsigned from_epoll(uint32_t events)
{
    return (events & EPOLLIN ? LOOP_READ : 0u) | (events & EPOLLOUT ? LOOP_WRITE : 0u) |
           (events & (EPOLLHUP | EPOLLERR) ? LOOP_HANGUP : 0u);
}

static int poll_start(struct loop *loop, struct loop_io *io)
{
    struct epoll_event event = {.events = to_epoll(io->events), .data.ptr = io};
    return epoll_ctl(loop->epoll, EPOLL_CTL_ADD, io->fd, &event);
}

int loop_io_add(struct loop *loop, struct loop_io *io, struct err *err)
{
    io->unpollable = false;
    if (poll_start(loop, io) < 0) {
        if (errno != EPERM)
            return err_sys(err, ERR_HOST, errno, "cannot watch descriptor %d", io->fd);
        io->unpollable = true;
        io->next_always = loop->always;
        loop->always = io;
    }
    /* A resting descriptor leaves epoll: a hang-up is reported even to a watcher of nothing. */
    if (!io->events && !io->unpollable)
        epoll_ctl(loop->epoll, EPOLL_CTL_DEL, io->fd, NULL);
    return 0;
}

void loop_io_watch(struct loop *loop, struct loop_io *io, unsigned events)
{
    unsigned before = io->events;
    io->events = events;
    if (io->unpollable || before == events)
        return;
    if (!events) {
        epoll_ctl(loop->epoll, EPOLL_CTL_DEL, io->fd, NULL);
    } else if (!before) {
        poll_start(loop, io);
    } else {
        struct epoll_event event = {.events = to_epoll(events), .data.ptr = io};
        epoll_ctl(loop->epoll, EPOLL_CTL_MOD, io->fd, &event);
    }
}

void loop_io_remove(struct loop *loop, struct loop_io *io)
{
    if (!io->unpollable) {
        if (io->events)
            epoll_ctl(loop->epoll, EPOLL_CTL_DEL, io->fd, NULL);
        take_event_back(loop, io);
        return;
    }
    for (struct loop_io **at = &loop->always; *at; at = &(*at)->next_always) {
        if (*at == io) {
            *at = io->next_always;
            return;
        }
    }
}

/* One of the descriptors that are always ready and wanted, or NULL. */
static struct loop_io *find_ready(struct loop *loop)
{
    for (struct loop_io *io = loop->always; io; io = io->next_always)
        if (io->events)
            return io;
    return NULL;
}

/* Who was served goes to the end of the list, so that each has its turn. */
static void put_last(struct loop *loop, struct loop_io *io)
{
    struct loop_io **at = &loop->always;

    loop_io_remove(loop, io);
    while (*at)
        at = &(*at)->next_always;
    io->next_always = NULL;
    *at = io;
}

/* --- the loop ----------------------------------------------------------------------------- */

static int add_own(struct loop *loop, int *fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = fd};
    return epoll_ctl(loop->epoll, EPOLL_CTL_ADD, *fd, &event);
}

int loop_create(struct loop **ret_loop, struct err *err)
{
    struct loop *loop = calloc(1, sizeof(*loop));
    if (!loop)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot create an event loop");
    pthread_mutex_init(&loop->lock, NULL);
    pthread_cond_init(&loop->changed, NULL);
    loop->calls_end = &loop->calls;
    loop->epoll = epoll_create1(EPOLL_CLOEXEC);
    loop->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    loop->alarm = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (loop->epoll < 0 || loop->wake < 0 || loop->alarm < 0 || add_own(loop, &loop->wake) < 0 ||
        add_own(loop, &loop->alarm) < 0) {
        int ret = err_sys(err, ERR_HOST, errno, "cannot create an event loop");
        loop_destroy(loop);
        return ret;
    }
    *ret_loop = loop;
    return 0;
}

void loop_destroy(struct loop *loop)
{
    if (!loop)
        return;
    int fds[] = {loop->epoll, loop->wake, loop->alarm};
    for (size_t i = 0; i < array_size(fds); i++)
        if (fds[i] >= 0)
            close(fds[i]);
    free(loop->heap);
    pthread_cond_destroy(&loop->changed);
    pthread_mutex_destroy(&loop->lock);
    free(loop);
}

static bool is_own(const struct loop *loop, const void *event)
{
    return event == &loop->wake || event == &loop->alarm;
}

/* It comes once more if it is still there: an edge that was taken already would not by itself. */
static void put_back(struct loop *loop, void *taken)
{
    if (!taken || is_own(loop, taken))
        return;
    struct loop_io *io = taken;
    struct epoll_event event = {.events = to_epoll(io->events), .data.ptr = io};
    if (io->events)
        epoll_ctl(loop->epoll, EPOLL_CTL_MOD, io->fd, &event);
}

/* 1: *event came. 0: nothing. Nobody parks a loop that works. */
static int wait_for_event(struct loop *loop, int timeout, struct epoll_event *event)
{
    end_work(loop);
    int count = epoll_wait(loop->epoll, event, 1, timeout);
    int ret = count < 0 && errno != EINTR ? -errno : count > 0;
    void *taken = ret == 1 ? event->data.ptr : NULL;
    if (begin_work(loop, &taken) || ret < 0)
        return ret;
    put_back(loop, taken);
    return 0;
}

static void handle_event(struct loop *loop, const struct epoll_event *event)
{
    if (event->data.ptr == &loop->wake) {
        handle_wake(loop);
    } else if (event->data.ptr == &loop->alarm) {
        handle_alarm(loop);
    } else {
        struct loop_io *io = event->data.ptr;
        io->handle(io->arg, from_epoll(event->events));
    }
}

static int run_one(struct loop *loop)
{
    struct epoll_event event;
    int ret = wait_for_event(loop, find_ready(loop) ? 0 : -1, &event);
    if (ret < 0)
        return ret;
    if (ret == 1)
        handle_event(loop, &event);
    struct loop_io *ready = find_ready(loop);
    if (ready) {
        put_last(loop, ready);
        ready->handle(ready->arg, ready->events);
    }
    return 0;
}

static void begin_run(struct loop *loop)
{
    void *nothing = NULL;
    pthread_mutex_lock(&loop->lock);
    loop->running = true;
    pthread_mutex_unlock(&loop->lock);
    (void)begin_work(loop, &nothing);
}

static void end_run(struct loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    loop->running = loop->working = false;
    pthread_cond_broadcast(&loop->changed);
    pthread_mutex_unlock(&loop->lock);
}

int loop_run(struct loop *loop)
{
    int ret = 0;
    begin_run(loop);
    while (ret == 0 && !atomic_exchange(&loop->stop, false))
        ret = run_one(loop);
    end_run(loop);
    return ret;
}

void loop_stop(struct loop *loop)
{
    atomic_store(&loop->stop, true);
    wake(loop);
}
