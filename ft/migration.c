/* SPDX-License-Identifier: MIT */
/*
 * A thread of its own does it, straight down; what touches the machine it has done by the main
 * loop, and waits for it.
 */
#include "ft/migration_parts.h"

#include "core/clock.h"
#include "core/log.h"
#include "ft/following.h"
#include "host/key_store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    TICK_MS = 200,
    CONNECT_MS = 10000,
    ASK_MS = 1000,
    ANNOUNCE_MS = 5000, /* only a person waits: the VM runs over there by then */
    DEFAULT_DOWNTIME_MS = 300,
    MOST_ROUNDS = 60,
    FIRST_THROTTLE = 20,
    THROTTLE_STEP = 10,
    MOST_THROTTLE = 99,
    CACHE_BYTES = 64 << 20,
    WORTH_A_ROUND_MS = 2,
};

static const char *vm_name(const struct migration *migration)
{
    return instance_config(migration->instance)->name;
}

/* --- steps on the main loop ------------------------------------------------------------------- */

static int on_loop(struct migration *migration, int (*step)(void *ctx, struct err *err))
{
    int ret = loop_step_do(&migration->step, step, migration, &migration->err);
    if (ret == -ESHUTDOWN && !migration->err.kind)
        err_say(&migration->err, ERR_STATE, ESHUTDOWN, "%s ended before it had moved",
                vm_name(migration));
    return ret;
}

/* What somebody has paused would go on over there. */
static int say_still(const struct migration *migration, struct err *err)
{
    int ret = err_say(err, ERR_STATE, EBUSY, "%s stands still, and only a VM that runs can move",
                      vm_name(migration));
    err_hint(err, "minivmm resume %s", vm_name(migration));
    return ret;
}

static int check_stillness(const struct migration *migration, struct err *err)
{
    return instance_stands_still(migration->instance) ? say_still(migration, err) : 0;
}

static int step_follow(void *ctx, struct err *err)
{
    struct migration *migration = ctx;
    return departure_follow(&migration->out, err);
}

static int step_stop(void *ctx, struct err *err)
{
    struct migration *migration = ctx;
    uint64_t begin = clock_monotonic_ns();
    int still = check_stillness(migration, err);
    if (still < 0)
        return still;
    migration->pause_ns = begin;
    migration->held = true;
    instance_hold_to_leave(migration->instance, "moving");
    if (machine_has_wish(migration->machine)) {
        migration->held = false;
        instance_release(migration->instance);
        return -EAGAIN;
    }
    instance_settings(migration->instance, &migration->settings);
    /* What is under way in the state ends here now, in a pause of which its guest hears nothing,
     * and is done once more over there. */
    int ret = machine_save(migration->machine, &migration->out.state.stream, err);
    for (unsigned i = 0; i < migration->out.disk_count; i++)
        disk_drain(migration->out.disks[i].disk);
    migration->state_ns = clock_monotonic_ns() - begin;
    return ret;
}

static int step_end(void *ctx, struct err *err)
{
    struct migration *migration = ctx;
    migration->moved = true;
    instance_stop(migration->instance, "migration");
    return 0;
}

/* Nothing of it is left; the VM goes on. On the main loop, without the thread. */
static void undo(struct migration *migration)
{
    machine_throttle(migration->machine, 0);
    departure_unfollow(&migration->out);
    if (migration->held && !migration->moved && !migration->step.abandoned)
        instance_release(migration->instance);
    migration->held = false;
}

/* --- the thread ------------------------------------------------------------------------------- */

static int out_of_step(struct err *err)
{
    return err_say(err, ERR_FAILED, EBADMSG, "the other side is out of step");
}

static int wait_for(struct migration *migration, enum frame_ack what, struct err *err)
{
    int ret = moving_wait_ack(link_reader(migration->out.link), &migration->out.payload, err);
    if (ret < 0)
        return ret;
    return ret == (int)what ? 0 : out_of_step(err);
}

