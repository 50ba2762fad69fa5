/* SPDX-License-Identifier: MIT */
/*
 * A page may lie in WAYS places, all in one set, which its number says; within a set the newest is
 * first in the order of `ages`.
 */
#include "ft/page_cache.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { WAYS = 4 };

#define NOBODY UINT64_MAX

struct set {
    uint64_t pages[WAYS];
    uint8_t ages[WAYS]; /* ways, the one that was put last at first */
};

struct page_cache {
    struct set *sets;
    uint64_t count; /* of sets: a power of two */
    uint8_t *bytes;
};

int page_cache_create(struct page_cache **ret_cache, uint64_t bytes, struct err *err)
{
    struct page_cache *cache = calloc(1, sizeof(*cache));
    if (!cache)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot remember pages");
    cache->count = 1;
    while (cache->count * 2 * WAYS * PAGE_SIZE <= bytes)
        cache->count *= 2;
    cache->sets = calloc(cache->count, sizeof(*cache->sets));
    void *room = mmap(NULL, cache->count * WAYS * PAGE_SIZE, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    cache->bytes = room == MAP_FAILED ? NULL : room;
    if (!cache->sets || !cache->bytes) {
        page_cache_destroy(cache);
        return err_sys(err, ERR_HOST, ENOMEM, "cannot remember pages");
    }
    (void)madvise(room, cache->count * WAYS * PAGE_SIZE, MADV_DONTDUMP);
    for (uint64_t i = 0; i < cache->count; i++)
        for (unsigned way = 0; way < WAYS; way++) {
            cache->sets[i].pages[way] = NOBODY;
            cache->sets[i].ages[way] = (uint8_t)way;
        }
    *ret_cache = cache;
    return 0;
}

void page_cache_destroy(struct page_cache *cache)
{
    if (!cache)
        return;
    if (cache->bytes)
        munmap(cache->bytes, cache->count * WAYS * PAGE_SIZE);
    free(cache->sets);
    free(cache);
}

static uint64_t set_of(const struct page_cache *cache, uint64_t page)
{
    return page & (cache->count - 1);
}

static uint8_t *bytes_of(const struct page_cache *cache, uint64_t set, unsigned way)
{
    return cache->bytes + (set * WAYS + way) * PAGE_SIZE;
}

/* WAYS: nowhere. */
static unsigned way_of(const struct set *set, uint64_t page)
{
    unsigned way = 0;
    while (way < WAYS && set->pages[way] != page)
        way++;
    return way;
}

const uint8_t *page_cache_find(const struct page_cache *cache, uint64_t page)
{
    uint64_t set = set_of(cache, page);
    unsigned way = way_of(&cache->sets[set], page);
    return way < WAYS ? bytes_of(cache, set, way) : NULL;
}

static void set_newest(struct set *set, uint8_t way)
{
    unsigned place = 0;
    while (set->ages[place] != way)
        place++;
    memmove(set->ages + 1, set->ages, place);
    set->ages[0] = way;
}

void page_cache_put(struct page_cache *cache, uint64_t page, const uint8_t bytes[PAGE_SIZE])
{
    uint64_t place = set_of(cache, page);
    struct set *set = &cache->sets[place];
    unsigned way = way_of(set, page);
    if (way == WAYS)
        way = set->ages[WAYS - 1];
    set->pages[way] = page;
    set_newest(set, (uint8_t)way);
    memcpy(bytes_of(cache, place, way), bytes, PAGE_SIZE);
}

void page_cache_drop(struct page_cache *cache, uint64_t page)
{
    struct set *set = &cache->sets[set_of(cache, page)];
    unsigned way = way_of(set, page);
    if (way < WAYS)
        set->pages[way] = NOBODY;
}
