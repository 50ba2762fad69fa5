/* SPDX-License-Identifier: MIT */
/* What goes wrong, when, and for how long. */
#include "tests/sim/sim.h"

enum { LONGEST = 600 * MS };

static uint64_t while_(struct world *world)
{
    return one_in(world, 2) ? chance(world, 30 * MS) : chance(world, LONGEST);
}

/* --- by their numbers ------------------------------------------------------------------------- */

void faults_note(struct world *world, enum failure failure)
{
    world->failures[failure]++;
}

static bool is_paired(const struct world *world)
{
    return world->nodes[A].process && world->nodes[B].process &&
           (world->nodes[A].protocol.state == FT_PAIRED ||
            world->nodes[B].protocol.state == FT_PAIRED);
}

/* Which of them it is depends on what was just going on. */
void faults_note_death(struct world *world, const struct node *node, bool silent)
{
    const struct node *left = &world->nodes[!node->name];
    const struct ft_protocol *p = &node->protocol;
    if (!left->process && !left->idle)
        faults_note(world, F10_BOTH_DIE);
    if (p->state == FT_PAIRED || p->state == FT_HANDING)
        faults_note(world, silent ? F2_PRIMARY_LOSES_POWER : F1_PRIMARY_DIES);
    if (p->state == FT_TWIN)
        faults_note(world, F3_TWIN_DIES);
    if (p->state == FT_FOLLOWING || p->state == FT_GATED || (p->state == FT_SOLO && node->syncing))
        faults_note(world, F13_DEATH_IN_SYNC);
    if (p->state == FT_PAIRED && node->held_count > 0 && left->process &&
        left->protocol.state == FT_TWIN && left->protocol.acked >= node->held[0].epoch)
        faults_note(world, F14_DEATH_BEFORE_RELEASE);
    if (p->state == FT_CLAIMING)
        faults_note(world, F15_DEATH_IN_TAKEOVER);
}

/* --- hosts ------------------------------------------------------------------------------------ */

static void handle_boot(struct world *world, void *arg, uint64_t life)
{
    struct node *node = arg;
    if (node->life != life || node->process || node->idle)
        return;
    node->up = true;
    tell(world, "%c: starts again", 'A' + node->name);
    node_boot(world, node);
}

void faults_return(struct world *world, struct node *node, uint64_t in)
{
    later(world, in, handle_boot, node, node->life);
}

void faults_doom(struct world *world, struct node *node)
{
    if (!node->process)
        return;
    node_kill(world, node, one_in(world, 2));
    node->up = false;
    faults_return(world, node, world->mended ? 30 * MS : while_(world));
}

static void kill_node(struct world *world, struct node *node)
{
    if (one_in(world, 2))
        faults_doom(world, node);
    else
        node->doomed = 1 + (unsigned)chance(world, 40);
}

static void thaw(struct world *world, struct node *node)
{
    if (!node->frozen)
        return;
    tell(world, "%c: thaws", 'A' + node->name);
    node->frozen = false;
    if (node->runs && world->record.owner != (uint64_t)node->name + 1)
        faults_note(world, F5_PRIMARY_FROZEN);
}

static void handle_thaw(struct world *world, void *arg, uint64_t life)
{
    thaw(world, arg);
}

void faults_freeze(struct world *world, struct node *node, uint64_t time)
{
    if (!node->process)
        return;
    /* It would not hear of it: but who is away for long knows that it was. */
    if (world->now <= node->looked_after && time <= AWAY) {
        faults_doom(world, node);
        return;
    }
    tell(world, "%c: frozen", 'A' + node->name);
    node->frozen = true;
    later(world, time, handle_thaw, node, 0);
}

static void handle_room(struct world *world, void *arg, uint64_t number)
{
    struct node *node = arg;
    if (node->no_room)
        tell(world, "%c: its disk takes writes again", 'A' + node->name);
    node->no_room = false;
}

void faults_fill(struct world *world, struct node *node, uint64_t time)
{
    tell(world, "%c: its disk is full, or fails", 'A' + node->name);
    node->no_room = true;
    later(world, time, handle_room, node, 0);
}

