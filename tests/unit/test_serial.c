/* SPDX-License-Identifier: MIT */
#include "devices/serial.h"
#include "tests/unit/platform.h"
#include "tests/unit/unit.h"
#include <errno.h>

enum { BASE = 0x3f8, LINE = 4 };

/* Registers, and the bits that the tests talk about. */
enum { DATA, IER, IIR, LCR, MCR, LSR, MSR, SCRATCH, FCR = IIR };
enum { IER_DATA = 1, IER_THR_EMPTY = 2, IER_LINE = 4, IER_MODEM = 8 };
enum {
    IIR_NONE = 0x01,
    IIR_THR_EMPTY = 0x02,
    IIR_DATA = 0x04,
    IIR_LINE = 0x06,
    IIR_TIMEOUT = 0x0c
};
enum { FCR_ON = 0x01, FCR_CLEAR = 0x06, FCR_TRIGGER_8 = 0x80 };
enum { MCR_DTR = 1, MCR_RTS = 2, MCR_OUT1 = 4, MCR_OUT2 = 8, MCR_LOOP = 16 };
enum {
    LSR_DATA = 0x01,
    LSR_OVERRUN = 0x02,
    LSR_BREAK = 0x10,
    LSR_SENT = 0x60,
    LSR_FIFO_ERROR = 0x80
};

static struct {
    struct bus *ports;
    struct fake_chip chip;
    struct serial *serial;
    struct device *device;
    uint8_t sent[64];
    size_t sent_count;
    unsigned rooms;
} pc;

static void handle_output(void *ctx, const uint8_t *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        pc.sent[pc.sent_count++ % sizeof(pc.sent)] = bytes[i];
}

static void handle_room(void *ctx)
{
    pc.rooms++;
}

static const struct serial_host host = {.output = handle_output, .input_room = handle_room};

static void set_up(void)
{
    memset(&pc, 0, sizeof(pc));
    fake_chip_init(&pc.chip);
    ck_assert_int_eq(bus_create(&pc.ports, NULL), 0);
    ck_assert_int_eq(serial_create(&pc.serial, pc.ports, BASE, &pc.chip.chip, LINE, &host, NULL),
                     0);
    pc.device = serial_device(pc.serial);
    pc.device->ops->reset(pc.device);
    pc.device->ops->resume(pc.device);
}

static void tear_down(void)
{
    device_destroy(pc.device);
    bus_destroy(pc.ports);
}

static uint8_t in(unsigned reg)
{
    return bus_read(pc.ports, BASE + reg, 1);
}

static void out(unsigned reg, uint8_t value)
{
    bus_write(pc.ports, BASE + reg, 1, value);
}

static size_t type(const char *text)
{
    return serial_input(pc.serial, (const uint8_t *)text, strlen(text));
}

/* What an operating system sets up: FIFO with trigger 8, OUT2. */
static void open_port(uint8_t ier)
{
    out(FCR, FCR_ON | FCR_CLEAR | FCR_TRIGGER_8);
    out(MCR, MCR_DTR | MCR_RTS | MCR_OUT2);
    in(MSR);
    out(IER, ier);
}

START_TEST(linux_autoconfig_finds_a_16550a)
{
    out(IER, 0); /* the interrupt enables can be written, and nothing beside them */
    ck_assert_uint_eq(in(IER), 0);
    out(IER, 0xff);
    ck_assert_uint_eq(in(IER), 0x0f);
    out(IER, 0);
    out(MCR, MCR_LOOP | MCR_OUT2 | MCR_RTS); /* the loopback test */
    ck_assert_uint_eq(in(MSR)&0xf0, 0x90);
    out(MCR, 0);
    out(LCR, 0xbf); /* no enhanced features */
    out(IIR, 0);
    out(LCR, 0);
    out(FCR, FCR_ON);
    ck_assert_uint_eq(in(IIR) >> 6, 3);
    out(LCR, 0x80);
    ck_assert_uint_ne(in(IIR), 0); /* no EFR in the place of IIR (ST16C650) */
    out(LCR, 0xbf);
    ck_assert_uint_ne(in(IIR), 0);
    uint8_t before = (out(LCR, 0xe0), in(IIR)); /* no National superset: bit 4 follows no loop */
    out(LCR, 0);
    out(MCR, MCR_LOOP);
    out(LCR, 0xe0);
    ck_assert_uint_eq((before ^ in(IIR)) & 0x10, 0);
    out(LCR, 0);
    out(MCR, 0);
    out(LCR, 0x80); /* no FIFO of 64 bytes (16750) */
    out(FCR, FCR_ON | 0x20);
    ck_assert_uint_eq(in(IIR)&0xe0, 0xc0);
    out(LCR, 0);
    out(IER, 0x40); /* no UUE (XScale) */
    ck_assert_uint_eq(in(IER), 0);
}
END_TEST

