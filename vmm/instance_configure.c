/* SPDX-License-Identifier: MIT */
/* A definition and an identity, and what they come to as a machine. */
#include "core/zero.h"
#include "vmm/instance_parts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- the seed --------------------------------------------------------------------------------- */

/* The seed stands behind the other disks. cloud-init begins anew for another VM: a clone gets its
 * own host keys. */
static int add_seed(struct instance *instance, struct err *err)
{
    struct seed_config seed = instance->config.definition->seed;
    const char *key_file = instance->config.definition->seed_key_file;
    unsigned index = instance->machine_config.disk_count;
    if (index == MACHINE_MAX_DISKS)
        return err_say(err, ERR_USAGE, EINVAL,
                       "the seed is a disk too: a VM has at most %d disks, and all are taken",
                       MACHINE_MAX_DISKS);
    int ret = key_file ? seed_read_keys(key_file, &instance->seed_key, err) : 0;
    if (ret < 0)
        return ret;
    if (key_file)
        seed.key = instance->seed_key;
    if (is_zero(seed.instance, sizeof(seed.instance)))
        memcpy(seed.instance, instance->config.identity->uuid, sizeof(seed.instance));
    struct disk_config *disk = &instance->disks[index];
    ret = seed_make(&seed, &instance->seed_disk, &disk->byte_count, err);
    if (ret < 0)
        return ret;
    disk->path = "the seed";
    disk->bytes = instance->seed_disk;
    disk->readonly = true;
    disk->queues = 1;
    instance->machine_config.disk_count++;
    return 0;
}

/* --- disks, networks, vsock ------------------------------------------------------------------- */

static int add_disks(struct instance *instance, struct err *err)
{
    const struct definition *definition = instance->config.definition;
    for (unsigned i = 0; i < definition->disk_count; i++) {
        struct disk_config *disk = &instance->disks[i];
        *disk = definition->disks[i];
        disk->ephemeral |= instance->config.ephemeral;
        disk->point = disk->tap = instance->config.folder;
        disk->absent = instance->config.absent_disks >> i & 1;
        /* A disk by itself has no lasting identity: better no number than another one each time. */
        if (!disk->serial[0] && instance->config.folder)
            identity_disk_serial(instance->config.identity, i, disk->serial);
    }
    instance->machine_config.disks = instance->disks;
    instance->machine_config.disk_count = definition->disk_count;
    return definition->has_seed ? add_seed(instance, err) : 0;
}

static void add_nets(struct instance *instance)
{
    const struct definition *definition = instance->config.definition;
    const struct identity *identity = instance->config.identity;
    unsigned count = 0;
    if (!definition->nets_said) {
        instance->nets[count++] = (struct netif_config){.mode = NETIF_USER};
        instance->machine_config.net_optional = true;
    }
    for (unsigned i = 0; i < definition->net_count; i++)
        instance->nets[count++] = definition->nets[i];
    for (unsigned i = 0; i < count; i++) {
        instance->nets[i].gate = instance->config.folder;
        if (is_zero(instance->nets[i].mac, 6))
            memcpy(instance->nets[i].mac, identity->macs[i], 6);
    }
    instance->machine_config.nets = instance->nets;
    instance->machine_config.net_count = count;
}

static int add_vsock(struct instance *instance, struct err *err)
{
    const struct definition *definition = instance->config.definition;
    if (!definition->vsock)
        return 0;
    const char *path = definition->vsock_path;
    if (!path)
        path = instance->vsock_path = runtime_path(&instance->runtime, "vsock.sock");
    if (!path)
        return err_sys(err, ERR_HOST, ENOMEM, "%s: cannot name the vsock", instance->config.name);
    instance->machine_config.vsock = (struct vsock_config){
        .cid = definition->vsock_cid ? definition->vsock_cid : 3, .path = path};
    return 0;
}

/* --- the console ------------------------------------------------------------------------------ */

static void handle_output(void *ctx, const uint8_t *bytes, size_t length)
{
    const struct instance *instance = ctx;
    byte_gate_write(instance->console_gate, bytes, length);
}

static size_t handle_output_takes(void *ctx)
{
    const struct instance *instance = ctx;
    return byte_gate_takes(instance->console_gate);
}

static void handle_input_room(void *ctx)
{
    struct instance *instance = ctx;
    console_hub_input_room(instance->hub);
    if (instance->config.input_room)
        instance->config.input_room(instance->config.ctx);
}

static void handle_leaves(void *ctx, const uint8_t *bytes, size_t length)
{
    struct instance *instance = ctx;
    console_hub_write(instance->hub, bytes, length);
    if (instance->config.output)
        instance->config.output(instance->config.ctx, bytes, length);
}

static void handle_output_room(void *ctx)
{
    const struct instance *instance = ctx;
    machine_output_room(instance->machine);
}

/* Both speak to the same people, through one gate. */
static int add_consoles(struct instance *instance, struct err *err)
{
    const struct byte_gate_handlers handlers = {
        .output = handle_leaves, .room = handle_output_room, .ctx = instance};
    instance->serial = (struct serial_host){.output = handle_output,
                                            .input_room = handle_input_room,
                                            .output_takes = handle_output_takes,
                                            .ctx = instance};
    instance->console = (struct console_host){.output = handle_output,
                                              .input_room = handle_input_room,
                                              .output_takes = handle_output_takes,
                                              .ctx = instance};
    instance->machine_config.serial = &instance->serial;
    if (instance->config.definition->console_virtio)
        instance->machine_config.console = &instance->console;
    return byte_gate_create(&instance->console_gate, &handlers, err);
}

/* --- all of it -------------------------------------------------------------------------------- */

/* A kernel started by itself speaks where a person listens. */
static const char *command_line(const struct definition *definition)
{
    if (!definition->kernel || definition->cmdline)
        return definition->cmdline;
    return definition->console_virtio ? "console=ttyS0 console=hvc0" : "console=ttyS0";
}

int instance_configure(struct instance *instance, struct err *err)
{
    const struct definition *definition = instance->config.definition;
    struct machine_config *machine = &instance->machine_config;
    *machine = (struct machine_config){.kernel = definition->kernel,
                                       .initrd = definition->initrd,
                                       .cmdline = command_line(definition),
                                       .cpus = definition->cpus,
                                       .cpu = definition->cpu,
                                       .memory = definition->memory,
                                       .stop_at_reset = instance->config.stop_at_reset,
                                       .exit_port = instance->config.exit_port,
                                       .blank = instance->config.blank,
                                       .no_balloon = definition->no_balloon,
                                       .balloon = definition->balloon,
                                       .disk_limits = definition->disk_limits,
                                       .net_limits = definition->net_limits,
                                       .limits_may_change = true,
                                       .trouble = instance_handle_trouble,
                                       .ctx = instance};
    memcpy(machine->uuid, instance->config.identity->uuid, sizeof(machine->uuid));
    memcpy(machine->generation, instance->config.identity->generation, sizeof(machine->generation));
    add_nets(instance);
    int ret = add_consoles(instance, err);
    if (ret == 0)
        ret = add_disks(instance, err);
    return ret < 0 ? ret : add_vsock(instance, err);
}
