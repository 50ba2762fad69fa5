/* SPDX-License-Identifier: MIT */
/* The way of requests through a ring: order, putting back, telling each other, dirty marks, state.
 */
#include "tests/unit/vring_rig.h"
#include <string.h>

/* Requests. */

START_TEST(a_request_goes_there_and_back)
{
    struct rig rig;
    struct model_done done;

    rig_init(&rig, (struct model_config){.size = 8});
    struct model_part parts[] = {
        model_out(&rig.driver, "to the device", 14),
        model_in(&rig.driver, 3),
        model_in(&rig.driver, 5),
    };
    int head = model_add(&rig.driver, parts, 3, 4711);
    ck_assert_int_eq(rig_pop(&rig), 0); /* not shown yet */
    ck_assert(model_show(&rig.driver));
    ck_assert_uint_eq(vring_waiting(&rig.ring), 1);
    ck_assert_int_eq(rig_pop(&rig), 1);
    ck_assert_int_eq(rig.chain.head, head);
    ck_assert_uint_eq(rig.chain.readable, 1);
    ck_assert_uint_eq(rig.chain.writable, 2);
    ck_assert_uint_eq(rig.chain.readable_bytes, 14);
    ck_assert_uint_eq(rig.chain.writable_bytes, 8);
    ck_assert_str_eq(rig.iov[0].iov_base, "to the device");
    ck_assert_uint_eq(iov_write(vring_writable(&rig.chain), 2, 0, "answer", 6), 6);
    vring_push(&rig.ring, &rig.chain, 6);
    ck_assert(!model_reap(&rig.driver, &done)); /* not published yet */
    ck_assert(vring_publish(&rig.ring));
    ck_assert(model_reap(&rig.driver, &done));
    ck_assert_uint_eq(done.token, 4711);
    ck_assert_uint_eq(done.written, 6);
    ck_assert_mem_eq(model_bytes(&rig.driver, parts[1].gpa, 3), "ans", 3);
    ck_assert_mem_eq(model_bytes(&rig.driver, parts[2].gpa, 5), "wer\xee\xee", 5);
    ck_assert(!model_reap(&rig.driver, &done));
    rig_finish(&rig);
}
END_TEST

/* Past 65536, in many sizes, with as many in flight as there is room for. */
START_TEST(indexes_wrap_around)
{
    struct rig rig;
    struct model_done done;

    for (uint16_t size = 1; size <= 64; size *= 4) {
        rig_init(&rig, (struct model_config){.size = size, .event_index = true, .start = 64000});
        uint64_t given = 0, back = 0;
        while (back < 4000) {
            for (unsigned i = 0; i < size; i++)
                (void)rig_offer(&rig, given++);
            for (unsigned i = 0; i < size; i++) {
                ck_assert_int_eq(rig_pop(&rig), 1);
                vring_push(&rig.ring, &rig.chain, 1);
            }
            ck_assert(vring_publish(&rig.ring));
            while (model_reap(&rig.driver, &done))
                ck_assert_uint_eq(done.token, back++);
            ck_assert_uint_eq(back, given);
            ck_assert(!model_want_interrupt(&rig.driver, 1));
        }
        rig_finish(&rig);
    }
}
END_TEST

START_TEST(requests_may_overtake_each_other)
{
    struct rig rig;
    struct vring_chain chains[4];
    struct iovec iov[4][1];
    struct model_done done;

    rig_init(&rig, (struct model_config){.size = 4});
    for (unsigned i = 0; i < 4; i++) {
        (void)rig_offer(&rig, i);
        chains[i] = (struct vring_chain){.iov = iov[i], .capacity = 1};
        ck_assert_int_eq(vring_pop(&rig.ring, &chains[i]), 1);
    }
    for (unsigned i = 0; i < 4; i++)
        vring_push(&rig.ring, &chains[3 - i], i % 2);
    ck_assert(vring_publish(&rig.ring));
    for (unsigned i = 0; i < 4; i++) {
        ck_assert(model_reap(&rig.driver, &done));
        ck_assert_uint_eq(done.token, 3 - i);
        ck_assert_uint_eq(done.written, i % 2);
    }
    rig_finish(&rig);
}
END_TEST

