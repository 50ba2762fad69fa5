/* SPDX-License-Identifier: MIT */
/* What people ask of a VM's protection, and are told of it. */
#include "ft/protect_parts.h"

#include "core/clock.h"
#include "core/log.h"
#include "ft/arrival.h"
#include "host/key_store.h"
#include "host/peer_address.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { TICK_MS = 200, SUM_WINDOW = 1000, DEFAULT_LISTED = 100 };

static const char *vm_name(const struct protect *protect)
{
    return instance_config(protect->instance)->name;
}

/* Who follows a VM has no say in it; nor who is about to have it, and knows little of it yet. */
static bool follows(const struct protect *protect)
{
    return protect->secondary && !protect->taken_over;
}

/* What is to be asked there; and what is not possible here, or NULL. */
static int say_twin(const struct protect *protect, const char *verb, const char *what,
                    struct err *err)
{
    const char *peer = arrival_peer(protect->arrival), *colon = strrchr(peer, ':');
    int length = (int)(colon ? (size_t)(colon - peer) : strlen(peer));
    int ret = err_say(err, ERR_STATE, EBUSY, "%s is the twin of a VM that runs at %.*s%s%s",
                      vm_name(protect), length, peer, what ? ", and cannot " : "",
                      what ? what : "");
    err_hint(err, "there: minivmm %s %s", verb, vm_name(protect));
    return ret;
}

static int check_role(const struct protect *protect, const char *verb, struct err *err)
{
    return follows(protect) ? say_twin(protect, verb, NULL, err) : 0;
}

/* --- protect ---------------------------------------------------------------------------------- */

static int take_text(const json_t *arguments, const char *key, const char *otherwise, size_t size,
                     char *ret_text, struct err *err)
{
    const json_t *value = json_object_get(arguments, key);
    const char *text = value ? json_string_value(value) : otherwise;
    if (value && !text)
        return err_say(err, ERR_USAGE, EINVAL, "protect: \"%s\" is a text", key);
    if (text && strlen(text) >= size)
        return err_say(err, ERR_USAGE, EINVAL, "protect: \"%s\" is too long", key);
    snprintf(ret_text, size, "%s", text ? text : "");
    return 0;
}

static int need(const char *text, const char *what, const char *hint, struct err *err)
{
    if (text[0])
        return 0;
    int ret = err_say(err, ERR_USAGE, EINVAL, "protect: %s", what);
    err_hint(err, "%s", hint);
    return ret;
}

static int take_level(const json_t *arguments, bool *ret_durable, struct err *err)
{
    const json_t *value = json_object_get(arguments, "level");
    const char *level = value ? json_string_value(value) : "memory";
    *ret_durable = level && strcmp(level, "durable") == 0;
    return *ret_durable || (level && strcmp(level, "memory") == 0)
               ? 0
               : err_say(err, ERR_USAGE, EINVAL, "protect: \"level\" is \"memory\" or \"durable\"");
}

static int take_flag(const json_t *arguments, const char *key, bool *ret_flag, struct err *err)
{
    const json_t *value = json_object_get(arguments, key);
    *ret_flag = json_is_true(value);
    return value && !json_is_boolean(value)
               ? err_say(err, ERR_USAGE, EINVAL, "protect: \"%s\" is true or false", key)
               : 0;
}

/* What somebody asks for: none of it is so before all of it is found to be good. */
struct wish {
    struct protection saved;
    char back[FOLLOWING_WITNESS];
    bool verify;
};

