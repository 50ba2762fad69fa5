/* SPDX-License-Identifier: MIT */
#include "devices/pic.h"
#include "tests/unit/unit.h"
#include <errno.h>
#include <string.h>

enum {
    MASTER = 0x20,
    SLAVE = 0xa0,
    ELCR = 0x4d0,
    EOI = 0x20, /* OCW2: non-specific; with a level added to 0x60: specific */
    SPECIFIC = 0x60,
    READ_IRR = 0x0a,
    READ_ISR = 0x0b,
    POLL = 0x0c,
};

static struct bus *ports;
static struct pic *pic;
static bool int_level;
static unsigned int_changes;

static void handle_int(void *ctx, bool level)
{
    ck_assert_ptr_eq(ctx, &int_level);
    int_level = level;
    int_changes++;
}

static const struct pic_output output = {handle_int, &int_level};

static void out(unsigned port, unsigned value)
{
    bus_write(ports, port, 1, value);
}

static unsigned in(unsigned port)
{
    return (unsigned)bus_read(ports, port, 1);
}

static unsigned read_register(unsigned port, unsigned which)
{
    out(port, which);
    return in(port);
}

/* As every PC firmware does it: vectors 0x08 and 0x70, 8086 mode; everything unmasked. */
static void initialize(unsigned icw1, unsigned master_icw4, unsigned slave_icw4)
{
    out(MASTER, icw1);
    out(MASTER + 1, 0x08);
    out(MASTER + 1, 0x04);
    out(MASTER + 1, master_icw4);
    out(SLAVE, icw1);
    out(SLAVE + 1, 0x70);
    out(SLAVE + 1, 0x02);
    out(SLAVE + 1, slave_icw4);
    out(MASTER + 1, 0);
    out(SLAVE + 1, 0);
}

static void raise_line(unsigned irq)
{
    pic_set_line(pic, irq, true);
}

static void lower_line(unsigned irq)
{
    pic_set_line(pic, irq, false);
}

static void pulse(unsigned irq)
{
    lower_line(irq);
    raise_line(irq);
}

static void setup(void)
{
    struct err err = {0};
    int_level = false;
    int_changes = 0;
    ck_assert_int_eq(bus_create(&ports, &err), 0);
    ck_assert_msg(pic_create(&pic, ports, &output, &err) == 0, "%s", err.text);
    struct device *device = pic_device(pic);
    device->ops->reset(device);
    device->ops->resume(device);
    initialize(0x11, 0x01, 0x01);
    int_changes = 0;
}

static void teardown(void)
{
    device_destroy(pic_device(pic));
    bus_destroy(ports);
}

START_TEST(an_edge_is_delivered_once_with_its_vector)
{
    raise_line(4);
    ck_assert(int_level && pic_pending(pic));
    ck_assert_uint_eq(read_register(MASTER, READ_IRR), 0x10);
    ck_assert_int_eq(pic_acknowledge(pic), 0x0c);
    ck_assert(!int_level && !pic_pending(pic));
    ck_assert_uint_eq(read_register(MASTER, READ_IRR), 0);
    ck_assert_uint_eq(read_register(MASTER, READ_ISR), 0x10);
    out(MASTER, EOI);
    ck_assert_uint_eq(in(MASTER), 0);
    ck_assert(!pic_pending(pic)); /* the line is still up: no second interrupt */
    pulse(4);
    ck_assert(pic_pending(pic));
}
END_TEST

START_TEST(int_is_told_only_when_it_changes)
{
    raise_line(4);
    raise_line(4);
    raise_line(5);
    ck_assert_uint_eq(int_changes, 1);
    lower_line(5);
    lower_line(4);
    ck_assert_uint_eq(int_changes, 2);
}
END_TEST

START_TEST(the_slave_comes_through_input_2_of_the_master)
{
    raise_line(8);
    ck_assert_uint_eq(read_register(MASTER, READ_IRR), 0x04);
    ck_assert_int_eq(pic_acknowledge(pic), 0x70);
    ck_assert_uint_eq(read_register(MASTER, READ_ISR), 0x04);
    ck_assert_uint_eq(read_register(SLAVE, READ_ISR), 0x01);
    out(SLAVE, EOI);
    out(MASTER, EOI);
    ck_assert_uint_eq(in(MASTER), 0);
    ck_assert_uint_eq(in(SLAVE), 0);
}
END_TEST

