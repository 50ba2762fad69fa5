/* SPDX-License-Identifier: MIT */
#include "cli/vm_copy.h"

#include "cli/hold.h"
#include "cli/vms.h"
#include "core/log.h"
#include "core/words.h"
#include "ft/snapshot.h"
#include "host/copy.h"
#include "host/small_file.h"
#include "vmm/definition.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    DEEPEST = 16,         /* folders in folders */
    PATIENCE_MS = 60000,  /* with a running VM that tells nothing */
    TEXT_MAX = 1024 << 10 /* of vm.json */
};

bool vm_copy_handle_progress(void *ctx, uint64_t done, uint64_t total)
{
    struct vm_copy *copy = ctx;

    progress_tell(&copy->progress, done, total);
    return !making_is_interrupted(&copy->making);
}

/* A VM of its own that goes on beside the one that it is made of. */
static bool runs_at_once(const struct vm_copy *copy)
{
    return copy->with_memory && !copy->for_itself;
}

/* --- disks ------------------------------------------------------------------------------------ */

/* The name in the VM's folder of what lies at this path; false: it lies elsewhere. */
static bool find_inside(const struct vm_copy *copy, const char *path, char ret_name[PATH_MAX])
{
    char real[PATH_MAX];
    size_t length = strlen(copy->from.path);

    if (!realpath(path, real) || strncmp(real, copy->from.path, length) != 0 || real[length] != '/')
        return false;
    snprintf(ret_name, PATH_MAX, "%s", real + length + 1);
    return true;
}

static int check_disks(const struct vm_copy *copy, struct err *err)
{
    char name[PATH_MAX];

    for (unsigned i = 0; i < copy->definition->disk_count; i++) {
        const struct disk_config *disk = &copy->definition->disks[i];
        if (access(disk->path, F_OK) < 0)
            return err_sys(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_FAILED, errno,
                           "disk %s of %s", disk->path, copy->from.name);
        if (disk->readonly || disk->ephemeral || find_inside(copy, disk->path, name))
            continue;
        int ret = err_say(err, ERR_STATE, ENOTSUP,
                          "%s lies outside of the folder of %s: a copy would write to it too",
                          disk->path, copy->from.name);
        err_hint(err, "move it into the folder, or make it readonly");
        return ret;
    }
    return 0;
}

/* What the running VM says of the disk that it has copied; NULL: it has not. */
static const json_t *find_copied(const struct vm_copy *copy, const char *name)
{
    const json_t *disks = json_object_get(copy->answer, "disks");

    for (size_t i = 0; i < json_array_size(disks); i++) {
        const json_t *disk = json_array_get(disks, i);
        const char *from = json_string_value(json_object_get(disk, "from"));
        if (from && strcmp(from, name) == 0)
            return disk;
    }
    return NULL;
}

/* --- files ------------------------------------------------------------------------------------ */

static bool begins_with(const char *text, const char *begin)
{
    return strncmp(text, begin, strlen(begin)) == 0;
}

static const char *const snapshot_files[] = {SNAPSHOT_MEMORY, SNAPSHOT_STATE, SNAPSHOT_MANIFEST,
                                             SNAPSHOT_VERIFIED, NULL};

/* What a file is called while it is replaced, or made. */
static bool is_unfinished(const char *name)
{
    size_t length = strlen(name);
    return name[0] == '.' && length > 4 && strcmp(name + length - 4, ".new") == 0;
}

/* What is the VM's own, or the snapshot's; and vm.json, which is written anew. */
static bool is_left_out(const struct vm_copy *copy, const char *name)
{
    return folder_is_own(name) || strcmp(name, FOLDER_DEFINITION) == 0 ||
           (copy->is_snapshot && words_find(snapshot_files, name) >= 0);
}

/* What root copies belongs to the VM's owner. */
static void give_to_owner(const struct vm_copy *copy, int folder, const char *name)
{
    int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

    if (fd < 0)
        return;
    small_file_give_to_owner(copy->from.fd, fd);
    close(fd);
}