START_TEST(what_is_put_back_comes_again)
{
    struct rig rig;

    rig_init(&rig, (struct model_config){.size = 8, .start = 65534});
    uint16_t heads[4];
    for (unsigned i = 0; i < 4; i++) {
        (void)rig_offer(&rig, i);
        ck_assert_int_eq(rig_pop(&rig), 1);
        heads[i] = rig.chain.head;
    }
    ck_assert_uint_eq(vring_waiting(&rig.ring), 0);
    vring_unpop(&rig.ring, 0);
    ck_assert_int_eq(rig_pop(&rig), 0);
    vring_unpop(&rig.ring, 3);
    ck_assert_uint_eq(vring_waiting(&rig.ring), 3);
    for (unsigned i = 1; i < 4; i++) {
        ck_assert_int_eq(rig_pop(&rig), 1);
        ck_assert_uint_eq(rig.chain.head, heads[i]);
    }
    ck_assert_int_eq(rig_pop(&rig), 0);
    /* More than there are: the device's memory of them was loaded from somebody's bytes. */
    vring_unpop(&rig.ring, 5);
    rig_expect_broken(&rig);
    rig_finish(&rig);
}
END_TEST

START_TEST(a_request_without_room_is_taken_and_can_be_pushed)
{
    struct rig rig;
    struct model_done done;

    rig_init(&rig, (struct model_config){.size = 8, .indirect = true});
    for (unsigned indirect = 0; indirect < 2; indirect++) {
        struct model_part parts[4] = {{0, 0, false}, {16, 1, false}, {32, 1, false}, {48, 1, true}};
        ck_assert_int_ge(model_add_mixed(&rig.driver, parts, 4, indirect ? 0 : 4, indirect), 0);
        (void)model_show(&rig.driver);
        rig.chain.capacity = 2;
        ck_assert_int_eq(rig_pop(&rig), -E2BIG);
        ck_assert_uint_eq(rig.chain.readable + rig.chain.writable, 0);
        ck_assert_uint_eq(rig.chain.readable_bytes + rig.chain.writable_bytes, 0);
        ck_assert(!rig.ring.broken);
        vring_unpop(&rig.ring, 1);
        rig.chain.capacity = 3; /* the empty one takes no room */
        ck_assert_int_eq(rig_pop(&rig), 1);
        ck_assert_uint_eq(rig.chain.readable, 2);
        ck_assert_uint_eq(rig.chain.writable, 1);
        vring_unpop(&rig.ring, 1);
        rig.chain.capacity = 0;
        ck_assert_int_eq(rig_pop(&rig), -E2BIG);
        (void)rig_push(&rig, 0);
        ck_assert(model_reap(&rig.driver, &done));
        ck_assert_uint_eq(done.token, indirect);
        ck_assert_uint_eq(done.written, 0);
    }
    rig_finish(&rig);
}
END_TEST

/* As a machine is saved, and loaded elsewhere: places, indexes, and the heads in flight. */
START_TEST(a_ring_goes_on_after_a_load)
{
    struct rig rig;
    struct model_done done;
    uint16_t heads[3];

    for (int event_index = 0; event_index < 2; event_index++) {
        rig_init(&rig, (struct model_config){.size = 8, .event_index = event_index});
        for (unsigned i = 0; i < 3; i++) {
            (void)rig_offer(&rig, i);
            ck_assert_int_eq(rig_pop(&rig), 1);
            heads[i] = rig.chain.head;
        }
        (void)rig_offer(&rig, 3);
        ck_assert_int_eq(vring_reopen(&rig.ring, heads[0], &rig.chain), 1);
        vring_push(&rig.ring, &rig.chain, 1); /* pushed, not yet published */

        struct vring_state saved = rig.state;
        vring_close(&rig.ring);
        memset(&rig.ring, 0xa5, sizeof(rig.ring));
        memset(&rig.state, 0xa5, sizeof(rig.state));
        vring_init(&rig.ring, &rig.state, rig.memory);
        rig.state = saved;
        ck_assert_int_eq(vring_open(&rig.ring, event_index, false), 0);

        ck_assert(vring_publish(&rig.ring));
        for (unsigned i = 1; i < 3; i++) {
            ck_assert_int_eq(vring_reopen(&rig.ring, heads[i], &rig.chain), 1);
            ck_assert_uint_eq(rig.chain.head, heads[i]);
            ck_assert_uint_eq(rig.chain.writable_bytes, 1);
            vring_push(&rig.ring, &rig.chain, 1);
        }
        ck_assert_int_eq(rig_pop(&rig), 1);
        vring_push(&rig.ring, &rig.chain, 1);
        ck_assert_int_eq(vring_publish(&rig.ring), !event_index);
        for (unsigned i = 0; i < 4; i++) {
            ck_assert(model_reap(&rig.driver, &done));
            ck_assert_uint_eq(done.token, i);
        }
        rig_finish(&rig);
    }
}
END_TEST

