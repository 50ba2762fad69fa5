/* SPDX-License-Identifier: MIT */
#include "ft/part.h"

#include "ft/arrival.h"
#include "ft/changes_file.h"
#include "ft/copies.h"
#include "ft/migration.h"
#include "ft/protect.h"
#include "ft/protect_metrics.h"
#include "vmm/control.h"

#include <errno.h>
#include <stdlib.h>

struct ft_part {
    struct instance_part part;
    struct ft_part_config config;
    struct instance *instance;
    struct copies *copies;
    struct migration *migration;
    struct protect *protect;
};

static const char *const no_keys[] = {NULL};

static int busy(const struct ft_part *part, struct err *err)
{
    const char *name = instance_config(part->instance)->name;
    if (copies_are_under_way(part->copies))
        return err_say(err, ERR_STATE, EBUSY, "%s is just being copied", name);
    if (migration_is_under_way(part->migration))
        return err_say(err, ERR_STATE, EBUSY, "%s is just moving to another host", name);
    return 0;
}

/* What moves here is not ours as yet. */
static int check_come(const struct ft_part *part, struct err *err)
{
    const struct arrival *arrival = part->config.arrival;
    if (!arrival || arrival_follows(arrival) || arrival_has_come(arrival))
        return 0;
    return err_say(err, ERR_STATE, EBUSY, "%s is just arriving from another host",
                   instance_config(part->instance)->name);
}

static int verb_clone(void *ctx, struct control_request *request, const json_t *arguments,
                      json_t **ret_answer, struct err *err)
{
    struct ft_part *part = ctx;
    int ret = busy(part, err);
    if (ret == 0)
        ret = protect_check_free(part->protect, "be copied", err);
    if (ret == 0)
        ret = check_come(part, err);
    return ret < 0 ? ret : copies_clone(part->copies, request, arguments, err);
}

static int verb_migrate(void *ctx, struct control_request *request, const json_t *arguments,
                        json_t **ret_answer, struct err *err)
{
    struct ft_part *part = ctx;
    int ret = busy(part, err);
    if (ret == 0)
        ret = protect_check_free(part->protect, "move", err);
    if (ret == 0)
        ret = check_come(part, err);
    return ret < 0 ? ret : migration_begin(part->migration, request, arguments, err);
}

static int verb_migrate_cancel(void *ctx, struct control_request *request, const json_t *arguments,
                               json_t **ret_answer, struct err *err)
{
    struct ft_part *part = ctx;
    int ret = control_check_keys(arguments, no_keys, err);
    return ret < 0 ? ret : migration_cancel(part->migration, err);
}

static int verb_protect(void *ctx, struct control_request *request, const json_t *arguments,
                        json_t **ret_answer, struct err *err)
{
    struct ft_part *part = ctx;
    int ret = busy(part, err);
    if (ret == 0)
        ret = check_come(part, err);
    return ret < 0 ? ret : protect_begin(part->protect, request, arguments, err);
}

static int verb_unprotect(void *ctx, struct control_request *request, const json_t *arguments,
                          json_t **ret_answer, struct err *err)
{
    struct ft_part *part = ctx;
    int ret = control_check_keys(arguments, no_keys, err);
    return ret < 0 ? ret : protect_leave(part->protect, request, err);
}

static int verb_switchover(void *ctx, struct control_request *request, const json_t *arguments,
                           json_t **ret_answer, struct err *err)
{
    struct ft_part *part = ctx;
    int ret = control_check_keys(arguments, no_keys, err);
    return ret < 0 ? ret : protect_switch_over(part->protect, request, err);
}

static int verb_epochs(void *ctx, struct control_request *request, const json_t *arguments,
                       json_t **ret_answer, struct err *err)
{
    struct ft_part *part = ctx;
    return protect_epochs(part->protect, arguments, ret_answer, err);
}

static const struct control_verb verbs[] = {
    {"clone", verb_clone},
    {"migrate", verb_migrate},
    {"migrate-cancel", verb_migrate_cancel},
    {"protect", verb_protect},
    {"unprotect", verb_unprotect},
    {"switchover", verb_switchover},
    {"epochs", verb_epochs},
    {NULL, NULL},
};

/* --- life ------------------------------------------------------------------------------------- */

