/* SPDX-License-Identifier: MIT */
/* Step by step what the simulator (tests/sim) does by chance: both sides, one event at a time. */
#include "tests/unit/protocol_steps.h"

START_TEST(output_leaves_with_its_acknowledgement)
{
    pair();
    STEP(.kind = FT_CAPTURED, .epoch = 2);
    STEP(.kind = FT_CAPTURED, .epoch = 3);
    STEP(.kind = FT_CAPTURED, .epoch = 4);
    hear(FT_ACK, 3, 3); /* for the one before, too */
    ck_assert_uint_eq(EXPECT(FT_RELEASE)->epoch, 3);
    hear(FT_ACK, 3, 5); /* of what never left */
    EXPECT(FT_HANG_UP, FT_UNSYNC, FT_EXCHANGE);
    ck_assert_int_eq(protocol.state, FT_ALONE);
}
END_TEST

START_TEST(without_its_twin_output_waits_for_the_witness)
{
    pair();
    STEP(.kind = FT_CAPTURED, .epoch = 2);
    STEP(.kind = FT_DISCONNECTED, .link = LINK);
    EXPECT(FT_HANG_UP, FT_UNSYNC, FT_EXCHANGE);
    ck_assert(ft_protocol_runs(&protocol) && ft_protocol_is_gated(&protocol));
    for (unsigned i = 0; i < 20; i++) { /* no answer, for as long as that takes */
        tick(50);
        for (unsigned at = 0; at < actions.count; at++)
            ck_assert_int_ne(actions.list[at].kind, FT_OPEN);
    }
    ck_assert(ft_protocol_is_gated(&protocol));
    tick(50);
    tick(50);
    answer(FT_IS, 4, US, NUMBER); /* it did not come through; or it is still on its way */
    EXPECT(FT_EXCHANGE);
    answer(FT_EXCHANGED, 5, US, 0);
    EXPECT(FT_PERSIST);
    STEP(.kind = FT_PERSISTED);
    EXPECT(FT_OPEN);
    ck_assert_int_eq(protocol.state, FT_SOLO);
}
END_TEST

START_TEST(whoever_was_deposed_stops_for_good)
{
    pair();
    STEP(.kind = FT_DISCONNECTED, .link = LINK);
    answer(FT_IS, 5, THEM, 0);
    EXPECT(FT_STOP, FT_END);
    ck_assert_int_eq(protocol.state, FT_DEPOSED);
    tick(500);
    expect_nothing();
    STEP(.kind = FT_CONNECTED, .link = 9, .node = THEM, .twin = 1);
    EXPECT(FT_HANG_UP);
}
END_TEST

/* Silence, and acknowledgements that do not come though words do. */
START_TEST(a_peer_that_is_as_good_as_gone_is_lost)
{
    pair();
    tick(40);
    EXPECT(FT_SEND);
    tick(40);
    EXPECT(FT_SEND, FT_HANG_UP, FT_UNSYNC, FT_EXCHANGE);
    set_up();
    pair();
    STEP(.kind = FT_CAPTURED, .epoch = 2);
    for (unsigned ms = 0; ms < 500; ms += 20) {
        ck_assert_int_eq(protocol.state, FT_PAIRED);
        hear(FT_BEAT, 3, 0);
        tick(20);
    }
    tick(20);
    ck_assert_int_eq(protocol.state, FT_ALONE);
}
END_TEST

START_TEST(a_second_follower_is_sent_away)
{
    connect_follower();
    STEP(.kind = FT_CONNECTED, .link = 6, .node = 3, .twin = 78);
    ck_assert_uint_eq(EXPECT(FT_HANG_UP)->link, 6);
    STEP(.kind = FT_HEARD, .link = 6, .word = {FT_ACK, 3, 1});
    expect_nothing();
    STEP(.kind = FT_DISCONNECTED, .link = 6);
    expect_nothing();
    STEP(.kind = FT_DISCONNECTED, .link = LINK); /* before it had anything: output never waited */
    EXPECT(FT_HANG_UP, FT_UNSYNC);
    ck_assert_int_eq(protocol.state, FT_SOLO);
}
END_TEST

