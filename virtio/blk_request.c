/* SPDX-License-Identifier: MIT */
/*
 * The way of a block request (virtio 1.2, section 5.2.6).
 *
 * It is a header (type, sector), data, and a status byte at the very end; how they are cut into
 * descriptors is the driver's business (2.7.4). What a driver may not do:
 *
 *   no room for header or status        the device breaks: there is nowhere to say what is wrong
 *   two requests of one head under way  the device breaks
 *   data that is no whole blocks, more than BLK_MAX_BYTES or not on the disk; a write to a disk
 *   that is readonly; ranges of discard or write zeroes that are too many, too long or cut off
 *                                                                             IOERR
 *   types, features and flags that were not agreed on                          UNSUPP
 *
 * Requests lie in a pool, mapped as large as a guest can make it and touched as far as it does.
 */
#include "virtio/blk_parts.h"

#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

enum {
    SERIAL_BYTES = 20,

    TYPE_IN = 0,
    TYPE_OUT = 1,
    TYPE_FLUSH = 4,
    TYPE_GET_ID = 8,
    TYPE_DISCARD = 11,
    TYPE_WRITE_ZEROES = 13,

    STATUS_OK = 0,
    STATUS_IOERR = 1,
    STATUS_UNSUPP = 2,
    PENDING = 0xff, /* never seen by the guest */

    RANGE_UNMAP = 1,
};

struct wire_header {
    uint32_t type;
    uint32_t reserved;
    uint64_t sector;
};

struct wire_range {
    uint64_t sector;
    uint32_t sectors;
    uint32_t flags;
};

/* --- pool and marks ------------------------------------------------------------------------- */

int blk_make_pool(struct blk *blk, struct err *err)
{
    unsigned size = blk->config.queues * BLK_QUEUE_SIZE;
    size_t bytes = size * (sizeof(*blk->pool) + sizeof(*blk->many));
    /* The long lists first: they have whole pages. */
    void *pool = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (pool == MAP_FAILED)
        return err_sys(err, ERR_HOST, errno, "cannot make disk %s", blk->config.name);
    (void)madvise(pool, bytes, MADV_NOHUGEPAGE);
    blk->many = pool;
    blk->pool = (struct blk_request *)(void *)(blk->many + size);
    blk->pool_size = size;
    return 0;
}

void blk_free_pool(struct blk *blk)
{
    if (blk->pool)
        munmap(blk->many, blk->pool_size * (sizeof(*blk->pool) + sizeof(*blk->many)));
}

static struct blk_request *take_request(struct blk *blk)
{
    struct blk_request *request = blk->free;

    if (request)
        blk->free = request->next_free;
    else if (blk->pool_used < blk->pool_size)
        request = &blk->pool[blk->pool_used++];
    return request;
}

static void mark(struct blk *blk, unsigned queue, unsigned head)
{
    blk->mine[blk_word_of(queue, head)] |= blk_bit_of(head);
    blk->state.in_flight[blk_word_of(queue, head)] |= blk_bit_of(head);
    blk->under_way++;
}

/* The request is no longer ours. `ended`: nor anybody's. */
static void unmark(struct blk_request *request, bool ended)
{
    struct blk *blk = request->blk;
    unsigned word = blk_word_of(request->queue, request->head);

    blk->mine[word] &= ~blk_bit_of(request->head);
    if (ended)
        blk->state.in_flight[word] &= ~blk_bit_of(request->head);
    blk->under_way--;
    request->next_free = blk->free;
    blk->free = request;
}

/* --- the end of a request ------------------------------------------------------------------- */

/* It was answered, and is counted when the guest has been told. */
static void note_end(struct blk *blk, const struct blk_request *request, bool failed)
{
    if (request->kind == BLK_OTHER)
        return;
    if (blk->ended_count == array_size(blk->ended))
        blk_count_ended(blk);
    counter_add(&blk->counters[request->kind].bytes, request->done_bytes);
    blk->ended[blk->ended_count++] = (struct blk_ended){
        .began_ns = request->began_ns, .kind = request->kind, .failed = failed};
}

/* What the ring is not told of has changed all the same, and must travel. */
static void note_touched(const struct blk_request *request)
{
    struct memory *memory = request->blk->virtio.world->memory;

    for (unsigned i = 0; i < request->data_count && request->reads; i++)
        memory_written_at(memory, request->iov[i].iov_base, request->iov[i].iov_len);
}

