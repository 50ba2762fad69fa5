/* SPDX-License-Identifier: MIT */
/* What a host does around the protocol: the VM, its epochs, its disk, the witness's answers. */
#include "tests/sim/sim.h"

#include <string.h>

enum {
    TICK = 5 * MS,
    EPOCH = 8 * MS,
    LOST = 60 * MS,
};

static const struct ft_config config = {
    .beat_ns = 10 * MS,
    .fade_ns = 25 * MS,
    .stall_ns = 400 * MS,
    .ask_ns = 120 * MS,
    .retry_ns = 40 * MS,
    .gap_ns = 45 * MS,
    .away_ns = AWAY,
    .yield_ns = 200 * MS,
    .watch_ns = 100 * MS,
    .forced_ns = 500 * MS,
};

/* In every other world patience follows what was lately heard. */
static struct ft_config config_of(const struct world *world, const struct node *node)
{
    struct ft_config ours = config;
    ours.node = (uint64_t)node->name + 1;
    ours.lost_ns = LOST;
    ours.swift_ns = world->seed % 2 ? ours.lost_ns / 3 : 0;
    ours.slow_ns = ours.lost_ns * 2;
    return ours;
}

static uint64_t clock_of(const struct world *world, const struct node *node)
{
    return world->now + node->skew + 1000 * MS;
}

/* Something that is for this life of the process only. */
static void soon(struct world *world, struct node *node, uint64_t in,
                 void (*handle)(struct world *, void *, uint64_t))
{
    later(world, in, handle, node, node->life);
}

/* A frozen process does it when it thaws. */
static bool is_now(struct world *world, struct node *node, uint64_t life,
                   void (*handle)(struct world *, void *, uint64_t))
{
    if (!node->process || node->life != life)
        return false;
    if (node->frozen)
        later(world, 3 * MS, handle, node, life);
    return !node->frozen;
}

/* --- the VM ----------------------------------------------------------------------------------- */

static void emit(struct world *world, struct node *node, uint64_t epoch, bool free)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < node->held_count; i++) {
        if (node->held[i].epoch <= epoch)
            watch_emit(world, node, &node->held[i], free);
        else
            node->held[kept++] = node->held[i];
    }
    node->held_count = kept;
}

static void handle_capture(struct world *world, void *arg, uint64_t life);

/* The VM stands still for a moment: what it did since the last time, and all it is, leaves. */
static void capture(struct world *world, struct node *node)
{
    const struct ft_protocol *p = &node->protocol;
    struct ft_event event = {.kind = FT_CAPTURED, .epoch = p->sent + 1};
    struct message message = {.generation = p->generation, .epoch = p->sent + 1};
    if (!node->link || !node->gated || p->link == 0)
        return;
    for (unsigned i = 0; i < BLOCKS; i++) {
        if (!node->full && !(node->written >> i & 1))
            continue;
        message.kind = MSG_PART;
        message.block = i;
        message.fact = node->disk.blocks[i];
        link_send(world, node->link, node->name, &message);
        message.parts++;
    }
    message.kind = MSG_COMMIT;
    message.fact = node->memory;
    link_send(world, node->link, node->name, &message);
    node->written = 0;
    node->full = false;
    node_event(world, node, &event);
}

static void handle_capture(struct world *world, void *arg, uint64_t life)
{
    struct node *node = arg;
    if (!is_now(world, node, life, handle_capture))
        return;
    node->capture_due = false;
    if (!node->gated || !node->link || !node->runs)
        return;
    capture(world, node);
    node->capture_due = true;
    soon(world, node, 1 * MS + chance(world, EPOCH), handle_capture);
}

bool node_is_free(const struct world *world, const struct node *node)
{
    return node->process && node->runs && !node->gated &&
           clock_of(world, node) < node->protocol.tick_ns + AWAY;
}

