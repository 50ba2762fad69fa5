# SPDX-License-Identifier: MIT
"""The command line on this machine: errors, exit codes and the terminal. No lab host is needed."""

import ctypes
import os
import pty
import re
import resource
import select
import shutil
import signal
import struct
import subprocess
import tempfile
import termios
import time
from pathlib import Path

from labcommon import REPOSITORY, Skip
from labimage import Images

MINIVMM = str(REPOSITORY / "build" / "minivmm")
GUESTS = REPOSITORY / "build" / "tests" / "guest"

IOCTL, KVM_GET_API_VERSION, KVM_CHECK_EXTENSION = 16, 0xAE00, 0xAE03
PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 24, 38, 2
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2
LIBC = ctypes.CDLL(None, use_errno=True)  # loaded here, because between fork and exec is no place for it


def run(*arguments, **options):
    return subprocess.run([MINIVMM, *arguments], capture_output=True, text=True, timeout=60,
                          stdin=subprocess.DEVNULL, **options)


def expect_error(code, words, *arguments, **options):
    """One error line that matches, and the exit code; nothing on standard output."""
    result = run(*arguments, **options)
    assert result.returncode == code, f"{arguments}: exit code {result.returncode}, not {code}: {result.stderr}"
    assert re.search(words, result.stderr), f"{arguments}: no {words!r} in {result.stderr}"
    lines = result.stderr.splitlines()
    assert lines[0].startswith("minivmm: error: ") and len(lines) <= 2, f"{arguments}: {result.stderr}"
    assert result.stdout == "", result.stdout


def guest(name):
    path = GUESTS / name
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        raise Skip("no usable /dev/kvm")
    assert path.exists(), f"{path} is not built"
    return str(path)


def test_help_and_version():
    """--help shows examples first, --version one line; both exit 0 and need nothing of the host."""
    assert run("--help").stdout.startswith("Examples:")
    assert re.fullmatch(r"minivmm \d+\.\d+\.\d+\n", run("--version").stdout)
    for verb in ("run", "check"):
        result = run(verb, "--help")
        assert result.returncode == 0 and result.stdout.startswith("Examples:")


def test_usage_errors():
    """What is wrong on the command line is named, with the nearest match, and exits 2."""
    expect_error(2, "unknown verb rnu.*\nhint: did you mean minivmm run", "rnu")
    expect_error(2, "unknown option --mempry\nhint: did you mean --memory", "run", "--mempry", "1G")
    expect_error(2, "unknown option --kenrel\nhint: did you mean --kernel", "run", "--kenrel", "x")
    expect_error(2, "unknown option -z", "run", "-z")
    expect_error(2, "nothing to boot\nhint: name a VM's folder or a disk", "run")
    expect_error(2, "a.img and b.img: one disk boots\nhint: .*--disk b.img", "run", "a.img", "b.img")
    expect_error(2, "--initrd is for a kernel", "run", "a.img", "--initrd", "x")
    expect_error(2, "--cmdline is for a kernel", "run", "a.img", "--cmdline", "quiet")
    expect_error(2, "--kernel needs a value", "run", "--kernel")
    expect_error(2, "--no-reboot takes no value", "run", "--no-reboot=yes")
    expect_error(3, "there is no folder x", "check", "x")
    expect_error(2, "stop: which VM", "stop")
    expect_error(2, "status: unexpected argument y", "status", "x", "y")
    for size in ("12Q", "", "M", "-1M", "1.5G", "99999999999999999999", "9999999999T", "1GG"):
        expect_error(2, "--memory .*is no size\nhint: a whole number with a unit", "run", "--kernel", "x",
                     "--memory", size)
    for cpus in ("0", "-1", "two", "1025", "1x", ""):
        expect_error(2, "--cpus .* a number from 1 to 1024", "run", "--kernel", "x", "--cpus", cpus)
    expect_error(2, '--cpu: model "x86-64-v5" is not known\nhint: did you mean "x86-64-v2"', "run", "--kernel", "x",
                 "--cpu", "x86-64-v5")
    expect_error(2, "is no UUID", "run", "--kernel", "x", "--uuid", "12345678")


