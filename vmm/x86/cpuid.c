/* SPDX-License-Identifier: MIT */
/*
 * Leaves by Intel's SDM volume 2 (CPUID), AMD's APM volume 3 appendix E, and for 0x4000_00xx the
 * kernel's Documentation/virt/kvm/x86/cpuid.rst and VMware's proposal for timing leaves, which the
 * guests read.
 *
 * Taken away, with the reason:
 *   VMX, SVM            state of nested guests is not saved, so such a guest could not move
 *   MONITOR/MWAIT       would leave the host idle in a guest's hands; KVM only emulates a no-op
 *   performance monitor its counters depend on the host model, and a guest that has begun to use
 *                       them cannot go to another
 *   SGX, PCONFIG, PT    need host set-up that we do not do
 *   async page faults   KVM writes guest memory and interrupts on its own schedule, between two
 *                       looks at the guest's state
 *   PV unhalt etc.      kept: plain calls without memory
 */
#include "vmm/x86/cpuid.h"

#include "vmm/x86/cpu_model.h"
#include <errno.h>
#include <linux/kvm_para.h>
#include <string.h>

enum { REG_A, REG_B, REG_C, REG_D };

static uint32_t *reg_of(struct kvm_cpuid_entry2 *entry, int reg)
{
    switch (reg) {
    case REG_A:
        return &entry->eax;
    case REG_B:
        return &entry->ebx;
    case REG_C:
        return &entry->ecx;
    default:
        return &entry->edx;
    }
}

static const struct {
    uint32_t function, index;
    int reg;
    uint32_t mask;
} withheld[] = {
    {0x1, 0, REG_C, 1u << 3 | 1u << 5 | 1u << 15},                    /* MONITOR, VMX, PDCM */
    {0x7, 0, REG_B, 1u << 2 | 1u << 25},                              /* SGX, Intel PT */
    {0x7, 0, REG_C, 1u << 5 | 1u << 30},                              /* WAITPKG, SGX_LC */
    {0x7, 0, REG_D, 1u << 18},                                        /* PCONFIG */
    {0x80000001, 0, REG_C, 1u << 2 | 1u << 23 | 1u << 24 | 1u << 28}, /* SVM, perf counters */
};

/* Also of a CPUID that came from elsewhere. Who may write to it, may write to what is found. */
struct kvm_cpuid_entry2 *cpuid_find(const struct kvm_x86_cpuid *cpuid, uint32_t function,
                                    uint32_t index)
{
    for (uint32_t i = 0; i < cpuid->count && i < KVM_X86_MAX_CPUID; i++)
        if (cpuid->entries[i].function == function && cpuid->entries[i].index == index)
            return (struct kvm_cpuid_entry2 *)&cpuid->entries[i];
    return NULL;
}

static void drop(struct kvm_x86_cpuid *cpuid, uint32_t function)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < cpuid->count; i++)
        if (cpuid->entries[i].function != function)
            cpuid->entries[kept++] = cpuid->entries[i];
    cpuid->count = kept;
}

static struct kvm_cpuid_entry2 *add(struct kvm_x86_cpuid *cpuid, uint32_t function, uint32_t index)
{
    struct kvm_cpuid_entry2 *entry = cpuid_find(cpuid, function, index);
    if (!entry) {
        if (cpuid->count == KVM_X86_MAX_CPUID)
            return NULL;
        entry = &cpuid->entries[cpuid->count++];
    }
    *entry = (struct kvm_cpuid_entry2){.function = function, .index = index};
    return entry;
}

static unsigned bits_for(unsigned count)
{
    unsigned bits = 0;
    while ((1u << bits) < count)
        bits++;
    return bits;
}

