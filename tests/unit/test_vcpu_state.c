/* SPDX-License-Identifier: MIT */
/* The state of a vCPU: its tables, and what KVM gives back after it has taken one. */
#include "tests/unit/machines.h"
#include "vmm/x86/cpuid.h"
#include "vmm/x86/vcpu_state.h"
#include <errno.h>
#include <linux/kvm_para.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    MSR_TSC = 0x10,
    MSR_HYPERV_RUNTIME = 0x40000010,
    MSR_HYPERV_TIME = 0x40000020,
    MSR_TSC_DEADLINE = 0x6e0,
    MSR_LSTAR = 0xc0000082,
    MSR_NOBODY = 0x4b5640ff, /* in KVM's own range, and not assigned */
};

/* --- tables ------------------------------------------------------------------------------- */

START_TEST(test_the_vcpu_table_keeps_its_promises)
{
    static struct vcpu_state sample;
    memset(&sample, 0x5a, offsetof(struct vcpu_state, cpuid));
    sample.tsc_offset = 0xfedcba9876543210;
    sample.tsc_khz = 2100000;
    sample.flags = VCPU_HAS_TSC_OFFSET | VCPU_HAS_PDPTRS | VCPU_HAS_XCRS;
    sample.mp_state = KVM_MP_STATE_HALTED;
    sample.cpuid_count = 3;
    sample.msr_count = 2;
    sample.xsave_size = 1024;
    for (uint32_t i = 0; i < sample.cpuid_count; i++)
        sample.cpuid[i] = (struct kvm_cpuid_entry2){
            .function = 0x80000000 + i, .index = i, .eax = 0x11111111 * i};
    for (uint32_t i = 0; i < sample.msr_count; i++)
        sample.msrs[i] = (struct kvm_msr_entry){.index = 0xc0000080 + i,
                                                .data = 0x0123456789abcdef + i};
    for (uint32_t i = 0; i < sample.xsave_size; i++)
        sample.xsave[i] = (uint8_t)(i * 7);
    unit_check_table(&vcpu_state_table, &sample);
}
END_TEST

START_TEST(test_the_time_table_keeps_its_promises)
{
    struct time_state sample = {.kvmclock_ns = 0x1122334455667788,
                                .host_tsc = 0x99aabbccddeeff00,
                                .wall_ns = 0x0123456789abcdef};
    unit_check_table(&time_state_table, &sample);
}
END_TEST

/* --- the speed of the TSC ------------------------------------------------------------------ */

/* A guest's clock bears 250 ppm. */
START_TEST(test_a_tsc_of_another_speed_is_refused)
{
    static const struct {
        uint32_t wanted, here;
        bool good;
    } pairs[] = {{2000000, 2000000, true},     {2000000, 2000500, true},
                 {2000000, 1999500, true},     {2000000, 2000501, false},
                 {2000000, 1999499, false},    {2000000, 4000000, false},
                 {4000000, 2000000, false},    {0, 2000000, true},
                 {2000000, 0, true},           {0, 0, true},
                 {1, UINT32_MAX, false},       {UINT32_MAX, 1, false},
                 {UINT32_MAX, 1u << 31, false}};
    for (size_t i = 0; i < array_size(pairs); i++) {
        char wanted[32], here[32];
        struct err err = {0};
        int ret = vcpu_state_check_tsc(pairs[i].wanted, pairs[i].here, &err);
        ck_assert_msg(ret == (pairs[i].good ? 0 : -ENOTSUP), "%zu: %d", i, ret);
        if (pairs[i].good)
            continue;
        snprintf(wanted, sizeof(wanted), "a TSC of %u kHz", pairs[i].wanted);
        snprintf(here, sizeof(here), "this host's has %u kHz", pairs[i].here);
        ck_assert_int_eq(err.kind, ERR_HOST);
        ck_assert_msg(strstr(err.text, wanted) && strstr(err.text, here), "%s", err.text);
        ck_assert(err.hint[0]);
    }
}
END_TEST

