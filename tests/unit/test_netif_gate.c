/* SPDX-License-Identifier: MIT */
/* The gate before an interface, on one thread. With several: test_netif_gate_threads.c. */
#include "host/frame_ring.h"
#include "tests/unit/gate_rig.h"

enum { BUDGET = 1 << 20, BIG = NETIF_MAX_FRAME };

static struct gate_rig rig;

static void set_up(void)
{
    rig_init(&rig);
}

static void tear_down(void)
{
    rig_finish(&rig);
}

static uint64_t random_state;

static unsigned chance(unsigned of)
{
    random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)(random_state >> 33) % of;
}

/* --- open ------------------------------------------------------------------------------------- */

START_TEST(open_it_is_not_there)
{
    uint8_t bytes[64];
    const struct iovec iov = {.iov_base = bytes, .iov_len = sizeof(bytes)};

    ck_assert_uint_eq(rig.netif->info.max_queues, QUEUES);
    ck_assert_uint_eq(rig.netif->info.offloads, NETIF_CSUM);
    ck_assert_uint_eq(rig.netif->info.mtu, 9000);
    ck_assert(rig.netif->info.link_up);
    for (unsigned i = 0; i < 1000; i++) {
        ck_assert_int_eq(rig_send_in(&rig, i % QUEUES, SMALLEST + i, 1 + i % 17), SMALLEST + i);
        ck_assert_uint_eq(rig.wire.seen[i].queue, i % QUEUES);
        ck_assert_uint_eq(rig.wire.seen_count, i + 1); /* at once */
    }
    rig_expect(&rig, 1000);
    ck_assert_int_eq(rig.netif->ops->receive(rig.netif, 0, &iov, 1), -EAGAIN);
    ck_assert_int_eq(rig.netif->ops->receive(rig.netif, 1, &iov, 1), sizeof("for the guest"));
    ck_assert_str_eq((const char *)bytes, "for the guest");
    ck_assert_int_eq(rig.netif->ops->configure(rig.netif, QUEUES + 1, 0), -EINVAL);
    ck_assert_int_eq(rig.netif->ops->configure(rig.netif, 2, NETIF_CSUM), 0);
    ck_assert_uint_eq(rig.wire.configured_queues, 2);
    ck_assert_uint_eq(rig.wire.configured_offloads, NETIF_CSUM);
    rig.wire.refusal = -EIO;
    ck_assert_int_eq(rig_send(&rig, 0, SMALLEST), -EIO);
    rig.wire.refusal = 0;
    ck_assert_uint_eq(netif_gate_held(rig.gate), 0);
    ck_assert_uint_eq(rig.waits, 0);
}
END_TEST

START_TEST(open_it_tells_what_the_interface_tells)
{
    const struct netif_handlers *inner = rig.wire.handlers;

    rig_watch(&rig, 1, NETIF_READABLE | NETIF_WRITABLE);
    ck_assert_uint_eq(rig.wire.watched[1], NETIF_READABLE | NETIF_WRITABLE);
    rig_settle(&rig);
    ck_assert_uint_eq(rig.ready_what[1], NETIF_READABLE | NETIF_WRITABLE);
    rig_watch(&rig, 1, 0);
    ck_assert_uint_eq(rig.wire.watched[1], 0);
    rig.wire.room = 0;
    ck_assert_int_eq(rig_send(&rig, 2, SMALLEST), -EAGAIN);
    rig_watch(&rig, 2, NETIF_WRITABLE);
    rig_settle(&rig);
    ck_assert_uint_eq(rig.ready[2], 0);
    wire_go_on(&rig.wire, 5);
    rig_settle(&rig);
    ck_assert_uint_ge(rig.ready[2], 1);
    rig.wire.netif.info.link_up = false;
    inner->link_changed(inner->ctx, false);
    inner->trouble(inner->ctx, "trouble");
    ck_assert_uint_eq(rig.links, 1);
    ck_assert_uint_eq(rig.troubles, 1);
}
END_TEST

/* --- held ------------------------------------------------------------------------------------- */