static int take_arguments(const struct protect *protect, const json_t *arguments,
                          struct wish *ret_wish, struct err *err)
{
    static const char *const keys[] = {"to",    "witness", "key",    "insecure",
                                       "level", "back",    "verify", NULL};
    const struct definition_ft *ft = &instance_config(protect->instance)->definition->ft;
    struct protection *saved = &ret_wish->saved;
    int ret = control_check_keys(arguments, keys, err);
    if (ret == 0)
        ret = take_text(arguments, "to", ft->peer, sizeof(saved->peer), saved->peer, err);
    if (ret == 0)
        ret = take_text(arguments, "witness", ft->witness, sizeof(saved->witness), saved->witness,
                        err);
    if (ret == 0)
        ret = take_text(arguments, "key", NULL, sizeof(saved->key), saved->key, err);
    if (ret == 0)
        ret = take_text(arguments, "back", NULL, sizeof(ret_wish->back), ret_wish->back, err);
    if (ret == 0 && saved->peer[0])
        ret = link_check_addresses(saved->peer, err);
    if (ret == 0 && ret_wish->back[0])
        ret = link_check_addresses(ret_wish->back, err);
    if (ret == 0)
        ret = take_level(arguments, &saved->durable, err);
    if (ret == 0)
        ret = take_flag(arguments, "insecure", &saved->insecure, err);
    if (ret == 0)
        ret = take_flag(arguments, "verify", &ret_wish->verify, err);
    if (ret == 0 && !saved->key[0] && !saved->insecure && saved->peer[0])
        ret = key_store_for(saved->key, saved->peer, err);
    if (ret == 0)
        ret = need(ft->peer_count > 0 ? ft->peers[0] : saved->peer, "where shall its twin be?",
                   "--to HOST[:PORT], or \"ft\": {\"peer\": ...} in vm.json", err);
    if (ret == 0)
        ret = need(saved->witness, "who shall know which host may run it?",
                   "--witness file:PATH of storage that both hosts see, or etcd://HOST,...; or "
                   "\"ft\": {\"witness\": "
                   "...} in vm.json",
                   err);
    return ret;
}

static int check_idle(const struct protect *protect, bool asked, struct err *err)
{
    if (!asked && !protect->leaving && !protect->switching)
        return 0;
    int ret = err_say(err, ERR_STATE, EBUSY, "the protection of %s is just being changed",
                      vm_name(protect));
    if (asked)
        err_hint(err, "minivmm unprotect %s ends that", vm_name(protect));
    return ret;
}

static int check_fit(const struct protect *protect, struct err *err)
{
    if (!instance_config(protect->instance)->folder)
        return err_say(err, ERR_STATE, ENOTSUP, "%s runs without a folder, which a twin needs",
                       vm_name(protect));
    if (instance_has_ephemeral(protect->instance))
        return err_say(err, ERR_STATE, ENOTSUP, "%s has an ephemeral disk, which has no twin",
                       vm_name(protect));
    return check_idle(protect, protect->asked, err);
}

/* What is not said is left to who tries. */
static bool is_same_wish(const struct protect *protect, const struct wish *wish)
{
    const struct protection *saved = &wish->saved, *now = &protect->saved;
    bool tries = protect->trying[0] != '\0';
    const char *peer = tries ? protect->trying : now->peer,
               *key = tries ? protect->trying_key : now->key;
    return strcmp(saved->witness, now->witness) == 0 &&
           (!saved->peer[0] || peer_address_equal(saved->peer, peer)) &&
           (!saved->key[0] || strcmp(saved->key, key) == 0) && saved->insecure == now->insecure &&
           saved->durable == now->durable && (!wish->verify || protect->following.verify) &&
           (!wish->back[0] || strcmp(wish->back, protect->following.back) == 0);
}

/* It is about to get a twin by itself, and just as is wished: that is waited for. */
static bool join(struct protect *protect, const struct ft_protocol *protocol,
                 const struct wish *wish)
{
    bool comes = protocol->state == FT_SOLO || protocol->state == FT_GATED;
    pthread_mutex_lock(&protect->lock);
    bool joins = (comes || protocol->state == FT_ALONE) && protect->wanted && !protect->idle &&
                 is_same_wish(protect, wish);
    if (joins)
        protect->asked_after = protect->tries - (comes ? 1 : 0);
    pthread_mutex_unlock(&protect->lock);
    return joins;
}

