/* SPDX-License-Identifier: MIT */
#include "tests/unit/pci_fixture.h"
#include "tests/unit/unit.h"
#include <errno.h>

enum { SLOT = 5, OTHER = 9, SHARED = 13 }; /* of the toys; all three drive line 1 */
enum { BAR_0 = 0x10, BAR_1 = 0x14, BAR_2 = 0x18, STATUS = 6, NOBODY_SLOT = 7 };

static const unsigned slots[TOYS] = {SLOT, OTHER, SHARED};

static struct bus *ports, *mmio;
static struct fake_chip chip;
static struct pci_bus *pci;
static struct toy toys[TOYS];

static uint64_t ecam(unsigned slot, unsigned offset)
{
    return TOY_ECAM + (slot << 15) + offset;
}

static uint32_t get(unsigned slot, unsigned offset, unsigned width)
{
    return (uint32_t)bus_read(mmio, ecam(slot, offset), width);
}

static void put(unsigned slot, unsigned offset, unsigned width, uint64_t value)
{
    bus_write(mmio, ecam(slot, offset), width, value);
}

static void select_register(unsigned slot, unsigned offset)
{
    bus_write(ports, 0xcf8, 4, 0x80000000 | slot << 11 | (offset & 0xfc));
}

/* Whose BAR answers at this address; ~0 for nobody. */
static uint32_t owner_at(uint64_t address)
{
    return (uint32_t)bus_read(mmio, address, 4);
}

static uint32_t owned(unsigned toy, unsigned bar)
{
    return toy << 12 | bar << 8;
}

static uint64_t wide_address(unsigned slot)
{
    return bus_read(mmio, ecam(slot, BAR_0), 8) & ~0xfull;
}

static void move_wide(unsigned slot, uint64_t address)
{
    put(slot, BAR_0, 4, (uint32_t)address);
    put(slot, BAR_1, 4, address >> 32);
}

static void resume_all(void)
{
    struct device *device = pci_bus_device(pci);

    device->ops->resume(device);
    for (unsigned i = 0; i < TOYS; i++)
        toy_resume(&toys[i]);
}

static void reset_all(void)
{
    struct device *device = pci_bus_device(pci);

    device->ops->reset(device);
    for (unsigned i = 0; i < TOYS; i++)
        toy_reset(&toys[i]);
}

static void create(uint64_t high_size)
{
    fake_chip_init(&chip);
    ck_assert_int_eq(bus_create(&ports, NULL), 0);
    ck_assert_int_eq(bus_create(&mmio, NULL), 0);
    struct pci_bus_config config = toy_bus_config(ports, mmio, &chip.chip);
    config.high.size = high_size;
    ck_assert_int_eq(pci_bus_create(&pci, &config, NULL), 0);
    for (unsigned i = 0; i < TOYS; i++) {
        struct err err = {0};
        toy_init(&toys[i], i);
        ck_assert_msg(pci_function_attach(&toys[i].function, pci, slots[i], &err) == 0, "%s",
                      err.text);
    }
    reset_all();
    resume_all();
}

static void setup(void)
{
    create(TOY_LOW_SIZE);
}

static void teardown(void)
{
    for (unsigned i = 0; i < TOYS; i++)
        toy_finish(&toys[i]);
    device_destroy(pci_bus_device(pci));
    bus_destroy(mmio);
    bus_destroy(ports);
}

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

/* --- BARs --- */

START_TEST(bars_work_at_power_on)
{
    for (unsigned i = 0; i < TOYS; i++) {
        uint64_t wide = wide_address(slots[i]), narrow = get(slots[i], BAR_2, 4);
        ck_assert_uint_eq(get(slots[i], BAR_0, 4) & 0xf, 4);
        ck_assert_uint_eq(narrow & 0xf, 0);
        ck_assert_uint_ge(wide, TOY_LOW);
        ck_assert_uint_lt(wide, TOY_LOW + TOY_LOW_SIZE);
        ck_assert_uint_eq(owner_at(wide + 0x3ffc), owned(i, TOY_WIDE) | 0xfc);
        ck_assert_uint_eq(owner_at(narrow), owned(i, TOY_NARROW));
        ck_assert_uint_eq(toys[i].mapped, 2);
    }
}
END_TEST

