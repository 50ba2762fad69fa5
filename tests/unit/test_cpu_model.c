/* SPDX-License-Identifier: MIT */
/* Levels out of made-up hosts, and which guest can go on at which host. */
#include "tests/unit/unit.h"
#include "vmm/x86/cpu_features.h"
#include "vmm/x86/cpu_model.h"
#include "vmm/x86/cpuid.h"
#include <cpuid.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WIDE = 46 }; /* address bits of made-up hosts */

/* --- made-up hosts -------------------------------------------------------------------------- */

static struct kvm_cpuid_entry2 *leaf(struct kvm_x86_cpuid *cpuid, uint32_t function, uint32_t index)
{
    struct kvm_cpuid_entry2 *entry = cpuid_find(cpuid, function, index);
    if (entry)
        return entry;
    ck_assert_uint_lt(cpuid->count, KVM_X86_MAX_CPUID);
    entry = &cpuid->entries[cpuid->count++];
    *entry = (struct kvm_cpuid_entry2){.function = function, .index = index};
    return entry;
}

static uint32_t *at(struct kvm_cpuid_entry2 *entry, enum cpuid_register reg)
{
    uint32_t *const regs[] = {&entry->eax, &entry->ebx, &entry->ecx, &entry->edx};
    return regs[reg];
}

static uint32_t *word_at(struct kvm_x86_cpuid *cpuid, size_t i)
{
    const struct cpu_feature_word *word = &cpu_feature_words[i];
    return at(leaf(cpuid, word->function, word->index), word->reg);
}

/* Of the table: which word, which bit. */
static size_t find_feature(const char *name, unsigned *ret_bit)
{
    for (size_t i = 0; i < CPU_FEATURE_WORDS; i++)
        for (unsigned bit = 0; bit < 32; bit++)
            if (cpu_feature_words[i].bits[bit].name &&
                strcmp(cpu_feature_words[i].bits[bit].name, name) == 0) {
                *ret_bit = bit;
                return i;
            }
    ck_abort_msg("%s", name);
    return 0;
}

static void set(struct kvm_x86_cpuid *cpuid, const char *name, bool on)
{
    unsigned bit;
    uint32_t *word = word_at(cpuid, find_feature(name, &bit));
    *word = on ? *word | 1u << bit : *word & ~(1u << bit);
}

static bool has(struct kvm_x86_cpuid *cpuid, const char *name)
{
    unsigned bit;
    size_t word = find_feature(name, &bit);
    return *word_at(cpuid, word) >> bit & 1;
}

static void set_vendor(struct kvm_x86_cpuid *cpuid, const char *name)
{
    struct kvm_cpuid_entry2 *entry = leaf(cpuid, 0, 0);
    memcpy(&entry->ebx, name, 4);
    memcpy(&entry->edx, name + 4, 4);
    memcpy(&entry->ecx, name + 8, 4);
}

struct place {
    uint32_t component, size, offset;
};

/* Intel keeps a gap where MPX was. */
static const struct place intel_places[] = {{2, 256, 576},   {5, 64, 1088}, {6, 512, 1152},
                                            {7, 1024, 1664}, {9, 8, 2688},  {17, 64, 2752}};
static const struct place amd_places[] = {
    {2, 256, 576}, {5, 64, 832}, {6, 512, 896}, {7, 1024, 1408}, {9, 8, 2432}};

static void add_places(struct kvm_x86_cpuid *cpuid, const struct place *places, size_t count)
{
    struct kvm_cpuid_entry2 *area = leaf(cpuid, 0xd, 0);
    area->eax = 3;
    for (size_t i = 0; i < count; i++) {
        struct kvm_cpuid_entry2 *entry = leaf(cpuid, 0xd, places[i].component);
        entry->eax = places[i].size;
        entry->ebx = places[i].offset;
        entry->flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
        area = leaf(cpuid, 0xd, 0);
        area->eax |= 1u << places[i].component;
        area->ebx = area->ecx = places[i].offset + places[i].size;
    }
}

