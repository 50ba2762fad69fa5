/* SPDX-License-Identifier: MIT */
/* The CPU model that guests see, made out of what this host's KVM offers. */
#include "tests/unit/machines.h"
#include "vmm/x86/cpu_model.h"
#include "vmm/x86/cpuid.h"
#include <linux/kvm_para.h>
#include <sys/ioctl.h>
#include <unistd.h>

static struct kvm kvm;

static void set_up(void)
{
    ck_assert_int_eq(kvm_open(&kvm, NULL), 0);
}

static void tear_down(void)
{
    kvm_close(&kvm);
}

static void build(const struct cpuid_config *config, struct kvm_x86_cpuid *cpuid)
{
    struct err err = {0};
    ck_assert_msg(cpuid_build(&kvm, config, cpuid, &err) == 0, "%s", err.text);
}

static const struct kvm_cpuid_entry2 *find(const struct kvm_x86_cpuid *cpuid, uint32_t function,
                                           uint32_t index)
{
    for (uint32_t i = 0; i < cpuid->count; i++)
        if (cpuid->entries[i].function == function && cpuid->entries[i].index == index)
            return &cpuid->entries[i];
    return NULL;
}

static const struct kvm_cpuid_entry2 *get(const struct kvm_x86_cpuid *cpuid, uint32_t function,
                                          uint32_t index)
{
    const struct kvm_cpuid_entry2 *entry = find(cpuid, function, index);
    ck_assert_msg(entry != NULL, "no leaf %x.%u", function, index);
    return entry;
}

/* As many bits as the APIC ids below `cpus` need. */
static unsigned id_bits(unsigned cpus)
{
    return cpus == 1 ? 0 : 32 - (unsigned)__builtin_clz(cpus - 1);
}

static const unsigned cpu_counts[] = {1, 2, 3, 8, 255, 300, 1024};

static void for_each_count(void (*check)(const struct kvm_x86_cpuid *cpuid, unsigned cpus))
{
    for (size_t i = 0; i < array_size(cpu_counts); i++) {
        struct kvm_x86_cpuid cpuid;
        struct cpuid_config config = {.cpus = cpu_counts[i], .tsc_khz = 1};
        build(&config, &cpuid);
        check(&cpuid, cpu_counts[i]);
    }
}

/* 0xB and 0x1F: threads, then cores, then the end; shifts that isolate core and socket. */
static void check_extended_topology(const struct kvm_x86_cpuid *cpuid, unsigned cpus)
{
    for (uint32_t leaf = 0xb; leaf <= 0x1f; leaf += 0x1f - 0xb) {
        if (get(cpuid, 0, 0)->eax < leaf) {
            ck_assert_ptr_null(find(cpuid, leaf, 0));
            continue;
        }
        const struct kvm_cpuid_entry2 *thread = get(cpuid, leaf, 0), *core = get(cpuid, leaf, 1),
                                      *end = get(cpuid, leaf, 2);
        ck_assert_uint_eq(thread->eax, 0);
        ck_assert_uint_eq(thread->ebx, 1);
        ck_assert_uint_eq(thread->ecx, 0x100);
        ck_assert_uint_eq(core->eax, id_bits(cpus));
        ck_assert_uint_eq(core->ebx, cpus);
        ck_assert_uint_eq(core->ecx, 0x201);
        ck_assert_uint_eq(end->eax, 0);
        ck_assert_uint_eq(end->ebx, 0);
        ck_assert_uint_eq(end->ecx, 2);
        ck_assert_ptr_null(find(cpuid, leaf, 3));
        for (uint32_t level = 0; level < 3; level++)
            ck_assert_uint_eq(get(cpuid, leaf, level)->flags, KVM_CPUID_FLAG_SIGNIFCANT_INDEX);
    }
}

START_TEST(test_topology_is_one_socket_of_cores)
{
    for_each_count(check_extended_topology);
}
END_TEST

