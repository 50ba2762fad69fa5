/* SPDX-License-Identifier: MIT */
/*
 * Which keys vm.json has, and what each may say. A key that is added here goes into
 * docs/vm.schema.json and man/vm.json.5.scd too: tests/unit/test_definition_schema.c looks.
 */
#include "virtio/blk.h"
#include "vmm/definition_parts.h"

#include <limits.h>

#define MIB (1ull << 20)
#define TIB (1ull << 40)

/* Where a member of a struct is, and how large. */
#define AT(type, member) .offset = offsetof(type, member), .size = sizeof(((type *)0)->member)

#define OBJECT(table, ...)                                         \
    {                                                              \
        .fields = (table), .count = array_size(table), __VA_ARGS__ \
    }

enum { MAX_RATE = 1000000000, MAX_TEXT = 4095, MAX_CMDLINE = 2047 };

/* --- boot ----------------------------------------------------------------------------------- */

static const struct definition_field boot_fields[] = {
    {"kernel", KIND_PATH, .min = 1, .max = MAX_TEXT, AT(struct definition, kernel)},
    {"initrd", KIND_PATH, .min = 1, .max = MAX_TEXT, AT(struct definition, initrd)},
    {"cmdline", KIND_TEXT, .max = MAX_CMDLINE, AT(struct definition, cmdline)},
};
static const struct definition_object boot = OBJECT(boot_fields, .check = definition_check_boot);

/* --- disks ---------------------------------------------------------------------------------- */

static const char *const formats[] = {"raw", "qcow2", NULL};
static const char *const caches[] = {"writeback", "writethrough", "none", NULL};
static const char *const engines[] = {"auto", "io_uring", "threads", NULL};
static const char *const block_sizes[] = {"512", "4096", NULL};

static const struct definition_field disk_limit_fields[] = {
    {"iops", KIND_NUMBER, .min = 1, .max = MAX_RATE, AT(struct disk_config, iops)},
    {"bandwidth", KIND_SIZE, .min = 1024, .max = TIB, AT(struct disk_config, bandwidth)},
};
static const struct definition_object disk_limits = OBJECT(disk_limit_fields);

static const struct definition_field disk_fields[] = {
    {"file", KIND_PATH, .required = true, .min = 1, .max = MAX_TEXT, AT(struct disk_config, path)},
    {"format", KIND_WORD, .words = formats, .first_word = DISK_FORMAT_RAW,
     AT(struct disk_config, format)},
    {"backing", KIND_BOOL, AT(struct disk_config, backing)},
    {"readonly", KIND_BOOL, AT(struct disk_config, readonly)},
    {"ephemeral", KIND_BOOL, AT(struct disk_config, ephemeral)},
    {"direct", KIND_BOOL, AT(struct disk_config, direct)},
    {"cache", KIND_WORD, .words = caches}, /* definition_check_disk stores it */
    {"discard", KIND_BOOL, .inverted = true, AT(struct disk_config, no_discard)},
    {"engine", KIND_WORD, .words = engines, .first_word = DISK_ENGINE_AUTO,
     AT(struct disk_config, engine)},
    {"queues", KIND_NUMBER, .min = 1, .max = BLK_MAX_QUEUES, AT(struct disk_config, queues)},
    {"serial", KIND_TEXT, .inside = true, .min = 1, .max = 20, .wrong = definition_wrong_serial,
     AT(struct disk_config, serial)},
    {"block_size", KIND_CHOICE, .words = block_sizes, AT(struct disk_config, block_size)},
    {"limits", KIND_OBJECT, .object = &disk_limits},
};
static const struct definition_object disk = OBJECT(disk_fields, .check = definition_check_disk);
static const struct definition_field disk_item = {.kind = KIND_OBJECT, .object = &disk};

/* --- nets ----------------------------------------------------------------------------------- */

static const char *const modes[] = {"none", "user", "passt", "tap", "bridge", NULL};

static const struct definition_field net_limit_fields[] = {
    {"packets", KIND_NUMBER, .min = 1, .max = MAX_RATE, AT(struct limits, operations)},
    {"bandwidth", KIND_SIZE, .min = 1024, .max = TIB, AT(struct limits, bytes)},
};
static const struct definition_object net_limits = OBJECT(net_limit_fields);

static const struct definition_field forward_item = {.kind = KIND_FORWARD};

