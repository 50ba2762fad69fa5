/* SPDX-License-Identifier: MIT */
/*
 * Bits by Intel's SDM volume 2 (CPUID) and AMD's APM volume 3 appendix E; names as Linux shows them
 * in /proc/cpuinfo; levels by the x86-64 psABI. What a level has here beyond the psABI is in every
 * CPU of that level, as they are sold and as KVM offers them to guests:
 *
 *   v2  (Nehalem, Bulldozer)          what Linux needs to run well in 64-bit mode, and KVM's calls
 *                                     (those of Linux 5.4 and later)
 *   v3  (Haswell, Excavator, Zen)     aes, pclmulqdq, rdrand, fsgsbase, smep, xsaveopt...
 *   v4  (Skylake-SP, Zen 4)           pcid and invpcid, which Zen has since its third generation,
 *                                     adx, rdseed, smap, 1 GiB pages, compacted XSAVE...
 *
 * In no model, although many CPUs have it:
 *   nonstop_tsc        the TSC of another host may tick at another rate; without the promise guests
 *                      take kvm-clock, which bears that
 *   arch_capabilities  it is there to say which attacks the CPU withstands. Another host's may
 *   and the "no" bits  not, and a guest that does not hear of it takes the careful way
 *   stibp, ibrs...     on AMD: the first Zen has only ibpb of all these
 *
 * Guards are kept where the host has them and are no part of the level: a guest with the level's
 * instructions alone would be open to its own processes. Intel's CPUs have those below with the
 * microcode of 2019 and later, AMD's have ibpb. So they part hosts that are up to date from those
 * that are not, and whoever wants to move a guest there is told so.
 */
#include "vmm/x86/cpu_features.h"

#include <stdio.h>

#define V2    ((enum cpu_feature_kind)CPU_X86_64_V2)
#define V3    ((enum cpu_feature_kind)CPU_X86_64_V3)
#define V4    ((enum cpu_feature_kind)CPU_X86_64_V4)
#define HOST  CPU_FEATURE_HOST_ONLY
#define INTEL CPU_FEATURE_GUARD_INTEL
#define AMD   CPU_FEATURE_GUARD_AMD
#define OURS  CPU_FEATURE_OURS
#define NOTE  CPU_FEATURE_NOTE

