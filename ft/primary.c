/* SPDX-License-Identifier: MIT */
/*
 * One thread sends, straight down; one listens. What touches the machine the sender has done by the
 * main loop, and waits for it.
 */
#include "ft/primary_parts.h"

#include <errno.h>
#include <stdlib.h>

int primary_on_loop(struct primary *primary, int (*step)(void *ctx, struct err *err),
                    struct err *err)
{
    int ret = loop_step_do(&primary->step, step, primary, err);
    if (ret == -ESHUTDOWN)
        err_say(err, ERR_STATE, ESHUTDOWN, "%s ended",
                instance_config(primary->config.instance)->name);
    return ret;
}

void primary_throttle(struct primary *primary, unsigned percent)
{
    primary->slowed = percent;
    machine_throttle(primary->machine, percent);
}

/* --- the other threads ------------------------------------------------------------------------ */

static void set_flag(struct primary *primary, bool *flag)
{
    pthread_mutex_lock(&primary->lock);
    *flag = true;
    pthread_cond_broadcast(&primary->changed);
    pthread_mutex_unlock(&primary->lock);
}

void primary_sync(struct primary *primary)
{
    set_flag(primary, &primary->synced);
}

bool primary_gate(struct primary *primary)
{
    pthread_mutex_lock(&primary->lock);
    bool follows = primary->synced && !primary->given_up;
    primary->gated |= follows;
    pthread_mutex_unlock(&primary->lock);
    return follows;
}

void primary_release(struct primary *primary, uint64_t epoch)
{
    outbox_release(primary->config.outbox, epoch);
}

void primary_press(struct primary *primary, enum epoch_cause cause)
{
    pthread_mutex_lock(&primary->lock);
    if (!primary->pressed) {
        primary->pressed = cause;
        pthread_cond_broadcast(&primary->changed);
    }
    pthread_mutex_unlock(&primary->lock);
}

uint64_t primary_press_set(struct primary *primary)
{
    primary_press(primary, EPOCH_SET);
    return primary->next;
}

void primary_press_soon(struct primary *primary)
{
    uint64_t soon = clock_monotonic_ns() + PRIMARY_SOON_US * 1000ull;
    pthread_mutex_lock(&primary->lock);
    if (!primary->soon_ns) {
        primary->soon_ns = soon;
        pthread_cond_broadcast(&primary->changed);
    }
    pthread_mutex_unlock(&primary->lock);
}

static void handle_disk(void *ctx)
{
    primary_press(ctx, EPOCH_DISK);
}

void primary_give_up(struct primary *primary)
{
    pthread_mutex_lock(&primary->lock);
    primary->given_up = true;
    link_attempt_call_off(&primary->attempt);
    if (primary->breakable)
        link_break(primary->breakable);
    departure_abort(&primary->out);
    resync_end(primary->resync);
    pthread_cond_broadcast(&primary->changed);
    pthread_mutex_unlock(&primary->lock);
}

/* What is on its way is finished, and the connection is not ours to break. */
void primary_unsync(struct primary *primary)
{
    pthread_mutex_lock(&primary->lock);
    primary->unsynced = true;
    primary->given_up = true;
    departure_abort(&primary->out);
    resync_end(primary->resync);
    pthread_cond_broadcast(&primary->changed);
    pthread_mutex_unlock(&primary->lock);
}

void primary_hand_over(struct primary *primary)
{
    set_flag(primary, &primary->hands);
}

void primary_go_on(struct primary *primary)
{
    pthread_mutex_lock(&primary->lock);
    primary->handed = false;
    pthread_cond_broadcast(&primary->changed);
    pthread_mutex_unlock(&primary->lock);
}

void primary_abandon(struct primary *primary)
{
    set_flag(primary, &primary->abandoned);
    loop_step_abandon(&primary->step); /* who wakes up by that knows why */
    primary_give_up(primary);
}

bool primary_end_guest(struct primary *primary)
{
    pthread_mutex_lock(&primary->lock);
    bool sends = primary->gated && !primary->given_up;
    primary->owes_end = sends;
    primary->ends = true;
    pthread_cond_broadcast(&primary->changed);
    pthread_mutex_unlock(&primary->lock);
    loop_step_abandon(&primary->step); /* who wakes up by that knows why */
    return sends;
}

/* --- all of it -------------------------------------------------------------------------------- */

static int follow(struct primary *primary, const struct primary_target *target, struct err *err)
{
    int ret = primary_meet(primary, target, err);
    if (ret == 0)
        ret = primary_fill(primary, err);
    return ret == 0 ? primary_send_epochs(primary, err) : ret;
}

/* The disks' taps are closed while nothing moves. */
static int step_unfollow(void *ctx, struct err *err)
{
    struct primary *primary = ctx;
    bool runs = machine_runs(primary->machine);
    if (runs)
        machine_pause(primary->machine);
    primary_throttle(primary, 0);
    machine_brake(primary->machine, 0);
    replica_disk_unfollow(primary->replica);
    departure_unfollow(&primary->out);
    if (runs)
        machine_resume(primary->machine);
    return 0;
}