static int connect_to(struct migration *migration, struct err *err)
{
    const struct link_config config = {.key = migration->has_key ? &migration->key : NULL,
                                       .insecure = migration->insecure,
                                       .timeout_ms = CONNECT_MS};
    struct link *link;
    int ret = link_connect(&link, migration->to, &config, err);
    if (ret < 0)
        return ret;
    link_set_timeout(link, MOVING_SILENCE_MS);
    pthread_mutex_lock(&migration->lock); /* who stops us breaks it */
    migration->out.link = link;
    if (migration->given_up && !migration->gone)
        link_break(link);
    pthread_mutex_unlock(&migration->lock);
    return 0;
}

/* All that has been sent is stored over there. */
static int end_round(struct migration *migration, struct err *err)
{
    struct stream *stream = link_writer(migration->out.link);
    moving_put(stream, FRAME_ROUND, NULL, 0);
    if (stream_flush(stream) < 0)
        return err_sys(err, ERR_FAILED, -stream_error(stream), "the connection is lost");
    return wait_for(migration, FRAME_STORED, err);
}

static void slow_down(struct migration *migration)
{
    unsigned throttle = migration->throttle ? migration->throttle + THROTTLE_STEP : FIRST_THROTTLE;
    migration->throttle = throttle < MOST_THROTTLE ? throttle : MOST_THROTTLE;
    machine_throttle(migration->machine, migration->throttle);
}

enum { TELLING = 1 << 20 }; /* bytes: from here on their time says something of the connection */

/* What really went over, for zeroes and holes take no time; but where that was next to nothing. */
static uint64_t first_bytes(const struct migration *migration, uint64_t written)
{
    return written > TELLING ? written : migration->out.sent;
}

/*
 * Rounds go on until what is written during one could be sent within the downtime that is asked
 * for, and then for as long as each is less than half of the one before: that downtime is the most
 * somebody bears, not what he wishes for. Where it does not get less, the guest is slowed down more
 * and more.
 */
static int send_rounds(struct migration *migration, struct err *err)
{
    const struct stream *stream = link_writer(migration->out.link);
    uint64_t before = UINT64_MAX, at = clock_monotonic_ns(), position = stream->position;
    int ret = departure_send_all(&migration->out, err);
    if (ret == 0)
        ret = end_round(migration, err);
    /* What is sent more than once may be so again. */
    departure_set_effort(&migration->out, migration->out.encoder.effort);
    double rate = 0; /* bytes a nanosecond */
    for (migration->rounds = 1; ret == 0 && migration->rounds < MOST_ROUNDS; migration->rounds++) {
        uint64_t sent = migration->out.sent, bytes, begin = clock_monotonic_ns();
        if (migration->rounds == 1)
            rate = (double)first_bytes(migration, stream->position - position) /
                   (double)(begin - at + 1);
        ret = departure_send_written(&migration->out, false, &bytes, err);
        if (ret == 0)
            ret = end_round(migration, err);
        uint64_t ns = clock_monotonic_ns() - begin;
        migration->out.total += migration->out.sent - sent;
        if (bytes > TELLING)
            rate = (double)bytes / (double)(ns + 1);
        /* As much is written while the last part is sent as in the round that sent as much. */
        double last_ns = (double)bytes / rate;
        bool fits = last_ns < 0.7 * (double)migration->downtime_ns;
        if (fits && (last_ns < WORTH_A_ROUND_MS * 1e6 || bytes > before / 2))
            break;
        if (bytes > before - before / 4)
            slow_down(migration);
        before = bytes;
    }
    return ret;
}

