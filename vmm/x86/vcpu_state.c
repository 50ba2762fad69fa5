/* SPDX-License-Identifier: MIT */
/*
 * Saving, in this order:
 *   1. MP_STATE      reading it lets KVM take a waiting INIT or start-up message, which changes
 *                    everything below
 *   2. REGS, SREGS, XSAVE, XCRS, DEBUGREGS, LAPIC, MSRs, TSC offset
 *   3. EVENTS        last, because reading it moves a pending NMI
 * (Dirty pages are harvested after that: 1 and the vCPU's last exit may have written guest memory.)
 *
 * Loading, in this order:
 *   1. CPUID         what all later checks in KVM depend on
 *   2. SREGS         EFER and CR4 before XSAVE and MSRs; the APIC base before the APIC's registers
 *   3. XCRS, XSAVE   XCR0 says which components may be there
 *   4. DEBUGREGS
 *   5. LAPIC         before MSRs: a TSC deadline is thrown away by an APIC whose timer is not yet
 * in deadline mode
 *   6. TSC offset    before MSRs: the deadline is compared with the guest's TSC
 *   7. MSRs
 *   8. REGS          clears pending exceptions, therefore before...
 *   9. EVENTS
 *  10. MP_STATE      last: nothing above may wake or stop the vCPU any more
 *
 * MSRs left out when loading:
 *   IA32_TSC         where the offset attribute is there; writing it makes KVM guess at
 *                    synchronization
 *   KVM wall clock   writing it makes KVM write guest memory; the guest reads it only right after
 *                    its own write
 *
 * MSRs that only a trial leaves out: those that name a place where KVM writes guest memory, some of
 * them at once (seen: the system time), some with any later request (the steal time, when KVM puts
 * the vCPU away). A trial only asks KVM whether it has them.
 */
#include "vmm/x86/vcpu_state.h"

#include "core/clock.h"
#include <errno.h>
#include <linux/kvm_para.h>
#include <stdio.h>
#include <string.h>
#include <x86intrin.h>

#define MSR_IA32_TSC           0x10u
#define MSR_KVM_WALL_CLOCK_OLD 0x11u

#define FIELD_BYTES(member, ...) STATE_FIELD_BYTES(struct vcpu_state, member, __VA_ARGS__)
#define FIELD_U32(member, ...)   STATE_FIELD_U32(struct vcpu_state, member, __VA_ARGS__)
#define COUNT_AT(member)         .counted = true, .count_offset = offsetof(struct vcpu_state, member)

static const struct state_field cpuid_entry_fields[] = {
    STATE_FIELD_U32(struct kvm_cpuid_entry2, function),
    STATE_FIELD_U32(struct kvm_cpuid_entry2, index),
    STATE_FIELD_U32(struct kvm_cpuid_entry2, flags),
    STATE_FIELD_U32(struct kvm_cpuid_entry2, eax),
    STATE_FIELD_U32(struct kvm_cpuid_entry2, ebx),
    STATE_FIELD_U32(struct kvm_cpuid_entry2, ecx),
    STATE_FIELD_U32(struct kvm_cpuid_entry2, edx),
    STATE_FIELD_U32(struct kvm_cpuid_entry2, padding),
};
const struct state_table cpuid_entry_table = {
    .name = "cpuid", .version = 1, STATE_TABLE_OF(struct kvm_cpuid_entry2, cpuid_entry_fields)};

static const struct state_field msr_entry_fields[] = {
    STATE_FIELD_U32(struct kvm_msr_entry, index),
    STATE_FIELD_U32(struct kvm_msr_entry, reserved),
    STATE_FIELD_U64(struct kvm_msr_entry, data),
};
static const struct state_table msr_entry_table = {
    .name = "msr", .version = 1, STATE_TABLE_OF(struct kvm_msr_entry, msr_entry_fields)};

