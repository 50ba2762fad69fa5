/* SPDX-License-Identifier: MIT */
/* Expects: prints "ready", gets the power button (SIGTERM to minivmm) as a level-triggered SCI, and
 * again because it acknowledged nothing at first; once acknowledged it is silent; switches off. */
#include "guest.h"

enum { SCI_VECTOR = 0x49 };

static volatile unsigned interrupts, strays;
static uint16_t event_port;

/*
 * Where KVM runs without hardware virtualization its APICs end an interrupt as it is delivered (the
 * in-service register stays empty), so the line is looked at while this handler has not
 * acknowledged yet, and one more interrupt comes that finds nothing. More than one is wrong.
 */
static void handle_sci(struct frame *frame)
{
    if (!(in16(event_port) & ACPI_POWER_BUTTON))
        check(++strays == 1, "SCIs that have no cause");
    else if (++interrupts > 1)
        out16(event_port, ACPI_POWER_BUTTON);
    /* With the line still up this EOI brings the interrupt again. */
    apic_eoi();
}

void guest_main(void)
{
    const uint8_t *fadt = acpi_table("FACP");
    check(fadt, "no FADT");
    uint16_t flags;
    uint32_t pin = acpi_isa_pin(fadt[FADT_SCI], &flags);
    check((flags & 3) != 3, "the SCI is active low: %x", flags);
    check((flags & 0xc) == 0xc, "the SCI is not level-triggered: %x", flags);

    event_port = (uint16_t)get32(fadt + FADT_PM1A_EVENT);
    apic_enable(false);
    on_interrupt(SCI_VECTOR, handle_sci);
    out16(event_port, 0xffff);
    out16(event_port + 2, ACPI_POWER_BUTTON);
    ioapic_route(pin, SCI_VECTOR | IOAPIC_LEVEL);
    print("ready\n");
    while (interrupts == 0)
        wait_for_interrupt();
    check(wait_for(&interrupts, 2, 10000), "the line is up, but no second SCI came");
    check(!wait_for(&interrupts, 3, 50), "the power button is still down");
    print("power button\n");
    acpi_power_off();
}
