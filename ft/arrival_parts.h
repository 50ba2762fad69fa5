/* SPDX-License-Identifier: MIT */
/* A VM that comes, from inside: for what becomes of it (ft/arrival.c, ft/secondary.c). */
#pragma once

#include "core/thread.h"
#include "ft/arrival.h"
#include "ft/arrival_folder.h"
#include "ft/following.h"
#include "ft/loop_step.h"
#include "ft/page_frames.h"

#include <stdatomic.h>

struct arrival {
    struct link *link;
    struct moving_hello hello;
    struct machine_model *model;
    struct arrival_folder folder;
    struct stream_buffer payload, state;
    struct instance_settings settings; /* where it moves: what was set of it over there */
    struct frame_tally tally;

    /* It is not to move, but to follow: what was said of that. generation 0: it moves. */
    struct following following;
    struct link_key key; /* of the link, if it has one: the way back has the same */
    bool has_key, insecure;
    char key_path[PATH_MAX];
    bool stays; /* the folder, whatever becomes of us */

    struct instance *instance;
    struct machine *machine;
    uint8_t *host; /* guest memory */
    uint64_t pages;
    uint64_t *touched; /* pages that hold something: zeroes have to be written there */

    struct thread thread;
    struct err err;
    bool opened; /* the shared disks, if there are any */
    atomic_bool come;
    atomic_bool unwanted;    /* it was given up */
    pthread_mutex_t writing; /* to the link, where it moves */

    struct loop_step step;
    struct loop_call end_call, announced_call;
    uint64_t go_ns; /* when it was ours */
};

/* The machine is the one that is coming: or why not. */
int arrival_prepare(struct arrival *arrival, struct instance *instance, struct err *err) must_check;
/* Pages and blocks go to their places, as they come: a blank machine has nothing to lose. */
int arrival_take_pages(struct arrival *arrival, const struct frame *frame,
                       struct err *err) must_check;
int arrival_take_block(struct arrival *arrival, struct err *err) must_check;
int arrival_out_of_place(const struct frame *frame, struct err *err);
/* On the main loop. */
int arrival_load(struct arrival *arrival, struct err *err) must_check;
/* Whether it could be loaded; memory stays what the other side has sent. */
int arrival_try(struct arrival *arrival, struct err *err) must_check;