START_TEST(held_frames_leave_with_their_number_and_not_before)
{
    rig_send(&rig, 0, SMALLEST);
    for (uint64_t number = 10; number < 15; number++) {
        number == 10 ? rig_hold(&rig, number, BUDGET) : rig_mark(&rig, number);
        for (unsigned i = 0; i < 7; i++)
            ck_assert_int_gt(rig_send_in(&rig, i % QUEUES, SMALLEST + i * 100, 1 + i), 0);
    }
    rig_settle(&rig);
    rig_expect(&rig, 1);
    ck_assert_uint_ge(netif_gate_held(rig.gate), 35 * SMALLEST);
    netif_gate_release(rig.gate, 9);
    rig_settle(&rig);
    rig_expect(&rig, 1);
    netif_gate_release(rig.gate, 10);
    ck_assert_uint_eq(rig.wire.seen_count, 1); /* it happens on the loop */
    rig_settle(&rig);
    rig_expect(&rig, 8);
    netif_gate_release(rig.gate, 12);
    netif_gate_release(rig.gate, 11); /* a late one takes nothing back */
    rig_settle(&rig);
    rig_expect(&rig, 22);
    netif_gate_release(rig.gate, 14);
    rig_settle(&rig);
    rig_expect(&rig, 36);
    ck_assert_uint_eq(netif_gate_held(rig.gate), 0);
    for (unsigned i = 1; i < 36; i++)
        ck_assert_uint_eq(rig.wire.seen[i].queue, (i - 1) % 7 % QUEUES);
}
END_TEST

/* Its own number may be allowed while frames of it are still sent. */
START_TEST(what_is_allowed_already_waits_for_nobody)
{
    rig_hold(&rig, 1, BUDGET);
    netif_gate_release(rig.gate, 1);
    rig_send(&rig, 0, SMALLEST);
    rig_settle(&rig);
    rig_expect(&rig, 1);
    ck_assert_uint_eq(rig.waits, 0);
    rig_mark(&rig, 2);
    rig_send(&rig, 0, SMALLEST);
    rig_settle(&rig);
    rig_expect(&rig, 1);
}
END_TEST

START_TEST(whoever_waits_for_output_hears_of_it_once_a_span)
{
    rig_hold(&rig, 1, BUDGET);
    ck_assert_uint_eq(rig.waits, 0);
    for (unsigned i = 0; i < 5; i++)
        rig_send(&rig, i % QUEUES, SMALLEST);
    ck_assert_uint_eq(rig.waits, 1);
    rig_mark(&rig, 2);
    ck_assert_uint_eq(rig.waits, 1);
    rig_send(&rig, 0, SMALLEST); /* with others before it that wait */
    rig_send(&rig, 0, SMALLEST);
    ck_assert_uint_eq(rig.waits, 2);
    netif_gate_release(rig.gate, 2);
    rig_settle(&rig);
    rig_expect(&rig, 7);
    rig_mark(&rig, 3);
    rig_mark(&rig, 4);
    rig_settle(&rig);
    ck_assert_uint_eq(rig.waits, 2);
    rig_send(&rig, 0, SMALLEST);
    ck_assert_uint_eq(rig.waits, 3);
    netif_gate_open(rig.gate);
    rig_send(&rig, 0, SMALLEST); /* behind one that waits, but for nobody's word */
    ck_assert_uint_eq(rig.waits, 3);
}
END_TEST

static void send_tcp(unsigned flags)
{
    uint8_t bytes[NETIF_HEADER + 14 + 20 + 20] = {0}, *ip = bytes + NETIF_HEADER + 14;
    const struct iovec iov = {.iov_base = bytes, .iov_len = sizeof(bytes)};
    ip[-2] = 8;
    ip[0] = 0x45;
    ip[3] = 40;
    ip[9] = 6;
    ip[20 + 12] = 0x50;
    ip[20 + 13] = (uint8_t)flags;
    ck_assert_int_eq(rig.netif->ops->send(rig.netif, 0, &iov, 1), sizeof(bytes));
}

START_TEST(an_acknowledgement_is_not_urgent_and_what_follows_it_is)
{
    enum { ACK = 16, FIN = 1 };
    netif_gate_hold(rig.gate, 1, BUDGET);
    for (unsigned i = 0; i < 3; i++)
        send_tcp(ACK);
    ck_assert_uint_eq(rig.waits, 1);
    ck_assert_uint_eq(rig.urgent, 0);
    for (unsigned i = 0; i < 3; i++)
        send_tcp(ACK | FIN);
    ck_assert_uint_eq(rig.waits, 2);
    ck_assert_uint_eq(rig.urgent, 1);
    netif_gate_mark(rig.gate, 2);
    send_tcp(ACK | FIN);
    send_tcp(ACK);
    ck_assert_uint_eq(rig.waits, 3);
    ck_assert_uint_eq(rig.urgent, 2);
}
END_TEST