/* What only this host can answer for, from here on: it asks until it knows. */
static int ask(struct migration *migration, struct err *err)
{
    uint8_t question[2 * MOVING_TICKET];
    memcpy(question, migration->out.hello.ticket, MOVING_TICKET);
    memcpy(question + MOVING_TICKET, migration->handover.place, MOVING_TICKET);
    link_destroy(migration->out.link);
    migration->out.link = NULL;
    int ret = connect_to(migration, err);
    if (ret < 0)
        return ret;
    moving_put(link_writer(migration->out.link), FRAME_ASK, question, sizeof(question));
    if (stream_flush(link_writer(migration->out.link)) < 0)
        return err_say(err, ERR_FAILED, EPIPE, "the connection is lost");
    return moving_wait_ack(link_reader(migration->out.link), &migration->out.payload, err);
}

/* FRAME_YOURS or FRAME_NOT_MINE. 0: the VM ends here, and nobody knows; the mark stays. */
static int find_out(struct migration *migration)
{
    struct err why = {0};
    log_warning("%s was handed over to %s, and the connection is lost: it stands still until it "
                "is known who runs it",
                vm_name(migration), migration->to);
    for (;;) {
        int answer = ask(migration, &why);
        if (answer == FRAME_YOURS || answer == FRAME_NOT_MINE)
            return answer;
        if (loop_step_rest(&migration->step, ASK_MS))
            return 0;
    }
}

static int check_wish(const struct migration *migration, struct err *err)
{
    if (!migration->given_up)
        return 0;
    return migration->stood_still
               ? say_still(migration, err)
               : err_say(err, ERR_FAILED, ECANCELED, "the migration was cancelled");
}

/* From here on nobody can cancel it; or somebody has. */
static int set_gone(struct migration *migration, struct err *err)
{
    pthread_mutex_lock(&migration->lock);
    int ret = check_wish(migration, err);
    migration->gone = ret == 0;
    pthread_mutex_unlock(&migration->lock);
    return ret;
}

/* Both YOURS and the word of the announcement follow a GO, in any order. */
static int wait_after_go(struct migration *migration, enum frame_ack what, struct err *err)
{
    struct stream_buffer *payload = &migration->out.payload;
    for (;;) {
        int ret = moving_wait_ack(link_reader(migration->out.link), payload, err);
        if (ret != FRAME_ANNOUNCED || migration->announced)
            return ret < 0 ? ret : ret == (int)what ? 0 : out_of_step(err);
        ret = moving_get_announced(payload, &migration->announce_us, err);
        migration->announced = ret == 0;
        if (ret < 0 || what == FRAME_ANNOUNCED)
            return ret;
    }
}

/* It runs over there. Who has nothing to say by a network says that at once. */
static void hear_announcement(struct migration *migration)
{
    if (migration->announced)
        return;
    link_set_timeout(migration->out.link, ANNOUNCE_MS);
    (void)!wait_after_go(migration, FRAME_ANNOUNCED, NULL);
}

static int hand_over(struct migration *migration, struct err *err)
{
    int folder = instance_config(migration->instance)->folder->fd;
    uint64_t begin = clock_monotonic_ns();
    int ret = set_gone(migration, err);
    if (ret < 0)
        return ret;
    ret = handover_write(folder, &migration->handover, err);
    if (ret < 0) {
        (void)!handover_remove(folder, NULL); /* it may be there, and not for ever */
        migration->gone = false;
        return ret;
    }
    struct err why = {0};
    moving_put(link_writer(migration->out.link), FRAME_GO, migration->out.hello.ticket,
               MOVING_TICKET);
    ret = stream_flush(link_writer(migration->out.link));
    if (ret == 0)
        ret = wait_after_go(migration, FRAME_YOURS, &why);
    int answer = ret < 0 ? find_out(migration) : FRAME_YOURS;
    if (answer == FRAME_NOT_MINE) {
        migration->gone = false;
        *err = why;
        if (!err->kind)
            err_say(err, ERR_FAILED, EPIPE, "the connection is lost");
        return handover_remove(folder, NULL) < 0 ? -EIO : -EPIPE;
    }
    if (answer != FRAME_YOURS)
        return err_say(err, ERR_STATE, ESHUTDOWN,
                       "%s was handed over to %s, and whether it runs there is not known",
                       vm_name(migration), migration->to);
    migration->resume_ns = clock_monotonic_ns() - begin;
    migration->pause_ns = clock_monotonic_ns() - migration->pause_ns;
    migration->handover.over = true;
    (void)!handover_write(folder, &migration->handover, NULL);
    if (ret == 0)
        hear_announcement(migration);
    return on_loop(migration, step_end);
}

