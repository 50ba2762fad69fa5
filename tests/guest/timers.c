/* SPDX-License-Identifier: MIT */
/* Expects: local APIC timer (once, again and again, by TSC deadline), PIT through PIC and I/O APIC,
 * RTC through the second PIC: none is early, none fails to come; PM timer and TSC agree; exits 0.
 */
#include "guest.h"

enum { PIC_BASE = 0x20, APIC_VECTOR = 0x51, PIT_VECTOR = 0x52, RTC_IRQ = 8 };
enum { LVT_PERIODIC = 1 << 17, LVT_TSC_DEADLINE = 2 << 17, DIVIDE_BY_1 = 0xb };
enum { PIT_HZ = 1193182, PM_HZ = 3579545, MSR_TSC_DEADLINE = 0x6e0 };

/* Late is the host's business; this late is lost. */
enum { PATIENCE_MS = 10000 };

static volatile unsigned fired;

static void handle_apic_vector(struct frame *frame)
{
    fired++;
    apic_eoi();
}

static void handle_pic_timer(struct frame *frame)
{
    fired++;
    pic_eoi(0);
}

static void handle_rtc(struct frame *frame)
{
    out8(0x70, 0x0c); /* reading register C lets the next interrupt come */
    (void)in8(0x71);
    fired++;
    pic_eoi(RTC_IRQ);
}

/*
 * What is on its way from the test before arrives here. It may take a while: a KVM that interprets
 * ring 0 looks for interrupts only now and then.
 */
static void start_anew(void)
{
    (void)wait_for(&fired, UINT32_MAX, 5);
    fired = 0;
}

static uint64_t us_since(uint64_t start)
{
    return (rdtsc() - start) * 1000 / tsc_khz();
}

/* `start` was taken before the timer was set, so what is early by 1 % is wrong. */
static void expect(const char *what, uint64_t start, unsigned count, uint64_t least_us)
{
    check(wait_for(&fired, count, PATIENCE_MS), "%s: %u of %u interrupts came", what, fired, count);
    uint64_t us = us_since(start);
    check(us >= least_us * 99 / 100, "%s: after %lu us, too early by %lu", what, us, least_us - us);
    print("%s: %lu us, expected at least %lu\n", what, us, least_us);
}

/* For an interrupt that was the last one: nothing more may come. */
static void expect_silence(const char *what, unsigned count)
{
    check(!wait_for(&fired, count + 1, 30), "%s: came again", what);
}

static void test_apic_timer(void)
{
    uint32_t khz = cpuid(0x40000010).b;
    check(khz, "CPUID does not tell the frequency of the APIC timer");
    on_interrupt(APIC_VECTOR, handle_apic_vector);
    apic_write(APIC_TIMER_DIVIDE, DIVIDE_BY_1);

    start_anew();
    uint64_t start = rdtsc();
    apic_write(APIC_LVT_TIMER, APIC_VECTOR);
    apic_write(APIC_TIMER_INITIAL, khz * 20);
    expect("APIC timer, once", start, 1, 20000);
    expect_silence("APIC timer, once", 1);

    start_anew();
    start = rdtsc();
    apic_write(APIC_LVT_TIMER, APIC_VECTOR | LVT_PERIODIC);
    apic_write(APIC_TIMER_INITIAL, khz * 5);
    expect("APIC timer, periodic", start, 6, 30000);
    apic_write(APIC_TIMER_INITIAL, 0);
    apic_write(APIC_LVT_TIMER, APIC_MASKED);
}

static void test_tsc_deadline(void)
{
    if (!(cpuid(1).c & 1u << 24)) {
        print("no TSC deadline\n");
        return;
    }
    start_anew();
    apic_write(APIC_LVT_TIMER, APIC_VECTOR | LVT_TSC_DEADLINE);
    uint64_t start = rdtsc();
    wrmsr(MSR_TSC_DEADLINE, start + tsc_khz() * 20);
    expect("TSC deadline", start, 1, 20000);
    expect_silence("TSC deadline", 1);
    apic_write(APIC_LVT_TIMER, APIC_MASKED);
}

/* One shot of 20 ms, then 5 ticks of 10 ms. */
static void test_pit(const char *what)
{
    start_anew();
    uint64_t start = rdtsc();
    pit_start(PIT_HZ / 50, false);
    expect(what, start, 1, 20000);
    expect_silence(what, 1);

    start_anew();
    start = rdtsc();
    pit_start(PIT_HZ / 100, true);
    expect(what, start, 5, 50000);
    pit_start(0, false);
}

static void test_pic(void)
{
    apic_write(APIC_LVT_LINT0, APIC_EXTINT);
    pic_init(PIC_BASE, 1 << 0);
    on_interrupt(PIC_BASE, handle_pic_timer);
    test_pit("PIT through the PIC");

    pic_init(PIC_BASE, 1 << RTC_IRQ);
    on_interrupt(PIC_BASE + RTC_IRQ, handle_rtc);
    start_anew();
    out8(0x70, 0x0a);
    out8(0x71, 0x2a); /* 64 Hz */
    out8(0x70, 0x0c); /* forgets the periods that passed before */
    (void)in8(0x71);
    uint64_t start = rdtsc();
    out8(0x70, 0x0b);
    out8(0x71, 0x42); /* periodic interrupt, 24 hours */
    expect("RTC through the second PIC", start, 4, 3 * 15625);
    out8(0x70, 0x0b);
    out8(0x71, 0x02);
    pic_init(PIC_BASE, 0);
    apic_write(APIC_LVT_LINT0, APIC_MASKED);
}

static void test_ioapic(void)
{
    uint16_t flags;
    uint32_t pin = acpi_isa_pin(0, &flags);
    on_interrupt(PIT_VECTOR, handle_apic_vector);
    ioapic_route(pin, PIT_VECTOR);
    test_pit("PIT through the I/O APIC");
    ioapic_route(pin, IOAPIC_MASKED);
}

/* Bounds that hold however often the host looks elsewhere: the PM timer's step lies between the
 * inner and the outer distance of the TSC readings around it. */
static void test_pm_timer(void)
{
    const uint8_t *fadt = acpi_table("FACP");
    check(fadt, "no FADT");
    uint16_t port = (uint16_t)get32(fadt + FADT_PM_TIMER);
    uint64_t before_first = rdtsc(), last, ticks = 0;
    uint32_t first = in32(port), at = first;
    uint64_t after_first = last = rdtsc(), before_last = last;

    while (before_last - before_first < tsc_khz() * 100) {
        before_last = rdtsc();
        uint32_t now = in32(port);
        last = rdtsc();
        check(now - at < 1u << 31, "the PM timer ran backwards, from %u to %u", at, now);
        ticks += now - at;
        at = now;
    }
    uint64_t us = ticks * 1000000 / PM_HZ;
    uint64_t inner = (before_last - after_first) * 1000 / tsc_khz();
    uint64_t outer = (last - before_first) * 1000 / tsc_khz();
    check(us + 10 >= inner * 98 / 100 && us <= outer * 102 / 100 + 10,
          "the PM timer says %lu us, the TSC %lu to %lu", us, inner, outer);
    print("PM timer: %lu us, TSC %lu to %lu\n", us, inner, outer);
}

void guest_main(void)
{
    apic_enable(has_option("x2apic"));
    pic_init(PIC_BASE, 0);
    test_apic_timer();
    test_tsc_deadline();
    test_pic();
    test_ioapic();
    test_pm_timer();
}
