/* SPDX-License-Identifier: MIT */
/*
 * All of a vCPU, and the VM's time: what must travel for the guest to go on elsewhere as if nothing
 * had happened. The order of requests matters and is explained in vcpu_state.c.
 *
 * Any thread, while every vCPU of the VM stands still (a vCPU that runs may send an interrupt into
 * one that is being read).
 */
#pragma once

#include "core/state.h"
#include "vmm/x86/kvm_x86.h"

enum { VCPU_XSAVE_MAX = 16384 };

/*
 * The layouts of kernel structs are KVM's ABI for x86, fixed for ever and little-endian, so they
 * travel as they are; KVM itself checks what is in them.
 */
struct vcpu_state {
    uint64_t tsc_offset; /* only with VCPU_HAS_TSC_OFFSET */
    uint32_t tsc_khz;
    uint32_t flags; /* enum vcpu_state_flags */
    uint32_t mp_state;
    uint32_t cpuid_count; /* entries that are there */
    uint32_t msr_count;
    uint32_t xsave_size; /* bytes */
    struct kvm_regs regs;
    struct kvm_sregs2 sregs;
    struct kvm_vcpu_events events;
    struct kvm_debugregs debugregs;
    struct kvm_xcrs xcrs;
    struct kvm_lapic_state lapic;
    struct kvm_cpuid_entry2 cpuid[KVM_X86_MAX_CPUID];
    struct kvm_msr_entry msrs[KVM_X86_MAX_MSRS];
    uint8_t xsave[VCPU_XSAVE_MAX];
};

enum vcpu_state_flags {
    VCPU_HAS_TSC_OFFSET = 1, /* else the TSC travels as an MSR */
    VCPU_HAS_PDPTRS = 2,
    VCPU_HAS_XCRS = 4,
};

extern const struct state_table vcpu_state_table, cpuid_entry_table;

/* The VM's time. kvmclock and TSC are one moment's readings. */
struct time_state {
    uint64_t kvmclock_ns;
    uint64_t host_tsc;
    uint64_t wall_ns; /* when that was, by the host's wall clock */
};

extern const struct state_table time_state_table;

/* What this KVM can do for state, found once and shared by all vCPUs of the VM. */
struct vcpu_state_caps {
    bool sregs2;
    bool xcrs; /* no XSAVE in the CPU, no XCR0 */
    bool tsc_offset;
    size_t xsave_size;
    struct kvm_x86_msr_index msrs;
};

/*
 * Must come before the first vCPU: exception payloads and triple-fault events are state only where
 * they have been switched on.
 */
int vcpu_state_prepare(const struct kvm *kvm, int vm, struct vcpu_state_caps *ret_caps,
                       struct err *err) must_check;

/*
 * `model`: a state of this vCPU, or NULL. What never changes while it runs, CPUID and the speed of
 * the TSC, is that state's then: each request costs a pause some 5 us.
 */
int vcpu_state_save(int vcpu, struct vcpu_state_caps *caps, const struct vcpu_state *model,
                    struct vcpu_state *ret_state, struct err *err) must_check;

enum vcpu_load {
    VCPU_LOAD_ALL,
    VCPU_LOAD_TRIAL, /* all but where KVM may write guest memory: to see whether KVM takes it */
    VCPU_LOAD_RESET, /* a power-on state, into the machine that it came from: time goes on */
};

/*
 * On an error the vCPU is in no state to run: the caller loads another state or gives the VM up.
 * (machine_load keeps the old states until every vCPU has taken the new one.)
 */
int vcpu_state_load(int vcpu, const struct vcpu_state_caps *caps, const struct vcpu_state *state,
                    enum vcpu_load how, struct err *err) must_check;

/*
 * Whether this vCPU has all of these MSRs, which a state is to bring: before it does. ERR_HOST
 * names the first that it lacks. The numbers may be anybody's.
 */
int vcpu_state_check_msrs(int vcpu, const uint32_t *indices, uint32_t count,
                          struct err *err) must_check;

/* Within 250 ppm, which a guest's clock discipline bears. 0 kHz: not known, which is good enough.
 */
int vcpu_state_check_tsc(uint32_t wanted_khz, uint32_t here_khz, struct err *err) must_check;

int time_state_save(int vm, struct time_state *ret_state, struct err *err) must_check;

/*
 * Sets the VM's clock to where it stood, then corrects each state's tsc_offset for this host, so
 * that guest TSC and kvmclock keep their distance. Before the vCPUs are loaded.
 */
int time_state_load(int vm, const struct time_state *state, struct vcpu_state *vcpus,
                    unsigned count, struct err *err) must_check;