START_TEST(a_guest_that_powers_off_ends_both)
{
    pair();
    STEP(.kind = FT_CAPTURED, .epoch = 2);
    STEP(.kind = FT_GUEST_OFF);
    ck_assert_int_eq(EXPECT(FT_SEND)->word.kind, FT_OFF);
    hear(FT_ACK, 3, 2);
    EXPECT(FT_RELEASE, FT_EXCHANGE);
    STEP(.kind = FT_DISCONNECTED, .link = LINK); /* it has ended, too */
    EXPECT(FT_HANG_UP, FT_UNSYNC);
    answer(FT_EXCHANGED, 5, US, 0);
    STEP(.kind = FT_PERSISTED);
    EXPECT(FT_OPEN, FT_END);
    ck_assert_int_eq(protocol.state, FT_OVER);
}
END_TEST

START_TEST(after_an_absence_the_witness_is_asked_before_anything_leaves)
{
    tick(2900);
    expect_nothing();
    tick(5000);
    EXPECT(FT_GATE, FT_ASK);
    answer(FT_IS, 3, US, 0);
    EXPECT(FT_EXCHANGE);
    answer(FT_EXCHANGED, 4, US, 0);
    STEP(.kind = FT_PERSISTED);
    EXPECT(FT_OPEN);
    tick(5000);
    answer(FT_IS, 9, THEM, 0); /* somebody was told to go on without us */
    EXPECT(FT_STOP, FT_END);
}
END_TEST

START_TEST(a_witness_that_knows_less_than_we_is_not_believed)
{
    pair();
    STEP(.kind = FT_DISCONNECTED, .link = LINK);
    answer(FT_IS, 3, US, 0);
    EXPECT(FT_STRANGE);
    ck_assert(ft_protocol_is_gated(&protocol));
    tick(60);
    EXPECT(FT_ASK);
    answer(FT_IS, 0, 0, 0);
    EXPECT(FT_STRANGE);
}
END_TEST

START_TEST(a_vm_that_is_anothers_does_not_start)
{
    ft_protocol_init_owner(&protocol, &config, 3, now);
    tick(1);
    EXPECT(FT_ASK);
    answer(FT_IS, 4, THEM, 0);
    EXPECT(FT_STOP, FT_END);
}
END_TEST

START_TEST(who_starts_leaves_it_to_the_twin_for_a_while)
{
    ft_protocol_init_owner(&protocol, &config, 4, now);
    tick(1);
    answer(FT_IS, 4, US, NUMBER);
    expect_nothing();
    tick(60);
    EXPECT(FT_ASK);
    tick(60);
    tick(60);
    tick(60);
    answer(FT_IS, 4, US, NUMBER);
    EXPECT(FT_EXCHANGE);
    answer(FT_EXCHANGED, 5, US, 0);
    STEP(.kind = FT_PERSISTED);
    EXPECT(FT_RUN, FT_OPEN);
}
END_TEST

/* A clock that was set in between does not make it shorter. */
START_TEST(who_was_made_the_owner_waits_longer)
{
    ft_protocol_init_owner(&protocol, &config, 4, now);
    tick(1);
    answer(FT_IS, 4, US, FT_FORCED);
    for (unsigned i = 0; i < 8; i++) {
        tick(60);
        EXPECT(FT_ASK);
        answer(FT_IS, 4, US, FT_FORCED);
        expect_nothing();
    }
    tick(400);
    for (unsigned i = 0; i < 8; i++) {
        EXPECT(FT_ASK);
        answer(FT_IS, 4, US, FT_FORCED);
        expect_nothing();
        tick(60);
    }
    tick(60);
    answer(FT_IS, 4, US, FT_FORCED);
    ck_assert_uint_eq(EXPECT(FT_EXCHANGE)->record.twin, 0);
}
END_TEST

