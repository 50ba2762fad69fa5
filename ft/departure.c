/* SPDX-License-Identifier: MIT */
/* What goes over to the other host: the VM's files, its disks, its memory. */
#include "ft/departure.h"
#include "core/clock.h"
#include "core/zero.h"
#include "ft/delta.h"
#include "ft/slow_line.h"
#include "host/disk_point.h"
#include "host/fd.h"
#include "host/small_file.h"

#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DEEPEST = 4, CLUSTERS = FRAME_MAX_BLOCK / DISK_WATCH_CLUSTER, WORD = 64 };

static const struct instance_config *vm_of(const struct departure *departure)
{
    return instance_config(departure->instance);
}

static int stream_says(struct stream *stream, struct err *err)
{
    int error = stream_error(stream);
    return error < 0 ? err_sys(err, ERR_FAILED, -error, "the connection is lost") : 0;
}

/* --- what there is ---------------------------------------------------------------------------- */

static int name_disk(const struct departure *departure, struct departure_disk *disk,
                     struct err *err)
{
    char folder[PATH_MAX], image[PATH_MAX];
    if (fd_path(vm_of(departure)->folder->fd, folder) < 0 ||
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

int departure_plan_disks(struct departure *departure, struct err *err)
{
    for (unsigned i = 0; i < instance_disks(departure->instance); i++) {
        struct disk *row = machine_disk(departure->machine, i);
        struct departure_disk *disk = &departure->disks[departure->disk_count];
        if (disk_point_image(row) < 0)
            continue;
        *disk = (struct departure_disk){.disk = row, .about = {.place = i, .size = row->info.size}};
        int ret = name_disk(departure, disk, err);
        if (ret < 0)
            return ret;
        departure->disk_count++;
        departure->total += row->info.size;
    }
    return 0;
}

int departure_plan(struct departure *departure, struct err *err)
{
    const struct instance_config *vm = vm_of(departure);
    struct moving_hello *hello = &departure->hello;
    *hello = (struct moving_hello){.wall_ns = clock_wall_ns(), .protocol = MOVING_PROTOCOL};
    memcpy(hello->uuid, vm->identity->uuid, sizeof(hello->uuid));
    memcpy(hello->generation, vm->identity->generation, sizeof(hello->generation));
    memcpy(hello->macs, vm->identity->macs, sizeof(hello->macs));
    snprintf(hello->name, sizeof(hello->name), "%s", vm->name);
    if (getrandom(hello->ticket, sizeof(hello->ticket), 0) != sizeof(hello->ticket))
        return err_sys(err, ERR_HOST, errno, "cannot draw a random number");
    departure->block = malloc(FRAME_MAX_BLOCK);
    return departure->block ? 0 : err_sys(err, ERR_HOST, ENOMEM, "cannot move a VM");
}

/* --- files ------------------------------------------------------------------------------------ */

static bool is_disk(const struct departure *departure, const struct stat *stat)
{
    for (unsigned i = 0; i < departure->disk_count; i++) {
        struct stat image;
        if (fstat(disk_point_image(departure->disks[i].disk), &image) == 0 &&
            image.st_dev == stat->st_dev && image.st_ino == stat->st_ino)
            return true;
    }
    return false;
}

static int send_file(struct departure *departure, int fd, const char *path, const struct stat *stat,
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
    moving_put_file(link_writer(departure->link), &file);
    free(bytes);
    return stream_says(link_writer(departure->link), err);
}

static int send_folder(struct departure *departure, int folder, const char *path, unsigned depth,
                       struct err *err);

static int send_entry(struct departure *departure, int folder, const char *name, const char *path,
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
        ret = send_folder(departure, fd, path, depth + 1, err);
    else if (ret == 0 && S_ISREG(stat.st_mode) && !is_disk(departure, &stat))
        ret = send_file(departure, fd, path, &stat, err);
    close(fd);
    return ret;
}

static int send_folder(struct departure *departure, int folder, const char *path, unsigned depth,
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
            ret = send_entry(departure, folder, entry->d_name, deeper, depth, err);
    }
    closedir(list);
    return ret;
}

int departure_introduce(struct departure *departure, struct err *err)
{
    struct stream *stream = link_writer(departure->link);
    struct machine_model *model;
    int ret = machine_model_of(&model, departure->machine, err);
    if (ret < 0)
        return ret;
    moving_put_hello(stream, &departure->hello, model);
    machine_model_destroy(model);
    ret = send_folder(departure, vm_of(departure)->folder->fd, "", 0, err);
    for (unsigned i = 0; i < departure->disk_count && ret == 0; i++)
        moving_put_disk(stream, &departure->disks[i].about);
    return ret < 0 ? ret : stream_says(stream, err);
}

int departure_open(struct departure *departure, struct err *err)
{
    struct stream *stream = link_writer(departure->link);
    moving_put(stream, FRAME_OPEN, NULL, 0);
    return stream_flush(stream) < 0 ? stream_says(stream, err) : 0;
}

/* --- disks ------------------------------------------------------------------------------------ */

static int give_up(const struct departure *departure, struct err *err)
{
    return *departure->given_up ? err_say(err, ERR_FAILED, ECANCELED, "the copy was given up") : 0;
}

int departure_put_block(struct departure *departure, const struct moving_block *block,
                        struct err *err)
{
    struct stream *stream = link_writer(departure->link);
    pthread_mutex_lock(departure->writing);
    moving_put_block(stream, &departure->at, block, &departure->tally);
    departure->block_bytes += block->bytes ? block->length : 0;
    int ret = stream_says(stream, err);
    pthread_mutex_unlock(departure->writing);
    return ret;
}

/* In the first round zeroes need not be said. */
static int send_block(struct departure *departure, struct departure_disk *disk, uint64_t offset,
                      uint32_t length, bool first, bool still, struct err *err)
{
    int ret = disk_watch_read(disk->watch, offset, departure->block, length, still);
    if (ret < 0)
        return err_sys(err, ERR_FAILED, -ret, "cannot read %s", disk->about.name);
    const struct moving_block block = {
        .place = disk->about.place,
        .offset = offset,
        .length = length,
        .bytes = is_zero(departure->block, length) ? NULL : departure->block,
    };
    /* Now and then they are, or the other side would think that nobody is here any more. */
    bool said = !first || offset % (64ull * FRAME_MAX_BLOCK) == 0;
    if (block.bytes || said)
        ret = departure_put_block(departure, &block, err);
    return ret < 0 || still ? ret : give_up(departure, err);
}

static int send_disk(struct departure *departure, struct departure_disk *disk, struct err *err)
{
    uint64_t size = disk->about.size;
    int ret = 0;
    for (uint64_t at = 0; at < size && ret == 0;) {
        uint64_t data = disk_watch_next_data(disk->watch, at);
        data -= data % DISK_WATCH_CLUSTER;
        if (data > at) {
            departure->sent += data - at;
            at = data;
            continue;
        }
        uint32_t length = size - at < FRAME_MAX_BLOCK ? (uint32_t)(size - at) : FRAME_MAX_BLOCK;
        ret = send_block(departure, disk, at, length, true, false, err);
        departure->sent += length;
        at += length;
    }
    return ret;
}

static bool is_written(const struct departure_disk *disk, uint64_t cluster)
{
    return disk->written[cluster / WORD] >> cluster % WORD & 1;
}

static int send_written_of(struct departure *departure, struct departure_disk *disk, bool still,
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
            ret = send_block(departure, disk, offset, (uint32_t)(length < left ? length : left),
                             false, still, err);
        at += run > 0 ? run : 1;
    }
    return ret;
}

