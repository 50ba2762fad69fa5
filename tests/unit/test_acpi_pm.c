/* SPDX-License-Identifier: MIT */
#include "devices/acpi_pm.h"
#include "tests/unit/platform.h"
#include "tests/unit/unit.h"
#include <errno.h>

enum { LINE = 9 };
enum { TIMER = 1 << 0, GLOBAL = 1 << 5, BUTTON = 1 << 8, RTC = 1 << 10, WAKE = 1 << 15 };
enum { SLEEP = 1 << 13, SLEEP_TYPE_SHIFT = 10 };

#define MS 1000000ull

/* Guest time of the moment when bit 31 of the timer changes for the nth time. */
#define CARRY_NS(n) (clock_scale((n) * (1ull << 31), NS_PER_SEC, ACPI_PM_TIMER_HZ) + 1)

static struct {
    struct bus *ports;
    struct loop *loop;
    struct fake_chip chip;
    struct irq_chip stopping_chip; /* the same, and a rising line ends loop_run */
    struct guest_clock clock;
    struct fake_power power;
    struct acpi_pm *pm;
    struct device *device;
} pc;

static void handle_line(void *ctx, unsigned number, bool level)
{
    fake_chip_handle_line(&pc.chip, number, level);
    if (level)
        loop_stop(pc.loop);
}

static void make_pm(void)
{
    ck_assert_int_eq(acpi_pm_create(&pc.pm, pc.ports, ACPI_PM_BASE, &pc.stopping_chip, LINE,
                                    pc.loop, &pc.clock, &pc.power.power, NULL),
                     0);
    pc.device = acpi_pm_device(pc.pm);
    pc.device->ops->reset(pc.device);
    pc.device->ops->resume(pc.device);
}

static void set_up(void)
{
    memset(&pc, 0, sizeof(pc));
    fake_chip_init(&pc.chip);
    fake_power_init(&pc.power);
    pc.stopping_chip.set_line = handle_line;
    ck_assert_int_eq(bus_create(&pc.ports, NULL), 0);
    ck_assert_int_eq(loop_create(&pc.loop, NULL), 0);
    make_pm();
}

static void tear_down(void)
{
    device_destroy(pc.device);
    loop_destroy(pc.loop);
    bus_destroy(pc.ports);
}

static uint16_t in16(unsigned offset)
{
    return bus_read(pc.ports, ACPI_PM_BASE + offset, 2);
}

static void out16(unsigned offset, uint16_t value)
{
    bus_write(pc.ports, ACPI_PM_BASE + offset, 2, value);
}

static uint32_t read_timer(void)
{
    return bus_read(pc.ports, ACPI_PM_BASE + ACPI_PM_TIMER, 4);
}

/* Guest time in the tests stands, unless a test starts it. */
static void set_guest_time(uint64_t ns)
{
    guest_clock_set(&pc.clock, ns);
}

static uint8_t in8(unsigned offset)
{
    return bus_read(pc.ports, ACPI_PM_BASE + offset, 1);
}

static void out8(unsigned offset, uint8_t value)
{
    bus_write(pc.ports, ACPI_PM_BASE + offset, 1, value);
}

static void pause_device(void)
{
    pc.device->ops->pause(pc.device);
}

static void resume_device(void)
{
    pc.device->ops->resume(pc.device);
}

START_TEST(the_layout_is_what_the_tables_say)
{
    ck_assert_uint_eq(ACPI_PM1A_STATUS, 0);
    ck_assert_uint_eq(ACPI_PM1A_ENABLE, 2);
    ck_assert_uint_eq(ACPI_PM1A_CONTROL, 4);
    ck_assert_uint_eq(ACPI_GPE0_STATUS, 6);
    ck_assert_uint_eq(ACPI_GPE0_ENABLE, 7);
    ck_assert_uint_eq(ACPI_PM_TIMER, 8);
    ck_assert_uint_eq(ACPI_PM_RESET, 12);
    ck_assert_uint_eq(ACPI_PM_SIZE, 16);
    ck_assert_uint_eq(bus_read(pc.ports, ACPI_PM_BASE + ACPI_PM_SIZE - 1, 1), 0xff);
}
END_TEST