START_TEST(a_guest_can_size_bars)
{
    uint32_t low = get(SLOT, BAR_0, 4), high = get(SLOT, BAR_1, 4), narrow = get(SLOT, BAR_2, 4);

    put(SLOT, BAR_0, 4, 0xffffffff);
    put(SLOT, BAR_1, 4, 0xffffffff);
    ck_assert_uint_eq(get(SLOT, BAR_0, 4), (uint32_t) ~(TOY_WIDE_SIZE - 1) | 4);
    ck_assert_uint_eq(get(SLOT, BAR_1, 4), 0xffffffff);
    put(SLOT, BAR_2, 4, 0xffffffff);
    ck_assert_uint_eq(get(SLOT, BAR_2, 4), (uint32_t) ~(TOY_NARROW_SIZE - 1));
    put(SLOT, BAR_2 + 4, 4, 0xffffffff);
    ck_assert_uint_eq(get(SLOT, BAR_2 + 4, 4), 0); /* not there */
    put(SLOT, 0x30, 4, 0xffffffff);
    ck_assert_uint_eq(get(SLOT, 0x30, 4), 0); /* nor a ROM */
    ck_assert_uint_eq(owner_at(narrow), 0xffffffff);
    put(SLOT, BAR_0, 4, low);
    put(SLOT, BAR_1, 4, high);
    put(SLOT, BAR_2, 4, narrow);
    ck_assert_uint_eq(owner_at(low & ~0xfu), owned(0, TOY_WIDE));
    ck_assert_uint_eq(owner_at(narrow), owned(0, TOY_NARROW));
}
END_TEST

