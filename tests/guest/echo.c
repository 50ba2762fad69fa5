/* SPDX-License-Identifier: MIT */
/* Expects: an Ethernet where it is 10.99.0.N, by host=N (2), and a disk. Says "echo: ready N", N
 * its count, and counts requests that come to UDP and TCP port 7. A request is answered when its
 * count and the ones before it are on the disk, and flushed; one that comes again gets the same
 * answer, and counts once. All the while pages=N (256) of memory are read, checked and written,
 * of each words=N (512), rate=N (1000) a second, 0 for none: what is wrong ends the counting, each
 * answer tells so, and "echo: WRONG: what, where, expected, found" is said. The power button (an
 * SCI) switches it off when what was taken has been counted.
 *
 * All numbers little-endian. A request has 8 of 64 bits: REQUEST, client, sequence, 4 of the
 * client's, 0. A client asks one after the other, and its sequence only rises. An answer: ANSWER,
 * client, sequence, count, sum, wrong (0), pages written, age in ms; the last two never go back.
 * A datagram RESET, way resets the guest, without an answer: 0 by the keyboard controller, 1 by
 * ACPI's register, 2 by a triple fault.
 * Record N is in sector 1 + (N - 1) * stride % RING, stride=N (1), RING the number of the disk's
 * sectors without one:
 * RECORD, count, client, sequence, the client's 4, the sum of the record before, its own sum.
 * Sector 0: HEAD, count, sum.
 */
#include "tcp.h"

#define REQUEST 0x7175657265686365 /* "echereuq", as text */
#define ANSWER  0x7265776e61686365 /* "echanwer" */
#define RECORD  0x64726f6365686365 /* "echecord" */
#define HEAD    0x6461656865686365 /* "echehead" */
#define RESET   0x7465736572686365 /* "echreset" */

extern uint8_t guest_end[];

enum { CARD_VECTOR = 0x41, DISK_VECTOR, TIMER_VECTOR = 0x51, SCI_VECTOR, GENERAL_PROTECTION = 13 };
enum {
    RING3_STACK = 16384,
    DIVIDE_BY_1 = 0xb,
    PORT = 7,
    PATIENCE_MS = 200,
    TICKS_PER_SECOND = 100
};
enum { PAGE = 4096, SECTOR = 512, CLIENTS = 64, BATCH = 16, LOOK_BACK = 1024 };

struct request {
    uint64_t magic, client, sequence, words[4], zero;
};

struct answer {
    uint64_t magic, client, sequence, count, sum, wrong, visits, age;
};

struct record {
    uint64_t magic, count, client, sequence, words[4], before, sum;
};

_Static_assert(sizeof(struct request) == TCP_RECORD && sizeof(struct answer) == TCP_RECORD, "");

/* Where an answer goes. */
struct way {
    struct tcp *tcp; /* or NULL: UDP */
    uint32_t life;
    uint8_t mac[6], address[4];
    uint16_t port;
};

struct client {
    uint64_t id, sequence, count, sum;
    struct way way;
};

/* Requests whose records go to the disk together. */
struct batch {
    unsigned size;
    struct client *clients[BATCH];
    union {
        struct record record;
        uint8_t bytes[SECTOR];
    } sectors[BATCH] __attribute__((aligned(SECTOR)));
};

static struct client clients[CLIENTS];
static struct batch batches[2], *filling = &batches[0], *storing = &batches[1];
static uint64_t count, sum; /* of all that was taken */
static uint64_t stored;     /* so many are on the disk */

static uint64_t wrongs, pages, words_each, visits, rate, next_tick, born, stride;
static uint8_t *memory;

static volatile bool frames_came, disk_came, pressed, faults;
static uint64_t wake_at; /* TSC */
static uint32_t apic_khz;
static uint8_t user_stack[RING3_STACK] __attribute__((aligned(16)));

static void wrong(const char *what, uint64_t where, uint64_t expected, uint64_t found)
{
    if (wrongs++ == 0)
        print("echo: WRONG: %s %lu, expected %lu, found %lu\n", what, where, expected, found);
}

/* --- sleep: ring 3 may not halt, and comes here when it does ------------------------------- */

