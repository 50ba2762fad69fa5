/* SPDX-License-Identifier: MIT */
#include "ft/staging.h"

#include "core/zero.h"
#include "ft/replica_disk.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* What is kept for the next epoch; the rest goes back to the host. */
enum { KEPT_PAGES = 4096, KEPT_BYTES = 16 << 20 };

/* Zeroes in a row that are no longer memory of ours: a balloon has taken them, or the like. */
enum { MANY_ZEROES = 64 };

/* More is in no epoch of ours (ft/replica_disk.h); of pages there are no more than the VM has. */
enum { MOST_BYTES = 4 * REPLICA_LEAST, MOST_BLOCKS = 4 << 20 };

/* A block that waits; its bytes are in `bytes`. */
struct waiting {
    struct moving_block block;
    size_t at;
};

struct staging {
    uint8_t *host;
    uint64_t pages;
    uint32_t *slot_of; /* for each page: its slot, from 1; 0: none */
    uint32_t *page_of; /* for each slot */
    uint8_t *slots;
    uint64_t used; /* slots */

    struct waiting *blocks;
    size_t block_count, block_room, applied;
    uint8_t *bytes;
    size_t byte_count, byte_room;
};

/* --- life ------------------------------------------------------------------------------------- */

/* Costs nothing until it is touched. */
static void *reserve(uint64_t bytes)
{
    void *room = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED)
        return NULL;
    (void)madvise(room, bytes, MADV_DONTDUMP);
    return room;
}

static void release(void *room, uint64_t bytes)
{
    if (room)
        munmap(room, bytes);
}

int staging_create(struct staging **ret_staging, uint8_t *host, uint64_t pages, struct err *err)
{
    struct staging *staging = calloc(1, sizeof(*staging));
    if (!staging || pages > UINT32_MAX - 1) {
        free(staging);
        return err_sys(err, ERR_HOST, ENOMEM, "cannot keep epochs of %llu MiB of memory apart",
                       (unsigned long long)(pages * PAGE_SIZE >> 20));
    }
    *staging = (struct staging){.host = host, .pages = pages};
    staging->slot_of = reserve(pages * sizeof(uint32_t));
    staging->page_of = reserve(pages * sizeof(uint32_t));
    staging->slots = reserve(pages * PAGE_SIZE);
    if (!staging->slot_of || !staging->page_of || !staging->slots) {
        staging_destroy(staging);
        return err_sys(err, ERR_HOST, ENOMEM, "cannot keep epochs apart");
    }
    *ret_staging = staging;
    return 0;
}

void staging_destroy(struct staging *staging)
{
    if (!staging)
        return;
    release(staging->slot_of, staging->pages * sizeof(uint32_t));
    release(staging->page_of, staging->pages * sizeof(uint32_t));
    release(staging->slots, staging->pages * PAGE_SIZE);
    free(staging->blocks);
    free(staging->bytes);
    free(staging);
}

/* --- pages ------------------------------------------------------------------------------------ */

const uint8_t *staging_page(const struct staging *staging, uint64_t page)
{
    if (page >= staging->pages)
        return NULL;
    uint32_t slot = staging->slot_of[page];
    return slot ? staging->slots + (slot - 1) * PAGE_SIZE : staging->host + page * PAGE_SIZE;
}

int staging_put_page(struct staging *staging, uint64_t page, const uint8_t *bytes)
{
    if (page >= staging->pages)
        return -EBADMSG;
    if (!staging->slot_of[page]) {
        staging->page_of[staging->used++] = (uint32_t)page;
        staging->slot_of[page] = (uint32_t)staging->used;
    }
    uint8_t *to = staging->slots + (staging->slot_of[page] - 1) * PAGE_SIZE;
    if (bytes)
        memcpy(to, bytes, PAGE_SIZE);
    else
        memset(to, 0, PAGE_SIZE);
    return 0;
}

static bool is_zero_slot(const struct staging *staging, uint64_t slot)
{
    return is_zero(staging->slots + slot * PAGE_SIZE, PAGE_SIZE);
}

/* Slots from this one on that have zeroes for pages in a row. */
static uint64_t zeroes_from(const struct staging *staging, uint64_t slot)
{
    uint64_t count = 0;
    while (slot + count < staging->used &&
           staging->page_of[slot + count] == staging->page_of[slot] + count &&
           is_zero_slot(staging, slot + count))
        count++;
    return count;
}

