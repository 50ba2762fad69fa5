/* SPDX-License-Identifier: MIT */
#include "ft/loop_step.h"

#include "core/clock.h"
#include <errno.h>

static void handle_call(void *arg)
{
    struct loop_step *step = arg;
    pthread_mutex_lock(&step->lock);
    int (*run)(void *ctx, struct err *err) = step->run;
    pthread_mutex_unlock(&step->lock);
    if (!run)
        return;
    int result = run(step->ctx, step->err);
    pthread_mutex_lock(&step->lock);
    step->run = NULL;
    step->result = result;
    step->over = true;
    pthread_cond_broadcast(&step->changed);
    pthread_mutex_unlock(&step->lock);
}

void loop_step_init(struct loop_step *step, struct loop *loop)
{
    *step = (struct loop_step){.loop = loop, .call = {.handle = handle_call, .arg = step}};
    pthread_mutex_init(&step->lock, NULL);
    pthread_cond_init(&step->changed, NULL);
}

void loop_step_finish(struct loop_step *step)
{
    if (!step->loop)
        return;
    pthread_cond_destroy(&step->changed);
    pthread_mutex_destroy(&step->lock);
    step->loop = NULL;
}

int loop_step_do(struct loop_step *step, int (*run)(void *ctx, struct err *err), void *ctx,
                 struct err *err)
{
    pthread_mutex_lock(&step->lock);
    step->run = run;
    step->ctx = ctx;
    step->err = err;
    step->over = false;
    if (!step->abandoned)
        loop_post(step->loop, &step->call);
    while (!step->over && !step->abandoned)
        pthread_cond_wait(&step->changed, &step->lock);
    int result = step->over ? step->result : -ESHUTDOWN;
    step->run = NULL;
    pthread_mutex_unlock(&step->lock);
    return result;
}

bool loop_step_rest(struct loop_step *step, unsigned ms)
{
    const struct timespec end = clock_timespec(clock_monotonic_ns() + ms * 1000000ull);
    pthread_mutex_lock(&step->lock);
    while (!step->abandoned &&
           pthread_cond_clockwait(&step->changed, &step->lock, CLOCK_MONOTONIC, &end) == 0)
        continue;
    bool abandoned = step->abandoned;
    pthread_mutex_unlock(&step->lock);
    return abandoned;
}

void loop_step_abandon(struct loop_step *step)
{
    pthread_mutex_lock(&step->lock);
    step->abandoned = true;
    pthread_cond_broadcast(&step->changed);
    pthread_mutex_unlock(&step->lock);
}
