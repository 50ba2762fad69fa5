/* SPDX-License-Identifier: MIT */
/* The life of a running VM. What its control socket can do is in instance_verbs.c. */
#include "core/clock.h"
#include "core/log.h"
#include "vmm/instance_parts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <unistd.h>

enum {
    RESTART_FIRST_S = 1, /* each crash in a row doubles it */
    RESTART_LAST_S = 60,
    CALM_S = 300, /* a guest that ran so long is not in a row of crashes */
    MEANT_S =
        600, /* a guest that ends so long after it was asked to does it for a reason of its own */
};

/* --- the console ------------------------------------------------------------------------------ */

static size_t handle_hub_input(void *ctx, const uint8_t *bytes, size_t length)
{
    return instance_input(ctx, bytes, length);
}

size_t instance_input(struct instance *instance, const uint8_t *bytes, size_t length)
{
    return machine_input(instance->machine, bytes, length);
}

/* --- what happens to it ----------------------------------------------------------------------- */

static void tell(struct instance *instance, const char *event, json_t *fields)
{
    if (instance->control)
        control_event(instance->control, event, fields);
    else
        json_decref(fields);
}

/* On any thread. */
void instance_handle_trouble(void *ctx, const char *device, const char *sentence)
{
    struct instance *instance = ctx;
    struct instance_troubles *troubles = &instance->troubles;
    pthread_mutex_lock(&troubles->lock);
    if (troubles->timer.loop && troubles->count < INSTANCE_TROUBLES) {
        unsigned at = troubles->count++;
        snprintf(troubles->waiting[at].device, sizeof(troubles->waiting[at].device), "%s", device);
        snprintf(troubles->waiting[at].sentence, sizeof(troubles->waiting[at].sentence), "%s",
                 sentence);
        if (at == 0 && loop_timer_arm(&troubles->timer, clock_monotonic_ns()) < 0)
            troubles->count = 0;
    }
    pthread_mutex_unlock(&troubles->lock);
}

static void handle_troubles(void *arg)
{
    struct instance *instance = arg;
    struct instance_troubles *troubles = &instance->troubles;
    pthread_mutex_lock(&troubles->lock);
    for (unsigned i = 0; i < troubles->count; i++)
        tell(instance, "trouble",
             json_pack("{ss, ss}", "device", troubles->waiting[i].device, "text",
                       troubles->waiting[i].sentence));
    troubles->count = 0;
    pthread_mutex_unlock(&troubles->lock);
}

const char *instance_state(const struct instance *instance)
{
    if (instance->held)
        return instance->held;
    return instance->paused ? "paused" : instance->waiting ? "restarting" : "running";
}

void instance_pause(struct instance *instance, const char *why)
{
    if (instance->paused)
        return;
    instance->paused = true;
    instance->paused_ns = clock_monotonic_ns();
    machine_pause(instance->machine);
    tell(instance, "paused", json_pack("{ss}", "why", why));
}

/* A guest whose new start came due meanwhile has that now. */
static void go_on(struct instance *instance)
{
    if (!instance->waiting)
        machine_resume(instance->machine);
    else if (instance->restart_is_due)
        loop_stop(machine_loop(instance->machine));
}

void instance_resume(struct instance *instance, const char *why)
{
    if (!instance->paused)
        return;
    instance->paused = false;
    if (instance->held)
        return;
    go_on(instance);
    uint64_t ms = (clock_monotonic_ns() - instance->paused_ns) / 1000000;
    if (ms > JOURNAL_PAUSE_MS)
        journal_pause(&instance->journal, why, ms);
    tell(instance, "resumed", json_pack("{sI}", "paused_ms", (json_int_t)ms));
}

void instance_hold(struct instance *instance, const char *state)
{
    instance->held = state;
    machine_pause(instance->machine);
}

void instance_hold_to_leave(struct instance *instance, const char *state)
{
    instance_hold(instance, state);
    instance->leaves = true;
}

void instance_release(struct instance *instance)
{
    bool first = instance->awaited;
    instance->held = NULL;
    instance->leaves = false;
    instance->awaited = false;
    if (first)
        loop_stop(machine_loop(instance->machine)); /* now instance_run begins */
    else if (!instance->paused)
        go_on(instance);
}

