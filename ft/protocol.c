/* SPDX-License-Identifier: MIT */
#include "ft/protocol.h"

#include <assert.h>
#include <stddef.h>

/* One step: what it is about, and what comes of it. */
struct step {
    struct ft_protocol *p;
    uint64_t now;
    struct ft_actions *actions;
};

static struct ft_action *act(const struct step *step, enum ft_action_kind kind)
{
    struct ft_actions *actions = step->actions;
    assert(actions->count < FT_MOST_ACTIONS);
    actions->list[actions->count] = (struct ft_action){.kind = kind};
    return &actions->list[actions->count++];
}

static void say(const struct step *step, enum ft_word_kind kind, uint64_t epoch)
{
    struct ft_action *action = act(step, FT_SEND);
    action->link = step->p->link;
    action->word = (struct ft_word){kind, step->p->generation, epoch};
    step->p->said_ns = step->now;
}

static void hang_up(const struct step *step, uint64_t link)
{
    act(step, FT_HANG_UP)->link = link;
}

/* Who hangs up would tear away the word before it is read: the other side does. Or we, later. */
static void part(const struct step *step)
{
    struct ft_protocol *p = step->p;
    say(step, FT_OFF, p->sent);
    if (p->parting)
        hang_up(step, p->parting);
    p->parting = p->link;
    p->parted_ns = p->parting_heard_ns = step->now;
    p->link = 0;
    act(step, FT_UNSYNC);
}

/* How long a silence may be follows the line. */
static bool is_adapting(const struct ft_protocol *p)
{
    return p->config.swift_ns && !p->patient;
}

/* --- the witness ------------------------------------------------------------------------------ */

static bool is_as_wanted(const struct ft_protocol *p)
{
    return p->record.owner == p->wanted.owner && p->record.twin == p->wanted.twin;
}

static void ask(const struct step *step)
{
    struct ft_protocol *p = step->p;
    p->asking = true;
    p->asked_ns = step->now;
    act(step, FT_ASK)->ask = ++p->ask;
}

static void exchange(const struct step *step)
{
    struct ft_protocol *p = step->p;
    p->tried = p->wanted;
    p->tried.generation = p->record.generation + 1;
    p->was_loose = p->loose;
    p->loose = true;
    p->asking = true;
    p->asked_ns = step->now;
    struct ft_action *action = act(step, FT_EXCHANGE);
    action->ask = ++p->ask;
    action->expected = p->record.generation;
    action->record = p->tried;
}

static void end(const struct step *step, enum ft_state state)
{
    struct ft_protocol *p = step->p;
    p->state = state;
    p->striving = p->persisting = false;
    if (p->link)
        hang_up(step, p->link);
    p->link = 0;
    if (state == FT_DEPOSED)
        act(step, FT_STOP);
    act(step, FT_END);
}

/* What was striven for is so, and on stable storage. */
static void settle(const struct step *step)
{
    struct ft_protocol *p = step->p;
    p->striving = false;
    if (p->state == FT_HANDING) {
        p->generation = p->record.generation;
        say(step, FT_TAKE, p->acked);
        /* Who hangs up would tell the other side that we are gone before it has read that. */
        p->state = FT_OVER;
        p->link = 0;
        act(step, FT_END);
    } else if (p->wanted.twin != 0) {
        p->state = FT_PAIRED;
    } else if (p->off) {
        act(step, FT_OPEN);
        end(step, FT_OVER);
    } else {
        if (p->state == FT_CLAIMING) {
            p->sent = p->acked;
            act(step, FT_TAKE_OVER);
        } else if (p->state == FT_STARTING || p->handed) {
            act(step, FT_RUN);
        } else if (p->link) {
            part(step);
        }
        p->state = FT_SOLO;
        p->handed = false;
        act(step, FT_OPEN);
        if (p->leaves)
            ask(step);
    }
}

/* False: the record is another's, and there is nothing more to want. */
static bool may_want(const struct step *step)
{
    struct ft_protocol *p = step->p;
    const struct ft_record *record = &p->record;
    bool ours = record->owner == p->config.node || record->generation == 0;
    bool claimable = p->state == FT_CLAIMING && record->twin == p->twin;
    if (p->state == FT_HANDING && is_as_wanted(p))
        p->loose = false; /* what we tried was just this, and nothing more */
    else if (!ours && !claimable)
        end(step, p->state == FT_CLAIMING ? FT_DISMISSED : FT_DEPOSED);
    return p->striving;
}

