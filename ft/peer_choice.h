/* SPDX-License-Identifier: MIT */
/*
 * Which host is asked next to have the twin of a VM that has none. Pure.
 *
 *   at first   the one that had it last, which has most of the VM: a host that boots is back within
 *              minutes, and all of a VM to another one costs more than that
 *   then       each of the others in turn, in the order of the list, and the former one in between
 */
#pragma once

#include <stdint.h>

struct peer_choice {
    uint64_t since_ns; /* it has no twin */
    unsigned turn;     /* since others may be asked */
};

struct peer_list {
    const char *former;       /* "": not known */
    const char *const *peers; /* it may be among them */
    unsigned count;
    uint64_t patience_ns;
};

/* It has lost its twin, or begins to look for one. */
void peer_choice_begin(struct peer_choice *choice, uint64_t now);
/* NULL: nobody is known. */
const char *peer_choice_next(struct peer_choice *choice, const struct peer_list *list,
                             uint64_t now);
