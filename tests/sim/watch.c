/* SPDX-License-Identifier: MIT */
/* The client, and whoever sees everything: do the promises hold? */
#include "tests/sim/sim.h"

enum { AGAIN = 10 * MS, THINKS = 2 * MS, ON_THE_WAY = 300 };

/* --- the client ------------------------------------------------------------------------------- */

static void handle_request(struct world *world, void *arg, uint64_t id)
{
    node_request(world, arg, id);
}

/* It does not know who runs the VM: the switch asks both. */
static void send_request(struct world *world)
{
    for (int name = 0; name < NODES; name++)
        if (!world->cut[CLIENT][name])
            later(world, 50 + chance(world, ON_THE_WAY), handle_request, &world->nodes[name],
                  world->request);
}

static void handle_patience(struct world *world, void *arg, uint64_t id)
{
    if (world->request != id)
        return;
    send_request(world);
    later(world, AGAIN, handle_patience, NULL, id);
}

static void handle_next(struct world *world, void *arg, uint64_t id)
{
    world->request = id;
    send_request(world);
    later(world, AGAIN, handle_patience, NULL, id);
}

static void handle_reply(struct world *world, void *arg, uint64_t both)
{
    struct fact answer = {.count = both & UINT32_MAX, .id = both >> 32};
    if (answer.id != world->request || answer.id == world->last_answer.id)
        return;
    if (answer.count <= world->last_answer.count)
        broken(world, "what was acknowledged does not vanish",
               "the client knows of count %llu, and is told %llu",
               (unsigned long long)world->last_answer.count, (unsigned long long)answer.count);
    world->last_answer = answer;
    world->answered++;
    later(world, 1 + chance(world, THINKS), handle_next, NULL, answer.id + 1);
}

void client_start(struct world *world)
{
    handle_next(world, NULL, 1);
}

/* --- what comes out --------------------------------------------------------------------------- */

void watch_emit(struct world *world, struct node *node, const struct held *held, bool free)
{
    uint64_t generation = node->protocol.record.generation, twin = node->protocol.twin;
    uint64_t us = (uint64_t)node->name + 1;
    uint8_t *emitter = &world->emitter[generation % MOST_TWINS];
    if (*emitter && *emitter != us)
        broken(world, "one node releases output for a generation", "%c for %llu, as the other did",
               'A' + node->name, (unsigned long long)generation);
    *emitter = (uint8_t)us;
    bool taken = world->record.twin == FT_FORCED; /* and nobody has begun since */
    if (free && !taken && (world->record.owner != us || world->record.twin != 0))
        broken(world, "output is free only for who is alone",
               "%c lets it go, and generation %llu is %s", 'A' + node->name,
               (unsigned long long)world->record.generation,
               world->record.owner == us ? "paired" : "another's");
    if (!free && world->whole[twin % MOST_TWINS] < held->epoch)
        broken(world, "no output before its epoch is held by the peer",
               "%c lets epoch %llu go, and the twin has %llu", 'A' + node->name,
               (unsigned long long)held->epoch,
               (unsigned long long)world->whole[twin % MOST_TWINS]);
    if (held->answer.count > world->most_emitted)
        world->most_emitted = held->answer.count;
    if (!world->cut[node->name][CLIENT])
        later(world, 50 + chance(world, ON_THE_WAY), handle_reply, NULL,
              held->answer.id << 32 | held->answer.count);
}

void watch_staged(struct world *world, uint64_t twin, uint64_t epoch)
{
    world->whole[twin % MOST_TWINS] = epoch;
}

/* --- who runs it ------------------------------------------------------------------------------ */

void watch_exchange(struct world *world, const struct ft_record *record)
{
    tell(world, "witness: generation %llu is %c's, %s", (unsigned long long)record->generation,
         (char)('A' + record->owner - 1), record->twin ? "paired" : "solo");
}

/* Who could take over, as far as the witness knows, is counted on: unless there is nothing left. */
void watch_dismissed(struct world *world, struct node *node)
{
    world->partings++;
    if (world->record.twin == node->protocol.twin && !world->guest_off)
        broken(world, "nobody is sent away who is counted on",
               "%c ends, and could take over generation %llu", 'A' + node->name,
               (unsigned long long)world->record.generation);
}

/* Of the last counts up to this one: what is not at its place. 0: they are all there. */
static uint64_t find_wrong(const struct disk *disk, uint64_t count)
{
    for (unsigned i = 0; i < BLOCKS && count > 0; i++, count--)
        if (disk->blocks[count % BLOCKS].count != count)
            return count;
    return 0;
}

bool watch_is_whole(const struct disk *disk)
{
    uint64_t last = 0;
    for (unsigned i = 0; i < BLOCKS; i++)
        if (disk->blocks[i].count > last)
            last = disk->blocks[i].count;
    return find_wrong(disk, last) == 0;
}

/* What was told and is not there is what the person has given up. */
static void begin_anew(struct world *world, struct node *node)
{
    uint64_t count = node->memory.count;
    node->forced = false;
    tell(world, "%c: goes on from %llu, where %llu was told", 'A' + node->name,
         (unsigned long long)count, (unsigned long long)world->most_emitted);
    if (world->most_emitted > count)
        world->most_emitted = count;
    if (world->last_answer.count >= count) /* the last one may never have been answered */
        world->last_answer.count = count ? count - 1 : 0;
}

/* On the disk are the last counts up to that of the memory, each at its place, and nothing else. */
void watch_start(struct world *world, struct node *node)
{
    const struct fact *memory = &node->memory;
    uint64_t wrong = find_wrong(&node->disk, memory->count);
    if (wrong)
        broken(world, "the disk is that of the epoch",
               "%c goes on from count %llu, and has %llu in the place of %llu", 'A' + node->name,
               (unsigned long long)memory->count,
               (unsigned long long)node->disk.blocks[wrong % BLOCKS].count,
               (unsigned long long)wrong);
    if (node->forced)
        begin_anew(world, node);
    if (memory->count < world->most_emitted)
        broken(world, "nothing that left is forgotten", "%c goes on from %llu, and %llu was told",
               'A' + node->name, (unsigned long long)memory->count,
               (unsigned long long)world->most_emitted);
    for (int name = 0; name < NODES; name++)
        if (name != node->name && node_is_free(world, &world->nodes[name]))
            broken(world, "never two masters", "%c begins to run, and the other one runs freely",
                   'A' + node->name);
}