/* `filled`: bytes of data that the guest got. */
static void finish(struct blk_request *request, uint8_t status, uint64_t filled)
{
    struct blk *blk = request->blk;
    struct memory *memory = blk->virtio.world->memory;
    struct vring *ring = virtio_ring(&blk->virtio, request->queue);

    if (!ring || filled < request->data_bytes)
        note_touched(request);
    if (ring) {
        /* The ring wants to know how much is filled without a gap; the status comes last. */
        uint64_t written = filled == request->room ? filled + 1 : filled;
        unsigned first = request->reads ? 0 : request->data_count;
        struct vring_chain chain = {
            .iov = request->iov + first,
            .head = request->head,
            .writable = request->data_count + 1 - first,
            .writable_bytes = request->reads ? request->data_bytes + 1 : 1,
        };
        *request->status = status;
        memory_written_at(memory, request->status, 1);
        vring_push(ring, &chain, (uint32_t)written);
        blk->pushed |= 1u << request->queue;
        note_end(blk, request, status != STATUS_OK);
    }
    unmark(request, true);
}

/* --- the work of a request ------------------------------------------------------------------ */

/* Whether a completed write has to be on stable storage (5.2.6.2). */
static bool is_write_through(const struct blk *blk)
{
    if (virtio_has(&blk->virtio, BLK_F_CONFIG_WCE))
        return !blk->state.space.writeback;
    return !virtio_has(&blk->virtio, BLK_F_FLUSH);
}

static bool is_on_disk(const struct blk *blk, uint64_t sector, uint64_t bytes)
{
    const struct disk_info *info = &blk->disk->info;
    uint64_t sectors = info->size / BLK_SECTOR;

    return bytes % info->block_size == 0 && sector % (info->block_size / BLK_SECTOR) == 0 &&
           sector <= sectors && bytes / BLK_SECTOR <= sectors - sector;
}

static uint8_t submit(struct blk_request *request, enum disk_op op, uint64_t offset,
                      uint64_t length)
{
    request->disk.op = op;
    request->disk.offset = offset;
    request->disk.length = length;
    disk_submit(request->blk->disk, &request->disk);
    return PENDING;
}

static uint8_t start_transfer(struct blk_request *request, enum disk_op op, uint64_t sector)
{
    struct blk *blk = request->blk;

    if (op == DISK_WRITE && blk->disk->info.readonly)
        return STATUS_IOERR;
    if (request->data_bytes > BLK_MAX_BYTES || !is_on_disk(blk, sector, request->data_bytes))
        return STATUS_IOERR;
    if (request->data_bytes == 0)
        return STATUS_OK;
    request->disk.iov = request->iov;
    request->disk.iov_count = request->data_count;
    blk->taken_bytes += request->data_bytes;
    return submit(request, op, sector * BLK_SECTOR, request->data_bytes);
}

/* The ranges of discard and write zeroes, one after the other. */
static uint8_t start_next_range(struct blk_request *request)
{
    struct blk *blk = request->blk;
    bool discards = request->disk.op == DISK_DISCARD;
    uint64_t offset = (uint64_t)request->next_range * sizeof(struct wire_range);
    struct wire_range range;

    if (offset >= request->data_bytes)
        return STATUS_OK;
    request->next_range++;
    iov_read(request->iov, request->data_count, offset, &range, sizeof(range));
    uint32_t flags = le32toh(range.flags), sectors = le32toh(range.sectors);
    uint64_t sector = le64toh(range.sector);
    if (flags & ~(discards ? 0u : (uint32_t)RANGE_UNMAP)) /* 5.2.6.2 */
        return STATUS_UNSUPP;
    if (sectors > (discards ? BLK_MAX_DISCARD_SECTORS : BLK_MAX_ZEROES_SECTORS) ||
        !is_on_disk(blk, sector, (uint64_t)sectors * BLK_SECTOR))
        return STATUS_IOERR;
    request->disk.unmap = flags & RANGE_UNMAP;
    return submit(request, request->disk.op, sector * BLK_SECTOR, (uint64_t)sectors * BLK_SECTOR);
}

static uint8_t start_ranges(struct blk_request *request, enum disk_op op, uint64_t feature)
{
    if (!virtio_has(&request->blk->virtio, feature))
        return STATUS_UNSUPP;
    if (request->data_bytes == 0 || request->data_bytes % sizeof(struct wire_range) ||
        request->data_bytes > BLK_MAX_RANGES * sizeof(struct wire_range))
        return STATUS_IOERR;
    request->disk.op = op;
    return start_next_range(request);
}

static uint8_t tell_serial(struct blk_request *request, uint64_t *ret_filled)
{
    char serial[SERIAL_BYTES] = {0};

    memcpy(serial, request->blk->config.serial, strnlen(request->blk->config.serial, SERIAL_BYTES));
    *ret_filled = iov_write(request->iov, request->data_count, 0, serial, sizeof(serial));
    return STATUS_OK;
}