/* clang-format off */
const struct cpu_feature_word cpu_feature_words[CPU_FEATURE_WORDS] = {
    {0x1, 0, CPUID_EDX, .bits = {
        [0] = {"fpu", V2}, {"vme", HOST}, {"de", V2}, {"pse", V2}, {"tsc", V2}, {"msr", V2},
        {"pae", V2}, {"mce", V2},
        [8] = {"cx8", V2}, {"apic", V2}, [11] = {"sep", V2}, {"mtrr", V2}, {"pge", V2},
        {"mca", V2}, {"cmov", V2},
        [16] = {"pat", V2}, {"pse36", V2}, {"pn", HOST}, {"clflush", V2}, [21] = {"dts", HOST},
        {"acpi", HOST}, {"mmx", V2},
        [24] = {"fxsr", V2}, {"sse", V2}, {"sse2", V2}, {"ss", NOTE}, {"ht", OURS}, {"tm", HOST},
        {"ia64", HOST}, {"pbe", HOST}}},
    {0x1, 0, CPUID_ECX, .bits = {
        [0] = {"pni", V2}, {"pclmulqdq", V3}, {"dtes64", HOST}, {"monitor", HOST},
        {"ds_cpl", HOST}, {"vmx", HOST}, {"smx", HOST}, {"est", HOST},
        [8] = {"tm2", HOST}, {"ssse3", V2}, {"cid", HOST}, {"sdbg", HOST}, {"fma", V3},
        {"cx16", V2}, {"xtpr", HOST}, {"pdcm", HOST},
        [17] = {"pcid", V4}, {"dca", HOST}, {"sse4_1", V2}, {"sse4_2", V2}, {"x2apic", OURS},
        {"movbe", V3}, {"popcnt", V2},
        [24] = {"tsc_deadline_timer", V2}, {"aes", V3}, {"xsave", V3}, {"osxsave", OURS},
        {"avx", V3}, {"f16c", V3}, {"rdrand", V3}, {"hypervisor", OURS}}},
    {0x7, 0, CPUID_EBX, .bits = {
        [0] = {"fsgsbase", V3}, {"tsc_adjust", V3}, {"sgx", HOST}, {"bmi1", V3}, {"hle", HOST},
        {"avx2", V3}, {"fdp_excptn_only", NOTE}, {"smep", V3},
        [8] = {"bmi2", V3}, {"erms", V4}, {"invpcid", V4}, {"rtm", HOST}, {"cqm", HOST},
        {"zero_fcs_fds", NOTE}, {"mpx", HOST}, {"rdt_a", HOST},
        [16] = {"avx512f", V4}, {"avx512dq", V4}, {"rdseed", V4}, {"adx", V4}, {"smap", V4},
        {"avx512ifma", HOST}, {"pcommit", HOST}, {"clflushopt", V4},
        [24] = {"clwb", HOST}, {"intel_pt", HOST}, {"avx512pf", HOST}, {"avx512er", HOST},
        {"avx512cd", V4}, {"sha_ni", HOST}, {"avx512bw", V4}, {"avx512vl", V4}}},
    /* Bits 17 to 21 are a number (MAWAU). */
    {0x7, 0, CPUID_ECX, .quiet = 0x003e0000, .bits = {
        [0] = {"prefetchwt1", HOST}, {"avx512vbmi", HOST}, {"umip", HOST}, {"pku", HOST},
        {"ospke", OURS}, {"waitpkg", HOST}, {"avx512_vbmi2", HOST}, {"user_shstk", HOST},
        [8] = {"gfni", HOST}, {"vaes", HOST}, {"vpclmulqdq", HOST}, {"avx512_vnni", HOST},
        {"avx512_bitalg", HOST}, {"tme", HOST}, {"avx512_vpopcntdq", HOST},
        [16] = {"la57", HOST}, [22] = {"rdpid", HOST}, {"kl", HOST},
        [24] = {"bus_lock_detect", HOST}, {"cldemote", HOST}, [27] = {"movdiri", HOST},
        {"movdir64b", HOST}, {"enqcmd", HOST}, {"sgx_lc", HOST}, {"pks", HOST}}},
    {0x7, 0, CPUID_EDX, .bits = {
        [1] = {"sgx_keys", HOST}, {"avx512_4vnniw", HOST}, {"avx512_4fmaps", HOST}, {"fsrm", HOST},
        {"uintr", HOST},
        [8] = {"avx512_vp2intersect", HOST}, {"srbds_ctrl", HOST}, {"md_clear", INTEL},
        {"rtm_always_abort", NOTE}, [13] = {"tsx_force_abort", HOST}, {"serialize", HOST},
        {"hybrid_cpu", NOTE},
        [16] = {"tsxldtrk", HOST}, [18] = {"pconfig", HOST}, {"arch_lbr", HOST}, {"ibt", HOST},
        [22] = {"amx_bf16", HOST}, {"avx512_fp16", HOST},
        [24] = {"amx_tile", HOST}, {"amx_int8", HOST}, {"spec_ctrl", INTEL},
        {"intel_stibp", INTEL}, {"flush_l1d", HOST}, {"arch_capabilities", HOST},
        {"core_capabilities", HOST}, {"ssbd", INTEL}}},
    {0x7, 1, CPUID_EAX, .bits = {
        [0] = {"sha512", HOST}, {"sm3", HOST}, {"sm4", HOST}, {"rao_int", HOST},
        {"avx_vnni", HOST}, {"avx512_bf16", HOST}, {"lass", HOST}, {"cmpccxadd", HOST},
        [8] = {"arch_perfmon_ext", HOST}, [10] = {"fzrm", HOST}, {"fsrs", HOST}, {"fsrc", HOST},
        [17] = {"fred", HOST}, {"lkgs", HOST}, {"wrmsrns", HOST}, [21] = {"amx_fp16", HOST},
        {"hreset", HOST}, {"avx_ifma", HOST},
        [26] = {"lam", HOST}, {"msrlist", HOST}}},
    {0x7, 1, CPUID_EDX, .bits = {
        [4] = {"avx_vnni_int8", HOST}, {"avx_ne_convert", HOST},
        [8] = {"amx_complex", HOST}, [10] = {"avx_vnni_int16", HOST}, [14] = {"prefetchiti", HOST},
        [18] = {"cet_sss", NOTE}, {"avx10", HOST}}},
    {0x7, 2, CPUID_EDX, .bits = {
        [0] = {"intel_psfd", HOST}, {"ipred_ctrl", HOST}, {"rrsba_ctrl", HOST}, {"ddpd_u", HOST},
        {"bhi_ctrl", HOST}, {"mcdt_no", NOTE}}},
    {0xd, 1, CPUID_EAX, .bits = {
        [0] = {"xsaveopt", V3}, {"xsavec", V4}, {"xgetbv1", V4}, {"xsaves", V4}, {"xfd", HOST}}},
    {0x80000001, 0, CPUID_EDX, .quiet = CPU_FEATURE_AMD_COPIES, .bits = {
        [11] = {"syscall", V2},
        [19] = {"mp", NOTE}, {"nx", V2}, [22] = {"mmxext", HOST},
        [25] = {"fxsr_opt", HOST}, {"pdpe1gb", V4}, {"rdtscp", V3}, [29] = {"lm", V2},
        {"3dnowext", HOST}, {"3dnow", HOST}}},
    {0x80000001, 0, CPUID_ECX, .bits = {
        [0] = {"lahf_lm", V2}, {"cmp_legacy", OURS}, {"svm", HOST}, {"extapic", HOST},
        {"cr8_legacy", HOST}, {"abm", V3}, {"sse4a", HOST}, {"misalignsse", HOST},
        [8] = {"3dnowprefetch", V4}, {"osvw", HOST}, {"ibs", HOST}, {"xop", HOST},
        {"skinit", HOST}, {"wdt", HOST}, [15] = {"lwp", HOST},
        [16] = {"fma4", HOST}, {"tce", HOST}, [19] = {"nodeid_msr", HOST}, [21] = {"tbm", HOST},
        {"topoext", HOST}, {"perfctr_core", HOST},
        [24] = {"perfctr_nb", HOST}, [26] = {"bpext", HOST}, {"ptsc", HOST}, {"perfctr_llc", HOST},
        {"mwaitx", HOST}, {"addr_mask_ext", HOST}}},
    {0x80000007, 0, CPUID_EDX, .bits = {
        [0] = {"digital_temp", HOST},
        [8] = {"nonstop_tsc", HOST}, {"cpb", HOST}}},
    {0x80000008, 0, CPUID_EBX, .bits = {
        [0] = {"clzero", HOST}, {"irperf", HOST}, {"xsaveerptr", HOST}, [4] = {"rdpru", HOST},
        [8] = {"mcommit", HOST}, {"wbnoinvd", HOST}, [12] = {"ibpb", AMD}, [14] = {"ibrs", HOST},
        {"stibp", HOST},
        [16] = {"ibrs_always_on", NOTE}, {"stibp_always_on", NOTE}, {"ibrs_preferred", NOTE},
        {"ibrs_same_mode", NOTE}, {"no_efer_lmsle", NOTE}, [23] = {"amd_ppin", HOST},
        [24] = {"amd_ssbd", HOST}, {"virt_ssbd", HOST}, {"amd_ssb_no", NOTE}, {"cppc", HOST},
        {"amd_psfd", HOST}, {"btc_no", NOTE}, {"ibpb_ret", NOTE}, {"brs", HOST}}},
    {0x80000021, 0, CPUID_EAX, .bits = {
        [0] = {"no_nested_data_bp", NOTE}, {"fsgs_non_serializing", NOTE}, {"lfence_rdtsc", NOTE},
        [6] = {"null_sel_clr_base", NOTE}, {"upper_address_ignore", HOST},
        [8] = {"autoibrs", HOST}, {"no_smm_ctl_msr", NOTE}, {"amd_fsrs", NOTE}, {"amd_fsrc", NOTE},
        [13] = {"prefetch_ctl_msr", HOST},
        [17] = {"gp_on_user_cpuid", HOST}, {"epsf", NOTE}, [20] = {"prefetchi", HOST},
        [24] = {"eraps", NOTE}, [27] = {"sbpb", HOST}, {"ibpb_brtype", NOTE}, {"srso_no", NOTE},
        {"srso_user_kernel_no", NOTE}}},
    {0x40000001, 0, CPUID_EAX, .bits = {
        [0] = {"kvm_clocksource", V2}, {"kvm_nop_io_delay", V2}, {"kvm_mmu_op", HOST},
        {"kvm_clocksource2", V2}, {"kvm_async_pf", HOST}, {"kvm_steal_time", V2},
        {"kvm_pv_eoi", V2}, {"kvm_pv_unhalt", V2},
        [9] = {"kvm_pv_tlb_flush", V2}, {"kvm_async_pf_vmexit", HOST}, {"kvm_pv_send_ipi", V2},
        {"kvm_poll_control", V2}, {"kvm_pv_sched_yield", V2}, {"kvm_async_pf_int", HOST},
        {"kvm_msi_ext_dest_id", OURS},
        [16] = {"kvm_hc_map_gpa_range", HOST}, {"kvm_migration_control", HOST},
        [24] = {"kvm_clocksource_stable", V2}}},
};
/* clang-format on */

bool cpu_feature_counts(const struct cpu_feature_word *word, unsigned bit)
{
    enum cpu_feature_kind kind = word->bits[bit].kind;
    return !(word->quiet >> bit & 1) && kind != CPU_FEATURE_OURS && kind != CPU_FEATURE_NOTE;
}

void cpu_feature_describe(const struct cpu_feature_word *word, unsigned bit, char *to, size_t room)
{
    static const char *const registers[] = {"EAX", "EBX", "ECX", "EDX"};
    if (word->bits[bit].name)
        snprintf(to, room, "%s", word->bits[bit].name);
    else
        snprintf(to, room, "bit %u of CPUID %x.%x %s", bit, word->function, word->index,
                 registers[word->reg]);
}
