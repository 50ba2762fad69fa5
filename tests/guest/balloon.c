/* SPDX-License-Identifier: MIT */
/* Expects: a balloon, whose target it follows, with pages=N (4096) of memory. What it has of these
 * it checks, writes anew and checks again for ever, rate=N (2000) pages a second; pages that come
 * back are reported as free before they are used. Says "balloon: N given" when the balloon is as
 * large as it shall be, "balloon: WRONG: ..." when a page is not as it was written, "round N" when
 * it has been through all. */
#include "virtio.h"

extern uint8_t guest_end[];

enum { INFLATE = 0, DEFLATE = 1, REPORTING = 4 };
enum { TIMER_VECTOR = 0x51, GENERAL_PROTECTION = 13, DIVIDE_BY_1 = 0xb };
enum { PAGE = 4096, BATCH = 256, TURNS_PER_SECOND = 100, MOST_PAGES = 65536, RING3_STACK = 16384 };

#define REPORTS (1ull << 5)

static struct queue queues[REPORTING + 1];
static struct virtio device;
static uint64_t pages, each, rounds;
static uint32_t given; /* the last ones of the pages */
static uint32_t apic_khz;
static uint32_t written[MOST_PAGES]; /* how often */
static uint32_t numbers[BATCH];
static uint8_t *memory;
static uint8_t user_stack[RING3_STACK] __attribute__((aligned(16)));

/* Ring 3 may not halt, and comes here when it does. */
static void handle_halt(struct frame *frame)
{
    check(*(const uint8_t *)frame->rip == 0xf4, "a fault at %lx", frame->rip);
    frame->rip++;
    apic_write(APIC_TIMER_INITIAL, apic_khz * 1000 / TURNS_PER_SECOND);
    wait_for_interrupt();
}

static void handle_timer(struct frame *frame)
{
    apic_eoi();
}

/* --- its memory ------------------------------------------------------------------------------- */

static uint64_t word_of(uint64_t page)
{
    return page << 32 | written[page];
}

static void write_page(uint64_t page)
{
    uint64_t *words = (uint64_t *)(memory + page * PAGE);
    written[page]++;
    for (unsigned i = 0; i < PAGE / 8; i++)
        words[i] = word_of(page) + i;
}

static void visit_page(uint64_t page)
{
    const uint64_t *words = (const uint64_t *)(memory + page * PAGE);
    for (unsigned i = 0; i < PAGE / 8; i++)
        if (words[i] != word_of(page) + i) {
            print("balloon: WRONG: page %lu, word %u: %lx, expected %lx\n", page, i, words[i],
                  word_of(page) + i);
            quit(1);
        }
    write_page(page);
}

static void visit_pages(void)
{
    static uint64_t page;
    for (uint64_t i = 0; i < each && given < pages; i++, page++) {
        if (page >= pages - given) {
            page = 0;
            print("round %lu\n", ++rounds);
        }
        visit_page(page);
    }
}

/* --- the balloon ------------------------------------------------------------------------------ */

static void send(unsigned number, const struct descriptor *part)
{
    queues[number].descriptors[0] = *part;
    queue_offer(&queues[number], 0);
    queue_ring(&queues[number]);
    queue_wait(&queues[number], NULL);
}

static void send_numbers(unsigned queue, uint64_t first, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        numbers[i] = (uint32_t)((uint64_t)memory / PAGE + first + i);
    send(queue, &(struct descriptor){(uint64_t)numbers, count * 4, 0, 0});
}

static void take_back(uint32_t count)
{
    uint64_t first = pages - given;
    send_numbers(DEFLATE, first, count);
    for (uint64_t page = first; page < first + count; page++)
        write_page(page);
    uint64_t address = (uint64_t)memory + first * PAGE;
    send(REPORTING, &(struct descriptor){address, count * PAGE, WRITE, 0});
    given -= count;
    for (uint64_t page = first; page < first + count; page++)
        write_page(page);
}

static void give(uint32_t count)
{
    send_numbers(INFLATE, pages - given - count, count);
    given += count;
}

static uint32_t at_most(uint64_t count)
{
    return count < BATCH ? (uint32_t)count : BATCH;
}

static void follow_target(void)
{
    volatile uint32_t *config = (volatile uint32_t *)device.device;
    uint32_t target = config[0] < pages ? config[0] : (uint32_t)pages;
    if (given == target)
        return;
    if (given < target)
        give(at_most(target - given));
    else
        take_back(at_most(given - target));
    config[1] = given;
    if (given == target)
        print("balloon: %u given\n", given);
}

static void ring3_main(void)
{
    for (uint64_t page = 0; page < pages; page++)
        write_page(page);
    print("balloon: ready\n");
    for (;;) {
        follow_target();
        visit_pages();
        __asm__ volatile("hlt" : : : "memory");
    }
}

void guest_main(void)
{
    pages = option("pages", 4096);
    each = option("rate", 2000) / TURNS_PER_SECOND;
    apic_khz = cpuid(0x40000010).b;
    check(apic_khz, "CPUID does not tell the frequency of the APIC timer");
    check(pages <= MOST_PAGES, "pages=%lu", pages);
    memory = (uint8_t *)(((uint64_t)guest_end + PAGE - 1) / PAGE * PAGE);
    apic_enable(false);
    on_interrupt(GENERAL_PROTECTION, handle_halt);
    on_interrupt(TIMER_VECTOR, handle_timer);
    apic_write(APIC_TIMER_DIVIDE, DIVIDE_BY_1);
    apic_write(APIC_LVT_TIMER, TIMER_VECTOR);
    check(virtio_find(VIRTIO_BALLOON, &device), "no balloon");
    check(virtio_start(&device, VIRTIO_F_VERSION_1 | REPORTS) & REPORTS, "no reporting");
    virtio_add_queue(&device, INFLATE, &queues[INFLATE]);
    virtio_add_queue(&device, DEFLATE, &queues[DEFLATE]);
    virtio_add_queue(&device, REPORTING, &queues[REPORTING]);
    virtio_ready(&device);
    enter_ring3(ring3_main, user_stack + RING3_STACK);
}
