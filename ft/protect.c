/* SPDX-License-Identifier: MIT */
#include "ft/protect_parts.h"

#include "core/clock.h"
#include "core/log.h"
#include "ft/arrival_base.h"
#include "ft/arrival_parts.h"
#include "ft/asker.h"
#include "host/disk_point.h"
#include "host/key_store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    BEAT_MS = 50,
    ADAPTING_BEAT_MS = 10,
    ADAPTING_LOST_MS = 500,
    FADE_MS = 1000,
    WATCH_MS = 2000,
    MS = 1000000,
};

static const struct instance_config *vm_of(const struct protect *protect)
{
    return instance_config(protect->instance);
}

/* --- the protocol's actions ------------------------------------------------------------------- */

void protect_set(struct protect *protect, bool *flag)
{
    pthread_mutex_lock(&protect->lock);
    *flag = true;
    pthread_cond_broadcast(&protect->changed);
    pthread_mutex_unlock(&protect->lock);
    loop_post(instance_loop(protect->instance), &protect->turn);
}

/* Said once, and in the status for as long as it is so. */
static void say_strange(struct protect *protect, const struct ft_record *record)
{
    struct err err = {0};
    int ret = err_say(&err, ERR_STATE, ESTALE,
                      "the witness says generation %llu, and there was a newer one already: its "
                      "records were lost, or an old copy of them was brought back",
                      (unsigned long long)record->generation);
    (void)ret;
    pthread_mutex_lock(&protect->lock);
    bool news = strcmp(protect->strange.text, err.text) != 0;
    protect->strange = err;
    pthread_mutex_unlock(&protect->lock);
    if (news)
        log_warning("%s: %s", vm_of(protect)->name, err.text);
}

static void forget_strange(struct protect *protect)
{
    pthread_mutex_lock(&protect->lock);
    protect->strange = (struct err){0};
    pthread_mutex_unlock(&protect->lock);
}

static void end(struct protect *protect)
{
    if (protect->secondary)
        secondary_end(protect->secondary);
    protect->over = true;
    protect_set(protect, &protect->ends);
}

/* Under the conductor's lock. */
static void act(void *ctx, const struct ft_action *action)
{
    struct protect *protect = ctx;
    switch (action->kind) {
    case FT_RUN:
        if (protect->primary)
            primary_go_on(protect->primary);
        protect_set(protect, &protect->runs);
        break;
    case FT_SYNC:
        primary_sync(protect->primary);
        loop_post(instance_loop(protect->instance), &protect->turn); /* its progress is told */
        break;
    case FT_UNSYNC:
        primary_unsync(protect->primary);
        break;
    case FT_GATE:
        if (!protect->primary || !primary_gate(protect->primary))
            protect_set(protect, &protect->holds);
        break;
    case FT_RELEASE:
        primary_release(protect->primary, action->epoch);
        if (protect->shares)
            loop_post(instance_loop(protect->instance), &protect->turn);
        break;
    case FT_OPEN:
        forget_strange(protect);
        if (protect->outbox) /* else it has not run yet, and never was held */
            outbox_open(protect->outbox);
        break;
    case FT_STOP:
        if (protect->outbox)
            outbox_shut(protect->outbox);
        break;
    case FT_END:
        end(protect);
        break;
    case FT_APPLY:
        secondary_apply(protect->secondary);
        break;
    case FT_APPLY_LAST:
        secondary_apply_last(protect->secondary);
        break;
    case FT_TAKE_OVER:
        secondary_take_over(protect->secondary);
        break;
    case FT_STRANGE:
        say_strange(protect, &action->record);
        break;
    default:
        break; /* the conductor's own */
    }
}

/* Under the conductor's lock. */
static void handle_leash(void *ctx, uint64_t until_ns)
{
    struct protect *protect = ctx;
    struct outbox *outbox = protect->outbox;
    if (outbox) /* else it does not run yet */
        outbox_leash(outbox, until_ns);
}

/* Under the conductor's lock, or that of a link's paths. */
static void handle_state(void *ctx)
{
    struct protect *protect = ctx;
    loop_post(instance_loop(protect->instance), &protect->turn);
}