/* What is done to the machine now its part would overwrite, or nobody would remember. */
int instance_check_begun(const struct instance *instance, struct err *err)
{
    if (!instance->awaited)
        return 0;
    int ret = err_say(err, ERR_STATE, EBUSY, "%s does not run here: it is %s",
                      instance->config.name, instance_state(instance));
    err_hint(err, "minivmm status %s says more", instance->config.name);
    return ret;
}

int instance_check_settable(const struct instance *instance, struct err *err)
{
    int ret = instance_check_begun(instance, err);
    if (ret < 0 || !instance->leaves)
        return ret;
    ret = err_say(err, ERR_STATE, EBUSY, "%s is just %s, and would not take this along",
                  instance->config.name, instance->held);
    err_hint(err, "say it again in a moment: there if it has gone, else here");
    return ret;
}

/* The reset button. A machine that was paused, or was to start in a while, runs afterwards. */
int instance_reset(struct instance *instance, struct err *err)
{
    int ret = instance_check_begun(instance, err);
    if (ret < 0)
        return ret;
    if (instance->held)
        return err_say(err, ERR_STATE, EBUSY, "%s is just %s", instance->config.name,
                       instance->held);
    if (instance->waiting) {
        instance->crashes = 0;
        instance->restart_is_due = true;
    }
    instance_pause(instance, "reset");
    ret = instance->waiting ? 0 : machine_restart(instance->machine, err);
    if (ret < 0)
        return ret;
    instance->stopped_by = NULL;
    tell(instance, "reset", NULL);
    instance_resume(instance, "reset");
    return 0;
}

static void note_wish(struct instance *instance, const char *who)
{
    instance->stopped_by = who;
    instance->stopped_ns = clock_monotonic_ns();
}

/* Who has asked for the end that comes now; NULL: nobody, lately. */
static const char *stopped_by(const struct instance *instance)
{
    bool lately = clock_monotonic_ns() - instance->stopped_ns < MEANT_S * NS_PER_SEC;
    return lately ? instance->stopped_by : NULL;
}

static void press(struct instance *instance, const char *who)
{
    instance_resume(instance, "stop"); /* a guest that stands still feels nothing */
    if (instance->waiting)
        instance_stop(instance, who); /* nobody is there to feel it */
    else
        machine_press_power_button(instance->machine);
    tell(instance, "stopping", json_pack("{ss}", "by", who));
}

/* Nobody is there who could feel it. Who is about to be does, as soon as it runs. */
static bool give_up(struct instance *instance, const char *who)
{
    const struct instance_part *part = instance->part_began ? instance->config.part : NULL;
    if (part && part->give_up && !part->give_up(part->ctx)) {
        log_info("%s is just about to run here: it feels the power button then",
                 instance->config.name);
        return false;
    }
    instance_stop(instance, who);
    return true;
}

bool instance_press_power_button(struct instance *instance, const char *who)
{
    note_wish(instance, who);
    if (instance->awaited)
        return !give_up(instance, who);
    press(instance, who);
    return true;
}

void instance_stop(struct instance *instance, const char *who)
{
    note_wish(instance, who);
    instance->ends = true;
    machine_stop(instance->machine);
}

static void handle_tick(void *arg)
{
    struct instance *instance = arg;
    journal_tick(&instance->journal);
    int error = console_hub_log_error(instance->hub);
    if (error && !instance->log_lost)
        log_warning("%s: console.log: %s: it goes on without", instance->config.name,
                    strerror(-error));
    instance->log_lost = error;
    uint64_t next = clock_monotonic_ns() + JOURNAL_TICK_SECONDS * NS_PER_SEC;
    if (loop_timer_arm(&instance->tick_timer, next) < 0)
        log_warning("%s: no memory for the journal's timer", instance->config.name);
}

/* --- the end, and a new beginning ------------------------------------------------------------- */

