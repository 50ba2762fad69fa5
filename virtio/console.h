/* SPDX-License-Identifier: MIT */
/* A console for the guest (virtio 1.2, section 5.3): one port, hvc0 in Linux. */
#pragma once

#include "virtio/virtio.h"

struct console;

/* The other end, as devices/serial.h has it: never blocks. */
struct console_host {
    void (*output)(void *ctx, const uint8_t *bytes, size_t length); /* device's lock held */
    void (*input_room)(void *ctx); /* after a console_input() that took less than it was given */
    void *ctx;
};

int console_create(struct console **ret_console, const struct virtio_world *world,
                   const struct console_host *host, struct err *err) must_check;
struct virtio *console_virtio(struct console *console);

/* Takes what fits and says how many. (any thread but from within the host's handlers) */
size_t console_input(struct console *console, const uint8_t *bytes, size_t length);
void console_set_size(struct console *console, unsigned columns, unsigned rows); /* (any thread) */
