/* SPDX-License-Identifier: MIT */
/* Expects: whatever happens to the machine (pauses, saves and loads, snapshots, hops), nothing is
 * lost, comes twice, or goes back in time. On one processor or two, and a disk of which it takes
 * possession. Says "steady: N", the number of rounds; exits 0 after rounds=N, or goes on for ever;
 * exits 2 after "steady: WRONG: what, where, expected, found". A round is done when each processor
 * has been through its memory, had a tick of its timer and an answer of the other one, and a batch
 * of requests has come back from the disk. Further options:
 *
 *   pages=N         of memory for each processor (256)
 *   jump=MS         no clock may go forward by more at once (0: by anything)
 *   patience=MS     of the guest's time that anything may let us wait (30000)
 *   slack=US        that the processors' clocks may be apart (100) */
#include "virtio.h"

extern uint8_t guest_end[];

#define PAGE_NAME   0x7374656164790000 /* of processor and page, in a page's first word */
#define SECTOR_NAME 0x6469736b00000000

enum { RING3_STACK = 16384, MOST_CPUS = 2, EXIT_WRONG = 2 };
enum { PAGE = 4096, PAGES_A_TURN = 4, STEP = 1000003 /* a prime */ };
enum { DISK_VECTOR = 0x41, TICK_VECTOR = 0x51, CALL_VECTOR = 0x61, ANSWER_VECTOR = 0x62 };
enum { TICK_US = 5000, LVT_TSC_DEADLINE = 2 << 17, DIVIDE_BY_1 = 0xb, MSR_TSC_DEADLINE = 0x6e0 };
enum { KVM_CLOCK2 = 1 << 3, MSR_KVM_CLOCK2 = 0x4b564d01 };
enum { PM_HZ = 3579545, PM_EACH = 64 /* turns: a look costs an exit */ };
enum { TURN_MS = 10 /* the most that counts as waiting */, SAY_MS = 100 };

/* What KVM writes (KVM's documentation, msr.rst). */
struct kvm_clock {
    uint32_t version, padding;
    uint64_t tsc, ns;
    uint32_t multiplier;
    int8_t shift;
    uint8_t flags, more[2];
} __attribute__((aligned(32)));

/* Counts that a round wants to see go on, all of processor 0 but `visits`. */
struct marks {
    uint64_t visits[MOST_CPUS];
    unsigned ticks[MOST_CPUS], answers[MOST_CPUS], batches;
};

struct cpu {
    volatile uint64_t turn;
    uint32_t apic_id;
    bool by_deadline; /* its timer */

    /* By its interrupt handlers. */
    volatile unsigned ticks, early_ticks, calls_heard, answers;
    uint64_t armed; /* TSC when the timer was set */

    uint64_t *pages, *sequences;
    volatile uint64_t visits; /* of pages */

    uint64_t tsc, ns;
    uint64_t waited; /* TSC without its jumps: a load may bring one, and nobody waited then */
    volatile struct kvm_clock clock;

    unsigned ticks_seen, calls, called_at_tick;
    uint64_t other_turn;
    uint64_t tick_at, call_at, other_at; /* by `waited` */
} __attribute__((aligned(4096)));

static struct cpu cpus[MOST_CPUS];
static unsigned cpu_count;
static uint64_t pages, rounds, jump, patience, slack; /* the last three in ticks of the TSC */
static uint32_t apic_khz;
static uint16_t pm_port;
static bool has_kvm_clock;
static volatile uint64_t latest_tsc, latest_ns;
static bool console_taken;
static uint8_t user_stacks[MOST_CPUS][RING3_STACK] __attribute__((aligned(16)));

static struct cpu *other_than(const struct cpu *me)
{
    return &cpus[cpu_count - 1 - (unsigned)(me - cpus)]; /* itself, where it is alone */
}

static void take_console(void)
{
    while (__atomic_exchange_n(&console_taken, true, __ATOMIC_ACQUIRE))
        __asm__ volatile("pause");
}