static void note_end(struct instance *instance, const struct machine_end *end)
{
    const char *by = stopped_by(instance) ? stopped_by(instance) : "guest";
    switch (end->outcome) {
    case MACHINE_CRASHED:
    case MACHINE_UNBOOTABLE:
        journal_crash(&instance->journal, end->crash.reason);
        tell(instance, "crashed", json_pack("{ss}", "reason", end->crash.reason));
        break;
    case MACHINE_OFF:
    case MACHINE_RESET:
    case MACHINE_EXIT:
    case MACHINE_STOPPED:
        journal_stop(&instance->journal, by);
        tell(instance, end->outcome == MACHINE_STOPPED ? "stopped" : "powered-off",
             json_pack("{ss}", "by", by));
        break;
    }
}

static bool is_to_restart(const struct instance *instance, const struct machine_end *end)
{
    if (stopped_by(instance))
        return false;
    switch (instance->config.definition->restart) {
    case RESTART_NO:
        return false;
    case RESTART_ON_FAILURE:
        return end->outcome == MACHINE_CRASHED;
    case RESTART_ALWAYS:
        return end->outcome == MACHINE_CRASHED || end->outcome == MACHINE_OFF;
    }
    return false;
}

static void handle_restart_time(void *arg)
{
    struct instance *instance = arg;
    instance->restart_is_due = true;
    if (!instance->paused)
        loop_stop(machine_loop(instance->machine));
}

/* The machine stands at power-on meanwhile; the control socket answers. False: it shall not run. */
static bool wait_for_restart(struct instance *instance, const struct machine_end *end)
{
    struct loop *loop = machine_loop(instance->machine);
    uint64_t now = clock_monotonic_ns();
    if (now - instance->run_since_ns > CALM_S * NS_PER_SEC)
        instance->crashes = 0;
    unsigned seconds = RESTART_FIRST_S << (instance->crashes < 6 ? instance->crashes : 6);
    if (seconds > RESTART_LAST_S)
        seconds = RESTART_LAST_S;
    instance->crashes++;
    if (end->outcome == MACHINE_CRASHED)
        log_error("%s: the guest crashed: %s", instance->config.name, end->crash.reason);
    log_warning("%s: starts again in %u s (restart policy)", instance->config.name, seconds);
    instance->waiting = true;
    instance->restart_is_due = false;
    instance->stopped_by = NULL;
    int ret = loop_timer_arm(&instance->restart_timer, now + seconds * NS_PER_SEC);
    do /* somebody may have let it go on, and paused it again at once */
        ret = ret < 0 ? ret : loop_run(loop);
    while (ret == 0 && instance->paused && !instance->stopped_by);
    if (ret < 0)
        note_wish(instance, "lack of memory");
    loop_timer_cancel(&instance->restart_timer);
    instance->waiting = false;
    return !instance->stopped_by;
}

/* Until its part has brought the state. False: it shall not run. What was let go runs, also if its
 * power button was pressed in that moment: it may run nowhere else any more. */
static bool await(struct instance *instance)
{
    instance->held = instance->config.awaited;
    instance->awaited = true;
    instance->stopped_by = NULL;
    if (loop_run(machine_loop(instance->machine)) < 0)
        instance_stop(instance, "lack of memory");
    return !instance->awaited && !instance->ends;
}

static void note_start(struct instance *instance)
{
    instance->run_since_ns = clock_monotonic_ns();
    journal_start(&instance->journal);
    tell(instance, "started", NULL);
}

int instance_run(struct instance *instance, struct machine_end *ret_end, struct err *err)
{
    struct machine_end end = {.outcome = MACHINE_STOPPED};
    if (instance->config.awaited && !await(instance)) {
        *ret_end = end;
        return 0;
    }
    const char *early = stopped_by(instance);
    if (early)
        press(instance, early);
    for (;;) {
        note_start(instance);
        /* Paused before it had come, or where it came from; held by who just reads its state, or
         * hands it over: that lets it go, or never does. */
        if (!instance->paused && !instance->held)
            machine_resume(instance->machine);
        int ret = machine_run(instance->machine, &end, err);
        if (ret < 0)
            return ret;
        instance->paused = false;
        note_end(instance, &end);
        if (!is_to_restart(instance, &end))
            break;
        ret = machine_restart(instance->machine, err);
        if (ret < 0)
            return ret;
        if (!wait_for_restart(instance, &end)) {
            end = (struct machine_end){.outcome = MACHINE_STOPPED};
            note_end(instance, &end);
            break;
        }
    }
    *ret_end = end;
    return 0;
}