/* 0: it begins anew; 1: it joins who tries already. */
static int check_new(struct protect *protect, const struct wish *wish, struct err *err)
{
    const struct protection *saved = &wish->saved;
    if (!protect->conductor)
        return 0;
    struct ft_protocol protocol;
    conductor_look(protect->conductor, &protocol);
    bool same = strcmp(saved->witness, protect->saved.witness) == 0; /* who has the record */
    if (protocol.state == FT_SOLO && protocol.link == 0 && same)
        return 0; /* it has none, and may get another one */
    if (join(protect, &protocol, wish))
        return 1;
    pthread_mutex_lock(&protect->lock);
    int ret = err_say(err, ERR_STATE, EALREADY, "%s is protected already, by %s", vm_name(protect),
                      protect->trying[0] ? protect->trying : protect->saved.peer);
    pthread_mutex_unlock(&protect->lock);
    err_hint(err, "minivmm unprotect %s", vm_name(protect));
    return ret;
}

/* Another witness counts by itself: nobody else has a claim on a VM whose protection has ended, by
 * the one that it had. */
static uint64_t find_generation(const struct protection *before, const struct protection *after)
{
    bool another = strcmp(before->witness, after->witness) != 0;
    return before->role == PROTECTION_OFF && another ? 0 : before->generation;
}

static int set_up(struct protect *protect, const struct wish *wish, struct err *err)
{
    struct protection copy = wish->saved, *saved = &copy;
    struct link_key key = {0};
    int ret = saved->key[0] ? link_key_read(&key, saved->key, err) : 0;
    if (ret == 0)
        ret = protect_stand(protect, err);
    if (ret == 0 && protect->saved.node == 0)
        ret = protection_draw_node(&saved->node, err);
    else
        saved->node = protect->saved.node;
    if (ret < 0)
        return ret;
    saved->role = PROTECTION_OWNER;
    memcpy(saved->back, wish->back, sizeof(saved->back));
    memcpy(saved->uuid, instance_config(protect->instance)->identity->uuid, sizeof(saved->uuid));
    pthread_mutex_lock(&protect->lock);
    saved->generation = find_generation(&protect->saved, saved);
    protect->saved = *saved;
    protect->key = key;
    protect->asked_after = protect->tries;
    protect->following.node = saved->node;
    protect->following.durable = saved->durable;
    memcpy(protect->following.witness, saved->witness, sizeof(saved->witness));
    memcpy(protect->following.back, wish->back, sizeof(wish->back));
    protect->following.verify = wish->verify;
    pthread_mutex_unlock(&protect->lock);
    explicit_bzero(&key, sizeof(key));
    return 0;
}

static int begin_anew(struct protect *protect, const struct wish *wish, struct err *err)
{
    int ret = set_up(protect, wish, err);
    if (ret == 0 && protect->primary)
        primary_give_up(protect->primary); /* what is tried just now goes elsewhere */
    return ret < 0 ? ret : protect_start(protect, err);
}

int protect_begin(struct protect *protect, struct control_request *request, const json_t *arguments,
                  struct err *err)
{
    struct wish wish = {0};
    int ret = check_role(protect, "protect", err);
    if (ret == 0)
        ret = take_arguments(protect, arguments, &wish, err);
    if (ret == 0)
        ret = check_fit(protect, err);
    if (ret == 0)
        ret = check_new(protect, &wish, err);
    bool joins = ret > 0;
    if (ret >= 0)
        ret = loop_timer_arm(&protect->tick, 0);
    if (ret == 0 && !joins)
        ret = begin_anew(protect, &wish, err);
    if (ret < 0)
        return ret;
    protect->asked = request;
    control_defer(request);
    return 0;
}

static void answer(struct control_request **request, json_t *what, const struct err *err)
{
    struct control_request *waiting = *request;
    *request = NULL;
    if (waiting)
        control_answer(waiting, what, err);
    else
        json_decref(what);
}

/* --- unprotect, switchover -------------------------------------------------------------------- */

static void stop_wanting(struct protect *protect)
{
    pthread_mutex_lock(&protect->lock);
    protect->wanted = false;
    pthread_cond_broadcast(&protect->changed);
    pthread_mutex_unlock(&protect->lock);
}