static void withhold(struct kvm_x86_cpuid *cpuid)
{
    for (size_t i = 0; i < array_size(withheld); i++) {
        struct kvm_cpuid_entry2 *entry = cpuid_find(cpuid, withheld[i].function, withheld[i].index);
        if (entry)
            *reg_of(entry, withheld[i].reg) &= ~withheld[i].mask;
    }
    /* MONITOR, SGX, Intel PT, performance monitoring (Intel's old leaf, AMD's new one). */
    static const uint32_t gone[] = {0x5, 0xa, 0x12, 0x14, 0x80000022};
    for (size_t i = 0; i < array_size(gone); i++)
        drop(cpuid, gone[i]);
}

/* Leaf 1: APIC id in the high byte of EBX, logical CPUs of the socket in the byte below. */
static void describe_leaf1(struct kvm_x86_cpuid *cpuid, const struct cpuid_config *config)
{
    struct kvm_cpuid_entry2 *entry = cpuid_find(cpuid, 1, 0);
    if (!entry)
        return;
    unsigned logical = 1u << bits_for(config->cpus);
    entry->ebx = (entry->ebx & 0x0000ffff) | (logical > 255 ? 255 : logical) << 16;
    entry->edx = config->cpus > 1 ? entry->edx | 1u << 28 : entry->edx & ~(1u << 28); /* HTT */
    entry->ecx |= 1u << 31; /* hypervisor */
    entry->ecx |= 1u << 21; /* x2APIC: KVM's local APIC has it, whatever the host's has */
    entry->ecx = config->tsc_deadline ? entry->ecx | 1u << 24 : entry->ecx & ~(1u << 24);
}

/*
 * Cache leaves say how many logical CPUs share a cache. KVM passes the host's numbers on, which
 * make a guest's scheduler believe in neighbours that it does not have. First and second level
 * belong to one core here, the third to the whole socket.
 */
static void describe_caches(struct kvm_x86_cpuid *cpuid, const struct cpuid_config *config)
{
    uint32_t sharing = (1u << bits_for(config->cpus)) - 1;
    for (uint32_t i = 0; i < cpuid->count; i++) {
        struct kvm_cpuid_entry2 *entry = &cpuid->entries[i];
        bool intel = entry->function == 0x4;
        if ((!intel && entry->function != 0x8000001d) || (entry->eax & 0x1f) == 0)
            continue;
        uint32_t level = entry->eax >> 5 & 7;
        uint32_t sharers = level >= 3 ? sharing : 0;
        entry->eax = (entry->eax & 0x3fff) | (sharers & 0xfff) << 14;
        if (intel) /* cores in the socket, minus one, in the top six bits */
            entry->eax |= (sharing > 63 ? 63 : sharing) << 26;
    }
}

/* 0xB and 0x1F: thread level of width 0, core level that takes all the APIC id's bits. */
static int describe_topology(struct kvm_x86_cpuid *cpuid, const struct cpuid_config *config)
{
    struct kvm_cpuid_entry2 *base = cpuid_find(cpuid, 0, 0);
    uint32_t highest = base ? base->eax : 0;
    drop(cpuid, 0xb);
    drop(cpuid, 0x1f);
    for (uint32_t leaf = 0xb; leaf <= 0x1f; leaf += 0x1f - 0xb) {
        if (highest < leaf)
            continue;
        for (uint32_t level = 0; level < 3; level++) {
            struct kvm_cpuid_entry2 *entry = add(cpuid, leaf, level);
            if (!entry)
                return -E2BIG;
            entry->flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
            entry->ecx = level | (level < 2 ? level + 1 : 0)
                                     << 8; /* type: 1 thread, 2 core, 0 end */
            entry->eax = level == 1 ? bits_for(config->cpus) : 0;
            entry->ebx = level == 0 ? 1 : level == 1 ? config->cpus : 0;
        }
    }
    return 0;
}

/* By the vendor's name in leaf 0, "AuthenticAMD" or "HygonGenuine": its first four letters. */
bool cpuid_is_amd(const struct kvm_x86_cpuid *cpuid)
{
    const struct kvm_cpuid_entry2 *entry = cpuid_find(cpuid, 0, 0);
    return entry && (memcmp(&entry->ebx, "Auth", 4) == 0 || memcmp(&entry->ebx, "Hygo", 4) == 0);
}