static bool handle_busy(void *ctx)
{
    struct protect *protect = ctx;
    return protect->secondary && secondary_is_busy(protect->secondary);
}

static uint64_t handle_moved(void *ctx)
{
    const struct protect *protect = ctx;
    return protect->primary ? primary_moved(protect->primary) : 0;
}

static int handle_persist(void *ctx, const struct ft_record *record, struct err *err)
{
    struct protect *protect = ctx;
    struct ft_protocol protocol;
    conductor_look(protect->conductor, &protocol);
    pthread_mutex_lock(&protect->lock);
    struct protection saved = protect->saved;
    if (ft_protocol_is_gated(&protocol) && record->twin) {
        saved.peer_node = protocol.node;
        if (protect->trying[0]) { /* it may be another one than before */
            snprintf(saved.peer, sizeof(saved.peer), "%s", protect->trying);
            memcpy(saved.key, protect->trying_key, sizeof(saved.key));
        }
    }
    saved.generation = record->generation;
    saved.role = record->owner == saved.node ? PROTECTION_OWNER : PROTECTION_TWIN;
    pthread_mutex_unlock(&protect->lock);
    int ret = protection_write(vm_of(protect)->folder->fd, &saved, err);
    if (ret < 0)
        return ret;
    pthread_mutex_lock(&protect->lock);
    protect->saved.generation = saved.generation;
    protect->saved.peer_node = saved.peer_node;
    memcpy(protect->saved.peer, saved.peer, sizeof(saved.peer));
    memcpy(protect->saved.key, saved.key, sizeof(saved.key));
    protect->saved.role = saved.role;
    pthread_mutex_unlock(&protect->lock);
    return 0;
}

/* --- its parts -------------------------------------------------------------------------------- */

/* One heartbeat of seven may be late before silence means something. */
static uint32_t find_beat_ms(const struct definition_ft *ft)
{
    uint32_t fits = ft->timeout_ms * 2 / 15;
    if (ft->heartbeat_ms)
        return ft->heartbeat_ms;
    if (!ft->timeout_ms)
        return ADAPTING_BEAT_MS;
    return fits < BEAT_MS ? fits : BEAT_MS;
}

static void fill_times(struct protect *protect)
{
    const struct definition_ft *ft = &vm_of(protect)->definition->ft;
    bool adapts = !ft->timeout_ms;
    protect->following.adapts = adapts;
    protect->following.beat_ms = find_beat_ms(ft);
    uint32_t most_ms = protect->following.beat_ms * 10;
    protect->following.lost_ms = ft->timeout_ms;
    if (adapts)
        protect->following.lost_ms = most_ms > ADAPTING_LOST_MS ? most_ms : ADAPTING_LOST_MS;
}

/* Who follows gives the other one up after this silence, where it is at its shortest. */
static uint64_t find_shortest_ns(const struct following *following)
{
    uint64_t lost = following->lost_ms * (uint64_t)MS,
             beats = following->beat_ms * (uint64_t)MS * 13 / 2;
    return following->adapts && beats < lost ? beats : lost;
}

/* And where that is at its longest. */
static uint64_t find_longest_ns(const struct following *following)
{
    return following->lost_ms * (uint64_t)MS * (following->adapts ? 4 : 1);
}

/* Who runs it gives the twin up before the twin takes over. That, gap_ns and away_ns stand to each
 * other as in the simulator (tests/sim); the other times there are near to these proportions, and
 * short: patience only doubles, and a question has four thirds of lost_ns, not twice that. */
