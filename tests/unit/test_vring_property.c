/* SPDX-License-Identifier: MIT */
/*
 * Thousands of random lives of a ring. In the first half the driver is honest and both sides work
 * in random steps, each only when it was told to: so a lost doorbell or interrupt leaves requests
 * behind. In the second half guest memory is full of random descriptors, and what the ring makes of
 * them is compared with ring_reference.h. A failure names its seed.
 */
#include "tests/unit/ring_reference.h"
#include "tests/unit/vring_rig.h"
#include <string.h>

struct random {
    uint64_t state;
};

static uint32_t next_random(struct random *random)
{
    /* splitmix64 */
    uint64_t z = random->state += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return (uint32_t)(z >> 32);
}

static unsigned below(struct random *random, unsigned limit)
{
    return next_random(random) % limit;
}

static bool one_in(struct random *random, unsigned n)
{
    return below(random, n) == 0;
}

/* --- honest lives ----------------------------------------------------------------------------- */

enum {
    MAX_ENTRIES = 64,
    MAX_PARTS = 8,
    PART_BYTES = 128, /* a buffer, and what lies around it */
    HEAD_BYTES = MAX_PARTS * PART_BYTES,
    LIFE_MEMORY = 128 << 10,
    STEPS = 150,
};

/* What the driver sent under a head, and what became of it. */
struct sent {
    enum { FREE, ADDED, POPPED, PUSHED } at;
    uint64_t token;
    unsigned count;
    struct model_part parts[MAX_PARTS];
    uint32_t written;
};

struct life {
    uint64_t seed;
    struct random random;
    struct memory *memory;
    struct model_driver driver;
    struct vring_state state;
    struct vring ring;
    uint8_t before[LIFE_MEMORY];
    uint8_t now[LIFE_MEMORY];
    struct sent sent[MAX_ENTRIES];
    uint64_t given, returned;
    uint16_t popped[MAX_ENTRIES]; /* heads in flight, in the order of their pops */
    unsigned in_flight;
    bool doorbell, device_works;
    bool interrupt, driver_works;
};

#define MUST(life, condition)                                                            \
    do {                                                                                 \
        if (!(condition))                                                                \
            ck_abort_msg("seed %llu: %s", (unsigned long long)(life)->seed, #condition); \
    } while (0)

/* Bytes that tell requests, directions and places apart. */
static uint8_t pattern(uint64_t token, bool answer, uint64_t i)
{
    return (uint8_t)((token * 2 + answer) * 31 + i * 7 + (i >> 5));
}

static void begin_life(struct life *life, uint64_t seed)
{
    memset(life, 0, sizeof(*life));
    life->seed = life->random.state = seed;
    MUST(life, memory_create(&life->memory, LIFE_MEMORY, LIFE_MEMORY, RIG_HIGH, NULL) == 0);
    struct model_config config = {
        .memory = life->memory,
        .base = below(&life->random, 64) * 16ull,
        .size = (uint16_t)(1u << below(&life->random, 7)),
        .event_index = one_in(&life->random, 2),
        .indirect = one_in(&life->random, 2),
        .table_size = MAX_PARTS,
        .start = (uint16_t)(one_in(&life->random, 2) ? 65536 - 40 : next_random(&life->random)),
    };
    config.buffer_bytes = config.size * (uint32_t)HEAD_BYTES;
    model_init(&life->driver, &config);
    life->state = model_places(&life->driver);
    vring_init(&life->ring, &life->state, life->memory);
    MUST(life, vring_open(&life->ring, config.event_index, config.indirect) == 0);
}

/* Memory as it was, but for the ring's own part and for what the test writes as the device. */
static void remember(struct life *life)
{
    MUST(life, memory_read(life->memory, 0, life->before, LIFE_MEMORY) == 0);
}

static void expect_only_used_changed(struct life *life)
{
    size_t used = life->driver.used, bytes = 6 + 8ul * life->driver.size;

    MUST(life, memory_read(life->memory, 0, life->now, LIFE_MEMORY) == 0);
    memcpy(life->now + used, life->before + used, bytes);
    MUST(life, memcmp(life->now, life->before, LIFE_MEMORY) == 0);
}

/* The driver's steps. */

static void fill(struct life *life, const struct sent *sent)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < sent->count; i++) {
        uint8_t *bytes = model_bytes(&life->driver, sent->parts[i].gpa - 16, PART_BYTES);
        memset(bytes, 0xee, PART_BYTES);
        for (uint32_t j = 0; j < sent->parts[i].length && !sent->parts[i].writable; j++)
            bytes[16 + j] = pattern(sent->token, false, n++);
    }
}

