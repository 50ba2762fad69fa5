/* SPDX-License-Identifier: MIT */
#include "ft/peer_choice.h"

#include "host/peer_address.h"

#include <stddef.h>

void peer_choice_begin(struct peer_choice *choice, uint64_t now)
{
    *choice = (struct peer_choice){.since_ns = now};
}

/* The others, without the former one, which has its own turns. */
static const char *other(const struct peer_list *list, unsigned turn)
{
    unsigned others = 0;
    for (unsigned i = 0; i < list->count; i++)
        others += !peer_address_equal(list->peers[i], list->former);
    if (others == 0)
        return NULL;
    unsigned wanted = turn % others;
    for (unsigned i = 0; i < list->count; i++)
        if (!peer_address_equal(list->peers[i], list->former) && wanted-- == 0)
            return list->peers[i];
    return NULL;
}

const char *peer_choice_next(struct peer_choice *choice, const struct peer_list *list, uint64_t now)
{
    const char *former = list->former[0] ? list->former : NULL, *next = NULL;
    if (former && now - choice->since_ns < list->patience_ns)
        return former;
    unsigned turn = choice->turn++;
    if (!former)
        return other(list, turn);
    if (turn % 2 == 0)
        next = other(list, turn / 2);
    return next ? next : former;
}
