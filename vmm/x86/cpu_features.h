/* SPDX-License-Identifier: MIT */
/* What the bits of CPUID's feature leaves are called, and which CPU models have them. */
#pragma once

#include "vmm/cpu_model.h"
#include "vmm/x86/kvm_x86.h"

/* What becomes of a feature in a model, and what it means when another host lacks it. Values up to
 * CPU_X86_64_V4: all models from that one on have it, and a host without it cannot give them. */
enum cpu_feature_kind {
    CPU_FEATURE_HOST_ONLY = CPU_HOST, /* in no model but the host's own */
    CPU_FEATURE_GUARD_INTEL = 16,     /* against attacks: kept where the host has it */
    CPU_FEATURE_GUARD_AMD,
    CPU_FEATURE_OURS, /* the VM's, not the host's: minivmm or KVM sets it; never missing */
    CPU_FEATURE_NOTE, /* says something of the CPU and gives nothing to use; never missing */
};

struct cpu_feature {
    const char *name; /* as /proc/cpuinfo has it, where it has one; NULL: nobody knows the bit */
    enum cpu_feature_kind kind;
};

enum cpuid_register { CPUID_EAX, CPUID_EBX, CPUID_ECX, CPUID_EDX };

struct cpu_feature_word {
    uint32_t function, index;
    enum cpuid_register reg;
    uint32_t quiet; /* bits without a name that are no features */
    struct cpu_feature bits[32];
};

/* On AMD, bits of leaf 1's EDX stand in 0x80000001's once more. */
#define CPU_FEATURE_AMD_COPIES 0x0183f3ffu

enum { CPU_FEATURE_WORDS = 15 };
extern const struct cpu_feature_word cpu_feature_words[CPU_FEATURE_WORDS];

/* Whether a guest that has the feature could miss it. */
bool cpu_feature_counts(const struct cpu_feature_word *word, unsigned bit);
/* The name, or "bit 5 of CPUID 7.1 EDX". */
void cpu_feature_describe(const struct cpu_feature_word *word, unsigned bit, char *to, size_t room);
