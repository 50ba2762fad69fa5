/* SPDX-License-Identifier: MIT */
/*
 * The x86 half of a vCPU: interrupts from the PIC, and the exits that only x86 has.
 *
 * The local APICs live in KVM, the PIC with us (a split irqchip). The PIC's INT pin goes to the
 * boot vCPU's LINT0: KVM says when it would take such an interrupt (ready_for_interrupt_injection,
 * or an exit of its own when asked for one), then we do the acknowledge cycle and hand over the
 * vector.
 *
 * The vector goes in as an injected interrupt among the vCPU's events, and not by KVM_INTERRUPT:
 * what that request leaves behind in KVM can be neither read, nor moved, nor cleared by a reset.
 * Events are state like any other.
 */
#include "devices/ioapic.h"
#include "devices/pic.h"
#include "vmm/x86/kvm_x86.h"
#include "vmm/x86/vcpu_x86.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

void vcpu_x86_set_extint(struct vcpu *vcpu, bool level)
{
    atomic_store(&vcpu->extint, level);
    if (level)
        vcpu_kick(vcpu);
}

void vcpu_x86_forget_interrupts(struct vcpu *vcpu)
{
    vcpu->in_access = false;
    vcpu->run->ready_for_interrupt_injection = 0;
}

/* KVM has just said that the vCPU is between two instructions and would take it. */
static void inject(struct vcpu *vcpu, uint8_t vector)
{
    struct kvm_vcpu_events events;
    struct kvm_mp_state running = {.mp_state = KVM_MP_STATE_RUNNABLE}; /* out of a HLT */
    int ret = kvm_vcpu_get_events(vcpu->fd, &events);
    if (ret == 0) {
        events.interrupt.injected = 1;
        events.interrupt.nr = vector;
        events.interrupt.soft = 0;
        ret = kvm_vcpu_set_events(vcpu->fd, &events);
    }
    if (ret == 0)
        ret = kvm_vcpu_set_mp_state(vcpu->fd, &running);
    (void)ret; /* requests that worked a moment ago on the same vCPU, with what it said itself */
}

void vcpu_arch_before_run(struct vcpu *vcpu)
{
    struct kvm_run *run = vcpu->run;
    bool wanted = atomic_load(&vcpu->extint);
    /* In the middle of an access the instruction has to end first: the window comes after it. */
    if (wanted && run->ready_for_interrupt_injection && !vcpu->in_access) {
        inject(vcpu, (uint8_t)pic_acknowledge(vcpu->world->pic));
        wanted = atomic_load(&vcpu->extint); /* a second one may wait behind it */
    }
    run->request_interrupt_window = wanted;
}

void vcpu_arch_after_run(struct vcpu *vcpu, bool interrupted)
{
    uint32_t reason = vcpu->run->exit_reason;
    vcpu->in_access = !interrupted && (reason == KVM_EXIT_IO || reason == KVM_EXIT_MMIO);
}

/* --- crashes ------------------------------------------------------------------------------ */

static void describe_instruction(const struct kvm_run *run, char *ret_text, size_t size)
{
    size_t used = 0;
    ret_text[0] = '\0';
    if (run->emulation_failure.ndata < 1 ||
        !(run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES))
        return;
    size_t length = run->emulation_failure.insn_size;
    if (length > sizeof(run->emulation_failure.insn_bytes))
        length = sizeof(run->emulation_failure.insn_bytes);
    used += (size_t)snprintf(ret_text, size, " (instruction bytes");
    for (size_t i = 0; i < length && used < size; i++)
        used += (size_t)snprintf(ret_text + used, size - used, " %02x",
                                 run->emulation_failure.insn_bytes[i]);
    if (used < size)
        snprintf(ret_text + used, size - used, ")");
}

static void describe_internal_error(const struct vcpu *vcpu, struct vcpu_crash *crash)
{
    const struct kvm_run *run = vcpu->run;
    if (run->internal.suberror != KVM_INTERNAL_ERROR_EMULATION) {
        snprintf(crash->reason, sizeof(crash->reason),
                 "vCPU %u: KVM met an internal error, suberror %u", vcpu->id,
                 run->internal.suberror);
        return;
    }
    char bytes[96];
    describe_instruction(run, bytes, sizeof(bytes));
    if (kvm_host_kind() == KVM_HOST_PVM) {
        snprintf(
            crash->reason, sizeof(crash->reason),
            "vCPU %u: this host's KVM has no hardware virtualization and runs guest kernels in "
            "its instruction emulator, which does not know this instruction%s",
            vcpu->id, bytes);
        snprintf(crash->hint, sizeof(crash->hint),
                 "a stock kernel needs a host with hardware virtualization; tests/lab/lab shell "
                 "gives one in software");
    } else {
        snprintf(crash->reason, sizeof(crash->reason),
                 "vCPU %u: KVM cannot emulate an instruction of the guest%s", vcpu->id, bytes);
        snprintf(
            crash->hint, sizeof(crash->hint),
            "the guest runs code where there is no memory, or uses an unusual instruction on a "
            "device's registers");
    }
}