/* --- the budget ------------------------------------------------------------------------------- */

START_TEST(the_budget_is_kept)
{
    const size_t length = _i ? BIG : SMALLEST;
    unsigned count = 0;

    rig_hold(&rig, 1, BUDGET);
    while (rig_send(&rig, 0, length) >= 0) {
        count++;
        ck_assert_uint_le(netif_gate_held(rig.gate), BUDGET);
    }
    ck_assert_uint_ge(count, BUDGET / (length + 32));
    ck_assert_int_eq(rig_send(&rig, 1, length), -EAGAIN);
    rig_watch(&rig, 0, NETIF_WRITABLE);
    rig_watch(&rig, 1, NETIF_WRITABLE);
    rig_settle(&rig);
    ck_assert_uint_eq(rig.ready[0] + rig.ready[1], 0);
    ck_assert_uint_eq(rig.wire.watched[0], 0); /* it has room, and would say so all the time */
    rig_mark(&rig, 2);
    rig_settle(&rig);
    ck_assert_uint_eq(rig.ready[0] + rig.ready[1], 0);
    netif_gate_release(rig.gate, 1);
    rig_settle(&rig);
    ck_assert_uint_gt(rig.ready[0], 0);
    ck_assert_uint_gt(rig.ready[1], 0);
    unsigned told = rig.ready[0];
    rig_settle(&rig);
    ck_assert_uint_gt(rig.ready[0], told); /* as long as it is so */
    while (netif_gate_held(rig.gate))
        rig_settle(&rig);
    rig_expect(&rig, count);
    ck_assert_int_gt(rig_send(&rig, 1, length), 0);
    rig_watch(&rig, 0, 0);
    rig_settle(&rig);
    told = rig.ready[0];
    rig_settle(&rig);
    ck_assert_uint_eq(rig.ready[0], told);
}
END_TEST

/* Room for a small frame is none for who wants to send a large one. */
START_TEST(room_is_what_the_refused_frame_needs)
{
    rig_hold(&rig, 1, 4 * BIG);
    while (rig_send(&rig, 0, BIG) >= 0)
        continue;
    rig_watch(&rig, 0, NETIF_WRITABLE);
    rig_watch(&rig, 1, NETIF_WRITABLE);
    rig_settle(&rig);
    ck_assert_uint_eq(rig.ready[0], 0);
    ck_assert_uint_gt(rig.ready[1], 0);
    ck_assert_int_gt(rig_send(&rig, 1, SMALLEST), 0);
}
END_TEST

START_TEST(a_largest_frame_finds_room_whatever_the_budget)
{
    rig_hold(&rig, 1, _i * 1000);
    for (unsigned i = 1; i < 4; i++) {
        ck_assert_int_eq(rig_send_in(&rig, 0, BIG, 17), BIG);
        ck_assert_int_eq(rig_send(&rig, 0, BIG), -EAGAIN);
        netif_gate_release(rig.gate, i);
        rig_mark(&rig, i + 1);
        rig_settle(&rig);
        rig_expect(&rig, i);
    }
}
END_TEST

START_TEST(a_client_that_goes_on_when_it_is_told_loses_nothing)
{
    rig.sends = true;
    rig.pending = 5000;
    rig_hold(&rig, 1, 100 << 10);
    rig_watch(&rig, 1, NETIF_WRITABLE);
    for (uint64_t number = 1; rig.pending; number++) {
        ck_assert_uint_lt(number, 5000);
        rig_settle(&rig);
        netif_gate_release(rig.gate, number);
        rig_mark(&rig, number + 1);
    }
    netif_gate_open(rig.gate);
    rig_settle(&rig);
    rig_expect(&rig, 5000);
}
END_TEST

/* --- the interface behind it ------------------------------------------------------------------ */

