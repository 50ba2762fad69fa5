/* SPDX-License-Identifier: MIT */
/*
 * A VM that runs, in this process: the machine, and all that speaks for it. The console's hub, the
 * control socket, the journal, metrics, what is done when the guest crashes.
 *
 *   definition + identity ──► instance ──► machine
 *                                ├── console_hub   the foreground terminal, `minivmm console`,
 * console.log ├── control       status, pause, resume, reset, stop, set, clone ... ├── metrics
 * Prometheus text └── journal       what befell it
 *
 * Everything happens on the main loop, which is the machine's.
 */
#pragma once

#include "vmm/definition.h"
#include "vmm/folder.h"
#include "vmm/identity.h"
#include "vmm/machine.h"

struct instance;

struct instance_config {
    const struct definition *definition;
    const struct identity *identity;
    const char *name;      /* for people */
    struct folder *folder; /* locked; NULL: an image by itself, without journal and log */
    bool ephemeral;        /* all disks */
    bool stop_at_reset;
    bool exit_port;
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
void instance_destroy(struct instance *instance); /* NULL and half-built are fine */

struct machine *instance_machine(struct instance *instance);

/*
 * Runs until the guest's end, or what instance_stop or a client asks for. A crash is no end where
 * the definition's restart policy says so: then the machine starts anew after a moment that grows
 * with each crash in a row.
 */
int instance_run(struct instance *instance, struct machine_end *ret_end,
                 struct err *err) must_check;

/* "signal", "person": who wants it, for the journal. On the loop's thread. */
void instance_press_power_button(struct instance *instance, const char *who);
void instance_stop(struct instance *instance, const char *who); /* at once */
size_t instance_input(struct instance *instance, const uint8_t *bytes, size_t length);