static void add_common(struct kvm_x86_cpuid *cpuid, bool amd)
{
    set_vendor(cpuid, amd ? "AuthenticAMD" : "GenuineIntel");
    leaf(cpuid, 0, 0)->eax = 0x1f;
    *leaf(cpuid, 1, 0) = (struct kvm_cpuid_entry2){.function = 1, .eax = 0x806f8, .ebx = 0x20800};
    leaf(cpuid, 4, 0)->eax = 0x121;
    leaf(cpuid, 6, 0)->eax = 0x77;
    leaf(cpuid, 7, 0)->eax = 2;
    memcpy(&leaf(cpuid, 0x40000000, 0)->ebx, "KVMK", 4);
    leaf(cpuid, 0x80000000, 0)->eax = 0x80000021;
    leaf(cpuid, 0x80000006, 0)->ecx = 0x8007040;
    leaf(cpuid, 0x80000008, 0)->eax = 57u << 8 | WIDE;
    for (uint32_t i = 0; i < 3; i++)
        leaf(cpuid, 0x80000002 + i, 0)->eax = 0x41414141;
}

/* Has what the level demands and nothing else; CPU_HOST: nothing at all. */
static void least(struct kvm_x86_cpuid *cpuid, enum cpu_model level, bool amd)
{
    *cpuid = (struct kvm_x86_cpuid){0};
    add_common(cpuid, amd);
    for (size_t i = 0; i < CPU_FEATURE_WORDS; i++)
        for (unsigned bit = 0; bit < 32; bit++) {
            unsigned kind = cpu_feature_words[i].bits[bit].kind;
            if (kind > CPU_HOST && kind <= (unsigned)level)
                *word_at(cpuid, i) |= 1u << bit;
        }
    size_t count = level == CPU_X86_64_V4 ? 4 : level == CPU_X86_64_V3 ? 1 : 0;
    if (count)
        add_places(cpuid, amd ? amd_places : intel_places, count);
}

/* Has every bit there is, with or without a name, but guards. */
static void most(struct kvm_x86_cpuid *cpuid, bool amd)
{
    *cpuid = (struct kvm_x86_cpuid){0};
    for (size_t i = 0; i < CPU_FEATURE_WORDS; i++)
        *word_at(cpuid, i) = UINT32_MAX;
    add_common(cpuid, amd);
    *word_at(cpuid, 0) = *word_at(cpuid, 1) = UINT32_MAX; /* leaf 1 */
    add_places(cpuid, amd ? amd_places : intel_places,
               amd ? array_size(amd_places) : array_size(intel_places));
    static const uint32_t others[] = {0x15, 0x16, 0x19, 0x1d, 0x1e, 0x8000000a, 0x8000001f};
    for (size_t i = 0; i < array_size(others); i++)
        leaf(cpuid, others[i], 0)->eax = UINT32_MAX;
    set(cpuid, "spec_ctrl", false);
    set(cpuid, "intel_stibp", false);
    set(cpuid, "ssbd", false);
    set(cpuid, "md_clear", false);
    set(cpuid, "ibpb", false);
}

static void apply(struct kvm_x86_cpuid *cpuid, enum cpu_model level)
{
    struct err err = {0};
    int ret = cpu_model_apply(cpuid, level, CPU_MODEL_ADDRESS_BITS, &err);
    ck_assert_msg(ret == 0, "%s", err.text);
}

static void check_refused(const struct kvm_x86_cpuid *host, const struct kvm_x86_cpuid *wanted,
                          const char *text, const char *hint)
{
    struct err err = {0};
    ck_assert_int_eq(cpu_model_check(host, wanted, &err), -ENOTSUP);
    ck_assert_int_eq(err.kind, ERR_HOST);
    ck_assert_str_eq(err.text, text);
    ck_assert_str_eq(err.hint, hint);
}

static void check_taken(const struct kvm_x86_cpuid *host, const struct kvm_x86_cpuid *wanted)
{
    struct err err = {0};
    int ret = cpu_model_check(host, wanted, &err);
    ck_assert_msg(ret == 0, "%s", err.text);
}

/* --- the table ------------------------------------------------------------------------------ */