/* The record is known to be as it is wanted. */
static void confirm(const struct step *step)
{
    struct ft_protocol *p = step->p;
    if (p->record.generation > p->persisted) {
        p->persisting = true;
        p->asked_ns = step->now; /* it is new as yet */
        act(step, FT_PERSIST)->record = p->record;
    } else {
        settle(step);
    }
}

/* Whoever it may have to be left to gets its time: a twin, or who was the owner until now. */
static bool yields(const struct step *step)
{
    const struct ft_protocol *p = step->p;
    uint64_t time = p->record.twin == FT_FORCED ? p->config.forced_ns : p->config.yield_ns;
    return p->state == FT_STARTING && p->record.twin != 0 && step->now - p->began_ns < time;
}

/* The next step towards what is wanted, unless one is under way. */
static void strive(const struct step *step)
{
    struct ft_protocol *p = step->p;
    if (!p->striving || p->asking || p->persisting)
        return;
    if (!p->known) {
        ask(step);
        return;
    }
    if (p->record.generation < p->persisted) {
        p->known = false; /* and asked again later */
        act(step, FT_STRANGE)->record = p->record;
        return;
    }
    if (!may_want(step) || (p->state == FT_CLAIMING && !p->applied))
        return;
    if (yields(step))
        p->known = false; /* it may have been taken when we ask again */
    else if (p->loose || !is_as_wanted(p))
        exchange(step);
    else
        confirm(step);
}

static void want(const struct step *step, uint64_t owner, uint64_t twin)
{
    struct ft_protocol *p = step->p;
    p->wanted = (struct ft_record){.owner = owner, .twin = twin};
    p->asking = p->asking && p->striving; /* what was only looked at is not waited for */
    p->striving = true;
    strive(step);
}

/* It is ours, and nothing else is wanted: whether it still is, is only looked at. */
static bool is_content(const struct ft_protocol *p)
{
    return (p->state == FT_SOLO || p->state == FT_GATED || p->state == FT_PAIRED) && !p->striving;
}

/* By who runs it, or waits for its stable storage for that: what was read may be old. */
static void hear_news(const struct step *step, const struct ft_event *event)
{
    struct ft_protocol *p = step->p;
    const struct ft_record *record = &event->record;
    bool is = event->answer == FT_IS;
    p->leaves = p->leaves && p->striving;
    if (is && record->generation > p->record.generation && record->owner != p->config.node) {
        p->record = *record;
        end(step, p->state == FT_CLAIMING ? FT_DISMISSED : FT_DEPOSED);
    }
    if (p->striving)
        p->known = is && record->generation == p->record.generation;
}

static void hear_answer(const struct step *step, const struct ft_event *event)
{
    struct ft_protocol *p = step->p;
    if (!p->asking || event->ask != p->ask)
        return;
    p->asking = false;
    if (is_content(p) || p->persisting) {
        hear_news(step, event);
        return;
    }
    p->known = event->answer != FT_NO_ANSWER;
    if (event->answer == FT_EXCHANGED) {
        p->loose = false;
        p->record = p->tried;
    } else if (event->answer == FT_IS) {
        p->loose = p->tried.generation ? p->was_loose : p->loose;
        p->record = event->record;
    }
    p->tried.generation = 0;
    if (p->known)
        strive(step);
}

static void hear_persisted(const struct step *step)
{
    struct ft_protocol *p = step->p;
    if (!p->persisting)
        return;
    p->persisting = false;
    p->persisted = p->record.generation;
    strive(step);
}

/* --- the other side --------------------------------------------------------------------------- */

static void claim(const struct step *step)
{
    struct ft_protocol *p = step->p;
    p->state = FT_CLAIMING;
    p->applied = false;
    p->told_ns = 0;
    act(step, FT_APPLY_LAST)->epoch = p->acked;
    want(step, p->config.node, 0);
}

static void lose_peer(const struct step *step)
{
    struct ft_protocol *p = step->p;
    hang_up(step, p->link);
    p->link = 0;
    switch (p->state) {
    case FT_SOLO:
        act(step, FT_UNSYNC);
        break;
    case FT_GATED:
    case FT_PAIRED:
    case FT_HANDING:
        p->state = FT_ALONE;
        act(step, FT_UNSYNC);
        want(step, p->config.node, 0);
        break;
    case FT_FOLLOWING:
        end(step, FT_DISMISSED);
        break;
    case FT_TWIN:
        claim(step);
        break;
    default:
        break;
    }
}

