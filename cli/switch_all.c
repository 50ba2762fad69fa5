/* SPDX-License-Identifier: MIT */
#include "cli/switch_all.h"

#include "cli/said.h"
#include "cli/verbs.h"
#include "cli/vms.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/thread.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * So long the next VM waits for one that goes over, which takes some ten milliseconds: two at a
 * time share the line while both stand still. Who takes longer waits for something that may never
 * come.
 */
enum { HEAD_START_MS = 500 };

enum outcome { STAYS, IS_TWIN, GOES };

struct moves;

struct move {
    struct moves *moves;
    const struct runtime_info *info;
    struct thread thread;
    unsigned silence_ms;
    /* Of its thread until it is done. */
    enum outcome outcome;
    json_t *answer;
    struct err err;
    int ret;
    bool done; /* under the lock */
};

struct moves {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t timeout_s, deadline_ns;
    struct runtime_info *infos;
    size_t count;
    struct move *list;
};

void switched_say(const char *name, const json_t *answer)
{
    log_info("%s runs on %s: it took %.1f ms", name, said_text(answer, "to"),
             said_number(answer, "took_ms"));
}

/* --- one VM, on a thread of its own ----------------------------------------------------------- */

static enum outcome look(const json_t *status)
{
    const json_t *protection = json_object_get(status, "protection");
    if (!protection)
        return STAYS;
    return strcmp(said_text(protection, "role"), "twin") == 0 ? IS_TWIN : GOES;
}

/* That a VM has no twin in step it says itself. */
static int ask(struct move *move)
{
    struct control_client *client;
    json_t *status = NULL;
    int process = vm_open_process(move->info, NULL);
    int ret = vm_connect_to(move->info, move->silence_ms, &client, &move->err);
    if (ret < 0) {
        vm_see_off(process, move->info, false);
        return ret;
    }
    ret = control_call(client, "status", NULL, &status, &move->err);
    if (ret == 0)
        move->outcome = look(status);
    if (ret == 0 && move->outcome == GOES)
        ret = control_call(client, "switchover", NULL, &move->answer, &move->err);
    if (ret < 0 && ret != -EREMOTEIO) /* it calls itself by its name */
        err_prefix(&move->err, "%s", move->info->name);
    json_decref(status);
    control_disconnect(client);
    vm_see_off(process, move->info, ret == 0 && move->outcome == GOES);
    return ret;
}

static void run_move(void *arg)
{
    struct move *move = arg;
    struct moves *moves = move->moves;
    int ret = ask(move);
    pthread_mutex_lock(&moves->lock);
    move->ret = ret;
    move->done = true;
    pthread_cond_broadcast(&moves->changed);
    pthread_mutex_unlock(&moves->lock);
}

/* --- all of them ------------------------------------------------------------------------------ */

/* That it is late is said by who waits for it, and not by itself. */
enum { LATE_MS = 1000 };

static bool wait_for(struct move *move, uint64_t until_ns)
{
    struct moves *moves = move->moves;
    const struct timespec at = clock_timespec(until_ns < moves->deadline_ns ? until_ns
                                                                            : moves->deadline_ns);
    int ret = 0;
    pthread_mutex_lock(&moves->lock);
    while (!move->done && ret != ETIMEDOUT)
        ret = pthread_cond_clockwait(&moves->changed, &moves->lock, CLOCK_MONOTONIC, &at);
    bool done = move->done;
    pthread_mutex_unlock(&moves->lock);
    return done;
}

/* Whom the time has not sufficed for is not asked any more: that nobody waits for it was said. */
static void begin(struct move *move)
{
    uint64_t now_ns = clock_monotonic_ns();
    if (now_ns >= move->moves->deadline_ns)
        return;
    move->silence_ms = (unsigned)((move->moves->deadline_ns - now_ns) / 1000000 + LATE_MS);
    int ret = thread_start(&move->thread, "switchover", run_move, move, &move->err);
    if (ret < 0) {
        move->ret = ret;
        move->done = true;
        return;
    }
    (void)wait_for(move, now_ns + HEAD_START_MS * 1000000ull);
}

static int say_late(struct move *move)
{
    struct err err = {0};
    const char *name = move->info->name;
    int ret = err_say(&err, ERR_TIMEOUT, ETIMEDOUT, "%s has not gone over within %llu s", name,
                      (unsigned long long)move->moves->timeout_s);
    err_hint(&err, "minivmm status %s says how it stands", name);
    (void)ret;
    return fail(&err);
}

/* Its exit code. */
static int say(struct move *move, bool done)
{
    const char *name = move->info->name;
    if (!done)
        return say_late(move);
    if (move->ret == -EPIPE && move->outcome != GOES) {
        log_info("%s has ended here", name); /* while it was looked at */
        return 0;
    }
    if (move->ret < 0)
        return fail(&move->err);
    if (move->outcome == STAYS)
        log_info("%s is not protected: it stays here", name);
    else if (move->outcome == GOES)
        switched_say(name, move->answer);
    return 0;
}

static int make(struct moves **ret_moves, uint64_t timeout_s, struct err *err)
{
    struct moves *moves = calloc(1, sizeof(*moves));
    int ret = moves ? runtime_list(&moves->infos, &moves->count, err)
                    : err_sys(err, ERR_HOST, ENOMEM, "switchover");
    if (ret == 0) {
        moves->list = calloc(moves->count + 1, sizeof(*moves->list));
        if (!moves->list)
            ret = err_sys(err, ERR_HOST, ENOMEM, "switchover");
    }
    if (ret < 0) {
        if (moves)
            runtime_free_list(moves->infos, moves->count);
        free(moves);
        return ret;
    }
    pthread_mutex_init(&moves->lock, NULL);
    pthread_cond_init(&moves->changed, NULL);
    moves->timeout_s = timeout_s;
    moves->deadline_ns = clock_monotonic_ns() + timeout_s * NS_PER_SEC;
    for (size_t i = 0; i < moves->count; i++)
        moves->list[i] = (struct move){.moves = moves, .info = &moves->infos[i]};
    *ret_moves = moves;
    return 0;
}

/* All are done. */
static void unmake(struct moves *moves)
{
    for (size_t i = 0; i < moves->count; i++) {
        thread_join(&moves->list[i].thread);
        json_decref(moves->list[i].answer);
    }
    runtime_free_list(moves->infos, moves->count);
    pthread_cond_destroy(&moves->changed);
    pthread_mutex_destroy(&moves->lock);
    free(moves->list);
    free(moves);
}

int switch_all(uint64_t timeout_s)
{
    struct moves *moves;
    struct err err = {0};
    int code = 0;
    bool all_done = true;
    if (make(&moves, timeout_s, &err) < 0)
        return fail(&err);
    if (moves->count == 0)
        log_info("no VM runs here");
    for (size_t i = 0; i < moves->count; i++)
        begin(&moves->list[i]);
    for (size_t i = 0; i < moves->count; i++) {
        bool done = wait_for(&moves->list[i], moves->deadline_ns);
        int failed = say(&moves->list[i], done);
        code = code ? code : failed;
        all_done &= done;
    }
    if (all_done)
        unmake(moves);
    return code;
}