START_TEST(linux_counts_a_fifo_of_16)
{
    out(FCR, FCR_ON | FCR_CLEAR);
    out(MCR, MCR_LOOP);
    for (unsigned i = 0; i < 256; i++)
        out(DATA, i);
    unsigned count = 0;
    for (; in(LSR)&LSR_DATA; count++)
        ck_assert_uint_eq(in(DATA), count);
    ck_assert_uint_eq(count, 16);
    ck_assert_uint_eq(pc.sent_count, 0);
}
END_TEST

START_TEST(linux_start_up_tests_find_no_transmitter_bugs)
{
    open_port(0);
    out(IER, IER_THR_EMPTY); /* the THRE test: asked for again, it comes again */
    ck_assert_uint_eq(in(IIR)&0x0f, IIR_THR_EMPTY);
    out(IER, 0);
    out(IER, IER_THR_EMPTY);
    ck_assert_uint_eq(in(IIR)&0x0f, IIR_THR_EMPTY);
    out(IER, 0);
    out(IER, IER_THR_EMPTY); /* the TXEN test */
    ck_assert_uint_eq(in(LSR)&LSR_SENT, LSR_SENT);
    ck_assert_uint_eq(in(IIR)&0x0f, IIR_THR_EMPTY);
}
END_TEST

START_TEST(linux_irq_detection_sees_the_line_move)
{
    out(MCR, MCR_OUT1 | MCR_OUT2);
    out(IER, 0x0f);
    for (unsigned reg = DATA; reg <= MSR; reg++)
        in(reg);
    ck_assert(!pc.chip.level[LINE]);
    out(DATA, 0xff);
    ck_assert(pc.chip.level[LINE]);
}
END_TEST

START_TEST(what_is_written_leaves_at_once)
{
    for (const char *c = "hello"; *c; c++) {
        ck_assert_uint_eq(in(LSR), LSR_SENT);
        out(DATA, *c);
    }
    ck_assert_uint_eq(pc.sent_count, 5);
    ck_assert_mem_eq(pc.sent, "hello", 5);
}
END_TEST

START_TEST(send_more_is_said_once_per_byte)
{
    open_port(IER_THR_EMPTY);
    ck_assert(pc.chip.level[LINE]);
    ck_assert_uint_eq(in(IIR)&0x0f, IIR_THR_EMPTY);
    ck_assert(!pc.chip.level[LINE]); /* reading it takes it */
    ck_assert_uint_eq(in(IIR)&0x0f, IIR_NONE);
    out(IER, IER_THR_EMPTY); /* it was on already: nothing new */
    ck_assert(!pc.chip.level[LINE]);

    unsigned rises = pc.chip.rises[LINE];
    out(DATA, 'a');
    out(DATA, 'b'); /* a driver that never reads IIR gets an edge for each */
    ck_assert_uint_eq(pc.chip.rises[LINE], rises + 2);
}
END_TEST

