/* SPDX-License-Identifier: MIT */
#include "tests/unit/msix_fixture.h"
#include "tests/unit/unit.h"

enum { SLOT = 3, PENDING = 0x800, ENABLE = 0x8000, MASK_ALL = 0x4000 };

#define MESSAGE(vector) (0xfee00000ull | (vector) << 12)

static struct bus *ports, *mmio;
static struct fake_chip chip;
static struct fake_router router;
static struct pci_bus *pci;
static struct msix_toy toy;
static uint64_t table; /* where the BAR is */

static uint64_t config_address(unsigned offset)
{
    return TOY_ECAM + (SLOT << 15) + offset;
}

static void set_control(unsigned control)
{
    bus_write(mmio, config_address(toy.msix.capability + 2), 2, control);
}

static void write_message(unsigned vector, uint64_t address, uint32_t data)
{
    bus_write(mmio, table + 16ull * vector, 4, address & 0xffffffff);
    bus_write(mmio, table + 16ull * vector + 4, 4, address >> 32);
    bus_write(mmio, table + 16ull * vector + 8, 4, data);
}

static void mask(unsigned vector, bool masked)
{
    bus_write(mmio, table + 16ull * vector + 12, 4, masked);
}

/* As a driver sets a vector up. */
static void use(unsigned vector)
{
    write_message(vector, MESSAGE(vector), 0x40 + vector);
    mask(vector, false);
}

static uint64_t sent(unsigned vector)
{
    return msix_toy_sent(&toy, vector);
}

static uint32_t pending(void)
{
    return (uint32_t)bus_read(mmio, table + PENDING, 4);
}

static void check_route(unsigned vector, uint64_t address, uint32_t data)
{
    uint32_t gsi = toy.msix.routes[vector].gsi;

    ck_assert_int_ge(toy.msix.routes[vector].fd, 0);
    ck_assert_uint_eq(router.addresses[gsi], address);
    ck_assert_uint_eq(router.datas[gsi], data);
}

static void setup(void)
{
    fake_chip_init(&chip);
    fake_router_init(&router);
    ck_assert_int_eq(bus_create(&ports, NULL), 0);
    ck_assert_int_eq(bus_create(&mmio, NULL), 0);
    const struct pci_bus_config config = toy_bus_config(ports, mmio, &chip.chip);
    ck_assert_int_eq(pci_bus_create(&pci, &config, NULL), 0);
    ck_assert_int_eq(msix_toy_init(&toy, &router.router), 0);
    ck_assert_int_eq(pci_function_attach(&toy.function, pci, SLOT, NULL), 0);
    msix_toy_reset(&toy);
    msix_toy_resume(&toy);
    table = bus_read(mmio, config_address(0x10 + 4 * MSIX_BAR), 4);
}

static void teardown(void)
{
    msix_toy_finish(&toy);
    ck_assert_uint_le(router.destroys, router.creates);
    device_destroy(pci_bus_device(pci));
    bus_destroy(mmio);
    bus_destroy(ports);
}

START_TEST(the_capability_describes_table_and_pending_bits)
{
    unsigned at = toy.msix.capability;

    ck_assert_uint_eq(bus_read(mmio, config_address(0x34), 1), at);
    ck_assert_uint_eq(bus_read(mmio, config_address(at), 2), 0x11);
    ck_assert_uint_eq(bus_read(mmio, config_address(at + 2), 2), MSIX_VECTORS - 1);
    ck_assert_uint_eq(bus_read(mmio, config_address(at + 4), 4), MSIX_BAR);
    ck_assert_uint_eq(bus_read(mmio, config_address(at + 8), 4), PENDING | MSIX_BAR);
    bus_write(mmio, config_address(at), 8, UINT64_MAX);
    bus_write(mmio, config_address(at + 8), 4, UINT32_MAX);
    ck_assert_uint_eq(bus_read(mmio, config_address(at), 4), 0x11 | (0xc000u | (MSIX_VECTORS - 1))
                                                                        << 16);
    ck_assert_uint_eq(bus_read(mmio, config_address(at + 4), 4), MSIX_BAR);
    ck_assert_uint_eq(bus_read(mmio, config_address(at + 8), 4), PENDING | MSIX_BAR);
}
END_TEST

