/* SPDX-License-Identifier: MIT */
/*
 * A snapshot: a VM as it was at one moment, in a folder of its own.
 *
 *   web1/snapshots/NAME/
 *     manifest.json   {"crc32c": "...", "snapshot": {...}}: what it is, and its files with their
 *                     sizes and checksums (ft/file_sum.h). Written last: without it there is none
 *     memory          guest memory, sparse, to be mapped (ft/memory_file.h). Neither this nor the
 *     state           next where the VM did not run. Frames HELLO, SUMS, STATE, COMMIT
 *     vm.json, disk.img ...   what was in the VM's folder
 *     verified.json   which files (inode and time of change) were found to be whole
 *
 * What is read is not trusted: a file that is missing, shorter, longer or damaged is named, and
 * nothing has happened. To read all of a large memory takes time that a restore has not got. So
 * verified.json says that these very files have not been touched since they were whole: then their
 * bytes are taken as they are. Files that were copied or touched are read first, once. (Neither
 * sees that a disk forgot something by itself: `restore --verify` reads in any case.)
 *
 * A file that shares its blocks with another one (a reflink) has no checksum: to read it would take
 * as long as a copy, which the reflink is there to save.
 */
#pragma once

#include "ft/memory_file.h"
#include "host/copy.h"
#include "vmm/machine_model.h"

#include <jansson.h>

#define SNAPSHOT_MANIFEST "manifest.json"
#define SNAPSHOT_VERIFIED "verified.json"
#define SNAPSHOT_MEMORY   "memory"
#define SNAPSHOT_STATE    "state"

/* In the manifest: the sum of the VM's own vm.json, where the snapshot's says the same. */
#define SNAPSHOT_DEFINITION "definition"

enum { SNAPSHOT_FORMAT = 1 };

/* True for the folder of one: it is a VM's folder in all but that it is not run. */
bool snapshot_is_one(const char *path);

/* --- making ----------------------------------------------------------------------------------- */

/* What HELLO says beside the model. */
struct snapshot_hello {
    uint64_t wall_ns; /* when, since 1970 */
    uint8_t uuid[16]; /* whose it is */
};

/* The file `state`, on stable storage. */
int snapshot_write_state(int folder, const struct snapshot_hello *hello,
                         struct machine_model *model, const uint32_t *sums,
                         const struct stream_buffer *state, struct err *err) must_check;

/* All other files are there: manifest.json, with `facts` (taken over) in it, and verified.json. */
int snapshot_seal(int folder, json_t *facts, const struct copy_progress *progress,
                  struct err *err) must_check;

/* Of the vm.json in this folder. */
int snapshot_sum_definition(int folder, char ret_sum[9]) must_check;

/* --- reading ---------------------------------------------------------------------------------- */

struct snapshot {
    char *path; /* as it was said */
    int folder;
    json_t *facts;   /* "snapshot" of the manifest */
    bool has_memory; /* and all that follows */
    int memory;
    struct snapshot_hello hello;
    struct machine_model *model;
    uint32_t *sums;
    struct stream_buffer state;
};

struct snapshot_check {
    bool always;                          /* whatever verified.json says */
    const struct copy_progress *progress; /* of reading files; or NULL */
    void (*begins)(void *ctx, const char *file);
    void *ctx;
};

/* Only the manifest: for lists. ERR_NOT_FOUND: no such folder, or none in it. */
int snapshot_open(struct snapshot *ret_snapshot, const char *path, struct err *err) must_check;
/* All of it is here and whole: ERR_DEFINITION names the file. check may be NULL. */
int snapshot_verify(struct snapshot *snapshot, const struct snapshot_check *check,
                    struct err *err) must_check;
/* Before anything is begun with it: this host can run what it holds. ERR_STATE says why not. */
int snapshot_check_host(const struct snapshot *snapshot, struct err *err) must_check;
/* Into a machine that was made blank, and has not run. Verified. */
int snapshot_load(struct snapshot *snapshot, struct machine *machine, struct err *err) must_check;
void snapshot_close(struct snapshot *snapshot); /* zeroed with descriptors -1 is fine, and twice */
