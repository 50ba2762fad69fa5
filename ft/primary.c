/* SPDX-License-Identifier: MIT */
/*
 * One thread sends, straight down; one listens. What touches the machine the sender has done by the
 * main loop, and waits for it.
 */
#include "ft/primary.h"

#include "core/clock.h"
#include "core/log.h"
#include "ft/capture.h"
#include "ft/departure.h"
#include "ft/epoch_pace.h"
#include "ft/following.h"
#include "ft/loop_step.h"
#include "ft/replica_disk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    CONNECT_MS = 10000,
    WELCOME_MS = 60000, /* it makes disks, and asks the witness */
    MOST_ROUNDS = 40,
    THROTTLE_STEP = 10,
    MOST_THROTTLE = 90,
    FEW_BYTES = 4 << 20, /* so little is left for the first epoch's pause */
    AHEAD = 2,           /* epochs that are not acknowledged */
    MANY_PAGES = 512,    /* so many in an epoch: some of the next one's leave before its pause */
    CACHE_BYTES = 64 << 20,
    DEFAULT_MIN_MS = 1,
    DEFAULT_MAX_MS = 50,
    DEFAULT_PERCENT = 20,
};

struct primary {
    struct primary_config config;
    struct machine *machine;
    struct departure out;
    struct replica_disk *replica;
    struct epochs epochs;
    struct thread listener;
    struct loop_step step;
    uint64_t link; /* its number; 0: not attached */
    struct capture_times times;
    struct epoch_pace pace;
    uint64_t node, sync_bytes;
    unsigned sync_throttle; /* percent */
    atomic_uint rounds;

    atomic_bool given_up; /* also the departure's */
    pthread_mutex_t lock; /* all of this, and whether out.link may be broken */
    pthread_cond_t changed;
    bool synced, unsynced, gated, hands, handed, ends, abandoned;
    bool owes_end;            /* FT_GUEST_OFF, to the protocol */
    enum epoch_cause pressed; /* 0: nobody waits */
    enum pace_reason reason;
    uint64_t acked; /* epochs */
    struct link *breakable;
};

