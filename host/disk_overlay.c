/* SPDX-License-Identifier: MIT */
/*
 * A disk whose changes vanish: an image that is only read, and an unlinked file as large as it,
 * sparse, that takes what the guest writes. A map with one bit for each sector says in which of
 * the two a sector lies; a page of it is for 16 MiB, and takes memory when one of these is written.
 *
 *   READ     from the side that has it; a range that lies on both is read in runs, a few at a time
 *   WRITE    to the file. The bits are set when it is done: what could not be written (the file's
 *            file system may be full) still reads as before
 *   ZEROES   a hole in the file, and the bits as for a write
 *   DISCARD  a hole in the file and no bits: what was written reads as zeroes, the rest as before
 *   FLUSH    done at once: nothing of this outlives the VM
 *
 * Bits are only ever set, by the loop's thread, and for whole requests. Requests that overlap while
 * they are under way may meet either side, as on any disk; they cannot touch other sectors.
 *
 * What lies on one side passes as it is. All else is a split, which has lanes: requests of its own.
 * Splits are kept and used again.
 *
 * A guest may write every other sector: then a request of 32 MiB has 65,536 runs, and what the page
 * cache has of them is read within a kick. So a kick begins only some; splits that could go on wait
 * in a row, first come, first served, and a timer goes on with them in a turn of its own.
 */
#include "host/disk_queue.h"

#include "core/clock.h"
#include "core/iov.h"
#include "host/disk_file.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    SECTOR = 512,
    LANES = 8,
    WORD = 64,
    MOST_SPARE = 64,
    RUNS_A_KICK = 256, /* a fraction of a millisecond */
};

struct overlay {
    struct disk disk;
    struct disk *image, *file;
    uint64_t *map; /* 1: in the file */
    size_t map_size;
    struct disk_client client;
    struct disk_queue finished; /* told at the end of the kick or the batch; private[0]: -result */
    bool moved;                 /* submitted since both were kicked */
    unsigned life;              /* a split of another one begins no more runs */
    unsigned runs_left;         /* of this kick */
    struct split *ready, **ready_end;
    bool attached;
    struct loop_timer timer; /* armed: somebody is ready */
    struct split *spare;     /* the latest to end first */
    unsigned spare_count;
};

struct lane {
    struct disk_request request;
    struct split *split;
    struct iovec *iov; /* of a READ: room for as many as the guest's request has */
    bool busy;
};

/* A request that needs work of our own. */
struct split {
    struct overlay *overlay;
    struct disk_request *outer;
    struct split *next_spare, *next_ready;
    uint64_t next, end; /* bytes that no lane has begun */
    unsigned busy;      /* lanes */
    unsigned life;
    bool ready; /* is in the row */
    int result;
    unsigned iov_room; /* of each lane */
    struct iovec *iov;
    struct lane lanes[LANES];
};

static struct overlay *overlay_of(struct disk *disk)
{
    return container_of(disk, struct overlay, disk);
}

/* The map. */

static bool is_written(const struct overlay *overlay, uint64_t sector)
{
    return overlay->map[sector / WORD] >> sector % WORD & 1;
}

/* The first sector in [from, end) that lies on the other side than `from`; end: none. */
static uint64_t run_end(const struct overlay *overlay, uint64_t from, uint64_t end)
{
    uint64_t flip = is_written(overlay, from) ? UINT64_MAX : 0;

    while (from < end) {
        uint64_t other = (overlay->map[from / WORD] ^ flip) >> from % WORD;
        if (other) {
            from += (unsigned)__builtin_ctzll(other);
            break;
        }
        from += WORD - from % WORD;
    }
    return from < end ? from : end;
}

static void set_written(struct overlay *overlay, uint64_t from, uint64_t end)
{
    while (from < end) {
        uint64_t first = from % WORD, count = WORD - first;
        if (count > end - from)
            count = end - from;
        uint64_t bits = count == WORD ? UINT64_MAX : (UINT64_C(1) << count) - 1;
        overlay->map[from / WORD] |= bits << first;
        from += count;
    }
}

/* All of a request that is not empty lies on one side. */
static bool is_one_run(const struct overlay *overlay, const struct disk_request *request)
{
    uint64_t first = request->offset / SECTOR, end = (request->offset + request->length) / SECTOR;

    return run_end(overlay, first, end) == end;
}

/* Splits. */

static struct split *take_spare(struct overlay *overlay)
{
    struct split *split = overlay->spare;

    if (!split)
        return calloc(1, sizeof(*split));
    overlay->spare = split->next_spare;
    overlay->spare_count--;
    split->ready = false;
    return split;
}

