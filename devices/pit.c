/* SPDX-License-Identifier: MIT */
/*
 * Intel 8254 (231164) at 0x40-0x43, and NMI status and control (port B) at 0x61 as in the 82371AB.
 *
 *   0x40-0x42  counters 0-2     0x43  control word (write only: reads all ones)
 *   0x61       0: gate of counter 2, 1: speaker, 2-3: NMI enables (kept, no effect),
 *              4: toggles with every memory refresh, 5: output of counter 2, 6-7: NMI sources (0)
 *
 * Counters do not run: they are functions of guest time. A counter remembers the tick at which its
 * count was loaded; reads, outputs and the next interrupt follow from that. Ticks are derived from
 * guest time as a whole (never summed up), so nothing drifts, and since guest time travels with the
 * machine's state, a count goes on after a load exactly where it stood.
 *
 * Counter 0 and its interrupts:
 *
 *   - A tick is a rising edge of OUT, made by taking the line down and up again. The low half of
 *     mode 3 is not shown on the line: nobody can tell, and it saves every second wake-up.
 *   - Ticks that are late (the host was busy) are owed and caught up with: guests that count ticks
 *     would lose time otherwise. But not at once, because edges that come before the guest has
 *     taken the last one merge into one: the pace is at most twice the programmed rate.
 *   - At most one second of ticks is owed. A guest that stood still for longer has a hole in its
 *     time anyway, and would be flooded for as long as it slept.
 *   - No two ticks of a periodic mode are closer than 200 us (as in KVM's own PIT). A guest that
 * asks for a million a second gets 5000 and cannot keep the main loop from its work.
 */
#include "devices/pit.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

enum {
    COUNTERS = 3,
    GATED = 2, /* the counter whose gate is at port 0x61 */

    PORT_CONTROL = 3,
    SELECT_READ_BACK = 3,
    READ_BACK_NO_COUNT = 1 << 5, /* these two are active low */
    READ_BACK_NO_STATUS = 1 << 4,

    CONTROL_BITS = 0x3f,
    CONTROL_BCD = 1 << 0,
    ACCESS_LATCH = 0,
    ACCESS_LOW = 1,
    ACCESS_HIGH = 2,
    ACCESS_BOTH = 3,
    STATUS_OUT = 1 << 7,
    STATUS_NULL = 1 << 6,

    PORT_B_GATE = 1 << 0,
    PORT_B_WRITABLE = 0xf,
    PORT_B_REFRESH = 1 << 4,
    PORT_B_OUT = 1 << 5,
    REFRESH_NS = 15085,

    MIN_GAP = PIT_HZ / 5000, /* ticks between two interrupts */
    MAX_OWED = PIT_HZ,
    LONGEST = 1 << 17, /* no event lies further ahead than two full counts */
};

/* Guest time 0 is this tick: a phase may lie before it, and tick 0 can mean "none". */
#define TICK_ZERO  (1ull << 20)
#define ON_TRIGGER UINT64_MAX /* a reload that waits for the gate */

enum phase {
    IDLE,  /* a control word came, and no count yet */
    ARMED, /* modes 1 and 5: waits for the gate to rise */
    COUNTING,
};

struct pit_counter_state {
    uint64_t start;     /* the tick at which the counting element was loaded */
    uint64_t held;      /* how far it had come when the gate stopped it */
    uint64_t reload_at; /* the tick at which `next` takes over; 0: no new count waits */
    uint16_t count;     /* as written: 0 is the largest */
    uint16_t next;
    uint16_t latch;
    uint8_t control; /* bits 5:0 of the control word */
    uint8_t phase;
    uint8_t low;    /* the low byte of a count whose high byte is still to come */
    uint8_t status; /* latched by read-back */
    bool status_latched;
    bool count_latched;
    bool read_high; /* which byte is next, for ACCESS_BOTH */
    bool write_high;
    uint8_t reserved[2];
};

struct pit_state {
    struct pit_counter_state counters[COUNTERS];
    uint64_t due;        /* the tick of the oldest rise of counter 0 that is still owed; 0: none */
    uint64_t not_before; /* the earliest tick for it, by the bounds above */
    uint8_t port_b;
    bool line; /* counter 0's OUT, as the interrupt line has it */
    uint8_t reserved[6];
};

struct pit {
    struct device device;
    pthread_mutex_t lock;
    struct bus *ports;
    unsigned ranges; /* how many of them are on the bus */
    const struct guest_clock *clock;
    struct irq_line line;
    bool running; /* between resume and pause: the timer may be armed */
    struct loop_timer timer;
    uint64_t armed_for; /* its deadline, 0 when idle */
    struct pit_state state;
};