/* All that has left is there: what was waiting for that? */
static void catch_up(const struct step *step)
{
    struct ft_protocol *p = step->p;
    if (p->acked != p->sent)
        return;
    if (p->state == FT_HANDING)
        say(step, FT_HAND, p->acked);
    else if (p->off)
        want(step, p->config.node, 0);
}

static void hear_ack(const struct step *step, const struct ft_word *word)
{
    struct ft_protocol *p = step->p;
    p->acked = word->epoch;
    p->waits_ns = step->now;
    if (p->acked > p->unsure) /* else it may have been said before somebody took over */
        act(step, FT_RELEASE)->epoch = p->acked;
    if (p->state == FT_GATED && !p->striving && !p->off)
        want(step, p->config.node, p->twin);
    catch_up(step);
}

static bool is_follower(const struct ft_protocol *p)
{
    return p->state == FT_FOLLOWING || p->state == FT_TWIN;
}

/* Whoever owns it has to have it on its disks, before that is so. */
static void hear_hand(const struct step *step)
{
    struct ft_protocol *p = step->p;
    p->handed = true;
    act(step, FT_APPLY_LAST)->epoch = p->acked;
}

static void hear_applied(const struct step *step)
{
    struct ft_protocol *p = step->p;
    p->applied = true;
    if (p->state == FT_TWIN && p->handed)
        say(step, FT_READY, p->acked);
    else
        strive(step);
}

static void hear_take(const struct step *step, const struct ft_word *word)
{
    struct ft_protocol *p = step->p;
    p->record = (struct ft_record){.generation = word->generation, .owner = p->config.node};
    p->known = true;
    p->link = 0; /* who said that hangs up */
    claim(step);
}

/* What may be said to us now, of what has left or has come. */
static bool is_expected(const struct ft_protocol *p, const struct ft_word *word)
{
    if (word->generation < p->generation)
        return false;
    switch (word->kind) {
    case FT_BEAT:
        return true;
    case FT_ACK:
        return ft_protocol_is_gated(p) && word->epoch > p->acked && word->epoch <= p->sent;
    case FT_READY:
        return p->state == FT_HANDING && word->epoch == p->sent;
    case FT_OFF:
        return is_follower(p);
    case FT_HAND:
    case FT_TAKE:
        return p->state == FT_TWIN && word->epoch == p->acked;
    }
    return false;
}

static void hear_anything(const struct step *step)
{
    struct ft_protocol *p = step->p;
    if (step->now - p->heard_ns > p->rough_ns)
        p->rough_ns = step->now - p->heard_ns;
    p->heard_ns = step->now;
}

static void hear_word(const struct step *step, const struct ft_event *event)
{
    struct ft_protocol *p = step->p;
    const struct ft_word *word = &event->word;
    if (p->parting && event->link == p->parting)
        p->parting_heard_ns = step->now;
    if (!p->link || event->link != p->link)
        return;
    if (!is_expected(p, word)) {
        lose_peer(step); /* whoever that is */
        return;
    }
    hear_anything(step);
    switch (word->kind) {
    case FT_BEAT:
        p->told_ns = word->epoch ? word->epoch : p->told_ns;
        break;
    case FT_ACK:
        hear_ack(step, word);
        break;
    case FT_READY:
        want(step, p->node, 0);
        break;
    case FT_OFF:
        end(step, FT_DISMISSED);
        break;
    case FT_HAND:
        hear_hand(step);
        break;
    case FT_TAKE:
        hear_take(step, word);
        break;
    }
}

static void hear_connected(const struct step *step, const struct ft_event *event)
{
    struct ft_protocol *p = step->p;
    bool is_somebody = event->node && event->node != p->config.node && event->twin;
    if (p->state != FT_SOLO || p->link || p->off || !is_somebody) {
        hang_up(step, event->link);
        return;
    }
    p->link = event->link;
    p->node = event->node;
    p->twin = event->twin;
    p->patient = event->patient;
    p->generation = p->record.generation;
    p->acked = p->sent;
    p->heard_ns = p->said_ns = step->now;
    p->rough_ns = p->config.lost_ns / 4; /* nothing is known of this one */
    act(step, FT_SYNC)->link = p->link;
}