void node_request(struct world *world, struct node *node, uint64_t id)
{
    if (!node->process || node->frozen || !node->runs || world->guest_off)
        return;
    if (node->memory.id != id && node->no_room) { /* the guest hears of that, and does not answer */
        faults_note(world, F7_PRIMARY_DISK);
        return;
    }
    if (node->memory.id != id) {
        node->memory = (struct fact){node->memory.count + 1, id};
        unsigned block = node->memory.count % BLOCKS;
        node->disk.blocks[block] = node->memory;
        node->written |= 1u << block;
    }
    struct held held = {.epoch = node->protocol.sent + 1, .answer = node->memory};
    if (node_is_free(world, node))
        watch_emit(world, node, &held, true);
    else if (node->held_count < MOST_HELD)
        node->held[node->held_count++] = held;
}

/* From its disk, as after a power cut. */
static void boot_guest(struct node *node)
{
    node->memory = (struct fact){0};
    for (unsigned i = 0; i < BLOCKS; i++)
        if (node->disk.blocks[i].count > node->memory.count)
            node->memory = node->disk.blocks[i];
}

void node_switch(struct world *world, struct node *node)
{
    const struct ft_event event = {.kind = FT_HANDED};
    if (!node->process || node->frozen || !node->runs || !node->gated)
        return;
    tell(world, "%c: switchover", 'A' + node->name);
    node->runs = false;
    capture(world, node);
    node_event(world, node, &event);
}

void node_leave(struct world *world, struct node *node)
{
    const struct ft_event event = {.kind = FT_LEFT};
    if (!node->process || node->frozen)
        return;
    tell(world, "%c: nobody shall follow any more", 'A' + node->name);
    node_event(world, node, &event);
}

void node_guest_off(struct world *world, struct node *node)
{
    const struct ft_event event = {.kind = FT_GUEST_OFF};
    if (!node->process || node->frozen || !node->runs)
        return;
    tell(world, "%c: the guest powers off", 'A' + node->name);
    world->guest_off = true;
    node->runs = false;
    capture(world, node);
    node_event(world, node, &event);
}

/* --- the follower ----------------------------------------------------------------------------- */

static bool may_apply(const struct node *node)
{
    return node->staged_count > 0 && node->staged[0].number <= node->apply_to;
}

static void apply_block(struct node *node)
{
    struct epoch *epoch = &node->staged[0];
    unsigned block = (unsigned)__builtin_ctz(epoch->written);
    node->disk.blocks[block] = epoch->disk.blocks[block];
    epoch->written &= epoch->written - 1;
}

/* Whoever cannot apply ends as by a crash, and is followed by nobody until its host looks again. */
static void give_up(struct world *world, struct node *node)
{
    tell(world, "%c: cannot write epoch %llu to its disk", 'A' + node->name,
         (unsigned long long)node->staged[0].number);
    faults_note(world, F7_TWIN_DISK);
    node_kill(world, node, false);
    faults_return(world, node, 50 * MS + chance(world, 100 * MS));
}

static void handle_apply(struct world *world, void *arg, uint64_t life)
{
    const struct ft_event applied = {.kind = FT_APPLIED};
    struct node *node = arg;
    if (!is_now(world, node, life, handle_apply))
        return;
    while (may_apply(node) && node->staged[0].written == 0)
        memmove(node->staged, node->staged + 1, --node->staged_count * sizeof(node->staged[0]));
    if (may_apply(node) && node->no_room) {
        give_up(world, node);
        return;
    }
    if (may_apply(node)) {
        apply_block(node);
        soon(world, node, 1 + chance(world, 300 + world->slow_disk), handle_apply);
        return;
    }
    node->apply_due = false;
    if (node->last_wanted) {
        node->last_wanted = false;
        node_event(world, node, &applied);
    }
}

static void start_apply(struct world *world, struct node *node, uint64_t number)
{
    node->apply_to = number;
    for (unsigned i = 0; i < node->staged_count; i++)
        if (node->staged[i].number == number)
            node->twin_memory = node->staged[i].memory;
    if (!node->apply_due)
        soon(world, node, 1 + chance(world, 300 + world->slow_disk), handle_apply);
    node->apply_due = true;
}