/* --- following -------------------------------------------------------------------------------- */

static void set_watch(struct departure *departure, struct departure_disk *disk,
                      struct disk_watch *watch)
{
    pthread_mutex_lock(&departure->watching);
    disk->watch = watch;
    pthread_mutex_unlock(&departure->watching);
}

static int follow(struct departure *departure, struct departure_disk *disk, struct err *err)
{
    struct disk_watch *watch;
    disk_drain(disk->disk);
    int ret = disk_watch_start(&watch, disk->disk, err);
    if (ret < 0)
        return ret;
    set_watch(departure, disk, watch);
    disk->written = calloc(disk_watch_clusters(disk->watch) / WORD + 1, sizeof(uint64_t));
    return disk->written ? 0 : err_sys(err, ERR_HOST, ENOMEM, "cannot follow %s", disk->about.name);
}

int departure_follow(struct departure *departure, struct err *err)
{
    int ret = 0;
    bool runs = machine_runs(departure->machine);
    if (runs)
        machine_pause(departure->machine);
    for (unsigned i = 0; i < departure->disk_count && ret == 0; i++)
        ret = follow(departure, &departure->disks[i], err);
    departure->following = true;
    if (runs)
        machine_resume(departure->machine);
    return ret;
}

void departure_unfollow_disks(struct departure *departure)
{
    for (unsigned i = 0; i < departure->disk_count; i++) {
        struct departure_disk *disk = &departure->disks[i];
        struct disk_watch *watch = disk->watch;
        set_watch(departure, disk, NULL); /* an abort comes at any time */
        disk_watch_stop(watch);
        free(disk->written);
        *disk = (struct departure_disk){0};
    }
    departure->following = false;
    departure->disk_count = 0;
}

