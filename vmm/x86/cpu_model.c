/* SPDX-License-Identifier: MIT */
/*
 * A level is a closed list: what it does not name is not there, so that two hosts of the level give
 * the same guest, whatever else they can. The features are in cpu_features.c; beside them:
 *
 *   vendor        the host's: guests ask for it before they use what only one vendor has, and AMD
 *                 and Intel differ in more than CPUID says. A guest does not move between vendors
 *   family,       the host's: by them a guest's kernel finds the errata of its CPU, and made-up
 *   model,        numbers would hide these. They are no promise of instructions, so a guest may
 * move stepping      with them; it keeps what it does against the errata of the host where it
 * booted brand string  "minivmm x86-64-v3" leaves        those that every host of the level has,
 * none above 0xD and 0x80000008 caches        the host's: sizes by which programs choose block
 * sizes, and nothing more addresses     as few bits as memory and devices need; linear ones of 48
 * bits XSAVE         the components of the features that are left, in the host's layout
 */
#include "vmm/x86/cpu_model.h"

#include "vmm/x86/cpu_features.h"
#include "vmm/x86/cpuid.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

const char *const cpu_model_names[] = {[CPU_HOST] = "host",
                                       [CPU_X86_64_V2] = "x86-64-v2",
                                       [CPU_X86_64_V3] = "x86-64-v3",
                                       [CPU_X86_64_V4] = "x86-64-v4",
                                       NULL};

enum { HIGHEST_BASIC = 0xd, XSAVE_LEGACY = 576 };
#define HIGHEST_EXTENDED 0x80000008u

/* x87 and SSE, AVX, AVX-512's three. */
static uint64_t components_of(enum cpu_model model)
{
    static const uint64_t components[] = {
        [CPU_X86_64_V2] = 0, [CPU_X86_64_V3] = 0x7, [CPU_X86_64_V4] = 0xe7};
    return components[model];
}

/* --- reading ------------------------------------------------------------------------------ */

static uint32_t *reg_of(struct kvm_cpuid_entry2 *entry, enum cpuid_register reg)
{
    uint32_t *const regs[] = {&entry->eax, &entry->ebx, &entry->ecx, &entry->edx};
    return regs[reg];
}

/* A leaf that is not there reads zero, as it does for the guest. */
static struct kvm_cpuid_entry2 leaf_of(const struct kvm_x86_cpuid *cpuid, uint32_t function,
                                       uint32_t index)
{
    const struct kvm_cpuid_entry2 *entry = cpuid_find(cpuid, function, index);
    return entry ? *entry : (struct kvm_cpuid_entry2){0};
}

static uint32_t word_of(const struct kvm_x86_cpuid *cpuid, const struct cpu_feature_word *word)
{
    struct kvm_cpuid_entry2 entry = leaf_of(cpuid, word->function, word->index);
    return *reg_of(&entry, word->reg);
}

static uint64_t components_in(const struct kvm_x86_cpuid *cpuid)
{
    struct kvm_cpuid_entry2 entry = leaf_of(cpuid, 0xd, 0);
    return entry.eax | (uint64_t)entry.edx << 32;
}

/* --- what is missing ---------------------------------------------------------------------- */

enum { A_FEW = 5 };
struct missing {
    char names[200]; /* of the first few */
    unsigned count;
    bool guard;
};

static void miss(struct missing *missing, const char *name)
{
    size_t used = strlen(missing->names);
    if (missing->count++ < A_FEW)
        snprintf(missing->names + used, sizeof(missing->names) - used, "%s%s", used ? ", " : "",
                 name);
}

/* " and 3 more", behind the names. */
static const char *more(const struct missing *missing, char to[24])
{
    to[0] = '\0';
    if (missing->count > A_FEW)
        snprintf(to, 24, " and %u more", missing->count - A_FEW);
    return to;
}

/* What the level demands and this CPU has not. */
static void miss_level(struct missing *missing, const struct kvm_x86_cpuid *cpuid,
                       enum cpu_model model)
{
    for (size_t i = 0; i < CPU_FEATURE_WORDS; i++) {
        const struct cpu_feature_word *word = &cpu_feature_words[i];
        uint32_t is = word_of(cpuid, word);
        for (unsigned bit = 0; bit < 32; bit++) {
            unsigned since = word->bits[bit].kind;
            if (since > CPU_HOST && since <= (unsigned)model && !(is >> bit & 1))
                miss(missing, word->bits[bit].name);
        }
    }
    if (missing->count == 0 && (components_of(model) & ~components_in(cpuid)) != 0)
        miss(missing, "XSAVE of all its registers");
}