START_TEST(every_feature_has_one_name_and_every_name_one_feature)
{
    unsigned named = 0;
    for (size_t i = 0; i < CPU_FEATURE_WORDS; i++) {
        const struct cpu_feature_word *word = &cpu_feature_words[i];
        for (size_t j = 0; j < i; j++)
            ck_assert(word->function != cpu_feature_words[j].function ||
                      word->index != cpu_feature_words[j].index ||
                      word->reg != cpu_feature_words[j].reg);
        for (unsigned bit = 0; bit < 32; bit++) {
            const char *name = word->bits[bit].name;
            unsigned found;
            if (!name) { /* what has no name is in no model */
                ck_assert_int_eq(word->bits[bit].kind, CPU_FEATURE_HOST_ONLY);
                continue;
            }
            ck_assert(!(word->quiet >> bit & 1));
            ck_assert_msg(find_feature(name, &found) == i && found == bit, "%s is there twice",
                          name);
            named++;
        }
    }
    ck_assert_uint_gt(named, 200);
}
END_TEST

/* What Linux shows it makes up itself. */
static bool is_made_up(const struct cpu_feature_word *word)
{
    return word->function == 0x80000008 || word->function == 0x80000021 ||
           (word->function == 7 && word->index == 0 && word->reg == CPUID_EDX);
}

START_TEST(names_are_those_of_proc_cpuinfo)
{
    char line[8192] = "", wanted[64];
    FILE *file = fopen("/proc/cpuinfo", "re");
    ck_assert_ptr_nonnull(file);
    while (fgets(line, sizeof(line), file) && strncmp(line, "flags", 5) != 0)
        ;
    fclose(file);
    line[strcspn(line, "\n")] = ' ';
    unsigned seen = 0;
    for (size_t i = 0; i < CPU_FEATURE_WORDS; i++) {
        const struct cpu_feature_word *word = &cpu_feature_words[i];
        struct kvm_cpuid_entry2 is = {0};
        __get_cpuid_count(word->function, word->index, &is.eax, &is.ebx, &is.ecx, &is.edx);
        for (unsigned bit = 0; bit < 32 && !is_made_up(word); bit++) {
            if (!word->bits[bit].name)
                continue;
            snprintf(wanted, sizeof(wanted), " %s ", word->bits[bit].name);
            if (!strstr(line, wanted))
                continue;
            ck_assert_msg(*at(&is, word->reg) >> bit & 1, "%s", word->bits[bit].name);
            seen++;
        }
    }
    ck_assert_uint_gt(seen, 30);
}
END_TEST

