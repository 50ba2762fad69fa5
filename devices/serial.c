/* SPDX-License-Identifier: MIT */
/*
 * The 16550A UART, as the PC16550D data sheet (section 8, "Registers") has it and as a PC wires it:
 * the interrupt pin reaches the interrupt controller only while OUT2 is on.
 *
 * Where ours differs from silicon, it is only faster: a character needs no time. So the transmitter
 * is always empty, and the pause of four characters after which a receiver below its trigger level
 * calls for help ("character timeout") is over at once. What a driver sees of a transmitter is then
 * one bit, thr_empty: the interrupt that says "send more", which comes back with every byte sent.
 *
 * Only while the far end takes nothing the transmitter shows as busy, and "send more" waits. This
 * is no part of the state: another host may take more, and then the guest sees so at once.
 *
 * Our BIOS shares the line: its text goes out here and its keys come from here, until the guest
 * has a driver of its own, which would print everything twice. From the first byte that the guest
 * writes to the transmitter, firmware's text is dropped; from the first byte that it reads out of
 * the receiver, firmware gets no more keys; each until the next reset. Setting registers up and
 * asking LSR change nothing: a loader that only prints here still gets its keys from the BIOS.
 * While the firmware listens the receiver has its 16 places whatever FCR says, so that the few
 * bytes of an arrow key arrive together.
 *
 * The shape of a device, here and everywhere: what the guest can see (the state) · our side (the
 * private struct) · helpers · register handlers · life (reset, pause, resume, destroy) · the state
 * table · create.
 */
#include "devices/serial.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { FIFO_SIZE = 16 };

/* Registers. The first two are the divisor while LCR_DLAB is set. */
enum {
    REG_DATA = 0, /* read: received byte; write: byte to send */
    REG_IER = 1,
    REG_IIR = 2, /* read only... */
    REG_FCR = 2, /* ...and write only, at the same place */
    REG_LCR = 3,
    REG_MCR = 4,
    REG_LSR = 5,
    REG_MSR = 6,
    REG_SCRATCH = 7,
    REG_COUNT = 8,
};

enum {
    IER_DATA = 0x01,
    IER_THR_EMPTY = 0x02,
    IER_LINE = 0x04,
    IER_MODEM = 0x08,
    IER_ALL = 0x0f,

    IIR_MODEM = 0x00, /* the causes, lowest priority first */
    IIR_THR_EMPTY = 0x02,
    IIR_TIMEOUT = 0x0c,
    IIR_DATA = 0x04,
    IIR_LINE = 0x06,
    IIR_NONE = 0x01,
    IIR_FIFO_ON = 0xc0,

    FCR_ENABLE = 0x01,
    FCR_CLEAR_RX = 0x02,
    FCR_TRIGGER = 0xc0,

    LCR_DLAB = 0x80,

    MCR_DTR = 0x01,
    MCR_RTS = 0x02,
    MCR_OUT1 = 0x04,
    MCR_OUT2 = 0x08,
    MCR_LOOP = 0x10,
    MCR_ALL = 0x1f,

    LSR_DATA = 0x01,
    LSR_OVERRUN = 0x02,
    LSR_BREAK = 0x10,
    LSR_ERRORS = 0x1f, /* where errors lie: bits that stay in here whatever is OR-ed to them */
    LSR_THR_EMPTY = 0x20,
    LSR_ALL_SENT = 0x40,
    LSR_FIFO_ERROR = 0x80,

    MSR_CHANGES = 0x0f, /* bit n: line n+4 has changed */
    MSR_RI_FELL = 0x04, /* ...but the ring indicator counts only when it goes off */
    MSR_CTS = 0x10,
    MSR_DSR = 0x20,
    MSR_RI = 0x40,
    MSR_DCD = 0x80,
};

/* All that the guest can see. Only bytes, so there is no padding. */
struct serial_state {
    uint8_t divisor[2]; /* low, high; stored and otherwise meaningless: no character takes time */
    uint8_t ier;
    uint8_t fcr; /* FCR_ENABLE and FCR_TRIGGER; the clear bits act and are forgotten */
    uint8_t lcr;
    uint8_t mcr;
    uint8_t scratch;
    uint8_t line_errors;   /* LSR_OVERRUN and LSR_BREAK, until LSR is read */
    uint8_t modem_changes; /* low half of MSR, until MSR is read */
    bool thr_empty;        /* "send more" has not been taken yet */
    uint8_t rx_count;
    uint8_t rx[FIFO_SIZE]; /* received, oldest first; zeroes behind rx_count */
    uint8_t
        rx_errors[FIFO_SIZE]; /* LSR_BREAK where byte n came as a break, shown when it is next */
    bool guest_sends;         /* the transmitter is the guest's */
    uint8_t receiver;         /* RECEIVER_ */
};

