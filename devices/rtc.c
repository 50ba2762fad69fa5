/* SPDX-License-Identifier: MIT */
/*
 * MC146818A (Motorola data sheet): 14 bytes of clock and control, then RAM. The IBM AT added the
 * address port with the NMI mask in bit 7, the shutdown byte 0x0f, the century at 0x32 (our FADT
 * says so) and the memory sizes.
 *
 * All time here is counted in ticks of the chip's 32768 Hz crystal: guest ticks = host wall clock
 * in ticks + offset, in two's complement, which covers every year a register can name and more. A
 * second is 2^15 ticks and each periodic rate a smaller power of two, so that the divider chain is
 * simply the low bits.
 *
 * While the clock runs, time registers are made from the ticks when they are read. While it is held
 * (SET, or the divider in reset) they are bytes in RAM; letting go turns them back into an offset.
 *
 * Flags in register C are settled when somebody looks: whatever has happened since `seen` is worked
 * out in one step, so a long pause costs no more than a short one. A timer is armed only for an
 * interrupt that is enabled and whose flag is not set yet. A guest that does not read register C
 * stops its own interrupts, and none comes faster than 8192 times a second.
 */
#include "devices/rtc.h"

#include "core/clock.h"
#include "devices/rtc_date.h"
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

enum {
    PORT_INDEX = 0x70, /* write only; PORT_DATA follows it */
    PORT_COUNT = 2,
    INDEX_NMI_MASK = 0x80, /* stored; no NMI of ours passes this gate */
};

enum {
    REG_A = 0x0a,
    A_UPDATING = 0x80,
    A_DIVIDER = 0x70,
    A_DIVIDER_RESET = 0x60, /* both upper bits set: the chain is held */
    A_RATE = 0x0f,
    A_POWER_ON = 0x26, /* 32768 Hz, 1024 Hz: what a BIOS leaves behind */

    REG_B = 0x0b,
    B_SET = 0x80,
    B_UPDATE_INTERRUPT = 0x10, /* the enable bits lie where C has the flags */
    B_POWER_ON = 0x02,         /* 24 hours, BCD */

    REG_C = 0x0c,
    C_INTERRUPT = 0x80,
    C_PERIODIC = 0x40,
    C_ALARM = 0x20,
    C_UPDATE = 0x10,
    C_FLAGS = 0x70,

    REG_D = 0x0d,
    D_POWER_GOOD = 0x80,

    REG_BASE_KIB = 0x15, /* low byte, then high byte, here and below */
    REG_EXTENDED_KIB = 0x17,
    REG_EXTENDED_KIB_AGAIN = 0x30,
    REG_ABOVE_16M = 0x34, /* in 64 KiB */
    REG_ABOVE_4G = 0x5b,  /* in 64 KiB, three bytes */
    RAM_SIZE = 128,
};

enum {
    SECOND_SHIFT = 15,
    TICKS_PER_SECOND = 1 << SECOND_SHIFT,
    /* The data sheet's 244 us of warning and 1984 us of update. We show the new second at its end.
     */
    UPDATE_TICKS = 73,
    /* The host's wall clock may be set while we wait for an alarm: look again after a minute. */
    LONGEST_WAIT = 60 * TICKS_PER_SECOND,
};

struct rtc_state {
    uint64_t offset; /* ticks, two's complement */
    uint64_t seen;   /* the guest tick up to which register C is settled */
    uint8_t ram[RAM_SIZE];
    uint8_t index; /* last write to port 0x70 */
    uint8_t reserved[7];
};

struct rtc {
    struct device device;
    pthread_mutex_t lock; /* everything below that changes */
    struct rtc_state state;
    struct irq_line line;
    struct loop_timer timer;
    bool paused;
    bool armed;
    struct rtc_config config;
    struct bus *ports; /* NULL until our range is on it */
};

static uint64_t ticks_at(const struct rtc_state *state, uint64_t wall_ns)
{
    return clock_scale(wall_ns, TICKS_PER_SECOND, NS_PER_SEC) + state->offset;
}

static uint64_t now_ticks(const struct rtc *rtc)
{
    return ticks_at(&rtc->state, rtc->config.wall_ns());
}

static int64_t to_seconds(uint64_t ticks)
{
    return (int64_t)ticks >> SECOND_SHIFT;
}

static bool divider_held(const struct rtc_state *state)
{
    return (state->ram[REG_A] & A_DIVIDER_RESET) == A_DIVIDER_RESET;
}

static bool clock_held(const struct rtc_state *state)
{
    return (state->ram[REG_B] & B_SET) || divider_held(state);
}

/* Ticks between two periodic interrupts, a power of two; 0 for never. */
static uint64_t period(const struct rtc_state *state)
{
    unsigned rate = state->ram[REG_A] & A_RATE;

    if (rate == 0 || divider_held(state))
        return 0;
    return 1ull << (rate <= 2 ? rate + 6 : rate - 1);
}

static void show_time(struct rtc_state *state, uint64_t now)
{
    rtc_date_show(to_seconds(now), state->ram[REG_B], state->ram);
}

/* Makes the clock show what the time registers say, at the divider's present phase. */
static void take_time(struct rtc_state *state, uint64_t now)
{
    uint64_t seconds = (uint64_t)rtc_date_take(state->ram[REG_B], state->ram);
    uint64_t ticks = (seconds << SECOND_SHIFT) | (now & (TICKS_PER_SECOND - 1));

    state->offset += ticks - now;
}

/* Brings register C up to date and returns the time. */
static uint64_t settle_locked(struct rtc *rtc)
{
    struct rtc_state *state = &rtc->state;
    uint64_t now = now_ticks(rtc);
    uint64_t seen = state->seen;

    state->seen = now;
    if ((int64_t)(now - seen) <= 0) /* nothing has passed, or the host was set back */
        return now;
    if (period(state) && (now ^ seen) >= period(state)) /* a bit above the period's has changed */
        state->ram[REG_C] |= C_PERIODIC;
    if (clock_held(state) || to_seconds(now) == to_seconds(seen))
        return now;
    state->ram[REG_C] |= C_UPDATE;
    if (rtc_date_next_alarm(to_seconds(seen), state->ram[REG_B], state->ram) <= to_seconds(now))
        state->ram[REG_C] |= C_ALARM;
    return now;
}

static uint8_t pending(const struct rtc_state *state)
{
    return state->ram[REG_B] & state->ram[REG_C] & C_FLAGS;
}

/* Ticks until the first flag that is missing for an enabled interrupt; 0 when none can come. */
static uint64_t next_event(const struct rtc_state *state, uint64_t now)
{
    uint8_t wanted = state->ram[REG_B] & ~state->ram[REG_C] & C_FLAGS;
    uint64_t wait = UINT64_MAX;

    if ((wanted & C_PERIODIC) && period(state))
        wait = period(state) - (now & (period(state) - 1));
    if (!clock_held(state)) {
        uint64_t phase = now & (TICKS_PER_SECOND - 1);
        uint64_t update = TICKS_PER_SECOND - phase;
        if ((wanted & C_UPDATE) && update < wait)
            wait = update;
        int64_t alarm = INT64_MAX;
        if (wanted & C_ALARM)
            alarm = rtc_date_next_alarm(to_seconds(now), state->ram[REG_B], state->ram);
        if (alarm != INT64_MAX && ((uint64_t)alarm << SECOND_SHIFT) - now < wait)
            wait = ((uint64_t)alarm << SECOND_SHIFT) - now;
    }
    if (wait == UINT64_MAX)
        return 0;
    return wait < LONGEST_WAIT ? wait : LONGEST_WAIT;
}

/* After every change: what waits for an enabled interrupt, and nothing else, keeps a timer. */
static void arm_locked(struct rtc *rtc)
{
    uint64_t wall_ns = rtc->config.wall_ns();
    uint64_t now = ticks_at(&rtc->state, wall_ns);
    uint64_t wait = rtc->paused ? 0 : next_event(&rtc->state, now);

    if (wait) {
        /* One more nanosecond: at the deadline the tick has come, and not nearly. */
        uint64_t target = now - rtc->state.offset + wait;
        uint64_t target_ns = clock_scale(target, NS_PER_SEC, TICKS_PER_SECOND) + 1;
        uint64_t deadline = clock_monotonic_ns() + (target_ns - wall_ns);
        /* Only the first arming can fail, for want of memory; the guest's next access tries again.
         */
        rtc->armed = loop_timer_arm(&rtc->timer, deadline) == 0;
    } else if (rtc->armed) {
        loop_timer_cancel(&rtc->timer);
        rtc->armed = false;
    }
}

static void update_locked(struct rtc *rtc)
{
    irq_line_set(&rtc->line, pending(&rtc->state) != 0);
    arm_locked(rtc);
}

