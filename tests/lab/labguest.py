# SPDX-License-Identifier: MIT
"""Small Linux guests in a lab host that take commands, and the same guests under QEMU.

    with Guest(host, "--cpus 2 --disk /tmp/a.img,queues=2 --net tap:tap0") as guest:
        guest.run("dd if=/dev/vda of=/dev/null bs=1M")      # its output; fails where the command fails
        guest.code("false")                                 # (1, ""): the code and the output

Options are those of `minivmm run`; for QEMU they are translated, so that a benchmark's peer gets the
same devices, and a test can be tried on a VMM that is known to be good.
"""

import base64
import contextlib
import itertools
import json
import os
import re
import shlex

from labcommon import HostLost, LabError, LabTimeout, Skip

# minivmm, or qemu to try the tests themselves.
VMM = os.environ.get("MINIVMM_LAB_VMM", "minivmm")

# A nested guest in an emulated host takes seconds for what takes milliseconds elsewhere.
BOOT = 100

BOOT_FILES = "--kernel /root/vmlinuz --initrd /root/test-guest.cpio"

# The guest's end of run(): a line in, its output and `@NUMBER CODE` out.
SERVE = """
exec <{console} >{console} 2>&1
stty -echo -onlcr
echo "@ready"
while read -r number line; do eval "$line"; echo "@$number $?"; done
"""

# The same files once more, as a mount of their own that lies over the initramfs.
MOVE_ROOT = """
mkdir -p /newroot && mount --make-rprivate / && mount --rbind / /newroot && cd /newroot && mount --move . / &&
exec chroot . sh -c {run}
"""

# A kernel that is not content says so with one of these.
COMPLAINTS = "WARNING:|BUG:|Oops|Call Trace|LOCKUP|rcu.*stall|unexpected IRQ trap|spurious|nobody cared"

# Where each thread of a VMM that does not go on spends its time, whether its vCPUs still move, what KVM
# counts, where in the guest the last exits were, and what is on its stack. (The host's console names the address of one known
# place for each boot, native_write_msr; the kernel's other symbols lie at fixed distances from it.)
LOOK = """mount -t debugfs none /sys/kernel/debug 2>/dev/null
for i in 1 2; do
    for t in /proc/$(pidof minivmm qemu-system-x86_64)/task/*; do
        echo "$(cat $t/comm): state and ticks $(cut -d' ' -f3,14,15 $t/stat), in $(cat $t/wchan)"
    done
    (cd /sys/kernel/debug/kvm && grep . exits io_exits mmio_exits irq_exits halt_exits halt_wakeup irq_injections)
    usleep 500000
done
mount -t tracefs none /sys/kernel/tracing 2>/dev/null; cd /sys/kernel/tracing
echo 1 >events/kvm/kvm_exit/enable && usleep 300000
echo 0 >events/kvm/kvm_exit/enable
tail -n 12 trace; echo >trace
minivmm list -q | while read -r name; do minivmm status "$name" --registers; done"""

_numbers = itertools.count(1)


def look(host):
    """What there is to know of a guest that hangs, before it is killed."""
    try:
        return f"--- its threads and KVM's counters, twice:\n{host.run(LOOK, timeout=20).out}"
    except LabError as silence:
        return f"--- the host does not answer either: {silence}"


@contextlib.contextmanager
def running(host, command, terminal=None):
    """A VMM's job. Nothing of it is left afterwards; one that hangs is looked at first."""
    job = host.spawn(f"exec {command}", terminal=terminal)
    try:
        yield job
    except LabTimeout as error:
        error.add_note(look(host))
        raise
    finally:
        end(job)


def end(job):
    """Whatever state it is in, nothing of it is left."""
    if job.is_running:
        with contextlib.suppress(HostLost, LabTimeout):
            job.kill()
            job.wait(30)
    job.forget()


