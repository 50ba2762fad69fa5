/* SPDX-License-Identifier: MIT */
/*
 * How virtio devices come into the machine's list, and the two kinds that stand on something of the
 * host: disks and network interfaces.
 */
#include "core/clock.h"
#include "firmware/x86/layout.h"
#include "host/disk_limit.h"
#include "vmm/machine_parts.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

/* The transport stands before the device that it carries: it resumes first and pauses last. */
int machine_plug(struct machine *machine, unsigned slot, struct virtio *virtio, struct err *err)
{
    struct virtio_pci_config config = {.bus = machine->pci,
                                       .slot = slot,
                                       .router = routes_router(machine->routes),
                                       .doorbells = &machine->doorbells};
    struct virtio_pci *transport;
    int ret = virtio_pci_create(&transport, &config, virtio, err);
    if (ret == 0)
        machine_add_device(machine, virtio_pci_device(transport));
    machine_add_device(machine, &virtio->device);
    return ret;
}

/* On any thread. */
static void tell_trouble(const struct machine *machine, const char *device, const char *sentence)
{
    log_warning("%s", sentence);
    if (machine->config.trouble)
        machine->config.trouble(machine->config.ctx, device, sentence);
}

/* --- limits ----------------------------------------------------------------------------------- */

static int make_shared(struct shared_limits **limits, const struct limits *wanted, bool may_change,
                       struct err *err)
{
    if (!wanted->operations && !wanted->bytes && !may_change)
        return 0;
    return shared_limits_create(limits, wanted, err);
}

int machine_make_limits(struct machine *machine, struct err *err)
{
    const struct machine_config *config = &machine->config;
    int ret = make_shared(&machine->disk_limits, &config->disk_limits, config->limits_may_change,
                          err);
    if (ret == 0)
        ret = make_shared(&machine->net_limits, &config->net_limits, config->limits_may_change,
                          err);
    return ret;
}

static int say_fixed(struct err *err)
{
    return err_say(err, ERR_STATE, ENOTSUP, "the limits of this VM cannot change while it runs");
}

static int say_missing(const char *what, unsigned index, unsigned count, struct err *err)
{
    err_say(err, ERR_NOT_FOUND, ENOENT, "there is no %s%u", what, index);
    if (count > 1)
        err_hint(err, "this VM has %s0 to %s%u", what, what, count - 1);
    else if (count == 1)
        err_hint(err, "this VM has %s0", what);
    return -ENOENT;
}

static int find_net(struct machine *machine, unsigned index, struct err *err)
{
    if (index >= machine->config.net_count)
        return say_missing("net", index, machine->config.net_count, err);
    if (!machine->nets[index].net)
        return err_say(err, ERR_STATE, ENODEV, "this VM runs without its network");
    return 0;
}

int machine_set_link(struct machine *machine, unsigned net, bool up, struct err *err)
{
    int ret = find_net(machine, net, err);
    if (ret == 0)
        net_set_link(machine->nets[net].net, up);
    return ret;
}

int machine_set_net_limits(struct machine *machine, unsigned net, const struct limits *limits,
                           struct err *err)
{
    int ret = find_net(machine, net, err);
    if (ret < 0)
        return ret;
    return netif_set_limits(machine->nets[net].netif, limits) < 0 ? say_fixed(err) : 0;
}

int machine_set_disk_limits(struct machine *machine, unsigned disk, const struct limits *limits,
                            struct err *err)
{
    if (disk >= machine->config.disk_count)
        return say_missing("disk", disk, machine->config.disk_count, err);
    return disk_set_limits(machine->disks[disk].disk, limits) < 0 ? say_fixed(err) : 0;
}

int machine_set_shared_limits(struct machine *machine, const struct limits *disks,
                              const struct limits *nets, struct err *err)
{
    if ((disks && !machine->disk_limits) || (nets && !machine->net_limits))
        return say_fixed(err);
    if (disks)
        shared_limits_set(machine->disk_limits, disks);
    if (nets)
        shared_limits_set(machine->net_limits, nets);
    return 0;
}