/* Whose received bytes are, since the reset. */
enum { RECEIVER_NOBODY, RECEIVER_FIRMWARE, RECEIVER_GUEST };

struct serial {
    struct device device;
    pthread_mutex_t lock; /* everything below that changes */
    struct serial_state state;
    struct irq_line line;
    bool paused;
    bool refused; /* the host has more input than we took, and waits for input_room */
    bool full;    /* the host takes no output */
    struct serial_host host;
    uint16_t base;
    struct bus *ports; /* NULL until our range is on it */
};

static bool fifo_on(const struct serial_state *state)
{
    return state->fcr & FCR_ENABLE;
}

/* What is sent in loopback goes nowhere where it could wait. */
static bool is_busy(const struct serial *serial)
{
    return serial->full && !(serial->state.mcr & MCR_LOOP);
}

static unsigned rx_capacity(const struct serial_state *state)
{
    return fifo_on(state) || state->receiver == RECEIVER_FIRMWARE ? FIFO_SIZE : 1;
}

static unsigned rx_trigger(const struct serial_state *state)
{
    static const uint8_t levels[4] = {1, 4, 8, 14};

    return fifo_on(state) ? levels[state->fcr >> 6] : 1;
}

/* The cause that IIR shows: of those that are enabled the one with the highest priority. */
static uint8_t interrupt_cause(const struct serial *serial)
{
    const struct serial_state *state = &serial->state;

    if ((state->ier & IER_LINE) && state->line_errors)
        return IIR_LINE;
    if ((state->ier & IER_DATA) && state->rx_count >= rx_trigger(state))
        return IIR_DATA;
    if ((state->ier & IER_DATA) && state->rx_count > 0)
        return IIR_TIMEOUT;
    if ((state->ier & IER_THR_EMPTY) && state->thr_empty && !is_busy(serial))
        return IIR_THR_EMPTY;
    if ((state->ier & IER_MODEM) && state->modem_changes)
        return IIR_MODEM;
    return IIR_NONE;
}

/* The gate behind OUT2 is closed in loopback too, which cuts the modem outputs off. */
static bool line_level(const struct serial *serial)
{
    return (serial->state.mcr & (MCR_OUT2 | MCR_LOOP)) == MCR_OUT2 &&
           interrupt_cause(serial) != IIR_NONE;
}

/*
 * A cause fell, and came again at once because nothing takes time here. On silicon the line would
 * have been low in between, and a driver on an edge-triggered input lives on that edge.
 */
static void pulse_line_locked(struct serial *serial)
{
    irq_line_set(&serial->line, false);
    irq_line_set(&serial->line, line_level(serial));
}

/* In loopback the four modem outputs come back as the four inputs; else a modem is there and ready.
 */
static uint8_t modem_lines(uint8_t mcr)
{
    if (!(mcr & MCR_LOOP))
        return MSR_DCD | MSR_DSR | MSR_CTS;
    return (mcr & MCR_RTS ? MSR_CTS : 0) | (mcr & MCR_DTR ? MSR_DSR : 0) |
           (mcr & MCR_OUT1 ? MSR_RI : 0) | (mcr & MCR_OUT2 ? MSR_DCD : 0);
}

static void set_mcr_locked(struct serial *serial, uint8_t mcr)
{
    struct serial_state *state = &serial->state;
    uint8_t before = modem_lines(state->mcr);
    uint8_t after = modem_lines(mcr);
    uint8_t changed = (before ^ after) >> 4;

    if (after & MSR_RI)
        changed &= ~MSR_RI_FELL;
    state->modem_changes |= changed;
    state->mcr = mcr;
}

/* The errors of a byte show in LSR when it becomes the next one to be read. */
static void show_errors_of_next_locked(struct serial *serial)
{
    serial->state.line_errors |= serial->state.rx_errors[0] & LSR_BREAK;
    serial->state.rx_errors[0] = 0;
}

static void clear_rx_locked(struct serial *serial)
{
    struct serial_state *state = &serial->state;

    state->rx_count = 0;
    memset(state->rx, 0, sizeof(state->rx));
    memset(state->rx_errors, 0, sizeof(state->rx_errors));
}

