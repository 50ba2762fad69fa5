/* SPDX-License-Identifier: MIT */
#include "ft/epoch_pace.h"

enum {
    TELLING_PAGES = 128, /* fewer say nothing of what a page costs */
    TRY_AGAIN = 100,     /* epochs, until another way is tried */
    THROTTLE_UP = 10,
    THROTTLE_DOWN = 5,
    MOST_THROTTLE = 98,
};

/* From here on a guest that is slowed down is the lesser evil. */
#define LONG_PAUSE_NS  UINT64_C(20000000)
#define LONG_COMMIT_NS UINT64_C(250000000) /* its output waits as long */

void epoch_pace_init(struct epoch_pace *pace, const struct epoch_pace_config *config)
{
    *pace = (struct epoch_pace){
        .config = *config, .effort = EFFORT_DELTAS, .throttle = config->throttle};
    if (config->max_ns < config->min_ns)
        pace->config.max_ns = config->min_ns;
}

uint64_t epoch_pace_due(const struct epoch_pace *pace, uint64_t began_ns, uint64_t pause_ns,
                        bool pressed, enum pace_reason *ret_reason)
{
    uint64_t share = pause_ns * 100 / pace->config.pause_percent;
    uint64_t wait = pressed ? pace->config.min_ns : pace->config.max_ns;
    *ret_reason = pace->throttle ? PACE_MEMORY : share > wait ? PACE_PAUSE : PACE_FREE;
    return began_ns + (share > wait ? share : wait);
}

/* What a page costs changes slowly, and one epoch says little; but of a try there are few. */
static void learn(struct epoch_pace *pace, const struct epoch_record *record)
{
    double cost = (double)record->commit_ns / (double)record->pages;
    double *known = &pace->cost[record->effort];
    *known = *known > 0 ? *known + (cost - *known) / (pace->tries ? 2 : 8) : cost;
}

static void change_to(struct epoch_pace *pace, enum page_effort effort, bool tries)
{
    pace->effort = effort;
    pace->tries = tries;
    pace->since = 0;
}

static enum page_effort cheapest(const struct epoch_pace *pace)
{
    enum page_effort best = pace->effort;
    for (enum page_effort other = 0; other < PAGE_EFFORTS; other++)
        if (pace->cost[other] > 0 && pace->cost[other] < pace->cost[best])
            best = other;
    return best;
}

static enum page_effort next_of(enum page_effort effort)
{
    return (effort + 1) % PAGE_EFFORTS;
}

static bool is_all_known(const struct epoch_pace *pace)
{
    bool all = true;
    for (enum page_effort effort = 0; effort < PAGE_EFFORTS; effort++)
        all = all && pace->cost[effort] > 0;
    return all;
}

/* The first epoch with a new effort is not like the next: nothing was sent before it from which a
 * page could differ. */
static void choose(struct epoch_pace *pace, const struct epoch_record *record)
{
    if (record->effort != pace->effort) /* it was under way */
        return;
    if (pace->since++ == 0 && pace->effort != EFFORT_NONE)
        return;
    learn(pace, record);
    if (!pace->tries && (pace->since >= TRY_AGAIN || !is_all_known(pace))) {
        pace->tried = next_of(next_of(pace->tried) == pace->effort ? pace->effort : pace->tried);
        change_to(pace, pace->tried, true);
    } else if (cheapest(pace) != pace->effort) {
        change_to(pace, cheapest(pace), false);
    } else {
        pace->tries = false;
    }
}

/* Where a line takes much less than the guest writes, half of the time that it still has goes at
 * once; and all of it where an epoch took so long that the guest has written all that it ever does,
 * because small steps would not make the next one shorter. */
static void slow_down(struct epoch_pace *pace, const struct epoch_record *record)
{
    bool many = record->pages >= TELLING_PAGES;
    unsigned rest = MOST_THROTTLE - pace->throttle;
    if (many && record->commit_ns > LONG_COMMIT_NS)
        pace->throttle += record->commit_ns > 4 * LONG_COMMIT_NS ? rest : (rest + 1) / 2;
    else if (record->pause_ns > LONG_PAUSE_NS)
        pace->throttle += rest < THROTTLE_UP ? rest : THROTTLE_UP;
    else if (record->pause_ns < LONG_PAUSE_NS / 2 && record->commit_ns < LONG_COMMIT_NS / 2)
        pace->throttle -= pace->throttle < THROTTLE_DOWN ? pace->throttle : THROTTLE_DOWN;
}

void epoch_pace_judge(struct epoch_pace *pace, const struct epoch_record *record)
{
    pace->judged = record->epoch;
    if (record->cause != EPOCH_OUTPUT && record->cause != EPOCH_TIME && record->cause != EPOCH_DISK)
        return; /* the first and the last are not like others */
    slow_down(pace, record);
    if (record->pages < TELLING_PAGES || record->commit_ns == 0)
        return;
    choose(pace, record);
}

const char *epoch_pace_reason_name(enum pace_reason reason)
{
    static const char *const names[] = {
        [PACE_FREE] = "", [PACE_TWIN] = "twin", [PACE_PAUSE] = "pause", [PACE_MEMORY] = "memory"};
    return names[reason];
}