static void add_request(struct life *life)
{
    struct model_driver *driver = &life->driver;
    struct sent sent = {.at = ADDED, .token = life->given};
    unsigned most = driver->size < MAX_PARTS ? driver->size : MAX_PARTS;

    if (driver->free_count == 0)
        return;
    sent.count = 1 + below(&life->random, most);
    unsigned readable = below(&life->random, sent.count + 1);
    gpa_t at = driver->buffers + driver->free_head * (gpa_t)HEAD_BYTES;
    for (unsigned i = 0; i < sent.count; i++)
        sent.parts[i] = (struct model_part){
            .gpa = at + i * (gpa_t)PART_BYTES + 16,
            .length = one_in(&life->random, 5) ? 0 : below(&life->random, PART_BYTES - 31),
            .writable = i >= readable,
        };
    unsigned direct = driver->config.indirect ? below(&life->random, sent.count + 1) : sent.count;
    int head = model_add_mixed(driver, sent.parts, sent.count, direct, sent.token);
    if (head < 0)
        return;
    MUST(life, life->sent[head].at == FREE);
    life->sent[head] = sent;
    life->given++;
    fill(life, &sent);
}

static void show(struct life *life)
{
    if (model_show(&life->driver))
        life->doorbell = true;
}

/* All that comes back is what was pushed, once, with its bytes and no others. */
static bool reap(struct life *life)
{
    struct model_done done;
    uint64_t n = 0;
    int ret = model_try_reap(&life->driver, &done);

    MUST(life, ret >= 0);
    if (ret == 0)
        return false;
    struct sent *sent = &life->sent[done.head];
    MUST(life, sent->at == PUSHED);
    MUST(life, done.token == sent->token);
    MUST(life, done.written == sent->written);
    for (unsigned i = 0; i < sent->count; i++) {
        const uint8_t *bytes = model_bytes(&life->driver, sent->parts[i].gpa - 16, PART_BYTES);
        for (uint32_t j = 0; j < PART_BYTES && sent->parts[i].writable; j++) {
            bool inside = j >= 16 && j - 16 < sent->parts[i].length && n < sent->written;
            MUST(life, bytes[j] == (inside ? pattern(sent->token, true, n++) : 0xee));
        }
    }
    sent->at = FREE;
    life->returned++;
    return true;
}

/* Answers an interrupt, or goes on with it; sometimes it leaves things for later. */
static void work_as_driver(struct life *life, bool to_the_end)
{
    if (life->interrupt && one_in(&life->random, 2))
        model_want_no_interrupt(&life->driver);
    life->driver_works |= life->interrupt;
    life->interrupt = false;
    while (life->driver_works) {
        while (reap(life))
            if (!to_the_end && one_in(&life->random, 4))
                return;
        unsigned there = (uint16_t)(life->driver.shown - life->driver.seen);
        unsigned after = there > 1 ? 1 + below(&life->random, there) : 1;
        life->driver_works = model_want_interrupt(&life->driver, after);
    }
}

/* The device's steps. */

