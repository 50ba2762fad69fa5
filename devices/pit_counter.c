/* SPDX-License-Identifier: MIT */
/* Intel 8254 (231164): write operations, read operations, mode definitions. */
#include "devices/pit_counter.h"

enum {
    STATUS_OUT = 1 << 7,
    STATUS_NULL = 1 << 6,
};

#define ON_TRIGGER UINT64_MAX /* a reload that waits for the gate */

unsigned pit_counter_mode(const struct pit_counter *counter)
{
    unsigned mode = counter->control >> 1 & 7;
    return mode > 5 ? mode - 4 : mode; /* 6 and 7 are other names of 2 and 3 */
}

bool pit_counter_is_periodic(const struct pit_counter *counter)
{
    return pit_counter_mode(counter) == 2 || pit_counter_mode(counter) == 3;
}

/* Modes 1 and 5 use the rise of the gate, the others its level. */
static bool is_triggered(const struct pit_counter *counter)
{
    return pit_counter_mode(counter) == 1 || pit_counter_mode(counter) == 5;
}

static unsigned access_of(const struct pit_counter *counter)
{
    return counter->control >> 4;
}

static uint32_t modulus(const struct pit_counter *counter)
{
    return counter->control & PIT_CONTROL_BCD ? 10000 : 0x10000;
}

/* A count as it was written, in ticks: never 0. Digits above 9 count as what they are. */
static uint32_t ticks_of(const struct pit_counter *counter, uint16_t count)
{
    if (count == 0)
        return modulus(counter);
    if (!(counter->control & PIT_CONTROL_BCD))
        return count;
    return (count >> 12) * 1000u + (count >> 8 & 15) * 100u + (count >> 4 & 15) * 10u +
           (count & 15);
}

static uint16_t count_of(const struct pit_counter *counter, uint32_t ticks)
{
    ticks %= modulus(counter);
    if (!(counter->control & PIT_CONTROL_BCD))
        return (uint16_t)ticks;
    return (uint16_t)(ticks / 1000 << 12 | ticks / 100 % 10 << 8 | ticks / 10 % 10 << 4 |
                      ticks % 10);
}

uint32_t pit_counter_length(const struct pit_counter *counter)
{
    return ticks_of(counter, counter->count);
}

/* Mode 3 is high for the longer half. */
static uint32_t high_part(uint32_t length)
{
    return (length + 1) / 2;
}

static bool is_held(const struct pit_counter *counter, bool gate)
{
    return !gate && !is_triggered(counter);
}

static uint64_t elapsed(const struct pit_counter *counter, bool gate, uint64_t now)
{
    if (is_held(counter, gate))
        return counter->held;
    return now > counter->start ? now - counter->start : 0;
}

bool pit_counter_output(const struct pit_counter *counter, bool gate, uint64_t now)
{
    bool counting = counter->phase == PIT_COUNTING;
    uint64_t at = elapsed(counter, gate, now);
    uint32_t length = pit_counter_length(counter);
    switch (pit_counter_mode(counter)) {
    case 0:
        return counting && at >= length;
    case 1:
        return !counting || at >= length;
    case 2:
        return !counting || !gate || at % length != length - 1;
    case 3:
        return !counting || !gate || at % length < high_part(length);
    default: /* 4 and 5: one tick low, at the end */
        return !counting || at != length;
    }
}

static uint16_t value_of(const struct pit_counter *counter, bool gate, uint64_t now)
{
    uint32_t length = pit_counter_length(counter);
    if (counter->phase != PIT_COUNTING)
        return count_of(counter, length);
    uint64_t at = elapsed(counter, gate, now);
    if (!pit_counter_is_periodic(counter)) { /* goes on below 0 */
        uint32_t wrap = modulus(counter);
        return count_of(counter, length % wrap + wrap - (uint32_t)(at % wrap));
    }
    uint32_t in_period = (uint32_t)(at % length);
    if (pit_counter_mode(counter) == 2)
        return count_of(counter, length - in_period);
    /* Mode 3 counts down by two, from an even number, once for each half. */
    uint32_t in_half = in_period < high_part(length) ? in_period : in_period - high_part(length);
    return count_of(counter, (length & ~1u) - 2 * in_half);
}

static uint8_t status_of(const struct pit_counter *counter, bool gate, uint64_t now)
{
    bool null = counter->phase == PIT_IDLE || counter->reload_at || now < counter->start;
    return counter->control | (null ? STATUS_NULL : 0) |
           (pit_counter_output(counter, gate, now) ? STATUS_OUT : 0);
}

uint64_t pit_counter_first_rise(const struct pit_counter *counter)
{
    if (is_triggered(counter))
        return 0;
    return counter->start + pit_counter_length(counter) + (pit_counter_mode(counter) == 4);
}