/* The status, or PENDING. */
static uint8_t start(struct blk_request *request, uint32_t type, uint64_t sector,
                     uint64_t *ret_filled)
{
    switch (type) {
    case TYPE_IN:
        return start_transfer(request, DISK_READ, sector);
    case TYPE_OUT:
        return start_transfer(request, DISK_WRITE, sector);
    case TYPE_FLUSH:
        return submit(request, DISK_FLUSH, 0, 0);
    case TYPE_GET_ID:
        return tell_serial(request, ret_filled);
    case TYPE_DISCARD:
        return start_ranges(request, DISK_DISCARD, BLK_F_DISCARD);
    case TYPE_WRITE_ZEROES:
        return start_ranges(request, DISK_ZEROES, BLK_F_WRITE_ZEROES);
    default:
        return STATUS_UNSUPP;
    }
}

/* What comes after a step of it that went well: the status, or PENDING. */
static uint8_t go_on(struct blk_request *request)
{
    enum disk_op op = request->disk.op;

    if (op == DISK_DISCARD || op == DISK_ZEROES) {
        uint8_t status = start_next_range(request);
        if (status != STATUS_OK)
            return status;
    }
    if ((op == DISK_WRITE || op == DISK_ZEROES) && is_write_through(request->blk) &&
        !request->blk->disk->info.write_through)
        return submit(request, DISK_FLUSH, 0, 0);
    return STATUS_OK;
}

static void handle_done(struct disk_request *disk, int result)
{
    struct blk_request *request = container_of(disk, struct blk_request, disk);
    struct blk *blk = request->blk;
    uint8_t status = STATUS_IOERR;

    /* In a pause: the ring is not ours to touch. The mark stays, and resume() repeats it. */
    if (!blk->virtio.running || blk->forgetting) {
        note_touched(request);
        unmark(request, false);
        return;
    }
    if (result == 0)
        request->done_bytes += disk->length;
    if (result < 0 && result != -ECANCELED && blk->config.failed)
        blk->config.failed(blk->config.ctx, disk->op, disk->offset, -result);
    else if (result == 0)
        status = virtio_ring(&blk->virtio, request->queue) ? go_on(request) : STATUS_OK;
    if (status != PENDING)
        finish(request, status, request->reads && status == STATUS_OK ? request->data_bytes : 0);
}

/* --- from the ring -------------------------------------------------------------------------- */

static uint8_t kind_of(uint32_t type)
{
    switch (type) {
    case TYPE_IN:
        return BLK_READS;
    case TYPE_OUT:
        return BLK_WRITES;
    case TYPE_FLUSH:
        return BLK_FLUSHES;
    case TYPE_DISCARD:
    case TYPE_WRITE_ZEROES:
        return BLK_DISCARDS;
    default:
        return BLK_OTHER;
    }
}

static bool is_for_guest(uint32_t type)
{
    return type == TYPE_IN || type == TYPE_GET_ID;
}

/* Cuts the chain into data and status. */
static void take_apart(struct blk_request *request, const struct vring_chain *chain, bool reads)
{
    struct blk *blk = request->blk;
    const struct iovec *last = &vring_writable(chain)[chain->writable - 1];
    bool few = chain->readable + chain->writable + 1 <= BLK_FEW_SEGMENTS;

    request->status = (uint8_t *)last->iov_base + last->iov_len - 1;
    request->room = chain->writable_bytes - 1;
    request->reads = reads;
    request->iov = few ? request->few : blk->many[request - blk->pool];
    if (reads) {
        request->data_bytes = request->room;
        request->data_count = iov_part(vring_writable(chain), chain->writable, 0, request->room,
                                       request->iov);
    } else {
        request->data_bytes = chain->readable_bytes - sizeof(struct wire_header);
        request->data_count = iov_part(chain->iov, chain->readable, sizeof(struct wire_header),
                                       request->data_bytes, request->iov);
    }
    request->iov[request->data_count] = (struct iovec){.iov_base = request->status, .iov_len = 1};
}

bool blk_take_in(struct blk *blk, unsigned queue, const struct vring_chain *chain)
{
    struct wire_header header;
    uint64_t filled = 0;

    if (chain->readable_bytes < sizeof(header) || chain->writable_bytes == 0 ||
        blk_is_marked(blk, queue, chain->head))
        return false;
    struct blk_request *request = take_request(blk);
    if (!request)
        return false;
    iov_read(chain->iov, chain->readable, 0, &header, sizeof(header));
    uint32_t type = le32toh(header.type);
    request->blk = blk;
    request->queue = (uint16_t)queue;
    request->head = chain->head;
    request->next_range = 0;
    request->done_bytes = 0;
    request->kind = kind_of(type);
    request->began_ns = blk->now_ns;
    request->disk.done = handle_done;
    request->disk.unmap = false;
    take_apart(request, chain, is_for_guest(type));
    mark(blk, queue, chain->head);

    uint8_t status = start(request, type, le64toh(header.sector), &filled);
    if (status != PENDING)
        finish(request, status, filled);
    return true;
}