START_TEST(the_machine_is_always_in_acpi_mode)
{
    ck_assert_uint_eq(in16(ACPI_PM1A_CONTROL), 1);
    out16(ACPI_PM1A_CONTROL, 0);
    ck_assert_uint_eq(in16(ACPI_PM1A_CONTROL), 1);
}
END_TEST

START_TEST(only_sleep_type_5_with_the_enable_powers_off)
{
    for (unsigned type = 0; type < 8; type++) {
        out16(ACPI_PM1A_CONTROL, type << SLEEP_TYPE_SHIFT);
        ck_assert_uint_eq(pc.power.requests, 0);
        ck_assert_uint_eq(in16(ACPI_PM1A_CONTROL), (type << SLEEP_TYPE_SHIFT) | 1);
        if (type != ACPI_PM_SLEEP_TYPE_OFF)
            out16(ACPI_PM1A_CONTROL, type << SLEEP_TYPE_SHIFT | SLEEP);
        ck_assert_uint_eq(pc.power.requests, 0);
    }
    out16(ACPI_PM1A_CONTROL, 5 << SLEEP_TYPE_SHIFT | SLEEP);
    ck_assert_uint_eq(pc.power.requests, 1);
    ck_assert_uint_eq(pc.power.event, POWER_OFF);
    ck_assert_uint_eq(in16(ACPI_PM1A_CONTROL) & SLEEP, 0);              /* write only */
    bus_write(pc.ports, ACPI_PM_BASE + ACPI_PM1A_CONTROL + 1, 1, 0x34); /* the upper byte alone */
    ck_assert_uint_eq(pc.power.requests, 2);
}
END_TEST

START_TEST(the_reset_register_takes_one_value)
{
    for (unsigned value = 0; value < 256; value++) {
        pc.power.requests = 0;
        bus_write(pc.ports, ACPI_PM_BASE + ACPI_PM_RESET, 1, value);
        ck_assert_uint_eq(pc.power.requests, value == ACPI_PM_RESET_VALUE);
    }
    bus_write(pc.ports, ACPI_PM_BASE + ACPI_PM_RESET, 1, ACPI_PM_RESET_VALUE);
    ck_assert_uint_eq(pc.power.event, POWER_RESET);
}
END_TEST

START_TEST(a_pressed_button_holds_the_line_until_it_is_acknowledged)
{
    out16(ACPI_PM1A_ENABLE, BUTTON);
    acpi_pm_press_power_button(pc.pm);
    ck_assert(pc.chip.level[LINE]);
    ck_assert_uint_eq(in16(ACPI_PM1A_STATUS), BUTTON);
    out16(ACPI_PM1A_STATUS, (uint16_t)~BUTTON);
    ck_assert(pc.chip.level[LINE]);
    out16(ACPI_PM1A_STATUS, BUTTON);
    ck_assert(!pc.chip.level[LINE]);
    ck_assert_uint_eq(in16(ACPI_PM1A_STATUS), 0);
}
END_TEST

START_TEST(a_button_nobody_enabled_shows_and_waits)
{
    acpi_pm_press_power_button(pc.pm);
    ck_assert(!pc.chip.level[LINE]);
    ck_assert_uint_eq(in16(ACPI_PM1A_STATUS), BUTTON);
    out16(ACPI_PM1A_ENABLE, BUTTON);
    ck_assert(pc.chip.level[LINE]);
    out16(ACPI_PM1A_ENABLE, 0);
    ck_assert(!pc.chip.level[LINE]);
}
END_TEST

START_TEST(a_press_while_paused_is_felt_at_resume)
{
    out16(ACPI_PM1A_ENABLE, BUTTON);
    pause_device();
    acpi_pm_press_power_button(pc.pm);
    ck_assert_uint_eq(in16(ACPI_PM1A_STATUS), 0);
    ck_assert(!pc.chip.level[LINE]);
    resume_device();
    ck_assert(pc.chip.level[LINE]);
    out16(ACPI_PM1A_STATUS, BUTTON);
    pause_device();
    resume_device();
    ck_assert(!pc.chip.level[LINE]); /* once */
}
END_TEST

