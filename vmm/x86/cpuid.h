/* SPDX-License-Identifier: MIT */
/*
 * What the guest sees of the CPU: the host's model as KVM offers it, minus what cannot work or
 * cannot travel, cut down to a level if one is asked for (vmm/x86/cpu_model.h), with topology
 * leaves that are right for our vCPU count.
 */
#pragma once

#include "vmm/cpu_model.h"
#include "vmm/x86/kvm_x86.h"

struct cpuid_config {
    unsigned cpus;    /* one socket of so many cores, one thread each; APIC id = vCPU number */
    uint32_t tsc_khz; /* 0: unknown */
    bool tsc_deadline;
    bool extended_destination; /* the I/O APIC reaches APIC ids above 255 */
    enum cpu_model model;
    unsigned address_bits; /* of physical addresses, for a model that is not the host's */
};

/* The model for vCPU 0. A host that cannot give it is told of by cpu_model_apply(). */
int cpuid_build(const struct kvm *kvm, const struct cpuid_config *config,
                struct kvm_x86_cpuid *ret_cpuid, struct err *err) must_check;

/* Writes vCPU id's own numbers (its APIC id) into a model. */
void cpuid_set_vcpu(struct kvm_x86_cpuid *cpuid, unsigned id);

/* NULL: there is no such leaf. */
struct kvm_cpuid_entry2 *cpuid_find(const struct kvm_x86_cpuid *cpuid, uint32_t function,
                                    uint32_t index);
bool cpuid_is_amd(const struct kvm_x86_cpuid *cpuid); /* or Hygon */
