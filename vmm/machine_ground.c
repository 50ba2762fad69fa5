/* SPDX-License-Identifier: MIT */
/*
 * What the machine's devices stand on: /dev/kvm, the VM, guest memory, and vCPUs with their CPU
 * model.
 *
 * The order is not free. Everything that the VM is to be (its local APICs, exception payloads)
 * comes before the first vCPU. Memory slots come before the APICs: KVM begins a grace period for
 * the APICs' routes, and a slot that is set after that waits for its end (seen: 2 to 4 ms). The
 * power-on state of a vCPU is saved when it has its CPU model, and before anybody has touched it.
 */
#include "firmware/x86/layout.h"
#include "vmm/dirty.h"
#include "vmm/machine_parts.h"
#include "vmm/x86/cpu_model.h"

#include <cpuid.h>
#include <errno.h>
#include <stdlib.h>

/* The CPU's own limit. KVM's list of CPUID leaves says it too, at 0.4 ms. */
static unsigned physical_address_bits(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(0x80000008, &a, &b, &c, &d) ? (a & 0xff) : 36;
}

/* The guest's: all that the CPU has, or, for one that is to run on others too, what it needs. */
static unsigned guest_address_bits(const struct machine_config *config)
{
    uint64_t base, size = 0;
    unsigned bits = CPU_MODEL_ADDRESS_BITS;
    if (config->cpu == CPU_HOST)
        return physical_address_bits();
    layout_pci64(config->memory, bits, &base, &size);
    while (size == 0)
        layout_pci64(config->memory, ++bits, &base, &size);
    return bits;
}

static int check_config(const struct machine_config *config, const struct kvm *kvm, struct err *err)
{
    int most = kvm_check(kvm, KVM_CAP_MAX_VCPUS);
    if (config->cpus == 0 || config->cpus > LAYOUT_MAX_CPUS || (int)config->cpus > most)
        return err_say(err, ERR_USAGE, EINVAL, "%u vCPUs: this host can give 1 to %d", config->cpus,
                       most < LAYOUT_MAX_CPUS ? most : LAYOUT_MAX_CPUS);
    if (config->memory < LAYOUT_MIN_RAM || config->memory > LAYOUT_MAX_RAM)
        return err_say(
            err, ERR_USAGE, EINVAL, "%llu KiB of memory: a machine has %llu MiB to %llu GiB",
            (unsigned long long)config->memory >> 10, (unsigned long long)LAYOUT_MIN_RAM >> 20,
            (unsigned long long)LAYOUT_MAX_RAM >> 30);
    uint64_t below;
    gpa_t above;
    layout_split(config->memory, &below, &above);
    unsigned bits = physical_address_bits();
    if (config->memory > below && bits < 64 && above + (config->memory - below) > 1ull << bits)
        return err_say(err, ERR_HOST, EINVAL,
                       "%llu GiB of memory: this host's CPU has addresses of %u bits only",
                       (unsigned long long)config->memory >> 30, bits);
    return 0;
}

static int create_memory(struct machine *machine, struct err *err)
{
    uint64_t below;
    gpa_t above;
    layout_split(machine->config.memory, &below, &above);
    int ret = memory_create(&machine->memory, machine->config.memory, below, above, err);
    if (ret < 0)
        return ret;
    const struct memory_range *ranges;
    unsigned count = memory_ranges(machine->memory, &ranges);
    for (unsigned slot = 0; slot < count; slot++) {
        ret = kvm_vm_set_memory(machine->vm, slot, 0, &ranges[slot]);
        if (ret < 0)
            return err_sys(err, ERR_HOST, -ret, "KVM does not take %llu MiB of guest memory",
                           (unsigned long long)ranges[slot].size >> 20);
    }
    return 0;
}

