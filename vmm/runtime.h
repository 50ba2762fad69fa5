/* SPDX-License-Identifier: MIT */
/*
 * What runs: one folder for each running VM, outside of the VMs' own folders.
 *
 *   /run/minivmm/UUID/               root's, whatever the session says: services and logins agree
 *   $XDG_RUNTIME_DIR/minivmm/UUID/   others'; if that is a whole path
 *   /tmp/minivmm-UID/UUID/           without either, or where the path would be too long
 *   $MINIVMM_RUNTIME_DIR/UUID/       instead of all of these: tests, worlds of their own
 *
 * These bases are used only if they are ours and nobody else may write there. In each UUID/:
 *
 *     info.json      {"uuid", "name", "folder" or null, "pid", "started": seconds since 1970}
 *     control.sock   newline-delimited JSON (docs/control-protocol.md)
 *     metrics.sock   Prometheus text over HTTP
 *     vsock.sock     where the VM has one
 *
 * info.json carries an OFD lock for as long as the VM runs. What a killed one has left is swept by
 * the next start, and passed over by whoever lists. Whoever makes or removes a folder has the base
 * locked (flock), so that no two ever work on the same one.
 */
#pragma once

#include "core/err.h"

struct runtime {
    char *folder; /* this VM's */
    int lock;     /* info.json */
};

struct runtime_info {
    uint8_t uuid[16];
    char *name;
    char *folder; /* the VM's; NULL: an image that was run by itself */
    int64_t pid;
    int64_t started; /* seconds since 1970 */
    char *control;   /* path of its control socket */
};

/*
 * A base of so few characters that the sockets' paths fit: of all, VSOCK_PATH_MAX is the least.
 * ERR_STATE: a VM of this UUID runs already. Nothing of info is kept; its control is not looked at.
 */
enum { RUNTIME_BASE_MAX = 42 };
int runtime_create(struct runtime *ret_runtime, const struct runtime_info *info,
                   struct err *err) must_check;
void runtime_destroy(struct runtime *runtime); /* removes it; zeroed with lock -1 is fine */
char *runtime_path(const struct runtime *runtime, const char *name); /* of a file in it; or NULL */

/* Those that run now, by name; free with runtime_free_list. */
int runtime_list(struct runtime_info **ret_infos, size_t *ret_count, struct err *err) must_check;
void runtime_free_list(struct runtime_info *infos, size_t count);

/*
 * The running VM that a person means: a folder's path, else a name, else the beginning of a UUID (4
 * characters or more). ERR_NOT_FOUND, with what is near it; ERR_STATE: this is a VM's folder, which
 * does not run (so that no namesake elsewhere is taken for it); ERR_USAGE where several fit.
 */
int runtime_find(const char *word, struct runtime_info *ret_info, struct err *err) must_check;
void runtime_info_finish(struct runtime_info *info);
