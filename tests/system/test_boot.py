# SPDX-License-Identifier: MIT
"""Stock Linux under minivmm, on real kvm-amd in a lab host: Debian's cloud kernel, unmodified."""

import base64
import re
import subprocess

from labagent import Result
from labcommon import REPOSITORY
from labguest import BOOT, COMPLAINTS, running

GUEST = "--kernel /root/vmlinuz --initrd /root/guest.cpio.gz"


def command_line(script="", more="quiet"):
    run = "minivmm.run=" + base64.b64encode(script.encode()).decode() if script else ""
    return f"--cmdline 'console=ttyS0 {more} {run}'"


def minivmm(script="", options="", more="quiet", guest=GUEST):
    return f"minivmm run {guest} {options} {command_line(script, more)}"


def expect(text, *patterns):
    for pattern in patterns:
        assert re.search(pattern, text, re.M), f"no {pattern!r} in:\n{text[-3000:]}"


def expect_clean(text):
    found = re.search(COMPLAINTS, text)
    assert not found, f"the guest kernel complains ({found.group(0)}):\n{text[-4000:]}"


def run_guest(host, command):
    """Runs minivmm to its end."""
    with running(host, f"{command} </dev/null") as vm:
        return Result(vm.wait(timeout=BOOT), vm.out, vm.err)


def boot(host, cpus, memory):
    # Lines are filtered in the guest: on an emulated serial port they are what takes longest.
    facts = "smpboot: Allowing|ACPI: Interpreter|setting system clock"
    script = ("nproc; grep MemTotal /proc/meminfo; grep -E 'ttyS0|acpi' /proc/interrupts;"
              f" dmesg | grep -E '{facts}|{COMPLAINTS}'")
    result = run_guest(host, minivmm(script, f"--cpus {cpus} --memory {memory}"))
    assert result.code == 0, f"exit code {result.code}: {result.err}{result.out[-2000:]}"
    expect(result.out, rf"guest up: .* {cpus} cpus", rf"^{cpus}\r?$", "guest exit: 0",
           rf"smpboot: Allowing {cpus} CPUs, 0 hotplug", "ACPI: Interpreter enabled", "IO-APIC +4-edge +ttyS0",
           "IO-APIC +9-fasteoi +acpi", "rtc_cmos .* setting system clock")
    expect_clean(result.out)
    return int(re.search(r"MemTotal: +(\d+) kB", result.out).group(1)) >> 10


def test_one_cpu_256_mib(host):
    """An unmodified Debian kernel boots to user space with one vCPU, sees its memory, and powers off: exit 0."""
    assert 180 < boot(host, 1, "256M") < 256


def test_two_cpus_6_gib(lab):
    """Two vCPUs and memory on both sides of the hole under 4 GiB."""
    host = lab.furnish(lab.host("big", memory=3000))
    host.start()
    assert 5600 < boot(host, 2, "6G") < 6144


def test_eight_cpus(host):
    """Eight vCPUs, on a host with one CPU, come up and work."""
    boot(host, 8, "512M")


def test_console_shell_and_typed_poweroff(host):
    """A person gets a shell on the serial console, and `poweroff` typed there ends the VM with exit code 0."""
    with running(host, minivmm(), terminal=(24, 80)) as vm:
        vm.wait_for(r"leave the shell with exit", timeout=BOOT)
        vm.wait_for(r"# ", timeout=30)
        vm.write(b"echo one-$((1 + 1))-three\r")
        vm.wait_for(r"one-2-three", timeout=30)
        vm.write(b"poweroff\r")
        assert vm.wait(timeout=60) == 0


def test_control_a_x_quits(host):
    """Ctrl-a a reaches the guest as Ctrl-a, Ctrl-a d explains itself, Ctrl-a x ends the VM at once with exit code 0."""
    with running(host, minivmm(), terminal=(24, 80)) as vm:
        vm.wait_for(r"leave the shell with exit", timeout=BOOT)
        vm.wait_for(r"# ", timeout=30)
        vm.write(b"cat -v\r")
        vm.write(b"\x01a\x16\x01a\r")  # the shell's line discipline takes Ctrl-v before it
        vm.wait_for(r"\^A", timeout=30)
        vm.write(b"\x01d")
        vm.wait_for(r"nothing to detach from", timeout=30)
        vm.write(b"\x01x")
        assert vm.wait(timeout=30) == 0


def test_sigterm_presses_the_power_button(host):
    """SIGTERM presses the power button: the guest shuts down by itself, exit code 0."""
    with running(host, minivmm()) as vm:
        vm.wait_for(r"leave the shell with exit", timeout=BOOT)
        vm.signal(15)
        assert vm.wait(timeout=60) == 0
        expect(vm.err, "power button pressed")


def test_reboot_goes_on_and_no_reboot_ends(host):
    """The guest's reboot resets the machine and it boots again; with --no-reboot it ends with exit code 0."""
    with running(host, minivmm("sleep 0; reboot")) as vm:
        for _ in range(3):
            vm.wait_for(r"guest up", timeout=BOOT)
        vm.signal(15)
        vm.wait_for("power button pressed", timeout=30)  # two signals at once would be one
        vm.signal(15)
        vm.wait(timeout=60)
        assert len(re.findall("guest up", vm.out)) >= 2, vm.out[-2000:]

    result = run_guest(host, minivmm("reboot", "--no-reboot"))
    assert result.code == 0, result.err


def test_pvh_vmlinux(host):
    """The same kernel as an uncompressed ELF boots by its PVH entry."""
    bzimage = (REPOSITORY / "build" / "images" / "vmlinuz").read_bytes()
    at = bzimage.index(bytes.fromhex("02214c18"))  # the magic of LZ4's legacy frame, as Debian compresses
    elf = subprocess.run(["lz4", "-dc"], input=bzimage[at:], capture_output=True).stdout
    assert elf.startswith(b"\x7fELF"), "no ELF in the bzImage"
    host.put_bytes(elf, "/root/vmlinux")
    result = run_guest(host, minivmm("uname -sr", guest="--kernel /root/vmlinux --initrd /root/guest.cpio.gz"))
    host.run("rm /root/vmlinux")
    assert result.code == 0, result.err
    expect(result.out, "^Linux 6", "guest exit: 0")


def test_triple_fault_is_exit_7_with_registers(host):
    """A triple fault ends with exit code 7, what happened in words, and a register dump."""
    result = run_guest(host, minivmm("reboot", more="quiet reboot=triple"))
    assert result.code == 7, f"exit code {result.code}\n{result.err}"
    expect(result.err, "guest crashed: vCPU 0: triple fault", r"rip [0-9a-f]{16}", r"cr3 [0-9a-f]{16}", "idt base")