bool vcpu_arch_handle_exit(struct vcpu *vcpu, struct vcpu_crash *ret_crash)
{
    const struct kvm_run *run = vcpu->run;
    switch (run->exit_reason) {
    case KVM_EXIT_IRQ_WINDOW_OPEN:
    case KVM_EXIT_INTR:
    case KVM_EXIT_SET_TPR:
        return true;
    case KVM_EXIT_IOAPIC_EOI:
        ioapic_end_of_interrupt(vcpu->world->ioapic, run->eoi.vector);
        return true;
    case KVM_EXIT_SHUTDOWN:
        snprintf(ret_crash->reason, sizeof(ret_crash->reason),
                 "vCPU %u: triple fault: the guest could not deliver an exception, nor the double "
                 "fault that followed",
                 vcpu->id);
        break;
    case KVM_EXIT_INTERNAL_ERROR:
        describe_internal_error(vcpu, ret_crash);
        break;
    case KVM_EXIT_FAIL_ENTRY:
        snprintf(ret_crash->reason, sizeof(ret_crash->reason),
                 "vCPU %u: the CPU refuses to enter the guest, reason 0x%llx", vcpu->id,
                 (unsigned long long)run->fail_entry.hardware_entry_failure_reason);
        break;
    default:
        snprintf(ret_crash->reason, sizeof(ret_crash->reason),
                 "vCPU %u: KVM left the guest for a reason that minivmm does not know: %u",
                 vcpu->id, run->exit_reason);
        break;
    }
    vcpu_arch_describe(vcpu, ret_crash->registers, sizeof(ret_crash->registers));
    return false;
}

void vcpu_arch_describe_error(struct vcpu *vcpu, int error, struct vcpu_crash *ret_crash)
{
    char words[64];
    snprintf(ret_crash->reason, sizeof(ret_crash->reason), "vCPU %u: KVM_RUN failed: %s", vcpu->id,
             strerror_r(-error, words, sizeof(words)));
    vcpu_arch_describe(vcpu, ret_crash->registers, sizeof(ret_crash->registers));
}

/* --- the register dump -------------------------------------------------------------------- */

enum { STACK_WORDS = 24 };

struct text {
    char *at;
    size_t left;
};

static void add(struct text *text, const char *fmt, ...) printf_like(2, 3);
static void add(struct text *text, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int length = vsnprintf(text->at, text->left, fmt, args);
    va_end(args);
    size_t used = length < 0 ? 0 : (size_t)length;
    if (used >= text->left)
        used = text->left ? text->left - 1 : 0;
    text->at += used;
    text->left -= used;
}

static void add_segment(struct text *text, const char *name, const struct kvm_segment *segment)
{
    add(text, "  %s  %04x base %016llx limit %08x type %x dpl %u%s%s%s%s\n", name,
        segment->selector, segment->base, segment->limit, segment->type, segment->dpl,
        segment->present ? " p" : "", segment->l ? " long" : "", segment->db ? " 32" : "",
        segment->unusable ? " unusable" : "");
}

/* As words of the mode that the CPU is in. */
static void add_stack(struct text *text, const struct vcpu *vcpu, uint64_t sp,
                      const struct kvm_sregs *sregs)
{
    unsigned width = sregs->cs.l ? 8 : sregs->ss.db ? 4 : 2;
    uint64_t physical, word = 0;
    for (unsigned i = 0; i < STACK_WORDS; i++, sp += width) {
        uint64_t linear = sregs->cs.l ? sp : (uint32_t)(sregs->ss.base + sp);
        if (kvm_x86_translate(vcpu->fd, linear, &physical) < 0 ||
            memory_read(vcpu->world->memory, physical, &word, width) < 0)
            break;
        add(text, "%s%0*llx%s", i % 4 == 0 ? (i ? "        " : "  stack ") : " ", (int)width * 2,
            (unsigned long long)word, i % 4 == 3 ? "\n" : "");
    }
}

void vcpu_arch_describe(const struct vcpu *vcpu, char *ret_text, size_t size)
{
    struct text text = {.at = ret_text, .left = size};
    struct kvm_regs r;
    struct kvm_sregs s;
    struct kvm_vcpu_events events;
    ret_text[0] = '\0';
    if (kvm_vcpu_get_regs(vcpu->fd, &r) < 0 || kvm_x86_get_sregs(vcpu->fd, &s) < 0) {
        add(&text, "  (KVM does not give the registers)\n");
        return;
    }
    add(&text, "  rip %016llx  rflags %016llx\n", r.rip, r.rflags);
    add(&text, "  rax %016llx  rbx %016llx  rcx %016llx  rdx %016llx\n", r.rax, r.rbx, r.rcx,
        r.rdx);
    add(&text, "  rsi %016llx  rdi %016llx  rbp %016llx  rsp %016llx\n", r.rsi, r.rdi, r.rbp,
        r.rsp);
    add(&text, "  r8  %016llx  r9  %016llx  r10 %016llx  r11 %016llx\n", r.r8, r.r9, r.r10, r.r11);
    add(&text, "  r12 %016llx  r13 %016llx  r14 %016llx  r15 %016llx\n", r.r12, r.r13, r.r14,
        r.r15);
    add(&text, "  cr0 %016llx  cr2 %016llx  cr3 %016llx  cr4 %016llx\n", s.cr0, s.cr2, s.cr3,
        s.cr4);
    add(&text, "  efer %016llx  apic base %016llx\n", s.efer, s.apic_base);
    const struct {
        const char *name;
        const struct kvm_segment *segment;
    } segments[] = {{"cs", &s.cs}, {"ss", &s.ss}, {"ds", &s.ds}, {"es", &s.es},
                    {"fs", &s.fs}, {"gs", &s.gs}, {"tr", &s.tr}, {"ldt", &s.ldt}};
    for (size_t i = 0; i < array_size(segments); i++)
        add_segment(&text, segments[i].name, segments[i].segment);
    add(&text, "  gdt base %016llx limit %04x  idt base %016llx limit %04x\n", s.gdt.base,
        s.gdt.limit, s.idt.base, s.idt.limit);
    if (kvm_vcpu_get_events(vcpu->fd, &events) == 0 && events.exception.injected)
        add(&text, "  exception %u error code %x\n", events.exception.nr,
            events.exception.error_code);
    add_stack(&text, vcpu, r.rsp, &s);
}