static void destroy_split(struct split *split)
{
    free(split->iov);
    free(split);
}

static void give_back(struct overlay *overlay, struct split *split)
{
    if (overlay->spare_count == MOST_SPARE) {
        destroy_split(split);
        return;
    }
    split->next_spare = overlay->spare;
    overlay->spare = split;
    overlay->spare_count++;
}

static bool make_room(struct split *split, unsigned count)
{
    if (split->iov_room >= count)
        return true;
    struct iovec *iov = calloc((size_t)count * LANES, sizeof(*iov));
    if (!iov)
        return false;
    free(split->iov);
    split->iov = iov;
    split->iov_room = count;
    for (unsigned i = 0; i < LANES; i++)
        split->lanes[i].iov = iov + (size_t)i * count;
    return true;
}

/* NULL: no memory. */
static struct split *begin_split(struct overlay *overlay, struct disk_request *outer)
{
    struct split *split = take_spare(overlay);

    if (!split)
        return NULL;
    if (outer->op == DISK_READ && !make_room(split, outer->iov_count)) {
        give_back(overlay, split);
        return NULL;
    }
    split->overlay = overlay;
    split->outer = outer;
    split->next = outer->offset;
    split->end = outer->offset + outer->length;
    split->life = overlay->life;
    split->result = 0;
    return split;
}

static void submit_to(struct overlay *overlay, struct disk *disk, struct disk_request *request)
{
    overlay->moved = true;
    disk_submit(disk, request);
}

static void finish(struct overlay *overlay, struct disk_request *request, int result)
{
    request->private[0] = (uint64_t)-result;
    disk_queue_add(&overlay->finished, request);
}

static void end_split(struct split *split)
{
    struct overlay *overlay = split->overlay;
    struct disk_request *outer = split->outer;

    if (outer->op != DISK_READ && split->result == 0)
        set_written(overlay, outer->offset / SECTOR, (outer->offset + outer->length) / SECTOR);
    finish(overlay, outer, split->result);
    give_back(overlay, split);
}

/* Reading from both. */

static void go_on(struct split *split);

static void handle_run(struct disk_request *request, int result)
{
    struct lane *lane = container_of(request, struct lane, request);
    struct split *split = lane->split;

    lane->busy = false;
    split->busy--;
    if (result < 0) {
        split->result = result;
        split->next = split->end;
    }
    go_on(split);
}

static void start_run(struct split *split, struct lane *lane)
{
    struct overlay *overlay = split->overlay;
    const struct disk_request *outer = split->outer;
    uint64_t first = split->next / SECTOR;
    uint64_t length = run_end(overlay, first, split->end / SECTOR) * SECTOR - split->next;
    unsigned count = iov_part(outer->iov, outer->iov_count, split->next - outer->offset, length,
                              lane->iov);

    lane->split = split;
    lane->request = (struct disk_request){.op = DISK_READ,
                                          .offset = split->next,
                                          .length = length,
                                          .iov = lane->iov,
                                          .iov_count = count,
                                          .done = handle_run};
    split->next += length;
    split->busy++;
    lane->busy = true;
    overlay->runs_left--;
    submit_to(overlay, is_written(overlay, first) ? overlay->file : overlay->image, &lane->request);
}

static void wait_for_turn(struct split *split)
{
    struct overlay *overlay = split->overlay;

    if (split->ready)
        return;
    split->ready = true;
    split->next_ready = NULL;
    *overlay->ready_end = split;
    overlay->ready_end = &split->next_ready;
}

/* With as many lanes as there are, and as many runs as the kick has left. */
static void go_on(struct split *split)
{
    struct overlay *overlay = split->overlay;

    if (split->life != overlay->life && split->next < split->end) {
        split->result = -ECANCELED;
        split->next = split->end;
    }
    for (unsigned i = 0; i < LANES && split->next < split->end && overlay->runs_left; i++)
        if (!split->lanes[i].busy)
            start_run(split, &split->lanes[i]);
    if (split->next < split->end && split->busy < LANES)
        wait_for_turn(split);
    else if (split->next == split->end && !split->busy && !split->ready)
        end_split(split);
}

static void go_on_with_all(struct overlay *overlay)
{
    struct split *split = overlay->ready;

    overlay->ready = NULL;
    overlay->ready_end = &overlay->ready;
    while (split) {
        struct split *next = split->next_ready;
        split->ready = false;
        go_on(split); /* or it is ready again */
        split = next;
    }
}

