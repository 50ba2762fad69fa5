/* SPDX-License-Identifier: MIT */
/* A serial port and a virtio console that speak through one gate, as in an instance. */
#include "devices/serial.h"
#include "host/byte_gate.h"
#include "tests/unit/device_rig.h"
#include "tests/unit/platform.h"
#include "tests/unit/unit.h"
#include "virtio/console.h"

enum { BASE = 0x3f8, LINE = 4, BUDGET = 100 };
enum { DATA, IER, IIR, LCR, MCR, LSR, FCR = IIR }; /* registers */
enum { FCR_ON = 1, IER_THR_EMPTY = 2, MCR_OUT2 = 8, MCR_LOOP = 16 };
enum { LSR_DATA = 1, LSR_SENT = 0x60, IIR_NONE = 1, IIR_THR_EMPTY = 2 };
enum { RECEIVE, TRANSMIT, BOTH = 3 };

static struct {
    struct byte_gate *gate;
    struct serial *serial;
    struct device *port;
    struct bus *ports;
    struct fake_chip chip;
    struct console *console;
    uint8_t seen[1 << 18];
    size_t seen_count;
    uint64_t number;
} pc;
static struct rig *rig;

static void handle_leaves(void *ctx, const uint8_t *bytes, size_t length)
{
    ck_assert_uint_le(length, sizeof(pc.seen) - pc.seen_count);
    memcpy(pc.seen + pc.seen_count, bytes, length);
    pc.seen_count += length;
}

static void handle_room(void *ctx)
{
    serial_output_room(pc.serial);
    console_output_room(pc.console);
}

static void handle_output(void *ctx, const uint8_t *bytes, size_t length)
{
    byte_gate_write(pc.gate, bytes, length);
}

static size_t handle_takes(void *ctx)
{
    return byte_gate_takes(pc.gate);
}

static void handle_input_room(void *ctx)
{
}

static void plug_port(void)
{
    static const struct serial_host host = {
        .output = handle_output, .input_room = handle_input_room, .output_takes = handle_takes};
    ck_assert_int_eq(serial_create(&pc.serial, pc.ports, BASE, &pc.chip.chip, LINE, &host, NULL),
                     0);
    pc.port = serial_device(pc.serial);
    pc.port->ops->reset(pc.port);
    pc.port->ops->resume(pc.port);
}

static void plug_console(struct rig *into)
{
    static const struct console_host host = {
        .output = handle_output, .input_room = handle_input_room, .output_takes = handle_takes};
    rig_init(into);
    ck_assert_int_eq(console_create(&pc.console, &into->world, &host, NULL), 0);
    rig_plug(into, console_virtio(pc.console));
}

static void make_gate(void)
{
    const struct byte_gate_handlers handlers = {.output = handle_leaves, .room = handle_room};
    ck_assert_int_eq(byte_gate_create(&pc.gate, &handlers, NULL), 0);
}

static void set_up(void)
{
    memset(&pc, 0, sizeof(pc));
    rig = calloc(1, sizeof(*rig));
    fake_chip_init(&pc.chip);
    ck_assert_int_eq(bus_create(&pc.ports, NULL), 0);
    make_gate();
    plug_port();
    plug_console(rig);
    byte_gate_hold(pc.gate, pc.number, BUDGET);
}

static void tear_down(void)
{
    device_destroy(pc.port);
    bus_destroy(pc.ports);
    rig_finish(rig);
    free(rig);
    byte_gate_destroy(pc.gate);
}

static uint8_t in(unsigned reg)
{
    return bus_read(pc.ports, BASE + reg, 1);
}

static void out(unsigned reg, uint8_t value)
{
    bus_write(pc.ports, BASE + reg, 1, value);
}

/* An epoch ends, and the one before is allowed. */
static void turn_epoch(void)
{
    byte_gate_mark(pc.gate, ++pc.number);
    byte_gate_release(pc.gate, pc.number - 1);
}

static uint8_t byte_of(size_t place)
{
    return (uint8_t)(place * 7 + place / 251);
}

static void expect_row(size_t count)
{
    ck_assert_uint_eq(pc.seen_count, count);
    for (size_t i = 0; i < count; i++)
        ck_assert_uint_eq(pc.seen[i], byte_of(i));
}

/* --- the serial port -------------------------------------------------------------------------- */

START_TEST(a_driver_that_looks_waits_while_the_gate_is_full_and_loses_nothing)
{
    enum { COUNT = 1000 };
    unsigned epochs = 0;
    for (size_t sent = 0; sent < COUNT;) {
        if (in(LSR) == LSR_SENT) {
            out(DATA, byte_of(sent++));
            continue;
        }
        ck_assert_uint_eq(in(LSR), 0);
        ck_assert_uint_eq(byte_gate_held(pc.gate), BUDGET);
        turn_epoch();
        epochs++;
    }
    ck_assert_uint_eq(epochs, COUNT / BUDGET - 1);
    turn_epoch();
    expect_row(COUNT);
}
END_TEST