class Guest:
    """One run of a VMM in a lab host; see the head of this file."""

    def __init__(self, host, options="", vmm=None, user=None, console="/dev/ttyS0", terminal=None, folder=None,
                 definition=None, goes_on=None, until=None, root_to_pivot=False, patience=BOOT):
        """user: who runs the VMM in the lab host. console: where the guest takes commands. terminal: (rows,
        columns) of one for the VMM. folder: the VM is this folder, with what `definition` says beside the boot
        files; one that has a vm.json already is run as it is. goes_on: the command that leads to the console of a
        guest that waits for commands already; until: what that command says when it is there. root_to_pivot: the VMM
        has a root directory with which pivot_root works, as it does not with an initramfs. patience: seconds that it may
        take to come up."""
        script = base64.b64encode(SERVE.format(console=console).encode()).decode()
        # Errors of devices, which tests cause on purpose, stay in dmesg: the console is for answers.
        cmdline = f"console=ttyS0 loglevel=1 minivmm.run={script}"
        self.host = host
        self.vmm = vmm or VMM
        number = next(_numbers)
        self._number = 0
        files = f"/run/vm-{number}"
        command = {"minivmm": minivmm_command, "qemu": qemu_command}[self.vmm](options, cmdline)
        if folder:
            command = f"minivmm run {folder} {options}"
        if goes_on:
            command = goes_on
            self._number = 1000 * number  # nobody's from before
        if definition is not None:
            boot = {"kernel": "/root/vmlinuz", "initrd": "/root/test-guest.cpio", "cmdline": cmdline}
            host.put_bytes(json.dumps({"boot": boot, **definition}).encode(), f"{folder}/vm.json")
        # A file, because su wants its command in quotes of its own.
        host.put_bytes(f"echo $$ >{files}.pid; exec {command}\n".encode(), f"{files}.sh")
        run = f"exec sh {files}.sh"
        # A pipe: who reads it waits until it is said who runs.
        host.run(f"mkfifo {files}.pid", check=True)
        if user:
            host.run(f"chown {user} {files}.pid", check=True)
            run = f"exec su {user} -s /bin/sh -c '{run}'"
        if root_to_pivot:
            host.put_bytes(MOVE_ROOT.format(run=shlex.quote(run)).encode(), f"{files}.root")
            run = f"exec unshare -m sh {files}.root"
        self.job = host.spawn(run, terminal=terminal)
        self._answered = 0
        try:
            self.pid = int(host.run(f"cat {files}.pid; rm {files}.pid", check=True).out)
            if until:
                self._answered = self.job.wait_for(until, patience, "out").end()
            if not goes_on:
                self._answered = self.job.wait_for(r"^@ready\r?\n", patience, "out").end()
        except LabError as error:
            facts = look(host) if isinstance(error, LabTimeout) else ""
            self.end()
            raise type(error)(f"{error}\n{self.job.seen[-3000:]}\n{facts}") from None

    # The guest

    def run(self, command, timeout=120):
        """A shell command's output, errors included; an exit code that is not 0 is an error."""
        code, output = self.code(command, timeout)
        if code != 0:
            raise LabError(f"guest: {command}: exit code {code}: {output.strip()[-1000:]}")
        return output

    def code(self, command, timeout=120):
        """A shell command's exit code and output."""
        return self.answer(self.send(command), timeout)

    def send(self, command):
        """A command whose end is not waited for; what it says comes on self.job. Returns its number."""
        self._number += 1
        line = f"{self._number} {command}\n"
        if "\n" in command or len(line) > 4000:
            raise LabError(f"not one line of a console: {command}")
        self.job.write(line)
        return self._number

    def answer(self, number, timeout=120):
        """The exit code and output of what was sent."""
        match = self.job.wait_for(rf"@{number} (\d+)\r*\n", timeout, "out")
        output = bytes(match.string[self._answered : match.start()]).decode(errors="replace")
        self._answered = match.end()
        return int(match.group(1)), output.replace("\r", "")

    def expect_clean(self):
        """The guest's kernel has nothing to complain of."""
        found = self.run(f"dmesg | grep -E -A20 '{COMPLAINTS}'; true")
        assert not found, f"the guest kernel complains:\n{found}"

    # The VMM

    def resident(self):
        """Bytes of memory that the VMM occupies in the host."""
        text = self.host.run(f"cat /proc/{self.pid}/status", check=True).out
        return int(re.search(r"VmRSS:\s+(\d+) kB", text).group(1)) << 10

    def cpu_seconds(self):
        """What the VMM has used, all its threads and vhost's: (all of it, without what the guest computed)."""
        vhost = "for t in /proc/[0-9]*; do [ \"$(cat $t/comm)\" != vhost-%d ] || cat $t/stat; done" % self.pid
        text = self.host.run(f"cat /proc/{self.pid}/stat; {vhost}", check=True).out
        used = inside = 0.0
        for line in text.splitlines():
            fields = line.rsplit(")", 1)[1].split()
            user, system, guest = (int(fields[number - 3]) / 100 for number in (14, 15, 43))
            used, inside = used + user + system, inside + guest
        return used, used - inside

    def kill(self):
        """SIGKILL: a power cut for the guest."""
        self.job.kill()
        self.job.wait(30)

    def reset(self):
        """The guest resets its machine in the middle of everything, and comes up again.

        Not by `reboot -f`: Linux breaks its virtio devices then, and whatever its virtio_net sends after that
        may spin for ever in start_xmit or virtnet_poll (docs/guests.md)."""
        self.send("echo b >/proc/sysrq-trigger")
        self._answered = self.job.wait_for(r"^@ready\r?\n", BOOT, "out").end()

    def power_off(self, timeout=60):
        """The guest's own power-off; the VMM's exit code."""
        self.send("poweroff")
        return self.job.wait(timeout)

    def end(self):
        end(self.job)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _):
        if isinstance(error, LabTimeout):
            error.add_note(look(self.host))
        if isinstance(error, Exception):
            error.add_note(f"--- the end of the guest's console and the VMM's words:\n{self.job.seen[-2000:]}")
        self.end()


