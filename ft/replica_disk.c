/* SPDX-License-Identifier: MIT */
#include "ft/replica_disk.h"

#include "core/iov.h"
#include "host/disk_tap.h"
#include "vmm/machine.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* One change; its bytes follow, if it has any. */
struct note {
    uint64_t offset, length;
    uint32_t place;
    bool zeroes;
};

struct piece {
    uint8_t *bytes;    /* `budget` of them, which cost memory as they are used */
    size_t used, cost; /* the cost is at least what is used */
};

struct followed {
    struct replica_disk *replica;
    struct disk_tap *tap;
    uint32_t place;
    bool discards; /* and what was discarded reads as zeroes */
};

struct replica_disk {
    struct replica_disk_config config;
    struct followed disks[MACHINE_MAX_DISKS];
    unsigned count;
    pthread_mutex_t lock; /* filling, waits */
    struct piece filling, leaving;
    bool waits; /* a disk does */
};

/* --- noting ----------------------------------------------------------------------------------- */

static size_t size_of(const struct note *note)
{
    size_t length = note->zeroes ? 0 : note->length;
    return (sizeof(*note) + length + 7) & ~(size_t)7;
}

/* A few bytes can say that much is zeroes: that is many frames, and both sides work for each. */
static size_t cost_of(const struct note *note)
{
    enum { FRAME_COST = 64 };
    size_t frames = (size_t)((note->length + FRAME_MAX_BLOCK - 1) / FRAME_MAX_BLOCK);
    return size_of(note) + (note->zeroes ? frames * FRAME_COST : 0);
}

static void put_note(struct piece *piece, const struct note *note, const struct disk_request *from)
{
    uint8_t *at = piece->bytes + piece->used;
    memcpy(at, note, sizeof(*note));
    if (!note->zeroes)
        iov_read(from->iov, from->iov_count, 0, at + sizeof(*note), note->length);
    piece->used += size_of(note);
    piece->cost += cost_of(note);
}

/* A flush changes nothing, and what is discarded without being gone neither. */
static bool changes(const struct followed *disk, const struct disk_request *request)
{
    switch (request->op) {
    case DISK_WRITE:
    case DISK_ZEROES:
        return request->length > 0;
    case DISK_DISCARD:
        return disk->discards && request->length > 0;
    default:
        return false;
    }
}

static bool handle_change(void *ctx, const struct disk_request *request)
{
    const struct followed *disk = ctx;
    struct replica_disk *replica = disk->replica;
    struct note note = {.offset = request->offset,
                        .length = request->length,
                        .place = disk->place,
                        .zeroes = request->op != DISK_WRITE};
    if (!changes(disk, request))
        return true;
    pthread_mutex_lock(&replica->lock);
    struct piece *filling = &replica->filling;
    bool fits = filling->cost + cost_of(&note) <= replica->config.budget;
    if (fits)
        put_note(filling, &note, request);
    bool presses = !fits || filling->cost > replica->config.budget / 2;
    replica->waits |= !fits;
    pthread_mutex_unlock(&replica->lock);
    if (presses)
        replica->config.presses(replica->config.ctx);
    return fits;
}

/* --- leaving ---------------------------------------------------------------------------------- */

void replica_disk_cut(struct replica_disk *replica)
{
    pthread_mutex_lock(&replica->lock);
    assert(replica->leaving.used == 0);
    struct piece full = replica->filling;
    replica->filling = replica->leaving;
    replica->leaving = full;
    bool waited = replica->waits;
    replica->waits = false;
    pthread_mutex_unlock(&replica->lock);
    for (unsigned i = 0; i < replica->count && waited; i++)
        disk_tap_go_on(replica->disks[i].tap);
}

static int send_note(const struct note *note, const uint8_t *bytes,
                     const struct replica_disk_sink *sink, struct err *err)
{
    int ret = 0;
    for (uint64_t at = 0; at < note->length && ret == 0; at += FRAME_MAX_BLOCK) {
        uint64_t left = note->length - at;
        const struct moving_block block = {
            .place = note->place,
            .offset = note->offset + at,
            .length = left < FRAME_MAX_BLOCK ? (uint32_t)left : FRAME_MAX_BLOCK,
            .bytes = note->zeroes ? NULL : bytes + at,
        };
        ret = sink->put(sink->ctx, &block, err);
    }
    return ret;
}

