/* SPDX-License-Identifier: MIT */
#include "ft/chronicle.h"

#include <string.h>

/* One that nobody takes makes room for a newer one. */
static void note(struct chronicle *chronicle, const struct chronicle_note *what)
{
    if (chronicle->count == CHRONICLE_NOTES) {
        memmove(chronicle->notes, chronicle->notes + 1,
                (CHRONICLE_NOTES - 1) * sizeof(chronicle->notes[0]));
        chronicle->count--;
        chronicle->lost = true;
    }
    chronicle->notes[chronicle->count++] = *what;
}

/* How the other side was lost, by what has just happened. */
static const char *find_why(const struct ft_protocol *protocol, const struct ft_event *event,
                            uint64_t now)
{
    switch (event->kind) {
    case FT_DISCONNECTED:
        return "the connection ended";
    case FT_TICK:
        return now - protocol->heard_ns > ft_protocol_patience(protocol) ? "silence" : "it stalled";
    case FT_HEARD:
        return protocol->handed ? "switchover" : "it said what it may not";
    default:
        return "it sent what it may not";
    }
}

static void end_unprotected(struct chronicle *chronicle, uint64_t now)
{
    if (chronicle->solo_ns)
        chronicle->unprotected_ns += now - chronicle->solo_ns;
    chronicle->solo_ns = 0;
}

static void begin_unprotected(struct chronicle *chronicle, uint64_t now)
{
    if (!chronicle->solo_ns)
        chronicle->solo_ns = now;
}

static void enter_solo(struct chronicle *chronicle, const struct ft_protocol *protocol,
                       uint64_t now)
{
    enum ft_state before = chronicle->state;
    struct chronicle_note solo = {.kind = CHRONICLE_SOLO,
                                  .why = before == FT_STARTING ? "start" : "the witness says so",
                                  .generation = protocol->record.generation,
                                  .since_ns = before == FT_ALONE ? chronicle->let_go_ns : 0,
                                  .at_ns = now};
    if (before == FT_CLAIMING)
        chronicle->takeover.decided = now;
    else if (before == FT_STARTING || before == FT_ALONE)
        note(chronicle, &solo);
    if (before == FT_PAIRED || before == FT_GATED)
        end_unprotected(chronicle, now); /* somebody wants that */
    else
        begin_unprotected(chronicle, now);
}

static void enter_alone(struct chronicle *chronicle, const struct ft_protocol *protocol,
                        const struct ft_event *event, uint64_t now)
{
    enum ft_state before = chronicle->state;
    const struct chronicle_note alone = {.kind = CHRONICLE_ALONE,
                                         .why = find_why(protocol, event, now),
                                         .generation = protocol->record.generation,
                                         .since_ns = protocol->heard_ns,
                                         .at_ns = now};
    if (before == FT_SOLO) /* its host was away: until then output was free */
        chronicle->let_go_ns = chronicle->seen_ns;
    if (before != FT_PAIRED && before != FT_HANDING)
        return;
    note(chronicle, &alone);
    begin_unprotected(chronicle, protocol->heard_ns);
}

static void enter_paired(struct chronicle *chronicle, const struct ft_protocol *protocol,
                         uint64_t now)
{
    const struct chronicle_note paired = {.kind = CHRONICLE_PROTECTED,
                                          .generation = protocol->record.generation,
                                          .since_ns = chronicle->solo_ns,
                                          .at_ns = now};
    note(chronicle, &paired);
    end_unprotected(chronicle, now);
}

static void enter_claiming(struct chronicle *chronicle, const struct ft_protocol *protocol,
                           const struct ft_event *event, uint64_t now)
{
    struct chronicle_takeover *takeover = &chronicle->takeover;
    unsigned oldest = CHRONICLE_ACKS - 1;
    while (oldest > 0 && !chronicle->acks[oldest])
        oldest--;
    takeover->planned = protocol->handed;
    takeover->why = find_why(protocol, event, now);
    takeover->heard = protocol->heard_ns;
    takeover->gone = now;
    takeover->told = chronicle->acks[oldest];
    takeover->told_last = chronicle->acks[0];
}

/* Whatever waited never left; of one that ran alone nothing waited. */
static void enter_deposed(struct chronicle *chronicle, const struct ft_protocol *protocol,
                          uint64_t now)
{
    enum ft_state before = chronicle->state;
    uint64_t since_ns = before == FT_SOLO ? 0 : chronicle->let_go_ns;
    const struct chronicle_note deposed = {.kind = CHRONICLE_DEPOSED,
                                           .generation = protocol->record.generation,
                                           .since_ns = since_ns,
                                           .at_ns = now};
    if (before != FT_STARTING)
        note(chronicle, &deposed);
    end_unprotected(chronicle, now);
}

static void enter(struct chronicle *chronicle, const struct ft_protocol *protocol,
                  const struct ft_event *event, uint64_t now)
{
    switch (protocol->state) {
    case FT_SOLO:
        enter_solo(chronicle, protocol, now);
        break;
    case FT_GATED:
        chronicle->let_go_ns = now;
        break;
    case FT_PAIRED:
        if (chronicle->state == FT_GATED)
            enter_paired(chronicle, protocol, now);
        break;
    case FT_ALONE:
        enter_alone(chronicle, protocol, event, now);
        break;
    case FT_TWIN:
        chronicle->takeover.twin = now;
        break;
    case FT_CLAIMING:
        enter_claiming(chronicle, protocol, event, now);
        break;
    case FT_DEPOSED:
        enter_deposed(chronicle, protocol, now);
        break;
    default:
        break;
    }
}

void chronicle_init(struct chronicle *chronicle, const struct ft_protocol *protocol, uint64_t now)
{
    *chronicle = (struct chronicle){.state = protocol->state,
                                    .acked = protocol->acked,
                                    .seen_ns = now,
                                    .let_go_ns = now,
                                    .takeover = {.followed = protocol->began_ns}};
}

void chronicle_step(struct chronicle *chronicle, const struct ft_protocol *protocol,
                    const struct ft_event *event, uint64_t now)
{
    if (protocol->acked != chronicle->acked && protocol->acked) {
        memmove(chronicle->acks + 1, chronicle->acks,
                (CHRONICLE_ACKS - 1) * sizeof(chronicle->acks[0]));
        chronicle->acks[0] = chronicle->let_go_ns = now;
    }
    chronicle->acked = protocol->acked;
    if (protocol->state != chronicle->state)
        enter(chronicle, protocol, event, now);
    chronicle->state = protocol->state;
    chronicle->seen_ns = now;
}

bool chronicle_take(struct chronicle *chronicle, struct chronicle_note *ret_note)
{
    if (chronicle->count == 0)
        return false;
    *ret_note = chronicle->notes[0];
    chronicle->count--;
    memmove(chronicle->notes, chronicle->notes + 1, chronicle->count * sizeof(chronicle->notes[0]));
    return true;
}

uint64_t chronicle_unprotected(const struct chronicle *chronicle, uint64_t now)
{
    uint64_t open = chronicle->solo_ns && now > chronicle->solo_ns ? now - chronicle->solo_ns : 0;
    return chronicle->unprotected_ns + open;
}