/* One that the witness did not answer costs no second question when it matters. */
START_TEST(who_loses_its_twin_asks_for_the_vm_at_once)
{
    pair();
    be_paired_until_it_asks();
    answer(FT_NO_ANSWER, 0, 0, 0);
    expect_nothing();
    be_paired_until_it_asks();
    STEP(.kind = FT_DISCONNECTED, .link = LINK);
    ck_assert_uint_eq(EXPECT(FT_HANG_UP, FT_UNSYNC, FT_EXCHANGE)[2].expected, 4);
}
END_TEST

/* The witness could not tell them apart. */
START_TEST(whoever_has_our_own_number_does_not_follow)
{
    STEP(.kind = FT_CONNECTED, .link = LINK, .node = US, .twin = NUMBER);
    EXPECT(FT_HANG_UP);
    STEP(.kind = FT_CONNECTED, .link = LINK, .twin = NUMBER);
    EXPECT(FT_HANG_UP);
    STEP(.kind = FT_CONNECTED, .link = LINK, .node = THEM);
    EXPECT(FT_HANG_UP);
}
END_TEST

/* --- nobody shall follow any more ------------------------------------------------------------- */

START_TEST(a_follower_that_is_being_filled_may_go_at_once)
{
    connect_follower();
    ck_assert(!ft_protocol_is_left(&protocol));
    STEP(.kind = FT_LEFT);
    const struct ft_action *list = EXPECT(FT_SEND, FT_UNSYNC, FT_ASK);
    ck_assert(list[0].link == LINK && list[0].word.kind == FT_OFF);
    ck_assert(protocol.state == FT_SOLO && protocol.link == 0);
    STEP(.kind = FT_SYNCED, .link = LINK); /* comes too late */
    expect_nothing();
    STEP(.kind = FT_DISCONNECTED, .link = LINK);
    ck_assert_uint_eq(EXPECT(FT_HANG_UP)->link, LINK);
    STEP(.kind = FT_DISCONNECTED, .link = LINK);
    expect_nothing();
}
END_TEST

START_TEST(a_twin_is_sent_away_when_the_witness_says_solo)
{
    pair();
    STEP(.kind = FT_CAPTURED, .epoch = 2);
    STEP(.kind = FT_LEFT);
    const struct ft_action *list = EXPECT(FT_EXCHANGE);
    ck_assert(list[0].record.owner == US && list[0].record.twin == 0);
    hear(FT_ACK, 3, 2); /* that goes on */
    ck_assert_uint_eq(EXPECT(FT_RELEASE)->epoch, 2);
    STEP(.kind = FT_CAPTURED, .epoch = 3);
    STEP(.kind = FT_CONNECTED, .link = 9, .node = THEM, .twin = 78);
    ck_assert_uint_eq(EXPECT(FT_HANG_UP)->link, 9);
    STEP(.kind = FT_LEFT); /* once more */
    expect_nothing();
    answer(FT_EXCHANGED, 5, US, 0);
    EXPECT(FT_PERSIST);
    ck_assert(ft_protocol_is_gated(&protocol));
    STEP(.kind = FT_PERSISTED);
    list = EXPECT(FT_SEND, FT_UNSYNC, FT_OPEN, FT_ASK);
    ck_assert(list[0].link == LINK && list[0].word.kind == FT_OFF && list[0].word.epoch == 3);
    ck_assert(protocol.state == FT_SOLO && protocol.link == 0);
    hear(FT_ACK, 3, 3); /* it does not know as yet */
    expect_nothing();
    STEP(.kind = FT_CONNECTED, .link = 9, .node = THEM, .twin = 78);
    EXPECT(FT_SYNC);
    STEP(.kind = FT_DISCONNECTED, .link = LINK);
    ck_assert_uint_eq(EXPECT(FT_HANG_UP)->link, LINK);
    ck_assert_uint_eq(protocol.link, 9);
}
END_TEST

