/* SPDX-License-Identifier: MIT */
/* What a VM does when it is asked through its control socket: docs/control-protocol.md. */
#include "core/clock.h"
#include "vmm/instance_parts.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

static const char *const no_keys[] = {NULL};

/* --- state ------------------------------------------------------------------------------------ */

static const char *format_word(enum disk_format format)
{
    return format == DISK_FORMAT_ANY ? "any" : disk_format_name(format);
}

static json_t *describe_disks(const struct instance *instance)
{
    json_t *disks = json_array();
    for (unsigned i = 0; i < instance->machine_config.disk_count; i++) {
        const struct disk_config *disk = &instance->disks[i];
        json_array_append_new(disks,
                              json_pack("{ss, ss, sb, sb}", "file", disk->path, "format",
                                        format_word(disk->format), "readonly", (int)disk->readonly,
                                        "ephemeral", (int)disk->ephemeral));
    }
    return disks;
}

static json_t *describe_nets(const struct instance *instance)
{
    static const char *const modes[] = {[NETIF_NONE] = "none",
                                        [NETIF_USER] = "user",
                                        [NETIF_PASST] = "passt",
                                        [NETIF_TAP] = "tap",
                                        [NETIF_BRIDGE] = "bridge"};
    json_t *nets = json_array();
    for (unsigned i = 0; i < instance->machine_config.net_count; i++) {
        const struct netif_config *net = &instance->nets[i];
        char mac[18];
        snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", net->mac[0], net->mac[1],
                 net->mac[2], net->mac[3], net->mac[4], net->mac[5]);
        json_array_append_new(nets, json_pack("{ss, ss, ss}", "mode", modes[net->mode], "name",
                                              net->name, "mac", mac));
    }
    return nets;
}

static int verb_status(void *ctx, struct control_request *request, const json_t *arguments,
                       json_t **ret_answer, struct err *err)
{
    struct instance *instance = ctx;
    const struct metrics_source source = instance_metrics(instance);
    int ret = control_check_keys(arguments, no_keys, err);
    if (ret < 0)
        return ret;
    int64_t now = (int64_t)(clock_wall_ns() / NS_PER_SEC);
    *ret_answer = json_pack(
        "{ss, ss, ss?, ss, sI, sI, sI, si, sI, sI, si, so, so, so}", "name", instance->config.name,
        "uuid", instance->uuid, "folder",
        instance->config.folder ? instance->config.folder->path : NULL, "state",
        instance_state(instance), "pid", (json_int_t)getpid(), "started",
        (json_int_t)instance->started, "uptime", (json_int_t)(now - instance->started), "cpus",
        (int)instance->machine_config.cpus, "memory", (json_int_t)instance->machine_config.memory,
        "balloon", (json_int_t)machine_balloon(instance->machine), "consoles",
        (int)console_hub_clients(instance->hub), "disks", describe_disks(instance), "nets",
        describe_nets(instance), "metrics", metrics_json(metrics_table, &source));
    if (*ret_answer && instance->part_began && instance->config.part->describe)
        instance->config.part->describe(instance->config.part->ctx, *ret_answer);
    return *ret_answer ? 0 : err_sys(err, ERR_HOST, ENOMEM, "cannot tell the state");
}

static int verb_metrics(void *ctx, struct control_request *request, const json_t *arguments,
                        json_t **ret_answer, struct err *err)
{
    const struct metrics_source source = instance_metrics(ctx);
    int ret = control_check_keys(arguments, no_keys, err);
    if (ret < 0)
        return ret;
    *ret_answer = metrics_json(metrics_table, &source);
    return *ret_answer ? 0 : err_sys(err, ERR_HOST, ENOMEM, "cannot tell the metrics");
}

/* --- going and standing ----------------------------------------------------------------------- */

/* Who asked for it hears that it is so when that is known where the VM would go on, too. */
static int share(struct instance *instance, struct control_request *request)
{
    const struct instance_part *part = instance->config.part;
    if (instance->part_began && part->share)
        part->share(part->ctx, request);
    return 0;
}