/* As the x86-64 psABI has them. */
static const struct {
    enum cpu_model level;
    const char *names[20];
} psabi[] = {
    {CPU_X86_64_V2,
     {"cmov", "cx8", "fpu", "fxsr", "mmx", "syscall", "sse", "sse2", "cx16", "lahf_lm", "popcnt",
      "pni", "sse4_1", "sse4_2", "ssse3"}},
    {CPU_X86_64_V3, {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"}},
    {CPU_X86_64_V4, {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}},
};

START_TEST(a_level_demands_what_the_psabi_does)
{
    for (size_t i = 0; i < array_size(psabi); i++)
        for (size_t j = 0; psabi[i].names[j]; j++) {
            struct kvm_x86_cpuid host;
            struct err err = {0};
            char wanted[64];
            least(&host, psabi[i].level, false);
            ck_assert_int_eq(cpu_model_best(&host), psabi[i].level);
            set(&host, psabi[i].names[j], false);
            ck_assert_int_eq(cpu_model_best(&host), psabi[i].level - 1);
            ck_assert_int_eq(cpu_model_apply(&host, psabi[i].level, 39, &err), -ENOTSUP);
            snprintf(wanted, sizeof(wanted), "this host has no %s: it cannot", psabi[i].names[j]);
            ck_assert_msg(strncmp(err.text, wanted, strlen(wanted)) == 0, "%s", err.text);
        }
}
END_TEST

START_TEST(each_level_has_all_of_the_one_below)
{
    for (unsigned level = CPU_X86_64_V3; level <= CPU_X86_64_V4; level++) {
        struct kvm_x86_cpuid above, below;
        unsigned more = 0;
        most(&above, false);
        most(&below, false);
        apply(&above, (enum cpu_model)level);
        apply(&below, (enum cpu_model)(level - 1));
        for (size_t i = 0; i < CPU_FEATURE_WORDS; i++) {
            ck_assert_uint_eq(*word_at(&below, i) & ~*word_at(&above, i), 0);
            more += *word_at(&below, i) != *word_at(&above, i);
        }
        ck_assert_uint_gt(more, 0);
        check_taken(&above, &below);
        ck_assert_int_eq(cpu_model_check(&below, &above, NULL), -ENOTSUP);
    }
}
END_TEST

/* --- models --------------------------------------------------------------------------------- */

START_TEST(the_host_s_own_model_stays_as_it_is)
{
    struct kvm_x86_cpuid host, before;
    most(&host, false);
    before = host;
    ck_assert_int_eq(cpu_model_apply(&host, CPU_HOST, 0, NULL), 0);
    ck_assert_mem_eq(&host, &before, sizeof(host));
}
END_TEST

START_TEST(what_is_above_the_level_is_gone)
{
    static const char *const gone[] = {
        "amx_tile",  "pku",          "sha_ni",    "vaes",        "gfni",
        "la57",      "hle",          "umip",      "rdpid",       "user_shstk",
        "svm",       "topoext",      "xfd",       "nonstop_tsc", "avx_vnni",
        "osvw",      "kvm_async_pf", "virt_ssbd", "ss",          "arch_capabilities",
        "amd_ssb_no"};
    for (int amd = 0; amd < 2; amd++)
        for (unsigned level = CPU_X86_64_V2; level <= CPU_X86_64_V4; level++) {
            struct kvm_x86_cpuid cpuid;
            most(&cpuid, amd);
            apply(&cpuid, (enum cpu_model)level);
            for (size_t i = 0; i < array_size(gone); i++)
                ck_assert_msg(!has(&cpuid, gone[i]), "%s", gone[i]);
            ck_assert_int_eq(has(&cpuid, "avx512f"), level >= CPU_X86_64_V4);
            ck_assert_int_eq(has(&cpuid, "avx2"), level >= CPU_X86_64_V3);
            ck_assert(has(&cpuid, "nx") && has(&cpuid, "lm") && has(&cpuid, "pae"));
            ck_assert(has(&cpuid, "x2apic") && has(&cpuid, "hypervisor") && has(&cpuid, "ht"));
            ck_assert(has(&cpuid, "tsc_deadline_timer") && has(&cpuid, "kvm_clocksource2"));
            for (size_t i = 0; i < CPU_FEATURE_WORDS; i++)
                for (unsigned bit = 0; bit < 32; bit++)
                    if (!cpu_feature_words[i].bits[bit].name &&
                        !(cpu_feature_words[i].quiet >> bit & 1))
                        ck_assert_uint_eq(*word_at(&cpuid, i) >> bit & 1, 0);
        }
}
END_TEST

/* Leaves that only some hosts have, and registers that no level speaks of, make no difference. */
START_TEST(any_two_hosts_of_a_level_give_the_same_guest)
{
    for (int amd = 0; amd < 2; amd++)
        for (unsigned level = CPU_X86_64_V2; level <= CPU_X86_64_V4; level++) {
            struct kvm_x86_cpuid poor, rich, poor_host, rich_host;
            least(&poor_host, (enum cpu_model)level, amd);
            most(&rich_host, amd);
            poor = poor_host;
            rich = rich_host;
            apply(&poor, (enum cpu_model)level);
            apply(&rich, (enum cpu_model)level);
            check_taken(&poor_host, &rich);
            check_taken(&poor, &rich);
            check_taken(&rich_host, &poor);
            for (uint32_t i = 0; i < rich.count; i++) {
                struct kvm_cpuid_entry2 theirs = rich.entries[i];
                struct kvm_cpuid_entry2 ours = *leaf(&poor, theirs.function, theirs.index);
                ours.flags = theirs.flags;
                if (theirs.function == 1) { /* the VM's own bits are not made here */
                    ours.ecx |= 1u << 21 | 1u << 27 | 1u << 31;
                    ours.edx |= 1u << 28;
                } else if (theirs.function == 0x80000001) {
                    ours.ecx |= 1u << 1;
                } else if (theirs.function == 0x40000001) {
                    ours.eax |= 1u << 15;
                } else if (theirs.function == 7) {
                    ours.ecx |= 1u << 4;
                }
                ck_assert_msg(memcmp(&ours, &theirs, sizeof(ours)) == 0, "leaf %x.%u of %s",
                              theirs.function, theirs.index, cpu_model_names[level]);
            }
        }
}
END_TEST

START_TEST(a_model_has_a_name_of_its_own_and_the_host_s_family)
{
    struct kvm_x86_cpuid cpuid;
    char brand[49] = "";
    most(&cpuid, false);
    apply(&cpuid, CPU_X86_64_V3);
    for (uint32_t i = 0; i < 3; i++)
        memcpy(brand + i * 16, &leaf(&cpuid, 0x80000002 + i, 0)->eax, 16);
    ck_assert_str_eq(brand, "minivmm x86-64-v3");
    ck_assert_uint_eq(leaf(&cpuid, 1, 0)->eax, 0x806f8);
    ck_assert_mem_eq(&leaf(&cpuid, 0, 0)->ebx, "Genu", 4);
    ck_assert_uint_eq(leaf(&cpuid, 0, 0)->eax, 0xd);
    ck_assert_uint_eq(leaf(&cpuid, 6, 0)->eax, 4); /* ARAT alone */
    ck_assert_uint_eq(leaf(&cpuid, 7, 0)->eax, 0);
    ck_assert_uint_eq(leaf(&cpuid, 0x80000000, 0)->eax, 0x80000008);
    ck_assert_uint_eq(leaf(&cpuid, 0x80000008, 0)->eax, 48u << 8 | CPU_MODEL_ADDRESS_BITS);
    ck_assert_ptr_null(cpuid_find(&cpuid, 0x1d, 0));
    ck_assert_ptr_null(cpuid_find(&cpuid, 0x7, 1));
    ck_assert_ptr_null(cpuid_find(&cpuid, 0x8000000a, 0));
}
END_TEST

START_TEST(amd_says_twice_what_leaf_1_says)
{
    struct kvm_x86_cpuid cpuid;
    most(&cpuid, true);
    apply(&cpuid, CPU_X86_64_V3);
    uint32_t copies = leaf(&cpuid, 0x80000001, 0)->edx & CPU_FEATURE_AMD_COPIES;
    ck_assert_uint_eq(copies, leaf(&cpuid, 1, 0)->edx & CPU_FEATURE_AMD_COPIES);
    ck_assert_uint_ne(copies, 0);
}
END_TEST

START_TEST(the_xsave_area_has_what_the_level_has)
{
    static const struct {
        enum cpu_model level;
        bool amd;
        uint32_t components, size, compact;
    } cases[] = {
        {CPU_X86_64_V3, false, 0x7, 832, 0},
        {CPU_X86_64_V3, true, 0x7, 832, 0},
        {CPU_X86_64_V4, false, 0xe7, 2688, 2432},
        {CPU_X86_64_V4, true, 0xe7, 2432, 2432},
    };
    struct kvm_x86_cpuid cpuid;
    for (size_t i = 0; i < array_size(cases); i++) {
        most(&cpuid, cases[i].amd);
        apply(&cpuid, cases[i].level);
        const struct kvm_cpuid_entry2 *area = leaf(&cpuid, 0xd, 0), *compact = leaf(&cpuid, 0xd, 1);
        ck_assert_uint_eq(area->eax, cases[i].components);
        ck_assert_uint_eq(area->ebx, cases[i].size);
        ck_assert_uint_eq(area->ecx, cases[i].size);
        ck_assert_uint_eq(area->edx, 0);
        ck_assert_uint_eq(compact->ebx, cases[i].compact);
        ck_assert_uint_eq(compact->ecx | compact->edx, 0);
        for (uint32_t j = 2; j < 32; j++)
            ck_assert_int_eq(cpuid_find(&cpuid, 0xd, j) != NULL, cases[i].components >> j & 1);
    }
    most(&cpuid, false);
    apply(&cpuid, CPU_X86_64_V2);
    for (uint32_t j = 0; j < 64; j++)
        ck_assert_ptr_null(cpuid_find(&cpuid, 0xd, j));
}
END_TEST

START_TEST(a_host_that_lacks_the_level_is_told_what_and_nothing_changes)
{
    struct kvm_x86_cpuid host, before;
    struct err err = {0};
    least(&host, CPU_X86_64_V3, true);
    set(&host, "avx2", false);
    set(&host, "bmi2", false);
    before = host;
    ck_assert_int_eq(cpu_model_apply(&host, CPU_X86_64_V3, 39, &err), -ENOTSUP);
    ck_assert_int_eq(err.kind, ERR_HOST);
    ck_assert_str_eq(err.text, "this host has no avx2, bmi2: it cannot give a guest \"cpu\": "
                               "\"x86-64-v3\"; x86-64-v2 it can");
    ck_assert_int_eq(cpu_model_apply(&host, CPU_X86_64_V4, 39, &err), -ENOTSUP);
    ck_assert_mem_eq(&host, &before, sizeof(host));

    least(&host, CPU_HOST, true);
    ck_assert_int_eq(cpu_model_apply(&host, CPU_X86_64_V2, 39, &err), -ENOTSUP);
    ck_assert_msg(strstr(err.text, "fpu, de, pse, tsc, msr and ") && strstr(err.text, " more: "),
                  "%s", err.text);
    ck_assert_msg(strstr(err.text, "; \"host\" it can"), "%s", err.text);

    least(&host, CPU_X86_64_V3, true); /* a CPU with AVX, a kernel without */
    leaf(&host, 0xd, 0)->eax = 3;
    ck_assert_int_eq(cpu_model_apply(&host, CPU_X86_64_V3, 39, &err), -ENOTSUP);
    ck_assert_int_eq(cpu_model_apply(&host, CPU_X86_64_V2, 39, &err), 0);
}
END_TEST

START_TEST(addresses_are_no_wider_than_the_host_s)
{
    struct kvm_x86_cpuid host;
    struct err err = {0};
    least(&host, CPU_X86_64_V2, false);
    ck_assert_int_eq(cpu_model_apply(&host, CPU_X86_64_V2, WIDE + 1, &err), -ENOTSUP);
    ck_assert_str_eq(err.text, "this host's CPU has addresses of 46 bits: with \"cpu\": "
                               "\"x86-64-v2\" a guest of this size needs 47");
    ck_assert_int_eq(cpu_model_apply(&host, CPU_X86_64_V2, WIDE, &err), 0);
    ck_assert_uint_eq(leaf(&host, 0x80000008, 0)->eax, 48u << 8 | WIDE);
}
END_TEST

/* --- another host --------------------------------------------------------------------------- */

START_TEST(what_the_guest_has_and_this_host_lacks_is_named)
{
    struct kvm_x86_cpuid host, guest;
    least(&host, CPU_X86_64_V3, false);
    least(&guest, CPU_X86_64_V3, false);
    set(&guest, "avx512f", true);
    set(&guest, "avx512dq", true);
    check_refused(&host, &guest,
                  "this host lacks avx512f, avx512dq, which the guest was started with",
                  "start it with \"cpu\": \"x86-64-v3\" in vm.json to make it movable");

    least(&guest, CPU_X86_64_V4, false);
    check_refused(&host, &guest,
                  "this host lacks pcid, erms, invpcid, avx512f, avx512dq and 12 more, which the "
                  "guest was started with; the guest has an XSAVE area of 2688 bytes, this host "
                  "has 832",
                  "start it with \"cpu\": \"x86-64-v3\" in vm.json to make it movable");

    least(&host, CPU_X86_64_V2, false);
    set(&host, "sse4_2", false);
    least(&guest, CPU_X86_64_V2, false);
    check_refused(&host, &guest, "this host lacks sse4_2, which the guest was started with", "");

    least(&host, CPU_X86_64_V2, false);
    leaf(&guest, 7, 1)->eax = 1u << 15; /* nobody knows it, the guest might use it */
    check_refused(&host, &guest,
                  "this host lacks bit 15 of CPUID 7.1 EAX, which the guest was started with",
                  "start it with \"cpu\": \"x86-64-v2\" in vm.json to make it movable");
}
END_TEST

START_TEST(more_than_the_guest_needs_is_no_hindrance)
{
    struct kvm_x86_cpuid host, guest;
    for (unsigned level = CPU_X86_64_V2; level <= CPU_X86_64_V4; level++) {
        most(&host, false);
        least(&guest, (enum cpu_model)level, false);
        check_taken(&host, &guest);
        check_taken(&guest, &guest);
    }
    check_taken(&host, &host);
}
END_TEST

START_TEST(the_xsave_area_must_be_the_same_where_the_guest_uses_it)
{
    struct kvm_x86_cpuid host, guest;
    least(&host, CPU_X86_64_V3, false);
    least(&guest, CPU_X86_64_V3, false);
    leaf(&guest, 0xd, 0)->ecx = 2696;
    check_refused(&host, &guest, "the guest has an XSAVE area of 2696 bytes, this host has 832",
                  "start it with \"cpu\": \"x86-64-v3\" in vm.json to make it movable");

    least(&host, CPU_X86_64_V4, false); /* the same vendor, another layout */
    least(&guest, CPU_X86_64_V4, false);
    leaf(&guest, 0xd, 5)->ebx = 832;
    check_refused(&host, &guest,
                  "component 5 of the guest's XSAVE area is not the same on this host",
                  "start it with \"cpu\": \"x86-64-v3\" in vm.json to make it movable");
    leaf(&guest, 0xd, 5)->ebx = 1088;
    leaf(&host, 0xd, 0)->eax &= ~(1u << 6);
    check_refused(&host, &guest,
                  "component 6 of the guest's XSAVE area is not the same on this host",
                  "start it with \"cpu\": \"x86-64-v3\" in vm.json to make it movable");
}
END_TEST

START_TEST(nobody_moves_between_vendors)
{
    struct kvm_x86_cpuid host, guest;
    least(&host, CPU_X86_64_V2, true);
    least(&guest, CPU_X86_64_V2, false);
    check_refused(&host, &guest,
                  "this host's CPU is of AuthenticAMD, and the guest was started on one of "
                  "GenuineIntel",
                  "");
    set_vendor(&guest, "\033[2J\r\nEvil\xff\x01");
    check_refused(&host, &guest,
                  "this host's CPU is of AuthenticAMD, and the guest was started on one of "
                  "?[2J??Evil??",
                  "");
}
END_TEST

START_TEST(what_the_vm_itself_brings_is_never_missing)
{
    static const char *const ours[] = {"x2apic",      "hypervisor", "ht",
                                       "osxsave",     "ospke",      "kvm_msi_ext_dest_id",
                                       "cmp_legacy",  "amd_ssb_no", "rtm_always_abort",
                                       "zero_fcs_fds"};
    struct kvm_x86_cpuid host, guest;
    least(&host, CPU_X86_64_V3, true);
    guest = host;
    for (size_t i = 0; i < array_size(ours); i++)
        set(&guest, ours[i], true);
    cpuid_set_vcpu(&guest, 200);
    leaf(&guest, 1, 0)->eax = 0x12345;
    leaf(&guest, 0xb, 1)->ebx = 300;
    leaf(&guest, 0x4, 3)->eax = UINT32_MAX;
    leaf(&guest, 0x80000001, 0)->edx |= CPU_FEATURE_AMD_COPIES;
    leaf(&guest, 0x40000010, 0)->eax = 2100000;
    leaf(&guest, 0xd, 0)->ebx = 2696; /* KVM's, by what the guest has switched on */
    check_taken(&host, &guest);
}
END_TEST

START_TEST(guards_stay_and_part_hosts_that_are_up_to_date_from_others)
{
    struct kvm_x86_cpuid intel, amd, bare;
    most(&intel, false);
    most(&amd, true);
    set(&intel, "spec_ctrl", true);
    set(&intel, "ibpb", true);
    set(&amd, "spec_ctrl", true);
    set(&amd, "ibpb", true);
    apply(&intel, CPU_X86_64_V3);
    apply(&amd, CPU_X86_64_V3);
    ck_assert(has(&intel, "spec_ctrl") && !has(&intel, "ibpb"));
    ck_assert(!has(&amd, "spec_ctrl") && has(&amd, "ibpb"));
    most(&bare, true);
    check_refused(&bare, &amd, "this host lacks ibpb, which the guest was started with",
                  "bring this host's microcode and kernel up to date");
    set(&bare, "ibpb", true);
    check_taken(&bare, &amd);
}
END_TEST

START_TEST(wider_addresses_are_missed)
{
    struct kvm_x86_cpuid host, guest;
    least(&host, CPU_X86_64_V3, false);
    guest = host;
    leaf(&guest, 0x80000008, 0)->eax = 48u << 8 | 52;
    check_refused(&host, &guest,
                  "this host's CPU has addresses of 46 bits, and the guest was started with 52",
                  "start it with \"cpu\": \"x86-64-v3\" in vm.json to make it movable");
}
END_TEST

/* A CPUID that came over the wire: counts that lie, leaves that are there twice, any number. */
START_TEST(a_hostile_guest_s_cpuid_is_only_read)
{
    struct kvm_x86_cpuid host, guest;
    unsigned refused = 0;
    srandom(5);
    most(&host, false);
    for (int round = 0; round < 2000; round++) {
        struct err err = {0};
        least(&guest, (enum cpu_model)(round % 4), false);
        for (int i = 0; i < 20; i++) {
            uint32_t *words = (uint32_t *)(void *)guest.entries;
            words[(unsigned)random() % (sizeof(guest.entries) / 4)] = (uint32_t)random() * 3;
        }
        guest.count = round % 3 == 0 ? UINT32_MAX : round % 3 == 1 ? 400 : guest.count;
        if (cpu_model_check(&host, &guest, &err) < 0) {
            ck_assert_int_gt(strlen(err.text), 0);
            for (const char *c = err.text; *c; c++)
                ck_assert(*c >= ' ' && *c <= '~');
            refused++;
        }
    }
    ck_assert_uint_gt(refused, 0);
    guest = (struct kvm_x86_cpuid){0};
    ck_assert_int_eq(cpu_model_check(&host, &guest, NULL), -ENOTSUP);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cpu_model");
    TCase *table = tcase_create("table");
    tcase_add_test(table, every_feature_has_one_name_and_every_name_one_feature);
    tcase_add_test(table, names_are_those_of_proc_cpuinfo);
    tcase_add_test(table, a_level_demands_what_the_psabi_does);
    tcase_add_test(table, each_level_has_all_of_the_one_below);
    suite_add_tcase(suite, table);
    TCase *models = tcase_create("models");
    tcase_add_test(models, the_host_s_own_model_stays_as_it_is);
    tcase_add_test(models, what_is_above_the_level_is_gone);
    tcase_add_test(models, any_two_hosts_of_a_level_give_the_same_guest);
    tcase_add_test(models, a_model_has_a_name_of_its_own_and_the_host_s_family);
    tcase_add_test(models, amd_says_twice_what_leaf_1_says);
    tcase_add_test(models, the_xsave_area_has_what_the_level_has);
    tcase_add_test(models, a_host_that_lacks_the_level_is_told_what_and_nothing_changes);
    tcase_add_test(models, addresses_are_no_wider_than_the_host_s);
    suite_add_tcase(suite, models);
    TCase *hosts = tcase_create("hosts");
    tcase_set_timeout(hosts, 60);
    tcase_add_test(hosts, what_the_guest_has_and_this_host_lacks_is_named);
    tcase_add_test(hosts, more_than_the_guest_needs_is_no_hindrance);
    tcase_add_test(hosts, the_xsave_area_must_be_the_same_where_the_guest_uses_it);
    tcase_add_test(hosts, nobody_moves_between_vendors);
    tcase_add_test(hosts, what_the_vm_itself_brings_is_never_missing);
    tcase_add_test(hosts, guards_stay_and_part_hosts_that_are_up_to_date_from_others);
    tcase_add_test(hosts, wider_addresses_are_missed);
    tcase_add_test(hosts, a_hostile_guest_s_cpuid_is_only_read);
    suite_add_tcase(suite, hosts);
    return unit_main(suite);
}
