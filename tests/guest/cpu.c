/* SPDX-License-Identifier: MIT */
/* Processors: descriptors, interrupts, the local APIC (Intel SDM 3A, chapter 11), start-up. */
#include "guest.h"

enum { RING3_PORTS = 0x800 };

struct idt_entry {
    uint16_t offset_low, selector;
    uint8_t stack, type;
    uint16_t offset_middle;
    uint32_t offset_high, reserved;
};

struct __attribute__((packed)) tss {
    uint32_t reserved;
    uint64_t stacks[3];
    uint8_t rest[74];
    uint16_t io_map_offset;
    uint8_t io_map[RING3_PORTS / 8]; /* 0: ring 3 may use the port */
    uint8_t io_map_end[8];           /* one byte of ones ends the map; the rest aligns */
};

struct __attribute__((packed)) table_pointer {
    uint16_t limit;
    uint64_t base;
};

void cpu_init(unsigned number);
_Noreturn void cpu_start_here(unsigned number);
void handle_interrupt(struct frame *frame);

extern uint64_t gdt[];
extern uint8_t interrupt_stubs[], stacks[], ap_trampoline[], ap_trampoline_end[];

static struct idt_entry idt[256];
static struct tss tasks[MAX_CPUS];
static interrupt_handler handlers[256];
static bool use_x2apic;
static void (*others_main)(unsigned number);
static volatile unsigned others_up;

/* --- descriptors -------------------------------------------------------------------------- */

static void fill_idt(void)
{
    enum { PRESENT_INTERRUPT_GATE = 0x8e };
    for (unsigned vector = 0; vector < 256; vector++) {
        uint64_t stub = (uint64_t)interrupt_stubs + 16 * vector;
        idt[vector] = (struct idt_entry){.offset_low = (uint16_t)stub,
                                         .offset_middle = (uint16_t)(stub >> 16),
                                         .offset_high = (uint32_t)(stub >> 32),
                                         .selector = KERNEL_CODE,
                                         .type = PRESENT_INTERRUPT_GATE};
    }
}

/*
 * Interrupts from ring 3 need a stack of ring 0: the one that the processor began with. Ports are
 * open to ring 3 twice over, by IOPL and by the map: KVM without hardware virtualization drops the
 * one, and QEMU's emulation of SVM the other when a state was loaded.
 */
static void load_task(unsigned number)
{
    struct tss *task = &tasks[number];
    uint64_t base = (uint64_t)task, *descriptor = &gdt[FIRST_TSS / 8 + 2 * number];
    task->stacks[0] = (uint64_t)stacks + (number + 1) * STACK_SIZE;
    task->io_map_offset = offsetof(struct tss, io_map);
    task->io_map_end[0] = 0xff;
    descriptor[0] = (sizeof(*task) - 1) | (base & 0xffffff) << 16 | 0x89ull << 40 |
                    (base >> 24 & 0xff) << 56;
    descriptor[1] = base >> 32;
    __asm__ volatile("ltr %w0" : : "r"(FIRST_TSS + 16 * number) : "memory");
}

void cpu_init(unsigned number)
{
    if (number == 0)
        fill_idt();
    struct table_pointer pointer = {sizeof(idt) - 1, (uint64_t)idt};
    __asm__ volatile("lidt %0" : : "m"(pointer) : "memory");
    load_task(number);
}

unsigned cpu_number(void)
{
    uint16_t task;
    __asm__ volatile("str %0" : "=r"(task));
    return (task - FIRST_TSS) / 16u;
}

/* --- interrupts --------------------------------------------------------------------------- */

void on_interrupt(uint8_t vector, interrupt_handler handle)
{
    handlers[vector] = handle;
}

void handle_interrupt(struct frame *frame)
{
    interrupt_handler handle = handlers[frame->vector & 0xff];
    if (!handle) {
        uint64_t address;
        __asm__ volatile("mov %%cr2, %0" : "=r"(address));
        fail("interrupt %lu nobody waits for, error %lx, rip %lx, flags %lx, cr2 %lx",
             frame->vector, frame->error, frame->rip, frame->rflags, address);
    }
    handle(frame);
}

