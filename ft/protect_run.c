/* SPDX-License-Identifier: MIT */
/* The thread of a protected VM: it makes itself known to the witness, and has a twin follow, again
 * and again. */
#include "ft/protect_parts.h"

#include "core/clock.h"
#include "core/log.h"
#include "ft/loop_step.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { RETRY_MS = 3000 };

static const char *vm_name(const struct protect *protect)
{
    return instance_config(protect->instance)->name;
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

/* The record says that the VM is ours, and that it is alone. */
static int claim(struct protect *protect, struct ft_record *ret_record, struct err *err)
{
    const uint8_t *uuid = instance_config(protect->instance)->identity->uuid;
    uint64_t node = protect->saved.node;
    struct ft_record is;
    int ret = witness_read(protect->witness, uuid, &is, err);
    if (ret < 0)
        return ret;
    if (is.generation != 0 && is.owner != node)
        return say_owned(protect, &is, err);
    if (is.generation < protect->saved.generation)
        return err_say(err, ERR_STATE, ESTALE,
                       "the witness says generation %llu, and there was a newer one already",
                       (unsigned long long)is.generation);
    *ret_record = (struct ft_record){.generation = is.generation + 1, .owner = node};
    ret = witness_exchange(protect->witness, uuid, is.generation, ret_record, &is, err);
    return ret == -EAGAIN ? say_owned(protect, &is, err) : ret;
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

static int begin(struct protect *protect, struct err *err)
{
    const struct ft_config times = protect_config(protect);
    struct ft_protocol protocol;
    struct ft_record record;
    int ret = witness_open(&protect->witness, protect->saved.witness, err);
    /* Known to the folder before it is known to the witness: what nobody could match would lock the
     * VM out of its own record. */
    if (ret == 0)
        ret = save(protect, protect->saved.generation, err);
    if (ret == 0)
        ret = claim(protect, &record, err);
    if (ret == 0)
        ret = save(protect, record.generation, err);
    if (ret < 0)
        return ret;
    ft_protocol_init_solo(&protocol, &times, &record, conductor_now());
    return protect_conduct(protect, &protocol, err);
}

static int make_primary(struct protect *protect, struct err *err)
{
    const struct definition_ft *ft = &instance_config(protect->instance)->definition->ft;
    const struct primary_config config = {.instance = protect->instance,
                                          .conductor = protect->conductor,
                                          .outbox = protect->outbox,
                                          .following = &protect->following,
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

/* False: nobody wants it any more. */
static bool rest(struct protect *protect)
{
    uint64_t until = clock_monotonic_ns() + RETRY_MS * 1000000ull;
    const struct timespec at = {.tv_sec = (time_t)(until / NS_PER_SEC),
                                .tv_nsec = (long)(until % NS_PER_SEC)};
    int ret = 0;
    pthread_mutex_lock(&protect->lock);
    while (protect->wanted && !protect->abandoned && ret != ETIMEDOUT)
        ret = pthread_cond_clockwait(&protect->changed, &protect->lock, CLOCK_MONOTONIC, &at);
    bool goes_on = protect->wanted && !protect->abandoned;
    pthread_mutex_unlock(&protect->lock);
    return goes_on;
}

/* It runs, and is not followed: else there is nothing to connect for. */
static bool wait_until_solo(struct protect *protect)
{
    struct ft_protocol protocol;
    for (;;) {
        pthread_mutex_lock(&protect->lock);
        bool goes_on = protect->wanted && !protect->abandoned && !protect->over;
        pthread_mutex_unlock(&protect->lock);
        if (!goes_on)
            return false;
        conductor_look(protect->conductor, &protocol);
        if (protocol.state == FT_SOLO && protocol.link == 0)
            return true;
        conductor_wait(protect->conductor, RETRY_MS);
    }
}

static void note_trouble(struct protect *protect, const struct err *err)
{
    pthread_mutex_lock(&protect->lock);
    bool news = strcmp(protect->trouble.text, err->text) != 0;
    protect->trouble = *err;
    pthread_mutex_unlock(&protect->lock);
    if (news && err->kind)
        log_warning("%s has no twin: %s", vm_name(protect), err->text);
}

static void follow_again(struct protect *protect)
{
    while (wait_until_solo(protect)) {
        struct err err = {0};
        pthread_mutex_lock(&protect->lock);
        const struct protection saved = protect->saved;
        pthread_mutex_unlock(&protect->lock);
        const struct primary_target target = {.to = saved.peer,
                                              .key = saved.key[0] ? &protect->key : NULL,
                                              .insecure = saved.insecure};
        int ret = primary_follow(protect->primary, &target, &err);
        note_trouble(protect, &err);
        if (ret < 0 && protect->asked) /* who asks wants to know, and not to wait */
            return;
        if (!rest(protect))
            return;
    }
}

static void run(void *arg)
{
    struct protect *protect = arg;
    struct err err = {0};
    int ret = protect->conductor ? 0 : begin(protect, &err);
    if (ret == 0 && !protect->primary)
        ret = make_primary(protect, &err);
    if (ret == 0)
        follow_again(protect);
    else
        note_trouble(protect, &err);
    protect_set(protect, &protect->failed);
}

int protect_start(struct protect *protect, struct err *err)
{
    pthread_mutex_lock(&protect->lock);
    protect->wanted = true;
    protect->failed = false;
    protect->trouble = (struct err){0};
    pthread_mutex_unlock(&protect->lock);
    return thread_start(&protect->thread, "protect", run, protect, err);
}
