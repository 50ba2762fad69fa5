/* SPDX-License-Identifier: MIT */
/*
 * The I/O APIC: Intel 82093AA (290566) with the EOI register of version 0x20 (ICH; the one that
 * lets a guest end a level-triggered interrupt by hand).
 *
 *   0x00  IOREGSEL  index of the register behind IOWIN
 *   0x10  IOWIN     0: id (27:24), 1: version 0x20 and 23 as the last pin, 2: arbitration id,
 *                   0x10 + 2n and 0x11 + 2n: the redirection entry (RTE) of pin n
 *   0x40  EOI       ends the vector that is written
 *
 * What a pin does, by its entry:
 *
 *   edge    A rise sends the message at once. A rise while masked is lost, as on the chip (3.2.4,
 *           interrupt mask). Guests rely on both sides of that: a timer that ticked while masked
 *           must not tick at the unmask, and one that is unmasked must get its next tick. The
 *           latter is the driver's duty: it makes a new edge for every tick (see pit.c).
 *   level   Asserted, unmasked and without remote IRR sends the message and sets remote IRR. The
 *           EOI clears it, and a line that is still asserted then sends again.
 *
 * Writing an entry as edge clears its remote IRR: that is how Linux gets rid of a stuck one.
 * Whatever is not fixed or lowest-priority delivery counts as edge (3.2.4, delivery mode).
 */
#include "devices/ioapic.h"
#include "core/clock.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

enum {
    IOAPIC_SIZE = 0x1000,
    PORT_SELECT = 0x00,
    PORT_WINDOW = 0x10,
    PORT_EOI = 0x40,

    REGISTER_ID = 0x00,
    REGISTER_VERSION = 0x01,
    REGISTER_ARBITRATION = 0x02,
    REGISTER_ENTRIES = 0x10,

    VERSION = 0x20 | (IOAPIC_PINS - 1) << 16,
    ID_SHIFT = 24,
    ID_BITS = 0xf,

    ENTRY_VECTOR = 0xff,
    ENTRY_MODE_SHIFT = 8,
    ENTRY_MODE_BITS = 7,
    ENTRY_LOGICAL = 1 << 11,
    ENTRY_REMOTE_IRR = 1 << 14,
    ENTRY_LEVEL = 1 << 15,
    ENTRY_MASKED = 1 << 16,
    ENTRY_EXTENDED_SHIFT = 49, /* 7 bits */
    ENTRY_DESTINATION_SHIFT = 56,

    MODE_FIXED = 0,
    MODE_LOWEST = 1,

    /* SDM volume 3, 11.11: message address and data. */
    MSI_LOGICAL = 1 << 2,
    MSI_REDIRECTION = 1 << 3,
    MSI_EXTENDED_SHIFT = 5,
    MSI_DESTINATION_SHIFT = 12,
    MSI_ASSERT = 1 << 14,
    MSI_LEVEL = 1 << 15,

    /*
     * A line that is never released would be delivered again right after each EOI, and the guest
     * would get no instruction done outside its handler. On a real machine the next message takes a
     * while. So after this many in a row the pin rests for a moment; the line is looked at again
     * then, so nothing is lost.
     */
    STORM_COUNT = 10000,
    STORM_REST_NS = 10 * 1000 * 1000,
};

#define MSI_ADDRESS    0xfee00000ull
#define ENTRY_WRITABLE 0xfffe00000001afffull /* the rest is reserved or read-only */

struct ioapic_state {
    uint64_t entries[IOAPIC_PINS];
    uint32_t lines; /* asserted pins */
    uint8_t id;
    uint8_t select;
    uint8_t reserved[2];
};

struct ioapic {
    struct device device;
    pthread_mutex_t lock;
    struct bus *mmio;
    struct ioapic_config config;
    bool on_bus;
    bool running; /* between resume and pause: the storm timer may be armed */
    struct loop_timer storm_timer;
    uint32_t resting;              /* pins whose redelivery waits for the storm timer */
    uint16_t repeats[IOAPIC_PINS]; /* EOIs in a row that found the line still asserted */

    pthread_mutex_t routes_lock; /* innermost */
    struct ioapic_route routes[IOAPIC_PINS];
    uint32_t routed; /* pins whose route is in the listener's table */

    struct ioapic_state state;
};

/* Entries and their messages. */

static unsigned mode_of(uint64_t entry)
{
    return entry >> ENTRY_MODE_SHIFT & ENTRY_MODE_BITS;
}

static bool is_level(uint64_t entry)
{
    return entry & ENTRY_LEVEL && mode_of(entry) <= MODE_LOWEST;
}

/* 3 and 6 are reserved, and 3 means something else to KVM. */
static bool mode_is_valid(uint64_t entry)
{
    return mode_of(entry) != 3 && mode_of(entry) != 6;
}

