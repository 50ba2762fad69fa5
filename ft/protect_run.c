/* SPDX-License-Identifier: MIT */
/* The thread of a protected VM: it makes itself known to the witness, and has a twin follow, again
 * and again. */
#include "ft/protect_parts.h"

#include "core/clock.h"
#include "core/log.h"
#include "ft/asker.h"
#include "host/key_store.h"
#include "host/peer_address.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { RETRY_MS = 3000, LOOK_MS = 500, WITNESS_MS = 30000, DEFAULT_PATIENCE_S = 300 };

static const char *vm_name(const struct protect *protect)
{
    return instance_config(protect->instance)->name;
}

static bool is_wanted(const struct protect *protect)
{
    return protect->wanted && !protect->abandoned && !protect->over;
}

/* --- the beginning ---------------------------------------------------------------------------- */

static int say_owned(const struct protect *protect, const struct ft_record *record, struct err *err)
{
    int ret = err_say(err, ERR_STATE, EBUSY,
                      "the witness knows a VM of this UUID that belongs to another folder "
                      "(generation %llu)",
                      (unsigned long long)record->generation);
    err_hint(err,
             "where that one runs, or will ever run, this one must not: else remove the record "
             "of %s at the witness",
             vm_name(protect));
    return ret;
}

static int save(struct protect *protect, uint64_t generation, struct err *err)
{
    struct protection *saved = &protect->saved;
    pthread_mutex_lock(&protect->lock);
    saved->role = PROTECTION_OWNER;
    saved->generation = generation;
    struct protection copy = *saved;
    pthread_mutex_unlock(&protect->lock);
    return protection_write(instance_config(protect->instance)->folder->fd, &copy, err);
}

/* A question of the beginning's, which nobody waits for who wants something else by now. */
struct claim {
    struct protect *protect;
    struct asker *asker;
    bool answered; /* under protect->lock, as the next */
    struct ft_event answer;
    struct err trouble;
};

static void handle_answer(void *ctx, const struct ft_event *answer, const struct err *trouble)
{
    struct claim *claim = ctx;
    pthread_mutex_lock(&claim->protect->lock);
    claim->answered = true;
    claim->answer = *answer;
    claim->trouble = *trouble;
    pthread_cond_broadcast(&claim->protect->changed);
    pthread_mutex_unlock(&claim->protect->lock);
}

static int say_no_answer(const struct protect *protect, bool wanted, struct err *err)
{
    if (!wanted)
        return err_say(err, ERR_STATE, ECANCELED, "it was given up");
    return asker_say_silent(protect->saved.witness, WITNESS_MS * 1000000ull, err);
}

static int ask_witness(struct claim *claim, const struct ft_action *question, struct err *err)
{
    struct protect *protect = claim->protect;
    const struct timespec at = clock_timespec(clock_monotonic_ns() + WITNESS_MS * 1000000ull);
    int ret = 0;
    pthread_mutex_lock(&protect->lock);
    claim->answered = false;
    (void)asker_ask(claim->asker, question);
    while (!claim->answered && is_wanted(protect) && ret != ETIMEDOUT)
        ret = pthread_cond_clockwait(&protect->changed, &protect->lock, CLOCK_MONOTONIC, &at);
    bool answered = claim->answered, wanted = is_wanted(protect);
    pthread_mutex_unlock(&protect->lock);
    if (!answered)
        return say_no_answer(protect, wanted, err);
    if (claim->answer.answer != FT_NO_ANSWER)
        return 0;
    if (err)
        *err = claim->trouble;
    return -EIO;
}

static int claim_by(struct claim *claim, struct ft_record *ret_record, struct err *err)
{
    struct protect *protect = claim->protect;
    const struct ft_record *is = &claim->answer.record;
    struct ft_action question = {.kind = FT_ASK, .ask = 1};
    int ret = ask_witness(claim, &question, err);
    if (ret < 0)
        return ret;
    if (is->generation != 0 && is->owner != protect->saved.node)
        return say_owned(protect, is, err);
    if (is->generation < protect->saved.generation)
        return err_say(err, ERR_STATE, ESTALE,
                       "the witness says generation %llu, and there was a newer one already",
                       (unsigned long long)is->generation);
    /* Known to the folder before it is known to the witness: what nobody could match would lock the
     * VM out of its own record. */
    ret = save(protect, protect->saved.generation, err);
    if (ret < 0)
        return ret;
    question = (struct ft_action){
        .kind = FT_EXCHANGE,
        .ask = 2,
        .expected = is->generation,
        .record = {.generation = is->generation + 1, .owner = protect->saved.node}};
    ret = ask_witness(claim, &question, err);
    if (ret == 0 && claim->answer.answer == FT_IS)
        return say_owned(protect, is, err);
    *ret_record = question.record;
    return ret;
}

