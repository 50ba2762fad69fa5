/* SPDX-License-Identifier: MIT */
#include "ft/disks.h"

#include "host/fd.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- what is there, and what comes of it ------------------------------------------------------ */

/* By what the descriptors say: the folder may have been moved since the start. */
static int find_name(struct disks_copy *copy, struct err *err)
{
    const struct disks *disks = copy->disks;
    char folder[PATH_MAX], image[PATH_MAX];
    int ret = fd_path(disks->vm_folder, folder);
    if (ret == 0)
        ret = fd_path(copy->image, image);
    if (ret < 0)
        return err_sys(err, ERR_HOST, -ret, "cannot find the disks of %s", disks->vm);
    size_t length = strlen(folder);
    if (strncmp(image, folder, length) == 0 && image[length] == '/') {
        snprintf(copy->from, sizeof(copy->from), "%s", image + length + 1);
        return 0;
    }
    ret = err_say(err, ERR_STATE, ENOTSUP,
                  "%.200s lies outside of the folder of %s: a copy would write to it too", image,
                  disks->vm);
    err_hint(err, "move it into the folder, or make it readonly");
    return ret;
}

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), end_length = strlen(end);
    return length > end_length && strcmp(text + length - end_length, end) == 0;
}

static int make_file(struct disks_copy *copy, struct err *err)
{
    const char *name = copy->from;
    struct stat stat;
    copy->fd = openat(copy->disks->folder, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                      0600);
    if (copy->fd < 0)
        return err_sys(err, errno == EEXIST ? ERR_STATE : ERR_FAILED, errno,
                       "cannot make %.100s/%.200s", copy->disks->path, name);
    memcpy(copy->to, copy->from, sizeof(copy->to));
    if (fstat(copy->image, &stat) < 0 || fchmod(copy->fd, stat.st_mode & 0777) < 0)
        return err_sys(err, ERR_FAILED, errno, "cannot make %.200s", name);
    return 0;
}