START_TEST(an_event_holds_the_line_until_it_is_acknowledged)
{
    acpi_pm_raise_event(pc.pm, ACPI_EVENT_GENERATION);
    ck_assert_uint_eq(in8(ACPI_GPE0_STATUS), 1);
    ck_assert(!pc.chip.level[LINE]);
    out8(ACPI_GPE0_ENABLE, 0xff);
    ck_assert_uint_eq(in8(ACPI_GPE0_ENABLE), 1); /* those that there are */
    ck_assert(pc.chip.level[LINE]);
    out8(ACPI_GPE0_STATUS, 0xfe);
    ck_assert(pc.chip.level[LINE]);
    out8(ACPI_GPE0_STATUS, 1);
    ck_assert(!pc.chip.level[LINE]);
    ck_assert_uint_eq(in8(ACPI_GPE0_STATUS), 0);
    acpi_pm_raise_event(pc.pm, ACPI_EVENT_GENERATION);
    ck_assert(pc.chip.level[LINE]);
    out8(ACPI_GPE0_ENABLE, 0);
    ck_assert(!pc.chip.level[LINE]);
}
END_TEST

START_TEST(events_and_the_button_share_the_line)
{
    out8(ACPI_GPE0_ENABLE, 1);
    out16(ACPI_PM1A_ENABLE, BUTTON);
    acpi_pm_raise_event(pc.pm, ACPI_EVENT_GENERATION);
    acpi_pm_press_power_button(pc.pm);
    out8(ACPI_GPE0_STATUS, 1);
    ck_assert(pc.chip.level[LINE]);
    acpi_pm_raise_event(pc.pm, ACPI_EVENT_GENERATION);
    out16(ACPI_PM1A_STATUS, BUTTON);
    ck_assert(pc.chip.level[LINE]);
    /* One access over both registers, and the control register before them. */
    bus_write(pc.ports, ACPI_PM_BASE + ACPI_PM1A_CONTROL, 4, 0x00010000);
    ck_assert_uint_eq(in8(ACPI_GPE0_STATUS), 0);
    ck_assert_uint_eq(in8(ACPI_GPE0_ENABLE), 0);
    ck_assert(!pc.chip.level[LINE]);
}
END_TEST

START_TEST(an_event_while_paused_is_felt_at_resume)
{
    out8(ACPI_GPE0_ENABLE, 1);
    pause_device();
    acpi_pm_raise_event(pc.pm, ACPI_EVENT_GENERATION);
    ck_assert_uint_eq(in8(ACPI_GPE0_STATUS), 0);
    resume_device();
    ck_assert(pc.chip.level[LINE]);
    out8(ACPI_GPE0_STATUS, 1);
    pause_device();
    resume_device();
    ck_assert(!pc.chip.level[LINE]); /* once */
    pause_device();
    acpi_pm_raise_event(pc.pm, ACPI_EVENT_GENERATION);
    pc.device->ops->reset(pc.device);
    resume_device();
    ck_assert_uint_eq(in8(ACPI_GPE0_STATUS), 0); /* a machine that begins anew has missed nothing */
}
END_TEST

START_TEST(only_enables_that_exist_are_stored)
{
    out16(ACPI_PM1A_ENABLE, 0xffff);
    ck_assert_uint_eq(in16(ACPI_PM1A_ENABLE), 0x0721);
    bus_write(pc.ports, ACPI_PM_BASE + ACPI_PM1A_STATUS, 4, 0x00200000); /* status and enable */
    ck_assert_uint_eq(in16(ACPI_PM1A_ENABLE), GLOBAL);
    bus_write(pc.ports, ACPI_PM_BASE + ACPI_PM1A_ENABLE + 1, 1, 0x04);
    ck_assert_uint_eq(in16(ACPI_PM1A_ENABLE), GLOBAL | RTC);
}
END_TEST

START_TEST(the_timer_counts_guest_time)
{
    ck_assert_uint_eq(read_timer(), 0);
    set_guest_time(NS_PER_SEC);
    ck_assert_uint_eq(read_timer(), 3579545);
    set_guest_time(1200 * NS_PER_SEC); /* 4295454000 ticks are more than 32 bits */
    ck_assert_uint_eq(read_timer(), 4295454000 - (1ull << 32));
    ck_assert_uint_eq(in16(ACPI_PM_TIMER + 2), (4295454000 - (1ull << 32)) >> 16);
    bus_write(pc.ports, ACPI_PM_BASE + ACPI_PM_TIMER, 4, 0xffffffff); /* read only */
    ck_assert_uint_eq(read_timer(), 4295454000 - (1ull << 32));
}
END_TEST

