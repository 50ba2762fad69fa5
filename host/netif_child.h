/* SPDX-License-Identifier: MIT */
/*
 * A network interface that is another program: started, spoken to over a socket, watched, and
 * started again when it dies. What netif_user and netif_passt share.
 *
 * The program parses what a guest sends, and so counts as broken into: nothing that it says may
 * harm us, a breach of the protocol counts as its death, and it may neither outlive nor block us.
 *
 *   IDLE ──┐ the guest's driver is there
 *   GONE ──┴─start──> STARTING ──greet──> UP      link_changed(true)
 *     ^                  │ too late        │ it dies, or is condemned
 *     └───── back-off ───┴─────────────────┘      link_changed(false), one sentence of trouble
 *
 * The back-off goes from 0.1 s up to 10 s, and begins anew after a minute of good life. Frames are
 * dropped meanwhile; only those of a guest that was faster than the very first start are held.
 *
 * All on the loop's thread. The program asks the kernel to die with the *thread* that started it:
 * that thread must stay for as long as the interface is used.
 */
#pragma once

#include "host/netif.h"

struct netif_child;

/* The descriptors of the program: 0 is /dev/null, 1 where it may say that it is ready (or
 * /dev/null), 2 a pipe for last words, and the socket. All others are closed. */
enum { NETIF_CHILD_SOCKET = 3 };

enum netif_child_state {
    NETIF_CHILD_GONE,
    NETIF_CHILD_IDLE,
    NETIF_CHILD_STARTING,
    NETIF_CHILD_UP,
};

struct netif_child_kind {
    const char *what;  /* how sentences begin: "user network: minivmm-usernet" */
    bool shell_status; /* an exit status above 128 tells of a signal */
    /* Makes the sockets and calls netif_child_spawn. */
    int (*start)(struct netif_child *child, struct err *err);
    /* Reads what came on `hello`: 0: ready; -EAGAIN: nothing yet; -EPIPE: closed, it is about to
     * die; others, with err: it cannot work. */
    int (*greet)(struct netif_child *child, struct err *err);
    /* It died before it was ready; words are its last line, "" for none. NULL: they say enough. */
    int (*explain)(struct netif_child *child, const char *words, struct err *err);
    void (*handle_io)(struct netif_child *child, unsigned events); /* UP only */
    unsigned (*wants)(const struct netif_child *child);            /* LOOP_*, from `watched` */
    void (*forget)(struct netif_child *child);                     /* what the old socket left */
};

struct netif_child {
    struct netif netif; /* first */
    const struct netif_child_kind *kind;
    const struct netif_handlers *handlers; /* with loop: NULL when detached */
    struct loop *loop;
    enum netif_child_state state;
    int fd;    /* our end of the socket; -1 when GONE */
    int hello; /* where it says that it is ready; the same as fd, or its own */
    unsigned watched;

    pid_t pid;
    int pidfd, words;
    struct loop_io io, death;
    bool io_added, death_added, hung_up;
    struct loop_timer timer; /* GONE: start again; STARTING: too late; UP, condemned: act */
    char verdict[128];       /* why it was condemned; "" when it was not */
    char said[400];          /* the last trouble told, so that it is not told every 10 s */
    uint64_t up_since_ns, delay_ns;
};

/* Sets up the common part; the ops' attach, detach, watch and configure are the functions below. */
void netif_child_init(struct netif_child *child, const struct netif_child_kind *kind);
void netif_child_finish(struct netif_child *child); /* ends and reaps it */

/* The first start. Does not wait: that is for attach. */
int netif_child_open(struct netif_child *child, struct err *err) must_check;

/* Or: started when a guest's driver is there (configure). A VM whose guest never asks for its
 * network does not pay for it. */
void netif_child_open_later(struct netif_child *child);

/*
 * For kind->start: runs argv (argv[0] is looked for in PATH unless it has a slash) with their ends
 * of socket and hello (-1: none), which are closed in any case. child->fd and hello are the
 * caller's to set, and closed at its death.
 */
int netif_child_spawn(struct netif_child *child, char *const argv[], int their_socket,
                      int their_hello, struct err *err) must_check;

/* It broke the protocol: killed at once, and treated as dead as soon as the loop gets to it. The
 * reason completes "it ...". */
void netif_child_condemn(struct netif_child *child, const char *reason);

/* Its socket is closed. Mostly it dies in this moment: its status tells more, so that is waited for
 * a little before it is condemned. */
void netif_child_hung_up(struct netif_child *child);

static inline bool netif_child_usable(const struct netif_child *child)
{
    return child->state == NETIF_CHILD_UP && !child->verdict[0] && !child->hung_up;
}

/* Of struct netif_ops. The first attach waits until the program is ready, or gives its error. */
int netif_child_attach(struct netif *netif, struct loop *loop,
                       const struct netif_handlers *handlers, struct err *err);
void netif_child_detach(struct netif *netif);
void netif_child_watch(struct netif *netif, unsigned queue, unsigned what);
int netif_child_configure(struct netif *netif, unsigned queues, unsigned offloads);

/* The frame behind the header: `part` has UIO_MAXIOV entries. Number of entries, or -errno: the
 * frame is lost. */
int netif_child_frame(const struct netif_child *child, const struct iovec *iov, unsigned count,
                      struct iovec *part, size_t *ret_length) must_check;
