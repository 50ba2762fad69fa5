/* SPDX-License-Identifier: MIT */
/* The rules at the top of vring.c, each from both sides: what is barely legal, and what lies. */
#include "tests/unit/vring_rig.h"
#include <string.h>

enum { SIZE = 4 };

#define TABLE 0x40000ull /* an indirect table of the test's own */
#define BUF   0x50000ull

#define N  MODEL_NEXT
#define W  MODEL_WRITE
#define I  MODEL_INDIRECT
#define NW (MODEL_NEXT | MODEL_WRITE)

struct entry {
    gpa_t gpa;
    uint32_t length;
    uint16_t flags;
    uint16_t next;
};

/* Descriptors of the ring and of the table at TABLE. What is not named is empty and ends a chain.
 */
struct request {
    const char *what;
    struct entry ring[SIZE];
    struct entry table[SIZE + 2];
    uint16_t head;
    bool no_indirect; /* the feature was not negotiated */
    /* When it is legal: */
    unsigned readable, writable;
};

static void poke(struct rig *rig, const struct request *request)
{
    for (unsigned i = 0; i < array_size(request->ring); i++) {
        const struct entry *e = &request->ring[i];
        model_poke_descriptor(&rig->driver, rig->driver.descriptors, i, e->gpa, e->length, e->flags,
                              e->next);
    }
    for (unsigned i = 0; i < array_size(request->table); i++) {
        const struct entry *e = &request->table[i];
        model_poke_descriptor(&rig->driver, TABLE, i, e->gpa, e->length, e->flags, e->next);
    }
}

static void start(struct rig *rig, const struct request *request)
{
    rig_init(rig, (struct model_config){.size = SIZE, .indirect = !request->no_indirect});
}

/* All of guest RAM: a lie must not make us write anything. */
static void copy_low(struct rig *rig, uint8_t *to)
{
    ck_assert_int_eq(memory_read(rig->memory, 0, to, RIG_LOW), 0);
}

static const struct request legal[] = {
    {"one buffer to read", {{BUF, 16}}, .readable = 1},
    {"one buffer to write", {{BUF, 16, W}}, .writable = 1},
    {"as many descriptors as the ring has",
     {{BUF, 1, N, 1}, {BUF, 1, N, 2}, {BUF, 1, NW, 3}, {BUF, 1, W}},
     .readable = 2,
     .writable = 2},
    {"backwards, from the last",
     {{BUF, 1, W}, {BUF, 1, N, 0}, {0}, {BUF, 1, N, 1}},
     .head = 3,
     .readable = 2,
     .writable = 1},
    {"next without NEXT means nothing", {{BUF, 16, W, 0xffff}}, .writable = 1},
    {"unknown flags mean nothing", {{BUF, 16, 0xfff8 | W, 0}}, .writable = 1},
    {"the last byte of RAM below the hole", {{RIG_LOW - 1, 1}}, .readable = 1},
    {"all of RAM below the hole", {{0, RIG_LOW}}, .readable = 1},
    {"all of RAM above it", {{RIG_HIGH, RIG_SIZE - RIG_LOW, W}}, .writable = 1},
    {"overlapping buffers",
     {{BUF, 16, N, 1}, {BUF, 16, NW, 2}, {BUF, 16, W}},
     .readable = 1,
     .writable = 2},
    {"empty buffers are left out, wherever they point",
     {{UINT64_MAX, 0, N, 1}, {BUF, 5, N, 2}, {RIG_LOW, 0, NW, 3}, {BUF, 7, W}},
     .readable = 1,
     .writable = 1},
    {"a request of nothing but an empty buffer", {{0, 0}}},
    {"a table of one", {{TABLE, 16, I}}, {{BUF, 1, W}}, .writable = 1},
    {"a table of as many as the ring has",
     {{TABLE, 64, I}},
     {{BUF, 1, N, 1}, {BUF, 1, N, 2}, {BUF, 1, N, 3}, {BUF, 1, W}},
     .readable = 3,
     .writable = 1},
    {"a table longer than the ring, its chain not, and in any order",
     {{TABLE, 96, I}},
     {{BUF, 1, N, 5}, {0}, {BUF, 1, W}, {0}, {0}, {BUF, 1, NW, 2}},
     .readable = 1,
     .writable = 2},
    {"a table behind direct descriptors",
     {{BUF, 1, N, 1}, {BUF, 1, NW, 2}, {TABLE, 32, I}},
     {{BUF, 1, NW, 1}, {BUF, 1, W}},
     .readable = 1,
     .writable = 3},
    {"WRITE at a table means nothing",
     {{TABLE, 32, I | W}},
     {{BUF, 1, N, 1}, {BUF, 1, W}},
     .readable = 1,
     .writable = 1},
    {"a table at the end of RAM", {{RIG_LOW - 16, 16, I}}},
    {"a table at an odd address", {{RIG_LOW - 4097, 16, I}}},
};

