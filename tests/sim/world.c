/* SPDX-License-Identifier: MIT */
/* Time, chance, and connections. */
#include "tests/sim/sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct happening {
    uint64_t at, sequence, number;
    void (*handle)(struct world *world, void *arg, uint64_t number);
    void *arg;
};

/* --- chance ----------------------------------------------------------------------------------- */

/* xorshift64*: the same numbers everywhere. */
uint64_t chance(struct world *world, uint64_t below)
{
    world->random ^= world->random >> 12;
    world->random ^= world->random << 25;
    world->random ^= world->random >> 27;
    return (world->random * 0x2545f4914f6cdd1dull >> 16) % below;
}

bool one_in(struct world *world, uint64_t many)
{
    return chance(world, many) == 0;
}

/* --- time: a heap ----------------------------------------------------------------------------- */

static bool is_before(const struct happening *a, const struct happening *b)
{
    return a->at != b->at ? a->at < b->at : a->sequence < b->sequence;
}

static void swap(struct happening *a, struct happening *b)
{
    struct happening other = *a;
    *a = *b;
    *b = other;
}

void later(struct world *world, uint64_t in, void (*handle)(struct world *, void *, uint64_t),
           void *arg, uint64_t number)
{
    if (world->queued == world->room) {
        world->room = world->room ? 2 * world->room : 256;
        world->queue = realloc(world->queue, world->room * sizeof(*world->queue));
        if (!world->queue)
            abort();
    }
    unsigned at = world->queued++;
    world->queue[at] = (struct happening){.at = world->now + in,
                                          .sequence = world->sequence++,
                                          .number = number,
                                          .handle = handle,
                                          .arg = arg};
    for (; at > 0 && is_before(&world->queue[at], &world->queue[(at - 1) / 2]); at = (at - 1) / 2)
        swap(&world->queue[at], &world->queue[(at - 1) / 2]);
}

static void sink(struct world *world)
{
    for (unsigned at = 0, child; (child = 2 * at + 1) < world->queued; at = child) {
        if (child + 1 < world->queued && is_before(&world->queue[child + 1], &world->queue[child]))
            child++;
        if (!is_before(&world->queue[child], &world->queue[at]))
            break;
        swap(&world->queue[child], &world->queue[at]);
    }
}

bool next_event(struct world *world, uint64_t until)
{
    if (world->queued == 0 || world->queue[0].at > until)
        return false;
    struct happening next = world->queue[0];
    world->queue[0] = world->queue[--world->queued];
    sink(world);
    world->now = next.at;
    world->events++;
    next.handle(world, next.arg, next.number);
    return true;
}

/* --- words ------------------------------------------------------------------------------------ */

static void print(const struct world *world, const char *format, va_list arguments)
{
    printf("%10.3f ms  ", (double)world->now / 1e3);
    vprintf(format, arguments);
    putchar('\n');
}

void tell(struct world *world, const char *format, ...)
{
    va_list arguments;
    if (!world->trace)
        return;
    va_start(arguments, format);
    print(world, format, arguments);
    va_end(arguments);
}

void broken(struct world *world, const char *promise, const char *format, ...)
{
    va_list arguments;
    if (world->broken)
        return;
    world->broken = promise;
    va_start(arguments, format);
    vsnprintf(world->why, sizeof(world->why), format, arguments);
    va_end(arguments);
    tell(world, "BROKEN: %s: %s", promise, world->why);
}

/* --- connections ------------------------------------------------------------------------------ */

struct link *link_make(struct world *world)
{
    struct link *link = calloc(1, sizeof(*link));
    if (!link)
        abort();
    link->id = ++world->last_link;
    link->next = world->links;
    world->links = link;
    for (int to = 0; to < NODES; to++) {
        link->open[to] = true;
        link->last[to] = &link->first[to];
    }
    return link;
}

static void end_of(struct world *world, struct link *link, int from)
{
    const struct message end = {.kind = MSG_END};
    if (!link->ended[from])
        link_send(world, link, from, &end);
    link->ended[from] = true;
}