static void expect_request(struct life *life, const struct vring_chain *chain)
{
    const struct sent *sent = &life->sent[chain->head];
    unsigned n = 0;
    uint64_t byte = 0;

    for (unsigned i = 0; i < sent->count; i++) {
        const struct model_part *part = &sent->parts[i];
        if (part->length == 0)
            continue;
        const struct iovec *iov = &chain->iov[n];
        MUST(life, n < chain->readable + chain->writable);
        MUST(life, (n >= chain->readable) == part->writable);
        MUST(life, iov->iov_base == model_bytes(&life->driver, part->gpa, part->length));
        MUST(life, iov->iov_len == part->length);
        for (uint32_t j = 0; j < part->length && !part->writable; j++)
            MUST(life, ((uint8_t *)iov->iov_base)[j] == pattern(sent->token, false, byte++));
        n++;
    }
    MUST(life, n == chain->readable + chain->writable);
    MUST(life, chain->readable_bytes == iov_size(chain->iov, chain->readable));
    MUST(life, chain->writable_bytes == iov_size(vring_writable(chain), chain->writable));
}

static bool pop(struct life *life)
{
    struct iovec iov[MAX_PARTS];
    struct vring_chain chain = {.iov = iov, .capacity = MAX_PARTS};
    int ret = vring_pop(&life->ring, &chain);

    MUST(life, ret >= 0);
    if (ret == 0)
        return false;
    MUST(life, life->sent[chain.head].at == ADDED);
    life->sent[chain.head].at = POPPED;
    life->popped[life->in_flight++] = chain.head;
    expect_request(life, &chain);
    return true;
}

static void unpop(struct life *life)
{
    unsigned count = 0;

    /* Only the last ones that were popped, and only as long as none after them is done. */
    while (count < life->in_flight && count < 3 &&
           (uint16_t)(life->state.next_available - life->state.next_used) == life->in_flight &&
           life->sent[life->popped[life->in_flight - 1 - count]].token + 1 + count ==
               (uint16_t)(life->state.next_available - life->driver.config.start))
        count++;
    for (unsigned i = 0; i < count; i++)
        life->sent[life->popped[--life->in_flight]].at = ADDED;
    vring_unpop(&life->ring, count);
    life->device_works |= count > 0; /* it knows what it has put back */
}

static void complete(struct life *life)
{
    struct iovec iov[MAX_PARTS];
    struct vring_chain chain = {.iov = iov, .capacity = MAX_PARTS};
    unsigned i = below(&life->random, life->in_flight);
    uint16_t head = life->popped[i];
    struct sent *sent = &life->sent[head];

    memmove(&life->popped[i], &life->popped[i + 1],
            (--life->in_flight - i) * sizeof(life->popped[0]));
    MUST(life, vring_reopen(&life->ring, head, &chain) == 1);
    expect_request(life, &chain);
    sent->written = below(&life->random, (unsigned)chain.writable_bytes + 1);
    for (uint32_t n = 0; n < sent->written; n++) {
        uint8_t byte = pattern(sent->token, true, n);
        MUST(life, iov_write(vring_writable(&chain), chain.writable, n, &byte, 1) == 1);
    }
    remember(life);
    vring_push(&life->ring, &chain, sent->written);
    expect_only_used_changed(life);
    sent->at = PUSHED;
}

static void publish(struct life *life)
{
    if (vring_publish(&life->ring))
        life->interrupt = true;
}

/* Saved and loaded: nothing but the state and the heads goes on. */
static void hop(struct life *life)
{
    struct vring_state saved = life->state;
    struct iovec iov[MAX_PARTS];
    struct vring_chain chain = {.iov = iov, .capacity = MAX_PARTS};

    vring_close(&life->ring);
    memset(&life->ring, 0xa5, sizeof(life->ring));
    vring_init(&life->ring, &life->state, life->memory);
    life->state = saved;
    MUST(life, vring_open(&life->ring, life->driver.config.event_index,
                          life->driver.config.indirect) == 0);
    for (unsigned i = 0; i < life->in_flight; i++) {
        MUST(life, vring_reopen(&life->ring, life->popped[i], &chain) == 1);
        expect_request(life, &chain);
    }
    publish(life);
    life->doorbell = true; /* as after every resume */
}

