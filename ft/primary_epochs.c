/* SPDX-License-Identifier: MIT */
/* Epochs: wait, capture, send, again and again. */
#include "ft/primary_parts.h"

#include "core/clock.h"
#include "core/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum {
    MANY_PAGES = 512, /* so many in an epoch: some of the next one's leave before its pause */
    DEFAULT_MIN_US = 250,
    DEFAULT_MAX_US = 50000,
    DEFAULT_PERCENT = 20,
};

/* --- epochs ----------------------------------------------------------------------------------- */

static void note_settings(struct primary *primary)
{
    instance_settings(primary->config.instance, &primary->settings);
    primary->next = primary->out.at.epoch + 1;
}

/* What is under way in the disks was not begun under the replica's eyes: there is nothing. */
static void handle_first_moment(void *ctx)
{
    struct primary *primary = ctx;
    struct departure *out = &primary->out;
    struct ft_protocol protocol;
    for (unsigned i = 0; i < out->disk_count; i++)
        if (replica_disk_follow(primary->replica, out->disks[i].disk, out->disks[i].about.place,
                                NULL) < 0)
            primary_give_up(primary);
    primary_verify_plan(primary);
    departure_unfollow_disks(out);
    changes_cut(primary->config.changes, out->at.epoch, true);
    note_settings(primary);
    primary_verify_moment(primary);
    outbox_hold(primary->config.outbox, out->at.epoch + 1, PRIMARY_OUTBOX);
    /* The twin may have been lost since the gate, and its end settled: nobody would open this. */
    conductor_look(primary->config.conductor, &protocol);
    if (!ft_protocol_is_gated(&protocol))
        outbox_open(primary->config.outbox);
}

static void handle_moment(void *ctx)
{
    struct primary *primary = ctx;
    note_settings(primary);
    primary_verify_moment(primary);
    outbox_mark(primary->config.outbox, primary->out.at.epoch + 1);
    replica_disk_cut(primary->replica);
    changes_cut(primary->config.changes, primary->out.at.epoch, false);
}

static void handle_still(void *ctx)
{
    primary_verify_still(ctx);
}

static int capture(struct primary *primary, void (*moment)(void *ctx), bool runs, struct err *err)
{
    struct capture capture = {.machine = primary->machine,
                              .runs = runs,
                              .ends = primary->ends,
                              .pages = &primary->out.pages,
                              .state = &primary->out.state,
                              .still = handle_still,
                              .moment = moment,
                              .ctx = primary};
    capture.state->length = 0;
    int ret = capture_take(&capture, err);
    primary->times = capture.times;
    return ret;
}

static int step_hold(void *ctx, struct err *err)
{
    struct primary *primary = ctx;
    instance_hold(primary->config.instance, "being paired");
    for (unsigned i = 0; i < primary->out.disk_count; i++)
        disk_drain(primary->out.disks[i].disk);
    return 0;
}

static int step_first(void *ctx, struct err *err)
{
    struct primary *primary = ctx;
    return capture(primary, handle_first_moment, false, err);
}

static int step_release(void *ctx, struct err *err)
{
    struct primary *primary = ctx;
    instance_release(primary->config.instance);
    return 0;
}

static int step_epoch(void *ctx, struct err *err)
{
    struct primary *primary = ctx;
    return capture(primary, handle_moment, machine_runs(primary->machine), err);
}

/* The last one, if it can be handed over: it does not go on here. */
static int step_last(void *ctx, struct err *err)
{
    struct primary *primary = ctx;
    instance_hold_to_leave(primary->config.instance, "being handed over");
    int ret = capture(primary, handle_moment, false, err);
    if (ret < 0)
        instance_release(primary->config.instance);
    return ret;
}

static int put_block(void *ctx, const struct moving_block *block, struct err *err)
{
    return departure_put_block(ctx, block, err);
}

static void note_capture(struct primary *primary, uint64_t began, enum epoch_cause cause)
{
    const struct capture_times *times = &primary->times;
    const struct epoch_record record = {
        .epoch = primary->out.at.epoch,
        .began_ns = began,
        .pause_ns = times->all_ns,
        .stop_ns = times->pause_ns,
        .state_ns = times->state_ns,
        .pages_ns = times->pages_ns,
        .resume_ns = times->resume_ns,
        .line_ns = link_line_ns(primary->out.link),
        .pages = primary->early + primary->out.pages.captured,
        .disk_bytes = replica_disk_held(primary->replica),
        .held_bytes = outbox_held(primary->config.outbox),
        .cause = cause,
        .effort = primary->out.encoder.effort,
    };
    const struct ft_event event = {.kind = FT_CAPTURED, .epoch = record.epoch};
    epochs_add(&primary->epochs, &record);
    conductor_tell(primary->config.conductor, &event);
}

