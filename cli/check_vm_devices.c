/* SPDX-License-Identifier: MIT */
/* What a VM's disks and network interfaces need of this host. */
#include "cli/check_vm.h"

#include "cli/table.h"
#include "host/lock.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

/* --- disks ------------------------------------------------------------------------------------ */

static bool is_written(const struct disk_config *disk)
{
    return !disk->readonly && !disk->ephemeral;
}

/* A format that is not written down is looked for at each start, with care; but a person may want
 * to know. One that is written down is believed. */
static int check_format(struct vm_check *check, const char *what, const struct disk_config *disk,
                        struct err *err)
{
    struct disk_config config = {.path = disk->path, .readonly = true};
    enum disk_format found = DISK_FORMAT_ANY;
    struct err ignored = {0};
    bool guard;

    if (disk->format == DISK_FORMAT_QCOW2)
        return 0; /* who opens it says what else it is */
    int ret = disk_format_find(&config, &found, &guard, disk->format ? &ignored : err);
    if (disk->format == DISK_FORMAT_RAW) {
        if (found != DISK_FORMAT_RAW && ignored.kind != ERR_NOT_FOUND)
            findings_add(&check->findings, FINDING_NOTE, what, NULL,
                         "%s begins like another format, and is raw because vm.json says so",
                         disk->path);
        return 0;
    }
    if (ret == 0) {
        char mend[64];
        snprintf(mend, sizeof(mend), "write it into vm.json: \"format\": \"%s\"",
                 disk_format_name(found));
        findings_add(&check->findings, FINDING_NOTE, what, mend,
                     "%s: its format is not written down", disk->path);
    }
    return ret;
}

/* Who reads from it shares the lock with us, but not with a VM that wants to write. */
static int check_readers(const struct disk_config *disk, struct err *err)
{
    int fd = open(disk->path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK), ret = 0;

    if (fd >= 0 && lock_is_held(fd)) {
        int64_t pid = lock_holder(fd);
        ret = err_say(err, ERR_STATE, EBUSY, "%s is in use by another VM (pid %lld)", disk->path,
                      (long long)pid);
        if (!pid)
            ret = err_say(err, ERR_STATE, EBUSY, "%s is in use by another VM", disk->path);
        err_hint(err, "give each VM a copy of the disk; many may share one that all open readonly");
    }
    if (fd >= 0)
        close(fd);
    return ret;
}

static int check_rights(const struct disk_config *disk, struct err *err)
{
    if (access(disk->path, F_OK) < 0)
        return err_sys(err, ERR_HOST, errno, "cannot open %s", disk->path);
    if (!is_written(disk) || faccessat(AT_FDCWD, disk->path, W_OK, AT_EACCESS) == 0)
        return 0;
    int ret = err_sys(err, ERR_HOST, errno, "cannot open %s for writing", disk->path);
    err_hint(err, "if the guest need not write to it: \"readonly\": true");
    return ret;
}

/* Opened for reading only: an image that is opened for writing may get repaired and marked. */
static int check_inside(struct disk_config *config, uint64_t *ret_size, struct err *err)
{
    struct disk *disk;

    config->readonly = true;
    config->ephemeral = config->write_through = false;
    config->iops = config->bandwidth = 0;
    int ret = disk_open(&disk, config, err);
    if (ret < 0)
        return ret;
    *ret_size = disk->info.size;
    config->format = disk->info.format;
    disk_destroy(disk);
    return 0;
}

/* A sparse image takes more room as time goes by. */
static void check_room(struct vm_check *check, const char *what, const char *path, uint64_t size)
{
    struct stat stat_of;
    struct statvfs fs;
    char missing[32], room[32];

    if (stat(path, &stat_of) < 0 || !S_ISREG(stat_of.st_mode) || statvfs(path, &fs) < 0)
        return;
    uint64_t has = (uint64_t)stat_of.st_blocks * 512, free_bytes = fs.f_bavail * fs.f_frsize;
    if (size <= has || size - has <= free_bytes)
        return;
    format_size(size - has, missing, sizeof(missing));
    format_size(free_bytes, room, sizeof(room));
    findings_add(&check->findings, FINDING_NOTE, what, "make room on its file system",
                 "%s can grow by %s, and %s are free", path, missing, room);
}

static int check_disk(struct vm_check *check, const char *what, const struct disk_config *disk,
                      struct err *err)
{
    struct disk_config config = *disk;
    uint64_t size = 0;
    char text[32];

    int ret = check_rights(disk, err);
    if (ret == 0)
        ret = check_format(check, what, disk, err);
    if (ret == 0 && !check->holder)
        ret = check_inside(&config, &size, err);
    if (ret == 0 && !check->holder && is_written(disk))
        ret = check_readers(disk, err);
    if (ret < 0)
        return ret;
    format_size(size, text, sizeof(text));
    findings_add(&check->findings, FINDING_GOOD, what, NULL, "%s%s%s%s%s%s", disk->path,
                 config.format ? ", " : "", config.format ? disk_format_name(config.format) : "",
                 size ? ", " : "", size ? text : "", is_written(disk) ? "" : ", not written to");
    if (size && is_written(disk))
        check_room(check, what, disk->path, size);
    return 0;
}

