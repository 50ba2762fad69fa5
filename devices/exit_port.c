/* SPDX-License-Identifier: MIT */
/*
 * A port of our own making: no real machine has it, and no machine of a user gets it. What was
 * written last (0 at first) reads back, so that a guest can tell whether the port is there.
 *
 * The range is one byte wide. Of a wider write the bus gives us the low byte alone.
 */
#include "devices/exit_port.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

struct exit_port_state {
    uint8_t code;
};

struct exit_port {
    struct device device;
    pthread_mutex_t lock; /* the state */
    struct exit_port_state state;
    struct power power;
    struct bus *ports; /* NULL until our range is on it */
};

static uint64_t handle_read(void *device, uint64_t offset, unsigned width)
{
    struct exit_port *port = device;

    pthread_mutex_lock(&port->lock);
    uint8_t code = port->state.code;
    pthread_mutex_unlock(&port->lock);
    return code;
}

static void handle_write(void *device, uint64_t offset, unsigned width, uint64_t value)
{
    struct exit_port *port = device;
    uint8_t code = value;

    pthread_mutex_lock(&port->lock);
    port->state.code = code;
    pthread_mutex_unlock(&port->lock);
    power_request(&port->power, POWER_EXIT, code);
}

static const struct bus_ops register_ops = {
    .name = "exit port",
    .max_width = 1,
    .read = handle_read,
    .write = handle_write,
};

static void exit_port_reset(struct device *device)
{
    struct exit_port *port = container_of(device, struct exit_port, device);

    pthread_mutex_lock(&port->lock);
    port->state.code = 0;
    pthread_mutex_unlock(&port->lock);
}

static void exit_port_resume(struct device *device)
{
    /* Nothing runs by itself, and nothing outside follows the state. */
}

static void exit_port_destroy(struct device *device)
{
    struct exit_port *port = container_of(device, struct exit_port, device);

    if (port->ports)
        bus_remove(port->ports, EXIT_PORT);
    pthread_mutex_destroy(&port->lock);
    free(port);
}

static const struct device_ops device_ops = {
    .reset = exit_port_reset,
    .resume = exit_port_resume,
    .destroy = exit_port_destroy,
};

static const struct state_field fields[] = {
    STATE_FIELD_U8(struct exit_port_state, code),
};

static const struct state_table table = {
    .name = "exit_port",
    .version = 1,
    STATE_TABLE_OF(struct exit_port_state, fields),
};

struct device *exit_port_device(struct exit_port *port)
{
    return &port->device;
}

int exit_port_create(struct exit_port **ret_port, struct bus *ports, const struct power *power,
                     struct err *err)
{
    struct exit_port *port = calloc(1, sizeof(*port));
    int r;

    if (!port)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot make the exit port");
    port->device = (struct device){.ops = &device_ops, .table = &table, .state = &port->state};
    port->power = *power;
    pthread_mutex_init(&port->lock, NULL);

    r = bus_add(ports, EXIT_PORT, 1, &register_ops, port, err);
    if (r < 0)
        goto fail;
    port->ports = ports;
    *ret_port = port;
    return 0;

fail:
    exit_port_destroy(&port->device);
    return r;
}