struct ft_config protect_config(const struct protect *protect)
{
    uint64_t lost = protect->following.lost_ms * (uint64_t)MS,
             shortest = find_shortest_ns(&protect->following),
             longest = find_longest_ns(&protect->following);
    uint64_t ask = 2 * lost > 2000ull * MS ? 2 * lost : 2000ull * MS,
             watch = WATCH_MS * (uint64_t)MS;
    return (struct ft_config){
        .node = protect->saved.node,
        .beat_ns = protect->following.beat_ms * (uint64_t)MS,
        .lost_ns = lost * 2 / 3,
        .swift_ns = shortest * 2 / 3,
        .slow_ns = longest * 2 / 3,
        .fade_ns = FADE_MS * (uint64_t)MS,
        .stall_ns = 4 * lost,
        .ask_ns = ask,
        .retry_ns = lost / 2,
        .gap_ns = lost / 2,
        .away_ns = lost * 5 / 3,
        .yield_ns = 3 * lost,
        .watch_ns = watch,
        .forced_ns = watch + 2 * ask + lost * 2,
    };
}

int protect_conduct(struct protect *protect, const struct ft_protocol *protocol, struct err *err)
{
    struct conductor_config config = {.witness = protect->saved.witness,
                                      .act = act,
                                      .leash = handle_leash,
                                      .changed = handle_state,
                                      .persist = handle_persist,
                                      .is_busy = handle_busy,
                                      .moved = handle_moved,
                                      .paths_changed = handle_state,
                                      .ctx = protect};
    memcpy(config.uuid, vm_of(protect)->identity->uuid, sizeof(config.uuid));
    return conductor_create(&protect->conductor, &config, protocol, err);
}

static void handle_waits(void *ctx, bool urgent)
{
    struct protect *protect = ctx;
    if (protect->primary && urgent)
        primary_press(protect->primary, EPOCH_OUTPUT);
    else if (protect->primary)
        primary_press_soon(protect->primary);
}

static int make_outbox(struct protect *protect, struct err *err)
{
    struct outbox *outbox;
    int ret = outbox_create(&outbox, protect->instance, handle_waits, protect, err);
    if (ret == 0)
        protect->outbox = outbox;
    return ret;
}

int protect_stand(struct protect *protect, struct err *err)
{
    bool runs = machine_runs(protect->machine);
    if (runs)
        machine_pause(protect->machine);
    int ret = protect->outbox ? 0 : make_outbox(protect, err);
    if (ret == 0)
        outbox_limit(protect->outbox, find_shortest_ns(&protect->following) / 2);
    if (runs)
        machine_resume(protect->machine);
    return ret;
}

/* It was not there for long, and who knows what was decided meanwhile. */
static void hold(struct protect *protect)
{
    struct ft_protocol protocol;
    bool runs = machine_runs(protect->machine);
    conductor_look(protect->conductor, &protocol);
    if (!ft_protocol_is_gated(&protocol) || !protect->outbox)
        return;
    if (runs)
        machine_pause(protect->machine);
    outbox_hold(protect->outbox, protocol.sent + 1, PRIMARY_OUTBOX);
    conductor_look(protect->conductor, &protocol);
    if (!ft_protocol_is_gated(&protocol)) /* it was decided meanwhile, and nobody will open this */
        outbox_open(protect->outbox);
    if (runs)
        machine_resume(protect->machine);
}

/* Whatever was decided while there was no outbox. */
static void catch_up(struct protect *protect)
{
    struct ft_protocol protocol;
    conductor_look(protect->conductor, &protocol);
    if (protocol.state == FT_DEPOSED)
        outbox_shut(protect->outbox);
    if (protocol.state == FT_SOLO) /* from the first frame on */
        outbox_leash(protect->outbox, protocol.tick_ns + protocol.config.away_ns);
    hold(protect);
}

/* Before it runs: which parts of its disks may differ from those of its other folder. */
static int load_changes(struct protect *protect, struct err *err)
{
    int ret = 0;
    for (unsigned i = 0; i < instance_disks(protect->instance) && ret == 0; i++) {
        struct disk *disk = machine_disk(protect->machine, i);
        if (disk_point_image(disk) >= 0)
            ret = changes_add_disk(protect->changes, disk, i, err);
    }
    return ret < 0 ? ret : changes_load(protect->changes, err);
}

/* --- the twin --------------------------------------------------------------------------------- */

