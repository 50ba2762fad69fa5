/* SPDX-License-Identifier: MIT */
/*
 * A VM that survives the death of its host: the verbs "protect", "unprotect", "switchover" and
 * "epochs" of its control socket, and what becomes of it on either side.
 *
 *   protect ──► conductor    the protocol, its time, words and witness
 *      ├──────► outbox       what leaves the VM
 *      ├──────► primary      while it runs: has a twin follow it, again and again
 *      └──────► secondary    while it follows: then it takes over, and is a primary
 *
 * Everything here is on the main loop, where nothing else is said.
 */
#pragma once

#include "ft/protection.h"
#include "vmm/control.h"
#include "vmm/instance.h"

struct arrival;
struct protect;

int protect_create(struct protect **ret_protect, struct instance *instance,
                   struct err *err) must_check;
void protect_destroy(struct protect *protect); /* abandoned; NULL is fine */

/* The VM was protected when it ran last: it is awaited (instance_config), and is let go when the
 * witness has said that it is ours. */
int protect_resume(struct protect *protect, const struct protection *saved,
                   struct err *err) must_check;
/* It comes to follow: in the place of arrival_begin. */
int protect_follow(struct protect *protect, struct arrival *arrival, struct err *err) must_check;

/* The verbs. */
int protect_begin(struct protect *protect, struct control_request *request, const json_t *arguments,
                  struct err *err) must_check;
int protect_leave(struct protect *protect, struct control_request *request,
                  struct err *err) must_check;
int protect_switch_over(struct protect *protect, struct control_request *request,
                        struct err *err) must_check;
int protect_epochs(struct protect *protect, const json_t *arguments, json_t **ret_answer,
                   struct err *err) must_check;
/* instance_part.share: the answer has "twin": true when its twin has what was set, false where it
 * has not in time, nothing where there is none. */
void protect_share(struct protect *protect, struct control_request *request);
/* NULL: it is not protected. */
json_t *protect_describe(struct protect *protect);

/* What others may not do meanwhile: ERR_STATE says why. */
int protect_check_free(const struct protect *protect, const char *what, struct err *err) must_check;
/* It ended here because it runs elsewhere: NULL, or why. */
const struct err *protect_gone(const struct protect *protect);

/* It is awaited, and shall end: instance_part.give_up. */
bool protect_give_up(struct protect *protect);
void protect_abandon(struct protect *protect); /* the VM ends */
