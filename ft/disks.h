/* SPDX-License-Identifier: MIT */
/*
 * The disks of a running VM, copied into another folder as they were at one moment, by the names
 * that they have in the VM's own.
 *
 *   plan     the new files are made
 *   prepare  what is dirty is written back, and it is found out for each disk whether its file
 *            system can share blocks (any thread; slow)
 *   set_up   what the other disks need
 *   capture  the machine stands still: a disk is shared, or its copy (host/disk_point.h) begins
 *   ...      the disks' loops copy, while the guest goes on
 *   sync     the new files reach stable storage (any thread; slow)
 *
 * All but the two slow ones on the machine's loop. Whatever goes wrong, the guest feels nothing of
 * it, and disks_finish removes what was made.
 */
#pragma once

#include "host/disk_point.h"
#include "vmm/machine.h"

#include <jansson.h>
#include <limits.h>
#include <stdatomic.h>

struct disks;

/* One of them. */
struct disks_copy {
    struct disks *disks;
    struct disk *disk;
    char from[PATH_MAX], to[PATH_MAX]; /* names, in the VM's folder and in the other one */
    enum disk_format format;           /* of the copy */
    int image;                         /* the disk's own */
    int fd;                            /* the new file; -1: not made */
    bool shares;                       /* blocks with the image */
    struct disk_copy *copy;            /* NULL: not needed */
    bool copying;                      /* under the lock, as the next */
    int result;
};

struct disks {
    struct machine *machine;
    unsigned machine_disks;
    const char *vm;       /* its name, for people */
    int vm_folder;        /* where its disks must lie */
    int folder;           /* where the copies come, and... */
    const char *path;     /* ...its name */
    atomic_bool given_up; /* prepare and sync end early */
    /* A copy has ended, one way or the other. (any thread, or from within capture) */
    void (*handle_ended)(void *ctx);
    void *ctx;

    pthread_mutex_t lock;
    struct disks_copy copies[MACHINE_MAX_DISKS];
    unsigned count;
};

void disks_init(struct disks *disks); /* zeroed but for the first lines */
void disks_finish(struct disks *disks, bool keep);

int disks_plan(struct disks *disks, struct err *err) must_check;
void disks_prepare(struct disks *disks);
bool disks_all_share(const struct disks *disks); /* after prepare */
int disks_set_up(struct disks *disks, struct err *err) must_check;
int disks_capture(struct disks *disks, struct err *err) must_check;
unsigned disks_copying(struct disks *disks);
int disks_check(struct disks *disks, struct err *err) must_check; /* whether one has failed */
void disks_stop(struct disks *disks); /* handle_ended follows for each that copies */
int disks_sync(struct disks *disks) must_check;

void disks_progress(struct disks *disks, uint64_t *ret_done, uint64_t *ret_total);
/* [{"from", "file", "format", "same_format", "shared"}, ...]; NULL: no memory */
json_t *disks_describe(const struct disks *disks);