static void check_leaf1(const struct kvm_x86_cpuid *cpuid, unsigned cpus)
{
    const struct kvm_cpuid_entry2 *leaf = get(cpuid, 1, 0);
    unsigned room = 1u << id_bits(cpus);
    ck_assert_uint_eq(leaf->ebx >> 16 & 0xff, room > 255 ? 255 : room);
    ck_assert_uint_eq(leaf->edx >> 28 & 1, cpus > 1); /* HTT: the field before means something */
    ck_assert_uint_eq(leaf->ecx >> 31, 1);            /* a hypervisor */
    ck_assert_uint_eq(leaf->ecx >> 21 & 1, 1);        /* x2APIC */
}

START_TEST(test_leaf_1_counts_logical_cpus)
{
    for_each_count(check_leaf1);
}
END_TEST

/* Reserved bits on Intel, where they must stay clear whatever the count. */
/* By leaf 0: "AuthenticAMD" or "HygonGenuine". */
static bool is_amd(const struct kvm_x86_cpuid *cpuid)
{
    const struct kvm_cpuid_entry2 *leaf = get(cpuid, 0, 0);
    return leaf->ebx == 0x68747541 || leaf->ebx == 0x6f677948;
}

/* On other makers' CPUs these leaves have nothing about cores, and stay as they are. */
static void check_amd(const struct kvm_x86_cpuid *cpuid, unsigned cpus)
{
    const struct kvm_cpuid_entry2 *sizes = get(cpuid, 0x80000008, 0);
    const struct kvm_cpuid_entry2 *features = get(cpuid, 0x80000001, 0);
    ck_assert_uint_ge(sizes->eax & 0xff, 36); /* the width of addresses is still there */
    if (!is_amd(cpuid)) {
        struct kvm_x86_cpuid offered;
        ck_assert_int_eq(kvm_x86_supported_cpuid(&kvm, &offered), 0);
        ck_assert_mem_eq(sizes, get(&offered, 0x80000008, 0), sizeof(*sizes));
        return;
    }
    ck_assert_uint_eq(sizes->ecx & 0xff, (cpus - 1) & 0xff);
    ck_assert_uint_eq(sizes->ecx >> 12 & 0xf, id_bits(cpus));
    ck_assert_uint_eq(features->ecx >> 1 & 1, cpus > 1);
    const struct kvm_cpuid_entry2 *core = find(cpuid, 0x8000001e, 0);
    if (core)
        ck_assert_uint_eq(core->ecx, 0);
}

START_TEST(test_amd_leaves_agree)
{
    for_each_count(check_amd);
}
END_TEST

/* First and second level belong to one core, the third to all. Who shares stays below what the
 * topology allows. */
static void check_caches(const struct kvm_x86_cpuid *cpuid, unsigned cpus)
{
    for (uint32_t i = 0; i < cpuid->count; i++) {
        const struct kvm_cpuid_entry2 *leaf = &cpuid->entries[i];
        if ((leaf->function != 4 && leaf->function != 0x8000001d) || (leaf->eax & 0x1f) == 0)
            continue;
        unsigned sharers = (leaf->eax >> 14 & 0xfff) + 1;
        ck_assert_uint_eq(sharers, (leaf->eax >> 5 & 7) < 3 ? 1 : 1u << id_bits(cpus));
        if (leaf->function == 4)
            ck_assert_uint_eq(leaf->eax >> 26, id_bits(cpus) > 6 ? 63 : (1u << id_bits(cpus)) - 1);
    }
}

START_TEST(test_caches_are_shared_within_the_socket_only)
{
    for_each_count(check_caches);
}
END_TEST