void departure_unfollow(struct departure *departure)
{
    bool pauses = departure->following && machine_runs(departure->machine);
    if (pauses)
        machine_pause(departure->machine);
    departure_unfollow_disks(departure);
    if (pauses)
        machine_resume(departure->machine);
    pages_end(&departure->pages);
}

void departure_abort(struct departure *departure)
{
    pthread_mutex_lock(&departure->watching);
    for (unsigned i = 0; i < MACHINE_MAX_DISKS; i++)
        disk_watch_abort(departure->disks[i].watch);
    pthread_mutex_unlock(&departure->watching);
}

/* --- life ------------------------------------------------------------------------------------- */

/* A page is copied into its frame first, unless it is to be made shorter: who looks for what has
 * changed in it looks twice. */
void departure_set_effort(struct departure *departure, enum page_effort effort)
{
    departure->encoder.effort = effort;
    departure->encoder.cache = departure->cache;
    departure->sink.copies = effort == EFFORT_NONE;
}

/*
 * A slow line is one that has taken long for what was sent as it is: not a CPU that was somebody
 * else's, who would get even less of it from one who looks for what is shorter. What is sent
 * shorter tells nothing of the line, so now and then some of it is not. Where most pages get no
 * shorter that ends at once, and is not tried again soon: it costs a CPU, for nothing.
 */
static bool shall_change(struct departure_pace *pace, bool is_short, bool slow)
{
    enum { LOOKS = 16 };
    pace->looks++;
    if (is_short)
        return pace->in_vain || pace->looks == LOOKS;
    return slow && (!pace->in_vain || pace->looks >= LOOKS);
}

static void look_at_the_line(struct departure *departure, uint64_t bytes)
{
    enum { LOOK_BYTES = 4 << 20 };
    struct departure_pace *pace = &departure->pace;
    const uint64_t *counts = departure->encoder.counts;
    uint64_t before = pace->ns;
    if (bytes - pace->bytes < LOOK_BYTES)
        return;
    uint64_t now = link_line_ns(departure->link);
    bool is_short = departure->encoder.effort != EFFORT_NONE;
    bool slow = now > before && slow_line(bytes - pace->bytes, now - before);
    if (is_short)
        pace->in_vain = counts[PAGE_RAW] - pace->raw > counts[PAGE_LZ4] - pace->lz4;
    if (shall_change(pace, is_short, slow)) {
        departure_set_effort(departure, is_short ? EFFORT_NONE : EFFORT_LZ4);
        pace->looks = 0;
    }
    pace->bytes = bytes;
    pace->ns = now;
    pace->raw = counts[PAGE_RAW];
    pace->lz4 = counts[PAGE_LZ4];
}

