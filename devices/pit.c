/* SPDX-License-Identifier: MIT */
/*
 * Intel 8254 (231164) at 0x40-0x43, and NMI status and control (port B) at 0x61 as in the 82371AB.
 *
 *   0x40-0x42  counters 0-2     0x43  control word (write only: reads all ones)
 *   0x61       0: gate of counter 2, 1: speaker, 2-3: NMI enables (kept, no effect),
 *              4: toggles with every memory refresh, 5: output of counter 2, 6-7: NMI sources (0)
 *
 * Counters do not run: they are functions of guest time (pit_counter.h). Ticks are derived from
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
 *   - No two ticks of a periodic mode are closer than 200 us (as in KVM's own PIT). A guest
 *     that asks for a million a second gets 5000, and cannot keep the main loop from its work.
 */
#include "devices/pit.h"

#include "devices/pit_counter.h"
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

    PORT_B_GATE = 1 << 0,
    PORT_B_WRITABLE = 0xf,
    PORT_B_REFRESH = 1 << 4,
    PORT_B_OUT = 1 << 5,
    REFRESH_NS = 15085,

    MIN_GAP = PIT_HZ / 5000, /* ticks between two interrupts */
    MAX_OWED = PIT_HZ,
};

struct pit_state {
    struct pit_counter counters[COUNTERS];
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

/* Time. */

static uint64_t now_of(const struct pit *pit)
{
    return PIT_TICK_ZERO + clock_scale(guest_clock_now(pit->clock), PIT_HZ, NS_PER_SEC);
}

/* A moment at which the tick has come: rounded up, so that a timer never fires for nothing. */
static uint64_t guest_ns_of(uint64_t tick)
{
    return clock_scale(tick - PIT_TICK_ZERO, NS_PER_SEC, PIT_HZ) + 1;
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
        uint64_t rise;
        if (pit_counter_settle(&pit->state.counters[i], gate_of(pit, i), now, &rise) && i == 0)
            expect_locked(pit, rise);
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
    uint32_t length = pit_counter_length(&state->counters[0]);
    bool periodic = pit_counter_is_periodic(&state->counters[0]);
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
        uint64_t tick = later(later(pit->state.due, pit->state.not_before), PIT_TICK_ZERO);
        /* A new count may take over before, and have its first rise earlier. */
        uint64_t reload_at = pit->state.counters[0].reload_at;
        if (reload_at && reload_at < tick)
            tick = later(reload_at, PIT_TICK_ZERO);
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
    struct pit_counter *counter = &pit->state.counters[index];
    pit_counter_set_control(counter, value);
    if (index == 0) {
        expect_locked(pit, 0);
        set_line_locked(pit, pit_counter_mode(counter) != 0);
    }
}

static void write_command_locked(struct pit *pit, uint8_t value, uint64_t now)
{
    struct pit_counter *counters = pit->state.counters;
    unsigned select = value >> 6;
    if (select != SELECT_READ_BACK) {
        if ((value >> 4 & 3) == PIT_ACCESS_LATCH)
            pit_counter_latch_count(&counters[select], gate_of(pit, select), now);
        else
            write_control_locked(pit, select, value);
        return;
    }
    for (unsigned i = 0; i < COUNTERS; i++) {
        if (!(value & 2u << i))
            continue;
        if (!(value & READ_BACK_NO_COUNT))
            pit_counter_latch_count(&counters[i], gate_of(pit, i), now);
        if (!(value & READ_BACK_NO_STATUS))
            pit_counter_latch_status(&counters[i], gate_of(pit, i), now);
    }
}

static void write_count_locked(struct pit *pit, unsigned index, uint8_t value, uint64_t now)
{
    struct pit_counter *counter = &pit->state.counters[index];
    bool complete = pit_counter_write(counter, gate_of(pit, index), now, value);
    if (index != 0)
        return;
    if (pit_counter_mode(counter) == 0) { /* with the first of two bytes already */
        expect_locked(pit, 0);
        set_line_locked(pit, false);
    }
    if (complete && !counter->reload_at)
        expect_locked(pit, pit_counter_first_rise(counter));
}

static uint64_t handle_read(void *device, uint64_t offset, unsigned width)
{
    struct pit *pit = device;
    unsigned index = (unsigned)offset;
    if (offset == PORT_CONTROL)
        return UINT64_MAX;
    pthread_mutex_lock(&pit->lock);
    uint64_t now = now_of(pit);
    settle_locked(pit, now);
    uint8_t value = pit_counter_read(&pit->state.counters[index], gate_of(pit, index), now);
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
    if (pit_counter_output(&pit->state.counters[GATED], gate_of(pit, GATED), now))
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
        pit_counter_gate_rises(&pit->state.counters[GATED], now);
    else if (before && !after)
        pit_counter_gate_falls(&pit->state.counters[GATED], now);
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
        state->counters[i].control = PIT_ACCESS_BOTH << 4;
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

/* Left alone, ticks that cannot be would overflow on their way to the timer, or have it fire for
 * ever. */
static void bound_locked(struct pit *pit, uint64_t now)
{
    struct pit_state *state = &pit->state;
    for (unsigned i = 0; i < COUNTERS; i++)
        pit_counter_bound(&state->counters[i], now);
    if (state->due > now + PIT_LONGEST)
        state->due = now + PIT_LONGEST;
    if (state->not_before > now + PIT_LONGEST)
        state->not_before = now + PIT_LONGEST;
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
    STATE_FIELD_U64(struct pit_counter, start),
    STATE_FIELD_U64(struct pit_counter, held),
    STATE_FIELD_U64(struct pit_counter, reload_at),
    STATE_FIELD_U16(struct pit_counter, count),
    STATE_FIELD_U16(struct pit_counter, next),
    STATE_FIELD_U16(struct pit_counter, latch),
    STATE_FIELD_U8(struct pit_counter, control, .min = PIT_ACCESS_LOW << 4,
                   .max = PIT_CONTROL_BITS),
    STATE_FIELD_U8(struct pit_counter, phase, .max = PIT_COUNTING),
    STATE_FIELD_U8(struct pit_counter, low),
    STATE_FIELD_U8(struct pit_counter, status),
    STATE_FIELD_BOOL(struct pit_counter, status_latched),
    STATE_FIELD_BOOL(struct pit_counter, count_latched),
    STATE_FIELD_BOOL(struct pit_counter, read_high),
    STATE_FIELD_BOOL(struct pit_counter, write_high),
    STATE_FIELD_BYTES(struct pit_counter, reserved),
};

static const struct state_table counter_table = {
    .name = "pit_counter",
    .version = 1,
    STATE_TABLE_OF(struct pit_counter, counter_fields),
};

static const struct state_field pit_fields[] = {
    STATE_FIELD_TABLE(struct pit_state, counters, struct pit_counter, &counter_table),
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
