/* SPDX-License-Identifier: MIT */
/*
 * The 8042 of the IBM AT (Technical Reference, "Keyboard Controller") and the PS/2's port 0x92.
 *
 * Neither a keyboard nor a mouse is plugged in, and drivers shall find that out without waiting for
 * their time-outs. So each question gets an answer at once: a byte for the keyboard ends like a
 * transmission that timed out (0xfe and the status bit), and the test of the mouse interface finds
 * its clock line stuck, which is what controllers without one report.
 *
 * A20 is a bit that can be read back: memory above 1 MiB is always there.
 */
#include "devices/i8042.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

enum { PORT_DATA = 0x60, PORT_COMMAND = 0x64, PORT_CONTROL_A = 0x92 };

enum {
    STATUS_OUTPUT = 0x01,  /* a byte waits at the data port */
    STATUS_SYSTEM = 0x04,  /* follows MODE_SYSTEM */
    STATUS_COMMAND = 0x08, /* the last write went to the command port */
    STATUS_UNLOCKED = 0x10,
    STATUS_TIMEOUT = 0x40,

    MODE_INTERRUPT = 0x01,
    MODE_SYSTEM = 0x04, /* the self-test has passed */
    MODE_KEYBOARD_OFF = 0x10,
    MODE_MOUSE_OFF = 0x20, /* always: this is a controller for one device */
    MODE_TRANSLATE = 0x40,
    MODE_POWER_ON = MODE_INTERRUPT | MODE_SYSTEM | MODE_MOUSE_OFF | MODE_TRANSLATE,

    OUTPUT_PORT_NOT_RESET = 0x01,
    OUTPUT_PORT_A20 = 0x02,

    CONTROL_A_RESET = 0x01,
    CONTROL_A_A20 = 0x02,
};

enum command {
    COMMAND_NONE = 0x00,
    COMMAND_READ_MODE = 0x20,
    COMMAND_WRITE_MODE = 0x60, /* takes a byte */
    COMMAND_TEST_MOUSE = 0xa9,
    COMMAND_SELF_TEST = 0xaa,
    COMMAND_TEST_KEYBOARD = 0xab,
    COMMAND_KEYBOARD_OFF = 0xad,
    COMMAND_KEYBOARD_ON = 0xae,
    COMMAND_READ_INPUT_PORT = 0xc0,
    COMMAND_READ_OUTPUT_PORT = 0xd0,
    COMMAND_WRITE_OUTPUT_PORT = 0xd1, /* takes a byte */
    COMMAND_FROM_KEYBOARD = 0xd2,     /* takes a byte, and so on... */
    COMMAND_FROM_MOUSE = 0xd3,
    COMMAND_TO_MOUSE = 0xd4, /* ...to here */
    COMMAND_A20_OFF = 0xdd,
    COMMAND_A20_ON = 0xdf,
    COMMAND_READ_TEST_INPUTS = 0xe0,
    COMMAND_PULSE = 0xf0, /* to 0xff: pulls the output port's lines low where a bit is 0 */
    PULSE_NOT_RESET = 0x01,
};

enum {
    ANSWER_SELF_TEST = 0x55,
    ANSWER_LINES_GOOD = 0x00,
    ANSWER_CLOCK_STUCK = 0x01,
    ANSWER_INPUT_PORT = 0x80, /* not locked */
    ANSWER_RESEND = 0xfe,
};

struct i8042_state {
    uint8_t mode;    /* the "command byte" */
    uint8_t status;  /* STATUS_OUTPUT, STATUS_COMMAND, STATUS_TIMEOUT */
    uint8_t output;  /* what the data port reads; stays after it was read */
    uint8_t command; /* waits for its byte */
    bool a20;
};

struct i8042 {
    struct device device;
    pthread_mutex_t lock; /* the state */
    struct i8042_state state;
    struct power power;
    struct bus *ports;
    bool added[3]; /* which of our ranges are on the bus */
};

static void answer_locked(struct i8042 *i8042, uint8_t byte)
{
    i8042->state.output = byte;
    i8042->state.status |= STATUS_OUTPUT;
    i8042->state.status &= ~STATUS_TIMEOUT;
}