START_TEST(two_requests_of_the_slave_are_both_delivered)
{
    raise_line(15);
    raise_line(12);
    ck_assert_int_eq(pic_acknowledge(pic), 0x74);
    ck_assert(!pic_pending(pic));
    out(SLAVE, EOI);
    out(MASTER, EOI);
    ck_assert(pic_pending(pic));
    ck_assert_int_eq(pic_acknowledge(pic), 0x77);
}
END_TEST

START_TEST(priority_falls_from_input_0_through_the_slave_to_input_7)
{
    static const int order[] = {0x08, 0x09, 0x70, 0x77, 0x0b, 0x0f};
    static const unsigned lines[] = {7, 15, 3, 8, 1, 0};
    for (unsigned i = 0; i < array_size(lines); i++)
        raise_line(lines[i]);
    for (unsigned i = 0; i < array_size(order); i++) {
        ck_assert_int_eq(pic_acknowledge(pic), order[i]);
        if (order[i] >= 0x70)
            out(SLAVE, EOI);
        out(MASTER, EOI);
    }
    ck_assert(!pic_pending(pic));
}
END_TEST

START_TEST(a_better_request_interrupts_a_worse_one_in_service)
{
    raise_line(5);
    ck_assert_int_eq(pic_acknowledge(pic), 0x0d);
    raise_line(6);
    ck_assert(!pic_pending(pic));
    raise_line(1);
    ck_assert_int_eq(pic_acknowledge(pic), 0x09);
    ck_assert_uint_eq(read_register(MASTER, READ_ISR), 0x22);
    out(MASTER, EOI); /* ends the better one */
    ck_assert_uint_eq(in(MASTER), 0x20);
    out(MASTER, EOI);
    ck_assert_int_eq(pic_acknowledge(pic), 0x0e);
}
END_TEST

START_TEST(a_request_that_goes_away_before_inta_is_spurious_irq7)
{
    raise_line(4);
    lower_line(4);
    ck_assert(!pic_pending(pic));
    ck_assert_int_eq(pic_acknowledge(pic), 0x0f);
    ck_assert_uint_eq(read_register(MASTER, READ_ISR), 0); /* how a handler tells it */
    raise_line(7);
    ck_assert_int_eq(pic_acknowledge(pic), 0x0f);
    ck_assert_uint_eq(in(MASTER), 0x80);
}
END_TEST

START_TEST(a_slave_request_that_goes_away_is_spurious_irq7_too)
{
    raise_line(10);
    lower_line(10);
    ck_assert_int_eq(pic_acknowledge(pic), 0x0f);
    ck_assert_uint_eq(read_register(SLAVE, READ_ISR), 0);
    ck_assert_uint_eq(read_register(MASTER, READ_ISR), 0);
}
END_TEST

START_TEST(a_masked_edge_waits_in_irr_while_its_line_is_up)
{
    out(MASTER + 1, 0x10);
    raise_line(4);
    ck_assert(!pic_pending(pic));
    ck_assert_uint_eq(read_register(MASTER, READ_IRR), 0x10);
    ck_assert_uint_eq(in(MASTER + 1), 0x10);
    out(MASTER + 1, 0);
    ck_assert(pic_pending(pic));
}
END_TEST

START_TEST(a_level_held_high_is_delivered_again_after_eoi)
{
    out(ELCR, 0x20);
    raise_line(5);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(pic_acknowledge(pic), 0x0d);
        ck_assert(!pic_pending(pic));
        out(MASTER, EOI);
        ck_assert(pic_pending(pic));
    }
    ck_assert_uint_eq(read_register(MASTER, READ_IRR), 0x20);
    lower_line(5);
    ck_assert(!pic_pending(pic));
}
END_TEST

START_TEST(a_level_of_the_slave_held_high_is_delivered_again)
{
    out(ELCR + 1, 0x08);
    raise_line(11);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(pic_acknowledge(pic), 0x73);
        out(SLAVE, EOI);
        out(MASTER, EOI);
        ck_assert(pic_pending(pic));
    }
}
END_TEST

