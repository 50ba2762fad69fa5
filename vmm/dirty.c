/* SPDX-License-Identifier: MIT */
#include "vmm/dirty.h"

#include "vmm/kvm.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct dirty {
    int vm;
    struct memory *memory;
    bool started;
    uint64_t words;
    uint64_t *scratch; /* one slot's log as KVM gives it, then the door's marks */
};

int dirty_prepare(int vm, struct err *err)
{
    int ret = kvm_vm_enable_cap(vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
                                KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE);
    if (ret < 0)
        return err_sys(err, ERR_HOST, -ret, "cannot switch KVM's dirty log to manual protection");
    return 0;
}

int dirty_create(struct dirty **ret_dirty, int vm, struct memory *memory, struct err *err)
{
    struct dirty *dirty = calloc(1, sizeof(*dirty));
    if (dirty) {
        dirty->vm = vm;
        dirty->memory = memory;
        dirty->words = (memory_size(memory) / PAGE_SIZE + 63) / 64;
        dirty->scratch = calloc(dirty->words, sizeof(uint64_t));
    }
    if (!dirty || !dirty->scratch) {
        free(dirty);
        return err_sys(err, ERR_HOST, ENOMEM, "cannot track written pages");
    }
    *ret_dirty = dirty;
    return 0;
}

void dirty_destroy(struct dirty *dirty)
{
    if (!dirty)
        return;
    dirty_stop(dirty);
    free(dirty->scratch);
    free(dirty);
}

/* Slot flags can be changed without moving the slot: everything else stays as it is. */
static int set_logging(struct dirty *dirty, uint32_t flags)
{
    const struct memory_range *ranges;
    unsigned count = memory_ranges(dirty->memory, &ranges);
    for (unsigned slot = 0; slot < count; slot++) {
        int ret = kvm_vm_set_memory(dirty->vm, slot, flags, &ranges[slot]);
        if (ret < 0)
            return ret;
    }
    return 0;
}

int dirty_start(struct dirty *dirty, struct err *err)
{
    int ret = memory_log_start(dirty->memory);
    if (ret == 0)
        ret = set_logging(dirty, KVM_MEM_LOG_DIRTY_PAGES);
    dirty->started = true;
    if (ret < 0) {
        dirty_stop(dirty);
        return err_sys(err, ERR_HOST, -ret, "cannot start to track written pages");
    }
    return 0;
}

void dirty_stop(struct dirty *dirty)
{
    if (!dirty->started)
        return;
    dirty->started = false;
    memory_log_stop(dirty->memory);
    /* Switching off what was on cannot fail but for a VM that is dead, and then nothing is logged.
     */
    int ret = set_logging(dirty, 0);
    (void)ret;
}

uint64_t dirty_words(const struct dirty *dirty)
{
    return dirty->words;
}

/* KVM clears exactly the bits that it gave us: a write in between keeps its mark. */
static int take_slot(struct dirty *dirty, uint32_t slot, const struct memory_range *range)
{
    uint64_t pages = range->size / PAGE_SIZE;
    int ret = kvm_vm_get_dirty_log(dirty->vm, slot, dirty->scratch);
    for (uint64_t first = 0; ret == 0 && first < pages;) {
        /* num_pages is 32 bits wide, and a step must be a multiple of 64. */
        uint64_t left = pages - first;
        uint32_t step = left > (1u << 30) ? 1u << 30 : (uint32_t)left;
        ret = kvm_vm_clear_dirty_log(dirty->vm, slot, first, step, dirty->scratch + first / 64);
        first += step;
    }
    return ret;
}

/* Most words are empty, and an epoch goes through all of them while the guest stands still: what is
 * empty goes by in strides. */
static uint64_t merge(uint64_t *into, const uint64_t *from, uint64_t words)
{
    enum { STRIDE = 8 };
    uint64_t pages = 0;
    for (uint64_t i = 0; i < words; i += STRIDE) {
        uint64_t any = 0, end = words - i < STRIDE ? words : i + STRIDE;
        for (uint64_t k = i; k < end; k++)
            any |= into[k] | from[k];
        if (!any)
            continue;
        for (uint64_t k = i; k < end; k++) {
            into[k] |= from[k];
            pages += (unsigned)__builtin_popcountll(into[k]);
        }
    }
    return pages;
}

int dirty_harvest(struct dirty *dirty, uint64_t *bitmap, uint64_t *ret_pages)
{
    const struct memory_range *ranges;
    unsigned count = memory_ranges(dirty->memory, &ranges);
    uint64_t pages = 0;
    memory_log_harvest(dirty->memory, 0, dirty->words, bitmap);
    for (unsigned slot = 0; slot < count; slot++) {
        int ret = take_slot(dirty, slot, &ranges[slot]);
        if (ret < 0)
            return ret;
        /* Ranges begin at multiples of 64 pages in the file: the hole's border is at 3 GiB. */
        assert(ranges[slot].offset % (64 * PAGE_SIZE) == 0);
        pages += merge(bitmap + ranges[slot].offset / PAGE_SIZE / 64, dirty->scratch,
                       (ranges[slot].size / PAGE_SIZE + 63) / 64);
    }
    *ret_pages = pages;
    return 0;
}