static _Noreturn void wrong(const struct cpu *me, const char *what, uint64_t where,
                            uint64_t expected, uint64_t found)
{
    take_console();
    print("steady: WRONG: %s %lu, CPU %u, expected %lu, found %lu\n", what, where,
          (unsigned)(me - cpus), expected, found);
    quit(EXIT_WRONG);
}

static bool is_overdue(const struct cpu *me, uint64_t since)
{
    return me->waited - since > patience;
}

/* --- words that are known by their name and sequence -------------------------------------- */

static uint64_t first_word(uint64_t name, uint64_t sequence)
{
    uint64_t word = (name ^ sequence << 17) * 0x9e3779b97f4a7c15;
    return word ^ word >> 29 ^ sequence;
}

static uint64_t next_word(uint64_t word)
{
    return word * 0xd1342543de82ef95 + 1;
}

static void write_words(uint64_t *words, unsigned count, uint64_t name, uint64_t sequence)
{
    uint64_t word = first_word(name, sequence);
    words[0] = name;
    words[1] = sequence;
    for (unsigned i = 2; i < count; i++, word = next_word(word))
        words[i] = word;
}

struct kind {
    const char *name, *sequence, *content;
};

static void check_words(const struct cpu *me, const struct kind *kind, uint64_t where,
                        const uint64_t *words, unsigned count, uint64_t name, uint64_t sequence)
{
    uint64_t word = first_word(name, sequence);
    if (words[0] != name)
        wrong(me, kind->name, where, name, words[0]);
    if (words[1] != sequence)
        wrong(me, kind->sequence, where, sequence, words[1]);
    for (unsigned i = 2; i < count; i++, word = next_word(word))
        if (words[i] != word)
            wrong(me, kind->content, where, word, words[i]);
}

/* --- memory ------------------------------------------------------------------------------- */

static uint64_t page_name(const struct cpu *me, uint64_t page)
{
    return PAGE_NAME + ((uint64_t)(me - cpus) << 48) + page;
}

/* As many visits later each page has been visited once more. */
static uint64_t scatter(uint64_t number, uint64_t count)
{
    return number % count * STEP % count;
}

/*
 * Three know what a page holds: itself, the table, and the number of visits. The last lies far from
 * the others, so that none can go back in time unnoticed.
 */
static void visit_page(struct cpu *me)
{
    static const struct kind kind = {"name of page", "sequence of page", "content of page"};
    uint64_t page = scatter(me->visits, pages), sequence = me->visits / pages;
    uint64_t *words = me->pages + page * (PAGE / 8);
    if (me->sequences[page] != sequence)
        wrong(me, "table of sequences, page", page, sequence, me->sequences[page]);
    check_words(me, &kind, page, words, PAGE / 8, page_name(me, page), sequence);
    write_words(words, PAGE / 8, page_name(me, page), sequence + 1);
    me->sequences[page] = sequence + 1;
    me->visits++;
}

static void prepare_pages(struct cpu *me)
{
    for (uint64_t page = 0; page < pages; page++) {
        write_words(me->pages + page * (PAGE / 8), PAGE / 8, page_name(me, page), 0);
        me->sequences[page] = 0;
    }
}

/* --- clocks ------------------------------------------------------------------------------- */

static uint64_t read_tsc(void)
{
    __asm__ volatile("lfence" : : : "memory");
    return rdtsc();
}

static uint64_t read_kvm_clock(const volatile struct kvm_clock *clock)
{
    for (;;) {
        uint32_t version = clock->version;
        uint64_t ticks = read_tsc() - clock->tsc;
        ticks = clock->shift < 0 ? ticks >> -clock->shift : ticks << clock->shift;
        uint64_t ns = clock->ns + (uint64_t)((unsigned __int128)ticks * clock->multiplier >> 32);
        __asm__ volatile("lfence" : : : "memory");
        if (clock->version == version && version % 2 == 0)
            return ns;
    }
}