/* 16 bytes for each interrupt, as Linux does it. */
START_TEST(send_more_is_said_when_there_is_room_again)
{
    enum { COUNT = 1600 };
    size_t sent = 0;
    out(FCR, FCR_ON);
    out(MCR, MCR_OUT2);
    out(IER, IER_THR_EMPTY);
    while (sent < COUNT) {
        if (!pc.chip.level[LINE]) {
            unsigned rises = pc.chip.rises[LINE];
            ck_assert_uint_eq(in(IIR)&0x0f, IIR_NONE);
            turn_epoch();
            ck_assert_uint_eq(pc.chip.rises[LINE], rises + 1);
        }
        ck_assert_uint_eq(in(IIR)&0x0f, IIR_THR_EMPTY);
        for (unsigned i = 0; i < 16; i++)
            out(DATA, byte_of(sent++));
    }
    turn_epoch();
    expect_row(COUNT);
}
END_TEST

START_TEST(a_driver_that_does_not_look_loses_nothing_either)
{
    for (size_t i = 0; i < 5000; i++)
        out(DATA, byte_of(i));
    turn_epoch();
    expect_row(5000);
    ck_assert_uint_eq(in(LSR), LSR_SENT);
}
END_TEST

static void fill(void)
{
    while (in(LSR) == LSR_SENT)
        out(DATA, 'x');
}

START_TEST(in_loopback_a_full_gate_is_not_seen)
{
    fill();
    out(MCR, MCR_LOOP);
    ck_assert_uint_eq(in(LSR), LSR_SENT);
    out(DATA, 'y');
    ck_assert_uint_eq(in(LSR), LSR_SENT | LSR_DATA);
    ck_assert_uint_eq(in(DATA), 'y');
    out(MCR, 0);
    ck_assert_uint_eq(in(LSR), 0);
    byte_gate_open(pc.gate);
    ck_assert_uint_eq(in(LSR), LSR_SENT);
}
END_TEST

START_TEST(room_in_a_pause_is_told_by_the_resume)
{
    out(FCR, FCR_ON);
    out(MCR, MCR_OUT2);
    out(IER, IER_THR_EMPTY);
    fill();
    ck_assert(!pc.chip.level[LINE]);
    pc.port->ops->pause(pc.port);
    turn_epoch();
    ck_assert(!pc.chip.level[LINE]);
    pc.port->ops->resume(pc.port);
    ck_assert(pc.chip.level[LINE]);
}
END_TEST

/* The twin's gate is empty. Its guest waits for an interrupt that nobody would send but we. */
START_TEST(a_state_taken_while_full_goes_on_at_once_elsewhere)
{
    struct stream_buffer buffer;
    out(FCR, FCR_ON);
    out(MCR, MCR_OUT2);
    out(IER, IER_THR_EMPTY);
    fill();
    pc.port->ops->pause(pc.port);
    struct state_item item = {pc.port->table, pc.port->instance, pc.port->state};
    stream_buffer_init(&buffer, 0);
    ck_assert_int_eq(state_save(&buffer.stream, &item, 1), 0);
    device_destroy(pc.port);

    plug_port();
    pc.port->ops->pause(pc.port);
    item.object = pc.port->state;
    stream_buffer_rewind(&buffer);
    ck_assert_int_eq(state_load(&buffer.stream, &item, 1, NULL), 0);
    pc.port->ops->resume(pc.port);
    ck_assert(pc.chip.level[LINE]);
    ck_assert_uint_eq(in(IIR)&0x0f, IIR_THR_EMPTY);
    stream_buffer_finish(&buffer);
}
END_TEST

START_TEST(after_a_reset_the_port_looks_ready)
{
    fill();
    pc.port->ops->pause(pc.port);
    pc.port->ops->reset(pc.port);
    pc.port->ops->resume(pc.port);
    ck_assert_uint_eq(in(LSR), LSR_SENT);
    out(DATA, 'x');
    ck_assert_uint_eq(in(LSR), 0);
}
END_TEST

/* --- the virtio console ----------------------------------------------------------------------- */

static bool is_done(struct rig *at)
{
    struct model_done done;
    return model_reap(&at->queues[TRANSMIT], &done);
}

/* Adds a request with so many bytes of the row. */
static void ask_to_write(size_t from, uint32_t length)
{
    uint8_t bytes[1000];
    for (uint32_t i = 0; i < length; i++)
        bytes[i] = byte_of(from + i);
    struct model_part part = model_out(&rig->queues[TRANSMIT], bytes, length);
    ck_assert_int_ge(model_add(&rig->queues[TRANSMIT], &part, 1, part.gpa), 0);
    rig_show(rig, TRANSMIT);
}

static const uint64_t feature_sets[] = {0, VIRTIO_F_EVENT_INDEX};

