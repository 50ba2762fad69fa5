/* SPDX-License-Identifier: MIT */
/* The PCI bus and its functions, but for where BARs are (test_pci_bars.c). */
#include "tests/unit/pci_rig.h"

/* --- the ways to configuration space --- */

START_TEST(linux_finds_the_ports_working)
{
    bus_write(ports, 0xcfb, 1, 1);
    bus_write(ports, 0xcf8, 4, 0x80000000);
    ck_assert_uint_eq(bus_read(ports, 0xcf8, 4), 0x80000000);
    ck_assert_uint_eq(bus_read(ports, 0xcfc, 4), 0x00081b36);
    bus_write(ports, 0xcf8, 4, 0x80000008);
    ck_assert_uint_eq(bus_read(ports, 0xcfe, 2), 0x0600); /* a host bridge */
}
END_TEST

START_TEST(only_32_bits_at_once_are_the_address)
{
    select_register(SLOT, 0);
    for (unsigned port = 0xcf8; port < 0xcfc; port++) {
        bus_write(ports, port, 1, 0);
        ck_assert_uint_eq(bus_read(ports, port, 1), 0xff);
    }
    bus_write(ports, 0xcf8, 2, 0);
    bus_write(ports, 0xcf9, 4, 0); /* reaches one byte of data, where writing is no use */
    ck_assert_uint_eq(bus_read(ports, 0xcf8, 4), 0x80000000 | SLOT << 11);
    bus_write(ports, 0xcf8, 4, 0xffffffff);
    ck_assert_uint_eq(bus_read(ports, 0xcf8, 4), 0x80fffffc);
}
END_TEST

START_TEST(data_has_every_width_and_alignment)
{
    for (unsigned offset = 0; offset < PCI_CONFIG_SIZE; offset++) {
        select_register(SLOT, offset);
        for (unsigned width = 1; width <= 4 - offset % 4; width *= 2) {
            uint32_t expected = 0;
            memcpy(&expected, toys[0].state.config + offset, width);
            ck_assert_uint_eq(bus_read(ports, 0xcfc + offset % 4, width), expected);
        }
    }
    select_register(SLOT, PCI_INTERRUPT_LINE);
    bus_write(ports, 0xcfc, 1, 0x5a);
    ck_assert_uint_eq(bus_read(ports, 0xcfc, 4), 0x015a);
    select_register(SLOT, BAR_2);
    bus_write(ports, 0xcfe, 2, 0xd000);
    ck_assert_uint_eq(bus_read(ports, 0xcfc, 4) >> 16, 0xd000);
}
END_TEST

START_TEST(data_is_nobodys_while_the_address_is_off)
{
    bus_write(ports, 0xcf8, 4, SLOT << 11);
    ck_assert_uint_eq(bus_read(ports, 0xcfc, 4), 0xffffffff);
    bus_write(ports, 0xcfc, 4, 0);
    ck_assert_uint_eq(get(SLOT, PCI_COMMAND, 2), PCI_COMMAND_MEMORY);
}
END_TEST

START_TEST(ecam_has_every_width_and_alignment)
{
    for (unsigned offset = 0; offset <= 0x108; offset++)
        for (unsigned width = 1; width <= 8; width *= 2) {
            uint64_t expected = 0;
            for (unsigned i = 0; i < width && offset + i < PCI_CONFIG_SIZE; i++)
                expected |= (uint64_t)toys[1].state.config[offset + i] << 8 * i;
            ck_assert_uint_eq(bus_read(mmio, ecam(OTHER, offset), width), expected);
        }
}
END_TEST

START_TEST(registers_above_255_are_zero)
{
    for (unsigned offset = 256; offset < 4096; offset += 4) {
        put(SLOT, offset, 4, 0xffffffff);
        ck_assert_uint_eq(get(SLOT, offset, 4), 0);
    }
    ck_assert_uint_eq(bus_read(mmio, ecam(SLOT, 4092), 8), 0);
    put(SLOT, 4092, 8, UINT64_MAX);
    ck_assert_uint_eq(toys[0].writes, 0);
}
END_TEST

