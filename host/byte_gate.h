/* SPDX-License-Identifier: MIT */
/*
 * Before a console: what the guest prints passes, or waits until somebody says that the world may
 * know of it; as frames do before an interface (netif_gate.h). Open at first: then it costs a lock
 * that nobody else wants.
 *
 * Bytes wait in the order in which they were written, each under the number of the span of time in
 * which it was. What a process that dies has held, is lost, also where its number was allowed in
 * the last moment: a twin that goes on in its place has printed these bytes already, as far as its
 * guest knows.
 *
 * How much may wait is bounded. Whoever can wait asks how much is taken and comes back when there
 * is room; a guest that does not look whether its line is busy fills a reserve behind that. Beyond
 * the reserve bytes are lost, and a line in their place says how many.
 */
#pragma once

#include "core/err.h"
#include <stddef.h>
#include <stdint.h>

enum {
    BYTE_GATE_MOST = 448 << 10,   /* no budget is larger */
    BYTE_GATE_RESERVE = 64 << 10, /* behind any budget */
};

struct byte_gate;

struct byte_gate_handlers {
    /* What leaves, in order, one call at a time. On the thread of who writes, or lets leave; must
     * neither block nor call the gate. */
    void (*output)(void *ctx, const uint8_t *bytes, size_t length);
    /* More is taken, after byte_gate_takes() has said 0: once. On the thread of who has let leave.
     * NULL: nobody asks. */
    void (*room)(void *ctx);
    void *ctx;
};

int byte_gate_create(struct byte_gate **ret_gate, const struct byte_gate_handlers *handlers,
                     struct err *err) must_check;
void byte_gate_destroy(struct byte_gate *gate); /* nobody is in a call; NULL is fine */

/*
 * Called when something waits that did not before: the first byte since the last byte_gate_mark.
 * From within write: must neither block nor call the gate. To be set while nobody writes.
 */
void byte_gate_watch(struct byte_gate *gate, void (*waits)(void *ctx), void *ctx);

/* All others: any thread. */
void byte_gate_write(struct byte_gate *gate, const uint8_t *bytes, size_t length);
size_t byte_gate_takes(struct byte_gate *gate); /* so many now; SIZE_MAX: any number */

/* From here on bytes wait, under this number, and the budget is what is taken of them. A hold that
 * follows an open may begin with any number. Held already: as mark. */
void byte_gate_hold(struct byte_gate *gate, uint64_t number, size_t budget);
/* Numbers only grow. */
void byte_gate_mark(struct byte_gate *gate, uint64_t number);

/* What they allow has left when they return. */
void byte_gate_release(struct byte_gate *gate, uint64_t number); /* of this one and all before */
void byte_gate_open(struct byte_gate *gate);                     /* all, and nothing waits more */
/* What waits is forgotten, and so is what comes, for good: nothing leaves once this returns. */
void byte_gate_shut(struct byte_gate *gate);

uint64_t byte_gate_held(struct byte_gate *gate); /* bytes that wait */