static void fault_three_times(void)
{
    static const struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) nothing;
    __asm__ volatile("lidt %0\n ud2" : : "m"(nothing));
}

static void handle_halt(struct frame *frame)
{
    uint64_t now = rdtsc();
    if (faults)
        fault_three_times();
    check(*(const uint8_t *)frame->rip == 0xf4, "a fault at %lx", frame->rip);
    frame->rip++;
    if (frames_came || disk_came || pressed || wake_at <= now)
        return; /* it came after ring 3 had looked */
    uint64_t ticks = wake_at == UINT64_MAX ? 0 : (wake_at - now) * apic_khz / tsc_khz() + 1;
    apic_write(APIC_TIMER_INITIAL, ticks > UINT32_MAX ? UINT32_MAX : (uint32_t)ticks);
    wait_for_interrupt();
}

static void handle_timer(struct frame *frame)
{
    apic_eoi();
}

static void handle_card(struct frame *frame)
{
    frames_came = true;
    apic_eoi();
}

static void handle_disk(struct frame *frame)
{
    disk_came = true;
    apic_eoi();
}

static void sleep_until(uint64_t when)
{
    wake_at = when;
    __asm__ volatile("hlt" : : : "memory");
}

/* --- memory: each page holds the number of the visit that wrote it, and what is made of that -- */

static uint64_t next_word(uint64_t word)
{
    return word * 0xd1342543de82ef95 + 1;
}

static void write_page(uint64_t page, uint64_t visit)
{
    uint64_t *words = (uint64_t *)(memory + page * PAGE);
    for (uint64_t i = 0, word = visit; i < words_each; i++, word = next_word(word))
        words[i] = word;
}

static void visit_page(void)
{
    uint64_t page = visits % pages, word = visits - pages;
    const uint64_t *words = (const uint64_t *)(memory + page * PAGE);
    for (uint64_t i = 0; i < words_each; i++, word = next_word(word))
        if (words[i] != word) {
            wrong("memory of page", page, word, words[i]);
            break;
        }
    write_page(page, visits);
    visits++;
}

/* What a pause has kept it from is not made up for. */
static void visit_pages(void)
{
    uint64_t now = rdtsc(), each = rate / TICKS_PER_SECOND ? rate / TICKS_PER_SECOND : 1;
    if (rate == 0 || now < next_tick)
        return;
    for (uint64_t i = 0; i < each; i++)
        visit_page();
    next_tick = now + tsc_khz() * 1000 / (rate < TICKS_PER_SECOND ? rate : TICKS_PER_SECOND);
}

/* Pages lie behind the guest. */
static void lay_out_memory(void)
{
    uint64_t first = ((uint64_t)guest_end + PAGE - 1) / PAGE * PAGE, room = 0;
    struct map_entry entry;
    for (unsigned at = 0; memory_map(&at, &entry);)
        if (entry.type == 1 && entry.base <= first && entry.base + entry.size > first)
            room = entry.base + entry.size - first;
    check(pages > 0 && pages <= room / PAGE, "no room for pages=%lu", pages);
    memory = (uint8_t *)first;
}

/* --- the disk ----------------------------------------------------------------------------- */

enum { IN = 0, OUT = 1, FLUSH = 4, OK = 0, CHAIN = 3, HEAD_SLOT = BATCH, SLOTS = BATCH + 1 };

static struct {
    struct queue queue;
    uint64_t ring; /* sectors for records */
    enum { IDLE, RECORDS, HEAD_SECTOR, FLUSHING } phase;
    unsigned under_way;
    struct {
        uint32_t type, reserved;
        uint64_t sector;
        volatile uint8_t status;
    } requests[SLOTS];
    uint64_t head[SECTOR / 8] __attribute__((aligned(SECTOR)));
} disk;

static void offer(unsigned slot, uint32_t type, uint64_t sector, void *data)
{
    struct descriptor *chain = &disk.queue.descriptors[slot * CHAIN];
    uint16_t head = (uint16_t)(slot * CHAIN), write = type == IN ? WRITE : 0;
    unsigned last = type == FLUSH ? 1 : 2;
    disk.requests[slot].type = type;
    disk.requests[slot].sector = sector;
    disk.requests[slot].status = 0xff;
    chain[0] = (struct descriptor){(uint64_t)&disk.requests[slot], 16, NEXT, (uint16_t)(head + 1)};
    chain[1] = (struct descriptor){(uint64_t)data, SECTOR, NEXT | write, (uint16_t)(head + 2)};
    chain[last] = (struct descriptor){(uint64_t)&disk.requests[slot].status, 1, WRITE, 0};
    disk.under_way++;
    queue_offer(&disk.queue, head);
}

