/* SPDX-License-Identifier: MIT */
#include "ft/arrival_folder.h"

#include "ft/arrival_base.h"
#include "ft/compare.h"
#include "ft/former.h"
#include "ft/handover.h"
#include "host/fd.h"
#include "host/lock.h"
#include "host/small_file.h"
#include "host/tree.h"
#include "vmm/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MOST_FILES = 1000, TEXT_MAX = 1 << 20 };

#define MOST_BYTES (1ull << 30)

static int open_folder(int place, const char *name)
{
    return openat(place, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

/*
 * No longer a VM's folder from one moment to the next, whatever ends us while we remove it. Twice:
 * who asks whose it is may rename a mark while we look through it.
 */
static void remove_folder(int place, const char *name)
{
    char hidden[NAME_MAX + 1];
    snprintf(hidden, sizeof(hidden), ".%.200s.gone", name);
    (void)!tree_remove(place, hidden, NULL);
    if (tree_move(place, name, place, hidden, NULL) == 0)
        name = hidden;
    if (tree_remove(place, name, NULL) < 0)
        (void)!tree_remove(place, name, NULL);
}

enum left { LEFT_NOTHING, LEFT_OVER, LEFT_HELD };

/* What one that never came whole has left: nobody holds it any more. */
static enum left look_for_left(int place, const char *name)
{
    static const char *const marks[] = {FOLDER_ARRIVING, FOLDER_UNWANTED};
    int fd = open_folder(place, name);
    bool marked = name[0] == '.'; /* it never got its name */
    if (fd < 0)
        return LEFT_NOTHING;
    bool held = flock(fd, LOCK_EX | LOCK_NB) < 0;
    for (size_t i = 0; i < array_size(marks); i++)
        marked |= faccessat(fd, marks[i], F_OK, AT_SYMLINK_NOFOLLOW) == 0;
    close(fd);
    return !marked ? LEFT_NOTHING : held ? LEFT_HELD : LEFT_OVER;
}

/* Who has been killed holds it for a moment longer, until the kernel has cleared up. */
static bool remove_left(int place, const char *name)
{
    enum { TRIES = 50 };
    const struct timespec moment = {.tv_nsec = 20000000};
    enum left left = look_for_left(place, name);
    for (unsigned i = 0; i < TRIES && left == LEFT_HELD; i++) {
        nanosleep(&moment, NULL);
        left = look_for_left(place, name);
    }
    if (left == LEFT_OVER)
        remove_folder(place, name);
    return left == LEFT_OVER;
}

/* The folder has its mark before it has its name: whatever ends us, it is known for what it is. */
static int make_marked(struct arrival_folder *folder, const struct moving_hello *hello,
                       const char *hidden, struct err *err)
{
    remove_left(folder->place, hidden);
    if (mkdirat(folder->place, hidden, 0777) < 0)
        return errno == EEXIST ? err_say(err, ERR_STATE, EEXIST,
                                         "%s is just coming, from somewhere", folder->path)
                               : err_sys(err, ERR_FAILED, errno, "cannot make %s", folder->path);
    folder->fd = open_folder(folder->place, hidden);
    if (folder->fd < 0 || flock(folder->fd, LOCK_EX | LOCK_NB) < 0)
        return err_sys(err, ERR_FAILED, errno, "cannot make %s", folder->path);
    return handover_arrive(folder->fd, hello->ticket, err);
}

static int give_name(struct arrival_folder *folder, const struct moving_hello *hello,
                     const struct following *following, const char *hidden, struct err *err)
{
    int ret = tree_move(folder->place, hidden, folder->place, folder->name, err);
    if (ret == -EEXIST && remove_left(folder->place, folder->name))
        ret = tree_move(folder->place, hidden, folder->place, folder->name, err);
    if (ret == -EEXIST) {
        int aside = former_put_aside(folder->place, folder->name, hello->uuid, following, err);
        ret = aside == 0 ? tree_move(folder->place, hidden, folder->place, folder->name, err)
                         : aside;
        folder->replaces = ret == 0;
        if (aside == 0 && ret < 0)
            former_put_back(folder->place, folder->name);
    }
    if (ret == -EEXIST) {
        ret = err_say(err, ERR_STATE, EEXIST, "%s is there already", folder->path);
        if (following->generation)
            err_hint(
                err,
                "is it what is left of a twin, by another witness? 'minivmm remove --force' it");
    }
    return ret;
}

int arrival_folder_begin(struct arrival_folder *folder, int place, const char *path,
                         const struct moving_hello *hello, const struct following *following,
                         struct err *err)
{
    char hidden[NAME_MAX + 1];
    int ret = folder_check_name(hello->name, err);
    if (ret < 0)
        return ret;
    *folder = (struct arrival_folder){.place = place,
                                      .fd = -1,
                                      .former = -1,
                                      .former_changes = -1,
                                      .base.why = "it moves",
                                      .syncing = PTHREAD_MUTEX_INITIALIZER};
    snprintf(folder->name, sizeof(folder->name), "%s", hello->name);
    if ((size_t)snprintf(folder->path, sizeof(folder->path), "%s/%s", path, hello->name) >=
        sizeof(folder->path))
        return err_sys(err, ERR_FAILED, ENAMETOOLONG, "cannot make %.200s", hello->name);
    snprintf(hidden, sizeof(hidden), ".%.200s.coming", folder->name);
    ret = make_marked(folder, hello, hidden, err);
    if (ret == 0)
        ret = give_name(folder, hello, following, hidden, err);
    if (ret == 0) /* from here on arrival_folder_finish puts back what was there */
        return following->generation ? arrival_base_find(folder, hello->uuid, following, err) : 0;
    if (folder->fd >= 0) {
        close(folder->fd);
        folder->fd = -1;
        (void)!tree_remove(place, hidden, NULL);
    }
    return ret;
}

static int open_new(struct arrival_folder *folder, const char *name, mode_t mode, struct err *err)
{
    const char *last = name;
    int parent = name[0] == '.' ? -EINVAL : tree_open_parent(folder->fd, name, true, &last);
    int fd = parent < 0 ? parent
                        : openat(parent, last, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                                 mode & 0777);
    int error = parent < 0 ? -parent : errno;
    if (parent >= 0)
        close(parent);
    return fd < 0 ? err_sys(err, ERR_FAILED, error, "cannot make %s/%s", folder->path, name) : fd;
}

int arrival_folder_add_file(struct arrival_folder *folder, const struct moving_file *file,
                            struct err *err)
{
    folder->file_bytes += file->length;
    if (++folder->file_count > MOST_FILES || folder->file_bytes > MOST_BYTES)
        return err_say(err, ERR_FAILED, EFBIG, "too much goes along with the VM");
    int fd = open_new(folder, file->name, file->mode, err);
    if (fd < 0)
        return fd;
    int ret = fd_write_at(fd, file->bytes, file->length, 0);
    if (ret == 0 && fsync(fd) < 0)
        ret = -errno;
    close(fd);
    return ret < 0 ? err_sys(err, ERR_FAILED, -ret, "cannot write %s/%s", folder->path, file->name)
                   : 0;
}

static int check_place(const struct arrival_folder *folder, uint32_t place, struct err *err)
{
    bool taken = folder->disk_count + folder->shared_count == MACHINE_MAX_DISKS;
    for (unsigned i = 0; i < folder->disk_count; i++)
        taken |= folder->disks[i].about.place == place;
    for (unsigned i = 0; i < folder->shared_count; i++)
        taken |= folder->shared[i].place == place;
    return taken ? err_say(err, ERR_FAILED, EBADMSG, "a disk comes twice") : 0;
}

int arrival_folder_add_disk(struct arrival_folder *folder, const struct moving_disk *disk,
                            struct err *err)
{
    int ret = check_place(folder, disk->place, err);
    if (ret < 0)
        return ret;
    folder->disks[folder->disk_count++] = (struct arrival_disk){.about = *disk, .fd = -1};
    return 0;
}

int arrival_folder_make_disk(struct arrival_folder *folder, struct arrival_disk *disk,
                             struct err *err)
{
    disk->fd = open_new(folder, disk->about.name, 0600, err);
    if (disk->fd < 0)
        return disk->fd;
    return ftruncate(disk->fd, (off_t)disk->about.size) < 0
               ? err_sys(err, ERR_FAILED, errno, "cannot make %s/%s", folder->path,
                         disk->about.name)
               : 0;
}

int arrival_folder_add_shared(struct arrival_folder *folder, const struct moving_shared *shared,
                              struct err *err)
{
    int ret = check_place(folder, shared->place, err);
    if (ret == 0)
        folder->shared[folder->shared_count++] = *shared;
    return ret;
}

/* Only what vm.json says leads to this disk, and nothing that is written to later. */
static bool is_way_to(const struct moving_shared *shared, const char *file)
{
    size_t length = strlen(shared->link);
    return file && length > 0 && strncmp(file, shared->link, length) == 0 &&
           (file[length] == '\0' || file[length] == '/') && shared->link[0] != '.' &&
           !folder_is_own(shared->link) && strcmp(shared->link, FOLDER_DEFINITION) != 0;
}

/* After all files, so that none of them goes by a link. Two disks may go by the same one. */
static int make_link(const struct arrival_folder *folder, const struct moving_shared *shared,
                     struct err *err)
{
    const char *last = shared->link;
    char there[MOVING_LINK_MAX + 1] = "";
    int parent = tree_open_parent(folder->fd, shared->link, true, &last), error = 0;
    if (parent < 0)
        return err_sys(err, ERR_FAILED, -parent, "cannot make %s/%s", folder->path, shared->link);
    if (symlinkat(shared->target, parent, last) < 0)
        error = errno;
    if (error == EEXIST && readlinkat(parent, last, there, sizeof(there) - 1) > 0 &&
        strcmp(there, shared->target) == 0)
        error = 0;
    close(parent);
    return error ? err_sys(err, ERR_FAILED, error, "cannot make %s/%s", folder->path, shared->link)
                 : 0;
}

static int make_links(const struct arrival_folder *folder, const json_t *root, struct err *err)
{
    const json_t *disks = json_object_get(root, "disks");
    int ret = 0;
    for (unsigned i = 0; i < folder->shared_count && ret == 0; i++) {
        const struct moving_shared *shared = &folder->shared[i];
        const json_t *disk = json_array_get(disks, shared->place);
        if (!shared->link[0])
            continue;
        ret = is_way_to(shared, json_string_value(json_object_get(disk, "file")))
                  ? make_link(folder, shared, err)
                  : err_say(err, ERR_FAILED, EBADMSG, "a link comes that leads to no disk");
    }
    return ret;
}

/* A shared disk's format is what it was found to be at the source: a guest may have written to its
 * beginning since. */
static int put_disks(const struct arrival_folder *folder, json_t *root)
{
    json_t *disks = json_object_get(root, "disks");
    for (unsigned i = 0; i < folder->shared_count; i++) {
        const struct moving_shared *about = &folder->shared[i];
        json_t *disk = json_array_get(disks, about->place);
        if (!json_is_object(disk))
            return -EBADMSG;
        json_object_set_new(disk, "format",
                            json_string(disk_format_name((enum disk_format)about->format)));
    }
    for (unsigned i = 0; i < folder->disk_count; i++) {
        const struct moving_disk *about = &folder->disks[i].about;
        json_t *disk = json_array_get(disks, about->place);
        if (!json_is_object(disk))
            return -EBADMSG;
        json_object_set_new(disk, "file", json_string(about->name));
        json_object_set_new(disk, "format", json_string("raw"));
    }
    return 0;
}

static json_t *read_definition(const struct arrival_folder *folder)
{
    char *text;
    size_t length;
    int fd = openat(folder->fd, FOLDER_DEFINITION, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    int ret = small_file_read(fd, TEXT_MAX, &text, &length);
    close(fd);
    if (ret < 0)
        return NULL;
    json_t *root = json_loadb(text, length, 0, NULL);
    free(text);
    return root;
}

int arrival_folder_end(struct arrival_folder *folder, struct err *err)
{
    int ret = arrival_base_adopt(folder, err);
    if (ret < 0)
        return ret;
    json_t *root = read_definition(folder);
    ret = root ? put_disks(folder, root) : -EBADMSG;
    char *text = ret == 0 ? json_dumps(root, JSON_INDENT(4)) : NULL;
    ret = text ? make_links(folder, root, err) : 0;
    json_decref(root);
    if (ret < 0) {
        free(text);
        return ret;
    }
    if (!text)
        return err_say(err, ERR_FAILED, EBADMSG,
                       "the VM comes without a " FOLDER_DEFINITION " that fits its disks");
    const struct small_file file = {.bytes = text, .length = strlen(text), .durable = true};
    ret = small_file_replace(folder->fd, FOLDER_DEFINITION, &file, err);
    free(text);
    return ret;
}

int arrival_folder_look(struct arrival_folder **ret_folder, int fd, const char *path,
                        struct err *err)
{
    struct arrival_folder *folder = calloc(1, sizeof(*folder));
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (!folder || own < 0) {
        int error = folder ? errno : ENOMEM;
        free(folder);
        if (own >= 0)
            close(own);
        return err_sys(err, ERR_HOST, error, "cannot look at the disks of %s", path);
    }
    folder->fd = own;
    folder->place = folder->former = folder->former_changes = -1;
    pthread_mutex_init(&folder->syncing, NULL);
    snprintf(folder->path, sizeof(folder->path), "%s", path);
    *ret_folder = folder;
    return 0;
}

void arrival_folder_leave(struct arrival_folder *folder)
{
    if (!folder)
        return;
    arrival_folder_finish(folder, true);
    free(folder);
}

static int open_there(const struct arrival_folder *folder, const char *name)
{
    if (name[0] == '.' || folder_is_own(name) || strcmp(name, FOLDER_DEFINITION) == 0)
        return -EPERM;
    return tree_open_file(folder->fd, name, O_RDWR);
}

int arrival_folder_open_disk(struct arrival_folder *folder, const struct moving_disk *disk,
                             struct err *err)
{
    struct stat stat;
    int ret = check_place(folder, disk->place, err);
    if (ret < 0)
        return ret;
    int fd = open_there(folder, disk->name);
    int error = fd < 0 ? -fd : fstat(fd, &stat) < 0 ? errno : S_ISREG(stat.st_mode) ? 0 : EINVAL;
    if (error == 0)
        error = -lock_try(fd, false);
    if (error == 0 && (uint64_t)stat.st_size >= disk->size) {
        folder->disks[folder->disk_count++] = (struct arrival_disk){.about = *disk, .fd = fd};
        return 0;
    }
    if (fd >= 0)
        close(fd);
    if (error == EAGAIN)
        return err_say(err, ERR_STATE, EBUSY, "%s/%s is in use", folder->path, disk->name);
    return error ? err_sys(err, ERR_FAILED, error, "cannot open %s/%s", folder->path, disk->name)
                 : err_say(err, ERR_DEFINITION, EBADMSG, "%s/%s is shorter than it was",
                           folder->path, disk->name);
}

static int put_zeroes(int fd, uint64_t offset, uint32_t length)
{
    static uint8_t zeroes[64 << 10]; /* const, they would be in the program's file */
    int ret = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, length);
    if (ret == 0)
        return 0;
    for (uint32_t at = 0; at < length && ret >= -1;) {
        uint32_t piece = length - at < sizeof(zeroes) ? length - at : (uint32_t)sizeof(zeroes);
        int error = fd_write_at(fd, zeroes, piece, offset + at);
        if (error < 0)
            return error;
        at += piece;
    }
    return 0;
}

static const struct arrival_disk *disk_of(const struct arrival_folder *folder, uint32_t place)
{
    for (unsigned i = 0; i < folder->disk_count; i++)
        if (folder->disks[i].about.place == place)
            return &folder->disks[i];
    return NULL;
}

static int say_no_disk(struct err *err)
{
    return err_say(err, ERR_FAILED, EBADMSG, "a block comes for a disk that is not there");
}

int arrival_folder_check_block(struct arrival_folder *folder, const struct moving_block *block,
                               struct err *err)
{
    const struct arrival_disk *disk = disk_of(folder, block->place);
    bool fits = disk && block->offset <= disk->about.size &&
                block->length <= disk->about.size - block->offset;
    return fits ? 0 : say_no_disk(err);
}

int arrival_folder_put_block(struct arrival_folder *folder, const struct moving_block *block,
                             struct err *err)
{
    int ret = arrival_folder_check_block(folder, block, err);
    if (ret == 0)
        ret = arrival_base_mix(folder, err);
    if (ret < 0)
        return ret;
    const struct arrival_disk *disk = disk_of(folder, block->place);
    ret = block->bytes ? fd_write_at(disk->fd, block->bytes, block->length, block->offset)
                       : put_zeroes(disk->fd, block->offset, block->length);
    return ret < 0 ? err_sys(err, ERR_FAILED, -ret, "cannot write %s/%s", folder->path,
                             disk->about.name)
                   : 0;
}

static int read_disk(void *ctx, uint64_t offset, uint8_t *bytes, uint32_t length)
{
    const struct arrival_disk *disk = ctx;
    return fd_read_at(disk->fd, bytes, length, offset);
}

/* The file system knows; where it does not it is read. */
static uint64_t next_data(void *ctx, uint64_t offset)
{
    const struct arrival_disk *disk = ctx;
    off_t data = lseek(disk->fd, (off_t)offset, SEEK_DATA);
    if (data < 0)
        return errno == ENXIO ? disk->about.size : offset;
    return (uint64_t)data;
}

int arrival_folder_compare(struct arrival_folder *folder, uint32_t place,
                           struct stream_buffer *payload, struct err *err)
{
    const struct arrival_disk *disk = disk_of(folder, place);
    if (!disk)
        return say_no_disk(err);
    const struct compare_what what = {.size = disk->about.size,
                                      .read = read_disk,
                                      .next_data = next_data,
                                      .ctx = (void *)(uintptr_t)disk};
    return compare_check(payload, disk->about.name, &what, err);
}

int arrival_folder_read_disk(const struct arrival_folder *folder, uint32_t place, uint64_t offset,
                             uint8_t *bytes, uint32_t length, struct err *err)
{
    const struct arrival_disk *disk = disk_of(folder, place);
    int ret = disk ? fd_read_at(disk->fd, bytes, length, offset) : -ENOENT;
    return ret < 0 ? err_sys(err, ERR_FAILED, -ret, "cannot read a disk of %s", folder->path) : 0;
}

void arrival_folder_push(struct arrival_folder *folder)
{
    for (unsigned i = 0; i < folder->disk_count; i++)
        (void)sync_file_range(folder->disks[i].fd, 0, 0, SYNC_FILE_RANGE_WRITE);
}

int arrival_folder_sync(struct arrival_folder *folder, struct err *err)
{
    pthread_mutex_lock(&folder->syncing);
    for (unsigned i = 0; i < folder->disk_count && !folder->sync_error; i++) {
        folder->sync_error = fdatasync(folder->disks[i].fd) < 0 ? errno : 0;
        folder->unsynced = i;
    }
    int error = folder->sync_error;
    pthread_mutex_unlock(&folder->syncing);
    return error ? err_sys(err, ERR_FAILED, error, "cannot write %s/%s", folder->path,
                           folder->disks[folder->unsynced].about.name)
                 : 0;
}

/* Somebody may have put another one in its place. */
static bool is_still_ours(const struct arrival_folder *folder)
{
    struct stat ours, there;
    return fstat(folder->fd, &ours) == 0 &&
           fstatat(folder->place, folder->name, &there, AT_SYMLINK_NOFOLLOW) == 0 &&
           ours.st_dev == there.st_dev && ours.st_ino == there.st_ino;
}

void arrival_folder_settle(struct arrival_folder *folder)
{
    if (folder->replaces)
        former_remove(folder->place, folder->name, folder->fd);
    folder->replaces = false;
}

void arrival_folder_finish(struct arrival_folder *folder, bool keep)
{
    for (unsigned i = 0; i < folder->disk_count; i++)
        if (folder->disks[i].fd >= 0)
            close(folder->disks[i].fd);
    folder->disk_count = 0;
    if (folder->fd < 0)
        return;
    arrival_base_finish(folder);
    if (!keep && is_still_ours(folder))
        remove_folder(folder->place, folder->name);
    if (!keep && folder->replaces)
        former_put_back(folder->place, folder->name);
    close(folder->fd);
    folder->fd = -1;
}
