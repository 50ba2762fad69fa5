/* SPDX-License-Identifier: MIT */
/* A console for the guest (virtio 1.2, section 5.3): one port, hvc0 in Linux. */
#pragma once

#include "virtio/virtio.h"

struct console;

/* The other end. Both are called with the device's lock held: they neither block nor call back. */
struct console_host {
    void (*output)(void *ctx, const uint8_t *bytes, size_t length); /* what the guest has written */
    /* The console takes input again, after a console_input() that took less than it was given.
     * Once per refusal, on the main loop. */
    void (*input_room)(void *ctx);
    /* How many bytes the host takes now; after 0 what the guest writes stays in its queue until
     * console_output_room(). Called as output is. NULL: always any number. */
    size_t (*output_takes)(void *ctx);
    void *ctx;
};

int console_create(struct console **ret_console, const struct virtio_world *world,
                   const struct console_host *host, struct err *err) must_check;
struct virtio *console_virtio(struct console *console);

/*
 * Takes what fits and says how many: none while the device is paused or has no driver. What was
 * taken waits for the guest in the device's state. (any thread but from within the host's handlers)
 */
size_t console_input(struct console *console, const uint8_t *bytes, size_t length);
/* The host takes bytes again. (any thread) */
void console_output_room(struct console *console);
bool console_listens(struct console *console); /* it runs, and has a driver (any thread) */

/* The terminal's size; 0 by 0, the size of a new console, is unknown. (any thread) */
void console_set_size(struct console *console, unsigned columns, unsigned rows);
