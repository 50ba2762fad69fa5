/* SPDX-License-Identifier: MIT */
#include "core/memory.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#define HUGE_PAGE   (2ull << 20)
#define SMALL_PAGES (16ull << 20) /* Linux loads above it */

/* Each stretch of a file's mapping that is replaced may cost two mappings, and a process has 65530
 * of them, of which others want some too. */
enum { MOST_PATCHES = 16384 };

struct memory {
    uint8_t *host; /* all of it, at a multiple of HUGE_PAGE */
    uint64_t size;
    struct memory_range ranges[MEMORY_MAX_RANGES];
    unsigned range_count;
    bool is_file;             /* memory_map_file */
    _Atomic unsigned patches; /* stretches of it that were discarded since */

    /* One bit a page, in the order of the mapping. Mapped on first use, so RAM that is never logged
     * costs no bitmap; kept afterwards, because a writer may be about to set a bit. */
    _Atomic bool logging;
    _Atomic(uint64_t) *log;
};

static size_t log_bytes(const struct memory *memory)
{
    uint64_t pages = memory->size / PAGE_SIZE;
    return (pages + 63) / 64 * sizeof(uint64_t);
}

/*
 * Huge pages need the guest's address and ours to be aligned alike, which mmap alone does not
 * promise: so one huge page more is mapped, and what sticks out at both ends goes back.
 */
static void *map_aligned(uint64_t size)
{
    uint8_t *all = mmap(NULL, size + HUGE_PAGE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (all == MAP_FAILED)
        return MAP_FAILED;
    uint64_t before = -(uintptr_t)all % HUGE_PAGE;
    if (before)
        munmap(all, before);
    munmap(all + before + size, HUGE_PAGE - before);
    return all + before;
}

int memory_create(struct memory **ret_memory, uint64_t size, uint64_t below, gpa_t above,
                  struct err *err)
{
    assert(size > 0 && size % PAGE_SIZE == 0 && below % PAGE_SIZE == 0 && above % PAGE_SIZE == 0);
    struct memory *memory = calloc(1, sizeof(*memory));
    if (!memory)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot create guest memory");
    memory->size = size;
    memory->host = map_aligned(size);
    if (memory->host == MAP_FAILED) {
        int ret = err_sys(err, ERR_HOST, errno, "cannot map %llu MiB of guest memory",
                          (unsigned long long)(size >> 20));
        memory_destroy(memory);
        return ret;
    }
    /*
     * Asked for, not needed: the host decides, and the guest runs either way. Not for the lowest
     * part, of which firmware and boot loaders touch a few pages here and there: to clear a whole
     * huge page for each of them was a tenth of the start-up time.
     */
    if (size > SMALL_PAGES)
        (void)madvise(memory->host + SMALL_PAGES, size - SMALL_PAGES, MADV_HUGEPAGE);
    /* A core dump of the VMM must not carry the guest's secrets, nor its size. */
    (void)madvise(memory->host, size, MADV_DONTDUMP);

    uint64_t low = size < below ? size : below;
    memory->ranges[memory->range_count++] = (struct memory_range){
        .base = 0, .size = low, .offset = 0, .host = memory->host};
    if (size > low)
        memory->ranges[memory->range_count++] = (struct memory_range){
            .base = above, .size = size - low, .offset = low, .host = memory->host + low};
    *ret_memory = memory;
    return 0;
}

void memory_destroy(struct memory *memory)
{
    if (!memory)
        return;
    if (memory->log)
        munmap((void *)memory->log, log_bytes(memory));
    if (memory->host != MAP_FAILED)
        munmap(memory->host, memory->size);
    free(memory);
}

int memory_map_file(struct memory *memory, int fd, struct err *err)
{
    /* In the place where KVM looks for it. */
    void *at = mmap(memory->host, memory->size, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd, 0);
    if (at == MAP_FAILED)
        return err_sys(err, ERR_HOST, errno, "cannot map the file of guest memory");
    (void)madvise(memory->host, memory->size, MADV_DONTDUMP);
    memory->is_file = true;
    return 0;
}

uint64_t memory_size(const struct memory *memory)
{
    return memory->size;
}

bool memory_is_file(const struct memory *memory)
{
    return memory->is_file;
}

unsigned memory_ranges(const struct memory *memory, const struct memory_range **ret_ranges)
{
    *ret_ranges = memory->ranges;
    return memory->range_count;
}

/* The range that holds all of [gpa, gpa + length), or NULL. An empty range must still lie in RAM.
 */
static const struct memory_range *find(const struct memory *memory, gpa_t gpa, size_t length)
{
    for (unsigned i = 0; i < memory->range_count; i++) {
        const struct memory_range *range = &memory->ranges[i];
        if (gpa >= range->base && gpa - range->base < range->size &&
            length <= range->size - (gpa - range->base))
            return range;
    }
    return NULL;
}

int memory_borrow(const struct memory *memory, gpa_t gpa, size_t length, void **ret_pointer)
{
    const struct memory_range *range = find(memory, gpa, length);
    if (!range)
        return -EFAULT;
    *ret_pointer = range->host + (gpa - range->base);
    return 0;
}

int memory_read(const struct memory *memory, gpa_t gpa, void *to, size_t length)
{
    void *from;
    int ret = memory_borrow(memory, gpa, length, &from);
    if (ret == 0)
        memcpy(to, from, length);
    return ret;
}

int memory_write(struct memory *memory, gpa_t gpa, const void *from, size_t length)
{
    void *to;
    int ret = memory_borrow(memory, gpa, length, &to);
    if (ret == 0) {
        memcpy(to, from, length);
        memory_written(memory, gpa, length);
    }
    return ret;
}

int memory_fill(struct memory *memory, gpa_t gpa, uint8_t byte, size_t length)
{
    void *to;
    int ret = memory_borrow(memory, gpa, length, &to);
    if (ret == 0) {
        memset(to, byte, length);
        memory_written(memory, gpa, length);
    }
    return ret;
}

void memory_written(struct memory *memory, gpa_t gpa, size_t length)
{
    if (length == 0 || !atomic_load_explicit(&memory->logging, memory_order_acquire))
        return;
    const struct memory_range *range = find(memory, gpa, length);
    assert(range);
    memory_written_at(memory, range->host + (gpa - range->base), length);
}

void memory_written_at(struct memory *memory, const void *pointer, size_t length)
{
    if (length == 0 || !atomic_load_explicit(&memory->logging, memory_order_acquire))
        return;
    uint64_t offset = (uint64_t)((const uint8_t *)pointer - memory->host);
    assert(offset < memory->size && length <= memory->size - offset);
    for (uint64_t page = offset / PAGE_SIZE; page <= (offset + length - 1) / PAGE_SIZE; page++)
        /* release: whoever harvests the mark also sees the bytes it stands for */
        atomic_fetch_or_explicit(&memory->log[page / 64], 1ull << (page % 64),
                                 memory_order_release);
}

/*
 * Where a file lies below, giving pages back would show what the file holds: memory of its own is
 * put in its place. When that has been done too often, the pages are cleared, and kept.
 */
static int give_back(struct memory *memory, void *pointer, uint64_t length)
{
    if (!memory->is_file) {
        if (madvise(pointer, length, MADV_DONTNEED) == 0)
            return 0;
        if (errno != EINVAL) /* which locked memory is told */
            return -errno;
        if (madvise(pointer, length, MADV_DONTNEED_LOCKED) < 0)
            memset(pointer, 0, length);
        return 0;
    }
    if (atomic_fetch_add(&memory->patches, 1) < MOST_PATCHES &&
        mmap(pointer, length, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) != MAP_FAILED) {
        (void)madvise(pointer, length, MADV_DONTDUMP);
        return 0;
    }
    memset(pointer, 0, length);
    return 0;
}

int memory_discard(struct memory *memory, gpa_t gpa, uint64_t length)
{
    void *pointer;
    if (gpa % PAGE_SIZE != 0 || length % PAGE_SIZE != 0 || length == 0)
        return -EINVAL;
    int ret = memory_borrow(memory, gpa, length, &pointer);
    if (ret < 0)
        return ret;
    ret = give_back(memory, pointer, length);
    if (ret == 0)
        memory_written_at(memory, pointer, length);
    return ret;
}

/* --- in RAM ----------------------------------------------------------------------------------- */

static void raise_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) < 0)
        return;
    const struct rlimit all = {.rlim_cur = RLIM_INFINITY, .rlim_max = RLIM_INFINITY};
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_MEMLOCK, &all) < 0)
        (void)setrlimit(RLIMIT_MEMLOCK, &limit);
}

