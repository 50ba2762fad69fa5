/* SPDX-License-Identifier: MIT */
/* What goes over to the other host: the VM's files, its disks, its memory. */
#include "core/clock.h"
#include "core/zero.h"
#include "ft/compare.h"
#include "ft/migration_parts.h"
#include "host/disk_point.h"
#include "host/fd.h"
#include "host/small_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DEEPEST = 4, CLUSTERS = FRAME_MAX_BLOCK / DISK_WATCH_CLUSTER, WORD = 64 };

static const struct instance_config *vm_of(const struct migration *migration)
{
    return instance_config(migration->instance);
}

static int stream_says(struct stream *stream, struct err *err)
{
    int error = stream_error(stream);
    return error < 0 ? err_sys(err, ERR_FAILED, -error, "the connection is lost") : 0;
}

/* --- what there is ---------------------------------------------------------------------------- */

static int name_disk(const struct migration *migration, struct migration_disk *disk,
                     struct err *err)
{
    char folder[PATH_MAX], image[PATH_MAX];
    if (fd_path(vm_of(migration)->folder->fd, folder) < 0 ||
        fd_path(disk_point_image(disk->disk), image) < 0)
        return err_sys(err, ERR_HOST, ENOENT, "cannot find the disks");
    size_t length = strlen(folder);
    if (strncmp(image, folder, length) != 0 || image[length] != '/') {
        int ret = err_say(err, ERR_STATE, ENOTSUP,
                          "%.200s lies outside of the VM's folder, and does not go along", image);
        err_hint(err, "where both hosts see the same file: --shared-disk");
        return ret;
    }
    const char *name = image + length + 1;
    size_t end = strlen(name);
    bool renamed = disk->disk->info.format == DISK_FORMAT_QCOW2 && end > 6 &&
                   strcmp(name + end - 6, ".qcow2") == 0;
    snprintf(disk->about.name, sizeof(disk->about.name), "%.*s%s", (int)(renamed ? end - 6 : end),
             name, renamed ? ".img" : "");
    return 0;
}

static int plan_disks(struct migration *migration, struct err *err)
{
    for (unsigned i = 0; i < instance_disks(migration->instance); i++) {
        struct disk *row = machine_disk(migration->machine, i);
        struct migration_disk *disk = &migration->disks[migration->disk_count];
        if (disk_point_image(row) < 0)
            continue;
        *disk = (struct migration_disk){.disk = row, .about = {.place = i, .size = row->info.size}};
        int ret = name_disk(migration, disk, err);
        if (ret < 0)
            return ret;
        migration->disk_count++;
        migration->total += row->info.size;
    }
    return 0;
}

int migration_plan(struct migration *migration, struct err *err)
{
    const struct instance_config *vm = vm_of(migration);
    struct moving_hello *hello = &migration->hello;
    *hello = (struct moving_hello){.wall_ns = clock_wall_ns(), .protocol = MOVING_PROTOCOL};
    memcpy(hello->uuid, vm->identity->uuid, sizeof(hello->uuid));
    memcpy(hello->generation, vm->identity->generation, sizeof(hello->generation));
    memcpy(hello->macs, vm->identity->macs, sizeof(hello->macs));
    snprintf(hello->name, sizeof(hello->name), "%s", vm->name);
    if (getrandom(hello->ticket, sizeof(hello->ticket), 0) != sizeof(hello->ticket))
        return err_sys(err, ERR_HOST, errno, "cannot draw a random number");
    migration->block = malloc(FRAME_MAX_BLOCK);
    if (!migration->block)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot move a VM");
    return migration->shared_disk ? migration_plan_shared(migration, err)
                                  : plan_disks(migration, err);
}

/* --- files ------------------------------------------------------------------------------------ */

static bool is_disk(const struct migration *migration, const struct stat *stat)
{
    for (unsigned i = 0; i < migration->disk_count; i++) {
        struct stat image;
        if (fstat(disk_point_image(migration->disks[i].disk), &image) == 0 &&
            image.st_dev == stat->st_dev && image.st_ino == stat->st_ino)
            return true;
    }
    return false;
}

static int send_file(struct migration *migration, int fd, const char *path, const struct stat *stat,
                     struct err *err)
{
    struct moving_file file = {.mode = stat->st_mode & 0777};
    char *bytes;
    snprintf(file.name, sizeof(file.name), "%s", path);
    int ret = small_file_read(fd, FRAME_MAX_FILE, &bytes, &file.length);
    if (ret == -EFBIG)
        return err_say(err, ERR_STATE, EFBIG,
                       "%s is too large to go along: only disks of the VM may be so large", path);
    if (ret < 0)
        return err_sys(err, ERR_FAILED, -ret, "cannot read %s", path);
    file.bytes = (uint8_t *)bytes;
    moving_put_file(link_writer(migration->link), &file);
    free(bytes);
    return stream_says(link_writer(migration->link), err);
}