/* The record says that the VM is ours, and that it is alone. */
static int claim(struct protect *protect, struct ft_record *ret_record, struct err *err)
{
    struct claim claim = {.protect = protect};
    struct asker_config config = {
        .witness = protect->saved.witness, .answered = handle_answer, .ctx = &claim};
    memcpy(config.uuid, instance_config(protect->instance)->identity->uuid, sizeof(config.uuid));
    int ret = asker_create(&claim.asker, &config, err);
    if (ret == 0)
        ret = claim_by(&claim, ret_record, err);
    asker_destroy(claim.asker);
    return ret;
}

static int begin(struct protect *protect, struct err *err)
{
    const struct ft_config times = protect_config(protect);
    struct ft_protocol protocol;
    struct ft_record record;
    int ret = claim(protect, &record, err);
    if (ret == 0)
        ret = save(protect, record.generation, err);
    if (ret < 0)
        return ret;
    protect_home_forget(protect);
    ft_protocol_init_solo(&protocol, &times, &record, clock_boot_ns());
    return protect_conduct(protect, &protocol, err);
}

static int make_primary(struct protect *protect, struct err *err)
{
    const struct definition_ft *ft = &instance_config(protect->instance)->definition->ft;
    const struct primary_config config = {.instance = protect->instance,
                                          .conductor = protect->conductor,
                                          .outbox = protect->outbox,
                                          .changes = protect->changes,
                                          .min_ms = ft->epoch_min_ms,
                                          .max_ms = ft->epoch_max_ms,
                                          .pause_percent = ft->pause_percent};
    struct primary *primary;
    int ret = primary_create(&primary, &config, err);
    if (ret == 0)
        protect->primary = primary;
    return ret;
}

/* --- again and again -------------------------------------------------------------------------- */

static void rest(struct protect *protect)
{
    const struct timespec at = clock_timespec(clock_monotonic_ns() + RETRY_MS * 1000000ull);
    int ret = 0;
    pthread_mutex_lock(&protect->lock);
    while (is_wanted(protect) && !protect->again && ret != ETIMEDOUT)
        ret = pthread_cond_clockwait(&protect->changed, &protect->lock, CLOCK_MONOTONIC, &at);
    pthread_mutex_unlock(&protect->lock);
}

/* It runs, and is not followed: else there is nothing to connect for. False: nobody wants it. */
static bool wait_until_solo(struct protect *protect)
{
    struct ft_protocol protocol;
    for (;;) {
        pthread_mutex_lock(&protect->lock);
        bool goes_on = is_wanted(protect);
        pthread_mutex_unlock(&protect->lock);
        if (!goes_on)
            return false;
        conductor_look(protect->conductor, &protocol);
        if (protocol.state == FT_SOLO && protocol.link == 0)
            return true;
        conductor_wait(protect->conductor, LOOK_MS);
    }
}

static void note_failure(struct protect *protect, uint64_t try, const struct err *err)
{
    pthread_mutex_lock(&protect->lock);
    bool news = strcmp(protect->trouble.text, err->text) != 0;
    protect->trouble = *err;
    protect->failed = try;
    pthread_mutex_unlock(&protect->lock);
    if (news && err->kind)
        log_warning("%s has no twin: %s", vm_name(protect), err->text);
    loop_post(instance_loop(protect->instance), &protect->turn);
}

/* Whoever has a key of the store has another one for each host. And that may have been replaced
 * since, or taken away; any other file was read once. */
static int find_key(const struct protection *saved, const char *to, char ret_path[PATH_MAX],
                    struct link_key *key, struct err *err)
{
    bool is_pairs = saved->key[0] ? key_store_has_path(saved->key) : !saved->insecure;
    int ret = 0;
    memcpy(ret_path, saved->key, PATH_MAX);
    if (is_pairs && !peer_address_equal(to, saved->peer))
        ret = key_store_for(ret_path, to, err);
    return ret == 0 && is_pairs && ret_path[0] ? link_key_read(key, ret_path, err) : ret;
}

static const struct definition_ft *wishes(const struct protect *protect)
{
    return &instance_config(protect->instance)->definition->ft;
}

/* Whoever takes over looks for its twin where we are: as the list calls us, where nobody has said
 * another address. */
static void name_back(struct protect *protect, const struct definition_ft *ft)
{
    const char *here = NULL;
    pthread_mutex_lock(&protect->lock);
    bool known = protect->following.back[0];
    pthread_mutex_unlock(&protect->lock);
    for (unsigned i = 0; i < ft->peer_count && !known && !here; i++)
        if (peer_address_is_here(ft->peers[i]))
            here = ft->peers[i];
    if (!here)
        return;
    pthread_mutex_lock(&protect->lock);
    snprintf(protect->following.back, sizeof(protect->following.back), "%s", here);
    pthread_mutex_unlock(&protect->lock);
}