/* `latest` was read before `now` was, and `most_apart` and `most_ahead` have the clock's unit. */
static void check_clock(const struct cpu *me, const char *what, uint64_t before, uint64_t latest,
                        uint64_t now, uint64_t most_apart, uint64_t most_ahead)
{
    if (now < before)
        wrong(me, what, before, before, now);
    if (now + most_apart < latest)
        wrong(me, "behind the other CPU's clock by ticks,", latest - now, latest, now);
    if (jump && before && now - before > most_ahead)
        wrong(me, "a clock's jump by ticks,", now - before, before, now);
}

static uint64_t to_ns(uint64_t ticks)
{
    return ticks * 1000 / tsc_khz() * 1000;
}

static void look_at_clocks(struct cpu *me)
{
    uint64_t latest = latest_tsc, now = read_tsc();
    check_clock(me, "TSC after", me->tsc, latest, now, slack, jump);
    uint64_t step = now - me->tsc, most = tsc_khz() * TURN_MS;
    me->waited += step < most ? step : most;
    me->tsc = now;
    if (now > latest_tsc)
        latest_tsc = now;
    if (!has_kvm_clock)
        return;
    latest = latest_ns;
    now = read_kvm_clock(&me->clock);
    check_clock(me, "kvmclock after", me->ns, latest, now, to_ns(slack), to_ns(jump));
    me->ns = now;
    if (now > latest_ns)
        latest_ns = now;
}

/* It goes round every 20 minutes: a pause that long says nothing. */
static void look_at_pm_timer(const struct cpu *me)
{
    static uint32_t last;
    static uint64_t last_tsc;
    uint32_t now = in32(pm_port), step = now - last;
    if (last_tsc && me->tsc - last_tsc < tsc_khz() * 300000) {
        if (step >= 1u << 31)
            wrong(me, "PM timer after", last, last, now);
        if (jump && (uint64_t)step * tsc_khz() / PM_HZ * 1000 > jump)
            wrong(me, "PM timer's jump by", step, last, now);
    }
    last = now;
    last_tsc = me->tsc;
}

/* --- interrupts --------------------------------------------------------------------------- */

/* Processor 0 by the APIC's counter, the other by the TSC: guests use both. Each tick asks for the
 * next one, so a single lost one is the last. */
static void set_timer(struct cpu *me)
{
    me->armed = rdtsc();
    if (me->by_deadline)
        wrmsr(MSR_TSC_DEADLINE, me->armed + tsc_khz() * TICK_US / 1000);
    else
        apic_write(APIC_TIMER_INITIAL, (uint32_t)((uint64_t)apic_khz * TICK_US / 1000));
}

/*
 * Early is what comes twice. Of the APIC's counter that is no fault: KVM does not know of one that
 * has run out whether its interrupt was taken, and lets it run out again after a load.
 */
static void handle_tick(struct frame *frame)
{
    struct cpu *me = &cpus[cpu_number()];
    if (me->by_deadline && rdtsc() - me->armed < tsc_khz() * TICK_US / 2000)
        me->early_ticks++;
    me->ticks++;
    apic_eoi();
    set_timer(me);
}

static void handle_call(struct frame *frame)
{
    struct cpu *me = &cpus[cpu_number()];
    me->calls_heard++;
    apic_send(other_than(me)->apic_id, ANSWER_VECTOR);
    apic_eoi();
}

static void handle_answer(struct frame *frame)
{
    cpus[cpu_number()].answers++;
    apic_eoi();
}

static void look_at_ticks(struct cpu *me)
{
    if (me->early_ticks)
        wrong(me, "early ticks, at tick", me->ticks, 0, me->early_ticks);
    if (me->ticks != me->ticks_seen) {
        me->ticks_seen = me->ticks;
        me->tick_at = me->waited;
    } else if (is_overdue(me, me->tick_at)) {
        wrong(me, "no tick after tick", me->ticks, me->ticks + 1, me->ticks);
    }
}

