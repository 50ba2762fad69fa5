/* SPDX-License-Identifier: MIT */
#include "ft/give_back.h"

#include "core/clock.h"

#include <jansson.h>
#include <stdio.h>

static uint64_t age_s(const struct give_back_past *past, uint64_t wall_s)
{
    return wall_s > past->last_s ? wall_s - past->last_s : 0;
}

static unsigned moves_lately(const struct give_back_past *past, uint64_t wall_s)
{
    if (age_s(past, wall_s) >= GIVE_BACK_DAY_S)
        return 0;
    return past->moves < GIVE_BACK_MOST ? past->moves : GIVE_BACK_MOST;
}

static struct give_back_plan plan_at(const struct give_back_facts *facts, uint64_t now)
{
    unsigned moves = moves_lately(&facts->past, facts->wall_s);
    uint64_t quiet = facts->after_ns << moves, waited = now - facts->paired_ns;
    if (moves == GIVE_BACK_MOST)
        return (struct give_back_plan){
            GIVE_BACK_TOO_OFTEN,
            now + (GIVE_BACK_DAY_S - age_s(&facts->past, facts->wall_s)) * NS_PER_SEC};
    if (waited < quiet)
        return (struct give_back_plan){GIVE_BACK_WAITS, facts->paired_ns + quiet};
    return (struct give_back_plan){.verdict = GIVE_BACK_MOVES};
}

struct give_back_plan give_back_decide(const struct give_back_facts *facts, uint64_t now)
{
    struct give_back_plan plan = {0};
    if (facts->home == GIVE_BACK_HERE)
        plan.verdict = GIVE_BACK_AT_HOME;
    else if (facts->past.stays)
        plan.verdict = GIVE_BACK_STAYS;
    else if (facts->home == GIVE_BACK_UNKNOWN)
        plan.verdict = GIVE_BACK_NOT_KNOWN;
    else if (!facts->paired)
        plan.verdict = GIVE_BACK_NO_TWIN;
    else if (facts->home == GIVE_BACK_ELSEWHERE)
        plan.verdict = GIVE_BACK_AWAY;
    else
        plan = plan_at(facts, now);
    return plan;
}

static const struct {
    const char *word, *why;
} words[] = {
    [GIVE_BACK_AT_HOME] = {"here", "it is at home here"},
    [GIVE_BACK_NOT_KNOWN] = {"not known", "where home is has not been looked up yet"},
    [GIVE_BACK_AWAY] = {"away", "its twin is not at home, but elsewhere"},
    [GIVE_BACK_NO_TWIN] = {"no twin", "it goes home when its twin there could go on"},
    [GIVE_BACK_STAYS] = {"stays", "somebody has moved it away from home: it goes there by itself "
                                  "again when it has been there"},
    [GIVE_BACK_WAITS] = {"waits", "it goes home when all has been well for long enough"},
    [GIVE_BACK_TOO_OFTEN] = {"too often", "it went home five times, each within a day after the "
                                          "one before, and did not stay: it waits for a day"},
    [GIVE_BACK_MOVES] = {"moves", "it goes home now"},
};

const char *give_back_word(enum give_back_verdict verdict)
{
    return words[verdict].word;
}

const char *give_back_why(enum give_back_verdict verdict)
{
    return words[verdict].why;
}

/* --- what is remembered ----------------------------------------------------------------------- */

void give_back_note_failure(struct give_back_past *past, uint64_t wall_s)
{
    past->moves = moves_lately(past, wall_s) + 1;
    if (past->moves > GIVE_BACK_MOST)
        past->moves = GIVE_BACK_MOST;
    past->last_s = wall_s;
}

void give_back_note_takeover(struct give_back_past *past, enum give_back_place home, bool handed,
                             uint64_t wall_s)
{
    if (home == GIVE_BACK_HERE) {
        past->stays = false;
        if (handed)
            give_back_note_failure(past, wall_s); /* counts all the same: it was moved */
    } else if (home != GIVE_BACK_UNKNOWN && handed) {
        past->stays = true; /* nobody else does that */
    }
}

bool give_back_parse(struct give_back_past *ret_past, const char *text, uint64_t wall_s)
{
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    json_int_t moves, last_s;
    int stays;
    bool good = root && json_unpack(root, "{sI, sI, sb!}", "moves", &moves, "last_s", &last_s,
                                    "stays", &stays) == 0;
    json_decref(root);
    if (!good || moves < 0 || moves > GIVE_BACK_MOST || last_s < 0)
        return false;
    *ret_past = (struct give_back_past){
        .moves = (unsigned)moves,
        .last_s = (uint64_t)last_s < wall_s ? (uint64_t)last_s : wall_s,
        .stays = stays,
    };
    return true;
}

void give_back_format(const struct give_back_past *past, char *ret_text)
{
    snprintf(ret_text, GIVE_BACK_TEXT_MAX, "{\"moves\": %u, \"last_s\": %llu, \"stays\": %s}\n",
             past->moves, (unsigned long long)past->last_s, past->stays ? "true" : "false");
}
