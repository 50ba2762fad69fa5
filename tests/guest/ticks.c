/* SPDX-License-Identifier: MIT */
/* Expects: PIT (through the PIC) and local APIC timer, each set anew by its handler while the
 * processor is in ring 3, and an RTC tick through the I/O APIC; prints "ticks PIT APIC RTC" each
 * time when all three have come again, until lines=N, then exits 0. One lost interrupt ends the
 * lines. */
#include "guest.h"

enum {
    RING3_STACK = 16384,
    PIC_BASE = 0x20,
    APIC_VECTOR = 0x51,
    RTC_VECTOR = 0x58,
    DIVIDE_BY_1 = 0xb
};
enum { PIT_HZ = 1193182 };

static uint64_t lines;
static uint8_t user_stack[RING3_STACK] __attribute__((aligned(16)));
static volatile unsigned pit_ticks, apic_ticks, rtc_ticks;
static uint32_t apic_khz;

static void handle_pit(struct frame *frame)
{
    pit_ticks++;
    pic_eoi(0);
    pit_start(PIT_HZ / 1000, false);
}

static void handle_apic(struct frame *frame)
{
    apic_ticks++;
    apic_eoi();
    apic_write(APIC_TIMER_INITIAL, apic_khz);
}

static void read_rtc_cause(void)
{
    out8(0x70, 0x0c);
    (void)in8(0x71);
}

/* Until register C is read the RTC keeps its line up and sends no other edge. */
static void handle_rtc(struct frame *frame)
{
    rtc_ticks++;
    read_rtc_cause();
    apic_eoi();
}

static void ring3_main(void)
{
    unsigned pit = 0, apic = 0, rtc = 0;
    for (uint64_t line = 0; lines == 0 || line < lines; line++) {
        while (pit_ticks == pit || apic_ticks == apic || rtc_ticks == rtc)
            __asm__ volatile("pause");
        pit = pit_ticks;
        apic = apic_ticks;
        rtc = rtc_ticks;
        print("ticks %u %u %u\n", pit, apic, rtc);
    }
    quit(0);
}

void guest_main(void)
{
    lines = option("lines", 0);
    apic_enable(false);
    apic_khz = cpuid(0x40000010).b;
    on_interrupt(PIC_BASE, handle_pit);
    on_interrupt(APIC_VECTOR, handle_apic);
    on_interrupt(RTC_VECTOR, handle_rtc);

    apic_write(APIC_LVT_LINT0, APIC_EXTINT);
    pic_init(PIC_BASE, 1 << 0);
    pit_start(PIT_HZ / 1000, false);

    uint16_t flags;
    ioapic_route(acpi_isa_pin(8, &flags), RTC_VECTOR);
    out8(0x70, 0x0a);
    out8(0x71, 0x26); /* 1024 Hz */
    out8(0x70, 0x0b);
    out8(0x71, 0x42); /* periodic interrupt, 24 hours */
    read_rtc_cause();

    apic_write(APIC_TIMER_DIVIDE, DIVIDE_BY_1);
    apic_write(APIC_LVT_TIMER, APIC_VECTOR);
    apic_write(APIC_TIMER_INITIAL, apic_khz);
    enter_ring3(ring3_main, user_stack + RING3_STACK);
}