START_TEST(what_the_rules_allow_is_a_request)
{
    const struct request *request = &legal[_i];
    struct rig rig;

    start(&rig, request);
    poke(&rig, request);
    model_poke_head(&rig.driver, request->head);
    ck_assert_msg(rig_pop(&rig) == 1, "%s: refused", request->what);
    ck_assert_msg(
        rig.chain.readable == request->readable && rig.chain.writable == request->writable,
        "%s: %u to read and %u to write", request->what, rig.chain.readable, rig.chain.writable);
    ck_assert_uint_eq(rig.chain.head, request->head);
    ck_assert_uint_eq(rig.chain.readable_bytes, iov_size(rig.iov, rig.chain.readable));
    ck_assert_uint_eq(rig.chain.writable_bytes,
                      iov_size(vring_writable(&rig.chain), rig.chain.writable));
    ck_assert_int_eq(rig_pop(&rig), 0);
    rig_finish(&rig);
}
END_TEST

static const struct request lies[] = {
    {"a descriptor that follows itself", {{BUF, 1, N, 0}}},
    {"an empty descriptor that follows itself", {{BUF, 0, N, 0}}},
    {"a loop of all", {{BUF, 1, N, 1}, {BUF, 1, N, 2}, {BUF, 1, N, 3}, {BUF, 1, N, 0}}},
    {"a loop in a table", {{TABLE, 32, I}}, {{BUF, 1, N, 1}, {BUF, 1, N, 0}}},
    {"a chain of one more than the ring, through a table",
     {{TABLE, 80, I}},
     {{BUF, 1, N, 1}, {BUF, 1, N, 2}, {BUF, 1, N, 3}, {BUF, 1, N, 4}, {BUF, 1}}},
    {"a chain of one more than the ring, most of them empty",
     {{TABLE, 80, I}},
     {{BUF, 0, N, 1}, {BUF, 0, N, 2}, {BUF, 0, N, 3}, {BUF, 0, N, 4}, {BUF, 1}}},
    {"a chain of one more than the ring, in both tables",
     {{BUF, 1, N, 1}, {BUF, 1, N, 2}, {BUF, 1, N, 3}, {TABLE, 32, I}},
     {{BUF, 1, N, 1}, {BUF, 1}}},
    {"next just behind the ring", {{BUF, 1, N, SIZE}}},
    {"next far behind the ring", {{BUF, 1, N, 0xffff}}},
    {"next just behind the table", {{TABLE, 32, I}}, {{BUF, 1, N, 2}}},
    {"next behind a table, in the ring", {{TABLE, 16, I}, {BUF, 1}}, {{BUF, 1, N, 1}}},
    {"a head just behind the ring", {{BUF, 1}}, .head = SIZE},
    {"a head far behind the ring", {{BUF, 1}}, .head = 0xffff},
    {"a table without the feature", {{TABLE, 16, I}}, {{BUF, 1}}, .no_indirect = true},
    {"a table in a table", {{TABLE, 32, I}}, {{TABLE + 16, 16, I}, {BUF, 1}}},
    {"a table that is itself", {{TABLE, 16, I}}, {{TABLE, 16, I}}},
    {"a table and a next", {{TABLE, 16, I | N, 1}, {BUF, 1}}, {{BUF, 1}}},
    {"a table behind a table", {{TABLE, 16, I | N, 1}, {TABLE, 16, I}}, {{BUF, 1}}},
    {"an empty table", {{TABLE, 0, I}}, {{BUF, 1}}},
    {"half a descriptor", {{TABLE, 8, I}}, {{BUF, 1}}},
    {"a descriptor and a byte", {{TABLE, 17, I}}, {{BUF, 1}}},
    {"a table in the hole", {{RIG_LOW, 16, I}}},
    {"a table half in the hole", {{RIG_LOW - 16, 32, I}}},
    {"a table around the end of addresses", {{UINT64_MAX - 15, 32, I}}},
    {"a table longer than RAM", {{TABLE, 0xfffffff0, I}}, {{BUF, 1}}},
    {"reading after writing", {{BUF, 1, NW, 1}, {BUF, 1}}},
    {"reading after writing nothing", {{BUF, 0, NW, 1}, {BUF, 1}}},
    {"reading nothing after writing", {{BUF, 1, NW, 1}, {BUF, 0}}},
    {"reading after writing, in a table", {{TABLE, 32, I}}, {{BUF, 1, NW, 1}, {BUF, 1}}},
    {"reading in a table after writing", {{BUF, 1, NW, 1}, {TABLE, 16, I}}, {{BUF, 1}}},
    {"a buffer in the hole", {{RIG_LOW, 1}}},
    {"a buffer half in the hole", {{RIG_LOW - 8, 16, W}}},
    {"a buffer over the hole", {{RIG_LOW - 8, 0xffffffff, W}}},
    {"a buffer before RAM above the hole", {{RIG_HIGH - 1, 2}}},
    {"a buffer behind all RAM", {{RIG_HIGH + RIG_SIZE - RIG_LOW, 1}}},
    {"a buffer over the end of all RAM", {{RIG_HIGH + RIG_SIZE - RIG_LOW - 1, 2, W}}},
    {"a buffer at the end of addresses", {{UINT64_MAX, 1}}},
    {"a buffer around the end of addresses", {{UINT64_MAX, 2, W}}},
    {"a buffer around the end of addresses, far", {{UINT64_MAX - 0xfffffffe + 1, 0xffffffff, W}}},
    {"a second buffer in the hole", {{BUF, 1, N, 1}, {RIG_LOW, 1, W}}},
    {"a buffer in the hole, in a table", {{TABLE, 32, I}}, {{BUF, 1, N, 1}, {RIG_LOW, 1, W}}},
};

