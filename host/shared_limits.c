/* SPDX-License-Identifier: MIT */
/*
 * Each change begins a new epoch, in which the times of the old one count no more, and wakes all
 * users: who waits looks again. Who is about to arm its timer may push that call to wake into the
 * future, so it looks at the epoch afterwards.
 */
#include "host/shared_limits.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Who waits sleeps so much longer: several pieces pass then, for one timer. */
enum { PATIENCE_NS = 1000000 };

struct lane {
    struct bucket operations, bytes;
};

struct shared_limits {
    atomic_uint epoch;
    atomic_bool limited;
    pthread_mutex_t lock; /* all below */
    struct lane lanes[LIMITS_LANES];
    struct limits_user *users;
};

static void set_rates(struct shared_limits *limits, const struct limits *to, uint64_t spent_until)
{
    for (unsigned i = 0; i < LIMITS_LANES; i++) {
        struct lane *lane = &limits->lanes[i];
        lane->operations = (struct bucket){to->operations, spent_until};
        lane->bytes = (struct bucket){to->bytes, spent_until};
    }
    atomic_store(&limits->limited, to->operations || to->bytes);
}

void shared_limits_set(struct shared_limits *limits, const struct limits *to)
{
    uint64_t now = clock_monotonic_ns();

    pthread_mutex_lock(&limits->lock);
    set_rates(limits, to, now);
    atomic_fetch_add(&limits->epoch, 1);
    for (struct limits_user *user = limits->users; user; user = user->next) {
        /* Without memory for that it wakes when it would have. */
        int r = loop_timer_arm(user->timer, now);
        (void)r;
    }
    pthread_mutex_unlock(&limits->lock);
}

int shared_limits_create(struct shared_limits **ret_limits, const struct limits *to,
                         struct err *err)
{
    struct shared_limits *limits = calloc(1, sizeof(*limits));

    if (!limits)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot set up limits");
    pthread_mutex_init(&limits->lock, NULL);
    set_rates(limits, to, 0);
    *ret_limits = limits;
    return 0;
}

void shared_limits_destroy(struct shared_limits *limits)
{
    if (!limits)
        return;
    pthread_mutex_destroy(&limits->lock);
    free(limits);
}

/* --- limiter -------------------------------------------------------------------------------- */

static void join(struct shared_limits *limits, struct limits_user *user)
{
    pthread_mutex_lock(&limits->lock);
    user->next = limits->users;
    limits->users = user;
    pthread_mutex_unlock(&limits->lock);
}

static void leave(struct shared_limits *limits, struct limits_user *user)
{
    pthread_mutex_lock(&limits->lock);
    for (struct limits_user **at = &limits->users; *at; at = &(*at)->next) {
        if (*at != user)
            continue;
        *at = user->next;
        break;
    }
    pthread_mutex_unlock(&limits->lock);
}

int limiter_init(struct limiter *limiter, const struct limits *own, struct shared_limits *shared,
                 struct err *err)
{
    *limiter = (struct limiter){.limits = {NULL, shared}};
    return shared_limits_create(&limiter->limits[0], own, err);
}

void limiter_finish(struct limiter *limiter)
{
    shared_limits_destroy(limiter->limits[0]);
}

void limiter_attach(struct limiter *limiter, struct loop *loop, void (*handle)(void *arg),
                    void *arg)
{
    loop_timer_init(&limiter->timer, loop, handle, arg);
    for (unsigned i = 0; i < array_size(limiter->limits); i++) {
        limiter->users[i].timer = &limiter->timer;
        if (limiter->limits[i])
            join(limiter->limits[i], &limiter->users[i]);
    }
    limiter->attached = true;
}

void limiter_detach(struct limiter *limiter)
{
    if (!limiter->attached)
        return;
    for (unsigned i = 0; i < array_size(limiter->limits); i++)
        if (limiter->limits[i])
            leave(limiter->limits[i], &limiter->users[i]);
    loop_timer_cancel(&limiter->timer);
    limiter->timer_ns = 0;
    limiter->attached = false;
}

bool limiter_applies(const struct limiter *limiter)
{
    for (unsigned i = 0; i < array_size(limiter->limits); i++)
        if (limiter->limits[i] &&
            atomic_load_explicit(&limiter->limits[i]->limited, memory_order_relaxed))
            return true;
    return false;
}

static void get_epochs(const struct limiter *limiter, unsigned ret_epochs[2])
{
    for (unsigned i = 0; i < array_size(limiter->limits); i++)
        ret_epochs[i] = limiter->limits[i] ? atomic_load(&limiter->limits[i]->epoch) : 0;
}

static int arm(struct limiter *limiter, uint64_t when_ns, const unsigned epochs[2])
{
    unsigned then[2];

    if (limiter->timer_ns && limiter->timer_ns <= when_ns)
        return 0;
    int r = loop_timer_arm(&limiter->timer, when_ns);
    if (r < 0)
        return r;
    limiter->timer_ns = when_ns;
    get_epochs(limiter, then);
    return memcmp(then, epochs, sizeof(then)) == 0 ? 0 : loop_timer_arm(&limiter->timer, 0);
}

bool limiter_holds(struct limiter *limiter, const struct limiter_pass *pass, uint64_t now_ns)
{
    unsigned epochs[2];
    uint64_t next_ns = 0;

    get_epochs(limiter, epochs);
    for (unsigned i = 0; i < array_size(epochs); i++)
        if (pass->epochs[i] == epochs[i] && pass->next_ns[i] > next_ns)
            next_ns = pass->next_ns[i];
    return next_ns > now_ns && limiter->attached &&
           arm(limiter, next_ns + PATIENCE_NS, epochs) == 0;
}

static void book(struct shared_limits *limits, struct lane *lane, uint64_t operations,
                 uint64_t bytes, uint64_t now_ns, uint64_t *ret_next_ns, unsigned *ret_epoch)
{
    pthread_mutex_lock(&limits->lock);
    bucket_take(&lane->operations, operations, now_ns);
    bucket_take(&lane->bytes, bytes, now_ns);
    uint64_t ready[] = {bucket_ready_ns(&lane->operations), bucket_ready_ns(&lane->bytes)};
    *ret_next_ns = ready[0] > ready[1] ? ready[0] : ready[1];
    *ret_epoch = atomic_load(&limits->epoch);
    pthread_mutex_unlock(&limits->lock);
}

void limiter_book(struct limiter *limiter, unsigned lane, struct limiter_pass *pass,
                  uint64_t operations, uint64_t bytes, uint64_t now_ns)
{
    for (unsigned i = 0; i < array_size(limiter->limits); i++) {
        struct shared_limits *limits = limiter->limits[i];
        if (limits)
            book(limits, &limits->lanes[lane], operations, bytes, now_ns, &pass->next_ns[i],
                 &pass->epochs[i]);
    }
}

void limiter_woke(struct limiter *limiter)
{
    limiter->timer_ns = 0;
}