def need_minivmm():
    """For tests of what QEMU has not, or has in another way."""
    if VMM != "minivmm":
        raise Skip("is about minivmm itself")


# --- commands ---------------------------------------------------------------------------------


def minivmm_command(options, cmdline):
    return f"minivmm run {BOOT_FILES} {options} --cmdline {shlex.quote(cmdline)}"


QEMU = (
    "qemu-system-x86_64 -enable-kvm -cpu host -nodefaults -no-user-config -display none"
    " -kernel /root/vmlinuz -initrd /root/test-guest.cpio"
)


def qemu_command(options, cmdline, machine="q35"):
    """The same devices by QEMU. A word --qemu=TEXT goes to it as it is."""
    words = shlex.split(options)
    arguments = [f"{QEMU} -M {machine}", f"-append {shlex.quote(cmdline)}", "-device virtio-rng-pci"]
    serial = "-serial stdio"
    cpus, memory, forwards, count, nets = "1", "256M", "", itertools.count(), []
    while words:
        name, _, value = words.pop(0).partition("=")
        if name == "--qemu":
            arguments.append(value)
            continue
        value = value or words.pop(0)
        if name == "--cpus":
            cpus = value
        elif name == "--memory":
            memory = value
        elif name == "--disk":
            arguments.append(_qemu_disk(value, next(count), cpus))
        elif name == "-p":
            host, guest = value.split(":")
            forwards += f",hostfwd=tcp::{host}-:{guest}"
        elif name == "--net":
            nets.append(value)
        elif name == "--vsock":
            cid = re.search(r"cid=(\d+)", value)
            arguments.append(f"-device vhost-vsock-pci,guest-cid={cid.group(1) if cid else 3}")
        elif name == "--balloon" and value == "off":
            pass
        elif name == "--console":
            arguments.append("-device virtio-serial-pci -device virtconsole,chardev=hvc")
            serial = "-serial null -chardev stdio,id=hvc"
        else:
            raise LabError(f"no translation for QEMU: {name}")
    arguments += [_qemu_net(value, next(count), cpus, forwards) for value in nets if value != "none"]
    arguments.append("-device virtio-balloon-pci,free-page-reporting=on,deflate-on-oom=on")
    return " ".join(arguments) + f" {serial} -smp {cpus} -m {memory}"


def _qemu_disk(value, number, cpus):
    """Each disk with a thread of its own, as Debian's documents and libvirt's advise for speed."""
    path, *flags = value.split(",")
    keys = dict(flag.partition("=")[::2] for flag in flags)
    cache = "writeback" if keys.get("cache") != "writethrough" else "writethrough"
    drive = f"id=d{number},if=none,format={keys.get('format', 'raw')},file={path},discard=unmap"
    drive += f",cache={'none' if 'direct' in keys or keys.get('cache') == 'none' else cache}"
    drive += f",aio={keys.get('engine', 'io_uring')}" + (",readonly=on" if "readonly" in keys else ",werror=report")
    if "limit" in keys:
        limit, unit = re.fullmatch(r"(\d+)(iops|M)", keys["limit"]).groups()
        drive += f",throttling.iops-total={limit}" if unit == "iops" else f",throttling.bps-total={int(limit) << 20}"
    device = f"virtio-blk-pci,drive=d{number},iothread=t{number},num-queues={keys.get('queues', cpus)}"
    if "serial" in keys:
        device += f",serial={keys['serial']}"
    if "block-size" in keys:
        device += f",logical_block_size={keys['block-size']},physical_block_size={keys['block-size']}"
    return f"-object iothread,id=t{number} -drive {drive} -device {device}"


def _qemu_net(value, number, cpus, forwards):
    mode, *flags = value.split(",")
    keys = dict(flag.partition("=")[::2] for flag in flags)
    mode, _, name = mode.partition(":")
    queues = int(keys.get("queues", 1))
    device = f"virtio-net-pci,netdev=n{number},romfile="
    device += "".join(f",{key}={keys[key]}" for key in ("mac",) if key in keys)
    if "mtu" in keys:
        device += f",host_mtu={keys['mtu']}"
    if mode == "user":
        return f"-netdev user,id=n{number}{forwards} -device {device}"
    tap = f"tap,id=n{number},script=no,downscript=no,vhost={'on' if 'vhost' in keys else 'off'}"
    tap += f",ifname={name}" if mode == "tap" and name else ""
    tap += f",br={name}" if mode == "bridge" else ""
    if queues > 1:
        tap += f",queues={queues}"
        device += f",mq=on,vectors={2 * queues + 2}"
    return f"-netdev {tap} -device {device}"
