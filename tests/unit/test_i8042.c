/* SPDX-License-Identifier: MIT */
#include "devices/i8042.h"
#include "tests/unit/platform.h"
#include "tests/unit/unit.h"
#include <errno.h>

enum { DATA = 0x60, COMMAND = 0x64, CONTROL_A = 0x92 };
enum { OUTPUT_FULL = 0x01, SYSTEM = 0x04, WAS_COMMAND = 0x08, UNLOCKED = 0x10, TIMEOUT = 0x40 };

static struct {
    struct bus *ports;
    struct fake_power power;
    struct device *device;
} pc;

static void set_up(void)
{
    struct i8042 *i8042;

    fake_power_init(&pc.power);
    ck_assert_int_eq(bus_create(&pc.ports, NULL), 0);
    ck_assert_int_eq(i8042_create(&i8042, pc.ports, &pc.power.power, NULL), 0);
    pc.device = i8042_device(i8042);
    pc.device->ops->reset(pc.device);
    pc.device->ops->resume(pc.device);
}

static void tear_down(void)
{
    device_destroy(pc.device);
    bus_destroy(pc.ports);
}

static uint8_t in(unsigned port)
{
    return bus_read(pc.ports, port, 1);
}

static void out(unsigned port, uint8_t value)
{
    bus_write(pc.ports, port, 1, value);
}

/* The answer to a command, which must be there at once, and the only one. */
static uint8_t ask(uint8_t command)
{
    out(COMMAND, command);
    ck_assert_uint_eq(in(COMMAND) & (OUTPUT_FULL | TIMEOUT), OUTPUT_FULL);
    uint8_t answer = in(DATA);
    ck_assert_uint_eq(in(COMMAND)&OUTPUT_FULL, 0);
    return answer;
}

START_TEST(a_driver_finds_a_controller_at_rest)
{
    ck_assert_uint_eq(in(COMMAND), SYSTEM | UNLOCKED);
    ck_assert_uint_eq(ask(0xaa), 0x55);
    ck_assert_uint_eq(ask(0xab), 0x00);
    ck_assert_uint_eq(ask(0xc0), 0x80);
    ck_assert_uint_eq(ask(0xe0), 0x00);
}
END_TEST

START_TEST(the_command_byte_is_stored)
{
    ck_assert_uint_eq(ask(0x20), 0x65);
    out(COMMAND, 0x60);
    ck_assert(in(COMMAND)&WAS_COMMAND);
    out(DATA, 0x40);
    ck_assert_uint_eq(in(COMMAND), UNLOCKED); /* the system flag is one of its bits */
    ck_assert_uint_eq(ask(0x20), 0x60);       /* and there is still no mouse */
    out(COMMAND, 0xad);
    ck_assert_uint_eq(ask(0x20), 0x70);
    out(COMMAND, 0xae);
    ck_assert_uint_eq(ask(0x20), 0x60);
    ask(0xaa);
    ck_assert_uint_eq(ask(0x20), 0x64);
}
END_TEST

START_TEST(nobody_answers_for_the_keyboard_and_at_once)
{
    out(DATA, 0xff);
    ck_assert_uint_eq(in(COMMAND), SYSTEM | UNLOCKED | OUTPUT_FULL | TIMEOUT);
    ck_assert_uint_eq(in(DATA), 0xfe);
    ck_assert_uint_eq(in(COMMAND), SYSTEM | UNLOCKED);
}
END_TEST

START_TEST(there_is_no_mouse)
{
    out(COMMAND, 0xd3); /* Linux's loop test wants the mouse's status bit with the byte */
    out(DATA, 0x5a);
    ck_assert_uint_eq(in(COMMAND)&0x21, OUTPUT_FULL);
    ck_assert_uint_eq(in(DATA), 0x5a);
    ck_assert_uint_eq(ask(0xa9), 0x01);
    out(COMMAND, 0xa8);
    ck_assert_uint_eq(ask(0x20) & 0x20, 0x20);
    out(COMMAND, 0xd4);
    out(DATA, 0xf2);
    ck_assert_uint_eq(in(DATA), 0xfe);
    out(COMMAND, 0xd2); /* while this one is an echo on purpose */
    out(DATA, 0x1c);
    ck_assert_uint_eq(in(DATA), 0x1c);
}
END_TEST

START_TEST(a_pulse_with_bit_0_low_resets_and_no_other)
{
    for (unsigned command = 0xf0; command <= 0xff; command++) {
        pc.power.requests = 0;
        out(COMMAND, command);
        ck_assert_uint_eq(pc.power.requests, command % 2 == 0);
        if (command % 2 == 0)
            ck_assert_uint_eq(pc.power.event, POWER_RESET);
    }
}
END_TEST

START_TEST(no_other_command_resets)
{
    for (unsigned command = 0; command < 0xf0; command++)
        out(COMMAND, command);
    ck_assert_uint_eq(pc.power.requests, 0);
}
END_TEST

START_TEST(the_output_port_gates_a20_and_reset)
{
    ck_assert_uint_eq(ask(0xd0), 0x03);
    out(COMMAND, 0xd1);
    out(DATA, 0xdd);
    ck_assert_uint_eq(ask(0xd0), 0x01);
    ck_assert_uint_eq(in(CONTROL_A), 0x00); /* two doors to one bit */
    out(COMMAND, 0xdf);
    ck_assert_uint_eq(ask(0xd0), 0x03);
    out(COMMAND, 0xdd);
    ck_assert_uint_eq(ask(0xd0), 0x01);
    ck_assert_uint_eq(pc.power.requests, 0);
    out(COMMAND, 0xd1);
    out(DATA, 0xfe);
    ck_assert_uint_eq(pc.power.requests, 1);
    ck_assert_uint_eq(pc.power.event, POWER_RESET);
}
END_TEST

