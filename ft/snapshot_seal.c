/* SPDX-License-Identifier: MIT */
/* The end of making a snapshot: its manifest. */
#include "ft/file_sum.h"
#include "ft/snapshot_parts.h"
#include "host/small_file.h"
#include "vmm/folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DEEPEST = 16 };

struct seal {
    json_t *files, *stamps;
    const struct copy_progress *progress;
    struct err *err;
};

/* By its first blocks. */
static bool shares_blocks(int fd)
{
    union {
        struct fiemap map;
        uint8_t room[sizeof(struct fiemap) + sizeof(struct fiemap_extent)];
    } query = {.map = {.fm_length = FIEMAP_MAX_OFFSET, .fm_extent_count = 1}};
    return ioctl(fd, FS_IOC_FIEMAP, &query.map) == 0 && query.map.fm_mapped_extents == 1 &&
           (query.map.fm_extents[0].fe_flags & FIEMAP_EXTENT_SHARED);
}

static int describe(struct seal *seal, int fd, const char *path)
{
    struct stat stat;
    uint32_t sum;
    char text[9];
    if (fstat(fd, &stat) < 0)
        return err_sys(seal->err, ERR_FAILED, errno, "cannot read %s", path);
    json_t *about = json_pack("{sI}", "size", (json_int_t)stat.st_size);
    /* The memory has its own sums; whoever compares them needs the state, which is summed. */
    if (strcmp(path, SNAPSHOT_MEMORY) != 0 && !shares_blocks(fd)) {
        int ret = file_sum(fd, seal->progress, &sum);
        if (ret < 0) {
            json_decref(about);
            return err_sys(seal->err, ERR_FAILED, -ret, "cannot read %s", path);
        }
        snprintf(text, sizeof(text), "%08x", sum);
        json_object_set_new(about, "crc32c", json_string(text));
    }
    json_object_set_new(seal->files, path, about);
    json_object_set_new(seal->stamps, path, snapshot_stamp(fd));
    return 0;
}

static int walk(struct seal *seal, int folder, const char *path, unsigned depth);

/* The folder's lock, for as long as it is made, and what a seal writes. */
static bool is_passing(const char *path)
{
    return strcmp(path, FOLDER_IDENTITY) == 0 || strcmp(path, SNAPSHOT_MANIFEST) == 0 ||
           strcmp(path, SNAPSHOT_VERIFIED) == 0;
}

static int visit(struct seal *seal, int folder, const char *name, const char *path, unsigned depth)
{
    struct stat stat;
    /* Links are copied as they are, and lead where they led. */
    if (is_passing(path) || fstatat(folder, name, &stat, AT_SYMLINK_NOFOLLOW) < 0 ||
        (!S_ISREG(stat.st_mode) && !S_ISDIR(stat.st_mode)))
        return 0;
    bool is_folder = S_ISDIR(stat.st_mode);
    int fd = openat(folder, name,
                    O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | (is_folder ? O_DIRECTORY : 0));
    if (fd < 0)
        return err_sys(seal->err, ERR_FAILED, errno, "cannot read %s", path);
    int ret = is_folder ? walk(seal, fd, path, depth + 1) : describe(seal, fd, path);
    close(fd);
    return ret;
}

static int walk(struct seal *seal, int folder, const char *path, unsigned depth)
{
    struct dirent *entry;
    int ret = 0, fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *list = fd >= 0 && depth <= DEEPEST ? fdopendir(fd) : NULL;
    if (!list) {
        ret = err_sys(seal->err, ERR_FAILED, depth > DEEPEST ? ELOOP : errno, "cannot read %s",
                      path);
        if (fd >= 0)
            close(fd);
        return ret;
    }
    while (ret == 0 && (entry = readdir(list))) {
        char deeper[PATH_MAX];
        const char *name = entry->d_name;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
            continue;
        if ((size_t)snprintf(deeper, sizeof(deeper), "%s%s%s", path, *path ? "/" : "", name) >=
            sizeof(deeper))
            ret = err_sys(seal->err, ERR_FAILED, ENAMETOOLONG, "cannot read %s", path);
        else
            ret = visit(seal, folder, name, deeper, depth);
    }
    closedir(list);
    return ret;
}

static int write_manifest(int folder, const json_t *facts, struct err *err)
{
    char sum[9];
    int ret = snapshot_sum_of(facts, sum);
    json_t *root = ret == 0 ? json_pack("{ss, sO}", "crc32c", sum, "snapshot", facts) : NULL;
    char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    json_decref(root);
    if (!text)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot write " SNAPSHOT_MANIFEST);
    const struct small_file file = {.bytes = text, .length = strlen(text), .durable = true};
    ret = small_file_replace(folder, SNAPSHOT_MANIFEST, &file, err);
    free(text);
    return ret;
}

int snapshot_sum_definition(int folder, char ret_sum[9])
{
    uint32_t sum;
    int fd = openat(folder, FOLDER_DEFINITION, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    int ret = fd < 0 ? -errno : file_sum(fd, NULL, &sum);
    if (fd >= 0)
        close(fd);
    if (ret == 0)
        snprintf(ret_sum, 9, "%08x", sum);
    return ret;
}

int snapshot_seal(int folder, json_t *facts, const struct copy_progress *progress, struct err *err)
{
    struct seal seal = {
        .files = json_object(), .stamps = json_object(), .progress = progress, .err = err};
    int ret = walk(&seal, folder, "", 0);
    json_object_set_new(facts, "format", json_integer(SNAPSHOT_FORMAT));
    json_object_set_new(facts, "files", seal.files);
    if (ret == 0)
        ret = write_manifest(folder, facts, err);
    if (ret == 0)
        ret = snapshot_write_stamps(folder, facts, json_incref(seal.stamps), err);
    json_decref(seal.stamps);
    json_decref(facts);
    return ret;
}