/* From here on this is a twin's folder, and no longer one that is coming. */
static int handle_settle(void *ctx, struct err *err)
{
    struct protect *protect = ctx;
    int folder = vm_of(protect)->folder->fd;
    int ret = arrival_base_settle(&protect->arrival->folder, protect->saved.uuid,
                                  &protect->arrival->following, err);
    if (ret < 0)
        return ret;
    if ((unlinkat(folder, FOLDER_ARRIVING, 0) < 0 && errno != ENOENT) || fsync(folder) < 0)
        return err_sys(err, ERR_FAILED, errno, "cannot settle as a twin");
    protect->arrival->stays = true;
    arrival_folder_settle(&protect->arrival->folder);
    return 0;
}

/* A frame of the old host that comes late teaches a switch the wrong way; and the first word may be
 * lost. */
static void handle_voice(void *arg)
{
    static const unsigned pauses_ms[] = {100, 200, 400, 800, 1000};
    struct protect *protect = arg;
    if (protect->announced > 0) /* the load itself was the first */
        machine_announce(protect->machine);
    protect_note_output(protect);
    if (protect->announced == array_size(pauses_ms))
        return;
    uint64_t next = clock_monotonic_ns() + pauses_ms[protect->announced++] * (uint64_t)MS;
    (void)!loop_timer_arm(&protect->voice, next); /* no memory: it was said once */
}

/* The machine is loaded. */
static void handle_taken_over(void *ctx)
{
    struct protect *protect = ctx;
    struct secondary_news news;
    struct err err = {0};
    secondary_look(protect->secondary, &news);
    protect->taken_over = true;
    protect->taken_over_handed = news.handed;
    log_warning("%s goes on here: the host that ran it is gone, or has handed it over",
                vm_of(protect)->name);
    protect->was_paired = true;
    int ret = load_changes(protect, &err);
    if (ret < 0) /* without: its next twin gets all of it */
        log_err(LOG_WARNING, &err);
    ret = protect_stand(protect, &err);
    /* Who follows now hears of us what we have heard of the other one. */
    protect->following.node = protect->saved.node;
    memcpy(protect->following.back, protect->following.there, sizeof(protect->following.back));
    if (ret == 0)
        catch_up(protect);
    protect_note_takeover(protect);
    instance_take_settings(protect->instance, secondary_settings(protect->secondary));
    instance_release(protect->instance);
    handle_voice(protect);
    if (ret == 0 && protect->saved.peer[0])
        ret = protect_start(protect, &err);
    if (ret < 0)
        log_err(LOG_WARNING, &err); /* it runs, and is protected no more */
}

/* As by a crash. */
static void handle_failed(void *ctx)
{
    struct protect *protect = ctx;
    protect_set(protect, &protect->ends);
}

/* Both sides have to hear of the same record, or nobody could ever take over. */
static int check_witness(struct protect *protect, struct err *err)
{
    const struct following *following = &protect->following;
    struct ft_record record;
    const struct asker_look look = {.witness = following->witness,
                                    .uuid = vm_of(protect)->identity->uuid,
                                    .known = true,
                                    .patience_ms = ASKER_LOOK_MS};
    int ret = asker_look(&look, &record, err);
    if (ret == -ETIMEDOUT) /* who runs it reads this, and tries again */
        err_prefix(err, "the twin's host asks the witness in vain");
    if (ret < 0)
        return ret;
    if (record.generation == following->generation && record.owner == following->node)
        return 0;
    ret = err_say(err, ERR_STATE, ESTALE,
                  "the witness %s says something else here than where the VM runs",
                  following->witness);
    err_hint(err, "both hosts must see the same storage under that path, or the same etcd");
    return ret;
}

/* Its address, and the usual port. */
static int name_standby(const char *peer, char *ret_text, size_t size)
{
    const char *colon = strrchr(peer, ':');
    return snprintf(ret_text, size, "%.*s:%d", colon ? (int)(colon - peer) : 0, peer,
                    LINK_DEFAULT_PORT);
}

/* Where the host that runs it may have its own standby: what it says, or the usual port where it
 * comes from; by both its ways, where there are two. */