/* What is under way towards "paired" has its time. */
START_TEST(whoever_is_about_to_be_a_twin_is_sent_away_too)
{
    connect_follower();
    STEP(.kind = FT_SYNCED, .link = LINK);
    STEP(.kind = FT_LEFT); /* the witness says solo all the while */
    EXPECT(FT_SEND, FT_UNSYNC, FT_OPEN, FT_ASK);
    set_up();
    connect_follower();
    STEP(.kind = FT_SYNCED, .link = LINK);
    STEP(.kind = FT_CAPTURED, .epoch = 1);
    hear(FT_ACK, 3, 1);
    EXPECT(FT_RELEASE, FT_EXCHANGE);
    STEP(.kind = FT_LEFT);
    expect_nothing();
    answer(FT_EXCHANGED, 4, US, NUMBER);
    ck_assert_uint_eq(EXPECT(FT_EXCHANGE)->record.twin, 0);
    answer(FT_EXCHANGED, 5, US, 0);
    STEP(.kind = FT_PERSISTED);
    EXPECT(FT_SEND, FT_UNSYNC, FT_OPEN, FT_ASK);
}
END_TEST

START_TEST(a_twin_that_is_to_go_may_take_over_until_the_witness_says_solo)
{
    pair();
    STEP(.kind = FT_LEFT);
    for (unsigned i = 0; i < 20; i++) { /* no answer, for as long as that takes */
        hear(FT_BEAT, 3, 0);
        tick(20);
        for (unsigned at = 0; at < actions.count; at++)
            ck_assert(actions.list[at].kind != FT_OPEN && actions.list[at].word.kind != FT_OFF);
    }
    ck_assert_int_eq(protocol.state, FT_PAIRED);
    STEP(.kind = FT_DISCONNECTED, .link = LINK);
    ck_assert_int_eq(protocol.state, FT_ALONE);
    answer(FT_IS, 5, THEM, 0);
    EXPECT(FT_STOP, FT_END);
    ck_assert_int_eq(protocol.state, FT_DEPOSED);
}
END_TEST

START_TEST(who_does_not_hang_up_when_it_may_go_is_hung_up_on)
{
    connect_follower();
    STEP(.kind = FT_LEFT);
    for (unsigned ms = 0; ms < 500; ms += 20) {
        hear(FT_BEAT, 3, 0);
        tick(20);
        expect_nothing();
    }
    hear(FT_BEAT, 3, 0);
    tick(20);
    ck_assert_uint_eq(EXPECT(FT_HANG_UP)->link, LINK);
    tick(20);
    expect_nothing();
    set_up(); /* and sooner, who is silent */
    connect_follower();
    STEP(.kind = FT_LEFT);
    tick(30);
    hear(FT_BEAT, 3, 0);
    tick(50);
    expect_nothing();
    tick(1);
    ck_assert_uint_eq(EXPECT(FT_HANG_UP)->link, LINK);
    tick(20);
    expect_nothing();
    set_up(); /* and at once, when the next one goes */
    connect_follower();
    STEP(.kind = FT_LEFT);
    STEP(.kind = FT_CONNECTED, .link = 6, .node = THEM, .twin = 78);
    STEP(.kind = FT_LEFT);
    const struct ft_action *list = EXPECT(FT_SEND, FT_HANG_UP, FT_UNSYNC, FT_ASK);
    ck_assert(list[0].link == 6 && list[1].link == LINK);
}
END_TEST