static void check_as_new(void)
{
    for (unsigned vector = 0; vector < MSIX_VECTORS; vector++) {
        ck_assert_uint_eq(bus_read(mmio, table + 16ull * vector, 8), 0);
        ck_assert_uint_eq(bus_read(mmio, table + 16ull * vector + 8, 8), 1ull << 32);
    }
    ck_assert(!pci_msix_enabled(&toy.msix));
}

START_TEST(every_vector_is_masked_at_power_on)
{
    check_as_new();
    ck_assert_uint_eq(router.creates, 0);
}
END_TEST

START_TEST(the_table_is_written_by_4_and_8_bytes_only)
{
    bus_write(mmio, table + 16, 8, 0x1122334455667788);
    bus_write(mmio, table + 24, 8, 0xffffffff99aabbcc);
    for (unsigned offset = 16; offset < 32; offset++) {
        bus_write(mmio, table + offset, 1, 0);
        bus_write(mmio, table + offset, 2, 0);
        if (offset % 4)
            bus_write(mmio, table + offset, 4, 0);
        if (offset % 8)
            bus_write(mmio, table + offset, 8, 0);
    }
    ck_assert_uint_eq(bus_read(mmio, table + 16, 8), 0x1122334455667788);
    ck_assert_uint_eq(bus_read(mmio, table + 24, 8), 0x199aabbcc); /* of the rest only the mask */
    bus_write(mmio, table + 16, 4, 0xffffffff);
    ck_assert_uint_eq(bus_read(mmio, table + 16, 4), 0xfffffffc); /* aligned, always */
    ck_assert_uint_eq(bus_read(mmio, table + 20, 4), 0x11223344);
}
END_TEST

START_TEST(the_table_is_read_by_any_width_anywhere)
{
    uint8_t expected[32];

    for (unsigned offset = 0; offset < 32; offset += 4)
        bus_write(mmio, table + offset, 4, 0x01020304 * (offset + 1));
    for (unsigned offset = 0; offset < 32; offset++)
        expected[offset] = (uint8_t)bus_read(mmio, table + offset, 1);
    ck_assert_uint_eq(expected[0], 4);
    ck_assert_uint_eq(expected[23], (uint8_t)(0x01020304 * 21 >> 24));
    for (unsigned offset = 0; offset < 24; offset++)
        for (unsigned width = 2; width <= 8; width *= 2) {
            uint64_t value = bus_read(mmio, table + offset, width);
            ck_assert_mem_eq(&value, expected + offset, width);
        }
}
END_TEST

START_TEST(beyond_the_table_is_nothing)
{
    for (uint64_t offset = 16 * MSIX_VECTORS; offset < 0x1000; offset += 8) {
        bus_write(mmio, table + offset, 8, UINT64_MAX);
        ck_assert_uint_eq(bus_read(mmio, table + offset, 8), 0); /* pending bits too */
    }
}
END_TEST

START_TEST(a_message_goes_out_by_its_route)
{
    set_control(ENABLE);
    use(2);
    check_route(2, MESSAGE(2), 0x42);
    msix_toy_raise(&toy, 2);
    msix_toy_raise(&toy, 2);
    ck_assert_uint_eq(sent(2), 2);
    ck_assert_uint_eq(pending(), 0);
}
END_TEST

START_TEST(a_vector_that_is_never_used_costs_nothing)
{
    set_control(ENABLE | MASK_ALL);
    for (unsigned vector = 0; vector < MSIX_VECTORS; vector++)
        write_message(vector, MESSAGE(vector), vector);
    set_control(ENABLE);
    ck_assert_uint_eq(router.creates, 0);
    mask(1, false);
    ck_assert_uint_eq(router.creates, 1);
    ck_assert_uint_eq(router.sets, 1);
    msix_toy_resume(&toy);
    ck_assert_uint_eq(router.creates, 1);
}
END_TEST