START_TEST(a_full_interface_keeps_the_order)
{
    rig_hold(&rig, 1, BUDGET);
    for (unsigned i = 0; i < 20; i++)
        rig_send(&rig, i % QUEUES, SMALLEST + i);
    rig.wire.room = 5;
    netif_gate_release(rig.gate, 1);
    rig_settle(&rig);
    rig_expect(&rig, 5);
    ck_assert_uint_eq(rig.wire.watched[5 % QUEUES], NETIF_WRITABLE);
    rig_mark(&rig, 2);
    rig_send(&rig, 0, SMALLEST);
    rig_settle(&rig);
    rig_expect(&rig, 5);
    rig.wire.full[2] = true; /* one queue is, and what is behind its frame waits, too */
    rig.wire.room = 100;
    loop_post(rig.loop, &rig.wire.tell);
    rig_settle(&rig);
    rig_expect(&rig, 5);
    wire_go_on(&rig.wire, 100);
    rig_settle(&rig);
    rig_expect(&rig, 20); /* and not the one of the next number */
    ck_assert_uint_eq(rig.wire.watched[2], 0);
    netif_gate_open(rig.gate);
    rig_settle(&rig);
    rig_expect(&rig, 21);
}
END_TEST

START_TEST(a_frame_that_is_refused_for_good_is_lost_and_the_next_ones_go)
{
    rig_hold(&rig, 1, BUDGET);
    rig_send(&rig, 0, SMALLEST);
    netif_gate_release(rig.gate, 1);
    rig.wire.refusal = -EIO;
    rig_settle(&rig);
    rig.wire.refusal = 0;
    ck_assert_uint_eq(netif_gate_held(rig.gate), 0);
    rig_send(&rig, 0, SMALLEST);
    rig_settle(&rig);
    ck_assert_uint_eq(rig.wire.seen_count, 1);
    ck_assert_uint_eq(rig.wire.seen[0].row, 1);
}
END_TEST

/* A driver that was loaded anew uses one queue, of which there were three. */
START_TEST(frames_of_a_queue_that_is_gone_leave_by_the_first)
{
    rig_hold(&rig, 1, BUDGET);
    for (unsigned i = 0; i < 6; i++)
        rig_send(&rig, i % QUEUES, SMALLEST);
    rig.wire.full[2] = true;
    netif_gate_release(rig.gate, 1);
    rig_settle(&rig);
    rig_expect(&rig, 2);
    ck_assert_int_eq(rig.netif->ops->configure(rig.netif, 1, 0), 0);
    rig_settle(&rig);
    rig_expect(&rig, 6);
    for (unsigned i = 2; i < 6; i++)
        ck_assert_uint_eq(rig.wire.seen[i].queue, 0);
}
END_TEST

START_TEST(many_frames_leave_in_several_turns)
{
    rig_hold(&rig, 1, BUDGET);
    for (unsigned i = 0; i < 5000; i++)
        ck_assert_int_gt(rig_send(&rig, 0, SMALLEST), 0);
    netif_gate_release(rig.gate, 1);
    while (netif_gate_held(rig.gate))
        rig_settle(&rig);
    rig_expect(&rig, 5000);
}
END_TEST

/* --- open, shut, and other lives -------------------------------------------------------------- */

START_TEST(what_waits_leaves_before_what_is_sent_after_the_opening)
{
    rig_hold(&rig, 1, BUDGET);
    rig_send(&rig, 0, SMALLEST);
    rig_send(&rig, 1, SMALLEST);
    netif_gate_open(rig.gate);
    rig_send(&rig, 2, SMALLEST); /* before the loop has had its turn */
    ck_assert_uint_eq(rig.wire.seen_count, 0);
    rig_watch(&rig, 0, NETIF_WRITABLE);
    rig_settle(&rig);
    rig_expect(&rig, 3);
    ck_assert_uint_eq(rig.wire.watched[0], NETIF_WRITABLE); /* it is the interface's again */
    rig_send(&rig, 0, SMALLEST);
    rig_expect(&rig, 4);
}
END_TEST

/* Protected once more, by somebody who counts from 1 again. */
START_TEST(a_second_hold_keeps_what_is_new_and_lets_go_what_was_free)
{
    rig_hold(&rig, 100, BUDGET);
    for (unsigned i = 0; i < 4; i++)
        rig_send(&rig, 0, SMALLEST);
    rig.wire.room = 2;
    netif_gate_release(rig.gate, 100);
    netif_gate_open(rig.gate);
    rig_settle(&rig);
    rig_expect(&rig, 2);
    rig_hold(&rig, 1, BUDGET);
    rig_send(&rig, 0, SMALLEST);
    wire_go_on(&rig.wire, 100);
    rig_settle(&rig);
    rig_expect(&rig, 4);
    ck_assert_uint_eq(rig.waits, 2);
    netif_gate_release(rig.gate, 1);
    rig_settle(&rig);
    rig_expect(&rig, 5);
}
END_TEST