static void answer_nobody_locked(struct i8042 *i8042)
{
    answer_locked(i8042, ANSWER_RESEND);
    i8042->state.status |= STATUS_TIMEOUT;
}

static uint8_t output_port(const struct i8042_state *state)
{
    return OUTPUT_PORT_NOT_RESET | (state->a20 ? OUTPUT_PORT_A20 : 0);
}

/* True when the machine is to be reset. */
static bool handle_command_locked(struct i8042 *i8042, uint8_t command)
{
    struct i8042_state *state = &i8042->state;

    state->status |= STATUS_COMMAND;
    state->command = COMMAND_NONE;
    if (command >= COMMAND_PULSE)
        return !(command & PULSE_NOT_RESET);
    switch (command) {
    case COMMAND_READ_MODE:
        answer_locked(i8042, state->mode);
        break;
    case COMMAND_WRITE_MODE:
    case COMMAND_WRITE_OUTPUT_PORT:
    case COMMAND_FROM_KEYBOARD:
    case COMMAND_FROM_MOUSE:
    case COMMAND_TO_MOUSE:
        state->command = command;
        break;
    case COMMAND_TEST_MOUSE:
        answer_locked(i8042, ANSWER_CLOCK_STUCK);
        break;
    case COMMAND_SELF_TEST:
        state->mode |= MODE_SYSTEM;
        answer_locked(i8042, ANSWER_SELF_TEST);
        break;
    case COMMAND_TEST_KEYBOARD:
        answer_locked(i8042, ANSWER_LINES_GOOD);
        break;
    case COMMAND_KEYBOARD_OFF:
        state->mode |= MODE_KEYBOARD_OFF;
        break;
    case COMMAND_KEYBOARD_ON:
        state->mode &= ~MODE_KEYBOARD_OFF;
        break;
    case COMMAND_READ_INPUT_PORT:
        answer_locked(i8042, ANSWER_INPUT_PORT);
        break;
    case COMMAND_READ_OUTPUT_PORT:
        answer_locked(i8042, output_port(state));
        break;
    case COMMAND_A20_OFF:
    case COMMAND_A20_ON:
        state->a20 = command == COMMAND_A20_ON;
        break;
    case COMMAND_READ_TEST_INPUTS:
        answer_locked(i8042, 0);
        break;
    default: /* the mouse's on and off among them: it is always off */
        break;
    }
    return false;
}

/* A byte for the command that waits, or else for the keyboard. True when the machine is to be
 * reset. */
static bool handle_data_locked(struct i8042 *i8042, uint8_t byte)
{
    struct i8042_state *state = &i8042->state;
    uint8_t command = state->command;

    state->status &= ~STATUS_COMMAND;
    state->command = COMMAND_NONE;
    switch (command) {
    case COMMAND_WRITE_MODE:
        state->mode = byte | MODE_MOUSE_OFF;
        return false;
    case COMMAND_WRITE_OUTPUT_PORT:
        state->a20 = byte & OUTPUT_PORT_A20;
        return !(byte & OUTPUT_PORT_NOT_RESET);
    case COMMAND_FROM_KEYBOARD:
    case COMMAND_FROM_MOUSE: /* without a mouse's status bit: the loop test finds none */
        answer_locked(i8042, byte);
        return false;
    default:
        answer_nobody_locked(i8042);
        return false;
    }
}

static uint64_t handle_data_read(void *device, uint64_t offset, unsigned width)
{
    struct i8042 *i8042 = device;

    pthread_mutex_lock(&i8042->lock);
    uint8_t value = i8042->state.output;
    i8042->state.status &= ~(STATUS_OUTPUT | STATUS_TIMEOUT);
    pthread_mutex_unlock(&i8042->lock);
    return value;
}

static uint64_t handle_status_read(void *device, uint64_t offset, unsigned width)
{
    struct i8042 *i8042 = device;

    pthread_mutex_lock(&i8042->lock);
    uint8_t value = i8042->state.status | STATUS_UNLOCKED;
    if (i8042->state.mode & MODE_SYSTEM)
        value |= STATUS_SYSTEM;
    pthread_mutex_unlock(&i8042->lock);
    return value;
}