START_TEST(ltim_makes_every_input_level_triggered)
{
    raise_line(3);
    initialize(0x19, 0x01, 0x01);
    ck_assert(pic_pending(pic)); /* an edge would have been forgotten */
    ck_assert_int_eq(pic_acknowledge(pic), 0x0b);
    out(MASTER, EOI);
    ck_assert(pic_pending(pic));
}
END_TEST

START_TEST(elcr_keeps_the_timer_the_keyboard_and_the_rtc_edge_triggered)
{
    out(ELCR, 0xff);
    out(ELCR + 1, 0xff);
    ck_assert_uint_eq(in(ELCR), 0xf8);
    ck_assert_uint_eq(in(ELCR + 1), 0xde);
    ck_assert_uint_eq(bus_read(ports, ELCR, 2), 0xdef8);
    raise_line(0);
    ck_assert_int_eq(pic_acknowledge(pic), 0x08);
    out(MASTER, EOI);
    ck_assert(!pic_pending(pic));
}
END_TEST

START_TEST(auto_eoi_leaves_nothing_in_service)
{
    initialize(0x11, 0x03, 0x03);
    raise_line(9);
    raise_line(14);
    ck_assert_int_eq(pic_acknowledge(pic), 0x71);
    ck_assert_uint_eq(read_register(MASTER, READ_ISR), 0);
    ck_assert_uint_eq(read_register(SLAVE, READ_ISR), 0);
    ck_assert_int_eq(pic_acknowledge(pic), 0x76); /* without any EOI between */
    ck_assert(!pic_pending(pic));
}
END_TEST

START_TEST(rotation_in_auto_eoi_gives_everybody_a_turn)
{
    initialize(0x11, 0x03, 0x01);
    out(ELCR, 0x38);
    out(MASTER, 0x80);
    raise_line(3);
    raise_line(4);
    raise_line(5);
    ck_assert_int_eq(pic_acknowledge(pic), 0x0b);
    ck_assert_int_eq(pic_acknowledge(pic), 0x0c);
    ck_assert_int_eq(pic_acknowledge(pic), 0x0d);
    ck_assert_int_eq(pic_acknowledge(pic), 0x0b);
    out(MASTER, 0x00); /* no more rotation: 3 is worst now, and stays so */
    ck_assert_int_eq(pic_acknowledge(pic), 0x0c);
    ck_assert_int_eq(pic_acknowledge(pic), 0x0c);
}
END_TEST

START_TEST(an_eoi_with_rotation_makes_its_level_the_worst)
{
    out(ELCR, 0x28);
    raise_line(3);
    raise_line(5);
    ck_assert_int_eq(pic_acknowledge(pic), 0x0b);
    out(MASTER, 0xa0); /* rotate on non-specific EOI */
    ck_assert_int_eq(pic_acknowledge(pic), 0x0d);
    out(MASTER, 0xe5); /* rotate on specific EOI: 5 */
    ck_assert_int_eq(pic_acknowledge(pic), 0x0b);
}
END_TEST

START_TEST(set_priority_chooses_the_worst_level)
{
    out(MASTER, 0xc4); /* 4 is worst, 5 is best */
    raise_line(0);
    raise_line(4);
    raise_line(5);
    ck_assert_int_eq(pic_acknowledge(pic), 0x0d);
    out(MASTER, EOI);
    ck_assert_int_eq(pic_acknowledge(pic), 0x08);
    out(MASTER, EOI);
    ck_assert_int_eq(pic_acknowledge(pic), 0x0c);
}
END_TEST

START_TEST(a_specific_eoi_ends_its_level_and_no_other)
{
    raise_line(5);
    pic_acknowledge(pic);
    raise_line(1);
    pic_acknowledge(pic);
    out(MASTER, SPECIFIC | 5);
    ck_assert_uint_eq(read_register(MASTER, READ_ISR), 0x02);
    out(MASTER, 0x40); /* no operation */
    ck_assert_uint_eq(in(MASTER), 0x02);
}
END_TEST

