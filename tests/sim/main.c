/* SPDX-License-Identifier: MIT */
/*
 * sim [--seeds FIRST COUNT]    runs them; the first that breaks a promise is shown, exit code 1
 * sim --seed N                 one of them, with all that happens
 */
#include "tests/sim/sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TROUBLE = 900 * MS, CALM = 900 * MS, PROGRESS = 3 };

struct sums {
    uint64_t events, answers, takeovers, pairings, partings, restarts;
};

static void run_until(struct world *world, uint64_t until)
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

static void run(struct world *world)
{
    world->random = world->seed * 0x9e3779b97f4a7c15ull + 1;
    world->record = (struct ft_record){.generation = 1, .owner = 1 + A};
    node_init(world, A);
    node_init(world, B);
    client_start(world);
    faults_plan(world, TROUBLE);
    run_until(world, TROUBLE);
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

static bool simulate(uint64_t seed, bool trace, struct sums *sums)
{
    struct world *world = calloc(1, sizeof(*world));
    if (!world)
        abort();
    world->seed = seed;
    world->trace = trace;
    run(world);
    bool good = !world->broken;
    if (!good)
        printf("seed %llu: broken after %.3f ms: %s: %s\n", (unsigned long long)seed,
               (double)world->now / 1e3, world->broken, world->why);
    sums->events += world->events;
    sums->answers += world->answered;
    sums->takeovers += world->takeovers;
    sums->pairings += world->pairings;
    sums->partings += world->partings;
    sums->restarts += world->restarts;
    world_finish(world);
    free(world);
    return good;
}

int main(int argc, char **argv)
{
    uint64_t first = 1, count = 1000;
    struct sums sums = {0}, again = {0};
    bool one = argc == 3 && strcmp(argv[1], "--seed") == 0;
    if (argc == 4 && strcmp(argv[1], "--seeds") == 0) {
        first = strtoull(argv[2], NULL, 10);
        count = strtoull(argv[3], NULL, 10);
    } else if (argc != 1 && !one) {
        fprintf(stderr, "sim [--seeds FIRST COUNT | --seed N]\n");
        return 2;
    }
    if (one)
        return simulate(strtoull(argv[2], NULL, 10), true, &sums) ? 0 : 1;
    for (uint64_t seed = first; seed < first + count; seed++)
        if (!simulate(seed, false, &sums)) {
            simulate(seed, true, &again);
            printf("0 passed, 1 failed\n");
            return 1;
        }
    printf("%llu seeds: %llu events, %llu answers, %llu takeovers, %llu pairings, %llu partings, "
           "%llu restarts\n",
           (unsigned long long)count, (unsigned long long)sums.events,
           (unsigned long long)sums.answers, (unsigned long long)sums.takeovers,
           (unsigned long long)sums.pairings, (unsigned long long)sums.partings,
           (unsigned long long)sums.restarts);
    printf("1 passed, 0 failed\n");
    return 0;
}
