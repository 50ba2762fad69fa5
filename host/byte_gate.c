/* SPDX-License-Identifier: MIT */
/*
 * One ring of bytes, whose positions count all bytes that ever waited, and a few spans, oldest
 * first: up to which position the bytes are of which number. A span for each byte would be thirty
 * times the byte of a serial port. Where there are more spans than places the last one grows: its
 * bytes wait longer than they have to, and none leaves early.
 *
 * Bytes leave on the thread that allows it: a console's hub takes them without waiting.
 */
#include "host/byte_gate.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIZE = BYTE_GATE_MOST + BYTE_GATE_RESERVE, SPANS = 64 };

enum mode { OPEN, HELD, SHUT };

struct span {
    uint64_t number;
    uint64_t end; /* a position */
};

struct byte_gate {
    struct byte_gate_handlers handlers;
    void (*waits)(void *ctx);
    void *waits_ctx;

    pthread_mutex_t lock; /* all below */
    enum mode mode;
    uint64_t number; /* of what is written now */
    uint64_t end;    /* bytes of lower numbers may leave */
    bool told;       /* that something waits, since the last mark */
    bool refused;    /* somebody waits for room */
    size_t budget;
    uint64_t head, tail; /* positions: of the next byte to come, and to leave */
    uint64_t lost;       /* bytes, behind all those in the ring */
    unsigned first, count;
    struct span spans[SPANS];
    uint8_t ring[SIZE];
};

static size_t used(const struct byte_gate *gate)
{
    return gate->head - gate->tail;
}

/* --- out -------------------------------------------------------------------------------------- */

static bool may_leave(const struct byte_gate *gate, uint64_t number)
{
    return gate->mode == OPEN || (gate->mode == HELD && number < gate->end);
}

static void emit_locked(struct byte_gate *gate, uint64_t end)
{
    while (gate->tail < end) {
        size_t at = gate->tail % SIZE, length = end - gate->tail;
        if (length > SIZE - at)
            length = SIZE - at;
        gate->handlers.output(gate->handlers.ctx, gate->ring + at, length);
        gate->tail += length;
    }
}

static void emit_lost_locked(struct byte_gate *gate)
{
    char line[80];
    int length = snprintf(line, sizeof(line), "\r\n[minivmm: %llu bytes were lost here]\r\n",
                          (unsigned long long)gate->lost);
    gate->lost = 0;
    gate->handlers.output(gate->handlers.ctx, (const uint8_t *)line, (size_t)length);
}

/* All that may. What is lost belongs to the last span. */
static void let_leave_locked(struct byte_gate *gate)
{
    while (gate->count && may_leave(gate, gate->spans[gate->first].number)) {
        emit_locked(gate, gate->spans[gate->first].end);
        gate->first = (gate->first + 1) % SPANS;
        gate->count--;
    }
    if (gate->lost && !gate->count)
        emit_lost_locked(gate);
}

/* True: who waits for room is to be told, without the lock. */
static bool take_room_locked(struct byte_gate *gate)
{
    bool room = gate->refused && (gate->mode != HELD || used(gate) < gate->budget);
    if (room)
        gate->refused = false;
    return room;
}

/* As the end of whatever may have made room. */
static void unlock(struct byte_gate *gate)
{
    bool room = take_room_locked(gate);
    pthread_mutex_unlock(&gate->lock);
    if (room && gate->handlers.room)
        gate->handlers.room(gate->handlers.ctx);
}

/* --- in --------------------------------------------------------------------------------------- */

/* The span of what is written now ends at the head. */
static void note_span_locked(struct byte_gate *gate)
{
    struct span *last = &gate->spans[(gate->first + gate->count - 1) % SPANS];
    if (gate->count == 0 || (last->number != gate->number && gate->count < SPANS))
        last = &gate->spans[(gate->first + gate->count++) % SPANS];
    *last = (struct span){.number = gate->number, .end = gate->head};
}