static int send_folder(struct migration *migration, int folder, const char *path, unsigned depth,
                       struct err *err);

static int send_entry(struct migration *migration, int folder, const char *name, const char *path,
                      unsigned depth, struct err *err)
{
    struct stat stat;
    int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) /* a symbolic link, a socket: nobody's to move */
        return errno == ELOOP || errno == ENXIO || errno == ENOENT
                   ? 0
                   : err_sys(err, ERR_FAILED, errno, "cannot read %s", path);
    int ret = fstat(fd, &stat) < 0 ? err_sys(err, ERR_FAILED, errno, "cannot read %s", path) : 0;
    if (ret == 0 && S_ISDIR(stat.st_mode) && depth < DEEPEST)
        ret = send_folder(migration, fd, path, depth + 1, err);
    else if (ret == 0 && S_ISREG(stat.st_mode) && !is_disk(migration, &stat))
        ret = send_file(migration, fd, path, &stat, err);
    close(fd);
    return ret;
}

static int send_folder(struct migration *migration, int folder, const char *path, unsigned depth,
                       struct err *err)
{
    struct dirent *entry;
    int ret = 0, fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *list = fd >= 0 ? fdopendir(fd) : NULL;
    if (!list) {
        ret = err_sys(err, ERR_FAILED, errno, "cannot read the VM's folder");
        if (fd >= 0)
            close(fd);
        return ret;
    }
    while (ret == 0 && (entry = readdir(list))) {
        char deeper[PATH_MAX];
        if (entry->d_name[0] == '.' || (depth == 0 && folder_is_own(entry->d_name)))
            continue;
        if ((size_t)snprintf(deeper, sizeof(deeper), "%s%s%s", path, *path ? "/" : "",
                             entry->d_name) < sizeof(deeper))
            ret = send_entry(migration, folder, entry->d_name, deeper, depth, err);
    }
    closedir(list);
    return ret;
}

int migration_introduce(struct migration *migration, struct err *err)
{
    struct stream *stream = link_writer(migration->link);
    struct machine_model *model;
    int ret = machine_model_of(&model, migration->machine, err);
    if (ret < 0)
        return ret;
    moving_put_hello(stream, &migration->hello, model);
    machine_model_destroy(model);
    ret = send_folder(migration, vm_of(migration)->folder->fd, "", 0, err);
    for (unsigned i = 0; i < migration->disk_count && ret == 0; i++)
        moving_put_disk(stream, &migration->disks[i].about);
    migration_send_shared(migration);
    moving_put(stream, FRAME_OPEN, NULL, 0);
    if (stream_flush(stream) < 0 && ret == 0)
        ret = stream_says(stream, err);
    return ret;
}

/* --- disks ------------------------------------------------------------------------------------ */

static int give_up(const struct migration *migration, struct err *err)
{
    return migration->given_up ? err_say(err, ERR_FAILED, ECANCELED, "the migration was cancelled")
                               : 0;
}

/* In the first round zeroes need not be said. */
static int send_block(struct migration *migration, struct migration_disk *disk, uint64_t offset,
                      uint32_t length, bool first, bool still, struct err *err)
{
    struct stream *stream = link_writer(migration->link);
    int ret = disk_watch_read(disk->watch, offset, migration->block, length, still);
    if (ret < 0)
        return err_sys(err, ERR_FAILED, -ret, "cannot read %s", disk->about.name);
    bool zeroes = is_zero(migration->block, length);
    /* Now and then they are, or the other side would think that nobody is here any more. */
    bool said = !first || offset % (64ull * FRAME_MAX_BLOCK) == 0;
    if (!zeroes || said)
        moving_put_block(stream, disk->about.place, offset, zeroes ? NULL : migration->block,
                         length, &migration->tally);
    ret = stream_says(stream, err);
    return ret < 0 || still ? ret : give_up(migration, err);
}