static void handle_timer(void *arg)
{
    struct rtc *rtc = arg;

    pthread_mutex_lock(&rtc->lock);
    if (!rtc->paused) { /* or a pause has overtaken us */
        settle_locked(rtc);
        update_locked(rtc);
    }
    pthread_mutex_unlock(&rtc->lock);
}

static uint8_t read_locked(struct rtc *rtc)
{
    struct rtc_state *state = &rtc->state;
    unsigned reg = state->index % RAM_SIZE;
    uint64_t now = now_ticks(rtc);
    uint64_t phase = now & (TICKS_PER_SECOND - 1);
    uint8_t value;

    switch (reg) {
    case REG_A:
        value = state->ram[REG_A] & ~A_UPDATING;
        if (!clock_held(state) && phase >= TICKS_PER_SECOND - UPDATE_TICKS)
            value |= A_UPDATING;
        return value;
    case REG_C:
        settle_locked(rtc);
        value = (state->ram[REG_C] & C_FLAGS) | (pending(state) ? C_INTERRUPT : 0);
        state->ram[REG_C] = 0;
        update_locked(rtc);
        return value;
    case REG_D:
        return D_POWER_GOOD;
    }
    if (rtc_date_is_time(reg) && !clock_held(state))
        show_time(state, now);
    return state->ram[reg];
}

/* A write to a register that the clock depends on. */
static void write_clock_locked(struct rtc *rtc, unsigned reg, uint8_t value)
{
    struct rtc_state *state = &rtc->state;
    uint64_t now = settle_locked(rtc);
    bool ran = !clock_held(state);
    bool divider_was_held = divider_held(state);

    if (ran)
        show_time(state, now);
    state->ram[reg] = value;
    if (divider_was_held && !divider_held(state)) {
        /* The first update comes half a second later: Linux sets the clock to the tick with this.
         */
        uint64_t phase = now & (TICKS_PER_SECOND - 1);
        state->offset += TICKS_PER_SECOND / 2 - phase;
        now += TICKS_PER_SECOND / 2 - phase;
    }
    if (!clock_held(state) && (!ran || rtc_date_is_time(reg)))
        take_time(state, now);
    state->seen = now_ticks(rtc);
    update_locked(rtc);
}

static void write_locked(struct rtc *rtc, uint8_t value)
{
    struct rtc_state *state = &rtc->state;
    unsigned reg = state->index % RAM_SIZE;

    switch (reg) {
    case REG_A:
        write_clock_locked(rtc, reg, value & ~A_UPDATING);
        return;
    case REG_B:
        if (value & B_SET) /* "SET ... clears UIE" */
            value &= ~B_UPDATE_INTERRUPT;
        write_clock_locked(rtc, reg, value);
        return;
    case REG_C:
    case REG_D:
        return; /* read only */
    }
    if (rtc_date_is_time(reg) || rtc_date_is_alarm(reg))
        write_clock_locked(rtc, reg, value);
    else
        state->ram[reg] = value;
}

static uint64_t handle_read(void *device, uint64_t offset, unsigned width)
{
    struct rtc *rtc = device;
    uint8_t value = 0xff; /* the index is write only */

    pthread_mutex_lock(&rtc->lock);
    if (offset != 0)
        value = read_locked(rtc);
    pthread_mutex_unlock(&rtc->lock);
    return value;
}

static void handle_write(void *device, uint64_t offset, unsigned width, uint64_t value)
{
    struct rtc *rtc = device;

    pthread_mutex_lock(&rtc->lock);
    if (offset == 0)
        rtc->state.index = value;
    else
        write_locked(rtc, value);
    pthread_mutex_unlock(&rtc->lock);
}

static const struct bus_ops register_ops = {
    .name = "rtc",
    .max_width = 1,
    .read = handle_read,
    .write = handle_write,
};

static uint64_t at_most(uint64_t value, uint64_t most)
{
    return value < most ? value : most;
}

static void put_size(struct rtc_state *state, unsigned reg, unsigned bytes, uint64_t value)
{
    value = at_most(value, (1ull << 8 * bytes) - 1);
    for (unsigned i = 0; i < bytes; i++)
        state->ram[reg + i] = value >> 8 * i;
}