static int verb_pause(void *ctx, struct control_request *request, const json_t *arguments,
                      json_t **ret_answer, struct err *err)
{
    struct instance *instance = ctx;
    int ret = control_check_keys(arguments, no_keys, err);
    if (ret < 0)
        return ret;
    ret = instance_check_settable(instance, err);
    if (ret < 0)
        return ret;
    if (instance->paused)
        return err_say(err, ERR_STATE, EALREADY, "%s is paused already", instance->config.name);
    instance_pause(instance, "asked");
    return share(instance, request);
}

static int verb_resume(void *ctx, struct control_request *request, const json_t *arguments,
                       json_t **ret_answer, struct err *err)
{
    struct instance *instance = ctx;
    int ret = control_check_keys(arguments, no_keys, err);
    if (ret < 0)
        return ret;
    ret = instance_check_settable(instance, err);
    if (ret < 0)
        return ret;
    if (!instance->paused)
        return err_say(err, ERR_STATE, EALREADY, "%s is not paused", instance->config.name);
    instance_resume(instance, "asked");
    return share(instance, request);
}

/* For those who wonder where in its code a guest is. It stands still for a moment. */
static int verb_registers(void *ctx, struct control_request *request, const json_t *arguments,
                          json_t **ret_answer, struct err *err)
{
    struct instance *instance = ctx;
    bool runs = !instance_stands_still(instance);
    char text[VCPU_TEXT];
    int ret = control_check_keys(arguments, no_keys, err);
    if (ret < 0)
        return ret;
    json_t *vcpus = json_array();
    if (runs)
        machine_pause(instance->machine);
    for (unsigned i = 0; i < instance->machine_config.cpus; i++) {
        machine_describe_vcpu(instance->machine, i, text);
        json_array_append_new(vcpus, json_string(text));
    }
    if (runs)
        machine_resume(instance->machine);
    *ret_answer = json_pack("{so}", "vcpus", vcpus);
    return *ret_answer ? 0 : err_sys(err, ERR_HOST, ENOMEM, "cannot tell the registers");
}

static int verb_reset(void *ctx, struct control_request *request, const json_t *arguments,
                      json_t **ret_answer, struct err *err)
{
    int ret = control_check_keys(arguments, no_keys, err);
    return ret < 0 ? ret : instance_reset(ctx, err);
}

static int verb_stop(void *ctx, struct control_request *request, const json_t *arguments,
                     json_t **ret_answer, struct err *err)
{
    static const char *const keys[] = {"force", NULL};
    struct instance *instance = ctx;
    int ret = control_check_keys(arguments, keys, err);
    if (ret < 0)
        return ret;
    const char *state = instance->awaited ? instance_state(instance) : NULL;
    if (json_is_true(json_object_get(arguments, "force")))
        instance_stop(instance, "person");
    else if (instance_press_power_button(instance, "person"))
        state = NULL;
    *ret_answer = state ? json_pack("{ss}", "was", state) : NULL;
    return 0;
}

/* --- the console ------------------------------------------------------------------------------ */

static int verb_console(void *ctx, struct control_request *request, const json_t *arguments,
                        json_t **ret_answer, struct err *err)
{
    static const char *const keys[] = {"columns", "rows", NULL};
    struct instance *instance = ctx;
    int ret = control_check_keys(arguments, keys, err);
    if (ret < 0)
        return ret;
    json_int_t columns = json_integer_value(json_object_get(arguments, "columns"));
    json_int_t rows = json_integer_value(json_object_get(arguments, "rows"));
    if (columns > 0 && columns < 10000 && rows > 0 && rows < 10000)
        machine_set_console_size(instance->machine, (unsigned)columns, (unsigned)rows);
    if (console_hub_clients(instance->hub) >= HUB_MAX_CLIENTS)
        return err_say(err, ERR_STATE, EBUSY, "%d are at this console already", HUB_MAX_CLIENTS);
    int fd;
    void *early;
    size_t length;
    ret = control_take_over(request, NULL, &fd, &early, &length, err);
    if (ret < 0)
        return ret;
    ret = console_hub_attach(instance->hub, fd, early, length, err);
    free(early);
    return ret;
}

/* --- what can be changed while it runs -------------------------------------------------------- */

