/* SPDX-License-Identifier: MIT */
/* BARs: where they are, how they move, and who gives way to whom. */
#include "tests/unit/pci_rig.h"

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

int main(void)
{
    const TTest *const tests[] = {
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
    };
    Suite *suite = suite_create("pci_bars");
    TCase *tcase = tcase_create("pci_bars");

    tcase_add_checked_fixture(tcase, setup, teardown);
    for (unsigned i = 0; i < array_size(tests); i++)
        tcase_add_test(tcase, tests[i]);
    tcase_add_loop_test(tcase, a_bar_outside_of_the_windows_is_nowhere, 0, array_size(nowhere));
    tcase_add_loop_test(tcase, who_waits_for_a_place_gets_it, 0, array_size(releases));
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