static void hear_disconnected(const struct step *step, const struct ft_event *event)
{
    struct ft_protocol *p = step->p;
    if (p->link && event->link == p->link) {
        lose_peer(step);
    } else if (p->parting && event->link == p->parting) {
        hang_up(step, p->parting);
        p->parting = 0;
    }
}

static void hear_synced(const struct step *step, const struct ft_event *event)
{
    struct ft_protocol *p = step->p;
    if (p->state != FT_SOLO || !p->link || event->link != p->link)
        return;
    p->state = FT_GATED;
    p->first = true;
    p->waits_ns = p->moved_ns = step->now;
    p->heard_ns = step->now; /* a silence may be less long from now on */
    act(step, FT_GATE);
}

static void hear_captured(const struct step *step, const struct ft_event *event)
{
    struct ft_protocol *p = step->p;
    if (!p->link)
        return;
    if (p->sent == p->acked)
        p->waits_ns = step->now;
    p->first = false;
    p->sent = event->epoch;
}

static void hear_staged(const struct step *step, const struct ft_event *event)
{
    struct ft_protocol *p = step->p;
    if (!is_follower(p) || event->link != p->link)
        return;
    hear_anything(step);
    if (event->generation != p->generation ||
        (p->state == FT_TWIN && event->epoch != p->acked + 1)) {
        lose_peer(step);
        return;
    }
    p->state = FT_TWIN;
    p->acked = event->epoch;
    say(step, FT_ACK, p->acked);
    act(step, FT_APPLY)->epoch = p->acked;
}

/* --- the VM ----------------------------------------------------------------------------------- */

static void hear_guest_off(const struct step *step)
{
    struct ft_protocol *p = step->p;
    p->off = true;
    if (p->state == FT_SOLO || p->state == FT_STARTING) {
        end(step, FT_OVER);
    } else if (p->link && ft_protocol_is_gated(p)) {
        say(step, FT_OFF, p->sent);
        catch_up(step);
    }
}

static void hear_handed(const struct step *step)
{
    struct ft_protocol *p = step->p;
    p->handed = true;
    if (p->state == FT_PAIRED && !p->striving) {
        p->state = FT_HANDING;
        catch_up(step);
    } else if (p->state == FT_SOLO || p->state == FT_PAIRED || p->state == FT_GATED) {
        p->handed = false; /* there is nobody it could be handed to */
        act(step, FT_RUN);
    }
}

static void leave(const struct step *step)
{
    if (step->p->link)
        part(step);
    step->p->leaves = true;
    ask(step);
}

/* Until the witness knows that the twin is none, it may take over: before, it is not sent away. Nor
 * is a VM let go that somebody may have taken since the witness was looked at last. Who follows
 * goes by itself; but not once it may have the VM, which then runs nowhere else. */
static void hear_left(const struct step *step)
{
    struct ft_protocol *p = step->p;
    if (p->off)
        return; /* that ends with nobody anyway */
    if (p->state == FT_FOLLOWING || (p->state == FT_TWIN && !p->handed)) {
        end(step, FT_DISMISSED);
    } else if (p->state == FT_SOLO) {
        leave(step);
    } else if (p->state == FT_GATED || p->state == FT_PAIRED) {
        p->leaves = true;
        want(step, p->config.node, 0);
    } else if (p->state == FT_ALONE || p->state == FT_STARTING || p->state == FT_HANDING) {
        p->leaves = true; /* when it is SOLO */
    }
}

/* --- time ------------------------------------------------------------------------------------- */

/* We were not there ourselves: what was so before need not be so now. After a short absence that is
 * so of acknowledgements alone, by a twin that had heard of a shorter patience than ours is now. */
static void mind_the_gap(const struct step *step, uint64_t absent)
{
    struct ft_protocol *p = step->p;
    p->unsure = p->sent;
    if (is_adapting(p) && absent <= ft_protocol_patience(p) / 2)
        return;
    p->heard_ns = p->parting_heard_ns = p->waits_ns = step->now;
    p->known = p->known && !p->striving;
    p->began_ns = step->now; /* a clock that was set says nothing of the others' time */
    if (p->state == FT_SOLO && absent > p->config.away_ns) {
        if (p->link)
            lose_peer(step);
        p->state = FT_ALONE;
        p->known = false;
        p->loose = true; /* what a witness is read to say may be old; what it exchanges is not */
        act(step, FT_GATE);
        want(step, p->config.node, 0);
    }
}