START_TEST(routes_hear_of_changes_at_an_unmask_and_of_nothing_else)
{
    set_control(ENABLE);
    use(0);
    ck_assert_uint_eq(router.sets, 1);
    mask(0, true);
    mask(0, false); /* a driver that masks and unmasks for each interrupt */
    write_message(0, MESSAGE(0), 0x40);
    mask(0, true);
    mask(0, false); /* the same again */
    ck_assert_uint_eq(router.sets, 1);
    mask(0, true);
    write_message(0, MESSAGE(7), 0x99); /* another CPU */
    ck_assert_uint_eq(router.sets, 1);
    mask(0, false);
    ck_assert_uint_eq(router.sets, 2);
    ck_assert_uint_eq(router.creates, 1);
    check_route(0, MESSAGE(7), 0x99);
}
END_TEST

START_TEST(a_live_vector_changes_at_its_next_unmask)
{
    set_control(ENABLE);
    use(0);
    write_message(0, MESSAGE(7), 0x99);
    mask(0, false); /* it is not masked */
    check_route(0, MESSAGE(0), 0x40);
    mask(0, true);
    mask(0, false);
    check_route(0, MESSAGE(7), 0x99);
}
END_TEST

static void mask_vector(bool masked)
{
    mask(1, masked);
}

static void mask_function(bool masked)
{
    set_control(masked ? ENABLE | MASK_ALL : ENABLE);
}

static void (*const masks[])(bool masked) = {mask_vector, mask_function};

START_TEST(a_masked_message_waits)
{
    set_control(ENABLE);
    use(1);
    use(4);
    masks[_i](true);
    msix_toy_raise(&toy, 1);
    msix_toy_raise(&toy, 1);
    ck_assert_uint_eq(sent(1), 0);
    ck_assert_uint_eq(pending(), 1 << 1);
    ck_assert_uint_eq(bus_read(mmio, table + PENDING, 8), 1 << 1);
    bus_write(mmio, table + PENDING, 8, 0); /* read only */
    masks[_i](false);
    ck_assert_uint_eq(sent(1), 1); /* once */
    ck_assert_uint_eq(sent(4), 0);
    ck_assert_uint_eq(pending(), 0);
}
END_TEST

START_TEST(a_pending_message_goes_where_the_vector_points_by_then)
{
    set_control(ENABLE);
    msix_toy_raise(&toy, 3);
    use(3);
    check_route(3, MESSAGE(3), 0x43);
    ck_assert_uint_eq(sent(3), 1);
}
END_TEST

START_TEST(a_write_of_64_bits_unmasks_with_its_data)
{
    set_control(ENABLE);
    bus_write(mmio, table, 8, MESSAGE(1));
    bus_write(mmio, table + 8, 8, 0x55);
    check_route(0, MESSAGE(1), 0x55);
}
END_TEST

START_TEST(both_masks_must_go)
{
    set_control(ENABLE);
    use(1);
    mask(1, true);
    set_control(ENABLE | MASK_ALL);
    msix_toy_raise(&toy, 1);
    mask(1, false);
    ck_assert_uint_eq(sent(1), 0);
    set_control(ENABLE);
    ck_assert_uint_eq(sent(1), 1);
}
END_TEST

START_TEST(nothing_is_sent_or_kept_while_msix_is_off)
{
    use(1);
    ck_assert_uint_eq(router.creates, 0);
    msix_toy_raise(&toy, 1);
    ck_assert_uint_eq(pending(), 0);
    set_control(ENABLE);
    ck_assert_uint_eq(sent(1), 0);
    mask(1, true);
    msix_toy_raise(&toy, 1);
    set_control(0); /* off: the driver has given up on it */
    ck_assert_uint_eq(pending(), 0);
}
END_TEST

START_TEST(vectors_that_are_not_there_are_ignored)
{
    static const unsigned others[] = {MSIX_VECTORS, 31, 32, 0xffff, UINT32_MAX};

    set_control(ENABLE);
    for (unsigned i = 0; i < array_size(others); i++)
        msix_toy_raise(&toy, others[i]);
    ck_assert_uint_eq(pending(), 0);
    ck_assert_uint_eq(toy.msix_state.recent, 0);
}
END_TEST

