/* SPDX-License-Identifier: MIT */
/*
 * ACPI specification 6.4, section 4.8 ("ACPI Register Model"): PM1 event and control registers
 * (4.8.3.1, 4.8.3.2), PM timer (4.8.2.1, 4.8.3.3), reset register (4.8.3.6) and general-purpose
 * event registers (4.8.4.1).
 *
 * Every register bit that acts lies inside of one byte, so accesses of any width are handled byte
 * by byte, except that all bytes of one access see the same moment of the PM timer.
 *
 * The timer's carry (TMR_STS, each change of bit 31, about every ten minutes) is settled when
 * somebody looks. A host timer is armed only while its interrupt is enabled and the bit is clear.
 */
#include "devices/acpi_pm.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

enum {
    STATUS_TIMER = 1 << 0,
    STATUS_BUS_MASTER = 1 << 4,
    STATUS_GLOBAL = 1 << 5,
    STATUS_POWER_BUTTON = 1 << 8,
    STATUS_SLEEP_BUTTON = 1 << 9,
    STATUS_RTC = 1 << 10,
    STATUS_WAKE = 1 << 15,

    /* What may interrupt; the enable bits lie where their status has its place. */
    ENABLE_ALL = STATUS_TIMER | STATUS_GLOBAL | STATUS_POWER_BUTTON | STATUS_SLEEP_BUTTON |
                 STATUS_RTC,
    STATUS_ALL = ENABLE_ALL | STATUS_BUS_MASTER | STATUS_WAKE,

    CONTROL_SCI_ENABLE = 1 << 0, /* always 1: "SCI_EN ... ACPI mode" */
    CONTROL_BUS_MASTER_RELOAD = 1 << 1,
    CONTROL_SLEEP_TYPE = 7 << 10,
    CONTROL_SLEEP_TYPE_SHIFT = 10,
    CONTROL_SLEEP = 1 << 13, /* write only, like GBL_RLS (bit 2), which has no BIOS to call */
    CONTROL_STORED = CONTROL_BUS_MASTER_RELOAD | CONTROL_SLEEP_TYPE,

    EVENTS_ALL = 1 << ACPI_EVENT_GENERATION,

    CARRY_SHIFT = 31,
};

struct acpi_pm_state {
    uint64_t carries; /* changes of the timer's bit 31 that STATUS_TIMER has seen */
    uint16_t status;
    uint16_t enable;
    uint16_t control;                   /* CONTROL_STORED */
    uint8_t event_status, event_enable; /* EVENTS_ALL */
};

struct acpi_pm {
    struct device device;
    pthread_mutex_t lock; /* everything below that changes */
    struct acpi_pm_state state;
    struct irq_line line;
    struct loop_timer timer;
    bool paused;
    bool armed;
    bool button_waits;   /* pressed while paused */
    uint8_t events_wait; /* raised while paused */
    const struct guest_clock *clock;
    struct power power;
    uint16_t base;
    struct bus *ports; /* NULL until our range is on it */
};

static uint64_t timer_ticks(const struct acpi_pm *pm)
{
    return clock_scale(guest_clock_now(pm->clock), ACPI_PM_TIMER_HZ, NS_PER_SEC);
}

static void settle_locked(struct acpi_pm *pm)
{
    uint64_t carries = timer_ticks(pm) >> CARRY_SHIFT;

    if (pm->state.carries != carries)
        pm->state.status |= STATUS_TIMER;
    pm->state.carries = carries;
}

static bool line_level(const struct acpi_pm_state *state)
{
    return (state->status & state->enable & ENABLE_ALL) ||
           (state->event_status & state->event_enable);
}

static void arm_locked(struct acpi_pm *pm)
{
    const struct acpi_pm_state *state = &pm->state;

    if (!pm->paused && (state->enable & ~state->status & STATUS_TIMER)) {
        uint64_t next = (state->carries + 1) << CARRY_SHIFT;
        /* One more nanosecond: at the deadline the tick has come, and not nearly. */
        uint64_t guest_ns = clock_scale(next, NS_PER_SEC, ACPI_PM_TIMER_HZ) + 1;
        /* Fails only for want of memory, and then the guest's next access tries again. */
        pm->armed = loop_timer_arm(&pm->timer, guest_clock_to_host(pm->clock, guest_ns)) == 0;
    } else if (pm->armed) {
        loop_timer_cancel(&pm->timer);
        pm->armed = false;
    }
}

static void update_locked(struct acpi_pm *pm)
{
    irq_line_set(&pm->line, line_level(&pm->state));
    arm_locked(pm);
}

static void handle_timer(void *arg)
{
    struct acpi_pm *pm = arg;

    pthread_mutex_lock(&pm->lock);
    if (!pm->paused) { /* or a pause has overtaken us */
        settle_locked(pm);
        update_locked(pm);
    }
    pthread_mutex_unlock(&pm->lock);
}