/*
 * One call after each tick. A handler may get in between the two writes that send ours: it sends
 * to the same processor, for there is only one other.
 */
static void exchange_calls(struct cpu *me)
{
    const struct cpu *other = other_than(me);
    unsigned answers = me->answers, ticks = me->ticks_seen;
    if (answers > me->calls)
        wrong(me, "answers to call", me->calls, me->calls, answers);
    if (answers < me->calls) {
        if (is_overdue(me, me->call_at))
            wrong(me, other->calls_heard < me->calls ? "unheard is call" : "no answer to call",
                  me->calls, me->calls, answers);
        return;
    }
    if (other->calls_heard != me->calls)
        wrong(me, "heard calls, at call", me->calls, me->calls, other->calls_heard);
    if (ticks == me->called_at_tick)
        return;
    me->called_at_tick = ticks;
    me->calls++;
    me->call_at = me->waited;
    apic_send(other->apic_id, CALL_VECTOR);
}

static void look_at_other(struct cpu *me)
{
    const struct cpu *other = other_than(me);
    uint64_t turn = other->turn;
    if (turn != me->other_turn) {
        me->other_turn = turn;
        me->other_at = me->waited;
    } else if (is_overdue(me, me->other_at)) {
        wrong(me, "the other CPU stands still at turn", turn, turn + 1, turn);
    }
}

/* --- the disk: processor 0's --------------------------------------------------------------- */

enum { IN = 0, OUT = 1, FLUSH = 4, OK = 0, SECTOR = 512, MOST_SECTORS = 8192 };
/* A batch: writes and reads by turns, sometimes a flush, all of them under way at once. */
enum { TRANSFERS = 8, SLOTS = TRANSFERS + 1, FLUSH_EACH = 16, CHAIN = 3 };

struct request {
    uint32_t type, reserved;
    uint64_t sector;
    uint64_t sequence; /* the device knows only what is above */
    bool under_way;
    volatile uint8_t status;
    uint64_t data[SECTOR / 8] __attribute__((aligned(512)));
};

static struct {
    uint64_t sectors;
    uint64_t sequences[MOST_SECTORS]; /* 0: never written by us */
    uint64_t writes, reads;           /* counted; which sectors, follows from it */
    unsigned batches, under_way;
    volatile unsigned interrupts;
    unsigned interrupts_seen;
    uint64_t moved_at;
    struct request requests[SLOTS];
    struct queue queue;
} disk;

static void handle_disk(struct frame *frame)
{
    disk.interrupts++;
    apic_eoi();
}

static void offer_request(unsigned slot, uint32_t type, uint64_t number)
{
    struct request *request = &disk.requests[slot];
    struct descriptor *chain = &disk.queue.descriptors[slot * CHAIN];
    unsigned head = slot * CHAIN, status = type == FLUSH ? 1 : 2;
    request->type = type;
    request->sector = type == FLUSH ? 0 : scatter(number, disk.sectors);
    request->sequence = number / disk.sectors + 1;
    request->status = 0xff;
    request->under_way = true;
    chain[0] = (struct descriptor){(uint64_t)request, 16, NEXT, (uint16_t)(head + 1)};
    chain[1] = (struct descriptor){(uint64_t)request->data, SECTOR, NEXT | (type == IN ? WRITE : 0),
                                   (uint16_t)(head + 2)};
    chain[status] = (struct descriptor){(uint64_t)&request->status, 1, WRITE, 0};
    if (type == OUT)
        write_words(request->data, SECTOR / 8, SECTOR_NAME + request->sector, request->sequence);
    else if (type == IN)
        memset(request->data, 0xee, SECTOR);
    disk.under_way++;
    queue_offer(&disk.queue, (uint16_t)head);
}