static const struct state_field vcpu_fields[] = {
    STATE_FIELD_U64(struct vcpu_state, tsc_offset),
    FIELD_U32(tsc_khz),
    FIELD_U32(flags, .max = VCPU_HAS_TSC_OFFSET | VCPU_HAS_PDPTRS | VCPU_HAS_XCRS),
    FIELD_U32(mp_state, .max = KVM_MP_STATE_SIPI_RECEIVED),
    FIELD_U32(cpuid_count, .max = KVM_X86_MAX_CPUID),
    FIELD_U32(msr_count, .max = KVM_X86_MAX_MSRS),
    FIELD_U32(xsave_size, .min = 576, .max = VCPU_XSAVE_MAX),
    FIELD_BYTES(regs),
    FIELD_BYTES(sregs),
    FIELD_BYTES(events),
    FIELD_BYTES(debugregs),
    FIELD_BYTES(xcrs),
    FIELD_BYTES(lapic),
    STATE_FIELD_TABLE(struct vcpu_state, cpuid, struct kvm_cpuid_entry2, &cpuid_entry_table,
                      COUNT_AT(cpuid_count)),
    STATE_FIELD_TABLE(struct vcpu_state, msrs, struct kvm_msr_entry, &msr_entry_table,
                      COUNT_AT(msr_count)),
    FIELD_BYTES(xsave, COUNT_AT(xsave_size)),
};

const struct state_table vcpu_state_table = {
    .name = "vcpu", .version = 1, STATE_TABLE_OF(struct vcpu_state, vcpu_fields)};

static const struct state_field time_fields[] = {
    STATE_FIELD_U64(struct time_state, kvmclock_ns),
    STATE_FIELD_U64(struct time_state, host_tsc),
    STATE_FIELD_U64(struct time_state, wall_ns),
};

const struct state_table time_state_table = {
    .name = "time", .version = 1, STATE_TABLE_OF(struct time_state, time_fields)};

/* --- what this KVM can do ----------------------------------------------------------------- */

int vcpu_state_prepare(const struct kvm *kvm, int vm, struct vcpu_state_caps *ret_caps,
                       struct err *err)
{
    static const int switches[] = {KVM_CAP_EXCEPTION_PAYLOAD, KVM_CAP_X86_TRIPLE_FAULT_EVENT};
    for (size_t i = 0; i < array_size(switches); i++) {
        if (kvm_check(kvm, switches[i]) <= 0)
            continue;
        int ret = kvm_vm_enable_cap(vm, (uint32_t)switches[i], 1);
        if (ret < 0)
            return err_sys(err, ERR_HOST, -ret, "cannot switch KVM capability %d on", switches[i]);
    }

    ret_caps->sregs2 = kvm_check(kvm, KVM_CAP_SREGS2) > 0;
    ret_caps->xcrs = kvm_check(kvm, KVM_CAP_XCRS) > 0;
    ret_caps->tsc_offset = kvm_check(kvm, KVM_CAP_VCPU_ATTRIBUTES) > 0;
    int size = kvm_check(kvm, KVM_CAP_XSAVE2);
    ret_caps->xsave_size = size > 4096 ? (size_t)size : 4096;
    if (ret_caps->xsave_size > VCPU_XSAVE_MAX)
        return err_say(err, ERR_HOST, ENOTSUP,
                       "this CPU's vector state takes %zu bytes, at most %d", ret_caps->xsave_size,
                       VCPU_XSAVE_MAX);
    int ret = kvm_x86_msr_index(kvm, &ret_caps->msrs);
    if (ret < 0)
        return err_sys(err, ERR_HOST, -ret, "cannot learn which MSRs KVM saves");
    return 0;
}

/* --- saving ------------------------------------------------------------------------------- */

static void remove_at(struct kvm_x86_msr_index *index, uint32_t at)
{
    memmove(&index->indices[at], &index->indices[at + 1],
            (index->count - at - 1) * sizeof(index->indices[0]));
    index->count--;
}

/*
 * KVM stops at the first MSR that this vCPU does not have and says how far it came; it does so for
 * some that its own list names. Such an MSR leaves the list, which happens once per VM.
 */
static int save_msrs(int vcpu, struct vcpu_state_caps *caps, struct vcpu_state *state)
{
    struct kvm_x86_msrs msrs;
    for (;;) {
        msrs = (struct kvm_x86_msrs){.count = caps->msrs.count};
        for (uint32_t i = 0; i < caps->msrs.count; i++)
            msrs.entries[i].index = caps->msrs.indices[i];
        int got = kvm_x86_get_msrs(vcpu, &msrs);
        if (got < 0)
            return got;
        if ((uint32_t)got == caps->msrs.count)
            break;
        remove_at(&caps->msrs, (uint32_t)got);
    }
    memcpy(state->msrs, msrs.entries, sizeof(state->msrs));
    state->msr_count = msrs.count;
    return 0;
}