def obey_permissions():
    """A preexec_fn: root too may then read only what the permissions say."""
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        LIBC.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)  # whoever is not root has none of them


def test_bad_kernels():
    """A kernel that is missing, unreadable, empty, truncated or none is named, with the cause."""
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder)
        expect_error(3, "kernel .*nowhere: No such file", "run", "--kernel", f"{folder}/nowhere")
        expect_error(5, "directory", "run", "--kernel", folder)
        (there / "empty").touch()
        expect_error(5, "empty", "run", "--kernel", f"{folder}/empty")
        (there / "text").write_text("this is no kernel\n" * 100)
        expect_error(5, "is no kernel", "run", "--kernel", f"{folder}/text")
        bzimage = Images().kernel().read_bytes()
        (there / "half").write_bytes(bzimage[: len(bzimage) // 2])
        expect_error(5, "truncated|cut|bytes", "run", "--kernel", f"{folder}/half")
        (there / "whole").write_bytes(bzimage)
        expect_error(3, "initrd .*nowhere", "run", "--kernel", f"{folder}/whole", "--initrd", f"{folder}/nowhere")
        with open(there / "huge", "wb") as file:
            file.truncate(1 << 30)
        expect_error(2, "huge.*\nhint: give the VM at least", "run", "--kernel", f"{folder}/whole", "--initrd", f"{folder}/huge",
                     "--memory", "256M")
        expect_error(2, "needs [0-9]+ MiB of RAM.*\nhint: give the VM at least", "run", "--kernel", f"{folder}/whole",
                     "--memory", "16M")
        expect_error(2, "command line", "run", "--kernel", f"{folder}/whole", "--cmdline", "x" * 100000)
        (there / "whole").chmod(0)
        expect_error(1, "kernel .*whole: Permission denied", "run", "--kernel", f"{folder}/whole",
                     preexec_fn=obey_permissions)


def test_memory_limits():
    """Too little and too much memory are refused with what is possible."""
    kernel = guest("serial.elf")
    expect_error(2, "0 KiB of memory: a machine has", "run", "--kernel", kernel, "--memory", "0")
    expect_error(2, "of memory: a machine has", "run", "--kernel", kernel, "--memory", "1M")
    expect_error(2, "of memory: a machine has", "run", "--kernel", kernel, "--memory", "2T")


def with_other_kvm(arrange, command="", verb="run --kernel"):
    """Runs minivmm where /dev/kvm is as `arrange` makes it, in a mount namespace of its own."""
    verb = verb if verb == "check" else f"{verb} {guest('serial.elf')}"
    script = f"{arrange} && exec {command} {MINIVMM} {verb}"
    result = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, timeout=60,
                            stdin=subprocess.DEVNULL)
    if "minivmm:" not in result.stderr and "/dev/kvm" not in result.stdout:
        raise Skip(f"a /dev/kvm of one's own cannot be arranged here: {result.stderr.strip()}")
    return result


def test_no_kvm():
    """Without /dev/kvm, without the right to it, and with something else in its place: exit 6 and the mend."""
    empty = with_other_kvm("mount -t tmpfs none /dev")
    assert empty.returncode == 6 and re.search("/dev/kvm: No such file.*\nhint: load KVM", empty.stderr), empty.stderr
    other = with_other_kvm("mount --bind /dev/null /dev/kvm")
    assert other.returncode == 6 and "does not answer as KVM" in other.stderr, other.stderr
    denied = with_other_kvm("mount -t tmpfs none /media && mknod -m 600 /media/kvm c 10 232 &&"
                            " mount --bind /media/kvm /dev/kvm",
                            "setpriv --reuid=65534 --regid=65534 --clear-groups")
    assert denied.returncode == 6 and "adduser" in denied.stderr, denied.stderr


def answer_zero(request, argument=0):
    """A preexec_fn: from then on this request to KVM does nothing and says 0, as an older kernel's may."""
    load, equal, give = 0x20, 0x15, 0x06
    # The number of the call, then the low halves of its second and third argument.
    code = ((load, 0, 0, 0), (equal, 0, 5, IOCTL), (load, 0, 0, 24), (equal, 0, 3, request), (load, 0, 0, 32),
            (equal, 0, 1, argument), (give, 0, 0, 0x50000), (give, 0, 0, 0x7FFF0000))
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
    filters = struct.pack("HxxxxxxP", len(code), ctypes.addressof(program))

    def forbid():
        if (LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0
                or LIBC.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, filters) < 0):
            os._exit(99)

    forbid.program = program  # it lives as long as whoever points to it
    return forbid


