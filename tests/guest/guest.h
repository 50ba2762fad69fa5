/* SPDX-License-Identifier: MIT */
/*
 * The kit that every test guest stands on. A guest is one file with a guest_main(), which runs on
 * the boot processor in ring 0, 64-bit mode, interrupts off, each address mapped to itself.
 *
 * Made for hosts whose KVM interprets the kernel mode of guests (2 million instructions a second,
 * no SSE): general registers only, no loops where the assembler can do the work. What needs speed
 * or vector registers runs in ring 3.
 */
#pragma once

/* Shared with start.S. */
#define KERNEL_CODE32 0x08
#define KERNEL_CODE   0x10
#define KERNEL_DATA   0x18
#define USER_DATA     0x20
#define USER_CODE     0x28
#define FIRST_TSS     0x30
#define MAX_CPUS      320
#define STACK_SIZE    4096
#define MAPPED_GIB    8
#define AP_START      0x10000
#define RFLAGS_RING3  0x3202 /* interrupts on, IOPL 3 */

#ifndef __ASSEMBLER__
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define array_size(a) (sizeof(a) / sizeof((a)[0]))

void guest_main(void); /* each guest's own; when it returns, the guest exits with 0 */

/* --- ports, registers --------------------------------------------------------------------- */

#define PORT_FUNCTIONS(bits, suffix)                                                    \
    static inline void out##bits(uint16_t port, uint##bits##_t value)                   \
    {                                                                                   \
        __asm__ volatile("out" suffix " %0, %1" : : "a"(value), "Nd"(port) : "memory"); \
    }                                                                                   \
    static inline uint##bits##_t in##bits(uint16_t port)                                \
    {                                                                                   \
        uint##bits##_t value;                                                           \
        __asm__ volatile("in" suffix " %1, %0" : "=a"(value) : "Nd"(port) : "memory");  \
        return value;                                                                   \
    }
PORT_FUNCTIONS(8, "b")
PORT_FUNCTIONS(16, "w")
PORT_FUNCTIONS(32, "l")

static inline uint64_t rdtsc(void)
{
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
    return (uint64_t)high << 32 | low;
}

static inline uint64_t rdmsr(uint32_t msr)
{
    uint32_t low, high;
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr) : "memory");
    return (uint64_t)high << 32 | low;
}

static inline void wrmsr(uint32_t msr, uint64_t value)
{
    __asm__ volatile("wrmsr"
                     :
                     : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32))
                     : "memory");
}

struct cpuid {
    uint32_t a, b, c, d;
};

static inline struct cpuid cpuid(uint32_t leaf)
{
    struct cpuid r;
    __asm__ volatile("cpuid" : "=a"(r.a), "=b"(r.b), "=c"(r.c), "=d"(r.d) : "a"(leaf), "c"(0));
    return r;
}

static inline void interrupts_on(void)
{
    __asm__ volatile("sti" : : : "memory");
}

static inline void interrupts_off(void)
{
    __asm__ volatile("cli" : : : "memory");
}

/* Sleeps until an interrupt, which is taken: nothing can come between sti and hlt. */
static inline void wait_for_interrupt(void)
{
    __asm__ volatile("sti; hlt; cli" : : : "memory");
}

/* --- talking to the tester ---------------------------------------------------------------- */

enum { SERIAL = 0x3f8 };