START_TEST(a_carry_shows_when_bit_31_changes)
{
    set_guest_time(CARRY_NS(1) - 1000);
    ck_assert_uint_eq(in16(ACPI_PM1A_STATUS), 0);
    set_guest_time(CARRY_NS(1));
    ck_assert_uint_eq(read_timer(), 1u << 31);
    ck_assert_uint_eq(in16(ACPI_PM1A_STATUS), TIMER);
    out16(ACPI_PM1A_STATUS, TIMER);
    ck_assert_uint_eq(in16(ACPI_PM1A_STATUS), 0);
    set_guest_time(CARRY_NS(2)); /* to 0 counts as well */
    ck_assert_uint_eq(in16(ACPI_PM1A_STATUS), TIMER);
    ck_assert(!pc.chip.level[LINE]);
    out16(ACPI_PM1A_ENABLE, TIMER);
    ck_assert(pc.chip.level[LINE]);
}
END_TEST

START_TEST(a_carry_interrupts_who_waits_for_it)
{
    pause_device();
    set_guest_time(CARRY_NS(1) - 300 * MS);
    guest_clock_start(&pc.clock);
    resume_device();
    out16(ACPI_PM1A_ENABLE, TIMER);
    ck_assert(!pc.chip.level[LINE]);
    ck_assert_int_eq(loop_run(pc.loop), 0); /* ends when the line rises */
    ck_assert_uint_ge(guest_clock_now(&pc.clock), CARRY_NS(1));
    ck_assert_uint_eq(in16(ACPI_PM1A_STATUS), TIMER);
}
END_TEST

static void handle_end(void *arg)
{
    loop_stop(pc.loop);
}

START_TEST(no_carry_comes_while_paused)
{
    struct loop_timer end;

    pause_device();
    set_guest_time(CARRY_NS(1) - 20 * MS);
    guest_clock_start(&pc.clock);
    resume_device();
    out16(ACPI_PM1A_ENABLE, TIMER);
    pause_device();
    guest_clock_stop(&pc.clock);
    bool early = guest_clock_now(&pc.clock) < CARRY_NS(1); /* or we were slow, and see it below */
    bool before = pc.chip.level[LINE];
    loop_timer_init(&end, pc.loop, handle_end, NULL);
    ck_assert_int_eq(loop_timer_arm(&end, clock_monotonic_ns() + 40 * MS), 0);
    ck_assert_int_eq(loop_run(pc.loop), 0);
    ck_assert_int_eq(pc.chip.level[LINE], before);
    if (early) {
        guest_clock_start(&pc.clock);
        resume_device();
        ck_assert_int_eq(loop_run(pc.loop), 0);
    }
    resume_device();
    ck_assert(pc.chip.level[LINE]);
}
END_TEST

START_TEST(reset_is_power_on_and_turns_no_time_back)
{
    set_guest_time(CARRY_NS(3));
    out16(ACPI_PM1A_ENABLE, BUTTON | TIMER);
    out16(ACPI_PM1A_CONTROL, 7 << SLEEP_TYPE_SHIFT);
    acpi_pm_press_power_button(pc.pm);
    ck_assert(pc.chip.level[LINE]);
    pause_device();
    pc.device->ops->reset(pc.device);
    ck_assert(!pc.chip.level[LINE]);
    resume_device();
    ck_assert_uint_eq(in16(ACPI_PM1A_STATUS), 0);
    ck_assert_uint_eq(in16(ACPI_PM1A_ENABLE), 0);
    ck_assert_uint_eq(in16(ACPI_PM1A_CONTROL), 1);
    ck_assert_uint_eq(read_timer(), 3u << 31);
}
END_TEST

static void save_into(struct stream_buffer *buffer)
{
    struct state_item item = {pc.device->table, pc.device->instance, pc.device->state};

    stream_buffer_init(buffer, 0);
    ck_assert_int_eq(state_save(&buffer->stream, &item, 1), 0);
}

