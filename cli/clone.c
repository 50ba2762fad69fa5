/* SPDX-License-Identifier: MIT */
/*
 * minivmm clone: a copy of a VM, which may run meanwhile.
 *
 * What belongs to the VM is copied: vm.json, disks, and whatever else lies in its folder. What is
 * about its own life is not: identity, journal, logs, snapshots. The disks that a running VM writes
 * to are copied by itself, all at one moment (vmm/instance_clone.c); the rest here.
 *
 * The clone's vm.json is the same but for its disks, where that is necessary: they are called by
 * their names in the folder, and their format is written down, for it must never be guessed from
 * what a guest has written.
 */
#include "cli/hold.h"
#include "cli/making.h"
#include "cli/progress.h"
#include "cli/verbs.h"
#include "cli/vms.h"
#include "core/log.h"
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

struct clone {
    const char *word;
    char path[PATH_MAX]; /* of the clone, as it is said to people */
    struct making making;
    struct folder from;
    struct definition *definition;
    bool runs;
    struct runtime_info info; /* who runs it */
    json_t *answer;           /* the running VM's */
    struct progress progress;
};

static bool handle_progress(void *ctx, uint64_t done, uint64_t total)
{
    struct clone *clone = ctx;

    progress_tell(&clone->progress, done, total);
    return !making_is_interrupted(&clone->making);
}

/* --- disks ------------------------------------------------------------------------------------ */

/* The name in the VM's folder of what lies at this path; false: it lies elsewhere. */
static bool find_inside(const struct clone *clone, const char *path, char ret_name[PATH_MAX])
{
    char real[PATH_MAX];
    size_t length = strlen(clone->from.path);

    if (!realpath(path, real) || strncmp(real, clone->from.path, length) != 0 ||
        real[length] != '/')
        return false;
    snprintf(ret_name, PATH_MAX, "%s", real + length + 1);
    return true;
}

static int check_disks(const struct clone *clone, struct err *err)
{
    char name[PATH_MAX];

    for (unsigned i = 0; i < clone->definition->disk_count; i++) {
        const struct disk_config *disk = &clone->definition->disks[i];
        if (access(disk->path, F_OK) < 0)
            return err_sys(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_FAILED, errno,
                           "disk %s of %s", disk->path, clone->from.name);
        if (disk->readonly || disk->ephemeral || find_inside(clone, disk->path, name))
            continue;
        int ret = err_say(err, ERR_STATE, ENOTSUP,
                          "%s lies outside of the folder of %s: a clone would write to it too",
                          disk->path, clone->from.name);
        err_hint(err, "move it into the folder, or make it readonly");
        return ret;
    }
    return 0;
}