START_TEST(a_switchover_finds_nobody_when_the_twin_is_to_go)
{
    pair();
    STEP(.kind = FT_LEFT);
    STEP(.kind = FT_CAPTURED, .epoch = 2);
    STEP(.kind = FT_HANDED);
    EXPECT(FT_RUN);
    ck_assert(ft_protocol_runs(&protocol));
    set_up();
    pair();
    STEP(.kind = FT_HANDED); /* the other way round it has begun already */
    STEP(.kind = FT_LEFT);
    expect_nothing();
    ck_assert_int_eq(protocol.state, FT_HANDING);
}
END_TEST

START_TEST(a_guest_that_powers_off_while_the_twin_is_to_go_ends_both)
{
    pair();
    STEP(.kind = FT_LEFT);
    STEP(.kind = FT_CAPTURED, .epoch = 2);
    STEP(.kind = FT_GUEST_OFF);
    ck_assert_int_eq(EXPECT(FT_SEND)->word.kind, FT_OFF);
    answer(FT_EXCHANGED, 5, US, 0);
    STEP(.kind = FT_PERSISTED);
    EXPECT(FT_OPEN, FT_HANG_UP, FT_END); /* its last words leave, though not acknowledged */
    ck_assert_int_eq(protocol.state, FT_OVER);
    set_up();
    pair();
    STEP(.kind = FT_CAPTURED, .epoch = 2);
    STEP(.kind = FT_GUEST_OFF);
    STEP(.kind = FT_LEFT); /* that ends anyway */
    expect_nothing();
}
END_TEST

START_TEST(who_powers_off_while_it_is_paired_waits_for_the_last_acknowledgement)
{
    connect_follower();
    STEP(.kind = FT_SYNCED, .link = LINK);
    STEP(.kind = FT_CAPTURED, .epoch = 1);
    hear(FT_ACK, 3, 1);
    STEP(.kind = FT_CAPTURED, .epoch = 2);
    STEP(.kind = FT_GUEST_OFF);
    answer(FT_EXCHANGED, 4, US, NUMBER);
    STEP(.kind = FT_PERSISTED);
    expect_nothing();
    hear(FT_ACK, 3, 2);
    ck_assert_uint_eq(EXPECT(FT_RELEASE, FT_EXCHANGE)[1].record.twin, 0);
}
END_TEST

/* --- the follower ----------------------------------------------------------------------------- */

START_TEST(what_is_whole_is_acknowledged_and_then_the_twin_can_take_over)
{
    follow();
    stage(1);
    const struct ft_action *list = EXPECT(FT_SEND, FT_APPLY);
    ck_assert(list[0].word.kind == FT_ACK && list[0].word.epoch == 1);
    stage(2);
    tick(40);
    hear(FT_BEAT, 3, 0);
    tick(40);
    ck_assert_int_eq(protocol.state, FT_TWIN);
    tick(40);
    EXPECT(FT_SEND, FT_HANG_UP, FT_APPLY_LAST, FT_ASK);
    answer(FT_IS, 4, THEM, NUMBER);
    expect_nothing(); /* before its disks hold it */
    STEP(.kind = FT_APPLIED);
    EXPECT(FT_EXCHANGE);
    stage(3); /* comes too late */
    expect_nothing();
    answer(FT_EXCHANGED, 5, US, 0);
    ck_assert_uint_eq(EXPECT(FT_PERSIST)->record.generation, 5);
    STEP(.kind = FT_PERSISTED);
    EXPECT(FT_TAKE_OVER, FT_OPEN);
    ck_assert_int_eq(protocol.state, FT_SOLO);
}
END_TEST

START_TEST(whom_the_witness_does_not_know_does_not_take_over)
{
    static const uint64_t twins[] = {0, NUMBER + 1};
    for (unsigned i = 0; i < 2; i++) {
        follow();
        stage(1);
        STEP(.kind = FT_DISCONNECTED, .link = LINK);
        STEP(.kind = FT_APPLIED);
        answer(FT_IS, 4, THEM, twins[i]);
        EXPECT(FT_END);
        ck_assert_int_eq(protocol.state, FT_DISMISSED);
    }
    follow(); /* and who has nothing whole does not even ask */
    STEP(.kind = FT_DISCONNECTED, .link = LINK);
    EXPECT(FT_HANG_UP, FT_END);
}
END_TEST

