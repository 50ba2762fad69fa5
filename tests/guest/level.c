/* SPDX-License-Identifier: MIT */
/* Expects: prints a line for every few level-triggered interrupts, for ever; for save and load. */
#include "guest.h"

enum { VECTOR = 0x40, INTERRUPTS_A_LINE = 8 };

static volatile unsigned interrupts;

/* The PIT's output is high most of the time, so an EOI soon brings the next one. */
static void handle_interrupt(struct frame *frame)
{
    interrupts++;
    apic_eoi();
}

void guest_main(void)
{
    uint16_t flags;
    on_interrupt(VECTOR, handle_interrupt);
    apic_enable(false);
    pit_start(1193, true);
    ioapic_route(acpi_isa_pin(0, &flags), VECTOR | IOAPIC_LEVEL);
    interrupts_on();
    for (unsigned line = 1;; line++) {
        while (interrupts < line * INTERRUPTS_A_LINE)
            __asm__ volatile("pause" : : : "memory");
        print("%u\n", line);
    }
}