START_TEST(a_lie_breaks_the_ring_and_nothing_else)
{
    static uint8_t before[RIG_LOW], after[RIG_LOW];
    const struct request *request = &lies[_i];
    struct rig rig;

    start(&rig, request);
    poke(&rig, request);
    model_poke_head(&rig.driver, request->head);
    copy_low(&rig, before);
    ck_assert_msg(rig_pop(&rig) == -EPROTO, "%s: is believed", request->what);
    rig_expect_broken(&rig);
    copy_low(&rig, after);
    ck_assert_msg(memcmp(before, after, RIG_LOW) == 0, "%s: changes memory", request->what);

    /* The driver resets the device, and begins again. */
    rig_finish(&rig);
    start(&rig, request);
    (void)rig_offer(&rig, 1);
    ck_assert_int_eq(rig_pop(&rig), 1);
    rig_finish(&rig);
}
END_TEST

/* The guest has all the time of a pause to rewrite what is in flight. */
START_TEST(a_lie_about_a_request_in_flight_is_found)
{
    const struct request *request = &lies[_i];
    struct rig rig;

    start(&rig, request);
    (void)rig_offer(&rig, 1);
    ck_assert_int_eq(rig_pop(&rig), 1);
    poke(&rig, request);
    ck_assert_msg(vring_reopen(&rig.ring, request->head, &rig.chain) == -EPROTO, "%s: is believed",
                  request->what);
    rig_expect_broken(&rig);
    rig_finish(&rig);
}
END_TEST

/* Where there is no room for what a request has, its lies are still found. */
START_TEST(a_lie_is_found_without_room_for_it)
{
    const struct request *request = &lies[_i];
    struct rig rig;

    start(&rig, request);
    rig.chain = (struct vring_chain){.iov = NULL, .capacity = 0};
    poke(&rig, request);
    model_poke_head(&rig.driver, request->head);
    ck_assert_msg(rig_pop(&rig) == -EPROTO, "%s: is believed", request->what);
    rig_finish(&rig);
}
END_TEST

/* Rule 5, which needs more RAM than a test has; nobody touches it. */
START_TEST(a_chain_has_at_most_4_gib)
{
    static const struct {
        uint32_t last;
        int expected;
    } cases[] = {{4, 1}, {5, -EPROTO}};
    struct rig rig;

    for (size_t i = 0; i < array_size(cases); i++) {
        rig_init(&rig, (struct model_config){.size = 4});
        memory_destroy(rig.memory);
        ck_assert_int_eq(memory_create(&rig.memory, 6ull << 30, 1ull << 30, RIG_HIGH, NULL), 0);
        rig.driver.config.memory = rig.memory;
        vring_init(&rig.ring, &rig.state, rig.memory);
        ck_assert_int_eq(vring_open(&rig.ring, false, false), 0);
        struct model_part parts[] = {
            {RIG_HIGH, 0xfffffffc, false},
            {RIG_HIGH, cases[i].last, true},
        };
        ck_assert_int_ge(model_add(&rig.driver, parts, 2, 1), 0);
        (void)model_show(&rig.driver);
        ck_assert_int_eq(rig_pop(&rig), cases[i].expected);
        if (cases[i].expected == 1)
            ck_assert_uint_eq(rig.chain.readable_bytes + rig.chain.writable_bytes, 1ull << 32);
        rig_finish(&rig);
    }
}
END_TEST