static struct ioapic_route message_of(const struct ioapic *ioapic, unsigned pin)
{
    uint64_t entry = ioapic->state.entries[pin];
    struct ioapic_route message = {.pin = pin};
    message.address = MSI_ADDRESS | (entry >> ENTRY_DESTINATION_SHIFT) << MSI_DESTINATION_SHIFT;
    if (ioapic->config.extended_destinations)
        message.address |= (entry >> ENTRY_EXTENDED_SHIFT & 0x7f) << MSI_EXTENDED_SHIFT;
    if (entry & ENTRY_LOGICAL)
        message.address |= MSI_LOGICAL;
    if (mode_of(entry) == MODE_LOWEST)
        message.address |= MSI_REDIRECTION;
    message.data = (uint32_t)(entry & ENTRY_VECTOR) | mode_of(entry) << ENTRY_MODE_SHIFT;
    if (is_level(entry))
        message.data |= MSI_LEVEL | MSI_ASSERT;
    return message;
}

static void send(struct ioapic *ioapic, unsigned pin)
{
    if (!mode_is_valid(ioapic->state.entries[pin]))
        return;
    struct ioapic_route message = message_of(ioapic, pin);
    msi_send(ioapic->config.sink, message.address, message.data);
}

/* Sends what a level-triggered pin has to send now. */
static void serve_level_locked(struct ioapic *ioapic, unsigned pin)
{
    uint64_t *entry = &ioapic->state.entries[pin];
    if (!is_level(*entry) || *entry & (ENTRY_MASKED | ENTRY_REMOTE_IRR))
        return;
    if (!(ioapic->state.lines & ~ioapic->resting & 1u << pin))
        return;
    *entry |= ENTRY_REMOTE_IRR;
    send(ioapic, pin);
}

/* Routes. */

static bool same_message(const struct ioapic_route *a, const struct ioapic_route *b)
{
    return a->address == b->address && a->data == b->data;
}

/*
 * Brings the pin's route up to date. Returns whether it changed. A pin that is only masked keeps
 * what it has, see ioapic.h; that may be one route too many, which costs an exit and does no harm.
 */
static bool update_route_locked(struct ioapic *ioapic, unsigned pin)
{
    uint64_t entry = ioapic->state.entries[pin];
    bool wanted = is_level(entry);
    if (wanted && entry & ENTRY_MASKED && !(entry & ENTRY_REMOTE_IRR))
        return false;
    struct ioapic_route route = message_of(ioapic, pin);
    uint32_t bit = 1u << pin;
    bool had = ioapic->routed & bit;
    if (wanted == had && (!had || same_message(&route, &ioapic->routes[pin])))
        return false;
    pthread_mutex_lock(&ioapic->routes_lock);
    ioapic->routes[pin] = route;
    ioapic->routed = wanted ? ioapic->routed | bit : ioapic->routed & ~bit;
    pthread_mutex_unlock(&ioapic->routes_lock);
    return true;
}

static void announce_routes(struct ioapic *ioapic)
{
    ioapic->config.listener->level_routes_changed(ioapic->config.listener->ctx);
}

/* All pins at once, after a load or a reset. */
static void renew_routes_locked(struct ioapic *ioapic)
{
    bool changed = false;
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        changed |= update_route_locked(ioapic, pin);
    if (changed)
        announce_routes(ioapic);
}

unsigned ioapic_level_routes(struct ioapic *ioapic, struct ioapic_route *ret_routes)
{
    unsigned count = 0;
    pthread_mutex_lock(&ioapic->routes_lock);
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        if (ioapic->routed & 1u << pin)
            ret_routes[count++] = ioapic->routes[pin];
    }
    pthread_mutex_unlock(&ioapic->routes_lock);
    return count;
}

/* Lines and EOIs. */

static void fall_locked(struct ioapic *ioapic, unsigned pin)
{
    ioapic->state.lines &= ~(1u << pin);
    ioapic->resting &= ~(1u << pin);
    ioapic->repeats[pin] = 0;
}

static void rise_locked(struct ioapic *ioapic, unsigned pin)
{
    uint64_t entry = ioapic->state.entries[pin];
    bool was_high = ioapic->state.lines & 1u << pin;
    ioapic->state.lines |= 1u << pin;
    if (is_level(entry))
        serve_level_locked(ioapic, pin);
    else if (!was_high && !(entry & ENTRY_MASKED))
        send(ioapic, pin);
}

void ioapic_set_line(struct ioapic *ioapic, unsigned pin, bool asserted)
{
    if (pin >= IOAPIC_PINS)
        return;
    pthread_mutex_lock(&ioapic->lock);
    if (asserted)
        rise_locked(ioapic, pin);
    else
        fall_locked(ioapic, pin);
    pthread_mutex_unlock(&ioapic->lock);
}