/* What is first on its way to node `to`, when it is time. TCP tries again where a line is cut. */
static void deliver(struct world *world, void *arg, uint64_t to)
{
    enum { AGAIN = 7 * MS };
    struct link *link = arg;
    struct message *message = link->first[to];
    struct node *node = &world->nodes[to];
    if (!message)
        return;
    if (world->cut[!to][to] || node->frozen) {
        later(world, AGAIN, deliver, link, to);
        return;
    }
    link->first[to] = message->next;
    if (!link->first[to])
        link->last[to] = &link->first[to];
    else
        later(world, link->first[to]->at > world->now ? link->first[to]->at - world->now : 0,
              deliver, link, to);
    if (link->open[to] && node->process)
        node_receive(world, node, link, message);
    else if (node->up)
        end_of(world, link, (int)to);
    free(message);
}

/* A word may go before what waits of epochs, but not before another word. */
static struct message **overtaking(struct link *link, int to)
{
    struct message **place = &link->first[to]->next;
    for (struct message **at = place; *at; at = &(*at)->next)
        if ((*at)->kind == MSG_WORD || (*at)->kind == MSG_END)
            place = &(*at)->next;
    return place;
}

uint64_t message_sum(const struct message *message)
{
    const uint64_t said[] = {message->kind,       message->word.kind,  message->word.generation,
                             message->word.epoch, message->generation, message->epoch,
                             message->block,      message->parts,      message->fact.count,
                             message->fact.id};
    uint64_t sum = 0;
    for (size_t i = 0; i < sizeof(said) / sizeof(said[0]); i++)
        sum = (sum ^ said[i]) * 0x9e3779b97f4a7c15ull + (sum >> 29);
    return sum;
}

/* One bit of it is not what it was. */
static void damage(struct world *world, struct message *message)
{
    uint64_t *const numbers[] = {&message->word.epoch, &message->word.generation,
                                 &message->epoch,      &message->generation,
                                 &message->fact.count, &message->fact.id};
    uint64_t which = chance(world, 8);
    if (which == 6)
        message->block ^= 1u << chance(world, 3);
    else if (which == 7)
        message->parts ^= 1u << chance(world, 3);
    else
        *numbers[which] ^= 1ull << chance(world, 8);
}

void link_send(struct world *world, struct link *link, int from, const struct message *message)
{
    int to = !from;
    struct message *copy = malloc(sizeof(*copy));
    if (!copy)
        abort();
    *copy = *message;
    copy->sum = message_sum(message);
    if (world->noise && message->kind != MSG_END && one_in(world, world->noise))
        damage(world, copy);
    copy->at = world->now + 30 + chance(world, 100) +
               (world->slow ? chance(world, world->slow) : 0);
    if (link->first[to] && copy->at < world->now + 1)
        copy->at = world->now + 1;
    bool first = !link->first[to];
    struct message **place = link->last[to];
    if (message->kind == MSG_WORD && !first && one_in(world, 2))
        place = overtaking(link, to);
    copy->next = *place;
    *place = copy;
    if (!copy->next)
        link->last[to] = &copy->next;
    if (first)
        later(world, copy->at - world->now, deliver, link, (uint64_t)to);
}

void link_close(struct world *world, struct link *link, int from, enum link_end how)
{
    int to = !from;
    if (!link->open[from])
        return;
    link->open[from] = false;
    unsigned waiting = 0;
    for (struct message *message = link->first[to]; message; message = message->next)
        waiting++;
    if (how != LINK_CLOSED &&
        waiting > 1) { /* the first is on its way already, and may be the end of it */
        struct message *last = link->first[to];
        for (uint64_t keep = chance(world, waiting); keep > 0; keep--)
            last = last->next;
        for (struct message *lost = last->next, *next; lost; lost = next) {
            next = lost->next;
            free(lost);
        }
        last->next = NULL;
        link->last[to] = &last->next;
    }
    if (how != LINK_SILENT)
        end_of(world, link, from);
}

void world_finish(struct world *world)
{
    for (struct link *link = world->links, *next; link; link = next) {
        next = link->next;
        for (int to = 0; to < NODES; to++)
            for (struct message *message = link->first[to], *after; message; message = after) {
                after = message->next;
                free(message);
            }
        free(link);
    }
    free(world->queue);
}