static int save_sregs(int vcpu, const struct vcpu_state_caps *caps, struct vcpu_state *state)
{
    if (caps->sregs2) {
        state->flags |= VCPU_HAS_PDPTRS;
        return kvm_x86_get_sregs2(vcpu, &state->sregs);
    }
    /* The old struct has the same head; its interrupt bitmap says what EVENTS say better. */
    struct kvm_sregs old;
    int ret = kvm_x86_get_sregs(vcpu, &old);
    if (ret == 0)
        memcpy(&state->sregs, &old, offsetof(struct kvm_sregs, interrupt_bitmap));
    return ret;
}

static int save_xcrs(int vcpu, const struct vcpu_state_caps *caps, struct vcpu_state *state)
{
    if (!caps->xcrs)
        return 0;
    state->flags |= VCPU_HAS_XCRS;
    return kvm_x86_get_xcrs(vcpu, &state->xcrs);
}

static int save_tsc(int vcpu, const struct vcpu_state_caps *caps, struct vcpu_state *state)
{
    if (!caps->tsc_offset)
        return 0;
    state->flags |= VCPU_HAS_TSC_OFFSET;
    return kvm_x86_get_tsc_offset(vcpu, &state->tsc_offset);
}

static int save_model(int vcpu, const struct vcpu_state *model, struct vcpu_state *state)
{
    struct kvm_x86_cpuid cpuid;
    if (model) {
        state->tsc_khz = model->tsc_khz;
        state->cpuid_count = model->cpuid_count;
        memcpy(state->cpuid, model->cpuid, model->cpuid_count * sizeof(model->cpuid[0]));
        return 0;
    }
    if (kvm_x86_get_tsc_khz(vcpu, &state->tsc_khz) < 0)
        state->tsc_khz = 0; /* a host whose TSC is not stable does not say */
    int ret = kvm_x86_get_cpuid(vcpu, &cpuid);
    if (ret < 0)
        return ret;
    state->cpuid_count = cpuid.count;
    memcpy(state->cpuid, cpuid.entries, cpuid.count * sizeof(cpuid.entries[0]));
    return 0;
}

/* Runs a request; the first that fails names itself. */
#define TRY(what, call)                                                              \
    do {                                                                             \
        int ret_ = (call);                                                           \
        if (ret_ < 0)                                                                \
            return err_sys(err, ERR_FAILED, -ret_, "KVM refuses a vCPU's %s", what); \
    } while (0)

int vcpu_state_save(int vcpu, struct vcpu_state_caps *caps, const struct vcpu_state *model,
                    struct vcpu_state *ret_state, struct err *err)
{
    struct vcpu_state *state = ret_state;
    memset(state, 0, sizeof(*state));
    struct kvm_mp_state mp;
    TRY("MP_STATE", kvm_vcpu_get_mp_state(vcpu, &mp));
    state->mp_state = mp.mp_state;
    TRY("CPUID", save_model(vcpu, model, state));
    TRY("REGS", kvm_vcpu_get_regs(vcpu, &state->regs));
    TRY("SREGS", save_sregs(vcpu, caps, state));
    state->xsave_size = (uint32_t)caps->xsave_size;
    TRY("XSAVE", caps->xsave_size > 4096 ? kvm_x86_get_xsave2(vcpu, state->xsave)
                                         : kvm_x86_get_xsave(vcpu, state->xsave));
    TRY("XCRS", save_xcrs(vcpu, caps, state));
    TRY("DEBUGREGS", kvm_x86_get_debugregs(vcpu, &state->debugregs));
    TRY("LAPIC", kvm_x86_get_lapic(vcpu, &state->lapic));
    TRY("MSRs", save_msrs(vcpu, caps, state));
    TRY("TSC offset", save_tsc(vcpu, caps, state));
    TRY("EVENTS", kvm_vcpu_get_events(vcpu, &state->events));
    return 0;
}

/* --- loading ------------------------------------------------------------------------------ */