START_TEST(nobody_reads_all_ones_everywhere)
{
    static const uint32_t nobody[] = {
        NOBODY_SLOT << 15,       /* an empty slot */
        SLOT << 15 | 1 << 12,    /* another function */
        1 << 20 | SLOT << 15,    /* another bus */
        255u << 20 | SLOT << 15, /* the last one */
    };

    for (unsigned i = 0; i < array_size(nobody); i++) {
        bus_write(mmio, TOY_ECAM + nobody[i] + PCI_COMMAND, 2, 0);
        bus_write(ports, 0xcf8, 4, 0x80000000 | nobody[i] >> 4);
        ck_assert_uint_eq(bus_read(ports, 0xcfc, 4), 0xffffffff);
        ck_assert_uint_eq(bus_read(ports, 0xcff, 1), 0xff);
        for (unsigned width = 1; width <= 8; width *= 2)
            ck_assert_uint_eq(bus_read(mmio, TOY_ECAM + nobody[i], width),
                              UINT64_MAX >> (64 - 8 * width));
        ck_assert_uint_eq(bus_read(mmio, TOY_ECAM + nobody[i] + 0x100, 4), 0xffffffff);
    }
    ck_assert_uint_eq(get(SLOT, PCI_COMMAND, 2), PCI_COMMAND_MEMORY);
}
END_TEST

/* --- the header --- */

START_TEST(a_function_says_what_it_is)
{
    ck_assert_uint_eq(get(SLOT, 0, 4), 0x10401af4);
    ck_assert_uint_eq(get(SLOT, 8, 4), 0x01000001);
    ck_assert_uint_eq(get(SLOT, 0x0c, 4), 0);
    ck_assert_uint_eq(get(SLOT, 0x2c, 4), 0x56781234);
    ck_assert_uint_eq(get(SLOT, PCI_INTERRUPT_PIN, 1), 1);
    for (unsigned i = 0; i < TOYS; i++)
        ck_assert_uint_eq(get(slots[i], PCI_INTERRUPT_LINE, 1), 17);
    ck_assert_uint_eq(get(0, PCI_INTERRUPT_PIN, 1), 0); /* the bridge interrupts nobody */
}
END_TEST

START_TEST(what_a_guest_may_change_changes_and_nothing_else)
{
    uint8_t before[PCI_CONFIG_SIZE];

    memcpy(before, toys[0].state.config, sizeof before);
    for (unsigned offset = 0; offset < PCI_CONFIG_SIZE; offset += 4) {
        if (offset >= BAR_0 && offset <= BAR_2)
            continue;
        put(SLOT, offset, 4, 0xffffffff);
        put(SLOT, offset, 8, 0xffffffff); /* and its neighbour to 0, as far as that is possible */
    }
    for (unsigned offset = 0; offset < PCI_CONFIG_SIZE; offset++) {
        uint8_t changed = toys[0].state.config[offset] ^ before[offset];
        uint8_t allowed = offset == PCI_INTERRUPT_LINE        ? 0xff
                          : offset == PCI_COMMAND             ? 6
                          : offset == PCI_COMMAND + 1         ? 4
                          : offset == toys[0].capability + 4u ? 0x0f
                          : offset >= BAR_0 && offset < 0x1c  ? 0xff
                                                              : 0;
        ck_assert_msg((changed & ~allowed) == 0, "byte %#x changed: %#x", offset, changed);
    }
    put(SLOT, PCI_COMMAND, 4, 0xffffffff);
    ck_assert_uint_eq(get(SLOT, PCI_COMMAND, 4), 0x00100406);
}
END_TEST

START_TEST(capabilities_form_a_list)
{
    static const uint8_t more[3] = {7, 8, 9};
    struct toy toy;
    uint8_t *config;

    toy_init(&toy, 0);
    unsigned second = pci_function_add_capability(&toy.function, 0x11, more, NULL, sizeof more);
    ck_assert_int_eq(pci_function_attach(&toy.function, pci, 20, NULL), 0);
    config = toy.state.config;
    ck_assert_uint_eq(config[STATUS] & 0x10, 0x10);
    ck_assert_uint_eq(config[0x34], toy.capability);
    ck_assert_uint_eq(config[toy.capability], 0x09);
    ck_assert_uint_eq(config[toy.capability + 1], second);
    ck_assert_uint_eq(second % 4, 0);
    ck_assert_uint_eq(config[second], 0x11);
    ck_assert_uint_eq(config[second + 1], 0);
    ck_assert_mem_eq(config + second + 2, more, sizeof more);
    ck_assert_uint_eq(config[second + 5], 0);
    toy_finish(&toy);
    ck_assert_uint_eq(get(20, 0, 4), 0xffffffff);
}
END_TEST

