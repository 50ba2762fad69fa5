/* SPDX-License-Identifier: MIT */
#include "core/thread.h"
#include "devices/ioapic.h"
#include "tests/unit/unit.h"
#include <errno.h>
#include <string.h>

#define BASE         0xfec00000ull
#define LEVEL        (1u << 15)
#define REMOTE_IRR   (1u << 14)
#define MASKED       (1u << 16)
#define LOGICAL      (1u << 11)
#define ACTIVE_LOW   (1u << 13)
#define MSI_LEVEL    0xc000u /* level-triggered, asserted */
#define EOI_REGISTER 0x40

enum { ARBITRATION = 2, STORM_COUNT = 10000 };

static struct bus *mmio;
static struct loop *loop;
static struct ioapic *ioapic;

/* What came out: messages, and the routes as the listener saw them last. */
static unsigned messages;
static uint64_t last_address;
static uint32_t last_data;
static bool stop_at_message;
static unsigned route_changes;
static unsigned route_count;
static struct ioapic_route routes[IOAPIC_PINS];

/* A level-triggered message whose route is not in the table yet would never see its EOI. */
static void check_route_of(uint64_t address, uint32_t data)
{
    for (unsigned i = 0; i < route_count; i++) {
        if (routes[i].address == address && routes[i].data == data)
            return;
    }
    ck_abort_msg("the message %#x came before its route", data);
}

static void handle_message(void *ctx, uint64_t address, uint32_t data)
{
    if (data & LEVEL)
        check_route_of(address, data);
    messages++;
    last_address = address;
    last_data = data;
    if (stop_at_message)
        loop_stop(loop);
}

static void handle_routes(void *ctx)
{
    route_changes++;
    memset(routes, 0, sizeof(routes));
    route_count = ioapic_level_routes(ioapic, routes);
}

static const struct msi_sink sink = {handle_message, NULL};
static const struct ioapic_listener listener = {handle_routes, NULL};

static void write_window(unsigned index, uint32_t value)
{
    bus_write(mmio, BASE, 4, index);
    bus_write(mmio, BASE + 0x10, 4, value);
}

static uint32_t read_window(unsigned index)
{
    bus_write(mmio, BASE, 4, index);
    return (uint32_t)bus_read(mmio, BASE + 0x10, 4);
}

static void write_low(unsigned pin, uint32_t value)
{
    write_window(0x10 + 2 * pin, value);
}

static void write_high(unsigned pin, uint32_t value)
{
    write_window(0x11 + 2 * pin, value);
}

static uint32_t read_low(unsigned pin)
{
    return read_window(0x10 + 2 * pin);
}

static void raise_pin(unsigned pin)
{
    ioapic_set_line(ioapic, pin, true);
}

static void lower_pin(unsigned pin)
{
    ioapic_set_line(ioapic, pin, false);
}

static void create(bool extended)
{
    struct err err = {0};
    struct ioapic_config config = {.base = BASE,
                                   .extended_destinations = extended,
                                   .sink = &sink,
                                   .listener = &listener,
                                   .loop = loop};
    ck_assert_msg(ioapic_create(&ioapic, mmio, &config, &err) == 0, "%s", err.text);
    struct device *device = ioapic_device(ioapic);
    device->ops->reset(device);
    device->ops->resume(device);
}

static void destroy(void)
{
    struct device *device = ioapic_device(ioapic);
    device->ops->pause(device);
    device_destroy(device);
}

static void setup(void)
{
    messages = route_changes = route_count = 0;
    stop_at_message = false;
    ck_assert_int_eq(bus_create(&mmio, NULL), 0);
    ck_assert_int_eq(loop_create(&loop, NULL), 0);
    create(false);
}

static void teardown(void)
{
    destroy();
    loop_destroy(loop);
    bus_destroy(mmio);
}