static bool gives(const struct kvm_x86_cpuid *cpuid, enum cpu_model model)
{
    struct missing missing = {0};
    miss_level(&missing, cpuid, model);
    return missing.count == 0;
}

enum cpu_model cpu_model_best(const struct kvm_x86_cpuid *host)
{
    unsigned model = CPU_X86_64_V4;
    while (model > CPU_HOST && !gives(host, (enum cpu_model)model))
        model--;
    return (enum cpu_model)model;
}

/* --- a model ------------------------------------------------------------------------------ */

static int check_level(const struct kvm_x86_cpuid *host, enum cpu_model model,
                       unsigned address_bits, struct err *err)
{
    struct missing missing = {0};
    char end[24];
    unsigned bits = leaf_of(host, 0x80000008, 0).eax & 0xff;
    miss_level(&missing, host, model);
    if (missing.count > 0) {
        enum cpu_model best = cpu_model_best(host);
        int ret = err_say(err, ERR_HOST, ENOTSUP,
                          "this host has no %s%s: it cannot give a guest \"cpu\": \"%s\"; %s%s%s "
                          "it can",
                          missing.names, more(&missing, end), cpu_model_names[model],
                          best ? "" : "\"", cpu_model_names[best], best ? "" : "\"");
        err_hint(err, "\"cpu\": \"host\" gives the guest all that this host has");
        return ret;
    }
    if (bits < address_bits)
        return err_say(err, ERR_HOST, ENOTSUP,
                       "this host's CPU has addresses of %u bits: with \"cpu\": \"%s\" a guest of "
                       "this size needs %u",
                       bits, cpu_model_names[model], address_bits);
    return 0;
}

/* The bits of a word that the model has, out of those of the host. */
static uint32_t mask_of(const struct cpu_feature_word *word, enum cpu_model model, bool amd)
{
    enum cpu_feature_kind guard = amd ? CPU_FEATURE_GUARD_AMD : CPU_FEATURE_GUARD_INTEL;
    uint32_t mask = 0;
    for (unsigned bit = 0; bit < 32; bit++) {
        unsigned kind = word->bits[bit].kind;
        bool since = kind > CPU_HOST && kind <= (unsigned)model;
        if (since || kind == guard || kind == CPU_FEATURE_OURS)
            mask |= 1u << bit;
    }
    return mask;
}

/* The leaves of a model, and which of their registers are the host's. All others are features, or
 * said below, or zero. */
static const struct {
    uint32_t function;
    uint8_t host; /* EAX is bit 0 */
} leaves[] = {
    {0x0, 0xe},        {0x1, 0x3},        {0x2, 0xf},        {0x4, 0xf},      {0x6, 0},
    {0x7, 0},          {0xd, 0xf},        {0x40000000, 0xf}, {0x40000001, 0}, {0x80000000, 0},
    {0x80000001, 0x1}, {0x80000002, 0},   {0x80000003, 0},   {0x80000004, 0}, {0x80000005, 0xf},
    {0x80000006, 0xf}, {0x80000007, 0x0}, {0x80000008, 0},
};

static bool is_of_model(const struct kvm_cpuid_entry2 *entry, enum cpu_model model)
{
    if (entry->function == 0xd)
        return entry->index < 2 ? components_of(model) != 0
                                : entry->index < 64 && components_of(model) >> entry->index & 1;
    if (entry->function == 0x7 && entry->index != 0)
        return false;
    for (size_t i = 0; i < array_size(leaves); i++)
        if (leaves[i].function == entry->function)
            return true;
    return false;
}

static void cut_leaf(struct kvm_cpuid_entry2 *entry, enum cpu_model model, bool amd)
{
    struct kvm_cpuid_entry2 before = *entry;
    uint8_t host = 0;
    for (size_t i = 0; i < array_size(leaves); i++)
        if (leaves[i].function == entry->function)
            host = leaves[i].host;
    for (unsigned reg = CPUID_EAX; reg <= CPUID_EDX; reg++)
        if (!(host >> reg & 1))
            *reg_of(entry, (enum cpuid_register)reg) = 0;
    for (size_t i = 0; i < CPU_FEATURE_WORDS; i++) {
        const struct cpu_feature_word *word = &cpu_feature_words[i];
        if (word->function == entry->function && word->index == entry->index)
            *reg_of(entry, word->reg) = *reg_of(&before, word->reg) & mask_of(word, model, amd);
    }
}