static int load_from(struct stream_buffer *buffer)
{
    struct state_item item = {pc.device->table, pc.device->instance, pc.device->state};

    stream_buffer_rewind(buffer);
    return state_load(&buffer->stream, &item, 1, NULL);
}

START_TEST(a_loaded_state_drives_the_line_anew)
{
    struct stream_buffer buffer;

    out16(ACPI_PM1A_ENABLE, BUTTON);
    acpi_pm_press_power_button(pc.pm);
    out8(ACPI_GPE0_ENABLE, 1);
    acpi_pm_raise_event(pc.pm, ACPI_EVENT_GENERATION);
    pause_device();
    save_into(&buffer);
    tear_down();
    set_up();
    pause_device();
    ck_assert_int_eq(load_from(&buffer), 0);
    ck_assert(!pc.chip.level[LINE]);
    resume_device();
    ck_assert(pc.chip.level[LINE]);
    out16(ACPI_PM1A_STATUS, BUTTON);
    ck_assert(pc.chip.level[LINE]);
    ck_assert_uint_eq(in8(ACPI_GPE0_STATUS), 1);
    stream_buffer_finish(&buffer);
}
END_TEST

START_TEST(a_taken_place_is_refused_and_stays_taken)
{
    struct acpi_pm *second = NULL;

    ck_assert_int_eq(acpi_pm_create(&second, pc.ports, ACPI_PM_BASE, &pc.stopping_chip, LINE,
                                    pc.loop, &pc.clock, &pc.power.power, NULL),
                     -EEXIST);
    ck_assert_ptr_null(second);
    ck_assert_uint_eq(in16(ACPI_PM1A_CONTROL), 1);
}
END_TEST

START_TEST(state_table_keeps_its_promises)
{
    set_guest_time(CARRY_NS(3));
    acpi_pm_press_power_button(pc.pm);
    out16(ACPI_PM1A_ENABLE, BUTTON | GLOBAL | RTC);
    out16(ACPI_PM1A_CONTROL, 5 << SLEEP_TYPE_SHIFT);
    acpi_pm_raise_event(pc.pm, ACPI_EVENT_GENERATION);
    out8(ACPI_GPE0_ENABLE, 1);
    unit_check_table(pc.device->table, pc.device->state);
}
END_TEST

/* Before there were events. */
START_TEST(a_state_of_version_1_has_no_events)
{
    static const uint8_t old[] = {
        0x07, 'a',  'c',  'p',  'i',  '_',  'p',  'm',  0x00, 0x00, 0x00, 0x00, 0x01, 0x00,
        0x10, 0x00, 0x00, 0x00, 0x03, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x01,
        0x20, 0x05, 0x00, 0x14, 0x00, 0x00, 0xa1, 0x5d, 0x76, 0x2c, 0x03, 'e',  'n',  'd',
        0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x83, 0x01, 0x98, 0x7d};
    struct stream_buffer buffer;

    stream_buffer_init(&buffer, 0);
    stream_write(&buffer.stream, old, sizeof(old));
    pause_device();
    ck_assert_int_eq(load_from(&buffer), 0);
    resume_device();
    ck_assert_uint_eq(in8(ACPI_GPE0_STATUS), 0);
    ck_assert_uint_eq(in8(ACPI_GPE0_ENABLE), 0);
    ck_assert_uint_eq(in16(ACPI_PM1A_STATUS), BUTTON | TIMER);
    stream_buffer_finish(&buffer);
}
END_TEST

/* Clears the bits of one field of the state that validate() would refuse. */
static void mask_field(const char *name, uint16_t mask)
{
    for (size_t i = 0; i < pc.device->table->field_count; i++) {
        const struct state_field *field = &pc.device->table->fields[i];
        uint64_t value = 0;
        if (strcmp(field->name, name) != 0)
            continue;
        memcpy(&value, (uint8_t *)pc.device->state + field->offset, field_width(field));
        value &= mask;
        memcpy((uint8_t *)pc.device->state + field->offset, &value, field_width(field));
    }
}