/* Words, too. */
static uint64_t bytes_written(struct departure *out)
{
    pthread_mutex_lock(out->writing);
    uint64_t position = link_writer(out->link)->position;
    pthread_mutex_unlock(out->writing);
    return position;
}

/* A link that does not take it says so at the epoch's end. */
static void send_settings(struct primary *primary)
{
    struct departure *out = &primary->out;
    if (memcmp(&primary->settings, &primary->told_settings, sizeof(primary->settings)) == 0)
        return;
    pthread_mutex_lock(out->writing);
    following_put_settings(link_writer(out->link), &out->at, &primary->settings, &out->tally);
    pthread_mutex_unlock(out->writing);
    primary->told_settings = primary->settings;
}

/* What was to be compared, and cannot be, is not sent as if it were. */
static int say_unsummed(const struct primary *primary, struct err *err)
{
    if (!primary->unsummed.kind)
        return 0;
    if (err)
        *err = primary->unsummed;
    return -EIO;
}

/* What was captured leaves; the next frames are of the next epoch. */
static int send_epoch(struct primary *primary, struct err *err)
{
    const struct replica_disk_sink sink = {.put = put_block, .ctx = &primary->out};
    struct departure *out = &primary->out;
    uint64_t begin = clock_monotonic_ns(), position = bytes_written(out);
    uint64_t kinds[PAGE_ENCODINGS];
    memcpy(kinds, out->encoder.counts, sizeof(kinds));
    int ret = say_unsummed(primary, err);
    if (ret == 0)
        ret = pages_rest(&out->pages, err);
    if (ret == 0)
        ret = replica_disk_send(primary->replica, &sink, err);
    if (ret == 0) {
        send_settings(primary);
        ret = departure_send_end(out, err);
    }
    for (unsigned i = 0; i < PAGE_ENCODINGS; i++)
        kinds[i] = out->encoder.counts[i] - kinds[i];
    primary->sent_bytes = bytes_written(out) - position;
    epochs_note_sent(&primary->epochs, out->at.epoch, clock_monotonic_ns() - begin,
                     primary->sent_bytes, kinds);
    out->at.epoch++;
    out->tally = (struct frame_tally){0};
    return ret;
}

static uint64_t ns_of(unsigned ms, unsigned otherwise_us)
{
    return ms ? ms * 1000000ull : otherwise_us * 1000ull;
}

static void begin_pace(struct primary *primary)
{
    const struct primary_config *config = &primary->config;
    const struct epoch_pace_config pace = {
        .min_ns = ns_of(config->min_ms, DEFAULT_MIN_US),
        .max_ns = ns_of(config->max_ms, DEFAULT_MAX_US),
        .pause_percent = config->pause_percent ? config->pause_percent : DEFAULT_PERCENT,
        .throttle = primary->sync_throttle,
    };
    epoch_pace_init(&primary->pace, &pace);
    primary->brake_ns = 0;
    primary->pace.judged = primary->out.at.epoch - 1;
}

static void note_resync(struct primary *primary)
{
    struct primary_resync resync = {.done = true,
                                    .delta = !primary->fresh,
                                    .sent_bytes = primary->out.block_bytes,
                                    .marked_bytes = primary->resync->marked,
                                    .sum_bytes = primary->resync->sums,
                                    .disk_bytes = primary->disk_bytes};
    snprintf(resync.why, sizeof(resync.why), "%s", primary->resync->base.why);
    pthread_mutex_lock(&primary->lock);
    primary->last = resync;
    primary->total.deltas += resync.delta;
    primary->total.copies += !resync.delta;
    primary->total.sent_bytes += resync.sent_bytes;
    pthread_mutex_unlock(&primary->lock);
    log_info("%s: its twin got %llu KiB of %llu KiB of disks%s%s",
             instance_config(primary->config.instance)->name,
             (unsigned long long)resync.sent_bytes >> 10,
             (unsigned long long)resync.disk_bytes >> 10,
             resync.delta ? ", what differs: it had the rest" : ": ", resync.why);
}

