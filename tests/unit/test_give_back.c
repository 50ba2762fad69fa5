/* SPDX-License-Identifier: MIT */
#include "core/clock.h"
#include "ft/give_back.h"
#include "tests/unit/unit.h"

#include <stdlib.h>
#include <string.h>

#define S NS_PER_SEC

enum { WALL = 1764000000, AFTER_S = 300, HOUR_S = 3600 };

static struct give_back_facts facts_of(unsigned moves, uint64_t last_s)
{
    return (struct give_back_facts){
        .home = GIVE_BACK_PEER,
        .paired = true,
        .paired_ns = 1000 * S,
        .after_ns = AFTER_S * S,
        .past = {.moves = moves, .last_s = last_s},
        .wall_s = WALL,
    };
}

static void check(const struct give_back_facts *facts, uint64_t now, enum give_back_verdict verdict,
                  uint64_t at)
{
    const struct give_back_plan plan = give_back_decide(facts, now);
    ck_assert_str_eq(give_back_word(plan.verdict), give_back_word(verdict));
    ck_assert_uint_eq(plan.at_ns, at);
}

START_TEST(it_goes_home_after_a_quiet_time)
{
    const struct give_back_facts facts = facts_of(0, 0);
    check(&facts, 1000 * S, GIVE_BACK_WAITS, 1300 * S);
    check(&facts, 1300 * S - 1, GIVE_BACK_WAITS, 1300 * S);
    check(&facts, 1300 * S, GIVE_BACK_MOVES, 0);
}
END_TEST

START_TEST(a_twin_that_was_lost_makes_it_wait_anew)
{
    struct give_back_facts facts = facts_of(0, 0);
    facts.paired = false;
    check(&facts, 1300 * S, GIVE_BACK_NO_TWIN, 0);
    facts.paired = true;
    facts.paired_ns = 1299 * S;
    check(&facts, 1300 * S, GIVE_BACK_WAITS, 1599 * S);
}
END_TEST

START_TEST(who_is_at_home_stays_and_who_has_no_twin_there_too)
{
    struct give_back_facts facts = facts_of(0, 0);
    facts.home = GIVE_BACK_HERE;
    check(&facts, 5000 * S, GIVE_BACK_AT_HOME, 0);
    facts.home = GIVE_BACK_ELSEWHERE;
    check(&facts, 5000 * S, GIVE_BACK_AWAY, 0);
    facts.home = GIVE_BACK_UNKNOWN;
    check(&facts, 5000 * S, GIVE_BACK_NOT_KNOWN, 0);
}
END_TEST

START_TEST(each_move_within_a_day_doubles_the_time)
{
    for (unsigned moves = 0; moves < GIVE_BACK_MOST; moves++) {
        const struct give_back_facts facts = facts_of(moves, WALL - HOUR_S);
        uint64_t at = (1000 + (AFTER_S << moves)) * S;
        check(&facts, at - 1, GIVE_BACK_WAITS, at);
        check(&facts, at, GIVE_BACK_MOVES, 0);
    }
}
END_TEST

START_TEST(after_too_many_it_waits_for_a_day)
{
    struct give_back_facts facts = facts_of(GIVE_BACK_MOST, WALL - HOUR_S);
    check(&facts, 500000 * S, GIVE_BACK_TOO_OFTEN, (500000 + 23 * HOUR_S) * S);
    facts.past.last_s = WALL - GIVE_BACK_DAY_S;
    check(&facts, 1300 * S, GIVE_BACK_MOVES, 0);
}
END_TEST

START_TEST(whoever_moved_it_away_is_not_contradicted)
{
    struct give_back_facts facts = facts_of(0, 0);
    give_back_note_takeover(&facts.past, GIVE_BACK_PEER, true, WALL);
    check(&facts, 500000 * S, GIVE_BACK_STAYS, 0);
    facts.paired = false;
    check(&facts, 500000 * S, GIVE_BACK_STAYS, 0);
    /* It has come home, and goes away again by a failure: nobody has wanted that. */
    give_back_note_takeover(&facts.past, GIVE_BACK_HERE, false, WALL);
    ck_assert(!facts.past.stays && facts.past.moves == 0);
    give_back_note_takeover(&facts.past, GIVE_BACK_PEER, false, WALL);
    ck_assert(!facts.past.stays);
}
END_TEST