static void cut_leaves(struct kvm_x86_cpuid *cpuid, enum cpu_model model)
{
    bool amd = cpuid_is_amd(cpuid);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < cpuid->count; i++) {
        if (!is_of_model(&cpuid->entries[i], model))
            continue;
        cpuid->entries[kept] = cpuid->entries[i];
        cut_leaf(&cpuid->entries[kept++], model, amd);
    }
    cpuid->count = kept;
    struct kvm_cpuid_entry2 *entry = cpuid_find(cpuid, 0x80000001, 0);
    if (amd && entry)
        entry->edx |= leaf_of(cpuid, 1, 0).edx & CPU_FEATURE_AMD_COPIES;
}

/*
 * Sizes of the whole area: in the standard form each component has its own place, compacted they
 * stand one after the other, some at a multiple of 64 (bit 1 of ECX).
 */
static void describe_xsave(struct kvm_x86_cpuid *cpuid, enum cpu_model model)
{
    uint64_t components = components_of(model);
    uint32_t standard = XSAVE_LEGACY, compact = XSAVE_LEGACY;
    for (uint32_t i = 2; i < 63; i++) {
        struct kvm_cpuid_entry2 *entry = cpuid_find(cpuid, 0xd, i);
        if (!entry || !(components >> i & 1))
            continue;
        standard = entry->ebx + entry->eax > standard ? entry->ebx + entry->eax : standard;
        compact = (entry->ecx & 2 ? (compact + 63) & ~63u : compact) + entry->eax;
    }
    struct kvm_cpuid_entry2 *entry = cpuid_find(cpuid, 0xd, 0);
    if (entry) {
        entry->eax = (uint32_t)components;
        entry->edx = (uint32_t)(components >> 32);
        entry->ebx = entry->ecx = standard;
    }
    entry = cpuid_find(cpuid, 0xd, 1);
    if (entry) {
        entry->ebx = model >= CPU_X86_64_V4 ? compact : 0;
        entry->ecx = entry->edx = 0; /* no supervisor states */
    }
}

static void describe_brand(struct kvm_x86_cpuid *cpuid, enum cpu_model model)
{
    char brand[48] = "";
    snprintf(brand, sizeof(brand), "minivmm %s", cpu_model_names[model]);
    for (uint32_t i = 0; i < 3; i++) {
        struct kvm_cpuid_entry2 *entry = cpuid_find(cpuid, 0x80000002 + i, 0);
        for (unsigned reg = CPUID_EAX; entry && reg <= CPUID_EDX; reg++)
            memcpy(reg_of(entry, (enum cpuid_register)reg), brand + i * 16 + reg * 4, 4);
    }
}

static void set_eax(struct kvm_x86_cpuid *cpuid, uint32_t function, uint32_t eax)
{
    struct kvm_cpuid_entry2 *entry = cpuid_find(cpuid, function, 0);
    if (entry)
        entry->eax = eax;
}

int cpu_model_apply(struct kvm_x86_cpuid *cpuid, enum cpu_model model, unsigned address_bits,
                    struct err *err)
{
    if (model == CPU_HOST)
        return 0;
    int ret = check_level(cpuid, model, address_bits, err);
    if (ret < 0)
        return ret;
    cut_leaves(cpuid, model);
    describe_xsave(cpuid, model);
    describe_brand(cpuid, model);
    set_eax(cpuid, 0x0, HIGHEST_BASIC);
    set_eax(cpuid, 0x6, 1u << 2); /* the APIC timer always runs: KVM's does */
    set_eax(cpuid, 0x80000000, HIGHEST_EXTENDED);
    set_eax(cpuid, 0x80000008, 48u << 8 | address_bits);
    return 0;
}

/* --- another host ------------------------------------------------------------------------- */

/* "GenuineIntel", in the registers' order EBX, EDX, ECX; of a state it may be anything. */
static void name_vendor(const struct kvm_x86_cpuid *cpuid, char to[13])
{
    struct kvm_cpuid_entry2 entry = leaf_of(cpuid, 0, 0);
    memcpy(to, &entry.ebx, 4);
    memcpy(to + 4, &entry.edx, 4);
    memcpy(to + 8, &entry.ecx, 4);
    to[12] = '\0';
    for (int i = 0; i < 12; i++)
        if (to[i] < ' ' || to[i] > '~')
            to[i] = '?';
}