/* --- one vCPU of a VM --------------------------------------------------------------------- */

struct one {
    struct kvm kvm;
    int vm, vcpu;
    struct vcpu_state_caps caps;
};

static struct one one;
static struct vcpu_state state, again; /* too large for a stack */

static void create_one(struct one *ret_one)
{
    struct one *new = ret_one;
    struct cpuid_config config = {.cpus = 1, .tsc_deadline = true};
    struct kvm_x86_cpuid cpuid;
    *new = (struct one){0};
    ck_assert_int_eq(kvm_open(&new->kvm, NULL), 0);
    ck_assert_int_eq(kvm_create_vm(&new->kvm, &new->vm), 0);
    ck_assert_int_eq(vcpu_state_prepare(&new->kvm, new->vm, &new->caps, NULL), 0);
    ck_assert_int_eq(kvm_vm_enable_cap(new->vm, KVM_CAP_SPLIT_IRQCHIP, 24), 0);
    ck_assert_int_eq(kvm_vm_create_vcpu(new->vm, 0, &new->vcpu), 0);
    ck_assert_int_eq(kvm_x86_get_tsc_khz(new->vcpu, &config.tsc_khz), 0);
    ck_assert_int_eq(cpuid_build(&new->kvm, &config, &cpuid, NULL), 0);
    ck_assert_int_eq(kvm_x86_set_cpuid(new->vcpu, &cpuid), 0);
}

static void destroy_one(struct one *old)
{
    close(old->vcpu);
    close(old->vm);
    kvm_close(&old->kvm);
}

static void set_up(void)
{
    create_one(&one);
}

static void tear_down(void)
{
    destroy_one(&one);
}

static void save(struct one *from, struct vcpu_state *to)
{
    struct err err = {0};
    int ret = vcpu_state_save(from->vcpu, &from->caps, NULL, to, &err);
    ck_assert_msg(ret == 0, "%s", err.text);
}

static void load(struct one *to, const struct vcpu_state *from)
{
    struct err err = {0};
    int ret = vcpu_state_load(to->vcpu, &to->caps, from, VCPU_LOAD_ALL, &err);
    ck_assert_msg(ret == 0, "%s", err.text);
}

static struct kvm_msr_entry *msr_of(struct vcpu_state *in, uint32_t index)
{
    for (uint32_t i = 0; i < in->msr_count; i++)
        if (in->msrs[i].index == index)
            return &in->msrs[i];
    ck_abort_msg("no MSR %x", index);
}

/* The APIC's processor priority follows from its other registers: KVM computes it. */
static void forget_priority(struct vcpu_state *in)
{
    memset(in->lapic.regs + 0xa0, 0, 4);
}

static bool counts_time(uint32_t msr)
{
    return msr == MSR_TSC || msr == MSR_HYPERV_RUNTIME || msr == MSR_HYPERV_TIME;
}

/* All but what counts time. */
static void check_same(struct vcpu_state *a, struct vcpu_state *b)
{
    ck_assert_uint_eq(a->tsc_offset, b->tsc_offset);
    ck_assert_uint_eq(a->tsc_khz, b->tsc_khz);
    ck_assert_uint_eq(a->flags, b->flags);
    ck_assert_uint_eq(a->mp_state, b->mp_state);
    ck_assert_mem_eq(&a->regs, &b->regs, sizeof(a->regs));
    ck_assert_mem_eq(&a->sregs, &b->sregs, sizeof(a->sregs));
    ck_assert_mem_eq(&a->events, &b->events, sizeof(a->events));
    ck_assert_mem_eq(&a->debugregs, &b->debugregs, sizeof(a->debugregs));
    ck_assert_mem_eq(&a->xcrs, &b->xcrs, sizeof(a->xcrs));
    ck_assert_mem_eq(&a->lapic, &b->lapic, sizeof(a->lapic));
    ck_assert_uint_eq(a->cpuid_count, b->cpuid_count);
    ck_assert_mem_eq(a->cpuid, b->cpuid, a->cpuid_count * sizeof(a->cpuid[0]));
    ck_assert_uint_eq(a->xsave_size, b->xsave_size);
    ck_assert_mem_eq(a->xsave, b->xsave, a->xsave_size);
    ck_assert_uint_eq(a->msr_count, b->msr_count);
    for (uint32_t i = 0; i < a->msr_count; i++) {
        ck_assert_uint_eq(a->msrs[i].index, b->msrs[i].index);
        if (!counts_time(a->msrs[i].index))
            ck_assert_msg(a->msrs[i].data == b->msrs[i].data, "MSR %x", a->msrs[i].index);
    }
}

