/* SPDX-License-Identifier: MIT */
/* A twin is found, and gets all of the VM while that runs. */
#include "ft/primary_parts.h"

#include "core/clock.h"
#include "core/log.h"
#include "ft/asker.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

enum {
    CONNECT_MS = 10000,
    WELCOME_MS = 60000, /* it makes disks, and asks the witness */
    MOST_ROUNDS = 40,
    THROTTLE_STEP = 10,
    MOST_THROTTLE = 90,
    FEW_BYTES = 4 << 20, /* so little is left for the first epoch's pause */
    MOST_STORES = 8,
    SOON_MS = 250, /* so long its disks take, and little is left for the first epoch */
    CACHE_BYTES = 64 << 20,
};

static_assert(3 * ASKER_LOOK_MS < WELCOME_MS, "so often the twin's side asks, for so long");

/* --- listening -------------------------------------------------------------------------------- */

/* Whether it lets something go or not: one more epoch may leave. */
static void note_ack(struct primary *primary)
{
    struct ft_protocol protocol;
    conductor_look(primary->config.conductor, &protocol);
    epochs_note_acked(&primary->epochs, protocol.acked, clock_monotonic_ns(),
                      link_line_ns(primary->out.link));
    pthread_mutex_lock(&primary->lock);
    primary->acked = protocol.acked;
    pthread_cond_broadcast(&primary->changed);
    pthread_mutex_unlock(&primary->lock);
}

static int hear_synced(struct primary *primary, struct stream_buffer *payload, struct err *err)
{
    uint64_t epoch;
    int ret = resync_get_synced(payload, &epoch, err);
    if (ret == 0 && !primary->keeps) /* else what is noted is another twin's matter */
        changes_note_stored(primary->config.changes, epoch);
    return ret;
}

static int hear_stored(struct primary *primary, struct stream_buffer *payload, struct err *err)
{
    if (stream_get_u32(&payload->stream) != FRAME_STORED)
        return err_say(err, ERR_FAILED, EBADMSG, "a frame ACK of something that was not asked");
    pthread_mutex_lock(&primary->lock);
    primary->stored = true;
    pthread_cond_broadcast(&primary->changed);
    pthread_mutex_unlock(&primary->lock);
    return 0;
}

static int hear(struct primary *primary, struct stream_buffer *payload, struct err *err)
{
    struct ft_event event = {.kind = FT_HEARD, .link = primary->link};
    struct frame frame;
    int ret = moving_read(link_reader(primary->out.link), &frame, payload, NULL, err);
    if (ret == 0 && frame.kind == FRAME_ERROR)
        return moving_get_error(payload, err);
    if (ret == 0 && frame.kind == FRAME_LOOKED)
        return resync_take(primary->resync, payload, err);
    if (ret == 0 && frame.kind == FRAME_SYNCED)
        return hear_synced(primary, payload, err);
    if (ret == 0 && frame.kind == FRAME_ACK)
        return hear_stored(primary, payload, err);
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
    if (conductor_has_hung_up(primary->config.conductor, primary->link))
        err_say(&err, ERR_FAILED, ETIMEDOUT,
                "its twin said nothing, or acknowledged nothing, for too long");
    if (!primary->given_up)
        log_warning("%s is followed no more: %s", instance_config(primary->config.instance)->name,
                    err.text);
    primary->why = err;
    resync_end(primary->resync);
    conductor_tell(primary->config.conductor, &gone);
}

/* --- the beginning ---------------------------------------------------------------------------- */