START_TEST(a_command_in_between_forgets_the_one_that_waits)
{
    out(COMMAND, 0xd1);
    out(COMMAND, 0x20);
    in(DATA);
    out(DATA, 0x00); /* would have been a reset */
    ck_assert_uint_eq(pc.power.requests, 0);
}
END_TEST

START_TEST(control_port_a_gates_a20_and_resets_fast)
{
    ck_assert_uint_eq(in(CONTROL_A), 0x02);
    out(CONTROL_A, 0x00);
    ck_assert_uint_eq(in(CONTROL_A), 0x00);
    out(CONTROL_A, 0x02);
    ck_assert_uint_eq(in(CONTROL_A), 0x02);
    ck_assert_uint_eq(pc.power.requests, 0);
    out(CONTROL_A, 0x03);
    ck_assert_uint_eq(pc.power.requests, 1);
    ck_assert_uint_eq(pc.power.event, POWER_RESET);
}
END_TEST

START_TEST(the_ports_between_are_not_ours)
{
    for (unsigned port = 0x61; port < 0x92; port++)
        if (port != COMMAND)
            ck_assert_uint_eq(in(port), 0xff);
}
END_TEST

START_TEST(reset_is_power_on)
{
    out(COMMAND, 0x60);
    out(DATA, 0x00);
    out(CONTROL_A, 0x00);
    out(DATA, 0xff);
    out(COMMAND, 0xd1);
    pc.device->ops->reset(pc.device);
    ck_assert_uint_eq(in(COMMAND), SYSTEM | UNLOCKED);
    ck_assert_uint_eq(in(CONTROL_A), 0x02);
    ck_assert_uint_eq(ask(0x20), 0x65);
    out(DATA, 0x00);
    ck_assert_uint_eq(pc.power.requests, 0);
}
END_TEST

static uint64_t handle_foreign_read(void *device, uint64_t offset, unsigned width)
{
    return 0x42;
}

START_TEST(a_taken_port_is_refused_and_stays_taken)
{
    static const struct bus_ops foreign = {"foreign", 1, handle_foreign_read, NULL};
    struct i8042 *i8042 = NULL;

    device_destroy(pc.device);
    pc.device = NULL;
    ck_assert_int_eq(bus_add(pc.ports, CONTROL_A, 1, &foreign, NULL, NULL), 0);
    ck_assert_int_eq(i8042_create(&i8042, pc.ports, &pc.power.power, NULL), -EEXIST);
    ck_assert_ptr_null(i8042);
    ck_assert_uint_eq(in(CONTROL_A), 0x42);
    ck_assert_uint_eq(in(DATA), 0xff); /* what was half-built is gone */
    ck_assert_uint_eq(in(COMMAND), 0xff);
}
END_TEST

START_TEST(state_table_keeps_its_promises)
{
    out(COMMAND, 0x60);
    out(DATA, 0x47);
    out(CONTROL_A, 0x02);
    out(DATA, 0xff);
    out(COMMAND, 0xd1);
    unit_check_table(pc.device->table, pc.device->state);
}
END_TEST

START_TEST(a_hostile_guest_gets_resets_and_nothing_else)
{
    static const uint16_t ports[] = {DATA, COMMAND, CONTROL_A};
    uint64_t seed = 0x8042;

    for (unsigned i = 0; i < 100000; i++) {
        uint64_t dice = chance(&seed);
        unsigned port = ports[(dice >> 8) % 3];
        if (dice % 512 == 0)
            fill_state(pc.device, &seed);
        else if (dice % 2)
            bus_write(pc.ports, port, 1u << (dice >> 16) % 3, dice >> 32);
        else
            bus_read(pc.ports, port, 1u << (dice >> 16) % 3);
        ck_assert_int_eq(state_check(pc.device->table, pc.device->state, NULL), 0);
        if (pc.power.requests)
            ck_assert_uint_eq(pc.power.event, POWER_RESET);
    }
    ck_assert_uint_gt(pc.power.requests, 0);
    ck_assert_uint_eq(ask(0xaa), 0x55);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("i8042");
    TCase *controller = tcase_create("controller");

    tcase_add_checked_fixture(controller, set_up, tear_down);
    tcase_add_test(controller, a_driver_finds_a_controller_at_rest);
    tcase_add_test(controller, the_command_byte_is_stored);
    tcase_add_test(controller, nobody_answers_for_the_keyboard_and_at_once);
    tcase_add_test(controller, there_is_no_mouse);
    tcase_add_test(controller, a_pulse_with_bit_0_low_resets_and_no_other);
    tcase_add_test(controller, no_other_command_resets);
    tcase_add_test(controller, the_output_port_gates_a20_and_reset);
    tcase_add_test(controller, a_command_in_between_forgets_the_one_that_waits);
    tcase_add_test(controller, control_port_a_gates_a20_and_resets_fast);
    tcase_add_test(controller, the_ports_between_are_not_ours);
    tcase_add_test(controller, reset_is_power_on);
    tcase_add_test(controller, a_taken_port_is_refused_and_stays_taken);
    tcase_add_test(controller, state_table_keeps_its_promises);
    tcase_add_test(controller, a_hostile_guest_gets_resets_and_nothing_else);
    suite_add_tcase(suite, controller);
    return unit_main(suite);
}