START_TEST(test_what_cannot_travel_is_withheld)
{
    static const struct {
        uint32_t function;
        int reg; /* 0: EAX ... 3: EDX */
        unsigned bit;
        const char *name;
    } gone[] = {
        {1, 2, 3, "MONITOR"},
        {1, 2, 5, "VMX"},
        {1, 2, 15, "PDCM"},
        {7, 1, 2, "SGX"},
        {7, 1, 25, "Intel PT"},
        {7, 2, 5, "WAITPKG"},
        {7, 2, 30, "SGX_LC"},
        {7, 3, 18, "PCONFIG"},
        {0x80000001, 2, 2, "SVM"},
        {0x80000001, 2, 23, "PerfCtrExtCore"},
        {0x80000001, 2, 24, "PerfCtrExtNB"},
        {0x80000001, 2, 28, "PerfCtrExtLLC"},
        {KVM_CPUID_FEATURES, 0, KVM_FEATURE_ASYNC_PF, "async page faults"},
        {KVM_CPUID_FEATURES, 0, KVM_FEATURE_ASYNC_PF_INT, "async page faults"},
        {KVM_CPUID_FEATURES, 0, KVM_FEATURE_MIGRATION_CONTROL, "migration control"},
    };
    static const uint32_t leaves[] = {0x5, 0xa, 0x12, 0x14, 0x80000022};
    struct kvm_x86_cpuid cpuid;
    build(&(struct cpuid_config){.cpus = 2, .tsc_khz = 1}, &cpuid);
    for (size_t i = 0; i < array_size(gone); i++) {
        const struct kvm_cpuid_entry2 *leaf = find(&cpuid, gone[i].function, 0);
        if (!leaf)
            continue;
        const uint32_t values[] = {leaf->eax, leaf->ebx, leaf->ecx, leaf->edx};
        ck_assert_msg(!(values[gone[i].reg] >> gone[i].bit & 1), "%s", gone[i].name);
    }
    for (size_t i = 0; i < array_size(leaves); i++)
        ck_assert_msg(find(&cpuid, leaves[i], 0) == NULL, "leaf %x", leaves[i]);
}
END_TEST

START_TEST(test_what_kvm_offers_else_stays)
{
    static const uint32_t same[] = {0, 0x2, 0xd, 0x80000000, 0x80000002, 0x80000007};
    struct kvm_x86_cpuid cpuid, offered;
    build(&(struct cpuid_config){.cpus = 2, .tsc_khz = 1}, &cpuid);
    ck_assert_int_eq(kvm_x86_supported_cpuid(&kvm, &offered), 0);
    for (size_t i = 0; i < array_size(same); i++) {
        const struct kvm_cpuid_entry2 *leaf = find(&offered, same[i], 0);
        if (leaf)
            ck_assert_mem_eq(get(&cpuid, same[i], 0), leaf, sizeof(*leaf));
    }
}
END_TEST

START_TEST(test_each_vcpu_learns_its_apic_id)
{
    static const unsigned ids[] = {0, 1, 7, 254, 255, 256, 299, 1023};
    for (size_t i = 0; i < array_size(ids); i++) {
        struct kvm_x86_cpuid cpuid, boot;
        build(&(struct cpuid_config){.cpus = 1024}, &boot);
        cpuid = boot;
        cpuid_set_vcpu(&cpuid, ids[i]);
        ck_assert_uint_eq(get(&cpuid, 1, 0)->ebx >> 24, ids[i] & 0xff);
        ck_assert_uint_eq(get(&cpuid, 1, 0)->ebx & 0xffffff, get(&boot, 1, 0)->ebx & 0xffffff);
        for (uint32_t leaf = 0xb; leaf <= 0x1f; leaf += 0x1f - 0xb)
            for (uint32_t level = 0; level < 3; level++)
                if (find(&cpuid, leaf, level))
                    ck_assert_uint_eq(find(&cpuid, leaf, level)->edx, ids[i]);
        if (find(&cpuid, 0x8000001e, 0))
            ck_assert_uint_eq(find(&cpuid, 0x8000001e, 0)->eax, ids[i]);
        cpuid_set_vcpu(&cpuid, 0); /* nothing of the other sticks */
        ck_assert_mem_eq(&cpuid, &boot,
                         offsetof(struct kvm_x86_cpuid, entries) +
                             boot.count * sizeof(boot.entries[0]));
    }
}
END_TEST