START_TEST(identifies_itself_as_24_pins_with_an_eoi_register)
{
    ck_assert_uint_eq(read_window(1), 0x00170020);
    write_window(1, 0xffffffff);
    ck_assert_uint_eq(read_window(1), 0x00170020);
    write_window(0, 0xffffffff);
    ck_assert_uint_eq(read_window(0), 0x0f000000);
    ck_assert_uint_eq(read_window(ARBITRATION), 0x0f000000);
    ck_assert_uint_eq(bus_read(mmio, BASE, 4), ARBITRATION);
}
END_TEST

START_TEST(entries_are_masked_at_power_on)
{
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        ck_assert_uint_eq(read_low(pin), MASKED);
        ck_assert_uint_eq(read_window(0x11 + 2 * pin), 0);
        raise_pin(pin);
    }
    ck_assert_uint_eq(messages, 0);
    ck_assert_uint_eq(route_changes, 0);
}
END_TEST

START_TEST(reserved_and_read_only_bits_stay)
{
    write_high(3, 0xffffffff);
    write_low(3, 0xffffffff);
    ck_assert_uint_eq(read_low(3), 0x0001afff); /* no remote IRR, no delivery status */
    ck_assert_uint_eq(read_window(0x11 + 6), 0xfffe0000);
}
END_TEST

START_TEST(registers_of_nobody_read_all_ones)
{
    ck_assert_uint_eq(read_window(0x03), 0xffffffff);
    ck_assert_uint_eq(read_window(0x40), 0xffffffff);
    ck_assert_uint_eq(read_window(0xff), 0xffffffff);
    ck_assert_uint_eq(bus_read(mmio, BASE + 0x20, 4), 0xffffffff);
    ck_assert_uint_eq(bus_read(mmio, BASE + 0xffc, 4), 0xffffffff);
    write_window(0xff, 0);
}
END_TEST

START_TEST(the_window_takes_32_bits_and_nothing_less)
{
    write_low(4, MASKED | 0x30);
    bus_write(mmio, BASE + 0x10, 1, 0x31);
    bus_write(mmio, BASE + 0x10, 2, 0x3132);
    bus_write(mmio, BASE + 0x10, 8, 0x33);
    ck_assert_uint_eq(read_low(4), MASKED | 0x30);
    ck_assert_uint_eq(bus_read(mmio, BASE + 0x12, 1), 1); /* reading parts does no harm */
    ck_assert_uint_eq(bus_read(mmio, BASE + 0x10, 2), 0x0030);
}
END_TEST

START_TEST(an_edge_is_one_message)
{
    write_high(2, 0x05000000);
    write_low(2, 0x30);
    raise_pin(2);
    ck_assert_uint_eq(messages, 1);
    ck_assert_uint_eq(last_address, 0xfee05000);
    ck_assert_uint_eq(last_data, 0x30);
    raise_pin(2);
    ck_assert_uint_eq(messages, 1);
    ck_assert_uint_eq(read_low(2), 0x30);
    lower_pin(2);
    raise_pin(2);
    ck_assert_uint_eq(messages, 2);
    ck_assert_uint_eq(route_changes, 0); /* edges need no EOI */
}
END_TEST

START_TEST(an_edge_while_masked_is_lost_and_the_next_one_is_not)
{
    write_low(2, MASKED | 0x30);
    raise_pin(2);
    write_low(2, 0x30);
    ck_assert_uint_eq(messages, 0);
    lower_pin(2);
    raise_pin(2);
    ck_assert_uint_eq(messages, 1);
}
END_TEST