static const struct definition_field net_fields[] = {
    {"mode", KIND_WORD, .words = modes, .first_word = NETIF_NONE, AT(struct netif_config, mode)},
    {"bridge", KIND_TEXT, .inside = true, .min = 1, .max = 15, .wrong = definition_wrong_device,
     AT(struct netif_config, name)},
    {"tap", KIND_TEXT, .inside = true, .min = 1, .max = 15, .wrong = definition_wrong_device,
     AT(struct netif_config, name)},
    {"mac", KIND_MAC, AT(struct netif_config, mac)},
    {"queues", KIND_NUMBER, .min = 1, .max = NETIF_MAX_QUEUES, AT(struct netif_config, queues)},
    {"mtu", KIND_NUMBER, .min = 68, .max = 65535, AT(struct netif_config, mtu)},
    {"forwards", KIND_LIST, .max = NETIF_MAX_FORWARDS, .item = &forward_item, .allocated = true,
     .offset = offsetof(struct netif_config, forwards), .size = sizeof(struct netif_forward),
     .count = offsetof(struct netif_config, forward_count)},
    {"limits", KIND_OBJECT, .object = &net_limits, AT(struct netif_config, limits)},
};
static const struct definition_object net = OBJECT(net_fields, .begin = definition_begin_net,
                                                   .check = definition_check_net);
static const struct definition_field net_item = {.kind = KIND_OBJECT, .object = &net};

/* --- the others ----------------------------------------------------------------------------- */

static const struct definition_field vsock_fields[] = {
    {"cid", KIND_NUMBER, .min = 3, .max = UINT32_MAX - 1, AT(struct definition, vsock_cid)},
    {"path", KIND_PATH, .min = 1, .max = MAX_TEXT, AT(struct definition, vsock_path)},
};
static const struct definition_object vsock = OBJECT(vsock_fields);
static const struct definition_field vsock_object = {
    .kind = KIND_OBJECT, .object = &vsock, .said = offsetof(struct definition, vsock)};

static const struct definition_field seed_fields[] = {
    {"user", KIND_TEXT, .min = 1, .max = 32, .wrong = definition_wrong_user,
     AT(struct definition, seed.user)},
    {"key", KIND_PATH, .min = 1, .max = MAX_TEXT, AT(struct definition, seed_key_file)},
    {"password", KIND_TEXT, .min = 1, .max = MAX_TEXT, AT(struct definition, seed.password)},
    {"hostname", KIND_TEXT, .min = 1, .max = 64, .wrong = definition_wrong_hostname,
     AT(struct definition, seed.hostname)},
};
static const struct definition_object seed = OBJECT(seed_fields, .check = definition_check_seed);

static const struct definition_field all_disks_fields[] = {
    {"iops", KIND_NUMBER, .min = 1, .max = MAX_RATE, AT(struct limits, operations)},
    {"bandwidth", KIND_SIZE, .min = 1024, .max = TIB, AT(struct limits, bytes)},
};
static const struct definition_object all_disks = OBJECT(all_disks_fields);

static const struct definition_field limit_fields[] = {
    {"disks", KIND_OBJECT, .object = &all_disks, AT(struct definition, disk_limits)},
    {"nets", KIND_OBJECT, .object = &net_limits, AT(struct definition, net_limits)},
};
static const struct definition_object limits = OBJECT(limit_fields);

/* --- fault tolerance ------------------------------------------------------------------------ */

static const struct definition_field epoch_fields[] = {
    {"min_ms", KIND_NUMBER, .min = 1, .max = 1000, AT(struct definition_ft, epoch_min_ms)},
    {"max_ms", KIND_NUMBER, .min = 1, .max = 10000, AT(struct definition_ft, epoch_max_ms)},
};
static const struct definition_object epoch = OBJECT(epoch_fields, .check = definition_check_epoch);

static const struct definition_field peer_item = {.kind = KIND_TEXT,
                                                  .min = 1,
                                                  .max = 260,
                                                  .wrong = definition_wrong_peer,
                                                  .size = sizeof(const char *)};
static const struct definition_field link_item = {.kind = KIND_TEXT,
                                                  .min = 1,
                                                  .max = 140,
                                                  .wrong = definition_wrong_peer,
                                                  .size = sizeof(char *)};