START_TEST(test_frequencies_and_options_are_told)
{
    struct kvm_x86_cpuid cpuid;
    build(&(struct cpuid_config){.cpus = 1, .tsc_khz = 2100000, .tsc_deadline = true}, &cpuid);
    ck_assert_uint_eq(get(&cpuid, 0x40000000, 0)->eax, 0x40000010);
    ck_assert_uint_eq(get(&cpuid, 0x40000010, 0)->eax, 2100000);
    ck_assert_uint_eq(get(&cpuid, 0x40000010, 0)->ebx, 1000000);
    ck_assert_uint_eq(get(&cpuid, 1, 0)->ecx >> 24 & 1, 1);
    ck_assert_uint_eq(get(&cpuid, 0x40000001, 0)->eax >> KVM_FEATURE_MSI_EXT_DEST_ID & 1, 0);

    build(&(struct cpuid_config){.cpus = 300, .extended_destination = true}, &cpuid);
    ck_assert_ptr_null(find(&cpuid, 0x40000010, 0)); /* nobody knows the frequency */
    ck_assert_uint_eq(get(&cpuid, 1, 0)->ecx >> 24 & 1, 0);
    ck_assert_uint_eq(get(&cpuid, 0x40000001, 0)->eax >> KVM_FEATURE_MSI_EXT_DEST_ID & 1, 1);
}
END_TEST

/* A vCPU with this model, and the CPUID that KVM makes of it: kvm_pvm has a mind of its own. */
static void give(int vm, unsigned id, const struct kvm_x86_cpuid *model,
                 struct kvm_x86_cpuid *taken)
{
    int vcpu = ioctl(vm, KVM_CREATE_VCPU, id);
    ck_assert_int_ge(vcpu, 0);
    ck_assert_int_eq(kvm_x86_set_cpuid(vcpu, model), 0);
    ck_assert_int_eq(kvm_x86_get_cpuid(vcpu, taken), 0);
    close(vcpu);
}

START_TEST(test_kvm_takes_each_level_or_the_host_lacks_it)
{
    static const struct cpuid_config own = {.cpus = 300, .tsc_deadline = true};
    struct kvm_x86_cpuid offered, host, cpuid, taken;
    int vm;
    ck_assert_int_eq(kvm_create_vm(&kvm, &vm), 0);
    ck_assert_int_eq(kvm_vm_enable_cap(vm, KVM_CAP_SPLIT_IRQCHIP, 24), 0);
    build(&own, &offered);
    give(vm, 0, &offered, &host);
    for (unsigned model = CPU_X86_64_V2; model <= CPU_X86_64_V4; model++) {
        struct cpuid_config config = {.cpus = 2,
                                      .tsc_deadline = true,
                                      .model = (enum cpu_model)model,
                                      .address_bits = CPU_MODEL_ADDRESS_BITS};
        struct err err = {0};
        if (cpuid_build(&kvm, &config, &cpuid, &err) < 0) {
            ck_assert_int_eq(err.kind, ERR_HOST);
            ck_assert_uint_gt(model, cpu_model_best(&offered));
            continue;
        }
        ck_assert_uint_le(model, cpu_model_best(&offered));
        give(vm, model, &cpuid, &taken);
        ck_assert_msg(cpu_model_check(&host, &taken, &err) == 0, "%s", err.text);
    }
    ck_assert_int_eq(cpu_model_check(&host, &host, NULL), 0);
    close(vm);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cpuid");
    TCase *tests = tcase_create("cpuid");
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, test_topology_is_one_socket_of_cores);
    tcase_add_test(tests, test_leaf_1_counts_logical_cpus);
    tcase_add_test(tests, test_amd_leaves_agree);
    tcase_add_test(tests, test_caches_are_shared_within_the_socket_only);
    tcase_add_test(tests, test_what_cannot_travel_is_withheld);
    tcase_add_test(tests, test_what_kvm_offers_else_stays);
    tcase_add_test(tests, test_each_vcpu_learns_its_apic_id);
    tcase_add_test(tests, test_frequencies_and_options_are_told);
    tcase_add_test(tests, test_kvm_takes_each_level_or_the_host_lacks_it);
    suite_add_tcase(suite, tests);
    return unit_main_with_kvm(suite, "test_cpuid");
}