static void offer_head(uint64_t last, uint64_t last_sum)
{
    disk.head[0] = HEAD;
    disk.head[1] = last;
    disk.head[2] = last_sum;
    offer(HEAD_SLOT, OUT, 0, disk.head);
}

static uint64_t sector_of(uint64_t number)
{
    return 1 + (number - 1) * stride % disk.ring;
}

static void take_back(uint16_t head)
{
    unsigned slot = head / CHAIN;
    if (head % CHAIN || slot >= SLOTS || disk.under_way == 0)
        wrong("a completion that nobody waits for, head", head, 0, disk.under_way);
    else if (disk.requests[slot].status != OK)
        wrong("status of a request, sector", disk.requests[slot].sector, OK,
              disk.requests[slot].status);
    disk.under_way--;
}

/* At once, and nothing else meanwhile. */
static void do_disk(void)
{
    queue_ring(&disk.queue);
    while (disk.under_way)
        take_back(queue_wait(&disk.queue, NULL));
}

static void begin_to_store(void)
{
    struct batch *batch = filling;
    filling = storing;
    storing = batch;
    filling->size = 0;
    for (unsigned i = 0; i < batch->size; i++)
        offer(i, OUT, sector_of(batch->sectors[i].record.count), &batch->sectors[i]);
    disk.phase = RECORDS;
    queue_ring(&disk.queue);
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
    disk.ring = *(volatile uint32_t *)blk.device - 1ull;
    check(disk.ring > 4 * BATCH, "a disk of %lu sectors", disk.ring + 1);
}

/* --- requests and answers ----------------------------------------------------------------- */

static uint64_t sum_of(const struct record *record)
{
    const uint64_t *words = &record->count;
    uint64_t all = record->before;
    for (const uint64_t *end = &record->before; words < end; words++) {
        all = (all ^ *words) * 0x9e3779b97f4a7c15;
        all ^= all >> 29;
    }
    return all;
}

/* Where there are too many, the one that has been silent for longest is forgotten. */
static struct client *find_client(uint64_t id)
{
    struct client *oldest = clients;
    for (struct client *client = clients; client < clients + CLIENTS; client++) {
        if (client->id == id && client->count)
            return client;
        if (client->count < oldest->count)
            oldest = client;
    }
    if (oldest->count > stored)
        return NULL;
    *oldest = (struct client){.id = id};
    return oldest;
}

static void send_udp(const struct way *way, const struct answer *answer)
{
    uint8_t *frame = card_frame(), *udp = frame + ABOVE_IP_AT;
    uint32_t end = ABOVE_IP_AT + UDP + sizeof(*answer);
    if (!frame)
        return;
    put16be(udp, PORT);
    put16be(udp + 2, way->port);
    put16be(udp + 4, end - ABOVE_IP_AT);
    put16be(udp + 6, 0);
    copy(udp + UDP, answer, sizeof(*answer));
    ip_put(frame, way->mac, card_address, way->address, PROTOCOL_UDP, end);
    unsigned checksum = ip_checksum_above(frame);
    put16be(udp + 6, checksum ? checksum : 0xffff);
    card_send(frame, end);
}

static bool is_alive(const struct way *way)
{
    return way->tcp && way->tcp->life == way->life && way->tcp->state > TCP_SYN_RECEIVED;
}

static void send_answer(const struct way *way, uint64_t client, uint64_t sequence, uint64_t number,
                        uint64_t number_sum)
{
    uint64_t age = (rdtsc() - born) / tsc_khz();
    struct answer answer = {ANSWER, client, sequence, number, number_sum, wrongs, visits, age};
    if (!way->tcp)
        send_udp(way, &answer);
    else if (is_alive(way))
        tcp_send(way->tcp, &answer, sizeof(answer));
}