static void name_back(const struct arrival *arrival, char *ret_back, size_t size)
{
    char second[FOLLOWING_WITNESS];
    struct link_news news;
    if (arrival->following.back[0]) {
        snprintf(ret_back, size, "%s", arrival->following.back);
        return;
    }
    size_t length = (size_t)name_standby(link_peer(arrival->link), ret_back, size);
    link_look(arrival->link, &news);
    if (news.count == 0 || !news.path[0].alive || !news.path[1].alive)
        return;
    name_standby(news.path[news.active == 0].address, second, sizeof(second));
    if (strcmp(second, ret_back) != 0 && length + 1 + strlen(second) < size)
        snprintf(ret_back + length, size - length, ",%s", second);
}

/* What the folder of a twin has to know before anything is there. */
static int save_twin(struct protect *protect, struct err *err)
{
    const struct arrival *arrival = protect->arrival;
    const struct following *following = &arrival->following;
    struct protection *saved = &protect->saved;
    *saved = (struct protection){.role = PROTECTION_TWIN,
                                 .generation = following->generation,
                                 .peer_node = following->node,
                                 .durable = following->durable,
                                 .insecure = arrival->insecure};
    memcpy(saved->uuid, arrival->hello.uuid, sizeof(saved->uuid));
    snprintf(saved->witness, sizeof(saved->witness), "%s", following->witness);
    name_back(arrival, saved->peer, sizeof(saved->peer));
    memcpy(saved->back, following->there, sizeof(saved->back));
    memcpy(saved->key, arrival->key_path, sizeof(saved->key));
    int ret = protection_draw_node(&saved->node, err);
    return ret < 0 ? ret : protection_write(vm_of(protect)->folder->fd, saved, err);
}

static int welcome(struct protect *protect, uint64_t twin, struct err *err)
{
    struct link *link = protect->arrival->link;
    following_put_welcome(link_writer(link), protect->saved.node, twin);
    resync_put_base(link_writer(link), &protect->arrival->folder.base);
    if (stream_flush(link_writer(link)) < 0)
        return err_say(err, ERR_FAILED, EPIPE, "the connection is lost");
    /* Whoever is silent is missed by the protocol, which is patient before the first epoch. */
    link_set_timeout(link, (unsigned)(2 * protect_config(protect).stall_ns / MS));
    return 0;
}

static int begin_secondary(struct protect *protect, uint64_t twin, struct err *err)
{
    const struct secondary_config config = {.arrival = protect->arrival,
                                            .settle = handle_settle,
                                            .taken_over = handle_taken_over,
                                            .failed = handle_failed,
                                            .ctx = protect};
    const struct ft_config times = protect_config(protect);
    const struct ft_event connected = {.kind = FT_CONNECTED,
                                       .link = CONDUCTOR_FIRST_LINK,
                                       .generation = protect->following.generation,
                                       .twin = twin};
    struct ft_protocol protocol;
    int ret = secondary_create(&protect->secondary, &config, err);
    if (ret < 0)
        return ret;
    ft_protocol_init_follower(&protocol, &times, protect->saved.generation, &connected,
                              clock_boot_ns());
    ret = protect_conduct(protect, &protocol, err);
    if (ret < 0)
        return ret;
    (void)conductor_attach(protect->conductor, protect->arrival->link);
    return secondary_start(protect->secondary, protect->conductor, err);
}

int protect_follow(struct protect *protect, struct arrival *arrival, struct err *err)
{
    uint64_t twin;
    protect->arrival = arrival;
    protect->following = arrival->following;
    if (arrival->has_key)
        protect->key = arrival->key;
    int ret = arrival_prepare(arrival, protect->instance, err);
    if (ret == 0)
        ret = check_witness(protect, err);
    if (ret == 0)
        ret = protection_draw_node(&twin, err);
    if (ret == 0)
        ret = save_twin(protect, err);
    if (ret == 0)
        ret = welcome(protect, twin, err);
    return ret < 0 ? ret : begin_secondary(protect, twin, err);
}

/* --- it was protected before ------------------------------------------------------------------ */