static void fade(const struct step *step)
{
    struct ft_protocol *p = step->p;
    if (step->now - p->faded_ns < p->config.fade_ns)
        return;
    p->rough_ns -= p->rough_ns / 8;
    p->faded_ns = step->now;
}

static void say_beat(const struct step *step)
{
    uint64_t patience = ft_protocol_patience(step->p);
    say(step, FT_BEAT, is_follower(step->p) ? 0 : patience + patience / 2);
}

/* A line that is slow takes long to carry an epoch, and nothing is wrong as long as it does. The VM
 * stands still for what leaves before the first one, too, which nobody acknowledges; and our own
 * disks may take long then. */
static bool is_stalled(const struct step *step)
{
    const struct ft_protocol *p = step->p;
    uint64_t waits = step->now - p->waits_ns, still = step->now - p->moved_ns;
    uint64_t stall = p->config.stall_ns;
    if (!ft_protocol_is_gated(p))
        return false;
    if (p->first)
        return waits / 4 > stall && still / 4 > stall;
    return (p->sent != p->acked || p->state == FT_HANDING) && waits > stall &&
           (still > stall || waits / 4 > stall);
}

/* Who is there and busy hangs up later; who is silent has stopped. It loses the word that it may
 * go, and hears that from the witness. */
static bool is_parted(const struct step *step)
{
    const struct ft_protocol *p = step->p;
    return p->parting && (step->now - p->parted_ns > p->config.stall_ns ||
                          step->now - p->parting_heard_ns > ft_protocol_patience(p));
}

/* Nobody waits for who has no epoch as yet, and all of a VM is much to begin anew: there a host
 * that is busy may be silent for longer. */
static uint64_t longest_silence(const struct ft_protocol *p)
{
    uint64_t patience = ft_protocol_patience(p);
    bool fills = p->state == FT_SOLO || p->state == FT_FOLLOWING;
    return fills && patience < p->config.stall_ns ? p->config.stall_ns : patience;
}

static void hear_tick(const struct step *step)
{
    struct ft_protocol *p = step->p;
    const struct ft_config *config = &p->config;
    uint64_t absent = step->now - p->tick_ns;
    p->tick_ns = step->now;
    if (absent > ft_protocol_gap(p))
        mind_the_gap(step, absent);
    fade(step);
    if (p->asking && step->now - p->asked_ns >= config->ask_ns) {
        p->asking = false; /* whatever comes now comes too late */
        p->leaves = p->leaves && !is_content(p);
        p->known = p->known && !p->striving;
        p->tried.generation = 0;
    }
    if (!p->asking && step->now - p->asked_ns >= config->retry_ns)
        strive(step);
    if (!p->asking && (is_content(p) || p->persisting) && config->watch_ns &&
        step->now - p->asked_ns >= config->watch_ns)
        ask(step);
    if (p->link && step->now - p->said_ns >= config->beat_ns - config->beat_ns / 8)
        say_beat(step); /* the next tick may come long after it is due */
    if (is_parted(step)) {
        hang_up(step, p->parting);
        p->parting = 0;
    }
    if (p->link && (is_stalled(step) || step->now - p->heard_ns > longest_silence(p)))
        lose_peer(step);
}

/* --- all of it -------------------------------------------------------------------------------- */

void ft_protocol_step(struct ft_protocol *protocol, const struct ft_event *event, uint64_t now,
                      struct ft_actions *ret_actions)
{
    const struct step step = {.p = protocol, .now = now, .actions = ret_actions};
    ret_actions->count = 0;
    switch (event->kind) {
    case FT_TICK:
        hear_tick(&step);
        break;
    case FT_CONNECTED:
        hear_connected(&step, event);
        break;
    case FT_SYNCED:
        hear_synced(&step, event);
        break;
    case FT_CAPTURED:
        hear_captured(&step, event);
        break;
    case FT_GUEST_OFF:
        hear_guest_off(&step);
        break;
    case FT_HANDED:
        hear_handed(&step);
        break;
    case FT_MOVED:
        protocol->moved_ns = now;
        break;
    case FT_LEFT:
        hear_left(&step);
        break;
    case FT_STAGED:
        hear_staged(&step, event);
        break;
    case FT_APPLIED:
        hear_applied(&step);
        break;
    case FT_DISCONNECTED:
        hear_disconnected(&step, event);
        break;
    case FT_HEARD:
        hear_word(&step, event);
        break;
    case FT_ANSWER:
        hear_answer(&step, event);
        break;
    case FT_PERSISTED:
        hear_persisted(&step);
        break;
    }
}