/* What neither vm.json nor the state knows. */
static void send_settings(struct migration *migration)
{
    static const struct instance_settings nothing;
    struct departure *out = &migration->out;
    if (memcmp(&migration->settings, &nothing, sizeof(nothing)) != 0)
        following_put_settings(link_writer(out->link), &out->at, &migration->settings, &out->tally);
}

static int send_last(struct migration *migration, struct err *err)
{
    uint64_t bytes, begin = clock_monotonic_ns();
    migration->out.pages.given_up = NULL;
    link_set_timeout(migration->out.link, migration->verify ? MOVING_SILENCE_MS : MOVING_STILL_MS);
    int ret = departure_send_written(&migration->out, true, &bytes, err);
    if (ret == 0 && migration->verify)
        ret = departure_send_sums(&migration->out, err);
    if (ret == 0) {
        send_settings(migration);
        ret = departure_send_end(&migration->out, err);
    }
    migration->last_ns = clock_monotonic_ns() - begin;
    if (ret == 0)
        ret = wait_for(migration, FRAME_READY, err);
    migration->load_ns = clock_monotonic_ns() - begin - migration->last_ns;
    return ret;
}

static int step_release(void *ctx, struct err *err)
{
    return migration_release(ctx, err);
}

static int step_regain(void *ctx, struct err *err)
{
    return migration_regain(ctx, err);
}

/* Nothing is decided by this: until GO the VM is ours, with its disks or without. */
static int hand_disks_over(struct migration *migration, struct err *err)
{
    uint64_t begin = clock_monotonic_ns();
    if (migration->shared_count == 0)
        return 0;
    int ret = on_loop(migration, step_release);
    if (ret < 0)
        return ret;
    moving_put(link_writer(migration->out.link), FRAME_RELEASED, NULL, 0);
    if (stream_flush(link_writer(migration->out.link)) < 0)
        return err_say(err, ERR_FAILED, EPIPE, "the connection is lost");
    ret = wait_for(migration, FRAME_OPENED, err);
    migration->disks_ns = clock_monotonic_ns() - begin;
    return ret;
}

/*
 * The VM stays here, and needs its disks. The other side closes them when it hears that we are
 * gone; a host that is gone itself loses its locks, sooner or later, by what its file system does
 * about that.
 */
static void take_disks_back(struct migration *migration)
{
    enum { TRY_MS = 20, PATIENT_TRIES = 100 };
    struct err why = {0};
    pthread_mutex_lock(&migration->lock);
    if (migration->out.link)
        link_break(migration->out.link);
    pthread_mutex_unlock(&migration->lock);
    for (unsigned tries = 1;; tries++) {
        int ret = loop_step_do(&migration->step, step_regain, migration, &why);
        if (ret == 0 || ret == -ESHUTDOWN)
            return;
        if (tries == PATIENT_TRIES) {
            err_prefix(&why, "%s stands still until it has its disks again", vm_name(migration));
            log_err(LOG_WARNING, &why);
        }
        if (loop_step_rest(&migration->step, TRY_MS))
            return;
    }
}