/* --- life ------------------------------------------------------------------------------------- */

struct metrics_source instance_metrics(const struct instance *instance)
{
    const struct instance_part *part = instance->part_began ? instance->config.part : NULL;
    return (struct metrics_source){.machine = instance->machine,
                                   .vm = instance->config.name,
                                   .uuid = instance->uuid,
                                   .started = instance->started,
                                   .part_table = part ? part->metrics : NULL,
                                   .part = part ? part->ctx : NULL};
}

static int handle_metrics(void *ctx, char **ret_text, size_t *ret_length)
{
    const struct metrics_source source = instance_metrics(ctx);
    return metrics_text(metrics_table, &source, ret_text, ret_length);
}

static int open_sockets(struct instance *instance, struct loop *loop, struct err *err)
{
    if (!instance->runtime.folder)
        return 0;
    char *control = runtime_path(&instance->runtime, "control.sock");
    char *metrics = runtime_path(&instance->runtime, "metrics.sock");
    const struct metrics_socket_config config = {
        .path = metrics, .write = handle_metrics, .ctx = instance};
    int ret = control && metrics
                  ? control_create(&instance->control, loop, control, instance_verbs, instance, err)
                  : err_sys(err, ERR_HOST, ENOMEM, "%s: cannot make its sockets",
                            instance->config.name);
    if (ret == 0)
        ret = metrics_socket_create(&instance->metrics, loop, &config, err);
    free(control);
    free(metrics);
    return ret;
}

/* Guest memory comes as it is touched, so more than the host has is allowed, and worth a word. */
static void warn_of_overcommit(uint64_t memory)
{
    struct sysinfo info;
    if (sysinfo(&info) == 0 && memory > (uint64_t)info.totalram * info.mem_unit)
        log_warning("the guest may use %llu MiB, this host has %llu: it can run out of memory",
                    (unsigned long long)memory >> 20,
                    (unsigned long long)((uint64_t)info.totalram * info.mem_unit >> 20));
}

static int open_journal(struct instance *instance, struct err *err)
{
    instance->journal.fd = -1;
    if (!instance->config.folder)
        return 0;
    struct err why = {0};
    /* It is worth a word, and no VM: one whose disk is full shall run. */
    if (journal_open(&instance->journal, instance->config.folder->fd, &why) < 0)
        log_err(LOG_WARNING, &why);
    return 0;
}

static int publish(struct instance *instance, struct err *err)
{
    const struct instance_config *config = &instance->config;
    struct runtime_info info = {.name = (char *)config->name,
                                .folder = config->folder ? config->folder->path : NULL,
                                .pid = getpid(),
                                .started = instance->started};
    memcpy(info.uuid, config->identity->uuid, sizeof(info.uuid));
    struct err why = {0};
    int ret = runtime_create(&instance->runtime, &info, &why);
    if (ret < 0 && !config->folder) {
        /* Its person sits before it: it can do without what others would speak to. */
        err_prefix(&why, "no control socket");
        log_err(LOG_WARNING, &why);
        return 0;
    }
    if (ret < 0 && err)
        *err = why;
    return ret;
}

static int begin_part(struct instance *instance, const struct instance_part *part, struct err *err)
{
    if (instance->control)
        control_add_verbs(instance->control, part->verbs, part->ctx);
    instance->part_began = true;
    return part->begin(part->ctx, instance, err);
}