/* AMD's: cores in the socket, and who shares a core and a node. */
static void describe_amd(struct kvm_x86_cpuid *cpuid, const struct cpuid_config *config)
{
    struct kvm_cpuid_entry2 *entry = cpuid_find(cpuid, 0x80000008, 0);
    if (entry)
        entry->ecx = bits_for(config->cpus) << 12 | ((config->cpus - 1) & 0xff);
    entry = cpuid_find(cpuid, 0x80000001, 0);
    if (entry) /* CmpLegacy: the count in leaf 1 is of cores, not of hyperthreads */
        entry->ecx = config->cpus > 1 ? entry->ecx | 1u << 1 : entry->ecx & ~(1u << 1);
    entry = cpuid_find(cpuid, 0x8000001e, 0);
    if (entry)
        entry->ebx = entry->ecx = 0; /* one thread a core, one node; core and APIC id per vCPU */
}

static int describe_kvm(struct kvm_x86_cpuid *cpuid, const struct cpuid_config *config)
{
    struct kvm_cpuid_entry2 *entry = cpuid_find(cpuid, KVM_CPUID_SIGNATURE, 0);
    if (!entry)
        return -ENODATA;
    entry->eax = 0x40000010;
    entry = cpuid_find(cpuid, KVM_CPUID_FEATURES, 0);
    if (entry) {
        entry->eax &= ~(1u << KVM_FEATURE_ASYNC_PF | 1u << KVM_FEATURE_ASYNC_PF_VMEXIT |
                        1u << KVM_FEATURE_ASYNC_PF_INT | 1u << KVM_FEATURE_MIGRATION_CONTROL);
        entry->eax = config->extended_destination
                         ? entry->eax | 1u << KVM_FEATURE_MSI_EXT_DEST_ID
                         : entry->eax & ~(1u << KVM_FEATURE_MSI_EXT_DEST_ID);
    }
    if (!config->tsc_khz)
        return 0;
    entry = add(cpuid, 0x40000010, 0);
    if (!entry)
        return -E2BIG;
    entry->eax = config->tsc_khz;
    entry->ebx = 1000000; /* KVM's local APIC timer counts nanoseconds: 1 GHz, in kHz */
    return 0;
}

int cpuid_build(const struct kvm *kvm, const struct cpuid_config *config,
                struct kvm_x86_cpuid *ret_cpuid, struct err *err)
{
    int ret = kvm_x86_supported_cpuid(kvm, ret_cpuid);
    if (ret < 0)
        return err_sys(err, ERR_HOST, -ret, "cannot learn the CPU model that KVM supports");
    withhold(ret_cpuid);
    describe_leaf1(ret_cpuid, config);
    ret = cpu_model_apply(ret_cpuid, config->model, config->address_bits, err);
    if (ret < 0)
        return ret;
    describe_caches(ret_cpuid, config);
    if (cpuid_is_amd(ret_cpuid))
        describe_amd(ret_cpuid, config);
    ret = describe_topology(ret_cpuid, config);
    if (ret == 0)
        ret = describe_kvm(ret_cpuid, config);
    if (ret < 0)
        return err_sys(err, ERR_HOST, -ret, "cannot describe the CPU to the guest");
    cpuid_set_vcpu(ret_cpuid, 0);
    return 0;
}

void cpuid_set_vcpu(struct kvm_x86_cpuid *cpuid, unsigned id)
{
    for (uint32_t i = 0; i < cpuid->count; i++) {
        struct kvm_cpuid_entry2 *entry = &cpuid->entries[i];
        switch (entry->function) {
        case 0x1:
            entry->ebx = (entry->ebx & 0x00ffffff) | (id & 0xff) << 24;
            break;
        case 0xb:
        case 0x1f:
            entry->edx = id;
            break;
        case 0x8000001e:
            entry->eax = id;
            entry->ebx = (entry->ebx & ~0xffu) | (id & 0xff);
            break;
        default:
            break;
        }
    }
}
