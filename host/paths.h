/* SPDX-License-Identifier: MIT */
/*
 * One stream of bytes each way over two paths to the same peer, as a pure state machine: no I/O, no
 * clock, no thread (host/link_paths.c is the driver). It numbers what is sent, keeps it until the
 * peer has it, and says on which path it goes.
 *
 * A path is a connection that keeps bytes in order. On it come records (paths.c has the layout),
 * each with its place in the stream, and with what has come the other way. The bytes go on one path
 * only, the active one; records that say only what has come go on both, often enough to know which
 * path is alive. What counts for the active path is that the stream gets on: one that lets small
 * records through and nothing else is as bad as a silent one. Then, or when it ends, the other one
 * becomes active, and all that the peer does not have is sent again. It stays active until it is
 * bad itself.
 *
 * Nobody leaves a path for one that is not known to be alive: where both are silent it is the peer
 * that is away, or we were, and whoever uses the stream has patience of his own.
 */
#pragma once

#include "core/err.h"

#include <stdint.h>

enum {
    PATHS = 2,
    PATHS_NONE = -1,
    PATHS_HEAD = 32,         /* bytes of a record before its payload */
    PATHS_PAYLOAD = 8 << 10, /* the most; little, so that a slow line shows that it gets on */
    PATHS_BATCH = 8 * (PATHS_HEAD + PATHS_PAYLOAD),
    PATHS_WINDOW = 4 << 20,
};

struct paths_config {
    uint64_t beat_ns;  /* so often at least something is said on each path */
    uint64_t stall_ns; /* so long silent, or without getting on, and a path is bad */
    size_t window;     /* bytes that each side keeps for each direction; both say the same */
    bool decides;      /* a bad path is given up here, to be made anew; only one side does that */
};

struct path {
    bool up, owes; /* owes: a record is due, if there is nothing else to say */
    uint64_t heard_ns, said_ns;
};

struct paths {
    struct paths_config config;
    struct path path[PATHS];
    int active; /* PATHS_NONE: there is none */
    uint64_t moves, tick_ns;

    /* Offsets in the stream that leaves: acked <= sent <= furthest <= written. */
    uint64_t acked, sent, furthest, written;
    uint64_t allowed;     /* nothing from here on, as yet */
    uint64_t progress_ns; /* since when it has not got on */
    bool ends;
    uint8_t *out; /* [acked, written) */

    /* And in that which comes: taken <= received <= told_limit. */
    uint64_t taken, received, told_received, told_limit;
    bool ended;
    uint8_t *in; /* [taken, received) */
};

int paths_init(struct paths *paths, const struct paths_config *config, uint64_t now) must_check;
void paths_finish(struct paths *paths); /* zeroes are fine */

/* As many as there is room for; as many as there are. */
size_t paths_put(struct paths *paths, const void *from, size_t length);
size_t paths_get(struct paths *paths, void *to, size_t length);
/* Nothing more is put: the peer hears of that when it has all. */
void paths_end(struct paths *paths);

/* Its connection is there, and nothing of the stream is on its way on it; it has ended. */
void paths_up(struct paths *paths, int path, uint64_t now);
void paths_down(struct paths *paths, int path, uint64_t now);

/* Records to be sent on the path now, whole: their length, 0 if there is nothing to say. */
size_t paths_next(struct paths *paths, int path, uint64_t now, uint8_t ret_records[PATHS_BATCH]);
bool paths_wants(const struct paths *paths, int path); /* paths_next would have something */

/* A record that came: how long its payload is (-EBADMSG: it makes no sense), then all of it. The
 * path is to end after an error: nothing of that record counts. */
int paths_length(const uint8_t head[PATHS_HEAD]) must_check;
int paths_take(struct paths *paths, int path, uint64_t now, const uint8_t head[PATHS_HEAD],
               const uint8_t *payload) must_check;

/* More often than beat_ns. The path whose connection is to be ended and made anew, or NONE. */
int paths_tick(struct paths *paths, uint64_t now);