START_TEST(bytes_below_the_trigger_time_out_and_above_it_are_data)
{
    open_port(IER_DATA);
    ck_assert_uint_eq(type("1234567"), 7);
    ck_assert_uint_eq(in(IIR), 0xc0 | IIR_TIMEOUT);
    ck_assert_uint_eq(type("8"), 1);
    ck_assert_uint_eq(in(IIR), 0xc0 | IIR_DATA);
    for (char c = '1'; c <= '8'; c++) {
        ck_assert(pc.chip.level[LINE]);
        ck_assert(in(LSR)&LSR_DATA);
        ck_assert_uint_eq(in(DATA), c);
    }
    ck_assert_uint_eq(in(IIR), 0xc0 | IIR_NONE);
    ck_assert(!(in(LSR)&LSR_DATA));
    ck_assert(!pc.chip.level[LINE]);
}
END_TEST

START_TEST(a_driver_that_reads_one_byte_per_interrupt_gets_them_all)
{
    open_port(IER_DATA);
    type("abc");
    for (unsigned i = 1; i <= 3; i++) {
        ck_assert_uint_eq(pc.chip.rises[LINE], i);
        in(DATA);
    }
    ck_assert(!pc.chip.level[LINE]);
}
END_TEST

START_TEST(without_fifo_there_is_room_for_one)
{
    out(IER, IER_DATA);
    ck_assert_uint_eq(type("ab"), 1);
    ck_assert_uint_eq(in(IIR), IIR_DATA);
    ck_assert_uint_eq(in(DATA), 'a');
    ck_assert_uint_eq(in(IIR), IIR_NONE);
    out(MCR, MCR_LOOP);
    out(DATA, 'x');
    out(DATA, 'y'); /* the newest wins, and the loss is told */
    ck_assert_uint_eq(in(LSR), LSR_SENT | LSR_DATA | LSR_OVERRUN);
    ck_assert_uint_eq(in(DATA), 'y');
}
END_TEST

START_TEST(the_most_urgent_cause_shows_first)
{
    open_port(0x0f);
    out(DATA, 'x');
    type("12345678");
    serial_break(pc.serial);
    out(MCR, MCR_LOOP);
    out(MCR, MCR_OUT2); /* and the modem lines have moved */
    for (unsigned i = 0; i < 8; i++)
        in(DATA); /* now the break is next */
    ck_assert_uint_eq(in(IIR)&0x0f, IIR_LINE);
    in(LSR);
    ck_assert_uint_eq(in(IIR)&0x0f, IIR_TIMEOUT);
    in(DATA);
    ck_assert_uint_eq(in(IIR)&0x0f, IIR_THR_EMPTY);
    ck_assert_uint_eq(in(IIR)&0x0f, 0);
    in(MSR);
    ck_assert_uint_eq(in(IIR)&0x0f, IIR_NONE);
}
END_TEST

START_TEST(a_full_fifo_refuses_and_says_once_when_it_is_empty)
{
    open_port(IER_DATA);
    ck_assert_uint_eq(type("0123456789abcdefgh"), 16);
    ck_assert_uint_eq(type("g"), 0);
    ck_assert_uint_eq(in(LSR)&LSR_OVERRUN, 0);
    for (unsigned i = 0; i < 15; i++)
        in(DATA);
    ck_assert_uint_eq(pc.rooms, 0);
    ck_assert_uint_eq(in(DATA), 'f');
    ck_assert_uint_eq(pc.rooms, 1);
    ck_assert_uint_eq(type("gh"), 2);
    out(FCR, FCR_ON | FCR_CLEAR);
    ck_assert_uint_eq(pc.rooms, 1); /* nobody was refused since */
    ck_assert(!(in(LSR)&LSR_DATA));
}
END_TEST

START_TEST(a_guest_that_clears_the_fifo_makes_room)
{
    open_port(IER_DATA);
    type("0123456789abcdefg");
    out(FCR, FCR_ON | FCR_CLEAR);
    ck_assert_uint_eq(pc.rooms, 1);
    ck_assert(!pc.chip.level[LINE]);
}
END_TEST

START_TEST(nothing_is_taken_while_paused)
{
    open_port(IER_DATA);
    pc.device->ops->pause(pc.device);
    ck_assert_uint_eq(type("a"), 0);
    serial_break(pc.serial);
    ck_assert_uint_eq(in(LSR), LSR_SENT);
    ck_assert_uint_eq(pc.rooms, 0);
    pc.device->ops->resume(pc.device);
    ck_assert_uint_eq(pc.rooms, 1);
    ck_assert_uint_eq(type("a"), 1);
}
END_TEST

