/* SPDX-License-Identifier: MIT */
/* Whoever has the VM looks at the witness whose it is, for as long as it has it. */
#include "tests/unit/protocol_steps.h"

static void be_alone_for(unsigned seconds)
{
    for (unsigned i = 0; i < seconds * 20; i++) {
        tick(50);
        if (i + 1 < seconds * 20)
            expect_nothing();
    }
}

START_TEST(who_is_alone_asks_and_ends_when_it_is_anothers)
{
    be_alone_for(10);
    EXPECT(FT_ASK);
    answer(FT_IS, 2, THEM, 0); /* what is read may be old */
    expect_nothing();
    be_alone_for(10);
    EXPECT(FT_ASK);
    answer(FT_NO_ANSWER, 0, 0, 0); /* nobody stops for a witness that is away */
    expect_nothing();
    ck_assert(ft_protocol_runs(&protocol) && !ft_protocol_is_gated(&protocol));
    be_alone_for(10);
    EXPECT(FT_ASK);
    answer(FT_IS, 4, THEM, FT_FORCED);
    EXPECT(FT_STOP, FT_END);
    ck_assert_int_eq(protocol.state, FT_DEPOSED);
    tick(50);
    answer(FT_IS, 5, THEM, 0);
    expect_nothing();
}
END_TEST

/* Nor is it waited for: what was only looked at may never be answered. */
START_TEST(a_question_of_who_is_alone_does_not_hold_up_the_twin)
{
    be_alone_for(10);
    EXPECT(FT_ASK);
    uint64_t looked = protocol.ask;
    connect_follower();
    STEP(.kind = FT_SYNCED, .link = LINK);
    EXPECT(FT_GATE);
    STEP(.kind = FT_CAPTURED, .epoch = 1);
    hear(FT_ACK, 3, 1);
    ck_assert_uint_eq(EXPECT(FT_RELEASE, FT_EXCHANGE)[1].record.twin, NUMBER);
    STEP(.kind = FT_ANSWER, .ask = looked, .answer = FT_IS, .record = {3, US, 0});
    expect_nothing();
    answer(FT_EXCHANGED, 4, US, NUMBER);
    EXPECT(FT_PERSIST);
}
END_TEST

/* A third host may have been made the owner, of whom the twin has not heard. */
START_TEST(who_is_paired_asks_too_and_ends_when_it_is_anothers)
{
    pair();
    be_paired_until_it_asks();
    answer(FT_NO_ANSWER, 0, 0, 0);
    expect_nothing();
    ck_assert_int_eq(protocol.state, FT_PAIRED);
    be_paired_until_it_asks();
    answer(FT_IS, 4, US, NUMBER);
    expect_nothing();
    be_paired_until_it_asks();
    answer(FT_IS, 5, THEM + 1, FT_FORCED);
    EXPECT(FT_HANG_UP, FT_STOP, FT_END);
    ck_assert_int_eq(protocol.state, FT_DEPOSED);
}
END_TEST

/* Its disk is full, say, or hangs. */
static void wait_for_stable_storage(void)
{
    pair();
    STEP(.kind = FT_DISCONNECTED, .link = LINK);
    answer(FT_EXCHANGED, 5, US, 0);
    EXPECT(FT_PERSIST);
    tick(100);
    expect_nothing();
    for (unsigned i = 0; i < 100 && actions.count == 0; i++)
        tick(100);
    EXPECT(FT_ASK);
}

START_TEST(who_waits_for_its_stable_storage_ends_when_it_is_anothers)
{
    wait_for_stable_storage();
    answer(FT_IS, 6, THEM, FT_FORCED);
    EXPECT(FT_STOP, FT_END);
    STEP(.kind = FT_PERSISTED);
    expect_nothing();
    set_up(); /* what it asks is waited for, and until there is an answer */
    wait_for_stable_storage();
    STEP(.kind = FT_PERSISTED);
    expect_nothing();
    answer(FT_NO_ANSWER, 0, 0, 0);
    expect_nothing();
    tick(100);
    EXPECT(FT_ASK);
    answer(FT_IS, 5, US, 0);
    EXPECT(FT_OPEN);
    set_up();
    wait_for_stable_storage();
    answer(FT_NO_ANSWER, 0, 0, 0);
    STEP(.kind = FT_PERSISTED);
    EXPECT(FT_ASK);
    answer(FT_IS, 6, THEM, FT_FORCED);
    EXPECT(FT_STOP, FT_END);
}
END_TEST