def test_an_old_kvm():
    """A KVM of another API version, or without something that we need, is refused with that thing's name and the mend;
    what we can do without is done without."""
    kernel = guest("poweroff.elf")
    other = answer_zero(KVM_GET_API_VERSION)
    expect_error(6, "/dev/kvm speaks API version 0, not 12\nhint: minivmm needs Linux", "run", "--kernel", kernel,
                 preexec_fn=other)
    for name, number in (("SPLIT_IRQCHIP", 121), ("IOEVENTFD", 36), ("MANUAL_DIRTY_LOG_PROTECT2", 168)):
        without = answer_zero(KVM_CHECK_EXTENSION, number)
        expect_error(6, rf"this host's KVM lacks {name} \(.*\nhint: minivmm needs Linux .* `minivmm check`", "run",
                     "--kernel", kernel, preexec_fn=without)
        said = run("check", preexec_fn=without)
        assert said.returncode == 6 and re.search(rf"^BAD +kvm {name} .*\n +mend: ", said.stdout, re.M), said.stdout
    for name, number in (("XSAVE2", 208), ("SREGS2", 200), ("VCPU_ATTRIBUTES", 127), ("GET_TSC_KHZ", 61),
                         ("EXCEPTION_PAYLOAD", 164), ("X86_TRIPLE_FAULT_EVENT", 218)):
        result = run("run", "--net", "none", "--kernel", kernel, preexec_fn=answer_zero(KVM_CHECK_EXTENSION, number))
        assert result.returncode == 0, f"without {name}: {result.stderr}"


def test_check_says_what_this_host_can_do():
    """check goes through all that VMs need of the host, each lack with its mend; --quiet leaves only the exit code."""
    guest("serial.elf")  # there is a KVM
    said = run("check")
    assert said.returncode == 0 and said.stderr == "" and "BAD" not in said.stdout, said
    for what in ("/dev/kvm", "hardware virtualization", "kvm IRQFD", "kvm vCPUs", "tap interfaces", "user namespaces",
                 "io_uring", "memory", "huge pages for guests"):
        assert re.search(rf"^(ok|note) +{what} +\S", said.stdout, re.M), f"no {what} in {said.stdout}"
    pvm, intel, amd = (os.path.exists(f"/sys/module/kvm_{kind}") for kind in ("pvm", "intel", "amd"))
    result = run("check", "--quiet", "--hardware")
    assert (result.returncode, result.stdout, result.stderr) == (0 if (intel or amd) and not pvm else 6, "", "")
    if pvm:
        assert re.search(r"^BAD +hardware virtualization .*\n +mend: .*tests/lab/lab", run("check", "--hardware").stdout, re.M)
    lacks = with_other_kvm("mount -t tmpfs none /dev", verb="check")
    assert lacks.returncode == 6, lacks
    for what, mend in (("BAD +/dev/kvm", "load KVM"), ("note +tap interfaces", "modprobe tun")):
        assert re.search(rf"^{what} .*\n +mend: {mend}", lacks.stdout, re.M), lacks.stdout


