/* SPDX-License-Identifier: MIT */
#include "ft/snapshot.h"

#include "ft/file_sum.h"
#include "ft/snapshot_parts.h"
#include "host/small_file.h"
#include "host/tree.h"
#include "vmm/folder.h"
#include "vmm/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MANIFEST_MAX = 8 << 20 };

/* --- the manifest ----------------------------------------------------------------------------- */

/* Of the text that a manifest's facts have whoever writes them down. */
int snapshot_sum_of(const json_t *facts, char ret_sum[9])
{
    char *text = json_dumps(facts, JSON_COMPACT | JSON_SORT_KEYS);
    if (!text)
        return -ENOMEM;
    snprintf(ret_sum, 9, "%08x", crc32c(0, text, strlen(text)));
    free(text);
    return 0;
}

static int damaged(const struct snapshot *snapshot, const char *file, const char *why,
                   struct err *err)
{
    return err_say(err, ERR_DEFINITION, EBADMSG, "%s/%s is damaged: %s", snapshot->path, file, why);
}

static int read_manifest(struct snapshot *snapshot, struct err *err)
{
    char *text, sum[9];
    size_t length;
    int fd = openat(snapshot->folder, SNAPSHOT_MANIFEST,
                    O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return err_say(err, ERR_NOT_FOUND, ENOENT,
                       "%s is no snapshot: it has no " SNAPSHOT_MANIFEST, snapshot->path);
    int ret = fd < 0 ? -errno : small_file_read(fd, MANIFEST_MAX, &text, &length);
    if (fd >= 0)
        close(fd);
    if (ret < 0)
        return err_sys(err, ERR_FAILED, -ret, "cannot read %s/" SNAPSHOT_MANIFEST, snapshot->path);
    json_t *root = json_loadb(text, length, JSON_REJECT_DUPLICATES, NULL);
    free(text);
    json_t *facts = json_incref(json_object_get(root, "snapshot"));
    const char *said = json_string_value(json_object_get(root, "crc32c"));
    bool whole = json_is_object(json_object_get(facts, "files")) && said &&
                 snapshot_sum_of(facts, sum) == 0 && strcmp(said, sum) == 0;
    json_decref(root);
    snapshot->facts = facts;
    if (!whole)
        return damaged(snapshot, SNAPSHOT_MANIFEST, "it does not fit its checksum", err);
    json_int_t format = json_integer_value(json_object_get(facts, "format"));
    if (format != SNAPSHOT_FORMAT)
        return err_say(err, ERR_DEFINITION, ENOTSUP,
                       "%s has format %lld, and this minivmm knows %d: it is of a newer minivmm",
                       snapshot->path, (long long)format, SNAPSHOT_FORMAT);
    return 0;
}

bool snapshot_is_one(const char *path)
{
    struct snapshot snapshot = {.memory = -1, .path = (char *)(uintptr_t)path};
    snapshot.folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (snapshot.folder < 0)
        return false;
    int ret = read_manifest(&snapshot, NULL);
    bool is_one = ret == 0 || snapshot.facts; /* a damaged one, too */
    json_decref(snapshot.facts);
    close(snapshot.folder);
    return is_one;
}

int snapshot_open(struct snapshot *ret_snapshot, const char *path, struct err *err)
{
    struct snapshot snapshot = {.folder = -1, .memory = -1, .path = strdup(path)};
    int ret = snapshot.path ? 0 : err_sys(err, ERR_HOST, ENOMEM, "cannot read %s", path);
    stream_buffer_init(&snapshot.state, 0);
    if (ret == 0) {
        snapshot.folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (snapshot.folder < 0)
            ret = err_sys(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_FAILED, errno, "snapshot %s",
                          path);
    }
    if (ret == 0)
        ret = read_manifest(&snapshot, err);
    if (ret < 0) {
        snapshot_close(&snapshot);
        return ret;
    }
    snapshot.has_memory = json_object_get(json_object_get(snapshot.facts, "files"),
                                          SNAPSHOT_MEMORY);
    *ret_snapshot = snapshot;
    return 0;
}

void snapshot_close(struct snapshot *snapshot)
{
    free(snapshot->path);
    json_decref(snapshot->facts);
    free(snapshot->sums);
    machine_model_destroy(snapshot->model);
    stream_buffer_finish(&snapshot->state);
    if (snapshot->memory >= 0)
        close(snapshot->memory);
    if (snapshot->folder >= 0)
        close(snapshot->folder);
    *snapshot = (struct snapshot){.folder = -1, .memory = -1};
}

/* --- files ------------------------------------------------------------------------------------ */

/* What no copy of a VM has, and a restore would put in the place of the VM's. */
static bool is_own(const char *name)
{
    if (folder_is_own(name) || strcmp(name, SNAPSHOT_MANIFEST) == 0 ||
        strcmp(name, SNAPSHOT_VERIFIED) == 0)
        return true;
    /* What a restore calls a file that is on its way. */
    const char *slash = strrchr(name, '/'), *last = slash ? slash + 1 : name;
    size_t length = strlen(last);
    return last[0] == '.' && length > 4 && strcmp(last + length - 4, ".new") == 0;
}

static int open_file(const struct snapshot *snapshot, const char *name, const json_t *said,
                     int *ret_fd, struct err *err)
{
    struct stat stat;
    int fd = is_own(name) || !json_is_object(said)
                 ? -EINVAL
                 : tree_open_file(snapshot->folder, name, O_RDONLY);
    if (fd == -EINVAL)
        return damaged(snapshot, SNAPSHOT_MANIFEST, "it names what no snapshot has", err);
    if (fd == -ENOENT || fd == -ELOOP || fd == -ENOTDIR)
        return damaged(snapshot, name, "it is not there", err);
    if (fd < 0)
        return err_sys(err, ERR_FAILED, -fd, "cannot read %s/%s", snapshot->path, name);
    if (fstat(fd, &stat) < 0) {
        int ret = err_sys(err, ERR_FAILED, errno, "cannot read %s/%s", snapshot->path, name);
        close(fd);
        return ret;
    }
    json_int_t size = json_integer_value(json_object_get(said, "size"));
    /* It is mapped as it is, and a guest that looked behind its end would be the end of us. */
    if (strcmp(name, SNAPSHOT_MEMORY) == 0 && stat.st_size == size)
        size = (json_int_t)machine_model_memory(snapshot->model);
    if (!S_ISREG(stat.st_mode) || stat.st_size != size) {
        char why[100];
        snprintf(why, sizeof(why), "it has %lld bytes instead of %lld", (long long)stat.st_size,
                 (long long)size);
        close(fd);
        return damaged(snapshot, name, why, err);
    }
    *ret_fd = fd;
    return 0;
}

static int sum_file(const struct snapshot *snapshot, const char *name, int fd, const json_t *said,
                    const struct snapshot_check *check, struct err *err)
{
    const char *wanted = json_string_value(json_object_get(said, "crc32c"));
    char text[9];
    uint32_t sum;
    if (!wanted)
        return 0;
    if (check && check->begins)
        check->begins(check->ctx, name);
    int ret = file_sum(fd, check ? check->progress : NULL, &sum);
    if (ret < 0)
        return err_sys(err, ERR_FAILED, -ret, "cannot read %s/%s", snapshot->path, name);
    snprintf(text, sizeof(text), "%08x", sum);
    return strcmp(text, wanted) == 0 ? 0
                                     : damaged(snapshot, name, "it does not fit its checksum", err);
}

/* The stamp is this file as it is now: nobody can change it without another one. */
json_t *snapshot_stamp(int fd)
{
    struct stat stat;
    if (fstat(fd, &stat) < 0)
        return NULL;
    return json_pack("[I, I, I]", (json_int_t)stat.st_ino, (json_int_t)stat.st_ctim.tv_sec,
                     (json_int_t)stat.st_ctim.tv_nsec);
}

static json_t *read_stamps(const struct snapshot *snapshot)
{
    char sum[9];
    json_t *root = NULL;
    int fd = openat(snapshot->folder, SNAPSHOT_VERIFIED,
                    O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    char *text;
    size_t length;
    if (fd < 0)
        return NULL;
    if (small_file_read(fd, MANIFEST_MAX, &text, &length) == 0) {
        root = json_loadb(text, length, 0, NULL);
        free(text);
    }
    close(fd);
    const char *said = json_string_value(json_object_get(root, "crc32c"));
    bool ours = said && snapshot_sum_of(snapshot->facts, sum) == 0 && strcmp(said, sum) == 0;
    json_t *files = ours ? json_incref(json_object_get(root, "files")) : NULL;
    json_decref(root);
    return files;
}

int snapshot_write_stamps(int folder, const json_t *facts, json_t *stamps, struct err *err)
{
    char sum[9];
    int ret = snapshot_sum_of(facts, sum);
    json_t *root = ret == 0 ? json_pack("{ss, so}", "crc32c", sum, "files", stamps) : NULL;
    char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
    json_decref(root);
    if (!text)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot write " SNAPSHOT_VERIFIED);
    const struct small_file file = {.bytes = text, .length = strlen(text)};
    ret = small_file_replace(folder, SNAPSHOT_VERIFIED, &file, err);
    free(text);
    return ret;
}

/* One file: it is there, of the right size, and whole, as far as is known or was read. */
static int verify_file(struct snapshot *snapshot, const char *name, const json_t *said,
                       const json_t *old_stamps, json_t *stamps, const struct snapshot_check *check,
                       bool *ret_read, struct err *err)
{
    int fd = -1, ret = open_file(snapshot, name, said, &fd, err);
    if (ret < 0)
        return ret;
    json_t *stamp = snapshot_stamp(fd), *known = json_object_get(old_stamps, name);
    bool fresh = stamp && known && json_equal(stamp, known) && !(check && check->always);
    bool is_memory = strcmp(name, SNAPSHOT_MEMORY) == 0;
    if (!fresh)
        *ret_read = true;
    if (!fresh && !is_memory)
        ret = sum_file(snapshot, name, fd, said, check, err);
    if (ret == 0 && is_memory && !fresh) {
        if (check && check->begins)
            check->begins(check->ctx, name);
        ret = memory_file_verify(fd, machine_model_memory(snapshot->model), snapshot->sums, err);
        if (ret < 0 && err)
            err_prefix(err, "%s/%s is damaged", snapshot->path, name);
    }
    json_object_set_new(stamps, name, stamp);
    if (ret == 0 && is_memory) {
        if (snapshot->memory >= 0) /* verified once more */
            close(snapshot->memory);
        snapshot->memory = fd;
    } else {
        close(fd);
    }
    return ret;
}

int snapshot_verify(struct snapshot *snapshot, const struct snapshot_check *check, struct err *err)
{
    json_t *files = json_object_get(snapshot->facts, "files");
    json_t *old_stamps = read_stamps(snapshot), *stamps = json_object();
    bool read = false;
    const char *name;
    json_t *said;
    int ret = snapshot->has_memory ? snapshot_read_state(snapshot, err) : 0;
    if (ret == 0)
        json_object_foreach(files, name, said)
        {
            ret = verify_file(snapshot, name, said, old_stamps, stamps, check, &read, err);
            if (ret < 0)
                break;
        }
    /* Where it cannot be written down (a readonly file system), the next one reads again. */
    if (ret == 0 && read && stamps)
        (void)!snapshot_write_stamps(snapshot->folder, snapshot->facts, json_incref(stamps), NULL);
    json_decref(old_stamps);
    json_decref(stamps);
    return ret;
}

int snapshot_check_host(const struct snapshot *snapshot, struct err *err)
{
    int ret = machine_model_check_host(snapshot->model, err);
    err_prefix(ret < 0 ? err : NULL, "%s", snapshot->path);
    return ret;
}

int snapshot_load(struct snapshot *snapshot, struct machine *machine, struct err *err)
{
    int ret = machine_model_check(snapshot->model, machine, err);
    if (ret == 0)
        ret = memory_map_file(machine_memory(machine), snapshot->memory, err);
    if (ret == 0) {
        stream_buffer_rewind(&snapshot->state);
        ret = machine_load(machine, &snapshot->state.stream, err);
    }
    err_prefix(ret < 0 ? err : NULL, "%s", snapshot->path);
    return ret;
}
