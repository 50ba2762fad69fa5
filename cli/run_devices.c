/* SPDX-License-Identifier: MIT */
/* --disk, --net and their kin: what they may say, and what does not go together. */
#include "cli/run_devices.h"

#include "cli/words.h"
#include "core/stream.h"
#include "host/netif_forward.h"
#include "virtio/blk.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char *run_devices_keep(struct run_devices *devices, const char *text)
{
    if (devices->copy_count == array_size(devices->copies))
        return NULL;
    char *copy = strdup(text);
    if (copy)
        devices->copies[devices->copy_count++] = copy;
    return copy;
}

/* --- disks ---------------------------------------------------------------------------------- */

/* "500iops", or bytes per second: "100M". */
static int take_limit(struct disk_config *disk, const char *value, struct err *err)
{
    size_t length = strlen(value);
    if (length > 4 && strcmp(value + length - 4, "iops") == 0) {
        char number[24] = "";
        if (length - 4 < sizeof(number))
            memcpy(number, value, length - 4);
        return parse_number(number, "--disk limit, operations per second", 1, 1000000000,
                            &disk->iops, err);
    }
    int ret = parse_size(value, "--disk limit, bytes per second", &disk->bandwidth, err);
    if (ret == 0 && disk->bandwidth == 0)
        ret = err_say(err, ERR_USAGE, EINVAL, "--disk: limit=%s would stop the disk for good",
                      value);
    return ret;
}

static int take_cache(struct disk_config *disk, const char *value, struct err *err)
{
    static const char *const caches[] = {"writeback", "writethrough", "none", NULL};
    switch (words_find(caches, value)) {
    case 0:
        return 0;
    case 1:
        disk->write_through = true;
        return 0;
    case 2:
        disk->direct = true;
        return 0;
    default:
        return words_unknown("--disk", "cache", value, caches, err);
    }
}

static int take_engine(struct disk_config *disk, const char *value, struct err *err)
{
    static const char *const engines[] = {"auto", "io_uring", "threads", NULL};
    int engine = words_find(engines, value);
    if (engine < 0)
        return words_unknown("--disk", "engine", value, engines, err);
    disk->engine = (enum disk_engine)engine;
    return 0;
}

static int take_format(struct disk_config *disk, const char *value, struct err *err)
{
    static const char *const formats[] = {"raw", "qcow2", NULL};
    int format = words_find(formats, value);
    if (format < 0)
        return words_unknown("--disk", "format", value, formats, err);
    disk->format = format == 0 ? DISK_FORMAT_RAW : DISK_FORMAT_QCOW2;
    return 0;
}

static int take_serial(struct disk_config *disk, const char *value, struct err *err)
{
    if (strlen(value) >= sizeof(disk->serial))
        return err_say(err, ERR_USAGE, EINVAL,
                       "--disk: serial=%s is too long: a disk's serial number has 20 characters",
                       value);
    strcpy(disk->serial, value);
    return 0;
}

static int take_disk_key(struct disk_config *disk, const char *key, const char *value,
                         struct err *err)
{
    enum {
        READONLY,
        DIRECT,
        NO_DISCARD,
        BACKING,
        FLAGS,
        CACHE = FLAGS,
        LIMIT,
        QUEUES,
        SERIAL,
        BLOCK,
        FORMAT,
        ENGINE
    };
    static const char *const keys[] = {"readonly",   "direct", "no-discard", "backing",
                                       "cache",      "limit",  "queues",     "serial",
                                       "block-size", "format", "engine",     NULL};
    int what = words_find(keys, key);
    if (what < 0)
        return words_unknown("--disk", "option", key, keys, err);
    uint64_t number = 0;
    int ret = words_check_value("--disk", key, value, what < FLAGS, err);
    if (ret < 0)
        return ret;
    switch (what) {
    case READONLY:
        disk->readonly = true;
        break;
    case DIRECT:
        disk->direct = true;
        break;
    case NO_DISCARD:
        disk->no_discard = true;
        break;
    case BACKING:
        disk->backing = true;
        break;
    case CACHE:
        ret = take_cache(disk, value, err);
        break;
    case LIMIT:
        ret = take_limit(disk, value, err);
        break;
    case QUEUES:
        ret = parse_number(value, "--disk queues", 1, BLK_MAX_QUEUES, &number, err);
        disk->queues = (unsigned)number;
        break;
    case SERIAL:
        ret = take_serial(disk, value, err);
        break;
    case BLOCK:
        if (strcmp(value, "512") != 0 && strcmp(value, "4096") != 0)
            return err_say(err, ERR_USAGE, EINVAL, "--disk: block-size=%s: 512 or 4096 is wanted",
                           value);
        disk->block_size = strcmp(value, "512") == 0 ? 512 : 4096;
        break;
    case FORMAT:
        ret = take_format(disk, value, err);
        break;
    default:
        ret = take_engine(disk, value, err);
        break;
    }
    return ret;
}

