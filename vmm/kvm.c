/* SPDX-License-Identifier: MIT */
#include "vmm/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define CAPABILITY(name_, need_, purpose_)                                                    \
    {                                                                                         \
        .number = KVM_CAP_##name_, .name = #name_, .need = KVM_##need_, .purpose = (purpose_) \
    }

static const struct kvm_capability capabilities[] = {
    CAPABILITY(USER_MEMORY, REQUIRED, "guest memory"),
    CAPABILITY(SPLIT_IRQCHIP, REQUIRED,
               "local APICs in the kernel, the other chips in our process"),
    CAPABILITY(IRQ_ROUTING, REQUIRED, "interrupt messages"),
    CAPABILITY(SIGNAL_MSI, REQUIRED, "interrupt messages"),
    CAPABILITY(IRQFD, REQUIRED, "device interrupts without a system call"),
    CAPABILITY(IOEVENTFD, REQUIRED, "doorbells that do not leave the kernel"),
    CAPABILITY(IOEVENTFD_ANY_LENGTH, USED, "doorbells of any width"),
    CAPABILITY(IMMEDIATE_EXIT, REQUIRED, "stopping a vCPU without losing the request"),
    CAPABILITY(EXT_CPUID, REQUIRED, "choosing what the guest sees of the CPU"),
    CAPABILITY(MP_STATE, REQUIRED, "vCPU state: halted, waiting for start-up"),
    CAPABILITY(VCPU_EVENTS, REQUIRED, "vCPU state: pending exceptions and interrupts"),
    CAPABILITY(DEBUGREGS, REQUIRED, "vCPU state: debug registers"),
    CAPABILITY(XSAVE, REQUIRED, "vCPU state: vector registers"),
    CAPABILITY(XCRS, USED, "vCPU state: enabled vector features (AVX and later)"),
    CAPABILITY(ADJUST_CLOCK, REQUIRED, "VM state: the paravirtual clock"),
    CAPABILITY(MANUAL_DIRTY_LOG_PROTECT2, REQUIRED, "tracking written pages"),
    CAPABILITY(XSAVE2, USED, "vCPU state beyond 4 KiB of vector registers"),
    CAPABILITY(SREGS2, USED, "vCPU state: PAE page directory pointers"),
    CAPABILITY(VCPU_ATTRIBUTES, USED, "continuing the guest's TSC exactly"),
    CAPABILITY(GET_TSC_KHZ, USED, "telling the guest its TSC frequency"),
    CAPABILITY(TSC_DEADLINE_TIMER, USED, "precise guest timers"),
    CAPABILITY(X2APIC_API, USED, "more than 255 vCPUs"),
    CAPABILITY(KVMCLOCK_CTRL, USED, "guest watchdogs that know of a pause"),
    CAPABILITY(EXCEPTION_PAYLOAD, USED, "vCPU state: a pending page fault's address"),
    CAPABILITY(X86_TRIPLE_FAULT_EVENT, USED, "vCPU state: a pending triple fault"),
};

size_t kvm_capabilities(const struct kvm_capability **ret_table)
{
    *ret_table = capabilities;
    return array_size(capabilities);
}

enum kvm_host_kind kvm_host_kind(void)
{
    if (access("/sys/module/kvm_pvm", F_OK) == 0)
        return KVM_HOST_PVM;
    if (access("/sys/module/kvm_intel", F_OK) == 0)
        return KVM_HOST_INTEL;
    if (access("/sys/module/kvm_amd", F_OK) == 0)
        return KVM_HOST_AMD;
    return KVM_HOST_UNKNOWN;
}

static int request(int fd, unsigned long number, unsigned long arg)
{
    int ret = ioctl(fd, number, arg);
    return ret < 0 ? -errno : ret;
}

static int request_with(int fd, unsigned long number, const void *arg)
{
    return request(fd, number, (unsigned long)arg);
}

/* For requests whose success is any number that is not negative. */
static int done(int ret)
{
    return ret < 0 ? ret : 0;
}

static int open_error(struct err *err, int errnum)
{
    int ret = err_sys(err, ERR_HOST, errnum, "cannot open /dev/kvm");
    if (errnum == ENOENT || errnum == ENODEV || errnum == ENXIO)
        err_hint(err, "load KVM (modprobe kvm_intel or kvm_amd), and switch virtualization on in "
                      "the firmware setup, or nested virtualization in the hypervisor below; "
                      "without any of it: tests/lab/lab shell");
    else if (errnum == EACCES || errnum == EPERM)
        err_hint(err, "join the group that owns it: sudo adduser $USER kvm (then log in again), or "
                      "run as root");
    return ret;
}

