/* SPDX-License-Identifier: MIT */
/* How long a silence may be before the other side counts as gone. */
#include "tests/unit/protocol_steps.h"

/* As the other one's words come: `ms` apart, for so many of them. */
static void hear_smoothly(unsigned ms, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        tick(ms);
        hear(FT_BEAT, 3, 0);
    }
}

static const struct ft_config adapting = {.node = US,
                                          .beat_ns = 10 * MS,
                                          .lost_ns = 500 * MS,
                                          .swift_ns = 50 * MS,
                                          .slow_ns = 2000ull * MS,
                                          .fade_ns = 100 * MS,
                                          .stall_ns = 60000ull * MS,
                                          .ask_ns = 100 * MS,
                                          .retry_ns = 50 * MS,
                                          .gap_ns = 250 * MS,
                                          .away_ns = 3000ull * MS};

static void pair_adapting(void)
{
    set_up();
    protocol.config = adapting;
    pair();
}

START_TEST(patience_follows_what_was_lately_heard)
{
    pair_adapting();
    ck_assert_uint_eq(ft_protocol_patience(&protocol), 500 * MS); /* nothing is known as yet */
    hear_smoothly(10, 500);
    ck_assert_uint_eq(ft_protocol_patience(&protocol), 50 * MS);
    ck_assert_uint_eq(ft_protocol_gap(&protocol), 25 * MS);
    protocol.config.fade_ns = UINT64_MAX;
    hear_smoothly(20, 2);
    ck_assert_uint_eq(ft_protocol_patience(&protocol), 80 * MS);
    tick(25);
    tick(25);
    tick(25);
    ck_assert_int_eq(protocol.state, FT_PAIRED);
    hear(FT_BEAT, 3, 0);
    ck_assert_uint_eq(ft_protocol_patience(&protocol), 300 * MS);
    for (unsigned ms = 0; ms < 300; ms += 25) {
        ck_assert_int_eq(protocol.state, FT_PAIRED);
        tick(25);
    }
    tick(25);
    ck_assert_int_eq(protocol.state, FT_ALONE);
}
END_TEST

START_TEST(a_smooth_line_says_soon_that_the_peer_is_gone)
{
    pair_adapting();
    hear_smoothly(10, 500);
    tick(25);
    tick(25);
    ck_assert_int_eq(protocol.state, FT_PAIRED);
    tick(1);
    ck_assert_int_eq(protocol.state, FT_ALONE);
    answer(FT_EXCHANGED, 5, US, 0);
    STEP(.kind = FT_PERSISTED);
    connect_follower(); /* of whom nothing is known */
    ck_assert_uint_eq(ft_protocol_patience(&protocol), 500 * MS);
}
END_TEST

START_TEST(a_short_absence_makes_acknowledgements_unsure_and_nothing_else)
{
    pair_adapting();
    hear_smoothly(10, 500);
    protocol.config.fade_ns = UINT64_MAX;
    tick(20);
    hear_smoothly(20, 1);
    ck_assert_uint_eq(ft_protocol_patience(&protocol), 160 * MS);
    STEP(.kind = FT_CAPTURED, .epoch = 2);
    tick(40);
    hear(FT_ACK, 3, 2);
    expect_nothing();
    STEP(.kind = FT_CAPTURED, .epoch = 3);
    hear(FT_ACK, 3, 3);
    EXPECT(FT_RELEASE);
    for (unsigned ms = 0; ms < 160; ms += 40) {
        tick(40);
        ck_assert_int_eq(protocol.state, FT_PAIRED);
    }
    tick(1);
    ck_assert_int_eq(protocol.state, FT_ALONE);
}
END_TEST

START_TEST(a_link_of_two_lines_has_the_time_to_change_lines)
{
    pair_adapting();
    protocol.patient = true;
    hear_smoothly(10, 500);
    ck_assert_uint_eq(ft_protocol_patience(&protocol), 500 * MS);
    ck_assert_uint_eq(ft_protocol_gap(&protocol), 250 * MS);
}
END_TEST

/* Words come all the time here. */
static void carry(unsigned ms, bool moves)
{
    for (unsigned at = 0; at < ms; at += 20) {
        hear(FT_BEAT, 3, 0);
        if (moves)
            STEP(.kind = FT_MOVED);
        tick(20);
    }
}

START_TEST(a_line_that_is_slow_but_moves_is_waited_for)
{
    pair();
    STEP(.kind = FT_CAPTURED, .epoch = 2);
    carry(1500, true);
    ck_assert_int_eq(protocol.state, FT_PAIRED);
    hear(FT_ACK, 3, 2);
    EXPECT(FT_RELEASE);
    STEP(.kind = FT_CAPTURED, .epoch = 3);
    carry(400, true);
    carry(480, false); /* nothing any more, and no acknowledgement */
    ck_assert_int_eq(protocol.state, FT_PAIRED);
    carry(60, false);
    ck_assert_int_eq(protocol.state, FT_ALONE);
    set_up();
    pair();
    STEP(.kind = FT_CAPTURED, .epoch = 2);
    carry(2000, true); /* there is an end to that */
    ck_assert_int_eq(protocol.state, FT_PAIRED);
    carry(40, true);
    ck_assert_int_eq(protocol.state, FT_ALONE);
}
END_TEST