void departure_adapt(struct departure *departure, bool adapts)
{
    pthread_mutex_lock(departure->writing);
    departure->pace = (struct departure_pace){.adapts = adapts,
                                              .bytes = link_writer(departure->link)->position,
                                              .ns = link_line_ns(departure->link)};
    pthread_mutex_unlock(departure->writing);
}

static int put_pages(void *ctx, uint64_t offset, const uint8_t *bytes, size_t length,
                     struct err *err)
{
    struct departure *departure = ctx;
    struct stream *stream = link_writer(departure->link);
    pthread_mutex_lock(departure->writing);
    page_frame_put(stream, &departure->at, &departure->encoder, offset / PAGE_SIZE, bytes,
                   (unsigned)(length / PAGE_SIZE), &departure->tally);
    int ret = stream_says(stream, err);
    uint64_t position = stream->position;
    pthread_mutex_unlock(departure->writing);
    departure->sent += length;
    if (departure->pace.adapts)
        look_at_the_line(departure, position);
    return ret;
}

void departure_init(struct departure *departure, struct instance *instance,
                    const atomic_bool *given_up, enum page_effort effort)
{
    *departure = (struct departure){.instance = instance,
                                    .machine = instance_machine(instance),
                                    .given_up = given_up,
                                    .at = {.epoch = MOVING_EPOCH},
                                    .writing = &departure->nobody_else};
    pthread_mutex_init(&departure->nobody_else, NULL);
    pthread_mutex_init(&departure->watching, NULL);
    departure->sink = (struct pages_sink){.put = put_pages, .ctx = departure};
    departure_set_effort(departure, effort);
    departure->pages = (struct pages){
        .machine = departure->machine, .sink = &departure->sink, .given_up = given_up};
    stream_buffer_init(&departure->payload, 0);
    stream_buffer_init(&departure->state, 0);
    stream_buffer_init(&departure->sent_state, 0);
}

void departure_finish(struct departure *departure)
{
    departure_unfollow(departure);
    link_destroy(departure->link);
    departure->link = NULL;
    stream_buffer_finish(&departure->payload);
    stream_buffer_finish(&departure->state);
    stream_buffer_finish(&departure->sent_state);
    page_cache_destroy(departure->cache);
    departure->cache = NULL;
    free(departure->block);
    departure->block = NULL;
}

/* --- all of it -------------------------------------------------------------------------------- */

int departure_send_memory(struct departure *departure, struct err *err)
{
    return pages_all(&departure->pages, err);
}

int departure_send_all(struct departure *departure, struct err *err)
{
    int ret = departure_send_memory(departure, err);
    for (unsigned i = 0; i < departure->disk_count && ret == 0; i++)
        ret = send_disk(departure, &departure->disks[i], err);
    return ret;
}

int departure_send_written(struct departure *departure, bool still, uint64_t *ret_bytes,
                           struct err *err)
{
    uint64_t bytes = 0, pages = 0;
    int ret = 0;
    for (unsigned i = 0; i < departure->disk_count && ret == 0; i++)
        ret = send_written_of(departure, &departure->disks[i], still, &bytes, err);
    if (ret == 0) /* last: reading disks writes to no page, but what stopped them may have */
        ret = pages_round(&departure->pages, &pages, err);
    *ret_bytes = bytes + pages * PAGE_SIZE;
    return ret;
}