static const struct definition_field ft_fields[] = {
    {"peer", KIND_TEXT, .min = 1, .max = 260, .wrong = definition_wrong_peer,
     AT(struct definition_ft, peer)},
    {"links", KIND_LIST, .max = 2, .item = &link_item,
     .offset = offsetof(struct definition_ft, links), .size = sizeof(char *),
     .count = offsetof(struct definition_ft, link_count)},
    {"witness", KIND_TEXT, .min = 1, .max = MAX_TEXT, .wrong = definition_wrong_witness,
     AT(struct definition_ft, witness)},
    {"epoch", KIND_OBJECT, .object = &epoch},
    {"heartbeat_ms", KIND_NUMBER, .min = 1, .max = 10000, AT(struct definition_ft, heartbeat_ms)},
    {"timeout_ms", KIND_NUMBER, .min = 10, .max = 600000, AT(struct definition_ft, timeout_ms)},
    {"pause_percent", KIND_NUMBER, .min = 1, .max = 90, AT(struct definition_ft, pause_percent)},
    {"peers", KIND_LIST, .max = DEFINITION_MAX_PEERS, .item = &peer_item,
     .offset = offsetof(struct definition_ft, peers), .size = sizeof(const char *),
     .count = offsetof(struct definition_ft, peer_count)},
    {"peers_after_s", KIND_NUMBER, .max = 86400, AT(struct definition_ft, peers_after_s),
     .said = offsetof(struct definition_ft, has_peers_after)},
    {"preferred", KIND_TEXT, .min = 1, .max = 260, .wrong = definition_wrong_peer,
     AT(struct definition_ft, preferred)},
    {"preferred_after_s", KIND_NUMBER, .min = 1, .max = 604800,
     AT(struct definition_ft, preferred_after_s)},
};
static const struct definition_object ft = OBJECT(ft_fields, .check = definition_check_ft);

/* --- the whole ------------------------------------------------------------------------------ */

static const char *const consoles[] = {"serial", "virtio", NULL};
static const char *const restarts[] = {"no", "on-failure", "always", NULL};
static const char *const identities[] = {"auto", "keep", NULL};

/* What the firmware can describe: layout.h of its architecture, and a test compares. */
static const struct definition_field memory_number = {.kind = KIND_NUMBER,
                                                      .min = 2,
                                                      .max = TIB / MIB,
                                                      .unit = MIB,
                                                      .unit_name = "MiB",
                                                      AT(struct definition, memory)};
static const struct definition_field balloon_size = {
    .kind = KIND_SIZE, .min = 0, .max = TIB, AT(struct definition, balloon)};

static const struct definition_field root_fields[] = {
    {"cpus", KIND_NUMBER, .min = 1, .max = 1024, AT(struct definition, cpus)},
    {"cpu", KIND_WORD, .words = cpu_model_names, .first_word = CPU_HOST,
     AT(struct definition, cpu)},
    {"memory", KIND_SIZE, .min = 2 * MIB, .max = TIB, AT(struct definition, memory),
     .instead = &memory_number},
    {"boot", KIND_OBJECT, .object = &boot},
    {"disks", KIND_LIST, .max = MACHINE_MAX_DISKS, .item = &disk_item,
     .offset = offsetof(struct definition, disks), .size = sizeof(struct disk_config),
     .count = offsetof(struct definition, disk_count)},
    {"nets", KIND_LIST, .max = MACHINE_MAX_NETS, .item = &net_item,
     .offset = offsetof(struct definition, nets), .size = sizeof(struct netif_config),
     .count = offsetof(struct definition, net_count),
     .said = offsetof(struct definition, nets_said)},
    {"console", KIND_WORD, .words = consoles, AT(struct definition, console_virtio)},
    {"balloon", KIND_BOOL, .inverted = true, AT(struct definition, no_balloon),
     .instead = &balloon_size},
    {"vsock", KIND_BOOL, AT(struct definition, vsock), .instead = &vsock_object},
    {"seed", KIND_OBJECT, .object = &seed, .said = offsetof(struct definition, has_seed)},
    {"limits", KIND_OBJECT, .object = &limits},
    {"restart", KIND_WORD, .words = restarts, .first_word = RESTART_NO,
     AT(struct definition, restart)},
    {"identity", KIND_WORD, .words = identities, AT(struct definition, keep_identity)},
    {"ft", KIND_OBJECT, .object = &ft, AT(struct definition, ft)},
};

const struct definition_object definition_root = OBJECT(root_fields,
                                                        .check = definition_check_root);