START_TEST(each_mode_becomes_its_message)
{
    static const struct {
        uint32_t low, high;
        uint64_t address;
        uint32_t data;
    } cases[] = {
        {0x0030, 0xff000000, 0xfeeff000, 0x0030},             /* fixed, physical */
        {0x0830, 0x01000000, 0xfee01004, 0x0030},             /* fixed, logical */
        {0x0931, 0x03000000, 0xfee0300c, 0x0131},             /* lowest priority */
        {0x0200, 0x01000000, 0xfee01000, 0x0200},             /* SMI */
        {0x0400, 0x01000000, 0xfee01000, 0x0400},             /* NMI */
        {0x8400, 0x01000000, 0xfee01000, 0x0400},             /* NMI is an edge always */
        {0x0500, 0x01000000, 0xfee01000, 0x0500},             /* INIT */
        {0x0700, 0x00000000, 0xfee00000, 0x0700},             /* ExtINT */
        {0x8032, 0x02000000, 0xfee02000, 0x0032 | MSI_LEVEL}, /* level */
        {0x8933, 0x02000000, 0xfee0200c, 0x0133 | MSI_LEVEL}, /* level, lowest priority */
        {0xa034, 0x02000000, 0xfee02000, 0x0034 | MSI_LEVEL}, /* polarity says nothing */
        {0x0030, 0x01fe0000, 0xfee01000, 0x0030},             /* no extended destination */
    };
    for (unsigned i = 0; i < array_size(cases); i++) {
        write_low(9, MASKED);
        write_high(9, cases[i].high);
        write_low(9, cases[i].low);
        lower_pin(9);
        raise_pin(9);
        ck_assert_uint_eq(messages, i + 1);
        ck_assert_uint_eq(last_address, cases[i].address);
        ck_assert_uint_eq(last_data, cases[i].data);
    }
}
END_TEST

START_TEST(reserved_modes_send_nothing)
{
    write_low(9, 0x0330);
    raise_pin(9);
    write_low(10, 0x8630);
    raise_pin(10);
    ck_assert_uint_eq(messages, 0);
    ck_assert_uint_eq(route_changes, 0);
}
END_TEST

START_TEST(extended_destinations_travel_in_the_address)
{
    destroy();
    create(true);
    write_high(5, 0x12 << 24 | 0x55 << 17);
    write_low(5, 0x40);
    raise_pin(5);
    ck_assert_uint_eq(last_address, 0xfee00000 | 0x12 << 12 | 0x55 << 5);
}
END_TEST

START_TEST(a_level_is_delivered_once_until_its_eoi)
{
    write_low(11, LEVEL | 0x50);
    raise_pin(11);
    ck_assert_uint_eq(messages, 1);
    ck_assert_uint_eq(read_low(11), LEVEL | REMOTE_IRR | 0x50);
    lower_pin(11);
    raise_pin(11);
    ck_assert_uint_eq(messages, 1);
    lower_pin(11);
    ck_assert(read_low(11) & REMOTE_IRR); /* only the EOI clears it */
    ioapic_end_of_interrupt(ioapic, 0x50);
    ck_assert_uint_eq(read_low(11), LEVEL | 0x50);
    ck_assert_uint_eq(messages, 1);
}
END_TEST

START_TEST(a_level_held_high_is_delivered_again_after_eoi)
{
    write_low(11, LEVEL | 0x50);
    raise_pin(11);
    for (unsigned i = 2; i < 10; i++) {
        ioapic_end_of_interrupt(ioapic, 0x50);
        ck_assert_uint_eq(messages, i);
        ck_assert(read_low(11) & REMOTE_IRR);
    }
}
END_TEST

START_TEST(an_eoi_concerns_its_vector_only)
{
    write_low(10, LEVEL | 0x51);
    write_low(11, LEVEL | 0x50);
    write_low(12, LEVEL | 0x50);
    raise_pin(10);
    raise_pin(11);
    raise_pin(12);
    lower_pin(12);
    ioapic_end_of_interrupt(ioapic, 0x52);
    ck_assert_uint_eq(messages, 3);
    ioapic_end_of_interrupt(ioapic, 0x50);
    ck_assert_uint_eq(messages, 4);
    ck_assert_uint_eq(read_low(10), LEVEL | REMOTE_IRR | 0x51);
    ck_assert_uint_eq(read_low(12), LEVEL | 0x50);
}
END_TEST

