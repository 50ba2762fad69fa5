/* SPDX-License-Identifier: MIT */
/* Expects: prints "hello from the guest", echoes a line by polling and one by interrupt, exits 0.
 */
#include "guest.h"

enum { RX_VECTOR = 0x44, LINE_STATUS = 5, DATA_READY = 1, INTERRUPT_ENABLE = 1, MODEM_CONTROL = 4 };

static volatile unsigned received;
static char line[64];

static void handle_rx(struct frame *frame)
{
    while (in8(SERIAL + LINE_STATUS) & DATA_READY && received < sizeof(line) - 1)
        line[received++] = (char)in8(SERIAL);
    apic_eoi();
}

static void echo_by_polling(void)
{
    char c;
    print("polled: ");
    do {
        while (!(in8(SERIAL + LINE_STATUS) & DATA_READY))
            ;
        c = (char)in8(SERIAL);
        print("%c", c);
    } while (c != '\n');
}

static void echo_by_interrupt(void)
{
    apic_enable(false);
    on_interrupt(RX_VECTOR, handle_rx);
    uint16_t flags;
    ioapic_route(acpi_isa_pin(4, &flags), RX_VECTOR);
    out8(SERIAL + MODEM_CONTROL, 0x0b); /* OUT2: lets the interrupt through */
    out8(SERIAL + INTERRUPT_ENABLE, 1);
    while (received == 0 || line[received - 1] != '\n')
        wait_for_interrupt();
    print("interrupt: %s", line);
}

void guest_main(void)
{
    print("hello from the guest\n");
    echo_by_polling();
    echo_by_interrupt();
}
