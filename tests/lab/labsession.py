# SPDX-License-Identifier: MIT
"""A lab: some hosts, the network between them, and the promise that nothing of it is left behind.

    with Lab() as lab:
        a, b = lab.host("a"), lab.host("b")
        lab.start(a, b)
        a.run(f"ping -c 1 {b.address}", check=True)

Machines end with the block, on an exception, on SIGINT and SIGTERM, and, by the kernel's help, when
this process is killed. Sockets and logs live in a private folder, which goes too; when the block
ends in an exception the logs stay, and the exception's note says where.
"""

import fcntl
import os
import shutil
import signal
import sys
import tempfile
import threading
from pathlib import Path

from labcommon import LabError, build_dir, locked
from labhost import Host
from labimage import Images
from labnet import Network

PREFIX = "minivmm-lab-"


class Lab:
    def __init__(self, build=None):
        self.build = Path(build or build_dir())
        self.images = Images(self.build)
        self.hosts = []
        self.folder = None
        self.net = None
        self._lock = None
        self._old_sigterm = None

    def host(self, name, **options):
        """A new host, switched off. Options as for Host; addresses go by the order of these calls."""
        if any(host.name == name for host in self.hosts):
            raise LabError(f"the lab already has a host {name}")
        host = Host(self, name, len(self.hosts) + 1, **options)
        self.hosts.append(host)
        return host

    def furnish(self, host, tests=False):
        """Gives a host what a guest boots from, and build/minivmm with its helpers when it has been built.

        With tests also what labguest.py needs.
        """
        host.add_file(self.images.kernel(), "/root/vmlinuz")
        host.add_file(self.images.guest_initramfs(), "/root/guest.cpio.gz")
        for program in sorted(self.build.glob("minivmm*")):
            if program.is_file() and os.access(program, os.X_OK):
                host.install(program)
        if tests:
            host.add_file(self.images.test_guest_initramfs(), "/root/test-guest.cpio")
            host.install(self.images.probe(), "/bin/probe")
        return host

    def start(self, *hosts, timeout=60):
        """Starts several hosts, or all, at once."""
        for host in hosts or self.hosts:
            host.launch()
        for host in hosts or self.hosts:
            host.wait_ready(timeout)

    def __enter__(self):
        # Or another one might sweep it away between the making of the folder and of the lock in it.
        with locked(tempfile.gettempdir()):
            _sweep()
            self.folder = Path(tempfile.mkdtemp(prefix=PREFIX))
            self._lock = _lock_folder(self.folder)
        self.net = Network(self.folder)
        if threading.current_thread() is threading.main_thread():
            # The default would end us without the cleanup; SystemExit unwinds the block instead.
            self._old_sigterm = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        return self

    def __exit__(self, kind, error, _):
        for host in self.hosts:
            host.close()
        self.net.close()
        if isinstance(error, Exception) and self.logs():
            error.add_note(f"logs: {self._keep_logs()}")
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()
        if self._old_sigterm is not None:
            signal.signal(signal.SIGTERM, self._old_sigterm)

    def logs(self):
        """The console and command logs that exist."""
        paths = [path for host in self.hosts for path in (host.log, host.transcript)]
        return [path for path in paths if path.exists()]

    def _keep_logs(self):
        self.build.mkdir(parents=True, exist_ok=True)
        kept = Path(tempfile.mkdtemp(prefix="lab-logs-", dir=self.build))
        for path in self.logs():
            shutil.copy(path, kept)
        return kept


def _lock_folder(folder):
    """A lock that lives as long as this process, and tells others that the folder is in use."""
    lock = open(folder / "lock", "w")
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return lock


def _sweep():
    """Removes the folders of labs that were killed: those whose lock nobody holds."""
    for folder in Path(tempfile.gettempdir()).glob(PREFIX + "*"):
        try:
            with _lock_folder(folder):
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue
