/* SPDX-License-Identifier: MIT */
/* Expects: finds as many processors in the MADT as cpus=N says, all start, count, know who they are
 * and answer interrupts; exits 0. With x2apic on the command line their APICs are used as MSRs. */
#include "guest.h"

enum {
    CALL_VECTOR = 0x41,
    TICK_VECTOR = 0x62,
    ANSWER_VECTOR = 0x42,
    ICR_ALL_OTHERS = 3 << 18,
    COUNTS = 1000
};

static uint32_t ids[MAX_CPUS];
static volatile unsigned arrived, called, answered;
static uint32_t boot_id;

static void handle_call(struct frame *frame)
{
    __atomic_add_fetch(&called, 1, __ATOMIC_SEQ_CST);
    apic_send(boot_id, ANSWER_VECTOR);
    apic_eoi();
}

static void handle_answer(struct frame *frame)
{
    answered++;
    apic_eoi();
}

static void check_identity(void)
{
    uint32_t id = apic_id();
    check(cpuid(1).b >> 24 == (id & 0xff), "CPUID 1 says APIC id %u, the APIC %u", cpuid(1).b >> 24,
          id);
    if (cpuid(0).a >= 0xb)
        check(cpuid(0xb).d == id, "CPUID 0xb says APIC id %u, the APIC %u", cpuid(0xb).d, id);
}

static void other_main(unsigned number)
{
    check_identity();
    for (unsigned i = 0; i < COUNTS; i++)
        __atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST);
    for (;;)
        wait_for_interrupt();
}

/* One after another: two answers of one vector at a time would count as one. */
static void call_each(unsigned count)
{
    for (unsigned i = 1; i < count; i++) {
        apic_send(ids[i], CALL_VECTOR);
        check(wait_for(&answered, i, 10000), "APIC %u does not answer", ids[i]);
    }
}

static volatile unsigned ticks, ticks_elsewhere;
static uint32_t tick_id;

static void handle_tick(struct frame *frame)
{
    if (apic_id() == tick_id)
        ticks++;
    else
        ticks_elsewhere++;
    apic_eoi();
}

/*
 * The I/O APIC reaches the last processor too, whose id may not fit into its eight bits: the seven
 * more lie below them (KVM_FEATURE_MSI_EXT_DEST_ID).
 */
static void tick_at(uint32_t id)
{
    tick_id = id;
    uint16_t flags;
    uint32_t pin = acpi_isa_pin(0, &flags);
    on_interrupt(TICK_VECTOR, handle_tick);
    ioapic_write(0x11 + 2 * pin, (id & 0xff) << 24 | (id >> 8 & 0x7f) << 17);
    ioapic_write(0x10 + 2 * pin, TICK_VECTOR);
    pit_start(11932, true); /* 100 a second */
    check(wait_for(&ticks, 3, 20000), "no timer interrupt at APIC %u", id);
    check(ticks_elsewhere == 0, "%u timer interrupts elsewhere", ticks_elsewhere);
    ioapic_write(0x10 + 2 * pin, IOAPIC_MASKED);
}

void guest_main(void)
{
    unsigned wanted = (unsigned)option("cpus", 1), count = acpi_cpus(ids, MAX_CPUS);
    check(count == wanted, "the MADT has %u processors, not %u", count, wanted);
    apic_enable(has_option("x2apic"));
    boot_id = apic_id();
    check(boot_id == ids[0], "the boot processor has APIC id %u, the MADT's first %u", boot_id,
          ids[0]);
    check_identity();
    on_interrupt(CALL_VECTOR, handle_call);
    on_interrupt(ANSWER_VECTOR, handle_answer);

    check(cpu_start_others(ids, count, other_main), "a processor did not start");
    check(wait_for(&arrived, (count - 1) * COUNTS, 30000), "only %u counts", arrived);
    call_each(count);
    check(arrived == (count - 1) * COUNTS, "%u counts", arrived);

    called = 0;
    apic_send(0, ICR_ALL_OTHERS | CALL_VECTOR);
    check(wait_for(&called, count - 1, 30000), "%u of %u heard the call to all", called, count - 1);
    tick_at(ids[count - 1]);
    print("%u processors\n", count);
}
