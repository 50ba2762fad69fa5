/* SPDX-License-Identifier: MIT */
/* Expects: resets by keyboard controller, port 0x92 and ACPI register, each time finds a fresh
 * machine, then prints "came back 3 times" and exits 0. only=N: way N alone (for --no-reboot). */
#include "guest.h"

/* The battery keeps this byte of CMOS RAM over a reset. It counts, under a mark. */
enum { CMOS_COUNT = 0x50, MARK = 0xa0, WAYS = 3 };
enum { PIN = 5 };

static uint32_t zeroed, filled = 0x12345678; /* the kernel file is loaded again, its bss cleared */

static uint8_t read_cmos(uint8_t at)
{
    out8(0x70, at);
    return in8(0x71);
}

static void write_cmos(uint8_t at, uint8_t value)
{
    out8(0x70, at);
    out8(0x71, value);
}

/* Does what the next start must not find. */
static void soil(void)
{
    zeroed = 1;
    filled = 0;
    apic_enable(false);
    apic_write(APIC_LVT_TIMER, 0x60);
    apic_write(APIC_TIMER_INITIAL, 1000000000);
    ioapic_route(PIN, 0x61);
    pic_init(0x20, 0xffff);
    pit_start(1193, true);
    wrmsr(0xc0000082, 0x123456789abc); /* LSTAR */
}

static void check_fresh(void)
{
    check(zeroed == 0 && filled == 0x12345678, "the kernel was not loaded again");
    check(!(rdmsr(0x1b) & 1 << 10) && rdmsr(0x1b) & 1 << 11, "IA32_APIC_BASE is %lx", rdmsr(0x1b));
    check(apic_read(APIC_LVT_TIMER) == APIC_MASKED, "the APIC timer is %x",
          apic_read(APIC_LVT_TIMER));
    check(apic_read(APIC_TIMER_CURRENT) == 0, "the APIC timer runs");
    check(ioapic_read(0x10 + 2 * PIN) == IOAPIC_MASKED, "I/O APIC pin %u is %x", PIN,
          ioapic_read(0x10 + 2 * PIN));
    check(rdmsr(0xc0000082) == 0, "LSTAR is %lx", rdmsr(0xc0000082));
}

static void spin_in_ring3(void)
{
    for (;;)
        __asm__ volatile("pause");
}

/* The other processors are in the middle of something when the reset hits them. */
static void other_main(unsigned number)
{
    static uint8_t stack[256];
    enter_ring3(spin_in_ring3, stack + sizeof(stack));
}

static _Noreturn void reset(unsigned way)
{
    const uint8_t *fadt = acpi_table("FACP");
    check(fadt, "no FADT");
    print("reset %u\n", way);
    switch (way) {
    case 0:
        out8(0x64, 0xfe);
        break;
    case 1:
        out8(0x92, 0x03);
        break;
    default:
        check(get32(fadt + FADT_FLAGS) & 1 << 10, "the FADT has no reset register");
        out8((uint16_t)get64(fadt + FADT_RESET_ADDRESS), fadt[FADT_RESET_VALUE]);
    }
    fail("still here after reset %u", way);
}

void guest_main(void)
{
    uint32_t ids[8];
    uint8_t count = read_cmos(CMOS_COUNT);
    count = (count & 0xf0) == MARK ? count & 0xf : 0;
    check_fresh();
    if (count == WAYS) {
        print("came back %u times\n", count);
        return;
    }
    write_cmos(CMOS_COUNT, MARK | (count + 1));
    soil();
    check(cpu_start_others(ids, acpi_cpus(ids, array_size(ids)), other_main),
          "a processor did not start");
    reset((unsigned)option("only", count));
}