static struct kvm_segment segment(uint16_t selector, uint8_t type, bool is_long)
{
    return (struct kvm_segment){.selector = selector,
                                .limit = 0xffffffff,
                                .type = type,
                                .present = 1,
                                .s = 1,
                                .g = 1,
                                .l = is_long,
                                .db = !is_long};
}

/* A vCPU in the middle of a 64-bit guest, each part different from power-on. */
static void make_busy(struct vcpu_state *busy)
{
    uint64_t *regs = (uint64_t *)&busy->regs;
    for (size_t i = 0; i < 16; i++)
        regs[i] = 0x0101010101010101 * (i + 1);
    busy->regs.rip = 0x123456;
    busy->regs.rflags = 0x246;
    busy->sregs.cs = segment(0x10, 11, true);
    busy->sregs.ss = busy->sregs.ds = segment(0x18, 3, false);
    busy->sregs.cr0 = 0x80050033;
    busy->sregs.cr2 = 0xdeadbeef000;
    busy->sregs.cr3 = 0x5000;
    busy->sregs.cr4 = 0x620;
    busy->sregs.efer = 0x501;
    busy->sregs.gdt = (struct kvm_dtable){.base = 0x7000, .limit = 0x3f};
    busy->sregs.idt = (struct kvm_dtable){.base = 0x8000, .limit = 0xfff};
    busy->sregs.cr8 = 3; /* the same bits as the APIC's TPR */

    /* Legacy area: xmm registers from byte 160; the header at 512 says that x87 and SSE are there.
     */
    for (unsigned i = 160; i < 416; i++)
        busy->xsave[i] = (uint8_t)(i * 13);
    busy->xsave[512] |= 3;
    busy->debugregs.db[0] = 0x1000;
    busy->debugregs.db[3] = 0x3000;
    busy->debugregs.dr7 = 0x400 | 1;
    msr_of(busy, MSR_LSTAR)->data = 0xffffffff81000000;
    /* APIC: enabled, vector 0x40 requested and 0x61 in service, LVT timer in deadline mode. */
    uint32_t *apic = (uint32_t *)(void *)busy->lapic.regs;
    apic[0x80 / 4] = 0x30;
    apic[0xf0 / 4] = 0x1ff;
    apic[(0x200 + 0x20) / 4] = 1;
    apic[(0x100 + 0x30) / 4] = 2;
    apic[0x320 / 4] = 0x40050;
    msr_of(busy, MSR_TSC_DEADLINE)->data = INT64_MAX;
    busy->events.nmi.masked = 1;
    busy->events.interrupt.shadow = KVM_X86_SHADOW_INT_MOV_SS | KVM_X86_SHADOW_INT_STI; /* AMD */
    busy->mp_state = KVM_MP_STATE_HALTED;
}

START_TEST(test_power_on_state_loads_into_itself)
{
    save(&one, &state);
    load(&one, &state);
    save(&one, &again);
    check_same(&state, &again);
}
END_TEST

