/* SPDX-License-Identifier: MIT */
/* A witness that hangs, in a folder: whoever comes by is held up until the test lets them go. */
#pragma once

#include "tests/unit/witness_rig.h"

#include <pthread.h>
#include <time.h>

enum { PATIENCE_S = 30 };

static inline struct timespec patience(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    at.tv_sec += PATIENCE_S;
    return at;
}

/* The first `most` that come by there hang until they are let go. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    char where;
    unsigned most, came, hang, may_pass;
} wall = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static inline void handle_pass(char what)
{
    pthread_mutex_lock(&wall.lock);
    if (what == wall.where && wall.came < wall.most) {
        wall.came++;
        wall.hang++;
        pthread_cond_broadcast(&wall.changed);
        while (wall.may_pass == 0)
            pthread_cond_wait(&wall.changed, &wall.lock);
        wall.may_pass--;
        wall.hang--;
        pthread_cond_broadcast(&wall.changed);
    }
    pthread_mutex_unlock(&wall.lock);
}

static inline void build_wall(char where, unsigned most)
{
    wall.where = where;
    wall.most = most;
    wall.came = wall.hang = wall.may_pass = 0;
    hook.pass = handle_pass;
}

/* So many, and nobody hangs anew. */
static inline void let_pass(unsigned count)
{
    pthread_mutex_lock(&wall.lock);
    wall.most = 0;
    wall.may_pass = count;
    pthread_cond_broadcast(&wall.changed);
    pthread_mutex_unlock(&wall.lock);
}

/* So many, whoever else does; all that there are. */
static inline unsigned wait_for_hanging(unsigned least, unsigned most)
{
    const struct timespec at = patience();
    int ret = 0;
    pthread_mutex_lock(&wall.lock);
    while ((wall.hang < least || wall.hang > most) && ret != ETIMEDOUT)
        ret = pthread_cond_clockwait(&wall.changed, &wall.lock, CLOCK_MONOTONIC, &at);
    unsigned hang = wall.hang;
    pthread_mutex_unlock(&wall.lock);
    ck_assert_msg(hang >= least && hang <= most, "%u hang", hang);
    return hang;
}

/* Who hangs outlives who asked, and is not to find the next test's folder. */
static inline void tear_wall_down(void)
{
    let_pass(UINT32_MAX);
    wait_for_hanging(0, 0);
}