static int connect_to(struct primary *primary, const struct primary_target *target, struct err *err)
{
    const struct link_config config = {.key = target->key,
                                       .insecure = target->insecure,
                                       .timeout_ms = CONNECT_MS,
                                       .attempt = &primary->attempt};
    const struct link_times times = {.beat_ms = target->following->beat_ms,
                                     .patience_ms = target->following->lost_ms};
    struct link *link;
    int ret = link_connect_paths(&link, target->to, &times, &config, err);
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

/* What the disks have in common with somebody, and what that is called if they have nothing. */
static int name_lineages(struct primary *primary, struct following *following, struct err *err)
{
    struct departure *out = &primary->out;
    int ret = 0;
    for (unsigned i = 0; i < out->disk_count && ret == 0; i++)
        ret = changes_add_disk(primary->config.changes, out->disks[i].disk,
                               out->disks[i].about.place, err);
    if (ret < 0)
        return ret;
    /* What we were told when we followed ourselves may be over by now. */
    if (!changes_lineage(primary->config.changes, following->lineage))
        memset(following->lineage, 0, sizeof(following->lineage));
    if (getrandom(primary->lineage, sizeof(primary->lineage), 0) != sizeof(primary->lineage))
        return err_sys(err, ERR_HOST, errno, "cannot draw a random number");
    memcpy(following->fresh, primary->lineage, sizeof(following->fresh));
    return 0;
}

static int introduce(struct primary *primary, const struct primary_target *target, struct err *err)
{
    struct departure *out = &primary->out;
    struct following following = *target->following;
    struct ft_protocol protocol;
    conductor_look(primary->config.conductor, &protocol);
    following.generation = protocol.record.generation;
    out->at = (struct frame){.generation = protocol.record.generation, .epoch = protocol.sent + 1};
    primary->acked = protocol.sent;
    primary->next = protocol.sent + 1;
    snprintf(following.there, sizeof(following.there), "%s", target->to);
    int ret = name_lineages(primary, &following, err);
    if (ret < 0)
        return ret;
    following_put(link_writer(out->link), &following);
    ret = departure_introduce(out, err);
    return ret < 0 ? ret : departure_open(out, err);
}

/* Nothing is in common with this twin. */
static int begin_anew(struct primary *primary, struct err *err)
{
    bool keeps = false;
    int ret = changes_prepare(primary->config.changes, primary->lineage, &keeps, err);
    primary->keeps = keeps;
    return ret < 0 || keeps ? ret : changes_place(primary->config.changes, err);
}

/* Whether the twin has the disks already, and where they may differ. */
static int hear_base(struct primary *primary, struct err *err)
{
    struct departure *out = &primary->out;
    struct resync_base base = {0};
    struct resync *resync;
    struct frame frame;
    int ret = moving_read(link_reader(out->link), &frame, &out->payload, NULL, err);
    if (ret == 0 && frame.kind == FRAME_ERROR)
        return moving_get_error(&out->payload, err);
    if (ret == 0 && frame.kind != FRAME_BASE)
        ret = err_say(err, ERR_FAILED, EBADMSG, "a frame %s comes where none may",
                      frame_name(frame.kind));
    if (ret == 0)
        ret = resync_get_base(&out->payload, &base, err);
    if (ret == 0)
        ret = resync_create(&resync, &base, err);
    if (ret < 0)
        return ret;
    pthread_mutex_lock(&primary->lock);
    primary->resync = resync;
    pthread_mutex_unlock(&primary->lock);
    primary->fresh = !resync_is_delta(resync);
    primary->keeps = false;
    return primary->fresh ? begin_anew(primary, err) : 0;
}

static int be_followed(struct primary *primary, struct err *err)
{
    struct departure *out = &primary->out;
    struct ft_event event = {.kind = FT_CONNECTED};
    struct link_news news;
    int ret = following_wait_welcome(link_reader(out->link), &out->payload, &event.node,
                                     &event.twin, err);
    if (ret == 0)
        ret = hear_base(primary, err);
    if (ret < 0)
        return ret;
    link_look(out->link, &news);
    event.patient = news.count > 0;
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

static int step_switch(void *ctx, struct err *err)
{
    struct primary *primary = ctx;
    bool runs = machine_runs(primary->machine);
    if (runs)
        machine_pause(primary->machine);
    int ret = changes_switch(primary->config.changes, err);
    if (runs)
        machine_resume(primary->machine);
    if (ret == 0)
        primary->keeps = false;
    return ret;
}

static int step_follow(void *ctx, struct err *err)
{
    struct primary *primary = ctx;
    int ret = departure_follow(&primary->out, err);
    return ret < 0 || !primary->fresh || primary->keeps ? ret : step_switch(ctx, err);
}

/* Soon this twin counts, and the one before it does no more. */
static int switch_lineage(struct primary *primary, struct err *err)
{
    int ret = primary->keeps ? changes_place(primary->config.changes, err) : 0;
    return ret == 0 && primary->keeps ? primary_on_loop(primary, step_switch, err) : ret;
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
    primary_throttle(primary, primary->sync_throttle);
}

static int send_all(struct primary *primary, struct err *err)
{
    if (primary->fresh)
        return departure_send_all(&primary->out, err);
    int ret = resync_send_disks(primary->resync, &primary->out, primary->config.changes, err);
    return ret < 0 ? ret : departure_send_memory(&primary->out, err);
}

/* On a thread of its own, for the sake of who runs the guest: it takes as long as it takes. */
struct filling {
    struct primary *primary;
    struct err *err;
    int ret;
};

static void run_filling(void *arg)
{
    struct filling *filling = arg;
    thread_be_modest();
    departure_adapt(&filling->primary->out, true);
    filling->ret = send_all(filling->primary, filling->err);
    departure_adapt(&filling->primary->out, false);
}

static int send_all_modestly(struct primary *primary, struct err *err)
{
    struct filling filling = {.primary = primary, .err = err};
    struct thread thread = {0};
    int ret = thread_start(&thread, "filling", run_filling, &filling, err);
    thread_join(&thread);
    return ret < 0 ? ret : filling.ret;
}

/* What was written meanwhile, until that is little, or gets no less though the guest hardly runs
 * any more. */
static int send_rounds(struct primary *primary, struct err *err)
{
    uint64_t before = UINT64_MAX, bytes = UINT64_MAX;
    int ret = 0;
    for (unsigned i = 1; ret == 0 && bytes >= FEW_BYTES && i < MOST_ROUNDS; i++) {
        uint64_t sent = primary->out.sent;
        primary->rounds++;
        ret = departure_send_written(&primary->out, false, &bytes, err);
        if (ret == 0)
            ret = flush(primary, err);
        primary->out.total += primary->out.sent - sent;
        if (bytes >= FEW_BYTES && bytes > before - before / 4)
            slow_down(primary);
        before = bytes;
    }
    return ret < 0 ? ret : pages_make_room(&primary->out.pages, bytes / PAGE_SIZE, err);
}

/* All that has been sent is on stable storage over there, and its memory in RAM: the first epoch is
 * waited for with the gate closed, and is not to wait for that. Nor is the guest slowed down for as
 * long as disks take, which may be for ever. */
static int have_stored(struct primary *primary, uint64_t *ret_ns, struct err *err)
{
    uint64_t begin = clock_monotonic_ns();
    primary_throttle(primary, 0);
    pthread_mutex_lock(&primary->lock);
    primary->stored = false;
    primary->stores = true;
    pthread_mutex_unlock(&primary->lock);
    pthread_mutex_lock(primary->out.writing);
    moving_put(link_writer(primary->out.link), FRAME_ROUND, NULL, 0);
    pthread_mutex_unlock(primary->out.writing);
    int ret = flush(primary, err);
    pthread_mutex_lock(&primary->lock);
    while (ret == 0 && !primary->stored && !primary->given_up && !primary->ends)
        pthread_cond_wait(&primary->changed, &primary->lock);
    bool stored = primary->stored;
    primary->stores = false;
    pthread_mutex_unlock(&primary->lock);
    *ret_ns = clock_monotonic_ns() - begin;
    primary_throttle(primary, primary->sync_throttle);
    if (ret == 0 && !stored)
        ret = err_say(err, ERR_STATE, ECANCELED, "nobody is to follow any more");
    return ret;
}

/* All of it, and then what was written meanwhile: also while the twin's disks took it. */
static int send_nearly_all(struct primary *primary, struct err *err)
{
    uint64_t took_ns = UINT64_MAX;
    int ret = send_all_modestly(primary, err);
    departure_set_effort(&primary->out, EFFORT_DELTAS); /* what is sent again */
    primary->rounds = 0;
    for (unsigned i = 0; ret == 0 && took_ns > SOON_MS * 1000000ull && i < MOST_STORES; i++) {
        ret = send_rounds(primary, err);
        if (ret == 0)
            ret = have_stored(primary, &took_ns, err);
    }
    if (ret == 0)
        ret = switch_lineage(primary, err);
    return ret == 0 ? send_rounds(primary, err) : ret;
}

int primary_meet(struct primary *primary, const struct primary_target *target, struct err *err)
{
    int ret = departure_plan(&primary->out, err);
    if (ret == 0)
        ret = departure_plan_disks(&primary->out, err);
    primary->disk_bytes = primary->out.total;
    if (ret == 0)
        ret = connect_to(primary, target, err);
    if (ret == 0)
        ret = introduce(primary, target, err);
    return ret == 0 ? be_followed(primary, err) : ret;
}

int primary_fill(struct primary *primary, struct err *err)
{
    int ret = primary_on_loop(primary, step_follow, err);
    if (ret == 0)
        ret = pages_begin(&primary->out.pages, err);
    if (ret == 0)
        ret = page_cache_create(&primary->out.cache, CACHE_BYTES, err);
    return ret == 0 ? send_nearly_all(primary, err) : ret;
}
