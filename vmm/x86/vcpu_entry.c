/* SPDX-License-Identifier: MIT */
/* The boot protocols' entry states (firmware/x86/boot.h), as KVM registers. */
#include "vmm/x86/kvm_x86.h"
#include "vmm/x86/vcpu_x86.h"

#include <string.h>

#define CR0_PE   (1ull << 0)
#define CR0_ET   (1ull << 4)
#define CR0_NE   (1ull << 5)
#define CR0_PG   (1ull << 31)
#define CR4_PAE  (1ull << 5)
#define EFER_LME (1ull << 8)
#define EFER_LMA (1ull << 10)

enum { TYPE_DATA_WRITE_ACCESSED = 3, TYPE_CODE_READ_ACCESSED = 11, TYPE_TSS_32_BUSY = 11 };

static struct kvm_segment flat(uint16_t selector, uint8_t type, enum cpu_mode mode)
{
    bool code = type == TYPE_CODE_READ_ACCESSED;
    bool is_long = code && mode == CPU_LONG;
    return (struct kvm_segment){.selector = selector,
                                .limit = 0xffffffff,
                                .type = type,
                                .present = 1,
                                .s = 1,
                                .g = 1,
                                .l = is_long,
                                .db = !is_long};
}

static void set_flat_segments(struct kvm_sregs *sregs, const struct cpu_entry *entry)
{
    sregs->cs = flat(CPU_ENTRY_CODE, TYPE_CODE_READ_ACCESSED, entry->mode);
    struct kvm_segment data = flat(CPU_ENTRY_DATA, TYPE_DATA_WRITE_ACCESSED, entry->mode);
    sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss = data;
    /* PVH asks for a task register that is valid though nothing uses it. */
    sregs->tr = (struct kvm_segment){.limit = 0x67, .type = TYPE_TSS_32_BUSY, .present = 1};
    sregs->gdt = (struct kvm_dtable){.base = entry->gdt, .limit = entry->gdt_limit};
    sregs->cr0 = CR0_PE | CR0_ET | CR0_NE;
    if (entry->mode == CPU_LONG) {
        sregs->cr0 |= CR0_PG;
        sregs->cr3 = entry->page_table;
        sregs->cr4 = CR4_PAE;
        sregs->efer = EFER_LME | EFER_LMA;
    }
}

static void set_real_segments(struct kvm_sregs *sregs, const struct cpu_entry *entry)
{
    sregs->cs.base = entry->segment_base;
    sregs->cs.selector = (uint16_t)(entry->segment_base >> 4);
}

int vcpu_x86_enter(struct vcpu *vcpu, const struct cpu_entry *entry, struct err *err)
{
    struct kvm_sregs sregs;
    int ret = kvm_x86_get_sregs(vcpu->fd, &sregs);
    if (ret == 0) {
        if (entry->mode == CPU_REAL)
            set_real_segments(&sregs, entry);
        else
            set_flat_segments(&sregs, entry);
        ret = kvm_x86_set_sregs(vcpu->fd, &sregs);
    }
    if (ret == 0) {
        struct kvm_regs regs = {
            .rip = entry->ip,
            .rsp = entry->sp,
            .rax = entry->ax,
            .rbx = entry->bx,
            .rcx = entry->cx,
            .rdx = entry->dx,
            .rsi = entry->si,
            .rdi = entry->di,
            .rbp = entry->bp,
            .rflags = 2, /* the bit that is always set; interrupts off */
        };
        ret = kvm_vcpu_set_regs(vcpu->fd, &regs);
    }
    if (ret < 0)
        return err_sys(err, ERR_FAILED, -ret, "cannot set the boot vCPU's registers");
    return 0;
}