START_TEST(epochs_out_of_order_or_of_another_time_are_not_taken)
{
    follow();
    stage(1);
    stage(3);
    ck_assert_int_eq(protocol.state, FT_CLAIMING); /* with the first */
    ck_assert_uint_eq(protocol.acked, 1);
    follow();
    STEP(.kind = FT_STAGED, .link = LINK, .generation = 2, .epoch = 1);
    ck_assert_int_eq(protocol.state, FT_DISMISSED);
    follow();
    STEP(.kind = FT_STAGED, .link = LINK + 1, .generation = 3, .epoch = 1);
    expect_nothing();
}
END_TEST

START_TEST(who_was_frozen_does_not_trust_its_own_silence)
{
    follow();
    stage(1);
    tick(30000);
    ck_assert_int_eq(protocol.state, FT_TWIN);
    tick(40);
    tick(40);
    ck_assert_int_eq(protocol.state, FT_CLAIMING);
}
END_TEST

START_TEST(when_the_guest_is_off_nobody_takes_over)
{
    follow();
    stage(1);
    hear(FT_OFF, 3, 1);
    EXPECT(FT_HANG_UP, FT_END);
    ck_assert_int_eq(protocol.state, FT_DISMISSED);
}
END_TEST

/* --- switchover ------------------------------------------------------------------------------- */

START_TEST(a_switchover_is_the_twins_when_its_disks_hold_it)
{
    pair();
    STEP(.kind = FT_CAPTURED, .epoch = 2);
    STEP(.kind = FT_HANDED);
    expect_nothing();
    hear(FT_ACK, 3, 2);
    ck_assert_int_eq(EXPECT(FT_RELEASE, FT_SEND)[1].word.kind, FT_HAND);
    hear(FT_READY, 3, 2);
    ck_assert_uint_eq(EXPECT(FT_EXCHANGE)->record.owner, THEM);
    answer(FT_EXCHANGED, 5, THEM, 0);
    STEP(.kind = FT_PERSISTED);
    const struct ft_action *list = EXPECT(FT_SEND, FT_END);
    ck_assert(list[0].word.kind == FT_TAKE && list[0].word.generation == 5);

    follow();
    stage(1);
    hear(FT_HAND, 3, 1);
    EXPECT(FT_APPLY_LAST);
    STEP(.kind = FT_APPLIED);
    ck_assert_int_eq(EXPECT(FT_SEND)->word.kind, FT_READY);
    hear(FT_TAKE, 5, 1);
    EXPECT(FT_APPLY_LAST);
    STEP(.kind = FT_APPLIED);
    EXPECT(FT_PERSIST);
    STEP(.kind = FT_PERSISTED);
    EXPECT(FT_TAKE_OVER, FT_OPEN);
}
END_TEST

START_TEST(who_follows_may_go_and_then_claims_nothing)
{
    follow();
    STEP(.kind = FT_LEFT);
    EXPECT(FT_HANG_UP, FT_END);
    ck_assert_int_eq(protocol.state, FT_DISMISSED);

    follow();
    stage(1);
    STEP(.kind = FT_LEFT);
    EXPECT(FT_HANG_UP, FT_END);
    ck_assert_int_eq(protocol.state, FT_DISMISSED);
    STEP(.kind = FT_DISCONNECTED, .link = LINK);
    STEP(.kind = FT_APPLIED);
    expect_nothing();
}
END_TEST

