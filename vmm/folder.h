/* SPDX-License-Identifier: MIT */
/*
 * A VM's folder: found, named, locked.
 *
 *   web1/vm.json  identity.json  disk.img  snapshots/NAME/  console.log  journal.jsonl
 *
 * Its name is the folder's name. Nothing of a run is in it, so that a copied folder carries nothing
 * stale. The lock is an OFD lock on identity.json (made empty where there is none, and removed
 * again if it is still empty then): it is gone with the last process that has it, however that
 * ended. identity.json is replaced by rename: whoever has got the lock looks whether the file is
 * still the one that the name leads to, and else tries again; whoever replaces it locks the new
 * file first (host/small_file.h).
 */
#pragma once

#include "core/err.h"

#define FOLDER_DEFINITION "vm.json"
#define FOLDER_IDENTITY   "identity.json"
#define FOLDER_CONSOLE    "console.log"
#define FOLDER_JOURNAL    "journal.jsonl"
#define FOLDER_LOG        "minivmm.log"
#define FOLDER_SNAPSHOTS  "snapshots"
#define FOLDER_RESTORING  ".restoring" /* cli/restoring.h */
#define FOLDER_MOVED      ".moved"     /* ft/handover.h, as the next three */
#define FOLDER_ARRIVING   ".arriving"
#define FOLDER_ARRIVED    ".arrived"
#define FOLDER_UNWANTED   ".unwanted"
#define FOLDER_PROTECTED  ".protected" /* ft/protection.h */
#define FOLDER_SPARE      ".protected.spare"
#define FOLDER_EPOCHS     ".epochs"  /* ft/epoch_journal.h */
#define FOLDER_CHANGES    ".changes" /* ft/changes_file.h */

struct folder {
    char *path; /* whole, without symbolic links */
    char *name; /* its last part */
    int fd;     /* the directory */
    int lock;   /* identity.json, locked; or -1 */
};

/* True where a vm.json is in it: `run` and its kin take a word for a VM then. */
bool folder_is_vm(const char *path);

/*
 * What minivmm writes into the folder about this VM's life in this place, or what lies below that:
 * no copy of the VM has it, wherever it goes. By a path in the folder. Logs have older ones
 * (console.log.1).
 */
bool folder_is_own(const char *path);

/* Not locked as yet. ERR_NOT_FOUND: no such folder, or no vm.json in it (the hint says what is). */
int folder_open(struct folder *ret_folder, const char *path, struct err *err) must_check;

/*
 * Nobody else runs, changes or removes this VM until folder_close. ERR_STATE: "web1 is in use
 * (pid 4711)", where /proc tells the holder: one that runs it, or only renames it, say.
 */
int folder_lock(struct folder *folder, struct err *err) must_check;

/*
 * Writes name atomically: whole, or not at all; when this returns it survives a power cut, too. One
 * writer at a time: who has the lock, or who is just making the folder. For identity.json the lock
 * moves along.
 */
int folder_write_file(struct folder *folder, const char *name, const void *bytes, size_t length,
                      struct err *err) must_check;
/* The same without waiting for the disk: a power cut may bring the old one back, or an empty one.
 */
int folder_write_file_soon(struct folder *folder, const char *name, const void *bytes,
                           size_t length, struct err *err) must_check;
void folder_close(struct folder *folder); /* zeroed with fds -1 is fine, and twice */

/* Whether somebody holds the lock now. */
bool folder_is_locked(const char *path);

/* Who: 0 nobody, -1 somebody whose pid is not known, else the pid. Reads all of /proc. */
int64_t folder_holder(const char *path);

/* Where nothing is at this path: the hint is what lies beside it and was probably meant, a VM, or
 * (`files`) a file. */
void folder_hint_at_nearest(const char *path, bool files, struct err *err);

/* What may be a VM's name: one that is a file name, not hidden, printable, and no option. */
int folder_check_name(const char *name, struct err *err) must_check;

/* Whether it is UTF-8: other paths do not fit into JSON, and are refused or passed over. */
bool folder_is_text(const char *path);

/*
 * The folders of VMs below `root`, itself included, no deeper than `depth` levels and not inside a
 * VM's folder or a hidden one; whole paths like folder.path, sorted. Symbolic links below root are
 * not followed, what cannot be read is passed over. The caller frees with folder_free_found.
 */
int folder_find(const char *root, unsigned depth, char ***ret_paths, size_t *ret_count,
                struct err *err) must_check;
void folder_free_found(char **paths, size_t count);
