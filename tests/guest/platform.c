/* SPDX-License-Identifier: MIT */
/* The platform: ACPI's tables (ACPI 6.5, chapter 5), 8259 pair, I/O APIC, PIT. */
#include "guest.h"

/* --- ACPI --------------------------------------------------------------------------------- */

static bool sums_to_zero(const uint8_t *from, size_t length)
{
    uint8_t sum = 0;
    while (length--)
        sum = (uint8_t)(sum + *from++);
    return sum == 0;
}

/* Searched as an old system would: in the BIOS area, at multiples of 16. */
static const uint8_t *find_rsdp(void)
{
    for (uint64_t address = 0xe0000; address < 0x100000; address += 16) {
        const uint8_t *at = (const uint8_t *)address;
        if (get64(at) == 0x2052545020445352 && sums_to_zero(at, 20)) /* "RSD PTR " */
            return at;
    }
    fail("no RSDP");
}

const uint8_t *acpi_table(const char *signature)
{
    const uint8_t *rsdp = find_rsdp();
    check(sums_to_zero(rsdp, get32(rsdp + 20)), "the RSDP's second checksum is wrong");
    const uint8_t *xsdt = (const uint8_t *)get64(rsdp + 24);
    check(sums_to_zero(xsdt, get32(xsdt + 4)), "the XSDT's checksum is wrong");
    for (uint32_t at = 36; at + 8 <= get32(xsdt + 4); at += 8) {
        const uint8_t *table = (const uint8_t *)get64(xsdt + at);
        if (get32(table) != get32(signature))
            continue;
        check(sums_to_zero(table, get32(table + 4)), "the checksum of %s is wrong", signature);
        return table;
    }
    return NULL;
}

/* The MADT's entry of a type, from *at on (0 to begin), or NULL. */
static const uint8_t *madt_next(uint8_t type, uint32_t *at)
{
    static const uint8_t *madt;
    if (!madt)
        madt = acpi_table("APIC");
    check(madt, "no MADT");
    if (*at == 0)
        *at = 44;
    while (*at + 2 <= get32(madt + 4)) {
        const uint8_t *entry = madt + *at;
        check(entry[1] >= 2, "a MADT entry of length %u", entry[1]);
        *at += entry[1];
        if (entry[0] == type)
            return entry;
    }
    return NULL;
}

unsigned acpi_cpus(uint32_t *ret_apic_ids, unsigned room)
{
    enum { LOCAL_APIC = 0, LOCAL_X2APIC = 9, ENABLED = 1 };
    unsigned count = 0;
    const uint8_t *entry;
    for (uint32_t at = 0; (entry = madt_next(LOCAL_APIC, &at)) && count < room;)
        if (get32(entry + 4) & ENABLED)
            ret_apic_ids[count++] = entry[3];
    for (uint32_t at = 0; (entry = madt_next(LOCAL_X2APIC, &at)) && count < room;)
        if (get32(entry + 8) & ENABLED)
            ret_apic_ids[count++] = get32(entry + 4);
    return count;
}

uint32_t acpi_ioapic(void)
{
    enum { IO_APIC = 1 };
    uint32_t at = 0;
    const uint8_t *entry = madt_next(IO_APIC, &at);
    check(entry, "no I/O APIC in the MADT");
    return get32(entry + 4);
}

uint32_t acpi_isa_pin(uint8_t irq, uint16_t *ret_flags)
{
    enum { OVERRIDE = 2 };
    const uint8_t *entry;
    *ret_flags = 0;
    for (uint32_t at = 0; (entry = madt_next(OVERRIDE, &at));)
        if (entry[3] == irq) {
            *ret_flags = get16(entry + 8);
            return get32(entry + 4);
        }
    return irq;
}

/* An AML integer: ZeroOp, OneOp, or a byte behind its prefix. */
static uint8_t aml_small(const uint8_t *at)
{
    return *at == 0x0a ? at[1] : *at;
}