START_TEST(special_mask_mode_lets_worse_levels_in_while_the_masked_one_is_served)
{
    raise_line(1);
    ck_assert_int_eq(pic_acknowledge(pic), 0x09);
    raise_line(6);
    out(MASTER + 1, 0x02);
    ck_assert(!pic_pending(pic));
    out(MASTER, 0x68); /* set special mask mode */
    ck_assert_int_eq(pic_acknowledge(pic), 0x0e);
    out(MASTER, EOI); /* passes over the masked level */
    ck_assert_uint_eq(read_register(MASTER, READ_ISR), 0x02);
    raise_line(7);
    ck_assert(pic_pending(pic));
    out(MASTER, 0x48); /* reset special mask mode */
    ck_assert(!pic_pending(pic));
}
END_TEST

START_TEST(special_fully_nested_mode_lets_better_slave_inputs_in)
{
    raise_line(13);
    ck_assert_int_eq(pic_acknowledge(pic), 0x75);
    raise_line(9);
    ck_assert(!pic_pending(pic)); /* plain nesting: the slave waits for the master's EOI */
    lower_line(9);
    lower_line(13);

    initialize(0x11, 0x11, 0x01);
    raise_line(13);
    ck_assert_int_eq(pic_acknowledge(pic), 0x75);
    raise_line(3);
    ck_assert(!pic_pending(pic)); /* worse than the slave */
    raise_line(9);
    ck_assert_int_eq(pic_acknowledge(pic), 0x71);
    raise_line(15);
    ck_assert(!pic_pending(pic));
    raise_line(1);
    ck_assert_int_eq(pic_acknowledge(pic), 0x09);
    raise_line(8);
    ck_assert(!pic_pending(pic)); /* better than all of the slave's, but not than input 1 */
}
END_TEST

START_TEST(a_poll_acknowledges_and_tells_the_level)
{
    out(MASTER, POLL);
    ck_assert_uint_eq(in(MASTER), 0);
    raise_line(6);
    out(MASTER, POLL);
    ck_assert_uint_eq(in(MASTER), 0x86);
    ck_assert_uint_eq(read_register(MASTER, READ_ISR), 0x40);
    ck_assert(!pic_pending(pic));
    out(MASTER, EOI);
    raise_line(12);
    out(MASTER, POLL);
    ck_assert_uint_eq(in(MASTER + 1), 0x82); /* either port will do */
    out(SLAVE, POLL);
    ck_assert_uint_eq(in(SLAVE), 0x84);
    ck_assert_uint_eq(in(SLAVE), 0); /* one poll, one read */
}
END_TEST

START_TEST(the_choice_of_irr_or_isr_lasts)
{
    raise_line(1);
    pic_acknowledge(pic);
    raise_line(2 + 4);
    ck_assert_uint_eq(read_register(MASTER, READ_ISR), 0x02);
    out(MASTER, 0x08); /* an OCW3 that asks for nothing */
    ck_assert_uint_eq(in(MASTER), 0x02);
    ck_assert_uint_eq(read_register(MASTER, READ_IRR), 0x40);
}
END_TEST

START_TEST(icw1_starts_anew)
{
    raise_line(1);
    pic_acknowledge(pic);
    raise_line(4);
    out(MASTER + 1, 0xff);
    out(MASTER, READ_ISR);
    out(MASTER, 0x11);
    ck_assert_uint_eq(in(MASTER), 0); /* IRR: the edge is forgotten */
    ck_assert_uint_eq(in(MASTER + 1), 0);
    ck_assert_uint_eq(read_register(MASTER, READ_ISR), 0);
    pulse(4);
    ck_assert(!pic_pending(pic)); /* not before the last ICW */
    out(MASTER + 1, 0x20);
    out(MASTER + 1, 0x04);
    ck_assert(!pic_pending(pic));
    out(MASTER + 1, 0x01);
    ck_assert_int_eq(pic_acknowledge(pic), 0x24);
}
END_TEST