static void unmake_file(struct disks_copy *copy)
{
    struct stat ours, named;
    /* Somebody may have made another one in its place. */
    if (fstat(copy->fd, &ours) == 0 &&
        fstatat(copy->disks->folder, copy->to, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
        ours.st_dev == named.st_dev && ours.st_ino == named.st_ino)
        unlinkat(copy->disks->folder, copy->to, 0);
}

/* Each disk that the guest can change has a point in its row. */
int disks_plan(struct disks *disks, struct err *err)
{
    for (unsigned i = 0; i < disks->machine_disks; i++) {
        struct disks_copy *copy = &disks->copies[disks->count];
        struct disk *row = machine_disk(disks->machine, i);
        if (disk_point_image(row) < 0)
            continue;
        *copy = (struct disks_copy){.disks = disks,
                                    .disk = row,
                                    .image = disk_point_image(row),
                                    .format = row->info.format,
                                    .fd = -1};
        disks->count++;
        int ret = find_name(copy, err);
        if (ret == 0)
            ret = make_file(copy, err);
        if (ret < 0)
            return ret;
    }
    return 0;
}

/* --- what is slow ----------------------------------------------------------------------------- */

/* A bit of it, to see whether it can be done. */
static bool can_share(const struct disks_copy *copy)
{
    struct stat stat;
    if (fstat(copy->image, &stat) < 0)
        return false;
    struct file_clone_range range = {.src_fd = copy->image};
    if (stat.st_size > stat.st_blksize)
        range.src_length = (uint64_t)stat.st_blksize;
    return ioctl(copy->fd, FICLONERANGE, &range) == 0 && ftruncate(copy->fd, 0) == 0;
}

/* Sharing writes back what is dirty, while the guest would stand still: so it is done before.
 * Twice, because much can become dirty during the first. */
void disks_prepare(struct disks *disks)
{
    for (unsigned i = 0; i < 2 * disks->count && !disks->given_up; i++) {
        struct disks_copy *copy = &disks->copies[i % disks->count];
        if (i < disks->count)
            copy->shares = can_share(copy);
        if (copy->shares)
            (void)!fdatasync(copy->image);
    }
}

bool disks_all_share(const struct disks *disks)
{
    for (unsigned i = 0; i < disks->count; i++)
        if (!disks->copies[i].shares)
            return false;
    return true;
}

int disks_sync(struct disks *disks)
{
    int ret = 0;
    for (unsigned i = 0; i < disks->count && !disks->given_up; i++)
        if (fsync(disks->copies[i].fd) < 0)
            ret = -errno;
    return ret;
}

/* --- the copies ------------------------------------------------------------------------------- */

/* On the disk's thread, or ours. */
static void handle_ended(void *ctx, int result)
{
    struct disks_copy *copy = ctx;
    struct disks *disks = copy->disks;
    pthread_mutex_lock(&disks->lock);
    copy->copying = false;
    copy->result = result;
    pthread_mutex_unlock(&disks->lock);
    disks->handle_ended(disks->ctx);
}

/* A copy of a qcow2 disk is a raw one, and is called so. */
static int rename_raw(struct disks_copy *copy, struct err *err)
{
    char name[PATH_MAX];
    if (copy->format != DISK_FORMAT_QCOW2)
        return 0;
    copy->format = DISK_FORMAT_RAW;
    if (!ends_with(copy->to, ".qcow2"))
        return 0;
    snprintf(name, sizeof(name), "%.*s.img", (int)(strlen(copy->to) - strlen(".qcow2")), copy->to);
    int folder = copy->disks->folder;
    if (renameat2(folder, copy->to, folder, name, RENAME_NOREPLACE) == 0)
        snprintf(copy->to, sizeof(copy->to), "%s", name);
    else if (errno != EEXIST && errno != EINVAL) /* then it keeps its name */
        return err_sys(err, ERR_FAILED, errno, "cannot make %.200s", name);
    return 0;
}

static int set_up_copy(struct disks_copy *copy, struct err *err)
{
    const struct disk_copy_handlers handlers = {.ended = handle_ended, .ctx = copy};
    char path[2 * PATH_MAX];
    struct disk *target;
    int ret = rename_raw(copy, err);
    if (ret < 0)
        return ret;
    if (ftruncate(copy->fd, 0) < 0 || ftruncate(copy->fd, (off_t)copy->disk->info.size) < 0)
        return err_sys(err, ERR_FAILED, errno, "cannot make %.200s", copy->to);
    snprintf(path, sizeof(path), "%s/%s", copy->disks->path, copy->to);
    struct disk_config config = {.path = path, .format = DISK_FORMAT_RAW};
    ret = disk_raw_open(&target, &config, err);
    if (ret == 0)
        ret = disk_copy_create(&copy->copy, copy->disk, target, &handlers, err);
    copy->shares = false;
    return ret;
}

int disks_set_up(struct disks *disks, struct err *err)
{
    int ret = 0;
    for (unsigned i = 0; i < disks->count && ret == 0; i++)
        if (!disks->copies[i].shares && !disks->copies[i].copy)
            ret = set_up_copy(&disks->copies[i], err);
    return ret;
}

static int capture(struct disks_copy *copy, struct err *err)
{
    /* Not all that a qcow2 disk knows is in its file: mappings are written later, many at once. */
    if (copy->shares && copy->format == DISK_FORMAT_QCOW2)
        disk_drain(copy->disk);
    if (copy->shares && ioctl(copy->fd, FICLONE, copy->image) == 0)
        return 0;
    int ret = copy->copy ? 0 : set_up_copy(copy, err);
    if (ret < 0)
        return ret;
    copy->copying = true;
    ret = disk_copy_start(copy->copy, err);
    if (ret < 0)
        copy->copying = false;
    return ret;
}

int disks_capture(struct disks *disks, struct err *err)
{
    int ret = 0;
    for (unsigned i = 0; i < disks->count && ret == 0; i++)
        ret = capture(&disks->copies[i], err);
    return ret;
}

unsigned disks_copying(struct disks *disks)
{
    unsigned count = 0;
    pthread_mutex_lock(&disks->lock);
    for (unsigned i = 0; i < disks->count; i++)
        count += disks->copies[i].copying;
    pthread_mutex_unlock(&disks->lock);
    return count;
}

int disks_check(struct disks *disks, struct err *err)
{
    for (unsigned i = 0; i < disks->count; i++) {
        pthread_mutex_lock(&disks->lock);
        int result = disks->copies[i].result;
        pthread_mutex_unlock(&disks->lock);
        if (result < 0)
            return err_sys(err, ERR_FAILED, -result, "cannot copy %.200s", disks->copies[i].from);
    }
    return 0;
}

void disks_stop(struct disks *disks)
{
    for (unsigned i = 0; i < disks->count; i++)
        if (disks->copies[i].copy)
            disk_copy_stop(disks->copies[i].copy);
}

void disks_progress(struct disks *disks, uint64_t *ret_done, uint64_t *ret_total)
{
    *ret_done = *ret_total = 0;
    for (unsigned i = 0; i < disks->count; i++) {
        const struct disks_copy *copy = &disks->copies[i];
        if (!copy->copy)
            continue;
        *ret_done += disk_copy_bytes(copy->copy);
        *ret_total += copy->disk->info.size;
    }
}

json_t *disks_describe(const struct disks *disks)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < disks->count; i++) {
        const struct disks_copy *copy = &disks->copies[i];
        json_array_append_new(list, json_pack("{ss, ss, ss, sb, sb}", "from", copy->from, "file",
                                              copy->to, "format", disk_format_name(copy->format),
                                              "same_format",
                                              (int)(copy->format == copy->disk->info.format),
                                              "shared", (int)copy->shares));
    }
    return list;
}

/* --- life ------------------------------------------------------------------------------------- */

void disks_init(struct disks *disks)
{
    pthread_mutex_init(&disks->lock, NULL);
    disks->count = 0;
    disks->given_up = false;
}

void disks_finish(struct disks *disks, bool keep)
{
    for (unsigned i = 0; i < disks->count; i++) {
        struct disks_copy *copy = &disks->copies[i];
        disk_copy_destroy(copy->copy);
        copy->copy = NULL;
        if (copy->fd < 0)
            continue;
        if (!keep)
            unmake_file(copy);
        close(copy->fd);
        copy->fd = -1;
    }
    disks->count = 0;
    pthread_mutex_destroy(&disks->lock);
}