START_TEST(what_is_counted_are_moves_home)
{
    struct give_back_past past = {0};
    for (unsigned i = 1; i <= GIVE_BACK_MOST + 2; i++) {
        unsigned counted = i < GIVE_BACK_MOST ? i : GIVE_BACK_MOST;
        give_back_note_takeover(&past, GIVE_BACK_HERE, true, WALL + i * HOUR_S);
        ck_assert_uint_eq(past.moves, counted);
        ck_assert_uint_eq(past.last_s, WALL + i * HOUR_S);
        give_back_note_takeover(&past, GIVE_BACK_PEER, false, WALL + i * HOUR_S + 60);
        ck_assert_uint_eq(past.moves, counted);
    }
    give_back_note_takeover(&past, GIVE_BACK_HERE, true, past.last_s + GIVE_BACK_DAY_S);
    ck_assert_uint_eq(past.moves, 1); /* a day was quiet: it begins anew */
    give_back_note_failure(&past, past.last_s + 1);
    ck_assert_uint_eq(past.moves, 2);
}
END_TEST

/* Home fails a minute after each return, for a week, and the other side takes over. */
START_TEST(a_home_that_always_fails_has_it_a_few_times_a_day)
{
    struct give_back_past past = {0};
    unsigned moves = 0;
    uint64_t begin = WALL, paired = begin;
    for (uint64_t wall = begin; wall < begin + 7 * GIVE_BACK_DAY_S; wall++) {
        const struct give_back_facts facts = {.home = GIVE_BACK_PEER,
                                              .paired = true,
                                              .paired_ns = paired * S,
                                              .after_ns = AFTER_S * S,
                                              .past = past,
                                              .wall_s = wall};
        if (give_back_decide(&facts, wall * S).verdict != GIVE_BACK_MOVES)
            continue;
        moves++;
        give_back_note_takeover(&past, GIVE_BACK_HERE, true, wall);
        wall += 60;
        give_back_note_takeover(&past, GIVE_BACK_PEER, false, wall);
        paired = wall;
    }
    ck_assert_uint_ge(moves, 7);
    ck_assert_uint_le(moves, 7 * GIVE_BACK_MOST);
}
END_TEST

START_TEST(the_past_is_a_text)
{
    const struct give_back_past past = {.moves = 2, .last_s = WALL, .stays = true};
    struct give_back_past read;
    char text[GIVE_BACK_TEXT_MAX];
    give_back_format(&past, text);
    ck_assert_str_eq(text, "{\"moves\": 2, \"last_s\": 1764000000, \"stays\": true}\n");
    ck_assert(give_back_parse(&read, text, WALL + 1));
    ck_assert_uint_eq(read.moves, 2);
    ck_assert_uint_eq(read.last_s, WALL);
    ck_assert(read.stays);
    ck_assert(give_back_parse(&read, text, WALL - 500)); /* a clock was wrong */
    ck_assert_uint_eq(read.last_s, WALL - 500);
}
END_TEST

START_TEST(what_is_no_past_is_refused)
{
    static const char *const bad[] = {
        "",
        "{}",
        "[]",
        "{\"moves\": 2, \"last_s\": 5}",
        "{\"moves\": 6, \"last_s\": 5, \"stays\": true}",
        "{\"moves\": -1, \"last_s\": 5, \"stays\": true}",
        "{\"moves\": 1, \"last_s\": -5, \"stays\": true}",
        "{\"moves\": 1, \"last_s\": 5, \"stays\": 1}",
        "{\"moves\": \"1\", \"last_s\": 5, \"stays\": true}",
        "{\"moves\": 1, \"last_s\": 5, \"stays\": true, \"more\": 1}",
        "{\"moves\": 1, \"moves\": 1, \"last_s\": 5, \"stays\": true}",
    };
    struct give_back_past past;
    for (size_t i = 0; i < array_size(bad); i++)
        ck_assert_msg(!give_back_parse(&past, bad[i], WALL), "%s", bad[i]);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("give_back");
    TCase *tcase = tcase_create("give_back");
    tcase_add_test(tcase, it_goes_home_after_a_quiet_time);
    tcase_add_test(tcase, a_twin_that_was_lost_makes_it_wait_anew);
    tcase_add_test(tcase, who_is_at_home_stays_and_who_has_no_twin_there_too);
    tcase_add_test(tcase, each_move_within_a_day_doubles_the_time);
    tcase_add_test(tcase, after_too_many_it_waits_for_a_day);
    tcase_add_test(tcase, whoever_moved_it_away_is_not_contradicted);
    tcase_add_test(tcase, what_is_counted_are_moves_home);
    tcase_add_test(tcase, a_home_that_always_fails_has_it_a_few_times_a_day);
    tcase_add_test(tcase, the_past_is_a_text);
    tcase_add_test(tcase, what_is_no_past_is_refused);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