START_TEST(an_unmasked_level_is_delivered_if_it_is_still_there)
{
    write_low(11, LEVEL | MASKED | 0x50);
    raise_pin(11);
    ck_assert_uint_eq(messages, 0);
    write_low(11, LEVEL | 0x50);
    ck_assert_uint_eq(messages, 1);

    write_low(11, LEVEL | MASKED | 0x50); /* masked in service: the EOI counts, nothing is sent */
    ioapic_end_of_interrupt(ioapic, 0x50);
    ck_assert_uint_eq(messages, 1);
    ck_assert(!(read_low(11) & REMOTE_IRR));
    write_low(11, LEVEL | 0x50);
    ck_assert_uint_eq(messages, 2);
    write_low(11, LEVEL | 0x50); /* remote IRR holds it back */
    ck_assert_uint_eq(messages, 2);
}
END_TEST

START_TEST(an_idle_line_that_the_guest_calls_active_low_does_not_interrupt)
{
    write_low(11, LEVEL | ACTIVE_LOW | 0x50);
    ck_assert_uint_eq(messages, 0);
    raise_pin(11);
    ck_assert_uint_eq(messages, 1);
}
END_TEST

START_TEST(switching_to_edge_clears_remote_irr)
{
    write_low(11, LEVEL | 0x50);
    raise_pin(11);
    lower_pin(11);
    write_low(11, MASKED | 0x50);
    ck_assert_uint_eq(read_low(11), MASKED | 0x50);
    write_low(11, LEVEL | 0x50);
    raise_pin(11);
    ck_assert_uint_eq(messages, 2);
}
END_TEST

START_TEST(the_eoi_register_ends_an_interrupt_by_hand)
{
    write_low(11, LEVEL | 0x50);
    raise_pin(11);
    lower_pin(11);
    bus_write(mmio, BASE + EOI_REGISTER, 4, 0x50);
    ck_assert_uint_eq(read_low(11), LEVEL | 0x50);
}
END_TEST

/* What Linux does to each pin at boot: see its clear_IO_APIC_pin(). */
START_TEST(linux_can_clear_a_pin_that_a_boot_loader_left_in_service)
{
    write_low(11, LEVEL | 0x50);
    raise_pin(11);
    write_low(11, read_low(11) | MASKED);
    ck_assert(read_low(11) & REMOTE_IRR);
    bus_write(mmio, BASE + EOI_REGISTER, 4, 0x50);
    write_high(11, 0);
    write_low(11, MASKED);
    ck_assert_uint_eq(read_low(11), MASKED);
    ck_assert_uint_eq(route_count, 0);
}
END_TEST

START_TEST(routes_follow_the_unmasked_levels)
{
    write_high(10, 0x02000000);
    write_low(10, LEVEL | 0x41);
    ck_assert_uint_eq(route_changes, 1);
    ck_assert_uint_eq(route_count, 1);
    ck_assert_uint_eq(routes[0].pin, 10);
    ck_assert_uint_eq(routes[0].address, 0xfee02000);
    ck_assert_uint_eq(routes[0].data, MSI_LEVEL | 0x41);
    write_low(4, LEVEL | 0x42);
    write_low(5, 0x43); /* an edge */
    ck_assert_uint_eq(route_count, 2);
    ck_assert_uint_eq(routes[0].pin, 4);
    ck_assert_uint_eq(routes[1].pin, 10);
    write_low(4, LEVEL | 0x44);
    ck_assert_uint_eq(routes[0].data, MSI_LEVEL | 0x44);
    write_low(10, 0x41);
    ck_assert_uint_eq(route_count, 1);
    ck_assert_uint_eq(route_changes, 4);
}
END_TEST

START_TEST(the_listener_hears_of_changes_only)
{
    write_low(10, LEVEL | 0x41);
    write_low(10, LEVEL | 0x41);
    write_low(10, LEVEL | ACTIVE_LOW | 0x41);
    raise_pin(10);
    lower_pin(10);
    ioapic_end_of_interrupt(ioapic, 0x41);
    write_low(3, 0x33);
    struct device *device = ioapic_device(ioapic);
    device->ops->pause(device);
    device->ops->resume(device);
    ck_assert_uint_eq(route_changes, 1);
}
END_TEST