static void work_as_device(struct life *life, bool to_the_end)
{
    if (life->doorbell || life->device_works) {
        life->doorbell = false;
        life->device_works = true;
        remember(life);
        vring_disarm(&life->ring);
        do {
            while (pop(life))
                if (!to_the_end && one_in(&life->random, 4))
                    goto later;
            life->device_works = vring_arm(&life->ring);
        } while (life->device_works);
    later:
        expect_only_used_changed(life);
    }
    while (life->in_flight > 0 && (to_the_end || !one_in(&life->random, 3))) {
        complete(life);
        if (one_in(&life->random, 3))
            publish(life);
    }
    if (to_the_end || one_in(&life->random, 2))
        publish(life);
}

static void live(struct life *life, uint64_t seed)
{
    begin_life(life, seed);
    life->doorbell = vring_arm(&life->ring);
    for (unsigned step = 0; step < STEPS; step++) {
        switch (below(&life->random, 8)) {
        case 0:
        case 1:
        case 2:
            add_request(life);
            break;
        case 3:
            show(life);
            break;
        case 4:
            work_as_driver(life, false);
            break;
        case 5:
        case 6:
            work_as_device(life, false);
            break;
        default:
            one_in(&life->random, 3) ? hop(life) : unpop(life);
        }
    }
    show(life);
    while (life->doorbell || life->device_works || life->in_flight > 0 || life->interrupt ||
           life->driver_works) {
        work_as_device(life, true);
        work_as_driver(life, true);
    }
    publish(life);
    work_as_driver(life, true);
    MUST(life, life->returned == life->given);
    MUST(life, model_outstanding(&life->driver) == 0);
    MUST(life, life->driver.free_count == life->driver.size);
    memory_destroy(life->memory);
}

enum { LIVES = 250, LIFE_LOOPS = 16 };

START_TEST(every_request_completes_once_and_no_notification_is_lost)
{
    static struct life life;
    uint64_t requests = 0;

    for (uint64_t i = 0; i < LIVES; i++) {
        live(&life, (uint64_t)_i * LIVES + i + 1);
        requests += life.returned;
    }
    ck_assert_uint_gt(requests, LIVES * 10);
}
END_TEST

/* --- liars' lives ----------------------------------------------------------------------------- */

enum { TABLES = 4, TABLE_BYTES = 32 * 16 };
#define TABLE_BASE 0x40000ull

static gpa_t random_address(struct random *random)
{
    static const gpa_t edges[] = {0, RIG_LOW, RIG_HIGH, RIG_HIGH + RIG_SIZE - RIG_LOW, UINT64_MAX};

    switch (below(random, 16)) {
    case 0:
        return edges[below(random, array_size(edges))] + below(random, 64) - 32;
    case 1:
        return (gpa_t)next_random(random) << below(random, 33);
    default:
        return 0x80000 + below(random, 0x20000);
    }
}

static uint32_t random_length(struct random *random)
{
    switch (below(random, 16)) {
    case 0:
        return 0;
    case 1:
        return next_random(random);
    case 2:
        return 0x80000;
    default:
        return below(random, 4096);
    }
}

/* Most are good, and lead to the next one: so that chains are long, and lies lie deep. */
static void poke_random(struct rig *rig, struct random *random, gpa_t table, unsigned index,
                        unsigned entries)
{
    unsigned flags = 0;
    gpa_t address = random_address(random);
    uint32_t length = random_length(random);
    unsigned next = one_in(random, 6) ? below(random, entries + 2) : index + 1;

    if (one_in(random, 8)) {
        flags = MODEL_INDIRECT;
        address = TABLE_BASE + below(random, TABLES) * (gpa_t)TABLE_BYTES;
        length = one_in(random, 6) ? below(random, 64) : 16 * (1 + below(random, 32));
        flags |= one_in(random, 8) ? MODEL_NEXT : 0;
    } else if (!one_in(random, 3)) {
        flags = MODEL_NEXT;
    }
    if (below(random, entries) < index || one_in(random, 10))
        flags |= MODEL_WRITE;
    if (one_in(random, 20))
        flags |= next_random(random) & 0xfff8;
    model_poke_descriptor(&rig->driver, table, index, address, length, (uint16_t)flags,
                          (uint16_t)next);
}