static int create_vm(struct machine *machine, struct err *err)
{
    int ret = kvm_create_vm(&machine->kvm, &machine->vm);
    if (ret < 0)
        return err_sys(err, ERR_HOST, -ret, "KVM does not create a VM");
    ret = dirty_prepare(machine->vm, err);
    if (ret < 0)
        return ret;
    ret = vcpu_state_prepare(&machine->kvm, machine->vm, &machine->caps, err);
    if (ret < 0)
        return ret;
    /* Intel hosts need four pages in the guest's address space for real mode; others ignore it. */
    ret = kvm_x86_set_special_pages(machine->vm, LAYOUT_KVM_IDENTITY, LAYOUT_KVM_TSS);
    if (ret < 0)
        return err_sys(err, ERR_HOST, -ret, "KVM does not take the place of its own pages");
    return 0;
}

static int create_apics(struct machine *machine, struct err *err)
{
    int ret = kvm_vm_enable_cap(machine->vm, KVM_CAP_SPLIT_IRQCHIP, IOAPIC_PINS);
    if (ret == 0 && machine->config.cpus > 255)
        ret = kvm_vm_enable_cap(machine->vm, KVM_CAP_X2APIC_API,
                                KVM_X2APIC_API_USE_32BIT_IDS |
                                    KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK);
    if (ret < 0)
        return err_sys(err, ERR_HOST, -ret, "KVM does not create local APICs");
    return 0;
}

struct cpuid_config machine_cpuid_config(const struct kvm *kvm, unsigned cpus)
{
    return (struct cpuid_config){
        .cpus = cpus,
        .tsc_deadline = kvm_check(kvm, KVM_CAP_TSC_DEADLINE_TIMER) > 0,
        .extended_destination = cpus > 255,
    };
}

static int set_cpuid(struct machine *machine, struct err *err)
{
    struct cpuid_config config = machine_cpuid_config(&machine->kvm, machine->config.cpus);
    config.model = machine->config.cpu;
    config.address_bits = guest_address_bits(&machine->config);
    if (kvm_x86_get_tsc_khz(machine->vcpus[0]->fd, &config.tsc_khz) < 0)
        config.tsc_khz = 0;
    struct kvm_x86_cpuid cpuid;
    int ret = cpuid_build(&machine->kvm, &config, &cpuid, err);
    for (unsigned i = 0; i < machine->config.cpus && ret == 0; i++) {
        cpuid_set_vcpu(&cpuid, i);
        ret = kvm_x86_set_cpuid(machine->vcpus[i]->fd, &cpuid);
        if (ret < 0)
            err_sys(err, ERR_HOST, -ret, "KVM does not take the CPU model of vCPU %u", i);
    }
    return ret;
}

static int create_vcpus(struct machine *machine, struct err *err)
{
    unsigned count = machine->config.cpus;
    machine->vcpus = calloc(count, sizeof(machine->vcpus[0]));
    machine->power_on = calloc(count, sizeof(machine->power_on[0]));
    if (!machine->vcpus || !machine->power_on)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot create %u vCPUs", count);
    for (unsigned i = 0; i < count; i++) {
        int ret = vcpu_create(&machine->vcpus[i], &machine->kvm, machine->vm, i, &machine->world,
                              err);
        if (ret < 0)
            return ret;
    }
    int ret = set_cpuid(machine, err);
    for (unsigned i = 0; i < count && ret == 0; i++)
        ret = vcpu_state_save(machine->vcpus[i]->fd, &machine->caps, NULL, &machine->power_on[i],
                              err);
    return ret;
}

int machine_lay_ground(struct machine *machine, struct err *err)
{
    int ret = kvm_open(&machine->kvm, err);
    if (ret == 0)
        ret = check_config(&machine->config, &machine->kvm, err);
    if (ret == 0)
        ret = create_vm(machine, err);
    if (ret == 0)
        ret = create_memory(machine, err);
    if (ret == 0)
        ret = create_apics(machine, err);
    if (ret == 0)
        ret = routes_create(&machine->routes, machine->vm, err);
    if (ret == 0)
        ret = create_vcpus(machine, err);
    if (ret == 0)
        layout_pci64(machine->config.memory, guest_address_bits(&machine->config),
                     &machine->pci64_base, &machine->pci64_size);
    return ret;
}
