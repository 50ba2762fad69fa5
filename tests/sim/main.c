/* SPDX-License-Identifier: MIT */
/*
 * sim [--seeds FIRST COUNT]    runs them; the first that breaks a promise is shown, exit code 1;
 *                              so it is where one of the numbered failures never occurred
 * sim --seed N                 one of them, with all that happens
 * sim --grid [N]               every cell of grid.c in the same way, or one of them
 */
#include "tests/sim/sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TROUBLE = 900 * MS, CALM = 1200 * MS, PROGRESS = 3 };
enum { ENOUGH = 1000 }; /* seeds, in which every failure has its turn */

struct sums {
    uint64_t events, answers, takeovers, pairings, partings, restarts, forced;
    uint64_t failures[FAILURES];
};

void run_until(struct world *world, uint64_t until)
{
    while (!world->broken && next_event(world, until))
        ;
    world->now = until;
}

/* The node that is left is the owner, or the twin. */
static bool may_go_on(const struct world *world, const struct node *node)
{
    const struct ft_record *record = &world->record;
    return record->owner == (uint64_t)node->name + 1 ||
           (node->process && node->protocol.state == FT_TWIN &&
            record->twin == node->protocol.twin);
}

static void lose_one(struct world *world)
{
    struct node *lost = &world->nodes[chance(world, NODES)];
    struct node *left = &world->nodes[!lost->name];
    if (!may_go_on(world, left))
        return;
    tell(world, "%c is lost for good", 'A' + lost->name);
    node_kill(world, lost, one_in(world, 2));
    lost->up = lost->idle = false;
    run_until(world, world->now + CALM);
}

static void check_progress(struct world *world, const char *promise)
{
    uint64_t before = world->answered;
    run_until(world, world->now + CALM / 3);
    if (!world->guest_off && world->answered < before + PROGRESS)
        broken(world, promise, "%llu answers since",
               (unsigned long long)(world->answered - before));
}

static void begin(struct world *world)
{
    world->random = world->seed * 0x9e3779b97f4a7c15ull + 1;
    world->record = (struct ft_record){.generation = 1, .owner = 1 + A};
    node_init(world, A);
    node_init(world, B);
    client_start(world);
}

void run_calm(struct world *world)
{
    faults_mend(world);
    run_until(world, world->now + CALM);
    check_progress(world, "when all is well again, the VM goes on");
    if (!world->broken && !world->guest_off && world->nodes[A].protocol.state != FT_PAIRED &&
        world->nodes[B].protocol.state != FT_PAIRED)
        broken(world, "when all is well again, there are two", "A is %s, B is %s",
               ft_state_name(world->nodes[A].protocol.state),
               ft_state_name(world->nodes[B].protocol.state));
    if (!world->broken && !world->guest_off) {
        lose_one(world);
        check_progress(world, "one node and a witness are enough");
    }
}

static void run(struct world *world, bool grid)
{
    begin(world);
    if (grid) {
        grid_run(world, (unsigned)world->seed);
        return;
    }
    faults_plan(world, TROUBLE);
    run_until(world, TROUBLE);
    run_calm(world);
}

static bool simulate(uint64_t seed, bool grid, bool trace, struct sums *sums)
{
    struct world *world = calloc(1, sizeof(*world));
    if (!world)
        abort();
    world->seed = seed;
    world->trace = trace;
    run(world, grid);
    bool good = !world->broken;
    if (!good)
        printf("%s %llu: broken after %.3f ms: %s: %s\n", grid ? "cell" : "seed",
               (unsigned long long)seed, (double)world->now / 1e3, world->broken, world->why);
    sums->events += world->events;
    sums->answers += world->answered;
    sums->takeovers += world->takeovers;
    sums->pairings += world->pairings;
    sums->partings += world->partings;
    sums->restarts += world->restarts;
    sums->forced += world->forced;
    for (unsigned i = 0; i < FAILURES; i++)
        sums->failures[i] += world->failures[i];
    world_finish(world);
    free(world);
    return good;
}

/* How often each has been, by its number. False: one that never was, in so many worlds. */
static bool say_failures(const struct sums *sums, uint64_t count)
{
    static const char *const names[FAILURES] = {
        [F1_PRIMARY_DIES] = "F1 the primary dies",
        [F2_PRIMARY_LOSES_POWER] = "F2 its host loses power",
        [F3_TWIN_DIES] = "F3 the twin dies",
        [F4_LINE_CUT] = "F4 the line is cut",
        [F5_PRIMARY_FROZEN] = "F5 the primary thaws too late",
        [F6_WITNESS_AWAY] = "F6 the witness is away",
        [F7_TWIN_DISK] = "F7 a twin's disk fails",
        [F8_SLOW] = "F8 line or disk is slow",
        [F9_DAMAGED] = "F9 damaged messages",
        [F10_BOTH_DIE] = "F10 both die",
        [F12_CLOCK] = "F12 a clock jumps",
        [F13_DEATH_IN_SYNC] = "F13 a death in the sync",
        [F14_DEATH_BEFORE_RELEASE] = "F14 a death before the release",
        [F15_DEATH_IN_TAKEOVER] = "F15 a death in the takeover",
        [F16_ONE_WAY] = "F16 one way is cut",
        [F7_PRIMARY_DISK] = "F7 the primary's disk fails"};
    bool all = true;
    for (unsigned i = 0; i < FAILURES; i++)
        if (names[i])
            printf("%s%s %llu", i == F1_PRIMARY_DIES ? "" : ", ", names[i],
                   (unsigned long long)sums->failures[i]);
    putchar('\n');
    for (unsigned i = 0; i < FAILURES && count >= ENOUGH; i++)
        if (names[i] && sums->failures[i] == 0) {
            printf("never occurred: %s\n", names[i]);
            all = false;
        }
    return all;
}

int main(int argc, char **argv)
{
    uint64_t first = 1, count = 1000;
    struct sums sums = {0}, again = {0};
    bool grid = argc > 1 && strcmp(argv[1], "--grid") == 0;
    bool one = argc == 3 && (grid || strcmp(argv[1], "--seed") == 0);
    if (argc == 4 && strcmp(argv[1], "--seeds") == 0) {
        first = strtoull(argv[2], NULL, 10);
        count = strtoull(argv[3], NULL, 10);
    } else if (grid) {
        first = 0;
        count = grid_cells();
    } else if (argc != 1 && !one) {
        fprintf(stderr, "sim [--seeds FIRST COUNT | --seed N | --grid [N]]\n");
        return 2;
    }
    if (one)
        return simulate(strtoull(argv[2], NULL, 10), grid, true, &sums) ? 0 : 1;
    for (uint64_t seed = first; seed < first + count; seed++)
        if (!simulate(seed, grid, false, &sums)) {
            simulate(seed, grid, true, &again);
            printf("0 passed, 1 failed\n");
            return 1;
        }
    printf("%llu %s: %llu events, %llu answers, %llu takeovers, %llu pairings, %llu partings, "
           "%llu restarts, %llu taken by a person\n",
           (unsigned long long)count, grid ? "cells" : "seeds", (unsigned long long)sums.events,
           (unsigned long long)sums.answers, (unsigned long long)sums.takeovers,
           (unsigned long long)sums.pairings, (unsigned long long)sums.partings,
           (unsigned long long)sums.restarts, (unsigned long long)sums.forced);
    bool all = grid || say_failures(&sums, count);
    printf("%d passed, %d failed\n", all, !all);
    return all ? 0 : 1;
}
