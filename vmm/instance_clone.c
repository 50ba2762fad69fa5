/* SPDX-License-Identifier: MIT */
/*
 * The verb "clone": copies of the disks of a running VM, all of the same moment, in a folder that
 * whoever asks has made. All else that belongs to a clone is the asker's work.
 *
 *   prepare  (a thread) what is dirty is written back, and it is found out for each disk whether
 *            its file system can share blocks; what the other disks need is set up
 *   capture  (the machine stands still) a disk is shared, or its copy (host/disk_point.h) begins
 *   copy     (the disks' loops) while the guest goes on
 *   sync     (a thread) the new files and their folder
 *
 * Until the answer, clients that watch hear of the progress. If the asker goes away, or something
 * fails, what was made is removed.
 */
#include "core/clock.h"
#include "core/log.h"
#include "host/disk_point.h"
#include "vmm/instance_parts.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TICK_MS = 200 };

struct clone_disk {
    struct clone *clone;
    struct disk *disk;
    char from[PATH_MAX], to[PATH_MAX]; /* names, in the VM's folder and in the clone's */
    enum disk_format format;           /* of the copy */
    int image;                         /* the disk's own */
    int fd;                            /* the new file; -1: not made */
    bool shares;                       /* blocks with the image */
    struct disk_copy *copy;            /* NULL: not needed */
    bool copying;                      /* under the lock, as the next */
    int result;
};

enum phase { PHASE_NONE, PHASE_PREPARE, PHASE_COPY, PHASE_SYNC };

struct clone {
    struct instance *instance;
    struct control_request *request;
    enum phase phase;
    char path[PATH_MAX];
    int folder;
    struct clone_disk disks[MACHINE_MAX_DISKS];
    unsigned disk_count;
    struct thread thread;
    atomic_bool given_up;
    int thread_result;
    struct loop_call thread_call, copy_call;
    struct loop_timer tick;
    pthread_mutex_t lock;
    uint64_t pause_ns;
    struct err err; /* what has failed first; kind 0: nothing */
};

/* --- what is there, and what comes of it ------------------------------------------------------ */

static int path_of(int fd, char ret_path[PATH_MAX])
{
    char link[40];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, ret_path, PATH_MAX - 1);
    if (length < 0)
        return -errno;
    ret_path[length] = '\0';
    return 0;
}

/* By what the descriptors say: the folder may have been moved since the start. */
static int find_name(struct clone_disk *disk, struct err *err)
{
    const struct instance *instance = disk->clone->instance;
    char folder[PATH_MAX], image[PATH_MAX];
    int ret = path_of(instance->config.folder->fd, folder);
    if (ret == 0)
        ret = path_of(disk->image, image);
    if (ret < 0)
        return err_sys(err, ERR_HOST, -ret, "cannot find the disks of %s", instance->config.name);
    size_t length = strlen(folder);
    if (strncmp(image, folder, length) == 0 && image[length] == '/') {
        snprintf(disk->from, sizeof(disk->from), "%s", image + length + 1);
        return 0;
    }
    ret = err_say(err, ERR_STATE, ENOTSUP,
                  "%.200s lies outside of the folder of %s: a clone would write to it too", image,
                  instance->config.name);
    err_hint(err, "move it into the folder, or make it readonly");
    return ret;
}

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), end_length = strlen(end);
    return length > end_length && strcmp(text + length - end_length, end) == 0;
}

static int make_file(struct clone_disk *disk, struct err *err)
{
    const char *name = disk->from;
    struct stat stat;
    disk->fd = openat(disk->clone->folder, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                      0600);
    if (disk->fd < 0)
        return err_sys(err, errno == EEXIST ? ERR_STATE : ERR_FAILED, errno,
                       "cannot make %.100s/%.200s", disk->clone->path, name);
    memcpy(disk->to, disk->from, sizeof(disk->to));
    if (fstat(disk->image, &stat) < 0 || fchmod(disk->fd, stat.st_mode & 0777) < 0)
        return err_sys(err, ERR_FAILED, errno, "cannot make %.200s", name);
    return 0;
}