/* One counter, as a function of time. `gate` is the level at its gate, `now` the present tick. */

static unsigned mode_of(const struct pit_counter_state *counter)
{
    unsigned mode = counter->control >> 1 & 7;
    return mode > 5 ? mode - 4 : mode; /* 6 and 7 are other names of 2 and 3 */
}

static bool is_periodic(const struct pit_counter_state *counter)
{
    return mode_of(counter) == 2 || mode_of(counter) == 3;
}

/* Modes 1 and 5 use the rise of the gate, the others its level. */
static bool is_triggered(const struct pit_counter_state *counter)
{
    return mode_of(counter) == 1 || mode_of(counter) == 5;
}

static unsigned access_of(const struct pit_counter_state *counter)
{
    return counter->control >> 4;
}

static uint32_t modulus(const struct pit_counter_state *counter)
{
    return counter->control & CONTROL_BCD ? 10000 : 0x10000;
}

/* A count as it was written, in ticks: never 0. Digits above 9 count as what they are. */
static uint32_t ticks_of(const struct pit_counter_state *counter, uint16_t count)
{
    if (count == 0)
        return modulus(counter);
    if (!(counter->control & CONTROL_BCD))
        return count;
    return (count >> 12) * 1000u + (count >> 8 & 15) * 100u + (count >> 4 & 15) * 10u +
           (count & 15);
}

static uint16_t count_of(const struct pit_counter_state *counter, uint32_t ticks)
{
    ticks %= modulus(counter);
    if (!(counter->control & CONTROL_BCD))
        return (uint16_t)ticks;
    return (uint16_t)(ticks / 1000 << 12 | ticks / 100 % 10 << 8 | ticks / 10 % 10 << 4 |
                      ticks % 10);
}

static uint32_t length_of(const struct pit_counter_state *counter)
{
    return ticks_of(counter, counter->count);
}

/* Mode 3 is high for the longer half. */
static uint32_t high_part(uint32_t length)
{
    return (length + 1) / 2;
}

static bool is_held(const struct pit_counter_state *counter, bool gate)
{
    return !gate && !is_triggered(counter);
}

static uint64_t elapsed(const struct pit_counter_state *counter, bool gate, uint64_t now)
{
    if (is_held(counter, gate))
        return counter->held;
    return now > counter->start ? now - counter->start : 0;
}