/* What the running VM says of the disk that it has copied; NULL: it has not. */
static const json_t *find_copied(const struct clone *clone, const char *name)
{
    const json_t *disks = json_object_get(clone->answer, "disks");

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

/* What is the VM's own, and what a file is called while it is replaced. */
static bool is_left_out(const char *name)
{
    static const char *const begins[] = {FOLDER_JOURNAL, FOLDER_CONSOLE, FOLDER_LOG};
    size_t length = strlen(name);

    for (size_t i = 0; i < array_size(begins); i++)
        if (begins_with(name, begins[i]))
            return true;
    return strcmp(name, FOLDER_IDENTITY) == 0 || strcmp(name, FOLDER_SNAPSHOTS) == 0 ||
           strcmp(name, FOLDER_DEFINITION) == 0 ||
           (name[0] == '.' && length > 4 && strcmp(name + length - 4, ".new") == 0);
}

/* What root copies belongs to the VM's owner. */
static void give_to_owner(const struct clone *clone, int folder, const char *name)
{
    int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

    if (fd < 0)
        return;
    small_file_give_to_owner(clone->from.fd, fd);
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

static int copy_plain(struct clone *clone, const struct level *level, const char *name,
                      const struct stat *seen, struct err *err)
{
    const struct copy_progress progress = {.tell = handle_progress, .ctx = clone};

    progress_begin(&clone->progress, name);
    int ret = copy_file_seen(level->from, name, seen, level->to, name, &progress, err);
    progress_end(&clone->progress);
    if (ret == 0)
        give_to_owner(clone, level->to, name);
    return ret;
}

static int copy_level(struct clone *clone, const struct level *level, struct err *err);

static int copy_folder(struct clone *clone, const struct level *level, const char *name,
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
        small_file_give_to_owner(clone->from.fd, deeper.to);
        ret = copy_level(clone, &deeper, err);
    }
    if (deeper.from >= 0)
        close(deeper.from);
    if (deeper.to >= 0)
        close(deeper.to);
    return ret;
}

/* Sockets and the like are nobody's to copy. */
static int copy_entry(struct clone *clone, const struct level *level, const char *name,
                      struct err *err)
{
    char path[PATH_MAX];
    struct stat stat;

    if ((size_t)snprintf(path, sizeof(path), "%s%s", level->path, name) >= sizeof(path))
        return err_sys(err, ERR_FAILED, ENAMETOOLONG, "cannot copy %s", name);
    if (fstatat(level->from, name, &stat, AT_SYMLINK_NOFOLLOW) < 0)
        return err_sys(err, ERR_FAILED, errno, "cannot copy %s", path);
    if (S_ISDIR(stat.st_mode))
        return copy_folder(clone, level, name, path, stat.st_mode, err);
    if (level->folders_only || find_copied(clone, path))
        return 0;
    if (S_ISLNK(stat.st_mode))
        return copy_link(level->from, level->to, name, err);
    return S_ISREG(stat.st_mode) ? copy_plain(clone, level, name, &stat, err) : 0;
}

static int copy_level(struct clone *clone, const struct level *level, struct err *err)
{
    struct dirent *entry;
    int ret = 0, fd = openat(level->from, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = fd >= 0 ? fdopendir(fd) : NULL;

    if (!folder) {
        ret = err_sys(err, ERR_FAILED, errno, "cannot read %s/%s", clone->from.path, level->path);
        if (fd >= 0)
            close(fd);
        return ret;
    }
    while (ret == 0 && (entry = readdir(folder))) {
        const char *name = entry->d_name;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ||
            (level->depth == 0 && is_left_out(name)))
            continue;
        ret = copy_entry(clone, level, name, err);
    }
    closedir(folder);
    if (ret == 0 && fsync(level->to) < 0)
        ret = err_sys(err, ERR_FAILED, errno, "cannot write %s", clone->path);
    return ret;
}

static int copy_files(struct clone *clone, bool folders_only, struct err *err)
{
    const struct level level = {.from = clone->from.fd,
                                .to = clone->making.folder.fd,
                                .path = "",
                                .folders_only = folders_only};
    return copy_level(clone, &level, err);
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
static bool put_outside(const struct clone *clone, json_t *object, const char *key,
                        const char *whole)
{
    const char *old = json_string_value(json_object_get(object, key));
    const char *slash = strrchr(clone->from.path, '/');
    size_t length = (size_t)(slash - clone->from.path);
    char name[PATH_MAX], real[PATH_MAX];
    bool same = strlen(clone->making.place.path) == (length ? length : 1) &&
                begins_with(clone->from.path, clone->making.place.path);

    if (!old || !whole || old[0] == '/' || old[0] == '~' || same || find_inside(clone, whole, name))
        return false;
    return put(object, key, realpath(whole, real) ? real : whole);
}

static bool put_disk(const struct clone *clone, json_t *object, const struct disk_config *disk)
{
    struct disk_config config = {.path = disk->path, .format = disk->format, .readonly = true};
    enum disk_format format;
    const json_t *copied;
    char name[PATH_MAX];
    bool guard, said = json_object_get(object, "format");

    if (!find_inside(clone, disk->path, name))
        return put_outside(clone, object, "file", disk->path);
    copied = find_copied(clone, name);
    const char *file = json_string_value(json_object_get(copied, "file"));
    const char *word = json_string_value(json_object_get(copied, "format"));
    bool changed = put(object, "file", file ? file : name);
    if (!word && !said && disk_format_find(&config, &format, &guard, NULL) == 0)
        word = disk_format_name(format);
    if (word && put(object, "format", word))
        changed = true;
    return changed;
}

static bool put_all(const struct clone *clone, json_t *text)
{
    const struct definition *definition = clone->definition;
    json_t *disks = json_object_get(text, "disks");
    json_t *boot = json_object_get(text, "boot");
    bool changed = put_outside(clone, boot, "kernel", definition->kernel);

    changed |= put_outside(clone, boot, "initrd", definition->initrd);
    changed |= put_outside(clone, json_object_get(text, "seed"), "key", definition->seed_key_file);
    for (unsigned i = 0; i < definition->disk_count && i < json_array_size(disks); i++)
        changed |= put_disk(clone, json_array_get(disks, i), &definition->disks[i]);
    return changed;
}

static void warn_of_macs(const struct clone *clone, const json_t *text)
{
    const json_t *nets = json_object_get(text, "nets");

    for (size_t i = 0; i < json_array_size(nets); i++) {
        const char *mac = json_string_value(json_object_get(json_array_get(nets, i), "mac"));
        if (mac)
            log_warning("%s has the MAC address %s of %s: one of them should lose it in its "
                        "vm.json, or they disturb each other",
                        clone->making.place.name, mac, clone->from.name);
    }
}

static int read_definition(const struct clone *clone, char **ret_text, size_t *ret_length,
                           struct err *err)
{
    int fd = openat(clone->from.fd, FOLDER_DEFINITION, O_RDONLY | O_CLOEXEC);
    int ret = fd < 0 ? -errno : small_file_read(fd, TEXT_MAX, ret_text, ret_length);

    if (fd >= 0)
        close(fd);
    if (ret < 0)
        return err_sys(err, ERR_FAILED, -ret, "cannot read %s/" FOLDER_DEFINITION,
                       clone->from.path);
    return 0;
}

/* Its mode is kept: there may be a password in it. */
static int write_definition(struct clone *clone, const char *text, size_t length, struct err *err)
{
    struct stat stat;

    if (fstatat(clone->from.fd, FOLDER_DEFINITION, &stat, 0) < 0)
        return err_sys(err, ERR_FAILED, errno, "cannot read %s/" FOLDER_DEFINITION,
                       clone->from.path);
    int fd = openat(clone->making.folder.fd, FOLDER_DEFINITION,
                    O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || fchmod(fd, stat.st_mode & 0777) < 0) {
        int ret = err_sys(err, ERR_FAILED, errno, "cannot make %s/" FOLDER_DEFINITION, clone->path);
        if (fd >= 0)
            close(fd);
        return ret;
    }
    close(fd);
    int ret = folder_write_file(&clone->making.folder, FOLDER_DEFINITION, text, length, err);
    give_to_owner(clone, clone->making.folder.fd, FOLDER_DEFINITION);
    return ret;
}

static int copy_definition(struct clone *clone, struct err *err)
{
    char *text = NULL, *changed = NULL;
    size_t length = 0;
    int ret = read_definition(clone, &text, &length, err);
    if (ret < 0)
        return ret;
    json_t *root = json_loadb(text, length, 0, NULL);
    if (!root) { /* it was one when the definition was loaded: what is there now is not copied */
        free(text);
        return err_say(err, ERR_FAILED, ESTALE, "%s/" FOLDER_DEFINITION " was changed meanwhile",
                       clone->from.path);
    }
    warn_of_macs(clone, root);
    if (put_all(clone, root)) {
        changed = json_dumps(root, JSON_INDENT(4));
        free(text);
        if (!changed || asprintf(&text, "%s\n", changed) < 0)
            text = NULL;
        length = text ? strlen(text) : 0;
        free(changed);
    }
    json_decref(root);
    ret = text ? write_definition(clone, text, length, err)
               : err_sys(err, ERR_HOST, ENOMEM, "cannot make %s", clone->path);
    free(text);
    return ret;
}

/* --- a VM that runs --------------------------------------------------------------------------- */

static bool handle_event(void *ctx, const json_t *event)
{
    struct clone *clone = ctx;
    const char *name = json_string_value(json_object_get(event, "event"));
    json_int_t done = json_integer_value(json_object_get(event, "done"));
    json_int_t total = json_integer_value(json_object_get(event, "total"));

    if (name && strcmp(name, "clone-progress") == 0 && total > 0)
        progress_tell(&clone->progress, (uint64_t)done, (uint64_t)total);
    return !making_is_interrupted(&clone->making);
}

static int ask_for_disks(struct clone *clone, struct control_client *client, struct err *err)
{
    char hidden[PATH_MAX + NAME_MAX + 2];

    snprintf(hidden, sizeof(hidden), "%s/%s",
             clone->making.place.path[1] ? clone->making.place.path : "", clone->making.hidden);
    control_hear(client, handle_event, clone);
    int ret = control_call(client, "watch", NULL, NULL, err);
    if (ret < 0)
        return ret;
    progress_begin(&clone->progress, "disks");
    ret = control_call(client, "clone", json_pack("{ss}", "to", hidden), &clone->answer, err);
    progress_end(&clone->progress);
    return ret;
}

static int copy_running_disks(struct clone *clone, struct err *err)
{
    struct control_client *client;
    int ret = vm_connect_to(&clone->info, PATIENCE_MS, &client, err);
    if (ret < 0)
        return ret;
    ret = ask_for_disks(clone, client, err);
    control_disconnect(client);
    if (ret < 0 && ret != -EREMOTEIO) /* it calls itself by its name */
        err_prefix(err, "%s", clone->from.name);
    return ret;
}

/* --- the whole -------------------------------------------------------------------------------- */

/* A plain name lies beside the VM, whatever that was called by. */
static int find_place(struct clone *clone, const char *name, struct err *err)
{
    char here[PATH_MAX] = "";
    const char *slash = strrchr(clone->from.path, '/');
    int length = (int)(slash - clone->from.path);

    bool beside = !strchr(name, '/') && getcwd(here, sizeof(here)) &&
                  ((int)strlen(here) != length || !begins_with(clone->from.path, here));
    if ((size_t)snprintf(clone->path, sizeof(clone->path), "%.*s%s%s", beside ? length : 0,
                         clone->from.path, beside ? "/" : "", name) >= sizeof(clone->path))
        return err_sys(err, ERR_USAGE, ENAMETOOLONG, "cannot make %.200s", name);
    clone->making.path = clone->path;
    return place_find(&clone->making.place, clone->path, err);
}

/* Who has the folder's lock: we, or a VM that runs. */
static int take(struct clone *clone, struct err *err)
{
    int ret = hold_vm_or_find(&clone->from, &clone->info, err);
    clone->runs = ret > 0;
    return ret < 0 ? ret : 0;
}

static int fill(struct clone *clone, struct err *err)
{
    small_file_give_to_owner(clone->from.fd, clone->making.folder.fd);
    int ret = copy_files(clone, true, err);
    if (ret == 0 && clone->runs)
        ret = copy_running_disks(clone, err);
    if (ret == 0)
        ret = copy_files(clone, false, err);
    if (ret == 0)
        ret = copy_definition(clone, err);
    return ret;
}

static int make(struct clone *clone, const char *name, struct err *err)
{
    int ret = place_open_vm(&clone->from, clone->word, err);
    if (ret == 0)
        ret = definition_load(&clone->definition, clone->from.path, NULL, err);
    if (ret == 0)
        ret = check_disks(clone, err);
    if (ret == 0)
        ret = find_place(clone, name, err);
    if (ret == 0)
        ret = take(clone, err);
    if (ret == 0)
        ret = making_begin(&clone->making, err);
    if (ret < 0)
        return ret;
    ret = fill(clone, err);
    return making_end(&clone->making, ret, err);
}

static void tell(const struct clone *clone)
{
    if (clone->runs)
        log_info("%s stood still for %.1f ms; the clone boots as after a power cut",
                 clone->from.name, json_number_value(json_object_get(clone->answer, "paused_ms")));
    making_tell_ready(&clone->making, clone->path);
}

int verb_clone(int argc, char **argv)
{
    static const struct option table[] = {{"help", 'h', NULL, "this text"}};
    struct err err = {0};
    struct clone clone = {.making = MAKING_INIT, .from = {.fd = -1, .lock = -1}};
    struct verb_words words = {.verb = "clone",
                               .table = table,
                               .count = array_size(table),
                               .examples = "Examples:\n"
                                           "  minivmm clone web1 web2\n"
                                           "  minivmm clone web1 /srv/vms/web2\n"
                                           "\n"
                                           "Usage: minivmm clone VM NAME\n"
                                           "\n"
                                           "Makes a copy of a VM, which may run meanwhile: a VM of "
                                           "its own, with the same\n"
                                           "disks. NAME lies beside the VM, unless it has a path. "
                                           "The copies take no space\n"
                                           "where the file system can share it.\n",
                               .least = 2,
                               .most = 2,
                               .missing = "a VM and the name of its clone are wanted"};
    int ret = verb_words_read(&words, argc, argv, &err);
    if (ret != 0)
        return ret < 0 ? fail(&err) : 0;
    clone.word = words.words[0];
    making_hold_signals(&clone.making);
    ret = make(&clone, words.words[1], &err);
    if (ret == 0)
        tell(&clone);
    place_close(&clone.making.place);
    folder_close(&clone.from);
    definition_destroy(clone.definition);
    json_decref(clone.answer);
    if (clone.runs)
        runtime_info_finish(&clone.info);
    int code = ret < 0 ? fail(&err) : 0;
    making_let_signals(&clone.making);
    return code;
}