/* Some kernels do not say how many entries they gave: nothing that is none may get in. */
START_TEST(test_each_cpuid_leaf_is_saved_once)
{
    save(&one, &state);
    ck_assert_uint_gt(state.cpuid_count, 8);
    for (uint32_t i = 0; i < state.cpuid_count; i++)
        for (uint32_t j = 0; j < i; j++)
            ck_assert_msg(state.cpuid[i].function != state.cpuid[j].function ||
                              state.cpuid[i].index != state.cpuid[j].index,
                          "leaf %x.%u", state.cpuid[i].function, state.cpuid[i].index);
    load(&one, &state);
    save(&one, &again);
    ck_assert_uint_eq(again.cpuid_count, state.cpuid_count);
}
END_TEST

START_TEST(test_what_was_loaded_is_what_is_saved)
{
    save(&one, &state);
    make_busy(&state);
    load(&one, &state);
    save(&one, &again);
    forget_priority(&state);
    forget_priority(&again);
    check_same(&state, &again);
}
END_TEST

START_TEST(test_a_busy_state_survives_another_vm)
{
    struct one other;
    save(&one, &state);
    make_busy(&state);
    load(&one, &state);
    save(&one, &state);
    create_one(&other);
    load(&other, &state);
    save(&other, &again);
    check_same(&state, &again);
    destroy_one(&other);
}
END_TEST

/* A pending exception with its payload, an injected interrupt, a pending NMI. */
START_TEST(test_pending_events_survive)
{
    save(&one, &state);
    make_busy(&state);
    state.mp_state = KVM_MP_STATE_RUNNABLE;
    state.events.interrupt = (typeof(state.events.interrupt)){.injected = 1, .nr = 0x31};
    state.events.nmi.pending = 1;
    load(&one, &state);
    save(&one, &again);
    ck_assert_uint_eq(again.events.interrupt.injected, 1);
    ck_assert_uint_eq(again.events.interrupt.nr, 0x31);
    ck_assert_uint_eq(again.events.nmi.pending, 1);

    state.events.interrupt.injected = 0;
    state.events.exception = (typeof(state.events.exception)){
        .injected = 1, .nr = 14, .has_error_code = 1, .error_code = 2};
    load(&one, &state);
    save(&one, &again);
    ck_assert_uint_eq(again.events.exception.injected, 1);
    ck_assert_uint_eq(again.events.exception.nr, 14);
    ck_assert_uint_eq(again.events.exception.error_code, 2);
}
END_TEST

START_TEST(test_a_reset_goes_back_to_power_on)
{
    static struct vcpu_state power_on;
    struct err err = {0};
    save(&one, &power_on);
    state = power_on;
    make_busy(&state);
    load(&one, &state);
    int ret = vcpu_state_load(one.vcpu, &one.caps, &power_on, VCPU_LOAD_RESET, &err);
    ck_assert_msg(ret == 0, "%s", err.text);
    save(&one, &again);
    check_same(&power_on, &again);
}
END_TEST

/* Where KVM is to write, if that is not 0. */
static const struct kvm_msr_entry places[] = {
    {.index = MSR_KVM_SYSTEM_TIME_NEW, .data = 0x1000 | 1},
    {.index = MSR_KVM_SYSTEM_TIME, .data = 0x1000 | 1},
    {.index = MSR_KVM_STEAL_TIME, .data = 0x2000 | KVM_MSR_ENABLED},
    {.index = MSR_KVM_PV_EOI_EN, .data = 0x3000 | KVM_MSR_ENABLED},
};

static bool has_msr(const struct vcpu_state *in, uint32_t index)
{
    for (uint32_t i = 0; i < in->msr_count; i++)
        if (in->msrs[i].index == index)
            return true;
    return false;
}

