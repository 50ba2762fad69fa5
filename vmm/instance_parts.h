/* SPDX-License-Identifier: MIT */
/* The instance from inside: only for the instance_*.c files. */
#pragma once

#include "host/byte_gate.h"
#include "vmm/console_hub.h"
#include "vmm/control.h"
#include "vmm/instance.h"
#include "vmm/journal.h"
#include "vmm/metrics.h"
#include "vmm/metrics_socket.h"
#include "vmm/runtime.h"
#include <pthread.h>

enum { INSTANCE_TROUBLES = 8 };

/* What devices have to say, from whatever thread, until the main loop passes it on. What does not
 * fit is only in the log. */
struct instance_troubles {
    pthread_mutex_t lock;
    unsigned count;
    struct {
        char device[16], sentence[400];
    } waiting[INSTANCE_TROUBLES];
    struct loop_timer timer; /* a timer and not a call: it can be taken back */
};

struct instance {
    struct instance_config config;
    struct machine_config machine_config; /* what the definition and the identity come to */
    struct disk_config disks[MACHINE_MAX_DISKS];
    struct netif_config nets[MACHINE_MAX_NETS];
    void *seed_disk;
    char *seed_key;
    char *vsock_path;
    struct serial_host serial;
    struct console_host console;

    struct machine *machine;
    struct runtime runtime;
    struct byte_gate *console_gate;
    struct console_hub *hub;
    struct control *control;
    struct metrics_socket *metrics;
    char uuid[37];
    struct journal journal;
    struct instance_troubles troubles;
    bool part_began; /* config.part */
    bool silent;
    int64_t started; /* seconds since 1970 */

    bool log_lost;                     /* console.log cannot be written, and that was said */
    bool paused;                       /* somebody wants it to stand still */
    struct instance_settings settings; /* but paused */
    /* Its part wants that: "arriving", "moving"; NULL: it does not. */
    const char *held;
    bool leaves;  /* while held: instance_hold_to_leave */
    bool awaited; /* it has not run yet: instance_config.awaited */
    /* The guest has crashed, and starts anew when restart_timer has fired and nobody wants it to
     * stand still. */
    bool waiting, restart_is_due;
    bool ends;              /* by instance_stop: it shall not even begin */
    const char *stopped_by; /* who has asked for its end; NULL: nobody */
    uint64_t stopped_ns;    /* when */
    uint64_t paused_ns;     /* since when */
    unsigned crashes;       /* in a row */
    uint64_t run_since_ns;  /* this run, since power-on or the last crash */
    struct loop_timer restart_timer, tick_timer;
};

/* Fills machine_config; what it points to is in the instance or the definition. */
int instance_configure(struct instance *instance, struct err *err) must_check;

/* The table of the control socket's verbs (instance_verbs.c). */
extern const struct control_verb instance_verbs[];

/* On the loop's thread. Each says what has happened to watchers, and to the journal. */
void instance_pause(struct instance *instance, const char *why);
void instance_resume(struct instance *instance, const char *why);
int instance_reset(struct instance *instance, struct err *err) must_check;
/* A place's limits are these from now on. */
int instance_set_disk_limits(struct instance *instance, unsigned disk, const struct limits *limits,
                             struct err *err) must_check;
int instance_set_net_limits(struct instance *instance, unsigned net, const struct limits *limits,
                            struct err *err) must_check;
struct metrics_source instance_metrics(const struct instance *instance);
void instance_handle_trouble(void *ctx, const char *device, const char *sentence);
/* ERR_STATE: it does not run here as yet (instance_config.awaited). */
int instance_check_begun(const struct instance *instance, struct err *err) must_check;
/* The same; also: what is set now would be lost (instance_hold_to_leave). */
int instance_check_settable(const struct instance *instance, struct err *err) must_check;
const char *instance_state(const struct instance *instance); /* "running" ... */