static int move(struct migration *migration, struct err *err)
{
    uint64_t begin = clock_monotonic_ns();
    int ret = departure_plan(&migration->out, err);
    if (ret == 0)
        ret = migration->shared_disk ? migration_plan_shared(migration, err)
                                     : departure_plan_disks(&migration->out, err);
    if (ret == 0)
        ret = connect_to(migration, err);
    if (ret == 0)
        ret = departure_introduce(&migration->out, err);
    if (ret == 0) {
        migration_send_shared(migration);
        ret = departure_open(&migration->out, err);
    }
    if (ret == 0)
        ret = moving_wait_welcome(link_reader(migration->out.link), &migration->out.payload,
                                  migration->handover.place, err);
    if (ret == 0) {
        memcpy(migration->handover.ticket, migration->out.hello.ticket, MOVING_TICKET);
        memcpy(migration->handover.to, migration->to, sizeof(migration->handover.to));
        memcpy(migration->handover.name, migration->out.hello.name,
               sizeof(migration->out.hello.name));
        migration_unmark(migration);
    }
    if (ret == 0)
        ret = on_loop(migration, step_follow);
    if (ret == 0)
        ret = pages_begin(&migration->out.pages, err);
    if (ret == 0 && migration->compress)
        ret = page_cache_create(&migration->out.cache, CACHE_BYTES, err);
    if (ret == 0)
        ret = send_rounds(migration, err);
    if (ret == 0)
        migration_sync_shared(migration);
    migration->rounds_ns = clock_monotonic_ns() - begin;
    if (ret == 0)
        ret = check_wish(migration, err);
    while (ret == 0 && (ret = on_loop(migration, step_stop)) == -EAGAIN)
        ret = 0; /* the guest was just being reset, or is about to end */
    if (ret == 0)
        ret = send_last(migration, err);
    if (ret == 0)
        ret = hand_disks_over(migration, err);
    return ret == 0 ? hand_over(migration, err) : ret;
}

/* What we could not send any more the other side did not want: it has said why, and hung up. */
static void hear_why(struct migration *migration)
{
    enum { HEAR_MS = 2000 };
    struct err theirs = {0};
    if (!migration->out.link || migration->gone ||
        stream_error(link_writer(migration->out.link)) == 0)
        return;
    link_set_timeout(migration->out.link, HEAR_MS);
    if (moving_wait_ack(link_reader(migration->out.link), &migration->out.payload, &theirs) ==
        -EREMOTEIO)
        migration->err = theirs;
}

static void run(void *arg)
{
    struct migration *migration = arg;
    int ret = move(migration, &migration->err);
    if (ret < 0 && !migration->gone && check_wish(migration, &migration->err) == 0)
        hear_why(migration);
    if (ret < 0 && migration->released && !migration->gone)
        take_disks_back(migration);
    if (ret < 0 && !migration->err.kind)
        err_say(&migration->err, ERR_FAILED, EIO, "the migration failed");
    loop_post(instance_loop(migration->instance), &migration->end_call);
}

/* --- the end ---------------------------------------------------------------------------------- */

static double ms(uint64_t ns)
{
    return (double)ns / 1e6;
}

static json_t *describe(const struct migration *migration)
{
    json_t *facts = json_pack(
        "{ss, sI, sI, sf, sf, sf, sf, sf, sf, sf, sI, sb}", "to", migration->to, "rounds",
        (json_int_t)migration->rounds, "bytes", (json_int_t)migration->out.sent, "rounds_ms",
        ms(migration->rounds_ns), "downtime_ms", ms(migration->pause_ns), "state_ms",
        ms(migration->state_ns), "last_ms", ms(migration->last_ns), "load_ms",
        ms(migration->load_ns), "disks_ms", ms(migration->disks_ns), "resume_ms",
        ms(migration->resume_ns), "throttle", (json_int_t)migration->throttle, "too_long",
        (int)(migration->pause_ns > migration->downtime_ns));
    if (facts && migration->announced)
        json_object_set_new(facts, "announce_ms",
                            migration->announce_us == MOVING_UNHEARD
                                ? json_null()
                                : json_real((double)migration->announce_us / 1e3));
    return facts;
}

static void clear(struct migration *migration)
{
    loop_timer_cancel(&migration->tick);
    migration_unmark(migration);
    undo(migration);
    departure_finish(&migration->out);
    explicit_bzero(&migration->key, sizeof(migration->key));
}