static void poke_all(struct rig *rig, struct random *random)
{
    for (unsigned i = 0; i < rig->driver.size; i++)
        poke_random(rig, random, rig->driver.descriptors, i, rig->driver.size);
    for (unsigned table = 0; table < TABLES; table++)
        for (unsigned i = 0; i < TABLE_BYTES / 16; i++)
            poke_random(rig, random, TABLE_BASE + table * (gpa_t)TABLE_BYTES, i, TABLE_BYTES / 16);
}

struct tally {
    unsigned legal, lies, too_big;
};

/* Everything that waits is popped and compared, up to the first lie. */
static void pop_all(struct rig *rig, struct random *random, struct tally *tally, uint64_t seed)
{
    static struct reference ref;

    for (unsigned shown = below(random, rig->driver.size) + 1; shown > 0; shown--) {
        unsigned head = below(random, rig->driver.size + (one_in(random, 16) ? 2 : 0));
        model_poke_head(&rig->driver, (uint16_t)head);
        reference_read(&ref, rig->memory, rig->driver.descriptors, rig->driver.size,
                       rig->ring.indirect, head);
        rig->chain.capacity = one_in(random, 3) ? below(random, 6) : VRING_MAX_SIZE;
        bool fits = reference_segments(&ref) <= rig->chain.capacity;
        int expected = !ref.legal ? -EPROTO : fits ? 1 : -E2BIG;
        int ret = rig_pop(rig);
        if (ret != expected)
            ck_abort_msg("seed %llu: pop says %d, the reference %d", (unsigned long long)seed, ret,
                         expected);
        if (ret == 1 && !reference_equals(&ref, rig->memory, &rig->chain))
            ck_abort_msg("seed %llu: another request", (unsigned long long)seed);
        tally->legal += ret == 1;
        tally->too_big += ret == -E2BIG;
        if (ret == -EPROTO) {
            tally->lies++;
            rig_expect_broken(rig);
            return;
        }
        (void)rig_push(rig, below(random, 2) ? (uint32_t)(rig->chain.writable_bytes / 2) : 0);
    }
}

enum { LIARS = 300, LIAR_LOOPS = 16 };

START_TEST(whatever_memory_says_is_read_as_the_spec_says)
{
    struct tally tally = {0};
    struct rig rig;

    rig_init(&rig, (struct model_config){.size = 1});
    for (uint64_t i = 0; i < LIARS; i++) {
        uint64_t seed = (uint64_t)_i * LIARS + i + 1;
        struct random random = {seed};
        struct model_config config = {
            .memory = rig.memory,
            .base = RIG_BASE,
            .size = (uint16_t)(1u << below(&random, 6)),
            .indirect = !one_in(&random, 8),
            .start = (uint16_t)next_random(&random),
        };
        model_init(&rig.driver, &config);
        rig.state = model_places(&rig.driver);
        ck_assert_int_eq(vring_open(&rig.ring, false, config.indirect), 0);
        poke_all(&rig, &random);
        pop_all(&rig, &random, &tally, seed);
    }
    rig_finish(&rig);
    /* Both kinds, or the test would look at nothing. */
    ck_assert_uint_gt(tally.legal, LIARS / 4);
    ck_assert_uint_gt(tally.lies, LIARS / 4);
    ck_assert_uint_gt(tally.too_big, 0);
}
END_TEST

static Suite *property_suite(void)
{
    Suite *suite = suite_create("vring property");
    TCase *tcase = tcase_create("lives");

    tcase_set_timeout(tcase, 60);
    tcase_add_loop_test(tcase, every_request_completes_once_and_no_notification_is_lost, 0,
                        LIFE_LOOPS);
    tcase_add_loop_test(tcase, whatever_memory_says_is_read_as_the_spec_says, 0, LIAR_LOOPS);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void)
{
    return unit_main(property_suite());
}
