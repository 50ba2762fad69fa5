/* SPDX-License-Identifier: MIT */
/*
 * sim [--seeds FIRST COUNT]    runs them; the first that breaks a promise is shown, exit code 1
 * sim --seed N                 one of them, with all that happens
 * sim --grid [N]               every cell of grid.c in the same way, or one of them
 */
#include "tests/sim/sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TROUBLE = 900 * MS, CALM = 1200 * MS, PROGRESS = 3 };

struct sums {
    uint64_t events, answers, takeovers, pairings, partings, restarts, forced;
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
    node_kill(world, lost);
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
    world_finish(world);
    free(world);
    return good;
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
    printf("1 passed, 0 failed\n");
    return 0;
}