static int send_first(struct primary *primary, struct err *err)
{
    const struct ft_event synced = {.kind = FT_SYNCED, .link = primary->link};
    uint64_t bytes, begin = clock_monotonic_ns();
    conductor_tell(primary->config.conductor, &synced);
    pthread_mutex_lock(&primary->lock);
    bool gated = primary->gated;
    pthread_mutex_unlock(&primary->lock);
    if (!gated)
        return err_say(err, ERR_STATE, ECANCELED, "nobody is to follow any more");
    int ret, released;
    do { /* each time all that was written: it runs in between */
        ret = primary_on_loop(primary, step_hold, err);
        if (ret < 0)
            return ret;
        ret = departure_send_written(&primary->out, true, &bytes, err);
        if (ret == 0)
            ret = primary_on_loop(primary, step_first, err);
        released = primary_on_loop(primary, step_release, err);
    } while (ret == -EAGAIN && released == 0);
    if (ret < 0 || released < 0)
        return ret < 0 ? ret : released;
    primary->times.all_ns = clock_monotonic_ns() - begin;
    note_capture(primary, begin, EPOCH_FIRST);
    begin_pace(primary);
    primary->sync_bytes = primary->out.sent;
    note_resync(primary);
    return send_epoch(primary, err);
}

/* When the next one is, and why, if nothing else comes. */
static uint64_t due_of(struct primary *primary, uint64_t began, enum epoch_cause *ret_cause)
{
    const struct epoch_pace *pace = &primary->pace;
    uint64_t pause = primary->times.all_ns, soon = primary->soon_ns;
    uint64_t due = epoch_pace_due(pace, began, pause, primary->pressed != 0, &primary->reason);
    *ret_cause = primary->pressed ? primary->pressed : EPOCH_TIME;
    /* The pause is to be at that time, and what leaves before it begins as much earlier. */
    if (due > began + 2 * primary->early_ns)
        due -= primary->early_ns;
    if (primary->pressed || !soon || soon >= due)
        return due;
    *ret_cause = EPOCH_OUTPUT;
    due = epoch_pace_due(pace, began, pause, true, &primary->reason);
    return soon > due ? soon : due;
}

enum next { NEXT_EPOCH, NEXT_LAST, NEXT_OFF, NEXT_END };

static enum next next_of(struct primary *primary, uint64_t began, enum epoch_cause *ret_cause)
{
    enum next next = NEXT_EPOCH;
    pthread_mutex_lock(&primary->lock);
    for (;;) {
        bool full = primary->out.at.epoch > primary->acked + PRIMARY_AHEAD;
        uint64_t due = due_of(primary, began, ret_cause);
        if (full)
            primary->reason = PACE_TWIN;
        if (primary->given_up || primary->abandoned)
            next = NEXT_END;
        else if (primary->ends)
            next = NEXT_OFF;
        else if (primary->hands)
            next = NEXT_LAST;
        else if (primary->handed) { /* that was the last one, unless it runs again */
            pthread_cond_wait(&primary->changed, &primary->lock);
            continue;
        } else if (full || clock_monotonic_ns() < due) {
            const struct timespec at = clock_timespec(due);
            if (full)
                pthread_cond_wait(&primary->changed, &primary->lock);
            else
                (void)pthread_cond_clockwait(&primary->changed, &primary->lock, CLOCK_MONOTONIC,
                                             &at);
            continue;
        }
        break;
    }
    primary->pressed = 0;
    primary->soon_ns = 0;
    pthread_mutex_unlock(&primary->lock);
    return next;
}

/* Where an epoch writes much, much of it is written early, and stays as it is: that need not be
 * copied while the guest stands still. */
static int send_early(struct primary *primary, struct err *err)
{
    uint64_t begin = clock_monotonic_ns();
    bool many = primary->early + primary->out.pages.captured > MANY_PAGES &&
                epoch_pace_sends_early(&primary->pace);
    primary->early = 0;
    int ret = many ? pages_round(&primary->out.pages, &primary->early, err) : 0;
    primary->early_ns = many ? clock_monotonic_ns() - begin : 0;
    return ret;
}