int machine_set_balloon(struct machine *machine, uint64_t bytes, struct err *err)
{
    if (!machine->balloon)
        return err_say(err, ERR_STATE, ENODEV, "this VM has no balloon");
    if (bytes >= machine->config.memory)
        return err_say(err, ERR_USAGE, EINVAL, "a balloon of %llu MiB: the VM has %llu",
                       (unsigned long long)bytes >> 20,
                       (unsigned long long)machine->config.memory >> 20);
    balloon_set_target(machine->balloon, bytes);
    return 0;
}

uint64_t machine_balloon(struct machine *machine)
{
    return machine->balloon ? balloon_actual(machine->balloon) : 0;
}

/* --- disks ---------------------------------------------------------------------------------- */

/*
 * The guest gets an I/O error; the person, a word for each new kind of error, and again after a
 * minute. A guest may be able to make errors of two kinds in turn: so a second is the least between
 * two words. On the disk's thread.
 */
static void handle_disk_failed(void *ctx, enum disk_op op, uint64_t offset, int error)
{
    static const char *const names[] = {[DISK_READ] = "read",
                                        [DISK_WRITE] = "write",
                                        [DISK_FLUSH] = "flush",
                                        [DISK_DISCARD] = "discard",
                                        [DISK_ZEROES] = "write of zeroes"};
    struct machine_disk *disk = ctx;
    uint64_t now = clock_monotonic_ns();
    uint64_t rest = (disk->told == error ? 60 : 1) * NS_PER_SEC;
    if (disk->told && now - disk->told_ns < rest)
        return;
    disk->told = error;
    disk->told_ns = now;
    char sentence[400], words[64];
    snprintf(sentence, sizeof(sentence),
             "%s: %s at byte %llu failed: %s; the guest gets I/O errors%s", disk->path, names[op],
             (unsigned long long)offset, strerror_r(error, words, sizeof(words)),
             error == ENOSPC ? " until there is room again" : "");
    tell_trouble(disk->machine, disk->name, sentence);
}

/* Once for each thing: it needs no limit. */
static void handle_disk_trouble(void *ctx, const char *sentence)
{
    const struct machine_disk *disk = ctx;
    tell_trouble(disk->machine, disk->name, sentence);
}

int machine_add_disk(struct machine *machine, unsigned index, struct err *err)
{
    const struct disk_config *config = &machine->config.disks[index];
    struct disk_config limited = *config;
    struct machine_disk *disk = &machine->disks[index];
    disk->machine = machine;
    disk->path = config->path;
    limited.shared = machine->disk_limits;
    limited.limits_may_change |= machine->config.limits_may_change;
    int ret = disk_open(&disk->disk, &limited, err);
    if (ret < 0)
        return ret;
    bool boots = index == 0 && !machine->config.kernel;
    if (config->format == DISK_FORMAT_ANY && !config->bytes)
        log_line(boots ? LOG_INFO : LOG_DEBUG, "%s is a %s disk", disk->path,
                 disk_format_name(disk->disk->info.format));

    snprintf(disk->name, sizeof(disk->name), "disk%u", index);
    unsigned queues = config->queues ? config->queues : machine->config.cpus;
    struct blk_config blk_config = {.name = disk->name,
                                    .disk = disk->disk,
                                    .queues = queues < BLK_MAX_QUEUES ? queues : BLK_MAX_QUEUES,
                                    .failed = handle_disk_failed,
                                    .trouble = handle_disk_trouble,
                                    .ctx = disk};
    memcpy(blk_config.serial, config->serial, sizeof(blk_config.serial));
    ret = blk_create(&disk->blk, &machine->virtio_world, &blk_config, err);
    if (ret < 0)
        return ret;
    return machine_plug(machine, LAYOUT_SLOT_DISK + index, blk_virtio(disk->blk), err);
}

struct disk *machine_disk(struct machine *machine, unsigned index)
{
    return machine->disks[index].disk;
}

