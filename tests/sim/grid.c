/* SPDX-License-Identifier: MIT */
/*
 * Not by chance: at each of some moments in a pair's life every way in which the six lines between
 * the hosts and the witness can be cut, for a short while and for a long one, and with each of them
 * nobody, or one of the three, that crashes or stands still, or a full disk, or a line that damages
 * what is said.
 */
#include "tests/sim/sim.h"

enum { PATTERNS = 64, TIMES = 2, MOST_STEPS = 8, PATIENCE = 2000 * MS };
enum fault {
    NOTHING,
    CRASH_A,
    CRASH_B,
    CRASH_W,
    FREEZE_A,
    FREEZE_B,
    FREEZE_W,
    FULL_A,
    FULL_B,
    NOISE,
    FAULTS
};

static const uint64_t times[TIMES] = {40 * MS, 300 * MS};

enum step_kind { DONE, WAIT, KILL, START, SWITCH, APPLIED, TAKE };

struct step {
    enum step_kind kind;
    int node;
    enum ft_state state;
};

static const struct moment {
    const char *name;
    struct step steps[MOST_STEPS];
} moments[] = {
    {"solo", {{DONE, 0, 0}}},
    {"a twin is being filled", {{WAIT, B, FT_FOLLOWING}}},
    {"gated", {{WAIT, A, FT_GATED}}},
    {"paired", {{WAIT, A, FT_PAIRED}}},
    {"alone", {{WAIT, A, FT_PAIRED}, {KILL, B, 0}, {WAIT, A, FT_ALONE}}},
    {"solo again", {{WAIT, A, FT_PAIRED}, {KILL, B, 0}, {WAIT, A, FT_SOLO}}},
    {"handing over", {{WAIT, A, FT_PAIRED}, {SWITCH, A, 0}, {WAIT, A, FT_HANDING}}},
    {"claiming", {{WAIT, A, FT_PAIRED}, {KILL, A, 0}, {WAIT, B, FT_CLAIMING}}},
    {"taken over", {{WAIT, A, FT_PAIRED}, {KILL, A, 0}, {WAIT, B, FT_SOLO}}},
    {"paired again",
     {{WAIT, A, FT_PAIRED}, {KILL, A, 0}, {WAIT, B, FT_SOLO}, {START, A, 0}, {WAIT, B, FT_PAIRED}}},
    {"the owner returns",
     {{WAIT, A, FT_PAIRED}, {KILL, A, 0}, {KILL, B, 0}, {START, A, 0}, {WAIT, A, FT_STARTING}}},
    {"the other one returns",
     {{WAIT, A, FT_PAIRED}, {KILL, A, 0}, {KILL, B, 0}, {START, B, 0}, {WAIT, B, FT_STARTING}}},
    {"both return, of whom the twin was the last owner",
     {{WAIT, A, FT_PAIRED},
      {KILL, A, 0},
      {WAIT, B, FT_SOLO},
      {KILL, B, 0},
      {START, A, 0},
      {START, B, 0},
      {WAIT, B, FT_STARTING}}},
    {"taken by a person",
     {{WAIT, A, FT_PAIRED},
      {APPLIED, B, 0},
      {KILL, B, 0},
      {WAIT, A, FT_SOLO},
      {START, B, 0},
      {TAKE, B, 0}}},
    {"taken from a dead one",
     {{WAIT, A, FT_PAIRED},
      {APPLIED, B, 0},
      {KILL, A, 0},
      {KILL, B, 0},
      {START, B, 0},
      {TAKE, B, 0}}},
    {"taken from a dead one that returns",
     {{WAIT, A, FT_PAIRED},
      {APPLIED, B, 0},
      {KILL, A, 0},
      {KILL, B, 0},
      {START, B, 0},
      {TAKE, B, 0},
      {START, A, 0}}},
};

enum { MOMENTS = sizeof(moments) / sizeof(moments[0]) };

static bool is_reached(struct world *world, const struct step *step)
{
    struct node *node = &world->nodes[step->node];
    if (step->kind == TAKE) { /* when its process is over */
        node_force(world, node);
        return world->record.twin == FT_FORCED;
    }
    if (step->kind == APPLIED) /* half an epoch on its disk is nothing that could be taken */
        return node->staged_count == 0;
    return node->process && node->protocol.state == step->state;
}

/* False: it did not come to that. */
static bool take(struct world *world, const struct step *step)
{
    uint64_t until = world->now + PATIENCE;
    struct node *node = &world->nodes[step->node];
    switch (step->kind) {
    case KILL:
        node_kill(world, node, false);
        node->up = false;
        return true;
    case START:
        faults_return(world, node, 0);
        return true;
    case SWITCH:
        node_switch(world, node);
        return true;
    default:
        while (!is_reached(world, step))
            if (world->broken || !next_event(world, until))
                return false;
        return true;
    }
}

static void break_one(struct world *world, enum fault fault, uint64_t time)
{
    switch (fault) {
    case CRASH_A:
    case CRASH_B:
        faults_doom(world, &world->nodes[fault == CRASH_A ? A : B]);
        break;
    case FREEZE_A:
    case FREEZE_B:
        faults_freeze(world, &world->nodes[fault == FREEZE_A ? A : B], time);
        break;
    case FULL_A:
    case FULL_B:
        faults_fill(world, &world->nodes[fault == FULL_A ? A : B], time);
        break;
    case NOISE:
        faults_noise(world, 8, time);
        break;
    case CRASH_W:
    case FREEZE_W:
        faults_witness(world, fault == FREEZE_W, time);
        break;
    default:
        break;
    }
}

unsigned grid_cells(void)
{
    return MOMENTS * TIMES * FAULTS * PATTERNS;
}

void grid_run(struct world *world, unsigned cell)
{
    unsigned pattern = cell % PATTERNS, rest = cell / PATTERNS;
    enum fault fault = (enum fault)(rest % FAULTS);
    uint64_t time = times[rest / FAULTS % TIMES];
    const struct moment *moment = &moments[rest / FAULTS / TIMES % MOMENTS];
    tell(world, "cell %u: %s", cell, moment->name);
    run_until(world, MS);
    for (unsigned i = 0; i < MOST_STEPS && moment->steps[i].kind != DONE; i++)
        if (!take(world, &moment->steps[i]))
            broken(world, "the moment comes", "\"%s\", step %u", moment->name, i + 1);
    if (world->broken)
        return;
    faults_cut(world, pattern, time);
    break_one(world, fault, time);
    for (int name = 0; name < NODES; name++)
        if (!world->nodes[name].process)
            faults_return(world, &world->nodes[name], chance(world, time));
    run_until(world, world->now + time + 100 * MS);
    run_calm(world);
}
