/* SPDX-License-Identifier: MIT */
#include "vmm/runtime.h"
#include "core/words.h"
#include "host/lock.h"
#include "host/small_file.h"
#include "vmm/identity.h"
#include "vmm/runtime_base.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A start looks at so many folders of others at most, and removes so many. */
enum { SWEEP_LOOKS = 4096, SWEEP_REMOVES = 256 };

/* What minivmm and its vsock's listeners make; nothing else is ever removed. */
static bool is_ours(const char *name)
{
    static const char *const names[] = {RUNTIME_INFO,   ".info.json.new", "control.sock",
                                        "metrics.sock", "vsock.sock",     NULL};

    return words_find(names, name) >= 0 || strncmp(name, "vsock.sock_", 11) == 0;
}

static void empty_folder(int folder)
{
    struct dirent *entry;

    int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *entries = fd >= 0 ? fdopendir(fd) : NULL;
    while (entries && (entry = readdir(entries)))
        if (is_ours(entry->d_name))
            unlinkat(folder, entry->d_name, 0);
    if (entries)
        closedir(entries);
    else if (fd >= 0)
        close(fd);
}

static void remove_folder(int base, const char *uuid)
{
    int fd = openat(base, uuid, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0)
        return;
    empty_folder(fd);
    close(fd);
    unlinkat(base, uuid, AT_REMOVEDIR);
}

static bool is_running(int base, const char *uuid)
{
    int fd = runtime_open_info(base, uuid);

    if (fd >= 0)
        close(fd);
    return fd != -ENOENT; /* what is not known is left alone */
}

/* What killed ones have left. */
static void sweep(int base)
{
    unsigned looks = 0, removes = 0;
    struct dirent *entry;
    uint8_t uuid[16];

    int fd = openat(base, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *entries = fd >= 0 ? fdopendir(fd) : NULL;
    while (entries && removes < SWEEP_REMOVES && looks < SWEEP_LOOKS &&
           (entry = readdir(entries))) {
        looks++;
        if (parse_uuid(entry->d_name, "", uuid, NULL) < 0 || is_running(base, entry->d_name))
            continue;
        remove_folder(base, entry->d_name);
        removes++;
    }
    if (entries)
        closedir(entries);
    else if (fd >= 0)
        close(fd);
}

/* Two folders with one UUID: the rules of identity.h let that happen where they cannot know. */
static int say_running(int fd, const struct runtime_info *info, struct err *err)
{
    struct runtime_info other = {0};
    int r;

    if (runtime_read_info(fd, info->uuid, &other) < 0)
        return err_say(err, ERR_STATE, EBUSY, "a VM with the UUID of %s is already running",
                       info->name);
    r = err_say(err, ERR_STATE, EBUSY, "a VM with the UUID of %s is already running: %s (pid %lld)",
                info->name, other.folder ? other.folder : other.name, (long long)other.pid);
    if (info->folder)
        err_hint(err, "where %s is a copy of it, remove identity.json from the copy", info->name);
    runtime_info_finish(&other);
    return r;
}

/* In all bases: which one is taken depends on the environment. */
static int check_not_running(const struct runtime_base *bases, size_t count, const char *uuid,
                             const struct runtime_info *info, struct err *err)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < count; i++) {
        int base = runtime_base_open(&bases[i], false, NULL);
        int fd = base >= 0 ? runtime_open_info(base, uuid) : -ENOENT;
        if (fd >= 0) {
            r = say_running(fd, info, err);
            close(fd);
        }
        if (base >= 0)
            close(base);
    }
    return r;
}

static char *format_info(const struct runtime_info *info, const char *uuid)
{
    char *text = NULL;

    json_t *root = json_pack("{s:s, s:s, s:s?, s:I, s:I}", "uuid", uuid, "name", info->name,
                             "folder", info->folder, "pid", (json_int_t)info->pid, "started",
                             (json_int_t)info->started);
    if (root)
        text = json_dumps(root, 0);
    json_decref(root);
    return text;
}

/* The base is locked, and nobody runs with this UUID. *ret_lock: info.json's. */
static int fill_folder(int base, const char *uuid, const struct runtime_info *info, int *ret_lock,
                       struct err *err)
{
    int lock = -1, r;

    if (mkdirat(base, uuid, 0700) < 0 && errno != EEXIST)
        return err_sys(err, ERR_HOST, errno, "cannot make the runtime folder %s", uuid);
    int fd = openat(base, uuid, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return err_sys(err, ERR_HOST, errno, "cannot open the runtime folder %s", uuid);
    empty_folder(fd);
    char *text = format_info(info, uuid);
    struct small_file file = {
        .bytes = text, .length = text ? strlen(text) : 0, .durable = false, .lock = &lock};
    if (text)
        r = small_file_replace(fd, RUNTIME_INFO, &file, err);
    else
        r = err_say(err, ERR_FAILED, EILSEQ, "the name or path of %s cannot be written as JSON",
                    info->name);
    free(text);
    close(fd);
    if (r < 0)
        remove_folder(base, uuid);
    else
        *ret_lock = lock;
    return r;
}

static int open_first(const struct runtime_base *bases, size_t count, size_t *ret_which,
                      struct err *err)
{
    int fd = -EINVAL;

    for (size_t i = 0; fd < 0 && i < count; i++) {
        fd = runtime_base_open(&bases[i], true, err);
        *ret_which = i;
    }
    return fd;
}

int runtime_create(struct runtime *ret_runtime, const struct runtime_info *info, struct err *err)
{
    struct runtime runtime = {.lock = -1};
    struct runtime_base bases[RUNTIME_BASES];
    size_t count, which = 0;
    char uuid[37];

    identity_format_uuid(info->uuid, uuid);
    int r = runtime_bases(bases, &count, err);
    if (r < 0)
        return r;
    int base = open_first(bases, count, &which, err);
    if (base < 0)
        return base;
    r = runtime_base_lock(base, err);
    if (r == 0)
        r = check_not_running(bases, count, uuid, info, err);
    if (r < 0)
        goto out;
    sweep(base);
    if (asprintf(&runtime.folder, "%s/%s", bases[which].path, uuid) < 0) {
        runtime.folder = NULL;
        r = err_sys(err, ERR_FAILED, ENOMEM, "cannot make the runtime folder %s", uuid);
        goto out;
    }
    r = fill_folder(base, uuid, info, &runtime.lock, err);
    if (r < 0) {
        err_prefix(err, "%s", bases[which].path);
        free(runtime.folder);
        goto out;
    }
    *ret_runtime = runtime;
out:
    close(base);
    return r;
}

void runtime_destroy(struct runtime *runtime)
{
    char *slash = runtime->folder ? strrchr(runtime->folder, '/') : NULL;

    if (slash && runtime->lock >= 0) {
        *slash = 0;
        int base = open(runtime->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        char info[64];
        snprintf(info, sizeof(info), "%.36s/" RUNTIME_INFO, slash + 1);
        /* Who has removed it by hand may have started another in its place. */
        if (base >= 0 && runtime_base_lock(base, NULL) == 0 &&
            lock_is_current(runtime->lock, base, info))
            remove_folder(base, slash + 1);
        if (base >= 0)
            close(base);
    }
    if (runtime->lock >= 0)
        close(runtime->lock);
    free(runtime->folder);
    *runtime = (struct runtime){.lock = -1};
}

char *runtime_path(const struct runtime *runtime, const char *name)
{
    char *path = NULL;

    return asprintf(&path, "%s/%s", runtime->folder, name) < 0 ? NULL : path;
}