int run_devices_add_disk(struct run_devices *devices, const char *text, struct err *err)
{
    if (devices->disk_count == MACHINE_MAX_DISKS)
        return err_say(err, ERR_USAGE, EINVAL, "--disk %s: a VM has at most %d disks", text,
                       MACHINE_MAX_DISKS);
    struct disk_config *disk = &devices->disks[devices->disk_count];
    char *at = run_devices_keep(devices, text);
    if (!at)
        return err_sys(err, ERR_HOST, ENOMEM, "--disk %s", text);
    disk->path = words_cut(&at);
    if (!disk->path[0])
        return err_say(err, ERR_USAGE, EINVAL, "--disk %s: the file's name is missing", text);
    while (at) {
        char *key = words_cut(&at);
        const char *value = words_value(key);
        int ret = take_disk_key(disk, key, value, err);
        if (ret < 0)
            return ret;
    }
    if (disk->backing && disk->format == DISK_FORMAT_RAW)
        return err_say(err, ERR_USAGE, EINVAL,
                       "--disk %s: a raw image stands on no other: backing has no place",
                       disk->path);
    devices->disk_count++;
    return 0;
}

int run_devices_set_image(struct run_devices *devices, const char *path, struct err *err)
{
    if (devices->disk_count == MACHINE_MAX_DISKS)
        return err_say(err, ERR_USAGE, EINVAL, "%s: a VM has at most %d disks", path,
                       MACHINE_MAX_DISKS);
    memmove(devices->disks + 1, devices->disks, devices->disk_count * sizeof(devices->disks[0]));
    devices->disks[0] = (struct disk_config){.path = path};
    devices->disk_count++;
    return 0;
}

/* --- network interfaces ----------------------------------------------------------------------- */

static int take_mac(struct netif_config *net, const char *value, struct err *err)
{
    uint8_t mac[6];
    if (!parse_mac_address(value, mac))
        return err_say(err, ERR_USAGE, EINVAL,
                       "--net: mac=%s is none: six bytes are wanted, like 02:00:00:12:34:56",
                       value);
    if (mac[0] & 1)
        return err_say(err, ERR_USAGE, EINVAL,
                       "--net: mac=%s is a group's address: the first byte must be even", value);
    memcpy(net->mac, mac, sizeof(mac));
    return 0;
}

static int take_net_key(struct netif_config *net, const char *key, const char *value,
                        struct err *err)
{
    enum { MAC, QUEUES, MTU };
    static const char *const keys[] = {"mac", "queues", "mtu", NULL};
    int what = words_find(keys, key);
    if (what < 0)
        return words_unknown("--net", "option", key, keys, err);
    uint64_t number = 0;
    int ret = words_check_value("--net", key, value, false, err);
    if (ret < 0)
        return ret;
    if (what == MAC)
        return take_mac(net, value, err);
    if (what == QUEUES) {
        ret = parse_number(value, "--net queues", 1, NETIF_MAX_QUEUES, &number, err);
        net->queues = (unsigned)number;
    } else {
        ret = parse_number(value, "--net mtu", 68, 65535, &number, err);
        net->mtu = (uint16_t)number;
    }
    return ret;
}

/* "user", "tap:NAME" ... */
static int take_net_mode(struct netif_config *net, char *text, struct err *err)
{
    static const char *const modes[] = {
        [NETIF_NONE] = "none", [NETIF_USER] = "user",     [NETIF_PASST] = "passt",
        [NETIF_TAP] = "tap",   [NETIF_BRIDGE] = "bridge", NULL};
    char *name = strchr(text, ':');
    if (name)
        *name++ = '\0';
    int mode = words_find(modes, text);
    if (mode < 0)
        return words_unknown("--net", "mode", text, modes, err);
    net->mode = (enum netif_mode)mode;
    bool named = mode == NETIF_TAP || mode == NETIF_BRIDGE;
    if (name && !named)
        return err_say(err, ERR_USAGE, EINVAL, "--net %s has no name: \"%s\" has no place", text,
                       name);
    if (mode == NETIF_BRIDGE && (!name || !name[0]))
        return err_say(err, ERR_USAGE, EINVAL,
                       "--net bridge needs the bridge's name: --net bridge:NAME");
    if (name && strlen(name) >= sizeof(net->name))
        return err_say(err, ERR_USAGE, EINVAL,
                       "--net %s:%s: a network device's name has at most 15 characters", text,
                       name);
    if (name)
        strcpy(net->name, name);
    return 0;
}

int run_devices_add_net(struct run_devices *devices, const char *text, struct err *err)
{
    if (devices->net_count == MACHINE_MAX_NETS)
        return err_say(err, ERR_USAGE, EINVAL, "--net %s: a VM has at most %d network interfaces",
                       text, MACHINE_MAX_NETS);
    struct netif_config *net = &devices->nets[devices->net_count];
    char *at = run_devices_keep(devices, text);
    if (!at)
        return err_sys(err, ERR_HOST, ENOMEM, "--net %s", text);
    int ret = take_net_mode(net, words_cut(&at), err);
    while (ret == 0 && at) {
        char *key = words_cut(&at);
        const char *value = words_value(key);
        ret = take_net_key(net, key, value, err);
    }
    if (ret < 0)
        return ret;
    if (net->mode == NETIF_NONE)
        devices->net_none = true;
    else
        devices->net_count++;
    return 0;
}