static void keep_locked(struct byte_gate *gate, const uint8_t *bytes, size_t length)
{
    size_t room = gate->lost ? 0 : SIZE - used(gate); /* who comes after lost ones is lost, too */
    size_t taken = length < room ? length : room;
    size_t at = gate->head % SIZE;
    size_t straight = taken < SIZE - at ? taken : SIZE - at;
    memcpy(gate->ring + at, bytes, straight);
    memcpy(gate->ring, bytes + straight, taken - straight);
    gate->head += taken;
    gate->lost += length - taken;
    note_span_locked(gate);
    if (gate->number < gate->end) {
        let_leave_locked(gate); /* its number was allowed before it came */
    } else if (!gate->told) {
        gate->told = true;
        if (gate->waits)
            gate->waits(gate->waits_ctx);
    }
}

void byte_gate_write(struct byte_gate *gate, const uint8_t *bytes, size_t length)
{
    if (!length)
        return;
    pthread_mutex_lock(&gate->lock);
    if (gate->mode == OPEN)
        gate->handlers.output(gate->handlers.ctx, bytes, length);
    else if (gate->mode == HELD)
        keep_locked(gate, bytes, length);
    pthread_mutex_unlock(&gate->lock);
}

size_t byte_gate_takes(struct byte_gate *gate)
{
    size_t takes = SIZE_MAX;
    pthread_mutex_lock(&gate->lock);
    if (gate->mode == HELD)
        takes = used(gate) < gate->budget ? gate->budget - used(gate) : 0;
    gate->refused |= takes == 0;
    pthread_mutex_unlock(&gate->lock);
    return takes;
}

/* --- the gate --------------------------------------------------------------------------------- */

void byte_gate_watch(struct byte_gate *gate, void (*waits)(void *ctx), void *ctx)
{
    pthread_mutex_lock(&gate->lock);
    gate->waits = waits;
    gate->waits_ctx = ctx;
    pthread_mutex_unlock(&gate->lock);
}

static void mark_locked(struct byte_gate *gate, uint64_t number)
{
    assert(number >= gate->number);
    gate->number = number;
    gate->told = false;
}

void byte_gate_mark(struct byte_gate *gate, uint64_t number)
{
    pthread_mutex_lock(&gate->lock);
    if (gate->mode == HELD)
        mark_locked(gate, number);
    pthread_mutex_unlock(&gate->lock);
}

void byte_gate_hold(struct byte_gate *gate, uint64_t number, size_t budget)
{
    pthread_mutex_lock(&gate->lock);
    if (gate->mode == HELD) {
        mark_locked(gate, number);
    } else if (gate->mode == OPEN) { /* so nothing waits */
        gate->mode = HELD;
        gate->number = number;
        gate->end = 0;
        gate->told = false;
        gate->budget = budget < BYTE_GATE_MOST ? budget : BYTE_GATE_MOST;
        gate->budget += !budget; /* or who waits for room would wait for ever */
    }
    pthread_mutex_unlock(&gate->lock);
}

void byte_gate_release(struct byte_gate *gate, uint64_t number)
{
    uint64_t end = number < UINT64_MAX ? number + 1 : number;
    pthread_mutex_lock(&gate->lock);
    if (gate->end < end)
        gate->end = end;
    let_leave_locked(gate);
    unlock(gate);
}

void byte_gate_open(struct byte_gate *gate)
{
    pthread_mutex_lock(&gate->lock);
    if (gate->mode == HELD) {
        gate->mode = OPEN;
        let_leave_locked(gate);
    }
    unlock(gate);
}

void byte_gate_shut(struct byte_gate *gate)
{
    pthread_mutex_lock(&gate->lock);
    gate->mode = SHUT;
    gate->tail = gate->head;
    gate->count = 0;
    gate->lost = 0;
    unlock(gate);
}

uint64_t byte_gate_held(struct byte_gate *gate)
{
    pthread_mutex_lock(&gate->lock);
    uint64_t held = used(gate);
    pthread_mutex_unlock(&gate->lock);
    return held;
}

int byte_gate_create(struct byte_gate **ret_gate, const struct byte_gate_handlers *handlers,
                     struct err *err)
{
    struct byte_gate *gate = calloc(1, sizeof(*gate));
    if (!gate)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot make a gate before the console");
    gate->handlers = *handlers;
    pthread_mutex_init(&gate->lock, NULL);
    *ret_gate = gate;
    return 0;
}

void byte_gate_destroy(struct byte_gate *gate)
{
    if (!gate)
        return;
    pthread_mutex_destroy(&gate->lock);
    free(gate);
}