/* Who follows is the more patient one: the VM moves when its host is gone, and not for a line. */
static uint64_t patience_of(const struct ft_protocol *protocol, uint64_t ns)
{
    return is_follower(protocol) ? ns + ns / 2 : ns;
}

static void init(struct ft_protocol *protocol, const struct ft_config *config, enum ft_state state,
                 uint64_t now)
{
    *protocol = (struct ft_protocol){
        .config = *config, .state = state, .began_ns = now, .tick_ns = now, .heard_ns = now};
    protocol->rough_ns = patience_of(protocol, config->lost_ns) / 4;
    protocol->faded_ns = now;
}

void ft_protocol_init_owner(struct ft_protocol *protocol, const struct ft_config *config,
                            uint64_t persisted, uint64_t now)
{
    init(protocol, config, FT_STARTING, now);
    protocol->persisted = persisted;
    protocol->loose = true; /* who was here before us may have tried something */
    protocol->wanted.owner = config->node;
    protocol->striving = true;
    protocol->asked_ns = now - config->retry_ns; /* at the first tick */
}

void ft_protocol_init_solo(struct ft_protocol *protocol, const struct ft_config *config,
                           const struct ft_record *record, uint64_t now)
{
    init(protocol, config, FT_SOLO, now);
    protocol->record = *record;
    protocol->wanted = *record;
    protocol->persisted = record->generation;
    protocol->known = true;
    protocol->asked_ns = now;
}

void ft_protocol_init_follower(struct ft_protocol *protocol, const struct ft_config *config,
                               uint64_t persisted, const struct ft_event *connected, uint64_t now)
{
    init(protocol, config, FT_FOLLOWING, now);
    protocol->persisted = persisted;
    protocol->link = connected->link;
    protocol->twin = connected->twin;
    protocol->generation = connected->generation;
    protocol->said_ns = now;
}

uint64_t ft_protocol_patience(const struct ft_protocol *protocol)
{
    const struct ft_config *config = &protocol->config;
    uint64_t patience = protocol->rough_ns * 4; /* as smooth as the past was, it need not be */
    uint64_t swift = patience_of(protocol, config->swift_ns),
             slow = patience_of(protocol, config->slow_ns);
    if (!is_adapting(protocol))
        return patience_of(protocol, config->lost_ns);
    if (patience < protocol->told_ns)
        patience = protocol->told_ns;
    if (patience < swift)
        patience = swift;
    return patience < slow ? patience : slow;
}

uint64_t ft_protocol_gap(const struct ft_protocol *protocol)
{
    const struct ft_config *config = &protocol->config;
    uint64_t swift = patience_of(protocol, config->swift_ns) / 2;
    return is_adapting(protocol) && swift < config->gap_ns ? swift : config->gap_ns;
}

bool ft_protocol_runs(const struct ft_protocol *protocol)
{
    switch (protocol->state) {
    case FT_SOLO:
    case FT_GATED:
    case FT_PAIRED:
    case FT_ALONE:
        return !protocol->off && !protocol->handed;
    default:
        return false;
    }
}

bool ft_protocol_is_gated(const struct ft_protocol *protocol)
{
    return protocol->state == FT_GATED || protocol->state == FT_PAIRED ||
           protocol->state == FT_ALONE || protocol->state == FT_HANDING;
}

bool ft_protocol_is_left(const struct ft_protocol *protocol)
{
    return protocol->state == FT_SOLO && protocol->link == 0 && !protocol->leaves;
}

const char *ft_state_name(enum ft_state state)
{
    static const char *const names[] = {
        [FT_STARTING] = "starting", [FT_SOLO] = "solo",           [FT_GATED] = "gated",
        [FT_PAIRED] = "paired",     [FT_ALONE] = "alone",         [FT_HANDING] = "handing over",
        [FT_FOLLOWING] = "follows", [FT_TWIN] = "twin",           [FT_CLAIMING] = "claiming",
        [FT_DEPOSED] = "deposed",   [FT_DISMISSED] = "dismissed", [FT_OVER] = "over",
    };
    return (size_t)state < sizeof(names) / sizeof(names[0]) && names[state] ? names[state] : "?";
}
