/* SPDX-License-Identifier: MIT */
/* Expects: the memory map is in order and has ram=N MiB, both ends of each piece of RAM keep what
 * is written there, and all between and behind reads as ones; exits 0. At most 6 GiB. */
#include "guest.h"

extern uint8_t guest_end[];

#define GIB     (1ull << 30)
#define HIGH    (4 * GIB)
#define HOLE    0xc0000000ull
#define EMPTY   0xd0000000ull /* in the middle of the PCI window: BARs lie at its beginning */
#define PATTERN 0x9e3779b97f4a7c15ull

enum { PAGE = 4096, PLACES = 32 };

static uint64_t places[PLACES];
static unsigned place_count;

static volatile uint64_t *word(uint64_t address)
{
    return (volatile uint64_t *)address;
}

static void write_place(uint64_t address)
{
    check(place_count < PLACES, "too many pieces of RAM");
    places[place_count++] = address;
    *word(address) = address ^ PATTERN;
}

/* All are read after all were written: an address that shows other RAM would be noticed. */
static void check_places(void)
{
    for (unsigned i = 0; i < place_count; i++)
        check(*word(places[i]) == (places[i] ^ PATTERN), "RAM at %lx reads %lx", places[i],
              *word(places[i]));
}

static void check_nothing_at(uint64_t address)
{
    *word(address) = 0;
    check(*word(address) == UINT64_MAX, "%lx is not empty: %lx", address, *word(address));
    check(*(volatile uint8_t *)(address + 3) == 0xff, "a byte at %lx", address + 3);
    check(*(volatile uint16_t *)(address + 6) == 0xffff, "a word at %lx", address + 6);
    check(*(volatile uint32_t *)(address + 4) == 0xffffffff, "a long word at %lx", address + 4);
}

/* One access, half of it RAM, half of it nothing. */
static void check_border(uint64_t end)
{
    *word(end - 4) = 0x1122334455667788;
    check(*word(end - 4) == 0xffffffff55667788, "over the end of RAM: %lx", *word(end - 4));
    check(*(volatile uint32_t *)(end - 4) == 0x55667788, "the last RAM before %lx", end);
}

static void look_at_ram(const struct map_entry *entry)
{
    uint64_t first = entry->base, end = entry->base + entry->size;
    if (first < 0x100000)
        first = 0x20000; /* the boot loader's tables lie below, and 0x10000 is the kit's */
    else if (first < (uint64_t)guest_end)
        first = ((uint64_t)guest_end + PAGE - 1) & ~(PAGE - 1ull);
    write_place(first);
    write_place((first + end) / 2 & ~7ull);
    write_place(end - PAGE);
    write_place(end - 8);
}

void guest_main(void)
{
    struct map_entry entry;
    uint64_t ram = 0, end = 0, low_end = 0, high_end = 0;
    for (unsigned at = 0; memory_map(&at, &entry);) {
        print("%lx + %lx type %u\n", entry.base, entry.size, entry.type);
        check(entry.base >= end && entry.size > 0, "the map is not in order");
        end = entry.base + entry.size;
        if (entry.type != 1)
            continue;
        ram += entry.size;
        *(end > HIGH ? &high_end : &low_end) = end;
        look_at_ram(&entry);
    }
    /* Up to 1 MiB stays for the firmware. */
    uint64_t wanted = option("ram", 0) << 20;
    check(ram <= wanted && ram > wanted - 0x100000, "%lu bytes of RAM, not %lu", ram, wanted);
    check_places();

    if (low_end < HOLE) {
        check_border(low_end);
        check_nothing_at(low_end);
        check_nothing_at(low_end + PAGE);
    }
    check_nothing_at(EMPTY);
    check_nothing_at(0xf0000000);
    if (high_end) {
        check_nothing_at(HIGH - 0x10000000);
        check_border(high_end);
        check_nothing_at(high_end + PAGE);
    } else {
        check_nothing_at(HIGH);
    }
    print("%lu MiB\n", wanted >> 20);
}
