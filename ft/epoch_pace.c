/* SPDX-License-Identifier: MIT */
#include "ft/epoch_pace.h"

#include "ft/slow_line.h"

#include <string.h>

enum {
    TELLING_PAGES = 128,   /* fewer say nothing of what a page costs */
    MANY_PAGES = 1024,     /* fewer make no long pause */
    TRY_AGAIN = 100,       /* epochs, until another way is tried; if the last one was as good */
    TRY_RARELY = 64,       /* times as many, at most */
    SLOW_SURE = 3,         /* epochs in a row: one that was slow may have had other reasons */
    SLOW_FORGOTTEN = 1000, /* epochs after which it is looked at anew */
    MOST_THROTTLE = 98,
    UNDER_WAY = 2, /* epochs, at most */
};

/* From here on a guest that is slowed down is the lesser evil. */
#define LONG_PAUSE_NS  UINT64_C(20000000)
#define LONG_COMMIT_NS UINT64_C(250000000) /* its output waits as long */
#define STEP           0.9
#define LEAST_STEP     0.1

void epoch_pace_init(struct epoch_pace *pace, const struct epoch_pace_config *config)
{
    *pace = (struct epoch_pace){.config = *config,
                                .effort = EFFORT_DELTAS,
                                .run = 1 - config->throttle / 100.0,
                                .throttle = config->throttle};
    if (config->max_ns < config->min_ns)
        pace->config.max_ns = config->min_ns;
}

uint64_t epoch_pace_due(const struct epoch_pace *pace, uint64_t began_ns, uint64_t pause_ns,
                        bool pressed, enum pace_reason *ret_reason)
{
    uint64_t share = pause_ns * 100 / pace->config.pause_percent;
    if (share > LONG_COMMIT_NS) /* who has such pauses is slowed down; its output need not wait */
        share = LONG_COMMIT_NS;
    uint64_t wait = pressed ? pace->config.min_ns : pace->config.max_ns;
    *ret_reason = pace->throttle ? PACE_MEMORY : share > wait ? PACE_PAUSE : PACE_FREE;
    return began_ns + (share > wait ? share : wait);
}

/* What a page costs changes slowly, and one epoch says little; but of a try there are few, and what
 * has become much cheaper is so because the line is another one. */