/* Whoever received it, and whoever drives the protocol, are not the same thread. */
static void handle_staged(struct world *world, void *arg, uint64_t life)
{
    struct ft_event event = {.kind = FT_STAGED};
    struct node *node = arg;
    unsigned i = 0;
    if (!is_now(world, node, life, handle_staged))
        return;
    while (i < node->staged_count && node->staged[i].number <= node->told)
        i++;
    node->tell_due = i + 1 < node->staged_count;
    if (node->tell_due)
        soon(world, node, 1 + chance(world, 200), handle_staged);
    node->told = event.epoch = node->staged[i].number;
    event.generation = node->staged[i].generation;
    event.link = node->staged_link;
    node_event(world, node, &event);
}

static void stage(struct world *world, struct node *node, const struct message *message)
{
    struct epoch *epoch = &node->coming;
    if (message->kind == MSG_PART) {
        epoch->written |= 1u << message->block;
        epoch->disk.blocks[message->block] = message->fact;
        node->parts++;
        return;
    }
    bool whole = node->parts == message->parts;
    epoch->generation = message->generation;
    epoch->number = message->epoch;
    epoch->memory = message->fact;
    if (whole && node->staged_count < MOST_STAGED) {
        node->staged[node->staged_count++] = *epoch;
        node->staged_link = node->link->id;
        watch_staged(world, node->protocol.twin, epoch->number);
        if (!node->tell_due)
            soon(world, node, chance(world, 200), handle_staged);
        node->tell_due = true;
    }
    *epoch = (struct epoch){0};
    node->parts = 0;
}

/* --- the witness ------------------------------------------------------------------------------ */

struct question {
    int from;
    uint64_t life, asked;
    struct ft_action action;
    struct ft_event answer;
};

static struct question
    questions[4096]; /* a ring: the oldest is answered long before it comes round */

/* Who has taken the VM sees that the other one does not hear of it: and pulls its plug. */
static void hear_nothing(struct world *world, struct node *node, uint64_t life)
{
    if (node->life != life || world->now > node->looked_after)
        return;
    tell(world, "%c: does not hear whose the VM is", 'A' + node->name);
    faults_doom(world, node);
}

static void handle_answer(struct world *world, void *arg, uint64_t number)
{
    struct question *question = arg;
    struct node *node = &world->nodes[question->from];
    if (!node->process || node->life != question->life)
        return;
    if (node->frozen) {
        later(world, 2 * MS, handle_answer, arg, number);
        return;
    }
    if (world->cut[WITNESS][question->from] || world->now > question->asked + config.ask_ns)
        hear_nothing(world, node, question->life);
    if (node->process && !world->cut[WITNESS][question->from])
        node_event(world, node, &question->answer);
}

static void handle_question(struct world *world, void *arg, uint64_t number)
{
    struct question *question = arg;
    const struct ft_action *action = &question->action;
    struct ft_event *answer = &question->answer;
    if (world->witness_down || world->cut[question->from][WITNESS]) {
        hear_nothing(world, &world->nodes[question->from], question->life);
        return;
    }
    if (world->witness_frozen) {
        later(world, 2 * MS, handle_question, arg, number);
        return;
    }
    *answer = (struct ft_event){.kind = FT_ANSWER, .ask = action->ask, .answer = FT_IS};
    if (action->kind == FT_EXCHANGE && action->expected == world->record.generation) {
        world->record = action->record;
        answer->answer = FT_EXCHANGED;
        watch_exchange(world, &world->record);
    }
    answer->record = world->record;
    later(world, 100 + chance(world, one_in(world, 20) ? 200 * MS : 2 * MS), handle_answer, arg,
          number);
}