START_TEST(icw3_and_icw4_come_only_where_icw1_says_so)
{
    out(MASTER, 0x12); /* single, no ICW4 */
    out(MASTER + 1, 0x40);
    out(MASTER + 1, 0x5a); /* a mask already */
    ck_assert_uint_eq(in(MASTER + 1), 0x5a);
    raise_line(0);
    ck_assert_int_eq(pic_acknowledge(pic), 0x40);

    out(MASTER, 0x13); /* single, with ICW4: AEOI */
    out(MASTER + 1, 0x48);
    out(MASTER + 1, 0x03);
    out(MASTER + 1, 0xa5);
    ck_assert_uint_eq(in(MASTER + 1), 0xa5);
    pulse(1);
    ck_assert_int_eq(pic_acknowledge(pic), 0x49);
    ck_assert_uint_eq(read_register(MASTER, READ_ISR), 0);
    raise_line(8); /* without a cascade the slave's INT is an input like others */
    out(MASTER + 1, 0);
    ck_assert_int_eq(pic_acknowledge(pic), 0x4a);

    out(MASTER, 0x10); /* cascade, no ICW4: AEOI is off again */
    out(MASTER + 1, 0x50);
    out(MASTER + 1, 0x04);
    out(MASTER + 1, 0x01);
    ck_assert_uint_eq(in(MASTER + 1), 0x01);
}
END_TEST

START_TEST(linux_probe_finds_the_mask_register)
{
    out(SLAVE + 1, 0xff);
    out(MASTER + 1, 0xfb);
    ck_assert_uint_eq(in(MASTER + 1), 0xfb);
}
END_TEST

START_TEST(nothing_is_pending_at_power_on)
{
    struct device *device = pic_device(pic);
    out(ELCR, 0xff);
    raise_line(5);
    device->ops->reset(device);
    ck_assert(!pic_pending(pic) && !int_level);
    ck_assert_uint_eq(in(MASTER + 1), 0xff);
    ck_assert_uint_eq(in(SLAVE + 1), 0xff);
    ck_assert_uint_eq(in(ELCR), 0);
}
END_TEST

START_TEST(a_loaded_state_raises_int_at_resume_and_goes_on)
{
    struct device *device = pic_device(pic);
    uint8_t saved[sizeof(uint64_t) * 16];
    ck_assert_uint_le(device->table->size, sizeof(saved));
    raise_line(8);
    memcpy(saved, device->state, device->table->size);

    device->ops->reset(device);
    ck_assert(!int_level);
    memcpy(device->state, saved, device->table->size);
    device->ops->resume(device);
    ck_assert(int_level && pic_pending(pic));
    raise_line(8); /* the device renews its line: no new edge */
    ck_assert_int_eq(pic_acknowledge(pic), 0x70);
    out(SLAVE, EOI);
    out(MASTER, EOI);
    ck_assert(!pic_pending(pic));

    unsigned before = int_changes;
    device->ops->resume(device);
    ck_assert_uint_eq(int_changes, before + 1); /* told even though it is the old level */
}
END_TEST

START_TEST(lines_that_do_not_exist_are_ignored)
{
    pic_set_line(pic, 2, true);
    pic_set_line(pic, 16, true);
    pic_set_line(pic, ~0u, true);
    ck_assert(!pic_pending(pic));
    ck_assert_uint_eq(read_register(MASTER, READ_IRR), 0);
}
END_TEST

/* Whatever a guest writes: INT is what pending says, a vector is a vector, the state can be saved.
 */
START_TEST(random_ports_and_lines_never_leave_the_table)
{
    static const unsigned at[] = {MASTER, MASTER + 1, SLAVE, SLAVE + 1, ELCR, ELCR + 1};
    struct device *device = pic_device(pic);
    uint32_t seed = 1;
    for (int i = 0; i < 100000; i++) {
        seed = seed * 1664525 + 1013904223;
        unsigned port = at[(seed >> 8) % array_size(at)];
        switch (seed >> 28) {
        case 0 ... 5:
            out(port, seed >> 16 & 0xff);
            break;
        case 6 ... 8:
            in(port);
            break;
        case 9 ... 11:
            ck_assert_int_eq(pic_acknowledge(pic) & ~0xff, 0);
            break;
        default:
            pic_set_line(pic, seed >> 16 & 0x1f, seed >> 21 & 1);
        }
        ck_assert_int_eq(int_level, pic_pending(pic));
        ck_assert_int_eq(state_check(device->table, device->state, NULL), 0);
    }
}
END_TEST