static void owe(struct client *client, const struct way *way)
{
    if (is_alive(&client->way) && client->count > stored) {
        client->way.tcp->owed--;
        tcp_send(client->way.tcp, NULL, 0); /* perhaps it ends now */
    }
    client->way = *way;
    if (way->tcp)
        way->tcp->owed++;
}

/* False: no room for it now. */
static bool take_request(const struct request *request, const struct way *way)
{
    if (request->magic != REQUEST || request->client == 0 || request->sequence == 0)
        return true;
    if (wrongs) {
        send_answer(way, request->client, request->sequence, count, sum);
        return true;
    }
    struct client *client = find_client(request->client);
    if (!client)
        return false;
    if (request->sequence <= client->sequence) {
        bool is_last = request->sequence == client->sequence;
        if (is_last && client->count > stored)
            owe(client, way);
        else if (is_last)
            send_answer(way, client->id, client->sequence, client->count, client->sum);
        return true; /* older ones: nobody waits for them any more */
    }
    if (filling->size == BATCH || client->count > stored)
        return false;
    owe(client, way);
    struct record *record = &filling->sectors[filling->size].record;
    *record = (struct record){.magic = RECORD,
                              .count = ++count,
                              .client = request->client,
                              .sequence = request->sequence,
                              .before = sum};
    copy(record->words, request->words, sizeof(record->words));
    record->sum = sum = sum_of(record);
    client->sequence = request->sequence;
    client->count = count;
    client->sum = sum;
    filling->clients[filling->size++] = client;
    return true;
}

static void answer_batch(void)
{
    stored += storing->size;
    for (unsigned i = 0; i < storing->size; i++) {
        struct client *client = storing->clients[i];
        if (storing->sectors[i].record.count != client->count)
            wrong("count of client", client->id, client->count, storing->sectors[i].record.count);
        if (is_alive(&client->way))
            client->way.tcp->owed--;
        send_answer(&client->way, client->id, client->sequence, client->count, client->sum);
    }
}

/* The head comes when the records that it counts are there; a flush covers what came before it. */
static void store(void)
{
    uint16_t head;
    if (disk_came) {
        disk_came = false;
        while (queue_take(&disk.queue, &head, NULL))
            take_back(head);
    }
    if (disk.under_way || wrongs)
        return;
    switch (disk.phase) {
    case RECORDS:
        offer_head(stored + storing->size, storing->sectors[storing->size - 1].record.sum);
        disk.phase = HEAD_SECTOR;
        queue_ring(&disk.queue);
        break;
    case HEAD_SECTOR:
        offer(0, FLUSH, 0, NULL);
        disk.phase = FLUSHING;
        queue_ring(&disk.queue);
        break;
    case FLUSHING:
        answer_batch();
        disk.phase = IDLE;
        break;
    case IDLE:
        break;
    }
    if (disk.phase == IDLE && filling->size && !wrongs)
        begin_to_store();
}

/* --- what comes from the network ---------------------------------------------------------- */

static uint32_t take_bytes(struct tcp *tcp, const uint8_t *bytes, uint32_t size)
{
    struct way way = {.tcp = tcp, .life = tcp->life};
    uint32_t taken = 0;
    while (taken < size) {
        uint32_t part = TCP_RECORD - tcp->have;
        part = part < size - taken ? part : size - taken;
        copy(tcp->record + tcp->have, bytes + taken, part);
        if (tcp->have + part == TCP_RECORD &&
            (tcp_room(tcp) < TCP_RECORD * (tcp->owed + 1) ||
             !take_request((const struct request *)tcp->record, &way)))
            break;
        tcp->have = (tcp->have + part) % TCP_RECORD;
        taken += part;
    }
    return taken;
}

static void reset(uint64_t way)
{
    const uint8_t *fadt = acpi_table("FACP");
    if (way == 0) {
        out8(0x64, 0xfe);
    } else if (way == 1) {
        out8((uint16_t)get64(fadt + FADT_RESET_ADDRESS), fadt[FADT_RESET_VALUE]);
    } else {
        faults = true;
        sleep_until(0);
    }
    wrong("still here after a reset, way", way, 0, 1);
}