START_TEST(a_break_shows_with_its_place_in_the_stream)
{
    open_port(IER_LINE);
    type("a");
    serial_break(pc.serial);
    type("b");
    ck_assert(!pc.chip.level[LINE]);
    ck_assert_uint_eq(in(LSR), LSR_SENT | LSR_DATA | LSR_FIFO_ERROR); /* somewhere in there */
    ck_assert_uint_eq(in(DATA), 'a');
    ck_assert(pc.chip.level[LINE]);
    ck_assert_uint_eq(in(LSR), LSR_SENT | LSR_DATA | LSR_FIFO_ERROR | LSR_BREAK);
    ck_assert_uint_eq(in(LSR), LSR_SENT | LSR_DATA); /* told once */
    ck_assert_uint_eq(in(DATA), 0);
    ck_assert_uint_eq(in(DATA), 'b');
}
END_TEST

START_TEST(a_break_into_a_full_fifo_is_an_overrun)
{
    open_port(0);
    type("0123456789abcdef");
    serial_break(pc.serial);
    ck_assert_uint_eq(in(LSR), LSR_SENT | LSR_DATA | LSR_OVERRUN);
}
END_TEST

START_TEST(loopback_cuts_off_the_world)
{
    open_port(IER_DATA);
    out(MCR, MCR_LOOP | MCR_OUT2);
    ck_assert_uint_eq(type("a"), 0);
    out(DATA, 'z');
    ck_assert_uint_eq(pc.sent_count, 0);
    ck_assert(!pc.chip.level[LINE]); /* OUT2's pin is off, whatever the bit says */
    ck_assert_uint_eq(in(IIR)&0x0f, IIR_TIMEOUT);
    ck_assert_uint_eq(in(DATA), 'z');
    ck_assert_uint_eq(pc.rooms, 0);
    out(MCR, MCR_OUT2);
    ck_assert_uint_eq(pc.rooms, 1);
    ck_assert_uint_eq(type("a"), 1);
    ck_assert(pc.chip.level[LINE]);
}
END_TEST

START_TEST(modem_lines_say_ready_and_follow_the_loop)
{
    ck_assert_uint_eq(in(MSR), 0xb0); /* DCD, DSR, CTS, and nothing has changed */
    out(MCR, MCR_LOOP);
    ck_assert_uint_eq(in(MSR), 0x0b);
    ck_assert_uint_eq(in(MSR), 0x00);
    static const uint8_t pairs[][2] = {
        {MCR_RTS, 0x10}, {MCR_DTR, 0x20}, {MCR_OUT1, 0x40}, {MCR_OUT2, 0x80}};
    for (unsigned i = 0; i < array_size(pairs); i++) {
        bool ring = pairs[i][0] == MCR_OUT1; /* of the ring only the end counts */
        out(MCR, MCR_LOOP | pairs[i][0]);
        ck_assert_uint_eq(in(MSR), pairs[i][1] | (ring ? 0 : pairs[i][1] >> 4));
        out(MCR, MCR_LOOP);
        ck_assert_uint_eq(in(MSR), pairs[i][1] >> 4);
    }
}
END_TEST

START_TEST(out2_is_the_gate_of_the_interrupt)
{
    out(IER, IER_THR_EMPTY);
    ck_assert(!pc.chip.level[LINE]);
    out(MCR, MCR_OUT2);
    ck_assert(pc.chip.level[LINE]);
    out(MCR, 0);
    ck_assert(!pc.chip.level[LINE]);
}
END_TEST

START_TEST(divisor_and_scratch_are_stored)
{
    out(LCR, 0x83);
    out(DATA, 0x12);
    out(IER, 0x34);
    ck_assert_uint_eq(in(DATA), 0x12);
    ck_assert_uint_eq(in(IER), 0x34);
    out(LCR, 0x03);
    ck_assert_uint_eq(pc.sent_count, 0);
    ck_assert_uint_eq(in(IER), 0);
    ck_assert_uint_eq(in(LCR), 0x03);
    out(SCRATCH, 0xa5);
    ck_assert_uint_eq(in(SCRATCH), 0xa5);
    out(LSR, 0xff);
    out(MSR, 0xff);
    ck_assert_uint_eq(in(LSR), LSR_SENT);
    ck_assert_uint_eq(in(MSR), 0xb0);
}
END_TEST

