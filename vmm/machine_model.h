/* SPDX-License-Identifier: MIT */
/*
 * What a machine is, beside its state: what another one must be too to take that state over. It
 * travels ahead of the state, so that whoever is to go on can say at once that it cannot, and why.
 *
 * Of model-specific registers it has the numbers: one that this KVM does not know at all could not
 * be loaded later. One with a value that this KVM does not take is told of when it is loaded. A
 * model of version 1, as older snapshots have it, names none.
 */
#pragma once

#include "core/state.h"

struct machine;
struct machine_model;

/* An empty one, to be loaded. */
int machine_model_create(struct machine_model **ret_model, struct err *err) must_check;
/* Of this machine; paused or not. */
int machine_model_of(struct machine_model **ret_model, const struct machine *machine,
                     struct err *err) must_check;
void machine_model_destroy(struct machine_model *model); /* NULL is fine */

/* For saving and for loading it. */
struct state_item machine_model_item(struct machine_model *model);
uint64_t machine_model_memory(const struct machine_model *model); /* bytes, whole pages */

/* Whether this host can run such a machine at all, as far as KVM and its CPU decide that. */
int machine_model_check_host(const struct machine_model *wanted, struct err *err) must_check;

/*
 * Whether the state of a machine like `wanted` can go on in this one, which has been made for it.
 * ERR_STATE says what is missing: memory, vCPUs, a device.
 */
int machine_model_check(const struct machine_model *wanted, const struct machine *machine,
                        struct err *err) must_check;
