/* SPDX-License-Identifier: MIT */
/* What people have set of a VM that runs: it goes along where the VM goes on elsewhere. */
#include "core/log.h"
#include "vmm/instance_parts.h"

static const struct state_field limits_fields[] = {
    STATE_FIELD_U64(struct limits, operations, .max = INT64_MAX),
    STATE_FIELD_U64(struct limits, bytes, .max = INT64_MAX),
};
static const struct state_table limits_table = {
    .name = "limits", .version = 1, STATE_TABLE_OF(struct limits, limits_fields)};

static const struct state_field fields[] = {
    STATE_FIELD_TABLE(struct instance_settings, disks, struct limits, &limits_table),
    STATE_FIELD_TABLE(struct instance_settings, nets, struct limits, &limits_table),
    STATE_FIELD_U32(struct instance_settings, disks_set, .max = (1u << MACHINE_MAX_DISKS) - 1),
    STATE_FIELD_U32(struct instance_settings, nets_set, .max = (1u << MACHINE_MAX_NETS) - 1),
    STATE_FIELD_BOOL(struct instance_settings, paused),
    STATE_FIELD_BYTES(struct instance_settings, reserved),
};
const struct state_table instance_settings_table = {
    .name = "settings", .version = 1, STATE_TABLE_OF(struct instance_settings, fields)};

int instance_set_disk_limits(struct instance *instance, unsigned disk, const struct limits *limits,
                             struct err *err)
{
    int ret = machine_set_disk_limits(instance->machine, disk, limits, err);
    if (ret < 0)
        return ret;
    instance->settings.disks[disk] = *limits;
    instance->settings.disks_set |= 1u << disk;
    return 0;
}

int instance_set_net_limits(struct instance *instance, unsigned net, const struct limits *limits,
                            struct err *err)
{
    int ret = machine_set_net_limits(instance->machine, net, limits, err);
    if (ret < 0)
        return ret;
    instance->settings.nets[net] = *limits;
    instance->settings.nets_set |= 1u << net;
    return 0;
}

void instance_settings(const struct instance *instance, struct instance_settings *ret_settings)
{
    *ret_settings = instance->settings;
    ret_settings->paused = instance->paused;
}

static void warn(const struct instance *instance, int ret, struct err *err)
{
    if (ret == 0)
        return;
    err_prefix(err, "%s: a limit that was set where it came from", instance->config.name);
    log_err(LOG_WARNING, err);
}

void instance_take_settings(struct instance *instance, const struct instance_settings *settings)
{
    struct err err = {0};
    for (unsigned i = 0; i < MACHINE_MAX_DISKS; i++)
        if (settings->disks_set >> i & 1)
            warn(instance, instance_set_disk_limits(instance, i, &settings->disks[i], &err), &err);
    for (unsigned i = 0; i < MACHINE_MAX_NETS; i++)
        if (settings->nets_set >> i & 1)
            warn(instance, instance_set_net_limits(instance, i, &settings->nets[i], &err), &err);
    if (settings->paused)
        instance_pause(instance, "it was paused where it came from");
}