START_TEST(a_hold_while_it_holds_is_a_mark)
{
    rig_hold(&rig, 1, BUDGET);
    rig_send(&rig, 0, SMALLEST);
    rig_hold(&rig, 2, 0);
    rig_send(&rig, 0, SMALLEST);
    netif_gate_release(rig.gate, 1);
    rig_settle(&rig);
    rig_expect(&rig, 1);
    ck_assert_uint_eq(rig.waits, 2);
}
END_TEST

/* Somebody waited for the interface, which says nothing more of it to anybody. */
START_TEST(who_waited_for_the_interface_finds_room_at_the_gate)
{
    rig.wire.room = 0;
    ck_assert_int_eq(rig_send(&rig, 1, SMALLEST), -EAGAIN);
    rig_watch(&rig, 1, NETIF_WRITABLE);
    rig_hold(&rig, 1, BUDGET);
    ck_assert_uint_eq(rig.wire.watched[1], 0);
    rig_settle(&rig);
    ck_assert_uint_eq(rig.ready_what[1], NETIF_WRITABLE);
    ck_assert_int_gt(rig_send(&rig, 1, SMALLEST), 0);
    rig_watch(&rig, 1, 0);
    rig_settle(&rig);
    rig.ready[1] = 0;
    rig_watch(&rig, 1, NETIF_WRITABLE); /* and so does who asks later */
    rig_settle(&rig);
    ck_assert_uint_gt(rig.ready[1], 0);
}
END_TEST

START_TEST(shut_nothing_leaves_and_nobody_waits)
{
    if (_i)
        rig_hold(&rig, 1, BUDGET);
    while (_i && rig_send(&rig, 0, BIG) >= 0)
        continue;
    rig_watch(&rig, 0, NETIF_READABLE | NETIF_WRITABLE);
    netif_gate_release(rig.gate, 5);
    netif_gate_shut(rig.gate);
    ck_assert_uint_eq(netif_gate_held(rig.gate), 0);
    ck_assert_int_eq(rig_send(&rig, 0, BIG), BIG);
    rig_settle(&rig);
    ck_assert_uint_eq(rig.ready_what[0], NETIF_READABLE | NETIF_WRITABLE);
    netif_gate_open(rig.gate);
    rig_hold(&rig, 9, BUDGET);
    netif_gate_release(rig.gate, 100);
    ck_assert_int_eq(rig_send(&rig, 0, BIG), BIG);
    rig_settle(&rig);
    ck_assert_uint_eq(rig.wire.seen_count, 0);
    ck_assert_uint_eq(netif_gate_held(rig.gate), 0);
}
END_TEST

static void shut_here(const struct frame *frame)
{
    if (frame->row == 3)
        netif_gate_shut(rig.gate);
}

START_TEST(shut_in_mid_release_the_frame_under_way_is_the_last)
{
    rig_hold(&rig, 1, BUDGET);
    for (unsigned i = 0; i < 100; i++)
        rig_send(&rig, 0, SMALLEST);
    rig.wire.arrived = shut_here;
    netif_gate_release(rig.gate, 1);
    rig_settle(&rig);
    rig_expect(&rig, 4);
}
END_TEST

START_TEST(what_waits_outlives_a_detach)
{
    rig_hold(&rig, 1, BUDGET);
    for (unsigned i = 0; i < 10; i++)
        rig_send(&rig, 0, SMALLEST);
    rig_watch(&rig, 0, NETIF_WRITABLE);
    rig.wire.room = 4;
    netif_gate_release(rig.gate, 1);
    rig_settle(&rig);
    rig_mark(&rig, 2);
    rig_send(&rig, 0, SMALLEST);
    rig.netif->ops->detach(rig.netif);
    wire_go_on(&rig.wire, 100);
    netif_gate_release(rig.gate, 1);
    rig_settle(&rig);
    rig_expect(&rig, 4);
    unsigned told = rig.ready[0];
    rig_attach(&rig);
    rig_settle(&rig);
    rig_expect(&rig, 10);
    ck_assert_uint_eq(rig.ready[0], told); /* the second life begins unwatched */
    rig.netif->ops->detach(rig.netif);
    netif_gate_release(rig.gate, 2);
    rig_attach(&rig);
    rig_settle(&rig);
    rig_expect(&rig, 11);
}
END_TEST