static void learn(struct epoch_pace *pace, const struct epoch_record *record)
{
    double cost = (double)record->commit_ns / (double)record->pages;
    double *known = &pace->cost[record->effort];
    bool anew = *known <= 0 || (pace->tries && cost < *known / 2);
    *known = anew ? cost : *known + (cost - *known) / (pace->tries ? 2 : 8);
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

/* What costs were before says nothing any more. */
static void begin_anew(struct epoch_pace *pace)
{
    memset(pace->cost, 0, sizeof(pace->cost));
    pace->slow = 0;
    change_to(pace, EFFORT_DELTAS, false);
}

/* A twin's disks are no line, nor is a host that hardly gets to send. */
static uint64_t on_line_ns(const struct epoch_record *record)
{
    return record->line_ns < record->send_ns ? record->line_ns : record->send_ns;
}

/* What pages cost otherwise would have to be tried for long: a guest may come back to its pages
 * only after many epochs, and until then not even the changes in them are short. True: it is slow.
 */
static bool judge_line(struct epoch_pace *pace, const struct epoch_record *record)
{
    bool was_sure = pace->slow == SLOW_SURE;
    pace->slow_since++;
    if (record->wire_bytes >= SLOW_LINE_MUCH) {
        pace->slow_since = 0;
        pace->line_cost = (double)on_line_ns(record) / (double)record->wire_bytes;
        if (!slow_line(record->wire_bytes, on_line_ns(record)))
            pace->slow = 0;
        else if (pace->slow < SLOW_SURE)
            pace->slow++;
    }
    if (pace->slow == SLOW_SURE && pace->slow_since < SLOW_FORGOTTEN) {
        if (pace->effort != EFFORT_LZ4)
            change_to(pace, EFFORT_LZ4, false);
        return true;
    }
    if (was_sure)
        begin_anew(pace);
    return false;
}

/* A try costs whoever waits for that epoch as much more as the way is worse. */
static unsigned try_again(const struct epoch_pace *pace)
{
    double worse = is_all_known(pace) ? pace->cost[pace->tried] / pace->cost[cheapest(pace)] : 1;
    worse = worse < 1 ? 1 : worse > TRY_RARELY ? TRY_RARELY : worse;
    return TRY_AGAIN * (unsigned)worse;
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
    if (!pace->tries && (pace->since >= try_again(pace) || !is_all_known(pace))) {
        pace->tried = next_of(next_of(pace->tried) == pace->effort ? pace->effort : pace->tried);
        change_to(pace, pace->tried, true);
    } else if (cheapest(pace) != pace->effort) {
        change_to(pace, cheapest(pace), false);
    } else {
        pace->tries = false;
    }
}

/* What is late by half is brought back by half at once, unless that is very much: where an epoch
 * took so long the guest may have written all that it ever does. */
static double part_of(uint64_t wanted_ns, uint64_t ns)
{
    double part = (double)wanted_ns / (double)ns;
    return part < LEAST_STEP ? LEAST_STEP : part < STEP ? part : STEP;
}

/* What the line could have had, and a busy host has not sent or taken, or a twin not stored, is
 * not. */
static bool is_of_the_line(const struct epoch_record *record)
{
    return record->line_ns > record->commit_ns / 4;
}

/* A guest that runs for half as long writes half as much, at most. What is late because a host is
 * busy gets no shorter by that, and takes nothing from it. What is in time gives it its freedom
 * back bit by bit. */
static double judge_guest(const struct epoch_record *record)
{
    bool is_much = record->wire_bytes >= SLOW_LINE_MUCH, of_line = is_of_the_line(record);
    bool many = record->pages >= MANY_PAGES, tells = record->pages >= TELLING_PAGES;
    double part = 1;
    if (tells && record->commit_ns > LONG_COMMIT_NS && (is_much || of_line))
        part = part_of(LONG_COMMIT_NS / 2, record->commit_ns);
    if (many && record->pages_ns > LONG_PAUSE_NS) {
        double other = part_of(LONG_PAUSE_NS, record->pages_ns);
        part = other < part ? other : part;
    }
    bool is_near = (of_line && record->commit_ns > LONG_COMMIT_NS / 2) ||
                   (many && record->pages_ns > LONG_PAUSE_NS / 2);
    return part == 1 && !is_near ? 1 / STEP : part;
}

/* Epochs that were under way when it was slowed down say nothing of what came of that. */
static void slow_down(struct epoch_pace *pace, const struct epoch_record *record)
{
    const double least = (100 - MOST_THROTTLE) / 100.0;
    double part = judge_guest(record), run = pace->run * part;
    if (part < 1 && pace->slowed && record->epoch <= pace->slowed + UNDER_WAY)
        return;
    if (part < 1)
        pace->slowed = record->epoch;
    pace->run = run < least ? least : run > 1 ? 1 : run;
    pace->throttle = (unsigned)(100 - pace->run * 100 + 0.5);
}

void epoch_pace_judge(struct epoch_pace *pace, const struct epoch_record *record)
{
    pace->judged = record->epoch;
    if (record->cause == EPOCH_FIRST || record->cause == EPOCH_LAST)
        return; /* the first and the last are not like others */
    slow_down(pace, record);
    if (record->pages < TELLING_PAGES || record->commit_ns == 0)
        return;
    if (!judge_line(pace, record))
        choose(pace, record);
}

bool epoch_pace_sends_early(const struct epoch_pace *pace)
{
    return pace->slow < SLOW_SURE;
}

uint64_t epoch_pace_leave_ns(const struct epoch_pace *pace, uint64_t bytes)
{
    uint64_t longest = pace->config.max_ns;
    bool unknown = pace->tries || pace->since == 0;
    if (pace->slow == SLOW_SURE ? (double)bytes * pace->line_cost < (double)longest
                                : !unknown || bytes < SLOW_LINE_MUCH / 2)
        return 0;
    return longest + longest / 4; /* the next one may be a little late */
}

unsigned epoch_pace_slowed(const struct epoch_pace *pace, uint64_t braked_ns, uint64_t ran_ns)
{
    unsigned runs = 100 - pace->throttle;
    if (braked_ns >= ran_ns)
        return braked_ns ? 100 : pace->throttle;
    return 100 - (unsigned)(runs * (ran_ns - braked_ns) / ran_ns);
}

const char *epoch_pace_reason_name(enum pace_reason reason)
{
    static const char *const names[] = {
        [PACE_FREE] = "", [PACE_TWIN] = "twin", [PACE_PAUSE] = "pause", [PACE_MEMORY] = "memory"};
    return names[reason];
}
