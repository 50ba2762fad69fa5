/* SPDX-License-Identifier: MIT */
/* The folder of a VM that arrives: what is written there before it is a VM. Nothing of it is
 * trusted: names stay inside, sizes are bounded, and what is there already is not touched. */
#pragma once

#include "ft/following.h"
#include "ft/resync_talk.h"

#include <jansson.h>
#include <pthread.h>

struct arrival_disk {
    struct moving_disk about;
    int fd;
};

struct arrival_folder {
    int place;     /* the folder of VMs; the caller's */
    bool replaces; /* a former one, which is put aside */
    int fd;        /* -1: not made */
    char name[NAME_MAX + 1];
    char path[PATH_MAX];
    struct arrival_disk disks[MACHINE_MAX_DISKS];
    struct moving_shared shared[MACHINE_MAX_DISKS];
    unsigned disk_count, shared_count, file_count;
    uint64_t file_bytes;
    pthread_mutex_t syncing;
    int sync_error;    /* errno: from here on each sync fails */
    unsigned unsynced; /* ...for this disk */

    /* ft/arrival_base.h: a former folder, its note, and what of it goes on here. */
    int former, former_changes; /* -1: none */
    struct resync_base base;
    bool mixed;
};

/* following: it comes to follow, and may take the place of a former one; generation 0: to move. */
int arrival_folder_begin(struct arrival_folder *folder, int place, const char *path,
                         const struct moving_hello *hello, const struct following *following,
                         struct err *err) must_check;
int arrival_folder_add_file(struct arrival_folder *folder, const struct moving_file *file,
                            struct err *err) must_check;
int arrival_folder_add_disk(struct arrival_folder *folder, const struct moving_disk *disk,
                            struct err *err) must_check;
int arrival_folder_add_shared(struct arrival_folder *folder, const struct moving_shared *shared,
                              struct err *err) must_check;
/* All are there: vm.json calls the disks by their names and formats, and links lead to the shared
 * ones. */
int arrival_folder_end(struct arrival_folder *folder, struct err *err) must_check;

/* A folder whose disks are all there: for what still belongs onto them. The descriptor stays the
 * caller's. */
int arrival_folder_look(struct arrival_folder **ret_folder, int fd, const char *path,
                        struct err *err) must_check;
/* Locked: nobody else has it. Only a plain file of the folder, as large as is said. */
int arrival_folder_open_disk(struct arrival_folder *folder, const struct moving_disk *disk,
                             struct err *err) must_check;
void arrival_folder_leave(struct arrival_folder *folder); /* NULL is fine */

/* Empty; in its folder, which has none of that name. */
int arrival_folder_make_disk(struct arrival_folder *folder, struct arrival_disk *disk,
                             struct err *err) must_check;
int arrival_folder_read_disk(const struct arrival_folder *folder, uint32_t place, uint64_t offset,
                             uint8_t *bytes, uint32_t length, struct err *err) must_check;
/* There is such a disk, and the block lies in it. */
int arrival_folder_check_block(struct arrival_folder *folder, const struct moving_block *block,
                               struct err *err) must_check;
int arrival_folder_put_block(struct arrival_folder *folder, const struct moving_block *block,
                             struct err *err) must_check;
/* A COMPARE frame after its place (ft/compare.h). */
int arrival_folder_compare(struct arrival_folder *folder, uint32_t place,
                           struct stream_buffer *payload, struct err *err) must_check;
/* What was written is on its way to the disks, so that a sync does not take long. */
void arrival_folder_push(struct arrival_folder *folder);
/* Any thread. Where it has failed once it fails for good: Linux says only once what it could not
 * write, and to one of those who ask. */
int arrival_folder_sync(struct arrival_folder *folder, struct err *err) must_check;
/* It has all of the VM, and nobody needs a former one. */
void arrival_folder_settle(struct arrival_folder *folder);
void arrival_folder_finish(struct arrival_folder *folder, bool keep);