/* Reads follow writes at half the disk's distance: never the same sector in a batch. */
static void begin_batch(const struct cpu *me)
{
    for (unsigned slot = 0; slot < TRANSFERS; slot += 2) {
        offer_request(slot, OUT, disk.writes++);
        offer_request(slot + 1, IN, disk.reads++);
    }
    if (disk.batches % FLUSH_EACH == 0)
        offer_request(TRANSFERS, FLUSH, 0);
    disk.moved_at = me->waited;
    queue_ring(&disk.queue);
}

static void take_back(const struct cpu *me, uint16_t head, uint32_t written)
{
    static const struct kind kind = {"name of sector", "sequence of sector", "content of sector"};
    unsigned slot = head / CHAIN;
    if (head % CHAIN || slot >= SLOTS || !disk.requests[slot].under_way)
        wrong(me, "completion of a request not under way, head", head, disk.under_way,
              disk.batches);
    struct request *request = &disk.requests[slot];
    uint32_t length = request->type == IN ? SECTOR + 1 : 1;
    if (request->status != OK)
        wrong(me, "status of a request, sector", request->sector, OK, request->status);
    if (written != length)
        wrong(me, "bytes written by a request, sector", request->sector, length, written);
    uint64_t *sequence = &disk.sequences[request->sector];
    if (request->type == OUT)
        *sequence = request->sequence;
    else if (request->type == IN && *sequence)
        check_words(me, &kind, request->sector, request->data, SECTOR / 8,
                    SECTOR_NAME + request->sector, *sequence);
    request->under_way = false;
    disk.under_way--;
}

/* The ring is looked at after an interrupt only: without the one that ends a batch we stand. */
static void look_at_disk(const struct cpu *me)
{
    uint16_t head;
    uint32_t written;
    unsigned interrupts = disk.interrupts;
    if (interrupts == disk.interrupts_seen) {
        if (is_overdue(me, disk.moved_at))
            wrong(me,
                  queue_take(&disk.queue, &head, &written) ? "no interrupt of the disk, batch"
                                                           : "requests do not come back, batch",
                  disk.batches, 0, disk.under_way);
        return;
    }
    disk.interrupts_seen = interrupts;
    while (queue_take(&disk.queue, &head, &written)) {
        take_back(me, head, written);
        disk.moved_at = me->waited;
    }
    if (disk.under_way == 0) {
        disk.batches++;
        begin_batch(me);
    }
}

static void find_disk(void)
{
    struct virtio blk;
    check(virtio_find(VIRTIO_BLK, &blk), "no disk");
    virtio_start(&blk, VIRTIO_F_VERSION_1 | 1 << 9 /* flush */);
    on_interrupt(DISK_VECTOR, handle_disk);
    virtio_use_vector(&blk, 0, DISK_VECTOR);
    virtio_set_queue_vector(&blk, 0, 0);
    virtio_add_queue(&blk, 0, &disk.queue);
    virtio_ready(&blk);
    disk.sectors = *(volatile uint32_t *)blk.device;
    check(disk.sectors >= 4 * TRANSFERS, "a disk of %lu sectors", disk.sectors);
    if (disk.sectors > MOST_SECTORS)
        disk.sectors = MOST_SECTORS;
    disk.reads = disk.sectors / 2;
}

/* --- turns and rounds --------------------------------------------------------------------- */

static struct marks read_marks(void)
{
    struct marks marks = {.batches = disk.batches};
    for (unsigned i = 0; i < cpu_count; i++) {
        marks.visits[i] = cpus[i].visits;
        marks.ticks[i] = cpus[i].ticks;
        marks.answers[i] = cpus[i].answers;
    }
    return marks;
}

static bool is_round_done(const struct marks *start)
{
    struct marks now = read_marks();
    bool done = now.batches != start->batches;
    for (unsigned i = 0; i < cpu_count; i++)
        done = done && now.visits[i] - start->visits[i] >= pages &&
               now.ticks[i] != start->ticks[i] && now.answers[i] != start->answers[i];
    return done;
}

