# SPDX-License-Identifier: MIT
"""CPU models: what a stock kernel sees of a level, and a host that lacks one."""

from test_boot import FACTS, expect, expect_facts, minivmm, run_guest

SCRIPT = f"grep -m2 -E '^(model name|flags)' /proc/cpuinfo; dmesg | grep clocksource; {FACTS}"


def test_a_guest_of_level_v2(host):
    """An unmodified Debian kernel boots to user space with one vCPU, sees its memory, and powers off: exit 0.
    With --cpu x86-64-v2 it sees the level and nothing above it, and takes kvm-clock."""
    result = run_guest(host, minivmm(SCRIPT, "--cpus 1 --memory 256M --cpu x86-64-v2"))
    assert 180 < expect_facts(result, 1) < 256
    expect(result.out, "guest exit: 0", r"^model name\s*: minivmm x86-64-v2",
           "clocksource: Switched to clocksource kvm-clock")
    seen = set(next(line for line in result.out.splitlines() if line.startswith("flags")).split())
    assert {"sse4_2", "popcnt", "ssse3", "cx16", "lahf_lm", "x2apic", "hypervisor", "nx", "lm"} <= seen
    # What the lab's CPU has above the level.
    assert not {"aes", "pclmulqdq", "fsgsbase", "rdrand", "bmi1", "bmi2", "movbe", "smep", "adx", "la57", "svm"} & seen


def test_a_host_that_lacks_the_level(host):
    """The lab's CPU has no AVX: --cpu x86-64-v3 is refused with the names of what is missing, exit code 6."""
    result = run_guest(host, minivmm("true", "--cpu x86-64-v3"))
    assert result.code == 6, result.code
    expect(result.err, 'this host has no .*avx.*: it cannot give a guest "cpu": "x86-64-v3"; x86-64-v2 it can')
