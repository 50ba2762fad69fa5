/* SPDX-License-Identifier: MIT */
/*
 * /dev/kvm: one wrapper for each request, and what this host's KVM can do.
 *
 * Wrappers return 0 or -errno, and what they create in out-parameters. What x86 alone has is in
 * vmm/x86/kvm_x86.h. Nothing here looks at CPUID: a KVM without hardware virtualization is a KVM.
 */
#pragma once

#include "core/memory.h"
#include <linux/kvm.h>

/* The system: /dev/kvm itself. */
struct kvm {
    int fd;
    size_t run_size; /* of the shared page(s) of a vCPU */
};

/* What minivmm needs of KVM, what it uses where it is there, and why. */
enum kvm_need { KVM_REQUIRED = 1, KVM_USED };

struct kvm_capability {
    int number;
    const char *name;
    enum kvm_need need;
    const char *purpose;
};

/* The table, for kvm_open and for `minivmm check`. */
size_t kvm_capabilities(const struct kvm_capability **ret_table);

enum kvm_host_kind { KVM_HOST_UNKNOWN, KVM_HOST_INTEL, KVM_HOST_AMD, KVM_HOST_PVM };

/*
 * Which module serves /dev/kvm, from /sys/module. Only for words to a person: nothing in minivmm
 * works differently because of it.
 */
enum kvm_host_kind kvm_host_kind(void);

/* Opens /dev/kvm; refuses an old API and a missing required capability, each with its mend. */
int kvm_open(struct kvm *kvm, struct err *err) must_check;
/* The same without the look at capabilities: for `minivmm check`, which shows them all. */
int kvm_open_any(struct kvm *kvm, struct err *err) must_check;
void kvm_close(struct kvm *kvm);

/* 0: not there. Some answer with a number that means something. */
int kvm_check(const struct kvm *kvm, int capability);

int kvm_create_vm(const struct kvm *kvm, int *ret_vm) must_check;

/* Requests on a VM. */
int kvm_vm_enable_cap(int vm, uint32_t capability, uint64_t arg0) must_check;
int kvm_vm_set_memory(int vm, uint32_t slot, uint32_t flags,
                      const struct memory_range *range) must_check;
int kvm_vm_get_dirty_log(int vm, uint32_t slot, uint64_t *ret_bitmap) must_check;
/* first_page and page_count are multiples of 64, or reach the end of the slot. */
int kvm_vm_clear_dirty_log(int vm, uint32_t slot, uint64_t first_page, uint32_t page_count,
                           const uint64_t *bitmap) must_check;
int kvm_vm_set_routing(int vm, const struct kvm_irq_routing *routing) must_check;
int kvm_vm_signal_msi(int vm, uint64_t address, uint32_t data) must_check;
/* The GSI's message is sent whenever somebody writes to the eventfd. */
int kvm_vm_irqfd(int vm, int fd, uint32_t gsi, bool assign) must_check;
/* Guest writes to the address are writes to the eventfd. */
int kvm_vm_ioeventfd(int vm, uint64_t address, int fd, bool assign) must_check;
int kvm_vm_create_vcpu(int vm, unsigned id, int *ret_vcpu) must_check;

/* Requests on a vCPU. */
int kvm_vcpu_run(int vcpu) must_check; /* -EINTR: kicked */
int kvm_vcpu_get_mp_state(int vcpu, struct kvm_mp_state *ret_state) must_check;
int kvm_vcpu_set_mp_state(int vcpu, const struct kvm_mp_state *state) must_check;
int kvm_vcpu_get_regs(int vcpu, struct kvm_regs *ret_regs) must_check;
int kvm_vcpu_set_regs(int vcpu, const struct kvm_regs *regs) must_check;
int kvm_vcpu_get_events(int vcpu, struct kvm_vcpu_events *ret_events) must_check;
int kvm_vcpu_set_events(int vcpu, const struct kvm_vcpu_events *events) must_check;
