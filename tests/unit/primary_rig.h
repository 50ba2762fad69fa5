/* SPDX-License-Identifier: MIT */
/* A VM that is to be protected: an instance on a thread of its own, its conductor, its witness. */
#pragma once

#include "ft/primary_parts.h"
#include "tests/unit/machines.h"
#include "tests/unit/witness_rig.h"
#include "vmm/control.h"

enum { NODE = 11 };

static struct {
    struct folder folder;
    struct definition *definition;
    struct identity identity;
    struct instance *instance;
    struct witness *witness;
    char address[400];
    struct ft_config times;
    unsigned max_ms; /* of an epoch; 0: as usual */
    struct changes *changes;
    struct outbox *outbox;
    struct conductor *conductor;
    struct primary *primary;
    struct loop_call release, stop;
    struct thread machine, follower;

    pthread_mutex_t lock; /* all of this */
    pthread_cond_t changed;
    bool follows, over, runs;
    bool sent_end; /* what primary_end_guest said */
    int result;    /* primary_follow's */
    struct err err;
    uint64_t released;
    atomic_size_t seen; /* bytes that the guest has printed, and somebody saw */
} t;

static inline void set(bool *flag, bool value)
{
    pthread_mutex_lock(&t.lock);
    *flag = value;
    pthread_cond_broadcast(&t.changed);
    pthread_mutex_unlock(&t.lock);
}

/* False: it does not become so. */
static inline bool wait_for(const bool *flag, bool value)
{
    const struct timespec at = clock_timespec(clock_monotonic_ns() + PATIENCE_S * NS_PER_SEC);
    int ret = 0;
    pthread_mutex_lock(&t.lock);
    while (*flag != value && ret != ETIMEDOUT)
        ret = pthread_cond_clockwait(&t.changed, &t.lock, CLOCK_MONOTONIC, &at);
    bool is = *flag == value;
    pthread_mutex_unlock(&t.lock);
    return is;
}

/* --- the protocol's actions, as ft/protect.c does them ---------------------------------------- */

static inline void handle_action(void *ctx, const struct ft_action *action)
{
    switch (action->kind) {
    case FT_RUN:
        primary_go_on(t.primary);
        loop_post(instance_loop(t.instance), &t.release);
        set(&t.runs, true);
        break;
    case FT_SYNC:
        primary_sync(t.primary);
        break;
    case FT_UNSYNC:
        primary_unsync(t.primary);
        break;
    case FT_GATE:
        (void)primary_gate(t.primary);
        break;
    case FT_RELEASE:
        pthread_mutex_lock(&t.lock);
        t.released = action->epoch;
        pthread_mutex_unlock(&t.lock);
        primary_release(t.primary, action->epoch);
        break;
    case FT_OPEN:
        outbox_open(t.outbox);
        break;
    case FT_END:
        set(&t.over, true);
        break;
    default:
        break; /* the conductor's own */
    }
}

static inline void handle_changed(void *ctx)
{
}

static inline int handle_persist(void *ctx, const struct ft_record *record, struct err *err)
{
    return 0;
}

static inline void handle_waits(void *ctx, bool urgent)
{
    if (t.primary && urgent)
        primary_press(t.primary, EPOCH_OUTPUT);
}

static inline void handle_release(void *arg)
{
    instance_release(t.instance);
}

static inline void handle_stop(void *arg)
{
    instance_stop(t.instance, "test");
}

/* --- the instance's part ---------------------------------------------------------------------- */

static inline int begin_conductor(struct err *err)
{
    struct conductor_config config = {.witness = t.address,
                                      .act = handle_action,
                                      .changed = handle_changed,
                                      .persist = handle_persist};
    struct ft_record record = {.generation = 1, .owner = NODE}, is;
    struct ft_protocol protocol;
    memcpy(config.uuid, t.identity.uuid, sizeof(config.uuid));
    int ret = witness_exchange(t.witness, t.identity.uuid, 0, &record, &is, err);
    ft_protocol_init_solo(&protocol, &t.times, &record, clock_boot_ns());
    return ret == 0 ? conductor_create(&t.conductor, &config, &protocol, err) : ret;
}

static inline int part_begin(void *ctx, struct instance *instance, struct err *err)
{
    struct changes_config changes = {.folder = t.folder.fd, .name = "web1"};
    memcpy(changes.uuid, t.identity.uuid, sizeof(changes.uuid));
    t.instance = instance;
    t.release = (struct loop_call){.handle = handle_release};
    t.stop = (struct loop_call){.handle = handle_stop};
    int ret = changes_create(&t.changes, &changes, err);
    if (ret == 0)
        ret = outbox_create(&t.outbox, instance, handle_waits, NULL, err);
    if (ret == 0)
        ret = begin_conductor(err);
    const struct primary_config config = {.instance = instance,
                                          .conductor = t.conductor,
                                          .outbox = t.outbox,
                                          .changes = t.changes,
                                          .max_ms = t.max_ms};
    return ret == 0 ? primary_create(&t.primary, &config, err) : ret;
}

/* The VM has ended: as ft/protect.c does it. */
static inline void part_abandon(void *ctx)
{
    const struct ft_event off = {.kind = FT_GUEST_OFF};
    struct ft_protocol protocol;
    conductor_look(t.conductor, &protocol);
    t.sent_end = ft_protocol_runs(&protocol) && primary_end_guest(t.primary);
    if (!t.sent_end)
        conductor_post(t.conductor, &off);
    (void)wait_for(&t.over, true);
    conductor_finish_words(t.conductor);
    primary_abandon(t.primary);
    thread_join(&t.follower);
    conductor_destroy(t.conductor);
    machine_pause(instance_machine(t.instance));
    outbox_flush(t.outbox);
    outbox_destroy(t.outbox);
    changes_quiet(t.changes);
}

static inline void part_finish(void *ctx)
{
    primary_destroy(t.primary);
    changes_destroy(t.changes);
}

/* It says that the twin's disks are waited for. */
static inline bool stores(void)
{
    struct primary_news news;
    primary_look(t.primary, &news);
    return news.stores;
}

/* As on a slow line. */
static inline void hinder(unsigned percent)
{
    primary_throttle(t.primary, percent);
    machine_brake(instance_machine(t.instance), 1);
}

static const struct control_verb no_verbs[] = {{NULL, NULL}};
static const struct instance_part part = {
    .verbs = no_verbs, .begin = part_begin, .abandon = part_abandon, .finish = part_finish};
