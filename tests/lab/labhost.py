# SPDX-License-Identifier: MIT
"""A lab host: one machine with a real KVM, as a process of QEMU's emulator.

    host = lab.host("a", memory=1500)
    host.install("build/minivmm")          # a program with its shared libraries
    host.start()
    result = host.run("minivmm --version")  # Result(code, out, err)
    vm = host.spawn("minivmm run ...")      # streams; vm.wait_for("login:"), vm.write("root\\n")
    host.power_cut(); host.start()

A host keeps nothing over a restart but its disks: it lives in its initramfs.
"""

import os
import signal
import socket
import stat
import struct
import subprocess
from pathlib import Path

import labagent
from labagent import Agent, Result
from labcommon import HostLost, LabError, LabTimeout, tail
from lablibs import shared_libraries
from labmachine import start_machine


class Host:
    """See the head of this file. Made by Lab.host()."""

    def __init__(self, lab, name, number, memory=1500, cpus=1, files=None, disks=(),
                 snapshot=False, bridge=False, qemu=False):
        """files: {path in the host: local path}, there at every start. disks: raw images, as /dev/vda
        and so on; with snapshot, what the host writes to them is forgotten at its end. bridge: its
        network card is a port of br0, for the taps of guests. qemu: with QEMU in it, see labpeer.py.

        More than one CPU needs care: see the README.
        """
        self.name = name
        self.address = f"10.77.0.{number}"
        self.mac = f"52:54:00:77:00:{number:02x}"
        self.memory = memory
        self.cpus = cpus
        self.disks = list(disks)
        self.snapshot = snapshot
        self.bridge = bridge
        self.qemu = qemu
        self.log = lab.folder / f"{name}.console.log"
        self.transcript = lab.folder / f"{name}.commands.log"
        self.files = {}
        self._lab = lab
        self._machine = None
        self._agent = None
        for to, path in (files or {}).items():
            self.add_file(path, to)

    # What is in it

    def add_file(self, path, to):
        """A file that will be there from the next start on."""
        if not Path(path).is_file():
            raise LabError(f"cannot put {path} into host {self.name}: there is no such file")
        self.files[to] = Path(path)

    def install(self, path, to=None, libraries=()):
        """A program and the shared libraries that it is linked with, and others that it loads by name.

        Works before the start (then it is there at every start) and while the host runs.
        """
        wanted = {to or f"/bin/{Path(path).name}": Path(path)}
        for library in shared_libraries(path, libraries):
            wanted[library] = Path(library)
        for name, source in wanted.items():
            if self.is_running:
                self.put(source, name)
            else:
                self.add_file(source, name)

    # Its power switch

    @property
    def is_running(self):
        return self._machine is not None and self._machine.poll() is None

    @property
    def pid(self):
        return self._machine.pid

    def start(self, timeout=60):
        self.launch()
        self.wait_ready(timeout)

    def launch(self):
        """Switches the host on without waiting for it.

        The machine ends with the thread that calls this: call it from one that lives on.
        """
        if self.is_running:
            raise LabError(f"host {self.name} is already running")
        self._bury()
        ours, theirs = socket.socketpair()
        with theirs:
            self._lab.net.plug(self)
            self._machine = start_machine(self, self._lab, theirs)
        self._agent = Agent(ours, self.name, open(self.transcript, "a", encoding="utf-8"))

    def wait_ready(self, timeout=60):
        try:
            self._agent.wait_ready(timeout)
        except (HostLost, LabTimeout) as error:
            raise type(error)(f"{error}; its console said:\n{tail(self.log)}") from None

    def power_cut(self):
        """Pulls the plug: nobody in the host or on the network is told."""
        self._machine.kill()
        self._bury()

    def power_off(self, timeout=30):
        self.spawn("poweroff")
        self.wait_stopped(timeout)

    def wait_stopped(self, timeout=60):
        """Waits until the host has switched itself off."""
        try:
            self._machine.wait(timeout)
        except subprocess.TimeoutExpired:
            raise LabTimeout(f"host {self.name} is still running after {timeout} s") from None
        self._bury()

    def freeze(self):
        """Stops all of the host at once, its clock included, as a hung machine would."""
        self._machine.send_signal(signal.SIGSTOP)

    def thaw(self):
        self._machine.send_signal(signal.SIGCONT)

    # Work in it

    def spawn(self, command, terminal=None, sink=None):
        """Starts a shell command and returns its Job. terminal: (rows, columns) of a pty for it.

        sink(kind, bytes), kind OUT or ERR, takes the output instead of the Job, in the reading thread.
        """
        rows, columns = terminal or (0, 0)
        payload = struct.pack("<HH", rows, columns) + command.encode()
        return self._agent.start(labagent.RUN, payload, command, sink)

    def run(self, command, timeout=60, stdin=b"", check=False):
        """Runs a shell command to its end; with check, a code that is not 0 is a LabError."""
        job = self.spawn(command)
        try:
            job.write(stdin, timeout)
            job.end_input()
            code = job.wait(timeout)
        except LabTimeout:
            job.kill()
            raise
        finally:
            job.forget()
        result = Result(code, job.out, job.err)
        if check and code != 0:
            words = (result.err.strip() or result.out.strip())[-400:]
            raise LabError(f"host {self.name}: {command}: exit code {code}: {words}")
        return result

    def put(self, path, to, timeout=60):
        """Copies a local file, with its permission bits; it appears whole or not at all."""
        data = Path(path).read_bytes()
        self.put_bytes(data, to, stat.S_IMODE(os.stat(path).st_mode), timeout)

    def put_bytes(self, data, to, mode=0o644, timeout=60):
        job = self._agent.start(labagent.PUT, struct.pack("<I", mode) + to.encode(), f"put {to}")
        try:
            job.write(data, timeout)
            job.end_input()
            job.wait(timeout)
        finally:
            job.forget()

    def get(self, path, to, timeout=60):
        Path(to).write_bytes(self.get_bytes(path, timeout))

    def get_bytes(self, path, timeout=60):
        job = self._agent.start(labagent.GET, path.encode(), f"get {path}")
        job.is_noted = False
        try:
            job.wait(timeout)
            return job.out_bytes
        finally:
            job.forget()

    # The machine

    def close(self):
        if self.is_running:
            self._machine.kill()
        self._bury()

    def _bury(self):
        """After the end of the machine, or on the way to it: nothing of this run is left."""
        if self._machine is not None:
            self._machine.wait()
        if self._agent is not None:
            self._agent.close()
        self._machine = self._agent = None
