/* SPDX-License-Identifier: MIT */
/* Expects: in ring 3, writes a word to each of pages=N (256) pages in each of rounds=N (1000; 0:
 * for ever), spinning compute=N (0) steps a round; says "worker N rounds N us N rounds/s" every
 * second and at the end, where every page must hold its count; exits 0. */
#include "guest.h"

#define PAGE  4096ull
#define FIRST (16ull << 20)

enum { RING3_STACK = 16384 };

static uint64_t pages, rounds, compute;
static uint8_t user_stack[RING3_STACK] __attribute__((aligned(16)));

static volatile uint64_t *word_of(uint64_t page)
{
    return (volatile uint64_t *)(FIRST + page * PAGE);
}

static void one_round(uint64_t round)
{
    for (uint64_t page = 0; page < pages; page++)
        *word_of(page) = round;
    uint64_t steps = compute;
    if (steps)
        __asm__ volatile("1: dec %0\n jnz 1b" : "+r"(steps) : : "cc");
}

static void report(uint64_t done, uint64_t start)
{
    uint64_t us = (rdtsc() - start) * 1000 / tsc_khz();
    print("worker %lu rounds %lu us %lu rounds/s\n", done, us, done * 1000000 / (us ? us : 1));
}

static void ring3_main(void)
{
    uint64_t start = rdtsc(), next = start + tsc_khz() * 1000;
    for (uint64_t round = 1; rounds == 0 || round <= rounds; round++) {
        one_round(round);
        if (rdtsc() >= next) {
            report(round, start);
            next += tsc_khz() * 1000;
        }
    }
    report(rounds, start);
    for (uint64_t page = 0; page < pages; page++)
        check(*word_of(page) == rounds, "page %lu holds %lu", page, *word_of(page));
    quit(0);
}

static uint64_t pages_at_first(void)
{
    struct map_entry entry;
    for (unsigned at = 0; memory_map(&at, &entry);)
        if (entry.type == 1 && entry.base <= FIRST && entry.base + entry.size > FIRST)
            return (entry.base + entry.size - FIRST) / PAGE;
    return 0;
}

void guest_main(void)
{
    pages = option("pages", 256);
    rounds = option("rounds", 1000);
    compute = option("compute", 0);
    check(pages <= pages_at_first(), "there is room for %lu pages only", pages_at_first());
    (void)tsc_khz(); /* asked for here, because CPUID is slow and ring 3 need not be allowed it */
    enter_ring3(ring3_main, user_stack + RING3_STACK);
}