/* What a BIOS finds out and writes there at each start. */
static void put_memory_sizes(struct rtc *rtc)
{
    const uint64_t below = rtc->config.ram_below_4g, mib = 1 << 20;
    struct rtc_state *state = &rtc->state;

    put_size(state, REG_BASE_KIB, 2, at_most(below, 640 << 10) >> 10);
    put_size(state, REG_EXTENDED_KIB, 2, (below - at_most(below, 1 * mib)) >> 10);
    put_size(state, REG_EXTENDED_KIB_AGAIN, 2, (below - at_most(below, 1 * mib)) >> 10);
    put_size(state, REG_ABOVE_16M, 2, (below - at_most(below, 16 * mib)) >> 16);
    put_size(state, REG_ABOVE_4G, 3, rtc->config.ram_above_4g >> 16);
}

/*
 * The chip has a battery: time and RAM live on, the shutdown byte 0x0f among them, whose purpose
 * that is. A clock that a guest had left held goes on from where it stood.
 */
static void rtc_reset(struct device *device)
{
    struct rtc *rtc = container_of(device, struct rtc, device);
    struct rtc_state *state = &rtc->state;

    pthread_mutex_lock(&rtc->lock);
    if (clock_held(state))
        take_time(state, now_ticks(rtc));
    state->ram[REG_A] = A_POWER_ON;
    state->ram[REG_B] = B_POWER_ON;
    state->ram[REG_C] = 0;
    state->ram[REG_D] = D_POWER_GOOD;
    state->index = 0;
    state->seen = now_ticks(rtc);
    put_memory_sizes(rtc);
    irq_line_set(&rtc->line, false);
    pthread_mutex_unlock(&rtc->lock);
}

static void rtc_pause(struct device *device)
{
    struct rtc *rtc = container_of(device, struct rtc, device);

    pthread_mutex_lock(&rtc->lock);
    rtc->paused = true;
    arm_locked(rtc);
    pthread_mutex_unlock(&rtc->lock);
}

static void rtc_resume(struct device *device)
{
    struct rtc *rtc = container_of(device, struct rtc, device);

    pthread_mutex_lock(&rtc->lock);
    rtc->paused = false;
    settle_locked(rtc);
    irq_line_renew(&rtc->line, pending(&rtc->state) != 0);
    arm_locked(rtc);
    pthread_mutex_unlock(&rtc->lock);
}

static void rtc_destroy(struct device *device)
{
    struct rtc *rtc = container_of(device, struct rtc, device);

    if (rtc->ports)
        bus_remove(rtc->ports, PORT_INDEX);
    loop_timer_cancel(&rtc->timer);
    pthread_mutex_destroy(&rtc->lock);
    free(rtc);
}

static const struct device_ops device_ops = {
    .reset = rtc_reset,
    .pause = rtc_pause,
    .resume = rtc_resume,
    .destroy = rtc_destroy,
};

static const struct state_field fields[] = {
    STATE_FIELD_U64(struct rtc_state, offset),     STATE_FIELD_U64(struct rtc_state, seen),
    STATE_FIELD_BYTES(struct rtc_state, ram),      STATE_FIELD_U8(struct rtc_state, index),
    STATE_FIELD_BYTES(struct rtc_state, reserved),
};

static const struct state_table table = {
    .name = "rtc",
    .version = 1,
    STATE_TABLE_OF(struct rtc_state, fields),
};

struct device *rtc_device(struct rtc *rtc)
{
    return &rtc->device;
}

int rtc_create(struct rtc **ret_rtc, struct bus *ports, const struct irq_chip *chip, unsigned line,
               struct loop *loop, const struct rtc_config *config, struct err *err)
{
    struct rtc *rtc = calloc(1, sizeof(*rtc));
    int r;

    if (!rtc)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot make the real-time clock");
    rtc->device = (struct device){.ops = &device_ops, .table = &table, .state = &rtc->state};
    rtc->config = *config;
    if (!rtc->config.wall_ns)
        rtc->config.wall_ns = clock_wall_ns;
    rtc->paused = true;
    pthread_mutex_init(&rtc->lock, NULL);
    irq_line_init(&rtc->line, chip, line);
    loop_timer_init(&rtc->timer, loop, handle_timer, rtc);
    rtc_reset(&rtc->device);

    r = bus_add(ports, PORT_INDEX, PORT_COUNT, &register_ops, rtc, err);
    if (r < 0)
        goto fail;
    rtc->ports = ports;
    *ret_rtc = rtc;
    return 0;

fail:
    rtc_destroy(&rtc->device);
    return r;
}