/* The machine has the loop that all the others live on. */
static int build(struct instance *instance, struct err *err)
{
    int ret = publish(instance, err);
    if (ret == 0)
        ret = instance_configure(instance, err);
    if (ret == 0)
        ret = machine_create(&instance->machine, &instance->machine_config, err);
    if (ret < 0)
        return ret;
    warn_of_overcommit(instance->machine_config.memory);
    struct loop *loop = machine_loop(instance->machine);
    loop_timer_init(&instance->restart_timer, loop, handle_restart_time, instance);
    loop_timer_init(&instance->tick_timer, loop, handle_tick, instance);
    loop_timer_init(&instance->troubles.timer, loop, handle_troubles, instance);

    struct console_hub_handlers handlers = {.input = handle_hub_input, .ctx = instance};
    int folder_fd = instance->config.folder ? instance->config.folder->fd : -1;
    ret = console_hub_create(&instance->hub, loop, folder_fd, &handlers, err);
    if (ret < 0)
        return ret;
    ret = open_sockets(instance, loop, err);
    if (ret == 0)
        ret = open_journal(instance, err);
    if (ret == 0 && instance->config.part)
        ret = begin_part(instance, instance->config.part, err);
    if (ret == 0 && instance->config.folder)
        handle_tick(instance);
    return ret;
}

int instance_create(struct instance **ret_instance, const struct instance_config *config,
                    struct err *err)
{
    struct instance *instance = calloc(1, sizeof(*instance));
    if (!instance)
        return err_sys(err, ERR_HOST, ENOMEM, "%s: cannot start", config->name);
    instance->config = *config;
    pthread_mutex_init(&instance->troubles.lock, NULL);
    identity_format_uuid(config->identity->uuid, instance->uuid);
    instance->journal.fd = instance->runtime.lock = -1;
    instance->started = (int64_t)(clock_wall_ns() / NS_PER_SEC);
    int ret = build(instance, err);
    if (ret < 0) {
        instance_destroy(instance);
        return ret;
    }
    *ret_instance = instance;
    return 0;
}

void instance_silence(struct instance *instance)
{
    if (!instance || instance->silent)
        return;
    instance->silent = true;
    if (instance->machine) {
        machine_pause(instance->machine);
        loop_timer_cancel(&instance->restart_timer);
        loop_timer_cancel(&instance->tick_timer);
        loop_timer_cancel(&instance->troubles.timer);
    }
    if (instance->part_began)
        instance->config.part->abandon(instance->config.part->ctx);
    if (instance->console_gate)
        byte_gate_shut(instance->console_gate); /* what waits has nobody left who could see it */
}

void instance_destroy(struct instance *instance)
{
    if (!instance)
        return;
    instance_silence(instance);
    control_destroy(instance->control);
    metrics_socket_destroy(instance->metrics);
    console_hub_destroy(instance->hub);
    machine_destroy(instance->machine);
    if (instance->part_began)
        instance->config.part->finish(instance->config.part->ctx);
    byte_gate_destroy(instance->console_gate);
    journal_close(&instance->journal);
    runtime_destroy(&instance->runtime);
    free(instance->vsock_path);
    free(instance->seed_disk);
    free(instance->seed_key);
    pthread_mutex_destroy(&instance->troubles.lock);
    free(instance);
}

struct machine *instance_machine(struct instance *instance)
{
    return instance->machine;
}

struct byte_gate *instance_console_gate(struct instance *instance)
{
    return instance->console_gate;
}

const struct instance_config *instance_config(const struct instance *instance)
{
    return &instance->config;
}

struct loop *instance_loop(struct instance *instance)
{
    return machine_loop(instance->machine);
}

struct control *instance_control(struct instance *instance)
{
    return instance->control;
}

unsigned instance_disks(const struct instance *instance)
{
    return instance->machine_config.disk_count;
}

bool instance_has_ephemeral(const struct instance *instance)
{
    for (unsigned i = 0; i < instance->machine_config.disk_count; i++)
        if (instance->disks[i].ephemeral && !instance->disks[i].readonly)
            return true;
    return false;
}

bool instance_stands_still(const struct instance *instance)
{
    return instance->paused || instance->waiting || instance->held;
}

void instance_note_pause(struct instance *instance, const char *why, uint64_t ns)
{
    if (ns / 1000000 > JOURNAL_PAUSE_MS)
        journal_pause(&instance->journal, why, ns / 1000000);
}

void instance_note(struct instance *instance, const char *event, json_t *fields)
{
    journal_say(&instance->journal, event, fields);
}