/* Nobody shall follow, also who is just about to; what of it is under way ends. */
static void call_off(struct protect *protect)
{
    const struct ft_event left = {.kind = FT_LEFT};
    struct ft_protocol protocol;
    stop_wanting(protect);
    if (!protect->conductor)
        return;
    conductor_look(protect->conductor, &protocol);
    conductor_post(protect->conductor, &left);
    /* What is tried just now, or the first sync: a twin that nobody knows of ends with its link. */
    if (protect->primary && protocol.state == FT_SOLO)
        primary_give_up(protect->primary);
}

static int check_protected(const struct protect *protect, struct err *err)
{
    return protect->conductor
               ? 0
               : err_say(err, ERR_STATE, EALREADY, "%s is not protected", vm_name(protect));
}

static void answer_called_off(struct protect *protect)
{
    struct err err = {0};
    err_say(&err, ERR_STATE, ECANCELED, "%s was unprotected meanwhile", vm_name(protect));
    answer(&protect->asked, NULL, &err);
    protect->was_paired = false;
}

int protect_leave(struct protect *protect, struct control_request *request, struct err *err)
{
    int ret = check_role(protect, "unprotect", err);
    if (ret == 0 && !protect->asked)
        ret = check_protected(protect, err);
    if (ret == 0)
        ret = check_idle(protect, false, err);
    if (ret < 0)
        return ret;
    answer_called_off(protect);
    call_off(protect);
    if (!protect->thread.started)
        protect->idle = true;
    protect->leaving = request;
    control_defer(request);
    loop_post(instance_loop(protect->instance), &protect->turn);
    return 0;
}

int protect_switch_over(struct protect *protect, struct control_request *request, struct err *err)
{
    struct ft_protocol protocol;
    int ret = check_role(protect, "switchover", err);
    if (ret == 0)
        ret = check_protected(protect, err);
    if (ret == 0)
        ret = check_fit(protect, err);
    if (ret < 0)
        return ret;
    conductor_look(protect->conductor, &protocol);
    if (protocol.state != FT_PAIRED)
        return err_say(err, ERR_STATE, EAGAIN, "%s has no twin that could go on (it is %s)",
                       vm_name(protect), ft_state_name(protocol.state));
    protect->switching = request;
    protect->switch_ns = clock_monotonic_ns();
    control_defer(request);
    primary_hand_over(protect->primary);
    return 0;
}

int protect_check_free(const struct protect *protect, const char *what, struct err *err)
{
    if (!protect)
        return 0;
    if (!protect->conductor) /* the witness may be asked just now */
        return check_idle(protect, protect->asked, err);
    if (follows(protect))
        return say_twin(protect, "status", what, err);
    int ret = err_say(err, ERR_STATE, EBUSY, "%s is protected, and cannot %s meanwhile",
                      vm_name(protect), what);
    err_hint(err,
             "its twin runs on another host at any time: minivmm switchover %s; or first "
             "minivmm unprotect %s",
             vm_name(protect), vm_name(protect));
    return ret;
}

/* --- for people ------------------------------------------------------------------------------- */

static const char *role_of(const struct ft_protocol *protocol)
{
    switch (protocol->state) {
    case FT_FOLLOWING:
    case FT_TWIN:
    case FT_CLAIMING:
    case FT_DISMISSED:
        return "twin";
    default:
        return "primary";
    }
}

/* Why it is not as it should be; kind 0 where it is. */
static void find_trouble(struct protect *protect, const struct ft_protocol *protocol,
                         struct err *ret_trouble)
{
    conductor_trouble(protect->conductor, ret_trouble);
    if (ret_trouble->kind && protocol->state == FT_ALONE)
        err_prefix(ret_trouble, "its twin is gone, and the witness does not answer");
    if (!ret_trouble->kind) {
        conductor_unkept(protect->conductor, ret_trouble);
        if (ret_trouble->kind && ft_protocol_is_gated(protocol))
            err_prefix(ret_trouble, "what it sends waits until it can note whose it is");
    }
    if (ret_trouble->kind || protocol->state == FT_PAIRED)
        return;
    pthread_mutex_lock(&protect->lock);
    *ret_trouble = protect->strange.kind ? protect->strange : protect->trouble;
    pthread_mutex_unlock(&protect->lock);
}