/* A device's list of work and its ring come from two places in the same hostile bytes. */
START_TEST(work_that_the_ring_does_not_know_breaks_it)
{
    struct rig rig;

    rig_init(&rig, (struct model_config){.size = 8});
    ck_assert_int_eq(vring_reopen(&rig.ring, 0, &rig.chain), -EPROTO);
    rig_expect_broken(&rig);
    rig_finish(&rig);

    rig_init(&rig, (struct model_config){.size = 8});
    rig.chain.readable = rig.chain.writable = 0;
    vring_push(&rig.ring, &rig.chain, 0);
    rig_expect_broken(&rig);
    rig_finish(&rig);
}
END_TEST

/* Telling each other. */

/* By its definition, counted out: is `event` one of the indexes that were passed? */
static bool passes(uint16_t event, uint16_t before, uint16_t now)
{
    for (uint16_t i = before; i != now; i++)
        if (i == event)
            return true;
    return false;
}

START_TEST(the_driver_is_interrupted_when_its_index_is_passed)
{
    static const uint16_t starts[] = {0, 7, 65528, 65535, 32767};
    struct rig rig;

    rig_init(&rig, (struct model_config){.size = 16, .event_index = true});
    uint16_t *used_event = model_bytes(&rig.driver, rig.driver.available + 4 + 2 * 16, 2);
    for (size_t s = 0; s < array_size(starts); s++) {
        for (unsigned pushed = 0; pushed <= 16; pushed++) {
            for (int distance = -20; distance <= 40; distance++) {
                uint16_t now = (uint16_t)(starts[s] + pushed);
                *used_event = (uint16_t)(starts[s] + distance);
                rig.state.signalled = starts[s];
                rig.state.next_used = now;
                if (vring_publish(&rig.ring) != passes(*used_event, starts[s], now))
                    ck_abort_msg("from %u to %u, event %u", starts[s], now, *used_event);
                if (vring_publish(&rig.ring))
                    ck_abort_msg("an interrupt for nothing new");
            }
        }
    }
    rig_finish(&rig);
}
END_TEST

START_TEST(without_the_event_index_a_flag_says_no_interrupt)
{
    struct rig rig;
    struct model_done done;

    rig_init(&rig, (struct model_config){.size = 8});
    for (unsigned i = 0; i < 40; i++) {
        bool wanted = i % 3 != 0;
        if (wanted)
            ck_assert(!model_want_interrupt(&rig.driver, 1));
        else
            model_want_no_interrupt(&rig.driver);
        (void)rig_offer(&rig, i);
        ck_assert_int_eq(rig_pop(&rig), 1);
        ck_assert_int_eq(rig_push(&rig, 0), wanted);
        ck_assert(model_reap(&rig.driver, &done));
    }
    rig_finish(&rig);
}
END_TEST

START_TEST(one_interrupt_for_many_requests)
{
    struct rig rig;
    struct model_done done;

    rig_init(&rig, (struct model_config){.size = 8, .event_index = true, .start = 65530});
    for (unsigned round = 0; round < 20; round++) {
        ck_assert(!model_want_interrupt(&rig.driver, 5));
        for (unsigned i = 0; i < 8; i++)
            (void)rig_offer(&rig, i);
        for (unsigned i = 0; i < 8; i++) {
            ck_assert_int_eq(rig_pop(&rig), 1);
            ck_assert_int_eq(rig_push(&rig, 0), i == 4);
        }
        while (model_reap(&rig.driver, &done))
            ;
    }
    rig_finish(&rig);
}
END_TEST

START_TEST(the_driver_tells_an_armed_device_and_no_other)
{
    struct rig rig;
    struct model_done done;

    for (int event_index = 0; event_index < 2; event_index++) {
        for (uint16_t start = 65520; start != 20; start += 9) {
            rig_init(&rig,
                     (struct model_config){.size = 8, .event_index = event_index, .start = start});
            ck_assert(!vring_arm(&rig.ring));
            ck_assert(rig_offer(&rig, 0)); /* the first one tells */
            vring_disarm(&rig.ring);
            ck_assert(!rig_offer(&rig, 1)); /* the others need not: we are at it */
            ck_assert_int_eq(rig_pop(&rig), 1);
            ck_assert(!rig_offer(&rig, 2));
            ck_assert(vring_arm(&rig.ring)); /* two came meanwhile */
            vring_disarm(&rig.ring);
            for (unsigned i = 0; i < 2; i++) {
                ck_assert_int_eq(rig_pop(&rig), 1);
                (void)rig_push(&rig, 0);
            }
            ck_assert_int_eq(rig_pop(&rig), 0);
            ck_assert(!vring_arm(&rig.ring));
            ck_assert(rig_offer(&rig, 3));
            while (model_reap(&rig.driver, &done))
                ;
            rig_finish(&rig);
        }
    }
}
END_TEST