START_TEST(requests_stay_in_the_queue_while_the_gate_is_full)
{
    rig_start(rig, feature_sets[_i], BOTH);
    for (unsigned i = 0; i < 4; i++)
        ask_to_write(30ul * i, 30);
    rig_settle(rig);
    ck_assert_uint_eq(byte_gate_held(pc.gate), BUDGET);
    for (unsigned i = 0; i < 3; i++)
        ck_assert(is_done(rig));
    ck_assert(!is_done(rig)); /* only 10 of its bytes are over */
    turn_epoch();
    expect_row(BUDGET);
    rig_settle(rig);
    ck_assert(is_done(rig));
    ck_assert_uint_eq(byte_gate_held(pc.gate), 20);
    turn_epoch();
    expect_row(120);
}
END_TEST

START_TEST(many_bytes_through_a_small_gate_arrive_in_order)
{
    size_t sent = 0;
    rig_start(rig, feature_sets[_i], BOTH);
    for (unsigned i = 0; i < 500; i++) {
        uint32_t length = 1 + i * 37 % 300;
        ask_to_write(sent, length);
        sent += length;
        rig_settle(rig);
        while (!is_done(rig)) {
            ck_assert_uint_eq(byte_gate_held(pc.gate), BUDGET);
            turn_epoch();
            rig_settle(rig);
        }
    }
    turn_epoch();
    expect_row(sent);
}
END_TEST

/* Bytes that the gate has are the old host's, and the others are written by the new one. */
START_TEST(what_the_gate_did_not_take_is_written_elsewhere)
{
    struct rig *second = calloc(1, sizeof(*second));
    rig_start(rig, feature_sets[_i], BOTH);
    ask_to_write(0, 250);
    rig_settle(rig);
    ck_assert(!is_done(rig));
    rig_pause(rig);
    byte_gate_release(pc.gate, pc.number);
    expect_row(BUDGET);
    byte_gate_destroy(pc.gate);
    make_gate();

    plug_console(second);
    rig_travel(second, rig);
    rig_resume(second);
    rig_settle(second);
    ck_assert(is_done(second));
    expect_row(250);
    rig_finish(rig);
    free(rig);
    rig = second;
}
END_TEST

START_TEST(both_share_the_gate_and_both_hear_of_room)
{
    rig_start(rig, feature_sets[_i], BOTH);
    for (size_t i = 0; i < BUDGET - 1; i++)
        out(DATA, byte_of(i));
    ask_to_write(BUDGET - 1, 2);
    rig_settle(rig);
    out(DATA, byte_of(BUDGET)); /* into the reserve, before the console's second byte */
    ck_assert(!is_done(rig));
    ck_assert_uint_eq(in(LSR), 0);
    turn_epoch();
    rig_settle(rig);
    ck_assert(is_done(rig));
    ck_assert_uint_eq(in(LSR), LSR_SENT);
    turn_epoch();
    ck_assert_uint_eq(pc.seen_count, BUDGET + 2);
    ck_assert_uint_eq(pc.seen[BUDGET + 1], byte_of(BUDGET));
    pc.seen_count--;
    expect_row(BUDGET + 1);
}
END_TEST

START_TEST(an_opened_or_shut_gate_stops_nobody)
{
    rig_start(rig, feature_sets[_i], BOTH);
    fill();
    ask_to_write(0, 50);
    rig_settle(rig);
    ck_assert(!is_done(rig));
    if (_i)
        byte_gate_open(pc.gate);
    else
        byte_gate_shut(pc.gate);
    rig_settle(rig);
    ck_assert(is_done(rig));
    ck_assert_uint_eq(in(LSR), LSR_SENT);
    ck_assert_uint_eq(pc.seen_count, _i ? BUDGET + 50 : 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("console_gate");
    TCase *tcase = tcase_create("console_gate");

    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, set_up, tear_down);
    tcase_add_test(tcase, a_driver_that_looks_waits_while_the_gate_is_full_and_loses_nothing);
    tcase_add_test(tcase, send_more_is_said_when_there_is_room_again);
    tcase_add_test(tcase, a_driver_that_does_not_look_loses_nothing_either);
    tcase_add_test(tcase, in_loopback_a_full_gate_is_not_seen);
    tcase_add_test(tcase, room_in_a_pause_is_told_by_the_resume);
    tcase_add_test(tcase, a_state_taken_while_full_goes_on_at_once_elsewhere);
    tcase_add_test(tcase, after_a_reset_the_port_looks_ready);
    tcase_add_loop_test(tcase, requests_stay_in_the_queue_while_the_gate_is_full, 0, 2);
    tcase_add_loop_test(tcase, many_bytes_through_a_small_gate_arrive_in_order, 0, 2);
    tcase_add_loop_test(tcase, what_the_gate_did_not_take_is_written_elsewhere, 0, 2);
    tcase_add_loop_test(tcase, both_share_the_gate_and_both_hear_of_room, 0, 2);
    tcase_add_loop_test(tcase, an_opened_or_shut_gate_stops_nobody, 0, 2);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