static void handle_end(void *arg)
{
    struct migration *migration = arg;
    if (!migration->thread.started)
        return;
    thread_join(&migration->thread);
    migration->thread.started = false;
    struct control_request *request = migration->request;
    bool moved = migration->moved;
    json_t *answer = moved ? describe(migration) : NULL;
    clear(migration);
    migration->request = NULL;
    if (!moved)
        log_warning("%s did not move to %s, and goes on here: %s", vm_name(migration),
                    migration->to, migration->err.text);
    control_answer(request, answer, moved ? NULL : &migration->err);
}

/* Whatever it waits for. False: it is too late. */
static bool stop_thread(struct migration *migration)
{
    pthread_mutex_lock(&migration->lock);
    bool late = migration->gone;
    migration->given_up |= !late;
    if (!late && migration->out.link)
        link_break(migration->out.link);
    pthread_mutex_unlock(&migration->lock);
    if (!late)
        departure_abort(&migration->out);
    return !late;
}

/* Its disks stand still with it, and whoever wants to read there would wait until it is resumed. */
static void look_for_pause(struct migration *migration)
{
    if (migration->held || migration->given_up || !instance_stands_still(migration->instance))
        return;
    migration->stood_still = true;
    (void)stop_thread(migration);
}

static void handle_tick(void *arg)
{
    struct migration *migration = arg;
    look_for_pause(migration);
    uint64_t total = migration->out.total + migration->out.pages.touched * PAGE_SIZE;
    if (!control_is_awaited(migration->request) && !migration->given_up)
        log_info("%s moves on, though nobody waits for it any more", vm_name(migration));
    control_event(instance_control(migration->instance), "migrate-progress",
                  json_pack("{sI, sI, sI, sI}", "done", (json_int_t)migration->out.sent, "total",
                            (json_int_t)(total < migration->out.sent ? migration->out.sent : total),
                            "round", (json_int_t)migration->rounds, "throttle",
                            (json_int_t)migration->throttle));
    if (loop_timer_arm(&migration->tick, clock_monotonic_ns() + TICK_MS * 1000000ull) < 0)
        log_warning("%s: no memory for a timer", vm_name(migration));
}

/* --- the verbs -------------------------------------------------------------------------------- */

static int take_flag(const json_t *arguments, const char *key, bool *ret_flag, struct err *err)
{
    const json_t *value = json_object_get(arguments, key);
    *ret_flag = json_is_true(value);
    return value && !json_is_boolean(value)
               ? err_say(err, ERR_USAGE, EINVAL, "migrate: \"%s\" is true or false", key)
               : 0;
}

static int take_arguments(struct migration *migration, const json_t *arguments, struct err *err)
{
    static const char *const keys[] = {"to",       "key",    "insecure",    "downtime_ms",
                                       "compress", "verify", "shared_disk", NULL};
    const char *to = json_string_value(json_object_get(arguments, "to"));
    const char *key = json_string_value(json_object_get(arguments, "key"));
    const json_t *downtime = json_object_get(arguments, "downtime_ms");
    char path[PATH_MAX];
    int ret = control_check_keys(arguments, keys, err);
    if (ret < 0)
        return ret;
    if (!to || strlen(to) >= sizeof(migration->to))
        return err_say(err, ERR_USAGE, EINVAL, "migrate: \"to\" is HOST or HOST:PORT");
    if (downtime && (!json_is_integer(downtime) || json_integer_value(downtime) < 1 ||
                     json_integer_value(downtime) > 3600000))
        return err_say(err, ERR_USAGE, EINVAL,
                       "migrate: \"downtime_ms\" is a number from 1 to 3600000");
    memcpy(migration->to, to, strlen(to) + 1);
    uint64_t wanted = downtime ? (uint64_t)json_integer_value(downtime) : DEFAULT_DOWNTIME_MS;
    migration->downtime_ns = wanted * 1000000;
    ret = take_flag(arguments, "insecure", &migration->insecure, err);
    if (ret == 0)
        ret = take_flag(arguments, "compress", &migration->compress, err);
    if (ret == 0)
        ret = take_flag(arguments, "verify", &migration->verify, err);
    if (ret == 0)
        ret = take_flag(arguments, "shared_disk", &migration->shared_disk, err);
    if (ret == 0 && !key && !migration->insecure) {
        ret = key_store_for(path, to, err);
        key = path[0] ? path : NULL;
    }
    migration->has_key = key;
    return ret == 0 && key ? link_key_read(&migration->key, key, err) : ret;
}