static int read_memory(void *ctx, uint64_t offset, uint8_t *bytes, uint32_t length)
{
    const struct departure *departure = ctx;
    memcpy(bytes, departure->pages.host + offset, length);
    return 0;
}

static int read_disk(void *ctx, uint64_t offset, uint8_t *bytes, uint32_t length)
{
    const struct departure_disk *disk = ctx;
    return disk_watch_read(disk->watch, offset, bytes, length, true);
}

static uint64_t next_data(void *ctx, uint64_t offset)
{
    const struct departure_disk *disk = ctx;
    return disk_watch_next_data(disk->watch, offset);
}

int departure_send_sums_of(struct departure *departure, uint32_t place,
                           const struct compare_what *what, struct err *err)
{
    struct frame frame = departure->at;
    uint32_t *payload;
    frame.kind = FRAME_COMPARE;
    int ret = compare_sum(place, what, &payload, &frame.length, err); /* while others may write */
    if (ret < 0)
        return ret;
    pthread_mutex_lock(departure->writing);
    frame_write(link_writer(departure->link), &frame, payload, &departure->tally);
    pthread_mutex_unlock(departure->writing);
    free(payload);
    return 0;
}

int departure_send_memory_sums(struct departure *departure, struct err *err)
{
    const struct compare_what memory = {.size = memory_size(machine_memory(departure->machine)),
                                        .read = read_memory,
                                        .ctx = departure};
    return departure_send_sums_of(departure, COMPARE_MEMORY, &memory, err);
}

int departure_send_sums(struct departure *departure, struct err *err)
{
    struct stream *stream = link_writer(departure->link);
    int ret = departure_send_memory_sums(departure, err);
    for (unsigned i = 0; i < departure->disk_count && ret == 0; i++) {
        struct departure_disk *disk = &departure->disks[i];
        const struct compare_what what = {
            .size = disk->about.size, .read = read_disk, .next_data = next_data, .ctx = disk};
        ret = departure_send_sums_of(departure, disk->about.place, &what, err);
    }
    return ret < 0 ? ret : stream_says(stream, err);
}

/* Most of a state is as it was. Its length: 0, where all of it is to be sent. */
static uint32_t encode_state(struct departure *departure)
{
    const struct stream_buffer *old = &departure->sent_state, *new = &departure->state;
    struct stream_buffer *payload = &departure->payload;
    uint32_t size = htole32((uint32_t) new->length);
    size_t most = sizeof(size) + new->length / 4 * 3;
    if (old->length != new->length || new->length > DELTA_MOST ||
        stream_buffer_reserve(payload, most) < 0)
        return 0;
    memcpy(payload->bytes, &size, sizeof(size));
    const uint8_t *end = delta_encode(old->bytes, new->bytes, new->length,
                                      payload->bytes + sizeof(size), payload->bytes + most);
    return end ? (uint32_t)(end - payload->bytes) : 0;
}

static void put_state(struct departure *departure)
{
    struct stream_buffer *state = &departure->state, swap = *state;
    struct frame frame = departure->at;
    frame.length = encode_state(departure);
    frame.kind = frame.length ? FRAME_CHANGES : FRAME_STATE;
    const void *bytes = frame.length ? departure->payload.bytes : state->bytes;
    if (!frame.length)
        frame.length = (uint32_t)state->length;
    frame_write(link_writer(departure->link), &frame, bytes, &departure->tally);
    *state = departure->sent_state;
    departure->sent_state = swap;
}

int departure_send_end(struct departure *departure, struct err *err)
{
    struct stream *stream = link_writer(departure->link);
    struct frame frame = departure->at;
    pthread_mutex_lock(departure->writing);
    put_state(departure);
    frame_write_commit(stream, frame.generation, frame.epoch, &departure->tally);
    int ret = stream_flush(stream) < 0 ? stream_says(stream, err) : 0;
    pthread_mutex_unlock(departure->writing);
    return ret;
}