/* Reads as zeroes afterwards. Who has locked its memory has to say that this is meant. */
static void give_back(uint8_t *at, size_t length)
{
    if (madvise(at, length, MADV_DONTNEED) < 0 && madvise(at, length, MADV_DONTNEED_LOCKED) < 0)
        memset(at, 0, length);
}

static void write_zeroes(uint8_t *to, uint64_t pages)
{
    for (uint64_t i = 0; i < pages; i++)
        if (!is_zero(to + i * PAGE_SIZE, PAGE_SIZE))
            memset(to + i * PAGE_SIZE, 0, PAGE_SIZE);
}

/* Zeroes are not written where there are zeroes: memory that the guest never touched stays so, and
 * what it has given back the twin does not keep either. */
static void apply_pages(struct staging *staging)
{
    for (uint64_t slot = 0, count; slot < staging->used; slot += count) {
        uint8_t *to = staging->host + (uint64_t)staging->page_of[slot] * PAGE_SIZE;
        uint64_t zeroes = zeroes_from(staging, slot);
        count = zeroes ? zeroes : 1;
        if (zeroes >= MANY_ZEROES)
            give_back(to, zeroes * PAGE_SIZE);
        else if (!zeroes)
            memcpy(to, staging->slots + slot * PAGE_SIZE, PAGE_SIZE);
        else
            write_zeroes(to, zeroes);
    }
}

static void forget_pages(struct staging *staging)
{
    for (uint64_t slot = 0; slot < staging->used; slot++)
        staging->slot_of[staging->page_of[slot]] = 0;
    if (staging->used > KEPT_PAGES)
        (void)madvise(staging->slots + KEPT_PAGES * PAGE_SIZE,
                      (staging->used - KEPT_PAGES) * PAGE_SIZE, MADV_DONTNEED);
    staging->used = 0;
}

/* --- blocks ----------------------------------------------------------------------------------- */

static int make_room(void **room, size_t *size, size_t wanted, size_t each)
{
    size_t larger = *size ? *size : 64;
    if (wanted <= *size)
        return 0;
    while (larger < wanted)
        larger *= 2;
    void *more = realloc(*room, larger * each);
    if (!more)
        return -ENOMEM;
    *room = more;
    *size = larger;
    return 0;
}

int staging_put_block(struct staging *staging, const struct moving_block *block)
{
    size_t bytes = block->bytes ? block->length : 0;
    if (staging->block_count == MOST_BLOCKS || bytes > MOST_BYTES - staging->byte_count)
        return -EFBIG;
    if (make_room((void **)&staging->blocks, &staging->block_room, staging->block_count + 1,
                  sizeof(*staging->blocks)) < 0 ||
        make_room((void **)&staging->bytes, &staging->byte_room, staging->byte_count + bytes, 1) <
            0)
        return -ENOMEM;
    staging->blocks[staging->block_count++] = (struct waiting){.block = *block,
                                                               .at = staging->byte_count};
    if (bytes > 0)
        memcpy(staging->bytes + staging->byte_count, block->bytes, bytes);
    staging->byte_count += bytes;
    return 0;
}

static int apply_blocks(struct staging *staging, const struct staging_disks *disks, struct err *err)
{
    int ret = 0;
    while (staging->applied < staging->block_count && ret == 0) {
        const struct waiting *waiting = &staging->blocks[staging->applied];
        struct moving_block block = waiting->block;
        if (block.bytes) /* in the payload, which is gone */
            block.bytes = staging->bytes + waiting->at;
        ret = disks->put(disks->ctx, &block, err);
        staging->applied += ret == 0;
    }
    return ret;
}

static void forget_blocks(struct staging *staging)
{
    staging->block_count = staging->byte_count = staging->applied = 0;
    if (staging->byte_room > KEPT_BYTES) {
        free(staging->bytes);
        staging->bytes = NULL;
        staging->byte_room = 0;
    }
}

/* --- all of it -------------------------------------------------------------------------------- */

void staging_drop(struct staging *staging)
{
    forget_pages(staging);
    forget_blocks(staging);
}

int staging_apply(struct staging *staging, const struct staging_disks *disks, struct err *err)
{
    apply_pages(staging);
    forget_pages(staging);
    int ret = apply_blocks(staging, disks, err);
    if (ret == 0)
        forget_blocks(staging);
    return ret;
}

uint64_t staging_pages(const struct staging *staging)
{
    return staging->used;
}

uint64_t staging_bytes(const struct staging *staging)
{
    return staging->used * PAGE_SIZE + staging->byte_count;
}