/* Rule 2. */

START_TEST(an_index_is_at_most_a_ring_ahead)
{
    static const uint16_t starts[] = {0, 1, 65533, 65535, 32768};
    struct rig rig;

    for (size_t i = 0; i < array_size(starts); i++) {
        for (unsigned ahead = 0; ahead < 0x10000; ahead += ahead < 8 || ahead > 0xfff8 ? 1 : 499) {
            rig_init(&rig, (struct model_config){.size = SIZE, .start = starts[i]});
            model_poke_index(&rig.driver, (uint16_t)(starts[i] + ahead));
            int expected = ahead == 0 ? 0 : ahead <= SIZE ? 1 : -EPROTO;
            ck_assert_uint_eq(vring_waiting(&rig.ring), ahead < SIZE ? ahead : SIZE);
            ck_assert_int_eq(rig_pop(&rig), expected);
            if (expected < 0)
                rig_expect_broken(&rig);
            rig_finish(&rig);
        }
    }
}
END_TEST

START_TEST(an_index_does_not_go_back)
{
    struct rig rig;

    rig_init(&rig, (struct model_config){.size = SIZE});
    (void)rig_offer(&rig, 1);
    (void)rig_offer(&rig, 2);
    ck_assert_int_eq(rig_pop(&rig), 1);
    ck_assert_int_eq(rig_pop(&rig), 1);
    model_poke_index(&rig.driver, 1);
    ck_assert_int_eq(rig_pop(&rig), -EPROTO);
    rig_expect_broken(&rig);
    rig_finish(&rig);
}
END_TEST

START_TEST(a_device_holds_at_most_a_ring_of_requests)
{
    struct rig rig;

    rig_init(&rig, (struct model_config){.size = SIZE});
    model_poke_descriptor(&rig.driver, rig.driver.descriptors, 0, BUF, 1, W, 0);
    for (unsigned i = 0; i < SIZE; i++) {
        model_poke_head(&rig.driver, 0); /* the same one again and again */
        ck_assert_int_eq(rig_pop(&rig), 1);
    }
    vring_push(&rig.ring, &rig.chain, 1);
    model_poke_head(&rig.driver, 0); /* one is done: one more may come */
    ck_assert_int_eq(rig_pop(&rig), 1);
    model_poke_head(&rig.driver, 0);
    ck_assert_int_eq(rig_pop(&rig), -EPROTO);
    rig_expect_broken(&rig);
    rig_finish(&rig);
}
END_TEST

/* Rule 1. */

static const struct {
    const char *what;
    int expected;
    gpa_t descriptors, available, used;
    uint16_t size, next_available, next_used;
} places[] = {
    {"all at 0", 0, 0, 0, 0, 4},
    {"no size", -EINVAL, 0, 0, 0, 0},
    {"a size of three", -EINVAL, 0, 0, 0, 3},
    {"a size of one", 0, 0, 0, 0, 1},
    {"the largest size", 0, 0, 0, 0, VRING_MAX_SIZE},
    {"a larger size", -EINVAL, 0, 0, 0, 2 * VRING_MAX_SIZE},
    {"the largest power of two", -EINVAL, 0, 0, 0, 0x8000},
    {"all bits", -EINVAL, 0, 0, 0, 0xffff},
    {"descriptors at 8", -EINVAL, 8, 0, 0, 4},
    {"available at 1", -EINVAL, 0, 1, 0, 4},
    {"available at 2", 0, 0, 2, 0, 4},
    {"used at 2", -EINVAL, 0, 0, 2, 4},
    {"used at 4", 0, 0, 0, 4, 4},
    {"descriptors at the end of RAM", 0, RIG_LOW - 64, 0, 0, 4},
    {"descriptors over the end of RAM", -EFAULT, RIG_LOW - 48, 0, 0, 4},
    {"descriptors in the hole", -EFAULT, RIG_LOW, 0, 0, 4},
    {"descriptors at the end of addresses", -EFAULT, UINT64_MAX - 15, 0, 0, 4},
    {"available at the end of RAM", 0, 0, RIG_LOW - 14, 0, 4},
    {"available over the end of RAM, by used_event", -EFAULT, 0, RIG_LOW - 12, 0, 4},
    {"available in the hole", -EFAULT, 0, RIG_HIGH - 2, 0, 4},
    {"available at the end of addresses", -EFAULT, 0, UINT64_MAX - 1, 0, 4},
    {"used at the end of RAM", 0, 0, 0, RIG_LOW - 40, 4},
    {"used over the end of RAM, by avail_event", -EFAULT, 0, 0, RIG_LOW - 36, 4},
    {"used above the hole", 0, 0, 0, RIG_HIGH, 4},
    {"used behind all RAM", -EFAULT, 0, 0, RIG_HIGH + RIG_SIZE - RIG_LOW, 4},
    {"used at the end of addresses", -EFAULT, 0, 0, UINT64_MAX - 3, 4},
    {"all in flight", 0, 0, 0, 0, 4, 2, 65534},
    {"more in flight than there are", -EINVAL, 0, 0, 0, 4, 3, 65534},
    {"more done than taken", -EINVAL, 0, 0, 0, 4, 0, 1},
};