/* What one big epoch has touched is not kept for the many small ones. */
static void give_back(struct piece *piece)
{
    enum { KEPT = 4 << 20 };
    if (piece->used > KEPT)
        madvise(piece->bytes + KEPT, piece->used - KEPT, MADV_DONTNEED);
    piece->used = piece->cost = 0;
}

int replica_disk_send(struct replica_disk *replica, const struct replica_disk_sink *sink,
                      struct err *err)
{
    int ret = 0;
    struct note note;
    for (size_t at = 0; at < replica->leaving.used && ret == 0; at += size_of(&note)) {
        memcpy(&note, replica->leaving.bytes + at, sizeof(note));
        ret = send_note(&note, replica->leaving.bytes + at + sizeof(note), sink, err);
    }
    pthread_mutex_lock(&replica->lock);
    give_back(&replica->leaving);
    pthread_mutex_unlock(&replica->lock);
    return ret;
}

uint64_t replica_disk_held(struct replica_disk *replica)
{
    pthread_mutex_lock(&replica->lock);
    uint64_t held = replica->filling.used + replica->leaving.used;
    pthread_mutex_unlock(&replica->lock);
    return held;
}

/* --- following -------------------------------------------------------------------------------- */

int replica_disk_follow(struct replica_disk *replica, struct disk *disk, uint32_t place,
                        struct err *err)
{
    struct followed *followed = &replica->disks[replica->count];
    struct disk_tap *tap = disk_tap_of(disk);
    if (!tap)
        return err_say(err, ERR_STATE, ENOTSUP, "the writes to disk%u cannot be followed", place);
    *followed = (struct followed){
        .replica = replica,
        .tap = tap,
        .place = place,
        /* A hole of a raw file reads as zeroes to the byte; other formats keep what they like. */
        .discards = disk->info.discard && disk->info.format == DISK_FORMAT_RAW,
    };
    const struct disk_tap_handlers handlers = {.change = handle_change, .ctx = followed};
    disk_tap_open(tap, &handlers);
    replica->count++;
    return 0;
}

void replica_disk_unfollow(struct replica_disk *replica)
{
    for (unsigned i = 0; i < replica->count; i++) {
        disk_tap_close(replica->disks[i].tap);
        disk_tap_go_on(replica->disks[i].tap);
    }
    replica->count = 0;
    pthread_mutex_lock(&replica->lock);
    give_back(&replica->filling);
    give_back(&replica->leaving);
    replica->waits = false;
    pthread_mutex_unlock(&replica->lock);
}

/* --- life ------------------------------------------------------------------------------------- */

static int make_piece(struct piece *piece, size_t budget, struct err *err)
{
    void *bytes = mmap(NULL, budget, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (bytes == MAP_FAILED)
        return err_sys(err, ERR_HOST, errno, "cannot make room for the disks' changes");
    piece->bytes = bytes;
    return 0;
}

int replica_disk_create(struct replica_disk **ret_replica, const struct replica_disk_config *config,
                        struct err *err)
{
    struct replica_disk *replica = calloc(1, sizeof(*replica));
    if (!replica)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot make room for the disks' changes");
    assert(config->budget >= REPLICA_LEAST);
    replica->config = *config;
    pthread_mutex_init(&replica->lock, NULL);
    int ret = make_piece(&replica->filling, config->budget, err);
    if (ret == 0)
        ret = make_piece(&replica->leaving, config->budget, err);
    if (ret < 0) {
        replica_disk_destroy(replica);
        return ret;
    }
    *ret_replica = replica;
    return 0;
}

void replica_disk_destroy(struct replica_disk *replica)
{
    if (!replica)
        return;
    assert(replica->count == 0);
    if (replica->filling.bytes)
        munmap(replica->filling.bytes, replica->config.budget);
    if (replica->leaving.bytes)
        munmap(replica->leaving.bytes, replica->config.budget);
    pthread_mutex_destroy(&replica->lock);
    free(replica);
}