static void receive_locked(struct serial *serial, uint8_t byte, uint8_t errors)
{
    struct serial_state *state = &serial->state;

    if (state->rx_count >= rx_capacity(state)) {
        state->line_errors |= LSR_OVERRUN;
        if (rx_capacity(state) > 1)
            return;              /* a full FIFO keeps what it has... */
        clear_rx_locked(serial); /* ...a single register takes the newest */
    }
    state->rx[state->rx_count] = byte;
    state->rx_errors[state->rx_count] = errors;
    state->rx_count++;
    if (state->rx_count == 1)
        show_errors_of_next_locked(serial);
}

static void drop_oldest_locked(struct serial *serial)
{
    struct serial_state *state = &serial->state;

    state->rx_count--;
    memmove(state->rx, state->rx + 1, FIFO_SIZE - 1);
    memmove(state->rx_errors, state->rx_errors + 1, FIFO_SIZE - 1);
    state->rx[FIFO_SIZE - 1] = 0;
    state->rx_errors[FIFO_SIZE - 1] = 0;
    show_errors_of_next_locked(serial);
}

static uint8_t read_data_locked(struct serial *serial)
{
    struct serial_state *state = &serial->state;
    uint8_t byte = state->rx[0];
    bool timeout = state->rx_count < rx_trigger(state);

    if (state->rx_count == 0)
        return 0;
    if (!(state->mcr & MCR_LOOP))
        state->receiver = RECEIVER_GUEST;
    drop_oldest_locked(serial);
    if (timeout) /* a read ends the timeout cause, and the next four characters are over already */
        pulse_line_locked(serial);
    return byte;
}

static void write_data_locked(struct serial *serial, uint8_t byte)
{
    if (serial->state.mcr & MCR_LOOP) {
        receive_locked(serial, byte, 0);
    } else {
        serial->state.guest_sends = true;
        serial->host.output(serial->host.ctx, &byte, 1);
        serial->full = serial->host.output_takes && !serial->host.output_takes(serial->host.ctx);
    }
    serial->state.thr_empty = true;
    pulse_line_locked(serial);
}

static void write_ier_locked(struct serial *serial, uint8_t ier)
{
    struct serial_state *state = &serial->state;

    /* Switching it on asks again. No data sheet says so, every driver relies on it, and Linux takes
     * a port that stays silent here for a broken one (its TXEN and THRE tests). */
    if (~state->ier & ier & IER_THR_EMPTY)
        state->thr_empty = true;
    state->ier = ier & IER_ALL;
}

static void write_fcr_locked(struct serial *serial, uint8_t fcr)
{
    struct serial_state *state = &serial->state;

    if (((state->fcr ^ fcr) & FCR_ENABLE) || (fcr & FCR_CLEAR_RX))
        clear_rx_locked(serial);
    /* Without FCR_ENABLE the other bits are not even written. */
    state->fcr = fcr & FCR_ENABLE ? fcr & (FCR_ENABLE | FCR_TRIGGER) : 0;
}

static uint8_t read_iir_locked(struct serial *serial)
{
    struct serial_state *state = &serial->state;
    uint8_t cause = interrupt_cause(serial);

    if (cause == IIR_THR_EMPTY)
        state->thr_empty = false;
    return cause | (fifo_on(state) ? IIR_FIFO_ON : 0);
}

static uint8_t read_lsr_locked(struct serial *serial)
{
    struct serial_state *state = &serial->state;
    uint8_t lsr = state->line_errors;

    if (!is_busy(serial))
        lsr |= LSR_THR_EMPTY | LSR_ALL_SENT;
    if (state->rx_count > 0)
        lsr |= LSR_DATA;
    if (fifo_on(state) && ((state->line_errors & LSR_BREAK) ||
                           memchr(state->rx_errors, LSR_BREAK, sizeof(state->rx_errors))))
        lsr |= LSR_FIFO_ERROR;
    state->line_errors = 0;
    return lsr;
}

static uint8_t read_msr_locked(struct serial *serial)
{
    uint8_t msr = modem_lines(serial->state.mcr) | serial->state.modem_changes;

    serial->state.modem_changes = 0;
    return msr;
}

static uint8_t read_register_locked(struct serial *serial, unsigned reg)
{
    struct serial_state *state = &serial->state;

    if (reg <= REG_IER && (state->lcr & LCR_DLAB))
        return state->divisor[reg];
    switch (reg) {
    case REG_DATA:
        return read_data_locked(serial);
    case REG_IER:
        return state->ier;
    case REG_IIR:
        return read_iir_locked(serial);
    case REG_LCR:
        return state->lcr;
    case REG_MCR:
        return state->mcr;
    case REG_LSR:
        return read_lsr_locked(serial);
    case REG_MSR:
        return read_msr_locked(serial);
    case REG_SCRATCH:
        return state->scratch;
    }
    return 0xff;
}