void acpi_pm_press_power_button(struct acpi_pm *pm)
{
    pthread_mutex_lock(&pm->lock);
    if (pm->paused)
        pm->button_waits = true;
    else
        pm->state.status |= STATUS_POWER_BUTTON;
    if (!pm->paused)
        irq_line_set(&pm->line, line_level(&pm->state));
    pthread_mutex_unlock(&pm->lock);
}

void acpi_pm_raise_event(struct acpi_pm *pm, enum acpi_event event)
{
    uint8_t bit = (uint8_t)(1u << event);

    pthread_mutex_lock(&pm->lock);
    if (pm->paused) {
        pm->events_wait |= bit;
    } else {
        pm->state.event_status |= bit;
        irq_line_set(&pm->line, line_level(&pm->state));
    }
    pthread_mutex_unlock(&pm->lock);
}

static uint8_t read_byte(const struct acpi_pm_state *state, uint32_t timer, unsigned offset)
{
    switch (offset) {
    case ACPI_PM1A_STATUS:
    case ACPI_PM1A_STATUS + 1:
        return state->status >> 8 * (offset - ACPI_PM1A_STATUS);
    case ACPI_PM1A_ENABLE:
    case ACPI_PM1A_ENABLE + 1:
        return state->enable >> 8 * (offset - ACPI_PM1A_ENABLE);
    case ACPI_PM1A_CONTROL:
    case ACPI_PM1A_CONTROL + 1:
        return (state->control | CONTROL_SCI_ENABLE) >> 8 * (offset - ACPI_PM1A_CONTROL);
    case ACPI_GPE0_STATUS:
        return state->event_status;
    case ACPI_GPE0_ENABLE:
        return state->event_enable;
    case ACPI_PM_TIMER ... ACPI_PM_TIMER + 3:
        return timer >> 8 * (offset - ACPI_PM_TIMER);
    }
    return 0xff;
}

static void set_byte(uint16_t *reg, unsigned byte, uint8_t value, unsigned mask)
{
    unsigned shift = 8 * byte;

    *reg = ((*reg & ~(0xffu << shift)) | (unsigned)value << shift) & mask;
}

/* Writes a byte and returns what it asks of the machine: a power event, or 0. */
static unsigned write_byte_locked(struct acpi_pm *pm, unsigned offset, uint8_t value)
{
    struct acpi_pm_state *state = &pm->state;

    switch (offset) {
    case ACPI_PM1A_STATUS:
    case ACPI_PM1A_STATUS + 1: /* writing a 1 clears it */
        state->status &= ~((unsigned)value << 8 * (offset - ACPI_PM1A_STATUS));
        break;
    case ACPI_PM1A_ENABLE:
    case ACPI_PM1A_ENABLE + 1:
        set_byte(&state->enable, offset - ACPI_PM1A_ENABLE, value, ENABLE_ALL);
        break;
    case ACPI_PM1A_CONTROL:
        set_byte(&state->control, 0, value, CONTROL_STORED);
        break;
    case ACPI_PM1A_CONTROL + 1:
        set_byte(&state->control, 1, value, CONTROL_STORED);
        if ((value & CONTROL_SLEEP >> 8) &&
            state->control >> CONTROL_SLEEP_TYPE_SHIFT == ACPI_PM_SLEEP_TYPE_OFF)
            return POWER_OFF;
        break;
    case ACPI_GPE0_STATUS: /* likewise */
        state->event_status &= ~value;
        break;
    case ACPI_GPE0_ENABLE:
        state->event_enable = value & EVENTS_ALL;
        break;
    case ACPI_PM_RESET:
        return value == ACPI_PM_RESET_VALUE ? POWER_RESET : 0;
    }
    return 0;
}

static uint64_t handle_read(void *device, uint64_t offset, unsigned width)
{
    struct acpi_pm *pm = device;
    uint64_t value = 0;

    pthread_mutex_lock(&pm->lock);
    uint32_t timer = timer_ticks(pm);
    if (offset < ACPI_PM1A_ENABLE) {
        settle_locked(pm);
        update_locked(pm);
    }
    for (unsigned i = 0; i < width; i++)
        value |= (uint64_t)read_byte(&pm->state, timer, offset + i) << 8 * i;
    pthread_mutex_unlock(&pm->lock);
    return value;
}

static void handle_write(void *device, uint64_t offset, unsigned width, uint64_t value)
{
    struct acpi_pm *pm = device;
    unsigned event = 0;

    pthread_mutex_lock(&pm->lock);
    settle_locked(pm);
    for (unsigned i = 0; i < width; i++)
        event |= write_byte_locked(pm, offset + i, value >> 8 * i);
    update_locked(pm);
    pthread_mutex_unlock(&pm->lock);

    if (event)
        power_request(&pm->power, event, 0);
}