START_TEST(fcr_without_enable_changes_nothing_but_the_mode)
{
    open_port(IER_DATA);
    type("ab");
    out(FCR, FCR_TRIGGER_8); /* the mode changes, so the bytes are gone */
    ck_assert_uint_eq(in(IIR), IIR_NONE);
    out(FCR, FCR_ON);
    type("a");
    ck_assert_uint_eq(in(IIR), 0xc0 | IIR_DATA); /* the trigger is 1: the 8 was not written */
}
END_TEST

START_TEST(wide_accesses_are_bytes)
{
    bus_write(pc.ports, BASE + IER, 4, 0x1b03070f); /* IER, FCR, LCR, MCR */
    ck_assert_uint_eq(bus_read(pc.ports, BASE + LCR, 2), 0x1b03);
    ck_assert_uint_eq(in(IER), 0x0f);
}
END_TEST

START_TEST(reset_is_power_on)
{
    open_port(0x0f);
    out(SCRATCH, 1);
    type("abc");
    ck_assert(pc.chip.level[LINE]);
    pc.device->ops->pause(pc.device);
    pc.device->ops->reset(pc.device);
    ck_assert(!pc.chip.level[LINE]);
    pc.device->ops->resume(pc.device);
    static const uint8_t expected[8] = {0, 0, IIR_NONE, 0, 0, LSR_SENT, 0xb0, 0};
    for (unsigned reg = 0; reg < 8; reg++)
        ck_assert_uint_eq(in(reg), expected[reg]);
}
END_TEST

START_TEST(a_loaded_state_drives_the_line_anew)
{
    struct stream_buffer buffer;

    open_port(IER_DATA);
    type("abc");
    pc.device->ops->pause(pc.device);
    struct state_item item = {pc.device->table, pc.device->instance, pc.device->state};
    stream_buffer_init(&buffer, 0);
    ck_assert_int_eq(state_save(&buffer.stream, &item, 1), 0);

    tear_down();
    set_up();
    pc.device->ops->pause(pc.device);
    item.object = pc.device->state;
    stream_buffer_rewind(&buffer);
    ck_assert_int_eq(state_load(&buffer.stream, &item, 1, NULL), 0);
    pc.device->ops->resume(pc.device);
    ck_assert(pc.chip.level[LINE]);
    ck_assert_uint_eq(in(DATA), 'a');
    stream_buffer_finish(&buffer);
}
END_TEST

START_TEST(resume_tells_a_chip_that_forgot)
{
    open_port(IER_THR_EMPTY);
    pc.device->ops->pause(pc.device);
    pc.chip.level[LINE] = false;
    pc.device->ops->resume(pc.device);
    ck_assert(pc.chip.level[LINE]);
}
END_TEST

/* --- firmware on the same line --- */

static bool firmware_writes(const char *text)
{
    return serial_firmware_write(pc.serial, (const uint8_t *)text, strlen(text));
}

static size_t firmware_sees(void)
{
    uint8_t bytes[16];
    return serial_firmware_peek(pc.serial, bytes, sizeof(bytes));
}

START_TEST(firmware_prints_until_the_guest_does)
{
    out(LCR, 0x80);
    out(DATA, 1); /* the divisor */
    out(LCR, 0x03);
    out(FCR, FCR_ON | FCR_CLEAR);
    out(MCR, MCR_LOOP);
    out(DATA, 'x'); /* a test of the chip */
    out(MCR, MCR_DTR);
    in(LSR);
    ck_assert(firmware_writes("ab"));
    out(DATA, 'c');
    ck_assert(!firmware_writes("d"));
    ck_assert_uint_eq(pc.sent_count, 3);
    ck_assert_mem_eq(pc.sent, "abc", 3);
    pc.device->ops->pause(pc.device);
    pc.device->ops->reset(pc.device);
    ck_assert(firmware_writes("e"));
}
END_TEST

