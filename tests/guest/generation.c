/* SPDX-License-Identifier: MIT */
/* Expects: finds the VM generation id by ACPI, in memory that is not its own, and says it. With
 * changes=N it then waits for so many events that tell of a new one, and says each. */
#include "guest.h"

enum { SCI_VECTOR = 0x49, GENERATION = 1 << 0, ID_SIZE = 16, RAM = 1 };

static volatile unsigned events;
static uint16_t block; /* status, then enables, a byte each */

static void handle_sci(struct frame *frame)
{
    if (in8(block) & GENERATION) {
        out8(block, GENERATION);
        events++;
    }
    apic_eoi();
}

/* Name (ADDR, Package () {low, high}): 'ADDR' 12 length 02 0C low high. */
static uint64_t find_id(const uint8_t *dsdt)
{
    for (uint32_t at = 36; at + 16 < get32(dsdt + 4); at++)
        if (get32(dsdt + at) == 0x52444441) { /* "ADDR" */
            const uint8_t *package = dsdt + at + 4;
            check(package[0] == 0x12 && package[2] == 2 && package[3] == 0x0c,
                  "ADDR is no address");
            check(package[8] == 0, "ADDR lies high");
            return get32(package + 4);
        }
    fail("no ADDR in the DSDT");
}

static void check_place(uint64_t id)
{
    struct map_entry entry;
    check(id % 8 == 0, "the id lies at %lx", id);
    for (unsigned at = 0; memory_map(&at, &entry);)
        check(entry.type != RAM || id + ID_SIZE <= entry.base || id >= entry.base + entry.size,
              "the id lies in RAM that is ours, at %lx", id);
}

static void say(uint64_t id)
{
    const uint8_t *bytes = (const uint8_t *)id;
    print("generation %lx %lx\n", get64(bytes), get64(bytes + 8));
}

void guest_main(void)
{
    const uint8_t *fadt = acpi_table("FACP");
    check(fadt, "no FADT");
    uint64_t id = find_id((const uint8_t *)(uint64_t)get32(fadt + FADT_DSDT));
    check_place(id);
    block = (uint16_t)get32(fadt + FADT_GPE0);
    check(block && fadt[FADT_GPE0_LENGTH] == 2, "no events");

    uint16_t flags;
    uint32_t pin = acpi_isa_pin(fadt[FADT_SCI], &flags);
    apic_enable(false);
    on_interrupt(SCI_VECTOR, handle_sci);
    out8(block, 0xff);
    out8(block + 1, GENERATION);
    ioapic_route(pin, SCI_VECTOR | IOAPIC_LEVEL);
    say(id);
    uint64_t changes = option("changes", 0);
    for (unsigned i = 0; i < changes; i++) {
        while (events == i)
            wait_for_interrupt();
        say(id);
    }
    check(events == changes, "%u events", events);
}