START_TEST(the_device_is_asked_before_reads_and_told_after_writes)
{
    toys[0].window = 0x77;
    ck_assert_uint_eq(get(SLOT, toys[0].capability + 2, 1), 0x77);
    put(SLOT, toys[0].capability + 2, 4, 0xffffffff);
    ck_assert_uint_eq(toys[0].writes, 1);
    ck_assert_uint_eq(toys[0].written_at, toys[0].capability + 2);
    ck_assert_uint_eq(toys[0].written_width, 4);
    ck_assert_uint_eq(get(SLOT, toys[0].capability + 4, 1), 0x0f);
    put(SLOT, 0xfc, 8, 0); /* is told of what lies inside only */
    ck_assert_uint_eq(toys[0].written_width, 4);
    ck_assert_uint_eq(toys[1].writes, 0);
}
END_TEST

/* --- interrupt lines --- */

START_TEST(functions_that_share_a_line_are_combined)
{
    toy_set_intx(&toys[0], true);
    toy_set_intx(&toys[1], true);
    ck_assert(chip.level[1]);
    toy_set_intx(&toys[0], false);
    ck_assert(chip.level[1]);
    ck_assert_uint_eq(get(SLOT, STATUS, 1) & 8, 0);
    ck_assert_uint_eq(get(OTHER, STATUS, 1) & 8, 8);
    toy_set_intx(&toys[1], false);
    ck_assert(!chip.level[1]);
    ck_assert_uint_eq(chip.rises[1], 1);
    ck_assert(!chip.level[0] && !chip.level[2] && !chip.level[3]);
}
END_TEST

START_TEST(the_disable_bit_holds_the_line_but_not_the_status)
{
    put(SLOT, PCI_COMMAND, 2, 0x400);
    toy_set_intx(&toys[0], true);
    ck_assert(!chip.level[1]);
    ck_assert_uint_eq(get(SLOT, STATUS, 1) & 8, 8);
    put(SLOT, PCI_COMMAND, 2, 0);
    ck_assert(chip.level[1]);
    put(SLOT, PCI_COMMAND, 2, 0x400);
    ck_assert(!chip.level[1]);
}
END_TEST

START_TEST(each_slot_has_its_line)
{
    toy_finish(&toys[0]);
    for (unsigned slot = 1; slot < PCI_SLOTS; slot++) {
        if (slot == OTHER || slot == SHARED)
            continue;
        toy_init(&toys[0], 0);
        ck_assert_int_eq(pci_function_attach(&toys[0].function, pci, slot, NULL), 0);
        ck_assert_uint_eq(get(slot, PCI_INTERRUPT_LINE, 1), 16 + slot % 4);
        toy_set_intx(&toys[0], true);
        ck_assert(chip.level[slot % 4]);
        toy_finish(&toys[0]); /* and who leaves, lets go of it */
        ck_assert(!chip.level[slot % 4]);
    }
    toy_init(&toys[0], 0);
}
END_TEST

START_TEST(reset_brings_power_on_back)
{
    uint64_t mine = wide_address(SLOT), other = wide_address(OTHER);
    uint8_t before[TOYS][PCI_CONFIG_SIZE];

    for (unsigned i = 0; i < TOYS; i++)
        memcpy(before[i], toys[i].state.config, PCI_CONFIG_SIZE);
    move_wide(OTHER, TOY_HIGH);
    move_wide(SLOT, other); /* in the way of the one that goes first */
    put(SHARED, PCI_COMMAND, 2, 0);
    select_register(SLOT, 0);
    toy_set_intx(&toys[0], true);

    reset_all();
    ck_assert(!chip.level[1]);
    ck_assert_uint_eq(owner_at(other), 0xffffffff); /* until resume */
    resume_all();
    ck_assert_uint_eq(bus_read(ports, 0xcf8, 4), 0);
    ck_assert_uint_eq(owner_at(mine), owned(0, TOY_WIDE));
    ck_assert_uint_eq(owner_at(other), owned(1, TOY_WIDE));
    ck_assert_uint_eq(owner_at(TOY_HIGH), 0xffffffff);
    for (unsigned i = 0; i < TOYS; i++)
        ck_assert_mem_eq(before[i], toys[i].state.config, PCI_CONFIG_SIZE);
}
END_TEST