static int take_number(const json_t *arguments, const char *key, uint64_t *ret_number,
                       struct err *err)
{
    const json_t *value = json_object_get(arguments, key);
    if (!value)
        return 0;
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return err_say(err, ERR_USAGE, EINVAL, "set: %s must be a number, 0 or more", key);
    *ret_number = (uint64_t)json_integer_value(value);
    return 0;
}

static int take_limits(const json_t *arguments, const char *operations, struct limits *ret_limits,
                       bool *ret_there, struct err *err)
{
    const json_t *limits = json_object_get(arguments, "limits");
    const char *const keys[] = {operations, "bandwidth", NULL};
    *ret_there = limits;
    if (!limits)
        return 0;
    if (!json_is_object(limits))
        return err_say(err, ERR_USAGE, EINVAL, "set: limits must be an object");
    int ret = control_check_keys(limits, keys, err);
    if (ret == 0)
        ret = take_number(limits, operations, &ret_limits->operations, err);
    if (ret == 0)
        ret = take_number(limits, "bandwidth", &ret_limits->bytes, err);
    return ret;
}

static int set_disk(struct instance *instance, const json_t *arguments, struct err *err)
{
    static const char *const keys[] = {"disk", "limits", NULL};
    uint64_t index = 0;
    struct limits limits = {0};
    bool limited;
    int ret = control_check_keys(arguments, keys, err);
    if (ret == 0)
        ret = take_number(arguments, "disk", &index, err);
    if (ret == 0)
        ret = take_limits(arguments, "iops", &limits, &limited, err);
    if (ret < 0)
        return ret;
    if (!limited)
        return err_say(err, ERR_USAGE, EINVAL, "set: of a disk the limits can be changed");
    return instance_set_disk_limits(instance, (unsigned)index, &limits, err);
}

static int set_net(struct instance *instance, const json_t *arguments, struct err *err)
{
    static const char *const keys[] = {"net", "link", "limits", NULL};
    uint64_t index = 0;
    struct limits limits = {0};
    bool limited;
    const char *link = json_string_value(json_object_get(arguments, "link"));
    int ret = control_check_keys(arguments, keys, err);
    if (ret == 0)
        ret = take_number(arguments, "net", &index, err);
    if (ret == 0)
        ret = take_limits(arguments, "packets", &limits, &limited, err);
    if (ret < 0)
        return ret;
    if (link && strcmp(link, "up") != 0 && strcmp(link, "down") != 0)
        return err_say(err, ERR_USAGE, EINVAL, "set: link is up or down, not \"%s\"", link);
    if (link)
        ret = machine_set_link(instance->machine, (unsigned)index, strcmp(link, "up") == 0, err);
    if (ret == 0 && limited)
        ret = instance_set_net_limits(instance, (unsigned)index, &limits, err);
    return ret;
}

static int set_balloon(struct instance *instance, const json_t *arguments, struct err *err)
{
    static const char *const keys[] = {"balloon", NULL};
    uint64_t bytes = 0;
    int ret = control_check_keys(arguments, keys, err);
    if (ret == 0)
        ret = take_number(arguments, "balloon", &bytes, err);
    return ret < 0 ? ret : machine_set_balloon(instance->machine, bytes, err);
}

static int set(struct instance *instance, const json_t *arguments, struct err *err)
{
    if (json_object_get(arguments, "disk"))
        return set_disk(instance, arguments, err);
    if (json_object_get(arguments, "net"))
        return set_net(instance, arguments, err);
    if (json_object_get(arguments, "balloon"))
        return set_balloon(instance, arguments, err);
    return err_say(err, ERR_USAGE, EINVAL, "set: what? A disk, a net, or the balloon");
}

static int verb_set(void *ctx, struct control_request *request, const json_t *arguments,
                    json_t **ret_answer, struct err *err)
{
    int ret = instance_check_settable(ctx, err);
    if (ret == 0)
        ret = set(ctx, arguments, err);
    return ret < 0 ? ret : share(ctx, request);
}

const struct control_verb instance_verbs[] = {
    {"status", verb_status},       {"pause", verb_pause},
    {"resume", verb_resume},       {"reset", verb_reset},
    {"stop", verb_stop},           {"set", verb_set},
    {"console", verb_console},     {"metrics", verb_metrics},
    {"registers", verb_registers}, {NULL, NULL},
};
