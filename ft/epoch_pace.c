/* SPDX-License-Identifier: MIT */
#include "ft/epoch_pace.h"

enum {
    TELLING_PAGES = 128, /* fewer say nothing of what a page costs */
    TRY_AGAIN = 200,     /* epochs, until the other way is tried */
    THROTTLE_UP = 10,
    THROTTLE_DOWN = 5,
    MOST_THROTTLE = 98,
};

/* From here on a guest that is slowed down is the lesser evil. */
#define LONG_PAUSE_NS  UINT64_C(20000000)
#define LONG_COMMIT_NS UINT64_C(250000000) /* its output waits as long */

void epoch_pace_init(struct epoch_pace *pace, const struct epoch_pace_config *config)
{
    *pace = (struct epoch_pace){.config = *config, .throttle = config->throttle};
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

/* What a page costs changes slowly; one epoch says little. */
static void learn(struct epoch_pace *pace, const struct epoch_record *record)
{
    double cost = (double)record->commit_ns / (double)record->pages;
    double *known = &pace->cost[record->compressed];
    *known = *known > 0 ? *known + (cost - *known) / 8 : cost;
}

static void choose(struct epoch_pace *pace)
{
    bool other_known = pace->cost[!pace->compress] > 0;
    if (++pace->since_try >= TRY_AGAIN || !other_known) {
        pace->since_try = 0;
        pace->compress = !pace->compress;
    } else if (pace->cost[1] > 0 && pace->cost[0] > 0) {
        pace->compress = pace->cost[1] < pace->cost[0];
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
    learn(pace, record);
    choose(pace);
}

const char *epoch_pace_reason_name(enum pace_reason reason)
{
    static const char *const names[] = {
        [PACE_FREE] = "", [PACE_TWIN] = "twin", [PACE_PAUSE] = "pause", [PACE_MEMORY] = "memory"};
    return names[reason];
}
