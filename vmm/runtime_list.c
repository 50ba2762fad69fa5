/* SPDX-License-Identifier: MIT */
#include "core/words.h"
#include "vmm/folder.h"
#include "vmm/identity.h"
#include "vmm/runtime.h"
#include "vmm/runtime_base.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { UUID_PREFIX_MIN = 4 };

struct running {
    struct runtime_info *infos;
    size_t count, capacity;
};

/* Takes what info has over. */
static int add_running(struct running *running, struct runtime_info *info)
{
    if (running->count == running->capacity) {
        size_t capacity = running->capacity ? 2 * running->capacity : 16;
        struct runtime_info *infos = reallocarray(running->infos, capacity, sizeof(*infos));
        if (!infos) {
            runtime_info_finish(info);
            return -ENOMEM;
        }
        running->infos = infos;
        running->capacity = capacity;
    }
    running->infos[running->count++] = *info;
    return 0;
}

/* -ENOMEM, or 0: what does not run, or is not whole as yet, is passed over. */
static int add_entry(struct running *running, int base, const char *path, const char *name)
{
    struct runtime_info info = {0};
    uint8_t uuid[16];

    if (parse_uuid(name, "", uuid, NULL) < 0)
        return 0;
    int fd = runtime_open_info(base, name);
    if (fd < 0)
        return 0;
    int r = runtime_read_info(fd, uuid, &info);
    close(fd);
    if (r < 0)
        return r == -ENOMEM ? r : 0;
    if (asprintf(&info.control, "%s/%s/control.sock", path, name) < 0) {
        info.control = NULL;
        runtime_info_finish(&info);
        return -ENOMEM;
    }
    return add_running(running, &info);
}

/* A base that is not there, or not ours, has nothing to tell. */
static int add_base(struct running *running, const struct runtime_base *base)
{
    struct dirent *entry;
    int r = 0;

    int fd = runtime_base_open(base, false, NULL);
    if (fd < 0)
        return 0;
    DIR *entries = fdopendir(fd);
    if (!entries) {
        close(fd);
        return -ENOMEM;
    }
    while (r == 0 && (entry = readdir(entries)))
        r = add_entry(running, fd, base->path, entry->d_name);
    closedir(entries);
    return r;
}

static int compare_names(const void *a, const void *b)
{
    const struct runtime_info *left = a, *right = b;
    int order = strcmp(left->name, right->name);

    return order ? order : memcmp(left->uuid, right->uuid, sizeof(left->uuid));
}

int runtime_list(struct runtime_info **ret_infos, size_t *ret_count, struct err *err)
{
    struct runtime_base bases[RUNTIME_BASES];
    struct running running = {0};
    size_t count;

    int r = runtime_bases(bases, &count, err);
    if (r < 0)
        return r;
    for (size_t i = 0; r == 0 && i < count; i++)
        r = add_base(&running, &bases[i]);
    if (r < 0) {
        runtime_free_list(running.infos, running.count);
        return err_sys(err, ERR_FAILED, -r, "cannot list what runs");
    }
    if (running.count > 1)
        qsort(running.infos, running.count, sizeof(*running.infos), compare_names);
    *ret_infos = running.infos;
    *ret_count = running.count;
    return 0;
}

void runtime_free_list(struct runtime_info *infos, size_t count)
{
    while (count > 0)
        runtime_info_finish(&infos[--count]);
    free(infos);
}

/* Finding: each way gives a place in the list, NONE, or (said already) an error. */

enum { NONE = -1 };

static const char *next_name(const void *ctx, size_t i)
{
    const struct running *running = ctx;

    return i < running->count ? running->infos[i].name : NULL;
}

/*
 * A folder that was renamed since the start has another path than info.json says, and where it was
 * there may be another VM by now: the path is believed where it is the only one, and its folder
 * locked. Else the lock's holder tells.
 */
static int find_by_folder(const struct running *running, const char *path)
{
    int at = NONE;
    size_t count = 0;

    if (!folder_is_locked(path))
        return NONE;
    for (size_t i = 0; i < running->count; i++)
        if (running->infos[i].folder && strcmp(running->infos[i].folder, path) == 0) {
            at = (int)i;
            count++;
        }
    if (count == 1)
        return at;
    int64_t pid = folder_holder(path);
    for (size_t i = 0; pid > 0 && i < running->count; i++)
        if (running->infos[i].folder && running->infos[i].pid == pid)
            return (int)i;
    return NONE;
}

static bool has_name(const struct runtime_info *info, const char *word)
{
    return strcmp(info->name, word) == 0;
}

static bool has_uuid(const struct runtime_info *info, const char *word)
{
    size_t length = strlen(word);
    char uuid[37];

    identity_format_uuid(info->uuid, uuid);
    return length >= UUID_PREFIX_MIN && strncasecmp(uuid, word, length) == 0;
}

static int find_by(const struct running *running, const char *word,
                   bool (*fits)(const struct runtime_info *info, const char *word), int *ret_at,
                   struct err *err)
{
    char uuid[37], uuids[120] = "";
    size_t count = 0, used = 0;
    int at = NONE;

    for (size_t i = 0; i < running->count; i++) {
        if (!fits(&running->infos[i], word))
            continue;
        at = (int)i;
        identity_format_uuid(running->infos[i].uuid, uuid);
        if (count++ < 3)
            used += (size_t)snprintf(uuids + used, sizeof(uuids) - used, "%s%s", used ? " " : "",
                                     uuid);
    }
    *ret_at = at;
    if (count <= 1)
        return 0;
    int r = err_say(err, ERR_USAGE, EINVAL, "%zu running VMs could be meant by %s", count, word);
    err_hint(err, "name the folder, or the UUID: %s%s", uuids, count > 3 ? " ..." : "");
    return r;
}

static int say_not_found(const struct running *running, const char *word, struct err *err)
{
    const char *nearest = nearest_word(word, next_name, running);
    int r = err_say(err, ERR_NOT_FOUND, ENOENT, "no running VM is called %s", word);

    if (nearest)
        err_hint(err, "did you mean %s?", nearest);
    else if (running->count == 0)
        err_hint(err, "nothing runs at the moment");
    else
        err_hint(err, "'minivmm list' shows what runs");
    return r;
}

static int say_not_running(const char *word, struct err *err)
{
    int r = err_say(err, ERR_STATE, ESRCH, "%s is not running", word);

    err_hint(err, "minivmm run %s", word);
    return r;
}

int runtime_find(const char *word, struct runtime_info *ret_info, struct err *err)
{
    struct running running = {0};
    char path[PATH_MAX];
    int at = NONE;

    int r = runtime_list(&running.infos, &running.count, err);
    if (r < 0)
        return r;
    if (realpath(word, path) && folder_is_vm(path)) {
        at = find_by_folder(&running, path);
        r = at == NONE ? say_not_running(word, err) : 0;
    } else {
        r = find_by(&running, word, has_name, &at, err);
        if (r == 0 && at == NONE)
            r = find_by(&running, word, has_uuid, &at, err);
        if (r == 0 && at == NONE)
            r = say_not_found(&running, word, err);
    }
    if (r == 0) {
        *ret_info = running.infos[at];
        running.infos[at] = (struct runtime_info){0};
    }
    runtime_free_list(running.infos, running.count);
    return r;
}
