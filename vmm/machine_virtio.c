/* SPDX-License-Identifier: MIT */
/*
 * How virtio devices come into the machine's list, and the two kinds that stand on something of the
 * host: disks and network interfaces.
 */
#include "core/clock.h"
#include "firmware/x86/layout.h"
#include "vmm/machine_parts.h"

#include <errno.h>
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
    log_warning("%s: %s at byte %llu failed: %s; the guest gets I/O errors%s", disk->path,
                names[op], (unsigned long long)offset, strerror(error),
                error == ENOSPC ? " until there is room again" : "");
}

int machine_add_disk(struct machine *machine, unsigned index, struct err *err)
{
    const struct disk_config *config = &machine->config.disks[index];
    struct machine_disk *disk = &machine->disks[index];
    disk->path = config->path;
    int ret = disk_open(&disk->disk, config, err);
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
                                    .ctx = disk};
    memcpy(blk_config.serial, config->serial, sizeof(blk_config.serial));
    ret = blk_create(&disk->blk, &machine->virtio_world, &blk_config, err);
    if (ret < 0)
        return ret;
    return machine_plug(machine, LAYOUT_SLOT_DISK + index, blk_virtio(disk->blk), err);
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
    if (log_limit_pass(&net->limit, &swallowed))
        log_warning("%s: %s", net->name, sentence);
}

int machine_add_net(struct machine *machine, unsigned index, struct err *err)
{
    struct netif_config config = machine->config.nets[index];
    struct machine_net *net = &machine->nets[index];
    net->limit.burst = 4;
    if (config.queues == 0)
        config.queues = machine->config.cpus;
    if (config.queues > NETIF_MAX_QUEUES)
        config.queues = NETIF_MAX_QUEUES;
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
                                    .ctx = net};
    memcpy(net_config.mac, config.mac, sizeof(net_config.mac));
    ret = net_create(&net->net, &machine->virtio_world, &net_config, err);
    if (ret < 0)
        return ret;
    return machine_plug(machine, LAYOUT_SLOT_NET + index, net_virtio(net->net), err);
}

void machine_close_host(struct machine *machine)
{
    for (unsigned i = 0; i < MACHINE_MAX_DISKS; i++)
        disk_destroy(machine->disks[i].disk);
    for (unsigned i = 0; i < MACHINE_MAX_NETS; i++)
        netif_destroy(machine->nets[i].netif);
}