static void read_both(struct overlay *overlay, struct disk_request *request)
{
    struct split *split = begin_split(overlay, request);

    if (!split) {
        finish(overlay, request, -ENOMEM);
        return;
    }
    wait_for_turn(split);
}

/* Writing. */

static void handle_written(struct disk_request *request, int result)
{
    struct split *split = container_of(request, struct lane, request)->split;

    split->result = result;
    end_split(split);
}

/* Sectors that the map does not show yet. */
static void write_new(struct overlay *overlay, struct disk_request *request)
{
    struct split *split = begin_split(overlay, request);

    if (!split) {
        finish(overlay, request, -ENOMEM);
        return;
    }
    struct lane *lane = &split->lanes[0];
    lane->split = split;
    lane->request = (struct disk_request){.op = request->op,
                                          .unmap = true,
                                          .offset = request->offset,
                                          .length = request->length,
                                          .iov = request->iov,
                                          .iov_count = request->iov_count,
                                          .done = handle_written};
    submit_to(overlay, overlay->file, &lane->request);
}

/* The disk. */

static void overlay_submit(struct disk *disk, struct disk_request *request)
{
    struct overlay *overlay = overlay_of(disk);

    if (request->op == DISK_FLUSH || request->length == 0) {
        finish(overlay, request, 0);
        return;
    }
    if (request->op == DISK_DISCARD) {
        submit_to(overlay, overlay->file, request);
        return;
    }
    bool one = is_one_run(overlay, request);
    bool written = is_written(overlay, request->offset / SECTOR);

    if (one && written && request->op != DISK_ZEROES) /* these are holes, always */
        submit_to(overlay, overlay->file, request);
    else if (request->op != DISK_READ)
        write_new(overlay, request);
    else if (one)
        submit_to(overlay, overlay->image, request);
    else
        read_both(overlay, request);
}

static void tell(struct overlay *overlay)
{
    for (struct disk_request *request; (request = disk_queue_take(&overlay->finished));)
        request->done(request, -(int)request->private[0]);
}

/* Those that are ready go on later. False: there is no memory for a timer. */
static bool continue_later(struct overlay *overlay)
{
    return !overlay->ready || loop_timer_arm(&overlay->timer, clock_monotonic_ns()) == 0;
}

/* What one side has done may have given the other one work. */
static void overlay_kick(struct disk *disk)
{
    struct overlay *overlay = overlay_of(disk);

    do {
        overlay->runs_left = RUNS_A_KICK;
        go_on_with_all(overlay);
        while (overlay->moved || overlay->finished.first) {
            overlay->moved = false;
            disk_kick(overlay->image);
            disk_kick(overlay->file);
            tell(overlay);
            go_on_with_all(overlay);
        }
    } while (!continue_later(overlay)); /* rather a long turn than a guest that hangs */
}

/* Those that are ready find that their life is over. */
static void overlay_cancel(struct disk *disk)
{
    struct overlay *overlay = overlay_of(disk);

    overlay->life++;
    go_on_with_all(overlay);
    disk_cancel(overlay->image);
    disk_cancel(overlay->file);
    overlay_kick(disk);
}

static void overlay_drain(struct disk *disk)
{
    struct overlay *overlay = overlay_of(disk);

    do {
        overlay->runs_left = RUNS_A_KICK;
        go_on_with_all(overlay);
        overlay->moved = false;
        disk_drain(overlay->image);
        disk_drain(overlay->file);
        tell(overlay);
    } while (overlay->moved || overlay->finished.first || overlay->ready);
    if (overlay->attached)
        loop_timer_cancel(&overlay->timer);
}

static void handle_begin(void *ctx)
{
    struct overlay *overlay = ctx;

    overlay->client.begin(overlay->client.ctx);
}

static void handle_end(void *ctx)
{
    struct overlay *overlay = ctx;

    overlay_kick(&overlay->disk);
    overlay->client.end(overlay->client.ctx);
}

static void handle_trouble(void *ctx, const char *sentence)
{
    const struct overlay *overlay = ctx;

    disk_tell_trouble(&overlay->client, sentence);
}

static void handle_timer(void *arg)
{
    handle_begin(arg);
    handle_end(arg);
}

/* Life. */

static int overlay_attach(struct disk *disk, struct loop *loop, const struct disk_client *client,
                          struct err *err)
{
    struct overlay *overlay = overlay_of(disk);
    const struct disk_client ours = {
        .begin = handle_begin, .end = handle_end, .trouble = handle_trouble, .ctx = overlay};