/* KVM takes the rest, and may do with the vCPU what it likes. */
START_TEST(test_a_trial_writes_no_guest_memory)
{
    enum { SIZE = 16 * PAGE_SIZE };
    uint8_t *memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(memory, MAP_FAILED);
    const struct memory_range range = {.host = memory, .size = SIZE};
    struct err err = {0};
    ck_assert_int_eq(kvm_vm_set_memory(one.vm, 0, 0, &range), 0);
    save(&one, &state);
    msr_of(&state, MSR_LSTAR)->data = 0x123456;
    ck_assert(has_msr(&state, MSR_KVM_SYSTEM_TIME_NEW));
    for (size_t i = 0; i < array_size(places); i++)
        if (has_msr(&state, places[i].index))
            msr_of(&state, places[i].index)->data = places[i].data;
    memset(memory, 0x5a, SIZE);
    int ret = vcpu_state_load(one.vcpu, &one.caps, &state, VCPU_LOAD_TRIAL, &err);
    ck_assert_msg(ret == 0, "%s", err.text);
    save(&one, &again);
    for (size_t i = 0; i < SIZE; i++)
        ck_assert_msg(memory[i] == 0x5a, "KVM has written to byte %zx", i);
    ck_assert_uint_eq(msr_of(&again, MSR_LSTAR)->data, 0x123456);
    for (size_t i = 0; i < array_size(places); i++)
        ck_assert(!has_msr(&again, places[i].index) || !msr_of(&again, places[i].index)->data);
    load(&one, &state); /* and then it is loaded as ever */
    save(&one, &again);
    ck_assert_uint_eq(msr_of(&again, MSR_KVM_SYSTEM_TIME_NEW)->data, places[0].data);
    munmap(memory, SIZE);
}
END_TEST

START_TEST(test_a_trial_refuses_what_a_load_does)
{
    struct err err = {0};
    save(&one, &state);
    msr_of(&state, MSR_LSTAR)->data = 1ull << 63;
    ck_assert_int_lt(vcpu_state_load(one.vcpu, &one.caps, &state, VCPU_LOAD_TRIAL, &err), 0);
    ck_assert_msg(strstr(err.text, "MSR 0xc0000082"), "%s", err.text);
}
END_TEST

START_TEST(test_a_refused_msr_is_named)
{
    struct err err = {0};
    save(&one, &state);
    msr_of(&state, MSR_LSTAR)->data = 1ull << 63; /* no address of 48 or 57 bits */
    ck_assert_int_lt(vcpu_state_load(one.vcpu, &one.caps, &state, VCPU_LOAD_ALL, &err), 0);
    ck_assert_msg(strstr(err.text, "MSR 0xc0000082 (LSTAR)"), "%s", err.text);
    ck_assert_msg(strstr(err.text, "0x8000000000000000"), "%s", err.text);
}
END_TEST

static bool kvm_ignores_msrs(void)
{
    struct kvm_x86_msrs msrs = {.count = 1, .entries = {{.index = MSR_NOBODY}}};
    bool ignores = kvm_x86_get_msrs(one.vcpu, &msrs) == 1;
    if (ignores)
        printf("SKIPPED: this host's KVM was told to ignore unknown MSRs\n");
    return ignores;
}

/* By their numbers alone, before any state comes. */
START_TEST(test_msrs_that_this_kvm_lacks_are_named_beforehand)
{
    uint32_t list[KVM_X86_MAX_MSRS];
    struct err err = {0};
    save(&one, &state);
    for (uint32_t i = 0; i < state.msr_count; i++)
        list[i] = state.msrs[i].index;
    ck_assert_uint_gt(state.msr_count, 2);
    int ret = vcpu_state_check_msrs(one.vcpu, list, state.msr_count, &err);
    ck_assert_msg(ret == 0, "%s", err.text);
    ck_assert_int_eq(vcpu_state_check_msrs(one.vcpu, list, 0, NULL), 0);
    if (kvm_ignores_msrs())
        return;
    const uint32_t at[] = {0, state.msr_count / 2, state.msr_count - 1};
    for (size_t i = 0; i < array_size(at); i++) {
        list[at[i]] = MSR_NOBODY;
        ck_assert_int_eq(vcpu_state_check_msrs(one.vcpu, list, state.msr_count, &err), -ENOTSUP);
        ck_assert_int_eq(err.kind, ERR_HOST);
        ck_assert_msg(strstr(err.text, "has no MSR 0x4b5640ff,"), "%s", err.text);
        ck_assert_msg(strstr(err.hint, "kernel"), "%s", err.hint);
        ck_assert_int_eq(vcpu_state_check_msrs(one.vcpu, list, at[i], NULL), 0);
        list[at[i]] = state.msrs[at[i]].index;
    }
}
END_TEST