static void miss_features(struct missing *missing, const struct kvm_x86_cpuid *host,
                          const struct kvm_x86_cpuid *wanted)
{
    for (size_t i = 0; i < CPU_FEATURE_WORDS; i++) {
        const struct cpu_feature_word *word = &cpu_feature_words[i];
        uint32_t lacks = word_of(wanted, word) & ~word_of(host, word);
        for (unsigned bit = 0; bit < 32; bit++) {
            if (!(lacks >> bit & 1) || !cpu_feature_counts(word, bit))
                continue;
            char name[48];
            cpu_feature_describe(word, bit, name, sizeof(name));
            miss(missing, name);
            missing->guard |= word->bits[bit].kind == CPU_FEATURE_GUARD_INTEL ||
                              word->bits[bit].kind == CPU_FEATURE_GUARD_AMD;
        }
    }
}

/* The first of these components that `wanted` has in its XSAVE area and `host` not, or not there;
 * 0: none (that is x87, which everybody has). */
static uint32_t odd_component(const struct kvm_x86_cpuid *host, const struct kvm_x86_cpuid *wanted,
                              uint64_t components)
{
    for (uint32_t i = 2; i < 63; i++) {
        struct kvm_cpuid_entry2 here = leaf_of(host, 0xd, i), there = leaf_of(wanted, 0xd, i);
        bool same = components_in(host) >> i & 1 && here.eax == there.eax && here.ebx == there.ebx;
        if ((components & components_in(wanted)) >> i & 1 && !same)
            return i;
    }
    return 0;
}

static bool has_xsave(const struct kvm_x86_cpuid *host, const struct kvm_x86_cpuid *wanted,
                      char *why, size_t room)
{
    uint32_t here = leaf_of(host, 0xd, 0).ecx, there = leaf_of(wanted, 0xd, 0).ecx;
    uint32_t odd = odd_component(host, wanted, ~0ull);
    if (there > here)
        snprintf(why, room, "the guest has an XSAVE area of %u bytes, this host has %u", there,
                 here);
    else if (odd)
        snprintf(why, room, "component %u of the guest's XSAVE area is not the same on this host",
                 odd);
    return there <= here && !odd;
}

/* Where a level would have helped, which. */
static void hint_at_model(const struct kvm_x86_cpuid *host, const struct kvm_x86_cpuid *wanted,
                          const struct missing *missing, struct err *err)
{
    if (missing->guard) {
        err_hint(err, "bring this host's microcode and kernel up to date");
        return;
    }
    for (unsigned i = CPU_X86_64_V4; i > CPU_HOST; i--) {
        enum cpu_model model = (enum cpu_model)i;
        if (!gives(host, model) || !gives(wanted, model) ||
            odd_component(host, wanted, components_of(model)))
            continue;
        err_hint(err, "start it with \"cpu\": \"%s\" in vm.json to make it movable",
                 cpu_model_names[model]);
        return;
    }
}

int cpu_model_check(const struct kvm_x86_cpuid *host, const struct kvm_x86_cpuid *wanted,
                    struct err *err)
{
    char ours[13], theirs[13], end[24], xsave[160] = "";
    name_vendor(host, ours);
    name_vendor(wanted, theirs);
    if (strcmp(ours, theirs) != 0)
        return err_say(err, ERR_HOST, ENOTSUP,
                       "this host's CPU is of %s, and the guest was started on one of %s", ours,
                       theirs);
    unsigned bits = leaf_of(host, 0x80000008, 0).eax & 0xff;
    unsigned wanted_bits = leaf_of(wanted, 0x80000008, 0).eax & 0xff;
    struct missing missing = {0};
    miss_features(&missing, host, wanted);
    bool fits = has_xsave(host, wanted, xsave, sizeof(xsave));
    int ret = 0;
    if (missing.count > 0)
        ret = err_say(err, ERR_HOST, ENOTSUP,
                      "this host lacks %s%s, which the guest was started with%s%s", missing.names,
                      more(&missing, end), fits ? "" : "; ", xsave);
    else if (!fits)
        ret = err_say(err, ERR_HOST, ENOTSUP, "%s", xsave);
    else if (wanted_bits > bits)
        ret = err_say(err, ERR_HOST, ENOTSUP,
                      "this host's CPU has addresses of %u bits, and the guest was started with %u",
                      bits, wanted_bits);
    if (ret < 0)
        hint_at_model(host, wanted, &missing, err);
    return ret;
}