int kvm_open_any(struct kvm *kvm, struct err *err)
{
    kvm->fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (kvm->fd < 0)
        return open_error(err, errno);

    int version = request(kvm->fd, KVM_GET_API_VERSION, 0);
    int size = request(kvm->fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (version < 0 || size < (int)sizeof(struct kvm_run)) {
        int ret = err_say(err, ERR_HOST, ENOTSUP, "/dev/kvm is there, but does not answer as KVM");
        kvm_close(kvm);
        return ret;
    }
    if (version != KVM_API_VERSION) {
        int ret = err_say(err, ERR_HOST, ENOTSUP, "/dev/kvm speaks API version %d, not %d", version,
                          KVM_API_VERSION);
        err_hint(err, "minivmm needs Linux 5.15 or later");
        kvm_close(kvm);
        return ret;
    }
    kvm->run_size = (size_t)size;
    return 0;
}

int kvm_open(struct kvm *kvm, struct err *err)
{
    int ret = kvm_open_any(kvm, err);
    if (ret < 0)
        return ret;
    for (size_t i = 0; i < array_size(capabilities); i++) {
        if (capabilities[i].need != KVM_REQUIRED || kvm_check(kvm, capabilities[i].number) > 0)
            continue;
        ret = err_say(err, ERR_HOST, ENOTSUP, "this host's KVM lacks %s (%s)", capabilities[i].name,
                      capabilities[i].purpose);
        err_hint(err, "minivmm needs Linux 5.15 or later; `minivmm check` shows the whole list");
        kvm_close(kvm);
        return ret;
    }
    return 0;
}

void kvm_close(struct kvm *kvm)
{
    if (kvm->fd >= 0)
        close(kvm->fd);
    kvm->fd = -1;
}

int kvm_check(const struct kvm *kvm, int capability)
{
    int ret = request(kvm->fd, KVM_CHECK_EXTENSION, (unsigned long)capability);
    return ret < 0 ? 0 : ret;
}

int kvm_create_vm(const struct kvm *kvm, int *ret_vm)
{
    int vm;
    /* A signal may end it early: seen under load. */
    do
        vm = request(kvm->fd, KVM_CREATE_VM, 0);
    while (vm == -EINTR);
    if (vm >= 0)
        *ret_vm = vm;
    return done(vm);
}

int kvm_vm_enable_cap(int vm, uint32_t capability, uint64_t arg0)
{
    struct kvm_enable_cap cap = {.cap = capability, .args = {arg0}};
    return done(request_with(vm, KVM_ENABLE_CAP, &cap));
}

int kvm_vm_set_memory(int vm, uint32_t slot, uint32_t flags, const struct memory_range *range)
{
    struct kvm_userspace_memory_region region = {
        .slot = slot,
        .flags = flags,
        .guest_phys_addr = range->base,
        .memory_size = range->size,
        .userspace_addr = (uintptr_t)range->host,
    };
    return done(request_with(vm, KVM_SET_USER_MEMORY_REGION, &region));
}

int kvm_vm_get_dirty_log(int vm, uint32_t slot, uint64_t *ret_bitmap)
{
    struct kvm_dirty_log log = {.slot = slot, .dirty_bitmap = ret_bitmap};
    return done(request_with(vm, KVM_GET_DIRTY_LOG, &log));
}

int kvm_vm_clear_dirty_log(int vm, uint32_t slot, uint64_t first_page, uint32_t page_count,
                           const uint64_t *bitmap)
{
    struct kvm_clear_dirty_log log = {
        .slot = slot,
        .num_pages = page_count,
        .first_page = first_page,
        .dirty_bitmap = (void *)(uintptr_t)bitmap,
    };
    return done(request_with(vm, KVM_CLEAR_DIRTY_LOG, &log));
}

int kvm_vm_set_routing(int vm, const struct kvm_irq_routing *routing)
{
    return done(request_with(vm, KVM_SET_GSI_ROUTING, routing));
}

int kvm_vm_signal_msi(int vm, uint64_t address, uint32_t data)
{
    struct kvm_msi msi = {
        .address_lo = (uint32_t)address, .address_hi = (uint32_t)(address >> 32), .data = data};
    return done(request_with(vm, KVM_SIGNAL_MSI, &msi));
}

int kvm_vm_irqfd(int vm, int fd, uint32_t gsi, bool assign)
{
    struct kvm_irqfd irqfd = {
        .fd = (uint32_t)fd, .gsi = gsi, .flags = assign ? 0 : KVM_IRQFD_FLAG_DEASSIGN};
    return done(request_with(vm, KVM_IRQFD, &irqfd));
}

int kvm_vm_ioeventfd(int vm, uint64_t address, int fd, bool assign)
{
    /* Length 0: writes of any width. */
    struct kvm_ioeventfd doorbell = {
        .addr = address, .fd = fd, .flags = assign ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN};
    return done(request_with(vm, KVM_IOEVENTFD, &doorbell));
}

int kvm_vm_create_vcpu(int vm, unsigned id, int *ret_vcpu)
{
    int vcpu = request(vm, KVM_CREATE_VCPU, id);
    if (vcpu >= 0)
        *ret_vcpu = vcpu;
    return done(vcpu);
}

int kvm_vcpu_run(int vcpu)
{
    return done(request(vcpu, KVM_RUN, 0));
}

int kvm_vcpu_get_mp_state(int vcpu, struct kvm_mp_state *ret_state)
{
    return done(request_with(vcpu, KVM_GET_MP_STATE, ret_state));
}

int kvm_vcpu_set_mp_state(int vcpu, const struct kvm_mp_state *state)
{
    return done(request_with(vcpu, KVM_SET_MP_STATE, state));
}

int kvm_vcpu_get_regs(int vcpu, struct kvm_regs *ret_regs)
{
    return done(request_with(vcpu, KVM_GET_REGS, ret_regs));
}

int kvm_vcpu_set_regs(int vcpu, const struct kvm_regs *regs)
{
    return done(request_with(vcpu, KVM_SET_REGS, regs));
}

int kvm_vcpu_get_events(int vcpu, struct kvm_vcpu_events *ret_events)
{
    return done(request_with(vcpu, KVM_GET_VCPU_EVENTS, ret_events));
}

int kvm_vcpu_set_events(int vcpu, const struct kvm_vcpu_events *events)
{
    return done(request_with(vcpu, KVM_SET_VCPU_EVENTS, events));
}