/* An unpop makes no new request that the driver would tell of: arm sees what was put back. */
START_TEST(what_was_put_back_is_more_work_for_arm)
{
    struct rig rig;

    for (int event_index = 0; event_index < 2; event_index++) {
        rig_init(&rig, (struct model_config){.size = 8, .event_index = event_index});
        (void)rig_offer(&rig, 0);
        ck_assert_int_eq(rig_pop(&rig), 1);
        ck_assert(!vring_arm(&rig.ring));
        vring_unpop(&rig.ring, 1);
        ck_assert(vring_arm(&rig.ring));
        rig_finish(&rig);
    }
}
END_TEST

/* Dirty marks. */

enum { PAGES = RIG_SIZE / PAGE_SIZE, LOW_PAGES = RIG_LOW / PAGE_SIZE };

/* Exactly these pages, as a list that ends with 0. */
static void expect_dirty(struct rig *rig, const unsigned *pages, const char *after)
{
    uint64_t marks[PAGES / 64] = {0};

    memory_log_harvest(rig->memory, 0, array_size(marks), marks);
    for (; *pages != 0; pages++) {
        ck_assert_msg(marks[*pages / 64] >> (*pages % 64) & 1, "%s: page %u has no mark", after,
                      *pages);
        marks[*pages / 64] &= ~(1ull << (*pages % 64));
    }
    for (unsigned page = 0; page < PAGES; page++)
        if (marks[page / 64] >> (page % 64) & 1)
            ck_abort_msg("%s: page %u has a mark", after, page);
}

#define EXPECT_DIRTY(rig, after, ...) expect_dirty(rig, (const unsigned[]){__VA_ARGS__}, after)

/* The used ring so that its index, its entries and avail_event lie in a page each: 2, 3 and 4. */
static void init_marked(struct rig *rig, bool event_index)
{
    rig_init(rig, (struct model_config){.size = 512, .event_index = event_index});
    rig->driver.used = 0x2ffc;
    rig->state = model_places(&rig->driver);
    ck_assert_int_eq(vring_open(&rig->ring, event_index, false), 0);
    ck_assert_int_eq(memory_log_start(rig->memory), 0);
}

START_TEST(marks_are_made_for_what_is_written_and_nothing_more)
{
    struct rig rig;

    init_marked(&rig, true);
    struct model_part parts[] = {
        {0x50000, 0x2000, false},
        {0x60800, 0x1000, true}, /* pages 0x60 and 0x61 */
        {0x70000, 0x3000, true},
        {RIG_HIGH, 1, true}, /* the first page behind the hole */
    };
    for (unsigned i = 0; i < 3; i++)
        ck_assert_int_ge(model_add(&rig.driver, parts, array_size(parts), i), 0);
    (void)model_show(&rig.driver);
    EXPECT_DIRTY(&rig, "a show", 0);

    ck_assert_int_eq(rig_pop(&rig), 1);
    EXPECT_DIRTY(&rig, "a pop", 0);
    vring_push(&rig.ring, &rig.chain, 0);
    EXPECT_DIRTY(&rig, "a push of nothing", 3, 0);
    ck_assert(vring_publish(&rig.ring));
    EXPECT_DIRTY(&rig, "a publish", 2, 0);
    ck_assert(!vring_publish(&rig.ring));
    EXPECT_DIRTY(&rig, "a publish of nothing", 0);
    vring_disarm(&rig.ring);
    EXPECT_DIRTY(&rig, "a disarm", 0);
    ck_assert(vring_arm(&rig.ring));
    EXPECT_DIRTY(&rig, "an arm", 4, 0);

    ck_assert_int_eq(rig_pop(&rig), 1);
    vring_push(&rig.ring, &rig.chain, 0x1001);
    EXPECT_DIRTY(&rig, "a push of a part", 3, 0x60, 0x61, 0x70, 0);
    ck_assert_int_eq(rig_pop(&rig), 1);
    vring_push(&rig.ring, &rig.chain, 0x4001);
    EXPECT_DIRTY(&rig, "a push of all", 3, 0x60, 0x61, 0x70, 0x71, 0x72, LOW_PAGES, 0);
    rig_finish(&rig);
}
END_TEST