/* %s, %c, and numbers: %u %x with an optional l, all unsigned. Callable from ring 3 too. */
void print(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The exit code of minivmm --exit-port. */
_Noreturn void quit(uint8_t code);

/* Says why, and quits with 1. */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

#define check(condition, ...)  \
    do {                       \
        if (!(condition))      \
            fail(__VA_ARGS__); \
    } while (0)

/* --- what the boot loader said ------------------------------------------------------------ */

bool booted_by_pvh(void);
const char *command_line(void);
bool has_option(const char *name);                     /* a word of its own, or name=... */
uint64_t option(const char *name, uint64_t otherwise); /* name=NUMBER, decimal */

struct map_entry {
    uint64_t base, size;
    uint32_t type; /* 1: RAM */
};

/* The next entry of the memory map, from *at on (0 to begin); false at its end. */
bool memory_map(unsigned *at, struct map_entry *ret_entry);

/* --- ACPI --------------------------------------------------------------------------------- */

const uint8_t *acpi_table(const char *signature); /* checksum verified, or NULL */
unsigned acpi_cpus(uint32_t *ret_apic_ids, unsigned room);
uint32_t acpi_ioapic(void);
/* Where an ISA interrupt arrives, with the flags of the override, 0 where there is none. */
uint32_t acpi_isa_pin(uint8_t irq, uint16_t *ret_flags);

uint16_t get16(const void *at);
uint32_t get32(const void *at);
uint64_t get64(const void *at);

/* The fields of the FADT that guests use. */
enum {
    FADT_DSDT = 40,
    FADT_SCI = 46,
    FADT_PM1A_EVENT = 56,
    FADT_PM1A_CONTROL = 64,
    FADT_PM_TIMER = 76,
    FADT_GPE0 = 80,
    FADT_GPE0_LENGTH = 92,
    FADT_FLAGS = 112,
    FADT_RESET_ADDRESS = 120,
    FADT_RESET_VALUE = 128,
};

/* SLP_TYPa of \_S5, out of the DSDT's bytes. */
uint8_t acpi_s5(void);
_Noreturn void acpi_power_off(void);

enum { ACPI_POWER_BUTTON = 1 << 8 }; /* in the PM1 event and enable registers */

/* In ring 0. The power button's SCI comes as `vector`, and sets *ret_pressed. */
void acpi_use_power_button(uint8_t vector, volatile bool *ret_pressed);

/* --- interrupts --------------------------------------------------------------------------- */

/* What an interrupt handler gets; changes take effect when it returns. */
struct frame {
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
    uint64_t vector, error;
    uint64_t rip, cs, rflags, rsp, ss;
};

typedef void (*interrupt_handler)(struct frame *frame);

/* Any vector, exceptions too; one that nobody handles fails the guest. For all processors. */
void on_interrupt(uint8_t vector, interrupt_handler handle);

/* The local APIC of the processor that asks, as memory or, after apic_use_x2apic(), as MSRs. */
enum {
    APIC_ID = 0x20,
    APIC_VERSION = 0x30,
    APIC_TPR = 0x80,
    APIC_EOI = 0xb0,
    APIC_SPURIOUS = 0xf0,
    APIC_ICR = 0x300,
    APIC_LVT_TIMER = 0x320,
    APIC_LVT_LINT0 = 0x350,
    APIC_TIMER_INITIAL = 0x380,
    APIC_TIMER_CURRENT = 0x390,
    APIC_TIMER_DIVIDE = 0x3e0,
    APIC_MASKED = 1 << 16,
    APIC_EXTINT = 7 << 8,
};

void apic_enable(bool x2apic); /* this processor's; spurious vector 255 */
uint32_t apic_read(unsigned reg);
void apic_write(unsigned reg, uint32_t value);
void apic_send(uint32_t apic_id, uint32_t command); /* an inter-processor interrupt */
uint32_t apic_id(void);
static inline void apic_eoi(void)
{
    apic_write(APIC_EOI, 0);
}

enum {
    IOAPIC_LEVEL = 1 << 15,
    IOAPIC_ACTIVE_LOW = 1 << 13,
    IOAPIC_MASKED = 1 << 16,
};

uint32_t ioapic_read(unsigned reg);
void ioapic_write(unsigned reg, uint32_t value);
/* Sends a pin to this processor. flags: vector and the bits above. */
void ioapic_route(unsigned pin, uint32_t flags);

/* The two 8259: vectors from base on, everything masked but the IRQs of the mask. */
void pic_init(uint8_t base, uint16_t wanted);
void pic_eoi(unsigned irq);

/* The PIT's counter 0, once, after ticks of 1193182 Hz; mode 0 or, when it repeats, 2. */
void pit_start(uint16_t ticks, bool repeat);

/* --- processors --------------------------------------------------------------------------- */

unsigned cpu_number(void); /* 0 is the boot processor */
/* Starts the processors of these APIC ids; each runs main() in ring 0. False: one did not come. */
bool cpu_start_others(const uint32_t *apic_ids, unsigned count, void (*main)(unsigned number));
_Noreturn void cpu_halt(void);
_Noreturn void enter_ring3(void (*code)(void), void *stack_top);

/* --- time --------------------------------------------------------------------------------- */

uint64_t tsc_khz(void); /* CPUID 0x40000010; fails the guest where it is not told */

/* Waits, interrupts on, until *counter is at least value. False after so long. */
bool wait_for(const volatile unsigned *counter, unsigned value, unsigned ms);

#endif
