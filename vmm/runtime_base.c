/* SPDX-License-Identifier: MIT */
#include "vmm/runtime_base.h"
#include "host/lock.h"
#include "host/small_file.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* Paths in it may be 4096 bytes long, and one character up to six as JSON. */
enum { INFO_MAX_BYTES = 64 << 10 };

/* False: no whole path, or too long. */
static bool add_base(struct runtime_base *base, const char *parent, const char *name,
                     bool among_strangers)
{
    if (!parent || parent[0] != '/')
        return false;
    int length = snprintf(base->path, sizeof(base->path), "%s%s", parent, name);
    base->among_strangers = among_strangers;
    return length > 0 && length < (int)sizeof(base->path);
}

int runtime_bases(struct runtime_base ret_bases[RUNTIME_BASES], size_t *ret_count, struct err *err)
{
    const char *said = secure_getenv("MINIVMM_RUNTIME_DIR");
    size_t count = 0;
    char name[32];

    if (said && *said) {
        if (!add_base(&ret_bases[0], said, "", false)) {
            err_say(err, ERR_HOST, EINVAL, "MINIVMM_RUNTIME_DIR=%s cannot be used", said);
            err_hint(err, "it has to be a whole path of at most %d characters", RUNTIME_BASE_MAX);
            return -EINVAL;
        }
        *ret_count = 1;
        return 0;
    }
    if (geteuid() == 0)
        count += add_base(&ret_bases[count], "/run", "/minivmm", false);
    else
        count += add_base(&ret_bases[count], secure_getenv("XDG_RUNTIME_DIR"), "/minivmm", false);
    snprintf(name, sizeof(name), "/minivmm-%u", (unsigned)geteuid());
    count += add_base(&ret_bases[count], "/tmp", name, true);
    *ret_count = count;
    return 0;
}

int runtime_base_open(const struct runtime_base *base, bool make, struct err *err)
{
    struct stat stat;
    int r;

    if (make && mkdir(base->path, 0700) < 0 && errno != EEXIST)
        return err_sys(err, ERR_HOST, errno, "cannot make the runtime folder %s", base->path);
    int fd = open(base->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &stat) < 0) {
        r = err_sys(err, ERR_HOST, errno, "cannot open the runtime folder %s", base->path);
        goto fail;
    }
    if (stat.st_uid != geteuid() || (stat.st_mode & (base->among_strangers ? 077 : 022))) {
        r = err_say(err, ERR_HOST, EPERM, "the runtime folder %s is not yours alone", base->path);
        err_hint(err,
                 stat.st_uid == geteuid() ? "chmod 700 %s"
                                          : "remove %s, or set XDG_RUNTIME_DIR to a folder "
                                            "that is yours",
                 base->path);
        goto fail;
    }
    return fd;
fail:
    if (fd >= 0)
        close(fd);
    return r;
}

int runtime_base_lock(int base, struct err *err)
{
    int r;

    do {
        r = flock(base, LOCK_EX);
    } while (r < 0 && errno == EINTR);
    return r < 0 ? err_sys(err, ERR_HOST, errno, "cannot lock the runtime folder") : 0;
}

int runtime_open_info(int base, const char *uuid)
{
    char path[64];

    snprintf(path, sizeof(path), "%.36s/" RUNTIME_INFO, uuid);
    int fd = openat(base, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) /* ELOOP, ENOTDIR: none of ours */
        return errno == ELOOP || errno == ENOTDIR ? -ENOENT : -errno;
    if (lock_is_held(fd))
        return fd;
    close(fd);
    return -ENOENT;
}

int runtime_read_info(int fd, const uint8_t uuid[16], struct runtime_info *ret_info)
{
    size_t length;
    char *text;

    int r = small_file_read(fd, INFO_MAX_BYTES, &text, &length);
    if (r < 0)
        return r;
    json_t *root = json_loadb(text, length, JSON_REJECT_DUPLICATES, NULL);
    free(text);
    const char *name = json_string_value(json_object_get(root, "name"));
    const json_t *folder = json_object_get(root, "folder");
    const json_t *pid = json_object_get(root, "pid");
    const json_t *started = json_object_get(root, "started");
    if (!name || !(json_is_null(folder) || json_is_string(folder)) || !json_is_integer(pid) ||
        json_integer_value(pid) <= 0 || !json_is_integer(started)) {
        json_decref(root);
        return -EINVAL;
    }
    struct runtime_info info = {.name = strdup(name),
                                .folder = json_is_null(folder) ? NULL
                                                               : strdup(json_string_value(folder)),
                                .pid = json_integer_value(pid),
                                .started = json_integer_value(started)};
    memcpy(info.uuid, uuid, sizeof(info.uuid));
    bool whole = info.name && (info.folder || json_is_null(folder));
    json_decref(root);
    if (!whole) {
        runtime_info_finish(&info);
        return -ENOMEM;
    }
    *ret_info = info;
    return 0;
}

void runtime_info_finish(struct runtime_info *info)
{
    free(info->name);
    free(info->folder);
    free(info->control);
    *info = (struct runtime_info){0};
}