START_TEST(flags_are_marked)
{
    struct rig rig;

    init_marked(&rig, false);
    vring_disarm(&rig.ring);
    EXPECT_DIRTY(&rig, "a disarm", 2, 0);
    ck_assert(!vring_arm(&rig.ring));
    EXPECT_DIRTY(&rig, "an arm", 2, 0);
    rig_finish(&rig);
}
END_TEST

/* Bytes that a disk has filled have changed, even if nobody will ever be told. */
START_TEST(bytes_of_a_broken_ring_are_marked)
{
    struct rig rig;

    init_marked(&rig, true);
    struct model_part part = {0x60000, 16, true};
    ck_assert_int_ge(model_add(&rig.driver, &part, 1, 1), 0);
    (void)model_show(&rig.driver);
    ck_assert_int_eq(rig_pop(&rig), 1);
    struct vring_chain chain = rig.chain;
    model_poke_index(&rig.driver, 0);
    ck_assert_int_eq(rig_pop(&rig), -EPROTO);
    vring_push(&rig.ring, &chain, 16);
    EXPECT_DIRTY(&rig, "a push", 0x60, 0);
    rig_finish(&rig);
}
END_TEST

/* State. */

START_TEST(the_state_keeps_its_promises)
{
    static const struct vring_state sample = {
        .descriptors = 0x123456780,
        .available = 0x23456789a,
        .used = 0x3456789ac,
        .size = 256,
        .next_available = 0xfff1,
        .next_used = 0xffe2,
        .signalled = 0xffd3,
        .enabled = true,
    };

    unit_check_table(&vring_state_table, &sample);
}
END_TEST

START_TEST(a_state_of_an_impossible_size_is_refused)
{
    static const uint16_t good[] = {0, 1, 2, 4, 8, 512, VRING_MAX_SIZE};
    static const uint16_t bad[] = {3, 5, 1023, 1025, 2048, 0x8000, 0xffff};
    struct err err;

    for (size_t i = 0; i < array_size(good); i++)
        ck_assert_int_eq(
            state_check(&vring_state_table, &(struct vring_state){.size = good[i]}, &err), 0);
    for (size_t i = 0; i < array_size(bad); i++) {
        ck_assert_int_lt(
            state_check(&vring_state_table, &(struct vring_state){.size = bad[i]}, &err), 0);
        ck_assert_ptr_nonnull(strstr(err.text, "power of two"));
    }
}
END_TEST

static Suite *flow_suite(void)
{
    Suite *suite = suite_create("vring flow");
    TCase *requests = tcase_create("requests");
    TCase *telling = tcase_create("telling");
    TCase *marks = tcase_create("marks and state");

    tcase_add_test(requests, a_request_goes_there_and_back);
    tcase_add_test(requests, indexes_wrap_around);
    tcase_add_test(requests, requests_may_overtake_each_other);
    tcase_add_test(requests, what_is_put_back_comes_again);
    tcase_add_test(requests, a_request_without_room_is_taken_and_can_be_pushed);
    tcase_add_test(requests, a_ring_goes_on_after_a_load);
    tcase_add_test(requests, work_that_the_ring_does_not_know_breaks_it);
    suite_add_tcase(suite, requests);

    tcase_add_test(telling, the_driver_is_interrupted_when_its_index_is_passed);
    tcase_add_test(telling, without_the_event_index_a_flag_says_no_interrupt);
    tcase_add_test(telling, one_interrupt_for_many_requests);
    tcase_add_test(telling, the_driver_tells_an_armed_device_and_no_other);
    tcase_add_test(telling, what_was_put_back_is_more_work_for_arm);
    suite_add_tcase(suite, telling);

    tcase_add_test(marks, marks_are_made_for_what_is_written_and_nothing_more);
    tcase_add_test(marks, flags_are_marked);
    tcase_add_test(marks, bytes_of_a_broken_ring_are_marked);
    tcase_add_test(marks, the_state_keeps_its_promises);
    tcase_add_test(marks, a_state_of_an_impossible_size_is_refused);
    suite_add_tcase(suite, marks);
    return suite;
}

int main(void)
{
    return unit_main(flow_suite());
}