static json_t *describe_resync(const struct primary_resync *resync)
{
    return json_pack("{ss, ss, sI, sI, sI, sI}", "what", resync->delta ? "delta" : "full", "why",
                     resync->why, "disk_bytes", (json_int_t)resync->disk_bytes, "looked_bytes",
                     (json_int_t)resync->marked_bytes, "sent_bytes", (json_int_t)resync->sent_bytes,
                     "sum_bytes", (json_int_t)resync->sum_bytes);
}

static void add_primary(struct protect *protect, json_t *answer)
{
    struct primary_news news;
    if (!protect->primary)
        return;
    primary_look(protect->primary, &news);
    json_object_set_new(answer, "held_bytes", json_integer((json_int_t)news.held_bytes));
    json_object_set_new(answer, "sync_bytes", json_integer((json_int_t)news.sync_bytes));
    json_object_set_new(answer, "throttle", json_string(news.reason));
    json_object_set_new(answer, "throttle_percent", json_integer(news.throttle));
    json_object_set_new(answer, "recent",
                        epochs_sum_up(primary_epochs(protect->primary), SUM_WINDOW));
    if (news.resync.done)
        json_object_set_new(answer, "resync", describe_resync(&news.resync));
    if (news.syncs)
        json_object_set_new(answer, "sync",
                            json_pack("{sI, sI, si, sb}", "done", (json_int_t)news.sent, "total",
                                      (json_int_t)news.total, "round", (int)news.rounds, "storing",
                                      (int)news.stores));
}

static void add_secondary(struct protect *protect, json_t *answer)
{
    struct secondary_news news;
    if (!protect->secondary)
        return;
    secondary_look(protect->secondary, &news);
    json_object_set_new(answer, "twin",
                        json_pack("{sI, sf, sf, ss}", "epochs", (json_int_t)news.epochs, "apply_us",
                                  (double)news.apply_ns / 1e3, "takeover_ms",
                                  (double)news.takeover_ns / 1e6, "memory",
                                  news.locked ? "locked" : "not locked"));
}

/* Where the connection has two ways. */
static void add_paths(struct protect *protect, json_t *answer)
{
    struct link_news news;
    uint64_t now = clock_monotonic_ns();
    conductor_look_paths(protect->conductor, &news);
    if (news.count == 0)
        return;
    json_t *paths = json_array();
    for (int i = 0; i < (int)news.count; i++)
        json_array_append_new(paths, json_pack("{ss, sb, sb, sf}", "address", news.path[i].address,
                                               "alive", (int)news.path[i].alive, "active",
                                               (int)(news.active == i), "since_s",
                                               (double)(now - news.path[i].since_ns) / NS_PER_SEC));
    json_object_set_new(answer, "paths", paths);
    json_object_set_new(answer, "path_moves", json_integer((json_int_t)news.moves));
}

json_t *protect_describe(struct protect *protect)
{
    struct ft_protocol protocol;
    struct err trouble;
    if (!protect->conductor)
        return NULL;
    conductor_look(protect->conductor, &protocol);
    find_trouble(protect, &protocol, &trouble);
    pthread_mutex_lock(&protect->lock);
    json_t *answer = json_pack(
        "{ss, ss, ss, ss, ss, sI, sI, sI, sb, ss}", "role", role_of(&protocol), "state",
        ft_state_name(protocol.state), "peer",
        protect->trying[0] ? protect->trying : protect->saved.peer, "witness",
        protect->saved.witness, "level", protect->saved.durable ? "durable" : "memory",
        "generation",
        (json_int_t)(protocol.known ? protocol.record.generation : protocol.generation), "epoch",
        (json_int_t)protocol.sent, "acked", (json_int_t)protocol.acked, "gated",
        (int)ft_protocol_is_gated(&protocol), "why", trouble.text);
    pthread_mutex_unlock(&protect->lock);
    if (protocol.link)
        json_object_set_new(answer, "patience_ms",
                            json_real((double)ft_protocol_patience(&protocol) / 1e6));
    add_primary(protect, answer);
    add_secondary(protect, answer);
    protect_home_describe(protect, answer);
    add_paths(protect, answer);
    return answer;
}

