/* SPDX-License-Identifier: MIT */
/* Expects: a hostile guest lives on: touches every port and a sample of addresses in all widths
 * (nothing there: ones), soils every device but what would end the machine; exits 0. */
#include "guest.h"

enum { DEVICES_END = 0xd00 };

struct span {
    uint16_t first, last;
};

/* Where somebody may answer. */
static const struct span answered[] = {
    {0x20, 0x21}, {0x40, 0x43}, {0x60, 0x61},   {0x64, 0x64},   {0x70, 0x71},   {0x92, 0x92},
    {0xa0, 0xa1}, {0xf4, 0xf4}, {0x3f8, 0x3ff}, {0x4d0, 0x4d1}, {0x600, 0x60f}, {0xcf8, 0xcff},
};
/* Where a write may end the machine, or our voice. */
static const struct span deadly[] = {
    {0x60, 0x60}, {0x64, 0x64}, {0x92, 0x92}, {0xf4, 0xf4}, {0x3f8, 0x3ff}, {0x600, 0x60f},
};

static bool meets(const struct span *spans, unsigned count, uint32_t port, unsigned width)
{
    for (unsigned i = 0; i < count; i++)
        if (port <= spans[i].last && port + width > spans[i].first)
            return true;
    return false;
}
#define MEETS(spans, port, width) meets(spans, array_size(spans), port, width)

static uint32_t in_width(uint16_t port, unsigned width)
{
    return width == 1 ? in8(port) : width == 2 ? in16(port) : in32(port);
}

static void out_width(uint16_t port, unsigned width, uint32_t value)
{
    if (width == 1)
        out8(port, (uint8_t)value);
    else if (width == 2)
        out16(port, (uint16_t)value);
    else
        out32(port, value);
}

static void try_port(uint32_t port, unsigned width)
{
    /* The lists are only looked at where it matters: that takes longer than the access. */
    if (port > DEVICES_END || !MEETS(deadly, port, width))
        out_width((uint16_t)port, width, port * 0x9e3779b1u);
    uint32_t value = in_width((uint16_t)port, width), ones = 0xffffffffu >> (32 - 8 * width);
    check(value == ones || MEETS(answered, port, width), "port %x reads %x in %u bytes", port,
          value, width);
}

/* Where the devices are, each port in each width; above, each port once and a sample in each width.
 */
static void try_all_ports(void)
{
    for (uint32_t port = 0; port < 0x10000; port += port < DEVICES_END ? 1 : 61)
        try_port(port, 1);
    for (uint32_t port = 0; port < 0x10000 - 1; port += port < DEVICES_END ? 1 : 61)
        try_port(port, 2);
    for (uint32_t port = 0; port < 0x10000 - 3; port += port < DEVICES_END ? 1 : 4)
        try_port(port, 4);
}

static void try_strings(void)
{
    static uint32_t buffer[1024];
    void *to = buffer;
    const void *from = buffer;
    uint64_t count = array_size(buffer);
    __asm__ volatile("rep insl" : "+D"(to), "+c"(count) : "d"(0x1234) : "memory");
    for (unsigned i = 0; i < array_size(buffer); i += 101)
        check(buffer[i] == 0xffffffff, "string input gives %x", buffer[i]);
    count = array_size(buffer);
    __asm__ volatile("rep outsl" : "+S"(from), "+c"(count) : "d"(0x1234) : "memory");
}

static void try_empty_address(uint64_t address)
{
    *(volatile uint64_t *)address = address;
    *(volatile uint8_t *)(address + 1) = 0;
    *(volatile uint16_t *)(address + 2) = 0;
    *(volatile uint32_t *)(address + 4) = 0;
    uint64_t value = *(volatile uint64_t *)address;
    check(value == UINT64_MAX, "%lx reads %lx", address, value);
    value = *(volatile uint32_t *)(address + 3); /* across the middle */
    check(value == UINT32_MAX, "%lx reads %lx", address + 3, value);
    value = *(volatile uint64_t *)(address + 4093); /* across a page, odd */
    check(value == UINT64_MAX, "%lx reads %lx", address + 4093, value);
}

static void soil_ioapic(void)
{
    volatile uint32_t *base = (volatile uint32_t *)(uint64_t)acpi_ioapic();
    for (uint32_t i = 0; i < 1024; i++)
        base[i] = i * 0x9e3779b1u;
    for (uint32_t reg = 0; reg < 256; reg++)
        ioapic_write(reg, reg * 0x9e3779b1u);
    for (uint32_t i = 0; i < 4096; i += 61)
        (void)*(volatile uint64_t *)((uint64_t)base + i);
    for (uint32_t pin = 0; pin < 24; pin++)
        ioapic_write(0x10 + 2 * pin, IOAPIC_MASKED);
}

/* Every offset but those that send messages or switch the APIC's registers away. */
static void soil_apic(void)
{
    for (uint64_t at = 0xfee00000; at < 0xfee01000; at += 4) {
        (void)*(volatile uint8_t *)(at + 1);
        (void)*(volatile uint32_t *)at;
        if ((at & 0xff0) != APIC_ICR && (at & 0xff0) != APIC_LVT_TIMER)
            *(volatile uint32_t *)at = (uint32_t)at * 0x9e3779b1u;
    }
}

void guest_main(void)
{
    static const uint64_t empty[] = {0xc8000000, 0xd1234568, 0xf0000000, 0xfec02000,
                                     0xfed00000, 0xff000000, 0x1f0000000};
    try_all_ports();
    print("ports\n");
    try_strings();
    print("strings\n");
    for (unsigned i = 0; i < array_size(empty); i++)
        try_empty_address(empty[i]);
    soil_ioapic();
    soil_apic();
    print("survived\n");
}