static int load(struct ft_part *part, struct err *err)
{
    struct machine *machine = instance_machine(part->instance);
    int ret = snapshot_load(part->config.restore, machine, err);
    if (ret < 0)
        return ret;
    machine_set_generation(machine, instance_config(part->instance)->identity->generation);
    machine_announce(machine);
    return 0;
}

/* It runs unprotected, and what it writes is not noted. */
static int forget_changes(struct ft_part *part, struct err *err)
{
    const struct protection *protection = part->config.protection;
    const struct folder *folder = instance_config(part->instance)->folder;
    if (!folder || (protection && protection->role != PROTECTION_OFF))
        return 0;
    int ret = changes_file_check(folder->fd, folder->name, err);
    if (ret < 0)
        return ret;
    ret = changes_file_remove(folder->fd);
    return ret < 0 ? err_sys(err, ERR_FAILED, -ret, "cannot remove " FOLDER_CHANGES) : 0;
}

static int handle_begin(void *ctx, struct instance *instance, struct err *err)
{
    struct ft_part *part = ctx;
    part->instance = instance;
    int ret = copies_create(&part->copies, instance, part->config.definition, err);
    if (ret == 0)
        ret = migration_create(&part->migration, instance, err);
    if (ret == 0 && part->config.restore)
        ret = load(part, err);
    if (ret == 0)
        ret = protect_create(&part->protect, instance, err);
    if (ret == 0 && !part->config.arrival)
        ret = forget_changes(part, err);
    if (ret == 0 && part->config.protection)
        ret = protect_resume(part->protect, part->config.protection, err);
    if (ret == 0 && part->config.arrival)
        ret = arrival_follows(part->config.arrival)
                  ? protect_follow(part->protect, part->config.arrival, err)
                  : arrival_begin(part->config.arrival, instance, err);
    return ret;
}

static bool handle_give_up(void *ctx)
{
    struct ft_part *part = ctx;
    struct arrival *arrival = part->config.arrival;
    return arrival && !arrival_follows(arrival) ? arrival_give_up(arrival)
                                                : protect_give_up(part->protect);
}

static void handle_abandon(void *ctx)
{
    struct ft_part *part = ctx;
    if (part->copies)
        copies_abandon(part->copies);
    if (part->migration)
        migration_abandon(part->migration);
    if (part->protect)
        protect_abandon(part->protect);
    if (part->config.arrival)
        arrival_abandon(part->config.arrival);
}

static void handle_describe(void *ctx, json_t *status)
{
    struct ft_part *part = ctx;
    json_t *protection = part->protect ? protect_describe(part->protect) : NULL;
    if (protection)
        json_object_set_new(status, "protection", protection);
}

static void handle_share(void *ctx, struct control_request *request)
{
    struct ft_part *part = ctx;
    if (part->protect)
        protect_share(part->protect, request);
}

static void handle_finish(void *ctx)
{
    struct ft_part *part = ctx;
    copies_destroy(part->copies);
    part->copies = NULL;
}

int ft_part_create(struct ft_part **ret_part, const struct ft_part_config *config, struct err *err)
{
    struct ft_part *part = calloc(1, sizeof(*part));
    if (!part)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot make room for copies of the VM");
    part->config = *config;
    part->part = (struct instance_part){.verbs = verbs,
                                        .begin = handle_begin,
                                        .give_up = handle_give_up,
                                        .abandon = handle_abandon,
                                        .finish = handle_finish,
                                        .share = handle_share,
                                        .describe = handle_describe,
                                        .metrics = protect_metrics,
                                        .ctx = part};
    *ret_part = part;
    return 0;
}

const struct instance_part *ft_part_of(struct ft_part *part)
{
    return &part->part;
}

struct protect *ft_part_protect(const struct ft_part *part)
{
    return part->protect;
}

bool ft_part_has_moved(const struct ft_part *part)
{
    return part && part->migration && migration_has_moved(part->migration);
}

const struct err *ft_part_gone(const struct ft_part *part)
{
    return part && part->protect ? protect_gone(part->protect) : NULL;
}

void ft_part_destroy(struct ft_part *part)
{
    if (!part)
        return;
    migration_destroy(part->migration);
    protect_destroy(part->protect);
    free(part);
}