/* --- anything --------------------------------------------------------------------------------- */

/* Sizes, spans, releases and a full interface as chance will have it: the ring grows and goes
 * round, and what has arrived is what was allowed, in order. */
START_TEST(whatever_happens_order_and_numbers_are_kept)
{
    static uint64_t number_of[MOST_SEEN];
    uint64_t number = 1, allowed = 0;
    unsigned refused = 0;

    random_state = (uint64_t)_i;
    rig_hold(&rig, number, (64 << 10) << chance(6));
    for (unsigned step = 0; step < 4000; step++) {
        unsigned what = chance(20);
        if (what == 0) {
            rig_mark(&rig, ++number);
        } else if (what == 1) {
            allowed += chance((unsigned)(number - allowed) + 1);
            netif_gate_release(rig.gate, allowed);
        } else if (what == 2) {
            rig.wire.room = chance(2) ? chance(10) : 0;
            loop_post(rig.loop, &rig.wire.tell);
        } else if (what < 5) {
            rig_settle(&rig);
        } else {
            number_of[rig.row] = number;
            refused += rig_send_in(&rig, chance(QUEUES),
                                   SMALLEST + chance(chance(4) ? 1600 : BIG - SMALLEST + 1),
                                   1 + chance(4)) < 0;
        }
        if (rig.wire.seen_count)
            ck_assert_uint_le(rig.wire.seen[rig.wire.seen_count - 1].number, allowed);
    }
    ck_assert_uint_gt(refused, 0);
    rig_expect(&rig, rig.wire.seen_count);
    for (unsigned i = 0; i < rig.wire.seen_count; i++)
        ck_assert_uint_eq(rig.wire.seen[i].number, number_of[i]);
    wire_go_on(&rig.wire, UINT32_MAX);
    rig_settle(&rig);
    uint64_t due = 0;
    while (due < rig.row && number_of[due] <= allowed)
        due++;
    while (rig.wire.seen_count < due)
        rig_settle(&rig);
    rig_expect(&rig, due);
    netif_gate_open(rig.gate);
    while (netif_gate_held(rig.gate))
        rig_settle(&rig);
    rig_expect(&rig, rig.row);
}
END_TEST

/* Memory is a promise, too. */
START_TEST(the_ring_grows_up_to_its_bound_and_no_further)
{
    enum { BOUND = 200 << 10 };
    static uint8_t bytes[1500];
    struct frame_ring ring = {0};
    const struct iovec iov = {.iov_base = bytes, .iov_len = sizeof(bytes)};
    const struct frame_record record = {.length = sizeof(bytes)};
    const size_t cost = frame_ring_cost(sizeof(bytes));

    for (unsigned i = 0; i < 3 * BOUND / cost; i++) {
        if (ring.used + cost > BOUND || i % 3 == 2)
            frame_ring_drop(&ring); /* the first moves on, so that the ring grows round its end */
        ck_assert(frame_ring_reserve(&ring, cost, BOUND));
        ck_assert_uint_le(ring.capacity, BOUND);
        ck_assert(i != 0 || ring.capacity < BOUND);
        frame_ring_add(&ring, &record, &iov, 1);
    }
    ck_assert_uint_eq(ring.capacity, BOUND);
    frame_ring_clear(&ring);
    ck_assert_ptr_null(ring.bytes);
}
END_TEST

/* --- in the row ------------------------------------------------------------------------------- */

START_TEST(it_is_found_wherever_it_stands)
{
    static struct wire wire;
    struct netif *limit, *gate;

    ck_assert_ptr_null(netif_gate_of(NULL));
    ck_assert_ptr_null(netif_gate_of(&rig.wire.netif));
    ck_assert_int_eq(netif_set_limits(rig.netif, &(struct limits){0}), -ENOTSUP);
    wire.netif = (struct netif){.ops = &wire_ops, .info = {.max_queues = QUEUES}};
    ck_assert_int_eq(netif_limit_create(&limit, &wire.netif, &(struct limits){0}, NULL, NULL), 0);
    ck_assert_ptr_null(netif_gate_of(limit));
    ck_assert_int_eq(netif_gate_create(&gate, limit, NULL), 0);
    ck_assert_ptr_nonnull(netif_gate_of(gate));
    ck_assert_int_eq(netif_set_limits(gate, &(struct limits){.operations = 1}), 0);
    struct netif_gate *found = netif_gate_of(gate);
    ck_assert_int_eq(netif_limit_create(&limit, gate, &(struct limits){0}, NULL, NULL), 0);
    ck_assert_ptr_eq(netif_gate_of(limit), found);
    netif_destroy(limit);
    ck_assert(wire.destroyed);
}
END_TEST

