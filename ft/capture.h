/* SPDX-License-Identifier: MIT */
/*
 * The moment of which a copy is: the machine stands still as long as this takes, and no longer.
 *
 *   pause     every vCPU, then every device, at a request's boundary
 *   still     what else has to come to its end first
 *   state     of vCPUs, chips and devices
 *   disks     shared at once, or from now on copied as they are now
 *   pages     which were written since the last round; last, because all of the above may write
 *   moment    what else begins and ends here
 *   resume
 */
#pragma once

#include "ft/disks.h"
#include "ft/pages.h"

/* How long each part took. */
struct capture_times {
    uint64_t pause_ns, state_ns, disks_ns, pages_ns, resume_ns;
    uint64_t all_ns; /* 0: it stood still before */
};

struct capture {
    struct machine *machine;
    bool runs;                   /* it does: it is paused, and goes on */
    bool ends;                   /* it never goes on: what its guest has asked for is no matter */
    struct disks *disks;         /* or NULL */
    struct pages *pages;         /* or NULL: and no state either */
    struct stream_buffer *state; /* initialised */
    void (*still)(void *ctx);    /* or NULL */
    void (*moment)(void *ctx);   /* or NULL; not where something went wrong before */
    void *ctx;
    struct capture_times times;
};

/* -EAGAIN, and nothing has happened: the machine is about to be reset, or to end. Again, when the
 * main loop has had its turn. */
int capture_take(struct capture *capture, struct err *err) must_check;