START_TEST(memory_decoding_switches_all_bars)
{
    uint64_t wide = wide_address(SLOT);

    put(SLOT, PCI_COMMAND, 2, PCI_COMMAND_MASTER);
    ck_assert_uint_eq(owner_at(wide), 0xffffffff);
    ck_assert_uint_eq(owner_at(get(SLOT, BAR_2, 4)), 0xffffffff);
    ck_assert_uint_eq(toys[0].unmapped, 2);
    put(SLOT, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    ck_assert_uint_eq(owner_at(wide), owned(0, TOY_WIDE));
}
END_TEST

START_TEST(a_wide_bar_moves_up_half_by_half)
{
    uint64_t old = wide_address(SLOT);

    put(SLOT, BAR_0, 4, TOY_HIGH & 0xffffffff);
    ck_assert_uint_eq(owner_at(old), 0xffffffff);
    ck_assert_uint_eq(owner_at(0), 0xffffffff); /* outside of all windows */
    ck_assert_uint_eq(owner_at(TOY_HIGH), 0xffffffff);
    put(SLOT, BAR_1, 4, TOY_HIGH >> 32);
    ck_assert_uint_eq(owner_at(TOY_HIGH), owned(0, TOY_WIDE));
    ck_assert_uint_eq(toys[0].function.bars[TOY_WIDE].address, TOY_HIGH);
    move_wide(SLOT, old);
    ck_assert_uint_eq(owner_at(old), owned(0, TOY_WIDE));
    ck_assert_uint_eq(owner_at(TOY_HIGH), 0xffffffff);
}
END_TEST

START_TEST(a_wide_bar_moves_in_one_write_of_64_bits)
{
    put(SLOT, BAR_0, 8, TOY_HIGH + 0x8000);
    ck_assert_uint_eq(owner_at(TOY_HIGH + 0x8000), owned(0, TOY_WIDE));
    ck_assert_uint_eq(toys[0].unmapped, 1);
    ck_assert_uint_eq(toys[0].mapped, 3);
}
END_TEST

static const uint64_t nowhere[] = {
    0,                                    /* RAM */
    0x100000,                             /* RAM */
    TOY_LOW - TOY_WIDE_SIZE,              /* just below the window */
    TOY_LOW + TOY_LOW_SIZE,               /* just above, where the ECAM is */
    0xfec00000,                           /* the I/O APIC */
    0x100000000,                          /* RAM above 4 GiB */
    TOY_HIGH - TOY_WIDE_SIZE,             /* */
    TOY_HIGH + TOY_LOW_SIZE,              /* */
    0xffffffff00000000 + TOY_LOW,         /* no carry from the upper half */
    UINT64_MAX & ~(TOY_WIDE_SIZE - 1ull), /* the top */
};

START_TEST(a_bar_outside_of_the_windows_is_nowhere)
{
    uint64_t old = wide_address(SLOT);
    uint32_t id = get(0, 0, 4);

    move_wide(SLOT, nowhere[_i]);
    ck_assert(!toys[0].function.bars[TOY_WIDE].mapped);
    ck_assert_uint_eq(wide_address(SLOT), nowhere[_i]); /* the register has it all the same */
    ck_assert_uint_eq(get(0, 0, 4), id);
    move_wide(SLOT, old);
    ck_assert_uint_eq(owner_at(old), owned(0, TOY_WIDE));
}
END_TEST

START_TEST(the_ends_of_the_windows_can_be_used)
{
    static const uint64_t ends[] = {TOY_LOW + TOY_LOW_SIZE - TOY_WIDE_SIZE, TOY_HIGH,
                                    TOY_HIGH + TOY_LOW_SIZE - TOY_WIDE_SIZE};

    for (unsigned i = 0; i < array_size(ends); i++) {
        move_wide(SLOT, ends[i]);
        ck_assert_uint_eq(owner_at(ends[i]), owned(0, TOY_WIDE));
        ck_assert_uint_eq(owner_at(ends[i] + TOY_WIDE_SIZE - 4), owned(0, TOY_WIDE) | 0xfc);
    }
}
END_TEST

START_TEST(without_a_high_window_nothing_is_mapped_there)
{
    teardown();
    create(0);
    move_wide(SLOT, TOY_HIGH);
    ck_assert_uint_eq(owner_at(TOY_HIGH), 0xffffffff);
    move_wide(SLOT, 0);
    ck_assert(!toys[0].function.bars[TOY_WIDE].mapped);
}
END_TEST

START_TEST(of_two_bars_at_one_place_the_first_is_there)
{
    uint64_t mine = wide_address(SLOT), other = wide_address(OTHER);

    move_wide(SLOT, other);
    ck_assert_uint_eq(owner_at(other), owned(1, TOY_WIDE));
    ck_assert(!toys[0].function.bars[TOY_WIDE].mapped);
    put(SLOT, BAR_2, 4, (uint32_t)other + 0x2000); /* a part of it is enough */
    ck_assert_uint_eq(owner_at(other + 0x2000), owned(1, TOY_WIDE));
    move_wide(SLOT, mine);
    ck_assert_uint_eq(owner_at(mine), owned(0, TOY_WIDE));
}
END_TEST

static void release_by_moving(void)
{
    move_wide(OTHER, TOY_HIGH);
}

static void release_by_command(void)
{
    put(OTHER, PCI_COMMAND, 2, 0);
}

static void (*const releases[])(void) = {release_by_moving, release_by_command};

START_TEST(who_waits_for_a_place_gets_it)
{
    uint64_t place = wide_address(OTHER);

    move_wide(SLOT, place);
    ck_assert_uint_eq(owner_at(place), owned(1, TOY_WIDE));
    releases[_i]();
    ck_assert_uint_eq(owner_at(place), owned(0, TOY_WIDE));
}
END_TEST

START_TEST(two_functions_can_swap_their_bars)
{
    uint64_t mine = wide_address(SLOT), other = wide_address(OTHER);

    move_wide(SLOT, other);
    move_wide(OTHER, mine);
    ck_assert_uint_eq(owner_at(mine), owned(1, TOY_WIDE));
    ck_assert_uint_eq(owner_at(other), owned(0, TOY_WIDE));
    put(SLOT, BAR_0, 8, mine | 4);
    put(OTHER, BAR_0, 8, other | 4);
    ck_assert_uint_eq(owner_at(mine), owned(0, TOY_WIDE));
    ck_assert_uint_eq(owner_at(other), owned(1, TOY_WIDE));
}
END_TEST

START_TEST(a_function_can_swap_its_own_bars)
{
    uint32_t wide = (uint32_t)wide_address(SLOT), narrow = 0xd0000000;

    put(SLOT, BAR_2, 4, narrow);
    put(SLOT, BAR_0, 4, narrow);
    ck_assert_uint_eq(owner_at(narrow), owned(0, TOY_NARROW));
    put(SLOT, BAR_2, 4, wide);
    ck_assert_uint_eq(owner_at(narrow), owned(0, TOY_WIDE));
    ck_assert_uint_eq(owner_at(wide), owned(0, TOY_NARROW));
}
END_TEST

/* A stranger who wants the place of a BAR as soon as it is free. */
static unsigned too_early;

static void try_to_squat(struct pci_function *function, unsigned bar, bool mapped, uint64_t address)
{
    if (mapped || bus_add(mmio, address, 16, &toy_bar_ops, NULL, NULL) < 0)
        return;
    too_early++;
    bus_remove(mmio, address);
}

/* Doorbells stand in front of the bus: who gets the place would not hear its own. */
START_TEST(a_place_is_free_when_the_device_has_let_go_of_it)
{
    static const struct pci_function_ops squatter = {.bar_changed = try_to_squat};
    uint64_t mine = wide_address(SLOT);

    too_early = 0;
    toys[0].function.ops = &squatter;
    move_wide(SLOT, TOY_HIGH);
    ck_assert_uint_eq(owner_at(mine), 0xffffffff);
    put(SLOT, PCI_COMMAND, 2, 0);
    ck_assert_uint_eq(owner_at(TOY_HIGH), 0xffffffff);
    ck_assert_uint_eq(too_early, 0);
}
END_TEST

static uint32_t random_place(uint64_t *seed)
{
    return 0xd0000000 + (uint32_t)(chance(seed) % 4) * TOY_WIDE_SIZE;
}

static void *move_at_random(void *arg)
{
    uint64_t seed = 77 + (uintptr_t)arg;
    unsigned slot = slots[(uintptr_t)arg % TOYS];

    for (unsigned i = 0; i < 3000; i++) {
        put(slot, chance(&seed) % 2 ? BAR_0 : BAR_2, 4, random_place(&seed));
        if (chance(&seed) % 8 == 0)
            put(slot, PCI_COMMAND, 2, chance(&seed) % 2 ? PCI_COMMAND_MEMORY : 0);
        owner_at(random_place(&seed));
    }
    return NULL;
}

START_TEST(movers_on_many_threads_leave_no_bar_behind)
{
    pthread_t threads[4];

    for (uintptr_t i = 0; i < 4; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, move_at_random, (void *)i), 0);
    for (unsigned i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    ck_assert(toys_wait_for_a_reason(toys, NULL));
    for (unsigned i = 0; i < TOYS; i++) {
        put(slots[i], PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
        move_wide(slots[i], 0xc8000000 + i * 0x10000);
        put(slots[i], BAR_2, 4, 0xc8008000 + i * 0x10000);
    }
    for (unsigned i = 0; i < TOYS; i++) {
        ck_assert_uint_eq(owner_at(0xc8000000 + i * 0x10000), owned(i, TOY_WIDE));
        ck_assert_uint_eq(owner_at(0xc8008000 + i * 0x10000), owned(i, TOY_NARROW));
    }
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
        bars_work_at_power_on,
        a_guest_can_size_bars,
        memory_decoding_switches_all_bars,
        a_wide_bar_moves_up_half_by_half,
        a_wide_bar_moves_in_one_write_of_64_bits,
        the_ends_of_the_windows_can_be_used,
        without_a_high_window_nothing_is_mapped_there,
        of_two_bars_at_one_place_the_first_is_there,
        two_functions_can_swap_their_bars,
        a_function_can_swap_its_own_bars,
        a_place_is_free_when_the_device_has_let_go_of_it,
        movers_on_many_threads_leave_no_bar_behind,
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
    tcase_add_loop_test(tcase, a_bar_outside_of_the_windows_is_nowhere, 0, array_size(nowhere));
    tcase_add_loop_test(tcase, who_waits_for_a_place_gets_it, 0, array_size(releases));
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