START_TEST(test_msrs_that_kvm_does_not_give_leave_the_list)
{
    if (kvm_ignores_msrs())
        return;
    save(&one, &state); /* KVM's own surprises are gone after this */
    struct kvm_x86_msr_index good = one.caps.msrs, *list = &one.caps.msrs;
    for (uint32_t place = 0; place < 3; place++) {
        uint32_t at = place == 0 ? 0 : place == 1 ? list->count / 2 : list->count;
        memmove(&list->indices[at + 1], &list->indices[at],
                (list->count - at) * sizeof(list->indices[0]));
        list->indices[at] = MSR_NOBODY;
        list->count++;
    }
    save(&one, &again);
    ck_assert_uint_eq(list->count, good.count);
    ck_assert_mem_eq(list->indices, good.indices, good.count * sizeof(good.indices[0]));
    check_same(&state, &again);
}
END_TEST

START_TEST(test_more_vector_state_than_here_is_refused)
{
    struct err err = {0};
    save(&one, &state);
    state.xsave_size = VCPU_XSAVE_MAX;
    if (one.caps.xsave_size == VCPU_XSAVE_MAX)
        return;
    ck_assert_int_eq(vcpu_state_load(one.vcpu, &one.caps, &state, VCPU_LOAD_ALL, &err), -ENOTSUP);
    ck_assert_msg(strstr(err.text, "vector state"), "%s", err.text);
}
END_TEST

/* Whatever somebody sends: KVM takes it or not, and a good state loads afterwards. */
START_TEST(test_a_hostile_state_does_no_lasting_harm)
{
    static struct vcpu_state good;
    uint64_t seed = 23;
    save(&one, &good);
    make_busy(&good);
    for (unsigned i = 0; i < 1000; i++) {
        state = good;
        size_t from = offsetof(struct vcpu_state, regs);
        size_t size = i % 2 ? sizeof(state) - from : offsetof(struct vcpu_state, cpuid) - from;
        for (unsigned j = 0; j < 1 + chance(&seed) % 16; j++)
            ((uint8_t *)&state)[from + chance(&seed) % size] = (uint8_t)chance(&seed);
        struct err err = {0};
        int ret = vcpu_state_load(one.vcpu, &one.caps, &state, VCPU_LOAD_ALL, &err);
        ck_assert(ret == 0 || err.text[0]);
    }
    load(&one, &good);
    save(&one, &again);
    forget_priority(&good);
    forget_priority(&again);
    check_same(&good, &again);
}
END_TEST

/* --- time --------------------------------------------------------------------------------- */

/* Some KVMs take an offset, and do without it: those without hardware virtualization. */
static bool has_tsc_offset(void)
{
    uint64_t offset = 0;
    return one.caps.tsc_offset && kvm_x86_set_tsc_offset(one.vcpu, 1000000) == 0 &&
           kvm_x86_get_tsc_offset(one.vcpu, &offset) == 0 && offset == 1000000;
}

/* The vCPU keeps what it has, and takes its own state afterwards. */
START_TEST(test_a_state_of_another_tsc_changes_nothing)
{
    struct err err = {0};
    save(&one, &state);
    if (!state.tsc_khz) {
        printf("SKIPPED: this host does not say how fast its TSC is\n");
        return;
    }
    again = state;
    make_busy(&again);
    again.tsc_khz = state.tsc_khz - state.tsc_khz / 100;
    for (enum vcpu_load how = VCPU_LOAD_ALL; how <= VCPU_LOAD_TRIAL; how++) {
        int ret = vcpu_state_load(one.vcpu, &one.caps, &again, how, &err);
        ck_assert_int_eq(ret, -ENOTSUP);
        ck_assert_msg(strstr(err.text, "kHz"), "%s", err.text);
    }
    save(&one, &again);
    check_same(&state, &again);
    again.tsc_khz = state.tsc_khz - state.tsc_khz / 5000; /* 200 ppm */
    load(&one, &again);
}
END_TEST