def test_without_the_helper_of_user_networks():
    """With no --net a VM whose user network cannot be runs without one, and a line says why; with --net user it does
    not run."""
    kernel = guest("poweroff.elf")
    with tempfile.TemporaryDirectory() as folder:
        alone = shutil.copy(MINIVMM, folder)
        if any(Path(place, "minivmm-usernet").exists() for place in ("/usr/local/libexec/minivmm", "/usr/libexec/minivmm")):
            raise Skip("minivmm-usernet is installed here")
        command = [alone, "run", "--kernel", kernel]
        for more, code in (([], 0), (["--net", "none"], 0), (["--net", "user"], 6)):
            result = subprocess.run(command + more, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
            assert result.returncode == code, f"{more}: {result}"
            assert ("this VM has no network: " in result.stderr) == (not more), f"{more}: {result.stderr}"
            assert ("minivmm-usernet" in result.stderr) == (more != ["--net", "none"]), f"{more}: {result.stderr}"


class Terminal:
    """minivmm on a pseudo-terminal, as a person has it."""

    def __init__(self, *arguments):
        self.master, self.slave = pty.openpty()
        self.before = termios.tcgetattr(self.slave)
        self.process = subprocess.Popen([MINIVMM, *arguments], stdin=self.slave, stdout=self.slave,
                                        stderr=subprocess.PIPE, start_new_session=True)
        self.text = b""

    def wait_for(self, words, timeout=30):
        end = time.monotonic() + timeout
        while words not in self.text:
            ready, _, _ = select.select([self.master], [], [], end - time.monotonic())
            assert ready, f"no {words!r} within {timeout} s: {self.text[-1000:]!r}"
            self.text += os.read(self.master, 65536)

    def write(self, data):
        os.write(self.master, data)

    def is_raw(self):
        return not termios.tcgetattr(self.slave)[3] & termios.ICANON

    def finish(self):
        """The exit code; the terminal must be as it was."""
        code = self.process.wait(30)
        assert termios.tcgetattr(self.slave) == self.before, "the terminal was not restored"
        os.close(self.master)
        os.close(self.slave)
        return code


def test_terminal_is_restored_on_every_way_out():
    """Power-off, Ctrl-a x, a second SIGTERM, a crash of the guest and one of minivmm itself leave the terminal as it was."""
    terminal = Terminal("run", "--kernel", guest("button.elf"))
    terminal.wait_for(b"ready")
    assert terminal.is_raw()
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.finish() == 0

    terminal = Terminal("run", "--kernel", guest("button.elf"))
    terminal.wait_for(b"ready")
    terminal.write(b"\x01d")
    terminal.wait_for(b"nothing to detach from")
    terminal.write(b"\x01x")
    assert terminal.finish() == 0

    terminal = Terminal("run", "--kernel", guest("worker.elf"), "--cmdline", "pages=4 rounds=0")
    terminal.wait_for(b"\n")
    terminal.process.send_signal(signal.SIGTERM)
    assert b"power button" in terminal.process.stderr.readline()
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.finish() == 1

    assert Terminal("run", "--kernel", guest("triple.elf")).finish() == 7

    terminal = Terminal("run", "--kernel", guest("button.elf"))
    terminal.wait_for(b"ready")
    terminal.process.send_signal(signal.SIGSEGV)
    assert terminal.finish() == -signal.SIGSEGV


def test_a_slow_terminal_does_not_slow_the_guest():
    """A guest that writes faster than anybody reads runs on, and ends when it wants to."""
    reader, writer = os.pipe()
    process = subprocess.Popen([MINIVMM, "run", "--exit-port", "--kernel", guest("flood.elf"),
                                "--cmdline", "kib=400"], stdin=subprocess.DEVNULL, stdout=writer,
                               stderr=subprocess.PIPE)
    os.close(writer)
    code = process.wait(120)  # nobody has read a byte so far
    assert code == 0, process.stderr.read()
    with open(reader, "rb") as pipe:
        output = pipe.read()
    assert output.startswith(b"x" * 63 + b"\n") and len(output) <= 64 << 10


def test_closed_standard_streams():
    """Started with standard input and output closed, minivmm runs its guest all the same."""
    result = subprocess.run(["sh", "-c", f"exec {MINIVMM} run --exit-port --kernel {guest('flood.elf')} <&- >&-"],
                            stderr=subprocess.PIPE, text=True, timeout=60)
    assert result.returncode == 0 and "error" not in result.stderr, result.stderr


def test_scarce_resources():
    """Out of file descriptors or address space: one clear error, no crash."""
    def few_files():
        resource.setrlimit(resource.RLIMIT_NOFILE, (6, 6))

    result = run("run", "--kernel", guest("serial.elf"), preexec_fn=few_files)
    assert result.returncode in (1, 6) and "Too many open files" in result.stderr, result.stderr

    def little_space():
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))

    result = run("run", "--kernel", guest("serial.elf"), "--memory", "4G", preexec_fn=little_space)
    assert result.returncode == 6 and "cannot map 4096 MiB" in result.stderr, result.stderr