int protect_resume(struct protect *protect, const struct protection *saved, struct err *err)
{
    struct ft_protocol protocol;
    protect->saved = *saved;
    if (saved->role == PROTECTION_OFF)
        return 0;
    fill_times(protect);
    protect->was_paired = saved->peer_node != 0; /* one more failure is no reason to forget that */
    protect->following.node = saved->node;
    protect->following.durable = saved->durable;
    memcpy(protect->following.witness, saved->witness, sizeof(saved->witness));
    memcpy(protect->following.back, saved->back, sizeof(saved->back));
    /* One of the store is read whenever somebody is called, and may have been taken away. */
    bool is_file = saved->key[0] && !key_store_has_path(saved->key);
    int ret = is_file ? link_key_read(&protect->key, saved->key, err) : 0;
    if (ret == 0)
        ret = load_changes(protect, err);
    if (ret == 0)
        ret = protect_stand(protect, err);
    if (ret < 0)
        return ret;
    const struct ft_config times = protect_config(protect);
    ft_protocol_init_owner(&protocol, &times, saved->generation, clock_boot_ns());
    ret = protect_conduct(protect, &protocol, err);
    bool has_peer = saved->peer[0] || vm_of(protect)->definition->ft.peer_count > 0;
    return ret == 0 && has_peer ? protect_start(protect, err) : ret;
}

/* --- on the main loop ------------------------------------------------------------------------- */

static void leave_here(struct protect *protect, const struct ft_protocol *protocol)
{
    const char *name = vm_of(protect)->name;
    if (protocol->state == FT_DEPOSED)
        err_say(&protect->err, ERR_STATE, ESTALE,
                "%s belongs to another host now (generation %llu), and ends here", name,
                (unsigned long long)protocol->record.generation);
    else if (protocol->state == FT_DISMISSED && !protect->gone)
        err_say(&protect->err, ERR_STATE, ECANCELED, "%s needs this twin no more", name);
    protect->gone = protocol->state != FT_OVER || protocol->handed;
    if (protect->gone)
        instance_stop(protect->instance,
                      protocol->state == FT_OVER ? "switchover" : "fault tolerance");
}

/* Its owner hears that it is gone, and goes on alone. */
bool protect_give_up(struct protect *protect)
{
    const struct ft_event left = {.kind = FT_LEFT};
    struct ft_protocol protocol;
    if (!protect->secondary || !protect->conductor)
        return true; /* it asks for its own VM, which can be started again */
    conductor_post(protect->conductor, &left);
    conductor_look(protect->conductor, &protocol);
    if (protocol.state != FT_DISMISSED)
        return false;
    err_say(&protect->err, ERR_STATE, ECANCELED,
            "the twin of %s was ended here: the VM goes on where it runs", vm_of(protect)->name);
    protect->gone = true;
    return true;
}

static void handle_turn(void *arg)
{
    struct protect *protect = arg;
    struct ft_protocol protocol;
    pthread_mutex_lock(&protect->lock);
    bool runs = protect->runs, holds = protect->holds, ends = protect->ends;
    protect->runs = protect->holds = protect->ends = false;
    pthread_mutex_unlock(&protect->lock);
    if (!protect->conductor) {
        protect_answer(protect, NULL);
        return;
    }
    protect_note(protect);
    conductor_look(protect->conductor, &protocol);
    if (runs)
        instance_release(protect->instance);
    if (holds)
        hold(protect);
    protect_answer(protect, &protocol);
    if (ends)
        leave_here(protect, &protocol);
}

/* --- the end ---------------------------------------------------------------------------------- */

/* The guest is off, or somebody wants it to end: nobody is to take over. */
static void end_guest(struct protect *protect)
{
    const struct ft_event off = {.kind = FT_GUEST_OFF};
    struct ft_protocol protocol;
    conductor_look(protect->conductor, &protocol);
    if (!ft_protocol_runs(&protocol) && protocol.state != FT_STARTING)
        return;
    uint64_t until = clock_monotonic_ns() + 2 * protocol.config.stall_ns;
    if (!protect->primary || !primary_end_guest(protect->primary))
        conductor_post(protect->conductor, &off);
    const struct timespec at = clock_timespec(until);
    pthread_mutex_lock(&protect->lock);
    while (!protect->over && pthread_cond_clockwait(&protect->changed, &protect->lock,
                                                    CLOCK_MONOTONIC, &at) != ETIMEDOUT)
        continue;
    bool over = protect->over;
    pthread_mutex_unlock(&protect->lock);
    if (!over)
        log_warning("%s has ended, and its twin or the witness do not answer: the twin may go on",
                    vm_of(protect)->name);
}