static int on_loop(struct primary *primary, int (*step)(void *ctx, struct err *err),
                   struct err *err)
{
    int ret = loop_step_do(&primary->step, step, primary, err);
    if (ret == -ESHUTDOWN)
        err_say(err, ERR_STATE, ESHUTDOWN, "%s ended",
                instance_config(primary->config.instance)->name);
    return ret;
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

static void handle_disk(void *ctx)
{
    primary_press(ctx, EPOCH_DISK);
}

void primary_give_up(struct primary *primary)
{
    pthread_mutex_lock(&primary->lock);
    primary->given_up = true;
    if (primary->breakable)
        link_break(primary->breakable);
    departure_abort(&primary->out);
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

/* --- listening -------------------------------------------------------------------------------- */

/* Whether it lets something go or not: one more epoch may leave. */
static void note_ack(struct primary *primary)
{
    struct ft_protocol protocol;
    conductor_look(primary->config.conductor, &protocol);
    epochs_note_acked(&primary->epochs, protocol.acked, clock_monotonic_ns());
    pthread_mutex_lock(&primary->lock);
    primary->acked = protocol.acked;
    pthread_cond_broadcast(&primary->changed);
    pthread_mutex_unlock(&primary->lock);
}

static int hear(struct primary *primary, struct stream_buffer *payload, struct err *err)
{
    struct ft_event event = {.kind = FT_HEARD, .link = primary->link};
    struct frame frame;
    int ret = moving_read(link_reader(primary->out.link), &frame, payload, NULL, err);
    if (ret == 0 && frame.kind == FRAME_ERROR)
        return moving_get_error(payload, err);
    if (ret == 0 && frame.kind != FRAME_WORD)
        ret = err_say(err, ERR_FAILED, EBADMSG, "a frame %s comes where none may",
                      frame_name(frame.kind));
    if (ret == 0)
        ret = following_get_word(payload, &event.word, err);
    if (ret == 0) /* who waited for the line now would be deaf, and take the twin for dead */
        conductor_post(primary->config.conductor, &event);
    if (ret == 0 && event.word.kind == FT_ACK)
        note_ack(primary);
    return ret;
}

/* The end of it is told once, by who reads. */
static void run_listener(void *arg)
{
    struct primary *primary = arg;
    const struct ft_event gone = {.kind = FT_DISCONNECTED, .link = primary->link};
    struct stream_buffer payload;
    struct err err = {0};
    stream_buffer_init(&payload, 0);
    while (hear(primary, &payload, &err) == 0)
        continue;
    stream_buffer_finish(&payload);
    if (!primary->given_up)
        log_warning("%s is followed no more: %s", instance_config(primary->config.instance)->name,
                    err.text);
    conductor_tell(primary->config.conductor, &gone);
}

/* --- the beginning ---------------------------------------------------------------------------- */

static int connect_to(struct primary *primary, const struct primary_target *target, struct err *err)
{
    const struct link_config config = {
        .key = target->key, .insecure = target->insecure, .timeout_ms = CONNECT_MS};
    struct link *link;
    int ret = link_connect(&link, target->to, &config, err);
    if (ret < 0)
        return ret;
    link_set_timeout(link, WELCOME_MS);
    pthread_mutex_lock(&primary->lock);
    primary->out.link = primary->breakable = link;
    if (primary->given_up)
        link_break(link);
    pthread_mutex_unlock(&primary->lock);
    return 0;
}

static int introduce(struct primary *primary, const struct primary_target *target, struct err *err)
{
    struct departure *out = &primary->out;
    struct following following = *primary->config.following;
    struct ft_protocol protocol;
    conductor_look(primary->config.conductor, &protocol);
    following.generation = protocol.record.generation;
    out->at = (struct frame){.generation = protocol.record.generation, .epoch = protocol.sent + 1};
    primary->acked = protocol.sent;
    snprintf(following.there, sizeof(following.there), "%s", target->to);
    following_put(link_writer(out->link), &following);
    int ret = departure_introduce(out, err);
    return ret < 0 ? ret : departure_open(out, err);
}

static int be_followed(struct primary *primary, struct err *err)
{
    struct departure *out = &primary->out;
    struct ft_event event = {.kind = FT_CONNECTED};
    int ret = following_wait_welcome(link_reader(out->link), &out->payload, &event.node,
                                     &event.twin, err);
    if (ret < 0)
        return ret;
    primary->node = event.node;
    link_set_timeout(out->link, 0); /* from here on the protocol says who is gone */
    primary->link = event.link = conductor_attach(primary->config.conductor, out->link);
    out->writing = conductor_writing(primary->config.conductor);
    conductor_tell(primary->config.conductor, &event);
    pthread_mutex_lock(&primary->lock);
    bool taken = primary->synced;
    pthread_mutex_unlock(&primary->lock);
    return taken ? thread_start(&primary->listener, "listener", run_listener, primary, err)
                 : err_say(err, ERR_STATE, EBUSY, "nobody may follow just now");
}

static int step_follow(void *ctx, struct err *err)
{
    struct primary *primary = ctx;
    return departure_follow(&primary->out, err);
}

static int flush(struct primary *primary, struct err *err)
{
    struct stream *stream = link_writer(primary->out.link);
    pthread_mutex_lock(primary->out.writing);
    int ret = stream_flush(stream);
    pthread_mutex_unlock(primary->out.writing);
    return ret < 0 ? err_sys(err, ERR_FAILED, -ret, "the connection is lost") : 0;
}

/* What a guest writes faster than it can be sent would all be left for the first epoch's pause. */
static void slow_down(struct primary *primary)
{
    if (primary->sync_throttle < MOST_THROTTLE)
        primary->sync_throttle += THROTTLE_STEP;
    machine_throttle(primary->machine, primary->sync_throttle);
}

/* All of it, and then what was written meanwhile, until that is little, or gets no less though the
 * guest hardly runs any more. */
static int send_rounds(struct primary *primary, struct err *err)
{
    uint64_t before = UINT64_MAX, bytes = 0;
    int ret = departure_send_all(&primary->out, err);
    /* Who looks for what has changed in a page looks twice. */
    primary->out.encoder.cache = primary->out.cache;
    primary->out.sink.copies = false;
    for (primary->rounds = 1; ret == 0 && primary->rounds < MOST_ROUNDS; primary->rounds++) {
        uint64_t sent = primary->out.sent;
        ret = departure_send_written(&primary->out, false, &bytes, err);
        if (ret == 0)
            ret = flush(primary, err);
        primary->out.total += primary->out.sent - sent;
        if (bytes < FEW_BYTES)
            break;
        if (bytes > before - before / 4)
            slow_down(primary);
        before = bytes;
    }
    return ret < 0 ? ret : pages_make_room(&primary->out.pages, bytes / PAGE_SIZE, err);
}

/* --- epochs ----------------------------------------------------------------------------------- */

/* A link that does not take it says so to whoever sends next. */
static void send_sums(struct primary *primary)
{
    if (primary->config.verify)
        (void)!departure_send_memory_sums(&primary->out, NULL);
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
    departure_unfollow_disks(out);
    send_sums(primary);
    outbox_hold(primary->config.outbox, out->at.epoch + 1, PRIMARY_OUTBOX);
    /* The twin may have been lost since the gate, and its end settled: nobody would open this. */
    conductor_look(primary->config.conductor, &protocol);
    if (!ft_protocol_is_gated(&protocol))
        outbox_open(primary->config.outbox);
}

static void handle_moment(void *ctx)
{
    struct primary *primary = ctx;
    send_sums(primary);
    outbox_mark(primary->config.outbox, primary->out.at.epoch + 1);
    replica_disk_cut(primary->replica);
}

static int capture(struct primary *primary, void (*moment)(void *ctx), bool runs, struct err *err)
{
    struct capture capture = {.machine = primary->machine,
                              .runs = runs,
                              .ends = primary->ends,
                              .pages = &primary->out.pages,
                              .state = &primary->out.state,
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
    instance_hold(primary->config.instance, "being handed over");
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
        .pages = primary->out.pages.captured,
        .disk_bytes = replica_disk_held(primary->replica),
        .held_bytes = outbox_held(primary->config.outbox),
        .cause = cause,
        .compressed = primary->out.encoder.compress,
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

/* What was captured leaves; the next frames are of the next epoch. */
static int send_epoch(struct primary *primary, struct err *err)
{
    const struct replica_disk_sink sink = {.put = put_block, .ctx = &primary->out};
    struct departure *out = &primary->out;
    uint64_t begin = clock_monotonic_ns(), position = bytes_written(out);
    uint64_t kinds[PAGE_ENCODINGS];
    memcpy(kinds, out->encoder.counts, sizeof(kinds));
    int ret = pages_rest(&out->pages, err);
    if (ret == 0)
        ret = replica_disk_send(primary->replica, &sink, err);
    if (ret == 0)
        ret = departure_send_end(out, err);
    for (unsigned i = 0; i < PAGE_ENCODINGS; i++)
        kinds[i] = out->encoder.counts[i] - kinds[i];
    epochs_note_sent(&primary->epochs, out->at.epoch, clock_monotonic_ns() - begin,
                     bytes_written(out) - position, kinds);
    out->at.epoch++;
    out->tally = (struct frame_tally){0};
    return ret;
}

static uint64_t ns_of(unsigned ms, unsigned otherwise)
{
    return (ms ? ms : otherwise) * 1000000ull;
}

static void begin_pace(struct primary *primary)
{
    const struct primary_config *config = &primary->config;
    const struct epoch_pace_config pace = {
        .min_ns = ns_of(config->min_ms, DEFAULT_MIN_MS),
        .max_ns = ns_of(config->max_ms, DEFAULT_MAX_MS),
        .pause_percent = config->pause_percent ? config->pause_percent : DEFAULT_PERCENT,
    };
    epoch_pace_init(&primary->pace, &pace);
    primary->pace.judged = primary->out.at.epoch - 1;
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
        ret = on_loop(primary, step_hold, err);
        if (ret < 0)
            return ret;
        ret = departure_send_written(&primary->out, true, &bytes, err);
        if (ret == 0)
            ret = on_loop(primary, step_first, err);
        released = on_loop(primary, step_release, err);
    } while (ret == -EAGAIN && released == 0);
    if (ret < 0 || released < 0)
        return ret < 0 ? ret : released;
    primary->times.all_ns = clock_monotonic_ns() - begin;
    note_capture(primary, begin, EPOCH_FIRST);
    begin_pace(primary);
    machine_throttle(primary->machine, 0); /* from here on the pace does that */
    primary->sync_bytes = primary->out.sent;
    return send_epoch(primary, err);
}

enum next { NEXT_EPOCH, NEXT_LAST, NEXT_OFF, NEXT_END };

static enum next next_of(struct primary *primary, uint64_t began, enum epoch_cause *ret_cause)
{
    enum next next = NEXT_EPOCH;
    pthread_mutex_lock(&primary->lock);
    for (;;) {
        bool full = primary->out.at.epoch > primary->acked + AHEAD;
        uint64_t due = epoch_pace_due(&primary->pace, began, primary->times.all_ns,
                                      primary->pressed != 0, &primary->reason);
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
            const struct timespec at = {.tv_sec = (time_t)(due / NS_PER_SEC),
                                        .tv_nsec = (long)(due % NS_PER_SEC)};
            if (full)
                pthread_cond_wait(&primary->changed, &primary->lock);
            else
                (void)pthread_cond_clockwait(&primary->changed, &primary->lock, CLOCK_MONOTONIC,
                                             &at);
            continue;
        }
        break;
    }
    *ret_cause = primary->pressed ? primary->pressed : EPOCH_TIME;
    primary->pressed = 0;
    pthread_mutex_unlock(&primary->lock);
    return next;
}

/* Where an epoch writes much, much of it is written early, and stays as it is: that need not be
 * copied while the guest stands still. */
static int send_early(struct primary *primary, struct err *err)
{
    uint64_t found;
    return primary->out.pages.captured > MANY_PAGES ? pages_round(&primary->out.pages, &found, err)
                                                    : 0;
}

/* What the epochs that were acknowledged say about the next ones. */
static void judge(struct primary *primary)
{
    struct epoch_record record;
    pthread_mutex_lock(&primary->lock);
    uint64_t acked = primary->acked;
    pthread_mutex_unlock(&primary->lock);
    unsigned throttle = primary->pace.throttle;
    while (primary->pace.judged < acked &&
           epochs_find(&primary->epochs, primary->pace.judged + 1, &record))
        epoch_pace_judge(&primary->pace, &record);
    primary->out.encoder.compress = primary->pace.compress;
    if (primary->pace.throttle != throttle)
        machine_throttle(primary->machine, primary->pace.throttle);
}

static int take_epoch(struct primary *primary, uint64_t *began, enum epoch_cause cause,
                      struct err *err)
{
    judge(primary);
    int ret = send_early(primary, err);
    *began = clock_monotonic_ns();
    if (ret == 0)
        ret = on_loop(primary, step_epoch, err);
    if (ret == -EAGAIN)
        return 0; /* the guest is just being reset */
    if (ret < 0)
        return ret;
    note_capture(primary, *began, cause);
    ret = send_epoch(primary, err);
    return ret < 0 ? ret : pages_make_room(&primary->out.pages, primary->out.pages.captured, err);
}

static int take_last(struct primary *primary, struct err *err)
{
    const struct ft_event handed = {.kind = FT_HANDED};
    uint64_t began = clock_monotonic_ns();
    int ret = on_loop(primary, step_last, err);
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

/* --- all of it -------------------------------------------------------------------------------- */

static int follow(struct primary *primary, const struct primary_target *target, struct err *err)
{
    int ret = departure_plan(&primary->out, err);
    if (ret == 0)
        ret = departure_plan_disks(&primary->out, err);
    if (ret == 0)
        ret = connect_to(primary, target, err);
    if (ret == 0)
        ret = introduce(primary, target, err);
    if (ret == 0)
        ret = be_followed(primary, err);
    if (ret == 0)
        ret = on_loop(primary, step_follow, err);
    if (ret == 0)
        ret = pages_begin(&primary->out.pages, err);
    if (ret == 0)
        ret = page_cache_create(&primary->out.cache, CACHE_BYTES, err);
    if (ret == 0)
        ret = send_rounds(primary, err);
    if (ret == 0)
        ret = send_first(primary, err);
    return ret == 0 ? send_epochs(primary, err) : ret;
}

/* The disks' taps are closed while nothing moves. */
static int step_unfollow(void *ctx, struct err *err)
{
    struct primary *primary = ctx;
    bool runs = machine_runs(primary->machine);
    if (runs)
        machine_pause(primary->machine);
    machine_throttle(primary->machine, 0);
    replica_disk_unfollow(primary->replica);
    departure_unfollow(&primary->out);
    if (runs)
        machine_resume(primary->machine);
    return 0;
}

static void clear(struct primary *primary)
{
    pthread_mutex_lock(&primary->lock);
    primary->breakable = NULL;
    pthread_mutex_unlock(&primary->lock);
    /* What was said last may still be on its way, and the other side hangs up. */
    if (primary->out.link && !primary->unsynced)
        link_break(primary->out.link);
    thread_join(&primary->listener);
    primary->listener.started = false;
    if (primary->link)
        conductor_detach(primary->config.conductor);
    primary->link = 0;
    if (on_loop(primary, step_unfollow, NULL) == -ESHUTDOWN)
        step_unfollow(primary, NULL); /* the main loop's thread waits for us */
    departure_finish(&primary->out);
}

int primary_follow(struct primary *primary, const struct primary_target *target, struct err *err)
{
    const struct ft_event off = {.kind = FT_GUEST_OFF};
    pthread_mutex_lock(&primary->lock);
    departure_init(&primary->out, primary->config.instance, &primary->given_up, false);
    primary->synced = primary->unsynced = primary->gated = false;
    primary->hands = primary->handed = false;
    primary->pressed = 0;
    primary->sync_bytes = 0;
    primary->sync_throttle = 0;
    primary->given_up = primary->abandoned;
    pthread_mutex_unlock(&primary->lock);
    int ret = follow(primary, target, err);
    clear(primary);
    pthread_mutex_lock(&primary->lock);
    bool owes_end = primary->owes_end;
    primary->gated = primary->owes_end = false;
    pthread_mutex_unlock(&primary->lock);
    if (owes_end) /* it never came to that epoch */
        conductor_tell(primary->config.conductor, &off);
    return ret;
}

/* --- for people ------------------------------------------------------------------------------- */

void primary_look(struct primary *primary, struct primary_news *ret_news)
{
    pthread_mutex_lock(&primary->lock);
    *ret_news = (struct primary_news){
        .syncs = primary->synced && !primary->gated,
        .sent = primary->out.sent,
        .total = primary->out.total + primary->out.pages.touched * PAGE_SIZE,
        .node = primary->node,
        .rounds = primary->rounds,
        .sync_bytes = primary->sync_bytes,
        .throttle = primary->pace.throttle,
        .reason = epoch_pace_reason_name(primary->gated ? primary->reason : PACE_FREE),
    };
    pthread_mutex_unlock(&primary->lock);
    ret_news->held_bytes = outbox_held(primary->config.outbox) +
                           replica_disk_held(primary->replica);
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
    pthread_cond_destroy(&primary->changed);
    pthread_mutex_destroy(&primary->lock);
    free(primary);
}