static void clear(struct primary *primary)
{
    /* What was said last may still be on its way: the other side hangs up, or we are given up. */
    if (primary->out.link && !primary->unsynced)
        link_break(primary->out.link);
    thread_join(&primary->listener);
    primary->listener.started = false;
    pthread_mutex_lock(&primary->lock);
    primary->breakable = NULL;
    struct resync *resync = primary->resync;
    primary->resync = NULL;
    pthread_mutex_unlock(&primary->lock);
    resync_destroy(resync);
    if (primary->link)
        conductor_detach(primary->config.conductor);
    primary->link = 0;
    if (primary_on_loop(primary, step_unfollow, NULL) == -ESHUTDOWN)
        step_unfollow(primary, NULL); /* the main loop's thread waits for us */
    departure_finish(&primary->out);
}

/* It went wrong here: neither by the line, nor by who is at its other end, nor as it was wished.
 * Who was woken up only because that has ended does not know why. */
static bool is_our_fault(struct primary *primary, int ret)
{
    struct departure *out = &primary->out;
    if (ret == 0 || ret == -ECANCELED || primary->given_up || !out->link)
        return false;
    pthread_mutex_lock(out->writing);
    bool is_line_good = stream_error(link_writer(out->link)) == 0;
    pthread_mutex_unlock(out->writing);
    return is_line_good;
}

void primary_begin_anew(struct primary *primary)
{
    pthread_mutex_lock(&primary->lock);
    primary->given_up = primary->abandoned;
    if (!primary->abandoned)
        link_attempt_renew(&primary->attempt);
    pthread_mutex_unlock(&primary->lock);
}

int primary_follow(struct primary *primary, const struct primary_target *target, struct err *err)
{
    const struct ft_event off = {.kind = FT_GUEST_OFF};
    pthread_mutex_lock(&primary->lock);
    departure_init(&primary->out, primary->config.instance, &primary->given_up, EFFORT_NONE);
    primary->synced = primary->unsynced = primary->gated = false;
    primary->hands = primary->handed = false;
    primary->pressed = 0;
    primary->soon_ns = 0;
    primary->sync_bytes = 0;
    primary->sync_throttle = 0;
    primary->told_settings = (struct instance_settings){0};
    pthread_mutex_unlock(&primary->lock);
    primary->why = (struct err){0};
    primary->verify = target->verify;
    primary->compared = 0;
    int ret = follow(primary, target, err);
    bool is_ours = is_our_fault(primary, ret);
    if (is_ours)
        primary_give_up(primary); /* the other side has nothing to say to this */
    clear(primary);
    if (!is_ours && primary->why.kind && err) /* who reads knows better than who writes */
        *err = primary->why;
    pthread_mutex_lock(&primary->lock);
    bool owes_end = primary->owes_end;
    primary->synced = primary->gated = primary->owes_end = false;
    pthread_mutex_unlock(&primary->lock);
    if (owes_end) /* it never came to that epoch */
        conductor_tell(primary->config.conductor, &off);
    return ret;
}

/* --- for people ------------------------------------------------------------------------------- */

void primary_look(struct primary *primary, struct primary_news *ret_news)
{
    pthread_mutex_lock(&primary->lock);
    enum pace_reason reason = primary->gated ? primary->reason : PACE_FREE;
    if (reason == PACE_FREE && primary->slowed > 0)
        reason = PACE_MEMORY;
    *ret_news = (struct primary_news){
        .syncs = primary->synced && !primary->gated,
        .stores = primary->synced && !primary->gated && primary->stores,
        .sent = primary->out.sent,
        .total = primary->out.total + primary->out.pages.touched * PAGE_SIZE,
        .rounds = primary->rounds,
        .sync_bytes = primary->sync_bytes,
        .resync = primary->last,
        .total_resyncs = primary->total,
        .throttle = primary->slowed,
        .reason = epoch_pace_reason_name(reason),
    };
    pthread_mutex_unlock(&primary->lock);
    ret_news->held_bytes = outbox_held(primary->config.outbox) +
                           replica_disk_held(primary->replica);
}

uint64_t primary_moved(const struct primary *primary)
{
    return primary->out.sent;
}

struct epochs *primary_epochs(struct primary *primary)
{
    return &primary->epochs;
}

/* --- life ------------------------------------------------------------------------------------- */

int primary_create(struct primary **ret_primary, const struct primary_config *config,
                   struct err *err)
{
    struct primary *primary = calloc(1, sizeof(*primary));
    if (!primary)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot begin fault tolerance");
    const struct replica_disk_config replica = {
        .budget = REPLICA_LEAST, .presses = handle_disk, .ctx = primary};
    primary->config = *config;
    primary->machine = instance_machine(config->instance);
    pthread_mutex_init(&primary->lock, NULL);
    pthread_cond_init(&primary->changed, NULL);
    link_attempt_init(&primary->attempt);
    loop_step_init(&primary->step, instance_loop(config->instance));
    int ret = replica_disk_create(&primary->replica, &replica, err);
    if (ret == 0)
        ret = epochs_init(&primary->epochs, err);
    if (ret < 0) {
        primary_destroy(primary);
        return ret;
    }
    *ret_primary = primary;
    return 0;
}

void primary_destroy(struct primary *primary)
{
    if (!primary)
        return;
    epochs_finish(&primary->epochs);
    replica_disk_destroy(primary->replica);
    loop_step_finish(&primary->step);
    link_attempt_finish(&primary->attempt);
    pthread_cond_destroy(&primary->changed);
    pthread_mutex_destroy(&primary->lock);
    free(primary);
}