START_TEST(a_loaded_state_has_its_bars_and_its_line)
{
    struct pci_state saved[TOYS];
    uint64_t mine = wide_address(SLOT), other = wide_address(OTHER);

    /* Saved: the first two have swapped places, the second one interrupts. */
    put(SLOT, BAR_0, 8, other);
    put(OTHER, BAR_0, 8, mine);
    toy_set_intx(&toys[1], true);
    for (unsigned i = 0; i < TOYS; i++)
        saved[i] = toys[i].state;
    reset_all();
    resume_all();
    toy_set_intx(&toys[0], true);
    chip.level[1] = false; /* a new chip, which has heard nothing */

    for (unsigned i = 0; i < TOYS; i++)
        toys[i].state = saved[i];
    resume_all();
    ck_assert_uint_eq(owner_at(other), owned(0, TOY_WIDE));
    ck_assert_uint_eq(owner_at(mine), owned(1, TOY_WIDE));
    ck_assert(chip.level[1]);
    toy_set_intx(&toys[1], false);
    ck_assert(!chip.level[1]); /* the first one's, which was before the load, is forgotten */
}
END_TEST

START_TEST(resume_alone_changes_nothing)
{
    unsigned mapped = toys[0].mapped;

    toy_set_intx(&toys[0], true);
    resume_all();
    ck_assert_uint_eq(toys[0].mapped, mapped);
    ck_assert_uint_eq(toys[0].unmapped, 0);
    ck_assert(chip.level[1]);
    ck_assert_uint_eq(chip.rises[1], 1);
}
END_TEST

START_TEST(a_hostile_state_can_change_what_a_guest_can_and_no_more)
{
    uint64_t seed = 4711;

    for (unsigned round = 0; round < 500; round++) {
        for (unsigned i = 0; i < TOYS; i++)
            for (unsigned j = 0; j < PCI_CONFIG_SIZE; j++)
                toys[i].state.config[j] = (uint8_t)(chance(&seed) >> 3);
        ck_assert(!pci_function_fits(&toys[0].function, &toys[0].state));
        resume_all();
        for (unsigned i = 0; i < TOYS; i++)
            ck_assert(pci_function_fits(&toys[i].function, &toys[i].state));
        ck_assert_uint_eq(get(OTHER, 0, 4), 0x10411af4);
        ck_assert_uint_eq(get(0, 0, 4), 0x00081b36);
    }
    reset_all();
    resume_all();
    ck_assert_uint_eq(owner_at(wide_address(SLOT)), owned(0, TOY_WIDE));
}
END_TEST

START_TEST(what_a_guest_wrote_fits)
{
    uint64_t seed = 99;
    struct pci_state foreign;

    for (unsigned i = 0; i < 2000; i++)
        put(SLOT, (unsigned)(chance(&seed) % 300), 4, chance(&seed));
    toy_set_intx(&toys[0], true);
    toys[0].state.config[toys[0].capability + 2] = 1; /* what the window shows is not written */
    ck_assert(pci_function_fits(&toys[0].function, &toys[0].state));
    foreign = toys[0].state;
    foreign.config[2] ^= 1;
    ck_assert(!pci_function_fits(&toys[0].function, &foreign));
}
END_TEST

START_TEST(slots_that_are_taken_or_not_there_are_errors)
{
    struct err err = {0};
    struct toy toy;

    toy_init(&toy, 4);
    ck_assert_int_eq(pci_function_attach(&toy.function, pci, SLOT, &err), -EEXIST);
    ck_assert_str_eq(err.text, "PCI slot 5 is taken");
    ck_assert_int_eq(pci_function_attach(&toy.function, pci, 0, &err), -EEXIST);
    ck_assert_int_eq(pci_function_attach(&toy.function, pci, PCI_SLOTS, &err), -EINVAL);
    toy_finish(&toy);
    ck_assert_uint_eq(get(SLOT, 0, 4), 0x10401af4);
}
END_TEST

