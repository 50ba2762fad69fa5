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


# Lines are filtered in the guest: on an emulated serial port they are what takes longest.
FACTS = ("nproc; grep MemTotal /proc/meminfo; grep -E 'ttyS0|acpi' /proc/interrupts;"
         f" dmesg | grep -E 'smpboot: Allowing|ACPI: Interpreter|setting system clock|{COMPLAINTS}'")


def expect_facts(result, cpus):
    """What FACTS says of a guest that is well; returns its MiB of memory."""
    assert result.code == 0, f"exit code {result.code}: {result.err}{result.out[-2000:]}"
    expect(result.out, rf"guest up: .* {cpus} cpus", rf"^{cpus}\r?$",
           rf"smpboot: Allowing {cpus} CPUs, 0 hotplug", "ACPI: Interpreter enabled", "IO-APIC +4-edge +ttyS0",
           "IO-APIC +9-fasteoi +acpi", "rtc_cmos .* setting system clock")
    expect_clean(result.out)
    return int(re.search(r"MemTotal: +(\d+) kB", result.out).group(1)) >> 10


def test_two_cpus_6_gib_and_sigterm(host):
    """Two vCPUs and memory on both sides of the hole under 4 GiB. SIGTERM presses the power button: the guest shuts down
    by itself, exit code 0."""
    with running(host, minivmm(f"{FACTS}; echo all said; sleep 1000", "--cpus 2 --memory 6G")) as vm:
        vm.wait_for("^all said", timeout=BOOT)
        vm.signal(15)
        code = vm.wait(timeout=60)
        assert 5600 < expect_facts(Result(code, vm.out, vm.err), 2) < 6144
        expect(vm.err, "power button pressed")


def test_eight_cpus_and_no_reboot(host):
    """Eight vCPUs, on a host with one CPU, come up and work. With --no-reboot the guest's reboot is the end: exit 0."""
    result = run_guest(host, minivmm(f"{FACTS}; reboot", "--cpus 8 --memory 512M --no-reboot"))
    expect_facts(result, 8)
    assert len(re.findall("guest up", result.out)) == 1, result.out[-2000:]


def wait_for_shell(vm):
    vm.wait_for(r"leave the shell with exit", timeout=BOOT)
    vm.wait_for(r"# ", timeout=30)


def test_console_shell_reboot_and_typed_poweroff(host):
    """A person gets a shell on the serial console. Ctrl-a a reaches it as Ctrl-a, Ctrl-a d explains itself. `reboot`
    resets the machine and it boots again, and `poweroff` ends the VM with exit code 0."""
    with running(host, minivmm(), terminal=(24, 80)) as vm:
        wait_for_shell(vm)
        vm.write(b"echo one-$((1 + 1))-three\r")
        vm.wait_for(r"one-2-three", timeout=30)
        vm.write(b"echo lis''tens; head -n 1 | cat -v; echo en''ded\r")
        vm.wait_for(r"listens", timeout=30)  # from now on no line editor takes the keys
        vm.write(b"\x01a\x16\x01a\r")  # the terminal's line discipline takes Ctrl-v before it
        vm.wait_for(r"\^A", timeout=30)
        vm.wait_for(r"ended", timeout=30)
        vm.write(b"\x01d")
        vm.wait_for(r"nothing to detach from", timeout=30)
        vm.write(b"reboot\r")
        vm.wait_for(r"guest up", timeout=BOOT)
        wait_for_shell(vm)
        vm.write(b"poweroff\r")
        assert vm.wait(timeout=60) == 0


def test_pvh_vmlinux_and_a_triple_fault(host):
    """The same kernel as an uncompressed ELF boots by its PVH entry. A triple fault, here of its reboot, ends with exit
    code 7, what happened in words, and a register dump."""
    bzimage = (REPOSITORY / "build" / "images" / "vmlinuz").read_bytes()
    at = bzimage.index(bytes.fromhex("02214c18"))  # the magic of LZ4's legacy frame, as Debian compresses
    elf = subprocess.run(["lz4", "-dc"], input=bzimage[at:], capture_output=True).stdout
    assert elf.startswith(b"\x7fELF"), "no ELF in the bzImage"
    host.put_bytes(elf, "/root/vmlinux")
    guest = "--kernel /root/vmlinux --initrd /root/guest.cpio.gz"
    result = run_guest(host, minivmm("uname -sr; reboot", more="quiet reboot=triple", guest=guest))
    host.run("rm /root/vmlinux")
    expect(result.out, "^Linux 6")
    assert result.code == 7, f"exit code {result.code}\n{result.err}"
    expect(result.err, "guest crashed: vCPU 0: triple fault", r"rip [0-9a-f]{16}", r"cr3 [0-9a-f]{16}", "idt base")
