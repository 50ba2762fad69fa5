/* SPDX-License-Identifier: MIT */
/*
 * The person at the serial console: standard input and output.
 *
 * A terminal on standard input is put into raw mode, and Ctrl-a becomes the key that speaks to
 * minivmm: x quits, d detaches, b sends a break, a sends Ctrl-a itself, ? lists them. Without a
 * terminal every byte goes through.
 *
 * Output never waits: it goes into a ring, and a thread of its own, which starts with the first
 * byte, writes it out. When the other end is so slow that the ring fills up, bytes are dropped and
 * a line in the output says how many.
 *
 * The terminal is restored by term_destroy, and when the program dies by a fatal signal of its own
 * making. (SIGKILL is the exception that nobody can catch: `reset` mends it.)
 */
#pragma once

#include "core/loop.h"

struct term;

/* On the loop's thread. */
struct term_handlers {
    /* Takes what fits and says how many; the rest is offered again after term_input_room(). */
    size_t (*input)(void *ctx, const uint8_t *bytes, size_t length);
    void (*quit)(void *ctx);
    void (*detach)(void *ctx);
    void (*send_break)(void *ctx);
    void *ctx;
};

int term_create(struct term **ret_term, struct loop *loop, const struct term_handlers *handlers,
                struct err *err) must_check;

/* Writes out what is in the ring, but waits for a stuck terminal no longer than a second. */
void term_destroy(struct term *term);

void term_write(struct term *term, const uint8_t *bytes, size_t length); /* (any thread) */
void term_input_room(struct term *term);                                 /* (any thread) */

/* 0, or -errno of what ended the output: the guest goes on unseen. (any thread) */
int term_output_error(struct term *term);

/* Raw mode again, after the program was stopped and continued (SIGCONT). NULL is fine. */
void term_renew(struct term *term);