/* The VM stands still for it: not for long where nothing leaves. */
START_TEST(what_leaves_before_the_first_epoch_is_waited_for_while_it_moves)
{
    connect_follower();
    carry(5000, false); /* while it is filled nobody waits */
    STEP(.kind = FT_SYNCED, .link = LINK);
    EXPECT(FT_GATE);
    carry(5000, true);
    carry(1980, false);
    ck_assert_int_eq(protocol.state, FT_GATED);
    carry(40, false);
    ck_assert_int_eq(protocol.state, FT_SOLO); /* of which the witness never heard */
    ck_assert_uint_eq(protocol.link, 0);
    set_up();
    pair();
    carry(5000, false); /* all is there that has left, and nothing waits */
    ck_assert_int_eq(protocol.state, FT_PAIRED);
}
END_TEST

/* Who runs the VM says how long that is, and is the first to give up. */
START_TEST(who_follows_is_more_patient_than_who_runs_it)
{
    pair_adapting();
    hear_smoothly(10, 500);
    tick(10);
    const struct ft_action *list = EXPECT(FT_SEND);
    ck_assert(list[0].word.kind == FT_BEAT && list[0].word.epoch == 75 * MS);

    follow();
    protocol.config = adapting;
    protocol.config.slow_ns = 500 * MS;
    protocol.rough_ns = 10 * MS;
    stage(1);
    ck_assert_uint_eq(ft_protocol_patience(&protocol), 75 * MS);
    hear(FT_BEAT, 3, 300 * MS);
    ck_assert_uint_eq(ft_protocol_patience(&protocol), 300 * MS);
    hear(FT_BEAT, 3, 75 * MS);
    hear(FT_BEAT, 3, 0); /* the driver's own word for what lies unread */
    ck_assert_uint_eq(ft_protocol_patience(&protocol), 75 * MS);
    hear(FT_BEAT, 3, UINT64_MAX);
    ck_assert_uint_eq(ft_protocol_patience(&protocol), 750 * MS);
    hear(FT_BEAT, 3, 75 * MS);
    tick(25);
    const struct ft_action *beat = EXPECT(FT_SEND);
    ck_assert(beat->word.kind == FT_BEAT && beat->word.epoch == 0);
    tick(30);
    tick(20);
    ck_assert_int_eq(protocol.state, FT_TWIN);
    tick(1);
    ck_assert_int_eq(protocol.state, FT_CLAIMING);
}
END_TEST

/* All of a VM is much to send again, and nobody waits for it. */
START_TEST(while_all_is_sent_a_host_may_be_silent_for_longer)
{
    protocol.config = adapting;
    protocol.config.stall_ns = 2000 * MS;
    connect_follower();
    for (unsigned ms = 0; ms < 2000; ms += 25)
        tick(25);
    ck_assert_uint_eq(protocol.link, LINK);
    tick(25);
    EXPECT(FT_SEND, FT_HANG_UP, FT_UNSYNC);

    connect_follower(); /* what was right until then is not held against it */
    for (unsigned ms = 0; ms < 1000; ms += 25)
        tick(25);
    STEP(.kind = FT_SYNCED, .link = LINK);
    tick(25);
    ck_assert(protocol.state == FT_GATED && protocol.link == LINK);

    follow();
    protocol.config = adapting;
    protocol.config.stall_ns = 2000 * MS;
    for (unsigned ms = 0; ms < 2000; ms += 25)
        tick(25);
    ck_assert_int_eq(protocol.state, FT_FOLLOWING);
    tick(25);
    EXPECT(FT_SEND, FT_HANG_UP, FT_END);

    follow();
    protocol.config = adapting;
    protocol.rough_ns = 0;
    stage(1); /* from here on it may be needed */
    for (unsigned ms = 0; ms < 75; ms += 25)
        tick(25);
    ck_assert_int_eq(protocol.state, FT_TWIN);
    tick(25);
    ck_assert_int_eq(protocol.state, FT_CLAIMING);
}
END_TEST

/* Or its own twin would have as little patience as it has itself. */
START_TEST(who_has_taken_over_has_an_owners_patience)
{
    follow();
    protocol.config = adapting;
    stage(1);
    STEP(.kind = FT_DISCONNECTED, .link = LINK);
    answer(FT_IS, 4, THEM, NUMBER);
    STEP(.kind = FT_APPLIED);
    answer(FT_EXCHANGED, 5, US, 0);
    STEP(.kind = FT_PERSISTED);
    EXPECT(FT_TAKE_OVER, FT_OPEN);
    connect_follower();
    for (unsigned i = 0; i < 500; i++) {
        tick(10);
        hear(FT_BEAT, 5, 0);
    }
    ck_assert_uint_eq(ft_protocol_patience(&protocol), 50 * MS);
    ck_assert_uint_eq(ft_protocol_gap(&protocol), 25 * MS);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("protocol_patience");
    TCase *tcase = tcase_create("all");
    tcase_add_checked_fixture(tcase, set_up, NULL);
    tcase_add_test(tcase, patience_follows_what_was_lately_heard);
    tcase_add_test(tcase, a_smooth_line_says_soon_that_the_peer_is_gone);
    tcase_add_test(tcase, a_short_absence_makes_acknowledgements_unsure_and_nothing_else);
    tcase_add_test(tcase, a_link_of_two_lines_has_the_time_to_change_lines);
    tcase_add_test(tcase, who_follows_is_more_patient_than_who_runs_it);
    tcase_add_test(tcase, while_all_is_sent_a_host_may_be_silent_for_longer);
    tcase_add_test(tcase, who_has_taken_over_has_an_owners_patience);
    tcase_add_test(tcase, a_line_that_is_slow_but_moves_is_waited_for);
    tcase_add_test(tcase, what_leaves_before_the_first_epoch_is_waited_for_while_it_moves);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
