/* SPDX-License-Identifier: MIT */
/* A control socket served by a thread of its own, with verbs for tests. */
#pragma once

#include "core/loop.h"
#include "core/thread.h"
#include "tests/unit/control_raw.h"
#include "vmm/control.h"
#include <errno.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct rig {
    struct loop *loop;
    struct control *control;
    struct thread thread;
    char folder[64], path[96];
    unsigned served; /* requests to "count" */
    unsigned served_before_mark;
    struct control_request *deferred[8];
    unsigned deferrals;
    sem_t noted; /* posted by "defer" and "console" */
    int console;
    char *early;
    size_t early_length;
};

#define VERB(name)                                                                              \
    static inline int name(void *ctx, struct control_request *request, const json_t *arguments, \
                           json_t **ret_answer, struct err *err)

VERB(verb_echo)
{
    *ret_answer = json_deep_copy(arguments);
    return 0;
}

VERB(verb_big)
{
    size_t size = (size_t)json_integer_value(json_object_get(arguments, "size"));
    char *text = malloc(size + 1);
    memset(text, 'x', size);
    *ret_answer = json_stringn(text, size);
    free(text);
    return 0;
}

VERB(verb_fail)
{
    if (json_object_get(arguments, "silently"))
        return -EIO;
    err_say(err, ERR_STATE, EBUSY, "web1 is of \xc3\xa4, \xff and \xe2\x82 made");
    err_hint(err, "leave it");
    return -EBUSY;
}

VERB(verb_count)
{
    struct rig *rig = ctx;
    rig->served++;
    return 0;
}

VERB(verb_mark)
{
    struct rig *rig = ctx;
    rig->served_before_mark = rig->served;
    return 0;
}

VERB(verb_defer)
{
    struct rig *rig = ctx;
    control_defer(request);
    if (json_object_get(arguments, "short")) {
        control_answer(request, json_string("at once"), NULL);
        return 0;
    }
    ck_assert_uint_lt(rig->deferrals, array_size(rig->deferred));
    rig->deferred[rig->deferrals++] = request;
    sem_post(&rig->noted);
    return 0;
}

VERB(verb_shout)
{
    struct rig *rig = ctx;
    json_int_t times = json_integer_value(json_object_get(arguments, "times"));
    for (json_int_t i = 0; i < times; i++)
        control_event(rig->control, "shouted",
                      json_pack("{s:I, s:s}", "number", i, "at", "no time"));
    return 0;
}

VERB(verb_console)
{
    struct rig *rig = ctx;
    void *early;
    int ret = control_take_over(request, json_pack("{s:i}", "replay", 3), &rig->console, &early,
                                &rig->early_length, err);
    if (ret < 0)
        return ret;
    rig->early = early;
    sem_post(&rig->noted);
    return json_object_get(arguments, "late error") ? -EIO : 0;
}

static const struct control_verb rig_verbs[] = {
    {"echo", verb_echo},   {"big", verb_big},         {"fail", verb_fail},
    {"count", verb_count}, {"mark", verb_mark},       {"defer", verb_defer},
    {"shout", verb_shout}, {"console", verb_console}, {NULL, NULL}};

static inline void rig_make(struct rig *rig)
{
    struct err err;
    const char *tmp = getenv("TMPDIR");
    *rig = (struct rig){.console = -1};
    snprintf(rig->folder, sizeof(rig->folder), "%s/control-XXXXXX",
             tmp && strlen(tmp) < 40 ? tmp : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(rig->folder));
    snprintf(rig->path, sizeof(rig->path), "%s/control.sock", rig->folder);
    ck_assert_int_eq(sem_init(&rig->noted, 0, 0), 0);
    ck_assert_int_eq(loop_create(&rig->loop, NULL), 0);
    ck_assert_msg(control_create(&rig->control, rig->loop, rig->path, rig_verbs, rig, &err) == 0,
                  "%s", err.text);
}

static inline void rig_run(void *arg)
{
    struct rig *rig = arg;
    ck_assert_int_eq(loop_run(rig->loop), 0);
}

static inline void rig_start(struct rig *rig)
{
    ck_assert_int_eq(thread_start(&rig->thread, "control", rig_run, rig, NULL), 0);
}

static inline void rig_halt(struct rig *rig)
{
    loop_stop(rig->loop);
    thread_join(&rig->thread);
    rig->thread.started = false;
}

static inline void rig_finish(struct rig *rig)
{
    if (rig->thread.started)
        rig_halt(rig);
    control_destroy(rig->control);
    loop_destroy(rig->loop);
    sem_destroy(&rig->noted);
    free(rig->early);
    if (rig->console >= 0)
        close(rig->console);
    ck_assert_int_eq(rmdir(rig->folder), 0); /* so the socket is gone */
}

/* Until the loop's handler has noted one more. */
static inline void rig_wait(struct rig *rig)
{
    while (sem_wait(&rig->noted) < 0)
        ck_assert_int_eq(errno, EINTR);
}

/* --- things done on the loop's thread ----------------------------------------------------- */

struct errand {
    struct rig *rig;
    void (*run)(struct rig *rig, unsigned number);
    unsigned number;
    sem_t done;
};

static inline void handle_errand(void *arg)
{
    struct errand *errand = arg;
    errand->run(errand->rig, errand->number);
    sem_post(&errand->done);
}

static inline void on_loop(struct rig *rig, void (*run)(struct rig *rig, unsigned number),
                           unsigned number)
{
    struct errand errand = {.rig = rig, .run = run, .number = number};
    struct loop_call call = {.handle = handle_errand, .arg = &errand};
    sem_init(&errand.done, 0, 0);
    loop_post(rig->loop, &call);
    while (sem_wait(&errand.done) < 0)
        ck_assert_int_eq(errno, EINTR);
    sem_destroy(&errand.done);
}

static inline void answer_deferred(struct rig *rig, unsigned number)
{
    control_answer(rig->deferred[number], json_pack("{s:i}", "late", (int)number), NULL);
}

static inline void tell_paused(struct rig *rig, unsigned number)
{
    control_event(rig->control, "paused", json_pack("{s:i}", "number", (int)number));
}
