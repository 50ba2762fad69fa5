/* SPDX-License-Identifier: MIT */
#include "vmm/x86/kvm_x86.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

static_assert(offsetof(struct kvm_x86_cpuid, entries) == sizeof(struct kvm_cpuid2), "KVM's layout");
static_assert(offsetof(struct kvm_x86_msr_index, indices) == sizeof(struct kvm_msr_list),
              "KVM's layout");
static_assert(offsetof(struct kvm_x86_msrs, entries) == sizeof(struct kvm_msrs), "KVM's layout");

static int request(int fd, unsigned long number, const void *arg)
{
    int ret = ioctl(fd, number, arg);
    return ret < 0 ? -errno : ret;
}

static int done(int ret)
{
    return ret < 0 ? ret : 0;
}

int kvm_x86_supported_cpuid(const struct kvm *kvm, struct kvm_x86_cpuid *ret_cpuid)
{
    ret_cpuid->count = KVM_X86_MAX_CPUID;
    return done(request(kvm->fd, KVM_GET_SUPPORTED_CPUID, ret_cpuid));
}

int kvm_x86_msr_index(const struct kvm *kvm, struct kvm_x86_msr_index *ret_index)
{
    ret_index->count = KVM_X86_MAX_MSRS;
    return done(request(kvm->fd, KVM_GET_MSR_INDEX_LIST, ret_index));
}

int kvm_x86_set_special_pages(int vm, gpa_t identity_map, gpa_t tss)
{
    int ret = done(request(vm, KVM_SET_IDENTITY_MAP_ADDR, &identity_map));
    if (ret < 0)
        return ret;
    ret = ioctl(vm, KVM_SET_TSS_ADDR, (unsigned long)tss);
    return ret < 0 ? -errno : 0;
}

int kvm_x86_get_clock(int vm, struct kvm_clock_data *ret_clock)
{
    return done(request(vm, KVM_GET_CLOCK, ret_clock));
}

int kvm_x86_set_clock(int vm, const struct kvm_clock_data *clock)
{
    return done(request(vm, KVM_SET_CLOCK, clock));
}

/*
 * Some kernels (6.1 is one) do not say how many entries they gave, and leave the rest of the array
 * as it was: so it is marked before, with what no entry looks like.
 */
int kvm_x86_get_cpuid(int vcpu, struct kvm_x86_cpuid *ret_cpuid)
{
    ret_cpuid->count = KVM_X86_MAX_CPUID;
    memset(ret_cpuid->entries, 0xff, sizeof(ret_cpuid->entries));
    int ret = done(request(vcpu, KVM_GET_CPUID2, ret_cpuid));
    while (ret_cpuid->count > 0 && ret_cpuid->entries[ret_cpuid->count - 1].function == UINT32_MAX)
        ret_cpuid->count--;
    return ret;
}

int kvm_x86_set_cpuid(int vcpu, const struct kvm_x86_cpuid *cpuid)
{
    return done(request(vcpu, KVM_SET_CPUID2, cpuid));
}

int kvm_x86_translate(int vcpu, uint64_t linear, uint64_t *ret_physical)
{
    struct kvm_translation translation = {.linear_address = linear};
    int ret = done(request(vcpu, KVM_TRANSLATE, &translation));
    *ret_physical = translation.physical_address;
    return ret < 0 ? ret : translation.valid ? 0 : -EFAULT;
}

int kvm_x86_get_sregs(int vcpu, struct kvm_sregs *ret_sregs)
{
    return done(request(vcpu, KVM_GET_SREGS, ret_sregs));
}

int kvm_x86_set_sregs(int vcpu, const struct kvm_sregs *sregs)
{
    return done(request(vcpu, KVM_SET_SREGS, sregs));
}

int kvm_x86_get_sregs2(int vcpu, struct kvm_sregs2 *ret_sregs)
{
    return done(request(vcpu, KVM_GET_SREGS2, ret_sregs));
}

int kvm_x86_set_sregs2(int vcpu, const struct kvm_sregs2 *sregs)
{
    return done(request(vcpu, KVM_SET_SREGS2, sregs));
}

int kvm_x86_get_xsave(int vcpu, void *ret_xsave)
{
    return done(request(vcpu, KVM_GET_XSAVE, ret_xsave));
}

int kvm_x86_get_xsave2(int vcpu, void *ret_xsave)
{
    return done(request(vcpu, KVM_GET_XSAVE2, ret_xsave));
}

int kvm_x86_set_xsave(int vcpu, const void *xsave)
{
    return done(request(vcpu, KVM_SET_XSAVE, xsave));
}

int kvm_x86_get_xcrs(int vcpu, struct kvm_xcrs *ret_xcrs)
{
    return done(request(vcpu, KVM_GET_XCRS, ret_xcrs));
}

int kvm_x86_set_xcrs(int vcpu, const struct kvm_xcrs *xcrs)
{
    return done(request(vcpu, KVM_SET_XCRS, xcrs));
}

int kvm_x86_get_msrs(int vcpu, struct kvm_x86_msrs *msrs)
{
    return request(vcpu, KVM_GET_MSRS, msrs);
}

int kvm_x86_set_msrs(int vcpu, const struct kvm_x86_msrs *msrs)
{
    return request(vcpu, KVM_SET_MSRS, msrs);
}

int kvm_x86_get_lapic(int vcpu, struct kvm_lapic_state *ret_lapic)
{
    return done(request(vcpu, KVM_GET_LAPIC, ret_lapic));
}

int kvm_x86_set_lapic(int vcpu, const struct kvm_lapic_state *lapic)
{
    return done(request(vcpu, KVM_SET_LAPIC, lapic));
}

int kvm_x86_get_debugregs(int vcpu, struct kvm_debugregs *ret_debugregs)
{
    return done(request(vcpu, KVM_GET_DEBUGREGS, ret_debugregs));
}

int kvm_x86_set_debugregs(int vcpu, const struct kvm_debugregs *debugregs)
{
    return done(request(vcpu, KVM_SET_DEBUGREGS, debugregs));
}

int kvm_x86_get_tsc_khz(int vcpu, uint32_t *ret_khz)
{
    int ret = ioctl(vcpu, KVM_GET_TSC_KHZ, 0);
    if (ret < 0)
        return -errno;
    *ret_khz = (uint32_t)ret;
    return 0;
}

static struct kvm_device_attr tsc_offset_attr(const uint64_t *offset)
{
    return (struct kvm_device_attr){
        .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)offset};
}

int kvm_x86_get_tsc_offset(int vcpu, uint64_t *ret_offset)
{
    struct kvm_device_attr attr = tsc_offset_attr(ret_offset);
    return done(request(vcpu, KVM_GET_DEVICE_ATTR, &attr));
}

int kvm_x86_set_tsc_offset(int vcpu, uint64_t offset)
{
    struct kvm_device_attr attr = tsc_offset_attr(&offset);
    return done(request(vcpu, KVM_SET_DEVICE_ATTR, &attr));
}

void kvm_x86_clock_was_paused(int vcpu)
{
    if (ioctl(vcpu, KVM_KVMCLOCK_CTRL, 0) < 0)
        return; /* EINVAL: this guest has not set the clock up */
}