static void ask_witness(struct world *world, struct node *node, const struct ft_action *action)
{
    static unsigned next;
    struct question *question = &questions[next++ % (sizeof(questions) / sizeof(questions[0]))];
    *question = (struct question){
        .from = node->name, .life = node->life, .asked = world->now, .action = *action};
    later(world, 100 + chance(world, one_in(world, 20) ? 200 * MS : 2 * MS), handle_question,
          question, 0);
}

static void handle_persisted(struct world *world, void *arg, uint64_t life)
{
    const struct ft_event persisted = {.kind = FT_PERSISTED};
    struct node *node = arg;
    if (!is_now(world, node, life, handle_persisted))
        return;
    if (node->no_room) { /* it is tried again */
        faults_note(world, node->follows ? F7_TWIN_DISK : F7_PRIMARY_DISK);
        soon(world, node, 10 * MS, handle_persisted);
        return;
    }
    node->persisted = node->protocol.record.generation;
    node_event(world, node, &persisted);
}

/* --- what the protocol wants ------------------------------------------------------------------ */

static void handle_synced(struct world *world, void *arg, uint64_t life)
{
    struct ft_event synced = {.kind = FT_SYNCED};
    struct node *node = arg;
    if (!is_now(world, node, life, handle_synced))
        return;
    synced.link = node->link ? node->link->id : 0;
    if (node->syncing)
        node_event(world, node, &synced);
    node->syncing = false;
}

static void take_over(struct world *world, struct node *node)
{
    if (node->link) /* as ft/secondary.c does: who had it may never say that it is gone */
        link_close(world, node->link, node->name, LINK_CLOSED);
    node->link = NULL;
    node->memory = node->twin_memory;
    node->follows = false;
    node->booted = true;
    node->written = 0;
    node->runs = !world->guest_off;
    world->takeovers++;
    watch_start(world, node);
}

static void start_capture(struct world *world, struct node *node)
{
    if (node->gated && node->link && !node->capture_due) {
        node->capture_due = true;
        soon(world, node, 1 * MS, handle_capture);
    }
}

static struct link *link_of(struct world *world, uint64_t id)
{
    struct link *link = world->links;
    while (link && link->id != id)
        link = link->next;
    return link;
}

/* Whose it is may change by an exchange of an earlier life, which comes late. */
static void handle_idle(struct world *world, void *arg, uint64_t life)
{
    struct node *node = arg;
    if (node->life == life && node->idle && !world->guest_off)
        node_boot(world, node);
}

static void end_process(struct world *world, struct node *node)
{
    for (struct link *link = world->links; link; link = link->next)
        link_close(world, link, node->name, LINK_CLOSED);
    node->link = NULL;
    node->process = node->runs = false;
    node->idle = true;
    node->life++;
    later(world, 50 * MS + chance(world, 100 * MS), handle_idle, node, node->life);
}

static void hang_up(struct world *world, struct node *node, uint64_t id)
{
    struct link *link = link_of(world, id);
    link_close(world, link, node->name, one_in(world, 2) ? LINK_TORN : LINK_CLOSED);
    if (node->link == link)
        node->link = NULL;
}