static uint64_t handle_control_a_read(void *device, uint64_t offset, unsigned width)
{
    struct i8042 *i8042 = device;

    pthread_mutex_lock(&i8042->lock);
    uint8_t value = i8042->state.a20 ? CONTROL_A_A20 : 0;
    pthread_mutex_unlock(&i8042->lock);
    return value;
}

static void handle_data_write(void *device, uint64_t offset, unsigned width, uint64_t value)
{
    struct i8042 *i8042 = device;

    pthread_mutex_lock(&i8042->lock);
    bool reset = handle_data_locked(i8042, value);
    pthread_mutex_unlock(&i8042->lock);
    if (reset)
        power_request(&i8042->power, POWER_RESET, 0);
}

static void handle_command_write(void *device, uint64_t offset, unsigned width, uint64_t value)
{
    struct i8042 *i8042 = device;

    pthread_mutex_lock(&i8042->lock);
    bool reset = handle_command_locked(i8042, value);
    pthread_mutex_unlock(&i8042->lock);
    if (reset)
        power_request(&i8042->power, POWER_RESET, 0);
}

static void handle_control_a_write(void *device, uint64_t offset, unsigned width, uint64_t value)
{
    struct i8042 *i8042 = device;

    pthread_mutex_lock(&i8042->lock);
    i8042->state.a20 = value & CONTROL_A_A20;
    pthread_mutex_unlock(&i8042->lock);
    if (value & CONTROL_A_RESET)
        power_request(&i8042->power, POWER_RESET, 0);
}

/* Single ports, because the speaker's 0x61 lies between them and belongs to the timer. */
static const struct {
    uint16_t port;
    struct bus_ops ops;
} ranges[] = {
    {PORT_DATA, {"i8042 data", 1, handle_data_read, handle_data_write}},
    {PORT_COMMAND, {"i8042 command", 1, handle_status_read, handle_command_write}},
    {PORT_CONTROL_A, {"system control A", 1, handle_control_a_read, handle_control_a_write}},
};

static void i8042_reset(struct device *device)
{
    struct i8042 *i8042 = container_of(device, struct i8042, device);

    pthread_mutex_lock(&i8042->lock);
    i8042->state = (struct i8042_state){.mode = MODE_POWER_ON, .a20 = true};
    pthread_mutex_unlock(&i8042->lock);
}

static void i8042_resume(struct device *device)
{
    /* Nothing runs by itself, and nothing outside follows the state. */
}

static void i8042_destroy(struct device *device)
{
    struct i8042 *i8042 = container_of(device, struct i8042, device);

    for (size_t i = 0; i < array_size(ranges); i++)
        if (i8042->added[i])
            bus_remove(i8042->ports, ranges[i].port);
    pthread_mutex_destroy(&i8042->lock);
    free(i8042);
}

static const struct device_ops device_ops = {
    .reset = i8042_reset,
    .resume = i8042_resume,
    .destroy = i8042_destroy,
};

static const struct state_field fields[] = {
    STATE_FIELD_U8(struct i8042_state, mode),   STATE_FIELD_U8(struct i8042_state, status),
    STATE_FIELD_U8(struct i8042_state, output), STATE_FIELD_U8(struct i8042_state, command),
    STATE_FIELD_BOOL(struct i8042_state, a20),
};

static const struct state_table table = {
    .name = "i8042",
    .version = 1,
    STATE_TABLE_OF(struct i8042_state, fields),
};

struct device *i8042_device(struct i8042 *i8042)
{
    return &i8042->device;
}

int i8042_create(struct i8042 **ret_i8042, struct bus *ports, const struct power *power,
                 struct err *err)
{
    struct i8042 *i8042 = calloc(1, sizeof(*i8042));
    int r = 0;

    if (!i8042)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot make the keyboard controller");
    i8042->device = (struct device){.ops = &device_ops, .table = &table, .state = &i8042->state};
    i8042->power = *power;
    i8042->ports = ports;
    pthread_mutex_init(&i8042->lock, NULL);
    i8042_reset(&i8042->device);

    for (size_t i = 0; i < array_size(ranges); i++) {
        r = bus_add(ports, ranges[i].port, 1, &ranges[i].ops, i8042, err);
        if (r < 0)
            goto fail;
        i8042->added[i] = true;
    }
    *ret_i8042 = i8042;
    return 0;

fail:
    i8042_destroy(&i8042->device);
    return r;
}