static int send_disk(struct migration *migration, struct migration_disk *disk, struct err *err)
{
    uint64_t size = disk->about.size;
    int ret = 0;
    for (uint64_t at = 0; at < size && ret == 0;) {
        uint64_t data = disk_watch_next_data(disk->watch, at);
        data -= data % DISK_WATCH_CLUSTER;
        if (data > at) {
            migration->sent += data - at;
            at = data;
            continue;
        }
        uint32_t length = size - at < FRAME_MAX_BLOCK ? (uint32_t)(size - at) : FRAME_MAX_BLOCK;
        ret = send_block(migration, disk, at, length, true, false, err);
        migration->sent += length;
        at += length;
    }
    return ret;
}

static bool is_written(const struct migration_disk *disk, uint64_t cluster)
{
    return disk->written[cluster / WORD] >> cluster % WORD & 1;
}

static int send_written_of(struct migration *migration, struct migration_disk *disk, bool still,
                           uint64_t *ret_bytes, struct err *err)
{
    uint64_t clusters = disk_watch_clusters(disk->watch), found;
    int ret = disk_watch_harvest(disk->watch, disk->written, &found);
    if (ret < 0)
        return err_sys(err, ERR_HOST, -ret, "cannot follow %s", disk->about.name);
    *ret_bytes += found * DISK_WATCH_CLUSTER;
    for (uint64_t at = 0; at < clusters && ret == 0;) {
        uint64_t run = 0, offset = at * DISK_WATCH_CLUSTER;
        if (at % WORD == 0 && !disk->written[at / WORD]) {
            at += WORD;
            continue;
        }
        while (run < CLUSTERS && at + run < clusters && is_written(disk, at + run)) {
            disk->written[(at + run) / WORD] &= ~(1ull << (at + run) % WORD);
            run++;
        }
        uint64_t length = run * DISK_WATCH_CLUSTER, left = disk->about.size - offset;
        if (run > 0)
            ret = send_block(migration, disk, offset, (uint32_t)(length < left ? length : left),
                             false, still, err);
        at += run > 0 ? run : 1;
    }
    return ret;
}

/* --- all of it -------------------------------------------------------------------------------- */

int migration_send_all(struct migration *migration, struct err *err)
{
    int ret = pages_all(&migration->pages, err);
    for (unsigned i = 0; i < migration->disk_count && ret == 0; i++)
        ret = send_disk(migration, &migration->disks[i], err);
    return ret;
}

int migration_send_written(struct migration *migration, bool still, uint64_t *ret_bytes,
                           struct err *err)
{
    uint64_t bytes = 0, pages = 0;
    int ret = 0;
    for (unsigned i = 0; i < migration->disk_count && ret == 0; i++)
        ret = send_written_of(migration, &migration->disks[i], still, &bytes, err);
    if (ret == 0) /* last: reading disks writes to no page, but what stopped them may have */
        ret = pages_round(&migration->pages, &pages, err);
    *ret_bytes = bytes + pages * PAGE_SIZE;
    return ret;
}

static int read_memory(void *ctx, uint64_t offset, uint8_t *bytes, uint32_t length)
{
    const struct migration *migration = ctx;
    memcpy(bytes, migration->pages.host + offset, length);
    return 0;
}

static int read_disk(void *ctx, uint64_t offset, uint8_t *bytes, uint32_t length)
{
    const struct migration_disk *disk = ctx;
    return disk_watch_read(disk->watch, offset, bytes, length, true);
}

int migration_send_sums(struct migration *migration, struct err *err)
{
    const struct frame frame = {.epoch = MOVING_EPOCH};
    const struct compare_what memory = {.size = memory_size(machine_memory(migration->machine)),
                                        .read = read_memory,
                                        .ctx = migration};
    struct stream *stream = link_writer(migration->link);
    int ret = compare_put(stream, &frame, COMPARE_MEMORY, &memory, &migration->tally, err);
    for (unsigned i = 0; i < migration->disk_count && ret == 0; i++) {
        struct migration_disk *disk = &migration->disks[i];
        const struct compare_what what = {.size = disk->about.size, .read = read_disk, .ctx = disk};
        ret = compare_put(stream, &frame, disk->about.place, &what, &migration->tally, err);
    }
    return ret < 0 ? ret : stream_says(stream, err);
}

int migration_send_end(struct migration *migration, struct err *err)
{
    struct stream *stream = link_writer(migration->link);
    const struct frame frame = {
        .kind = FRAME_STATE, .length = (uint32_t)migration->state.length, .epoch = MOVING_EPOCH};
    frame_write(stream, &frame, migration->state.bytes, &migration->tally);
    frame_write_commit(stream, 0, MOVING_EPOCH, &migration->tally);
    return stream_flush(stream) < 0 ? stream_says(stream, err) : 0;
}
