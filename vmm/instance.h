/* SPDX-License-Identifier: MIT */
/*
 * A VM that runs, in this process: the machine, and all that speaks for it. The console's hub, the
 * control socket, the journal, metrics, what is done when the guest crashes.
 *
 *   definition + identity ──► instance ──► machine
 *                                ├── byte_gate ──► console_hub   the foreground terminal,
 *                                │                 `minivmm console`, console.log
 *                                ├── control       status, pause, resume, reset, stop, set, clone
 *                                ├── metrics       Prometheus text
 *                                └── journal       what befell it
 *
 * Everything happens on the main loop, which is the machine's.
 */
#pragma once

#include "core/state.h"
#include "vmm/definition.h"
#include "vmm/folder.h"
#include "vmm/identity.h"
#include "vmm/machine.h"
#include <jansson.h>

struct instance;
struct byte_gate;
struct control;
struct control_request;
struct control_verb;
struct metric;

/*
 * What a floor above adds to a VM that runs: verbs of its control socket, asked with `ctx`, and
 * what is done about them when the VM ends. On the loop's thread.
 */
struct instance_part {
    const struct control_verb *verbs;
    /* The machine is there, and stands still at power-on; its control socket may be missing. */
    int (*begin)(void *ctx, struct instance *instance, struct err *err);
    /* The VM is awaited (instance_config), and shall end. True: it is released no more, whatever
     * happens. False: too late, it is about to be, and goes on. NULL: it is never too late. */
    bool (*give_up)(void *ctx);
    void (*abandon)(void *ctx); /* the VM ends: who waits gets an answer. Always after a begin. */
    void (*finish)(void *ctx);  /* the machine is gone */
    /*
     * What somebody has set of the VM (paused or not, limits, a cable, its balloon) is so. Where it
     * is to be so elsewhere, too, the part defers the request, and answers. NULL: nowhere else.
     */
    void (*share)(void *ctx, struct control_request *request);
    void (*describe)(void *ctx, json_t *status); /* adds to what the verb "status" tells; or NULL */
    const struct metric *metrics; /* of its own; metrics_source.part is ctx; or NULL */
    void *ctx;
};

struct instance_config {
    const struct definition *definition;
    const struct identity *identity;
    const char *name;      /* for people */
    struct folder *folder; /* locked; NULL: an image by itself, without journal and log */
    bool ephemeral;        /* all disks */
    bool stop_at_reset;
    bool exit_port;
    bool blank;            /* machine_config.blank: the part brings a state */
    const char *awaited;   /* the state's name ("arriving"): it runs after instance_release; NULL */
    uint32_t absent_disks; /* by place: another VM has them, until the part's disk_regain */
    const struct instance_part *part; /* or NULL */
    /* The person in the foreground, who gets the console's bytes beside the hub. (any thread, must
     * not block); NULL: nobody. */
    void (*output)(void *ctx, const uint8_t *bytes, size_t length);
    void (*input_room)(void *ctx);
    void *ctx;
};

/* After: the machine stands at power-on, and its control socket answers once the loop runs. What is
 * pointed to outlives the instance. */
int instance_create(struct instance **ret_instance, const struct instance_config *config,
                    struct err *err) must_check;
/* Its end begins: nothing is written to its consoles any more when this returns. NULL is fine, and
 * twice. */
void instance_silence(struct instance *instance);
void instance_destroy(struct instance *instance); /* NULL and half-built are fine */

struct machine *instance_machine(struct instance *instance);

/*
 * What serial port and virtio console print passes here, before anybody sees it: the log, clients,
 * and config.output. Who lets it leave from another thread has ended that before the part's abandon
 * returns.
 */
struct byte_gate *instance_console_gate(struct instance *instance);

/* For its part. */
struct loop *instance_loop(struct instance *instance); /* the machine's */
const struct instance_config *instance_config(const struct instance *instance);
struct control *instance_control(struct instance *instance); /* NULL: without a socket */
/* The disks that the machine has are those of the definition, and perhaps a seed. */
unsigned instance_disks(const struct instance *instance);
bool instance_has_ephemeral(const struct instance *instance); /* a disk that the guest may change */
bool instance_stands_still(
    const struct instance *instance); /* paused, held, or waits for a restart */
/*
 * Stands still until the release, whatever anybody else wants; `state` is its name for people. What
 * resume, pause and reset ask for meanwhile is refused, or done afterwards.
 */
void instance_hold(struct instance *instance, const char *state);
/* The same where it is about to go on elsewhere, and has told there what was set: pause, resume and
 * set are refused, or would be lost. */
void instance_hold_to_leave(struct instance *instance, const char *state);
void instance_release(struct instance *instance);

/*
 * What people have set of a VM that runs, and neither vm.json nor the machine's state knows. It
 * holds until the VM's end, also where it goes on elsewhere. Layout: state_table_check().
 */
struct instance_settings {
    struct limits disks[MACHINE_MAX_DISKS], nets[MACHINE_MAX_NETS];
    uint32_t disks_set, nets_set; /* by place: whose limits were */
    bool paused;
    uint8_t reserved[7];
};

extern const struct state_table instance_settings_table;

void instance_settings(const struct instance *instance, struct instance_settings *ret_settings);
/* They were set elsewhere; before the release. What this machine cannot do is worth a warning. */
void instance_take_settings(struct instance *instance, const struct instance_settings *settings);

/* The VM stood still for something other than a pause: worth a line in the journal, if it was long.
 */
void instance_note_pause(struct instance *instance, const char *why, uint64_t ns);
/* A line of the journal (vmm/journal.h); takes fields over. On the loop's thread. */
void instance_note(struct instance *instance, const char *event, json_t *fields);

/*
 * Runs until the guest's end, or what instance_stop or a client asks for. A crash is no end where
 * the definition's restart policy says so: then the machine starts anew after a moment that grows
 * with each crash in a row.
 */
int instance_run(struct instance *instance, struct machine_end *ret_end,
                 struct err *err) must_check;

/*
 * "signal", "person": who wants it, for the journal. On the loop's thread. True: its guest feels
 * it. False: there is none as yet, the VM is awaited, and ends at once.
 */
bool instance_press_power_button(struct instance *instance, const char *who);
void instance_stop(struct instance *instance, const char *who); /* at once */
size_t instance_input(struct instance *instance, const uint8_t *bytes, size_t length);