/* The next clock pulse moves the count into the counting element. */
static void load(struct pit_counter *counter, uint16_t count, uint64_t now)
{
    counter->count = count;
    counter->start = now + 1;
    counter->held = 0;
    counter->reload_at = 0;
    counter->phase = PIT_COUNTING;
}

/* When a new count takes over from the one that runs: at the end of a period, or of a half. */
static uint64_t end_of_part(const struct pit_counter *counter, uint64_t now)
{
    uint32_t length = pit_counter_length(counter);
    uint64_t at = elapsed(counter, true, now);
    uint64_t part = length - at % length;
    if (pit_counter_mode(counter) == 3 && at % length < high_part(length))
        part = high_part(length) - at % length;
    return counter->start + at + part;
}

bool pit_counter_settle(struct pit_counter *counter, bool gate, uint64_t now, uint64_t *ret_rise)
{
    uint64_t boundary = counter->reload_at;
    if (!boundary || now < boundary || !pit_counter_is_periodic(counter) || !gate)
        return false;
    bool at_fall = (boundary - counter->start) % pit_counter_length(counter) != 0;
    counter->count = counter->next;
    counter->start = boundary - (at_fall ? high_part(pit_counter_length(counter)) : 0);
    counter->reload_at = 0;
    *ret_rise = at_fall ? pit_counter_first_rise(counter) : boundary;
    return true;
}

static void take_count(struct pit_counter *counter, bool gate, uint64_t now, uint16_t count)
{
    if (!is_triggered(counter) &&
        (!pit_counter_is_periodic(counter) || counter->phase == PIT_IDLE)) {
        load(counter, count, now);
        return;
    }
    counter->next = count;
    counter->reload_at = pit_counter_is_periodic(counter) && gate ? end_of_part(counter, now)
                                                                  : ON_TRIGGER;
    if (counter->phase == PIT_IDLE)
        counter->phase = PIT_ARMED;
}

void pit_counter_set_control(struct pit_counter *counter, uint8_t control)
{
    /* The count stays for whoever reads it before a new one comes. */
    *counter = (struct pit_counter){.control = control & PIT_CONTROL_BITS, .count = counter->count};
}

bool pit_counter_write(struct pit_counter *counter, bool gate, uint64_t now, uint8_t value)
{
    uint16_t count = value;
    if (pit_counter_mode(counter) == 0)
        counter->phase = PIT_IDLE;
    if (access_of(counter) == PIT_ACCESS_BOTH) {
        counter->write_high = !counter->write_high;
        if (counter->write_high) {
            counter->low = value;
            return false;
        }
        count = (uint16_t)(value << 8 | counter->low);
    } else if (access_of(counter) == PIT_ACCESS_HIGH) {
        count = (uint16_t)(value << 8);
    }
    take_count(counter, gate, now, count);
    return true;
}

uint8_t pit_counter_read(struct pit_counter *counter, bool gate, uint64_t now)
{
    if (counter->status_latched) {
        counter->status_latched = false;
        return counter->status;
    }
    uint16_t value = counter->count_latched ? counter->latch : value_of(counter, gate, now);
    bool high = access_of(counter) == PIT_ACCESS_HIGH;
    if (access_of(counter) == PIT_ACCESS_BOTH) {
        high = counter->read_high;
        counter->read_high = !high;
    }
    if (high || access_of(counter) == PIT_ACCESS_LOW)
        counter->count_latched = false;
    return high ? value >> 8 : value & 0xff;
}

void pit_counter_latch_count(struct pit_counter *counter, bool gate, uint64_t now)
{
    if (counter->count_latched)
        return;
    counter->latch = value_of(counter, gate, now);
    counter->count_latched = true;
}

void pit_counter_latch_status(struct pit_counter *counter, bool gate, uint64_t now)
{
    if (counter->status_latched)
        return;
    counter->status = status_of(counter, gate, now);
    counter->status_latched = true;
}

void pit_counter_gate_rises(struct pit_counter *counter, uint64_t now)
{
    if (counter->phase == PIT_IDLE)
        return;
    if (is_triggered(counter) || pit_counter_is_periodic(counter))
        load(counter, counter->reload_at ? counter->next : counter->count, now);
    else
        counter->start = now - counter->held;
}

void pit_counter_gate_falls(struct pit_counter *counter, uint64_t now)
{
    if (is_triggered(counter))
        return;
    counter->held = elapsed(counter, true, now);
    if (counter->reload_at)
        counter->reload_at = ON_TRIGGER;
}

void pit_counter_bound(struct pit_counter *counter, uint64_t now)
{
    if (counter->start > now + 1)
        counter->start = now + 1;
    if (counter->reload_at && is_triggered(counter))
        counter->reload_at = ON_TRIGGER;
    else if (!pit_counter_is_periodic(counter))
        counter->reload_at = 0;
    else if (counter->reload_at != ON_TRIGGER && counter->reload_at > now + PIT_LONGEST)
        counter->reload_at = now + PIT_LONGEST;
}
