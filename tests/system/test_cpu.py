# SPDX-License-Identifier: MIT
"""CPU models: what a stock kernel sees of a level, and a host that lacks one."""

from test_boot import expect, expect_clean, minivmm, run_guest

SCRIPT = "grep -m2 -E '^(model name|flags)' /proc/cpuinfo; dmesg | grep clocksource"


def test_a_guest_of_level_v2(host):
    """With --cpu x86-64-v2 Linux boots, sees the level and nothing above it, and takes kvm-clock."""
    result = run_guest(host, minivmm(SCRIPT, "--cpu x86-64-v2"))
    assert result.code == 0, f"exit code {result.code}: {result.err}{result.out[-2000:]}"
    expect(result.out, "guest exit: 0", r"^model name\s*: minivmm x86-64-v2",
           "clocksource: Switched to clocksource kvm-clock")
    expect_clean(result.out)
    seen = set(next(line for line in result.out.splitlines() if line.startswith("flags")).split())
    assert {"sse4_2", "popcnt", "ssse3", "cx16", "lahf_lm", "x2apic", "hypervisor", "nx", "lm"} <= seen
    # What the lab's CPU has above the level.
    assert not {"aes", "pclmulqdq", "fsgsbase", "rdrand", "bmi1", "bmi2", "movbe", "smep", "adx", "la57", "svm"} & seen


def test_a_host_that_lacks_the_level(host):
    """The lab's CPU has no AVX: --cpu x86-64-v3 is refused with the names of what is missing, exit code 6."""
    result = run_guest(host, minivmm("true", "--cpu x86-64-v3"))
    assert result.code == 6, result.code
    expect(result.err, 'this host has no .*avx.*: it cannot give a guest "cpu": "x86-64-v3"; x86-64-v2 it can')