static bool output_of(const struct pit_counter_state *counter, bool gate, uint64_t now)
{
    bool counting = counter->phase == COUNTING;
    uint64_t at = elapsed(counter, gate, now);
    uint32_t length = length_of(counter);
    switch (mode_of(counter)) {
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

static uint16_t value_of(const struct pit_counter_state *counter, bool gate, uint64_t now)
{
    uint32_t length = length_of(counter);
    if (counter->phase != COUNTING)
        return count_of(counter, length);
    uint64_t at = elapsed(counter, gate, now);
    if (!is_periodic(counter)) { /* goes on below 0 */
        uint32_t wrap = modulus(counter);
        return count_of(counter, length % wrap + wrap - (uint32_t)(at % wrap));
    }
    uint32_t in_period = (uint32_t)(at % length);
    if (mode_of(counter) == 2)
        return count_of(counter, length - in_period);
    /* Mode 3 counts down by two, from an even number, once for each half. */
    uint32_t in_half = in_period < high_part(length) ? in_period : in_period - high_part(length);
    return count_of(counter, (length & ~1u) - 2 * in_half);
}

static uint8_t status_of(const struct pit_counter_state *counter, bool gate, uint64_t now)
{
    bool null = counter->phase == IDLE || counter->reload_at || now < counter->start;
    return counter->control | (null ? STATUS_NULL : 0) |
           (output_of(counter, gate, now) ? STATUS_OUT : 0);
}

/* The first rise of OUT after a load, for a gate that stays up; 0: none without a trigger. */
static uint64_t first_rise(const struct pit_counter_state *counter)
{
    if (is_triggered(counter))
        return 0;
    return counter->start + length_of(counter) + (mode_of(counter) == 4);
}

/* The next clock pulse moves the count into the counting element. */
static void load(struct pit_counter_state *counter, uint16_t count, uint64_t now)
{
    counter->count = count;
    counter->start = now + 1;
    counter->held = 0;
    counter->reload_at = 0;
    counter->phase = COUNTING;
}

/* When a new count takes over from the one that runs: at the end of a period, or of a half. */
static uint64_t end_of_part(const struct pit_counter_state *counter, uint64_t now)
{
    uint32_t length = length_of(counter);
    uint64_t at = elapsed(counter, true, now);
    uint64_t part = length - at % length;
    if (mode_of(counter) == 3 && at % length < high_part(length))
        part = high_part(length) - at % length;
    return counter->start + at + part;
}

/* Lets a waiting count take over when its time has come. Returns whether it did. */
static bool settle(struct pit_counter_state *counter, bool gate, uint64_t now)
{
    if (!counter->reload_at || now < counter->reload_at || !is_periodic(counter) || !gate)
        return false;
    bool at_fall = (counter->reload_at - counter->start) % length_of(counter) != 0;
    counter->count = counter->next;
    counter->start = counter->reload_at - (at_fall ? high_part(length_of(counter)) : 0);
    counter->reload_at = 0;
    return true;
}

static void take_count(struct pit_counter_state *counter, bool gate, uint64_t now, uint16_t count)
{
    if (!is_triggered(counter) && (!is_periodic(counter) || counter->phase == IDLE)) {
        load(counter, count, now);
        return;
    }
    counter->next = count;
    counter->reload_at = is_periodic(counter) && gate ? end_of_part(counter, now) : ON_TRIGGER;
    if (counter->phase == IDLE)
        counter->phase = ARMED;
}

static void gate_rises(struct pit_counter_state *counter, uint64_t now)
{
    if (counter->phase == IDLE)
        return;
    if (is_triggered(counter) || is_periodic(counter))
        load(counter, counter->reload_at ? counter->next : counter->count, now);
    else
        counter->start = now - counter->held;
}

static void gate_falls(struct pit_counter_state *counter, uint64_t now)
{
    if (is_triggered(counter))
        return;
    counter->held = elapsed(counter, true, now);
    if (counter->reload_at)
        counter->reload_at = ON_TRIGGER;
}

/* Time. */

static uint64_t now_of(const struct pit *pit)
{
    return TICK_ZERO + clock_scale(guest_clock_now(pit->clock), PIT_HZ, NS_PER_SEC);
}

/* A moment at which the tick has come: rounded up, so that a timer never fires for nothing. */
static uint64_t guest_ns_of(uint64_t tick)
{
    return clock_scale(tick - TICK_ZERO, NS_PER_SEC, PIT_HZ) + 1;
}

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* Counter 0: what it owes, and the timer that pays. */

static void set_line_locked(struct pit *pit, bool level)
{
    pit->state.line = level;
    irq_line_set(&pit->line, level);
}

static void expect_locked(struct pit *pit, uint64_t tick)
{
    pit->state.due = tick;
    pit->state.not_before = 0;
}

static bool gate_of(const struct pit *pit, unsigned index)
{
    return index != GATED || pit->state.port_b & PORT_B_GATE;
}

static void settle_locked(struct pit *pit, uint64_t now)
{
    for (unsigned i = 0; i < COUNTERS; i++) {
        struct pit_counter_state *counter = &pit->state.counters[i];
        uint64_t boundary = counter->reload_at;
        if (!settle(counter, gate_of(pit, i), now) || i != 0)
            continue;
        /* The boundary is a rise itself, unless it was the end of a high half. */
        bool rise = counter->start == boundary;
        expect_locked(pit, rise ? boundary : first_rise(counter));
    }
}

/* Drops what is owed beyond the bound, in whole periods. */
static void forgive_locked(struct pit *pit, uint64_t now, uint32_t length)
{
    uint64_t owed = now - pit->state.due;
    if (owed > MAX_OWED)
        pit->state.due += (owed - MAX_OWED + length - 1) / length * length;
}

static void run_locked(struct pit *pit, uint64_t now)
{
    struct pit_state *state = &pit->state;
    settle_locked(pit, now);
    if (!state->due || now < later(state->due, state->not_before))
        return;
    uint32_t length = length_of(&state->counters[0]);
    bool periodic = is_periodic(&state->counters[0]);
    if (periodic)
        forgive_locked(pit, now, length);
    set_line_locked(pit, false);
    set_line_locked(pit, true);
    state->due = periodic ? state->due + length : 0;
    state->not_before = periodic ? now + later(length / 2, MIN_GAP) : 0;
}

/* Arms the timer for what is owed next. */
static void schedule_locked(struct pit *pit)
{
    if (!pit->running || !pit->clock->running)
        return;
    uint64_t deadline = 0;
    if (pit->state.due) {
        uint64_t tick = later(later(pit->state.due, pit->state.not_before), TICK_ZERO);
        /* A new count may take over before, and have its first rise earlier. */
        uint64_t reload_at = pit->state.counters[0].reload_at;
        if (reload_at && reload_at < tick)
            tick = later(reload_at, TICK_ZERO);
        deadline = guest_clock_to_host(pit->clock, guest_ns_of(tick));
    }
    if (deadline == pit->armed_for)
        return;
    if (!deadline)
        loop_timer_cancel(&pit->timer);
    else if (loop_timer_arm(&pit->timer, deadline) < 0)
        deadline = 0; /* no memory: the next access to a register tries again */
    pit->armed_for = deadline;
}

static void handle_timer(void *arg)
{
    struct pit *pit = arg;
    pthread_mutex_lock(&pit->lock);
    if (pit->running) { /* else a pause came between the firing and the lock */
        pit->armed_for = 0;
        run_locked(pit, now_of(pit));
        schedule_locked(pit);
    }
    pthread_mutex_unlock(&pit->lock);
}

void pit_run(struct pit *pit)
{
    pthread_mutex_lock(&pit->lock);
    run_locked(pit, now_of(pit));
    schedule_locked(pit);
    pthread_mutex_unlock(&pit->lock);
}

/* Registers. */

static void write_control_locked(struct pit *pit, unsigned index, uint8_t value)
{
    struct pit_counter_state *counter = &pit->state.counters[index];
    /* The count stays for whoever reads it before a new one comes. */
    *counter = (struct pit_counter_state){.control = value & CONTROL_BITS, .count = counter->count};
    if (index == 0) {
        expect_locked(pit, 0);
        set_line_locked(pit, mode_of(counter) != 0);
    }
}

static void latch_count_locked(struct pit *pit, unsigned index, uint64_t now)
{
    struct pit_counter_state *counter = &pit->state.counters[index];
    if (counter->count_latched) /* the first latch holds until it has been read */
        return;
    counter->latch = value_of(counter, gate_of(pit, index), now);
    counter->count_latched = true;
}

static void latch_status_locked(struct pit *pit, unsigned index, uint64_t now)
{
    struct pit_counter_state *counter = &pit->state.counters[index];
    if (counter->status_latched)
        return;
    counter->status = status_of(counter, gate_of(pit, index), now);
    counter->status_latched = true;
}

static void write_command_locked(struct pit *pit, uint8_t value, uint64_t now)
{
    unsigned select = value >> 6;
    if (select != SELECT_READ_BACK) {
        if ((value >> 4 & 3) == ACCESS_LATCH)
            latch_count_locked(pit, select, now);
        else
            write_control_locked(pit, select, value);
        return;
    }
    for (unsigned i = 0; i < COUNTERS; i++) {
        if (!(value & 2u << i))
            continue;
        if (!(value & READ_BACK_NO_COUNT))
            latch_count_locked(pit, i, now);
        if (!(value & READ_BACK_NO_STATUS))
            latch_status_locked(pit, i, now);
    }
}

/* In mode 0 the first of two bytes already stops the count and takes OUT down. */
static void begin_count_locked(struct pit *pit, unsigned index)
{
    struct pit_counter_state *counter = &pit->state.counters[index];
    if (mode_of(counter) != 0)
        return;
    counter->phase = IDLE;
    if (index == 0) {
        expect_locked(pit, 0);
        set_line_locked(pit, false);
    }
}

static void write_count_locked(struct pit *pit, unsigned index, uint8_t value, uint64_t now)
{
    struct pit_counter_state *counter = &pit->state.counters[index];
    uint16_t count = value;
    if (access_of(counter) == ACCESS_BOTH) {
        counter->write_high = !counter->write_high;
        if (counter->write_high) {
            counter->low = value;
            begin_count_locked(pit, index);
            return;
        }
        count = (uint16_t)(value << 8 | counter->low);
    } else if (access_of(counter) == ACCESS_HIGH) {
        count = (uint16_t)(value << 8);
    }
    begin_count_locked(pit, index);
    take_count(counter, gate_of(pit, index), now, count);
    if (index == 0 && !counter->reload_at)
        expect_locked(pit, first_rise(counter));
}

static uint8_t read_count_locked(struct pit *pit, unsigned index, uint64_t now)
{
    struct pit_counter_state *counter = &pit->state.counters[index];
    if (counter->status_latched) {
        counter->status_latched = false;
        return counter->status;
    }
    uint16_t value = counter->count_latched ? counter->latch
                                            : value_of(counter, gate_of(pit, index), now);
    bool high = access_of(counter) == ACCESS_HIGH;
    if (access_of(counter) == ACCESS_BOTH) {
        high = counter->read_high;
        counter->read_high = !high;
    }
    if (high || access_of(counter) == ACCESS_LOW)
        counter->count_latched = false;
    return high ? value >> 8 : value & 0xff;
}

static uint64_t handle_read(void *device, uint64_t offset, unsigned width)
{
    struct pit *pit = device;
    if (offset == PORT_CONTROL)
        return UINT64_MAX;
    pthread_mutex_lock(&pit->lock);
    uint64_t now = now_of(pit);
    settle_locked(pit, now);
    uint8_t value = read_count_locked(pit, (unsigned)offset, now);
    schedule_locked(pit);
    pthread_mutex_unlock(&pit->lock);
    return value;
}

static void handle_write(void *device, uint64_t offset, unsigned width, uint64_t value)
{
    struct pit *pit = device;
    pthread_mutex_lock(&pit->lock);
    uint64_t now = now_of(pit);
    settle_locked(pit, now);
    if (offset == PORT_CONTROL)
        write_command_locked(pit, (uint8_t)value, now);
    else
        write_count_locked(pit, (unsigned)offset, (uint8_t)value, now);
    schedule_locked(pit);
    pthread_mutex_unlock(&pit->lock);
}

static uint64_t handle_port_b_read(void *device, uint64_t offset, unsigned width)
{
    struct pit *pit = device;
    pthread_mutex_lock(&pit->lock);
    uint64_t now = now_of(pit);
    settle_locked(pit, now);
    uint8_t value = pit->state.port_b;
    if (guest_clock_now(pit->clock) / REFRESH_NS % 2)
        value |= PORT_B_REFRESH;
    if (output_of(&pit->state.counters[GATED], gate_of(pit, GATED), now))
        value |= PORT_B_OUT;
    schedule_locked(pit);
    pthread_mutex_unlock(&pit->lock);
    return value;
}

static void handle_port_b_write(void *device, uint64_t offset, unsigned width, uint64_t value)
{
    struct pit *pit = device;
    pthread_mutex_lock(&pit->lock);
    uint64_t now = now_of(pit);
    settle_locked(pit, now);
    bool before = gate_of(pit, GATED);
    pit->state.port_b = value & PORT_B_WRITABLE;
    bool after = gate_of(pit, GATED);
    if (after && !before)
        gate_rises(&pit->state.counters[GATED], now);
    else if (before && !after)
        gate_falls(&pit->state.counters[GATED], now);
    schedule_locked(pit);
    pthread_mutex_unlock(&pit->lock);
}

static const struct {
    uint16_t base;
    uint16_t size;
    struct bus_ops ops;
} ranges[] = {
    {0x40, 4, {"pit", 1, handle_read, handle_write}},
    {0x61, 1, {"port b", 1, handle_port_b_read, handle_port_b_write}},
};

/* Device. */

static struct pit *pit_of(struct device *device)
{
    return container_of(device, struct pit, device);
}

/* Random on the chip; here as if a control word for mode 0 had come: all outputs are low. */
static void power_on(struct pit_state *state)
{
    *state = (struct pit_state){0};
    for (unsigned i = 0; i < COUNTERS; i++)
        state->counters[i].control = ACCESS_BOTH << 4;
}

static void handle_reset(struct device *device)
{
    struct pit *pit = pit_of(device);
    pthread_mutex_lock(&pit->lock);
    power_on(&pit->state);
    set_line_locked(pit, false);
    pthread_mutex_unlock(&pit->lock);
}

static void handle_pause(struct device *device)
{
    struct pit *pit = pit_of(device);
    pthread_mutex_lock(&pit->lock);
    pit->running = false;
    loop_timer_cancel(&pit->timer);
    pit->armed_for = 0;
    pthread_mutex_unlock(&pit->lock);
}

/*
 * Ticks that cannot be: a loaded state may claim that a count begins in a year, or that a new one
 * waits in a mode that never waits. Left alone, they would overflow on their way to the timer, or
 * have it fire for ever.
 */
static void bound_locked(struct pit *pit, uint64_t now)
{
    struct pit_state *state = &pit->state;
    for (unsigned i = 0; i < COUNTERS; i++) {
        struct pit_counter_state *counter = &state->counters[i];
        if (counter->start > now + 1)
            counter->start = now + 1;
        if (counter->reload_at && is_triggered(counter))
            counter->reload_at = ON_TRIGGER;
        else if (!is_periodic(counter))
            counter->reload_at = 0;
        else if (counter->reload_at != ON_TRIGGER && counter->reload_at > now + LONGEST)
            counter->reload_at = now + LONGEST;
    }
    if (state->due > now + LONGEST)
        state->due = now + LONGEST;
    if (state->not_before > now + LONGEST)
        state->not_before = now + LONGEST;
}

static void handle_resume(struct device *device)
{
    struct pit *pit = pit_of(device);
    pthread_mutex_lock(&pit->lock);
    pit->running = true;
    bound_locked(pit, now_of(pit));
    irq_line_renew(&pit->line, pit->state.line);
    schedule_locked(pit);
    pthread_mutex_unlock(&pit->lock);
}

static void handle_destroy(struct device *device)
{
    struct pit *pit = pit_of(device);
    for (unsigned i = 0; i < pit->ranges; i++)
        bus_remove(pit->ports, ranges[i].base);
    loop_timer_cancel(&pit->timer);
    pthread_mutex_destroy(&pit->lock);
    free(pit);
}

static const struct device_ops pit_ops = {
    .reset = handle_reset,
    .pause = handle_pause,
    .resume = handle_resume,
    .destroy = handle_destroy,
};

/* State. */

static const struct state_field counter_fields[] = {
    STATE_FIELD_U64(struct pit_counter_state, start),
    STATE_FIELD_U64(struct pit_counter_state, held),
    STATE_FIELD_U64(struct pit_counter_state, reload_at),
    STATE_FIELD_U16(struct pit_counter_state, count),
    STATE_FIELD_U16(struct pit_counter_state, next),
    STATE_FIELD_U16(struct pit_counter_state, latch),
    STATE_FIELD_U8(struct pit_counter_state, control, .min = ACCESS_LOW << 4, .max = CONTROL_BITS),
    STATE_FIELD_U8(struct pit_counter_state, phase, .max = COUNTING),
    STATE_FIELD_U8(struct pit_counter_state, low),
    STATE_FIELD_U8(struct pit_counter_state, status),
    STATE_FIELD_BOOL(struct pit_counter_state, status_latched),
    STATE_FIELD_BOOL(struct pit_counter_state, count_latched),
    STATE_FIELD_BOOL(struct pit_counter_state, read_high),
    STATE_FIELD_BOOL(struct pit_counter_state, write_high),
    STATE_FIELD_BYTES(struct pit_counter_state, reserved),
};

static const struct state_table counter_table = {
    .name = "pit_counter",
    .version = 1,
    STATE_TABLE_OF(struct pit_counter_state, counter_fields),
};

static const struct state_field pit_fields[] = {
    STATE_FIELD_TABLE(struct pit_state, counters, struct pit_counter_state, &counter_table),
    STATE_FIELD_U64(struct pit_state, due),
    STATE_FIELD_U64(struct pit_state, not_before),
    STATE_FIELD_U8(struct pit_state, port_b, .max = PORT_B_WRITABLE),
    STATE_FIELD_BOOL(struct pit_state, line),
    STATE_FIELD_BYTES(struct pit_state, reserved),
};

static const struct state_table pit_table = {
    .name = "pit",
    .version = 1,
    STATE_TABLE_OF(struct pit_state, pit_fields),
};

/* Create. */

int pit_create(struct pit **ret_pit, struct bus *ports, const struct irq_chip *chip, unsigned line,
               struct loop *loop, const struct guest_clock *clock, struct err *err)
{
    struct pit *pit = calloc(1, sizeof(*pit));
    if (!pit)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot create the interval timer");
    pit->device = (struct device){.ops = &pit_ops, .table = &pit_table, .state = &pit->state};
    pit->ports = ports;
    pit->clock = clock;
    pthread_mutex_init(&pit->lock, NULL);
    irq_line_init(&pit->line, chip, line);
    loop_timer_init(&pit->timer, loop, handle_timer, pit);
    power_on(&pit->state);
    for (; pit->ranges < array_size(ranges); pit->ranges++) {
        int ret = bus_add(ports, ranges[pit->ranges].base, ranges[pit->ranges].size,
                          &ranges[pit->ranges].ops, pit, err);
        if (ret < 0) {
            handle_destroy(&pit->device);
            return ret;
        }
    }
    *ret_pit = pit;
    return 0;
}

struct device *pit_device(struct pit *pit)
{
    return &pit->device;
}