static int handle_drive_read(void *ctx, uint64_t offset, const struct iovec *iov, unsigned count)
{
    const struct machine_disk *disk = ctx;
    return blk_transfer(disk->blk, DISK_READ, offset, iov, count);
}

static int handle_drive_write(void *ctx, uint64_t offset, const struct iovec *iov, unsigned count)
{
    const struct machine_disk *disk = ctx;
    return blk_transfer(disk->blk, DISK_WRITE, offset, iov, count);
}

void machine_show_drives(struct machine *machine)
{
    for (unsigned i = 0; i < machine->config.disk_count; i++) {
        struct machine_disk *disk = &machine->disks[i];
        machine->drives[i] = (struct bios_drive){.name = disk->path,
                                                 .size = disk->disk->info.size,
                                                 .block_size = disk->disk->info.block_size,
                                                 .readonly = disk->disk->info.readonly,
                                                 .read = handle_drive_read,
                                                 .write = handle_drive_write,
                                                 .ctx = disk};
    }
}

void machine_interrupt_disks(struct machine *machine, bool interrupt)
{
    for (unsigned i = 0; i < machine->config.disk_count; i++)
        if (machine->disks[i].blk)
            blk_interrupt(machine->disks[i].blk, interrupt);
}

/* --- network interfaces ----------------------------------------------------------------------- */

static void handle_net_trouble(void *ctx, const char *sentence)
{
    struct machine_net *net = ctx;
    uint64_t swallowed;
    if (!log_limit_pass(&net->limit, &swallowed))
        return;
    char whole[400];
    snprintf(whole, sizeof(whole), "%s: %s", net->name, sentence);
    tell_trouble(net->machine, net->name, whole);
}

static void handle_announced(void *ctx)
{
    struct machine *machine = ((struct machine_net *)ctx)->machine;
    struct loop_call *call = atomic_exchange(&machine->announced_call, NULL);
    if (call)
        loop_post(machine->loop, call);
}

int machine_add_net(struct machine *machine, unsigned index, struct err *err)
{
    struct netif_config config = machine->config.nets[index];
    struct machine_net *net = &machine->nets[index];
    net->machine = machine;
    net->limit.burst = 4;
    if (config.queues == 0)
        config.queues = machine->config.cpus;
    if (config.queues > NETIF_MAX_QUEUES)
        config.queues = NETIF_MAX_QUEUES;
    config.shared = machine->net_limits;
    config.limits_may_change |= machine->config.limits_may_change;
    struct err why = {0};
    int ret = netif_open(&net->netif, &config, &why);
    if (ret < 0 && machine->config.net_optional) {
        err_prefix(&why, "this VM has no network");
        log_err(LOG_WARNING, &why);
        return 0;
    }
    if (ret < 0) {
        if (err)
            *err = why;
        return ret;
    }

    snprintf(net->name, sizeof(net->name), "net%u", index);
    unsigned most = net->netif->info.max_queues;
    struct net_config net_config = {.name = net->name,
                                    .netif = net->netif,
                                    .queues = config.queues < most ? config.queues : most,
                                    .mtu = config.mtu ? config.mtu : net->netif->info.mtu,
                                    .trouble = handle_net_trouble,
                                    .announced = handle_announced,
                                    .ctx = net};
    memcpy(net_config.mac, config.mac, sizeof(net_config.mac));
    ret = net_create(&net->net, &machine->virtio_world, &net_config, err);
    if (ret < 0)
        return ret;
    return machine_plug(machine, LAYOUT_SLOT_NET + index, net_virtio(net->net), err);
}

struct netif *machine_netif(struct machine *machine, unsigned index)
{
    return machine->nets[index].netif;
}

void machine_close_host(struct machine *machine)
{
    for (unsigned i = 0; i < MACHINE_MAX_DISKS; i++)
        disk_destroy(machine->disks[i].disk);
    for (unsigned i = 0; i < MACHINE_MAX_NETS; i++)
        netif_destroy(machine->nets[i].netif);
    shared_limits_destroy(machine->disk_limits);
    shared_limits_destroy(machine->net_limits);
}