/* Whoever has asked the witness for the VM waits for what it says: an owner has to know that it is
 * one, or the VM could be started nowhere. */
static void hear_claim(struct protect *protect)
{
    enum { LOOK_MS = 100 };
    struct ft_protocol protocol;
    conductor_look(protect->conductor, &protocol);
    uint64_t until = clock_boot_ns() + 2 * protocol.config.ask_ns;
    while (protocol.state == FT_CLAIMING && (protocol.asking || protocol.persisting) &&
           clock_boot_ns() < until) {
        conductor_wait(protect->conductor, LOOK_MS);
        conductor_look(protect->conductor, &protocol);
    }
}

static void abandon_all(struct protect *protect)
{
    if (!protect->conductor && !protect->thread.started && !protect->outbox)
        return;
    if (protect->secondary)
        secondary_abandon(protect->secondary);
    if (protect->conductor) {
        hear_claim(protect);
        end_guest(protect);
        conductor_finish_words(protect->conductor); /* TAKE, say: then nobody has to ask */
    }
    protect_set(protect, &protect->abandoned);
    if (protect->primary)
        primary_abandon(protect->primary);
    thread_join(&protect->thread);
    protect->thread.started = false;
    protect_answer_all(protect);
    loop_timer_cancel(&protect->tick);
    loop_timer_cancel(&protect->voice);
    loop_timer_cancel(&protect->home.timer);
    conductor_destroy(protect->conductor);
    protect->conductor = NULL;
    machine_pause(protect->machine);
    if (protect->outbox)
        outbox_flush(protect->outbox); /* what the guest said last is said */
    outbox_destroy(protect->outbox);
    protect->outbox = NULL;
}

void protect_abandon(struct protect *protect)
{
    abandon_all(protect);
    if (protect->changes) /* last: until here the guest may write */
        changes_quiet(protect->changes);
}

static int make_changes(struct protect *protect, struct err *err)
{
    const struct instance_config *vm = vm_of(protect);
    if (!vm->folder)
        return 0;
    struct changes_config config = {.folder = vm->folder->fd, .name = vm->name};
    memcpy(config.uuid, vm->identity->uuid, sizeof(config.uuid));
    return changes_create(&protect->changes, &config, err);
}

int protect_create(struct protect **ret_protect, struct instance *instance, struct err *err)
{
    struct protect *protect = calloc(1, sizeof(*protect));
    if (!protect)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot make room for fault tolerance");
    protect->instance = instance;
    protect->machine = instance_machine(instance);
    protect->turn = (struct loop_call){.handle = handle_turn, .arg = protect};
    pthread_mutex_init(&protect->lock, NULL);
    pthread_cond_init(&protect->changed, NULL);
    loop_timer_init(&protect->voice, instance_loop(instance), handle_voice, protect);
    loop_timer_init(&protect->tick, instance_loop(instance), protect_handle_tick, protect);
    protect_home_init(protect);
    protect_share_init(protect);
    fill_times(protect);
    int ret = make_changes(protect, err);
    if (ret < 0)
        protect_destroy(protect);
    else
        *ret_protect = protect;
    return ret;
}

void protect_destroy(struct protect *protect)
{
    if (!protect)
        return;
    primary_destroy(protect->primary);
    if (protect->secondary && !protect->arrival->come)
        arrival_base_rest(&protect->arrival->folder);
    secondary_destroy(protect->secondary);
    changes_destroy(protect->changes);
    explicit_bzero(&protect->key, sizeof(protect->key));
    pthread_cond_destroy(&protect->changed);
    pthread_mutex_destroy(&protect->lock);
    free(protect);
}

const struct err *protect_gone(const struct protect *protect)
{
    return protect->gone ? &protect->err : NULL;
}
