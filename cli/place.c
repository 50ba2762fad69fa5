/* SPDX-License-Identifier: MIT */
#include "cli/place.h"

#include "host/tree.h"
#include "vmm/runtime.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

/* "/vms/web1//" has the parent "/vms" and the name "web1"; "web1" the parent ".". */
static int cut(struct place *place, char parent[PATH_MAX], const char *path, struct err *err)
{
    size_t length = strlen(path);

    while (length > 1 && path[length - 1] == '/')
        length--;
    size_t begin = length;
    while (begin > 0 && path[begin - 1] != '/')
        begin--;
    if (begin >= PATH_MAX || length - begin > NAME_MAX)
        return err_sys(err, ERR_USAGE, ENAMETOOLONG, "cannot make %.200s", path);
    snprintf(place->name, sizeof(place->name), "%.*s", (int)(length - begin), path + begin);
    while (begin > 1 && path[begin - 1] == '/')
        begin--;
    snprintf(parent, PATH_MAX, "%.*s", begin ? (int)begin : 1, begin ? path : ".");
    return folder_check_name(place->name, err);
}

static int open_parent(struct place *place, const char *parent, struct err *err)
{
    int ret;

    place->parent = -1;
    if (realpath(parent, place->path))
        place->parent = open(place->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (place->parent >= 0)
        return 0;
    if (errno == ENOENT) {
        ret = err_say(err, ERR_NOT_FOUND, ENOENT, "there is no folder %s", parent);
        err_hint(err, "mkdir -p %s", parent);
        return ret;
    }
    return err_sys(err, ERR_FAILED, errno, "cannot open the folder %s", parent);
}

int place_find(struct place *ret_place, const char *path, struct err *err)
{
    struct place place = {.parent = -1};
    char parent[PATH_MAX];

    int ret = cut(&place, parent, path, err);
    if (ret == 0)
        ret = open_parent(&place, parent, err);
    if (ret < 0)
        return ret;
    if (faccessat(place.parent, place.name, F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
        close(place.parent);
        return err_say(err, ERR_STATE, EEXIST, "%s exists already", path);
    }
    *ret_place = place;
    return 0;
}

int place_of(struct place *ret_place, const struct folder *folder, struct err *err)
{
    struct place place = {.parent = -1};
    char parent[PATH_MAX];
    const char *slash = strrchr(folder->path, '/');
    size_t length = slash && slash > folder->path ? (size_t)(slash - folder->path) : 1;

    if (!slash || length >= sizeof(parent) || !slash[1] || strlen(slash + 1) > NAME_MAX)
        return err_sys(err, ERR_FAILED, EBUSY, "%s", folder->path);
    snprintf(parent, sizeof(parent), "%.*s", (int)length, folder->path);
    snprintf(place.name, sizeof(place.name), "%s", slash + 1);
    int ret = open_parent(&place, parent, err);
    if (ret < 0)
        return ret;
    if (!place_is(&place, place.name, folder->fd)) {
        close(place.parent);
        return err_say(err, ERR_NOT_FOUND, ENOENT, "%s was moved away just now", folder->name);
    }
    *ret_place = place;
    return 0;
}

int place_open_vm(struct folder *ret_folder, const char *word, struct err *err)
{
    struct runtime_info info;

    if (folder_is_vm(word) || runtime_find(word, &info, NULL) < 0)
        return folder_open(ret_folder, word, err);
    int ret = info.folder ? folder_open(ret_folder, info.folder, err)
                          : err_say(err, ERR_STATE, ENOENT, "%s runs without a folder", info.name);
    runtime_info_finish(&info);
    return ret;
}

int place_refuse_link(const char *path, struct err *err)
{
    char cut_path[PATH_MAX], real[PATH_MAX];
    size_t length = strlen(path);
    struct stat stat;

    /* "link/" is what it leads to, and "link" not. */
    while (length > 1 && path[length - 1] == '/')
        length--;
    if (length >= sizeof(cut_path))
        return 0; /* whoever opens it says so */
    snprintf(cut_path, sizeof(cut_path), "%.*s", (int)length, path);
    if (lstat(cut_path, &stat) < 0 || !S_ISLNK(stat.st_mode))
        return 0;
    int ret = err_say(err, ERR_USAGE, ELOOP, "%s is a symbolic link to a VM", path);
    if (realpath(cut_path, real))
        err_hint(err, "name the folder itself: %.200s", real);
    return ret;
}

bool place_is(const struct place *place, const char *name, int folder)
{
    struct stat named, ours;

    return fstatat(place->parent, name, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
           fstat(folder, &ours) == 0 && named.st_dev == ours.st_dev && named.st_ino == ours.st_ino;
}

/* A VM's name has at most 200 bytes, so all of these fit. */
void place_removed_name(const struct place *place, char ret_name[NAME_MAX + 1])
{
    uint32_t number = 0;

    if (getrandom(&number, sizeof(number), 0) != sizeof(number))
        number = (uint32_t)getpid();
    snprintf(ret_name, NAME_MAX + 1, ".%.220s.removed-%08x", place->name, number);
}

void place_sweep(const struct place *place)
{
    char begin[NAME_MAX + 1];
    struct dirent *entry;

    int length = snprintf(begin, sizeof(begin), ".%.220s.removed-", place->name);
    int fd = openat(place->parent, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *parent = fd >= 0 ? fdopendir(fd) : NULL;
    while (parent && (entry = readdir(parent)))
        if (strncmp(entry->d_name, begin, (size_t)length) == 0 &&
            strspn(entry->d_name + length, "0123456789abcdef") == 8 &&
            entry->d_name[length + 8] == '\0')
            (void)!tree_remove(place->parent, entry->d_name, NULL);
    if (parent)
        closedir(parent);
    else if (fd >= 0)
        close(fd);
}

void place_close(struct place *place)
{
    if (place->parent >= 0)
        close(place->parent);
    place->parent = -1;
}