int memory_lock(struct memory *memory)
{
    if (mlock2(memory->host, memory->size, MLOCK_ONFAULT) == 0)
        return 0;
    raise_limit();
    return mlock2(memory->host, memory->size, MLOCK_ONFAULT) < 0 ? -errno : 0;
}

/* The guest's page faults wait for each of these calls. */
void memory_unlock(struct memory *memory)
{
    enum { STEP = 64 << 20 };
    for (uint64_t at = 0; at < memory->size; at += STEP)
        (void)munlock(memory->host + at, memory->size - at < STEP ? memory->size - at : STEP);
}

void memory_bring_in(struct memory *memory, const uint64_t *pages)
{
    uint64_t count = memory->size / PAGE_SIZE, first = 0;
    while (first < count) {
        if (!(pages[first / 64] >> first % 64 & 1)) {
            first++;
            continue;
        }
        uint64_t end = first;
        while (end < count && pages[end / 64] >> end % 64 & 1)
            end++;
        (void)madvise(memory->host + first * PAGE_SIZE, (end - first) * PAGE_SIZE,
                      MADV_POPULATE_WRITE);
        first = end;
    }
}

int memory_log_start(struct memory *memory)
{
    if (!memory->log) {
        void *log = mmap(NULL, log_bytes(memory), PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (log == MAP_FAILED)
            return -errno;
        memory->log = log;
    } else {
        /* Gives the pages back and makes them read as zero. */
        if (madvise((void *)memory->log, log_bytes(memory), MADV_DONTNEED) < 0)
            return -errno;
    }
    atomic_store_explicit(&memory->logging, true, memory_order_release);
    return 0;
}

void memory_log_stop(struct memory *memory)
{
    atomic_store(&memory->logging, false);
}

void memory_log_harvest(struct memory *memory, uint64_t first_word, uint64_t words, uint64_t *into)
{
    if (!memory->log)
        return;
    assert((first_word + words) * sizeof(uint64_t) <= log_bytes(memory));
    for (uint64_t i = 0; i < words; i++) {
        _Atomic(uint64_t) *word = &memory->log[first_word + i];
        /* Look before the exchange: a read keeps untouched pages of the bitmap unmapped. */
        if (atomic_load_explicit(word, memory_order_relaxed))
            into[i] |= atomic_exchange_explicit(word, 0, memory_order_acquire);
    }
}
