/* SPDX-License-Identifier: MIT */
/*
 * The console of a VM, to which any number of people may be attached.
 *
 * What the guest writes goes into a ring of HUB_RING bytes, and from there to each who is attached,
 * at his own pace: who is too slow loses bytes and is told how many, and nobody waits for him. A
 * new one gets what the ring still has first, so he sees the boot. The same bytes go to console.log
 * in the VM's folder, by a thread of its own: two files in turn, so that it never grows beyond
 * HUB_LOG_MAX. Keys of all go to the guest.
 */
#pragma once

#include "core/loop.h"

enum { HUB_RING = 256 << 10, HUB_LOG_MAX = 1 << 20, HUB_MAX_CLIENTS = 16 };

struct console_hub;

struct console_hub_handlers {
    /* Takes what fits and says how many; the rest is offered again after console_hub_input_room().
     * On the main loop. */
    size_t (*input)(void *ctx, const uint8_t *bytes, size_t length);
    void *ctx;
};

/* folder_fd -1: no log; it stays the caller's. A log that cannot be written is no error here. */
int console_hub_create(struct console_hub **ret_hub, struct loop *loop, int folder_fd,
                       const struct console_hub_handlers *handlers, struct err *err) must_check;
/* What is still in the ring for the log is written; clients get what their sockets take. No thread
 * may write any more. */
void console_hub_destroy(struct console_hub *hub);

void console_hub_write(struct console_hub *hub, const uint8_t *bytes,
                       size_t length);                /* (any thread), never waits */
void console_hub_input_room(struct console_hub *hub); /* (any thread) */

/* Why the log cannot be written at present, -errno, or 0. It is tried again every few seconds. Ask
 * now and then: it is for one warning. (any thread) */
int console_hub_log_error(struct console_hub *hub);

/* A connected stream socket; the hub's from now on, also where this fails (its other end reads
 * why). `early` are bytes that came before. */
int console_hub_attach(struct console_hub *hub, int fd, const void *early, size_t early_length,
                       struct err *err) must_check;
unsigned console_hub_clients(struct console_hub *hub);