static int load_cpuid(int vcpu, const struct vcpu_state *state)
{
    struct kvm_x86_cpuid cpuid = {.count = state->cpuid_count};
    memcpy(cpuid.entries, state->cpuid, state->cpuid_count * sizeof(cpuid.entries[0]));
    return kvm_x86_set_cpuid(vcpu, &cpuid);
}

static int load_sregs(int vcpu, const struct vcpu_state_caps *caps, const struct vcpu_state *state)
{
    if (caps->sregs2) {
        struct kvm_sregs2 sregs = state->sregs;
        if (!(state->flags & VCPU_HAS_PDPTRS))
            sregs.flags = 0; /* KVM then reads the pointers from guest memory */
        return kvm_x86_set_sregs2(vcpu, &sregs);
    }
    struct kvm_sregs old = {0};
    memcpy(&old, &state->sregs, offsetof(struct kvm_sregs, interrupt_bitmap));
    return kvm_x86_set_sregs(vcpu, &old);
}

static int load_xcrs(int vcpu, const struct vcpu_state_caps *caps, const struct vcpu_state *state)
{
    if (!(state->flags & VCPU_HAS_XCRS))
        return 0;
    return caps->xcrs ? kvm_x86_set_xcrs(vcpu, &state->xcrs) : -ENOTSUP;
}

int vcpu_state_check_tsc(uint32_t wanted_khz, uint32_t here_khz, struct err *err)
{
    uint32_t apart = here_khz > wanted_khz ? here_khz - wanted_khz : wanted_khz - here_khz;
    if (!wanted_khz || !here_khz || apart <= wanted_khz / 4000)
        return 0;
    int ret = err_say(err, ERR_HOST, ENOTSUP,
                      "the guest counts time by a TSC of %u kHz, this host's has %u kHz",
                      wanted_khz, here_khz);
    err_hint(err, "while it runs it goes to a host whose TSC is as fast; stopped there, it starts "
                  "here");
    return ret;
}

static int check_tsc_khz(int vcpu, const struct vcpu_state *state, struct err *err)
{
    uint32_t here;
    if (kvm_x86_get_tsc_khz(vcpu, &here) < 0)
        return 0;
    return vcpu_state_check_tsc(state->tsc_khz, here, err);
}

static int load_tsc_offset(int vcpu, const struct vcpu_state_caps *caps,
                           const struct vcpu_state *state)
{
    if (!caps->tsc_offset || !(state->flags & VCPU_HAS_TSC_OFFSET))
        return 0;
    return kvm_x86_set_tsc_offset(vcpu, state->tsc_offset);
}

static bool skip_msr(const struct vcpu_state_caps *caps, const struct vcpu_state *state,
                     uint32_t index, enum vcpu_load how)
{
    switch (index) {
    case MSR_IA32_TSC:
        return how == VCPU_LOAD_RESET || (caps->tsc_offset && state->flags & VCPU_HAS_TSC_OFFSET);
    case MSR_KVM_WALL_CLOCK_OLD:
    case MSR_KVM_WALL_CLOCK_NEW:
        return true;
    default:
        return false;
    }
}

static bool names_memory(uint32_t index)
{
    switch (index) {
    case MSR_KVM_SYSTEM_TIME:
    case MSR_KVM_SYSTEM_TIME_NEW:
    case MSR_KVM_ASYNC_PF_EN:
    case MSR_KVM_STEAL_TIME:
    case MSR_KVM_PV_EOI_EN:
        return true;
    default:
        return false;
    }
}

static bool get_msr(int vcpu, uint32_t index, uint64_t *ret_data)
{
    struct kvm_x86_msrs one = {.count = 1, .entries = {{.index = index}}};
    bool got = kvm_x86_get_msrs(vcpu, &one) == 1;
    *ret_data = got ? one.entries[0].data : 0;
    return got;
}

/* KVM refuses some MSRs even with the value that they have: then nothing is lost. */
static bool has_already(int vcpu, const struct kvm_msr_entry *wanted)
{
    uint64_t data;
    return get_msr(vcpu, wanted->index, &data) && data == wanted->data;
}