/* --- lines ------------------------------------------------------------------------------------ */

static void handle_joined(struct world *world, void *arg, uint64_t both)
{
    world->cut[both / PLACES][both % PLACES] = false;
}

static void cut(struct world *world, int from, int to, uint64_t time)
{
    static const char names[PLACES] = {'A', 'B', 'W', 'C'};
    tell(world, "line: %c to %c is cut for %.1f ms", names[from], names[to], (double)time / 1e3);
    world->cut[from][to] = true;
    later(world, time, handle_joined, NULL, (uint64_t)from * PLACES + (uint64_t)to);
}

void faults_cut(struct world *world, unsigned pattern, uint64_t time)
{
    static const int lines[6][2] = {{A, B},       {B, A},       {A, WITNESS},
                                    {WITNESS, A}, {B, WITNESS}, {WITNESS, B}};
    if (is_paired(world) && (pattern & 3) != 0)
        faults_note(world, (pattern & 3) == 3 ? F4_LINE_CUT : F16_ONE_WAY);
    for (int i = 0; i < 6; i++)
        if (pattern >> i & 1)
            cut(world, lines[i][0], lines[i][1], time);
}

static void cut_some(struct world *world)
{
    uint64_t time = while_(world);
    faults_cut(world, (unsigned)chance(world, 64), time);
}

static void cut_client(struct world *world)
{
    int node = (int)chance(world, NODES);
    if (one_in(world, 2))
        cut(world, CLIENT, node, while_(world));
    else
        cut(world, node, CLIENT, while_(world));
}

static void break_links(struct world *world)
{
    tell(world, "line: every connection between A and B breaks");
    for (struct link *link = world->links; link; link = link->next)
        for (int from = 0; from < NODES; from++) {
            const struct message end = {.kind = MSG_END};
            if (link->open[!from])
                link_send(world, link, from, &end);
        }
}

static void handle_clean(struct world *world, void *arg, uint64_t number)
{
    world->noise = 0;
}

void faults_noise(struct world *world, uint64_t most, uint64_t time)
{
    world->noise = 1 + chance(world, most);
    tell(world, "line: one message of %llu is damaged", (unsigned long long)world->noise);
    later(world, time, handle_clean, NULL, 0);
}

static void handle_fast(struct world *world, void *arg, uint64_t number)
{
    world->slow = world->slow_disk = 0;
}

static void handle_witness(struct world *world, void *arg, uint64_t number)
{
    world->witness_down = world->witness_frozen = false;
}

void faults_witness(struct world *world, bool freezes, uint64_t time)
{
    tell(world, "witness: %s", freezes ? "frozen" : "down");
    faults_note(world, F6_WITNESS_AWAY);
    *(freezes ? &world->witness_frozen : &world->witness_down) = true;
    later(world, time, handle_witness, NULL, 0);
}

/* --- people ----------------------------------------------------------------------------------- */

static void handle_off(struct world *world, void *arg, uint64_t number)
{
    node_guest_off(world, &world->nodes[A]);
    node_guest_off(world, &world->nodes[B]);
}

static void handle_fault(struct world *world, void *arg, uint64_t number);

static void handle_crash(struct world *world, void *arg, uint64_t number)
{
    if (!world->mended)
        faults_doom(world, &world->nodes[chance(world, NODES)]);
}

/* What they wish takes but a moment: something happens in just that, as often as not. */
static void then_something(struct world *world)
{
    uint64_t in = chance(world, 8 * MS), what = chance(world, 16);
    if (what < 5)
        later(world, in, handle_fault, NULL, 0);
    else if (what < 8)
        later(world, in, handle_crash, NULL, 0);
    else if (what < 9)
        later(world, in, handle_off, NULL, 0);
}

/* Whoever runs it, whoever follows, or both at once. */
static void leave(struct world *world)
{
    uint64_t who = chance(world, 3);
    if (who != A)
        node_leave(world, &world->nodes[B]);
    if (who != B)
        node_leave(world, &world->nodes[A]);
    then_something(world);
}