/* True when the pin has to rest before it is delivered again. */
static bool is_storm_locked(struct ioapic *ioapic, unsigned pin)
{
    if (!(ioapic->state.lines & 1u << pin) || ++ioapic->repeats[pin] < STORM_COUNT)
        return false;
    ioapic->repeats[pin] = 0;
    if (ioapic->resting) /* the timer runs already, and looks at all pins */
        return true;
    return ioapic->running &&
           loop_timer_arm(&ioapic->storm_timer, clock_monotonic_ns() + STORM_REST_NS) == 0;
}

static void end_of_interrupt_locked(struct ioapic *ioapic, uint8_t vector)
{
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        uint64_t *entry = &ioapic->state.entries[pin];
        if (!(*entry & ENTRY_REMOTE_IRR) || (*entry & ENTRY_VECTOR) != vector)
            continue;
        *entry &= ~(uint64_t)ENTRY_REMOTE_IRR;
        if (is_storm_locked(ioapic, pin))
            ioapic->resting |= 1u << pin;
        serve_level_locked(ioapic, pin);
    }
}

void ioapic_end_of_interrupt(struct ioapic *ioapic, uint8_t vector)
{
    pthread_mutex_lock(&ioapic->lock);
    end_of_interrupt_locked(ioapic, vector);
    pthread_mutex_unlock(&ioapic->lock);
}

void ioapic_settle(struct ioapic *ioapic, const uint32_t live[8])
{
    pthread_mutex_lock(&ioapic->lock);
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        uint64_t *entry = &ioapic->state.entries[pin];
        unsigned vector = *entry & ENTRY_VECTOR;
        if (!(live[vector / 32] & 1u << vector % 32))
            *entry &= ~(uint64_t)ENTRY_REMOTE_IRR;
    }
    pthread_mutex_unlock(&ioapic->lock);
}

static void end_rest_locked(struct ioapic *ioapic)
{
    ioapic->resting = 0;
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        serve_level_locked(ioapic, pin);
}

static void handle_storm_timer(void *arg)
{
    struct ioapic *ioapic = arg;
    pthread_mutex_lock(&ioapic->lock);
    if (ioapic->running) /* else a pause came between the firing and the lock; resume looks */
        end_rest_locked(ioapic);
    pthread_mutex_unlock(&ioapic->lock);
}

/* Registers. */

static uint32_t read_register_locked(const struct ioapic *ioapic)
{
    const struct ioapic_state *state = &ioapic->state;
    unsigned index = state->select;
    switch (index) {
    case REGISTER_ID:
    case REGISTER_ARBITRATION:
        return (uint32_t)state->id << ID_SHIFT;
    case REGISTER_VERSION:
        return VERSION;
    default:
        if (index < REGISTER_ENTRIES || index >= REGISTER_ENTRIES + 2 * IOAPIC_PINS)
            return UINT32_MAX;
        index -= REGISTER_ENTRIES;
        return (uint32_t)(state->entries[index / 2] >> 32 * (index % 2));
    }
}

/* half 0 is the lower one. The route is in place before the first message can need it. */
static void write_entry_locked(struct ioapic *ioapic, unsigned pin, unsigned half, uint32_t value)
{
    uint64_t *entry = &ioapic->state.entries[pin];
    uint64_t writable = ENTRY_WRITABLE & (uint64_t)UINT32_MAX << 32 * half;
    *entry = (*entry & ~writable) | ((uint64_t)value << 32 * half & writable);
    if (!is_level(*entry))
        *entry &= ~(uint64_t)ENTRY_REMOTE_IRR;
    if (update_route_locked(ioapic, pin))
        announce_routes(ioapic);
    serve_level_locked(ioapic, pin);
}

static void write_register_locked(struct ioapic *ioapic, uint32_t value)
{
    unsigned index = ioapic->state.select;
    if (index == REGISTER_ID)
        ioapic->state.id = value >> ID_SHIFT & ID_BITS;
    else if (index >= REGISTER_ENTRIES && index < REGISTER_ENTRIES + 2 * IOAPIC_PINS)
        write_entry_locked(ioapic, (index - REGISTER_ENTRIES) / 2, index % 2, value);
}

static uint64_t handle_read(void *device, uint64_t offset, unsigned width)
{
    struct ioapic *ioapic = device;
    uint32_t value = UINT32_MAX;
    pthread_mutex_lock(&ioapic->lock);
    if ((offset & ~3ull) == PORT_SELECT)
        value = ioapic->state.select;
    else if ((offset & ~3ull) == PORT_WINDOW)
        value = read_register_locked(ioapic);
    pthread_mutex_unlock(&ioapic->lock);
    return value >> 8 * (offset & 3);
}