/* A threaded handler masks, ends the interrupt, and unmasks: the EOI must be heard, and cheaply. */
START_TEST(masking_keeps_the_route)
{
    write_low(10, LEVEL | 0x41);
    raise_pin(10);
    write_low(10, LEVEL | MASKED | 0x41);
    ioapic_end_of_interrupt(ioapic, 0x41);
    lower_pin(10);
    write_low(10, LEVEL | 0x41);
    ck_assert_uint_eq(route_changes, 1);
    ck_assert_uint_eq(route_count, 1);
}
END_TEST

START_TEST(a_masked_level_without_history_has_no_route)
{
    write_low(10, LEVEL | MASKED | 0x41);
    ck_assert_uint_eq(route_changes, 0);
}
END_TEST

START_TEST(a_new_cpu_for_a_masked_pin_costs_one_change)
{
    write_low(10, LEVEL | 0x41);
    write_low(10, LEVEL | MASKED | 0x41);
    write_high(10, 0x03000000);
    write_low(10, LEVEL | MASKED | 0x61);
    write_low(10, LEVEL | 0x61);
    ck_assert_uint_eq(route_changes, 2);
    ck_assert_uint_eq(routes[0].address, 0xfee03000);
    ck_assert_uint_eq(routes[0].data, MSI_LEVEL | 0x61);
}
END_TEST

static void end_until_it_rests(uint8_t vector)
{
    for (unsigned i = 0; i < STORM_COUNT; i++) {
        ck_assert_uint_eq(messages, i + 1);
        ioapic_end_of_interrupt(ioapic, vector);
    }
}

START_TEST(a_storm_rests_and_is_delivered_again_by_the_timer)
{
    write_low(11, LEVEL | 0x50);
    raise_pin(11);
    end_until_it_rests(0x50);
    ck_assert_uint_eq(messages, STORM_COUNT);
    ck_assert(!(read_low(11) & REMOTE_IRR));
    write_low(11, LEVEL | 0x50); /* does not wake it either */
    ck_assert_uint_eq(messages, STORM_COUNT);
    stop_at_message = true;
    ck_assert_int_eq(loop_run(loop), 0);
    ck_assert_uint_eq(messages, STORM_COUNT + 1);
}
END_TEST

START_TEST(a_line_that_falls_ends_its_storm)
{
    write_low(11, LEVEL | 0x50);
    raise_pin(11);
    end_until_it_rests(0x50);
    lower_pin(11);
    raise_pin(11);
    ck_assert_uint_eq(messages, STORM_COUNT + 1);
}
END_TEST

START_TEST(a_pause_in_a_storm_loses_nothing)
{
    struct device *device = ioapic_device(ioapic);
    write_low(11, LEVEL | 0x50);
    raise_pin(11);
    end_until_it_rests(0x50);
    device->ops->pause(device);
    ck_assert_uint_eq(messages, STORM_COUNT);
    device->ops->resume(device);
    ck_assert_uint_eq(messages, STORM_COUNT + 1);
}
END_TEST

START_TEST(a_loaded_state_goes_on)
{
    write_low(10, LEVEL | 0x41);
    write_low(11, LEVEL | MASKED | 0x42);
    write_low(12, 0x43);
    raise_pin(10);
    raise_pin(12);
    write_low(10, LEVEL | MASKED | 0x41); /* in service, masked: its EOI is still to come */

    struct device *device = ioapic_device(ioapic);
    uint64_t saved[64];
    ck_assert_uint_le(device->table->size, sizeof(saved));
    memcpy(saved, device->state, device->table->size);
    destroy();
    create(false);
    device = ioapic_device(ioapic);
    device->ops->pause(device);
    messages = route_changes = route_count = 0;
    memcpy(device->state, saved, device->table->size);
    device->ops->resume(device);
    ck_assert_uint_eq(route_changes, 1);
    ck_assert_uint_eq(route_count, 1);
    ck_assert_uint_eq(routes[0].pin, 10);
    raise_pin(10); /* devices renew their lines: neither a new edge nor a second level */
    raise_pin(12);
    ck_assert_uint_eq(messages, 0);
    ioapic_end_of_interrupt(ioapic, 0x41);
    write_low(10, LEVEL | 0x41);
    ck_assert_uint_eq(messages, 1);
}
END_TEST