int protect_epochs(struct protect *protect, const json_t *arguments, json_t **ret_answer,
                   struct err *err)
{
    static const char *const keys[] = {"last", NULL};
    const json_t *last = json_object_get(arguments, "last");
    int ret = control_check_keys(arguments, keys, err);
    if (ret == 0 && last &&
        (!json_is_integer(last) || json_integer_value(last) < 1 ||
         json_integer_value(last) > EPOCHS_KEPT))
        ret = err_say(err, ERR_USAGE, EINVAL, "epochs: \"last\" is a number from 1 to %d",
                      EPOCHS_KEPT);
    if (ret < 0)
        return ret;
    unsigned most = last ? (unsigned)json_integer_value(last) : DEFAULT_LISTED;
    *ret_answer = json_pack("{so}", "epochs",
                            protect->primary ? epochs_list(primary_epochs(protect->primary), most)
                                             : json_array());
    return *ret_answer ? 0 : err_sys(err, ERR_HOST, ENOMEM, "cannot list epochs");
}

/* --- answers ---------------------------------------------------------------------------------- */

/* It is not followed, and will not be: the folder knows that it needs no witness to run. The thread
 * has come to its end. False: what was seen is not so any more, and it goes on; its next state
 * comes here again. Else a VM that was taken in this moment would run on, with its output shut. */
static bool dismantle(struct protect *protect)
{
    struct err err = {0};
    if (protect->conductor && !conductor_retire(protect->conductor))
        return false;
    thread_join(&protect->thread);
    protect->thread.started = false;
    protect_note_unprotected(protect);
    if (protect->secondary) /* it has taken over; its thread may not have come to its end yet */
        secondary_abandon(protect->secondary);
    conductor_destroy(protect->conductor);
    protect->conductor = NULL;
    primary_destroy(protect->primary);
    protect->primary = NULL;
    bool runs = machine_runs(protect->machine);
    if (runs)
        machine_pause(protect->machine);
    outbox_destroy(protect->outbox);
    protect->outbox = NULL;
    changes_drop(protect->changes);
    if (runs)
        machine_resume(protect->machine);
    protect->saved.role = PROTECTION_OFF;
    if (protection_write(instance_config(protect->instance)->folder->fd, &protect->saved, &err) < 0)
        log_err(LOG_WARNING, &err);
    return true;
}

/* True: they are otherwise than they were told last, which is also said in the log. */
static bool paths_are_new(struct protect *protect)
{
    struct link_news news;
    conductor_look_paths(protect->conductor, &news);
    unsigned paths = 0;
    for (unsigned i = 0; i < news.count; i++)
        paths |= (1u + news.path[i].alive + 2 * (news.active == (int)i)) << 4 * i;
    if (paths == protect->told_paths)
        return false;
    protect->told_paths = paths;
    for (unsigned i = 0; i < news.count; i++)
        if (news.path[i].alive)
            log_info("%s: the way over %s is there%s", vm_name(protect), news.path[i].address,
                     news.active == (int)i ? ", and epochs go by it" : "");
        else
            log_warning("%s: the way over %s is away", vm_name(protect), news.path[i].address);
    return true;
}

static void tell_state(struct protect *protect, const struct ft_protocol *protocol)
{
    bool news = paths_are_new(protect);
    if (protect->told == protocol->state && !news)
        return;
    protect->told = protocol->state;
    if (instance_control(protect->instance))
        control_event(instance_control(protect->instance), "protection", protect_describe(protect));
}