/* The guest's TSC and its kvmclock keep their distance when the VM goes on elsewhere. */
START_TEST(test_tsc_and_clock_go_on_together)
{
    struct one other;
    struct time_state time, there;
    struct err err = {0};
    struct kvm_clock_data clock = {.clock = 5 * NS_PER_SEC};
    bool offset_works = has_tsc_offset();
    ck_assert_int_eq(kvm_x86_set_clock(one.vm, &clock), 0);
    ck_assert_int_eq(time_state_save(one.vm, &time, &err), 0);
    save(&one, &state);
    ck_assert_uint_ge(time.kvmclock_ns, 5 * NS_PER_SEC);
    ck_assert_uint_lt(time.kvmclock_ns, 10 * NS_PER_SEC);

    create_one(&other);
    again = state;
    ck_assert_int_eq(time_state_load(other.vm, &time, &again, 1, &err), 0);
    load(&other, &again);
    ck_assert_int_eq(time_state_save(other.vm, &there, &err), 0);
    save(&other, &again);
    /* It stood still in between: the clock has gone on only since the load. */
    ck_assert_uint_ge(there.kvmclock_ns, time.kvmclock_ns);
    ck_assert_uint_lt(there.kvmclock_ns, time.kvmclock_ns + 5 * NS_PER_SEC);
    uint64_t ticks = clock_scale(there.kvmclock_ns - time.kvmclock_ns, state.tsc_khz, 1000000);
    uint64_t expected = time.host_tsc + state.tsc_offset + ticks;
    int64_t apart = (int64_t)(there.host_tsc + again.tsc_offset - expected);
    if (offset_works)
        ck_assert_msg(llabs(apart) < state.tsc_khz / 10, "%ld ticks apart", apart); /* 100 us */
    else
        printf("SKIPPED: this host's KVM does not offset a guest's TSC\n");
    destroy_one(&other);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vcpu_state");
    TCase *tables = tcase_create("tables"), *kvm = tcase_create("kvm");
    tcase_add_test(tables, test_the_vcpu_table_keeps_its_promises);
    tcase_add_test(tables, test_the_time_table_keeps_its_promises);
    tcase_add_test(tables, test_a_tsc_of_another_speed_is_refused);
    tcase_add_checked_fixture(kvm, set_up, tear_down);
    tcase_add_test(kvm, test_power_on_state_loads_into_itself);
    tcase_add_test(kvm, test_each_cpuid_leaf_is_saved_once);
    tcase_add_test(kvm, test_what_was_loaded_is_what_is_saved);
    tcase_add_test(kvm, test_a_busy_state_survives_another_vm);
    tcase_add_test(kvm, test_pending_events_survive);
    tcase_add_test(kvm, test_a_reset_goes_back_to_power_on);
    tcase_add_test(kvm, test_a_trial_writes_no_guest_memory);
    tcase_add_test(kvm, test_a_trial_refuses_what_a_load_does);
    tcase_add_test(kvm, test_a_refused_msr_is_named);
    tcase_add_test(kvm, test_msrs_that_this_kvm_lacks_are_named_beforehand);
    tcase_add_test(kvm, test_msrs_that_kvm_does_not_give_leave_the_list);
    tcase_add_test(kvm, test_more_vector_state_than_here_is_refused);
    tcase_add_test(kvm, test_a_hostile_state_does_no_lasting_harm);
    tcase_add_test(kvm, test_a_state_of_another_tsc_changes_nothing);
    tcase_add_test(kvm, test_tsc_and_clock_go_on_together);
    tcase_set_timeout(tables, 60);
    tcase_set_timeout(kvm, 60);
    suite_add_tcase(suite, tables);
    suite_add_tcase(suite, kvm);
    return unit_main_with_kvm(suite, "test_vcpu_state");
}