void check_vm_disks(struct vm_check *check)
{
    for (unsigned i = 0; i < check->definition->disk_count; i++) {
        struct err err = {0};
        char what[32];
        snprintf(what, sizeof(what), "disks[%u]", i);
        if (check_disk(check, what, &check->definition->disks[i], &err) < 0)
            check_vm_fail(check, what, &err);
    }
}

/* --- nets ------------------------------------------------------------------------------------- */

static bool in_sysfs(const char *name, const char *file)
{
    char path[128];

    if (strchr(name, '/') || name[0] == '.')
        return false;
    snprintf(path, sizeof(path), "/sys/class/net/%s%s%s", name, file[0] ? "/" : "", file);
    return access(path, F_OK) == 0;
}

/* CAP_NET_ADMIN. */
static bool may_make_devices(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {0};

    return syscall(SYS_capget, &header, data) == 0 && data[0].effective & 1u << CAP_NET_ADMIN;
}

/* One that is not there is made when the VM starts. */
static int check_tap(const struct netif_config *net, struct err *err)
{
    if (net->name[0] && in_sysfs(net->name, "tun_flags"))
        return 0;
    if (net->name[0] && in_sysfs(net->name, ""))
        return err_say(err, ERR_HOST, EINVAL, "network device %s is not a tap", net->name);
    if (may_make_devices())
        return 0;
    if (!net->name[0])
        return err_say(err, ERR_HOST, EPERM, "to make a tap takes CAP_NET_ADMIN");
    int ret = err_say(err, ERR_HOST, ENODEV,
                      "there is no tap %s, and to make one takes CAP_NET_ADMIN", net->name);
    err_hint(err, "sudo ip tuntap add %s mode tap user $USER && sudo ip link set %s up", net->name,
             net->name);
    return ret;
}

static int check_bridge(const struct netif_config *net, struct err *err)
{
    if (in_sysfs(net->name, "bridge"))
        return may_make_devices() ? 0
                                  : err_say(err, ERR_HOST, EPERM,
                                            "to join bridge %s takes CAP_NET_ADMIN", net->name);
    if (in_sysfs(net->name, ""))
        return err_say(err, ERR_HOST, ENODEV, "network device %s is not a bridge", net->name);
    int ret = err_say(err, ERR_HOST, ENODEV, "there is no bridge %s", net->name);
    err_hint(err, "sudo ip link add %s type bridge && sudo ip link set %s up", net->name,
             net->name);
    return ret;
}

static int check_tun(struct err *err)
{
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

    if (fd < 0) {
        int ret = err_sys(err, ERR_HOST, errno, "cannot open /dev/net/tun");
        err_hint(err, ret == -ENOENT ? "sudo modprobe tun" : "sudo chmod 666 /dev/net/tun");
        return ret;
    }
    close(fd);
    return 0;
}

/* Their programs leave nothing behind, so they can be tried: only that tells whether the ports are
 * free. */
static int try_program(const struct vm_check *check, const struct netif_config *net,
                       struct err *err)
{
    struct netif_config config = *net;
    struct netif *netif;

    if (check->holder)
        config.forward_count = 0;
    int ret = netif_open(&netif, &config, err);
    if (ret < 0)
        return ret;
    netif_destroy(netif);
    return 0;
}

static int check_net(const struct vm_check *check, const struct netif_config *net, struct err *err)
{
    int ret = 0;

    switch (net->mode) {
    case NETIF_USER:
    case NETIF_PASST:
        return try_program(check, net, err);
    case NETIF_TAP:
        ret = check_tun(err);
        return ret < 0 ? ret : check_tap(net, err);
    case NETIF_BRIDGE:
        ret = check_tun(err);
        return ret < 0 ? ret : check_bridge(net, err);
    case NETIF_NONE:
        break;
    }
    return 0;
}

void check_vm_nets(struct vm_check *check)
{
    static const char *const modes[] = {[NETIF_NONE] = "none",
                                        [NETIF_USER] = "user",
                                        [NETIF_PASST] = "passt",
                                        [NETIF_TAP] = "tap",
                                        [NETIF_BRIDGE] = "bridge"};

    for (unsigned i = 0; i < check->definition->net_count; i++) {
        const struct netif_config *net = &check->definition->nets[i];
        struct err err = {0};
        char what[32], ports[48] = "";
        snprintf(what, sizeof(what), "nets[%u]", i);
        if (net->forward_count > 0)
            snprintf(ports, sizeof(ports), ", %u port%s", net->forward_count,
                     net->forward_count == 1 ? "" : "s");
        if (check_net(check, net, &err) < 0)
            check_vm_fail(check, what, &err);
        else
            findings_add(&check->findings, FINDING_GOOD, what, NULL, "%s%s%s%s", modes[net->mode],
                         net->name[0] ? " " : "", net->name, ports);
    }
}
