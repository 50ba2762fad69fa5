/* SPDX-License-Identifier: MIT */
#include "cli/new_text.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

/* "2G": the largest unit in which it is whole. */
static json_t *size_of(uint64_t bytes)
{
    static const char units[] = "KMGT";
    char text[32];
    int unit = -1;

    while (unit < 3 && bytes && bytes % 1024 == 0) {
        bytes /= 1024;
        unit++;
    }
    snprintf(text, sizeof(text), "%llu%.1s", (unsigned long long)bytes,
             unit < 0 ? "" : units + unit);
    return json_string(text);
}

static void put_flag(json_t *object, const char *key, bool is_said, bool value)
{
    if (is_said)
        json_object_set_new(object, key, json_boolean(value));
}

static void put_number(json_t *object, const char *key, uint64_t number)
{
    if (number)
        json_object_set_new(object, key, json_integer((json_int_t)number));
}

static void put_size(json_t *object, const char *key, uint64_t bytes)
{
    if (bytes)
        json_object_set_new(object, key, size_of(bytes));
}

static void put_text(json_t *object, const char *key, const char *text)
{
    if (text && text[0])
        json_object_set_new(object, key, json_string(text));
}

/* What has nothing in it is not said. */
static void put_object(json_t *object, const char *key, json_t *inner)
{
    if (json_object_size(inner) > 0)
        json_object_set(object, key, inner);
    json_decref(inner);
}

/* --- disks ------------------------------------------------------------------------------------ */

static json_t *disk_of(const struct disk_config *disk)
{
    static const char *const engines[] = {
        [DISK_ENGINE_URING] = "io_uring", [DISK_ENGINE_THREADS] = "threads"};
    json_t *object = json_object(), *limits = json_object();

    put_text(object, "file", disk->path);
    put_text(object, "format", disk_format_name(disk->format));
    put_flag(object, "readonly", disk->readonly, true);
    put_text(object, "cache", disk->write_through ? "writethrough" : disk->direct ? "none" : NULL);
    put_flag(object, "direct", disk->write_through && disk->direct, true);
    put_flag(object, "discard", disk->no_discard, false);
    if (disk->engine != DISK_ENGINE_AUTO)
        put_text(object, "engine", engines[disk->engine]);
    put_number(object, "queues", disk->queues);
    put_text(object, "serial", disk->serial);
    put_number(object, "block_size", disk->block_size);
    put_number(limits, "iops", disk->iops);
    put_size(limits, "bandwidth", disk->bandwidth);
    put_object(object, "limits", limits);
    return object;
}

/* --- nets ------------------------------------------------------------------------------------- */

static json_t *forward_of(const struct netif_forward *forward)
{
    char text[96];
    bool ipv6 = forward->ipv6 && forward->host_address[0];

    snprintf(text, sizeof(text), "%s%s%s%s%u:%u%s", ipv6 ? "[" : "", forward->host_address,
             ipv6 ? "]" : "", forward->host_address[0] ? ":" : "", forward->host_port,
             forward->guest_port, forward->udp ? "/udp" : "");
    return json_string(text);
}

static json_t *net_of(const struct netif_config *net)
{
    static const char *const modes[] = {[NETIF_NONE] = "none",
                                        [NETIF_USER] = "user",
                                        [NETIF_PASST] = "passt",
                                        [NETIF_TAP] = "tap",
                                        [NETIF_BRIDGE] = "bridge"};
    static const uint8_t no_mac[6];
    json_t *object = json_object(), *forwards = json_array();
    char mac[18];

    put_text(object, "mode", modes[net->mode]);
    if (net->mode == NETIF_TAP || net->mode == NETIF_BRIDGE)
        put_text(object, modes[net->mode], net->name);
    snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", net->mac[0], net->mac[1],
             net->mac[2], net->mac[3], net->mac[4], net->mac[5]);
    if (memcmp(net->mac, no_mac, sizeof(no_mac)) != 0)
        put_text(object, "mac", mac);
    put_number(object, "queues", net->queues);
    put_number(object, "mtu", net->mtu);
    for (unsigned i = 0; i < net->forward_count; i++)
        json_array_append_new(forwards, forward_of(&net->forwards[i]));
    if (json_array_size(forwards) > 0)
        json_object_set(object, "forwards", forwards);
    json_decref(forwards);
    return object;
}

/* --- the whole -------------------------------------------------------------------------------- */

static json_t *seed_of(const struct definition *definition)
{
    json_t *object = json_object();

    put_text(object, "user", definition->seed.user);
    put_text(object, "key", definition->seed_key_file);
    put_text(object, "password", definition->seed.password);
    put_text(object, "hostname", definition->seed.hostname);
    return object;
}

char *new_text(const struct definition *definition)
{
    json_t *root = json_object(), *disks = json_array(), *nets = json_array();
    char *text = NULL, *whole = NULL;

    put_number(root, "cpus", definition->cpus);
    put_size(root, "memory", definition->memory);
    for (unsigned i = 0; i < definition->disk_count; i++)
        json_array_append_new(disks, disk_of(&definition->disks[i]));
    json_object_set(root, "disks", disks);
    for (unsigned i = 0; i < definition->net_count; i++)
        json_array_append_new(nets, net_of(&definition->nets[i]));
    if (definition->nets_said)
        json_object_set(root, "nets", nets);
    if (definition->has_seed)
        json_object_set_new(root, "seed", seed_of(definition));
    json_decref(disks);
    json_decref(nets);
    text = json_dumps(root, JSON_INDENT(2));
    json_decref(root);
    if (text && asprintf(&whole, "%s\n", text) < 0)
        whole = NULL;
    free(text);
    return whole;
}