static void unmake_file(struct clone_disk *disk)
{
    struct stat ours, named;
    if (disk->fd < 0)
        return;
    /* Somebody may have made another one in its place. */
    if (fstat(disk->fd, &ours) == 0 &&
        fstatat(disk->clone->folder, disk->to, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
        ours.st_dev == named.st_dev && ours.st_ino == named.st_ino)
        unlinkat(disk->clone->folder, disk->to, 0);
    close(disk->fd);
    disk->fd = -1;
}

/* Each disk that the guest can change has a point in its row. */
static int plan(struct clone *clone, struct err *err)
{
    struct instance *instance = clone->instance;
    for (unsigned i = 0; i < instance->machine_config.disk_count; i++) {
        struct clone_disk *disk = &clone->disks[clone->disk_count];
        struct disk *row = machine_disk(instance->machine, i);
        if (disk_point_image(row) < 0)
            continue;
        *disk = (struct clone_disk){.clone = clone,
                                    .disk = row,
                                    .image = disk_point_image(row),
                                    .format = row->info.format,
                                    .fd = -1};
        clone->disk_count++;
        int ret = find_name(disk, err);
        if (ret == 0)
            ret = make_file(disk, err);
        if (ret < 0)
            return ret;
    }
    return 0;
}

static int open_folder(struct clone *clone, const char *path, struct err *err)
{
    if (path[0] != '/' || strlen(path) >= sizeof(clone->path))
        return err_say(err, ERR_USAGE, EINVAL, "clone: \"to\" is the whole path of a folder");
    snprintf(clone->path, sizeof(clone->path), "%s", path);
    clone->folder = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (clone->folder < 0)
        return err_sys(err, ERR_FAILED, errno, "cannot open the folder %.200s", path);
    return 0;
}

/* --- threads ---------------------------------------------------------------------------------- */

/* A bit of it, to see whether it can be done. */
static bool can_share(const struct clone_disk *disk)
{
    struct stat stat;
    if (fstat(disk->image, &stat) < 0)
        return false;
    struct file_clone_range range = {.src_fd = disk->image};
    if (stat.st_size > stat.st_blksize)
        range.src_length = (uint64_t)stat.st_blksize;
    return ioctl(disk->fd, FICLONERANGE, &range) == 0 && ftruncate(disk->fd, 0) == 0;
}

/* Sharing writes back what is dirty, while the guest would stand still: so it is done before.
 * Twice, because much can become dirty during the first. */
static void run_prepare(void *arg)
{
    struct clone *clone = arg;
    for (unsigned i = 0; i < 2 * clone->disk_count && !clone->given_up; i++) {
        struct clone_disk *disk = &clone->disks[i % clone->disk_count];
        if (i < clone->disk_count)
            disk->shares = can_share(disk);
        if (disk->shares)
            (void)!fdatasync(disk->image);
    }
    loop_post(machine_loop(clone->instance->machine), &clone->thread_call);
}

static void run_sync(void *arg)
{
    struct clone *clone = arg;
    for (unsigned i = 0; i < clone->disk_count && !clone->given_up; i++)
        if (fsync(clone->disks[i].fd) < 0)
            clone->thread_result = -errno;
    if (fsync(clone->folder) < 0)
        clone->thread_result = -errno;
    loop_post(machine_loop(clone->instance->machine), &clone->thread_call);
}

static void finish(struct clone *clone);

static void begin_work(struct clone *clone, enum phase phase, void (*run)(void *arg))
{
    clone->phase = phase;
    if (thread_start(&clone->thread, "clone", run, clone, &clone->err) < 0)
        finish(clone);
}

/* --- the copies ------------------------------------------------------------------------------- */

/* On the disk's thread, or ours. */
static void handle_ended(void *ctx, int result)
{
    struct clone_disk *disk = ctx;
    struct clone *clone = disk->clone;
    pthread_mutex_lock(&clone->lock);
    disk->copying = false;
    disk->result = result;
    pthread_mutex_unlock(&clone->lock);
    loop_post(machine_loop(clone->instance->machine), &clone->copy_call);
}

/* A copy of a qcow2 disk is a raw one, and is called so. */
static int rename_raw(struct clone_disk *disk, struct err *err)
{
    char name[PATH_MAX];
    if (disk->format != DISK_FORMAT_QCOW2)
        return 0;
    disk->format = DISK_FORMAT_RAW;
    if (!ends_with(disk->to, ".qcow2"))
        return 0;
    snprintf(name, sizeof(name), "%.*s.img", (int)(strlen(disk->to) - strlen(".qcow2")), disk->to);
    int folder = disk->clone->folder;
    if (renameat2(folder, disk->to, folder, name, RENAME_NOREPLACE) == 0)
        snprintf(disk->to, sizeof(disk->to), "%s", name);
    else if (errno != EEXIST && errno != EINVAL) /* then it keeps its name */
        return err_sys(err, ERR_FAILED, errno, "cannot make %.200s", name);
    return 0;
}

static int set_up_copy(struct clone_disk *disk, struct err *err)
{
    const struct disk_copy_handlers handlers = {.ended = handle_ended, .ctx = disk};
    char path[2 * PATH_MAX];
    struct disk *target;
    int ret = rename_raw(disk, err);
    if (ret < 0)
        return ret;
    if (ftruncate(disk->fd, 0) < 0 || ftruncate(disk->fd, (off_t)disk->disk->info.size) < 0)
        return err_sys(err, ERR_FAILED, errno, "cannot make %.200s", disk->to);
    snprintf(path, sizeof(path), "%s/%s", disk->clone->path, disk->to);
    struct disk_config config = {.path = path, .format = DISK_FORMAT_RAW};
    ret = disk_raw_open(&target, &config, err);
    if (ret == 0)
        ret = disk_copy_create(&disk->copy, disk->disk, target, &handlers, err);
    disk->shares = false;
    return ret;
}

static bool stands_still(const struct instance *instance)
{
    return instance->paused || instance->waiting;
}

static int set_up_copies(struct clone *clone, struct err *err)
{
    const struct instance *instance = clone->instance;
    for (unsigned i = 0; i < clone->disk_count; i++) {
        struct clone_disk *disk = &clone->disks[i];
        if (disk->shares)
            continue;
        if (stands_still(instance)) {
            int ret = err_say(err, ERR_STATE, EBUSY,
                              "%s stands still, and its disks are copied only while it runs",
                              instance->config.name);
            err_hint(err, "minivmm resume %s, or stop it", instance->config.name);
            return ret;
        }
        int ret = set_up_copy(disk, err);
        if (ret < 0)
            return ret;
    }
    return 0;
}

/* The machine stands still. */
static int capture_disk(struct clone_disk *disk, struct err *err)
{
    /* Not all that a qcow2 disk knows is in its file: mappings are written later, many at once. */
    if (disk->shares && disk->format == DISK_FORMAT_QCOW2)
        disk_drain(disk->disk);
    if (disk->shares && ioctl(disk->fd, FICLONE, disk->image) == 0)
        return 0;
    int ret = disk->copy ? 0 : set_up_copy(disk, err);
    if (ret < 0)
        return ret;
    disk->copying = true;
    ret = disk_copy_start(disk->copy, err);
    if (ret < 0)
        disk->copying = false;
    return ret;
}

static int capture(struct clone *clone, struct err *err)
{
    struct instance *instance = clone->instance;
    bool ran = !stands_still(instance);
    uint64_t before = clock_monotonic_ns();
    int ret = 0;
    if (ran)
        machine_pause(instance->machine);
    for (unsigned i = 0; i < clone->disk_count && ret == 0; i++)
        ret = capture_disk(&clone->disks[i], err);
    if (ran)
        machine_resume(instance->machine);
    if (ran)
        clone->pause_ns = clock_monotonic_ns() - before;
    if (clone->pause_ns / 1000000 > JOURNAL_PAUSE_MS)
        journal_pause(&instance->journal, "clone", clone->pause_ns / 1000000);
    return ret;
}

static unsigned count_copying(struct clone *clone)
{
    unsigned count = 0;
    pthread_mutex_lock(&clone->lock);
    for (unsigned i = 0; i < clone->disk_count; i++)
        count += clone->disks[i].copying;
    pthread_mutex_unlock(&clone->lock);
    return count;
}

/* Ends in handle_copied, when all have ended. */
static void stop_copies(struct clone *clone)
{
    for (unsigned i = 0; i < clone->disk_count; i++)
        if (clone->disks[i].copy)
            disk_copy_stop(clone->disks[i].copy);
}

static void give_up(struct clone *clone)
{
    clone->given_up = true;
    if (!clone->err.kind)
        err_say(&clone->err, ERR_FAILED, ECANCELED, "the clone was given up");
    stop_copies(clone);
}

static void note_failures(struct clone *clone)
{
    for (unsigned i = 0; i < clone->disk_count; i++) {
        struct clone_disk *disk = &clone->disks[i];
        pthread_mutex_lock(&clone->lock);
        int result = disk->result;
        pthread_mutex_unlock(&clone->lock);
        if (result == 0 || clone->err.kind)
            continue;
        err_sys(&clone->err, ERR_FAILED, -result, "cannot copy %.200s", disk->from);
        give_up(clone);
    }
}

static void handle_copied(void *arg)
{
    struct clone *clone = arg;
    if (clone->phase != PHASE_COPY)
        return;
    note_failures(clone);
    if (count_copying(clone) > 0)
        return;
    if (clone->err.kind)
        finish(clone);
    else
        begin_work(clone, PHASE_SYNC, run_sync);
}

/* --- from phase to phase ---------------------------------------------------------------------- */

static void begin_copy(struct clone *clone)
{
    clone->phase = PHASE_COPY;
    if (!clone->err.kind && set_up_copies(clone, &clone->err) == 0 &&
        capture(clone, &clone->err) < 0)
        give_up(clone);
    handle_copied(clone);
}

static void handle_thread(void *arg)
{
    struct clone *clone = arg;
    if (!clone->thread.started)
        return;
    thread_join(&clone->thread);
    clone->thread.started = false;
    if (clone->thread_result < 0 && !clone->err.kind)
        err_sys(&clone->err, ERR_FAILED, -clone->thread_result, "cannot write the clone's disks");
    if (clone->phase == PHASE_PREPARE)
        begin_copy(clone);
    else
        finish(clone);
}

static void handle_tick(void *arg)
{
    struct clone *clone = arg;
    uint64_t done = 0, total = 0;
    if (!control_is_awaited(clone->request) && !clone->given_up)
        give_up(clone);
    for (unsigned i = 0; i < clone->disk_count && clone->phase != PHASE_PREPARE; i++) {
        const struct clone_disk *disk = &clone->disks[i];
        if (disk->copy) {
            done += disk_copy_bytes(disk->copy);
            total += disk->disk->info.size;
        }
    }
    control_event(clone->instance->control, "clone-progress",
                  json_pack("{sI, sI}", "done", (json_int_t)done, "total", (json_int_t)total));
    if (loop_timer_arm(&clone->tick, clock_monotonic_ns() + TICK_MS * 1000000ull) < 0)
        log_warning("%s: no memory for a timer", clone->instance->config.name);
}

static json_t *describe(const struct clone *clone)
{
    json_t *disks = json_array();
    for (unsigned i = 0; i < clone->disk_count; i++) {
        const struct clone_disk *disk = &clone->disks[i];
        json_array_append_new(disks, json_pack("{ss, ss, ss, sb}", "from", disk->from, "file",
                                               disk->to, "format", disk_format_name(disk->format),
                                               "shared", (int)disk->shares));
    }
    return json_pack("{sf, so}", "paused_ms", (double)clone->pause_ns / 1e6, "disks", disks);
}

static void clear(struct clone *clone)
{
    loop_timer_cancel(&clone->tick);
    for (unsigned i = 0; i < clone->disk_count; i++) {
        struct clone_disk *disk = &clone->disks[i];
        disk_copy_destroy(disk->copy);
        disk->copy = NULL;
        if (clone->err.kind)
            unmake_file(disk);
        else if (disk->fd >= 0)
            close(disk->fd);
        disk->fd = -1;
    }
    if (clone->folder >= 0)
        close(clone->folder);
    clone->folder = -1;
    clone->phase = PHASE_NONE;
}

/* Nothing of it is under way. */
static void finish(struct clone *clone)
{
    struct control_request *request = clone->request;
    bool failed = clone->err.kind;
    json_t *answer = failed ? NULL : describe(clone);
    clear(clone);
    clone->request = NULL;
    control_answer(request, answer, failed ? &clone->err : NULL);
}

/* --- the verb --------------------------------------------------------------------------------- */

/* Lives as long as the instance: its calls may be queued in the loop. */
static int make_clone(struct instance *instance, struct err *err)
{
    if (instance->clone)
        return 0;
    struct clone *clone = calloc(1, sizeof(*clone));
    if (!clone)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot clone %s", instance->config.name);
    clone->instance = instance;
    clone->folder = -1;
    clone->thread_call = (struct loop_call){.handle = handle_thread, .arg = clone};
    clone->copy_call = (struct loop_call){.handle = handle_copied, .arg = clone};
    loop_timer_init(&clone->tick, machine_loop(instance->machine), handle_tick, clone);
    pthread_mutex_init(&clone->lock, NULL);
    instance->clone = clone;
    return 0;
}

static int begin(struct clone *clone, struct control_request *request, const char *to,
                 struct err *err)
{
    clone->err = (struct err){0};
    clone->given_up = false;
    clone->thread_result = 0;
    clone->pause_ns = 0;
    clone->disk_count = 0;
    int ret = open_folder(clone, to, err);
    if (ret == 0)
        ret = plan(clone, err);
    if (ret == 0)
        ret = loop_timer_arm(&clone->tick, 0);
    if (ret == 0)
        ret = thread_start(&clone->thread, "clone", run_prepare, clone, err);
    if (ret < 0) {
        clone->err.kind = ERR_FAILED; /* so that what was made is removed */
        clear(clone);
        return ret;
    }
    clone->phase = PHASE_PREPARE;
    clone->request = request;
    control_defer(request);
    return 0;
}

int instance_clone(struct instance *instance, struct control_request *request,
                   const json_t *arguments, struct err *err)
{
    static const char *const keys[] = {"to", NULL};
    const char *to = json_string_value(json_object_get(arguments, "to"));
    int ret = control_check_keys(arguments, keys, err);
    if (ret < 0)
        return ret;
    if (!to)
        return err_say(err, ERR_USAGE, EINVAL, "clone: \"to\" is the whole path of a folder");
    if (!instance->config.folder)
        return err_say(err, ERR_STATE, ENOTSUP, "%s runs without a folder that could be cloned",
                       instance->config.name);
    ret = make_clone(instance, err);
    if (ret < 0)
        return ret;
    if (instance->clone->phase != PHASE_NONE)
        return err_say(err, ERR_STATE, EBUSY, "%s is just being cloned", instance->config.name);
    return begin(instance->clone, request, to, err);
}

/* --- the end of the VM ------------------------------------------------------------------------ */

void instance_clone_abandon(struct instance *instance)
{
    struct clone *clone = instance->clone;
    if (!clone || clone->phase == PHASE_NONE)
        return;
    clone->given_up = true;
    if (clone->thread.started)
        thread_join(&clone->thread);
    clone->thread.started = false;
    err_say(&clone->err, ERR_STATE, ESHUTDOWN, "%s ended before its clone was done",
            instance->config.name);
    control_answer(clone->request, NULL, &clone->err);
    clone->request = NULL;
    loop_timer_cancel(&clone->tick);
}

void instance_clone_destroy(struct instance *instance)
{
    struct clone *clone = instance->clone;
    if (!clone)
        return;
    for (unsigned i = 0; i < clone->disk_count && clone->phase != PHASE_NONE; i++) {
        disk_copy_destroy(clone->disks[i].copy);
        unmake_file(&clone->disks[i]);
    }
    if (clone->folder >= 0)
        close(clone->folder);
    pthread_mutex_destroy(&clone->lock);
    free(clone);
    instance->clone = NULL;
}