def wait_until(condition, timeout=30):
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"not within {timeout} s"
        select.select([], [], [], 0.01)


def send_and_see_taken(process, number):
    """A signal is taken from the pending ones when the main loop has read it."""
    def is_pending():
        status = Path(f"/proc/{process.pid}/status").read_text()
        return int(re.search(r"ShdPnd:\s*(\w+)", status).group(1), 16) >> (number - 1) & 1

    process.send_signal(number)
    wait_until(lambda: process.poll() is not None or not is_pending())


def test_a_stuck_terminal_cannot_keep_the_vm_from_ending():
    """With a terminal that takes nothing any more, two SIGTERMs still end the VM, and it is not raw afterwards."""
    terminal = Terminal("run", "--kernel", guest("flood.elf"), "--cmdline", "kib=100000")
    wait_until(lambda: console_thread_waits(terminal.process.pid))
    send_and_see_taken(terminal.process, signal.SIGTERM)
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.process.wait(30) == 1
    terminal.finish()


def console_thread_waits(pid):
    """True when the thread that writes the console out is inside write(2)."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        if (task / "comm").read_text().strip() == "console":
            return (task / "syscall").read_text().startswith("1 ")
    return False


def test_a_stop_counts_while_the_guest_resets():
    """A guest that does nothing but reset cannot swallow the wish to end it."""
    for _ in range(20):
        process = subprocess.Popen([MINIVMM, "run", "--memory", "16M", "--kernel", guest("first.elf")],
                                   stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert b"power button" in read_line_after_signal(process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 1


def read_line_after_signal(process):
    """Sends SIGTERM as soon as minivmm is far enough to take it as the press of the button."""
    blocked = re.compile(r"SigBlk:\s*(\w+)")
    wait_until(lambda: int(blocked.search(Path(f"/proc/{process.pid}/status").read_text()).group(1), 16)
               >> (signal.SIGTERM - 1) & 1)
    process.send_signal(signal.SIGTERM)
    return process.stderr.readline()


def test_a_silent_guest_has_no_console_thread():
    """The thread that writes the console out comes with the first byte, so start and end need not wait for it."""
    process = subprocess.Popen([MINIVMM, "run", "--memory", "16M", "--kernel", guest("first.elf")],
                               stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert b"power button" in read_line_after_signal(process)  # so the main loop runs
    threads = {(task / "comm").read_text().strip() for task in Path(f"/proc/{process.pid}/task").iterdir()}
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 1
    assert "vcpu0" in threads and "console" not in threads, threads


def test_a_full_disk_is_said():
    """When standard output cannot be written the guest runs on, and a line says why nothing was seen."""
    with open("/dev/full", "wb") as full:
        result = subprocess.run([MINIVMM, "run", "--exit-port", "--kernel", guest("flood.elf"), "--cmdline", "kib=1"],
                                stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert result.returncode == 0 and "standard output: No space left" in result.stderr, result


def test_in_the_background_of_a_shell():
    """As a background job minivmm leaves the terminal alone, runs, and ends by SIGTERM."""
    script = f"set -m; {MINIVMM} run --kernel {guest('button.elf')} & wait $!; echo code $?"
    pid, master = pty.fork()
    if pid == 0:
        os.execvp("sh", ["sh", "-c", script])
    text = b""
    while b"ready" not in text:
        text += os.read(master, 4096)
    assert termios.tcgetattr(master)[3] & termios.ICANON, "a background job changed the terminal"
    job = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
    os.kill(job, signal.SIGTERM)
    while b"code" not in text:
        text += os.read(master, 4096)
    assert b"code 0" in text, text
    os.waitpid(pid, 0)
    os.close(master)
