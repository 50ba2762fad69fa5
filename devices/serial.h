/* SPDX-License-Identifier: MIT */
/*
 * A serial port: a 16550A UART with a 16-byte FIFO and a transmitter that is infinitely fast.
 *
 * This is the device to read first: all others have the same shape (see the tour in serial.c).
 */
#pragma once

#include "core/bus.h"
#include "core/irq.h"
#include "devices/device.h"

struct serial;

/* The far end of the cable. */
struct serial_host {
    /* Bytes that the guest sent. One call at a time, on a vCPU thread, under the port's lock: it
     * must not block and not call the port. */
    void (*output)(void *ctx, const uint8_t *bytes, size_t length);
    /* The port takes bytes again after serial_input refused some. Called once per refusal, without
     * the lock, on a vCPU thread or on the one that resumes the device. */
    void (*input_room)(void *ctx);
    /* How many bytes the far end takes now. After 0 the guest sees a transmitter that is busy,
     * until serial_output_room(); what it sends all the same is output all the same. Called as
     * output is. NULL: always any number. */
    size_t (*output_takes)(void *ctx);
    void *ctx;
};

/* Eight ports from base. The device's instance is base, so that several ports tell apart. */
int serial_create(struct serial **ret_serial, struct bus *ports, uint16_t base,
                  const struct irq_chip *chip, unsigned line, const struct serial_host *host,
                  struct err *err) must_check;
struct device *serial_device(struct serial *serial); /* and device_destroy() ends it */

/*
 * Hands bytes to the guest's receiver, which takes what fits and says how many. None fit while the
 * device is paused or in loopback. Whoever got less than asked waits for input_room. (any thread)
 */
size_t serial_input(struct serial *serial, const uint8_t *bytes, size_t length);

/* The far end takes bytes again. (any thread but from within the host's handlers) */
void serial_output_room(struct serial *serial);

/* A break on the line: Linux takes it as the SysRq key. Lost while nobody listens. (any thread) */
void serial_break(struct serial *serial);

/*
 * Firmware on the same line, until the guest takes it over for itself (see serial.c). Called on a
 * vCPU thread. write() says false, and sends nothing, when the transmitter is the guest's. peek()
 * copies the oldest bytes that came in, 0 when the receiver is the guest's; take() removes as many
 * of them.
 */
bool serial_firmware_write(struct serial *serial, const uint8_t *bytes, size_t length);
size_t serial_firmware_peek(struct serial *serial, uint8_t *to, size_t room);
void serial_firmware_take(struct serial *serial, size_t count);