/* --- port forwards ---------------------------------------------------------------------------- */

static int bad_forward(const char *text, struct err *err)
{
    int ret = err_say(err, ERR_USAGE, EINVAL, "-p %s is no port forward", text);
    err_hint(err, "host port, guest port: -p 2222:22, -p 127.0.0.1:8080:80, -p '[::1]:53:53/udp'");
    return ret;
}

int run_devices_add_forward(struct run_devices *devices, const char *text, struct err *err)
{
    if (devices->forward_count == NETIF_MAX_FORWARDS)
        return err_say(err, ERR_USAGE, EINVAL, "-p %s: a VM has at most %d port forwards", text,
                       NETIF_MAX_FORWARDS);
    if (!netif_forward_parse(text, &devices->forwards[devices->forward_count]))
        return bad_forward(text, err);
    devices->forward_count++;
    return 0;
}

/* --- the others ------------------------------------------------------------------------------- */

int run_devices_set_vsock(struct run_devices *devices, const char *text, struct err *err)
{
    static const char *const keys[] = {"cid", NULL};
    char *at = run_devices_keep(devices, text);
    if (!at)
        return err_sys(err, ERR_HOST, ENOMEM, "--vsock %s", text);
    devices->vsock = (struct vsock_config){.cid = 3, .path = words_cut(&at)};
    if (!devices->vsock.path[0])
        return err_say(err, ERR_USAGE, EINVAL, "--vsock: the path of the socket is missing");
    while (at) {
        char *key = words_cut(&at);
        const char *value = words_value(key);
        if (words_find(keys, key) < 0)
            return words_unknown("--vsock", "option", key, keys, err);
        int ret = words_check_value("--vsock", key, value, false, err);
        if (ret == 0)
            ret = parse_number(value, "--vsock cid", 3, UINT32_MAX - 1, &devices->vsock.cid, err);
        if (ret < 0)
            return ret;
    }
    return 0;
}

int run_devices_set_console(struct run_devices *devices, const char *text, struct err *err)
{
    static const char *const consoles[] = {"serial", "virtio", NULL};
    int what = words_find(consoles, text);
    if (what < 0)
        return words_unknown("--console", "console", text, consoles, err);
    devices->console_virtio = what == 1;
    return 0;
}

int run_devices_set_balloon(struct run_devices *devices, const char *text, struct err *err)
{
    devices->no_balloon = strcmp(text, "off") == 0;
    return devices->no_balloon ? 0 : parse_size(text, "--balloon", &devices->balloon, err);
}

/* --- all together ----------------------------------------------------------------------------- */

static bool takes_forwards(const struct netif_config *net)
{
    return net->mode == NETIF_USER || net->mode == NETIF_PASST;
}

/* The forwards belong to the first interface that can have any. */
static int give_forwards(struct run_devices *devices, struct err *err)
{
    for (unsigned i = 0; i < devices->net_count; i++) {
        if (!takes_forwards(&devices->nets[i]))
            continue;
        devices->nets[i].forwards = devices->forwards;
        devices->nets[i].forward_count = devices->forward_count;
        return 0;
    }
    if (devices->forward_count == 0)
        return 0;
    int ret = err_say(err, ERR_USAGE, EINVAL, "-p works with --net user and --net passt only");
    err_hint(err, "a guest on a tap or bridge has an address of its own: connect to that");
    return ret;
}

int run_devices_apply(struct run_devices *devices, struct definition *definition, struct err *err)
{
    if (devices->net_none && devices->net_count > 0)
        return err_say(err, ERR_USAGE, EINVAL, "--net none does not go with another --net");
    definition->nets_said = devices->net_none || devices->net_count > 0 ||
                            devices->forward_count > 0;
    if (devices->net_count == 0 && !devices->net_none && devices->forward_count > 0)
        devices->nets[devices->net_count++] = (struct netif_config){.mode = NETIF_USER};
    int ret = give_forwards(devices, err);
    if (ret < 0)
        return ret;
    if (devices->balloon && devices->balloon >= definition->memory)
        return err_say(err, ERR_USAGE, EINVAL,
                       "--balloon takes all the memory there is (--memory %llu MiB)",
                       (unsigned long long)(definition->memory >> 20));
    memcpy(definition->disks, devices->disks, sizeof(devices->disks));
    definition->disk_count = devices->disk_count;
    memcpy(definition->nets, devices->nets, sizeof(devices->nets));
    definition->net_count = devices->net_count;
    definition->vsock = devices->vsock.path;
    definition->vsock_path = devices->vsock.path;
    definition->vsock_cid = devices->vsock.cid;
    definition->console_virtio = devices->console_virtio;
    definition->no_balloon = devices->no_balloon;
    definition->balloon = devices->balloon;
    if (devices->has_seed) {
        run_devices_finish_seed(devices);
        definition->has_seed = true;
        definition->seed = devices->seed;
    }
    return 0;
}

void run_devices_finish(struct run_devices *devices)
{
    while (devices->copy_count > 0)
        free(devices->copies[--devices->copy_count]);
    free(devices->seed_key);
}
