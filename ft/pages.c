/* SPDX-License-Identifier: MIT */
#include "ft/pages.h"

#include "core/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    RUN_PAGES = 128,    /* that go to a sink at once, and stay in a CPU's cache until they are sent;
                         * fewer would wake up who receives them more often */
    FEW_PAGES = 1024,   /* a round of so few is the last: 4 MiB are copied in about a millisecond */
    MOST_ROUNDS = 8,    /* a guest that writes faster than we do is caught with more */
    LEAST_ROOM = 4096,  /* pages */
    MOST_ROOM = 131072, /* pages: 512 MiB aside, and at most an eighth of the guest's memory... */
    SMALL_ROOM = 4096,  /* ...but for these 16 MiB: what finds no room is sent in the pause */
    WORD_PAGES = 64,
    MAP_PART = 1 << 16, /* pages that are asked for at once */
    GO_PAGES = 4096,    /* that are given back at once: about a millisecond */
};

/* --- life ------------------------------------------------------------------------------------- */

int pages_begin(struct pages *pages, struct err *err)
{
    struct memory *memory = machine_memory(pages->machine);
    const struct memory_range *ranges;
    memory_ranges(memory, &ranges);
    pages->host = ranges[0].host;
    pages->count = memory_size(memory) / PAGE_SIZE;
    int ret = dirty_create(&pages->dirty, machine_vm(pages->machine), memory, err);
    if (ret < 0)
        return ret;
    pages->words = dirty_words(pages->dirty);
    pages->written = calloc(pages->words, sizeof(*pages->written));
    pages->bounce = malloc(RUN_PAGES * PAGE_SIZE);
    if (!pages->written || !pages->bounce)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot copy guest memory");
    return dirty_start(pages->dirty, err);
}

static void drop_room(struct pages *pages)
{
    free(pages->held_pages);
    pages->held_pages = NULL;
    if (pages->aside)
        munmap(pages->aside, pages->mapped * PAGE_SIZE);
    pages->aside = NULL;
    pages->held = pages->room = pages->mapped = 0;
}

void pages_end(struct pages *pages)
{
    dirty_destroy(pages->dirty);
    pages->dirty = NULL;
    free(pages->written);
    free(pages->bounce);
    pages->written = NULL;
    pages->bounce = NULL;
    drop_room(pages);
}

/* --- rounds ----------------------------------------------------------------------------------- */

static void mark(struct pages *pages, uint64_t page)
{
    pages->written[page / WORD_PAGES] |= 1ull << page % WORD_PAGES;
}

static bool is_written(const struct pages *pages, uint64_t page)
{
    return pages->written[page / WORD_PAGES] >> page % WORD_PAGES & 1;
}

/*
 * Pages that nobody has touched hold zeroes, and are not even looked at: to read them would make
 * the host map them. The kernel's table says which they are, eight bytes a page.
 */
static void mark_touched(struct pages *pages)
{
    const uint64_t present = 3ull << 62; /* in memory, or in swap */
    uint64_t touched = 0;
    int fd = memory_is_file(machine_memory(pages->machine))
                 ? -1 /* there every page counts */
                 : open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    uint64_t *entries = fd >= 0 ? malloc(MAP_PART * sizeof(*entries)) : NULL;
    for (uint64_t first = 0; first < pages->count; first += MAP_PART) {
        uint64_t count = pages->count - first < MAP_PART ? pages->count - first : MAP_PART;
        size_t length = count * sizeof(*entries);
        off_t at = (off_t)(((uintptr_t)pages->host / PAGE_SIZE + first) * sizeof(*entries));
        bool known = entries && pread(fd, entries, length, at) == (ssize_t)length;
        for (uint64_t i = 0; i < count; i++)
            if (!known || (entries[i] & present))
                mark(pages, first + i);
        for (uint64_t i = first; i < first + count; i++)
            touched += is_written(pages, i);
    }
    pages->touched = touched;
    free(entries);
    if (fd >= 0)
        close(fd);
}