/* What is released at once keeps to its limit all the same. */
START_TEST(limits_are_of_what_leaves)
{
    static struct gate_rig limited;
    struct netif *limit;

    rig_init(&limited);
    limited.netif->ops->detach(limited.netif);
    netif_destroy(limited.netif);
    limited.wire.destroyed = false;
    ck_assert_int_eq(netif_limit_create(&limit, &limited.wire.netif,
                                        &(struct limits){.operations = 100}, NULL, NULL),
                     0);
    ck_assert_int_eq(netif_gate_create(&limited.netif, limit, NULL), 0);
    limited.gate = netif_gate_of(limited.netif);
    rig_attach(&limited);
    rig_hold(&limited, 1, BUDGET);
    for (unsigned i = 0; i < 300; i++)
        ck_assert_int_gt(rig_send(&limited, 0, SMALLEST), 0);
    netif_gate_release(limited.gate, 1);
    uint64_t before = clock_monotonic_ns();
    rig_settle(&limited);
    ck_assert_uint_ge(limited.wire.seen_count, 100); /* the burst */
    while (limited.wire.seen_count < 130)
        rig_settle(&limited);
    uint64_t ns = clock_monotonic_ns() - before;
    ck_assert_uint_le(limited.wire.seen_count, 110 + clock_scale(100, ns, NS_PER_SEC));
    rig_expect(&limited, limited.wire.seen_count);
    rig_finish(&limited);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("netif_gate");
    TCase *tests = tcase_create("gate");

    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, open_it_is_not_there);
    tcase_add_test(tests, open_it_tells_what_the_interface_tells);
    tcase_add_test(tests, an_acknowledgement_is_not_urgent_and_what_follows_it_is);
    tcase_add_test(tests, held_frames_leave_with_their_number_and_not_before);
    tcase_add_test(tests, what_is_allowed_already_waits_for_nobody);
    tcase_add_test(tests, whoever_waits_for_output_hears_of_it_once_a_span);
    tcase_add_loop_test(tests, the_budget_is_kept, 0, 2);
    tcase_add_test(tests, room_is_what_the_refused_frame_needs);
    tcase_add_loop_test(tests, a_largest_frame_finds_room_whatever_the_budget, 0, 2);
    tcase_add_test(tests, a_client_that_goes_on_when_it_is_told_loses_nothing);
    tcase_add_test(tests, a_full_interface_keeps_the_order);
    tcase_add_test(tests, a_frame_that_is_refused_for_good_is_lost_and_the_next_ones_go);
    tcase_add_test(tests, frames_of_a_queue_that_is_gone_leave_by_the_first);
    tcase_add_test(tests, many_frames_leave_in_several_turns);
    tcase_add_test(tests, what_waits_leaves_before_what_is_sent_after_the_opening);
    tcase_add_test(tests, a_second_hold_keeps_what_is_new_and_lets_go_what_was_free);
    tcase_add_test(tests, a_hold_while_it_holds_is_a_mark);
    tcase_add_test(tests, who_waited_for_the_interface_finds_room_at_the_gate);
    tcase_add_loop_test(tests, shut_nothing_leaves_and_nobody_waits, 0, 2);
    tcase_add_test(tests, shut_in_mid_release_the_frame_under_way_is_the_last);
    tcase_add_test(tests, what_waits_outlives_a_detach);
    tcase_add_loop_test(tests, whatever_happens_order_and_numbers_are_kept, 0, 8);
    tcase_add_test(tests, the_ring_grows_up_to_its_bound_and_no_further);
    tcase_add_test(tests, it_is_found_wherever_it_stands);
    tcase_add_test(tests, limits_are_of_what_leaves);
    suite_add_tcase(suite, tests);
    return unit_main(suite);
}