/* What the epochs that were acknowledged say about the next ones. The last one began then. */
static void judge(struct primary *primary, uint64_t began)
{
    struct epoch_record record;
    pthread_mutex_lock(&primary->lock);
    uint64_t acked = primary->acked;
    pthread_mutex_unlock(&primary->lock);
    uint64_t now = clock_monotonic_ns(), brake = primary->brake_ns;
    uint64_t until = primary->unbrake_ns < now ? primary->unbrake_ns : now;
    uint64_t braked = brake && until > brake ? until - brake : 0;
    primary->slowed = epoch_pace_slowed(&primary->pace, braked, now - began);
    while (primary->pace.judged < acked &&
           epochs_find(&primary->epochs, primary->pace.judged + 1, &record))
        epoch_pace_judge(&primary->pace, &record);
    if (primary->out.encoder.effort != primary->pace.effort)
        departure_set_effort(&primary->out, primary->pace.effort);
    machine_throttle(primary->machine, primary->pace.throttle);
}

/* What it writes while the line is busy is the next epoch, which takes as much longer. How much
 * leaves is known when it has left. */
static int send_limited(struct primary *primary, struct err *err)
{
    uint64_t bytes = primary->out.pages.captured * PAGE_SIZE + replica_disk_held(primary->replica);
    uint64_t leave = epoch_pace_leave_ns(&primary->pace, bytes);
    primary->brake_ns = leave ? clock_monotonic_ns() + leave : 0;
    primary->unbrake_ns = UINT64_MAX;
    machine_brake(primary->machine, primary->brake_ns);
    int ret = send_epoch(primary, err);
    if (leave && epoch_pace_leave_ns(&primary->pace, primary->sent_bytes) == 0) {
        primary->unbrake_ns = clock_monotonic_ns();
        machine_brake(primary->machine, 0);
    }
    return ret;
}

static int take_epoch(struct primary *primary, uint64_t *began, enum epoch_cause cause,
                      struct err *err)
{
    judge(primary, *began);
    int ret = send_early(primary, err);
    *began = clock_monotonic_ns();
    if (ret == 0)
        ret = primary_on_loop(primary, step_epoch, err);
    if (ret == -EAGAIN)
        return 0; /* the guest is just being reset */
    if (ret < 0)
        return ret;
    note_capture(primary, *began, cause);
    ret = send_limited(primary, err);
    return ret < 0 ? ret : pages_make_room(&primary->out.pages, primary->out.pages.captured, err);
}

static int take_last(struct primary *primary, struct err *err)
{
    const struct ft_event handed = {.kind = FT_HANDED};
    uint64_t began = clock_monotonic_ns();
    int ret = primary_on_loop(primary, step_last, err);
    if (ret < 0)
        return ret == -EAGAIN ? 0 : ret;
    pthread_mutex_lock(&primary->lock);
    primary->hands = false;
    primary->handed = true;
    pthread_mutex_unlock(&primary->lock);
    note_capture(primary, began, EPOCH_LAST);
    ret = send_epoch(primary, err);
    conductor_tell(primary->config.conductor, &handed);
    return ret;
}

/* The main loop's thread waits for this, so that the machine is ours. */
static int take_end(struct primary *primary, struct err *err)
{
    const struct ft_event off = {.kind = FT_GUEST_OFF};
    uint64_t began = clock_monotonic_ns();
    int ret = capture(primary, handle_moment, false, err);
    if (ret == 0) {
        note_capture(primary, began, EPOCH_LAST);
        ret = send_epoch(primary, err);
    }
    pthread_mutex_lock(&primary->lock);
    primary->owes_end = false;
    pthread_mutex_unlock(&primary->lock);
    conductor_tell(primary->config.conductor, &off);
    return ret;
}

/* From here on everything waits for the twin, until there is none. */
static int send_epochs(struct primary *primary, struct err *err)
{
    enum epoch_cause cause;
    uint64_t began = clock_monotonic_ns();
    bool over = false;
    int ret = 0;
    while (ret == 0 || (ret == -ESHUTDOWN && primary->ends)) {
        switch (next_of(primary, began, &cause)) {
        case NEXT_EPOCH:
            ret = take_epoch(primary, &began, cause, err);
            break;
        case NEXT_LAST:
            ret = take_last(primary, err);
            break;
        case NEXT_OFF:
            ret = over ? 0 : take_end(primary, err);
            over = true;
            pthread_mutex_lock(&primary->lock);
            while (!primary->given_up && !primary->abandoned)
                pthread_cond_wait(&primary->changed, &primary->lock);
            pthread_mutex_unlock(&primary->lock);
            break;
        case NEXT_END:
            return ret;
        }
    }
    return ret;
}

int primary_send_epochs(struct primary *primary, struct err *err)
{
    int ret = send_first(primary, err);
    return ret == 0 ? send_epochs(primary, err) : ret;
}