static int put(struct pages *pages, uint64_t first, uint64_t count, struct err *err)
{
    const struct pages_sink *sink = pages->sink;
    uint8_t *bytes = pages->host + first * PAGE_SIZE;
    if (!sink->copies)
        bytes = memcpy(pages->bounce, bytes, count * PAGE_SIZE);
    int ret = sink->put(sink->ctx, first * PAGE_SIZE, bytes, count * PAGE_SIZE, err);
    pages->sent += count;
    return ret;
}

/* All that is marked from `page` on leaves, and the marks with it. */
static int put_written(struct pages *pages, uint64_t page, const atomic_bool *given_up,
                       struct err *err)
{
    int ret = 0;
    while (page < pages->count && ret == 0) {
        if (page % WORD_PAGES == 0 && !pages->written[page / WORD_PAGES]) {
            page += WORD_PAGES;
            continue;
        }
        uint64_t count = 0;
        while (count < RUN_PAGES && page + count < pages->count &&
               is_written(pages, page + count)) {
            pages->written[(page + count) / WORD_PAGES] &= ~(1ull << (page + count) % WORD_PAGES);
            count++;
        }
        if (count > 0)
            ret = put(pages, page, count, err);
        if (ret == 0 && given_up && *given_up)
            ret = err_sys(err, ERR_FAILED, ECANCELED, "the copy was given up");
        page += count > 0 ? count : 1;
    }
    return ret;
}

static uint64_t room_for(const struct pages *pages, uint64_t last)
{
    uint64_t room = 2 * last, most = pages->count / 8;
    if (most < SMALL_ROOM)
        most = SMALL_ROOM < pages->count ? SMALL_ROOM : pages->count;
    if (room < LEAST_ROOM)
        room = LEAST_ROOM;
    if (room > most)
        room = most;
    return room < MOST_ROOM ? room : MOST_ROOM;
}

/* What a guest does every few seconds finds its room there. */
static void forget_peak(struct pages *pages, uint64_t last)
{
    uint64_t now = clock_monotonic_ns();
    if (last > pages->peak)
        pages->peak = last;
    if (pages->turned_ns == 0)
        pages->turned_ns = now;
    if (now - pages->turned_ns < PAGES_KEEP_S * NS_PER_SEC)
        return;
    pages->peak_before = pages->peak;
    pages->peak = 0;
    pages->turned_ns = now;
    uint64_t room = room_for(pages, pages->peak_before);
    if (room <= pages->room / 2)
        pages->room = room;
}

/* Behind what is in use. Who has much to give back does not hold up the next epoch for it. */
static void give_back(struct pages *pages)
{
    uint64_t more = pages->mapped - pages->room, piece = more < GO_PAGES ? more : GO_PAGES;
    if (piece > 0 &&
        munmap(pages->aside + (pages->mapped - piece) * PAGE_SIZE, piece * PAGE_SIZE) == 0)
        pages->mapped -= piece;
}

/* Touched beforehand: in the pause each page costs its copy and no more. */
static int take_room(struct pages *pages, uint64_t room, struct err *err)
{
    drop_room(pages);
    pages->held_pages = calloc(room, sizeof(*pages->held_pages));
    void *aside = mmap(NULL, room * PAGE_SIZE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (aside == MAP_FAILED || !pages->held_pages)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot keep %llu MiB of guest memory aside",
                       (unsigned long long)(room * PAGE_SIZE >> 20));
    (void)madvise(aside, room * PAGE_SIZE, MADV_DONTDUMP);
    pages->aside = aside;
    pages->room = pages->mapped = room;
    return 0;
}

int pages_make_room(struct pages *pages, uint64_t last, struct err *err)
{
    uint64_t room = room_for(pages, last);
    forget_peak(pages, last);
    if (room > pages->mapped)
        return take_room(pages, room, err);
    if (room > pages->room)
        pages->room = room;
    give_back(pages);
    return 0;
}

