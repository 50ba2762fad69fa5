/* SPDX-License-Identifier: MIT */
/* What `minivmm run` is told of disks, networks and the like: --disk, --net, -p and their kin. */
#pragma once

#include "cli/options.h"
#include "host/seed.h"
#include "vmm/definition.h"

struct run_devices {
    struct disk_config disks[MACHINE_MAX_DISKS];
    unsigned disk_count;
    struct netif_config nets[MACHINE_MAX_NETS];
    unsigned net_count;
    bool net_none; /* --net none */
    struct netif_forward forwards[NETIF_MAX_FORWARDS];
    unsigned forward_count;
    struct vsock_config vsock;
    bool console_virtio;
    bool no_balloon;
    uint64_t balloon;
    bool has_seed;
    struct seed_config seed;
    char *seed_key;
    /* Words of the command line that had to be cut into pieces. */
    char *copies[MACHINE_MAX_DISKS + MACHINE_MAX_NETS + 2];
    unsigned copy_count;
};

int run_devices_add_disk(struct run_devices *devices, const char *text, struct err *err) must_check;
/* The disk that stands on the command line by itself: it becomes the first. The name is taken as it
 * is. */
int run_devices_set_image(struct run_devices *devices, const char *path,
                          struct err *err) must_check;
int run_devices_set_seed(struct run_devices *devices, const char *text, struct err *err) must_check;
int run_devices_add_net(struct run_devices *devices, const char *text, struct err *err) must_check;
int run_devices_add_forward(struct run_devices *devices, const char *text,
                            struct err *err) must_check;
int run_devices_set_vsock(struct run_devices *devices, const char *text,
                          struct err *err) must_check;
int run_devices_set_console(struct run_devices *devices, const char *text,
                            struct err *err) must_check;
int run_devices_set_balloon(struct run_devices *devices, const char *text,
                            struct err *err) must_check;

/* When all options are read: defaults, what does not go together, and into the definition, which
 * points into `devices` from now on. */
int run_devices_apply(struct run_devices *devices, struct definition *definition,
                      struct err *err) must_check;
/* For the run_*.c files: a copy that lives as long as the devices, or NULL. */
char *run_devices_keep(struct run_devices *devices, const char *text);
void run_devices_finish_seed(struct run_devices *devices);
void run_devices_finish(struct run_devices *devices);
