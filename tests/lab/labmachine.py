# SPDX-License-Identifier: MIT
"""The machine below a lab host: how QEMU is called, and that it never outlives the harness."""

import ctypes
import os
import shutil
import signal
import subprocess

import labpeer
from labcommon import find_program
from labcpio import CpioWriter

# QEMU's emulated SVM does not intercept XSETBV, so hosts have no XSAVE (docs/architecture.md), and then
# nothing that needs it: a kernel that finds AVX without it uses AVX all the same, and dies of it.
CPU = "max,+svm,-xsave,-avx,-avx2,-f16c,-fma,-vaes,-vpclmulqdq,-pku,-mpx"

# A periodic tick: a host that programs its timer for one shot at a time can lose it, and then stands still
# for as long as half a minute (docs/architecture.md).
KERNEL_ARGUMENTS = "console=ttyS0 panic=-1 quiet highres=off nohz=off"

PR_SET_PDEATHSIG = 1
# Loaded here, because between fork and exec is no place for it.
_libc = ctypes.CDLL(None, use_errno=True)


def start_machine(host, lab, agent_socket):
    """Starts the host's QEMU; agent_socket becomes the far end of its agent's port."""
    arguments = _arguments(host, lab, agent_socket.fileno())
    parent = os.getpid()
    with open(host.log, "ab") as log:
        log.write(b"--- power on\n")
        log.flush()
        return subprocess.Popen(
            [str(argument) for argument in arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[agent_socket.fileno()],
            # Signals from the keyboard are for the harness: it ends the machine, in order.
            start_new_session=True,
            preexec_fn=lambda: die_with(parent, signal.SIGKILL),
        )


def die_with(parent, number):
    """In a child: when its parent dies, even by SIGKILL, the kernel sends it a signal."""
    _libc.prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os._exit(1)


def _arguments(host, lab, agent_fd):
    images = lab.images
    append = f"{KERNEL_ARGUMENTS} lab.name={host.name} lab.address={host.address}/24"
    disks = [(path, ",snapshot=on" if host.snapshot else "") for path in host.disks]
    if host.bridge:
        append += " lab.bridge"
    if host.qemu:
        append += f" lab.opt=/dev/vd{chr(ord('a') + len(disks))}"
        disks.append((labpeer.qemu_disk(images), ",readonly=on"))

    arguments = [find_program("qemu-system-x86_64"), "-name", f"lab-{host.name}"]
    arguments += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    arguments += ["-accel", "tcg,thread=multi", "-cpu", CPU]
    arguments += ["-smp", host.cpus, "-m", host.memory]
    arguments += ["-kernel", images.kernel(), "-initrd", _initramfs(host, lab), "-append", append]
    arguments += ["-chardev", f"file,id=console,path={host.log},append=on", "-serial", "chardev:console"]
    arguments += ["-device", "virtio-serial-pci", "-chardev", f"socket,id=agent,fd={agent_fd}"]
    arguments += ["-device", "virtserialport,chardev=agent,name=minivmm.lab"]
    switch = f"addr.type=unix,addr.path={lab.net.path(host)}"
    arguments += ["-netdev", f"stream,id=net,server=off,{switch}"]
    # Without romfile= QEMU wants a boot ROM from a package that nobody needs here.
    arguments += ["-device", f"virtio-net-pci,netdev=net,mac={host.mac},romfile="]
    for number, (path, options) in enumerate(disks):
        drive = f"id=disk{number},if=none,format=raw,cache=unsafe,file={path}{options}"
        arguments += ["-drive", drive, "-device", f"virtio-blk-pci,drive=disk{number}"]
    return arguments


def _initramfs(host, lab):
    """The common initramfs followed by an archive of this host's own files."""
    path = lab.folder / f"{host.name}.initramfs"
    with open(path, "wb") as stream, open(lab.images.host_initramfs(), "rb") as common:
        shutil.copyfileobj(common, stream)
        cpio = CpioWriter(stream)
        hosts = ["127.0.0.1 localhost"] + [f"{other.address} {other.name}" for other in lab.hosts]
        cpio.file("etc/hosts", "".join(line + "\n" for line in hosts).encode())
        for to, source in host.files.items():
            cpio.copy(to, source)
        cpio.finish()
    return path