START_TEST(a_ring_opens_only_where_it_can_lie)
{
    struct rig rig;

    rig_init(&rig, (struct model_config){.size = SIZE});
    rig.state = (struct vring_state){
        .descriptors = places[_i].descriptors,
        .available = places[_i].available,
        .used = places[_i].used,
        .size = places[_i].size,
        .next_available = places[_i].next_available,
        .next_used = places[_i].next_used,
    };
    int ret = vring_open(&rig.ring, true, true);
    ck_assert_msg(ret == places[_i].expected, "%s: %d", places[_i].what, ret);
    ck_assert_int_eq(rig.ring.broken, ret < 0);
    if (ret < 0) {
        rig_expect_broken(&rig);
        rig.state = model_places(&rig.driver); /* a reset, and better places */
        ck_assert_int_eq(vring_open(&rig.ring, true, true), 0);
        ck_assert(!rig.ring.broken);
        (void)rig_offer(&rig, 1);
        ck_assert_int_eq(rig_pop(&rig), 1);
    }
    rig_finish(&rig);
}
END_TEST

/* A size that changes under an open ring (a load, a careless caller) moves no access. */
START_TEST(an_open_ring_keeps_its_size)
{
    struct rig rig;

    rig_init(&rig, (struct model_config){.size = SIZE});
    rig.state.size = 0xffff;
    model_poke_head(&rig.driver, SIZE);
    ck_assert_int_eq(rig_pop(&rig), -EPROTO);
    rig_finish(&rig);
}
END_TEST

START_TEST(a_closed_ring_does_nothing)
{
    struct rig rig;

    rig_init(&rig, (struct model_config){.size = SIZE});
    (void)rig_offer(&rig, 1);
    vring_close(&rig.ring);
    ck_assert(!rig.ring.broken);
    ck_assert_int_eq(rig_pop(&rig), -EPROTO);
    ck_assert_uint_eq(vring_waiting(&rig.ring), 0);
    ck_assert(!vring_arm(&rig.ring));
    vring_close(&rig.ring);
    rig_finish(&rig);
}
END_TEST

static Suite *vring_suite(void)
{
    Suite *suite = suite_create("vring");
    TCase *tcase = tcase_create("rules");

    tcase_add_loop_test(tcase, what_the_rules_allow_is_a_request, 0, array_size(legal));
    tcase_add_loop_test(tcase, a_lie_breaks_the_ring_and_nothing_else, 0, array_size(lies));
    tcase_add_loop_test(tcase, a_lie_about_a_request_in_flight_is_found, 0, array_size(lies));
    tcase_add_loop_test(tcase, a_lie_is_found_without_room_for_it, 0, array_size(lies));
    tcase_add_test(tcase, a_chain_has_at_most_4_gib);
    tcase_add_test(tcase, an_index_is_at_most_a_ring_ahead);
    tcase_add_test(tcase, an_index_does_not_go_back);
    tcase_add_test(tcase, a_device_holds_at_most_a_ring_of_requests);
    tcase_add_loop_test(tcase, a_ring_opens_only_where_it_can_lie, 0, array_size(places));
    tcase_add_test(tcase, an_open_ring_keeps_its_size);
    tcase_add_test(tcase, a_closed_ring_does_nothing);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void)
{
    return unit_main(vring_suite());
}
