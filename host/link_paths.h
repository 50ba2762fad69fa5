/* SPDX-License-Identifier: MIT */
/*
 * A link over two paths, from inside: only for the link*.c files. host/link.h says what it does for
 * its users, host/paths.h how the stream is divided, link_finder.c how paths are found.
 *
 * Each path has a thread that receives and one that sends; a keeper brings the time. Who writes to
 * the stream sends by itself where little is on its way, so that a word waits for no other thread.
 */
#pragma once

#include "core/thread.h"
#include "host/link_parts.h"
#include "host/paths.h"

struct link_paths;
struct finder;

/* One path: its connection, and who is busy with it. */
struct link_path {
    struct link_paths *owner;
    struct thread in, out;
    pthread_cond_t send;
    struct link *link; /* NULL: away. Whoever receives ends it. */
    bool pumping;      /* somebody sends */
    bool replaced;     /* another one takes its place */
    bool alive;        /* as it was told last */
    uint64_t since_ns;
    char address[LINK_PATH_TEXT];
    uint8_t head[PATHS_HEAD], payload[PATHS_PAYLOAD]; /* what comes */
    uint8_t batch[PATHS_BATCH];                       /* what leaves */
};

struct link_paths {
    pthread_mutex_t lock; /* all of this */
    struct paths core;
    struct link_path path[PATHS];
    pthread_cond_t data, room, changed, time;
    struct thread keeper;
    struct finder *finder;
    bool ends, broken; /* its threads are to end; from this side, with no patience */
    int error;         /* no path is left: why; 0: there is one */
    unsigned timeout_ms;
    int told_active;
    uint64_t taken_acks;         /* core.acked, as far as who writes has heard of it */
    struct link_arrived arrived; /* any thread's, without the lock */
    void (*changes)(void *ctx);
    void *ctx;
};

struct link_opened {
    struct link_times times;
    int first; /* which connection is the session's first one */
    struct link *link[PATHS];
    const char *addresses[PATHS]; /* that are dialled; NULL: none is */
    struct finder *finder;
    bool decides; /* paths_config */
};

/* Takes links and finder over, also on failure; the finder is yet to be started. */
int link_paths_create(struct link_paths **ret_paths, const struct link_opened *opened,
                      struct err *err) must_check;
void link_paths_destroy(struct link_paths *paths); /* orderly, unless broken */
int link_paths_write(struct link_paths *paths, const void *from, size_t length) must_check;
int link_paths_flush(struct link_paths *paths) must_check;
int link_paths_read(struct link_paths *paths, void *to, size_t length) must_check;
void link_paths_break(struct link_paths *paths);
void link_paths_set_timeout(struct link_paths *paths, unsigned timeout_ms);
void link_paths_look(struct link_paths *paths, struct link_news *ret_news);
uint64_t link_paths_line_ns(struct link_paths *paths);
void link_paths_watch(struct link_paths *paths, void (*changes)(void *ctx), void *ctx);

/* For the finder. Which path is to be connected; PATHS_NONE. */
int link_paths_find_away(struct link_paths *paths);
/* A connection of the session; what the path had before ends. Takes the link over. */
void link_paths_install(struct link_paths *paths, int path, struct link *link, const char *address);

/* What finds connections: it dials (who connects), or opens to those who do (link_finder.c). A
 * thread of its own, which outlives the paths where a name server keeps it waiting. */
int finder_start(struct finder *finder, struct link_paths *owner, struct err *err) must_check;
void finder_wake(struct finder *finder);
/* It knows its owner no more when this returns. One that was never started is freed. */
void finder_end(struct finder *finder);