START_TEST(any_state_that_loads_is_survived)
{
    struct device *device = pic_device(pic);
    uint8_t *bytes = device->state;
    uint32_t seed = 7;
    unsigned loaded = 0;
    for (int i = 0; i < 20000; i++) {
        for (size_t j = 0; j < device->table->size; j++) {
            seed = seed * 1664525 + 1013904223;
            /* few bits, so that bounded fields have a chance */
            bytes[j] = (seed >> 24) & (j % 15 == 5 ? 7 : j % 15 == 10 ? 3 : j % 15 > 10 ? 1 : 0x1f);
        }
        if (state_check(device->table, bytes, NULL) < 0)
            continue;
        loaded++;
        device->ops->resume(device);
        ck_assert_int_eq(pic_acknowledge(pic) & ~0xff, 0);
        out(MASTER, seed >> 16 & 0xff);
        in(SLAVE);
        ck_assert_int_eq(int_level, pic_pending(pic));
    }
    ck_assert_uint_gt(loaded, 10000);
}
END_TEST

START_TEST(a_second_pic_is_refused_and_harms_nothing)
{
    struct pic *second = NULL;
    struct err err = {0};
    bus_remove(ports, MASTER); /* now its first range fits, and its second does not */
    ck_assert_int_eq(pic_create(&second, ports, &output, &err), -EEXIST);
    ck_assert_ptr_null(second);
    ck_assert_uint_eq(in(MASTER + 1), 0xff); /* the half-built one is gone from the bus */
    out(SLAVE + 1, 0x12);
    ck_assert_uint_eq(in(SLAVE + 1), 0x12);
}
END_TEST

START_TEST(the_state_table_keeps_its_promises)
{
    out(ELCR, 0x20);
    out(ELCR + 1, 0x02);
    raise_line(4);
    pic_acknowledge(pic);
    raise_line(1);
    raise_line(9);
    out(MASTER, 0xc3);
    out(MASTER, 0x80);
    out(MASTER, 0x6b);
    out(MASTER + 1, 0x81);
    out(SLAVE + 1, 0x42);
    out(SLAVE, 0x11);
    out(SLAVE + 1, 0x70);
    out(SLAVE, POLL);
    unit_check_table(pic_device(pic)->table, pic_device(pic)->state);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        an_edge_is_delivered_once_with_its_vector,
        int_is_told_only_when_it_changes,
        the_slave_comes_through_input_2_of_the_master,
        two_requests_of_the_slave_are_both_delivered,
        priority_falls_from_input_0_through_the_slave_to_input_7,
        a_better_request_interrupts_a_worse_one_in_service,
        a_request_that_goes_away_before_inta_is_spurious_irq7,
        a_slave_request_that_goes_away_is_spurious_irq7_too,
        a_masked_edge_waits_in_irr_while_its_line_is_up,
        a_level_held_high_is_delivered_again_after_eoi,
        a_level_of_the_slave_held_high_is_delivered_again,
        ltim_makes_every_input_level_triggered,
        elcr_keeps_the_timer_the_keyboard_and_the_rtc_edge_triggered,
        auto_eoi_leaves_nothing_in_service,
        rotation_in_auto_eoi_gives_everybody_a_turn,
        an_eoi_with_rotation_makes_its_level_the_worst,
        set_priority_chooses_the_worst_level,
        a_specific_eoi_ends_its_level_and_no_other,
        special_mask_mode_lets_worse_levels_in_while_the_masked_one_is_served,
        special_fully_nested_mode_lets_better_slave_inputs_in,
        a_poll_acknowledges_and_tells_the_level,
        the_choice_of_irr_or_isr_lasts,
        icw1_starts_anew,
        icw3_and_icw4_come_only_where_icw1_says_so,
        linux_probe_finds_the_mask_register,
        nothing_is_pending_at_power_on,
        a_loaded_state_raises_int_at_resume_and_goes_on,
        lines_that_do_not_exist_are_ignored,
        random_ports_and_lines_never_leave_the_table,
        any_state_that_loads_is_survived,
        a_second_pic_is_refused_and_harms_nothing,
        the_state_table_keeps_its_promises,
    };
    Suite *suite = suite_create("pic");
    TCase *tcase = tcase_create("pic");
    tcase_add_checked_fixture(tcase, setup, teardown);
    for (unsigned i = 0; i < array_size(tests); i++)
        tcase_add_test(tcase, tests[i]);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