START_TEST(who_may_have_the_vm_already_does_not_go)
{
    follow();
    stage(1);
    STEP(.kind = FT_DISCONNECTED, .link = LINK);
    EXPECT(FT_HANG_UP, FT_APPLY_LAST, FT_ASK);
    STEP(.kind = FT_LEFT);
    expect_nothing();
    ck_assert_int_eq(protocol.state, FT_CLAIMING);

    follow();
    stage(1);
    hear(FT_HAND, 3, 1);
    EXPECT(FT_APPLY_LAST);
    STEP(.kind = FT_LEFT); /* what is handed over may be written down as ours at any moment */
    expect_nothing();
    ck_assert_int_eq(protocol.state, FT_TWIN);
}
END_TEST

START_TEST(a_switchover_that_fails_leaves_it_here)
{
    pair();
    STEP(.kind = FT_HANDED);
    ck_assert_int_eq(EXPECT(FT_SEND)->word.kind, FT_HAND);
    STEP(.kind = FT_DISCONNECTED, .link = LINK);
    answer(FT_EXCHANGED, 5, US, 0);
    STEP(.kind = FT_PERSISTED);
    EXPECT(FT_RUN, FT_OPEN);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("protocol");
    TCase *tcase = tcase_create("all");
    tcase_add_checked_fixture(tcase, set_up, NULL);
    tcase_add_test(tcase, output_leaves_with_its_acknowledgement);
    tcase_add_test(tcase, without_its_twin_output_waits_for_the_witness);
    tcase_add_test(tcase, whoever_was_deposed_stops_for_good);
    tcase_add_test(tcase, a_peer_that_is_as_good_as_gone_is_lost);
    tcase_add_test(tcase, a_second_follower_is_sent_away);
    tcase_add_test(tcase, whoever_has_our_own_number_does_not_follow);
    tcase_add_test(tcase, a_guest_that_powers_off_ends_both);
    tcase_add_test(tcase, after_an_absence_the_witness_is_asked_before_anything_leaves);
    tcase_add_test(tcase, a_witness_that_knows_less_than_we_is_not_believed);
    tcase_add_test(tcase, a_vm_that_is_anothers_does_not_start);
    tcase_add_test(tcase, who_starts_leaves_it_to_the_twin_for_a_while);
    tcase_add_test(tcase, who_was_made_the_owner_waits_longer);
    tcase_add_test(tcase, who_loses_its_twin_asks_for_the_vm_at_once);
    tcase_add_test(tcase, what_is_whole_is_acknowledged_and_then_the_twin_can_take_over);
    tcase_add_test(tcase, whom_the_witness_does_not_know_does_not_take_over);
    tcase_add_test(tcase, epochs_out_of_order_or_of_another_time_are_not_taken);
    tcase_add_test(tcase, who_was_frozen_does_not_trust_its_own_silence);
    tcase_add_test(tcase, when_the_guest_is_off_nobody_takes_over);
    tcase_add_test(tcase, a_switchover_is_the_twins_when_its_disks_hold_it);
    tcase_add_test(tcase, a_switchover_that_fails_leaves_it_here);
    tcase_add_test(tcase, who_follows_may_go_and_then_claims_nothing);
    tcase_add_test(tcase, who_may_have_the_vm_already_does_not_go);
    tcase_add_test(tcase, a_follower_that_is_being_filled_may_go_at_once);
    tcase_add_test(tcase, a_twin_is_sent_away_when_the_witness_says_solo);
    tcase_add_test(tcase, whoever_is_about_to_be_a_twin_is_sent_away_too);
    tcase_add_test(tcase, a_twin_that_is_to_go_may_take_over_until_the_witness_says_solo);
    tcase_add_test(tcase, who_does_not_hang_up_when_it_may_go_is_hung_up_on);
    tcase_add_test(tcase, a_switchover_finds_nobody_when_the_twin_is_to_go);
    tcase_add_test(tcase, a_guest_that_powers_off_while_the_twin_is_to_go_ends_both);
    tcase_add_test(tcase, who_powers_off_while_it_is_paired_waits_for_the_last_acknowledgement);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