/* On every host the list is the same, and names that one, too. */
static void choose(struct protect *protect, const struct definition_ft *ft, const char *former,
                   char ret_to[FOLLOWING_WITNESS])
{
    const unsigned patience_s = ft->has_peers_after ? ft->peers_after_s : DEFAULT_PATIENCE_S;
    const struct peer_list list = {.former = former,
                                   .peers = ft->peers,
                                   .count = ft->peer_count,
                                   .patience_ns = patience_s * NS_PER_SEC};
    char back[FOLLOWING_WITNESS];
    pthread_mutex_lock(&protect->lock);
    memcpy(back, protect->following.back, sizeof(back));
    pthread_mutex_unlock(&protect->lock);
    const char *to = former;
    for (unsigned i = 0; i <= ft->peer_count; i++) {
        const char *next = peer_choice_next(&protect->choice, &list, clock_boot_ns());
        if (!next || (!peer_address_equal(next, back) && !peer_address_is_here(next))) {
            to = next ? next : to;
            break;
        }
    }
    snprintf(ret_to, FOLLOWING_WITNESS, "%s", to);
}

static int check_to(const char *to, struct err *err)
{
    if (!to[0])
        return err_say(err, ERR_STATE, ENOENT, "no other host is known where its twin could be");
    if (!peer_address_is_here(to))
        return 0;
    int ret = err_say(err, ERR_STATE, EINVAL,
                      "%s is this host itself: a twin here would die with the VM", to);
    err_hint(err, "name another host; who means this one, for a test, says 127.0.0.1");
    return ret;
}

/* Returns when nobody follows any more; false: it was followed. */
static bool ask_one(struct protect *protect, const struct protection *saved, struct err *err)
{
    struct link_key key = {0}, found = {0};
    char to[FOLLOWING_WITNESS], path[PATH_MAX];
    choose(protect, wishes(protect), saved->peer, to);
    protect_home_look(protect, to);
    int ret = find_key(saved, to, path, &found, err);
    pthread_mutex_lock(&protect->lock);
    memcpy(protect->trying, to, sizeof(to));
    memcpy(protect->trying_key, path, sizeof(path));
    const struct following following = protect->following;
    key = path[0] && key_store_has_path(path) ? found : protect->key;
    bool wanted = is_wanted(protect); /* who gives it up says that first */
    if (wanted)
        primary_begin_anew(protect->primary);
    pthread_mutex_unlock(&protect->lock);
    const struct primary_target target = {.to = to,
                                          .key = path[0] ? &key : NULL,
                                          .insecure = saved->insecure,
                                          .verify = following.verify,
                                          .following = &following};
    if (wanted && ret == 0 && check_to(to, err) == 0)
        (void)!primary_follow(protect->primary, &target, err);
    explicit_bzero(&key, sizeof(key));
    explicit_bzero(&found, sizeof(found));
    pthread_mutex_lock(&protect->lock);
    protect->trying[0] = '\0';
    bool unmet = protect->saved.generation == saved->generation && is_wanted(protect) &&
                 !protect->again;
    pthread_mutex_unlock(&protect->lock);
    return unmet;
}

/* One, or each of the list where nobody had the twin before. */
static void follow_once(struct protect *protect)
{
    const struct definition_ft *ft = wishes(protect);
    struct err err = {0};
    name_back(protect, ft);
    pthread_mutex_lock(&protect->lock);
    const struct protection saved = protect->saved;
    uint64_t try = ++protect->tries;
    if (protect->again)
        peer_choice_begin(&protect->choice, clock_boot_ns());
    protect->again = false;
    pthread_mutex_unlock(&protect->lock);
    bool unmet = true;
    for (unsigned i = saved.peer[0] ? ft->peer_count : 0; unmet && i <= ft->peer_count; i++) {
        err = (struct err){0};
        unmet = ask_one(protect, &saved, &err);
    }
    if (!unmet) /* who followed may be back in a moment */
        peer_choice_begin(&protect->choice, clock_boot_ns());
    if (!err.kind)
        err_say(&err, ERR_FAILED, ECANCELED, "its twin is gone");
    note_failure(protect, try, &err);
}

static void run(void *arg)
{
    struct protect *protect = arg;
    struct err err = {0};
    int ret = protect->conductor ? 0 : begin(protect, &err);
    if (ret == 0 && !protect->primary)
        ret = make_primary(protect, &err);
    if (ret < 0)
        note_failure(protect, ++protect->tries, &err);
    while (ret == 0 && wait_until_solo(protect)) {
        follow_once(protect);
        rest(protect);
    }
    protect_set(protect, &protect->idle);
}

/* Where one is there already it hears of it. */
int protect_start(struct protect *protect, struct err *err)
{
    pthread_mutex_lock(&protect->lock);
    protect->wanted = protect->again = true;
    protect->trouble = (struct err){0};
    bool there = protect->thread.started && !protect->idle;
    pthread_cond_broadcast(&protect->changed);
    pthread_mutex_unlock(&protect->lock);
    if (there)
        return 0;
    thread_join(&protect->thread);
    protect->thread.started = protect->idle = false;
    return thread_start(&protect->thread, "protect", run, protect, err);
}