/* Those by which hosts differ, and some that a person may know. */
static const struct {
    uint32_t index;
    const char *name;
} msr_names[] = {
    {0x3b, "IA32_TSC_ADJUST"},
    {0x48, "IA32_SPEC_CTRL"},
    {0xe1, "IA32_UMWAIT_CONTROL"},
    {0x10a, "IA32_ARCH_CAPABILITIES"},
    {0x122, "IA32_TSX_CTRL"},
    {0x1c4, "IA32_XFD"},
    {0x1c5, "IA32_XFD_ERR"},
    {0x345, "IA32_PERF_CAPABILITIES"},
    {0x570, "IA32_RTIT_CTL"},
    {0x6a0, "IA32_U_CET"},
    {0x6a2, "IA32_S_CET"},
    {0xd90, "IA32_BNDCFGS"},
    {0xda0, "IA32_XSS"},
    {MSR_KVM_ASYNC_PF_EN, "KVM_ASYNC_PF_EN"},
    {MSR_KVM_STEAL_TIME, "KVM_STEAL_TIME"},
    {MSR_KVM_PV_EOI_EN, "KVM_PV_EOI_EN"},
    {MSR_KVM_POLL_CONTROL, "KVM_POLL_CONTROL"},
    {MSR_KVM_ASYNC_PF_INT, "KVM_ASYNC_PF_INT"},
    {MSR_KVM_ASYNC_PF_ACK, "KVM_ASYNC_PF_ACK"},
    {MSR_KVM_MIGRATION_CONTROL, "KVM_MIGRATION_CONTROL"},
    {0xc0000082, "LSTAR"},
    {0xc0000103, "TSC_AUX"},
    {0xc0000104, "AMD64_TSC_RATIO"},
    {0xc001011f, "AMD64_VIRT_SPEC_CTRL"},
};

/* "0x48 (IA32_SPEC_CTRL)" */
struct msr_text {
    char text[48];
};

static struct msr_text msr_text(uint32_t index)
{
    struct msr_text text;
    const char *name = NULL;
    for (size_t i = 0; i < array_size(msr_names); i++)
        if (msr_names[i].index == index)
            name = msr_names[i].name;
    if (name)
        snprintf(text.text, sizeof(text.text), "0x%x (%s)", index, name);
    else
        snprintf(text.text, sizeof(text.text), "0x%x", index);
    return text;
}

static int refuse_msr(const struct kvm_msr_entry *refused, struct err *err)
{
    return err_say(err, ERR_HOST, ENOTSUP, "this host's KVM refuses MSR %s with the value 0x%llx",
                   msr_text(refused->index).text, (unsigned long long)refused->data);
}

int vcpu_state_check_msrs(int vcpu, const uint32_t *indices, uint32_t count, struct err *err)
{
    for (uint32_t i = 0; i < count; i++) {
        uint64_t data;
        if (get_msr(vcpu, indices[i], &data))
            continue;
        int ret = err_say(err, ERR_HOST, ENOTSUP,
                          "this host's KVM has no MSR %s, and the guest's vCPUs do",
                          msr_text(indices[i]).text);
        err_hint(err, "boot this host with the kernel of the one where it ran, or a newer one");
        return ret;
    }
    return 0;
}

static int load_msrs(int vcpu, const struct vcpu_state_caps *caps, const struct vcpu_state *state,
                     enum vcpu_load how, struct err *err)
{
    struct kvm_x86_msrs msrs = {0};
    for (uint32_t i = 0; i < state->msr_count; i++) {
        const struct kvm_msr_entry *entry = &state->msrs[i];
        uint64_t data;
        bool asks = how == VCPU_LOAD_TRIAL && names_memory(entry->index);
        if (asks && !get_msr(vcpu, entry->index, &data))
            return refuse_msr(entry, err);
        if (!asks && !skip_msr(caps, state, entry->index, how))
            msrs.entries[msrs.count++] = *entry;
    }

    while (msrs.count > 0) {
        int set = kvm_x86_set_msrs(vcpu, &msrs);
        TRY("MSRs", set);
        if ((uint32_t)set == msrs.count)
            return 0;
        const struct kvm_msr_entry *refused = &msrs.entries[set];
        if (!has_already(vcpu, refused))
            return refuse_msr(refused, err);
        msrs.count -= (uint32_t)set + 1;
        memmove(msrs.entries, refused + 1, msrs.count * sizeof(msrs.entries[0]));
    }
    return 0;
}