static void act(struct world *world, struct node *node, const struct ft_action *action)
{
    const struct message word = {.kind = MSG_WORD, .word = action->word};
    switch (action->kind) {
    case FT_SEND:
        if (node->link && node->link->id == action->link)
            link_send(world, node->link, node->name, &word);
        break;
    case FT_HANG_UP:
        hang_up(world, node, action->link);
        break;
    case FT_ASK:
    case FT_EXCHANGE:
        ask_witness(world, node, action);
        break;
    case FT_PERSIST:
        soon(world, node, 100 + chance(world, 3 * MS), handle_persisted);
        break;
    case FT_RUN:
        if (!node->booted) {
            boot_guest(node);
            world->restarts++;
            watch_start(world, node);
        }
        node->booted = true;
        node->runs = !world->guest_off;
        start_capture(world, node);
        break;
    case FT_SYNC:
        node->link = link_of(world, action->link);
        node->syncing = true;
        soon(world, node, 1 * MS + chance(world, 60 * MS), handle_synced);
        break;
    case FT_UNSYNC:
        node->syncing = false;
        node->link = NULL;
        break;
    case FT_GATE:
        node->gated = node->full = true;
        start_capture(world, node);
        break;
    case FT_RELEASE:
        emit(world, node, action->epoch, false);
        break;
    case FT_OPEN:
        node->gated = false;
        emit(world, node, UINT64_MAX, true);
        break;
    case FT_STOP:
        node->runs = false;
        node->held_count = 0;
        break;
    case FT_END:
        end_process(world, node);
        break;
    case FT_APPLY:
    case FT_APPLY_LAST:
        node->last_wanted |= action->kind == FT_APPLY_LAST;
        start_apply(world, node, action->epoch);
        break;
    case FT_TAKE_OVER:
        take_over(world, node);
        break;
    case FT_STRANGE:
        broken(world, "the witness never goes back", "it says generation %llu",
               (unsigned long long)action->record.generation);
        break;
    }
}

void node_event(struct world *world, struct node *node, const struct ft_event *event)
{
    static const struct ft_event tick = {.kind = FT_TICK};
    struct ft_actions actions;
    uint64_t life = node->life, absent = clock_of(world, node) - node->protocol.tick_ns;
    if (event->kind != FT_TICK && absent > ft_protocol_gap(&node->protocol))
        node_event(world, node, &tick);
    if (node->life != life)
        return;
    enum ft_state before = node->protocol.state;
    ft_protocol_step(&node->protocol, event, clock_of(world, node), &actions);
    if (node->protocol.state != before)
        tell(world, "%c: %s -> %s (generation %llu, sent %llu, acknowledged %llu)",
             'A' + node->name, ft_state_name(before), ft_state_name(node->protocol.state),
             (unsigned long long)node->protocol.record.generation,
             (unsigned long long)node->protocol.sent, (unsigned long long)node->protocol.acked);
    if (node->protocol.state != before && node->protocol.state == FT_PAIRED)
        world->pairings++;
    if (before == FT_TWIN && node->protocol.state == FT_DISMISSED && event->kind != FT_LEFT)
        watch_dismissed(world, node);
    for (unsigned i = 0; i < actions.count && node->life == life; i++) {
        act(world, node, &actions.list[i]);
        if (node->doomed > 0 && --node->doomed == 0)
            faults_doom(world, node);
    }
}

/* --- its life --------------------------------------------------------------------------------- */

static void handle_tick(struct world *world, void *arg, uint64_t life)
{
    const struct ft_event tick = {.kind = FT_TICK};
    struct node *node = arg;
    if (!is_now(world, node, life, handle_tick))
        return;
    node_event(world, node, &tick);
    if (node->protocol.state == FT_SOLO && !node->link && one_in(world, 8))
        node_connect(world, node);
    soon(world, node, TICK, handle_tick);
}

static void begin(struct world *world, struct node *node)
{
    node->process = true;
    node->idle = node->booted = false;
    node->life++;
    node->link = NULL;
    node->runs = node->gated = node->syncing = node->full = node->follows = false;
    node->memory = (struct fact){0};
    node->written = node->held_count = node->parts = node->staged_count = 0;
    node->coming = (struct epoch){0};
    node->told = node->apply_to = 0;
    node->capture_due = node->tell_due = node->apply_due = node->last_wanted = false;
    soon(world, node, TICK, handle_tick);
}

void node_init(struct world *world, int name)
{
    struct node *node = &world->nodes[name];
    *node = (struct node){.name = name, .up = true, .persisted = 1};
    begin(world, node);
    if (name == A) {
        const struct ft_config ours = config_of(world, node);
        ft_protocol_init_solo(&node->protocol, &ours, &world->record, clock_of(world, node));
        node->runs = node->booted = true;
    } else {
        end_process(world, node);
    }
}