START_TEST(without_routes_messages_are_lost_and_the_next_unmask_tries_again)
{
    router.failing = true;
    set_control(ENABLE);
    use(1);
    ck_assert_uint_eq(router.creates, 1);
    msix_toy_raise(&toy, 1);
    ck_assert_uint_eq(router.creates, 1); /* not at each message */
    msix_toy_reset(&toy);
    msix_toy_resume(&toy);
    set_control(ENABLE);
    use(1);
    ck_assert_uint_eq(router.sets, 0);
    router.failing = false;
    mask(1, true);
    mask(1, false);
    msix_toy_raise(&toy, 1);
    ck_assert_uint_eq(sent(1), 1);
    check_route(1, MESSAGE(1), 0x41);
}
END_TEST

START_TEST(reset_masks_everything_and_keeps_the_routes)
{
    set_control(ENABLE);
    use(1);
    mask(2, true);
    msix_toy_raise(&toy, 2);
    msix_toy_raise(&toy, 1);
    msix_toy_reset(&toy);
    msix_toy_resume(&toy);
    check_as_new();
    sent(1);
    set_control(ENABLE);
    ck_assert_uint_eq(sent(1), 0);
    ck_assert_uint_eq(pending(), 0);
    use(1);
    check_route(1, MESSAGE(1), 0x41);
    ck_assert_uint_eq(router.creates, 1);
    ck_assert_uint_eq(router.destroys, 0);
}
END_TEST

/* Takes the state over into a function with routes of its own that say nothing. */
static void move_to_another_host(void)
{
    struct pci_state state = toy.state;
    struct pci_msix_state msix_state = toy.msix_state;

    teardown();
    setup();
    toy.state = state;
    toy.msix_state = msix_state;
}

START_TEST(a_loaded_state_has_its_routes_and_sends_what_is_due)
{
    set_control(ENABLE);
    use(1);
    use(2);
    mask(2, true);
    msix_toy_raise(&toy, 2);
    move_to_another_host();
    msix_toy_resume(&toy);
    check_route(1, MESSAGE(1), 0x41);
    ck_assert_int_lt(toy.msix.routes[2].fd, 0);
    ck_assert_uint_eq(sent(1), 0);
    ck_assert_uint_eq(pending(), 1 << 2);
    mask(2, false);
    ck_assert_uint_eq(sent(2), 1);
}
END_TEST

START_TEST(a_recent_message_is_said_again_once)
{
    set_control(ENABLE);
    use(1);
    use(2);
    msix_toy_raise(&toy, 1);
    msix_toy_raise(&toy, 2);
    mask(2, true); /* for this one it becomes pending */
    move_to_another_host();
    msix_toy_resume(&toy);
    ck_assert_uint_eq(sent(1), 1);
    ck_assert_uint_eq(pending(), 1 << 2);
    msix_toy_resume(&toy);
    ck_assert_uint_eq(sent(1), 0);
    ck_assert_uint_eq(toy.msix_state.recent, 0);
}
END_TEST

START_TEST(what_is_pending_and_recent_is_sent_once)
{
    set_control(ENABLE);
    use(1);
    msix_toy_raise(&toy, 1);
    mask(1, true);
    msix_toy_raise(&toy, 1);
    toy.msix_state.vectors[1].control = 0; /* no guest's doing, but a sender's */
    move_to_another_host();
    msix_toy_resume(&toy);
    ck_assert_uint_eq(sent(1), 1);
    ck_assert_uint_eq(pending(), 0);
}
END_TEST

START_TEST(a_hostile_state_raises_only_what_is_there)
{
    memset(&toy.msix_state, 0xff, sizeof toy.msix_state);
    for (unsigned vector = 0; vector < PCI_MSIX_MAX; vector++)
        toy.msix_state.vectors[vector].control = vector % 2;
    toy.state.config[toy.msix.capability + 3] = ENABLE >> 8;
    msix_toy_resume(&toy);
    ck_assert_uint_eq(router.creates, 3); /* 0, 2 and 4 */
    ck_assert_uint_eq(pending(), 1 << 1 | 1 << 3);
    for (unsigned vector = 0; vector < MSIX_VECTORS; vector++)
        ck_assert_uint_eq(sent(vector), vector % 2 ? 0 : 1);
}
END_TEST