static void take_datagram(const uint8_t *frame, uint32_t length)
{
    const uint8_t *udp = frame + ABOVE_IP_AT;
    struct way way = {.port = (uint16_t)get16be(udp)};
    struct request request;
    uint32_t end;
    if (!ip_is_ours(frame, length, PROTOCOL_UDP, &end) || get16be(udp + 2) != PORT ||
        end != ABOVE_IP_AT + UDP + sizeof(request))
        return;
    copy(&request, udp + UDP, sizeof(request));
    copy(way.mac, frame + 6, 6);
    copy(way.address, frame + IP_AT + 12, 4);
    if (request.magic == RESET)
        reset(request.client);
    (void)take_request(&request, &way); /* else it comes again */
}

static void take_frames(void)
{
    const uint8_t *frame;
    uint32_t length;
    if (!frames_came)
        return;
    frames_came = false;
    while ((frame = card_take(&length))) {
        card_answer(frame, length);
        take_datagram(frame, length);
        tcp_take_frame(frame, length);
    }
}

/* --- a disk that was there before ---------------------------------------------------------- */

/* Whether that record is on the disk, right behind the last one that was taken. */
static bool read_record(uint64_t number, bool follows)
{
    struct record *record = &storing->sectors[0].record;
    offer(0, IN, sector_of(number), record);
    do_disk();
    return record->magic == RECORD && record->count == number && record->sum == sum_of(record) &&
           (!follows || record->before == sum);
}

static void remember(void)
{
    const struct record *record = &storing->sectors[0].record;
    count = record->count;
    sum = record->sum;
    stored = count - 1; /* or find_client would keep it for a request under way */
    struct client *client = find_client(record->client);
    check(client, "too many clients");
    client->sequence = record->sequence;
    client->count = count;
    client->sum = sum;
}

/*
 * What was under way when the power failed may be there or not, in any order, so the head tells
 * only where to look: less than a batch before it everything is there. What is there counts.
 */
static void read_disk(void)
{
    uint64_t back = disk.ring - 2 * BATCH < LOOK_BACK ? disk.ring - 2 * BATCH : LOOK_BACK;
    offer(HEAD_SLOT, IN, 0, disk.head);
    do_disk();
    uint64_t said = disk.head[0] == HEAD ? disk.head[1] : 0, first = said > back ? said - back : 1;
    for (uint64_t number = first; read_record(number, number > 1 && number > first); number++)
        remember();
    stored = count;
    check(count + BATCH >= said, "the disk has %lu records, and once had %lu", count, said);
    offer_head(count, sum);
    do_disk();
    offer(0, FLUSH, 0, NULL);
    do_disk();
    disk_came = false;
}

static void ring3_main(void)
{
    for (uint64_t page = 0; page < pages; page++)
        write_page(page, page - pages);
    read_disk();
    born = rdtsc();
    print("echo: ready %lu\n", count);
    while (!pressed || (disk.phase != IDLE && !wrongs)) {
        if (!pressed)
            take_frames();
        store();
        visit_pages();
        uint64_t next = tcp_work();
        sleep_until(rate && next_tick < next ? next_tick : next);
    }
    print("power button\n");
    acpi_power_off();
}

void guest_main(void)
{
    const uint8_t address[4] = {10, 99, 0, (uint8_t)option("host", 2)};
    pages = option("pages", 256);
    words_each = option("words", PAGE / 8);
    rate = option("rate", 1000);
    stride = option("stride", 1);
    apic_khz = cpuid(0x40000010).b;
    check(apic_khz, "CPUID does not tell the frequency of the APIC timer");
    lay_out_memory();
    apic_enable(false);
    on_interrupt(GENERAL_PROTECTION, handle_halt);
    on_interrupt(TIMER_VECTOR, handle_timer);
    apic_write(APIC_TIMER_DIVIDE, DIVIDE_BY_1);
    apic_write(APIC_LVT_TIMER, TIMER_VECTOR);
    acpi_use_power_button(SCI_VECTOR, &pressed);
    find_disk();
    copy(card_address, address, sizeof(card_address));
    card_start(CARD_VECTOR, handle_card);
    tcp_listen(PORT, tsc_khz() * PATIENCE_MS, take_bytes);
    enter_ring3(ring3_main, user_stack + RING3_STACK);
}