START_TEST(who_is_let_go_while_it_waits_asks_when_it_is_alone)
{
    wait_for_stable_storage();
    STEP(.kind = FT_LEFT);
    answer(FT_IS, 5, US, 0);
    expect_nothing();
    STEP(.kind = FT_PERSISTED);
    EXPECT(FT_OPEN, FT_ASK);
    ck_assert(!ft_protocol_is_left(&protocol));
    answer(FT_IS, 6, THEM, FT_FORCED);
    EXPECT(FT_STOP, FT_END);
}
END_TEST

/* Whoever is let go looks at the witness no more: what it said a while ago is not enough. */
START_TEST(who_is_let_go_asks_once_more_whose_the_vm_is)
{
    ck_assert(ft_protocol_is_left(&protocol));
    STEP(.kind = FT_LEFT);
    EXPECT(FT_ASK);
    ck_assert(!ft_protocol_is_left(&protocol));
    answer(FT_IS, 3, US, 0);
    expect_nothing();
    ck_assert(ft_protocol_is_left(&protocol));
    STEP(.kind = FT_LEFT);
    answer(FT_IS, 4, THEM, FT_FORCED);
    EXPECT(FT_STOP, FT_END);
    ck_assert(!ft_protocol_is_left(&protocol));
    set_up(); /* who had a twin asks when that is gone */
    pair();
    STEP(.kind = FT_LEFT);
    answer(FT_EXCHANGED, 5, US, 0);
    STEP(.kind = FT_PERSISTED);
    EXPECT(FT_SEND, FT_UNSYNC, FT_OPEN, FT_ASK);
    ck_assert(protocol.state == FT_SOLO && !ft_protocol_is_left(&protocol));
    answer(FT_IS, 5, US, 0);
    ck_assert(ft_protocol_is_left(&protocol));
}
END_TEST

START_TEST(what_was_asked_before_says_nothing_to_who_is_let_go)
{
    for (unsigned i = 0; i < 100; i++)
        tick(100);
    EXPECT(FT_ASK);
    uint64_t before = protocol.ask;
    STEP(.kind = FT_LEFT);
    EXPECT(FT_ASK);
    STEP(.kind = FT_ANSWER, .ask = before, .answer = FT_IS, .record = {3, US, 0});
    ck_assert(!ft_protocol_is_left(&protocol));
    answer(FT_IS, 3, US, 0);
    ck_assert(ft_protocol_is_left(&protocol));
}
END_TEST

START_TEST(a_witness_that_is_away_keeps_nobody)
{
    STEP(.kind = FT_LEFT);
    answer(FT_NO_ANSWER, 0, 0, 0);
    ck_assert(ft_protocol_is_left(&protocol));
    STEP(.kind = FT_LEFT);
    tick(99);
    ck_assert(!ft_protocol_is_left(&protocol));
    tick(1);
    ck_assert(ft_protocol_is_left(&protocol));
    STEP(.kind = FT_LEFT);
    tick(4000); /* but then somebody may have gone on */
    EXPECT(FT_GATE, FT_ASK);
    ck_assert(!ft_protocol_is_left(&protocol));
    answer(FT_IS, 3, US, 0);
    EXPECT(FT_EXCHANGE);
    answer(FT_EXCHANGED, 4, US, 0);
    STEP(.kind = FT_PERSISTED);
    EXPECT(FT_OPEN, FT_ASK);
    answer(FT_IS, 4, US, 0);
    ck_assert(ft_protocol_is_left(&protocol));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("protocol_look");
    TCase *tcase = tcase_create("all");
    tcase_add_checked_fixture(tcase, set_up, NULL);
    tcase_add_test(tcase, who_is_alone_asks_and_ends_when_it_is_anothers);
    tcase_add_test(tcase, a_question_of_who_is_alone_does_not_hold_up_the_twin);
    tcase_add_test(tcase, who_is_paired_asks_too_and_ends_when_it_is_anothers);
    tcase_add_test(tcase, who_waits_for_its_stable_storage_ends_when_it_is_anothers);
    tcase_add_test(tcase, who_is_let_go_while_it_waits_asks_when_it_is_alone);
    tcase_add_test(tcase, who_is_let_go_asks_once_more_whose_the_vm_is);
    tcase_add_test(tcase, what_was_asked_before_says_nothing_to_who_is_let_go);
    tcase_add_test(tcase, a_witness_that_is_away_keeps_nobody);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