START_TEST(all_32_vectors_work)
{
    struct msix_toy wide = {0};
    const struct pci_id id = {.vendor = 0x1af4, .device = 0x1042};

    pthread_mutex_init(&wide.lock, NULL);
    pci_function_init(&wide.function, &id, &wide.state, &wide.lock, &msix_toy_ops, &wide);
    ck_assert_int_eq(pci_msix_init(&wide.msix, &wide.function, 0, PCI_MSIX_MAX, &wide.msix_state,
                                   &router.router, NULL),
                     0);
    ck_assert_int_eq(pci_function_attach(&wide.function, pci, 9, NULL), 0);
    msix_toy_resume(&wide);
    bus_write(mmio, TOY_ECAM + (9 << 15) + wide.msix.capability + 2, 2, ENABLE);
    for (unsigned vector = 0; vector < PCI_MSIX_MAX; vector++)
        msix_toy_raise(&wide, vector);
    ck_assert_uint_eq(bus_read(mmio, wide.function.bars[0].address + PENDING, 8), UINT32_MAX);
    for (unsigned vector = 0; vector < PCI_MSIX_MAX; vector++) {
        bus_write(mmio, wide.function.bars[0].address + 16ull * vector + 12, 4, 0);
        ck_assert_uint_eq(msix_toy_sent(&wide, vector), 1);
    }
    ck_assert_uint_eq(router.creates, PCI_MSIX_MAX);
    msix_toy_finish(&wide);
    ck_assert_uint_eq(router.destroys, PCI_MSIX_MAX);
}
END_TEST

START_TEST(one_that_was_never_made_can_be_finished)
{
    struct pci_msix nothing = {0};

    pci_msix_finish(&nothing);
}
END_TEST

START_TEST(the_state_table_keeps_its_promises)
{
    set_control(ENABLE);
    for (unsigned vector = 0; vector < MSIX_VECTORS; vector++)
        use(vector);
    msix_toy_raise(&toy, 0);
    mask(3, true);
    msix_toy_raise(&toy, 3);
    unit_check_table(&pci_msix_state_table, &toy.msix_state);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        the_capability_describes_table_and_pending_bits,
        every_vector_is_masked_at_power_on,
        the_table_is_written_by_4_and_8_bytes_only,
        the_table_is_read_by_any_width_anywhere,
        beyond_the_table_is_nothing,
        a_message_goes_out_by_its_route,
        a_vector_that_is_never_used_costs_nothing,
        routes_hear_of_changes_at_an_unmask_and_of_nothing_else,
        a_live_vector_changes_at_its_next_unmask,
        a_pending_message_goes_where_the_vector_points_by_then,
        a_write_of_64_bits_unmasks_with_its_data,
        both_masks_must_go,
        nothing_is_sent_or_kept_while_msix_is_off,
        vectors_that_are_not_there_are_ignored,
        without_routes_messages_are_lost_and_the_next_unmask_tries_again,
        reset_masks_everything_and_keeps_the_routes,
        a_loaded_state_has_its_routes_and_sends_what_is_due,
        a_recent_message_is_said_again_once,
        what_is_pending_and_recent_is_sent_once,
        a_hostile_state_raises_only_what_is_there,
        all_32_vectors_work,
        one_that_was_never_made_can_be_finished,
        the_state_table_keeps_its_promises,
    };
    Suite *suite = suite_create("pci_msix");
    TCase *tcase = tcase_create("pci_msix");

    tcase_add_checked_fixture(tcase, setup, teardown);
    for (unsigned i = 0; i < array_size(tests); i++)
        tcase_add_test(tcase, tests[i]);
    tcase_add_loop_test(tcase, a_masked_message_waits, 0, array_size(masks));
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