static void handle_write(void *device, uint64_t offset, unsigned width, uint64_t value)
{
    struct ioapic *ioapic = device;
    pthread_mutex_lock(&ioapic->lock);
    if (offset == PORT_SELECT)
        ioapic->state.select = (uint8_t)value;
    else if (offset == PORT_WINDOW && width == 4) /* 3.1: 32 bits and nothing less */
        write_register_locked(ioapic, (uint32_t)value);
    else if (offset == PORT_EOI)
        end_of_interrupt_locked(ioapic, (uint8_t)value);
    pthread_mutex_unlock(&ioapic->lock);
}

static const struct bus_ops bus_ops = {"ioapic", 4, handle_read, handle_write};

/* Device. */

static struct ioapic *ioapic_of(struct device *device)
{
    return container_of(device, struct ioapic, device);
}

static void power_on(struct ioapic_state *state)
{
    *state = (struct ioapic_state){0};
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        state->entries[pin] = ENTRY_MASKED;
}

static void handle_reset(struct device *device)
{
    struct ioapic *ioapic = ioapic_of(device);
    pthread_mutex_lock(&ioapic->lock);
    power_on(&ioapic->state);
    renew_routes_locked(ioapic);
    pthread_mutex_unlock(&ioapic->lock);
}

static void handle_pause(struct device *device)
{
    struct ioapic *ioapic = ioapic_of(device);
    pthread_mutex_lock(&ioapic->lock);
    ioapic->running = false;
    loop_timer_cancel(&ioapic->storm_timer);
    pthread_mutex_unlock(&ioapic->lock);
}

/* A redelivery that waited for the storm timer is one that is due: resume needs no memory of it. */
static void handle_resume(struct device *device)
{
    struct ioapic *ioapic = ioapic_of(device);
    pthread_mutex_lock(&ioapic->lock);
    ioapic->running = true;
    renew_routes_locked(ioapic);
    end_rest_locked(ioapic);
    pthread_mutex_unlock(&ioapic->lock);
}

static void handle_destroy(struct device *device)
{
    struct ioapic *ioapic = ioapic_of(device);
    if (ioapic->on_bus)
        bus_remove(ioapic->mmio, ioapic->config.base);
    loop_timer_cancel(&ioapic->storm_timer);
    pthread_mutex_destroy(&ioapic->routes_lock);
    pthread_mutex_destroy(&ioapic->lock);
    free(ioapic);
}

static const struct device_ops ioapic_ops = {
    .reset = handle_reset,
    .pause = handle_pause,
    .resume = handle_resume,
    .destroy = handle_destroy,
};

/* State. */

static int validate(const void *object, struct err *err)
{
    const struct ioapic_state *state = object;
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        uint64_t entry = state->entries[pin];
        if (entry & ~(ENTRY_WRITABLE | ENTRY_REMOTE_IRR))
            return err_say(err, ERR_FAILED, EBADMSG, "pin %u has reserved bits set", pin);
        if (entry & ENTRY_REMOTE_IRR && !is_level(entry))
            return err_say(err, ERR_FAILED, EBADMSG, "pin %u waits for the EOI of an edge", pin);
    }
    return 0;
}

static const struct state_field ioapic_fields[] = {
    STATE_FIELD_U64(struct ioapic_state, entries),
    STATE_FIELD_U32(struct ioapic_state, lines, .max = (1u << IOAPIC_PINS) - 1),
    STATE_FIELD_U8(struct ioapic_state, id, .max = ID_BITS),
    STATE_FIELD_U8(struct ioapic_state, select),
    STATE_FIELD_BYTES(struct ioapic_state, reserved),
};

static const struct state_table ioapic_table = {
    .name = "ioapic",
    .version = 1,
    STATE_TABLE_OF(struct ioapic_state, ioapic_fields),
    .validate = validate,
};

/* Create. */

int ioapic_create(struct ioapic **ret_ioapic, struct bus *mmio, const struct ioapic_config *config,
                  struct err *err)
{
    struct ioapic *ioapic = calloc(1, sizeof(*ioapic));
    if (!ioapic)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot create the I/O APIC");
    ioapic->device = (struct device){
        .ops = &ioapic_ops, .table = &ioapic_table, .state = &ioapic->state};
    ioapic->mmio = mmio;
    ioapic->config = *config;
    pthread_mutex_init(&ioapic->lock, NULL);
    pthread_mutex_init(&ioapic->routes_lock, NULL);
    loop_timer_init(&ioapic->storm_timer, config->loop, handle_storm_timer, ioapic);
    power_on(&ioapic->state);
    int ret = bus_add(mmio, config->base, IOAPIC_SIZE, &bus_ops, ioapic, err);
    if (ret < 0) {
        handle_destroy(&ioapic->device);
        return ret;
    }
    ioapic->on_bus = true;
    *ret_ioapic = ioapic;
    return 0;
}

struct device *ioapic_device(struct ioapic *ioapic)
{
    return &ioapic->device;
}