static void count_rounds(const struct cpu *me)
{
    static struct marks start;
    static uint64_t round, said;
    if (!is_round_done(&start))
        return;
    start = read_marks();
    round++;
    if (me->tsc - said >= tsc_khz() * SAY_MS || round == rounds) {
        said = me->tsc;
        take_console();
        print("steady: %lu\n", round);
        __atomic_store_n(&console_taken, false, __ATOMIC_RELEASE);
    }
    if (round == rounds)
        quit(0);
}

static void do_turn(struct cpu *me)
{
    me->turn++;
    look_at_clocks(me);
    for (unsigned i = 0; i < PAGES_A_TURN; i++)
        visit_page(me);
    look_at_ticks(me);
    exchange_calls(me);
    look_at_other(me);
}

static void ring3_main(void)
{
    /* Which processor: the stack says it, for ring 3 may not ask the task register everywhere. */
    struct cpu *me =
        &cpus[((uint64_t)__builtin_frame_address(0) - (uint64_t)user_stacks) / RING3_STACK];
    prepare_pages(me);
    look_at_clocks(me);
    if (me == cpus)
        begin_batch(me);
    for (;;) {
        do_turn(me);
        if (me != cpus)
            continue;
        look_at_disk(me);
        if (me->turn % PM_EACH == 0)
            look_at_pm_timer(me);
        count_rounds(me);
    }
}

static void start_cpu(unsigned number)
{
    struct cpu *me = &cpus[number];
    if (has_kvm_clock)
        wrmsr(MSR_KVM_CLOCK2, (uint64_t)&me->clock | 1);
    me->by_deadline = number > 0 && cpuid(1).c & 1u << 24;
    apic_write(APIC_TIMER_DIVIDE, DIVIDE_BY_1);
    apic_write(APIC_LVT_TIMER, TICK_VECTOR | (me->by_deadline ? LVT_TSC_DEADLINE : 0));
    set_timer(me);
    enter_ring3(ring3_main, user_stacks[number] + RING3_STACK);
}

/* Pages and tables lie behind the guest. */
static void lay_out_memory(void)
{
    uint64_t first = ((uint64_t)guest_end + PAGE - 1) / PAGE * PAGE;
    uint64_t wanted = cpu_count * pages * (PAGE + 8), room = 0;
    struct map_entry entry;
    for (unsigned at = 0; memory_map(&at, &entry);)
        if (entry.type == 1 && entry.base <= first && entry.base + entry.size > first)
            room = entry.base + entry.size - first;
    check(pages > 0 && pages < STEP && wanted <= room, "no room for pages=%lu", pages);
    for (unsigned i = 0; i < cpu_count; i++) {
        cpus[i].pages = (uint64_t *)(first + i * pages * PAGE);
        cpus[i].sequences = (uint64_t *)(first + cpu_count * pages * PAGE + i * pages * 8);
    }
}

void guest_main(void)
{
    uint32_t ids[MOST_CPUS];
    cpu_count = acpi_cpus(ids, MOST_CPUS);
    for (unsigned i = 0; i < cpu_count; i++)
        cpus[i].apic_id = ids[i];
    pages = option("pages", 256);
    rounds = option("rounds", 0);
    jump = option("jump", 0) * tsc_khz();
    patience = option("patience", 30000) * tsc_khz();
    slack = option("slack", 100) * tsc_khz() / 1000;
    apic_khz = cpuid(0x40000010).b;
    has_kvm_clock = cpuid(0x40000001).a & KVM_CLOCK2;
    pm_port = (uint16_t)get32(acpi_table("FACP") + FADT_PM_TIMER);
    lay_out_memory();

    apic_enable(false);
    find_disk();
    on_interrupt(TICK_VECTOR, handle_tick);
    on_interrupt(CALL_VECTOR, handle_call);
    on_interrupt(ANSWER_VECTOR, handle_answer);
    check(cpu_start_others(ids, cpu_count, start_cpu), "the other processor did not start");
    start_cpu(0);
}
