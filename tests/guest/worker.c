/* SPDX-License-Identifier: MIT */
/* Expects: in ring 3, writes a word to each of pages=N (256) pages in each of rounds=N (1000; 0:
 * for ever), spinning compute=N (0) steps a round; says "worker N rounds N us N rounds/s" every
 * second and at the end, where every page must hold its count; exits 0. Further options:
 *
 *   random=N        so many pages, those and the next ones, hold random numbers before the first
 *                   round; says "worker: filled"
 *   rate=N          it sleeps after each slice=N pages (all of a round) and writes so many of these
 *                   a second
 *   sleep           no rounds: it sleeps for ever */
#include "guest.h"

#define PAGE  4096ull
#define FIRST (16ull << 20)

enum { RING3_STACK = 16384, GENERAL_PROTECTION = 13, TIMER_VECTOR = 0x51, DIVIDE_BY_1 = 0xb };

static uint64_t pages, rounds, compute, random, rate, slice;
static uint64_t next_slice; /* TSC */
static uint32_t apic_khz;
static uint8_t user_stack[RING3_STACK] __attribute__((aligned(16)));

static volatile uint64_t *word_of(uint64_t page)
{
    return (volatile uint64_t *)(FIRST + page * PAGE);
}

/* xorshift64: no page is like another one, nor shorter when it is compressed. */
static void fill(void)
{
    uint64_t x = 88172645463325252;
    for (uint64_t *at = (uint64_t *)FIRST; at < (uint64_t *)(FIRST + random * PAGE); at++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        *at = x;
    }
    print("worker: filled\n");
}

/* Ring 3 may not halt, and comes here when it does. */
static void handle_halt(struct frame *frame)
{
    uint64_t now = rdtsc();
    if (!rate)
        cpu_halt();
    if (next_slice > now) {
        apic_write(APIC_TIMER_INITIAL, (uint32_t)((next_slice - now) * apic_khz / tsc_khz()));
        wait_for_interrupt();
    }
    /* What a pause has kept it from is not made up for. */
    next_slice = (next_slice > now ? next_slice : now) + tsc_khz() * 1000 / rate;
    frame->rip++;
}

static void handle_timer(struct frame *frame)
{
    apic_eoi();
}

static void sleep(void)
{
    __asm__ volatile("hlt" : : : "memory");
}

static void one_round(uint64_t round)
{
    for (uint64_t page = 0; page < pages; page++) {
        *word_of(page) = round;
        if (rate && (page + 1) % slice == 0)
            sleep();
    }
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
    if (random)
        fill();
    if (has_option("sleep"))
        sleep();
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
    random = option("random", 0);
    rate = option("rate", 0);
    slice = option("slice", pages);
    uint64_t room = pages_at_first();
    check(pages <= room && random <= room, "there is room for %lu pages only", room);
    (void)tsc_khz(); /* asked for here, because CPUID is slow and ring 3 need not be allowed it */
    on_interrupt(GENERAL_PROTECTION, handle_halt);
    if (rate) {
        apic_khz = cpuid(0x40000010).b;
        apic_enable(false);
        on_interrupt(TIMER_VECTOR, handle_timer);
        apic_write(APIC_TIMER_DIVIDE, DIVIDE_BY_1);
        apic_write(APIC_LVT_TIMER, TIMER_VECTOR);
    }
    enter_ring3(ring3_main, user_stack + RING3_STACK);
}