START_TEST(a_full_window_is_an_error)
{
    struct err err = {0};
    struct toy toy;

    toy_init(&toy, 4);
    pci_function_add_bar(&toy.function, 4, TOY_LOW_SIZE, true, &toy_bar_ops, &toy.bars[4]);
    ck_assert_int_eq(pci_function_attach(&toy.function, pci, 20, &err), -ENOSPC);
    ck_assert_ptr_nonnull(strstr(err.text, "BAR 4 of PCI slot 20"));
    toy_finish(&toy);
    ck_assert_uint_eq(get(20, 0, 4), 0xffffffff);
}
END_TEST

START_TEST(places_at_power_on_never_overlap)
{
    static const uint64_t sizes[] = {16, 0x10000, 0x100, 0x1000000, 0x4000, 0x8000000};
    struct toy more[array_size(sizes)];

    for (unsigned i = 0; i < array_size(sizes); i++) {
        toy_init(&more[i], 4 + i);
        pci_function_add_bar(&more[i].function, 4, sizes[i], i % 2, &toy_bar_ops, &more[i].bars[4]);
        ck_assert_int_eq(pci_function_attach(&more[i].function, pci, 20 + i, NULL), 0);
        toy_resume(&more[i]);
        ck_assert_uint_eq(more[i].mapped, 3); /* the bus of MMIO takes no overlap */
        ck_assert_uint_eq(more[i].function.bars[4].address % 4096, 0);
    }
    for (unsigned i = 0; i < array_size(sizes); i++)
        toy_finish(&more[i]);
}
END_TEST

START_TEST(a_bus_that_cannot_be_made_leaves_nothing_behind)
{
    struct bus *crowded;
    struct pci_bus *another;
    struct err err = {0};

    ck_assert_int_eq(bus_create(&crowded, NULL), 0);
    const struct pci_bus_config config = toy_bus_config(crowded, mmio, &chip.chip);
    ck_assert_int_eq(pci_bus_create(&another, &config, &err), -EEXIST); /* one ECAM is there */
    ck_assert_uint_eq(bus_read(crowded, 0xcfc, 4), 0xffffffff);
    ck_assert_uint_eq(bus_missed(crowded), 1);
    bus_destroy(crowded);
}
END_TEST

START_TEST(the_state_table_keeps_its_promises)
{
    struct device *device = pci_bus_device(pci);

    put(0, PCI_COMMAND, 2, 0x406);
    select_register(SLOT, 0x34);
    unit_check_table(device->table, device->state);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        linux_finds_the_ports_working,
        only_32_bits_at_once_are_the_address,
        data_has_every_width_and_alignment,
        data_is_nobodys_while_the_address_is_off,
        ecam_has_every_width_and_alignment,
        registers_above_255_are_zero,
        nobody_reads_all_ones_everywhere,
        a_function_says_what_it_is,
        what_a_guest_may_change_changes_and_nothing_else,
        capabilities_form_a_list,
        the_device_is_asked_before_reads_and_told_after_writes,
        functions_that_share_a_line_are_combined,
        the_disable_bit_holds_the_line_but_not_the_status,
        each_slot_has_its_line,
        reset_brings_power_on_back,
        a_loaded_state_has_its_bars_and_its_line,
        resume_alone_changes_nothing,
        a_hostile_state_can_change_what_a_guest_can_and_no_more,
        what_a_guest_wrote_fits,
        slots_that_are_taken_or_not_there_are_errors,
        a_full_window_is_an_error,
        places_at_power_on_never_overlap,
        a_bus_that_cannot_be_made_leaves_nothing_behind,
        the_state_table_keeps_its_promises,
    };
    Suite *suite = suite_create("pci");
    TCase *tcase = tcase_create("pci");

    tcase_add_checked_fixture(tcase, setup, teardown);
    for (unsigned i = 0; i < array_size(tests); i++)
        tcase_add_test(tcase, tests[i]);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
