/* SPDX-License-Identifier: MIT */
/*
 * A console (virtio 1.2, section 5.3) with one port: two queues of bytes, and the terminal's size.
 *
 * Bytes for the guest wait in the device's state until the driver has a buffer for them, so that
 * what was typed is not lost when the machine is saved. Bytes of the guest go to the host at once.
 */
#include "virtio/console.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    RECEIVE = 0, /* queues (5.3.2) */
    TRANSMIT = 1,
    QUEUES = 2,
    QUEUE_SIZE = 64,
    CLASS_COMMUNICATION = 0x078000,

    INPUT_SIZE = 256,

    /* A turn of the main loop; then others have theirs. */
    REQUESTS_A_TURN = 32,
    BYTES_A_TURN = 32768,
};

#define FEATURE_SIZE (1ull << 0)

/* What the guest reads (5.3.4). The last two belong to features that are not offered. */
struct console_config {
    uint16_t columns;
    uint16_t rows;
    uint32_t max_ports;
    uint32_t emergency;
};

struct console_state {
    struct virtio_state virtio;
    uint64_t output_done; /* bytes of the next request in TRANSMIT that the host has already */
    struct console_config config;
    uint32_t input_count;
    uint8_t input[INPUT_SIZE]; /* oldest first; zeroes behind input_count */
};

struct console {
    struct virtio virtio;
    struct console_state state;
    struct console_host host;
    uint16_t columns, rows; /* what the host said last: the state follows when it may */
    bool size_told;         /* the driver has been made to look at it */
    bool refused;           /* the host has more input than we took, and waits for input_room */
};

static struct console *from_virtio(struct virtio *virtio)
{
    return container_of(virtio, struct console, virtio);
}

/* --- output --------------------------------------------------------------------------------- */

/* Hands over what the budget allows. True when the request has been written as a whole. */
static bool write_out(struct console *console, const struct vring_chain *chain, size_t *budget)
{
    struct iovec part[QUEUE_SIZE];
    uint64_t *done = &console->state.output_done;
    unsigned count = iov_part(chain->iov, chain->readable, *done, *budget, part);

    for (unsigned i = 0; i < count; i++) {
        console->host.output(console->host.ctx, part[i].iov_base, part[i].iov_len);
        *done += part[i].iov_len;
        *budget -= part[i].iov_len;
    }
    if (*done < chain->readable_bytes)
        return false;
    *done = 0;
    return true;
}

/* True while there may be more to do. */
static bool transmit_one(struct console *console, struct vring *ring, size_t *budget)
{
    struct iovec iov[QUEUE_SIZE];
    struct vring_chain chain = {.iov = iov, .capacity = QUEUE_SIZE};
    int got = vring_pop(ring, &chain);

    if (got == 0)
        return vring_arm(ring);
    if (got < 0) {
        virtio_break(&console->virtio);
        return false;
    }
    if (write_out(console, &chain, budget))
        vring_push(ring, &chain, 0);
    else
        vring_unpop(ring, 1);
    return true;
}

static size_t host_takes(const struct console *console)
{
    return console->host.output_takes ? console->host.output_takes(console->host.ctx) : SIZE_MAX;
}

static void transmit(struct console *console, struct vring *ring)
{
    size_t takes = host_takes(console);
    size_t budget = takes < BYTES_A_TURN ? takes : BYTES_A_TURN;
    bool more = true;

    vring_disarm(ring);
    if (!takes)
        return; /* console_output_room() rings again */
    for (unsigned i = 0; i < REQUESTS_A_TURN && budget > 0 && more; i++)
        more = transmit_one(console, ring, &budget);
    virtio_publish(&console->virtio, TRANSMIT);
    if (more)
        virtio_ring_doorbell(&console->virtio, TRANSMIT);
}

void console_output_room(struct console *console)
{
    virtio_ring_doorbell(&console->virtio, TRANSMIT);
}

/* --- input ---------------------------------------------------------------------------------- */

static void forget_input(struct console *console, size_t count)
{
    struct console_state *state = &console->state;

    state->input_count -= (uint32_t)count;
    memmove(state->input, state->input + count, state->input_count);
    memset(state->input + state->input_count, 0, INPUT_SIZE - state->input_count);
}

/* True while there may be more to do. */
static bool receive_one(struct console *console, struct vring *ring)
{
    struct console_state *state = &console->state;
    struct iovec iov[QUEUE_SIZE];
    struct vring_chain chain = {.iov = iov, .capacity = QUEUE_SIZE};

    if (state->input_count == 0)
        return false; /* not armed: a buffer is of no interest now */
    int got = vring_pop(ring, &chain);
    if (got == 0)
        return vring_arm(ring);
    if (got < 0) {
        virtio_break(&console->virtio);
        return false;
    }
    size_t count = iov_write(vring_writable(&chain), chain.writable, 0, state->input,
                             state->input_count);
    vring_push(ring, &chain, (uint32_t)count);
    forget_input(console, count);
    return true;
}

/* The host is told when the last byte has left, not for each: fewer calls, with more in them. */
static void tell_room(struct console *console)
{
    if (!console->refused || console->state.input_count > 0)
        return;
    console->refused = false;
    console->host.input_room(console->host.ctx);
}

static void receive(struct console *console, struct vring *ring)
{
    bool more = true;

    vring_disarm(ring);
    for (unsigned i = 0; i < REQUESTS_A_TURN && more; i++)
        more = receive_one(console, ring);
    virtio_publish(&console->virtio, RECEIVE);
    if (more)
        virtio_ring_doorbell(&console->virtio, RECEIVE);
    tell_room(console);
}