START_TEST(a_level_that_rose_in_the_pause_is_delivered_at_resume)
{
    struct device *device = ioapic_device(ioapic);
    write_low(10, LEVEL | 0x41);
    device->ops->pause(device);
    ((uint32_t *)device->state)[2 * IOAPIC_PINS] = 1u << 10; /* lines, as loaded */
    device->ops->resume(device);
    ck_assert_uint_eq(messages, 1);
}
END_TEST

START_TEST(reset_takes_the_routes_away)
{
    struct device *device = ioapic_device(ioapic);
    write_low(10, LEVEL | 0x41);
    raise_pin(10);
    device->ops->pause(device);
    device->ops->reset(device);
    ck_assert_uint_eq(route_changes, 2);
    ck_assert_uint_eq(route_count, 0);
    device->ops->resume(device);
    ck_assert_uint_eq(read_low(10), MASKED);
    ck_assert_uint_eq(messages, 1);
}
END_TEST

START_TEST(pins_that_do_not_exist_are_ignored)
{
    ioapic_set_line(ioapic, IOAPIC_PINS, true);
    ioapic_set_line(ioapic, 32, true);
    ioapic_set_line(ioapic, ~0u, true);
    ck_assert_uint_eq(messages, 0);
}
END_TEST

/* Two vCPUs write entries at once: the listener's last picture is the picture of the end. */
enum { RACE_WRITES = 3000 };

struct writer {
    struct thread thread;
    unsigned pin;
};

static void write_entries(void *arg)
{
    struct writer *writer = arg;
    uint8_t vector = 0x20;
    for (unsigned i = 0; i < RACE_WRITES; i++) {
        ioapic_set_line(ioapic, writer->pin, i & 1);
        /* The index register is shared, so the other thread may redirect this write: as for CPUs.
         */
        write_window(0x10 + 2 * writer->pin, LEVEL | (i & 2 ? MASKED : 0) | vector++);
        ioapic_end_of_interrupt(ioapic, vector);
    }
}

START_TEST(two_writers_leave_the_listener_with_the_last_state)
{
    struct writer writers[2] = {{.pin = 3}, {.pin = 17}};
    for (unsigned i = 0; i < 2; i++)
        ck_assert_int_eq(
            thread_start(&writers[i].thread, "writer", write_entries, &writers[i], NULL), 0);
    for (unsigned i = 0; i < 2; i++)
        thread_join(&writers[i].thread);
    struct ioapic_route now[IOAPIC_PINS] = {0};
    ck_assert_uint_eq(ioapic_level_routes(ioapic, now), route_count);
    ck_assert_mem_eq(now, routes, sizeof(now));
    ck_assert_uint_gt(route_changes, 100);
}
END_TEST

START_TEST(random_writes_never_leave_the_table)
{
    struct device *device = ioapic_device(ioapic);
    uint32_t seed = 3;
    for (int i = 0; i < 100000; i++) {
        seed = seed * 1664525 + 1013904223;
        unsigned pin = (seed >> 8) % 40;
        uint32_t value = seed * 2654435761u;
        switch (seed >> 29) {
        case 0:
            write_low(pin, value);
            break;
        case 1:
            write_low(pin, LEVEL | (value & 0x18ff));
            break;
        case 2:
            write_high(pin, value);
            break;
        case 3:
            bus_write(mmio, BASE + (value & 0xfff), 1u << (value >> 12 & 3), value);
            break;
        case 4:
            bus_read(mmio, BASE + (value & 0xfff), 1u << (value >> 12 & 3));
            break;
        case 5:
            ioapic_end_of_interrupt(ioapic, (uint8_t)value);
            break;
        default:
            ioapic_set_line(ioapic, pin, value & 1);
        }
        ck_assert_int_eq(state_check(device->table, device->state, NULL), 0);
    }
    ck_assert_uint_gt(messages, 100);
}
END_TEST