static void write_register_locked(struct serial *serial, unsigned reg, uint8_t value)
{
    struct serial_state *state = &serial->state;

    if (reg <= REG_IER && (state->lcr & LCR_DLAB)) {
        state->divisor[reg] = value;
        return;
    }
    switch (reg) {
    case REG_DATA:
        write_data_locked(serial, value);
        break;
    case REG_IER:
        write_ier_locked(serial, value);
        break;
    case REG_FCR:
        write_fcr_locked(serial, value);
        break;
    case REG_LCR:
        state->lcr = value;
        break;
    case REG_MCR:
        set_mcr_locked(serial, value & MCR_ALL);
        break;
    case REG_SCRATCH:
        state->scratch = value;
        break;
    default: /* LSR and MSR are for reading; writing them is for the factory's tests */
        break;
    }
}

static bool listening(const struct serial *serial)
{
    return !serial->paused && !(serial->state.mcr & MCR_LOOP);
}

/*
 * True when the host is to be told of room. We wait for an empty FIFO, although a single place
 * would do: the guest then gets 16 bytes with each interrupt, and the host one call for 16 bytes.
 */
static bool take_room_locked(struct serial *serial)
{
    bool room = serial->refused && listening(serial) && serial->state.rx_count == 0;

    if (room)
        serial->refused = false;
    return room;
}

static uint64_t handle_read(void *device, uint64_t offset, unsigned width)
{
    struct serial *serial = device;

    pthread_mutex_lock(&serial->lock);
    uint8_t value = read_register_locked(serial, offset);
    irq_line_set(&serial->line, line_level(serial));
    bool room = take_room_locked(serial);
    pthread_mutex_unlock(&serial->lock);

    if (room)
        serial->host.input_room(serial->host.ctx);
    return value;
}

static void handle_write(void *device, uint64_t offset, unsigned width, uint64_t value)
{
    struct serial *serial = device;

    pthread_mutex_lock(&serial->lock);
    write_register_locked(serial, offset, value);
    irq_line_set(&serial->line, line_level(serial));
    bool room = take_room_locked(serial);
    pthread_mutex_unlock(&serial->lock);

    if (room)
        serial->host.input_room(serial->host.ctx);
}

static const struct bus_ops register_ops = {
    .name = "serial",
    .max_width = 1,
    .read = handle_read,
    .write = handle_write,
};

size_t serial_input(struct serial *serial, const uint8_t *bytes, size_t length)
{
    size_t taken = 0;

    pthread_mutex_lock(&serial->lock);
    if (listening(serial)) {
        while (taken < length && serial->state.rx_count < rx_capacity(&serial->state))
            receive_locked(serial, bytes[taken++], 0);
        irq_line_set(&serial->line, line_level(serial));
    }
    if (taken < length)
        serial->refused = true;
    pthread_mutex_unlock(&serial->lock);
    return taken;
}

void serial_output_room(struct serial *serial)
{
    pthread_mutex_lock(&serial->lock);
    serial->full = false;
    if (!serial->paused)
        irq_line_set(&serial->line, line_level(serial));
    pthread_mutex_unlock(&serial->lock);
}

void serial_break(struct serial *serial)
{
    pthread_mutex_lock(&serial->lock);
    if (listening(serial)) {
        receive_locked(serial, 0, LSR_BREAK);
        irq_line_set(&serial->line, line_level(serial));
    }
    pthread_mutex_unlock(&serial->lock);
}

bool serial_firmware_write(struct serial *serial, const uint8_t *bytes, size_t length)
{
    pthread_mutex_lock(&serial->lock);
    bool ours = !serial->state.guest_sends;
    if (ours && length > 0)
        serial->host.output(serial->host.ctx, bytes, length);
    pthread_mutex_unlock(&serial->lock);
    return ours;
}

/* What the host could not place before may fit now: behind the beginning of a key waits its rest.
 */
static bool take_firmware_room_locked(struct serial *serial)
{
    bool room = serial->refused && listening(serial) &&
                serial->state.rx_count < rx_capacity(&serial->state);

    if (room)
        serial->refused = false;
    return room;
}

size_t serial_firmware_peek(struct serial *serial, uint8_t *to, size_t room)
{
    struct serial_state *state = &serial->state;
    size_t count = 0;
    bool more = false;

    pthread_mutex_lock(&serial->lock);
    if (state->receiver != RECEIVER_GUEST && !(state->mcr & MCR_LOOP)) {
        state->receiver = RECEIVER_FIRMWARE;
        count = state->rx_count < room ? state->rx_count : room;
        memcpy(to, state->rx, count);
        more = take_firmware_room_locked(serial);
    }
    pthread_mutex_unlock(&serial->lock);

    if (more)
        serial->host.input_room(serial->host.ctx);
    return count;
}

