/* SPDX-License-Identifier: MIT */
/*
 * The source of a VM that moves to another host (ft/moving.h is what is said; ft/arrival.h is the
 * other end): the verbs "migrate" and "migrate-cancel" of its control socket.
 */
#pragma once

#include "vmm/control.h"
#include "vmm/instance.h"

struct migration;

int migration_create(struct migration **ret_migration, struct instance *instance,
                     struct err *err) must_check;

/*
 * {"to": "HOST[:PORT]", "key": PATH, "insecure": false, "downtime_ms": 300, "compress": false,
 * "shared_disk": false}.
 * Deferred: the answer comes when the VM runs there, and ends here; or goes on here.
 */
int migration_begin(struct migration *migration, struct control_request *request,
                    const json_t *arguments, struct err *err) must_check;
int migration_cancel(struct migration *migration, struct err *err) must_check;
bool migration_is_under_way(const struct migration *migration);
bool migration_has_moved(const struct migration *migration);

void migration_abandon(struct migration *migration); /* the VM ends; the machine is there */
void migration_destroy(struct migration *migration); /* abandoned; NULL is fine */
