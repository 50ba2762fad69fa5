/* SPDX-License-Identifier: MIT */
/* The requests of /dev/kvm that only x86 has. Same manners as vmm/kvm.h. */
#pragma once

#include "vmm/kvm.h"

enum { KVM_X86_MAX_CPUID = 256, KVM_X86_MAX_MSRS = 512 };

/*
 * KVM's lists end in an array without a length, which cannot be embedded. These have the same
 * layout with room for all that KVM may say (static_asserts in kvm_x86.c hold them to it).
 */
struct kvm_x86_cpuid {
    uint32_t count;
    uint32_t reserved;
    struct kvm_cpuid_entry2 entries[KVM_X86_MAX_CPUID];
};

struct kvm_x86_msr_index {
    uint32_t count;
    uint32_t indices[KVM_X86_MAX_MSRS];
};

struct kvm_x86_msrs {
    uint32_t count;
    uint32_t reserved;
    struct kvm_msr_entry entries[KVM_X86_MAX_MSRS];
};

/* The system. */
int kvm_x86_supported_cpuid(const struct kvm *kvm, struct kvm_x86_cpuid *ret_cpuid) must_check;
int kvm_x86_msr_index(const struct kvm *kvm, struct kvm_x86_msr_index *ret_index) must_check;

/* A VM. */
int kvm_x86_set_special_pages(int vm, gpa_t identity_map, gpa_t tss) must_check;
int kvm_x86_get_clock(int vm, struct kvm_clock_data *ret_clock) must_check;
int kvm_x86_set_clock(int vm, const struct kvm_clock_data *clock) must_check;

/* A vCPU. get_msrs and set_msrs do as many as they can and return how many. */
int kvm_x86_get_cpuid(int vcpu, struct kvm_x86_cpuid *ret_cpuid) must_check;
int kvm_x86_set_cpuid(int vcpu, const struct kvm_x86_cpuid *cpuid) must_check;
/* The place in guest memory; -EFAULT: none is mapped there. */
int kvm_x86_translate(int vcpu, uint64_t linear, uint64_t *ret_physical) must_check;
int kvm_x86_get_sregs(int vcpu, struct kvm_sregs *ret_sregs) must_check;
int kvm_x86_set_sregs(int vcpu, const struct kvm_sregs *sregs) must_check;
int kvm_x86_get_sregs2(int vcpu, struct kvm_sregs2 *ret_sregs) must_check;
int kvm_x86_set_sregs2(int vcpu, const struct kvm_sregs2 *sregs) must_check;
int kvm_x86_get_xsave(int vcpu, void *ret_xsave) must_check;  /* 4 KiB */
int kvm_x86_get_xsave2(int vcpu, void *ret_xsave) must_check; /* as KVM_CAP_XSAVE2 says */
int kvm_x86_set_xsave(int vcpu, const void *xsave) must_check;
int kvm_x86_get_xcrs(int vcpu, struct kvm_xcrs *ret_xcrs) must_check;
int kvm_x86_set_xcrs(int vcpu, const struct kvm_xcrs *xcrs) must_check;
int kvm_x86_get_msrs(int vcpu, struct kvm_x86_msrs *msrs) must_check;
int kvm_x86_set_msrs(int vcpu, const struct kvm_x86_msrs *msrs) must_check;
int kvm_x86_get_lapic(int vcpu, struct kvm_lapic_state *ret_lapic) must_check;
int kvm_x86_set_lapic(int vcpu, const struct kvm_lapic_state *lapic) must_check;
int kvm_x86_get_debugregs(int vcpu, struct kvm_debugregs *ret_debugregs) must_check;
int kvm_x86_set_debugregs(int vcpu, const struct kvm_debugregs *debugregs) must_check;
int kvm_x86_get_tsc_khz(int vcpu, uint32_t *ret_khz) must_check;
int kvm_x86_get_tsc_offset(int vcpu, uint64_t *ret_offset) must_check;
int kvm_x86_set_tsc_offset(int vcpu, uint64_t offset) must_check;
/* Tells the guest's watchdogs of a pause; a guest without a paravirtual clock has no such wish. */
void kvm_x86_clock_was_paused(int vcpu);