START_TEST(firmware_gets_keys_until_the_guest_takes_one)
{
    uint8_t bytes[16];

    type("a");
    ck_assert_uint_eq(serial_firmware_peek(pc.serial, bytes, 16), 1);
    ck_assert_uint_eq(bytes[0], 'a');
    ck_assert_uint_eq(firmware_sees(), 1); /* looking takes nothing */
    serial_firmware_take(pc.serial, 1);
    ck_assert_uint_eq(firmware_sees(), 0);
    in(LSR);
    in(DATA); /* nothing there: this was no claim */
    type("bc");
    ck_assert_uint_eq(serial_firmware_peek(pc.serial, bytes, 1), 1);
    ck_assert_uint_eq(bytes[0], 'b');
    ck_assert_uint_eq(in(DATA), 'b');
    ck_assert_uint_eq(firmware_sees(), 0);
    serial_firmware_take(pc.serial, 1); /* late */
    ck_assert_uint_eq(in(DATA), 'c');
}
END_TEST

START_TEST(firmware_has_a_fifo_and_is_told_of_room)
{
    ck_assert_uint_eq(type("0123456789"), 1); /* nobody listens yet */
    ck_assert_uint_eq(firmware_sees(), 1);
    ck_assert_uint_eq(pc.rooms, 1); /* the host may send the rest of a key */
    ck_assert_uint_eq(type("123456789abcdefgh"), 15);
    ck_assert_uint_eq(firmware_sees(), 16);
    ck_assert_uint_eq(pc.rooms, 1);
    serial_firmware_take(pc.serial, 1);
    ck_assert_uint_eq(pc.rooms, 2);
    serial_firmware_take(pc.serial, 100);
    ck_assert_uint_eq(firmware_sees(), 0);
    ck_assert_uint_eq(pc.rooms, 2);
}
END_TEST

START_TEST(firmware_leaves_the_interrupts_right)
{
    open_port(IER_DATA);
    type("a");
    ck_assert_uint_eq(firmware_sees(), 1);
    ck_assert(pc.chip.level[LINE]);
    serial_firmware_take(pc.serial, 1);
    ck_assert(!pc.chip.level[LINE]);
    out(MCR, MCR_LOOP);
    out(DATA, 'x');
    ck_assert_uint_eq(firmware_sees(), 0); /* a byte of the guest's own */
    ck_assert_uint_eq(in(DATA), 'x');
    out(MCR, 0);
    type("b");
    ck_assert_uint_eq(firmware_sees(), 1);
}
END_TEST

START_TEST(a_taken_place_is_refused_and_stays_taken)
{
    struct serial *second = NULL;
    struct err err = {0};

    ck_assert_int_eq(serial_create(&second, pc.ports, BASE, &pc.chip.chip, LINE, &host, &err),
                     -EEXIST);
    ck_assert_ptr_null(second);
    ck_assert_str_ne(err.text, "");
    ck_assert_uint_eq(in(LSR), LSR_SENT);
}
END_TEST

START_TEST(state_table_keeps_its_promises)
{
    open_port(0x07);
    out(LCR, 0x83);
    out(DATA, 0x0c);
    out(LCR, 0x03);
    out(SCRATCH, 0x5a);
    type("minivmm");
    serial_break(pc.serial);
    firmware_sees();
    out(DATA, 'x');
    out(MCR, MCR_LOOP | MCR_OUT2);
    unit_check_table(pc.device->table, pc.device->state);
}
END_TEST

/* The line follows IIR and the gate, IIR agrees with LSR, and the state could be saved. */
static void check_invariants(void)
{
    ck_assert_int_eq(state_check(pc.device->table, pc.device->state, NULL), 0);
    bool gate = (in(MCR) & (MCR_OUT2 | MCR_LOOP)) == MCR_OUT2;
    bool level = pc.chip.level[LINE];
    uint8_t cause = in(IIR)&0x0f;
    ck_assert_int_eq(level, gate && cause != IIR_NONE);
    uint8_t lsr = in(LSR);
    ck_assert_uint_eq(lsr & LSR_SENT, LSR_SENT);
    if (cause == IIR_DATA || cause == IIR_TIMEOUT)
        ck_assert(lsr & LSR_DATA);
}