    overlay->client = *client;
    int r = disk_attach(overlay->image, loop, &ours, err);
    if (r < 0)
        return r;
    r = disk_attach(overlay->file, loop, &ours, err);
    if (r < 0) {
        disk_detach(overlay->image);
        return r;
    }
    loop_timer_init(&overlay->timer, loop, handle_timer, overlay);
    overlay->attached = true;
    return 0;
}

static void overlay_detach(struct disk *disk)
{
    struct overlay *overlay = overlay_of(disk);

    if (overlay->attached)
        loop_timer_cancel(&overlay->timer);
    overlay->attached = false;
    disk_detach(overlay->image);
    disk_detach(overlay->file);
}

static uint64_t overlay_zeroes_cost(struct disk *disk, const struct disk_request *request)
{
    struct disk_request ours = *request;

    ours.unmap = true;
    return disk_zeroes_cost(overlay_of(disk)->file, &ours);
}

static void overlay_destroy(struct disk *disk)
{
    struct overlay *overlay = overlay_of(disk);

    disk_destroy(overlay->image);
    disk_destroy(overlay->file);
    if (overlay->map)
        munmap(overlay->map, overlay->map_size);
    for (struct split *split; (split = overlay->spare);) {
        overlay->spare = split->next_spare;
        destroy_split(split);
    }
    free(overlay);
}

static const struct disk_ops ops = {
    .name = "overlay",
    .attach = overlay_attach,
    .detach = overlay_detach,
    .submit = overlay_submit,
    .kick = overlay_kick,
    .cancel = overlay_cancel,
    .drain = overlay_drain,
    .zeroes_cost = overlay_zeroes_cost,
    .destroy = overlay_destroy,
};

/* Where the file system has no O_TMPFILE: a name, for a moment. */
static int open_unnamed(const char *folder)
{
    char path[4096];
    int fd = open(folder, O_TMPFILE | O_EXCL | O_RDWR | O_CLOEXEC, 0600);

    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL))
        return fd;
    if ((size_t)snprintf(path, sizeof(path), "%s/minivmm-overlay-XXXXXX", folder) >= sizeof(path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    fd = mkostemp(path, O_CLOEXEC);
    if (fd >= 0)
        unlink(path);
    return fd;
}

static int say_no_file(const char *folder, const char *what, struct err *err)
{
    int r = err_sys(err, ERR_HOST, errno, "cannot %s for a disk's changes in %s", what, folder);

    err_hint(err, "TMPDIR names another folder for it");
    return r;
}

static int make_file(struct overlay *overlay, const char *folder, struct err *err)
{
    struct disk_file file = {.fd = open_unnamed(folder), .info = overlay->disk.info};

    if (file.fd < 0)
        return say_no_file(folder, "make a file", err);
    if (ftruncate(file.fd, (off_t)file.info.size) < 0) {
        int r = say_no_file(folder, "make a file as large as the disk", err);
        disk_file_close(&file);
        return r;
    }
    file.info.write_through = false; /* it need not be safe, whatever the guest is told */
    return disk_file_start(&overlay->file, &file, DISK_ENGINE_AUTO, err);
}

static int make_map(struct overlay *overlay, struct err *err)
{
    uint64_t words = (overlay->disk.info.size / SECTOR + WORD - 1) / WORD;

    overlay->map_size = words * sizeof(uint64_t);
    void *map = mmap(NULL, overlay->map_size, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED)
        return err_sys(err, ERR_HOST, errno, "cannot set up a disk's changes");
    (void)madvise(map, overlay->map_size, MADV_NOHUGEPAGE); /* or a page is for 8 GiB */
    overlay->map = map;
    return 0;
}

int disk_overlay_create(struct disk **ret_disk, struct disk *inner, const char *folder,
                        struct err *err)
{
    struct overlay *overlay = calloc(1, sizeof(*overlay));

    if (!overlay) {
        disk_destroy(inner);
        return err_sys(err, ERR_HOST, ENOMEM, "cannot set up a disk's changes");
    }
    overlay->disk = (struct disk){.ops = &ops, .info = inner->info};
    overlay->disk.info.readonly = false;
    overlay->disk.info.discard = true;
    overlay->image = inner;
    overlay->ready_end = &overlay->ready;
    disk_queue_init(&overlay->finished);
    int r = make_map(overlay, err);
    if (r == 0)
        r = make_file(overlay, folder, err);
    if (r < 0) {
        overlay_destroy(&overlay->disk);
        return r;
    }
    *ret_disk = &overlay->disk;
    return 0;
}