static int copy_link(int from, int to, const char *name, struct err *err)
{
    char target[PATH_MAX];
    ssize_t length = readlinkat(from, name, target, sizeof(target) - 1);

    if (length >= 0)
        target[length] = '\0';
    if (length < 0 || symlinkat(target, to, name) < 0)
        return err_sys(err, ERR_FAILED, errno, "cannot copy %s", name);
    return 0;
}

struct level {
    int from, to;
    const char *path; /* of it, in the VM's folder; ends with a slash, or is empty */
    unsigned depth;
    bool folders_only;
};

static int copy_plain(struct vm_copy *copy, const struct level *level, const char *name,
                      const struct stat *seen, struct err *err)
{
    const struct copy_progress progress = {.tell = vm_copy_handle_progress, .ctx = copy};

    progress_begin(&copy->progress, name);
    int ret = copy_file_seen(level->from, name, seen, level->to, name, &progress, err);
    progress_end(&copy->progress);
    if (ret == 0)
        give_to_owner(copy, level->to, name);
    return ret;
}

static int copy_level(struct vm_copy *copy, const struct level *level, struct err *err);

static int copy_folder(struct vm_copy *copy, const struct level *level, const char *name,
                       const char *path, mode_t mode, struct err *err)
{
    char deeper_path[PATH_MAX];
    struct level deeper = {.from = -1,
                           .to = -1,
                           .path = deeper_path,
                           .depth = level->depth + 1,
                           .folders_only = level->folders_only};
    int ret = 0;

    if (deeper.depth > DEEPEST ||
        (size_t)snprintf(deeper_path, sizeof(deeper_path), "%s/", path) >= sizeof(deeper_path))
        return err_sys(err, ERR_FAILED, ELOOP, "cannot copy %s", path);
    if (mkdirat(level->to, name, (mode & 0777) | 0700) < 0 && errno != EEXIST)
        ret = err_sys(err, ERR_FAILED, errno, "cannot make %s", path);
    if (ret == 0) {
        deeper.from = openat(level->from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        deeper.to = openat(level->to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (deeper.from < 0 || deeper.to < 0)
            ret = err_sys(err, ERR_FAILED, errno, "cannot copy %s", path);
    }
    if (ret == 0) {
        small_file_give_to_owner(copy->from.fd, deeper.to);
        ret = copy_level(copy, &deeper, err);
    }
    if (deeper.from >= 0)
        close(deeper.from);
    if (deeper.to >= 0)
        close(deeper.to);
    return ret;
}

/* Sockets and the like are nobody's to copy. */
static int copy_entry(struct vm_copy *copy, const struct level *level, const char *name,
                      struct err *err)
{
    char path[PATH_MAX];
    struct stat stat;

    if ((size_t)snprintf(path, sizeof(path), "%s%s", level->path, name) >= sizeof(path))
        return err_sys(err, ERR_FAILED, ENAMETOOLONG, "cannot copy %s", name);
    if (fstatat(level->from, name, &stat, AT_SYMLINK_NOFOLLOW) < 0)
        return err_sys(err, ERR_FAILED, errno, "cannot copy %s", path);
    if (S_ISDIR(stat.st_mode))
        return copy_folder(copy, level, name, path, stat.st_mode, err);
    if (level->folders_only || find_copied(copy, path))
        return 0;
    if (S_ISLNK(stat.st_mode))
        return copy_link(level->from, level->to, name, err);
    return S_ISREG(stat.st_mode) ? copy_plain(copy, level, name, &stat, err) : 0;
}

static int copy_level(struct vm_copy *copy, const struct level *level, struct err *err)
{
    struct dirent *entry;
    int ret = 0, fd = openat(level->from, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = fd >= 0 ? fdopendir(fd) : NULL;

    if (!folder) {
        ret = err_sys(err, ERR_FAILED, errno, "cannot read %s/%s", copy->from.path, level->path);
        if (fd >= 0)
            close(fd);
        return ret;
    }
    while (ret == 0 && (entry = readdir(folder))) {
        const char *name = entry->d_name;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || is_unfinished(name) ||
            (level->depth == 0 && is_left_out(copy, name)))
            continue;
        ret = copy_entry(copy, level, name, err);
    }
    closedir(folder);
    if (ret == 0 && fsync(level->to) < 0)
        ret = err_sys(err, ERR_FAILED, errno, "cannot write %s", copy->making.path);
    return ret;
}

static int copy_files(struct vm_copy *copy, bool folders_only, struct err *err)
{
    const struct level level = {.from = copy->from.fd,
                                .to = copy->making.folder.fd,
                                .path = "",
                                .folders_only = folders_only};
    return copy_level(copy, &level, err);
}

/* --- vm.json ---------------------------------------------------------------------------------- */

/* True: it was something else. */
static bool put(json_t *object, const char *key, const char *value)
{
    const char *old = json_string_value(json_object_get(object, key));

    if (old && strcmp(old, value) == 0)
        return false;
    json_object_set_new(object, key, json_string(value));
    return true;
}

/* Relative to a folder of another parent it would lead elsewhere. */
static bool put_outside(const struct vm_copy *copy, json_t *object, const char *key,
                        const char *whole)
{
    const char *old = json_string_value(json_object_get(object, key));
    const char *slash = strrchr(copy->from.path, '/');
    size_t length = (size_t)(slash - copy->from.path);
    char name[PATH_MAX], real[PATH_MAX];
    bool same = strlen(copy->making.place.path) == (length ? length : 1) &&
                begins_with(copy->from.path, copy->making.place.path);

    if (!old || !whole || old[0] == '/' || old[0] == '~' || same || find_inside(copy, whole, name))
        return false;
    return put(object, key, realpath(whole, real) ? real : whole);
}

static bool put_disk(const struct vm_copy *copy, json_t *object, const struct disk_config *disk)
{
    struct disk_config config = {.path = disk->path, .format = disk->format, .readonly = true};
    enum disk_format format;
    const json_t *copied;
    char name[PATH_MAX];
    bool guard, said = json_object_get(object, "format");

    if (!find_inside(copy, disk->path, name))
        return put_outside(copy, object, "file", disk->path);
    copied = find_copied(copy, name);
    const char *file = json_string_value(json_object_get(copied, "file"));
    const char *word = json_string_value(json_object_get(copied, "format"));
    bool changed = put(object, "file", file ? file : name);
    if (!word && !said && disk_format_find(&config, &format, &guard, NULL) == 0)
        word = disk_format_name(format);
    if (word && put(object, "format", word))
        changed = true;
    return changed;
}

static bool put_all(const struct vm_copy *copy, json_t *text)
{
    const struct definition *definition = copy->definition;
    json_t *disks = json_object_get(text, "disks");
    json_t *boot = json_object_get(text, "boot");
    bool changed = put_outside(copy, boot, "kernel", definition->kernel);

    changed |= put_outside(copy, boot, "initrd", definition->initrd);
    changed |= put_outside(copy, json_object_get(text, "seed"), "key", definition->seed_key_file);
    for (unsigned i = 0; i < definition->disk_count && i < json_array_size(disks); i++)
        changed |= put_disk(copy, json_array_get(disks, i), &definition->disks[i]);
    return changed;
}

/* A port of this host leads to one VM, and the one that runs has it. */
static bool drop_forwards(const struct vm_copy *copy, const json_t *text)
{
    const json_t *nets = json_object_get(text, "nets");
    bool dropped = false;

    for (size_t i = 0; i < json_array_size(nets); i++)
        dropped |= json_object_del(json_array_get(nets, i), "forwards") == 0;
    if (dropped)
        log_warning("%s has no port forwards: %s has them", copy->making.place.name,
                    copy->from.name);
    return dropped;
}

static void warn_of_macs(const struct vm_copy *copy, const json_t *text)
{
    const json_t *nets = json_object_get(text, "nets");

    for (size_t i = 0; i < json_array_size(nets); i++) {
        const char *mac = json_string_value(json_object_get(json_array_get(nets, i), "mac"));
        if (mac)
            log_warning("%s has the MAC address %s of %s: one of them should lose it in its "
                        "vm.json, or they disturb each other",
                        copy->making.place.name, mac, copy->from.name);
    }
}

static int read_definition(const struct vm_copy *copy, char **ret_text, size_t *ret_length,
                           struct err *err)
{
    int fd = openat(copy->from.fd, FOLDER_DEFINITION, O_RDONLY | O_CLOEXEC);
    int ret = fd < 0 ? -errno : small_file_read(fd, TEXT_MAX, ret_text, ret_length);

    if (fd >= 0)
        close(fd);
    if (ret < 0)
        return err_sys(err, ERR_FAILED, -ret, "cannot read %s/" FOLDER_DEFINITION, copy->from.path);
    return 0;
}

/* Its mode is kept: there may be a password in it. */
static int write_definition(struct vm_copy *copy, const char *text, size_t length, struct err *err)
{
    struct stat stat;

    if (fstatat(copy->from.fd, FOLDER_DEFINITION, &stat, 0) < 0)
        return err_sys(err, ERR_FAILED, errno, "cannot read %s/" FOLDER_DEFINITION,
                       copy->from.path);
    int fd = openat(copy->making.folder.fd, FOLDER_DEFINITION,
                    O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || fchmod(fd, stat.st_mode & 0777) < 0) {
        int ret = err_sys(err, ERR_FAILED, errno, "cannot make %s/" FOLDER_DEFINITION,
                          copy->making.path);
        if (fd >= 0)
            close(fd);
        return ret;
    }
    close(fd);
    int ret = folder_write_file(&copy->making.folder, FOLDER_DEFINITION, text, length, err);
    give_to_owner(copy, copy->making.folder.fd, FOLDER_DEFINITION);
    return ret;
}

static int copy_definition(struct vm_copy *copy, struct err *err)
{
    char *text = NULL, *changed = NULL;
    size_t length = 0;
    int ret = read_definition(copy, &text, &length, err);
    if (ret < 0)
        return ret;
    json_t *root = json_loadb(text, length, 0, NULL);
    if (!root) { /* it was one when the definition was loaded: what is there now is not copied */
        free(text);
        return err_say(err, ERR_FAILED, ESTALE, "%s/" FOLDER_DEFINITION " was changed meanwhile",
                       copy->from.path);
    }
    if (!copy->for_itself)
        warn_of_macs(copy, root);
    bool lacks = runs_at_once(copy) && drop_forwards(copy, root);
    if (put_all(copy, root) || lacks) {
        changed = json_dumps(root, JSON_INDENT(4));
        free(text);
        if (!changed || asprintf(&text, "%s\n", changed) < 0)
            text = NULL;
        length = text ? strlen(text) : 0;
        free(changed);
    }
    json_decref(root);
    ret = text ? write_definition(copy, text, length, err)
               : err_sys(err, ERR_HOST, ENOMEM, "cannot make %s", copy->making.path);
    free(text);
    return ret;
}

/* --- a VM that runs --------------------------------------------------------------------------- */

static bool handle_event(void *ctx, const json_t *event)
{
    struct vm_copy *copy = ctx;
    vm_show_progress(event, "clone-progress", &copy->progress);
    return !making_is_interrupted(&copy->making);
}

static int ask_for_disks(struct vm_copy *copy, struct control_client *client, struct err *err)
{
    char hidden[PATH_MAX + NAME_MAX + 2];

    snprintf(hidden, sizeof(hidden), "%s/%s",
             copy->making.place.path[1] ? copy->making.place.path : "", copy->making.hidden);
    control_hear(client, handle_event, copy);
    int ret = control_call(client, "watch", NULL, NULL, err);
    if (ret < 0)
        return ret;
    progress_begin(&copy->progress, "disks");
    ret = control_call(client, "clone",
                       json_pack("{ss, sb}", "to", hidden, "memory", (int)copy->with_memory),
                       &copy->answer, err);
    progress_end(&copy->progress);
    return ret;
}

static int copy_running_disks(struct vm_copy *copy, struct err *err)
{
    struct control_client *client;
    int ret = vm_connect_to(&copy->info, PATIENCE_MS, &client, err);
    if (ret < 0)
        return ret;
    ret = ask_for_disks(copy, client, err);
    control_disconnect(client);
    if (ret < 0 && ret != -EREMOTEIO) /* it calls itself by its name */
        err_prefix(err, "%s", copy->from.name);
    return ret;
}

/* --- the whole -------------------------------------------------------------------------------- */

/* Who has the folder's lock: we, or a VM that runs. A snapshot is not changed, and needs none. */
static int take(struct vm_copy *copy, struct err *err)
{
    int ret = copy->is_snapshot ? 0 : hold_vm_or_find(&copy->from, &copy->info, err);
    copy->runs = ret > 0;
    if (ret == 0 && !copy->is_snapshot)
        ret = hold_complete_disks(&copy->from, err);
    if (ret == 0 && runs_at_once(copy)) {
        ret = err_say(err, ERR_STATE, ENOTSUP, "%s does not run: it has no memory to clone",
                      copy->from.name);
        err_hint(err, "leave --memory out, and the clone boots");
    }
    return ret < 0 ? ret : 0;
}

/* The memory goes with the vm.json with which the VM was started. */
static int check_definition(const struct vm_copy *copy, struct err *err)
{
    const char *then = json_string_value(json_object_get(copy->answer, "definition"));
    char now[9];
    if (!then || (snapshot_sum_definition(copy->from.fd, now) == 0 && strcmp(then, now) == 0))
        return 0;
    int ret = err_say(err, ERR_STATE, ESTALE,
                      "%s/" FOLDER_DEFINITION " was changed since %s was started: its memory does "
                      "not go with it",
                      copy->from.path, copy->from.name);
    err_hint(err, "start it anew, or put the old " FOLDER_DEFINITION " back");
    return ret;
}

/* In a snapshot they would be taken for what they are called. */
static int check_names(const struct vm_copy *copy, struct err *err)
{
    for (size_t i = 0; copy->with_memory && snapshot_files[i]; i++)
        if (faccessat(copy->from.fd, snapshot_files[i], F_OK, AT_SYMLINK_NOFOLLOW) == 0)
            return err_say(err, ERR_STATE, EEXIST,
                           "%s has a file \"%s\": a snapshot has one of its own by that name",
                           copy->from.name, snapshot_files[i]);
    return 0;
}

static int fill(struct vm_copy *copy, struct err *err)
{
    small_file_give_to_owner(copy->from.fd, copy->making.folder.fd);
    int ret = copy_files(copy, true, err);
    if (ret == 0 && copy->runs)
        ret = copy_running_disks(copy, err);
    if (ret == 0 && copy->runs && copy->with_memory)
        ret = check_definition(copy, err);
    if (ret == 0)
        ret = copy_files(copy, false, err);
    if (ret == 0)
        ret = copy_definition(copy, err);
    return ret;
}

int vm_copy_open(struct vm_copy *copy, struct err *err)
{
    int ret = place_open_vm(&copy->from, copy->word, err);
    if (ret == 0)
        ret = definition_load(&copy->definition, copy->from.path, NULL, err);
    copy->is_snapshot = ret == 0 && snapshot_is_one(copy->from.path);
    if (ret == 0)
        ret = check_names(copy, err);
    return ret < 0 ? ret : check_disks(copy, err);
}

int vm_copy_make(struct vm_copy *copy, int (*last)(struct vm_copy *copy, struct err *err),
                 struct err *err)
{
    int ret = take(copy, err);
    if (ret == 0)
        ret = making_begin(&copy->making, err);
    if (ret < 0)
        return ret;
    ret = fill(copy, err);
    if (ret == 0 && last)
        ret = last(copy, err);
    return making_end(&copy->making, ret, err);
}

void vm_copy_close(struct vm_copy *copy)
{
    place_close(&copy->making.place);
    folder_close(&copy->from);
    definition_destroy(copy->definition);
    json_decref(copy->answer);
    if (copy->runs)
        runtime_info_finish(&copy->info);
}