START_TEST(a_hostile_guest_changes_nothing_but_its_port)
{
    uint64_t seed = 0x5e71a1;

    for (unsigned i = 0; i < 100000; i++) {
        uint64_t dice = chance(&seed);
        unsigned reg = dice >> 8 & 7;
        if (dice % 64 == 0) {
            type("some text that is too long");
        } else if (dice % 64 == 1) {
            serial_break(pc.serial);
        } else if (dice % 512 == 2) { /* a state from a stranger */
            pc.device->ops->pause(pc.device);
            fill_state(pc.device, &seed);
            pc.device->ops->resume(pc.device);
        } else if (dice % 64 == 3) {
            firmware_writes("?");
            serial_firmware_take(pc.serial, firmware_sees() / 2);
        } else if (dice % 2) {
            bus_write(pc.ports, BASE + reg, 1u << (dice >> 16) % 3, dice >> 32);
        } else {
            bus_read(pc.ports, BASE + reg, 1u << (dice >> 16) % 3);
        }
        if (i % 16 == 0)
            check_invariants();
    }
    ck_assert_uint_gt(pc.rooms, 0);
    ck_assert_uint_gt(pc.sent_count, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("serial");
    TCase *port = tcase_create("port");

    tcase_add_checked_fixture(port, set_up, tear_down);
    tcase_add_test(port, linux_autoconfig_finds_a_16550a);
    tcase_add_test(port, linux_counts_a_fifo_of_16);
    tcase_add_test(port, linux_start_up_tests_find_no_transmitter_bugs);
    tcase_add_test(port, linux_irq_detection_sees_the_line_move);
    tcase_add_test(port, what_is_written_leaves_at_once);
    tcase_add_test(port, send_more_is_said_once_per_byte);
    tcase_add_test(port, bytes_below_the_trigger_time_out_and_above_it_are_data);
    tcase_add_test(port, a_driver_that_reads_one_byte_per_interrupt_gets_them_all);
    tcase_add_test(port, without_fifo_there_is_room_for_one);
    tcase_add_test(port, the_most_urgent_cause_shows_first);
    tcase_add_test(port, a_full_fifo_refuses_and_says_once_when_it_is_empty);
    tcase_add_test(port, a_guest_that_clears_the_fifo_makes_room);
    tcase_add_test(port, nothing_is_taken_while_paused);
    tcase_add_test(port, a_break_shows_with_its_place_in_the_stream);
    tcase_add_test(port, a_break_into_a_full_fifo_is_an_overrun);
    tcase_add_test(port, loopback_cuts_off_the_world);
    tcase_add_test(port, modem_lines_say_ready_and_follow_the_loop);
    tcase_add_test(port, out2_is_the_gate_of_the_interrupt);
    tcase_add_test(port, divisor_and_scratch_are_stored);
    tcase_add_test(port, fcr_without_enable_changes_nothing_but_the_mode);
    tcase_add_test(port, wide_accesses_are_bytes);
    tcase_add_test(port, reset_is_power_on);
    tcase_add_test(port, a_loaded_state_drives_the_line_anew);
    tcase_add_test(port, resume_tells_a_chip_that_forgot);
    tcase_add_test(port, firmware_prints_until_the_guest_does);
    tcase_add_test(port, firmware_gets_keys_until_the_guest_takes_one);
    tcase_add_test(port, firmware_has_a_fifo_and_is_told_of_room);
    tcase_add_test(port, firmware_leaves_the_interrupts_right);
    tcase_add_test(port, a_taken_place_is_refused_and_stays_taken);
    tcase_add_test(port, state_table_keeps_its_promises);
    tcase_add_test(port, a_hostile_guest_changes_nothing_but_its_port);
    suite_add_tcase(suite, port);
    return unit_main(suite);
}
