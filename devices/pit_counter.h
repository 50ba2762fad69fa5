/* SPDX-License-Identifier: MIT */
/*
 * One counter of an 8254, as a function of time: pure arithmetic, for every value of its fields.
 *
 * A counter does not run. It remembers the tick at which its count was loaded; its value, its
 * output and its next rise follow from that and from two things the caller says:
 *
 *   now   the present tick, of 1/PIT_HZ s. It never goes back, and begins with PIT_TICK_ZERO: a
 *         period may lie before it, and tick 0 can mean "none".
 *   gate  the level at the counter's gate. A change of it is told by pit_counter_gate_rises and
 *         _falls at the tick at which it happens.
 *
 * At a new tick pit_counter_settle comes first; after a load, pit_counter_bound comes before it.
 * Locks are the caller's.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum {
    PIT_CONTROL_BCD = 1 << 0,
    PIT_CONTROL_BITS = 0x3f, /* what a counter keeps of a control word */

    PIT_ACCESS_LATCH = 0, /* bits 5:4: no control word at all, but a command */
    PIT_ACCESS_LOW = 1,
    PIT_ACCESS_HIGH = 2,
    PIT_ACCESS_BOTH = 3,

    PIT_LONGEST = 1 << 17, /* ticks: no event lies further ahead than two full counts */
};

#define PIT_TICK_ZERO (1ull << 20)

enum pit_phase {
    PIT_IDLE,  /* a control word came, and no count yet */
    PIT_ARMED, /* modes 1 and 5: waits for the gate to rise */
    PIT_COUNTING,
};

/* Part of the PIT's state, saved as it is. */
struct pit_counter {
    uint64_t start;     /* the tick at which the counting element was loaded */
    uint64_t held;      /* how far it had come when the gate stopped it */
    uint64_t reload_at; /* the tick at which `next` takes over (UINT64_MAX: when the gate rises);
                           0: no new count waits */
    uint16_t count;     /* as written: 0 is the largest */
    uint16_t next;
    uint16_t latch;
    uint8_t control; /* bits 5:0 of the control word */
    uint8_t phase;
    uint8_t low;    /* the low byte of a count whose high byte is still to come */
    uint8_t status; /* latched by read-back */
    bool status_latched;
    bool count_latched;
    bool read_high; /* which byte is next, for PIT_ACCESS_BOTH */
    bool write_high;
    uint8_t reserved[2];
};

unsigned pit_counter_mode(const struct pit_counter *counter); /* 0 to 5 */
bool pit_counter_is_periodic(const struct pit_counter *counter);

/* The count in force, in ticks: 1 at least, PIT_LONGEST / 2 at most. */
uint32_t pit_counter_length(const struct pit_counter *counter);

/* The level of OUT. */
bool pit_counter_output(const struct pit_counter *counter, bool gate, uint64_t now);

/* The first rise of OUT after a load, for a gate that stays up; 0: none without a trigger. */
uint64_t pit_counter_first_rise(const struct pit_counter *counter);

/*
 * Lets a waiting count take over when its time has come. Returns whether it did; then *ret_rise is
 * the first rise of OUT since: the moment of taking over, or the end of the new low half.
 */
bool pit_counter_settle(struct pit_counter *counter, bool gate, uint64_t now, uint64_t *ret_rise);

/* A control word: nothing counts, and nothing is latched, until a count is written. */
void pit_counter_set_control(struct pit_counter *counter, uint8_t control);

/* A byte at the counter's port. Returns whether that makes a count; it is in force now, or waits
 * (reload_at). In mode 0 the first of two bytes already takes OUT down. */
bool pit_counter_write(struct pit_counter *counter, bool gate, uint64_t now, uint8_t value);
uint8_t pit_counter_read(struct pit_counter *counter, bool gate, uint64_t now);

/* For the next reads. What is latched already, and not read yet, stays. */
void pit_counter_latch_count(struct pit_counter *counter, bool gate, uint64_t now);
void pit_counter_latch_status(struct pit_counter *counter, bool gate, uint64_t now);

void pit_counter_gate_rises(struct pit_counter *counter, uint64_t now);
void pit_counter_gate_falls(struct pit_counter *counter, uint64_t now);

/*
 * For a counter that was loaded from outside: takes back ticks that cannot be, such as a count that
 * begins in a year, or one that waits in a mode that never waits. Afterwards reload_at lies at most
 * PIT_LONGEST ahead of now, unless it waits for the gate.
 */
void pit_counter_bound(struct pit_counter *counter, uint64_t now);