static int harvest(struct pages *pages, uint64_t *ret_found, struct err *err)
{
    int ret = dirty_harvest(pages->dirty, pages->written, ret_found);
    return ret < 0 ? err_sys(err, ERR_HOST, -ret, "cannot see which pages were written") : 0;
}

int pages_all(struct pages *pages, struct err *err)
{
    mark_touched(pages);
    return put_written(pages, 0, pages->given_up, err);
}

int pages_round(struct pages *pages, uint64_t *ret_pages, struct err *err)
{
    int ret = harvest(pages, ret_pages, err);
    pages->rounds++;
    return ret < 0 ? ret : put_written(pages, 0, pages->given_up, err);
}

int pages_rounds(struct pages *pages, struct err *err)
{
    uint64_t found = 0, before;
    int ret = pages_all(pages, err);
    do {
        before = found;
        if (ret == 0)
            ret = pages_round(pages, &found, err);
        /* Once it no longer gets less, it will not. */
    } while (ret == 0 && found > FEW_PAGES && pages->rounds < MOST_ROUNDS &&
             (pages->rounds < 3 || found < before - before / 8));
    return ret < 0 ? ret : pages_make_room(pages, found, err);
}

/* --- the pause -------------------------------------------------------------------------------- */

/* How many were listed; *ret_next: the first page that was not looked at. */
static uint64_t list_written(struct pages *pages, uint64_t most, uint64_t *ret_next)
{
    uint64_t listed = 0, word = 0;
    for (; word < pages->words && listed < most; word++) {
        for (uint64_t bits = pages->written[word]; bits && listed < most; bits &= bits - 1) {
            uint64_t page = word * WORD_PAGES + (unsigned)__builtin_ctzll(bits);
            pages->held_pages[listed++] = (uint32_t)page;
            pages->written[word] &= ~(1ull << page % WORD_PAGES);
        }
        if (pages->written[word])
            break;
    }
    *ret_next = word * WORD_PAGES;
    return listed;
}

static void copy_aside(void *arg)
{
    enum { PIECE = 16 };
    struct pages *pages = arg;
    for (uint64_t i; (i = atomic_fetch_add(&pages->copied, PIECE)) < pages->held;)
        for (uint64_t end = i + PIECE < pages->held ? i + PIECE : pages->held; i < end; i++)
            memcpy(pages->aside + i * PAGE_SIZE,
                   pages->host + (uint64_t)pages->held_pages[i] * PAGE_SIZE, PAGE_SIZE);
}

int pages_capture(struct pages *pages, struct err *err)
{
    enum { WORTH_A_THREAD = 200 };
    uint64_t next;
    int ret = harvest(pages, &pages->captured, err);
    if (ret < 0)
        return ret;
    uint64_t most = pages->captured < pages->room ? pages->captured : pages->room;
    pages->held = list_written(pages, most, &next);
    pages->copied = 0;
    if (pages->held < WORTH_A_THREAD)
        copy_aside(pages);
    else
        machine_share_work(pages->machine, copy_aside, pages);
    return pages->held < pages->captured ? put_written(pages, next, NULL, err) : 0;
}

int pages_rest(struct pages *pages, struct err *err)
{
    int ret = 0;
    for (uint64_t i = 0; i < pages->held && ret == 0;) {
        uint64_t run = 1;
        while (run < RUN_PAGES && i + run < pages->held &&
               pages->held_pages[i + run] == pages->held_pages[i] + run)
            run++;
        ret = pages->sink->put(pages->sink->ctx, (uint64_t)pages->held_pages[i] * PAGE_SIZE,
                               pages->aside + i * PAGE_SIZE, run * PAGE_SIZE, err);
        pages->sent += run;
        if (ret == 0 && pages->given_up && *pages->given_up)
            ret = err_sys(err, ERR_FAILED, ECANCELED, "the copy was given up");
        i += run;
    }
    return ret;
}