void node_boot(struct world *world, struct node *node)
{
    const struct ft_config ours = config_of(world, node);
    begin(world, node);
    ft_protocol_init_owner(&node->protocol, &ours, node->persisted, clock_of(world, node));
}

void node_force(struct world *world, struct node *node)
{
    struct node *other = &world->nodes[!node->name];
    uint64_t us = (uint64_t)node->name + 1;
    bool hears = !world->witness_down && !world->witness_frozen;
    if (node->process || !node->idle || world->guest_off || world->record.owner == us ||
        node->no_room)
        return;
    if (!hears || world->cut[node->name][WITNESS] || world->cut[WITNESS][node->name] ||
        !watch_is_whole(&node->disk))
        return;
    tell(world, "%c: a person takes the VM for it", 'A' + node->name);
    world->record = (struct ft_record){
        .generation = world->record.generation + 1, .owner = us, .twin = FT_FORCED};
    watch_exchange(world, &world->record);
    node->persisted = world->record.generation;
    node->forced = true;
    node->looked_after = 0;
    world->forced++;
    other->looked_after = world->now + config.forced_ns;
    if (world->cut[other->name][WITNESS] || world->cut[WITNESS][other->name])
        hear_nothing(world, other, other->life);
    node_boot(world, node);
}

void node_kill(struct world *world, struct node *node, bool silent)
{
    if (!node->process)
        return;
    tell(world, "%c: %s", 'A' + node->name, silent ? "loses its power" : "killed");
    faults_note_death(world, node, silent);
    for (struct link *link = world->links; link; link = link->next)
        link_close(world, link, node->name, silent ? LINK_SILENT : LINK_TORN);
    node->link = NULL;
    node->process = node->runs = node->frozen = node->idle = false;
    node->life++;
}

/* Who would run it, if it were its own, follows whoever does. */
static void follow(struct world *world, struct node *node, struct link *link, uint64_t generation)
{
    const struct ft_config ours = config_of(world, node);
    const struct ft_event connected = {.kind = FT_CONNECTED,
                                       .link = link->id,
                                       .generation = generation,
                                       .twin = ++world->last_twin};
    if (node->persisted < generation)
        node->persisted = generation;
    begin(world, node);
    node->link = link;
    node->follows = true;
    node->forced = false;
    ft_protocol_init_follower(&node->protocol, &ours, node->persisted, &connected,
                              clock_of(world, node));
}

void node_connect(struct world *world, struct node *node)
{
    struct node *other = &world->nodes[!node->name];
    if (!other->idle || other->frozen || world->cut[A][B] || world->cut[B][A])
        return;
    if (other->no_room) { /* it cannot note whom it follows, and refuses */
        faults_note(world, F7_TWIN_DISK);
        return;
    }
    for (unsigned again = 0; again < (one_in(world, 10) ? 2u : 1u); again++) {
        struct link *link = link_make(world);
        struct ft_event connected = {
            .kind = FT_CONNECTED, .link = link->id, .node = (uint64_t)other->name + 1};
        if (other->idle) {
            follow(world, other, link, node->protocol.record.generation);
            connected.twin = other->protocol.twin;
        } else { /* it follows already: a second connection, which is nobody's */
            connected.twin = ++world->last_twin;
        }
        node_event(world, node, &connected);
    }
}

void node_receive(struct world *world, struct node *node, struct link *link,
                  const struct message *message)
{
    struct ft_event event = {.kind = FT_DISCONNECTED, .link = link->id};
    bool damaged = message->sum != message_sum(message);
    if (damaged)
        faults_note(world, F9_DAMAGED);
    if (damaged || message->kind == MSG_END) {
        link_close(world, link, node->name, LINK_CLOSED);
        if (node->link == link)
            node->link = NULL;
        node_event(world, node, &event);
    } else if (message->kind == MSG_WORD) {
        event.kind = FT_HEARD;
        event.word = message->word;
        node_event(world, node, &event);
    } else if (node->follows && node->link == link) {
        stage(world, node, message);
    }
}