/* Name (\_S5, Package () {...}): 08 '_S5_' 12 length count first-element. */
uint8_t acpi_s5(void)
{
    const uint8_t *fadt = acpi_table("FACP");
    check(fadt, "no FADT");
    const uint8_t *dsdt = (const uint8_t *)(uint64_t)get32(fadt + FADT_DSDT);
    for (uint32_t at = 36; at + 12 < get32(dsdt + 4); at++)
        if (get32(dsdt + at) == 0x5f35535f) { /* "_S5_" */
            const uint8_t *package = dsdt + at + 4;
            check(package[0] == 0x12, "\\_S5 is no package");
            /* The length has as many more bytes as its top two bits say. */
            return aml_small(package + 3 + (package[1] >> 6));
        }
    fail("no \\_S5 in the DSDT");
}

void acpi_power_off(void)
{
    const uint8_t *fadt = acpi_table("FACP");
    uint16_t control = (uint16_t)get32(fadt + FADT_PM1A_CONTROL);
    uint16_t type = (uint16_t)(acpi_s5() << 10);
    out16(control, type);
    out16(control, type | 1 << 13);
    fail("still here after power-off");
}

static uint16_t event_port;
static volatile bool *pressed;

static void handle_sci(struct frame *frame)
{
    if (in16(event_port) & ACPI_POWER_BUTTON) {
        out16(event_port, ACPI_POWER_BUTTON);
        *pressed = true;
    }
    apic_eoi();
}

void acpi_use_power_button(uint8_t vector, volatile bool *ret_pressed)
{
    const uint8_t *fadt = acpi_table("FACP");
    uint16_t flags;
    check(fadt, "no FADT");
    event_port = (uint16_t)get32(fadt + FADT_PM1A_EVENT);
    pressed = ret_pressed;
    on_interrupt(vector, handle_sci);
    out16(event_port, 0xffff);
    out16(event_port + 2, ACPI_POWER_BUTTON);
    ioapic_route(acpi_isa_pin(fadt[FADT_SCI], &flags), vector | IOAPIC_LEVEL);
}

/* --- interrupt chips and PIT -------------------------------------------------------------- */

static volatile uint32_t *ioapic_at(unsigned offset)
{
    static uint64_t base;
    if (!base)
        base = acpi_ioapic();
    return (volatile uint32_t *)(base + offset);
}

uint32_t ioapic_read(unsigned reg)
{
    *ioapic_at(0) = reg;
    return *ioapic_at(16);
}

void ioapic_write(unsigned reg, uint32_t value)
{
    *ioapic_at(0) = reg;
    *ioapic_at(16) = value;
}

void ioapic_route(unsigned pin, uint32_t flags)
{
    ioapic_write(0x10 + 2 * pin, IOAPIC_MASKED);
    ioapic_write(0x11 + 2 * pin, apic_id() << 24);
    ioapic_write(0x10 + 2 * pin, flags);
}

enum { PIC1 = 0x20, PIC2 = 0xa0 };

void pic_init(uint8_t base, uint16_t wanted)
{
    out8(PIC1, 0x11); /* edge, cascade, four words */
    out8(PIC2, 0x11);
    out8(PIC1 + 1, base);
    out8(PIC2 + 1, base + 8);
    out8(PIC1 + 1, 4); /* the second one sits at input 2 */
    out8(PIC2 + 1, 2);
    out8(PIC1 + 1, 1);
    out8(PIC2 + 1, 1);
    out8(PIC1 + 1, (uint8_t) ~(wanted | (wanted >> 8 ? 4 : 0)));
    out8(PIC2 + 1, (uint8_t)(~wanted >> 8));
}

void pic_eoi(unsigned irq)
{
    if (irq >= 8)
        out8(PIC2, 0x20);
    out8(PIC1, 0x20);
}

void pit_start(uint16_t ticks, bool repeat)
{
    out8(0x43, repeat ? 0x34 : 0x30); /* counter 0, low byte then high byte */
    out8(0x40, (uint8_t)ticks);
    out8(0x40, (uint8_t)(ticks >> 8));
}
