/* SPDX-License-Identifier: MIT */
#include "devices/exit_port.h"
#include "tests/unit/platform.h"
#include "tests/unit/unit.h"
#include <errno.h>

static struct {
    struct bus *ports;
    struct fake_power power;
    struct device *device;
} pc;

static void set_up(void)
{
    struct exit_port *port;

    fake_power_init(&pc.power);
    ck_assert_int_eq(bus_create(&pc.ports, NULL), 0);
    ck_assert_int_eq(exit_port_create(&port, pc.ports, &pc.power.power, NULL), 0);
    pc.device = exit_port_device(port);
    pc.device->ops->reset(pc.device);
    pc.device->ops->resume(pc.device);
}

static void tear_down(void)
{
    device_destroy(pc.device);
    bus_destroy(pc.ports);
}

START_TEST(a_write_of_any_width_ends_with_its_low_byte)
{
    unsigned width = 1u << _i;

    bus_write(pc.ports, EXIT_PORT, width, 0x1234562a);
    ck_assert_uint_eq(pc.power.requests, 1);
    ck_assert_uint_eq(pc.power.event, POWER_EXIT);
    ck_assert_uint_eq(pc.power.code, 0x2a);
}
END_TEST

START_TEST(the_last_code_reads_back_until_reset)
{
    ck_assert_uint_eq(bus_read(pc.ports, EXIT_PORT, 1), 0);
    bus_write(pc.ports, EXIT_PORT, 1, 7);
    ck_assert_uint_eq(bus_read(pc.ports, EXIT_PORT, 1), 7);
    pc.device->ops->reset(pc.device);
    ck_assert_uint_eq(bus_read(pc.ports, EXIT_PORT, 1), 0);
    ck_assert_uint_eq(pc.power.requests, 1);
}
END_TEST

START_TEST(a_destroyed_port_is_gone_and_a_second_one_is_refused)
{
    struct exit_port *second = NULL;

    ck_assert_int_eq(exit_port_create(&second, pc.ports, &pc.power.power, NULL), -EEXIST);
    ck_assert_ptr_null(second);
    ck_assert_uint_eq(bus_read(pc.ports, EXIT_PORT, 1), 0); /* the first still answers */
    device_destroy(pc.device);
    pc.device = NULL;
    ck_assert_uint_eq(bus_read(pc.ports, EXIT_PORT, 1), 0xff);
}
END_TEST

START_TEST(state_table_keeps_its_promises)
{
    bus_write(pc.ports, EXIT_PORT, 1, 0x2a);
    unit_check_table(pc.device->table, pc.device->state);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("exit_port");
    TCase *port = tcase_create("port");

    tcase_add_checked_fixture(port, set_up, tear_down);
    tcase_add_loop_test(port, a_write_of_any_width_ends_with_its_low_byte, 0, 3);
    tcase_add_test(port, the_last_code_reads_back_until_reset);
    tcase_add_test(port, a_destroyed_port_is_gone_and_a_second_one_is_refused);
    tcase_add_test(port, state_table_keeps_its_promises);
    suite_add_tcase(suite, port);
    return unit_main(suite);
}