int vcpu_state_load(int vcpu, const struct vcpu_state_caps *caps, const struct vcpu_state *state,
                    enum vcpu_load how, struct err *err)
{
    if (state->xsave_size > caps->xsave_size)
        return err_say(
            err, ERR_HOST, ENOTSUP,
            "the vCPU's vector state takes %u bytes, this host's %zu: its CPU lacks some "
            "of what the guest uses",
            state->xsave_size, caps->xsave_size);
    int ret = check_tsc_khz(vcpu, state, err);
    if (ret < 0)
        return ret;
    if (how != VCPU_LOAD_RESET)
        TRY("CPUID", load_cpuid(vcpu, state));
    TRY("SREGS", load_sregs(vcpu, caps, state));
    TRY("XCRS", load_xcrs(vcpu, caps, state));
    TRY("XSAVE", kvm_x86_set_xsave(vcpu, state->xsave));
    TRY("DEBUGREGS", kvm_x86_set_debugregs(vcpu, &state->debugregs));
    TRY("LAPIC", kvm_x86_set_lapic(vcpu, &state->lapic));
    TRY("TSC offset", load_tsc_offset(vcpu, caps, state));
    ret = load_msrs(vcpu, caps, state, how, err);
    if (ret < 0)
        return ret;
    TRY("REGS", kvm_vcpu_set_regs(vcpu, &state->regs));
    TRY("EVENTS", kvm_vcpu_set_events(vcpu, &state->events));
    struct kvm_mp_state mp = {.mp_state = state->mp_state};
    TRY("MP_STATE", kvm_vcpu_set_mp_state(vcpu, &mp));
    return 0;
}

/* --- time --------------------------------------------------------------------------------- */

enum { CLOCK_READS = 8, CLOSE_TICKS = 50000 };

/* KVM says which TSC its clock belongs to where it can. Else it lies between two that we read: once
 * they are close, or the closest of some, because we may have to stand still for others there. */
static int read_clock(int vm, struct kvm_clock_data *ret_clock)
{
    uint64_t least = UINT64_MAX;
    for (unsigned i = 0; i < CLOCK_READS; i++) {
        struct kvm_clock_data clock;
        uint64_t before = __rdtsc();
        int ret = kvm_x86_get_clock(vm, &clock);
        uint64_t took = __rdtsc() - before;
        if (ret < 0)
            return ret;
        bool says = clock.flags & KVM_CLOCK_HOST_TSC;
        if (!says)
            clock.host_tsc = before + took / 2;
        if (says || took < least) {
            *ret_clock = clock;
            least = took;
        }
        if (says || took < CLOSE_TICKS)
            break;
    }
    return 0;
}

int time_state_save(int vm, struct time_state *ret_state, struct err *err)
{
    struct kvm_clock_data clock;
    int ret = read_clock(vm, &clock);
    if (ret < 0)
        return err_sys(err, ERR_FAILED, -ret, "cannot read the VM's clock");
    *ret_state = (struct time_state){
        .kvmclock_ns = clock.clock, .host_tsc = clock.host_tsc, .wall_ns = clock_wall_ns()};
    return 0;
}

int time_state_load(int vm, const struct time_state *state, struct vcpu_state *vcpus,
                    unsigned count, struct err *err)
{
    struct kvm_clock_data clock = {.clock = state->kvmclock_ns};
    int ret = kvm_x86_set_clock(vm, &clock);
    if (ret == 0)
        ret = read_clock(vm, &clock);
    if (ret < 0)
        return err_sys(err, ERR_FAILED, -ret, "cannot set the VM's clock");

    /*
     * guest TSC = host TSC + offset, here and there. At the moment when the clock shows
     * clock.clock, the guest's TSC must have gone on by the same time as the clock has since the
     * save.
     */
    for (unsigned i = 0; i < count; i++) {
        uint64_t ns = clock.clock > state->kvmclock_ns ? clock.clock - state->kvmclock_ns : 0;
        uint64_t ticks = clock_scale(ns, vcpus[i].tsc_khz, 1000000);
        vcpus[i].tsc_offset += state->host_tsc + ticks - clock.host_tsc;
    }
    return 0;
}