/* A state from a stranger, or none when the table refuses it. */
static bool load_stranger(uint64_t *seed)
{
    uint8_t before[64];

    ck_assert_uint_le(pc.device->table->size, sizeof(before));
    memcpy(before, pc.device->state, pc.device->table->size);
    pause_device();
    fill_state(pc.device, seed);
    if (chance(seed) % 8) {
        mask_field("status", 0x8731);
        mask_field("enable", 0x0721);
        mask_field("control", 0x1c02);
        mask_field("event_status", 1);
        mask_field("event_enable", 1);
    }
    bool accepted = state_check(pc.device->table, pc.device->state, NULL) == 0;
    if (!accepted)
        memcpy(pc.device->state, before, pc.device->table->size);
    resume_device();
    return accepted;
}

START_TEST(a_hostile_guest_gets_power_events_and_nothing_else)
{
    uint64_t seed = 0xac91;
    unsigned accepted = 0, refused = 0;

    for (unsigned i = 0; i < 100000; i++) {
        uint64_t dice = chance(&seed);
        uint16_t port = ACPI_PM_BASE + (dice >> 8) % ACPI_PM_SIZE;
        if (dice % 64 == 0)
            set_guest_time(chance(&seed) >> (dice >> 16) % 64);
        else if (dice % 64 == 1)
            acpi_pm_press_power_button(pc.pm);
        else if (dice % 64 == 3)
            acpi_pm_raise_event(pc.pm, ACPI_EVENT_GENERATION);
        else if (dice % 64 == 2)
            *(load_stranger(&seed) ? &accepted : &refused) += 1;
        else if (dice % 2)
            bus_write(pc.ports, port, 1u << (dice >> 16) % 4, chance(&seed));
        else
            bus_read(pc.ports, port, 1u << (dice >> 16) % 4);
        ck_assert_int_eq(state_check(pc.device->table, pc.device->state, NULL), 0);
        uint16_t pending = in16(ACPI_PM1A_STATUS) & in16(ACPI_PM1A_ENABLE);
        uint8_t events = in8(ACPI_GPE0_STATUS) & in8(ACPI_GPE0_ENABLE);
        ck_assert_int_eq(pc.chip.level[LINE], pending != 0 || events != 0);
        if (pc.power.requests)
            ck_assert(pc.power.event == POWER_OFF || pc.power.event == POWER_RESET);
    }
    ck_assert_uint_gt(pc.power.requests, 0);
    ck_assert_uint_gt(accepted, 0);
    ck_assert_uint_gt(refused, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("acpi_pm");
    TCase *pm = tcase_create("pm");

    tcase_add_checked_fixture(pm, set_up, tear_down);
    tcase_add_test(pm, the_layout_is_what_the_tables_say);
    tcase_add_test(pm, the_machine_is_always_in_acpi_mode);
    tcase_add_test(pm, only_sleep_type_5_with_the_enable_powers_off);
    tcase_add_test(pm, the_reset_register_takes_one_value);
    tcase_add_test(pm, a_pressed_button_holds_the_line_until_it_is_acknowledged);
    tcase_add_test(pm, a_button_nobody_enabled_shows_and_waits);
    tcase_add_test(pm, a_press_while_paused_is_felt_at_resume);
    tcase_add_test(pm, an_event_holds_the_line_until_it_is_acknowledged);
    tcase_add_test(pm, events_and_the_button_share_the_line);
    tcase_add_test(pm, an_event_while_paused_is_felt_at_resume);
    tcase_add_test(pm, only_enables_that_exist_are_stored);
    tcase_add_test(pm, the_timer_counts_guest_time);
    tcase_add_test(pm, a_carry_shows_when_bit_31_changes);
    tcase_add_test(pm, a_carry_interrupts_who_waits_for_it);
    tcase_add_test(pm, no_carry_comes_while_paused);
    tcase_add_test(pm, reset_is_power_on_and_turns_no_time_back);
    tcase_add_test(pm, a_loaded_state_drives_the_line_anew);
    tcase_add_test(pm, a_state_of_version_1_has_no_events);
    tcase_add_test(pm, a_taken_place_is_refused_and_stays_taken);
    tcase_add_test(pm, state_table_keeps_its_promises);
    tcase_add_test(pm, a_hostile_guest_gets_power_events_and_nothing_else);
    suite_add_tcase(suite, pm);
    return unit_main(suite);
}