static const struct bus_ops register_ops = {
    .name = "acpi_pm",
    .max_width = 4,
    .read = handle_read,
    .write = handle_write,
};

static void acpi_pm_reset(struct device *device)
{
    struct acpi_pm *pm = container_of(device, struct acpi_pm, device);

    pthread_mutex_lock(&pm->lock);
    /* The timer goes on: it is guest time, which a reset does not turn back. */
    pm->state = (struct acpi_pm_state){.carries = timer_ticks(pm) >> CARRY_SHIFT};
    pm->button_waits = false;
    pm->events_wait = 0;
    irq_line_set(&pm->line, false);
    pthread_mutex_unlock(&pm->lock);
}

static void acpi_pm_pause(struct device *device)
{
    struct acpi_pm *pm = container_of(device, struct acpi_pm, device);

    pthread_mutex_lock(&pm->lock);
    pm->paused = true;
    arm_locked(pm);
    pthread_mutex_unlock(&pm->lock);
}

static void acpi_pm_resume(struct device *device)
{
    struct acpi_pm *pm = container_of(device, struct acpi_pm, device);

    pthread_mutex_lock(&pm->lock);
    pm->paused = false;
    if (pm->button_waits)
        pm->state.status |= STATUS_POWER_BUTTON;
    pm->button_waits = false;
    pm->state.event_status |= pm->events_wait;
    pm->events_wait = 0;
    settle_locked(pm);
    irq_line_renew(&pm->line, line_level(&pm->state));
    arm_locked(pm);
    pthread_mutex_unlock(&pm->lock);
}

static void acpi_pm_destroy(struct device *device)
{
    struct acpi_pm *pm = container_of(device, struct acpi_pm, device);

    if (pm->ports)
        bus_remove(pm->ports, pm->base);
    loop_timer_cancel(&pm->timer);
    pthread_mutex_destroy(&pm->lock);
    free(pm);
}

static const struct device_ops device_ops = {
    .reset = acpi_pm_reset,
    .pause = acpi_pm_pause,
    .resume = acpi_pm_resume,
    .destroy = acpi_pm_destroy,
};

static const struct state_field fields[] = {
    STATE_FIELD_U64(struct acpi_pm_state, carries),
    STATE_FIELD_U16(struct acpi_pm_state, status),
    STATE_FIELD_U16(struct acpi_pm_state, enable),
    STATE_FIELD_U16(struct acpi_pm_state, control),
    STATE_FIELD_U8(struct acpi_pm_state, event_status),
    STATE_FIELD_U8(struct acpi_pm_state, event_enable),
};

/* Bits that no guest could have set would stay for ever, or ask for what was never asked. */
static int handle_validate(const void *object, struct err *err)
{
    const struct acpi_pm_state *state = object;

    if ((state->status & ~STATUS_ALL) || (state->enable & ~ENABLE_ALL) ||
        (state->control & ~CONTROL_STORED) ||
        ((state->event_status | state->event_enable) & ~EVENTS_ALL))
        return err_say(err, ERR_FAILED, EBADMSG, "reserved bits are set");
    return 0;
}

/* Version 1 had two reserved bytes, always 0, where the events are now. */
static const struct state_table table = {
    .name = "acpi_pm",
    .version = 2,
    STATE_TABLE_OF(struct acpi_pm_state, fields),
    .validate = handle_validate,
};

struct device *acpi_pm_device(struct acpi_pm *pm)
{
    return &pm->device;
}

int acpi_pm_create(struct acpi_pm **ret_pm, struct bus *ports, uint16_t base,
                   const struct irq_chip *chip, unsigned line, struct loop *loop,
                   const struct guest_clock *clock, const struct power *power, struct err *err)
{
    struct acpi_pm *pm = calloc(1, sizeof(*pm));
    int r;

    if (!pm)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot make the ACPI registers");
    pm->device = (struct device){.ops = &device_ops, .table = &table, .state = &pm->state};
    pm->clock = clock;
    pm->power = *power;
    pm->base = base;
    pm->paused = true;
    pthread_mutex_init(&pm->lock, NULL);
    irq_line_init(&pm->line, chip, line);
    loop_timer_init(&pm->timer, loop, handle_timer, pm);
    acpi_pm_reset(&pm->device);

    r = bus_add(ports, base, ACPI_PM_SIZE, &register_ops, pm, err);
    if (r < 0)
        goto fail;
    pm->ports = ports;
    *ret_pm = pm;
    return 0;

fail:
    acpi_pm_destroy(&pm->device);
    return r;
}