static void set_up(struct migration *migration)
{
    migration->err = (struct err){0};
    departure_init(&migration->out, migration->instance, &migration->given_up,
                   migration->compress ? EFFORT_LZ4 : EFFORT_NONE);
    migration->handover = (struct handover){0};
    migration->given_up = migration->gone = migration->stood_still = false;
    migration->held = migration->released = migration->announced = false;
    migration->disks_ns = 0;
    migration->shared_count = 0;
    migration->rounds = migration->throttle = 0;
}

int migration_begin(struct migration *migration, struct control_request *request,
                    const json_t *arguments, struct err *err)
{
    int ret = take_arguments(migration, arguments, err);
    if (ret < 0)
        return ret;
    if (!instance_config(migration->instance)->folder)
        return err_say(err, ERR_STATE, ENOTSUP, "%s runs without a folder that could move",
                       vm_name(migration));
    if (instance_has_ephemeral(migration->instance))
        return err_say(err, ERR_STATE, ENOTSUP, "%s has an ephemeral disk, which does not go along",
                       vm_name(migration));
    ret = check_stillness(migration, err);
    if (ret < 0)
        return ret;
    set_up(migration);
    ret = loop_timer_arm(&migration->tick, 0);
    if (ret == 0)
        ret = thread_start(&migration->thread, "migration", run, migration, err);
    if (ret < 0) {
        clear(migration);
        return ret;
    }
    migration->request = request;
    control_defer(request);
    return 0;
}

int migration_cancel(struct migration *migration, struct err *err)
{
    if (!migration->request)
        return err_say(err, ERR_STATE, EALREADY, "%s is not moving", vm_name(migration));
    if (!stop_thread(migration))
        return err_say(err, ERR_STATE, EALREADY, "%s was handed over already: it is too late",
                       vm_name(migration));
    return 0;
}

bool migration_is_under_way(const struct migration *migration)
{
    return migration->request;
}

bool migration_has_moved(const struct migration *migration)
{
    return migration->moved;
}

/* --- life ------------------------------------------------------------------------------------- */

int migration_create(struct migration **ret_migration, struct instance *instance, struct err *err)
{
    struct migration *migration = calloc(1, sizeof(*migration));
    if (!migration)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot make room for a migration");
    migration->instance = instance;
    migration->machine = instance_machine(instance);
    migration->end_call = (struct loop_call){.handle = handle_end, .arg = migration};
    pthread_mutex_init(&migration->lock, NULL);
    loop_step_init(&migration->step, instance_loop(instance));
    loop_timer_init(&migration->tick, instance_loop(instance), handle_tick, migration);
    *ret_migration = migration;
    return 0;
}

void migration_abandon(struct migration *migration)
{
    if (!migration->request)
        return;
    loop_step_abandon(&migration->step);
    (void)stop_thread(migration);
    thread_join(&migration->thread);
    migration->thread.started = false;
    json_t *answer = migration->moved ? describe(migration) : NULL;
    if (!migration->moved && (!migration->gone || !migration->err.kind))
        err_say(&migration->err, ERR_STATE, ESHUTDOWN, "%s ended before it had moved",
                vm_name(migration));
    struct control_request *request = migration->request;
    clear(migration);
    migration->request = NULL;
    control_answer(request, answer, migration->moved ? NULL : &migration->err);
}

void migration_destroy(struct migration *migration)
{
    if (!migration)
        return;
    loop_step_finish(&migration->step);
    pthread_mutex_destroy(&migration->lock);
    free(migration);
}