size_t console_input(struct console *console, const uint8_t *bytes, size_t length)
{
    struct console_state *state = &console->state;
    size_t taken = 0;

    virtio_lock(&console->virtio);
    if (virtio_ring(&console->virtio, RECEIVE)) {
        taken = INPUT_SIZE - state->input_count;
        if (taken > length)
            taken = length;
        memcpy(state->input + state->input_count, bytes, taken);
        state->input_count += (uint32_t)taken;
        virtio_ring_doorbell(&console->virtio, RECEIVE);
    }
    if (taken < length)
        console->refused = true;
    virtio_unlock(&console->virtio);
    return taken;
}

bool console_listens(struct console *console)
{
    virtio_lock(&console->virtio);
    bool listens = virtio_ring(&console->virtio, RECEIVE);
    virtio_unlock(&console->virtio);
    return listens;
}

/* --- size ----------------------------------------------------------------------------------- */

/* A paused device's state stays as it is, and a loaded one may know another terminal. */
static void show_size(struct console *console)
{
    struct console_config *config = &console->state.config;
    uint16_t columns = htole16(console->columns);
    uint16_t rows = htole16(console->rows);

    if (!console->virtio.running || (config->columns == columns && config->rows == rows))
        return;
    config->columns = columns;
    config->rows = rows;
    virtio_config_changed(&console->virtio);
}

static uint16_t to_size(unsigned size)
{
    return size < UINT16_MAX ? (uint16_t)size : UINT16_MAX;
}

void console_set_size(struct console *console, unsigned columns, unsigned rows)
{
    virtio_lock(&console->virtio);
    console->columns = to_size(columns);
    console->rows = to_size(rows);
    show_size(console);
    virtio_unlock(&console->virtio);
}

/* --- ops ------------------------------------------------------------------------------------ */

/*
 * Linux reads the size only when it hears of a change, and only once its console is there. With the
 * first output it is.
 */
static void tell_size(struct console *console)
{
    if (console->size_told || !console->columns)
        return;
    console->size_told = true;
    virtio_config_changed(&console->virtio);
}

static void console_notify(struct virtio *virtio, unsigned queue)
{
    struct console *console = from_virtio(virtio);
    struct vring *ring = virtio_ring(virtio, queue);

    if (queue == TRANSMIT) {
        transmit(console, ring);
        tell_size(console);
    } else {
        receive(console, ring);
    }
}

/* What was typed for one driver is not for the next. */
static void forget_work(struct console *console)
{
    forget_input(console, console->state.input_count);
    console->state.output_done = 0;
    console->size_told = false;
}

static bool console_stop(struct virtio *virtio)
{
    forget_work(from_virtio(virtio));
    return true;
}

static void console_resume(struct virtio *virtio)
{
    show_size(from_virtio(virtio));
}

static void console_reset(struct virtio *virtio)
{
    struct console *console = from_virtio(virtio);

    forget_work(console);
    console->state.config = (struct console_config){.columns = htole16(console->columns),
                                                    .rows = htole16(console->rows)};
}

static const struct virtio_ops ops = {
    .id = 3,
    .pci_class = CLASS_COMMUNICATION,
    .notify = console_notify,
    .stop = console_stop,
    .resume = console_resume,
    .reset = console_reset,
};

static void console_destroy(struct device *device)
{
    struct console *console = container_of(device, struct console, virtio.device);

    virtio_finish(&console->virtio);
    free(console);
}

static const struct device_ops device_ops = {
    .reset = virtio_device_reset,
    .pause = virtio_device_pause,
    .resume = virtio_device_resume,
    .destroy = console_destroy,
};

static const struct state_field fields[] = {
    STATE_FIELD_TABLE(struct console_state, virtio, struct virtio_state, &virtio_state_table),
    STATE_FIELD_U64(struct console_state, output_done),
    STATE_FIELD_U16(struct console_state, config.columns),
    STATE_FIELD_U16(struct console_state, config.rows),
    STATE_FIELD_U32(struct console_state, config.max_ports),
    STATE_FIELD_U32(struct console_state, config.emergency),
    STATE_FIELD_U32(struct console_state, input_count, .max = INPUT_SIZE),
    STATE_FIELD_BYTES(struct console_state, input, .counted = true,
                      .count_offset = offsetof(struct console_state, input_count)),
};

static const struct state_table table = {
    .name = "virtio-console",
    .version = 1,
    STATE_TABLE_OF(struct console_state, fields),
};

struct virtio *console_virtio(struct console *console)
{
    return &console->virtio;
}

int console_create(struct console **ret_console, const struct virtio_world *world,
                   const struct console_host *host, struct err *err)
{
    struct console *console = calloc(1, sizeof(*console));
    if (!console)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot make the virtio console");
    console->virtio.device = (struct device){
        .ops = &device_ops, .table = &table, .state = &console->state};
    console->host = *host;

    const struct virtio_setup setup = {.ops = &ops,
                                       .world = world,
                                       .state = &console->state.virtio,
                                       .features = FEATURE_SIZE,
                                       .config = &console->state.config,
                                       .config_size = sizeof(console->state.config),
                                       .queue_count = QUEUES,
                                       .queue_size = QUEUE_SIZE};
    int ret = virtio_init(&console->virtio, &setup, err);
    if (ret < 0) {
        console_destroy(&console->virtio.device);
        return ret;
    }
    *ret_console = console;
    return 0;
}