/* Who was never protected is not after a failure, either. */
static void answer_asked(struct protect *protect, const struct ft_protocol *protocol, bool idle)
{
    pthread_mutex_lock(&protect->lock);
    bool failed = protect->failed > protect->asked_after;
    bool alone = !protocol || ft_protocol_is_left(protocol);
    struct err why = protect->trouble;
    pthread_mutex_unlock(&protect->lock);
    if (protocol && protocol->state == FT_PAIRED) {
        protect->was_paired = true;
        answer(&protect->asked, protect_describe(protect), NULL);
        return;
    }
    if (!failed)
        return;
    if (!protect->was_paired)
        stop_wanting(protect);
    /* The witness may just have heard of the twin: until it says that there is none, somebody
     * has to care for that. Comes here again. */
    if (!protect->was_paired && !(idle && alone))
        return;
    if (!protect->was_paired && !dismantle(protect))
        return;
    answer(&protect->asked, NULL, &why);
}

static void answer_switching(struct protect *protect, const struct ft_protocol *protocol)
{
    struct err err = {0};
    if (protocol->state == FT_OVER && protocol->handed) {
        double took_ms = (double)(clock_monotonic_ns() - protect->switch_ns) / 1e6;
        pthread_mutex_lock(&protect->lock);
        json_t *said = json_pack("{ss, sf}", "to", protect->saved.peer, "took_ms", took_ms);
        pthread_mutex_unlock(&protect->lock);
        answer(&protect->switching, said, NULL);
    } else if (protocol->state == FT_SOLO || protocol->state == FT_DEPOSED) {
        err_say(&err, ERR_FAILED, ECANCELED, "%s was not handed over: its twin was lost meanwhile",
                vm_name(protect));
        answer(&protect->switching, NULL, &err);
    }
}

void protect_answer(struct protect *protect, const struct ft_protocol *protocol)
{
    const struct ft_event gone = {.kind = FT_LEFT};
    pthread_mutex_lock(&protect->lock);
    bool idle = protect->idle;
    pthread_mutex_unlock(&protect->lock);
    if (protocol)
        tell_state(protect, protocol);
    protect_share_answer(protect, protocol);
    if (protect->switching && protocol)
        answer_switching(protect, protocol);
    if (protect->asked)
        answer_asked(protect, protocol, idle);
    if (protocol)
        protect_home_turn(protect, protocol);
    if (protocol && protocol->link != 0 && !protect->ticks)
        protect_handle_tick(protect);
    bool left = !protocol || ft_protocol_is_left(protocol);
    /* A twin that was just being connected to came after that was said. */
    if (protect->leaving && protocol && protocol->link != 0)
        conductor_post(protect->conductor, &gone);
    if (protect->leaving && left && idle && dismantle(protect)) {
        protect->was_paired = false;
        answer(&protect->leaving, NULL, NULL);
    }
}

void protect_answer_all(struct protect *protect)
{
    struct err err = {0};
    err_say(&err, ERR_STATE, ESHUTDOWN, "%s has ended", vm_name(protect));
    answer(&protect->asked, NULL, &err);
    answer(&protect->leaving, NULL, &err);
    answer(&protect->switching, NULL, &err);
    protect_share_abandon(protect);
}

/* Also where nobody has asked: it has lost its twin, and gets one again. */
void protect_handle_tick(void *arg)
{
    struct protect *protect = arg;
    struct primary_news news = {0};
    if (protect->primary)
        primary_look(protect->primary, &news);
    protect->ticks = (protect->asked || news.syncs) && instance_control(protect->instance);
    if (!protect->ticks)
        return;
    if (protect->primary) {
        uint64_t total = news.total > news.sent ? news.total : news.sent;
        control_event(instance_control(protect->instance), "protect-progress",
                      json_pack("{sI, sI, sI, sb}", "done", (json_int_t)news.sent, "total",
                                (json_int_t)total, "round", (json_int_t)news.rounds, "storing",
                                (int)news.stores));
    }
    if (loop_timer_arm(&protect->tick, clock_monotonic_ns() + TICK_MS * 1000000ull) < 0)
        log_warning("%s: no memory for a timer", vm_name(protect));
}