void serial_firmware_take(struct serial *serial, size_t count)
{
    bool more = false;

    pthread_mutex_lock(&serial->lock);
    if (serial->state.receiver == RECEIVER_FIRMWARE) {
        for (; count > 0 && serial->state.rx_count > 0; count--)
            drop_oldest_locked(serial);
        irq_line_set(&serial->line, line_level(serial));
        more = take_firmware_room_locked(serial);
    }
    pthread_mutex_unlock(&serial->lock);

    if (more)
        serial->host.input_room(serial->host.ctx);
}

static void serial_reset(struct device *device)
{
    struct serial *serial = container_of(device, struct serial, device);

    pthread_mutex_lock(&serial->lock);
    memset(&serial->state, 0, sizeof(serial->state));
    serial->full = false;
    irq_line_set(&serial->line, false);
    pthread_mutex_unlock(&serial->lock);
}

static void serial_pause(struct device *device)
{
    struct serial *serial = container_of(device, struct serial, device);

    pthread_mutex_lock(&serial->lock);
    serial->paused = true;
    pthread_mutex_unlock(&serial->lock);
}

static void serial_resume(struct device *device)
{
    struct serial *serial = container_of(device, struct serial, device);

    pthread_mutex_lock(&serial->lock);
    serial->paused = false;
    irq_line_renew(&serial->line, line_level(serial));
    bool room = take_room_locked(serial);
    pthread_mutex_unlock(&serial->lock);

    if (room)
        serial->host.input_room(serial->host.ctx);
}

static void serial_destroy(struct device *device)
{
    struct serial *serial = container_of(device, struct serial, device);

    if (serial->ports)
        bus_remove(serial->ports, serial->base);
    pthread_mutex_destroy(&serial->lock);
    free(serial);
}

static const struct device_ops device_ops = {
    .reset = serial_reset,
    .pause = serial_pause,
    .resume = serial_resume,
    .destroy = serial_destroy,
};

static const struct state_field fields[] = {
    STATE_FIELD_U8(struct serial_state, divisor),
    STATE_FIELD_U8(struct serial_state, ier, .max = IER_ALL),
    STATE_FIELD_U8(struct serial_state, fcr),
    STATE_FIELD_U8(struct serial_state, lcr),
    STATE_FIELD_U8(struct serial_state, mcr, .max = MCR_ALL),
    STATE_FIELD_U8(struct serial_state, scratch),
    STATE_FIELD_U8(struct serial_state, line_errors, .max = LSR_ERRORS),
    STATE_FIELD_U8(struct serial_state, modem_changes, .max = MSR_CHANGES),
    STATE_FIELD_BOOL(struct serial_state, thr_empty),
    STATE_FIELD_U8(struct serial_state, rx_count, .max = FIFO_SIZE),
    STATE_FIELD_BYTES(struct serial_state, rx),
    STATE_FIELD_U8(struct serial_state, rx_errors, .max = LSR_ERRORS),
    STATE_FIELD_BOOL(struct serial_state, guest_sends, .since = 2),
    STATE_FIELD_U8(struct serial_state, receiver, .max = RECEIVER_GUEST, .since = 2),
};

static const struct state_table table = {
    .name = "serial",
    .version = 2,
    STATE_TABLE_OF(struct serial_state, fields),
};

struct device *serial_device(struct serial *serial)
{
    return &serial->device;
}

int serial_create(struct serial **ret_serial, struct bus *ports, uint16_t base,
                  const struct irq_chip *chip, unsigned line, const struct serial_host *host,
                  struct err *err)
{
    struct serial *serial = calloc(1, sizeof(*serial));
    int r;

    if (!serial)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot make the serial port at 0x%x", base);
    serial->device = (struct device){
        .ops = &device_ops, .table = &table, .state = &serial->state, .instance = base};
    serial->host = *host;
    serial->base = base;
    serial->paused = true;
    pthread_mutex_init(&serial->lock, NULL);
    irq_line_init(&serial->line, chip, line);

    r = bus_add(ports, base, REG_COUNT, &register_ops, serial, err);
    if (r < 0)
        goto fail;
    serial->ports = ports;
    *ret_serial = serial;
    return 0;

fail:
    serial_destroy(&serial->device);
    return r;
}