/* --- the local APIC ----------------------------------------------------------------------- */

enum {
    APIC_BASE = 0xfee00000,
    MSR_APIC_BASE = 0x1b,
    MSR_X2APIC = 0x800,
    BASE_X2APIC = 1 << 10,
    BASE_ENABLE = 1 << 11,
    SPURIOUS_VECTOR = 255,
    SPURIOUS_ENABLE = 1 << 8,
};

static void handle_spurious(struct frame *frame)
{
}

void apic_enable(bool x2apic)
{
    use_x2apic = x2apic;
    wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | BASE_ENABLE | (x2apic ? BASE_X2APIC : 0));
    on_interrupt(SPURIOUS_VECTOR, handle_spurious);
    apic_write(APIC_SPURIOUS, SPURIOUS_VECTOR | SPURIOUS_ENABLE);
    apic_write(APIC_TPR, 0);
}

uint32_t apic_read(unsigned reg)
{
    if (use_x2apic)
        return (uint32_t)rdmsr(MSR_X2APIC + reg / 16);
    return *(volatile uint32_t *)(uint64_t)(APIC_BASE + reg);
}

void apic_write(unsigned reg, uint32_t value)
{
    if (use_x2apic)
        wrmsr(MSR_X2APIC + reg / 16, value);
    else
        *(volatile uint32_t *)(uint64_t)(APIC_BASE + reg) = value;
}

uint32_t apic_id(void)
{
    return use_x2apic ? apic_read(APIC_ID) : apic_read(APIC_ID) >> 24;
}

void apic_send(uint32_t to, uint32_t command)
{
    if (use_x2apic) {
        wrmsr(MSR_X2APIC + APIC_ICR / 16, (uint64_t)to << 32 | command);
    } else {
        apic_write(APIC_ICR + 16, to << 24);
        apic_write(APIC_ICR, command);
    }
}

/* --- the other processors ----------------------------------------------------------------- */

enum { ICR_INIT = 5 << 8, ICR_STARTUP = 6 << 8, ICR_ASSERT = 1 << 14 };

void cpu_start_here(unsigned number)
{
    cpu_init(number);
    apic_enable(use_x2apic);
    __atomic_add_fetch(&others_up, 1, __ATOMIC_SEQ_CST);
    others_main(number);
    cpu_halt();
}

static bool start_one(uint32_t id)
{
    unsigned before = others_up;
    apic_send(id, ICR_INIT | ICR_ASSERT);
    apic_send(id, ICR_STARTUP | ICR_ASSERT | AP_START >> 12);
    for (uint64_t end = rdtsc() + tsc_khz() * 10000; rdtsc() < end;)
        if (others_up != before)
            return true;
    return false;
}

bool cpu_start_others(const uint32_t *apic_ids, unsigned count, void (*main)(unsigned number))
{
    __builtin_memcpy((void *)AP_START, ap_trampoline, (size_t)(ap_trampoline_end - ap_trampoline));
    others_main = main;
    for (unsigned i = 0; i < count; i++)
        if (apic_ids[i] != apic_id() && !start_one(apic_ids[i]))
            return false;
    return true;
}

void cpu_halt(void)
{
    for (;;)
        __asm__ volatile("cli; hlt");
}

/* --- time --------------------------------------------------------------------------------- */

uint64_t tsc_khz(void)
{
    static uint64_t khz;
    if (!khz)
        khz = cpuid(0x40000010).a;
    check(khz, "CPUID does not tell the frequency of the TSC");
    return khz;
}

/*
 * Not asleep: the interrupt that we wait for may be the one that never comes. And open all the
 * time: a KVM that interprets ring 0 looks for interrupts only now and then, and must find us
 * listening.
 */
bool wait_for(const volatile unsigned *counter, unsigned value, unsigned ms)
{
    uint64_t end = rdtsc() + tsc_khz() * ms;
    interrupts_on();
    while (*counter < value && rdtsc() < end)
        __asm__ volatile("pause");
    interrupts_off();
    return *counter >= value;
}