START_TEST(a_state_with_impossible_entries_is_refused)
{
    struct device *device = ioapic_device(ioapic);
    uint64_t *entry = device->state;
    struct err err = {0};
    *entry = MASKED | 1u << 12;
    ck_assert_int_lt(state_check(device->table, entry, &err), 0);
    *entry = MASKED | REMOTE_IRR;
    ck_assert_int_lt(state_check(device->table, entry, &err), 0);
    *entry = MASKED | LEVEL | REMOTE_IRR;
    ck_assert_int_eq(state_check(device->table, entry, &err), 0);
}
END_TEST

START_TEST(a_second_one_at_the_same_place_is_refused)
{
    struct ioapic *second = NULL;
    struct err err = {0};
    struct ioapic_config config = {
        .base = BASE, .sink = &sink, .listener = &listener, .loop = loop};
    ck_assert_int_eq(ioapic_create(&second, mmio, &config, &err), -EEXIST);
    ck_assert_ptr_null(second);
    ck_assert_uint_eq(read_window(1), 0x00170020);
}
END_TEST

START_TEST(the_state_table_keeps_its_promises)
{
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        write_high(pin, (pin + 1) << 24);
        write_low(pin, 0x20 + pin);
    }
    write_low(10, LEVEL | LOGICAL | 0x41);
    raise_pin(10);
    raise_pin(3);
    write_window(0, 0x05000000);
    bus_write(mmio, BASE, 4, 0x24);
    unit_check_table(ioapic_device(ioapic)->table, ioapic_device(ioapic)->state);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        identifies_itself_as_24_pins_with_an_eoi_register,
        entries_are_masked_at_power_on,
        reserved_and_read_only_bits_stay,
        registers_of_nobody_read_all_ones,
        the_window_takes_32_bits_and_nothing_less,
        an_edge_is_one_message,
        an_edge_while_masked_is_lost_and_the_next_one_is_not,
        each_mode_becomes_its_message,
        reserved_modes_send_nothing,
        extended_destinations_travel_in_the_address,
        a_level_is_delivered_once_until_its_eoi,
        a_level_held_high_is_delivered_again_after_eoi,
        an_eoi_concerns_its_vector_only,
        an_unmasked_level_is_delivered_if_it_is_still_there,
        an_idle_line_that_the_guest_calls_active_low_does_not_interrupt,
        switching_to_edge_clears_remote_irr,
        the_eoi_register_ends_an_interrupt_by_hand,
        linux_can_clear_a_pin_that_a_boot_loader_left_in_service,
        routes_follow_the_unmasked_levels,
        the_listener_hears_of_changes_only,
        masking_keeps_the_route,
        a_masked_level_without_history_has_no_route,
        a_new_cpu_for_a_masked_pin_costs_one_change,
        a_storm_rests_and_is_delivered_again_by_the_timer,
        a_line_that_falls_ends_its_storm,
        a_pause_in_a_storm_loses_nothing,
        a_loaded_state_goes_on,
        a_level_that_rose_in_the_pause_is_delivered_at_resume,
        reset_takes_the_routes_away,
        pins_that_do_not_exist_are_ignored,
        two_writers_leave_the_listener_with_the_last_state,
        random_writes_never_leave_the_table,
        a_state_with_impossible_entries_is_refused,
        a_second_one_at_the_same_place_is_refused,
        the_state_table_keeps_its_promises,
    };
    Suite *suite = suite_create("ioapic");
    TCase *tcase = tcase_create("ioapic");
    tcase_add_checked_fixture(tcase, setup, teardown);
    for (unsigned i = 0; i < array_size(tests); i++)
        tcase_add_test(tcase, tests[i]);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