static void switch_over(struct world *world)
{
    node_switch(world, &world->nodes[A]);
    node_switch(world, &world->nodes[B]);
    then_something(world);
}

/* It may stand still, which looks as if it were gone for good. */
static void force_from(struct world *world, struct node *owner)
{
    uint64_t before = world->forced;
    node_force(world, &world->nodes[!owner->name]);
    if (world->forced > before && one_in(world, 2))
        faults_freeze(world, owner, AWAY + chance(world, 2 * LONGEST));
}

static void force(struct world *world)
{
    force_from(world, &world->nodes[B]);
    force_from(world, &world->nodes[A]);
    then_something(world);
}

static void handle_force(struct world *world, void *arg, uint64_t number)
{
    if (!world->mended)
        force(world);
}

/* Who goes on alone cannot write that down, and looks as if it were gone for good. */
static void fill(struct world *world, struct node *node)
{
    if (one_in(world, 2)) {
        faults_fill(world, node, while_(world));
        return;
    }
    faults_fill(world, node, LONGEST + chance(world, LONGEST));
    faults_cut(world, 3, LONGEST / 3);
    later(world, chance(world, LONGEST / 2), handle_force, NULL, 0);
}

/* --- one of them ------------------------------------------------------------------------------ */

static void handle_fault(struct world *world, void *arg, uint64_t number)
{
    struct node *node = &world->nodes[chance(world, NODES)];
    if (world->mended)
        return;
    switch (chance(world, 20)) {
    case 0:
    case 1:
        kill_node(world, node);
        break;
    case 2: /* both, one shortly after the other or at once */
        kill_node(world, node);
        world->nodes[!node->name].doomed = 1 + (unsigned)chance(world, 10);
        break;
    case 3:
    case 4:
        faults_freeze(world, node, while_(world));
        break;
    case 5:
    case 6:
        cut_some(world);
        break;
    case 7:
        faults_cut(world, 3, LONGEST / 3);
        break;
    case 8:
        cut_client(world);
        break;
    case 9:
        break_links(world);
        break;
    case 10:
        world->slow = chance(world, 120 * MS);
        faults_note(world, F8_SLOW);
        tell(world, "line: words take up to %.1f ms", (double)world->slow / 1e3);
        later(world, while_(world), handle_fast, NULL, 0);
        break;
    case 11:
        world->slow_disk = chance(world, 60 * MS);
        faults_note(world, F8_SLOW);
        tell(world, "disks: a block takes up to %.1f ms", (double)world->slow_disk / 1e3);
        later(world, while_(world), handle_fast, NULL, 0);
        break;
    case 12:
        node->skew += chance(world, 2000 * MS);
        faults_note(world, F12_CLOCK);
        tell(world, "%c: its clock jumps", 'A' + node->name);
        break;
    case 13:
        switch_over(world);
        break;
    case 14:
    case 15:
        leave(world);
        break;
    case 16:
        force(world);
        break;
    case 17:
        fill(world, node);
        break;
    case 18:
        faults_noise(world, 40, while_(world));
        break;
    default:
        faults_witness(world, one_in(world, 3), while_(world));
        break;
    }
}

void faults_plan(struct world *world, uint64_t until)
{
    for (uint64_t left = chance(world, 12); left > 0; left--)
        later(world, 20 * MS + chance(world, until - 20 * MS), handle_fault, NULL, 0);
    if (one_in(world, 20))
        later(world, chance(world, until), handle_off, NULL, 0);
}

void faults_mend(struct world *world)
{
    tell(world, "everything is mended");
    world->mended = true;
    for (int from = 0; from < PLACES; from++)
        for (int to = 0; to < PLACES; to++)
            world->cut[from][to] = false;
    world->witness_down = world->witness_frozen = false;
    world->slow = world->slow_disk = world->noise = 0;
    for (int name = 0; name < NODES; name++) {
        struct node *node = &world->nodes[name];
        thaw(world, node);
        node->no_room = false;
        node->doomed = 0;
        if (!node->process && !node->idle)
            handle_boot(world, node, node->life);
    }
}
